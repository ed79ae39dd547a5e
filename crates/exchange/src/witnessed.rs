//! Being witnessed: heads of our own logs → witnesses → cosignatures → a witnessed checkpoint.
//!
//! ```text
//! Log::head ── candidate, at most one a second ──► Submission to each witness, one at a time ──► line ──► note with lines ── quorum ──► Log::witnessed
//! ```
//!
//! Nothing here is waited for by appending or delivery. What is sent and what came back lives in memory; the newest witnessed note is kept.

mod reading;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use countersign_crypto::{Hash, PublicKey};
use countersign_event::documents::Role;
use countersign_event::names::{Authority, Origin, StreamName};
use countersign_event::time::Timestamp;
use countersign_store::checkpoints::{KeptNote, Why};
use countersign_store::journal::LogKind;
use countersign_tlog::add_checkpoint::AddCheckpoint;
use countersign_tlog::{
    Algorithm, Checkpoint, Note, NoteSignature, Vkey, consistency_proof, cosignature_v1,
};

use crate::outside::{OutsideWitness, WitnessId};
use crate::witness::witness_name;
use crate::{Exchange, ExchangeError, Log};

/// A log's head is shown to witnesses at most so often.
pub const SUBMIT_EVERY: Duration = Duration::from_secs(1);

/// A ledger log's head is shown at most so often: there is one for each partner, each cosignature is a sync on both sides, and nobody waits for it.
const SUBMIT_LEDGER_EVERY: Duration = Duration::from_secs(60);

/// After an answer that contradicts a log, its witness is asked again about it so much later; after other troubles at the latest then.
const DECLINED_FOR: Duration = Duration::from_secs(60);

/// A cosignature that ends a freeze is of the time of its submission; a witness's clock may be so many seconds behind ours.
const COSIGNED_BEFORE_MAX: u64 = 60;

/// Heads of a log that still wait for lines: a witness that takes longer than so many seconds is behind with older ones.
const CANDIDATES_MAX: usize = 8;

/// Lines that one note carries: the formats' readers have to take 16.
const LINES_MAX: usize = 15;

/// One `add-checkpoint` request of ours.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Submission {
    /// The log.
    pub origin: Origin,
    /// The checkpoint's size.
    pub size: u64,
    /// The request's body.
    pub body: String,
    old: u64,
    /// When it was made.
    made: Timestamp,
}

/// What a witness said: status and body, as over HTTP.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Said {
    /// The status.
    pub status: u16,
    /// The body, bounded by whoever read it.
    pub body: Vec<u8>,
}

/// A checkpoint with enough cosignatures.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WitnessedHead {
    /// Its size: entries below are witnessed.
    pub size: u64,
    /// Its root.
    pub root: Hash,
    /// The note, with the log's line and the witnesses'.
    pub note: String,
    /// The witnesses' names.
    pub witnesses: Vec<String>,
}

/// What is known of the witnesses of all own logs.
#[derive(Debug, Default)]
pub(crate) struct Submissions {
    logs: HashMap<Origin, LogProgress>,
    /// Answers that say that somebody is wrong: ours or theirs.
    pub(crate) alarms: u64,
}

#[derive(Debug, Default)]
struct LogProgress {
    /// The newest last.
    candidates: VecDeque<Candidate>,
    witnesses: HashMap<WitnessId, Progress>,
}

#[derive(Debug)]
struct Candidate {
    checkpoint: Checkpoint,
    /// With the log's own line.
    note: String,
    chosen: Duration,
    /// One for each witness, whatever name it takes, with the key that verifies it.
    lines: BTreeMap<WitnessId, (PublicKey, NoteSignature)>,
}

#[derive(Debug, Default)]
struct Progress {
    /// What the witness holds, as far as we know.
    known: u64,
    /// The newest size that it has cosigned.
    cosigned: u64,
    under_way: bool,
    /// It has said since its last cosignature where it stands.
    learnt: bool,
    not_before: Duration,
    /// How often in a row it was of no help.
    failures: u32,
    /// Why it did not cosign the last time; empty where it did.
    trouble: String,
}

