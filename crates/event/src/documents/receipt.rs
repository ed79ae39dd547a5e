use serde::{Deserialize, Serialize};

use super::{AgreementId, Digest, Document, hex_id};
use crate::names::{Authority, Origin};
use crate::time::Timestamp;

hex_id! {
    /// Names a series of receipts: one receiver, one agreement, one stream.
    SeriesId
}

/// How far the consumer stands for what it got. The order is the ladder.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// On the consumer's stable storage.
    Received,
    /// Its commitments, chain, tree and checkpoint have been checked too. Moves the window.
    Verified,
    /// An application has taken it.
    Applied,
}

/// The rejected events of a series: how many, and the digest of the list of their rejection documents.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rejections {
    /// How many.
    pub count: u64,
    /// SHA-256 over the payload digests of the rejections, in order; 32 zero bytes where there are none.
    pub digest: Digest,
}

impl Default for Rejections {
    fn default() -> Self {
        Self {
            count: 0,
            digest: Digest([0; 32]),
        }
    }
}

/// What a consumer signs: everything up to `size` under `root` has reached `level`. Cumulative: the last one says it all.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The agreement under which it was delivered.
    pub agreement: AgreementId,
    /// The log.
    pub stream: Origin,
    /// The organization that signs.
    pub consumer: Authority,
    /// The series.
    pub series: SeriesId,
    /// 1 for the first of the series, then one more each time.
    pub number: u64,
    /// SHA-256 of the payload of the receipt before; absent for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
    /// The first sequence of the series.
    pub start: u64,
    /// Digest of the filter in force; absent where nothing is filtered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Digest>,
    /// Size of the signed checkpoint that this receipt accepts.
    pub size: u64,
    /// Its root.
    pub root: Digest,
    /// Events (no control entries) delivered in this series up to `size`.
    pub events: u64,
    /// Their data bytes.
    pub bytes: u64,
    /// The level reached by everything below `size`.
    pub level: Level,
    /// Everything below this has been applied; at most `size`.
    pub applied: u64,
    /// The events rejected so far.
    #[serde(default)]
    pub rejected: Rejections,
    /// When it was signed, by the consumer's clock.
    #[serde(with = "super::rfc3339")]
    pub made: Timestamp,
}

impl Document for Receipt {
    const PAYLOAD_TYPE: &'static str = "application/vnd.countersign.receipt.v1+json";
}

/// One event that the consumer will not take (schema, application). Never holds the series back.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rejection {
    /// The agreement under which it was delivered.
    pub agreement: AgreementId,
    /// The log.
    pub stream: Origin,
    /// The entry.
    pub sequence: u64,
    /// Its leaf hash.
    pub leaf: Digest,
    /// Why, for people.
    pub reason: String,
    /// When it was signed.
    #[serde(with = "super::rfc3339")]
    pub made: Timestamp,
}

impl Document for Rejection {
    const PAYLOAD_TYPE: &'static str = "application/vnd.countersign.rejection.v1+json";
}
