//! The writer's thread.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use countersign_event::attributes::Attributes;
use countersign_event::content::CONTENT_SALT_BYTES;
use countersign_event::encryption::DataKey;
use countersign_event::time::Timestamp;
use countersign_store::journal::{
    CommitError, Erasure, Journal, JournalReader, LogKind, LogNumber, NotNext, OpenLogError,
    Preparer, ReadError, StoredEntry,
};
use countersign_tlog::{Checkpoint, CompactRange};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::erase::{Erase, ErasedReply, erasure};
use super::stage::{RUNS_PER_COMMIT_MAX, Stage, Stages, Tip};
use super::{
    AppendError, Appended, COMMIT_BYTES_MAX, COMMIT_DELAY_MAX, Done, LAZY_DELAY, Question,
    SIGNATURE_TIME, SIGNING_SHARE, Work, WriterParts,
};
use crate::clock::{Clock, ClockGuard, ClockJump};
use crate::identity::LogSigner;
use crate::keyring::{Keyring, Sealing, is_sealed_event};
use crate::log::{Log, LogHead};
use crate::pipeline::duplicates::{
    EventKey, PublicationRun, Publisher, Publishers, UNNUMBERED_WINDOW, UnnumberedWindow, event_key,
};
use crate::pipeline::seal::SealedBatch;

const PUBLISHERS_SNAPSHOT: &str = "publishers";

pub(super) struct State {
    /// Present until the writer stops.
    pub(super) journal: Option<Journal>,
    nudge: SyncSender<()>,
    reader: JournalReader,
    signer: LogSigner,
    clock: Arc<dyn Clock>,
    guard: ClockGuard,
    tips: HashMap<LogNumber, Tip>,
    publishers: Publishers,
    windows: HashMap<LogNumber, UnnumberedWindow>,
    /// Uptime before which nothing is committed, unless it is full.
    next_commit: Duration,
    pub(super) stopped: Arc<OnceLock<String>>,
    keyring: Arc<Keyring>,
    /// What encrypted logs are sealed with: begun by this writer, and given up with the first commit that fails.
    sealings: HashMap<LogNumber, Sealing>,
    /// Who waits until erased content is overwritten.
    pub(super) erased_replies: Vec<ErasedReply>,
}

/// What is told to whoever handed something in, once the commit is signed.
struct Answer {
    done: Done,
    result: Result<Appended, AppendError>,
    _permit: Option<OwnedSemaphorePermit>,
}

/// A batch that found its place.
struct Staged {
    last_sequence: u64,
    duplicates: u32,
}

/// What one turn of the loop found in the queue.
#[derive(Default)]
struct Turn {
    stop: Option<Option<oneshot::Sender<()>>>,
    flush: Vec<oneshot::Sender<()>>,
    overwritten: Vec<ErasedReply>,
}

/// What the next commit takes.
#[derive(Default)]
struct Waiting {
    works: Vec<Work>,
    bytes: usize,
    urgent: bool,
    /// When the first of them came.
    since: Duration,
}

impl Waiting {
    fn add(&mut self, work: Work, clock: &dyn Clock) {
        if self.works.is_empty() {
            self.since = clock.uptime();
        }
        self.bytes += weight(&work);
        self.urgent |= !matches!(work, Work::Append { lazy: true, .. });
        self.works.push(work);
    }

    /// When it is committed; `None` where there is nothing. A full commit waits for nobody: there is no room for more of any stream.
    fn due(&self, next_commit: Duration) -> Option<Duration> {
        match self {
            Self { works, .. } if works.is_empty() => None,
            Self { bytes, .. } if *bytes >= COMMIT_BYTES_MAX => Some(Duration::ZERO),
            Self { urgent: true, .. } => Some(next_commit),
            Self { since, .. } => Some(next_commit.max(*since + LAZY_DELAY)),
        }
    }
}

