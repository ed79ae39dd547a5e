use serde::{Deserialize, Serialize};

use super::{AgreementId, Digest, Document};
use crate::names::{Authority, Origin};
use crate::time::Timestamp;

/// What a step does.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StepKind {
    /// Ends an agreement whose purpose is fulfilled.
    Complete,
    /// Says no to the other side's proposal.
    Refuse,
    /// Lifts a suspension of one's own.
    Resume,
    /// Stops deliveries under an agreement until it is resumed.
    Suspend,
    /// Takes a proposal of one's own back.
    Withdraw,
}

/// Why deliveries are stopped.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SuspensionCause {
    /// Something is owed.
    Arrears,
    /// The sides disagree.
    Dispute,
    /// A key of one side was revoked.
    KeyRevoked,
    /// What was agreed is used up.
    Quota,
}

impl SuspensionCause {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Arrears, Self::Dispute, Self::KeyRevoked, Self::Quota];

    /// The word, as in documents and on the command line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Arrears => "arrears",
            Self::Dispute => "dispute",
            Self::KeyRevoked => "key-revoked",
            Self::Quota => "quota",
        }
    }
}

impl std::str::FromStr for SuspensionCause {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut all = Self::ALL.into_iter();
        all.find(|cause| cause.word() == text).ok_or(())
    }
}

/// A step in the life of an agreement other than proposing, signing and terminating it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Which agreement.
    pub agreement: AgreementId,
    /// Its stream.
    pub stream: Origin,
    /// What is done.
    pub step: StepKind,
    /// SHA-256 of the payload that it acts on: a proposal (refuse, withdraw), the agreement (suspend, complete) or a suspension (resume).
    pub on: Digest,
    /// Which side does it.
    pub by: Authority,
    /// Why deliveries stop; in a suspension, and nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<SuspensionCause>,
    /// Why, for people.
    pub reason: String,
    /// The first sequence that is not delivered any more, where the producer suspends or completes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// When it was signed.
    #[serde(with = "super::rfc3339")]
    pub made: Timestamp,
}

impl Document for Step {
    const PAYLOAD_TYPE: &'static str = "application/vnd.countersign.step.v1+json";
}