/// How one witness stands to one log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WitnessStanding {
    /// Which log.
    pub origin: Origin,
    /// Who.
    pub witness: WitnessId,
    /// The newest size that it has cosigned since this node's start; 0 = none.
    pub cosigned: u64,
    /// Why it did not cosign the last time; empty where it did, or was not asked yet.
    pub trouble: String,
}

impl Exchange {
    /// The requests that are due to a witness now, of the logs that it is shown, at most `most`; each is under way until its answer is taken or given up.
    #[must_use]
    pub fn submissions(
        &self,
        witness: &WitnessId,
        shown: &[Arc<Log>],
        most: usize,
    ) -> Vec<Submission> {
        let now = self.clock().uptime();
        let mut due = Vec::new();
        for log in shown {
            if due.len() == most {
                break;
            }
            let chosen = self.with_submissions(|all| choose(all, log, witness, now));
            let Some(Chosen { size, note, old }) = chosen else {
                continue;
            };
            let nodes = self.reader().nodes(log.number());
            let proof = match old {
                0 => Ok(Vec::new()),
                old => consistency_proof(&nodes, old, size),
            };
            let proof = match proof {
                Ok(proof) => proof,
                Err(error) => {
                    tracing::error!(origin = %log.origin(), %error, "a head cannot be shown to a witness");
                    self.with_submissions(|all| {
                        give_up(all, log.origin(), witness, now + DECLINED_FOR)
                    });
                    continue;
                }
            };
            let request = AddCheckpoint {
                old,
                proof,
                checkpoint: note,
            };
            due.push(Submission {
                origin: log.origin().clone(),
                size,
                body: request.encode(),
                old,
                made: self.clock().now(),
            });
        }
        due
    }

    /// Which of our logs a witness is shown now: a partner the streams that it reads as agreements say, and the ledger log about itself; an outside one those of
    /// the settings.
    #[must_use]
    pub fn shown_to(&self, witness: &WitnessId) -> Vec<Arc<Log>> {
        let witness = match witness {
            WitnessId::Partner(partner) => partner,
            WitnessId::Outside(name) => return self.shown_outside(name),
        };
        let mut origins: Vec<Origin> = {
            let registry = self.registry();
            let now = self.clock().now();
            let read = registry.agreements.values().filter(|state| {
                state.agreement.consumer.authority == *witness && state.is_active(now)
            });
            read.map(|state| state.agreement.stream.clone()).collect()
        };
        origins.sort();
        origins.dedup();
        let own_log = |log: &Arc<Log>| log.kind() == LogKind::Own;
        let streams = origins.iter().filter_map(|origin| self.log(origin));
        let known = {
            let registry = self.registry();
            let partner = registry.partners.get(witness);
            partner.is_some_and(|partner| partner.revoked.is_none())
        };
        let about = Origin::of_ledger(self.identity().authority(), witness);
        let ledger = self.current_ledger(&about).filter(|_| known);
        streams.filter(own_log).chain(ledger).collect()
    }

    fn shown_outside(&self, name: &str) -> Vec<Arc<Log>> {
        let Some(witness) = self.outside_witness(name) else {
            return Vec::new();
        };
        let is_shown = |log: &Arc<Log>| {
            let stream = log.origin().stream();
            let named = |stream: &StreamName| witness.streams.contains(stream);
            match log.kind() {
                LogKind::Own => witness.streams.is_empty() || stream.as_ref().is_some_and(named),
                LogKind::Ledger => {
                    self.witness().settings.outside_ledgers && self.is_current_ledger(log)
                }
                LogKind::Copy => false,
            }
        };
        self.logs().into_iter().filter(is_shown).collect()
    }

    /// The witnesses that are asked over HTTP.
    #[must_use]
    pub fn outside_witnesses(&self) -> &[OutsideWitness] {
        &self.witness().settings.outside
    }

    fn outside_witness(&self, name: &str) -> Option<&OutsideWitness> {
        let mut outside = self.outside_witnesses().iter();
        outside.find(|witness| witness.vkey.name() == name)
    }

    /// Whether a witness has cosigned all that there is.
    #[must_use]
    pub fn has_shown(&self, witness: &WitnessId, shown: &[Arc<Log>]) -> bool {
        let cosigned = |all: &Submissions, log: &Log| {
            let progress = all.logs.get(log.origin())?;
            Some(progress.witnesses.get(witness)?.cosigned)
        };
        self.with_submissions(|all| {
            shown
                .iter()
                .all(|log| cosigned(all, log).is_some_and(|size| size >= log.size()))
        })
    }

