//! Onboarding: invitations, joins, agreements and their ends. What is signed here is durable before it is shown to the other side.

use std::sync::Arc;
use std::time::Duration;

use countersign_crypto::{Fingerprint, Hash, PublicKey};
use countersign_event::documents::{
    Agreement, Document as _, ErasureAnswer, ErasureRequest, KeyRevocation, KeyStatement, Offer,
    Party, Plan, RefusalCode, Role, Side,
};
use countersign_event::dsse::Envelope;
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::{Authority, StreamName};
use countersign_event::time::Timestamp;
use countersign_protocol::invitation::{Invitation, InvitationTerms, verify_proof};
use countersign_protocol::{JoinAccept, JoinDone, JoinQuery, JoinTerms};

use crate::registry::InvitationState;
use crate::{Exchange, ExchangeError, Peer, Refused, StreamError};

/// What a person decides about an invitation.
#[derive(Clone, Debug)]
pub struct InviteOptions {
    /// The stream: ours where we publish, the joiner's where we read.
    pub stream: StreamName,
    /// Which side we are.
    pub side: Side,
    /// On which terms.
    pub plan: Plan,
    /// How long the link can be used.
    pub expires_in: Duration,
    /// Until when the agreement runs; absent = until it is ended.
    pub until: Option<Timestamp>,
    /// The organization key the link is made for.
    pub for_key: Option<Fingerprint>,
    /// Whether a person confirms the joiner.
    pub confirm: bool,
    /// Where we listen: 1 to 8 `host:port`.
    pub addresses: Vec<String>,
}

/// Why an invitation, join or termination fails on our own side.
#[derive(Debug, thiserror::Error)]
pub enum OnboardingError {
    /// No address that a partner could dial.
    #[error(
        "an invitation needs 1 to 8 addresses where partners reach this node: set `advertise` in the configuration, or give --advertise HOST:PORT"
    )]
    Addresses,
    /// An agreement document is not what was agreed, or lacks a signature.
    #[error("the agreement is not in order: {what}")]
    Agreement {
        /// What is wrong.
        what: &'static str,
    },
    /// The node failed.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The agreement is in a state in which that cannot be done.
    #[error("this side cannot {what} now: agreement {id} is {state}")]
    NotNow {
        /// The agreement.
        id: String,
        /// What was wanted, in one word.
        what: &'static str,
        /// Its state.
        state: &'static str,
    },
    /// No name of a region.
    #[error("a region has 1 to 100 characters, none of them a control character")]
    Region,
    /// There is no such thing, or it is over.
    #[error("there is no {what} `{name}` that this could be done to")]
    Unknown {
        /// Invitation, agreement, partner.
        what: &'static str,
        /// The name given.
        name: String,
    },
}

impl Exchange {
    /// Makes an invitation.
    ///
    /// # Errors
    /// [`OnboardingError`].
    pub async fn invite(
        self: &Arc<Self>,
        options: InviteOptions,
    ) -> Result<Invitation, OnboardingError> {
        let addresses = &options.addresses;
        if addresses.is_empty()
            || addresses.len() > 8
            || addresses.iter().any(|a| a.is_empty() || a.len() > 255)
        {
            return Err(OnboardingError::Addresses);
        }
        let title = match options.side {
            Side::Producer => {
                let log = self
                    .own_stream(options.stream.as_str())
                    .map_err(ExchangeError::from)?;
                if options.plan.fields.is_some() && !log.settings().fields {
                    let name = options.stream;
                    return Err(ExchangeError::from(StreamError::NotFields { name }).into());
                }
                log.settings().title.clone()
            }
            Side::Consumer => None,
        };
        let now = self.clock().now();
        let lifetime = u64::try_from(options.expires_in.as_micros()).unwrap_or(u64::MAX);
        let expires = Timestamp(now.0.saturating_add(lifetime) / 1_000_000 * 1_000_000);
        let offer = Offer {
            inviter: options.side,
            organization: self.identity().party(),
            stream: options.stream,
            title,
            plan: options.plan,
            made: now,
            until: options.until,
            expires,
            confirm: options.confirm,
        };
        let text = offer.to_text();
        let terms = InvitationTerms {
            addresses: options.addresses,
            organization: self.identity().organization().fingerprint(),
            node: self.identity().node_key.public(),
            offer: Offer::digest(&text),
            expires: expires.0 / 1_000_000,
        };
        let invitation = self.with_entropy(|entropy| Invitation::new(terms, entropy));
        let record = LedgerRecord::Invitation {
            id: invitation.id_hex(),
            offer: text,
            secret_key: invitation.secret_key(),
            for_key: options.for_key.map(|key| key.to_string()),
            confirm: options.confirm,
            expires,
        };
        self.record_and_wait(None, record).await?;
        Ok(invitation)
    }

