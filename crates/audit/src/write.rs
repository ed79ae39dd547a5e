//! Writing a bundle: pulled from a [`BundleSource`] run by run, so that memory stays flat however long the log is.

use countersign_crypto::{Hash, TIMESTAMP_TOKEN_BYTES_MAX};
use countersign_event::content::CONTENT_BYTES_MAX;
use countersign_event::documents::{Document, KeyStatement};
use countersign_event::dsse::{ENVELOPE_BYTES_MAX, Envelope};
use countersign_event::entry::{ENTRY_BYTES, Entry, leaf_hash};
use countersign_event::names::{Authority, Origin};
use countersign_tlog::tile::{Tile, TileKind, encode_entry_bundle};
use countersign_tlog::{Checkpoint, Note, Vkey};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::content_file::{content_bytes, encode_directory};
use crate::layout::{LEVELS, RUN, Span, content_path, fill};
use crate::manifest::{
    DECISION_BYTES_MAX, DECISIONS, DOCUMENT_BYTES_SUM_MAX, FORMAT, FileEntry, KEYS, KEYS_FORMAT,
    KeysFile, LogEntry, MANIFEST, MANIFEST_DIGEST, MANIFEST_VERSION, MANIFEST_VERSION_TIMESTAMPS,
    Manifest, ManifestError, POLICY_BYTES_MAX, POLICY_BYTES_SUM_MAX, TIMESTAMPS_MAX, Undisclosed,
    log_path,
};
use crate::sink::{BundleSink, SinkError, Written};
use crate::tree::Frontier;

/// What a source says went wrong.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Bytes of content asked for at once: enough that asking costs nothing, little enough to be forgotten.
const CONTENT_CHUNK_BYTES: u64 = 4 << 20;

/// What a bundle is about.
#[derive(Clone, Debug)]
pub struct BundleFacts {
    /// When it is made, RFC 3339.
    pub made: String,
    /// Which program makes it, for example `countersign 0.1.0`.
    pub made_by: String,
    /// The stream's log first, then ledger logs, which are whole.
    pub logs: Vec<LogFacts>,
    /// Why the source gives some contents as [`ContentLengths::Undisclosed`].
    pub undisclosed_reason: String,
}

/// One log to export.
#[derive(Clone, Debug)]
pub struct LogFacts {
    /// Its identity.
    pub origin: Origin,
    /// First sequence to export.
    pub from: u64,
    /// First sequence not to export.
    pub to: u64,
    /// The signed note of a checkpoint of at least `to` entries.
    pub checkpoint: String,
    /// The key that signed it.
    pub vkey: Vkey,
}

/// How long a content is, or that it is withheld.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ContentLengths {
    /// Salts (64 bytes), attributes and data part are given.
    Disclosed {
        /// Bytes of the attributes.
        attributes: u16,
        /// Bytes of the data part.
        data_part: u32,
    },
    /// Nothing is given.
    Undisclosed,
}

/// One entry, and how long its content is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Skeleton {
    /// The encoded entry.
    pub entry: [u8; ENTRY_BYTES],
    /// Its content.
    pub content: ContentLengths,
    /// Why that is not given, where the source knows better than [`BundleFacts::undisclosed_reason`].
    pub reason: Option<&'static str>,
}

/// One policy file of a set that decided.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PolicyFile {
    /// Digest of the whole set.
    pub set: Hash,
    /// The file's name.
    pub file: String,
    /// Its text.
    pub text: String,
}

/// A time-stamp token over a checkpoint of the bundle's own log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stamped {
    /// The checkpoint's note.
    pub checkpoint: String,
    /// The token, in DER.
    pub token: Vec<u8>,
}

/// One decision of the producer on the stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DecisionLine {
    /// The ledger log that holds it.
    pub ledger: Origin,
    /// Where.
    pub sequence: u64,
    /// The data of that ledger entry, byte for byte.
    pub record: String,
}

