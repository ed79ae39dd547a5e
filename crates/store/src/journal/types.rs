use std::fmt;

use bytes::Bytes;
use countersign_crypto::Hash;
use countersign_tlog::CompactRange;

use super::format::{DIRECTORY_BYTES, DirectoryEntry, ENTRY_BYTES, SALT_BYTES};
use super::growth::Growth;

/// The number of a log within one journal, from 1 on. Numbers, not names, become paths.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LogNumber(pub(crate) u32);

impl LogNumber {
    /// The number.
    #[must_use]
    pub fn value(self) -> u32 {
        self.0
    }
}

impl fmt::Display for LogNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whose log this is. The values are persisted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogKind {
    /// A verified copy of another organization's log.
    Copy,
    /// A private log of decisions, receipts and documents.
    Ledger,
    /// A stream that this organization publishes.
    Own,
}

impl LogKind {
    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Self::Own => 1,
            Self::Ledger => 2,
            Self::Copy => 3,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Own),
            2 => Some(Self::Ledger),
            3 => Some(Self::Copy),
            _ => None,
        }
    }
}

/// What is stored about a log with its first commit, and never changes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Birth {
    /// Whose log.
    pub kind: LogKind,
    /// The log's origin, at most 514 bytes; unique within the journal.
    pub origin: String,
    /// Opaque, at most 64 KiB.
    pub settings: Vec<u8>,
}

/// A log of the journal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogInfo {
    /// Its number.
    pub number: LogNumber,
    /// Whose log.
    pub kind: LogKind,
    /// Its origin.
    pub origin: String,
    /// What was stored with its birth.
    pub settings: Bytes,
}

/// The durable end of a log.
#[derive(Clone, Debug)]
pub struct Head {
    /// Entries in the log.
    pub size: u64,
    /// The compact range of all of them.
    pub range: CompactRange,
    /// Leaf hash of the last entry, zeros for an empty log: the `prev` of the next.
    pub last_leaf: Hash,
    /// Time of the last entry in µs, UTC; 0 for an empty log.
    pub last_time_us: u64,
    /// The newest checkpoint whose signature is durable here. It is older than the head: each signature is stored by the next commit.
    pub checkpoint: Option<StoredCheckpoint>,
    /// The newest cover that was stored with a part of this log.
    pub cover: Option<StoredCover>,
}

/// A checkpoint of which the journal holds the signature; the note is rebuilt from it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StoredCheckpoint {
    /// Tree size.
    pub size: u64,
    /// Tree root.
    pub root: Hash,
    /// The log key's signature over the note's text.
    pub signature: [u8; 64],
}

/// The bytes that were stored as cover of a part.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredCover {
    /// The log's size after that part.
    pub size: u64,
    /// The bytes as given.
    pub cover: Bytes,
}

/// One log's share of a commit.
#[derive(Clone, Debug)]
pub struct PartInput {
    /// Which log.
    pub log: LogNumber,
    /// The size that the log must have, so that nobody commits on a stale head.
    pub expected_size: u64,
    /// Entries of 118 bytes, one after the other. None is allowed: a part may only store a signature, cover or annotation.
    pub entries: Vec<u8>,
    /// What became of the log when they were hashed. The journal refuses where it did not begin at the log's end, or the entries are others.
    pub growth: Growth,
    /// The signature of the checkpoint over the head before this part, where one was made.
    pub signature_before: Option<[u8; 64]>,
    /// Opaque, at most 4 KiB; empty for none. A copied log stores the producer's signed note here.
    pub cover: Vec<u8>,
    /// Opaque, at most 64 KiB; empty for none.
    pub annotation: Vec<u8>,
    /// One per entry, in order.
    pub contents: Vec<ContentInput>,
    /// The content of all entries in order, in pieces of any length.
    pub content: Vec<Bytes>,
    /// What is erased from this commit on: entries of this log, those of this part included.
    pub erasures: Vec<Erasure>,
}

/// Content that is gone: entries `first..end` of a log, but for control entries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Erasure {
    /// First sequence.
    pub first: u64,
    /// Sequence after the last.
    pub end: u64,
    /// Sequence of the control entry of the log that allows it; [`Erasure::FILTERED`] where the content never came.
    pub by: u64,
}

impl Erasure {
    /// In place of a control entry: the producer of a copied log left the entries out, since they do not pass the filter. Persisted; no log reaches it.
    pub const FILTERED: u64 = u64::MAX;
}

/// How long the parts of one entry's content are; 64 bytes of salts stand before them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ContentInput {
    /// Canonical attributes.
    pub attribute_bytes: u32,
    /// The data part.
    pub data_part_bytes: u32,
}

impl ContentInput {
    /// An entry that comes without content; an erasure of the same part names it.
    pub const ABSENT: Self = Self {
        attribute_bytes: u32::MAX,
        data_part_bytes: u32::MAX,
    };

