//! The log's storage and the queryable view of the ledger.
//!
//! ```text
//!   commit [ part of log 1 | part of log 7 | … ]
//!      │      one write, one fdatasync, then the heads
//!      ▼
//!   journal ── segments ── heads ── tiles ── snapshots        on a Disk: real, or simulated with power loss
//! ```
//!
//! In scope: keeping entries and content of all logs of a node, durable before acknowledged, and giving back exactly
//! these bytes or an error that names what is missing. Nothing above knows files.
//!
//! Elsewhere: what an entry means (crate `event`), tree arithmetic (crate `tlog`), signing checkpoints (crate `exchange`).

mod buffer;
pub mod checkpoints;
pub mod disk;
pub mod journal;
pub mod sim;

pub mod ledger;
