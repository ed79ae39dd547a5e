//! Asking for an agreement, and answering: policy grants, refuses, or leaves it to a person.

use std::sync::Arc;
use std::time::Duration;

use countersign_event::agreement_state::{May, Name};
use countersign_event::documents::{
    AgreementId, Digest, Document as _, Party, Plan, Proposal, RefusalCode, StepKind,
};
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::{Authority, Origin};
use countersign_event::time::Timestamp;
use countersign_policy::Action;
use countersign_protocol::{ListStreams, StreamList};

use super::{HeldDocuments, OPEN_PROPOSALS_MAX, not_now, other_party, plain, text_of, unknown};
use crate::access::PURPOSE_CHARS_MAX;
use crate::onboarding::party_of;
use crate::refusal::Refused;
use crate::{Exchange, ExchangeError, OnboardingError, Peer};

/// Proposals that one partner may begin in an hour; more are told to come back.
const BEGUN_IN_AN_HOUR_MAX: usize = 30;

/// The longest time that a proposal may wait.
const VALID_MAX: Duration = Duration::from_secs(90 * 24 * 3600);

/// Streams in one list, and their bytes.
const LISTED_MAX: usize = 1000;
const LISTED_BYTES_MAX: usize = 1 << 20;

/// A stream that a partner may know of, with the plans that it is offered under. In lists it travels as JSON.
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
pub struct ListedStream {
    /// Its log.
    pub origin: Origin,
    /// What it is, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Words that describe it.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Whether its data is sealed to who may read.
    #[serde(default)]
    pub encrypted: bool,
    /// The plans.
    #[serde(default)]
    pub plans: Vec<Plan>,
}

/// What is proposed to a partner.
#[derive(Clone, Debug)]
pub struct RequestOptions {
    /// The other side.
    pub partner: Authority,
    /// The log: the partner's, or ours.
    pub stream: Origin,
    /// On which terms.
    pub plan: Plan,
    /// From when; absent = from when it is accepted.
    pub from: Option<Timestamp>,
    /// Until when it would run; absent = until it is ended.
    pub until: Option<Timestamp>,
    /// What it is for.
    pub purpose: Option<String>,
    /// How long it can be accepted.
    pub valid_for: Duration,
}

impl Exchange {
    /// Proposes an agreement; where one holds for the stream, the new one would take its place. The partner hears of it at the next contact.
    ///
    /// # Errors
    /// [`OnboardingError::NotNow`] where talks about the stream are open; [`OnboardingError::Unknown`].
    pub async fn propose(
        self: &Arc<Self>,
        options: RequestOptions,
    ) -> Result<AgreementId, OnboardingError> {
        let _acting = self.acting.lock().await;
        let now = self.clock().now();
        let own = self.identity().party();
        let other = self.party_known(&options.partner)?;
        let (producer, consumer) = if options.stream.authority() == own.authority {
            (own.clone(), other)
        } else {
            (other, own.clone())
        };
        if options.stream.authority() != producer.authority || options.stream.stream().is_none() {
            return Err(OnboardingError::Unknown {
                what: "stream of this partner",
                name: options.stream.to_string(),
            });
        }
        let open = {
            let registry = self.registry();
            let mut talks = registry.talks.iter();
            talks
                .find(|(id, talks)| {
                    talks.first.stream == options.stream
                        && other_party(&talks.first, &own.authority) == &options.partner
                        && talks.documents.state(**id, now).name.is_open()
                })
                .map(|(id, talks)| (*id, talks.documents.state(*id, now)))
        };
        if let Some((id, state)) = open {
            return Err(not_now(id, May::Amend, &state));
        }
        let supersedes = self.to_supersede(&consumer.authority, &options.stream, now)?;
        let id = self.with_entropy(|entropy| AgreementId::random(entropy));
        let valid_for = u64::try_from(options.valid_for.min(VALID_MAX).as_micros());
        let proposal = Proposal {
            agreement: id,
            round: 1,
            answers: None,
            by: own.authority.clone(),
            producer,
            consumer,
            stream: options.stream,
            plan: options.plan,
            from: options.from,
            until: options.until,
            supersedes,
            purpose: options.purpose.map(|text| {
                let text = plain(&text);
                text.chars().take(PURPOSE_CHARS_MAX).collect()
            }),
            valid_until: Timestamp(now.0.saturating_add(valid_for.unwrap_or(u64::MAX))),
            made: now,
        };
        self.keep_own_proposal(&proposal, options.partner).await?;
        Ok(id)
    }

