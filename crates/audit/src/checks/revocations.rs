//! Keys that their organization took back, and what of a log stays its own (`schemas/documents.md`).

use std::collections::BTreeSet;

use countersign_crypto::{Hash, PublicKey};
use countersign_event::documents::{Document as _, KeyRevocation, Role};
use countersign_event::names::{Authority, Origin};
use countersign_event::time::Timestamp;

use super::files::DocumentFile;
use super::keys::{Keys, Organization};
use crate::report::{Check, Collector, Finding, Severity};
use crate::trust::Trust;

/// What revocations say of a checkpoint by a key, the gravest first to last.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Revoked {
    /// Its key was not revoked.
    Not,
    /// It was, and what is here lies within what stays the organization's own.
    Vouched,
    /// It was at this time, and nothing says that the organization signed this.
    Since(Timestamp),
    /// It was at this time, and the organization says that its log had another root at this size.
    Contradicted(Timestamp, u64),
}

/// Reads the revocations among the documents, and those that the auditor brings along.
pub(crate) fn gather(
    documents: &[DocumentFile],
    organizations: &[Organization],
    trust: &Trust,
    found: &mut Collector<'_>,
) -> Vec<KeyRevocation> {
    let of = |authority: &Authority| {
        let mut known = organizations.iter();
        known.find(|organization| organization.authority == *authority)
    };
    // By a key that is or was the organization's, or one that has followed since.
    let is_by = |organization: &Organization, revocation: &KeyRevocation| {
        organization.knows(&revocation.organization) || revocation.descends_from(&organization.key)
    };
    let mut revocations = Vec::new();
    let revoking = documents
        .iter()
        .filter(|document| document.envelope.payload_type() == KeyRevocation::PAYLOAD_TYPE);
    for document in revoking {
        let mut say = |severity, what| {
            found.push(Finding {
                check: Check::Keys,
                severity,
                log: None,
                sequence: None,
                file: Some(document.path.clone()),
                what,
            });
        };
        let revocation = match KeyRevocation::verify(&document.envelope) {
            Ok(revocation) => revocation,
            Err(error) => {
                say(Severity::False, error.to_string());
                continue;
            }
        };
        let authority = &revocation.authority;
        match of(authority) {
            Some(organization) if is_by(organization, &revocation) => revocations.push(revocation),
            Some(_) => say(
                Severity::False,
                format!("a second organization key claims the authority {authority}"),
            ),
            None => say(
                Severity::Missing,
                format!("it revokes a key of {authority}, no key statement of which is here"),
            ),
        }
    }
    // Whoever brings one along has it from the organization: it counts, too, where nothing here is of that organization.
    let brought = trust.revocations().iter().filter(|revocation| {
        of(&revocation.authority).is_none_or(|organization| is_by(organization, revocation))
    });
    revocations.extend(brought.cloned());
    revocations
}

impl Keys {
    /// The revocations of a log key, by the organization of that name.
    fn revoked<'k>(
        &'k self,
        authority: &'k Authority,
        key: &'k PublicKey,
    ) -> impl Iterator<Item = &'k KeyRevocation> {
        self.revocations.iter().filter(move |revocation| {
            revocation.authority == *authority
                && revocation.role == Role::Log
                && revocation.key == *key
        })
    }

    /// The sizes of a log whose roots are needed to judge what its key signed.
    pub(crate) fn watch(&self, origin: &Origin, key: &PublicKey) -> BTreeSet<u64> {
        let authority = origin.authority();
        self.revoked(&authority, key)
            .filter_map(|revocation| Some(revocation.head(origin)?.size))
            .collect()
    }

    /// What revocations say of a log key's checkpoint that is here for the entries below `to`. `root_at` knows the roots of its tree, as far as they are known.
    pub(crate) fn judge_revoked(
        &self,
        origin: &Origin,
        key: &PublicKey,
        to: u64,
        root_at: &dyn Fn(u64) -> Option<Hash>,
    ) -> Revoked {
        let authority = origin.authority();
        let revoked = || self.revoked(&authority, key);
        // Of several the earliest time counts.
        let Some(time) = revoked().map(|revocation| revocation.made).min() else {
            return Revoked::Not;
        };
        let judged = revoked().map(|revocation| {
            let Some(head) = revocation.head(origin) else {
                return Revoked::Since(time);
            };
            match root_at(head.size) {
                Some(root) if root != head.root.0 => Revoked::Contradicted(time, head.size),
                Some(_) if to <= head.size => Revoked::Vouched,
                Some(_) | None => Revoked::Since(time),
            }
        });
        judged.max().unwrap_or(Revoked::Not)
    }
}
