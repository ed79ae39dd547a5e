//! Deliver: integrated entries → batches for one subscriber, as far as policy, agreement and exposure window allow.
//!
//! A [`Delivery`] exists only after the decision that allows it is durable. Its position moves when a batch is handed out, so that the
//! position named by a revocation is the highest sequence handed to the transport plus one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use countersign_crypto::Hash;
use countersign_event::content::{CONTENT_SALT_BYTES, is_view, view_content};
use countersign_event::documents::{
    AgreementId, Digest, Document as _, Level, Receipt, Refusal, RefusalCode, Rejection, Role,
    SeriesId, SkipClaim,
};
use countersign_event::dsse::Envelope;
use countersign_event::entry::{ENTRY_BYTES, Entry};
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::{Authority, Origin};
use countersign_event::time::Timestamp;
use countersign_filter::Filter;
use countersign_policy::Action;
use countersign_protocol::delivery::{BatchMessage, Cover, Lengths, write_descriptors_of};
use countersign_protocol::{Heads, SignedHead, StartAt, Subscribe, SubscribeReady};
use countersign_store::journal::{Erasure, LogKind, ReadError, Run, StoredEntry};
use countersign_tlog::{ProveError, compact_range_at, consistency_proof, inclusion_proof};
use tokio::sync::watch;

use super::allowance::{Amount, Limit, Room};
use super::append::AppendError;
use super::budget::{Budget, Charged, view_of};
use super::consume::plan_filter;
use super::filtering::{Passes, Work};
use super::receipt::{DeliveredRange, ReceiptFault, check_counts, check_follows};
use crate::keyring::{has_control, read_key_entry};
use crate::refusal::Refused;
use crate::status::{Direction, SubscriptionStatus};
use crate::{AgreementState, Exchange, ExchangeError, Log, LogHead, Peer};

/// Bytes of one batch: large enough that its fixed costs (about 40 µs of signature check and wake-ups) vanish, small enough to share the link.
pub const BATCH_BYTES_MAX: u64 = 512 * 1024;

/// Entries of one batch.
pub const BATCH_ENTRIES: u64 = 4096;

/// How many exposure windows may lie between what a series has receipted and where its reader stands: one by the rule, the others for
/// receipts that were accepted and lost in a crash. It bounds what a receipt or request can make this node read.
const WINDOWS_BEHIND_MAX: u64 = 4;

/// How long a limit of the plan is waited for at most before the clock is looked at again.
const HELD_LOOK: Duration = Duration::from_secs(60);

/// One running subscription of a partner.
pub struct Delivery {
    exchange: Arc<Exchange>,
    log: Arc<Log>,
    peer: Peer,
    consumer: Authority,
    agreement: AgreementId,
    series: SeriesId,
    exposure: u64,
    /// Shared with all sessions under the agreement; absent where the plan limits neither rate nor quota.
    budget: Option<Arc<Budget>>,
    /// The members of each event's data that are shown; all of them where none are named.
    sees: Option<Vec<String>>,
    purpose: String,
    filter: Option<Filter>,
    state: Mutex<State>,
    receipted: watch::Sender<u64>,
    ended: watch::Sender<Option<Arc<Refused>>>,
}

struct State {
    position: u64,
    delivered: DeliveredRange,
    /// What may be counted beside it, under a filter: events that were erased since, of which nobody can say any more whether they passed.
    unknown: Totals,
    last: Option<(Receipt, Hash)>,
    /// First sequence of the series.
    start: u64,
    generation: u64,
    paused_shown: bool,
    /// Nothing goes on before this time, and whoever calls knows it.
    held_until: Option<Timestamp>,
    /// The subscriber was told that there is a rate.
    rate_told: bool,
    /// The epoch that the first entry stands in, until its key is sent.
    key_due: Option<u64>,
    /// The newest epoch of which a key was sent here.
    key_given: Option<u64>,
    /// Nothing is handed out while the end of the agreement is being written.
    halted: bool,
    /// Nothing is handed out any more.
    ended: bool,
    /// The last batch was as much work as is done at a time: others have their turn before the next.
    rests: bool,
}

/// What comes next on a subscription.
#[derive(Debug)]
pub enum Next {
    /// Entries.
    Batch {
        /// The head of the message.
        message: BatchMessage,
        /// Descriptors and contents.
        bulk: Vec<Bytes>,
        /// Keys that the reader needs for them, to be sent ahead: key wraps for it alone.
        keys: Vec<Envelope>,
        /// Our word on what was left out of it by a filter; goes before it.
        claim: Option<Envelope>,
    },
    /// The end, signed.
    Ended(Arc<Refused>),
    /// Nothing but the newest head, and why nothing else.
    Heads(Heads),
    /// Nothing yet: [`Delivery::goes_on_in`] says when to look again.
    Wait,
}

/// What a plan with limits makes of a step.
enum Metered {
    /// Entries.
    Batch(Next),
    /// Nothing before `until`; without a limit, because others may use up what is left.
    Held {
        /// Which limit, and the next event's data bytes.
        limit: Option<(Limit, u64)>,
        /// When to look again.
        until: Timestamp,
    },
    /// Once something is in the ledger.
    Soon,
}

/// What was counted of the log for a receipt: what passes, and what is erased.
#[derive(Default)]
struct Counted {
    ranges: Vec<((u64, u64), (Totals, Totals))>,
}

impl Counted {
    fn of(&self, from: u64, to: u64) -> Result<(Totals, Totals), NotAccepted> {
        let found = self.ranges.iter().find(|(range, _)| *range == (from, to));
        found
            .map(|(_, totals)| *totals)
            .ok_or(NotAccepted::Uncounted { from, to })
    }
}

/// Why a receipt is not accepted.
enum NotAccepted {
    /// For good.
    Exchange(ExchangeError),
    /// Before this is counted.
    Uncounted { from: u64, to: u64 },
}

impl<E: Into<ExchangeError>> From<E> for NotAccepted {
    fn from(error: E) -> Self {
        Self::Exchange(error.into())
    }
}

/// Waits for what was asked of a budget; without one, for ever.
async fn moved(allotted: Option<&mut watch::Receiver<u64>>) {
    match allotted {
        // The delivery holds the budget, so that the channel stays open.
        Some(allotted) => {
            let _ = allotted.changed().await;
        }
        None => std::future::pending().await,
    }
}

impl Exchange {
    /// Opens a subscription: finds the stream, asks the policies, makes the decision durable, finds and proves the start.
    ///
    /// # Errors
    /// [`ExchangeError::Refused`] with the signed refusal, or what failed here.
    pub async fn open_delivery(
        self: &Arc<Self>,
        peer: &Peer,
        request: &Subscribe,
    ) -> Result<(SubscribeReady, Arc<Delivery>), ExchangeError> {
        self.open_filtered(peer, request, None).await
    }

