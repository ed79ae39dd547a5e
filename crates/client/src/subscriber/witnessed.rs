//! Reading with the assurance *witnessed*: verified batches wait here until enough witnesses of the reader's own policy have cosigned what they are part of.
//!
//! ```text
//! verified batch ─► held ─► AskWitnessed{size} ─► note: log's key, policy's quorum
//!                                                 proof: note and own tree are one history ─► handed on
//! ```

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use countersign_crypto::Hash;
use countersign_event::documents::LogKeys;
use countersign_event::names::Origin;
use countersign_protocol::delivery::BatchFault;
use countersign_protocol::{AskWitnessed, WitnessedState};
use countersign_tlog::policy::Policy;
use countersign_tlog::{Algorithm, Checkpoint, Note, Vkey, verify_consistency};
use tokio::time::{Instant, timeout};

use super::{BATCHES_AHEAD_MAX, EventBatch};
use crate::error::SessionError;
use crate::quic::RawFrame;
use crate::session::Session;

/// How often the producer is asked, as long as something waits for witnesses.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// How long it may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// How long it is waited for the last entries to be witnessed, where nobody follows.
const LAST: Duration = Duration::from_secs(5);

/// What the producer answered, and about which tree it was asked.
pub(super) struct Answer {
    pub(super) frame: Result<RawFrame, SessionError>,
    pub(super) asked: (u64, Hash),
}

type Asking = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// What is verified, and waits for witnesses.
pub(super) struct Witnessing {
    policy: Policy,
    held: VecDeque<EventBatch>,
    /// Everything below this is witnessed.
    size: u64,
    asking: Option<Asking>,
    ask_at: Instant,
    /// Until when it is waited for the last entries.
    last_at: Option<Instant>,
}

impl Witnessing {
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            policy,
            held: VecDeque::new(),
            size: 0,
            asking: None,
            ask_at: Instant::now(),
            last_at: None,
        }
    }

    pub(super) fn hold(&mut self, batch: EventBatch) {
        self.held.push_back(batch);
    }

    /// Whether more may be read meanwhile.
    pub(super) fn has_room(&self) -> bool {
        self.held.len() < BATCHES_AHEAD_MAX
    }

    /// The next batch that is witnessed as a whole.
    pub(super) fn release(&mut self) -> Option<EventBatch> {
        let is_witnessed = self.held.front()?.end() <= self.size;
        is_witnessed.then(|| self.held.pop_front()).flatten()
    }

    /// Whether nothing waits, or what waits has waited long enough for an end.
    pub(super) fn is_done(&mut self) -> bool {
        let now = Instant::now();
        self.held.is_empty() || *self.last_at.get_or_insert(now + LAST) <= now
    }

    /// A new session: what was asked in the old one is not answered any more.
    pub(super) fn restart(&mut self) {
        self.asking = None;
    }

    /// Everything below this is witnessed, by what this reader has verified.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// When there is something to do again though nobody says anything.
    pub(super) fn due(&self) -> Option<Instant> {
        let asks = (self.asking.is_none() && !self.held.is_empty()).then_some(self.ask_at);
        asks.into_iter().chain(self.last_at).min()
    }

    /// Asks the producer, where it is time to. `tree` is what was verified last.
    pub(super) fn ask(&mut self, session: &Session, origin: &str, tree: (u64, Hash)) {
        if self.held.is_empty() || self.asking.is_some() || self.ask_at > Instant::now() {
            return;
        }
        self.ask_at = Instant::now() + ASK_EVERY;
        let ask = AskWitnessed {
            origin: origin.to_owned(),
            size: tree.0,
        };
        let session = session.clone();
        self.asking = Some(Box::pin(async move {
            let awaited = "up to where the stream is witnessed";
            let frame = timeout(ANSWER, answer(&session, &ask)).await;
            let frame = frame.unwrap_or(Err(SessionError::StreamEnded { awaited }));
            Answer { frame, asked: tree }
        }));
    }

    /// The answer; never where nothing was asked. Cancel-safe.
    pub(super) async fn answered(&mut self) -> Answer {
        let Some(asking) = &mut self.asking else {
            return std::future::pending().await;
        };
        let answer = asking.as_mut().await;
        self.asking = None;
        answer
    }

    /// Judges what the producer shows. `Ok` with words where it is not enough yet.
    ///
    /// # Errors
    /// [`BatchFault`] where what the log's key and the witnesses have signed is not the history that was read here.
    pub(super) fn take(
        &mut self,
        origin: &Origin,
        keys: &LogKeys,
        asked: (u64, Hash),
        state: &WitnessedState,
    ) -> Result<Option<String>, BatchFault> {
        let wait = |why: &str| Ok(Some(why.to_owned()));
        if state.note.is_empty() {
            return wait("no checkpoint of the stream has enough cosignatures yet");
        }
        let note = Note::parse(&state.note).ok();
        let read = note.and_then(|note| {
            let checkpoint = Checkpoint::parse_text(note.text()).ok()?;
            Some((note, checkpoint))
        });
        let Some((note, checkpoint)) =
            read.filter(|(_, checkpoint)| checkpoint.origin == origin.as_str())
        else {
            return wait("what the producer shows is no checkpoint of the stream");
        };
        let counting = keys.counting(checkpoint.size, &checkpoint.root);
        let vkeys: Vec<Vkey> = counting
            .filter_map(|key| Vkey::new(origin.as_str(), Algorithm::Ed25519, *key).ok())
            .collect();
        if note.verify(&vkeys).is_err() {
            return wait(
                "the newest witnessed checkpoint is not signed by a key of the stream that counts",
            );
        }
        match self.policy.judge(&note) {
            Err(error) => return wait(&error.to_string()),
            Ok(judged) if !judged.met => {
                let by = judged.by.len();
                return wait(&format!(
                    "{by} of the witnesses of the policy have cosigned the checkpoint of size {}, which is not the quorum",
                    checkpoint.size
                ));
            }
            Ok(_) => {}
        }
        let (size, root) = asked;
        let (witnessed, theirs) = (checkpoint.size, &checkpoint.root);
        let proof = &state.proof;
        let (end, large) = (size.min(witnessed), size.max(witnessed));
        match size <= witnessed {
            true => verify_consistency(size, &root, witnessed, theirs, proof),
            false => verify_consistency(witnessed, theirs, size, &root, proof),
        }
        .map_err(|error| BatchFault::Tree {
            end,
            size: large,
            error,
        })?;
        self.size = self.size.max(end);
        if size < witnessed {
            // More is witnessed than was read: what is read next can be asked about at once.
            self.ask_at = Instant::now();
        }
        Ok(match self.held.back() {
            Some(batch) if batch.end() > self.size && size >= witnessed => Some(format!(
                "the stream is witnessed up to size {witnessed} so far"
            )),
            _ => None,
        })
    }
}

async fn answer(session: &Session, ask: &AskWitnessed) -> Result<RawFrame, SessionError> {
    let mut stream = session.request(ask).await?;
    stream.writer.finish()?;
    let frame = stream.reader.next().await?;
    frame.ok_or(SessionError::StreamEnded {
        awaited: "up to where the stream is witnessed",
    })
}
