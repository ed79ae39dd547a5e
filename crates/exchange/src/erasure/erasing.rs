//! The producer's side: erases one event here, and asks whoever holds a copy.

use std::sync::Arc;

use countersign_event::control::{Allows, REASON_CHARS_MAX, TOMBSTONE, Tombstone};
use countersign_event::documents::{
    AgreementId, Document as _, ErasureAnswer, ErasureId, ErasureRequest, RefusalCode, Role,
};
use countersign_event::dsse::Envelope;
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::{Authority, Origin};
use countersign_store::journal::LogKind;

use super::{EraseFault, tidy};
use crate::pipeline::ledger::seal_control_entry;
use crate::{Exchange, ExchangeError, Log, Peer};

/// What erasing one event did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Erased {
    /// The stream.
    pub stream: Origin,
    /// The event.
    pub sequence: u64,
    /// The control entry that says so.
    pub tombstone: u64,
    /// Who was asked, and under which name.
    pub asked: Vec<(Authority, ErasureId)>,
}

impl Exchange {
    pub(crate) fn not_held(&self, stream: &Origin) -> Result<(), EraseFault> {
        match self.registry().erasure.hold(stream) {
            None => Ok(()),
            Some(reason) => Err(EraseFault::Held {
                stream: stream.clone(),
                reason: reason.to_owned(),
            }),
        }
    }

    /// Erases the content of one event of a stream of ours: tombstone first, then the bytes, then partners are asked. When this returns, nothing of
    /// the content is in the segments.
    ///
    /// # Errors
    /// [`EraseFault`]; what failed in the log. After the tombstone is durable, what is left undone goes on by itself.
    pub async fn erase_event(
        self: &Arc<Self>,
        stream: &str,
        sequence: u64,
        reason: &str,
    ) -> Result<Erased, ExchangeError> {
        let log = self.own_stream(stream)?;
        let chars = reason.trim().chars().count();
        if chars == 0 || chars > REASON_CHARS_MAX {
            return Err(EraseFault::Reason.into());
        }
        let reason = tidy(reason.trim());
        let _one = self.erasing().one.lock().await;
        self.may_erase(&log, sequence)?;
        let tombstone = Tombstone {
            sequence,
            reason: reason.clone(),
        };
        let json = serde_json::to_string(&tombstone).unwrap_or_default();
        let sealed = self
            .with_entropy(|entropy| seal_control_entry(log.origin(), TOMBSTONE, &json, entropy))?;
        // A crash behind this leaves a tombstone whose content is refused to readers, is overwritten by the next start, and whose requests are made then.
        let by = self
            .writer()
            .erase(Arc::clone(&log), sealed, sequence, sequence + 1)
            .await?;
        let asked = self.ask_partners(&log, sequence, by, &reason).await?;
        self.writer().overwritten().await?;
        Ok(Erased {
            stream: log.origin().clone(),
            sequence,
            tombstone: by,
            asked,
        })
    }

    fn may_erase(&self, log: &Log, sequence: u64) -> Result<(), ExchangeError> {
        let stream = log.origin().clone();
        self.not_held(&stream)?;
        let size = log.size();
        if sequence >= size {
            return Err(EraseFault::NoEntry {
                stream,
                sequence,
                size,
            }
            .into());
        }
        if !self.is_event(log, sequence)? {
            return Err(EraseFault::ControlEntry { stream, sequence }.into());
        }
        if let Some(by) = self.reader().erased_by(log.number(), sequence) {
            return Err(EraseFault::AlreadyErased {
                stream,
                sequence,
                by,
            }
            .into());
        }
        Ok(())
    }

    /// Who may hold a copy of an entry: whoever has receipted it, or may have got it under an agreement that holds. One agreement for each.
    fn holders_of(&self, stream: &Origin, sequence: u64) -> Vec<(Authority, AgreementId)> {
        let (own, now) = (self.identity().authority(), self.clock().now());
        let registry = self.registry();
        let receipted = |consumer: &Authority| {
            registry.receipts.values().any(|last| {
                let receipt = &last.receipt;
                receipt.stream == *stream
                    && receipt.consumer == *consumer
                    && receipt.size > sequence
            })
        };
        let mut agreements: Vec<_> = registry
            .agreements
            .values()
            .filter(|state| {
                let terms = &state.agreement;
                terms.producer.authority == *own && terms.stream == *stream
            })
            .filter(|state| state.is_active(now) || receipted(&state.agreement.consumer.authority))
            .map(|state| {
                let terms = &state.agreement;
                (
                    terms.consumer.authority.clone(),
                    state.is_active(now),
                    terms.made,
                    terms.id,
                )
            })
            .collect();
        // The one that holds, and of several the newest.
        agreements.sort();
        let mut holders: Vec<(Authority, AgreementId)> = Vec::new();
        for (consumer, _, _, id) in agreements {
            match holders.last_mut() {
                Some((known, newest)) if *known == consumer => *newest = id,
                _ => holders.push((consumer, id)),
            }
        }
        holders
    }

