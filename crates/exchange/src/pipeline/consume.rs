//! Consume: batches of a partner's log → a verified copy, and the receipts for it.
//!
//! A batch is verified before it is queued, durable before it is receipted, and the receipt is durable in our own ledger before it is sent: two
//! receipts with one number and other words would be proof against us.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use countersign_crypto::Hash;
use countersign_event::control::Allows;
use countersign_event::documents::{
    AgreementId, Digest, Erasure as Term, KeyWrap, LogKeys, Plan, Receipt, Role,
};
use countersign_event::dsse::Envelope;
use countersign_event::encryption::UnwrapError;
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::{Authority, Origin};
use countersign_filter::Filter;
use countersign_protocol::delivery::{
    BatchFault, BatchMessage, Claim, Cover, LogReader, VerifiedBatch, check_skip_claim,
};
use countersign_protocol::{
    Heads, Keys, Message as _, SignedHead, StartAt, Subscribe, SubscribeReady,
};
use countersign_store::journal::{Birth, Erasure, LogKind};
use countersign_tlog::{Checkpoint, verify_consistency};
use tokio::sync::oneshot;

use super::append::{AppendError, Appended};
use super::receipt::{Reached, ReceiptSeries};
use crate::refusal::Refused;
use crate::status::{Direction, SubscriptionStatus};
use crate::{Exchange, ExchangeError, Log, LogSettings};

/// Batches verified and on their way to the disk: enough to hash while the disk syncs, few enough to bound memory (each up to about 1 MiB).
pub const BATCHES_IN_FLIGHT_MAX: usize = 8;

/// The reading side of one subscription.
pub struct Consumption {
    exchange: Arc<Exchange>,
    /// The state of access by which the log's keys were looked up.
    generation: u64,
    agreement: AgreementId,
    stream: Origin,
    producer: Authority,
    copy: Option<Arc<Log>>,
    reader: LogReader,
    series: ReceiptSeries,
    /// The successor that the series is bound to.
    restored: Option<Origin>,
    exposure: u64,
    /// What the plan lets through: the producer leaves out the rest.
    filter: Option<Arc<Filter>>,
    /// The producer's word on what it left out of the batch that comes next.
    claim: Option<Vec<u8>>,
    pending: VecDeque<Pending>,
    /// What is durable here, with the counts since the last receipt.
    reached: Reached,
    head: u64,
    paused: String,
    author_fault_told: bool,
    signing: Option<(Envelope, oneshot::Receiver<Result<Appended, AppendError>>)>,
}

struct Pending {
    end: u64,
    root: Hash,
    events: u64,
    bytes: u64,
    durable: oneshot::Receiver<Result<Appended, AppendError>>,
}

type Queued = Result<Result<Appended, AppendError>, oneshot::error::RecvError>;

enum Durable {
    Batch(Queued),
    Receipt(Queued),
}

async fn or_pending(
    receiver: Option<&mut oneshot::Receiver<Result<Appended, AppendError>>>,
) -> Queued {
    match receiver {
        Some(receiver) => receiver.await,
        None => std::future::pending().await,
    }
}

/// Why reading stops.
#[derive(Debug, thiserror::Error)]
pub enum ConsumeError {
    /// Something failed here.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The head shown is under a key that the producer's organization has revoked. The bytes were kept, and the no is in the ledger.
    #[error("{}", .refused.refusal.reason)]
    Revoked {
        /// The signed no.
        refused: Box<Refused>,
    },
    /// The producer sent something that is not its signed log. The bytes were kept as evidence.
    #[error("`{stream}` sent what cannot be accepted: {fault}")]
    Fault {
        /// The log.
        stream: Origin,
        /// What was wrong.
        fault: BatchFault,
        /// File name of the kept bytes.
        evidence: Option<String>,
    },
}

