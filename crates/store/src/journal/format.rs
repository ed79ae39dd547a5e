//! Bytes of segments and commits. `schemas/journal.md` is the page of this module.
//!
//! ```text
//! segment   header (512) ‖ commit ‖ zeros to 512 ‖ commit ‖ … ‖ zeros
//! commit    header (128) ‖ part headers (256 each) ‖ part ‖ part ‖ …
//! part      cover ‖ annotation ‖ birth ‖ erasures (24 each) ‖ entries (118 each) ‖ directory (12 each) ‖ content
//! ```

use countersign_crypto::{Hash, sha256_of};

use super::types::{Birth, LogKind};

/// What a disk writes whole or not at all. Commits and head slots are laid out by it.
pub(crate) const SECTOR: u64 = 512;
pub(crate) const SEGMENT_HEADER_BYTES: u64 = 512;
pub(crate) const COMMIT_HEADER_BYTES: usize = 128;
pub(crate) const PART_HEADER_BYTES: usize = 256;
pub(crate) const DIRECTORY_BYTES: usize = 12;
/// The skeleton of one event: `schemas/entry.md`.
pub(crate) const ENTRY_BYTES: usize = 118;
/// Two salts of 32 bytes stand before the attributes.
pub(crate) const SALT_BYTES: usize = 64;

/// A signed note of a producer, with its cosignatures.
pub const COVER_BYTES_MAX: usize = 4 << 10;
/// Publisher keys and numbers of one part.
pub const ANNOTATION_BYTES_MAX: usize = 64 << 10;
/// The longest origin: an authority (253), `/ledger/` (8), an authority (253).
pub const ORIGIN_BYTES_MAX: usize = 514;
/// What the creator of a log stores with its birth.
pub const SETTINGS_BYTES_MAX: usize = 64 << 10;
/// Kind (1), origin length (2), origin, settings.
pub(crate) const BIRTH_BYTES_MAX: usize = 3 + ORIGIN_BYTES_MAX + SETTINGS_BYTES_MAX;
/// First sequence, end, allowing control entry: 8 bytes each.
pub(crate) const ERASURE_BYTES: usize = 24;
/// Erasures of one part: 24 MiB, far above what single erasures in one commit come to.
pub const ERASURES_MAX: usize = 1 << 20;
/// Logs in one commit. Their part headers together take 16 MiB.
pub const PARTS_MAX: usize = 1 << 16;
/// One commit in bytes: far above what a group commit gathers, and small enough to be held in memory.
pub const COMMIT_BYTES_MAX: u64 = 1 << 30;
/// A segment holds at least its header and one event, and its offsets leave room in 64 bits.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 1 << 40;

/// Persisted; never reused for another format.
pub(crate) const FORMAT_VERSION: u32 = 1;
const SEGMENT_MAGIC: &[u8; 8] = b"CSSEGM\r\n";
const COMMIT_MAGIC: &[u8; 8] = b"CSCOMT\r\n";

const FLAG_SIGNATURE: u32 = 1;

/// ```text
///  0  8 magic   8 4 version   12 4 segment number   16 16 segment id   32 16 journal id   48 zeros   508 4 crc32c
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct SegmentHeader {
    pub(crate) number: u32,
    pub(crate) id: [u8; 16],
    pub(crate) journal: [u8; 16],
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES as usize] {
        let mut out = [0; SEGMENT_HEADER_BYTES as usize];
        out[..8].copy_from_slice(SEGMENT_MAGIC);
        out[8..12].copy_from_slice(&FORMAT_VERSION.to_be_bytes());
        out[12..16].copy_from_slice(&self.number.to_be_bytes());
        out[16..32].copy_from_slice(&self.id);
        out[32..48].copy_from_slice(&self.journal);
        let crc = crc32c::crc32c(&out[..508]);
        out[508..].copy_from_slice(&crc.to_be_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_at_checked(508)?;
        let mut crc = Fields(crc);
        if crc.u32()? != crc32c::crc32c(body) || !crc.0.is_empty() {
            return None;
        }
        let mut fields = Fields(body);
        if &fields.array::<8>()? != SEGMENT_MAGIC || fields.u32()? != FORMAT_VERSION {
            return None;
        }
        let header = Self {
            number: fields.u32()?,
            id: fields.array()?,
            journal: fields.array()?,
        };
        fields.0.iter().all(|&byte| byte == 0).then_some(header)
    }
}

