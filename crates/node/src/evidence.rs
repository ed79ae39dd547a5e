//! Export of evidence: a stream of this node, or its verified copy of a partner's stream, as a bundle that anybody can check offline.
//!
//! ```text
//! exchange ── snapshot: signed heads, ledgers first ──► survey: what the ledgers say about the stream
//!                                                          │
//!               PATH ◄── rename ── temporary sibling ◄── write_bundle ◄── source: entries, documents, policies, decisions
//! ```
//!
//! All sizes are fixed at the start, so that what happens meanwhile changes nothing. A ledger log goes into the bundle whole or, where it
//! speaks of entries that the bundle does not hold, as it was under an earlier signed head of its own, before it spoke of them: a range then
//! does not look like a history with its end cut off. What is left out is counted in the summary.
//!
//! In scope: reading, choosing, naming the file. Elsewhere: the format (`schemas/bundle.md`, crate `audit`).

mod cose;
mod ledger_reader;
mod place;
mod proof;
mod provenance;
mod snapshot;
mod source;
mod survey;
mod timestamps;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use countersign_audit::{BundleSummary, WriteError, write_bundle};
use countersign_crypto::{Fingerprint, TimestampError};
use countersign_event::names::{Authority, Origin};
use countersign_exchange::{Exchange, ExchangeError};
use countersign_store::journal::ReadError;
use countersign_tlog::cose_receipt::CoseReceiptError;
use serde::Serialize;

pub use self::cose::prove_event_in_cose;
pub use self::proof::{ProofSummary, Proven, Shown, prove_event, prove_growth};
pub use self::provenance::{ProvenanceSummary, provenance};
pub use self::timestamps::{Attached, TimestampAsked, ask_for_timestamp, attach_timestamp};

use self::place::Place;
use self::provenance::{PROVENANCE_ENTRIES_MAX, PROVENANCE_USES_MAX};
use self::snapshot::Snapshot;
use self::source::ExchangeSource;
use self::survey::Survey;
use crate::errors::{CommandError, ErrorCode};

/// What was exported, what an auditor has to trust, and what is not in it.
#[derive(Clone, Debug, Serialize)]
pub struct ExportSummary {
    /// Where it is.
    pub path: PathBuf,
    /// What is in it.
    #[serde(flatten)]
    pub bundle: BundleSummary,
    /// The organizations whose fingerprints an auditor needs to have got elsewhere: the producer, and the one whose ledger logs are in it.
    pub trust: Vec<Trusted>,
    /// What the ledgers hold about the stream and the bundle does not.
    pub left_out: Vec<LeftOut>,
}

/// An organization that an auditor has to trust for the verdict *whole*.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Trusted {
    /// Its name in origins.
    pub authority: Authority,
    /// What to compare and to give to `evidence verify --trust`.
    pub fingerprint: Fingerprint,
}

/// Something that is not in the bundle.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct LeftOut {
    /// What: `receipts`, `decisions`, `ledger entries`, …
    pub what: &'static str,
    /// How many.
    pub count: u64,
    /// Why.
    pub why: &'static str,
}

