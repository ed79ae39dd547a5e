//! Publish, subscribe and verify over QUIC without running a node.
//!
//! ```text
//!              ┌ publisher ──► numbered events in batches ──────────────► node of one's own organization
//! program ─────┤
//!              └ subscriber ◄── verified events, signed receipts ──────► node of a partner
//!                  ▲
//!                profile: keys, agreements, cursors in one file ◄── join (an invitation link)
//! ```
//!
//! In scope: the connection of programs and nodes ([`quic`]), the greeting that both sides of it do ([`session`]),
//! publishing ([`publisher`]), subscribing ([`subscriber`]), redeeming invitations ([`join`]) and what a reader without a node keeps
//! ([`profile`]). Elsewhere: the messages and the verification of batches (crate `protocol`), who may do what (crates
//! `exchange` and `policy`), a durable copy of a partner's log (crate `exchange`).
//!
//! The wall clock and randomness are arguments; waiting uses Tokio's time.

pub mod error;
pub mod join;
pub mod profile;
pub mod publisher;
pub mod quic;
pub mod session;
pub mod subscriber;

pub use error::{IdentityFault, RefusedBy, SessionError};
pub use publisher::{Publisher, PublisherOptions};
pub use session::{Clock, Expected, Session, SessionOptions};
pub use subscriber::{Subscriber, SubscriberOptions};
