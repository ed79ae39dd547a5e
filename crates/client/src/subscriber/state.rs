//! What a light client has to keep between two runs, so that it neither misses events nor contradicts its own receipts.

use std::io;

use countersign_crypto::{Entropy, Hash, PublicKey, sha256_of};
use countersign_event::documents::{AgreementId, Digest, SeriesId};
use countersign_event::dsse::Envelope;
use countersign_protocol::SignedHead;
use serde::{Deserialize, Serialize};

/// A position in a log: the next sequence, and the leaf hash of the entry before. A log that was re-created or restored does not have it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cursor {
    /// The next sequence.
    pub next: u64,
    /// Leaf hash of the entry before; zeros at 0.
    pub leaf: Hash,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct CursorJson {
    next: u64,
    leaf: Digest,
}

impl Serialize for Cursor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { next, leaf } = *self;
        let leaf = Digest(leaf);
        CursorJson { next, leaf }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let CursorJson { next, leaf } = CursorJson::deserialize(deserializer)?;
        Ok(Self { next, leaf: leaf.0 })
    }
}

/// What is verified: the position of a tree, and what was delivered since the last receipt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reached {
    /// Tree size.
    pub size: u64,
    /// Its root.
    pub root: Hash,
    /// Leaf hash of its last entry; zeros at 0.
    pub leaf: Hash,
    /// Events since the last receipt.
    pub events: u64,
    /// Their data bytes.
    pub bytes: u64,
}

/// The state of one subscription.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SubscriptionState {
    /// The series of its receipts.
    pub series: SeriesId,
    /// Where the application stands; absent before the first start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
    /// The newest checkpoint that the producer signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<SignedHead>,
    /// The last receipt of the series (DSSE, JSON).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<String>,
    /// The position at the end of that receipt, where reading can go on so that its counts stay right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipted: Option<Cursor>,
}

impl SubscriptionState {
    /// The state before the first start.
    #[must_use]
    pub fn new(series: SeriesId) -> Self {
        Self {
            series,
            cursor: None,
            newest: None,
            receipt: None,
            receipted: None,
        }
    }

    /// As before a first start, but for the newest checkpoint: history is not forgotten by starting elsewhere.
    pub(super) fn begin_series(&mut self, entropy: &mut dyn Entropy) {
        *self = Self {
            newest: self.newest.take(),
            ..Self::new(SeriesId::random(entropy))
        };
    }
}

/// Where the state is kept. Called on a thread that may block; when it returns, the state survives a power loss.
pub trait KeepState: Send + 'static {
    /// Keeps `state` in place of what was kept before.
    ///
    /// # Errors
    /// What the system said; the subscription ends then.
    fn keep(&mut self, state: &SubscriptionState) -> io::Result<()>;

    /// Keeps a newer key statement of the producer, which was verified. Without it an older one counts again in the next run.
    ///
    /// # Errors
    /// What the system said; the subscription ends then.
    fn keep_producer(&mut self, _statement: &Envelope) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps nothing: for readers that need no second run. Their series dies with them.
#[derive(Clone, Copy, Debug)]
pub struct Forget;

impl KeepState for Forget {
    fn keep(&mut self, _state: &SubscriptionState) -> io::Result<()> {
        Ok(())
    }
}

/// The first series of a receiver: a function of agreement and receiver, so that a profile made twice for the same keys goes on.
#[must_use]
pub fn series_id(agreement: AgreementId, node: &PublicKey) -> SeriesId {
    let digest = sha256_of(&[b"countersign.ser1", &agreement.0, node.as_bytes()]);
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    SeriesId(id)
}
