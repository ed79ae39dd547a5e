use sqlx::{AssertSqlSafe, Row as _, SqliteConnection};

use super::error::ViewError;

/// Written into the file's header (`PRAGMA application_id`), so that a foreign database under the view's name is told apart: "cslv".
const APPLICATION_ID: i64 = 0x6373_6c76;

/// The numbered steps to the present schema; the view's version is their count. A database below it is dropped and rebuilt rather
/// than altered, because nothing lives only there: so a step never has to carry data along.
///
/// In every table but `view` and `applied`, (`log`, `seq`) names the ledger entry that says so, which also gives the rows their
/// defined order. Times are microseconds since 1970; digests and keys are blobs of 32 bytes.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE view (authority TEXT NOT NULL PRIMARY KEY);
    CREATE TABLE applied (
        log TEXT NOT NULL PRIMARY KEY, size INTEGER NOT NULL, leaf BLOB NOT NULL);

    -- `skipped` says why a record had no effect on the other tables.
    CREATE TABLE entries (
        log TEXT NOT NULL, seq INTEGER NOT NULL, time_us INTEGER NOT NULL, kind TEXT, partner TEXT, stream TEXT,
        json TEXT, skipped TEXT, PRIMARY KEY (log, seq));
    CREATE INDEX entries_by_time ON entries (time_us, log, seq);
    CREATE INDEX entries_by_partner ON entries (partner, time_us, log, seq) WHERE partner IS NOT NULL;
    CREATE INDEX entries_by_stream ON entries (stream, time_us, log, seq) WHERE stream IS NOT NULL;

    CREATE TABLE partners (
        authority TEXT NOT NULL PRIMARY KEY, name TEXT, organization_key BLOB, statement_number INTEGER,
        statement_envelope TEXT, addresses_json TEXT NOT NULL, revoked_us INTEGER, revoked_why TEXT,
        since_us INTEGER NOT NULL, log TEXT NOT NULL, seq INTEGER NOT NULL);
    CREATE TABLE own_statements (
        number INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL, organization_key BLOB NOT NULL,
        made_us INTEGER NOT NULL, envelope TEXT NOT NULL, log TEXT NOT NULL, seq INTEGER NOT NULL);

    CREATE TABLE agreements (
        partner TEXT NOT NULL, id BLOB NOT NULL, role TEXT NOT NULL, stream TEXT NOT NULL, plan_json TEXT NOT NULL,
        from_us INTEGER NOT NULL, until_us INTEGER, made_us INTEGER NOT NULL, invitation TEXT, envelope TEXT NOT NULL,
        state TEXT NOT NULL, ended_us INTEGER, end_position INTEGER, why TEXT, end_envelope TEXT,
        time_us INTEGER NOT NULL, log TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (partner, id));
    CREATE INDEX agreements_by_id ON agreements (id, time_us, log);

    CREATE TABLE receipts (
        partner TEXT NOT NULL, agreement BLOB NOT NULL, stream TEXT NOT NULL, series BLOB NOT NULL,
        number INTEGER NOT NULL, consumer TEXT NOT NULL, start INTEGER NOT NULL, size INTEGER NOT NULL,
        root BLOB NOT NULL, level TEXT NOT NULL, applied INTEGER NOT NULL, events INTEGER NOT NULL,
        bytes INTEGER NOT NULL, rejected INTEGER NOT NULL, from_seq INTEGER NOT NULL, add_events INTEGER NOT NULL,
        add_bytes INTEGER NOT NULL, made_us INTEGER NOT NULL, envelope TEXT NOT NULL,
        time_us INTEGER NOT NULL, log TEXT NOT NULL, seq INTEGER NOT NULL,
        PRIMARY KEY (agreement, stream, partner, series, number));
    CREATE UNIQUE INDEX receipts_by_entry ON receipts (log, seq);

    CREATE TABLE rejections (
        partner TEXT NOT NULL, agreement BLOB NOT NULL, stream TEXT NOT NULL, sequence INTEGER NOT NULL,
        leaf BLOB NOT NULL, reason TEXT NOT NULL, made_us INTEGER NOT NULL, envelope TEXT NOT NULL,
        time_us INTEGER NOT NULL, log TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (log, seq));
    CREATE TABLE refusals (
        partner TEXT, asked TEXT NOT NULL, principal TEXT, about TEXT NOT NULL, code TEXT NOT NULL,
        reason TEXT NOT NULL, position INTEGER, made_us INTEGER NOT NULL, envelope TEXT NOT NULL,
        time_us INTEGER NOT NULL, log TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (log, seq));
    CREATE TABLE faults (
        partner TEXT, code TEXT NOT NULL, detail TEXT NOT NULL, stream TEXT, evidence TEXT,
        time_us INTEGER NOT NULL, log TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (log, seq));
    CREATE TABLE decisions (
        principal TEXT NOT NULL, action TEXT NOT NULL, stream TEXT NOT NULL, allowed INTEGER NOT NULL,
        policies_json TEXT NOT NULL, policy_digest BLOB NOT NULL, errors_json TEXT NOT NULL, agreement BLOB,
        facts TEXT NOT NULL, time_us INTEGER NOT NULL, log TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (log, seq));

    CREATE TABLE invitations (
        id TEXT NOT NULL PRIMARY KEY, offer TEXT NOT NULL, secret_key BLOB NOT NULL, for_key TEXT,
        confirm INTEGER NOT NULL, expires_us INTEGER NOT NULL, step TEXT NOT NULL, organization BLOB, authority TEXT,
        reason TEXT, refused INTEGER NOT NULL, made_us INTEGER NOT NULL, step_us INTEGER,
        log TEXT NOT NULL, seq INTEGER NOT NULL);
    CREATE TABLE apps (
        name TEXT NOT NULL PRIMARY KEY, key BLOB NOT NULL, enrolled INTEGER NOT NULL, time_us INTEGER NOT NULL,
        log TEXT NOT NULL, seq INTEGER NOT NULL);
    CREATE TABLE cursors (
        app TEXT NOT NULL, stream TEXT NOT NULL, next INTEGER NOT NULL, leaf BLOB NOT NULL, time_us INTEGER NOT NULL,
        log TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (app, stream));
    CREATE TABLE policy_sets (
        digest BLOB NOT NULL PRIMARY KEY, files_json TEXT NOT NULL, first_us INTEGER NOT NULL, last_us INTEGER NOT NULL,
        log TEXT NOT NULL, seq INTEGER NOT NULL);
