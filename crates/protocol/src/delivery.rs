//! The delivery batch, and the reader that believes nothing of it before the tree says so.
//!
//! ```text
//! BatchMessage ‖ descriptors (tag, kind and flags, Δtime, lengths) ‖ contents (salts, attributes, data part)
//! ```
//!
//! What the receiver can rebuild does not travel: [`LogReader::take`] computes the commitments from the content, rebuilds every
//! 118-byte entry, its leaf hash and the tree, and accepts the batch only if the tree is one that the log's key has signed. One altered, missing,
//! reordered or replayed bit anywhere gives another root.

mod claims;
mod skipped;

pub use claims::{CLAIMS_MAX, Claim};
pub use skipped::check_skip_claim;

use std::sync::Arc;

use bytes::Bytes;
use countersign_crypto::Hash;
use countersign_event::content::{
    ContentError, EventRef, SealedHead, check_stated_bytes, open_content, open_sealed_content,
    split_content,
};
use countersign_event::control::{Allows, AuthorRule};
use countersign_event::data::DataState;
use countersign_event::documents::LogKeys;
use countersign_event::entry::{ENTRY_BYTES, Flags, Kind};
use countersign_event::time::Timestamp;
use countersign_filter::Filter;
use countersign_tlog::{
    Checkpoint, CompactRange, ProofError, leaf_hash, verify_consistency, verify_inclusion,
};
use serde::{Deserialize, Serialize};

use self::claims::Claims;
use crate::{Message, SignedHead, SubscribeReady, varint};

/// Most entries of one batch. With descriptors of at least 5 bytes this bounds what a hostile count can make a reader allocate to
/// 12 MiB of rebuilt entries and leaf hashes.
pub const BATCH_ENTRIES_MAX: u32 = 65_536;

const TAG_WHOLE: u8 = 0;
const TAG_ERASED: u8 = 1;
const TAG_VIEW: u8 = 2;
const TAG_SKIPPED: u8 = 3;
const SALT_BYTES: u64 = 64;
/// Of the entry's byte of kind and flags.
const AUTHOR_SIGNED_BIT: u8 = 0x20;
const DESCRIPTOR_BYTES_MIN: usize = 5;

/// Entries [first, first + count) with their content, and what proves them.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct BatchMessage {
    /// Sequence of the first entry.
    pub first: u64,
    /// How many entries.
    pub count: u32,
    /// How many bytes of the bulk are descriptors; the contents follow.
    pub descriptor_bytes: u32,
    /// What proves the tree of size first + count.
    pub cover: Cover,
}

impl Message for BatchMessage {
    const KIND: u8 = 22;
}

/// What proves a batch. A tagged choice, so that another kind can be added; the variants' order is the wire format.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Cover {
    /// A signed checkpoint of the batch's end or of a larger size.
    Checkpoint {
        /// The checkpoint.
        head: SignedHead,
        /// Consistency proof from the batch's end to it; empty where they are equal.
        consistency: Vec<Hash>,
    },
}

/// One entry's place in the content: length of its attributes and of its data part.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lengths {
    /// Bytes of the attributes.
    pub attribute_bytes: u32,
    /// Bytes of the data part.
    pub data_part_bytes: u32,
}

impl Lengths {
    /// An entry without content.
    pub const ABSENT: Self = Self {
        attribute_bytes: u32::MAX,
        data_part_bytes: u32::MAX,
    };

    /// An entry whose content was left out, because it does not pass the filter.
    pub const SKIPPED: Self = Self {
        attribute_bytes: u32::MAX,
        data_part_bytes: u32::MAX - 1,
    };

    /// Whether there is none, for either reason.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.attribute_bytes == u32::MAX
    }

    /// Whether it was left out by a filter.
    #[must_use]
    pub fn is_skipped(&self) -> bool {
        *self == Self::SKIPPED
    }

    /// Bytes of the whole content, salts included; 0 where there is none.
    #[must_use]
    pub fn content_bytes(&self) -> u64 {
        if self.is_absent() {
            return 0;
        }
        SALT_BYTES + u64::from(self.attribute_bytes) + u64::from(self.data_part_bytes)
    }
}

/// Writes the descriptors of encoded entries (118 bytes each), beside their lengths. None of them is erased.
#[must_use]
pub fn write_descriptors(entries: &[u8], lengths: &[Lengths]) -> Vec<u8> {
    write_descriptors_with(entries, lengths, |sequence| sequence)
}

/// As [`write_descriptors`], for entries of which some are [`Lengths::SKIPPED`] or [`Lengths::ABSENT`]: of the latter `erased_by` gives the control entry
/// that allows it.
#[must_use]
pub fn write_descriptors_with(
    entries: &[u8],
    lengths: &[Lengths],
    erased_by: impl Fn(u64) -> u64,
) -> Vec<u8> {
    write_descriptors_of(entries, lengths, erased_by, |_| false)
}

