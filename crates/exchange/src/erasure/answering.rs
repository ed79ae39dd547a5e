//! The consumer's side: what becomes of requests to erase a copy.

use std::sync::Arc;

use countersign_event::control::Allows;
use countersign_event::documents::{
    Digest, Document as _, Erasure as Term, ErasureAnswer, ErasureId, ErasureRequest, Outcome,
    RefusalCode, Role,
};
use countersign_event::dsse::Envelope;
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::Origin;
use countersign_event::time::Timestamp;
use countersign_store::journal::LogKind;

use super::{EraseFault, OPEN_REQUESTS_MAX, RequestState, tidy};
use crate::{Exchange, ExchangeError, Peer};

/// What is to be done about a request.
enum Verdict {
    /// Erase, then answer *done*.
    Erase,
    /// Answer.
    Answer(Outcome, String),
    /// The copy does not reach the tombstone yet.
    NotYet,
    /// A person decides.
    Person,
}

impl Exchange {
    /// A producer asks for a copy to be erased.
    pub(crate) async fn take_erasure_request(
        self: &Arc<Self>,
        peer: &Peer,
        envelope: &Envelope,
    ) -> Result<(), ExchangeError> {
        let refuse = |code, reason: &str| -> ExchangeError {
            self.refuse(peer, "notice", "", code, reason.to_owned())
                .into()
        };
        let malformed = |reason: &str| refuse(RefusalCode::Malformed, reason);
        let Peer::Organization { statement, .. } = peer else {
            return Err(malformed("an application has no notices to give"));
        };
        let request = self
            .statement_in_force(statement)
            .open_dated(Role::Agreement, envelope, |request: &ErasureRequest| {
                request.made
            })
            .map_err(|_| {
                malformed("not an erasure request signed by an agreement key of its sender")
            })?;
        let own = self.identity().authority();
        let (agreed, known, open) = {
            let registry = self.registry();
            let agreement = registry.agreements.get(&request.agreement);
            let agreed = agreement.is_some_and(|state| {
                let terms = &state.agreement;
                terms.producer.authority == statement.authority
                    && terms.consumer.authority == *own
                    && terms.stream == request.stream
            });
            let open = registry
                .erasure
                .open()
                .filter(|state| state.request.by == statement.authority && state.answer.is_none());
            let known = registry.erasure.request(&request.id).cloned();
            (agreed, known, open.count())
        };
        if !agreed || request.by != statement.authority || request.tombstone <= request.sequence {
            return Err(malformed(
                "the erasure request names no agreement of ours with its sender about this stream",
            ));
        }
        match known {
            Some(known) if known.digest != envelope.payload_digest() => {
                return Err(malformed("another erasure request has this name"));
            }
            // Told again: it has not heard our answer.
            Some(known) => {
                if let Some((_, answer)) = known.answer {
                    self.erasing()
                        .tell(&statement.authority, request.id, answer);
                }
            }
            None if open >= OPEN_REQUESTS_MAX => {
                return Err(refuse(
                    RefusalCode::Busy,
                    "too many erasure requests wait here for a person",
                ));
            }
            None => {
                let text = String::from_utf8(envelope.to_json()).unwrap_or_default();
                let record = LedgerRecord::ErasureRequest { envelope: text };
                self.record_and_wait(Some(statement.authority.clone()), record)
                    .await?;
                // It is answered by the next pass, not while the producer waits.
                self.erasing().note();
            }
        }
        Ok(())
    }

