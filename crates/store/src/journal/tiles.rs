//! Tile files: `logs/<number>/tile.<L>` holds the hashes of tree level 8·L one after the other, so that tile `<L>/<N>` of
//! tlog-tiles is bytes [N·8192, (N+1)·8192).
//!
//! They are derived and never synced: what is read from them is checked against the level above and in the end against
//! the log's compact range, and computed again from the entries where it is wrong.

use std::io;
use std::path::{Path, PathBuf};

use countersign_crypto::Hash;
use countersign_tlog::CompactRange;

use crate::disk::{Disk, read_vec};

pub(crate) const TILE_HASHES: u64 = 256;
/// A tree of 2^63 leaves has tiles of levels 0 to 7.
pub(crate) const LEVELS: u8 = 8;
/// Full tiles are written when this many hashes wait: 128 KiB in one write instead of 16 writes.
const WRITE_HASHES: usize = 4096;

/// The hashes of one level that are in memory: from a tile boundary to the end of the level.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail {
    pub(crate) first: u64,
    pub(crate) hashes: Vec<Hash>,
}

/// The right border of a log's tiles.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tails {
    pub(crate) levels: Vec<Tail>,
}

impl Tails {
    pub(crate) fn push(&mut self, level: u8, hashes: &[Hash]) {
        let level = usize::from(level);
        if self.levels.len() <= level {
            self.levels.resize_with(level + 1, Tail::default);
        }
        self.levels[level].hashes.extend_from_slice(hashes);
    }

    /// A tile, full or partial, where it is in memory.
    pub(crate) fn tile(&self, level: u8, n: u64) -> Option<Vec<Hash>> {
        let tail = self.levels.get(usize::from(level))?;
        let start = usize::try_from(n.checked_mul(TILE_HASHES)?.checked_sub(tail.first)?).ok()?;
        let rest = tail.hashes.get(start..)?;
        (!rest.is_empty()).then(|| rest[..rest.len().min(TILE_HASHES as usize)].to_vec())
    }

    /// Whether enough full tiles wait to be worth a write.
    pub(crate) fn due(&self) -> bool {
        self.levels
            .iter()
            .any(|tail| tail.hashes.len() >= WRITE_HASHES)
    }
}

pub(crate) fn tile_path(log_dir: &Path, level: u8) -> PathBuf {
    log_dir.join(format!("tile.{level}"))
}

/// Bytes to be written for a log: copied under the lock, written outside it, forgotten afterwards by [`forget`].
pub(crate) struct TileWrite {
    level: u8,
    first: u64,
    bytes: Vec<u8>,
    full: usize,
}

/// What of the tails should be on disk; with `partial` also the unfinished tiles, so that a restart finds them.
pub(crate) fn collect(tails: &Tails, partial: bool) -> Vec<TileWrite> {
    let mut writes = Vec::new();
    for (level, tail) in (0u8..).zip(&tails.levels) {
        let full = tail.hashes.len() / TILE_HASHES as usize * TILE_HASHES as usize;
        let end = if partial { tail.hashes.len() } else { full };
        if end > 0 {
            writes.push(TileWrite {
                level,
                first: tail.first,
                bytes: tail.hashes[..end].concat(),
                full,
            });
        }
    }
    writes
}

pub(crate) fn write(disk: &dyn Disk, log_dir: &Path, writes: &[TileWrite]) -> io::Result<()> {
    disk.create_dir(log_dir)?;
    for write in writes {
        let path = tile_path(log_dir, write.level);
        let file = match disk.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => disk.create_new(&path)?,
            other => other?,
        };
        file.write_all_at(&write.bytes, write.first * 32)?;
    }
    Ok(())
}

/// Drops full tiles that have been written.
pub(crate) fn forget(tails: &mut Tails, writes: &[TileWrite]) {
    for write in writes {
        if let Some(tail) = tails.levels.get_mut(usize::from(write.level))
            && tail.first == write.first
        {
            tail.hashes.drain(..write.full);
            tail.first += write.full as u64;
        }
    }
}

/// Reads the right border of a log from its tile files; `None` where they do not give the compact range.
pub(crate) fn load_tails(
    disk: &dyn Disk,
    log_dir: &Path,
    range: &CompactRange,
) -> io::Result<Option<Tails>> {
    let mut tails = Tails::default();
    for level in 0..LEVELS {
        let total = range.size() >> (8 * level);
        if total == 0 {
            break;
        }
        let first = total / TILE_HASHES * TILE_HASHES;
        let count = total - first;
        let Some(bytes) = read_hashes(disk, &tile_path(log_dir, level), first, count)? else {
            return Ok(None);
        };
        let hashes = to_hashes(&bytes);
        if !fits_range(&hashes, level, range) {
            return Ok(None);
        }
        tails.levels.push(Tail { first, hashes });
    }
    Ok(Some(tails))
}

/// Whether the unfinished tile of a level gives the compact range's hashes at the levels that lie within it.
fn fits_range(hashes: &[Hash], level: u8, range: &CompactRange) -> bool {
    let size = range.size();
    let mut rest = hashes;
    // Largest subtree first; above this tile level lie `above` hashes of the range.
    let above_level = 8 * (u32::from(level) + 1);
    let above = if above_level < 64 {
        (size >> above_level).count_ones() as usize
    } else {
        0
    };
    let mut peaks = range.hashes().iter().skip(above);
    for bit in (0..8u32).rev() {
        if (size >> (8 * u32::from(level) + bit)) & 1 == 0 {
            continue;
        }
        let Some((subtree, after)) = rest.split_at_checked(1 << bit) else {
            return false;
        };
        if Some(&subtree_root(subtree)) != peaks.next() {
            return false;
        }
        rest = after;
    }
    rest.is_empty()
}

/// The root over hashes whose number is a power of two.
pub(crate) fn subtree_root(hashes: &[Hash]) -> Hash {
    let mut level = hashes.to_vec();
    while level.len() > 1 {
        level = level
            .chunks_exact(2)
            .map(|pair| countersign_tlog::node_hash(&pair[0], &pair[1]))
            .collect();
    }
    level.first().copied().unwrap_or([0; 32])
}

/// Reads hashes of a tile file; `None` where the file is missing or too short.
pub(crate) fn read_hashes(
    disk: &dyn Disk,
    path: &Path,
    first: u64,
    count: u64,
) -> io::Result<Option<Vec<u8>>> {
    if count == 0 {
        return Ok(Some(Vec::new()));
    }
    let file = match disk.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    if file.len()? < (first + count) * 32 {
        return Ok(None);
    }
    // INVARIANT: callers ask for at most one tile, 8 KiB.
    let len = usize::try_from(count * 32).map_err(io::Error::other)?;
    read_vec(&*file, first * 32, len).map(Some)
}

pub(crate) fn to_hashes(bytes: &[u8]) -> Vec<Hash> {
    bytes
        .chunks_exact(32)
        .filter_map(|hash| hash.try_into().ok())
        .collect()
}
