use std::cmp::Reverse;
use std::sync::OnceLock;

use countersign_crypto::{PublicKey, Signature, SigningKey};
use countersign_event::documents::{KeyStatement, Party, Role, RoleKey};
use countersign_event::dsse::Envelope;
use countersign_event::names::Authority;
use countersign_event::time::Timestamp;
use countersign_tlog::Checkpoint;
use countersign_tlog::checkpoint::signature_of;

use crate::clock::Clock;

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
    /// Log keys that `log_key` has followed, as far as they are still here: they sign beside it until their period ends, and stand under what was last
    /// signed before it began.
    pub earlier_log_keys: Vec<SigningKey>,
    /// Signs agreements, refusals and terminations.
    pub agreement_key: SigningKey,
    /// Signs receipts.
    pub receipt_key: SigningKey,
    /// Cosigns checkpoints of others.
    pub witness_key: SigningKey,
    /// Opens the keys of encrypted streams.
    pub encryption_key: SigningKey,
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

    /// The node key that the organization began with, as far back as its statement goes. A publisher on this machine is recognised by it, for ever: rotating the
    /// node key makes nobody publish twice.
    #[must_use]
    pub fn first_node_key(&self) -> PublicKey {
        let stated = self.statement.keys_for(Role::Node);
        let first = stated.min_by_key(|key| key.from);
        first.map_or_else(|| self.node_key.public(), |key| key.key)
    }

    /// What signs checkpoints from now on. A key that was `revoked` signs no more.
    pub(crate) fn signer(&self, revoked: impl Fn(&PublicKey) -> bool) -> LogSigner {
        let earlier = self.earlier_log_keys.iter();
        let before = earlier
            .filter_map(|key| Some((key, self.stated(&key.public())?)))
            .filter(|(key, _)| !revoked(&key.public()))
            .max_by_key(|(_, stated)| stated.from);
        LogSigner {
            key: self.log_key.clone(),
            before: before.map(|(key, stated)| (key.clone(), stated.until)),
        }
    }

    /// Signs again what was signed last when the log's newest entry was of this time: by the key of then, where it is still here.
    pub(crate) fn sign_as_of(&self, checkpoint: &Checkpoint, time: Timestamp) -> HeadSignatures {
        let mut keys: Vec<(&SigningKey, Timestamp)> = std::iter::once(&self.log_key)
            .chain(&self.earlier_log_keys)
            .filter_map(|key| Some((key, self.stated(&key.public())?.from)))
            .collect();
        keys.sort_by_key(|(_, from)| Reverse(*from));
        let then = keys.iter().find(|(_, from)| *from <= time).or(keys.last());
        let key = then.map_or(&self.log_key, |(key, _)| key);
        HeadSignatures {
            key: key.public(),
            signature: signature_of(checkpoint, key),
            before: None,
        }
    }

    fn stated(&self, key: &PublicKey) -> Option<&RoleKey> {
        let mut stated = self.statement.keys_for(Role::Log);
        stated.find(|stated| stated.key == *key)
    }
}

/// The log key, and the one before it while both sign.
#[derive(Clone, Debug)]
pub(crate) struct LogSigner {
    key: SigningKey,
    before: Option<(SigningKey, Option<Timestamp>)>,
}

impl LogSigner {
    /// Signs a checkpoint with the keys in force.
    pub(crate) fn sign(&self, checkpoint: &Checkpoint, clock: &dyn Clock) -> HeadSignatures {
        let before = self.before.as_ref();
        let before = before.filter(|(_, until)| until.is_none_or(|until| clock.now() < until));
        HeadSignatures {
            key: self.key.public(),
            signature: signature_of(checkpoint, &self.key),
            before: before.map(|(key, _)| (key.public(), signature_of(checkpoint, key))),
        }
    }
}

/// Who signed a head of ours, and how.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HeadSignatures {
    /// The log key.
    pub key: PublicKey,
    /// Its signature.
    pub signature: Signature,
    /// The key before, where its period had not ended.
    pub before: Option<(PublicKey, Signature)>,
}

/// Who this node is now, and was. What was handed out stays valid: each rotation adds one, and there are few.
#[derive(Debug)]
pub(crate) struct Identities {
    identity: Identity,
    next: OnceLock<Box<Identities>>,
}

impl Identities {
    pub(crate) fn new(identity: Identity) -> Self {
        Self {
            identity,
            next: OnceLock::new(),
        }
    }

    /// The newest.
    pub(crate) fn now(&self) -> &Identity {
        &self.last().identity
    }

    /// Takes another one up. One at a time: the caller sees to that.
    pub(crate) fn push(&self, identity: Identity) {
        let _ = self.last().next.set(Box::new(Self::new(identity)));
    }

    fn last(&self) -> &Self {
        let mut last = self;
        while let Some(next) = last.next.get() {
            last = next;
        }
        last
    }
}
