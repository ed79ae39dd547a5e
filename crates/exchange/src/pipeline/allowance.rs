//! What a plan still allows: rate and quota of one agreement, whatever the number of sessions and series under it.
//!
//! A *quota* counts different positions, so that what is sent again costs nothing. Before anything is handed out, a *lot* of the quota is set aside for
//! the positions from one on, and that is in the ledger first (`allotment`): so many events, so many bytes. A node that stops with a lot half used
//! counts all of it as used when it starts again, and may hand out its positions once more for nothing: never more than the quota leaves in a period,
//! and a reader that goes on where it stopped gets all of it.
//!
//! ```text
//! positions   ──────────[from ····charged···· to ░░░░set aside░░░░)──────────[from ··· to ░)──────
//!                       sent again: free      └ the next reader here uses the lot up
//! ```
//!
//! Lots grow by an eighth of what is left, so that a period costs tens of ledger entries and the last event of the quota is reached exactly. What is
//! set aside elsewhere and not used is taken back before a reader is told that nothing is left.
//!
//! A *view* is what a filter leaves of a log (all of it: zeros). Positions are charged for one view: what another one shows of them was not sent.

use std::collections::{BTreeMap, BTreeSet};

use countersign_crypto::Hash;
use countersign_event::documents::{Plan, Quota, Rate};
use countersign_event::time::Timestamp;

/// What is counted: events, and their data bytes.
pub(crate) type Amount = [u64; 2];

/// The most that is set aside at a time: events, and bytes. A crash leaves at most this much to be sent again from where it was set aside.
const LOT_MAX: Amount = [65_536, 64 << 20];

/// Lots of one period: places where readers began. Who begins at more places waits for the next period.
const LOTS_MAX: usize = 1_024;

/// Tokens are counted in millionths of an event: `events_per_second` of them come each microsecond.
const TOKEN: u64 = 1_000_000;

/// How long what was set aside is left to whom it was set aside for. Without it, readers that wait for the same last events would take them from each
/// other for ever. In microseconds.
const KEPT_US: u64 = 1_000_000;

/// How long tokens are gathered at least, where there is more to send than tokens: a batch has fixed costs. In microseconds.
const GATHER_US: u64 = 50_000;

/// A limit of a plan that holds something up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Limit {
    /// The rate.
    Rate,
    /// The quota's events.
    QuotaEvents,
    /// The quota's bytes.
    QuotaBytes,
}

/// What was set aside, as it goes to the ledger. A later one of the same period and `from` takes the place of an earlier one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Allotment {
    /// The first moment of the period.
    pub(crate) period: Timestamp,
    /// Of which view.
    pub(crate) view: Hash,
    /// The position from which on it is used.
    pub(crate) from: u64,
    /// Events and bytes; what the quota does not limit is 0.
    pub(crate) amount: Amount,
}

/// What may be handed out from a position on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Room {
    /// As far as `end`, and at most this much.
    Go {
        /// Not beyond this position.
        end: u64,
        /// Events, and bytes.
        amount: Amount,
    },
    /// Nothing before `until`.
    Held {
        /// Which limit.
        limit: Limit,
        /// When it is worth looking again.
        until: Timestamp,
    },
    /// More has to be set aside first.
    Ask(Vec<Allotment>),
    /// It is being set aside.
    Pending,
    /// What is left is set aside for others, who have not used it yet: to be looked at again then.
    Others(Timestamp),
}

/// Rate and quota of one agreement.
#[derive(Clone, Debug)]
pub(crate) struct Allowance {
    bucket: Option<Bucket>,
    book: Option<Book>,
}

impl Allowance {
    /// Of a plan; `None` where it limits neither. The bucket is empty: over any span, with stops of the node in it, no more than the rate leaves.
    pub(crate) fn new(plan: &Plan, now: Timestamp) -> Option<Self> {
        let bucket = plan.rate.map(|rate| Bucket::new(rate, now));
        let book = plan.quota.map(|quota| Book::new(quota, now));
        (bucket.is_some() || book.is_some()).then_some(Self { bucket, book })
    }