    /// Takes the answers to what [`Exchange::submissions`] gave, in its order; missing ones were not answered. `vkey` is the verifier that the witness says
    /// it cosigns under. Whether it says, of one of them, that it knows more than is here, or otherwise.
    ///
    /// # Errors
    /// [`ExchangeError::Checkpoints`] where a witnessed note cannot be kept.
    pub async fn take_cosignatures(
        &self,
        witness: &WitnessId,
        vkey: &str,
        submissions: &[Submission],
        answers: &[Said],
    ) -> Result<bool, ExchangeError> {
        let now = self.clock().uptime();
        let vkey = Vkey::parse(vkey).ok();
        let admitted = vkey.filter(|vkey| self.admits_witness(witness, vkey));
        let quorum = self.witness().settings.quorum.max(1);
        let mut newly = Vec::new();
        let mut ahead = false;
        let mut doubted = false;
        for (index, submission) in submissions.iter().enumerate() {
            let said = answers.get(index);
            let outcome = match (&admitted, said) {
                (_, None) => Outcome::Trouble("it did not answer".to_owned(), SUBMIT_EVERY),
                (None, _) => Outcome::Alarm(
                    "the key that it cosigns under is none, or speaks in the name of an organization whose key statement does not list it".to_owned(),
                ),
                (Some(vkey), Some(said)) => {
                    let held = self.log(&submission.origin).map_or(0, |log| log.size());
                    judge(said, submission, vkey, held)
                }
            };
            let settled = self.with_submissions(|all| {
                if let Outcome::Alarm(_) | Outcome::Ahead(_) = outcome {
                    all.alarms += 1;
                }
                ahead |= matches!(outcome, Outcome::Ahead(_));
                settle(
                    all,
                    (witness, admitted.as_ref()),
                    submission,
                    outcome,
                    quorum,
                    now,
                )
            });
            let Settled {
                witnessed,
                alarm,
                cosigned,
            } = settled;
            doubted |= alarm.is_some();
            if let (Some(time), WitnessId::Outside(name)) = (cosigned, witness) {
                // An older line says what it knew then, and anybody on the way may have kept it.
                if time.saturating_add(COSIGNED_BEFORE_MAX) >= submission.made.0 / 1_000_000 {
                    self.outside_knows_no_more(name, &submission.origin);
                } else if self.waits_for_outside(name, &submission.origin) {
                    self.with_submissions(|all| {
                        ask_once_more(all, &submission.origin, witness, now);
                    });
                }
            }
            if let Some(alarm) = alarm {
                tracing::error!(origin = %submission.origin, %witness, alarm, "a witness contradicts this log");
            }
            if let Some(head) = witnessed
                && let Some(log) = self.log(&submission.origin)
            {
                newly.push((submission.origin.to_string(), head.clone()));
                log.publish_witnessed(head);
            }
        }
        if ahead {
            self.doubt();
        }
        if newly.is_empty() {
            return Ok(doubted);
        }
        let at = self.clock().now().0 / 1_000_000;
        let notes: Vec<_> = newly
            .into_iter()
            .map(|(origin, head)| {
                let note = KeptNote {
                    size: head.size,
                    root: head.root,
                    note: head.note,
                };
                (origin, note, Why::WITNESSED.and(Why::HOURLY))
            })
            .collect();
        self.witness().checkpoints.keep(&notes, at).await?;
        Ok(doubted)
    }

    /// The session or request is over: what was under way is sent again. `why` is shown to people, where something went wrong.
    pub fn give_up_submissions(&self, witness: &WitnessId, why: Option<&str>) {
        self.with_submissions(|all| {
            for log in all.logs.values_mut() {
                let Some(progress) = log.witnesses.get_mut(witness) else {
                    continue;
                };
                if let Some(why) = why.filter(|_| progress.under_way) {
                    why.clone_into(&mut progress.trouble);
                }
                progress.under_way = false;
            }
        });
    }

