//! The file: opening, judging and removing it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Row as _, SqliteConnection, SqlitePool};
use tokio::sync::Mutex;

use super::error::ViewError;

/// Connections for queries. Queries are rare and short (commands, `/metrics`, a decision); one long listing must not stop the others.
const READERS: u32 = 4;

/// How long a connection waits for a lock that another process holds (a person's `sqlite3`).
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// An open database: one connection writes, a few read.
pub(super) struct Database {
    /// INVARIANT: the only connection that ever writes.
    pub(super) writer: Mutex<SqliteConnection>,
    /// Read-only.
    pub(super) readers: SqlitePool,
}

impl Database {
    /// Opens the file or makes an empty one, and looks for damage in its structure.
    pub(super) async fn open(path: &Path) -> Result<Self, ViewError> {
        let mut writer = options(path).create_if_missing(true).connect().await?;
        // Reads every page once. It finds torn and garbled pages, so that they are met here, where the remedy is at hand; a value
        // changed without damage to the structure is for `verify`.
        let answer: String = sqlx::query("PRAGMA quick_check(1)")
            .fetch_one(&mut writer)
            .await?
            .try_get(0)?;
        if answer != "ok" {
            let _ = writer.close().await;
            return Err(ViewError::Damaged);
        }
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_lazy_with(options(path).read_only(true));
        Ok(Self {
            writer: Mutex::new(writer),
            readers,
        })
    }

    /// Closes every connection; the last one moves the write-ahead log into the file and removes it.
    pub(super) async fn close(self) -> Result<(), ViewError> {
        self.readers.close().await;
        self.writer.into_inner().close().await?;
        Ok(())
    }
}

/// A database without a file, for comparisons.
pub(super) async fn in_memory() -> Result<SqliteConnection, ViewError> {
    let options = SqliteConnectOptions::new()
        .in_memory(true)
        .disable_statement_logging();
    Ok(options.connect().await?)
}

/// Removes the file and what SQLite keeps beside it. No connection may be open: unlinking is safe even then, but the connection would
/// go on with a file that nobody sees.
pub(super) fn remove(path: &Path) -> Result<(), ViewError> {
    // The main file goes first: beside a missing or empty main file SQLite discards a write-ahead log, while a main file
    // without the log that it was being copied from may be half old, half new. A crash after any of these steps is so met by
    // `open` as a missing file.
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let file = PathBuf::from(name);
        match std::fs::remove_file(&file) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(cause) => return Err(ViewError::Remove { path: file, cause }),
        }
    }
    Ok(())
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        // A power loss may take the last transactions, never the file's consistency: enough for a view that catches up from the
        // logs, and it saves a sync at each transaction.
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(BUSY_TIMEOUT)
        // A page that a disk error changes under a memory map would be a signal, not an error.
        .pragma("mmap_size", "0")
        .pragma("trusted_schema", "OFF")
        // Statements carry no values (they are bound), but even their timing is no one's business.
        .disable_statement_logging()
}
