//! What this node has cosigned, and the signed notes that it keeps: one SQLite file, synced at every transaction.
//!
//! Unlike the ledger's view this file is the truth: nothing else knows what was cosigned last. Formats: `schemas/witness.md`.
//!
//! In scope: atomic compare-and-store, durable before it returns; keeping and dropping notes. Elsewhere: who may ask, proofs and signatures (crate
//! `exchange`).

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use countersign_crypto::{Hash, sha256};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _, Row as _, SqliteConnection, SqlitePool};
use tokio::sync::Mutex;

/// How long a connection waits for a lock that another process holds (a person's `sqlite3`).
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections for looking up. They are rare: the monitoring endpoint and commands.
const READERS: u32 = 2;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS witnessed (
    origin TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, root BLOB NOT NULL, note TEXT NOT NULL, line TEXT NOT NULL, at INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS kept (
    origin TEXT NOT NULL, size INTEGER NOT NULL, root BLOB NOT NULL, note TEXT NOT NULL, why INTEGER NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (origin, size, root)
) STRICT;
";

/// `PRAGMA user_version` of the file.
const VERSION: i64 = 1;

/// `PRAGMA application_id`: "CSCP".
const APPLICATION: i64 = 0x4353_4350;

/// Why a note is kept; several at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Why(pub i64);

impl Why {
    /// Carries enough cosignatures; the newest such of its log.
    pub const WITNESSED: Self = Self(1);
    /// One of an hour.
    pub const HOURLY: Self = Self(2);
    /// It was refused: kept as evidence.
    pub const REFUSED: Self = Self(4);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// How long one note of each hour is kept, in seconds: 90 days, or 2,160 notes of a log that grows all the time.
const HOURLY_SECONDS: i64 = 90 * 86_400;

/// Hourly notes of all logs together: about 100 MB.
const HOURLY_MAX: u64 = 100_000;

/// A signed note of a log, with what it says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeptNote {
    /// Tree size.
    pub size: u64,
    /// Root.
    pub root: Hash,
    /// The note, verbatim.
    pub note: String,
}

/// What this node cosigned last for a log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cosigned {
    /// The log's note, without lines of others.
    pub latest: KeptNote,
    /// Our line.
    pub line: String,
    /// When, in seconds since 1970.
    pub at: u64,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointsError {
    /// It is damaged, or holds values that cannot be.
    #[error(
        "the file of cosigned checkpoints is damaged; restore it from a backup, or cosign under a new witness key"
    )]
    Damaged,
    /// It was written by something else, or by a newer version.
    #[error(
        "the file of cosigned checkpoints is of another program or of a newer version of this one"
    )]
    Foreign,
    /// SQLite.
    #[error("the file of cosigned checkpoints cannot be read or written: {0}")]
    Database(#[from] sqlx::Error),
}

/// The open file.
#[derive(Debug)]
pub struct Checkpoints {
    /// INVARIANT: the only connection that ever writes.
    writer: Mutex<SqliteConnection>,
    readers: SqlitePool,
    /// Hourly notes, or a few more: counted at the start and when there seem to be too many.
    hourly: AtomicU64,
    hourly_max: u64,
}

/// The turn of whoever compares and stores: until it ends, nobody else's begins.
#[derive(Debug)]
pub struct Turn<'a> {
    writer: tokio::sync::MutexGuard<'a, SqliteConnection>,
    hourly: &'a AtomicU64,
    hourly_max: u64,
}

impl Checkpoints {
    /// Opens the file or makes an empty one.
    ///
    /// # Errors
    /// [`CheckpointsError`].
    pub async fn open(path: &Path) -> Result<Self, CheckpointsError> {
        Self::open_with(path, HOURLY_MAX).await
    }

