//! The keys of encrypted streams: those of our own, and those that producers have wrapped to us. Nothing is kept here that could not be had
//! again from the logs, the ledger and our encryption key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_crypto::{Entropy, SigningKey};
use countersign_event::content::{Event, Limits};
use countersign_event::documents::{Digest, Document as _, KeyWrap};
use countersign_event::dsse::Envelope;
use countersign_event::encryption::{
    Algorithm, DataKey, EpochKey, KEY_EPOCH, KeyEpoch, SealedRef, UnwrapError, WrappedKey,
};
use countersign_event::entry::{ENTRY_BYTES, Entry, Kind};
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::{Authority, Origin};
use countersign_event::time::Timestamp;
use countersign_store::journal::{JournalReader, LogNumber, ReadError, Run, StoredEntry};

use crate::pipeline::ledger::{RecordError, seal_control_entry};
use crate::pipeline::seal::SealedBatch;

/// Data keys that are kept ready. Each takes about 1 KiB, and is derived again in some 100 µs.
const READY_MAX: usize = 256;

/// Entries before a place that are looked at for the key in force there. An encrypted stream has one in its last event, unless that was erased.
const LOOK_BACK: u64 = 64;

/// Our source of randomness, which the writer's thread draws from too.
pub(crate) type SharedEntropy = Arc<Mutex<Box<dyn Entropy>>>;

/// Why the data of an encrypted entry cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum KeyFault {
    /// The entry does not open under the key that its log committed to: its producer sealed it so.
    #[error("the data does not open under the key that the log has committed to")]
    Ciphertext,
    /// What is sealed is not an event.
    #[error("what is sealed is not a valid event: {0}")]
    Event(#[from] countersign_event::content::EventError),
    /// The entry that it is sealed under is not here, or is no key-epoch entry.
    #[error("its key entry {key_entry} is not here")]
    NoKeyEntry {
        /// Where it should be.
        key_entry: u64,
    },
    /// The producer has not given us the key.
    #[error("the key of epoch {epoch} was not given to this organization")]
    NoWrap {
        /// Which epoch.
        epoch: u64,
    },
    /// Stored entries cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The wrap does not hold the key.
    #[error(transparent)]
    Unwrap(#[from] UnwrapError),
}

/// What a log of ours is sealed with now.
#[derive(Clone)]
pub(crate) struct Sealing {
    pub(crate) data_key: Arc<DataKey>,
    epoch: u64,
    epoch_key: EpochKey,
    /// When the epoch began.
    pub(crate) began: Timestamp,
}

impl Sealing {
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }
}

/// The keys, and what opens them.
pub struct Keyring {
    reader: JournalReader,
    own: Authority,
    secret: SigningKey,
    entropy: SharedEntropy,
    wraps: Mutex<HashMap<(Origin, u64), WrappedKey>>,
    ready: Mutex<HashMap<(LogNumber, u64), Arc<DataKey>>>,
}

impl Keyring {
    pub(crate) fn new(
        reader: JournalReader,
        own: Authority,
        secret: SigningKey,
        entropy: SharedEntropy,
    ) -> Self {
        Self {
            reader,
            own,
            secret,
            entropy,
            wraps: Mutex::default(),
            ready: Mutex::default(),
        }
    }

    /// Takes note of a wrap in the ledger, if it is for us.
    pub(crate) fn learn(&self, record: &LedgerRecord) {
        let LedgerRecord::KeyWrap { envelope } = record else {
            return;
        };
        let Ok(envelope) = Envelope::from_json(envelope.as_bytes()) else {
            return;
        };
        // What is in our ledger was verified before.
        if let Ok(wrap) = KeyWrap::peek(&envelope)
            && wrap.to == self.own
        {
            lock(&self.wraps).insert((wrap.stream, wrap.epoch), wrap.wrapped);
        }
    }

    /// Whether we were given the key of an epoch.
    pub(crate) fn holds(&self, stream: &Origin, epoch: u64) -> bool {
        lock(&self.wraps).contains_key(&(stream.clone(), epoch))
    }

    /// Opens a wrap that has come for us, to see that it holds what it says.
    pub(crate) fn try_wrap(&self, wrap: &KeyWrap) -> Result<(), UnwrapError> {
        let origin = wrap.stream.as_str();
        wrap.wrapped
            .open(&self.secret, origin, wrap.epoch, &wrap.commitment.0)
            .map(drop)
    }

