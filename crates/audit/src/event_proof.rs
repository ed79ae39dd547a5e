//! The proof of one event: an entry, its content, and a `.tlog-proof` (`schemas/proofs.md`).

use countersign_crypto::TIMESTAMP_TOKEN_BYTES_MAX;
use countersign_event::content::{CONTENT_BYTES_MAX, ContentError, check_content};
use countersign_event::dsse::Envelope;
use countersign_event::entry::{ENTRY_BYTES, Entry, Kind};
use countersign_event::names::Origin;
use countersign_tlog::proof_file::{PROOF_FILE_BYTES_MAX, ProofFile};
use countersign_tlog::tile::ENTRY_BYTES_MAX;
use countersign_tlog::{Note, leaf_hash, verify_inclusion};

use crate::beside::{Beside, KEY_STATEMENTS};
use crate::checks::checkpoint::{InForce, Signed, Weight, entries, judge_signer, open_by_any};
use crate::checks::witnesses::{self, Cosigned, Demand};
use crate::checks::{keys, timestamps};
use crate::content_file::{
    DIRECTORY_BYTES_MAX, decode_directory, directory_bytes, encode_directory,
};
use crate::report::{Check, Collector, Finding, Severity};
use crate::trust::Trust;
use crate::verify::{Held, Signer};
use crate::write::ContentLengths;

/// Extension of the proof itself.
pub const EVENT_PROOF: &str = "tlog-proof";

/// Extension of the leaf.
pub(crate) const ENTRY: &str = "entry";
const CONTENT: &str = "content";
/// Extension of a time-stamp token over the proof's checkpoint.
pub(crate) const TIMESTAMP: &str = "tst";

/// All that the proof of one event consists of.
#[derive(Clone, Debug)]
pub struct EventProof {
    /// Index, inclusion proof and checkpoint.
    pub proof: ProofFile,
    /// The leaf.
    pub entry: [u8; ENTRY_BYTES],
    /// How long the attributes in the content are.
    pub attribute_bytes: u16,
    /// Salts, attributes and data part; absent where they are not handed out, or gone.
    pub content: Option<Vec<u8>>,
    /// Key statements of the log's organization.
    pub statements: Vec<Envelope>,
    /// A time-stamp token over the proof's checkpoint, in DER.
    pub timestamp: Option<Vec<u8>>,
}

impl EventProof {
    /// Extension and bytes of each file, the proof itself last.
    #[must_use]
    pub fn files(&self) -> Vec<(&'static str, Vec<u8>)> {
        let mut files = vec![(KEY_STATEMENTS, statement_lines(&self.statements))];
        files.extend(
            self.content
                .as_ref()
                .map(|content| (CONTENT, self.content_file(content))),
        );
        files.extend(self.timestamp.clone().map(|token| (TIMESTAMP, token)));
        files.push((ENTRY, self.entry.to_vec()));
        files.push((EVENT_PROOF, self.proof.encode().into_bytes()));
        files
    }

    fn content_file(&self, content: &[u8]) -> Vec<u8> {
        let salts_and_attributes =
            countersign_event::content::CONTENT_SALT_BYTES + usize::from(self.attribute_bytes);
        let data_part = content.len().saturating_sub(salts_and_attributes);
        let lengths = ContentLengths::Disclosed {
            attributes: self.attribute_bytes,
            // INVARIANT: a content has at most 17 MiB.
            data_part: u32::try_from(data_part).unwrap_or(u32::MAX),
        };
        let mut file = encode_directory(&[lengths]);
        file.extend_from_slice(content);
        file
    }
}

/// Key statements as they lie beside a proof.
pub(crate) fn statement_lines(statements: &[Envelope]) -> Vec<u8> {
    let mut lines = Vec::new();
    for statement in statements {
        lines.extend(statement.to_json());
        lines.push(b'\n');
    }
    lines
}

