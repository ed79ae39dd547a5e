//! Witnessing others: what `schemas/witness.md` says of `add-checkpoint`, over whatever door it came.
//!
//! ```text
//! body ── parse, origin, signature ──► Candidate ── compare with what was cosigned, with the copy ──► cosign ── store, synced ──► answer
//! ```

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use countersign_crypto::{Hash, PublicKey, SigningKey, sha256};
use countersign_event::documents::Standing;
use countersign_event::names::{Authority, Origin};
use countersign_store::checkpoints::{
    Checkpoints, CheckpointsError, Cosigned, KeptNote, Turn, Why,
};
use countersign_store::journal::LogKind;
use countersign_tlog::add_checkpoint::AddCheckpoint;
use countersign_tlog::fork_proof::ForkProof;
use countersign_tlog::{
    Algorithm, Checkpoint, Note, TREE_SIZE_MAX, Vkey, compact_range_at, cosignature_v1,
    verify_consistency,
};

use crate::{Exchange, ExchangeError, OutsideWitness};

/// The largest body taken: hundreds of times what a log of ours sends.
pub const ADD_CHECKPOINT_BODY_MAX: usize = 65_536;

/// Bodies in one message between nodes.
pub const ADD_CHECKPOINTS_MAX: usize = 64;

/// The same checkpoint is answered with the same line for so many seconds: asking again and again costs no sync.
const COSIGNED_AGAIN_AFTER: u64 = 60;

/// Logs of one organization that are remembered.
const LOGS_PER_AUTHORITY_MAX: u64 = 10_000;

/// How a node witnesses, and is witnessed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WitnessSettings {
    /// Whether it cosigns for others.
    pub serves: bool,
    /// A name of its own choice, under which it cosigns with a key that no statement lists.
    pub name: Option<String>,
    /// Logs that are witnessed besides those of partners.
    pub logs: Vec<Vkey>,
    /// How many witnesses make a checkpoint witnessed; 0 counts as 1.
    pub quorum: usize,
    /// Witnesses of others' streams whose word counts, besides those that partners list.
    pub trusted: Vec<Vkey>,
    /// Witnesses of our streams that are no partners, each with a name of its own.
    pub outside: Vec<OutsideWitness>,
    /// Whether these are shown ledger logs too, whose names are those of the partners.
    pub outside_ledgers: bool,
}

impl Default for WitnessSettings {
    fn default() -> Self {
        Self {
            serves: true,
            name: None,
            logs: Vec::new(),
            quorum: 1,
            trusted: Vec::new(),
            outside: Vec::new(),
            outside_ledgers: false,
        }
    }
}

/// How a node witnesses, and what it has cosigned.
#[derive(Debug)]
pub(crate) struct Witness {
    pub(crate) checkpoints: Checkpoints,
    pub(crate) settings: WitnessSettings,
    /// What was cosigned beyond the copy held of a log: compared once the copy has come so far.
    ahead: Mutex<HashMap<Origin, KeptNote>>,
    /// Logs of which a checkpoint under a revoked key was kept and told of.
    revoked_shown: Mutex<HashSet<Origin>>,
}

impl Witness {
    pub(crate) async fn new(
        checkpoints: Checkpoints,
        settings: WitnessSettings,
    ) -> Result<Self, CheckpointsError> {
        let cosigned = checkpoints.all_cosigned().await?.into_iter();
        let ahead = cosigned.filter_map(|(origin, cosigned)| {
            Some((origin.parse::<Origin>().ok()?, cosigned.latest))
        });
        Ok(Self {
            ahead: Mutex::new(ahead.collect()),
            revoked_shown: Mutex::default(),
            checkpoints,
            settings,
        })
    }

    /// Whether this is the first checkpoint of the log under a revoked key since the start.
    pub(crate) fn is_first_revoked(&self, origin: &Origin) -> bool {
        let shown = self.revoked_shown.lock();
        let mut shown = shown.unwrap_or_else(PoisonError::into_inner);
        shown.insert(origin.clone())
    }

    /// To be compared once more, when the copy holds more.
    pub(crate) fn compare_again(&self, origin: Origin, note: KeptNote) {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        ahead.entry(origin).or_insert(note);
    }

    /// What was cosigned for a log and is still to be compared with its copy, where that holds `held` entries.
    pub(crate) fn reached(&self, origin: &Origin, held: u64) -> Option<KeptNote> {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        if ahead.get(origin)?.size > held {
            return None;
        }
        ahead.remove(origin)
    }
}

