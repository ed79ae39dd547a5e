//! A node's data directory: where everything is, who may touch it, and one process at a time.
//!
//! ```text
//! DIR/                     mode 0700
//!   format                 "1\n": layout and formats of everything below
//!   countersign.toml       settings
//!   keys/*.pem             private keys, mode 0600
//!   key-statement.json     which keys speak for the organization (DSSE)
//!   policies/*.cedar       who may do what
//!   journal/               the logs
//!   ledger.sqlite          the view over the ledger logs; may be deleted
//!   evidence/              what counterparties did wrong, as they signed it
//!   node.sock              commands reach a running node here
//!   lock                   pid of the process that uses the directory, under an exclusive lock
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_crypto::PublicKey;

use crate::keys::{self, KeyFileError, NodeKeys};
use crate::passphrase::KeySettings;

/// The format that this program writes and reads. Persisted; goes up when an older program could misread what a newer one wrote.
pub const FORMAT: u32 = 1;

/// Why a data directory is not used. Nothing has been written in any of these cases.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It was made by a newer program.
    #[error("`{path}` has format {found}, and this program knows formats up to {FORMAT}")]
    Format {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The format file holds no number.
    #[error("`{path}` does not hold a format number")]
    FormatText {
        /// The format file.
        path: PathBuf,
    },
    /// A file that belongs there is missing.
    #[error("`{path}` lacks `{missing}`")]
    Incomplete {
        /// The directory.
        path: PathBuf,
        /// What is missing.
        missing: &'static str,
    },
    /// The system refused.
    #[error("cannot use `{path}`: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A key file.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// Another process has it.
    #[error("another process is using `{path}`{}", shown_pid(*pid))]
    Locked {
        /// The directory.
        path: PathBuf,
        /// That process, where it has said so.
        pid: Option<u32>,
    },
    /// There is none.
    #[error("there is no data directory at `{path}`")]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Neither a directory was named nor is there a home to put it in.
    #[error("no data directory is named, and neither XDG_DATA_HOME nor HOME is set")]
    NoHome,
    /// It belongs to another user.
    #[error("`{path}` belongs to user {owner}, and this process runs as user {own}")]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The effective user of this process.
        own: u32,
    },
    /// Others may put files into it.
    #[error("others than its owner may write to `{path}`: run `chmod go-w {path}`")]
    Writable {
        /// The directory.
        path: PathBuf,
    },
}

fn shown_pid(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})"))
        .unwrap_or_default()
}

/// The environment variables that matter here, read once by the program.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// What the process was started with: `COUNTERSIGN_*` and the few that name folders or colours.
    #[must_use]
    pub fn read() -> Self {
        let wanted =
            |name: &str| name.starts_with("COUNTERSIGN_") || OTHER_VARIABLES.contains(&name);
        let pairs = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| wanted(name))?;
            Some((name, value.into_string().ok()?))
        });
        Self(pairs.collect())
    }

    /// The variable's value; an empty one counts as not set.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }
}

const OTHER_VARIABLES: [&str; 4] = ["CLICOLOR_FORCE", "HOME", "NO_COLOR", "XDG_DATA_HOME"];

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(pairs: [(&str, &str); N]) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }
}

/// The directory to use: `--data` > `COUNTERSIGN_DATA` > `.countersign` in the current directory, if it is there > the user's data folder.
///
/// # Errors
/// [`DataDirError::NoHome`].
pub fn choose(
    flag: Option<&Path>,
    environment: &Environment,
    current: &Path,
) -> Result<PathBuf, DataDirError> {
    if let Some(path) = flag {
        return Ok(path.to_owned());
    }
    if let Some(path) = environment.value("COUNTERSIGN_DATA") {
        return Ok(PathBuf::from(path));
    }
    if current.join(".countersign").is_dir() {
        return Ok(PathBuf::from(".countersign"));
    }
    let user = environment
        .value("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(environment.value("HOME")?).join(".local/share")));
    user.map(|folder| folder.join("countersign"))
        .ok_or(DataDirError::NoHome)
}

/// A data directory whose format, owner and key files have been checked.
#[derive(Clone, Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Whose key is in each key file that was opened: opening one again takes time, and the passphrase.
    keys: Arc<Mutex<Vec<(PathBuf, PublicKey)>>>,
}

