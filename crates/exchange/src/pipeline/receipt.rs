//! Receipt: the consumer's signed answer. Made on one side ([`ReceiptSeries`]), held against what was delivered on the other
//! ([`DeliveredRange`]); both are arithmetic over positions, so that a restart of either changes nothing.

use std::collections::VecDeque;

use countersign_crypto::{Hash, SigningKey};
use countersign_event::documents::{
    AgreementId, Digest, Document, Level, Receipt, Rejections, SeriesId,
};
use countersign_event::dsse::Envelope;
use countersign_event::names::{Authority, Origin};
use countersign_event::time::Timestamp;

/// What a consumer signs over and over: one receiver, one agreement, one log.
#[derive(Clone, Debug)]
pub struct ReceiptSeries {
    /// Under which agreement.
    pub agreement: AgreementId,
    /// Which log.
    pub stream: Origin,
    /// Who signs.
    pub consumer: Authority,
    /// The series.
    pub series: SeriesId,
    /// The first sequence of the series.
    pub start: u64,
    /// Digest of the filter that it is under.
    pub filter: Option<Digest>,
    /// The last receipt and the digest of its payload.
    pub last: Option<(Receipt, Hash)>,
}

impl ReceiptSeries {
    /// Number of the last receipt; 0 where there is none.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.last.as_ref().map_or(0, |(receipt, _)| receipt.number)
    }

    /// Everything below this has been receipted.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.last
            .as_ref()
            .map_or(self.start, |(receipt, _)| receipt.size)
    }

    /// Everything below this has been receipted as applied.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.last
            .as_ref()
            .map_or(self.start, |(receipt, _)| receipt.applied)
    }

    /// Signs the next receipt. The caller makes it durable before it sends it: two receipts with one number and other words are proof against
    /// their signer.
    pub fn sign_next(&mut self, reached: &Reached, made: Timestamp, key: &SigningKey) -> Envelope {
        let before = self
            .last
            .as_ref()
            .map_or((0, 0), |(last, _)| (last.events, last.bytes));
        let applied = reached.applied.max(self.applied()).min(reached.size);
        // A clock that fell back must not date a receipt before the one it follows.
        let made = self
            .last
            .as_ref()
            .map_or(made, |(last, _)| made.max(last.made));
        let receipt = Receipt {
            agreement: self.agreement,
            stream: self.stream.clone(),
            consumer: self.consumer.clone(),
            series: self.series,
            number: self.number() + 1,
            previous: self.last.as_ref().map(|(_, digest)| Digest(*digest)),
            start: self.start,
            filter: self.filter,
            size: reached.size,
            root: Digest(reached.root),
            events: before.0 + reached.events,
            bytes: before.1 + reached.bytes,
            level: if applied == reached.size {
                Level::Applied
            } else {
                Level::Verified
            },
            applied,
            rejected: Rejections::default(),
            made,
        };
        let envelope = receipt.sign(key);
        self.last = Some((receipt, envelope.payload_digest()));
        envelope
    }
}

/// What a new receipt stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reached {
    /// Tree size: everything below it is verified and durable here.
    pub size: u64,
    /// Its root.
    pub root: Hash,
    /// Events since the last receipt.
    pub events: u64,
    /// Their data bytes.
    pub bytes: u64,
    /// Everything below this has been applied.
    pub applied: u64,
}

/// Why a receipt is not accepted. Each is the consumer's fault, and the receipt is kept.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReceiptFault {
    /// It goes back behind an earlier one.
    #[error(
        "the receipt goes back: it covers {size} entries, {applied} applied, after an earlier one of {last}"
    )]
    Backwards {
        /// What it covers.
        size: u64,
        /// What it calls applied.
        applied: u64,
        /// What the last one covered.
        last: u64,
    },
    /// Two receipts with one number say different things.
    #[error(
        "two different receipts carry number {number} of the series: proof against their signer"
    )]
    Contradiction {
        /// The number.
        number: u64,
    },
    /// It counts other events or bytes than were delivered.
    #[error(
        "the receipt counts {events} events and {bytes} bytes up to {size}, delivered were {expected_events} and {expected_bytes}"
    )]
    Count {
        /// The size.
        size: u64,
        /// Its events.
        events: u64,
        /// Its bytes.
        bytes: u64,
        /// Ours.
        expected_events: u64,
        /// Ours.
        expected_bytes: u64,
    },
    /// It names another agreement, log, consumer, series or start.
    #[error("the receipt belongs to another subscription: its {field} differs")]
    Foreign {
        /// Which field.
        field: &'static str,
    },
    /// It does not follow the one before.
    #[error("receipt {found} does not follow receipt {last} of its series")]
    Order {
        /// Number of the last one held.
        last: u64,
        /// Its number.
        found: u64,
    },
    /// Its root is not that of the log at its size.
    #[error("the receipt accepts another tree of {size} entries than the one that was signed")]
    Root {
        /// The size.
        size: u64,
    },
    /// It is not signed by a receipt key of the consumer, or not of its form.
    #[error("the receipt is not signed by a receipt key of {consumer}, or is malformed")]
    Signature {
        /// Who should have signed.
        consumer: Authority,
    },
    /// It covers what was never delivered.
    #[error("the receipt covers {size} entries, {delivered} were delivered")]
    Undelivered {
        /// What it covers.
        size: u64,
        /// What was delivered.
        delivered: u64,
    },
}

