//! The journal through its public doors, on the simulated disk and a real directory.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;

use countersign_crypto::SeededEntropy;
use countersign_store::disk::RealDisk;
use countersign_store::journal::{
    Broken, CommitError, CreateError, Growth, Journal, NotNext, OpenError, OpenLogError, Options,
    ReadError,
};
use countersign_store::sim::SimDisk;
use countersign_tlog::{MemoryTree, inclusion_proof};

use support::{Dice, Model, PartOptions, SMALL, birth, check_all, create, dir, open};

#[test]
fn what_was_committed_is_read_back_before_and_after_reopening() {
    let disk = SimDisk::new();
    let mut dice = Dice(1);
    let mut model = Model::new();
    let mut journal = create(&disk, SMALL, 1);
    let a = journal.open_log(birth(1)).unwrap();
    let b = journal.open_log(birth(2)).unwrap();
    for round in 0..60 {
        let mut parts = vec![model.entry(1).or_default().part(
            a,
            PartOptions {
                annotation: vec![round; 3],
                sign: true,
                ..PartOptions::events(5)
            },
            &mut dice,
        )];
        if round % 3 == 0 {
            parts.push(model.entry(2).or_default().part(
                b,
                PartOptions {
                    cover: vec![round + 1; 100],
                    ..PartOptions::events(2)
                },
                &mut dice,
            ));
        }
        journal.commit(parts).unwrap();
    }
    check_all(&journal.reader(), &model).unwrap();
    journal.close().unwrap();
    let (journal, recovery) = open(&disk, SMALL, 2).unwrap();
    assert!(recovery.cut.is_empty() && recovery.warnings.is_empty());
    assert_eq!(recovery.kept_beyond_heads, 0);
    check_all(&journal.reader(), &model).unwrap();
}

#[test]
fn a_real_directory_serves_like_the_simulated_one() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("journal");
    let mut dice = Dice(2);
    let mut model = Model::new();
    let entropy = || Box::new(SeededEntropy::new(3));
    let mut journal = Journal::create(Arc::new(RealDisk), &path, SMALL, entropy()).unwrap();
    let log = journal.open_log(birth(1)).unwrap();
    for _ in 0..20 {
        let part = model
            .entry(1)
            .or_default()
            .part(log, PartOptions::events(10), &mut dice);
        journal.commit(vec![part]).unwrap();
    }
    let second = Journal::open(Arc::new(RealDisk), &path, SMALL, entropy());
    assert!(matches!(second, Err(OpenError::Locked(_))));
    drop(journal);
    let (journal, _) = Journal::open(Arc::new(RealDisk), &path, SMALL, entropy()).unwrap();
    check_all(&journal.reader(), &model).unwrap();
    let again = Journal::create(Arc::new(RealDisk), &path, SMALL, entropy());
    assert!(matches!(again, Err(CreateError::Locked(_))));
    drop(journal);
    let again = Journal::create(Arc::new(RealDisk), &path, SMALL, entropy());
    assert!(matches!(again, Err(CreateError::Exists(_))));
}

#[test]
fn a_commit_larger_than_a_segment_gets_one_of_its_size() {
    let disk = SimDisk::new();
    let mut dice = Dice(3);
    let mut model = Model::new();
    let mut journal = create(&disk, SMALL, 1);
    let log = journal.open_log(birth(1)).unwrap();
    for events in [200, 1, 300, 300, 1, 1, 2] {
        journal.preparer().prepare_next().unwrap();
        let part = model
            .entry(1)
            .or_default()
            .part(log, PartOptions::events(events), &mut dice);
        journal.commit(vec![part]).unwrap();
    }
    check_all(&journal.reader(), &model).unwrap();
    drop(journal);
    let (journal, _) = open(&disk, SMALL, 2).unwrap();
    check_all(&journal.reader(), &model).unwrap();
}

