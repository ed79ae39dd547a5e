//! One file per family of checks, named as in the report.

pub(crate) mod chain;
pub(crate) mod checkpoint;
pub(crate) mod content;
pub(crate) mod coverage;
pub(crate) mod decisions;
pub(crate) mod documents;
pub(crate) mod erasures;
pub(crate) mod files;
pub(crate) mod keys;
pub(crate) mod ledgers;
pub(crate) mod receipts;
pub(crate) mod revocations;
pub(crate) mod successors;
pub(crate) mod timestamps;
pub(crate) mod tree;
pub(crate) mod witnesses;
