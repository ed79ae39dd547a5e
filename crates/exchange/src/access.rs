//! Every door asks the same judge.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use countersign_crypto::{Hash, PublicKey};
use countersign_event::documents::{
    AgreementId, Digest, KeyStatement, Refusal, RefusalCode, Role, StatementError,
};
use countersign_event::dsse::Envelope;
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::{Authority, Origin};
use countersign_policy::{
    Action, Agreement, Context, Credential, Decision, Member, Organization, Principal, Request,
    Stream,
};
use countersign_protocol::Hello;
use countersign_store::journal::LogKind;

use crate::onboarding::hex;
use crate::refusal::Refused;
use crate::registry::AgreementState;
use crate::{Exchange, ExchangeError, Log, LogSettings};

/// Who is at the other end of a session, as the channel and the key statement prove it. Nothing that a peer merely says is in it. Clones share the
/// documents: each stream of a connection holds one.
#[derive(Clone, Debug)]
pub enum Peer {
    /// One of our own enrolled applications.
    App {
        /// Its name here.
        name: String,
        /// Its key, which TLS proved.
        key: PublicKey,
    },
    /// Whoever shows a token that was made for a partner.
    Holder {
        /// The partner's key statement, as it is known here.
        statement: Arc<KeyStatement>,
    },
    /// The local user, through the node's own socket.
    Local,
    /// Another organization.
    Organization {
        /// Its key statement, verified.
        statement: Arc<KeyStatement>,
        /// The envelope.
        envelope: Arc<Envelope>,
        /// The node key, which TLS proved and the statement delegates.
        node: PublicKey,
        /// Where it says it can be dialled.
        addresses: Vec<String>,
    },
}

impl Peer {
    /// How the ledger names it.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::App { name, .. } => format!("app:{name}"),
            Self::Local => "local".to_owned(),
            Self::Holder { statement } | Self::Organization { statement, .. } => {
                statement.authority.to_string()
            }
        }
    }

    /// The other organization, where it is one.
    #[must_use]
    pub fn authority(&self) -> Option<&Authority> {
        match self {
            Self::Holder { statement } | Self::Organization { statement, .. } => {
                Some(&statement.authority)
            }
            Self::App { .. } | Self::Local => None,
        }
    }
}

/// The most characters of a purpose or plan that the policies are shown.
pub(crate) const PURPOSE_CHARS_MAX: usize = 200;

/// Why a peer is not who it says it is.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PeerError {
    /// Addresses or texts beyond their limits.
    #[error(
        "the greeting exceeds a limit: at most 8 addresses of 255 characters, and a key statement of {STATEMENT_BYTES_MAX} bytes"
    )]
    Limit,
    /// Another organization key is pinned for this name, or a newer statement is known.
    #[error(
        "`{authority}` is known here under another or newer identity than the one shown: a name is pinned at first meeting"
    )]
    OtherKey {
        /// The name.
        authority: Authority,
    },
    /// Its key statement is not in order.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// It has shown more key statements than are kept of one organization.
    #[error(
        "`{authority}` has changed its keys {STATEMENTS_MAX} times: no more key statements of it are taken"
    )]
    Statements {
        /// The name.
        authority: Authority,
    },
    /// No application with this key is enrolled here.
    #[error(
        "no application with the key {key} is enrolled at this node: `countersign app add NAME --key KEY` does that"
    )]
    UnknownApp {
        /// The fingerprint.
        key: String,
    },
}

/// What partners ask that is no request for events: what is known of a log, entries of their own back, and what nobody understands.
const QUESTIONS: [&str; 4] = ["compare", "fetch-back", "list", "request"];

/// How often a refusal of one kind of question to one partner goes to the ledger.
const QUESTION_RECORDED_EVERY: Duration = Duration::from_secs(3600);