    /// Answers an open proposal of the other side with other terms.
    ///
    /// # Errors
    /// [`OnboardingError::NotNow`] where there is none, or no round is left.
    pub async fn counter_proposal(
        self: &Arc<Self>,
        id: AgreementId,
        plan: Option<Plan>,
        until: Option<Timestamp>,
        valid_for: Duration,
    ) -> Result<(), OnboardingError> {
        let _acting = self.acting.lock().await;
        let documents = self.documents_of(id).ok_or_else(|| unknown(id))?;
        let own = self.identity().authority();
        let now = self.clock().now();
        let made = documents.date_for(id, now, own, May::Counter);
        let state = documents.state(id, made);
        let open = state.acts_on.filter(|_| state.may(own, May::Counter));
        let open = open.and_then(|open| Some((open, documents.proposal(&open)?)));
        let (digest, open) = open.ok_or_else(|| not_now(id, May::Counter, &state))?;
        let valid_for = u64::try_from(valid_for.min(VALID_MAX).as_micros()).unwrap_or(u64::MAX);
        let proposal = Proposal {
            round: open.round + 1,
            answers: Some(Digest(digest)),
            by: own.clone(),
            plan: plan.unwrap_or_else(|| open.plan.clone()),
            until: until.or(open.until),
            purpose: None,
            valid_until: Timestamp(made.0.saturating_add(valid_for)),
            made,
            ..open.clone()
        };
        let partner = other_party(open, own).clone();
        self.keep_own_proposal(&proposal, partner).await
    }

    async fn keep_own_proposal(
        self: &Arc<Self>,
        proposal: &Proposal,
        partner: Authority,
    ) -> Result<(), OnboardingError> {
        let over = |until: Timestamp| until <= proposal.from.unwrap_or(proposal.made);
        if proposal.valid_until <= proposal.made || proposal.until.is_some_and(over) {
            return Err(OnboardingError::Agreement {
                what: "it would be over before it begins",
            });
        }
        let envelope = proposal.sign(&self.identity().agreement_key);
        let record = LedgerRecord::AgreementStep {
            envelope: text_of(&envelope),
        };
        Ok(self.record_and_wait(Some(partner), record).await?)
    }

    /// The agreement that a new one on the same stream would take the place of, by digest.
    fn to_supersede(
        &self,
        consumer: &Authority,
        stream: &Origin,
        now: Timestamp,
    ) -> Result<Option<Digest>, OnboardingError> {
        let registry = self.registry();
        let lasting = registry.agreements.values().filter(|held| {
            held.agreement.consumer.authority == *consumer
                && held.agreement.stream == *stream
                && held.lasts(now)
        });
        let newest = lasting.max_by_key(|held| (held.agreement.made, held.agreement.id));
        let Some(newest) = newest else {
            return Ok(None);
        };
        let state = newest.state(now);
        if !state.may(consumer, May::Amend) {
            return Err(not_now(newest.agreement.id, May::Amend, &state));
        }
        Ok(Some(Digest(newest.envelope.payload_digest())))
    }

    fn party_known(&self, partner: &Authority) -> Result<Party, OnboardingError> {
        let registry = self.registry();
        let known = registry.partners.get(partner);
        let known = known.filter(|known| known.revoked.is_none());
        known
            .map(|known| party_of(&known.statement))
            .ok_or_else(|| OnboardingError::Unknown {
                what: "partner",
                name: partner.to_string(),
            })
    }

    /// A partner's proposal, whose signature and place are in order.
    pub(super) async fn take_proposal(
        self: &Arc<Self>,
        peer: &Peer,
        proposal: &Proposal,
        envelope: String,
        documents: &HeldDocuments,
    ) -> Result<(), ExchangeError> {
        let sender = proposal.by.clone();
        let own = self.identity().authority().clone();
        let now = self.clock().now();
        if self.party_known(&sender).is_err() {
            return Err(
                self.bad_document(peer, "proposals are taken from partners only".to_owned())
            );
        }
        if proposal.valid_until.0 > now.0.saturating_add(2 * VALID_MAX.as_micros() as u64) {
            return Err(self.bad_document(peer, "its deadline is too far away".to_owned()));
        }
        let begins = documents.documents().is_empty();
        if begins {
            self.check_room(peer, proposal, now)?;
            let expected = self.to_supersede(&proposal.consumer.authority, &proposal.stream, now);
            let replaced = proposal.supersedes;
            if replaced.is_some() && expected.ok().flatten() != replaced {
                let why = "what it would take the place of is not the agreement that holds here";
                return Err(self.bad_document(peer, why.to_owned()));
            }
        }
        let record = LedgerRecord::AgreementStep { envelope };
        self.record_and_wait(Some(sender), record).await?;
        // What somebody asks of us that publish is for the policies to say; what is offered to us, or countered, is for a person.
        if !begins || proposal.producer.authority != own {
            return Ok(());
        }
        let answer = self.judge_request(peer, proposal);
        let id = proposal.agreement;
        let answered = match answer {
            Answer::Granted => self.accept_alone(id).await.map(|_| ()),
            Answer::Held(why) => {
                tracing::info!(agreement = %id, why, "a request waits for a person");
                Ok(())
            }
            Answer::Refused(why) => {
                let step = self.step_alone(id, StepKind::Refuse, None, &why);
                step.await.map(|_| ())
            }
        };
        answered.map_err(|error| match error {
            OnboardingError::Exchange(error) => error,
            error => self.bad_document(peer, error.to_string()),
        })
    }

