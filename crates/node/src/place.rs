//! Where a data directory lives. A copy of it lies elsewhere, or in other files, and finds out by this file.
//!
//! ```text
//! countersign-place 1
//! path /var/lib/countersign      the directory's own, without links
//! machine 5f3c…                  /etc/machine-id; `-` where there is none
//! file 64769:1311237:1790…       device, inode and time of birth of this very file; `-` where the file system keeps none
//! ```
//!
//! A restored or copied file is another one, born later, even where it gets the same inode. The file is made anew at every start, so that an older copy of it that lies
//! in place says something else. What brings back every file as it was (a disk image, a snapshot of the file system) leaves no trace here; then only those who have
//! read more can tell (`schemas/witness.md`).

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::UNIX_EPOCH;

use countersign_store::disk::{Disk as _, RealDisk, SyncSite};

const FILE: &str = "place";
const FIRST_LINE: &str = "countersign-place 1";
const BYTES_MAX: u64 = 8192;

/// Whether the directory is where it was last used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Standing {
    /// It is.
    AtHome,
    /// It was moved or copied, or nobody has said yet where it lives.
    Elsewhere,
}

/// Looks where the directory says that it lives.
///
/// # Errors
/// What the system said.
pub(crate) fn standing(dir: &Path) -> io::Result<Standing> {
    let file = match File::open(dir.join(FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Standing::Elsewhere),
        Err(error) => return Err(error),
    };
    let expected = describe(dir, &file)?;
    let mut text = String::new();
    let read = file.take(BYTES_MAX).read_to_string(&mut text);
    Ok(match read {
        Ok(_) if text == expected => Standing::AtHome,
        // Damaged or of another form: as good as none.
        _ => Standing::Elsewhere,
    })
}

/// From now on the directory lives where it is.
///
/// # Errors
/// What the system said; then it lives where it lived before.
pub(crate) fn settle(dir: &Path) -> io::Result<()> {
    let new = dir.join("place.new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = RealDisk.create_new(&new)?;
    let text = describe(dir, &File::open(&new)?)?;
    file.write_all_at(text.as_bytes(), 0)?;
    file.sync_all(SyncSite::CreateRoot)?;
    fs::rename(&new, dir.join(FILE))?;
    RealDisk.sync_dir(dir, SyncSite::CreateRoot)
}

/// Nobody knows any more where the directory lives: the next start asks.
///
/// # Errors
/// What the system said.
pub(crate) fn forget(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    RealDisk.sync_dir(dir, SyncSite::CreateRoot)
}

fn describe(dir: &Path, file: &File) -> io::Result<String> {
    let path = fs::canonicalize(dir)?;
    let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let machine = match machine.trim() {
        "" => "-",
        id => id,
    };
    let metadata = file.metadata()?;
    let born = metadata.created().ok();
    let born = born.and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    let born = born.map_or_else(|| "-".to_owned(), |born| born.as_nanos().to_string());
    Ok(format!(
        "{FIRST_LINE}\npath {}\nmachine {machine}\nfile {}:{}:{born}\n",
        path.display(),
        metadata.dev(),
        metadata.ino()
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn a_copy_is_elsewhere_wherever_it_lies() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("home");
        fs::create_dir(&home).unwrap();
        assert_eq!(
            standing(&home).unwrap(),
            Standing::Elsewhere,
            "nobody has said it yet"
        );
        settle(&home).unwrap();
        assert_eq!(standing(&home).unwrap(), Standing::AtHome);
        // The same again after another start, and after a crash before the rename.
        fs::write(home.join("place.new"), "half").unwrap();
        settle(&home).unwrap();
        assert_eq!(standing(&home).unwrap(), Standing::AtHome);
        // Copied to another place, and back to the same one.
        let backup = folder.path().join("backup");
        fs::create_dir(&backup).unwrap();
        fs::copy(home.join("place"), backup.join("place")).unwrap();
        assert_eq!(standing(&backup).unwrap(), Standing::Elsewhere);
        fs::rename(&home, folder.path().join("old")).unwrap();
        fs::create_dir(&home).unwrap();
        fs::copy(backup.join("place"), home.join("place")).unwrap();
        assert_eq!(standing(&home).unwrap(), Standing::Elsewhere);
        // Removed and copied back, which gives many file systems the same inode.
        settle(&home).unwrap();
        for _ in 0..3 {
            fs::remove_file(backup.join("place")).unwrap();
            fs::copy(home.join("place"), backup.join("place")).unwrap();
            fs::remove_dir_all(&home).unwrap();
            fs::create_dir(&home).unwrap();
            fs::copy(backup.join("place"), home.join("place")).unwrap();
            assert_eq!(standing(&home).unwrap(), Standing::Elsewhere);
            settle(&home).unwrap();
        }
        // Moved as it is.
        let moved = folder.path().join("moved");
        fs::rename(folder.path().join("old"), &moved).unwrap();
        assert_eq!(standing(&moved).unwrap(), Standing::Elsewhere);
        fs::write(moved.join("place"), [0xff; 10]).unwrap();
        assert_eq!(standing(&moved).unwrap(), Standing::Elsewhere);
    }
}
