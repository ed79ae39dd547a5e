//! The queryable view over the ledger logs: one SQLite file that can be deleted at any time.
//!
//! ```text
//! ledger logs (the truth)               ledger.sqlite (the view)
//!   <own>/ledger/node      ──┐  fold     entries · partners · agreements · receipts · decisions ·
//!   <own>/ledger/<partner> ──┴────────▶  invitations · apps · cursors · policy_sets · …
//!                                        applied: per log, how many entries and the leaf hash of the last
//! ```
//!
//! Rows are a function of the logs alone: the same whatever the batches in which entries were applied, and in whatever order
//! several logs are read. The position applied is written in the transaction that applies it; when it is ahead of a log or its
//! leaf hash is not the log's, when the file is damaged, missing or of an older version, the view is made anew from the logs.
//! Payloads of events and their salts never come here.
//!
//! In scope: folding, checking, asking. Elsewhere: the logs themselves (the journal of this crate), what a record means
//! (`countersign_event::ledger`), verifying the documents in it (done before they enter a ledger log).
//!
//! The format of the records is `schemas/ledger.md`.

mod append;
mod database;
mod digest;
mod error;
mod fold;
mod queries;
mod rows;
mod schema;

pub use error::{SourceError, ViewError};
pub use fold::Skip;
pub use queries::{AgreementFilter, EntryFilter, EntryKey, ReceiptFilter};
pub use rows::{
    AgreementRow, AgreementState, AppRow, CursorRow, DecisionRow, EntryRow, FaultRow,
    InvitationRow, InvitationState, OwnStatementRow, PartnerRow, PolicySetRow, ReceiptRow,
    RefusalRow, RejectionRow, Side,
};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use countersign_crypto::Hash;
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::{Authority, LogSubject, Origin};
use countersign_event::time::Timestamp;
use sqlx::{Connection as _, Row as _, SqliteConnection};
use tokio::sync::{Mutex, RwLock};

use database::Database;
use digest::TableDigest;

/// Most entries applied in one transaction while catching up. A crash loses at most the work of one of them.
const TRANSACTION_ENTRIES_MAX: u64 = 1_000;

/// Most entries read at once: 100 envelopes of the largest size are 25 MiB.
const READ_ENTRIES_MAX: usize = 100;

/// The ledger logs, as the view reads them. Called inline from async code: answers come from memory or the page cache.
pub trait LedgerSource: Send + Sync {
    /// Every ledger log with its number of integrated entries. Logs of other organizations and streams are ignored.
    fn logs(&self) -> Vec<(Origin, u64)>;

    /// The leaf hash of one entry below the size.
    ///
    /// # Errors
    /// [`SourceError`] where the log cannot be read.
    fn leaf_hash(&self, log: &Origin, sequence: u64) -> Result<Hash, SourceError>;

    /// Entries in order, beginning with `from`: at least one where `from` is below the size, at most `max`.
    ///
    /// # Errors
    /// [`SourceError`] where the log cannot be read.
    fn entries(&self, log: &Origin, from: u64, max: usize)
    -> Result<Vec<LedgerEntry>, SourceError>;
}

/// One entry of a ledger log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LedgerEntry {
    /// Its sequence.
    pub sequence: u64,
    /// Its time, by the log's clock.
    pub time: Timestamp,
    /// Its leaf hash.
    pub leaf: Hash,
    /// What it says; absent for control entries and for records of a newer version.
    pub record: Option<LedgerRecord>,
}

/// What [`LedgerView::open`] and [`LedgerView::catch_up`] did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Opened {
    /// Whether the view was made anew.
    pub rebuilt: bool,
    /// Why, if it was.
    pub why: Option<RebuildReason>,
    /// How many entries were applied.
    pub applied: u64,
}

/// Why a view had to be made anew.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RebuildReason {
    /// It had applied more than a log holds: the log is another, or was restored.
    #[error("it had applied {applied} entries of {log}, which holds {size}")]
    Ahead {
        /// Which log.
        log: Origin,
        /// Entries applied.
        applied: u64,
        /// Entries there.
        size: u64,
    },
    /// It was asked for.
    #[error("it was asked for")]
    Asked,
    /// The file is damaged.
    #[error("the file was damaged")]
    Damaged,
    /// The file holds something else.
    #[error("the file held something else than a ledger view")]
    Foreign,
    /// It does not hold as many entries as it says it applied: parts of two copies were mixed.
    #[error("it held {found} of the {applied} entries of {log} that it had applied")]
    Incomplete {
        /// Which log.
        log: Origin,
        /// Entries applied.
        applied: u64,
        /// Entries found.
        found: u64,
    },
    /// There was no file, or an empty one.
    #[error("there was none")]
    Missing,
    /// The last applied entry is not the log's: the view belongs to another history.
    #[error("its entry {sequence} of {log} is not the one in the log")]
    OffLog {
        /// Which log.
        log: Origin,
        /// The last applied entry.
        sequence: u64,
    },
    /// It was made for another organization.
    #[error("it was made for another organization")]
    OtherAuthority,
    /// It has an older version.
    #[error("its version {found} is older than this program's")]
    OlderVersion {
        /// Its version.
        found: i64,
    },
    /// It had applied a log that does not exist.
    #[error("it had applied {log}, which does not exist here")]
    UnknownLog {
        /// Which log.
        log: Origin,
    },
}

