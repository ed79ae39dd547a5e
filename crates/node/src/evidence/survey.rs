//! What our ledgers say about a stream, and how much of it belongs into a bundle.

use std::collections::BTreeSet;
use std::ops::Range;

use countersign_crypto::Hash;
use countersign_store::journal::{JournalReader, ReadError};

use super::ledger_reader::{About, Kind, LedgerReader, about};
use super::snapshot::{FixedLog, Snapshot, counterparty};
use super::{ExportError, LeftOut};

/// Signed documents in one bundle: the format lists at most 262,144 files; 4,096 may be checkpoints, and policies, keys and decisions need
/// their places too.
const DOCUMENTS_MAX: u64 = 262_144 - 8_192;

/// Bytes of all documents: the format's limit.
const DOCUMENT_BYTES_MAX: u64 = 256 << 20;

/// Refusals in one bundle, the newest: a partner that tries again and again must not crowd out the receipts.
const REFUSALS_MAX: u64 = 4_096;

/// One ledger log and what is taken of it.
pub(super) struct SurveyedLedger {
    pub(super) log: FixedLog,
    /// As it goes into the bundle, if it does.
    pub(super) exported: Option<FixedLog>,
    /// Documents and decisions are taken from the entries below.
    pub(super) end: u64,
}

/// The outcome of one pass over the ledgers.
pub(super) struct Survey {
    pub(super) ledgers: Vec<SurveyedLedger>,
    /// The policy sets that decided.
    pub(super) policies: BTreeSet<Hash>,
    /// So many refusals, the oldest, stay away.
    pub(super) refusals_skipped: u64,
    pub(super) left_out: Vec<LeftOut>,
}

#[derive(Default)]
struct Tally {
    agreements: u64,
    decisions: u64,
    /// Documents that belong to the range, and their bytes.
    documents: u64,
    bytes: u64,
    refusals: u64,
    earlier_receipts: u64,
    /// Requests to erase and answers, of a range that does not begin at the beginning.
    erasures_apart: u64,
    /// Documents that speak of entries after the range, and the first of them.
    beyond: u64,
    first_beyond: Option<u64>,
    policies: BTreeSet<Hash>,
}

impl Survey {
    pub(super) fn make(
        reader: &JournalReader,
        snapshot: &Snapshot,
        range: Range<u64>,
    ) -> Result<Self, ExportError> {
        let mut ledgers = Vec::new();
        let mut all = Tally::default();
        let (mut cut_decisions, mut cut_documents, mut cut_entries, mut elsewhere) = (0, 0, 0, 0);
        // An agreement stands in one generation of a ledger log, and what was received under it in later ones too; none of them counts without the one before.
        let mut wanted = BTreeSet::new();
        let mut cut_logs = BTreeSet::new();
        let mut tallies = Vec::new();
        for log in &snapshot.ledgers {
            let size = log.checkpoint.size;
            let tally = Tally::of(reader, snapshot, log, 0..size, &range)?;
            let node = counterparty(&log.origin).is_none();
            if tally.agreements > 0 || (node && tally.decisions > 0) {
                wanted.insert(log.origin.first_generation());
            }
            tallies.push((log, size, tally));
        }
        for (log, size, tally) in tallies {
            let first = log.origin.first_generation();
            let wanted = wanted.contains(&first);
            // A successor goes on from all of the one before.
            let broken_off = cut_logs.contains(&first);
            let exported = match tally.first_beyond {
                _ if !wanted || broken_off => None,
                None => Some(log.clone()),
                Some(first) => snapshot.cut(reader, log, first)?,
            };
            let end = match &exported {
                Some(log) => log.checkpoint.size,
                None if wanted && broken_off => 0,
                None => size,
            };
            if wanted && (exported.is_none() || end < size) {
                cut_logs.insert(first);
            }
            let cut = Tally::of(reader, snapshot, log, end..size, &range)?;
            if exported.is_none() && !broken_off {
                elsewhere += tally.decisions;
            } else {
                cut_entries += size - end;
            }
            cut_decisions += cut.decisions;
            cut_documents += cut.documents;
            all.add(tally, &cut);
            ledgers.push(SurveyedLedger {
                log: log.clone(),
                exported,
                end,
            });
        }
        let refusals_skipped = all.refusals.saturating_sub(REFUSALS_MAX);
        let documents = all.documents - refusals_skipped
            + (snapshot.statements.len() + snapshot.revocations.len()) as u64;
        if documents > DOCUMENTS_MAX || all.bytes > DOCUMENT_BYTES_MAX {
            return Err(ExportError::TooManyDocuments {
                documents,
                bytes: all.bytes,
                documents_max: DOCUMENTS_MAX,
                bytes_max: DOCUMENT_BYTES_MAX,
            });
        }
        let after = "they lie in the ledger after it first speaks of entries beyond this range";
        let left_out = [
            (
                "requests to erase and answers",
                all.erasures_apart,
                "they go with a log from its beginning",
            ),
            (
                "receipts",
                all.earlier_receipts,
                "they end before this range",
            ),
            (
                "documents",
                all.beyond,
                "they speak of entries beyond this range",
            ),
            ("documents", cut_documents, after),
            ("decisions", cut_decisions, after),
            ("ledger entries", cut_entries, after),
            (
                "refusals",
                refusals_skipped,
                "only the newest 4,096 are taken",
            ),
            (
                "proofs of decisions",
                elsewhere,
                "they lie in ledgers about partners without an agreement on this stream, which are not shown",
            ),
        ];
        Ok(Self {
            ledgers,
            policies: all.policies,
            refusals_skipped,
            left_out: left_out
                .into_iter()
                .filter(|(_, count, _)| *count > 0)
                .map(|(what, count, why)| LeftOut { what, count, why })
                .collect(),
        })
    }
}

impl Tally {
    fn of(
        reader: &JournalReader,
        snapshot: &Snapshot,
        log: &FixedLog,
        entries: Range<u64>,
        range: &Range<u64>,
    ) -> Result<Self, ReadError> {
        let mut tally = Self::default();
        let mut records = LedgerReader::new(reader, log.number, entries);
        while let Some(item) = records.next()? {
            let said = match about(&snapshot.stream.origin, item.record) {
                None => continue,
                Some(About::Decision(policies)) => {
                    tally.decisions += 1;
                    tally.policies.insert(policies);
                    continue;
                }
                Some(About::Document(said)) => said,
            };
            if said.reaches > range.end {
                tally.beyond += 1;
                tally.first_beyond.get_or_insert(item.sequence);
            } else if said.belongs(range) {
                tally.documents += 1;
                tally.bytes += said.text.len() as u64;
                match said.kind {
                    Kind::Agreement => tally.agreements += 1,
                    Kind::Refusal => tally.refusals += 1,
                    Kind::Erasure | Kind::Receipt | Kind::Rejection | Kind::Termination => {}
                }
            } else if said.kind == Kind::Erasure {
                tally.erasures_apart += 1;
            } else {
                tally.earlier_receipts += 1;
            }
        }
        Ok(tally)
    }

    /// Adds what one ledger says, without what is cut off of it.
    fn add(&mut self, ledger: Self, cut: &Self) {
        self.documents += ledger.documents - cut.documents;
        self.bytes += ledger.bytes - cut.bytes;
        self.refusals += ledger.refusals - cut.refusals;
        self.earlier_receipts += ledger.earlier_receipts;
        self.erasures_apart += ledger.erasures_apart;
        self.beyond += ledger.beyond;
        self.policies.extend(ledger.policies);
    }
}