/// Where the content of a bundle comes from. Logs are named by their place in [`BundleFacts::logs`].
pub trait BundleSource {
    /// What the bundle is about. Asked once, first.
    ///
    /// # Errors
    /// Anything that keeps the source from answering; it ends the export.
    fn facts(&mut self) -> Result<BundleFacts, SourceError>;

    /// The entries [from, to), at most 256, with the lengths of their contents (which may be anything outside the exported range).
    ///
    /// # Errors
    /// As [`BundleSource::facts`].
    fn skeletons(&mut self, log: usize, from: u64, to: u64) -> Result<Vec<Skeleton>, SourceError>;

    /// Appends the contents of the disclosed entries of [from, to), in order, to `out`.
    ///
    /// # Errors
    /// As [`BundleSource::facts`].
    fn contents(
        &mut self,
        log: usize,
        from: u64,
        to: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), SourceError>;

    /// The hash of the complete subtree `index` of tree level `level`. Asked only for what lies outside an exported range.
    ///
    /// # Errors
    /// As [`BundleSource::facts`].
    fn node(&mut self, log: usize, level: u8, index: u64) -> Result<Hash, SourceError>;

    /// The next DSSE envelope as JSON; `None` after the last. Receipts of a series in their order, rejections in the order in which
    /// receipts count them.
    ///
    /// # Errors
    /// As [`BundleSource::facts`].
    fn next_document(&mut self) -> Result<Option<Vec<u8>>, SourceError>;

    /// The next policy file; `None` after the last. Each once.
    ///
    /// # Errors
    /// As [`BundleSource::facts`].
    fn next_policy(&mut self) -> Result<Option<PolicyFile>, SourceError>;

    /// The next decision; `None` after the last.
    ///
    /// # Errors
    /// As [`BundleSource::facts`].
    fn next_decision(&mut self) -> Result<Option<DecisionLine>, SourceError>;

    /// The next time-stamp token; `None` after the last.
    ///
    /// # Errors
    /// As [`BundleSource::facts`].
    fn next_timestamp(&mut self) -> Result<Option<Stamped>, SourceError> {
        Ok(None)
    }
}

/// What has been written.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct BundleSummary {
    /// The log.
    pub origin: Origin,
    /// First sequence held.
    pub from: u64,
    /// First sequence not held.
    pub to: u64,
    /// Size of the checkpoint.
    pub size: u64,
    /// Files written.
    pub files: u64,
    /// Their bytes, without those of a tar's own headers.
    pub bytes: u64,
    /// Signed documents.
    pub documents: u64,
    /// Decisions.
    pub decisions: u64,
    /// Ledger logs.
    pub ledgers: u64,
}

/// Why a bundle was not written. What there is of it is no bundle: the manifest is written last.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A checkpoint that is none, or of another log.
    #[error("the checkpoint of {origin} cannot be exported: it is malformed or of another log")]
    Checkpoint {
        /// The log.
        origin: Origin,
    },
    /// The source gave a content of another length than it said, or entries that are none.
    #[error(
        "entry {sequence} of {origin} came out of the source malformed, or its content with another length than announced"
    )]
    Entry {
        /// The log.
        origin: Origin,
        /// Which entry.
        sequence: u64,
    },
    /// A document, policy, decision or file list beyond a limit or without its form.
    #[error("{what} number {number} is malformed or beyond a limit of the bundle format")]
    Item {
        /// What.
        what: &'static str,
        /// Which one, from 0.
        number: u64,
    },
    /// The facts make no manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The entries do not give the root of the checkpoint: nobody would accept the bundle.
    #[error(
        "the entries of {origin} do not give the root of its checkpoint: the store is damaged, run a check of the log"
    )]
    Root {
        /// The log.
        origin: Origin,
    },
    /// The output.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The source.
    #[error("the source of the bundle failed: {0}")]
    Source(SourceError),
}