/// Where the view differs from the logs.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Problem {
    /// The file cannot be read through.
    #[error("the database file is damaged")]
    Damaged,
    /// It does not belong to these logs.
    #[error("the view does not belong to the logs: {0}")]
    Position(RebuildReason),
    /// A table holds other rows than the logs say.
    #[error("table `{table}` differs: {found} rows here, {expected} by the logs")]
    Table {
        /// Which table.
        table: &'static str,
        /// Rows in the view.
        found: u64,
        /// Rows by the logs.
        expected: u64,
    },
}

/// The view, open. Cheap to ask from many tasks; one at a time applies.
pub struct LedgerView {
    path: PathBuf,
    own: Authority,
    /// Exchanged as a whole where the file turns out to be damaged while in use.
    database: RwLock<Database>,
    /// INVARIANT: held by whoever applies or rebuilds, and taken before `database`.
    applying: Mutex<()>,
}

impl LedgerView {
    /// Opens the view of the organization `own` at `path` and brings it up to date with the logs. Whatever is wrong with the
    /// file, short of being unreadable or too new, ends in a view made anew.
    ///
    /// # Errors
    /// [`ViewError::Newer`] for a file of a newer program, which is left as it is; [`ViewError`] where the file cannot be written
    /// or a log cannot be read.
    pub async fn open(
        path: &Path,
        own: &Authority,
        source: &dyn LedgerSource,
    ) -> Result<(Self, Opened), ViewError> {
        let (database, mut why) = match Self::usable(path, own, source).await {
            Ok(Ok(database)) => (database, None),
            Ok(Err(reason)) => (Self::fresh(path, own).await?, Some(reason)),
            Err(error) if error.is_damage() => {
                (Self::fresh(path, own).await?, Some(RebuildReason::Damaged))
            }
            Err(error) => return Err(error),
        };
        let view = Self {
            path: path.to_owned(),
            own: own.clone(),
            database: RwLock::new(database),
            applying: Mutex::new(()),
        };
        let done = view.catch_up(source).await?;
        why = why.or(done.why);
        let opened = Opened {
            rebuilt: why.is_some(),
            why,
            applied: done.applied,
        };
        Ok((view, opened))
    }

    /// Applies everything that is new in the logs. Where the view turns out not to belong to them, or to be damaged, it is made
    /// anew.
    ///
    /// # Errors
    /// [`ViewError`]; what was applied before stays applied.
    pub async fn catch_up(&self, source: &dyn LedgerSource) -> Result<Opened, ViewError> {
        let applying = self.applying.lock().await;
        let result = {
            let database = self.database.read().await;
            let mut writer = database.writer.lock().await;
            apply_new(&mut writer, &self.own, source, Until::Now).await
        };
        match result {
            Ok(Ok(applied)) => Ok(Opened {
                rebuilt: false,
                why: None,
                applied,
            }),
            Ok(Err(why)) => self.rebuild_holding(&applying, source, why).await,
            Err(error) if error.is_damage() => self.replace(&applying, source).await,
            Err(error) => Err(error),
        }
    }

    /// Makes the view anew. Until that is done, queries see the old rows; a damaged file is replaced, and queries wait.
    ///
    /// # Errors
    /// [`ViewError`]; unless the file was damaged, the old rows are still there then.
    pub async fn rebuild(&self, source: &dyn LedgerSource) -> Result<Opened, ViewError> {
        let applying = self.applying.lock().await;
        self.rebuild_holding(&applying, source, RebuildReason::Asked)
            .await
    }

    /// A digest over all rows of all tables in a defined order: equal where two views are.
    ///
    /// # Errors
    /// [`ViewError::Database`].
    pub async fn rows_digest(&self) -> Result<Hash, ViewError> {
        Ok(digest::of_all(&self.table_digests().await?))
    }

