//! Publishing: events gathered into batches, many of them on their way at once, none lost and none doubled.
//!
//! ```text
//! try_push ─┐                  ┌ queue ┐   sent, not acknowledged
//! publish ──┼─► open batch ───►│ batch │──► flight ──► acknowledged in order
//! publish_batch ──────────────►│ batch │◄── after a lost connection the same batches, the same numbers
//!                              └───────┘
//! ```
//!
//! The open batch leaves at once when nothing is on its way, otherwise when it is full or an acknowledgement arrives: there is no
//! timer, so that a lone event is fast and a flood travels in large batches.

mod state;
mod worker;

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use countersign_crypto::Entropy;
use countersign_event::content::{Event, EventRef};
use countersign_protocol::PublishOpen;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::error::SessionError;
use crate::session::{Backoff, SessionOptions};
use state::{Outcome, Shared};

/// Bytes of a batch that leaves because it is full, unless [`PublisherOptions::batch_bytes`] says otherwise.
pub const BATCH_BYTES: usize = 128 * 1024;

/// The largest value of [`PublisherOptions::batch_bytes`]: with one event of the largest size on top it still fits a frame.
pub const BATCH_BYTES_MAX: usize = 512 * 1024;

/// Events of one batch at most: the node keeps a few words for each while it checks the batch.
pub const BATCH_EVENTS_MAX: u32 = 16_384;

/// How to publish.
pub struct PublisherOptions {
    /// Where the node is and who this application is.
    pub session: SessionOptions,
    /// The stream's name at the node.
    pub stream: String,
    /// The series that the numbers belong to; zeros = unnumbered (events are then recognised by `source` and `id`). One series has one
    /// publisher at a time.
    pub series: [u8; 16],
    /// Make the stream where it does not exist. Default no.
    pub create: bool,
    /// Bytes of events that may be unacknowledged, waiting ones included; the node's own limit holds where it is smaller.
    /// Default 8 MiB: memory of this process.
    pub window_bytes: usize,
    /// Bytes of a full batch. Default [`BATCH_BYTES`], at most [`BATCH_BYTES_MAX`]. Larger ones cost less for each event, and make an event
    /// wait longer under load.
    pub batch_bytes: usize,
    /// How to connect again.
    pub backoff: Backoff,
    /// Randomness for it.
    pub entropy: Box<dyn Entropy>,
}

impl PublisherOptions {
    /// Options with the defaults.
    #[must_use]
    pub fn new(
        session: SessionOptions,
        stream: &str,
        series: [u8; 16],
        entropy: Box<dyn Entropy>,
    ) -> Self {
        Self {
            session,
            stream: stream.to_owned(),
            series,
            create: false,
            window_bytes: 8 << 20,
            batch_bytes: BATCH_BYTES,
            backoff: Backoff::default(),
            entropy,
        }
    }

    fn open(&self) -> PublishOpen {
        PublishOpen {
            stream: self.stream.clone(),
            series: self.series,
            create: self.create,
        }
    }

    fn is_numbered(&self) -> bool {
        self.series != [0; 16]
    }
}

impl std::fmt::Debug for PublisherOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublisherOptions")
            .field("session", &self.session)
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

/// What the node acknowledged: the batch in which an event travelled is durable, in the chain, under a signed checkpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ack {
    /// The batch's first number.
    pub first_number: u64,
    /// Events of the batch.
    pub count: u32,
    /// How many of them had been handed in before.
    pub duplicates: u32,
    /// The sequence of the last of them.
    pub last_sequence: u64,
}

/// Why events are not taken or not acknowledged. After an error other than `Full` and `TooLarge` the publisher is over.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublishError {
    /// The publisher was closed.
    #[error("the publisher is closed")]
    Closed,
    /// The window is used up: wait for acknowledgements.
    #[error(
        "{window_bytes} bytes of events wait for their acknowledgement; wait for one and push again"
    )]
    Full {
        /// The window.
        window_bytes: usize,
    },
    /// The node acknowledged something else than was sent.
    #[error(
        "the node acknowledged {count} events from number {found} on, where those from {expected} on were next"
    )]
    Acknowledgement {
        /// The first number that is not acknowledged.
        expected: u64,
        /// The first number of the acknowledgement.
        found: u64,
        /// Its count.
        count: u32,
    },
    /// The node no longer holds what it had acknowledged.
    #[error(
        "the node holds the series up to number {held} after it had acknowledged {acknowledged}: it was restored from an older copy; \
         compare its heads with partners before publishing on"
    )]
    NodeWentBack {
        /// What it holds.
        held: u64,
        /// What it had acknowledged.
        acknowledged: u64,
    },
    /// Another publisher uses the series.
    #[error(
        "the node holds number {held} of the series, this publisher is at {ours}: another one uses the same series; give each its own"
    )]
    SeriesShared {
        /// What the node holds.
        held: u64,
        /// The last number given out here.
        ours: u64,
    },
    /// No session, or its end, for good.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The event is larger than the node takes.
    #[error("the event has {bytes} bytes of {part}; the limit is {limit}")]
    TooLarge {
        /// Which part.
        part: &'static str,
        /// Its bytes.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A batch that no frame can hold, or an empty one.
    #[error(
        "a batch of {count} events in {bytes} bytes cannot be sent: 1 to {BATCH_EVENTS_MAX} events and at most {limit} bytes"
    )]
    Batch {
        /// Its events.
        count: u32,
        /// Its bytes.
        bytes: usize,
        /// Most bytes.
        limit: usize,
    },
}