/// Writes a bundle.
///
/// # Errors
/// [`WriteError`]. The root is computed anew from what is written and compared with the checkpoint.
pub fn write_bundle(
    sink: BundleSink,
    source: &mut dyn BundleSource,
) -> Result<BundleSummary, WriteError> {
    let facts = source.facts().map_err(WriteError::Source)?;
    let mut manifest = manifest_of(&facts)?;
    let mut writer = Writer {
        sink,
        source,
        files: Vec::new(),
        undisclosed: Vec::new(),
        count: 0,
        bytes: 0,
    };
    for (number, log) in facts.logs.iter().enumerate() {
        writer.log(
            number,
            log,
            manifest.logs[number].span(),
            &facts.undisclosed_reason,
        )?;
    }
    let (statements, documents) = writer.documents()?;
    writer.policies()?;
    let decisions = writer.decisions()?;
    if writer.timestamps()? {
        manifest.version = MANIFEST_VERSION_TIMESTAMPS;
    }
    let keys = KeysFile {
        format: KEYS_FORMAT.to_owned(),
        version: MANIFEST_VERSION,
        vkeys: facts.logs.iter().map(|log| log.vkey.to_string()).collect(),
        statements,
    };
    writer.listed(KEYS, &serde_json::to_vec_pretty(&keys).unwrap_or_default())?;
    manifest.files = std::mem::take(&mut writer.files);
    manifest.files.sort_by(|a, b| a.path.cmp(&b.path));
    manifest.undisclosed = std::mem::take(&mut writer.undisclosed);
    manifest.check()?;
    let json = manifest.to_json();
    let digest = format!(
        "{}  {MANIFEST}\n",
        hex::encode(countersign_crypto::sha256(&json))
    );
    writer.file(MANIFEST_DIGEST, digest.as_bytes())?;
    writer.file(MANIFEST, &json)?;
    let (files, bytes) = (writer.count, writer.bytes);
    writer.sink.finish()?;
    let log = &manifest.logs[0];
    Ok(BundleSummary {
        origin: log.origin.clone(),
        from: log.from,
        to: log.to,
        size: log.size,
        files,
        bytes,
        documents,
        decisions,
        ledgers: manifest.logs.len() as u64 - 1,
    })
}

/// The manifest without what only writing tells. Checked before anything is written.
fn manifest_of(facts: &BundleFacts) -> Result<Manifest, WriteError> {
    let mut logs = Vec::with_capacity(facts.logs.len());
    for (number, log) in facts.logs.iter().enumerate() {
        logs.push(LogEntry {
            path: log_path(number),
            origin: log.origin.clone(),
            from: log.from,
            to: log.to,
            size: checkpoint_of(log)?.size,
        });
    }
    let authority: Option<Authority> = logs.first().map(|log| log.origin.authority());
    let manifest = Manifest {
        format: FORMAT.to_owned(),
        version: MANIFEST_VERSION,
        made: facts.made.clone(),
        made_by: facts.made_by.clone(),
        authority: authority.ok_or(ManifestError::Log {
            log: 0,
            what: "there is none",
        })?,
        logs,
        undisclosed: Vec::new(),
        files: Vec::new(),
    };
    manifest.check()?;
    Ok(manifest)
}

fn checkpoint_of(log: &LogFacts) -> Result<Checkpoint, WriteError> {
    let note = Note::parse(log.checkpoint.as_bytes()).ok();
    let checkpoint = note.and_then(|note| Checkpoint::parse_text(note.text()).ok());
    match checkpoint {
        Some(checkpoint) if checkpoint.origin == log.origin.as_str() => Ok(checkpoint),
        _ => Err(WriteError::Checkpoint {
            origin: log.origin.clone(),
        }),
    }
}

struct Writer<'a> {
    sink: BundleSink,
    source: &'a mut dyn BundleSource,
    files: Vec<FileEntry>,
    undisclosed: Vec<Undisclosed>,
    count: u64,
    bytes: u64,
}

