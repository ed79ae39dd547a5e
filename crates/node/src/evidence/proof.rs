//! Small evidence: the proof of one event, and the proof that a log has only grown (`schemas/proofs.md`).

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use countersign_audit::{EVENT_PROOF, EventProof, GROWTH_PROOF, GrowthProof};
use countersign_event::content::view_content;
use countersign_event::dsse::Envelope;
use countersign_event::names::Origin;
use countersign_exchange::Exchange;
use countersign_store::journal::{Erasure, JournalReader, ReadError, StoredEntry};
use countersign_tlog::add_checkpoint::AddCheckpoint;
use countersign_tlog::proof_file::ProofFile;
use countersign_tlog::{ProveError, consistency_proof, inclusion_proof, leaf_hash};
use serde::Serialize;

use super::Trusted;
use super::snapshot::{FixedLog, SignedBy};
use super::timestamps::first_over;
use super::{ExportError, io_error};

/// What was written, and whom an auditor has to trust.
#[derive(Clone, Debug, Serialize)]
pub struct ProofSummary {
    /// The file that `evidence verify` takes.
    pub proof: PathBuf,
    /// All files, that one among them.
    pub files: Vec<PathBuf>,
    /// The log.
    pub origin: Origin,
    /// What is proven of it.
    #[serde(flatten)]
    pub proven: Proven,
    /// Bytes of the files together.
    pub total_bytes: u64,
    /// The organization whose fingerprint an auditor needs to have got elsewhere.
    pub trust: Trusted,
}

/// What a proof says.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Proven {
    /// An entry is in the log.
    Event {
        /// Which.
        sequence: u64,
        /// Under a checkpoint of this size.
        size: u64,
        /// The control entry by which its content is gone, if it is: then there is no `.content`.
        #[serde(skip_serializing_if = "Option::is_none")]
        erased_by: Option<u64>,
    },
    /// The log has only grown.
    Growth {
        /// From this size.
        old: u64,
        /// To this one.
        new: u64,
    },
}

/// Which event is proven, and how much of it is disclosed.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Its sequence.
    pub sequence: u64,
    /// The members of its data that are disclosed; `None`: all of it.
    pub fields: Option<Vec<String>>,
}

/// Proves that an entry is in a stream, into `out` and files beside it: under its newest signed head or, where it is to be `timestamped`, under the first over it that
/// has a time-stamp token.
///
/// # Errors
/// [`ExportError`].
pub async fn prove_event(
    exchange: &Arc<Exchange>,
    stream: &Origin,
    (shown, timestamped): (Shown, bool),
    out: &Path,
) -> Result<ProofSummary, ExportError> {
    let (exchange, stream, path) = (Arc::clone(exchange), stream.clone(), out.to_owned());
    let prove = move || {
        check_extension(&path, EVENT_PROOF)?;
        let signed = SignedBy::of(&exchange, &stream)?;
        let sequence = shown.sequence;
        let (log, timestamp) = match timestamped {
            true => {
                let (log, token) = first_over(&exchange, &signed, &stream, sequence)?;
                (log, Some(token))
            }
            false => (signed.newest(&exchange)?, None),
        };
        let mut proof = event_proof(exchange.reader(), &log, &shown, &signed.documents)?;
        proof.timestamp = timestamp;
        let size = log.checkpoint.size;
        let erased_by = exchange.reader().erased_by(log.number, sequence);
        // What a filter left out was never here: there is no entry to name.
        let erased_by = erased_by.filter(|by| proof.content.is_none() && *by != Erasure::FILTERED);
        let proven = Proven::Event {
            sequence,
            size,
            erased_by,
        };
        write(&path, &proof.files(), stream, proven, signed.trusted())
    };
    run(out, prove).await
}

/// Proves that a stream at the checkpoint of `new` entries (the newest where absent) begins with all that it was at the one of `old`.
///
/// # Errors
/// [`ExportError`].
pub async fn prove_growth(
    exchange: &Arc<Exchange>,
    stream: &Origin,
    (old, new): (u64, Option<u64>),
    out: &Path,
) -> Result<ProofSummary, ExportError> {
    let (exchange, stream, path) = (Arc::clone(exchange), stream.clone(), out.to_owned());
    let prove = move || {
        check_extension(&path, GROWTH_PROOF)?;
        let signed = SignedBy::of(&exchange, &stream)?;
        let newer = match new {
            Some(new) => signed.at(&exchange, new)?,
            None => signed.newest(&exchange)?,
        };
        let new = newer.checkpoint.size;
        if old == 0 || old > new {
            return Err(ExportError::Sizes { old, new });
        }
        let older = signed.at(&exchange, old)?;
        let proof = growth_proof(exchange.reader(), &older, &newer, &signed.documents)?;
        let proven = Proven::Growth { old, new };
        write(&path, &proof.files(), stream, proven, signed.trusted())
    };
    run(out, prove).await
}

pub(super) async fn run(
    out: &Path,
    prove: impl FnOnce() -> Result<ProofSummary, ExportError> + Send + 'static,
) -> Result<ProofSummary, ExportError> {
    let path = out.to_owned();
    let proven = tokio::task::spawn_blocking(prove).await;
    proven.unwrap_or(Err(ExportError::Interrupted { path }))
}