/// How many batches may be unreceipted: positions at which a receipt may stand. The exposure window bounds them in events; this bounds memory
/// (24 bytes each). Beyond it, one in the middle is forgotten, and a receipt that stands there is counted from the log.
const MARKS_MAX: usize = 65_536;

/// What was delivered beyond the last receipt: positions with the running totals of the series.
#[derive(Clone, Debug)]
pub struct DeliveredRange {
    marks: VecDeque<Mark>,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    end: u64,
    events: u64,
    bytes: u64,
}

impl DeliveredRange {
    /// Begins at `position` with the totals of the series so far.
    #[must_use]
    pub fn new(position: u64, events: u64, bytes: u64) -> Self {
        Self {
            marks: VecDeque::from([Mark {
                end: position,
                events,
                bytes,
            }]),
        }
    }

    /// Notes a batch that was handed to the transport.
    pub fn add(&mut self, end: u64, events: u64, bytes: u64) {
        let last = self.last();
        if self.marks.len() == MARKS_MAX {
            self.marks.remove(MARKS_MAX / 2);
        }
        self.marks.push_back(Mark {
            end,
            events: last.events + events,
            bytes: last.bytes + bytes,
        });
    }

    /// The position up to which was delivered.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.last().end
    }

    fn last(&self) -> Mark {
        // INVARIANT: one mark stays for ever.
        self.marks.back().copied().unwrap_or(Mark {
            end: 0,
            events: 0,
            bytes: 0,
        })
    }

    /// Checks that a receipt covers nothing that was not delivered.
    ///
    /// # Errors
    /// [`ReceiptFault::Undelivered`].
    pub fn check_end(&self, receipt: &Receipt) -> Result<(), ReceiptFault> {
        if receipt.size > self.end() {
            return Err(ReceiptFault::Undelivered {
                size: receipt.size,
                delivered: self.end(),
            });
        }
        Ok(())
    }

    /// Events and bytes of the series up to `size`, where a batch of this session ended there. Receipts of earlier sessions, which are sent
    /// again after they were lost, stand elsewhere.
    #[must_use]
    pub fn totals_at(&self, size: u64) -> Option<(u64, u64)> {
        let at = self.marks.partition_point(|mark| mark.end < size);
        let mark = self.marks.get(at).filter(|mark| mark.end == size)?;
        Some((mark.events, mark.bytes))
    }

    /// The series turns out to have begun earlier, with so many events and bytes before the first mark.
    pub fn begin_earlier(&mut self, events: u64, bytes: u64) {
        for mark in &mut self.marks {
            mark.events += events;
            mark.bytes += bytes;
        }
    }

    /// Forgets what lies below a checked receipt's size.
    pub fn forget_below(&mut self, size: u64) {
        while self.marks.len() > 1 && self.marks.front().is_some_and(|mark| mark.end < size) {
            self.marks.pop_front();
        }
    }
}

/// Checks the counts of a receipt. Beside what was delivered, some or all of `unknown` may be in it: under a filter, what was erased since.
///
/// # Errors
/// [`ReceiptFault::Count`].
pub fn check_counts(
    receipt: &Receipt,
    (events, bytes): (u64, u64),
    unknown: (u64, u64),
) -> Result<(), ReceiptFault> {
    let within = |found: u64, least: u64, more: u64| {
        found.checked_sub(least).is_some_and(|over| over <= more)
    };
    if within(receipt.events, events, unknown.0) && within(receipt.bytes, bytes, unknown.1) {
        return Ok(());
    }
    Err(ReceiptFault::Count {
        size: receipt.size,
        events: receipt.events,
        bytes: receipt.bytes,
        expected_events: events,
        expected_bytes: bytes,
    })
}