/// The name under which an organization cosigns, where it has chosen none.
#[must_use]
pub fn witness_name(authority: &Authority) -> String {
    format!("{authority}/witness")
}

/// What a witness says to a checkpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum WitnessAnswer {
    /// Cosigned: the line. What was cosigned is on the disk.
    Cosigned(String),
    /// Malformed.
    Malformed(String),
    /// Not signed by a trusted key of the log, which is one of the settings.
    NotSigned(String),
    /// The log is not witnessed here, or is a partner's, whose key has not signed this.
    UnknownLog(String),
    /// It does not begin where we stand: our size.
    Stale(u64),
    /// It does not continue what was cosigned.
    Contradicts(String),
    /// Not now.
    Unavailable(String),
}

impl WitnessAnswer {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Cosigned(_) => 200,
            Self::Malformed(_) => 400,
            Self::NotSigned(_) => 403,
            Self::UnknownLog(_) => 404,
            Self::Stale(_) => 409,
            Self::Contradicts(_) => 422,
            Self::Unavailable(_) => 503,
        }
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> String {
        match self {
            Self::Cosigned(line) => line.clone(),
            Self::Stale(size) => format!("{size}\n"),
            Self::Malformed(why)
            | Self::NotSigned(why)
            | Self::UnknownLog(why)
            | Self::Contradicts(why)
            | Self::Unavailable(why) => format!("{why}\n"),
        }
    }
}

/// A checkpoint that its log's key has signed, and the proof that came with it.
struct Candidate {
    origin: Origin,
    checkpoint: Checkpoint,
    old: u64,
    proof: Vec<Hash>,
    /// The log's lines alone.
    note: String,
    text: String,
}

/// Two histories of one log.
pub(crate) struct Contradiction {
    /// The note that was known.
    pub(crate) known: String,
    /// The note that came.
    pub(crate) came: String,
    /// What proves it to others; absent where what came does not suffice.
    pub(crate) proof: Option<ForkProof>,
}

impl Exchange {
    /// The verifier of our cosignatures.
    #[must_use]
    pub fn witness_vkey(&self) -> Option<Vkey> {
        let (name, key) = self.witness_signer();
        Vkey::new(&name, Algorithm::CosignatureV1, key.public()).ok()
    }

    /// The name and key under which this node cosigns: the organization's witness key. Under a chosen name another key cosigns, since the signed bytes do not
    /// hold the name.
    fn witness_signer(&self) -> (String, SigningKey) {
        let identity = self.identity();
        match &self.witness().settings.name {
            Some(name) => {
                let about = format!("countersign witness name {name}");
                let seed = identity.witness_key.derive(&about);
                (name.clone(), SigningKey::from_seed(&seed))
            }
            None => (
                witness_name(identity.authority()),
                identity.witness_key.clone(),
            ),
        }
    }

    /// Answers `add-checkpoint` requests, at most [`ADD_CHECKPOINTS_MAX`]. When it returns, what was cosigned is on the disk.
    pub async fn add_checkpoints(self: &Arc<Self>, bodies: &[&[u8]]) -> Vec<WitnessAnswer> {
        if let Some(why) = self.witnesses_not() {
            return vec![WitnessAnswer::UnknownLog(why); bodies.len()];
        }
        let candidates: Vec<Result<Candidate, WitnessAnswer>> =
            bodies.iter().map(|body| self.candidate(body)).collect();
        if candidates.iter().all(Result::is_err) {
            return candidates.into_iter().filter_map(Result::err).collect();
        }
        match self.cosign_all(&candidates).await {
            Ok(answers) => answers,
            Err(error) => {
                tracing::error!(%error, "checkpoints could not be cosigned");
                let refused = |candidate: Result<Candidate, WitnessAnswer>| match candidate {
                    Err(answer) => answer,
                    Ok(_) => WitnessAnswer::Unavailable(
                        "what was cosigned could not be stored; try again later".to_owned(),
                    ),
                };
                candidates.into_iter().map(refused).collect()
            }
        }
    }

    fn witnesses_not(&self) -> Option<String> {
        (!self.witness().settings.serves).then(|| "this node does not witness".to_owned())
    }

