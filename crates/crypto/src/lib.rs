//! Keys, hashes and randomness: the one small wrapper around reviewed cryptography.
//!
//! Everything in the workspace that hashes, signs, verifies or draws randomness does it through this crate, so that
//! strictness is decided once: keys that are weak or carry a torsion component are refused when first met
//! ([`PublicKey::from_bytes`]), and only the strict Ed25519 verification exists ([`PublicKey::verify`]).
//!
//! Out of scope: what is hashed or signed (crates `event` and `tlog`), TLS (crate `client`).

mod base32;
mod ed25519;
mod entropy;

pub use base32::base32_lower;
pub use ed25519::{
    Fingerprint, FingerprintError, KeyError, PublicKey, Signature, SignatureError, SigningKey,
};
pub use entropy::{Entropy, EntropyError, OsEntropy, SeededEntropy};

use sha2::{Digest, Sha256};

/// A SHA-256 digest.
pub type Hash = [u8; 32];

/// SHA-256 of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

/// SHA-256 of the concatenation of `parts`, without joining them in memory.
#[must_use]
pub fn sha256_of(parts: &[&[u8]]) -> Hash {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// A SHA-256 computation fed piece by piece.
#[derive(Clone, Debug, Default)]
pub struct Sha256Stream(Sha256);

impl Sha256Stream {
    /// An empty computation.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes added.
    #[must_use]
    pub fn finish(self) -> Hash {
        self.0.finalize().into()
    }
}
