//! The one path by which anything gets into the journal.

use std::io;

use bytes::Bytes;
use countersign_crypto::Hash;

use super::erasing::{Erased, encode_erasures};
use super::error::{Broken, CommitError};
use super::format::{
    ANNOTATION_BYTES_MAX, COMMIT_BYTES_MAX, COMMIT_HEADER_BYTES, COVER_BYTES_MAX, CommitHeader,
    DIRECTORY_BYTES, DirectoryEntry, ENTRY_BYTES, ERASURE_BYTES, ERASURES_MAX, PART_HEADER_BYTES,
    PARTS_MAX, PartHeader, SECTOR, SEGMENT_HEADER_BYTES, encode_birth, parts_crc,
};
use super::heads::{HeadSlot, LastSlot};
use super::state::{CheckedPart, LogState, Recent};
use super::types::{Birth, Committed, Erasure, LogNumber, PartInput};
use super::{Active, Journal, tiles};
use crate::buffer::{Buffer, KEPT_BYTES_MIN};
use crate::disk::SyncSite;

/// A part that passed the checks of form, with what its header says.
struct Prepared {
    input: PartInput,
    birth: Option<Birth>,
    birth_bytes: Vec<u8>,
    content_len: u64,
}

impl Prepared {
    fn body_bytes(&self) -> u64 {
        (self.input.cover.len()
            + self.input.annotation.len()
            + self.birth_bytes.len()
            + self.input.erasures.len() * ERASURE_BYTES
            + self.input.entries.len()
            + self.input.contents.len() * DIRECTORY_BYTES) as u64
            + self.content_len
    }
}

impl Journal {
    /// Stores a group of parts: one contiguous write, one fdatasync, then the new heads. When this returns, all of it is
    /// on stable storage and readers see it; where it fails, all of it is stored or nothing.
    ///
    /// # Errors
    /// [`CommitError`]: after [`CommitError::Full`] and [`CommitError::Invariant`] nothing was written and the journal
    /// goes on; after [`CommitError::Io`] it has to be opened again.
    pub fn commit(&mut self, parts: Vec<PartInput>) -> Result<Committed, CommitError> {
        if self.poisoned {
            return Err(CommitError::Poisoned);
        }
        let prepared = self.check_form(parts)?;
        let length = prepared.iter().fold(
            (COMMIT_HEADER_BYTES + prepared.len() * PART_HEADER_BYTES) as u64,
            |sum, part| sum.saturating_add(part.body_bytes()),
        );
        if length > COMMIT_BYTES_MAX {
            return Err(broken(prepared[0].input.log, Broken::TooLong));
        }
        let padded = length.next_multiple_of(SECTOR);

        // Until here and in the next two steps nothing of the commit is on disk: a full disk is a refusal, no more.
        for part in &prepared {
            let reserved = self.heads.reserve(part.input.log.0);
            reserved.map_err(|error| self.refuse_or_poison(error))?;
        }
        let active = self.make_room(padded)?;
        let built = self.assemble(&active, prepared, length)?;

        // A crash in here leaves a torn commit beyond the recorded heads; recovery cuts it or, if it is whole, keeps it.
        let written = active
            .segment
            .file
            .write_all_at(&built.bytes, active.end)
            .and_then(|()| active.segment.file.sync_data(SyncSite::Commit));
        written.map_err(|source| self.poison(source))?;

        // A crash in here leaves a whole commit that nobody was told of; recovery keeps it.
        let last = LastSlot {
            segment: active.segment.header.number,
            end: active.end + padded,
            commit: built.header.number,
            digest: built.digest,
        };
        let slots: Vec<(u32, HeadSlot)> = built
            .parts
            .iter()
            .map(|part| {
                let slot = HeadSlot {
                    size: part.growth.size(),
                    commit: built.header.number,
                    root: part.header.root_after,
                };
                (part.header.log, slot)
            })
            .collect();
        let recorded = self.heads.record(&last, &slots);
        recorded.map_err(|source| self.poison(source))?;

        self.publish(active, built, padded);
        self.write_full_tiles(&slots);
        Ok(Committed {
            commit: last.commit,
            bytes_written: padded,
        })
    }

