//! The allowance of one agreement, shared by its sessions, and its way to the ledger.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_crypto::Hash;
use countersign_event::documents::{AgreementId, Digest};
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::{Authority, Origin};
use countersign_event::time::Timestamp;
use countersign_filter::Filter;
use countersign_store::journal::StoredEntry;
use countersign_store::ledger::EntryFilter;
use tokio::sync::watch;

use super::allowance::{Allotment, Allowance, Amount};
use super::deliver::of_entry;
use super::filtering::{Passes, Work};
use crate::{AgreementState, Exchange, ExchangeError, Log};

/// The view without a filter.
const ALL: Hash = [0; 32];

/// What is charged for itself: what one filter leaves of a log, or all of it.
pub(super) fn view_of(filter: Option<&Filter>) -> Hash {
    filter.map_or(ALL, Filter::digest)
}

/// How long before a period its first entries are looked for: an entry has the log's time, which does not fall back with the clock. In microseconds.
const SLACK_US: u64 = 3_600_000_000;

/// Entries of the ledger read at a time.
const PAGE: u32 = 1_000;

/// Entries of the log read at first, where the next one may be the last that is looked at.
const READ_FIRST: u64 = 16;

/// Entries of the log read at a time, and bytes of their content.
const READ: (u64, u64) = (4_096, 8 << 20);

/// Rate and quota of one agreement.
pub(crate) struct Budget {
    agreement: AgreementId,
    consumer: Authority,
    stream: Origin,
    allowance: Mutex<Allowance>,
    /// Moves when something that was asked for is in the ledger.
    moved: watch::Sender<u64>,
}

impl Exchange {
    /// The budget of an agreement, for a session under a filter or none; `None` where its plan limits neither rate nor quota.
    ///
    /// # Errors
    /// Where the ledger or the log cannot be read.
    pub(super) async fn budget(
        &self,
        state: &AgreementState,
        log: &Log,
        filter: Option<&Filter>,
    ) -> Result<Option<Arc<Budget>>, ExchangeError> {
        let terms = &state.agreement;
        let now = self.clock().now();
        let Some(mut allowance) = Allowance::new(&terms.plan, now) else {
            return Ok(None);
        };
        // One at a time: two that are made of the ledger at once would each count for itself.
        let mut budgets = self.budgets.lock().await;
        if let Some(budget) = budgets.get(&terms.id).map(Arc::clone) {
            drop(budgets);
            self.resolve(&budget, log, filter).await?;
            return Ok(Some(budget));
        }
        if let Some(period) = allowance.period() {
            allowance.restore(&self.allotments(state, period).await?);
        }
        let budget = Arc::new(Budget {
            agreement: terms.id,
            consumer: terms.consumer.authority.clone(),
            stream: terms.stream.clone(),
            allowance: Mutex::new(allowance),
            moved: watch::Sender::new(0),
        });
        self.resolve(&budget, log, None).await?;
        budgets.insert(terms.id, Arc::clone(&budget));
        drop(budgets);
        self.resolve(&budget, log, filter).await?;
        Ok(Some(budget))
    }

    /// What a filter's readers had set aside before this node was started is only understood with their filter. It is counted beside the allowance, which others
    /// need meanwhile: what it lacks is looked up, and it is asked again.
    async fn resolve(
        &self,
        budget: &Budget,
        log: &Log,
        filter: Option<&Filter>,
    ) -> Result<(), ExchangeError> {
        let charged = filter.map_or(Charged::All, Charged::PassingOrErased);
        let mut known = BTreeMap::new();
        loop {
            let resolved = budget
                .allowance()
                .resolve(view_of(filter), |range, amount| {
                    let reached = known.get(&(range, amount)).copied();
                    reached.ok_or((range, amount))
                });
            let Err((range, amount)) = resolved else {
                return Ok(());
            };
            let reached = self.reach_in_turns(log, range, amount, charged).await?;
            known.insert((range, amount), reached);
        }
    }

    /// As [`Exchange::reach`], to the end: others have their turn in between.
    async fn reach_in_turns(
        &self,
        log: &Log,
        (from, to): (u64, u64),
        amount: Amount,
        charged: Charged<'_>,
    ) -> Result<(u64, Amount), ExchangeError> {
        let (mut next, mut used) = (from, [0, 0]);
        loop {
            let mut work = Work::new();
            let left = [0, 1].map(|of| amount[of] - used[of]);
            let (reached, more) = self.reach(log, (next, to), left, charged, &mut work)?;
            used = [0, 1].map(|of| used[of] + more[of]);
            next = reached;
            if !work.is_used_up() {
                return Ok((next, used));
            }
            work.rest().await;
        }
    }

