//! The life of keys: what this node's own statement, and what partners' newer statements and revocations change while everything runs.
//!
//! ```text
//! rotate   both log keys sign ─► statement in every log and the ledger ─► partners told ─► the newer keys are used
//! revoke   rotate ─► the revoked key signs no more ─► heads named, signed by the organization key ─► ledger ─► partners told
//! ```

use std::collections::HashSet;
use std::sync::Arc;

use countersign_crypto::{PublicKey, sha256};
use countersign_event::documents::{
    Digest, Document as _, KeyRevocation, KeyStatement, LogKeys, REVOKED_HEADS_MAX, RefusalCode,
    RevokedHead, Role,
};
use countersign_event::dsse::Envelope;
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::{Authority, Origin};
use countersign_event::time::Timestamp;
use countersign_store::journal::LogKind;
use countersign_tlog::{Checkpoint, Note, NoteSignature, Vkey};

use crate::access::{PeerError, STATEMENT_BYTES_MAX};
use crate::pipeline::append::AppendError;
use crate::pipeline::ledger::seal_control_entry;
use crate::refusal::Refused;
use crate::{Exchange, ExchangeError, Identity, Peer};

const KEY_STATEMENT: &str = "dev.countersign.control.key-statement.v1";

/// The code of a fault that is a checkpoint under a revoked key.
pub(crate) const REVOKED_KEY: &str = "revoked-key";

/// Revocations of one organization that are held: each of the 64 keys of a statement twice. One more is refused.
const REVOCATIONS_MAX: usize = 128;

/// A key revocation that is held, of our own organization or of a partner.
#[derive(Clone, Debug)]
pub struct HeldRevocation {
    /// What it says.
    pub revocation: KeyRevocation,
    /// Its envelope.
    pub envelope: Envelope,
}

impl Exchange {
    /// The newest statement of an organization: our own, or a partner's.
    pub(crate) fn statement_of(&self, authority: &Authority) -> Option<KeyStatement> {
        if authority == self.identity().authority() {
            return Some(self.identity().statement.clone());
        }
        let registry = self.registry();
        let partner = registry.partners.get(authority);
        partner.map(|partner| partner.statement.clone())
    }

    /// The statement by which a peer's documents are judged now: the newest one known, also where the session began under an older one, without the keys that
    /// were revoked.
    #[must_use]
    pub fn statement_in_force(&self, statement: &KeyStatement) -> KeyStatement {
        let registry = self.registry();
        let known = registry.partners.get(&statement.authority);
        let newest = known.filter(|known| known.statement.number >= statement.number);
        let mut newest = newest.map_or_else(|| statement.clone(), |known| known.statement.clone());
        let authority = newest.authority.clone();
        newest
            .keys
            .retain(|key| !registry.is_revoked(&authority, key.role, &key.key));
        newest
    }

    /// The same without the keys whose period is over: for what is signed now.
    pub(crate) fn statement_now(&self, statement: &KeyStatement) -> KeyStatement {
        let now = self.clock().now();
        let mut newest = self.statement_in_force(statement);
        newest
            .keys
            .retain(|key| key.until.is_none_or(|until| now < until));
        newest
    }

    /// The keys that count for the heads of a log, as of now; none where its organization is neither our own nor a partner that has access.
    #[must_use]
    pub fn log_keys(&self, origin: &Origin) -> LogKeys {
        self.log_keys_as_of(origin, self.clock().now())
    }

    /// All keys of a log of ours, also those whose period is over.
    pub(crate) fn own_keys_ever(&self, origin: &Origin) -> LogKeys {
        self.log_keys_as_of(origin, Timestamp::default())
    }

    fn log_keys_as_of(&self, origin: &Origin, now: Timestamp) -> LogKeys {
        let authority = origin.authority();
        let registry = self.registry();
        let revocations = registry.revocations.get(&authority);
        let revocations = revocations.into_iter().flatten();
        let revocations = revocations.map(|held| &held.revocation);
        let statement = if authority == *self.identity().authority() {
            Some(&self.identity().statement)
        } else {
            let partner = registry.partners.get(&authority);
            let partner = partner.filter(|partner| partner.revoked.is_none());
            partner.map(|partner| &partner.statement)
        };
        statement.map_or_else(LogKeys::default, |statement| {
            LogKeys::of(origin, statement, revocations, now)
        })
    }

