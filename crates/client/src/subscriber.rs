//! Subscribing: a partner's log, each event verified before it is handed on, receipts signed and sent along the way.
//!
//! ```text
//! frames ─► verify (chain, tree, signature) ─► Subscriber::next ─► application ─► Subscriber::ack
//!                    │                                                    │
//!                    └─ "verified" ──► receipt, kept, then sent ◄── "applied"
//! ```
//!
//! A task reads ahead of the application by at most [`BATCHES_AHEAD_MAX`] batches. A lost connection is dialled again, and reading goes on at the
//! next sequence of the same history, or not at all.

mod receipts;
mod state;
mod witnessed;
mod worker;

use std::time::Duration;

use bytes::Bytes;
use countersign_crypto::{Entropy, Hash, SigningKey};
use countersign_event::cloudevents::to_json_with;
use countersign_event::content::{ContentError, EventRef, Limits, split_content};
use countersign_event::documents::{Agreement, KeyStatement, LogKeys};
use countersign_event::entry::{ENTRY_BYTES, Entry, Kind};
use countersign_event::time::Timestamp;
use countersign_filter::{Filter, FilterError};
use countersign_protocol::delivery::{BatchFault, Claim, VerifiedBatch};
use countersign_tlog::policy::Policy;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::error::{RefusedBy, SessionError};
use crate::session::{Backoff, SessionOptions};
pub use state::{Cursor, Forget, KeepState, Reached, SubscriptionState, series_id};

/// Verified batches that wait for the application at most; each is about half a MiB, or one large event.
pub const BATCHES_AHEAD_MAX: usize = 8;

/// Where to begin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Start {
    /// Where the kept state left off; at the beginning where there is none. Receipts go on in their series.
    Resume,
    /// At a sequence, clamped to the log's size. Receipts begin a new series.
    Sequence(u64),
    /// At the first entry of this time or later. Receipts begin a new series.
    Time(Timestamp),
    /// After the newest entry. Receipts begin a new series.
    Now,
}

/// How to subscribe.
pub struct SubscriberOptions {
    /// Where the producer's node is, and who this side is.
    pub session: SessionOptions,
    /// The agreement to read under; it names the log.
    pub agreement: Agreement,
    /// The producer's key statement as it is known here: its log key verifies checkpoints.
    pub producer: KeyStatement,
    /// Signs receipts.
    pub receipt_key: SigningKey,
    /// What was kept from before.
    pub state: SubscriptionState,
    /// Keeps it: before a receipt is sent, and at the end.
    pub keep: Box<dyn KeepState>,
    /// Where to begin. Default [`Start::Resume`].
    pub start: Start,
    /// Go on with new events after the newest one. Default yes; otherwise [`Subscriber::next`] ends at the head that was the newest at the
    /// beginning; with [`SubscriberOptions::witnessed`] at what is witnessed of that after five seconds more.
    pub follow: bool,
    /// What the reading is for, as the producer's policy may ask. Default empty.
    pub purpose: String,
    /// What events have to pass: the producer leaves out the others. Default all. Receipts under another filter than before begin a new series.
    pub filter: Option<Filter>,
    /// Longest time until something verified or applied is receipted. Default 1 s. Shorter ones cost signatures on both sides.
    pub receipt_delay: Duration,
    /// How to connect again.
    pub backoff: Backoff,
    /// Hand on only what enough witnesses of this policy have cosigned; the producer's word on who they are does not count. Receipts say *verified* for what
    /// waits. Default none: what the log's key signed.
    pub witnessed: Option<Policy>,
    /// Randomness for it, and for new series.
    pub entropy: Box<dyn Entropy>,
}

impl SubscriberOptions {
    /// Options with the defaults, and a state that is kept in memory only.
    #[must_use]
    pub fn new(
        session: SessionOptions,
        agreement: Agreement,
        producer: KeyStatement,
        receipt_key: SigningKey,
        entropy: Box<dyn Entropy>,
    ) -> Self {
        let state = SubscriptionState::new(series_id(agreement.id, &session.key.public()));
        Self {
            session,
            agreement,
            producer,
            receipt_key,
            state,
            keep: Box::new(Forget),
            start: Start::Resume,
            follow: true,
            purpose: String::new(),
            filter: None,
            receipt_delay: Duration::from_secs(1),
            backoff: Backoff::default(),
            witnessed: None,
            entropy,
        }
    }
}