    /// One transaction for all: compared, stored, synced, and only then answered.
    async fn cosign_all(
        self: &Arc<Self>,
        candidates: &[Result<Candidate, WitnessAnswer>],
    ) -> Result<Vec<WitnessAnswer>, CheckpointsError> {
        let witness = self.witness();
        let (name, key) = self.witness_signer();
        let now = self.clock().now().0 / 1_000_000;
        let mut answers = Vec::with_capacity(candidates.len());
        let mut contradictions = Vec::new();
        let mut stored = false;
        let mut turn = witness.checkpoints.turn().await?;
        for candidate in candidates {
            let candidate = match candidate {
                Ok(candidate) => candidate,
                Err(answer) => {
                    answers.push(answer.clone());
                    continue;
                }
            };
            let answer = match self.judge_checkpoint(&mut turn, candidate, now).await? {
                Judged::No(answer) => answer,
                Judged::Contradiction(found) => {
                    let note = KeptNote {
                        size: candidate.checkpoint.size,
                        root: candidate.checkpoint.root,
                        note: candidate.note.clone(),
                    };
                    let origin = candidate.origin.as_str();
                    turn.keep(origin, &note, Why::REFUSED, now).await?;
                    stored = true;
                    contradictions.push((candidate.origin.clone(), found));
                    WitnessAnswer::Contradicts(
                        "this log has signed another history before; both are kept".to_owned(),
                    )
                }
                Judged::Continues { last } => {
                    // Never earlier than what was stated before, whatever the clock.
                    let at = now
                        .max(last.unwrap_or(0))
                        .min(cosignature_v1::TIME_SECONDS_MAX);
                    let line = cosignature_v1::sign(&candidate.text, &name, &key, at);
                    // INVARIANT: the name was checked when the settings were read.
                    let line = line.map(|line| line.encode()).unwrap_or_default();
                    let latest = KeptNote {
                        size: candidate.checkpoint.size,
                        root: candidate.checkpoint.root,
                        note: candidate.note.clone(),
                    };
                    let origin = candidate.origin.as_str();
                    let agreed = self.reads(&candidate.origin);
                    if agreed {
                        turn.keep(origin, &latest, Why::HOURLY, at).await?;
                    }
                    let cosigned = Cosigned {
                        latest,
                        line: line.clone(),
                        at,
                    };
                    turn.store(origin, &cosigned).await?;
                    stored = true;
                    if agreed {
                        // Before the commit: compared too early it is compared all the same.
                        let mut ahead =
                            witness.ahead.lock().unwrap_or_else(PoisonError::into_inner);
                        ahead.insert(candidate.origin.clone(), cosigned.latest);
                    }
                    WitnessAnswer::Cosigned(line)
                }
            };
            answers.push(answer);
        }
        if stored {
            turn.commit().await?;
        } else {
            turn.give_up().await?;
        }
        for (origin, found) in contradictions {
            self.note_fork(&origin, found);
        }
        Ok(answers)
    }

