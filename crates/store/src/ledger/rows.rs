//! The typed rows of the view.

use std::str::FromStr;

use countersign_crypto::{Hash, PublicKey};
use countersign_event::documents::{AgreementId, Level, Plan, SeriesId};
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::{Authority, Origin};
use countersign_event::time::Timestamp;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::error::ViewError;

/// A structure read from a row, column by column of the same name.
macro_rules! row {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $read:ident($column:literal),)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Eq, PartialEq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $name {
            pub(super) fn read(row: &SqliteRow) -> Result<Self, ViewError> {
                Ok(Self { $($field: $read(row, $column)?,)* })
            }
        }
    };
}

row! {
    /// One ledger entry.
    EntryRow {
        /// Its log.
        log: Origin = parsed("log"),
        /// Its sequence there.
        sequence: u64 = unsigned("seq"),
        /// Its time, by the log's clock.
        time: Timestamp = time("time_us"),
        /// The kind of its record; absent for control entries and records of a newer version.
        kind: Option<String> = plain("kind"),
        /// The counterparty of the log; absent for the node's own.
        partner: Option<Authority> = maybe_parsed("partner"),
        /// The stream concerned, if one is.
        stream: Option<Origin> = maybe_parsed("stream"),
        /// The record as JSON text.
        json: Option<String> = plain("json"),
        /// Why the record changed no other table, if it did not: a word of [`Skip`](super::Skip).
        skipped: Option<String> = plain("skipped"),
    }
}

impl EntryRow {
    /// The record, where the entry has one.
    ///
    /// # Errors
    /// [`ViewError::Row`] where the database was altered.
    pub fn record(&self) -> Result<Option<LedgerRecord>, ViewError> {
        let read = |json: &String| LedgerRecord::from_json(json.as_bytes());
        self.json
            .as_ref()
            .map(read)
            .transpose()
            .map_err(|_| ViewError::Row { column: "json" })
    }
}

row! {
    /// A partner.
    PartnerRow {
        /// Its name in origins.
        authority: Authority = parsed("authority"),
        /// Its display name, a claim; absent while only a revocation is known.
        name: Option<String> = plain("name"),
        /// Its organization key, the first that was met.
        organization_key: Option<PublicKey> = maybe_key("organization_key"),
        /// Number of its newest key statement.
        statement_number: Option<u64> = maybe_unsigned("statement_number"),
        /// That statement.
        statement_envelope: Option<String> = plain("statement_envelope"),
        /// Where its node was last said to be.
        addresses: Vec<String> = from_json("addresses_json"),
        /// When its access was ended as a whole; absent where it was not, or where a later agreement readmitted it.
        revoked: Option<Timestamp> = maybe_time("revoked_us"),
        /// Why.
        revoked_why: Option<String> = plain("revoked_why"),
        /// When it was first met.
        since: Timestamp = time("since_us"),
    }
}

/// On which side of an agreement this organization is. Stored as the lower-case word.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Side {
    /// It reads.
    Consumer,
    /// It publishes.
    Producer,
}

/// Where an agreement stands by its documents; its period is another matter. Stored as the lower-case word.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum AgreementState {
    /// Not ended by a document.
    Active,
    /// Ended with the whole access of the partner.
    Revoked,
    /// Ended by one side.
    Terminated,
}

row! {
    /// An agreement.
    AgreementRow {
        /// Its name.
        id: AgreementId = agreement_id("id"),
        /// The other side.
        partner: Authority = parsed("partner"),
        /// The side of this organization.
        side: Side = parsed("role"),
        /// The log.
        stream: Origin = parsed("stream"),
        /// The terms.
        plan: Plan = from_json("plan_json"),
        /// From when, inclusive.
        from: Timestamp = time("from_us"),
        /// Until when, exclusive.
        until: Option<Timestamp> = maybe_time("until_us"),
        /// When it was proposed.
        made: Timestamp = time("made_us"),
        /// The invitation it came from.
        invitation: Option<String> = plain("invitation"),
        /// The document under both signatures.
        envelope: String = plain("envelope"),
        /// Where it stands.
        state: AgreementState = parsed("state"),
        /// When its end was recorded here.
        ended: Option<Timestamp> = maybe_time("ended_us"),
        /// The first sequence that is no longer delivered, where the producer said one.
        end_position: Option<u64> = maybe_unsigned("end_position"),
        /// Why it ended.
        why: Option<String> = plain("why"),
        /// The termination, where one ended it.
        end_envelope: Option<String> = plain("end_envelope"),
        /// When it was recorded here.
        recorded: Timestamp = time("time_us"),
    }
}

