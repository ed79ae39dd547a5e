//! The proof that a log has only grown from one checkpoint to another (`schemas/proofs.md`).

use countersign_event::dsse::Envelope;
use countersign_tlog::Checkpoint;
use countersign_tlog::add_checkpoint::AddCheckpoint;
use countersign_tlog::note::NOTE_BYTES_MAX;

use crate::beside::{Beside, KEY_STATEMENTS};
use crate::checks::checkpoint::{
    InForce, Opened, Signed, Standing, Weight, entries, judge_signer, open_by_any,
};
use crate::checks::keys;
use crate::checks::witnesses::{self, Cosigned, Demand};
use crate::event_proof::statement_lines;
use crate::report::{Check, Collector, Severity};
use crate::trust::Trust;
use crate::verify::{Held, Signer};

/// Extension of the proof itself.
pub const GROWTH_PROOF: &str = "tlog-consistency";

const OLD: &str = "checkpoint";

/// All that the proof of growth consists of.
#[derive(Clone, Debug)]
pub struct GrowthProof {
    /// The consistency proof and the newer checkpoint.
    pub proof: AddCheckpoint,
    /// The older checkpoint's note.
    pub old: String,
    /// Key statements of the log's organization.
    pub statements: Vec<Envelope>,
}

impl GrowthProof {
    /// Extension and bytes of each file, the proof itself last.
    #[must_use]
    pub fn files(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![
            (KEY_STATEMENTS, statement_lines(&self.statements)),
            (OLD, self.old.clone().into_bytes()),
            (GROWTH_PROOF, self.proof.encode().into_bytes()),
        ]
    }
}

/// Verifies a proof and what lies beside it.
pub(crate) fn verify(
    bytes: &[u8],
    beside: &Beside,
    trust: &Trust,
    found: &mut Collector<'_>,
) -> Option<(Held, Signer)> {
    for check in Check::ALL {
        if !matches!(
            check,
            Check::Files | Check::Keys | Check::Checkpoint | Check::Witnesses | Check::Tree
        ) {
            found.skipped(check, "the proof of growth holds none");
        }
    }
    let statements = beside.statements(found);
    let keys = keys::of_statements(&statements, trust, found);
    let proof = match AddCheckpoint::parse(bytes) {
        Ok(proof) => proof,
        Err(error) => {
            let what = error.to_string();
            beside.say(found, Check::Files, Severity::False, GROWTH_PROOF, what);
            return None;
        }
    };
    let what = "the older checkpoint";
    let old = beside.need(OLD, NOTE_BYTES_MAX, what, found)?;
    let (old_file, new_file) = (beside.name(OLD), beside.name(GROWTH_PROOF));
    let old_note = old;
    let old = open_by_any(&old_note, &old_file, &keys, trust, found);
    let note = proof.checkpoint.as_bytes();
    let new = open_by_any(note, &new_file, &keys, trust, found);
    let (old_opened, new_opened) = (old?, new?);
    let (old, new) = (&old_opened.checkpoint, &new_opened.checkpoint);
    let verified = proof.verify(old, new);
    match &verified {
        Ok(()) => {
            let what = format!("the tree of {} begins with that of {}", new.size, old.size);
            found.done(Check::Tree, what);
        }
        Err(error) => {
            let what = error.to_string();
            beside.say(found, Check::Tree, Severity::False, GROWTH_PROOF, what);
        }
    }
    found.done(Check::Files, "two checkpoints and the proof between them");
    if verified.is_ok() && old.size == 0 {
        let what = "every log begins with no entries: nothing is proven".to_owned();
        beside.say(found, Check::Tree, Severity::Missing, GROWTH_PROOF, what);
    }
    let grown = verified.is_ok();
    // One tree, where it has only grown: what is known of one checkpoint is known of the other.
    let root_at = |size: u64, of: &Checkpoint| match size {
        _ if size == of.size => Some(of.root),
        _ if grown && size == old.size => Some(old.root),
        _ if grown && size == new.size => Some(new.root),
        _ => None,
    };
    let mut judge = |opened: &Opened, note: &[u8], file: &str, weight, demand| {
        let Checkpoint { size, .. } = opened.checkpoint;
        let cosigned = Cosigned {
            origin: &opened.origin,
            size,
            note,
            file,
            main: true,
        };
        let witnessed = witnesses::judge(&cosigned, demand, &keys, trust, found);
        let signed = Signed {
            origin: &opened.origin,
            what: entries(size),
            vkey: opened.signer(InForce::Whenever, &keys, trust),
            file,
            to: size,
            root_at: &|size| root_at(size, &opened.checkpoint),
            witnessed,
            weight,
        };
        judge_signer(&signed, InForce::Whenever, &keys, trust, found)
    };
    let newer = judge(&new_opened, note, &new_file, Weight::Full, Demand::Quorum);
    // Where it counts, the newer stands for the older, too.
    let covered = match newer {
        Standing::Trusted if grown => Weight::Covered,
        _ => Weight::Full,
    };
    let older = judge(&old_opened, &old_note, &old_file, covered, Demand::NoQuorum);
    let standings = [older, newer];
    let standing = match standings {
        [Standing::Trusted, Standing::Trusted] => Standing::Trusted,
        _ => Standing::Untrusted,
    };
    let held = Held {
        from: old.size,
        to: new.size,
        size: new.size,
        origin: new_opened.origin.to_string(),
    };
    let complete = verified.is_ok();
    let vkey = new_opened.signer(InForce::Whenever, &keys, trust);
    let signer = Signer::new(&keys, &new_opened.origin, vkey, standing, trust, complete);
    Some((held, signer))
}
