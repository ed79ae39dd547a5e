//! What this side does with an agreement, and what partners tell.

use std::sync::Arc;

use countersign_event::agreement_state::{AgreementDocument, Disobeyed, May, Name};
use countersign_event::documents::{
    Agreement, AgreementId, Digest, Document, KeyStatement, Proposal, RefusalCode, Role, Step,
    StepKind, SuspensionCause, Termination,
};
use countersign_event::dsse::Envelope;
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::{Authority, Origin};

use super::{
    AHEAD_US_MAX, DOCUMENTS_MAX, Halted, HeldDocuments, held, is_agreed, not_now, other_party,
    plain, text_of, unknown,
};
use crate::{Exchange, ExchangeError, OnboardingError, Peer};

/// What is acted on: the sides and the log of an agreement or of talks.
struct Concerned {
    partner: Authority,
    stream: Origin,
    /// Whether we publish.
    outgoing: bool,
}

impl Exchange {
    fn concerned(&self, id: AgreementId) -> Option<Concerned> {
        let own = self.identity().authority();
        let registry = self.registry();
        let of = |producer: &Authority, partner: &Authority, stream: &Origin| Concerned {
            partner: partner.clone(),
            stream: stream.clone(),
            outgoing: producer == own,
        };
        if let Some(state) = registry.agreements.get(&id) {
            let terms = &state.agreement;
            let partner = state.counterparty(own);
            return Some(of(&terms.producer.authority, partner, &terms.stream));
        }
        let first = &registry.talks.get(&id)?.first;
        let partner = other_party(first, own);
        Some(of(&first.producer.authority, partner, &first.stream))
    }

    /// Refuses or withdraws a proposal, suspends, resumes or completes an agreement; what runs stops at the position that is signed.
    ///
    /// # Errors
    /// [`OnboardingError::NotNow`] where the agreement is in no state for it.
    pub async fn step(
        self: &Arc<Self>,
        id: AgreementId,
        kind: StepKind,
        cause: Option<SuspensionCause>,
        reason: &str,
    ) -> Result<Envelope, OnboardingError> {
        let _acting = self.acting.lock().await;
        self.step_alone(id, kind, cause, reason).await
    }

    /// As [`Exchange::step`], where nobody else acts meanwhile.
    pub(super) async fn step_alone(
        self: &Arc<Self>,
        id: AgreementId,
        kind: StepKind,
        cause: Option<SuspensionCause>,
        reason: &str,
    ) -> Result<Envelope, OnboardingError> {
        let may = match kind {
            StepKind::Complete => May::Complete,
            StepKind::Refuse => May::Refuse,
            StepKind::Resume => May::Resume,
            StepKind::Suspend => May::Suspend,
            StepKind::Withdraw => May::Withdraw,
        };
        let documents = self.documents_of(id).ok_or_else(|| unknown(id))?;
        let concerned = self.concerned(id).ok_or_else(|| unknown(id))?;
        let own = self.identity().authority();
        let made = documents.date_for(id, self.clock().now(), own, may);
        let state = documents.state(id, made);
        if !state.may(own, may) {
            return Err(not_now(id, may, &state));
        }
        let on = match kind {
            StepKind::Resume => {
                let mut open = state.suspended_by.iter();
                open.find(|(by, _)| by == own).map(|(_, digest)| *digest)
            }
            _ => state.acts_on,
        };
        let on = on.ok_or_else(|| not_now(id, may, &state))?;
        let stops = matches!(kind, StepKind::Complete | StepKind::Suspend) && concerned.outgoing;
        // Nothing leaves from here on, so that the position that is signed is the one at which delivery stops.
        let halted = stops.then(|| Halted::all_under(self, id));
        let position = halted
            .as_ref()
            .and_then(|halted| halted.position.or_else(|| self.reached_under(id)));
        let step = Step {
            agreement: id,
            stream: concerned.stream,
            step: kind,
            on: Digest(on),
            by: own.clone(),
            cause: cause.filter(|_| kind == StepKind::Suspend),
            reason: plain(reason),
            position,
            made,
        };
        let envelope = step.sign(&self.identity().agreement_key);
        let record = LedgerRecord::AgreementStep {
            envelope: text_of(&envelope),
        };
        self.record_and_wait(Some(concerned.partner), record)
            .await?;
        self.recheck_running();
        Ok(envelope)
    }