/// As [`write_descriptors_with`], for entries of which some withhold members: `is_view` says so of the place in the batch.
#[must_use]
pub fn write_descriptors_of(
    entries: &[u8],
    lengths: &[Lengths],
    erased_by: impl Fn(u64) -> u64,
    is_view: impl Fn(usize) -> bool,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(lengths.len() * 10);
    let mut time_before = 0;
    let (chunks, _) = entries.as_chunks::<ENTRY_BYTES>();
    for (at, (entry, lengths)) in chunks.iter().zip(lengths).enumerate() {
        let time = read_u64(entry, 46);
        let data_bytes = u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]);
        let since = time.wrapping_sub(time_before);
        time_before = time;
        if lengths.is_absent() {
            let by = (!lengths.is_skipped()).then(|| erased_by(read_u64(entry, 6)));
            write_absent(&mut out, entry, since, by);
            continue;
        }
        let is_view = is_view(at);
        out.push(if is_view { TAG_VIEW } else { TAG_WHOLE });
        out.push(entry[1]);
        varint::write(&mut out, since);
        varint::write(&mut out, u64::from(lengths.attribute_bytes));
        varint::write(&mut out, u64::from(lengths.data_part_bytes));
        if is_view || entry[1] & 0xf0 != 0 {
            varint::write(&mut out, u64::from(data_bytes));
        }
    }
    out
}

/// Apart from what is done for each entry: most are whole.
#[cold]
fn write_absent(out: &mut Vec<u8>, entry: &[u8; ENTRY_BYTES], since: u64, by: Option<u64>) {
    out.push(if by.is_some() {
        TAG_ERASED
    } else {
        TAG_SKIPPED
    });
    out.push(entry[1]);
    varint::write(out, since);
    let data_bytes = u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]);
    varint::write(out, u64::from(data_bytes));
    if let Some(by) = by {
        varint::write(out, by.saturating_sub(read_u64(entry, 6)));
    }
    out.extend_from_slice(&entry[54..]);
}

fn read_u64(entry: &[u8; ENTRY_BYTES], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&entry[at..at + 8]);
    u64::from_be_bytes(bytes)
}

/// Why a batch or head is not accepted. Each is the producer's fault (or that of whoever holds its key): the session ends and the bytes are kept.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BatchFault {
    /// The batch does not begin where the reader stands: something is missing, repeated or out of order.
    #[error("the batch begins at sequence {found}, the next one is {expected}")]
    Position {
        /// The next sequence.
        expected: u64,
        /// Where the batch begins.
        found: u64,
    },
    /// Its form is wrong.
    #[error("the batch at sequence {first} is malformed: {what}")]
    Form {
        /// Its first sequence.
        first: u64,
        /// Which part.
        what: &'static str,
    },
    /// An event in it breaks a rule of the format.
    #[error("the entry at sequence {sequence} is not valid: {error}")]
    Content {
        /// Which entry.
        sequence: u64,
        /// What is wrong with it.
        error: ContentError,
    },
    /// An entry came without content, and the control entry that it names does not allow that.
    #[error(
        "the entry at sequence {sequence} came without content, and the entry at {by}, which is said to allow it, does not"
    )]
    FalseClaim {
        /// The first entry claimed.
        sequence: u64,
        /// The control entry named.
        by: u64,
    },
    /// What the producer says of the entries that it left out is not signed by it, or not about them.
    #[error("entries from sequence {first} on were left out, and {what}")]
    SkipClaim {
        /// First entry of the batch.
        first: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// An event came that the filter does not let through.
    #[error("the event at sequence {sequence} does not pass the filter that was asked for")]
    Unwanted {
        /// Which entry.
        sequence: u64,
    },
    /// More entries without content than a reader keeps in mind.
    #[error(
        "more than {CLAIMS_MAX} runs of entries came without content and without what allows it"
    )]
    Claims,
    /// A key that came with it is not good.
    #[error("a key that was sent for the stream is not accepted: {what}")]
    Key {
        /// Why not.
        what: &'static str,
    },
    /// Members of an event's data are withheld, and nothing that was agreed allows it.
    #[error(
        "the entry at sequence {sequence} came with members of its data withheld, which the agreement does not say"
    )]
    Withheld {
        /// Which entry.
        sequence: u64,
    },
    /// The log's time goes backwards.
    #[error("the entry at sequence {sequence} is older than the one before it")]
    Time {
        /// Which entry.
        sequence: u64,
    },
    /// The checkpoint is signed by a key that its organization has revoked, and is not the head that the revocation names.
    #[error(
        "the checkpoint of size {size} is signed by a log key that its organization has revoked, and lies beyond the head that the revocation names"
    )]
    Revoked {
        /// Its size.
        size: u64,
    },
    /// The checkpoint's signature is wrong.
    #[error("the checkpoint of size {size} is not signed by the log's key")]
    Signature {
        /// Its size.
        size: u64,
    },
    /// The entries do not make the tree that was signed.
    #[error(
        "the entries up to sequence {end} do not make the tree that the log's key signed at size {size}: {error}"
    )]
    Tree {
        /// End of the batch.
        end: u64,
        /// Size of the checkpoint.
        size: u64,
        /// What the proof lacks.
        error: ProofError,
    },
    /// Two checkpoints of the log's key contradict each other: a fork.
    #[error("the log's key signed two histories: at size {size} another root was signed before")]
    Contradiction {
        /// The size at which they differ.
        size: u64,
    },
    /// A checkpoint smaller than one that was shown before.
    #[error("the log shows size {found} after it had signed size {seen}")]
    Shrunk {
        /// Size seen before.
        seen: u64,
        /// Size shown now.
        found: u64,
    },
}