    /// The first moment of the period that is counted now, where there is a quota.
    pub(crate) fn period(&self) -> Option<Timestamp> {
        self.book.as_ref().map(|book| book.period.0)
    }

    /// Whether bytes are counted.
    pub(crate) fn counts_bytes(&self) -> bool {
        let quota = self.book.as_ref().map(|book| book.limit[1]);
        quota.is_some_and(|limit| limit != u64::MAX)
    }

    /// What may be handed out of a reader's `[position, end)`, whose first event has `next_bytes`.
    pub(crate) fn room(
        &mut self,
        view: Hash,
        (position, end): (u64, u64),
        next_bytes: u64,
        now: Timestamp,
    ) -> Room {
        let tokens = match &mut self.bucket {
            None => u64::MAX,
            Some(bucket) => match bucket.tokens(end - position, now) {
                Ok(tokens) => tokens,
                Err(until) => {
                    let limit = Limit::Rate;
                    return Room::Held { limit, until };
                }
            },
        };
        let room = match &mut self.book {
            None => Room::Go {
                end,
                amount: [u64::MAX; 2],
            },
            Some(book) => book.room(view, (position, end), next_bytes, now),
        };
        match room {
            Room::Go { end, amount } => Room::Go {
                end,
                amount: [amount[0].min(tokens), amount[1]],
            },
            other => other,
        }
    }

    /// `[first, to)` is handed out, as [`Allowance::room`] allowed. What is to be set aside ahead of need comes back.
    pub(crate) fn hand_out(
        &mut self,
        view: Hash,
        (first, to): (u64, u64),
        used: Amount,
    ) -> Option<Allotment> {
        if let Some(bucket) = &mut self.bucket {
            bucket.take(used[0]);
        }
        self.book.as_mut()?.hand_out(view, (first, to), used)
    }

    /// What was asked for is in the ledger, or could not be written.
    pub(crate) fn answered(&mut self, asked: &Allotment, written: bool, now: Timestamp) {
        if let Some(book) = &mut self.book {
            book.answered(asked, written, now);
        }
    }

    /// A reader at `position` is gone: what is set aside there and not used is given back.
    pub(crate) fn give_back(&mut self, view: Hash, position: u64) -> Option<Allotment> {
        self.book.as_mut()?.give_back((view, position))
    }

    /// Takes over what the ledger says of the running period. All of it is taken for used until [`Allowance::resolve`].
    pub(crate) fn restore(&mut self, allotments: &[Allotment]) {
        if let Some(book) = &mut self.book {
            book.restore(allotments);
        }
    }

    /// Finds how far what was restored of a view reaches. `count` gives, for positions from one on and not beyond another, how far an amount reaches and
    /// how much that is.
    pub(crate) fn resolve<E>(
        &mut self,
        view: Hash,
        count: impl FnMut((u64, u64), Amount) -> Result<(u64, Amount), E>,
    ) -> Result<(), E> {
        match &mut self.book {
            None => Ok(()),
            Some(book) => book.resolve(view, count),
        }
    }
}

#[derive(Clone, Debug)]
struct Bucket {
    per_second: u64,
    burst: u64,
    level: u64,
    filled: Timestamp,
}

impl Bucket {
    fn new(rate: Rate, now: Timestamp) -> Self {
        Self {
            per_second: u64::from(rate.events_per_second.get()),
            burst: rate.burst() * TOKEN,
            level: 0,
            filled: now,
        }
    }

    /// Whole tokens, where they are enough for a batch of what there is; else when they are.
    fn tokens(&mut self, wanted: u64, now: Timestamp) -> Result<u64, Timestamp> {
        // A clock that fell back fills nothing, and goes on from there.
        let passed = now.0.saturating_sub(self.filled.0);
        self.filled = now;
        let come = passed.saturating_mul(self.per_second);
        self.level = self.level.saturating_add(come).min(self.burst);
        let gather =
            (self.per_second.saturating_mul(GATHER_US) / TOKEN).clamp(1, self.burst / TOKEN);
        let enough = wanted.min(gather).saturating_mul(TOKEN);
        if self.level >= enough {
            return Ok(self.level / TOKEN);
        }
        let wait = (enough - self.level).div_ceil(self.per_second);
        Err(Timestamp(now.0.saturating_add(wait)))
    }

