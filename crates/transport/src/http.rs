//! The HTTP door: `/healthz`, `/metrics`, the key statement of a domain, published logs below `/logs/`, and the witness below `/witness/`.

mod connections;
mod logs;
mod witness;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use countersign_exchange::{Direction, Exchange, KEY_STATEMENT_PATH};
use tokio::net::TcpListener;
use tokio::sync::watch;

use connections::Connections;
use logs::Logs;

/// What can be asked over HTTP, each with the paths below it. Nothing is routed that is not named here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HttpDoor {
    /// Heads to be cosigned, from anybody.
    AddCheckpoint,
    /// Whether the node lives.
    Health,
    /// The key statement of an organization that is a domain, for anybody.
    KeyStatement,
    /// Published logs.
    Logs,
    /// Figures about the node.
    Metrics,
    /// What this node has cosigned.
    Monitored,
}

impl HttpDoor {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::AddCheckpoint,
        Self::Health,
        Self::KeyStatement,
        Self::Logs,
        Self::Metrics,
        Self::Monitored,
    ];

    /// The path, or what all its paths begin with.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::AddCheckpoint => witness::ADD_CHECKPOINT,
            Self::Health => "/healthz",
            Self::KeyStatement => KEY_STATEMENT_PATH,
            Self::Logs => logs::PREFIX,
            Self::Metrics => "/metrics",
            Self::Monitored => witness::PREFIX,
        }
    }

    fn open(self, exchange: &Arc<Exchange>) -> Router {
        let path = self.path();
        let below = format!("{path}{{*path}}");
        let exchange = Arc::clone(exchange);
        match self {
            Self::AddCheckpoint => Router::new()
                .route(path, post(witness::add_checkpoint))
                .layer(DefaultBodyLimit::max(witness::BODY_MAX))
                .with_state(exchange),
            Self::Health => Router::new().route(path, get(healthz)).with_state(exchange),
            Self::KeyStatement => Router::new()
                .route(path, get(key_statement))
                .with_state(exchange),
            Self::Logs => Router::new()
                .route(&below, get(logs::published))
                .with_state(Logs::new(exchange)),
            Self::Metrics => Router::new().route(path, get(metrics)).with_state(exchange),
            Self::Monitored => Router::new()
                .route(&below, get(witness::monitored))
                .with_state(exchange),
        }
    }
}

/// Serves the HTTP door until `stopping` is true. Returns where it listens.
///
/// # Errors
/// Where the address cannot be had.
pub async fn serve(
    exchange: Arc<Exchange>,
    listen: SocketAddr,
    mut stopping: watch::Receiver<bool>,
) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(listen).await?;
    let local = listener.local_addr()?;
    let router = HttpDoor::ALL.iter().fold(Router::new(), |router, door| {
        router.merge(door.open(&exchange))
    });
    let listener = Connections::new(listener);
    tokio::spawn(async move {
        let stop = async move {
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        if let Err(error) = axum::serve(listener, router)
            .with_graceful_shutdown(stop)
            .await
        {
            tracing::error!(%error, "the HTTP door failed");
        }
    });
    Ok(local)
}

async fn healthz(State(exchange): State<Arc<Exchange>>) -> impl IntoResponse {
    match exchange.appending_stopped() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(why) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("appending has stopped: {why}\n"),
        ),
    }
}

/// Our own key statement, where our authority is a domain: `schemas/domain-proof.md`.
async fn key_statement(State(exchange): State<Arc<Exchange>>) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "max-age=300"),
    ];
    match exchange.statement_for_domain() {
        Some(statement) => (StatusCode::OK, headers, statement).into_response(),
        None => (StatusCode::NOT_FOUND, "this organization has no domain\n").into_response(),
    }
}