impl AgreementRow {
    /// Whether it holds at `time`: not ended, and within its period.
    #[must_use]
    pub fn holds_at(&self, time: Timestamp) -> bool {
        self.state == AgreementState::Active
            && self.from <= time
            && self.until.is_none_or(|until| time < until)
    }
}

row! {
    /// A receipt.
    ReceiptRow {
        /// The other side.
        partner: Authority = parsed("partner"),
        /// The agreement.
        agreement: AgreementId = agreement_id("agreement"),
        /// The log.
        stream: Origin = parsed("stream"),
        /// The series.
        series: SeriesId = series_id("series"),
        /// Its number there.
        number: u64 = unsigned("number"),
        /// Who signed.
        consumer: Authority = parsed("consumer"),
        /// The first sequence of the series.
        start: u64 = unsigned("start"),
        /// The size it accepts.
        size: u64 = unsigned("size"),
        /// The root it accepts.
        root: Hash = hash("root"),
        /// The level reached below `size`.
        level: Level = level("level"),
        /// Everything below this has been applied.
        applied: u64 = unsigned("applied"),
        /// Events in the series.
        events: u64 = unsigned("events"),
        /// Data bytes in the series.
        bytes: u64 = unsigned("bytes"),
        /// Rejected events in the series.
        rejected: u64 = unsigned("rejected"),
        /// First sequence that it adds to the one before.
        from: u64 = unsigned("from_seq"),
        /// Events it adds.
        added_events: u64 = unsigned("add_events"),
        /// Data bytes it adds.
        added_bytes: u64 = unsigned("add_bytes"),
        /// When it was signed, by the consumer's clock.
        made: Timestamp = time("made_us"),
        /// The document.
        envelope: String = plain("envelope"),
        /// When it was recorded here.
        recorded: Timestamp = time("time_us"),
        /// The ledger log that holds it.
        log: Origin = parsed("log"),
        /// Its entry there.
        sequence: u64 = unsigned("seq"),
    }
}

row! {
    /// A rejected event.
    RejectionRow {
        /// The other side.
        partner: Authority = parsed("partner"),
        /// The agreement.
        agreement: AgreementId = agreement_id("agreement"),
        /// The log.
        stream: Origin = parsed("stream"),
        /// The rejected entry.
        rejected: u64 = unsigned("sequence"),
        /// Its leaf hash.
        leaf: Hash = hash("leaf"),
        /// Why, for people.
        reason: String = plain("reason"),
        /// When it was signed.
        made: Timestamp = time("made_us"),
        /// The document.
        envelope: String = plain("envelope"),
        /// When it was recorded here.
        recorded: Timestamp = time("time_us"),
    }
}

row! {
    /// A signed refusal, given or got.
    RefusalRow {
        /// The other side; absent in the node's own log.
        partner: Option<Authority> = maybe_parsed("partner"),
        /// What was asked.
        asked: String = plain("asked"),
        /// Who asked.
        principal: Option<Authority> = maybe_parsed("principal"),
        /// The name that was asked for.
        about: String = plain("about"),
        /// The stable code.
        code: String = plain("code"),
        /// Why, for people.
        reason: String = plain("reason"),
        /// The first sequence that is not delivered any more.
        position: Option<u64> = maybe_unsigned("position"),
        /// When it was signed.
        made: Timestamp = time("made_us"),
        /// The document.
        envelope: String = plain("envelope"),
        /// When it was recorded here.
        recorded: Timestamp = time("time_us"),
    }
}

row! {
    /// What could not be accepted from the other side.
    FaultRow {
        /// The other side; absent in the node's own log.
        partner: Option<Authority> = maybe_parsed("partner"),
        /// The stable code.
        code: String = plain("code"),
        /// For people.
        detail: String = plain("detail"),
        /// The log concerned.
        stream: Option<Origin> = maybe_parsed("stream"),
        /// File that keeps the offending bytes.
        evidence: Option<String> = plain("evidence"),
        /// When it was recorded here.
        recorded: Timestamp = time("time_us"),
    }
}