    /// As [`Exchange::open_delivery`], of what passes the filter with this canonical text.
    ///
    /// # Errors
    /// As there.
    pub async fn open_filtered(
        self: &Arc<Self>,
        peer: &Peer,
        request: &Subscribe,
        filter: Option<&str>,
    ) -> Result<(SubscribeReady, Arc<Delivery>), ExchangeError> {
        let refuse = |code, reason: &str| -> ExchangeError {
            self.refuse(peer, "subscribe", &request.stream, code, reason.to_owned())
                .into()
        };
        let Some(consumer) = peer.authority().cloned() else {
            return Err(refuse(
                RefusalCode::WrongIdentity,
                "an application reads through its own node",
            ));
        };
        let filter = match filter.map(Filter::from_canonical) {
            None => None,
            Some(Ok(filter)) => Some(filter),
            Some(Err(error)) => {
                let reason = format!("the filter is not understood: {error}");
                return Err(refuse(RefusalCode::Malformed, &reason));
            }
        };
        // Before anything is judged: what changes while the decision is written is looked at again.
        let generation = self.access_generation();
        let agreement_id = AgreementId(request.agreement);
        let agreement = self
            .registry()
            .agreements
            .get(&agreement_id)
            .cloned()
            .filter(|state| {
                state.agreement.consumer.authority == consumer
                    && state.agreement.stream.as_str() == request.stream
            });
        let unknown = agreement.is_none() && self.note_unknown_agreement(&consumer, agreement_id);
        let more = match unknown {
            true => format!(
                "; no agreement {agreement_id} is held here: it was never made with this node, or it is newer than the backup that this node was restored from, and a new invitation makes a new one"
            ),
            false => String::new(),
        };
        let about = &request.stream;
        let log = self.discover_or(peer, "subscribe", about, agreement.as_ref(), &more)?;
        let asked = self.policy_request(
            peer,
            Action::Read,
            log.described(),
            agreement.as_ref(),
            &request.purpose,
        );
        let (decision, digest) = self.decide(&asked);
        let agreed = agreement.as_ref().map(|state| state.agreement.id);
        let record = self.decision_record(peer, &asked, &decision, digest, agreed);
        // A policy may permit more than the starter's; without an agreement that holds there is nothing to receipt against.
        let now = self.clock().now();
        let holds = |state: &AgreementState| decision.allowed && state.is_active(now);
        let named = agreement.clone();
        let Some(agreement) = agreement.filter(holds) else {
            if self.registry().partners.contains_key(&consumer) {
                self.record_lazily(Some(consumer), record);
            }
            let suspended = named.and_then(|state| state.why_not(now));
            let suspended = suspended.filter(|(code, _)| *code == RefusalCode::Suspended);
            let (code, why) = if let Some(suspended) = suspended {
                suspended
            } else if decision.allowed {
                let why = format!("no agreement that holds covers it{more}");
                (RefusalCode::NoAgreement, why)
            } else {
                let why = format!("{}{more}", decision.explanation);
                (RefusalCode::NotPermitted, why)
            };
            let reason = format!("reading `{}` is not permitted: {why}", request.stream);
            return Err(self
                .refuse_by(
                    peer,
                    "subscribe",
                    &request.stream,
                    code,
                    reason,
                    Some(&decision),
                )
                .into());
        };
        if let Some(why) = self.contradicting(&consumer) {
            self.record_lazily(Some(consumer), record);
            return Err(refuse(RefusalCode::Pending, &stopped(&why)));
        }
        let sees = agreement.agreement.plan.fields.clone();
        if sees.is_some() && !log.settings().fields {
            // It was agreed of another stream of this name, or by hand: showing all of it is not what was agreed.
            let reason = "the plan names fields, and this stream commits to its data as a whole";
            return Err(refuse(RefusalCode::NoAgreement, reason));
        }
        // Ours too: what the plan lets through, and of that what is asked for.
        let filter = match (plan_filter(&agreement.agreement.plan)?, filter) {
            (Some(plan), Some(own)) => match plan.and(&own) {
                Ok(both) => Some(both),
                Err(error) => {
                    let reason = format!("the filter beside that of the plan is too much: {error}");
                    return Err(refuse(RefusalCode::Malformed, &reason));
                }
            },
            (plan, own) => plan.or(own),
        };
        if let Some(filter) = &filter {
            let record = LedgerRecord::Filter {
                agreement: agreement_id,
                stream: log.origin().clone(),
                digest: Digest(filter.digest()),
                filter: filter.canonical().to_owned(),
            };
            self.record_and_wait(Some(consumer.clone()), record).await?;
        }
        // Durable before the first byte of data leaves.
        self.record_and_wait(Some(consumer.clone()), record).await?;
        let head = log.head();
        let floor = self.history_floor(&log, head.size, &agreement)?;
        let Some(start) = self.find_start(&log, &head, request.start)? else {
            return Err(refuse(
                RefusalCode::CursorMismatch,
                "the cursor names an entry that this log does not have: the log was re-created or restored, or the cursor is of another one",
            ));
        };
        if request.newest_size > head.size {
            self.doubt();
            let reason = format!(
                "this log has {} entries and you hold a checkpoint of {}: it was restored from an older copy; reading stops until that is resolved",
                head.size, request.newest_size
            );
            return Err(refuse(RefusalCode::CursorMismatch, &reason));
        }
        let start = match request.start {
            StartAt::Cursor { .. } if start < floor => {
                let reason = format!(
                    "the plan's history begins at {floor}: begin a new series there, {start} lies before it"
                );
                return Err(refuse(RefusalCode::NotPermitted, &reason));
            }
            _ => start.max(floor),
        };
        let budget = self.budget(&agreement, &log, filter.as_ref()).await?;
        let series = SeriesId(request.series);
        let last = self.last_receipt(&(agreement_id, series));
        let exposure = agreement.agreement.plan.exposure_events.max(1);
        let digest = filter.as_ref().map(|filter| Digest(filter.digest()));
        if last.as_ref().is_some_and(|(last, _)| last.filter != digest) {
            let reason = "the receipts of this series are under another filter: begin a new series";
            return Err(refuse(RefusalCode::CursorMismatch, reason));
        }
        if let Some((last, _)) = &last
            && start.saturating_sub(last.size) > exposure.saturating_mul(WINDOWS_BEHIND_MAX)
        {
            let reason = format!(
                "the receipts of this series end at {}, far before {start}: begin a new series to read from there",
                last.size
            );
            return Err(refuse(RefusalCode::CursorMismatch, &reason));
        }
        let (delivered, unknown) = self
            .delivered_so_far(&log, start, last.as_ref(), filter.as_ref())
            .await?;
        // What the series itself says was handed out counts, whatever this process remembers.
        if let Some((last, _)) = &last {
            self.with_exposure(agreement_id, |exposure| exposure.hand_out(last.size, start));
        }
        let ready = self.ready(
            &log,
            &head,
            start,
            request.newest_size,
            exposure,
            last.as_ref(),
        )?;
        let in_force = match log.is_encrypted() {
            true => self.keyring().in_force(log.number(), start)?,
            false => None,
        };
        let key_due = in_force.map(|(_, control)| control.epoch);
        let delivery = Arc::new(Delivery {
            exchange: Arc::clone(self),
            peer: peer.clone(),
            consumer,
            agreement: agreement_id,
            series,
            exposure,
            budget,
            sees,
            purpose: request.purpose.clone(),
            filter,
            receipted: watch::Sender::new(ready.receipt_size),
            ended: watch::Sender::new(None),
            state: Mutex::new(State {
                position: start,
                delivered,
                unknown,
                start: last.as_ref().map_or(start, |(last, _)| last.start),
                last,
                generation,
                paused_shown: false,
                held_until: None,
                rate_told: false,
                key_due,
                key_given: None,
                halted: false,
                ended: false,
                rests: false,
            }),
            log,
        });
        delivery.note_status(true, None);
        self.note_running(&delivery);
        Ok((ready, delivery))
    }

    /// The totals of the series where the last receipt stands, and those at the start beyond it.
    async fn delivered_so_far(
        &self,
        log: &Log,
        start: u64,
        last: Option<&(Receipt, Hash)>,
        filter: Option<&Filter>,
    ) -> Result<(DeliveredRange, Totals), ExchangeError> {
        let Some((last, _)) = last else {
            return Ok((DeliveredRange::new(start, 0, 0), Totals::default()));
        };
        let mut delivered = DeliveredRange::new(last.size, last.events, last.bytes);
        let mut unknown = Totals::default();
        if start > last.size {
            let (passed, erased) = self.count_passing(log, last.size, start, filter).await?;
            delivered.add(start, passed.events, passed.bytes);
            unknown = erased;
        }
        Ok((delivered, unknown))
    }