/// Why there is no bundle. Nothing is left at the path then.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A copy without any signed head that it reaches: it is still catching up for the first time.
    #[error(
        "`{origin}` is copied up to {held} entries, and no head that its producer signed lies within them yet; try again when the subscription has caught up"
    )]
    CatchingUp {
        /// The log.
        origin: Origin,
        /// Entries held.
        held: u64,
    },
    /// No checkpoint of that size was signed, or is held.
    #[error("`{origin}` has no signed checkpoint of {size} entries here{}", nearest(*before, *after))]
    Checkpoint {
        /// The log.
        origin: Origin,
        /// The size asked for.
        size: u64,
        /// The nearest smaller one.
        before: Option<u64>,
        /// The nearest larger one.
        after: Option<u64>,
    },
    /// The log has no COSE receipt for it.
    #[error(
        "`{origin}` has no COSE receipt of entry {sequence}: {source}; a `.tlog-proof` can be had at any size"
    )]
    Cose {
        /// The log.
        origin: Origin,
        /// The entry.
        sequence: u64,
        /// Why.
        source: CoseReceiptError,
    },
    /// The name of a proof's file does not say what it is.
    #[error("`{}` does not end in `.{extension}`, by which the proof is known", path.display())]
    Extension {
        /// The path.
        path: PathBuf,
        /// What it has to end in.
        extension: &'static str,
    },
    /// There is something at the path already: evidence is never overwritten.
    #[error("`{}` exists already; evidence is never written over anything, give another path", path.display())]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// No checkpoint over the entry has been stamped.
    #[error(
        "no checkpoint of `{origin}` over entry {sequence} has a time-stamp token here; `countersign evidence timestamp` asks for one"
    )]
    NotStamped {
        /// The log.
        origin: Origin,
        /// The entry.
        sequence: u64,
    },
    /// The ledger did not take a record.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// A checkpoint that was never signed by the log, or has another root than it.
    #[error("this is no checkpoint of `{origin}`: {why}")]
    ForeignCheckpoint {
        /// The log.
        origin: Origin,
        /// Why not.
        why: &'static str,
    },
    /// A time-stamp token that is refused.
    #[error("the time-stamp token is refused: {0}")]
    Timestamp(#[from] TimestampError),
    /// A time-stamp token for something else.
    #[error("the time-stamp token is over something else than this checkpoint")]
    OtherImprint,
    /// The writing thread ended without an answer.
    #[error("the export was interrupted; nothing was written to `{}`", path.display())]
    Interrupted {
        /// The path.
        path: PathBuf,
    },
    /// An event whose data was committed to as a whole, or is none.
    #[error(
        "entry {sequence} commits to its data as a whole: only events of a stream made with `--commit fields` can be disclosed in part"
    )]
    NotFields {
        /// The entry.
        sequence: u64,
    },
    /// The system refused.
    #[error("`{}` cannot be written: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The log is a ledger: ledgers travel with the streams that they are about.
    #[error(
        "`{origin}` is no stream; ledger logs are exported with the streams that they speak of"
    )]
    NotAStream {
        /// The log.
        origin: Origin,
    },
    /// A copy: its log's key is elsewhere.
    #[error(
        "`{origin}` is a copy here, and COSE receipts are signed with its log's key: ask its producer for one, or take a `.tlog-proof`, which any holder can make"
    )]
    NotOurs {
        /// The log.
        origin: Origin,
    },
    /// More entries than a document of provenance holds.
    #[error(
        "a document of provenance holds at most {PROVENANCE_ENTRIES_MAX} entries, not {entries}; ask for ranges with `--from` and `--to`"
    )]
    ProvenanceEntries {
        /// How many were asked for.
        entries: u64,
    },
    /// More covered entries than a document of provenance holds.
    #[error(
        "receipts cover entries of this range more than {PROVENANCE_USES_MAX} times, which is the most that a document of provenance holds; ask for smaller ranges"
    )]
    ProvenanceUses,
    /// A range that the signed head does not cover, or an empty one.
    #[error(
        "entries {from} to {to} cannot be exported: a range begins before it ends, and the signed head covers {size} entries"
    )]
    Range {
        /// First sequence asked for.
        from: u64,
        /// First sequence not asked for.
        to: u64,
        /// Entries under the signed head.
        size: u64,
    },
    /// A log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Sizes between which nothing is to be proven.
    #[error(
        "growth is proven from a size above zero to one that is not smaller, not from {old} to {new} entries"
    )]
    Sizes {
        /// The older size.
        old: u64,
        /// The newer one.
        new: u64,
    },
    /// More signed documents than a bundle holds.
    #[error(
        "{documents} signed documents of {bytes} bytes speak of this range, and a bundle holds at most {documents_max} of {bytes_max} bytes; export smaller ranges"
    )]
    TooManyDocuments {
        /// How many.
        documents: u64,
        /// Their bytes.
        bytes: u64,
        /// The limit.
        documents_max: u64,
        /// The limit on their bytes.
        bytes_max: u64,
    },
    /// There is no such log.
    #[error(
        "there is no stream `{origin}` here, neither of ours nor as a copy; `countersign stream ls` lists them"
    )]
    Unknown {
        /// The log.
        origin: Origin,
    },
    /// No key that the log's organization delegated to logs has signed its head.
    #[error(
        "the head of `{origin}` is signed by no key that its organization is known here to have delegated to logs"
    )]
    UnknownKey {
        /// The log.
        origin: Origin,
    },
    /// What is stored does not give the signed root.
    #[error(
        "what is stored of `{origin}` does not give the root that was signed; `countersign doctor` looks at the logs"
    )]
    Unproven {
        /// The log.
        origin: Origin,
    },
    /// The bundle could not be made.
    #[error(transparent)]
    Write(#[from] WriteError),
}

fn nearest(before: Option<u64>, after: Option<u64>) -> String {
    match (before, after) {
        (None, None) => String::new(),
        (Some(one), None) | (None, Some(one)) => format!("; the nearest is of {one}"),
        (Some(before), Some(after)) => format!("; the nearest are of {before} and {after}"),
    }
}