/// A batch whose every byte is under a checkpoint that the log's key signed. Only [`LogReader::take`] makes one.
#[derive(Clone, Debug)]
pub struct VerifiedBatch {
    first: u64,
    entries: Vec<u8>,
    leaf_hashes: Vec<Hash>,
    lengths: Vec<Lengths>,
    content: Bytes,
    range: CompactRange,
    cover: Cover,
    events: u64,
    data_bytes: u64,
    claims: Vec<Claim>,
    allows: Vec<(u64, Allows)>,
    rules: Vec<(u64, AuthorRule)>,
    skipped: Vec<(u64, u64)>,
}

impl VerifiedBatch {
    /// Sequence of the first entry.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Sequence after the last entry.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.first + self.lengths.len() as u64
    }

    /// The rebuilt entries, 118 bytes each.
    #[must_use]
    pub fn entries(&self) -> &[u8] {
        &self.entries
    }

    /// Their leaf hashes.
    #[must_use]
    pub fn leaf_hashes(&self) -> &[Hash] {
        &self.leaf_hashes
    }

    /// Where their contents lie.
    #[must_use]
    pub fn lengths(&self) -> &[Lengths] {
        &self.lengths
    }

    /// Their contents, one after the other.
    #[must_use]
    pub fn content(&self) -> &Bytes {
        &self.content
    }

    /// Compact range of the tree that ends with this batch.
    #[must_use]
    pub fn range(&self) -> &CompactRange {
        &self.range
    }

    /// What proved it.
    #[must_use]
    pub fn cover(&self) -> &Cover {
        &self.cover
    }

    /// Which of them were left out because they do not pass the filter: runs of first sequence and sequence after the last, in order. That they do not
    /// is the producer's claim ([`check_skip_claim`]).
    #[must_use]
    pub fn skipped(&self) -> &[(u64, u64)] {
        &self.skipped
    }

    /// Events in it (control entries do not count). Under a filter those that came with their content.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Data bytes of those events.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Which of them came without content, in order. The claims are the producer's until the entries that they name are read.
    #[must_use]
    pub fn claims(&self) -> &[Claim] {
        &self.claims
    }

    /// The tombstones and expiries in it, by their sequence.
    #[must_use]
    pub fn allows(&self) -> &[(u64, Allows)] {
        &self.allows
    }

    /// The rules of authors that genesis and settings entries in it set, by their sequence.
    #[must_use]
    pub fn author_rules(&self) -> &[(u64, AuthorRule)] {
        &self.rules
    }

    /// Whether an entry in it says that an author signed.
    #[must_use]
    pub fn is_author_signed(&self) -> bool {
        let (entries, _) = self.entries.as_chunks::<ENTRY_BYTES>();
        entries
            .iter()
            .any(|entry| entry[1] & AUTHOR_SIGNED_BIT != 0)
    }
}

/// A verifying reader of one log: knows the tree up to where it stands, and what it must be.
#[derive(Clone, Debug)]
pub struct LogReader {
    origin: String,
    keys: LogKeys,
    range: CompactRange,
    last_leaf: Hash,
    last_time: u64,
    /// The largest checkpoint whose signature was verified.
    signed: Option<Checkpoint>,
    /// The signature that was verified last, over `signed`; none where that was verified before this reader began.
    signature: Option<Vec<u8>>,
    /// What entries without content wait for.
    claims: Claims,
    /// Whether members of data may be withheld.
    takes_views: bool,
    /// What every event that comes with its content has to pass; without one no entry is left out.
    filter: Option<Arc<Filter>>,
    /// Checkpoints that were signed ahead of the entries, by size: held against the entries when these reach them.
    awaited: Vec<Checkpoint>,
}

/// Checkpoints ahead of the entries that are remembered. A producer shows one with each batch or pause; beyond this the newest of them stay
/// unremembered but for the very last, which costs nothing but the chance to catch a fork by that one.
const AWAITED_MAX: usize = 256;

