//! `bench`: what this machine does, with every part in a process of its own over loopback QUIC and a real disk.
//!
//! ```text
//! bench publish   publisher ══QUIC══► node ──► disk                        acknowledged = durable, chained, under a signed checkpoint
//! bench deliver   publisher ══QUIC══► node ══QUIC══► consumer              handed on = verified in the consumer's process
//! bench verify    evidence ──► verifier                                    beside plain SHA-256 of the same bytes
//! ```
//!
//! The command starts its own binary again for each part (`bench worker`), gives it its task on stdin, and reads what it measured from its
//! stdout. Time, memory and bytes written of each part come from `/proc`. Processes and directories end with the command, however it ends.

mod counters;
mod histogram;
mod machine;
mod publisher;
mod reader;
mod sample;
mod verifying;
mod worker;
mod world;

use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::signal::unix::{SignalKind, signal};

use self::counters::Used;
use self::publisher::{App, PublishTask};
use self::reader::ReadTask;
use self::sample::{EVENT_ATTRIBUTES, Sample};
use self::worker::{Mark, Task, Worker};
use self::world::{Folder, NodeProcess};
use crate::cli::{
    BenchArgs, BenchDeliverArgs, BenchVerb, CommandResult, Consumer, Exit, Output, View,
};
use crate::errors::{CommandError, ErrorCode};

/// Measures, or plays one part of a measurement.
///
/// # Errors
/// What the parts report; [`ErrorCode::Interrupted`] on a signal.
pub(super) async fn bench(verb: &BenchVerb, output: &mut Output) -> CommandResult {
    if matches!(verb, BenchVerb::Worker) {
        return worker::run(output).await;
    }
    let io = |error: std::io::Error| CommandError::new(ErrorCode::Io, error);
    // Ctrl-C is the caller's: both end this future, and with it all processes and directories.
    let mut terminate = signal(SignalKind::terminate()).map_err(io)?;
    let measured = async {
        match verb {
            BenchVerb::Publish(args) => publish(args, output).await,
            BenchVerb::Deliver(args) => deliver(args, output).await,
            BenchVerb::Verify(args) => verifying::verify(args, output).await,
            BenchVerb::Worker => Ok(Value::Null),
        }
    };
    let value = tokio::select! {
        value = measured => value?,
        _ = terminate.recv() => return Err(CommandError::new(ErrorCode::Interrupted, "told to stop")),
    };
    if output.is_json() {
        output.value(&View::FIELDS, &value)?;
    } else {
        output.value(&View::FIELDS, &flat(&value))?;
    }
    Ok(Exit::Ok)
}

async fn publish(args: &BenchArgs, output: &mut Output) -> Result<Value, CommandError> {
    let folder = Folder::make(args.dir.as_deref())?;
    let mut node = NodeProcess::start(&folder, "producer", args.mtu, args.streams).await?;
    let task = PublishTask::new(args, &node, enrol(&node).await?, Some(args.seconds));
    let mut publisher = Worker::start(&Task::Publish(task))?;
    output.note("warming up, then measuring");
    publisher.mark(Mark::Begin).await?;
    let before = [Used::of(node.pid())?, Used::of(publisher.pid())?];
    publisher.mark(Mark::End).await?;
    let after = [Used::of(node.pid())?, Used::of(publisher.pid())?];
    let measured: publisher::Published = publisher.result().await?;
    node.check_running()?;
    let events = measured.events;
    let [node_used, publisher_used] = [0, 1].map(|part| after[part].since(&before[part]));
    Ok(json!({
        "bench": "publish",
        "what": "durable publish: acknowledged = on stable storage, in the chain, under a signed checkpoint",
        "events_per_second": rate(events, measured.seconds),
        "data_mb_per_second": megabytes(events * u64::from(args.size), measured.seconds),
        "events": events,
        "seconds": rounded(measured.seconds, 3),
        "batch_ack_latency": measured.latency,
        "latency_is": latency_words(args),
        "node": used_json(&node_used, &after[0], events),
        "publisher": used_json(&publisher_used, &after[1], events),
        "options": options_json(args),
        "machine": machine::facts(folder.path()),
    }))
}

