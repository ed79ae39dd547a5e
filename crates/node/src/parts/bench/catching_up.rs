//! `bench catch-up`: a stored stream, read from its start over a live connection.

use serde_json::{Value, json};

use super::counters::Used;
use super::publisher::{Pace, PublishTask, Until};
use super::reader::{Read, ReadTask};
use super::worker::{Mark, Task, Worker};
use super::world::{Folder, NodeProcess};
use super::{Measurement, load_json, megabytes, merged, profiles, rate, rounded, since, used_json};
use crate::cli::{BenchCatchUpArgs, Output};
use crate::errors::CommandError;

pub(super) fn words(args: &BenchCatchUpArgs) -> Measurement {
    let options = json!({
        "events": args.events,
        "counted": "from subscribing to the last event taken, with the receipts on the way; joining before does not count",
    });
    Measurement {
        bench: "catch-up",
        what: "stored at the producer → QUIC → verified → handed on to a program with the client library, from the start of the stream",
        options: merged(load_json(&args.load, 1), options),
    }
}

pub(super) async fn run(
    args: &BenchCatchUpArgs,
    folder: &Folder,
    output: &mut Output,
) -> Result<Value, CommandError> {
    let mut node = NodeProcess::start(folder, "producer", args.load.mtu, 1).await?;
    let until = Until::Events(args.events);
    let task = PublishTask::new(&args.load, &node, 1, Pace::Flood, until).await?;
    let stream = task.streams.concat();
    if !args.load.encrypted {
        node.create_stream(&stream).await?;
    }
    output.note("publishing what is read");
    let mut publisher = Worker::start(&Task::Publish(task))?;
    publisher.result::<Value>().await?;
    drop(publisher);
    let mut reader = Worker::start(&Task::Read(ReadTask {
        organizations: vec![vec![node.invite(&stream).await?]],
        subscriptions_each: 1,
        profiles: profiles(folder, "readers"),
        keep: true,
        mtu: args.load.mtu,
        taken: None,
        until,
    }))?;
    reader.mark(Mark::Joined).await?;
    output.note("measuring");
    let pids = [node.pid(), reader.pid()];
    let before = Used::of_all(&pids)?;
    reader.tell()?;
    reader.mark(Mark::End).await?;
    let used = since(&Used::of_all(&pids)?, &before);
    let measured: Read = reader.result().await?;
    node.check_running()?;
    let events = measured.events;
    Ok(json!({
        "events_per_second": rate(events, measured.seconds),
        "data_mb_per_second": megabytes(events * u64::from(args.load.size), measured.seconds),
        "events": events,
        "seconds": rounded(measured.seconds, 3),
        "batches": measured.batches,
        "node": used_json(&used[0], events),
        "consumer": used_json(&used[1], events),
    }))
}
