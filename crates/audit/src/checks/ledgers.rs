//! Decisions and documents lie in the organization's own log, and what lies there about the stream is here.

use std::collections::{BTreeMap, BTreeSet};

use countersign_crypto::{Hash, sha256};
use countersign_event::content::EventRef;
use countersign_event::documents::{
    Agreement, Document, ErasureAnswer, ErasureRequest, KeyStatement, Receipt, Rejection,
    Termination,
};
use countersign_event::dsse::Envelope;
use countersign_event::ledger::{DomainResult, LedgerRecord, TYPE_PREFIX};
use countersign_event::names::{Authority, LogSubject, Origin};
use countersign_event::time::Timestamp;

use super::coverage::Reach;
use super::decisions::Placed;
use super::documents::Documents;
use crate::manifest::{DECISIONS, LogEntry};
use crate::report::{Check, Collector, Finding, Severity};
use crate::walk::{Fact, FactKind};

/// What a walked ledger log says about the stream.
pub(crate) struct Ledger<'a> {
    pub(crate) log: &'a LogEntry,
    pub(crate) facts: Vec<Fact>,
}

/// Reads one ledger entry; `None` where it does not concern `stream`.
pub(crate) fn look(stream: &Origin, sequence: u64, event: &EventRef<'_>) -> Option<Fact> {
    if !event.attributes().kind().starts_with(TYPE_PREFIX) {
        return None;
    }
    let data = event.data().data;
    let kind = match LedgerRecord::from_json(data).ok()? {
        LedgerRecord::Decision { stream: about, .. } if about == *stream => {
            FactKind::Decision(sha256(data))
        }
        LedgerRecord::Agreement { envelope, .. } => {
            document::<Agreement>(&envelope, "agreement", |agreement| {
                (agreement.stream == *stream).then_some(0)
            })?
        }
        LedgerRecord::Receipt { envelope, .. } => {
            document::<Receipt>(&envelope, "receipt", |receipt| {
                (receipt.stream == *stream).then_some(receipt.size)
            })?
        }
        LedgerRecord::Rejection { envelope } => {
            document::<Rejection>(&envelope, "rejection", |rejection| {
                (rejection.stream == *stream).then_some(rejection.sequence.saturating_add(1))
            })?
        }
        LedgerRecord::ErasureRequest { envelope } => {
            document::<ErasureRequest>(&envelope, "erasure request", |request| {
                (request.stream == *stream).then_some(request.tombstone.saturating_add(1))
            })?
        }
        LedgerRecord::ErasureAnswer { envelope } => {
            document::<ErasureAnswer>(&envelope, "erasure answer", |answer| {
                (answer.stream == *stream).then_some(answer.sequence.saturating_add(1))
            })?
        }
        LedgerRecord::Termination { envelope } => {
            document::<Termination>(&envelope, "termination", |ending| {
                (ending.stream == *stream).then_some(ending.position.unwrap_or(0))
            })?
        }
        LedgerRecord::DomainCheck {
            domain,
            at,
            result: DomainResult::Proven,
            envelope: Some(envelope),
            ..
        } => {
            // What the owner says that it found has to be what it says at least.
            let envelope = Envelope::from_json(envelope.as_bytes()).ok()?;
            let statement = KeyStatement::verify(&envelope).ok()?;
            (statement.authority == domain).then_some(FactKind::Domain(domain, at))?
        }
        _ => return None,
    };
    Some(Fact { sequence, kind })
}

fn document<D: Document>(
    text: &str,
    kind: &'static str,
    reaches: impl Fn(&D) -> Option<u64>,
) -> Option<FactKind> {
    let envelope = Envelope::from_json(text.as_bytes()).ok()?;
    let reaches = reaches(&D::peek(&envelope).ok()?)?;
    Some(FactKind::Document {
        payload: envelope.payload_digest(),
        kind,
        reaches,
    })
}

/// What the ledgers speak about.
pub(crate) fn reaches(ledgers: &[Ledger<'_>]) -> Vec<Reach> {
    let of_ledger = |ledger: &Ledger<'_>| -> Vec<Reach> {
        let reach = |fact: &Fact| match fact.kind {
            FactKind::Document { kind, reaches, .. } => Some(Reach {
                file: format!("{}log/checkpoint", ledger.log.path),
                ledger: Some((ledger.log.origin.to_string(), fact.sequence)),
                what: kind,
                size: reaches,
            }),
            FactKind::Decision(_) | FactKind::Domain(..) => None,
        };
        ledger.facts.iter().filter_map(reach).collect()
    };
    ledgers.iter().flat_map(of_ledger).collect()
}

