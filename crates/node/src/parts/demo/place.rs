use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use countersign_crypto::{Entropy as _, OsEntropy};

use crate::errors::{CommandError, ErrorCode};

/// The folder that everything happens in: one that the person named and keeps, or a temporary one that goes with this value.
pub(super) struct Place {
    path: PathBuf,
    is_kept: bool,
}

impl Place {
    /// Makes it; a folder to be kept may be there already, if it is empty.
    ///
    /// # Errors
    /// [`ErrorCode::DataDirExists`], [`ErrorCode::Io`].
    pub(super) fn make(keep: Option<&Path>) -> Result<Self, CommandError> {
        let io = |path: &Path, error: std::io::Error| {
            CommandError::new(
                ErrorCode::Io,
                format_args!("cannot make `{}`: {error}", path.display()),
            )
        };
        if let Some(wanted) = keep {
            let path = std::path::absolute(wanted).map_err(|error| io(wanted, error))?;
            let is_taken =
                fs::read_dir(&path).map_or(path.exists(), |mut entries| entries.next().is_some());
            if is_taken {
                let message = format!(
                    "`{}` is not empty; the demo makes four folders of its own",
                    path.display()
                );
                return Err(CommandError::new(ErrorCode::DataDirExists, message)
                    .advise("name a folder that does not exist yet"));
            }
            let made = DirBuilder::new().mode(0o700).recursive(true).create(&path);
            made.map_err(|error| io(&path, error))?;
            return Ok(Self {
                path,
                is_kept: true,
            });
        }
        let mut random = [0; 8];
        OsEntropy::new()
            .map_err(|error| CommandError::new(ErrorCode::Io, error))?
            .fill(&mut random);
        let path = std::env::temp_dir().join(format!("countersign-demo-{}", hex::encode(random)));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| io(&path, error))?;
        Ok(Self {
            path,
            is_kept: false,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_kept(&self) -> bool {
        self.is_kept
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_kept {
            // Best effort: after Ctrl-C a writer may still be at work, and the system empties its temporary folder sooner or later.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_place_goes_and_a_kept_one_stays() {
        let temporary = Place::make(None).unwrap();
        let path = temporary.path().to_owned();
        fs::write(path.join("a"), "a").unwrap();
        drop(temporary);
        assert!(!path.exists());

        let dir = tempfile::tempdir().unwrap();
        let wanted = dir.path().join("x/y");
        drop(Place::make(Some(&wanted)).unwrap());
        assert!(wanted.is_dir());
        fs::write(wanted.join("a"), "a").unwrap();
        let error = Place::make(Some(&wanted)).map(|_| ()).unwrap_err();
        assert_eq!(error.code, ErrorCode::DataDirExists);
        assert!(wanted.join("a").exists());
    }
}
