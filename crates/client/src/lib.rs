//! Publish, subscribe and verify over QUIC without running a node.
