//! The task behind a subscription: one session after the other, one reader that stays.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign_event::documents::{Digest, Document as _, LogKeys, Plan, Receipt};
use countersign_event::dsse::Envelope;
use countersign_filter::{Filter, FilterError};
use countersign_protocol::delivery::{
    BatchFault, BatchMessage, Cover, LogReader, check_skip_claim,
};
use countersign_protocol::{
    Ended, Heads, Keys, Message, ReceiptAck, ReceiptMessage, Skipped, StartAt, Subscribe,
    SubscribeFiltered, SubscribeReady, WitnessedState,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::receipts::Receipts;
use super::witnessed::{Answer, Witnessing};
use super::{
    Cursor, EventBatch, KeepState, Start, SubscribeError, SubscriberOptions, SubscriberStatus,
    SubscriptionState, log_keys,
};
use crate::error::{RefusedBy, SessionError};
use crate::quic::RawFrame;
use crate::session::{CLOSE_FAULT, RequestStream, Session};

/// How long the last receipt may take.
const CLOSING_TIME: Duration = Duration::from_secs(5);

/// What the application holds the other ends of.
pub(super) struct Channels {
    pub(super) batches: mpsc::Sender<Result<Option<EventBatch>, SubscribeError>>,
    pub(super) applied: watch::Receiver<Option<Cursor>>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) status: watch::Sender<SubscriberStatus>,
}

/// A session with the subscription's stream.
pub(super) struct Link {
    session: Session,
    stream: RequestStream,
}

/// What ends a session without an error.
enum Turn {
    /// The application closed the subscription, or let go of it.
    Stopped,
}

/// What comes: what the plan lets through, and of that what is asked for. The producer puts the two together in the same way.
fn filter_of(plan: &Plan, own: Option<Filter>) -> Result<Option<Arc<Filter>>, SubscribeError> {
    let refused = |error: FilterError| SubscribeError::Filter {
        plan: plan.name.clone(),
        error,
    };
    let agreed = plan.filter.as_deref().map(Filter::from_canonical);
    let agreed = agreed.transpose().map_err(refused)?;
    let both = match (agreed, own) {
        (Some(agreed), Some(own)) => Some(agreed.and(&own).map_err(refused)?),
        (agreed, own) => agreed.or(own),
    };
    Ok(both.map(Arc::new))
}

/// The filter of the kept receipt; `None` where there is no receipt.
fn receipted_under(state: &SubscriptionState) -> Option<Option<Digest>> {
    let envelope = Envelope::from_json(state.receipt.as_ref()?.as_bytes()).ok()?;
    Receipt::peek(&envelope).ok().map(|receipt| receipt.filter)
}

pub(super) struct Worker {
    options: SubscriberOptions,
    channels: Channels,
    reader: Option<LogReader>,
    receipts: Receipts,
    /// Where the application stands.
    cursor: Option<Cursor>,
    /// Where reading ends, unless it follows.
    end: Option<u64>,
    /// A verified batch (or the end) that waits for the application.
    outbox: Option<Option<EventBatch>>,
    /// Where verified batches wait for witnesses, if that was asked for.
    witnessing: Option<Witnessing>,
    end_was_told: bool,
    /// What is asked for beside what the plan lets through.
    own: Option<String>,
    filter: Option<Arc<Filter>>,
    /// The producer's word on what it left out of the batch that comes next.
    claim: Option<Vec<u8>>,
}

impl Worker {
    /// Opens the first session; its errors are the caller's.
    pub(super) async fn begin(
        mut options: SubscriberOptions,
        channels: Channels,
    ) -> Result<(Self, Link), SubscribeError> {
        if options.start != Start::Resume {
            options.state.begin_series(options.entropy.as_mut());
        }
        let own = options.filter.as_ref();
        let own = own.map(|filter| filter.canonical().to_owned());
        let filter = filter_of(&options.agreement.plan, options.filter.take())?;
        let digest = filter.as_ref().map(|filter| Digest(filter.digest()));
        if receipted_under(&options.state).is_some_and(|receipted| receipted != digest) {
            // Receipts of one series have one filter. Reading goes on where it was.
            let cursor = options.state.cursor;
            options.state.begin_series(options.entropy.as_mut());
            options.state.cursor = cursor;
        }
        log_keys(&options)?;
        let receipts = Receipts::new(
            options.agreement.clone(),
            &options.state,
            &options.receipt_key,
            digest,
            options.receipt_delay,
        )?;
        let mut worker = Self {
            reader: None,
            receipts,
            cursor: options.state.cursor,
            end: None,
            outbox: None,
            witnessing: options.witnessed.take().map(Witnessing::new),
            end_was_told: false,
            own,
            filter,
            claim: None,
            options,
            channels,
        };
        let link = worker.connect().await?;
        Ok((worker, link))
    }

