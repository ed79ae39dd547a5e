//! A directory that may be an older copy of itself: streams are frozen until whoever has read them has said what it knows.
//!
//! ```text
//! opened elsewhere ── every own stream frozen─► AskLog to each reader ──► knows no more ──► released
//! opened at home  ── nothing frozen───────────►        (the same)    └──► knows more    ──► frozen, FetchBack, asked again
//! ```
//!
//! What is fetched back is verified against checkpoints of our own key, and extends what is here. Ledger logs are not mended: they have successors
//! (`exchange/succeeding.rs`).

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use countersign_crypto::Hash;
use countersign_event::documents::{Agreement, AgreementId, RefusalCode};
use countersign_event::names::{Authority, Origin};
use countersign_protocol::delivery::{BatchMessage, Cover, LogReader};
use countersign_protocol::{AskLog, FetchBack, LogState, SignedHead};
use countersign_store::journal::LogKind;
use countersign_tlog::fork_proof::ForkProof;
use countersign_tlog::{
    Checkpoint, TREE_SIZE_MAX, compact_range_at, consistency_proof, verify_consistency,
};
use tokio::sync::watch;

use crate::pipeline::append::AppendError;
use crate::pipeline::deliver::{BATCH_BYTES_MAX, BATCH_ENTRIES, gather};
use crate::witness::Contradiction;
use crate::{Exchange, ExchangeError, Log, Peer};

/// Why a stream takes no entries.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Freeze {
    /// Readers that have not said yet what they know.
    waiting: BTreeSet<Authority>,
    /// Outside witnesses that have not said yet what they know.
    outside: BTreeSet<String>,
    /// Readers that are shown all of each event, hold more entries than are here, and were not asked for them yet.
    holding: BTreeSet<Authority>,
    /// Somebody knows a checkpoint of so many entries, more than are here.
    behind: Option<u64>,
    /// Somebody has a checkpoint of our key that is not of this history.
    contradicted: bool,
    /// Another stream has taken its place.
    succeeded: bool,
}

impl Freeze {
    pub(crate) fn is_over(&self) -> bool {
        *self == Self::default()
    }

    /// Whether somebody's answer would end it.
    fn asks(&self) -> bool {
        !self.waiting.is_empty() || !self.outside.is_empty() || self.behind.is_some()
    }

    pub(crate) fn contradict(&mut self) {
        self.contradicted = true;
        self.waiting.clear();
        self.holding.clear();
        self.outside.clear();
        self.behind = None;
    }

    pub(crate) fn succeed(&mut self) {
        self.succeeded = true;
        self.waiting.clear();
        self.holding.clear();
        self.outside.clear();
        self.behind = None;
    }

    pub(crate) fn lacks(&mut self, size: u64) {
        self.behind = self.behind.max(Some(size));
    }

    /// What is waited for, and what would help.
    fn explain(&self, name: impl Fn(&Authority) -> String) -> String {
        if self.succeeded {
            return "another stream has taken its place".to_owned();
        }
        if self.contradicted {
            return "this log has signed another history than the one here: it takes no more entries. `countersign stream create NEW --cites STREAM` begins a new one"
                .to_owned();
        }
        let mut parts = Vec::new();
        if let Some(size) = self.behind {
            parts.push(format!(
                "others know {size} entries of it, more than are here: the missing ones are fetched back from whoever holds them"
            ));
        }
        let partners = self.waiting.iter().map(name);
        let names: Vec<String> = partners.chain(self.outside.iter().cloned()).collect();
        if !names.is_empty() {
            parts.push(format!(
                "this directory is a copy, was moved, or is older than what others know: what {} knows of this log is awaited",
                names.join(", ")
            ));
        }
        parts.push(
            "until then it is readable; `countersign stream create NEW --cites STREAM` begins a new one instead; a revoked partner is not waited for, nor is a witness that is no more in the settings"
                .to_owned(),
        );
        parts.join("; ")
    }
}

/// What a reader of ours knows, beside what is here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Heard {
    /// No more than is here.
    Known,
    /// More than is here.
    More {
        /// Whether it holds the entries too.
        held: bool,
    },
    /// Another history, under our own key.
    Contradicts,
    /// It holds entries and no checkpoint that we can read: no answer.
    Unclear,
}

/// Agreements that are remembered as named and not held.
const UNKNOWN_AGREEMENTS_MAX: usize = 1_000;

/// Logs of one owner whose entries are given back at the same time.
const GIVEN_BACK_AT_ONCE: usize = 2;

