//! Merkle tree, tiles, checkpoints, cosignatures and proofs; knows bytes, not events.
