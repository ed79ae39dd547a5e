//! A tree built from subtrees of any size, left to right, which reports the nodes that tiles hold.

use countersign_tlog::{Hash, empty_root, node_hash};

/// The complete subtrees of a growing tree. Unlike a compact range it takes whole subtrees, so that parts of a tree whose
/// entries are not here can be stepped over.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frontier {
    // INVARIANT: one element for each 1 bit of `size`, largest level first.
    nodes: Vec<(u8, Hash)>,
    size: u64,
}

impl Frontier {
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Appends a complete subtree of 2^`level` leaves; the size must be a multiple of that, which the caller sees to.
    /// `completed` hears of each node that this completes, itself included, from the lowest up: level, index, hash.
    pub(crate) fn push(
        &mut self,
        level: u8,
        hash: Hash,
        completed: &mut impl FnMut(u8, u64, &Hash),
    ) {
        debug_assert!(self.size.trailing_zeros() >= u32::from(level));
        let (mut level, mut hash) = (level, hash);
        let mut index = self.size >> level;
        self.size = self.size.saturating_add(1 << level);
        completed(level, index, &hash);
        while let Some((left_level, left)) = self.nodes.last()
            && *left_level == level
        {
            hash = node_hash(left, &hash);
            level += 1;
            index >>= 1;
            self.nodes.pop();
            completed(level, index, &hash);
        }
        self.nodes.push((level, hash));
    }

    /// The root of the tree so far.
    pub(crate) fn root(&self) -> Hash {
        let hashes = self.nodes.iter().rev().map(|(_, hash)| *hash);
        hashes
            .reduce(|right, left| node_hash(&left, &right))
            .unwrap_or_else(empty_root)
    }
}

/// The root over the 256 hashes of a full tile; `None` for another number.
pub(crate) fn full_tile_root(hashes: &[Hash]) -> Option<Hash> {
    let mut nodes: [Hash; 256] = hashes.try_into().ok()?;
    let mut width = nodes.len();
    while width > 1 {
        width /= 2;
        for at in 0..width {
            nodes[at] = node_hash(&nodes[2 * at], &nodes[2 * at + 1]);
        }
    }
    Some(nodes[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use countersign_tlog::{MemoryTree, NodeSource, leaf_hash};

    #[test]
    fn leaves_and_subtrees_give_the_same_root() {
        let leaves: Vec<Hash> = (0..600u32).map(|n| leaf_hash(&n.to_be_bytes())).collect();
        let mut memory = MemoryTree::new();
        let mut by_leaf = Frontier::default();
        for leaf in &leaves {
            memory.append(*leaf);
            by_leaf.push(0, *leaf, &mut |level, index, hash| {
                assert_eq!(memory.node(level, index).as_ref(), Ok(hash));
            });
            assert_eq!(by_leaf.root(), memory.compact_range().root());
        }
        let mut by_tile = Frontier::default();
        for tile in leaves.chunks(256) {
            match full_tile_root(tile) {
                Some(root) => by_tile.push(8, root, &mut |_, _, _| ()),
                None => tile
                    .iter()
                    .for_each(|leaf| by_tile.push(0, *leaf, &mut |_, _, _| ())),
            }
        }
        assert_eq!((by_tile.root(), by_tile.size()), (by_leaf.root(), 600));
    }
}
