//! `bench publish`: from handing in to the acknowledgement.

use serde_json::{Value, json};

use super::counters::Used;
use super::publisher::{Pace, PublishTask, Published, Until};
use super::worker::{Mark, Task, Worker};
use super::world::{Folder, NodeProcess};
use super::{
    CONNECTIONS_PER_KEY, Measurement, load_json, megabytes, merged, rate, rounded, since, used_json,
};
use crate::cli::{BenchPublishArgs, Output};
use crate::errors::CommandError;

pub(super) fn words(args: &BenchPublishArgs) -> Measurement {
    let latency_is = match args.rate {
        None => "of a whole batch, from the moment the window took it to its acknowledgement",
        Some(_) => "of a single event, from handing it in to its acknowledgement",
    };
    Measurement {
        bench: "publish",
        what: "durable publish: acknowledged = on stable storage, in the chain, under a signed checkpoint",
        options: merged(options(args), json!({"latency_is": latency_is})),
    }
}

/// The options of publishing, for `bench deliver` too.
pub(super) fn options(args: &BenchPublishArgs) -> Value {
    let more = json!({
        "rate_per_second": args.rate,
        "warmup_s": args.window.warmup,
        "seconds": args.window.seconds,
    });
    merged(load_json(&args.load, args.streams), more)
}

/// As it is asked for: at a rate one by one, otherwise as many as go.
pub(super) fn pace(args: &BenchPublishArgs) -> Pace {
    args.rate.map_or(Pace::Flood, Pace::Singles)
}

pub(super) async fn run(
    args: &BenchPublishArgs,
    folder: &Folder,
    output: &mut Output,
) -> Result<Value, CommandError> {
    let connections = args.streams.min(CONNECTIONS_PER_KEY);
    let mut node = NodeProcess::start(folder, "producer", args.load.mtu, connections).await?;
    let until = Until::window(args.window);
    let task = PublishTask::new(&args.load, &node, args.streams, pace(args), until).await?;
    let mut publisher = Worker::start(&Task::Publish(task))?;
    output.note("warming up, then measuring");
    publisher.mark(Mark::Begin).await?;
    let pids = [node.pid(), publisher.pid()];
    let before = Used::of_all(&pids)?;
    publisher.mark(Mark::End).await?;
    let used = since(&Used::of_all(&pids)?, &before);
    let measured: Published = publisher.result().await?;
    node.check_running()?;
    let events = measured.events;
    Ok(json!({
        "events_per_second": rate(events, measured.seconds),
        "data_mb_per_second": megabytes(events * u64::from(args.load.size), measured.seconds),
        "events": events,
        "seconds": rounded(measured.seconds, 3),
        "latency": measured.latency,
        "node": used_json(&used[0], events),
        "publisher": used_json(&used[1], events),
    }))
}