    /// Whether a session's node key has been revoked since it began, or is delegated no more.
    #[must_use]
    pub fn is_over(&self, peer: &Peer) -> bool {
        let Peer::Organization {
            statement, node, ..
        } = peer
        else {
            return false;
        };
        let registry = self.registry();
        let authority = &statement.authority;
        let known = registry
            .partners
            .get(authority)
            .map(|known| &known.statement);
        let newest = known.filter(|known| known.number >= statement.number);
        let mut delegated = newest.unwrap_or(statement).keys_for(Role::Node);
        !delegated.any(|key| key.key == *node) || registry.is_revoked(authority, Role::Node, node)
    }

    /// Other keys are used from now on, and a newer statement shown. One change at a time. What was signed before stays.
    pub async fn use_identity(self: &Arc<Self>, identity: Identity) {
        let signer = {
            let registry = self.registry();
            let authority = identity.authority();
            identity.signer(|key| registry.is_revoked(authority, Role::Log, key))
        };
        // Before anybody is shown the statement: the newer key signs beside the older one.
        self.writer().rekey(signer).await;
        self.push_identity(identity);
        self.access_changed();
    }

    /// The earlier log keys sign no more, whatever their period.
    pub async fn retire_earlier_log_keys(&self) {
        let signer = self.identity().signer(|_| true);
        self.writer().rekey(signer).await;
    }

    /// Writes the statement in force into every log of ours that takes entries, and then into the ledger: where that is missing at the next start, all of it is
    /// done again.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn state_keys(self: &Arc<Self>, in_logs: bool) -> Result<(), ExchangeError> {
        let envelope = self.identity().envelope.to_json();
        let envelope = String::from_utf8(envelope).unwrap_or_default();
        let mut written = Vec::new();
        for log in self.logs() {
            if !in_logs || log.kind() == LogKind::Copy || log.is_frozen() {
                continue;
            }
            let (done, receiver) = crate::pipeline::append::answer();
            let sealed = self.with_entropy(|entropy| {
                seal_control_entry(log.origin(), KEY_STATEMENT, &envelope, entropy)
            })?;
            self.writer()
                .append(Arc::clone(&log), sealed, None, done)
                .await;
            written.push(receiver);
        }
        for receiver in written {
            match receiver.await.unwrap_or_else(|_| Err(AppendError::ended())) {
                // Frozen meanwhile.
                Ok(_) | Err(AppendError::Frozen) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.record_and_wait(None, LedgerRecord::KeyStatement { envelope })
            .await
    }

    /// The newest heads of our logs, streams first: what a revocation of the log key names. At most [`REVOKED_HEADS_MAX`]; the number of logs that found no room
    /// is given too.
    pub async fn heads_to_name(&self) -> (Vec<RevokedHead>, usize) {
        // Whatever was on its way is under a checkpoint then.
        self.writer().flush().await;
        let mut logs = self.logs();
        logs.retain(|log| log.kind() != LogKind::Copy);
        logs.sort_by_key(|log| !log.is_own_stream());
        let left_out = logs.len().saturating_sub(REVOKED_HEADS_MAX);
        let named = logs.iter().take(REVOKED_HEADS_MAX).map(|log| {
            let head = log.head();
            let root = match head.size {
                0 => sha256(&[]),
                _ => head.root,
            };
            RevokedHead {
                origin: log.origin().clone(),
                size: head.size,
                root: Digest(root),
            }
        });
        (named.collect(), left_out)
    }

    /// Takes a revocation by our own organization key into the ledger; from then on the key is used for nothing, and partners are told at each session.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn hold_own_revocation(
        self: &Arc<Self>,
        envelope: &Envelope,
    ) -> Result<(), ExchangeError> {
        let envelope = String::from_utf8(envelope.to_json()).unwrap_or_default();
        self.record_and_wait(None, LedgerRecord::KeyRevocation { envelope })
            .await
    }

    /// Our statement, unless it is the first one, which every `Hello` had; and what we revoked.
    pub(crate) fn key_notices(&self) -> Vec<Envelope> {
        let identity = self.identity();
        let news = (identity.statement.number > 1).then(|| identity.envelope.clone());
        let registry = self.registry();
        let revoked = registry.revocations.get(identity.authority());
        let revoked = revoked.into_iter().flatten();
        let revoked = revoked.map(|held| held.envelope.clone());
        news.into_iter().chain(revoked).collect()
    }

