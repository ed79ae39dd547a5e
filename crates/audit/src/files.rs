//! Reading a bundle's files: a directory, or a tar file read in place. Nothing is followed, nothing is unpacked.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// All files of a bundle: a log of 300 million entries has 3.5 million. Enforced when the bundle is opened, at about 100 bytes
/// of memory each.
const FILES_MAX: usize = 4_194_304;
/// Folders within folders: `ledgers/0/log/tile/0/` and the longest index have 14.
const DEPTH_MAX: usize = 20;
/// The longest path: a policy file's, 9 + 64 + 1 + 100.
const PATH_BYTES_MAX: usize = 200;
/// Zeros after the end mark: a tar record has 10,240 bytes, some tools fill up more.
const END_BYTES_MAX: u64 = 1 << 20;

/// Each path, and where it lies in a tar file: offset and size. A file of its own tells its size when it is opened, by whichever
/// thread needs it.
type Index = BTreeMap<Box<str>, Option<(u64, u64)>>;

/// Why a bundle cannot be read at all, or holds what no bundle may hold.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenFault {
    #[error("`{}` cannot be read: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("`{path}` {what}")]
    Foreign { path: String, what: &'static str },
    #[error("the tar file is damaged or of a kind that is not read: {what} (at byte {offset})")]
    Tar { offset: u64, what: &'static str },
    #[error("the bundle has more than {FILES_MAX} files")]
    TooMany,
}

/// Why a file of the bundle cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadFault {
    #[error("it is missing")]
    Missing,
    #[error("it has {bytes} bytes, more than the {max} that such a file can have")]
    TooLarge { bytes: u64, max: u64 },
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// A bundle whose files are known by path and size.
#[derive(Debug)]
pub(crate) struct BundleFiles {
    place: Place,
    index: Index,
}

#[derive(Debug)]
enum Place {
    Directory(PathBuf),
    Tar(File),
}

impl BundleFiles {
    pub(crate) fn open(path: &Path) -> Result<Self, OpenFault> {
        let io = |source| OpenFault::Io {
            path: path.to_owned(),
            source,
        };
        // The bundle itself may be named by a link; what is in it may not.
        let metadata = fs::metadata(path).map_err(io)?;
        let mut index = Index::new();
        if metadata.is_dir() {
            walk(path, "", 0, &mut index)?;
            let place = Place::Directory(path.to_owned());
            return Ok(Self { place, index });
        }
        if !metadata.is_file() {
            let path = path.display().to_string();
            return Err(foreign(
                path.as_bytes(),
                "is neither a directory nor a file",
            ));
        }
        let file = File::open(path).map_err(io)?;
        let tar = TarReader {
            file: &file,
            path,
            len: metadata.len(),
        };
        tar.index(&mut index)?;
        let place = Place::Tar(file);
        Ok(Self { place, index })
    }

    /// Whether there is such a file.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.index.contains_key(path)
    }

    /// Every path, ascending.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.index.keys().map(AsRef::as_ref)
    }

    /// Opens a file.
    pub(crate) fn file(&self, path: &str) -> Result<BundleFile<'_>, ReadFault> {
        let member = *self.index.get(path).ok_or(ReadFault::Missing)?;
        let (handle, (offset, bytes)) = match &self.place {
            Place::Tar(file) => (Handle::Shared(file), member.unwrap_or_default()),
            Place::Directory(root) => {
                let file = File::open(root.join(path))?;
                let bytes = file.metadata()?.len();
                (Handle::Own(file), (0, bytes))
            }
        };
        Ok(BundleFile {
            handle,
            offset,
            bytes,
        })
    }

    /// The whole of a file of at most `max` bytes.
    pub(crate) fn read(&self, path: &str, max: u64) -> Result<Vec<u8>, ReadFault> {
        let mut out = Vec::new();
        self.read_into(path, max, &mut out)?;
        Ok(out)
    }

    /// The whole of a file of at most `max` bytes, in memory that may have been used before.
    pub(crate) fn read_into<'b>(
        &self,
        path: &str,
        max: u64,
        memory: &'b mut Vec<u8>,
    ) -> Result<&'b [u8], ReadFault> {
        let file = self.file(path)?;
        let bytes = file.bytes;
        match usize::try_from(bytes) {
            Ok(length) if bytes <= max => Ok(file.read_into(0, length, memory)?),
            _ => Err(ReadFault::TooLarge { bytes, max }),
        }
    }
}

/// An open file of a bundle.
#[derive(Debug)]
pub(crate) struct BundleFile<'a> {
    handle: Handle<'a>,
    offset: u64,
    bytes: u64,
}

#[derive(Debug)]
enum Handle<'a> {
    Shared(&'a File),
    Own(File),
}

impl BundleFile<'_> {
    /// Its size when it was opened, or in the tar file; a file that shrank since ends in an error, what was added is not read.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Fills `out` from `offset`, within the file.
    pub(crate) fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > self.bytes) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let file = match &self.handle {
            Handle::Shared(file) => file,
            Handle::Own(file) => file,
        };
        file.read_exact_at(out, self.offset + offset)
    }

    /// `length` bytes from `offset`, in memory that may have been used before: it only grows, so that what is there already is
    /// not filled with zeros first.
    pub(crate) fn read_into<'b>(
        &self,
        offset: u64,
        length: usize,
        memory: &'b mut Vec<u8>,
    ) -> io::Result<&'b [u8]> {
        if memory.len() < length {
            memory.resize(length, 0);
        }
        let out = &mut memory[..length];
        self.read_exact_at(offset, out)?;
        Ok(out)
    }
}

