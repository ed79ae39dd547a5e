use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use countersign_crypto::Hash;
use countersign_event::control::AuthorRule;
use countersign_event::documents::Digest;
use countersign_event::encryption::Encryption;
use countersign_event::names::Origin;
use countersign_protocol::SignedHead;
use countersign_store::journal::{LogKind, LogNumber};
use countersign_tlog::Checkpoint;
use countersign_tlog::checkpoint::{note_from_signature, with_line};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::identity::HeadSignatures;
use crate::restored::Freeze;
use crate::witnessed::WitnessedHead;

/// One log of this node, as everybody but the writer sees it.
#[derive(Debug)]
pub struct Log {
    number: LogNumber,
    kind: LogKind,
    origin: Origin,
    settings: LogSettings,
    head: watch::Sender<LogHead>,
    /// The newest checkpoint with enough cosignatures (own logs).
    witnessed: watch::Sender<Option<Arc<WitnessedHead>>>,
    /// Why it takes no entries for the time being; over where it is as it began.
    freeze: Mutex<Freeze>,
    /// Whether the next event is to be sealed under a new epoch's key.
    wants_epoch: AtomicBool,
    /// The size when a new epoch was last asked for; 0 where that was not since the start.
    epoch_asked_at: AtomicU64,
}

/// What was fixed when the log began. Stored with its birth, as JSON.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    /// A title for people.
    #[serde(default)]
    pub title: Option<String>,
    /// Labels that policies can ask for.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Data bytes of the largest event; 0 = the node's limit.
    #[serde(default)]
    pub event_bytes_max: u32,
    /// The log that it takes the place of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cites: Option<Cites>,
    /// Whose signatures its events bear, until that is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<AuthorRule>,
    /// Whether the data of its events is committed to member by member.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fields: bool,
    /// Who can read its data.
    #[serde(default, skip_serializing_if = "Encryption::is_none")]
    pub encryption: Encryption,
    /// Entries after which an epoch is over; 0 = never.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub epoch_entries: u64,
    /// Seconds after which an epoch is over; 0 = never.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub epoch_seconds: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl LogSettings {
    /// Whether an epoch of so many entries and microseconds is to be followed by another.
    pub(crate) fn epoch_is_over(&self, entries: u64, age_us: u64) -> bool {
        let by_count = self.epoch_entries > 0 && entries >= self.epoch_entries;
        let by_age = self.epoch_seconds > 0 && age_us / 1_000_000 >= self.epoch_seconds;
        by_count || by_age
    }
}

/// A log that another one takes the place of, as far as it was known when that began.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Cites {
    /// Its origin.
    pub origin: Origin,
    /// Its size.
    pub size: u64,
    /// Its root.
    pub root: Digest,
}

/// The integrated end of a log: everything below `size` is durable and, in a log of ours, under `signature`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogHead {
    /// Entries.
    pub size: u64,
    /// Root of their tree.
    pub root: Hash,
    /// Leaf hash of the last; zeros where there is none.
    pub last_leaf: Hash,
    /// Its time, µs since 1970; 0 where there is none.
    pub last_time_us: u64,
    /// Our signatures over this checkpoint (own logs).
    pub signature: Option<Arc<HeadSignatures>>,
    /// The newest head that the producer signed (copies); at least as large as this one.
    pub producer: Option<SignedHead>,
}

impl LogHead {
    /// The signed head, where one is there: our own of exactly this size, or the producer's newest.
    #[must_use]
    pub fn signed(&self) -> Option<SignedHead> {
        match &self.signature {
            Some(signed) => {
                let before = signed.before.map(|(_, signature)| signature);
                let head = SignedHead::new(self.size, self.root, signed.signature);
                Some(head.and_before(before))
            }
            None => self.producer.clone(),
        }
    }

    /// The signed note of a log of ours, with a line for each key that has signed it.
    #[must_use]
    pub fn note(&self, origin: &Origin) -> Option<String> {
        let signed = self.signature.as_deref()?;
        let checkpoint = Checkpoint {
            origin: origin.to_string(),
            size: self.size,
            root: self.root,
        };
        let note = note_from_signature(&checkpoint, &signed.key, signed.signature);
        Some(match signed.before {
            Some((key, signature)) => with_line(note, origin.as_str(), &key, signature),
            None => note,
        })
    }
}

