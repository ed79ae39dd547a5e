//! The compact range of a tree: all that is needed to append leaves and to know the root.
//!
//! ```text
//! size 7 = 0b111         [0,4)      [4,6)   [6,7)
//!                       level 2    level 1  level 0      one hash for each 1 bit of the size, largest first
//! ```

use countersign_crypto::Hash;

use crate::hash::{empty_root, node_hash};

/// The largest tree size that a [`CompactRange`] takes from outside: 2^63 − 1, the limit of the signed 64-bit sizes of
/// other tlog programs. From there no log can be appended to until the counter overflows.
pub const TREE_SIZE_MAX: u64 = (1 << 63) - 1;

/// The roots of the complete subtrees that make up a tree of `size` leaves; at most 63 hashes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CompactRange {
    // INVARIANT: hashes.len() == size.count_ones(), largest subtree first.
    size: u64,
    hashes: Vec<Hash>,
}

/// Hashes that are not the compact range of a tree.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CompactRangeError {
    /// The number of hashes does not fit the size.
    #[error("a tree of {size} leaves has a compact range of {expected} hashes, not {actual}")]
    Count {
        /// The size of the tree.
        size: u64,
        /// The number of 1 bits of `size`.
        expected: usize,
        /// The number of hashes given.
        actual: usize,
    },
    /// The size is beyond [`TREE_SIZE_MAX`].
    #[error("a tree of {size} leaves is larger than the limit of {TREE_SIZE_MAX}")]
    TooLarge {
        /// The size of the tree.
        size: u64,
    },
}

impl CompactRange {
    /// The compact range of the empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the hashes of the complete subtrees, largest first, as [`CompactRange::hashes`] gave them.
    ///
    /// # Errors
    /// [`CompactRangeError`]; whether the hashes are true only a root can say.
    pub fn from_hashes(size: u64, hashes: Vec<Hash>) -> Result<Self, CompactRangeError> {
        if size > TREE_SIZE_MAX {
            return Err(CompactRangeError::TooLarge { size });
        }
        let expected = size.count_ones() as usize;
        if hashes.len() != expected {
            return Err(CompactRangeError::Count {
                size,
                expected,
                actual: hashes.len(),
            });
        }
        Ok(Self { size, hashes })
    }

    /// The number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the complete subtrees, largest first.
    #[must_use]
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    /// Appends the hash of one leaf; on average one node is hashed.
    pub fn append(&mut self, leaf: Hash) {
        self.append_with(leaf, &mut |_, _, _| ());
    }

    /// Appends the hash of one leaf and reports each interior node that it completes, from the lowest up: its level
    /// (from 1), its index in that level, its hash. A store keeps tiles from these reports.
    pub fn append_with(&mut self, leaf: Hash, completed: &mut impl FnMut(u8, u64, Hash)) {
        let mut node = leaf;
        let mut level = 0u8;
        // Each trailing 1 bit of the size is a complete subtree that the new node makes into one of twice its size.
        while (self.size >> level) & 1 == 1
            && let Some(left) = self.hashes.pop()
        {
            node = node_hash(&left, &node);
            level += 1;
            completed(level, self.size >> level, node);
        }
        self.hashes.push(node);
        self.size += 1;
    }

    /// The root of the tree; up to 62 nodes are hashed.
    #[must_use]
    pub fn root(&self) -> Hash {
        fold_right(&self.hashes).unwrap_or_else(empty_root)
    }
}

/// The root over adjoining complete subtrees, largest first; `None` where there are none.
pub(crate) fn fold_right(hashes: &[Hash]) -> Option<Hash> {
    hashes
        .iter()
        .rev()
        .copied()
        .reduce(|right, left| node_hash(&left, &right))
}