impl State {
    pub(super) fn new(
        parts: WriterParts,
        stopped: Arc<OnceLock<String>>,
    ) -> Result<Self, ReadError> {
        let WriterParts {
            journal,
            reader,
            signer,
            clock,
            keyring,
        } = parts;
        let publishers = load_publishers(&reader)?;
        Ok(Self {
            guard: ClockGuard::new(clock.as_ref()),
            nudge: prepare_segments(journal.preparer()),
            journal: Some(journal),
            reader,
            signer,
            clock,
            tips: HashMap::new(),
            publishers,
            windows: HashMap::new(),
            next_commit: Duration::ZERO,
            stopped,
            keyring,
            sealings: HashMap::new(),
            erased_replies: Vec::new(),
        })
    }

    pub(super) fn run(&mut self, queue: &Receiver<Work>) {
        let mut waiting = Waiting::default();
        loop {
            let mut turn = Turn::default();
            let next = match waiting.due(self.next_commit) {
                // Nobody waits: what is erased is overwritten meanwhile.
                None if self.is_erasing() => queue.recv_timeout(Duration::ZERO),
                None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => queue.recv_timeout(due.saturating_sub(self.clock.uptime())),
            };
            match next {
                Ok(work) => self.sort(work, &mut waiting, &mut turn),
                // Whether it is time is for the clock to say, below.
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => turn.stop = Some(None),
            }
            while turn.stop.is_none() && waiting.bytes < COMMIT_BYTES_MAX {
                let Ok(work) = queue.try_recv() else { break };
                self.sort(work, &mut waiting, &mut turn);
            }
            let due = waiting.due(self.next_commit);
            if turn.stop.is_some()
                || !turn.flush.is_empty()
                || due.is_some_and(|due| due <= self.clock.uptime())
            {
                self.commit(std::mem::take(&mut waiting).works);
            }
            for reply in turn.flush {
                let _ = reply.send(());
            }
            // Behind the commit of this turn, which may be the one that erases.
            for reply in turn.overwritten {
                self.when_overwritten(reply);
            }
            if turn.stop.is_none() && self.is_erasing() {
                self.overwrite_some();
            }
            if let Some(reply) = turn.stop {
                self.close();
                if let Some(reply) = reply {
                    let _ = reply.send(());
                }
                return;
            }
        }
    }

    fn sort(&mut self, work: Work, waiting: &mut Waiting, turn: &mut Turn) {
        match work {
            Work::Append { .. }
            | Work::Copy { .. }
            | Work::Erase { .. }
            | Work::NewEpoch { .. } => waiting.add(work, self.clock.as_ref()),
            Work::Ask(question) => self.answer(question, turn),
        }
    }

    fn answer(&mut self, question: Question, turn: &mut Turn) {
        match question {
            Question::OpenLog { birth, reply } => {
                let opened = self.journal.as_mut().map(|journal| journal.open_log(birth));
                let result = match opened {
                    // Opened before, without a first commit (a full disk): the caller knows of no such log.
                    Some(Ok(number) | Err(OpenLogError::Exists { number, .. })) => Ok(number),
                    Some(Err(error)) => Err(AppendError::Stopped {
                        why: error.to_string(),
                    }),
                    None => Err(AppendError::ended()),
                };
                let _ = reply.send(result);
            }
            Question::SeriesState {
                log,
                publisher,
                reply,
            } => {
                let series = self.publishers.series(log, &publisher);
                let _ = reply.send(series.map_or((0, 0), |s| (s.last_number, s.last_sequence)));
            }
            Question::Overwritten { reply } => turn.overwritten.push(reply),
            Question::ConfirmClock => self.guard = ClockGuard::new(self.clock.as_ref()),
            Question::Rekey { signer, reply } => {
                self.signer = *signer;
                let _ = reply.send(());
            }
            Question::Flush { reply } => turn.flush.push(reply),
            Question::Stop { reply } => turn.stop = Some(Some(reply)),
        }
    }