    /// A joiner asks for the terms.
    ///
    /// # Errors
    /// [`ExchangeError::Refused`].
    pub async fn join_terms(
        self: &Arc<Self>,
        peer: &Peer,
        query: &JoinQuery,
        exporter: &Hash,
    ) -> Result<JoinTerms, ExchangeError> {
        let joiner = self.joiner(peer, query, exporter).await?;
        let done = self
            .registry()
            .agreements
            .get(&joiner.agreement.id)
            .map(|state| state.envelope.to_json());
        Ok(JoinTerms {
            offer: joiner.invitation.offer,
            agreement: joiner.agreement.to_payload(),
            done: done.unwrap_or_default(),
        })
    }

    /// A joiner accepts: both have signed once this returns, and it is durable here.
    ///
    /// # Errors
    /// [`ExchangeError::Refused`].
    pub async fn join_accept(
        self: &Arc<Self>,
        peer: &Peer,
        query: &JoinQuery,
        exporter: &Hash,
        accept: &JoinAccept,
    ) -> Result<JoinDone, ExchangeError> {
        // Two keys at once must not both find the invitation unused.
        let _joining = self.joining.lock().await;
        let joiner = self.joiner(peer, query, exporter).await?;
        let known = self
            .registry()
            .agreements
            .get(&joiner.agreement.id)
            .map(|state| state.envelope.to_json());
        if let Some(envelope) = known {
            return Ok(JoinDone { envelope });
        }
        let malformed = |reason: &str| -> ExchangeError {
            self.refuse(
                peer,
                "join",
                &hex(&query.invitation),
                RefusalCode::Malformed,
                reason.to_owned(),
            )
            .into()
        };
        let mut envelope = Envelope::from_json(&accept.envelope)
            .map_err(|_| malformed("the accepted agreement is not a signed document"))?;
        let payload = joiner.agreement.to_payload();
        if envelope.peek(Agreement::PAYLOAD_TYPE).ok() != Some(payload.as_slice()) {
            return Err(malformed(
                "the accepted agreement has other words than the one that was offered",
            ));
        }
        self.statement_now(&joiner.statement)
            .open_signed::<Agreement>(Role::Agreement, &envelope)
            .map_err(|_| {
                malformed("the accepted agreement is not signed by an agreement key of the joiner")
            })?;
        envelope.add_signature(&self.identity().agreement_key);
        self.hold_agreement(
            &joiner.statement,
            &joiner.statement_envelope,
            &envelope,
            joiner.addresses,
            Some(&joiner.id),
        )
        .await
        .map_err(|error| match error {
            OnboardingError::Exchange(error) => error,
            _ => malformed("the agreement is not in order"),
        })?;
        let step = LedgerRecord::InvitationStep {
            id: joiner.id,
            step: "redeemed".to_owned(),
            organization: joiner.statement.organization,
            authority: joiner.statement.authority.clone(),
            reason: String::new(),
        };
        self.record_and_wait(None, step).await?;
        Ok(JoinDone {
            envelope: envelope.to_json(),
        })
    }