#[test]
fn a_refused_commit_changes_nothing() {
    let disk = SimDisk::new();
    let mut dice = Dice(4);
    let mut model = Model::new();
    let mut journal = create(&disk, SMALL, 1);
    let log = journal.open_log(birth(1)).unwrap();
    let first = model
        .entry(1)
        .or_default()
        .part(log, PartOptions::events(3), &mut dice);
    journal.commit(vec![first]).unwrap();
    let before = model.clone();
    let good = model
        .entry(1)
        .or_default()
        .part(log, PartOptions::events(3), &mut dice);
    let refused = |journal: &mut Journal, parts| match journal.commit(parts) {
        Err(CommitError::Invariant { broken, .. }) => broken,
        other => panic!("not refused: {other:?}"),
    };
    let mut stale = good.clone();
    stale.expected_size = 2;
    assert!(matches!(
        refused(&mut journal, vec![stale]),
        Broken::Size {
            expected: 2,
            actual: 3
        }
    ));
    let mut flipped = good.clone();
    flipped.entries[118 + 100] ^= 1;
    assert_eq!(refused(&mut journal, vec![flipped]), Broken::Hash);
    let mut last_flipped = good.clone();
    *last_flipped.entries.last_mut().unwrap() ^= 1;
    assert_eq!(refused(&mut journal, vec![last_flipped]), Broken::Hash);
    // Of the right size, but not behind this log.
    let mut elsewhere = good.clone();
    let mut other_end = countersign_tlog::CompactRange::new();
    (0..3).for_each(|_| other_end.append([9; 32]));
    elsewhere.growth = Growth::new(other_end, [9; 32], 0);
    for entry in good.entries.chunks_exact(118) {
        let leaf = countersign_tlog::leaf_hash(entry);
        assert_eq!(elsewhere.growth.push(entry), Err(NotNext));
        assert_eq!(elsewhere.growth.push_hashed(entry, leaf), Err(NotNext));
    }
    let mut chained = [9; 32];
    elsewhere.entries.clear();
    for sequence in 3..6_u64 {
        let mut entry = [0; 118];
        entry[6..14].copy_from_slice(&sequence.to_be_bytes());
        entry[14..46].copy_from_slice(&chained);
        chained = elsewhere.growth.push(&entry).unwrap();
        elsewhere.entries.extend_from_slice(&entry);
    }
    assert_eq!(refused(&mut journal, vec![elsewhere]), Broken::Chain);
    let mut short = good.clone();
    short.content.pop();
    assert_eq!(refused(&mut journal, vec![short]), Broken::Counts);
    let mut long = good.clone();
    long.cover = vec![0; 5000];
    assert_eq!(refused(&mut journal, vec![long]), Broken::TooLong);
    assert_eq!(refused(&mut journal, vec![]), Broken::Parts);
    assert_eq!(
        refused(&mut journal, vec![good.clone(), good.clone()]),
        Broken::TwoParts
    );
    check_all(&journal.reader(), &before).unwrap();
    journal.commit(vec![good]).unwrap();
    check_all(&journal.reader(), &model).unwrap();
    drop(journal);
    let (journal, _) = open(&disk, SMALL, 2).unwrap();
    check_all(&journal.reader(), &model).unwrap();
}

#[test]
fn reading_keeps_to_its_limits_and_starts_anywhere() {
    let disk = SimDisk::new();
    let mut dice = Dice(5);
    let mut model = Model::new();
    let mut journal = create(&disk, SMALL, 1);
    let log = journal.open_log(birth(1)).unwrap();
    for _ in 0..30 {
        let part = model
            .entry(1)
            .or_default()
            .part(log, PartOptions::events(7), &mut dice);
        journal.commit(vec![part]).unwrap();
    }
    let reader = journal.reader();
    let entries = &model[&1].entries;
    for first in 0..entries.len() as u64 {
        for (max_entries, max_bytes) in [(1, 1), (3, u64::MAX), (u64::MAX, 1000), (20, 3000)] {
            let runs = reader.read(log, first, max_entries, max_bytes).unwrap();
            let stored: Vec<_> = runs.iter().flat_map(|run| run.iter()).collect();
            let bytes: usize = stored.iter().map(|s| s.entry.len() + s.content.len()).sum();
            assert!(!stored.is_empty() && stored.len() as u64 <= max_entries);
            assert!(stored.len() == 1 || bytes as u64 <= max_bytes);
            for (sequence, stored) in (first..).zip(&stored) {
                let (entry, content) = &entries[usize::try_from(sequence).unwrap()];
                assert_eq!((stored.entry, stored.content), (&entry[..], &content[..]));
                assert_eq!(stored.sequence, sequence);
            }
        }
    }
    let size = entries.len() as u64;
    let beyond = reader.read(log, size, 1, 1);
    assert!(matches!(beyond, Err(ReadError::BeyondEnd { .. })));
}

