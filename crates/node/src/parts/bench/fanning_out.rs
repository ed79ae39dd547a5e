//! `bench fan-out`: one stream to one subscriber, then to many.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::copying;
use super::counters::Used;
use super::publisher::{Pace, PublishTask, Published, Until};
use super::reader::{Read, ReadTask};
use super::sample::Sample;
use super::worker::{Mark, Task, Worker};
use super::world::{Folder, NodeProcess};
use super::{Measurement, load_json, megabytes, merged, profiles, rate, rounded, since, used_json};
use crate::cli::{BenchFanOutArgs, Output};
use crate::errors::CommandError;

/// Seconds that the bare connection is measured.
const COPY_S: u64 = 1;

pub(super) fn words(args: &BenchFanOutArgs) -> Measurement {
    let options = json!({
        "subscribers": args.subscribers,
        "reader_processes": args.readers,
        "rate_per_second": (!args.flood).then_some(args.rate),
        "warmup_s": args.window.warmup,
        "seconds": args.window.seconds,
        "subscribers_are": "organizations of their own, a connection each, positions kept in memory",
        "further_subscriber_is": "core-time of the node with N subscribers less that with one, for each event delivered to the others",
        "quic_copy_is": "core-time of a process that only sends as many bytes over one QUIC connection, in frames of a publisher's batch",
    });
    Measurement {
        bench: "fan-out",
        what: "one publisher, one stream, N subscribers that verify and take every event",
        options: merged(load_json(&args.load, 1), options),
    }
}

pub(super) async fn run(
    args: &BenchFanOutArgs,
    folder: &Folder,
    output: &mut Output,
) -> Result<Value, CommandError> {
    let one = with_subscribers(args, 1, folder, output).await?;
    let many = with_subscribers(args, args.subscribers, folder, output).await?;
    let copy = copying::measure(args.load.mtu, args.load.batch_bytes, COPY_S).await?;
    let further_ns = further_ns(&one, &many);
    let copy_ns = copy["sender_core_ns_per_byte"].as_f64().unwrap_or_default()
        * Sample::new(args.load.size).wire_bytes() as f64;
    Ok(json!({
        "node_core_ns_per_event_with_one": rounded(one.core_ns_per_event(), 0),
        "node_core_ns_per_event_with_all": rounded(many.core_ns_per_event(), 0),
        "node_core_ns_per_event_and_further_subscriber": rounded(further_ns, 0),
        "quic_copy_core_ns_per_event": rounded(copy_ns, 0),
        "ratio_to_quic_copy": rounded(further_ns / copy_ns.max(f64::MIN_POSITIVE), 2),
        "with_one": one.to_json(args),
        "with_all": many.to_json(args),
        "quic_copy": copy,
    }))
}

/// What one step counted.
struct Step {
    seconds: f64,
    published: u64,
    delivered: u64,
    lag_at_end: u64,
    node: Used,
    publisher: Used,
    readers: Vec<Used>,
}

impl Step {
    fn core_ns_per_event(&self) -> f64 {
        self.node.core_ns as f64 / self.published.max(1) as f64
    }

    fn to_json(&self, args: &BenchFanOutArgs) -> Value {
        let readers_ns: u64 = self.readers.iter().map(|used| used.core_ns).sum();
        json!({
            "published_per_second": rate(self.published, self.seconds),
            "delivered_per_second": rate(self.delivered, self.seconds),
            "delivered_data_mb_per_second": megabytes(self.delivered * u64::from(args.load.size), self.seconds),
            "lag_events_at_end": self.lag_at_end,
            "node": used_json(&self.node, self.published),
            "publisher": used_json(&self.publisher, self.published),
            "readers_core_ns_per_event_and_subscriber": rounded(readers_ns as f64 / self.delivered.max(1) as f64, 0),
        })
    }
}

/// Both steps cost `a` for each event published and `b` for each delivered: `b`.
fn further_ns(one: &Step, many: &Step) -> f64 {
    let [core_1, published_1, delivered_1] =
        [one.node.core_ns, one.published, one.delivered].map(|count| count as f64);
    let [core_n, published_n, delivered_n] =
        [many.node.core_ns, many.published, many.delivered].map(|count| count as f64);
    let divisor = delivered_n * published_1 - delivered_1 * published_n;
    (core_n * published_1 - core_1 * published_n) / divisor.max(1.0)
}

