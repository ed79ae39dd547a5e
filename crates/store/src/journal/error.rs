use std::io;
use std::path::PathBuf;

use super::types::LogNumber;

/// Entries that should be there and are not, or not as they were written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DamagedRange {
    /// The log; `None` where the damage leaves open which logs it hit.
    pub log: Option<LogNumber>,
    /// The log's origin, where its birth is readable.
    pub origin: Option<String>,
    /// The file.
    pub file: PathBuf,
    /// Where in the file the damage begins, in bytes.
    pub offset: u64,
    /// The first missing sequence.
    pub first: u64,
    /// The sequence after the last missing one; `None` where nothing readable says it.
    pub end: Option<u64>,
    /// What was found.
    pub flaw: Flaw,
}

impl std::fmt::Display for DamagedRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.origin, self.log) {
            (Some(origin), _) => write!(f, "log `{origin}`")?,
            (None, Some(log)) => write!(f, "log number {log}")?,
            (None, None) => write!(f, "unknown logs")?,
        }
        match self.end {
            Some(end) => write!(f, ", entries {}..{end}", self.first)?,
            None => write!(f, ", entries from {} on", self.first)?,
        }
        let file = self.file.display();
        write!(f, ": {} in `{file}` at byte {}", self.flaw, self.offset)
    }
}

/// What is wrong with stored bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Flaw {
    /// Nothing is there.
    #[error("no commit is there")]
    Absent,
    /// A file is missing or of the wrong length.
    #[error("the file is missing, cut or not a segment of this journal")]
    File,
    /// A commit header.
    #[error("the commit header is damaged or belongs elsewhere")]
    Header,
    /// A commit that does not follow the one before.
    #[error("the commit does not follow the one before")]
    Chain,
    /// Part headers.
    #[error("a part header is damaged or belongs elsewhere")]
    PartHeader,
    /// Cover, annotation or birth.
    #[error("cover, annotation or birth record are damaged")]
    Meta,
    /// Entries or directory.
    #[error("entries are damaged")]
    Entries,
    /// Entries that do not follow, or do not give the stored root.
    #[error("the entries do not continue the log or do not give its root")]
    Tree,
    /// Content that is not what the entries commit to.
    #[error("the content is not what its entries commit to")]
    Content,
    /// A head was recorded that the segments contradict.
    #[error("a head was recorded for these entries and the segments do not hold it")]
    Head,
}

/// Why a journal could not be created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// There is one.
    #[error("there is a journal in `{0}` already; open it, or choose another directory")]
    Exists(PathBuf),
    /// A setting is out of its range.
    #[error("a segment of {0} bytes is not possible: choose 4 KiB to 1 TiB")]
    SegmentBytes(u64),
    /// Another process has the directory.
    #[error("another process is using `{0}`; stop it first")]
    Locked(PathBuf),
    /// The disk refused.
    #[error("cannot create the journal in `{path}`: {source}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a journal was not opened. Nothing has been written in any of these cases but [`OpenError::Io`].
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No journal was ever created here.
    #[error("there is no journal in `{0}`; create one first")]
    Missing(PathBuf),
    /// Another process has the directory.
    #[error("another process is using `{0}`; stop it first")]
    Locked(PathBuf),
    /// Segments without a head file, or with one whose header is damaged.
    #[error(
        "the head file `{0}` is missing or damaged although there are segments: without it a cut log cannot be told from a \
         whole one; restore it from the disk it was on, or fetch the missing entries back from partners"
    )]
    Heads(PathBuf),
    /// Written by a newer version.
    #[error(
        "the journal has format {found}, this version knows up to {known}; use the newer version"
    )]
    Newer {
        /// The format on disk.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// Recorded history is damaged or missing.
    #[error("the journal is damaged and was left as it is: {}", list(.0))]
    Damage(Vec<DamagedRange>),
    /// A setting is out of its range.
    #[error("a segment of {0} bytes is not possible: choose 4 KiB to 1 TiB")]
    SegmentBytes(u64),
    /// The disk refused.
    #[error("cannot open the journal: `{path}`: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn list(ranges: &[DamagedRange]) -> String {
    let texts: Vec<String> = ranges.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

/// Why a log was not opened.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OpenLogError {
    /// The origin is taken.
    #[error("there is a log `{origin}` already, number {number}")]
    Exists {
        /// The origin.
        origin: String,
        /// The log that has it.
        number: LogNumber,
    },
    /// Origin or settings are too long.
    #[error(
        "an origin has at most 514 bytes (here {origin_bytes}) and settings 65,536 (here {settings_bytes})"
    )]
    TooLong {
        /// Bytes of the origin.
        origin_bytes: usize,
        /// Bytes of the settings.
        settings_bytes: usize,
    },
    /// All numbers are used.
    #[error("this journal has no log number left")]
    NoNumberLeft,
}