/// Refused questions: when one was last recorded, and how many were not. Bounded by the partners there are.
#[derive(Debug, Default)]
pub(crate) struct RefusedQuestions {
    last: HashMap<(Authority, &'static str), Duration>,
    pub(crate) unrecorded: u64,
}

/// Key statements that are kept of one organization: a change of one key a week for ten years.
pub(crate) const STATEMENTS_MAX: usize = 512;

/// Bytes of a partner's key statement: some hundred keys.
pub(crate) const STATEMENT_BYTES_MAX: usize = 64 << 10;

impl Exchange {
    /// Judges a greeting: who is it, given the key that TLS has proven?
    ///
    /// # Errors
    /// [`PeerError`].
    pub fn identify(&self, hello: &Hello, tls_key: &PublicKey) -> Result<Peer, PeerError> {
        if hello.key_statement.is_empty() {
            let registry = self.registry();
            let name = registry
                .apps
                .get(tls_key)
                .ok_or_else(|| PeerError::UnknownApp {
                    key: tls_key.fingerprint().to_string(),
                })?;
            return Ok(Peer::App {
                name: name.clone(),
                key: *tls_key,
            });
        }
        if hello.addresses.len() > 8 || hello.addresses.iter().any(|a| a.len() > 255) {
            return Err(PeerError::Limit);
        }
        let envelope = Envelope::from_json(&hello.key_statement)
            .map_err(|error| StatementError::Document(error.into()))?;
        if envelope.payload_bytes() > STATEMENT_BYTES_MAX {
            return Err(PeerError::Limit);
        }
        let statement = KeyStatement::verify(&envelope)?;
        let now = self.clock().now();
        statement.check_delegated(Role::Node, tls_key, now)?;
        self.check_pinned(&statement)?;
        // What was revoked is no key of its organization any more, whatever statement is shown.
        self.statement_in_force(&statement)
            .check_delegated(Role::Node, tls_key, now)?;
        Ok(Peer::Organization {
            statement: Arc::new(statement),
            envelope: Arc::new(envelope),
            node: *tls_key,
            addresses: hello.addresses.clone(),
        })
    }

    /// A name is pinned to the organization key it was first met with, and to those that this one gave its place to; an older statement does not bring back what a newer one dropped.
    ///
    /// # Errors
    /// [`PeerError::OtherKey`].
    pub fn check_pinned(&self, statement: &KeyStatement) -> Result<(), PeerError> {
        let other_key = || PeerError::OtherKey {
            authority: statement.authority.clone(),
        };
        if statement.authority == *self.identity().authority() {
            let own = &self.identity().statement;
            // A node key that our newer statement dropped publishes no more under the older one.
            let current =
                statement.descends_from(&own.organization) && statement.number >= own.number;
            return if current { Ok(()) } else { Err(other_key()) };
        }
        let registry = self.registry();
        match registry.partners.get(&statement.authority) {
            Some(known) if !statement.descends_from(&known.statement.organization) => {
                Err(other_key())
            }
            Some(known) if known.statement.number > statement.number => Err(other_key()),
            // Two statements under one number: an auditor calls one of them false, and we would hold it.
            Some(known)
                if known.statement.number == statement.number && known.statement != *statement =>
            {
                Err(other_key())
            }
            // Each is kept for good, since what it delegated signed something: a new one every second would fill memory.
            Some(known)
                if known.statement.number < statement.number
                    && registry.statements_of(&statement.authority).len() >= STATEMENTS_MAX =>
            {
                Err(PeerError::Statements {
                    authority: statement.authority.clone(),
                })
            }
            _ => Ok(()),
        }
    }

