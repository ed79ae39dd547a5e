//! The profile's file: its JSON, its mode, its lock, its replacement.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ProfileError;
use crate::subscriber::SubscriptionState;

/// The format's number.
pub(super) const VERSION: u32 = 1;

/// Largest file that is read: a subscription takes about 8 KiB, so this is room for 500.
const FILE_BYTES_MAX: u64 = 4 << 20;

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProfileJson {
    pub(super) version: u32,
    pub(super) name: String,
    pub(super) keys: KeysJson,
    pub(super) statement: String,
    pub(super) subscriptions: Vec<SubscriptionJson>,
}

/// Private keys as PKCS#8 PEM, which `openssl pkey` reads.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeysJson {
    pub(super) organization: String,
    pub(super) node: String,
    pub(super) agreement: String,
    pub(super) receipt: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SubscriptionJson {
    pub(super) agreement: String,
    pub(super) producer: String,
    pub(super) addresses: Vec<String>,
    pub(super) state: SubscriptionState,
}

/// The right to use the profile, held through a file beside it: the profile itself is replaced, and a lock on it would stay with the old one.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    pub(super) fn take(path: &Path) -> Result<Self, ProfileError> {
        let beside = beside(path, ".lock");
        let opened = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&beside);
        let file = opened.map_err(|source| failed(&beside, "opened", source))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(ProfileError::InUse {
                path: path.to_owned(),
            }),
            Err(TryLockError::Error(source)) => Err(failed(&beside, "locked", source)),
        }
    }
}

/// Reads a profile that nobody else may read.
pub(super) fn read(path: &Path) -> Result<ProfileJson, ProfileError> {
    let file = File::open(path).map_err(|source| failed(path, "opened", source))?;
    let metadata = file
        .metadata()
        .map_err(|source| failed(path, "read", source))?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(ProfileError::WideMode {
            path: path.to_owned(),
            mode,
        });
    }
    let mut bytes = Vec::new();
    let taken = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    taken.map_err(|source| failed(path, "read", source))?;
    let malformed = |part| ProfileError::Malformed {
        path: path.to_owned(),
        part,
    };
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(malformed("size"));
    }
    let json: ProfileJson = serde_json::from_slice(&bytes).map_err(|_| malformed("form"))?;
    if json.version == VERSION {
        Ok(json)
    } else {
        Err(malformed("version"))
    }
}

/// Replaces the profile: after this call either the old or the new one is whole, also after a power loss, and the new one after `Ok`.
pub(super) fn write(path: &Path, json: &ProfileJson) -> Result<(), ProfileError> {
    let bytes =
        serde_json::to_vec_pretty(json).map_err(|error| failed(path, "written", error.into()))?;
    let beside = beside(path, ".new");
    let write = || -> io::Result<()> {
        // A leftover of a crash may have another mode.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        let directory = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|source| failed(path, "written", source))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn failed(path: &Path, doing: &'static str, source: io::Error) -> ProfileError {
    ProfileError::Io {
        path: path.to_owned(),
        doing,
        source,
    }
}
