//! The journal: the entries and content of all logs of one data directory.
//!
//! ```text
//! lock                     one writer
//! heads                    newest acknowledged head of each log
//! segments/00000001.seg    commits, preallocated and synced in place
//! segments/00000001.idx    where the parts of a sealed segment are (derived)
//! logs/1/tile.0            leaf hashes of log 1, tile by tile (derived)
//! snapshots/NAME           state that is derived from commits (derived)
//! ```
//!
//! `schemas/journal.md` is the format, `docs/power-loss.md` what is promised and what cannot be.

mod commit;
mod erasing;
mod error;
mod format;
mod growth;
mod heads;
mod index;
mod reader;
mod recovery;
mod scan;
mod segment;
mod snapshot;
mod state;
mod tiles;
mod types;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use countersign_crypto::{Entropy, Hash};
use countersign_tlog::CompactRange;

pub use error::{
    Broken, CommitError, CreateError, DamagedRange, EraseError, Flaw, OpenError, OpenLogError,
    ReadError, SnapshotError,
};
pub use format::{
    ANNOTATION_BYTES_MAX, COMMIT_BYTES_MAX, COVER_BYTES_MAX, ERASURES_MAX, ORIGIN_BYTES_MAX,
    PARTS_MAX, SETTINGS_BYTES_MAX,
};
pub use growth::{Growth, NotNext};
pub use reader::{JournalReader, LogNodes};
pub use recovery::{CutTail, Recovery, Warning};
pub use segment::Preparer;
pub use types::{
    Annotation, Birth, Committed, ContentInput, Erasure, Head, LogInfo, LogKind, LogNumber,
    Options, PartInput, Run, StoredCheckpoint, StoredCover, StoredEntry,
};

use self::erasing::Erasing;
use self::heads::HeadFile;
use self::index::{IndexedLog, SegmentIndex};
use self::segment::{Segment, remove_if_there, segment_path};
use self::state::{LogState, Logs, PartRef, SealedSpan, Shared};
use crate::buffer::Buffers;
use crate::disk::{Disk, DiskLock, SyncSite};

const SEGMENT_BYTES_MIN: u64 = 4 << 10;

/// The writer of a journal: owned by one thread. [`JournalReader`]s are made from it and go where they like.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    options: Options,
    heads: HeadFile,
    preparer: Preparer,
    active: Option<Active>,
    /// Where commits are put together.
    buffers: Buffers,
    /// Logs that were opened and have no commit yet: nothing of them is on disk.
    unborn: BTreeMap<u32, Birth>,
    erasing: Erasing,
    poisoned: bool,
    _lock: Box<dyn DiskLock>,
}

/// The segment in use.
#[derive(Clone, Debug)]
struct Active {
    segment: Segment,
    /// Where the next commit begins.
    end: u64,
    first_commit: u64,
    /// Digest of the last commit before this segment.
    digest_before: Hash,
}

impl Journal {
    /// Creates an empty journal in a directory, which is created where it is missing (its parent has to exist).
    ///
    /// # Errors
    /// [`CreateError`]. After a crash in here it can simply be called again.
    pub fn create(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
        mut entropy: Box<dyn Entropy>,
    ) -> Result<Self, CreateError> {
        check_segment_bytes(options.segment_bytes).map_err(CreateError::SegmentBytes)?;
        let io = |source| CreateError::Io {
            path: dir.to_path_buf(),
            source,
        };
        disk.create_dir(dir).map_err(io)?;
        if let Some(parent) = dir.parent() {
            // The parent of a bare name is the current directory.
            let here = Path::new(".");
            let parent = if parent == Path::new("") {
                here
            } else {
                parent
            };
            disk.sync_dir(parent, SyncSite::CreateParent).map_err(io)?;
        }
        let lock = take_lock(&*disk, dir).map_err(|error| match error {
            None => CreateError::Locked(dir.to_path_buf()),
            Some(source) => io(source),
        })?;
        let names = disk.list(dir).map_err(io)?;
        let segments = dir.join("segments");
        let used = names.iter().any(|name| name == "heads")
            || has_history(&*disk, &segments, &names).map_err(io)?;
        if used {
            return Err(CreateError::Exists(dir.to_path_buf()));
        }
        for name in ["logs", "segments", "snapshots"] {
            disk.create_dir(&dir.join(name)).map_err(io)?;
        }
        let mut journal = [0; 16];
        entropy.fill(&mut journal);
        // What an interrupted creation left; `has_history` has found nothing stored in it.
        remove_if_there(&*disk, &segment_path(&segments, 1)).map_err(io)?;
        let preparer = Preparer::new(
            Arc::clone(&disk),
            segments,
            journal,
            options.segment_bytes,
            entropy,
            Vec::new(),
            1,
        );
        let segment = preparer.take(0, None).map_err(io)?;
        // The head file comes last: where it is, everything else is. Without this sync all of it may be gone again.
        let heads = HeadFile::create(&*disk, &dir.join("heads"), journal).map_err(io)?;
        disk.sync_dir(dir, SyncSite::CreateRoot).map_err(io)?;
        let active = Active {
            segment,
            end: format::SEGMENT_HEADER_BYTES,
            first_commit: 1,
            digest_before: [0; 32],
        };
        Ok(Self {
            shared: Arc::new(Shared::new(
                disk,
                dir.to_path_buf(),
                journal,
                Logs::default(),
            )),
            options,
            heads,
            preparer,
            active: Some(active),
            buffers: Buffers::default(),
            unborn: BTreeMap::new(),
            erasing: Erasing::default(),
            poisoned: false,
            _lock: lock,
        })
    }

