//! What the pushing side and the worker share: pure bookkeeping under one lock, held for a copy of one event at most.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use countersign_event::attributes::ATTRIBUTE_BYTES_MAX;
use countersign_protocol::publish::{EVENT_HEADER_BYTES, write_event};
use countersign_protocol::{PublishAck, PublishReady};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, watch};

use super::{Ack, BATCH_BYTES_MAX, BATCH_EVENTS_MAX, Pending, PublishError, PublisherOptions};

/// Largest bulk that a caller may hand over as one batch: a frame holds it with room for its head.
const BULK_BYTES_MAX: usize = countersign_protocol::BULK_FRAME_BYTES_MAX - 64;

/// What became of a batch.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Waiting,
    Acknowledged(Ack),
    Failed(PublishError),
}

/// Events that travel together.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) first: u64,
    pub(super) count: u32,
    pub(super) bulk: Bytes,
    outcome: watch::Sender<Outcome>,
}

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Wakes the worker.
    work: Notify,
    /// Wakes those who wait for room.
    room: Notify,
    progress: watch::Sender<Progress>,
    batch_bytes: usize,
    is_numbered: bool,
}

#[derive(Debug)]
struct Progress {
    acknowledged: u64,
    duplicates: u64,
    over: Option<PublishError>,
}

#[derive(Debug)]
struct State {
    open: Vec<u8>,
    open_count: u32,
    outcome: watch::Sender<Outcome>,
    /// The number of the next event.
    next: u64,
    queue: VecDeque<Batch>,
    flight: VecDeque<Batch>,
    /// Bytes of the open batch, the queue and the flight.
    unacknowledged: usize,
    window: usize,
    event_bytes_max: usize,
    /// The open batch has to leave although something is on its way.
    urgent: bool,
    is_closed: bool,
    over: Option<PublishError>,
}

impl Shared {
    pub(super) fn new(options: &PublisherOptions, ready: &PublishReady) -> Self {
        let batch_bytes = options.batch_bytes.clamp(1, BATCH_BYTES_MAX);
        let is_numbered = options.is_numbered();
        let last = if is_numbered { ready.last_number } else { 0 };
        let shared = Self {
            state: Mutex::new(State {
                open: Vec::with_capacity(batch_bytes),
                open_count: 0,
                outcome: watch::Sender::new(Outcome::Waiting),
                next: last.saturating_add(1),
                queue: VecDeque::new(),
                flight: VecDeque::new(),
                unacknowledged: 0,
                window: 0,
                event_bytes_max: 0,
                urgent: false,
                is_closed: false,
                over: None,
            }),
            work: Notify::new(),
            room: Notify::new(),
            progress: watch::Sender::new(Progress {
                acknowledged: last,
                duplicates: 0,
                over: None,
            }),
            batch_bytes,
            is_numbered,
        };
        shared.take_limits(options, ready);
        shared
    }

    fn take_limits(&self, options: &PublisherOptions, ready: &PublishReady) {
        let mut state = self.state();
        state.window = options.window_bytes.min(ready.window_bytes as usize).max(1);
        state.event_bytes_max = ready.event_bytes_max as usize;
    }

    // The pushing side.

    pub(super) fn push(&self, attributes: &[u8], data_part: &[u8]) -> Result<u64, PublishError> {
        let mut state = self.state();
        self.put(&mut state, attributes, data_part)
    }

    pub(super) fn push_watched(
        &self,
        attributes: &[u8],
        data_part: &[u8],
    ) -> Result<Pending, PublishError> {
        let mut state = self.state();
        // The batch may be sealed by this very event.
        let outcome = state.outcome.subscribe();
        let number = self.put(&mut state, attributes, data_part)?;
        Ok(Pending { number, outcome })
    }