impl LogReader {
    /// A reader of the whole log, from its first entry.
    #[must_use]
    pub fn from_start(origin: &str, keys: impl Into<LogKeys>) -> Self {
        Self::resume(origin, keys, CompactRange::new(), [0; 32], 0, None)
    }

    /// Heads are judged by other keys from now on: the log's organization has rotated or revoked one, or one has ended.
    pub fn judge_by(&mut self, keys: LogKeys) {
        if self.keys != keys {
            self.keys = keys;
            // What was verified under the keys before is verified again when it is shown again.
            self.signature = None;
        }
    }

    /// The keys that heads are judged by.
    #[must_use]
    pub fn keys(&self) -> &LogKeys {
        &self.keys
    }

    /// A reader that goes on where a copy ends, whose tree it trusts because it verified it before. `newest` is the largest checkpoint
    /// of the log that was ever stored here.
    #[must_use]
    pub fn resume(
        origin: &str,
        keys: impl Into<LogKeys>,
        range: CompactRange,
        last_leaf: Hash,
        last_time: u64,
        newest: Option<Checkpoint>,
    ) -> Self {
        Self {
            origin: origin.to_owned(),
            keys: keys.into(),
            range,
            last_leaf,
            last_time,
            awaited: newest.iter().cloned().collect(),
            signed: newest,
            signature: None,
            claims: Claims::default(),
            takes_views: false,
            filter: None,
        }
    }

    /// The reader, which takes events with members withheld, or does not.
    #[must_use]
    pub fn taking_views(mut self, takes_views: bool) -> Self {
        self.takes_views = takes_views;
        self
    }

    /// The reader under a filter: events that do not pass it may be left out, and none of them may come.
    #[must_use]
    pub fn with_filter(mut self, filter: Option<Arc<Filter>>) -> Self {
        self.filter = filter;
        self
    }

    /// The reader with claims that it kept before it was resumed. Those whose control entry lies behind it were judged.
    #[must_use]
    pub fn with_claims(mut self, claims: impl IntoIterator<Item = Claim>) -> Self {
        for claim in claims {
            if claim.by >= self.next() {
                self.claims.add(claim);
            }
        }
        self
    }

    /// A reader that starts where the producer says, once that start has been proven to lie in the signed log, and that log to be a
    /// continuation of `newest`, the largest checkpoint ever stored here.
    ///
    /// # Errors
    /// [`BatchFault`].
    pub fn from_ready(
        origin: &str,
        keys: impl Into<LogKeys>,
        ready: &SubscribeReady,
        newest: Option<&Checkpoint>,
    ) -> Result<Self, BatchFault> {
        let form = |what| BatchFault::Form {
            first: ready.start,
            what,
        };
        let range = CompactRange::from_hashes(ready.start, ready.range.clone())
            .map_err(|_| form("the compact range does not fit the start"))?;
        let root = range.root();
        let tree = |size| {
            move |error| BatchFault::Tree {
                end: ready.start,
                size,
                error,
            }
        };
        if ready.start > 0 {
            let index = ready.start - 1;
            let proof = &ready.last_leaf_proof;
            verify_inclusion(&ready.last_leaf, index, ready.start, proof, &root)
                .map_err(tree(ready.start))?;
        } else if ready.last_leaf != [0; 32] || !ready.last_leaf_proof.is_empty() {
            return Err(form("an empty log has no last leaf"));
        }
        let mut reader = Self::resume(origin, keys, range, ready.last_leaf, ready.last_time, None);
        let head = reader.verify_head(&ready.head)?;
        if head.size < ready.start {
            return Err(form("the start lies beyond the signed head"));
        }
        verify_consistency(
            ready.start,
            &root,
            head.size,
            &head.root,
            &ready.consistency,
        )
        .map_err(tree(head.size))?;
        if let Some(newest) = newest {
            if head.size < newest.size {
                return Err(BatchFault::Shrunk {
                    seen: newest.size,
                    found: head.size,
                });
            }
            verify_consistency(
                newest.size,
                &newest.root,
                head.size,
                &head.root,
                &ready.from_newest,
            )
            .map_err(|_| BatchFault::Contradiction { size: newest.size })?;
        }
        reader.remember(head, &ready.head);
        Ok(reader)
    }