/// The right to use a data directory; dropping it lets the next process in.
#[derive(Debug)]
pub struct DirLock {
    file: File,
}

impl Drop for DirLock {
    /// Released by name, not by closing alone: a child process that is just being started holds a copy of the file for a moment.
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.file, rustix::fs::FlockOperation::Unlock);
    }
}

/// The open lock file of a directory. It stays open from one attempt to the next, so that a process that waits can be told from one that does not.
#[derive(Debug)]
pub(crate) struct LockFile {
    file: File,
    dir: PathBuf,
}

/// What became of an attempt to take the lock.
#[derive(Debug)]
pub(crate) enum Taken {
    /// It is ours.
    Mine(DirLock),
    /// Another process has it.
    Theirs(LockFile),
}

impl LockFile {
    /// Takes the lock if it is free.
    pub(crate) fn take(mut self) -> Result<Taken, DataDirError> {
        match rustix::fs::flock(
            &self.file,
            rustix::fs::FlockOperation::NonBlockingLockExclusive,
        ) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(Taken::Theirs(self)),
            Err(error) => return Err(io_error(&self.dir.join("lock"), error.into())),
        }
        // Only a help for people: nothing depends on it, so it is not synced.
        let written = self
            .file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .and_then(|()| writeln!(self.file, "{}", std::process::id()));
        written.map_err(|source| io_error(&self.dir.join("lock"), source))?;
        Ok(Taken::Mine(DirLock { file: self.file }))
    }

    /// That another process has it, and which, where it has said so.
    pub(crate) fn locked(&mut self) -> DataDirError {
        let pid = self
            .file
            .rewind()
            .ok()
            .and_then(|()| read_pid(&mut self.file));
        let path = self.dir.clone();
        DataDirError::Locked { path, pid }
    }
}

impl DataDir {
    /// Checks that `path` is a data directory that this program may use. Reads only.
    ///
    /// # Errors
    /// [`DataDirError`], but for [`DataDirError::Locked`] and [`DataDirError::NoHome`].
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let missing = || DataDirError::Missing {
            path: path.to_owned(),
        };
        let metadata = match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => metadata,
            Ok(_) => return Err(missing()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
            Err(source) => return Err(io_error(path, source)),
        };
        // The format before all else: what a newer program means by owner, keys or layout is not known here.
        check_format(path)?;
        let own = rustix::process::geteuid().as_raw();
        if metadata.uid() != own {
            return Err(DataDirError::Owner {
                path: path.to_owned(),
                owner: metadata.uid(),
                own,
            });
        }
        if metadata.mode() & 0o022 != 0 {
            return Err(DataDirError::Writable {
                path: path.to_owned(),
            });
        }
        let dir = Self {
            path: path.to_owned(),
            keys: Arc::default(),
        };
        let expected = [
            ("countersign.toml", dir.config_file()),
            ("journal", dir.journal_dir()),
            ("key-statement.json", dir.statement_file()),
            ("keys", dir.keys_dir()),
            ("policies", dir.policies_dir()),
        ];
        for (missing, place) in expected {
            if !place.exists() {
                return Err(DataDirError::Incomplete {
                    path: path.to_owned(),
                    missing,
                });
            }
        }
        for path in keys::all_files(&dir.keys_dir())? {
            keys::check_private(&path)?;
        }
        Ok(dir)
    }

    /// Takes the exclusive lock, without waiting.
    ///
    /// # Errors
    /// [`DataDirError::Locked`], [`DataDirError::Io`].
    pub fn lock(&self) -> Result<DirLock, DataDirError> {
        match self.lock_file()?.take()? {
            Taken::Mine(lock) => Ok(lock),
            Taken::Theirs(mut file) => Err(file.locked()),
        }
    }

    /// The file that is locked, not yet locked.
    ///
    /// # Errors
    /// [`DataDirError::Io`].
    pub(crate) fn lock_file(&self) -> Result<LockFile, DataDirError> {
        let path = self.path.join("lock");
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|source| io_error(&path, source))?;
        let dir = self.path.clone();
        Ok(LockFile { file, dir })
    }

    /// Loads the keys and checks them against the key statement.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn load_keys(&self, settings: &KeySettings) -> Result<NodeKeys, KeyFileError> {
        let keys = NodeKeys::load(&self.keys_dir(), &self.statement_file(), settings)?;
        *self.opened() = keys.files.clone();
        Ok(keys)
    }

    /// Which file has a key, of those that were opened and are still there.
    pub(crate) fn file_of(&self, key: &PublicKey) -> Option<PathBuf> {
        let opened = self.opened();
        let has = |(path, held): &&(PathBuf, PublicKey)| held == key && path.exists();
        opened.iter().find(has).map(|(path, _)| path.clone())
    }

    /// Takes note of a key file that was made.
    pub(crate) fn add_key_file(&self, path: PathBuf, key: PublicKey) {
        self.opened().push((path, key));
    }

    fn opened(&self) -> MutexGuard<'_, Vec<(PathBuf, PublicKey)>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Settings.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.path.join("countersign.toml")
    }

    /// Private keys.
    #[must_use]
    pub fn keys_dir(&self) -> PathBuf {
        self.path.join("keys")
    }

    /// The organization's key statement.
    #[must_use]
    pub fn statement_file(&self) -> PathBuf {
        self.path.join("key-statement.json")
    }

    /// Policies.
    #[must_use]
    pub fn policies_dir(&self) -> PathBuf {
        self.path.join("policies")
    }

    /// The logs.
    #[must_use]
    pub fn journal_dir(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// The view over the ledger logs.
    #[must_use]
    pub fn ledger_file(&self) -> PathBuf {
        self.path.join("ledger.sqlite")
    }

    /// What this node has cosigned, and the notes that it keeps.
    #[must_use]
    pub fn checkpoints_file(&self) -> PathBuf {
        self.path.join("checkpoints.sqlite")
    }

    /// What counterparties did wrong, as they signed it.
    #[must_use]
    pub fn evidence_dir(&self) -> PathBuf {
        self.path.join("evidence")
    }

    /// Where commands reach a running node.
    #[must_use]
    pub fn socket_file(&self) -> PathBuf {
        self.path.join("node.sock")
    }
}

