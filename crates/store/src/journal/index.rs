//! The index of a sealed segment, `00000001.idx`: derived, never synced, built again from the segment where it is bad.
//!
//! ```text
//!   0  8 magic   8 4 version   12 4 segment number   16 16 segment id   32 16 journal id
//!  48  8 first commit   56 8 last commit   64 32 digest before the first   96 32 digest of the last
//! 128  8 end of the last commit in the segment   136 4 logs   140 4 parts
//! 144    logs: each 4 number · 8 size · 32 last leaf · 8 last time · 8 last commit · 1 flags (1 checkpoint, 2 cover, 4 born)
//!                   · [8 size · 32 root · 64 signature] · [8 size · 2 length · cover] · [4 length · birth]
//!                   · 32 for each hash of the compact range of `size`
//!        parts in order of commits: each 88 bytes, the fields of a part's place
//!   end  4 crc32c
//! ```

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use countersign_crypto::Hash;
use countersign_tlog::CompactRange;

use super::format::{
    ANNOTATION_BYTES_MAX, BIRTH_BYTES_MAX, COVER_BYTES_MAX, FORMAT_VERSION, Fields, SegmentHeader,
    decode_birth, encode_birth,
};
use super::segment::remove_if_there;
use super::state::{LogState, PartRef};
use super::types::{Birth, StoredCheckpoint, StoredCover};
use crate::disk::{Disk, read_vec};

const MAGIC: &[u8; 8] = b"CSINDX\r\n";
const PART_BYTES: usize = 88;
/// A segment of 64 MiB has at most 65,536 commits; larger indexes than this are not written, the segment is scanned.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Where the parts of a sealed segment are.
#[derive(Debug)]
pub(crate) struct SegmentIndex {
    pub(crate) header: SegmentHeader,
    pub(crate) first_commit: u64,
    pub(crate) last_commit: u64,
    pub(crate) digest_before: Hash,
    pub(crate) digest: Hash,
    pub(crate) end: u64,
    /// Logs with a part in this segment, as they are at its end.
    pub(crate) logs: Vec<IndexedLog>,
    /// In order of commits.
    pub(crate) parts: Vec<PartRef>,
}

#[derive(Debug)]
pub(crate) struct IndexedLog {
    pub(crate) number: u32,
    pub(crate) birth: Option<Birth>,
    pub(crate) range: CompactRange,
    pub(crate) last_leaf: Hash,
    pub(crate) last_time_us: u64,
    pub(crate) last_commit: u64,
    pub(crate) checkpoint: Option<StoredCheckpoint>,
    pub(crate) cover: Option<StoredCover>,
}

pub(crate) fn index_path(segments: &Path, number: u32) -> PathBuf {
    segments.join(format!("{number:08}.idx"))
}

impl IndexedLog {
    pub(crate) fn of(log: &LogState, born_here: bool) -> Self {
        Self {
            number: log.number,
            birth: born_here.then(|| Birth {
                kind: log.kind,
                origin: log.origin.clone(),
                settings: log.settings.to_vec(),
            }),
            range: log.range.clone(),
            last_leaf: log.last_leaf,
            last_time_us: log.last_time_us,
            last_commit: log.last_commit,
            checkpoint: log.checkpoint,
            cover: log.cover.clone(),
        }
    }
}

