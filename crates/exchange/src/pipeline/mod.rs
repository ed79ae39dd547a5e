//! One event's journey, a file for each stage, in order:
//!
//! `ingest → seal → append → deliver → (consume) → receipt → ledger` (then `audit`, which is another crate on purpose).
//!
//! Each stage takes only what the stage before makes, so that a skipped check does not compile.

pub(crate) mod allowance;
pub mod append;
pub(crate) mod budget;
pub mod consume;
pub mod deliver;
pub mod duplicates;
pub(crate) mod exposure;
pub mod filtering;
pub mod ingest;
pub mod ledger;
pub mod receipt;
pub mod seal;
pub mod series;
