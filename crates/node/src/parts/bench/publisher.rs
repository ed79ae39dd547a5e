//! The publishing process: an enrolled application with the client library, a connection and a series for each stream.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use countersign_client::publisher::{BATCH_EVENTS_MAX, Pending, PublishError, PublisherOptions};
use countersign_client::quic::QuicLimits;
use countersign_client::{Expected, Publisher, SessionOptions};
use countersign_crypto::{OsEntropy, SigningKey};
use countersign_event::content::{EventRef, Limits};
use countersign_exchange::Clock as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use super::histogram::Histogram;
use super::sample::{Sample, now_ns};
use super::worker::{Mark, Stage};
use super::world::NodeProcess;
use crate::cli::BenchArgs;
use crate::clock::SystemClock;
use crate::errors::{CommandError, ErrorCode};

/// Batches of one publisher that wait for their acknowledgement at most, before the window stops it.
const PENDING_MAX: usize = 4_096;

/// Largest data of an event here: what the nodes of a measurement take.
const LIMITS: Limits = Limits::FORMAT;

/// What to publish, and how.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct PublishTask {
    addresses: Vec<String>,
    organization: String,
    /// The application's key, PEM.
    key: String,
    pub(super) streams: Vec<String>,
    data_bytes: u32,
    batch_bytes: u32,
    window_bytes: u32,
    rate: Option<u32>,
    mtu: u16,
    warmup_seconds: u64,
    /// Absent: until the process is ended.
    seconds: Option<u64>,
    /// Absent: as many as go.
    events: Option<u64>,
}

impl PublishTask {
    pub(super) fn new(
        args: &BenchArgs,
        node: &NodeProcess,
        app: App,
        seconds: Option<u64>,
    ) -> Self {
        Self {
            addresses: app.addresses,
            organization: node.fingerprint().to_string(),
            key: app.key,
            streams: (1..=args.streams)
                .map(|number| format!("bench-{number}"))
                .collect(),
            data_bytes: args.size,
            batch_bytes: args.batch_bytes,
            window_bytes: args.window_bytes,
            rate: args.rate,
            mtu: args.mtu,
            warmup_seconds: args.warmup,
            seconds,
            events: None,
        }
    }

    /// The same, but so many events and then the end.
    pub(super) fn only(self, events: u64) -> Self {
        Self {
            events: Some(events),
            ..self
        }
    }
}

/// An application as a node knows it.
pub(super) struct App {
    /// Its key, PEM.
    pub(super) key: String,
    /// Where the node listens.
    pub(super) addresses: Vec<String>,
}

/// What was measured.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Published {
    /// Events acknowledged within the time.
    pub(super) events: u64,
    pub(super) seconds: f64,
    pub(super) latency: Value,
}

/// What all streams count together. Locked once a batch.
#[derive(Default)]
struct Tally {
    events: u64,
    latency: Histogram,
    is_counting: bool,
}

type Shared = Arc<Mutex<Tally>>;

pub(super) async fn run(
    task: PublishTask,
    stage: &mut Stage<'_>,
) -> Result<Published, CommandError> {
    let tally = Shared::default();
    let (broken, mut breaks) = mpsc::channel::<PublishError>(1);
    let (stop, stopping) = watch::channel(false);
    let mut publishers = Vec::new();
    for (index, stream) in task.streams.iter().enumerate() {
        let publisher = Publisher::connect(options(&task, stream, index)?)
            .await
            .map_err(failed)?;
        publishers.push(Arc::new(publisher));
    }
    stage.mark(Mark::Ready)?;
    let share = task.window_bytes / task.streams.len().max(1) as u32;
    let pusher = Pusher {
        sample: Sample::new(task.data_bytes),
        // Several batches on the way for each stream, or none of them waits for the disk in vain.
        batch_bytes: task.batch_bytes.min((share / 4).max(1)) as usize,
        tally: Arc::clone(&tally),
        broken,
        stopping,
    };
    let mut tasks = tokio::task::JoinSet::new();
    match task.rate {
        None => {
            for publisher in publishers {
                tasks.spawn(pusher.clone().flood(publisher, task.events));
            }
        }
        Some(rate) => pusher.clone().pace(publishers, rate),
    }
    drop(pusher);
    if task.events.is_some() {
        while let Some(end) = tasks.join_next().await {
            end.map_err(|error| CommandError::new(ErrorCode::Internal, error))?;
        }
        return finish(&tally, &mut breaks, Duration::ZERO);
    }
    let wait = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
    let window = async {
        wait(task.warmup_seconds).await;
        locked(&tally, |tally| tally.is_counting = true);
        stage.mark(Mark::Begin)?;
        let started = Instant::now();
        match task.seconds {
            Some(seconds) => wait(seconds).await,
            None => std::future::pending().await,
        }
        locked(&tally, |tally| tally.is_counting = false);
        let seconds = started.elapsed();
        stage.mark(Mark::End)?;
        Ok::<Duration, CommandError>(seconds)
    };
    let seconds = tokio::select! {
        seconds = window => seconds?,
        Some(error) = breaks.recv() => return Err(failed(error)),
    };
    stop.send_replace(true);
    finish(&tally, &mut breaks, seconds)
}

