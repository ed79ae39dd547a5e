//! What the ledger says now: partners, agreements, applications, invitations, the last receipt of each series.
//!
//! Loaded from the ledger's view at start and moved on by the same records that are written to the ledger; nothing lives only here.

use std::collections::{BTreeMap, HashMap, HashSet};

use countersign_crypto::{Hash, PublicKey};
use countersign_event::agreement_state::{AgreementDocument, HeldDocument};
use countersign_event::control::AuthorRule;
use countersign_event::documents::{
    Agreement, AgreementId, Digest, Document, KeyRevocation, KeyStatement, KeyWrap, Plans, Receipt,
    Role, SeriesId,
};
use countersign_event::dsse::Envelope;
use countersign_event::ledger::{DomainResult, LedgerRecord};
use countersign_event::names::{Authority, Origin};
use countersign_event::time::Timestamp;

use crate::HeldRevocation;
use crate::agreements::{HeldDocuments, Talks, held, read_document};
use crate::authors::AuthorBook;
use crate::erasure::ErasureBook;

/// Another organization.
#[derive(Clone, Debug)]
pub struct Partner {
    /// Its newest key statement.
    pub statement: KeyStatement,
    /// The envelope.
    pub envelope: Envelope,
    /// Where its node can be dialled.
    pub addresses: Vec<String>,
    /// Why its access as a whole was ended, if it was.
    pub revoked: Option<String>,
    /// Where it is established, as this node's operator recorded it.
    pub region: Option<String>,
}

/// What is known of the claim that an authority is a domain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DomainProof {
    /// Since when its key statement has been found there, each time that something was.
    pub since: Option<Timestamp>,
    /// When it was asked last.
    pub asked: Timestamp,
    /// What that came to.
    pub result: DomainResult,
    /// The same in words.
    pub detail: String,
}

/// An agreement and whether it still holds.
#[derive(Clone, Debug)]
pub struct AgreementState {
    /// Its terms.
    pub agreement: Agreement,
    /// The envelope with both signatures.
    pub envelope: Envelope,
    /// All documents about it: what its state is made of.
    pub documents: HeldDocuments,
    /// Why it ended with the whole access of the partner, if it did. A later agreement does not bring it back.
    pub revoked: Option<String>,
    /// The invitation it came from.
    pub invitation: Option<String>,
}

impl AgreementState {
    /// The side that is not `own`.
    #[must_use]
    pub fn counterparty(&self, own: &Authority) -> &Authority {
        let producer = &self.agreement.producer.authority;
        if producer == own {
            &self.agreement.consumer.authority
        } else {
            producer
        }
    }
}

/// An invitation that this node made.
#[derive(Clone, Debug)]
pub struct InvitationState {
    /// The offer's JSON text.
    pub offer: String,
    /// Proofs verify under it.
    pub secret_key: PublicKey,
    /// The fingerprint it was made for.
    pub for_key: Option<String>,
    /// Whether a person has to confirm.
    pub confirm: bool,
    /// When it ends.
    pub expires: Timestamp,
    /// The organization key that redeemed it.
    pub redeemed: Option<PublicKey>,
    /// The organization key that a person confirmed.
    pub confirmed: Option<PublicKey>,
    /// The organization keys that wait for a person.
    pub pending: Vec<(PublicKey, Authority)>,
    /// Whether it was taken back.
    pub withdrawn: bool,
    /// The organization keys that were refused for good.
    pub barred: Vec<PublicKey>,
}

/// The last receipt of a series.
#[derive(Clone, Debug)]
pub struct LastReceipt {
    /// What it says.
    pub receipt: Receipt,
    /// Digest of its payload, which the next one names.
    pub digest: Hash,
    /// The envelope.
    pub envelope: Envelope,
}

/// The key of an epoch, given to an organization.
#[derive(Clone, Debug)]
pub struct GivenKey {
    /// What it says.
    pub wrap: KeyWrap,
    /// The envelope.
    pub envelope: Envelope,
}

/// A token for published logs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TokenState {
    /// For whom it speaks.
    pub partner: Authority,
    /// When it ends.
    pub expires: Timestamp,
    /// Whether it was taken back.
    pub withdrawn: bool,
}

