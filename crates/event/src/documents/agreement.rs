use countersign_crypto::PublicKey;
use serde::{Deserialize, Serialize};

use super::{Document, hex_id};
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

/// What happens to copies when the producer erases an event.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Erasure {
    /// A person decides.
    Ask,
    /// The consumer's node erases too.
    Obey,
}

/// What is not yes or no: how much, how, how fast.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// How many events the producer may be ahead of the last *verified* receipt, counted by position; at least 1.
    pub exposure_events: u64,
    /// What the consumer does when an event is erased.
    pub erasure: Erasure,
}

impl Default for Plan {
    /// 65,536 events of exposure: at 500,000 events a second a receipt each 65 ms, so that the window does not stop a fast
    /// reader, and about 16 MB of small events at risk.
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            exposure_events: 65_536,
            erasure: Erasure::Obey,
        }
    }
}

/// Binds two organizations, a stream, a plan and a period; one payload under both sides' signatures.
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
    /// When it was proposed.
    #[serde(with = "super::rfc3339")]
    pub made: Timestamp,
}

impl Document for Agreement {
    const PAYLOAD_TYPE: &'static str = "application/vnd.countersign.agreement.v1+json";
}

impl Agreement {
    /// Whether `time` lies in the agreed period.
    #[must_use]
    pub fn covers_time(&self, time: Timestamp) -> bool {
        self.from <= time && self.until.is_none_or(|until| time < until)
    }
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
