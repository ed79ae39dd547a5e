//! Evidence of a few files with one stem, side by side: `schemas/proofs.md`.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use countersign_event::dsse::Envelope;

use crate::checks::files::DocumentFile;
use crate::report::{Check, Collector, Finding, Severity};

/// Extension of the key statements: DSSE envelopes, one per line.
pub(crate) const KEY_STATEMENTS: &str = "key-statements";

const STATEMENTS_MAX: usize = 64;
const STATEMENT_BYTES_MAX: usize = 256 << 10;

/// The files of one stem.
pub(crate) struct Beside {
    first: PathBuf,
}

impl Beside {
    pub(crate) fn of(first: &Path) -> Self {
        Self {
            first: first.to_owned(),
        }
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.first.with_extension(extension)
    }

    /// The name of a file, for people.
    pub(crate) fn name(&self, extension: &str) -> String {
        let path = self.path(extension);
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// A file, where it is there; whatever else is wrong with it is said.
    pub(crate) fn read(
        &self,
        extension: &str,
        bytes_max: usize,
        found: &mut Collector<'_>,
    ) -> Option<Vec<u8>> {
        match read_bounded(&self.path(extension), bytes_max) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.say(
                    found,
                    Check::Files,
                    Severity::False,
                    extension,
                    error.to_string(),
                );
                None
            }
        }
    }

    /// A file without which there is nothing to judge.
    pub(crate) fn need(
        &self,
        extension: &str,
        bytes_max: usize,
        what: &str,
        found: &mut Collector<'_>,
    ) -> Option<Vec<u8>> {
        let before = found.is_clean(Check::Files);
        let bytes = self.read(extension, bytes_max, found);
        if bytes.is_none() && found.is_clean(Check::Files) == before {
            let what = format!("{what} is not here");
            self.say(found, Check::Files, Severity::Missing, extension, what);
        }
        bytes
    }

    /// The key statements; their absence is for the judge of the keys to say.
    pub(crate) fn statements(&self, found: &mut Collector<'_>) -> Vec<DocumentFile> {
        let bytes_max = STATEMENTS_MAX * (STATEMENT_BYTES_MAX + 1);
        let Some(bytes) = self.read(KEY_STATEMENTS, bytes_max, found) else {
            return Vec::new();
        };
        let mut statements = Vec::new();
        let lines = bytes.split(|byte| *byte == b'\n');
        for (at, line) in lines.filter(|line| !line.is_empty()).enumerate() {
            let envelope = (at < STATEMENTS_MAX && line.len() <= STATEMENT_BYTES_MAX)
                .then(|| Envelope::from_json(line).ok())
                .flatten();
            let Some(envelope) = envelope else {
                let what = format!(
                    "line {} is no key statement, or one too many or too large",
                    at + 1
                );
                self.say(found, Check::Keys, Severity::False, KEY_STATEMENTS, what);
                break;
            };
            let path = self.name(KEY_STATEMENTS);
            statements.push(DocumentFile { path, envelope });
        }
        statements
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
            log: None,
            sequence: None,
            file: Some(self.name(extension)),
            what,
        });
    }
}

/// The whole of a file of at most `bytes_max` bytes.
pub(crate) fn read_bounded(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // Looked at before it is opened: a pipe would be waited for, and a link leads out of what was handed over.
    let is_file = |metadata: std::fs::Metadata| metadata.is_file();
    let looked = is_file(std::fs::symlink_metadata(path)?);
    let file = looked.then(|| File::open(path)).transpose()?;
    let Some(file) = file else {
        let what = "it is no file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    };
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        let what = format!("it has more than the {bytes_max} bytes that such a file can have");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    Ok(bytes)
}
