//! Retention and erasure: content goes, the skeleton stays.
//!
//! ```text
//! stream erase ─▶ tombstone + erasure (one commit) ─▶ overwritten ─▶ request to each consumer ─▶ its answer: done, held, refused
//! retention    ─▶ expiry    + erasure (one commit) ─▶ overwritten;   consumers that obey follow when the expiry reaches their copy
//! ```
//!
//! Each arrow can be cut by a crash: the journal goes on overwriting by itself, requests that were not made are made at the next pass, and a
//! request is told at each session until it is answered *done*.
//!
//! This file is what is common; `book.rs` is what the ledger says, `erasing.rs` the producer's side, `answering.rs` the consumer's, `retention.rs`
//! what expires.

mod answering;
mod book;
mod erasing;
mod retention;

pub use book::{ErasureBook, RequestState};
pub use erasing::Erased;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use countersign_event::content::{EventRef, Limits};
use countersign_event::control::Allows;
use countersign_event::documents::ErasureId;
use countersign_event::dsse::Envelope;
use countersign_event::names::{Authority, Origin};
use countersign_store::journal::{JournalReader, LogNumber, ReadError};
use tokio::sync::watch;

use crate::{Exchange, ExchangeError, Log};

/// Requests of one partner that wait for a person, at most: each takes about a kibibyte of memory.
pub const OPEN_REQUESTS_MAX: usize = 16_384;

/// How often retention is applied, by the clock that nobody sets.
const RETENTION_EVERY_US: u64 = 60_000_000;

/// Why content is not erased.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EraseFault {
    /// It is gone already.
    #[error("the content of entry {sequence} of `{stream}` is gone already, as entry {by} says")]
    AlreadyErased {
        /// The log.
        stream: Origin,
        /// The entry.
        sequence: u64,
        /// The control entry that allows it.
        by: u64,
    },
    /// Control entries stay.
    #[error(
        "entry {sequence} of `{stream}` is a control entry: the log is read by them, and they are never erased"
    )]
    ControlEntry {
        /// The log.
        stream: Origin,
        /// The entry.
        sequence: u64,
    },
    /// A legal hold.
    #[error(
        "`{stream}` is under a legal hold ({reason}): nothing of it is erased until `countersign erasure release {stream}`"
    )]
    Held {
        /// The log.
        stream: Origin,
        /// Why it is held.
        reason: String,
    },
    /// There is no such entry.
    #[error("`{stream}` has {size} entries; there is no entry {sequence} to erase")]
    NoEntry {
        /// The log.
        stream: Origin,
        /// What was asked for.
        sequence: u64,
        /// How many there are.
        size: u64,
    },
    /// A reason is missing, or too long.
    #[error(
        "a reason has 1 to {} characters; it stays in the log for ever, so nothing of what is erased belongs into it",
        countersign_event::control::REASON_CHARS_MAX
    )]
    Reason,
    /// Nothing to decide.
    #[error(
        "there is no erasure request `{id}` that waits here; `countersign erasure ls` lists them"
    )]
    UnknownRequest {
        /// What was asked for.
        id: String,
    },
    /// Not held.
    #[error("`{stream}` is under no legal hold")]
    NotHeld {
        /// The log.
        stream: Origin,
    },
    /// The copy has not come that far.
    #[error(
        "the copy of `{stream}` does not reach entry {tombstone} yet, which says what is erased; it is decided when it does"
    )]
    NotYet {
        /// The log.
        stream: Origin,
        /// The tombstone named.
        tombstone: u64,
    },
}

/// What goes along with erasing, in memory only.
#[derive(Debug)]
pub(crate) struct Erasing {
    /// One erasure at a time: what is judged stays so until the tombstone is there.
    one: tokio::sync::Mutex<()>,
    /// Answers to be told, by partner.
    to_tell: Mutex<HashMap<Authority, HashMap<ErasureId, Envelope>>>,
    /// Moves when a partner is to be told something.
    moved: watch::Sender<u64>,
    retention: Mutex<HashMap<Origin, retention::Kept>>,
    /// Uptime of the last pass over retention, µs.
    retained_us: AtomicU64,
    /// Whether requests that a crash left unmade were looked for.
    resumed: AtomicBool,
}

impl Default for Erasing {
    fn default() -> Self {
        Self {
            one: tokio::sync::Mutex::default(),
            to_tell: Mutex::default(),
            moved: watch::Sender::new(0),
            retention: Mutex::default(),
            retained_us: AtomicU64::new(0),
            resumed: AtomicBool::new(false),
        }
    }
}

impl Erasing {
    fn note(&self) {
        self.moved.send_modify(|moved| *moved += 1);
    }

    fn tell(&self, partner: &Authority, id: ErasureId, answer: Envelope) {
        self.to_tell
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(partner.clone())
            .or_default()
            .insert(id, answer);
        self.note();
    }
}