    fn take(&mut self, events: u64) {
        debug_assert!(events.saturating_mul(TOKEN) <= self.level);
        self.level = self.level.saturating_sub(events.saturating_mul(TOKEN));
    }
}

#[derive(Clone, Debug)]
struct Lot {
    /// Set aside, in the ledger.
    amount: Amount,
    used: Amount,
    /// On its way to the ledger: what the lot will have then.
    asked: Option<Amount>,
    /// `[from, to)` is charged.
    to: u64,
    /// What was added last: the next is asked for when half of it is left.
    added: Amount,
    /// When it was added.
    since: Timestamp,
}

impl Lot {
    fn left(&self) -> Amount {
        [self.amount[0] - self.used[0], self.amount[1] - self.used[1]]
    }

    /// Whether something of it can be taken back, once it was left alone for long enough.
    fn is_idle(&self) -> bool {
        self.asked.is_none() && self.left() != [0, 0]
    }

    fn kept_until(&self) -> Timestamp {
        Timestamp(self.since.0.saturating_add(KEPT_US))
    }

    /// What counts against the quota.
    fn held(&self) -> Amount {
        self.asked.unwrap_or(self.amount)
    }
}

/// A view, and a position in it.
type Place = (Hash, u64);

#[derive(Clone, Debug)]
struct Book {
    quota: Quota,
    /// Of each, the limit; `u64::MAX` where there is none.
    limit: Amount,
    period: (Timestamp, Timestamp),
    lots: BTreeMap<Place, Lot>,
    /// Views of which it is not known how far their lots reach: they were restored, and nobody has looked through them since.
    unread: BTreeSet<Hash>,
}

impl Book {
    fn new(quota: Quota, now: Timestamp) -> Self {
        Self {
            limit: [quota.events, quota.bytes].map(|limit| limit.unwrap_or(u64::MAX)),
            period: quota.period.around(now),
            lots: BTreeMap::new(),
            unread: BTreeSet::new(),
            quota,
        }
    }

    /// A new period begins with nothing used. A clock that falls back begins none again.
    fn roll(&mut self, now: Timestamp) {
        if now >= self.period.1 {
            self.period = self.quota.period.around(now);
            self.lots.clear();
            self.unread.clear();
        }
    }

    fn room(
        &mut self,
        view: Hash,
        (position, end): (u64, u64),
        next_bytes: u64,
        now: Timestamp,
    ) -> Room {
        self.roll(now);
        let behind = (view, position.saturating_add(1))..=(view, u64::MAX);
        let next_lot = self.lots.range(behind).next();
        let bound = next_lot.map_or(end, |((_, from), _)| end.min(*from));
        match self.lot_before((view, position)).map(|(_, lot)| lot) {
            Some(lot) if position < lot.to => {
                return Room::Go {
                    end: end.min(lot.to),
                    amount: [u64::MAX; 2],
                };
            }
            Some(lot) if position == lot.to => {
                let left = self.limited(lot.left());
                if left[0] > 0 && left[1] >= next_bytes.max(1) {
                    return Room::Go {
                        end: bound,
                        amount: left,
                    };
                }
                if lot.asked.is_some() {
                    return Room::Pending;
                }
            }
            _ => {}
        }
        self.ask((view, position), next_bytes, now)
    }

    /// What is not limited is without end.
    fn limited(&self, left: Amount) -> Amount {
        [0, 1].map(|of| {
            if self.limit[of] == u64::MAX {
                u64::MAX
            } else {
                left[of]
            }
        })
    }

    /// What of the quota is set aside for nobody.
    fn free(&self) -> Amount {
        let held = self.lots.values().map(Lot::held);
        held.fold(self.limit, |free, held| {
            [0, 1].map(|of| free[of].saturating_sub(held[of]))
        })
    }