impl SegmentIndex {
    /// Writes the file under a temporary name first: what has the name is whole, unless power was lost.
    pub(crate) fn write(&self, disk: &dyn Disk, segments: &Path) -> io::Result<()> {
        let bytes = self.encode();
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Ok(());
        }
        let path = index_path(segments, self.header.number);
        let temporary = path.with_extension("idx.new");
        remove_if_there(disk, &temporary)?;
        let file = disk.create_new(&temporary)?;
        if let Err(error) = file.write_all_at(&bytes, 0) {
            let _ = disk.remove(&temporary);
            return Err(error);
        }
        disk.rename(&temporary, &path)
    }

    /// Reads the file; `None` where it is missing or not whole or of another segment.
    pub(crate) fn read(
        disk: &dyn Disk,
        segments: &Path,
        header: &SegmentHeader,
    ) -> io::Result<Option<Self>> {
        let file = match disk.open(&index_path(segments, header.number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let len = file.len()?;
        if len > FILE_BYTES_MAX {
            return Ok(None);
        }
        let bytes = read_vec(&*file, 0, usize::try_from(len).map_err(io::Error::other)?)?;
        Ok(Self::decode(&bytes).filter(|index| &index.header == header))
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4096 + self.parts.len() * PART_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_be_bytes());
        out.extend_from_slice(&self.header.number.to_be_bytes());
        out.extend_from_slice(&self.header.id);
        out.extend_from_slice(&self.header.journal);
        out.extend_from_slice(&self.first_commit.to_be_bytes());
        out.extend_from_slice(&self.last_commit.to_be_bytes());
        out.extend_from_slice(&self.digest_before);
        out.extend_from_slice(&self.digest);
        out.extend_from_slice(&self.end.to_be_bytes());
        // INVARIANT: both counts are below the number of 512-byte sectors of a segment times 65,536 parts; a count that
        // does not fit makes an index that does not decode, and the segment is scanned instead.
        let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
        out.extend_from_slice(&count(self.logs.len()));
        out.extend_from_slice(&count(self.parts.len()));
        for log in &self.logs {
            log.encode(&mut out);
        }
        for part in self.parts.iter() {
            encode_part(part, &mut out);
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_be_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        if Fields(crc).u32()? != crc32c::crc32c(body) {
            return None;
        }
        let mut fields = Fields(body);
        if &fields.array::<8>()? != MAGIC || fields.u32()? != FORMAT_VERSION {
            return None;
        }
        let header = SegmentHeader {
            number: fields.u32()?,
            id: fields.array()?,
            journal: fields.array()?,
        };
        let (first_commit, last_commit) = (fields.u64()?, fields.u64()?);
        let (digest_before, digest) = (fields.array()?, fields.array()?);
        let end = fields.u64()?;
        let (log_count, part_count) = (fields.u32()?, fields.u32()?);
        let mut logs = Vec::new();
        for _ in 0..log_count {
            logs.push(IndexedLog::decode(&mut fields)?);
        }
        let parts_bytes = fields.take((part_count as usize).checked_mul(PART_BYTES)?)?;
        let parts = parts_bytes
            .chunks_exact(PART_BYTES)
            .map(|part| decode_part(part, header.number))
            .collect::<Option<Vec<_>>>()?;
        fields.0.is_empty().then_some(Self {
            header,
            first_commit,
            last_commit,
            digest_before,
            digest,
            end,
            logs,
            parts,
        })
    }
}

impl IndexedLog {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.range.size().to_be_bytes());
        out.extend_from_slice(&self.last_leaf);
        out.extend_from_slice(&self.last_time_us.to_be_bytes());
        out.extend_from_slice(&self.last_commit.to_be_bytes());
        let flags = u8::from(self.checkpoint.is_some())
            | u8::from(self.cover.is_some()) << 1
            | u8::from(self.birth.is_some()) << 2;
        out.push(flags);
        if let Some(checkpoint) = &self.checkpoint {
            out.extend_from_slice(&checkpoint.size.to_be_bytes());
            out.extend_from_slice(&checkpoint.root);
            out.extend_from_slice(&checkpoint.signature);
        }
        if let Some(cover) = &self.cover {
            out.extend_from_slice(&cover.size.to_be_bytes());
            // INVARIANT: a cover has at most 4 KiB.
            let len = u16::try_from(cover.cover.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(&cover.cover);
        }
        if let Some(birth) = &self.birth {
            let birth = encode_birth(birth);
            let len = u32::try_from(birth.len()).unwrap_or(u32::MAX);
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(&birth);
        }
        for hash in self.range.hashes() {
            out.extend_from_slice(hash);
        }
    }

    fn decode(fields: &mut Fields<'_>) -> Option<Self> {
        let number = fields.u32()?;
        let size = fields.u64()?;
        let last_leaf = fields.array()?;
        let (last_time_us, last_commit) = (fields.u64()?, fields.u64()?);
        let [flags] = fields.array()?;
        let mut log = Self {
            number,
            birth: None,
            range: CompactRange::new(),
            last_leaf,
            last_time_us,
            last_commit,
            checkpoint: None,
            cover: None,
        };
        if flags & 1 != 0 {
            log.checkpoint = Some(StoredCheckpoint {
                size: fields.u64()?,
                root: fields.array()?,
                signature: fields.array()?,
            });
        }
        if flags & 2 != 0 {
            let size = fields.u64()?;
            let len = usize::from(u16::from_be_bytes(fields.array()?));
            let cover = Bytes::copy_from_slice(fields.take(len)?);
            log.cover = Some(StoredCover { size, cover });
        }
        if flags & 4 != 0 {
            let len = fields.u32()? as usize;
            log.birth = Some(decode_birth(fields.take(len)?)?);
        }
        let mut hashes = Vec::new();
        for _ in 0..size.count_ones() {
            hashes.push(fields.array()?);
        }
        log.range = CompactRange::from_hashes(size, hashes).ok()?;
        (number != 0 && flags < 8).then_some(log)
    }
}

fn encode_part(part: &PartRef, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&part.log.to_be_bytes());
    out.extend_from_slice(&part.count.to_be_bytes());
    out.extend_from_slice(&part.first.to_be_bytes());
    out.extend_from_slice(&part.commit.to_be_bytes());
    out.extend_from_slice(&part.commit_offset.to_be_bytes());
    out.extend_from_slice(&part.body_offset.to_be_bytes());
    out.extend_from_slice(&part.content_len.to_be_bytes());
    out.extend_from_slice(&part.index.to_be_bytes());
    out.extend_from_slice(&part.cover_len.to_be_bytes());
    out.extend_from_slice(&part.annotation_len.to_be_bytes());
    out.extend_from_slice(&part.birth_len.to_be_bytes());
    out.extend_from_slice(&part.meta_crc.to_be_bytes());
    out.extend_from_slice(&part.entries_crc.to_be_bytes());
    out.extend_from_slice(&u32::from(part.signed).to_be_bytes());
    out.extend_from_slice(&part.erasures.to_be_bytes());
    out.resize(start + PART_BYTES, 0);
}

fn decode_part(bytes: &[u8], segment: u32) -> Option<PartRef> {
    let mut fields = Fields(bytes);
    let part = PartRef {
        log: fields.u32()?,
        count: fields.u32()?,
        first: fields.u64()?,
        commit: fields.u64()?,
        commit_offset: fields.u64()?,
        body_offset: fields.u64()?,
        content_len: fields.u64()?,
        index: fields.u32()?,
        cover_len: fields.u32()?,
        annotation_len: fields.u32()?,
        birth_len: fields.u32()?,
        meta_crc: fields.u32()?,
        entries_crc: fields.u32()?,
        signed: fields.u32()? != 0,
        erasures: fields.u32()?,
        segment,
    };
    let good = part.cover_len as usize <= COVER_BYTES_MAX
        && part.annotation_len as usize <= ANNOTATION_BYTES_MAX
        && part.birth_len as usize <= BIRTH_BYTES_MAX
        && part.erasures as usize <= super::format::ERASURES_MAX
        && part.content_len <= super::format::COMMIT_BYTES_MAX
        && part.body_offset <= super::format::SEGMENT_BYTES_MAX;
    good.then_some(part)
}
