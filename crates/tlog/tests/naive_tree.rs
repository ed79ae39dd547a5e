//! Compact ranges, proofs and tiles against the definitions of RFC 6962, written down as plain recursion.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::cell::RefCell;
use std::collections::HashMap;

use countersign_tlog::tile::{Tile, TileKind, tiles, tiles_between};
use countersign_tlog::{
    CompactRange, CompactRangeError, Hash, MemoryTree, NoSuchNode, NodeSource, ProofError,
    ProveError, TREE_SIZE_MAX, compact_range_at, consistency_proof, consistency_proof_len,
    empty_root, inclusion_proof, inclusion_proof_len, leaf_hash, node_hash, verify_consistency,
    verify_inclusion,
};

const SIZES: u64 = 256;

/// The tree of RFC 6962 section 2.1, by its recursive definitions.
struct Naive {
    leaves: Vec<Hash>,
    known: RefCell<HashMap<(usize, usize), Hash>>,
}

impl Naive {
    fn new(size: u64) -> Self {
        Self {
            leaves: (0..size).map(|n| leaf_hash(&n.to_be_bytes())).collect(),
            known: RefCell::default(),
        }
    }

    fn split(size: usize) -> usize {
        let mut k = 1;
        while 2 * k < size {
            k *= 2;
        }
        k
    }

    /// MTH(D[start:end]).
    fn root(&self, start: usize, end: usize) -> Hash {
        match end - start {
            0 => return empty_root(),
            1 => return self.leaves[start],
            _ => (),
        }
        if let Some(hash) = self.known.borrow().get(&(start, end)) {
            return *hash;
        }
        let k = start + Self::split(end - start);
        let hash = node_hash(&self.root(start, k), &self.root(k, end));
        self.known.borrow_mut().insert((start, end), hash);
        hash
    }

    /// PATH(m, D[start:end]).
    fn path(&self, m: usize, start: usize, end: usize) -> Vec<Hash> {
        if end - start == 1 {
            return Vec::new();
        }
        let k = Self::split(end - start);
        let (mut path, sibling) = if m < k {
            let path = self.path(m, start, start + k);
            (path, self.root(start + k, end))
        } else {
            let path = self.path(m - k, start + k, end);
            (path, self.root(start, start + k))
        };
        path.push(sibling);
        path
    }

    /// SUBPROOF(m, D[start:end], whole).
    fn subproof(&self, m: usize, start: usize, end: usize, whole: bool) -> Vec<Hash> {
        if m == end - start {
            return if whole {
                Vec::new()
            } else {
                vec![self.root(start, end)]
            };
        }
        let k = Self::split(end - start);
        let (mut proof, other) = if m <= k {
            let proof = self.subproof(m, start, start + k, whole);
            (proof, self.root(start + k, end))
        } else {
            let proof = self.subproof(m - k, start + k, end, false);
            (proof, self.root(start, start + k))
        };
        proof.push(other);
        proof
    }
}

fn memory_tree(naive: &Naive) -> MemoryTree {
    let mut tree = MemoryTree::new();
    for leaf in &naive.leaves {
        tree.append(*leaf);
    }
    tree
}

/// Every way to spoil one hash of a proof, with the length kept and with the length changed.
fn spoiled(proof: &[Hash]) -> Vec<Vec<Hash>> {
    let mut all = Vec::new();
    for at in 0..proof.len() {
        let mut altered = proof.to_vec();
        altered[at][at % 32] ^= 1 << (at % 8);
        all.push(altered);
        let mut dropped = proof.to_vec();
        dropped.remove(at);
        all.push(dropped);
    }
    for at in 0..=proof.len() {
        let mut added = proof.to_vec();
        added.insert(at, proof.first().copied().unwrap_or([7; 32]));
        all.push(added);
    }
    for at in 1..proof.len() {
        let mut swapped = proof.to_vec();
        swapped.swap(at - 1, at);
        all.push(swapped);
    }
    all
}

