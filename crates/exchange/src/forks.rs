//! Logs that have signed two histories, and what is asked to find that out: `schemas/witness.md`, "Forks".

use std::sync::{Arc, PoisonError};

use countersign_crypto::{Hash, PublicKey};
use countersign_event::documents::{RefusalCode, Role};
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::{Authority, Origin};
use countersign_policy::Action;
use countersign_protocol::{AskLog, AskWitnessed, LogState, SignedHead, WitnessedState};
use countersign_store::journal::LogKind;
use countersign_tlog::checkpoint::note_from_signature;
use countersign_tlog::fork_proof::{ForkProof, STATEMENTS_MAX};
use countersign_tlog::{
    Checkpoint, Note, TREE_SIZE_MAX, Vkey, compact_range_at, consistency_proof,
};

use crate::registry::FORK;
use crate::witness::Contradiction;
use crate::{Exchange, ExchangeError, Log, Peer};

/// What a log's answer about itself comes to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Examined {
    /// It goes on from what is held here, or nothing here can tell.
    Continues,
    /// It has signed two histories; the proof is kept.
    Forked,
    /// What it shows is a beginning of what it signed before: an older copy of it is running.
    RolledBack,
    /// It does not show that it goes on from what it signed before.
    Unproven,
}

impl Exchange {
    /// Whether a log has signed two histories, as far as this node knows.
    #[must_use]
    pub fn has_forked(&self, origin: &Origin) -> bool {
        self.registry().forked.contains(origin)
    }

    /// Keeps the proof that a log has signed two histories, and says so in the ledger. Nothing more is read from it or cosigned for it.
    pub(crate) fn note_fork(self: &Arc<Self>, origin: &Origin, found: Contradiction) {
        let news = {
            let registry = self.registry.write();
            let mut registry = registry.unwrap_or_else(PoisonError::into_inner);
            registry.forked.insert(origin.clone())
        };
        if !news {
            return;
        }
        let authority = origin.authority();
        let known = self.registry().partners.contains_key(&authority);
        let statements = self.key_documents(&authority, STATEMENTS_MAX);
        let (evidence, detail) = match found.proof {
            Some(proof) => {
                let proof = proof.with_statements(statements);
                let kept =
                    self.evidence
                        .keep(origin.as_str(), "fork-proof", proof.encode().as_bytes());
                (
                    kept,
                    "it has signed two histories: whoever has the file can check that offline",
                )
            }
            None => {
                let bytes = format!("{}\n{}", found.known, found.came);
                let kept = self.evidence.keep(origin.as_str(), "bin", bytes.as_bytes());
                let detail = "it has signed what is not its history as it is held here; what came does not suffice to prove that to others";
                (kept, detail)
            }
        };
        tracing::error!(%origin, ?evidence, "a log has forked: nothing more is read from it");
        let record = LedgerRecord::Fault {
            code: FORK.to_owned(),
            detail: detail.to_owned(),
            stream: Some(origin.clone()),
            evidence,
        };
        self.record_lazily(known.then_some(authority), record);
        self.access_changed();
    }

    /// Answers what this node knows of a log: of its own to whoever may discover the stream, of others' to their owner.
    ///
    /// # Errors
    /// [`ExchangeError::Refused`], [`ExchangeError::Proof`].
    pub async fn log_state(
        self: &Arc<Self>,
        peer: &Peer,
        ask: &AskLog,
    ) -> Result<LogState, ExchangeError> {
        let authority = self.comparing(peer, &ask.origin)?;
        let parsed: Option<Origin> = ask.origin.parse().ok();
        let of_asker = parsed.filter(|origin| origin.authority() == *authority);
        if let Some(origin) = of_asker.filter(|_| !self.is_own(peer)) {
            return self.state_of_others_log(&origin, ask.size).await;
        }
        let log = self.own_log_for(peer, authority, &ask.origin)?;
        let head = log.head();
        let Some(note) = head.note(log.origin()) else {
            return Err(ExchangeError::Proof(
                "the log has no signed head".to_owned(),
            ));
        };
        let (root, proof) = self.growth(&log, ask.size, head.size)?;
        Ok(LogState {
            note: note.into_bytes(),
            root,
            proof,
            held: head.size,
            witnessed: log
                .witnessed()
                .map(|witnessed| witnessed.note.clone().into_bytes())
                .unwrap_or_default(),
        })
    }

