//! The reading process: a program with the client library and no node, which verifies what comes and takes it over.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use countersign_client::join::{JoinerKeys, redeem};
use countersign_client::profile::Profile;
use countersign_client::subscriber::{Start, SubscribeError, SubscriberOptions, SubscriberStatus};
use countersign_client::{Clock, Expected, RefusedBy, SessionOptions, Subscriber};
use countersign_crypto::{OsEntropy, SigningKey};
use countersign_event::documents::{KeyStatement, Role, RoleKey};
use countersign_event::names::Authority;
use countersign_exchange::Clock as _;
use countersign_protocol::invitation::Invitation;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use super::ahead::Taken;
use super::histogram::Histogram;
use super::publisher::Until;
use super::sample::{made_ns, now_ns};
use super::worker::{Mark, Stage};
use super::{CONNECTING_MAX, files};
use crate::clock::SystemClock;
use crate::errors::{CommandError, ErrorCode};

/// What a reading organization calls itself.
const NAME: &str = "bench reader";

/// What to read.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct ReadTask {
    /// For each organization that this process plays, an invitation to each of its streams.
    pub(super) organizations: Vec<Vec<String>>,
    /// Subscriptions under each agreement. More than one begin after the newest entry.
    pub(super) subscriptions_each: u32,
    /// The folder for keys and positions; it must not exist.
    pub(super) profiles: PathBuf,
    /// Whether positions are kept on the disk, as a program would that wants to resume.
    pub(super) keep: bool,
    pub(super) mtu: u16,
    /// The file that tells a publisher how far this process is.
    pub(super) taken: Option<PathBuf>,
    /// Of [`Until::Events`] all streams together; of [`Until::Refused`] all subscriptions.
    pub(super) until: Until,
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
    /// Subscriptions with a session at the end.
    pub(super) connected: u64,
    /// Of [`Until::Refused`], how each ended.
    #[serde(default)]
    pub(super) endings: Vec<Ending>,
}

/// How the producer ended a subscription.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Ending {
    /// The organization that read.
    pub(super) consumer: String,
    /// When it was told, by the system clock.
    pub(super) at_ns: u64,
    /// The sequence after the last event that was handed on.
    pub(super) next: u64,
    /// The first sequence that is not delivered any more, as the signed notice says.
    pub(super) position: Option<u64>,
    /// The stable code of the notice.
    pub(super) code: String,
}

/// What all streams count together. Locked once a batch.
#[derive(Default)]
struct Tally {
    events: u64,
    batches: u64,
    latency: Histogram,
    is_counting: bool,
    /// Events after which it is done; zero: never.
    wanted: u64,
    /// For each stream: size of the newest head, next sequence.
    positions: Vec<(u64, u64)>,
    statuses: Vec<watch::Receiver<SubscriberStatus>>,
    /// How subscriptions ended, where that is awaited.
    endings: Vec<Ending>,
}

struct Shared {
    tally: Mutex<Tally>,
    reached: Notify,
    taken: Option<Taken>,
    /// Subscriptions that are to end; zero where an end is an error.
    to_end: usize,
}

pub(super) async fn run(task: ReadTask, stage: &mut Stage<'_>) -> Result<Read, CommandError> {
    let agreements: usize = task.organizations.iter().map(Vec::len).sum();
    let subscriptions = agreements * task.subscriptions_each as usize;
    files::make_room((task.organizations.len() + subscriptions + CONNECTING_MAX) as u64)?;
    let taken = task.taken.as_deref().map(Taken::create).transpose()?;
    let joined = join(&task).await?;
    stage.mark(Mark::Joined)?;
    stage.told().await;

    let shared = Arc::new(Shared {
        tally: Mutex::default(),
        reached: Notify::new(),
        taken,
        to_end: match task.until {
            Until::Refused => subscriptions,
            _ => 0,
        },
    });
    let lasts = !matches!(task.until, Until::Seconds { .. });
    shared.locked(|tally| {
        tally.is_counting = lasts;
        tally.positions = vec![(0, 0); joined.len()];
        if let Until::Events(events) = task.until {
            tally.wanted = events;
        }
    });
    let started = Instant::now();
    let (broken, mut breaks) = mpsc::channel::<SubscribeError>(1);
    subscribe(joined, &shared, &broken).await?;
    stage.mark(Mark::Ready)?;
    let window = async {
        match task.until {
            Until::Ended => loop {
                stage.told().await;
                stage.result(&shared.locked(|tally| tally.read(started.elapsed(), 0)))?;
            },
            Until::Events(_) | Until::Refused => {
                shared.reached.notified().await;
                let read = shared.locked(|tally| tally.read(started.elapsed(), 0));
                stage.mark(Mark::End)?;
                Ok(read)
            }
            Until::Seconds { warmup, counted } => {
                tokio::time::sleep(Duration::from_secs(warmup)).await;
                let lag_at_begin = shared.locked(|tally| {
                    tally.is_counting = true;
                    tally.lag()
                });
                stage.mark(Mark::Begin)?;
                let started = Instant::now();
                tokio::time::sleep(Duration::from_secs(counted)).await;
                let read = shared.locked(|tally| {
                    tally.is_counting = false;
                    tally.read(started.elapsed(), lag_at_begin)
                });
                stage.mark(Mark::End)?;
                Ok(read)
            }
        }
    };
    tokio::select! {
        read = window => read,
        Some(error) = breaks.recv() => Err(failed(error)),
    }
}

