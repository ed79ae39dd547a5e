//! The consumer's side of a series of receipts: when one is due, and what it says. At most one is on its way, so that the producer is never
//! more than one behind what is kept here.

use std::time::Duration;

use countersign_crypto::{Hash, SigningKey};
use countersign_event::documents::{
    Agreement, Digest, Document as _, Level, Receipt, Rejections, SeriesId,
};
use countersign_event::dsse::Envelope;
use countersign_event::time::Timestamp;
use countersign_protocol::SubscribeReady;
use countersign_protocol::delivery::VerifiedBatch;
use tokio::time::Instant;

use super::{Cursor, Reached, SubscribeError, SubscriptionState};

pub(super) struct Receipts {
    agreement: Agreement,
    series: SeriesId,
    filter: Option<Digest>,
    /// First sequence of the series; known once the producer named the start of the first session.
    start: u64,
    last: Option<(Receipt, Hash, Envelope)>,
    reached: Reached,
    applied: u64,
    /// Number of a receipt that the producer has not answered yet.
    awaited: Option<u64>,
    exposure: u64,
    delay: Duration,
    due_at: Option<Instant>,
}

impl Receipts {
    pub(super) fn new(
        agreement: Agreement,
        state: &SubscriptionState,
        key: &SigningKey,
        filter: Option<Digest>,
        delay: Duration,
    ) -> Result<Self, SubscribeError> {
        let damaged = || SubscribeError::State {
            part: "the last receipt",
        };
        let last = match &state.receipt {
            None => None,
            Some(text) => {
                let envelope = Envelope::from_json(text.as_bytes()).map_err(|_| damaged())?;
                let receipt = Receipt::open(&envelope, &key.public()).map_err(|_| damaged())?;
                let digest = envelope.payload_digest();
                Some((receipt, digest, envelope))
            }
        };
        let is_ours =
            |receipt: &Receipt| receipt.series == state.series && receipt.agreement == agreement.id;
        let receipted = state.receipted.unwrap_or(Cursor {
            next: 0,
            leaf: [0; 32],
        });
        if let Some((receipt, ..)) = &last
            && (!is_ours(receipt) || receipted.next != receipt.size)
        {
            return Err(damaged());
        }
        let reached = Reached {
            size: receipted.next,
            root: last
                .as_ref()
                .map_or([0; 32], |(receipt, ..)| receipt.root.0),
            leaf: receipted.leaf,
            events: 0,
            bytes: 0,
        };
        Ok(Self {
            series: state.series,
            filter,
            start: last.as_ref().map_or(0, |(receipt, ..)| receipt.start),
            applied: last.as_ref().map_or(0, |(receipt, ..)| receipt.applied),
            last,
            reached,
            awaited: None,
            exposure: agreement.plan.exposure_events.max(1),
            agreement,
            delay,
            due_at: None,
        })
    }

    /// A session begins: compares what both sides hold. Returns a receipt that the producer lacks.
    pub(super) fn begin(
        &mut self,
        ready: &SubscribeReady,
        root: Hash,
    ) -> Result<Option<Envelope>, SubscribeError> {
        let (theirs, ours) = (ready.receipt_number, self.number());
        self.exposure = ready.exposure_events.max(1);
        let disagree = Err(SubscribeError::ReceiptSeries { theirs, ours });
        let Some((last, _, envelope)) = &self.last else {
            if theirs != 0 {
                return disagree;
            }
            // A series without receipts begins wherever this session does; what was read under an earlier one is not in it.
            if self.reached.size <= ready.start {
                self.start = ready.start;
                self.applied = self.applied.max(ready.start);
                self.reached = Reached {
                    size: ready.start,
                    root,
                    leaf: ready.last_leaf,
                    events: 0,
                    bytes: 0,
                };
            }
            return Ok(None);
        };
        if theirs == ours && ready.receipt_size == last.size {
            self.awaited = None;
            return Ok(None);
        }
        if theirs.checked_add(1) == Some(ours) {
            self.awaited = Some(ours);
            return Ok(Some(envelope.clone()));
        }
        disagree
    }

    /// Takes note of verified entries. Those below what was reached before are a repetition, and not counted twice.
    pub(super) fn verified(&mut self, batch: &VerifiedBatch) {
        if batch.end() <= self.reached.size {
            return;
        }
        let (events, bytes) = if batch.first() >= self.reached.size {
            (batch.events(), batch.data_bytes())
        } else {
            count_from(batch, self.reached.size, self.filter.is_some())
        };
        self.reached.size = batch.end();
        self.reached.root = batch.range().root();
        self.reached.leaf = batch.leaf_hashes().last().copied().unwrap_or_default();
        self.reached.events = self.reached.events.saturating_add(events);
        self.reached.bytes = self.reached.bytes.saturating_add(bytes);
        self.note_due();
    }

