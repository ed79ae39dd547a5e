//! The provenance of a stream as PROV-JSON (`schemas/provenance.md`): a view of what log and ledgers say, for lineage tools.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use countersign_crypto::Hash;
use countersign_event::documents::{Document as _, Receipt};
use countersign_event::entry::{Entry, Kind as EntryKind};
use countersign_event::names::{Authority, Origin};
use countersign_event::time::Timestamp;
use countersign_exchange::Exchange;
use countersign_store::journal::JournalReader;
use countersign_tlog::leaf_hash;
use serde::Serialize;
use serde_json::{Value, json};

use super::ledger_reader::{About, Kind, LedgerReader, about};
use super::snapshot::{FixedLog, Snapshot};
use super::{ExportError, io_error};

/// Entries of one document, each of about 900 bytes in it: 56 MiB, which lineage tools still load at once.
pub(crate) const PROVENANCE_ENTRIES_MAX: u64 = 65_536;

/// Records that a receipt covers an entry: sixteen consumers of a full document.
pub(crate) const PROVENANCE_USES_MAX: u64 = 1 << 20;

/// Entries and bytes read at once.
const PAGE_ENTRIES: u64 = 256;
const PAGE_BYTES: u64 = 1 << 20;

/// What was written.
#[derive(Clone, Debug, Serialize)]
pub struct ProvenanceSummary {
    /// Where it is.
    pub path: PathBuf,
    /// The log.
    pub origin: Origin,
    /// First sequence in it.
    pub from: u64,
    /// First sequence not in it.
    pub to: u64,
    /// Receipts in it.
    pub receipts: u64,
    /// Organizations in it.
    pub organizations: u64,
    /// Bytes of the file.
    pub total_bytes: u64,
}

/// Writes the provenance of the entries [`from`, `to`) of a stream (from its beginning, to its newest signed head where absent).
///
/// # Errors
/// [`ExportError`].
pub async fn provenance(
    exchange: &Arc<Exchange>,
    stream: &Origin,
    (from, to): (Option<u64>, Option<u64>),
    out: &Path,
) -> Result<ProvenanceSummary, ExportError> {
    let (exchange, stream) = (Arc::clone(exchange), stream.clone());
    let (path, asked) = (out.to_owned(), out.to_owned());
    let write = move || {
        let story = Story::read(&exchange, &stream, (from, to))?;
        let mut file = Counted::create(&path)?;
        let written = story.write(&mut file).and_then(|()| file.finish());
        match written {
            Ok(total_bytes) => Ok(story.summary(path, total_bytes)),
            Err(error) => {
                // Ours, made a moment ago; half a document is none.
                let _ = std::fs::remove_file(&path);
                Err(io_error(&path, error))
            }
        }
    };
    let written = tokio::task::spawn_blocking(write).await;
    written.unwrap_or(Err(ExportError::Interrupted { path: asked }))
}

struct Line {
    leaf: Hash,
    time: Timestamp,
    kind: EntryKind,
}

struct Received {
    receipt: Receipt,
    digest: Hash,
    /// What it covers and the one before it did not, within the range.
    covers: std::ops::Range<u64>,
}

/// All that a document says, fixed before it is written.
struct Story {
    stream: FixedLog,
    producer: Authority,
    from: u64,
    lines: Vec<Line>,
    receipts: Vec<Received>,
}

impl Story {
    fn read(
        exchange: &Exchange,
        stream: &Origin,
        (from, to): (Option<u64>, Option<u64>),
    ) -> Result<Self, ExportError> {
        let snapshot = Snapshot::take(exchange, stream)?;
        let size = snapshot.stream.checkpoint.size;
        let (from, to) = (from.unwrap_or(0), to.unwrap_or(size));
        if from >= to || to > size {
            return Err(ExportError::Range { from, to, size });
        }
        let entries = to - from;
        if entries > PROVENANCE_ENTRIES_MAX {
            return Err(ExportError::ProvenanceEntries { entries });
        }
        let lines = read_lines(exchange.reader(), &snapshot.stream, from..to)?;
        let receipts = read_receipts(exchange.reader(), &snapshot, from..to)?;
        Ok(Self {
            producer: snapshot.producer.authority,
            stream: snapshot.stream,
            from,
            lines,
            receipts,
        })
    }

    fn to(&self) -> u64 {
        self.from + self.lines.len() as u64
    }

    fn summary(&self, path: PathBuf, total_bytes: u64) -> ProvenanceSummary {
        ProvenanceSummary {
            path,
            origin: self.stream.origin.clone(),
            from: self.from,
            to: self.to(),
            receipts: self.receipts.len() as u64,
            organizations: self.organizations().len() as u64,
            total_bytes,
        }
    }

    fn organizations(&self) -> BTreeSet<&Authority> {
        let consumers = self
            .receipts
            .iter()
            .map(|received| &received.receipt.consumer);
        consumers.chain([&self.producer]).collect()
    }

