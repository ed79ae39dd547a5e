use countersign_crypto::sha256;
use serde::{Deserialize, Serialize};

use super::{Agreement, AgreementId, Digest, Document, Party, Plan};
use crate::names::{Authority, Origin};
use crate::time::Timestamp;

/// The most rounds of proposals and counter-proposals about one agreement. Whoever has not agreed by then begins anew.
pub const ROUNDS_MAX: u32 = 8;

/// Terms that one side offers the other: the first of them begins the talks about an agreement, each later one counters the one before. Whoever
/// gets it may sign the agreement that it becomes, until `valid_until`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    /// The name of the agreement that it is about, drawn by whoever began.
    pub agreement: AgreementId,
    /// 1 for the first, then one more each time, by turns; at most [`ROUNDS_MAX`].
    pub round: u32,
    /// SHA-256 of the payload of the proposal that it counters; absent in the first round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Digest>,
    /// Which side proposes.
    pub by: Authority,
    /// Who would publish.
    pub producer: Party,
    /// Who would read.
    pub consumer: Party,
    /// Which log.
    pub stream: Origin,
    /// On which terms.
    pub plan: Plan,
    /// From when; absent = from when it is accepted.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "super::rfc3339::option"
    )]
    pub from: Option<Timestamp>,
    /// Until when the agreement would run; absent = until it is ended.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "super::rfc3339::option"
    )]
    pub until: Option<Timestamp>,
    /// SHA-256 of the payload of the agreement that it would replace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supersedes: Option<Digest>,
    /// What the data is wanted for, for the policies and for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// The first moment at which it cannot be accepted any more.
    #[serde(with = "super::rfc3339")]
    pub valid_until: Timestamp,
    /// When it was signed.
    #[serde(with = "super::rfc3339")]
    pub made: Timestamp,
}

impl Document for Proposal {
    const PAYLOAD_TYPE: &'static str = "application/vnd.countersign.proposal.v1+json";
}

impl Proposal {
    /// SHA-256 of its payload as it is written here.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest(sha256(&self.to_payload()))
    }

    /// The agreement that this proposal, whose payload has the digest `accepts`, becomes when it is accepted at `made`. A function of its arguments alone: both
    /// sides compute the same.
    #[must_use]
    pub fn agreement(&self, accepts: Digest, made: Timestamp) -> Agreement {
        Agreement {
            id: self.agreement,
            producer: self.producer.clone(),
            consumer: self.consumer.clone(),
            stream: self.stream.clone(),
            plan: self.plan.clone(),
            from: self.from.map_or(made, |from| from.max(made)),
            until: self.until,
            made,
            accepts: Some(accepts),
            supersedes: self.supersedes,
        }
    }

    /// The side that did not sign it.
    #[must_use]
    pub fn other(&self) -> &Authority {
        if self.by == self.producer.authority {
            &self.consumer.authority
        } else {
            &self.producer.authority
        }
    }
}
