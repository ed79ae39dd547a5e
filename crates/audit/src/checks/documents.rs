//! Agreements under both signatures, terminations, refusals; receipts and rejections are judged next door.

use std::collections::{BTreeMap, BTreeSet};

use countersign_crypto::Hash;
use countersign_event::documents::{
    Agreement, AgreementId, Document, DocumentError, ErasureAnswer, ErasureRequest, KeyRevocation,
    KeyStatement, Receipt, Refusal, Rejection, Role, Termination,
};
use countersign_event::dsse::Envelope;
use countersign_event::names::{Authority, Origin};

use super::coverage::Reach;
use super::files::DocumentFile;
use super::keys::{Keys, When};
use super::{erasures, receipts};
use crate::layout::Span;
use crate::report::{Check, Collector, Finding, Severity};
use crate::walk::Walked;

/// What judging one document gives; an error is a finding about its file.
pub(crate) type Judged<T> = Result<T, (Severity, String)>;

pub(crate) fn is_false<T>(what: String) -> Judged<T> {
    Err((Severity::False, what))
}

pub(crate) fn is_missing<T>(what: String) -> Judged<T> {
    Err((Severity::Missing, what))
}

/// A document whose form is known, with the file it is in.
pub(crate) struct Filed<'a, D> {
    pub(crate) path: &'a str,
    pub(crate) envelope: &'a Envelope,
    /// As it says; nothing of it is believed before its signatures are verified.
    pub(crate) claim: D,
}

/// The documents about the stream, by kind, in the order of their files.
#[derive(Default)]
pub(crate) struct Documents<'a> {
    pub(crate) agreements: Vec<Filed<'a, Agreement>>,
    pub(crate) receipts: Vec<Filed<'a, Receipt>>,
    pub(crate) rejections: Vec<Filed<'a, Rejection>>,
    pub(crate) requests: Vec<Filed<'a, ErasureRequest>>,
    pub(crate) answers: Vec<Filed<'a, ErasureAnswer>>,
    refusals: Vec<Filed<'a, Refusal>>,
    terminations: Vec<Filed<'a, Termination>>,
    payloads: BTreeSet<Hash>,
}

/// Sorts the documents by kind.
pub(crate) fn sort<'a>(files: &'a [DocumentFile], found: &mut Collector<'_>) -> Documents<'a> {
    let mut documents = Documents::default();
    for file in files {
        let kind = file.envelope.payload_type();
        let filed = if kind == Agreement::PAYLOAD_TYPE {
            peek(file).map(|filed| documents.agreements.push(filed))
        } else if kind == Receipt::PAYLOAD_TYPE {
            peek(file).map(|filed| documents.receipts.push(filed))
        } else if kind == Rejection::PAYLOAD_TYPE {
            peek(file).map(|filed| documents.rejections.push(filed))
        } else if kind == ErasureRequest::PAYLOAD_TYPE {
            peek(file).map(|filed| documents.requests.push(filed))
        } else if kind == ErasureAnswer::PAYLOAD_TYPE {
            peek(file).map(|filed| documents.answers.push(filed))
        } else if kind == Refusal::PAYLOAD_TYPE {
            peek(file).map(|filed| documents.refusals.push(filed))
        } else if kind == Termination::PAYLOAD_TYPE {
            peek(file).map(|filed| documents.terminations.push(filed))
        } else if kind == KeyStatement::PAYLOAD_TYPE || kind == KeyRevocation::PAYLOAD_TYPE {
            Ok(())
        } else {
            let what =
                "it is of a kind that this version does not know: it was not judged".to_owned();
            push(found, Severity::Missing, &file.path, None, what);
            Ok(())
        };
        if let Err(error) = filed {
            push(found, Severity::False, &file.path, None, error.to_string());
        }
        if !documents.payloads.insert(file.envelope.payload_digest()) {
            push(
                found,
                Severity::Note,
                &file.path,
                None,
                "the same document is here twice".to_owned(),
            );
        }
    }
    documents
}

fn peek<D: Document>(file: &DocumentFile) -> Result<Filed<'_, D>, DocumentError> {
    Ok(Filed {
        path: &file.path,
        envelope: &file.envelope,
        claim: D::peek(&file.envelope)?,
    })
}

pub(crate) fn push(
    found: &mut Collector<'_>,
    severity: Severity,
    path: &str,
    sequence: Option<u64>,
    what: String,
) {
    found.push(Finding {
        check: Check::Documents,
        severity,
        log: None,
        sequence,
        file: Some(path.to_owned()),
        what,
    });
}