    /// A reader of everything that has been committed.
    #[must_use]
    pub fn reader(&self) -> JournalReader {
        JournalReader::new(Arc::clone(&self.shared))
    }

    /// The handle that prepares segments ahead.
    #[must_use]
    pub fn preparer(&self) -> Preparer {
        self.preparer.clone()
    }

    /// Whether no segment is ready for when the present one is full. False while one is being prepared.
    #[must_use]
    pub fn lacks_segment(&self) -> bool {
        self.preparer.lacks_segment()
    }

    /// Opens a new log under the next number. It is stored with its first commit; until then a restart forgets it.
    ///
    /// # Errors
    /// [`OpenLogError`].
    pub fn open_log(&mut self, birth: Birth) -> Result<LogNumber, OpenLogError> {
        if birth.origin.len() > ORIGIN_BYTES_MAX || birth.settings.len() > SETTINGS_BYTES_MAX {
            return Err(OpenLogError::TooLong {
                origin_bytes: birth.origin.len(),
                settings_bytes: birth.settings.len(),
            });
        }
        let published = self.shared.read();
        let stored = published.logs.logs.values();
        let taken = stored
            .map(|log| (log.number, &log.origin))
            .chain(self.unborn.iter().map(|(n, birth)| (*n, &birth.origin)))
            .find(|(_, origin)| **origin == birth.origin);
        if let Some((number, _)) = taken {
            return Err(OpenLogError::Exists {
                origin: birth.origin,
                number: LogNumber(number),
            });
        }
        let last = published.logs.logs.keys().next_back().copied();
        let last_unborn = self.unborn.keys().next_back().copied();
        drop(published);
        let number = last
            .max(last_unborn)
            .unwrap_or(0)
            .checked_add(1)
            .filter(|&number| number < 1 << 24)
            .ok_or(OpenLogError::NoNumberLeft)?;
        self.unborn.insert(number, birth);
        Ok(LogNumber(number))
    }

    /// The durable end of a log; `None` where there is no such log. A log without a commit is empty.
    #[must_use]
    pub fn head(&self, log: LogNumber) -> Option<Head> {
        if self.unborn.contains_key(&log.0) {
            return Some(Head {
                size: 0,
                range: CompactRange::new(),
                last_leaf: [0; 32],
                last_time_us: 0,
                checkpoint: None,
                cover: None,
            });
        }
        self.reader().head(log)
    }

    /// All logs, those without a commit too, in order of their numbers.
    #[must_use]
    pub fn logs(&self) -> Vec<LogInfo> {
        let mut logs = self.reader().logs();
        logs.extend(self.unborn.iter().map(|(number, birth)| LogInfo {
            number: LogNumber(*number),
            kind: birth.kind,
            origin: birth.origin.clone(),
            settings: birth.settings.clone().into(),
        }));
        logs.sort_by_key(|log| log.number);
        logs
    }

    /// Number of the last commit, 0 before the first.
    #[must_use]
    pub fn last_commit(&self) -> u64 {
        self.shared.read().logs.commit
    }

    /// Whether an earlier failure forbids writing until the journal is opened again.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Makes the recorded heads durable, so that damage up to here is never taken for a torn tail. Costs one fdatasync.
    ///
    /// # Errors
    /// [`CommitError::Poisoned`], [`CommitError::Io`].
    pub fn sync_heads(&mut self) -> Result<(), CommitError> {
        if self.poisoned {
            return Err(CommitError::Poisoned);
        }
        self.heads.sync().map_err(|source| {
            self.poisoned = true;
            CommitError::Io { source }
        })
    }