/// ```text
///   0  8 magic
///   8 16 segment id          old blocks in reused space never pass as new
///  24  8 commit number       the first of a journal is 1
///  32 32 previous            digest of the commit before, so that commits chain across segments
///  64  8 offset              of this header in its segment: a block at a wrong place is noticed
///  72  4 part count
///  76  4 zero
///  80  8 length              of the commit with its content, without padding
///  88  8 time                µs, UTC: the latest entry's
///  96  4 crc32c of the part headers, each without its own checksum
/// 100 24 zeros
/// 124  4 crc32c of the bytes before
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct CommitHeader {
    pub(crate) segment: [u8; 16],
    pub(crate) number: u64,
    pub(crate) previous: Hash,
    pub(crate) offset: u64,
    pub(crate) part_count: u32,
    pub(crate) length: u64,
    pub(crate) time_us: u64,
    pub(crate) parts_crc: u32,
}

impl CommitHeader {
    pub(crate) fn encode(&self) -> [u8; COMMIT_HEADER_BYTES] {
        let mut out = [0; COMMIT_HEADER_BYTES];
        out[..8].copy_from_slice(COMMIT_MAGIC);
        out[8..24].copy_from_slice(&self.segment);
        out[24..32].copy_from_slice(&self.number.to_be_bytes());
        out[32..64].copy_from_slice(&self.previous);
        out[64..72].copy_from_slice(&self.offset.to_be_bytes());
        out[72..76].copy_from_slice(&self.part_count.to_be_bytes());
        out[80..88].copy_from_slice(&self.length.to_be_bytes());
        out[88..96].copy_from_slice(&self.time_us.to_be_bytes());
        out[96..100].copy_from_slice(&self.parts_crc.to_be_bytes());
        let crc = crc32c::crc32c(&out[..124]);
        out[124..].copy_from_slice(&crc.to_be_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8; COMMIT_HEADER_BYTES]) -> Option<Self> {
        let mut fields = Fields(bytes);
        if &fields.array::<8>()? != COMMIT_MAGIC {
            return None;
        }
        let header = Self {
            segment: fields.array()?,
            number: fields.u64()?,
            previous: fields.array()?,
            offset: fields.u64()?,
            part_count: fields.u32()?,
            length: {
                fields.u32()?;
                fields.u64()?
            },
            time_us: fields.u64()?,
            parts_crc: fields.u32()?,
        };
        // Encoding again compares the checksum and every reserved byte in one go.
        (&header.encode() == bytes).then_some(header)
    }

    /// What the next commit names as the one before: over the header and the part headers, and through their checksums
    /// and roots over everything else.
    pub(crate) fn digest(&self, part_headers: &[u8]) -> Hash {
        sha256_of(&[&self.encode(), part_headers])
    }

    /// Bytes of the header and the part headers.
    pub(crate) fn front_bytes(&self) -> u64 {
        COMMIT_HEADER_BYTES as u64 + u64::from(self.part_count) * PART_HEADER_BYTES as u64
    }

    /// Where the next commit begins. `length` has been checked against the segment.
    pub(crate) fn end(&self) -> u64 {
        self.offset
            .saturating_add(self.length)
            .next_multiple_of(SECTOR)
    }
}