impl std::fmt::Debug for SubscriberOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SubscriberOptions")
            .field("session", &self.session)
            .field("stream", &self.agreement.stream)
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}

/// Why reading stops.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SubscribeError {
    /// The position given to [`Subscriber::ack`] was never handed out.
    #[error(
        "sequence {next} was not handed out yet: {handed} is the next one; acknowledge what was taken only"
    )]
    AckAhead {
        /// What was acknowledged.
        next: u64,
        /// What was handed out.
        handed: u64,
    },
    /// The producer sent something that is not its signed log. `frame` are the bytes, as evidence.
    #[error(
        "`{stream}` sent what cannot be accepted: {fault}; keep the evidence and ask the producer, over another way"
    )]
    Fault {
        /// The log.
        stream: String,
        /// What was wrong.
        fault: BatchFault,
        /// Kind of the offending frame.
        kind: u8,
        /// Its body.
        frame: Bytes,
    },
    /// The filter of the plan is not understood here, or too much together with one's own.
    #[error("the filter, with that of plan `{plan}`, cannot be asked for: {error}")]
    Filter {
        /// The plan's name.
        plan: String,
        /// Why not.
        error: FilterError,
    },
    /// The state could not be kept; no receipt was sent for it.
    #[error(
        "the reading position cannot be kept ({kind}): no receipt is sent for what is not kept; check the disk and the file"
    )]
    Keep {
        /// What the system said.
        kind: std::io::ErrorKind,
    },
    /// A frame is not a message of the protocol. `frame` are the bytes, as evidence.
    #[error("`{stream}` does not keep to the protocol: {error}")]
    Message {
        /// The log.
        stream: String,
        /// What was wrong.
        error: countersign_protocol::FrameError,
        /// Kind of the offending frame.
        kind: u8,
        /// Its body.
        frame: Bytes,
    },
    /// The producer's statement delegates no log key.
    #[error(
        "the key statement of `{authority}` names no log key, so that no checkpoint can be verified; ask for a newer statement"
    )]
    NoLogKey {
        /// The producer.
        authority: String,
    },
    /// The producer shows an older key statement than one that is known.
    #[error(
        "the node of `{authority}` shows key statement {shown}, and {known} is known: it may be an older copy, or speak with a key that was taken back"
    )]
    OlderStatement {
        /// The producer.
        authority: String,
        /// The number known.
        known: u64,
        /// The number shown.
        shown: u64,
    },
    /// Both sides disagree about the last receipt of the series.
    #[error(
        "the producer holds receipt {theirs} of the series, here the last one is {ours}: this profile or the producer was restored from \
         an older copy; signing on would contradict what was signed. Begin at a position (a new series) after comparing"
    )]
    ReceiptSeries {
        /// The number that the producer holds.
        theirs: u64,
        /// The number kept here.
        ours: u64,
    },
    /// The producer said no, or ended the subscription.
    #[error(transparent)]
    Refused(Box<RefusedBy>),
    /// No session, for good.
    #[error(transparent)]
    Session(SessionError),
    /// The kept state is damaged.
    #[error(
        "the kept state of the subscription is not whole ({part}): restore the profile, or begin at a position"
    )]
    State {
        /// Which part.
        part: &'static str,
    },
}

impl From<SessionError> for SubscribeError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Refused(refused) => Self::Refused(refused),
            error => Self::Session(error),
        }
    }
}

impl SubscribeError {
    /// Whether the log forked or shrank: it must not be read on.
    #[must_use]
    pub fn is_fork(&self) -> bool {
        matches!(
            self,
            Self::Fault {
                fault: BatchFault::Contradiction { .. } | BatchFault::Shrunk { .. },
                ..
            }
        )
    }

    fn is_lasting(&self) -> bool {
        match self {
            Self::Session(error) => error.is_lasting(),
            Self::Refused(refused) => refused.retry_after.is_none(),
            _ => true,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refused) => refused.retry_after,
            Self::Session(error) => error.retry_after(),
            _ => None,
        }
    }
}

/// What a subscription is doing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SubscriberStatus {
    /// Whether there is a session.
    pub connected: bool,
    /// The next sequence to be verified.
    pub next: u64,
    /// Size of the newest head that the producer signed.
    pub head: u64,
    /// Everything below this was receipted and the producer holds the receipt.
    pub receipted: u64,
    /// Number of the last receipt that the producer holds.
    pub receipt_number: u64,
    /// Why the producer sends nothing though there is something; empty otherwise.
    pub paused_because: String,
    /// Everything below this is witnessed; 0 where that was not asked for.
    pub witnessed: u64,
    /// Why what was verified is not handed on though more may be read; empty otherwise.
    pub unwitnessed_because: String,
}

