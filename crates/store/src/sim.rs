//! A disk in memory that forgets what was not synced, as a real one may when power fails.
//!
//! ```text
//! write ──▶ page cache ──sync──▶ stable           power loss keeps: stable bytes, and of each unsynced 512-byte sector
//! create, rename, remove ──sync_dir──▶ stable     any version it had since; of each directory's changes a first part
//! ```
//!
//! Everything is a function of seeds and of the order of calls, so that a failure can be run again. It is compiled
//! always and used by tests of several crates; a node never uses it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, DiskFile, DiskLock, SyncSite};

const SECTOR: usize = 512;
/// errno of "input/output error" and "no space left on device" on Linux.
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// A kind of operation that can be made to fail.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum OpKind {
    /// Creating a file.
    Create,
    /// Creating a directory.
    CreateDir,
    /// Reading from a file.
    Read,
    /// Removing a file.
    Remove,
    /// Renaming a file.
    Rename,
    /// Syncing a file or directory.
    Sync,
    /// Writing to a file or setting its length.
    Write,
}

/// The simulated disk. Clones are the same disk; [`SimDisk::fork`] makes another.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Clone, Debug, Default)]
struct State {
    files: Vec<SimFileState>,
    dirs: BTreeMap<PathBuf, SimDir>,
    locks: BTreeSet<PathBuf>,
    /// Operations that change something, so far.
    ops: u64,
    stop_at: Option<u64>,
    stopped: bool,
    counts: BTreeMap<OpKind, u64>,
    fault: Option<(OpKind, u64)>,
    full: bool,
    dropped_site: Option<SyncSite>,
    sites: BTreeSet<SyncSite>,
}

#[derive(Clone, Debug, Default)]
struct SimFileState {
    stable: Vec<u8>,
    cached: Vec<u8>,
    dirty: BTreeMap<usize, DirtySector>,
}

/// A sector that was written and not synced since.
#[derive(Clone, Debug, Default)]
struct DirtySector {
    versions: Vec<Vec<u8>>,
    /// A sync failed while this was dirty: the system now believes it to be clean, and no sync writes it any more.
    lost: bool,
}

#[derive(Clone, Debug, Default)]
struct SimDir {
    stable: BTreeMap<String, Node>,
    cached: BTreeMap<String, Node>,
    pending: Vec<DirChange>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Node {
    File(usize),
    Dir,
}

#[derive(Clone, Debug)]
enum DirChange {
    Put(String, Node),
    Remove(String),
    Rename(String, String),
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Megabytes of sectors help nobody.
        f.write_str("SimDisk(..)")
    }
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl SimDisk {
    /// An empty disk with the directory `/`.
    #[must_use]
    pub fn new() -> Self {
        let mut state = State::default();
        state.dirs.insert(PathBuf::from("/"), SimDir::default());
        Self(Arc::new(Mutex::new(state)))
    }

    /// Another disk with the same state, and without faults. What holds files of this one does not reach it.
    #[must_use]
    pub fn fork(&self) -> Self {
        let mut state = self.state().clone();
        state.restart();
        Self(Arc::new(Mutex::new(state)))
    }

    /// The disk after the process was killed: all that was written is there, still unsynced.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        self.fork()
    }

    /// The disk after power was lost: what was synced, and of the rest what `seed` says.
    #[must_use]
    pub fn after_power_loss(&self, seed: u64) -> Self {
        let mut state = self.state().clone();
        state.lose_power(&mut Dice(seed));
        state.restart();
        Self(Arc::new(Mutex::new(state)))
    }

    /// The disk after power was lost and nothing unsynced survived: what a sync was for is gone without it.
    #[must_use]
    pub fn after_worst_power_loss(&self) -> Self {
        let mut state = self.state().clone();
        state.lose_everything_unsynced();
        state.restart();
        Self(Arc::new(Mutex::new(state)))
    }