    /// Ends an agreement; running subscriptions stop.
    ///
    /// # Errors
    /// [`OnboardingError::Unknown`], [`OnboardingError::NotNow`].
    pub async fn terminate(
        self: &Arc<Self>,
        id: AgreementId,
        reason: &str,
    ) -> Result<Envelope, OnboardingError> {
        let _acting = self.acting.lock().await;
        let documents = self.documents_of(id).ok_or_else(|| unknown(id))?;
        let concerned = self.concerned(id).ok_or_else(|| unknown(id))?;
        let own = self.identity().authority();
        let made = documents.date_for(id, self.clock().now(), own, May::Terminate);
        let state = documents.state(id, made);
        if !state.may(own, May::Terminate) {
            return Err(not_now(id, May::Terminate, &state));
        }
        // Nothing leaves from here on, so that the position that is signed is the one at which delivery stops.
        let halted = Halted::all_under(self, id);
        let position = halted
            .position
            .or_else(|| self.reached_under(id))
            .filter(|_| concerned.outgoing);
        let termination = Termination {
            agreement: id,
            stream: concerned.stream,
            by: own.clone(),
            reason: plain(reason),
            position,
            made,
        };
        let envelope = termination.sign(&self.identity().agreement_key);
        let record = LedgerRecord::Termination {
            envelope: text_of(&envelope),
        };
        self.record_and_wait(Some(concerned.partner), record)
            .await?;
        self.recheck_running();
        Ok(envelope)
    }

    /// Signs what the other side has proposed. It adds its own signature when it hears of it.
    ///
    /// # Errors
    /// [`OnboardingError::NotNow`] where no proposal of the other side is open.
    pub async fn accept_proposal(
        self: &Arc<Self>,
        id: AgreementId,
    ) -> Result<Envelope, OnboardingError> {
        let _acting = self.acting.lock().await;
        self.accept_alone(id).await
    }

    pub(super) async fn accept_alone(
        self: &Arc<Self>,
        id: AgreementId,
    ) -> Result<Envelope, OnboardingError> {
        let documents = self.documents_of(id).ok_or_else(|| unknown(id))?;
        let own = self.identity().authority();
        let made = documents.date_for(id, self.clock().now(), own, May::Accept);
        let state = documents.state(id, made);
        let open = state.acts_on.filter(|_| state.may(own, May::Accept));
        let open = open.ok_or_else(|| not_now(id, May::Accept, &state))?;
        let proposal = documents.proposal(&open);
        let proposal = proposal.ok_or_else(|| not_now(id, May::Accept, &state))?;
        if proposal.producer.authority == *own {
            let name = proposal.stream.stream().map(|name| name.to_string());
            self.own_stream(&name.unwrap_or_default())
                .map_err(ExchangeError::from)?;
        }
        let agreement = proposal.agreement(Digest(open), made);
        let envelope = agreement.sign(&self.identity().agreement_key);
        let partner = other_party(proposal, own).clone();
        let record = LedgerRecord::AgreementStep {
            envelope: text_of(&envelope),
        };
        self.record_and_wait(Some(partner), record).await?;
        Ok(envelope)
    }

    /// A partner tells of a document about an agreement.
    ///
    /// # Errors
    /// [`ExchangeError::Refused`] where it is not the partner's to say, or nothing that can be done now.
    pub(crate) async fn take_agreement_document(
        self: &Arc<Self>,
        peer: &Peer,
        envelope: &Envelope,
    ) -> Result<(), ExchangeError> {
        let bad = |why: &str| self.bad_document(peer, why.to_owned());
        let Peer::Organization { statement, .. } = peer else {
            return Err(bad("an application has no notices to give"));
        };
        let sender = &statement.authority;
        let document = self.open_document(statement, envelope).ok_or_else(|| {
            bad("not a document about an agreement signed by an agreement key of its sender")
        })?;
        let _acting = self.acting.lock().await;
        let now = self.clock().now();
        if document.made().0 > now.0.saturating_add(AHEAD_US_MAX) {
            return Err(bad(
                "its date lies more than ten minutes ahead of the clock here",
            ));
        }
        let id = document.agreement();
        let documents = self.documents_of(id).unwrap_or_default();
        self.check_parties(statement, &document, id).map_err(&bad)?;
        let mut signed_by = vec![sender.clone()];
        if let AgreementDocument::Agreement(_) = &document {
            let own = &self.identity().statement;
            let ours = own.open_signed::<Agreement>(Role::Agreement, envelope);
            signed_by.extend(ours.is_ok().then(|| own.authority.clone()));
        }
        let one = held(document, envelope, signed_by);
        let known = documents.documents().iter().any(|known| {
            known.digest == one.digest && known.signed_by.len() >= one.signed_by.len()
        });
        if known {
            return Ok(());
        }
        if documents.documents().len() >= DOCUMENTS_MAX {
            return Err(bad(
                "there are more documents about this agreement than are kept",
            ));
        }
        let mut more = documents.clone();
        more.push(one.clone(), envelope.clone());
        let judged = more.state(id, more.newest_or(now));
        match judged.disobeys(&one.digest) {
            // Said on both sides at once: it changes nothing here, and nothing there.
            Some(Disobeyed::AfterTheEnd) => return Ok(()),
            Some(why) => return Err(self.bad_document(peer, why.to_string())),
            None => {}
        }
        let text = text_of(envelope);
        let record = match &one.document {
            AgreementDocument::Proposal(proposal) => {
                return self.take_proposal(peer, proposal, text, &documents).await;
            }
            AgreementDocument::Agreement(agreement) => {
                let both = is_agreed(&one, agreement);
                // Where it comes too late by the clock here, our signature does not make it an agreement.
                if !both && !judged.may(&self.identity().statement.authority, May::Countersign) {
                    let why = Disobeyed::AfterTheDeadline.to_string();
                    return Err(self.bad_document(peer, why));
                }
                return self.take_signed(peer, envelope, both).await;
            }
            AgreementDocument::Step(_) => LedgerRecord::AgreementStep { envelope: text },
            AgreementDocument::Termination(_) => LedgerRecord::Termination { envelope: text },
        };
        self.record_and_wait(Some(sender.clone()), record).await?;
        self.recheck_running();
        Ok(())
    }