    /// The next sequence.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.range.size()
    }

    /// Leaf hash of the entry before the next one; zeros at 0.
    #[must_use]
    pub fn last_leaf(&self) -> Hash {
        self.last_leaf
    }

    /// Root of the tree up to here.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.range.root()
    }

    /// The largest checkpoint whose signature was verified.
    #[must_use]
    pub fn signed(&self) -> Option<&Checkpoint> {
        self.signed.as_ref()
    }

    /// Takes note of a newer head without entries.
    ///
    /// # Errors
    /// [`BatchFault`] where its signature is wrong or it contradicts what is known.
    pub fn note_head(&mut self, head: &SignedHead) -> Result<(), BatchFault> {
        let signed = head;
        let head = self.verify_head(signed)?;
        if head.size < self.range.size() {
            return Err(BatchFault::Shrunk {
                seen: self.range.size(),
                found: head.size,
            });
        }
        if head.size == self.range.size() && head.root != self.range.root() {
            return Err(BatchFault::Contradiction { size: head.size });
        }
        self.remember(head, signed);
        Ok(())
    }

    /// Verifies a batch and moves on behind it. On an error the reader stays where it was.
    ///
    /// # Errors
    /// [`BatchFault`].
    pub fn take(
        &mut self,
        message: BatchMessage,
        bulk: Bytes,
    ) -> Result<VerifiedBatch, BatchFault> {
        let first = message.first;
        let form = |what| BatchFault::Form { first, what };
        if first != self.range.size() {
            return Err(BatchFault::Position {
                expected: self.range.size(),
                found: first,
            });
        }
        let count = message.count as usize;
        let descriptor_bytes = message.descriptor_bytes as usize;
        if message.count == 0 || message.count > BATCH_ENTRIES_MAX || descriptor_bytes > bulk.len()
        {
            return Err(form("its counts"));
        }
        if descriptor_bytes / DESCRIPTOR_BYTES_MIN < count {
            return Err(form("more entries than descriptors"));
        }
        let content = bulk.slice(descriptor_bytes..);
        let mut rebuild = Rebuild {
            entries: Vec::with_capacity(count * ENTRY_BYTES),
            leaf_hashes: Vec::with_capacity(count),
            lengths: Vec::with_capacity(count),
            range: self.range.clone(),
            last_leaf: self.last_leaf,
            time: self.last_time,
            awaited: &self.awaited,
            events: 0,
            data_bytes: 0,
            takes_views: self.takes_views,
            before: &self.claims,
            added: Claims::default(),
            claims: Vec::new(),
            allows: Vec::new(),
            rules: Vec::new(),
            filter: self.filter.as_deref(),
            skipped: Vec::new(),
        };
        rebuild.all(first, count, &bulk[..descriptor_bytes], &content)?;
        let Cover::Checkpoint { head, consistency } = &message.cover;
        let head = self.verify_head(head)?;
        let end = rebuild.range.size();
        verify_consistency(
            end,
            &rebuild.range.root(),
            head.size,
            &head.root,
            consistency,
        )
        .map_err(|error| BatchFault::Tree {
            end,
            size: head.size,
            error,
        })?;
        let Rebuild {
            entries,
            leaf_hashes,
            lengths,
            range,
            last_leaf,
            time,
            events,
            data_bytes,
            claims,
            allows,
            rules,
            skipped,
            ..
        } = rebuild;
        for claim in claims.iter().filter(|claim| claim.by >= end) {
            self.claims.add(*claim);
        }
        self.claims.forget_below(end);
        self.range = range.clone();
        self.last_leaf = last_leaf;
        self.last_time = time;
        self.awaited.retain(|awaited| awaited.size > end);
        let Cover::Checkpoint { head: signed, .. } = &message.cover;
        self.remember(head, signed);
        Ok(VerifiedBatch {
            first,
            entries,
            leaf_hashes,
            lengths,
            content,
            range,
            cover: message.cover,
            events,
            data_bytes,
            claims,
            allows,
            rules,
            skipped,
        })
    }

    fn remember(&mut self, head: Checkpoint, signed: &SignedHead) {
        let news = self.awaited.last().is_none_or(|last| last.size < head.size);
        if news && head.size > self.range.size() && self.awaited.len() < AWAITED_MAX {
            self.awaited.push(head.clone());
        }
        self.signed = Some(head);
        self.signature = Some(signed.signature.clone());
    }

    /// Verifies the signature, unless it is the one verified last, and that the log did not shrink or fork. What is accepted is stored and
    /// shown to auditors, so that a known checkpoint under other signature bytes is verified like a new one.
    fn verify_head(&self, head: &SignedHead) -> Result<Checkpoint, BatchFault> {
        let checkpoint = head.checkpoint(&self.origin);
        if let Some(signed) = &self.signed {
            if *signed == checkpoint && self.signature.as_ref() == Some(&head.signature) {
                return Ok(checkpoint);
            }
            if checkpoint.size < signed.size {
                return Err(BatchFault::Shrunk {
                    seen: signed.size,
                    found: checkpoint.size,
                });
            }
        }
        let counting = self.keys.counting(head.size, &head.root);
        if head.signed_by(&checkpoint, counting).is_none() {
            let size = head.size;
            let revoked = head.signed_by(&checkpoint, self.keys.revoked());
            return Err(match revoked {
                Some(_) => BatchFault::Revoked { size },
                None => BatchFault::Signature { size },
            });
        }
        if let Some(signed) = &self.signed
            && signed.size == checkpoint.size
            && *signed != checkpoint
        {
            // Both are signed, and they differ.
            return Err(BatchFault::Contradiction { size: signed.size });
        }
        Ok(checkpoint)
    }
}

