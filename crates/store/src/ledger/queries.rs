//! What one can ask the view.

use std::collections::BTreeMap;

use countersign_event::documents::{AgreementId, SeriesId};
use countersign_event::names::{Authority, Origin};
use countersign_event::time::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite};

use super::LedgerView;
use super::error::ViewError;
use super::rows::{
    self, AgreementRow, AgreementState, AppRow, CursorRow, DecisionRow, EntryRow, FaultRow,
    InvitationRow, OwnStatementRow, PartnerRow, PolicySetRow, ReceiptRow, RefusalRow, RejectionRow,
    Side,
};

/// Which entries. The default is all.
#[derive(Clone, Debug, Default)]
pub struct EntryFilter {
    /// In the log of this counterparty.
    pub partner: Option<Authority>,
    /// Concerning this stream.
    pub stream: Option<Origin>,
    /// Of this kind.
    pub kind: Option<String>,
    /// At this time or later.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
    /// After this entry, in the order of the answer: how a listing goes on.
    pub after: Option<EntryKey>,
}

/// Where an entry stands in the order by time, log and sequence.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EntryKey {
    /// Its time.
    pub time: Timestamp,
    /// Its log.
    pub log: Origin,
    /// Its sequence there.
    pub sequence: u64,
}

impl EntryRow {
    /// Where it stands, to ask for what comes after.
    #[must_use]
    pub fn key(&self) -> EntryKey {
        EntryKey {
            time: self.time,
            log: self.log.clone(),
            sequence: self.sequence,
        }
    }
}

/// Which agreements. The default is all.
#[derive(Clone, Debug, Default)]
pub struct AgreementFilter {
    /// With this partner.
    pub partner: Option<Authority>,
    /// About this stream.
    pub stream: Option<Origin>,
    /// With this organization on this side.
    pub side: Option<Side>,
    /// In this state.
    pub state: Option<AgreementState>,
}

/// Which receipts. The default is all.
#[derive(Clone, Debug, Default)]
pub struct ReceiptFilter {
    /// With this partner.
    pub partner: Option<Authority>,
    /// Under this agreement.
    pub agreement: Option<AgreementId>,
    /// About this stream.
    pub stream: Option<Origin>,
    /// Recorded at this time or later.
    pub since: Option<Timestamp>,
    /// Recorded before this time.
    pub until: Option<Timestamp>,
}

