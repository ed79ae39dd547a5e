//! The disk as the journal sees it: positioned reads and writes, named syncs, directories.
//!
//! Everything that the store does to a disk goes through [`Disk`] and [`DiskFile`], so that the same journal runs on a real
//! directory ([`RealDisk`]) and on a simulated one that loses power ([`crate::sim::SimDisk`]).

use std::fmt::Debug;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Declares the sites, so that [`SyncSite::ALL`] cannot miss one.
macro_rules! sync_sites {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// A place in the code that asks for durability. A sync without a site does not compile, and the power-loss
        /// harness removes each site in turn and demands that it then finds a loss.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum SyncSite {
            $($(#[$doc])* $name,)+
        }

        impl SyncSite {
            /// Every site there is.
            pub const ALL: &'static [SyncSite] = &[$(SyncSite::$name,)+];

            /// The name as it stands in the code, for reports.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(SyncSite::$name => stringify!($name),)+
                }
            }
        }
    };
}

sync_sites! {
    /// The one fdatasync of a commit. Without it an acknowledged event is only in memory.
    Commit,
    /// A new head file, before it gets its name. Without it the name may survive and the bytes not.
    CreateHeads,
    /// The directory above the journal's. Without it the whole journal may be gone.
    CreateParent,
    /// The journal's directory, once everything in it exists. Without it head file and folders may be gone.
    CreateRoot,
    /// Zeros over erased content. Without it erased content may come back with the power.
    Erase,
    /// The head file at a segment roll, on a clean close, on request. Without it damage may pass for a torn tail.
    Heads,
    /// The last commit that recovery keeps, written again, and the tail that it cuts.
    Recovery,
    /// The journal's directory at each start: the process that created the head file may have been killed before its sync.
    RecoveryRoot,
    /// The segments' directory at each start, likewise for a segment that had just got its name.
    RecoverySegments,
    /// The segments' directory after a new segment got its name. Without it the segment may be gone.
    SegmentDir,
    /// A new segment, before it gets its name. Without it a segment without header may be met.
    SegmentPrepared,
    /// The snapshots' directory after a snapshot got its name.
    SnapshotDir,
    /// A snapshot, before it gets its name.
    SnapshotFile,
}

/// Where a buffer has to begin, and where in the file it has to go in multiples of [`DIRECT_SECTOR`], for [`Disk::open_direct`] to pay. Larger than
/// any device asks for.
pub const DIRECT_ALIGNMENT: usize = 4096;

/// The unit of direct writes. A device with larger sectors is written through the cache.
pub const DIRECT_SECTOR: usize = 512;

/// Blocks of most file systems; a hole of other units only makes less room.
const PUNCH_BLOCK: u64 = 4096;

/// An open file. Reads and writes name their position, so that one handle serves many threads.
pub trait DiskFile: Debug + Send + Sync {
    /// The file's length in bytes.
    ///
    /// # Errors
    /// What the system reports.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// What the system reports.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] where the file ends before; what the system reports.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`; the file grows where it has to. Not durable before a sync.
    ///
    /// # Errors
    /// What the system reports. A part may have been written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the file's bytes durable (fdatasync).
    ///
    /// # Errors
    /// What the system reports. After an error nothing unsynced may be believed to be durable, ever.
    fn sync_data(&self, site: SyncSite) -> io::Result<()>;

    /// Makes the file's bytes and metadata durable (fsync).
    ///
    /// # Errors
    /// As [`DiskFile::sync_data`].
    fn sync_all(&self, site: SyncSite) -> io::Result<()>;

    /// Reserves room for the first `len` bytes, so that a full disk shows now and the bytes lie together. Where the file system cannot do that
    /// nothing happens. The bytes that are there stay as they are; the file may become as long as that.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`]; what the system reports.
    fn reserve(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }

    /// Gives the whole blocks of a range back to the file system, which then reads as zeros. Where the file system cannot do that nothing happens.
    ///
    /// # Errors
    /// What the system reports.
    fn punch_hole(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    /// Cuts or extends (by zeros) the file.
    ///
    /// # Errors
    /// What the system reports.
    fn set_len(&self, len: u64) -> io::Result<()>;
}

/// A lock held on a file; dropping it releases it.
pub trait DiskLock: Debug + Send + Sync {}

/// A tree of directories.
pub trait Disk: Debug + Send + Sync {
    /// Creates a file for reading and writing, readable by its owner only.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`]; what the system reports.
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`]; what the system reports.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file for reading and writing. What is written from a buffer aligned to [`DIRECT_ALIGNMENT`], or read into one, in whole sectors, goes
    /// between it and the device without a copy in the system's cache, where the file system can do that. All reads see all writes.
    ///
    /// # Errors
    /// As [`Disk::open`].
    fn open_direct(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.open(path)
    }

    /// Renames a file within one directory, replacing what has the new name.
    ///
    /// # Errors
    /// What the system reports.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the system reports.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes creations, renames and removals in a directory durable.
    ///
    /// # Errors
    /// As [`DiskFile::sync_data`].
    fn sync_dir(&self, path: &Path, site: SyncSite) -> io::Result<()>;

    /// The names in a directory, sorted.
    ///
    /// # Errors
    /// What the system reports.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Creates a directory for its owner only. One that exists is left as it is.
    ///
    /// # Errors
    /// What the system reports.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Takes the exclusive lock on a file, creating the file where there is none, without waiting.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where somebody holds it; what the system reports.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>>;
}

/// Reads `len` bytes at `offset` into a fresh buffer. The caller has checked `len` against the file's length.
pub(crate) fn read_vec(file: &dyn DiskFile, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; len];
    file.read_exact_at(&mut buffer, offset)?;
    Ok(buffer)
}

/// The operating system's files: mode 0600, directories 0700, `flock` for the lock.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

#[derive(Debug)]
struct RealFile(File);

/// A file with a second handle, past the cache, once that is wanted. The system keeps both views the same: a direct write drops what the cache has of
/// these bytes.
#[derive(Debug)]
struct DirectFile {
    cached: RealFile,
    direct: OnceLock<Option<File>>,
}

impl DirectFile {
    /// The handle past the cache, for bytes that it can take.
    fn direct(&self, bytes: &[u8], offset: u64) -> Option<&File> {
        let aligned = bytes.len().is_multiple_of(DIRECT_SECTOR)
            && offset.is_multiple_of(DIRECT_SECTOR as u64)
            && bytes.as_ptr().align_offset(DIRECT_ALIGNMENT) == 0;
        let open = || self.direct.get_or_init(|| Self::handle(&self.cached.0));
        aligned.then(open)?.as_ref()
    }

    /// A handle past the cache; `None` where the file system has none, or one that wants more than our sectors and buffers give. Opened through the
    /// handle that is there, not by name: whatever has the name by now, both are one file.
    fn handle(cached: &File) -> Option<File> {
        let path = format!("/proc/self/fd/{}", cached.as_raw_fd());
        let flags = rustix::fs::OFlags::DIRECT.bits();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(i32::try_from(flags).ok()?)
            .open(path)
            .ok()?;
        let (nothing, wanted) = (
            rustix::fs::AtFlags::EMPTY_PATH,
            rustix::fs::StatxFlags::DIOALIGN,
        );
        let found = rustix::fs::statx(&file, c"", nothing, wanted).ok()?;
        let known = rustix::fs::StatxFlags::from_bits_retain(found.stx_mask).contains(wanted);
        let fits =
            |alignment: u32, ours: usize| alignment > 0 && ours.is_multiple_of(alignment as usize);
        (known
            && fits(found.stx_dio_mem_align, DIRECT_ALIGNMENT)
            && fits(found.stx_dio_offset_align, DIRECT_SECTOR))
        .then_some(file)
    }
}

/// How much of a direct write was done: none, where a signal came first, or where the file system offers what it then refuses.
fn done(result: io::Result<usize>) -> io::Result<usize> {
    use io::ErrorKind::{Interrupted, InvalidInput};
    match result {
        Err(error) if matches!(error.kind(), Interrupted | InvalidInput) => Ok(0),
        result => result,
    }
}

#[derive(Debug)]
struct RealLock(File);

impl DiskLock for RealLock {}

impl Drop for RealLock {
    /// Released by name, not by closing alone: a child process that is just being started holds a copy of the file for a moment.
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.0, rustix::fs::FlockOperation::Unlock);
    }
}

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self, _site: SyncSite) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self, _site: SyncSite) -> io::Result<()> {
        self.0.sync_all()
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        use rustix::io::Errno;
        match rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::empty(), 0, len) {
            Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::IO)) => Err(error.into()),
            // It was interrupted, or the file system cannot do it: whoever writes the bytes makes the room then.
            _ => Ok(()),
        }
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        use rustix::fs::FallocateFlags;
        // Whole blocks only: what is left of the others is zeros already, and so stays as it is.
        let start = offset.next_multiple_of(PUNCH_BLOCK);
        let end = (offset + len) / PUNCH_BLOCK * PUNCH_BLOCK;
        if start < end {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&self.0, flags, start, end - start)?;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}

impl DiskFile for DirectFile {
    fn len(&self) -> io::Result<u64> {
        self.cached.len()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        // What fails here is tried again through the cache, which reads less at a time and says what is wrong.
        let direct = self.direct(buffer, offset);
        let read = direct.map_or(0, |direct| direct.read_at(buffer, offset).unwrap_or(0));
        let rest = buffer.get_mut(read..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(());
        }
        self.cached.read_exact_at(rest, offset + read as u64)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let written = match self.direct(bytes, offset) {
            Some(direct) => done(direct.write_at(bytes, offset))?,
            None => 0,
        };
        // What a short write left has no alignment to count on.
        let rest = bytes.get(written..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(());
        }
        self.cached.write_all_at(rest, offset + written as u64)
    }

    fn sync_data(&self, site: SyncSite) -> io::Result<()> {
        self.cached.sync_data(site)
    }

    fn sync_all(&self, site: SyncSite) -> io::Result<()> {
        self.cached.sync_all(site)
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        self.cached.reserve(len)
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        self.cached.punch_hole(offset, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.cached.set_len(len)
    }
}

impl Disk for RealDisk {
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open_direct(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Arc::new(DirectFile {
            cached: RealFile(file),
            direct: OnceLock::new(),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path, _site: SyncSite) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            other => other,
        }
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(RealLock(file)))
    }
}