    /// What an outside witness has cosigned is asked for anew: this directory may be older than that.
    pub(crate) fn ask_outside_again(&self) {
        self.with_submissions(|all| {
            for log in all.logs.values_mut() {
                for (witness, progress) in &mut log.witnesses {
                    if matches!(witness, WitnessId::Outside(_)) {
                        progress.cosigned = 0;
                    }
                }
            }
        });
    }

    /// A name in a partner's authority has to be one that its key statement lists; any other is its own choice, and an outside one was configured.
    fn admits_witness(&self, witness: &WitnessId, vkey: &Vkey) -> bool {
        if vkey.algorithm() != Algorithm::CosignatureV1 {
            return false;
        }
        let outside = self.outside_witness(vkey.name());
        let witness = match witness {
            WitnessId::Partner(partner) => partner,
            WitnessId::Outside(name) => {
                return outside.is_some_and(|known| name == vkey.name() && known.vkey == *vkey);
            }
        };
        if outside.is_some_and(|known| known.vkey != *vkey) {
            return false;
        }
        let registry = self.registry();
        let Some(known) = registry.partners.get(witness) else {
            return false;
        };
        let now = self.clock().now();
        let mut keys = known.statement.keys_for(Role::Witness);
        let listed = keys
            .any(|key| key.key == *vkey.key() && key.until.is_none_or(|until| now < until))
            && !registry.is_revoked(witness, Role::Witness, vkey.key());
        let names = |authority: &Authority| vkey.name().starts_with(&format!("{authority}/"));
        let own = names(self.identity().authority());
        let mut others = registry.partners.keys();
        let other = others.any(|known| known != witness && names(known));
        if vkey.name() == witness_name(witness) {
            listed
        } else {
            // Nobody speaks in a name that is another's.
            !own && !other && !names(witness)
        }
    }

    /// How the witnesses stand, by log.
    #[must_use]
    pub fn witness_standings(&self) -> Vec<WitnessStanding> {
        let mut all = self.with_submissions(|all| {
            let of_log = |(origin, log): (&Origin, &LogProgress)| {
                let origin = origin.clone();
                let one = move |(witness, progress): (&WitnessId, &Progress)| WitnessStanding {
                    origin: origin.clone(),
                    witness: witness.clone(),
                    cosigned: progress.cosigned,
                    trouble: progress.trouble.clone(),
                };
                log.witnesses.iter().map(one).collect::<Vec<_>>()
            };
            all.logs.iter().flat_map(of_log).collect::<Vec<_>>()
        });
        all.sort_by(|a, b| (&a.origin, &a.witness).cmp(&(&b.origin, &b.witness)));
        all
    }

    /// How often a witness answered since the start that somebody is wrong.
    #[must_use]
    pub fn witness_alarms(&self) -> u64 {
        self.with_submissions(|all| all.alarms)
    }
}

/// A head that is due, and the size that the witness holds.
struct Chosen {
    size: u64,
    note: String,
    old: u64,
}

fn give_up(all: &mut Submissions, origin: &Origin, witness: &WitnessId, not_before: Duration) {
    let log = all.logs.get_mut(origin);
    if let Some(progress) = log.and_then(|log| log.witnesses.get_mut(witness)) {
        progress.under_way = false;
        progress.not_before = not_before;
    }
}

/// The head to show this witness now; marks it as under way.
/// It cosigned, and not now: what it knows now is asked again.
fn ask_once_more(all: &mut Submissions, origin: &Origin, witness: &WitnessId, now: Duration) {
    let progress = all.logs.get_mut(origin);
    if let Some(asked) = progress.and_then(|log| log.witnesses.get_mut(witness)) {
        asked.cosigned = 0;
        asked.not_before = now + 2 * SUBMIT_EVERY;
        asked.trouble = "its cosignature is older than the question, so that it does not say what it knows now: its clock is behind, or somebody repeats an old answer (use an https:// address)".to_owned();
    }
}

