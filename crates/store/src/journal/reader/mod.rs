//! Reading: never a byte that is not what was written.

mod caches;
mod history;
mod tree;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::error::{DamagedRange, Flaw, ReadError};
use super::format::{
    DIRECTORY_BYTES, DirectoryEntry, ENTRY_BYTES, PART_HEADER_BYTES, SECTOR, SEGMENT_HEADER_BYTES,
};
use super::index::SegmentIndex;
use super::scan::{check_content_crcs, read_header, read_parts};
use super::segment::{Segment, segment_path};
use super::state::{PartRef, Recent, Shared};
use super::types::{Erasure, Head, LogInfo, LogNumber, Run};
use crate::disk::read_vec;

pub(crate) use caches::Caches;
pub use tree::LogNodes;

use caches::{LoadedIndex, locked};

/// Parts of at least this size are read whole.
const BLOCK_BYTES_MIN: u64 = 256 << 10;

/// Larger ones would push everything else out of memory.
const BLOCK_BYTES_MAX: u64 = 4 << 20;

/// Reads what has been committed, from any thread.
#[derive(Clone, Debug)]
pub struct JournalReader {
    shared: Arc<Shared>,
}

impl JournalReader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Number of entries in a log; `None` where no commit of it is stored.
    #[must_use]
    pub fn size(&self, log: LogNumber) -> Option<u64> {
        let published = self.shared.read();
        published.logs.logs.get(&log.0).map(|log| log.size())
    }

    /// The durable end of a log.
    #[must_use]
    pub fn head(&self, log: LogNumber) -> Option<Head> {
        let published = self.shared.read();
        published.logs.logs.get(&log.0).map(|log| log.head())
    }

    /// All logs with a commit, in order of their numbers.
    #[must_use]
    pub fn logs(&self) -> Vec<LogInfo> {
        let published = self.shared.read();
        published.logs.logs.values().map(|log| log.info()).collect()
    }

    /// Number of the last commit, 0 before the first.
    #[must_use]
    pub fn last_commit(&self) -> u64 {
        self.shared.read().logs.commit
    }

    /// Reads entries from `first` on, up to `max_entries` and about `max_bytes` (entries and content), at least one
    /// entry. The runs follow each other without a gap. Checksums of everything returned have been checked.
    ///
    /// # Errors
    /// [`ReadError::Damage`] where the first run is not what was written: damage further on ends the answer before it.
    pub fn read(
        &self,
        log: LogNumber,
        first: u64,
        max_entries: u64,
        max_bytes: u64,
    ) -> Result<Vec<Run>, ReadError> {
        let mut runs: Vec<Run> = Vec::new();
        let (mut next, mut entries, mut bytes) = (first, max_entries.max(1), max_bytes);
        loop {
            let run = match self.read_run(log, next, entries, bytes) {
                Ok(run) => run,
                Err(error) if runs.is_empty() => return Err(error),
                Err(_) => return Ok(runs),
            };
            let used = (run.entries.len() + run.content.len()) as u64;
            if used > bytes && !runs.is_empty() {
                return Ok(runs);
            }
            next += u64::from(run.count);
            entries -= u64::from(run.count).min(entries);
            bytes = bytes.saturating_sub(used);
            runs.push(run);
            if entries == 0 || bytes == 0 {
                return Ok(runs);
            }
        }
    }

    fn read_run(
        &self,
        log: LogNumber,
        first: u64,
        max_entries: u64,
        max_bytes: u64,
    ) -> Result<Run, ReadError> {
        let part = self.part_containing(log, first)?;
        if max_bytes >= BLOCK_BYTES_MIN && max_entries > 1 {
            self.fetch(&part);
        }
        let front_len = part.meta_bytes() + part.entries_bytes();
        // The whole part in one read where it is wanted and fits; else front and content apart.
        let wanted = part.first == first
            && u64::from(part.count) <= max_entries
            && u64::from(part.count) * ENTRY_BYTES as u64 + part.content_len <= max_bytes;
        let (front, content) = if wanted {
            let mut body = self.bytes(&part, part.body_offset, front_len + part.content_len)?;
            let content = body.split_off(usize_of(front_len));
            (self.cut_front(&part, body)?, Some(content))
        } else {
            (self.front(&part, front_len)?, None)
        };
        let skipped = usize_of(first - part.first);
        let mut skipped_bytes = 0;
        let mut taken = 0usize;
        let mut taken_bytes = 0u64;
        let mut total = 0u64;
        for (at, entry) in DirectoryEntry::decode_all(&front.directory).enumerate() {
            total = total.saturating_add(entry.content_bytes());
            if at < skipped {
                skipped_bytes += entry.content_bytes();
                continue;
            }
            let next = taken_bytes.saturating_add(entry.content_bytes());
            let bytes = next.saturating_add((taken as u64 + 1) * ENTRY_BYTES as u64);
            if taken == 0
                || (at - skipped == taken && (taken as u64) < max_entries && bytes <= max_bytes)
            {
                taken += 1;
                taken_bytes = next;
            }
        }
        if total != part.content_len {
            return Err(self.damage(&part, part.body_offset, Flaw::Entries));
        }
        let content = match content {
            Some(content) => content,
            None => self.bytes(&part, part.content_offset() + skipped_bytes, taken_bytes)?,
        };
        let end = skipped + taken;
        let directory = front
            .directory
            .slice(skipped * DIRECTORY_BYTES..end * DIRECTORY_BYTES);
        let entries = front
            .entries
            .slice(skipped * ENTRY_BYTES..end * ENTRY_BYTES);
        // Looked at only now: what was overwritten while it was read had been published as erased before.
        let (directory, content, erased) =
            self.without_erased(log, first, &entries, directory, content);
        if check_content(first, &directory, &content, &erased).is_err() {
            return Err(self.damage(&part, part.content_offset() + skipped_bytes, Flaw::Content));
        }
        Ok(Run {
            log,
            first,
            // INVARIANT: no more than the part's count.
            count: u32::try_from(taken).unwrap_or(part.count),
            entries,
            content,
            cover: front.cover,
            annotation: front.annotation,
            erased,
            directory,
        })
    }

    /// Takes what is erased out of the content of a run, whether it is overwritten already or not.
    fn without_erased(
        &self,
        log: LogNumber,
        first: u64,
        entries: &Bytes,
        directory: Bytes,
        content: Bytes,
    ) -> (Bytes, Bytes, Vec<Erasure>) {
        let count = (directory.len() / DIRECTORY_BYTES) as u64;
        let erased = self.erasures(log, first, first + count);
        if erased.is_empty() {
            return (directory, content, erased);
        }
        let mut kept_directory = Vec::with_capacity(directory.len());
        let mut kept = Vec::new();
        let mut rest = &content[..];
        let mut runs = erased.iter().peekable();
        for ((sequence, entry), lengths) in (first..)
            .zip(entries.chunks_exact(ENTRY_BYTES))
            .zip(DirectoryEntry::decode_all(&directory))
        {
            let (bytes, after) = rest.split_at(usize_of(lengths.content_bytes()).min(rest.len()));
            rest = after;
            while runs.next_if(|run| run.end <= sequence).is_some() {}
            let is_event = entry[1] & 0x0f == 0;
            if is_event && runs.peek().is_some_and(|run| run.first <= sequence) {
                kept_directory.extend_from_slice(&DirectoryEntry::ABSENT.encode());
            } else {
                kept_directory.extend_from_slice(&lengths.encode());
                kept.extend_from_slice(bytes);
            }
        }
        (kept_directory.into(), kept.into(), erased)
    }

    /// The front of a part that is read in pieces: checked once, not for each piece.
    pub(super) fn front(&self, part: &PartRef, len: u64) -> Result<Front, ReadError> {
        let key = (part.segment, part.body_offset);
        if let Some(front) = locked(&self.shared.caches.fronts).map.get(&key) {
            return Ok(front.clone());
        }
        let front = self.cut_front(part, self.bytes(part, part.body_offset, len)?)?;
        locked(&self.shared.caches.fronts).put(key, front.clone());
        Ok(front)
    }

    /// Checks and cuts meta data, entries and directory of a part.
    fn cut_front(&self, part: &PartRef, mut front: Bytes) -> Result<Front, ReadError> {
        let meta = front.split_to(usize_of(part.meta_bytes()));
        if crc32c::crc32c(&meta) != part.meta_crc {
            return Err(self.damage(part, part.body_offset, Flaw::Meta));
        }
        if crc32c::crc32c(&front) != part.entries_crc {
            let offset = part.body_offset + part.meta_bytes();
            return Err(self.damage(part, offset, Flaw::Entries));
        }
        let cover_len = part.cover_len as usize;
        let entries = front.split_to(part.count as usize * ENTRY_BYTES);
        Ok(Front {
            cover: meta.slice(..cover_len),
            annotation: meta.slice(cover_len..cover_len + part.annotation_len as usize),
            entries,
            directory: front,
        })
    }

    fn read_meta(&self, part: &PartRef) -> Result<Bytes, ReadError> {
        let meta = self.bytes(part, part.body_offset, part.meta_bytes())?;
        if crc32c::crc32c(&meta) != part.meta_crc {
            return Err(self.damage(part, part.body_offset, Flaw::Meta));
        }
        Ok(meta)
    }

    fn part_header(&self, part: &PartRef) -> Result<super::format::PartHeader, ReadError> {
        let at = part.commit_offset
            + super::format::COMMIT_HEADER_BYTES as u64
            + u64::from(part.index) * PART_HEADER_BYTES as u64;
        let bytes = self.bytes(part, at, PART_HEADER_BYTES as u64)?;
        let id = self.segment(part.segment)?.map(|segment| segment.header.id);
        id.and_then(|id| {
            let bytes = bytes[..].try_into().ok()?;
            super::format::PartHeader::decode(bytes, &id, part.commit, part.index)
        })
        .filter(|header| header.log == part.log && header.first == part.first)
        .ok_or_else(|| self.damage(part, at, Flaw::PartHeader))
    }

    /// Reads a large part whole into memory, unless it is there: whoever wants much of it comes back for the rest. Small ones are left to the
    /// system, which reads ahead. Where it cannot be read, whoever wants a piece of it reads that, and hears what is wrong with it.
    fn fetch(&self, part: &PartRef) {
        let len = part.meta_bytes() + part.entries_bytes() + part.content_len;
        if !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&len)
            || self.in_memory(part, part.body_offset, len).is_some()
        {
            return;
        }
        let Ok(Some(segment)) = self.segment(part.segment) else {
            return;
        };
        // Whole sectors, as direct reads want them; a segment is made of such.
        let start = part.body_offset / SECTOR * SECTOR;
        let end = (part.body_offset + len).next_multiple_of(SECTOR);
        if end > segment.capacity {
            return;
        }
        let mut block = self.shared.caches.buffers.take_dirty(usize_of(end - start));
        if segment.file.read_exact_at(&mut block, start).is_err() {
            return;
        }
        locked(&self.shared.caches.blocks).put(Recent {
            segment: part.segment,
            offset: start,
            bytes: block.freeze(),
        });
    }

    /// Bytes of a segment, where memory has them.
    fn in_memory(&self, part: &PartRef, offset: u64, len: u64) -> Option<Bytes> {
        let recent = self.shared.read().recent(part.segment, offset, len);
        recent.or_else(|| locked(&self.shared.caches.blocks).get(part.segment, offset, len))
    }

    /// Bytes of the segment that a part is in: from memory, or one read.
    fn bytes(&self, part: &PartRef, offset: u64, len: u64) -> Result<Bytes, ReadError> {
        if let Some(bytes) = self.in_memory(part, offset, len) {
            return Ok(bytes);
        }
        let segment = self.segment(part.segment)?;
        let fits = |segment: &Segment| {
            offset
                .checked_add(len)
                .is_some_and(|end| end <= segment.capacity)
        };
        let Some(segment) = segment.filter(fits) else {
            return Err(self.damage(part, offset, Flaw::File));
        };
        match read_vec(&*segment.file, offset, usize_of(len)) {
            Ok(bytes) => Ok(bytes.into()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.damage(part, offset, Flaw::File))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn damage(&self, part: &PartRef, offset: u64, flaw: Flaw) -> ReadError {
        let published = self.shared.read();
        let log = published.logs.logs.get(&part.log);
        ReadError::Damage(Box::new(DamagedRange {
            log: Some(LogNumber(part.log)),
            origin: log.map(|log| log.origin.clone()),
            file: self.segment_path(part.segment),
            offset,
            first: part.first,
            end: Some(part.end()),
            flaw,
        }))
    }

    fn segment_path(&self, number: u32) -> PathBuf {
        segment_path(&self.shared.segments(), number)
    }

    /// An open segment; `None` where its header is bad or the file is gone.
    pub(super) fn segment(&self, number: u32) -> Result<Option<Segment>, ReadError> {
        if let Some(segment) = locked(&self.shared.caches.segments).map.get(&number) {
            return Ok(Some(segment.clone()));
        }
        let opened = Segment::open(
            &*self.shared.disk,
            &self.shared.segments(),
            number,
            self.shared.journal,
        );
        let segment = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        if let Some(segment) = &segment {
            locked(&self.shared.caches.segments).put(number, segment.clone());
        }
        Ok(segment)
    }

    /// The parts of a sealed segment.
    fn index(&self, number: u32) -> Result<Arc<LoadedIndex>, ReadError> {
        if let Some(parts) = locked(&self.shared.caches.indexes).map.get(&number) {
            return Ok(Arc::clone(parts));
        }
        let damaged = || {
            ReadError::Damage(Box::new(DamagedRange {
                log: None,
                origin: None,
                file: self.segment_path(number),
                offset: 0,
                first: 0,
                end: None,
                flaw: Flaw::File,
            }))
        };
        let segment = self.segment(number)?.ok_or_else(damaged)?;
        let (disk, segments) = (&*self.shared.disk, self.shared.segments());
        let index = match SegmentIndex::read(disk, &segments, &segment.header)? {
            Some(index) => LoadedIndex::new(&index.parts),
            None => LoadedIndex::new(&scan_parts(&segment)?),
        };
        let index = Arc::new(index);
        locked(&self.shared.caches.indexes).put(number, Arc::clone(&index));
        Ok(index)
    }

    pub(super) fn part_containing(
        &self,
        log: LogNumber,
        sequence: u64,
    ) -> Result<PartRef, ReadError> {
        let span = {
            let published = self.shared.read();
            let state = published
                .logs
                .logs
                .get(&log.0)
                .ok_or(ReadError::UnknownLog(log))?;
            if sequence >= state.size() {
                return Err(ReadError::BeyondEnd {
                    log,
                    first: sequence,
                    size: state.size(),
                });
            }
            let at = state.parts.partition_point(|part| part.end() <= sequence);
            if let Some(part) = state.parts.get(at).filter(|part| part.first <= sequence) {
                return Ok(*part);
            }
            let at = state.sealed.partition_point(|span| span.end <= sequence);
            state.sealed.get(at).copied()
        };
        // INVARIANT: spans and parts of a log cover [0, size) without a gap.
        let part = match span {
            Some(span) => self.index(span.segment)?.containing(log.0, sequence),
            None => None,
        };
        part.ok_or_else(|| self.absent(log, sequence, span.map_or(0, |span| span.segment)))
    }

    pub(super) fn absent(&self, log: LogNumber, sequence: u64, segment: u32) -> ReadError {
        ReadError::Damage(Box::new(DamagedRange {
            log: Some(log),
            origin: self.head_origin(log),
            file: self.segment_path(segment),
            offset: SEGMENT_HEADER_BYTES,
            first: sequence,
            end: sequence.checked_add(1),
            flaw: Flaw::Absent,
        }))
    }

    fn head_origin(&self, log: LogNumber) -> Option<String> {
        let published = self.shared.read();
        published
            .logs
            .logs
            .get(&log.0)
            .map(|log| log.origin.clone())
    }
}

/// Checks the content of a run; an entry without content is named by an erasure.
fn check_content(
    first: u64,
    directory: &[u8],
    content: &[u8],
    erased: &[Erasure],
) -> Result<(), Flaw> {
    check_content_crcs(directory, content, |place| {
        let sequence = first + place;
        let at = erased.partition_point(|run| run.end <= sequence);
        erased.get(at).is_some_and(|run| run.first <= sequence)
    })
}

/// Meta data, entries and directory of a part, compared with its checksums.
#[derive(Clone, Debug)]
pub(super) struct Front {
    cover: Bytes,
    annotation: Bytes,
    pub(super) entries: Bytes,
    pub(super) directory: Bytes,
}

/// The parts of a segment whose index is gone, from its headers alone: what they lead to is checked when it is read.
fn scan_parts(segment: &Segment) -> Result<Vec<PartRef>, ReadError> {
    let mut parts = Vec::new();
    let mut offset = SEGMENT_HEADER_BYTES;
    while let Ok(header) = read_header(segment, offset)? {
        let Ok(headers) = read_parts(segment, &header)? else {
            break;
        };
        for (index, part) in (0u32..).zip(&headers) {
            let number = segment.header.number;
            parts.push(PartRef::new(part, number, header.number, offset, index));
        }
        offset = header.end();
    }
    Ok(parts)
}

/// Lengths and positions within one segment or tile, which fit the memory of any machine this runs on.
fn usize_of(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