"];

/// A table whose rows are counted into the digest of the view.
pub(super) struct Table {
    /// Its name.
    pub(super) name: &'static str,
    /// One page of its rows in the defined order, after (`?1`, `?2`), at most `?3`.
    pub(super) page: &'static str,
    /// Removes all rows.
    pub(super) clear: &'static str,
}

macro_rules! table {
    ($name:literal) => {
        Table {
            name: $name,
            page: concat!(
                "SELECT * FROM ",
                $name,
                " WHERE (log, seq) > (?1, ?2) ORDER BY log, seq LIMIT ?3"
            ),
            clear: concat!("DELETE FROM ", $name),
        }
    };
}

/// Every table of the fold, in the order of the digest.
pub(super) const TABLES: &[Table] = &[
    Table {
        name: "applied",
        page: "SELECT *, 0 AS seq FROM applied WHERE (log, 0) > (?1, ?2) ORDER BY log LIMIT ?3",
        clear: "DELETE FROM applied",
    },
    table!("entries"),
    table!("partners"),
    table!("own_statements"),
    table!("agreements"),
    table!("receipts"),
    table!("rejections"),
    table!("refusals"),
    table!("faults"),
    table!("decisions"),
    table!("invitations"),
    table!("apps"),
    table!("cursors"),
    table!("policy_sets"),
];

/// What the header and the schema of a database say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Found {
    /// No tables at all.
    Empty,
    /// The present schema.
    Present,
    /// An older version of it.
    Older(i64),
    /// A newer one.
    Newer(i64),
    /// Something else.
    Foreign,
}

/// Makes the tables in an empty database.
pub(super) async fn create(connection: &mut SqliteConnection) -> Result<(), ViewError> {
    for step in MIGRATIONS {
        sqlx::raw_sql(*step).execute(&mut *connection).await?;
    }
    // A PRAGMA takes no bound parameters; both numbers are constants of this file.
    let header = format!(
        "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {}",
        version()
    );
    sqlx::raw_sql(AssertSqlSafe(header))
        .execute(&mut *connection)
        .await?;
    Ok(())
}

/// Compares a database with the present schema.
pub(super) async fn found(connection: &mut SqliteConnection) -> Result<Found, ViewError> {
    let statements = statements(connection).await?;
    if statements.is_empty() {
        return Ok(Found::Empty);
    }
    let id: i64 = pragma(connection, "PRAGMA application_id").await?;
    let found: i64 = pragma(connection, "PRAGMA user_version").await?;
    if id != APPLICATION_ID {
        return Ok(Found::Foreign);
    }
    Ok(match found.cmp(&version()) {
        std::cmp::Ordering::Greater => Found::Newer(found),
        std::cmp::Ordering::Less => Found::Older(found),
        std::cmp::Ordering::Equal => {
            let mut fresh = super::database::in_memory().await?;
            create(&mut fresh).await?;
            // A table that somebody dropped or altered would otherwise be met in the middle of a transaction.
            if self::statements(&mut fresh).await? == statements {
                Found::Present
            } else {
                Found::Foreign
            }
        }
    })
}

/// The version of the present schema.
pub(super) fn version() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

async fn pragma(connection: &mut SqliteConnection, sql: &'static str) -> Result<i64, ViewError> {
    Ok(sqlx::query(sql).fetch_one(connection).await?.try_get(0)?)
}

async fn statements(
    connection: &mut SqliteConnection,
) -> Result<Vec<(String, Option<String>)>, ViewError> {
    let rows = sqlx::query("SELECT name, sql FROM sqlite_schema ORDER BY name")
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}
