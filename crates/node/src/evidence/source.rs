//! A bundle's content, pulled out of the exchange piece by piece.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::ops::Range;

use countersign_audit::{
    BundleFacts, BundleSource, ContentLengths, DecisionLine, LogFacts, PolicyFile, Skeleton,
    SourceError, Stamped,
};
use countersign_crypto::Hash;
use countersign_event::documents::{Document as _, Refusal, Role};
use countersign_event::dsse::Envelope;
use countersign_event::entry::ENTRY_BYTES;
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::Origin;
use countersign_exchange::{Exchange, read_allows};
use countersign_store::journal::{Erasure, JournalReader, LogNumber, ReadError, Run};
use countersign_tlog::NodeSource as _;

use super::LeftOut;
use super::ledger_reader::{About, Kind, LedgerReader, about};
use super::snapshot::{FixedLog, Snapshot, Stated, counterparty};
use super::survey::{Survey, SurveyedLedger};

/// Bytes asked of the journal at once.
const READ_BYTES: u64 = 4 << 20;

/// Bytes of contents kept between the question for their lengths and that for themselves.
const KEPT_BYTES: usize = 8 << 20;

/// Entries of a log whose contents were read with their lengths.
struct Kept {
    log: usize,
    runs: Vec<Run>,
}

/// See the module.
pub(super) struct ExchangeSource {
    reader: JournalReader,
    made: String,
    range: Range<u64>,
    stream: Origin,
    /// The logs of the bundle, in its order.
    logs: Vec<FixedLog>,
    kept: Option<Kept>,
    /// The control entry that was looked up last, and its word.
    gone_by: Option<(u64, &'static str)>,
    statements: Vec<Stated>,
    revocations: std::vec::IntoIter<Envelope>,
    statements_given: usize,
    ledgers: Vec<SurveyedLedger>,
    documents: Scan,
    documents_given: HashSet<Hash>,
    refusals_to_skip: u64,
    refusals_unsigned: u64,
    decisions: Scan,
    policies_wanted: BTreeSet<Hash>,
    policies: Option<LedgerReader>,
    policy_files: VecDeque<PolicyFile>,
    timestamps: VecDeque<Stamped>,
}

/// A pass over the ledgers, one after the other.
#[derive(Default)]
struct Scan {
    ledger: usize,
    records: Option<LedgerReader>,
}

impl ExchangeSource {
    pub(super) fn new(
        exchange: &Exchange,
        snapshot: Snapshot,
        survey: Survey,
        range: Range<u64>,
        timestamps: Vec<Stamped>,
    ) -> Self {
        let exported = survey
            .ledgers
            .iter()
            .filter_map(|ledger| ledger.exported.clone());
        let mut logs = vec![snapshot.stream.clone()];
        logs.extend(exported);
        let reader = exchange.reader().clone();
        let node = snapshot
            .ledgers
            .iter()
            .find(|log| counterparty(&log.origin).is_none());
        let policies =
            node.map(|log| LedgerReader::new(&reader, log.number, 0..log.checkpoint.size));
        Self {
            made: exchange.clock().now().to_rfc3339(),
            range,
            stream: snapshot.stream.origin,
            logs,
            kept: None,
            gone_by: None,
            statements: snapshot.statements,
            revocations: snapshot.revocations.into_iter(),
            statements_given: 0,
            ledgers: survey.ledgers,
            documents: Scan::default(),
            documents_given: HashSet::new(),
            refusals_to_skip: survey.refusals_skipped,
            refusals_unsigned: 0,
            decisions: Scan::default(),
            policies_wanted: survey.policies,
            policies,
            policy_files: VecDeque::new(),
            timestamps: timestamps.into(),
            reader,
        }
    }

    /// What turned out on the way not to be there.
    pub(super) fn left_out(&self) -> impl Iterator<Item = LeftOut> {
        let found = [
            (
                "refusals",
                self.refusals_unsigned,
                "no key known here as one in force then signed them",
            ),
            (
                "policy sets",
                self.policies_wanted.len() as u64,
                "the node's ledger does not hold their texts",
            ),
        ];
        found
            .into_iter()
            .filter(|(_, count, _)| *count > 0)
            .map(|(what, count, why)| LeftOut { what, count, why })
    }

