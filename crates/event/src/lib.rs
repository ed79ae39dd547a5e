//! The bytes of an event: CloudEvents attributes, payload, commitments, the entry that the log keeps, and the documents
//! that organizations sign.
//!
//! ```text
//!  JSON, NDJSON, binary form        content: what an entry commits to           entry: the Merkle leaf, 118 bytes
//!  ┌────────────────────────┐       ┌────────────────────────────────┐   seal   ┌───────────────────────────────┐
//!  │ {"id":…,"data":…}      │ ────► │ salts ‖ attributes ‖ data part │ ───────► │ sequence, prev, time,         │
//!  └────────────────────────┘       └────────────────────────────────┘          │ two commitments               │
//!     cloudevents, ndjson             attributes, data, content                  └───────────────────────────────┘
//!                                                                                  commitment, entry
//! ```
//!
//! In scope: canonical bytes, their checks, their hashes. Elsewhere: the tree over entries (crate `tlog`), which events
//! are let in (crates `policy` and `exchange`), where they are kept (crate `store`). No I/O, no async, no clock: time
//! and randomness are arguments. Every byte is described in `schemas/entry.md`.

pub mod agreement_state;
pub mod attributes;
pub mod author;
pub mod cloudevents;
pub mod commitment;
pub mod content;
pub mod control;
pub mod data;
pub mod documents;
pub mod dsse;
pub mod encryption;
pub mod entry;
pub mod fields;
mod json;
pub mod jwe;
pub mod ledger;
pub mod names;
pub mod ndjson;
pub mod time;

pub use json::from_slice_of_objects;
