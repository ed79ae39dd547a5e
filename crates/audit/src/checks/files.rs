//! Each file is expected, complete and as the manifest says.

use std::collections::{BTreeMap, BTreeSet};

use countersign_crypto::{Hash, Sha256Stream, TIMESTAMP_TOKEN_BYTES_MAX, sha256};
use countersign_event::dsse::{ENVELOPE_BYTES_MAX, Envelope};
use countersign_tlog::tile::Tile;

use crate::files::BundleFiles;
use crate::layout::parse_content_path;
use crate::manifest::{
    DECISIONS, DOCUMENT_BYTES_SUM_MAX, FileEntry, KEYS, LogEntry, MANIFEST, MANIFEST_BYTES_MAX,
    MANIFEST_DIGEST, MANIFEST_VERSION_TIMESTAMPS, Manifest, ManifestError, POLICY_BYTES_MAX,
    POLICY_BYTES_SUM_MAX, SMALL_FILE_BYTES_MAX, TIMESTAMPS_MAX, log_path,
};
use crate::report::{Check, Collector, Finding, Severity};
use crate::write::is_file_name;

/// Bytes hashed at a time of a file that can be of any size.
const PIECE_BYTES: usize = 1 << 20;

/// A signed document, not yet judged.
pub(crate) struct DocumentFile {
    pub(crate) path: String,
    pub(crate) envelope: Envelope,
}

/// A policy file, not yet judged.
pub(crate) struct PolicyText {
    pub(crate) set: Hash,
    pub(crate) file: String,
    pub(crate) text: String,
}

/// The listed files, each read and hashed once.
#[derive(Default)]
pub(crate) struct Listed {
    pub(crate) keys: Option<Vec<u8>>,
    /// In the order of the logs.
    pub(crate) checkpoints: Vec<Option<Vec<u8>>>,
    pub(crate) documents: Vec<DocumentFile>,
    pub(crate) policies: Vec<PolicyText>,
    pub(crate) has_decisions: bool,
    pub(crate) timestamps: Vec<StampedFile>,
}

/// A time-stamp token and the checkpoint that it is over, not yet judged.
pub(crate) struct StampedFile {
    /// Path of the token.
    pub(crate) path: String,
    pub(crate) note: Vec<u8>,
    pub(crate) token: Vec<u8>,
}

/// Reads the manifest; `None` where there is nothing to go on from.
pub(crate) fn read_manifest(files: &BundleFiles, found: &mut Collector<'_>) -> Option<Manifest> {
    let mut fault = |severity, file: &str, what: String| {
        found.push(Finding {
            check: Check::Files,
            severity,
            log: None,
            sequence: None,
            file: Some(file.to_owned()),
            what,
        });
        None
    };
    let json = match files.read(MANIFEST, MANIFEST_BYTES_MAX) {
        Ok(json) => json,
        Err(error) => return fault(Severity::False, MANIFEST, error.to_string()),
    };
    let expected = format!("{}  {MANIFEST}\n", hex::encode(sha256(&json)));
    let digest = files.read(MANIFEST_DIGEST, expected.len() as u64);
    if !digest.is_ok_and(|digest| digest == expected.as_bytes()) {
        let what = "it is not the digest of the manifest: one of the two was altered".to_owned();
        let _: Option<Manifest> = fault(Severity::False, MANIFEST_DIGEST, what);
    }
    match Manifest::from_json(&json) {
        Ok(manifest) => Some(manifest),
        // A later version may be good: this program cannot say.
        Err(error @ ManifestError::Version { .. }) => {
            fault(Severity::Missing, MANIFEST, error.to_string())
        }
        Err(error) => fault(Severity::False, MANIFEST, error.to_string()),
    }
}

/// Checks every file against the manifest.
pub(crate) fn check(files: &BundleFiles, manifest: &Manifest, found: &mut Collector<'_>) -> Listed {
    let mut check = FilesCheck {
        files,
        found,
        listed: Listed {
            checkpoints: manifest.logs.iter().map(|_| None).collect(),
            ..Listed::default()
        },
        document_bytes: 0,
        policy_bytes: 0,
        stamped: BTreeMap::new(),
    };
    let mut bytes = 0u64;
    for file in &manifest.files {
        bytes = bytes.saturating_add(file.bytes);
        if let Err(what) = check.listed(manifest, file) {
            check.fault(&file.path, what);
        }
    }
    check.required(manifest);
    check.pair_timestamps();
    let bound = check.expected(manifest);
    let what = format!(
        "{} files as listed ({bytes} bytes), {bound} tiles and contents, nothing else",
        manifest.files.len()
    );
    check.found.done(Check::Files, what);
    check.listed
}

