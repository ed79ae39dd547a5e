//! The proof that a log has two histories (`schemas/fork-proof.md`).

use countersign_event::dsse::Envelope;
use countersign_event::names::Origin;
use countersign_tlog::fork_proof::{ForkProof, Side};
use countersign_tlog::{Checkpoint, Note, Vkey};

use crate::beside::Beside;
use crate::checks::checkpoint::{
    InForce, Opened, Signed, Standing, Weight, entries, judge_signer, known_keys,
};
use crate::checks::files::DocumentFile;
use crate::checks::keys::{self, Keys};
use crate::checks::witnesses::{self, Cosigned, Demand};
use crate::report::{Check, Collector, Severity};
use crate::trust::Trust;
use crate::verify::{Held, Signer};

/// Extension of the file.
pub const FORK_PROOF: &str = "fork-proof";

/// Verifies a proof, with the key statements in it and beside it.
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
            found.skipped(check, "the proof of a fork holds none");
        }
    }
    let mut say = |check, what: String| {
        beside.say(found, check, Severity::False, FORK_PROOF, what);
    };
    let proof = match ForkProof::parse(bytes) {
        Ok(proof) => proof,
        Err(error) => {
            say(Check::Files, error.to_string());
            return None;
        }
    };
    let (smaller, larger) = match proof.checkpoints() {
        Ok(checkpoints) => checkpoints,
        Err(error) => {
            say(Check::Tree, error.to_string());
            return None;
        }
    };
    let Ok(origin) = smaller.origin.parse::<Origin>() else {
        let what = "its origin is not one that a log of Countersign has".to_owned();
        say(Check::Checkpoint, what);
        return None;
    };
    let mut statements = in_file(&proof, beside, found);
    statements.extend(beside.statements(found));
    let keys = keys::of_statements(&statements, trust, found);
    found.done(Check::Files, "two checkpoints and what lies between them");
    let (n, m) = (smaller.size, larger.size);
    found.done(Check::Tree, contradiction(n, m));

    let judged = Judged {
        proof: &proof,
        origin: &origin,
        keys: &keys,
        trust,
        file: &beside.name(FORK_PROOF),
    };
    let smaller = judged.open(Side::Smaller, smaller, beside, found);
    let larger = judged.open(Side::Larger, larger, beside, found);
    let opened = [smaller?, larger?];
    let notes = [(&opened[0], &proof.smaller), (&opened[1], &proof.larger)];
    let standings = notes.map(|(opened, note)| judged.judge(opened, note, found));
    let standing = match standings {
        [Standing::Trusted, Standing::Trusted] => Standing::Trusted,
        _ => Standing::Untrusted,
    };
    let held = Held {
        from: n,
        to: m,
        size: m,
        origin: origin.to_string(),
    };
    let vkey = opened[1].signer(InForce::Whenever, &keys, trust);
    let signer = Signer::new(&keys, &origin, vkey, standing, trust, true);
    Some((held, signer))
}

/// The key statements of the file itself.
fn in_file(proof: &ForkProof, beside: &Beside, found: &mut Collector<'_>) -> Vec<DocumentFile> {
    let mut statements = Vec::new();
    for (at, json) in proof.statements.iter().enumerate() {
        match Envelope::from_json(json.as_bytes()) {
            Ok(envelope) => statements.push(DocumentFile {
                path: beside.name(FORK_PROOF),
                envelope,
            }),
            Err(error) => {
                let what = format!("statement {} is no key statement: {error}", at + 1);
                beside.say(found, Check::Keys, Severity::False, FORK_PROOF, what);
            }
        }
    }
    statements
}

/// What the file shows, whoever signed it.
fn contradiction(n: u64, m: u64) -> String {
    let before = n.saturating_sub(1);
    let how = if n == m {
        format!("{n} entries have two roots")
    } else {
        format!("the tree of {m} entries begins with {n} others than the tree of {n}")
    };
    format!("{how}: the histories part at or before entry {before}")
}

struct Judged<'a> {
    proof: &'a ForkProof,
    origin: &'a Origin,
    keys: &'a Keys,
    trust: &'a Trust,
    file: &'a str,
}

impl Judged<'_> {
    /// One of the checkpoints with the known keys that signed it.
    fn open(
        &self,
        side: Side,
        checkpoint: Checkpoint,
        beside: &Beside,
        found: &mut Collector<'_>,
    ) -> Option<Opened> {
        let known = known_keys(self.origin, self.keys, self.trust);
        let signers: Vec<Vkey> = self.proof.signers(side, &known).cloned().collect();
        let origin = self.origin.clone();
        if !signers.is_empty() {
            return Some(Opened::new(checkpoint, origin, signers));
        }
        let note = match side {
            Side::Smaller => &self.proof.smaller,
            Side::Larger => &self.proof.larger,
        };
        let named = Note::parse(note.as_bytes())
            .is_ok_and(|note| known_lines(&note, &known).next().is_some());
        let (severity, what) = match named {
            true => (
                Severity::False,
                format!(
                    "the {side} checkpoint is in the name of a known key, and not signed by it"
                ),
            ),
            false => (
                Severity::Missing,
                format!(
                    "no key is known that has signed the {side} checkpoint: no key statement of {} with it is here, in the file or trusted",
                    origin.authority()
                ),
            ),
        };
        beside.say(found, Check::Checkpoint, severity, FORK_PROOF, what);
        None
    }

    fn judge(&self, opened: &Opened, note: &str, found: &mut Collector<'_>) -> Standing {
        let vkey = opened.signer(InForce::Whenever, self.keys, self.trust);
        let cosigned = Cosigned {
            origin: self.origin,
            size: opened.checkpoint.size,
            note: note.as_bytes(),
            file: self.file,
            main: true,
        };
        let witnessed = witnesses::judge(&cosigned, Demand::Nothing, self.keys, self.trust, found);
        let Checkpoint { size, root, .. } = opened.checkpoint;
        let signed = Signed {
            origin: self.origin,
            what: entries(size),
            vkey,
            file: self.file,
            to: size,
            root_at: &|at| (at == size).then_some(root),
            witnessed,
            weight: Weight::Accused,
        };
        let standing = judge_signer(&signed, InForce::Whenever, self.keys, self.trust, found);
        found.done(Check::Checkpoint, format!("its log key is {vkey}"));
        standing
    }
}

fn known_lines<'n>(note: &'n Note, known: &'n [Vkey]) -> impl Iterator<Item = &'n Vkey> {
    let lines = note.signatures().iter();
    lines.flat_map(move |line| known.iter().filter(move |vkey| line.names(vkey)))
}