impl Documents<'_> {
    /// The sizes of the log whose state is needed to judge them.
    pub(crate) fn watch(&self) -> BTreeSet<u64> {
        let receipts = self
            .receipts
            .iter()
            .flat_map(|receipt| [receipt.claim.start, receipt.claim.size]);
        let rejections = self
            .rejections
            .iter()
            .filter_map(|rejection| rejection.claim.sequence.checked_add(1));
        receipts.chain(rejections).collect()
    }

    /// What they speak about.
    pub(crate) fn reaches(&self, origin: &Origin) -> Vec<Reach> {
        let reach = |path: &str, what, size| Reach {
            file: path.to_owned(),
            ledger: None,
            what,
            size,
        };
        let receipts = self
            .receipts
            .iter()
            .filter(|receipt| receipt.claim.stream == *origin);
        let rejections = self
            .rejections
            .iter()
            .filter(|rejection| rejection.claim.stream == *origin);
        let endings = self
            .terminations
            .iter()
            .filter(|ending| ending.claim.stream == *origin);
        let requests = self
            .requests
            .iter()
            .filter(|one| one.claim.stream == *origin);
        let answers = self
            .answers
            .iter()
            .filter(|one| one.claim.stream == *origin);
        receipts
            .map(|receipt| reach(receipt.path, "receipt", receipt.claim.size))
            .chain(requests.map(|one| {
                let size = one.claim.tombstone.saturating_add(1);
                reach(one.path, "erasure request", size)
            }))
            .chain(answers.map(|one| {
                let size = one.claim.sequence.saturating_add(1);
                reach(one.path, "erasure answer", size)
            }))
            .chain(rejections.map(|filed| {
                reach(
                    filed.path,
                    "rejection",
                    filed.claim.sequence.saturating_add(1),
                )
            }))
            .chain(endings.filter_map(|ending| {
                Some(reach(ending.path, "termination", ending.claim.position?))
            }))
            .collect()
    }

    /// Whether a document with this payload is here.
    pub(crate) fn has(&self, payload: &Hash) -> bool {
        self.payloads.contains(payload)
    }

    /// What a ledger about the consumer records: payload digest, file, and the agreement concerned.
    pub(crate) fn recorded(&self) -> impl Iterator<Item = (Hash, &str, AgreementId)> {
        let agreements = self
            .agreements
            .iter()
            .map(|filed| (filed.envelope, filed.path, filed.claim.id));
        let receipts = self
            .receipts
            .iter()
            .map(|filed| (filed.envelope, filed.path, filed.claim.agreement));
        let rejections = self
            .rejections
            .iter()
            .map(|filed| (filed.envelope, filed.path, filed.claim.agreement));
        let endings = self
            .terminations
            .iter()
            .map(|filed| (filed.envelope, filed.path, filed.claim.agreement));
        let requests = self
            .requests
            .iter()
            .map(|filed| (filed.envelope, filed.path, filed.claim.agreement));
        // Of an answer without its request nobody can say whom it concerns.
        let asked = |id| self.requests.iter().find(move |one| one.claim.id == id);
        let answers = self.answers.iter().filter_map(move |filed| {
            let request = asked(filed.claim.request)?;
            Some((filed.envelope, filed.path, request.claim.agreement))
        });
        agreements
            .chain(requests)
            .chain(answers)
            .chain(receipts)
            .chain(rejections)
            .chain(endings)
            .map(|(envelope, path, agreement)| (envelope.payload_digest(), path, agreement))
    }

    /// The consumer of an agreement that is here.
    pub(crate) fn consumer(&self, agreement: &AgreementId) -> Option<&Authority> {
        self.agreements
            .iter()
            .find(|filed| filed.claim.id == *agreement)
            .map(|filed| &filed.claim.consumer.authority)
    }
}

/// Judges every document.
pub(crate) fn check(
    origin: &Origin,
    span: Span,
    documents: &Documents<'_>,
    keys: &Keys,
    walked: &Walked,
    found: &mut Collector<'_>,
) {
    let agreements = check_agreements(origin, documents, keys, found);
    for filed in &documents.terminations {
        if let Err((severity, what)) = check_termination(origin, filed, &agreements, keys) {
            push(found, severity, filed.path, None, what);
        }
    }
    for filed in &documents.refusals {
        if let Err((severity, what)) = check_refusal(filed, keys) {
            push(found, severity, filed.path, None, what);
        }
    }
    let context = receipts::Context {
        origin,
        span,
        documents,
        agreements: &agreements,
        keys,
        walked,
    };
    context.check_rejections(found);
    context.check_receipts(found);
    let context = erasures::Context {
        origin,
        span,
        documents,
        agreements: &agreements,
        keys,
        walked,
    };
    context.check(found);
    let counts = [
        (
            documents.agreements.len(),
            "agreements under both signatures",
        ),
        (
            documents.receipts.len(),
            "receipts with their sums and roots",
        ),
        (documents.rejections.len(), "rejections"),
        (documents.refusals.len(), "refusals"),
        (documents.terminations.len(), "terminations"),
        (documents.requests.len(), "requests to erase"),
        (documents.answers.len(), "answers to them"),
    ];
    if counts.iter().all(|(count, _)| *count == 0) {
        found.skipped(
            Check::Documents,
            "no agreement, receipt or other document is here",
        );
        return;
    }
    let there = counts.iter().filter(|(count, _)| *count > 0);
    let words: Vec<String> = there
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    found.done(Check::Documents, words.join(", "));
}

