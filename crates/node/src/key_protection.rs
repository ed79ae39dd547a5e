//! Key files go under a passphrase, and come out again: one after the other, each in one rename, so that a crash leaves some in the one form and some in the other. Both
//! are read, and the command given again goes on.
//!
//! What a file held before is overwritten once it has lost its name. File systems that never write in place (btrfs, ZFS, snapshots of a volume), disks that level
//! their wear, and backups keep it all the same; a crash between rename and overwriting leaves it in free blocks.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use countersign_crypto::{OsEntropy, Passphrase, SigningKey};
use countersign_store::disk::{Disk as _, RealDisk, SyncSite};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::data_dir::DataDir;
use crate::errors::{CommandError, ErrorCode};
use crate::keys::{self, KeyFile, KeyFileError};
use crate::open::replace_whole;
use crate::passphrase::KeySettings;

/// What became of the key files.
#[derive(Clone, Debug, Serialize)]
pub struct Protected {
    /// `passphrase` or `plain`.
    pub keys: &'static str,
    /// Files that were changed.
    pub changed: Vec<String>,
    /// How many were so already.
    pub unchanged: usize,
}

/// Puts every key file of a directory under the passphrase that its settings name. The caller holds the lock.
///
/// # Errors
/// [`CommandError`]: no passphrase, one that does not open what is under one already, or a disk that refuses.
pub fn protect(dir: &DataDir, settings: &KeySettings) -> Result<Protected, CommandError> {
    let passphrase = settings.passphrase().map_err(KeyFileError::from)?;
    clear_leftovers(&dir.keys_dir())?;
    let mut entropy = OsEntropy::new().map_err(internal)?;
    let write = |key: &SigningKey| {
        let pem = key.to_protected_pem(&passphrase, &mut entropy);
        let pem = pem.map_err(internal)?;
        // What does not open is not put into the place of what does.
        let opened = SigningKey::from_protected_pem(&pem, &passphrase).map_err(internal)?;
        match opened.public() == key.public() {
            true => Ok(pem),
            false => Err(internal("a key does not come out as it went in")),
        }
    };
    rewrite(dir, &passphrase, true, write)
}

/// Takes every key file of a directory out from under the passphrase. The caller holds the lock.
///
/// # Errors
/// As [`protect`].
pub fn unprotect(dir: &DataDir, settings: &KeySettings) -> Result<Protected, CommandError> {
    let passphrase = settings.passphrase().map_err(KeyFileError::from)?;
    clear_leftovers(&dir.keys_dir())?;
    let write = |key: &SigningKey| key.to_pem().map_err(internal);
    rewrite(dir, &passphrase, false, write)
}

fn rewrite(
    dir: &DataDir,
    passphrase: &Passphrase,
    protected: bool,
    mut write: impl FnMut(&SigningKey) -> Result<Zeroizing<String>, CommandError>,
) -> Result<Protected, CommandError> {
    // All are opened before the first is changed: a passphrase that fits some of them only changes none.
    let files = keys::open_all(&dir.keys_dir(), || Ok(passphrase.clone()))?;
    let (mut changed, mut unchanged) = (Vec::new(), 0);
    for KeyFile {
        path,
        key,
        protected: is,
        ..
    } in &files
    {
        if *is == protected {
            unchanged += 1;
            continue;
        }
        let pem = write(key)?;
        replace(path, pem.as_bytes()).map_err(|source| {
            let path = path.clone();
            KeyFileError::Io { path, source }
        })?;
        changed.push(name_of(path));
    }
    Ok(Protected {
        keys: if protected { "passphrase" } else { "plain" },
        changed,
        unchanged,
    })
}

/// Other bytes in a file's place, and zeros over what it held.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let before = RealDisk.open(path)?;
    replace_whole(path, bytes)?;
    // The new file is durable. A crash here leaves the old bytes in blocks that have no name any more.
    let zeros = vec![0; usize::try_from(before.len()?).unwrap_or_default()];
    before.write_all_at(&zeros, 0)?;
    before.sync_all(SyncSite::CreateRoot)
}

/// A crash leaves the file that was to take another's place, perhaps with a key that is under no passphrase.
fn clear_leftovers(keys_dir: &Path) -> Result<(), CommandError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CommandError::from(KeyFileError::Io { path, source })
    };
    for entry in fs::read_dir(keys_dir).map_err(failed(keys_dir))? {
        let path = entry.map_err(failed(keys_dir))?.path();
        if name_of(&path).ends_with(".pem.new") {
            let clear = || {
                let file = RealDisk.open(&path)?;
                let zeros = vec![0; usize::try_from(file.len()?).unwrap_or_default()];
                file.write_all_at(&zeros, 0)?;
                file.sync_all(SyncSite::CreateRoot)?;
                fs::remove_file(&path)
            };
            clear().map_err(failed(&path))?;
        }
    }
    Ok(())
}

/// What `doctor` says of the key files: what covers their theft, or that nothing does. They are not opened.
///
/// # Errors
/// [`KeyFileError`] where they cannot be read.
pub fn judge(dir: &DataDir, settings: &KeySettings) -> Result<(bool, String), KeyFileError> {
    let mut plain = Vec::new();
    for path in keys::all_files(&dir.keys_dir())? {
        if !keys::is_protected(&path)? {
            plain.push(name_of(&path));
        }
    }
    if !plain.is_empty() {
        let files = plain.join(", ");
        let detail = format!(
            "{files}: under no passphrase; whoever steals this disk or a copy of it has these keys, and with `encryption.pem` the data of encrypted streams. Set `keys.passphrase_file` or `keys.passphrase_command`, and run `countersign key protect`"
        );
        return Ok((false, detail));
    }
    let beside = settings.passphrase_file.as_ref().is_some_and(|file| {
        let whole = |path: &PathBuf| fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        whole(file).starts_with(whole(&dir.path().to_owned()))
    });
    if beside {
        let detail = "the passphrase of the keys lies in the data directory: whoever takes the disk has both";
        return Ok((false, detail.to_owned()));
    }
    let Some(file) = &settings.passphrase_file else {
        let command = !settings.passphrase_command.is_empty();
        let detail = match command {
            true => {
                "all are under a passphrase; where `keys.passphrase_command` has it from is not judged here: on the disk of the keys it covers nothing"
            }
            false => "all are under a passphrase",
        };
        return Ok((true, detail.to_owned()));
    };
    // What cannot be looked at is not said to be elsewhere.
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    let keys_on = device(&dir.keys_dir());
    match device(file) {
        Some(found) if Some(found) != keys_on => Ok((
            true,
            "all are under a passphrase, which lies on another file system".to_owned(),
        )),
        Some(_) => Ok((
            false,
            "the passphrase of the keys lies on the file system of the keys: whoever takes the disk, or a copy of it, has both. Put it elsewhere: a file system in memory, a credential of the service manager, a key store behind `keys.passphrase_command`".to_owned(),
        )),
        None => Ok((
            false,
            "all are under a passphrase, and the file of `keys.passphrase_file` cannot be looked at: whether it lies on the disk of the keys is not known".to_owned(),
        )),
    }
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn internal(error: impl std::fmt::Display) -> CommandError {
    CommandError::new(ErrorCode::Internal, error)
}