    /// Compares the view with a fold of the logs made for the purpose in memory, up to the positions that the view has applied.
    ///
    /// # Errors
    /// [`ViewError`] where a log or the database cannot be read; damage is a [`Problem`].
    pub async fn verify(&self, source: &dyn LedgerSource) -> Result<Vec<Problem>, ViewError> {
        match self.compare(source).await {
            Err(error) if error.is_damage() => Ok(vec![Problem::Damaged]),
            other => other,
        }
    }

    /// Closes the file in good order. Dropping the view is safe too.
    ///
    /// # Errors
    /// [`ViewError::Database`].
    pub async fn close(self) -> Result<(), ViewError> {
        self.database.into_inner().close().await
    }

    async fn compare(&self, source: &dyn LedgerSource) -> Result<Vec<Problem>, ViewError> {
        // Positions and digests from one read transaction: entries may be applied meanwhile.
        let database = self.database.read().await;
        let mut reader = database.readers.acquire().await?;
        let mut snapshot = reader.begin().await?;
        if let Some(reason) = misplaced(&mut snapshot, &self.own, source).await? {
            return Ok(vec![Problem::Position(reason)]);
        }
        let until = positions(&mut snapshot).await?;
        let found = digest::of_tables(&mut snapshot).await?;
        snapshot.rollback().await?;
        drop(reader);
        drop(database);

        let mut fresh = database::in_memory().await?;
        prepare(&mut fresh, &self.own).await?;
        if let Err(reason) =
            apply_new(&mut fresh, &self.own, source, Until::Positions(&until)).await?
        {
            return Ok(vec![Problem::Position(reason)]);
        }
        let expected = digest::of_tables(&mut fresh).await?;
        Ok(found
            .iter()
            .zip(&expected)
            .filter(|(found, expected)| found.digest != expected.digest)
            .map(|(found, expected)| Problem::Table {
                table: found.table,
                found: found.rows,
                expected: expected.rows,
            })
            .collect())
    }

    async fn table_digests(&self) -> Result<Vec<TableDigest>, ViewError> {
        let database = self.database.read().await;
        let mut reader = database.readers.acquire().await?;
        let mut snapshot = reader.begin().await?;
        let digests = digest::of_tables(&mut snapshot).await?;
        snapshot.rollback().await?;
        Ok(digests)
    }

    /// One transaction from empty to complete: a half-made view could show an agreement whose end is not applied yet.
    async fn rebuild_holding(
        &self,
        applying: &tokio::sync::MutexGuard<'_, ()>,
        source: &dyn LedgerSource,
        why: RebuildReason,
    ) -> Result<Opened, ViewError> {
        let result = {
            let database = self.database.read().await;
            let mut writer = database.writer.lock().await;
            rebuild_in_place(&mut writer, &self.own, source).await
        };
        match result {
            Ok(applied) => Ok(Opened {
                rebuilt: true,
                why: Some(why),
                applied,
            }),
            Err(error) if error.is_damage() => self.replace(applying, source).await,
            Err(error) => Err(error),
        }
    }

    /// Puts a new file in the place of a damaged one.
    async fn replace(
        &self,
        _applying: &tokio::sync::MutexGuard<'_, ()>,
        source: &dyn LedgerSource,
    ) -> Result<Opened, ViewError> {
        let mut database = self.database.write().await;
        database.readers.close().await;
        *database = Self::fresh(&self.path, &self.own).await?;
        let mut writer = database.writer.lock().await;
        let applied = rebuild_in_place(&mut writer, &self.own, source).await?;
        Ok(Opened {
            rebuilt: true,
            why: Some(RebuildReason::Damaged),
            applied,
        })
    }

    /// The database at `path`, if it is whole, of this version and on these logs.
    async fn usable(
        path: &Path,
        own: &Authority,
        source: &dyn LedgerSource,
    ) -> Result<Result<Database, RebuildReason>, ViewError> {
        let database = Database::open(path).await?;
        let judged = {
            let mut writer = database.writer.lock().await;
            match schema::found(&mut writer).await {
                Ok(schema::Found::Present) => misplaced(&mut writer, own, source).await,
                Ok(schema::Found::Empty) => Ok(Some(RebuildReason::Missing)),
                Ok(schema::Found::Foreign) => Ok(Some(RebuildReason::Foreign)),
                Ok(schema::Found::Older(found)) => Ok(Some(RebuildReason::OlderVersion { found })),
                Ok(schema::Found::Newer(found)) => Err(ViewError::Newer {
                    found,
                    known: schema::version(),
                }),
                Err(error) => Err(error),
            }
        };
        match judged {
            Ok(None) => Ok(Ok(database)),
            Ok(Some(reason)) => {
                // It is about to be removed: an error on the way out says nothing new.
                let _ = database.close().await;
                Ok(Err(reason))
            }
            Err(error) => {
                let _ = database.close().await;
                Err(error)
            }
        }
    }

