//! Reading: never a byte that is not what was written.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use countersign_crypto::Hash;
use countersign_tlog::{NodeSource, leaf_hash};

use super::error::{DamagedRange, Flaw, ReadError};
use super::format::{
    DIRECTORY_BYTES, DirectoryEntry, ENTRY_BYTES, PART_HEADER_BYTES, SEGMENT_HEADER_BYTES,
};
use super::index::SegmentIndex;
use super::scan::{check_content_crcs, read_header, read_parts};
use super::segment::{Segment, segment_path};
use super::state::{PartRef, Published, Shared};
use super::tiles::{self, TILE_HASHES, subtree_root};
use super::types::{Annotation, Head, LogInfo, LogNumber, Run, StoredCheckpoint, StoredCover};
use crate::disk::read_vec;

/// Open segments and loaded indexes kept for the next read.
const SEGMENTS_CACHED: usize = 64;
const INDEXES_CACHED: usize = 8;
/// Verified tiles kept: 4 MiB.
const TILES_CACHED: usize = 512;

/// A map that forgets everything when it is full: bounded, and simple enough to be right.
#[derive(Debug)]
struct Bounded<K, V> {
    map: HashMap<K, V>,
    limit: usize,
}

impl<K: Eq + std::hash::Hash, V: Clone> Bounded<K, V> {
    fn new(limit: usize) -> Self {
        Self {
            map: HashMap::new(),
            limit,
        }
    }

    fn put(&mut self, key: K, value: V) {
        if self.map.len() >= self.limit {
            self.map.clear();
        }
        self.map.insert(key, value);
    }
}

/// Log, tile level, tile number.
type TileKey = (u32, u8, u64);

/// What readers keep between reads.
#[derive(Debug)]
pub(crate) struct Caches {
    segments: Mutex<Bounded<u32, Segment>>,
    indexes: Mutex<Bounded<u32, Arc<LoadedIndex>>>,
    tiles: Mutex<Bounded<TileKey, Arc<Vec<Hash>>>>,
}

impl Default for Caches {
    fn default() -> Self {
        Self {
            segments: Mutex::new(Bounded::new(SEGMENTS_CACHED)),
            indexes: Mutex::new(Bounded::new(INDEXES_CACHED)),
            tiles: Mutex::new(Bounded::new(TILES_CACHED)),
        }
    }
}

impl Caches {
    /// Keeps the parts of a segment that was just sealed: its newest entries are the ones that are read next.
    pub(crate) fn put_index(&self, segment: u32, parts: &[PartRef]) {
        locked(&self.indexes).put(segment, Arc::new(LoadedIndex::new(parts)));
    }
}

/// The parts of a sealed segment, ready to be searched: by log, and within a log in order.
#[derive(Debug)]
struct LoadedIndex(Vec<PartRef>);

impl LoadedIndex {
    fn new(parts: &[PartRef]) -> Self {
        let mut parts = parts.to_vec();
        parts.sort_unstable_by_key(|part| (part.log, part.commit));
        Self(parts)
    }

    fn of_log(&self, log: u32) -> &[PartRef] {
        let start = self.0.partition_point(|part| part.log < log);
        let end = self.0.partition_point(|part| part.log <= log);
        self.0.get(start..end).unwrap_or_default()
    }

    fn containing(&self, log: u32, sequence: u64) -> Option<PartRef> {
        let parts = self.of_log(log);
        let at = parts.partition_point(|part| part.end() <= sequence);
        let found = parts.get(at).filter(|part| part.first <= sequence);
        found.copied()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

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

    /// The leaf hash of an entry, from the tiles.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn leaf_hash(&self, log: LogNumber, sequence: u64) -> Result<Hash, ReadError> {
        self.node(log, 0, sequence)
    }

    /// The tree of a log, for proofs.
    #[must_use]
    pub fn nodes(&self, log: LogNumber) -> LogNodes {
        LogNodes {
            reader: self.clone(),
            log,
        }
    }

