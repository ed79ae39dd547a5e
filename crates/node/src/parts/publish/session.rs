//! The conversation with the node: batches on their way, answers in order, and beginning again where the node was busy.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use countersign_event::documents::RefusalCode;
use countersign_protocol::publish::{EVENT_HEADER_BYTES, write_event};
use countersign_protocol::{Message, PublishAck, PublishBatch, PublishOpen, PublishReady, Refused};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::admin::{AdminError, AdminFrames, FrameWriter, Node};
use crate::cli::Output;
use crate::errors::{CommandError, ErrorCode};

/// Bytes of a batch that leaves because it is full. One event may be larger, and then travels alone.
pub(super) const BATCH_BYTES: usize = 256 << 10;

/// Batches on their way at most, whatever the window: the answers to all of them fit the queue below, so that neither side waits for the other.
const FLIGHT_MAX: usize = 64;

/// The longest wait before a busy node is asked again. With the exchange's own answer of one second, 20 attempts take 20 seconds.
const BUSY_WAIT_MAX: Duration = Duration::from_secs(30);

/// Where connections to the node come from.
pub(super) trait Door {
    /// A connection that awaits `PublishOpen`.
    async fn open(&self) -> Result<AdminFrames, CommandError>;
}

impl Door for Node {
    async fn open(&self) -> Result<AdminFrames, CommandError> {
        self.channel().await?.publish().await
    }
}

/// Events that travel together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    first_number: u64,
    count: u32,
    bulk: Vec<u8>,
    /// Where its last event begins in the input.
    last_line: u64,
}

impl Batch {
    /// An empty batch whose first event will have this number.
    pub(super) fn new(first_number: u64) -> Self {
        Self {
            first_number,
            ..Self::default()
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether an event of these lengths still belongs into it.
    pub(super) fn has_room(&self, event_bytes: usize, events_max: u32) -> bool {
        let bytes = self
            .bulk
            .len()
            .saturating_add(EVENT_HEADER_BYTES)
            .saturating_add(event_bytes);
        self.count == 0 || (self.count < events_max && bytes <= BATCH_BYTES)
    }

    pub(super) fn push(&mut self, attributes: &[u8], data_part: &[u8], line: u64) {
        write_event(&mut self.bulk, attributes, data_part);
        self.count += 1;
        self.last_line = line;
    }

    /// Takes what is in it, and leaves an empty one that goes on after it.
    pub(super) fn take(&mut self) -> Self {
        let next = self.first_number.saturating_add(u64::from(self.count));
        std::mem::replace(self, Self::new(next))
    }
}

/// What is stored so far, as the node acknowledged it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stored {
    /// Events that are new.
    pub(super) published: u64,
    /// Events that were stored before.
    pub(super) duplicates: u64,
    /// The sequence of the first new one.
    pub(super) first_sequence: Option<u64>,
    /// The sequence of the last one, new or not.
    pub(super) last_sequence: Option<u64>,
    /// The line of the last one.
    pub(super) last_line: Option<u64>,
}

/// A batch as it was sent.
#[derive(Debug)]
struct Sent {
    first_number: u64,
    count: u32,
    last_line: u64,
    body: Vec<u8>,
}

/// An open stream for publishing.
#[derive(Debug)]
pub(super) struct Session<'a, D> {
    door: &'a D,
    open: PublishOpen,
    ready: PublishReady,
    link: Link,
    /// Sent and not acknowledged, the oldest first. Kept to be sent again where the node was busy.
    flight: VecDeque<Sent>,
    flight_bytes: usize,
    busy: Busy,
    pub(super) stored: Stored,
}

/// How often a busy node was asked again without anything having been stored in between, and how often it may be.
#[derive(Clone, Copy, Debug)]
struct Busy {
    attempts: u32,
    most: u32,
}

/// One connection. The task that reads it ends with it.
#[derive(Debug)]
struct Link {
    outgoing: FrameWriter,
    answers: mpsc::Receiver<Result<(u8, Bytes), AdminError>>,
    _reader: JoinSet<()>,
}

impl<'a, D: Door> Session<'a, D> {
    /// Opens the stream.
    ///
    /// # Errors
    /// The node's refusal; what the connection reports.
    pub(super) async fn open(
        door: &'a D,
        open: PublishOpen,
        attempts_max: u32,
        output: &mut Output,
    ) -> Result<Self, CommandError> {
        let mut busy = Busy {
            attempts: 0,
            most: attempts_max,
        };
        let (link, ready) = connect(door, &open, &mut busy, output).await?;
        busy.attempts = 0;
        Ok(Self {
            door,
            open,
            ready,
            link,
            flight: VecDeque::new(),
            flight_bytes: 0,
            busy,
            stored: Stored::default(),
        })
    }