    fn entry(&self, sequence: u64) -> String {
        // INVARIANT: asked for sequences of the range only.
        let line = &self.lines[usize::try_from(sequence - self.from).unwrap_or(0)];
        format!("log:{sequence}-{}", hex::encode(line.leaf))
    }

    /// Member by member: the largest document is not held twice.
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let origin = &self.stream.origin;
        let numbered = || (self.from..).zip(&self.lines);
        let mut first = true;
        write!(out, "{{")?;
        let prefixes = [
            ("cs", "urn:countersign:prov:v1:".to_owned()),
            ("log", format!("urn:countersign:log:{origin}:")),
            ("org", "urn:countersign:organization:".to_owned()),
            ("receipt", "urn:countersign:receipt:".to_owned()),
        ];
        let prefixes = prefixes.map(|(name, uri)| (name.to_owned(), json!(uri)));
        section(out, &mut first, "prefix", prefixes)?;

        let entries = numbered().map(|(sequence, line)| {
            let kind = match line.kind {
                EntryKind::Control => "cs:ControlEntry",
                EntryKind::Event => "cs:Event",
            };
            let value = json!({
                "prov:type": name(kind),
                "cs:origin": origin,
                "cs:sequence": number(sequence),
                "cs:leafHash": hex::encode(line.leaf),
            });
            (self.entry(sequence), value)
        });
        let accepted = self.receipts.iter().map(|received| {
            let receipt = &received.receipt;
            (receipt.size, receipt.root.0)
        });
        let newest = &self.stream.checkpoint;
        let checkpoints: BTreeMap<(u64, Hash), ()> = accepted
            .chain([(newest.size, newest.root)])
            .map(|checkpoint| (checkpoint, ()))
            .collect();
        let checkpoints = checkpoints.into_keys().map(|(size, root)| {
            let value = json!({
                "prov:type": name("cs:Checkpoint"),
                "cs:origin": origin,
                "cs:size": number(size),
                "cs:root": hex::encode(root),
            });
            (checkpoint(size, &root), value)
        });
        section(out, &mut first, "entity", entries.chain(checkpoints))?;

        let appends = numbered().map(|(sequence, line)| {
            let time = line.time.to_rfc3339();
            let value = json!({"prov:type": name("cs:Append"), "prov:startTime": time, "prov:endTime": time});
            (append(sequence), value)
        });
        let receipts = self.receipts.iter().map(|received| {
            let receipt = &received.receipt;
            let value = json!({
                "prov:type": name("cs:Receipt"),
                "prov:endTime": receipt.made.to_rfc3339(),
                "cs:agreement": receipt.agreement,
                "cs:level": receipt.level,
                "cs:payloadDigest": hex::encode(received.digest),
            });
            (received.name(), value)
        });
        section(out, &mut first, "activity", appends.chain(receipts))?;

        let agents = self.organizations().into_iter().map(|authority| {
            let value = json!({"prov:type": name("prov:Organization")});
            (organization(authority), value)
        });
        section(out, &mut first, "agent", agents)?;

        let generated = numbered().map(|(sequence, line)| {
            let value = json!({
                "prov:entity": self.entry(sequence),
                "prov:activity": append(sequence),
                "prov:time": line.time.to_rfc3339(),
            });
            (format!("_:g{sequence}"), value)
        });
        section(out, &mut first, "wasGeneratedBy", generated)?;

        let producer = organization(&self.producer);
        let appended = numbered().map(|(sequence, _)| {
            let value = json!({"prov:activity": append(sequence), "prov:agent": producer});
            (format!("_:a{sequence}"), value)
        });
        let signed = self.receipts.iter().enumerate().map(|(at, received)| {
            let consumer = organization(&received.receipt.consumer);
            let value = json!({"prov:activity": received.name(), "prov:agent": consumer});
            (format!("_:r{at}"), value)
        });
        section(out, &mut first, "wasAssociatedWith", appended.chain(signed))?;

        let linked = numbered().skip(1).map(|(sequence, _)| {
            let before = append(sequence - 1);
            let value = json!({"prov:informed": append(sequence), "prov:informant": before});
            (format!("_:i{sequence}"), value)
        });
        section(out, &mut first, "wasInformedBy", linked)?;

        let uses = self.receipts.iter().flat_map(|received| {
            let receipt = &received.receipt;
            let accepted = checkpoint(receipt.size, &receipt.root.0);
            let covered = received.covers.clone().map(|sequence| self.entry(sequence));
            std::iter::once(accepted)
                .chain(covered)
                .map(|used| json!({"prov:activity": received.name(), "prov:entity": used}))
        });
        let uses = uses
            .enumerate()
            .map(|(at, value)| (format!("_:u{at}"), value));
        section(out, &mut first, "used", uses)?;
        writeln!(out, "\n}}")
    }
}

impl Received {
    fn name(&self) -> String {
        format!("receipt:{}-{}", self.receipt.series, self.receipt.number)
    }
}