    /// Up to where a log of ours is witnessed, and how that goes together with the tree that the asker holds; to whoever may read it.
    ///
    /// # Errors
    /// As [`Exchange::log_state`].
    pub fn witnessed_state(
        self: &Arc<Self>,
        peer: &Peer,
        ask: &AskWitnessed,
    ) -> Result<WitnessedState, ExchangeError> {
        let authority = self.comparing(peer, &ask.origin)?;
        let log = self.own_log_for(peer, authority, &ask.origin)?;
        let Some(witnessed) = log.witnessed() else {
            return Ok(WitnessedState {
                note: Vec::new(),
                proof: Vec::new(),
            });
        };
        let (small, large) = (ask.size.min(witnessed.size), ask.size.max(witnessed.size));
        let proof = match large <= log.size() {
            true => self.growth(&log, small, large)?.1,
            // Who holds more than there is learns of that when it reads.
            false => Vec::new(),
        };
        Ok(WitnessedState {
            note: witnessed.note.clone().into_bytes(),
            proof,
        })
    }

    /// Who compares logs; applications do not.
    fn comparing<'p>(
        self: &Arc<Self>,
        peer: &'p Peer,
        origin: &str,
    ) -> Result<&'p Authority, ExchangeError> {
        peer.authority().ok_or_else(|| {
            let reason = "only nodes compare logs".to_owned();
            let code = RefusalCode::WrongIdentity;
            self.refuse(peer, "compare", origin, code, reason).into()
        })
    }

    /// A log of ours, for a node that may read it.
    fn own_log_for(
        self: &Arc<Self>,
        peer: &Peer,
        authority: &Authority,
        origin: &str,
    ) -> Result<Arc<Log>, ExchangeError> {
        let agreement = {
            let registry = self.registry();
            let named: Option<Origin> = origin.parse().ok();
            named.and_then(|origin| {
                registry
                    .active_agreement(authority, &origin, self.clock().now())
                    .cloned()
            })
        };
        let log = self.discover(peer, "compare", origin, agreement.as_ref())?;
        // Sizes and hashes are the log: they are for who may read it, as over HTTP.
        let open = self.registry().open_logs.contains(log.origin());
        let request =
            self.policy_request(peer, Action::Read, log.described(), agreement.as_ref(), "");
        if !open && !self.decide(&request).0.allowed {
            let reason = "how far a log has come is told to who may read it".to_owned();
            let code = RefusalCode::NotPermitted;
            return Err(self.refuse(peer, "compare", origin, code, reason).into());
        }
        Ok(log)
    }

    /// The root of the tree of `size`, and the proof from there to that of `to`; zeros and nothing where the tree is not so large.
    fn growth(&self, log: &Log, size: u64, to: u64) -> Result<(Hash, Vec<Hash>), ExchangeError> {
        if size == 0 || size > to {
            return Ok(([0; 32], Vec::new()));
        }
        let nodes = self.reader().nodes(log.number());
        let failed = |error: &dyn std::fmt::Display| ExchangeError::Proof(error.to_string());
        let root = compact_range_at(&nodes, size)
            .map_err(|error| failed(&error))?
            .root();
        let proof = consistency_proof(&nodes, size, to).map_err(|error| failed(&error))?;
        Ok((root, proof))
    }

    async fn state_of_others_log(
        &self,
        origin: &Origin,
        size: u64,
    ) -> Result<LogState, ExchangeError> {
        let copy = self.log(origin).filter(|log| log.kind() == LogKind::Copy);
        let held = copy.as_ref().map_or(0, |copy| copy.size());
        let whole = copy.as_ref().map_or(0, |copy| self.held_whole(copy));
        let of_copy = copy.as_ref().and_then(|copy| self.newest_note(copy));
        let cosigned = self.witness().checkpoints.cosigned(origin.as_str()).await?;
        let cosigned = cosigned.map(|cosigned| (cosigned.latest.size, cosigned.latest.note));
        let newest = of_copy
            .into_iter()
            .chain(cosigned)
            .max_by_key(|(size, _)| *size);
        let (note_size, note) = newest.unwrap_or_default();
        let (root, proof) = match &copy {
            Some(copy) if note_size <= held => self.growth(copy, size, note_size)?,
            Some(copy) if size <= held => (self.growth(copy, size, held)?.0, Vec::new()),
            _ => ([0; 32], Vec::new()),
        };
        Ok(LogState {
            note: note.into_bytes(),
            root,
            proof,
            held: whole,
            witnessed: Vec::new(),
        })
    }

    /// The newest note of its producer that a copy knows.
    fn newest_note(&self, copy: &Log) -> Option<(u64, String)> {
        let head = copy.head().producer?;
        Some((head.size, self.note_held(copy.origin(), &head)?))
    }

    /// A head came that the log's key signed and that contradicts what it signed before: keeps what proves it, as far as the log itself gave it away.
    pub(crate) fn note_contradiction(
        self: &Arc<Self>,
        origin: &Origin,
        came: &SignedHead,
        from_newest: &[Hash],
    ) {
        let copy = self.log(origin).filter(|log| log.kind() == LogKind::Copy);
        let known = copy.and_then(|copy| self.newest_note(&copy));
        let (Some((_, known)), Some(came)) = (known, self.note_of(origin, came)) else {
            return;
        };
        let checkpoint = Note::parse(came.as_bytes());
        let checkpoint = checkpoint
            .ok()
            .and_then(|note| Checkpoint::parse_text(note.text()).ok());
        let found = checkpoint.and_then(|checkpoint| self.against_copy(origin, &checkpoint, &came));
        let found = found.unwrap_or_else(|| Contradiction {
            proof: ForkProof::from_failed_consistency(&known, &came, from_newest, None),
            known,
            came,
        });
        // What is not proven may be asked for; see `examine`.
        if found.proof.is_some() {
            self.note_fork(origin, found);
        }
    }

    /// Compares what was cosigned for a log with the copy of it, once that has come so far.
    pub(crate) fn compare_cosigned(self: &Arc<Self>, origin: &Origin) {
        let held = self.log(origin).map_or(0, |copy| copy.size());
        let Some(cosigned) = self.witness().reached(origin, held) else {
            return;
        };
        let checkpoint = Checkpoint {
            origin: origin.to_string(),
            size: cosigned.size,
            root: cosigned.root,
        };
        if let Some(found) = self.against_copy(origin, &checkpoint, &cosigned.note) {
            if found.proof.is_some() {
                self.note_fork(origin, found);
            } else {
                tracing::error!(%origin, "what was cosigned is not of the history that is held here; what is held does not suffice to prove it yet");
                self.witness().compare_again(origin.clone(), cosigned);
            }
        }
    }

    /// The note of a head, where a key of the log that counts has signed it.
    pub(crate) fn note_of(&self, origin: &Origin, head: &SignedHead) -> Option<String> {
        let vkeys = self.log_vkeys(origin, &head.checkpoint(origin.as_str()));
        note_by(origin, head, vkeys.iter().map(Vkey::key))
    }

    /// The note of a head that was verified when it came, whatever became of the key since, or of the partner.
    pub(crate) fn note_held(&self, origin: &Origin, head: &SignedHead) -> Option<String> {
        let statement = self.statement_of(&origin.authority())?;
        let stated = statement.keys_for(Role::Log);
        note_by(origin, head, stated.map(|stated| &stated.key))
    }

    /// The checkpoint of a note, where a key of the log that counts has signed it.
    pub(crate) fn opened(&self, origin: &Origin, note: &[u8]) -> Option<Checkpoint> {
        let note = Note::parse(note).ok()?;
        let checkpoint = Checkpoint::parse_text(note.text()).ok()?;
        let vkeys = self.log_vkeys(origin, &checkpoint);
        note.verify(&vkeys).is_ok().then_some(checkpoint)
    }

    /// What a log is asked about, where it seems not to go on from what is held here.
    #[must_use]
    pub fn question_about(&self, origin: &Origin) -> AskLog {
        let copy = self.log(origin).filter(|log| log.kind() == LogKind::Copy);
        let size = copy
            .and_then(|copy| self.newest_note(&copy))
            .map_or(0, |(size, _)| size);
        AskLog {
            origin: origin.to_string(),
            size,
        }
    }

    /// Looks at what a log says of itself beside what is held here of it, and keeps what proves a fork.
    pub async fn examine(self: &Arc<Self>, origin: &Origin, state: &LogState) -> Examined {
        let signed = self.opened(origin, &state.note);
        let named =
            |came: &Checkpoint| came.origin == origin.as_str() && came.size <= TREE_SIZE_MAX;
        let Some(came) = signed.filter(named) else {
            return Examined::Unproven;
        };
        let came_note = String::from_utf8_lossy(&state.note).into_owned();
        if let Some(found) = self.against_copy(origin, &came, &came_note) {
            if found.proof.is_none() {
                return Examined::Unproven;
            }
            self.note_fork(origin, found);
            return Examined::Forked;
        }
        let copy = self.log(origin).filter(|log| log.kind() == LogKind::Copy);
        let of_copy = copy.and_then(|copy| self.newest_note(&copy));
        let cosigned = self.witness().checkpoints.cosigned(origin.as_str()).await;
        let cosigned = cosigned.ok().flatten();
        let cosigned = cosigned.map(|cosigned| (cosigned.latest.size, cosigned.latest.note));
        let mut examined = Examined::Continues;
        for (size, known) in of_copy.into_iter().chain(cosigned) {
            let one = examine_one((size, &known), (&came, &came_note), state);
            match one {
                (Examined::Forked, proof @ Some(_)) => {
                    let found = Contradiction {
                        known,
                        came: came_note,
                        proof,
                    };
                    self.note_fork(origin, found);
                    return Examined::Forked;
                }
                (Examined::Continues, _) => {}
                (Examined::Forked, None) => examined = Examined::Unproven,
                (other, _) => examined = other,
            }
        }
        examined
    }
}

