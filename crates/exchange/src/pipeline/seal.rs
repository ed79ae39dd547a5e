//! Seal: [`Drafts`] → [`SealedBatch`]: bytes, salts and commitments are fixed. No signature: that is the checkpoint's.

use bytes::Bytes;
use countersign_crypto::Entropy;
use countersign_event::commitment::{
    Salts, attribute_commitment, attribute_commitments, commitments,
};
use countersign_event::content::{CONTENT_SALT_BYTES, SealedHead};
use countersign_event::data::DataState;
use countersign_event::entry::{Flags, Kind};
use countersign_protocol::delivery::Lengths;

use super::ingest::{Draft, Drafts};

/// Events with their salts and commitments, content in the form in which it is stored and sent.
#[derive(Clone, Debug)]
pub struct SealedBatch {
    pub(super) kind: Kind,
    pub(super) heads: Vec<SealedHead>,
    pub(super) lengths: Vec<Lengths>,
    pub(super) content: Bytes,
    /// Where each event's content begins.
    starts: Vec<usize>,
}

impl SealedBatch {
    pub(super) fn new(
        kind: Kind,
        heads: Vec<SealedHead>,
        lengths: Vec<Lengths>,
        content: Bytes,
    ) -> Self {
        let mut end = 0;
        let start_of = |lengths: &Lengths| {
            let start = end;
            end += lengths.content_bytes() as usize;
            start
        };
        let starts = lengths.iter().map(start_of).collect();
        Self {
            kind,
            heads,
            lengths,
            content,
            starts,
        }
    }

    /// How many events.
    #[must_use]
    pub fn count(&self) -> usize {
        self.heads.len()
    }

    /// Bytes that a commit of them takes, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.content.len() + 160 * self.heads.len()
    }

    /// Whether its data waits to be encrypted.
    pub(super) fn awaits_encryption(&self) -> bool {
        self.heads.iter().any(|head| head.flags.encrypted)
    }

    /// Attributes and data part of event `index`, without salts.
    pub(super) fn event_bytes(&self, index: usize) -> &[u8] {
        let start = self.offset(index) + CONTENT_SALT_BYTES;
        let lengths = &self.lengths[index];
        let bytes = lengths.attribute_bytes as usize + lengths.data_part_bytes as usize;
        &self.content[start..start + bytes]
    }

    /// The events from `start` on.
    pub(super) fn tail(&self, start: usize) -> Self {
        Self::new(
            self.kind,
            self.heads[start..].to_vec(),
            self.lengths[start..].to_vec(),
            self.content.slice(self.offset(start)..),
        )
    }

    /// The events at these places, in this order.
    pub(super) fn select(&self, indices: &[usize]) -> Self {
        let mut content = Vec::new();
        for &index in indices {
            let start = self.offset(index);
            let end = start + self.lengths[index].content_bytes() as usize;
            content.extend_from_slice(&self.content[start..end]);
        }
        Self::new(
            self.kind,
            indices.iter().map(|&index| self.heads[index]).collect(),
            indices.iter().map(|&index| self.lengths[index]).collect(),
            content.into(),
        )
    }

    fn offset(&self, index: usize) -> usize {
        self.starts
            .get(index)
            .copied()
            .unwrap_or(self.content.len())
    }
}

/// Seals events.
#[must_use]
pub fn seal(drafts: &Drafts, entropy: &mut dyn Entropy) -> SealedBatch {
    seal_as(Kind::Event, false, drafts, entropy)
}

/// Seals events as far as it goes without their place, for an encrypted stream: the data is encrypted and committed to where the sequence is known.
#[must_use]
pub fn seal_to_encrypt(drafts: &Drafts, entropy: &mut dyn Entropy) -> SealedBatch {
    seal_as(Kind::Event, true, drafts, entropy)
}

/// Seals what a log says about itself.
pub(crate) fn seal_control(drafts: &Drafts, entropy: &mut dyn Entropy) -> SealedBatch {
    seal_as(Kind::Control, false, drafts, entropy)
}

fn seal_as(kind: Kind, encrypted: bool, drafts: &Drafts, entropy: &mut dyn Entropy) -> SealedBatch {
    let bulk = drafts.bulk();
    let drafts = drafts.events();
    let mut salts = vec![0; drafts.len() * CONTENT_SALT_BYTES];
    entropy.fill(&mut salts);
    let mut content = Vec::with_capacity(salts.len() + bulk.len());
    let mut heads = Vec::with_capacity(drafts.len());
    let mut lengths = Vec::with_capacity(drafts.len());
    let (pairs, _) = salts.as_chunks::<32>();
    for (draft, pair) in drafts.iter().zip(pairs.chunks_exact(2)) {
        let (attributes, data_part) = (draft.span.attributes(bulk), draft.span.data_part(bulk));
        content.extend_from_slice(&pair[0]);
        content.extend_from_slice(&pair[1]);
        content.extend_from_slice(attributes);
        let at = content.len();
        content.extend_from_slice(data_part);
        if draft.members {
            // Text becomes an object with members: what the commitment is of, the content says.
            content[at] ^= DataState::Text as u8 ^ DataState::Members as u8;
        }
        let data_part = &content[at..];
        let salts = Salts {
            attributes: pair[0],
            data: pair[1],
        };
        let (attributes_committed, data_committed) = if encrypted {
            // Of the data, what is committed to is the ciphertext; of the attributes, see below.
            Default::default()
        } else {
            commitments(&salts, attributes, data_part)
        };
        heads.push(SealedHead {
            attributes: attributes_committed,
            data: data_committed,
            data_bytes: draft.data_bytes,
            flags: Flags {
                encrypted,
                author_signed: draft.author_signed,
            },
        });
        lengths.push(Lengths {
            attribute_bytes: draft.span.attribute_bytes,
            data_part_bytes: draft.span.data_part_bytes,
        });
    }
    if encrypted {
        commit_attributes(&mut heads, drafts, bulk, pairs);
    }
    SealedBatch::new(kind, heads, lengths, content.into())
}

/// Commits to the attributes of two events side by side. Of each pair of salts, the first is theirs.
fn commit_attributes(heads: &mut [SealedHead], drafts: &[Draft], bulk: &[u8], salts: &[[u8; 32]]) {
    let mut each = drafts
        .iter()
        .zip(salts.iter().step_by(2))
        .map(|(draft, salt)| (salt, draft.span.attributes(bulk)));
    for heads in heads.chunks_mut(2) {
        match (heads, each.next(), each.next()) {
            ([one, other], Some(first), Some(second)) => {
                (one.attributes, other.attributes) = attribute_commitments(first, second);
            }
            ([one, ..], Some((salt, attributes)), _) => {
                one.attributes = attribute_commitment(salt, attributes);
            }
            _ => {}
        }
    }
}