/// Entries, leaf hashes and tree as they come out of the contents.
struct Rebuild<'a> {
    entries: Vec<u8>,
    leaf_hashes: Vec<Hash>,
    lengths: Vec<Lengths>,
    range: CompactRange,
    last_leaf: Hash,
    time: u64,
    awaited: &'a [Checkpoint],
    events: u64,
    data_bytes: u64,
    takes_views: bool,
    /// Claims of earlier batches.
    before: &'a Claims,
    /// Claims of this batch.
    added: Claims,
    claims: Vec<Claim>,
    allows: Vec<(u64, Allows)>,
    rules: Vec<(u64, AuthorRule)>,
    filter: Option<&'a Filter>,
    skipped: Vec<(u64, u64)>,
}

impl Rebuild<'_> {
    fn all(
        &mut self,
        first: u64,
        count: usize,
        mut descriptors: &[u8],
        content: &[u8],
    ) -> Result<(), BatchFault> {
        let mut rest = content;
        let mut time_before = 0;
        for index in 0..count {
            let sequence = first + index as u64;
            let descriptor =
                Descriptor::read(&mut descriptors, &mut time_before).ok_or(BatchFault::Form {
                    first,
                    what: "a descriptor",
                })?;
            let (here, after) = usize::try_from(descriptor.lengths.content_bytes())
                .ok()
                .and_then(|bytes| rest.split_at_checked(bytes))
                .ok_or(BatchFault::Form {
                    first,
                    what: "its content breaks off",
                })?;
            rest = after;
            self.one(sequence, &descriptor, here)?;
        }
        if descriptors.is_empty() && rest.is_empty() {
            Ok(())
        } else {
            Err(BatchFault::Form {
                first,
                what: "bytes after its last entry",
            })
        }
    }

    fn one(
        &mut self,
        sequence: u64,
        descriptor: &Descriptor<'_>,
        content: &[u8],
    ) -> Result<(), BatchFault> {
        let fault = |error| BatchFault::Content { sequence, error };
        if descriptor.time < self.time {
            return Err(BatchFault::Time { sequence });
        }
        let time = Timestamp(descriptor.time);
        let bytes = if descriptor.absent.is_some() {
            self.claimed(sequence, descriptor)?
        } else if descriptor.flags.encrypted {
            self.encrypted(sequence, descriptor, content)?
        } else {
            let attribute_bytes = descriptor.lengths.attribute_bytes as usize;
            let (event, mut sealed) = open_content(content, attribute_bytes).map_err(fault)?;
            check_stated(descriptor, &event).map_err(fault)?;
            if descriptor.view || event.data().state == DataState::View {
                sealed.data_bytes = self.view(sequence, descriptor, &event)?;
            }
            if descriptor.kind == Kind::Control {
                self.note_control(sequence, &event)?;
            } else {
                self.check_wanted(sequence, event.attribute_bytes())?;
            }
            sealed
                .entry(descriptor.kind, sequence, self.last_leaf, time)
                .encode()
        };
        let leaf = leaf_hash(&bytes);
        self.range.append(leaf);
        while let Some((awaited, later)) = self.awaited.split_first() {
            if awaited.size > self.range.size() {
                break;
            }
            if awaited.size == self.range.size() && awaited.root != self.range.root() {
                return Err(BatchFault::Contradiction { size: awaited.size });
            }
            self.awaited = later;
        }
        self.entries.extend_from_slice(&bytes);
        self.leaf_hashes.push(leaf);
        self.lengths.push(descriptor.lengths);
        self.last_leaf = leaf;
        self.time = descriptor.time;
        if descriptor.kind == Kind::Event && (self.filter.is_none() || descriptor.absent.is_none())
        {
            self.events += 1;
            let data_bytes = [bytes[2], bytes[3], bytes[4], bytes[5]];
            self.data_bytes += u64::from(u32::from_be_bytes(data_bytes));
        }
        Ok(())
    }
}

