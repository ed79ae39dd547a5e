//! Agreements: asking for them, answering, stopping, replacing, ending.

use std::time::Duration;

use countersign_event::agreement_state::{May, Name};
use countersign_event::documents::{AgreementId, Plan, SuspensionCause};
use countersign_event::names::{Authority, Origin};
use countersign_event::time::Timestamp;
use countersign_exchange::{AgreementEntry, ListedStream, RequestOptions};
use countersign_transport::list_streams;
use serde_json::{Value, json};

use super::{LocalNode, internal, onboarding_error, session_error};
use crate::admin::{Command, Out};
use crate::errors::{CommandError, ErrorCode};

impl LocalNode {
    pub(super) async fn on_agreement(
        &self,
        command: Command,
        out: &mut Out,
    ) -> Result<(), CommandError> {
        match command {
            Command::AgreementLs => out.value(&self.agreements(|_| true)).await,
            Command::AgreementInfo { agreement } => {
                let id = self.agreement_id(&agreement)?;
                out.value(&self.agreement_info(id, &agreement)?).await
            }
            Command::AgreementTerminate { agreement, reason } => {
                let id = self.agreement_id(&agreement)?;
                self.exchange
                    .terminate(id, &reason)
                    .await
                    .map_err(onboarding_error)?;
                out.value(&json!({ "agreement": id.to_string(), "state": "terminated", "reason": reason })).await
            }
            Command::AgreementStep {
                agreement,
                step,
                cause,
                reason,
            } => {
                let id = self.agreement_id(&agreement)?;
                let cause = cause.map(|cause| {
                    let words = SuspensionCause::ALL.map(SuspensionCause::word).join(", ");
                    let message = format!("`{cause}` is no cause of a suspension: {words}");
                    let unknown = |()| CommandError::new(ErrorCode::Usage, message);
                    cause.parse::<SuspensionCause>().map_err(unknown)
                });
                let step = self
                    .exchange
                    .step(id, step, cause.transpose()?, &reason)
                    .await;
                step.map_err(onboarding_error)?;
                out.value(&self.agreement_info(id, &agreement)?).await
            }
            Command::AgreementApprove { agreement, wait_s } => {
                let id = self.agreement_id(&agreement)?;
                let accepted = self.exchange.accept_proposal(id).await;
                accepted.map_err(onboarding_error)?;
                // Until the other side has added its signature.
                self.await_answer(id, wait_s, &[Name::Accepted]).await;
                out.value(&self.agreement_info(id, &agreement)?).await
            }
            Command::AgreementCounter {
                agreement,
                plan,
                period_s,
                valid_s,
            } => {
                let id = self.agreement_id(&agreement)?;
                let entry = self.entry(id, &agreement)?;
                let plan = match plan {
                    None => None,
                    Some(name) => Some(self.named_plan(&entry.stream, Some(&name)).await?),
                };
                let valid_for = Duration::from_secs(valid_s);
                let until = self.after(period_s);
                let countered = self.exchange.counter_proposal(id, plan, until, valid_for);
                countered.await.map_err(onboarding_error)?;
                out.value(&self.agreement_info(id, &agreement)?).await
            }
            Command::AgreementAmend {
                agreement,
                plan,
                period_s,
                valid_s,
                wait_s,
            } => {
                let id = self.agreement_id(&agreement)?;
                let entry = self.entry(id, &agreement)?;
                if !entry.state.may(self.own(), May::Amend) {
                    let state = state_word(&entry);
                    let message = format!("agreement {id} is {state}: there is nothing to amend");
                    return Err(CommandError::new(ErrorCode::AgreementState, message));
                }
                let plan = match plan {
                    None => entry.plan.clone(),
                    Some(name) => self.named_plan(&entry.stream, Some(&name)).await?,
                };
                let options = RequestOptions {
                    partner: entry.counterparty(self.own()).clone(),
                    stream: entry.stream,
                    plan,
                    from: None,
                    until: self.after(period_s),
                    purpose: None,
                    valid_for: Duration::from_secs(valid_s),
                };
                out.value(&self.propose(options, wait_s).await?).await
            }
            Command::AgreementRequest {
                stream,
                plan,
                period_s,
                purpose,
                valid_s,
                wait_s,
            } => {
                let origin = self.partners_stream(&stream)?;
                let options = RequestOptions {
                    partner: origin.authority(),
                    plan: self.named_plan(&origin, plan.as_deref()).await?,
                    stream: origin,
                    from: None,
                    until: self.after(period_s),
                    purpose,
                    valid_for: Duration::from_secs(valid_s),
                };
                out.value(&self.propose(options, wait_s).await?).await
            }
            Command::StreamsOf { partner } => {
                let partner = self.partner(&partner)?.statement.authority;
                let streams = self.listed(&partner).await?;
                let name = self.partner_name(&partner);
                let value = |stream: ListedStream| {
                    let title = stream.origin.stream().map(|stream| stream.to_string());
                    let plans: Vec<&str> =
                        stream.plans.iter().map(|plan| plan.name.as_str()).collect();
                    json!({
                        "stream": format!("{name}/{}", title.unwrap_or_default()),
                        "title": stream.title,
                        "labels": stream.labels,
                        "encrypted": stream.encrypted,
                        "plans": plans.join(", "),
                        "terms": stream.plans,
                        "origin": stream.origin,
                    })
                };
                let streams: Vec<Value> = streams.into_iter().map(value).collect();
                out.value(&streams).await
            }
            _ => Err(internal("not a command about agreements")),
        }
    }

