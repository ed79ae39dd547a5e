//! The signed heads that a bundle is made under, fixed before anything is read.

use std::collections::BTreeSet;
use std::sync::Arc;

use countersign_crypto::{PublicKey, Signature};
use countersign_event::documents::{KeyStatement, Role};
use countersign_event::dsse::Envelope;
use countersign_event::names::{Authority, LogSubject, Origin};
use countersign_exchange::{Exchange, Log};
use countersign_protocol::SignedHead;
use countersign_protocol::delivery::Cover;
use countersign_store::journal::{JournalReader, LogKind, LogNumber, ReadError, StoredCheckpoint};
use countersign_tlog::checkpoint::note_from_signature;
use countersign_tlog::{Algorithm, Checkpoint, Note, Vkey};

use super::{ExportError, Trusted};

/// A log under a signed head of its own.
#[derive(Clone)]
pub(super) struct FixedLog {
    pub(super) number: LogNumber,
    pub(super) origin: Origin,
    pub(super) checkpoint: Checkpoint,
    /// The checkpoint as a signed note.
    pub(super) note: String,
    pub(super) vkey: Vkey,
}

/// A key statement that has been verified.
#[derive(Clone)]
pub(super) struct Stated {
    pub(super) statement: KeyStatement,
    pub(super) envelope: Envelope,
}

/// The logs of a bundle as they stand, and whose keys there are.
pub(super) struct Snapshot {
    pub(super) stream: FixedLog,
    /// Our ledger logs, by origin; which of them are exported is for the survey to say.
    pub(super) ledgers: Vec<FixedLog>,
    pub(super) producer: Trusted,
    /// The statements of both sides, those of the producer first; by number within one organization.
    pub(super) statements: Vec<Stated>,
    /// What both sides have revoked.
    pub(super) revocations: Vec<Envelope>,
    own_keys: Vec<PublicKey>,
}

impl Snapshot {
    /// Fixes the ledgers first and the stream after them: no receipt in them then speaks of an entry that is not under the stream's head,
    /// unless the copy's own head is older.
    pub(super) fn take(exchange: &Exchange, stream: &Origin) -> Result<Self, ExportError> {
        let log = exchange.log(stream).ok_or_else(|| ExportError::Unknown {
            origin: stream.clone(),
        })?;
        if log.kind() == LogKind::Ledger || stream.stream().is_none() {
            return Err(ExportError::NotAStream {
                origin: stream.clone(),
            });
        }
        let own = exchange.identity();
        let own_keys = log_keys(stated_of(exchange, own.authority()).iter());
        let ledgers: Vec<FixedLog> = exchange
            .logs()
            .iter()
            .filter(|log| log.kind() == LogKind::Ledger)
            .filter_map(|log| fix_head(log, &own_keys))
            .collect();
        let (statements, sides) = statements(exchange, stream);
        let revocations = sides.iter().flat_map(|side| exchange.revocations_of(side));
        let revocations = revocations.map(|held| held.envelope).collect();
        let authority = stream.authority();
        let of_producer = statements
            .iter()
            .filter(|stated| stated.statement.authority == authority);
        let keys = log_keys(of_producer.clone());
        let unknown_key = || ExportError::UnknownKey {
            origin: stream.clone(),
        };
        let producer = of_producer.clone().next_back().ok_or_else(unknown_key)?;
        let producer = Trusted {
            fingerprint: producer.statement.organization.fingerprint(),
            authority,
        };
        let fixed = match log.kind() {
            LogKind::Copy => fix_copy(exchange.reader(), &log, &keys)?,
            LogKind::Ledger | LogKind::Own => fix_head(&log, &own_keys).ok_or_else(unknown_key)?,
        };
        Ok(Self {
            stream: fixed,
            ledgers,
            producer,
            statements,
            revocations,
            own_keys,
        })
    }

    /// A ledger under the newest stored head of at most `size` entries, if there is one.
    pub(super) fn cut(
        &self,
        reader: &JournalReader,
        ledger: &FixedLog,
        size: u64,
    ) -> Result<Option<FixedLog>, ReadError> {
        let Some(stored) = reader.checkpoint_at_or_before(ledger.number, size)? else {
            return Ok(None);
        };
        let head = stored_head(stored);
        Ok(fix(ledger.number, &ledger.origin, &head, &self.own_keys))
    }
}

/// A stream's checkpoints, and what its organization has stated of its keys.
pub(super) struct SignedBy {
    log: Arc<Log>,
    keys: Vec<PublicKey>,
    newest: KeyStatement,
    /// All key statements and revocations that are held of the organization.
    pub(super) documents: Vec<Envelope>,
}