    /// Whether the candidate continues what was cosigned, and what is held. The turn is ours until it is stored.
    async fn judge_checkpoint(
        &self,
        turn: &mut Turn<'_>,
        candidate: &Candidate,
        now: u64,
    ) -> Result<Judged, CheckpointsError> {
        let (origin, new) = (candidate.origin.as_str(), &candidate.checkpoint);
        if self.has_forked(&candidate.origin) {
            return Ok(Judged::No(WitnessAnswer::Contradicts(
                "this log has forked: nothing more is cosigned for it".to_owned(),
            )));
        }
        // What was refused in this very turn, or before a crash that the ledger did not outlive, counts as well.
        if turn.has_refused(origin).await? {
            return Ok(Judged::No(WitnessAnswer::Contradicts(
                "this log has signed another history before; both are kept".to_owned(),
            )));
        }
        let last = turn.cosigned(origin).await?;
        let known = last.as_ref().map(|last| &last.latest);
        let known_size = known.map_or(0, |known| known.size);
        // Two roots of one size prove themselves, wherever the request says that it begins.
        if let Some(known) = known.filter(|known| known.size == new.size && known.root != new.root)
        {
            let (known, came) = (known.note.clone(), candidate.note.clone());
            return Ok(Judged::Contradiction(Contradiction {
                proof: ForkProof::same_size(&known, &came).ok(),
                known,
                came,
            }));
        }
        if candidate.old != known_size {
            return Ok(Judged::No(WitnessAnswer::Stale(known_size)));
        }
        let wrong = |why: &str| Ok(Judged::No(WitnessAnswer::Contradicts(why.to_owned())));
        if (known_size == 0 || known_size == new.size) && !candidate.proof.is_empty() {
            return wrong(
                "nothing is to be proven from the size given: the request has hashes all the same",
            );
        }
        if let Some(known) = known {
            let proof = &candidate.proof;
            if verify_consistency(known.size, &known.root, new.size, &new.root, proof).is_err() {
                let (known, came) = (known.note.clone(), candidate.note.clone());
                // A proof that holds for another history than the one we know gives the log away; any other may be a slip.
                return Ok(
                    match ForkProof::from_failed_consistency(&known, &came, proof, None) {
                        Some(proof) => Judged::Contradiction(Contradiction {
                            proof: Some(proof),
                            known,
                            came,
                        }),
                        None => Judged::No(WitnessAnswer::Contradicts(
                            "the consistency proof does not hold".to_owned(),
                        )),
                    },
                );
            }
        } else if self.is_too_many(turn, &candidate.origin).await? {
            let why = "too many logs of this organization are witnessed here already";
            return Ok(Judged::No(WitnessAnswer::Unavailable(why.to_owned())));
        }
        if let Some(found) = self.against_copy(&candidate.origin, new, &candidate.note) {
            return Ok(match found.proof {
                Some(_) => Judged::Contradiction(found),
                // Not cosigned; whether it is a fork is for the next contact to prove.
                None => Judged::No(WitnessAnswer::Contradicts(
                    "it is not of the history that is held here".to_owned(),
                )),
            });
        }
        if let Some(last) = last.as_ref().filter(|last| {
            last.latest.size == new.size && now.saturating_sub(last.at) < COSIGNED_AGAIN_AFTER
        }) {
            return Ok(Judged::No(WitnessAnswer::Cosigned(last.line.clone())));
        }
        Ok(Judged::Continues {
            last: last.map(|last| last.at),
        })
    }

    async fn is_too_many(
        &self,
        turn: &mut Turn<'_>,
        origin: &Origin,
    ) -> Result<bool, CheckpointsError> {
        let authority = origin.authority();
        let count = turn
            .count(authority.as_str(), LOGS_PER_AUTHORITY_MAX)
            .await?;
        Ok(count >= LOGS_PER_AUTHORITY_MAX)
    }

    /// Compares a checkpoint that its log signed with the copy held here, as far as that reaches.
    pub(crate) fn against_copy(
        &self,
        origin: &Origin,
        came: &Checkpoint,
        note: &str,
    ) -> Option<Contradiction> {
        let copy = self.log(origin).filter(|log| log.kind() == LogKind::Copy)?;
        let held = self.reader().size(copy.number())?;
        if came.size > held {
            return None;
        }
        let nodes = self.reader().nodes(copy.number());
        // A disk that cannot be read proves nothing against anybody; the reader says so where it is read.
        let ours = compact_range_at(&nodes, came.size).ok()?.root();
        if ours == came.root {
            return None;
        }
        let proof = self
            .note_beside(&copy, came.size)
            .and_then(|(known, size)| {
                if size == came.size {
                    return ForkProof::same_size(&known, note).ok();
                }
                let bridge = countersign_tlog::consistency_proof(&nodes, came.size, size).ok()?;
                ForkProof::between(note, &known, ours, bridge).ok()
            });
        Some(Contradiction {
            known: String::new(),
            came: note.to_owned(),
            proof,
        })
    }

    /// A signed note that a copy holds for a size at or after `size`, as far as its entries reach.
    fn note_beside(&self, copy: &crate::Log, size: u64) -> Option<(String, u64)> {
        let head = self.provable_head(copy).filter(|head| head.size >= size)?;
        Some((self.note_held(copy.origin(), &head)?, head.size))
    }

    /// Whether an agreement gives us this log to read.
    fn reads(&self, origin: &Origin) -> bool {
        let own = self.identity().authority();
        let registry = self.registry();
        let mut agreements = registry.agreements.values();
        agreements.any(|state| {
            state.agreement.stream == *origin && state.agreement.consumer.authority == *own
        })
    }

    /// The keys that count for a checkpoint of a log: of our own or a partner's newest key statement, less what was revoked; and of the settings. Of our own logs
    /// also keys whose period is over: what they signed is ours.
    pub(crate) fn log_vkeys(&self, origin: &Origin, checkpoint: &Checkpoint) -> Vec<Vkey> {
        let own = origin.authority() == *self.identity().authority();
        let keys = self.log_keys(origin);
        let counts = |key: &&PublicKey| match keys.judge(key, checkpoint.size, &checkpoint.root) {
            Standing::Counts => true,
            Standing::Ended => own,
            Standing::Revoked | Standing::Unknown => false,
        };
        let counting = keys.all().filter(counts);
        let vkeys =
            counting.filter_map(|key| Vkey::new(origin.as_str(), Algorithm::Ed25519, *key).ok());
        vkeys.chain(self.named_vkeys(origin)).collect()
    }