    /// The event of an encrypted entry, opened.
    ///
    /// # Errors
    /// [`KeyFault`].
    pub fn open(
        &self,
        log: LogNumber,
        origin: &Origin,
        stored: &StoredEntry<'_>,
    ) -> Result<Event, KeyFault> {
        let entry = Entry::decode(stored.entry).map_err(|_| KeyFault::Ciphertext)?;
        let sealed = SealedRef::check(stored.attributes(), stored.data_part())
            .map_err(|_| KeyFault::Ciphertext)?;
        let key = self.data_key(log, origin, sealed.key_entry())?;
        let data_part = key
            .open(entry.sequence, &entry.attributes, sealed.data_part_bytes())
            .map_err(|_| KeyFault::Ciphertext)?;
        let attributes = stored.attributes().to_vec();
        Ok(Event::check(attributes, data_part, &Limits::FORMAT)?)
    }

    fn data_key(
        &self,
        log: LogNumber,
        origin: &Origin,
        key_entry: u64,
    ) -> Result<Arc<DataKey>, KeyFault> {
        if let Some(key) = lock(&self.ready).get(&(log, key_entry)) {
            return Ok(Arc::clone(key));
        }
        let (control, _) = self
            .key_entry(log, key_entry)?
            .ok_or(KeyFault::NoKeyEntry { key_entry })?;
        let epoch_key = self.epoch_key(origin, &control)?;
        let key = epoch_key.data_key(origin.as_str(), control.epoch, key_entry, &control.draw.0);
        let key = Arc::new(key);
        let mut ready = lock(&self.ready);
        if ready.len() >= READY_MAX {
            ready.clear();
        }
        ready.insert((log, key_entry), Arc::clone(&key));
        Ok(key)
    }

    /// The key of an epoch, from our own wrap in the log or from the producer's, checked against the commitment in the log.
    fn epoch_key(&self, origin: &Origin, control: &KeyEpoch) -> Result<EpochKey, KeyFault> {
        let (epoch, commitment) = (control.epoch, &control.commitment.0);
        if origin.authority() == self.own {
            let own = &control.own;
            return Ok(own.open(&self.secret, origin.as_str(), epoch, commitment)?);
        }
        let wrapped = lock(&self.wraps).get(&(origin.clone(), epoch)).cloned();
        let wrapped = wrapped.ok_or(KeyFault::NoWrap { epoch })?;
        Ok(wrapped.open(&self.secret, origin.as_str(), epoch, commitment)?)
    }

    /// What the key-epoch entry at a sequence says, and its time; `None` where there is no such entry there.
    fn key_entry(
        &self,
        log: LogNumber,
        sequence: u64,
    ) -> Result<Option<(KeyEpoch, Timestamp)>, ReadError> {
        if self.reader.size(log).is_none_or(|size| size <= sequence) {
            return Ok(None);
        }
        let runs = self.reader.read(log, sequence, 1, u64::MAX)?;
        let stored = runs.iter().flat_map(Run::iter).next();
        Ok(stored.and_then(|stored| read_key_entry(&stored)))
    }

    /// The key-epoch entry that is in force for events before `place`, if one is found near it: its sequence, what it says, its time.
    pub(crate) fn in_force(
        &self,
        log: LogNumber,
        place: u64,
    ) -> Result<Option<(u64, KeyEpoch)>, ReadError> {
        let from = place.saturating_sub(LOOK_BACK);
        if from == place {
            return Ok(None);
        }
        let runs = self.reader.read(log, from, place - from, u64::MAX)?;
        let mut found = None;
        for stored in runs.iter().flat_map(Run::iter) {
            if let Some((control, _)) = read_key_entry(&stored) {
                found = Some((stored.sequence, Some(control)));
            } else if is_sealed_event(stored.entry)
                && let Ok(sealed) = SealedRef::check(stored.attributes(), stored.data_part())
            {
                found = Some((sealed.key_entry(), None));
            }
        }
        Ok(match found {
            None => None,
            Some((sequence, Some(control))) => Some((sequence, control)),
            Some((sequence, None)) => self
                .key_entry(log, sequence)?
                .map(|(control, _)| (sequence, control)),
        })
    }