    /// The first sequence that will be handed out.
    pub(super) fn start(&self) -> u64 {
        self.reader.as_ref().map_or(0, LogReader::next)
    }

    pub(super) async fn run(mut self, mut link: Link) -> Result<(), SubscribeError> {
        loop {
            let served = self.serve(&mut link).await;
            let error = match served {
                Ok(Turn::Stopped) => {
                    let result = self.finish(&mut link).await;
                    link.session.close().await;
                    return result;
                }
                Err(error) => error,
            };
            self.note(|status| status.connected = false);
            if error.is_lasting() && !matches!(error, SubscribeError::Session(_)) {
                link.session
                    .connection()
                    .close(CLOSE_FAULT, "what was sent is not accepted");
            }
            match self.reconnect(error).await {
                Ok(Some(again)) => link = again,
                Ok(None) => return self.keep().await,
                Err(error) => return self.give_up(error).await,
            }
        }
    }

    async fn reconnect(
        &mut self,
        mut error: SubscribeError,
    ) -> Result<Option<Link>, SubscribeError> {
        let mut attempt = 0;
        while !error.is_lasting() {
            let wait = self
                .options
                .backoff
                .wait(attempt, self.options.entropy.as_mut());
            let Some(wait) = wait else { break };
            attempt = attempt.saturating_add(1);
            tracing::debug!(%error, ?wait, "the subscription's session is lost; connecting again");
            let wait = error.retry_after().unwrap_or_default().max(wait);
            let mut stop = self.channels.stop.clone();
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = stop.wait_for(|stop| *stop) => return Ok(None),
                () = self.channels.batches.closed() => return Ok(None),
            }
            match self.connect().await {
                Ok(link) => return Ok(Some(link)),
                Err(next) => error = next,
            }
        }
        Err(error)
    }

    /// Tells the application; keeps what it acknowledged.
    async fn give_up(mut self, error: SubscribeError) -> Result<(), SubscribeError> {
        tracing::debug!(%error, "the subscription is over");
        self.take_applied();
        let kept = self.keep().await;
        if let Some(Some(batch)) = self.outbox.take()
            && self.channels.batches.send(Ok(Some(batch))).await.is_err()
        {
            return kept.and(Err(error));
        }
        match self.channels.batches.send(Err(error)).await {
            Ok(()) => kept,
            // Nobody listens any more: `close` tells it.
            Err(mpsc::error::SendError(unsent)) => kept.and(unsent.map(|_| ())),
        }
    }

    async fn connect(&mut self) -> Result<Link, SubscribeError> {
        let session = Session::connect(&self.options.session).await?;
        self.adopt_statement(&session)?;
        self.claim = None;
        let request = self.request();
        let mut stream = match self.own.clone() {
            None => session.request(&request).await?,
            Some(filter) => {
                session
                    .request(&SubscribeFiltered { request, filter })
                    .await?
            }
        };
        let frame = stream
            .reader
            .next()
            .await?
            .ok_or(SessionError::StreamEnded {
                awaited: "the answer to the subscription",
            })?;
        let ready: SubscribeReady = self.read(&frame)?;
        self.take_ready(&ready, &frame)?;
        let root = self.reader.as_ref().map_or([0; 32], LogReader::root);
        let missing = self.receipts.begin(&ready, root)?;
        let mut link = Link { session, stream };
        if let Some(envelope) = missing {
            let envelope = envelope.to_json();
            link.stream.send(&ReceiptMessage { envelope }).await?;
        }
        let (next, receipted) = (self.start(), self.receipts.size());
        let witnessed = self.witnessing.as_mut().map_or(0, |witnessing| {
            witnessing.restart();
            witnessing.size()
        });
        self.note(|status| {
            *status = SubscriberStatus {
                connected: true,
                next,
                head: ready.head.size,
                receipted: if ready.receipt_number > 0 {
                    ready.receipt_size
                } else {
                    receipted
                },
                receipt_number: ready.receipt_number,
                paused_because: String::new(),
                witnessed,
                unwitnessed_because: String::new(),
            };
        });
        Ok(link)
    }

    /// A producer that shows a newer statement than the one known has rotated keys: from now on it is judged by that one.
    fn adopt_statement(&mut self, session: &Session) -> Result<(), SubscribeError> {
        let shown = session.peer();
        let known = &self.options.producer;
        let same = shown.statement.authority == known.authority
            && shown.statement.descends_from(&known.organization);
        if !same || shown.statement.number < known.number {
            // The right organization, but what it has dropped since may be somebody else's.
            return Err(SubscribeError::OlderStatement {
                authority: known.authority.to_string(),
                known: known.number,
                shown: shown.statement.number,
            });
        }
        if shown.statement.number > known.number {
            self.options.producer = shown.statement.clone();
            let kept = self.options.keep.keep_producer(&shown.envelope);
            kept.map_err(|error| SubscribeError::Keep { kind: error.kind() })?;
        }
        self.renew_keys()
    }

    /// The log's keys, as of now.
    fn renew_keys(&mut self) -> Result<(), SubscribeError> {
        let keys = log_keys(&self.options)?;
        if let Some(reader) = &mut self.reader {
            reader.judge_by(keys);
        }
        Ok(())
    }

    /// Before a head is judged: a key may have ended since the last one.
    fn keep_keys_current(&mut self) -> Result<(), SubscribeError> {
        let now = (self.options.session.clock)();
        let end = self
            .reader
            .as_ref()
            .and_then(|reader| reader.keys().next_end());
        match end {
            Some(end) if end <= now => self.renew_keys(),
            _ => Ok(()),
        }
    }

    fn request(&self) -> Subscribe {
        let state = &self.options.state;
        let start = match (&self.reader, self.options.start, state.cursor) {
            (Some(reader), ..) => StartAt::Cursor {
                next: reader.next(),
                leaf: reader.last_leaf(),
            },
            (None, Start::Resume, Some(Cursor { next, leaf })) => StartAt::Cursor { next, leaf },
            (None, Start::Resume, None) => StartAt::Sequence(0),
            (None, Start::Sequence(sequence), _) => StartAt::Sequence(sequence),
            (None, Start::Time(time), _) => StartAt::Time(time.0),
            (None, Start::Now, _) => StartAt::Now,
        };
        let newest = self
            .reader
            .as_ref()
            .and_then(LogReader::signed)
            .map(|signed| signed.size);
        Subscribe {
            agreement: self.options.agreement.id.0,
            stream: self.options.agreement.stream.to_string(),
            start,
            newest_size: newest
                .or(state.newest.as_ref().map(|head| head.size))
                .unwrap_or(0),
            series: state.series.0,
            purpose: self.options.purpose.clone(),
        }
    }

    /// Verifies where the producer starts: in the signed log, after the newest checkpoint ever seen, at the place that was asked for.
    fn take_ready(
        &mut self,
        ready: &SubscribeReady,
        frame: &RawFrame,
    ) -> Result<(), SubscribeError> {
        let origin = self.options.agreement.stream.as_str();
        let kept = self
            .options
            .state
            .newest
            .as_ref()
            .map(|head| head.checkpoint(origin));
        let newest = self
            .reader
            .as_ref()
            .and_then(LogReader::signed)
            .cloned()
            .or(kept);
        let keys: LogKeys = log_keys(&self.options)?;
        let started = LogReader::from_ready(origin, keys, ready, newest.as_ref());
        let shows = self.options.agreement.plan.fields.is_some();
        let started = started
            .map_err(|fault| self.fault(fault, frame))?
            .taking_views(shows)
            .with_filter(self.filter.clone());
        let asked = match self.request().start {
            StartAt::Cursor { next, leaf } => Some((next, Some(leaf))),
            StartAt::Sequence(sequence) => Some((sequence.min(ready.head.size), None)),
            StartAt::Now | StartAt::Time(_) => None,
        };
        if let Some((expected, leaf)) = asked
            && (ready.start != expected || leaf.is_some_and(|leaf| leaf != ready.last_leaf))
        {
            let found = ready.start;
            return Err(self.fault(BatchFault::Position { expected, found }, frame));
        }
        match &mut self.reader {
            // The same position in a log that was just proven to continue the known one. What this reader knows of time it verified itself.
            Some(reader) if reader.root() == started.root() => {
                let noted = reader.note_head(&ready.head);
                noted.map_err(|fault| self.fault(fault, frame))?;
            }
            Some(_) => {
                return Err(self.fault(BatchFault::Contradiction { size: ready.start }, frame));
            }
            None => self.reader = Some(started),
        }
        self.options.state.newest = Some(ready.head.clone());
        if self.end.is_none() && !self.options.follow {
            self.end = Some(ready.head.size);
        }
        self.cursor.get_or_insert(Cursor {
            next: ready.start,
            leaf: ready.last_leaf,
        });
        Ok(())
    }

    async fn serve(&mut self, link: &mut Link) -> Result<Turn, SubscribeError> {
        let batches = self.channels.batches.clone();
        loop {
            self.release();
            self.tell_the_end();
            let due = self.receipts.due();
            if due.is_some_and(|due| due <= Instant::now()) {
                self.send_receipt(link).await?;
                continue;
            }
            let due = due.into_iter().chain(self.ask(link)).min();
            let held = self.witnessing.as_ref();
            let has_room = self.outbox.is_none() && held.is_none_or(Witnessing::has_room);
            tokio::select! {
                frame = link.stream.reader.next(), if has_room => {
                    let frame = frame?.ok_or(SessionError::StreamEnded { awaited: "more of the log" })?;
                    self.take_frame(frame)?;
                }
                permit = batches.reserve(), if self.outbox.is_some() => {
                    let Ok(permit) = permit else { return Ok(Turn::Stopped) };
                    if let Some(item) = self.outbox.take() {
                        permit.send(Ok(item));
                    }
                }
                answer = answered(self.witnessing.as_mut()) => self.take_answer(answer)?,
                changed = self.channels.applied.changed() => {
                    if changed.is_err() { return Ok(Turn::Stopped) }
                    self.take_applied();
                }
                _ = self.channels.stop.changed() => return Ok(Turn::Stopped),
                () = batches.closed() => return Ok(Turn::Stopped),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    fn tell_the_end(&mut self) {
        let is_reached = self.end.is_some_and(|end| self.start() >= end);
        if is_reached
            && !self.end_was_told
            && self.outbox.is_none()
            && self.witnessing.as_mut().is_none_or(Witnessing::is_done)
        {
            self.end_was_told = true;
            self.outbox = Some(None);
        }
    }

    /// What has been witnessed since is for the application.
    fn release(&mut self) {
        if self.outbox.is_none()
            && !self.end_was_told
            && let Some(batch) = self.witnessing.as_mut().and_then(Witnessing::release)
        {
            self.outbox = Some(Some(batch));
        }
    }

    /// Asks up to where the stream is witnessed, where something waits for that. When there is something to do again.
    fn ask(&mut self, link: &Link) -> Option<Instant> {
        let (Some(witnessing), Some(reader), false) =
            (&mut self.witnessing, &self.reader, self.end_was_told)
        else {
            return None;
        };
        let tree = (reader.next(), reader.root());
        witnessing.ask(&link.session, self.options.agreement.stream.as_str(), tree);
        witnessing.due()
    }

    fn take_answer(&mut self, answer: Answer) -> Result<(), SubscribeError> {
        let frame = match answer.frame {
            Ok(frame) => frame,
            Err(error) if error.is_lasting() => return Err(error.into()),
            Err(error) => {
                tracing::debug!(%error, "the producer did not say up to where its stream is witnessed");
                return Ok(());
            }
        };
        let state: WitnessedState = self.read(&frame)?;
        self.keep_keys_current()?;
        let (Some(witnessing), Some(reader)) = (&mut self.witnessing, &self.reader) else {
            return Ok(());
        };
        let stream = &self.options.agreement.stream;
        let waits = match witnessing.take(stream, reader.keys(), answer.asked, &state) {
            Ok(waits) => waits.unwrap_or_default(),
            Err(fault) => return Err(self.fault(fault, &frame)),
        };
        let witnessed = witnessing.size();
        self.channels.status.send_if_modified(|status| {
            let is_new = status.witnessed != witnessed || status.unwitnessed_because != waits;
            status.witnessed = witnessed;
            status.unwitnessed_because = waits;
            is_new
        });
        Ok(())
    }

    fn take_frame(&mut self, frame: RawFrame) -> Result<(), SubscribeError> {
        match frame.kind {
            BatchMessage::KIND => self.take_batch(&frame),
            // For nodes, which have an encryption key: what is encrypted is handed on as it came.
            Keys::KIND => Ok(()),
            Skipped::KIND => {
                let skipped: Skipped = self.read(&frame)?;
                self.claim = Some(skipped.claim);
                Ok(())
            }
            Heads::KIND => {
                let heads: Heads = self.read(&frame)?;
                self.take_heads(&heads, &frame)
            }
            ReceiptAck::KIND => {
                let ack: ReceiptAck = self.read(&frame)?;
                self.take_receipt_ack(ack, &frame)
            }
            Ended::KIND => {
                let ended: Ended = self.read(&frame)?;
                Err(self.ended(&ended, &frame))
            }
            _ => Err(self.unexpected(&frame)),
        }
    }

    fn take_batch(&mut self, frame: &RawFrame) -> Result<(), SubscribeError> {
        self.keep_keys_current()?;
        let message = BatchMessage::read_bulk(frame.kind, &frame.body);
        let (message, bulk) = message.map_err(|error| self.message(error, frame))?;
        if self.end_was_told {
            // Beyond the head where reading ends: neither verified nor receipted.
            return Ok(());
        }
        let Some(reader) = &mut self.reader else {
            return Ok(());
        };
        let batch = match reader.take(message, bulk) {
            Ok(batch) => batch,
            Err(fault) => return Err(self.fault(fault, frame)),
        };
        if let Some(filter) = &self.filter {
            let claim = self.claim.take().unwrap_or_default();
            let (agreement, producer) = (&self.options.agreement, &self.options.producer);
            check_skip_claim(&batch, filter, agreement, producer, &claim)
                .map_err(|fault| self.fault(fault, frame))?;
        }
        let Cover::Checkpoint { head, .. } = batch.cover();
        self.options.state.newest = Some(head.clone());
        self.receipts.verified(&batch);
        let head = head.size;
        self.note(|status| {
            status.next = batch.end();
            status.head = head;
            status.paused_because.clear();
        });
        let batch = EventBatch(batch);
        match &mut self.witnessing {
            Some(witnessing) => witnessing.hold(batch),
            None => self.outbox = Some(Some(batch)),
        }
        Ok(())
    }

    fn take_heads(&mut self, heads: &Heads, frame: &RawFrame) -> Result<(), SubscribeError> {
        self.keep_keys_current()?;
        if let Some(reader) = &mut self.reader
            && let Err(fault) = reader.note_head(&heads.head)
        {
            return Err(self.fault(fault, frame));
        }
        self.options.state.newest = Some(heads.head.clone());
        self.note(|status| {
            status.head = heads.head.size;
            status.paused_because = crate::error::shown(&heads.paused);
        });
        Ok(())
    }

    fn take_receipt_ack(
        &mut self,
        ack: ReceiptAck,
        frame: &RawFrame,
    ) -> Result<(), SubscribeError> {
        if !self.receipts.acknowledged(ack.number) {
            return Err(self.unexpected(frame));
        }
        if ack.number == self.receipts.number() {
            let receipted = self.receipts.size();
            self.note(|status| {
                status.receipted = receipted;
                status.receipt_number = ack.number;
            });
        }
        Ok(())
    }

    fn take_applied(&mut self) {
        let applied = *self.channels.applied.borrow_and_update();
        if let Some(applied) = applied {
            self.cursor = Some(applied);
            self.receipts.applied(applied.next);
        }
    }

    /// Signs, keeps, sends; in this order.
    async fn send_receipt(&mut self, link: &mut Link) -> Result<(), SubscribeError> {
        let made = (self.options.session.clock)();
        let state = &mut self.options.state;
        let envelope = self.receipts.sign(state, made, &self.options.receipt_key);
        self.keep().await?;
        let envelope = envelope.to_json();
        link.stream.send(&ReceiptMessage { envelope }).await?;
        Ok(())
    }

    /// Makes the state durable. A cursor beyond the last receipt waits for the next one: the counts of receipts could not be continued from there.
    async fn keep(&mut self) -> Result<(), SubscribeError> {
        let state = &mut self.options.state;
        state.cursor = match (self.cursor, state.receipted) {
            (Some(cursor), Some(receipted)) if cursor.next > receipted.next => Some(receipted),
            (cursor, _) => cursor,
        };
        let state: SubscriptionState = state.clone();
        let mut keep: Box<dyn KeepState> =
            std::mem::replace(&mut self.options.keep, Box::new(super::Forget));
        let kept = tokio::task::spawn_blocking(move || (keep.keep(&state), keep)).await;
        let Ok((kept, keep)) = kept else {
            return Err(SubscribeError::State { part: "its keeper" });
        };
        self.options.keep = keep;
        kept.map_err(|error| SubscribeError::Keep { kind: error.kind() })
    }

    /// The last receipts, as far as the producer answers in time, and the last word on disk.
    async fn finish(&mut self, link: &mut Link) -> Result<(), SubscribeError> {
        self.take_applied();
        let deadline = Instant::now() + CLOSING_TIME;
        let closing = timeout_at(deadline, self.settle(link)).await;
        match closing {
            Ok(Err(error @ SubscribeError::Keep { .. })) => return Err(error),
            Ok(Err(error)) => tracing::debug!(%error, "the last receipt was not answered"),
            Err(_) => tracing::debug!("the last receipt was not answered in time"),
            Ok(Ok(())) => {}
        }
        self.keep().await
    }

    async fn settle(&mut self, link: &mut Link) -> Result<(), SubscribeError> {
        loop {
            if self.receipts.is_possible() {
                self.send_receipt(link).await?;
            }
            if !self.receipts.is_awaited() {
                break;
            }
            let frame = link.stream.reader.next().await?;
            let frame = frame.ok_or(SessionError::StreamEnded {
                awaited: "the answer to a receipt",
            })?;
            // What else was on its way is neither verified nor receipted any more.
            if frame.kind == ReceiptAck::KIND {
                self.take_frame(frame)?;
            }
        }
        link.stream.writer.finish().map_err(SessionError::from)?;
        Ok(())
    }

    fn ended(&self, ended: &Ended, frame: &RawFrame) -> SubscribeError {
        let read = countersign_event::dsse::Envelope::from_json(&ended.refusal);
        let read = read.map_err(|_| {
            self.message(
                countersign_protocol::FrameError::Malformed { kind: frame.kind },
                frame,
            )
        });
        match read.map(|envelope| RefusedBy::open(envelope, &self.options.producer)) {
            Ok(Ok(refused)) => SubscribeError::Refused(Box::new(refused)),
            Ok(Err(error)) => error.into(),
            Err(error) => error,
        }
    }

    fn read<M: Message>(&self, frame: &RawFrame) -> Result<M, SubscribeError> {
        M::read(frame.kind, &frame.body).map_err(|error| self.message(error, frame))
    }

    fn unexpected(&self, frame: &RawFrame) -> SubscribeError {
        let error = countersign_protocol::FrameError::UnexpectedKind {
            expected: BatchMessage::KIND,
            found: frame.kind,
        };
        self.message(error, frame)
    }

    fn message(&self, error: countersign_protocol::FrameError, frame: &RawFrame) -> SubscribeError {
        SubscribeError::Message {
            stream: self.options.agreement.stream.to_string(),
            error,
            kind: frame.kind,
            frame: Bytes::clone(&frame.body),
        }
    }

    fn fault(&self, fault: BatchFault, frame: &RawFrame) -> SubscribeError {
        SubscribeError::Fault {
            stream: self.options.agreement.stream.to_string(),
            fault,
            kind: frame.kind,
            frame: Bytes::clone(&frame.body),
        }
    }

    fn note(&self, change: impl FnOnce(&mut SubscriberStatus)) {
        self.channels.status.send_modify(change);
    }
}

/// What the producer says of its witnesses; never, where nobody asked.
async fn answered(witnessing: Option<&mut Witnessing>) -> Answer {
    match witnessing {
        Some(witnessing) => witnessing.answered().await,
        None => std::future::pending().await,
    }
}