    /// A crash before the journal's sync leaves nothing of this; one after it leaves entries that nobody was told of, which is the same as an
    /// answer lost on the way: handing in again finds them.
    fn commit(&mut self, works: Vec<Work>) {
        if works.is_empty() {
            return;
        }
        let started = self.clock.uptime();
        let mut stages = Stages::default();
        let mut answers: HashMap<LogNumber, Vec<Answer>> = HashMap::new();
        let now = self.guard.now(self.clock.as_ref());
        for work in works {
            if let Some((log, answer)) = self.stage(work, &mut stages, &now) {
                answers.entry(log).or_default().push(answer);
            }
        }
        let mut stages = stages.into_touched();
        if let Err(error) = self.store(&mut stages) {
            for stage in &stages {
                // An epoch that began in it began nowhere: whoever asked for it gets it with the next.
                let log = &stage.log;
                let sealing = self.sealings.get(&log.number());
                if sealing.is_some_and(|sealing| log.size() <= sealing.epoch()) {
                    log.want_epoch();
                }
            }
            // The sequences come again for other events, and some of the ciphertext may be on the disk.
            self.sealings.clear();
            for answer in answers.into_values().flatten() {
                // What was refused before keeps its own reason.
                (answer.done)(answer.result.and(Err(error.clone())));
            }
            return;
        }
        let mut signed = 0;
        for stage in stages {
            let number = stage.log.number();
            signed += u32::from(stage.log.kind() != LogKind::Copy);
            self.integrate(stage);
            // Its publishers need not wait until the checkpoints of all others are signed too.
            for answer in answers.remove(&number).into_iter().flatten() {
                (answer.done)(answer.result);
            }
        }
        // Logs of which nothing was taken: repeats and refusals.
        for answer in answers.into_values().flatten() {
            (answer.done)(answer.result);
        }
        self.prepare_ahead();
        self.next_commit = next_commit(started, self.clock.uptime(), signed);
    }

    fn stage(
        &mut self,
        work: Work,
        stages: &mut Stages,
        now: &Result<Timestamp, ClockJump>,
    ) -> Option<(LogNumber, Answer)> {
        let stopped = self
            .stopped
            .get()
            .map(|why| AppendError::Stopped { why: why.clone() });
        let (number, done, permit, staged, count) = match work {
            Work::Append {
                log,
                sealed,
                publisher,
                done,
                permit,
                ..
            } => {
                // Frozen meanwhile, perhaps: what waited in the queue is not taken either.
                let stopped = stopped.or_else(|| log.is_frozen().then_some(AppendError::Frozen));
                let staged = match (stopped, now) {
                    (Some(error), _) => Err(error),
                    (None, Err(jump)) => Err((*jump).into()),
                    (None, Ok(now)) => self.stage_batch(stages, &log, &sealed, publisher, *now),
                };
                let count = sealed.count() as u32;
                (log.number(), done, permit, staged, count)
            }
            Work::Copy {
                log,
                batch,
                cover,
                done,
                permit,
                erasures,
            } => {
                let count = batch.lengths().len() as u32;
                let staged = match stopped {
                    Some(error) => Err(error),
                    None => self.stage_copy(stages, &log, &batch, cover, erasures),
                };
                (log.number(), done, permit, staged, count)
            }
            Work::Erase { log, erase, done } => {
                // An expiry or a tombstone is an entry like any other. What erases in a copy is its producer's.
                let is_entry = erase.sealed.is_some();
                let stopped = stopped
                    .or_else(|| (is_entry && log.is_frozen()).then_some(AppendError::Frozen));
                let staged = match (stopped, now) {
                    (Some(error), _) => Err(error),
                    (None, Err(jump)) => Err((*jump).into()),
                    (None, Ok(now)) => self.stage_erase(stages, &log, &erase, *now),
                };
                (log.number(), done, None, staged, 1)
            }
            Work::NewEpoch { log, done } => {
                let stopped = stopped.or_else(|| log.is_frozen().then_some(AppendError::Frozen));
                let staged = match (stopped, now) {
                    (Some(error), _) => Err(error),
                    (None, Err(jump)) => Err((*jump).into()),
                    (None, Ok(now)) => self.stage_epoch(stages, &log, *now),
                };
                (log.number(), done, None, staged, 1)
            }
            // INVARIANT: `sort` answers questions before a commit is put together.
            Work::Ask(_) => return None,
        };
        let result = staged.map(|staged| Appended {
            last_sequence: staged.last_sequence,
            duplicates: staged.duplicates,
            count,
        });
        let answer = Answer {
            done,
            result,
            _permit: permit,
        };
        Some((number, answer))
    }