impl ConsumeError {
    /// Whether the log does not go on from what it signed before, or withholds content under a false claim. One that shrank may be an older copy whose owner
    /// mends it; one that forked is never read on ([`Exchange::has_forked`]).
    #[must_use]
    pub fn is_fork(&self) -> bool {
        use BatchFault::{Contradiction, FalseClaim, Shrunk};
        matches!(
            self,
            Self::Fault {
                fault: Contradiction { .. } | FalseClaim { .. } | Shrunk { .. },
                ..
            }
        )
    }
}

impl ConsumeError {
    /// Whether content was withheld under a false claim: it is not read on before a person has looked.
    #[must_use]
    pub fn is_false_claim(&self) -> bool {
        matches!(
            self,
            Self::Fault {
                fault: BatchFault::FalseClaim { .. },
                ..
            }
        )
    }
}

impl Consumption {
    /// Prepares to read under an agreement: from where the copy ends.
    ///
    /// # Errors
    /// Where there is no such agreement, or the copy cannot be read.
    pub async fn open(
        exchange: &Arc<Exchange>,
        agreement: AgreementId,
    ) -> Result<Self, ExchangeError> {
        // Before anything is looked up: what changes meanwhile is looked up again.
        let generation = exchange.access_generation();
        let (stream, producer, exposure, shows, filter, series, receipted, restored) = {
            let registry = exchange.registry();
            let state = registry
                .agreements
                .get(&agreement)
                .ok_or(ExchangeError::UnknownAgreement)?;
            let stream = state.agreement.stream.clone();
            let producer = state.agreement.producer.authority.clone();
            let exposure = state.agreement.plan.exposure_events.max(1);
            let shows = state.agreement.plan.fields.is_some();
            let filter = plan_filter(&state.agreement.plan)?.map(Arc::new);
            let restored = exchange.restored_ledger(&producer);
            // Of several, the one that was begun last.
            let own = registry.receipts.values().map(|last| &last.receipt);
            let of_agreement = own.filter(|receipt| {
                receipt.agreement == agreement
                    && receipt.consumer == *exchange.identity().authority()
                    && receipt.stream == stream
            });
            let mut of_agreement: Vec<&Receipt> = of_agreement.collect();
            of_agreement.sort_by_key(|receipt| (receipt.made, receipt.number));
            let last = of_agreement.iter().map(|receipt| receipt.series);
            let series = exchange.series_of(agreement, restored.as_ref(), last);
            // What was receipted under another agreement is not receipted again; all that was copied since is.
            let consumer = exchange.identity().authority();
            let receipted = registry.receipts.values().map(|last| &last.receipt);
            let receipted = receipted
                .filter(|receipt| receipt.stream == stream && receipt.consumer == *consumer)
                .map(|receipt| receipt.size)
                .max();
            (
                stream, producer, exposure, shows, filter, series, receipted, restored,
            )
        };
        // A receipt that an earlier session signed may still be on its way to the ledger: this one goes on behind it.
        let last = exchange.last_receipt(&(agreement, series));
        let copy = exchange.log(&stream);
        let keys = exchange.log_keys(&stream);
        if keys.is_empty() {
            return Err(ExchangeError::UnknownAgreement);
        }
        let reader = reader_of(exchange, &stream, keys, copy.as_deref());
        let reader = reader.taking_views(shows).with_filter(filter.clone());
        let start = last
            .as_ref()
            .map_or(receipted.unwrap_or(0), |(last, _)| last.start);
        let series = ReceiptSeries {
            agreement,
            stream: stream.clone(),
            consumer: exchange.identity().authority().clone(),
            series,
            start,
            filter: filter.as_ref().map(|filter| Digest(filter.digest())),
            last,
        };
        // What is copied beyond the last receipt still has to be receipted.
        let (events, bytes) = match &copy {
            Some(copy) => {
                let (from, to) = (series.size(), reader.next());
                let (passed, _) = exchange
                    .count_passing(copy, from, to, filter.as_deref())
                    .await?;
                (passed.events, passed.bytes)
            }
            None => (0, 0),
        };
        let reached = Reached {
            size: reader.next(),
            root: reader.root(),
            events,
            bytes,
            applied: 0,
        };
        let consumption = Self {
            exchange: Arc::clone(exchange),
            generation,
            agreement,
            stream,
            producer,
            copy,
            series,
            restored,
            exposure,
            filter,
            claim: None,
            pending: VecDeque::new(),
            head: reader.signed().map_or(reader.next(), |signed| signed.size),
            reached,
            reader,
            paused: String::new(),
            author_fault_told: false,
            signing: None,
        };
        consumption.note_status(false);
        Ok(consumption)
    }

