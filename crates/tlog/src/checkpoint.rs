//! Checkpoints (c2sp.org/tlog-checkpoint@v1.0.0): origin, size and root of a log, signed by the log's key as a note.
//!
//! ```text
//! <origin>                                      ┐
//! <size, decimal>                               │ text, signed
//! <base64 of the root>                          ┘
//!
//! — <origin> <base64(key id ‖ signature)>         the log's line, type 0x01; witnesses add theirs
//! ```
//!
//! Extension lines are refused: some witnesses' signatures do not cover them. On the wire and on disk a checkpoint is its
//! three fields and the 64 bytes of the signature; [`note_from_signature`] makes the same note of them again.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_crypto::{Hash, PublicKey, Signature, SignatureError, SigningKey};

use crate::decimal::parse_decimal;
use crate::hash::empty_root;
use crate::note::{self, Algorithm, KeyId, Note, NoteError, Vkey, check_name};

/// What a log says of itself at one moment.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Checkpoint {
    /// The log's identity and the name of its key; [`note::check_name`] holds for it in every log of ours.
    pub origin: String,
    /// The number of leaves.
    pub size: u64,
    /// The root of the tree.
    pub root: Hash,
}

/// A checkpoint with the log's signature.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SignedCheckpoint {
    /// What is signed.
    pub checkpoint: Checkpoint,
    /// The log's signature, all that is needed to make the note again.
    pub signature: Signature,
    /// The whole note with the log's one line.
    pub note_text: String,
}

/// Why bytes are no checkpoint of a log.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CheckpointError {
    /// The tree is empty, but the root is not the root of the empty tree.
    #[error("the checkpoint is of size 0 and has another root than the empty tree")]
    EmptyRoot,
    /// The text has more than three lines.
    #[error("the checkpoint has {lines} extension lines, which are not accepted")]
    ExtensionLines {
        /// The number of lines after the third.
        lines: usize,
    },
    /// The key given is a witness's.
    #[error("the key is of type {algorithm:#04x}, and a log signs with a key of type 0x01")]
    KeyType {
        /// The key's type.
        algorithm: u8,
    },
    /// The text has less than three lines, or does not end in a line feed.
    #[error("a checkpoint is three lines: origin, size and root")]
    Lines,
    /// The note is malformed, or not signed by the key.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The origin is empty, or no name of a key where one is needed.
    #[error("the origin is not empty and has no space, plus sign or control character")]
    Origin,
    /// The checkpoint is of another log than the key.
    #[error("the checkpoint is of `{origin}`, not of `{key_name}`")]
    OtherOrigin {
        /// The first line of the checkpoint.
        origin: String,
        /// The name of the key.
        key_name: String,
    },
    /// The root is not the base64 of 32 bytes.
    #[error("the root is not the padded base64 of 32 bytes")]
    Root,
    /// The size is not a decimal number below 2^64 without leading zero.
    #[error("the size is not a decimal number below 2^64 without leading zero")]
    Size,
}

impl Checkpoint {
    /// A checkpoint whose origin is fit to be signed for.
    ///
    /// # Errors
    /// [`CheckpointError::Origin`], [`CheckpointError::EmptyRoot`].
    pub fn new(origin: String, size: u64, root: Hash) -> Result<Self, CheckpointError> {
        check_name(&origin).map_err(|_| CheckpointError::Origin)?;
        check_root(size, &root)?;
        Ok(Self { origin, size, root })
    }

    /// The three lines that are signed.
    #[must_use]
    pub fn to_text(&self) -> String {
        // 20 digits, 44 characters of base64, three line feeds; and room to append one signature line in place.
        let mut text = String::with_capacity(2 * self.origin.len() + 67 + 98);
        text.push_str(&self.origin);
        text.push('\n');
        text.push_str(&self.size.to_string());
        text.push('\n');
        STANDARD.encode_string(self.root, &mut text);
        text.push('\n');
        text
    }

