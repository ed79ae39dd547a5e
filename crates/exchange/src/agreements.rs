//! The life of agreements: what is proposed, signed, suspended, replaced and ended, here and by partners. What is decided is a function of the documents
//! ([`countersign_event::agreement_state`]); here they are made, taken, and kept in the ledger before anybody is told.

mod requests;
mod steps;

use std::sync::Arc;

use countersign_event::agreement_state::{
    AgreementDocument, HeldDocument, May, Name, State, state as state_of,
};
use countersign_event::documents::{Agreement, AgreementId, Plan, Proposal, RefusalCode};
use countersign_event::dsse::Envelope;
use countersign_event::names::{Authority, Origin};
use countersign_event::time::Timestamp;

use crate::pipeline::deliver::Delivery;
use crate::{AgreementState, Exchange, ExchangeError, OnboardingError, Peer};

pub use requests::{ListedStream, RequestOptions};

/// Documents about one agreement that are held; more are refused. Talks of eight rounds and a suspension every week for a year fit in.
pub const DOCUMENTS_MAX: usize = 128;

/// Proposals of one partner that may wait here at once.
pub const OPEN_PROPOSALS_MAX: usize = 16;

/// How far the date of a partner's document may lie ahead of the clock here.
const AHEAD_US_MAX: u64 = 600 * 1_000_000;

/// What is held about an agreement: documents in the order in which they came, and their envelopes beside them.
#[derive(Clone, Debug, Default)]
pub struct HeldDocuments {
    documents: Vec<HeldDocument>,
    envelopes: Vec<Envelope>,
}

impl HeldDocuments {
    /// The documents.
    #[must_use]
    pub fn documents(&self) -> &[HeldDocument] {
        &self.documents
    }

    /// The state of `id` at a time.
    #[must_use]
    pub fn state(&self, id: AgreementId, at: Timestamp) -> State {
        state_of(id, &self.documents, at)
    }

    pub(crate) fn push(&mut self, document: HeldDocument, envelope: Envelope) {
        let known = self.documents.iter().position(|known| {
            known.digest == document.digest && known.signed_by.len() >= document.signed_by.len()
        });
        if known.is_none() {
            self.documents.push(document);
            self.envelopes.push(envelope);
        }
    }

    pub(crate) fn proposal(&self, digest: &countersign_crypto::Hash) -> Option<&Proposal> {
        let mut documents = self.documents.iter();
        documents.find_map(|one| match &one.document {
            AgreementDocument::Proposal(proposal) if one.digest == *digest => Some(&**proposal),
            _ => None,
        })
    }

    /// The newest date of a document, or now: a partner's clock may be ahead.
    fn newest_or(&self, now: Timestamp) -> Timestamp {
        let newest = self.documents.iter().map(|one| one.document.made()).max();
        newest.map_or(now, |newest| newest.max(now))
    }

    /// The date of what `side` does now: the clock's, or, where what it acts on is dated ahead of the clock, that.
    fn date_for(&self, id: AgreementId, now: Timestamp, side: &Authority, what: May) -> Timestamp {
        if self.state(id, now).may(side, what) {
            now
        } else {
            self.newest_or(now)
        }
    }

    /// Whether a document is dated after `from` and not after `to`: it begins to count.
    pub(crate) fn any_between(&self, from: Timestamp, to: Timestamp) -> bool {
        let mut dates = self.documents.iter().map(|one| one.document.made());
        dates.any(|made| from < made && made <= to)
    }

    /// What `side` has signed and the other one has to know: all of it, in its order.
    fn told_by<'a>(
        &'a self,
        id: AgreementId,
        side: &'a Authority,
    ) -> impl Iterator<Item = &'a Envelope> {
        let all = self.documents.iter().zip(&self.envelopes);
        all.filter(move |(one, _)| {
            one.document.agreement() == id
                && match &one.document {
                    // What comes of an invitation is handed over by joining.
                    AgreementDocument::Agreement(agreement) => {
                        agreement.accepts.is_some() && one.signed_by.contains(side)
                    }
                    document => document.by() == Some(side),
                }
        })
        .map(|(_, envelope)| envelope)
    }
}

/// Talks about an agreement that both sides have not signed.
#[derive(Clone, Debug)]
pub struct Talks {
    /// The proposal that began them.
    pub first: Proposal,
    /// All documents.
    pub documents: HeldDocuments,
}

/// An agreement, or the talks about one, as people look at it.
#[derive(Clone, Debug)]
pub struct AgreementEntry {
    /// Its name.
    pub id: AgreementId,
    /// Who publishes.
    pub producer: Authority,
    /// Who reads.
    pub consumer: Authority,
    /// Which log.
    pub stream: Origin,
    /// On which terms: agreed, or proposed last.
    pub plan: Plan,
    /// Until when it runs or would run.
    pub until: Option<Timestamp>,
    /// When it was proposed or signed first.
    pub made: Timestamp,
    /// What it is for, as a proposal says.
    pub purpose: Option<String>,
    /// Which round the open proposal is of.
    pub round: Option<u32>,
    /// What the documents make of it.
    pub state: State,
    /// Why the access of the partner as a whole was ended here, if it was.
    pub revoked: Option<String>,
}