    /// The request that opens the subscription.
    #[must_use]
    pub fn request(&self) -> Subscribe {
        Subscribe {
            agreement: self.agreement.0,
            stream: self.stream.to_string(),
            start: StartAt::Cursor {
                next: self.reader.next(),
                leaf: self.reader.last_leaf(),
            },
            newest_size: self.reader.signed().map_or(0, |signed| signed.size),
            series: self.series.series.0,
            purpose: String::new(),
        }
    }

    /// The log that is read.
    #[must_use]
    pub fn stream(&self) -> &Origin {
        &self.stream
    }

    /// The agreement that it is read under.
    #[must_use]
    pub fn agreement(&self) -> AgreementId {
        self.agreement
    }

    /// Who publishes it.
    #[must_use]
    pub fn producer(&self) -> &Authority {
        &self.producer
    }

    /// The producer is ready: checks that it starts where we stand; gives the receipts that it does not hold yet.
    ///
    /// # Errors
    /// [`ConsumeError`].
    pub async fn begin(&mut self, ready: &SubscribeReady) -> Result<Vec<Envelope>, ConsumeError> {
        let next = self.reader.next();
        if ready.start != next {
            let fault = BatchFault::Position {
                expected: next,
                found: ready.start,
            };
            return Err(self.fault(fault, &ready.to_body()));
        }
        self.renew_keys();
        let newest = self.reader.signed().cloned();
        let noted = self.reader.note_head(&ready.head);
        if let Err(fault) = noted.and_then(|()| self.check_continues(newest.as_ref(), ready)) {
            self.look_for_fork(&fault, &ready.head, &ready.from_newest);
            return Err(self.fault(fault, &ready.to_body()));
        }
        if ready.receipt_number > self.series.number() {
            // We have signed receipts that we do not know of: this directory is an older copy. What follows must not contradict them, so that it goes into
            // a series of its own.
            self.exchange
                .begin_series(self.agreement, self.restored.as_ref());
            let lost = ExchangeError::Proof(format!(
                "the producer holds {} receipts of ours and {} are known here: this directory is an older copy, and a new series begins",
                ready.receipt_number,
                self.series.number()
            ));
            return Err(lost.into());
        }
        self.exposure = ready.exposure_events.max(1);
        self.head = ready.head.size;
        self.note_status(true);
        if ready.receipt_number == self.series.number() {
            return Ok(Vec::new());
        }
        let series = self.series.series;
        let after = ready.receipt_number;
        let lacking = self
            .exchange
            .own_receipts_after(self.agreement, &self.stream, series, (after, u32::MAX))
            .await?;
        if lacking.iter().any(|receipt| self.exchange.is_void(receipt)) {
            // What the producer lacks was signed by a key that we have revoked since, and what follows would name it.
            self.exchange
                .begin_series(self.agreement, self.restored.as_ref());
            let void = "receipts that the producer does not hold were signed by a receipt key that is revoked: a new series begins";
            return Err(ExchangeError::Proof(void.to_owned()).into());
        }
        Ok(lacking)
    }

    /// Looks the log's keys up again where they may have changed, or one has ended.
    fn renew_keys(&mut self) {
        let generation = self.exchange.access_generation();
        let ended = self.reader.keys().next_end();
        let ended = ended.is_some_and(|end| end <= self.exchange.clock().now());
        if ended || generation != self.generation {
            self.generation = generation;
            self.reader.judge_by(self.exchange.log_keys(&self.stream));
        }
    }

