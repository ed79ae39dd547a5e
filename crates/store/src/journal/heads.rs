//! The head file: the newest acknowledged head of each log, written after the commit's sync and before its acknowledgement.
//!
//! ```text
//! header (512) ‖ slot of the journal (512) ‖ slot of log 1 (128) ‖ slot of log 2 (128) ‖ …
//!
//! header   0  8 magic   8 4 version   12 4 zero   16 16 journal id   32 zeros   508 4 crc32c
//! slot     0  4 `HEAD`  4 4 log number   8  8 size            16 8 commit number   24 32 root     56 zeros   124 4 crc32c
//! journal  0  4 `LAST`  4 4 segment      8  8 end in segment  16 8 commit number   24 32 digest   56 zeros   124 4 crc32c
//! ```
//!
//! A slot's checksum begins with the journal id. No slot straddles a sector. Slots are lower bounds: they are not synced
//! with each commit, so that after a power loss the segments may hold more than the slots say, never less.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use countersign_crypto::Hash;

use super::format::{FORMAT_VERSION, Fields, SECTOR};
use crate::disk::{Disk, DiskFile, SyncSite, read_vec};

const MAGIC: &[u8; 8] = b"CSHEAD\r\n";
const SLOT_BYTES: usize = 128;
const SLOTS_OFFSET: usize = 2 * SECTOR as usize;
/// The file grows by this many slots at once.
const GROWTH_SLOTS: usize = 32;
/// Two touched slots with fewer slots than this between them are written by one call.
const COALESCE_SLOTS: u32 = 32;
/// 2^24 logs take 2 GiB; a file beyond that is none of ours.
const FILE_BYTES_MAX: u64 = SLOTS_OFFSET as u64 + (SLOT_BYTES as u64) * (1 << 24);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct HeadSlot {
    pub(crate) size: u64,
    pub(crate) commit: u64,
    pub(crate) root: Hash,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct LastSlot {
    pub(crate) segment: u32,
    pub(crate) end: u64,
    pub(crate) commit: u64,
    pub(crate) digest: Hash,
}

/// What a head file said when it was read.
#[derive(Debug, Default)]
pub(crate) struct RecordedHeads {
    pub(crate) last: Option<LastSlot>,
    pub(crate) logs: BTreeMap<u32, HeadSlot>,
    /// Byte offsets of slots that are neither empty nor whole.
    pub(crate) damaged_slots: Vec<u64>,
}

impl RecordedHeads {
    /// The newest commit that is known to have been acknowledged.
    pub(crate) fn commit(&self) -> u64 {
        let last = self.last.map_or(0, |slot| slot.commit);
        let logs = self.logs.values().map(|slot| slot.commit).max();
        last.max(logs.unwrap_or(0))
    }
}

#[derive(Debug)]
pub(crate) enum ReadHeads {
    Missing,
    HeaderDamaged,
    Newer(u32),
    Read(Box<(HeadFile, RecordedHeads)>),
}

/// The open head file with its image in memory.
#[derive(Debug)]
pub(crate) struct HeadFile {
    file: Arc<dyn DiskFile>,
    journal: [u8; 16],
    image: Vec<u8>,
}

impl HeadFile {
    /// Writes a new head file under a temporary name and gives it its name. Its directory still has to be synced.
    pub(crate) fn create(disk: &dyn Disk, path: &Path, journal: [u8; 16]) -> io::Result<Self> {
        let temporary = path.with_extension("new");
        match disk.remove(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut image = vec![0; SLOTS_OFFSET + GROWTH_SLOTS * SLOT_BYTES];
        image[..8].copy_from_slice(MAGIC);
        image[8..12].copy_from_slice(&FORMAT_VERSION.to_be_bytes());
        image[16..32].copy_from_slice(&journal);
        let crc = crc32c::crc32c(&image[..508]);
        image[508..512].copy_from_slice(&crc.to_be_bytes());
        let file = disk.create_new(&temporary)?;
        file.write_all_at(&image, 0)?;
        // A crash before the rename leaves a temporary file, which the next attempt removes.
        file.sync_all(SyncSite::CreateHeads)?;
        disk.rename(&temporary, path)?;
        Ok(Self {
            file,
            journal,
            image,
        })
    }

    pub(crate) fn read(disk: &dyn Disk, path: &Path) -> io::Result<ReadHeads> {
        let file = match disk.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ReadHeads::Missing),
            other => other?,
        };
        let len = file.len()?;
        if !(SLOTS_OFFSET as u64..=FILE_BYTES_MAX).contains(&len) {
            return Ok(ReadHeads::HeaderDamaged);
        }
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let image = read_vec(&*file, 0, len)?;
        let journal = match decode_header(&image[..SECTOR as usize]) {
            Some((FORMAT_VERSION, journal)) => journal,
            Some((version, _)) if version > FORMAT_VERSION => return Ok(ReadHeads::Newer(version)),
            _ => return Ok(ReadHeads::HeaderDamaged),
        };
        let heads = Self {
            file,
            journal,
            image,
        };
        let recorded = heads.decode_slots();
        Ok(ReadHeads::Read(Box::new((heads, recorded))))
    }

    pub(crate) fn journal(&self) -> [u8; 16] {
        self.journal
    }

    /// Makes room for a log's slot on disk, before anything of a commit is written: here a full disk is no harm.
    pub(crate) fn reserve(&mut self, log: u32) -> io::Result<()> {
        let needed = slot_offset(log) + SLOT_BYTES;
        if needed > self.image.len() {
            let grown = needed + (GROWTH_SLOTS - 1) * SLOT_BYTES;
            let zeros = vec![0; grown - self.image.len()];
            self.file.write_all_at(&zeros, self.image.len() as u64)?;
            self.image.resize(grown, 0);
        }
        Ok(())
    }

    /// Writes the heads of a commit. `touched` is in ascending order of log numbers, and each has been reserved.
    pub(crate) fn record(
        &mut self,
        last: &LastSlot,
        touched: &[(u32, HeadSlot)],
    ) -> io::Result<()> {
        self.set(last, touched);
        let last_end = SECTOR as usize + SLOT_BYTES;
        let mut rest = touched;
        // The usual commit touches low numbers: then the journal's slot and theirs are one write.
        let mut start = SECTOR as usize;
        let mut end = last_end;
        let mut previous = 0;
        while let Some(((log, _), after)) = rest.split_first() {
            if log.saturating_sub(previous) > COALESCE_SLOTS {
                self.file
                    .write_all_at(&self.image[start..end], start as u64)?;
                start = slot_offset(*log);
            }
            end = slot_offset(*log) + SLOT_BYTES;
            previous = *log;
            rest = after;
        }
        self.file
            .write_all_at(&self.image[start..end], start as u64)
    }

    /// Writes every slot, whole, over whatever was there.
    pub(crate) fn rewrite(&mut self, last: &LastSlot, all: &[(u32, HeadSlot)]) -> io::Result<()> {
        self.image[SECTOR as usize..].fill(0);
        self.set(last, all);
        self.file.write_all_at(&self.image, 0)
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data(SyncSite::Heads)
    }

    fn set(&mut self, last: &LastSlot, slots: &[(u32, HeadSlot)]) {
        let journal = self.journal;
        let mut put = |offset: usize, tag: &[u8; 4], fields: (u32, u64, u64, &Hash)| {
            if let Some(slot) = self.image.get_mut(offset..offset + SLOT_BYTES) {
                slot.fill(0);
                slot[..4].copy_from_slice(tag);
                slot[4..8].copy_from_slice(&fields.0.to_be_bytes());
                slot[8..16].copy_from_slice(&fields.1.to_be_bytes());
                slot[16..24].copy_from_slice(&fields.2.to_be_bytes());
                slot[24..56].copy_from_slice(fields.3);
                let crc = slot_crc(&journal, slot);
                slot[124..].copy_from_slice(&crc.to_be_bytes());
            }
        };
        put(
            SECTOR as usize,
            b"LAST",
            (last.segment, last.end, last.commit, &last.digest),
        );
        for (log, slot) in slots {
            put(
                slot_offset(*log),
                b"HEAD",
                (*log, slot.size, slot.commit, &slot.root),
            );
        }
    }

    fn decode_slots(&self) -> RecordedHeads {
        let mut recorded = RecordedHeads::default();
        match self.decode_slot(SECTOR as usize, b"LAST") {
            Slot::Empty => {}
            Slot::Damaged => recorded.damaged_slots.push(SECTOR),
            Slot::Whole(segment, end, commit, digest) => {
                recorded.last = Some(LastSlot {
                    segment,
                    end,
                    commit,
                    digest,
                });
            }
        }
        // The rest of the journal slot's sector and the header's are zeros; damage there says nothing about heads.
        // A file that was being extended when everything stopped may end within a slot; nothing was ever in that one.
        let whole_slots = (self.image.len() - SLOTS_OFFSET) / SLOT_BYTES;
        let offsets = (SLOTS_OFFSET..).step_by(SLOT_BYTES).take(whole_slots);
        for (log, offset) in (1u32..).zip(offsets) {
            match self.decode_slot(offset, b"HEAD") {
                Slot::Empty => {}
                Slot::Whole(number, size, commit, root) if number == log => {
                    recorded.logs.insert(log, HeadSlot { size, commit, root });
                }
                Slot::Damaged | Slot::Whole(..) => recorded.damaged_slots.push(offset as u64),
            }
        }
        recorded
    }

    fn decode_slot(&self, offset: usize, tag: &[u8; 4]) -> Slot {
        let Some(bytes) = self.image.get(offset..offset + SLOT_BYTES) else {
            return Slot::Damaged;
        };
        if bytes.iter().all(|&byte| byte == 0) {
            return Slot::Empty;
        }
        let decode = || {
            let mut fields = Fields(bytes);
            let found: [u8; 4] = fields.array()?;
            let slot = Slot::Whole(fields.u32()?, fields.u64()?, fields.u64()?, fields.array()?);
            fields.take(68)?;
            let good = &found == tag && fields.u32()? == slot_crc(&self.journal, bytes);
            good.then_some(slot)
        };
        decode().unwrap_or(Slot::Damaged)
    }
}

enum Slot {
    Empty,
    Damaged,
    Whole(u32, u64, u64, Hash),
}

fn slot_offset(log: u32) -> usize {
    SLOTS_OFFSET + (log as usize).saturating_sub(1) * SLOT_BYTES
}

fn slot_crc(journal: &[u8; 16], slot: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(journal), &slot[..124])
}

fn decode_header(bytes: &[u8]) -> Option<(u32, [u8; 16])> {
    let (body, crc) = bytes.split_at_checked(508)?;
    if Fields(crc).u32()? != crc32c::crc32c(body) {
        return None;
    }
    let mut fields = Fields(body);
    if &fields.array::<8>()? != MAGIC {
        return None;
    }
    let version = fields.u32()?;
    fields.u32()?;
    Some((version, fields.array()?))
}