    async fn open_with(path: &Path, hourly_max: u64) -> Result<Self, CheckpointsError> {
        let mut writer = options(path).create_if_missing(true).connect().await?;
        let check: String = sqlx::query("PRAGMA quick_check(1)")
            .fetch_one(&mut writer)
            .await?
            .try_get(0)?;
        if check != "ok" {
            return Err(CheckpointsError::Damaged);
        }
        let number = |row: SqliteRow| row.try_get::<i64, _>(0);
        let application = number(
            sqlx::query("PRAGMA application_id")
                .fetch_one(&mut writer)
                .await?,
        )?;
        let version = number(
            sqlx::query("PRAGMA user_version")
                .fetch_one(&mut writer)
                .await?,
        )?;
        match (application, version) {
            (0, 0) => {
                sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
                    "{SCHEMA} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};"
                )))
                .execute(&mut writer)
                .await?;
            }
            (APPLICATION, VERSION) => {}
            _ => return Err(CheckpointsError::Foreign),
        }
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_lazy_with(options(path).read_only(true));
        let hourly = count_hourly(&mut writer).await?;
        Ok(Self {
            writer: Mutex::new(writer),
            readers,
            hourly: AtomicU64::new(hourly),
            hourly_max,
        })
    }

    /// Takes the turn to compare and store.
    ///
    /// # Errors
    /// [`CheckpointsError::Database`].
    pub async fn turn(&self) -> Result<Turn<'_>, CheckpointsError> {
        let mut writer = self.writer.lock().await;
        // A turn whose task was dropped may have left its transaction open.
        let _ = sqlx::query("ROLLBACK").execute(&mut *writer).await;
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *writer).await?;
        Ok(Turn {
            writer,
            hourly: &self.hourly,
            hourly_max: self.hourly_max,
        })
    }

    /// What was cosigned last for a log.
    ///
    /// # Errors
    /// [`CheckpointsError`].
    pub async fn cosigned(&self, origin: &str) -> Result<Option<Cosigned>, CheckpointsError> {
        let row = sqlx::query("SELECT size, root, note, line, at FROM witnessed WHERE origin = ?")
            .bind(origin)
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(cosigned_of).transpose()
    }

    /// What was cosigned last for the log whose origin has this SHA-256, in lower-case hexadecimal.
    ///
    /// # Errors
    /// [`CheckpointsError`].
    pub async fn cosigned_by_hash(&self, hash: &str) -> Result<Option<Cosigned>, CheckpointsError> {
        let row = sqlx::query("SELECT size, root, note, line, at FROM witnessed WHERE hash = ?")
            .bind(hash)
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(cosigned_of).transpose()
    }

    /// All that was cosigned last, by origin.
    ///
    /// # Errors
    /// [`CheckpointsError`].
    pub async fn all_cosigned(&self) -> Result<Vec<(String, Cosigned)>, CheckpointsError> {
        let rows =
            sqlx::query("SELECT size, root, note, line, at, origin FROM witnessed ORDER BY origin")
                .fetch_all(&self.readers)
                .await?;
        let one = |row: &SqliteRow| Ok((row.try_get(5)?, cosigned_of(row)?));
        rows.iter().map(one).collect()
    }

    /// The notes kept of a log, smallest first; only those kept for one of the reasons `why`.
    ///
    /// # Errors
    /// [`CheckpointsError`].
    pub async fn kept(&self, origin: &str, why: Why) -> Result<Vec<KeptNote>, CheckpointsError> {
        let rows = sqlx::query(
            "SELECT size, root, note FROM kept WHERE origin = ? AND why & ? <> 0 ORDER BY size, root",
        )
        .bind(origin)
        .bind(why.0)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(note_of).collect()
    }

    /// Keeps notes, each with its origin and reasons; a note that is there gets the reasons added, and the text given. Older notes of the log lose
    /// [`Why::WITNESSED`] to a newer one, and go where that was all. Of the notes marked [`Why::HOURLY`] the first of each hour stays. `at` is in seconds since 1970.
    ///
    /// # Errors
    /// [`CheckpointsError`].
    pub async fn keep(
        &self,
        notes: &[(String, KeptNote, Why)],
        at: u64,
    ) -> Result<(), CheckpointsError> {
        let mut turn = self.turn().await?;
        for (origin, note, why) in notes {
            turn.keep(origin, note, *why, at).await?;
        }
        turn.commit().await
    }

    /// Closes the file.
    ///
    /// # Errors
    /// [`CheckpointsError::Database`].
    pub async fn close(self) -> Result<(), CheckpointsError> {
        self.readers.close().await;
        Ok(self.writer.into_inner().close().await?)
    }
}

