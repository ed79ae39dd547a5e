use countersign_event::names::{Authority, Origin};
use serde::Serialize;

/// Which way a subscription flows.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// We read.
    In,
    /// We deliver.
    Out,
}

/// A running (or resting) subscription, as `status` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct SubscriptionStatus {
    /// Which way.
    pub direction: Direction,
    /// The other organization.
    pub partner: Authority,
    /// The log.
    pub stream: Origin,
    /// The agreement.
    pub agreement: String,
    /// Whether there is a session.
    pub connected: bool,
    /// Delivered up to here.
    pub position: u64,
    /// The origin's signed head.
    pub head: u64,
    /// Receipted up to here.
    pub receipted: u64,
    /// What holds it up, in one word: `exposure`, `rate`, `quota-events`, `quota-bytes`; empty where nothing does, or where the other side holds it up.
    pub held_by: &'static str,
    /// Why nothing flows though there is something; empty where nothing holds it up.
    pub paused_because: String,
}

impl SubscriptionStatus {
    /// Entries between the origin's head and the position.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.head.saturating_sub(self.position)
    }
}
