//! What is known about each log, and how a part advances it: the same code for a commit that is about to be written and
//! for one that is found at start.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use countersign_crypto::Hash;
use countersign_tlog::CompactRange;

use super::erasing::{Erased, decode_erasures};
use super::error::Flaw;
use super::format::{
    DIRECTORY_BYTES, DirectoryEntry, ENTRY_BYTES, ERASURE_BYTES, PartHeader, decode_birth,
};
use super::growth::{Growth, NotNext};
use super::tiles::Tails;
use super::types::{Birth, Erasure, LogInfo, LogKind, LogNumber, StoredCheckpoint, StoredCover};
use crate::disk::Disk;

/// Where a part is, enough to read it without its header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct PartRef {
    pub(crate) log: u32,
    pub(crate) first: u64,
    pub(crate) count: u32,
    pub(crate) segment: u32,
    pub(crate) commit: u64,
    /// Offset of the commit in its segment.
    pub(crate) commit_offset: u64,
    /// Which part of the commit.
    pub(crate) index: u32,
    /// Offset of the part's body in its segment.
    pub(crate) body_offset: u64,
    pub(crate) cover_len: u32,
    pub(crate) annotation_len: u32,
    pub(crate) birth_len: u32,
    pub(crate) content_len: u64,
    pub(crate) meta_crc: u32,
    pub(crate) entries_crc: u32,
    pub(crate) signed: bool,
    /// How many erasures stand in its meta data.
    pub(crate) erasures: u32,
}

impl PartRef {
    pub(crate) fn new(
        header: &PartHeader,
        segment: u32,
        commit: u64,
        commit_offset: u64,
        index: u32,
    ) -> Self {
        Self {
            log: header.log,
            first: header.first,
            count: header.count,
            segment,
            commit,
            commit_offset,
            index,
            body_offset: commit_offset + header.body_offset,
            cover_len: header.cover_len,
            annotation_len: header.annotation_len,
            birth_len: header.birth_len,
            content_len: header.content_len,
            meta_crc: header.meta_crc,
            entries_crc: header.entries_crc,
            signed: header.signature.is_some(),
            erasures: header.erasures,
        }
    }

    pub(crate) fn end(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }

    pub(crate) fn meta_bytes(&self) -> u64 {
        u64::from(self.cover_len)
            + u64::from(self.annotation_len)
            + u64::from(self.birth_len)
            + u64::from(self.erasures) * ERASURE_BYTES as u64
    }

    pub(crate) fn entries_bytes(&self) -> u64 {
        u64::from(self.count) * (ENTRY_BYTES + DIRECTORY_BYTES) as u64
    }

    pub(crate) fn content_offset(&self) -> u64 {
        self.body_offset + self.meta_bytes() + self.entries_bytes()
    }
}

/// Which sequences of a log are in a sealed segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct SealedSpan {
    pub(crate) segment: u32,
    pub(crate) first: u64,
    pub(crate) end: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct LogState {
    pub(crate) number: u32,
    pub(crate) kind: LogKind,
    pub(crate) origin: String,
    pub(crate) settings: Bytes,
    pub(crate) range: CompactRange,
    pub(crate) root: Hash,
    pub(crate) last_leaf: Hash,
    pub(crate) last_time_us: u64,
    pub(crate) last_commit: u64,
    pub(crate) checkpoint: Option<StoredCheckpoint>,
    pub(crate) cover: Option<StoredCover>,
    pub(crate) sealed: Vec<SealedSpan>,
    /// Parts in segments that are not sealed, in order.
    pub(crate) parts: VecDeque<PartRef>,
    pub(crate) tails: Tails,
    /// Whose content is gone.
    pub(crate) erased: Erased,
}

impl LogState {
    pub(crate) fn new(number: u32, birth: &Birth) -> Self {
        Self {
            number,
            kind: birth.kind,
            origin: birth.origin.clone(),
            settings: Bytes::copy_from_slice(&birth.settings),
            range: CompactRange::new(),
            root: countersign_tlog::empty_root(),
            last_leaf: [0; 32],
            last_time_us: 0,
            last_commit: 0,
            checkpoint: None,
            cover: None,
            sealed: Vec::new(),
            parts: VecDeque::new(),
            tails: Tails::default(),
            erased: Erased::default(),
        }
    }

