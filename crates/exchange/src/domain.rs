//! Domains that authorities claim to be: `schemas/domain-proof.md`. Asking them is crate `transport`'s.

use std::sync::Arc;

use countersign_crypto::PublicKey;
use countersign_event::documents::KeyStatement;
use countersign_event::dsse::Envelope;
use countersign_event::ledger::{DomainResult, LedgerRecord};
use countersign_event::names::Authority;

use crate::registry::DomainProof;
use crate::{Exchange, ExchangeError};

/// Where a domain shows its key statement.
pub const KEY_STATEMENT_PATH: &str = "/.well-known/countersign/key-statement.json";

/// Bytes of a key statement at a domain.
pub const DOMAIN_STATEMENT_BYTES_MAX: usize = 65_536;

/// What a domain answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FoundAtDomain {
    /// No answer, or none that can be trusted: why.
    Nothing(String),
    /// A page.
    Page(Vec<u8>),
    /// No page: this status.
    Status(u16),
}

/// Where the key statement of an authority is looked for; nowhere where it is a fingerprint, which proves itself.
#[must_use]
pub fn key_statement_url(authority: &Authority) -> Option<String> {
    (!authority.is_fingerprint()).then(|| format!("https://{authority}{KEY_STATEMENT_PATH}"))
}

impl Exchange {
    /// Our own key statement, for whoever asks our domain; nothing where our authority is none.
    #[must_use]
    pub fn statement_for_domain(&self) -> Option<Vec<u8>> {
        let identity = self.identity();
        (!identity.authority().is_fingerprint()).then(|| identity.envelope.to_json())
    }

    /// What is known of a partner's claim to a domain.
    #[must_use]
    pub fn domain_proof(&self, partner: &Authority) -> Option<DomainProof> {
        self.registry().domains.get(partner).cloned()
    }

    /// Judges what was found at a partner's domain, and keeps it in the ledger.
    ///
    /// # Errors
    /// [`ExchangeError::Proof`] where the partner is unknown or has no domain, [`ExchangeError::Append`] where it cannot be kept.
    pub async fn note_domain(
        self: &Arc<Self>,
        partner: &Authority,
        found: &FoundAtDomain,
    ) -> Result<DomainProof, ExchangeError> {
        let pinned = {
            let registry = self.registry();
            let known = registry.partners.get(partner);
            known.map(|known| known.statement.organization)
        };
        let pinned = pinned
            .filter(|_| !partner.is_fingerprint())
            .ok_or_else(|| {
                ExchangeError::Proof(format!("`{partner}` is no partner, or no domain"))
            })?;
        let (result, detail, envelope) = match found {
            FoundAtDomain::Nothing(why) => (DomainResult::Unreachable, why.clone(), None),
            FoundAtDomain::Status(status) => {
                let why = format!("it answers with status {status}");
                (DomainResult::Refuted, why, None)
            }
            FoundAtDomain::Page(bytes) => judge(partner, &pinned, bytes),
        };
        let record = LedgerRecord::DomainCheck {
            domain: partner.clone(),
            at: self.clock().now(),
            result,
            detail: detail
                .chars()
                .filter(|c| !c.is_control())
                .take(300)
                .collect(),
            envelope,
        };
        self.record_and_wait(Some(partner.clone()), record).await?;
        let proof = self.domain_proof(partner);
        proof.ok_or_else(|| ExchangeError::Proof("what was found was not kept".to_owned()))
    }
}

fn judge(
    domain: &Authority,
    pinned: &PublicKey,
    bytes: &[u8],
) -> (DomainResult, String, Option<String>) {
    let no = |why: String| (DomainResult::Refuted, why, None);
    if bytes.len() > DOMAIN_STATEMENT_BYTES_MAX {
        return no("what is there is too long for a key statement".to_owned());
    }
    let statement = Envelope::from_json(bytes)
        .map_err(|error| error.to_string())
        .and_then(|envelope| {
            let statement = KeyStatement::verify(&envelope);
            statement
                .map_err(|error| error.to_string())
                .map(|statement| (envelope, statement))
        });
    let (envelope, statement) = match statement {
        Ok(found) => found,
        Err(error) => return no(format!("what is there is no key statement: {error}")),
    };
    let envelope = String::from_utf8(envelope.to_json()).ok();
    if statement.authority != *domain {
        let why = format!(
            "the key statement there is one of `{}`",
            statement.authority
        );
        return (DomainResult::Refuted, why, envelope);
    }
    if !statement.descends_from(pinned) {
        let other = statement.organization.fingerprint();
        let why = format!(
            "the key statement there is of another organization key, {other}, than the one that this name is pinned to, {}",
            pinned.fingerprint()
        );
        return (DomainResult::Refuted, why, envelope);
    }
    let why = format!(
        "key statement {} of the same organization key is there",
        statement.number
    );
    (DomainResult::Proven, why, envelope)
}
