//! Opening: the commits are read and applied as they once were committed. Everything is read and judged before anything
//! is written; where recorded history is damaged, nothing is written at all.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use countersign_crypto::Entropy;
use countersign_tlog::CompactRange;

use super::error::{DamagedRange, Flaw, OpenError, ReadError};
use super::format::{CommitHeader, FORMAT_VERSION, PartHeader, SEGMENT_HEADER_BYTES};
use super::heads::{HeadFile, HeadSlot, LastSlot, ReadHeads, RecordedHeads};
use super::index::SegmentIndex;
use super::scan::{Remains, read_commit, read_header, read_parts, search_rest};
use super::segment::{Preparer, Segment, segment_path};
use super::state::{LogState, Logs, SealedSpan, Shared};
use super::tiles::{self, Tails};
use super::types::{LogNumber, Options};
use super::{
    Active, Journal, JournalReader, check_segment_bytes, has_history, seal_parts, take_lock,
};
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
        let journal = Self {
            shared,
            options,
            heads,
            preparer,
            active,
            unborn: BTreeMap::new(),
            poisoned: false,
            _lock: lock,
        };
        Ok((journal, recovery))
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

/// What goes along while segments are read.
struct Reading<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    recorded: &'a RecordedHeads,
    durable: u64,
    /// Logs whose tails in memory are not those of the log's size yet.
    stale_tails: BTreeSet<u32>,
    scan: Scan,
}

/// Where reading stopped in a segment.
struct Stop {
    active: Active,
    flaw: Flaw,
}

impl Scan {
    fn run(
        disk: &dyn Disk,
        dir: &Path,
        journal: [u8; 16],
        recorded: &RecordedHeads,
    ) -> Result<Self, OpenError> {
        let mut reading = Reading {
            disk,
            dir,
            recorded,
            durable: recorded.commit(),
            stale_tails: BTreeSet::new(),
            scan: Self {
                logs: Logs::default(),
                active: None,
                end: (1, SEGMENT_HEADER_BYTES),
                ready: Vec::new(),
                last: None,
                cut: Vec::new(),
                new_indexes: Vec::new(),
                broken_tiles: BTreeSet::new(),
                warnings: Vec::new(),
            },
        };
        let segments = reading.open_segments(journal)?;
        let rest = reading.read_all(&segments)?;
        reading.judge(rest)?;
        reading.finish_tails()?;
        Ok(reading.scan)
    }

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

impl Reading<'_> {
    fn segments_dir(&self) -> PathBuf {
        self.dir.join("segments")
    }

    fn open_segments(&self, journal: [u8; 16]) -> Result<Vec<Segment>, OpenError> {
        let dir = self.segments_dir();
        let names = match self.disk.list(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other.map_err(at(&dir))?,
        };
        let numbers: BTreeSet<u32> = names
            .iter()
            .filter_map(|name| name.strip_suffix(".seg")?.parse().ok())
            .collect();
        let mut segments = Vec::new();
        let last = numbers.last().copied().unwrap_or(0).max(1);
        for number in 1..=last {
            let path = segment_path(&dir, number);
            let opened = if numbers.contains(&number) {
                Segment::open(self.disk, &dir, number, journal).map_err(at(&path))?
            } else {
                None
            };
            match opened {
                Some(segment) => segments.push(segment),
                // The header was synced before the file got its name, so no power loss explains this.
                None => return Err(self.file_damage(&path, &segments)),
            }
        }
        Ok(segments)
    }

    /// A segment that cannot be opened: which logs it hit is as good as unknown before anything was read, but the
    /// recorded heads and the segments before it tell how far each log reached.
    fn file_damage(&self, path: &Path, before: &[Segment]) -> OpenError {
        let mut logs = Logs::default();
        for segment in before {
            let index = SegmentIndex::read(self.disk, &self.segments_dir(), &segment.header);
            if let Ok(Some(index)) = index
                && apply_index(&mut logs, &index, segment)
            {
                continue;
            }
            let mut offset = SEGMENT_HEADER_BYTES;
            while let Ok(Ok(found)) = read_commit(segment, offset, &logs, false) {
                offset = found.header.end();
                let header = found.header;
                logs.apply(
                    segment.header.number,
                    header.number,
                    header.offset,
                    found.digest,
                    found.parts,
                );
            }
        }
        self.damage_in(&logs, path, 0, Flaw::File, &[])
    }

