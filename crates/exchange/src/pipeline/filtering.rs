//! What a filter makes of stored entries, and how much of that is done before others get their turn: a filter comes from a partner, who chooses what work it is.

use countersign_filter::Filter;
use countersign_store::journal::StoredEntry;

/// Steps of filters that are taken at a time: well below a millisecond. What waits for the same lock, or for the thread, waits no longer than a few of these.
pub const WORK_AT_ONCE: u32 = 1 << 17;

/// What a filter makes of a stored entry.
pub(super) enum Passes {
    /// A control entry, which always goes, and is never counted.
    Control,
    /// It does not pass.
    Not,
    /// Its content is gone.
    Unknown,
    /// It passes.
    Whole,
}

/// What may still be done of [`WORK_AT_ONCE`]. The entry with which it is used up is judged to its end.
pub(super) struct Work {
    left: u32,
}

impl Work {
    pub(super) fn new() -> Self {
        Self { left: WORK_AT_ONCE }
    }

    /// Judges an entry.
    #[inline]
    pub(super) fn judge(&mut self, filter: &Filter, stored: &StoredEntry<'_>) -> Passes {
        if stored.entry[1] & 0x0f != 0 {
            return Passes::Control;
        }
        if stored.erased_by.is_some() {
            return Passes::Unknown;
        }
        let (passes, steps) = filter.judge(stored.attributes());
        self.left = self.left.saturating_sub(steps);
        if passes { Passes::Whole } else { Passes::Not }
    }

    pub(super) fn is_used_up(&self) -> bool {
        self.left == 0
    }

    /// Where it is used up: lets others have their turn, and begins anew.
    pub(super) async fn rest(&mut self) {
        if self.is_used_up() {
            tokio::task::yield_now().await;
            *self = Self::new();
        }
    }
}