    pub(super) fn push_batch(&self, bulk: Bytes, count: u32) -> Result<Pending, PublishError> {
        let bytes = bulk.len();
        if count == 0 || count > BATCH_EVENTS_MAX || bytes > BULK_BYTES_MAX {
            let limit = BULK_BYTES_MAX;
            return Err(PublishError::Batch {
                count,
                bytes,
                limit,
            });
        }
        let mut state = self.state();
        state.admit(bytes)?;
        self.seal(&mut state);
        let outcome = watch::Sender::new(Outcome::Waiting);
        let pending = Pending {
            number: state.next,
            outcome: outcome.subscribe(),
        };
        let first = state.next;
        state.next = first.saturating_add(u64::from(count));
        state.unacknowledged += bytes;
        state.queue.push_back(Batch {
            first,
            count,
            bulk,
            outcome,
        });
        drop(state);
        self.work.notify_one();
        Ok(pending)
    }

    fn put(
        &self,
        state: &mut State,
        attributes: &[u8],
        data_part: &[u8],
    ) -> Result<u64, PublishError> {
        if attributes.len() > ATTRIBUTE_BYTES_MAX {
            return Err(PublishError::TooLarge {
                part: "attributes",
                bytes: attributes.len(),
                limit: ATTRIBUTE_BYTES_MAX,
            });
        }
        let data = data_bytes(data_part);
        if data > state.event_bytes_max {
            return Err(PublishError::TooLarge {
                part: "data",
                bytes: data,
                limit: state.event_bytes_max,
            });
        }
        let bytes = EVENT_HEADER_BYTES + attributes.len() + data_part.len();
        state.admit(bytes)?;
        write_event(&mut state.open, attributes, data_part);
        state.open_count += 1;
        state.unacknowledged += bytes;
        let number = state.next;
        state.next = number.saturating_add(1);
        if state.open.len() >= self.batch_bytes || state.open_count >= BATCH_EVENTS_MAX {
            self.seal(state);
            self.work.notify_one();
        } else if state.open_count == 1 && state.flight.is_empty() && state.queue.is_empty() {
            // Nothing is on its way that would wake the worker later.
            self.work.notify_one();
        }
        Ok(number)
    }

    /// Moves the open batch into the queue.
    fn seal(&self, state: &mut State) {
        if state.open_count == 0 {
            return;
        }
        let count = mem::take(&mut state.open_count);
        let room = self.batch_bytes.min(state.open.len() * 2);
        let bulk = Bytes::from(mem::replace(&mut state.open, Vec::with_capacity(room)));
        let outcome = mem::replace(&mut state.outcome, watch::Sender::new(Outcome::Waiting));
        let first = state.next - u64::from(count);
        state.queue.push_back(Batch {
            first,
            count,
            bulk,
            outcome,
        });
    }