impl SignedBy {
    /// By what is known now of the stream's organization.
    pub(super) fn of(exchange: &Exchange, stream: &Origin) -> Result<Self, ExportError> {
        let log = exchange.log(stream).ok_or_else(|| ExportError::Unknown {
            origin: stream.clone(),
        })?;
        if log.kind() == LogKind::Ledger {
            return Err(ExportError::NotAStream {
                origin: stream.clone(),
            });
        }
        let stated = stated_of(exchange, &stream.authority());
        let newest = stated.last().ok_or_else(|| unknown_key(stream))?;
        let newest = newest.statement.clone();
        let statements = stated.iter();
        let keys = log_keys(statements.clone());
        let revoked = exchange.revocations_of(&stream.authority());
        let revoked = revoked.into_iter().map(|held| held.envelope);
        let documents = statements
            .map(|stated| stated.envelope.clone())
            .chain(revoked);
        Ok(Self {
            log,
            keys,
            newest,
            documents: documents.collect(),
        })
    }

    /// The log's keys.
    pub(super) fn vkeys(&self) -> Vec<Vkey> {
        let origin = self.log.origin().as_str();
        let keys = self.keys.iter();
        keys.filter_map(|key| Vkey::new(origin, Algorithm::Ed25519, *key).ok())
            .collect()
    }

    /// The log under a checkpoint of which the note was kept.
    pub(super) fn of_note(&self, note: &str) -> Result<FixedLog, ExportError> {
        let origin = self.log.origin();
        let vkeys = self.vkeys();
        let parsed = Note::parse(note.as_bytes()).map_err(|_| unknown_key(origin))?;
        let signers = parsed.verify(&vkeys).map_err(|_| unknown_key(origin))?;
        let checkpoint = Checkpoint::parse_text(parsed.text()).map_err(|_| unknown_key(origin))?;
        Ok(FixedLog {
            number: self.log.number(),
            origin: origin.clone(),
            note: note.to_owned(),
            vkey: signers
                .first()
                .copied()
                .cloned()
                .ok_or_else(|| unknown_key(origin))?,
            checkpoint,
        })
    }

    /// Whom an auditor has to trust.
    pub(super) fn trusted(&self) -> Trusted {
        let statement = &self.newest;
        Trusted {
            authority: statement.authority.clone(),
            fingerprint: statement.organization.fingerprint(),
        }
    }

    /// The log under its newest signed head that lies within it.
    pub(super) fn newest(&self, exchange: &Exchange) -> Result<FixedLog, ExportError> {
        match self.log.kind() {
            LogKind::Copy => fix_copy(exchange.reader(), &self.log, &self.keys),
            LogKind::Ledger | LogKind::Own => {
                fix_head(&self.log, &self.keys).ok_or_else(|| unknown_key(self.log.origin()))
            }
        }
    }

    /// The log under the signed head of just `size` entries.
    pub(super) fn at(&self, exchange: &Exchange, size: u64) -> Result<FixedLog, ExportError> {
        let (reader, number) = (exchange.reader(), self.log.number());
        let head = self.log.head();
        let newest = head.signed().filter(|signed| signed.size == size);
        let is_copy = self.log.kind() == LogKind::Copy;
        let before = match newest {
            Some(newest) => Some(newest),
            None if is_copy => newest_cover_within(reader, number, size)?,
            None => reader
                .checkpoint_at_or_before(number, size)?
                .map(stored_head),
        };
        let origin = self.log.origin();
        match before {
            // A producer's head may lie beyond what has been copied.
            Some(found) if found.size == size && size <= head.size => {
                fix(number, origin, &found, &self.keys).ok_or_else(|| unknown_key(origin))
            }
            before => {
                let after = match is_copy {
                    true => None,
                    false => reader.checkpoint_at_or_after(number, size)?,
                };
                let newest = head.signed().map(|signed| signed.size);
                Err(ExportError::Checkpoint {
                    origin: origin.clone(),
                    size,
                    before: before.map(|head| head.size).filter(|size| *size > 0),
                    after: after
                        .map(|stored| stored.size)
                        .or(newest)
                        .filter(|after| *after > size),
                })
            }
        }
    }
}

fn unknown_key(origin: &Origin) -> ExportError {
    ExportError::UnknownKey {
        origin: origin.clone(),
    }
}

fn stored_head(stored: StoredCheckpoint) -> SignedHead {
    let signature = Signature::from_bytes(stored.signature);
    SignedHead::new(stored.size, stored.root, signature)
}

/// Whom a ledger log is about; nobody where it is the node's own.
pub(super) fn counterparty(ledger: &Origin) -> Option<Authority> {
    match ledger.subject() {
        LogSubject::Ledger(counterparty) => Some(counterparty),
        LogSubject::NodeLedger | LogSubject::Stream(_) => None,
    }
}