    /// The last lot of the view that begins here or before.
    fn lot_before(&self, (view, position): Place) -> Option<(Place, &Lot)> {
        let before = (view, 0)..=(view, position);
        self.lots
            .range(before)
            .next_back()
            .map(|(from, lot)| (*from, lot))
    }

    /// The lot that a reader here uses up.
    fn lot_at(&self, place: Place) -> Option<Place> {
        let here = self.lot_before(place);
        here.filter(|(_, lot)| lot.to == place.1)
            .map(|(from, _)| from)
    }

    /// What is needed here, of what is free or what can be taken back elsewhere.
    fn ask(&mut self, place: Place, next_bytes: u64, now: Timestamp) -> Room {
        let from = self.lot_at(place).unwrap_or(place);
        let left = self.lots.get(&from).map_or([0, 0], Lot::left);
        let need = [1, next_bytes.max(1)];
        let short = |free: Amount| {
            [0, 1].map(|of| {
                self.limit[of] != u64::MAX && free[of].saturating_add(left[of]) < need[of]
            })
        };
        let is_short = short(self.free());
        let mut written = Vec::new();
        if is_short.contains(&true) {
            let others = || {
                self.lots
                    .iter()
                    .filter(|(at, _)| **at != from)
                    .map(|(_, lot)| lot)
            };
            let sum = |free: Amount, lot: &Lot| {
                let left = lot.left();
                [0, 1].map(|of| free[of].saturating_add(left[of]))
            };
            let idle = || others().filter(|lot| lot.is_idle());
            let back_now = idle()
                .filter(|lot| lot.kept_until() <= now)
                .fold(self.free(), sum);
            if short(back_now).contains(&true) {
                // Somebody else's may come free once it is written.
                if others().any(|lot| lot.asked.is_some()) {
                    return Room::Pending;
                }
                let still_short = short(idle().fold(self.free(), sum));
                if !still_short.contains(&true) {
                    let soonest = idle()
                        .map(Lot::kept_until)
                        .filter(|until| *until > now)
                        .min();
                    return Room::Others(soonest.unwrap_or(now));
                }
                let limit = if still_short[0] {
                    Limit::QuotaEvents
                } else {
                    Limit::QuotaBytes
                };
                let until = self.period.1;
                return Room::Held { limit, until };
            }
            written = self.take_back(from, now);
        }
        if !self.lots.contains_key(&from) && self.lots.len() >= LOTS_MAX {
            let (limit, until) = (Limit::QuotaEvents, self.period.1);
            return Room::Held { limit, until };
        }
        written.push(self.set_aside(from, place.1, need));
        Room::Ask(written)
    }

    /// What others have set aside and not used.
    fn take_back(&mut self, except: Place, now: Timestamp) -> Vec<Allotment> {
        let period = self.period.0;
        let idle = self
            .lots
            .iter_mut()
            .filter(|(from, lot)| **from != except && lot.is_idle() && lot.kept_until() <= now);
        idle.map(|(from, lot)| {
            lot.amount = lot.used;
            Allotment {
                period,
                view: from.0,
                from: from.1,
                amount: lot.amount,
            }
        })
        .collect()
    }

    /// An eighth of what is free, and at least what is needed, on top of what the lot has.
    fn set_aside(&mut self, from: Place, position: u64, need: Amount) -> Allotment {
        let free = self.free();
        let limit = self.limit;
        let lot = self.lots.entry(from).or_insert(Lot {
            amount: [0, 0],
            used: [0, 0],
            asked: None,
            to: position,
            added: [0, 0],
            since: Timestamp(0),
        });
        let left = lot.left();
        let amount = [0, 1].map(|of| {
            if limit[of] == u64::MAX {
                return 0;
            }
            let needed = need[of].saturating_sub(left[of]);
            let more = (free[of] / 8)
                .clamp(1, LOT_MAX[of])
                .max(needed)
                .min(free[of]);
            lot.amount[of] + more
        });
        lot.asked = Some(amount);
        Allotment {
            period: self.period.0,
            view: from.0,
            from: from.1,
            amount,
        }
    }

