//! `bench restart`: a node with many entries is killed and started again.

use serde_json::{Value, json};

use super::publisher::{Pace, PublishTask, Until};
use super::worker::{Task, Worker};
use super::world::{Folder, NodeProcess};
use super::{Measurement, load_json, merged, rounded};
use crate::cli::{BenchRestartArgs, Output};
use crate::errors::{CommandError, ErrorCode};

pub(super) fn words(args: &BenchRestartArgs) -> Measurement {
    let options = json!({
        "events": args.events,
        "serves_is": "from the start of the process to the first answer to a command, with its doors open and every acknowledged entry in its log",
    });
    Measurement {
        bench: "restart",
        what: "a node is ended by KILL while it holds so many entries, and started again on the same directory",
        options: merged(load_json(&args.load, 1), options),
    }
}

pub(super) async fn run(
    args: &BenchRestartArgs,
    folder: &Folder,
    output: &mut Output,
) -> Result<Value, CommandError> {
    let node = NodeProcess::start(folder, "producer", args.load.mtu, 1).await?;
    let task = PublishTask::new(
        &args.load,
        &node,
        1,
        Pace::Flood,
        Until::Events(args.events),
    )
    .await?;
    output.note("publishing what the node holds");
    let mut publisher = Worker::start(&Task::Publish(task))?;
    publisher.result::<Value>().await?;
    drop(publisher);
    output.note("killing the node, and starting it again");
    let (mut node, took) = node.kill_and_start().await?;
    let entries = node.entries().await?;
    node.check_running()?;
    if entries < args.events {
        let message = format!(
            "{} events were acknowledged, and after the restart there are {entries} entries",
            args.events
        );
        return Err(CommandError::new(ErrorCode::LogDamaged, message));
    }
    Ok(json!({
        "serves_after_ms": rounded(took.as_secs_f64() * 1e3, 1),
        "entries": entries,
    }))
}
