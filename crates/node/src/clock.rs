//! The machine's clock: the one place of the product where time comes in.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use countersign_event::time::Timestamp;
use countersign_exchange::Clock;

/// Time of day from the system, and time since the machine started, sleep included: a laptop that wakes up is no clock that jumped.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

impl SystemClock {
    /// The machine's clock.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    /// A machine whose clock stands before 1970 gets 1970: the log's times never decrease, and the guard against jumps sees the rest.
    fn now(&self) -> Timestamp {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    fn uptime(&self) -> Duration {
        let since = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(since.tv_sec).unwrap_or(0);
        Duration::new(seconds, u32::try_from(since.tv_nsec).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_never_goes_back_and_now_is_after_this_was_written() {
        let clock = SystemClock::new();
        let first = clock.uptime();
        assert!(clock.uptime() >= first);
        assert!(clock.now() > Timestamp::parse_rfc3339("2025-01-01T00:00:00Z").unwrap());
    }
}
