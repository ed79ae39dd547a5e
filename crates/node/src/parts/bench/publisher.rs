//! The publishing process: an application with the client library, a connection and a series for each stream.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use countersign_client::publisher::{BATCH_EVENTS_MAX, Pending, PublishError, PublisherOptions};
use countersign_client::quic::QuicLimits;
use countersign_client::{Expected, Publisher, SessionOptions};
use countersign_crypto::{OsEntropy, SigningKey};
use countersign_event::content::{EventRef, Limits};
use countersign_event::encryption::Encryption;
use countersign_exchange::Clock as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::ahead::{Ahead, Limit};
use super::histogram::Histogram;
use super::sample::{Sample, now_ns};
use super::worker::{Mark, Stage};
use super::world::NodeProcess;
use super::{CONNECTING_MAX, CONNECTIONS_PER_KEY, files};
use crate::cli::{BenchLoad, BenchWindow};
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
    /// The applications' keys, PEM; streams take turns.
    keys: Vec<String>,
    pub(super) streams: Vec<String>,
    data_bytes: u32,
    batch_bytes: u32,
    window_bytes: u32,
    mtu: u16,
    pace: Pace,
    until: Until,
    /// How far it may be ahead of a reader.
    pub(super) ahead: Option<Ahead>,
}

/// How events are handed in.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Pace {
    /// In batches, as many as go.
    Flood,
    /// In batches, so many events a second.
    Batches(u32),
    /// One at a time, so many a second, streams in turn.
    Singles(u32),
}

/// When it is done.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Until {
    /// When it is ended; it tells what was acknowledged so far when it is asked.
    Ended,
    /// When so many events of each stream are acknowledged.
    Events(u64),
    /// When every subscription was ended by the producer.
    Refused,
    /// After so many seconds that do not count, and so many that do.
    Seconds { warmup: u64, counted: u64 },
}

impl Until {
    pub(super) fn window(window: BenchWindow) -> Self {
        Self::Seconds {
            warmup: window.warmup,
            counted: window.seconds,
        }
    }
}

impl PublishTask {
    /// Enrolls as many applications as the streams need, one for each [`CONNECTIONS_PER_KEY`].
    ///
    /// # Errors
    /// What enrolling reports.
    pub(super) async fn new(
        load: &BenchLoad,
        node: &NodeProcess,
        streams: u32,
        pace: Pace,
        until: Until,
    ) -> Result<Self, CommandError> {
        let (mut keys, mut addresses) = (Vec::new(), Vec::new());
        for number in 1..=streams.div_ceil(CONNECTIONS_PER_KEY).max(1) {
            let mut entropy = OsEntropy::new().map_err(internal)?;
            let key = SigningKey::generate(&mut entropy);
            let app = format!("bench-{number}");
            addresses = node.enrol(&app, &key.public().to_base64()).await?;
            keys.push(key.to_pem().map_err(internal)?.to_string());
        }
        let streams: Vec<String> = (1..=streams)
            .map(|number| format!("bench-{number}"))
            .collect();
        // Others begin with the first event.
        if load.encrypted {
            for stream in &streams {
                node.create_with(stream, Encryption::Partners).await?;
            }
        }
        Ok(Self {
            addresses,
            organization: node.fingerprint().to_string(),
            keys,
            streams,
            data_bytes: load.size,
            batch_bytes: load.batch_bytes,
            window_bytes: load.window_bytes,
            mtu: load.mtu,
            pace,
            until,
            ahead: None,
        })
    }

    /// The same applications and streams once more, at another pace: what was handed in before stays, and is not handed in again.
    pub(super) fn again(&self, pace: Pace, until: Until) -> Self {
        Self {
            addresses: self.addresses.clone(),
            organization: self.organization.clone(),
            keys: self.keys.clone(),
            streams: self.streams.clone(),
            pace,
            until,
            ahead: None,
            ..*self
        }
    }
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
    files::make_room(2 * task.streams.len() as u64)?;
    let tally = Shared::default();
    let (broken, mut breaks) = mpsc::channel::<PublishError>(1);
    let (stop, stopping) = watch::channel(false);
    let publishers = connect(&task).await?;
    stage.mark(Mark::Ready)?;
    let share = task.window_bytes / task.streams.len().max(1) as u32;
    let pusher = Pusher {
        sample: Sample::new(task.data_bytes),
        // Several batches on the way for each stream, or none of them waits for the disk in vain.
        batch_bytes: task.batch_bytes.min((share / 4).max(1)) as usize,
        tally: Arc::clone(&tally),
        broken,
        stopping,
        limit: limit(&task)?,
    };
    let started = Instant::now();
    if !matches!(task.until, Until::Seconds { .. }) {
        locked(&tally, |tally| tally.is_counting = true);
    }
    let events = match task.until {
        Until::Events(events) => Some(events),
        _ => None,
    };
    let mut tasks = JoinSet::new();
    let share_of = |rate: u32| f64::from(rate) / task.streams.len().max(1) as f64;
    match task.pace {
        Pace::Singles(rate) => pusher.clone().pace(publishers, rate),
        Pace::Flood | Pace::Batches(_) => {
            let rate = match task.pace {
                Pace::Batches(rate) => Some(share_of(rate)),
                _ => None,
            };
            for publisher in publishers {
                tasks.spawn(pusher.clone().flood(publisher, rate, events));
            }
        }
    }
    drop(pusher);
    let wait = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
    let window = async {
        match task.until {
            Until::Ended | Until::Refused => loop {
                stage.told().await;
                stage.result(&published(&tally, started.elapsed()))?;
            },
            Until::Events(_) => {
                while let Some(end) = tasks.join_next().await {
                    end.map_err(internal)?;
                }
                Ok(started.elapsed())
            }
            Until::Seconds { warmup, counted } => {
                wait(warmup).await;
                locked(&tally, |tally| tally.is_counting = true);
                stage.mark(Mark::Begin)?;
                let started = Instant::now();
                wait(counted).await;
                locked(&tally, |tally| tally.is_counting = false);
                let seconds = started.elapsed();
                stage.mark(Mark::End)?;
                Ok::<Duration, CommandError>(seconds)
            }
        }
    };
    let seconds = tokio::select! {
        seconds = window => seconds?,
        Some(error) = breaks.recv() => return Err(failed(&error)),
    };
    stop.send_replace(true);
    if let Ok(error) = breaks.try_recv() {
        return Err(failed(&error));
    }
    Ok(published(&tally, seconds))
}