    fn hand_out(&mut self, view: Hash, (first, to): (u64, u64), used: Amount) -> Option<Allotment> {
        let from = self.lot_at((view, first))?;
        let limit = self.limit;
        let lot = self.lots.get_mut(&from)?;
        lot.to = to;
        for of in [0, 1] {
            if limit[of] != u64::MAX {
                // INVARIANT: `room` allowed no more than was left.
                debug_assert!(lot.used[of] + used[of] <= lot.amount[of]);
                lot.used[of] = lot.amount[of].min(lot.used[of].saturating_add(used[of]));
            }
        }
        let left = lot.left();
        let low = [0, 1].map(|of| limit[of] != u64::MAX && left[of] < lot.added[of] / 2);
        if lot.asked.is_some() || !low.contains(&true) {
            return None;
        }
        let free = self.free();
        let is_free = [0, 1].map(|of| limit[of] == u64::MAX || free[of] > 0);
        (!is_free.contains(&false)).then(|| self.set_aside(from, to, [1, 1]))
    }

    fn answered(&mut self, asked: &Allotment, written: bool, now: Timestamp) {
        if asked.period != self.period.0 {
            return;
        }
        if let Some(lot) = self.lots.get_mut(&(asked.view, asked.from))
            && lot.asked == Some(asked.amount)
        {
            lot.asked = None;
            if written {
                lot.added = [0, 1].map(|of| asked.amount[of].saturating_sub(lot.amount[of]));
                lot.amount = asked.amount;
                lot.since = now;
            }
        }
    }

    fn give_back(&mut self, place: Place) -> Option<Allotment> {
        let from = self.lot_at(place)?;
        let lot = self.lots.get_mut(&from)?;
        if lot.asked.is_some() || lot.left() == [0, 0] {
            return None;
        }
        lot.amount = lot.used;
        Some(Allotment {
            period: self.period.0,
            view: from.0,
            from: from.1,
            amount: lot.amount,
        })
    }

    fn restore(&mut self, allotments: &[Allotment]) {
        for allotment in allotments {
            // A period that is ahead of a clock that fell back goes on.
            if allotment.period > self.period.0 {
                self.period = self.quota.period.around(allotment.period);
                self.lots.clear();
                self.unread.clear();
            }
            if allotment.period == self.period.0 {
                let lot = Lot {
                    amount: allotment.amount,
                    used: allotment.amount,
                    asked: None,
                    to: allotment.from,
                    added: [0, 0],
                    since: Timestamp(0),
                };
                self.lots.insert((allotment.view, allotment.from), lot);
                self.unread.insert(allotment.view);
            }
        }
    }

    fn resolve<E>(
        &mut self,
        view: Hash,
        mut count: impl FnMut((u64, u64), Amount) -> Result<(u64, Amount), E>,
    ) -> Result<(), E> {
        if !self.unread.contains(&view) {
            return Ok(());
        }
        let of_view = (view, 0)..=(view, u64::MAX);
        let starts: Vec<u64> = self
            .lots
            .range(of_view)
            .map(|((_, from), _)| *from)
            .collect();
        let bounds = starts.iter().copied().skip(1).chain([u64::MAX]);
        for (from, bound) in starts.iter().copied().zip(bounds) {
            let limit = self.limit;
            let Some(lot) = self.lots.get_mut(&(view, from)) else {
                continue;
            };
            let amount = [0, 1].map(|of| {
                if limit[of] == u64::MAX {
                    u64::MAX
                } else {
                    lot.amount[of]
                }
            });
            let (to, used) = count((from, bound), amount)?;
            lot.to = to;
            lot.used = [0, 1].map(|of| {
                if limit[of] == u64::MAX {
                    0
                } else {
                    used[of].min(lot.amount[of])
                }
            });
        }
        self.unread.remove(&view);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