    /// Checks everything that can be checked without hashing, and puts the parts in order of their logs.
    fn check_form(&self, mut parts: Vec<PartInput>) -> Result<Vec<Prepared>, CommitError> {
        if parts.is_empty() || parts.len() > PARTS_MAX {
            let log = parts.first().map_or(LogNumber(0), |part| part.log);
            return Err(broken(log, Broken::Parts));
        }
        parts.sort_by_key(|part| part.log);
        let published = self.shared.read();
        let mut prepared: Vec<Prepared> = Vec::with_capacity(parts.len());
        for input in parts {
            let log = input.log;
            if prepared
                .last()
                .is_some_and(|before| before.input.log == log)
            {
                return Err(broken(log, Broken::TwoParts));
            }
            let (size, birth) = match published.logs.logs.get(&log.0) {
                Some(state) => (state.size(), None),
                None => match self.unborn.get(&log.0) {
                    Some(birth) => (0, Some(birth.clone())),
                    None => return Err(broken(log, Broken::UnknownLog)),
                },
            };
            if input.expected_size != size {
                let expected = input.expected_size;
                let actual = size;
                return Err(broken(log, Broken::Size { expected, actual }));
            }
            if input.cover.len() > COVER_BYTES_MAX || input.annotation.len() > ANNOTATION_BYTES_MAX
            {
                return Err(broken(log, Broken::TooLong));
            }
            let content_len = check_counts(&input).ok_or_else(|| broken(log, Broken::Counts))?;
            if !check_erasures(&input) {
                return Err(broken(log, Broken::Erasure));
            }
            prepared.push(Prepared {
                birth_bytes: birth.as_ref().map(encode_birth).unwrap_or_default(),
                birth,
                input,
                content_len,
            });
        }
        Ok(prepared)
    }

    /// The segment in use, if the commit fits; else the next one.
    fn make_room(&mut self, bytes: u64) -> Result<Active, CommitError> {
        if let Some(active) = &self.active
            && active.segment.capacity.saturating_sub(active.end) >= bytes
        {
            return Ok(active.clone());
        }
        let empty = self
            .active
            .take_if(|active| active.end == SEGMENT_HEADER_BYTES)
            .map(|active| active.segment.header.number);
        let next = self
            .preparer
            .take(bytes.saturating_add(SEGMENT_HEADER_BYTES), empty)
            .map_err(|error| self.refuse_or_poison(error))?;
        if let Some(full) = self.active.take() {
            // From here on damage in the old segment is below a durable head and cannot pass for a torn tail.
            if let Err(source) = self.heads.sync() {
                self.preparer.put_back(next);
                return Err(self.poison(source));
            }
            self.seal(&full);
        }
        let (first_commit, digest_before) = {
            let published = self.shared.read();
            (published.logs.commit + 1, published.logs.digest)
        };
        let active = Active {
            segment: next,
            end: SEGMENT_HEADER_BYTES,
            first_commit,
            digest_before,
        };
        self.active = Some(active.clone());
        Ok(active)
    }

