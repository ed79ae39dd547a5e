//! Publish, subscribe and verify over QUIC without running a node.
//!
//! In scope: the QUIC connection both of a program and of a node ([`quic`]). Elsewhere: the messages (crate `protocol`),
//! who may do what (crates `exchange` and `policy`).

pub mod quic;