#[test]
fn classic_leaves_have_the_published_roots() {
    // The eight leaves and roots that Certificate Transparency implementations have shared since RFC 6962.
    let leaves: [&[u8]; 8] = [
        &[],
        &[0x00],
        &[0x10],
        &[0x20, 0x21],
        &[0x30, 0x31],
        &[0x40, 0x41, 0x42, 0x43],
        &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
        &[
            0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d,
            0x6e, 0x6f,
        ],
    ];
    let roots = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    let hex = |hash: Hash| hash.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let mut range = CompactRange::new();
    assert_eq!(hex(range.root()), roots[0]);
    for (leaf, root) in leaves.iter().zip(&roots[1..]) {
        range.append(leaf_hash(leaf));
        assert_eq!(&hex(range.root()), root, "size {}", range.size());
    }
}

#[test]
fn compact_range_of_every_size_has_the_naive_root_and_reports_each_node_once() {
    let naive = Naive::new(SIZES);
    let tree = memory_tree(&naive);
    let mut range = CompactRange::new();
    let mut nodes = HashMap::new();
    for size in 0..=SIZES {
        assert_eq!(range.size(), size);
        assert_eq!(range.root(), naive.root(0, size as usize), "size {size}");
        assert_eq!(range.hashes().len(), size.count_ones() as usize);
        assert_eq!(compact_range_at(&tree, size).unwrap(), range);
        let again = CompactRange::from_hashes(size, range.hashes().to_vec()).unwrap();
        assert_eq!(again, range);
        if let Some(leaf) = naive.leaves.get(size as usize) {
            range.append_with(*leaf, &mut |level, index, hash| {
                assert!(nodes.insert((level, index), hash).is_none());
            });
        }
    }
    for level in 1..=8u8 {
        for index in 0..SIZES >> level {
            let (start, end) = (index << level, (index + 1) << level);
            let expected = naive.root(start as usize, end as usize);
            assert_eq!(nodes.remove(&(level, index)), Some(expected));
        }
    }
    assert_eq!(nodes.len(), 0, "no node but the complete ones is reported");
}

#[test]
fn from_hashes_refuses_a_wrong_count_and_sizes_beyond_the_limit() {
    assert_eq!(
        CompactRange::from_hashes(6, vec![[0; 32]]),
        Err(CompactRangeError::Count {
            size: 6,
            expected: 2,
            actual: 1
        })
    );
    assert!(CompactRange::from_hashes(0, vec![[0; 32]]).is_err());
    assert!(CompactRange::from_hashes(TREE_SIZE_MAX, vec![[0; 32]; 63]).is_ok());
    for size in [TREE_SIZE_MAX + 1, u64::MAX] {
        let hashes = vec![[0; 32]; size.count_ones() as usize];
        let refused = CompactRange::from_hashes(size, hashes);
        assert_eq!(refused, Err(CompactRangeError::TooLarge { size }));
    }
}

#[test]
fn appending_to_the_largest_range_does_not_overflow() {
    let mut range = CompactRange::from_hashes(TREE_SIZE_MAX, vec![[1; 32]; 63]).unwrap();
    range.append([2; 32]);
    range.append([3; 32]);
    assert_eq!(range.size(), TREE_SIZE_MAX + 2);
    assert_eq!(range.hashes().len(), 2);
}

#[test]
fn inclusion_proofs_of_all_leaves_and_sizes_are_the_naive_ones_and_nothing_else_verifies() {
    let naive = Naive::new(SIZES);
    let tree = memory_tree(&naive);
    for size in 1..=SIZES {
        let root = naive.root(0, size as usize);
        for index in 0..size {
            let leaf = naive.leaves[index as usize];
            let proof = inclusion_proof(&tree, index, size).unwrap();
            assert_eq!(proof, naive.path(index as usize, 0, size as usize));
            assert_eq!(inclusion_proof_len(index, size), Some(proof.len()));
            assert_eq!(verify_inclusion(&leaf, index, size, &proof, &root), Ok(()));
            for bad in spoiled(&proof) {
                assert!(
                    verify_inclusion(&leaf, index, size, &bad, &root).is_err(),
                    "leaf {index} of {size}"
                );
            }
            let other_leaf = leaf_hash(b"other");
            assert!(verify_inclusion(&other_leaf, index, size, &proof, &root).is_err());
            assert!(verify_inclusion(&leaf, index, size, &proof, &other_leaf).is_err());
            for other in [index ^ 1, index + 1, index.wrapping_sub(1), index + size] {
                assert!(verify_inclusion(&leaf, other, size, &proof, &root).is_err());
            }
        }
        assert_eq!(
            inclusion_proof(&tree, size, size),
            Err(ProveError::Index { index: size, size })
        );
        assert_eq!(
            verify_inclusion(&naive.leaves[0], size, size, &[], &root),
            Err(ProofError::Index { index: size, size })
        );
    }
}