fn limit(task: &PublishTask) -> Result<Option<Arc<Limit>>, CommandError> {
    let event_bytes = Sample::new(task.data_bytes).len();
    let limit = task
        .ahead
        .as_ref()
        .map(|ahead| Limit::open(ahead, event_bytes));
    Ok(limit.transpose()?.map(Arc::new))
}

fn published(tally: &Shared, time: Duration) -> Published {
    locked(tally, |tally| Published {
        events: tally.events,
        seconds: time.as_secs_f64(),
        latency: tally.latency.to_json(),
    })
}

/// A publisher for each stream, in their order; some dozens connect at a time.
async fn connect(task: &PublishTask) -> Result<Vec<Arc<Publisher>>, CommandError> {
    let mut publishers = Vec::new();
    let numbered: Vec<(usize, &String)> = task.streams.iter().enumerate().collect();
    for some in numbered.chunks(CONNECTING_MAX) {
        let mut connecting = JoinSet::new();
        for (index, stream) in some {
            let (index, options) = (*index, options(task, stream, *index)?);
            connecting.spawn(async move { (index, Publisher::connect(options).await) });
        }
        while let Some(done) = connecting.join_next().await {
            let (index, publisher) = done.map_err(internal)?;
            publishers.push((index, Arc::new(publisher.map_err(|error| failed(&error))?)));
        }
    }
    publishers.sort_unstable_by_key(|(index, _)| *index);
    Ok(publishers
        .into_iter()
        .map(|(_, publisher)| publisher)
        .collect())
}

#[derive(Clone)]
struct Pusher {
    sample: Sample,
    batch_bytes: usize,
    tally: Shared,
    broken: mpsc::Sender<PublishError>,
    stopping: watch::Receiver<bool>,
    limit: Option<Arc<Limit>>,
}

impl Pusher {
    /// Batches, one after the other, as fast as the window opens, or at a rate.
    async fn flood(mut self, publisher: Arc<Publisher>, rate: Option<f64>, events: Option<u64>) {
        let (pending, acknowledged) = mpsc::channel(PENDING_MAX);
        let collecting = tokio::spawn(self.clone().collect(acknowledged));
        let started = tokio::time::Instant::now();
        let mut left = events.unwrap_or(u64::MAX);
        let mut number = 0;
        while left > 0 && !*self.stopping.borrow() {
            if let Some(rate) = rate {
                // By the schedule, not by the batch before: a late one does not make all others late.
                let due = started + Duration::from_secs_f64(number as f64 / rate);
                tokio::time::sleep_until(due).await;
            }
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
            if let Some(limit) = &self.limit {
                limit.wait(u64::from(count)).await;
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
        // Acknowledgements are awaited stream by stream: one that is late must not make those of others look late.
        let share = (PENDING_MAX / publishers.len().max(1)).max(64);
        let streams: Vec<_> = publishers
            .into_iter()
            .map(|publisher| {
                let (pending, acknowledged) = mpsc::channel(share);
                tokio::spawn(self.clone().collect(acknowledged));
                (publisher, pending)
            })
            .collect();
        std::thread::spawn(move || {
            let started = Instant::now();
            for number in 1_u64.. {
                if *self.stopping.borrow() {
                    return;
                }
                // By the schedule, not by the event before: a late one does not make all others late.
                let due = started + Duration::from_secs_f64(number as f64 / f64::from(rate));
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let Some((publisher, pending)) =
                    streams.get(number as usize % streams.len().max(1))
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
    let Some(key) = task.keys.get(index % task.keys.len().max(1)) else {
        return Err(usage(&"a task without a key"));
    };
    let key = SigningKey::from_pem(key).map_err(|error| usage(&error))?;
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

fn internal(error: impl std::fmt::Display) -> CommandError {
    CommandError::new(ErrorCode::Internal, error)
}

fn failed(error: &PublishError) -> CommandError {
    internal(format_args!("publishing failed: {error}"))
}