    async fn ask_partners(
        self: &Arc<Self>,
        log: &Log,
        sequence: u64,
        tombstone: u64,
        reason: &str,
    ) -> Result<Vec<(Authority, ErasureId)>, ExchangeError> {
        let mut asked = Vec::new();
        for (partner, agreement) in self.holders_of(log.origin(), sequence) {
            let known = self.registry().erasure.requests().any(|state| {
                state.request.agreement == agreement
                    && state.request.stream == *log.origin()
                    && state.request.tombstone == tombstone
            });
            if known {
                continue;
            }
            let request = ErasureRequest {
                id: self.with_entropy(ErasureId::random),
                agreement,
                stream: log.origin().clone(),
                sequence,
                tombstone,
                by: self.identity().authority().clone(),
                reason: reason.to_owned(),
                made: self.clock().now(),
            };
            let envelope = request.sign(&self.identity().agreement_key);
            let envelope = String::from_utf8(envelope.to_json()).unwrap_or_default();
            let record = LedgerRecord::ErasureRequest { envelope };
            self.record_and_wait(Some(partner.clone()), record).await?;
            asked.push((partner, request.id));
        }
        if !asked.is_empty() {
            self.erasing().note();
        }
        Ok(asked)
    }

    /// Asks for what was erased just before the node stopped.
    pub(super) async fn resume_requests(self: &Arc<Self>) -> Result<(), ExchangeError> {
        let _one = self.erasing().one.lock().await;
        for log in self.logs() {
            if log.kind() != LogKind::Own {
                continue;
            }
            // Tombstones and their requests are made one after the other: what lies before the newest request has its own.
            let asked = {
                let registry = self.registry();
                let ours = registry
                    .erasure
                    .requests()
                    .filter(|state| state.request.stream == *log.origin());
                ours.map(|state| state.request.tombstone).max()
            };
            let erased = self.reader().erasures(log.number(), 0, log.size());
            for run in erased {
                if asked.is_some_and(|asked| run.by < asked) {
                    continue;
                }
                let says = self.allows_at(&log, run.by)?;
                if let Some(Allows::Tombstone(tombstone)) = says {
                    self.ask_partners(&log, run.first, run.by, &tombstone.reason)
                        .await?;
                }
            }
        }
        Ok(())
    }

    /// A consumer answers a request of ours.
    pub(crate) async fn take_erasure_answer(
        self: &Arc<Self>,
        peer: &Peer,
        envelope: &Envelope,
    ) -> Result<(), ExchangeError> {
        let malformed = |reason: &str| -> ExchangeError {
            let reason = reason.to_owned();
            self.refuse(peer, "notice", "", RefusalCode::Malformed, reason)
                .into()
        };
        let Peer::Organization { statement, .. } = peer else {
            return Err(malformed("an application has no notices to give"));
        };
        let answer = self
            .statement_in_force(statement)
            .open_dated(Role::Agreement, envelope, |answer: &ErasureAnswer| {
                answer.made
            })
            .map_err(|_| {
                malformed("not an erasure answer signed by an agreement key of its sender")
            })?;
        let own = self.identity().authority();
        let held = {
            let registry = self.registry();
            let state = registry.erasure.request(&answer.request);
            let theirs = state.filter(|state| {
                let request = &state.request;
                let agreement = registry.agreements.get(&request.agreement);
                request.by == *own
                    && answer.by == statement.authority
                    && agreement.is_some_and(|agreed| agreed.counterparty(own) == &answer.by)
                    && answer.digest.0 == state.digest
                    && (&answer.stream, answer.sequence) == (&request.stream, request.sequence)
            });
            let Some(state) = theirs else {
                drop(registry);
                return Err(malformed(
                    "the erasure answer names no request of ours to its sender",
                ));
            };
            let digest = envelope.payload_digest();
            // One that was made before the answer that counts changes nothing: told again and again it would only fill the ledger.
            state.answer.as_ref().is_some_and(|(newest, known)| {
                known.payload_digest() == digest || answer.made < newest.made
            })
        };
        if !held {
            let text = String::from_utf8(envelope.to_json()).unwrap_or_default();
            let record = LedgerRecord::ErasureAnswer { envelope: text };
            self.record_and_wait(Some(statement.authority.clone()), record)
                .await?;
        }
        Ok(())
    }
}
