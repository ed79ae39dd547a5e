//! Successors of ledger logs: `schemas/ledger.md`, and `docs/decisions/0019-ledger-logs-have-successors.md`.

use std::sync::{Arc, PoisonError};

use countersign_event::documents::Digest;
use countersign_event::names::Origin;
use countersign_store::journal::LogKind;

use super::{Exchange, ExchangeError};
use crate::log::{Cites, Log, LogSettings};
use crate::restored::Freeze;

impl Exchange {
    /// Which generation of each ledger log is current: the last one by its name.
    pub(super) fn recall_successors(&self) {
        let mut ledgers = self.logs();
        ledgers.retain(|log| log.kind() == LogKind::Ledger);
        // In the order of their names, so that the last one stays.
        self.successors_mut(|successors| {
            for log in ledgers {
                let first = log.origin().first_generation();
                if first != *log.origin() {
                    successors.insert(first, log);
                }
            }
        });
    }

    /// The ledger log that is written now, by the name of its first generation.
    pub(crate) fn current_ledger(&self, first: &Origin) -> Option<Arc<Log>> {
        let successors = self.successors.read();
        let successors = successors.unwrap_or_else(PoisonError::into_inner);
        successors.get(first).cloned().or_else(|| self.log(first))
    }

    /// All ledger logs that are written now.
    pub(crate) fn current_ledgers(&self) -> Vec<Arc<Log>> {
        let mut ledgers = self.logs();
        ledgers.retain(|log| self.is_current_ledger(log));
        ledgers
    }

    pub(crate) fn is_current_ledger(&self, log: &Log) -> bool {
        log.kind() == LogKind::Ledger
            && self
                .current_ledger(&log.origin().first_generation())
                .is_some_and(|current| current.origin() == log.origin())
    }

    /// Gives every ledger log a successor: what is here may be older than what others know.
    pub(crate) async fn succeed_ledgers(self: &Arc<Self>) -> Result<(), ExchangeError> {
        for log in self.current_ledgers() {
            self.succeed_ledger(&log).await?;
        }
        Ok(())
    }

    /// The same, where a running node finds out. Until the successors are there nothing is recorded, and what needs a record is refused.
    pub(crate) fn succeed_ledgers_soon(self: &Arc<Self>) {
        let ledgers = self.current_ledgers();
        for log in &ledgers {
            log.change_freeze(Freeze::succeed);
        }
        let exchange = Arc::clone(self);
        tokio::spawn(async move {
            for log in ledgers {
                if let Err(error) = exchange.succeed_ledger(&log).await {
                    tracing::error!(origin = %log.origin(), %error, "a ledger log has no successor, and takes no entries: restart this node");
                }
            }
        });
    }

    async fn succeed_ledger(self: &Arc<Self>, log: &Arc<Log>) -> Result<(), ExchangeError> {
        let _succeeding = self.succeeding.lock().await;
        if !self.is_current_ledger(log) {
            return Ok(());
        }
        // From here on it takes no entries: what the successor cites is the end of it.
        log.change_freeze(Freeze::succeed);
        self.writer.flush().await;
        let head = log.head();
        let mut salt = [0; 4];
        self.with_entropy(|entropy| entropy.fill(&mut salt));
        let Some(origin) = log.origin().successor(salt) else {
            return Err(ExchangeError::Proof(
                "a ledger log has 9,999 generations at most".to_owned(),
            ));
        };
        let settings = LogSettings {
            cites: Some(Cites {
                origin: log.origin().clone(),
                size: head.size,
                root: Digest(head.root),
            }),
            ..LogSettings::default()
        };
        let new = self.add_own_log(LogKind::Ledger, &origin, settings).await?;
        tracing::info!(old = %log.origin(), new = %origin, entries = head.size, "a ledger log has a successor");
        let first = origin.first_generation();
        self.successors_mut(|successors| successors.insert(first, new));
        self.ledger_moved.send_modify(|moved| *moved += 1);
        Ok(())
    }
}
