//! Reads commits from a segment and checks them against what came before.

use std::io;

use bytes::Bytes;
use countersign_crypto::Hash;
use countersign_event::commitment::{attribute_commitment, data_commitment, whole_commitment};

use super::erasing::Erased;
use super::error::Flaw;
use super::format::{
    COMMIT_BYTES_MAX, COMMIT_HEADER_BYTES, CommitHeader, DirectoryEntry, ENTRY_BYTES,
    PART_HEADER_BYTES, PARTS_MAX, PartHeader, SALT_BYTES, SECTOR, parts_crc,
};
use super::segment::Segment;
use super::state::{CheckedPart, Logs, PartBody, check_part};
use crate::disk::read_vec;

/// Segments are searched in pieces of this size.
const SEARCH_BYTES: u64 = 1 << 20;

/// A commit that continues the journal.
#[derive(Debug)]
pub(crate) struct FoundCommit {
    pub(crate) header: CommitHeader,
    pub(crate) digest: Hash,
    pub(crate) parts: Vec<CheckedPart>,
    pub(crate) bytes: Bytes,
}

/// Reads the header at an offset; the outer error is the disk's, the inner what is wrong with the bytes.
pub(crate) fn read_header(
    segment: &Segment,
    offset: u64,
) -> io::Result<Result<CommitHeader, Flaw>> {
    if offset.saturating_add(COMMIT_HEADER_BYTES as u64) > segment.capacity {
        return Ok(Err(Flaw::Absent));
    }
    let mut bytes = [0; COMMIT_HEADER_BYTES];
    segment.file.read_exact_at(&mut bytes, offset)?;
    if bytes.iter().all(|&byte| byte == 0) {
        return Ok(Err(Flaw::Absent));
    }
    Ok(decode_header(segment, offset, &bytes).ok_or(Flaw::Header))
}

fn decode_header(
    segment: &Segment,
    offset: u64,
    bytes: &[u8; COMMIT_HEADER_BYTES],
) -> Option<CommitHeader> {
    CommitHeader::decode(bytes).filter(|header| {
        header.segment == segment.header.id
            && header.offset == offset
            && (1..=PARTS_MAX as u32).contains(&header.part_count)
            && header.length >= header.front_bytes()
            && header.length <= COMMIT_BYTES_MAX
            && header.length <= segment.capacity - offset
    })
}

/// Reads the part headers of a commit.
pub(crate) fn read_parts(
    segment: &Segment,
    header: &CommitHeader,
) -> io::Result<Result<Vec<PartHeader>, Flaw>> {
    // INVARIANT: the header was accepted by `decode_header`: at most 16 MiB, within the segment.
    let len = header.part_count as usize * PART_HEADER_BYTES;
    let bytes = read_vec(
        &*segment.file,
        header.offset + COMMIT_HEADER_BYTES as u64,
        len,
    )?;
    Ok(decode_parts(header, &bytes))
}

fn decode_parts(header: &CommitHeader, bytes: &[u8]) -> Result<Vec<PartHeader>, Flaw> {
    if parts_crc(bytes) != header.parts_crc {
        return Err(Flaw::PartHeader);
    }
    let mut parts = Vec::with_capacity(header.part_count as usize);
    let mut body_offset = header.front_bytes();
    for (index, bytes) in (0u32..).zip(bytes.chunks_exact(PART_HEADER_BYTES)) {
        let part = bytes
            .try_into()
            .ok()
            .and_then(|bytes| PartHeader::decode(bytes, &header.segment, header.number, index))
            .filter(|part| part.body_offset == body_offset)
            .ok_or(Flaw::PartHeader)?;
        body_offset = part
            .body_bytes()
            .and_then(|len| body_offset.checked_add(len))
            .filter(|&end| end <= header.length)
            .ok_or(Flaw::PartHeader)?;
        parts.push(part);
    }
    if body_offset == header.length {
        Ok(parts)
    } else {
        Err(Flaw::PartHeader)
    }
}

/// Reads the commit at an offset and checks that it continues `logs`. Content is checked against the entries'
/// commitments where `check_content` says so.
pub(crate) fn read_commit(
    segment: &Segment,
    offset: u64,
    logs: &Logs,
    check_content: bool,
) -> io::Result<Result<FoundCommit, Flaw>> {
    let header = match read_header(segment, offset)? {
        Ok(header) => header,
        Err(flaw) => return Ok(Err(flaw)),
    };
    if header.number != logs.commit + 1 || header.previous != logs.digest {
        return Ok(Err(Flaw::Chain));
    }
    // INVARIANT: at most COMMIT_BYTES_MAX and within the file, `decode_header` has checked it.
    let len = usize::try_from(header.length).map_err(io::Error::other)?;
    let bytes = Bytes::from(read_vec(&*segment.file, offset, len)?);
    Ok(check_commit(header, bytes, logs, check_content))
}