    /// The sequence that a request starts at; `None` where its cursor is not of this history.
    fn find_start(
        &self,
        log: &Log,
        head: &LogHead,
        start: StartAt,
    ) -> Result<Option<u64>, ExchangeError> {
        match start {
            StartAt::Sequence(sequence) => Ok(Some(sequence.min(head.size))),
            StartAt::Now => Ok(Some(head.size)),
            StartAt::Time(time_us) => Ok(Some(self.first_at(log, head.size, time_us)?)),
            StartAt::Cursor { next, leaf } => {
                if next > head.size {
                    return Ok(None);
                }
                let ours = match next.checked_sub(1) {
                    None => [0; 32],
                    Some(last) => self.reader().leaf_hash(log.number(), last)?,
                };
                Ok((ours == leaf).then_some(next))
            }
        }
    }

    fn ready(
        &self,
        log: &Log,
        head: &LogHead,
        start: u64,
        newest_size: u64,
        exposure_events: u64,
        last: Option<&(Receipt, Hash)>,
    ) -> Result<SubscribeReady, ExchangeError> {
        let nodes = self.reader().nodes(log.number());
        let (last_leaf, last_time, last_leaf_proof) = match start.checked_sub(1) {
            None => ([0; 32], 0, Vec::new()),
            Some(index) => (
                self.reader().leaf_hash(log.number(), index)?,
                self.time_of(log, index)?,
                inclusion_proof(&nodes, index, start).map_err(proof_failed)?,
            ),
        };
        Ok(SubscribeReady {
            start,
            head: head_of(head)?,
            range: compact_range_at(&nodes, start)
                .map_err(proof_failed)?
                .hashes()
                .to_vec(),
            last_leaf,
            last_time,
            last_leaf_proof,
            consistency: consistency_proof(&nodes, start, head.size).map_err(proof_failed)?,
            from_newest: consistency_proof(&nodes, newest_size, head.size).map_err(proof_failed)?,
            exposure_events,
            receipt_number: last.map_or(0, |(last, _)| last.number),
            receipt_size: last.map_or(start, |(last, _)| last.size),
        })
    }

    /// Events in `[from, to)` and their data bytes: those that pass a filter, and apart from them those whose content is gone. Without a filter all pass.
    /// However many they are, others have their turn in between.
    pub(super) async fn count_passing(
        &self,
        log: &Log,
        from: u64,
        to: u64,
        filter: Option<&Filter>,
    ) -> Result<(Totals, Totals), ExchangeError> {
        let (mut passed, mut erased, mut next) = (Totals::default(), Totals::default(), from);
        let mut work = Work::new();
        while next < to {
            if next > from {
                tokio::task::yield_now().await;
            }
            let before = next;
            for run in self
                .reader()
                .read(log.number(), next, (to - next).min(4096), 8 << 20)?
            {
                match filter {
                    None => passed.add(totals(&run)),
                    Some(filter) => {
                        for stored in run.iter() {
                            match work.judge(filter, &stored) {
                                Passes::Whole => passed.add(of_entry(stored.entry)),
                                Passes::Unknown => erased.add(of_entry(stored.entry)),
                                Passes::Control | Passes::Not => {}
                            }
                            work.rest().await;
                        }
                    }
                }
                next = run.first + u64::from(run.count);
            }
            if next == before {
                return Err(unreadable(log, next));
            }
        }
        Ok((passed, erased))
    }

    /// The first sequence whose time is at or after `time_us`: times never decrease, so it is found by halving.
    ///
    /// # Errors
    /// [`ExchangeError`] where the log cannot be read.
    pub fn first_at(&self, log: &Log, size: u64, time_us: u64) -> Result<u64, ExchangeError> {
        let (mut low, mut high) = (0, size);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.time_of(log, middle)? < time_us {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The first sequence that an agreement's plan lets be read, of a log of `size`. It does not move as the log grows: what comes later has a later time than
    /// the agreement's beginning.
    ///
    /// # Errors
    /// [`ExchangeError`] where the log cannot be read.
    pub fn history_floor(
        &self,
        log: &Log,
        size: u64,
        agreement: &AgreementState,
    ) -> Result<u64, ExchangeError> {
        let Some(history) = agreement.agreement.plan.history else {
            return Ok(0);
        };
        let from = agreement.agreement.from;
        let by_events = match history.events {
            None => 0,
            Some(events) => self.first_at(log, size, from.0)?.saturating_sub(events),
        };
        let by_time = match history.seconds {
            None => 0,
            Some(seconds) => {
                let before = seconds.saturating_mul(1_000_000);
                self.first_at(log, size, from.0.saturating_sub(before))?
            }
        };
        Ok(by_events.max(by_time))
    }

    fn time_of(&self, log: &Log, sequence: u64) -> Result<u64, ExchangeError> {
        let runs = self.reader().read(log.number(), sequence, 1, u64::MAX)?;
        let stored = runs.iter().flat_map(Run::iter).next();
        let entry = stored.and_then(|stored| Entry::decode(stored.entry).ok());
        entry
            .map(|entry| entry.time.0)
            .ok_or_else(|| unreadable(log, sequence))
    }

    /// A stream as people write it (`ORG/STREAM`, or `STREAM` for one of ours) or as an origin.
    #[must_use]
    pub fn resolve_origin(&self, text: &str) -> Option<Origin> {
        if let Ok(origin) = text.parse::<Origin>() {
            return Some(origin);
        }
        let Some((partner, stream)) = text.rsplit_once('/') else {
            let name = text.parse().ok()?;
            return Some(Origin::of_stream(self.identity().authority(), &name));
        };
        let stream = stream.parse().ok()?;
        let registry = self.registry();
        let partner = registry.find_partner(partner).ok()?;
        Some(Origin::of_stream(&partner.statement.authority, &stream))
    }
}

/// The control entry that allows an erased entry of a batch; itself where none is named, which no reader accepts.
/// Why nothing is delivered to a consumer that contradicts itself.
fn stopped(why: &str) -> String {
    format!(
        "receipts that you signed contradict each other ({why}): deliveries stop until a person here decides"
    )
}

fn erased_by(erased: &[Erasure], sequence: u64) -> u64 {
    let at = erased.partition_point(|run| run.end <= sequence);
    let run = erased.get(at).filter(|run| run.first <= sequence);
    run.map_or(sequence, |run| run.by)
}

/// Events and their data bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) events: u64,
    pub(super) bytes: u64,
}

impl Totals {
    fn add(&mut self, (events, bytes): (u64, u64)) {
        self.events += events;
        self.bytes += bytes;
    }
}

/// One event, and its data bytes.
pub(super) fn of_entry(entry: &[u8]) -> (u64, u64) {
    let data = u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]);
    (1, u64::from(data))
}

/// Events and data bytes of a run; control entries do not count.
fn totals(run: &Run) -> (u64, u64) {
    let events = run
        .entries
        .chunks_exact(ENTRY_BYTES)
        .filter(|entry| entry[1] & 0x0f == 0);
    events.fold((0, 0), |(events, bytes), entry| {
        let data = u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]);
        (events + 1, bytes + u64::from(data))
    })
}

fn proof_failed(error: ProveError<ReadError>) -> ExchangeError {
    ExchangeError::Proof(error.to_string())
}

