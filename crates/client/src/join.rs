//! Joining by invitation: the joiner's checks as pure functions, for light clients and nodes alike, and the exchange itself.
//!
//! ```text
//! JoinQuery ──►  ◄── JoinTerms   check_terms: the offer is that of the link, the agreement is that of the offer and of both parties
//! JoinAccept ──► ◄── JoinDone    check_done:  the same bytes, signed by both
//! ```
//!
//! The steps are those of `schemas/invitation.md`. Each may be repeated: the same keys get the same documents.

use countersign_crypto::SigningKey;
use countersign_event::documents::{
    Agreement, Document as _, DocumentError, KeyStatement, Offer, Party, Role, StatementError,
};
use countersign_event::dsse::{Envelope, EnvelopeError};
use countersign_event::from_slice_of_objects;
use countersign_event::time::Timestamp;
use countersign_protocol::invitation::{EXPORTER_LABEL, Invitation, LinkError};
use countersign_protocol::{JoinAccept, JoinDone, JoinQuery, JoinTerms};

use crate::error::SessionError;
use crate::session::{Expected, NodeIdentity, Session, SessionOptions};

/// Most bytes of an agreement's payload or an offer's text that are looked at: both are below 4 KiB.
pub const TERMS_BYTES_MAX: usize = 64 * 1024;

/// How often the exchange is begun again after a lost connection.
const ATTEMPTS_MAX: u32 = 3;

/// Why joining failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JoinError {
    /// The agreement is not the one that the offer leads to.
    #[error(
        "the inviter sent an agreement that differs from its offer in `{field}`; nothing was signed"
    )]
    AgreementDiffers {
        /// Which part.
        field: &'static str,
    },
    /// A document's envelope or form is wrong.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A person said no.
    #[error("the terms were not accepted; nothing was signed")]
    Declined,
    /// The invitation is over.
    #[error("the invitation ended at {}; ask for a new one", Timestamp(.expired.saturating_mul(1_000_000)).to_rfc3339())]
    Expired {
        /// When it ended, in seconds since 1970.
        expired: u64,
    },
    /// The link is not one.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The offer is not the one whose digest is in the link.
    #[error("the inviter shows another offer than the link was made for; nothing was signed")]
    OfferDiffers,
    /// The offer cannot be read, or names another inviter.
    #[error("the inviter's offer is not valid ({what}); nothing was signed")]
    OfferInvalid {
        /// What is wrong.
        what: &'static str,
    },
    /// The terms changed between asking and signing.
    #[error("the inviter changed the terms after they were shown; nothing was signed")]
    TermsChanged,
    /// A signature is missing or wrong.
    #[error("the agreement is not signed by {side}: {error}")]
    NotSigned {
        /// Whose signature.
        side: &'static str,
        /// What was found.
        error: StatementError,
    },
    /// The session, or the inviter's refusal.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl From<EnvelopeError> for JoinError {
    fn from(error: EnvelopeError) -> Self {
        Self::Document(error.into())
    }
}

/// Terms that were checked against link, offer and parties, and may be shown and signed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Terms {
    /// The offer behind the link.
    pub offer: Offer,
    /// The agreement that it becomes.
    pub agreement: Agreement,
    /// The exact bytes to sign.
    pub payload: Vec<u8>,
    /// The agreement under both signatures, where it was signed before.
    pub done: Option<Envelope>,
}

impl Terms {
    /// The agreement under the joiner's signature.
    #[must_use]
    pub fn sign(&self, agreement_key: &SigningKey) -> Envelope {
        Envelope::sign(Agreement::PAYLOAD_TYPE, self.payload.clone(), agreement_key)
    }
}

