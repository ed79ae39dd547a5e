use countersign_crypto::Sha256Stream;
use serde::{Deserialize, Serialize};

use super::{AgreementId, Digest, Document};
use crate::names::{Authority, Origin};
use crate::time::Timestamp;

/// A producer's word on what it left out of a delivery: none of these entries passes the filter. Whoever can open one of them that does holds the proof
/// that it is false.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SkipClaim {
    /// The agreement under which it was delivered.
    pub agreement: AgreementId,
    /// The log.
    pub stream: Origin,
    /// Who reads.
    pub consumer: Authority,
    /// Digest of the filter in force.
    pub filter: Digest,
    /// The first sequence that it is about.
    pub from: u64,
    /// The sequence after the last: the size of the tree that ends there.
    pub size: u64,
    /// Root of that tree: the entries are those, and no others.
    pub root: Digest,
    /// How many of them were left out.
    pub skipped: u64,
    /// Which of them ([`SkipClaim::digest_of`]).
    pub runs: Digest,
    /// When it was signed.
    #[serde(with = "super::rfc3339")]
    pub made: Timestamp,
}

impl Document for SkipClaim {
    const PAYLOAD_TYPE: &'static str = "application/vnd.countersign.skip-claim.v1+json";
}

impl SkipClaim {
    /// What stands for runs of entries left out: SHA-256 over first sequence and sequence after the last of each, 8 bytes big-endian. Runs ascend, and
    /// do not touch each other.
    #[must_use]
    pub fn digest_of(runs: &[(u64, u64)]) -> Digest {
        let mut hash = Sha256Stream::new();
        for (first, end) in runs {
            hash.update(&first.to_be_bytes());
            hash.update(&end.to_be_bytes());
        }
        Digest(hash.finish())
    }
}
