//! `bench revoke`: how long a partner is still delivered to, once an administrator has taken access back.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::histogram::Histogram;
use super::publisher::{Pace, PublishTask, Until};
use super::reader::{Read, ReadTask};
use super::sample::now_ns;
use super::worker::{Mark, Task, Worker};
use super::world::{Folder, NodeProcess};
use super::{Measurement, load_json, merged, profiles};
use crate::admin::Command;
use crate::cli::{BenchRevokeArgs, Output};
use crate::errors::{CommandError, ErrorCode};

pub(super) fn words(args: &BenchRevokeArgs) -> Measurement {
    Measurement {
        bench: "revoke",
        what: "partners are revoked one by one while all of them read",
        options: merged(
            load_json(&args.load, 1),
            json!({
                "partners": args.partners,
                "rate_per_second": args.rate,
                "warmup_s": args.warmup,
                "told_after_is": "from the moment the command was given to the moment the partner's program had taken the signed notice, by the system clock",
                "past_the_position_is": "events that a partner took at or behind the position in its signed notice",
            }),
        ),
    }
}

pub(super) async fn run(
    args: &BenchRevokeArgs,
    folder: &Folder,
    output: &mut Output,
) -> Result<Value, CommandError> {
    let mut node = NodeProcess::start(folder, "producer", args.load.mtu, args.partners).await?;
    let pace = Pace::Singles(args.rate);
    let task = PublishTask::new(&args.load, &node, 1, pace, Until::Ended).await?;
    let Some(stream) = task.streams.first().cloned() else {
        return Err(lacking("a stream"));
    };
    if !args.load.encrypted {
        node.create_stream(&stream).await?;
    }
    let links = node.invite_many(&stream, args.partners).await?;
    let mut reader = Worker::start(&Task::Read(ReadTask {
        organizations: links.into_iter().map(|link| vec![link]).collect(),
        subscriptions_each: 1,
        profiles: profiles(folder, "readers"),
        keep: false,
        mtu: args.load.mtu,
        taken: None,
        until: Until::Refused,
    }))?;
    reader.mark(Mark::Joined).await?;
    let mut publisher = Worker::start(&Task::Publish(task))?;
    publisher.mark(Mark::Ready).await?;
    reader.tell()?;
    reader.mark(Mark::Ready).await?;
    output.note("warming up, then revoking");
    tokio::time::sleep(Duration::from_secs(args.warmup)).await;

    let (mut asked, mut answered) = (HashMap::new(), Histogram::default());
    for partner in partners(&node).await? {
        let began = now_ns();
        asked.insert(partner.clone(), began);
        let reason = "a measurement".to_owned();
        node.call(Command::PartnerRevoke { partner, reason })
            .await?;
        answered.add(now_ns().saturating_sub(began));
    }
    let read: Read = reader.result().await?;
    publisher.check_running()?;
    node.check_running()?;

    let (mut told, mut past, mut taken) = (Histogram::default(), 0, u64::MAX);
    for ending in &read.endings {
        let began = asked.get(&ending.consumer).copied();
        let began = began.ok_or_else(|| lacking("the partner that was revoked"))?;
        let position = ending
            .position
            .ok_or_else(|| lacking("a position in the notice"))?;
        told.add(ending.at_ns.saturating_sub(began));
        past += ending.next.saturating_sub(position);
        taken = taken.min(ending.next);
    }
    Ok(json!({
        "revoked": read.endings.len(),
        "told_after": told.to_json(),
        "command_answered_after": answered.to_json(),
        "past_the_position": past,
        "least_taken_before": taken,
    }))
}

async fn partners(node: &NodeProcess) -> Result<Vec<String>, CommandError> {
    let partners = node.call(Command::PartnerLs).await?;
    let partners = partners.as_array().into_iter().flatten();
    Ok(partners
        .filter_map(|partner| partner["authority"].as_str())
        .map(str::to_owned)
        .collect())
}

fn lacking(what: &str) -> CommandError {
    CommandError::new(
        ErrorCode::Internal,
        format_args!("the measurement lacks {what}"),
    )
}