    /// What the node said of the stream.
    pub(super) fn ready(&self) -> &PublishReady {
        &self.ready
    }

    /// Whether nothing is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.flight.is_empty()
    }

    /// Whether the window has room for the batch. One batch may always go.
    pub(super) fn admits(&self, batch: &Batch) -> bool {
        let window = self.ready.window_bytes as usize;
        self.flight.is_empty()
            || (self.flight.len() < FLIGHT_MAX
                && self.flight_bytes.saturating_add(batch.bulk.len()) <= window)
    }

    /// Sends a batch.
    ///
    /// # Errors
    /// The node's refusal; what the connection reports.
    pub(super) async fn send(
        &mut self,
        batch: Batch,
        output: &mut Output,
    ) -> Result<(), CommandError> {
        let head = PublishBatch {
            first_number: batch.first_number,
            count: batch.count,
        };
        let mut body = head.to_body();
        body.extend_from_slice(&batch.bulk);
        let sent = Sent {
            first_number: batch.first_number,
            count: batch.count,
            last_line: batch.last_line,
            body,
        };
        let written = self
            .link
            .outgoing
            .write(PublishBatch::KIND, &sent.body)
            .await;
        self.flight_bytes = self.flight_bytes.saturating_add(sent.body.len());
        self.flight.push_back(sent);
        match written {
            // The node closes the stream where it refuses: its reason is on the way here.
            Err(AdminError::Io(_)) => self.settle_until_refused(output).await,
            written => Ok(written?),
        }
    }

    /// Waits for one answer. Cancel-safe until the answer is there.
    pub(super) async fn answer(&mut self) -> Answer {
        Answer(
            self.link
                .answers
                .recv()
                .await
                .unwrap_or(Err(AdminError::Closed)),
        )
    }

    /// Books an answer. Where the node is busy, this waits and sends again what is not acknowledged.
    ///
    /// # Errors
    /// The node's refusal; an answer that does not fit what was sent; what the connection reports.
    pub(super) async fn settle(
        &mut self,
        answer: Answer,
        output: &mut Output,
    ) -> Result<(), CommandError> {
        let (kind, body) = answer.0.map_err(lost)?;
        if kind != Refused::KIND {
            let ack = PublishAck::read(kind, &body).map_err(AdminError::from)?;
            return self.acknowledge(&ack);
        }
        let refused = Refused::read(kind, &body).map_err(AdminError::from)?;
        if refused.retry_after_ms == 0 {
            return Err(refusal(&refused));
        }
        wait_busy(&refused, &mut self.busy, output).await?;
        let (link, ready) = connect(self.door, &self.open, &mut self.busy, output).await?;
        self.link = link;
        self.check_continues(&ready)?;
        self.ready = ready;
        self.send_again().await
    }

    /// Waits for all answers.
    ///
    /// # Errors
    /// As [`Session::settle`].
    pub(super) async fn drain(&mut self, output: &mut Output) -> Result<(), CommandError> {
        while !self.flight.is_empty() {
            let answer = self.answer().await;
            self.settle(answer, output).await?;
        }
        Ok(())
    }

    /// Says that nothing more comes.
    pub(super) async fn close(&mut self) {
        // Everything is acknowledged: a connection that is gone already changes nothing.
        let _ = self.link.outgoing.close().await;
    }

    async fn settle_until_refused(&mut self, output: &mut Output) -> Result<(), CommandError> {
        loop {
            let answer = self.answer().await;
            let is_refusal = matches!(&answer.0, Ok((kind, _)) if *kind == Refused::KIND);
            self.settle(answer, output).await?;
            if is_refusal {
                return Ok(());
            }
        }
    }

    fn acknowledge(&mut self, ack: &PublishAck) -> Result<(), CommandError> {
        let fits = self.flight.front().is_some_and(|sent| {
            sent.first_number == ack.first_number
                && sent.count == ack.count
                && ack.duplicates <= ack.count
        });
        let Some(sent) = self.flight.pop_front().filter(|_| fits) else {
            return Err(CommandError::new(
                ErrorCode::AdminProtocol,
                format_args!(
                    "the node acknowledged {} events from number {} on, which is not what was sent next",
                    ack.count, ack.first_number
                ),
            ));
        };
        self.flight_bytes = self.flight_bytes.saturating_sub(sent.body.len());
        self.busy.attempts = 0;
        let fresh = u64::from(ack.count - ack.duplicates);
        let stored = &mut self.stored;
        stored.published += fresh;
        stored.duplicates += u64::from(ack.duplicates);
        if fresh > 0 {
            // What is new in a batch lies together, at its end.
            let first = (ack.last_sequence.saturating_add(1)).saturating_sub(fresh);
            stored.first_sequence.get_or_insert(first);
        }
        stored.last_sequence = Some(ack.last_sequence);
        stored.last_line = Some(sent.last_line);
        Ok(())
    }

    /// A node that comes back with less than it had acknowledged has lost it.
    fn check_continues(&self, ready: &PublishReady) -> Result<(), CommandError> {
        let acknowledged = match self.flight.front() {
            Some(sent) => sent.first_number.saturating_sub(1),
            None => 0,
        };
        if ready.origin == self.ready.origin && ready.last_number >= acknowledged {
            return Ok(());
        }
        let message = format!(
            "the node holds the series up to number {} of {} after it had acknowledged {acknowledged} of {}: it was restored from an older copy",
            ready.last_number, ready.origin, self.ready.origin
        );
        Err(CommandError::new(ErrorCode::Conflict, message)
            .advise("compare its heads with partners before publishing on"))
    }

    /// Sends what is not acknowledged once more; the node recognises what it had stored.
    async fn send_again(&mut self) -> Result<(), CommandError> {
        for sent in &self.flight {
            match self
                .link
                .outgoing
                .write(PublishBatch::KIND, &sent.body)
                .await
            {
                // The node has refused again; its reason is read with the answers.
                Err(AdminError::Io(_)) => return Ok(()),
                written => written?,
            }
        }
        Ok(())
    }
}