    fn stage_copy(
        &mut self,
        stages: &mut Stages,
        log: &Arc<Log>,
        batch: &countersign_protocol::delivery::VerifiedBatch,
        cover: Vec<u8>,
        erasures: Vec<Erasure>,
    ) -> Result<Staged, AppendError> {
        // Our own entries come back: who handed them in is read again from the log.
        self.windows.remove(&log.number());
        let stage = stages.of(log, || self.tip(log));
        let elsewhere = AppendError::Position {
            size: stage.size(),
            first: batch.first(),
        };
        if stage.size() != batch.first() {
            return Err(elsewhere);
        }
        // A verified batch continues itself: if anything, its first entry is refused, and then nothing was staged.
        stage.take_copy(batch, cover).map_err(|NotNext| elsewhere)?;
        stage.erase(erasures);
        Ok(Staged {
            last_sequence: batch.end().saturating_sub(1),
            duplicates: 0,
        })
    }

    fn stage_erase(
        &mut self,
        stages: &mut Stages,
        log: &Arc<Log>,
        erase: &Erase,
        now: Timestamp,
    ) -> Result<Staged, AppendError> {
        let stage = stages.of(log, || self.tip(log));
        let by = match &erase.sealed {
            Some(sealed) => stage.extend(sealed, now).map_err(full)?,
            None => erase.by,
        };
        stage.erase([erasure(erase, by)]);
        Ok(Staged {
            last_sequence: by,
            duplicates: 0,
        })
    }

    fn stage_batch(
        &mut self,
        stages: &mut Stages,
        log: &Arc<Log>,
        sealed: &SealedBatch,
        publisher: Option<(Publisher, u64)>,
        now: Timestamp,
    ) -> Result<Staged, AppendError> {
        match publisher {
            Some((publisher, first_number)) if publisher.is_numbered() => {
                self.stage_numbered(stages, log, sealed, publisher, first_number, now)
            }
            Some(_) => self.stage_unnumbered(stages, log, sealed, now),
            None => {
                let last_sequence = self.extend(stages, log, sealed, now)?;
                Ok(Staged {
                    last_sequence,
                    duplicates: 0,
                })
            }
        }
    }