/// One note that is known beside the one that came, with what the log says of itself.
fn examine_one(
    (size, known): (u64, &str),
    (came, came_note): (&Checkpoint, &str),
    state: &LogState,
) -> (Examined, Option<ForkProof>) {
    let Ok(checkpoint) = Note::parse(known.as_bytes())
        .map_err(|_| ())
        .and_then(|note| Checkpoint::parse_text(note.text()).map_err(|_| ()))
    else {
        return (Examined::Unproven, None);
    };
    if size == came.size {
        return if checkpoint.root == came.root {
            (Examined::Continues, None)
        } else {
            (
                Examined::Forked,
                ForkProof::same_size(known, came_note).ok(),
            )
        };
    }
    if came.size < size {
        // Our own copy did not contradict it, as far as it reaches.
        return (Examined::RolledBack, None);
    }
    let holds = |root: &Hash| {
        countersign_tlog::verify_consistency(size, root, came.size, &came.root, &state.proof)
            .is_ok()
    };
    if holds(&checkpoint.root) {
        return (Examined::Continues, None);
    }
    if state.root != checkpoint.root && holds(&state.root) {
        let proof = ForkProof::between(known, came_note, state.root, state.proof.clone());
        return (Examined::Forked, proof.ok());
    }
    (Examined::Unproven, None)
}