    /// Who joins, under which invitation: everything that speaks against it is checked here, for both steps alike.
    async fn joiner(
        self: &Arc<Self>,
        peer: &Peer,
        query: &JoinQuery,
        exporter: &Hash,
    ) -> Result<Joiner, ExchangeError> {
        let id = hex(&query.invitation);
        let refuse = |code, reason: &str| -> ExchangeError {
            self.refuse(peer, "join", &id, code, reason.to_owned())
                .into()
        };
        let Peer::Organization {
            statement,
            envelope,
            node,
            addresses,
        } = peer
        else {
            return Err(refuse(
                RefusalCode::WrongIdentity,
                "an organization joins, not an application",
            ));
        };
        let unknown =
            "there is no such invitation here, or the link is not the one that was given out";
        let invitation = self.registry().invitations.get(&id).cloned();
        let Some(invitation) = invitation.filter(|invitation| {
            let secret = &invitation.secret_key;
            verify_proof(
                secret,
                exporter,
                &query.invitation,
                &statement.organization,
                node,
                &query.proof,
            )
        }) else {
            return Err(refuse(RefusalCode::NotFound, unknown));
        };
        let Some(offer) = Offer::from_text(&invitation.offer) else {
            return Err(refuse(RefusalCode::NotFound, unknown));
        };
        let party = party_of(statement);
        if party.authority == *self.identity().authority() {
            return Err(refuse(
                RefusalCode::WrongIdentity,
                "an organization cannot join itself",
            ));
        }
        let agreement = offer.agreement(
            Offer::agreement_id(&query.invitation, &party.organization),
            &party,
        );
        let redeemed = invitation
            .redeemed
            .filter(|key| *key == party.organization)
            .is_some();
        if !redeemed && let Err((code, step, reason)) = self.may_redeem(&invitation, &party) {
            let record = LedgerRecord::InvitationStep {
                id: id.clone(),
                step: step.to_owned(),
                organization: party.organization,
                authority: party.authority.clone(),
                reason: reason.to_owned(),
            };
            self.record_and_wait(None, record).await?;
            return Err(refuse(code, reason));
        }
        Ok(Joiner {
            id,
            invitation,
            agreement,
            statement: (**statement).clone(),
            statement_envelope: (**envelope).clone(),
            addresses: addresses.clone(),
        })
    }

    fn may_redeem(
        &self,
        invitation: &InvitationState,
        joiner: &Party,
    ) -> Result<(), (RefusalCode, &'static str, &'static str)> {
        let fingerprint = joiner.organization.fingerprint();
        if invitation.withdrawn {
            return Err((
                RefusalCode::InvitationExpired,
                "refused",
                "the invitation was taken back",
            ));
        }
        if invitation.redeemed.is_some() {
            return Err((
                RefusalCode::InvitationUsed,
                "refused",
                "the invitation was redeemed by another organization key",
            ));
        }
        if invitation
            .for_key
            .as_deref()
            .is_some_and(|key| key != fingerprint.as_str())
        {
            return Err((
                RefusalCode::InvitationUsed,
                "refused",
                "the invitation was made for another organization key",
            ));
        }
        if self.clock().now() >= invitation.expires {
            return Err((
                RefusalCode::InvitationExpired,
                "refused",
                "the invitation has expired; ask for a new one",
            ));
        }
        if invitation.barred.contains(&joiner.organization) {
            return Err((
                RefusalCode::InvitationExpired,
                "refused",
                "the access of this organization was ended after the invitation was made; ask for a new one",
            ));
        }
        if invitation.confirm && invitation.confirmed != Some(joiner.organization) {
            return Err((
                RefusalCode::Pending,
                "pending",
                "a person at the inviting organization has to confirm first; try again later",
            ));
        }
        Ok(())
    }

    /// A person lets a waiting joiner in.
    ///
    /// # Errors
    /// [`OnboardingError::Unknown`] where nobody waits under that invitation.
    pub async fn confirm_join(self: &Arc<Self>, id: &str) -> Result<Authority, OnboardingError> {
        let waiting = self
            .registry()
            .invitations
            .get(id)
            .and_then(|invitation| invitation.pending.last().cloned());
        let unknown = OnboardingError::Unknown {
            what: "waiting invitation",
            name: id.to_owned(),
        };
        let (organization, authority) = waiting.ok_or(unknown)?;
        let record = LedgerRecord::InvitationStep {
            id: id.to_owned(),
            step: "confirmed".to_owned(),
            organization,
            authority: authority.clone(),
            reason: String::new(),
        };
        self.record_and_wait(None, record).await?;
        Ok(authority)
    }