/// ```text
///   0  4 log number
///   4  4 flags               bit 0: signature present
///   8  8 first sequence
///  16  4 entry count
///  20  4 cover length
///  24  4 annotation length
///  28  4 birth length
///  32  8 body offset         from the commit header
///  40  8 content length
///  48 32 root before
///  80 32 root after
/// 112 64 signature           of the checkpoint over the head before, zeros without
/// 176  4 crc32c of cover, annotation, birth and erasures
/// 180  4 crc32c of entries and directory
/// 184  4 erasures
/// 188 64 zeros
/// 252  4 crc32c of segment id ‖ commit number u64 ‖ part index u32 ‖ the bytes before
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct PartHeader {
    pub(crate) log: u32,
    pub(crate) first: u64,
    pub(crate) count: u32,
    pub(crate) cover_len: u32,
    pub(crate) annotation_len: u32,
    pub(crate) birth_len: u32,
    pub(crate) body_offset: u64,
    pub(crate) content_len: u64,
    pub(crate) root_before: Hash,
    pub(crate) root_after: Hash,
    pub(crate) signature: Option<[u8; 64]>,
    pub(crate) meta_crc: u32,
    pub(crate) entries_crc: u32,
    pub(crate) erasures: u32,
}

impl PartHeader {
    pub(crate) fn encode(
        &self,
        segment: &[u8; 16],
        commit: u64,
        index: u32,
    ) -> [u8; PART_HEADER_BYTES] {
        let mut out = [0; PART_HEADER_BYTES];
        let flags = if self.signature.is_some() {
            FLAG_SIGNATURE
        } else {
            0
        };
        out[..4].copy_from_slice(&self.log.to_be_bytes());
        out[4..8].copy_from_slice(&flags.to_be_bytes());
        out[8..16].copy_from_slice(&self.first.to_be_bytes());
        out[16..20].copy_from_slice(&self.count.to_be_bytes());
        out[20..24].copy_from_slice(&self.cover_len.to_be_bytes());
        out[24..28].copy_from_slice(&self.annotation_len.to_be_bytes());
        out[28..32].copy_from_slice(&self.birth_len.to_be_bytes());
        out[32..40].copy_from_slice(&self.body_offset.to_be_bytes());
        out[40..48].copy_from_slice(&self.content_len.to_be_bytes());
        out[48..80].copy_from_slice(&self.root_before);
        out[80..112].copy_from_slice(&self.root_after);
        out[112..176].copy_from_slice(&self.signature.unwrap_or([0; 64]));
        out[176..180].copy_from_slice(&self.meta_crc.to_be_bytes());
        out[180..184].copy_from_slice(&self.entries_crc.to_be_bytes());
        out[184..188].copy_from_slice(&self.erasures.to_be_bytes());
        let crc = crc32c::crc32c_append(part_context(segment, commit, index), &out[..252]);
        out[252..].copy_from_slice(&crc.to_be_bytes());
        out
    }

    pub(crate) fn decode(
        bytes: &[u8; PART_HEADER_BYTES],
        segment: &[u8; 16],
        commit: u64,
        index: u32,
    ) -> Option<Self> {
        let mut fields = Fields(bytes);
        let log = fields.u32()?;
        let flags = fields.u32()?;
        let mut header = Self {
            log,
            first: fields.u64()?,
            count: fields.u32()?,
            cover_len: fields.u32()?,
            annotation_len: fields.u32()?,
            birth_len: fields.u32()?,
            body_offset: fields.u64()?,
            content_len: fields.u64()?,
            root_before: fields.array()?,
            root_after: fields.array()?,
            signature: Some(fields.array()?),
            meta_crc: fields.u32()?,
            entries_crc: fields.u32()?,
            erasures: fields.u32()?,
        };
        if flags & FLAG_SIGNATURE == 0 {
            header.signature = None;
        }
        let good = log != 0
            && header.cover_len as usize <= COVER_BYTES_MAX
            && header.annotation_len as usize <= ANNOTATION_BYTES_MAX
            && header.birth_len as usize <= BIRTH_BYTES_MAX
            && header.erasures as usize <= ERASURES_MAX
            && header.first.checked_add(u64::from(header.count)).is_some()
            && &header.encode(segment, commit, index) == bytes;
        good.then_some(header)
    }