impl Exchange {
    /// Does what time and arrived entries make due: requests that a crash left unmade, answers that can be given now, what expires. Called once a
    /// second, and when [`Exchange::watch_erasures`] wakes.
    ///
    /// # Errors
    /// [`ExchangeError`]; what failed is tried again with the next call.
    pub async fn work_on_erasures(self: &Arc<Self>) -> Result<(), ExchangeError> {
        if !self.erasing().resumed.load(Ordering::Relaxed) {
            self.resume_requests().await?;
            self.erasing().resumed.store(true, Ordering::Relaxed);
        }
        self.answer_requests().await?;
        let now = u64::try_from(self.clock().uptime().as_micros()).unwrap_or(u64::MAX);
        let last = self.erasing().retained_us.load(Ordering::Relaxed);
        if now.saturating_sub(last) >= RETENTION_EVERY_US {
            self.erasing().retained_us.store(now, Ordering::Relaxed);
            self.apply_retention().await?;
        }
        Ok(())
    }

    /// Wakes when a partner is to be told of a request or an answer.
    #[must_use]
    pub fn watch_erasures(&self) -> watch::Receiver<u64> {
        self.erasing().moved.subscribe()
    }

    /// Requests and answers that a partner has to know of. Told at each session; taking one twice changes nothing.
    pub(crate) fn erasure_notices_for(&self, partner: &Authority) -> Vec<Envelope> {
        let own = self.identity().authority();
        let registry = self.registry();
        let mut notices: Vec<Envelope> = registry
            .erasure
            .open()
            .filter(|state| state.request.by == *own)
            .filter(|state| {
                let agreement = registry.agreements.get(&state.request.agreement);
                agreement.is_some_and(|agreed| agreed.counterparty(own) == partner)
            })
            .map(|state| state.envelope.clone())
            .collect();
        drop(registry);
        let to_tell = self
            .erasing()
            .to_tell
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        notices.extend(
            to_tell
                .get(partner)
                .into_iter()
                .flat_map(HashMap::values)
                .cloned(),
        );
        notices
    }

    /// Partners whom we asked to erase, and who have not answered at all: they are dialled though no agreement with them may hold any more.
    #[must_use]
    pub fn unanswered_by(&self) -> HashSet<Authority> {
        let own = self.identity().authority();
        let registry = self.registry();
        let unanswered = registry
            .erasure
            .open()
            .filter(|state| state.request.by == *own && state.answer.is_none());
        unanswered
            .filter_map(|state| registry.agreements.get(&state.request.agreement))
            .map(|agreed| agreed.counterparty(own).clone())
            .collect()
    }

    /// A partner has taken a notice: an answer need not be told again, unless it asks again.
    pub fn notice_told(&self, partner: &Authority, envelope: &[u8]) {
        let mut to_tell = self
            .erasing()
            .to_tell
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(answers) = to_tell.get_mut(partner) {
            answers.retain(|_, answer| answer.to_json() != envelope);
        }
    }

    /// What the control entry at a place says, where it is a tombstone or an expiry.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn allows_at(&self, log: &Log, sequence: u64) -> Result<Option<Allows>, ReadError> {
        read_allows(self.reader(), log.number(), sequence)
    }

    /// Whether an entry is an event, and not a control entry.
    pub(crate) fn is_event(&self, log: &Log, sequence: u64) -> Result<bool, ReadError> {
        let mut event = false;
        self.reader()
            .entries(log.number(), sequence, sequence + 1, &mut |entry| {
                event = entry.get(1).is_some_and(|byte| byte & 0x0f == 0);
            })?;
        Ok(event)
    }
}

/// What the control entry at a place of a log says, where it is a tombstone or an expiry.
///
/// # Errors
/// [`ReadError`].
pub fn read_allows(
    reader: &JournalReader,
    log: LogNumber,
    sequence: u64,
) -> Result<Option<Allows>, ReadError> {
    if reader.size(log).is_none_or(|size| sequence >= size) {
        return Ok(None);
    }
    let runs = reader.read(log, sequence, 1, u64::MAX)?;
    let stored = runs.iter().flat_map(|run| run.iter()).next();
    let is_control = |entry: &[u8]| entry.get(1).is_some_and(|byte| byte & 0x0f == 1);
    let stored = stored.filter(|stored| is_control(stored.entry));
    Ok(stored.and_then(|stored| {
        let (attributes, data_part) = (stored.attributes(), stored.data_part());
        Allows::read(&EventRef::check(attributes, data_part, &Limits::FORMAT).ok()?)
    }))
}

/// A reason as it is kept: one line, not too long.
fn tidy(reason: &str) -> String {
    reason
        .chars()
        .filter(|c| !c.is_control())
        .take(countersign_event::control::REASON_CHARS_MAX)
        .collect()
}