impl Writer<'_> {
    /// A file that the tree binds.
    fn file(&mut self, path: &str, bytes: &[u8]) -> Result<(), WriteError> {
        let mut out = self.sink.begin(path)?;
        out.write(bytes)?;
        let written = out.finish()?;
        self.counted(&written);
        Ok(())
    }

    /// A file that the manifest lists.
    fn listed(&mut self, path: &str, bytes: &[u8]) -> Result<(), WriteError> {
        let mut out = self.sink.begin(path)?.hashed();
        out.write(bytes)?;
        let written = out.finish()?;
        self.list(path, &written);
        Ok(())
    }

    fn list(&mut self, path: &str, written: &Written) {
        self.counted(written);
        self.files.push(FileEntry {
            path: path.to_owned(),
            bytes: written.bytes,
            sha256: written.sha256.unwrap_or_default(),
        });
    }

    fn counted(&mut self, written: &Written) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(written.bytes);
    }

    fn log(
        &mut self,
        number: usize,
        log: &LogFacts,
        span: Span,
        reason: &str,
    ) -> Result<(), WriteError> {
        let prefix = log_path(number);
        self.listed(
            &format!("{prefix}log/checkpoint"),
            log.checkpoint.as_bytes(),
        )?;
        let mut tiles = TileWriter::new(span, format!("{prefix}log/"));
        for (level, index) in fill(0, span.start()) {
            self.step_over(number, &mut tiles, level, index)?;
        }
        for run in span.runs() {
            for skeleton in self.run(number, log, span, run, reason)? {
                tiles.push(0, leaf_hash(&skeleton.entry), self)?;
            }
        }
        for (level, index) in fill(span.end(), span.size) {
            self.step_over(number, &mut tiles, level, index)?;
        }
        tiles.flush(self)?;
        if tiles.frontier.root() != checkpoint_of(log)?.root {
            return Err(WriteError::Root {
                origin: log.origin.clone(),
            });
        }
        Ok(())
    }

    /// Steps over a subtree whose entries are not exported.
    fn step_over(
        &mut self,
        log: usize,
        tiles: &mut TileWriter,
        level: u8,
        index: u64,
    ) -> Result<(), WriteError> {
        let hash = self
            .source
            .node(log, 8 * level, index)
            .map_err(WriteError::Source)?;
        tiles.push(8 * level, hash, self)
    }

    /// Writes entry bundle and content file number `run`.
    fn run(
        &mut self,
        number: usize,
        log: &LogFacts,
        span: Span,
        run: u64,
        reason: &str,
    ) -> Result<Vec<Skeleton>, WriteError> {
        let leaves = span.leaves_of(run);
        let asked = self.source.skeletons(number, leaves.start, leaves.end);
        let skeletons = asked.map_err(WriteError::Source)?;
        let malformed = |sequence| WriteError::Entry {
            origin: log.origin.clone(),
            sequence,
        };
        if skeletons.len() as u64 != leaves.end - leaves.start {
            return Err(malformed(leaves.start));
        }
        for (sequence, skeleton) in leaves.clone().zip(&skeletons) {
            let in_place =
                Entry::decode(&skeleton.entry).is_ok_and(|entry| entry.sequence == sequence);
            if !in_place || content_bytes(skeleton.content) > CONTENT_BYTES_MAX as u64 {
                return Err(malformed(sequence));
            }
        }
        let bundle = encode_entry_bundle(skeletons.iter().map(|skeleton| skeleton.entry));
        let bundle = bundle.map_err(|_| malformed(leaves.start))?;
        let tile = Tile::at_size(TileKind::Entries, run, span.size)
            .ok_or_else(|| malformed(leaves.start))?;
        let prefix = log_path(number);
        self.file(&format!("{prefix}log/{tile}"), &bundle)?;

        let here = span.content_of(run);
        let skip = usize::try_from(here.start - leaves.start).unwrap_or(0);
        let in_range = skeletons.iter().skip(skip).zip(here.clone());
        let contents: Vec<ContentLengths> =
            in_range.map(|(skeleton, _)| skeleton.content).collect();
        let path = format!("{prefix}{}", content_path(run));
        self.content(number, &path, here.start, &contents, &malformed)?;
        for (sequence, skeleton) in here.zip(skeletons.iter().skip(skip)) {
            if skeleton.content == ContentLengths::Undisclosed {
                self.withhold(number, sequence, skeleton.reason.unwrap_or(reason));
            }
        }
        Ok(skeletons)
    }

    fn content(
        &mut self,
        number: usize,
        path: &str,
        first: u64,
        contents: &[ContentLengths],
        malformed: &dyn Fn(u64) -> WriteError,
    ) -> Result<(), WriteError> {
        let mut out = self.sink.begin(path)?;
        out.write(&encode_directory(contents))?;
        let mut chunk = Vec::new();
        let mut rest = contents;
        let mut from = first;
        while !rest.is_empty() {
            let (mut take, mut bytes) = (0, 0u64);
            while take < rest.len() && (take == 0 || bytes < CONTENT_CHUNK_BYTES) {
                bytes += content_bytes(rest[take]);
                take += 1;
            }
            let to = from + take as u64;
            chunk.clear();
            let asked = self.source.contents(number, from, to, &mut chunk);
            asked.map_err(WriteError::Source)?;
            if chunk.len() as u64 != bytes {
                return Err(malformed(from));
            }
            out.write(&chunk)?;
            (from, rest) = (to, &rest[take..]);
        }
        let written = out.finish()?;
        self.counted(&written);
        Ok(())
    }

    fn withhold(&mut self, log: usize, sequence: u64, reason: &str) {
        match self.undisclosed.last_mut() {
            Some(run) if run.log == log && run.to == sequence && run.reason == reason => {
                run.to += 1;
            }
            _ => self.undisclosed.push(Undisclosed {
                log,
                from: sequence,
                to: sequence + 1,
                reason: reason.to_owned(),
            }),
        }
    }

    /// Writes the documents; gives the paths of the key statements, and how many documents there are.
    fn documents(&mut self) -> Result<(Vec<String>, u64), WriteError> {
        let mut statements = Vec::new();
        let (mut number, mut sum) = (0u64, 0u64);
        while let Some(json) = self.source.next_document().map_err(WriteError::Source)? {
            let malformed = || WriteError::Item {
                what: "document",
                number,
            };
            sum = sum.saturating_add(json.len() as u64);
            if json.len() > ENVELOPE_BYTES_MAX || sum > DOCUMENT_BYTES_SUM_MAX {
                return Err(malformed());
            }
            let envelope = Envelope::from_json(&json).map_err(|_| malformed())?;
            let kind = document_kind(envelope.payload_type()).ok_or_else(malformed)?;
            // Numbers of equal width: within a kind, names sort in the order given.
            let path = format!("documents/{kind}-{number:08}.json");
            self.listed(&path, &json)?;
            if envelope.payload_type() == KeyStatement::PAYLOAD_TYPE {
                statements.push(path);
            }
            number += 1;
        }
        Ok((statements, number))
    }

    fn policies(&mut self) -> Result<(), WriteError> {
        let (mut number, mut sum) = (0, 0u64);
        while let Some(policy) = self.source.next_policy().map_err(WriteError::Source)? {
            let bytes = policy.text.len() as u64;
            sum = sum.saturating_add(bytes);
            if bytes > POLICY_BYTES_MAX || sum > POLICY_BYTES_SUM_MAX || !is_file_name(&policy.file)
            {
                return Err(WriteError::Item {
                    what: "policy file",
                    number,
                });
            }
            let path = format!("policies/{}/{}", hex::encode(policy.set), policy.file);
            self.listed(&path, policy.text.as_bytes())?;
            number += 1;
        }
        Ok(())
    }

    /// Writes the time-stamp tokens; says whether there is any.
    fn timestamps(&mut self) -> Result<bool, WriteError> {
        let mut number = 0;
        while let Some(stamped) = self.source.next_timestamp().map_err(WriteError::Source)? {
            if number >= TIMESTAMPS_MAX || stamped.token.len() > TIMESTAMP_TOKEN_BYTES_MAX {
                return Err(WriteError::Item {
                    what: "time-stamp token",
                    number: number as u64,
                });
            }
            let stem = format!("timestamps/{number:08}");
            self.listed(&format!("{stem}.checkpoint"), stamped.checkpoint.as_bytes())?;
            self.listed(&format!("{stem}.tst"), &stamped.token)?;
            number += 1;
        }
        Ok(number > 0)
    }

    fn decisions(&mut self) -> Result<u64, WriteError> {
        let mut next = self.source.next_decision().map_err(WriteError::Source)?;
        if next.is_none() {
            return Ok(0);
        }
        let mut out = self.sink.begin(DECISIONS)?.hashed();
        let mut number = 0;
        while let Some(decision) = next {
            let line = encode_decision(&decision).ok_or(WriteError::Item {
                what: "decision",
                number,
            })?;
            out.write(&line)?;
            number += 1;
            next = self.source.next_decision().map_err(WriteError::Source)?;
        }
        let written = out.finish()?;
        self.list(DECISIONS, &written);
        Ok(number)
    }
}

