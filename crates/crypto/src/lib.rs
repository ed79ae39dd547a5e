//! Keys, hashes and randomness: the one small wrapper around reviewed cryptography.
//!
//! Everything in the workspace that hashes, signs, verifies, encrypts or draws randomness does it through this crate, so that
//! strictness is decided once: keys that are weak or carry a torsion component are refused when first met
//! ([`PublicKey::from_bytes`]), and only the strict Ed25519 verification exists ([`PublicKey::verify`]).
//!
//! Out of scope: what is hashed or signed (crates `event` and `tlog`), TLS (crate `client`).

mod aead;
mod base32;
mod ecdh;
mod ed25519;
mod entropy;
mod hmac;
mod hpke;
mod protected_key;
mod sha256;
mod timestamp;
mod work;

pub use aead::{BulkSealingKey, NONCE_BYTES, OpenError, SEAL_TAG_BYTES, SealingKey, hkdf_sha256};
pub use base32::base32_lower;
pub use ecdh::{ECDH_BYTES, EcdhCurve, EcdhError, EcdhPublicKey, EcdhSecretKey, concat_kdf};
pub use ed25519::{
    Fingerprint, FingerprintError, KeyError, PublicKey, Signature, SignatureError, SigningKey,
};
pub use entropy::{Entropy, EntropyError, OsEntropy, SeededEntropy};
pub use hmac::HmacKey;
pub use hpke::{HpkeSealed, WeakRecipient, X25519PublicKey, X25519SecretKey};
pub use protected_key::{PASSPHRASE_BYTES_MAX, Passphrase, PassphraseError, is_protected_pem};
pub use sha256::{Hash, Sha256Stream, sha256, sha256_headed, sha256_headed_pair, sha256_of};
pub use timestamp::{
    TIMESTAMP_TOKEN_BYTES_MAX, TimestampError, TimestampToken, TsaRoots, TsaRootsError,
    UntrustedTsa, timestamp_query,
};
pub use work::{Work, work};