    /// Proposes, and waits a while for the answer.
    async fn propose(&self, options: RequestOptions, wait_s: u64) -> Result<Value, CommandError> {
        let proposed = self.exchange.propose(options).await;
        let id = proposed.map_err(onboarding_error)?;
        self.await_answer(id, wait_s, &[Name::Proposed, Name::Accepted])
            .await;
        let text = id.to_string();
        let entry = self.entry(id, &text)?;
        if entry.state.name.word() == "refused" {
            let message = format!("the request was refused: {}", entry.state.cause.reason);
            return Err(CommandError::new(ErrorCode::NotPermitted, message)
                .advise(format_args!("`countersign agreement info {id}` shows it")));
        }
        self.agreement_info(id, &text)
    }

    /// Until the state is another than these, or the time is up.
    async fn await_answer(&self, id: AgreementId, wait_s: u64, while_in: &[Name]) {
        let mut access = self.exchange.watch_access();
        let waited = async {
            loop {
                access.mark_unchanged();
                let name = self.exchange.agreement_name(id);
                if name.is_none_or(|name| !while_in.contains(&name)) {
                    return;
                }
                if access.changed().await.is_err() {
                    return;
                }
            }
        };
        // Without a node that serves, nobody can answer.
        let wait_s = if self.server.is_some() { wait_s } else { 0 };
        let _ = tokio::time::timeout(Duration::from_secs(wait_s), waited).await;
    }

    fn after(&self, period_s: Option<u64>) -> Option<Timestamp> {
        let now = self.exchange.clock().now();
        period_s.map(|period| Timestamp(now.0.saturating_add(period.saturating_mul(1_000_000))))
    }

    fn partners_stream(&self, text: &str) -> Result<Origin, CommandError> {
        let origin = self.exchange.resolve_origin(text).ok_or_else(|| {
            let message = format!("there is no partner of which `{text}` could be a stream");
            CommandError::new(ErrorCode::NotFound, message)
                .advise("`countersign partner ls` lists partners; write ORG/STREAM")
        })?;
        if origin.authority() == *self.own() {
            let message = format!("`{text}` is a stream of our own; write ORG/STREAM");
            return Err(CommandError::new(ErrorCode::Usage, message));
        }
        Ok(origin)
    }

    /// A plan that a stream is offered under: ours as declared, a partner's as it says now.
    async fn named_plan(&self, origin: &Origin, name: Option<&str>) -> Result<Plan, CommandError> {
        let stream = origin.stream().map(|stream| stream.to_string());
        let stream = stream.unwrap_or_default();
        if origin.authority() == *self.own() {
            return self.plan_of(&stream, name.unwrap_or_default());
        }
        let listed = self.listed(&origin.authority()).await?;
        let found = listed.into_iter().find(|listed| listed.origin == *origin);
        // What is not listed may be asked for all the same, and is refused like what does not exist.
        let plans = found.map(|found| found.plans).unwrap_or_default();
        let names: Vec<String> = plans.iter().map(|plan| plan.name.clone()).collect();
        let wanted = plans
            .iter()
            .find(|plan| name.is_none_or(|name| plan.name == name));
        match (wanted, names.as_slice(), name) {
            (Some(plan), _, Some(_)) | (Some(plan), [_], None) => Ok(plan.clone()),
            (_, [], None) => Ok(Plan {
                exposure_events: self.config.exposure_events.max(1),
                ..Plan::default()
            }),
            (_, [], Some(name)) => Ok(Plan {
                name: name.to_owned(),
                exposure_events: self.config.exposure_events.max(1),
                ..Plan::default()
            }),
            (_, names, _) => {
                let names = names.join(", ");
                let message = format!(
                    "say under which plan, with --plan: `{stream}` is offered under {names}"
                );
                Err(CommandError::new(ErrorCode::Usage, message))
            }
        }
    }

