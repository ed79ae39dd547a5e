//! CloudEvents, entries, content commitments and signed documents.

pub mod documents;
pub mod dsse;
pub mod ledger;
pub mod names;