row! {
    /// A question to the policies and its answer.
    DecisionRow {
        /// Who asked.
        principal: String = plain("principal"),
        /// What for.
        action: String = plain("action"),
        /// Which log.
        stream: Origin = parsed("stream"),
        /// The answer.
        allowed: bool = plain("allowed"),
        /// The policies that decided.
        policies: Vec<String> = from_json("policies_json"),
        /// Digest of the policy set.
        policy_digest: Hash = hash("policy_digest"),
        /// Evaluation errors.
        errors: Vec<String> = from_json("errors_json"),
        /// The agreement it was decided under.
        agreement: Option<AgreementId> = maybe_agreement_id("agreement"),
        /// What the policies saw, as JSON text.
        facts: String = plain("facts"),
        /// When it was recorded.
        recorded: Timestamp = time("time_us"),
        /// The ledger log that holds it.
        log: Origin = parsed("log"),
        /// Its entry there.
        sequence: u64 = unsigned("seq"),
    }
}

/// Where an invitation stands; whether it has expired is another matter. Stored as the lower-case word.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum InvitationState {
    /// A person has confirmed the key that holds it.
    Confirmed,
    /// Nobody has used it.
    Open,
    /// A key holds it and waits for a person.
    Pending,
    /// Used.
    Redeemed,
    /// The key that waited was refused.
    Refused,
    /// Taken back.
    Withdrawn,
}

row! {
    /// An invitation.
    InvitationRow {
        /// Hexadecimal id.
        id: String = plain("id"),
        /// The offer's JSON text.
        offer: String = plain("offer"),
        /// Public key of the link's secret.
        secret_key: PublicKey = key("secret_key"),
        /// The organization key it was made for.
        for_key: Option<String> = plain("for_key"),
        /// Whether a person has to confirm.
        confirm: bool = plain("confirm"),
        /// When it ends.
        expires: Timestamp = time("expires_us"),
        /// Where it stands.
        state: InvitationState = parsed("step"),
        /// The organization key that holds it.
        organization: Option<PublicKey> = maybe_key("organization"),
        /// That organization's authority.
        authority: Option<Authority> = maybe_parsed("authority"),
        /// What was said with the last step.
        reason: Option<String> = plain("reason"),
        /// How often somebody was refused.
        refused: u64 = unsigned("refused"),
        /// When it was made.
        made: Timestamp = time("made_us"),
        /// When it last changed.
        stepped: Option<Timestamp> = maybe_time("step_us"),
    }
}

row! {
    /// An application of this node.
    AppRow {
        /// Its name.
        name: String = plain("name"),
        /// Its key.
        key: PublicKey = key("key"),
        /// Whether it may still come in.
        enrolled: bool = plain("enrolled"),
        /// When that was said.
        recorded: Timestamp = time("time_us"),
    }
}

row! {
    /// How far an application has read.
    CursorRow {
        /// The application.
        app: String = plain("app"),
        /// The log.
        stream: Origin = parsed("stream"),
        /// The next sequence it will read.
        next: u64 = unsigned("next"),
        /// Leaf hash of the entry before.
        leaf: Hash = hash("leaf"),
        /// When that was said.
        recorded: Timestamp = time("time_us"),
    }
}

row! {
    /// A policy set that is or was in force.
    PolicySetRow {
        /// Its digest.
        digest: Hash = hash("digest"),
        /// File names and texts.
        files: Vec<(String, String)> = from_json("files_json"),
        /// When it first came into force.
        first: Timestamp = time("first_us"),
        /// When it last came into force.
        last: Timestamp = time("last_us"),
    }
}

row! {
    /// A key statement of this organization.
    OwnStatementRow {
        /// Its number.
        number: u64 = unsigned("number"),
        /// The display name in it.
        name: String = plain("name"),
        /// The organization key.
        organization_key: PublicKey = key("organization_key"),
        /// When it was made.
        made: Timestamp = time("made_us"),
        /// The document.
        envelope: String = plain("envelope"),
    }
}