/// The code of a fault that is a fork.
pub(crate) const FORK: &str = "fork";

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    /// Our own name: our own key statement makes no partner.
    own: Option<Authority>,
    /// Partners by authority.
    pub partners: HashMap<Authority, Partner>,
    /// Agreements under both signatures, by id.
    pub agreements: HashMap<AgreementId, AgreementState>,
    /// Talks about agreements that lack a signature, by the id that the agreement would have.
    pub talks: HashMap<AgreementId, Talks>,
    /// Applications: name by key.
    pub apps: HashMap<PublicKey, String>,
    /// Invitations by hexadecimal id.
    pub invitations: HashMap<String, InvitationState>,
    /// Last receipts, given and got.
    pub receipts: HashMap<(AgreementId, SeriesId), LastReceipt>,
    /// Applications' cursors: next sequence and leaf hash before it.
    pub cursors: HashMap<(String, Origin), (u64, Hash)>,
    /// Streams whose published log anybody may read.
    pub open_logs: HashSet<Origin>,
    /// Tokens for published logs, by their digest.
    pub tokens: HashMap<Hash, TokenState>,
    /// What was found at partners' domains, by authority.
    pub domains: HashMap<Authority, DomainProof>,
    /// Logs that have signed two histories: nothing more is read from them or cosigned for them.
    pub forked: HashSet<Origin>,
    /// Partners whose receipts contradict each other, and what: nothing is delivered to them until a person decides.
    pub contradicting: HashMap<Authority, String>,
    /// Keys of epochs given and got, by recipient, stream and epoch.
    pub wraps: BTreeMap<(Authority, Origin, u64), GivenKey>,
    /// Requests to erase, their answers, legal holds, retention.
    pub erasure: ErasureBook,
    /// The plans that streams of ours are offered under.
    pub plans: HashMap<Origin, Plans>,
    /// Whose signatures the events of streams bear.
    pub authors: AuthorBook,
    /// Every key statement that was ever held, our own and partners', in the order in which they came.
    statements: HashMap<Authority, Statements>,
    /// Key revocations, our own and partners'.
    pub revocations: HashMap<Authority, Vec<HeldRevocation>>,
}

/// The key statements of one organization, each once.
#[derive(Clone, Debug, Default)]
struct Statements {
    envelopes: Vec<Envelope>,
    digests: HashSet<Hash>,
}

impl Registry {
    /// Every key statement of an organization that was ever held, in the order in which they came.
    #[must_use]
    pub fn statements_of(&self, authority: &Authority) -> &[Envelope] {
        let held = self.statements.get(authority);
        held.map_or(&[], |held| &held.envelopes)
    }

    /// The registry of the organization `own` before anything was recorded.
    #[must_use]
    pub fn of(own: Authority) -> Self {
        Self {
            own: Some(own),
            ..Self::default()
        }
    }

