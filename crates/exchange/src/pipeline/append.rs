//! Append: [`SealedBatch`] → integrated: durable, sequenced, in the chain, under a signed checkpoint.
//!
//! One thread owns the journal. It takes all that waits, for every log together, gives each entry its sequence, link and time, commits with one
//! write and one sync, then signs one checkpoint for each touched log of ours, and answers a log's publishers once its own is signed. While it syncs
//! and signs, the next commit gathers: batches grow with the load. With many busy streams the next commit waits up to [`COMMIT_DELAY_MAX`], so that
//! signatures take [one part in eight](SIGNING_SHARE) of the writer's time instead of eating the machine.
//!
//! This file is the way to that thread; `append/state.rs` is what it does, `append/stage.rs` how one commit is put together.

mod erase;
mod sealing;
mod stage;
mod state;

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use countersign_protocol::delivery::VerifiedBatch;
use countersign_store::journal::{Birth, Erasure, Journal, JournalReader, LogNumber};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::duplicates::Publisher;
use super::seal::SealedBatch;
use crate::clock::{Clock, ClockJump};
use crate::identity::LogSigner;
use crate::keyring::Keyring;
use crate::log::Log;

/// Bytes waiting for the writer, all logs together. Whoever brings more waits; memory is bounded by this and by one commit.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Bytes of one commit: large enough that the sync vanishes (0.1 ms beside 1 ms of writing), small enough for latency and to stay in a core's caches.
pub const COMMIT_BYTES_MAX: usize = 2 << 20;

/// How long an entry that forces no sync of its own (ledger) waits for a commit to ride on.
pub const LAZY_DELAY: Duration = Duration::from_millis(20);

/// What one checkpoint signature takes: 13 to 20 µs on the machines measured. A constant, not a measurement, so that the interval does not depend on
/// what else the machine does.
pub const SIGNATURE_TIME: Duration = Duration::from_micros(16);

/// Signing takes one of so many parts of the writer's time, until [`COMMIT_DELAY_MAX`] is reached: the next commit begins so many times
/// the signatures' time after the last one began. One log: 128 µs, less than a sync takes; 100 logs: 12.8 ms; from some 400 on the bound holds.
pub const SIGNING_SHARE: u32 = 8;

/// How long after the end of a commit the next one waits at most, so that each log brings more under its signature. What waits for it waits this long
/// more than without, once: the price of many busy logs.
pub const COMMIT_DELAY_MAX: Duration = Duration::from_millis(50);

/// Where a batch ended up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Appended {
    /// Sequence of its last event.
    pub last_sequence: u64,
    /// How many of its events had been handed in before.
    pub duplicates: u32,
    /// How many events it has.
    pub count: u32,
}

/// Why a batch was not appended. Nothing of it was.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AppendError {
    /// Too many publishers in one commit.
    #[error("too many publishers hand in at once; try again in a moment")]
    Busy,
    /// The clock is not believable.
    #[error(transparent)]
    Clock(#[from] ClockJump),
    /// Another event has this number or identity.
    #[error(
        "another event is stored at sequence {sequence} under the same number or (source, id): event {index} of the batch differs from it"
    )]
    Conflict {
        /// Place in the batch.
        index: usize,
        /// Where the first one lies.
        sequence: u64,
    },
    /// The disk is full; reads go on, and writing resumes by itself once there is room.
    #[error("the disk is full: nothing was stored; it can be tried again once there is room")]
    DiskFull,
    /// Numbers were skipped.
    #[error(
        "the batch begins with number {found}, the series goes on with {expected} here: what lies between was never handed in, or its numbers were lost when this node was restored from a backup; then look which of these events the stream holds (`countersign stream tail`), and hand in the others, and what follows, in a new series"
    )]
    Gap {
        /// The next number.
        expected: u64,
        /// The batch's first.
        found: u64,
    },
    /// The stream takes no entries for the time being.
    #[error(
        "the stream is frozen and takes no entries: `countersign stream info STREAM` says why, and what ends it"
    )]
    Frozen,
    /// Erased content is refused to readers, and still on the disk.
    #[error("erased content is not overwritten yet: {why}; the next start of the node tries again")]
    NotOverwritten {
        /// What failed.
        why: String,
    },
    /// Handed in before, so long ago that only the series' last number is known.
    #[error(
        "already stored: the series is stored up to number {last_number}, at sequence {last_sequence}"
    )]
    Old {
        /// Its last number.
        last_number: u64,
        /// Its sequence.
        last_sequence: u64,
    },
    /// The copy does not end where the batch begins: somebody else extended it.
    #[error("the copy has {size} entries and cannot take a batch that begins at {first}")]
    Position {
        /// Entries in the copy.
        size: u64,
        /// First of the batch.
        first: u64,
    },
    /// Appending has stopped after a failure of the disk or of an invariant.
    #[error("appending has stopped: {why}; restart the node, which re-reads what is on the disk")]
    Stopped {
        /// What failed.
        why: String,
    },
}