fn walk(root: &Path, prefix: &str, depth: usize, index: &mut Index) -> Result<(), OpenFault> {
    let directory = root.join(prefix);
    let io = |source| OpenFault::Io {
        path: directory.clone(),
        source,
    };
    for entry in fs::read_dir(&directory).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name();
        let path = format!("{prefix}{}", name.to_string_lossy());
        let foreign = |what| Err(foreign(path.as_bytes(), what));
        if name.to_str().is_none() || !is_path(&path) {
            return foreign("has a name that no file of a bundle has");
        }
        // Of the entry itself: a link is not followed.
        let kind = entry.file_type().map_err(io)?;
        if kind.is_file() {
            insert(index, &path, None)?;
        } else if !kind.is_dir() {
            return foreign("is a link or a special file, which a bundle does not hold");
        } else if depth >= DEPTH_MAX {
            return foreign("lies deeper than any file of a bundle");
        } else {
            walk(root, &format!("{path}/"), depth + 1, index)?;
        }
    }
    Ok(())
}

/// Reads the headers of a tar file. Not through the crate's iterator: that would take extensions, which can be of any size and
/// can rename what follows.
struct TarReader<'a> {
    file: &'a File,
    path: &'a Path,
    len: u64,
}

impl TarReader<'_> {
    fn index(&self, index: &mut Index) -> Result<(), OpenFault> {
        let mut offset = 0u64;
        let mut header = tar::Header::new_ustar();
        loop {
            let fault = |what| OpenFault::Tar { offset, what };
            if self.len.saturating_sub(offset) < 512 {
                return Err(fault("it ends without an end mark"));
            }
            self.read(offset, header.as_mut_bytes())?;
            if is_zero(header.as_bytes()) {
                return self.check_end(offset);
            }
            check_header(&header).map_err(fault)?;
            let bytes = header
                .entry_size()
                .map_err(|_| fault("a size that is no number"))?;
            let start = offset + 512;
            let end = start
                .checked_add(bytes)
                .and_then(|end| end.checked_next_multiple_of(512));
            let end = end
                .filter(|end| *end <= self.len)
                .ok_or(fault("a member is larger than the file"))?;
            take_member(&header, start, bytes, index)?;
            self.check_zero(start + bytes, end, "bytes between two members")?;
            offset = end;
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), OpenFault> {
        self.file
            .read_exact_at(out, offset)
            .map_err(|source| OpenFault::Io {
                path: self.path.to_owned(),
                source,
            })
    }

    /// The end mark: zeros to the end of the file.
    fn check_end(&self, offset: u64) -> Result<(), OpenFault> {
        match self.len - offset {
            ..1024 => Err(OpenFault::Tar {
                offset,
                what: "the end mark is cut off",
            }),
            1024..=END_BYTES_MAX => self.check_zero(offset, self.len, "bytes after the end mark"),
            _ => Err(OpenFault::Tar {
                offset,
                what: "too much after the end mark",
            }),
        }
    }

    /// No bytes are smuggled along where nobody looks. At most [`END_BYTES_MAX`] are read.
    fn check_zero(&self, from: u64, to: u64, what: &'static str) -> Result<(), OpenFault> {
        let mut bytes = vec![0; usize::try_from(to - from).unwrap_or(0)];
        self.read(from, &mut bytes)?;
        if is_zero(&bytes) {
            Ok(())
        } else {
            Err(OpenFault::Tar { offset: from, what })
        }
    }
}

fn take_member(
    header: &tar::Header,
    start: u64,
    bytes: u64,
    index: &mut Index,
) -> Result<(), OpenFault> {
    let name = header.path_bytes();
    let name = name.strip_prefix(b"./").unwrap_or(&name);
    if header.entry_type().is_dir() {
        let name = name.strip_suffix(b"/").unwrap_or(name);
        let good = name.is_empty() || name == b"." || std::str::from_utf8(name).is_ok_and(is_path);
        if bytes != 0 || !good {
            return Err(foreign(
                name,
                "is a directory with a name or size that no bundle has",
            ));
        }
        return Ok(());
    }
    match std::str::from_utf8(name) {
        Ok(name) if is_path(name) => insert(index, name, Some((start, bytes))),
        _ => Err(foreign(name, "has a name that no file of a bundle has")),
    }
}

fn check_header(header: &tar::Header) -> Result<(), &'static str> {
    let stated = header.cksum().map_err(|_| "a header without a checksum")?;
    let bytes = header.as_bytes();
    // The checksum counts its own field as eight spaces.
    let sum: u32 = bytes[..148]
        .iter()
        .chain(&bytes[156..])
        .map(|byte| u32::from(*byte))
        .sum();
    if stated != sum + 8 * u32::from(b' ') {
        return Err("a header that does not have its checksum");
    }
    let kind = header.entry_type();
    if kind.is_file() || kind.is_dir() {
        Ok(())
    } else {
        Err("a link, special file or extended header; pack the bundle with `tar --format=ustar`")
    }
}

fn insert(index: &mut Index, path: &str, place: Option<(u64, u64)>) -> Result<(), OpenFault> {
    if index.len() >= FILES_MAX {
        return Err(OpenFault::TooMany);
    }
    match index.insert(path.into(), place) {
        None => Ok(()),
        Some(_) => Err(foreign(path.as_bytes(), "is there twice")),
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Relative, plain ASCII, no empty, `.` or `..` component.
fn is_path(path: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/');
    (1..=PATH_BYTES_MAX).contains(&path.len())
        && path.bytes().all(plain)
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn foreign(path: &[u8], what: &'static str) -> OpenFault {
    let path = String::from_utf8_lossy(path);
    let shown = path
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c });
    OpenFault::Foreign {
        path: shown.take(200).collect(),
        what,
    }
}