#[test]
fn consistency_proofs_of_all_pairs_are_the_naive_ones_and_nothing_else_verifies() {
    let naive = Naive::new(SIZES);
    let tree = memory_tree(&naive);
    for new in 0..=SIZES {
        let new_root = naive.root(0, new as usize);
        for old in 0..=new {
            let old_root = naive.root(0, old as usize);
            let proof = consistency_proof(&tree, old, new).unwrap();
            let expected = match old {
                0 => Vec::new(),
                _ => naive.subproof(old as usize, 0, new as usize, true),
            };
            assert_eq!(proof, expected, "{old} to {new}");
            assert_eq!(consistency_proof_len(old, new), Some(proof.len()));
            let verify = |old_root: &Hash, new_root: &Hash, proof: &[Hash]| {
                verify_consistency(old, old_root, new, new_root, proof)
            };
            assert_eq!(verify(&old_root, &new_root, &proof), Ok(()));
            for bad in spoiled(&proof) {
                assert!(
                    verify(&old_root, &new_root, &bad).is_err(),
                    "{old} to {new}"
                );
            }
            assert!(verify(&[9; 32], &new_root, &proof).is_err());
            if old > 0 {
                assert!(verify(&old_root, &[9; 32], &proof).is_err());
            }
            if old != new {
                let swapped = verify_consistency(new, &new_root, old, &old_root, &proof);
                assert_eq!(swapped, Err(ProofError::Sizes { old: new, new: old }));
            }
        }
    }
}

#[test]
fn the_same_size_needs_the_same_root_and_the_empty_tree_its_own() {
    let (a, b) = ([1; 32], [2; 32]);
    let check = verify_consistency;
    assert_eq!(check(7, &a, 7, &a, &[]), Ok(()));
    assert_eq!(
        check(7, &a, 7, &b, &[]),
        Err(ProofError::NewRoot { size: 7 })
    );
    assert_eq!(check(0, &empty_root(), 7, &a, &[]), Ok(()));
    assert_eq!(
        check(0, &a, 7, &b, &[]),
        Err(ProofError::OldRoot { size: 0 })
    );
    assert_eq!(
        check(0, &a, 0, &a, &[]),
        Err(ProofError::OldRoot { size: 0 })
    );
    let one_too_many = ProofError::Length {
        expected: 0,
        actual: 1,
    };
    assert_eq!(check(0, &empty_root(), 7, &a, &[b]), Err(one_too_many));
    assert_eq!(check(7, &a, 7, &a, &[b]), Err(one_too_many));
}

/// A tree of any size whose leaves are all alike: one hash for each level, and those on the right border by recursion.
struct Uniform(Vec<Hash>);

impl Uniform {
    fn new() -> Self {
        let mut levels = vec![leaf_hash(b"same")];
        for level in 0..63 {
            levels.push(node_hash(&levels[level], &levels[level]));
        }
        Self(levels)
    }

    fn root(&self, size: u64) -> Hash {
        let mut rest = size;
        let mut hash = None;
        while rest > 0 {
            let left = self.0[rest.trailing_zeros() as usize];
            hash = Some(hash.map_or(left, |right| node_hash(&left, &right)));
            rest &= rest - 1;
        }
        hash.unwrap_or_else(empty_root)
    }
}

impl NodeSource for Uniform {
    type Error = NoSuchNode;

    fn node(&self, level: u8, index: u64) -> Result<Hash, NoSuchNode> {
        let hash = self.0.get(usize::from(level)).copied();
        hash.ok_or(NoSuchNode { level, index })
    }
}