    /// Answers what can be answered now.
    pub(super) async fn answer_requests(self: &Arc<Self>) -> Result<(), ExchangeError> {
        let own = self.identity().authority();
        let open: Vec<RequestState> = {
            let registry = self.registry();
            let theirs = registry
                .erasure
                .open()
                .filter(|state| state.request.by != *own);
            theirs
                .filter(|state| match state.outcome() {
                    None => true,
                    // Decided anew once the hold is released.
                    Some(Outcome::Held) => registry.erasure.hold(&state.request.stream).is_none(),
                    Some(Outcome::Done | Outcome::Refused) => false,
                })
                .cloned()
                .collect()
        };
        for state in open {
            let _one = self.erasing().one.lock().await;
            match self.judge(&state, false)? {
                Verdict::NotYet | Verdict::Person => {}
                Verdict::Answer(outcome, reason) => self.answer(&state, outcome, reason).await?,
                Verdict::Erase => {
                    let reason = "the agreement says so".to_owned();
                    self.erase_copy(&state, reason).await?;
                }
            }
        }
        Ok(())
    }

    fn judge(&self, state: &RequestState, approved: bool) -> Result<Verdict, ExchangeError> {
        let request = &state.request;
        let (hold, obey, active) = {
            let registry = self.registry();
            let agreement = registry.agreements.get(&request.agreement);
            let obey = agreement.is_some_and(|state| state.agreement.plan.erasure == Term::Obey);
            let now = self.clock().now();
            let consumer = self.identity().authority();
            let active = registry.active_agreement(consumer, &request.stream, now);
            let hold = registry.erasure.hold(&request.stream).map(str::to_owned);
            (hold, obey, active.is_some())
        };
        let done = |why: &str| Ok(Verdict::Answer(Outcome::Done, why.to_owned()));
        let copy = self.log(&request.stream);
        let Some(copy) = copy.filter(|log| log.kind() == LogKind::Copy) else {
            return if active {
                Ok(Verdict::NotYet)
            } else {
                done("no copy of the stream is held here")
            };
        };
        let size = copy.size();
        // Reading goes on: what is asked for may still come, and the log itself will say whether it was erased.
        if size <= request.tombstone && active {
            return Ok(Verdict::NotYet);
        }
        if size <= request.sequence {
            return done("the copy held here ends before it");
        }
        if size > request.tombstone {
            let says = self.allows_at(&copy, request.tombstone)?;
            let named = matches!(&says, Some(Allows::Tombstone(tombstone)) if tombstone.sequence == request.sequence);
            if !named {
                let why = format!(
                    "entry {} of the log is no tombstone of entry {}",
                    request.tombstone, request.sequence
                );
                return Ok(Verdict::Answer(Outcome::Refused, why));
            }
        }
        if !self.is_event(&copy, request.sequence)? {
            let why = "control entries are never erased".to_owned();
            return Ok(Verdict::Answer(Outcome::Refused, why));
        }
        if self
            .reader()
            .erased_by(copy.number(), request.sequence)
            .is_some()
        {
            // It may have been erased a moment before a stop: it is only said once it is overwritten.
            return Ok(Verdict::Erase);
        }
        if let Some(reason) = hold {
            return Ok(Verdict::Answer(
                Outcome::Held,
                format!("a legal hold: {reason}"),
            ));
        }
        Ok(if obey || approved {
            Verdict::Erase
        } else {
            Verdict::Person
        })
    }

    async fn erase_copy(
        self: &Arc<Self>,
        state: &RequestState,
        reason: String,
    ) -> Result<(), ExchangeError> {
        let request = &state.request;
        if let Some(copy) = self.log(&request.stream) {
            let (sequence, by) = (request.sequence, request.tombstone);
            if self.reader().erased_by(copy.number(), sequence).is_none() {
                // A crash behind this leaves content that is refused to readers and overwritten by the next start; the answer is given then.
                self.writer()
                    .erase_in_copy(copy, sequence, sequence + 1, by)
                    .await?;
            }
            self.writer().overwritten().await?;
        }
        self.answer(state, Outcome::Done, reason).await
    }