async fn metrics(State(exchange): State<Arc<Exchange>>) -> impl IntoResponse {
    let mut out = String::new();
    gauge(
        &mut out,
        "countersign_log_entries",
        "Entries integrated, by log.",
    );
    for log in exchange.logs() {
        line(
            &mut out,
            "countersign_log_entries",
            &[("origin", log.origin().as_str())],
            log.size(),
        );
    }
    gauge(
        &mut out,
        "countersign_log_witnessed_entries",
        "Entries under a checkpoint with enough cosignatures, by own log.",
    );
    for log in exchange.logs() {
        if log.is_own_stream() {
            line(
                &mut out,
                "countersign_log_witnessed_entries",
                &[("origin", log.origin().as_str())],
                log.witnessed().map_or(0, |witnessed| witnessed.size),
            );
        }
    }
    gauge(
        &mut out,
        "countersign_witness_cosigned_entries",
        "The newest size that a witness has cosigned since the start, by own log.",
    );
    for standing in exchange.witness_standings() {
        line(
            &mut out,
            "countersign_witness_cosigned_entries",
            &[
                ("origin", standing.origin.as_str()),
                ("witness", &label(&standing.witness.to_string())),
            ],
            standing.cosigned,
        );
    }
    gauge(
        &mut out,
        "countersign_log_forked",
        "Logs that are known to have signed two histories.",
    );
    let mut forked: Vec<_> = exchange.registry().forked.iter().cloned().collect();
    forked.sort();
    for origin in forked {
        line(
            &mut out,
            "countersign_log_forked",
            &[("origin", origin.as_str())],
            1,
        );
    }
    gauge(
        &mut out,
        "countersign_partner_contradicting",
        "Partners whose receipts contradict each other: nothing is delivered to them until a person decides.",
    );
    let mut contradicting: Vec<_> = exchange.registry().contradicting.keys().cloned().collect();
    contradicting.sort();
    for partner in contradicting {
        line(
            &mut out,
            "countersign_partner_contradicting",
            &[("partner", partner.as_str())],
            1,
        );
    }
    let _ = writeln!(
        out,
        "# HELP countersign_witness_alarms_total Answers of witnesses since the start that say that somebody is wrong.\n# TYPE countersign_witness_alarms_total counter"
    );
    line(
        &mut out,
        "countersign_witness_alarms_total",
        &[],
        exchange.witness_alarms(),
    );
    gauge(
        &mut out,
        "countersign_subscription_lag_entries",
        "Entries between the origin's signed head and the position.",
    );
    let statuses = exchange.statuses();
    for status in &statuses {
        line(
            &mut out,
            "countersign_subscription_lag_entries",
            &labels(status),
            status.lag(),
        );
    }
    gauge(
        &mut out,
        "countersign_subscription_connected",
        "Whether the subscription has a session.",
    );
    for status in &statuses {
        line(
            &mut out,
            "countersign_subscription_connected",
            &labels(status),
            u64::from(status.connected),
        );
    }
    gauge(
        &mut out,
        "countersign_subscription_receipted",
        "Entries covered by the last receipt.",
    );
    for status in &statuses {
        line(
            &mut out,
            "countersign_subscription_receipted",
            &labels(status),
            status.receipted,
        );
    }
    gauge(
        &mut out,
        "countersign_subscription_held",
        "Whether a limit of the plan holds the subscription up; which one is in the label.",
    );
    for status in statuses.iter().filter(|status| !status.held_by.is_empty()) {
        let [direction, partner, origin] = labels(status);
        line(
            &mut out,
            "countersign_subscription_held",
            &[direction, partner, origin, ("limit", status.held_by)],
            1,
        );
    }
    let _ = writeln!(
        out,
        "# HELP countersign_refused_strangers_total Requests of strangers refused since the start."
    );
    let _ = writeln!(out, "# TYPE countersign_refused_strangers_total counter");
    line(
        &mut out,
        "countersign_refused_strangers_total",
        &[],
        exchange.refused_strangers(),
    );
    gauge(
        &mut out,
        "countersign_proposals_waiting",
        "Proposals of partners that wait for a person here.",
    );
    line(
        &mut out,
        "countersign_proposals_waiting",
        &[],
        exchange.waiting_proposals() as u64,
    );
    let _ = writeln!(
        out,
        "# HELP countersign_refused_questions_total Questions of partners refused since the start without a record of their own in the ledger.\n# TYPE countersign_refused_questions_total counter"
    );
    line(
        &mut out,
        "countersign_refused_questions_total",
        &[],
        exchange.refused_unrecorded(),
    );
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        out,
    )
}

fn labels(status: &countersign_exchange::SubscriptionStatus) -> [(&'static str, &str); 3] {
    let direction = match status.direction {
        Direction::In => "in",
        Direction::Out => "out",
    };
    [
        ("direction", direction),
        ("partner", status.partner.as_str()),
        ("origin", status.stream.as_str()),
    ]
}

fn gauge(out: &mut String, name: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge");
}

/// A name of somebody else's choice, as a label's value has to be written.
fn label(name: &str) -> String {
    name.replace('\\', "\\\\").replace('"', "\\\"")
}

/// Label values hold no quotes, backslashes or line ends that are not escaped.
fn line(out: &mut String, name: &str, labels: &[(&str, &str)], value: u64) {
    let labels: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}=\"{value}\""))
        .collect();
    let labels = if labels.is_empty() {
        String::new()
    } else {
        format!("{{{}}}", labels.join(","))
    };
    let _ = writeln!(out, "{name}{labels} {value}");
}