impl AppendError {
    /// The writer's thread is gone.
    #[must_use]
    pub fn ended() -> Self {
        Self::Stopped {
            why: "the writer has ended".to_owned(),
        }
    }
}

/// Called once a batch is integrated or refused. Runs on the writer's thread: it only hands the answer on.
pub type Done = Box<dyn FnOnce(Result<Appended, AppendError>) + Send>;

enum Work {
    Append {
        log: Arc<Log>,
        sealed: SealedBatch,
        publisher: Option<(Publisher, u64)>,
        lazy: bool,
        done: Done,
        permit: Option<OwnedSemaphorePermit>,
    },
    Copy {
        log: Arc<Log>,
        batch: Box<VerifiedBatch>,
        cover: Vec<u8>,
        erasures: Vec<Erasure>,
        done: Done,
        permit: Option<OwnedSemaphorePermit>,
    },
    Erase {
        log: Arc<Log>,
        erase: erase::Erase,
        done: Done,
    },
    NewEpoch {
        log: Arc<Log>,
        done: Done,
    },
    Ask(Question),
}

/// What is answered between commits.
enum Question {
    OpenLog {
        birth: Birth,
        reply: oneshot::Sender<Result<LogNumber, AppendError>>,
    },
    SeriesState {
        log: LogNumber,
        publisher: Publisher,
        reply: oneshot::Sender<(u64, u64)>,
    },
    Overwritten {
        reply: erase::ErasedReply,
    },
    ConfirmClock,
    Rekey {
        signer: Box<LogSigner>,
        reply: oneshot::Sender<()>,
    },
    Flush {
        reply: oneshot::Sender<()>,
    },
    Stop {
        reply: oneshot::Sender<()>,
    },
}

/// The way to the writer. Cheap to clone.
#[derive(Clone)]
pub struct Writer {
    work: Sender<Work>,
    room: Arc<Semaphore>,
    stopped: Arc<OnceLock<String>>,
}

/// What the writer needs.
pub struct WriterParts {
    /// The journal.
    pub journal: Journal,
    /// A reader of it.
    pub reader: JournalReader,
    /// The keys of our logs.
    pub(crate) signer: LogSigner,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The keys of encrypted logs.
    pub keyring: Arc<Keyring>,
}

impl Writer {
    /// Starts the writer's thread.
    ///
    /// # Errors
    /// Where the system gives no thread, or the annotations cannot be read.
    pub fn start(parts: WriterParts) -> Result<(Self, JoinHandle<()>), AppendError> {
        let stopped = |why: String| AppendError::Stopped { why };
        let (work, queue) = channel();
        let why_stopped = Arc::new(OnceLock::new());
        let mut state = state::State::new(parts, Arc::clone(&why_stopped))
            .map_err(|error| stopped(error.to_string()))?;
        let thread = std::thread::Builder::new()
            .name("countersign-writer".to_owned())
            .spawn(move || state.run(&queue))
            .map_err(|error| stopped(error.to_string()))?;
        let room = Arc::new(Semaphore::new(QUEUE_BYTES_MAX));
        Ok((
            Self {
                work,
                room,
                stopped: why_stopped,
            },
            thread,
        ))
    }

    /// Queues a batch; `done` is called when it is integrated. Waits while the queue is full.
    pub async fn append(
        &self,
        log: Arc<Log>,
        sealed: SealedBatch,
        publisher: Option<(Publisher, u64)>,
        done: Done,
    ) {
        if log.is_frozen() {
            return done(Err(AppendError::Frozen));
        }
        let permit = self.room(sealed.weight()).await;
        self.send(Work::Append {
            log,
            sealed,
            publisher,
            lazy: false,
            done,
            permit,
        });
    }

    /// Queues an entry that waits up to [`LAZY_DELAY`] for a commit to ride on.
    pub fn append_lazily(&self, log: Arc<Log>, sealed: SealedBatch, done: Done) {
        self.send(Work::Append {
            log,
            sealed,
            publisher: None,
            lazy: true,
            done,
            permit: None,
        });
    }

    /// Queues a batch and waits until it is integrated.
    ///
    /// # Errors
    /// [`AppendError`].
    pub async fn append_and_wait(
        &self,
        log: Arc<Log>,
        sealed: SealedBatch,
        publisher: Option<(Publisher, u64)>,
    ) -> Result<Appended, AppendError> {
        let (done, receiver) = answer();
        self.append(log, sealed, publisher, done).await;
        receiver.await.unwrap_or_else(|_| Err(AppendError::ended()))
    }