    /// Reads the three lines.
    ///
    /// # Errors
    /// [`CheckpointError`], of which [`CheckpointError::ExtensionLines`] says that more lines follow.
    pub fn parse_text(text: &str) -> Result<Self, CheckpointError> {
        let lines = text.strip_suffix('\n').ok_or(CheckpointError::Lines)?;
        let mut lines = lines.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next())
        else {
            return Err(CheckpointError::Lines);
        };
        let extension_lines = lines.count();
        if extension_lines > 0 {
            let lines = extension_lines;
            return Err(CheckpointError::ExtensionLines { lines });
        }
        if origin.is_empty() || origin.contains(char::is_control) {
            return Err(CheckpointError::Origin);
        }
        let size = parse_decimal(size).ok_or(CheckpointError::Size)?;
        let root = parse_hash(root).ok_or(CheckpointError::Root)?;
        check_root(size, &root)?;
        Ok(Self {
            origin: origin.to_owned(),
            size,
            root,
        })
    }
}

/// Signs a checkpoint with the log's key.
#[must_use]
pub fn sign_checkpoint(checkpoint: &Checkpoint, key: &SigningKey) -> SignedCheckpoint {
    let text = checkpoint.to_text();
    let signature = key.sign(text.as_bytes());
    SignedCheckpoint {
        note_text: finish_note(text, &checkpoint.origin, &key.public(), signature),
        checkpoint: checkpoint.clone(),
        signature,
    }
}

/// Opens a checkpoint of the log whose key is `vkey`: parsed, signed by that key, in the log's own name. Further
/// lines, those of witnesses for example, are left unjudged.
///
/// # Errors
/// [`CheckpointError`].
pub fn open_checkpoint(note: &[u8], vkey: &Vkey) -> Result<Checkpoint, CheckpointError> {
    if vkey.algorithm() != Algorithm::Ed25519 {
        let algorithm = vkey.algorithm() as u8;
        return Err(CheckpointError::KeyType { algorithm });
    }
    let note = Note::parse(note)?;
    note.verify(std::slice::from_ref(vkey))?;
    let checkpoint = Checkpoint::parse_text(note.text())?;
    if checkpoint.origin != vkey.name() {
        return Err(CheckpointError::OtherOrigin {
            origin: checkpoint.origin,
            key_name: vkey.name().to_owned(),
        });
    }
    Ok(checkpoint)
}

/// The signature alone.
#[must_use]
pub fn signature_of(checkpoint: &Checkpoint, key: &SigningKey) -> Signature {
    key.sign(checkpoint.to_text().as_bytes())
}

/// Verifies a signature that came without its note.
///
/// # Errors
/// [`SignatureError`].
pub fn verify_signature(
    checkpoint: &Checkpoint,
    key: &PublicKey,
    signature: &Signature,
) -> Result<(), SignatureError> {
    key.verify(checkpoint.to_text().as_bytes(), signature)
}

/// The note of a checkpoint and its signature, byte for byte the one that [`sign_checkpoint`] made. The signature is not
/// verified here.
#[must_use]
pub fn note_from_signature(
    checkpoint: &Checkpoint,
    key: &PublicKey,
    signature: Signature,
) -> String {
    finish_note(checkpoint.to_text(), &checkpoint.origin, key, signature)
}

/// The same with a further key's line below: two keys of a log sign while one follows the other.
#[must_use]
pub fn with_line(mut note: String, origin: &str, key: &PublicKey, signature: Signature) -> String {
    let id = KeyId::of(origin, Algorithm::Ed25519, key);
    note::write_line(&mut note, origin, id, &signature.to_bytes());
    note
}

fn finish_note(mut text: String, origin: &str, key: &PublicKey, signature: Signature) -> String {
    let id = KeyId::of(origin, Algorithm::Ed25519, key);
    text.push('\n');
    note::write_line(&mut text, origin, id, &signature.to_bytes());
    text
}

fn check_root(size: u64, root: &Hash) -> Result<(), CheckpointError> {
    if size == 0 && *root != empty_root() {
        return Err(CheckpointError::EmptyRoot);
    }
    Ok(())
}

/// A hash in padded base64; one text for one hash.
pub(crate) fn parse_hash(text: &str) -> Option<Hash> {
    // 44 characters: checked first, so that nothing longer is decoded.
    if text.len() != 44 {
        return None;
    }
    STANDARD.decode(text).ok()?.try_into().ok()
}