/// Covers that are looked at, newest first, for one whose tree is wholly here.
const COVERS_LOOKED_AT: usize = 64;

impl Exchange {
    /// Freezes every stream of ours: the directory lies elsewhere than where it was last used, or is older than what others know. Whoever reads any stream of
    /// ours may have read any other since.
    pub fn freeze_streams(&self) {
        self.away.store(true, Ordering::SeqCst);
        let readers = self.readers();
        for log in self.logs() {
            if log.kind() == LogKind::Own {
                log.change_freeze(|freeze| {
                    if !freeze.contradicted && !freeze.succeeded {
                        freeze.waiting.clone_from(&readers);
                    }
                });
            }
        }
        for witness in self.outside_witnesses() {
            let shown = self.shown_to(&witness.id()).into_iter();
            for log in shown.filter(|log| log.kind() == LogKind::Own) {
                log.change_freeze(|freeze| {
                    if !freeze.contradicted && !freeze.succeeded {
                        freeze.outside.insert(witness.vkey.name().to_owned());
                    }
                });
            }
        }
        self.ask_outside_again();
        self.note_frozen();
    }

    /// An outside witness has answered from where a log stands here: it knows no more.
    pub(crate) fn outside_knows_no_more(&self, witness: &str, origin: &Origin) {
        if let Some(log) = self.log(origin).filter(|log| log.is_frozen()) {
            log.change_freeze(|freeze| {
                freeze.outside.remove(witness);
            });
            self.note_frozen();
        }
    }

    /// Whether a log waits for what an outside witness knows of it.
    pub(crate) fn waits_for_outside(&self, witness: &str, origin: &Origin) -> bool {
        let freeze = self.log(origin).and_then(|log| log.freeze());
        freeze.is_some_and(|freeze| freeze.outside.contains(witness))
    }

    /// Takes the note that an outside witness shows as the newest that it has cosigned of a log of ours, after it said that it knows more than is here.
    ///
    /// # Errors
    /// [`ExchangeError::Proof`] where the own tree cannot be read.
    pub fn hear_outside(
        self: &Arc<Self>,
        witness: &str,
        origin: &Origin,
        note: &[u8],
    ) -> Result<Heard, ExchangeError> {
        let Some(log) = self.log(origin).filter(|log| log.kind() != LogKind::Copy) else {
            return Ok(Heard::Known);
        };
        let state = LogState {
            note: note.to_vec(),
            root: [0; 32],
            proof: Vec::new(),
            held: 0,
            witnessed: Vec::new(),
        };
        let (heard, known) = self.judge_own(&log, &state)?;
        if log.kind() == LogKind::Ledger {
            return Ok(self.hear_of_ledger(&log, heard, known));
        }
        if let Heard::More { .. } = heard {
            tracing::warn!(%origin, witness, known, here = log.size(), "an outside witness has cosigned more entries of a stream than are here");
            self.leave_home();
            log.change_freeze(|freeze| {
                freeze.outside.remove(witness);
                freeze.lacks(known);
            });
            self.note_frozen();
        }
        Ok(heard)
    }

    /// The first sign that this directory is older than what others know: it is forgotten where it lives, so that the next start knows, and every
    /// stream is frozen.
    pub(crate) fn leave_home(self: &Arc<Self>) {
        if !self.away.load(Ordering::SeqCst) {
            (self.unsettle)();
            self.freeze_streams();
            self.succeed_ledgers_soon();
        }
    }

    /// Somebody says, unsigned, that it knows more than is here: readers are asked again.
    pub(crate) fn doubt(&self) {
        self.frozen.send_modify(|_| ());
    }

    /// Whether a stream waits for somebody's answer.
    #[must_use]
    pub fn asks_readers(&self) -> bool {
        *self.frozen.borrow()
    }

    /// Wakes when that changes.
    #[must_use]
    pub fn watch_frozen(&self) -> watch::Receiver<bool> {
        self.frozen.subscribe()
    }

    /// Partners whose answer is waited for.
    #[must_use]
    pub fn awaited_readers(&self) -> BTreeSet<Authority> {
        if !self.asks_readers() {
            return BTreeSet::new();
        }
        let logs = self.logs().into_iter();
        let frozen = logs.filter_map(|log| log.freeze());
        let lacking = |freeze: &Freeze| freeze.behind.is_some();
        let mut awaited = BTreeSet::new();
        for freeze in frozen {
            if lacking(&freeze) {
                awaited.extend(self.readers());
            }
            awaited.extend(freeze.waiting);
        }
        awaited
    }

