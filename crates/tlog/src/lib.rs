//! Merkle tree, tiles, checkpoints, cosignatures and proofs; knows bytes, not events.
//!
//! ```text
//!              root                    checkpoint: origin, size, root, signed as a note
//!            /      \
//!        [0,4)      [4,7)              compact range of size 7: [0,4) [4,6) [6,7)
//!        /   \      /    \
//!     [0,2) [2,4) [4,6)   6            inclusion proof of leaf 5 in size 7: 4, 6, [0,4)
//!      / \   / \   / \
//!     0   1 2   3 4   5                leaf = SHA-256(0x00 ‖ entry), node = SHA-256(0x01 ‖ left ‖ right)
//! ```
//!
//! The formats are those of C2SP (signed-note, tlog-checkpoint, tlog-cosignature, tlog-tiles, tlog-proof, tlog-policy,
//! the request of tlog-witness) over the tree of
//! RFC 6962, so that other people's tools read what is written here; one of them is in CBOR (`schemas/cose-receipt.md`).
//!
//! Of Countersign's own: the fork proof (`schemas/fork-proof.md`), two checkpoints that contradict each other.
//!
//! In scope: the arithmetic and the byte formats. Elsewhere: what an entry means (crate `event`), where nodes and tiles
//! are kept (crate `store`, behind [`NodeSource`]), the time of a cosignature (an argument here), whose keys are trusted.

pub mod add_checkpoint;
pub mod checkpoint;
mod compact_range;
pub mod cose_receipt;
pub mod cosignature_v1;
mod decimal;
pub mod fork_proof;
pub mod hash;
mod memory_tree;
pub mod note;
pub mod policy;
mod proof;
pub mod proof_file;
pub mod tile;

pub use checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint};
pub use compact_range::{CompactRange, CompactRangeError, TREE_SIZE_MAX};
pub use countersign_crypto::Hash;
pub use hash::{empty_root, leaf_hash, node_hash};
pub use memory_tree::{MemoryTree, NoSuchNode};
pub use note::{Algorithm, KeyId, Note, NoteError, NoteSignature, Vkey, VkeyError};
pub use proof::{
    NodeSource, PROOF_HASHES_MAX, ProofError, ProveError, compact_range_at, consistency_proof,
    consistency_proof_len, implied_old_root, inclusion_proof, inclusion_proof_len, inclusion_root,
    verify_consistency, verify_inclusion,
};