pub(super) fn event_proof(
    reader: &JournalReader,
    log: &FixedLog,
    shown: &Shown,
    documents: &[Envelope],
) -> Result<EventProof, ExportError> {
    let sequence = shown.sequence;
    let size = log.checkpoint.size;
    if sequence >= size {
        return Err(ExportError::Range {
            from: sequence,
            to: sequence.saturating_add(1),
            size,
        });
    }
    let runs = reader.read(log.number, sequence, 1, u64::MAX)?;
    let stored = runs.first().and_then(|run| run.iter().next());
    let damaged = || ExportError::Unproven {
        origin: log.origin.clone(),
    };
    let stored = stored.ok_or_else(damaged)?;
    let proof = inclusion_proof(&reader.nodes(log.number), sequence, size);
    let file = ProofFile {
        extra: Vec::new(),
        index: sequence,
        proof: proof.map_err(|error| prove_error(log, error))?,
        checkpoint: log.note.clone(),
    };
    // What is written down has been verified: a proof that does not hold would look like a forged one.
    file.verify(&leaf_hash(stored.entry), &log.vkey)
        .map_err(|_| damaged())?;
    Ok(EventProof {
        proof: file,
        entry: stored.entry.try_into().map_err(|_| damaged())?,
        attribute_bytes: u16::try_from(stored.attribute_bytes).map_err(|_| damaged())?,
        content: disclosed(&stored, shown)?,
        statements: documents.to_vec(),
        timestamp: None,
    })
}

/// The content as far as it is disclosed; none where it is erased.
fn disclosed(stored: &StoredEntry<'_>, shown: &Shown) -> Result<Option<Vec<u8>>, ExportError> {
    if stored.erased_by.is_some() {
        return Ok(None);
    }
    let Some(fields) = &shown.fields else {
        return Ok(Some(stored.content.to_vec()));
    };
    let attribute_bytes = stored.attribute_bytes as usize;
    let sees = |name: &str| fields.iter().any(|seen| seen == name);
    let view = view_content(stored.content, attribute_bytes, sees)
        .ok()
        .flatten();
    let sequence = shown.sequence;
    view.map(Some).ok_or(ExportError::NotFields { sequence })
}

fn growth_proof(
    reader: &JournalReader,
    older: &FixedLog,
    newer: &FixedLog,
    documents: &[Envelope],
) -> Result<GrowthProof, ExportError> {
    let (old, new) = (older.checkpoint.size, newer.checkpoint.size);
    let proof = consistency_proof(&reader.nodes(newer.number), old, new);
    let request = AddCheckpoint {
        old,
        proof: proof.map_err(|error| prove_error(newer, error))?,
        checkpoint: newer.note.clone(),
    };
    let verified = request.verify(&older.checkpoint, &newer.checkpoint);
    verified.map_err(|_| ExportError::Unproven {
        origin: newer.origin.clone(),
    })?;
    Ok(GrowthProof {
        proof: request,
        old: older.note.clone(),
        statements: documents.to_vec(),
    })
}

fn prove_error(log: &FixedLog, error: ProveError<ReadError>) -> ExportError {
    match error {
        ProveError::Source(error) => error.into(),
        _ => ExportError::Unproven {
            origin: log.origin.clone(),
        },
    }
}

pub(super) fn check_extension(path: &Path, extension: &'static str) -> Result<(), ExportError> {
    match path.extension().is_some_and(|found| found == extension) {
        true => Ok(()),
        false => Err(ExportError::Extension {
            path: path.to_owned(),
            extension,
        }),
    }
}

/// Writes the files, the proof last: where it is, the others are. None of them is written over anything, and none stays where one fails.
pub(super) fn write(
    out: &Path,
    files: &[(&'static str, Vec<u8>)],
    origin: Origin,
    proven: Proven,
    trust: Trusted,
) -> Result<ProofSummary, ExportError> {
    Ok(ProofSummary {
        proof: out.to_owned(),
        total_bytes: files.iter().map(|(_, bytes)| bytes.len() as u64).sum(),
        files: write_files(out, files)?,
        origin,
        proven,
        trust,
    })
}

/// Writes the files of one stem, all or none.
pub(super) fn write_files(
    out: &Path,
    files: &[(&'static str, Vec<u8>)],
) -> Result<Vec<PathBuf>, ExportError> {
    let mut written = Vec::new();
    if let Err(error) = write_all(out, files, &mut written) {
        // Best effort: these are ours, made a moment ago.
        for path in &written {
            let _ = std::fs::remove_file(path);
        }
        return Err(error);
    }
    Ok(written)
}

fn write_all(
    out: &Path,
    files: &[(&'static str, Vec<u8>)],
    written: &mut Vec<PathBuf>,
) -> Result<(), ExportError> {
    for (extension, bytes) in files {
        let path = out.with_extension(extension);
        let made = File::create_new(&path);
        let mut file = made.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => ExportError::Exists { path: path.clone() },
            _ => io_error(&path, error),
        })?;
        written.push(path.clone());
        file.write_all(bytes)
            .map_err(|error| io_error(&path, error))?;
    }
    // Files and names at once: half a proof after a power loss would look like a forged one.
    let folder = out.parent().unwrap_or(Path::new("/"));
    let synced = File::open(folder).and_then(|folder| Ok(rustix::fs::syncfs(&folder)?));
    synced.map_err(|error| io_error(folder, error))
}
