//! `bench idle`: subscriptions that receive nothing.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::counters::Used;
use super::publisher::Until;
use super::reader::ReadTask;
use super::worker::{Mark, Task, Worker};
use super::world::{Folder, NodeProcess};
use super::{Measurement, profiles, rounded};
use crate::cli::{BenchIdleArgs, BenchLoad, Output};
use crate::errors::CommandError;

const STREAM: &str = "quiet";

pub(super) fn words(args: &BenchIdleArgs) -> Measurement {
    Measurement {
        bench: "idle",
        what: "subscriptions of one quiet stream, each of an organization of its own over a connection of its own",
        options: json!({
            "subscriptions": args.subscriptions,
            "subscriptions_per_process": args.per_reader,
            "warmup_s": args.warmup,
            "seconds": args.seconds,
            "memory_is": "resident memory of the node: the agreement's share is what came with the organizations and their agreements, the \
                          connection's what came with the subscriptions",
        }),
    }
}

pub(super) async fn run(
    args: &BenchIdleArgs,
    folder: &Folder,
    output: &mut Output,
) -> Result<Value, CommandError> {
    let mtu = BenchLoad::default().mtu;
    let mut node = NodeProcess::start(folder, "producer", mtu, 1).await?;
    node.create_stream(STREAM).await?;
    let empty = Used::of(node.pid())?;
    let began = Instant::now();
    let mut readers = Vec::new();
    let mut left = args.subscriptions;
    while left > 0 {
        let count = left.min(args.per_reader);
        left -= count;
        let mut organizations = Vec::new();
        for _ in 0..count {
            organizations.push(vec![node.invite(STREAM).await?]);
        }
        let mut reader = Worker::start(&Task::Read(ReadTask {
            organizations,
            profiles: profiles(folder, &format!("readers-{left}")),
            keep: false,
            mtu,
            until: Until::Ended,
        }))?;
        reader.mark(Mark::Joined).await?;
        readers.push(reader);
        output.note(&format!(
            "{} of {} joined",
            args.subscriptions - left,
            args.subscriptions
        ));
    }
    let joined = Used::of(node.pid())?;
    let join_seconds = began.elapsed().as_secs_f64();
    for reader in &mut readers {
        reader.tell()?;
        reader.mark(Mark::Ready).await?;
    }
    let set_up_seconds = began.elapsed().as_secs_f64();
    output.note("subscribed; waiting for quiet, then measuring");
    tokio::time::sleep(Duration::from_secs(args.warmup)).await;
    let before = Used::of(node.pid())?;
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    let after = Used::of(node.pid())?;
    node.check_running()?;
    for reader in &mut readers {
        reader.check_running()?;
    }
    let used = after.since(&before);
    let each = |more: u64, less: u64| {
        rounded(
            more.saturating_sub(less) as f64 / f64::from(args.subscriptions),
            0,
        )
    };
    Ok(json!({
        "node_bytes_per_subscription": each(after.memory_bytes, empty.memory_bytes),
        "of_that_agreement_bytes": each(joined.memory_bytes, empty.memory_bytes),
        "of_that_connection_bytes": each(after.memory_bytes, joined.memory_bytes),
        "node_share_of_a_core": rounded(used.core_ns as f64 / used.wall_ns.max(1) as f64, 4),
        "node_memory_bytes": after.memory_bytes,
        "node_memory_before_bytes": empty.memory_bytes,
        "join_seconds": rounded(join_seconds, 1),
        "set_up_seconds": rounded(set_up_seconds, 1),
    }))
}
