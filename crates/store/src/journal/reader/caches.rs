//! What readers keep between reads, each kind within a bound.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use countersign_crypto::Hash;

use super::super::segment::Segment;
use super::super::state::{PartRef, Recent};
use super::Front;
use crate::buffer::Buffers;

/// Open segments and loaded indexes kept for the next read.
const SEGMENTS_CACHED: usize = 64;
const INDEXES_CACHED: usize = 8;
/// Verified tiles kept: 4 MiB.
const TILES_CACHED: usize = 512;

/// Bytes of parts that were read whole.
const BLOCK_BYTES_CACHED: usize = 16 << 20;

/// Fronts kept of parts that are read in pieces. Each may hold on to the commit or block that it lies in: together 16 MiB, but for single large batches.
const FRONTS_CACHED: usize = 8;

/// A map that forgets everything when it is full: bounded, and simple enough to be right.
#[derive(Debug)]
pub(super) struct Bounded<K, V> {
    pub(super) map: HashMap<K, V>,
    limit: usize,
}

impl<K: Eq + std::hash::Hash, V: Clone> Bounded<K, V> {
    fn new(limit: usize) -> Self {
        Self {
            map: HashMap::new(),
            limit,
        }
    }

    pub(super) fn put(&mut self, key: K, value: V) {
        if self.map.len() >= self.limit {
            self.map.clear();
        }
        self.map.insert(key, value);
    }
}

/// Log, tile level, tile number.
pub(super) type TileKey = (u32, u8, u64);

/// What readers keep between reads.
#[derive(Debug)]
pub(crate) struct Caches {
    pub(super) segments: Mutex<Bounded<u32, Segment>>,
    pub(super) indexes: Mutex<Bounded<u32, Arc<LoadedIndex>>>,
    pub(super) tiles: Mutex<Bounded<TileKey, Arc<Vec<Hash>>>>,
    pub(super) blocks: Mutex<Blocks>,
    /// By segment and offset of the part's body.
    pub(super) fronts: Mutex<Bounded<(u32, u64), Front>>,
    /// Where blocks are read into.
    pub(super) buffers: Buffers,
}

impl Default for Caches {
    fn default() -> Self {
        Self {
            segments: Mutex::new(Bounded::new(SEGMENTS_CACHED)),
            indexes: Mutex::new(Bounded::new(INDEXES_CACHED)),
            tiles: Mutex::new(Bounded::new(TILES_CACHED)),
            blocks: Mutex::default(),
            fronts: Mutex::new(Bounded::new(FRONTS_CACHED)),
            buffers: Buffers::default(),
        }
    }
}

/// Parts that were read whole, the newest last: whoever reads a log from end to end takes several batches out of one part, and others read beside it.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    kept: VecDeque<Recent>,
    bytes: usize,
}

impl Blocks {
    /// A range of a segment, where a block holds it.
    pub(super) fn get(&self, segment: u32, offset: u64, len: u64) -> Option<Bytes> {
        let mut blocks = self.kept.iter().rev();
        blocks.find_map(|block| block.range(segment, offset, len))
    }

    pub(super) fn put(&mut self, block: Recent) {
        let len = block.bytes.len() as u64;
        if self.get(block.segment, block.offset, len).is_some() {
            // Another reader was quicker.
            return;
        }
        self.bytes += block.bytes.len();
        self.kept.push_back(block);
        while self.bytes > BLOCK_BYTES_CACHED
            && let Some(oldest) = self.kept.pop_front()
        {
            self.bytes -= oldest.bytes.len();
        }
    }
}

impl Caches {
    /// Lets go of the blocks that overlap a range of a segment.
    pub(crate) fn forget(&self, segment: u32, offset: u64, len: u64) {
        let mut blocks = locked(&self.blocks);
        blocks
            .kept
            .retain(|block| !block.overlaps(segment, offset, len));
        blocks.bytes = blocks.kept.iter().map(|block| block.bytes.len()).sum();
    }

    /// Keeps the parts of a segment that was just sealed: its newest entries are the ones that are read next.
    pub(crate) fn put_index(&self, segment: u32, parts: &[PartRef]) {
        locked(&self.indexes).put(segment, Arc::new(LoadedIndex::new(parts)));
    }
}

/// The parts of a sealed segment, ready to be searched: by log, and within a log in order.
#[derive(Debug)]
pub(super) struct LoadedIndex(pub(super) Vec<PartRef>);

impl LoadedIndex {
    pub(super) fn new(parts: &[PartRef]) -> Self {
        let mut parts = parts.to_vec();
        parts.sort_unstable_by_key(|part| (part.log, part.commit));
        Self(parts)
    }

    pub(super) fn of_log(&self, log: u32) -> &[PartRef] {
        let start = self.0.partition_point(|part| part.log < log);
        let end = self.0.partition_point(|part| part.log <= log);
        self.0.get(start..end).unwrap_or_default()
    }

    pub(super) fn containing(&self, log: u32, sequence: u64) -> Option<PartRef> {
        let parts = self.of_log(log);
        let at = parts.partition_point(|part| part.end() <= sequence);
        let found = parts.get(at).filter(|part| part.first <= sequence);
        found.copied()
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