async fn deliver(args: &BenchDeliverArgs, output: &mut Output) -> Result<Value, CommandError> {
    match args.to {
        Consumer::Client => deliver_to_client(&args.common, output).await,
        Consumer::Node => deliver_to_node(&args.common, output).await,
    }
}

async fn deliver_to_client(args: &BenchArgs, output: &mut Output) -> Result<Value, CommandError> {
    let folder = Folder::make(args.dir.as_deref())?;
    let mut node = NodeProcess::start(&folder, "producer", args.mtu, args.streams).await?;
    let key = enrol(&node).await?;
    let task = PublishTask::new(args, &node, key, None);
    let mut links = Vec::new();
    for stream in &task.streams {
        node.create_stream(stream).await?;
        links.push(node.invite(stream).await?);
    }
    let reading = ReadTask {
        links,
        profile: folder.path().join("reader.json"),
        mtu: args.mtu,
        warmup_seconds: args.warmup,
        seconds: args.seconds,
    };
    let mut reader = Worker::start(&Task::Read(reading))?;
    reader.mark(Mark::Ready).await?;
    let mut publisher = Worker::start(&Task::Publish(task))?;
    output.note("warming up, then measuring");
    reader.mark(Mark::Begin).await?;
    let pids = [node.pid(), publisher.pid(), reader.pid()];
    let before = Used::of_all(&pids)?;
    reader.mark(Mark::End).await?;
    let after = Used::of_all(&pids)?;
    let measured: reader::Read = reader.result().await?;
    publisher.check_running()?;
    node.check_running()?;
    let used: Vec<Used> = after
        .iter()
        .zip(&before)
        .map(|(after, before)| after.since(before))
        .collect();
    let events = measured.events;
    Ok(json!({
        "bench": "deliver",
        "what": "published → durable at the producer → QUIC → verified → handed on to a program with the client library",
        "events_per_second": rate(events, measured.seconds),
        "data_mb_per_second": megabytes(events * u64::from(args.size), measured.seconds),
        "events": events,
        "seconds": rounded(measured.seconds, 3),
        "batches": measured.batches,
        "lag_events_at_begin": measured.lag_at_begin,
        "lag_events_at_end": measured.lag_at_end,
        "latency": measured.latency,
        "latency_is": "from the moment an event was made (the time is in its data) to the moment it was handed on, both by the system clock",
        "node": used_json(&used[0], &after[0], events),
        "publisher": used_json(&used[1], &after[1], events),
        "consumer": used_json(&used[2], &after[2], events),
        "options": options_json(args),
        "machine": machine::facts(folder.path()),
    }))
}

async fn deliver_to_node(args: &BenchArgs, output: &mut Output) -> Result<Value, CommandError> {
    let folder = Folder::make(args.dir.as_deref())?;
    let mut producer = NodeProcess::start(&folder, "producer", args.mtu, args.streams).await?;
    let mut consumer = NodeProcess::start(&folder, "consumer", args.mtu, args.streams).await?;
    let key = enrol(&producer).await?;
    let task = PublishTask::new(args, &producer, key, None);
    for stream in &task.streams {
        producer.create_stream(stream).await?;
        consumer.join(&producer.invite(stream).await?).await?;
    }
    let mut publisher = Worker::start(&Task::Publish(task))?;
    output.note("warming up, then measuring");
    tokio::time::sleep(Duration::from_secs(args.warmup)).await;
    let pids = [producer.pid(), publisher.pid(), consumer.pid()];
    let (before, sizes_before) = (
        Used::of_all(&pids)?,
        (producer.entries().await?, consumer.entries().await?),
    );
    let started = std::time::Instant::now();
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    let sizes_after = (producer.entries().await?, consumer.entries().await?);
    let seconds = started.elapsed().as_secs_f64();
    let after = Used::of_all(&pids)?;
    publisher.check_running()?;
    producer.check_running()?;
    consumer.check_running()?;
    let used: Vec<Used> = after
        .iter()
        .zip(&before)
        .map(|(after, before)| after.since(before))
        .collect();
    let events = sizes_after.1.saturating_sub(sizes_before.1);
    Ok(json!({
        "bench": "deliver",
        "what": "published → durable at the producer → QUIC → verified → durable in the copy of a consumer's node",
        "events_per_second": rate(events, seconds),
        "data_mb_per_second": megabytes(events * u64::from(args.size), seconds),
        "events": events,
        "seconds": rounded(seconds, 3),
        "lag_events_at_begin": sizes_before.0.saturating_sub(sizes_before.1),
        "lag_events_at_end": sizes_after.0.saturating_sub(sizes_after.1),
        "node": used_json(&used[0], &after[0], events),
        "publisher": used_json(&used[1], &after[1], events),
        "consumer": used_json(&used[2], &after[2], events),
        "options": options_json(args),
        "machine": machine::facts(folder.path()),
    }))
}

