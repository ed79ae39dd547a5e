//! Counts of the cryptographic work of this process, for the check that work per event does not grow.
//!
//! Only with the feature `count`, which no product build asks for: without it nothing is counted, stored or passed on.

/// Work done through this crate since the process began, all threads together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Work {
    /// SHA-256 digests finished.
    pub hashes: u64,
    /// Bytes that went into SHA-256, without its padding.
    pub hashed_bytes: u64,
    /// Ed25519 signatures made.
    pub signatures: u64,
    /// Ed25519 signatures verified, whatever the outcome.
    pub verifications: u64,
}

/// What was done so far; `None` where this build does not count.
#[must_use]
pub fn work() -> Option<Work> {
    #[cfg(feature = "count")]
    return Some(counters::read());
    #[cfg(not(feature = "count"))]
    None
}

#[cfg(feature = "count")]
pub(crate) use counters::{digest_finished, hashed, signed, verified};
#[cfg(not(feature = "count"))]
pub(crate) use nothing::{digest_finished, hashed, signed, verified};

#[cfg(feature = "count")]
mod counters {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::Work;

    static HASHES: AtomicU64 = AtomicU64::new(0);
    static HASHED_BYTES: AtomicU64 = AtomicU64::new(0);
    static SIGNATURES: AtomicU64 = AtomicU64::new(0);
    static VERIFICATIONS: AtomicU64 = AtomicU64::new(0);

    pub(super) fn read() -> Work {
        Work {
            hashes: HASHES.load(Relaxed),
            hashed_bytes: HASHED_BYTES.load(Relaxed),
            signatures: SIGNATURES.load(Relaxed),
            verifications: VERIFICATIONS.load(Relaxed),
        }
    }

    pub(crate) fn hashed(bytes: usize) {
        HASHED_BYTES.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn digest_finished() {
        HASHES.fetch_add(1, Relaxed);
    }

    pub(crate) fn signed() {
        SIGNATURES.fetch_add(1, Relaxed);
    }

    pub(crate) fn verified() {
        VERIFICATIONS.fetch_add(1, Relaxed);
    }
}

/// The same names without a body, so that the callers read the same in both builds.
#[cfg(not(feature = "count"))]
mod nothing {
    pub(crate) const fn hashed(_bytes: usize) {}
    pub(crate) const fn digest_finished() {}
    pub(crate) const fn signed() {}
    pub(crate) const fn verified() {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SigningKey, sha256};

    #[test]
    fn only_a_build_that_asks_for_it_counts() {
        let before = work();
        let key = SigningKey::from_seed(&[1; 32]);
        let signature = key.sign(&sha256(b"bytes"));
        assert!(key.public().verify(b"other", &signature).is_err());
        assert_eq!(before.is_some(), cfg!(feature = "count"));
        let Some((before, after)) = before.zip(work()) else {
            return;
        };
        // Other tests may count meanwhile.
        assert!(after.hashes > before.hashes);
        assert!(after.hashed_bytes >= before.hashed_bytes + 5);
        assert!(after.signatures > before.signatures);
        assert!(after.verifications > before.verifications);
    }
}