    /// Ends writing: heads durable, tiles written. Readers go on reading.
    ///
    /// # Errors
    /// [`CommitError::Poisoned`], [`CommitError::Io`]. Nothing acknowledged is in danger then.
    pub fn close(mut self) -> Result<(), CommitError> {
        self.sync_heads()?;
        let logs: Vec<u32> = self.shared.read().logs.logs.keys().copied().collect();
        self.write_tails(&logs);
        Ok(())
    }

    /// Turns the segment into a sealed one: its parts go to an index file, the tiles of its logs to theirs. Both are
    /// derived, and a failure to write them only makes the next start slower.
    fn seal(&self, full: &Active) {
        let index = {
            let mut published = self.shared.write();
            let end = full.end;
            seal_parts(&mut published.logs, full, end)
        };
        let _ = index.write(&*self.shared.disk, &self.shared.segments());
        let logs: Vec<u32> = index.logs.iter().map(|log| log.number).collect();
        self.shared
            .caches
            .put_index(index.header.number, &index.parts);
        self.write_tails(&logs);
    }

    fn write_tails(&self, logs: &[u32]) {
        for log in logs {
            let writes = match self.shared.read().logs.logs.get(log) {
                Some(state) => tiles::collect(&state.tails, true),
                None => continue,
            };
            let dir = self.shared.log_dir(*log);
            if tiles::write(&*self.shared.disk, &dir, &writes).is_ok()
                && let Some(state) = self.shared.write().logs.logs.get_mut(log)
            {
                tiles::forget(&mut state.tails, &writes);
            }
        }
    }
}

/// Moves the parts of unsealed segments of all logs into an index. At any time only one segment is not sealed.
fn seal_parts(logs: &mut Logs, full: &Active, end: u64) -> SegmentIndex {
    let segment = full.segment.header.number;
    let mut parts: Vec<PartRef> = Vec::new();
    let mut indexed = Vec::new();
    for log in logs.logs.values_mut() {
        let (Some(first), Some(last)) = (log.parts.front(), log.parts.back()) else {
            continue;
        };
        let (first, last) = (first.first, last.end());
        let born_here = log.parts.iter().any(|part| part.birth_len > 0);
        indexed.push(IndexedLog::of(log, born_here));
        log.sealed.push(SealedSpan {
            segment,
            first,
            end: last,
        });
        parts.extend(std::mem::take(&mut log.parts));
    }
    parts.sort_unstable_by_key(|part| (part.commit, part.index));
    SegmentIndex {
        header: full.segment.header,
        first_commit: full.first_commit,
        last_commit: logs.commit,
        digest_before: full.digest_before,
        digest: logs.digest,
        end,
        logs: indexed,
        parts,
    }
}

fn check_segment_bytes(bytes: u64) -> Result<(), u64> {
    if (SEGMENT_BYTES_MIN..=format::SEGMENT_BYTES_MAX).contains(&bytes)
        && bytes.is_multiple_of(format::SECTOR)
    {
        Ok(())
    } else {
        Err(bytes)
    }
}

/// Takes the writer's lock; `Err(None)` where somebody else has it.
fn take_lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn DiskLock>, Option<std::io::Error>> {
    disk.lock(&dir.join("lock")).map_err(|error| {
        let held = error.kind() == std::io::ErrorKind::WouldBlock;
        (!held).then_some(error)
    })
}

/// Whether segments hold anything, although there is no head file: more than one segment, or bytes behind a header.
fn has_history(disk: &dyn Disk, segments: &Path, names: &[String]) -> std::io::Result<bool> {
    if !names.iter().any(|name| name == "segments") {
        return Ok(false);
    }
    let first: PathBuf = segment_path(segments, 1);
    for name in disk.list(segments)? {
        if name.ends_with(".new") {
            continue;
        }
        if Some(name.as_str()) != first.file_name().and_then(|name| name.to_str()) {
            return Ok(true);
        }
        let file = disk.open(&first)?;
        let mut at = format::SEGMENT_HEADER_BYTES;
        let len = file.len()?;
        while at < len {
            let piece = crate::disk::read_vec(
                &*file,
                at,
                usize::try_from((len - at).min(1 << 20)).unwrap_or(1 << 20),
            )?;
            if piece.iter().any(|&byte| byte != 0) {
                return Ok(true);
            }
            at += piece.len() as u64;
        }
    }
    Ok(false)
}

impl LogState {
    fn head(&self) -> Head {
        Head {
            size: self.size(),
            range: self.range.clone(),
            last_leaf: self.last_leaf,
            last_time_us: self.last_time_us,
            checkpoint: self.checkpoint,
            cover: self.cover.clone(),
        }
    }
}