/// A new application that the node knows.
async fn enrol(node: &NodeProcess) -> Result<App, CommandError> {
    let internal = |error: &dyn std::fmt::Display| CommandError::new(ErrorCode::Internal, error);
    let mut entropy = countersign_crypto::OsEntropy::new().map_err(|error| internal(&error))?;
    let key = countersign_crypto::SigningKey::generate(&mut entropy);
    let addresses = node.enrol(&key.public().to_base64()).await?;
    let key = key.to_pem().map_err(|error| internal(&error))?.to_string();
    Ok(App { key, addresses })
}

fn latency_words(args: &BenchArgs) -> &'static str {
    match args.rate {
        None => "of a whole batch, from the moment the window took it to its acknowledgement",
        Some(_) => "of a single event, from handing it in to its acknowledgement",
    }
}

fn options_json(args: &BenchArgs) -> Value {
    let sample = Sample::new(args.size);
    json!({
        "data_bytes": args.size,
        "attributes": EVENT_ATTRIBUTES,
        "attribute_value_bytes": sample.attribute_value_bytes(),
        "attribute_encoded_bytes": sample.attribute_bytes(),
        "streams": args.streams,
        "warmup_s": args.warmup,
        "rate_per_second": args.rate,
        "publisher_batch_bytes": args.batch_bytes,
        "publisher_window_bytes": args.window_bytes,
        "publishers": "one connection for each stream, one series each, all in one process",
        "mtu_max_bytes": args.mtu,
        "transport": "QUIC over loopback, TLS 1.3, raw public keys",
    })
}

fn used_json(used: &Used, end: &Used, events: u64) -> Value {
    let per_event = |count: u64| rounded(count as f64 / events.max(1) as f64, 1);
    json!({
        "core_ns_per_event": per_event(used.core_ns),
        "cores": rounded(used.core_ns as f64 / used.wall_ns.max(1) as f64, 2),
        "memory_peak_bytes": end.memory_peak_bytes,
        "file_written_bytes_per_event": per_event(used.file_written_bytes),
    })
}

fn rate(events: u64, seconds: f64) -> f64 {
    rounded(events as f64 / seconds.max(f64::MIN_POSITIVE), 0)
}

fn megabytes(bytes: u64, seconds: f64) -> f64 {
    rounded(bytes as f64 / 1e6 / seconds.max(f64::MIN_POSITIVE), 1)
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

/// Members of members as `outer.inner`, for the table that people read.
fn flat(value: &Value) -> Value {
    let mut all = Map::new();
    if let Value::Object(members) = value {
        for (key, value) in members {
            match value {
                Value::Object(inner) => {
                    all.extend(
                        inner
                            .iter()
                            .map(|(name, value)| (format!("{key}.{name}"), value.clone())),
                    );
                }
                value => {
                    all.insert(key.clone(), value.clone());
                }
            }
        }
    }
    Value::Object(all)
}