impl AgreementEntry {
    /// The side that is not `own`.
    #[must_use]
    pub fn counterparty(&self, own: &Authority) -> &Authority {
        if self.producer == *own {
            &self.consumer
        } else {
            &self.producer
        }
    }
}

impl Exchange {
    /// All agreements and talks, the oldest first.
    #[must_use]
    pub fn agreement_entries(&self) -> Vec<AgreementEntry> {
        let now = self.clock().now();
        let registry = self.registry();
        let held = registry
            .agreements
            .values()
            .map(|held| entry_of_held(held, now));
        let talks = registry.talks.iter();
        let talks = talks.map(|(id, talks)| entry_of_talks(*id, talks, now));
        let mut all: Vec<_> = held.chain(talks).collect();
        all.sort_by_key(|entry| (entry.made, entry.id));
        all
    }

    /// One of them.
    #[must_use]
    pub fn agreement_entry(&self, id: AgreementId) -> Option<AgreementEntry> {
        let now = self.clock().now();
        let registry = self.registry();
        let held = registry.agreements.get(&id);
        let held = held.map(|held| entry_of_held(held, now));
        held.or_else(|| Some(entry_of_talks(id, registry.talks.get(&id)?, now)))
    }

    /// How many proposals of partners wait for a person here.
    #[must_use]
    pub fn waiting_proposals(&self) -> usize {
        let now = self.clock().now();
        let own = self.identity().authority();
        let registry = self.registry();
        let waits = registry
            .talks
            .iter()
            .filter(|(id, talks)| talks.documents.state(**id, now).may(own, May::Accept));
        waits.count()
    }

    /// Documents about an agreement, wherever they are held.
    fn documents_of(&self, id: AgreementId) -> Option<HeldDocuments> {
        let registry = self.registry();
        let held = registry.agreements.get(&id).map(|held| &held.documents);
        let held = held.or_else(|| registry.talks.get(&id).map(|talks| &talks.documents));
        held.cloned()
    }

    /// What a partner has to know of the agreements with it.
    pub(crate) fn agreement_notices_for(&self, partner: &Authority) -> Vec<Envelope> {
        let own = self.identity().authority();
        let registry = self.registry();
        let held = registry.agreements.values();
        let held = held.filter(|state| state.counterparty(own) == partner);
        let held = held.map(|state| (state.agreement.id, &state.documents));
        let talks = registry.talks.iter();
        let talks = talks.filter(|(_, talks)| other_party(&talks.first, own) == partner);
        let talks = talks.map(|(id, talks)| (*id, &talks.documents));
        held.chain(talks)
            .flat_map(|(id, documents)| documents.told_by(id, own).cloned())
            .collect()
    }

    /// Whether talks with a partner are open, so that it is worth a session.
    #[must_use]
    pub fn talks_with(&self) -> Vec<Authority> {
        let now = self.clock().now();
        let own = self.identity().authority();
        let registry = self.registry();
        let open = registry
            .talks
            .iter()
            .filter(|(id, talks)| talks.documents.state(**id, now).name.is_open());
        open.map(|(_, talks)| other_party(&talks.first, own).clone())
            .collect()
    }

    /// How far was delivered under an agreement of which no subscription runs, as far as it is known.
    fn reached_under(&self, id: AgreementId) -> Option<u64> {
        let name = id.to_string();
        let statuses = self.statuses().into_iter();
        let resting = statuses
            .filter(|status| status.agreement == name && status.direction == crate::Direction::Out)
            .map(|status| status.position);
        let registry = self.registry();
        let receipts = registry.receipts.values().map(|last| &last.receipt);
        let receipted = receipts
            .filter(|receipt| receipt.agreement == id)
            .map(|receipt| receipt.size);
        resting.chain(receipted).max()
    }

    fn bad_document(self: &Arc<Self>, peer: &Peer, why: String) -> ExchangeError {
        self.refuse(peer, "notice", "", RefusalCode::Malformed, why)
            .into()
    }
}

/// The other side of talks.
pub(crate) fn other_party<'a>(proposal: &'a Proposal, own: &Authority) -> &'a Authority {
    if proposal.producer.authority == *own {
        &proposal.consumer.authority
    } else {
        &proposal.producer.authority
    }
}

fn entry_of_held(held: &AgreementState, now: Timestamp) -> AgreementEntry {
    let terms = &held.agreement;
    AgreementEntry {
        id: terms.id,
        producer: terms.producer.authority.clone(),
        consumer: terms.consumer.authority.clone(),
        stream: terms.stream.clone(),
        plan: terms.plan.clone(),
        until: terms.until,
        made: terms.made,
        purpose: None,
        round: None,
        state: held.state(now),
        revoked: held.revoked.clone(),
    }
}