impl Log {
    pub(crate) fn new(
        number: LogNumber,
        kind: LogKind,
        origin: Origin,
        settings: LogSettings,
        head: LogHead,
    ) -> Self {
        Self {
            number,
            kind,
            origin,
            settings,
            head: watch::Sender::new(head),
            witnessed: watch::Sender::new(None),
            freeze: Mutex::new(Freeze::default()),
            wants_epoch: AtomicBool::new(false),
            epoch_asked_at: AtomicU64::new(0),
        }
    }

    /// Its number in the journal.
    #[must_use]
    pub fn number(&self) -> LogNumber {
        self.number
    }

    /// Stream of ours, copy of a partner's, or ledger.
    #[must_use]
    pub fn kind(&self) -> LogKind {
        self.kind
    }

    /// Whether it is a stream of ours.
    #[must_use]
    pub fn is_own_stream(&self) -> bool {
        self.kind == LogKind::Own
    }

    /// Whether it is a stream of ours whose data is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        !self.settings.encryption.is_none()
    }

    pub(crate) fn want_epoch(&self) {
        self.epoch_asked_at.fetch_max(self.size(), Ordering::AcqRel);
        self.wants_epoch.store(true, Ordering::Release);
    }

    pub(crate) fn epoch_asked_at(&self) -> u64 {
        self.epoch_asked_at.load(Ordering::Acquire)
    }

    pub(crate) fn wants_epoch(&self) -> bool {
        self.wants_epoch.load(Ordering::Acquire)
    }

    pub(crate) fn take_wanted_epoch(&self) -> bool {
        self.wants_epoch.swap(false, Ordering::AcqRel)
    }

    /// Its name.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What was fixed when it began.
    #[must_use]
    pub fn settings(&self) -> &LogSettings {
        &self.settings
    }

    /// Name and settings: what policies are asked about.
    #[must_use]
    pub fn described(&self) -> (&Origin, &LogSettings) {
        (&self.origin, &self.settings)
    }

    /// Its integrated end.
    #[must_use]
    pub fn head(&self) -> LogHead {
        self.head.borrow().clone()
    }

    /// Entries integrated.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.head.borrow().size
    }

    /// Wakes whoever waits for more.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<LogHead> {
        self.head.subscribe()
    }

    /// Whether it takes no entries for the time being.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.freeze().is_some()
    }

    pub(crate) fn freeze(&self) -> Option<Freeze> {
        let freeze = self.freeze.lock().unwrap_or_else(PoisonError::into_inner);
        (!freeze.is_over()).then(|| freeze.clone())
    }

    pub(crate) fn change_freeze(&self, change: impl FnOnce(&mut Freeze)) {
        change(&mut self.freeze.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The newest checkpoint with enough cosignatures; `None` where nobody has cosigned yet.
    #[must_use]
    pub fn witnessed(&self) -> Option<Arc<WitnessedHead>> {
        self.witnessed.borrow().clone()
    }

    /// Wakes whoever waits for more to be witnessed.
    #[must_use]
    pub fn watch_witnessed(&self) -> watch::Receiver<Option<Arc<WitnessedHead>>> {
        self.witnessed.subscribe()
    }

    /// A checkpoint has got lines: it counts where it is no older than the one known.
    pub(crate) fn publish_witnessed(&self, witnessed: WitnessedHead) {
        self.witnessed.send_if_modified(|known| {
            let newer = known.as_ref().is_none_or(|known| {
                (known.size, known.witnesses.len()) < (witnessed.size, witnessed.witnesses.len())
            });
            if newer {
                *known = Some(Arc::new(witnessed));
            }
            newer
        });
    }

    /// Whether anybody waits for more to be witnessed.
    #[must_use]
    pub fn awaits_witnesses(&self) -> bool {
        self.witnessed.receiver_count() > 0
    }

    pub(crate) fn publish_head(&self, head: LogHead) {
        self.head.send_replace(head);
    }

    /// A copy learns of a newer head of its producer without new entries.
    pub(crate) fn publish_producer_head(&self, producer: SignedHead) {
        self.head.send_modify(|head| {
            let newer = |known: &SignedHead| known.size <= producer.size;
            if head.producer.as_ref().is_none_or(newer) {
                head.producer = Some(producer);
            }
        });
    }
}