/// A running subscription.
#[derive(Debug)]
pub struct Subscriber {
    batches: mpsc::Receiver<Result<Option<EventBatch>, SubscribeError>>,
    applied: watch::Sender<Option<Cursor>>,
    stop: watch::Sender<bool>,
    status: watch::Receiver<SubscriberStatus>,
    worker: JoinHandle<Result<(), SubscribeError>>,
    handed: u64,
    is_over: bool,
}

impl Subscriber {
    /// Connects, opens the subscription and verifies its start.
    ///
    /// # Errors
    /// [`SubscribeError`].
    pub async fn subscribe(options: SubscriberOptions) -> Result<Self, SubscribeError> {
        let (batches_in, batches) = mpsc::channel(BATCHES_AHEAD_MAX);
        let (applied, applied_out) = watch::channel(None);
        let (stop, stop_out) = watch::channel(false);
        let (status_in, status) = watch::channel(SubscriberStatus::default());
        let channels = worker::Channels {
            batches: batches_in,
            applied: applied_out,
            stop: stop_out,
            status: status_in,
        };
        let (worker, link) = worker::Worker::begin(options, channels).await?;
        let handed = worker.start();
        Ok(Self {
            batches,
            applied,
            stop,
            status,
            worker: tokio::spawn(worker.run(link)),
            handed,
            is_over: false,
        })
    }

    /// The next verified events, or `None` at the end ([`SubscriberOptions::follow`]). Cancel-safe.
    ///
    /// # Errors
    /// [`SubscribeError`]; the subscription is over then.
    pub async fn next(&mut self) -> Result<Option<EventBatch>, SubscribeError> {
        if self.is_over {
            return Ok(None);
        }
        match self.batches.recv().await {
            Some(Ok(Some(batch))) => {
                self.handed = batch.end();
                Ok(Some(batch))
            }
            Some(Ok(None)) | None => {
                self.is_over = true;
                Ok(None)
            }
            Some(Err(error)) => {
                self.is_over = true;
                Err(error)
            }
        }
    }

    /// The application has taken everything before `cursor` ([`EventBatch::cursor`], [`DeliveredEvent::cursor`]): it will not be handed out
    /// again after a restart, and the next receipt says *applied*.
    ///
    /// # Errors
    /// [`SubscribeError::AckAhead`].
    pub fn ack(&self, cursor: Cursor) -> Result<(), SubscribeError> {
        if cursor.next > self.handed {
            return Err(SubscribeError::AckAhead {
                next: cursor.next,
                handed: self.handed,
            });
        }
        self.applied.send_if_modified(|applied| {
            let is_newer = applied.is_none_or(|applied| applied.next < cursor.next);
            if is_newer {
                *applied = Some(cursor);
            }
            is_newer
        });
        Ok(())
    }

    /// What the subscription is doing; can be waited on.
    #[must_use]
    pub fn status(&self) -> &watch::Receiver<SubscriberStatus> {
        &self.status
    }

    /// Signs and sends a last receipt, keeps the state and ends the session. Takes at most five seconds where the producer does not
    /// answer.
    ///
    /// # Errors
    /// [`SubscribeError::Keep`], or why the subscription was over before and nobody was told.
    pub async fn close(mut self) -> Result<(), SubscribeError> {
        self.batches.close();
        self.stop.send_replace(true);
        match (&mut self.worker).await {
            Ok(result) => result,
            // It panicked or was torn down with the runtime: nothing of it was kept.
            Err(_) => Err(SubscribeError::State { part: "its task" }),
        }
    }
}

/// Verified events, in their order.
#[derive(Clone, Debug)]
pub struct EventBatch(VerifiedBatch);