    /// Begins a draw for a log of ours: the key-epoch entry that has to be stored at `sequence`, and what is sealed under it. It goes on with the epoch in
    /// force, unless a new one is wanted.
    pub(crate) fn begin(
        &self,
        log: LogNumber,
        origin: &Origin,
        sequence: u64,
        now: Timestamp,
        current: Option<&Sealing>,
        anew: bool,
    ) -> Result<(SealedBatch, Sealing), KeyError> {
        let resumed = match current {
            Some(current) => Some((current.epoch, current.epoch_key.clone(), current.began)),
            None if anew => None,
            None => self.resume(log, origin, sequence),
        };
        let mut entropy = lock(&self.entropy);
        let (epoch, epoch_key, began) = match resumed.filter(|_| !anew) {
            Some(resumed) => resumed,
            None => (sequence, EpochKey::generate(&mut **entropy), now),
        };
        let mut draw = [0; 32];
        entropy.fill(&mut draw);
        let text = origin.as_str();
        let own = epoch_key.wrap(&self.secret.public(), text, epoch, &mut **entropy)?;
        let control = KeyEpoch {
            epoch,
            algorithm: Algorithm::X25519HkdfSha256A256Gcm,
            commitment: Digest(epoch_key.commitment(text, epoch)),
            draw: Digest(draw),
            own,
        };
        let sealed = seal_control_entry(origin, KEY_EPOCH, &control.to_text(), &mut **entropy)?;
        let sealing = Sealing {
            data_key: Arc::new(epoch_key.data_key(text, epoch, sequence, &draw)),
            epoch,
            epoch_key,
            began,
        };
        Ok((sealed, sealing))
    }

    /// The epoch that the log stands in. Where it cannot be found or opened, a new one begins.
    fn resume(
        &self,
        log: LogNumber,
        origin: &Origin,
        size: u64,
    ) -> Option<(u64, EpochKey, Timestamp)> {
        let (_, control) = self.in_force(log, size).ok().flatten()?;
        let key = self.epoch_key(origin, &control).ok()?;
        let (_, began) = self.key_entry(log, control.epoch).ok().flatten()?;
        Some((control.epoch, key, began))
    }

    /// Wraps the key of an epoch of a stream of ours to somebody's key.
    pub(crate) fn wrap(
        &self,
        log: LogNumber,
        origin: &Origin,
        epoch: u64,
        to: &countersign_crypto::PublicKey,
    ) -> Result<(WrappedKey, Digest), KeyFault> {
        let (control, _) = self
            .key_entry(log, epoch)?
            .ok_or(KeyFault::NoKeyEntry { key_entry: epoch })?;
        let key = self.epoch_key(origin, &control)?;
        let mut entropy = lock(&self.entropy);
        let wrapped = key
            .wrap(to, origin.as_str(), epoch, &mut **entropy)
            .map_err(|_| UnwrapError::Open)?;
        Ok((wrapped, control.commitment))
    }
}

/// Why no draw begins.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Weak(#[from] countersign_crypto::WeakRecipient),
}

/// Whether an encoded entry is an event whose data is sealed.
pub(crate) fn is_sealed_event(entry: &[u8]) -> bool {
    Entry::decode(entry).is_ok_and(|entry| entry.flags.encrypted && entry.kind == Kind::Event)
}

/// What a key-epoch entry says, and its time.
pub(crate) fn read_key_entry(stored: &StoredEntry<'_>) -> Option<(KeyEpoch, Timestamp)> {
    if !has_control(stored.entry) {
        return None;
    }
    let entry = Entry::decode(stored.entry).ok()?;
    let event = countersign_event::content::EventRef::check(
        stored.attributes(),
        stored.data_part(),
        &Limits::FORMAT,
    );
    Some((KeyEpoch::read(&event.ok()?)?, entry.time))
}

/// Whether there is a control entry among encoded entries.
pub(crate) fn has_control(entries: &[u8]) -> bool {
    entries
        .chunks_exact(ENTRY_BYTES)
        .any(|entry| entry[1] & 0x0f == Kind::Control as u8)
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while a lock was held left whole keys.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