    /// An acceptance of what we proposed, or an agreement under both signatures.
    async fn take_signed(
        self: &Arc<Self>,
        peer: &Peer,
        envelope: &Envelope,
        both: bool,
    ) -> Result<(), ExchangeError> {
        let Peer::Organization {
            statement,
            envelope: statement_envelope,
            ..
        } = peer
        else {
            return Ok(());
        };
        let revoked = {
            let registry = self.registry();
            let partner = registry.partners.get(&statement.authority);
            partner.is_none_or(|partner| partner.revoked.is_some())
        };
        if revoked {
            return Err(self.bad_document(peer, "access was ended here".to_owned()));
        }
        let mut envelope = envelope.clone();
        if !both {
            envelope.add_signature(&self.identity().agreement_key);
        }
        let newest = self.statement_of(&statement.authority);
        let statement = newest.unwrap_or_else(|| (**statement).clone());
        let held = self
            .hold_agreement(&statement, statement_envelope, &envelope, Vec::new(), None)
            .await;
        held.map_err(|error| match error {
            OnboardingError::Exchange(error) => error,
            error => self.bad_document(peer, error.to_string()),
        })?;
        self.recheck_running();
        Ok(())
    }

    /// The document, once the sender's signature is verified, dated within its key's period; `None` where it is another's or has another form.
    fn open_document(
        &self,
        statement: &KeyStatement,
        envelope: &Envelope,
    ) -> Option<AgreementDocument> {
        let sender = &statement.authority;
        let statement = self.statement_in_force(statement);
        let role = Role::Agreement;
        let document = match envelope.payload_type() {
            Agreement::PAYLOAD_TYPE => {
                let agreement = statement.open_signed(role, envelope).ok()?;
                AgreementDocument::Agreement(Box::new(agreement))
            }
            Proposal::PAYLOAD_TYPE => {
                let made = |proposal: &Proposal| proposal.made;
                let proposal = statement.open_dated(role, envelope, made).ok()?;
                AgreementDocument::Proposal(Box::new(proposal))
            }
            Step::PAYLOAD_TYPE => {
                let made = |step: &Step| step.made;
                AgreementDocument::Step(statement.open_dated(role, envelope, made).ok()?)
            }
            _ => {
                let made = |end: &Termination| end.made;
                AgreementDocument::Termination(statement.open_dated(role, envelope, made).ok()?)
            }
        };
        let theirs = document.by().is_none_or(|by| by == sender);
        theirs.then_some(document)
    }

    /// Whether a document is about an agreement between us and its sender, and nobody else.
    fn check_parties(
        &self,
        statement: &KeyStatement,
        document: &AgreementDocument,
        id: AgreementId,
    ) -> Result<(), &'static str> {
        let known = self.concerned(id);
        if let Some(known) = &known
            && (known.partner != statement.authority || known.stream != *document.stream())
        {
            return Err("it names no agreement of ours with its sender");
        }
        let (own, other) = (
            self.identity().party(),
            crate::onboarding::party_of(&self.statement_in_force(statement)),
        );
        let (producer, consumer) = match document {
            AgreementDocument::Agreement(terms) => (&terms.producer, &terms.consumer),
            AgreementDocument::Proposal(terms) => (&terms.producer, &terms.consumer),
            AgreementDocument::Step(_) | AgreementDocument::Termination(_) => {
                return match known {
                    Some(_) => Ok(()),
                    None => Err("it names no agreement of ours with its sender"),
                };
            }
        };
        let parties = [producer, consumer];
        if parties == [&own, &other] || parties == [&other, &own] {
            Ok(())
        } else {
            Err(
                "it names other parties than its sender and us, or names them otherwise than their key statements",
            )
        }
    }

    /// The name of the state of an agreement, or of the talks about one, now.
    #[must_use]
    pub fn agreement_name(&self, id: AgreementId) -> Option<Name> {
        let documents: HeldDocuments = self.documents_of(id)?;
        Some(documents.state(id, self.clock().now()).name)
    }

    /// The refusal of a request that is one too many.
    pub(super) fn too_many(self: &Arc<Self>, peer: &Peer, about: &str, why: &str) -> ExchangeError {
        let code = RefusalCode::Busy;
        self.refuse(peer, "propose", about, code, why.to_owned())
            .into()
    }
}