async fn with_subscribers(
    args: &BenchFanOutArgs,
    subscribers: u32,
    folder: &Folder,
    output: &mut Output,
) -> Result<Step, CommandError> {
    let mut node =
        NodeProcess::start(folder, &format!("producer-{subscribers}"), args.load.mtu, 1).await?;
    let pace = if args.flood {
        Pace::Flood
    } else {
        Pace::Batches(args.rate)
    };
    let task = PublishTask::new(&args.load, &node, 1, pace, Until::Ended).await?;
    let stream = task.streams.concat();
    if !args.load.encrypted {
        node.create_stream(&stream).await?;
    }
    let links = node.invite_many(&stream, subscribers).await?;
    let mut readers = Vec::new();
    for (number, links) in links
        .chunks(links.len().div_ceil(args.readers as usize).max(1))
        .enumerate()
    {
        let mut reader = Worker::start(&Task::Read(ReadTask {
            organizations: links.iter().map(|link| vec![link.clone()]).collect(),
            subscriptions_each: 1,
            profiles: profiles(folder, &format!("readers-{subscribers}-{number}")),
            keep: false,
            mtu: args.load.mtu,
            taken: None,
            until: Until::Ended,
        }))?;
        reader.mark(Mark::Joined).await?;
        reader.tell()?;
        reader.mark(Mark::Ready).await?;
        readers.push(reader);
    }
    let mut publisher = Worker::start(&Task::Publish(task))?;
    publisher.mark(Mark::Ready).await?;
    output.note(&format!(
        "{subscribers} subscribed; warming up, then measuring"
    ));
    tokio::time::sleep(Duration::from_secs(args.window.warmup)).await;
    let mut pids = vec![node.pid(), publisher.pid()];
    pids.extend(readers.iter().map(Worker::pid));
    let before = (
        Used::of_all(&pids)?,
        counts(&mut publisher, &mut readers).await?,
    );
    let started = Instant::now();
    tokio::time::sleep(Duration::from_secs(args.window.seconds)).await;
    let seconds = started.elapsed().as_secs_f64();
    let after = (
        Used::of_all(&pids)?,
        counts(&mut publisher, &mut readers).await?,
    );
    node.check_running()?;
    let mut used = since(&after.0, &before.0);
    Ok(Step {
        seconds,
        published: after.1.published.saturating_sub(before.1.published),
        delivered: after.1.delivered.saturating_sub(before.1.delivered),
        lag_at_end: after.1.lag,
        readers: used.split_off(2),
        node: used[0],
        publisher: used[1],
    })
}

struct Counts {
    published: u64,
    delivered: u64,
    lag: u64,
}

async fn counts(publisher: &mut Worker, readers: &mut [Worker]) -> Result<Counts, CommandError> {
    let published: Published = publisher.ask().await?;
    let mut counts = Counts {
        published: published.events,
        delivered: 0,
        lag: 0,
    };
    for reader in readers {
        let read: Read = reader.ask().await?;
        counts.delivered += read.events;
        counts.lag += read.lag_at_end;
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2 µs for an event published, 300 ns for one delivered.
    fn step(published: u64, delivered: u64) -> Step {
        let mut used = Used::nothing();
        used.core_ns = published * 2_000 + delivered * 300;
        Step {
            seconds: 1.0,
            published,
            delivered,
            lag_at_end: 0,
            node: used,
            publisher: Used::nothing(),
            readers: Vec::new(),
        }
    }

    #[test]
    fn what_a_further_subscriber_costs_is_told_apart_from_publishing() {
        for (one, many) in [
            (step(10_000, 10_000), step(10_000, 1_000_000)),
            // With a flood nothing is equal.
            (step(50_000, 40_000), step(20_000, 700_000)),
        ] {
            assert!((further_ns(&one, &many) - 300.0).abs() < 0.01);
        }
    }
}
