//! The proof of one event as a COSE receipt (`schemas/cose-receipt.md`): what a `.tlog-proof` says, but for checkpoint and witnesses.

use countersign_event::names::Origin;
use countersign_tlog::cose_receipt::CoseReceipt;
use countersign_tlog::leaf_hash;
use countersign_tlog::tile::ENTRY_BYTES_MAX;

use crate::beside::Beside;
use crate::checks::checkpoint::{InForce, Signed, Weight, judge_signer, known_keys, no_known_key};
use crate::checks::keys;
use crate::event_proof::{ENTRY, EVENT_PROOF, Event, EventProof, TIMESTAMP};
use crate::report::{Check, Collector, Severity};
use crate::trust::Trust;
use crate::verify::{Held, Signer};

/// Extension of the receipt.
pub const COSE_PROOF: &str = "cose";

/// Extension and bytes of each file of a receipt, the receipt itself last: what lies beside it is what lies beside the same event's `.tlog-proof`.
#[must_use]
pub fn cose_files(receipt: &CoseReceipt, event: &EventProof) -> Vec<(&'static str, Vec<u8>)> {
    let mut files = event.files();
    files.retain(|(extension, _)| ![EVENT_PROOF, TIMESTAMP].contains(extension));
    files.push((COSE_PROOF, receipt.encode()));
    files
}

/// Verifies a receipt and what lies beside it.
pub(crate) fn verify(
    bytes: &[u8],
    beside: &Beside,
    trust: &Trust,
    found: &mut Collector<'_>,
) -> Option<(Held, Signer)> {
    for check in [
        Check::Timestamps,
        Check::Documents,
        Check::Coverage,
        Check::Decisions,
        Check::Ledgers,
    ] {
        found.skipped(check, "a COSE receipt of one event holds none");
    }
    let statements = beside.statements(found);
    let keys = keys::of_statements(&statements, trust, found);
    let receipt = match CoseReceipt::parse(bytes) {
        Ok(receipt) => receipt,
        Err(error) => {
            let what = error.to_string();
            beside.say(found, Check::Files, Severity::False, COSE_PROOF, what);
            return None;
        }
    };
    let Ok(origin) = receipt.origin.parse::<Origin>() else {
        let what = "its origin is not one that a log of Countersign has".to_owned();
        beside.say(found, Check::Checkpoint, Severity::False, COSE_PROOF, what);
        return None;
    };
    let entry = beside.need(ENTRY, ENTRY_BYTES_MAX, "the entry that is proven", found)?;
    let event = Event {
        beside,
        origin: origin.as_str(),
        sequence: receipt.index,
    };
    let mut known = known_keys(&origin, &keys, trust);
    known.retain(|vkey| vkey.id() == receipt.key_id);
    if known.is_empty() {
        let what = no_known_key(&origin);
        event.say(
            found,
            Check::Checkpoint,
            Severity::Missing,
            COSE_PROOF,
            what,
        );
        return None;
    }
    let leaf_hash = leaf_hash(&entry);
    // Two keys of one id are possible, and then either may have signed.
    let mut refused = None;
    let signer = known.iter().find(|vkey| {
        refused = receipt.verify(&leaf_hash, vkey).err();
        refused.is_none()
    });
    let Some(vkey) = signer else {
        let what = refused.map_or_else(String::new, |error| error.to_string());
        event.say(found, Check::Tree, Severity::False, COSE_PROOF, what);
        return None;
    };
    let index = receipt.index;
    found.done(
        Check::Tree,
        format!("entry {index} is under a root that was signed"),
    );
    let what = "a COSE receipt does not sign the size of the tree: it says nothing of how long the log is, and names no witness";
    event.say(
        found,
        Check::Tree,
        Severity::Note,
        COSE_PROOF,
        what.to_owned(),
    );
    let decoded = event.check_entry(&entry, found);
    if let Some(entry) = &decoded {
        event.check_content(entry, found);
    }
    found.done(Check::Files, "the files of one event");
    let time = decoded.map_or(InForce::Whenever, |entry| InForce::NotOverBy(entry.time));
    let signed = Signed {
        origin: &origin,
        what: format!("the root over entry {index}"),
        vkey,
        file: &beside.name(COSE_PROOF),
        to: index.saturating_add(1),
        // The size is not signed: of a key that was revoked, nothing here says that this root came before.
        root_at: &|_| None,
        witnessed: None,
        weight: Weight::Full,
    };
    let standing = judge_signer(&signed, time, &keys, trust, found);
    let held = Held {
        from: index,
        to: index.saturating_add(1),
        size: receipt.size,
        origin: origin.to_string(),
    };
    let complete = decoded.is_some();
    let signer = Signer::new(&keys, &origin, vkey, standing, trust, complete);
    Some((held, signer))
}
