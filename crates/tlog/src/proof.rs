//! Inclusion and consistency proofs (RFC 6962 section 2.1, RFC 9162 section 2.1): made from stored nodes, verified purely.
//!
//! A proof is a path: the siblings from a node up to the root. An inclusion proof starts at a leaf; a consistency proof
//! starts at the last complete subtree of the old tree, which is named first unless it is the whole old tree.

use countersign_crypto::Hash;

use crate::compact_range::{CompactRange, CompactRangeError, fold_right};
use crate::hash::{empty_root, node_hash};

/// The most hashes that any proof has: a consistency proof's start and 64 siblings. Who reads proofs from outside
/// checks this before allocating.
pub const PROOF_HASHES_MAX: usize = 65;

/// Where the hashes of complete subtrees are kept.
pub trait NodeSource {
    /// What can go wrong when a node is read.
    type Error;

    /// The hash of the complete subtree over the leaves `[index << level, (index + 1) << level)`; level 0 is the leaves'.
    ///
    /// # Errors
    /// What the source says, also where it does not hold the node.
    fn node(&self, level: u8, index: u64) -> Result<Hash, Self::Error>;
}

impl<S: NodeSource + ?Sized> NodeSource for &S {
    type Error = S::Error;

    fn node(&self, level: u8, index: u64) -> Result<Hash, Self::Error> {
        (**self).node(level, index)
    }
}

/// Why a proof cannot be made.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProveError<E> {
    /// The leaf is not in the tree.
    #[error("leaf {index} is not in a tree of {size} leaves")]
    Index {
        /// The leaf asked for.
        index: u64,
        /// The size of the tree.
        size: u64,
    },
    /// The old tree is larger than the new one.
    #[error("a tree of {old} leaves is no beginning of one of {new}")]
    Sizes {
        /// The size of the old tree.
        old: u64,
        /// The size of the new tree.
        new: u64,
    },
    /// No compact range of this size is taken.
    #[error(transparent)]
    Range(#[from] CompactRangeError),
    /// The source of nodes failed.
    #[error("a node of the tree cannot be read: {0}")]
    Source(E),
}

/// Why a proof is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProofError {
    /// The leaf is not in the tree.
    #[error("leaf {index} is not in a tree of {size} leaves")]
    Index {
        /// The leaf.
        index: u64,
        /// The size of the tree.
        size: u64,
    },
    /// The proof does not have the one length that is right for its numbers.
    #[error("the proof must have {expected} hashes and has {actual}")]
    Length {
        /// The right number of hashes.
        expected: usize,
        /// The number of hashes given.
        actual: usize,
    },
    /// The proof does not lead to the root of the new tree (or of the only one).
    #[error("the proof does not lead to the root of the tree of {size} leaves")]
    NewRoot {
        /// The size of that tree.
        size: u64,
    },
    /// The proof does not lead to the root of the old tree.
    #[error("the proof does not lead to the root of the old tree of {size} leaves")]
    OldRoot {
        /// The size of the old tree.
        size: u64,
    },
    /// The old tree is larger than the new one.
    #[error("a tree of {old} leaves is no beginning of one of {new}")]
    Sizes {
        /// The size of the old tree.
        old: u64,
        /// The size of the new tree.
        new: u64,
    },
}

/// The proof that the leaf `index` is in the tree of `size` leaves, from the leaf's sibling up.
///
/// # Errors
/// [`ProveError::Index`], [`ProveError::Source`].
pub fn inclusion_proof<S: NodeSource>(
    source: &S,
    index: u64,
    size: u64,
) -> Result<Vec<Hash>, ProveError<S::Error>> {
    if index >= size {
        return Err(ProveError::Index { index, size });
    }
    let start = Node { level: 0, index };
    let mut proof = Vec::with_capacity(start.path_len(size));
    start.push_path(source, size, &mut proof)?;
    Ok(proof)
}

/// The proof that the tree of `old` leaves is a beginning of the tree of `new` leaves; empty where `old` is zero or `new`.
///
/// # Errors
/// [`ProveError::Sizes`], [`ProveError::Source`].
pub fn consistency_proof<S: NodeSource>(
    source: &S,
    old: u64,
    new: u64,
) -> Result<Vec<Hash>, ProveError<S::Error>> {
    if old > new {
        return Err(ProveError::Sizes { old, new });
    }
    if old == 0 || old == new {
        return Ok(Vec::new());
    }
    let start = Node::last_complete(old);
    let mut proof = Vec::with_capacity(1 + start.path_len(new));
    if !old.is_power_of_two() {
        proof.push(start.read(source)?);
    }
    start.push_path(source, new, &mut proof)?;
    Ok(proof)
}