    /// Nobody waits for who was revoked since.
    pub fn review_frozen(&self) {
        if !self.asks_readers() {
            return;
        }
        let readers = self.readers();
        for log in self.logs() {
            log.change_freeze(|freeze| {
                freeze.waiting.retain(|waiting| readers.contains(waiting));
                freeze.holding.retain(|holding| readers.contains(holding));
            });
        }
        self.note_frozen();
    }

    pub(crate) fn note_frozen(&self) {
        let logs = self.logs();
        let asks = logs
            .iter()
            .any(|log| log.freeze().is_some_and(|freeze| freeze.asks()));
        self.frozen
            .send_if_modified(|known| std::mem::replace(known, asks) != asks);
    }

    /// Whether a partner names an agreement that is not held here; then that is remembered for people to look at. Nothing else tells what a restored directory
    /// has forgotten.
    pub(crate) fn note_unknown_agreement(&self, partner: &Authority, id: AgreementId) -> bool {
        let registry = self.registry();
        if registry.agreements.contains_key(&id) || !registry.partners.contains_key(partner) {
            return false;
        }
        drop(registry);
        let unknown = self.unknown_agreements.lock();
        let mut unknown = unknown.unwrap_or_else(PoisonError::into_inner);
        if unknown.len() < UNKNOWN_AGREEMENTS_MAX {
            unknown.insert((partner.clone(), id));
        }
        true
    }

    /// Agreements that partners have named since the start and that are not held here: made after the backup that this directory comes from, perhaps.
    #[must_use]
    pub fn unknown_agreements(&self) -> Vec<(Authority, AgreementId)> {
        let unknown = self.unknown_agreements.lock();
        let unknown = unknown.unwrap_or_else(PoisonError::into_inner);
        let known =
            |(_, id): &&(Authority, AgreementId)| !self.registry().agreements.contains_key(id);
        unknown.iter().filter(known).cloned().collect()
    }

    /// What is known of our own streams from the ledger and their settings: the ones that have forked, and those in whose place another one is.
    pub(crate) fn recall_frozen(&self) {
        let logs = self.logs();
        let cited: Vec<Origin> = logs
            .iter()
            .filter_map(|log| Some(log.settings().cites.as_ref()?.origin.clone()))
            .collect();
        for log in logs.iter().filter(|log| log.kind() != LogKind::Copy) {
            if log.kind() == LogKind::Own && self.has_forked(log.origin()) {
                log.change_freeze(Freeze::contradict);
            }
            if cited.contains(log.origin()) {
                log.change_freeze(Freeze::succeed);
            }
        }
    }

    /// Why a stream takes no entries, if that is so.
    #[must_use]
    pub fn why_frozen(&self, log: &Log) -> Option<String> {
        let freeze = log.freeze()?;
        let name = |authority: &Authority| {
            let registry = self.registry();
            let partner = registry.partners.get(authority);
            partner.map_or_else(
                || authority.to_string(),
                |known| known.statement.name.clone(),
            )
        };
        Some(freeze.explain(name))
    }

    /// The partners that have, or had, an agreement to read a stream of ours.
    fn readers(&self) -> BTreeSet<Authority> {
        self.readers_where(|_| true)
    }

    fn readers_where(&self, wanted: impl Fn(&Origin) -> bool) -> BTreeSet<Authority> {
        self.readers_under(|agreement| wanted(&agreement.stream))
    }

    fn readers_under(&self, wanted: impl Fn(&Agreement) -> bool) -> BTreeSet<Authority> {
        let own = self.identity().authority();
        let registry = self.registry();
        let agreements = registry.agreements.values();
        let ours = agreements
            .filter(|state| state.agreement.producer.authority == *own && wanted(&state.agreement));
        let consumers = ours.map(|state| state.agreement.consumer.authority.clone());
        let there = |consumer: &Authority| {
            let known = registry.partners.get(consumer);
            known.is_some_and(|known| known.revoked.is_none())
        };
        consumers.filter(there).collect()
    }

    /// What a partner is asked about our own logs: the streams that it reads, and all of them where this directory may be older than what it knows; the current
    /// ledger log about itself.
    #[must_use]
    pub fn questions_for(&self, partner: &Authority) -> Vec<AskLog> {
        let away = self.away.load(Ordering::SeqCst);
        let mut questions = Vec::new();
        for log in self.logs() {
            let asked = log.kind() == LogKind::Own
                && (away
                    || self
                        .readers_where(|stream| stream == log.origin())
                        .contains(partner));
            if asked {
                questions.push(AskLog {
                    origin: log.origin().to_string(),
                    size: log.size(),
                });
            }
        }
        let about = Origin::of_ledger(self.identity().authority(), partner);
        if let Some(ledger) = self.current_ledger(&about) {
            questions.push(AskLog {
                origin: ledger.origin().to_string(),
                size: ledger.size(),
            });
        }
        questions
    }

