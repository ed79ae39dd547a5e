//! The servers: QUIC sessions with partners, applications and light clients, and the HTTP door; the only listening sockets.
//!
//! ```text
//! Server ── accepts ──▶ greeting ──▶ Peer ──▶ one task per request stream: publish · subscribe · join · notice · ping · heads
//!    └───── dials ────▶ partners with an active agreement ──▶ one task per subscription that we read
//! ```
//!
//! In scope: who is connected, which stream goes where, reconnecting. Elsewhere: TLS and frames (`countersign_client::quic`), what may be asked
//! and answered (crate `exchange`).

mod deliver;
mod domain;
mod erasing;
mod frames;
pub mod http;
mod join;
mod outside;
mod partners;
mod publish;
mod server;
mod web;
mod witness;

pub use domain::{check_domain, domain_web};
pub use frames::{FrameGone, FrameSink, FrameSource};
pub use join::{JoinFailure, join};
pub use publish::serve_publish;
pub use server::{Server, ServerOptions, ask_policy, list_streams, ping};
pub use web::{Dial, Fetched, Web, WebError, WebOptions};