impl EventBatch {
    /// Sequence of the first entry.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.0.first()
    }

    /// Sequence after the last entry.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.0.end()
    }

    /// The position after the whole batch, for [`Subscriber::ack`].
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        let leaf = self.0.leaf_hashes().last().copied().unwrap_or_default();
        Cursor {
            next: self.end(),
            leaf,
        }
    }

    /// The batch as it was verified: entries, leaf hashes, cover.
    #[must_use]
    pub fn verified(&self) -> &VerifiedBatch {
        &self.0
    }

    /// Which entries the producer left out, because they do not pass the filter: runs of first sequence and sequence after the last. Its signed claim
    /// on them was verified.
    #[must_use]
    pub fn skipped(&self) -> &[(u64, u64)] {
        self.0.skipped()
    }

    /// Which entries came without content, because they were erased or have expired, in order.
    #[must_use]
    pub fn gaps(&self) -> &[Claim] {
        self.0.claims()
    }

    /// The events; control entries are left out, and those without content.
    pub fn events(&self) -> impl Iterator<Item = DeliveredEvent<'_>> {
        self.entries().filter(|event| event.kind == Kind::Event)
    }

    /// All entries that have content.
    pub fn entries(&self) -> impl Iterator<Item = DeliveredEvent<'_>> {
        let mut offset = 0_usize;
        let parts = self.0.entries().as_chunks::<ENTRY_BYTES>().0.iter();
        let parts = parts.zip(self.0.lengths()).zip(self.0.leaf_hashes());
        parts.filter_map(move |((entry, lengths), leaf)| {
            if lengths.is_absent() {
                return None;
            }
            let start = offset;
            offset += usize::try_from(lengths.content_bytes()).ok()?;
            let content = self.0.content().get(start..offset)?;
            // INVARIANT: the verifying reader built these entries from these contents.
            let entry = Entry::decode(entry).ok()?;
            let attribute_bytes = lengths.attribute_bytes as usize;
            let (_, attributes, data_part) = split_content(content, attribute_bytes).ok()?;
            Some(DeliveredEvent {
                sequence: entry.sequence,
                leaf,
                time: entry.time,
                kind: entry.kind,
                encrypted: entry.flags.encrypted,
                attributes,
                data_part,
            })
        })
    }
}

/// One verified entry.
#[derive(Clone, Copy, Debug)]
pub struct DeliveredEvent<'a> {
    /// Its position in the log.
    pub sequence: u64,
    /// Its leaf hash.
    pub leaf: &'a Hash,
    /// The log's clock when it was sequenced.
    pub time: Timestamp,
    /// Event or control entry.
    pub kind: Kind,
    /// Whether its data is encrypted.
    pub encrypted: bool,
    attributes: &'a [u8],
    data_part: &'a [u8],
}

impl<'a> DeliveredEvent<'a> {
    /// The event.
    ///
    /// # Errors
    /// [`ContentError::Encrypted`] where it takes a key to read it, which a node has; no other in practice, since the verifying reader has checked the same bytes.
    pub fn event(&self) -> Result<EventRef<'a>, ContentError> {
        if self.encrypted {
            return Err(ContentError::Encrypted);
        }
        let event = EventRef::check(self.attributes, self.data_part, &Limits::FORMAT)?;
        Ok(event)
    }

    /// The canonical attributes.
    #[must_use]
    pub fn attribute_bytes(&self) -> &'a [u8] {
        self.attributes
    }

    /// The encoded data part.
    #[must_use]
    pub fn data_part_bytes(&self) -> &'a [u8] {
        self.data_part
    }

    /// The position after this event, for [`Subscriber::ack`].
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor {
            next: self.sequence.saturating_add(1),
            leaf: *self.leaf,
        }
    }

    /// The event as CloudEvents JSON, with its position as `sequence` and the log's time as `recordedtime`, unless the event has such
    /// attributes itself.
    ///
    /// # Errors
    /// As [`DeliveredEvent::event`].
    pub fn to_json(&self) -> Result<Vec<u8>, ContentError> {
        let event = self.event()?;
        let (sequence, time) = (self.sequence.to_string(), self.time.to_rfc3339());
        Ok(to_json_with(
            &event,
            &[("sequence", &sequence), ("recordedtime", &time)],
        ))
    }
}

/// The producer's log keys, as of now.
fn log_keys(options: &SubscriberOptions) -> Result<LogKeys, SubscribeError> {
    let (stream, producer) = (&options.agreement.stream, &options.producer);
    let keys = LogKeys::of(stream, producer, [].iter(), (options.session.clock)());
    if keys.is_empty() {
        return Err(SubscribeError::NoLogKey {
            authority: producer.authority.to_string(),
        });
    }
    Ok(keys)
}