    /// Stores an agreement that both sides have signed, beside the partner's key statement; force of a commit of its own. Idempotent.
    ///
    /// # Errors
    /// [`OnboardingError::Agreement`] where a signature is missing or the parties are others.
    pub async fn hold_agreement(
        self: &Arc<Self>,
        partner: &KeyStatement,
        partner_envelope: &Envelope,
        agreement: &Envelope,
        addresses: Vec<String>,
        invitation: Option<&str>,
    ) -> Result<Agreement, OnboardingError> {
        let wrong = |what| OnboardingError::Agreement { what };
        let terms: Agreement = self
            .identity()
            .statement
            .open_signed(Role::Agreement, agreement)
            .map_err(|_| wrong("our own signature is missing"))?;
        self.statement_now(partner)
            .open_signed::<Agreement>(Role::Agreement, agreement)
            .map_err(|_| wrong("the partner's signature is missing"))?;
        let (own, other) = (self.identity().party(), party_of(partner));
        let parties = [&terms.producer, &terms.consumer];
        if !(parties == [&own, &other] || parties == [&other, &own]) {
            return Err(wrong("it names other parties than the two that signed"));
        }
        if terms.stream.authority() != terms.producer.authority || terms.stream.stream().is_none() {
            return Err(wrong("its stream is not one of the producer's"));
        }
        self.check_pinned(partner)
            .map_err(|_| wrong("the partner is known here under another key"))?;
        if let Some(known) = self.registry().agreements.get(&terms.id) {
            let same = known.envelope.payload_digest() == agreement.payload_digest();
            return if same {
                Ok(terms)
            } else {
                Err(wrong("another agreement has the same id"))
            };
        }
        if terms.producer == own {
            self.own_stream(
                terms
                    .stream
                    .stream()
                    .map(|name| name.to_string())
                    .unwrap_or_default()
                    .as_str(),
            )
            .map_err(|error: StreamError| ExchangeError::from(error))?;
        }
        let text = |envelope: &Envelope| String::from_utf8(envelope.to_json()).unwrap_or_default();
        let about = Some(&partner.authority);
        let statement = LedgerRecord::KeyStatement {
            envelope: text(partner_envelope),
        };
        let held = LedgerRecord::Agreement {
            envelope: text(agreement),
            addresses,
            invitation: invitation.map(str::to_owned),
        };
        // First who the partner is: an agreement with nobody known would be of no use after a failure in between.
        self.record_and_wait(about.cloned(), statement).await?;
        self.record_and_wait(about.cloned(), held).await?;
        Ok(terms)
    }

    /// Ends a partner's access as a whole.
    ///
    /// # Errors
    /// [`OnboardingError::Unknown`].
    pub async fn revoke(
        self: &Arc<Self>,
        partner: &str,
        reason: &str,
    ) -> Result<Authority, OnboardingError> {
        let statement = self
            .registry()
            .find_partner(partner)
            .map(|partner| partner.statement.clone());
        let unknown = |_| OnboardingError::Unknown {
            what: "partner",
            name: partner.to_owned(),
        };
        let statement = statement.map_err(unknown)?;
        let authority = statement.authority;
        let reason: String = reason
            .chars()
            .filter(|c| !c.is_control())
            .take(500)
            .collect();
        // First, so that no crash in between leaves a link that would bring the partner back.
        for id in self.open_invitations() {
            let step = LedgerRecord::InvitationStep {
                id,
                step: "refused".to_owned(),
                organization: statement.organization,
                authority: authority.clone(),
                reason: format!("access was ended: {reason}"),
            };
            self.record_and_wait(None, step).await?;
        }
        let record = LedgerRecord::Revocation {
            partner: authority.clone(),
            reason,
        };
        self.record_and_wait(Some(authority.clone()), record)
            .await?;
        self.recheck_running();
        Ok(authority)
    }