    fn number(&self, log: usize) -> Result<LogNumber, SourceError> {
        let log = self.logs.get(log).ok_or(Unasked)?;
        Ok(log.number)
    }

    /// The next thing said about the stream, with where it is said.
    fn say_next(&self, scan: &mut Scan) -> Result<Option<(Origin, u64, String, About)>, ReadError> {
        while let Some(ledger) = self.ledgers.get(scan.ledger) {
            let records = scan.records.get_or_insert_with(|| {
                LedgerReader::new(&self.reader, ledger.log.number, 0..ledger.end)
            });
            while let Some(item) = records.next()? {
                if let Some(about) = about(&self.stream, item.record) {
                    let origin = ledger.log.origin.clone();
                    return Ok(Some((origin, item.sequence, item.data, about)));
                }
            }
            scan.ledger += 1;
            scan.records = None;
        }
        Ok(None)
    }

    /// Whether a side whose statements are in the bundle signed a refusal, by an auditor's rule: the newest statement made by then, else the
    /// first, and a key within its period. A partner can hand us anything as its refusal, also what would make the bundle look false.
    fn is_signed(&self, envelope: &Envelope) -> bool {
        let Ok(claim) = Refusal::peek(envelope) else {
            return false;
        };
        let of_one = self
            .statements
            .chunk_by(|a, b| a.statement.authority == b.statement.authority);
        of_one.into_iter().any(|statements| {
            let by_then = statements.iter().rev();
            let in_force = by_then
                .clone()
                .find(|stated| stated.statement.made <= claim.made)
                .or(statements.first());
            let mut keys = in_force
                .into_iter()
                .flat_map(|stated| stated.statement.keys_for(Role::Agreement));
            keys.any(|key| {
                let in_period =
                    key.from <= claim.made && key.until.is_none_or(|until| claim.made < until);
                in_period && Refusal::open(envelope, &key.key).is_ok()
            })
        })
    }
}

impl ExchangeSource {
    /// An entry whose content is gone, and in a word what allowed it.
    fn erased(
        &mut self,
        log: LogNumber,
        run: &Run,
        sequence: u64,
        entry: [u8; ENTRY_BYTES],
    ) -> Result<Skeleton, SourceError> {
        let by = run.erased_by(sequence);
        // One expiry speaks for many entries, one after the other.
        let reason = match self.gone_by {
            Some((known, reason)) if by == Some(known) => reason,
            _ if by == Some(Erasure::FILTERED) => "filtered",
            _ => match by
                .map(|by| read_allows(&self.reader, log, by))
                .transpose()?
            {
                Some(Some(allows)) => allows.word(),
                _ => "withheld",
            },
        };
        self.gone_by = by.map(|by| (by, reason));
        Ok(Skeleton {
            entry,
            content: ContentLengths::Undisclosed,
            reason: Some(reason),
        })
    }
}

/// A log that the bundle does not have.
#[derive(Debug, thiserror::Error)]
#[error("the bundle has no such log, or the entry does not have its form")]
struct Unasked;

impl BundleSource for ExchangeSource {
    fn facts(&mut self) -> Result<BundleFacts, SourceError> {
        let logs = self.logs.iter().enumerate().map(|(at, log)| {
            let whole = 0..log.checkpoint.size;
            let range = if at == 0 { self.range.clone() } else { whole };
            LogFacts {
                origin: log.origin.clone(),
                from: range.start,
                to: range.end,
                checkpoint: log.note.clone(),
                vkey: log.vkey.clone(),
            }
        });
        Ok(BundleFacts {
            made: self.made.clone(),
            made_by: format!("countersign {}", env!("CARGO_PKG_VERSION")),
            logs: logs.collect(),
            undisclosed_reason: "withheld".to_owned(),
        })
    }