/// Hands events in. Dropping it gives up what is not acknowledged; [`Publisher::close`] waits for it.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
    worker: JoinHandle<()>,
    origin: String,
    resumed_after: u64,
}

impl Publisher {
    /// Connects and opens the stream.
    ///
    /// # Errors
    /// [`PublishError::Session`].
    pub async fn connect(options: PublisherOptions) -> Result<Self, PublishError> {
        let link = worker::Link::open(&options.session, &options.open()).await?;
        let ready = link.ready().clone();
        let shared = Arc::new(Shared::new(&options, &ready));
        let worker = tokio::spawn(worker::run(Arc::clone(&shared), options, link));
        Ok(Self {
            shared,
            worker,
            origin: ready.origin,
            resumed_after: ready.last_number,
        })
    }

    /// Origin of the log that the events go to.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The last number of the series that the node held when this publisher connected: its first event gets the next one.
    /// A program that resumes skips as many of its events.
    #[must_use]
    pub fn resumed_after(&self) -> u64 {
        self.resumed_after
    }

    /// Puts an event in binary form (canonical attributes, encoded data part) into the open batch, without waiting; returns its number. The node
    /// checks the form: one event that breaks it ends the publisher.
    ///
    /// # Errors
    /// [`PublishError::Full`], [`PublishError::TooLarge`], or why the publisher is over.
    pub fn try_push(&self, attributes: &[u8], data_part: &[u8]) -> Result<u64, PublishError> {
        self.shared.push(attributes, data_part)
    }

    /// Puts an event into the open batch, as soon as the window has room. The returned [`Pending`] resolves to the acknowledgement; it
    /// need not be awaited.
    ///
    /// # Errors
    /// [`PublishError::TooLarge`], or why the publisher is over.
    pub async fn publish(&self, event: EventRef<'_>) -> Result<Pending, PublishError> {
        let (attributes, data_part) = (event.attribute_bytes(), event.data_part_bytes());
        self.wait_for_room(|| self.shared.push_watched(attributes, data_part))
            .await
    }

    /// As [`Publisher::publish`], for an owned event.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    pub async fn publish_event(&self, event: &Event) -> Result<Pending, PublishError> {
        let (attributes, data_part) = (event.attribute_bytes(), event.data_part_bytes());
        self.wait_for_room(|| self.shared.push_watched(attributes, data_part))
            .await
    }

    /// Sends `count` events that the caller has written as [`countersign_protocol::publish::write_event`] does, as one batch and without a
    /// copy, as soon as the window has room. The node checks the form: a wrong batch ends the publisher.
    ///
    /// # Errors
    /// [`PublishError::Batch`], or why the publisher is over.
    pub async fn publish_batch(&self, bulk: Bytes, count: u32) -> Result<Pending, PublishError> {
        self.wait_for_room(|| self.shared.push_batch(bulk.clone(), count))
            .await
    }

    /// Waits until everything handed in before this call is acknowledged.
    ///
    /// # Errors
    /// Why the publisher is over.
    pub async fn flush(&self) -> Result<(), PublishError> {
        self.shared.flush().await
    }

    /// The last number that is acknowledged (where unnumbered: as counted here).
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged()
    }

    /// Events that the node recognised as handed in before, in all acknowledgements so far.
    #[must_use]
    pub fn duplicates(&self) -> u64 {
        self.shared.duplicates()
    }

    /// Waits for all acknowledgements and ends the session.
    ///
    /// # Errors
    /// Why the publisher is over, where something was not acknowledged.
    pub async fn close(mut self) -> Result<(), PublishError> {
        let result = self.shared.flush().await;
        self.shared.close();
        // The worker ends by itself; one that panicked has nothing more to say than the result does.
        let _ = (&mut self.worker).await;
        result
    }

    async fn wait_for_room<T>(
        &self,
        mut attempt: impl FnMut() -> Result<T, PublishError>,
    ) -> Result<T, PublishError> {
        loop {
            let room = self.shared.room();
            tokio::pin!(room);
            // Registered before the attempt, so that an acknowledgement in between is not missed.
            room.as_mut().enable();
            match attempt() {
                Err(PublishError::Full { .. }) => room.await,
                result => return result,
            }
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.shared.close();
        self.worker.abort();
    }
}

/// An event on its way; awaiting it gives the acknowledgement. Dropping it changes nothing.
#[derive(Debug)]
pub struct Pending {
    number: u64,
    outcome: watch::Receiver<Outcome>,
}

impl Pending {
    /// The number that the event (of a batch: the first) got in the series.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Waits for the acknowledgement.
    ///
    /// # Errors
    /// Why the publisher is over. The event may or may not be stored then; handing it in again under the same number is safe.
    pub async fn acknowledged(mut self) -> Result<Ack, PublishError> {
        let outcome = self
            .outcome
            .wait_for(|outcome| !matches!(outcome, Outcome::Waiting))
            .await;
        match outcome.as_deref() {
            Ok(Outcome::Acknowledged(ack)) => Ok(*ack),
            Ok(Outcome::Failed(error)) => Err(error.clone()),
            Ok(Outcome::Waiting) | Err(_) => Err(PublishError::Closed),
        }
    }
}

impl IntoFuture for Pending {
    type Output = Result<Ack, PublishError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.acknowledged())
    }
}