    /// The request as the policies see it.
    #[must_use]
    pub fn policy_request(
        &self,
        peer: &Peer,
        action: Action,
        stream: (&Origin, &LogSettings),
        agreement: Option<&AgreementState>,
        purpose: &str,
    ) -> Request {
        let now = self.clock().now();
        let own = self.identity();
        let own_organization = Organization {
            authority: own.authority().to_string(),
            fingerprint: own.organization().fingerprint().to_string(),
            name: own.statement.name.clone(),
            own: true,
            partner: false,
            region: None,
        };
        let credential = match peer {
            Peer::App { .. } => Credential::ApplicationKey,
            Peer::Holder { .. } => Credential::Token,
            Peer::Local => Credential::Local,
            Peer::Organization { .. } => Credential::NodeKey,
        };
        let principal = match peer {
            Peer::App { name, key } => Principal::Application(Member {
                fingerprint: key.fingerprint().to_string(),
                name: name.clone(),
                organization: own_organization,
            }),
            // A token names no node: whoever holds it speaks for the organization.
            Peer::Holder { statement } => {
                Principal::Organization(self.policy_organization(statement))
            }
            Peer::Local => Principal::Organization(own_organization),
            Peer::Organization {
                statement, node, ..
            } => Principal::Node(Member {
                fingerprint: node.fingerprint().to_string(),
                name: String::new(),
                organization: self.policy_organization(statement),
            }),
        };
        Request {
            principal,
            action,
            resource: policy_stream(stream.0, stream.1),
            context: Context {
                agreement: agreement.map(|state| Agreement {
                    active: state.is_active(now),
                    id: state.agreement.id.to_string(),
                    plan: state.agreement.plan.name.clone(),
                    plan_digest: hex(&state.agreement.plan.digest()),
                    streams: [state.agreement.stream.to_string()].into(),
                }),
                credential: Some(credential),
                now_us: now.0,
                plan: agreement.map(|state| state.agreement.plan.name.clone()),
                purpose: (!purpose.is_empty())
                    .then(|| purpose.chars().take(PURPOSE_CHARS_MAX).collect()),
            },
        }
    }

    fn policy_organization(&self, statement: &KeyStatement) -> Organization {
        let registry = self.registry();
        let partner = registry.partners.get(&statement.authority);
        Organization {
            authority: statement.authority.to_string(),
            fingerprint: statement.organization.fingerprint().to_string(),
            name: statement.name.clone(),
            own: statement.authority == *self.identity().authority(),
            partner: partner.is_some_and(|partner| partner.revoked.is_none()),
            region: partner.and_then(|partner| partner.region.clone()),
        }
    }

    /// Asks the policies; a revoked partner gets a no whatever they say.
    pub(crate) fn decide(&self, request: &Request) -> (Decision, Hash) {
        let policies = self.policies();
        let mut decision = policies.decide(request);
        let authority = request
            .principal
            .organization()
            .authority
            .parse::<Authority>();
        let registry = self.registry();
        let partner = authority
            .ok()
            .and_then(|authority| registry.partners.get(&authority));
        if partner.is_some_and(|partner| partner.revoked.is_some()) {
            decision.allowed = false;
        }
        (decision, policies.digest())
    }

    /// The record of a decision.
    pub(crate) fn decision_record(
        &self,
        peer: &Peer,
        request: &Request,
        decision: &Decision,
        digest: Hash,
        agreement: Option<AgreementId>,
    ) -> LedgerRecord {
        let stream = request.resource.origin.parse::<Origin>();
        LedgerRecord::Decision {
            // The local user acts for the organization, and an auditor finds that name among the facts.
            principal: match peer {
                Peer::Local => self.identity().authority().to_string(),
                Peer::App { .. } | Peer::Holder { .. } | Peer::Organization { .. } => peer.name(),
            },
            action: request.action.name().to_owned(),
            // INVARIANT: resources are built from origins.
            stream: stream.unwrap_or_else(|_| Origin::of_node_ledger(self.identity().authority())),
            allowed: decision.allowed,
            policies: decision
                .determining
                .iter()
                .map(ToString::to_string)
                .collect(),
            policy_digest: Digest(digest),
            errors: decision.errors.clone(),
            agreement,
            facts: serde_json::to_string(request).unwrap_or_default(),
        }
    }