    /// Every key statement and revocation that is held of an organization, as JSON; at most `most` of them, the newest.
    pub(crate) fn key_documents(&self, authority: &Authority, most: usize) -> Vec<String> {
        let own = self.identity();
        let newest = (authority == own.authority()).then(|| own.envelope.clone());
        let registry = self.registry();
        let stated = registry.statements_of(authority).iter();
        let revoked = registry.revocations.get(authority).into_iter().flatten();
        let revoked = revoked.map(|held| held.envelope.clone());
        let all = stated.cloned().chain(newest).chain(revoked);
        let text = |envelope: Envelope| String::from_utf8(envelope.to_json()).ok();
        let mut all: Vec<String> = all.filter_map(text).collect();
        let mut seen = HashSet::new();
        all.retain(|one| seen.insert(one.clone()));
        all.split_off(all.len().saturating_sub(most))
    }

    /// A partner tells of its newer key statement.
    pub(crate) async fn take_key_statement(
        self: &Arc<Self>,
        peer: &Peer,
        envelope: &Envelope,
    ) -> Result<(), ExchangeError> {
        let shown = KeyStatement::verify(envelope).ok();
        let shown = shown.filter(|shown| Some(&shown.authority) == peer.authority());
        let Some(shown) = shown else {
            return Err(self.bad_notice(peer, "not a key statement of its sender"));
        };
        let Some(known) = self.partner_statement(&shown.authority) else {
            return Err(self.bad_notice(peer, "the sender is no partner"));
        };
        if known.number > shown.number {
            // Overtaken on the way: the newer one is held.
            return Ok(());
        }
        if envelope.payload_bytes() > STATEMENT_BYTES_MAX {
            return Err(self.bad_notice(peer, "the key statement is too large"));
        }
        if let Err(error @ PeerError::Statements { .. }) = self.check_pinned(&shown) {
            return Err(self.bad_notice(peer, &error.to_string()));
        }
        if self.check_pinned(&shown).is_err() {
            return Err(self.bad_notice(
                peer,
                "the sender is known here under another organization key, or the number of the statement under other words",
            ));
        }
        if known.number < shown.number {
            let text = String::from_utf8(envelope.to_json()).unwrap_or_default();
            let record = LedgerRecord::KeyStatement { envelope: text };
            self.record_and_wait(Some(shown.authority), record).await?;
        }
        Ok(())
    }

    /// A partner tells that it has revoked a key.
    pub(crate) async fn take_key_revocation(
        self: &Arc<Self>,
        peer: &Peer,
        envelope: &Envelope,
    ) -> Result<(), ExchangeError> {
        let shown = KeyRevocation::verify(envelope).ok();
        let shown = shown.filter(|shown| Some(&shown.authority) == peer.authority());
        let Some(shown) = shown else {
            return Err(self.bad_notice(peer, "not a key revocation of its sender"));
        };
        let Some(known) = self.partner_statement(&shown.authority) else {
            return Err(self.bad_notice(peer, "the sender is no partner"));
        };
        // By the key known here, one that it gave its place to, or one that had the place before.
        let line =
            known.descends_from(&shown.organization) || shown.descends_from(&known.organization);
        if !line {
            let why = "the key revocation is signed by another organization key than the sender's";
            return Err(self.bad_notice(peer, why));
        }
        let (is_held, held) = {
            let registry = self.registry();
            let held = registry.revocations.get(&shown.authority);
            let digest = envelope.payload_digest();
            let mut all = held.into_iter().flatten();
            let is_held = all.any(|held| held.envelope.payload_digest() == digest);
            (is_held, held.map_or(0, Vec::len))
        };
        if is_held {
            return Ok(());
        }
        if held >= REVOCATIONS_MAX {
            return Err(self.bad_notice(peer, "more key revocations than an organization has keys"));
        }
        let text = String::from_utf8(envelope.to_json()).unwrap_or_default();
        let record = LedgerRecord::KeyRevocation { envelope: text };
        tracing::warn!(partner = %shown.authority, role = %shown.role, key = %shown.key.fingerprint(), reason = %tidy(&shown.reason), "a partner has revoked a key");
        self.record_and_wait(Some(shown.authority), record).await
    }