    /// Reads all segments; the answer is where it stopped, with everything that lies behind.
    fn read_all(&mut self, segments: &[Segment]) -> Result<Vec<(Segment, Stop)>, OpenError> {
        let mut stops = Vec::new();
        for (at_index, segment) in segments.iter().enumerate() {
            let next = segments.get(at_index + 1);
            if self.try_index(segment)? {
                self.scan.active = None;
                if !self.continues(next)? {
                    self.scan.ready = segments[at_index + 1..].to_vec();
                    return Ok(stops);
                }
                continue;
            }
            let stop = self.read_segment(segment)?;
            if self.continues(next)? {
                // The journal goes on in the next segment, so this one is sealed; only its index is missing.
                let index = seal_parts(&mut self.scan.logs, &stop.active, stop.active.end);
                self.scan.warnings.push(Warning::Index {
                    segment: segment.header.number,
                });
                self.scan.new_indexes.push(index);
                continue;
            }
            self.scan.active = Some(stop.active.clone());
            stops.push((segment.clone(), stop));
            self.scan.ready = segments[at_index + 1..].to_vec();
            return Ok(stops);
        }
        Ok(stops)
    }

    /// Whether the next commit is the first of the next segment.
    fn continues(&self, next: Option<&Segment>) -> Result<bool, OpenError> {
        let Some(next) = next else { return Ok(false) };
        let path = segment_path(&self.segments_dir(), next.header.number);
        let header = read_header(next, SEGMENT_HEADER_BYTES).map_err(at(&path))?;
        Ok(header.is_ok_and(|header| {
            header.number == self.scan.logs.commit + 1 && header.previous == self.scan.logs.digest
        }))
    }

    fn try_index(&mut self, segment: &Segment) -> Result<bool, OpenError> {
        let dir = self.segments_dir();
        let path = segment_path(&dir, segment.header.number);
        let index = SegmentIndex::read(self.disk, &dir, &segment.header).map_err(at(&path))?;
        let Some(index) = index else { return Ok(false) };
        if !apply_index(&mut self.scan.logs, &index, segment) {
            return Ok(false);
        }
        self.scan.last = None;
        self.scan.end = (segment.header.number, index.end);
        for log in &index.logs {
            self.stale_tails.insert(log.number);
        }
        self.check_recorded(index.last_commit, &path, index.end)?;
        Ok(true)
    }

    fn read_segment(&mut self, segment: &Segment) -> Result<Stop, OpenError> {
        let path = segment_path(&self.segments_dir(), segment.header.number);
        let mut active = Active {
            segment: segment.clone(),
            end: SEGMENT_HEADER_BYTES,
            first_commit: self.scan.logs.commit + 1,
            digest_before: self.scan.logs.digest,
        };
        loop {
            let check_content = self.scan.logs.commit >= self.durable;
            let found = read_commit(segment, active.end, &self.scan.logs, check_content)
                .map_err(at(&path))?;
            let found = match found {
                Ok(found) => found,
                Err(flaw) => return Ok(Stop { active, flaw }),
            };
            for part in &found.parts {
                self.load_tails(part.header.log)?;
            }
            let header = found.header;
            self.scan.last = (header.number > self.durable)
                .then(|| (segment.clone(), header.offset, found.bytes.clone()));
            self.scan.logs.apply(
                segment.header.number,
                header.number,
                header.offset,
                found.digest,
                found.parts,
            );
            self.check_recorded(header.number, &path, header.offset)?;
            active.end = header.end();
            self.scan.end = (segment.header.number, active.end);
        }
    }

    /// Compares what was recorded with a commit with what the segments say after it.
    fn check_recorded(&self, commit: u64, path: &Path, offset: u64) -> Result<(), OpenError> {
        let logs = &self.scan.logs;
        let contradicts = self
            .recorded
            .last
            .is_some_and(|last| last.commit == commit && last.digest != logs.digest);
        if contradicts {
            return Err(self.damage(path, offset, Flaw::Head, &[]));
        }
        for (number, slot) in &self.recorded.logs {
            if slot.commit != commit {
                continue;
            }
            let log = logs.logs.get(number);
            let good = log.is_some_and(|log| {
                // An index shows a log at the segment's end, where the slot may be of an earlier commit.
                log.last_commit != commit || (log.size() == slot.size && log.root == slot.root)
            });
            if !good {
                return Err(self.damage(path, offset, Flaw::Head, &[]));
            }
        }
        Ok(())
    }

