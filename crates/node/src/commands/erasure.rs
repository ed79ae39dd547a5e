//! Retention and erasure: what is erased here, what partners are asked, what they ask.

use countersign_event::control::Retention;
use countersign_event::documents::Outcome;
use countersign_event::names::Origin;
use countersign_exchange::{EraseFault, Log, RequestState};
use countersign_store::journal::{Erasure, LogKind};
use serde_json::{Value, json};

use super::{LocalNode, exchange_error, internal};
use crate::admin::{Command, Out};
use crate::errors::{CommandError, ErrorCode};

impl LocalNode {
    pub(super) async fn on_erasure(
        &self,
        command: Command,
        out: &mut Out,
    ) -> Result<(), CommandError> {
        let exchange = &self.exchange;
        match command {
            Command::StreamErase {
                stream,
                sequence,
                reason,
            } => {
                let erased = exchange.erase_event(&stream, sequence, &reason).await;
                let erased = erased.map_err(exchange_error)?;
                let asked = erased.asked.iter().map(|(partner, id)| {
                    json!({ "partner": self.partner_name(partner), "id": id.to_string() })
                });
                let value = json!({
                    "stream": stream,
                    "sequence": erased.sequence,
                    "tombstone": erased.tombstone,
                    "asked": asked.collect::<Vec<_>>(),
                });
                out.value(&value).await
            }
            Command::StreamRetention { stream, set } => {
                let mut expired = None;
                if let Some(retention) = set {
                    let done = exchange.set_retention(&stream, retention).await;
                    expired = done.map_err(exchange_error)?;
                    // Whoever asked for it may look for what is gone.
                    let gone = exchange.writer().overwritten().await;
                    gone.map_err(|error| exchange_error(error.into()))?;
                }
                let log = exchange.own_stream(&stream);
                let log = log.map_err(|error| exchange_error(error.into()))?;
                let mut value = json!({ "stream": stream });
                self.add_retention(&log, &mut value);
                if let Some(below) = expired {
                    value["expired_below"] = below.into();
                }
                out.value(&value).await
            }
            Command::ErasureLs { stream } => {
                let origin = stream.map(|stream| self.stream(&stream)).transpose()?;
                out.value(&self.erasures(origin.as_ref())).await
            }
            Command::ErasureApprove { id, reason } => {
                let id = exchange.approve_erasure(&id, &reason).await;
                let id = id.map_err(exchange_error)?.to_string();
                out.value(&self.erasure(&id)).await
            }
            Command::ErasureRefuse { id, reason } => {
                let id = exchange.refuse_erasure(&id, &reason).await;
                let id = id.map_err(exchange_error)?.to_string();
                out.value(&self.erasure(&id)).await
            }
            Command::ErasureHold {
                stream,
                held,
                reason,
            } => {
                let origin = self.stream(&stream)?;
                let known = exchange.log(&origin);
                if held && known.is_none() {
                    let message = format!("there is no stream `{origin}` here");
                    return Err(CommandError::new(ErrorCode::NotFound, message)
                        .advise("`countersign stream ls` lists them"));
                }
                let set = exchange.set_hold(&origin, held, &reason).await;
                set.map_err(exchange_error)?;
                let value = json!({ "stream": stream, "held": held, "reason": reason });
                out.value(&value).await
            }
            _ => Err(internal("not a command about erasure")),
        }
    }

    fn erasures(&self, stream: Option<&Origin>) -> Vec<Value> {
        let registry = self.exchange.registry();
        let mut states: Vec<RequestState> = registry
            .erasure
            .requests()
            .filter(|state| stream.is_none_or(|stream| state.request.stream == *stream))
            .cloned()
            .collect();
        drop(registry);
        states.sort_by_key(|state| (state.request.made, state.request.id));
        states
            .iter()
            .map(|state| self.erasure_value(state))
            .collect()
    }

    fn erasure(&self, id: &str) -> Value {
        let state = {
            let registry = self.exchange.registry();
            let mut states = registry.erasure.requests();
            states
                .find(|state| state.request.id.to_string() == id)
                .cloned()
        };
        state.map_or(Value::Null, |state| self.erasure_value(&state))
    }

    fn erasure_value(&self, state: &RequestState) -> Value {
        let request = &state.request;
        let own = self.exchange.identity().authority();
        let registry = self.exchange.registry();
        let agreement = registry.agreements.get(&request.agreement);
        let partner = agreement.map(|agreed| agreed.counterparty(own).clone());
        let hold = registry.erasure.hold(&request.stream).is_some();
        drop(registry);
        let state_word = match state.outcome() {
            Some(Outcome::Done) => "done",
            Some(Outcome::Refused) => "refused",
            Some(Outcome::Held) if request.by == *own || hold => "held",
            _ => "waiting",
        };
        json!({
            "id": request.id.to_string(),
            "way": if request.by == *own { "out" } else { "in" },
            "partner": partner.map(|partner| self.partner_name(&partner)),
            "stream": self.stream_name(&request.stream),
            "sequence": request.sequence,
            "tombstone": request.tombstone,
            "reason": request.reason,
            "made": request.made.to_rfc3339(),
            "state": state_word,
            "answer": state.answer.as_ref().map(|(answer, _)| answer.reason.clone()),
            "answered": state.answer.as_ref().map(|(answer, _)| answer.made.to_rfc3339()),
        })
    }

