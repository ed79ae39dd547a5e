//! Fork proofs (`schemas/fork-proof.md`, extension `.fork-proof`): two checkpoints that a log signed and that cannot both be of one
//! append-only log, in one file.
//!
//! ```text
//! countersign-fork-proof@v1
//! checkpoint <lines>        how many lines the note beneath it takes: it has an empty line of its own
//! <the smaller checkpoint's note, verbatim, with all its lines>
//! checkpoint <lines>
//! <the larger checkpoint's note, verbatim, with all its lines>
//! root <base64>             the bridge, where the sizes differ: another root of the smaller size …
//! <base64>                  … and the proof that the larger tree begins with it
//! statement <JSON>          whose key it is: opaque here
//! ```
//!
//! Soundness: a consistency proof that verifies fixes the root of the first entries of the tree that it leads to, as long as nobody finds two
//! inputs of SHA-256 with one output. Of a log that has only grown that root is the one that was signed, so that no proof against it exists.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_crypto::Hash;

use crate::checkpoint::{Checkpoint, CheckpointError, parse_hash};
use crate::decimal::parse_decimal;
use crate::note::{Algorithm, NOTE_BYTES_MAX, Note, SIGNATURES_MAX, Vkey};
use crate::proof::{PROOF_HASHES_MAX, ProofError, implied_old_root, verify_consistency};

/// The most key statements of a file.
pub const STATEMENTS_MAX: usize = 64;

/// The longest key statement, in bytes: the limit of an envelope.
pub const STATEMENT_BYTES_MAX: usize = 256 << 10;

/// The largest file taken, in bytes: two notes, 66 lines of 45 bytes, the statements, and room for the words.
pub const FORK_PROOF_BYTES_MAX: usize =
    2 * NOTE_BYTES_MAX + STATEMENTS_MAX * (STATEMENT_BYTES_MAX + 16) + 4096;

const FIRST_LINE: &str = "countersign-fork-proof@v1";
// Origin, size, root, the empty line, and at least one signature.
const NOTE_LINES_MIN: u64 = 5;
const NOTE_LINES_MAX: u64 = 4 + SIGNATURES_MAX as u64;

/// Two checkpoints that contradict each other. What is in it may have come from anywhere: only [`ForkProof::check`] says that it proves something.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ForkProof {
    /// The whole note of the checkpoint of fewer entries; either one where both have as many.
    pub smaller: String,
    /// The whole note of the other.
    pub larger: String,
    /// What the larger tree begins with; `None` where both are of the same size.
    pub bridge: Option<Bridge>,
    /// Key statements that say whose keys these are, as JSON on one line each.
    pub statements: Vec<String>,
}

/// That the larger tree begins with other entries than the smaller checkpoint signs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bridge {
    /// The root that the larger tree has at the smaller size.
    pub root: Hash,
    /// The consistency proof from there to the larger checkpoint.
    pub proof: Vec<Hash>,
}

/// One of the two checkpoints.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// That of fewer entries, or the first.
    Smaller,
    /// That of more entries, or the second.
    Larger,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Smaller => "smaller",
            Self::Larger => "larger",
        })
    }
}