    async fn fresh(path: &Path, own: &Authority) -> Result<Database, ViewError> {
        database::remove(path)?;
        let database = Database::open(path).await?;
        prepare(&mut *database.writer.lock().await, own).await?;
        Ok(database)
    }
}

/// How far a fold goes.
#[derive(Clone, Copy)]
enum Until<'a> {
    Now,
    Positions(&'a BTreeMap<Origin, u64>),
}

/// Makes the tables, all or none.
async fn prepare(connection: &mut SqliteConnection, own: &Authority) -> Result<(), ViewError> {
    begin(connection).await?;
    let made = make_tables(connection, own).await;
    end(connection, made).await
}

async fn make_tables(connection: &mut SqliteConnection, own: &Authority) -> Result<(), ViewError> {
    schema::create(connection).await?;
    sqlx::query("INSERT INTO view (authority) VALUES (?1)")
        .bind(own.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

async fn rebuild_in_place(
    connection: &mut SqliteConnection,
    own: &Authority,
    source: &dyn LedgerSource,
) -> Result<u64, ViewError> {
    begin(connection).await?;
    let applied = apply_all(connection, own, source).await;
    end(connection, applied).await
}

async fn apply_all(
    connection: &mut SqliteConnection,
    own: &Authority,
    source: &dyn LedgerSource,
) -> Result<u64, ViewError> {
    for table in schema::TABLES {
        sqlx::query(table.clear).execute(&mut *connection).await?;
    }
    let mut applied = 0;
    for (log, size) in own_logs(source, own) {
        applied += apply_range(connection, own, source, &log, 0, size).await?;
    }
    Ok(applied)
}

/// Begins a transaction.
///
/// By plain statements, not by `sqlx::Transaction`: where COMMIT fails (the disk is full), SQLite may roll back by itself; the count
/// of open transactions that sqlx keeps is wrong from then on, and the connection never begins one again.
async fn begin(connection: &mut SqliteConnection) -> Result<(), ViewError> {
    // A transaction whose future was dropped halfway is still open.
    if sqlx::query(BEGIN).execute(&mut *connection).await.is_err() {
        roll_back(connection).await;
        sqlx::query(BEGIN).execute(connection).await?;
    }
    Ok(())
}

/// Takes the write lock at once, so that no statement in the middle has to wait for it.
const BEGIN: &str = "BEGIN IMMEDIATE";

/// Ends a transaction: commits what went well, and leaves nothing of the rest.
async fn end<T>(
    connection: &mut SqliteConnection,
    result: Result<T, ViewError>,
) -> Result<T, ViewError> {
    let result = match result {
        Ok(value) => match sqlx::query("COMMIT").execute(&mut *connection).await {
            Ok(_) => Ok(value),
            Err(error) => Err(error.into()),
        },
        Err(error) => Err(error),
    };
    if result.is_err() {
        roll_back(connection).await;
    }
    result
}

async fn roll_back(connection: &mut SqliteConnection) {
    // An error says that no transaction is open, which is what is wanted.
    let _ = sqlx::query("ROLLBACK").execute(connection).await;
}

/// Applies what is new, log by log; or says why the view does not belong to the logs.
async fn apply_new(
    connection: &mut SqliteConnection,
    own: &Authority,
    source: &dyn LedgerSource,
    until: Until<'_>,
) -> Result<Result<u64, RebuildReason>, ViewError> {
    let applied = applied(connection).await?;
    let mut count = 0;
    for (log, size) in own_logs(source, own) {
        let size = match until {
            Until::Now => size,
            Until::Positions(positions) => positions.get(&log).copied().unwrap_or(0).min(size),
        };
        let mut next = 0;
        if let Some((log, position)) = applied.get_key_value(&log) {
            if position.size == size {
                continue;
            }
            if let Some(reason) = off_log(source, log, position, size)? {
                return Ok(Err(reason));
            }
            next = position.size;
        }
        while next < size {
            let to = size.min(next.saturating_add(TRANSACTION_ENTRIES_MAX));
            // A crash before the commit leaves the rows and the position of the batch before.
            begin(connection).await?;
            let applied = apply_range(connection, own, source, &log, next, to).await;
            count += end(connection, applied).await?;
            next = to;
        }
    }
    Ok(Ok(count))
}

/// Applies the entries [from, end) of one log and writes the new position.
async fn apply_range(
    connection: &mut SqliteConnection,
    own: &Authority,
    source: &dyn LedgerSource,
    log: &Origin,
    from: u64,
    end: u64,
) -> Result<u64, ViewError> {
    let mut next = from;
    let mut leaf = None;
    while next < end {
        let wanted =
            usize::try_from(end - next).map_or(READ_ENTRIES_MAX, |left| left.min(READ_ENTRIES_MAX));
        let mut entries = source.entries(log, next, wanted)?;
        entries.truncate(wanted);
        if entries.is_empty() {
            return Err(ViewError::Missing {
                log: log.clone(),
                expected: next,
            });
        }
        for entry in &entries {
            if entry.sequence != next {
                return Err(ViewError::Order {
                    log: log.clone(),
                    expected: next,
                    found: entry.sequence,
                });
            }
            leaf = Some(entry.leaf);
            next += 1;
        }
        fold::apply(connection, own, log, entries).await?;
    }
    if let Some(leaf) = leaf {
        let size = i64::try_from(next).map_err(|_| ViewError::Range {
            log: log.clone(),
            sequence: next,
        })?;
        sqlx::query(
            "INSERT INTO applied (log, size, leaf) VALUES (?1, ?2, ?3) ON CONFLICT (log) DO UPDATE SET size = ?2, leaf = ?3",
        )
        .bind(log.as_str())
        .bind(size)
        .bind(&leaf[..])
        .execute(connection)
        .await?;
    }
    Ok(next - from)
}

/// The ledger logs of `own`, in the order of their names.
fn own_logs(source: &dyn LedgerSource, own: &Authority) -> BTreeMap<Origin, u64> {
    source
        .logs()
        .into_iter()
        .filter(|(log, _)| {
            log.authority() == *own && !matches!(log.subject(), LogSubject::Stream(_))
        })
        .collect()
}

struct Position {
    size: u64,
    leaf: Vec<u8>,
}

async fn applied(
    connection: &mut SqliteConnection,
) -> Result<BTreeMap<Origin, Position>, ViewError> {
    let rows = sqlx::query("SELECT log, size, leaf FROM applied")
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| {
            let log = rows::parsed(row, "log")?;
            let size = rows::unsigned(row, "size")?;
            Ok((
                log,
                Position {
                    size,
                    leaf: row.try_get("leaf")?,
                },
            ))
        })
        .collect()
}

async fn positions(connection: &mut SqliteConnection) -> Result<BTreeMap<Origin, u64>, ViewError> {
    let applied = applied(connection).await?;
    Ok(applied
        .into_iter()
        .map(|(log, position)| (log, position.size))
        .collect())
}

fn off_log(
    source: &dyn LedgerSource,
    log: &Origin,
    position: &Position,
    size: u64,
) -> Result<Option<RebuildReason>, ViewError> {
    let Some(sequence) = position.size.checked_sub(1) else {
        return Ok(None);
    };
    if position.size > size {
        return Ok(Some(RebuildReason::Ahead {
            log: log.clone(),
            applied: position.size,
            size,
        }));
    }
    let same = source.leaf_hash(log, sequence)?[..] == position.leaf[..];
    Ok((!same).then(|| RebuildReason::OffLog {
        log: log.clone(),
        sequence,
    }))
}

/// Why the view does not belong to the logs, if it does not.
async fn misplaced(
    connection: &mut SqliteConnection,
    own: &Authority,
    source: &dyn LedgerSource,
) -> Result<Option<RebuildReason>, ViewError> {
    let made_for: Option<String> = match sqlx::query("SELECT authority FROM view")
        .fetch_optional(&mut *connection)
        .await?
    {
        Some(row) => row.try_get(0)?,
        None => None,
    };
    if made_for.as_deref() != Some(own.as_str()) {
        return Ok(Some(RebuildReason::OtherAuthority));
    }
    let logs = own_logs(source, own);
    for (log, position) in applied(connection).await? {
        let Some(&size) = logs.get(&log) else {
            return Ok(Some(RebuildReason::UnknownLog { log }));
        };
        if let Some(reason) = off_log(source, &log, &position, size)? {
            return Ok(Some(reason));
        }
        // An older copy put beside a younger write-ahead log gives a mixture of both.
        let row = sqlx::query("SELECT count(*) AS entries FROM entries WHERE log = ?1")
            .bind(log.as_str())
            .fetch_one(&mut *connection)
            .await?;
        let found = rows::unsigned(&row, "entries")?;
        if found != position.size {
            return Ok(Some(RebuildReason::Incomplete {
                log,
                applied: position.size,
                found,
            }));
        }
    }
    Ok(None)
}
