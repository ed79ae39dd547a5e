//! The allowance of one agreement, shared by its sessions, and its way to the ledger.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_crypto::Hash;
use countersign_event::documents::{AgreementId, Digest};
use countersign_event::entry::ENTRY_BYTES;
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::{Authority, Origin};
use countersign_event::time::Timestamp;
use countersign_store::journal::Run;
use countersign_store::ledger::EntryFilter;
use tokio::sync::watch;

use super::allowance::{Allotment, Allowance, Amount};
use crate::{AgreementState, Exchange, ExchangeError, Log};

/// The view without a filter.
pub(super) const ALL: Hash = [0; 32];

/// How long before a period its first entries are looked for: an entry has the log's time, which does not fall back with the clock. In microseconds.
const SLACK_US: u64 = 3_600_000_000;

/// Entries of the ledger read at a time.
const PAGE: u32 = 1_000;

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
    /// The budget of an agreement; `None` where its plan limits neither rate nor quota.
    ///
    /// # Errors
    /// Where the ledger or the log cannot be read.
    pub(super) async fn budget(
        &self,
        state: &AgreementState,
        log: &Log,
    ) -> Result<Option<Arc<Budget>>, ExchangeError> {
        let terms = &state.agreement;
        let now = self.clock().now();
        let Some(mut allowance) = Allowance::new(&terms.plan, now) else {
            return Ok(None);
        };
        // One at a time: two that are made of the ledger at once would each count for itself.
        let mut budgets = self.budgets.lock().await;
        if let Some(budget) = budgets.get(&terms.id) {
            return Ok(Some(Arc::clone(budget)));
        }
        if let Some(period) = allowance.period() {
            let allotments = self.allotments(state, period).await?;
            allowance.restore(&allotments, |view, range, amount| match view {
                ALL => self.reach(log, range, amount),
                // How far it reached is not counted again: all of it is taken for used.
                _ => Ok((range.0, amount)),
            })?;
        }
        let budget = Arc::new(Budget {
            agreement: terms.id,
            consumer: terms.consumer.authority.clone(),
            stream: terms.stream.clone(),
            allowance: Mutex::new(allowance),
            moved: watch::Sender::new(0),
        });
        budgets.insert(terms.id, Arc::clone(&budget));
        Ok(Some(budget))
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

    /// How far an amount of events and bytes reaches in `[from, to)`, and how much is in there.
    pub(super) fn reach(
        &self,
        log: &Log,
        (from, to): (u64, u64),
        amount: Amount,
    ) -> Result<(u64, Amount), ExchangeError> {
        let to = to.min(log.size());
        let (mut next, mut used) = (from, [0, 0]);
        while next < to {
            let before = next;
            let count = (to - next).min(READ.0);
            for run in self.reader().read(log.number(), next, count, READ.1)? {
                for bytes in data_bytes(&run) {
                    let event = bytes.map_or([0, 0], |bytes| [1, bytes]);
                    let more = [0, 1].map(|of| used[of] + event[of]);
                    if more[0] > amount[0] || more[1] > amount[1] {
                        return Ok((next, used));
                    }
                    used = more;
                    next += 1;
                }
            }
            if next == before {
                return Err(super::deliver::unreadable(log, next));
            }
        }
        Ok((next, used))
    }
}

/// Data bytes of each entry; `None` for control entries, which nothing is charged for.
fn data_bytes(run: &Run) -> impl Iterator<Item = Option<u64>> {
    run.entries.chunks_exact(ENTRY_BYTES).map(|entry| {
        let data = u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]);
        (entry[1] & 0x0f == 0).then_some(u64::from(data))
    })
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
