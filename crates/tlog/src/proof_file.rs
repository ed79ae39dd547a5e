//! Proof files (c2sp.org/tlog-proof@v1, extension `.tlog-proof`): all it takes to show offline that an entry is in a log.
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! extra <base64>            only where there is extra data, which nothing authenticates
//! index <decimal>
//! <base64 of a hash>        the inclusion proof, from the leaf's sibling up; none for a tree of one leaf
//!
//! <the checkpoint's note, verbatim, with all its lines>
//! ```
//!
//! The entry itself travels beside the file.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_crypto::Hash;

use crate::checkpoint::{Checkpoint, CheckpointError, open_checkpoint, parse_hash};
use crate::decimal::parse_decimal;
use crate::note::{NOTE_BYTES_MAX, Note, NoteError, Vkey};
use crate::proof::{PROOF_HASHES_MAX, ProofError, verify_inclusion};

/// The most bytes of extra data taken.
pub const EXTRA_BYTES_MAX: usize = 65_536;

/// The largest file taken, in bytes: a note, the base64 of the extra data, 65 lines of 45 bytes, and room for the words.
pub const PROOF_FILE_BYTES_MAX: usize = NOTE_BYTES_MAX + EXTRA_BYTES_MAX / 3 * 4 + 4096;

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";

/// The proof that an entry is in a log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProofFile {
    /// Data of the application, authenticated by nothing; empty where there is none.
    pub extra: Vec<u8>,
    /// The index of the entry.
    pub index: u64,
    /// The inclusion proof, from the leaf's sibling up.
    pub proof: Vec<Hash>,
    /// The checkpoint's whole note.
    pub checkpoint: String,
}

/// Why bytes are no proof file, or prove nothing.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProofFileError {
    /// The checkpoint is malformed, or not signed by the key.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The extra data is empty, not padded base64, or more than [`EXTRA_BYTES_MAX`].
    #[error("the extra data is not the padded base64 of 1 to {EXTRA_BYTES_MAX} bytes")]
    Extra,
    /// The first line is another.
    #[error("the first line is not `{FIRST_LINE}`: no proof file, or one of another version")]
    FirstLine,
    /// A line of the proof is not the base64 of 32 bytes.
    #[error("hash {position} of the proof is not the padded base64 of 32 bytes")]
    Hash {
        /// Which one, from 0.
        position: usize,
    },
    /// The line of the index is missing, or is not a decimal number below 2^64 without leading zero.
    #[error("the line `index` with a decimal number below 2^64 is missing")]
    Index,
    /// No empty line parts the proof from the checkpoint.
    #[error("the proof file has no empty line before the checkpoint")]
    NoCheckpoint,
    /// The checkpoint is no note.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The proof does not lead from the leaf to the checkpoint's root.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The file is larger than [`PROOF_FILE_BYTES_MAX`].
    #[error("the proof file has {bytes} bytes, more than {PROOF_FILE_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The proof has more hashes than any tree needs.
    #[error("the proof has more than {PROOF_HASHES_MAX} hashes")]
    TooManyHashes,
    /// The bytes are not UTF-8.
    #[error("byte {offset} of the proof file is no UTF-8 text")]
    Utf8 {
        /// Where.
        offset: usize,
    },
}

impl ProofFile {
    /// The text of the file.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = format!("{FIRST_LINE}\n");
        if !self.extra.is_empty() {
            text.push_str("extra ");
            STANDARD.encode_string(&self.extra, &mut text);
            text.push('\n');
        }
        text.push_str(&format!("index {}\n", self.index));
        for hash in &self.proof {
            STANDARD.encode_string(hash, &mut text);
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&self.checkpoint);
        text
    }

    /// Reads a file. That its checkpoint is a note is checked; who signed it is not.
    ///
    /// # Errors
    /// [`ProofFileError`], all but [`ProofFileError::Checkpoint`] and [`ProofFileError::Proof`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ProofFileError> {
        if bytes.len() > PROOF_FILE_BYTES_MAX {
            return Err(ProofFileError::TooLarge { bytes: bytes.len() });
        }
        let text = std::str::from_utf8(bytes).map_err(|error| ProofFileError::Utf8 {
            offset: error.valid_up_to(),
        })?;
        // The first empty line: no line before the checkpoint may be empty, the checkpoint's note has one of its own.
        let (head, checkpoint) = text
            .split_once("\n\n")
            .ok_or(ProofFileError::NoCheckpoint)?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(FIRST_LINE) {
            return Err(ProofFileError::FirstLine);
        }
        let extra = lines
            .next_if(|line| line.starts_with("extra "))
            .map_or(Ok(Vec::new()), parse_extra)?;
        let index = lines
            .next()
            .and_then(|line| line.strip_prefix("index "))
            .and_then(parse_decimal)
            .ok_or(ProofFileError::Index)?;
        let mut proof = Vec::new();
        for (position, line) in lines.enumerate() {
            if position == PROOF_HASHES_MAX {
                return Err(ProofFileError::TooManyHashes);
            }
            proof.push(parse_hash(line).ok_or(ProofFileError::Hash { position })?);
        }
        Note::parse(checkpoint.as_bytes())?;
        Ok(Self {
            extra,
            index,
            proof,
            checkpoint: checkpoint.to_owned(),
        })
    }

    /// Verifies that the leaf is in the log whose key is `log`, and returns the checkpoint that says so. Cosignatures of
    /// witnesses are for the caller's policy.
    ///
    /// # Errors
    /// [`ProofFileError::Checkpoint`], [`ProofFileError::Proof`].
    pub fn verify(&self, leaf_hash: &Hash, log: &Vkey) -> Result<Checkpoint, ProofFileError> {
        let checkpoint = open_checkpoint(self.checkpoint.as_bytes(), log)?;
        let Checkpoint { size, root, .. } = &checkpoint;
        verify_inclusion(leaf_hash, self.index, *size, &self.proof, root)?;
        Ok(checkpoint)
    }
}

fn parse_extra(line: &str) -> Result<Vec<u8>, ProofFileError> {
    let base64 = line.strip_prefix("extra ").unwrap_or_default();
    if base64.len() > EXTRA_BYTES_MAX.div_ceil(3) * 4 {
        return Err(ProofFileError::Extra);
    }
    let extra = STANDARD.decode(base64).map_err(|_| ProofFileError::Extra)?;
    if extra.is_empty() || extra.len() > EXTRA_BYTES_MAX {
        return Err(ProofFileError::Extra);
    }
    Ok(extra)
}
