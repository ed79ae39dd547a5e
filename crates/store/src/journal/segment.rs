use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_crypto::Entropy;

use super::format::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::buffer::Buffers;
use crate::disk::{Disk, DiskFile, SyncSite, read_vec};

/// Zeros are written in pieces of this size: a commit that comes meanwhile waits for one of them at most.
const PIECE_BYTES: usize = 1 << 20;

/// A segment file and where it can be written.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) capacity: u64,
}

pub(crate) fn segment_path(segments: &Path, number: u32) -> PathBuf {
    segments.join(format!("{number:08}.seg"))
}

impl Segment {
    /// Opens a segment; `None` where its header is not the one of this number and journal.
    pub(crate) fn open(
        disk: &dyn Disk,
        segments: &Path,
        number: u32,
        journal: [u8; 16],
    ) -> io::Result<Option<Self>> {
        let file = disk.open_direct(&segment_path(segments, number))?;
        let capacity = file.len()?;
        if !(SEGMENT_HEADER_BYTES..=super::format::SEGMENT_BYTES_MAX).contains(&capacity) {
            return Ok(None);
        }
        let bytes = read_vec(&*file, 0, SEGMENT_HEADER_BYTES as usize)?;
        let header = SegmentHeader::decode(&bytes);
        Ok(header
            .filter(|header| header.number == number && header.journal == journal)
            .map(|header| Self {
                header,
                file,
                capacity,
            }))
    }

    /// Writes a segment of zeros and gives it its name once it is durable.
    ///
    /// A crash before the rename leaves a file of a name that nobody reads, and the next attempt removes it. So a segment
    /// under its own name always has a good header, and a bad one is damage.
    pub(crate) fn prepare(
        disk: &dyn Disk,
        segments: &Path,
        header: SegmentHeader,
        capacity: u64,
    ) -> io::Result<Self> {
        let path = segment_path(segments, header.number);
        let temporary = path.with_extension("seg.new");
        remove_if_there(disk, &temporary)?;
        drop(disk.create_new(&temporary)?);
        let file = disk.open_direct(&temporary)?;
        let filled = fill(&*file, &header, capacity);
        if filled.is_err() {
            // On a full disk the half-written file would only keep room from whoever needs it.
            let _ = file.set_len(0);
            let _ = disk.remove(&temporary);
        }
        filled?;
        file.sync_all(SyncSite::SegmentPrepared)?;
        disk.rename(&temporary, &path)?;
        // Without this the segment may be gone after a power loss, with everything acknowledged in it.
        disk.sync_dir(segments, SyncSite::SegmentDir)?;
        Ok(Self {
            header,
            file,
            capacity,
        })
    }
}

fn fill(file: &dyn DiskFile, header: &SegmentHeader, capacity: u64) -> io::Result<()> {
    file.reserve(capacity)?;
    let piece = usize::try_from(capacity).map_or(PIECE_BYTES, |all| all.min(PIECE_BYTES));
    let mut zeros = Buffers::default().take(piece);
    zeros.resize(piece);
    let header = header.encode();
    zeros[..header.len()].copy_from_slice(&header);
    let mut at = 0;
    while at < capacity {
        let len = usize::try_from(capacity - at).map_or(piece, |left| left.min(piece));
        file.write_all_at(&zeros[..len], at)?;
        zeros[..header.len()].fill(0);
        at += len as u64;
    }
    Ok(())
}

pub(crate) fn remove_if_there(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Prepares the next segment ahead, on a thread that the caller chooses: writing 64 MiB of zeros takes long compared with
/// a commit. Where nobody calls it, the commit that needs a segment prepares it itself.
#[derive(Clone, Debug)]
pub struct Preparer(Arc<PreparerShared>);

#[derive(Debug)]
struct PreparerShared {
    disk: Arc<dyn Disk>,
    segments: PathBuf,
    journal: [u8; 16],
    segment_bytes: u64,
    state: Mutex<PreparerState>,
}

struct PreparerState {
    entropy: Box<dyn Entropy>,
    /// Segments after the one in use, in order; at most the first is used.
    ready: Vec<Segment>,
    next_number: u32,
}

impl std::fmt::Debug for PreparerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PreparerState")
            .field("ready", &self.ready)
            .field("next_number", &self.next_number)
            .finish_non_exhaustive()
    }
}

impl Preparer {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        segments: PathBuf,
        journal: [u8; 16],
        segment_bytes: u64,
        entropy: Box<dyn Entropy>,
        ready: Vec<Segment>,
        next_number: u32,
    ) -> Self {
        Self(Arc::new(PreparerShared {
            disk,
            segments,
            journal,
            segment_bytes,
            state: Mutex::new(PreparerState {
                entropy,
                ready,
                next_number,
            }),
        }))
    }

    /// Prepares the next segment where none is ready, and says whether it had to.
    ///
    /// # Errors
    /// What the disk reports; a full disk is no harm here, the next call tries again.
    pub fn prepare_next(&self) -> io::Result<bool> {
        let mut state = self.state();
        if !state.ready.is_empty() {
            return Ok(false);
        }
        let segment = self.prepare(&mut state, self.0.segment_bytes)?;
        state.ready.push(segment);
        Ok(true)
    }

    pub(crate) fn lacks_segment(&self) -> bool {
        // Whoever holds it is preparing one.
        let state = self.0.state.try_lock();
        state.is_ok_and(|state| state.ready.is_empty())
    }

    /// The next segment, with room for `bytes`; instead of an `empty` one that is too small, where there is one: a sealed
    /// segment always holds a commit.
    pub(crate) fn take(&self, bytes: u64, empty: Option<u32>) -> io::Result<Segment> {
        let mut state = self.state();
        if let Some(number) = empty {
            state.next_number = number;
            state.ready.clear();
        } else if let Some(first) = state.ready.first() {
            if first.capacity >= bytes {
                return Ok(state.ready.remove(0));
            }
            // Too small for this commit: a larger one takes its name. Nothing was ever stored in it.
            state.next_number = first.header.number;
            state.ready.clear();
        }
        self.prepare(&mut state, bytes.max(self.0.segment_bytes))
    }

    /// Puts a segment back that was taken and not used.
    pub(crate) fn put_back(&self, segment: Segment) {
        self.state().ready.insert(0, segment);
    }

    fn prepare(&self, state: &mut PreparerState, capacity: u64) -> io::Result<Segment> {
        let mut id = [0; 16];
        state.entropy.fill(&mut id);
        let header = SegmentHeader {
            number: state.next_number,
            id,
            journal: self.0.journal,
        };
        let segment = Segment::prepare(&*self.0.disk, &self.0.segments, header, capacity)?;
        state.next_number = state.next_number.saturating_add(1);
        Ok(segment)
    }

    fn state(&self) -> MutexGuard<'_, PreparerState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