    /// Decides whether what lies behind the last good commit is a torn tail or damage.
    fn judge(&mut self, stops: Vec<(Segment, Stop)>) -> Result<(), OpenError> {
        let commit = self.scan.logs.commit;
        let dir = self.segments_dir();
        let mut places: Vec<(Segment, u64, Flaw)> = Vec::new();
        for (segment, stop) in stops {
            places.push((segment, stop.active.end, stop.flaw));
        }
        for segment in &self.scan.ready {
            places.push((segment.clone(), SEGMENT_HEADER_BYTES, Flaw::Absent));
        }
        let mut later: Vec<PartHeader> = Vec::new();
        let mut whole_later = false;
        let mut cut = Vec::new();
        for (segment, from, flaw) in &places {
            let path = segment_path(&dir, segment.header.number);
            let Remains {
                later: headers,
                written,
            } = search_rest(segment, *from, commit).map_err(at(&path))?;
            let at_start = self.later_at_start(segment, *from)?;
            for header in headers.iter().chain(&at_start) {
                whole_later = true;
                if let Ok(parts) = read_parts(segment, header).map_err(at(&path))? {
                    later.extend(parts);
                }
            }
            if let (Some((start, _)), Some((_, end))) = (written.first(), written.last()) {
                let flaw = match flaw {
                    // Sectors of a torn write without its first one.
                    Flaw::Absent => Flaw::Header,
                    other => *other,
                };
                let tail = CutTail {
                    file: path,
                    offset: *start,
                    end: *end,
                    flaw,
                };
                cut.push((segment.clone(), tail));
            }
        }
        // A later commit was written after the sync of this one, so this one was whole once.
        if commit < self.durable || whole_later {
            let (path, offset, flaw) = match places.first() {
                Some((segment, offset, flaw)) => {
                    (segment_path(&dir, segment.header.number), *offset, *flaw)
                }
                None => {
                    let (number, end) = self.scan.end;
                    (segment_path(&dir, number), end, Flaw::Absent)
                }
            };
            return Err(self.damage(&path, offset, flaw, &later));
        }
        self.check_sizes()?;
        self.scan.cut = cut;
        Ok(())
    }

    /// A whole header at the very place where reading stopped, of a commit that does not follow the last one read: what
    /// is between is gone, or what was read is not what was there when it was written.
    fn later_at_start(
        &self,
        segment: &Segment,
        from: u64,
    ) -> Result<Option<CommitHeader>, OpenError> {
        let path = segment_path(&self.segments_dir(), segment.header.number);
        let header = read_header(segment, from).map_err(at(&path))?;
        let logs = &self.scan.logs;
        Ok(header
            .ok()
            .filter(|header| header.number != logs.commit + 1 || header.previous != logs.digest))
    }

    /// No log may be shorter than its recorded head.
    fn check_sizes(&self) -> Result<(), OpenError> {
        let short = self.recorded.logs.iter().any(|(number, slot)| {
            self.scan
                .logs
                .logs
                .get(number)
                .is_none_or(|log| log.size() < slot.size)
        });
        if short {
            let (number, end) = self.scan.end;
            let path = segment_path(&self.segments_dir(), number);
            return Err(self.damage(&path, end, Flaw::Head, &[]));
        }
        Ok(())
    }

    fn load_tails(&mut self, log: u32) -> Result<(), OpenError> {
        if !self.stale_tails.remove(&log) {
            return Ok(());
        }
        let dir = self.dir.join("logs").join(log.to_string());
        if let Some(state) = self.scan.logs.logs.get_mut(&log) {
            match tiles::load_tails(self.disk, &dir, &state.range).map_err(at(&dir))? {
                Some(tails) => state.tails = tails,
                None => {
                    self.scan.broken_tiles.insert(log);
                }
            }
        }
        Ok(())
    }

