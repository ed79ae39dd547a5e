//! Ledger: what happened → [`LedgerRecord`] → an entry of a private log, appended like every other event.

use countersign_crypto::{Entropy, Hash};
use countersign_event::attributes::{AttributeError, Attributes, AttributesBuilder, Value};
use countersign_event::content::{Event, EventError, Limits};
use countersign_event::data::{DataError, DataPart};
use countersign_event::ledger::{LedgerRecord, TYPE_PREFIX};
use countersign_event::names::Origin;
use countersign_event::time::Timestamp;
use countersign_store::journal::StoredEntry;
use countersign_store::ledger::LedgerEntry;

use super::ingest::Drafts;
use super::seal::{SealedBatch, seal, seal_control};

/// A statement of our own that could not be made into an event.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RecordError {
    /// Its attributes.
    #[error(transparent)]
    Attributes(#[from] AttributeError),
    /// Its data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// As a whole.
    #[error(transparent)]
    Event(#[from] EventError),
}

/// Seals a ledger record for the log `origin`.
///
/// # Errors
/// [`RecordError`] where a text in it is too long for an event.
pub fn seal_record(
    origin: &Origin,
    record: &LedgerRecord,
    entropy: &mut dyn Entropy,
) -> Result<SealedBatch, RecordError> {
    let json = String::from_utf8(record.to_json()).unwrap_or_default();
    let event = own_event(
        origin,
        &record.event_type(),
        subject(record),
        &json,
        entropy,
    )?;
    Ok(seal(&Drafts::from_events(&[event]), entropy))
}

/// Seals a control entry of the log `origin`.
///
/// # Errors
/// [`RecordError`].
pub fn seal_control_entry(
    origin: &Origin,
    kind: &str,
    json: &str,
    entropy: &mut dyn Entropy,
) -> Result<SealedBatch, RecordError> {
    let event = own_event(origin, kind, None, json, entropy)?;
    Ok(seal_control(&Drafts::from_events(&[event]), entropy))
}

fn own_event(
    origin: &Origin,
    kind: &str,
    subject: Option<&Origin>,
    json: &str,
    entropy: &mut dyn Entropy,
) -> Result<Event, RecordError> {
    let mut id = [0; 16];
    entropy.fill(&mut id);
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut attributes = AttributesBuilder::new(&id, origin.as_str(), kind)
        .with("datacontenttype", Value::String("application/json"));
    if let Some(subject) = subject {
        attributes.push("subject", Value::String(subject.as_str()));
    }
    let mut data_part = Vec::with_capacity(json.len() + 1);
    DataPart::text(json).encode(&mut data_part)?;
    Ok(Event::check(
        attributes.build()?,
        data_part,
        &Limits::FORMAT,
    )?)
}

fn subject(record: &LedgerRecord) -> Option<&Origin> {
    match record {
        LedgerRecord::Allotment { stream, .. }
        | LedgerRecord::AuthorRule { stream, .. }
        | LedgerRecord::Cursor { stream, .. }
        | LedgerRecord::Decision { stream, .. }
        | LedgerRecord::Filter { stream, .. }
        | LedgerRecord::Hold { stream, .. }
        | LedgerRecord::LogAccess { stream, .. }
        | LedgerRecord::Plans { stream, .. }
        | LedgerRecord::Retention { stream, .. }
        | LedgerRecord::Timestamp { stream, .. } => Some(stream),
        LedgerRecord::Contradiction { stream, .. } | LedgerRecord::Fault { stream, .. } => {
            stream.as_ref()
        }
        _ => None,
    }
}

/// Reads an entry of a ledger log back. Control entries and records of a newer version come without a record.
#[must_use]
pub fn read_entry(stored: &StoredEntry<'_>, leaf: Hash) -> LedgerEntry {
    let time = stored
        .entry
        .get(46..54)
        .and_then(|bytes| bytes.try_into().ok());
    LedgerEntry {
        sequence: stored.sequence,
        time: Timestamp(time.map_or(0, u64::from_be_bytes)),
        leaf,
        record: read_record(stored),
    }
}

fn read_record(stored: &StoredEntry<'_>) -> Option<LedgerRecord> {
    let attributes = Attributes::check(stored.attributes()).ok()?;
    if !attributes.kind().starts_with(TYPE_PREFIX) {
        return None;
    }
    let part = DataPart::decode(stored.data_part()).ok()?;
    LedgerRecord::from_json(part.data).ok()
}
