//! The proof that a consumer has contradicted itself (`schemas/receipt-fork.md`).

use countersign_crypto::PublicKey;
use countersign_event::documents::{Document as _, Receipt, ReceiptFork, Role};
use countersign_event::dsse::Envelope;

use crate::beside::Beside;
use crate::checks::files::DocumentFile;
use crate::checks::keys::{self, Organization};
use crate::report::{Check, Collector, Severity};
use crate::trust::Trust;
use crate::verify::{Held, Signer};

/// Extension of the file.
pub const RECEIPT_FORK: &str = "receipt-fork";

/// Verifies a proof, with the key statements in it and beside it.
pub(crate) fn verify(
    bytes: &[u8],
    beside: &Beside,
    trust: &Trust,
    found: &mut Collector<'_>,
) -> Option<(Held, Signer)> {
    for check in Check::ALL {
        if !matches!(check, Check::Files | Check::Keys | Check::Documents) {
            found.skipped(check, "the proof of contradicting receipts holds none");
        }
    }
    let say = |found: &mut Collector<'_>, check, severity, what: String| {
        beside.say(found, check, severity, RECEIPT_FORK, what);
    };
    let proof = match ReceiptFork::parse(bytes) {
        Ok(proof) => proof,
        Err(error) => {
            say(found, Check::Files, Severity::False, error.to_string());
            return None;
        }
    };
    found.done(Check::Files, "two receipts");
    let (earlier, later, contradiction) = match proof.contradiction() {
        Ok(contradiction) => contradiction,
        Err(error) => {
            say(found, Check::Documents, Severity::False, error.to_string());
            return None;
        }
    };
    let in_file = proof.statements.iter().map(|envelope| DocumentFile {
        path: beside.name(RECEIPT_FORK),
        envelope: envelope.clone(),
    });
    let mut statements: Vec<DocumentFile> = in_file.collect();
    statements.extend(beside.statements(found));
    let keys = keys::of_statements(&statements, trust, found);
    let consumer = &earlier.consumer;
    let Some(organization) = keys.of(consumer) else {
        let what = format!("no key statement of {consumer} is here, in the file or trusted");
        say(found, Check::Documents, Severity::Missing, what);
        return None;
    };
    for (number, envelope) in [
        (earlier.number, &proof.earlier),
        (later.number, &proof.later),
    ] {
        let Some(key) = signer(organization, envelope) else {
            let what =
                format!("receipt {number} is signed by no receipt key that {consumer} has stated");
            say(found, Check::Documents, Severity::False, what);
            return None;
        };
        if let Some(what) = doubt(organization, &key) {
            let what =
                format!("the key that signed receipt {number} {what}: somebody may have found it");
            say(found, Check::Documents, Severity::Missing, what);
        }
    }
    let (a, b) = (earlier.number, later.number);
    let what = format!("receipts {a} and {b} of one series of {consumer}: {contradiction}");
    found.done(Check::Documents, what);
    let held = Held {
        from: earlier.size,
        to: later.size,
        size: later.size,
        origin: earlier.stream.to_string(),
    };
    Some((held, Signer::of(organization, trust)))
}

/// The receipt key that signed it. When is unknown, so that the times of keys are not judged: whoever contradicts itself chooses the times, too.
fn signer(organization: &Organization, envelope: &Envelope) -> Option<PublicKey> {
    let mut keys = organization.keys_ever(Role::Receipt);
    let key = keys.find(|key| Receipt::open(envelope, &key.key).is_ok())?;
    Some(key.key)
}

/// Why a signature by this key need not be the organization's own.
fn doubt(organization: &Organization, key: &PublicKey) -> Option<&'static str> {
    if organization.taken_back(Role::Receipt, key).is_some() {
        return Some("was revoked");
    }
    let newest = organization.newest()?;
    let mut now = newest
        .keys_for(Role::Receipt)
        .filter(|stated| stated.key == *key);
    let kept = now.any(|stated| stated.until.is_none_or(|until| newest.made < until));
    (!kept).then_some("is one that its organization has retired since")
}
