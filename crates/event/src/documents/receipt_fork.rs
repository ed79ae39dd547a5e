//! Two receipts of one series that cannot both be honest: `schemas/receipt-fork.md`.
//!
//! ```text
//! countersign-receipt-fork@v1
//! receipt <JSON>          the DSSE envelope with the smaller number, on one line
//! receipt <JSON>          the other one
//! statement <JSON>        a key statement or key revocation of the consumer; none or several
//! ```

use std::fmt;

use super::{Digest, Document as _, Receipt};
use crate::dsse::{ENVELOPE_BYTES_MAX, Envelope};

const HEAD: &str = "countersign-receipt-fork@v1";
/// Key statements and revocations in one file. Enforced by reader and writer.
const STATEMENTS_MAX: usize = 64;
/// The largest file: two receipts and the statements, each with the word before it.
pub const RECEIPT_FORK_BYTES_MAX: usize = (2 + STATEMENTS_MAX) * (ENVELOPE_BYTES_MAX + 16);

/// What contradicts what. Each can be seen from two receipts of one consumer and series alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReceiptContradiction {
    /// What stays the same in a series is another.
    Field(&'static str),
    /// Two receipts of one number have other words.
    Number(u64),
    /// The second does not name the first, which it follows at once.
    Previous,
    /// The later one counts less.
    Shrunk(&'static str),
    /// Two receipts of one size accept other trees, or count otherwise what was delivered up to there.
    Size(&'static str),
}

impl fmt::Display for ReceiptContradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(field) => write!(f, "in one series its {field} is two"),
            Self::Number(number) => write!(f, "number {number} of one series has two contents"),
            Self::Previous => {
                f.write_str("the later one does not name the earlier one, which it follows at once")
            }
            Self::Shrunk(field) => write!(f, "the later one goes back in {field}"),
            Self::Size(field) => write!(f, "up to one size they state another {field}"),
        }
    }
}

impl ReceiptContradiction {
    /// What two receipts of one consumer and series have against each other, the one with the smaller number first. `None` where both can be honest, or they are
    /// not of one consumer and series. The digests are those of the payloads.
    #[must_use]
    pub fn between(first: (&Receipt, &Digest), second: (&Receipt, &Digest)) -> Option<Self> {
        let ((a, a_digest), (b, b_digest)) = (first, second);
        if (&a.consumer, a.series) != (&b.consumer, b.series) || a.number > b.number {
            return None;
        }
        if a_digest == b_digest {
            return None;
        }
        let of_series = [
            (a.agreement != b.agreement, "agreement"),
            (a.stream != b.stream, "stream"),
            (a.start != b.start, "start"),
            (a.filter != b.filter, "filter"),
        ];
        if let Some((_, field)) = of_series.into_iter().find(|(differs, _)| *differs) {
            return Some(Self::Field(field));
        }
        if a.number == b.number {
            return Some(Self::Number(a.number));
        }
        if a.number.checked_add(1) == Some(b.number) && b.previous.as_ref() != Some(a_digest) {
            return Some(Self::Previous);
        }
        let shrinks = [
            (b.size < a.size, "size"),
            (b.events < a.events, "events"),
            (b.bytes < a.bytes, "bytes"),
            (b.applied < a.applied, "applied"),
            (b.rejected.count < a.rejected.count, "rejected events"),
        ];
        if let Some((_, field)) = shrinks.into_iter().find(|(shrinks, _)| *shrinks) {
            return Some(Self::Shrunk(field));
        }
        let of_size = [
            (a.root != b.root, "root"),
            (a.events != b.events, "number of events"),
            (a.bytes != b.bytes, "number of bytes"),
        ];
        let (_, field) = of_size
            .into_iter()
            .find(|(differs, _)| a.size == b.size && *differs)?;
        Some(Self::Size(field))
    }
}

/// The proof: both receipts, and whose keys signed them.
#[derive(Clone, Debug)]
pub struct ReceiptFork {
    /// The one with the smaller number.
    pub earlier: Envelope,
    /// The other one.
    pub later: Envelope,
    /// Key statements and key revocations of the consumer.
    pub statements: Vec<Envelope>,
}