    pub(crate) fn size(&self) -> u64 {
        self.range.size()
    }

    /// What is put behind the log's end.
    pub(crate) fn growth(&self) -> Growth {
        Growth::new(self.range.clone(), self.last_leaf, self.last_time_us)
    }

    pub(crate) fn info(&self) -> LogInfo {
        LogInfo {
            number: LogNumber(self.number),
            kind: self.kind,
            origin: self.origin.clone(),
            settings: self.settings.clone(),
        }
    }
}

/// The slices of a part's body.
#[derive(Clone, Debug)]
pub(crate) struct PartBody {
    pub(crate) cover: Bytes,
    pub(crate) birth: Bytes,
    pub(crate) erasures: Vec<Erasure>,
    pub(crate) entries: Bytes,
    pub(crate) directory: Bytes,
    pub(crate) content: Bytes,
}

impl PartBody {
    /// Cuts a body and checks its checksums (not those of the content).
    pub(crate) fn cut(header: &PartHeader, mut body: Bytes) -> Result<Self, Flaw> {
        if header.body_bytes() != Some(body.len() as u64) {
            return Err(Flaw::PartHeader);
        }
        let meta = &body[..header.meta_bytes()];
        if crc32c::crc32c(meta) != header.meta_crc {
            return Err(Flaw::Meta);
        }
        let cover = body.split_to(header.cover_len as usize);
        let _annotation = body.split_to(header.annotation_len as usize);
        let birth = body.split_to(header.birth_len as usize);
        let erasures = decode_erasures(&body.split_to(header.erasures as usize * ERASURE_BYTES));
        if crc32c::crc32c(&body[..header.entries_bytes()]) != header.entries_crc {
            return Err(Flaw::Entries);
        }
        let entries = body.split_to(header.count as usize * ENTRY_BYTES);
        let directory = body.split_to(header.count as usize * DIRECTORY_BYTES);
        let total = DirectoryEntry::decode_all(&directory)
            .try_fold(0u64, |sum, entry| sum.checked_add(entry.content_bytes()));
        if total != Some(body.len() as u64) {
            return Err(Flaw::Entries);
        }
        Ok(Self {
            cover,
            birth,
            erasures,
            entries,
            directory,
            content: body,
        })
    }
}

/// A part that was checked against its log and may be applied.
#[derive(Debug)]
pub(crate) struct CheckedPart {
    pub(crate) header: PartHeader,
    pub(crate) growth: Growth,
    pub(crate) birth: Option<Birth>,
    pub(crate) cover: Bytes,
    pub(crate) erasures: Vec<Erasure>,
}

/// Checks a part against the log it claims to continue, or against nothing where it brings the log's birth.
pub(crate) fn check_part(
    log: Option<&LogState>,
    header: &PartHeader,
    body: &PartBody,
) -> Result<CheckedPart, Flaw> {
    let birth = if body.birth.is_empty() {
        None
    } else {
        Some(decode_birth(&body.birth).ok_or(Flaw::Meta)?)
    };
    let fresh;
    let log = match (log, &birth) {
        (Some(log), None) => log,
        (None, Some(birth)) => {
            fresh = LogState::new(header.log, birth);
            &fresh
        }
        // A log is born once, and not without its birth record.
        _ => return Err(Flaw::Chain),
    };
    if header.first != log.size() || header.root_before != log.root {
        return Err(Flaw::Tree);
    }
    let mut growth = log.growth();
    for entry in body.entries.chunks_exact(ENTRY_BYTES) {
        growth.push(entry).map_err(|NotNext| Flaw::Tree)?;
    }
    if growth.range().root() != header.root_after {
        return Err(Flaw::Tree);
    }
    let size = growth.size();
    let within = |erasure: &Erasure| erasure.first < erasure.end && erasure.end <= size;
    if !body.erasures.iter().all(within) {
        return Err(Flaw::Meta);
    }
    Ok(CheckedPart {
        header: *header,
        growth,
        birth,
        cover: body.cover.clone(),
        erasures: body.erasures.clone(),
    })
}

/// All logs, and which commit comes next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Logs {
    pub(crate) logs: BTreeMap<u32, LogState>,
    /// The last commit, 0 before the first.
    pub(crate) commit: u64,
    /// Digest of the last commit's header, zeros before the first.
    pub(crate) digest: Hash,
}

