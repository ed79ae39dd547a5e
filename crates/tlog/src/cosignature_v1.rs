//! Timestamped cosignatures of witnesses (c2sp.org/tlog-cosignature, the Ed25519 form `cosignature/v1`).
//!
//! ```text
//! signed:     cosignature/v1 LF
//!             time <seconds since 1970, decimal> LF
//!             <the whole text of the checkpoint>
//! line holds: 8 bytes seconds, big endian ‖ 64 bytes Ed25519 signature
//! ```
//!
//! The signed bytes do not name the witness: a witness key belongs to one witness only.

use countersign_crypto::{Signature, SigningKey};

use crate::note::{Algorithm, KeyId, NoteError, NoteSignature, Vkey};

/// The bytes of a cosignature after the key id.
pub const SIGNATURE_BYTES: usize = 8 + 64;

/// The latest time that the specification allows, in seconds.
pub const TIME_SECONDS_MAX: u64 = (1 << 63) - 1;

/// Why a line is no cosignature of a text by a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CosignatureError {
    /// The key is not of type 0x04.
    #[error(
        "the key is of type {algorithm:#04x}, and cosignatures are verified by keys of type 0x04"
    )]
    Algorithm {
        /// The key's type.
        algorithm: u8,
    },
    /// The line holds another number of bytes.
    #[error("a cosignature has {SIGNATURE_BYTES} bytes, this line {actual}")]
    Length {
        /// The bytes after the key id.
        actual: usize,
    },
    /// The line is in another name, or of another key id.
    #[error("the line is of key {actual}, not of {expected}, or in another name")]
    OtherKey {
        /// The id of the key given.
        expected: KeyId,
        /// The id in the line.
        actual: KeyId,
    },
    /// The signature does not verify.
    #[error("the cosignature of time {time_seconds} does not verify")]
    Signature {
        /// The time that the line states.
        time_seconds: u64,
    },
    /// The time is beyond [`TIME_SECONDS_MAX`].
    #[error("the time {time_seconds} is beyond {TIME_SECONDS_MAX}")]
    Time {
        /// The time that the line states.
        time_seconds: u64,
    },
}

/// The bytes that a witness signs: two lines of its own, then the whole text of the checkpoint's note.
#[must_use]
pub fn payload(text: &str, time_seconds: u64) -> Vec<u8> {
    format!("cosignature/v1\ntime {time_seconds}\n{text}").into_bytes()
}

/// Cosigns the text of a checkpoint as the witness called `name`. `time_seconds` counts from 1970 and is at most
/// [`TIME_SECONDS_MAX`].
///
/// # Errors
/// [`NoteError::KeyName`].
pub fn sign(
    text: &str,
    name: &str,
    key: &SigningKey,
    time_seconds: u64,
) -> Result<NoteSignature, NoteError> {
    let signature = key.sign(&payload(text, time_seconds));
    let mut bytes = Vec::with_capacity(SIGNATURE_BYTES);
    bytes.extend_from_slice(&time_seconds.to_be_bytes());
    bytes.extend_from_slice(&signature.to_bytes());
    let id = KeyId::of(name, Algorithm::CosignatureV1, &key.public());
    NoteSignature::new(name.to_owned(), id, bytes)
}

/// Verifies a cosignature of the text of a checkpoint and returns its time in seconds since 1970. Whether that time is
/// believable is for the caller, who has a clock.
///
/// # Errors
/// [`CosignatureError`].
pub fn verify(text: &str, line: &NoteSignature, key: &Vkey) -> Result<u64, CosignatureError> {
    if key.algorithm() != Algorithm::CosignatureV1 {
        let algorithm = key.algorithm() as u8;
        return Err(CosignatureError::Algorithm { algorithm });
    }
    if !line.names(key) {
        return Err(CosignatureError::OtherKey {
            expected: key.id(),
            actual: line.id(),
        });
    }
    let (time_seconds, signature) = split(line.signature()).ok_or(CosignatureError::Length {
        actual: line.signature().len(),
    })?;
    if time_seconds > TIME_SECONDS_MAX {
        return Err(CosignatureError::Time { time_seconds });
    }
    key.key()
        .verify(&payload(text, time_seconds), &signature)
        .map_err(|_| CosignatureError::Signature { time_seconds })?;
    Ok(time_seconds)
}

fn split(bytes: &[u8]) -> Option<(u64, Signature)> {
    let (time, signature) = bytes.split_first_chunk::<8>()?;
    let signature = <[u8; 64]>::try_from(signature).ok()?;
    Some((u64::from_be_bytes(*time), Signature::from_bytes(signature)))
}
