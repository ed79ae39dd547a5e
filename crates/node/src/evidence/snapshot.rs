//! The signed heads that a bundle is made under, fixed before anything is read.

use std::collections::BTreeSet;
use std::sync::Arc;

use countersign_crypto::{PublicKey, Signature};
use countersign_event::documents::{KeyStatement, Role};
use countersign_event::dsse::Envelope;
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::{Authority, LogSubject, Origin};
use countersign_exchange::{Exchange, Log};
use countersign_protocol::SignedHead;
use countersign_protocol::delivery::Cover;
use countersign_store::journal::{JournalReader, LogKind, LogNumber, ReadError, StoredCheckpoint};
use countersign_tlog::checkpoint::{note_from_signature, verify_signature};
use countersign_tlog::{Algorithm, Checkpoint, Vkey};

use super::ledger_reader::LedgerReader;
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
        let mut own_keys = vec![own.log_key.public()];
        own_keys.extend(own.statement.keys_for(Role::Log).map(|key| key.key));
        let ledgers: Vec<FixedLog> = exchange
            .logs()
            .iter()
            .filter(|log| log.kind() == LogKind::Ledger)
            .filter_map(|log| fix_head(log, &own_keys))
            .collect();
        let statements = statements(exchange, stream, &ledgers)?;
        let authority = stream.authority();
        let of_producer = statements
            .iter()
            .filter(|stated| stated.statement.authority == authority);
        let keys: Vec<PublicKey> = of_producer
            .clone()
            .flat_map(|stated| stated.statement.keys_for(Role::Log).map(|key| key.key))
            .collect();
        let unknown_key = || ExportError::UnknownKey {
            origin: stream.clone(),
        };
        let producer = of_producer.clone().next().ok_or_else(unknown_key)?;
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

/// A stream's checkpoints, and the key statement under which they are signed.
pub(super) struct SignedBy {
    log: Arc<Log>,
    keys: Vec<PublicKey>,
    pub(super) statement: Stated,
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
        let own = exchange.identity();
        let authority = stream.authority();
        let envelope = if authority == *own.authority() {
            Some(own.envelope.clone())
        } else {
            let registry = exchange.registry();
            let partner = registry.partners.get(&authority);
            partner.map(|partner| partner.envelope.clone())
        };
        let envelope = envelope.ok_or_else(|| unknown_key(stream))?;
        let statement = KeyStatement::verify(&envelope).map_err(|_| unknown_key(stream))?;
        let keys = statement.keys_for(Role::Log).map(|key| key.key).collect();
        Ok(Self {
            log,
            keys,
            statement: Stated {
                statement,
                envelope,
            },
        })
    }

    /// Whom an auditor has to trust.
    pub(super) fn trusted(&self) -> Trusted {
        let statement = &self.statement.statement;
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
    let signature = head.signature()?;
    let key = keys
        .iter()
        .find(|key| verify_signature(&checkpoint, key, &signature).is_ok())?;
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

/// The statements of the producer and of those who have an agreement with it on the stream: what is known now, and what the ledgers keep of
/// before, since a key counts by the statement in force when it signed.
fn statements(
    exchange: &Exchange,
    stream: &Origin,
    ledgers: &[FixedLog],
) -> Result<Vec<Stated>, ExportError> {
    let own = exchange.identity();
    let producer = stream.authority();
    let mut sides: BTreeSet<Authority> = [producer.clone(), own.authority().clone()].into();
    let mut found = vec![own.envelope.clone()];
    {
        let registry = exchange.registry();
        let agreements = registry.agreements.values();
        let on_stream = agreements.filter(|state| state.agreement.stream == *stream);
        sides.extend(on_stream.map(|state| state.counterparty(own.authority()).clone()));
        let partners = sides.iter().filter_map(|side| registry.partners.get(side));
        found.extend(partners.map(|partner| partner.envelope.clone()));
    }
    for ledger in ledgers {
        if counterparty(&ledger.origin).is_some_and(|about| !sides.contains(&about)) {
            continue;
        }
        let mut records =
            LedgerReader::new(exchange.reader(), ledger.number, 0..ledger.checkpoint.size);
        while let Some(item) = records.next()? {
            if let LedgerRecord::KeyStatement { envelope } = item.record {
                found.extend(Envelope::from_json(envelope.as_bytes()));
            }
        }
    }
    let mut stated: Vec<Stated> = Vec::new();
    for envelope in found {
        if let Ok(statement) = KeyStatement::verify(&envelope)
            && sides.contains(&statement.authority)
        {
            stated.push(Stated {
                statement,
                envelope,
            });
        }
    }
    let place = |stated: &Stated| {
        let statement = &stated.statement;
        let other = statement.authority != producer;
        (other, statement.authority.clone(), statement.number)
    };
    stated.sort_by_key(place);
    stated.dedup_by_key(|stated| stated.envelope.payload_digest());
    Ok(stated)
}