    /// Takes what a partner knows of a log of ours.
    ///
    /// # Errors
    /// [`ExchangeError::Proof`] where the own tree cannot be read.
    pub fn hear(
        self: &Arc<Self>,
        partner: &Authority,
        origin: &Origin,
        state: &LogState,
    ) -> Result<Heard, ExchangeError> {
        let Some(log) = self.log(origin).filter(|log| log.kind() != LogKind::Copy) else {
            return Ok(Heard::Known);
        };
        let (heard, known) = self.judge_own(&log, state)?;
        if log.kind() == LogKind::Ledger {
            return Ok(self.hear_of_ledger(&log, heard, known));
        }
        if matches!(heard, Heard::More { .. } | Heard::Contradicts) {
            self.leave_home();
        }
        let before = log.freeze();
        let whole = self.whole_readers(&log);
        log.change_freeze(|freeze| match heard {
            Heard::Known => {
                freeze.waiting.remove(partner);
                freeze.holding.remove(partner);
                freeze.behind = freeze.behind.filter(|size| *size > log.size());
                if freeze.behind.is_none() {
                    freeze.holding.clear();
                }
            }
            Heard::More { held } => {
                freeze.waiting.remove(partner);
                freeze.lacks(known);
                if held && whole.contains(partner) {
                    freeze.holding.insert(partner.clone());
                }
            }
            Heard::Contradicts => freeze.contradict(),
            Heard::Unclear => {}
        });
        self.note_frozen();
        let news = log.freeze() != before;
        match heard {
            Heard::More { .. } if news => {
                tracing::warn!(%origin, %partner, known, here = log.size(), "a partner knows more entries of a stream than are here");
            }
            Heard::Contradicts if news => {
                tracing::error!(%origin, %partner, "a partner has a checkpoint of our key that is not of the history here");
            }
            Heard::Unclear => {
                tracing::warn!(%origin, %partner, held = state.held, "a partner holds more entries of a stream than are here, and no checkpoint that can be read");
            }
            _ => {}
        }
        Ok(heard)
    }

    /// A ledger log of which others know more, or otherwise, gets a successor: nobody can give back what is missing.
    fn hear_of_ledger(self: &Arc<Self>, log: &Arc<Log>, heard: Heard, known: u64) -> Heard {
        if !matches!(heard, Heard::More { .. } | Heard::Contradicts) || !self.is_current_ledger(log)
        {
            return Heard::Known;
        }
        tracing::warn!(origin = %log.origin(), known, here = log.size(), "others have cosigned another state of a ledger log than is here");
        self.leave_home();
        // Away before: this one is of a generation that has begun since, which another copy of this directory has written to as well.
        self.succeed_ledgers_soon();
        match heard {
            Heard::More { .. } => Heard::More { held: false },
            other => other,
        }
    }

    /// What an answer says of our own log, and the size of the checkpoint in it.
    fn judge_own(
        self: &Arc<Self>,
        log: &Arc<Log>,
        state: &LogState,
    ) -> Result<(Heard, u64), ExchangeError> {
        let origin = log.origin();
        let head = log.head();
        // What no key of ours signed says nothing about our log, whoever shows it.
        let known = self.opened(origin, &state.note);
        let known = known.filter(|known| {
            known.origin == origin.as_str() && (1..=TREE_SIZE_MAX).contains(&known.size)
        });
        let Some(known) = known else {
            let unclear = state.held > head.size;
            return Ok((
                if unclear {
                    Heard::Unclear
                } else {
                    Heard::Known
                },
                0,
            ));
        };
        let contradicts = if known.size > head.size {
            // It says itself how its tree goes on from ours, or from another one.
            let goes_on = |root: &Hash| {
                verify_consistency(head.size, root, known.size, &known.root, &state.proof).is_ok()
            };
            !goes_on(&head.root) && state.root != head.root && goes_on(&state.root)
        } else {
            let nodes = self.reader().nodes(log.number());
            let ours = compact_range_at(&nodes, known.size)
                .map_err(|error| ExchangeError::Proof(error.to_string()))?;
            ours.root() != known.root
        };
        if contradicts {
            self.note_own_fork(log, &known, state);
            return Ok((Heard::Contradicts, known.size));
        }
        let heard = if known.size > head.size {
            Heard::More {
                held: state.held > head.size,
            }
        } else {
            Heard::Known
        };
        Ok((heard, known.size))
    }