/// Compares ledgers with what lies beside them. `whole` says whether the stream's log is here from beginning to end: a range
/// leaves out documents that do not concern it.
pub(crate) fn check(
    whole: bool,
    ledgers: &[Ledger<'_>],
    documents: &Documents<'_>,
    decisions: &[Placed],
    found: &mut Collector<'_>,
) {
    if ledgers.is_empty() {
        let why = "no ledger log is here: decisions and receipts are not proven to be in the producer's own log";
        found.skipped(Check::Ledgers, why);
        return;
    }
    let mut recorded = BTreeSet::new();
    let mut domains: BTreeMap<(Authority, Authority), Timestamp> = BTreeMap::new();
    let mut decided: BTreeMap<(&Origin, u64), Hash> = BTreeMap::new();
    for ledger in ledgers {
        for fact in &ledger.facts {
            match &fact.kind {
                FactKind::Domain(domain, at) => {
                    domains.insert((ledger.log.origin.authority(), domain.clone()), *at);
                }
                &FactKind::Decision(record) => {
                    decided.insert((&ledger.log.origin, fact.sequence), record);
                }
                &FactKind::Document { payload, kind, .. } => {
                    recorded.insert(payload);
                    if whole && !documents.has(&payload) {
                        let what =
                            format!("the {kind} that it records is not among the documents here");
                        push(
                            found,
                            Severity::Missing,
                            &ledger.log.origin,
                            Some(fact.sequence),
                            None,
                            what,
                        );
                    }
                }
            }
        }
    }
    let proven = check_decisions(ledgers, decided, decisions, found);
    let unrecorded = check_recorded(ledgers, documents, &recorded, found);
    found.done(
        Check::Ledgers,
        format!(
            "{} ledger logs, whole; {proven} of {} decisions and all but {unrecorded} documents lie in them{}",
            ledgers.len(),
            decisions.len(),
            said_of_domains(&domains)
        ),
    );
}

/// Who says when to have found whose key statement at its domain. That proves that it says so, and no more.
fn said_of_domains(domains: &BTreeMap<(Authority, Authority), Timestamp>) -> String {
    let said = |((owner, domain), at): (&(Authority, Authority), &Timestamp)| {
        format!(
            "; {owner} says that the key statement of {domain} was at that domain at {}, which is its word alone",
            at.to_rfc3339()
        )
    };
    domains.iter().map(said).collect()
}

/// Every decision here is the one in its ledger, and the other way round. Gives how many were proven.
fn check_decisions<'a>(
    ledgers: &[Ledger<'_>],
    mut decided: BTreeMap<(&'a Origin, u64), Hash>,
    decisions: &'a [Placed],
    found: &mut Collector<'_>,
) -> u64 {
    let mut proven = 0;
    for decision in decisions {
        let exported = ledgers
            .iter()
            .any(|ledger| ledger.log.origin == decision.ledger);
        if decided.remove(&(&decision.ledger, decision.sequence)) == Some(decision.record) {
            proven += 1;
        } else if exported {
            let what = "the ledger has no such decision there".to_owned();
            push(
                found,
                Severity::False,
                &decision.ledger,
                Some(decision.sequence),
                Some(DECISIONS),
                what,
            );
        }
    }
    for (origin, sequence) in decided.into_keys() {
        let what = "the decision that it records about the stream is not among the decisions here"
            .to_owned();
        push(found, Severity::Missing, origin, Some(sequence), None, what);
    }
    proven
}

/// A document with a counterparty whose ledger is here must be recorded in it. Gives how many are not recorded anywhere.
fn check_recorded(
    ledgers: &[Ledger<'_>],
    documents: &Documents<'_>,
    recorded: &BTreeSet<Hash>,
    found: &mut Collector<'_>,
) -> u64 {
    let mut unrecorded = 0;
    for (payload, path, agreement) in documents.recorded() {
        if recorded.contains(&payload) {
            continue;
        }
        unrecorded += 1;
        let consumer = documents.consumer(&agreement);
        if let Some(ledger) = ledgers
            .iter()
            .find(|ledger| consumer == counterparty(ledger).as_ref())
        {
            let what = "the ledger about its counterparty does not record it".to_owned();
            push(
                found,
                Severity::False,
                &ledger.log.origin,
                None,
                Some(path),
                what,
            );
        }
    }
    unrecorded
}

/// Whom a ledger log is about. The node's own is about nobody, which no document's consumer is.
fn counterparty(ledger: &Ledger<'_>) -> Option<Authority> {
    match ledger.log.origin.subject() {
        LogSubject::Ledger(counterparty) => Some(counterparty),
        LogSubject::NodeLedger | LogSubject::Stream(_) => Some(ledger.log.origin.authority()),
    }
}

fn push(
    found: &mut Collector<'_>,
    severity: Severity,
    log: &Origin,
    sequence: Option<u64>,
    file: Option<&str>,
    what: String,
) {
    found.push(Finding {
        check: Check::Ledgers,
        severity,
        log: Some(log.to_string()),
        sequence,
        file: file.map(str::to_owned),
        what,
    });
}
