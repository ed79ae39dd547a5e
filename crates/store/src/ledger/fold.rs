//! From records to rows. What a record does depends only on itself and on earlier records of the *same* log, so that the rows
//! are the same in whatever order several logs are read.

use countersign_event::agreement_state::AgreementDocument;
use countersign_event::documents::{
    Agreement, Document, ErasureAnswer, ErasureRequest, KeyRevocation, KeyStatement, KeyWrap,
    Receipt, Refusal, Rejection, SkipClaim, Termination,
};
use countersign_event::dsse::Envelope;
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::{Authority, LogSubject, Origin};
use countersign_event::time::Timestamp;
use sqlx::SqliteConnection;

use super::LedgerEntry;
use super::append::{self, Appended};
use super::error::ViewError;

/// Why a record changed no table but `entries`. The words are stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Skip {
    /// Something that may be there once only was there.
    Duplicate,
    /// The envelope or its payload does not parse.
    Envelope,
    /// It does not belong into this log, or what it refers to is not there.
    Misplaced,
    /// A number above 2^63 - 1.
    Number,
    /// A word of a newer version.
    Unknown,
}

impl Skip {
    /// The word in the column `skipped`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::Envelope => "envelope",
            Self::Misplaced => "misplaced",
            Self::Number => "number",
            Self::Unknown => "unknown",
        }
    }
}

/// Applies entries of one log, in their order, on a connection that is in a transaction.
pub(super) async fn apply(
    connection: &mut SqliteConnection,
    own: &Authority,
    log: &Origin,
    entries: Vec<LedgerEntry>,
) -> Result<(), ViewError> {
    let partner = match log.subject() {
        LogSubject::Ledger(partner) => Some(partner),
        LogSubject::NodeLedger | LogSubject::Stream(_) => None,
    };
    let mut fold = Fold {
        connection,
        own,
        log,
        partner: partner.as_ref(),
        appended: Appended::default(),
    };
    for entry in entries {
        fold.entry(entry).await?;
    }
    let Fold {
        connection,
        appended,
        ..
    } = fold;
    append::write(
        connection,
        log.as_str(),
        partner.as_ref().map(Authority::as_str),
        appended,
    )
    .await
}

struct Fold<'a> {
    connection: &'a mut SqliteConnection,
    own: &'a Authority,
    log: &'a Origin,
    /// The counterparty of the log; absent for the node's own.
    partner: Option<&'a Authority>,
    appended: Appended,
}

/// Where a record stands.
#[derive(Clone, Copy)]
struct At {
    seq: i64,
    time_us: i64,
}

enum Failure {
    Skip(Skip),
    View(ViewError),
}

impl From<Skip> for Failure {
    fn from(skip: Skip) -> Self {
        Self::Skip(skip)
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::View(error.into())
    }
}

