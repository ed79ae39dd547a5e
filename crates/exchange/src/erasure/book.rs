//! What the ledger says of erasures: requests and their answers, legal holds, retention.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use countersign_crypto::Hash;
use countersign_event::control::Retention;
use countersign_event::documents::{
    Document as _, ErasureAnswer, ErasureId, ErasureRequest, Outcome,
};
use countersign_event::dsse::Envelope;
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::Origin;

/// A request, ours or a partner's, and its newest answer.
#[derive(Clone, Debug)]
pub struct RequestState {
    /// What it says.
    pub request: ErasureRequest,
    /// The envelope.
    pub envelope: Envelope,
    /// Digest of its payload, which answers name.
    pub digest: Hash,
    /// The newest answer.
    pub answer: Option<(ErasureAnswer, Envelope)>,
}

impl RequestState {
    /// The newest answer's outcome.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        self.answer.as_ref().map(|(answer, _)| answer.outcome)
    }

    /// Whether it was answered *done*.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.outcome() == Some(Outcome::Done)
    }
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct ErasureBook {
    requests: BTreeMap<ErasureId, RequestState>,
    /// Those that were not answered *done*: what is looked at each second does not grow with all that ever was.
    open: BTreeSet<ErasureId>,
    holds: HashMap<Origin, String>,
    retention: HashMap<Origin, Retention>,
}

impl ErasureBook {
    /// Moves on by one record; others than its own change nothing. Envelopes were verified before the record was written.
    pub(crate) fn apply(&mut self, record: &LedgerRecord) {
        match record {
            LedgerRecord::ErasureRequest { envelope } => {
                let Ok(envelope) = Envelope::from_json(envelope.as_bytes()) else {
                    return;
                };
                if let Ok(request) = ErasureRequest::peek(&envelope) {
                    let digest = envelope.payload_digest();
                    if !self.requests.contains_key(&request.id) {
                        self.open.insert(request.id);
                    }
                    self.requests.entry(request.id).or_insert(RequestState {
                        request,
                        envelope,
                        digest,
                        answer: None,
                    });
                }
            }
            LedgerRecord::ErasureAnswer { envelope } => {
                let Ok(envelope) = Envelope::from_json(envelope.as_bytes()) else {
                    return;
                };
                let Ok(answer) = ErasureAnswer::peek(&envelope) else {
                    return;
                };
                if let Some(state) = self.requests.get_mut(&answer.request) {
                    let newer = |(old, _): &(ErasureAnswer, Envelope)| old.made <= answer.made;
                    if state.answer.as_ref().is_none_or(newer) {
                        match answer.outcome {
                            Outcome::Done => self.open.remove(&answer.request),
                            Outcome::Held | Outcome::Refused => self.open.insert(answer.request),
                        };
                        state.answer = Some((answer, envelope));
                    }
                }
            }
            LedgerRecord::Hold {
                stream,
                held,
                reason,
            } => {
                if *held {
                    self.holds.insert(stream.clone(), reason.clone());
                } else {
                    self.holds.remove(stream);
                }
            }
            LedgerRecord::Retention {
                stream,
                age_seconds,
                bytes,
                count,
            } => {
                let retention = Retention {
                    age_seconds: *age_seconds,
                    bytes: *bytes,
                    count: *count,
                };
                if retention.keeps_all() {
                    self.retention.remove(stream);
                } else {
                    self.retention.insert(stream.clone(), retention);
                }
            }
            _ => {}
        }
    }

    /// All requests, ours and those of partners.
    pub fn requests(&self) -> impl Iterator<Item = &RequestState> {
        self.requests.values()
    }

    /// Those that were not answered *done*.
    pub fn open(&self) -> impl Iterator<Item = &RequestState> {
        self.open.iter().filter_map(|id| self.requests.get(id))
    }

    /// A request by its name.
    #[must_use]
    pub fn request(&self, id: &ErasureId) -> Option<&RequestState> {
        self.requests.get(id)
    }

    /// Why a stream is under a legal hold, if it is.
    #[must_use]
    pub fn hold(&self, stream: &Origin) -> Option<&str> {
        self.holds.get(stream).map(String::as_str)
    }

    /// All holds.
    pub fn holds(&self) -> impl Iterator<Item = (&Origin, &str)> {
        self.holds
            .iter()
            .map(|(stream, why)| (stream, why.as_str()))
    }

    /// How long a stream of ours keeps content.
    #[must_use]
    pub fn retention(&self, stream: &Origin) -> Retention {
        self.retention.get(stream).copied().unwrap_or_default()
    }

    /// The streams that do not keep all.
    pub(crate) fn retained(&self) -> Vec<(Origin, Retention)> {
        let all = self.retention.iter();
        all.map(|(stream, retention)| (stream.clone(), *retention))
            .collect()
    }
}