/// Verified agreements by id.
pub(crate) type Agreements = BTreeMap<AgreementId, Agreement>;

fn check_agreements(
    origin: &Origin,
    documents: &Documents<'_>,
    keys: &Keys,
    found: &mut Collector<'_>,
) -> Agreements {
    let mut agreements = Agreements::new();
    for filed in &documents.agreements {
        match check_agreement(origin, filed, keys) {
            Err((severity, what)) => push(found, severity, filed.path, None, what),
            Ok(agreement) => {
                let twin = agreements.insert(agreement.id, agreement);
                if twin.is_some_and(|twin| twin != filed.claim) {
                    let what = format!("a second agreement has the id {}", filed.claim.id);
                    push(found, Severity::False, filed.path, None, what);
                }
            }
        }
    }
    agreements
}

fn check_agreement(
    origin: &Origin,
    filed: &Filed<'_, Agreement>,
    keys: &Keys,
) -> Judged<Agreement> {
    let claim = &filed.claim;
    if claim.stream != *origin {
        return is_false(format!("it is about another log, {}", claim.stream));
    }
    if claim.producer.authority != origin.authority() {
        return is_false(format!(
            "its producer, {}, is not whose log this is",
            claim.producer.authority
        ));
    }
    let when = When {
        made: claim.made,
        begun: false,
        covers: None,
    };
    for party in [&claim.producer, &claim.consumer] {
        let organization = organization_of(keys, &party.authority)?;
        if !organization.knows(&party.organization) {
            return is_false(format!(
                "it names another organization key of {} than its key statement",
                party.authority
            ));
        }
        organization
            .open::<Agreement>(Role::Agreement, filed.envelope, when)
            .or_else(is_false)?;
    }
    Ok(claim.clone())
}

fn check_termination(
    origin: &Origin,
    filed: &Filed<'_, Termination>,
    agreements: &Agreements,
    keys: &Keys,
) -> Judged<()> {
    let claim = &filed.claim;
    if claim.stream != *origin {
        return is_false(format!("it is about another log, {}", claim.stream));
    }
    let agreement = agreement_of(agreements, &claim.agreement)?;
    if claim.by != agreement.producer.authority && claim.by != agreement.consumer.authority {
        return is_false(format!(
            "{} is no side of the agreement that it ends",
            claim.by
        ));
    }
    let when = When {
        made: claim.made,
        begun: true,
        covers: None,
    };
    organization_of(keys, &claim.by)?
        .open::<Termination>(Role::Agreement, filed.envelope, when)
        .map(drop)
        .or_else(is_false)
}

/// A refusal does not say who refuses: any organization here may have signed it.
fn check_refusal(filed: &Filed<'_, Refusal>, keys: &Keys) -> Judged<()> {
    let when = When {
        made: filed.claim.made,
        begun: true,
        covers: None,
    };
    let signed = keys.organizations().iter().any(|organization| {
        organization
            .open::<Refusal>(Role::Agreement, filed.envelope, when)
            .is_ok()
    });
    if signed {
        Ok(())
    } else {
        is_false("no agreement key of an organization here signed it".to_owned())
    }
}

/// The agreement that another document names.
pub(crate) fn agreement_of<'a>(
    agreements: &'a Agreements,
    id: &AgreementId,
) -> Judged<&'a Agreement> {
    agreements.get(id).map_or_else(
        || {
            is_missing(format!(
                "the agreement {id} that it names is not here, or is not good"
            ))
        },
        Ok,
    )
}

/// The organization that must have signed a document.
pub(crate) fn organization_of<'a>(
    keys: &'a Keys,
    authority: &Authority,
) -> Judged<&'a super::keys::Organization> {
    keys.of(authority).map_or_else(
        || {
            is_missing(format!(
                "the key statement of {authority} is not here: its signature cannot be checked"
            ))
        },
        Ok,
    )
}