    /// Our own key has signed two histories: that is kept like anybody's fork.
    pub(crate) fn note_own_fork(
        self: &Arc<Self>,
        log: &Arc<Log>,
        known: &Checkpoint,
        state: &LogState,
    ) {
        let head = log.head();
        let came = String::from_utf8_lossy(&state.note).into_owned();
        let Some(own) = head.note(log.origin()) else {
            return;
        };
        let proof = if known.size == head.size {
            ForkProof::same_size(&own, &came).ok()
        } else if known.size > head.size {
            ForkProof::between(&own, &came, state.root, state.proof.clone()).ok()
        } else {
            let nodes = self.reader().nodes(log.number());
            let ours = compact_range_at(&nodes, known.size)
                .ok()
                .map(|range| range.root());
            let bridge = consistency_proof(&nodes, known.size, head.size).ok();
            ours.zip(bridge)
                .and_then(|(ours, bridge)| ForkProof::between(&came, &own, ours, bridge).ok())
        };
        let found = Contradiction {
            known: own,
            came,
            proof,
        };
        self.note_fork(log.origin(), found);
        log.change_freeze(Freeze::contradict);
        self.note_frozen();
    }

    /// The readers of a stream of ours that are shown all of each event, where others are shown a part.
    fn whole_readers(&self, log: &Log) -> BTreeSet<Authority> {
        if !log.settings().fields {
            return BTreeSet::new();
        }
        self.readers_under(|agreement| {
            agreement.stream == *log.origin() && agreement.plan.fields.is_none()
        })
    }

    /// A reader for entries of our own log that a partner holds: it goes on where ours ends, and accepts what our key has signed. None from a partner that is
    /// shown some members of each event, as long as somebody who is shown all of it has not answered, or holds more and was not asked for it.
    #[must_use]
    pub fn fetching(&self, partner: &Authority, origin: &Origin) -> Option<(Arc<Log>, LogReader)> {
        let log = self.log(origin).filter(|log| log.kind() == LogKind::Own)?;
        let whole = self.whole_readers(&log);
        if log.settings().fields
            && !whole.contains(partner)
            && let Some(freeze) = log.freeze()
            && (!freeze.holding.is_empty() || !freeze.waiting.is_disjoint(&whole))
        {
            return None;
        }
        let head = self.reader().head(log.number())?;
        let reader = LogReader::resume(
            origin.as_str(),
            self.own_keys_ever(origin),
            head.range,
            head.last_leaf,
            head.last_time_us,
            None,
        );
        // A partner may hold no more than its plan shows: better that than nothing.
        Some((log, reader.taking_views(true)))
    }

    /// A partner has given what it gives of a log, or has not: others may be asked.
    pub fn fetched(&self, partner: &Authority, origin: &Origin) {
        if let Some(log) = self.log(origin).filter(|log| log.is_frozen()) {
            log.change_freeze(|freeze| {
                freeze.holding.remove(partner);
            });
        }
    }

    /// Takes a batch of our own entries back.
    ///
    /// # Errors
    /// What is wrong with it, in words; or what failed here.
    pub async fn take_back(
        self: &Arc<Self>,
        log: &Arc<Log>,
        reader: &mut LogReader,
        message: BatchMessage,
        bulk: Bytes,
    ) -> Result<(), ExchangeError> {
        if !log.is_frozen() {
            return Err(ExchangeError::Proof(
                "entries are fetched back only while the stream is frozen".to_owned(),
            ));
        }
        let batch = reader
            .take(message, bulk)
            .map_err(|fault| ExchangeError::Proof(fault.to_string()))?;
        let taken = self.writer().queue_fetched(Arc::clone(log), batch).await;
        taken.await.unwrap_or_else(|_| Err(AppendError::ended()))?;
        // Whether that was all is for the next answer to say.
        Ok(())
    }