    /// The application has taken everything below `next`.
    pub(super) fn applied(&mut self, next: u64) {
        self.applied = self.applied.max(next);
        self.note_due();
    }

    /// The producer answered. False where it names a receipt that was not sent.
    pub(super) fn acknowledged(&mut self, number: u64) -> bool {
        let is_awaited = self.awaited == Some(number);
        if is_awaited {
            self.awaited = None;
        }
        // A receipt sent twice is answered twice.
        is_awaited || (number > 0 && number <= self.number())
    }

    /// Whether there is something to sign; ignoring when.
    pub(super) fn is_possible(&self) -> bool {
        let applied = self.applied.min(self.reached.size);
        let applied_before = self
            .last
            .as_ref()
            .map_or(self.start, |(last, ..)| last.applied);
        self.awaited.is_none() && (self.reached.size > self.size() || applied > applied_before)
    }

    /// When the next receipt is due; `None` while there is nothing to sign, or an answer is awaited.
    pub(super) fn due(&self) -> Option<Instant> {
        if !self.is_possible() {
            return None;
        }
        let is_half = self.reached.size - self.size() >= (self.exposure / 2).max(1);
        let now = Instant::now();
        Some(if is_half {
            now
        } else {
            self.due_at.unwrap_or(now)
        })
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.awaited.is_some()
    }

    /// Signs the next receipt and notes it in `state`, which has to be kept before the receipt is sent: two receipts with one number and other
    /// words would be proof against us.
    pub(super) fn sign(
        &mut self,
        state: &mut SubscriptionState,
        made: Timestamp,
        key: &SigningKey,
    ) -> Envelope {
        let before = self.last.as_ref().map(|(last, digest, _)| (last, digest));
        let (events, bytes) = before.map_or((0, 0), |(last, _)| (last.events, last.bytes));
        let applied_before = before.map_or(self.start, |(last, _)| last.applied);
        let size = self.reached.size;
        let applied = self.applied.min(size).max(applied_before);
        let receipt = Receipt {
            agreement: self.agreement.id,
            stream: self.agreement.stream.clone(),
            consumer: self.agreement.consumer.authority.clone(),
            series: self.series,
            number: self.number() + 1,
            previous: before.map(|(_, digest)| Digest(*digest)),
            start: self.start,
            filter: self.filter,
            size,
            root: Digest(self.reached.root),
            events: events.saturating_add(self.reached.events),
            bytes: bytes.saturating_add(self.reached.bytes),
            level: if applied == size {
                Level::Applied
            } else {
                Level::Verified
            },
            applied,
            rejected: Rejections::default(),
            made,
        };
        let envelope = receipt.sign(key);
        state.receipt = String::from_utf8(envelope.to_json()).ok();
        state.receipted = Some(Cursor {
            next: size,
            leaf: self.reached.leaf,
        });
        self.awaited = Some(receipt.number);
        self.last = Some((receipt, envelope.payload_digest(), envelope.clone()));
        self.reached.events = 0;
        self.reached.bytes = 0;
        self.due_at = None;
        envelope
    }

    /// Number of the last receipt; 0 where there is none.
    pub(super) fn number(&self) -> u64 {
        self.last.as_ref().map_or(0, |(last, ..)| last.number)
    }

    /// Everything below this has been receipted.
    pub(super) fn size(&self) -> u64 {
        self.last
            .as_ref()
            .map_or(self.start, |(last, ..)| last.size)
    }

    fn note_due(&mut self) {
        if self.due_at.is_none() {
            self.due_at = Instant::now().checked_add(self.delay);
        }
    }
}

/// Events and data bytes of a batch from `sequence` on.
fn count_from(batch: &VerifiedBatch, sequence: u64, filtered: bool) -> (u64, u64) {
    use countersign_event::entry::{ENTRY_BYTES, Entry, Kind};
    let entries = batch.entries().as_chunks::<ENTRY_BYTES>().0.iter();
    entries
        .filter_map(|entry| Entry::decode(entry).ok())
        .zip(batch.lengths())
        .filter(|(entry, lengths)| {
            // Under a filter only what came whole counts; without one everything does.
            let counts = !lengths.is_absent() || (!filtered && !lengths.is_skipped());
            entry.kind == Kind::Event && entry.sequence >= sequence && counts
        })
        .map(|(entry, _)| entry)
        .fold((0, 0), |(events, bytes), entry| {
            (events + 1, bytes + u64::from(entry.data_bytes))
        })
}
