//! Where a bundle is written: a new directory, or one ustar file.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use countersign_crypto::{Hash, Sha256Stream};

/// Why a bundle could not be written.
#[derive(Debug, thiserror::Error)]
#[error("`{}` cannot be written: {source}", path.display())]
pub struct SinkError {
    /// The file concerned.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Where a bundle goes.
#[derive(Debug)]
pub struct BundleSink(Kind);

#[derive(Debug)]
enum Kind {
    Directory(PathBuf),
    Tar { path: PathBuf, out: BufWriter<File> },
}

impl BundleSink {
    /// A directory that does not exist yet.
    ///
    /// # Errors
    /// [`SinkError`], also where it exists: evidence is never overwritten.
    pub fn directory(path: &Path) -> Result<Self, SinkError> {
        fs::create_dir(path).map_err(|source| fault(path, source))?;
        Ok(Self(Kind::Directory(path.to_owned())))
    }

    /// One tar file that does not exist yet.
    ///
    /// # Errors
    /// [`SinkError`], also where it exists.
    pub fn tar(path: &Path) -> Result<Self, SinkError> {
        let file = File::create_new(path).map_err(|source| fault(path, source))?;
        Ok(Self(Kind::Tar {
            path: path.to_owned(),
            out: BufWriter::with_capacity(1 << 20, file),
        }))
    }

    /// By the name: a tar file where the path ends in `.tar`, else a directory.
    ///
    /// # Errors
    /// As [`BundleSink::directory`] and [`BundleSink::tar`].
    pub fn at(path: &Path) -> Result<Self, SinkError> {
        match path.extension() {
            Some(extension) if extension == "tar" => Self::tar(path),
            _ => Self::directory(path),
        }
    }

    /// Begins the file `path`; its size becomes known as it is written.
    pub(crate) fn begin(&mut self, path: &str) -> Result<FileWriter<'_>, SinkError> {
        let (out, path) = match &mut self.0 {
            Kind::Directory(root) => {
                let path = root.join(path);
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent).map_err(|source| fault(parent, source))?;
                }
                let file = File::create_new(&path).map_err(|source| fault(&path, source))?;
                (Out::File(BufWriter::with_capacity(1 << 16, file)), path)
            }
            Kind::Tar { path: archive, out } => {
                let start = out
                    .stream_position()
                    .map_err(|source| fault(archive, source))?;
                // The header is written again once the size is known.
                out.write_all(&[0; 512])
                    .map_err(|source| fault(archive, source))?;
                let name = path.to_owned();
                (Out::Tar { out, start, name }, archive.clone())
            }
        };
        Ok(FileWriter {
            out,
            path,
            bytes: 0,
            hasher: None,
        })
    }

    /// Ends the bundle.
    pub(crate) fn finish(self) -> Result<(), SinkError> {
        match self.0 {
            // Thousands of small files: waiting for the disk at each would take longer than making them again.
            Kind::Directory(_) => Ok(()),
            Kind::Tar { path, mut out } => {
                let end = |out: &mut BufWriter<File>| {
                    out.write_all(&[0; 1024])?;
                    out.flush()?;
                    out.get_ref().sync_all()
                };
                end(&mut out).map_err(|source| fault(&path, source))
            }
        }
    }
}

/// One file being written.
pub(crate) struct FileWriter<'a> {
    out: Out<'a>,
    path: PathBuf,
    bytes: u64,
    hasher: Option<Sha256Stream>,
}

enum Out<'a> {
    File(BufWriter<File>),
    Tar {
        out: &'a mut BufWriter<File>,
        start: u64,
        name: String,
    },
}

/// What has been written: bytes, and their SHA-256 where it was asked for.
pub(crate) struct Written {
    pub(crate) bytes: u64,
    pub(crate) sha256: Option<Hash>,
}

impl FileWriter<'_> {
    /// Hashes what is written from now on.
    pub(crate) fn hashed(mut self) -> Self {
        self.hasher = Some(Sha256Stream::new());
        self
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        let result = match &mut self.out {
            Out::File(out) => out.write_all(bytes),
            Out::Tar { out, .. } => out.write_all(bytes),
        };
        result.map_err(|source| fault(&self.path, source))
    }

    pub(crate) fn finish(self) -> Result<Written, SinkError> {
        let bytes = self.bytes;
        let result = match self.out {
            Out::File(mut out) => out.flush(),
            Out::Tar { out, start, name } => finish_member(out, start, &name, bytes),
        };
        result.map_err(|source| fault(&self.path, source))?;
        Ok(Written {
            bytes,
            sha256: self.hasher.map(Sha256Stream::finish),
        })
    }
}

fn finish_member(out: &mut BufWriter<File>, start: u64, name: &str, bytes: u64) -> io::Result<()> {
    let padding = usize::try_from(bytes.next_multiple_of(512) - bytes).unwrap_or(0);
    out.write_all(&[0; 512][..padding])?;
    let end = out.stream_position()?;
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_size(bytes);
    header.set_mode(0o644);
    header.set_entry_type(tar::EntryType::Regular);
    // No owner, no time: equal evidence makes equal archives.
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    out.seek(SeekFrom::Start(start))?;
    out.write_all(header.as_bytes())?;
    out.seek(SeekFrom::Start(end))?;
    Ok(())
}

fn fault(path: &Path, source: io::Error) -> SinkError {
    SinkError {
        path: path.to_owned(),
        source,
    }
}
