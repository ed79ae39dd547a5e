//! `bench deliver`: from the making of an event to the consumer.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::ahead::Ahead;
use super::counters::Used;
use super::publisher::{PublishTask, Until};
use super::publishing::{options, pace};
use super::reader::{Read, ReadTask};
use super::worker::{Mark, Task, Worker};
use super::world::{Folder, NodeProcess};
use super::{
    CONNECTIONS_PER_KEY, Measurement, megabytes, merged, profiles, rate, rounded, since, used_json,
};
use crate::cli::{BenchDeliverArgs, BenchPublishArgs, Consumer, Output};
use crate::errors::CommandError;

/// Streams that one organization reads, where there are many.
const STREAMS_PER_ORGANIZATION: usize = 64;

pub(super) fn words(args: &BenchDeliverArgs) -> Measurement {
    let (what, consumers) = match args.to {
        Consumer::Client => (
            "published → durable at the producer → QUIC → verified → handed on to a program with the client library",
            "an organization for each 64 streams, a connection for each stream, all in one process; with one stream the position is kept on the \
             disk, with several in memory",
        ),
        Consumer::Node => (
            "published → durable at the producer → QUIC → verified → durable in the copy of a consumer's node",
            "one node",
        ),
    };
    let latency_is = "from the moment an event was made (the time is in its data) to the moment it was handed on, both by the system clock";
    Measurement {
        bench: "deliver",
        what,
        options: merged(
            options(&args.publish),
            json!({
                "latency_is": latency_is,
                "consumers": consumers,
                "published_and_not_handed_on_bytes_max": args.ahead_bytes,
            }),
        ),
    }
}

pub(super) async fn run(
    args: &BenchDeliverArgs,
    folder: &Folder,
    output: &mut Output,
) -> Result<Value, CommandError> {
    match args.to {
        Consumer::Client => to_client(args, folder, output).await,
        Consumer::Node => to_node(&args.publish, folder, output).await,
    }
}

async fn to_client(
    args: &BenchDeliverArgs,
    folder: &Folder,
    output: &mut Output,
) -> Result<Value, CommandError> {
    let ahead = Ahead {
        file: folder.path().join("taken"),
        bytes: args.ahead_bytes,
    };
    let args = &args.publish;
    let connections = args.streams.min(CONNECTIONS_PER_KEY);
    let mut node = NodeProcess::start(folder, "producer", args.load.mtu, connections).await?;
    let mut task =
        PublishTask::new(&args.load, &node, args.streams, pace(args), Until::Ended).await?;
    task.ahead = Some(ahead.clone());
    let mut links = Vec::new();
    for stream in &task.streams {
        if !args.load.encrypted {
            node.create_stream(stream).await?;
        }
        links.push(node.invite(stream).await?);
    }
    let mut reader = Worker::start(&Task::Read(ReadTask {
        organizations: links
            .chunks(STREAMS_PER_ORGANIZATION)
            .map(<[_]>::to_vec)
            .collect(),
        subscriptions_each: 1,
        profiles: profiles(folder, "readers"),
        keep: links.len() == 1,
        mtu: args.load.mtu,
        taken: Some(ahead.file),
        until: Until::window(args.window),
    }))?;
    reader.mark(Mark::Joined).await?;
    // The publisher connects while the reader does: what comes first is delivered later, in the warm-up.
    let mut publisher = Worker::start(&Task::Publish(task))?;
    publisher.mark(Mark::Ready).await?;
    reader.tell()?;
    output.note("warming up, then measuring");
    reader.mark(Mark::Begin).await?;
    let pids = [node.pid(), publisher.pid(), reader.pid()];
    let before = Used::of_all(&pids)?;
    reader.mark(Mark::End).await?;
    let used = since(&Used::of_all(&pids)?, &before);
    let measured: Read = reader.result().await?;
    publisher.check_running()?;
    node.check_running()?;
    let events = measured.events;
    Ok(json!({
        "events_per_second": rate(events, measured.seconds),
        "data_mb_per_second": megabytes(events * u64::from(args.load.size), measured.seconds),
        "events": events,
        "seconds": rounded(measured.seconds, 3),
        "batches": measured.batches,
        "lag_events_at_begin": measured.lag_at_begin,
        "lag_events_at_end": measured.lag_at_end,
        "latency": measured.latency,
        "node": used_json(&used[0], events),
        "publisher": used_json(&used[1], events),
        "consumer": used_json(&used[2], events),
    }))
}

async fn to_node(
    args: &BenchPublishArgs,
    folder: &Folder,
    output: &mut Output,
) -> Result<Value, CommandError> {
    let connections = args.streams.min(CONNECTIONS_PER_KEY);
    let mut producer = NodeProcess::start(folder, "producer", args.load.mtu, connections).await?;
    let mut consumer = NodeProcess::start(folder, "consumer", args.load.mtu, connections).await?;
    let task = PublishTask::new(
        &args.load,
        &producer,
        args.streams,
        pace(args),
        Until::Ended,
    )
    .await?;
    for stream in &task.streams {
        if !args.load.encrypted {
            producer.create_stream(stream).await?;
        }
        consumer.join(&producer.invite(stream).await?).await?;
    }
    let mut publisher = Worker::start(&Task::Publish(task))?;
    publisher.mark(Mark::Ready).await?;
    output.note("warming up, then measuring");
    tokio::time::sleep(Duration::from_secs(args.window.warmup)).await;
    let pids = [producer.pid(), publisher.pid(), consumer.pid()];
    let before = Used::of_all(&pids)?;
    let sizes_before = (producer.entries().await?, consumer.entries().await?);
    let started = Instant::now();
    tokio::time::sleep(Duration::from_secs(args.window.seconds)).await;
    let sizes_after = (producer.entries().await?, consumer.entries().await?);
    let seconds = started.elapsed().as_secs_f64();
    let used = since(&Used::of_all(&pids)?, &before);
    publisher.check_running()?;
    producer.check_running()?;
    consumer.check_running()?;
    let events = sizes_after.1.saturating_sub(sizes_before.1);
    Ok(json!({
        "events_per_second": rate(events, seconds),
        "data_mb_per_second": megabytes(events * u64::from(args.load.size), seconds),
        "events": events,
        "seconds": rounded(seconds, 3),
        "lag_events_at_begin": sizes_before.0.saturating_sub(sizes_before.1),
        "lag_events_at_end": sizes_after.0.saturating_sub(sizes_after.1),
        "node": used_json(&used[0], events),
        "publisher": used_json(&used[1], events),
        "consumer": used_json(&used[2], events),
    }))
}
