//! `bench`: what this machine does, with every part in a process of its own over loopback QUIC and a real disk.
//!
//! ```text
//! bench publish   publisher ══QUIC══► node ──► disk                        acknowledged = durable, chained, under a signed checkpoint
//! bench deliver   publisher ══QUIC══► node ══QUIC══► consumer              handed on = verified in the consumer's process
//! bench fan-out   publisher ══QUIC══► node ══QUIC══► 1, then N consumers   what a further one costs
//! bench catch-up                 disk ──► node ══QUIC══► consumer          a stored stream from its start
//! bench idle                              node ══QUIC══► N consumers       which receive nothing
//! bench restart                  disk ──► node                             after KILL
//! bench revoke    publisher ══QUIC══► node ══QUIC══► N consumers           until each is told that it reads no more
//! bench verify    evidence ──► verifier                                    beside plain SHA-256 of the same bytes
//! bench raw       disk, SHA-256, QUIC                                      without a node
//! ```
//!
//! The command starts its own binary again for each part (`bench worker`), gives it its task on stdin, and reads what it measured from its
//! stdout. Time, memory and bytes written of each part come from `/proc`. Each run has a node of its own; given are median, lowest and highest
//! of each figure, and the runs themselves. Processes and directories end with the command, however it ends.

mod ahead;
mod catching_up;
mod copying;
mod counters;
mod delivering;
mod fanning_out;
mod files;
mod histogram;
mod idling;
mod machine;
mod proving;
mod publisher;
mod publishing;
mod raw;
mod reader;
mod restarting;
mod revoking;
mod sample;
mod summary;
mod verifying;
mod worker;
mod world;

use std::path::Path;

use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use self::counters::Used;
use self::sample::{EVENT_ATTRIBUTES, Sample};
use self::world::Folder;
use crate::cli::{BenchLoad, BenchVerb, CommandResult, Exit, Output, View};
use crate::errors::{CommandError, ErrorCode};

/// Connections that one key of a measurement has at most: with [`CONNECTIONS_ENDING`] the largest value that `quic.connections_per_peer` takes.
const CONNECTIONS_PER_KEY: u32 = 1_000;

/// Connections of a key that a node may still count while they end: joining has one of its own.
const CONNECTIONS_ENDING: u32 = 24;

/// Connections that one process has in the making at a time: below what a node lets wait (`quic.incoming_max`, `quic.retry_above`).
const CONNECTING_MAX: usize = 32;

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
    let value = tokio::select! {
        value = measured(verb, output) => value?,
        _ = terminate.recv() => return Err(CommandError::new(ErrorCode::Interrupted, "told to stop")),
    };
    if output.is_json() {
        output.value(&View::FIELDS, &value)?;
    } else {
        output.value(&View::FIELDS, &Value::Object(for_people(&value)))?;
    }
    Ok(Exit::Ok)
}

/// What a verb measures, and the words to it.
struct Measurement {
    /// The verb.
    bench: &'static str,
    what: &'static str,
    options: Value,
}

async fn measured(verb: &BenchVerb, output: &mut Output) -> Result<Value, CommandError> {
    let (measurement, runs, dir) = match verb {
        BenchVerb::Publish(args) => (publishing::words(args), args.runs.runs, &args.runs.dir),
        BenchVerb::Deliver(args) => (
            delivering::words(args),
            args.publish.runs.runs,
            &args.publish.runs.dir,
        ),
        BenchVerb::FanOut(args) => (fanning_out::words(args), args.runs.runs, &args.runs.dir),
        BenchVerb::CatchUp(args) => (catching_up::words(args), args.runs.runs, &args.runs.dir),
        BenchVerb::Verify(args) => (verifying::words(args), args.runs.runs, &args.runs.dir),
        BenchVerb::Idle(args) => (idling::words(args), args.runs, &args.dir),
        BenchVerb::Prove(args) => (proving::words(args), args.runs.runs, &args.runs.dir),
        BenchVerb::Restart(args) => (restarting::words(args), args.runs.runs, &args.runs.dir),
        BenchVerb::Revoke(args) => (revoking::words(args), args.runs.runs, &args.runs.dir),
        BenchVerb::Raw(args) => (raw::words(args), args.runs.runs, &args.runs.dir),
        BenchVerb::Worker => return Ok(Value::Null),
    };
    let mut each = Vec::new();
    let mut machine = Value::Null;
    for run in 1..=runs {
        output.note(&format!("run {run} of {runs}"));
        let folder = Folder::make(dir.as_deref())?;
        machine = machine::facts(folder.path());
        each.push(one_run(verb, &folder, output).await?);
    }
    let Measurement {
        bench,
        what,
        options,
    } = measurement;
    Ok(json!({
        "bench": bench,
        "what": what,
        "runs": runs,
        "figures": summary::summary(&each),
        "each": each,
        "options": options,
        "machine": machine,
    }))
}