    /// Operations that changed something, so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().ops
    }

    /// How often a kind of operation was called.
    #[must_use]
    pub fn count(&self, kind: OpKind) -> u64 {
        self.state().counts.get(&kind).copied().unwrap_or(0)
    }

    /// The sites that have asked for a sync.
    #[must_use]
    pub fn sites(&self) -> BTreeSet<SyncSite> {
        self.state().sites.clone()
    }

    /// Stops everything at the `n`-th changing operation from the disk's beginning (the first is 1): it and all after it
    /// fail, reads too. A write may have been done in part.
    pub fn stop_at(&self, n: u64) {
        self.state().stop_at = Some(n);
    }

    /// Whether [`SimDisk::stop_at`] has taken effect.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    /// Makes the `n`-th call of a kind fail once with an input/output error, counted from the disk's beginning.
    pub fn fail(&self, kind: OpKind, n: u64) {
        self.state().fault = Some((kind, n));
    }

    /// While set, files cannot be created or grow.
    pub fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    /// From now on syncs of this site do nothing and report success: the bug that the harness has to find.
    pub fn drop_syncs_of(&self, site: SyncSite) {
        self.state().dropped_site = Some(site);
    }

    /// All files, sorted.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let state = self.state();
        let mut paths = Vec::new();
        for (dir, content) in &state.dirs {
            for (name, node) in &content.cached {
                if matches!(node, Node::File(_)) {
                    paths.push(dir.join(name));
                }
            }
        }
        paths
    }

    /// A file's bytes as a process sees them; `None` where there is no such file.
    #[must_use]
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        let file = state.file(path).ok()?;
        Some(state.files[file].cached.clone())
    }

    /// Replaces a file's bytes, cached and stable, behind everybody's back: bit rot, or a hand in the files.
    /// A file that is not there is made.
    pub fn tamper(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state();
        let file = match state.file(path) {
            Ok(file) => file,
            Err(_) => {
                let file = state.files.len();
                state.files.push(SimFileState::default());
                if let Ok((dir, name)) = state.dir(path) {
                    dir.cached.insert(name.clone(), Node::File(file));
                    dir.stable.insert(name, Node::File(file));
                }
                file
            }
        };
        state.files[file] = SimFileState {
            stable: bytes.clone(),
            cached: bytes,
            dirty: BTreeMap::new(),
        };
    }

    /// Removes a file, cached and stable, behind everybody's back.
    pub fn tamper_remove(&self, path: &Path) {
        if let Ok((dir, name)) = self.state().dir(path) {
            dir.cached.remove(&name);
            dir.stable.remove(&name);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for SimDisk {
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.begin(OpKind::Create)?;
        if state.full {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        let file = state.files.len();
        let (dir, name) = state.dir(path)?;
        if dir.cached.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        dir.change(DirChange::Put(name, Node::File(file)));
        state.files.push(SimFileState::default());
        drop(state);
        Ok(self.handle(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.alive()?;
        let file = state.file(path)?;
        state.dir(path)?;
        drop(state);
        Ok(self.handle(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin(OpKind::Rename)?;
        let (_, new_name) = state.dir(to)?;
        let (dir, name) = state.dir(from)?;
        if from.parent() != to.parent() || !dir.cached.contains_key(&name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        dir.change(DirChange::Rename(name, new_name));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin(OpKind::Remove)?;
        let (dir, name) = state.dir(path)?;
        if !dir.cached.contains_key(&name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        dir.change(DirChange::Remove(name));
        Ok(())
    }

    fn sync_dir(&self, path: &Path, site: SyncSite) -> io::Result<()> {
        let mut state = self.state();
        state.begin(OpKind::Sync)?;
        state.sites.insert(site);
        let dropped = state.dropped_site == Some(site);
        let dir = state.dirs.get_mut(path).ok_or(io::ErrorKind::NotFound)?;
        if !dropped {
            dir.stable = dir.cached.clone();
            dir.pending.clear();
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        state.alive()?;
        let dir = state.dirs.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(dir.cached.keys().cloned().collect())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if state.dirs.contains_key(path) {
            return state.alive();
        }
        state.begin(OpKind::CreateDir)?;
        if state.full {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        let (dir, name) = state.dir(path)?;
        dir.change(DirChange::Put(name, Node::Dir));
        state.dirs.insert(path.to_path_buf(), SimDir::default());
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let exists = self.state().file(path).is_ok();
        if !exists {
            self.create_new(path)?;
        }
        let mut state = self.state();
        state.alive()?;
        if !state.locks.insert(path.to_path_buf()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock {
            disk: self.clone(),
            path: path.to_path_buf(),
        }))
    }
}

impl SimDisk {
    fn handle(&self, file: usize) -> Arc<dyn DiskFile> {
        Arc::new(SimFile {
            disk: self.clone(),
            file,
        })
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    path: PathBuf,
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.state().locks.remove(&self.path);
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: usize,
}

impl SimFile {
    fn sync(&self, site: SyncSite) -> io::Result<()> {
        let mut state = self.disk.state();
        state.sites.insert(site);
        let begun = state.begin(OpKind::Sync);
        let dropped = state.dropped_site == Some(site);
        let stopped = state.stopped;
        let file = &mut state.files[self.file];
        match begun {
            Ok(()) if dropped => Ok(()),
            Ok(()) => {
                file.sync();
                Ok(())
            }
            Err(error) if stopped => Err(error),
            Err(error) => {
                for sector in file.dirty.values_mut() {
                    sector.lost = true;
                }
                Err(error)
            }
        }
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let state = self.disk.state();
        state.alive()?;
        Ok(state.files[self.file].cached.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.alive()?;
        state.inject(OpKind::Read)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(buffer.len());
        let bytes = state.files[self.file]
            .cached
            .get(start..end)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let begun = state.begin(OpKind::Write);
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let full = state.full;
        let ops = state.ops;
        let just_stopped = state.stop_at == Some(ops);
        let file = &mut state.files[self.file];
        match begun {
            Ok(()) if full && start + bytes.len() > file.cached.len() => {
                Err(io::Error::from_raw_os_error(ENOSPC))
            }
            Ok(()) => {
                file.write(start, bytes);
                Ok(())
            }
            Err(error) if just_stopped => {
                // The process died within the call: nothing, half or all of it was taken over.
                let part = bytes.len() * usize::from(Dice(ops).below(3) as u8) / 2;
                file.write(start, &bytes[..part]);
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    fn sync_data(&self, site: SyncSite) -> io::Result<()> {
        self.sync(site)
    }

    fn sync_all(&self, site: SyncSite) -> io::Result<()> {
        self.sync(site)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.begin(OpKind::Write)?;
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let file = &mut state.files[self.file];
        if len > file.cached.len() {
            let zeros = vec![0; len - file.cached.len()];
            let start = file.cached.len();
            file.write(start, &zeros);
        } else {
            file.cached.truncate(len);
            file.dirty.retain(|sector, _| sector * SECTOR < len);
        }
        Ok(())
    }
}

impl State {
    fn restart(&mut self) {
        self.locks.clear();
        self.ops = 0;
        self.stop_at = None;
        self.stopped = false;
        self.counts.clear();
        self.fault = None;
        self.full = false;
    }

    fn alive(&self) -> io::Result<()> {
        if self.stopped {
            Err(io::Error::other("the simulated machine has stopped"))
        } else {
            Ok(())
        }
    }

    fn begin(&mut self, kind: OpKind) -> io::Result<()> {
        self.alive()?;
        self.ops += 1;
        if self.stop_at.is_some_and(|stop| self.ops >= stop) {
            self.stopped = true;
            return self.alive();
        }
        self.inject(kind)
    }

    fn inject(&mut self, kind: OpKind) -> io::Result<()> {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        if self.fault == Some((kind, *count)) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        Ok(())
    }

    fn dir(&mut self, path: &Path) -> io::Result<(&mut SimDir, String)> {
        let parent = path.parent().ok_or(io::ErrorKind::NotFound)?;
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        let dir = self.dirs.get_mut(parent).ok_or(io::ErrorKind::NotFound)?;
        Ok((dir, name))
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        let name = path.file_name().and_then(|name| name.to_str());
        let node = path
            .parent()
            .and_then(|parent| self.dirs.get(parent))
            .and_then(|dir| dir.cached.get(name?));
        match node {
            Some(Node::File(file)) => Ok(*file),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn lose_power(&mut self, dice: &mut Dice) {
        for file in &mut self.files {
            file.lose_power(dice);
        }
        for dir in self.dirs.values_mut() {
            // A journalling file system keeps the order of changes, not their number.
            let kept = dice.below(dir.pending.len() as u64 + 1);
            let mut survived = dir.stable.clone();
            for change in dir.pending.iter().take(usize::try_from(kept).unwrap_or(0)) {
                change.apply(&mut survived);
            }
            dir.set_stable(survived);
        }
        self.drop_unreachable_dirs();
    }

    fn lose_everything_unsynced(&mut self) {
        for file in &mut self.files {
            file.cached = file.stable.clone();
            file.dirty.clear();
        }
        for dir in self.dirs.values_mut() {
            dir.set_stable(dir.stable.clone());
        }
        self.drop_unreachable_dirs();
    }

    fn drop_unreachable_dirs(&mut self) {
        // Parents sort before their children.
        for path in self.dirs.keys().cloned().collect::<Vec<_>>() {
            let Some(parent) = path.parent() else {
                continue;
            };
            let name = path.file_name().and_then(|name| name.to_str());
            let kept = self
                .dirs
                .get(parent)
                .is_some_and(|dir| name.is_some_and(|name| dir.cached.contains_key(name)));
            if !kept {
                self.dirs.remove(&path);
            }
        }
    }
}

impl SimFileState {
    fn write(&mut self, start: usize, bytes: &[u8]) {
        let end = start + bytes.len();
        if bytes.is_empty() {
            return;
        }
        // A write beyond the end fills the gap with zeros.
        let first = start.min(self.cached.len());
        if self.cached.len() < end {
            self.cached.resize(end, 0);
        }
        self.cached[start..end].copy_from_slice(bytes);
        for sector in first / SECTOR..=(end - 1) / SECTOR {
            let from = sector * SECTOR;
            let to = (from + SECTOR).min(self.cached.len());
            let dirty = self.dirty.entry(sector).or_default();
            dirty.versions.push(self.cached[from..to].to_vec());
            dirty.lost = false;
        }
    }

    fn sync(&mut self) {
        self.stable.resize(self.cached.len(), 0);
        let (stable, cached) = (&mut self.stable, &self.cached);
        self.dirty.retain(|&sector, dirty| {
            if !dirty.lost {
                let from = sector * SECTOR;
                let to = (from + SECTOR).min(cached.len());
                stable[from..to].copy_from_slice(&cached[from..to]);
            }
            dirty.lost
        });
    }

    fn lose_power(&mut self, dice: &mut Dice) {
        let mut len = self.stable.len();
        if self.cached.len() != len && dice.below(2) == 1 {
            len = self.cached.len();
        }
        // Now and then nothing unsynced survives, or all of it: each write's sectors otherwise fall one by one.
        let mood = dice.below(6);
        self.stable.resize(len, 0);
        for (&sector, dirty) in &self.dirty {
            let choice = match mood {
                0 => 0,
                1 if !dirty.lost => dirty.versions.len(),
                _ if dirty.lost => 0,
                _ => usize::try_from(dice.below(dirty.versions.len() as u64 + 1)).unwrap_or(0),
            };
            let Some(version) = choice.checked_sub(1).and_then(|at| dirty.versions.get(at)) else {
                continue;
            };
            let from = sector * SECTOR;
            if from < len {
                let to = (from + version.len()).min(len);
                self.stable[from..to].copy_from_slice(&version[..to - from]);
            }
        }
        self.cached = self.stable.clone();
        self.dirty.clear();
    }
}

impl SimDir {
    fn change(&mut self, change: DirChange) {
        change.apply(&mut self.cached);
        self.pending.push(change);
    }

    fn set_stable(&mut self, survived: BTreeMap<String, Node>) {
        self.cached = survived.clone();
        self.stable = survived;
        self.pending.clear();
    }
}

impl DirChange {
    fn apply(&self, names: &mut BTreeMap<String, Node>) {
        match self {
            Self::Put(name, node) => {
                names.insert(name.clone(), *node);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
            Self::Rename(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
        }
    }
}

/// SplitMix64: small, and the same everywhere.
#[derive(Clone, Copy, Debug)]
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn what_was_synced_survives_and_a_name_only_with_its_directory() {
        let disk = SimDisk::new();
        let path = Path::new("/file");
        let file = disk.create_new(path).unwrap();
        file.write_all_at(b"one", 0).unwrap();
        file.sync_data(SyncSite::Commit).unwrap();
        assert_eq!(disk.after_worst_power_loss().contents(path), None);
        disk.sync_dir(Path::new("/"), SyncSite::CreateRoot).unwrap();
        file.write_all_at(b"two", 0).unwrap();
        assert_eq!(
            disk.after_worst_power_loss().contents(path).unwrap(),
            b"one"
        );
        assert_eq!(disk.after_kill().contents(path).unwrap(), b"two");
        let seen: BTreeSet<Vec<u8>> = (0..50)
            .map(|seed| disk.after_power_loss(seed).contents(path).unwrap())
            .collect();
        assert_eq!(seen.len(), 2);
    }

    #[test]
    fn after_a_failed_sync_the_next_one_does_not_bring_the_bytes_back() {
        let disk = SimDisk::new();
        let path = Path::new("/file");
        let file = disk.create_new(path).unwrap();
        disk.sync_dir(Path::new("/"), SyncSite::CreateRoot).unwrap();
        file.write_all_at(b"one", 0).unwrap();
        disk.fail(OpKind::Sync, 2);
        assert!(file.sync_data(SyncSite::Commit).is_err());
        file.sync_data(SyncSite::Commit).unwrap();
        assert_eq!(disk.contents(path).unwrap(), b"one");
        assert_eq!(
            disk.after_worst_power_loss().contents(path).unwrap(),
            [0; 3]
        );
        file.write_all_at(b"one", 0).unwrap();
        file.sync_data(SyncSite::Commit).unwrap();
        assert_eq!(
            disk.after_worst_power_loss().contents(path).unwrap(),
            b"one"
        );
    }
}