fn io_error(path: &Path, source: std::io::Error) -> ExportError {
    ExportError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Exports the entries [`from`, `to`) of a stream (from its beginning, to its newest signed head where absent): into one file where `out` ends in
/// `.tar`, else into a directory. The bundle appears at `out` complete or not at all.
///
/// # Errors
/// [`ExportError`].
pub async fn export(
    exchange: &Arc<Exchange>,
    stream: &Origin,
    from: Option<u64>,
    to: Option<u64>,
    out: &Path,
) -> Result<ExportSummary, ExportError> {
    let place = exchange.with_entropy(|entropy| Place::new(out, entropy))?;
    let (exchange, stream) = (Arc::clone(exchange), stream.clone());
    let path = out.to_owned();
    tokio::task::spawn_blocking(move || export_blocking(&exchange, &stream, (from, to), &place))
        .await
        .unwrap_or(Err(ExportError::Interrupted { path }))
}

fn export_blocking(
    exchange: &Exchange,
    stream: &Origin,
    (from, to): (Option<u64>, Option<u64>),
    place: &Place,
) -> Result<ExportSummary, ExportError> {
    let snapshot = Snapshot::take(exchange, stream)?;
    let size = snapshot.stream.checkpoint.size;
    let (from, to) = (from.unwrap_or(0), to.unwrap_or(size));
    if from >= to || to > size {
        return Err(ExportError::Range { from, to, size });
    }
    let survey = Survey::make(exchange.reader(), &snapshot, from..to)?;
    let trust = trust(exchange, &snapshot, &survey);
    let mut left_out = survey.left_out.clone();
    let stamped = timestamps::of_range(exchange, &snapshot.stream, &(from..to))?;
    let mut source = ExchangeSource::new(exchange, snapshot, survey, from..to, stamped);
    let written = place
        .sink()
        .and_then(|sink| Ok(write_bundle(sink, &mut source)?));
    let bundle = match written.and_then(|bundle| place.take().map(|()| bundle)) {
        Ok(bundle) => bundle,
        Err(error) => {
            place.discard();
            return Err(error);
        }
    };
    left_out.extend(source.left_out());
    Ok(ExportSummary {
        path: place.out().to_owned(),
        bundle,
        trust,
        left_out,
    })
}

/// The producer, and ourselves where ledger logs of ours are in the bundle.
fn trust(exchange: &Exchange, snapshot: &Snapshot, survey: &Survey) -> Vec<Trusted> {
    let own = exchange.identity();
    let producer = snapshot.producer.clone();
    let with_ledgers = survey
        .ledgers
        .iter()
        .any(|ledger| ledger.exported.is_some());
    let ours = (with_ledgers && producer.authority != *own.authority()).then(|| Trusted {
        authority: own.authority().clone(),
        fingerprint: own.organization().fingerprint(),
    });
    std::iter::once(producer).chain(ours).collect()
}

impl From<ExportError> for CommandError {
    fn from(error: ExportError) -> Self {
        let code = match &error {
            ExportError::CatchingUp { .. } => ErrorCode::Busy,
            ExportError::Exists { .. }
            | ExportError::Extension { .. }
            | ExportError::Cose { .. }
            | ExportError::NotAStream { .. }
            | ExportError::NotOurs { .. }
            | ExportError::ProvenanceEntries { .. }
            | ExportError::ProvenanceUses
            | ExportError::NotFields { .. }
            | ExportError::Range { .. }
            | ExportError::Sizes { .. }
            | ExportError::TooManyDocuments { .. } => ErrorCode::Usage,
            ExportError::ForeignCheckpoint { .. }
            | ExportError::OtherImprint
            | ExportError::Timestamp(_) => ErrorCode::VerificationFailed,
            ExportError::Interrupted { .. } => ErrorCode::Interrupted,
            ExportError::Io { .. } | ExportError::Write(WriteError::Sink(_)) => ErrorCode::Io,
            ExportError::Read(ReadError::Damage(_))
            | ExportError::Unproven { .. }
            | ExportError::Write(WriteError::Entry { .. } | WriteError::Root { .. }) => {
                ErrorCode::LogDamaged
            }
            ExportError::Checkpoint { .. }
            | ExportError::NotStamped { .. }
            | ExportError::Unknown { .. } => ErrorCode::NotFound,
            ExportError::UnknownKey { .. } => ErrorCode::VerificationFailed,
            ExportError::Exchange(_) | ExportError::Read(_) | ExportError::Write(_) => {
                ErrorCode::Internal
            }
        };
        Self::new(code, error)
    }
}