/// Verifies a proof and what lies beside it.
pub(crate) fn verify(
    bytes: &[u8],
    beside: &Beside,
    trust: &Trust,
    found: &mut Collector<'_>,
) -> Option<(Held, Signer)> {
    for check in [
        Check::Documents,
        Check::Coverage,
        Check::Decisions,
        Check::Ledgers,
    ] {
        found.skipped(check, "the proof of one event holds none");
    }
    debug_assert!(bytes.len() <= PROOF_FILE_BYTES_MAX);
    let statements = beside.statements(found);
    let keys = keys::of_statements(&statements, trust, found);
    let proof = match ProofFile::parse(bytes) {
        Ok(proof) => proof,
        Err(error) => {
            let what = error.to_string();
            beside.say(found, Check::Files, Severity::False, EVENT_PROOF, what);
            return None;
        }
    };
    if !proof.extra.is_empty() {
        let what = "it has extra data, which nothing authenticates and which is not looked at";
        let what = what.to_owned();
        beside.say(found, Check::Files, Severity::Note, EVENT_PROOF, what);
    }
    let file = beside.name(EVENT_PROOF);
    let note = proof.checkpoint.as_bytes();
    let opened = open_by_any(note, &file, &keys, trust, found)?;
    let (checkpoint, origin) = (&opened.checkpoint, &opened.origin);
    let cosigned = Cosigned {
        origin,
        size: checkpoint.size,
        note,
        file: &file,
        main: true,
    };
    let witnessed = witnesses::judge(&cosigned, Demand::Quorum, &keys, trust, found);
    judge_timestamp(beside, origin, (note, checkpoint.size), trust, found);
    let what = "the entry that is proven";
    let entry = beside.need(ENTRY, ENTRY_BYTES_MAX, what, found)?;
    let event = Event {
        beside,
        origin: origin.as_str(),
        sequence: proof.index,
    };
    let included = verify_inclusion(
        &leaf_hash(&entry),
        proof.index,
        checkpoint.size,
        &proof.proof,
        &checkpoint.root,
    );
    match included {
        Err(error) => event.say(
            found,
            Check::Tree,
            Severity::False,
            EVENT_PROOF,
            error.to_string(),
        ),
        Ok(()) => {
            let (index, size) = (proof.index, checkpoint.size);
            found.done(
                Check::Tree,
                format!("entry {index} is in the tree of {size}"),
            );
        }
    }
    let decoded = event.check_entry(&entry, found);
    if let Some(entry) = &decoded {
        event.check_content(entry, found);
    }
    found.done(Check::Files, "the files of one event");
    let time = decoded.map_or(InForce::Whenever, |entry| InForce::NotOverBy(entry.time));
    let vkey = opened.signer(time, &keys, trust);
    let signed = Signed {
        origin,
        what: entries(checkpoint.size),
        vkey,
        file: &file,
        to: proof.index.saturating_add(1),
        root_at: &|size| (size == checkpoint.size).then_some(checkpoint.root),
        witnessed,
        weight: Weight::Full,
    };
    let standing = judge_signer(&signed, time, &keys, trust, found);
    let held = Held {
        from: proof.index,
        to: proof.index.saturating_add(1),
        size: checkpoint.size,
        origin: origin.to_string(),
    };
    let complete = decoded.is_some() && included.is_ok();
    Some((
        held,
        Signer::new(&keys, origin, vkey, standing, trust, complete),
    ))
}

/// Judges the token beside a proof, where there is one.
fn judge_timestamp(
    beside: &Beside,
    origin: &Origin,
    (note, size): (&[u8], u64),
    trust: &Trust,
    found: &mut Collector<'_>,
) {
    let token = beside.read(TIMESTAMP, TIMESTAMP_TOKEN_BYTES_MAX, found);
    // It was opened: it is a note.
    let (Some(token), Ok(note)) = (token, Note::parse(note)) else {
        return found.skipped(Check::Timestamps, timestamps::NONE);
    };
    let judged = timestamps::Judged {
        origin,
        note: &note,
        size,
        token: &token,
        file: &beside.name(TIMESTAMP),
    };
    judged.judge(trust, found);
}

