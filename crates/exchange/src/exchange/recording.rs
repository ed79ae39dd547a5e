//! Writing to the ledger.

use std::sync::{Arc, PoisonError};

use countersign_event::ledger::LedgerRecord;
use countersign_event::names::{Authority, Origin};
use countersign_store::journal::LogKind;
use tokio::sync::oneshot;

use super::{Exchange, ExchangeError};
use crate::log::{Log, LogSettings};
use crate::pipeline::append::{AppendError, Appended, Done, answer};
use crate::pipeline::ledger::seal_record;

/// Records that wait for their ledger log to take them.
const OWED_MAX: usize = 1_000;

impl Exchange {
    /// Appends a record to the ledger log of a counterparty (or the node's own) with the next commit. What says that somebody lied is tried again where that fails
    /// ([`Exchange::record_owed`]): what is held in memory by then is met no second time as news.
    pub(crate) fn record_lazily(self: &Arc<Self>, about: Option<Authority>, record: LedgerRecord) {
        let exchange = Arc::clone(self);
        let again = is_owed(&record).then(|| (about.clone(), record.clone()));
        let ready = exchange.ledger_log(about.as_ref());
        match ready {
            Some(log) => {
                let owing = Arc::clone(self);
                let done: Done = Box::new(move |result| {
                    if let Err(error) = result {
                        owing.owe(again, &error.into());
                    }
                });
                exchange.append_record(log, record, done);
            }
            None => {
                tokio::spawn(async move {
                    if let Err(error) = exchange.record_and_wait(about, record).await {
                        exchange.owe(again, &error);
                    }
                });
            }
        }
    }

    fn owe(&self, again: Option<(Option<Authority>, LedgerRecord)>, error: &ExchangeError) {
        tracing::warn!(%error, again = again.is_some(), "a ledger record could not be written");
        let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        if owed.len() < OWED_MAX {
            owed.extend(again);
        }
    }

    /// Tries again to write what the ledger did not take: a log that has a successor since, a disk that was full. Called once a second.
    pub fn record_owed(self: &Arc<Self>) {
        let owed = {
            let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *owed)
        };
        for (about, record) in owed {
            self.record_lazily(about, record);
        }
    }

    /// Appends a record with the next commit, and says then whether it is integrated. Several to one ledger log that is there stay in their order.
    pub(crate) fn record_then(
        self: &Arc<Self>,
        about: Option<Authority>,
        record: LedgerRecord,
        then: Box<dyn FnOnce(bool) + Send>,
    ) {
        match self.ledger_log(about.as_ref()) {
            Some(log) => self.append_record(
                log,
                record,
                Box::new(|result: Result<_, _>| then(result.is_ok())),
            ),
            None => {
                let exchange = Arc::clone(self);
                tokio::spawn(async move {
                    then(exchange.record_and_wait(about, record).await.is_ok());
                });
            }
        }
    }

    /// Appends a record and waits until it is integrated. It rides on the next commit, at the latest after a moment.
    ///
    /// # Errors
    /// [`AppendError`], [`RecordError`].
    pub(crate) async fn record_and_wait(
        self: &Arc<Self>,
        about: Option<Authority>,
        record: LedgerRecord,
    ) -> Result<(), ExchangeError> {
        let durable = self.queue_record(about.as_ref(), record).await?;
        durable
            .await
            .unwrap_or_else(|_| Err(AppendError::ended()))?;
        Ok(())
    }

    /// Queues a record; what comes back resolves when it is integrated.
    ///
    /// # Errors
    /// [`AppendError`] where the ledger log cannot be begun.
    pub(crate) async fn queue_record(
        self: &Arc<Self>,
        about: Option<&Authority>,
        record: LedgerRecord,
    ) -> Result<oneshot::Receiver<Result<Appended, AppendError>>, ExchangeError> {
        let log = match self.ledger_log(about) {
            Some(log) => log,
            None => self.begin_ledger(about).await?,
        };
        let (done, receiver) = answer();
        self.append_record(log, record, done);
        Ok(receiver)
    }

    /// Keeps a time-stamp token over a checkpoint of a stream in the node's ledger, until it is integrated. Whoever calls has verified both.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn keep_timestamp(
        self: &Arc<Self>,
        stream: Origin,
        checkpoint: String,
        token: String,
    ) -> Result<(), ExchangeError> {
        let record = LedgerRecord::Timestamp {
            stream,
            checkpoint,
            token,
        };
        self.record_and_wait(None, record).await
    }

    async fn begin_ledger(
        self: &Arc<Self>,
        about: Option<&Authority>,
    ) -> Result<Arc<Log>, ExchangeError> {
        let own = self.identity().authority();
        let origin = about.map_or_else(
            || Origin::of_node_ledger(own),
            |about| Origin::of_ledger(own, about),
        );
        self.add_own_log(LogKind::Ledger, &origin, LogSettings::default())
            .await
    }

    fn ledger_log(&self, about: Option<&Authority>) -> Option<Arc<Log>> {
        let own = self.identity().authority();
        let origin = about.map_or_else(
            || Origin::of_node_ledger(own),
            |about| Origin::of_ledger(own, about),
        );
        self.current_ledger(&origin)
    }

    /// The registry moves on when the record is integrated, before anybody is told.
    fn append_record(self: &Arc<Self>, log: Arc<Log>, record: LedgerRecord, done: Done) {
        let sealed = match self.with_entropy(|entropy| seal_record(log.origin(), &record, entropy))
        {
            Ok(sealed) => sealed,
            Err(error) => {
                tracing::warn!(%error, kind = record.kind(), "a ledger record could not be sealed");
                return done(Err(AppendError::Stopped {
                    why: error.to_string(),
                }));
            }
        };
        let exchange = Arc::clone(self);
        let then: Done = Box::new(move |result| {
            if result.is_ok() {
                exchange
                    .registry
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .apply(&record);
                exchange.keyring.learn(&record);
                exchange.exclude_ended(&record);
                if changes_access(&record) {
                    exchange.access_changed();
                }
            }
            exchange.receipt_landed(&record);
            exchange.ledger_moved.send_modify(|moved| *moved += 1);
            done(result);
        });
        self.writer.append_lazily(log, sealed, then);
    }
}

/// Whether a record is tried again until the ledger has it.
fn is_owed(record: &LedgerRecord) -> bool {
    matches!(
        record,
        LedgerRecord::Contradiction { .. } | LedgerRecord::Fault { .. }
    )
}

fn changes_access(record: &LedgerRecord) -> bool {
    matches!(
        record,
        LedgerRecord::Agreement { .. }
            | LedgerRecord::AgreementStep { .. }
            | LedgerRecord::App { .. }
            | LedgerRecord::Contradiction { .. }
            | LedgerRecord::KeyRevocation { .. }
            | LedgerRecord::KeyStatement { .. }
            | LedgerRecord::Region { .. }
            | LedgerRecord::Revocation { .. }
            | LedgerRecord::Termination { .. }
    )
}