    /// Puts the commit together in one buffer: content is copied once, here.
    fn assemble(
        &self,
        active: &Active,
        prepared: Vec<Prepared>,
        length: u64,
    ) -> Result<Built, CommitError> {
        let published = self.shared.read();
        let number = published.logs.commit + 1;
        let segment_id = active.segment.header.id;
        let capacity = usize::try_from(length.next_multiple_of(SECTOR))
            .map_err(|_| broken(prepared[0].input.log, Broken::TooLong))?;
        let front = COMMIT_HEADER_BYTES + prepared.len() * PART_HEADER_BYTES;
        let mut buffer = self.buffers.take(capacity);
        buffer.resize(front);
        let mut parts = Vec::with_capacity(prepared.len());
        let mut time_us = 0;
        for (index, part) in prepared.into_iter().enumerate() {
            let log = part.input.log;
            let fresh;
            let state = match (published.logs.logs.get(&log.0), &part.birth) {
                (Some(state), _) => state,
                (None, Some(birth)) => {
                    fresh = LogState::new(log.0, birth);
                    &fresh
                }
                (None, None) => return Err(broken(log, Broken::UnknownLog)),
            };
            let checked = push_part(&mut buffer, state, part)?;
            time_us = time_us.max(checked.growth.last_time_us());
            let at = COMMIT_HEADER_BYTES + index * PART_HEADER_BYTES;
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            buffer[at..at + PART_HEADER_BYTES].copy_from_slice(&checked.header.encode(
                &segment_id,
                number,
                index,
            ));
            parts.push(checked);
        }
        debug_assert_eq!(buffer.len() as u64, length);
        let header = CommitHeader {
            segment: segment_id,
            number,
            previous: published.logs.digest,
            offset: active.end,
            // INVARIANT: at most PARTS_MAX.
            part_count: u32::try_from(parts.len()).unwrap_or(u32::MAX),
            length,
            time_us,
            parts_crc: parts_crc(&buffer[COMMIT_HEADER_BYTES..front]),
        };
        buffer[..COMMIT_HEADER_BYTES].copy_from_slice(&header.encode());
        buffer.resize(capacity);
        Ok(Built {
            digest: header.digest(&buffer[COMMIT_HEADER_BYTES..front]),
            header,
            parts,
            bytes: buffer.freeze(),
        })
    }

    fn publish(&mut self, active: Active, built: Built, padded: u64) {
        let segment = active.segment.header.number;
        for part in &built.parts {
            self.unborn.remove(&part.header.log);
        }
        let erasing: Vec<u32> = built
            .parts
            .iter()
            .filter(|part| !part.erasures.is_empty())
            .map(|part| part.header.log)
            .collect();
        let mut published = self.shared.write();
        published.logs.apply(
            segment,
            built.header.number,
            active.end,
            built.digest,
            built.parts,
        );
        self.erasing
            .collect_from(&mut published.logs, erasing.into_iter());
        // A small one without its buffer, whose alignment would take more memory than the commit.
        let bytes = match built.bytes.len() < KEPT_BYTES_MIN {
            true => Bytes::copy_from_slice(&built.bytes),
            false => built.bytes,
        };
        let recent = Recent {
            segment,
            offset: active.end,
            bytes,
        };
        published.remember(recent, self.options.cache_bytes);
        drop(published);
        self.active = Some(Active {
            end: active.end + padded,
            ..active
        });
    }

    /// Moves full tiles of the touched logs to their files. They are derived: a failure keeps them in memory.
    fn write_full_tiles(&self, touched: &[(u32, HeadSlot)]) {
        for (log, _) in touched {
            let writes = match self.shared.read().logs.logs.get(log) {
                Some(state) if state.tails.due() => tiles::collect(&state.tails, false),
                _ => continue,
            };
            let dir = self.shared.log_dir(*log);
            if tiles::write(&*self.shared.disk, &dir, &writes).is_ok()
                && let Some(state) = self.shared.write().logs.logs.get_mut(log)
            {
                tiles::forget(&mut state.tails, &writes);
            }
        }
    }

    fn poison(&mut self, source: io::Error) -> CommitError {
        self.poisoned = true;
        CommitError::Io { source }
    }

    /// An error before anything of the commit was written: a full disk can be waited for, anything else cannot be judged.
    fn refuse_or_poison(&mut self, source: io::Error) -> CommitError {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => CommitError::Full,
            _ => self.poison(source),
        }
    }
}

/// A commit ready to be written.
struct Built {
    header: CommitHeader,
    digest: Hash,
    parts: Vec<CheckedPart>,
    bytes: Bytes,
}

fn broken(log: LogNumber, broken: Broken) -> CommitError {
    CommitError::Invariant { log, broken }
}

/// Compares all counts and lengths of a part; the content's length where they fit.
fn check_counts(input: &PartInput) -> Option<u64> {
    let count = input.contents.len();
    let entries = count.checked_mul(ENTRY_BYTES)?;
    u32::try_from(count).ok()?;
    let declared = input
        .contents
        .iter()
        .try_fold(0u64, |sum, content| sum.checked_add(content.bytes()))?;
    let given = input
        .content
        .iter()
        .try_fold(0u64, |sum, piece| sum.checked_add(piece.len() as u64))?;
    (input.entries.len() == entries
        && input.growth.leaf_hashes().len() == count
        && declared == given)
        .then_some(given)
}

