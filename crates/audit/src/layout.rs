//! Which tiles a bundle of entries [from, to) of a tree of n leaves needs: `schemas/bundle.md`, "Which tiles".

use countersign_tlog::tile::{TILE_WIDTH, Tile, TileKind};

/// Leaves under one level-0 tile.
pub(crate) const RUN: u64 = TILE_WIDTH as u64;

/// Tile levels that a tree of at most 2^63 leaves can have.
pub(crate) const LEVELS: u8 = 8;

/// The part of a tree that a bundle holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Span {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) size: u64,
}

impl Span {
    /// Whether it is a part at all: at least one entry, within the tree.
    pub(crate) fn is_valid(self) -> bool {
        self.from < self.to && self.to <= self.size && self.size <= countersign_tlog::TREE_SIZE_MAX
    }

    pub(crate) fn is_whole(self) -> bool {
        self.from == 0 && self.to == self.size
    }

    /// First leaf whose entry is here: `from` rounded down to a tile.
    pub(crate) fn start(self) -> u64 {
        self.from - self.from % RUN
    }

    /// First leaf after those whose entries are here: `to` rounded up to a tile, or the size.
    pub(crate) fn end(self) -> u64 {
        self.to
            .checked_next_multiple_of(RUN)
            .map_or(self.size, |end| end.min(self.size))
    }

    /// Indices of the entry bundles.
    pub(crate) fn runs(self) -> std::ops::Range<u64> {
        self.start() / RUN..self.end().div_ceil(RUN)
    }

    /// The leaves of entry bundle `index`.
    pub(crate) fn leaves_of(self, index: u64) -> std::ops::Range<u64> {
        let first = index.saturating_mul(RUN);
        first..first.saturating_add(RUN).min(self.size)
    }

    /// The entries of content file `index`.
    pub(crate) fn content_of(self, index: u64) -> std::ops::Range<u64> {
        let leaves = self.leaves_of(index);
        leaves.start.max(self.from)..leaves.end.min(self.to)
    }

    /// Indices of the tiles of a level that the entries themselves fall under.
    fn level(self, level: u8) -> std::ops::RangeInclusive<u64> {
        let shift = 8 * u32::from(level);
        (self.start() >> shift) / RUN..=((self.end() - 1) >> shift) / RUN
    }

    /// The partial tile on the right border at a level.
    fn border(self, level: u8) -> Option<u64> {
        let nodes = self.size >> (8 * u32::from(level));
        (!nodes.is_multiple_of(RUN)).then_some(nodes / RUN)
    }

    /// Whether the tile is needed, in just this width.
    pub(crate) fn needs(self, tile: Tile) -> bool {
        let index = tile.index();
        Tile::at_size(tile.kind(), index, self.size) == Some(tile)
            && match tile.kind() {
                TileKind::Entries => self.runs().contains(&index),
                TileKind::Hashes(level) => {
                    level < LEVELS
                        && (self.level(level).contains(&index) || self.border(level) == Some(index))
                }
            }
    }

    /// The needed tile of hashes at a level and index, if there is one.
    pub(crate) fn hash_tile(self, level: u8, index: u64) -> Option<Tile> {
        Tile::at_size(TileKind::Hashes(level), index, self.size).filter(|tile| self.needs(*tile))
    }

    /// How many tiles and entry bundles are needed.
    pub(crate) fn tile_count(self) -> u64 {
        let runs = self.runs();
        let mut count = runs.end - runs.start;
        for level in 0..LEVELS {
            let inner = self.level(level);
            let existing = (self.size >> (8 * u32::from(level))).div_ceil(RUN);
            let end = (inner.end() + 1).min(existing);
            count += end.saturating_sub(*inner.start());
            count += u64::from(self.border(level).is_some_and(|border| border >= end));
        }
        count
    }
}

