//! Entries put behind the end of a log: each is hashed once, where it is made.

use countersign_crypto::Hash;
use countersign_tlog::{CompactRange, TREE_SIZE_MAX, leaf_hash};

use super::format::be_u64;
use super::state::LogState;

/// Entries behind the end of a log, as chain and tree see them. The same code for a commit that is about to be written and for one that is found at
/// start, so that neither accepts what the other would not.
///
/// The entries themselves stay with whoever makes them. Of their bytes a checksum is kept, taken when they were hashed: the journal compares it with
/// that of the bytes it writes, so that what changed in memory in between is refused before a signature covers it.
#[derive(Clone, Debug)]
pub struct Growth {
    /// The log's end: range, last leaf, last time.
    start: (CompactRange, Hash, u64),
    range: CompactRange,
    last_leaf: Hash,
    last_time_us: u64,
    leaves: Vec<Hash>,
    /// Hashes that begin or fill tiles above the leaves: tile level from 1, hash.
    nodes: Vec<(u8, Hash)>,
    entries_crc: u32,
}

/// An entry that does not continue the log: another sequence, another entry before it, an earlier time, or no room in the tree.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the entry does not continue the log")]
pub struct NotNext;

impl Growth {
    /// Nothing yet, behind a log that ends so.
    #[must_use]
    pub fn new(range: CompactRange, last_leaf: Hash, last_time_us: u64) -> Self {
        Self {
            start: (range.clone(), last_leaf, last_time_us),
            range,
            last_leaf,
            last_time_us,
            leaves: Vec::new(),
            nodes: Vec::new(),
            entries_crc: 0,
        }
    }

    /// Makes room for so many more entries.
    pub fn reserve(&mut self, entries: usize) {
        self.leaves.reserve(entries);
    }

    /// Puts an entry of 118 bytes behind the others and hashes it; returns its leaf hash.
    ///
    /// # Errors
    /// [`NotNext`]; then nothing has changed.
    pub fn push(&mut self, entry: &[u8]) -> Result<Hash, NotNext> {
        let time_us = self.continues(entry)?;
        let leaf = leaf_hash(entry);
        self.add(entry, leaf, time_us);
        Ok(leaf)
    }

    /// The same for an entry whose leaf hash is known, because it was verified.
    ///
    /// # Errors
    /// [`NotNext`]; then nothing has changed.
    pub fn push_hashed(&mut self, entry: &[u8], leaf: Hash) -> Result<(), NotNext> {
        let time_us = self.continues(entry)?;
        self.add(entry, leaf, time_us);
        Ok(())
    }

    /// The compact range behind the last entry.
    #[must_use]
    pub fn range(&self) -> &CompactRange {
        &self.range
    }

    /// Entries of the log, with those put behind it.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.range.size()
    }

    /// Leaf hash of the last entry; zeros in an empty log.
    #[must_use]
    pub fn last_leaf(&self) -> Hash {
        self.last_leaf
    }

    /// Time of the last entry, µs since 1970; 0 in an empty log.
    #[must_use]
    pub fn last_time_us(&self) -> u64 {
        self.last_time_us
    }

    /// Leaf hashes of the entries put behind the log.
    #[must_use]
    pub fn leaf_hashes(&self) -> &[Hash] {
        &self.leaves
    }

    /// CRC-32C of the entries put behind the log, one after the other.
    pub(crate) fn entries_crc(&self) -> u32 {
        self.entries_crc
    }

    /// Whether it begins where the log ends.
    pub(crate) fn is_behind(&self, log: &LogState) -> bool {
        let (range, last_leaf, last_time_us) = &self.start;
        *range == log.range && *last_leaf == log.last_leaf && *last_time_us == log.last_time_us
    }

    /// Takes it over into the log.
    pub(crate) fn apply(self, log: &mut LogState) {
        log.tails.push(0, &self.leaves);
        for (level, hash) in &self.nodes {
            log.tails.push(*level, std::slice::from_ref(hash));
        }
        log.range = self.range;
        log.last_leaf = self.last_leaf;
        log.last_time_us = self.last_time_us;
    }

    /// The entry's time, where the entry continues the log. Layout: schemas/entry.md.
    fn continues(&self, entry: &[u8]) -> Result<u64, NotNext> {
        let time_us = be_u64(entry, 46);
        let is_next = be_u64(entry, 6) == self.range.size()
            && entry.get(14..46) == Some(&self.last_leaf)
            && time_us >= self.last_time_us
            && self.range.size() < TREE_SIZE_MAX;
        is_next.then_some(time_us).ok_or(NotNext)
    }

    fn add(&mut self, entry: &[u8], leaf: Hash, time_us: u64) {
        self.entries_crc = crc32c::crc32c_append(self.entries_crc, entry);
        let nodes = &mut self.nodes;
        self.range.append_with(leaf, &mut |level, _, hash| {
            if level % 8 == 0 {
                nodes.push((level / 8, hash));
            }
        });
        self.leaves.push(leaf);
        self.last_leaf = leaf;
        self.last_time_us = time_us;
    }
}