fn append(sequence: u64) -> String {
    format!("log:append-{sequence}")
}

fn checkpoint(size: u64, root: &Hash) -> String {
    format!("log:checkpoint-{size}-{}", hex::encode(root))
}

fn organization(authority: &Authority) -> String {
    format!("org:{authority}")
}

fn name(name: &str) -> Value {
    json!({"$": name, "type": "prov:QUALIFIED_NAME"})
}

fn number(number: u64) -> Value {
    json!({"$": number.to_string(), "type": "xsd:unsignedLong"})
}

/// One kind of record; nothing where there is none, as an empty object says nothing.
fn section(
    out: &mut impl Write,
    first: &mut bool,
    kind: &str,
    records: impl IntoIterator<Item = (String, Value)>,
) -> io::Result<()> {
    let mut records = records.into_iter().peekable();
    if records.peek().is_none() {
        return Ok(());
    }
    let comma = if std::mem::take(first) { "" } else { "," };
    write!(out, "{comma}\n\"{kind}\": {{")?;
    for (at, (name, value)) in records.enumerate() {
        let comma = if at == 0 { "" } else { "," };
        // INVARIANT: names are made of authorities, hexadecimal and digits: nothing in them needs an escape.
        write!(out, "{comma}\n  \"{name}\": {value}")?;
    }
    write!(out, "\n}}")
}

fn read_lines(
    reader: &JournalReader,
    stream: &FixedLog,
    range: std::ops::Range<u64>,
) -> Result<Vec<Line>, ExportError> {
    let damaged = || ExportError::Unproven {
        origin: stream.origin.clone(),
    };
    let mut lines: Vec<Line> = Vec::new();
    let mut next = range.start;
    while next < range.end {
        let wanted = (range.end - next).min(PAGE_ENTRIES);
        let before = next;
        for run in reader.read(stream.number, next, wanted, PAGE_BYTES)? {
            for stored in run.iter().take_while(|stored| stored.sequence < range.end) {
                let entry = Entry::decode(stored.entry).map_err(|_| damaged())?;
                // A place in the order is what is told here: it has to be the one that the entries themselves tell.
                let linked = lines.last().is_none_or(|line| line.leaf == entry.prev);
                if entry.sequence != range.start + lines.len() as u64 || !linked {
                    return Err(damaged());
                }
                lines.push(Line {
                    leaf: leaf_hash(stored.entry),
                    time: entry.time,
                    kind: entry.kind,
                });
            }
            next = run.first + u64::from(run.count);
        }
        if next == before {
            return Err(damaged());
        }
    }
    Ok(lines)
}

fn read_receipts(
    reader: &JournalReader,
    snapshot: &Snapshot,
    range: std::ops::Range<u64>,
) -> Result<Vec<Received>, ExportError> {
    let origin = &snapshot.stream.origin;
    let size = snapshot.stream.checkpoint.size;
    let mut receipts = Vec::new();
    // The size of the receipt before, by series: both sides' ledgers of one node never hold the same series.
    let mut reached = BTreeMap::new();
    let mut uses = 0;
    for ledger in &snapshot.ledgers {
        let mut records = LedgerReader::new(reader, ledger.number, 0..ledger.checkpoint.size);
        while let Some(item) = records.next()? {
            let Some(About::Document(said)) = about(origin, item.record) else {
                continue;
            };
            if said.kind != Kind::Receipt || said.reaches > size {
                continue;
            }
            let Ok(receipt) = Receipt::peek(&said.envelope) else {
                continue;
            };
            let before = reached.insert(receipt.series, receipt.size);
            let begun = before.unwrap_or(receipt.start);
            let new = begun.max(range.start)..receipt.size.min(range.end);
            if receipt.size <= range.start || receipt.start >= range.end {
                continue;
            }
            let covers = match receipt.filter {
                // It is not said which of them travelled.
                Some(_) => range.start..range.start,
                None if new.start >= new.end => range.start..range.start,
                None => new,
            };
            uses += 1 + covers.end - covers.start;
            if uses > PROVENANCE_USES_MAX {
                return Err(ExportError::ProvenanceUses);
            }
            let digest = said.envelope.payload_digest();
            receipts.push(Received {
                receipt,
                digest,
                covers,
            });
        }
    }
    Ok(receipts)
}

/// The file, and how much is in it.
struct Counted {
    file: BufWriter<File>,
    bytes: u64,
}

impl Counted {
    fn create(path: &Path) -> Result<Self, ExportError> {
        let file = File::create_new(path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => ExportError::Exists {
                path: path.to_owned(),
            },
            _ => io_error(path, error),
        })?;
        let file = BufWriter::new(file);
        Ok(Self { file, bytes: 0 })
    }

    fn finish(&mut self) -> io::Result<u64> {
        self.file.flush()?;
        Ok(self.bytes)
    }
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
