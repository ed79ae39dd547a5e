//! Entries, tiles and root agree, down to every byte of every tile.

use countersign_crypto::Hash;
use countersign_event::entry::{ENTRY_BYTES, Entry, leaf_hash};
use countersign_tlog::tile::{Tile, TileKind, decode_entry_bundle};

use crate::layout::{LEVELS, RUN};
use crate::report::{Check, Finding};
use crate::tree::Frontier;
use crate::walk::{Desk, Run, Walk};

/// Bytes of an entry and its length in an entry bundle.
const STRIDE: u64 = ENTRY_BYTES as u64 + 2;

/// Reads an entry bundle and its level-0 tile, hashes each entry and compares.
pub(crate) fn read_entries(walk: &Walk<'_>, index: u64, desk: &mut Desk, run: &mut Run) {
    desk.leaves.clear();
    desk.entries.clear();
    let Some(tile) = Tile::at_size(TileKind::Entries, index, walk.span.size) else {
        return;
    };
    let path = format!("{}{tile}", walk.log);
    let first = walk.span.leaves_of(index).start;
    let bytes = walk
        .files
        .read_into(&path, RUN * STRIDE, &mut desk.bytes)
        .map_err(|fault| fault.to_string());
    let entries = match bytes {
        Ok(bytes) => split_entries(bytes, tile.width()),
        Err(fault) => Err(format!("the entries cannot be read: {fault}")),
    };
    let entries = match entries {
        Ok(entries) => entries,
        Err(what) => {
            run.findings
                .push(walk.finding(Check::Tree, Some(first), Some(path), what));
            return;
        }
    };
    run.usable = true;
    for (sequence, entry) in (first..).zip(entries) {
        desk.leaves.push(leaf_hash(entry));
        desk.entries.push(match Entry::decode(entry) {
            Ok(entry) => Some(entry),
            Err(fault) => {
                let file = Some(path.clone());
                run.findings.push(walk.finding(
                    Check::Chain,
                    Some(sequence),
                    file,
                    fault.to_string(),
                ));
                None
            }
        });
    }
    compare_leaves(walk, index, first, desk, run);
}

fn split_entries(bytes: &[u8], width: u16) -> Result<Vec<&[u8; ENTRY_BYTES]>, String> {
    let entries = decode_entry_bundle(bytes).map_err(|fault| fault.to_string())?;
    if entries.len() != usize::from(width) {
        return Err(format!(
            "the entry bundle has {} entries, and {width} belong into it",
            entries.len()
        ));
    }
    let exact = entries
        .into_iter()
        .map(<&[u8; ENTRY_BYTES]>::try_from)
        .collect::<Result<_, _>>();
    exact.map_err(|_| format!("an entry in the bundle does not have {ENTRY_BYTES} bytes"))
}

fn compare_leaves(walk: &Walk<'_>, index: u64, first: u64, desk: &mut Desk, run: &mut Run) {
    desk.agrees.clear();
    desk.agrees.resize(desk.leaves.len(), true);
    let Some(tile) = Tile::at_size(TileKind::Hashes(0), index, walk.span.size) else {
        return;
    };
    let path = format!("{}{tile}", walk.log);
    match read_tile(walk, tile, &path, &mut desk.bytes) {
        Err(what) => run
            .findings
            .push(walk.finding(Check::Tree, None, Some(path), what)),
        Ok(hashes) => {
            for (at, (hash, leaf)) in hashes.chunks_exact(32).zip(&desk.leaves).enumerate() {
                if hash != leaf {
                    desk.agrees[at] = false;
                    let what =
                        "the entry does not have the hash that the tree has for it".to_owned();
                    let sequence = Some(first + at as u64);
                    run.findings.push(walk.finding(
                        Check::Tree,
                        sequence,
                        Some(path.clone()),
                        what,
                    ));
                }
            }
        }
    }
}

/// Compares the root with the checkpoint's.
pub(crate) fn check_root(walk: &Walk<'_>, frontier: &Frontier, found: &mut dyn FnMut(Finding)) {
    if frontier.root() != walk.root {
        let path = format!("{}checkpoint", walk.log);
        let what = format!(
            "the {} entries do not give the root that the checkpoint signs",
            walk.span.size
        );
        found(walk.finding(Check::Tree, None, Some(path), what));
    }
}

/// The tiles of hashes above the entries, read once each, in order.
pub(crate) struct Tiles<'w> {
    walk: &'w Walk<'w>,
    // The tile under comparison at each level: its index, and its bytes where it could be read.
    open: [Option<(u64, Option<Vec<u8>>)>; LEVELS as usize],
}

impl<'w> Tiles<'w> {
    pub(crate) fn new(walk: &'w Walk<'w>) -> Self {
        Self {
            walk,
            open: Default::default(),
        }
    }

    /// The hash of node `index` of tile level `level`, out of its tile.
    pub(crate) fn node(
        &mut self,
        level: u8,
        index: u64,
        found: &mut dyn FnMut(Finding),
    ) -> Option<Hash> {
        let at = 32 * usize::try_from(index % RUN).ok()?;
        let bytes = self.load(level, index / RUN, found)?;
        bytes.get(at..at + 32)?.try_into().ok()
    }

    /// Compares a node that was computed with its tile, if it has one here.
    pub(crate) fn compare(
        &mut self,
        level: u8,
        index: u64,
        hash: &Hash,
        found: &mut dyn FnMut(Finding),
    ) {
        // Level 0 is compared with the entries, run by run; what is stepped over came out of its tile.
        if !level.is_multiple_of(8) || level == 0 || level / 8 >= LEVELS {
            return;
        }
        let level = level / 8;
        let Some(tile) = self.walk.span.hash_tile(level, index / RUN) else {
            return;
        };
        if let Some(stated) = self.node(level, index, found)
            && stated != *hash
        {
            let path = format!("{}{tile}", self.walk.log);
            let what = format!(
                "hash {} of the tile is not that of the tree beneath it",
                index % RUN
            );
            found(self.walk.finding(Check::Tree, None, Some(path), what));
        }
    }

    fn load(&mut self, level: u8, index: u64, found: &mut dyn FnMut(Finding)) -> Option<&[u8]> {
        let walk = self.walk;
        let open = self.open.get_mut(usize::from(level))?;
        if open.as_ref().is_none_or(|(at, _)| *at != index) {
            let tile = Tile::at_size(TileKind::Hashes(level), index, walk.span.size)?;
            let path = format!("{}{tile}", walk.log);
            let mut bytes = Vec::new();
            let bytes = match read_tile(walk, tile, &path, &mut bytes) {
                Ok(_) => Some(bytes),
                Err(what) => {
                    found(walk.finding(Check::Tree, None, Some(path), what));
                    None
                }
            };
            *open = Some((index, bytes));
        }
        open.as_ref()?.1.as_deref()
    }
}

fn read_tile<'b>(
    walk: &Walk<'_>,
    tile: Tile,
    path: &str,
    memory: &'b mut Vec<u8>,
) -> Result<&'b [u8], String> {
    let expected = 32 * u64::from(tile.width());
    match walk.files.read_into(path, 32 * RUN, memory) {
        Ok(bytes) if bytes.len() as u64 == expected => Ok(bytes),
        Ok(bytes) => Err(format!(
            "the tile has {} bytes, and {} hashes have {expected}",
            bytes.len(),
            tile.width()
        )),
        Err(fault) => Err(format!("the tile cannot be read: {fault}")),
    }
}
