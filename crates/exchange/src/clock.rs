use std::time::Duration;

use countersign_event::time::Timestamp;

/// Where time comes from: handed in, so that tests decide it.
pub trait Clock: Send + Sync {
    /// The time of day, UTC.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment, that nobody can set.
    fn uptime(&self) -> Duration;
}

/// How far ahead of all that is known the time of day may jump before appends stop until a person confirms it.
pub const CLOCK_JUMP_MAX: Duration = Duration::from_secs(600);

/// Watches the time of day against the time that passed.
#[derive(Debug)]
pub(crate) struct ClockGuard {
    known: Timestamp,
    at: Duration,
}

/// The clock jumped.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "the clock jumped ahead by {ahead_seconds} s; appends wait until `countersign doctor --confirm-clock` says that it is right"
)]
pub struct ClockJump {
    /// By how much.
    pub ahead_seconds: u64,
}

impl ClockGuard {
    pub(crate) fn new(clock: &dyn Clock) -> Self {
        Self {
            known: clock.now(),
            at: clock.uptime(),
        }
    }

    /// The time for the next entries. A clock that fell back is left to the caller, who clamps it to the log's last time.
    pub(crate) fn now(&mut self, clock: &dyn Clock) -> Result<Timestamp, ClockJump> {
        let (now, at) = (clock.now(), clock.uptime());
        let passed = u64::try_from(at.saturating_sub(self.at).as_micros()).unwrap_or(u64::MAX);
        let expected = self.known.0.saturating_add(passed);
        let ahead = Duration::from_micros(now.0.saturating_sub(expected));
        if ahead > CLOCK_JUMP_MAX {
            return Err(ClockJump {
                ahead_seconds: ahead.as_secs(),
            });
        }
        // Where the clock fell back, the time that passed still counts: setting it right later is no jump.
        self.known = now.max(Timestamp(expected));
        self.at = at;
        Ok(now)
    }
}
