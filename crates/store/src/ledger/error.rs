use std::path::PathBuf;

use countersign_event::names::Origin;

/// Why a [`LedgerSource`](super::LedgerSource) could not read a log.
#[derive(Debug, thiserror::Error)]
#[error("the ledger log {log} cannot be read at entry {sequence}: {cause}")]
pub struct SourceError {
    /// Which log.
    pub log: Origin,
    /// The first entry that was asked for.
    pub sequence: u64,
    /// What the log's storage said.
    pub cause: Box<dyn std::error::Error + Send + Sync>,
}

/// Why the view cannot answer or be brought up to date.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// SQLite refused or failed.
    #[error(
        "the ledger database failed: {0}; it holds nothing of its own: `countersign ledger rebuild` makes it anew"
    )]
    Database(#[from] sqlx::Error),
    /// The file could not be removed to make place for a new one.
    #[error("the damaged or outdated ledger database `{}` cannot be removed: {cause}", path.display())]
    Remove {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The file was written by a newer program.
    #[error(
        "the ledger database has version {found}, this program knows versions up to {known}: use the newer program, or remove `ledger.sqlite` to have it rebuilt"
    )]
    Newer {
        /// Its version.
        found: i64,
        /// The newest version known here.
        known: i64,
    },
    /// A row that this program cannot have written.
    #[error(
        "the ledger database holds a value in column `{column}` that does not belong there: `countersign ledger rebuild` makes it anew"
    )]
    Row {
        /// Which column.
        column: &'static str,
    },
    /// A log could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The structure of the file is damaged.
    #[error(
        "the ledger database is damaged; it holds nothing of its own: `countersign ledger rebuild` makes it anew"
    )]
    Damaged,
    /// A log gave nothing although it says that it is longer.
    #[error("the ledger log {log} gave nothing where entry {expected} was asked for")]
    Missing {
        /// Which log.
        log: Origin,
        /// The sequence asked for.
        expected: u64,
    },
    /// A log gave another entry than the one asked for.
    #[error("the ledger log {log} gave entry {found} where entry {expected} was asked for")]
    Order {
        /// Which log.
        log: Origin,
        /// The sequence asked for.
        expected: u64,
        /// The sequence that came.
        found: u64,
    },
    /// A sequence or time that SQLite's signed 64-bit integers cannot hold.
    #[error("entry {sequence} of the ledger log {log} carries a number above 2^63 - 1")]
    Range {
        /// Which log.
        log: Origin,
        /// Which entry.
        sequence: u64,
    },
}

impl ViewError {
    /// Whether the file itself is at fault, so that only a new one helps.
    pub(super) fn is_damage(&self) -> bool {
        // Primary result codes (the low byte of an extended code), sqlite.org/rescode.html.
        const SQLITE_CORRUPT: i32 = 11;
        const SQLITE_NOTADB: i32 = 26;
        match self {
            Self::Damaged | Self::Row { .. } => true,
            Self::Database(sqlx::Error::Database(error)) => error
                .code()
                .and_then(|code| code.parse::<i32>().ok())
                .is_some_and(|code| matches!(code & 0xff, SQLITE_CORRUPT | SQLITE_NOTADB)),
            Self::Database(sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)) => true,
            _ => false,
        }
    }
}