    /// Signs a refusal and, where the peer is a partner, keeps it in the partner's ledger log.
    pub fn refuse(
        self: &Arc<Self>,
        peer: &Peer,
        asked: &str,
        about: &str,
        code: RefusalCode,
        reason: String,
    ) -> Refused {
        self.refuse_by(peer, asked, about, code, reason, None)
    }

    pub(crate) fn refuse_by(
        self: &Arc<Self>,
        peer: &Peer,
        asked: &str,
        about: &str,
        code: RefusalCode,
        reason: String,
        decision: Option<&Decision>,
    ) -> Refused {
        let policies = decision.map(|decision| {
            decision
                .determining
                .iter()
                .map(ToString::to_string)
                .collect()
        });
        let advice = decision.map(|decision| {
            let notes = decision.explanation.policies.iter();
            notes.filter_map(|note| note.advice.clone()).collect()
        });
        let refusal = Refusal {
            asked: asked.to_owned(),
            principal: peer.authority().cloned(),
            about: about
                .chars()
                .filter(|c| !c.is_control())
                .take(512)
                .collect(),
            code,
            reason,
            policies: policies.unwrap_or_default(),
            advice: advice.unwrap_or_default(),
            position: None,
            made: self.clock().now(),
        };
        let refused = Refused::sign(refusal, &self.identity().agreement_key);
        self.note_refusal(peer, &refused);
        refused
    }

    /// Partners' refusals are in their ledger log; those of strangers are counted only.
    pub(crate) fn note_refusal(self: &Arc<Self>, peer: &Peer, refused: &Refused) {
        match self.partner_of(peer) {
            Some(authority) if self.records_refusal(&authority, &refused.refusal.asked) => {
                let envelope = String::from_utf8(refused.envelope.to_json()).unwrap_or_default();
                self.record_lazily(Some(authority), LedgerRecord::Refusal { envelope });
            }
            Some(_) => {}
            None => self.count_refused_stranger(),
        }
    }

    /// Whether a refusal of this kind goes to a partner's ledger. Questions cost nothing to ask: once an hour for each kind of them, and the others are counted.
    fn records_refusal(&self, partner: &Authority, asked: &str) -> bool {
        let Some(question) = QUESTIONS.iter().find(|question| **question == asked) else {
            return true;
        };
        let now = self.clock().uptime();
        let mut recorded = self.refused_questions();
        let last = recorded.last.get(&(partner.clone(), *question));
        if last.is_some_and(|last| now.saturating_sub(*last) < QUESTION_RECORDED_EVERY) {
            recorded.unrecorded += 1;
            return false;
        }
        recorded.last.insert((partner.clone(), *question), now);
        true
    }

    /// Keeps a refusal that a partner signed. The same words under the same agreement are kept once, however often a subscription is tried.
    pub fn note_refusal_got(
        self: &Arc<Self>,
        partner: &Authority,
        stream: &Origin,
        refusal: &Refusal,
        envelope: &Envelope,
    ) {
        if self.is_news(stream, &format!("{:?} {}", refusal.code, refusal.reason)) {
            let envelope = String::from_utf8(envelope.to_json()).unwrap_or_default();
            self.record_lazily(Some(partner.clone()), LedgerRecord::Refusal { envelope });
        }
    }

    /// The partner that a peer belongs to; nobody where it is a stranger or our own.
    fn partner_of(&self, peer: &Peer) -> Option<Authority> {
        let known = |authority: &&Authority| self.registry().partners.contains_key(*authority);
        peer.authority().filter(known).cloned()
    }

    /// Whether a peer belongs to the organization that runs this node.
    pub(crate) fn is_own(&self, peer: &Peer) -> bool {
        peer.authority()
            .is_none_or(|authority| authority == self.identity().authority())
    }