/// Checks the inviter's terms: expiry, the offer's digest, its inviter, the agreement against the offer and both parties, and (where it was signed before) both
/// signatures.
///
/// `inviter` is the verified statement from the session's greeting.
///
/// # Errors
/// [`JoinError`].
pub fn check_terms(
    invitation: &Invitation,
    message: &JoinTerms,
    inviter: &KeyStatement,
    joiner: &KeyStatement,
    now: Timestamp,
) -> Result<Terms, JoinError> {
    check_expiry(invitation, now)?;
    if message.offer.len() > TERMS_BYTES_MAX || message.agreement.len() > TERMS_BYTES_MAX {
        return Err(JoinError::OfferInvalid { what: "too large" });
    }
    if Offer::digest(&message.offer) != invitation.offer {
        return Err(JoinError::OfferDiffers);
    }
    let offer =
        Offer::from_text(&message.offer).ok_or(JoinError::OfferInvalid { what: "its form" })?;
    let named = &offer.organization;
    let is_inviter =
        named.organization == inviter.organization && named.authority == inviter.authority;
    if !is_inviter || inviter.organization.fingerprint() != invitation.organization {
        return Err(JoinError::OfferInvalid {
            what: "its inviter",
        });
    }
    // A redeemed invitation still answers after the offer's own end, as long as the link lives.
    if message.done.is_empty() && now >= offer.expires {
        let expired = offer.expires.0 / 1_000_000;
        return Err(JoinError::Expired { expired });
    }
    let party = party_of(joiner);
    let id = Offer::agreement_id(&invitation.id, &joiner.organization);
    let agreement: Agreement = from_slice_of_objects(&message.agreement)
        .map_err(|_| JoinError::AgreementDiffers { field: "form" })?;
    if let Some(field) = difference(&agreement, &offer.agreement(id, &party)) {
        return Err(JoinError::AgreementDiffers { field });
    }
    let mut terms = Terms {
        offer,
        agreement,
        payload: message.agreement.clone(),
        done: None,
    };
    if !message.done.is_empty() {
        terms.done = Some(check_done(&terms, &message.done, inviter, joiner)?);
    }
    Ok(terms)
}

/// Checks the agreement under both signatures: the payload is the one of the terms, byte for byte, and an agreement key of either side signed it.
///
/// # Errors
/// [`JoinError`].
pub fn check_done(
    terms: &Terms,
    envelope: &[u8],
    inviter: &KeyStatement,
    joiner: &KeyStatement,
) -> Result<Envelope, JoinError> {
    let envelope = Envelope::from_json(envelope)?;
    if envelope.peek(Agreement::PAYLOAD_TYPE)? != terms.payload {
        return Err(JoinError::AgreementDiffers {
            field: "signed bytes",
        });
    }
    for (side, statement) in [("the inviter", inviter), ("the joiner", joiner)] {
        let signed: Result<Agreement, _> = statement.open_signed(Role::Agreement, &envelope);
        signed.map_err(|error| JoinError::NotSigned { side, error })?;
    }
    Ok(envelope)
}

/// An organization as a side of an agreement.
#[must_use]
pub fn party_of(statement: &KeyStatement) -> Party {
    Party {
        authority: statement.authority.clone(),
        name: statement.name.clone(),
        organization: statement.organization,
    }
}

/// The keys that a joiner needs.
#[derive(Clone, Debug)]
pub struct JoinerKeys {
    /// The organization's key statement.
    pub statement: KeyStatement,
    /// Its envelope.
    pub envelope: Envelope,
    /// Signs the agreement.
    pub agreement_key: SigningKey,
}

/// What joining gave.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The terms.
    pub terms: Terms,
    /// The agreement under both signatures.
    pub agreement: Envelope,
    /// The inviter, as its greeting proved.
    pub inviter: NodeIdentity,
    /// Where the inviter was dialled.
    pub addresses: Vec<String>,
}

/// The options of a session with the inviter: its organization and its node key are pinned before anything is sent.
#[must_use]
pub fn session_options(invitation: &Invitation, base: SessionOptions) -> SessionOptions {
    SessionOptions {
        addresses: invitation.addresses.clone(),
        expected: Expected::organization(invitation.organization.clone())
            .with_node(invitation.node),
        ..base
    }
}

