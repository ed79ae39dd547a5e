//! The manifest: what a bundle says of itself. Claims only; the checks derive everything again.

use countersign_crypto::Hash;
use countersign_event::from_slice_of_objects;
use countersign_event::names::{Authority, Origin};
use serde::{Deserialize, Serialize};

use crate::layout::Span;

/// The first version: what a bundle is that no time-stamp token is in.
pub const MANIFEST_VERSION: u32 = 1;
/// The newest version: it has time-stamp tokens.
pub(crate) const MANIFEST_VERSION_TIMESTAMPS: u32 = 2;

/// The word in `format`.
pub(crate) const FORMAT: &str = "countersign-bundle";
/// Path of the manifest.
pub(crate) const MANIFEST: &str = "manifest.json";
/// Path of its digest.
pub(crate) const MANIFEST_DIGEST: &str = "manifest.sha256";
/// Path of the keys.
pub(crate) const KEYS: &str = "keys.json";
/// The word in `format` of `keys.json`.
pub(crate) const KEYS_FORMAT: &str = "countersign-keys";
/// Path of the decisions.
pub(crate) const DECISIONS: &str = "decisions.ndjson";

/// 262,144 listed files of about 200 bytes are 52 MB. Enforced when the manifest is read.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 64 << 20;
/// Listed files: a receipt every ten minutes for five years. Enforced by reader and writer.
pub(crate) const LISTED_FILES_MAX: usize = 262_144;
/// Logs: the stream's own and one per counterparty. Enforced by reader and writer.
pub(crate) const LOGS_MAX: usize = 4096;
/// Bytes of one policy file. Enforced by reader and writer.
pub(crate) const POLICY_BYTES_MAX: u64 = 1 << 20;
/// Bytes of all policy files. Enforced by reader and writer.
pub(crate) const POLICY_BYTES_SUM_MAX: u64 = 16 << 20;
/// Bytes of all documents. Enforced by reader and writer.
pub(crate) const DOCUMENT_BYTES_SUM_MAX: u64 = 256 << 20;
/// Bytes of `keys.json` and of one checkpoint; a note's own limit. Enforced by the reader.
pub(crate) const SMALL_FILE_BYTES_MAX: u64 = 1_000_000;
/// Time-stamp tokens: the newest are the ones that matter. Enforced by reader and writer.
pub(crate) const TIMESTAMPS_MAX: usize = 64;
/// Bytes of one line of `decisions.ndjson`. Enforced by reader and writer.
pub(crate) const DECISION_BYTES_MAX: usize = 1 << 20;

/// `manifest.json`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// `countersign-bundle`.
    pub format: String,
    /// 1, or 2 where there are time-stamp tokens.
    pub version: u32,
    /// When it was made, RFC 3339; a claim.
    pub made: String,
    /// Which program made it; a claim.
    pub made_by: String,
    /// The organization whose log it is.
    pub authority: Authority,
    /// The log that the bundle is about, then ledger logs.
    pub logs: Vec<LogEntry>,
    /// What is withheld.
    pub undisclosed: Vec<Undisclosed>,
    /// Every file that no tree binds, ascending by path.
    pub files: Vec<FileEntry>,
}

/// One log of a bundle.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LogEntry {
    /// What precedes `log/` and `content/`: empty, or `ledgers/<i>/`.
    pub path: String,
    /// Its identity.
    pub origin: Origin,
    /// First sequence held.
    pub from: u64,
    /// First sequence not held.
    pub to: u64,
    /// Size of its checkpoint.
    pub size: u64,
}

impl LogEntry {
    pub(crate) fn span(&self) -> Span {
        Span {
            from: self.from,
            to: self.to,
            size: self.size,
        }
    }
}

/// A run of entries whose content is not here.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Undisclosed {
    /// Which log, by its place in `logs`.
    pub log: usize,
    /// First sequence.
    pub from: u64,
    /// First sequence after the run.
    pub to: u64,
    /// Why; the exporter's claim.
    pub reason: String,
}

/// A listed file.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its path in the bundle.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256.
    #[serde(with = "hex_hash")]
    pub sha256: Hash,
}

/// Why bytes are no manifest that can be judged.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ManifestError {
    /// Not this format.
    #[error("this is no evidence bundle: `format` is not `{FORMAT}`")]
    Format,
    /// Not JSON of the expected form.
    #[error("the manifest is not well-formed (line {line}, column {column})")]
    Form {
        /// Line in the JSON text.
        line: usize,
        /// Column in the JSON text.
        column: usize,
    },
    /// A limit.
    #[error("the manifest lists {found} {what}, more than {max}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// A version this program does not know.
    #[error(
        "the bundle is of version {found}; this program reads versions {MANIFEST_VERSION} to {MANIFEST_VERSION_TIMESTAMPS}: use a newer one"
    )]
    Version {
        /// The version.
        found: u64,
    },
    /// A log that is no part of a tree, or lies at another place than the format gives it.
    #[error("log {log} of the manifest is not one that a bundle can have: {what}")]
    Log {
        /// Its place in `logs`.
        log: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// Runs of undisclosed entries that are not ascending, or not in their log.
    #[error("run {run} of the undisclosed entries is empty, out of order or outside of its log")]
    Undisclosed {
        /// Its place in `undisclosed`.
        run: usize,
    },
    /// Listed files that are not ascending by path.
    #[error("the listed files are not in ascending order at file {file}")]
    FileOrder {
        /// Its place in `files`.
        file: usize,
    },
}