    /// The keys of a log that the settings name.
    fn named_vkeys<'s>(&'s self, origin: &'s Origin) -> impl Iterator<Item = Vkey> + 's {
        let named = self.witness().settings.logs.iter();
        named.filter(|vkey| vkey.name() == origin.as_str()).cloned()
    }

    fn candidate(self: &Arc<Self>, body: &[u8]) -> Result<Candidate, WitnessAnswer> {
        let malformed = |why: &dyn std::fmt::Display| WitnessAnswer::Malformed(why.to_string());
        if body.len() > ADD_CHECKPOINT_BODY_MAX {
            return Err(malformed(&"the request is too large"));
        }
        let request = AddCheckpoint::parse(body).map_err(|error| malformed(&error))?;
        let note = Note::parse(request.checkpoint.as_bytes()).map_err(|error| malformed(&error))?;
        let checkpoint = Checkpoint::parse_text(note.text()).map_err(|error| malformed(&error))?;
        if checkpoint.size > TREE_SIZE_MAX {
            return Err(malformed(&"the size is beyond 2^63 - 1"));
        }
        let unknown = || {
            WitnessAnswer::UnknownLog(
                "no key of a log that is witnessed here has signed this".to_owned(),
            )
        };
        let origin: Origin = checkpoint.origin.parse().map_err(|_| unknown())?;
        let known =
            !self.log_keys(&origin).is_empty() || self.named_vkeys(&origin).next().is_some();
        if !known || origin.authority() == *self.identity().authority() {
            return Err(unknown());
        }
        let vkeys = self.log_vkeys(&origin, &checkpoint);
        if let Err(error) = note.verify(&vkeys) {
            if let Some(revoked) = self.note_revoked(&origin, &checkpoint, &note) {
                return Err(WitnessAnswer::NotSigned(revoked));
            }
            // Whoever is no partner learns by a bad signature which logs the settings name, which it may, and not who our partners are.
            return Err(match self.named_vkeys(&origin).next() {
                Some(_) => WitnessAnswer::NotSigned(error.to_string()),
                None => unknown(),
            });
        }
        if request.old > checkpoint.size {
            return Err(malformed(&"the older size is greater than the newer"));
        }
        let text = note.text().to_owned();
        // One line for each key: a log cannot make us keep a hundred.
        let line_of = |vkey: &Vkey| note.signatures().iter().find(|line| line.names(vkey));
        let lines = vkeys.iter().filter_map(line_of);
        let lines: String = lines.map(countersign_tlog::NoteSignature::encode).collect();
        Ok(Candidate {
            note: format!("{text}\n{lines}"),
            origin,
            checkpoint,
            old: request.old,
            proof: request.proof,
            text,
        })
    }

    /// The newest note that we cosigned, with our line, of the log whose origin has this SHA-256 in lower-case hexadecimal: the monitoring endpoint. Of the logs of
    /// the settings for anybody; of a partner's for who shows a partner's token, since whose streams there are, and how they grow, is nobody else's business.
    ///
    /// # Errors
    /// [`ExchangeError::Checkpoints`].
    pub async fn monitored(
        &self,
        origin_hash: &str,
        token: Option<&str>,
    ) -> Result<Option<String>, ExchangeError> {
        let named = self.witness().settings.logs.iter();
        let mut named = named.map(|vkey| hex::encode(sha256(vkey.name().as_bytes())));
        let shown = named.any(|hash| hash == origin_hash) || {
            let digest = token.and_then(crate::published::token_digest);
            let now = self.clock().now();
            digest.is_some_and(|digest| self.registry().holder(&digest, now).is_some())
        };
        if !shown {
            return Ok(None);
        }
        let checkpoints = &self.witness().checkpoints;
        let found = checkpoints.cosigned_by_hash(origin_hash).await?;
        Ok(found.map(|cosigned| format!("{}{}", cosigned.latest.note, cosigned.line)))
    }
}

enum Judged {
    No(WitnessAnswer),
    Contradiction(Contradiction),
    Continues { last: Option<u64> },
}
