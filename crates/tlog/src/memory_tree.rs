//! A tree kept in memory: for an auditor who has all leaves at hand, and for tests.

use countersign_crypto::Hash;

use crate::compact_range::CompactRange;
use crate::proof::NodeSource;

/// All nodes of a tree, about 64 bytes a leaf.
#[derive(Clone, Debug, Default)]
pub struct MemoryTree {
    range: CompactRange,
    // levels[l][i] is the complete subtree [i << l, (i + 1) << l).
    levels: Vec<Vec<Hash>>,
}

/// The tree does not have the node.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the tree has no complete subtree {index} of level {level}")]
pub struct NoSuchNode {
    /// The level asked for.
    pub level: u8,
    /// The index in that level.
    pub index: u64,
}

impl MemoryTree {
    /// The empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the hash of a leaf.
    pub fn append(&mut self, leaf: Hash) {
        let levels = &mut self.levels;
        let mut keep = |level: u8, _: u64, hash: Hash| {
            let level = usize::from(level);
            if levels.len() <= level {
                levels.resize_with(level + 1, Vec::new);
            }
            levels[level].push(hash);
        };
        keep(0, 0, leaf);
        self.range.append_with(leaf, &mut keep);
    }

    /// The compact range, which knows size and root.
    #[must_use]
    pub fn compact_range(&self) -> &CompactRange {
        &self.range
    }
}

impl NodeSource for MemoryTree {
    type Error = NoSuchNode;

    fn node(&self, level: u8, index: u64) -> Result<Hash, NoSuchNode> {
        self.levels
            .get(usize::from(level))
            .zip(usize::try_from(index).ok())
            .and_then(|(nodes, index)| nodes.get(index))
            .copied()
            .ok_or(NoSuchNode { level, index })
    }
}