/// The complete subtrees that lead a tree from `from` to `to` leaves without their entries: (tile level, index), in order.
/// Each is the largest that is aligned and fits.
pub(crate) fn fill(from: u64, to: u64) -> impl Iterator<Item = (u8, u64)> {
    let mut at = from;
    std::iter::from_fn(move || {
        if at >= to {
            return None;
        }
        let mut level = 0;
        while level + 1 < LEVELS {
            let width = 1u64 << (8 * u32::from(level + 1));
            if !at.is_multiple_of(width) || to - at < width {
                break;
            }
            level += 1;
        }
        let shift = 8 * u32::from(level);
        let node = (level, at >> shift);
        at += 1 << shift;
        Some(node)
    })
}

/// Path of the content file of entry bundle `index`, without the log's own prefix.
pub(crate) fn content_path(index: u64) -> String {
    // The tile path with its kind exchanged: one way to write an index.
    let tile = Tile::new(TileKind::Entries, index, TILE_WIDTH).map(|tile| tile.to_string());
    format!(
        "content/{}",
        tile.unwrap_or_default().trim_start_matches("tile/entries/")
    )
}

/// The entry bundle whose content file a path names.
pub(crate) fn parse_content_path(path: &str) -> Option<u64> {
    let index = path.strip_prefix("content/")?;
    let tile = Tile::parse(&format!("tile/entries/{index}")).ok()?;
    (!tile.is_partial()).then(|| tile.index())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn needed(span: Span) -> BTreeSet<(u8, u64)> {
        let all = (0..LEVELS).flat_map(|level| {
            (0..=(span.size >> (8 * u32::from(level))) / RUN).map(move |at| (level, at))
        });
        all.filter(|(level, index)| span.hash_tile(*level, *index).is_some())
            .collect()
    }

    #[test]
    fn a_whole_log_needs_every_tile() {
        for size in [
            1, 2, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 65_792, 131_073,
        ] {
            let span = Span {
                from: 0,
                to: size,
                size,
            };
            let all: Vec<Tile> = countersign_tlog::tile::tiles(size).collect();
            assert!(all.iter().all(|tile| span.needs(*tile)), "{size}");
            assert_eq!(span.tile_count(), all.len() as u64, "{size}");
        }
    }

    #[test]
    fn a_range_needs_just_the_tiles_that_its_root_uses() {
        for size in [300u64, 1000, 65_536, 65_800, 131_072, 200_000] {
            for from in [0, 1, 255, 256, 257, 600, 65_536, 65_537, 131_072] {
                for to in [from + 1, from + 256, from + 300, from + 66_000, size] {
                    let span = Span { from, to, size };
                    if !span.is_valid() {
                        continue;
                    }
                    let fills = fill(0, span.start()).chain(fill(span.end(), size));
                    let mut used: BTreeSet<(u8, u64)> =
                        fills.map(|(level, index)| (level, index / RUN)).collect();
                    for level in 0..LEVELS {
                        let shift = 8 * u32::from(level);
                        // Nodes that the entries complete, or begin to.
                        let nodes = (span.start() >> shift)..=((span.end() - 1) >> shift);
                        used.extend(
                            nodes
                                .filter(|node| *node < size >> shift)
                                .map(|node| (level, node / RUN)),
                        );
                    }
                    // A tile that is needed is used; a used one is needed.
                    assert_eq!(needed(span), used, "{span:?}");
                    let runs = span.runs();
                    assert_eq!(
                        span.tile_count(),
                        used.len() as u64 + runs.end - runs.start,
                        "{span:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn content_paths_are_read_back() {
        for index in [0, 7, 999, 1000, 1_234_067] {
            assert_eq!(parse_content_path(&content_path(index)), Some(index));
        }
        assert_eq!(content_path(1_234_067), "content/x001/x234/067");
        for bad in [
            "content/",
            "content/7",
            "content/000.p/3",
            "content/x000/001",
            "content/../000",
        ] {
            assert_eq!(parse_content_path(bad), None, "{bad}");
        }
    }
}