    /// Takes the producer's word on what it left out of the batch that comes next.
    pub fn take_claim(&mut self, claim: Vec<u8>) {
        self.claim = Some(claim);
    }

    /// Verifies a batch and sends it on its way to the disk. Waits while too many are on their way. `frame` is what came, for evidence.
    ///
    /// # Errors
    /// [`ConsumeError`].
    pub async fn take(
        &mut self,
        message: BatchMessage,
        bulk: Bytes,
        frame: &[u8],
    ) -> Result<(), ConsumeError> {
        while self.pending.len() >= BATCHES_IN_FLIGHT_MAX {
            self.settle_one().await?;
        }
        self.renew_keys();
        let Cover::Checkpoint { head, .. } = &message.cover;
        let came = head.clone();
        let batch = match self.reader.take(message, bulk) {
            Ok(batch) => batch,
            Err(fault) => {
                self.look_for_fork(&fault, &came, &[]);
                return Err(self.fault(fault, frame));
            }
        };
        self.keep_claim(&batch, frame).await?;
        let Cover::Checkpoint { head, .. } = batch.cover();
        self.head = self.head.max(head.size);
        self.paused.clear();
        let copy = self.copy_log().await?;
        let (end, root) = (batch.end(), batch.range().root());
        let (events, bytes) = (batch.events(), batch.data_bytes());
        self.exchange
            .note_author_rules(&self.stream, &batch)
            .await?;
        if !self.author_fault_told
            && let Some((sequence, fault)) = self.exchange.author_fault(&self.stream, &batch)
        {
            // Once a session: the ledger says that it happens, the copy where.
            self.author_fault_told = true;
            self.exchange
                .note_author_fault(&self.stream, sequence, &fault);
        }
        // Queued in order, awaited later: hashing the next batch overlaps the sync of this one.
        let erasures = self.erasures(&batch);
        let durable = self
            .exchange
            .writer()
            .queue_copy(copy, batch, erasures)
            .await;
        self.pending.push_back(Pending {
            end,
            root,
            events,
            bytes,
            durable,
        });
        Ok(())
    }

    /// The claim on what a batch leaves out: verified, and in our ledger before the receipt for it.
    async fn keep_claim(
        &mut self,
        batch: &VerifiedBatch,
        frame: &[u8],
    ) -> Result<(), ConsumeError> {
        let claim = self.claim.take().unwrap_or_default();
        let Some(filter) = self.filter.as_ref().filter(|_| !batch.skipped().is_empty()) else {
            return Ok(());
        };
        let checked = {
            let registry = self.exchange.registry();
            let agreement = registry.agreements.get(&self.agreement);
            let producer = registry.partners.get(&self.producer);
            let (Some(agreement), Some(producer)) = (agreement, producer) else {
                return Err(ExchangeError::UnknownAgreement.into());
            };
            check_skip_claim(
                batch,
                filter,
                &agreement.agreement,
                &producer.statement,
                &claim,
            )
        };
        checked.map_err(|fault| self.fault(fault, frame))?;
        let envelope = String::from_utf8(claim).unwrap_or_default();
        let record = LedgerRecord::SkipClaim { envelope };
        self.exchange
            .queue_record(Some(&self.producer), record)
            .await?;
        Ok(())
    }

    /// Whether batches are on their way to the disk.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Waits until the oldest batch on its way is durable. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`ConsumeError`].
    pub async fn settle_one(&mut self) -> Result<(), ConsumeError> {
        let Some(oldest) = self.pending.front_mut() else {
            return Ok(());
        };
        let result = (&mut oldest.durable).await;
        result
            .unwrap_or_else(|_| Err(AppendError::ended()))
            .map_err(ExchangeError::from)?;
        self.settled();
        Ok(())
    }

