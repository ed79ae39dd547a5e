//! Tar files that mean harm.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::fs;
use std::path::PathBuf;

use countersign_audit::{EXIT_FAILED, EXIT_WHOLE};
use support::*;

fn member(kind: tar::EntryType, name: &str, size: u64, data: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    let mut out = header.as_bytes().to_vec();
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

struct Archive {
    _directory: tempfile::TempDir,
    path: PathBuf,
    honest: Vec<u8>,
    world: World,
}

impl Archive {
    fn new() -> Self {
        let world = World::new(5);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bundle.tar");
        world.write(&path);
        let honest = fs::read(&path).unwrap();
        Self {
            _directory: directory,
            path,
            honest,
            world,
        }
    }

    fn code_of(&self, bytes: &[u8]) -> u8 {
        fs::write(&self.path, bytes).unwrap();
        code(&self.path, &self.world.producer.trust())
    }

    fn with_first(&self, member: &[u8]) -> u8 {
        self.code_of(&[member, &self.honest].concat())
    }
}

#[test]
fn links_devices_and_extensions_are_refused() {
    use tar::EntryType;
    let archive = Archive::new();
    for kind in [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::GNULongName,
        EntryType::GNULongLink,
        EntryType::GNUSparse,
        EntryType::XHeader,
        EntryType::XGlobalHeader,
    ] {
        assert_eq!(
            archive.with_first(&member(kind, "log/x", 0, b"")),
            EXIT_FAILED,
            "{kind:?}"
        );
    }
    // A directory is harmless.
    assert_eq!(
        archive.with_first(&member(EntryType::Directory, "./log/", 0, b"")),
        EXIT_WHOLE
    );
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let archive = Archive::new();
    for name in [
        "../x",
        "/etc/passwd",
        "log/../../x",
        "a//b",
        "a\\b",
        "a b",
        "log/\u{1}",
        "",
        "./../x",
        "keys.json",
    ] {
        let bytes = member(tar::EntryType::Regular, name, 1, b"x");
        assert_eq!(archive.with_first(&bytes), EXIT_FAILED, "{name:?}");
    }
}

#[test]
fn sizes_beyond_the_file_are_refused_without_being_allocated() {
    let archive = Archive::new();
    for size in [1 << 20, 1 << 40, u64::MAX - 511, u64::MAX] {
        let bytes = member(tar::EntryType::Regular, "log/x", size, b"");
        assert_eq!(archive.with_first(&bytes), EXIT_FAILED, "{size}");
    }
}

#[test]
fn a_tar_file_cut_anywhere_is_not_whole() {
    let archive = Archive::new();
    for length in (0..archive.honest.len()).step_by(509) {
        assert_ne!(
            archive.code_of(&archive.honest[..length]),
            EXIT_WHOLE,
            "{length}"
        );
    }
    assert_eq!(archive.code_of(&archive.honest), EXIT_WHOLE);
}

#[test]
fn bytes_between_and_behind_the_members_are_refused() {
    let archive = Archive::new();
    let behind = [archive.honest.as_slice(), b"x"].concat();
    assert_eq!(archive.code_of(&behind), EXIT_FAILED);
    let mut between = archive.honest.clone();
    // The first member is a checkpoint, which ends within its block.
    between[1023] = 1;
    assert_eq!(archive.code_of(&between), EXIT_FAILED);
}