    /// The stream that a peer may know of by this name; the answer for one that it may not discover is that of one that does not exist.
    pub(crate) fn discover(
        self: &Arc<Self>,
        peer: &Peer,
        asked: &str,
        origin: &str,
        agreement: Option<&AgreementState>,
    ) -> Result<Arc<Log>, Box<Refused>> {
        self.discover_or(peer, asked, origin, agreement, "")
    }

    /// The same, with more to say where the answer is no.
    pub(crate) fn discover_or(
        self: &Arc<Self>,
        peer: &Peer,
        asked: &str,
        origin: &str,
        agreement: Option<&AgreementState>,
        more: &str,
    ) -> Result<Arc<Log>, Box<Refused>> {
        let found = origin
            .parse::<Origin>()
            .ok()
            .and_then(|origin| self.log(&origin))
            .filter(|log| log.kind() == LogKind::Own)
            .filter(|log| {
                let request =
                    self.policy_request(peer, Action::Discover, log.described(), agreement, "");
                let (decision, digest) = self.decide(&request);
                // Why a question was refused is in the refusal, as often as that is recorded.
                if !decision.allowed
                    && !QUESTIONS.contains(&asked)
                    && let Some(partner) = self.partner_of(peer)
                {
                    // The answer says nothing; the full reason is for us.
                    let agreed = agreement.map(|state| state.agreement.id);
                    let record = self.decision_record(peer, &request, &decision, digest, agreed);
                    self.record_lazily(Some(partner), record);
                }
                decision.allowed
            });
        found.ok_or_else(|| {
            let shown: String = origin
                .chars()
                .filter(|c| !c.is_control())
                .take(200)
                .collect();
            let reason = format!("there is no stream `{shown}` here that you may see{more}");
            Box::new(self.refuse(peer, asked, origin, RefusalCode::NotFound, reason))
        })
    }

    /// Judges a publisher again whose session runs on: its enrolment or the policies may have changed.
    pub(crate) fn still_publishes(
        self: &Arc<Self>,
        peer: &Peer,
        log: &Log,
    ) -> Result<(), ExchangeError> {
        if let Peer::App { name, key } = peer
            && self.registry().apps.get(key) != Some(name)
        {
            let reason = format!("the application `{name}` is not enrolled here any more");
            let code = RefusalCode::WrongIdentity;
            return Err(self
                .refuse(peer, "publish", log.origin().as_str(), code, reason)
                .into());
        }
        self.allow_publish(peer, log.origin(), log.settings())
    }

    /// Whether an own application may publish to a stream; recorded either way.
    ///
    /// # Errors
    /// [`ExchangeError::Refused`].
    pub fn allow_publish(
        self: &Arc<Self>,
        peer: &Peer,
        origin: &Origin,
        settings: &LogSettings,
    ) -> Result<(), ExchangeError> {
        let request = self.policy_request(peer, Action::Publish, (origin, settings), None, "");
        let (decision, digest) = self.decide(&request);
        let partner = self.partner_of(peer);
        // Attempts of strangers are counted with their refusals.
        if partner.is_some() || self.is_own(peer) {
            let record = self.decision_record(peer, &request, &decision, digest, None);
            self.record_lazily(partner, record);
        }
        if decision.allowed {
            return Ok(());
        }
        let reason = format!(
            "publishing to `{origin}` is not permitted: {}",
            decision.explanation
        );
        let code = RefusalCode::NotPermitted;
        Err(self
            .refuse_by(
                peer,
                "publish",
                origin.as_str(),
                code,
                reason,
                Some(&decision),
            )
            .into())
    }
}

fn policy_stream(origin: &Origin, settings: &LogSettings) -> Stream {
    Stream {
        labels: settings.labels.iter().cloned().collect(),
        name: origin
            .stream()
            .map(|name| name.to_string())
            .unwrap_or_default(),
        origin: origin.to_string(),
        owner: origin.authority().to_string(),
        title: settings.title.clone(),
    }
}