/// Every query may fail with [`ViewError::Database`] or, in a database that was altered, [`ViewError::Row`].
impl LedgerView {
    /// Entries by time, log and sequence, oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn entries(
        &self,
        filter: &EntryFilter,
        limit: u32,
    ) -> Result<Vec<EntryRow>, ViewError> {
        let mut sql = Conditions::new("SELECT * FROM entries");
        sql.text("partner = ", filter.partner.as_ref().map(Authority::as_str));
        sql.text("stream = ", filter.stream.as_ref().map(Origin::as_str));
        sql.text("kind = ", filter.kind.as_deref());
        sql.time("time_us >= ", filter.since);
        sql.time("time_us < ", filter.until);
        if let Some(after) = &filter.after {
            sql.and("(time_us, log, seq) > (");
            sql.query.push_bind(saturated(after.time.0)).push(", ");
            sql.query
                .push_bind(after.log.as_str().to_owned())
                .push(", ");
            sql.query.push_bind(saturated(after.sequence)).push(")");
        }
        sql.query
            .push(" ORDER BY time_us, log, seq LIMIT ")
            .push_bind(i64::from(limit));
        self.build(sql.query, EntryRow::read).await
    }

    /// The newest entries, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn newest_entries(&self, limit: u32) -> Result<Vec<EntryRow>, ViewError> {
        let sql = "SELECT * FROM entries ORDER BY time_us DESC, log DESC, seq DESC LIMIT ?1";
        self.all(sqlx::query(sql).bind(i64::from(limit)), EntryRow::read)
            .await
    }

    /// How many entries there are of each kind; control entries and those of newer versions are not counted.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn counts(&self) -> Result<BTreeMap<String, u64>, ViewError> {
        let sql =
            "SELECT kind, count(*) AS entries FROM entries WHERE kind IS NOT NULL GROUP BY kind";
        let counts = self
            .all(sqlx::query(sql), |row| {
                Ok((row.try_get("kind")?, rows::unsigned(row, "entries")?))
            })
            .await?;
        Ok(counts.into_iter().collect())
    }

    /// How many records changed no table, by reason: the words of [`Skip`](super::Skip).
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn skipped(&self) -> Result<BTreeMap<String, u64>, ViewError> {
        let sql = "SELECT skipped, count(*) AS entries FROM entries WHERE skipped IS NOT NULL GROUP BY skipped";
        let counts = self
            .all(sqlx::query(sql), |row| {
                Ok((row.try_get("skipped")?, rows::unsigned(row, "entries")?))
            })
            .await?;
        Ok(counts.into_iter().collect())
    }

    /// Entries applied of each log.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn applied(&self) -> Result<BTreeMap<Origin, u64>, ViewError> {
        let sql = "SELECT log, size FROM applied";
        let sizes = self
            .all(sqlx::query(sql), |row| {
                Ok((rows::parsed(row, "log")?, rows::unsigned(row, "size")?))
            })
            .await?;
        Ok(sizes.into_iter().collect())
    }

    /// All partners, by authority.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn partners(&self) -> Result<Vec<PartnerRow>, ViewError> {
        self.all(
            sqlx::query("SELECT * FROM partners ORDER BY authority"),
            PartnerRow::read,
        )
        .await
    }

    /// One partner.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn partner(&self, authority: &Authority) -> Result<Option<PartnerRow>, ViewError> {
        let sql = "SELECT * FROM partners WHERE authority = ?1";
        self.one(sqlx::query(sql).bind(authority.as_str()), PartnerRow::read)
            .await
    }

    /// Agreements, in the order in which they were recorded.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn agreements(
        &self,
        filter: &AgreementFilter,
    ) -> Result<Vec<AgreementRow>, ViewError> {
        let mut sql = Conditions::new("SELECT * FROM agreements");
        sql.text("partner = ", filter.partner.as_ref().map(Authority::as_str));
        sql.text("stream = ", filter.stream.as_ref().map(Origin::as_str));
        sql.text("role = ", filter.side.map(Side::as_str));
        sql.text("state = ", filter.state.map(AgreementState::as_str));
        sql.query.push(" ORDER BY time_us, log, seq");
        self.build(sql.query, AgreementRow::read).await
    }

    /// One agreement. A hostile partner may reuse another's id; the one recorded first is meant.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn agreement(&self, id: &AgreementId) -> Result<Option<AgreementRow>, ViewError> {
        let sql = "SELECT * FROM agreements WHERE id = ?1 ORDER BY time_us, log LIMIT 1";
        self.one(sqlx::query(sql).bind(id.0.to_vec()), AgreementRow::read)
            .await
    }

    /// Receipts, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn receipts(
        &self,
        filter: &ReceiptFilter,
        limit: u32,
    ) -> Result<Vec<ReceiptRow>, ViewError> {
        let mut sql = Conditions::new("SELECT * FROM receipts");
        sql.text("partner = ", filter.partner.as_ref().map(Authority::as_str));
        if let Some(agreement) = filter.agreement {
            sql.and("agreement = ");
            sql.query.push_bind(agreement.0.to_vec());
        }
        sql.text("stream = ", filter.stream.as_ref().map(Origin::as_str));
        sql.time("time_us >= ", filter.since);
        sql.time("time_us < ", filter.until);
        sql.query
            .push(" ORDER BY time_us DESC, log DESC, seq DESC LIMIT ")
            .push_bind(i64::from(limit));
        self.build(sql.query, ReceiptRow::read).await
    }

    /// The newest receipt of an agreement's stream, whatever its series; of the partner that [`Self::agreement`] names.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn last_receipt(
        &self,
        agreement: &AgreementId,
        stream: &Origin,
    ) -> Result<Option<ReceiptRow>, ViewError> {
        let sql = "SELECT * FROM receipts WHERE agreement = ?1 AND stream = ?2
            AND partner = (SELECT partner FROM agreements WHERE id = ?1 ORDER BY time_us, log LIMIT 1)
            ORDER BY seq DESC LIMIT 1";
        let query = sqlx::query(sql)
            .bind(agreement.0.to_vec())
            .bind(stream.as_str());
        self.one(query, ReceiptRow::read).await
    }

    /// The newest receipt of each series.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn last_receipts(&self) -> Result<Vec<ReceiptRow>, ViewError> {
        // The inner query is answered from the primary key's index alone.
        let sql = "SELECT r.* FROM (SELECT agreement AS a, stream AS s, partner AS p, series AS e, max(number) AS n
                FROM receipts GROUP BY agreement, stream, partner, series)
            JOIN receipts r ON r.agreement = a AND r.stream = s AND r.partner = p AND r.series = e AND r.number = n
            ORDER BY r.time_us, r.log, r.seq";
        self.all(sqlx::query(sql), ReceiptRow::read).await
    }

    /// The receipts of a series after `number`, in order and at most `limit`, of the partner that [`Self::agreement`] names.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn receipts_after(
        &self,
        agreement: &AgreementId,
        stream: &Origin,
        series: &SeriesId,
        (number, limit): (u64, u32),
    ) -> Result<Vec<ReceiptRow>, ViewError> {
        let sql = "SELECT * FROM receipts WHERE agreement = ?1 AND stream = ?2 AND series = ?3 AND number > ?4
            AND partner = (SELECT partner FROM agreements WHERE id = ?1 ORDER BY time_us, log LIMIT 1)
            ORDER BY number LIMIT ?5";
        let query = sqlx::query(sql)
            .bind(agreement.0.to_vec())
            .bind(stream.as_str())
            .bind(series.0.to_vec())
            .bind(saturated(number))
            .bind(i64::from(limit));
        self.all(query, ReceiptRow::read).await
    }

    /// Rejected events, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn rejections(&self, limit: u32) -> Result<Vec<RejectionRow>, ViewError> {
        let sql = "SELECT * FROM rejections ORDER BY time_us DESC, log DESC, seq DESC LIMIT ?1";
        self.all(sqlx::query(sql).bind(i64::from(limit)), RejectionRow::read)
            .await
    }

    /// Refusals given and got, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn refusals(&self, limit: u32) -> Result<Vec<RefusalRow>, ViewError> {
        let sql = "SELECT * FROM refusals ORDER BY time_us DESC, log DESC, seq DESC LIMIT ?1";
        self.all(sqlx::query(sql).bind(i64::from(limit)), RefusalRow::read)
            .await
    }

    /// Faults, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn faults(&self, limit: u32) -> Result<Vec<FaultRow>, ViewError> {
        let sql = "SELECT * FROM faults ORDER BY time_us DESC, log DESC, seq DESC LIMIT ?1";
        self.all(sqlx::query(sql).bind(i64::from(limit)), FaultRow::read)
            .await
    }

    /// Decisions, newest first, at most `limit`; about one stream, where one is given.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn decisions(
        &self,
        stream: Option<&Origin>,
        limit: u32,
    ) -> Result<Vec<DecisionRow>, ViewError> {
        let mut sql = Conditions::new("SELECT * FROM decisions");
        sql.text("stream = ", stream.map(Origin::as_str));
        sql.query
            .push(" ORDER BY time_us DESC, log DESC, seq DESC LIMIT ")
            .push_bind(i64::from(limit));
        self.build(sql.query, DecisionRow::read).await
    }

    /// All invitations, in the order in which they were made.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn invitations(&self) -> Result<Vec<InvitationRow>, ViewError> {
        self.all(
            sqlx::query("SELECT * FROM invitations ORDER BY log, seq"),
            InvitationRow::read,
        )
        .await
    }

    /// One invitation.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn invitation(&self, id: &str) -> Result<Option<InvitationRow>, ViewError> {
        self.one(
            sqlx::query("SELECT * FROM invitations WHERE id = ?1").bind(id.to_owned()),
            InvitationRow::read,
        )
        .await
    }

    /// All applications, by name; those that were taken back too.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn apps(&self) -> Result<Vec<AppRow>, ViewError> {
        self.all(
            sqlx::query("SELECT * FROM apps ORDER BY name"),
            AppRow::read,
        )
        .await
    }

    /// How far one application has read one log.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn cursor(&self, app: &str, stream: &Origin) -> Result<Option<CursorRow>, ViewError> {
        let sql = "SELECT * FROM cursors WHERE app = ?1 AND stream = ?2";
        self.one(
            sqlx::query(sql).bind(app.to_owned()).bind(stream.as_str()),
            CursorRow::read,
        )
        .await
    }

    /// All cursors, by application and log.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn cursors(&self) -> Result<Vec<CursorRow>, ViewError> {
        self.all(
            sqlx::query("SELECT * FROM cursors ORDER BY app, stream"),
            CursorRow::read,
        )
        .await
    }

    /// All policy sets, the one that came into force last first.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn policy_sets(&self) -> Result<Vec<PolicySetRow>, ViewError> {
        self.all(
            sqlx::query("SELECT * FROM policy_sets ORDER BY log, seq DESC"),
            PolicySetRow::read,
        )
        .await
    }

    /// The newest key statement of this organization: the one with the highest number.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn own_statement(&self) -> Result<Option<OwnStatementRow>, ViewError> {
        let sql = "SELECT * FROM own_statements ORDER BY number DESC LIMIT 1";
        self.one(sqlx::query(sql), OwnStatementRow::read).await
    }

    async fn all<T>(
        &self,
        query: sqlx::query::Query<'_, Sqlite, sqlx::sqlite::SqliteArguments>,
        read: impl Fn(&SqliteRow) -> Result<T, ViewError>,
    ) -> Result<Vec<T>, ViewError> {
        let database = self.database.read().await;
        let rows = query.fetch_all(&database.readers).await?;
        rows.iter().map(read).collect()
    }

    async fn one<T>(
        &self,
        query: sqlx::query::Query<'_, Sqlite, sqlx::sqlite::SqliteArguments>,
        read: impl Fn(&SqliteRow) -> Result<T, ViewError>,
    ) -> Result<Option<T>, ViewError> {
        let database = self.database.read().await;
        let row = query.fetch_optional(&database.readers).await?;
        row.as_ref().map(read).transpose()
    }

    async fn build<T>(
        &self,
        mut query: QueryBuilder<Sqlite>,
        read: impl Fn(&SqliteRow) -> Result<T, ViewError>,
    ) -> Result<Vec<T>, ViewError> {
        self.all(query.build(), read).await
    }
}

/// A statement whose conditions are fixed text and whose values are bound.
struct Conditions {
    query: QueryBuilder<Sqlite>,
    any: bool,
}

impl Conditions {
    fn new(select: &'static str) -> Self {
        Self {
            query: QueryBuilder::new(select),
            any: false,
        }
    }

    fn and(&mut self, condition: &'static str) {
        self.query
            .push(if self.any { " AND " } else { " WHERE " })
            .push(condition);
        self.any = true;
    }

    fn text(&mut self, condition: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.and(condition);
            self.query.push_bind(value.to_owned());
        }
    }

    fn time(&mut self, condition: &'static str, value: Option<Timestamp>) {
        if let Some(value) = value {
            self.and(condition);
            self.query.push_bind(saturated(value.0));
        }
    }
}

/// Nothing stored is larger, so that a larger bound is as good as this one.
fn saturated(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