macro_rules! words {
    ($type:ident { $($variant:ident = $word:literal),* $(,)? }) => {
        impl $type {
            /// The word, as in SQL and in messages.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }

        impl FromStr for $type {
            type Err = ();

            fn from_str(text: &str) -> Result<Self, ()> {
                match text { $($word => Ok(Self::$variant),)* _ => Err(()) }
            }
        }
    };
}

words!(Side { Consumer = "consumer", Producer = "producer" });
words!(AgreementState { Active = "active", Revoked = "revoked", Terminated = "terminated" });
words!(InvitationState {
    Confirmed = "confirmed",
    Open = "open",
    Pending = "pending",
    Redeemed = "redeemed",
    Refused = "refused",
    Withdrawn = "withdrawn",
});

fn plain<'r, T>(row: &'r SqliteRow, column: &'static str) -> Result<T, ViewError>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    Ok(row.try_get(column)?)
}

/// A text that has a type of ours.
pub(super) fn parsed<T: FromStr>(row: &SqliteRow, column: &'static str) -> Result<T, ViewError> {
    maybe_parsed(row, column)?.ok_or(ViewError::Row { column })
}

fn maybe_parsed<T: FromStr>(row: &SqliteRow, column: &'static str) -> Result<Option<T>, ViewError> {
    let text: Option<&str> = row.try_get(column)?;
    text.map(|text| text.parse().map_err(|_| ViewError::Row { column }))
        .transpose()
}

/// A number that was checked to fit when it was written.
pub(super) fn unsigned(row: &SqliteRow, column: &'static str) -> Result<u64, ViewError> {
    maybe_unsigned(row, column)?.ok_or(ViewError::Row { column })
}

fn maybe_unsigned(row: &SqliteRow, column: &'static str) -> Result<Option<u64>, ViewError> {
    let number: Option<i64> = row.try_get(column)?;
    number
        .map(|number| u64::try_from(number).map_err(|_| ViewError::Row { column }))
        .transpose()
}

fn time(row: &SqliteRow, column: &'static str) -> Result<Timestamp, ViewError> {
    unsigned(row, column).map(Timestamp)
}

fn maybe_time(row: &SqliteRow, column: &'static str) -> Result<Option<Timestamp>, ViewError> {
    Ok(maybe_unsigned(row, column)?.map(Timestamp))
}

fn maybe_bytes<const N: usize>(
    row: &SqliteRow,
    column: &'static str,
) -> Result<Option<[u8; N]>, ViewError> {
    let bytes: Option<&[u8]> = row.try_get(column)?;
    bytes
        .map(|bytes| bytes.try_into().map_err(|_| ViewError::Row { column }))
        .transpose()
}

fn hash(row: &SqliteRow, column: &'static str) -> Result<Hash, ViewError> {
    maybe_bytes(row, column)?.ok_or(ViewError::Row { column })
}

fn key(row: &SqliteRow, column: &'static str) -> Result<PublicKey, ViewError> {
    maybe_key(row, column)?.ok_or(ViewError::Row { column })
}

fn maybe_key(row: &SqliteRow, column: &'static str) -> Result<Option<PublicKey>, ViewError> {
    let bytes = maybe_bytes(row, column)?;
    bytes
        .map(|bytes| PublicKey::from_bytes(&bytes).map_err(|_| ViewError::Row { column }))
        .transpose()
}

fn agreement_id(row: &SqliteRow, column: &'static str) -> Result<AgreementId, ViewError> {
    maybe_agreement_id(row, column)?.ok_or(ViewError::Row { column })
}

fn maybe_agreement_id(
    row: &SqliteRow,
    column: &'static str,
) -> Result<Option<AgreementId>, ViewError> {
    Ok(maybe_bytes(row, column)?.map(AgreementId))
}

fn series_id(row: &SqliteRow, column: &'static str) -> Result<SeriesId, ViewError> {
    maybe_bytes(row, column)?
        .map(SeriesId)
        .ok_or(ViewError::Row { column })
}

fn from_json<T: serde::de::DeserializeOwned>(
    row: &SqliteRow,
    column: &'static str,
) -> Result<T, ViewError> {
    let text: &str = row.try_get(column)?;
    serde_json::from_str(text).map_err(|_| ViewError::Row { column })
}

fn level(row: &SqliteRow, column: &'static str) -> Result<Level, ViewError> {
    let text: String = row.try_get(column)?;
    serde_json::from_value(serde_json::Value::String(text)).map_err(|_| ViewError::Row { column })
}