/// The checkpoint and the token of one number, as far as they were found.
type Pair = (Option<Vec<u8>>, Option<Vec<u8>>);

struct FilesCheck<'a, 'c> {
    files: &'a BundleFiles,
    found: &'a mut Collector<'c>,
    listed: Listed,
    document_bytes: u64,
    policy_bytes: u64,
    /// By their number in the bundle: checkpoint and token.
    stamped: BTreeMap<String, Pair>,
}

impl FilesCheck<'_, '_> {
    fn fault(&mut self, path: &str, what: String) {
        self.found.push(Finding {
            check: Check::Files,
            severity: Severity::False,
            log: None,
            sequence: None,
            file: Some(path.to_owned()),
            what,
        });
    }

    /// Reads a listed file according to its place.
    fn listed(&mut self, manifest: &Manifest, file: &FileEntry) -> Result<(), String> {
        let path = file.path.as_str();
        if path == DECISIONS {
            self.listed.has_decisions = true;
            return self.hash_only(file);
        }
        if path == KEYS {
            self.listed.keys = Some(self.read(file, SMALL_FILE_BYTES_MAX)?);
            return Ok(());
        }
        if let Some(name) = path.strip_prefix("documents/") {
            return self.document(file, name);
        }
        if let Some(name) = path.strip_prefix("policies/") {
            return self.policy(file, name);
        }
        if let Some(name) = path.strip_prefix("timestamps/")
            && manifest.version >= MANIFEST_VERSION_TIMESTAMPS
        {
            return self.timestamp(file, name);
        }
        if let Some(log) = (0..manifest.logs.len()).find(|log| path == checkpoint_path(*log)) {
            let note = self.read(file, SMALL_FILE_BYTES_MAX)?;
            self.listed.checkpoints[log] = Some(note);
            return Ok(());
        }
        Err("it is listed, and no file of this name has a place in a bundle".to_owned())
    }

    fn document(&mut self, file: &FileEntry, name: &str) -> Result<(), String> {
        if !name.ends_with(".json") || !is_file_name(name) {
            return Err("it has no name that a document has".to_owned());
        }
        self.document_bytes = self.document_bytes.saturating_add(file.bytes);
        if self.document_bytes > DOCUMENT_BYTES_SUM_MAX {
            return Err(format!(
                "the documents have more than {DOCUMENT_BYTES_SUM_MAX} bytes together"
            ));
        }
        let json = self.read(file, ENVELOPE_BYTES_MAX as u64)?;
        let envelope = Envelope::from_json(&json).map_err(|error| error.to_string())?;
        self.listed.documents.push(DocumentFile {
            path: file.path.clone(),
            envelope,
        });
        Ok(())
    }

    fn policy(&mut self, file: &FileEntry, name: &str) -> Result<(), String> {
        let place = name.split_once('/').and_then(|(set, name)| {
            let mut digest = Hash::default();
            hex::decode_to_slice(set, &mut digest).ok()?;
            (hex::encode(digest) == set && is_file_name(name)).then_some((digest, name))
        });
        let Some((set, name)) = place else {
            return Err("it is not `policies/<digest>/<file>`".to_owned());
        };
        self.policy_bytes = self.policy_bytes.saturating_add(file.bytes);
        if self.policy_bytes > POLICY_BYTES_SUM_MAX {
            return Err(format!(
                "the policy files have more than {POLICY_BYTES_SUM_MAX} bytes together"
            ));
        }
        let text = String::from_utf8(self.read(file, POLICY_BYTES_MAX)?)
            .map_err(|_| "it is not text".to_owned())?;
        self.listed.policies.push(PolicyText {
            set,
            file: name.to_owned(),
            text,
        });
        Ok(())
    }

    fn timestamp(&mut self, file: &FileEntry, name: &str) -> Result<(), String> {
        let numbered = name
            .split_once('.')
            .filter(|(stem, _)| stem.len() == 8 && stem.bytes().all(|b| b.is_ascii_digit()));
        let (stem, is_token) = match numbered {
            Some((stem, "checkpoint")) => (stem, false),
            Some((stem, "tst")) => (stem, true),
            _ => {
                return Err(
                    "it has no name that a time-stamp token or its checkpoint has".to_owned(),
                );
            }
        };
        let max = if is_token {
            TIMESTAMP_TOKEN_BYTES_MAX as u64
        } else {
            SMALL_FILE_BYTES_MAX
        };
        let bytes = self.read(file, max)?;
        let (note, token) = self.stamped.entry(stem.to_owned()).or_default();
        *(if is_token { token } else { note }) = Some(bytes);
        match self.stamped.len() > TIMESTAMPS_MAX {
            true => Err(format!(
                "it is one of more than {TIMESTAMPS_MAX} time-stamp tokens"
            )),
            false => Ok(()),
        }
    }