/// Why a commit was not made.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The disk is full. Nothing was written; reads go on; the same commit succeeds once there is room.
    #[error("the disk is full: nothing was stored; free space and try again")]
    Full,
    /// A write or sync failed earlier. What is stable is unknown until the journal is opened again.
    #[error(
        "a write to the disk failed earlier: nothing more is accepted until the journal is opened again"
    )]
    Poisoned,
    /// The disk refused this commit. Whether it is stored shows when the journal is opened again; until then nothing is accepted.
    #[error(
        "the disk refused the commit: {source}; nothing more is accepted until the journal is opened again"
    )]
    Io {
        /// What the system said.
        source: io::Error,
    },
    /// The caller broke a rule. Nothing was written.
    #[error("commit refused, part of log {log}: {broken}")]
    Invariant {
        /// The log of the offending part.
        log: LogNumber,
        /// Which rule.
        broken: Broken,
    },
}

/// Why erased content was not overwritten.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// The disk refused.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// Where the content lies could not be read. It is refused to readers; the next start tries again.
    #[error("erased content could not be overwritten: {0}")]
    Read(#[from] ReadError),
    /// What is done could not be recorded. It is overwritten once more at the next start.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// Rules that a caller of `commit` keeps.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Broken {
    /// No such log.
    #[error("this log was not opened")]
    UnknownLog,
    /// Two parts of one log.
    #[error("a commit takes one part of a log")]
    TwoParts,
    /// A stale head.
    #[error("the log has {actual} entries, not {expected}")]
    Size {
        /// What the caller believed.
        expected: u64,
        /// What is.
        actual: u64,
    },
    /// Entry bytes, leaf hashes and content lengths do not fit each other.
    #[error(
        "entries, leaf hashes and contents do not have the same count, or lengths do not add up"
    )]
    Counts,
    /// Cover or annotation, or the whole commit.
    #[error("cover, annotation or the commit as a whole is too long")]
    TooLong,
    /// An erasure that is empty or reaches beyond the log, or an entry without content that none names.
    #[error("an erasure lies outside of the log, or an entry without content is named by none")]
    Erasure,
    /// Entries that were put behind another end than the log's.
    #[error("the entries were put behind another end than the log has")]
    Chain,
    /// The bytes about to be written are not those that were hashed.
    #[error("the entries to be written are not those that were hashed: memory may be faulty")]
    Hash,
    /// A commit without parts.
    #[error("a commit has at least one part and at most 65,536")]
    Parts,
}

/// Why entries could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No such log.
    #[error("there is no log number {0}")]
    UnknownLog(LogNumber),
    /// Beyond the end.
    #[error("log {log} has {size} entries; {first} is not there yet")]
    BeyondEnd {
        /// The log.
        log: LogNumber,
        /// What was asked for.
        first: u64,
        /// The log's size.
        size: u64,
    },
    /// Stored bytes are not what was written. They are not given out.
    #[error("stored entries are damaged: {0}")]
    Damage(Box<DamagedRange>),
    /// The disk refused.
    #[error("cannot read the journal: {0}")]
    Io(#[from] io::Error),
}

/// Why a snapshot was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The name.
    #[error("a snapshot's name is 1 to 64 of a-z, 0-9, `-` and `_`")]
    Name,
    /// The disk refused.
    #[error("cannot write or read a snapshot: {0}")]
    Io(#[from] io::Error),
}