impl Turn<'_> {
    /// What was cosigned last for a log.
    ///
    /// # Errors
    /// [`CheckpointsError`].
    pub async fn cosigned(&mut self, origin: &str) -> Result<Option<Cosigned>, CheckpointsError> {
        let row = sqlx::query("SELECT size, root, note, line, at FROM witnessed WHERE origin = ?")
            .bind(origin)
            .fetch_optional(&mut *self.writer)
            .await?;
        row.as_ref().map(cosigned_of).transpose()
    }

    /// How many logs of an authority are remembered; counted up to `most`.
    ///
    /// # Errors
    /// [`CheckpointsError`].
    pub async fn count(&mut self, authority: &str, most: u64) -> Result<u64, CheckpointsError> {
        // "0" comes after "/" and nothing between them.
        let counted = "SELECT COUNT(*) FROM (SELECT 1 FROM witnessed WHERE origin >= ? AND origin < ? LIMIT ?)";
        let row = sqlx::query(counted)
            .bind(format!("{authority}/"))
            .bind(format!("{authority}0"))
            .bind(integer(most)?)
            .fetch_one(&mut *self.writer)
            .await?;
        Ok(row.try_get::<i64, _>(0)?.unsigned_abs())
    }

    /// Whether a checkpoint of the log was ever refused because it contradicts another.
    ///
    /// # Errors
    /// [`CheckpointsError`].
    pub async fn has_refused(&mut self, origin: &str) -> Result<bool, CheckpointsError> {
        let row = sqlx::query("SELECT 1 FROM kept WHERE origin = ? AND why & ? <> 0 LIMIT 1")
            .bind(origin)
            .bind(Why::REFUSED.0)
            .fetch_optional(&mut *self.writer)
            .await?;
        Ok(row.is_some())
    }

    /// Stores what was cosigned. The caller has compared with [`Turn::cosigned`].
    ///
    /// # Errors
    /// [`CheckpointsError`].
    pub async fn store(&mut self, origin: &str, new: &Cosigned) -> Result<(), CheckpointsError> {
        sqlx::query(
            "INSERT INTO witnessed (origin, hash, size, root, note, line, at) VALUES (?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (origin) DO UPDATE SET size = excluded.size, root = excluded.root, note = excluded.note, line = excluded.line, at = excluded.at",
        )
        .bind(origin)
        .bind(hex::encode(sha256(origin.as_bytes())))
        .bind(integer(new.latest.size)?)
        .bind(new.latest.root.as_slice())
        .bind(&new.latest.note)
        .bind(&new.line)
        .bind(integer(new.at)?)
        .execute(&mut *self.writer)
        .await?;
        Ok(())
    }

    /// As [`Checkpoints::keep`], for one note.
    ///
    /// # Errors
    /// [`CheckpointsError`].
    pub async fn keep(
        &mut self,
        origin: &str,
        note: &KeptNote,
        why: Why,
        at: u64,
    ) -> Result<(), CheckpointsError> {
        let (size, at) = (integer(note.size)?, integer(at)?);
        let hour = at - at % 3600;
        let mut why = why.0;
        if why & Why::HOURLY.0 != 0 {
            let of_hour = sqlx::query(
                "SELECT 1 FROM kept WHERE origin = ? AND why & ? <> 0 AND at >= ? LIMIT 1",
            )
            .bind(origin)
            .bind(Why::HOURLY.0)
            .bind(hour)
            .fetch_optional(&mut *self.writer)
            .await?;
            if of_hour.is_some() {
                why &= !Why::HOURLY.0;
            } else {
                self.make_room(origin, at).await?;
            }
        }
        if why & Why::WITNESSED.0 != 0 {
            sqlx::query("UPDATE kept SET why = why & ~? WHERE origin = ? AND size <= ?")
                .bind(Why::WITNESSED.0)
                .bind(origin)
                .bind(size)
                .execute(&mut *self.writer)
                .await?;
            sqlx::query("DELETE FROM kept WHERE origin = ? AND why = 0")
                .bind(origin)
                .execute(&mut *self.writer)
                .await?;
        }
        if why == 0 {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO kept (origin, size, root, note, why, at) VALUES (?, ?, ?, ?, ?, ?)
             ON CONFLICT (origin, size, root) DO UPDATE SET why = why | excluded.why, note = excluded.note",
        )
        .bind(origin)
        .bind(size)
        .bind(note.root.as_slice())
        .bind(&note.note)
        .bind(why)
        .bind(at)
        .execute(&mut *self.writer)
        .await?;
        Ok(())
    }

    /// Another hourly note of a log is about to be kept: those that have had their time go, and the oldest of all where there are too many.
    async fn make_room(&mut self, origin: &str, at: i64) -> Result<(), CheckpointsError> {
        sqlx::query("UPDATE kept SET why = why & ~? WHERE origin = ? AND why & ? <> 0 AND at < ?")
            .bind(Why::HOURLY.0)
            .bind(origin)
            .bind(Why::HOURLY.0)
            .bind(at.saturating_sub(HOURLY_SECONDS))
            .execute(&mut *self.writer)
            .await?;
        if self.hourly.fetch_add(1, Ordering::Relaxed) >= self.hourly_max {
            let there = count_hourly(&mut self.writer).await?;
            let mut left = there;
            if there >= self.hourly_max {
                let dropped = (self.hourly_max / 10).max(1);
                sqlx::query(
                    "UPDATE kept SET why = why & ~? WHERE rowid IN (SELECT rowid FROM kept WHERE why & ? <> 0 ORDER BY at LIMIT ?)",
                )
                .bind(Why::HOURLY.0)
                .bind(Why::HOURLY.0)
                .bind(integer(dropped)?)
                .execute(&mut *self.writer)
                .await?;
                sqlx::query("DELETE FROM kept WHERE why = 0")
                    .execute(&mut *self.writer)
                    .await?;
                left = there.saturating_sub(dropped);
            }
            self.hourly.store(left + 1, Ordering::Relaxed);
        }
        sqlx::query("DELETE FROM kept WHERE origin = ? AND why = 0")
            .bind(origin)
            .execute(&mut *self.writer)
            .await?;
        Ok(())
    }

    /// Ends the turn: when this returns, what was stored survives a power loss.
    ///
    /// # Errors
    /// [`CheckpointsError::Database`]; then it is not known whether it was stored.
    pub async fn commit(mut self) -> Result<(), CheckpointsError> {
        sqlx::query("COMMIT").execute(&mut *self.writer).await?;
        Ok(())
    }

    /// Ends the turn without storing anything.
    ///
    /// # Errors
    /// [`CheckpointsError::Database`].
    pub async fn give_up(mut self) -> Result<(), CheckpointsError> {
        sqlx::query("ROLLBACK").execute(&mut *self.writer).await?;
        Ok(())
    }
}