    /// Whether there is none.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.attribute_bytes == u32::MAX
    }

    /// Bytes of salts, attributes and data part; 0 where there is none.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        if self.is_absent() {
            return 0;
        }
        SALT_BYTES as u64 + u64::from(self.attribute_bytes) + u64::from(self.data_part_bytes)
    }
}

/// What a commit did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Committed {
    /// Its number, from 1 on.
    pub commit: u64,
    /// Bytes written for it, padding included.
    pub bytes_written: u64,
}

/// Entries that lie together on disk.
#[derive(Clone, Debug)]
pub struct Run {
    /// Which log.
    pub log: LogNumber,
    /// Sequence of the first entry.
    pub first: u64,
    /// Number of entries, at least one.
    pub count: u32,
    /// The entries' bytes, 118 each.
    pub entries: Bytes,
    /// The content of these entries in order.
    pub content: Bytes,
    /// The cover stored with the part that these entries are from; empty for none.
    pub cover: Bytes,
    /// The annotation stored with that part; empty for none.
    pub annotation: Bytes,
    /// Those of these entries whose content is gone, in order. There is nothing of them in `content`.
    pub erased: Vec<Erasure>,
    pub(crate) directory: Bytes,
}

/// One entry of a [`Run`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StoredEntry<'a> {
    /// Its sequence.
    pub sequence: u64,
    /// Its 118 bytes.
    pub entry: &'a [u8],
    /// Both salts, attributes and data part; empty where they are erased.
    pub content: &'a [u8],
    /// How long the attributes are.
    pub attribute_bytes: u32,
    /// Sequence of the control entry that allows it, where the content is erased.
    pub erased_by: Option<u64>,
}

impl<'a> StoredEntry<'a> {
    /// The salt of the attribute commitment.
    #[must_use]
    pub fn attribute_salt(&self) -> &'a [u8] {
        self.content.get(..32).unwrap_or_default()
    }

    /// The salt of the data commitment.
    #[must_use]
    pub fn data_salt(&self) -> &'a [u8] {
        self.content.get(32..SALT_BYTES).unwrap_or_default()
    }

    /// The canonical attributes.
    #[must_use]
    pub fn attributes(&self) -> &'a [u8] {
        let end = SALT_BYTES + self.attribute_bytes as usize;
        self.content.get(SALT_BYTES..end).unwrap_or_default()
    }

    /// The data part.
    #[must_use]
    pub fn data_part(&self) -> &'a [u8] {
        let start = SALT_BYTES + self.attribute_bytes as usize;
        self.content.get(start..).unwrap_or_default()
    }
}

impl Run {
    /// Lengths of each entry's content, in order.
    pub fn contents(&self) -> impl ExactSizeIterator<Item = ContentInput> + '_ {
        DirectoryEntry::decode_all(&self.directory).map(|entry| ContentInput {
            attribute_bytes: entry.attribute_bytes,
            data_part_bytes: entry.data_part_bytes,
        })
    }

    /// The control entry that allows it, where the content of an entry is erased.
    #[must_use]
    pub fn erased_by(&self, sequence: u64) -> Option<u64> {
        let at = self
            .erased
            .partition_point(|erasure| erasure.end <= sequence);
        let found = self.erased.get(at)?;
        (found.first <= sequence).then_some(found.by)
    }

    /// The entries with their content.
    pub fn iter(&self) -> impl Iterator<Item = StoredEntry<'_>> + '_ {
        let mut rest = &self.content[..];
        let directory = self.directory.chunks_exact(DIRECTORY_BYTES);
        debug_assert_eq!(directory.len(), self.count as usize);
        self.entries
            .chunks_exact(ENTRY_BYTES)
            .zip(DirectoryEntry::decode_all(&self.directory))
            .zip(self.first..)
            .map(move |((entry, lengths), sequence)| {
                // INVARIANT: the reader has checked that the lengths add up to the content.
                let len = usize::try_from(lengths.content_bytes()).unwrap_or(usize::MAX);
                let (content, after) = rest.split_at(len.min(rest.len()));
                rest = after;
                let absent = lengths.is_absent();
                StoredEntry {
                    sequence,
                    entry,
                    content,
                    attribute_bytes: if absent { 0 } else { lengths.attribute_bytes },
                    erased_by: absent.then(|| self.erased_by(sequence)).flatten(),
                }
            })
    }
}

/// A part's annotation, as [`super::JournalReader::annotations`] shows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Annotation {
    /// Which commit.
    pub commit: u64,
    /// Which log.
    pub log: LogNumber,
    /// Sequence of the part's first entry.
    pub first: u64,
    /// Entries in the part.
    pub count: u32,
    /// The bytes as given.
    pub annotation: Bytes,
}

/// How a journal is laid out and how much memory it takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Options {
    /// Bytes of a segment, default 64 MiB. Smaller ones roll more often, and each roll syncs the head file. At least 4 KiB.
    pub segment_bytes: u64,
    /// Bytes of recent commits kept in memory for readers, default 32 MiB: what comes in within some 50 ms at full speed, so that live readers read no disk.
    pub cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            cache_bytes: 32 << 20,
        }
    }
}