    fn stage_numbered(
        &mut self,
        stages: &mut Stages,
        log: &Arc<Log>,
        sealed: &SealedBatch,
        publisher: Publisher,
        first_number: u64,
        now: Timestamp,
    ) -> Result<Staged, AppendError> {
        let stage = stages.of(log, || self.tip(log));
        let stored = self.publishers.series(log.number(), &publisher);
        let last_stored = stored.map_or(0, |series| series.last_number);
        let last = stage
            .runs_of(publisher)
            .next_back()
            .map_or(last_stored, PublicationRun::last_number);
        if first_number == 0 || first_number > last + 1 {
            return Err(AppendError::Gap {
                expected: last + 1,
                found: first_number,
            });
        }
        let repeated = usize::try_from(last + 1 - first_number)
            .unwrap_or(usize::MAX)
            .min(sealed.count());
        let mut compare = Vec::new();
        for index in 0..repeated {
            let number = first_number + index as u64;
            let pending = || {
                stage
                    .runs_of(publisher)
                    .find_map(|run| run.sequence_of(number))
            };
            let sequence = stored
                .and_then(|series| series.sequence_of(number))
                .or_else(pending);
            let old = AppendError::Old {
                last_number: last_stored,
                last_sequence: stored.map_or(0, |series| series.last_sequence),
            };
            compare.push((index, sequence.ok_or(old)?));
        }
        let mut last_sequence = compare.last().map_or(0, |(_, sequence)| *sequence);
        // A conflict refuses the whole batch, so it has to be known before anything of it is staged.
        self.check_repeats(stage, sealed, &compare)?;
        if repeated < sealed.count() {
            if stage.runs().len() >= RUNS_PER_COMMIT_MAX {
                return Err(AppendError::Busy);
            }
            let fresh = if repeated == 0 {
                sealed.clone()
            } else {
                sealed.tail(repeated)
            };
            last_sequence = self.extend(stages, log, &fresh, now)?;
            let stage = stages.of(log, || self.tip(log));
            let count = fresh.count() as u32;
            stage.add_run(PublicationRun {
                publisher,
                first_number: first_number + repeated as u64,
                count,
                first_sequence: last_sequence + 1 - u64::from(count),
            });
            // Where the stream has unnumbered publishers too, the event is recognised by its identity, as it is after a restart.
            if self.windows.contains_key(&log.number()) {
                let first = last_sequence + 1 - u64::from(count);
                let keys = (0..fresh.count()).filter_map(|index| key_of(&fresh, index));
                stage.add_keys(keys.zip(first..).collect::<Vec<_>>());
            }
        }
        Ok(Staged {
            last_sequence,
            duplicates: repeated as u32,
        })
    }

    fn stage_unnumbered(
        &mut self,
        stages: &mut Stages,
        log: &Arc<Log>,
        sealed: &SealedBatch,
        now: Timestamp,
    ) -> Result<Staged, AppendError> {
        self.load_window(log)?;
        let mut fresh: Vec<usize> = Vec::new();
        let mut fresh_keys: HashMap<EventKey, usize> = HashMap::new();
        let mut compare = Vec::new();
        let mut last_sequence = 0;
        let stage = stages.of(log, || self.tip(log));
        let size = stage.size();
        for index in 0..sealed.count() {
            // INVARIANT: drafts were checked at ingest, so that each has a key.
            let Some(key) = key_of(sealed, index) else {
                continue;
            };
            let stage = stages.of(log, || self.tip(log));
            let pending = stage.sequence_of_key(&key);
            let known = self
                .windows
                .get(&log.number())
                .and_then(|window| window.get(&key))
                // An erased event is not known by what it said, before a restart as after it: handed in again, it is a new one.
                .filter(|sequence| self.reader.erased_by(log.number(), *sequence).is_none())
                .or(pending);
            if let Some(sequence) = known {
                compare.push((index, sequence));
                last_sequence = sequence;
            } else if let Some(first) = fresh_keys.get(&key) {
                // The same event twice in one batch: dropped if it is the same, a conflict if not.
                if sealed.event_bytes(*first) != sealed.event_bytes(index) {
                    return Err(AppendError::Conflict {
                        index,
                        sequence: size,
                    });
                }
            } else {
                fresh_keys.insert(key, index);
                fresh.push(index);
            }
        }
        let duplicates = (sealed.count() - fresh.len()) as u32;
        let stage = stages.of(log, || self.tip(log));
        self.check_repeats(stage, sealed, &compare)?;
        if !fresh.is_empty() {
            let chosen = if duplicates == 0 {
                sealed.clone()
            } else {
                sealed.select(&fresh)
            };
            last_sequence = self.extend(stages, log, &chosen, now)?;
            let first = last_sequence + 1 - chosen.count() as u64;
            let stage = stages.of(log, || self.tip(log));
            let places: HashMap<usize, u64> = fresh.iter().copied().zip(first..).collect();
            stage.add_keys(
                fresh_keys
                    .into_iter()
                    .map(|(key, index)| (key, places[&index])),
            );
        }
        Ok(Staged {
            last_sequence,
            duplicates,
        })
    }

