//! `serve`: the node until a signal ends it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use countersign_exchange::Exchange;
use countersign_policy::PolicySet;
use countersign_transport::{Server, ServerOptions, http};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::admin::{AdminListener, Handler, LOCK_WAIT_MAX, claim_for_serving, serve_admin};
use crate::cli::{Exit, Output};
use crate::commands::{LocalNode, ServerFacts, policies_differ};
use crate::config::Loaded;
use crate::data_dir::DataDir;
use crate::errors::{CommandError, ErrorCode};
use crate::open::{open, read_policies, settle};

/// How often the policies on disk are compared with those in force.
const POLICY_LOOK: Duration = Duration::from_millis(500);

/// How often what commands acknowledged, and what is new in the ledger, is written down.
const HOUSEKEEPING: Duration = Duration::from_millis(200);

pub(crate) async fn serve(
    dir: &DataDir,
    settings: &Loaded,
    output: &mut Output,
) -> Result<Exit, CommandError> {
    trace(settings);
    let io = |error: std::io::Error| CommandError::new(ErrorCode::Io, error);
    // Before the signals are listened to: until the lock is there nothing needs an end in order, and a signal ends the waiting as it ends any process.
    let lock = claim_for_serving(dir, |locked| {
        let seconds = LOCK_WAIT_MAX.as_secs();
        output.note(&format!("{locked}: waiting for it, at most {seconds} s"));
    })
    .await?;
    let mut terminate = signal(SignalKind::terminate()).map_err(io)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(io)?;
    let config = &settings.config;
    let exchange = open(dir, config).await?;
    let advertise: Vec<String> = config.advertise.iter().map(ToString::to_string).collect();
    let options = ServerOptions {
        listen: config.listen,
        advertise,
        limits: config.quic.clone(),
    };
    let unreachable = |error: &dyn std::fmt::Display| CommandError::new(ErrorCode::Io, error);
    let server = Arc::new(Server::start(&exchange, options).map_err(|error| unreachable(&error))?);
    let (stopping, stop) = watch::channel(false);
    let door = http::serve(Arc::clone(&exchange), config.http, stop)
        .await
        .map_err(|error| {
            CommandError::new(
                ErrorCode::Io,
                format_args!("cannot listen on {}: {error}", config.http),
            )
        })?;
    let facts = ServerFacts {
        server: Arc::clone(&server),
        listen: server.local_addr(),
        http: Some(door),
    };
    let node = Arc::new(
        LocalNode::new(Arc::clone(&exchange), config.clone(), dir.clone()).with_server(facts),
    );
    let listener = AdminListener::bind(dir, &lock)?;
    let handler: Arc<dyn Handler> = node.clone();
    let admin = tokio::spawn(serve_admin(listener, handler));
    let policies = tokio::spawn(watch_policies(Arc::clone(&exchange), dir.policies_dir()));
    let housekeeping = tokio::spawn(keep_house(Arc::clone(&node)));
    let settling = tokio::spawn(settle_in(dir.clone(), Arc::clone(&exchange)));
    let identity = exchange.identity();
    output.note(&format!(
        "{} serves on {} (health, metrics and published logs on http://{door})",
        identity.statement.name,
        server.local_addr()
    ));
    output.note(&format!(
        "fingerprint {}",
        identity.organization().fingerprint()
    ));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    output.note("finishing what is under way");
    stopping.send_replace(true);
    admin.abort();
    policies.abort();
    housekeeping.abort();
    settling.abort();
    // Sessions first: what they handed in is committed below.
    server.shut_down().await;
    node.close().await?;
    drop(lock);
    Ok(Exit::Ok)
}

fn trace(settings: &Loaded) {
    let filter = tracing_subscriber::EnvFilter::new(format!(
        "warn,countersign={level},countersign_exchange={level},countersign_transport={level},countersign_store={level},countersign_client={level}",
        level = settings.config.trace.as_str()
    ));
    let built = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .finish();
    // A second `serve` in one process (the demo) keeps the first one's trace.
    let _ = tracing::subscriber::set_global_default(built);
}

/// Where the directory was copied or moved: says so, and notes its new place once nothing is frozen any more.
async fn settle_in(dir: DataDir, exchange: Arc<Exchange>) {
    let mut frozen = exchange.watch_frozen();
    loop {
        if frozen.wait_for(|frozen| *frozen).await.is_err() {
            return;
        }
        tracing::warn!(
            "this data directory may be older than what partners know: streams take no entries until these have said what they know"
        );
        let mut tick = interval(HOUSEKEEPING);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while exchange.asks_readers() {
            tick.tick().await;
            exchange.review_frozen();
        }
        match settle(&dir, &exchange) {
            Ok(()) => tracing::info!("nobody has read more than is here"),
            Err(error) => tracing::error!(%error, "the directory's place could not be noted"),
        }
    }
}

/// An edit takes force without a restart; an invalid one is said once and changes nothing.
pub(crate) async fn watch_policies(exchange: Arc<Exchange>, folder: PathBuf) {
    let mut tick = interval(POLICY_LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut refused: Option<Vec<(String, String)>> = None;
    loop {
        tick.tick().await;
        let Ok(texts) = read_policies(&folder) else {
            continue;
        };
        if !policies_differ(&exchange.policies(), &texts) || refused.as_ref() == Some(&texts) {
            continue;
        }
        match PolicySet::load(&texts) {
            Ok(policies) => match exchange.set_policies(policies).await {
                Ok(()) => tracing::info!("new policies are in force"),
                Err(error) => {
                    tracing::error!(%error, "new policies could not be recorded; the old ones stay in force")
                }
            },
            Err(error) => {
                tracing::error!(%error, "the policies on disk are not valid; the old ones stay in force");
                refused = Some(texts);
            }
        }
    }
}

/// Cursors go to the ledger, and the ledger to its view.
pub(crate) async fn keep_house(node: Arc<LocalNode>) {
    let mut tick = interval(HOUSEKEEPING);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut moved = node.exchange.ledger_moved();
    loop {
        tick.tick().await;
        if let Err(error) = node.flush_cursors().await {
            tracing::warn!(%error, "cursors could not be written; they are tried again");
        }
        if moved.has_changed().unwrap_or(false) {
            moved.mark_unchanged();
            if let Err(error) = node.exchange.catch_up_view().await {
                tracing::warn!(%error, "the ledger's view could not be brought up to date");
            }
        }
    }
}
