//! The plans that streams of ours are offered under.

use countersign_event::documents::{Plan, Plans};
use countersign_exchange::SetPlansError;
use countersign_filter::Filter;
use countersign_store::journal::LogKind;
use serde_json::{Value, json};

use super::{LocalNode, exchange_error, internal};
use crate::admin::{Command, Out};
use crate::errors::{CommandError, ErrorCode};

impl LocalNode {
    pub(super) async fn on_plan(
        &self,
        command: Command,
        out: &mut Out,
    ) -> Result<(), CommandError> {
        match command {
            Command::PlanLs { stream } => out.value(&self.list_plans(stream.as_deref())?).await,
            Command::PlanSet { stream, plans } => {
                self.exchange
                    .set_plans(&stream, plans)
                    .await
                    .map_err(set_error)?;
                out.value(&self.list_plans(Some(&stream))?).await
            }
            _ => Err(internal("not a command about plans")),
        }
    }

    fn list_plans(&self, stream: Option<&str>) -> Result<Vec<Value>, CommandError> {
        let logs = match stream {
            Some(stream) => {
                let log = self.exchange.own_stream(stream);
                vec![log.map_err(|error| exchange_error(error.into()))?]
            }
            None => self.exchange.logs(),
        };
        let own = logs.into_iter().filter(|log| log.kind() == LogKind::Own);
        let values = own.flat_map(|log| {
            let name = self.stream_name(log.origin());
            let plans = self.exchange.plans(log.origin()).plans;
            plans
                .into_iter()
                .map(move |plan| plan_value(Some(&name), &plan))
        });
        Ok(values.collect())
    }

    /// A plan of a stream of ours by its name.
    pub(super) fn plan_of(&self, stream: &str, name: &str) -> Result<Plan, CommandError> {
        let log = self.exchange.own_stream(stream);
        let log = log.map_err(|error| exchange_error(error.into()))?;
        let plans = self.exchange.plans(log.origin());
        plans.find(name).cloned().ok_or_else(|| {
            let message = format!("the stream `{stream}` has no plan `{name}`");
            let advice = format!(
                "`countersign plan ls {stream}` lists its plans, `countersign plan set {stream} FILE` declares them"
            );
            CommandError::new(ErrorCode::NotFound, message).advise(advice)
        })
    }
}

fn set_error(error: SetPlansError) -> CommandError {
    match error {
        SetPlansError::Exchange(error) => exchange_error(error),
        SetPlansError::Plans(error) => CommandError::new(ErrorCode::PlanInvalid, error),
    }
}

/// A plan with its digest, as it is listed.
pub(crate) fn plan_value(stream: Option<&str>, plan: &Plan) -> Value {
    let mut value = json!({
        "plan": plan.name,
        "exposure_events": plan.exposure_events,
        "erasure": plan.erasure,
        "rate": plan.rate.map(|rate| format!("{}/s, burst {}", rate.events_per_second, rate.burst())),
        "quota": plan.quota.map(|quota| {
            let events = quota.events.map(|events| format!("{events} events"));
            let bytes = quota.bytes.map(|bytes| format!("{bytes} bytes"));
            let parts: Vec<String> = events.into_iter().chain(bytes).collect();
            format!("{} a {}", parts.join(", "), quota.period)
        }),
        "filter": plan.filter,
        "history": plan.history.map(|history| {
            let events = history.events.map(|events| format!("{events} entries"));
            let seconds = history.seconds.map(|seconds| format!("{seconds} s"));
            let parts: Vec<String> = events.into_iter().chain(seconds).collect();
            parts.join(", ")
        }),
        "fields": plan.fields.as_ref().map(|fields| fields.join(", ")),
        "digest": hex::encode(plan.digest()),
        "terms": plan,
    });
    if let Some(stream) = stream {
        value["stream"] = stream.into();
    }
    value
}

/// Plans from the text of a file, checked.
///
/// # Errors
/// [`ErrorCode::PlanInvalid`] with line and column where it has them.
pub(crate) fn parse_plans(text: &str, is_json: bool) -> Result<Plans, CommandError> {
    let invalid = |error: &dyn std::fmt::Display| CommandError::new(ErrorCode::PlanInvalid, error);
    let plans: Plans = if is_json {
        countersign_event::from_slice_of_objects(text.as_bytes())
            .map_err(|error| invalid(&error))?
    } else {
        toml::from_str(text).map_err(|error| invalid(&error))?
    };
    plans.check().map_err(|error| invalid(&error))?;
    for plan in &plans.plans {
        let Some(text) = &plan.filter else { continue };
        Filter::from_canonical(text).map_err(|error| {
            let name = &plan.name;
            CommandError::new(
                ErrorCode::PlanInvalid,
                format_args!("plan `{name}`: the filter is not understood: {error}"),
            )
            .advise("`countersign filter check` shows the canonical text of a filter")
        })?;
    }
    Ok(plans)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = r#"
[[plans]]
name = "metered"
exposure_events = 1000
erasure = "obey"
rate = { events_per_second = 500, burst_events = 2000 }
quota = { period = "month", events = 1000000 }
history = { seconds = 604800 }
"#;

    #[test]
    fn one_plan_has_one_digest_whether_it_came_as_toml_or_json() {
        let plans = parse_plans(TOML, false).unwrap();
        let json = serde_json::to_string_pretty(&plans).unwrap();
        let again = parse_plans(&json, true).unwrap();
        assert_eq!(again, plans);
        assert_eq!(again.plans[0].digest(), plans.plans[0].digest());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (from, to, named) in [
            ("month", "fortnight", "3600s"),
            ("= 500", "= 0", "nonzero"),
            ("quota", "qouta", "qouta"),
            (
                "events = 1000000",
                "events = 0",
                "nothing would ever be delivered",
            ),
            ("\"metered\"", "\"The plan\"", "no name for a plan"),
        ] {
            let error = parse_plans(&TOML.replace(from, to), false).unwrap_err();
            assert_eq!(error.code, ErrorCode::PlanInvalid);
            assert!(error.message.contains(named), "{named}: {}", error.message);
        }
    }
}