/// Makes every organization and its agreements; some dozens at a time.
async fn join(task: &ReadTask) -> Result<Vec<SubscriberOptions>, CommandError> {
    std::fs::create_dir(&task.profiles).map_err(failed)?;
    let mut all = Vec::new();
    let numbered: Vec<(usize, &Vec<String>)> = task.organizations.iter().enumerate().collect();
    for some in numbered.chunks(CONNECTING_MAX) {
        let mut joining = JoinSet::new();
        for (number, links) in some {
            let path = task.profiles.join(number.to_string());
            let links = (*links).clone();
            let (mtu, keep, each) = (task.mtu, task.keep, task.subscriptions_each);
            joining.spawn(async move { join_one(&path, &links, each, mtu, keep).await });
        }
        while let Some(done) = joining.join_next().await {
            all.extend(done.map_err(failed)??);
        }
    }
    Ok(all)
}

/// One organization with its agreements. Where nothing is kept there is no file either: thousands of them are made for one measurement.
async fn join_one(
    path: &Path,
    links: &[String],
    each: u32,
    mtu: u16,
    keep: bool,
) -> Result<Vec<SubscriberOptions>, CommandError> {
    let system = SystemClock::new();
    let clock: Clock = Arc::new(move || system.now());
    let mut all = if keep {
        join_by_profile(path, links, &clock).await?
    } else {
        join_in_memory(links, each, &clock).await?
    };
    for options in &mut all {
        options.session.limits.mtu_upper_bound = mtu;
    }
    Ok(all)
}

async fn join_by_profile(
    path: &Path,
    links: &[String],
    clock: &Clock,
) -> Result<Vec<SubscriberOptions>, CommandError> {
    let mut entropy = OsEntropy::new().map_err(failed)?;
    let profile = Profile::create(path, NAME, clock(), &mut entropy).map_err(failed)?;
    let mut all = Vec::new();
    for link in links {
        let invitation: Invitation = link.parse().map_err(failed)?;
        let joined = profile
            .join(&invitation, Arc::clone(clock), |_| true)
            .await
            .map_err(failed)?;
        let entropy = OsEntropy::new().map_err(failed)?;
        let options = profile
            .subscriber(
                &joined.agreement.stream,
                Arc::clone(clock),
                Box::new(entropy),
            )
            .map_err(failed)?;
        all.push(options);
    }
    Ok(all)
}

async fn join_in_memory(
    links: &[String],
    each: u32,
    clock: &Clock,
) -> Result<Vec<SubscriberOptions>, CommandError> {
    let mut entropy = OsEntropy::new().map_err(failed)?;
    let [organization, node, agreement_key, receipt_key] =
        [(); 4].map(|()| SigningKey::generate(&mut entropy));
    let now = clock();
    let role = |role, key: &SigningKey| RoleKey {
        role,
        key: key.public(),
        from: now,
        until: None,
    };
    let statement = KeyStatement {
        authority: Authority::of_key(&organization.public()),
        name: NAME.to_owned(),
        organization: organization.public(),
        number: 1,
        made: now,
        keys: vec![
            role(Role::Agreement, &agreement_key),
            role(Role::Node, &node),
            role(Role::Receipt, &receipt_key),
        ],
        succession: Vec::new(),
    };
    let keys = JoinerKeys {
        envelope: statement.sign_with(&organization),
        statement,
        agreement_key,
    };
    let mut all = Vec::new();
    for link in links {
        let invitation: Invitation = link.parse().map_err(failed)?;
        let session = |addresses, expected| SessionOptions {
            statement: Some(keys.envelope.clone()),
            ..SessionOptions::new(addresses, expected, node.clone(), Arc::clone(clock))
        };
        let base = session(
            invitation.addresses.clone(),
            Expected::node(invitation.node),
        );
        let joined = redeem(&invitation, base, &keys, |_| true)
            .await
            .map_err(failed)?;
        let producer = joined.inviter.statement;
        let expected = Expected::organization(producer.organization.fingerprint());
        for _ in 0..each {
            let entropy = OsEntropy::new().map_err(failed)?;
            let mut options = SubscriberOptions::new(
                session(joined.addresses.clone(), expected.clone()),
                joined.terms.agreement.clone(),
                producer.clone(),
                receipt_key.clone(),
                Box::new(entropy),
            );
            if each > 1 {
                // A series of receipts for each, and nothing to receipt: one series under two readers would contradict itself.
                options.start = Start::Now;
            }
            all.push(options);
        }
    }
    Ok(all)
}

