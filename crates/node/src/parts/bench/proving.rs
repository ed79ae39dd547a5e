//! `bench prove`: what proofs and checkpoints of a long log cost, beside those of a short one.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use super::counters::Used;
use super::publisher::{Pace, PublishTask, Published, Until};
use super::summary::median;
use super::worker::{Task, Worker};
use super::world::{Folder, NodeProcess};
use super::{Measurement, load_json, merged, rounded};
use crate::admin::Command;
use crate::cli::{BenchProveArgs, Output};
use crate::errors::CommandError;

/// Proofs of each kind; the median counts.
const PROOFS: u64 = 41;

/// Single events handed in a second while checkpoints are timed: slow enough that each has a commit and a checkpoint of its own.
const SINGLES_PER_SECOND: u32 = 50;

/// Seconds of that.
const SINGLES_S: u64 = 4;

const STREAM: &str = "bench-1";

/// Where files live in memory.
const MEMORY: &str = "/dev/shm";

pub(super) fn words(args: &BenchProveArgs) -> Measurement {
    let options = json!({
        "events": args.events,
        "proofs": PROOFS,
        "proof_is": "from the command to its answer over the node's socket: read, proven, verified, files written and synced, to memory where there is /dev/shm",
        "checkpoint_is": "from handing in one event to its acknowledgement: durable, and under a checkpoint that is published by then",
    });
    Measurement {
        bench: "prove",
        what: "a node with a log of so many entries proves events spread over it and its growth by half, and signs checkpoints of single events",
        options: merged(load_json(&args.load, 1), options),
    }
}

pub(super) async fn run(
    args: &BenchProveArgs,
    folder: &Folder,
    output: &mut Output,
) -> Result<Value, CommandError> {
    let mut node = NodeProcess::start(folder, "producer", args.load.mtu, 1).await?;
    let half = Until::Events(args.events / 2);
    let task = PublishTask::new(&args.load, &node, 1, Pace::Flood, half).await?;
    let rest = task.again(Pace::Flood, Until::Events(args.events - args.events / 2));
    let singles = task.again(
        Pace::Singles(SINGLES_PER_SECOND),
        Until::Seconds {
            warmup: 1,
            counted: SINGLES_S,
        },
    );
    output.note("publishing what the log holds");
    publish(task).await?;
    let old = node.signed_size(STREAM).await?;
    publish(rest).await?;
    let size = node.signed_size(STREAM).await?;
    let memory = Used::of(node.pid())?.memory_bytes;

    output.note("proving");
    let proofs = Proofs::folder(folder);
    // Spread over the log, each from another tile: what the node still has from the one before helps little.
    let sequences = (0..PROOFS).map(|at| (size - 1) * at / (PROOFS - 1));
    let mut inclusion = Cost::default();
    for (at, sequence) in sequences.enumerate() {
        let out = proofs.0.join(format!("{at}.tlog-proof"));
        let command = Command::StreamProof {
            stream: STREAM.to_owned(),
            sequence,
            timestamped: false,
            fields: None,
            out: out.display().to_string(),
        };
        inclusion.time(&node, command, &out).await?;
    }
    let mut growth = Cost::default();
    for at in 0..PROOFS {
        let out = proofs.0.join(format!("growth-{at}.tlog-consistency"));
        let command = Command::StreamConsistency {
            stream: STREAM.to_owned(),
            old,
            new: Some(size),
            out: out.display().to_string(),
        };
        growth.time(&node, command, &out).await?;
    }
    drop(proofs);

    output.note("publishing single events");
    let published = publish(singles).await?;
    let after = Used::of(node.pid())?;
    node.check_running()?;
    Ok(json!({
        "entries": size,
        "older_entries": old,
        "inclusion_ms": inclusion.milliseconds(),
        "inclusion_bytes": inclusion.bytes,
        "consistency_ms": growth.milliseconds(),
        "consistency_bytes": growth.bytes,
        "checkpoint_latency": published.latency,
        "checkpoints": published.events,
        "node_memory_bytes": memory,
        "node_memory_peak_bytes": after.memory_peak_bytes,
    }))
}

async fn publish(task: PublishTask) -> Result<Published, CommandError> {
    let mut publisher = Worker::start(&Task::Publish(task))?;
    publisher.result().await
}

/// Proofs of one kind.
#[derive(Default)]
struct Cost {
    seconds: Vec<f64>,
    /// Of the largest proof file, without what lies beside it.
    bytes: u64,
}

impl Cost {
    async fn time(
        &mut self,
        node: &NodeProcess,
        command: Command,
        file: &Path,
    ) -> Result<(), CommandError> {
        let started = Instant::now();
        node.call(command).await?;
        self.seconds.push(started.elapsed().as_secs_f64());
        let bytes = std::fs::metadata(file).map_or(0, |metadata| metadata.len());
        self.bytes = self.bytes.max(bytes);
        Ok(())
    }

    fn milliseconds(&self) -> f64 {
        rounded(median(&self.seconds) * 1e3, 3)
    }
}

/// Where proofs are written; goes with the measurement.
struct Proofs(PathBuf);

impl Proofs {
    fn folder(folder: &Folder) -> Self {
        let name = folder.path().file_name().unwrap_or_default();
        let memory = Path::new(MEMORY).join(name);
        let made = std::fs::create_dir(&memory).is_ok();
        Self(if made {
            memory
        } else {
            folder.path().to_owned()
        })
    }
}

impl Drop for Proofs {
    fn drop(&mut self) {
        // The measurement's own folder goes by itself.
        if self.0.starts_with(MEMORY) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}
