//! Requests to a witness (c2sp.org/tlog-witness, `add-checkpoint`): a checkpoint, and the proof that it continues an older one. As a file it
//! is all it takes to show offline, beside the older checkpoint, that a log has only grown.
//!
//! ```text
//! old <decimal>             the size of the older checkpoint
//! <base64 of a hash>        the consistency proof; none where the older is empty or of the same size
//!
//! <the newer checkpoint's note, verbatim, with all its lines>
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_crypto::Hash;

use crate::checkpoint::{Checkpoint, parse_hash};
use crate::decimal::parse_decimal;
use crate::note::{NOTE_BYTES_MAX, Note, NoteError};
use crate::proof::{ProofError, verify_consistency};

/// The most hashes of a request, as the specification says; the path from a leaf of a tree of 2^63 leaves has no more.
pub const ADD_CHECKPOINT_HASHES_MAX: usize = 63;

/// The largest request taken, in bytes: a note, 63 lines of 45 bytes, and room for the words.
pub const ADD_CHECKPOINT_BYTES_MAX: usize = NOTE_BYTES_MAX + 4096;

/// A checkpoint that continues an older one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AddCheckpoint {
    /// The size of the older checkpoint.
    pub old: u64,
    /// The consistency proof.
    pub proof: Vec<Hash>,
    /// The newer checkpoint's whole note.
    pub checkpoint: String,
}

/// Why bytes are no such request, or prove nothing.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AddCheckpointError {
    /// A line of the proof is not the base64 of 32 bytes.
    #[error("hash {position} of the proof is not the padded base64 of 32 bytes")]
    Hash {
        /// Which one, from 0.
        position: usize,
    },
    /// No empty line parts the proof from the checkpoint.
    #[error("there is no empty line before the newer checkpoint")]
    NoCheckpoint,
    /// The checkpoint is no note.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The first line is another.
    #[error("the first line is not `old` with a decimal number below 2^64")]
    Old,
    /// The older checkpoint is of another size.
    #[error("the older checkpoint has {found} entries, and the proof begins at {old}")]
    OldSize {
        /// What the proof says.
        old: u64,
        /// What the checkpoint says.
        found: u64,
    },
    /// The checkpoints are of two logs.
    #[error("the checkpoints are of two logs, `{old}` and `{new}`")]
    Origins {
        /// Of the older.
        old: String,
        /// Of the newer.
        new: String,
    },
    /// The newer tree does not begin with the older.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// Larger than [`ADD_CHECKPOINT_BYTES_MAX`].
    #[error("there are {bytes} bytes, more than {ADD_CHECKPOINT_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The proof has more hashes than a request may have.
    #[error("the proof has more than {ADD_CHECKPOINT_HASHES_MAX} hashes")]
    TooManyHashes,
    /// The bytes are not UTF-8.
    #[error("byte {offset} is not UTF-8")]
    Utf8 {
        /// Where.
        offset: usize,
    },
}

impl AddCheckpoint {
    /// The body of the request.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = format!("old {}\n", self.old);
        for hash in &self.proof {
            STANDARD.encode_string(hash, &mut text);
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&self.checkpoint);
        text
    }

    /// Reads a request. That its checkpoint is a note is checked; who signed it is not.
    ///
    /// # Errors
    /// [`AddCheckpointError`], all but those of [`AddCheckpoint::verify`].
    pub fn parse(bytes: &[u8]) -> Result<Self, AddCheckpointError> {
        if bytes.len() > ADD_CHECKPOINT_BYTES_MAX {
            return Err(AddCheckpointError::TooLarge { bytes: bytes.len() });
        }
        let text = std::str::from_utf8(bytes).map_err(|error| AddCheckpointError::Utf8 {
            offset: error.valid_up_to(),
        })?;
        let (head, checkpoint) = text
            .split_once("\n\n")
            .ok_or(AddCheckpointError::NoCheckpoint)?;
        let mut lines = head.split('\n');
        let old = lines
            .next()
            .and_then(|line| line.strip_prefix("old "))
            .and_then(parse_decimal)
            .ok_or(AddCheckpointError::Old)?;
        let mut proof = Vec::new();
        for (position, line) in lines.enumerate() {
            if position == ADD_CHECKPOINT_HASHES_MAX {
                return Err(AddCheckpointError::TooManyHashes);
            }
            proof.push(parse_hash(line).ok_or(AddCheckpointError::Hash { position })?);
        }
        Note::parse(checkpoint.as_bytes())?;
        Ok(Self {
            old,
            proof,
            checkpoint: checkpoint.to_owned(),
        })
    }

    /// Verifies that the log of the checkpoint `new` begins with all of `old`. That both are signed, and that `new` is the one in the request, is
    /// for whoever opened them.
    ///
    /// # Errors
    /// [`AddCheckpointError::OldSize`], [`AddCheckpointError::Origins`], [`AddCheckpointError::Proof`].
    pub fn verify(&self, old: &Checkpoint, new: &Checkpoint) -> Result<(), AddCheckpointError> {
        if old.origin != new.origin {
            return Err(AddCheckpointError::Origins {
                old: old.origin.clone(),
                new: new.origin.clone(),
            });
        }
        if old.size != self.old {
            let (old, found) = (self.old, old.size);
            return Err(AddCheckpointError::OldSize { old, found });
        }
        verify_consistency(old.size, &old.root, new.size, &new.root, &self.proof)?;
        Ok(())
    }
}