#[test]
fn proofs_from_tiles_are_those_of_a_plain_tree() {
    let disk = SimDisk::new();
    let mut dice = Dice(6);
    let mut model = Model::new();
    let options = Options {
        segment_bytes: 256 << 10,
        ..SMALL
    };
    let mut journal = create(&disk, options, 1);
    let log = journal.open_log(birth(1)).unwrap();
    let mut tree = MemoryTree::new();
    for events in [255, 1, 1, 300, 600, 4500, 70, 5000] {
        let part = model
            .entry(1)
            .or_default()
            .part(log, PartOptions::events(events), &mut dice);
        for leaf in part.growth.leaf_hashes() {
            tree.append(*leaf);
        }
        journal.commit(vec![part]).unwrap();
    }
    let size = model[&1].range.size();
    let check = |journal: &Journal| {
        let nodes = journal.reader().nodes(log);
        for index in (0..size).step_by(97).chain([255, 256, size - 1]) {
            let stored = inclusion_proof(&nodes, index, size).unwrap();
            assert_eq!(stored, inclusion_proof(&tree, index, size).unwrap());
        }
    };
    check(&journal);
    drop(journal);
    let (journal, _) = open(&disk, options, 2).unwrap();
    check(&journal);
    drop(journal);
    // Tiles are derived: gone or wrong, they are made again, at start or when they are read.
    let tile = dir().join("logs/1/tile.0");
    let mut bytes = disk.contents(&tile).unwrap();
    bytes[5] ^= 1;
    disk.tamper(&tile, bytes);
    let (journal, _) = open(&disk, options, 3).unwrap();
    check(&journal);
    drop(journal);
    disk.tamper_remove(&tile);
    let (journal, recovery) = open(&disk, options, 3).unwrap();
    assert_eq!(recovery.warnings.len(), 1);
    check(&journal);
}

#[test]
fn an_origin_has_one_log() {
    let disk = SimDisk::new();
    let mut dice = Dice(7);
    let mut model = Model::new();
    let mut journal = create(&disk, SMALL, 1);
    let log = journal.open_log(birth(1)).unwrap();
    let taken = journal.open_log(birth(1));
    assert!(matches!(taken, Err(OpenLogError::Exists { .. })));
    let part = model
        .entry(1)
        .or_default()
        .part(log, PartOptions::events(1), &mut dice);
    journal.commit(vec![part]).unwrap();
    let taken = journal.open_log(birth(1));
    assert!(matches!(taken, Err(OpenLogError::Exists { .. })));
}

#[test]
fn nothing_is_created_where_there_is_no_journal() {
    let disk = SimDisk::new();
    assert!(matches!(open(&disk, SMALL, 1), Err(OpenError::Missing(_))));
    assert!(disk.files().is_empty());
}

