//! Snapshots: state derived from commits, so that a start need not go through all of them again.
//!
//! ```text
//! 0 8 magic   8 4 version   12 4 zero   16 16 journal id   32 8 commit number   40 8 length   48 bytes   end 4 crc32c
//! ```

use std::io;
use std::path::PathBuf;

use super::error::SnapshotError;
use super::format::{FORMAT_VERSION, Fields};
use super::segment::remove_if_there;
use super::{Journal, JournalReader};
use crate::disk::{SyncSite, read_vec};

const MAGIC: &[u8; 8] = b"CSSNAP\r\n";
/// What is derived fits memory; a file beyond this is none of ours.
const SNAPSHOT_BYTES_MAX: u64 = 4 << 30;

impl Journal {
    /// Stores derived state as it is after a commit; durable when this returns. An earlier one of the name is replaced.
    ///
    /// # Errors
    /// [`SnapshotError`]. The earlier one is still there then.
    pub fn write_snapshot(
        &self,
        name: &str,
        commit: u64,
        bytes: &[u8],
    ) -> Result<(), SnapshotError> {
        let path = snapshot_path(&self.shared, name)?;
        let mut file_bytes = Vec::with_capacity(52 + bytes.len());
        file_bytes.extend_from_slice(MAGIC);
        file_bytes.extend_from_slice(&FORMAT_VERSION.to_be_bytes());
        file_bytes.extend_from_slice(&[0; 4]);
        file_bytes.extend_from_slice(&self.shared.journal);
        file_bytes.extend_from_slice(&commit.to_be_bytes());
        file_bytes.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        file_bytes.extend_from_slice(bytes);
        let crc = crc32c::crc32c(&file_bytes);
        file_bytes.extend_from_slice(&crc.to_be_bytes());

        let disk = &*self.shared.disk;
        let temporary = path.with_extension("new");
        remove_if_there(disk, &temporary)?;
        let file = disk.create_new(&temporary)?;
        let written = file
            .write_all_at(&file_bytes, 0)
            .and_then(|()| file.sync_all(SyncSite::SnapshotFile));
        if let Err(error) = written {
            let _ = disk.remove(&temporary);
            return Err(error.into());
        }
        disk.rename(&temporary, &path)?;
        // A crash before this leaves the old one or the new one.
        disk.sync_dir(&self.shared.dir.join("snapshots"), SyncSite::SnapshotDir)?;
        Ok(())
    }
}

impl JournalReader {
    /// The stored state of a name and the commit it is of; `None` where there is none, or one that is damaged, of another
    /// journal, or ahead of this one.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn read_snapshot(&self, name: &str) -> Result<Option<(u64, Vec<u8>)>, SnapshotError> {
        let shared = self.shared();
        let path = snapshot_path(shared, name)?;
        let file = match shared.disk.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let len = file.len()?;
        if len > SNAPSHOT_BYTES_MAX {
            return Ok(None);
        }
        let bytes = read_vec(&*file, 0, usize::try_from(len).map_err(io::Error::other)?)?;
        let found = decode(&bytes, &shared.journal);
        Ok(found
            .filter(|(commit, _)| *commit <= self.last_commit())
            .map(|(commit, state)| (commit, state.to_vec())))
    }
}

fn snapshot_path(shared: &super::Shared, name: &str) -> Result<PathBuf, SnapshotError> {
    let good = (1..=64).contains(&name.len())
        && name.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte)
        });
    if good {
        Ok(shared.dir.join("snapshots").join(name))
    } else {
        Err(SnapshotError::Name)
    }
}

fn decode<'a>(bytes: &'a [u8], journal: &[u8; 16]) -> Option<(u64, &'a [u8])> {
    let (body, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    if Fields(crc).u32()? != crc32c::crc32c(body) {
        return None;
    }
    let mut fields = Fields(body);
    let magic: [u8; 8] = fields.array()?;
    let version = fields.u32()?;
    fields.u32()?;
    let found: [u8; 16] = fields.array()?;
    let commit = fields.u64()?;
    let len = fields.u64()?;
    let good = &magic == MAGIC
        && version == FORMAT_VERSION
        && &found == journal
        && len == fields.0.len() as u64;
    good.then_some((commit, fields.0))
}