fn choose(all: &mut Submissions, log: &Log, witness: &WitnessId, now: Duration) -> Option<Chosen> {
    let progress = all.logs.entry(log.origin().clone()).or_default();
    let asked = progress.witnesses.entry(witness.clone()).or_default();
    if asked.under_way || now < asked.not_before {
        return None;
    }
    let head = log.head();
    let newest = progress.candidates.back();
    let every = match log.kind() {
        LogKind::Ledger => SUBMIT_LEDGER_EVERY,
        LogKind::Own | LogKind::Copy => SUBMIT_EVERY,
    };
    let may_choose = newest.is_none_or(|newest| {
        newest.checkpoint.size < head.size && now.saturating_sub(newest.chosen) >= every
    });
    if may_choose
        && head.size > 0
        && let Some(note) = head.note(log.origin())
    {
        let checkpoint = Checkpoint {
            origin: log.origin().to_string(),
            size: head.size,
            root: head.root,
        };
        progress.candidates.push_back(Candidate {
            note,
            checkpoint,
            chosen: now,
            lines: BTreeMap::new(),
        });
        if progress.candidates.len() > CANDIDATES_MAX {
            progress.candidates.pop_front();
        }
    }
    let newest = progress.candidates.back()?;
    if newest.checkpoint.size <= asked.cosigned {
        return None;
    }
    asked.under_way = true;
    Some(Chosen {
        size: newest.checkpoint.size,
        note: newest.note.clone(),
        old: asked.known.min(newest.checkpoint.size),
    })
}

enum Outcome {
    Line(NoteSignature),
    Stale(u64),
    /// It knows more of this log than we hold.
    Ahead(u64),
    Trouble(String, Duration),
    Alarm(String),
}

fn judge(said: &Said, submission: &Submission, vkey: &Vkey, held: u64) -> Outcome {
    let text = || {
        let text = String::from_utf8_lossy(&said.body);
        text.chars()
            .filter(|c| !c.is_control())
            .take(200)
            .collect::<String>()
    };
    match said.status {
        200 => {
            // One line is what our own witnesses give; others may give more, for several keys of theirs.
            let body = std::str::from_utf8(&said.body).unwrap_or_default();
            let lines = || body.lines().filter_map(NoteSignature::parse);
            match lines()
                .find(|line| line.names(vkey))
                .or_else(|| lines().next())
            {
                Some(line) => Outcome::Line(line),
                None => Outcome::Alarm("it answered without a cosignature".to_owned()),
            }
        }
        409 => {
            let body = std::str::from_utf8(&said.body).unwrap_or_default();
            let size = body
                .strip_suffix('\n')
                .and_then(|text| text.parse::<u64>().ok());
            match size {
                Some(size) if size > held => Outcome::Ahead(size),
                Some(size) if size != submission.old => Outcome::Stale(size),
                Some(size) => {
                    Outcome::Alarm(format!("it refused the size that it named itself: {size}"))
                }
                None => {
                    Outcome::Alarm("it refused, and does not say which size it holds".to_owned())
                }
            }
        }
        422 => Outcome::Alarm(text()),
        429 | 500..=599 => Outcome::Trouble(text(), 2 * SUBMIT_EVERY),
        // Also who does not know us yet: a partner that is joining may hear of a stream before it has stored the agreement.
        status => Outcome::Trouble(format!("{status}: {}", text()), 2 * SUBMIT_EVERY),
    }
}

struct Settled {
    witnessed: Option<WitnessedHead>,
    alarm: Option<String>,
    /// The time of a cosignature that was verified, in seconds since 1970.
    cosigned: Option<u64>,
}

