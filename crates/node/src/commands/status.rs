//! Looking at a node.

use countersign_event::time::Timestamp;
use countersign_exchange::{Direction, SubscriptionStatus};
use countersign_store::journal::LogKind;
use serde_json::{Value, json};

use super::{LocalNode, exchange_error};
use crate::admin::Out;
use crate::errors::CommandError;
use crate::key_protection;

impl LocalNode {
    pub(super) async fn status(&self, out: &mut Out) -> Result<(), CommandError> {
        let exchange = &self.exchange;
        let identity = exchange.identity();
        let logs = exchange.logs();
        let count = |kind| logs.iter().filter(|log| log.kind() == kind).count();
        let entries: u64 = logs.iter().map(|log| log.size()).sum();
        let now = exchange.clock().now();
        let (partners, active) = {
            let registry = exchange.registry();
            let agreements = registry.agreements.values();
            (
                registry.partners.len(),
                agreements.filter(|state| state.is_active(now)).count(),
            )
        };
        let frozen: Vec<Value> = logs
            .iter()
            // A ledger log that has a successor waits for nobody.
            .filter(|log| log.is_own_stream())
            .filter_map(|log| {
                let why = exchange.why_frozen(log)?;
                Some(json!({ "stream": self.stream_name(log.origin()), "why": why }))
            })
            .collect();
        let contradicting: Vec<Value> = {
            let found = exchange.registry().contradicting.clone();
            let named = found.iter();
            named
                .map(|(partner, why)| json!({ "partner": self.partner_name(partner), "why": why }))
                .collect()
        };
        let statuses = exchange.statuses();
        let subscriptions: Vec<Value> = statuses
            .iter()
            .map(|status| self.subscription_value(status))
            .collect();
        let mut status = json!({
            "organization": identity.statement.name,
            "authority": identity.authority(),
            "fingerprint": identity.organization().fingerprint(),
            "state": if self.server.is_some() { "serving" } else { "not running" },
            "listen": self.server.as_ref().map(|facts| facts.listen.to_string()),
            "http": self.server.as_ref().and_then(|facts| facts.http).map(|http| http.to_string()),
            "advertise": self.addresses(),
            "streams": count(LogKind::Own),
            "copies": count(LogKind::Copy),
            "entries": entries,
            "partners": partners,
            "agreements_active": active,
            "proposals_waiting": exchange.waiting_proposals(),
            "connections": self.server.as_ref().map(|facts| facts.server.open_connections()),
            "strangers_refused": exchange.refused_strangers(),
            "appending": exchange.appending_stopped().map_or_else(|| "ok".to_owned(), |why| format!("stopped: {why}")),
            "assurance": self.assurance_of_all(),
            "contradicting": contradicting,
            "frozen": frozen,
            "subscriptions": subscriptions,
        });
        let ending = self.keys_ending();
        if !ending.is_empty() {
            status["keys_ending"] = ending.into();
        }
        out.value(&status).await
    }

    pub(super) fn subscription_value(&self, status: &SubscriptionStatus) -> Value {
        json!({
            "direction": status.direction,
            "partner": self.partner_name(&status.partner),
            "stream": self.stream_name(&status.stream),
            "state": if status.connected { "connected" } else { "away" },
            "position": status.position,
            "head": status.head,
            "lag": status.lag(),
            "receipted": status.receipted,
            "held_by": status.held_by,
            "paused_because": self.why(status),
        })
    }

    /// Why something waits, in words; empty where nothing does.
    fn why(&self, status: &SubscriptionStatus) -> String {
        if !status.paused_because.is_empty() {
            return status.paused_because.clone();
        }
        if let Some(over) = self.over(&status.agreement) {
            return over;
        }
        if self.server.is_none() {
            return "the node is not running".to_owned();
        }
        match (status.connected, status.direction) {
            (true, _) => String::new(),
            (false, Direction::In) => "no session with the producer; dialling goes on".to_owned(),
            (false, Direction::Out) => "the consumer is not connected".to_owned(),
        }
    }

    /// Why an agreement gives nothing any more, if that is so.
    fn over(&self, agreement: &str) -> Option<String> {
        let id = agreement.parse().ok()?;
        let now = self.exchange.clock().now();
        let registry = self.exchange.registry();
        let state = registry.agreements.get(&id)?;
        state.why_not(now).map(|(_, why)| why)
    }

