use serde::{Deserialize, Serialize};

use super::{AgreementId, Digest, Document, hex_id};
use crate::names::{Authority, Origin};
use crate::time::Timestamp;

hex_id! {
    /// Names an erasure request.
    ErasureId
}

/// Asks a consumer to erase its copy of one event.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ErasureRequest {
    /// Its name, drawn by the producer.
    pub id: ErasureId,
    /// The agreement under which the event was delivered.
    pub agreement: AgreementId,
    /// The log.
    pub stream: Origin,
    /// The erased entry.
    pub sequence: u64,
    /// The control entry that says so.
    pub tombstone: u64,
    /// The producer.
    pub by: Authority,
    /// Why, for people.
    pub reason: String,
    /// When it was signed.
    #[serde(with = "super::rfc3339")]
    pub made: Timestamp,
}

impl Document for ErasureRequest {
    const PAYLOAD_TYPE: &'static str = "application/vnd.countersign.erasure-request.v1+json";
}

/// What became of an erasure request.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The content is gone.
    Done,
    /// A legal hold keeps it for now.
    Held,
    /// A person decided against it.
    Refused,
}

impl Outcome {
    /// The word in documents.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Held => "held",
            Self::Refused => "refused",
        }
    }
}

/// The consumer's answer to a request. Of several, the one made last counts.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ErasureAnswer {
    /// The request.
    pub request: ErasureId,
    /// SHA-256 of the request's payload.
    pub digest: Digest,
    /// The log.
    pub stream: Origin,
    /// The entry.
    pub sequence: u64,
    /// The consumer.
    pub by: Authority,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, for people.
    pub reason: String,
    /// When it was signed.
    #[serde(with = "super::rfc3339")]
    pub made: Timestamp,
}

impl Document for ErasureAnswer {
    const PAYLOAD_TYPE: &'static str = "application/vnd.countersign.erasure-answer.v1+json";
}
