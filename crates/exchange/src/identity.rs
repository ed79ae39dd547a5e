use countersign_crypto::{PublicKey, SigningKey};
use countersign_event::documents::{KeyStatement, Party};
use countersign_event::dsse::Envelope;
use countersign_event::names::Authority;

/// Who this node is: the organization's statement and the role keys that it delegates. The organization key itself is not here: it may be offline.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The newest key statement.
    pub statement: KeyStatement,
    /// Its envelope, as it is shown to others.
    pub envelope: Envelope,
    /// Speaks TLS.
    pub node_key: SigningKey,
    /// Signs checkpoints.
    pub log_key: SigningKey,
    /// Signs agreements, refusals and terminations.
    pub agreement_key: SigningKey,
    /// Signs receipts.
    pub receipt_key: SigningKey,
    /// Cosigns checkpoints of others.
    pub witness_key: SigningKey,
}

impl Identity {
    /// The organization's name in origins.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.statement.authority
    }

    /// The organization key.
    #[must_use]
    pub fn organization(&self) -> &PublicKey {
        &self.statement.organization
    }

    /// The organization as a side of an agreement.
    #[must_use]
    pub fn party(&self) -> Party {
        Party {
            authority: self.statement.authority.clone(),
            name: self.statement.name.clone(),
            organization: self.statement.organization,
        }
    }
}
