//! Reads all segments, applies their commits and judges what lies behind the last one. Nothing is written here.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::super::erasing::decode_erasures;
use super::super::error::{DamagedRange, Flaw, OpenError};
use super::super::format::{CommitHeader, ERASURE_BYTES, PartHeader, SEGMENT_HEADER_BYTES};
use super::super::heads::RecordedHeads;
use super::super::index::SegmentIndex;
use super::super::scan::{Remains, read_commit, read_header, read_parts, search_rest};
use super::super::segment::{Segment, segment_path};
use super::super::state::{LogState, Logs, SealedSpan};
use super::super::tiles::{self, Tails};
use super::super::types::{Erasure, LogNumber};
use super::super::{Active, seal_parts};
use super::{CutTail, Scan, Warning, at};
use crate::disk::{Disk, read_vec};

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
    pub(super) fn run(
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
    // What they erase is read before anything is changed: where it cannot be, the segment is read commit by commit, which says what is wrong.
    let Some(erasures) = index_erasures(index, segment) else {
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
    for (log, commit, erasure) in erasures {
        if let Some(state) = logs.logs.get_mut(&log) {
            state.erased.add(erasure, commit);
        }
    }
    logs.commit = index.last_commit;
    logs.digest = index.digest;
    true
}

/// The erasures of all parts of a segment, in order of their commits.
fn index_erasures(index: &SegmentIndex, segment: &Segment) -> Option<Vec<(u32, u64, Erasure)>> {
    let mut erasures = Vec::new();
    for part in index.parts.iter().filter(|part| part.erasures > 0) {
        let end = part.body_offset.checked_add(part.meta_bytes())?;
        if end > segment.capacity {
            return None;
        }
        let len = usize::try_from(part.meta_bytes()).ok()?;
        let meta = read_vec(&*segment.file, part.body_offset, len).ok()?;
        if crc32c::crc32c(&meta) != part.meta_crc {
            return None;
        }
        let start = len.checked_sub(part.erasures as usize * ERASURE_BYTES)?;
        let found = decode_erasures(meta.get(start..)?);
        erasures.extend(
            found
                .into_iter()
                .map(|erasure| (part.log, part.commit, erasure)),
        );
    }
    Some(erasures)
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
