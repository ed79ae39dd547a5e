//! The ledger and its receipts.

use countersign_event::agreement_state::AgreementDocument;
use countersign_event::documents::{
    Document as _, ErasureAnswer, ErasureRequest, KeyWrap, Receipt, Refusal, SkipClaim, Termination,
};
use countersign_event::dsse::Envelope;
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::Authority;
use countersign_event::time::Timestamp;
use countersign_exchange::token_id;
use countersign_store::ledger::{EntryFilter, EntryRow, ReceiptFilter, ViewError};
use serde_json::{Value, json};

use super::{LocalNode, exchange_error, internal};
use crate::admin::{Command, Out};
use crate::errors::{CommandError, ErrorCode};

impl LocalNode {
    pub(super) async fn on_ledger(
        &self,
        command: Command,
        out: &mut Out,
    ) -> Result<(), CommandError> {
        self.exchange.refresh_view().await.map_err(exchange_error)?;
        let view = self.exchange.view();
        match command {
            Command::LedgerLs {
                partner,
                stream,
                kind,
                since,
                until,
                limit,
            } => {
                let filter = EntryFilter {
                    partner: partner.map(|text| self.authority(&text)).transpose()?,
                    stream: stream.map(|text| self.stream(&text)).transpose()?,
                    kind,
                    since: time(since)?,
                    until: time(until)?,
                    after: None,
                };
                let rows = view
                    .entries(&filter, u32::MAX >> 1)
                    .await
                    .map_err(view_error)?;
                let newest = rows.len().saturating_sub(limit as usize);
                for row in &rows[newest..] {
                    out.item(&self.entry_value(row)?).await?;
                }
                Ok(())
            }
            Command::LedgerRebuild => {
                let opened = view
                    .rebuild(&self.exchange.ledger_source())
                    .await
                    .map_err(view_error)?;
                let digest = view.rows_digest().await.map_err(view_error)?;
                out.value(&json!({ "rebuilt": true, "entries": opened.applied, "rows_digest": hex::encode(digest) })).await
            }
            Command::LedgerVerify => {
                let problems = view
                    .verify(&self.exchange.ledger_source())
                    .await
                    .map_err(view_error)?;
                let digest = view.rows_digest().await.map_err(view_error)?;
                if !problems.is_empty() {
                    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
                    let error = CommandError::new(ErrorCode::VerificationFailed, texts.join("; "));
                    return Err(error.advise(
                        "`countersign ledger rebuild` makes the view again from the logs",
                    ));
                }
                let applied = view.applied().await.map_err(view_error)?;
                let entries: u64 = applied.values().sum();
                out.value(&json!({ "whole": true, "logs": applied.len(), "entries": entries, "rows_digest": hex::encode(digest) })).await
            }
            Command::ReceiptLs {
                partner,
                stream,
                limit,
            } => {
                let filter = ReceiptFilter {
                    partner: partner.map(|text| self.authority(&text)).transpose()?,
                    stream: stream.map(|text| self.stream(&text)).transpose()?,
                    ..ReceiptFilter::default()
                };
                let rows = view.receipts(&filter, limit).await.map_err(view_error)?;
                let mut values = Vec::with_capacity(rows.len());
                // The view gives the newest first, so that the limit cuts the oldest; people read them as they came.
                for row in rows.into_iter().rev() {
                    let envelope =
                        Envelope::from_json(row.envelope.as_bytes()).map_err(internal)?;
                    let receipt = Receipt::peek(&envelope).map_err(internal)?;
                    values.push(self.receipt_value(&receipt));
                }
                out.value(&values).await
            }
            _ => Err(internal("not a command about the ledger")),
        }
    }

    fn receipt_value(&self, receipt: &Receipt) -> Value {
        let partner = if receipt.consumer == *self.own() {
            receipt.stream.authority()
        } else {
            receipt.consumer.clone()
        };
        json!({
            "time": receipt.made.to_rfc3339(),
            "partner": self.partner_name(&partner),
            "stream": self.stream_name(&receipt.stream),
            "number": receipt.number,
            "start": receipt.start,
            "size": receipt.size,
            "events": receipt.events,
            "data_bytes": receipt.bytes,
            "level": receipt.level,
            "applied": receipt.applied,
            "signed_by": receipt.consumer,
            "agreement": receipt.agreement,
            "series": receipt.series,
        })
    }

