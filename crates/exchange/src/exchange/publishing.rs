//! The publisher's door.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_event::content::Limits;
use countersign_event::names::{Origin, StreamName};
use countersign_protocol::{PublishOpen, PublishReady};

use super::throttle::Paid;
use super::{Exchange, ExchangeError, StreamError, StreamOptions};
use crate::access::Peer;
use crate::log::{Log, LogSettings};
use crate::pipeline::append::{AppendError, Appended, Done, answer};
use crate::pipeline::duplicates::{Publisher, RUNS_MAX, UNNUMBERED_WINDOW};
use crate::pipeline::ingest::Drafts;
use crate::pipeline::seal::{seal, seal_to_encrypt};

/// Bytes of batches that one publisher may have unacknowledged: at 1 GB/s and a commit of 2 ms the link stays full with half of it.
pub const PUBLISH_WINDOW_BYTES: u32 = 8 << 20;

impl Exchange {
    /// A publisher begins: who may, into which stream, where its series stands.
    ///
    /// # Errors
    /// [`ExchangeError::Refused`], [`StreamError`].
    pub async fn open_publish(
        self: &Arc<Self>,
        peer: &Peer,
        open: &PublishOpen,
    ) -> Result<(PublishReady, PublishSession), ExchangeError> {
        // Before anything is judged: what changes meanwhile is looked at again.
        let generation = self.access_generation();
        if !self.is_own(peer) {
            // Whether there is such a stream is not told by how publishing to it fails.
            let own = self.identity().authority();
            let name = open.stream.parse::<StreamName>().ok();
            let origin = name.map(|name| Origin::of_stream(own, &name).to_string());
            let asked = origin.as_ref().unwrap_or(&open.stream);
            self.discover(peer, "publish", asked, None)?;
        }
        let log = match self.own_stream(&open.stream) {
            Ok(log) => {
                self.allow_publish(peer, log.origin(), log.settings())?;
                log
            }
            Err(StreamError::Unknown { .. }) if open.create => {
                self.create_for(peer, &open.stream).await?
            }
            Err(error) => return Err(error.into()),
        };
        let key = match peer {
            Peer::App { key, .. } => *key.as_bytes(),
            Peer::Holder { statement } => *statement.organization.as_bytes(),
            Peer::Local => *self.identity().first_node_key().as_bytes(),
            Peer::Organization { node, .. } => *node.as_bytes(),
        };
        let publisher = Publisher {
            key,
            series: open.series,
        };
        let (last_number, last_sequence) = self.writer.series_state(log.number(), publisher).await;
        let event_bytes_max = self.event_bytes_max(log.settings());
        let ready = PublishReady {
            origin: log.origin().to_string(),
            last_number,
            last_sequence,
            event_bytes_max,
            window_bytes: PUBLISH_WINDOW_BYTES,
            duplicate_window_events: if publisher.is_numbered() {
                RUNS_MAX as u64
            } else {
                UNNUMBERED_WINDOW as u64
            },
        };
        let limits = Limits {
            data_bytes_max: event_bytes_max as usize,
            ..self.limits
        };
        Ok((
            ready,
            PublishSession {
                exchange: Arc::clone(self),
                peer: peer.clone(),
                judged: AtomicU64::new(generation),
                paid: self.throttle.of(publisher.key, log.origin()),
                log,
                publisher,
                limits,
            },
        ))
    }

    /// Makes a stream for a publisher. Who may not publish may not make streams either: that is judged on a stream of that name before it exists.
    async fn create_for(
        self: &Arc<Self>,
        peer: &Peer,
        stream: &str,
    ) -> Result<Arc<Log>, ExchangeError> {
        let name: StreamName = stream.parse().map_err(StreamError::from)?;
        let origin = Origin::of_stream(self.identity().authority(), &name);
        self.allow_publish(peer, &origin, &LogSettings::default())?;
        match self.create_stream(&name, StreamOptions::default()).await {
            Err(ExchangeError::Stream(StreamError::Exists { .. })) => Ok(self.own_stream(stream)?),
            created => created,
        }
    }
}

/// An open publishing session: batches go in, answers come back in the order of the commits.
pub struct PublishSession {
    exchange: Arc<Exchange>,
    peer: Peer,
    /// The state of access under which it was judged last.
    judged: AtomicU64,
    paid: Paid,
    log: Arc<Log>,
    publisher: Publisher,
    limits: Limits,
}

impl PublishSession {
    /// The stream.
    #[must_use]
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Takes a batch: checks, seals and queues it. `done` is called when it is integrated. Waits while the queue is full.
    ///
    /// # Errors
    /// [`ExchangeError::Ingest`], [`ExchangeError::Refused`] where the publisher may no longer: nothing of the batch is taken.
    pub async fn submit(
        &self,
        first_number: u64,
        count: u32,
        bulk: bytes::Bytes,
        done: Done,
    ) -> Result<(), ExchangeError> {
        let generation = self.exchange.access_generation();
        if self.judged.load(Ordering::Relaxed) != generation {
            self.exchange.still_publishes(&self.peer, &self.log)?;
            self.judged.store(generation, Ordering::Relaxed);
        }
        let _judging = self.exchange.author_rules().read().await;
        let rule = self.exchange.author_rule(&self.log, u64::MAX);
        self.exchange
            .throttle(&self.paid, self.log.origin(), u64::from(count))?;
        let drafts = Drafts::from_bulk(
            bulk,
            count,
            &self.limits,
            rule.as_deref(),
            self.log.settings().fields,
        )?;
        let seal = if self.log.is_encrypted() {
            seal_to_encrypt
        } else {
            seal
        };
        let sealed = self.exchange.with_entropy(|entropy| seal(&drafts, entropy));
        let publisher = Some((self.publisher, first_number));
        self.exchange
            .writer
            .append(Arc::clone(&self.log), sealed, publisher, done)
            .await;
        Ok(())
    }

    /// Takes a batch and waits until it is integrated.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn submit_and_wait(
        &self,
        first_number: u64,
        count: u32,
        bulk: bytes::Bytes,
    ) -> Result<Appended, ExchangeError> {
        let (done, receiver) = answer();
        self.submit(first_number, count, bulk, done).await?;
        Ok(receiver
            .await
            .unwrap_or_else(|_| Err(AppendError::ended()))?)
    }
}