    /// How long a stream keeps content, and what holds it.
    pub(super) fn add_retention(&self, log: &Log, value: &mut Value) {
        let registry = self.exchange.registry();
        if log.kind() == LogKind::Own {
            let retention = registry.erasure.retention(log.origin());
            value["retention"] = retention_text(&retention).into();
        }
        if let Some(reason) = registry.erasure.hold(log.origin()) {
            value["legal_hold"] = reason.into();
        }
    }
}

fn retention_text(retention: &Retention) -> String {
    let limits = [
        retention.age_seconds.map(|seconds| {
            let day = 86_400;
            match seconds {
                0 => "0 s".to_owned(),
                _ if seconds % day == 0 => format!("{} d", seconds / day),
                _ => format!("{seconds} s"),
            }
        }),
        retention.bytes.map(|bytes| format!("{bytes} bytes")),
        retention.count.map(|count| format!("{count} entries")),
    ];
    let limits: Vec<String> = limits.into_iter().flatten().collect();
    match limits.is_empty() {
        true => "all".to_owned(),
        false => limits.join(", "),
    }
}

/// Entries without content, one after the other and by one control entry, as a reader is told of them.
pub(super) struct Gap {
    first: u64,
    end: u64,
    by: u64,
}

impl Gap {
    pub(super) fn of(sequence: u64, by: u64) -> Self {
        Self {
            first: sequence,
            end: sequence.saturating_add(1),
            by,
        }
    }

    /// Takes an entry in, where it continues this one.
    pub(super) fn extend(&mut self, sequence: u64, by: u64) -> bool {
        let continues = self.end == sequence && self.by == by;
        self.end += u64::from(continues);
        continues
    }

    pub(super) fn line(&self, node: &LocalNode, log: &Log) -> Result<String, CommandError> {
        if self.by == Erasure::FILTERED {
            return Ok(filtered_line(self.first, self.end));
        }
        let says = node.exchange.allows_at(log, self.by);
        let says = says.map_err(|error| exchange_error(error.into()))?;
        let reason = says.map_or("claimed", |says| says.word());
        let (first, end, by) = (self.first, self.end, self.by);
        Ok(gap_line(first, end, by, reason))
    }
}

/// The line that stands for entries without content. `claimed` is what a producer says whose control entry has not come yet.
pub(crate) fn gap_line(first: u64, end: u64, by: u64, reason: &str) -> String {
    let last = end.saturating_sub(1);
    json!({ "sequence": last, "gap": { "first": first, "end": end, "reason": reason, "by": by } })
        .to_string()
}

/// The line that stands for entries that a filter left out.
pub(crate) fn filtered_line(first: u64, end: u64) -> String {
    let last = end.saturating_sub(1);
    json!({ "sequence": last, "gap": { "first": first, "end": end, "reason": "filtered" } })
        .to_string()
}

/// What a person is told of such a line; `None` of another.
pub(crate) fn gap_note(line: &Value) -> Option<String> {
    let gap = line.get("gap")?;
    let (first, end) = (gap["first"].as_u64()?, gap["end"].as_u64()?);
    let reason = gap["reason"].as_str()?;
    if reason == "filtered" {
        let last = end.saturating_sub(1);
        return Some(format!(
            "entries {first} to {last} were left out by the filter"
        ));
    }
    let by = gap["by"].as_u64()?;
    let entries = match end.saturating_sub(1) {
        last if last == first => format!("entry {first} has"),
        last => format!("entries {first} to {last} have"),
    };
    Some(match reason {
        "claimed" => {
            format!("{entries} no content; entry {by}, which is not here yet, is said to allow it")
        }
        _ => format!("{entries} no content: {reason}, as entry {by} says"),
    })
}

pub(super) fn erase_error(fault: &EraseFault) -> ErrorCode {
    match fault {
        EraseFault::AlreadyErased { .. } => ErrorCode::AlreadyErased,
        EraseFault::ControlEntry { .. } | EraseFault::Reason => ErrorCode::Usage,
        EraseFault::Held { .. } => ErrorCode::LegalHold,
        EraseFault::NoEntry { .. }
        | EraseFault::NotHeld { .. }
        | EraseFault::UnknownRequest { .. } => ErrorCode::NotFound,
        EraseFault::NotYet { .. } => ErrorCode::Pending,
    }
}