/// Why bytes are no such proof.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReceiptForkError {
    /// Not the lines of such a file.
    #[error("line {line} is not what a proof of contradicting receipts has there")]
    Line {
        /// The line, from 1.
        line: usize,
    },
    /// Both can be honest.
    #[error("the two receipts do not contradict each other")]
    NoContradiction,
    /// An envelope holds no receipt.
    #[error("what is in it is no receipt")]
    Receipt,
    /// Too large, or not text.
    #[error("it is not text of at most {RECEIPT_FORK_BYTES_MAX} bytes")]
    Text,
}

impl ReceiptFork {
    /// The proof of two receipts, in whatever order they come; `None` where they do not contradict each other. No signature is looked at.
    #[must_use]
    pub fn between(one: &Envelope, other: &Envelope) -> Option<Self> {
        let claim = |envelope: &Envelope| Receipt::peek(envelope).ok();
        let (earlier, later) = match claim(one)?.number <= claim(other)?.number {
            true => (one, other),
            false => (other, one),
        };
        let proof = Self {
            earlier: earlier.clone(),
            later: later.clone(),
            statements: Vec::new(),
        };
        proof.contradiction().is_ok().then_some(proof)
    }

    /// The receipts, unverified, and what they have against each other.
    ///
    /// # Errors
    /// [`ReceiptForkError::Receipt`], [`ReceiptForkError::NoContradiction`].
    pub fn contradiction(
        &self,
    ) -> Result<(Receipt, Receipt, ReceiptContradiction), ReceiptForkError> {
        let read = |envelope| Receipt::peek(envelope).map_err(|_| ReceiptForkError::Receipt);
        let (earlier, later) = (read(&self.earlier)?, read(&self.later)?);
        let digests = [&self.earlier, &self.later].map(|one| Digest(one.payload_digest()));
        let found = ReceiptContradiction::between((&earlier, &digests[0]), (&later, &digests[1]));
        let found = found.ok_or(ReceiptForkError::NoContradiction)?;
        Ok((earlier, later, found))
    }