    /// Gives entries their places at the end of a log; returns the last sequence. Events of an encrypted stream come behind the key-epoch entry that they are sealed under.
    fn extend(
        &mut self,
        stages: &mut Stages,
        log: &Arc<Log>,
        sealed: &SealedBatch,
        now: Timestamp,
    ) -> Result<u64, AppendError> {
        if !sealed.awaits_encryption() {
            let stage = stages.of(log, || self.tip(log));
            return stage.extend(sealed, now).map_err(full);
        }
        let key = self.sealing_key(stages, log, now)?;
        let stage = stages.of(log, || self.tip(log));
        Ok(stage.extend_encrypted(sealed, key, now))
    }

    /// The key for the next events of an encrypted log: the one in use, or a new draw, whose entry is staged ahead of them.
    fn sealing_key(
        &mut self,
        stages: &mut Stages,
        log: &Arc<Log>,
        now: Timestamp,
    ) -> Result<Arc<DataKey>, AppendError> {
        let current = self.sealings.get(&log.number());
        let stage = stages.of(log, || self.tip(log));
        let due = current.is_some_and(|current| {
            let (events, age) = (
                stage.size().saturating_sub(current.epoch()),
                now.0.saturating_sub(current.began.0),
            );
            log.settings().epoch_is_over(events, age)
        });
        let anew = log.take_wanted_epoch() || due;
        if let Some(current) = current.filter(|_| !anew) {
            return Ok(Arc::clone(&current.data_key));
        }
        let begun =
            self.keyring
                .begin(log.number(), log.origin(), stage.size(), now, current, anew);
        let (entry, sealing) = begun.map_err(|error| {
            if anew {
                log.want_epoch();
            }
            AppendError::Stopped {
                why: error.to_string(),
            }
        })?;
        stage.extend(&entry, now).map_err(full)?;
        let key = Arc::clone(&sealing.data_key);
        self.sealings.insert(log.number(), sealing);
        Ok(key)
    }

    /// A new epoch, if nothing in this commit has begun it already.
    fn stage_epoch(
        &mut self,
        stages: &mut Stages,
        log: &Arc<Log>,
        now: Timestamp,
    ) -> Result<Staged, AppendError> {
        let key_entry = if log.wants_epoch() {
            self.sealing_key(stages, log, now)?.key_entry()
        } else {
            let sealing = self.sealings.get(&log.number());
            sealing.map_or(0, |sealing| sealing.data_key.key_entry())
        };
        Ok(Staged {
            last_sequence: key_entry,
            duplicates: 0,
        })
    }

    fn tip(&self, log: &Log) -> Tip {
        if let Some(tip) = self.tips.get(&log.number()) {
            return tip.clone();
        }
        let known = log.head();
        let stored = self
            .journal
            .as_ref()
            .and_then(|journal| journal.head(log.number()));
        let (range, last_leaf, last_time_us) = stored
            .map_or((CompactRange::new(), [0; 32], 0), |head| {
                (head.range, head.last_leaf, head.last_time_us)
            });
        Tip {
            range,
            last_leaf,
            last_time_us,
            signature: known.signature,
            producer: known.producer,
        }
    }

    fn store(&mut self, stages: &mut [Stage]) -> Result<(), AppendError> {
        if stages.is_empty() {
            return Ok(());
        }
        for stage in &mut *stages {
            stage.seal().map_err(full)?;
        }
        let parts = stages.iter_mut().map(Stage::take_part).collect();
        let Some(journal) = &mut self.journal else {
            return Err(AppendError::ended());
        };
        match journal.commit(parts) {
            Ok(_) => Ok(()),
            Err(CommitError::Full) => Err(AppendError::DiskFull),
            Err(error) => {
                // Whether the bytes are stable is not known: nothing more is acknowledged until the disk has been read again.
                let why = error.to_string();
                tracing::error!(%why, "appending has stopped");
                let _ = self.stopped.set(why.clone());
                Err(AppendError::Stopped { why })
            }
        }
    }