#[test]
fn proofs_hold_up_to_the_largest_sizes_there_are() {
    let tree = Uniform::new();
    let edges = [
        1,
        2,
        (1 << 32) - 1,
        1 << 32,
        TREE_SIZE_MAX,
        1 << 63,
        (1 << 63) + 1,
        u64::MAX - 1,
        u64::MAX,
    ];
    for size in edges {
        let root = tree.root(size);
        for index in edges.into_iter().chain([0, size - 1, size / 2]) {
            if index >= size {
                assert!(verify_inclusion(&tree.0[0], index, size, &[], &root).is_err());
                continue;
            }
            let proof = inclusion_proof(&tree, index, size).unwrap();
            assert_eq!(
                verify_inclusion(&tree.0[0], index, size, &proof, &root),
                Ok(())
            );
            for bad in spoiled(&proof).into_iter().filter(|bad| *bad != proof) {
                assert!(verify_inclusion(&tree.0[0], index, size, &bad, &root).is_err());
            }
        }
        for old in edges.into_iter().filter(|old| *old <= size) {
            let proof = consistency_proof(&tree, old, size).unwrap();
            let old_root = tree.root(old);
            let checked = verify_consistency(old, &old_root, size, &root, &proof);
            assert_eq!(checked, Ok(()), "{old} to {size}");
            for bad in spoiled(&proof).into_iter().filter(|bad| *bad != proof) {
                assert!(verify_consistency(old, &old_root, size, &root, &bad).is_err());
            }
        }
    }
    assert!(compact_range_at(&tree, TREE_SIZE_MAX).is_ok());
    assert!(compact_range_at(&tree, u64::MAX).is_err());
}

#[test]
fn a_missing_node_is_an_error_that_names_it() {
    let tree = memory_tree(&Naive::new(4));
    let missing = NoSuchNode { level: 2, index: 1 };
    assert_eq!(
        inclusion_proof(&tree, 0, 8),
        Err(ProveError::Source(missing))
    );
    assert!(compact_range_at(&tree, 5).is_err());
}

#[test]
fn tile_lists_name_what_a_tree_holds_and_what_growth_changed() {
    let paths = |size| tiles(size).map(|tile| tile.to_string()).collect::<Vec<_>>();
    assert_eq!(paths(0), Vec::<String>::new());
    assert_eq!(paths(1), ["tile/entries/000.p/1", "tile/0/000.p/1"]);
    assert_eq!(
        paths(256),
        ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]
    );
    // The example of the specification: a tree of 70,000.
    let count = |kind, partial| {
        tiles(70_000)
            .filter(|tile| tile.kind() == kind && tile.is_partial() == partial)
            .count()
    };
    for kind in [TileKind::Entries, TileKind::Hashes(0)] {
        assert_eq!((count(kind, false), count(kind, true)), (273, 1));
        assert_eq!(Tile::at_size(kind, 273, 70_000).unwrap().width(), 112);
        assert_eq!(Tile::at_size(kind, 274, 70_000), None);
    }
    let level_1 = TileKind::Hashes(1);
    assert_eq!((count(level_1, false), count(level_1, true)), (1, 1));
    assert_eq!(Tile::at_size(level_1, 1, 70_000).unwrap().width(), 17);
    assert_eq!(paths(70_000).last().unwrap(), "tile/2/000.p/1");

    for (old, new) in [
        (0, 300),
        (1, 1),
        (255, 256),
        (256, 257),
        (511, 513),
        (60_000, 70_000),
    ] {
        let had = tiles(old).collect::<std::collections::HashSet<_>>();
        let expected = tiles(new).filter(|tile| !had.contains(tile));
        assert!(tiles_between(old, new).eq(expected), "{old} to {new}");
    }
    let largest = tiles(u64::MAX).next().unwrap();
    assert_eq!(largest.to_string(), "tile/entries/000");
    let last = Tile::at_size(TileKind::Hashes(0), u64::MAX / 256, u64::MAX).unwrap();
    assert_eq!(last.width(), 255);
    assert_eq!(Tile::at_size(TileKind::Hashes(0), u64::MAX, u64::MAX), None);
    assert_eq!(Tile::at_size(TileKind::Hashes(63), 0, u64::MAX), None);
}
