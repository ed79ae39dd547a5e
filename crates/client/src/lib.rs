//! Publish, subscribe and verify over QUIC without running a node.

pub mod error;
pub mod publisher;
pub mod quic;
pub mod session;
pub mod subscriber;