fn finish(
    tally: &Shared,
    breaks: &mut mpsc::Receiver<PublishError>,
    time: Duration,
) -> Result<Published, CommandError> {
    if let Ok(error) = breaks.try_recv() {
        return Err(failed(error));
    }
    Ok(locked(tally, |tally| Published {
        events: tally.events,
        seconds: time.as_secs_f64(),
        latency: tally.latency.to_json(),
    }))
}

#[derive(Clone)]
struct Pusher {
    sample: Sample,
    batch_bytes: usize,
    tally: Shared,
    broken: mpsc::Sender<PublishError>,
    stopping: watch::Receiver<bool>,
}

impl Pusher {
    /// Batches, one after the other, as fast as the window opens.
    async fn flood(mut self, publisher: Arc<Publisher>, events: Option<u64>) {
        let (pending, acknowledged) = mpsc::channel(PENDING_MAX);
        let collecting = tokio::spawn(self.clone().collect(acknowledged));
        let mut left = events.unwrap_or(u64::MAX);
        let mut number = 0;
        while left > 0 && !*self.stopping.borrow() {
            let mut bulk = Vec::with_capacity(self.batch_bytes + self.sample.len());
            let mut count = 0;
            // One clock reading for a batch: its events are made together.
            let now = now_ns();
            while (count == 0 || bulk.len() < self.batch_bytes)
                && count < BATCH_EVENTS_MAX
                && left > 0
            {
                number += 1;
                left -= 1;
                count += 1;
                bulk.extend_from_slice(self.sample.event(number, now));
            }
            match publisher.publish_batch(bulk.into(), count).await {
                Ok(handed) => {
                    let _ = pending
                        .send((Instant::now(), u64::from(count), handed))
                        .await;
                }
                Err(error) => return self.fail(error),
            }
        }
        drop(pending);
        let _ = collecting.await;
    }

    /// Single events at a rate, streams in turn, from a thread that may sleep in fractions of a millisecond.
    fn pace(mut self, publishers: Vec<Arc<Publisher>>, rate: u32) {
        let runtime = tokio::runtime::Handle::current();
        let (pending, acknowledged) = mpsc::channel(PENDING_MAX);
        tokio::spawn(self.clone().collect(acknowledged));
        std::thread::spawn(move || {
            let started = Instant::now();
            for number in 1_u64.. {
                if *self.stopping.borrow() {
                    return;
                }
                // By the schedule, not by the event before: a late one does not make all others late.
                let due = started + Duration::from_secs_f64(number as f64 / f64::from(rate));
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let Some(publisher) = publishers.get(number as usize % publishers.len().max(1))
                else {
                    return;
                };
                let handed = Instant::now();
                self.sample.event(number, now_ns());
                let (attributes, data_part) = self.sample.parts();
                // INVARIANT: a test checks the sample in every size.
                let Ok(event) = EventRef::check(attributes, data_part, &LIMITS) else {
                    return;
                };
                match runtime.block_on(publisher.publish(event)) {
                    Ok(wait) => {
                        let _ = pending.blocking_send((handed, 1, wait));
                    }
                    Err(error) => return self.fail(error),
                }
            }
        });
    }

    /// Waits for acknowledgements in their order, and counts them.
    async fn collect(self, mut acknowledged: mpsc::Receiver<(Instant, u64, Pending)>) {
        while let Some((handed, count, pending)) = acknowledged.recv().await {
            if let Err(error) = pending.acknowledged().await {
                return self.fail(error);
            }
            let ns = u64::try_from(handed.elapsed().as_nanos()).unwrap_or(u64::MAX);
            locked(&self.tally, |tally| {
                if tally.is_counting {
                    tally.events += count;
                    tally.latency.add(ns);
                }
            });
        }
    }

    fn fail(&self, error: PublishError) {
        // The first one is told; at the end nobody listens.
        let _ = self.broken.try_send(error);
    }
}

fn options(
    task: &PublishTask,
    stream: &str,
    index: usize,
) -> Result<PublisherOptions, CommandError> {
    let usage = |error: &dyn std::fmt::Display| CommandError::new(ErrorCode::Usage, error);
    let key = SigningKey::from_pem(&task.key).map_err(|error| usage(&error))?;
    let organization = task.organization.parse().map_err(|error| usage(&error))?;
    let clock = SystemClock::new();
    let limits = QuicLimits {
        mtu_upper_bound: task.mtu,
        ..QuicLimits::default()
    };
    let session = SessionOptions {
        limits,
        ..SessionOptions::new(
            task.addresses.clone(),
            Expected::organization(organization),
            key,
            Arc::new(move || clock.now()),
        )
    };
    let entropy = OsEntropy::new().map_err(|error| usage(&error))?;
    let mut series = [0x62; 16];
    series[8..].copy_from_slice(&(index as u64).to_be_bytes());
    Ok(PublisherOptions {
        create: true,
        window_bytes: task.window_bytes as usize / task.streams.len().max(1),
        batch_bytes: task.batch_bytes as usize,
        ..PublisherOptions::new(session, stream, series, Box::new(entropy))
    })
}

fn locked<T>(tally: &Shared, act: impl FnOnce(&mut Tally) -> T) -> T {
    act(&mut tally.lock().unwrap_or_else(PoisonError::into_inner))
}

fn failed(error: PublishError) -> CommandError {
    CommandError::new(
        ErrorCode::Internal,
        format_args!("publishing failed: {error}"),
    )
}