async fn one_run(
    verb: &BenchVerb,
    folder: &Folder,
    output: &mut Output,
) -> Result<Value, CommandError> {
    match verb {
        BenchVerb::Publish(args) => publishing::run(args, folder, output).await,
        BenchVerb::Deliver(args) => delivering::run(args, folder, output).await,
        BenchVerb::FanOut(args) => fanning_out::run(args, folder, output).await,
        BenchVerb::CatchUp(args) => catching_up::run(args, folder, output).await,
        BenchVerb::Verify(args) => verifying::run(args, folder, output).await,
        BenchVerb::Idle(args) => idling::run(args, folder, output).await,
        BenchVerb::Prove(args) => proving::run(args, folder, output).await,
        BenchVerb::Restart(args) => restarting::run(args, folder, output).await,
        BenchVerb::Revoke(args) => revoking::run(args, folder, output).await,
        BenchVerb::Raw(args) => raw::run(args, folder, output).await,
        BenchVerb::Worker => Ok(Value::Null),
    }
}

/// The figures first, without the single runs.
fn for_people(value: &Value) -> serde_json::Map<String, Value> {
    let mut lines = summary::lines(
        &json!({"bench": value["bench"], "what": value["what"], "runs": value["runs"]}),
    );
    lines.extend(summary::lines(&value["figures"]));
    let around = json!({"options": value["options"], "machine": value["machine"]});
    lines.extend(summary::lines(&around));
    lines
}

fn load_json(load: &BenchLoad, streams: u32) -> Value {
    let sample = Sample::new(load.size);
    json!({
        "data_bytes": load.size,
        "encrypted": load.encrypted,
        "attributes": EVENT_ATTRIBUTES,
        "attribute_value_bytes": sample.attribute_value_bytes(),
        "attribute_encoded_bytes": sample.attribute_bytes(),
        "streams": streams,
        "publisher_batch_bytes": load.batch_bytes,
        "publisher_window_bytes": load.window_bytes,
        "publishers": "one connection for each stream, one series each, all in one process",
        "mtu_max_bytes": load.mtu,
        "transport": "QUIC over loopback, TLS 1.3, raw public keys",
    })
}

/// Two objects as one.
fn merged(mut first: Value, second: Value) -> Value {
    if let (Value::Object(members), Value::Object(more)) = (&mut first, second) {
        members.extend(more);
    }
    first
}

fn used_json(used: &Used, events: u64) -> Value {
    let per_event = |count: u64| rounded(count as f64 / events.max(1) as f64, 1);
    json!({
        "core_ns_per_event": per_event(used.core_ns),
        "cores": rounded(used.core_ns as f64 / used.wall_ns.max(1) as f64, 3),
        "memory_peak_bytes": used.memory_peak_bytes,
        "file_written_bytes_per_event": per_event(used.file_written_bytes),
    })
}

fn since(after: &[Used], before: &[Used]) -> Vec<Used> {
    after
        .iter()
        .zip(before)
        .map(|(after, before)| after.since(before))
        .collect()
}

/// The folder of the profiles of one reading process.
fn profiles(folder: &Folder, name: &str) -> std::path::PathBuf {
    Path::join(folder.path(), name)
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