fn settle(
    all: &mut Submissions,
    (witness, vkey): (&WitnessId, Option<&Vkey>),
    submission: &Submission,
    outcome: Outcome,
    quorum: usize,
    now: Duration,
) -> Settled {
    let mut settled = Settled {
        witnessed: None,
        alarm: None,
        cosigned: None,
    };
    let Some(progress) = all.logs.get_mut(&submission.origin) else {
        return settled;
    };
    let asked = progress.witnesses.entry(witness.clone()).or_default();
    asked.under_way = false;
    match (outcome, vkey) {
        (Outcome::Line(_), None) => {}
        (Outcome::Line(line), Some(vkey)) => {
            let of_size = |candidate: &&mut Candidate| candidate.checkpoint.size == submission.size;
            let Some(candidate) = progress.candidates.iter_mut().find(of_size) else {
                // So late that the head is forgotten; the witness holds it all the same.
                asked.known = submission.size;
                return settled;
            };
            let text = candidate.checkpoint.to_text();
            match cosignature_v1::verify(&text, &line, vkey) {
                Ok(time) => settled.cosigned = Some(time),
                Err(error) => {
                    asked.trouble = error.to_string();
                    asked.not_before = now + DECLINED_FOR;
                    settled.alarm = Some(asked.trouble.clone());
                    return settled;
                }
            }
            asked.known = submission.size;
            asked.cosigned = submission.size;
            asked.not_before = Duration::ZERO;
            asked.learnt = false;
            asked.failures = 0;
            asked.trouble.clear();
            // The signed bytes do not hold the name: who relays another's line under a name of its own is no second witness.
            let taken = candidate.lines.iter().any(|(other, (key, known))| {
                other != witness && (known.name() == vkey.name() || key == vkey.key())
            });
            if taken {
                asked.trouble = "another witness cosigns under that name or key".to_owned();
                return settled;
            }
            if candidate.lines.len() < LINES_MAX {
                let line = (*vkey.key(), line);
                candidate.lines.insert(witness.clone(), line);
            }
            if candidate.lines.len() >= quorum {
                settled.witnessed = Some(witnessed_of(candidate));
            }
        }
        (Outcome::Stale(size), _) => {
            // Learnt once, it is asked again at once; who changes its mind waits.
            asked.not_before = match asked.learnt {
                true => now + SUBMIT_EVERY,
                false => Duration::ZERO,
            };
            asked.learnt = true;
            asked.known = size;
        }
        (Outcome::Ahead(size), _) => {
            asked.trouble = format!("it knows {size} entries of this log, more than are here");
            asked.not_before = now + DECLINED_FOR;
            settled.alarm = Some(asked.trouble.clone());
        }
        (Outcome::Trouble(why, wait), _) => {
            asked.trouble = why;
            asked.not_before = now + (wait * (1 << asked.failures.min(5))).min(DECLINED_FOR);
            asked.failures = asked.failures.saturating_add(1);
        }
        (Outcome::Alarm(why), _) => {
            asked.trouble.clone_from(&why);
            asked.not_before = now + DECLINED_FOR;
            // What it holds is asked for anew.
            asked.known = 0;
            settled.alarm = Some(why);
        }
    }
    settled
}

fn witnessed_of(candidate: &Candidate) -> WitnessedHead {
    let mut note = candidate.note.clone();
    for (_, line) in candidate.lines.values() {
        note.push_str(&line.encode());
    }
    WitnessedHead {
        size: candidate.checkpoint.size,
        root: candidate.checkpoint.root,
        note,
        witnesses: candidate
            .lines
            .values()
            .map(|(_, line)| line.name().to_owned())
            .collect(),
    }
}

impl Exchange {
    /// What was witnessed before the stop. Whether something was that is not here.
    pub(crate) async fn recall_witnessed(&self) -> Result<bool, ExchangeError> {
        let mut older = false;
        let mut lacking = Vec::new();
        for log in self.logs() {
            if log.kind() == LogKind::Copy {
                continue;
            }
            let origin = log.origin().as_str();
            let kept = self
                .witness()
                .checkpoints
                .kept(origin, Why::WITNESSED)
                .await?;
            let Some(newest) = kept.into_iter().next_back() else {
                continue;
            };
            // The journal is older than what lies beside it: entries were lost.
            if newest.size > log.size() {
                older |= log.kind() == LogKind::Own || self.is_current_ledger(&log);
                if log.kind() == LogKind::Own {
                    lacking.push((Arc::clone(&log), newest.size));
                }
                continue;
            }
            let Ok(note) = Note::parse(newest.note.as_bytes()) else {
                continue;
            };
            let lines = note.signatures().iter();
            let witnesses = lines.filter(|line| line.name() != origin);
            log.publish_witnessed(WitnessedHead {
                size: newest.size,
                root: newest.root,
                witnesses: witnesses.map(|line| line.name().to_owned()).collect(),
                note: newest.note,
            });
        }
        if older {
            (self.unsettle)();
            self.freeze_streams();
        }
        for (log, size) in lacking {
            log.change_freeze(|freeze| freeze.lacks(size));
        }
        self.note_frozen();
        Ok(older)
    }
}
