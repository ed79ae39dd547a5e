//! The reading process: a program with the client library and no node, which verifies what comes and takes it over.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use countersign_client::profile::Profile;
use countersign_client::subscriber::SubscribeError;
use countersign_client::{Clock, Subscriber};
use countersign_crypto::OsEntropy;
use countersign_exchange::Clock as _;
use countersign_protocol::invitation::Invitation;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

use super::histogram::Histogram;
use super::sample::{made_ns, now_ns};
use super::worker::{Mark, Stage};
use crate::clock::SystemClock;
use crate::errors::{CommandError, ErrorCode};

/// What to read.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct ReadTask {
    /// An invitation for each stream.
    pub(super) links: Vec<String>,
    /// The file for keys and positions; it must not exist.
    pub(super) profile: PathBuf,
    pub(super) mtu: u16,
    pub(super) warmup_seconds: u64,
    pub(super) seconds: u64,
}

/// What was measured.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Read {
    /// Events handed on within the time.
    pub(super) events: u64,
    pub(super) batches: u64,
    pub(super) seconds: f64,
    pub(super) latency: Value,
    /// Entries that the producer had signed and this process had not taken.
    pub(super) lag_at_begin: u64,
    pub(super) lag_at_end: u64,
}

/// What all streams count together. Locked once a batch.
#[derive(Default)]
struct Tally {
    events: u64,
    batches: u64,
    latency: Histogram,
    is_counting: bool,
    /// For each stream: size of the newest head, next sequence.
    positions: Vec<(u64, u64)>,
}

type Shared = Arc<Mutex<Tally>>;

pub(super) async fn run(task: ReadTask, stage: &mut Stage<'_>) -> Result<Read, CommandError> {
    let system = SystemClock::new();
    let clock: Clock = Arc::new(move || system.now());
    let mut entropy = OsEntropy::new().map_err(internal)?;
    let profile =
        Profile::create(&task.profile, "bench reader", clock(), &mut entropy).map_err(internal)?;
    let tally = Shared::default();
    let (broken, mut breaks) = mpsc::channel::<SubscribeError>(1);
    for (index, link) in task.links.iter().enumerate() {
        let invitation: Invitation = link.parse().map_err(internal)?;
        let joined = profile
            .join(&invitation, Arc::clone(&clock), |_| true)
            .await
            .map_err(internal)?;
        let entropy = OsEntropy::new().map_err(internal)?;
        let mut options = profile
            .subscriber(
                &joined.agreement.stream,
                Arc::clone(&clock),
                Box::new(entropy),
            )
            .map_err(internal)?;
        options.session.limits.mtu_upper_bound = task.mtu;
        let subscriber = Subscriber::subscribe(options).await.map_err(internal)?;
        locked(&tally, |tally| tally.positions.push((0, 0)));
        let (tally, broken) = (Arc::clone(&tally), broken.clone());
        tokio::spawn(async move {
            if let Err(error) = take(subscriber, index, &tally).await {
                let _ = broken.try_send(error);
            }
        });
    }
    stage.mark(Mark::Ready)?;
    let window = async {
        tokio::time::sleep(Duration::from_secs(task.warmup_seconds)).await;
        let lag_at_begin = locked(&tally, |tally| {
            tally.is_counting = true;
            tally.lag()
        });
        stage.mark(Mark::Begin)?;
        let started = Instant::now();
        tokio::time::sleep(Duration::from_secs(task.seconds)).await;
        let read = locked(&tally, |tally| {
            tally.is_counting = false;
            Read {
                events: tally.events,
                batches: tally.batches,
                seconds: started.elapsed().as_secs_f64(),
                latency: tally.latency.to_json(),
                lag_at_begin,
                lag_at_end: tally.lag(),
            }
        });
        stage.mark(Mark::End)?;
        Ok(read)
    };
    tokio::select! {
        read = window => read,
        Some(error) = breaks.recv() => Err(internal(error)),
    }
}

/// Takes every event: looks at its data, and acknowledges the batch, so that receipts say *applied*.
async fn take(
    mut subscriber: Subscriber,
    index: usize,
    tally: &Shared,
) -> Result<(), SubscribeError> {
    while let Some(batch) = subscriber.next().await? {
        let now = now_ns();
        let head = subscriber.status().borrow().head.max(batch.end());
        locked(tally, |tally| {
            if let Some(position) = tally.positions.get_mut(index) {
                *position = (head, batch.end());
            }
            if tally.is_counting {
                tally.batches += 1;
            }
            for event in batch.events() {
                let made = made_ns(event.data_part_bytes());
                if tally.is_counting {
                    tally.events += 1;
                    if let Some(made) = made {
                        tally.latency.add(now.saturating_sub(made));
                    }
                }
            }
        });
        subscriber.ack(batch.cursor())?;
    }
    Ok(())
}

impl Tally {
    fn lag(&self) -> u64 {
        self.positions
            .iter()
            .map(|(head, next)| head.saturating_sub(*next))
            .sum()
    }
}

fn locked<T>(tally: &Shared, act: impl FnOnce(&mut Tally) -> T) -> T {
    act(&mut tally.lock().unwrap_or_else(PoisonError::into_inner))
}

fn internal(error: impl std::fmt::Display) -> CommandError {
    CommandError::new(ErrorCode::Internal, format_args!("reading failed: {error}"))
}
