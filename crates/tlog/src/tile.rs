//! Tiles (c2sp.org/tlog-tiles): the nodes of a tree and its entries as files of up to 256.
//!
//! ```text
//! tile/<L>/<N>            256 hashes of level 8·L, the N-th such run      8,192 bytes
//! tile/<L>/<N>.p/<W>      the first W of them, 1 to 255: the right border
//! tile/entries/<N>[.p/<W>]  the entries under tile/0/<N>: each its length as 2 bytes, big endian, and its bytes
//! ```
//!
//! `N` is written in groups of three digits, all but the last after an `x`: 1234067 is `x001/x234/067`. A hash of
//! level L + 1 covers one full tile of level L.

use std::fmt;
use std::str::FromStr;

use crate::decimal::parse_decimal;

/// The hashes or entries of a full tile.
pub const TILE_WIDTH: u16 = 256;

/// The most bytes of one entry: its length has two bytes.
pub const ENTRY_BYTES_MAX: usize = 65_535;

/// The highest level that a path may name; a tree of 2^64 leaves has no tiles above level 7.
const PATH_LEVEL_MAX: u64 = 63;

/// The levels of tiles that a tree can have: 8 tree levels each, and sizes have 64 bits.
const TREE_LEVELS: u8 = 8;

/// The longest path: `tile/63/`, seven groups of four characters and a slash, `.p/255`.
const PATH_BYTES_MAX: usize = 64;

/// What a tile holds.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum TileKind {
    /// Entries, as an entry bundle.
    Entries,
    /// Hashes of the tree level 8 times this, 0 to 63.
    Hashes(u8),
}

/// A tile of a tree.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Tile {
    kind: TileKind,
    index: u64,
    width: u16,
}

/// A text or numbers that name no tile.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a tile: `tile/<0 to 63 or entries>/<three-digit groups>[.p/<1 to 255>]` is expected")]
pub struct TileError;

/// Entries that are no bundle, or bytes that hold none.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BundleError {
    /// There are no entries: such a file does not exist.
    #[error("an entry bundle has at least one entry")]
    Empty,
    /// The entry is larger than [`ENTRY_BYTES_MAX`].
    #[error("entry {position} has {bytes} bytes, more than {ENTRY_BYTES_MAX}")]
    EntryTooLarge {
        /// Which entry, from 0.
        position: usize,
        /// Its size.
        bytes: usize,
    },
    /// There are more than [`TILE_WIDTH`] entries.
    #[error("an entry bundle has at most {TILE_WIDTH} entries")]
    TooManyEntries,
    /// The bytes end within an entry.
    #[error("the bundle ends within entry {position}")]
    Truncated {
        /// Which entry, from 0.
        position: usize,
    },
}

impl Tile {
    /// A tile of `width` hashes or entries.
    ///
    /// # Errors
    /// [`TileError`] where the width is not 1 to 256 or the level above 63.
    pub fn new(kind: TileKind, index: u64, width: u16) -> Result<Self, TileError> {
        let level_is_good = match kind {
            TileKind::Entries => true,
            TileKind::Hashes(level) => u64::from(level) <= PATH_LEVEL_MAX,
        };
        if !level_is_good || !(1..=TILE_WIDTH).contains(&width) {
            return Err(TileError);
        }
        Ok(Self { kind, index, width })
    }

    /// The tile as it is in a tree of `size` leaves; `None` where that tree has none there.
    #[must_use]
    pub fn at_size(kind: TileKind, index: u64, size: u64) -> Option<Self> {
        let width = width_at(kind, index, size);
        Self::new(kind, index, width).ok()
    }

    /// What it holds.
    #[must_use]
    pub fn kind(self) -> TileKind {
        self.kind
    }

    /// Which one of its level.
    #[must_use]
    pub fn index(self) -> u64 {
        self.index
    }

    /// The number of hashes or entries, 1 to 256.
    #[must_use]
    pub fn width(self) -> u16 {
        self.width
    }

    /// Whether it is on the right border and will grow.
    #[must_use]
    pub fn is_partial(self) -> bool {
        self.width < TILE_WIDTH
    }

    /// Reads a path; one path for one tile.
    ///
    /// # Errors
    /// [`TileError`].
    pub fn parse(path: &str) -> Result<Self, TileError> {
        parse_path(path).ok_or(TileError)
    }
}

/// The number of hashes or entries of a tile in a tree of `size` leaves; 0 where that tree has no such tile.
#[must_use]
pub fn width_at(kind: TileKind, index: u64, size: u64) -> u16 {
    let nodes = nodes_at(level_of(kind), size);
    let width = index
        .checked_mul(u64::from(TILE_WIDTH))
        .map_or(0, |start| nodes.saturating_sub(start));
    u16::try_from(width).map_or(TILE_WIDTH, |width| width.min(TILE_WIDTH))
}

/// The tiles of a tree of `size` leaves, entry bundles first, then the hashes level by level.
pub fn tiles(size: u64) -> impl Iterator<Item = Tile> {
    tiles_between(0, size)
}