fn check_commit(
    header: CommitHeader,
    bytes: Bytes,
    logs: &Logs,
    check_content: bool,
) -> Result<FoundCommit, Flaw> {
    let front = COMMIT_HEADER_BYTES + header.part_count as usize * PART_HEADER_BYTES;
    let headers = decode_parts(&header, &bytes[COMMIT_HEADER_BYTES..front])?;
    let mut parts: Vec<CheckedPart> = Vec::with_capacity(headers.len());
    let mut rest = bytes.slice(front..);
    let mut previous_log = 0;
    for part in headers {
        // Parts stand in ascending order of logs, so that no log has two.
        if part.log <= previous_log {
            return Err(Flaw::Chain);
        }
        previous_log = part.log;
        // INVARIANT: `decode_parts` has checked that the bodies add up to the commit.
        let len = part.body_bytes().and_then(|len| usize::try_from(len).ok());
        let body = PartBody::cut(&part, rest.split_to(len.ok_or(Flaw::PartHeader)?))?;
        if check_content {
            check_commitments(part.first, &body)?;
        }
        parts.push(check_part(logs.logs.get(&part.log), &part, &body)?);
    }
    Ok(FoundCommit {
        digest: header.digest(&bytes[COMMIT_HEADER_BYTES..front]),
        header,
        parts,
        bytes,
    })
}

/// Checks each entry's content against its checksum, the cheap test that a read makes. `named` says whether an erasure names an entry without
/// content, by its place.
pub(crate) fn check_content_crcs(
    directory: &[u8],
    mut content: &[u8],
    named: impl Fn(u64) -> bool,
) -> Result<(), Flaw> {
    let mut place = 0;
    for entry in DirectoryEntry::decode_all(directory) {
        place += 1;
        if entry.is_absent() {
            if !named(place - 1) {
                return Err(Flaw::Content);
            }
            continue;
        }
        let len = usize::try_from(entry.content_bytes()).map_err(|_| Flaw::Content)?;
        let (bytes, rest) = content.split_at_checked(len).ok_or(Flaw::Content)?;
        if crc32c::crc32c(bytes) != entry.crc {
            return Err(Flaw::Content);
        }
        content = rest;
    }
    Ok(())
}

/// The commitment to a data part; what the first byte of an encrypted one says is chance.
fn committed(kind_and_flags: u8, salt: &[u8; 32], data_part: &[u8]) -> Hash {
    match kind_and_flags & ENCRYPTED {
        0 => data_commitment(salt, data_part),
        _ => whole_commitment(salt, data_part),
    }
}

/// Of an entry's byte of kind and flags.
const ENCRYPTED: u8 = 0x10;

/// Checks each entry's content against checksum and commitments.
fn check_commitments(first: u64, body: &PartBody) -> Result<(), Flaw> {
    // Entries without content: the part itself says what allows it.
    let mut erased = Erased::default();
    for erasure in &body.erasures {
        erased.add(*erasure, 0);
    }
    let named = |place| erased.by(first.saturating_add(place)).is_some();
    check_content_crcs(&body.directory, &body.content, named)?;
    let mut rest = &body.content[..];
    for (entry, lengths) in body
        .entries
        .chunks_exact(ENTRY_BYTES)
        .zip(DirectoryEntry::decode_all(&body.directory))
    {
        if lengths.is_absent() {
            continue;
        }
        let (attribute_salt, after) = rest.split_first_chunk().ok_or(Flaw::Content)?;
        let (data_salt, after) = after.split_first_chunk().ok_or(Flaw::Content)?;
        let (attributes, after) = after
            .split_at_checked(lengths.attribute_bytes as usize)
            .ok_or(Flaw::Content)?;
        let (data_part, after) = after
            .split_at_checked(lengths.data_part_bytes as usize)
            .ok_or(Flaw::Content)?;
        debug_assert_eq!(SALT_BYTES, attribute_salt.len() + data_salt.len());
        // Layout: schemas/entry.md.
        if entry[54..86] != attribute_commitment(attribute_salt, attributes)
            || entry[86..118] != committed(entry[1], data_salt, data_part)
        {
            return Err(Flaw::Content);
        }
        rest = after;
    }
    Ok(())
}

/// What lies behind a place from which no commit could be read.
#[derive(Debug, Default)]
pub(crate) struct Remains {
    /// Headers of whole commits of this segment with a number above the last good one.
    pub(crate) later: Vec<CommitHeader>,
    /// Runs of sectors that are not all zeros.
    pub(crate) written: Vec<(u64, u64)>,
}

/// Searches a segment from a sector on.
pub(crate) fn search_rest(segment: &Segment, from: u64, after_commit: u64) -> io::Result<Remains> {
    let mut remains = Remains::default();
    let mut at = from;
    while at < segment.capacity {
        let len = SEARCH_BYTES.min(segment.capacity - at);
        let piece = read_vec(
            &*segment.file,
            at,
            usize::try_from(len).map_err(io::Error::other)?,
        )?;
        for (offset, sector) in (at..)
            .step_by(SECTOR as usize)
            .zip(piece.chunks(SECTOR as usize))
        {
            if sector.iter().all(|&byte| byte == 0) {
                continue;
            }
            let end = offset + sector.len() as u64;
            match remains.written.last_mut() {
                Some((_, last_end)) if *last_end == offset => *last_end = end,
                _ => remains.written.push((offset, end)),
            }
            let header = sector
                .first_chunk()
                .and_then(|bytes| decode_header(segment, offset, bytes));
            if let Some(header) = header
                && header.number > after_commit
                && offset > from
            {
                remains.later.push(header);
            }
        }
        at += len;
    }
    Ok(remains)
}