    /// The hashes of a tile: 256, or fewer at the right border. Tile levels are those of tlog-tiles.
    ///
    /// # Errors
    /// [`ReadError::BeyondEnd`] where the log has no such tile; [`ReadError`].
    pub fn tile(&self, log: LogNumber, level: u8, n: u64) -> Result<Arc<Vec<Hash>>, ReadError> {
        let size = {
            let published = self.shared.read();
            let state = published
                .logs
                .logs
                .get(&log.0)
                .ok_or(ReadError::UnknownLog(log))?;
            if let Some(tile) = state.tails.tile(level, n) {
                return Ok(Arc::new(tile));
            }
            state.size()
        };
        let below = u32::from(level) * 8;
        let nodes = if below < 64 { size >> below } else { 0 };
        if n.checked_add(1)
            .and_then(|next| next.checked_mul(TILE_HASHES))
            .is_none_or(|end| end > nodes)
        {
            return Err(ReadError::BeyondEnd {
                log,
                first: n.saturating_mul(TILE_HASHES),
                size: nodes,
            });
        }
        self.full_tile(log, level, n)
    }

    /// Shows each stored annotation from a commit on, in order of commits, of one log or of all, until `visit` says `false`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn annotations(
        &self,
        log: Option<LogNumber>,
        from_commit: u64,
        visit: &mut dyn FnMut(Annotation) -> bool,
    ) -> Result<(), ReadError> {
        for part in self.parts_from(from_commit)? {
            let wanted = log.is_none_or(|log| log.0 == part.log);
            if !wanted || part.annotation_len == 0 {
                continue;
            }
            let meta = self.read_meta(&part)?;
            let start = part.cover_len as usize;
            let annotation = Annotation {
                commit: part.commit,
                log: LogNumber(part.log),
                first: part.first,
                count: part.count,
                annotation: meta.slice(start..start + part.annotation_len as usize),
            };
            if !visit(annotation) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The newest stored checkpoint of a log with at most `size` entries.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn checkpoint_at_or_before(
        &self,
        log: LogNumber,
        size: u64,
    ) -> Result<Option<StoredCheckpoint>, ReadError> {
        let found = self.newest_part(log, |part| part.signed && part.first <= size)?;
        let Some(part) = found else { return Ok(None) };
        let header = self.part_header(&part)?;
        Ok(header.signature.map(|signature| StoredCheckpoint {
            size: header.first,
            root: header.root_before,
            signature,
        }))
    }

    /// The oldest stored checkpoint of a log that covers at least `size` entries.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn checkpoint_at_or_after(
        &self,
        log: LogNumber,
        size: u64,
    ) -> Result<Option<StoredCheckpoint>, ReadError> {
        // Walking back and keeping the last match is as far as walking forward from there.
        let mut oldest = None;
        self.walk_back(log, &mut |part| {
            if part.first < size {
                return false;
            }
            if part.signed {
                oldest = Some(part);
            }
            true
        })?;
        let Some(part) = oldest else { return Ok(None) };
        let header = self.part_header(&part)?;
        Ok(header.signature.map(|signature| StoredCheckpoint {
            size: header.first,
            root: header.root_before,
            signature,
        }))
    }

    /// The newest stored cover of a log of at most `size` entries.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn cover_at_or_before(
        &self,
        log: LogNumber,
        size: u64,
    ) -> Result<Option<StoredCover>, ReadError> {
        let found = self.newest_part(log, |part| part.cover_len > 0 && part.end() <= size)?;
        let Some(part) = found else { return Ok(None) };
        let meta = self.read_meta(&part)?;
        Ok(Some(StoredCover {
            size: part.end(),
            cover: meta.slice(..part.cover_len as usize),
        }))
    }

    /// The oldest stored cover of a log of at least `size` entries.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn cover_at_or_after(
        &self,
        log: LogNumber,
        size: u64,
    ) -> Result<Option<StoredCover>, ReadError> {
        let mut oldest = None;
        self.walk_back(log, &mut |part| {
            if part.end() < size {
                return false;
            }
            if part.cover_len > 0 {
                oldest = Some(part);
            }
            true
        })?;
        let Some(part) = oldest else { return Ok(None) };
        let meta = self.read_meta(&part)?;
        Ok(Some(StoredCover {
            size: part.end(),
            cover: meta.slice(..part.cover_len as usize),
        }))
    }

    fn read_run(
        &self,
        log: LogNumber,
        first: u64,
        max_entries: u64,
        max_bytes: u64,
    ) -> Result<Run, ReadError> {
        let part = self.part_containing(log, first)?;
        let front_len = part.meta_bytes() + part.entries_bytes();
        // The whole part in one read where it is wanted and fits; else front and content apart.
        let wanted = part.first == first
            && u64::from(part.count) <= max_entries
            && u64::from(part.count) * ENTRY_BYTES as u64 + part.content_len <= max_bytes;
        let (front, content) = if wanted {
            let mut body = self.bytes(&part, part.body_offset, front_len + part.content_len)?;
            let content = body.split_off(usize_of(front_len));
            (body, Some(content))
        } else {
            (self.bytes(&part, part.body_offset, front_len)?, None)
        };
        let front = self.cut_front(&part, front)?;
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
        if check_content_crcs(&directory, &content).is_err() {
            return Err(self.damage(&part, part.content_offset() + skipped_bytes, Flaw::Content));
        }
        Ok(Run {
            log,
            first,
            // INVARIANT: no more than the part's count.
            count: u32::try_from(taken).unwrap_or(part.count),
            entries: front
                .entries
                .slice(skipped * ENTRY_BYTES..end * ENTRY_BYTES),
            content,
            cover: front.cover,
            annotation: front.annotation,
            directory,
        })
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

    /// Bytes of the segment that a part is in: from memory, or one read.
    fn bytes(&self, part: &PartRef, offset: u64, len: u64) -> Result<Bytes, ReadError> {
        if let Some(bytes) = self.shared.read().recent(part.segment, offset, len) {
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
    fn segment(&self, number: u32) -> Result<Option<Segment>, ReadError> {
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

    fn part_containing(&self, log: LogNumber, sequence: u64) -> Result<PartRef, ReadError> {
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

    fn absent(&self, log: LogNumber, sequence: u64, segment: u32) -> ReadError {
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

    /// All parts of commits from `from` on, in order.
    fn parts_from(&self, from: u64) -> Result<Vec<PartRef>, ReadError> {
        let (mut sealed, mut parts) = {
            let published = self.shared.read();
            (sealed_segments(&published), open_parts(&published, None))
        };
        sealed.sort_unstable();
        sealed.dedup();
        for segment in sealed.into_iter().rev() {
            let index = self.index(segment)?;
            let reaches_back = index.0.iter().any(|part| part.commit <= from);
            parts.extend(index.0.iter().filter(|part| part.commit >= from));
            if reaches_back {
                break;
            }
        }
        parts.sort_unstable_by_key(|part| (part.commit, part.index));
        Ok(parts)
    }

    fn newest_part(
        &self,
        log: LogNumber,
        wanted: impl Fn(&PartRef) -> bool,
    ) -> Result<Option<PartRef>, ReadError> {
        let mut found = None;
        self.walk_back(log, &mut |part| {
            if wanted(&part) {
                found = Some(part);
            }
            found.is_none()
        })?;
        Ok(found)
    }

    /// Shows the parts of a log, newest first, until `visit` says `false`.
    fn walk_back(
        &self,
        log: LogNumber,
        visit: &mut dyn FnMut(PartRef) -> bool,
    ) -> Result<(), ReadError> {
        let (open, sealed) = {
            let published = self.shared.read();
            let state = published
                .logs
                .logs
                .get(&log.0)
                .ok_or(ReadError::UnknownLog(log))?;
            (open_parts(&published, Some(log.0)), state.sealed.clone())
        };
        for part in open.into_iter().rev() {
            if !visit(part) {
                return Ok(());
            }
        }
        for span in sealed.iter().rev() {
            let index = self.index(span.segment)?;
            for part in index.of_log(log.0).iter().rev() {
                if !visit(*part) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn node(&self, log: LogNumber, level: u8, index: u64) -> Result<Hash, ReadError> {
        let (tile_level, within) = (level / 8, level % 8);
        // A node of level 8·L + w covers 2^w hashes of tile level L, all in one tile.
        let beyond = || ReadError::BeyondEnd {
            log,
            first: index,
            size: self.size(log).unwrap_or(0),
        };
        let start = index.checked_mul(1 << within).ok_or_else(beyond)?;
        let tile = self.tile(log, tile_level, start / TILE_HASHES)?;
        let at = usize_of(start % TILE_HASHES);
        let hashes = tile.get(at..at + (1 << within)).ok_or_else(beyond)?;
        Ok(subtree_root(hashes))
    }

    /// A full tile that is on disk, checked against the level above; computed from what is below where it is wrong.
    fn full_tile(&self, log: LogNumber, level: u8, n: u64) -> Result<Arc<Vec<Hash>>, ReadError> {
        let key = (log.0, level, n);
        if let Some(tile) = locked(&self.shared.caches.tiles).map.get(&key) {
            return Ok(Arc::clone(tile));
        }
        let parent = self.tile(log, level + 1, n / TILE_HASHES)?;
        let parent = parent.get(usize_of(n % TILE_HASHES)).copied();
        let path = tiles::tile_path(&self.shared.log_dir(log.0), level);
        let stored = tiles::read_hashes(&*self.shared.disk, &path, n * TILE_HASHES, TILE_HASHES)?;
        let mut tile = stored.map(|bytes| tiles::to_hashes(&bytes));
        if tile.as_ref().map(|tile| subtree_root(tile)) != parent {
            tile = Some(self.compute_tile(log, level, n)?);
        }
        let tile = Arc::new(tile.unwrap_or_default());
        if Some(subtree_root(&tile)) != parent {
            return Err(self.absent(log, n << (8 * u32::from(level)).min(56), 0));
        }
        locked(&self.shared.caches.tiles).put(key, Arc::clone(&tile));
        Ok(tile)
    }

    /// Computes a full tile: leaf hashes from entries, others from the tiles below.
    fn compute_tile(&self, log: LogNumber, level: u8, n: u64) -> Result<Vec<Hash>, ReadError> {
        let start = n * TILE_HASHES;
        let mut hashes = Vec::with_capacity(TILE_HASHES as usize);
        if level == 0 {
            self.leaf_hashes(log, start, start + TILE_HASHES, &mut |leaf| {
                hashes.push(leaf)
            })?;
        } else {
            for child in start..start + TILE_HASHES {
                // A child cannot be checked against this tile, which is being made: only from the ground up.
                hashes.push(subtree_root(&self.compute_tile(log, level - 1, child)?));
            }
        }
        Ok(hashes)
    }

    /// Leaf hashes computed from the entries; their content is not looked at.
    pub(crate) fn leaf_hashes(
        &self,
        log: LogNumber,
        first: u64,
        end: u64,
        visit: &mut dyn FnMut(Hash),
    ) -> Result<(), ReadError> {
        let mut next = first;
        while next < end {
            let part = self.part_containing(log, next)?;
            let front = self.bytes(
                &part,
                part.body_offset,
                part.meta_bytes() + part.entries_bytes(),
            )?;
            let front = self.cut_front(&part, front)?;
            let skipped = usize_of(next - part.first);
            let wanted = usize_of(end - next);
            for entry in front
                .entries
                .chunks_exact(ENTRY_BYTES)
                .skip(skipped)
                .take(wanted)
            {
                visit(leaf_hash(entry));
                next += 1;
            }
        }
        Ok(())
    }
}

struct Front {
    cover: Bytes,
    annotation: Bytes,
    entries: Bytes,
    directory: Bytes,
}

/// The tree of one log as a source of nodes; each is checked against the log's root before it is given out.
#[derive(Clone, Debug)]
pub struct LogNodes {
    reader: JournalReader,
    log: LogNumber,
}

impl NodeSource for LogNodes {
    type Error = ReadError;

    fn node(&self, level: u8, index: u64) -> Result<Hash, ReadError> {
        self.reader.node(self.log, level, index)
    }
}

fn sealed_segments(published: &Published) -> Vec<u32> {
    let logs = published.logs.logs.values();
    logs.flat_map(|log| log.sealed.iter().map(|span| span.segment))
        .collect()
}

fn open_parts(published: &Published, log: Option<u32>) -> Vec<PartRef> {
    let logs = published.logs.logs.values();
    logs.filter(|state| log.is_none_or(|log| log == state.number))
        .flat_map(|state| state.parts.iter().copied())
        .collect()
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
