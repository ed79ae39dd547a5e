use countersign_crypto::PublicKey;
use serde::{Deserialize, Serialize};

use super::{Digest, Document, Plan, hex_id};
use crate::names::{Authority, Origin};
use crate::time::Timestamp;

hex_id! {
    /// Names an agreement.
    AgreementId
}

/// One side of an agreement: an organization, not a machine.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Party {
    /// Its name in origins.
    pub authority: Authority,
    /// Its display name.
    pub name: String,
    /// Its organization key.
    pub organization: PublicKey,
}

/// Binds two organizations, a stream, a plan and a period; one payload under both sides' signatures. Under one signature it is an acceptance.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Agreement {
    /// Its name, drawn by the side that proposed it.
    pub id: AgreementId,
    /// Who publishes.
    pub producer: Party,
    /// Who reads.
    pub consumer: Party,
    /// Which log.
    pub stream: Origin,
    /// On which terms.
    pub plan: Plan,
    /// From when, inclusive.
    #[serde(with = "super::rfc3339")]
    pub from: Timestamp,
    /// Until when, exclusive; absent = until it is ended.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "super::rfc3339::option"
    )]
    pub until: Option<Timestamp>,
    /// When it was proposed; where it accepts a proposal, when the side that accepts signed it.
    #[serde(with = "super::rfc3339")]
    pub made: Timestamp,
    /// SHA-256 of the payload of the proposal that it accepts; absent where it comes from an invitation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepts: Option<Digest>,
    /// SHA-256 of the payload of the agreement that it takes the place of when it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supersedes: Option<Digest>,
}

impl Document for Agreement {
    const PAYLOAD_TYPE: &'static str = "application/vnd.countersign.agreement.v1+json";
}

/// Ends an agreement.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Termination {
    /// Which agreement.
    pub agreement: AgreementId,
    /// Its stream.
    pub stream: Origin,
    /// Which side ends it.
    pub by: Authority,
    /// Why, for people.
    pub reason: String,
    /// The first sequence that is no longer delivered under it, where the producer ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// When it was signed.
    #[serde(with = "super::rfc3339")]
    pub made: Timestamp,
}

impl Document for Termination {
    const PAYLOAD_TYPE: &'static str = "application/vnd.countersign.termination.v1+json";
}