    /// The batches of a copy that its owner has lost, from `from` on, as far as a checkpoint covers them that the copy holds whole.
    ///
    /// # Errors
    /// [`ExchangeError::Refused`] to anybody but the log's owner.
    pub fn open_fetch_back(
        self: &Arc<Self>,
        peer: &Peer,
        request: &FetchBack,
    ) -> Result<FetchedBack, ExchangeError> {
        let origin: Option<Origin> = request.origin.parse().ok();
        let of_peer = |origin: &Origin| peer.authority() == Some(&origin.authority());
        let copy = origin
            .filter(of_peer)
            .and_then(|origin| self.log(&origin))
            .filter(|log| log.kind() == LogKind::Copy);
        let Some(copy) = copy else {
            let reason = "only the owner of a log fetches its entries back, from a copy".to_owned();
            let code = RefusalCode::NotFound;
            return Err(self
                .refuse(peer, "fetch-back", &request.origin, code, reason)
                .into());
        };
        let Some(giving) = self.begin_giving_back(copy.origin()) else {
            let reason = format!(
                "entries of this log are on their way already, or of {GIVEN_BACK_AT_ONCE} others; ask again when they are there"
            );
            let code = RefusalCode::Busy;
            return Err(self
                .refuse(peer, "fetch-back", &request.origin, code, reason)
                .into());
        };
        let head = self.provable_head(&copy);
        Ok(FetchedBack {
            exchange: Arc::clone(self),
            head,
            next: request.from,
            copy,
            _giving: giving,
        })
    }

    /// Reading a log from its beginning is the most that a frame of a few bytes can make us do: one at a time for each log, a few for each owner.
    fn begin_giving_back(&self, origin: &Origin) -> Option<GivingBack> {
        let mut logs = self
            .giving_back
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let authority = origin.authority();
        let of_owner = logs.iter().filter(|log| log.authority() == authority);
        if of_owner.count() >= GIVEN_BACK_AT_ONCE || !logs.insert(origin.clone()) {
            return None;
        }
        Some(GivingBack {
            origin: origin.clone(),
            logs: Arc::clone(&self.giving_back),
        })
    }
}

impl Exchange {
    /// How many entries of a copy are here from the first on, up to the first that a filter left out.
    pub(crate) fn held_whole(&self, copy: &Log) -> u64 {
        let size = copy.size();
        let first = self.reader().first_filtered(copy.number());
        first.map_or(size, |first| first.min(size))
    }

    /// The newest head that the producer of a copy has signed for a tree that is wholly here.
    pub(crate) fn provable_head(&self, copy: &Log) -> Option<SignedHead> {
        let held = self.reader().size(copy.number())?;
        let newest = copy.head().producer.filter(|head| head.size <= held);
        let mut at = held;
        let mut found = newest;
        // A cover may reach beyond what is held; an honest log's does so for some batches at most.
        for _ in 0..COVERS_LOOKED_AT {
            if found.is_some() || at == 0 {
                break;
            }
            let stored = self.reader().cover_at_or_before(copy.number(), at).ok()??;
            let cover = postcard::from_bytes::<Cover>(&stored.cover).ok()?;
            let Cover::Checkpoint { head, .. } = cover;
            at = stored.size.saturating_sub(1);
            found = Some(head).filter(|head| head.size <= held);
        }
        found
    }
}

/// Entries on their way back to their owner.
#[derive(Debug)]
pub struct FetchedBack {
    exchange: Arc<Exchange>,
    copy: Arc<Log>,
    head: Option<SignedHead>,
    next: u64,
    _giving: GivingBack,
}

/// A log's place among those whose entries are being given back.
#[derive(Debug)]
struct GivingBack {
    origin: Origin,
    logs: Arc<Mutex<HashSet<Origin>>>,
}

impl Drop for GivingBack {
    fn drop(&mut self) {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.remove(&self.origin);
    }
}

impl FetchedBack {
    /// The next batch; `None` at the end of what can be proven.
    ///
    /// # Errors
    /// [`ExchangeError`] where the copy cannot be read.
    pub fn next_batch(&mut self) -> Result<Option<(BatchMessage, Vec<Bytes>)>, ExchangeError> {
        let Some(head) = self.head.clone().filter(|head| self.next < head.size) else {
            return Ok(None);
        };
        // What a filter left out of the copy cannot be given back, nor what lies behind it.
        let whole = self.exchange.held_whole(&self.copy).min(head.size);
        let count = whole.saturating_sub(self.next).min(BATCH_ENTRIES);
        if count == 0 {
            return Ok(None);
        }
        let gathered = gather(
            &self.exchange,
            &self.copy,
            (self.next, count),
            BATCH_BYTES_MAX,
            &head,
            None,
        )?;
        self.next += u64::from(gathered.message.count);
        Ok(Some((gathered.message, gathered.bulk)))
    }
}