    /// After the answers, since waking a thread takes its time; and only where a segment was taken.
    fn prepare_ahead(&self) {
        let lacks = self.journal.as_ref().is_some_and(Journal::lacks_segment);
        if lacks {
            // Where the channel is full, the segments' thread is at it already.
            let _ = self.nudge.try_send(());
        }
    }

    /// The entries are durable: sign, tell the readers, remember who published.
    fn integrate(&mut self, mut stage: Stage) {
        let number = stage.log.number();
        let size = stage.size();
        let root = stage.tip.range.root();
        if stage.log.kind() != LogKind::Copy {
            let origin = stage.log.origin().as_str().to_owned();
            let checkpoint = Checkpoint { origin, size, root };
            let signed = self.signer.sign(&checkpoint, self.clock.as_ref());
            stage.tip.signature = Some(Arc::new(signed));
        }
        for run in stage.runs() {
            self.publishers.add(number, run);
        }
        if let Some(window) = self.windows.get_mut(&number) {
            for (key, sequence) in stage.keys() {
                window.add(*key, *sequence);
            }
        }
        stage.log.publish_head(LogHead {
            size,
            root,
            last_leaf: stage.tip.last_leaf,
            last_time_us: stage.tip.last_time_us,
            signature: stage.tip.signature.clone(),
            producer: stage.tip.producer.clone(),
        });
        self.tips.insert(number, stage.tip);
    }

    /// A repeat is answered like the first time only if it is the same event as the one stored, or as the one that this commit takes.
    fn check_repeats(
        &self,
        stage: &Stage,
        sealed: &SealedBatch,
        compare: &[(usize, u64)],
    ) -> Result<(), AppendError> {
        let log = &stage.log;
        for &(index, sequence) in compare {
            if sequence >= log.size() {
                if stage.event_bytes(sequence) != Some(sealed.event_bytes(index)) {
                    return Err(AppendError::Conflict { index, sequence });
                }
                continue;
            }
            let runs = self
                .reader
                .read(log.number(), sequence, 1, u64::MAX)
                .map_err(|error| AppendError::Stopped {
                    why: error.to_string(),
                })?;
            let stored = runs.iter().flat_map(|run| run.iter()).next();
            let same = stored.is_some_and(|stored| {
                // What was erased cannot be compared any more: its number says which event it was.
                stored.erased_by.is_some() || self.is_same(log, &stored, sealed.event_bytes(index))
            });
            if !same {
                return Err(AppendError::Conflict { index, sequence });
            }
        }
        Ok(())
    }

    /// Whether a stored entry is this event; an encrypted one is opened to see it.
    fn is_same(&self, log: &Log, stored: &StoredEntry<'_>, bytes: &[u8]) -> bool {
        if !is_sealed_event(stored.entry) {
            return stored.content.get(CONTENT_SALT_BYTES..) == Some(bytes);
        }
        let opened = self.keyring.open(log.number(), log.origin(), stored);
        opened.is_ok_and(|event| {
            let (attributes, data_part) = event.into_parts();
            bytes.strip_prefix(attributes.as_slice()) == Some(&data_part)
        })
    }

    /// Reads the last entries of a stream the first time that an unnumbered event comes for it.
    fn load_window(&mut self, log: &Log) -> Result<(), AppendError> {
        if self.windows.contains_key(&log.number()) {
            return Ok(());
        }
        let mut window = UnnumberedWindow::default();
        let size = log.size();
        let mut next = size.saturating_sub(UNNUMBERED_WINDOW as u64);
        while next < size {
            let runs = self
                .reader
                .read(log.number(), next, 4096, 8 << 20)
                .map_err(|error| AppendError::Stopped {
                    why: error.to_string(),
                })?;
            let before = next;
            for stored in runs.iter().flat_map(|run| run.iter()) {
                if let Ok(attributes) = Attributes::check(stored.attributes()) {
                    window.add(event_key(&attributes), stored.sequence);
                }
                next = stored.sequence + 1;
            }
            if next == before {
                break;
            }
        }
        self.windows.insert(log.number(), window);
        Ok(())
    }