    /// Waits until the oldest batch on its way or the signed receipt is durable, and gives the receipt for sending. Waits for ever where neither
    /// is on its way. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`ConsumeError`].
    pub async fn progress(&mut self) -> Result<Option<Envelope>, ConsumeError> {
        let batch = self.pending.front_mut().map(|oldest| &mut oldest.durable);
        let receipt = self.signing.as_mut().map(|(_, durable)| durable);
        let result = tokio::select! {
            result = or_pending(batch) => Durable::Batch(result),
            result = or_pending(receipt) => Durable::Receipt(result),
        };
        match result {
            Durable::Batch(result) => {
                result
                    .unwrap_or_else(|_| Err(AppendError::ended()))
                    .map_err(ExchangeError::from)?;
                self.settled();
                Ok(None)
            }
            Durable::Receipt(result) => {
                let envelope = self.signing.take().map(|(envelope, _)| envelope);
                result
                    .unwrap_or_else(|_| Err(AppendError::ended()))
                    .map_err(ExchangeError::from)?;
                self.note_status(true);
                Ok(envelope)
            }
        }
    }

    fn settled(&mut self) {
        if let Some(done) = self.pending.pop_front() {
            self.reached.size = done.end;
            self.reached.root = done.root;
            self.reached.events += done.events;
            self.reached.bytes += done.bytes;
            self.note_status(true);
        }
    }

    /// Keys of epochs, for us: checked, and on their way to the ledger ahead of the entries that need them.
    ///
    /// # Errors
    /// [`ConsumeError`] where one of them is not the producer's, not for us, or does not hold the key that it says.
    pub fn take_keys(&mut self, keys: &Keys) -> Result<(), ConsumeError> {
        for envelope in &keys.envelopes {
            let wrap = self
                .open_wrap(envelope)
                .map_err(|what| self.fault(BatchFault::Key { what }, &keys.to_body()))?;
            if self.exchange.keyring().holds(&self.stream, wrap.epoch) {
                continue;
            }
            let envelope = String::from_utf8_lossy(envelope).into_owned();
            self.exchange.record_lazily(
                Some(self.producer.clone()),
                LedgerRecord::KeyWrap { envelope },
            );
        }
        Ok(())
    }

