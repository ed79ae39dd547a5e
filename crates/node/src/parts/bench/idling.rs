//! `bench idle`: subscriptions that receive nothing.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::counters::Used;
use super::publisher::Until;
use super::reader::{Read, ReadTask};
use super::worker::{Mark, Task, Worker};
use super::world::{Folder, NodeProcess};
use super::{CONNECTIONS_PER_KEY, Measurement, profiles, rounded};
use crate::cli::{BenchIdleArgs, BenchLoad, Output};
use crate::errors::{CommandError, ErrorCode};

const STREAM: &str = "quiet";

pub(super) fn words(args: &BenchIdleArgs) -> Measurement {
    Measurement {
        bench: "idle",
        what: "subscriptions of one quiet stream, each over a connection of its own",
        options: json!({
            "subscriptions": args.subscriptions,
            "organizations": args.organizations.min(args.subscriptions),
            "subscriptions_per_process": args.per_reader,
            "warmup_s": args.warmup,
            "seconds": args.seconds,
            "memory_is": "resident memory of the node: for each organization what came with it and its agreement, for each subscription what came \
                          with its connection after that",
        }),
    }
}

pub(super) async fn run(
    args: &BenchIdleArgs,
    folder: &Folder,
    output: &mut Output,
) -> Result<Value, CommandError> {
    let organizations = args.organizations.min(args.subscriptions);
    let each = args.subscriptions.div_ceil(organizations);
    if each > CONNECTIONS_PER_KEY {
        let message = format!(
            "{each} subscriptions of one organization are more connections than the {CONNECTIONS_PER_KEY} that a node grants one key"
        );
        return Err(CommandError::new(ErrorCode::Usage, message)
            .advise("raise `--organizations`, or lower `--subscriptions`"));
    }
    let mtu = BenchLoad::default().mtu;
    let mut node = NodeProcess::start(folder, "producer", mtu, each).await?;
    node.create_stream(STREAM).await?;
    let empty = Used::of(node.pid())?;
    let began = Instant::now();
    let mut readers = Vec::new();
    let mut links = node.invite_many(STREAM, organizations).await?;
    let per_reader = (args.per_reader / each).max(1) as usize;
    while !links.is_empty() {
        let rest = links.split_off(per_reader.min(links.len()));
        let mut reader = Worker::start(&Task::Read(ReadTask {
            organizations: links.into_iter().map(|link| vec![link]).collect(),
            subscriptions_each: each,
            profiles: profiles(folder, &format!("readers-{}", rest.len())),
            keep: false,
            mtu,
            taken: None,
            until: Until::Ended,
        }))?;
        reader.mark(Mark::Joined).await?;
        readers.push(reader);
        links = rest;
        output.note(&format!(
            "{} of {organizations} organizations joined",
            organizations as usize - links.len()
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
    let mut connected = 0;
    for reader in &mut readers {
        connected += reader.ask::<Read>().await?.connected;
    }
    let used = after.since(&before);
    let share =
        |more: u64, less: u64, of: f64| rounded(more.saturating_sub(less) as f64 / of.max(1.0), 0);
    Ok(json!({
        "connected": connected,
        "node_bytes_per_subscription": share(after.memory_bytes, joined.memory_bytes, connected as f64),
        "node_bytes_per_organization": share(joined.memory_bytes, empty.memory_bytes, f64::from(organizations)),
        "node_share_of_a_core": rounded(used.core_ns as f64 / used.wall_ns.max(1) as f64, 4),
        "node_memory_bytes": after.memory_bytes,
        "node_memory_before_bytes": empty.memory_bytes,
        "join_seconds": rounded(join_seconds, 1),
        "set_up_seconds": rounded(set_up_seconds, 1),
    }))
}