/// Redeems an invitation: dials the inviter, shows the checked terms to `confirm`, signs, and verifies what comes back. `base` carries the
/// joiner's node key, statement and limits; addresses and expectation are those of the link.
///
/// # Errors
/// [`JoinError`]. Repeating it with the same keys is safe at any time.
pub async fn redeem(
    invitation: &Invitation,
    base: SessionOptions,
    keys: &JoinerKeys,
    mut confirm: impl FnMut(&Terms) -> bool,
) -> Result<Joined, JoinError> {
    let options = session_options(invitation, base);
    check_expiry(invitation, (options.clock)())?;
    let mut confirmed: Option<Terms> = None;
    let mut attempt = 0;
    loop {
        match redeem_once(invitation, &options, keys, &mut confirmed, &mut confirm).await {
            // A person may have thought for so long that the connection is gone.
            Err(JoinError::Session(error))
                if !error.is_lasting()
                    && error.retry_after().is_none()
                    && attempt < ATTEMPTS_MAX
                    && confirmed.is_some() =>
            {
                attempt += 1;
                tracing::debug!(%error, "the session to the inviter is lost; beginning again");
            }
            result => return result,
        }
    }
}

async fn redeem_once(
    invitation: &Invitation,
    options: &SessionOptions,
    keys: &JoinerKeys,
    confirmed: &mut Option<Terms>,
    confirm: &mut impl FnMut(&Terms) -> bool,
) -> Result<Joined, JoinError> {
    let session = Session::connect(options).await?;
    let exporter = session.connection().tls_exporter(exporter_label(), &[]);
    let node = options.key.public();
    let proof = invitation.prove(&exporter, &keys.statement.organization, &node);
    let query = JoinQuery {
        invitation: invitation.id,
        proof: proof.to_bytes().to_vec(),
    };
    let mut stream = session.request(&query).await?;
    let message: JoinTerms = stream.answer("the terms").await?;
    let inviter = session.peer().clone();
    let now = (options.clock)();
    let terms = check_terms(
        invitation,
        &message,
        &inviter.statement,
        &keys.statement,
        now,
    )?;
    match confirmed {
        Some(shown) if shown.payload != terms.payload => return Err(JoinError::TermsChanged),
        Some(_) => {}
        // What is signed already needs no second yes.
        None if terms.done.is_some() || confirm(&terms) => *confirmed = Some(terms.clone()),
        None => return Err(JoinError::Declined),
    }
    let agreement = match &terms.done {
        Some(done) => done.clone(),
        None => {
            let envelope = terms.sign(&keys.agreement_key).to_json();
            stream.send(&JoinAccept { envelope }).await?;
            let done: JoinDone = stream.answer("the inviter's signature").await?;
            check_done(&terms, &done.envelope, &inviter.statement, &keys.statement)?
        }
    };
    session.close().await;
    Ok(Joined {
        terms,
        agreement,
        inviter,
        addresses: options.addresses.clone(),
    })
}

fn check_expiry(invitation: &Invitation, now: Timestamp) -> Result<(), JoinError> {
    let expired = invitation.expires;
    if now.0 / 1_000_000 < expired {
        Ok(())
    } else {
        Err(JoinError::Expired { expired })
    }
}

/// The exporter's label as the TLS library wants it.
fn exporter_label() -> &'static str {
    std::str::from_utf8(EXPORTER_LABEL).unwrap_or_default()
}

fn difference(found: &Agreement, expected: &Agreement) -> Option<&'static str> {
    let Agreement {
        id,
        producer,
        consumer,
        stream,
        plan,
        from,
        until,
        made,
        accepts,
        supersedes,
    } = expected;
    let checks = [
        ("id", found.id == *id),
        ("producer", found.producer == *producer),
        ("consumer", found.consumer == *consumer),
        ("stream", found.stream == *stream),
        ("plan", found.plan == *plan),
        ("from", found.from == *from),
        ("until", found.until == *until),
        ("made", found.made == *made),
        ("accepts", found.accepts == *accepts),
        ("supersedes", found.supersedes == *supersedes),
    ];
    checks
        .into_iter()
        .find_map(|(field, same)| (!same).then_some(field))
}
