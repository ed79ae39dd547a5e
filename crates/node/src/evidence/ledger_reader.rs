//! The records of a ledger log, one after the other.

use std::collections::VecDeque;
use std::ops::Range;

use countersign_event::attributes::Attributes;
use countersign_event::data::DataPart;
use countersign_event::documents::{
    Agreement, Document, ErasureAnswer, ErasureRequest, Receipt, Refusal, Rejection, Termination,
};
use countersign_event::dsse::Envelope;
use countersign_event::ledger::{EnvelopeText, LedgerRecord, TYPE_PREFIX};
use countersign_event::names::Origin;
use countersign_store::journal::{JournalReader, LogNumber, ReadError, StoredEntry};

/// Entries and bytes read at once: a page of parsed records stays in memory.
const PAGE_ENTRIES: u64 = 256;
const PAGE_BYTES: u64 = 1 << 20;

/// Reads the records of a ledger log in order.
pub(super) struct LedgerReader {
    reader: JournalReader,
    log: LogNumber,
    next: u64,
    end: u64,
    page: VecDeque<LedgerItem>,
}

/// One record with the bytes that it was read from.
pub(super) struct LedgerItem {
    pub(super) sequence: u64,
    /// The data of the entry, byte for byte.
    pub(super) data: String,
    pub(super) record: LedgerRecord,
}

impl LedgerReader {
    pub(super) fn new(reader: &JournalReader, log: LogNumber, range: Range<u64>) -> Self {
        Self {
            reader: reader.clone(),
            log,
            next: range.start,
            end: range.end,
            page: VecDeque::new(),
        }
    }

    /// The next record; control entries and what a newer version wrote are stepped over.
    pub(super) fn next(&mut self) -> Result<Option<LedgerItem>, ReadError> {
        while self.page.is_empty() && self.next < self.end {
            let wanted = (self.end - self.next).min(PAGE_ENTRIES);
            for run in self.reader.read(self.log, self.next, wanted, PAGE_BYTES)? {
                self.page
                    .extend(run.iter().filter_map(|stored| item(&stored)));
                self.next = run.first + u64::from(run.count);
            }
        }
        Ok(self.page.pop_front())
    }
}

fn item(stored: &StoredEntry<'_>) -> Option<LedgerItem> {
    let attributes = Attributes::check(stored.attributes()).ok()?;
    if !attributes.kind().starts_with(TYPE_PREFIX) {
        return None;
    }
    let data = DataPart::decode(stored.data_part()).ok()?.data;
    Some(LedgerItem {
        sequence: stored.sequence,
        record: LedgerRecord::from_json(data).ok()?,
        data: String::from_utf8(data.to_vec()).ok()?,
    })
}

/// What a record says about a stream.
pub(super) enum About {
    /// A decision, under the policy set with this digest.
    Decision(countersign_crypto::Hash),
    /// A signed document.
    Document(Said),
}

/// A signed document about a stream.
pub(super) struct Said {
    pub(super) kind: Kind,
    pub(super) text: EnvelopeText,
    pub(super) envelope: Envelope,
    /// First sequence that it does not speak about; 0 where it speaks about none.
    pub(super) reaches: u64,
}

/// Which document.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Agreement,
    Erasure,
    Receipt,
    Refusal,
    Rejection,
    Termination,
}

impl Said {
    /// Whether a bundle of the entries in `range` holds it. Receipts of earlier entries are not needed for a range, rejections are: receipts
    /// count them from the first on.
    pub(super) fn belongs(&self, range: &Range<u64>) -> bool {
        let before = self.kind == Kind::Receipt && range.start > 0 && self.reaches <= range.start;
        // An answer without its request says nothing, and a request may name a tombstone far behind: they go with a log from its beginning.
        let apart = self.kind == Kind::Erasure && range.start > 0;
        self.reaches <= range.end && !before && !apart
    }
}

/// Reads what a record says about `stream`; `None` where it concerns something else. The same records that an auditor looks for.
pub(super) fn about(stream: &Origin, record: LedgerRecord) -> Option<About> {
    match record {
        LedgerRecord::Agreement { envelope, .. } => {
            said::<Agreement>(envelope, Kind::Agreement, |agreement| {
                (agreement.stream == *stream).then_some(0)
            })
        }
        LedgerRecord::Decision {
            stream: about,
            policy_digest,
            ..
        } => (about == *stream).then_some(About::Decision(policy_digest.0)),
        LedgerRecord::Receipt { envelope, .. } => {
            said::<Receipt>(envelope, Kind::Receipt, |receipt| {
                (receipt.stream == *stream).then_some(receipt.size)
            })
        }
        LedgerRecord::Refusal { envelope } => said::<Refusal>(envelope, Kind::Refusal, |refusal| {
            (refusal.about == stream.as_str()).then_some(0)
        }),
        LedgerRecord::Rejection { envelope } => {
            said::<Rejection>(envelope, Kind::Rejection, |rejection| {
                (rejection.stream == *stream).then_some(rejection.sequence.saturating_add(1))
            })
        }
        LedgerRecord::ErasureRequest { envelope } => {
            said::<ErasureRequest>(envelope, Kind::Erasure, |request| {
                (request.stream == *stream).then_some(request.tombstone.saturating_add(1))
            })
        }
        LedgerRecord::ErasureAnswer { envelope } => {
            said::<ErasureAnswer>(envelope, Kind::Erasure, |answer| {
                (answer.stream == *stream).then_some(answer.sequence.saturating_add(1))
            })
        }
        LedgerRecord::Termination { envelope } => {
            said::<Termination>(envelope, Kind::Termination, |ending| {
                (ending.stream == *stream).then_some(ending.position.unwrap_or(0))
            })
        }
        // What is agreed is in the agreement; the talks about it are no evidence of the stream.
        LedgerRecord::AgreementStep { .. }
        | LedgerRecord::Allotment { .. }
        | LedgerRecord::App { .. }
        | LedgerRecord::AuthorRule { .. }
        | LedgerRecord::Contradiction { .. }
        | LedgerRecord::Cursor { .. }
        | LedgerRecord::DomainCheck { .. }
        | LedgerRecord::Fault { .. }
        | LedgerRecord::Filter { .. }
        | LedgerRecord::Hold { .. }
        | LedgerRecord::Retention { .. }
        | LedgerRecord::Invitation { .. }
        | LedgerRecord::InvitationStep { .. }
        | LedgerRecord::KeyRevocation { .. }
        | LedgerRecord::KeyStatement { .. }
        | LedgerRecord::KeyWrap { .. }
        | LedgerRecord::LogAccess { .. }
        | LedgerRecord::Plans { .. }
        | LedgerRecord::PolicySet { .. }
        | LedgerRecord::Region { .. }
        | LedgerRecord::Revocation { .. }
        | LedgerRecord::SkipClaim { .. }
        | LedgerRecord::Timestamp { .. }
        | LedgerRecord::Token { .. } => None,
    }
}

fn said<D: Document>(
    text: EnvelopeText,
    kind: Kind,
    reaches: impl Fn(&D) -> Option<u64>,
) -> Option<About> {
    let envelope = Envelope::from_json(text.as_bytes()).ok()?;
    let reaches = reaches(&D::peek(&envelope).ok()?)?;
    Some(About::Document(Said {
        kind,
        text,
        envelope,
        reaches,
    }))
}