    /// Moves on by one record. Envelopes in it were verified before the record was written.
    pub fn apply(&mut self, record: &LedgerRecord) {
        match record {
            LedgerRecord::Agreement {
                envelope,
                addresses,
                invitation,
            } => {
                self.apply_agreement(envelope, addresses, invitation.as_ref());
            }
            LedgerRecord::AgreementStep { envelope } | LedgerRecord::Termination { envelope } => {
                self.apply_document(envelope)
            }
            LedgerRecord::App {
                name,
                key,
                enrolled,
            } => {
                if *enrolled {
                    self.apps.insert(*key, name.clone());
                } else {
                    self.apps.remove(key);
                }
            }
            LedgerRecord::AuthorRule {
                stream,
                sequence,
                keys,
                required,
            } => {
                let rule = AuthorRule {
                    keys: keys.clone(),
                    required: *required,
                };
                self.authors.apply(stream, *sequence, rule);
            }
            LedgerRecord::Cursor {
                app,
                stream,
                next,
                leaf,
            } => {
                self.cursors
                    .insert((app.clone(), stream.clone()), (*next, leaf.0));
            }
            LedgerRecord::Invitation {
                id,
                offer,
                secret_key,
                for_key,
                confirm,
                expires,
            } => {
                let state = InvitationState {
                    offer: offer.clone(),
                    secret_key: *secret_key,
                    for_key: for_key.clone(),
                    confirm: *confirm,
                    expires: *expires,
                    redeemed: None,
                    confirmed: None,
                    pending: Vec::new(),
                    withdrawn: false,
                    barred: Vec::new(),
                };
                self.invitations.insert(id.clone(), state);
            }
            LedgerRecord::InvitationStep {
                id,
                step,
                organization,
                authority,
                ..
            } => {
                if let Some(invitation) = self.invitations.get_mut(id) {
                    invitation.step(step, organization, authority);
                }
            }
            LedgerRecord::KeyRevocation { envelope } => self.apply_key_revocation(envelope),
            LedgerRecord::KeyStatement { envelope } => self.apply_statement(envelope),
            LedgerRecord::KeyWrap { envelope } => {
                if let Some((wrap, envelope)) = peek::<KeyWrap>(envelope) {
                    let key = (wrap.to.clone(), wrap.stream.clone(), wrap.epoch);
                    self.wraps.insert(key, GivenKey { wrap, envelope });
                }
            }
            LedgerRecord::LogAccess { stream, open } => {
                if *open {
                    self.open_logs.insert(stream.clone());
                } else {
                    self.open_logs.remove(stream);
                }
            }
            LedgerRecord::Receipt { envelope, .. } => self.apply_receipt(envelope),
            LedgerRecord::Revocation { partner, reason } => {
                for state in self.agreements.values_mut() {
                    let terms = &state.agreement;
                    let theirs = [&terms.producer.authority, &terms.consumer.authority];
                    if theirs.contains(&partner) {
                        state.revoked.get_or_insert_with(|| reason.clone());
                    }
                }
                // Neither come back with a new agreement.
                for token in self.tokens.values_mut() {
                    token.withdrawn |= token.partner == *partner;
                }
                if let Some(partner) = self.partners.get_mut(partner) {
                    partner.revoked = Some(reason.clone());
                }
            }
            LedgerRecord::Region { partner, region } => {
                if let Some(partner) = self.partners.get_mut(partner) {
                    partner.region.clone_from(region);
                }
            }
            LedgerRecord::DomainCheck {
                domain,
                at,
                result,
                detail,
                ..
            } => {
                let known = self.domains.get(domain).and_then(|known| known.since);
                let since = match result {
                    DomainResult::Proven => Some(known.unwrap_or(*at)),
                    DomainResult::Refuted => None,
                    DomainResult::Unreachable => known,
                };
                let proof = DomainProof {
                    since,
                    asked: *at,
                    result: *result,
                    detail: detail.clone(),
                };
                self.domains.insert(domain.clone(), proof);
            }
            LedgerRecord::Token {
                partner,
                digest,
                expires,
                withdrawn,
            } => {
                let state = TokenState {
                    partner: partner.clone(),
                    expires: *expires,
                    withdrawn: *withdrawn,
                };
                self.tokens.insert(digest.0, state);
            }
            LedgerRecord::Contradiction {
                partner,
                detail,
                settled,
                ..
            } => {
                if *settled {
                    self.contradicting.remove(partner);
                } else {
                    self.contradicting.insert(partner.clone(), detail.clone());
                }
            }
            LedgerRecord::Fault { code, stream, .. } => {
                if let Some(stream) = stream.as_ref().filter(|_| code == FORK) {
                    self.forked.insert(stream.clone());
                }
            }
            LedgerRecord::Plans { stream, plans } => {
                let plans = Plans {
                    plans: plans.clone(),
                };
                self.plans.insert(stream.clone(), plans);
            }
            LedgerRecord::ErasureAnswer { .. }
            | LedgerRecord::ErasureRequest { .. }
            | LedgerRecord::Hold { .. }
            | LedgerRecord::Retention { .. } => self.erasure.apply(record),
            // Read where the agreement is delivered under.
            LedgerRecord::Allotment { .. }
            | LedgerRecord::Decision { .. }
            | LedgerRecord::Filter { .. }
            | LedgerRecord::PolicySet { .. }
            | LedgerRecord::Refusal { .. }
            | LedgerRecord::Rejection { .. }
            | LedgerRecord::SkipClaim { .. }
            | LedgerRecord::Timestamp { .. } => {}
        }
    }