    /// The file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut file = format!("{HEAD}\n").into_bytes();
        let receipts = [("receipt ", &self.earlier), ("receipt ", &self.later)];
        let statements = self.statements.iter().take(STATEMENTS_MAX);
        for (word, envelope) in receipts
            .into_iter()
            .chain(statements.map(|one| ("statement ", one)))
        {
            file.extend_from_slice(word.as_bytes());
            file.extend(envelope.to_json());
            file.push(b'\n');
        }
        file
    }

    /// Reads a file. Whether the receipts contradict each other says [`Self::contradiction`].
    ///
    /// # Errors
    /// [`ReceiptForkError::Line`], [`ReceiptForkError::Text`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ReceiptForkError> {
        let text = std::str::from_utf8(bytes).map_err(|_| ReceiptForkError::Text)?;
        if bytes.len() > RECEIPT_FORK_BYTES_MAX {
            return Err(ReceiptForkError::Text);
        }
        let text = text.strip_suffix('\n').ok_or(ReceiptForkError::Text)?;
        let mut lines = text.split('\n').zip(1..);
        let fault = |line| ReceiptForkError::Line { line };
        match lines.next() {
            Some((HEAD, _)) => {}
            _ => return Err(fault(1)),
        }
        let envelope = |line: Option<(&str, usize)>, at: usize, word: &str| {
            let json = line.and_then(|(line, _)| line.strip_prefix(word));
            // One way to write the line: JSON readers pass over spaces.
            let json = json.filter(|json| json.starts_with('{') && json.ends_with('}'));
            let read = json.and_then(|json| Envelope::from_json(json.as_bytes()).ok());
            read.ok_or(fault(at))
        };
        let earlier = envelope(lines.next(), 2, "receipt ")?;
        let later = envelope(lines.next(), 3, "receipt ")?;
        let mut statements = Vec::new();
        for line in lines {
            if statements.len() == STATEMENTS_MAX {
                return Err(fault(line.1));
            }
            statements.push(envelope(Some(line), line.1, "statement ")?);
        }
        Ok(Self {
            earlier,
            later,
            statements,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use countersign_crypto::SigningKey;

    use super::*;
    use crate::documents::{AgreementId, Level, Rejections, SeriesId};
    use crate::time::Timestamp;

    fn receipt(number: u64) -> Receipt {
        Receipt {
            agreement: AgreementId([1; 16]),
            stream: "a.example/streams/s".parse().unwrap(),
            consumer: "b.example".parse().unwrap(),
            series: SeriesId([2; 16]),
            number,
            previous: None,
            start: 0,
            filter: None,
            size: 10 * number,
            root: Digest([7; 32]),
            events: 9 * number,
            bytes: 90 * number,
            level: Level::Verified,
            applied: 0,
            rejected: Rejections::default(),
            made: Timestamp(1_000_000),
        }
    }

    fn sign(receipt: &Receipt) -> Envelope {
        receipt.sign(&SigningKey::from_seed(&[9; 32]))
    }

    fn found(a: &Receipt, b: &Receipt) -> Option<ReceiptContradiction> {
        let proof = ReceiptFork::between(&sign(a), &sign(b))?;
        let turned = ReceiptFork::between(&sign(b), &sign(a)).unwrap();
        assert_eq!(
            proof.contradiction().unwrap().2,
            turned.contradiction().unwrap().2
        );
        let read = ReceiptFork::parse(&proof.encode()).unwrap();
        assert_eq!(read.encode(), proof.encode());
        Some(read.contradiction().unwrap().2)
    }

    #[test]
    fn what_two_receipts_have_against_each_other() {
        let first = receipt(1);
        let second = Receipt {
            previous: Some(Digest(sign(&first).payload_digest())),
            ..receipt(2)
        };
        assert_eq!(found(&first, &first), None);
        assert_eq!(found(&first, &second), None);
        assert_eq!(found(&first, &receipt(3)), None);
        let changed = |change: &dyn Fn(&mut Receipt)| {
            let mut other = second.clone();
            change(&mut other);
            found(&first, &other)
        };
        use ReceiptContradiction::{Field, Number, Previous, Shrunk, Size};
        assert_eq!(changed(&|r| r.number = 1), Some(Number(1)));
        assert_eq!(changed(&|r| r.previous = None), Some(Previous));
        assert_eq!(
            changed(&|r| r.previous = Some(Digest([0; 32]))),
            Some(Previous)
        );
        assert_eq!(
            changed(&|r| r.agreement = AgreementId([3; 16])),
            Some(Field("agreement"))
        );
        assert_eq!(changed(&|r| r.start = 1), Some(Field("start")));
        assert_eq!(
            changed(&|r| r.filter = Some(Digest([1; 32]))),
            Some(Field("filter"))
        );
        assert_eq!(
            changed(&|r| r.stream = "a.example/streams/t".parse().unwrap()),
            Some(Field("stream"))
        );
        assert_eq!(changed(&|r| r.size = 9), Some(Shrunk("size")));
        assert_eq!(changed(&|r| r.events = 8), Some(Shrunk("events")));
        assert_eq!(changed(&|r| r.bytes = 89), Some(Shrunk("bytes")));
        let same = |r: &mut Receipt| (r.size, r.events, r.bytes) = (10, 9, 90);
        assert_eq!(changed(&same), None);
        assert_eq!(
            changed(&|r| {
                same(r);
                r.root = Digest([8; 32])
            }),
            Some(Size("root"))
        );
        assert_eq!(
            changed(&|r| {
                same(r);
                r.events = 10
            }),
            Some(Size("number of events"))
        );
        assert_eq!(
            changed(&|r| {
                same(r);
                r.bytes = 91
            }),
            Some(Size("number of bytes"))
        );
        // Of others, and of other series: nothing follows.
        assert_eq!(
            changed(&|r| {
                r.number = 1;
                r.series = SeriesId([4; 16])
            }),
            None
        );
        assert_eq!(
            changed(&|r| {
                r.number = 1;
                r.consumer = "c.example".parse().unwrap()
            }),
            None
        );
    }

    #[test]
    fn other_text_is_refused() {
        let second = Receipt {
            events: 8,
            ..receipt(1)
        };
        let proof = ReceiptFork::between(&sign(&receipt(1)), &sign(&second)).unwrap();
        let good = String::from_utf8(proof.encode()).unwrap();
        for (bad, line) in [
            (good.replace("@v1", "@v2"), 1),
            (good.replacen("receipt {", "receipt  {", 1), 2),
            (
                good.replace("countersign.receipt", "countersign.refusal"),
                0,
            ),
            (format!("{good}more\n"), 4),
            (good.trim_end().to_owned(), 0),
        ] {
            match (ReceiptFork::parse(bad.as_bytes()), line) {
                (Ok(read), 0) => assert!(read.contradiction().is_err(), "{bad}"),
                (Err(ReceiptForkError::Text), 0) => {}
                (read, _) => assert_eq!(read.err(), Some(ReceiptForkError::Line { line }), "{bad}"),
            }
        }
    }
}