/// Why bytes are no fork proof, or prove nothing.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ForkProofError {
    /// A bridge where both checkpoints are of the same size, or none where they are not.
    #[error(
        "checkpoints of {smaller} and {larger} entries need {}",
        if .smaller == .larger { "no bridge" } else { "a bridge" }
    )]
    Bridge {
        /// Entries of the smaller.
        smaller: u64,
        /// Entries of the larger.
        larger: u64,
    },
    /// The bridge leads elsewhere than to the larger checkpoint.
    #[error("the bridge does not hold: {0}")]
    BridgeProof(ProofError),
    /// A checkpoint is malformed.
    #[error("the {side} checkpoint: {source}")]
    Checkpoint {
        /// Which one.
        side: Side,
        /// What is wrong.
        source: CheckpointError,
    },
    /// The first line is another.
    #[error("the first line is not `{FIRST_LINE}`: no fork proof, or one of another version")]
    FirstLine,
    /// A line of the bridge's proof is not the base64 of 32 bytes.
    #[error("hash {position} of the proof is not the padded base64 of 32 bytes")]
    Hash {
        /// Which one, from 0.
        position: usize,
    },
    /// A line that belongs to nothing, or the last one is cut.
    #[error("line {line} is none that belongs there, or is cut off")]
    Line {
        /// The line, from 1.
        line: usize,
    },
    /// No line says how long a checkpoint is, or the file ends before that many lines.
    #[error(
        "the {side} checkpoint is not announced as `checkpoint` with {NOTE_LINES_MIN} to {NOTE_LINES_MAX} lines that follow"
    )]
    NoCheckpoint {
        /// Which one.
        side: Side,
    },
    /// The two do not contradict each other.
    #[error("both checkpoints sign the same first {size} entries: there is no fork")]
    NoFork {
        /// The size of the smaller.
        size: u64,
    },
    /// None of the keys given signed it, in the name of its origin.
    #[error("no key that was given has signed the {side} checkpoint")]
    NotSigned {
        /// Which one.
        side: Side,
    },
    /// The smaller comes second.
    #[error("the first checkpoint has more entries than the second, {first} and {second}")]
    Order {
        /// Of the first.
        first: u64,
        /// Of the second.
        second: u64,
    },
    /// Two logs may well differ.
    #[error("the checkpoints are of two logs, `{smaller}` and `{larger}`")]
    Origins {
        /// Of the smaller.
        smaller: String,
        /// Of the larger.
        larger: String,
    },
    /// The root of the bridge is not the base64 of 32 bytes.
    #[error("the root of the bridge is not the padded base64 of 32 bytes")]
    Root,
    /// A statement is no JSON object on one line, or longer than [`STATEMENT_BYTES_MAX`].
    #[error("statement {position} is not one line of JSON of at most {STATEMENT_BYTES_MAX} bytes")]
    Statement {
        /// Which one, from 0.
        position: usize,
    },
    /// The file is larger than [`FORK_PROOF_BYTES_MAX`].
    #[error("the fork proof has {bytes} bytes, more than {FORK_PROOF_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The proof has more hashes than any tree needs.
    #[error("the proof has more than {PROOF_HASHES_MAX} hashes")]
    TooManyHashes,
    /// More statements than [`STATEMENTS_MAX`].
    #[error("there are more than {STATEMENTS_MAX} statements")]
    TooManyStatements,
    /// The bytes are not UTF-8.
    #[error("byte {offset} of the fork proof is no UTF-8 text")]
    Utf8 {
        /// Where.
        offset: usize,
    },
}

impl ForkProof {
    /// The proof of two checkpoints of one size with other roots.
    ///
    /// # Errors
    /// [`ForkProofError`], where they prove nothing, whoever signed them.
    pub fn same_size(a: &str, b: &str) -> Result<Self, ForkProofError> {
        Self::contradicting(a, b, None)
    }

    /// The proof of a larger checkpoint whose tree has `root` at the size of the smaller one, as `proof` shows. Who holds the larger tree takes both
    /// from it.
    ///
    /// # Errors
    /// [`ForkProofError`], where that proves nothing, whoever signed them.
    pub fn between(
        smaller: &str,
        larger: &str,
        root: Hash,
        proof: Vec<Hash>,
    ) -> Result<Self, ForkProofError> {
        Self::contradicting(smaller, larger, Some(Bridge { root, proof }))
    }

    /// The proof that lies in a consistency proof of the log's own, which was to show that `b` continues `a` and shows something else. `stated_old_root` is
    /// what the log says is its root at the size of `a`: needed where that is a power of two, since such a proof leaves it out.
    ///
    /// `None` where nothing follows from it: `b` does continue `a`, or the proof is merely broken.
    #[must_use]
    pub fn from_failed_consistency(
        a: &str,
        b: &str,
        proof: &[Hash],
        stated_old_root: Option<Hash>,
    ) -> Option<Self> {
        let old = read(a, Side::Smaller).ok()?;
        let new = read(b, Side::Larger).ok()?;
        if old.size == new.size {
            return Self::same_size(a, b).ok();
        }
        let root = implied_old_root(old.size, new.size, &new.root, proof).or(stated_old_root)?;
        Self::between(a, b, root, proof.to_vec()).ok()
    }

