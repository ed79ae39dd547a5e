//! Where a bundle is written: beside its path first, and renamed when it is complete.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use countersign_audit::{BundleSink, WriteError};
use countersign_crypto::Entropy;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::{ExportError, io_error};

/// The path asked for and the temporary one beside it.
pub(super) struct Place {
    out: PathBuf,
    temporary: PathBuf,
    tar: bool,
}

impl Place {
    /// Refuses where there is something already, a dangling link too.
    pub(super) fn new(out: &Path, entropy: &mut dyn Entropy) -> Result<Self, ExportError> {
        let path = std::path::absolute(out).map_err(|source| io_error(out, source))?;
        let exists = || ExportError::Exists {
            path: out.to_owned(),
        };
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(exists());
        };
        match fs::symlink_metadata(&path) {
            Ok(_) => return Err(exists()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(io_error(out, source)),
        }
        let mut random = [0; 8];
        entropy.fill(&mut random);
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".export-{}", hex::encode(random)));
        Ok(Self {
            temporary: parent.join(hidden),
            tar: path.extension().is_some_and(|extension| extension == "tar"),
            out: path,
        })
    }

    pub(super) fn out(&self) -> &Path {
        &self.out
    }

    /// Begins to write.
    pub(super) fn sink(&self) -> Result<BundleSink, ExportError> {
        let sink = if self.tar {
            BundleSink::tar(&self.temporary)
        } else {
            BundleSink::directory(&self.temporary)
        };
        sink.map_err(|error| ExportError::Write(WriteError::Sink(error)))
    }

    /// The moment in which the bundle comes to be. A crash before it leaves a hidden sibling that may be deleted.
    pub(super) fn take(&self) -> Result<(), ExportError> {
        let io = |source| io_error(&self.out, source);
        let exists = || ExportError::Exists {
            path: self.out.clone(),
        };
        // What the name stands for has to be durable before the name: half a bundle would look like a forged one after a power loss. The
        // writer has synced a tar file; thousands of small files are synced at once.
        if !self.tar {
            let directory = File::open(&self.temporary).map_err(io)?;
            rustix::fs::syncfs(&directory).map_err(|errno| io(errno.into()))?;
        }
        match renameat_with(CWD, &self.temporary, CWD, &self.out, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(exists()),
            // A file system that cannot do it at once: look, then rename.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                if fs::symlink_metadata(&self.out).is_ok() {
                    return Err(exists());
                }
                fs::rename(&self.temporary, &self.out).map_err(io)?;
            }
            Err(errno) => return Err(io(errno.into())),
        }
        let parent = self.out.parent().unwrap_or(Path::new("/"));
        File::open(parent)
            .and_then(|parent| parent.sync_all())
            .map_err(io)
    }

    /// Takes away what an export that failed has written.
    pub(super) fn discard(&self) {
        // Best effort: the name is ours alone, and what remains of it is no bundle.
        let _ = if self.tar {
            fs::remove_file(&self.temporary)
        } else {
            fs::remove_dir_all(&self.temporary)
        };
    }
}
