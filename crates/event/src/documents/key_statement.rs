use countersign_crypto::{PublicKey, SigningKey};
use serde::{Deserialize, Serialize};

use super::key_succession::{SuccessionError, check_line, keys_of_line};
use super::{Document, DocumentError};
use crate::dsse::Envelope;
use crate::names::Authority;
use crate::time::Timestamp;

/// What a key may be used for. Persisted as the lower-case word.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Signs agreements, refusals and terminations.
    Agreement,
    /// Opens epoch keys: its X25519 form does ([`PublicKey::to_x25519`]). Signs nothing.
    Encryption,
    /// Signs checkpoints.
    Log,
    /// Speaks TLS.
    Node,
    /// Signs receipts and rejections.
    Receipt,
    /// Cosigns checkpoints of others.
    Witness,
}

impl Role {
    /// The word used in documents, file names and messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agreement => "agreement",
            Self::Encryption => "encryption",
            Self::Log => "log",
            Self::Node => "node",
            Self::Receipt => "receipt",
            Self::Witness => "witness",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// One delegated key and its period.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RoleKey {
    /// What it may do.
    pub role: Role,
    /// The key.
    pub key: PublicKey,
    /// From when, inclusive.
    #[serde(with = "super::rfc3339")]
    pub from: Timestamp,
    /// Until when, exclusive; absent = until a later statement drops it.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "super::rfc3339::option"
    )]
    pub until: Option<Timestamp>,
}

/// The organization key says which dated role keys speak for the organization. The only document it signs in daily life, so
/// that it may stay offline.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KeyStatement {
    /// Under which name the organization speaks.
    pub authority: Authority,
    /// Its display name, at most 100 characters; a claim, proven by nothing.
    pub name: String,
    /// The organization key, which signs this.
    pub organization: PublicKey,
    /// Higher numbers supersede lower ones.
    pub number: u64,
    /// When it was made.
    #[serde(with = "super::rfc3339")]
    pub made: Timestamp,
    /// Every delegated key, at most 64; also those whose period is over.
    pub keys: Vec<RoleKey>,
    /// How the organization key came to its place: one [`KeySuccession`](super::KeySuccession) for each key after the first, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub succession: Vec<Envelope>,
}

/// Why a key statement is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StatementError {
    /// Its envelope, signature or form is wrong.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// Its organization key does not speak for the authority.
    #[error(transparent)]
    Succession(#[from] SuccessionError),
    /// No such key is delegated for the role at that time.
    #[error("the key statement of {authority} delegates no {role} key that fits")]
    NotDelegated {
        /// The organization.
        authority: Authority,
        /// The wanted role.
        role: Role,
    },
    /// A limit on its content.
    #[error(
        "the key statement exceeds a limit: at most 64 keys, a name of 1 to 100 printable characters"
    )]
    Limit,
}

impl Document for KeyStatement {
    const PAYLOAD_TYPE: &'static str = "application/vnd.countersign.key-statement.v1+json";
}

impl KeyStatement {
    /// Signs the statement with the organization key.
    #[must_use]
    pub fn sign_with(&self, organization: &SigningKey) -> Envelope {
        Document::sign(self, organization)
    }

    /// Verifies a statement against the organization key that it names itself. Whether that organization is the right one is for the
    /// caller to know (a pinned key, a link, `--trust`).
    ///
    /// # Errors
    /// [`StatementError`].
    pub fn verify(envelope: &Envelope) -> Result<Self, StatementError> {
        let claimed = Self::peek(envelope)?;
        let statement = Self::open(envelope, &claimed.organization)?;
        let printable = statement.name.chars().all(|c| !c.is_control());
        if statement.keys.len() > 64
            || !(1..=100).contains(&statement.name.chars().count())
            || !printable
        {
            return Err(StatementError::Limit);
        }
        check_line(
            &statement.authority,
            &statement.organization,
            &statement.succession,
        )?;
        Ok(statement)
    }

    /// The organization keys up to this statement's own, the first one first. Only a verified statement's word counts.
    #[must_use]
    pub fn organization_keys(&self) -> Vec<PublicKey> {
        keys_of_line(&self.organization, &self.succession)
    }

    /// Whether the organization key is `key`, or has come to its place after it.
    #[must_use]
    pub fn descends_from(&self, key: &PublicKey) -> bool {
        self.organization_keys().contains(key)
    }

    /// The delegated keys for `role`, in the order of the statement.
    pub fn keys_for(&self, role: Role) -> impl Iterator<Item = &RoleKey> {
        self.keys.iter().filter(move |key| key.role == role)
    }

    /// Whether `key` is delegated for `role` at `time`.
    ///
    /// # Errors
    /// [`StatementError::NotDelegated`].
    pub fn check_delegated(
        &self,
        role: Role,
        key: &PublicKey,
        time: Timestamp,
    ) -> Result<(), StatementError> {
        let holds = |delegated: &RoleKey| {
            delegated.key == *key
                && delegated.from <= time
                && delegated.until.is_none_or(|until| time < until)
        };
        if self.keys_for(role).any(holds) {
            Ok(())
        } else {
            Err(StatementError::NotDelegated {
                authority: self.authority.clone(),
                role,
            })
        }
    }

    /// Reads a document that one of the organization's keys for `role` signed, dated within that key's period: what an auditor accepts.
    ///
    /// # Errors
    /// As [`KeyStatement::open_signed`]; also where the date lies outside the period.
    pub fn open_dated<D: Document>(
        &self,
        role: Role,
        envelope: &Envelope,
        made: fn(&D) -> Timestamp,
    ) -> Result<D, StatementError> {
        let document: D = self.open_signed(role, envelope)?;
        let time = made(&document);
        let signed_by = |delegated: &RoleKey| {
            delegated.from <= time
                && delegated.until.is_none_or(|until| time < until)
                && envelope.open(D::PAYLOAD_TYPE, &delegated.key).is_ok()
        };
        if self.keys_for(role).any(signed_by) {
            Ok(document)
        } else {
            Err(StatementError::NotDelegated {
                authority: self.authority.clone(),
                role,
            })
        }
    }

    /// Reads a document that one of the organization's keys for `role` signed.
    ///
    /// # Errors
    /// [`StatementError::NotDelegated`] where none of them did; [`StatementError::Document`] where the form is wrong.
    pub fn open_signed<D: Document>(
        &self,
        role: Role,
        envelope: &Envelope,
    ) -> Result<D, StatementError> {
        for delegated in self.keys_for(role) {
            match D::open(envelope, &delegated.key) {
                Ok(document) => return Ok(document),
                Err(DocumentError::Envelope(crate::dsse::EnvelopeError::NotSignedBy {
                    ..
                })) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StatementError::NotDelegated {
            authority: self.authority.clone(),
            role,
        })
    }
}