fn entry_of_talks(id: AgreementId, talks: &Talks, now: Timestamp) -> AgreementEntry {
    // One that is dated a little ahead of the clock here is shown all the same.
    let state = talks.documents.state(id, now.max(talks.first.made));
    let open = state.acts_on.and_then(|on| talks.documents.proposal(&on));
    let last = talks
        .documents
        .documents()
        .iter()
        .rev()
        .find_map(|one| match &one.document {
            AgreementDocument::Proposal(proposal) => Some(&**proposal),
            _ => None,
        });
    let shown = open.or(last).unwrap_or(&talks.first);
    AgreementEntry {
        id,
        producer: shown.producer.authority.clone(),
        consumer: shown.consumer.authority.clone(),
        stream: shown.stream.clone(),
        plan: shown.plan.clone(),
        until: shown.until,
        made: talks.first.made,
        purpose: talks.first.purpose.clone(),
        round: Some(shown.round),
        state,
        revoked: None,
    }
}

impl AgreementState {
    /// What the documents make of it at a time.
    #[must_use]
    pub fn state(&self, at: Timestamp) -> State {
        self.documents.state(self.agreement.id, at)
    }

    /// Whether it gives anything at `at`: the documents say that it is active, and the partner's access was not ended here.
    #[must_use]
    pub fn is_active(&self, at: Timestamp) -> bool {
        self.revoked.is_none() && self.state(at).name == Name::Active
    }

    /// Whether it is or may become active again.
    #[must_use]
    pub fn lasts(&self, at: Timestamp) -> bool {
        self.revoked.is_none() && !self.state(at).name.is_end()
    }

    /// Why it gives nothing at `at`, with the code of the refusal; `None` where it is active.
    #[must_use]
    pub fn why_not(&self, at: Timestamp) -> Option<(RefusalCode, String)> {
        if let Some(why) = &self.revoked {
            return Some((
                RefusalCode::NoAgreement,
                format!("access was revoked: {why}"),
            ));
        }
        why_not(&self.state(at))
    }
}

/// Why a state gives nothing.
fn why_not(state: &State) -> Option<(RefusalCode, String)> {
    let cause = &state.cause;
    let text = match state.name {
        Name::Active => return None,
        Name::Suspended => {
            let by = cause
                .by
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default();
            let since = state.since.to_rfc3339();
            let text = format!(
                "the agreement is suspended ({}) by {by} since {since}: {}",
                cause.word, cause.reason
            );
            return Some((RefusalCode::Suspended, text));
        }
        Name::Agreed => "the agreement has not begun".to_owned(),
        Name::Accepted | Name::Countered | Name::Proposed | Name::Nothing => {
            "the agreement lacks a signature".to_owned()
        }
        Name::Ended(end) => {
            use countersign_event::agreement_state::End;
            match end {
                End::Completed => format!("the agreement was completed: {}", cause.reason),
                End::Expired => "the agreement has expired".to_owned(),
                End::Refused => format!("it was refused: {}", cause.reason),
                End::Superseded => "another agreement has taken its place".to_owned(),
                End::Terminated => format!("the agreement was ended: {}", cause.reason),
                End::Withdrawn => format!("it was withdrawn: {}", cause.reason),
            }
        }
    };
    Some((RefusalCode::NoAgreement, text))
}

/// Words for people in a document.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}

/// Subscriptions that hand out nothing as long as this lives; those that were not ended meanwhile go on after it.
struct Halted {
    running: Vec<Arc<Delivery>>,
    /// The first sequence that none of them has handed out; absent where none runs.
    position: Option<u64>,
}

impl Halted {
    fn all_under(exchange: &Exchange, agreement: AgreementId) -> Self {
        let mut running = exchange.running();
        running.retain(|delivery| delivery.agreement() == agreement);
        let position = running.iter().map(|delivery| delivery.halt()).max();
        Self { running, position }
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        for delivery in &self.running {
            delivery.resume();
        }
    }
}

/// The documents of a record, with whose signatures they bear; they were verified before the record was written.
pub(crate) fn read_document(envelope: &str) -> Option<(AgreementDocument, Envelope)> {
    let envelope = Envelope::from_json(envelope.as_bytes()).ok()?;
    Some((AgreementDocument::peek(&envelope).ok()?, envelope))
}

/// As it is held.
pub(crate) fn held(
    document: AgreementDocument,
    envelope: &Envelope,
    signed_by: Vec<Authority>,
) -> HeldDocument {
    HeldDocument {
        digest: envelope.payload_digest(),
        signed_by,
        document,
    }
}

fn not_now(id: AgreementId, what: May, state: &State) -> OnboardingError {
    OnboardingError::NotNow {
        id: id.to_string(),
        what: what.word(),
        state: state.name.word(),
    }
}

fn unknown(id: AgreementId) -> OnboardingError {
    OnboardingError::Unknown {
        what: "agreement",
        name: id.to_string(),
    }
}

/// An agreement's text, as the ledger keeps it.
fn text_of(envelope: &Envelope) -> String {
    String::from_utf8(envelope.to_json()).unwrap_or_default()
}

/// Whether both signatures are on it.
fn is_agreed(one: &HeldDocument, agreement: &Agreement) -> bool {
    let both = [&agreement.producer.authority, &agreement.consumer.authority];
    both.iter().all(|side| one.signed_by.contains(side))
}