#[test]
fn snapshots_come_back_and_stale_or_damaged_ones_do_not() {
    let disk = SimDisk::new();
    let mut dice = Dice(8);
    let mut model = Model::new();
    let mut journal = create(&disk, SMALL, 1);
    let log = journal.open_log(birth(1)).unwrap();
    let part = model
        .entry(1)
        .or_default()
        .part(log, PartOptions::events(1), &mut dice);
    journal.commit(vec![part]).unwrap();
    let reader = journal.reader();
    assert_eq!(reader.read_snapshot("state").unwrap(), None);
    journal.write_snapshot("state", 1, b"one").unwrap();
    assert_eq!(
        reader.read_snapshot("state").unwrap(),
        Some((1, b"one".to_vec()))
    );
    assert!(journal.write_snapshot("../state", 1, b"one").is_err());
    let path = dir().join("snapshots/state");
    let bytes = disk.contents(&path).unwrap();
    for at in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        disk.tamper(&path, bytes);
        assert_eq!(reader.read_snapshot("state").unwrap(), None, "byte {at}");
    }
    journal.write_snapshot("state", 2, b"ahead").unwrap();
    assert_eq!(reader.read_snapshot("state").unwrap(), None);
}

#[test]
fn stored_checkpoints_and_covers_are_found_by_size() {
    let disk = SimDisk::new();
    let mut dice = Dice(9);
    let mut model = Model::new();
    let mut journal = create(&disk, SMALL, 1);
    let log = journal.open_log(birth(1)).unwrap();
    for round in 0..40u8 {
        let options = PartOptions {
            sign: round % 3 == 0,
            cover: vec![round; usize::from(round % 4)],
            ..PartOptions::events(usize::from(round % 5))
        };
        let part = model.entry(1).or_default().part(log, options, &mut dice);
        journal.commit(vec![part]).unwrap();
    }
    let reader = journal.reader();
    let model = &model[&1];
    for size in 0..=model.range.size() + 1 {
        let found = reader.checkpoint_at_or_before(log, size).unwrap();
        let expected = model.signatures.iter().rfind(|(at, ..)| *at <= size);
        assert_eq!(
            found.map(|c| (c.size, c.root, c.signature)),
            expected.copied()
        );
        let found = reader.checkpoint_at_or_after(log, size).unwrap();
        let expected = model.signatures.iter().find(|(at, ..)| *at >= size);
        assert_eq!(
            found.map(|c| (c.size, c.root, c.signature)),
            expected.copied()
        );
        let found = reader.cover_at_or_before(log, size).unwrap();
        let expected = model.covers.iter().rfind(|(at, _)| *at <= size);
        assert_eq!(found.map(|c| (c.size, c.cover.to_vec())), expected.cloned());
        let found = reader.cover_at_or_after(log, size).unwrap();
        let expected = model.covers.iter().find(|(at, _)| *at >= size);
        assert_eq!(found.map(|c| (c.size, c.cover.to_vec())), expected.cloned());
    }
}

#[test]
fn readers_on_other_threads_see_whole_commits_only() {
    let disk = SimDisk::new();
    let mut dice = Dice(10);
    let mut model = Model::new();
    let mut journal = create(&disk, SMALL, 1);
    let log = journal.open_log(birth(1)).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = journal.reader();
        let done = &done;
        let watching = scope.spawn(move || {
            let mut next = 0;
            let mut last_leaf = [0; 32];
            loop {
                // Asked before the size, so that nothing committed before it is missed.
                let finished = done.load(std::sync::atomic::Ordering::SeqCst);
                let size = reader.size(log).unwrap_or(0);
                assert_eq!(size % 4, 0, "a part of a commit is visible");
                while next < size {
                    for run in reader.read(log, next, 64, 1 << 16).unwrap() {
                        for stored in run.iter() {
                            assert_eq!(stored.sequence, next);
                            assert_eq!(stored.entry[14..46], last_leaf);
                            last_leaf = countersign_tlog::leaf_hash(stored.entry);
                            assert_eq!(reader.leaf_hash(log, next).unwrap(), last_leaf);
                            next += 1;
                        }
                    }
                }
                if finished {
                    return next;
                }
            }
        });
        for _ in 0..400 {
            let part = model
                .entry(1)
                .or_default()
                .part(log, PartOptions::events(4), &mut dice);
            journal.commit(vec![part]).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(watching.join().unwrap(), 1600);
    });
}
