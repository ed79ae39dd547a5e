//! The tables that only grow, written many rows at a time: a statement costs a trip to the database's thread, so that one per
//! row would be most of the time of a rebuild.

use countersign_crypto::Hash;
use countersign_event::documents::{self, AgreementId};
use countersign_event::names::Origin;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::error::ViewError;
use super::fold::word;

/// Rows per statement: the widest table has 22 columns, and SQLite takes 32,766 bound values.
const ROWS_PER_STATEMENT: usize = 100;

/// Rows that wait to be written. Nothing else in the fold reads them.
#[derive(Default)]
pub(super) struct Appended {
    pub(super) decisions: Vec<Decision>,
    pub(super) entries: Vec<Entry>,
    pub(super) receipts: Vec<Receipt>,
}

pub(super) struct Entry {
    pub(super) seq: i64,
    pub(super) time_us: i64,
    pub(super) kind: Option<&'static str>,
    pub(super) stream: Option<Origin>,
    pub(super) json: Option<String>,
    pub(super) skipped: Option<&'static str>,
}

pub(super) struct Receipt {
    pub(super) seq: i64,
    pub(super) time_us: i64,
    pub(super) document: documents::Receipt,
    pub(super) envelope: String,
    pub(super) number: i64,
    pub(super) start: i64,
    pub(super) size: i64,
    pub(super) applied: i64,
    pub(super) events: i64,
    pub(super) bytes: i64,
    pub(super) rejected: i64,
    pub(super) made_us: i64,
    pub(super) from_seq: i64,
    pub(super) add_events: i64,
    pub(super) add_bytes: i64,
}

pub(super) struct Decision {
    pub(super) seq: i64,
    pub(super) time_us: i64,
    pub(super) principal: String,
    pub(super) action: String,
    pub(super) stream: Origin,
    pub(super) allowed: bool,
    pub(super) policies_json: String,
    pub(super) policy_digest: Hash,
    pub(super) errors_json: String,
    pub(super) agreement: Option<AgreementId>,
    pub(super) facts: String,
}

/// Writes all rows of one log.
pub(super) async fn write(
    connection: &mut SqliteConnection,
    log: &str,
    partner: Option<&str>,
    appended: Appended,
) -> Result<(), ViewError> {
    for rows in appended.entries.chunks(ROWS_PER_STATEMENT) {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "INSERT INTO entries (log, seq, time_us, kind, partner, stream, json, skipped) ",
        );
        sql.push_values(rows, |mut to, row| {
            to.push_bind(log)
                .push_bind(row.seq)
                .push_bind(row.time_us)
                .push_bind(row.kind)
                .push_bind(partner)
                .push_bind(row.stream.as_ref().map(Origin::as_str))
                .push_bind(row.json.as_deref())
                .push_bind(row.skipped);
        });
        execute(connection, sql, rows.len()).await?;
    }
    for rows in appended.receipts.chunks(ROWS_PER_STATEMENT) {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "INSERT INTO receipts (partner, agreement, stream, series, number, consumer, start, size, root, level, applied, \
             events, bytes, rejected, from_seq, add_events, add_bytes, made_us, envelope, time_us, log, seq) ",
        );
        sql.push_values(rows, |mut to, row| {
            to.push_bind(partner)
                .push_bind(&row.document.agreement.0[..])
                .push_bind(row.document.stream.as_str())
                .push_bind(&row.document.series.0[..])
                .push_bind(row.number)
                .push_bind(row.document.consumer.as_str())
                .push_bind(row.start)
                .push_bind(row.size)
                .push_bind(&row.document.root.0[..])
                .push_bind(word(&row.document.level))
                .push_bind(row.applied)
                .push_bind(row.events)
                .push_bind(row.bytes)
                .push_bind(row.rejected)
                .push_bind(row.from_seq)
                .push_bind(row.add_events)
                .push_bind(row.add_bytes)
                .push_bind(row.made_us)
                .push_bind(row.envelope.as_str())
                .push_bind(row.time_us)
                .push_bind(log)
                .push_bind(row.seq);
        });
        // The first receipt of a number is the receipt: a repeat must not be billed twice, and one that contradicts it is a
        // fault, not a correction. Both stay in `entries`.
        sql.push(" ON CONFLICT (agreement, stream, partner, series, number) DO NOTHING");
        execute(connection, sql, rows.len()).await?;
    }
    for rows in appended.decisions.chunks(ROWS_PER_STATEMENT) {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "INSERT INTO decisions (principal, action, stream, allowed, policies_json, policy_digest, errors_json, agreement, \
             facts, time_us, log, seq) ",
        );
        sql.push_values(rows, |mut to, row| {
            to.push_bind(row.principal.as_str())
                .push_bind(row.action.as_str())
                .push_bind(row.stream.as_str())
                .push_bind(row.allowed)
                .push_bind(row.policies_json.as_str())
                .push_bind(&row.policy_digest[..])
                .push_bind(row.errors_json.as_str())
                .push_bind(row.agreement.as_ref().map(|id| &id.0[..]))
                .push_bind(row.facts.as_str())
                .push_bind(row.time_us)
                .push_bind(log)
                .push_bind(row.seq);
        });
        execute(connection, sql, rows.len()).await?;
    }
    Ok(())
}

async fn execute(
    connection: &mut SqliteConnection,
    mut sql: QueryBuilder<Sqlite>,
    rows: usize,
) -> Result<(), ViewError> {
    // Only the full chunk's statement is met again and worth keeping prepared.
    let query = sql.build().persistent(rows == ROWS_PER_STATEMENT);
    query.execute(connection).await?;
    Ok(())
}
