use countersign_crypto::{Hash, PublicKey, sha256, sha256_of};
use serde::{Deserialize, Serialize};

use super::{Agreement, AgreementId, Party, Plan};
use crate::json::from_slice_of_objects;
use crate::names::{Origin, StreamName};
use crate::time::Timestamp;

/// Which side of the agreement the inviter is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Reads.
    Consumer,
    /// Publishes.
    Producer,
}

/// What an invitation proposes: terms with one party left open. Not signed: its digest is in the link, and the agreement made from it is signed by
/// both.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// The inviter's side.
    pub inviter: Side,
    /// The inviter.
    pub organization: Party,
    /// The stream's name at the producer.
    pub stream: StreamName,
    /// What the stream is, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// On which terms.
    pub plan: Plan,
    /// When it was made; the agreement's `made` and `from`.
    #[serde(with = "super::rfc3339")]
    pub made: Timestamp,
    /// Until when the agreement runs; absent = until it is ended.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "super::rfc3339::option"
    )]
    pub until: Option<Timestamp>,
    /// Until when the invitation can be redeemed.
    #[serde(with = "super::rfc3339")]
    pub expires: Timestamp,
    /// Whether a person at the inviter confirms the joiner.
    pub confirm: bool,
}

impl Offer {
    /// The offer's JSON text, whose digest the link holds.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// SHA-256 of an offer's text.
    #[must_use]
    pub fn digest(text: &str) -> Hash {
        sha256(text.as_bytes())
    }

    /// Reads an offer's text; `None` where it is none.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        from_slice_of_objects(text.as_bytes()).ok()
    }

    /// The id of the agreement between the inviter and the joiner with this organization key: the same whenever it is computed, so that joining
    /// again finds it.
    #[must_use]
    pub fn agreement_id(invitation: &[u8; 16], joiner: &PublicKey) -> AgreementId {
        let digest = sha256_of(&[b"countersign.agr1", invitation, joiner.as_bytes()]);
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        AgreementId(id)
    }

    /// The agreement that this offer becomes with `joiner`. A function of its arguments alone: both sides compute the same.
    #[must_use]
    pub fn agreement(&self, id: AgreementId, joiner: &Party) -> Agreement {
        let (producer, consumer) = match self.inviter {
            Side::Producer => (self.organization.clone(), joiner.clone()),
            Side::Consumer => (joiner.clone(), self.organization.clone()),
        };
        Agreement {
            id,
            stream: Origin::of_stream(&producer.authority, &self.stream),
            producer,
            consumer,
            plan: self.plan.clone(),
            from: self.made,
            until: self.until,
            made: self.made,
            accepts: None,
            supersedes: None,
        }
    }
}