    fn finish_tails(&mut self) -> Result<(), OpenError> {
        for log in std::mem::take(&mut self.stale_tails) {
            self.stale_tails.insert(log);
            self.load_tails(log)?;
        }
        Ok(())
    }

    fn damage(&self, path: &Path, offset: u64, flaw: Flaw, later: &[PartHeader]) -> OpenError {
        self.damage_in(&self.scan.logs, path, offset, flaw, later)
    }

    /// Names for each log what is missing: from its last good entry to the first one after the damage, or to the
    /// recorded head.
    fn damage_in(
        &self,
        logs: &Logs,
        path: &Path,
        offset: u64,
        flaw: Flaw,
        later: &[PartHeader],
    ) -> OpenError {
        let mut ends: BTreeMap<u32, u64> = BTreeMap::new();
        for (log, slot) in &self.recorded.logs {
            ends.insert(*log, slot.size);
        }
        let mut resumed: BTreeMap<u32, u64> = BTreeMap::new();
        for part in later {
            let first = resumed.entry(part.log).or_insert(part.first);
            *first = part.first.min(*first);
        }
        ends.extend(resumed);
        let mut ranges = Vec::new();
        for (log, end) in ends {
            let state: Option<&LogState> = logs.logs.get(&log);
            let first = state.map_or(0, LogState::size);
            let same_size_other_root = flaw == Flaw::Head && end > 0;
            if end > first || same_size_other_root {
                ranges.push(DamagedRange {
                    log: Some(LogNumber(log)),
                    origin: state.map(|state| state.origin.clone()),
                    file: path.to_path_buf(),
                    offset,
                    first: first.min(end.saturating_sub(1)),
                    end: Some(end),
                    flaw,
                });
            }
        }
        if ranges.is_empty() {
            ranges.push(DamagedRange {
                log: None,
                origin: None,
                file: path.to_path_buf(),
                offset,
                first: 0,
                end: None,
                flaw,
            });
        }
        OpenError::Damage(ranges)
    }
}

/// Takes over a sealed segment from its index; nothing is changed and the answer is `false` where it does not continue
/// the logs.
fn apply_index(logs: &mut Logs, index: &SegmentIndex, segment: &Segment) -> bool {
    let continues = index.first_commit == logs.commit + 1
        && index.digest_before == logs.digest
        && index.last_commit >= index.first_commit
        && index.end <= segment.capacity;
    let Some(spans) = continues.then(|| index_spans(logs, index)).flatten() else {
        return false;
    };
    for (log, (first, end)) in index.logs.iter().zip(spans) {
        if let Some(birth) = &log.birth {
            let state = LogState::new(log.number, birth);
            logs.logs.insert(log.number, state);
        }
        // INVARIANT: `index_spans` has found the log or its birth.
        let Some(state) = logs.logs.get_mut(&log.number) else {
            continue;
        };
        state.range = log.range.clone();
        state.root = log.range.root();
        state.last_leaf = log.last_leaf;
        state.last_time_us = log.last_time_us;
        state.last_commit = log.last_commit;
        state.checkpoint = log.checkpoint;
        state.cover = log.cover.clone();
        state.tails = Tails::default();
        state.sealed.push(SealedSpan {
            segment: index.header.number,
            first,
            end,
        });
    }
    logs.commit = index.last_commit;
    logs.digest = index.digest;
    true
}

/// Which entries of each log of an index are in its segment; `None` where they do not continue what is known.
fn index_spans(logs: &Logs, index: &SegmentIndex) -> Option<Vec<(u64, u64)>> {
    let mut reached: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for part in index.parts.iter() {
        let (_, end) = reached.entry(part.log).or_insert((part.first, part.first));
        if *end != part.first {
            return None;
        }
        *end = part.end();
    }
    let mut spans = Vec::with_capacity(index.logs.len());
    for log in &index.logs {
        let (first, end) = reached.remove(&log.number)?;
        let known = logs.logs.get(&log.number);
        let size = known.map_or(0, LogState::size);
        if known.is_some() == log.birth.is_some() || size != first || log.range.size() != end {
            return None;
        }
        spans.push((first, end));
    }
    reached.is_empty().then_some(spans)
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
