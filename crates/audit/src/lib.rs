//! Independent checker of exported evidence: anyone can tell from a file alone whether a log's history is whole.
//!
//! ```text
//! bundle (directory or .tar) ──► verify(path, trust) ──► Report
//!   files       each file is expected, complete and as the manifest says
//!   keys        key statements verify; who is trusted from outside
//!   checkpoint  signed by a key that the organization delegated to logs
//!   witnesses   cosigned by those whom the auditor asks for
//!   timestamps  stamped by somebody who keeps the time
//!   chain       each entry names the one before, times never decrease
//!   tree        entries, tiles and root agree
//!   content     each content is what its entry commits to
//!   documents   agreements under both signatures, receipts with their series, sums and roots
//!   coverage    nothing here reaches beyond the entries that are here
//!   decisions   each decision follows from its policies and facts
//!   ledgers     decisions and receipts lie in the organization's own log
//! ```
//!
//! A mirrored log, the proof of one event and the proof of growth (`schemas/proofs.md`), that of a fork (`schemas/fork-proof.md`) and that of contradicting receipts (`schemas/receipt-fork.md`) are judged by the same door, as far as they go.
//!
//! In scope: the formats of `schemas/bundle.md`, `schemas/proofs.md` and `schemas/fork-proof.md`, [`write_bundle`] over any [`BundleSource`], and [`verify`], which needs no
//! network, node or store and keeps memory flat however long the log is.
//!
//! Elsewhere: where entries come from when a bundle is made (crates `store` and `node`), the formats inside (crates `event` and
//! `tlog`), what policies mean (crate `policy`).

mod beside;
mod checks;
mod content_file;
mod cose_proof;
mod event_proof;
mod files;
mod fork;
mod growth;
mod layout;
mod manifest;
mod mirror;
mod receipt_fork;
mod report;
mod sink;
mod tree;
mod trust;
mod verify;
mod walk;
mod write;

pub use cose_proof::{COSE_PROOF, cose_files};
pub use event_proof::{EVENT_PROOF, EventProof};
pub use fork::FORK_PROOF;
pub use growth::{GROWTH_PROOF, GrowthProof};
pub use manifest::{FileEntry, LogEntry, MANIFEST_VERSION, Manifest, ManifestError, Undisclosed};
pub use receipt_fork::RECEIPT_FORK;
pub use report::{
    Check, CheckReport, Cosigner, EXIT_FAILED, EXIT_INCONCLUSIVE, EXIT_WHOLE, Evidence, Finding,
    Outcome, Quorum, Report, Severity, TimestampReport, Verdict, WitnessReport,
};
pub use sink::{BundleSink, SinkError};
pub use trust::{Trust, TrustError};
pub use verify::{OpenError, verify};
pub use write::{
    BundleFacts, BundleSource, BundleSummary, ContentLengths, DecisionLine, LogFacts, PolicyFile,
    Skeleton, SourceError, Stamped, WriteError, write_bundle,
};