async fn count_hourly(connection: &mut SqliteConnection) -> Result<u64, CheckpointsError> {
    let row = sqlx::query("SELECT COUNT(*) FROM kept WHERE why & ? <> 0")
        .bind(Why::HOURLY.0)
        .fetch_one(connection)
        .await?;
    Ok(row.try_get::<i64, _>(0)?.unsigned_abs())
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        // A cosignature is a promise: what it rests on is on the disk before anybody has it.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("mmap_size", "0")
        .pragma("trusted_schema", "OFF")
        .disable_statement_logging()
}

/// SQLite's integers are signed; sizes above 2^63 − 1 are refused before they come here.
fn integer(number: u64) -> Result<i64, CheckpointsError> {
    i64::try_from(number).map_err(|_| CheckpointsError::Damaged)
}

fn note_of(row: &SqliteRow) -> Result<KeptNote, CheckpointsError> {
    let size: i64 = row.try_get(0)?;
    let root: Vec<u8> = row.try_get(1)?;
    Ok(KeptNote {
        size: u64::try_from(size).map_err(|_| CheckpointsError::Damaged)?,
        root: root.try_into().map_err(|_| CheckpointsError::Damaged)?,
        note: row.try_get(2)?,
    })
}

fn cosigned_of(row: &SqliteRow) -> Result<Cosigned, CheckpointsError> {
    let at: i64 = row.try_get(4)?;
    Ok(Cosigned {
        latest: note_of(row)?,
        line: row.try_get(3)?,
        at: u64::try_from(at).map_err(|_| CheckpointsError::Damaged)?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn note(size: u64) -> KeptNote {
        KeptNote {
            size,
            root: sha256(&size.to_be_bytes()),
            note: format!("note {size}"),
        }
    }

    async fn keep(file: &Checkpoints, origin: &str, size: u64, why: Why, hour: u64) {
        let one = (origin.to_owned(), note(size), why);
        file.keep(&[one], hour * 3600 + 7).await.unwrap();
    }

    async fn sizes(file: &Checkpoints, origin: &str, why: Why) -> Vec<u64> {
        let kept = file.kept(origin, why).await.unwrap();
        kept.iter().map(|note| note.size).collect()
    }

    #[tokio::test]
    async fn hourly_notes_go_after_ninety_days_and_what_else_is_kept_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = Checkpoints::open(&folder.path().join("c")).await.unwrap();
        keep(&file, "a", 1, Why::HOURLY, 0).await;
        keep(&file, "a", 2, Why::HOURLY.and(Why::REFUSED), 1).await;
        keep(&file, "a", 3, Why::HOURLY, 1).await;
        keep(&file, "b", 1, Why::HOURLY, 0).await;
        assert_eq!(
            sizes(&file, "a", Why::HOURLY).await,
            [1, 2],
            "one of each hour"
        );
        let hours = 90 * 24;
        keep(&file, "a", 4, Why::HOURLY.and(Why::WITNESSED), hours).await;
        assert_eq!(sizes(&file, "a", Why::HOURLY).await, [1, 2, 4]);
        keep(&file, "a", 5, Why::HOURLY, hours + 2).await;
        assert_eq!(sizes(&file, "a", Why::HOURLY).await, [4, 5]);
        assert_eq!(
            sizes(&file, "a", Why(7)).await,
            [2, 4, 5],
            "refused ones stay"
        );
        assert_eq!(sizes(&file, "b", Why(7)).await, [1]);
    }

    #[tokio::test]
    async fn hourly_notes_of_all_logs_together_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        let file = Checkpoints::open_with(&path, 50).await.unwrap();
        let count = async |file: &Checkpoints| {
            let mut count = 0;
            for log in 0..40 {
                count += sizes(file, &format!("log{log}"), Why::HOURLY).await.len();
            }
            count
        };
        for hour in 0..5 {
            for log in 0..40 {
                keep(&file, &format!("log{log}"), hour + 1, Why::HOURLY, hour).await;
                assert!(count(&file).await <= 50);
            }
        }
        // The newest of each log are there.
        for log in 0..40 {
            assert_eq!(
                sizes(&file, &format!("log{log}"), Why::HOURLY).await.last(),
                Some(&5)
            );
        }
        // Also after a restart.
        file.close().await.unwrap();
        let file = Checkpoints::open_with(&path, 50).await.unwrap();
        for log in 0..40 {
            keep(&file, &format!("log{log}"), 9, Why::HOURLY, 9).await;
        }
        assert!(count(&file).await <= 50);
    }
}