    fn open_wrap(&self, envelope: &[u8]) -> Result<KeyWrap, &'static str> {
        let envelope = Envelope::from_json(envelope).map_err(|_| "it is no envelope")?;
        let signed = {
            let registry = self.exchange.registry();
            let producer = registry.partners.get(&self.producer);
            producer.map(|producer| {
                let statement = &producer.statement;
                statement.open_dated(Role::Agreement, &envelope, |wrap: &KeyWrap| wrap.made)
            })
        };
        let wrap = match signed {
            Some(Ok(wrap)) => wrap,
            _ => return Err("it is not signed by an agreement key of the producer"),
        };
        let own = self.exchange.identity().authority();
        if wrap.stream != self.stream || wrap.by != self.producer || wrap.to != *own {
            return Err("it is of another stream, or for somebody else");
        }
        match self.exchange.keyring().try_wrap(&wrap) {
            Ok(()) => Ok(wrap),
            Err(UnwrapError::Commitment) => Err("it holds another key than it says"),
            Err(UnwrapError::Foreign { .. }) => Err("it is wrapped to a key that is not here"),
            Err(UnwrapError::Open) => Err("it does not open"),
        }
    }

    /// A head without entries.
    ///
    /// # Errors
    /// [`ConsumeError`].
    pub fn take_heads(&mut self, heads: &Heads) -> Result<(), ConsumeError> {
        self.renew_keys();
        if let Err(fault) = self.reader.note_head(&heads.head) {
            self.look_for_fork(&fault, &heads.head, &[]);
            return Err(self.fault(fault, &heads.to_body()));
        }
        self.head = heads.head.size;
        self.paused = heads
            .paused
            .chars()
            .filter(|c| !c.is_control())
            .take(300)
            .collect();
        if let Some(copy) = &self.copy {
            copy.publish_producer_head(heads.head.clone());
        }
        self.note_status(true);
        Ok(())
    }

    /// Whether so much is durable and not receipted that the producer may soon have to wait.
    #[must_use]
    pub fn receipt_is_due(&self) -> bool {
        let unreceipted = self.reached.size.saturating_sub(self.series.size());
        self.signing.is_none() && unreceipted >= (self.exposure / 2).max(1)
    }

    /// Whether anything at all is not receipted yet.
    #[must_use]
    pub fn receipt_is_possible(&self) -> bool {
        let applied = self.exchange.applied(&self.stream).min(self.reached.size);
        self.signing.is_none()
            && (self.reached.size > self.series.size() || applied > self.series.applied())
    }

    /// Signs a receipt for all that is durable and sends it on its way to our ledger.
    ///
    /// # Errors
    /// [`ConsumeError`].
    pub async fn sign_receipt(&mut self) -> Result<(), ConsumeError> {
        let reached = Reached {
            applied: self.exchange.applied(&self.stream),
            ..self.reached
        };
        // No receipt for a log that contradicts what we have cosigned for it.
        self.exchange.compare_cosigned(&self.stream);
        if self.exchange.has_forked(&self.stream) {
            let forked = "the log has signed two histories: nothing more is receipted";
            return Err(ExchangeError::Proof(forked.to_owned()).into());
        }
        // Others know more than this directory does: another copy of it may have signed what would come next in this series.
        if self.exchange.restored_ledger(&self.producer) != self.restored {
            let older = "this directory turned out to be an older copy: a new series begins";
            return Err(ExchangeError::Proof(older.to_owned()).into());
        }
        let from = self.series.size();
        let identity = self.exchange.identity();
        // A clock behind the key's own beginning would date the receipt before it, and nobody would accept it.
        let since = identity
            .statement
            .keys_for(Role::Receipt)
            .map(|key| key.from)
            .min();
        let made = self.exchange.clock().now().max(since.unwrap_or_default());
        let envelope = self
            .series
            .sign_next(&reached, made, &self.exchange.identity().receipt_key);
        let text = String::from_utf8(envelope.to_json()).unwrap_or_default();
        let record = LedgerRecord::Receipt {
            envelope: text,
            from,
            events: reached.events,
            bytes: reached.bytes,
        };
        self.reached.events = 0;
        self.reached.bytes = 0;
        if let Some(last) = &self.series.last {
            let key = (self.agreement, self.series.series);
            self.exchange.receipts_under_way().insert(key, last.clone());
        }
        let durable = self
            .exchange
            .queue_record(Some(&self.producer), record)
            .await?;
        self.signing = Some((envelope, durable));
        Ok(())
    }

    /// Whether a receipt is being written.
    #[must_use]
    pub fn is_signing(&self) -> bool {
        self.signing.is_some()
    }

    /// The session is over.
    pub fn disconnected(&self) {
        self.note_status(false);
    }

    /// Refreshes what `status` shows.
    pub fn note_status(&self, connected: bool) {
        self.exchange.note_status(SubscriptionStatus {
            direction: Direction::In,
            partner: self.producer.clone(),
            stream: self.stream.clone(),
            agreement: self.agreement.to_string(),
            connected,
            position: self.reached.size,
            head: self.head.max(self.reached.size),
            receipted: self.series.size(),
            held_by: "",
            paused_because: self.paused.clone(),
        });
    }

    /// The head shown is one of the history that is held here: of the newest checkpoint, and of the copy.
    fn check_continues(
        &self,
        newest: Option<&Checkpoint>,
        ready: &SubscribeReady,
    ) -> Result<(), BatchFault> {
        let (size, root) = (ready.head.size, &ready.head.root);
        if let Some(newest) = newest {
            verify_consistency(newest.size, &newest.root, size, root, &ready.from_newest)
                .map_err(|_| BatchFault::Contradiction { size: newest.size })?;
        }
        let end = self.reader.next();
        verify_consistency(end, &self.reader.root(), size, root, &ready.consistency)
            .map_err(|error| BatchFault::Tree { end, size, error })
    }

    async fn copy_log(&mut self) -> Result<Arc<Log>, ExchangeError> {
        if let Some(copy) = &self.copy {
            return Ok(Arc::clone(copy));
        }
        let birth = Birth {
            kind: LogKind::Copy,
            origin: self.stream.to_string(),
            settings: Vec::new(),
        };
        let copy = self
            .exchange
            .add_log(birth, &self.stream, LogSettings::default())
            .await?;
        self.copy = Some(Arc::clone(&copy));
        Ok(copy)
    }

    /// Where what came contradicts what was signed before, keeps what proves it.
    fn look_for_fork(&self, fault: &BatchFault, came: &SignedHead, from_newest: &[Hash]) {
        if matches!(
            fault,
            BatchFault::Contradiction { .. } | BatchFault::Shrunk { .. }
        ) {
            self.exchange
                .note_contradiction(&self.stream, came, from_newest);
        }
    }

    /// What the copy gives up with a batch: what came without content, and what expired, where the agreement says that we obey and nothing holds it.
    fn erasures(&self, batch: &VerifiedBatch) -> Vec<Erasure> {
        let claimed = batch.claims().iter().map(|claim| Erasure {
            first: claim.first,
            end: claim.end,
            by: claim.by,
        });
        let left_out = batch.skipped().iter().map(|&(first, end)| Erasure {
            first,
            end,
            by: Erasure::FILTERED,
        });
        let mut erasures: Vec<Erasure> = claimed.chain(left_out).collect();
        let obeys = || {
            let registry = self.exchange.registry();
            let agreement = registry.agreements.get(&self.agreement);
            agreement.is_some_and(|state| state.agreement.plan.erasure == Term::Obey)
                && registry.erasure.hold(&self.stream).is_none()
        };
        for (by, allows) in batch.allows() {
            if let Allows::Expiry(expiry) = allows
                && expiry.below > 0
                && expiry.below <= *by
                && obeys()
            {
                erasures.push(Erasure {
                    first: 0,
                    end: expiry.below,
                    by: *by,
                });
            }
        }
        erasures
    }

    fn fault(&mut self, fault: BatchFault, bytes: &[u8]) -> ConsumeError {
        let detail = fault.to_string();
        if matches!(fault, BatchFault::Revoked { .. }) {
            self.exchange.keep_revoked(&self.stream, &detail, bytes);
            self.paused.clone_from(&detail);
            let refused = Box::new(self.exchange.refuse_head(&self.stream, detail));
            return ConsumeError::Revoked { refused };
        }
        let evidence = self
            .exchange
            .keep_fault(&self.producer, &self.stream, &detail, bytes);
        ConsumeError::Fault {
            stream: self.stream.clone(),
            fault,
            evidence,
        }
    }
}