/// An answer that is not booked yet.
#[derive(Debug)]
pub(super) struct Answer(Result<(u8, Bytes), AdminError>);

/// Opens the stream, as often as a busy node has to be asked.
async fn connect<D: Door>(
    door: &D,
    open: &PublishOpen,
    busy: &mut Busy,
    output: &mut Output,
) -> Result<(Link, PublishReady), CommandError> {
    loop {
        let mut frames = door.open().await?;
        frames.write(PublishOpen::KIND, &open.to_body()).await?;
        let (kind, body) = frames.next().await?.ok_or(AdminError::Closed)?;
        if kind != Refused::KIND {
            let ready = PublishReady::read(kind, &body).map_err(AdminError::from)?;
            return Ok((Link::new(frames), ready));
        }
        let refused = Refused::read(kind, &body).map_err(AdminError::from)?;
        if refused.retry_after_ms == 0 {
            return Err(refusal(&refused));
        }
        wait_busy(&refused, busy, output).await?;
    }
}

impl Link {
    fn new(frames: AdminFrames) -> Self {
        let AdminFrames {
            mut incoming,
            outgoing,
        } = frames;
        let (sender, answers) = mpsc::channel(FLIGHT_MAX);
        let mut reader = JoinSet::new();
        // Reading a frame cannot be dropped half-way, so it has a task of its own.
        reader.spawn(async move {
            loop {
                let frame = match incoming.next().await {
                    Ok(Some(frame)) => Ok(frame),
                    Ok(None) => return,
                    Err(error) => Err(error),
                };
                let is_over = frame.is_err();
                if sender.send(frame).await.is_err() || is_over {
                    return;
                }
            }
        });
        Self {
            outgoing,
            answers,
            _reader: reader,
        }
    }
}

async fn wait_busy(
    refused: &Refused,
    busy: &mut Busy,
    output: &mut Output,
) -> Result<(), CommandError> {
    if busy.attempts >= busy.most {
        return Err(refusal(refused)
            .advise("hand in the same input again later: it goes on where it stopped"));
    }
    busy.attempts += 1;
    let wait = Duration::from_millis(refused.retry_after_ms).min(BUSY_WAIT_MAX);
    let reason = printable(&refused.reason);
    output.note(&format!(
        "the node does not take more now ({reason}); trying again in {:.1} s, attempt {} of {}",
        wait.as_secs_f64(),
        busy.attempts,
        busy.most,
    ));
    tokio::time::sleep(wait).await;
    Ok(())
}

/// A no of the node, as this command fails with it.
fn refusal(refused: &Refused) -> CommandError {
    let known: Option<RefusalCode> =
        serde_json::from_value(serde_json::Value::String(refused.code.clone())).ok();
    let code = known.map_or(ErrorCode::Malformed, ErrorCode::from);
    let error = CommandError::new(code, printable(&refused.reason));
    match known {
        Some(RefusalCode::NotFound) => error
            .advise("`--create` opens the stream; `countersign stream ls` lists those there are"),
        Some(RefusalCode::NotPermitted) => {
            error.advise("`countersign policy explain publish` says which policy decides")
        }
        _ => error,
    }
}

/// The connection ended where an answer was due.
fn lost(error: AdminError) -> CommandError {
    CommandError::from(error).advise(
        "look at the node (`countersign status`), and hand in the same input again: it goes on where it stopped",
    )
}

fn printable(text: &str) -> String {
    text.chars()
        .take(1_000)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}
