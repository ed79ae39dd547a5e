use serde::{Deserialize, Serialize};

use super::Document;
use crate::names::Authority;
use crate::time::Timestamp;

/// Why a door stayed closed: stable words, listed in `docs/errors.md`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalCode {
    /// An event is not what its author signed, or not signed as the stream wants it.
    AuthorSignature,
    /// Too much at once; try again later.
    Busy,
    /// The log here does not continue the cursor that was shown.
    CursorMismatch,
    /// The invitation is over.
    InvitationExpired,
    /// Another key has used the invitation, or it was made for another key.
    InvitationUsed,
    /// The request breaks a rule of the protocol.
    Malformed,
    /// The agreement has ended or does not cover the stream now.
    NoAgreement,
    /// There is no such thing, or nothing that may be seen.
    NotFound,
    /// No policy permits it.
    NotPermitted,
    /// A person has to confirm first.
    Pending,
    /// The agreement is suspended: nothing is delivered until it is resumed.
    Suspended,
    /// The identity shown is not the one known, or is not delegated.
    WrongIdentity,
}

/// A signed no: what was asked, why not, and what would help.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// What was asked, in one word (`subscribe`, `publish`, `join`).
    pub asked: String,
    /// Who asked, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<Authority>,
    /// The name that was asked for, as it was asked, at most 512 characters.
    pub about: String,
    /// The stable code.
    pub code: RefusalCode,
    /// Why, for people.
    pub reason: String,
    /// The policies that decided; empty where none permitted it.
    #[serde(default)]
    pub policies: Vec<String>,
    /// What would help, for people.
    #[serde(default)]
    pub advice: Vec<String>,
    /// The first sequence that is not delivered any more, where a running subscription ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// When it was signed.
    #[serde(with = "super::rfc3339")]
    pub made: Timestamp,
}

impl Document for Refusal {
    const PAYLOAD_TYPE: &'static str = "application/vnd.countersign.refusal.v1+json";
}
