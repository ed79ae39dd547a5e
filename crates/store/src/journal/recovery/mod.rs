//! Opening: the commits are read and applied as they once were committed. Everything is read and judged before anything
//! is written; where recorded history is damaged, nothing is written at all.

mod reading;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use countersign_crypto::Entropy;
use countersign_tlog::CompactRange;

use super::erasing::{DONE_SNAPSHOT, Erasing};
use super::error::{DamagedRange, Flaw, OpenError, ReadError};
use super::format::FORMAT_VERSION;
use super::heads::{HeadFile, HeadSlot, LastSlot, ReadHeads, RecordedHeads};
use super::index::SegmentIndex;
use super::segment::{Preparer, Segment};
use super::state::{Logs, Shared};
use super::tiles::{self, Tails};
use super::types::{LogNumber, Options};
use super::{Active, Journal, JournalReader, check_segment_bytes, has_history, take_lock};
use crate::buffer::Buffers;
use crate::disk::{Disk, SyncSite};

/// What opening found and did.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Recovery {
    /// Number of the last commit.
    pub last_commit: u64,
    /// Commits that the head file did not yet know and that were kept.
    pub kept_beyond_heads: u64,
    /// Torn writes beyond the last whole commit, overwritten by zeros.
    pub cut: Vec<CutTail>,
    /// What was found damaged and made again from what is whole.
    pub warnings: Vec<Warning>,
}

/// A torn tail that was cut.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CutTail {
    /// The segment's file.
    pub file: PathBuf,
    /// Where the torn bytes began.
    pub offset: u64,
    /// Where they ended.
    pub end: u64,
    /// Why they are no commit.
    pub flaw: Flaw,
}

/// Something derived or redundant that was damaged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Warning {
    /// A slot of the head file was damaged; it was written again from the log, which is whole.
    HeadSlot {
        /// The slot's offset in the head file.
        offset: u64,
    },
    /// The index of a segment was missing or damaged and was made again.
    Index {
        /// The segment's number.
        segment: u32,
    },
    /// The tiles of a log were missing or damaged and were made again.
    Tiles {
        /// The log.
        log: LogNumber,
    },
}

impl Journal {
    /// Opens the journal of a directory.
    ///
    /// # Errors
    /// [`OpenError`]; with [`OpenError::Damage`] nothing has been written.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
        entropy: Box<dyn Entropy>,
    ) -> Result<(Self, Recovery), OpenError> {
        check_segment_bytes(options.segment_bytes).map_err(OpenError::SegmentBytes)?;
        let segments = dir.join("segments");
        // Looking before locking, so that nothing is created where there is no journal.
        let names = match disk.list(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(OpenError::Missing(dir.to_path_buf()));
            }
            other => other.map_err(at(dir))?,
        };
        if !names.iter().any(|name| name == "heads") {
            let history = has_history(&*disk, &segments, &names).map_err(at(&segments))?;
            return Err(if history {
                OpenError::Heads(dir.join("heads"))
            } else {
                OpenError::Missing(dir.to_path_buf())
            });
        }
        let lock = take_lock(&*disk, dir).map_err(|error| match error {
            None => OpenError::Locked(dir.to_path_buf()),
            Some(source) => at(dir)(source),
        })?;
        let (mut heads, recorded) = read_heads(&*disk, dir)?;
        let scan = Scan::run(&*disk, dir, heads.journal(), &recorded)?;

        let mut recovery = Recovery {
            last_commit: scan.logs.commit,
            kept_beyond_heads: scan.logs.commit.saturating_sub(recorded.commit()),
            cut: scan.cut.iter().map(|(_, cut)| cut.clone()).collect(),
            warnings: scan.warnings.clone(),
        };
        let offsets = recorded.damaged_slots.iter();
        recovery
            .warnings
            .extend(offsets.map(|&offset| Warning::HeadSlot { offset }));
        scan.make_durable(&*disk, dir).map_err(at(&segments))?;
        write_heads(&mut heads, &recorded, &scan).map_err(at(&dir.join("heads")))?;
        for index in &scan.new_indexes {
            // Derived; without it the next start scans the segment.
            let _ = index.write(&*disk, &segments);
        }

        let journal = heads.journal();
        let next_number = scan.next_number();
        let Scan {
            logs,
            active,
            ready,
            broken_tiles,
            ..
        } = scan;
        let shared = Arc::new(Shared::new(
            Arc::clone(&disk),
            dir.to_path_buf(),
            journal,
            logs,
        ));
        for log in broken_tiles {
            rebuild_tiles(&shared, LogNumber(log))?;
            let log = LogNumber(log);
            recovery.warnings.push(Warning::Tiles { log });
        }
        let preparer = Preparer::new(
            disk,
            segments,
            journal,
            options.segment_bytes,
            entropy,
            ready,
            next_number,
        );
        let mut journal = Self {
            shared,
            options,
            heads,
            preparer,
            active,
            buffers: Buffers::default(),
            unborn: BTreeMap::new(),
            erasing: Erasing::default(),
            poisoned: false,
            _lock: lock,
        };
        journal.resume_erasing();
        Ok((journal, recovery))
    }
}

