use countersign_crypto::{PublicKey, SigningKey};
use serde::{Deserialize, Serialize};

use super::{Document, DocumentError};
use crate::dsse::Envelope;
use crate::names::Authority;
use crate::time::Timestamp;

/// The most successions that a key statement or revocation carries: at one a year more than a working life, and less than 16 KiB.
pub const SUCCESSIONS_MAX: usize = 16;

/// An organization key gives its place to another. Both sign: the old one, so that nobody takes the place by himself; the new one, so that nobody is given a
/// name that he does not hold (`schemas/documents.md`).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KeySuccession {
    /// The organization's name, which stays.
    pub authority: Authority,
    /// The organization key so far.
    pub from: PublicKey,
    /// The organization key from now on.
    pub to: PublicKey,
    /// When it was made.
    #[serde(with = "super::rfc3339")]
    pub made: Timestamp,
}

impl Document for KeySuccession {
    const PAYLOAD_TYPE: &'static str = "application/vnd.countersign.key-succession.v1+json";
}

/// Why an organization key does not speak for an authority.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SuccessionError {
    /// The authority is the fingerprint of another key than the first one.
    #[error(
        "`{authority}` is the fingerprint of another key than the one that signed, and no succession leads from that key to this one"
    )]
    ForeignAuthority {
        /// The claimed authority.
        authority: Authority,
    },
    /// A link of the line is malformed, not signed by both keys, or does not follow the one before.
    #[error("succession {position} of the organization key of {authority} does not hold")]
    Link {
        /// The organization.
        authority: Authority,
        /// Its place, from 1.
        position: usize,
    },
    /// Too many.
    #[error("the organization key was succeeded more than {SUCCESSIONS_MAX} times")]
    TooMany,
}

impl KeySuccession {
    /// Signs the succession with both keys, which have to be those that it names.
    #[must_use]
    pub fn sign_with(&self, from: &SigningKey, to: &SigningKey) -> Envelope {
        let mut envelope = Document::sign(self, from);
        envelope.add_signature(to);
        envelope
    }

    /// Verifies a succession under both keys that it names.
    ///
    /// # Errors
    /// [`DocumentError`].
    pub fn verify(envelope: &Envelope) -> Result<Self, DocumentError> {
        let claimed = Self::peek(envelope)?;
        Self::open(envelope, &claimed.from)?;
        Self::open(envelope, &claimed.to)
    }
}

/// Checks that `organization` speaks for `authority`: it is the first key, or `line` leads from the first key to it without a gap.
pub(super) fn check_line(
    authority: &Authority,
    organization: &PublicKey,
    line: &[Envelope],
) -> Result<(), SuccessionError> {
    if line.len() > SUCCESSIONS_MAX {
        return Err(SuccessionError::TooMany);
    }
    let mut seen: Vec<PublicKey> = Vec::new();
    for (index, envelope) in line.iter().enumerate() {
        let link = KeySuccession::verify(envelope).ok().filter(|link| {
            let follows = seen.last().is_none_or(|last| *last == link.from);
            // A key that gave its place away does not come back.
            let news = link.from != link.to && !seen.contains(&link.to);
            link.authority == *authority && follows && news
        });
        let link = link.ok_or_else(|| SuccessionError::Link {
            authority: authority.clone(),
            position: index + 1,
        })?;
        if seen.is_empty() {
            seen.push(link.from);
        }
        seen.push(link.to);
    }
    let first = seen.first().unwrap_or(organization);
    let last = seen.last().unwrap_or(organization);
    if authority.admits_first_key(first) && last == organization {
        return Ok(());
    }
    Err(SuccessionError::ForeignAuthority {
        authority: authority.clone(),
    })
}

/// All organization keys of a verified line, the first one first, `organization` last.
pub(super) fn keys_of_line(organization: &PublicKey, line: &[Envelope]) -> Vec<PublicKey> {
    let links = line
        .iter()
        .filter_map(|envelope| KeySuccession::peek(envelope).ok());
    let mut keys: Vec<PublicKey> = links.map(|link| link.from).collect();
    keys.push(*organization);
    keys
}