fn fix_head(log: &Log, keys: &[PublicKey]) -> Option<FixedLog> {
    let head = log.head().signed()?;
    fix(log.number(), log.origin(), &head, keys)
}

/// A log under a head, where one of the keys has signed it and there is anything in it.
fn fix(
    number: LogNumber,
    origin: &Origin,
    head: &SignedHead,
    keys: &[PublicKey],
) -> Option<FixedLog> {
    let checkpoint = head.checkpoint(origin.as_str());
    let (key, signature) = head.signed_by(&checkpoint, keys.iter())?;
    (checkpoint.size > 0).then_some(())?;
    Some(FixedLog {
        number,
        origin: origin.clone(),
        note: note_from_signature(&checkpoint, key, signature),
        vkey: Vkey::new(origin.as_str(), Algorithm::Ed25519, *key).ok()?,
        checkpoint,
    })
}

/// A copy under the newest head of its producer that lies within it. The newest of all may lie beyond: its root is over entries that are not here.
fn fix_copy(
    reader: &JournalReader,
    log: &Log,
    keys: &[PublicKey],
) -> Result<FixedLog, ExportError> {
    let head = log.head();
    let within = |signed: &SignedHead| signed.size <= head.size;
    let newest = match head.producer.filter(within) {
        Some(newest) => Some(newest),
        None => newest_cover_within(reader, log.number(), head.size)?,
    };
    let newest = newest.ok_or_else(|| ExportError::CatchingUp {
        origin: log.origin().clone(),
        held: head.size,
    })?;
    fix(log.number(), log.origin(), &newest, keys).ok_or_else(|| ExportError::UnknownKey {
        origin: log.origin().clone(),
    })
}

/// The newest stored head of at most `size` entries. Heads never shrink along a copy, so that it is found by halving.
fn newest_cover_within(
    reader: &JournalReader,
    log: LogNumber,
    size: u64,
) -> Result<Option<SignedHead>, ReadError> {
    let at_or_before = |position| -> Result<Option<SignedHead>, ReadError> {
        let stored = reader.cover_at_or_before(log, position)?;
        let cover = stored.and_then(|stored| postcard::from_bytes::<Cover>(&stored.cover).ok());
        Ok(cover.map(|Cover::Checkpoint { head, .. }| head))
    };
    // INVARIANT: the head stored at or before `low` is within, the one at `high` or after is not.
    let (mut low, mut high) = (0, size.saturating_add(1));
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if at_or_before(middle)?.is_none_or(|head| head.size <= size) {
            low = middle;
        } else {
            high = middle;
        }
    }
    at_or_before(low)
}

/// The statements of the producer and of those who have an agreement with it on the stream: what is known now, and what was known before, since a key counts by
/// the statement in force when it signed.
fn statements(exchange: &Exchange, stream: &Origin) -> (Vec<Stated>, BTreeSet<Authority>) {
    let own = exchange.identity();
    let producer = stream.authority();
    let mut sides: BTreeSet<Authority> = [producer.clone(), own.authority().clone()].into();
    {
        let registry = exchange.registry();
        let agreements = registry.agreements.values();
        let on_stream = agreements.filter(|state| state.agreement.stream == *stream);
        sides.extend(on_stream.map(|state| state.counterparty(own.authority()).clone()));
    }
    let others = sides.iter().filter(|side| **side != producer);
    let in_order = std::iter::once(&producer).chain(others);
    let stated = in_order.flat_map(|side| stated_of(exchange, side));
    (stated.collect(), sides)
}

/// Every statement of an organization that was ever held, by number.
fn stated_of(exchange: &Exchange, authority: &Authority) -> Vec<Stated> {
    let own = exchange.identity();
    let newest = (authority == own.authority()).then(|| own.envelope.clone());
    let held = exchange.registry().statements_of(authority).to_vec();
    let envelopes = held.into_iter().chain(newest);
    let verified = envelopes.filter_map(|envelope| {
        let statement = KeyStatement::verify(&envelope).ok()?;
        Some(Stated {
            statement,
            envelope,
        })
    });
    let mut stated: Vec<Stated> = verified.collect();
    stated.sort_by_key(|stated| stated.statement.number);
    stated.dedup_by_key(|stated| stated.envelope.payload_digest());
    stated
}

/// The log keys of statements, those stated last first.
fn log_keys<'s>(stated: impl DoubleEndedIterator<Item = &'s Stated>) -> Vec<PublicKey> {
    let mut keys = Vec::new();
    for one in stated.rev() {
        let mut of_one: Vec<_> = one.statement.keys_for(Role::Log).collect();
        of_one.sort_by_key(|key| std::cmp::Reverse(key.from));
        for key in of_one {
            if !keys.contains(&key.key) {
                keys.push(key.key);
            }
        }
    }
    keys
}