/// Why a subscription to all of each event ends before an entry.
fn in_part(sequence: u64) -> String {
    format!(
        "entry {sequence} was lost here, and came back from a partner that is shown some members of each event only: the others are gone, and this agreement is for all of them. Under an agreement whose plan names `fields` the stream can be read on"
    )
}

pub(super) fn unreadable(log: &Log, sequence: u64) -> ExchangeError {
    ExchangeError::Proof(format!(
        "entry {sequence} of `{}` could not be read",
        log.origin()
    ))
}

fn head_of(head: &LogHead) -> Result<SignedHead, ExchangeError> {
    head.signed()
        .ok_or_else(|| ExchangeError::Proof("the log has no signed head".to_owned()))
}

/// A batch as it travels, and what it counts.
pub(crate) struct Gathered {
    pub(crate) message: BatchMessage,
    pub(crate) bulk: Vec<Bytes>,
    pub(crate) events: u64,
    pub(crate) bytes: u64,
    /// What a filter left out.
    skipped: Vec<(u64, u64)>,
    /// The epochs of the key-epoch entries among them.
    pub(crate) epochs: Vec<u64>,
    /// It ends where the filter's work for one turn was done.
    rests: bool,
}

/// Puts entries from `first` on into a batch under `head`: at most `count`, and about `bytes_max`. Where `sees` names members of data, others are withheld.
pub(crate) fn gather(
    exchange: &Exchange,
    log: &Log,
    (first, count): (u64, u64),
    bytes_max: u64,
    head: &SignedHead,
    sees: Option<&[String]>,
) -> Result<Gathered, ExchangeError> {
    let reader = exchange.reader();
    let runs = reader.read(log.number(), first, count, bytes_max)?;
    let mut batch = Pieces::new(log, sees);
    let mut total = Totals::default();
    for run in &runs {
        batch.take_epochs(log, run);
        batch.erased.extend_from_slice(&run.erased);
        if batch.may_have_views {
            let mut shown = Vec::new();
            for stored in run.iter() {
                if batch.lacks(&stored) {
                    break;
                }
                let view = batch.show(&stored)?;
                shown.extend_from_slice(view.as_deref().unwrap_or(stored.content));
                batch.entries.extend_from_slice(stored.entry);
                if stored.entry[1] & 0x0f == 0 {
                    total.add(of_entry(stored.entry));
                }
            }
            batch.bulk.push(shown.into());
            if batch.in_part.is_some() {
                break;
            }
            continue;
        }
        batch.entries.extend_from_slice(&run.entries);
        total.add(totals(run));
        batch.lengths.extend(run.contents().map(|content| Lengths {
            attribute_bytes: content.attribute_bytes,
            data_part_bytes: content.data_part_bytes,
        }));
        batch.bulk.push(run.content.clone());
    }
    batch.seal(exchange, log, first, head, total)
}

/// What costs nothing, and whatever it costs.
const NOTHING: Amount = [0, 0];
const ALL_THERE_IS: Amount = [u64::MAX; 2];

/// Bytes that are read for a batch under a filter: most of them may be left out of it.
const FILTERED_BYTES: u64 = 4 << 20;

/// Entries that are read at first under a filter: where each of them is much work, more than that do not get into a batch.
const READ_FIRST: u64 = 64;

/// As [`gather`], of what passes a filter: at most `amount` of that. The batch ends where it has enough content, and where it was enough work.
fn gather_passing(
    exchange: &Exchange,
    log: &Log,
    (first, count): (u64, u64),
    amount: Amount,
    head: &SignedHead,
    sees: Option<&[String]>,
    filter: &Filter,
) -> Result<Gathered, ExchangeError> {
    let reader = exchange.reader();
    let mut batch = Pieces::new(log, sees);
    let (mut total, mut taken, mut work) = (Totals::default(), 0, Work::new());
    let (mut next, mut count_now, mut bytes) = (first, READ_FIRST, FILTERED_BYTES);
    'all: while next < first + count && bytes > 0 {
        let before = next;
        let runs = reader.read(
            log.number(),
            next,
            (first + count - next).min(count_now),
            bytes,
        )?;
        for run in &runs {
            batch.take_epochs(log, run);
            batch.erased.extend_from_slice(&run.erased);
            let mut offset = 0;
            for stored in run.iter() {
                if work.is_used_up() {
                    break 'all;
                }
                let start = offset;
                offset += stored.content.len();
                if taken > 0 && taken + stored.content.len() as u64 > BATCH_BYTES_MAX {
                    break 'all;
                }
                let passes = work.judge(filter, &stored);
                if !matches!(passes, Passes::Not) && batch.lacks(&stored) {
                    break 'all;
                }
                match passes {
                    Passes::Not => {
                        batch.entries.extend_from_slice(stored.entry);
                        batch.skip(stored.sequence);
                        continue;
                    }
                    Passes::Whole => {
                        let before = total;
                        total.add(of_entry(stored.entry));
                        if total.events > amount[0] || total.bytes > amount[1] {
                            total = before;
                            break 'all;
                        }
                    }
                    Passes::Control | Passes::Unknown => {}
                }
                batch.entries.extend_from_slice(stored.entry);
                let view = batch.show(&stored)?;
                let content = view.map_or_else(|| run.content.slice(start..offset), Bytes::from);
                batch.bulk.push(content);
                taken += stored.content.len() as u64;
            }
            next = run.first + u64::from(run.count);
            bytes = bytes.saturating_sub(run.content.len() as u64);
        }
        if next == before {
            break;
        }
        count_now = count_now.saturating_mul(4);
    }
    let mut gathered = batch.seal(exchange, log, first, head, total)?;
    gathered.rests = work.is_used_up();
    Ok(gathered)
}

/// A batch while it is put together.
struct Pieces<'a> {
    /// The members of data that are shown; all of them where none are named.
    sees: Option<&'a [String]>,
    /// Only a stream that commits to members, and a copy of one, can hold what is shown in part.
    may_have_views: bool,
    /// Whether all of each event is to go out, and something else is an error.
    all_of_it: bool,
    /// The first entry that is held in part where all of it is to go out.
    in_part: Option<u64>,
    entries: Vec<u8>,
    erased: Vec<Erasure>,
    lengths: Vec<Lengths>,
    /// Of each entry, whether members are withheld; empty where none can be.
    views: Vec<bool>,
    bulk: Vec<Bytes>,
    skipped: Vec<(u64, u64)>,
    epochs: Vec<u64>,
}

impl<'a> Pieces<'a> {
    fn new(log: &Log, sees: Option<&'a [String]>) -> Self {
        Self {
            sees,
            may_have_views: log.settings().fields || log.kind() == LogKind::Copy,
            all_of_it: sees.is_none() && log.settings().fields && log.kind() == LogKind::Own,
            in_part: None,
            entries: Vec::new(),
            erased: Vec::new(),
            lengths: Vec::new(),
            views: Vec::new(),
            bulk: Vec::new(),
            skipped: Vec::new(),
            epochs: Vec::new(),
        }
    }

    fn take_epochs(&mut self, log: &Log, run: &Run) {
        if log.is_encrypted() && has_control(&run.entries) {
            let found = run.iter().filter_map(|stored| read_key_entry(&stored));
            self.epochs.extend(found.map(|(control, _)| control.epoch));
        }
    }

    /// Leaves an entry out.
    fn skip(&mut self, sequence: u64) {
        self.lengths.push(Lengths::SKIPPED);
        if self.may_have_views {
            self.views.push(false);
        }
        match self.skipped.last_mut() {
            Some((_, end)) if *end == sequence => *end += 1,
            _ => self.skipped.push((sequence, sequence + 1)),
        }
    }