/// The compact range of the first `size` leaves.
///
/// # Errors
/// [`ProveError::Range`], [`ProveError::Source`].
pub fn compact_range_at<S: NodeSource>(
    source: &S,
    size: u64,
) -> Result<CompactRange, ProveError<S::Error>> {
    Ok(CompactRange::from_hashes(size, subtrees(source, 0, size)?)?)
}

/// The number of hashes of the inclusion proof of leaf `index` in a tree of `size` leaves; `None` where it is not in it.
#[must_use]
pub fn inclusion_proof_len(index: u64, size: u64) -> Option<usize> {
    (index < size).then(|| Node { level: 0, index }.path_len(size))
}

/// The number of hashes of the consistency proof from `old` to `new` leaves; `None` where `old` is the larger.
#[must_use]
pub fn consistency_proof_len(old: u64, new: u64) -> Option<usize> {
    match old {
        _ if old > new => None,
        _ if old == 0 || old == new => Some(0),
        _ => Some(usize::from(!old.is_power_of_two()) + Node::last_complete(old).path_len(new)),
    }
}

/// Verifies that a leaf is at `index` in the tree of `size` leaves under `root`.
///
/// # Errors
/// [`ProofError`].
pub fn verify_inclusion(
    leaf_hash: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), ProofError> {
    if inclusion_root(leaf_hash, index, size, proof)? != *root {
        return Err(ProofError::NewRoot { size });
    }
    Ok(())
}

/// The root to which an inclusion proof leads. Whoever has the root from elsewhere calls [`verify_inclusion`]; this is for a root that only a signature
/// holds fast.
///
/// # Errors
/// [`ProofError::Index`], [`ProofError::Length`].
pub fn inclusion_root(
    leaf_hash: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
) -> Result<Hash, ProofError> {
    let expected = inclusion_proof_len(index, size).ok_or(ProofError::Index { index, size })?;
    expect_len(proof, expected)?;
    let mut hash = *leaf_hash;
    Node { level: 0, index }.climb(size, proof, |sibling, side| match side {
        Side::Left => hash = node_hash(sibling, &hash),
        Side::Right => hash = node_hash(&hash, sibling),
    });
    Ok(hash)
}

/// Verifies that the tree of `old` leaves under `old_root` is a beginning of the tree of `new` leaves under `new_root`.
///
/// # Errors
/// [`ProofError`]. The empty tree has but one root, and a tree of the same size the same root. From the empty tree every
/// tree follows, so that `old` zero says nothing about `new_root`.
pub fn verify_consistency(
    old: u64,
    old_root: &Hash,
    new: u64,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    let expected = consistency_proof_len(old, new).ok_or(ProofError::Sizes { old, new })?;
    expect_len(proof, expected)?;
    if old == 0 && *old_root != empty_root() {
        return Err(ProofError::OldRoot { size: old });
    }
    if old == new && old_root != new_root {
        return Err(ProofError::NewRoot { size: new });
    }
    if old == 0 || old == new {
        return Ok(());
    }
    let (old_hash, new_hash) = climb_both(old, new, old_root, proof);
    if old_hash != *old_root {
        return Err(ProofError::OldRoot { size: old });
    }
    if new_hash != *new_root {
        return Err(ProofError::NewRoot { size: new });
    }
    Ok(())
}

/// The root that a consistency proof says the tree under `new_root` has at `old` leaves, whichever the asker expected. `None` where the proof does not lead
/// to `new_root`, and where it does not say: `old` is zero, `new` or a power of two.
#[must_use]
pub fn implied_old_root(old: u64, new: u64, new_root: &Hash, proof: &[Hash]) -> Option<Hash> {
    let says_it = 0 < old && old < new && !old.is_power_of_two();
    if !says_it || consistency_proof_len(old, new) != Some(proof.len()) {
        return None;
    }
    // The old root given here is only looked at where old is a power of two.
    let (old_hash, new_hash) = climb_both(old, new, new_root, proof);
    (new_hash == *new_root).then_some(old_hash)
}

