//! QUIC between nodes and clients: mutual TLS 1.3 with raw public keys, bounded per peer, carrying frames.
//!
//! ```text
//! Endpoint (one UDP socket) ── Connection (one peer key) ── bidirectional stream ── frames
//!                                                            FrameWriter ─────────► FrameReader
//! frame = length u32 (big-endian, of what follows) ‖ kind u8 ‖ body
//! ```
//!
//! In scope: sockets, the handshake and what it proves (the peer holds the private half of [`Connection::peer_key`]),
//! every limit a peer can lean on ([`QuicLimits`]), and frames as raw bytes. Elsewhere: what a frame says (crate
//! `protocol`), and whether a key may do anything at all (the acceptor's own judge, after the handshake).

mod connection;
mod endpoint;
mod error;
mod framing;
mod limits;
mod tls;

pub use connection::Connection;
pub use endpoint::{Accepting, Endpoint, Incoming};
pub use error::{ConnectError, ConnectionEnded, PeerKeyFault};
pub use framing::{FRAME_HEADER_BYTES, FrameError, FrameReader, FrameWriter, RawFrame};
pub use limits::QuicLimits;
pub use tls::{ALPN, SERVER_NAME, ServerPin, client_config, server_config};
