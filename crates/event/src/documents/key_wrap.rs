use serde::{Deserialize, Serialize};

use super::{Digest, Document};
use crate::encryption::WrappedKey;
use crate::names::{Authority, Origin};
use crate::time::Timestamp;

/// A producer gives one organization the key of one epoch of a stream.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KeyWrap {
    /// The log.
    pub stream: Origin,
    /// The epoch: the sequence of the entry that began it.
    pub epoch: u64,
    /// The commitment to the key in that entry.
    pub commitment: Digest,
    /// The producer.
    pub by: Authority,
    /// The organization that can open it.
    pub to: Authority,
    /// The key.
    pub wrapped: WrappedKey,
    /// When it was made.
    #[serde(with = "super::rfc3339")]
    pub made: Timestamp,
}

impl Document for KeyWrap {
    const PAYLOAD_TYPE: &'static str = "application/vnd.countersign.key-wrap.v1+json";
}
