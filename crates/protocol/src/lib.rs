//! Messages and framing between nodes: bytes in, bytes out. The format is `schemas/protocol.md`.
//!
//! ```text
//! frame = length u32 ‖ kind u8 ‖ postcard(message) ‖ [ bulk bytes ]
//! ```
//!
//! In scope: the messages, their limits, the binary form of published events ([`publish`]), the delivery batch and its verification
//! ([`delivery`]), the invitation link ([`invitation`]). Elsewhere: sockets and TLS (crate `client`), who may ask what (crate `exchange`).

pub mod delivery;
mod frame;
pub mod invitation;
mod messages;
pub mod publish;
mod request;
mod varint;

pub use frame::{
    BULK_FRAME_BYTES_MAX, CONTROL_FRAME_BYTES_MAX, FrameError, HEADER_BYTES, Message,
    frame_bytes_max, header,
};
pub use messages::*;
pub use request::Request;

/// ALPN: the protocol's name and major version. Another major version is another protocol.
pub const ALPN: &[u8] = b"countersign/1";

/// Minor version: what this side knows beyond the first form of version 1.
pub const PROTOCOL_MINOR: u16 = 0;