    fn apply_agreement(
        &mut self,
        envelope: &str,
        addresses: &[String],
        invitation: Option<&String>,
    ) {
        let Some((agreement, envelope)) = peek::<Agreement>(envelope) else {
            return;
        };
        for party in [&agreement.producer, &agreement.consumer] {
            if let Some(partner) = self.partners.get_mut(&party.authority) {
                // A new agreement takes a revoked partner in again.
                partner.revoked = None;
                if !addresses.is_empty() {
                    partner.addresses = addresses.to_vec();
                }
            }
        }
        if self.agreements.contains_key(&agreement.id) {
            return;
        }
        let talks = self.talks.remove(&agreement.id);
        let mut documents = talks.map(|talks| talks.documents).unwrap_or_default();
        let one = held_agreement(&agreement, &envelope);
        documents.push(one.clone(), envelope.clone());
        for other in self.agreements.values_mut() {
            if agreement.supersedes == Some(Digest(other.envelope.payload_digest())) {
                other.documents.push(one.clone(), envelope.clone());
            }
            // Whichever of the two was read first.
            if other.agreement.supersedes == Some(Digest(one.digest)) {
                let later = held_agreement(&other.agreement, &other.envelope);
                documents.push(later, other.envelope.clone());
            }
        }
        let state = AgreementState {
            envelope,
            documents,
            revoked: None,
            invitation: invitation.cloned(),
            agreement,
        };
        if let Some(id) = invitation
            && let Some(invitation) = self.invitations.get_mut(id)
        {
            // The inviter is one of the two; the other one has redeemed it.
            let inviter = countersign_event::documents::Offer::from_text(&invitation.offer);
            let inviter = inviter.map(|offer| offer.organization.organization);
            let parties = [
                state.agreement.producer.organization,
                state.agreement.consumer.organization,
            ];
            invitation.redeemed = parties.into_iter().find(|key| Some(*key) != inviter);
        }
        self.agreements.insert(state.agreement.id, state);
    }

    fn apply_statement(&mut self, envelope: &str) {
        let Some((statement, envelope)) = peek::<KeyStatement>(envelope) else {
            return;
        };
        let held = self.statements.entry(statement.authority.clone());
        let held = held.or_default();
        if held.digests.insert(envelope.payload_digest()) {
            held.envelopes.push(envelope.clone());
        }
        if self.own.as_ref() == Some(&statement.authority) {
            return;
        }
        match self.partners.get_mut(&statement.authority) {
            Some(partner) if partner.statement.number < statement.number => {
                partner.statement = statement;
                partner.envelope = envelope;
            }
            Some(_) => {}
            None => {
                let authority = statement.authority.clone();
                let partner = Partner {
                    statement,
                    envelope,
                    addresses: Vec::new(),
                    revoked: None,
                    region: None,
                };
                self.partners.insert(authority, partner);
            }
        }
    }

    fn apply_key_revocation(&mut self, envelope: &str) {
        let Some((revocation, envelope)) = peek::<KeyRevocation>(envelope) else {
            return;
        };
        let held = self.revocations.entry(revocation.authority.clone());
        let held = held.or_default();
        let digest = envelope.payload_digest();
        if held
            .iter()
            .all(|one| one.envelope.payload_digest() != digest)
        {
            held.push(HeldRevocation {
                revocation,
                envelope,
            });
        }
    }

    /// Whether an organization has revoked a key for a role.
    #[must_use]
    pub fn is_revoked(&self, authority: &Authority, role: Role, key: &PublicKey) -> bool {
        let held = self.revocations.get(authority).into_iter().flatten();
        let mut of = held.map(|held| &held.revocation);
        of.any(|revocation| revocation.role == role && revocation.key == *key)
    }

    fn apply_document(&mut self, envelope: &str) {
        let Some((document, envelope)) = read_document(envelope) else {
            return;
        };
        let id = document.agreement();
        if let AgreementDocument::Proposal(proposal) = &document
            && !self.agreements.contains_key(&id)
        {
            self.talks.entry(id).or_insert_with(|| Talks {
                first: (**proposal).clone(),
                documents: HeldDocuments::default(),
            });
        }
        let agreed = self
            .agreements
            .get_mut(&id)
            .map(|state| &mut state.documents);
        let talks = self.talks.get_mut(&id).map(|talks| &mut talks.documents);
        let Some(documents) = agreed.or(talks) else {
            return;
        };
        let signed_by = match &document {
            // Under one signature: that of the side which did not propose it.
            AgreementDocument::Agreement(agreement) => {
                let accepted = agreement.accepts;
                let accepted = accepted.and_then(|accepts| documents.proposal(&accepts.0));
                accepted.map(|proposal| proposal.other().clone())
            }
            document => document.by().cloned(),
        };
        let signed_by = signed_by.into_iter().collect();
        documents.push(held(document, &envelope, signed_by), envelope);
    }