    /// Whether an entry is held in part, where all of it is to go out: it was lost, and came back from a partner that was shown no more. The batch ends
    /// before it.
    fn lacks(&mut self, stored: &StoredEntry<'_>) -> bool {
        let lacks = self.all_of_it
            && stored.erased_by.is_none()
            && stored.entry.get(1).is_some_and(|byte| byte & 0x1f == 0)
            && is_view(stored.content, stored.attribute_bytes as usize);
        if lacks {
            self.in_part = Some(stored.sequence);
        }
        lacks
    }

    /// Takes an entry in. Its content comes back where it travels otherwise than it is stored: with the members in `sees` alone.
    fn show(&mut self, stored: &StoredEntry<'_>) -> Result<Option<Vec<u8>>, ExchangeError> {
        if stored.erased_by.is_some() {
            self.lengths.push(Lengths::ABSENT);
            if self.may_have_views {
                self.views.push(false);
            }
            return Ok(None);
        }
        let attribute_bytes = stored.attribute_bytes as usize;
        let mut view = None;
        if self.may_have_views {
            // An event that is not encrypted: what the first byte of a ciphertext says is chance.
            let is_event = stored.entry.get(1).is_some_and(|byte| byte & 0x1f == 0);
            if let Some(sees) = self.sees.filter(|_| is_event) {
                view = view_content(stored.content, attribute_bytes, |name| {
                    sees.iter().any(|seen| seen == name)
                })
                .map_err(|error| ExchangeError::Proof(error.to_string()))?;
            }
            let content = view.as_deref().unwrap_or(stored.content);
            self.views
                .push(is_event && is_view(content, attribute_bytes));
        }
        let content = view.as_deref().unwrap_or(stored.content);
        self.lengths.push(Lengths {
            attribute_bytes: stored.attribute_bytes,
            data_part_bytes: (content.len() - CONTENT_SALT_BYTES - attribute_bytes) as u32,
        });
        Ok(view)
    }

    fn seal(
        self,
        exchange: &Exchange,
        log: &Log,
        first: u64,
        head: &SignedHead,
        total: Totals,
    ) -> Result<Gathered, ExchangeError> {
        if self.lengths.is_empty() {
            return Err(match self.in_part {
                Some(sequence) => ExchangeError::InPart { sequence },
                None => unreadable(log, first),
            });
        }
        let end = first + self.lengths.len() as u64;
        let descriptors = write_descriptors_of(
            &self.entries,
            &self.lengths,
            |sequence| erased_by(&self.erased, sequence),
            |at| self.views.get(at).is_some_and(|is_view| *is_view),
        );
        let nodes = exchange.reader().nodes(log.number());
        let message = BatchMessage {
            first,
            count: self.lengths.len() as u32,
            descriptor_bytes: descriptors.len() as u32,
            cover: Cover::Checkpoint {
                head: head.clone(),
                consistency: consistency_proof(&nodes, end, head.size).map_err(proof_failed)?,
            },
        };
        let mut bulk = Vec::with_capacity(self.bulk.len() + 1);
        bulk.push(descriptors.into());
        bulk.extend(self.bulk);
        Ok(Gathered {
            message,
            bulk,
            events: total.events,
            bytes: total.bytes,
            skipped: self.skipped,
            epochs: self.epochs,
            rests: false,
        })
    }
}

impl Delivery {
    /// The log that is delivered.
    #[must_use]
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Who reads.
    #[must_use]
    pub fn consumer(&self) -> &Authority {
        &self.consumer
    }

    /// The agreement it runs under.
    #[must_use]
    pub fn agreement(&self) -> AgreementId {
        self.agreement
    }

    /// Waits for the next thing to send. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Where entries cannot be read (damage is never served) or proven.
    pub async fn next(&self) -> Result<Next, ExchangeError> {
        let mut heads = self.log.watch();
        let mut receipts = self.receipted.subscribe();
        let mut ended = self.ended.subscribe();
        let mut allotted = self.budget.as_ref().map(|budget| budget.watch());
        loop {
            if std::mem::take(&mut self.state().rests) {
                // Whoever ends this subscription, and everybody else on this thread, comes before the next batch.
                tokio::task::yield_now().await;
            }
            if let Some(allotted) = &mut allotted {
                allotted.mark_unchanged();
            }
            if let Some(refused) = ended.borrow_and_update().clone() {
                return Ok(Next::Ended(refused));
            }
            let head = heads.borrow_and_update().clone();
            let receipted = *receipts.borrow_and_update();
            if let Some(next) = self.step(&head, receipted)? {
                return Ok(next);
            }
            tokio::select! {
                // The log lives as long as this delivery holds it, so that none of these channels closes.
                _ = heads.changed() => {}
                _ = receipts.changed() => {}
                _ = ended.changed() => {}
                () = moved(allotted.as_mut()) => {}
            }
        }
    }