    /// Asks the policies, and records what they say.
    fn judge_request(self: &Arc<Self>, peer: &Peer, proposal: &Proposal) -> Answer {
        let now = self.clock().now();
        let consumer = &proposal.consumer.authority;
        let active = {
            let registry = self.registry();
            let active = registry.active_agreement(consumer, &proposal.stream, now);
            active.cloned()
        };
        // One that may not be seen is answered like one that does not exist.
        let found = self.discover(peer, "propose", proposal.stream.as_str(), active.as_ref());
        let log = match found {
            Ok(log) => log,
            Err(refused) => return Answer::Refused(refused.refusal.reason.clone()),
        };
        let purpose = proposal.purpose.clone().unwrap_or_default();
        let described = log.described();
        let mut request =
            self.policy_request(peer, Action::Request, described, active.as_ref(), &purpose);
        let plan = &proposal.plan;
        request.context.plan = Some(plan.name.chars().take(PURPOSE_CHARS_MAX).collect());
        let (decision, digest) = self.decide(&request);
        let record =
            self.decision_record(peer, &request, &decision, digest, Some(proposal.agreement));
        self.record_lazily(Some(consumer.clone()), record);
        if !decision.allowed {
            return Answer::Refused(format!("not permitted: {}", decision.explanation));
        }
        if let Some(why) = decision.hold() {
            return Answer::Held(why.to_owned());
        }
        let offered = self.plans(log.origin());
        if !offered
            .plans
            .iter()
            .any(|offered| offered.digest() == plan.digest())
        {
            return Answer::Held("the plan is none that the stream is offered under".to_owned());
        }
        Answer::Granted
    }

    /// Whether one more proposal of this partner has room here.
    fn check_room(
        self: &Arc<Self>,
        peer: &Peer,
        proposal: &Proposal,
        now: Timestamp,
    ) -> Result<(), ExchangeError> {
        let (mut open, mut begun, mut same) = (0, 0, false);
        {
            let registry = self.registry();
            let theirs = registry
                .talks
                .iter()
                .filter(|(_, talks)| talks.first.by == proposal.by);
            for (id, talks) in theirs {
                let hour_ago = now.0.saturating_sub(3600 * 1_000_000);
                begun += usize::from(talks.first.made.0 >= hour_ago);
                let state = talks.documents.state(*id, now);
                if matches!(
                    state.name,
                    Name::Accepted | Name::Countered | Name::Proposed
                ) {
                    open += 1;
                    same |= talks.first.stream == proposal.stream;
                }
            }
        }
        let about = proposal.stream.as_str();
        if open >= OPEN_PROPOSALS_MAX {
            let why = format!("{open} proposals of yours wait here already");
            return Err(self.too_many(peer, about, &why));
        }
        if begun >= BEGUN_IN_AN_HOUR_MAX {
            let why = format!("{begun} proposals of yours came within the last hour: wait");
            return Err(self.too_many(peer, about, &why));
        }
        if same {
            let why = "a proposal of yours about this stream waits here already";
            return Err(self.too_many(peer, about, why));
        }
        Ok(())
    }

    /// The streams that a partner may know of, with their plans.
    ///
    /// # Errors
    /// A refusal, for whoever is no partner.
    pub fn list_streams(
        self: &Arc<Self>,
        peer: &Peer,
        _ask: &ListStreams,
    ) -> Result<StreamList, Box<Refused>> {
        let known = peer.authority();
        let known = known.filter(|authority| self.party_known(authority).is_ok());
        let Some(authority) = known.cloned() else {
            let reason = "only partners are told which streams there are";
            let code = RefusalCode::NotPermitted;
            return Err(Box::new(self.refuse(
                peer,
                "list",
                "",
                code,
                reason.to_owned(),
            )));
        };
        let now = self.clock().now();
        let mut logs = self.logs();
        logs.retain(|log| log.is_own_stream());
        logs.sort_by(|a, b| a.origin().as_str().cmp(b.origin().as_str()));
        let mut listed = StreamList {
            streams: Vec::new(),
            more: false,
        };
        let mut bytes = 0;
        for log in logs {
            let active = {
                let registry = self.registry();
                registry
                    .active_agreement(&authority, log.origin(), now)
                    .cloned()
            };
            let described = log.described();
            let request =
                self.policy_request(peer, Action::Discover, described, active.as_ref(), "");
            if !self.decide(&request).0.allowed {
                continue;
            }
            let stream = ListedStream {
                origin: log.origin().clone(),
                title: log.settings().title.clone(),
                labels: log.settings().labels.clone(),
                encrypted: log.is_encrypted(),
                plans: self.plans(log.origin()).plans,
            };
            let stream = serde_json::to_vec(&stream).unwrap_or_default();
            bytes += stream.len();
            if listed.streams.len() >= LISTED_MAX || bytes > LISTED_BYTES_MAX {
                listed.more = true;
                break;
            }
            listed.streams.push(stream);
        }
        Ok(listed)
    }
}

/// What becomes of a request.
enum Answer {
    Granted,
    Held(String),
    Refused(String),
}