/// What a plan lets through.
pub(crate) fn plan_filter(plan: &Plan) -> Result<Option<Filter>, ExchangeError> {
    let filter = plan
        .filter
        .as_deref()
        .map(Filter::from_canonical)
        .transpose();
    filter.map_err(|error| {
        ExchangeError::Proof(format!(
            "the filter of plan `{}` is not understood: {error}",
            plan.name
        ))
    })
}

/// A reader that goes on where the copy ends.
fn reader_of(exchange: &Exchange, stream: &Origin, keys: LogKeys, copy: Option<&Log>) -> LogReader {
    let head = copy.and_then(|copy| exchange.reader().head(copy.number()));
    let (Some(copy), Some(head)) = (copy, head) else {
        return LogReader::from_start(stream.as_str(), keys);
    };
    let newest = copy
        .head()
        .producer
        .map(|head| head.checkpoint(stream.as_str()));
    let newest = newest.filter(|newest| newest.size >= head.size);
    // What came without content and waits for the entry that allows it.
    let erased = exchange
        .reader()
        .erased_by_entries(copy.number(), 0, head.size);
    let claims = erased.iter().map(|run| Claim {
        first: run.first,
        end: run.end,
        by: run.by,
    });
    LogReader::resume(
        stream.as_str(),
        keys,
        head.range,
        head.last_leaf,
        head.last_time_us,
        newest,
    )
    .with_claims(claims)
}