    fn authority(&self, text: &str) -> Result<Authority, CommandError> {
        match text.parse() {
            Ok(authority) => Ok(authority),
            Err(_) => Ok(self.partner(text)?.statement.authority),
        }
    }

    fn entry_value(&self, row: &EntryRow) -> Result<Value, CommandError> {
        let record = row.record().map_err(view_error)?;
        Ok(json!({
            "time": row.time.to_rfc3339(),
            "kind": row.kind.clone().unwrap_or_else(|| "control".to_owned()),
            "partner": row.partner.as_ref().map(|partner| self.partner_name(partner)),
            "stream": row.stream.as_ref().map(|stream| self.stream_name(stream)),
            "summary": record.as_ref().map(summary),
            "log": row.log,
            "sequence": row.sequence,
            "record": record,
        }))
    }
}

fn summary(record: &LedgerRecord) -> String {
    let peek = |envelope: &str| Envelope::from_json(envelope.as_bytes()).ok();
    match record {
        LedgerRecord::Agreement { .. } => "agreement under both signatures".to_owned(),
        LedgerRecord::AgreementStep { envelope } => {
            let document =
                peek(envelope).and_then(|envelope| AgreementDocument::peek(&envelope).ok());
            document.map_or_else(|| "step".to_owned(), |document| document_summary(&document))
        }
        LedgerRecord::Allotment {
            from,
            events,
            bytes,
            ..
        } => format!("of the quota, {events} events and {bytes} bytes set aside from {from} on"),
        LedgerRecord::App { name, enrolled, .. } => format!(
            "application {name} {}",
            if *enrolled { "enrolled" } else { "removed" }
        ),
        LedgerRecord::Cursor { app, next, .. } => {
            format!("{app} has taken everything below {next}")
        }
        LedgerRecord::Decision {
            principal,
            action,
            allowed,
            policies,
            ..
        } => {
            let word = if *allowed { "may" } else { "may not" };
            let by = if policies.is_empty() {
                "no policy permits it".to_owned()
            } else {
                policies.join(", ")
            };
            format!("{principal} {word} {action} ({by})")
        }
        LedgerRecord::DomainCheck {
            domain,
            result,
            detail,
            ..
        } => format!("domain {domain} {}: {detail}", result.as_str()),
        LedgerRecord::ErasureAnswer { envelope } => {
            let answer = peek(envelope).and_then(|envelope| ErasureAnswer::peek(&envelope).ok());
            answer.map_or_else(
                || "erasure answer".to_owned(),
                |answer| {
                    let (outcome, sequence) = (answer.outcome.as_str(), answer.sequence);
                    format!(
                        "erasure of {sequence} answered: {outcome}; {}",
                        answer.reason
                    )
                },
            )
        }
        LedgerRecord::ErasureRequest { envelope } => {
            let request = peek(envelope).and_then(|envelope| ErasureRequest::peek(&envelope).ok());
            request.map_or_else(
                || "erasure request".to_owned(),
                |request| format!("asked to erase {}: {}", request.sequence, request.reason),
            )
        }
        LedgerRecord::Filter { filter, .. } => format!("reading under the filter {filter}"),
        LedgerRecord::Hold { held, reason, .. } => match held {
            true => format!("legal hold: {reason}"),
            false => "legal hold released".to_owned(),
        },
        LedgerRecord::AuthorRule { keys, required, .. } => {
            let word = if *required { "required" } else { "known" };
            format!("{} author keys, {word}", keys.len())
        }
        LedgerRecord::Retention { .. } => "retention set".to_owned(),
        LedgerRecord::Contradiction {
            detail, settled, ..
        } => match settled {
            true => format!("a person decided to go on: {detail}"),
            false => format!("receipts contradict each other: {detail}"),
        },
        LedgerRecord::Fault { detail, .. } => detail.clone(),
        LedgerRecord::Invitation { id, .. } => format!("invitation {}", &id[..8.min(id.len())]),
        LedgerRecord::InvitationStep {
            id,
            step,
            authority,
            reason,
            ..
        } => {
            format!(
                "invitation {}: {step} by {authority} {reason}",
                &id[..8.min(id.len())]
            )
        }
        LedgerRecord::KeyRevocation { .. } => "key revocation".to_owned(),
        LedgerRecord::KeyStatement { .. } => "key statement".to_owned(),
        LedgerRecord::Timestamp { checkpoint, .. } => {
            let size = checkpoint.lines().nth(1).unwrap_or_default();
            format!("time-stamp token over the checkpoint of {size} entries")
        }
        LedgerRecord::KeyWrap { envelope } => {
            let wrap = peek(envelope).and_then(|envelope| KeyWrap::peek(&envelope).ok());
            wrap.map_or_else(
                || "key of an epoch".to_owned(),
                |wrap| format!("key of epoch {}, for {}", wrap.epoch, wrap.to),
            )
        }
        LedgerRecord::LogAccess { open, .. } => {
            if *open {
                "anybody may read the published log"
            } else {
                "the published log is closed"
            }
        }
        .to_owned(),
        LedgerRecord::Plans { plans, .. } => {
            let names: Vec<&str> = plans.iter().map(|plan| plan.name.as_str()).collect();
            match names.is_empty() {
                true => "offered under no plan of its own".to_owned(),
                false => format!("offered under the plans {}", names.join(", ")),
            }
        }
        LedgerRecord::Region { region, .. } => match region {
            Some(region) => format!("recorded as established in {region}"),
            None => "no region recorded any more".to_owned(),
        },
        LedgerRecord::PolicySet { files, .. } => format!("{} policy files in force", files.len()),
        LedgerRecord::Receipt {
            envelope,
            events,
            bytes,
            ..
        } => {
            let receipt = peek(envelope).and_then(|envelope| Receipt::peek(&envelope).ok());
            receipt.map_or_else(
                || "receipt".to_owned(),
                |receipt| {
                    format!(
                        "receipt {} up to {}: {events} events, {bytes} bytes more",
                        receipt.number, receipt.size
                    )
                },
            )
        }
        LedgerRecord::Refusal { envelope } => {
            let refusal = peek(envelope).and_then(|envelope| Refusal::peek(&envelope).ok());
            refusal.map_or_else(
                || "refusal".to_owned(),
                |refusal| format!("{}: {}", refusal.asked, refusal.reason),
            )
        }
        LedgerRecord::Rejection { .. } => "event rejected by the consumer".to_owned(),
        LedgerRecord::Revocation { reason, .. } => format!("access revoked: {reason}"),
        LedgerRecord::SkipClaim { envelope } => {
            let claim = peek(envelope).and_then(|envelope| SkipClaim::peek(&envelope).ok());
            claim.map_or_else(
                || "claim on what a filter left out".to_owned(),
                |claim| {
                    format!(
                        "{} entries between {} and {} left out by the filter",
                        claim.skipped, claim.from, claim.size
                    )
                },
            )
        }
        LedgerRecord::Termination { envelope } => {
            let end = peek(envelope).and_then(|envelope| Termination::peek(&envelope).ok());
            end.map_or_else(
                || "termination".to_owned(),
                |end| format!("agreement ended by {}: {}", end.by, end.reason),
            )
        }
        LedgerRecord::Token {
            digest,
            expires,
            withdrawn,
            ..
        } => {
            let id = token_id(&digest.0);
            match withdrawn {
                true => format!("token {id} withdrawn"),
                false => format!("token {id} made, good until {expires}"),
            }
        }
    }
}

fn document_summary(document: &AgreementDocument) -> String {
    match document {
        AgreementDocument::Agreement(_) => "proposal accepted".to_owned(),
        AgreementDocument::Proposal(proposal) => format!(
            "plan {} proposed by {}, round {}",
            proposal.plan.name, proposal.by, proposal.round
        ),
        AgreementDocument::Step(step) => {
            let kind = format!("{:?}", step.step).to_lowercase();
            format!("agreement: {kind} by {}: {}", step.by, step.reason)
        }
        AgreementDocument::Termination(end) => format!("agreement ended by {}", end.by),
    }
}

fn time(text: Option<String>) -> Result<Option<Timestamp>, CommandError> {
    let parse = |text: String| {
        Timestamp::parse_rfc3339(&text).map_err(|error| CommandError::new(ErrorCode::Usage, error))
    };
    text.map(parse).transpose()
}

fn view_error(error: ViewError) -> CommandError {
    exchange_error(error.into())
}
