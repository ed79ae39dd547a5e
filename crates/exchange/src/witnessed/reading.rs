//! Up to where partners' streams are witnessed, for whoever reads them with that assurance.

use std::sync::Arc;

use countersign_crypto::PublicKey;
use countersign_event::documents::Role;
use countersign_event::names::{Authority, Origin};
use countersign_store::journal::LogKind;
use countersign_tlog::{Algorithm, Checkpoint, Note, Vkey};

use super::WitnessedHead;
use crate::Exchange;
use crate::witness::witness_name;

impl Exchange {
    /// Copies of a partner's streams of which somebody here waits for more to be witnessed.
    #[must_use]
    pub fn awaited_witnessed(&self, producer: &Authority) -> Vec<Origin> {
        let logs = self.logs().into_iter();
        let awaited = logs.filter(|log| {
            let newest = log.witnessed().map_or(0, |witnessed| witnessed.size);
            log.kind() == LogKind::Copy
                && log.awaits_witnesses()
                && newest < log.size()
                && log.origin().authority() == *producer
        });
        awaited.map(|log| log.origin().clone()).collect()
    }

    /// Takes the newest cosigned note that a producer shows for its stream. It counts as far as the copy reaches, and where enough witnesses whose word counts
    /// here have signed it: those that partners list, and those of the settings; the producer itself and this node are none.
    pub fn take_witnessed(self: &Arc<Self>, origin: &Origin, note: &[u8]) {
        let Some(copy) = self.log(origin).filter(|log| log.kind() == LogKind::Copy) else {
            return;
        };
        let Ok(parsed) = Note::parse(note) else {
            return;
        };
        let Ok(checkpoint) = Checkpoint::parse_text(parsed.text()) else {
            return;
        };
        let named = checkpoint.origin == origin.as_str() && checkpoint.size <= copy.size();
        if !named || parsed.verify(&self.log_vkeys(origin, &checkpoint)).is_err() {
            return;
        }
        let witnesses = self.counted_witnesses(&origin.authority());
        // One false line in the name of a witness that we know spoils the note.
        let Ok(signers) = parsed.verify(&witnesses) else {
            return;
        };
        let mut names: Vec<String> = signers.iter().map(|vkey| vkey.name().to_owned()).collect();
        names.sort();
        names.dedup();
        if names.len() < self.witness().settings.quorum.max(1) {
            return;
        }
        let text = String::from_utf8_lossy(note).into_owned();
        if let Some(found) = self.against_copy(origin, &checkpoint, &text) {
            self.note_fork(origin, found);
            return;
        }
        copy.publish_witnessed(WitnessedHead {
            size: checkpoint.size,
            root: checkpoint.root,
            note: text,
            witnesses: names,
        });
    }

    fn counted_witnesses(&self, producer: &Authority) -> Vec<Vkey> {
        let own = self.identity().witness_key.public();
        let now = self.clock().now();
        let registry = self.registry();
        let partners = registry.partners.values().filter(|partner| {
            partner.statement.authority != *producer && partner.revoked.is_none()
        });
        let listed = partners.flat_map(|partner| {
            let name = witness_name(&partner.statement.authority);
            let keys = partner.statement.keys_for(Role::Witness);
            let revoked = |key: &PublicKey| {
                let authority = &partner.statement.authority;
                registry.is_revoked(authority, Role::Witness, key)
            };
            let in_force =
                keys.filter(|key| key.until.is_none_or(|until| now < until) && !revoked(&key.key));
            let vkeys =
                in_force.filter_map(|key| Vkey::new(&name, Algorithm::CosignatureV1, key.key).ok());
            vkeys.collect::<Vec<_>>()
        });
        let trusted = self.witness().settings.trusted.iter().cloned();
        listed
            .chain(trusted)
            .filter(|vkey| *vkey.key() != own)
            .collect()
    }
}