    pub(super) async fn doctor(
        &self,
        confirm_clock: bool,
        out: &mut Out,
    ) -> Result<(), CommandError> {
        if confirm_clock {
            self.exchange.writer().confirm_clock();
        }
        let mut checks = Vec::new();
        let mut check = |what: &str, good: bool, detail: String| {
            checks.push(json!({ "check": what, "result": if good { "ok" } else { "look" }, "detail": detail }));
        };
        let stopped = self.exchange.appending_stopped();
        check(
            "appending",
            stopped.is_none(),
            stopped.unwrap_or_else(|| "entries are taken".to_owned()),
        );
        let now = self.exchange.clock().now();
        let newest = self
            .exchange
            .logs()
            .iter()
            .map(|log| log.head().last_time_us)
            .max()
            .unwrap_or(0);
        let behind = newest > now.0;
        let detail = if behind {
            format!(
                "the clock shows {now}, the newest entry is of {}: times are clamped until the clock has caught up",
                Timestamp(newest)
            )
        } else {
            format!("{now}")
        };
        check("clock", !behind, detail);
        self.exchange.refresh_view().await.map_err(exchange_error)?;
        let problems = self
            .exchange
            .view()
            .verify(&self.exchange.ledger_source())
            .await;
        let problems = problems.map_err(|error| exchange_error(error.into()))?;
        let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let whole = texts.is_empty();
        check(
            "ledger view",
            whole,
            if whole {
                "the rows are those of the logs".to_owned()
            } else {
                texts.join("; ")
            },
        );
        let damaged: Vec<String> = self
            .exchange
            .logs()
            .iter()
            .filter_map(|log| self.first_damage(log))
            .collect();
        let readable = damaged.is_empty();
        check(
            "logs",
            readable,
            if readable {
                "every stored byte reads back".to_owned()
            } else {
                damaged.join("; ")
            },
        );
        let addresses = self.addresses();
        let reachable = !addresses.is_empty();
        check(
            "advertise",
            reachable,
            if reachable {
                addresses.join(", ")
            } else {
                "partners cannot dial this node: set `advertise`".to_owned()
            },
        );
        let (covered, detail) = key_protection::judge(&self.dir, &self.config.keys)?;
        check("keys", covered, detail);
        let ending = self.keys_ending();
        let none = ending.is_empty();
        check(
            "key periods",
            none,
            if none {
                "no key in use ends within 30 days".to_owned()
            } else {
                ending.join("; ")
            },
        );
        let unwitnessed: Vec<String> = self
            .exchange
            .logs()
            .iter()
            .filter(|log| log.kind() == LogKind::Own && log.witnessed().is_none())
            .map(|log| self.stream_name(log.origin()))
            .collect();
        let none = unwitnessed.is_empty();
        check(
            "witnesses",
            none,
            if none {
                "every stream is witnessed".to_owned()
            } else {
                format!(
                    "nobody has cosigned {}: that there is one history of it is not proven to others",
                    unwitnessed.join(", ")
                )
            },
        );
        let unknown = self.exchange.unknown_agreements();
        let names: Vec<String> = unknown
            .iter()
            .map(|(partner, id)| format!("{id} ({})", self.partner_name(partner)))
            .collect();
        check(
            "agreements",
            names.is_empty(),
            if names.is_empty() {
                "partners read under agreements that are held here".to_owned()
            } else {
                format!(
                    "partners name agreements that are not held here: {}; where this node was restored from a backup they were made after it: invite these partners again",
                    names.join(", ")
                )
            },
        );
        let forked: Vec<String> = {
            let registry = self.exchange.registry();
            registry.forked.iter().map(ToString::to_string).collect()
        };
        let none = forked.is_empty();
        check(
            "forks",
            none,
            if none {
                "no log is known to have signed two histories".to_owned()
            } else {
                format!(
                    "two histories were signed for {}; the proofs are in `evidence`",
                    forked.join(", ")
                )
            },
        );
        let contradicting: Vec<String> = {
            let found = self.exchange.registry().contradicting.clone();
            found
                .keys()
                .map(|partner| self.partner_name(partner))
                .collect()
        };
        let none = contradicting.is_empty();
        check(
            "receipts",
            none,
            if none {
                "no partner is known to have contradicted its receipts".to_owned()
            } else {
                format!(
                    "receipts of {} contradict each other: nothing is delivered to them until you decide (`partner settle`, or `partner revoke`); the proofs are in `evidence`",
                    contradicting.join(", ")
                )
            },
        );
        check("backup", false, "back up keys and data together; compare heads with partners before a restored copy is used".to_owned());
        out.value(&json!({ "confirmed_clock": confirm_clock, "checks": checks }))
            .await
    }

    /// Reads a whole log through.
    fn first_damage(&self, log: &countersign_exchange::Log) -> Option<String> {
        let mut next = 0;
        let size = log.size();
        while next < size {
            match self
                .exchange
                .reader()
                .read(log.number(), next, 8192, 16 << 20)
            {
                Ok(runs) => match runs.last() {
                    Some(run) => next = run.first + u64::from(run.count),
                    None => return Some(format!("`{}`: entry {next} is not there", log.origin())),
                },
                Err(error) => return Some(format!("`{}`: {error}", log.origin())),
            }
        }
        None
    }
}