    /// A batch, if there is something and the window has room; the head, once, if the window is used up.
    fn step(&self, head: &LogHead, receipted: u64) -> Result<Option<Next>, ExchangeError> {
        let mut state = self.state();
        if state.ended || state.halted {
            // What names the position is being signed.
            return Ok(None);
        }
        // One event is always allowed: the exposure is at least 1.
        // What the series has receipted may be read again at no risk.
        let room = if state.position < receipted {
            receipted
        } else {
            self.exchange.with_exposure(self.agreement, |exposure| {
                exposure.end_for(state.position, self.exposure)
            })
        };
        let end = head.size.min(room);
        if state.position < end {
            let step = match &self.budget {
                None => {
                    let batch = self.batch(&mut state, head, end, ALL_THERE_IS);
                    batch.map(|(next, _)| Metered::Batch(next))
                }
                Some(budget) => self.metered(&mut state, budget, head, end),
            };
            let next = match step {
                Ok(Metered::Batch(next)) => next,
                Ok(Metered::Held { limit, until }) => {
                    return self.held(state, head, limit, until);
                }
                Ok(Metered::Soon) => return Ok(None),
                Err(ExchangeError::InPart { sequence }) => {
                    drop(state);
                    self.end(RefusalCode::NotFound, in_part(sequence));
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
            state.paused_shown = false;
            state.held_until = None;
            drop(state);
            self.note_status(true, None);
            return Ok(Some(next));
        }
        if head.size <= state.position || state.paused_shown {
            return Ok(None);
        }
        state.paused_shown = true;
        drop(state);
        let paused = format!(
            "the exposure window of {} events is used up: a receipt beyond {receipted} is awaited",
            self.exposure
        );
        self.note_status(true, Some(("exposure", paused.clone())));
        Ok(Some(Next::Heads(Heads {
            head: head_of(head)?,
            paused,
        })))
    }

    /// As [`Delivery::batch`], as far as rate and quota allow.
    fn metered(
        &self,
        state: &mut State,
        budget: &Arc<Budget>,
        head: &LogHead,
        end: u64,
    ) -> Result<Metered, ExchangeError> {
        let (first, view, now) = (state.position, self.view(), self.exchange.clock().now());
        let mut allowance = budget.allowance();
        // As far as one batch may go: what lies behind it costs nothing to look at later.
        let end = end.min(first.saturating_add(BATCH_ENTRIES));
        let charged = self.filter.as_ref().map_or(Charged::All, Charged::Passing);
        // Where a filter is much work this ends before what is charged; what lies before that costs nothing, and goes ahead.
        let reach = |range, amount| {
            self.exchange
                .reach(&self.log, range, amount, charged, &mut Work::new())
        };
        let next_bytes = if allowance.counts_bytes() {
            let next = reach((first, end), NOTHING)?.0;
            reach((next, end.min(next + 1)), ALL_THERE_IS)?.1[1]
        } else {
            0
        };
        let mut asked = Vec::new();
        let (to, amount) = match allowance.room(view, (first, end), next_bytes, now) {
            // Under a filter it is known while the batch is put together.
            Room::Go { end, amount } if self.filter.is_some() => (end, amount),
            Room::Go { end, amount } if amount[1] == u64::MAX => {
                (end.min(first.saturating_add(amount[0])), ALL_THERE_IS)
            }
            Room::Go { end, amount } => (reach((first, end), amount)?.0, ALL_THERE_IS),
            stopped => {
                // What costs nothing goes all the same: control entries, and what a filter leaves out.
                let free = reach((first, end), NOTHING)?.0;
                match stopped {
                    Room::Ask(allotments) => asked = allotments,
                    _ if free > first => {}
                    Room::Others(until) => return Ok(Metered::Held { limit: None, until }),
                    Room::Held { limit, until } => {
                        let limit = Some((limit, next_bytes));
                        return Ok(Metered::Held { limit, until });
                    }
                    Room::Go { .. } | Room::Pending => return Ok(Metered::Soon),
                }
                if free == first {
                    drop(allowance);
                    budget.write(&self.exchange, asked);
                    return Ok(Metered::Soon);
                }
                (free, NOTHING)
            }
        };
        let (next, used) = self.batch(state, head, to, amount)?;
        asked.extend(allowance.hand_out(view, (first, state.position), used));
        drop(allowance);
        budget.write(&self.exchange, asked);
        Ok(Metered::Batch(next))
    }

    /// What the subscription shows of the log, as far as rate and quota go.
    fn view(&self) -> Hash {
        view_of(self.filter.as_ref())
    }

    /// Says once what holds it up and when that lifts, and remembers the time.
    fn held(
        &self,
        mut state: MutexGuard<'_, State>,
        head: &LogHead,
        limit: Option<(Limit, u64)>,
        until: Timestamp,
    ) -> Result<Option<Next>, ExchangeError> {
        let now = self.exchange.clock().now();
        let is_known = state
            .held_until
            .is_some_and(|known| now < known && known <= until);
        state.held_until = Some(until);
        let quiet = || Ok((!is_known).then_some(Next::Wait));
        let Some((limit, next_bytes)) = limit else {
            return quiet();
        };
        let told = match limit {
            Limit::Rate => std::mem::replace(&mut state.rate_told, true),
            Limit::QuotaBytes | Limit::QuotaEvents => {
                std::mem::replace(&mut state.paused_shown, true)
            }
        };
        let position = state.position;
        drop(state);
        let why = self.limit_text(limit, position, next_bytes, until);
        let word = match limit {
            Limit::Rate => "rate",
            Limit::QuotaBytes => "quota-bytes",
            Limit::QuotaEvents => "quota-events",
        };
        self.note_status(true, Some((word, why.clone())));
        if told {
            return quiet();
        }
        Ok(Some(Next::Heads(Heads {
            head: head_of(head)?,
            paused: why,
        })))
    }

    /// Which limit it is, and when it lifts.
    fn limit_text(&self, limit: Limit, position: u64, next_bytes: u64, until: Timestamp) -> String {
        let registry = self.exchange.registry();
        let state = registry.agreements.get(&self.agreement);
        let plan = state.map(|state| &state.agreement.plan);
        let quota = plan.and_then(|plan| plan.quota);
        let period = quota
            .map(|quota| quota.period.to_string())
            .unwrap_or_default();
        let lifts = until.to_rfc3339();
        match limit {
            Limit::Rate => {
                let rate = plan.and_then(|plan| plan.rate);
                let rate = rate.map_or(0, |rate| rate.events_per_second.get());
                format!("the plan's rate is {rate} events a second: events come no faster")
            }
            Limit::QuotaEvents => {
                let events = quota.and_then(|quota| quota.events).unwrap_or_default();
                format!(
                    "the plan's quota of {events} events (period: {period}) is used up: it lifts at {lifts}"
                )
            }
            Limit::QuotaBytes => {
                let bytes = quota.and_then(|quota| quota.bytes).unwrap_or_default();
                if next_bytes > bytes {
                    return format!(
                        "entry {position} has {next_bytes} data bytes, more than the plan's quota of {bytes} in all: it cannot be delivered under this plan"
                    );
                }
                format!(
                    "the plan's quota of {bytes} data bytes (period: {period}) does not suffice for entry {position}: it lifts at {lifts}"
                )
            }
        }
    }

    /// In what time it is worth calling [`Delivery::next`] again, where a limit of the plan holds events up.
    #[must_use]
    pub fn goes_on_in(&self) -> Option<Duration> {
        let until = self.state().held_until?;
        let now = self.exchange.clock().now();
        let wait = Duration::from_micros(until.0.saturating_sub(now.0));
        // A clock may be set meanwhile.
        Some(wait.clamp(Duration::from_millis(1), HELD_LOOK))
    }

    /// The batch from the reader's position on: not beyond `end`, and under a filter not more than `amount`.
    fn batch(
        &self,
        state: &mut State,
        head: &LogHead,
        end: u64,
        amount: Amount,
    ) -> Result<(Next, Amount), ExchangeError> {
        let first = state.position;
        // A reader that starts again earlier gets what is counted already, and then a batch that begins where counting goes on.
        let counted = state.delivered.end();
        let end = if first < counted {
            end.min(counted)
        } else {
            end
        };
        let count = (end - first).min(BATCH_ENTRIES);
        let head = head_of(head)?;
        let (exchange, log, range) = (&self.exchange, &self.log, (first, count));
        let sees = self.sees.as_deref();
        let Gathered {
            message,
            bulk,
            events,
            bytes,
            skipped,
            epochs,
            rests,
        } = match &self.filter {
            None => gather(exchange, log, range, BATCH_BYTES_MAX, &head, sees)?,
            Some(filter) => gather_passing(exchange, log, range, amount, &head, sees, filter)?,
        };
        let claim = self.claim(first, u64::from(message.count), &skipped)?;
        let batch_end = first + u64::from(message.count);
        // From here on it counts as handed to the transport.
        state.position = batch_end;
        state.rests = rests;
        self.exchange.with_exposure(self.agreement, |exposure| {
            exposure.hand_out(first.max(*self.receipted.borrow()), batch_end);
        });
        if batch_end > state.delivered.end() {
            state.delivered.add(batch_end, events, bytes);
        }
        let mut due: Vec<u64> = state.key_due.take().into_iter().chain(epochs).collect();
        due.dedup();
        let mut keys = Vec::new();
        for epoch in due {
            if let Some(wrap) = self.exchange.wrap_for(&self.consumer, &self.log, epoch) {
                state.key_given = state.key_given.max(Some(epoch));
                keys.push(wrap);
            }
        }
        let next = Next::Batch {
            message,
            bulk,
            keys,
            claim,
        };
        Ok((next, [events, bytes]))
    }

    /// Our signed word on what a filter left out of a batch.
    fn claim(
        &self,
        from: u64,
        count: u64,
        skipped: &[(u64, u64)],
    ) -> Result<Option<Envelope>, ExchangeError> {
        let Some(filter) = self.filter.as_ref().filter(|_| !skipped.is_empty()) else {
            return Ok(None);
        };
        let size = from + count;
        let nodes = self.exchange.reader().nodes(self.log.number());
        let range = compact_range_at(&nodes, size).map_err(proof_failed)?;
        let claim = SkipClaim {
            agreement: self.agreement,
            stream: self.log.origin().clone(),
            consumer: self.consumer.clone(),
            filter: Digest(filter.digest()),
            from,
            size,
            root: Digest(range.root()),
            skipped: skipped.iter().map(|(first, end)| end - first).sum(),
            runs: SkipClaim::digest_of(skipped),
            made: self.exchange.clock().now(),
        };
        let key = &self.exchange.identity().agreement_key;
        Ok(Some(claim.sign(key)))
    }

    /// Takes a receipt or rejection of the consumer; returns the receipt's number (0 for a rejection) once it is in the ledger. A receipt
    /// that is held already is answered like the first time.
    ///
    /// # Errors
    /// [`ExchangeError::Receipt`] where it is the consumer's fault: the session ends and the receipt is kept as evidence.
    pub async fn take_receipt(&self, envelope: &[u8]) -> Result<u64, ExchangeError> {
        let signature = || ReceiptFault::Signature {
            consumer: self.consumer.clone(),
        };
        let envelope = Envelope::from_json(envelope).map_err(|_| signature())?;
        let text = String::from_utf8(envelope.to_json()).unwrap_or_default();
        let statement = {
            let registry = self.exchange.registry();
            let partner = registry
                .partners
                .get(&self.consumer)
                .ok_or_else(signature)?;
            partner.statement.clone()
        };
        let statement = self.exchange.statement_in_force(&statement);
        let partner = Some(self.consumer.clone());
        if envelope.payload_type() == Rejection::PAYLOAD_TYPE {
            let rejection = statement
                .open_dated(Role::Receipt, &envelope, |rejection: &Rejection| {
                    rejection.made
                })
                .map_err(|_| signature())?;
            if rejection.agreement != self.agreement || rejection.stream != *self.log.origin() {
                return Err(ReceiptFault::Foreign {
                    field: "agreement or stream",
                }
                .into());
            }
            // Once it is in our ledger, an auditor holds it against the log: what speaks of an entry that is not ours is not kept.
            let log = self.log.number();
            let ours = rejection.sequence < self.log.size()
                && self.exchange.reader().leaf_hash(log, rejection.sequence)? == rejection.leaf.0;
            if !ours {
                return Err(ReceiptFault::Foreign { field: "entry" }.into());
            }
            self.exchange
                .record_and_wait(partner, LedgerRecord::Rejection { envelope: text })
                .await?;
            return Ok(0);
        }
        let receipt = statement
            .open_dated(Role::Receipt, &envelope, |receipt: &Receipt| receipt.made)
            .map_err(|_| signature())?;
        let digest = envelope.payload_digest();
        let accepted = match self.accept_counting(&receipt, digest).await {
            Err(ExchangeError::Receipt(ReceiptFault::Order { last, found }))
                if (1..last).contains(&found) =>
            {
                match self.answer_again(&receipt, digest).await {
                    Ok(number) => return Ok(number),
                    Err(error) => Err(error),
                }
            }
            accepted => accepted,
        };
        if let Err(ExchangeError::Receipt(_)) = &accepted
            && receipt.consumer == self.consumer
        {
            // What it may contradict is durable first: proof that this side cannot show again would be none.
            self.quiet().await;
            self.exchange
                .look_for_contradiction(&receipt, &envelope)
                .await?;
        }
        let added = accepted?;
        // The window moves at once; the consumer is told when the receipt is durable here.
        self.receipted.send_if_modified(|receipted| {
            let moves = *receipted < receipt.size;
            *receipted = receipt.size.max(*receipted);
            moves
        });
        self.note_status(true, None);
        let Some((from, events, bytes)) = added else {
            self.landed(&receipt).await?;
            return Ok(receipt.number);
        };
        let record = LedgerRecord::Receipt {
            envelope: text,
            from,
            events,
            bytes,
        };
        self.exchange.record_and_wait(partner, record).await?;
        Ok(receipt.number)
    }

    /// A receipt before the last one: held in the ledger, or a contradiction of the one that is.
    async fn answer_again(&self, receipt: &Receipt, digest: Hash) -> Result<u64, ExchangeError> {
        let number = receipt.number;
        let held = self
            .exchange
            .own_receipts_after(
                self.agreement,
                self.log.origin(),
                self.series,
                // However long the series is, the one of that number.
                (number.saturating_sub(1), 1),
            )
            .await?;
        let same = held.iter().any(|held| held.payload_digest() == digest);
        let contradiction = ReceiptFault::Contradiction { number };
        if same {
            Ok(number)
        } else {
            Err(contradiction.into())
        }
    }

    /// Waits until no receipt of the series is on its way to the ledger.
    async fn quiet(&self) {
        let key = (self.agreement, self.series);
        let mut moved = self.exchange.ledger_moved();
        while self.exchange.receipts_under_way().contains_key(&key) {
            // The exchange, which this delivery holds, keeps the channel open.
            let _ = moved.changed().await;
        }
    }

    /// Waits until a receipt that another session took is in the ledger.
    async fn landed(&self, receipt: &Receipt) -> Result<(), ExchangeError> {
        self.quiet().await;
        let key = (self.agreement, self.series);
        let held = self
            .exchange
            .registry()
            .receipts
            .get(&key)
            .map(|l| l.receipt.number);
        if held.is_some_and(|held| held >= receipt.number) {
            Ok(())
        } else {
            Err(AppendError::Busy.into())
        }
    }

    /// Takes over what another session of the same series has accepted meanwhile.
    fn adopt(
        &self,
        state: &mut State,
        newest: (Receipt, Hash),
        counted: &Counted,
    ) -> Result<(), NotAccepted> {
        self.check_near(state, newest.0.start)?;
        self.begin_at(state, newest.0.start, counted)?;
        state.last = Some(newest);
        Ok(())
    }

    /// A series cannot begin far before a session that has no receipt of it: nobody was handed that much unreceipted.
    fn check_near(&self, state: &State, start: u64) -> Result<(), ExchangeError> {
        let behind = state.start.saturating_sub(start);
        let near = behind <= self.exposure.saturating_mul(WINDOWS_BEHIND_MAX);
        if state.last.is_some() || near {
            Ok(())
        } else {
            Err(ReceiptFault::Foreign { field: "start" }.into())
        }
    }

    /// A series begins where its first receipt says: at the start of the session, or earlier, where that is a later session than its first.
    fn begin_at(
        &self,
        state: &mut State,
        start: u64,
        counted: &Counted,
    ) -> Result<(), NotAccepted> {
        if state.last.is_none() && start < state.start {
            let (passed, erased) = counted.of(start, state.start)?;
            state.delivered.begin_earlier(passed.events, passed.bytes);
            state.unknown.add((erased.events, erased.bytes));
            state.start = start;
        }
        Ok(())
    }

    /// As [`Delivery::accept`]. What has to be counted of the log is counted beside the lock, so that nobody waits for it who ends the subscription.
    async fn accept_counting(
        &self,
        receipt: &Receipt,
        digest: Hash,
    ) -> Result<Option<(u64, u64, u64)>, ExchangeError> {
        let mut counted = Counted::default();
        loop {
            let (from, to) = match self.accept(receipt, digest, &counted) {
                Ok(accepted) => return Ok(accepted),
                Err(NotAccepted::Exchange(error)) => return Err(error),
                Err(NotAccepted::Uncounted { from, to }) => (from, to),
            };
            let filter = self.filter.as_ref();
            let totals = self.exchange.count_passing(&self.log, from, to, filter);
            counted.ranges.push(((from, to), totals.await?));
        }
    }

    /// Checks a receipt against what was delivered. `None` where it is held already; else what it adds.
    fn accept(
        &self,
        receipt: &Receipt,
        digest: Hash,
        counted: &Counted,
    ) -> Result<Option<(u64, u64, u64)>, NotAccepted> {
        let filter = self.filter.as_ref().map(|filter| Digest(filter.digest()));
        let differs = [
            (receipt.agreement != self.agreement, "agreement"),
            (receipt.stream != *self.log.origin(), "stream"),
            (receipt.consumer != self.consumer, "consumer"),
            (receipt.series != self.series, "series"),
            (receipt.filter != filter, "filter"),
            (receipt.level == Level::Received, "level"),
        ];
        if let Some((_, field)) = differs.into_iter().find(|(differs, _)| *differs) {
            return Err(ReceiptFault::Foreign { field }.into());
        }
        let mut state = self.state();
        let key = (self.agreement, self.series);
        let mut under_way = self.exchange.receipts_under_way();
        let newest = under_way.get(&key).cloned().or_else(|| {
            let registry = self.exchange.registry();
            let last = registry.receipts.get(&key)?;
            Some((last.receipt.clone(), last.digest))
        });
        let known = state.last.as_ref().map_or(0, |(last, _)| last.number);
        if let Some(newest) = newest.filter(|(newest, _)| newest.number > known) {
            self.adopt(&mut state, newest, counted)?;
        }
        if let Some((last, last_digest)) = &state.last
            && receipt.number == last.number
        {
            let same = *last_digest == digest;
            let contradiction = ReceiptFault::Contradiction {
                number: receipt.number,
            };
            return if same {
                Ok(None)
            } else {
                Err(contradiction.into())
            };
        }
        let start = match &state.last {
            None => receipt.start.min(state.start),
            Some(_) => state.start,
        };
        check_follows(receipt, state.last.as_ref(), start)?;
        self.check_near(&state, start)?;
        state.delivered.check_end(receipt)?;
        // Counts only what the log holds, so that it may be done before the counts are known to be right.
        self.begin_at(&mut state, start, counted)?;
        let counts = match state.delivered.totals_at(receipt.size) {
            Some(counts) => counts,
            None => self.count_to(&mut state, receipt.size, counted)?,
        };
        check_counts(receipt, counts, (state.unknown.events, state.unknown.bytes))?;
        let nodes = self.exchange.reader().nodes(self.log.number());
        let root = compact_range_at(&nodes, receipt.size)
            .map_err(proof_failed)?
            .root();
        if root != receipt.root.0 {
            return Err(ReceiptFault::Root { size: receipt.size }.into());
        }
        let before = state
            .last
            .as_ref()
            .map(|(last, _)| (last.size, last.events, last.bytes));
        let (from, events, bytes) = before.unwrap_or((receipt.start, 0, 0));
        state.delivered.forget_below(receipt.size);
        state.last = Some((receipt.clone(), digest));
        under_way.insert(key, (receipt.clone(), digest));
        self.exchange.with_exposure(self.agreement, |exposure| {
            exposure.receipt(receipt.start, receipt.size);
        });
        Ok(Some((
            from,
            receipt.events.saturating_sub(events),
            receipt.bytes.saturating_sub(bytes),
        )))
    }

    /// Events and bytes of the series up to `size`, counted from the log.
    fn count_to(
        &self,
        state: &mut State,
        size: u64,
        counted: &Counted,
    ) -> Result<(u64, u64), NotAccepted> {
        let (from, events, bytes) = state
            .last
            .as_ref()
            .map_or((state.start, 0, 0), |(last, _)| {
                (last.size, last.events, last.bytes)
            });
        let (more, erased) = counted.of(from, size)?;
        if self.filter.is_some() {
            state.unknown = erased;
        }
        Ok((events + more.events, bytes + more.bytes))
    }

    /// Whether the window is used up, and the subscriber knows it. Receipts of another session under the same agreement may make room; then
    /// [`Delivery::recheck`] goes on.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.state().paused_shown
    }

    /// Asks the policies again where they, the agreement or a time boundary may have changed. To be called whenever
    /// [`Exchange::watch_access`] wakes, and once after the first call of that.
    pub fn recheck(&self) {
        let exchange = &self.exchange;
        let generation = exchange.access_generation();
        let agreement = exchange.registry().agreements.get(&self.agreement).cloned();
        let now = exchange.clock().now();
        let active = agreement.as_ref().is_some_and(|state| state.is_active(now));
        let changed = std::mem::replace(&mut self.state().generation, generation) != generation;
        if self.state().paused_shown {
            // Receipts of another session under the same agreement may have made room.
            self.receipted.send_modify(|_| ());
        }
        if active && !changed && !exchange.policies().mentions_time() {
            return;
        }
        if let Some(why) = exchange.contradicting(&self.consumer) {
            return self.end(RefusalCode::Pending, stopped(&why));
        }
        let described = self.log.described();
        let request = exchange.policy_request(
            &self.peer,
            Action::Read,
            described,
            agreement.as_ref(),
            &self.purpose,
        );
        let (decision, digest) = exchange.decide(&request);
        if decision.allowed && active {
            return;
        }
        let record = exchange.decision_record(
            &self.peer,
            &request,
            &decision,
            digest,
            Some(self.agreement),
        );
        exchange.record_lazily(Some(self.consumer.clone()), record);
        let over = agreement.and_then(|state| state.why_not(now));
        let (code, reason) = over.unwrap_or_else(|| {
            let why = format!("reading is no longer permitted: {}", decision.explanation);
            (RefusalCode::NotPermitted, why)
        });
        self.end(code, reason);
    }

    /// Hands out nothing until [`Delivery::resume`]; the first sequence that was not handed out.
    pub(crate) fn halt(&self) -> u64 {
        let mut state = self.state();
        state.halted = true;
        state.position
    }

    /// Goes on after [`Delivery::halt`], unless it was ended meanwhile.
    pub(crate) fn resume(&self) {
        self.state().halted = false;
        self.receipted.send_modify(|_| ());
    }

    fn end(&self, code: RefusalCode, reason: String) {
        // Under the lock that hands out batches: none is handed out at or above the position that is signed.
        let (position, key_given) = {
            let mut state = self.state();
            if std::mem::replace(&mut state.ended, true) {
                return;
            }
            (state.position, state.key_given)
        };
        let refusal = Refusal {
            asked: "subscribe".to_owned(),
            principal: Some(self.consumer.clone()),
            about: self.log.origin().to_string(),
            code,
            reason,
            policies: Vec::new(),
            advice: Vec::new(),
            position: Some(position),
            made: self.exchange.clock().now(),
        };
        let refused = Refused::sign(refusal, &self.exchange.identity().agreement_key);
        self.exchange.note_refusal(&self.peer, &refused);
        // Whoever is stopped holds no key of what comes next, whyever it was stopped.
        self.exchange.exclude(&self.consumer, &self.log, key_given);
        self.ended.send_replace(Some(Arc::new(refused)));
    }

    /// The session is over; the status stays, marked as not connected.
    pub fn disconnected(&self) {
        let position = self.state().position;
        if let Some(budget) = &self.budget {
            // Whoever reads on elsewhere is not to miss what was set aside here.
            let back = budget.allowance().give_back(self.view(), position);
            budget.write(&self.exchange, back.into_iter().collect());
        }
        self.note_status(false, None);
    }

    /// What holds it up: the limit in one word, and in words for people.
    fn note_status(&self, connected: bool, held: Option<(&'static str, String)>) {
        let (held_by, paused_because) = held.unwrap_or_default();
        let position = self.state().position;
        self.exchange.note_status(SubscriptionStatus {
            direction: Direction::Out,
            partner: self.consumer.clone(),
            stream: self.log.origin().clone(),
            agreement: self.agreement.to_string(),
            connected,
            position,
            head: self.log.size(),
            receipted: *self.receipted.borrow(),
            held_by,
            paused_because,
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held left numbers, not half-written structures.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