    async fn listed(&self, partner: &Authority) -> Result<Vec<ListedStream>, CommandError> {
        let list = list_streams(&self.exchange, partner)
            .await
            .map_err(|error| session_error(&error))?;
        let malformed = |_| {
            let message = "the partner's list of streams is not of the form it has to have";
            CommandError::new(ErrorCode::Malformed, message)
        };
        let read = |stream: &Vec<u8>| {
            let stream: ListedStream = serde_json::from_slice(stream).map_err(malformed)?;
            // Nobody lists another's.
            let own = stream.origin.authority() == *partner;
            Ok(own.then_some(stream))
        };
        let streams: Result<Vec<_>, CommandError> = list.streams.iter().map(read).collect();
        Ok(streams?.into_iter().flatten().collect())
    }

    pub(super) fn agreements(&self, wanted: impl Fn(&AgreementEntry) -> bool) -> Vec<Value> {
        let entries = self.exchange.agreement_entries().into_iter();
        let entries = entries.filter(|entry| wanted(entry));
        entries.map(|entry| self.agreement_value(&entry)).collect()
    }

    fn entry(&self, id: AgreementId, text: &str) -> Result<AgreementEntry, CommandError> {
        let entry = self.exchange.agreement_entry(id);
        entry.ok_or_else(|| unknown_agreement(text))
    }

    fn agreement_value(&self, entry: &AgreementEntry) -> Value {
        let state = &entry.state;
        let ours = state.next.iter().find(|(side, _)| side == self.own());
        let ours = ours.map(|(_, may)| words(may)).unwrap_or_default();
        let ended = state.name.is_end().then(|| state.cause.reason.clone());
        let revoked = entry.revoked.clone();
        json!({
            "id": entry.id.to_string(),
            "partner": self.partner_name(entry.counterparty(self.own())),
            "direction": if entry.consumer == *self.own() { "in" } else { "out" },
            "stream": self.stream_name(&entry.stream),
            "plan": entry.plan.name,
            "state": state_word(entry),
            "cause": state.cause.word,
            "since": state.since.to_rfc3339(),
            "until": entry.until.map(Timestamp::to_rfc3339),
            "next": ours,
            "ended_because": ended.or(revoked),
        })
    }

    fn agreement_info(&self, id: AgreementId, text: &str) -> Result<Value, CommandError> {
        let entry = self.entry(id, text)?;
        let state = &entry.state;
        let mut value = self.agreement_value(&entry);
        value["plan"] = serde_json::to_value(&entry.plan).map_err(internal)?;
        value["plan_digest"] = hex::encode(entry.plan.digest()).into();
        let authority = entry.counterparty(self.own());
        value["partner_authority_is"] = self.authority_is(authority).into();
        value["producer"] = entry.producer.to_string().into();
        value["consumer"] = entry.consumer.to_string().into();
        value["purpose"] = entry.purpose.clone().into();
        value["round"] = entry.round.into();
        value["because"] = state.cause.reason.clone().into();
        value["by"] = state.cause.by.as_ref().map(ToString::to_string).into();
        value["position"] = state.cause.position.into();
        value["changes"] = state.until.map(Timestamp::to_rfc3339).into();
        let theirs = state.next.iter().find(|(side, _)| side != self.own());
        value["partner_next"] = theirs.map(|(_, may)| words(may)).unwrap_or_default().into();
        value["not_obeyed"] = state
            .not_obeyed
            .iter()
            .map(|(digest, why)| json!({ "document": hex::encode(digest), "why": why.word() }))
            .collect();
        let registry = self.exchange.registry();
        if let Some(held) = registry.agreements.get(&id) {
            value["from"] = held.agreement.from.to_rfc3339().into();
            value["signatures"] = held
                .envelope
                .signatures()
                .iter()
                .map(|s| s.keyid.clone())
                .collect();
            value["payload_sha256"] = hex::encode(held.envelope.payload_digest()).into();
        }
        Ok(value)
    }

    /// An agreement's id, or its beginning where that is only one.
    fn agreement_id(&self, text: &str) -> Result<AgreementId, CommandError> {
        if let Ok(id) = text.parse() {
            return Ok(id);
        }
        let registry = self.exchange.registry();
        let mut fitting = registry
            .agreements
            .keys()
            .chain(registry.talks.keys())
            .filter(|id| text.len() >= 4 && id.to_string().starts_with(text));
        match (fitting.next(), fitting.next()) {
            (Some(id), None) => Ok(*id),
            _ => Err(unknown_agreement(text)),
        }
    }
}

/// The word of the state; an agreement of a partner whose access was ended here is revoked, whatever the documents say.
fn state_word(entry: &AgreementEntry) -> &'static str {
    match (&entry.revoked, entry.state.name) {
        (_, name) if name.is_end() => name.word(),
        (Some(_), _) => "revoked",
        (None, name) => name.word(),
    }
}

fn words(may: &[May]) -> String {
    let words: Vec<&str> = may.iter().map(|may| may.word()).collect();
    words.join(", ")
}

fn unknown_agreement(text: &str) -> CommandError {
    CommandError::new(
        ErrorCode::NotFound,
        format_args!("there is no agreement `{text}`"),
    )
    .advise("`countersign agreement ls` lists them")
}