    pub(super) fn room(&self) -> Notified<'_> {
        self.room.notified()
    }

    pub(super) async fn flush(&self) -> Result<(), PublishError> {
        let last = {
            let mut state = self.state();
            state.urgent = true;
            state.next - 1
        };
        self.work.notify_one();
        let mut progress = self.progress.subscribe();
        let reached = progress
            .wait_for(|now| now.acknowledged >= last || now.over.is_some())
            .await;
        let reached = reached.map_err(|_| PublishError::Closed)?;
        match &reached.over {
            Some(error) if reached.acknowledged < last => Err(error.clone()),
            _ => Ok(()),
        }
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.progress.borrow().acknowledged
    }

    pub(super) fn duplicates(&self) -> u64 {
        self.progress.borrow().duplicates
    }

    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.work.notify_one();
        self.room.notify_waiters();
    }

    // The worker.

    /// The next batch to send, now on its way; `None` where there is nothing to send yet. A batch's bytes are shared, not copied.
    pub(super) fn next_to_send(&self) -> Option<(u64, u32, Bytes)> {
        let mut state = self.state();
        if state.queue.is_empty() && (state.flight.is_empty() || state.urgent) {
            self.seal(&mut state);
            state.urgent = false;
        }
        let batch = state.queue.pop_front()?;
        let parts = (batch.first, batch.count, batch.bulk.clone());
        state.flight.push_back(batch);
        Some(parts)
    }

    /// Whether the worker has nothing left to do.
    pub(super) fn is_finished(&self) -> bool {
        self.state().is_closed
    }

    pub(super) async fn worked(&self) {
        self.work.notified().await;
    }

    /// The acknowledgement of the oldest batch on its way.
    pub(super) fn acknowledge(&self, ack: &PublishAck) -> Result<(), PublishError> {
        let mut state = self.state();
        let expected = state.flight.front().map_or(state.next, |batch| batch.first);
        let fits = state
            .flight
            .front()
            .is_some_and(|batch| batch.first == ack.first_number && batch.count == ack.count);
        let batch = if fits { state.flight.pop_front() } else { None };
        let Some(batch) = batch else {
            return Err(PublishError::Acknowledgement {
                expected,
                found: ack.first_number,
                count: ack.count,
            });
        };
        state.unacknowledged -= batch.bulk.len();
        // An acknowledgement is the moment at which what has gathered leaves.
        state.urgent = true;
        drop(state);
        let acknowledged = batch.first + u64::from(batch.count) - 1;
        self.progress.send_modify(|progress| {
            progress.acknowledged = acknowledged;
            progress.duplicates += u64::from(ack.duplicates);
        });
        batch.outcome.send_replace(Outcome::Acknowledged(Ack {
            first_number: ack.first_number,
            count: ack.count,
            duplicates: ack.duplicates,
            last_sequence: ack.last_sequence,
        }));
        self.work.notify_one();
        self.room.notify_waiters();
        Ok(())
    }

    /// A new connection: what was on its way goes again, in its order, under its numbers.
    pub(super) fn resume(
        &self,
        options: &PublisherOptions,
        ready: &PublishReady,
    ) -> Result<(), PublishError> {
        self.take_limits(options, ready);
        let acknowledged = self.acknowledged();
        let mut state = self.state();
        if self.is_numbered {
            let held = ready.last_number;
            if held < acknowledged {
                return Err(PublishError::NodeWentBack { held, acknowledged });
            }
            let ours = state.next - 1;
            if held > ours {
                return Err(PublishError::SeriesShared { held, ours });
            }
        }
        while let Some(batch) = state.flight.pop_back() {
            state.queue.push_front(batch);
        }
        Ok(())
    }

    /// The end: nothing more is acknowledged.
    pub(super) fn fail(&self, error: &PublishError) {
        let mut state = self.state();
        state.over.get_or_insert_with(|| error.clone());
        let batches: Vec<Batch> = {
            let State { flight, queue, .. } = &mut *state;
            flight.drain(..).chain(queue.drain(..)).collect()
        };
        state.outcome.send_replace(Outcome::Failed(error.clone()));
        drop(state);
        for batch in batches {
            batch.outcome.send_replace(Outcome::Failed(error.clone()));
        }
        self.progress
            .send_modify(|progress| progress.over = Some(error.clone()));
        self.room.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held left numbers, not half-written structures.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether `bytes` more may wait. One event is always allowed, however small the window.
    fn admit(&self, bytes: usize) -> Result<(), PublishError> {
        if let Some(over) = &self.over {
            return Err(over.clone());
        }
        if self.is_closed {
            return Err(PublishError::Closed);
        }
        if self.unacknowledged > 0 && self.unacknowledged.saturating_add(bytes) > self.window {
            return Err(PublishError::Full {
                window_bytes: self.window,
            });
        }
        Ok(())
    }
}

/// Bytes of the data within an encoded data part; author material has a limit of its own, which the node checks.
fn data_bytes(part: &[u8]) -> usize {
    const AUTHOR_MATERIAL: u8 = 0x80;
    let head = match part {
        [head, a, b, c, d, ..] if head & AUTHOR_MATERIAL != 0 => {
            5_usize.saturating_add(u32::from_be_bytes([*a, *b, *c, *d]) as usize)
        }
        _ => 1,
    };
    part.len().saturating_sub(head)
}