/// The entry of a proof, and where it lies.
pub(crate) struct Event<'a> {
    pub(crate) beside: &'a Beside,
    pub(crate) origin: &'a str,
    pub(crate) sequence: u64,
}

impl Event<'_> {
    pub(crate) fn check_entry(&self, bytes: &[u8], found: &mut Collector<'_>) -> Option<Entry> {
        let entry = match Entry::decode(bytes) {
            Ok(entry) => entry,
            Err(fault) => {
                self.say(
                    found,
                    Check::Chain,
                    Severity::False,
                    ENTRY,
                    fault.to_string(),
                );
                return None;
            }
        };
        if entry.sequence != self.sequence {
            let what = format!("it says that its sequence is {}", entry.sequence);
            self.say(found, Check::Chain, Severity::False, ENTRY, what);
        }
        let what = format!(
            "one entry, of {}; the one that it names is not here",
            entry.time
        );
        found.done(Check::Chain, what);
        Some(entry)
    }

    pub(crate) fn check_content(&self, entry: &Entry, found: &mut Collector<'_>) {
        let bytes_max = DIRECTORY_BYTES_MAX + CONTENT_BYTES_MAX;
        let failed = |found: &mut Collector<'_>, what: String| {
            self.say(found, Check::Content, Severity::False, CONTENT, what);
        };
        let undisclosed = |found: &mut Collector<'_>| {
            let what = format!(
                "the content of the entry is not disclosed: what is proven is that something with {} bytes of data was logged here at {}, not what it said",
                entry.data_bytes, entry.time
            );
            self.say(found, Check::Content, Severity::Missing, CONTENT, what);
        };
        let clean = found.is_clean(Check::Files);
        let Some(bytes) = self.beside.read(CONTENT, bytes_max, found) else {
            if clean == found.is_clean(Check::Files) {
                undisclosed(found);
            }
            return;
        };
        let (directory, content) = bytes.split_at(directory_bytes(1).min(bytes.len()));
        let lengths = match decode_directory(directory, 1, bytes.len() as u64) {
            Ok(lengths) => lengths,
            Err(fault) => return failed(found, fault.to_string()),
        };
        let attributes = match lengths.first() {
            Some(ContentLengths::Disclosed { attributes, .. }) => usize::from(*attributes),
            Some(ContentLengths::Undisclosed) | None => return undisclosed(found),
        };
        let word = match entry.kind {
            Kind::Control => "control entry",
            Kind::Event => "event",
        };
        match check_content(entry, content, attributes) {
            Ok(event) => {
                let attributes = event.attributes();
                let bytes = entry.data_bytes;
                let withheld = event.data().view().map(|view| view.withheld());
                let in_part = match withheld {
                    None => String::new(),
                    Some(withheld) => format!(", of which {withheld} members are not disclosed"),
                };
                let (kind, id, source) = (attributes.kind(), attributes.id(), attributes.source());
                let what = format!(
                    "{word} `{id}` from `{source}`, type `{kind}`, {bytes} bytes of data{in_part}"
                );
                found.done(Check::Content, what);
            }
            Err(ContentError::Encrypted) => {
                found.done(Check::Content, "sealed to its recipients, and not opened");
            }
            Err(fault) => failed(found, fault.to_string()),
        }
    }

    pub(crate) fn say(
        &self,
        found: &mut Collector<'_>,
        check: Check,
        severity: Severity,
        extension: &str,
        what: String,
    ) {
        found.push(Finding {
            check,
            severity,
            log: Some(self.origin.to_owned()),
            sequence: Some(self.sequence),
            file: Some(self.beside.name(extension)),
            what,
        });
    }
}
