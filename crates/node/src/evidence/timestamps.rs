//! Time-stamp tokens (`schemas/timestamp.md`): what an authority is asked, what it answered, and where the answers lie.
//!
//! Asking over a network is left to whoever has one: a query is a file, and so is an answer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_audit::Stamped;
use countersign_crypto::{TimestampToken, sha256, timestamp_query};
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::Origin;
use countersign_event::time::Timestamp;
use countersign_exchange::Exchange;
use countersign_store::journal::{LogKind, ReadError};
use countersign_tlog::{Checkpoint, Note, compact_range_at};
use serde::Serialize;

use super::ExportError;
use super::ledger_reader::LedgerReader;
use super::proof::{check_extension, write_files};
use super::snapshot::{FixedLog, SignedBy};

/// Extension of a query.
const QUERY: &str = "tsq";
/// Extension of what it is about.
const CHECKPOINT: &str = "checkpoint";
/// Tokens of one stream that are exported, the newest: the format's limit.
const EXPORTED_MAX: usize = 64;

/// A query that was written.
#[derive(Clone, Debug, Serialize)]
pub struct TimestampAsked {
    /// The query, for an authority.
    pub query: PathBuf,
    /// The checkpoint that it is about, which is needed again with the answer.
    pub checkpoint: PathBuf,
    /// The log.
    pub origin: Origin,
    /// Its size there.
    pub size: u64,
}

/// A token that was taken in.
#[derive(Clone, Debug, Serialize)]
pub struct Attached {
    /// The log.
    pub origin: Origin,
    /// Its size at the checkpoint that was stamped.
    pub size: u64,
    /// The subject of the certificate that signed it. Nobody here says that it is to be trusted.
    pub by: String,
    /// The time that it states, RFC 3339.
    pub time: String,
    /// Whether it was here already.
    pub known: bool,
}

/// Writes the query about a checkpoint (the newest, where no size is given) to `out`, and the checkpoint beside it.
///
/// # Errors
/// [`ExportError`].
pub async fn ask_for_timestamp(
    exchange: &Arc<Exchange>,
    stream: &Origin,
    size: Option<u64>,
    out: &Path,
) -> Result<TimestampAsked, ExportError> {
    let (exchange, stream, path) = (Arc::clone(exchange), stream.clone(), out.to_owned());
    let ask = move || {
        check_extension(&path, QUERY)?;
        let signed = SignedBy::of(&exchange, &stream)?;
        let log = match size {
            Some(size) => signed.at(&exchange, size)?,
            None => signed.newest(&exchange)?,
        };
        let foreign = |_| ExportError::ForeignCheckpoint {
            origin: stream.clone(),
            why: "it is no signed note",
        };
        let note = Note::parse(log.note.as_bytes()).map_err(foreign)?;
        let stamped = note.only(stream.as_str()).encode();
        let query = timestamp_query(&sha256(stamped.as_bytes()));
        let files = [(CHECKPOINT, stamped.into_bytes()), (QUERY, query)];
        write_files(&path, &files)?;
        Ok(TimestampAsked {
            checkpoint: path.with_extension(CHECKPOINT),
            query: path,
            origin: stream,
            size: log.checkpoint.size,
        })
    };
    let path = out.to_owned();
    let asked = tokio::task::spawn_blocking(ask).await;
    asked.unwrap_or(Err(ExportError::Interrupted { path }))
}

/// Takes in a token (or the answer that holds it, in base64) over a checkpoint of a stream. All of it is verified but whether its signer is to be trusted, which is for
/// an auditor to say; it lies in the node's ledger then.
///
/// # Errors
/// [`ExportError`].
pub async fn attach_timestamp(
    exchange: &Arc<Exchange>,
    stream: &Origin,
    (checkpoint, token): (&str, &str),
) -> Result<Attached, ExportError> {
    let bytes = STANDARD.decode(token).unwrap_or_default();
    let token = TimestampToken::from_response(&bytes).or_else(|answer| {
        // Whatever is no answer may be the token alone; of an answer that is refused, it is the answer's fault that counts.
        TimestampToken::from_der(&bytes).map_err(|_| answer)
    })?;
    let (node, origin, note) = (Arc::clone(exchange), stream.clone(), checkpoint.to_owned());
    let verify = move || stamped_note(&node, &origin, &note);
    let interrupted = || ExportError::Interrupted {
        path: PathBuf::from(QUERY),
    };
    let verified = tokio::task::spawn_blocking(verify).await;
    let (note, size) = verified.unwrap_or(Err(interrupted()))?;
    if *token.imprint() != sha256(note.as_bytes()) {
        return Err(ExportError::OtherImprint);
    }
    let stamped = Stamped {
        checkpoint: note,
        token: token.der().to_vec(),
    };
    let (node, origin) = (Arc::clone(exchange), stream.clone());
    let read = move || all(&node, &origin);
    let held = tokio::task::spawn_blocking(read).await;
    let known = held.unwrap_or(Ok(Vec::new()))?.contains(&stamped);
    if !known {
        let token = STANDARD.encode(&stamped.token);
        let kept = exchange.keep_timestamp(stream.clone(), stamped.checkpoint, token);
        kept.await?;
    }
    Ok(Attached {
        origin: stream.clone(),
        size,
        by: token.signer().to_owned(),
        time: Timestamp(token.time_us()).to_string(),
        known,
    })
}