    /// Each token has the checkpoint that it is over, and each checkpoint its token.
    fn pair_timestamps(&mut self) {
        for (stem, pair) in std::mem::take(&mut self.stamped) {
            let path = format!("timestamps/{stem}.tst");
            match pair {
                (Some(note), Some(token)) => {
                    self.listed
                        .timestamps
                        .push(StampedFile { path, note, token });
                }
                (note, _) => {
                    let what = if note.is_some() {
                        "token"
                    } else {
                        "checkpoint"
                    };
                    let what =
                        format!("the {what} that belongs to it is not listed, or cannot be read");
                    self.fault(&path, what);
                }
            }
        }
    }

    fn read(&self, file: &FileEntry, max: u64) -> Result<Vec<u8>, String> {
        let bytes = self
            .files
            .read(&file.path, max)
            .map_err(|fault| fault.to_string())?;
        compare(file, bytes.len() as u64, sha256(&bytes))?;
        Ok(bytes)
    }

    fn hash_only(&self, file: &FileEntry) -> Result<(), String> {
        let open = self
            .files
            .file(&file.path)
            .map_err(|fault| fault.to_string())?;
        let mut hasher = Sha256Stream::new();
        let mut piece = vec![0; PIECE_BYTES];
        let mut offset = 0;
        while offset < open.bytes() {
            let take = usize::try_from(open.bytes() - offset)
                .map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
            open.read_exact_at(offset, &mut piece[..take])
                .map_err(|fault| format!("it cannot be read: {fault}"))?;
            hasher.update(&piece[..take]);
            offset += take as u64;
        }
        compare(file, open.bytes(), hasher.finish())
    }

    /// The files without which nothing can be judged.
    fn required(&mut self, manifest: &Manifest) {
        let listed = |path: &str| {
            manifest
                .files
                .binary_search_by(|file| file.path.as_str().cmp(path))
                .is_ok()
        };
        let mut wanted = vec![KEYS.to_owned()];
        wanted.extend((0..manifest.logs.len()).map(checkpoint_path));
        for path in wanted {
            if !listed(&path) {
                self.fault(
                    &path,
                    "the manifest does not list it, and no bundle is without".to_owned(),
                );
            }
        }
    }

    /// Every file that is here has a place. Gives the number of tiles and contents. What is missing is named by the check
    /// that needs it.
    fn expected(&mut self, manifest: &Manifest) -> u64 {
        let listed: BTreeSet<&str> = manifest
            .files
            .iter()
            .map(|file| file.path.as_str())
            .collect();
        let mut bound = 0;
        let files = self.files;
        for path in files.paths() {
            if path == MANIFEST || path == MANIFEST_DIGEST || listed.contains(path) {
                continue;
            }
            if is_bound(manifest, path) {
                bound += 1;
            } else {
                self.fault(path, "the file has no place in this bundle".to_owned());
            }
        }
        bound
    }
}

/// Whether a path is that of a tile or content which the tree of one of the logs binds.
fn is_bound(manifest: &Manifest, path: &str) -> bool {
    let (log, rest) = match path.strip_prefix("ledgers/") {
        None => (0, path),
        Some(ledger) => {
            let Some((number, rest)) = ledger.split_once('/') else {
                return false;
            };
            match number
                .parse::<usize>()
                .ok()
                .and_then(|number| number.checked_add(1))
            {
                // One way to write a number.
                Some(log) if path.starts_with(&log_path(log)) => (log, rest),
                _ => return false,
            }
        }
    };
    let Some(span) = manifest.logs.get(log).map(LogEntry::span) else {
        return false;
    };
    match rest.strip_prefix("log/") {
        Some(tile) => Tile::parse(tile).is_ok_and(|tile| span.needs(tile)),
        None => parse_content_path(rest).is_some_and(|index| span.runs().contains(&index)),
    }
}

fn checkpoint_path(log: usize) -> String {
    format!("{}log/checkpoint", log_path(log))
}

fn compare(file: &FileEntry, bytes: u64, sha256: Hash) -> Result<(), String> {
    if bytes != file.bytes {
        return Err(format!(
            "it has {bytes} bytes and is listed with {}",
            file.bytes
        ));
    }
    if sha256 != file.sha256 {
        return Err("its content is not the one listed: it was altered".to_owned());
    }
    Ok(())
}