    fn apply_receipt(&mut self, envelope: &str) {
        let Some((receipt, envelope)) = peek::<Receipt>(envelope) else {
            return;
        };
        let key = (receipt.agreement, receipt.series);
        let newer = self
            .receipts
            .get(&key)
            .is_none_or(|last| last.receipt.number < receipt.number);
        if newer {
            let last = LastReceipt {
                digest: envelope.payload_digest(),
                receipt,
                envelope,
            };
            self.receipts.insert(key, last);
        }
    }

    /// The agreement that covers `stream` for `consumer` now; of several, the newest.
    #[must_use]
    pub fn active_agreement(
        &self,
        consumer: &Authority,
        stream: &Origin,
        now: Timestamp,
    ) -> Option<&AgreementState> {
        self.agreements
            .values()
            .filter(|state| {
                state.agreement.consumer.authority == *consumer
                    && state.agreement.stream == *stream
                    && state.is_active(now)
            })
            .max_by_key(|state| (state.agreement.made, state.agreement.id))
    }

    /// The partner that a token speaks for now.
    #[must_use]
    pub fn holder(&self, digest: &Hash, now: Timestamp) -> Option<&Partner> {
        let token = self.tokens.get(digest)?;
        let good = !token.withdrawn && now < token.expires;
        self.partners.get(&token.partner).filter(|_| good)
    }

    /// The partner whose name, authority, or beginning of the authority (at least 8 characters) is `text`, if it is only one.
    ///
    /// # Errors
    /// How many there are, where it is not one.
    pub fn find_partner(&self, text: &str) -> Result<&Partner, usize> {
        let exact = |partner: &&Partner| {
            partner.statement.authority.as_str() == text
                || partner.statement.name.eq_ignore_ascii_case(text)
                || slug(&partner.statement.name) == text
        };
        let prefix = |partner: &&Partner| {
            text.len() >= 8 && partner.statement.authority.as_str().starts_with(text)
        };
        let mut found: Vec<_> = self.partners.values().filter(exact).collect();
        if found.is_empty() {
            found = self.partners.values().filter(prefix).collect();
        }
        match found.as_slice() {
            [one] => Ok(one),
            _ => Err(found.len()),
        }
    }
}

impl InvitationState {
    fn step(&mut self, step: &str, organization: &PublicKey, authority: &Authority) {
        match step {
            "redeemed" => self.redeemed = Some(*organization),
            "confirmed" => self.confirmed = Some(*organization),
            "withdrawn" => self.withdrawn = true,
            "refused" if !self.barred.contains(organization) => self.barred.push(*organization),
            "pending" if !self.pending.iter().any(|(key, _)| key == organization) => {
                self.pending.push((*organization, authority.clone()));
            }
            _ => {}
        }
    }
}

/// A name as it is typed on a command line: `Acme Freight GmbH` → `acme-freight-gmbh`.
#[must_use]
pub fn slug(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars().flat_map(char::to_lowercase) {
        if c.is_alphanumeric() {
            out.push(c);
        } else if !out.ends_with('-') && !out.is_empty() {
            out.push('-');
        }
    }
    out.trim_end_matches('-').to_owned()
}

/// An agreement under both signatures.
fn held_agreement(agreement: &Agreement, envelope: &Envelope) -> HeldDocument {
    let both = [&agreement.producer.authority, &agreement.consumer.authority];
    let document = AgreementDocument::Agreement(Box::new(agreement.clone()));
    held(document, envelope, both.into_iter().cloned().collect())
}

fn peek<D: Document>(envelope: &str) -> Option<(D, Envelope)> {
    let envelope = Envelope::from_json(envelope.as_bytes()).ok()?;
    Some((D::peek(&envelope).ok()?, envelope))
}