/// The note of a checkpoint as it is stamped, and its size: signed by the log, and with its root.
fn stamped_note(
    exchange: &Exchange,
    stream: &Origin,
    note: &str,
) -> Result<(String, u64), ExportError> {
    let foreign = |why| ExportError::ForeignCheckpoint {
        origin: stream.clone(),
        why,
    };
    let parsed = Note::parse(note.as_bytes()).map_err(|_| foreign("it is no signed note"))?;
    let checkpoint = Checkpoint::parse_text(parsed.text());
    let checkpoint = checkpoint.map_err(|_| foreign("it is no checkpoint"))?;
    if checkpoint.origin != stream.as_str() {
        return Err(foreign("it is of another log"));
    }
    let signed = SignedBy::of(exchange, stream)?;
    let own = parsed.only(stream.as_str());
    if own.verify(&signed.vkeys()).is_err() {
        return Err(foreign("no key of the log has signed it"));
    }
    let log = exchange.log(stream).ok_or_else(|| ExportError::Unknown {
        origin: stream.clone(),
    })?;
    if checkpoint.size == 0 || checkpoint.size > log.head().size {
        return Err(foreign("it covers no entries, or more than are here"));
    }
    let nodes = exchange.reader().nodes(log.number());
    let range = compact_range_at(&nodes, checkpoint.size);
    let root = range.map_err(|_| ExportError::Unproven {
        origin: stream.clone(),
    })?;
    match root.root() == checkpoint.root {
        true => Ok((own.encode(), checkpoint.size)),
        false => Err(foreign("it has another root than the log here")),
    }
}

/// The tokens over checkpoints of a stream, in the order in which they came; of more than a bundle holds the newest.
fn all(exchange: &Exchange, stream: &Origin) -> Result<Vec<Stamped>, ReadError> {
    let first = Origin::of_node_ledger(exchange.identity().authority());
    let mut found = std::collections::VecDeque::new();
    // All generations, in their order.
    let mut ledgers = exchange.logs();
    ledgers.retain(|log| log.kind() == LogKind::Ledger && log.origin().first_generation() == first);
    for ledger in ledgers {
        let entries = 0..ledger.head().size;
        let mut records = LedgerReader::new(exchange.reader(), ledger.number(), entries);
        while let Some(item) = records.next()? {
            let LedgerRecord::Timestamp {
                stream: about,
                checkpoint,
                token,
            } = item.record
            else {
                continue;
            };
            if about != *stream {
                continue;
            }
            let Ok(token) = STANDARD.decode(token) else {
                continue;
            };
            if found.len() == EXPORTED_MAX {
                found.pop_front();
            }
            found.push_back(Stamped { checkpoint, token });
        }
    }
    Ok(found.into())
}

fn size_of(stamped: &Stamped) -> Option<u64> {
    let note = Note::parse(stamped.checkpoint.as_bytes()).ok()?;
    let checkpoint = Checkpoint::parse_text(note.text()).ok()?;
    Some(checkpoint.size)
}

/// The tokens whose checkpoints an auditor can compute from entries [`from`, `to`) of a log of `size`.
pub(super) fn of_range(
    exchange: &Exchange,
    log: &FixedLog,
    range: &std::ops::Range<u64>,
) -> Result<Vec<Stamped>, ReadError> {
    let size = log.checkpoint.size;
    let computed = |at: u64| (range.start < at && at <= range.end) || at == size;
    let mut found = all(exchange, &log.origin)?;
    found.retain(|stamped| size_of(stamped).is_some_and(computed));
    Ok(found)
}

/// The first stamped checkpoint over an entry, with its token.
pub(super) fn first_over(
    exchange: &Exchange,
    signed: &SignedBy,
    stream: &Origin,
    sequence: u64,
) -> Result<(FixedLog, Vec<u8>), ExportError> {
    let by_size: BTreeMap<u64, Stamped> = all(exchange, stream)?
        .into_iter()
        .rev()
        .filter_map(|stamped| Some((size_of(&stamped)?, stamped)))
        .collect();
    let mut over = by_size.into_iter().filter(|(size, _)| *size > sequence);
    let (_, stamped) = over.next().ok_or_else(|| ExportError::NotStamped {
        origin: stream.clone(),
        sequence,
    })?;
    Ok((signed.of_note(&stamped.checkpoint)?, stamped.token))
}