#[derive(Serialize)]
struct DecisionJson<'a> {
    ledger: &'a Origin,
    sequence: u64,
    record: &'a RawValue,
}

fn encode_decision(decision: &DecisionLine) -> Option<Vec<u8>> {
    let record: &RawValue = serde_json::from_str(&decision.record).ok()?;
    let json = DecisionJson {
        ledger: &decision.ledger,
        sequence: decision.sequence,
        record,
    };
    let mut line = serde_json::to_vec(&json).ok()?;
    // One line each: a record with line feeds of its own cannot travel here.
    if line.len() >= DECISION_BYTES_MAX || line.contains(&b'\n') || record.get() != decision.record
    {
        return None;
    }
    line.push(b'\n');
    Some(line)
}

/// The word for a kind of document in its file name.
fn document_kind(payload_type: &str) -> Option<&str> {
    let kind = payload_type.strip_prefix("application/vnd.countersign.")?;
    let kind = kind.strip_suffix(".v1+json")?;
    let plain =
        (1..=32).contains(&kind.len()) && kind.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    plain.then_some(kind)
}

/// Whether a text is one component of a bundle's paths.
pub(crate) fn is_file_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=100).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(plain)
}

/// Makes tiles of the nodes that a growing tree completes.
struct TileWriter {
    span: Span,
    prefix: String,
    frontier: Frontier,
    // One tile under way per level: its index and the hashes so far.
    open: [(u64, Vec<u8>); LEVELS as usize],
}