    /// What the ledger says was set aside in a period, or in one that began later.
    async fn allotments(
        &self,
        state: &AgreementState,
        period: Timestamp,
    ) -> Result<Vec<Allotment>, ExchangeError> {
        self.catch_up_view().await?;
        let terms = &state.agreement;
        let mut filter = EntryFilter {
            partner: Some(terms.consumer.authority.clone()),
            stream: Some(terms.stream.clone()),
            kind: Some("allotment".to_owned()),
            since: Some(Timestamp(period.0.saturating_sub(SLACK_US))),
            ..EntryFilter::default()
        };
        let mut found = Vec::new();
        loop {
            let page = self.view().entries(&filter, PAGE).await?;
            for row in &page {
                if let Some(LedgerRecord::Allotment {
                    agreement,
                    period,
                    filter,
                    from,
                    events,
                    bytes,
                    ..
                }) = row.record()?
                    && agreement == terms.id
                {
                    found.push(Allotment {
                        period,
                        view: filter.map_or(ALL, |digest| digest.0),
                        from,
                        amount: [events, bytes],
                    });
                }
            }
            filter.after = page.last().map(|row| row.key());
            if page.len() < PAGE as usize {
                return Ok(found);
            }
        }
    }

    /// How far an amount of events and bytes reaches in `[from, to)`, and how much is in there. It ends earlier, but behind one entry at least, where `work` is used up.
    pub(super) fn reach(
        &self,
        log: &Log,
        (from, to): (u64, u64),
        amount: Amount,
        charged: Charged<'_>,
        work: &mut Work,
    ) -> Result<(u64, Amount), ExchangeError> {
        let to = to.min(log.size());
        let (mut next, mut used, mut count) = (from, [0, 0], READ_FIRST);
        while next < to {
            let before = next;
            let count_now = (to - next).min(count);
            for run in self.reader().read(log.number(), next, count_now, READ.1)? {
                for stored in run.iter() {
                    let costs = charged.costs(&stored, work);
                    let more = [0, 1].map(|of| used[of] + costs[of]);
                    if more[0] > amount[0] || more[1] > amount[1] {
                        return Ok((next, used));
                    }
                    used = more;
                    next += 1;
                    if work.is_used_up() {
                        return Ok((next, used));
                    }
                }
            }
            if next == before {
                return Err(super::deliver::unreadable(log, next));
            }
            count = (count * 4).min(READ.0);
        }
        Ok((next, used))
    }
}

/// Which events are charged. Control entries never are.
#[derive(Clone, Copy)]
pub(super) enum Charged<'a> {
    /// All.
    All,
    /// What passes a filter.
    Passing(&'a Filter),
    /// The same and those whose content is gone: they may have passed, and were charged then.
    PassingOrErased(&'a Filter),
}

impl Charged<'_> {
    /// What is charged for an entry.
    fn costs(self, stored: &StoredEntry<'_>, work: &mut Work) -> Amount {
        let is_charged = match self {
            Self::All => stored.entry[1] & 0x0f == 0,
            Self::Passing(filter) => matches!(work.judge(filter, stored), Passes::Whole),
            Self::PassingOrErased(filter) => {
                matches!(work.judge(filter, stored), Passes::Whole | Passes::Unknown)
            }
        };
        if is_charged {
            of_entry(stored.entry).into()
        } else {
            [0, 0]
        }
    }
}

impl Budget {
    /// The allowance. Held while a batch is put together, so that two sessions do not use the same.
    pub(super) fn allowance(&self) -> MutexGuard<'_, Allowance> {
        // A panic while the lock was held left numbers that allow too little rather than too much.
        self.allowance
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes when what was asked for is there.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    /// Writes what was set aside to the ledger, in this order.
    pub(super) fn write(self: &Arc<Self>, exchange: &Arc<Exchange>, allotments: Vec<Allotment>) {
        for allotment in allotments {
            let Allotment {
                period,
                view,
                from,
                amount: [events, bytes],
            } = allotment;
            let record = LedgerRecord::Allotment {
                agreement: self.agreement,
                stream: self.stream.clone(),
                period,
                filter: (view != ALL).then_some(Digest(view)),
                from,
                events,
                bytes,
            };
            let (budget, clock) = (Arc::clone(self), Arc::clone(exchange.clock()));
            let done = move |written: bool| {
                let now = clock.now();
                budget.allowance().answered(&allotment, written, now);
                budget.moved.send_modify(|moved| *moved += 1);
            };
            exchange.record_then(Some(self.consumer.clone()), record, Box::new(done));
        }
    }
}
