//! What retention and erasure make due while the node runs, and what the ledger did not take.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::server::Shared;

/// How often it is looked at: a copy reaches a tombstone, a hold is released, content comes of age.
const LOOK: Duration = Duration::from_secs(1);

/// Works on it for ever.
pub(crate) async fn work_on_erasures(shared: Arc<Shared>) {
    let mut moved = shared.exchange.watch_erasures();
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What fails fails at every look: said once, until it goes well again.
    let mut said = false;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            changed = moved.changed() => if changed.is_err() { return },
        }
        shared.exchange.record_owed();
        let worked = shared.exchange.work_on_erasures().await;
        if let Err(error) = &worked
            && !said
        {
            tracing::warn!(%error, "what retention and erasure make due could not be done; it is tried again");
        }
        said = worked.is_err();
    }
}