#[derive(Deserialize, Serialize)]
struct Head {
    format: String,
    version: u64,
}

impl Manifest {
    /// Reads a manifest: format and version first, so that a later version is refused by name.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn from_json(json: &[u8]) -> Result<Self, ManifestError> {
        let form = |error: serde_json::Error| ManifestError::Form {
            line: error.line(),
            column: error.column(),
        };
        let head: Head = from_slice_of_objects(json).map_err(form)?;
        if head.format != FORMAT {
            return Err(ManifestError::Format);
        }
        let known = u64::from(MANIFEST_VERSION)..=u64::from(MANIFEST_VERSION_TIMESTAMPS);
        if !known.contains(&head.version) {
            return Err(ManifestError::Version {
                found: head.version,
            });
        }
        let manifest: Self = from_slice_of_objects(json).map_err(form)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Its bytes in a bundle.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).unwrap_or_default();
        json.push(b'\n');
        json
    }

    /// The rules that need no other file.
    pub(crate) fn check(&self) -> Result<(), ManifestError> {
        let limit = |what, found, max| {
            if found > max {
                Err(ManifestError::TooMany { what, found, max })
            } else {
                Ok(())
            }
        };
        limit("files", self.files.len(), LISTED_FILES_MAX)?;
        limit("logs", self.logs.len(), LOGS_MAX)?;
        if self.logs.is_empty() {
            return Err(ManifestError::Log {
                log: 0,
                what: "there is none",
            });
        }
        for (log, entry) in self.logs.iter().enumerate() {
            if let Some(what) = self.wrong_log(log, entry) {
                return Err(ManifestError::Log { log, what });
            }
        }
        let mut before = (0, 0);
        for (run, undisclosed) in self.undisclosed.iter().enumerate() {
            let log = self.logs.get(undisclosed.log);
            let inside =
                log.is_some_and(|log| log.from <= undisclosed.from && undisclosed.to <= log.to);
            let ordered =
                before <= (undisclosed.log, undisclosed.from) && undisclosed.from < undisclosed.to;
            if !inside || !ordered {
                return Err(ManifestError::Undisclosed { run });
            }
            before = (undisclosed.log, undisclosed.to);
        }
        match self
            .files
            .windows(2)
            .position(|pair| pair[0].path >= pair[1].path)
        {
            Some(file) => Err(ManifestError::FileOrder { file: file + 1 }),
            None => Ok(()),
        }
    }

    /// What is wrong with a log, if anything is.
    fn wrong_log(&self, log: usize, entry: &LogEntry) -> Option<&'static str> {
        if !entry.span().is_valid() {
            return Some("it holds no entries, or more than its checkpoint covers");
        }
        if entry.path != log_path(log) {
            return Some("it does not lie where the format puts it");
        }
        if log == 0 {
            let own = entry.origin.authority() == self.authority;
            return (!own).then_some("it is another organization's than `authority` says");
        }
        if !entry.span().is_whole() {
            return Some("a ledger log is exported whole");
        }
        if entry.origin.stream().is_some() {
            return Some("it is no ledger log");
        }
        let twice = self.logs[..log]
            .iter()
            .any(|other| other.origin == entry.origin);
        twice.then_some("it is there twice")
    }
}

/// The prefix of the paths of log number `log`.
pub(crate) fn log_path(log: usize) -> String {
    match log {
        0 => String::new(),
        log => format!("ledgers/{}/", log - 1),
    }
}

/// `keys.json`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeysFile {
    pub(crate) format: String,
    pub(crate) version: u32,
    /// The vkey of each log, in the order of the manifest.
    pub(crate) vkeys: Vec<String>,
    /// The documents that are key statements.
    pub(crate) statements: Vec<String>,
}

mod hex_hash {
    use countersign_crypto::Hash;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(hash: &Hash, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(hash))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Hash, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut hash = Hash::default();
        // One text for one hash: `hex` alone would also take upper case.
        match hex::decode_to_slice(&text, &mut hash) {
            Ok(()) if hex::encode(hash) == text => Ok(hash),
            _ => Err(D::Error::custom("not 64 lower-case hexadecimal digits")),
        }
    }
}