/// Checks that `receipt` follows `last` in its series.
///
/// # Errors
/// [`ReceiptFault`].
pub fn check_follows(
    receipt: &Receipt,
    last: Option<&(Receipt, Hash)>,
    start: u64,
) -> Result<(), ReceiptFault> {
    let (last_number, last_size, last_applied) = last.map_or((0, start, start), |(last, _)| {
        (last.number, last.size, last.applied)
    });
    let previous = last.map(|(_, digest)| Digest(*digest));
    if receipt.number != last_number + 1 || receipt.previous != previous {
        return Err(ReceiptFault::Order {
            last: last_number,
            found: receipt.number,
        });
    }
    if receipt.start != start {
        return Err(ReceiptFault::Foreign { field: "start" });
    }
    if receipt.size < last_size || receipt.applied < last_applied || receipt.applied > receipt.size
    {
        return Err(ReceiptFault::Backwards {
            size: receipt.size,
            applied: receipt.applied,
            last: last_size,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series() -> ReceiptSeries {
        ReceiptSeries {
            agreement: AgreementId([1; 16]),
            stream: "a.example/streams/s".parse().unwrap(),
            consumer: "b.example".parse().unwrap(),
            series: SeriesId([2; 16]),
            start: 5,
            filter: None,
            last: None,
        }
    }

    fn reached(size: u64, events: u64, applied: u64) -> Reached {
        Reached {
            size,
            root: [size as u8; 32],
            events,
            bytes: events * 10,
            applied,
        }
    }

    fn signed(series: &mut ReceiptSeries, reached: &Reached) -> Receipt {
        let key = SigningKey::from_seed(&[9; 32]);
        let envelope = series.sign_next(reached, Timestamp(1_000_000), &key);
        Receipt::open(&envelope, &key.public()).unwrap()
    }

    #[test]
    fn receipts_of_a_series_are_cumulative_and_chained() {
        let mut series = series();
        let first = signed(&mut series, &reached(10, 4, 0));
        assert_eq!(
            (first.number, first.previous, first.events, first.bytes),
            (1, None, 4, 40)
        );
        assert_eq!((first.level, first.applied), (Level::Verified, 5));
        check_follows(&first, None, 5).unwrap();
        let before = series.last.clone();
        let second = signed(&mut series, &reached(12, 2, 12));
        assert_eq!(
            (second.number, second.events, second.level),
            (2, 6, Level::Applied)
        );
        check_follows(&second, before.as_ref(), 5).unwrap();
    }

    #[test]
    fn receipts_out_of_order_or_backwards_are_refused() {
        let mut series = series();
        let first = signed(&mut series, &reached(10, 5, 0));
        let last = series.last.clone();
        let second = signed(&mut series, &reached(12, 2, 7));
        assert!(check_follows(&second, None, 5).is_err());
        assert!(check_follows(&first, last.as_ref(), 5).is_err());
        let altered = [
            Receipt {
                previous: None,
                ..second.clone()
            },
            Receipt {
                start: 4,
                ..second.clone()
            },
            Receipt {
                size: 9,
                ..second.clone()
            },
            Receipt {
                applied: 4,
                ..second.clone()
            },
            Receipt {
                applied: 13,
                ..second.clone()
            },
        ];
        for altered in altered {
            assert!(
                check_follows(&altered, last.as_ref(), 5).is_err(),
                "{altered:?}"
            );
        }
        check_follows(&second, last.as_ref(), 5).unwrap();
    }

    #[test]
    fn a_receipt_stands_for_what_was_delivered_and_no_more() {
        let mut delivered = DeliveredRange::new(5, 0, 0);
        delivered.add(10, 4, 40);
        delivered.add(12, 2, 20);
        let mut series = series();
        let honest = signed(&mut series, &reached(10, 4, 0));
        let wrong = [
            Receipt {
                size: 13,
                ..honest.clone()
            },
            Receipt {
                size: 11,
                ..honest.clone()
            },
            Receipt {
                events: 5,
                ..honest.clone()
            },
            Receipt {
                bytes: 39,
                ..honest.clone()
            },
        ];
        let check = |delivered: &DeliveredRange, receipt: &Receipt| {
            delivered.check_end(receipt).is_ok()
                && delivered
                    .totals_at(receipt.size)
                    .is_some_and(|totals| check_counts(receipt, totals, (0, 0)).is_ok())
        };
        for wrong in wrong {
            assert!(!check(&delivered, &wrong), "{wrong:?}");
        }
        assert!(check(&delivered, &honest));
        delivered.forget_below(honest.size);
        assert!(check(&delivered, &honest));
        let next = signed(&mut series, &reached(12, 2, 0));
        assert!(check(&delivered, &next));
        assert_eq!(delivered.end(), 12);
    }
}
