//! How fast one publisher may hand into one stream.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_event::documents::{Refusal, RefusalCode};
use countersign_event::names::Origin;
use countersign_event::time::Timestamp;

use super::Exchange;
use crate::Refused;

/// How much may come at once: what the rate gives in this time. In microseconds.
const AT_ONCE_US: u64 = 1_000_000;

/// Publishers remembered; those that owe nothing and are gone are forgotten beyond it.
const REMEMBERED: usize = 1_024;

/// When a publisher will have kept to the rate with all that it has handed in.
pub(super) type Paid = Arc<Mutex<Timestamp>>;

/// The rate, and who stands where.
#[derive(Default)]
pub(super) struct Throttle {
    /// Events a second; 0 = no limit.
    per_second: AtomicU64,
    paid: Mutex<HashMap<([u8; 32], Origin), Paid>>,
}

impl Throttle {
    /// Where a publisher stands with a stream, whatever the number of its sessions.
    pub(super) fn of(&self, publisher: [u8; 32], stream: &Origin) -> Paid {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        if paid.len() >= REMEMBERED {
            paid.retain(|_, known| Arc::strong_count(known) > 1);
        }
        let place = paid.entry((publisher, stream.clone()));
        Arc::clone(place.or_default())
    }

    /// Takes `events` for a publisher, or says how long it has to wait. A batch is taken whole where any of it may come.
    fn take(&self, paid: &Paid, events: u64, now: Timestamp) -> Result<(), Duration> {
        let per_second = self.per_second.load(Ordering::Relaxed);
        if per_second == 0 {
            return Ok(());
        }
        let mut paid = paid.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that fell back far would keep a publisher waiting for as long: nobody owes more than one batch.
        let owed = paid.0.saturating_sub(now.0);
        if let Some(wait) = owed.checked_sub(AT_ONCE_US).filter(|wait| *wait > 0) {
            return Err(Duration::from_micros(wait));
        }
        let cost = events.saturating_mul(1_000_000).div_ceil(per_second);
        *paid = Timestamp(paid.0.max(now.0).saturating_add(cost));
        Ok(())
    }
}

impl Exchange {
    /// How many events a second one publisher may hand into one stream; 0 = as many as go.
    pub fn throttle_publishers(&self, events_per_second: u64) {
        let rate = &self.throttle.per_second;
        rate.store(events_per_second, Ordering::Relaxed);
    }

    pub(super) fn throttle(
        &self,
        paid: &Paid,
        stream: &Origin,
        events: u64,
    ) -> Result<(), Box<Refused>> {
        let now = self.clock().now();
        let Err(wait) = self.throttle.take(paid, events, now) else {
            return Ok(());
        };
        let per_second = self.throttle.per_second.load(Ordering::Relaxed);
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
        let refusal = Refusal {
            asked: "publish".to_owned(),
            principal: None,
            about: stream.to_string(),
            code: RefusalCode::Busy,
            reason: format!(
                "`{stream}` takes {per_second} events a second from one publisher: more in {wait_ms} ms"
            ),
            policies: Vec::new(),
            advice: Vec::new(),
            position: None,
            made: now,
        };
        let mut refused = Refused::sign(refusal, &self.identity().agreement_key);
        refused.retry_after_ms = wait_ms;
        Err(Box::new(refused))
    }
}