    /// The same with key statements, of which each must be JSON on one line for the file to be read again.
    #[must_use]
    pub fn with_statements(mut self, statements: Vec<String>) -> Self {
        self.statements = statements;
        self
    }

    fn contradicting(
        smaller: &str,
        larger: &str,
        bridge: Option<Bridge>,
    ) -> Result<Self, ForkProofError> {
        let proof = Self {
            smaller: smaller.to_owned(),
            larger: larger.to_owned(),
            bridge,
            statements: Vec::new(),
        };
        proof.checkpoints()?;
        Ok(proof)
    }

    /// The text of the file.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = format!("{FIRST_LINE}\n");
        for note in [&self.smaller, &self.larger] {
            let lines = note.matches('\n').count();
            text.push_str(&format!("checkpoint {lines}\n{note}"));
        }
        if let Some(bridge) = &self.bridge {
            text.push_str("root ");
            for hash in std::iter::once(&bridge.root).chain(&bridge.proof) {
                STANDARD.encode_string(hash, &mut text);
                text.push('\n');
            }
        }
        for statement in &self.statements {
            text.push_str("statement ");
            text.push_str(statement);
            text.push('\n');
        }
        text
    }

    /// Reads a file. Whether it proves anything is not checked.
    ///
    /// # Errors
    /// [`ForkProofError`], those of the form.
    pub fn parse(bytes: &[u8]) -> Result<Self, ForkProofError> {
        if bytes.len() > FORK_PROOF_BYTES_MAX {
            return Err(ForkProofError::TooLarge { bytes: bytes.len() });
        }
        let text = std::str::from_utf8(bytes).map_err(|error| ForkProofError::Utf8 {
            offset: error.valid_up_to(),
        })?;
        let mut lines = Lines { rest: text, at: 0 };
        if lines.next()? != Some(FIRST_LINE) {
            return Err(ForkProofError::FirstLine);
        }
        let smaller = lines.note(Side::Smaller)?;
        let larger = lines.note(Side::Larger)?;
        let mut line = lines.next()?;
        let mut bridge = None;
        if let Some(root) = line.and_then(|line| line.strip_prefix("root ")) {
            let root = parse_hash(root).ok_or(ForkProofError::Root)?;
            let mut proof = Vec::new();
            line = lines.next()?;
            while let Some(hash) = line.filter(|line| !line.starts_with("statement ")) {
                let position = proof.len();
                if position == PROOF_HASHES_MAX {
                    return Err(ForkProofError::TooManyHashes);
                }
                proof.push(parse_hash(hash).ok_or(ForkProofError::Hash { position })?);
                line = lines.next()?;
            }
            bridge = Some(Bridge { root, proof });
        }
        let mut statements = Vec::new();
        while let Some(text) = line {
            let json = text.strip_prefix("statement ");
            let json = json.ok_or(ForkProofError::Line { line: lines.at })?;
            let position = statements.len();
            if position == STATEMENTS_MAX {
                return Err(ForkProofError::TooManyStatements);
            }
            let is_object = json.starts_with('{') && json.ends_with('}');
            if !is_object || json.len() > STATEMENT_BYTES_MAX || json.contains(char::is_control) {
                return Err(ForkProofError::Statement { position });
            }
            statements.push(json.to_owned());
            line = lines.next()?;
        }
        Ok(Self {
            smaller,
            larger,
            bridge,
            statements,
        })
    }

    /// Verifies that keys among `vkeys` signed both, in the name of one log, and that the two contradict each other. Returns what is signed, the smaller first.
    ///
    /// # Errors
    /// [`ForkProofError`]: it proves nothing, at least not against these keys.
    pub fn check(&self, vkeys: &[Vkey]) -> Result<(Checkpoint, Checkpoint), ForkProofError> {
        let (smaller, larger) = self.checkpoints()?;
        for side in [Side::Smaller, Side::Larger] {
            if self.signers(side, vkeys).next().is_none() {
                return Err(ForkProofError::NotSigned { side });
            }
        }
        Ok((smaller, larger))
    }

    /// Which of the keys signed one of the checkpoints, in the name of its log. Each key is asked by itself, so that a false line in the name of
    /// another known key takes no signature back: a log could add one to whatever it hands out.
    pub fn signers<'k>(&self, side: Side, vkeys: &'k [Vkey]) -> impl Iterator<Item = &'k Vkey> {
        // Read once: there may be thousands of keys, and a note has up to a megabyte.
        let note = Note::parse(self.note(side).as_bytes()).ok();
        let opened = note.and_then(|note| Some((Checkpoint::parse_text(note.text()).ok()?, note)));
        vkeys.iter().filter(move |vkey| {
            opened.as_ref().is_some_and(|(checkpoint, note)| {
                vkey.algorithm() == Algorithm::Ed25519
                    && vkey.name() == checkpoint.origin
                    && note.verify(std::slice::from_ref(vkey)).is_ok()
            })
        })
    }

    /// What the two sign, if they contradict each other; who signed them is not looked at.
    ///
    /// # Errors
    /// [`ForkProofError`], all but [`ForkProofError::NotSigned`] and those of the file's form.
    pub fn checkpoints(&self) -> Result<(Checkpoint, Checkpoint), ForkProofError> {
        let smaller = read(&self.smaller, Side::Smaller)?;
        let larger = read(&self.larger, Side::Larger)?;
        let (n, m) = (smaller.size, larger.size);
        if smaller.origin != larger.origin {
            return Err(ForkProofError::Origins {
                smaller: smaller.origin,
                larger: larger.origin,
            });
        }
        if n > m {
            return Err(ForkProofError::Order {
                first: n,
                second: m,
            });
        }
        let other_root = match &self.bridge {
            None if n == m => larger.root,
            Some(bridge) if n < m => {
                verify_consistency(n, &bridge.root, m, &larger.root, &bridge.proof)
                    .map_err(ForkProofError::BridgeProof)?;
                bridge.root
            }
            None | Some(_) => {
                return Err(ForkProofError::Bridge {
                    smaller: n,
                    larger: m,
                });
            }
        };
        // INVARIANT: the empty tree has one root, which both checks above and the reading of checkpoints demand: n = 0 ends here.
        if other_root == smaller.root {
            return Err(ForkProofError::NoFork { size: n });
        }
        Ok((smaller, larger))
    }

    fn note(&self, side: Side) -> &str {
        match side {
            Side::Smaller => &self.smaller,
            Side::Larger => &self.larger,
        }
    }
}

