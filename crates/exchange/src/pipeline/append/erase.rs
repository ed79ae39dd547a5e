//! Erasing: the way to the writer's thread, and what it does there. The control entry and the erasure are one commit; overwriting goes on in
//! pieces between commits, so that no publisher waits for more than one of them.

use std::sync::Arc;

use countersign_store::journal::{EraseError, Erasure};
use tokio::sync::oneshot;

use super::state::State;
use super::{AppendError, Appended, Question, Work, Writer, answer};
use crate::log::Log;
use crate::pipeline::seal::SealedBatch;

/// Bytes overwritten between two commits: about as long as the commit of [`super::COMMIT_BYTES_MAX`] takes.
const STEP_BYTES: u64 = 2 << 20;

/// What is erased with a commit.
pub(super) struct Erase {
    /// The control entry that allows it; `None` in a copy, which has it already.
    pub(super) sealed: Option<SealedBatch>,
    pub(super) first: u64,
    pub(super) end: u64,
    /// Its sequence, in a copy.
    pub(super) by: u64,
}

/// Told when nothing erased is left in the segments.
pub(super) type ErasedReply = oneshot::Sender<Result<(), AppendError>>;

impl Writer {
    /// Appends a control entry to a log of ours and erases the content of events `first..end` with it. Durable when this returns; from then on
    /// nobody reads that content. Returns the control entry's sequence.
    ///
    /// # Errors
    /// [`AppendError`]: then nothing is erased.
    pub async fn erase(
        &self,
        log: Arc<Log>,
        sealed: SealedBatch,
        first: u64,
        end: u64,
    ) -> Result<u64, AppendError> {
        let sealed = Some(sealed);
        let erase = Erase {
            sealed,
            first,
            end,
            by: 0,
        };
        Ok(self.send_erase(log, erase).await?.last_sequence)
    }

    /// Erases the content of events `first..end` of a copy, as its entry `by` allows.
    ///
    /// # Errors
    /// [`AppendError`]: then nothing is erased.
    pub async fn erase_in_copy(
        &self,
        log: Arc<Log>,
        first: u64,
        end: u64,
        by: u64,
    ) -> Result<(), AppendError> {
        let erase = Erase {
            sealed: None,
            first,
            end,
            by,
        };
        self.send_erase(log, erase).await.map(drop)
    }

    async fn send_erase(&self, log: Arc<Log>, erase: Erase) -> Result<Appended, AppendError> {
        let (done, receiver) = answer();
        self.send(Work::Erase { log, erase, done });
        receiver.await.unwrap_or_else(|_| Err(AppendError::ended()))
    }

    /// Waits until nothing that was erased before is left in the segments.
    ///
    /// # Errors
    /// [`AppendError`] where some of it could not be overwritten: it is refused to readers, and the next start tries again.
    pub async fn overwritten(&self) -> Result<(), AppendError> {
        let (reply, receiver) = oneshot::channel();
        self.send(Work::Ask(Question::Overwritten { reply }));
        receiver.await.unwrap_or_else(|_| Err(AppendError::ended()))
    }
}

impl State {
    /// Whether content waits to be overwritten, and can be.
    pub(super) fn is_erasing(&self) -> bool {
        self.stopped.get().is_none() && self.journal.as_ref().is_some_and(|j| j.is_erasing())
    }

    /// Answers at once where nothing waits.
    pub(super) fn when_overwritten(&mut self, reply: ErasedReply) {
        if self.is_erasing() {
            self.erased_replies.push(reply);
            return;
        }
        let failed = self
            .stopped
            .get()
            .map(|why| AppendError::Stopped { why: why.clone() });
        let _ = reply.send(failed.map_or(Ok(()), Err));
    }

    /// Overwrites a piece of what waits.
    pub(super) fn overwrite_some(&mut self) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        let result = match journal.erase_some(STEP_BYTES) {
            Ok(true) => return,
            Ok(false) => Ok(()),
            Err(error @ EraseError::Commit(_)) => {
                let why = error.to_string();
                tracing::error!(%why, "appending has stopped");
                let _ = self.stopped.set(why.clone());
                Err(AppendError::Stopped { why })
            }
            Err(error) => {
                tracing::error!(%error, "erased content could not be overwritten; it is refused to readers, and the next start tries again");
                Err(AppendError::NotOverwritten {
                    why: error.to_string(),
                })
            }
        };
        for reply in self.erased_replies.drain(..) {
            let _ = reply.send(result.clone());
        }
    }
}

/// What a part takes along.
pub(super) fn erasure(erase: &Erase, by: u64) -> Erasure {
    Erasure {
        first: erase.first,
        end: erase.end,
        by,
    }
}