impl Journal {
    /// What was erased in commits that the snapshot does not cover may still be there.
    fn resume_erasing(&mut self) {
        let done = self.reader().read_snapshot(DONE_SNAPSHOT).ok().flatten();
        let done = done.map_or(0, |(commit, _)| commit);
        self.erasing.collect(&mut self.shared.write().logs, done);
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> OpenError + use<> {
    let path = path.to_path_buf();
    move |source| OpenError::Io { path, source }
}

fn read_heads(disk: &dyn Disk, dir: &Path) -> Result<(HeadFile, RecordedHeads), OpenError> {
    let path = dir.join("heads");
    match HeadFile::read(disk, &path).map_err(at(&path))? {
        ReadHeads::Read(read) => Ok(*read),
        ReadHeads::Missing | ReadHeads::HeaderDamaged => Err(OpenError::Heads(path)),
        ReadHeads::Newer(found) => Err(OpenError::Newer {
            found,
            known: FORMAT_VERSION,
        }),
    }
}

/// The state of the disk, read and judged.
struct Scan {
    logs: Logs,
    active: Option<Active>,
    /// Where the last commit ends: segment number and offset.
    end: (u32, u64),
    /// Segments after the one in use; nothing is stored in them.
    ready: Vec<Segment>,
    /// The last commit where it is beyond the recorded heads: it is written again and synced. After a sync that failed
    /// the system may hold pages as clean that never reached the disk, and would not write them for a sync alone.
    last: Option<(Segment, u64, Bytes)>,
    cut: Vec<(Segment, CutTail)>,
    new_indexes: Vec<SegmentIndex>,
    broken_tiles: BTreeSet<u32>,
    warnings: Vec<Warning>,
}

impl Scan {
    fn next_number(&self) -> u32 {
        let last = self.ready.last().map(|segment| segment.header.number);
        let active = self
            .active
            .as_ref()
            .map(|active| active.segment.header.number);
        last.max(active).unwrap_or(self.end.0).saturating_add(1)
    }

    /// What is kept beyond the recorded heads is made durable before anybody relies on it, and torn tails are removed.
    /// A crash in here leaves what was there before, partly zeroed: the next start finds the same last commit.
    fn make_durable(&self, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        disk.sync_dir(&dir.join("segments"), SyncSite::RecoverySegments)?;
        disk.sync_dir(dir, SyncSite::RecoveryRoot)?;
        let mut touched: BTreeMap<u32, &Segment> = BTreeMap::new();
        if let Some((segment, offset, bytes)) = &self.last {
            segment.file.write_all_at(bytes, *offset)?;
            touched.insert(segment.header.number, segment);
        }
        for (segment, cut) in &self.cut {
            let mut offset = cut.offset;
            while offset < cut.end {
                let len = (cut.end - offset).min(1 << 20);
                let zeros = vec![0; usize::try_from(len).map_err(io::Error::other)?];
                segment.file.write_all_at(&zeros, offset)?;
                offset += len;
            }
            touched.insert(segment.header.number, segment);
        }
        for segment in touched.values() {
            segment.file.sync_data(SyncSite::Recovery)?;
        }
        Ok(())
    }
}

fn write_heads(heads: &mut HeadFile, recorded: &RecordedHeads, scan: &Scan) -> io::Result<()> {
    let logs = &scan.logs;
    if logs.commit == 0 {
        return Ok(());
    }
    let last = LastSlot {
        segment: scan.end.0,
        end: scan.end.1,
        commit: logs.commit,
        digest: logs.digest,
    };
    let slots: BTreeMap<u32, HeadSlot> = logs
        .logs
        .values()
        .map(|log| {
            let slot = HeadSlot {
                size: log.size(),
                commit: log.last_commit,
                root: log.root,
            };
            (log.number, slot)
        })
        .collect();
    let current =
        recorded.damaged_slots.is_empty() && recorded.last == Some(last) && recorded.logs == slots;
    if current {
        return Ok(());
    }
    if let Some((number, _)) = slots.last_key_value() {
        heads.reserve(*number)?;
    }
    let slots: Vec<(u32, HeadSlot)> = slots.into_iter().collect();
    heads.rewrite(&last, &slots)
}

/// Makes all tiles of a log again from its entries.
fn rebuild_tiles(shared: &Arc<Shared>, log: LogNumber) -> Result<(), OpenError> {
    let reader = JournalReader::new(Arc::clone(shared));
    let dir = shared.log_dir(log.0);
    let size = reader.size(log).unwrap_or(0);
    let mut range = CompactRange::new();
    let mut tails = Tails::default();
    let step = 1 << 16;
    let mut first = 0;
    while first < size {
        let end = size.min(first + step);
        let read = reader.leaf_hashes(log, first, end, &mut |leaf| {
            tails.push(0, &[leaf]);
            range.append_with(leaf, &mut |level, _, hash| {
                if level % 8 == 0 {
                    tails.push(level / 8, &[hash]);
                }
            });
        });
        read.map_err(|error| match error {
            ReadError::Damage(range) => OpenError::Damage(vec![*range]),
            ReadError::Io(source) => at(&dir)(source),
            // INVARIANT: the log is there and has this size.
            ReadError::UnknownLog(_) | ReadError::BeyondEnd { .. } => {
                at(&dir)(io::Error::other("the log shrank while it was read"))
            }
        })?;
        let writes = tiles::collect(&tails, end == size);
        // Derived: what cannot be written stays in memory.
        if tiles::write(&*shared.disk, &dir, &writes).is_ok() {
            tiles::forget(&mut tails, &writes);
        }
        first = end;
    }
    if let Some(state) = shared.write().logs.logs.get_mut(&log.0) {
        if range != state.range {
            return Err(OpenError::Damage(vec![DamagedRange {
                log: Some(log),
                origin: Some(state.origin.clone()),
                file: shared.segments(),
                offset: 0,
                first: 0,
                end: Some(size),
                flaw: Flaw::Tree,
            }]));
        }
        state.tails = tails;
    }
    Ok(())
}