    fn close(&mut self) {
        let Some(journal) = self.journal.take() else {
            return;
        };
        if self.stopped.get().is_some() {
            return;
        }
        let commit = journal.last_commit();
        let snapshot = postcard::to_stdvec(&self.publishers).unwrap_or_default();
        if let Err(error) = journal.write_snapshot(PUBLISHERS_SNAPSHOT, commit, &snapshot) {
            tracing::warn!(%error, "the snapshot of the publishers was not written; it is rebuilt from the log");
        }
        if let Err(error) = journal.close() {
            tracing::warn!(%error, "closing the journal failed; the next start reads it as after a crash");
        }
    }
}

/// The earliest moment of the commit after one that began and ended then and signed so many checkpoints.
fn next_commit(started: Duration, ended: Duration, signed: u32) -> Duration {
    let share = started + SIGNATURE_TIME * signed.saturating_mul(SIGNING_SHARE);
    share.min(ended + COMMIT_DELAY_MAX)
}

/// A thread that keeps the next segment ready, so that no commit waits for 64 MiB of zeros. It ends with the writer.
fn prepare_segments(preparer: Preparer) -> SyncSender<()> {
    let (nudge, nudged) = sync_channel(1);
    let prepare = move || {
        // A full disk fails at every commit: said once, until it goes well again.
        let mut said = false;
        while nudged.recv().is_ok() {
            let prepared = preparer.prepare_next();
            let failed = prepared.is_err();
            if let Err(error) = prepared
                && !said
            {
                tracing::warn!(%error, "the next segment could not be prepared; it is tried again with each commit");
            }
            said = failed;
        }
    };
    let thread = std::thread::Builder::new().name("countersign-segments".to_owned());
    if let Err(error) = thread.spawn(prepare) {
        tracing::warn!(%error, "no thread for preparing segments; commits prepare them themselves");
    }
    nudge
}

fn load_publishers(reader: &JournalReader) -> Result<Publishers, ReadError> {
    let snapshot = reader.read_snapshot(PUBLISHERS_SNAPSHOT).ok().flatten();
    let (mut publishers, since) = snapshot
        .and_then(|(commit, bytes)| Some((postcard::from_bytes(&bytes).ok()?, commit)))
        .unwrap_or((Publishers::default(), 0));
    reader.annotations(None, since + 1, &mut |annotation| {
        // The open segment shows all its commits: what the snapshot holds is not added twice.
        if annotation.commit <= since {
            return true;
        }
        if let Ok(runs) = postcard::from_bytes::<Vec<PublicationRun>>(&annotation.annotation) {
            for run in &runs {
                publishers.add(annotation.log, run);
            }
        }
        true
    })?;
    Ok(publishers)
}

/// No log gets there: a million events a second take 146,000 years.
fn full(error: NotNext) -> AppendError {
    AppendError::Stopped {
        why: format!("the log has no room in its tree: {error}"),
    }
}

/// The identity of a sealed event.
fn key_of(sealed: &SealedBatch, index: usize) -> Option<EventKey> {
    let attribute_bytes = sealed.lengths.get(index)?.attribute_bytes as usize;
    let attributes = sealed.event_bytes(index).get(..attribute_bytes)?;
    Some(event_key(&Attributes::check(attributes).ok()?))
}

fn weight(work: &Work) -> usize {
    match work {
        Work::Append { sealed, .. } => sealed.weight(),
        Work::Copy { batch, .. } => batch.content().len() + batch.entries().len(),
        Work::Erase { .. } | Work::NewEpoch { .. } | Work::Ask(_) => 0,
    }
}