impl TileWriter {
    fn new(span: Span, prefix: String) -> Self {
        Self {
            span,
            prefix,
            frontier: Frontier::default(),
            open: std::array::from_fn(|_| (0, Vec::new())),
        }
    }

    fn push(&mut self, level: u8, hash: Hash, writer: &mut Writer<'_>) -> Result<(), WriteError> {
        let open = &mut self.open;
        let mut full = Vec::new();
        self.frontier.push(level, hash, &mut |level, index, hash| {
            if !level.is_multiple_of(8) || level / 8 >= LEVELS {
                return;
            }
            let (at, hashes) = &mut open[usize::from(level / 8)];
            if hashes.is_empty() {
                *at = index / RUN;
            }
            hashes.extend_from_slice(hash);
            if index % RUN == RUN - 1 {
                full.push((level / 8, *at, std::mem::take(hashes)));
            }
        });
        full.into_iter()
            .try_for_each(|(level, index, hashes)| self.write(level, index, &hashes, writer))
    }

    fn flush(&mut self, writer: &mut Writer<'_>) -> Result<(), WriteError> {
        for level in 0..LEVELS {
            let (index, hashes) = std::mem::take(&mut self.open[usize::from(level)]);
            self.write(level, index, &hashes, writer)?;
        }
        Ok(())
    }

    /// Tiles that were stepped over are incomplete here, and not needed.
    fn write(
        &self,
        level: u8,
        index: u64,
        hashes: &[u8],
        writer: &mut Writer<'_>,
    ) -> Result<(), WriteError> {
        match self.span.hash_tile(level, index) {
            Some(tile) if hashes.len() == 32 * usize::from(tile.width()) => {
                writer.file(&format!("{}{tile}", self.prefix), hashes)
            }
            _ => Ok(()),
        }
    }
}