    /// Records where a partner is established, for policies to ask; its running subscriptions are judged again.
    ///
    /// # Errors
    /// [`OnboardingError::Region`]; what recording may say.
    pub async fn set_region(
        self: &Arc<Self>,
        partner: &Authority,
        region: Option<String>,
    ) -> Result<(), OnboardingError> {
        let plain = |text: &String| {
            (1..=100).contains(&text.chars().count()) && !text.contains(char::is_control)
        };
        if !region.as_ref().is_none_or(plain) {
            return Err(OnboardingError::Region);
        }
        let record = LedgerRecord::Region {
            partner: partner.clone(),
            region,
        };
        Ok(self.record_and_wait(Some(partner.clone()), record).await?)
    }

    fn open_invitations(&self) -> Vec<String> {
        let now = self.clock().now();
        let registry = self.registry();
        let open = registry.invitations.iter().filter(|(_, invitation)| {
            invitation.redeemed.is_none() && !invitation.withdrawn && now < invitation.expires
        });
        open.map(|(id, _)| id.clone()).collect()
    }

    /// Documents that a partner has to know of: what we signed about agreements with it, requests to erase and our answers to them, our newest key statement and what we
    /// revoked. Told at each session; taking one twice changes nothing.
    #[must_use]
    pub fn notices_for(&self, partner: &Authority) -> Vec<Envelope> {
        let agreements = self.agreement_notices_for(partner).into_iter();
        agreements
            .chain(self.erasure_notices_for(partner))
            .chain(self.key_notices())
            .collect()
    }

    /// A partner tells of an agreement, of an erasure, or of keys.
    ///
    /// # Errors
    /// [`ExchangeError::Refused`] where it is not the partner's to say.
    pub async fn take_notice(
        self: &Arc<Self>,
        peer: &Peer,
        envelope: &[u8],
    ) -> Result<(), ExchangeError> {
        let malformed = |reason: &str| -> ExchangeError {
            self.refuse(
                peer,
                "notice",
                "",
                RefusalCode::Malformed,
                reason.to_owned(),
            )
            .into()
        };
        if !matches!(peer, Peer::Organization { .. }) {
            return Err(malformed("an application has no notices to give"));
        }
        let envelope =
            Envelope::from_json(envelope).map_err(|_| malformed("not a signed document"))?;
        match envelope.payload_type() {
            ErasureRequest::PAYLOAD_TYPE => self.take_erasure_request(peer, &envelope).await,
            ErasureAnswer::PAYLOAD_TYPE => self.take_erasure_answer(peer, &envelope).await,
            KeyRevocation::PAYLOAD_TYPE => self.take_key_revocation(peer, &envelope).await,
            KeyStatement::PAYLOAD_TYPE => self.take_key_statement(peer, &envelope).await,
            _ => Box::pin(self.take_agreement_document(peer, &envelope)).await,
        }
    }

    /// A partner that shows a newer key statement than the one held.
    ///
    /// # Errors
    /// [`ExchangeError`] where it cannot be recorded.
    pub async fn note_partner(self: &Arc<Self>, peer: &Peer) -> Result<(), ExchangeError> {
        let Peer::Organization {
            statement,
            envelope,
            ..
        } = peer
        else {
            return Ok(());
        };
        let newer = {
            let registry = self.registry();
            let known = registry.partners.get(&statement.authority);
            known.is_some_and(|known| known.statement.number < statement.number)
        };
        if newer {
            let text = String::from_utf8(envelope.to_json()).unwrap_or_default();
            let record = LedgerRecord::KeyStatement { envelope: text };
            self.record_and_wait(Some(statement.authority.clone()), record)
                .await?;
        }
        Ok(())
    }
}

struct Joiner {
    id: String,
    invitation: InvitationState,
    agreement: Agreement,
    statement: KeyStatement,
    statement_envelope: Envelope,
    addresses: Vec<String>,
}

pub(crate) fn party_of(statement: &KeyStatement) -> Party {
    Party {
        authority: statement.authority.clone(),
        name: statement.name.clone(),
        organization: statement.organization,
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl From<Refused> for OnboardingError {
    fn from(refused: Refused) -> Self {
        Self::Exchange(refused.into())
    }
}

/// An organization key in base64 or as a fingerprint; kept for commands that take either.
#[must_use]
pub fn fingerprint_of(text: &str) -> Option<Fingerprint> {
    text.parse().ok().or_else(|| {
        PublicKey::from_base64(text)
            .ok()
            .map(|key| key.fingerprint())
    })
}