    /// Begins a new epoch of an encrypted log of ours, with the next commit; what comes back resolves with the sequence of its entry.
    pub(crate) fn begin_epoch(
        &self,
        log: Arc<Log>,
    ) -> oneshot::Receiver<Result<Appended, AppendError>> {
        let (done, receiver) = answer();
        // Whatever is sealed from here on is sealed under it, though it be queued already.
        log.want_epoch();
        self.send(Work::NewEpoch { log, done });
        receiver
    }

    /// Queues a verified batch of a copied log, and what is erased in the copy with it; what comes back resolves when it is durable. Waits while
    /// the queue is full.
    pub async fn queue_copy(
        &self,
        log: Arc<Log>,
        batch: VerifiedBatch,
        erasures: Vec<Erasure>,
    ) -> oneshot::Receiver<Result<Appended, AppendError>> {
        let (done, receiver) = answer();
        let permit = self
            .room(batch.content().len() + batch.entries().len())
            .await;
        let cover = postcard::to_stdvec(batch.cover()).unwrap_or_default();
        let batch = Box::new(batch);
        self.send(Work::Copy {
            log,
            batch,
            cover,
            erasures,
            done,
            permit,
        });
        receiver
    }

    /// Queues a verified batch of entries of our own that were lost here and are held elsewhere; what comes back resolves when it is durable.
    pub async fn queue_fetched(
        &self,
        log: Arc<Log>,
        batch: VerifiedBatch,
    ) -> oneshot::Receiver<Result<Appended, AppendError>> {
        let (done, receiver) = answer();
        let permit = self
            .room(batch.content().len() + batch.entries().len())
            .await;
        // The cover is our own signature, which is made again when the batch is integrated.
        let erasures = batch.claims().iter().map(|claim| Erasure {
            first: claim.first,
            end: claim.end,
            by: claim.by,
        });
        self.send(Work::Copy {
            log,
            erasures: erasures.collect(),
            batch: Box::new(batch),
            cover: Vec::new(),
            done,
            permit,
        });
        receiver
    }

    /// Gives a new log its number; it becomes durable with its first entry.
    ///
    /// # Errors
    /// [`AppendError::Stopped`].
    pub async fn open_log(&self, birth: Birth) -> Result<LogNumber, AppendError> {
        let (reply, receiver) = oneshot::channel();
        self.send(Work::Ask(Question::OpenLog { birth, reply }));
        receiver.await.unwrap_or_else(|_| Err(AppendError::ended()))
    }

    /// The last number of a series and the sequence at which it lies; zeros where there is none.
    pub async fn series_state(&self, log: LogNumber, publisher: Publisher) -> (u64, u64) {
        let (reply, receiver) = oneshot::channel();
        self.send(Work::Ask(Question::SeriesState {
            log,
            publisher,
            reply,
        }));
        receiver.await.unwrap_or_default()
    }

    /// Why nothing is appended any more, if that is so.
    #[must_use]
    pub fn stopped(&self) -> Option<String> {
        self.stopped.get().cloned()
    }

    /// A person says that the clock is right.
    pub fn confirm_clock(&self) {
        self.send(Work::Ask(Question::ConfirmClock));
    }

    /// Other keys sign from now on: when it returns, no further checkpoint is signed by those before alone.
    pub(crate) async fn rekey(&self, signer: LogSigner) {
        let (reply, receiver) = oneshot::channel();
        // In a box: there is one of these a year, and thousands of the others may wait.
        let signer = Box::new(signer);
        self.send(Work::Ask(Question::Rekey { signer, reply }));
        // A writer that is gone signs nothing.
        let _ = receiver.await;
    }

    /// Commits what was queued before, also what would wait for something to ride on.
    pub async fn flush(&self) {
        let (reply, receiver) = oneshot::channel();
        self.send(Work::Ask(Question::Flush { reply }));
        // A writer that is gone has nothing that waits.
        let _ = receiver.await;
    }

    /// Commits what waits, syncs the heads and ends the writer.
    pub async fn stop(&self) {
        let (reply, receiver) = oneshot::channel();
        self.send(Work::Ask(Question::Stop { reply }));
        let _ = receiver.await;
    }

    async fn room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes.min(QUEUE_BYTES_MAX)).unwrap_or(u32::MAX);
        Arc::clone(&self.room).acquire_many_owned(bytes).await.ok()
    }

    fn send(&self, work: Work) {
        // A writer that is gone drops the work with its `done` and reply, which tells whoever waits.
        let _ = self.work.send(work);
    }
}

/// A `done` and what it resolves.
#[must_use]
pub fn answer() -> (Done, oneshot::Receiver<Result<Appended, AppendError>>) {
    let (sender, receiver) = oneshot::channel();
    let done: Done = Box::new(move |result| {
        let _ = sender.send(result);
    });
    (done, receiver)
}
