//! The tree of a log: tiles and nodes, each checked up to the log's compact range.

use std::sync::Arc;

use countersign_crypto::Hash;
use countersign_tlog::{NodeSource, leaf_hash};

use super::super::error::ReadError;
use super::super::format::ENTRY_BYTES;
use super::super::tiles::{self, TILE_HASHES, subtree_root};
use super::super::types::LogNumber;
use super::caches::locked;
use super::{JournalReader, usize_of};

impl JournalReader {
    /// The leaf hash of an entry, from the tiles.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn leaf_hash(&self, log: LogNumber, sequence: u64) -> Result<Hash, ReadError> {
        self.node(log, 0, sequence)
    }

    /// The tree of a log, for proofs.
    #[must_use]
    pub fn nodes(&self, log: LogNumber) -> LogNodes {
        LogNodes {
            reader: self.clone(),
            log,
        }
    }

    /// The hashes of a tile: 256, or fewer at the right border. Tile levels are those of tlog-tiles.
    ///
    /// # Errors
    /// [`ReadError::BeyondEnd`] where the log has no such tile; [`ReadError`].
    pub fn tile(&self, log: LogNumber, level: u8, n: u64) -> Result<Arc<Vec<Hash>>, ReadError> {
        let size = {
            let published = self.shared.read();
            let state = published
                .logs
                .logs
                .get(&log.0)
                .ok_or(ReadError::UnknownLog(log))?;
            if let Some(tile) = state.tails.tile(level, n) {
                return Ok(Arc::new(tile));
            }
            state.size()
        };
        let below = u32::from(level) * 8;
        let nodes = if below < 64 { size >> below } else { 0 };
        if n.checked_add(1)
            .and_then(|next| next.checked_mul(TILE_HASHES))
            .is_none_or(|end| end > nodes)
        {
            return Err(ReadError::BeyondEnd {
                log,
                first: n.saturating_mul(TILE_HASHES),
                size: nodes,
            });
        }
        self.full_tile(log, level, n)
    }

    fn node(&self, log: LogNumber, level: u8, index: u64) -> Result<Hash, ReadError> {
        let (tile_level, within) = (level / 8, level % 8);
        // A node of level 8·L + w covers 2^w hashes of tile level L, all in one tile.
        let beyond = || ReadError::BeyondEnd {
            log,
            first: index,
            size: self.size(log).unwrap_or(0),
        };
        let start = index.checked_mul(1 << within).ok_or_else(beyond)?;
        let tile = self.tile(log, tile_level, start / TILE_HASHES)?;
        let at = usize_of(start % TILE_HASHES);
        let hashes = tile.get(at..at + (1 << within)).ok_or_else(beyond)?;
        Ok(subtree_root(hashes))
    }

    /// A full tile that is on disk, checked against the level above; computed from what is below where it is wrong.
    fn full_tile(&self, log: LogNumber, level: u8, n: u64) -> Result<Arc<Vec<Hash>>, ReadError> {
        let key = (log.0, level, n);
        if let Some(tile) = locked(&self.shared.caches.tiles).map.get(&key) {
            return Ok(Arc::clone(tile));
        }
        let parent = self.tile(log, level + 1, n / TILE_HASHES)?;
        let parent = parent.get(usize_of(n % TILE_HASHES)).copied();
        let path = tiles::tile_path(&self.shared.log_dir(log.0), level);
        let stored = tiles::read_hashes(&*self.shared.disk, &path, n * TILE_HASHES, TILE_HASHES)?;
        let mut tile = stored.map(|bytes| tiles::to_hashes(&bytes));
        if tile.as_ref().map(|tile| subtree_root(tile)) != parent {
            tile = Some(self.compute_tile(log, level, n)?);
        }
        let tile = Arc::new(tile.unwrap_or_default());
        if Some(subtree_root(&tile)) != parent {
            return Err(self.absent(log, n << (8 * u32::from(level)).min(56), 0));
        }
        locked(&self.shared.caches.tiles).put(key, Arc::clone(&tile));
        Ok(tile)
    }

    /// Computes a full tile: leaf hashes from entries, others from the tiles below.
    fn compute_tile(&self, log: LogNumber, level: u8, n: u64) -> Result<Vec<Hash>, ReadError> {
        let start = n * TILE_HASHES;
        let mut hashes = Vec::with_capacity(TILE_HASHES as usize);
        if level == 0 {
            self.leaf_hashes(log, start, start + TILE_HASHES, &mut |leaf| {
                hashes.push(leaf)
            })?;
        } else {
            for child in start..start + TILE_HASHES {
                // A child cannot be checked against this tile, which is being made: only from the ground up.
                hashes.push(subtree_root(&self.compute_tile(log, level - 1, child)?));
            }
        }
        Ok(hashes)
    }

    /// Leaf hashes computed from the entries; their content is not looked at.
    pub(crate) fn leaf_hashes(
        &self,
        log: LogNumber,
        first: u64,
        end: u64,
        visit: &mut dyn FnMut(Hash),
    ) -> Result<(), ReadError> {
        self.entries(log, first, end, &mut |entry| visit(leaf_hash(entry)))
    }

    /// Shows the bytes of the entries [first, end) of a log, whose checksums have been checked. Their content is not read.
    ///
    /// # Errors
    /// [`ReadError`], after what could be read was shown.
    pub fn entries(
        &self,
        log: LogNumber,
        first: u64,
        end: u64,
        visit: &mut dyn FnMut(&[u8]),
    ) -> Result<(), ReadError> {
        let mut next = first;
        while next < end {
            let part = self.part_containing(log, next)?;
            let front = self.front(&part, part.meta_bytes() + part.entries_bytes())?;
            let skipped = usize_of(next - part.first);
            let wanted = usize_of(end - next);
            for entry in front
                .entries
                .chunks_exact(ENTRY_BYTES)
                .skip(skipped)
                .take(wanted)
            {
                visit(entry);
                next += 1;
            }
        }
        Ok(())
    }
}

/// The tree of one log as a source of nodes; each is checked against the log's root before it is given out.
#[derive(Clone, Debug)]
pub struct LogNodes {
    pub(super) reader: JournalReader,
    log: LogNumber,
}

impl NodeSource for LogNodes {
    type Error = ReadError;

    fn node(&self, level: u8, index: u64) -> Result<Hash, ReadError> {
        self.reader.node(self.log, level, index)
    }
}