/// Whether erasures lie within the log as it will be, and name every entry of the part that comes without content.
fn check_erasures(input: &PartInput) -> bool {
    let end = input
        .expected_size
        .saturating_add(input.contents.len() as u64);
    let within = |erasure: &Erasure| erasure.first < erasure.end && erasure.end <= end;
    let mut erased = Erased::default();
    for erasure in &input.erasures {
        if !within(erasure) {
            return false;
        }
        erased.add(*erasure, 0);
    }
    let mut absent = (input.expected_size..)
        .zip(&input.contents)
        .filter(|(_, content)| content.is_absent());
    input.erasures.len() <= ERASURES_MAX
        && absent.all(|(sequence, _)| erased.by(sequence).is_some())
}

/// Appends a part's body to the buffer and compares the checksum of the entries *there* with the one taken when they were hashed: a bit that flipped
/// in memory in between is caught before a signature covers it.
fn push_part(
    buffer: &mut Buffer,
    state: &LogState,
    part: Prepared,
) -> Result<CheckedPart, CommitError> {
    let input = part.input;
    let body_start = buffer.len();
    buffer.extend_from_slice(&input.cover);
    buffer.extend_from_slice(&input.annotation);
    buffer.extend_from_slice(&part.birth_bytes);
    buffer.extend_from_slice(&encode_erasures(&input.erasures));
    let entries_start = buffer.len();
    buffer.extend_from_slice(&input.entries);
    let directory_start = buffer.len();
    let content_start = directory_start + input.contents.len() * DIRECTORY_BYTES;
    buffer.resize(content_start);
    for piece in &input.content {
        buffer.extend_from_slice(piece);
    }
    fill_directory(buffer, directory_start, content_start, &input);

    if !input.growth.is_behind(state) {
        return Err(broken(input.log, Broken::Chain));
    }
    let entries_crc = crc32c::crc32c(&buffer[entries_start..directory_start]);
    if entries_crc != input.growth.entries_crc() {
        return Err(broken(input.log, Broken::Hash));
    }
    // INVARIANT: `check_form` has limited all of these.
    let len32 = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
    let header = PartHeader {
        log: input.log.0,
        first: input.expected_size,
        count: len32(input.contents.len()),
        cover_len: len32(input.cover.len()),
        annotation_len: len32(input.annotation.len()),
        birth_len: len32(part.birth_bytes.len()),
        body_offset: body_start as u64,
        content_len: part.content_len,
        root_before: state.root,
        root_after: input.growth.range().root(),
        signature: input.signature_before,
        erasures: len32(input.erasures.len()),
        meta_crc: crc32c::crc32c(&buffer[body_start..entries_start]),
        entries_crc: crc32c::crc32c_append(entries_crc, &buffer[directory_start..content_start]),
    };
    Ok(CheckedPart {
        header,
        growth: input.growth,
        birth: part.birth,
        cover: Bytes::from(input.cover),
        erasures: input.erasures,
    })
}

fn fill_directory(
    buffer: &mut [u8],
    directory_start: usize,
    content_start: usize,
    input: &PartInput,
) {
    let (front, content) = buffer.split_at_mut(content_start);
    let directory = front[directory_start..].chunks_exact_mut(DIRECTORY_BYTES);
    let mut rest = &content[..];
    for (slot, lengths) in directory.zip(&input.contents) {
        let mut entry = DirectoryEntry {
            attribute_bytes: lengths.attribute_bytes,
            data_part_bytes: lengths.data_part_bytes,
            crc: 0,
        };
        // INVARIANT: `check_counts` has found that the lengths add up to the content.
        let len = usize::try_from(entry.content_bytes()).unwrap_or(usize::MAX);
        let (bytes, after) = rest.split_at(len.min(rest.len()));
        entry.crc = crc32c::crc32c(bytes);
        slot.copy_from_slice(&entry.encode());
        rest = after;
    }
}
