use countersign_crypto::{Hash, Sha256Stream};
use sqlx::sqlite::SqliteRow;
use sqlx::{Column as _, Row as _, SqliteConnection, TypeInfo as _, ValueRef as _};

use super::error::ViewError;
use super::schema;

/// Rows read at once.
const PAGE_ROWS: i64 = 500;

/// The rows of one table in one hash.
pub(super) struct TableDigest {
    pub(super) table: &'static str,
    pub(super) rows: u64,
    pub(super) digest: Hash,
}

/// The digest of each table, in the order of [`schema::TABLES`], on a connection that is in a transaction.
pub(super) async fn of_tables(
    connection: &mut SqliteConnection,
) -> Result<Vec<TableDigest>, ViewError> {
    let mut digests = Vec::with_capacity(schema::TABLES.len());
    for table in schema::TABLES {
        let mut hash = Sha256Stream::new();
        let mut rows = 0;
        let mut after = (String::new(), -1);
        loop {
            let page = sqlx::query(table.page)
                .bind(&after.0)
                .bind(after.1)
                .bind(PAGE_ROWS)
                .fetch_all(&mut *connection)
                .await?;
            let Some(last) = page.last() else { break };
            after = (last.try_get("log")?, last.try_get("seq")?);
            for row in &page {
                add_row(&mut hash, row)?;
                rows += 1;
            }
        }
        digests.push(TableDigest {
            table: table.name,
            rows,
            digest: hash.finish(),
        });
    }
    Ok(digests)
}

/// One digest over those of all tables.
pub(super) fn of_all(tables: &[TableDigest]) -> Hash {
    let mut hash = Sha256Stream::new();
    for table in tables {
        add_value(&mut hash, b'T', table.table.as_bytes());
        hash.update(&table.digest);
    }
    hash.finish()
}

/// Each value as tag, length and bytes, so that no two different rows have the same form.
fn add_row(hash: &mut Sha256Stream, row: &SqliteRow) -> Result<(), ViewError> {
    add_value(hash, b'R', &[]);
    for column in row.columns() {
        let index = column.ordinal();
        let value = row.try_get_raw(index)?;
        if value.is_null() {
            add_value(hash, b'n', &[]);
            continue;
        }
        match value.type_info().name() {
            "INTEGER" | "BOOLEAN" => add_value(
                hash,
                b'i',
                &row.try_get_unchecked::<i64, _>(index)?.to_be_bytes(),
            ),
            "TEXT" => add_value(
                hash,
                b't',
                row.try_get_unchecked::<&str, _>(index)?.as_bytes(),
            ),
            "BLOB" => add_value(hash, b'b', row.try_get_unchecked::<&[u8], _>(index)?),
            // No table of ours has other types.
            _ => return Err(ViewError::Damaged),
        }
    }
    Ok(())
}

fn add_value(hash: &mut Sha256Stream, tag: u8, bytes: &[u8]) {
    hash.update(&[tag]);
    hash.update(&(bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}