/// The tiles of a tree of `new` leaves that a tree of `old` leaves does not have, or has narrower.
pub fn tiles_between(old: u64, new: u64) -> impl Iterator<Item = Tile> {
    let kinds = std::iter::once(TileKind::Entries).chain((0..TREE_LEVELS).map(TileKind::Hashes));
    kinds.flat_map(move |kind| {
        let level = level_of(kind);
        let (old_nodes, new_nodes) = (nodes_at(level, old), nodes_at(level, new));
        let first = old_nodes / u64::from(TILE_WIDTH);
        let end = match new_nodes > old_nodes {
            true => new_nodes.div_ceil(u64::from(TILE_WIDTH)),
            false => first,
        };
        (first..end).filter_map(move |index| Tile::at_size(kind, index, new))
    })
}

/// The bundle of 1 to 256 entries.
///
/// # Errors
/// [`BundleError::Empty`], [`BundleError::EntryTooLarge`], [`BundleError::TooManyEntries`].
pub fn encode_entry_bundle<E: AsRef<[u8]>>(
    entries: impl IntoIterator<Item = E>,
) -> Result<Vec<u8>, BundleError> {
    let mut bundle = Vec::new();
    for (position, entry) in entries.into_iter().enumerate() {
        if position >= usize::from(TILE_WIDTH) {
            return Err(BundleError::TooManyEntries);
        }
        let entry = entry.as_ref();
        let bytes = entry.len();
        let length =
            u16::try_from(bytes).map_err(|_| BundleError::EntryTooLarge { position, bytes })?;
        bundle.extend_from_slice(&length.to_be_bytes());
        bundle.extend_from_slice(entry);
    }
    if bundle.is_empty() {
        return Err(BundleError::Empty);
    }
    Ok(bundle)
}

/// The entries of a bundle.
///
/// # Errors
/// [`BundleError::Empty`], [`BundleError::TooManyEntries`], [`BundleError::Truncated`].
pub fn decode_entry_bundle(mut bundle: &[u8]) -> Result<Vec<&[u8]>, BundleError> {
    let mut entries = Vec::new();
    while !bundle.is_empty() {
        let position = entries.len();
        if position >= usize::from(TILE_WIDTH) {
            return Err(BundleError::TooManyEntries);
        }
        let (entry, rest) = bundle
            .split_first_chunk()
            .and_then(|(length, rest)| rest.split_at_checked(u16::from_be_bytes(*length).into()))
            .ok_or(BundleError::Truncated { position })?;
        entries.push(entry);
        bundle = rest;
    }
    if entries.is_empty() {
        return Err(BundleError::Empty);
    }
    Ok(entries)
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Entries => f.write_str("tile/entries/")?,
            TileKind::Hashes(level) => write!(f, "tile/{level}/")?,
        }
        write_index(f, self.index)?;
        if self.is_partial() {
            write!(f, ".p/{}", self.width)?;
        }
        Ok(())
    }
}

impl FromStr for Tile {
    type Err = TileError;

    fn from_str(path: &str) -> Result<Self, TileError> {
        Self::parse(path)
    }
}

fn level_of(kind: TileKind) -> u8 {
    match kind {
        TileKind::Entries => 0,
        TileKind::Hashes(level) => level,
    }
}

/// The complete subtrees of 256^level leaves in a tree of `size` leaves.
fn nodes_at(level: u8, size: u64) -> u64 {
    size.checked_shr(8 * u32::from(level)).unwrap_or(0)
}

fn write_index(f: &mut fmt::Formatter<'_>, index: u64) -> fmt::Result {
    let digits = index.to_string();
    let width = digits.len().div_ceil(3) * 3;
    let digits = format!("{digits:0>width$}");
    let groups = width / 3;
    for group in 0..groups {
        let x = if group + 1 < groups { "x" } else { "" };
        let slash = if group > 0 { "/" } else { "" };
        write!(f, "{slash}{x}{}", &digits[3 * group..3 * group + 3])?;
    }
    Ok(())
}

fn parse_path(path: &str) -> Option<Tile> {
    if path.len() > PATH_BYTES_MAX {
        return None;
    }
    let (level, rest) = path.strip_prefix("tile/")?.split_once('/')?;
    let kind = match level {
        "entries" => TileKind::Entries,
        _ => TileKind::Hashes(u8::try_from(parse_decimal(level)?).ok()?),
    };
    let (index, width) = match rest.split_once(".p/") {
        None => (rest, TILE_WIDTH),
        Some((index, width)) => {
            let width = u16::try_from(parse_decimal(width)?).ok()?;
            (index, Some(width).filter(|width| *width < TILE_WIDTH)?)
        }
    };
    Tile::new(kind, parse_index(index)?, width).ok()
}

fn parse_index(text: &str) -> Option<u64> {
    let (high, last) = match text.rsplit_once('/') {
        None => (None, text),
        Some((high, last)) => (Some(high), last),
    };
    let mut index = 0u64;
    for group in high.into_iter().flat_map(|high| high.split('/')) {
        let digits = parse_group(group.strip_prefix('x')?)?;
        // A first group of zeros would be a second path for the same tile.
        if index == 0 && digits == 0 {
            return None;
        }
        index = index.checked_mul(1000)?.checked_add(digits)?;
    }
    index.checked_mul(1000)?.checked_add(parse_group(last)?)
}

fn parse_group(text: &str) -> Option<u64> {
    let digits = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}