    /// Bytes of cover, annotation, birth and erasures.
    pub(crate) fn meta_bytes(&self) -> usize {
        self.cover_len as usize
            + self.annotation_len as usize
            + self.birth_len as usize
            + self.erasures as usize * ERASURE_BYTES
    }

    /// Bytes of entries and directory.
    pub(crate) fn entries_bytes(&self) -> usize {
        self.count as usize * (ENTRY_BYTES + DIRECTORY_BYTES)
    }

    /// Bytes of the whole part.
    pub(crate) fn body_bytes(&self) -> Option<u64> {
        (self.meta_bytes() as u64 + self.entries_bytes() as u64).checked_add(self.content_len)
    }
}

/// Checksum over part headers. Each one's own checksum is left out: a CRC over bytes that end in their CRC is the same
/// for all bytes.
pub(crate) fn parts_crc(part_headers: &[u8]) -> u32 {
    part_headers
        .chunks_exact(PART_HEADER_BYTES)
        .fold(0, |crc, header| {
            crc32c::crc32c_append(crc, &header[..PART_HEADER_BYTES - 4])
        })
}

/// A part header is bound to its place, so that one that is valid elsewhere is not valid here.
fn part_context(segment: &[u8; 16], commit: u64, index: u32) -> u32 {
    let crc = crc32c::crc32c(segment);
    let crc = crc32c::crc32c_append(crc, &commit.to_be_bytes());
    crc32c::crc32c_append(crc, &index.to_be_bytes())
}

/// One entry's place in the content, 12 bytes: attribute bytes u32, data part bytes u32, crc32c of the entry's content u32.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct DirectoryEntry {
    pub(crate) attribute_bytes: u32,
    pub(crate) data_part_bytes: u32,
    pub(crate) crc: u32,
}

impl DirectoryEntry {
    pub(crate) fn encode(&self) -> [u8; DIRECTORY_BYTES] {
        let mut out = [0; DIRECTORY_BYTES];
        out[..4].copy_from_slice(&self.attribute_bytes.to_be_bytes());
        out[4..8].copy_from_slice(&self.data_part_bytes.to_be_bytes());
        out[8..].copy_from_slice(&self.crc.to_be_bytes());
        out
    }

    /// The entries of a directory; a ragged end is left out, callers have checked the length.
    pub(crate) fn decode_all(directory: &[u8]) -> impl ExactSizeIterator<Item = Self> + '_ {
        directory.chunks_exact(DIRECTORY_BYTES).map(|bytes| Self {
            attribute_bytes: be_u32(bytes, 0),
            data_part_bytes: be_u32(bytes, 4),
            crc: be_u32(bytes, 8),
        })
    }

    /// An entry that is stored without content. No content has such lengths: a commit has at most 1 GiB.
    pub(crate) const ABSENT: Self = Self {
        attribute_bytes: u32::MAX,
        data_part_bytes: u32::MAX,
        crc: 0,
    };

    /// One look, since it is made for each entry: no attributes are as long as that.
    pub(crate) fn is_absent(&self) -> bool {
        self.attribute_bytes == u32::MAX
    }

    /// Salts, attributes and data part.
    pub(crate) fn content_bytes(&self) -> u64 {
        if self.is_absent() {
            return 0;
        }
        SALT_BYTES as u64 + u64::from(self.attribute_bytes) + u64::from(self.data_part_bytes)
    }
}

/// The birth record of a log: kind u8 ‖ origin length u16 ‖ origin ‖ settings.
pub(crate) fn encode_birth(birth: &Birth) -> Vec<u8> {
    let origin = birth.origin.as_bytes();
    let mut out = Vec::with_capacity(3 + origin.len() + birth.settings.len());
    out.push(birth.kind.to_byte());
    // INVARIANT: `open_log` has refused an origin of more than 514 bytes.
    out.extend_from_slice(
        &u16::try_from(origin.len())
            .unwrap_or(u16::MAX)
            .to_be_bytes(),
    );
    out.extend_from_slice(origin);
    out.extend_from_slice(&birth.settings);
    out
}