    fn skeletons(&mut self, log: usize, from: u64, to: u64) -> Result<Vec<Skeleton>, SourceError> {
        let number = self.number(log)?;
        let mut skeletons = Vec::new();
        let (mut runs, mut bytes, mut next) = (Vec::new(), 0, from);
        while next < to {
            for run in self.reader.read(number, next, to - next, READ_BYTES)? {
                let entries = run.entries.chunks_exact(ENTRY_BYTES).zip(run.contents());
                for (sequence, (entry, lengths)) in (run.first..).zip(entries) {
                    let entry = entry.try_into().map_err(|_| Unasked)?;
                    skeletons.push(match lengths.is_absent() {
                        true => self.erased(number, &run, sequence, entry)?,
                        false => Skeleton {
                            entry,
                            content: ContentLengths::Disclosed {
                                attributes: lengths
                                    .attribute_bytes
                                    .try_into()
                                    .map_err(|_| Unasked)?,
                                data_part: lengths.data_part_bytes,
                            },
                            reason: None,
                        },
                    });
                }
                next = run.first + u64::from(run.count);
                bytes += run.content.len();
                if bytes <= KEPT_BYTES {
                    runs.push(run);
                }
            }
        }
        self.kept = (bytes <= KEPT_BYTES).then_some(Kept { log, runs });
        Ok(skeletons)
    }

    fn contents(
        &mut self,
        log: usize,
        from: u64,
        to: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), SourceError> {
        let mut next = from;
        if let Some(kept) = self.kept.as_ref().filter(|kept| kept.log == log) {
            next = append(&kept.runs, next, to, out);
        }
        let number = self.number(log)?;
        while next < to {
            let runs = self.reader.read(number, next, to - next, READ_BYTES)?;
            next = append(&runs, next, to, out);
        }
        Ok(())
    }

    fn node(&mut self, log: usize, level: u8, index: u64) -> Result<Hash, SourceError> {
        Ok(self.reader.nodes(self.number(log)?).node(level, index)?)
    }

    fn next_document(&mut self) -> Result<Option<Vec<u8>>, SourceError> {
        if let Some(stated) = self.statements.get(self.statements_given) {
            self.statements_given += 1;
            return Ok(Some(stated.envelope.to_json()));
        }
        if let Some(revocation) = self.revocations.next() {
            return Ok(Some(revocation.to_json()));
        }
        let mut scan = std::mem::take(&mut self.documents);
        let mut document = None;
        while let Some((_, _, _, about)) = self.say_next(&mut scan)? {
            let About::Document(said) = about else {
                continue;
            };
            if !said.belongs(&self.range) {
                continue;
            }
            if said.kind == Kind::Refusal {
                if self.refusals_to_skip > 0 {
                    self.refusals_to_skip -= 1;
                    continue;
                }
                if !self.is_signed(&said.envelope) {
                    self.refusals_unsigned += 1;
                    continue;
                }
            }
            if self.documents_given.insert(said.envelope.payload_digest()) {
                document = Some(said.text.into_bytes());
                break;
            }
        }
        self.documents = scan;
        Ok(document)
    }

    fn next_policy(&mut self) -> Result<Option<PolicyFile>, SourceError> {
        while self.policy_files.is_empty() && !self.policies_wanted.is_empty() {
            let Some(records) = &mut self.policies else {
                break;
            };
            let Some(item) = records.next()? else { break };
            if let LedgerRecord::PolicySet { digest, files } = item.record
                && self.policies_wanted.remove(&digest.0)
            {
                let set = digest.0;
                let files = files.into_iter();
                self.policy_files
                    .extend(files.map(|(file, text)| PolicyFile { set, file, text }));
            }
        }
        Ok(self.policy_files.pop_front())
    }

    fn next_timestamp(&mut self) -> Result<Option<Stamped>, SourceError> {
        Ok(self.timestamps.pop_front())
    }

    fn next_decision(&mut self) -> Result<Option<DecisionLine>, SourceError> {
        let mut scan = std::mem::take(&mut self.decisions);
        let mut decision = None;
        while let Some((ledger, sequence, record, about)) = self.say_next(&mut scan)? {
            if let About::Decision(_) = about {
                decision = Some(DecisionLine {
                    ledger,
                    sequence,
                    record,
                });
                break;
            }
        }
        self.decisions = scan;
        Ok(decision)
    }
}

/// Appends the contents of [next, to) as far as the runs have them without a gap; gives what comes next.
fn append(runs: &[Run], mut next: u64, to: u64, out: &mut Vec<u8>) -> u64 {
    for stored in runs.iter().flat_map(Run::iter) {
        if stored.sequence == next && next < to {
            out.extend_from_slice(stored.content);
            next += 1;
        }
    }
    next
}