/// What a checkpoint that came from elsewhere is, beside what this node holds of the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Compared {
    /// It cannot be judged at all.
    Unknown(String),
    /// It can.
    Judged {
        /// The log.
        origin: Origin,
        /// The checkpoint's size.
        size: u64,
        /// What it is.
        verdict: ComparedVerdict,
    },
}

/// The verdict on a checkpoint from elsewhere.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ComparedVerdict {
    /// It is of the history that is held here.
    Consistent,
    /// It is of another history: the log has forked.
    Forked,
    /// It is larger than what is held here: whether it goes on from it cannot be told.
    Beyond,
    /// Nothing is held here of that log, or not enough.
    NothingHeld,
}

impl ComparedVerdict {
    /// The word that `--json` shows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Consistent => "consistent",
            Self::Forked => "forked",
            Self::Beyond => "beyond",
            Self::NothingHeld => "nothing-held",
        }
    }

    /// The same for people.
    #[must_use]
    pub fn detail(self) -> &'static str {
        match self {
            Self::Consistent => "it is of the history that is held here",
            Self::Forked => "the log has signed another history than the one held here",
            Self::Beyond => {
                "it is larger than what is held here; whether it goes on from that cannot be told yet"
            }
            Self::NothingHeld => "nothing is held here of that log to compare it with",
        }
    }
}