    fn partner_statement(&self, authority: &Authority) -> Option<KeyStatement> {
        let registry = self.registry();
        let partner = registry.partners.get(authority);
        partner.map(|partner| partner.statement.clone())
    }

    fn bad_notice(self: &Arc<Self>, peer: &Peer, why: &str) -> ExchangeError {
        self.refuse(peer, "notice", "", RefusalCode::Malformed, why.to_owned())
            .into()
    }

    /// Where a revoked key signed a checkpoint that was shown for cosigning: keeps the first of its log, and says so in the ledger. Gives what the sender is told.
    pub(crate) fn note_revoked(
        self: &Arc<Self>,
        origin: &Origin,
        checkpoint: &Checkpoint,
        note: &Note,
    ) -> Option<String> {
        let keys = self.log_keys(origin);
        let vkey = |key: &PublicKey| {
            let log = countersign_tlog::Algorithm::Ed25519;
            Vkey::new(origin.as_str(), log, *key).ok()
        };
        let revoked: Vec<Vkey> = keys.revoked().filter_map(vkey).collect();
        let signers = note.verify(&revoked).ok()?;
        let signer = signers.first()?.key().fingerprint();
        let detail = format!(
            "a checkpoint of {} entries is signed by {signer}, which its organization has revoked: it is not the head that the revocation names",
            checkpoint.size
        );
        if self.witness().is_first_revoked(origin) {
            let lines = note.signatures().iter();
            let line = lines.filter(|line| revoked.iter().any(|vkey| line.names(vkey)));
            let line: String = line.map(NoteSignature::encode).collect();
            let text = format!("{}\n{line}", note.text());
            self.keep_revoked(origin, &detail, text.as_bytes());
        }
        Some(detail)
    }

    /// Keeps what a revoked key has signed, and says so in the partner's ledger log.
    pub(crate) fn keep_revoked(self: &Arc<Self>, origin: &Origin, detail: &str, bytes: &[u8]) {
        let evidence = self.evidence.keep(origin.as_str(), "bin", bytes);
        tracing::error!(%origin, detail, ?evidence, "a head is signed by a revoked key");
        let record = LedgerRecord::Fault {
            code: REVOKED_KEY.to_owned(),
            detail: detail.to_owned(),
            stream: Some(origin.clone()),
            evidence,
        };
        self.record_lazily(Some(origin.authority()), record);
    }

    /// The signed no of a reader that is shown a head under a revoked key; in the partner's ledger log, too.
    pub(crate) fn refuse_head(self: &Arc<Self>, origin: &Origin, reason: String) -> Refused {
        let authority = origin.authority();
        let refusal = countersign_event::documents::Refusal {
            asked: "read".to_owned(),
            principal: Some(authority.clone()),
            about: origin.to_string(),
            code: RefusalCode::Malformed,
            reason,
            policies: Vec::new(),
            advice: Vec::new(),
            position: None,
            made: self.clock().now(),
        };
        let refused = Refused::sign(refusal, &self.identity().agreement_key);
        let envelope = String::from_utf8(refused.envelope.to_json()).unwrap_or_default();
        self.record_lazily(Some(authority), LedgerRecord::Refusal { envelope });
        refused
    }

    /// Whether a receipt of ours is signed by a key that we have revoked since: nobody accepts it any more.
    pub(crate) fn is_void(&self, receipt: &Envelope) -> bool {
        let own = self.identity().authority();
        let registry = self.registry();
        let revoked = registry.revocations.get(own).into_iter().flatten();
        let mut revoked = revoked.filter(|held| held.revocation.role == Role::Receipt);
        revoked.any(|held| {
            receipt
                .open(
                    countersign_event::documents::Receipt::PAYLOAD_TYPE,
                    &held.revocation.key,
                )
                .is_ok()
        })
    }

    fn push_identity(&self, identity: Identity) {
        self.identities().push(identity);
    }

    /// All revocations that are held of an organization.
    #[must_use]
    pub fn revocations_of(&self, authority: &Authority) -> Vec<HeldRevocation> {
        let registry = self.registry();
        registry
            .revocations
            .get(authority)
            .cloned()
            .unwrap_or_default()
    }
}

/// Foreign words as one line of a trace.
fn tidy(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}