impl Rebuild<'_> {
    /// An event with members withheld: the bytes of its data, as they are stated.
    #[cold]
    #[inline(never)]
    fn view(
        &self,
        sequence: u64,
        descriptor: &Descriptor<'_>,
        event: &EventRef<'_>,
    ) -> Result<u32, BatchFault> {
        let form = |what| BatchFault::Form {
            first: sequence,
            what,
        };
        if !descriptor.view || event.data().state != DataState::View {
            return Err(form(
                "members are withheld, and its descriptor says otherwise",
            ));
        }
        if descriptor.kind == Kind::Control {
            return Err(form("a control entry with members withheld"));
        }
        if !self.takes_views {
            return Err(BatchFault::Withheld { sequence });
        }
        descriptor.stated_bytes(sequence)
    }

    /// An event that came with its content: that the filter lets it through, and that nothing was claimed of it which only a control entry can be.
    #[inline]
    fn check_wanted(&self, sequence: u64, attributes: &[u8]) -> Result<(), BatchFault> {
        if let Some(filter) = self.filter
            && !filter.matches(attributes)
        {
            return Err(BatchFault::Unwanted { sequence });
        }
        if self.before.is_empty() && self.added.is_empty() {
            return Ok(());
        }
        self.judge_claims(sequence, None)
    }

    fn judge_claims(&self, sequence: u64, says: Option<&Allows>) -> Result<(), BatchFault> {
        self.before.judge(sequence, says)?;
        self.added.judge(sequence, says)
    }

    /// Apart from what is done for each event: control entries are few.
    #[cold]
    #[inline(never)]
    fn note_control(&mut self, sequence: u64, event: &EventRef<'_>) -> Result<(), BatchFault> {
        let says = Allows::read(event);
        self.judge_claims(sequence, says.as_ref())?;
        self.allows.extend(says.map(|says| (sequence, says)));
        self.rules
            .extend(AuthorRule::read(event).map(|rule| (sequence, rule)));
        Ok(())
    }

    /// The same of entries whose data is encrypted.
    fn encrypted(
        &mut self,
        sequence: u64,
        descriptor: &Descriptor<'_>,
        content: &[u8],
    ) -> Result<[u8; ENTRY_BYTES], BatchFault> {
        let form = |what| BatchFault::Form {
            first: sequence,
            what,
        };
        if descriptor.kind == Kind::Control {
            return Err(form("an encrypted control entry"));
        }
        let attribute_bytes = descriptor.lengths.attribute_bytes as usize;
        let (sealed, head) = open_sealed_content(content, attribute_bytes, descriptor.flags)
            .map_err(|error| BatchFault::Content { sequence, error })?;
        if u64::from(head.data_bytes) != descriptor.data_bytes {
            return Err(BatchFault::Content {
                sequence,
                error: ContentError::DataLength {
                    stated: u32::try_from(descriptor.data_bytes).unwrap_or(u32::MAX),
                    found: head.data_bytes,
                },
            });
        }
        if sealed.key_entry() >= sequence {
            return Err(form("an entry that names no key entry before it"));
        }
        let attributes = split_content(content, attribute_bytes);
        let (_, attributes, _) =
            attributes.map_err(|error| BatchFault::Content { sequence, error })?;
        self.check_wanted(sequence, attributes)?;
        let time = Timestamp(descriptor.time);
        Ok(head
            .entry(descriptor.kind, sequence, self.last_leaf, time)
            .encode())
    }

    /// The same of entries without content: the entry that is claimed.
    #[cold]
    #[inline(never)]
    fn claimed(
        &mut self,
        sequence: u64,
        descriptor: &Descriptor<'_>,
    ) -> Result<[u8; ENTRY_BYTES], BatchFault> {
        let Some(absent) = &descriptor.absent else {
            let what = "an entry without content and without what it commits to";
            return Err(BatchFault::Form {
                first: sequence,
                what,
            });
        };
        let sealed = match absent.behind {
            Some(behind) => self.claim(sequence, descriptor, absent, behind)?,
            None => self.skip(sequence, descriptor, absent)?,
        };
        self.judge_claims(sequence, None)?;
        let time = Timestamp(descriptor.time);
        Ok(sealed
            .entry(descriptor.kind, sequence, self.last_leaf, time)
            .encode())
    }

    /// An entry without content: what it would commit to comes with it, and what allows it is judged later.
    fn claim(
        &mut self,
        sequence: u64,
        descriptor: &Descriptor<'_>,
        absent: &Absent<'_>,
        behind: u64,
    ) -> Result<SealedHead, BatchFault> {
        let form = |what| BatchFault::Form {
            first: sequence,
            what,
        };
        if descriptor.kind == Kind::Control {
            return Err(form("a control entry without content"));
        }
        let by = sequence
            .checked_add(behind)
            .filter(|by| *by > sequence)
            .ok_or_else(|| form("an erased entry names no entry behind it"))?;
        let claim = Claim {
            first: sequence,
            end: sequence.saturating_add(1),
            by,
        };
        match self.claims.last_mut() {
            Some(last) if last.end == sequence && last.by == by => last.end = claim.end,
            _ => self.claims.push(claim),
        }
        self.added.add(claim);
        if self.before.len() + self.added.len() > CLAIMS_MAX {
            return Err(BatchFault::Claims);
        }
        absent.head(sequence, descriptor)
    }
}