impl Exchange {
    /// Compares a signed checkpoint that somebody brought with what this node holds of the log: own, copied or cosigned.
    pub async fn compare_note(self: &Arc<Self>, text: &str) -> Compared {
        let unknown = |why: String| Compared::Unknown(why);
        let note = match Note::parse(text.as_bytes()) {
            Ok(note) => note,
            Err(error) => return unknown(format!("it is no signed checkpoint: {error}")),
        };
        let checkpoint = match Checkpoint::parse_text(note.text()) {
            Ok(checkpoint) if checkpoint.size <= TREE_SIZE_MAX => checkpoint,
            Ok(_) => return unknown("its size is beyond 2^63 - 1".to_owned()),
            Err(error) => return unknown(error.to_string()),
        };
        let Ok(origin) = checkpoint.origin.parse::<Origin>() else {
            return unknown("its origin is not one that a log of Countersign has".to_owned());
        };
        if let Err(error) = note.verify(&self.log_vkeys(&origin, &checkpoint)) {
            return unknown(format!(
                "{error}: only logs of this node and of its partners are compared"
            ));
        }
        let verdict = self.compare_checkpoint(&origin, &checkpoint, text).await;
        Compared::Judged {
            size: checkpoint.size,
            origin,
            verdict,
        }
    }

    async fn compare_checkpoint(
        self: &Arc<Self>,
        origin: &Origin,
        came: &Checkpoint,
        note: &str,
    ) -> ComparedVerdict {
        let held = self.log(origin);
        if let Some(own) = held.as_ref().filter(|log| log.kind() != LogKind::Copy) {
            let head = own.head();
            if came.size > head.size {
                return ComparedVerdict::Beyond;
            }
            return match self.growth(own, came.size, head.size) {
                Ok((root, _)) if root == came.root || came.size == 0 => ComparedVerdict::Consistent,
                Ok(_) => {
                    let state = LogState {
                        note: note.as_bytes().to_vec(),
                        root: [0; 32],
                        proof: Vec::new(),
                        held: 0,
                        witnessed: Vec::new(),
                    };
                    self.note_own_fork(own, came, &state);
                    ComparedVerdict::Forked
                }
                Err(_) => ComparedVerdict::NothingHeld,
            };
        }
        let state = LogState {
            note: note.as_bytes().to_vec(),
            root: [0; 32],
            proof: Vec::new(),
            held: 0,
            witnessed: Vec::new(),
        };
        let examined = self.examine(origin, &state).await;
        if self.has_forked(origin) {
            return ComparedVerdict::Forked;
        }
        let copied = held.map_or(0, |copy| copy.size());
        let cosigned = self.witness().checkpoints.cosigned(origin.as_str()).await;
        let cosigned = cosigned
            .ok()
            .flatten()
            .map_or(0, |cosigned| cosigned.latest.size);
        match examined {
            _ if came.size <= copied || came.size == cosigned => ComparedVerdict::Consistent,
            _ if copied == 0 && cosigned == 0 => ComparedVerdict::NothingHeld,
            Examined::RolledBack => ComparedVerdict::NothingHeld,
            _ => ComparedVerdict::Beyond,
        }
    }

    /// What this node has cosigned last of each log.
    ///
    /// # Errors
    /// [`ExchangeError::Checkpoints`].
    pub async fn cosigned_here(
        &self,
    ) -> Result<Vec<(String, countersign_store::checkpoints::Cosigned)>, ExchangeError> {
        Ok(self.witness().checkpoints.all_cosigned().await?)
    }
}

/// The note of a head under the first of these keys that has signed it.
fn note_by<'k>(
    origin: &Origin,
    head: &SignedHead,
    keys: impl Iterator<Item = &'k PublicKey>,
) -> Option<String> {
    let checkpoint = head.checkpoint(origin.as_str());
    let (key, signature) = head.signed_by(&checkpoint, keys)?;
    Some(note_from_signature(&checkpoint, key, signature))
}