/// Opens every subscription, some dozens at a time, and takes what they bring.
async fn subscribe(
    joined: Vec<SubscriberOptions>,
    shared: &Arc<Shared>,
    broken: &mpsc::Sender<SubscribeError>,
) -> Result<(), CommandError> {
    let mut waiting = joined.into_iter().enumerate();
    let mut opening = JoinSet::new();
    loop {
        while opening.len() < CONNECTING_MAX
            && let Some((index, options)) = waiting.next()
        {
            let consumer = options.agreement.consumer.authority.to_string();
            opening.spawn(async move { (index, consumer, Subscriber::subscribe(options).await) });
        }
        let Some(opened) = opening.join_next().await else {
            return Ok(());
        };
        let (index, consumer, subscriber) = opened.map_err(failed)?;
        let subscriber = subscriber.map_err(failed)?;
        shared.locked(|tally| tally.statuses.push(subscriber.status().clone()));
        let (shared, broken) = (Arc::clone(shared), broken.clone());
        tokio::spawn(async move {
            match take(subscriber, index, &shared).await {
                Err(SubscribeError::Refused(refused)) if shared.to_end > 0 => {
                    shared.end(index, consumer, &refused);
                }
                Err(error) => {
                    let _ = broken.try_send(error);
                }
                Ok(()) => {}
            }
        });
    }
}

/// Takes every event: looks at its data, and acknowledges the batch, so that receipts say *applied*.
async fn take(
    mut subscriber: Subscriber,
    index: usize,
    shared: &Shared,
) -> Result<(), SubscribeError> {
    while let Some(batch) = subscriber.next().await? {
        let now = now_ns();
        let head = subscriber.status().borrow().head.max(batch.end());
        let is_reached = shared.locked(|tally| {
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
            tally.wanted > 0 && tally.events >= tally.wanted
        });
        subscriber.ack(batch.cursor())?;
        if let Some(taken) = &shared.taken {
            taken.add(batch.end() - batch.first());
        }
        if is_reached {
            shared.reached.notify_one();
        }
    }
    Ok(())
}

impl Shared {
    fn end(&self, index: usize, consumer: String, refused: &RefusedBy) {
        let at_ns = now_ns();
        let all = self.locked(|tally| {
            tally.endings.push(Ending {
                consumer,
                at_ns,
                next: tally.positions.get(index).map_or(0, |(_, next)| *next),
                position: refused.position,
                code: refused.code.clone(),
            });
            tally.endings.len()
        });
        if all >= self.to_end {
            self.reached.notify_one();
        }
    }

    fn locked<T>(&self, act: impl FnOnce(&mut Tally) -> T) -> T {
        act(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Tally {
    fn read(&self, time: Duration, lag_at_begin: u64) -> Read {
        Read {
            events: self.events,
            batches: self.batches,
            seconds: time.as_secs_f64(),
            latency: self.latency.to_json(),
            lag_at_begin,
            lag_at_end: self.lag(),
            connected: self
                .statuses
                .iter()
                .filter(|status| status.borrow().connected)
                .count() as u64,
            endings: self.endings.clone(),
        }
    }

    fn lag(&self) -> u64 {
        self.positions
            .iter()
            .map(|(head, next)| head.saturating_sub(*next))
            .sum()
    }
}

fn failed(error: impl std::fmt::Display) -> CommandError {
    CommandError::new(ErrorCode::Internal, format_args!("reading failed: {error}"))
}