impl Fold<'_> {
    async fn entry(&mut self, entry: LedgerEntry) -> Result<(), ViewError> {
        let range = || ViewError::Range {
            log: self.log.clone(),
            sequence: entry.sequence,
        };
        let at = At {
            seq: i64::try_from(entry.sequence).map_err(|_| range())?,
            time_us: i64::try_from(entry.time.0).map_err(|_| range())?,
        };
        let mut row = append::Entry {
            seq: at.seq,
            time_us: at.time_us,
            kind: None,
            stream: None,
            json: None,
            skipped: None,
        };
        if let Some(record) = entry.record {
            row.kind = Some(record.kind());
            // serde_json writes UTF-8 only.
            row.json = String::from_utf8(record.to_json()).ok();
            match self.record(at, record, &mut row.stream).await {
                Ok(()) => {}
                Err(Failure::Skip(skip)) => row.skipped = Some(skip.as_str()),
                Err(Failure::View(error)) => return Err(error),
            }
        }
        self.appended.entries.push(row);
        Ok(())
    }

    /// Does what the record says. `stream` is filled where one is concerned, even if the record is then skipped.
    async fn record(
        &mut self,
        at: At,
        record: LedgerRecord,
        stream: &mut Option<Origin>,
    ) -> Result<(), Failure> {
        match record {
            LedgerRecord::Agreement {
                envelope,
                addresses,
                invitation,
            } => {
                let document: Agreement = peek(&envelope)?;
                *stream = Some(document.stream.clone());
                self.agreement(at, document, envelope, &addresses, invitation)
                    .await
            }
            LedgerRecord::Termination { envelope } => {
                let document: Termination = peek(&envelope)?;
                *stream = Some(document.stream.clone());
                self.termination(at, document, envelope).await
            }
            LedgerRecord::Revocation { partner, reason } => {
                self.revocation(at, &partner, &reason).await
            }
            LedgerRecord::KeyStatement { envelope } => {
                let document: KeyStatement = peek(&envelope)?;
                if document.authority == *self.own {
                    self.own_statement(at, document, envelope).await
                } else {
                    self.partner_statement(at, document, envelope).await
                }
            }
            LedgerRecord::KeyRevocation { envelope } => {
                let document: KeyRevocation = peek(&envelope)?;
                if document.authority == *self.own {
                    Ok(self.node_log()?)
                } else if self.counterparty()? == &document.authority {
                    Ok(())
                } else {
                    Err(Skip::Misplaced.into())
                }
            }
            LedgerRecord::Receipt {
                envelope,
                from,
                events,
                bytes,
            } => {
                let document: Receipt = peek(&envelope)?;
                *stream = Some(document.stream.clone());
                self.counterparty()?;
                self.appended.receipts.push(append::Receipt {
                    number: int(document.number)?,
                    start: int(document.start)?,
                    size: int(document.size)?,
                    applied: int(document.applied)?,
                    events: int(document.events)?,
                    bytes: int(document.bytes)?,
                    rejected: int(document.rejected.count)?,
                    made_us: micros(document.made)?,
                    from_seq: int(from)?,
                    add_events: int(events)?,
                    add_bytes: int(bytes)?,
                    time_us: at.time_us,
                    seq: at.seq,
                    document,
                    envelope,
                });
                Ok(())
            }
            LedgerRecord::Rejection { envelope } => {
                let document: Rejection = peek(&envelope)?;
                *stream = Some(document.stream.clone());
                self.rejection(at, document, envelope).await
            }
            LedgerRecord::SkipClaim { envelope } => {
                let document: SkipClaim = peek(&envelope)?;
                *stream = Some(document.stream);
                self.counterparty()?;
                Ok(())
            }
            LedgerRecord::Refusal { envelope } => {
                let document: Refusal = peek(&envelope)?;
                *stream = document.about.parse().ok();
                self.refusal(at, document, envelope).await
            }
            LedgerRecord::Fault {
                code,
                detail,
                stream: concerned,
                evidence,
            } => {
                stream.clone_from(&concerned);
                self.fault(at, code, detail, concerned, evidence).await
            }
            LedgerRecord::Decision {
                principal,
                action,
                stream: asked,
                allowed,
                policies,
                policy_digest,
                errors,
                agreement,
                facts,
            } => {
                *stream = Some(asked.clone());
                self.appended.decisions.push(append::Decision {
                    seq: at.seq,
                    time_us: at.time_us,
                    principal,
                    action,
                    stream: asked,
                    allowed,
                    policies_json: json(&policies),
                    policy_digest: policy_digest.0,
                    errors_json: json(&errors),
                    agreement,
                    facts,
                });
                Ok(())
            }
            LedgerRecord::Cursor {
                app,
                stream: read,
                next,
                leaf,
            } => {
                *stream = Some(read.clone());
                self.node_log()?;
                let next = int(next)?;
                sqlx::query(
                    "INSERT INTO cursors (app, stream, next, leaf, time_us, log, seq) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                     ON CONFLICT (app, stream) DO UPDATE SET next = ?3, leaf = ?4, time_us = ?5, log = ?6, seq = ?7",
                )
                .bind(app)
                .bind(read.as_str())
                .bind(next)
                .bind(leaf.0.to_vec())
                .bind(at.time_us)
                .bind(self.log.as_str())
                .bind(at.seq)
                .execute(&mut *self.connection)
                .await?;
                Ok(())
            }
            LedgerRecord::App {
                name,
                key,
                enrolled,
            } => {
                self.node_log()?;
                sqlx::query(
                    "INSERT INTO apps (name, key, enrolled, time_us, log, seq) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                     ON CONFLICT (name) DO UPDATE SET key = ?2, enrolled = ?3, time_us = ?4, log = ?5, seq = ?6",
                )
                .bind(name)
                .bind(key.as_bytes().to_vec())
                .bind(enrolled)
                .bind(at.time_us)
                .bind(self.log.as_str())
                .bind(at.seq)
                .execute(&mut *self.connection)
                .await?;
                Ok(())
            }
            // What these say is read from their entries; they need no table.
            LedgerRecord::Allotment {
                stream: about,
                events,
                bytes,
                from,
                ..
            } => {
                *stream = Some(about);
                self.counterparty()?;
                for number in [events, bytes, from] {
                    int(number)?;
                }
                Ok(())
            }
            LedgerRecord::AgreementStep { envelope } => {
                let envelope = Envelope::from_json(envelope.as_bytes());
                let envelope = envelope.map_err(|_| Skip::Envelope)?;
                let document = AgreementDocument::peek(&envelope).map_err(|_| Skip::Envelope)?;
                *stream = Some(document.stream().clone());
                self.counterparty()?;
                Ok(())
            }
            LedgerRecord::ErasureRequest { envelope } => {
                let document: ErasureRequest = peek(&envelope)?;
                *stream = Some(document.stream);
                self.counterparty()?;
                int(document.tombstone)?;
                Ok(())
            }
            LedgerRecord::ErasureAnswer { envelope } => {
                let document: ErasureAnswer = peek(&envelope)?;
                *stream = Some(document.stream);
                self.counterparty()?;
                int(document.sequence)?;
                Ok(())
            }
            LedgerRecord::KeyWrap { envelope } => {
                let document: KeyWrap = peek(&envelope)?;
                *stream = Some(document.stream);
                self.counterparty()?;
                int(document.epoch)?;
                Ok(())
            }
            LedgerRecord::Filter { stream: about, .. } => {
                *stream = Some(about);
                self.counterparty()?;
                Ok(())
            }
            LedgerRecord::AuthorRule { stream: about, .. }
            | LedgerRecord::Hold { stream: about, .. }
            | LedgerRecord::Retention { stream: about, .. } => {
                *stream = Some(about);
                self.node_log()?;
                Ok(())
            }
            LedgerRecord::LogAccess { stream: about, .. }
            | LedgerRecord::Plans { stream: about, .. }
            | LedgerRecord::Timestamp { stream: about, .. } => {
                *stream = Some(about);
                self.node_log()?;
                Ok(())
            }
            LedgerRecord::DomainCheck { domain, at, .. } => {
                micros(at)?;
                if *self.counterparty()? != domain {
                    return Err(Skip::Misplaced.into());
                }
                Ok(())
            }
            LedgerRecord::Token {
                partner, expires, ..
            } => {
                micros(expires)?;
                if *self.counterparty()? != partner {
                    return Err(Skip::Misplaced.into());
                }
                Ok(())
            }
            LedgerRecord::Region { partner, .. } => {
                if *self.counterparty()? != partner {
                    return Err(Skip::Misplaced.into());
                }
                Ok(())
            }
            LedgerRecord::Contradiction {
                partner,
                stream: about,
                ..
            } => {
                *stream = about;
                if *self.counterparty()? != partner {
                    return Err(Skip::Misplaced.into());
                }
                Ok(())
            }
            LedgerRecord::PolicySet { digest, files } => {
                self.node_log()?;
                sqlx::query(
                    "INSERT INTO policy_sets (digest, files_json, first_us, last_us, log, seq) VALUES (?1, ?2, ?3, ?3, ?4, ?5)
                     ON CONFLICT (digest) DO UPDATE SET last_us = ?3, log = ?4, seq = ?5",
                )
                .bind(digest.0.to_vec())
                .bind(json(&files))
                .bind(at.time_us)
                .bind(self.log.as_str())
                .bind(at.seq)
                .execute(&mut *self.connection)
                .await?;
                Ok(())
            }
            LedgerRecord::Invitation {
                id,
                offer,
                secret_key,
                for_key,
                confirm,
                expires,
            } => {
                self.node_log()?;
                let done = sqlx::query(
                    "INSERT INTO invitations (id, offer, secret_key, for_key, confirm, expires_us, step, refused, made_us, log, seq)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'open', 0, ?7, ?8, ?9) ON CONFLICT (id) DO NOTHING",
                )
                .bind(id)
                .bind(offer)
                .bind(secret_key.as_bytes().to_vec())
                .bind(for_key)
                .bind(confirm)
                .bind(micros(expires)?)
                .bind(at.time_us)
                .bind(self.log.as_str())
                .bind(at.seq)
                .execute(&mut *self.connection)
                .await?;
                changed(done, Skip::Duplicate)
            }
            LedgerRecord::InvitationStep {
                id,
                step,
                organization,
                authority,
                reason,
            } => {
                self.node_log()?;
                let key = organization.as_bytes().to_vec();
                self.invitation_step(at, &id, &step, key, &authority, &reason)
                    .await
            }
        }
    }

    async fn agreement(
        &mut self,
        at: At,
        document: Agreement,
        envelope: String,
        addresses: &[String],
        invitation: Option<String>,
    ) -> Result<(), Failure> {
        let partner = self.counterparty()?.clone();
        let (role, party) = if document.producer.authority == *self.own {
            ("producer", &document.consumer)
        } else if document.consumer.authority == *self.own {
            ("consumer", &document.producer)
        } else {
            return Err(Skip::Misplaced.into());
        };
        if party.authority != partner {
            return Err(Skip::Misplaced.into());
        }
        let until_us = document.until.map(micros).transpose()?;
        let (from_us, made_us) = (micros(document.from)?, micros(document.made)?);
        int(document.plan.exposure_events)?;
        let done = sqlx::query(
            "INSERT INTO agreements (partner, id, role, stream, plan_json, from_us, until_us, made_us, invitation, envelope, state,
                time_us, log, seq)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 'active', ?11, ?12, ?13) ON CONFLICT (partner, id) DO NOTHING",
        )
        .bind(partner.as_str())
        .bind(document.id.0.to_vec())
        .bind(role)
        .bind(document.stream.as_str())
        .bind(json(&document.plan))
        .bind(from_us)
        .bind(until_us)
        .bind(made_us)
        .bind(invitation)
        .bind(envelope)
        .bind(at.time_us)
        .bind(self.log.as_str())
        .bind(at.seq)
        .execute(&mut *self.connection)
        .await?;
        let new = done.rows_affected() > 0;
        // A new agreement after a revocation readmits the partner; the same one told again does not. An agreement names the
        // organization key too, which holds until a key statement says more; a key once known is never replaced.
        sqlx::query(
            "INSERT INTO partners (authority, name, organization_key, addresses_json, since_us, log, seq)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (authority) DO UPDATE SET
                name = coalesce(name, ?2), organization_key = coalesce(organization_key, ?3),
                addresses_json = CASE ?4 WHEN '[]' THEN addresses_json ELSE ?4 END,
                revoked_us = CASE ?8 WHEN 1 THEN NULL ELSE revoked_us END,
                revoked_why = CASE ?8 WHEN 1 THEN NULL ELSE revoked_why END",
        )
        .bind(partner.as_str())
        .bind(&party.name)
        .bind(party.organization.as_bytes().to_vec())
        .bind(json(&addresses))
        .bind(at.time_us)
        .bind(self.log.as_str())
        .bind(at.seq)
        .bind(new)
        .execute(&mut *self.connection)
        .await?;
        if new {
            Ok(())
        } else {
            Err(Skip::Duplicate.into())
        }
    }

    async fn termination(
        &mut self,
        at: At,
        document: Termination,
        envelope: String,
    ) -> Result<(), Failure> {
        let partner = self.counterparty()?;
        if document.by != *partner && document.by != *self.own {
            return Err(Skip::Misplaced.into());
        }
        let done = sqlx::query(
            "UPDATE agreements SET state = 'terminated', ended_us = ?1, end_position = ?2, why = ?3, end_envelope = ?4
             WHERE partner = ?5 AND id = ?6 AND stream = ?7 AND state = 'active'",
        )
        .bind(at.time_us)
        .bind(document.position.map(int).transpose()?)
        .bind(document.reason)
        .bind(envelope)
        .bind(partner.as_str())
        .bind(document.agreement.0.to_vec())
        .bind(document.stream.as_str())
        .execute(&mut *self.connection)
        .await?;
        changed(done, Skip::Misplaced)
    }

    async fn revocation(
        &mut self,
        at: At,
        partner: &Authority,
        reason: &str,
    ) -> Result<(), Failure> {
        if self.counterparty()? != partner {
            return Err(Skip::Misplaced.into());
        }
        sqlx::query(
            "UPDATE agreements SET state = 'revoked', ended_us = ?1, why = ?2 WHERE partner = ?3 AND state = 'active'",
        )
        .bind(at.time_us)
        .bind(reason)
        .bind(partner.as_str())
        .execute(&mut *self.connection)
        .await?;
        sqlx::query(
            "INSERT INTO partners (authority, addresses_json, revoked_us, revoked_why, since_us, log, seq)
             VALUES (?1, '[]', ?2, ?3, ?2, ?4, ?5)
             ON CONFLICT (authority) DO UPDATE SET revoked_us = ?2, revoked_why = ?3",
        )
        .bind(partner.as_str())
        .bind(at.time_us)
        .bind(reason)
        .bind(self.log.as_str())
        .bind(at.seq)
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    async fn own_statement(
        &mut self,
        at: At,
        document: KeyStatement,
        envelope: String,
    ) -> Result<(), Failure> {
        self.node_log()?;
        let done = sqlx::query(
            "INSERT INTO own_statements (number, name, organization_key, made_us, envelope, log, seq)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (number) DO NOTHING",
        )
        .bind(int(document.number)?)
        .bind(document.name)
        .bind(document.organization.as_bytes().to_vec())
        .bind(micros(document.made)?)
        .bind(envelope)
        .bind(self.log.as_str())
        .bind(at.seq)
        .execute(&mut *self.connection)
        .await?;
        changed(done, Skip::Duplicate)
    }

    async fn partner_statement(
        &mut self,
        at: At,
        document: KeyStatement,
        envelope: String,
    ) -> Result<(), Failure> {
        if self.counterparty()? != &document.authority {
            return Err(Skip::Misplaced.into());
        }
        // Higher numbers supersede lower ones, under the organization key first met or one that it gave its place to: another key for a known authority is
        // refused before it gets here, and would not replace the first one even if it did.
        let known: Option<Option<Vec<u8>>> =
            sqlx::query_scalar("SELECT organization_key FROM partners WHERE authority = ?1")
                .bind(document.authority.as_str())
                .fetch_optional(&mut *self.connection)
                .await?;
        let line = document.organization_keys();
        let descends = |known: &Vec<u8>| line.iter().any(|key| key.as_bytes()[..] == known[..]);
        if known.flatten().is_some_and(|known| !descends(&known)) {
            return Err(Skip::Duplicate.into());
        }
        let done = sqlx::query(
            "INSERT INTO partners (authority, name, organization_key, statement_number, statement_envelope, addresses_json,
                since_us, log, seq)
             VALUES (?1, ?2, ?3, ?4, ?5, '[]', ?6, ?7, ?8)
             ON CONFLICT (authority) DO UPDATE SET
                name = ?2, organization_key = ?3, statement_number = ?4, statement_envelope = ?5
             WHERE coalesce(statement_number, -1) < ?4",
        )
        .bind(document.authority.as_str())
        .bind(document.name)
        .bind(document.organization.as_bytes().to_vec())
        .bind(int(document.number)?)
        .bind(envelope)
        .bind(at.time_us)
        .bind(self.log.as_str())
        .bind(at.seq)
        .execute(&mut *self.connection)
        .await?;
        changed(done, Skip::Duplicate)
    }

    async fn rejection(
        &mut self,
        at: At,
        document: Rejection,
        envelope: String,
    ) -> Result<(), Failure> {
        let partner = self.counterparty()?;
        sqlx::query(
            "INSERT INTO rejections (partner, agreement, stream, sequence, leaf, reason, made_us, envelope, time_us, log, seq)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )
        .bind(partner.as_str())
        .bind(document.agreement.0.to_vec())
        .bind(document.stream.as_str())
        .bind(int(document.sequence)?)
        .bind(document.leaf.0.to_vec())
        .bind(document.reason)
        .bind(micros(document.made)?)
        .bind(envelope)
        .bind(at.time_us)
        .bind(self.log.as_str())
        .bind(at.seq)
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    async fn refusal(
        &mut self,
        at: At,
        document: Refusal,
        envelope: String,
    ) -> Result<(), Failure> {
        sqlx::query(
            "INSERT INTO refusals (partner, asked, principal, about, code, reason, position, made_us, envelope, time_us, log, seq)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )
        .bind(self.partner.map(Authority::as_str))
        .bind(document.asked)
        .bind(document.principal.as_ref().map(Authority::as_str))
        .bind(document.about)
        .bind(word(&document.code))
        .bind(document.reason)
        .bind(document.position.map(int).transpose()?)
        .bind(micros(document.made)?)
        .bind(envelope)
        .bind(at.time_us)
        .bind(self.log.as_str())
        .bind(at.seq)
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    async fn fault(
        &mut self,
        at: At,
        code: String,
        detail: String,
        stream: Option<Origin>,
        evidence: Option<String>,
    ) -> Result<(), Failure> {
        sqlx::query(
            "INSERT INTO faults (partner, code, detail, stream, evidence, time_us, log, seq)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )
        .bind(self.partner.map(Authority::as_str))
        .bind(code)
        .bind(detail)
        .bind(stream.as_ref().map(Origin::as_str))
        .bind(evidence)
        .bind(at.time_us)
        .bind(self.log.as_str())
        .bind(at.seq)
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// The life of an invitation:
    ///
    /// ```text
    /// open ──pending──▶ pending ──confirmed──▶ confirmed ──redeemed──▶ redeemed
    ///   │                  └────── refused (same key) ──▶ refused
    ///   ├──redeemed─────────────────────────────────────▶ redeemed
    ///   └──withdrawn (from all but redeemed) ───────────▶ withdrawn
    /// ```
    ///
    /// The first key holds it: a step of another key is counted as refused and changes nothing else.
    async fn invitation_step(
        &mut self,
        at: At,
        id: &str,
        step: &str,
        organization: Vec<u8>,
        authority: &Authority,
        reason: &str,
    ) -> Result<(), Failure> {
        let sql = match step {
            "pending" => STEP_PENDING,
            "confirmed" => STEP_CONFIRMED,
            "redeemed" => STEP_REDEEMED,
            "withdrawn" => STEP_WITHDRAWN,
            "refused" => STEP_REFUSED,
            _ => return Err(Skip::Unknown.into()),
        };
        let done = sqlx::query(sql)
            .bind(id)
            .bind(organization)
            .bind(authority.as_str())
            .bind(reason)
            .bind(at.time_us)
            .execute(&mut *self.connection)
            .await?;
        if done.rows_affected() == 0 && step == "refused" {
            let done = sqlx::query("UPDATE invitations SET refused = refused + 1 WHERE id = ?1")
                .bind(id)
                .execute(&mut *self.connection)
                .await?;
            return changed(done, Skip::Misplaced);
        }
        changed(done, Skip::Misplaced)
    }

    fn counterparty(&self) -> Result<&Authority, Skip> {
        self.partner.ok_or(Skip::Misplaced)
    }

    fn node_log(&self) -> Result<(), Skip> {
        if self.partner.is_none() {
            Ok(())
        } else {
            Err(Skip::Misplaced)
        }
    }
}

const STEP_PENDING: &str = "UPDATE invitations
    SET step = 'pending', organization = ?2, authority = ?3, reason = ?4, step_us = ?5
    WHERE id = ?1 AND step = 'open'";
const STEP_CONFIRMED: &str = "UPDATE invitations
    SET step = 'confirmed', authority = ?3, reason = ?4, step_us = ?5
    WHERE id = ?1 AND step = 'pending' AND organization = ?2";
const STEP_REDEEMED: &str = "UPDATE invitations
    SET step = 'redeemed', organization = ?2, authority = ?3, reason = ?4, step_us = ?5
    WHERE id = ?1 AND (step = 'open' OR step IN ('pending', 'confirmed') AND organization = ?2)";
const STEP_WITHDRAWN: &str = "UPDATE invitations
    SET step = 'withdrawn', reason = ?4, step_us = ?5
    WHERE id = ?1 AND step NOT IN ('redeemed', 'withdrawn') AND ?2 IS NOT NULL AND ?3 IS NOT NULL";
const STEP_REFUSED: &str = "UPDATE invitations
    SET step = 'refused', authority = ?3, reason = ?4, step_us = ?5, refused = refused + 1
    WHERE id = ?1 AND step = 'pending' AND organization = ?2";

/// Reads the document of an envelope that was verified before it entered the ledger.
fn peek<D: Document>(envelope: &str) -> Result<D, Skip> {
    let envelope = Envelope::from_json(envelope.as_bytes()).map_err(|_| Skip::Envelope)?;
    D::peek(&envelope).map_err(|_| Skip::Envelope)
}

fn int(number: u64) -> Result<i64, Skip> {
    i64::try_from(number).map_err(|_| Skip::Number)
}

fn micros(time: Timestamp) -> Result<i64, Skip> {
    int(time.0)
}

fn json<T: serde::Serialize>(value: &T) -> String {
    // Vectors of text and plain structures always have a JSON form.
    serde_json::to_string(value).unwrap_or_default()
}

/// The word that serde writes for a unit variant.
pub(super) fn word<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

fn changed(done: sqlx::sqlite::SqliteQueryResult, otherwise: Skip) -> Result<(), Failure> {
    if done.rows_affected() > 0 {
        Ok(())
    } else {
        Err(otherwise.into())
    }
}