    async fn answer(
        self: &Arc<Self>,
        state: &RequestState,
        outcome: Outcome,
        reason: String,
    ) -> Result<(), ExchangeError> {
        // A clock that fell back does not make an answer older than the one before.
        let before = state.answer.as_ref().map(|(answer, _)| answer.made);
        let made = self
            .clock()
            .now()
            .max(before.map_or(Timestamp(0), |made| Timestamp(made.0.saturating_add(1))));
        let answer = ErasureAnswer {
            request: state.request.id,
            digest: Digest(state.digest),
            stream: state.request.stream.clone(),
            sequence: state.request.sequence,
            by: self.identity().authority().clone(),
            outcome,
            reason: tidy(&reason),
            made,
        };
        let envelope = answer.sign(&self.identity().agreement_key);
        let text = String::from_utf8(envelope.to_json()).unwrap_or_default();
        let producer = state.request.by.clone();
        let record = LedgerRecord::ErasureAnswer { envelope: text };
        self.record_and_wait(Some(producer.clone()), record).await?;
        self.erasing().tell(&producer, state.request.id, envelope);
        Ok(())
    }

    /// A partner's request by the beginning of its name, where it waits for a person or may be decided otherwise.
    fn waiting(&self, id: &str) -> Result<RequestState, EraseFault> {
        let own = self.identity().authority();
        let registry = self.registry();
        let mut found = registry
            .erasure
            .open()
            .filter(|state| state.request.by != *own)
            .filter(|state| id.len() >= 4 && state.request.id.to_string().starts_with(id));
        let unknown = EraseFault::UnknownRequest {
            id: id.chars().filter(|c| !c.is_control()).take(40).collect(),
        };
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one.clone()),
            _ => Err(unknown),
        }
    }

    /// A person approves a request: the copy is erased, and the producer told.
    ///
    /// # Errors
    /// [`EraseFault`]; what failed in the log.
    pub async fn approve_erasure(
        self: &Arc<Self>,
        id: &str,
        reason: &str,
    ) -> Result<ErasureId, ExchangeError> {
        let _one = self.erasing().one.lock().await;
        let state = self.waiting(id)?;
        let stream = &state.request.stream;
        match self.judge(&state, true)? {
            Verdict::Erase => {
                self.not_held(stream)?;
                let reason = if reason.is_empty() {
                    "approved"
                } else {
                    reason
                };
                self.erase_copy(&state, reason.to_owned()).await?;
            }
            Verdict::Answer(Outcome::Held, _) => self.not_held(stream)?,
            Verdict::Answer(outcome, why) => self.answer(&state, outcome, why).await?,
            Verdict::NotYet | Verdict::Person => {
                return Err(EraseFault::NotYet {
                    stream: stream.clone(),
                    tombstone: state.request.tombstone,
                }
                .into());
            }
        }
        Ok(state.request.id)
    }

    /// A person decides against a request, and the producer is told why.
    ///
    /// # Errors
    /// [`EraseFault`]; what failed in the log.
    pub async fn refuse_erasure(
        self: &Arc<Self>,
        id: &str,
        reason: &str,
    ) -> Result<ErasureId, ExchangeError> {
        if reason.trim().is_empty() {
            return Err(EraseFault::Reason.into());
        }
        let _one = self.erasing().one.lock().await;
        let state = self.waiting(id)?;
        self.answer(&state, Outcome::Refused, reason.to_owned())
            .await?;
        Ok(state.request.id)
    }

    /// Sets or releases a legal hold on a stream or copy. What is asked while it holds is answered *held*.
    ///
    /// # Errors
    /// [`EraseFault::NotHeld`]; what failed in the ledger.
    pub async fn set_hold(
        self: &Arc<Self>,
        stream: &Origin,
        held: bool,
        reason: &str,
    ) -> Result<(), ExchangeError> {
        // Nothing is being erased while it is set: what was judged before is through.
        let one = self.erasing().one.lock().await;
        if !held && self.registry().erasure.hold(stream).is_none() {
            return Err(EraseFault::NotHeld {
                stream: stream.clone(),
            }
            .into());
        }
        let record = LedgerRecord::Hold {
            stream: stream.clone(),
            held,
            reason: tidy(reason),
        };
        self.record_and_wait(None, record).await?;
        drop(one);
        self.answer_requests().await
    }
}