fn read(note: &str, side: Side) -> Result<Checkpoint, ForkProofError> {
    Note::parse(note.as_bytes())
        .map_err(CheckpointError::from)
        .and_then(|note| Checkpoint::parse_text(note.text()))
        .map_err(|source| ForkProofError::Checkpoint { side, source })
}

/// The lines of a file, each of which ends in a line feed.
struct Lines<'a> {
    rest: &'a str,
    at: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Result<Option<&'a str>, ForkProofError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.at += 1;
        let line = self.at;
        let (line, rest) = self
            .rest
            .split_once('\n')
            .ok_or(ForkProofError::Line { line })?;
        self.rest = rest;
        Ok(Some(line))
    }

    /// A note, of as many lines as the line before it says.
    fn note(&mut self, side: Side) -> Result<String, ForkProofError> {
        let wrong = ForkProofError::NoCheckpoint { side };
        let count = self
            .next()?
            .and_then(|line| line.strip_prefix("checkpoint "))
            .and_then(parse_decimal)
            .filter(|lines| (NOTE_LINES_MIN..=NOTE_LINES_MAX).contains(lines));
        let count = count.ok_or_else(|| wrong.clone())?;
        let text = self.rest;
        for _ in 0..count {
            if self.next()?.is_none() {
                return Err(wrong);
            }
        }
        let note = &text[..text.len() - self.rest.len()];
        read(note, side)?;
        Ok(note.to_owned())
    }
}