fn check_stated(descriptor: &Descriptor<'_>, event: &EventRef<'_>) -> Result<(), ContentError> {
    let found = event.data().is_author_signed();
    if descriptor.flags.author_signed != found {
        return Err(ContentError::AuthorSigned {
            stated: descriptor.flags.author_signed,
        });
    }
    let found = event.data().data_bytes() as u64;
    let is_part = || {
        let view = event.data().view();
        view.is_some_and(|view| view.withheld() > 0) && found < descriptor.data_bytes
    };
    if descriptor.data_bytes != found && !is_part() {
        return Err(ContentError::DataLength {
            stated: u32::try_from(descriptor.data_bytes).unwrap_or(u32::MAX),
            found: u32::try_from(found).unwrap_or(u32::MAX),
        });
    }
    Ok(())
}

struct Descriptor<'a> {
    kind: Kind,
    flags: Flags,
    time: u64,
    lengths: Lengths,
    data_bytes: u64,
    view: bool,
    absent: Option<Absent<'a>>,
}

/// What travels in place of content.
#[derive(Clone, Copy)]
struct Absent<'a> {
    /// How far behind it the control entry lies that allows it; none where it was left out by a filter.
    behind: Option<u64>,
    /// Where they came: descriptors are moved for each entry, erased or not.
    attributes: &'a Hash,
    data: &'a Hash,
}

impl<'a> Absent<'a> {
    fn read(tag: u8, input: &mut &'a [u8]) -> Option<(u64, Self)> {
        let data_bytes = varint::read(input)?;
        let behind = match tag {
            TAG_ERASED => Some(varint::read(input)?),
            _ => None,
        };
        let (attributes, rest) = input.split_first_chunk()?;
        let (data, rest) = rest.split_first_chunk()?;
        *input = rest;
        let absent = Self {
            behind,
            attributes,
            data,
        };
        Some((data_bytes, absent))
    }

    fn head(&self, sequence: u64, descriptor: &Descriptor<'_>) -> Result<SealedHead, BatchFault> {
        Ok(SealedHead {
            attributes: *self.attributes,
            data: *self.data,
            data_bytes: descriptor.stated_bytes(sequence)?,
            flags: descriptor.flags,
        })
    }
}

impl Descriptor<'_> {
    /// The length of data that is not all here: as it is stated, within what an event can have.
    fn stated_bytes(&self, sequence: u64) -> Result<u32, BatchFault> {
        let stated = u32::try_from(self.data_bytes).map_err(|_| BatchFault::Form {
            first: sequence,
            what: "a data length",
        })?;
        check_stated_bytes(self.flags, stated)
            .map_err(|error| BatchFault::Content { sequence, error })?;
        Ok(stated)
    }
}

impl<'a> Descriptor<'a> {
    fn read(input: &mut &'a [u8], time_before: &mut u64) -> Option<Self> {
        let (&[tag, kind_and_flags], rest) = input.split_first_chunk::<2>()?;
        *input = rest;
        if tag > TAG_SKIPPED {
            return None;
        }
        let kind = match kind_and_flags & 0x0f {
            0 => Kind::Event,
            1 => Kind::Control,
            _ => return None,
        };
        let flags = match kind_and_flags >> 4 {
            0 => Flags {
                encrypted: false,
                author_signed: false,
            },
            1 => Flags {
                encrypted: true,
                author_signed: false,
            },
            2 => Flags {
                encrypted: false,
                author_signed: true,
            },
            3 => Flags {
                encrypted: true,
                author_signed: true,
            },
            _ => return None,
        };
        let time = time_before.wrapping_add(varint::read(input)?);
        *time_before = time;
        if tag == TAG_ERASED || tag == TAG_SKIPPED {
            let (data_bytes, absent) = Absent::read(tag, input)?;
            let lengths = match absent.behind {
                Some(_) => Lengths::ABSENT,
                None => Lengths::SKIPPED,
            };
            return Some(Self {
                kind,
                flags,
                time,
                lengths,
                data_bytes,
                view: false,
                absent: Some(absent),
            });
        }
        let lengths = Lengths {
            attribute_bytes: varint::read(input)?.try_into().ok()?,
            data_part_bytes: varint::read(input)?.try_into().ok()?,
        };
        if lengths.is_absent() {
            return None;
        }
        let view = tag == TAG_VIEW;
        if view && flags.encrypted {
            return None;
        }
        let data_bytes = if !view && kind_and_flags & 0xf0 == 0 {
            u64::from(lengths.data_part_bytes).checked_sub(1)?
        } else {
            varint::read(input)?
        };
        Some(Self {
            kind,
            flags,
            time,
            lengths,
            data_bytes,
            view,
            absent: None,
        })
    }
}