/// The roots of both trees, as a consistency proof of the right length gives them; `old` is neither zero nor `new`.
fn climb_both(old: u64, new: u64, old_root: &Hash, proof: &[Hash]) -> (Hash, Hash) {
    let (first, path) = match proof.split_first() {
        Some((first, rest)) if !old.is_power_of_two() => (first, rest),
        _ => (old_root, proof),
    };
    let (mut old_hash, mut new_hash) = (*first, *first);
    Node::last_complete(old).climb(new, path, |sibling, side| match side {
        // What lies left of the old tree's last subtree is in both trees; what lies right of it only in the new one.
        Side::Left => {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
        }
        Side::Right => new_hash = node_hash(&new_hash, sibling),
    });
    (old_hash, new_hash)
}

fn expect_len(proof: &[Hash], expected: usize) -> Result<(), ProofError> {
    if proof.len() != expected {
        return Err(ProofError::Length {
            expected,
            actual: proof.len(),
        });
    }
    Ok(())
}

/// On which side of the path a sibling lies.
#[derive(Clone, Copy)]
enum Side {
    Left,
    Right,
}

/// The subtree over the leaves `[index << level, (index + 1) << level)`, cut off at the size of the tree it is in.
#[derive(Clone, Copy)]
struct Node {
    level: u8,
    index: u64,
}

impl Node {
    /// The smallest complete subtree on the right border of a tree of `size` leaves, which is not zero.
    fn last_complete(size: u64) -> Self {
        let level = size.trailing_zeros() as u8;
        let index = (size >> level) - 1;
        Self { level, index }
    }

    /// The siblings on the way from here to the root of a tree of `size` leaves, in which this node lies.
    fn siblings(self, size: u64) -> impl Iterator<Item = (Self, Side)> {
        let Self {
            mut level,
            mut index,
        } = self;
        let mut last = (size - 1) >> level;
        std::iter::from_fn(move || {
            while last > 0 {
                let sibling = match index & 1 {
                    1 => Some((index - 1, Side::Left)),
                    _ if index < last => Some((index + 1, Side::Right)),
                    // The last node of a level without a partner stands for its parent too.
                    _ => None,
                };
                let at = level;
                (level, index, last) = (level + 1, index >> 1, last >> 1);
                if let Some((index, side)) = sibling {
                    return Some((Self { level: at, index }, side));
                }
            }
            None
        })
    }

    fn path_len(self, size: u64) -> usize {
        self.siblings(size).count()
    }

    /// Hands each hash of a path to `step` with the side that it lies on.
    fn climb(self, size: u64, path: &[Hash], mut step: impl FnMut(&Hash, Side)) {
        for ((_, side), sibling) in self.siblings(size).zip(path) {
            step(sibling, side);
        }
    }

    fn push_path<S: NodeSource>(
        self,
        source: &S,
        size: u64,
        proof: &mut Vec<Hash>,
    ) -> Result<(), ProveError<S::Error>> {
        for (sibling, _) in self.siblings(size) {
            proof.push(sibling.read_within(source, size)?);
        }
        Ok(())
    }

    fn read<S: NodeSource>(self, source: &S) -> Result<Hash, ProveError<S::Error>> {
        source
            .node(self.level, self.index)
            .map_err(ProveError::Source)
    }

    /// The hash of this subtree as it is in a tree of `size` leaves, where it may be incomplete.
    fn read_within<S: NodeSource>(
        self,
        source: &S,
        size: u64,
    ) -> Result<Hash, ProveError<S::Error>> {
        let start = self.index << self.level;
        if size - start >= 1 << self.level {
            return self.read(source);
        }
        let parts = subtrees(source, start, size)?;
        Ok(fold_right(&parts).unwrap_or_else(empty_root))
    }
}

/// The hashes of the complete subtrees that make up `[start, end)`, largest first; `start` is a multiple of a power of
/// two that is not below `end - start`.
fn subtrees<S: NodeSource>(
    source: &S,
    start: u64,
    end: u64,
) -> Result<Vec<Hash>, ProveError<S::Error>> {
    let mut rest = end - start;
    let mut at = start;
    let mut hashes = Vec::with_capacity(rest.count_ones() as usize);
    while rest > 0 {
        let level = rest.ilog2() as u8;
        let index = at >> level;
        hashes.push(Node { level, index }.read(source)?);
        at += 1 << level;
        rest -= 1 << level;
    }
    Ok(hashes)
}