impl Logs {
    /// Takes over a checked commit.
    pub(crate) fn apply(
        &mut self,
        segment: u32,
        commit: u64,
        offset: u64,
        digest: Hash,
        parts: Vec<CheckedPart>,
    ) {
        for (index, part) in (0u32..).zip(parts) {
            let header = part.header;
            let log = match part.birth {
                Some(birth) => self
                    .logs
                    .entry(header.log)
                    .or_insert_with(|| LogState::new(header.log, &birth)),
                // INVARIANT: `check_part` found the log.
                None => match self.logs.get_mut(&header.log) {
                    Some(log) => log,
                    None => continue,
                },
            };
            if let Some(signature) = header.signature {
                log.checkpoint = Some(StoredCheckpoint {
                    size: header.first,
                    root: header.root_before,
                    signature,
                });
            }
            if !part.cover.is_empty() {
                log.cover = Some(StoredCover {
                    size: part.growth.range().size(),
                    // A copy, so that a note does not hold a commit of megabytes in memory.
                    cover: Bytes::copy_from_slice(&part.cover),
                });
            }
            log.root = header.root_after;
            part.growth.apply(log);
            log.last_commit = commit;
            for erasure in &part.erasures {
                log.erased.add(*erasure, commit);
            }
            log.parts
                .push_back(PartRef::new(&header, segment, commit, offset, index));
        }
        self.commit = commit;
        self.digest = digest;
    }
}

/// A recent commit in memory, or another stretch of a segment.
#[derive(Clone, Debug)]
pub(crate) struct Recent {
    pub(crate) segment: u32,
    pub(crate) offset: u64,
    pub(crate) bytes: Bytes,
}

impl Recent {
    pub(crate) fn overlaps(&self, segment: u32, offset: u64, len: u64) -> bool {
        let end = self.offset + self.bytes.len() as u64;
        self.segment == segment && self.offset < offset.saturating_add(len) && offset < end
    }

    /// A range of the segment, where it lies in here.
    pub(crate) fn range(&self, segment: u32, offset: u64, len: u64) -> Option<Bytes> {
        let start = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        (self.segment == segment && end <= self.bytes.len()).then(|| self.bytes.slice(start..end))
    }
}

/// What the writer publishes and readers look at.
#[derive(Debug, Default)]
pub(crate) struct Published {
    pub(crate) logs: Logs,
    pub(crate) recent: VecDeque<Recent>,
    pub(crate) recent_bytes: usize,
}

impl Published {
    pub(crate) fn remember(&mut self, recent: Recent, cache_bytes: usize) {
        self.recent_bytes += recent.bytes.len();
        self.recent.push_back(recent);
        while self.recent_bytes > cache_bytes
            && let Some(oldest) = self.recent.pop_front()
        {
            self.recent_bytes -= oldest.bytes.len();
        }
    }

    /// Lets go of the commits that overlap a range.
    pub(crate) fn forget(&mut self, segment: u32, offset: u64, len: u64) {
        self.recent
            .retain(|recent| !recent.overlaps(segment, offset, len));
        self.recent_bytes = self.recent.iter().map(|recent| recent.bytes.len()).sum();
    }

    /// A range of a segment, where a recent commit holds it.
    pub(crate) fn recent(&self, segment: u32, offset: u64, len: u64) -> Option<Bytes> {
        let at = self
            .recent
            .partition_point(|recent| (recent.segment, recent.offset) <= (segment, offset));
        let recent = self.recent.get(at.checked_sub(1)?)?;
        recent.range(segment, offset, len)
    }
}

/// What writer and readers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) journal: [u8; 16],
    published: RwLock<Published>,
    pub(crate) caches: super::reader::Caches,
}

impl Shared {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: PathBuf, journal: [u8; 16], logs: Logs) -> Self {
        Self {
            disk,
            dir,
            journal,
            published: RwLock::new(Published {
                logs,
                ..Published::default()
            }),
            caches: super::reader::Caches::default(),
        }
    }

    // A thread that panicked while it held the lock had not begun to change anything that a reader relies on: changes
    // are made after every check. So the lock's own poisoning is passed over.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Published> {
        self.published
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Published> {
        self.published
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn segments(&self) -> PathBuf {
        self.dir.join("segments")
    }

    pub(crate) fn log_dir(&self, log: u32) -> PathBuf {
        self.dir.join("logs").join(log.to_string())
    }
}
