use std::collections::BTreeSet;

use countersign_crypto::{PublicKey, SigningKey, sha256};
use serde::{Deserialize, Serialize};

use super::key_succession::{SuccessionError, check_line, keys_of_line};
use super::{Digest, Document, DocumentError, Role};
use crate::dsse::Envelope;
use crate::names::{Authority, Origin};
use crate::time::Timestamp;

/// The most heads of a revocation: one log key may serve many logs, and an envelope has 256 KiB.
pub const REVOKED_HEADS_MAX: usize = 1024;

/// The organization key takes a role key back. What a log key signed up to the heads named stays the organization's own; everything else may be by whoever
/// found the key (`schemas/documents.md`).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRevocation {
    /// Under which name the organization speaks.
    pub authority: Authority,
    /// The organization key, which signs this.
    pub organization: PublicKey,
    /// The key that is revoked.
    pub key: PublicKey,
    /// The role that it is revoked for.
    pub role: Role,
    /// Why, for people.
    pub reason: String,
    /// When it was made.
    #[serde(with = "super::rfc3339")]
    pub made: Timestamp,
    /// Of a log key the last valid heads, each log once, at most [`REVOKED_HEADS_MAX`]. A log that is not named has none.
    pub heads: Vec<RevokedHead>,
    /// How the organization key came to its place, as in a key statement.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub succession: Vec<Envelope>,
}

/// Up to where a log under a revoked key is the organization's own.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RevokedHead {
    /// The log.
    pub origin: Origin,
    /// Its last valid size.
    pub size: u64,
    /// Its root at that size.
    pub root: Digest,
}

/// Why a key revocation is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RevocationError {
    /// Its envelope, signature or form is wrong.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The log without entries has another root.
    #[error(
        "the key revocation names a root of no entries of {origin}, which is not that of the empty log"
    )]
    EmptyRoot {
        /// The log.
        origin: Origin,
    },
    /// A head of somebody else's log, of a log twice, of a key that signs no checkpoints, or one too many.
    #[error(
        "the key revocation names a head that it may not: each log of its authority once, at most {REVOKED_HEADS_MAX}, for log keys only"
    )]
    Heads,
    /// Its organization key does not speak for the authority.
    #[error(transparent)]
    Succession(#[from] SuccessionError),
}

impl Document for KeyRevocation {
    const PAYLOAD_TYPE: &'static str = "application/vnd.countersign.key-revocation.v1+json";
}

impl KeyRevocation {
    /// Signs the revocation with the organization key.
    #[must_use]
    pub fn sign_with(&self, organization: &SigningKey) -> Envelope {
        Document::sign(self, organization)
    }

    /// Verifies a revocation against the organization key that it names itself. Whether that organization is the right one is for the caller to know.
    ///
    /// # Errors
    /// [`RevocationError`].
    pub fn verify(envelope: &Envelope) -> Result<Self, RevocationError> {
        let claimed = Self::peek(envelope)?;
        let revocation = Self::open(envelope, &claimed.organization)?;
        let authority = &revocation.authority;
        check_line(authority, &revocation.organization, &revocation.succession)?;
        let origins: BTreeSet<&str> = revocation
            .heads
            .iter()
            .map(|head| head.origin.as_str())
            .collect();
        let own = |head: &RevokedHead| head.origin.authority() == *authority;
        let each_once = origins.len() == revocation.heads.len();
        let may_be_there = revocation.role == Role::Log || revocation.heads.is_empty();
        if revocation.heads.len() > REVOKED_HEADS_MAX
            || !each_once
            || !may_be_there
            || !revocation.heads.iter().all(own)
        {
            return Err(RevocationError::Heads);
        }
        let empty = Digest(sha256(&[]));
        let lying = |head: &&RevokedHead| head.size == 0 && head.root != empty;
        if let Some(head) = revocation.heads.iter().find(lying) {
            let origin = head.origin.clone();
            return Err(RevocationError::EmptyRoot { origin });
        }
        Ok(revocation)
    }

    /// Whether the organization key is `key`, or has come to its place after it. Only a verified revocation's word counts.
    #[must_use]
    pub fn descends_from(&self, key: &PublicKey) -> bool {
        keys_of_line(&self.organization, &self.succession).contains(key)
    }

    /// The head that it names for a log; none is as one of no entries.
    #[must_use]
    pub fn head(&self, origin: &Origin) -> Option<&RevokedHead> {
        self.heads.iter().find(|head| head.origin == *origin)
    }
}