pub(crate) fn decode_birth(bytes: &[u8]) -> Option<Birth> {
    let mut fields = Fields(bytes);
    let kind = LogKind::from_byte(fields.array::<1>()?[0])?;
    let origin_len = usize::from(u16::from_be_bytes(fields.array()?));
    if origin_len > ORIGIN_BYTES_MAX {
        return None;
    }
    let origin = std::str::from_utf8(fields.take(origin_len)?).ok()?;
    (fields.0.len() <= SETTINGS_BYTES_MAX).then(|| Birth {
        kind,
        origin: origin.to_owned(),
        settings: fields.0.to_vec(),
    })
}

/// Reads fields from the front.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(front)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
}

/// The integer at `at` of a slice known to be long enough; zero elsewhere, which no checksum lets pass.
pub(crate) fn be_u32(bytes: &[u8], at: usize) -> u32 {
    Fields(bytes.get(at..).unwrap_or_default())
        .u32()
        .unwrap_or(0)
}

/// As [`be_u32`], eight bytes.
pub(crate) fn be_u64(bytes: &[u8], at: usize) -> u64 {
    Fields(bytes.get(at..).unwrap_or_default())
        .u64()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_commit_header_comes_back_and_no_flipped_bit_passes(
            segment: [u8; 16], number: u64, previous: [u8; 32], offset: u64, part_count: u32, length: u64,
            time_us: u64, parts_crc: u32, flip in 0..COMMIT_HEADER_BYTES * 8,
        ) {
            let header = CommitHeader { segment, number, previous, offset, part_count, length, time_us, parts_crc };
            let mut bytes = header.encode();
            prop_assert_eq!(CommitHeader::decode(&bytes), Some(header));
            bytes[flip / 8] ^= 1 << (flip % 8);
            prop_assert_eq!(CommitHeader::decode(&bytes), None);
        }

        #[test]
        fn a_part_header_is_valid_at_its_own_place_only(
            segment: [u8; 16], commit: u64, index: u32, log in 1u32.., count: u32, first in 0..u64::MAX / 2,
            cover_len in 0..4096u32, root_after: [u8; 32], signature: Option<[u8; 32]>, flip in 0..PART_HEADER_BYTES * 8,
        ) {
            let signature = signature.map(|half| [half, half].concat().try_into().unwrap());
            let header = PartHeader {
                log, first, count, cover_len, annotation_len: 7, birth_len: 0, body_offset: 384, content_len: 9,
                root_before: [3; 32], root_after, signature, meta_crc: 5, entries_crc: 6, erasures: 2,
            };
            let mut bytes = header.encode(&segment, commit, index);
            prop_assert_eq!(PartHeader::decode(&bytes, &segment, commit, index), Some(header));
            prop_assert_eq!(PartHeader::decode(&bytes, &segment, commit.wrapping_add(1), index), None);
            prop_assert_eq!(PartHeader::decode(&bytes, &segment, commit, index.wrapping_add(1)), None);
            bytes[flip / 8] ^= 1 << (flip % 8);
            prop_assert_eq!(PartHeader::decode(&bytes, &segment, commit, index), None);
        }

        #[test]
        fn a_birth_comes_back_and_foreign_bytes_do_not_panic(
            kind in 1u8..=3, origin in "[a-z./]{0,100}", settings: Vec<u8>, foreign: Vec<u8>,
        ) {
            let birth = Birth { kind: LogKind::from_byte(kind).unwrap(), origin, settings };
            prop_assert_eq!(decode_birth(&encode_birth(&birth)), Some(birth));
            let _ = decode_birth(&foreign);
        }
    }

    #[test]
    fn a_segment_header_comes_back_and_no_flipped_bit_passes() {
        let header = SegmentHeader {
            number: 7,
            id: [1; 16],
            journal: [2; 16],
        };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Some(header));
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&bytes), None, "bit {bit}");
        }
    }
}