fn check_format(path: &Path) -> Result<(), DataDirError> {
    let file_path = path.join("format");
    let file = match File::open(&file_path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(DataDirError::Incomplete {
                path: path.to_owned(),
                missing: "format",
            });
        }
        Err(source) => return Err(io_error(&file_path, source)),
    };
    let mut text = String::new();
    let found = file
        .take(16)
        .read_to_string(&mut text)
        .ok()
        .and_then(|_| text.trim_end().parse::<u32>().ok())
        .filter(|&found| found != 0)
        .ok_or(DataDirError::FormatText { path: file_path })?;
    if found > FORMAT {
        return Err(DataDirError::Format {
            path: path.to_owned(),
            found,
        });
    }
    Ok(())
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim_end().parse().ok()
}

fn io_error(path: &Path, source: io::Error) -> DataDirError {
    DataDirError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_about_the_data_directory_wins() {
        let here = tempfile::tempdir().unwrap();
        let flag = Path::new("/flag");
        let all = Environment::from([
            ("COUNTERSIGN_DATA", "/variable"),
            ("XDG_DATA_HOME", "/xdg"),
            ("HOME", "/home/a"),
        ]);
        let home = Environment::from([("HOME", "/home/a"), ("COUNTERSIGN_DATA", "")]);
        let check = |flag: Option<&Path>, environment: &Environment, expected: &str| {
            let found = choose(flag, environment, here.path()).unwrap();
            assert_eq!(found, Path::new(expected));
        };
        check(Some(flag), &all, "/flag");
        check(None, &all, "/variable");
        check(None, &home, "/home/a/.local/share/countersign");
        let xdg = Environment::from([("XDG_DATA_HOME", "/xdg"), ("HOME", "/home/a")]);
        check(None, &xdg, "/xdg/countersign");
        assert!(matches!(
            choose(None, &Environment::default(), here.path()),
            Err(DataDirError::NoHome)
        ));
        fs::create_dir(here.path().join(".countersign")).unwrap();
        check(None, &home, ".countersign");
        check(None, &all, "/variable");
    }
}
