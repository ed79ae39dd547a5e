//! Erased content: refused to readers at once, gone from every file, named by the control entry that allows it; zeros without one are damage.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use countersign_crypto::SeededEntropy;
use countersign_store::disk::RealDisk;
use countersign_store::journal::{
    Broken, CommitError, ContentInput, Erasure, Flaw, Journal, LogNumber, Options, ReadError,
};
use countersign_store::sim::SimDisk;

use support::{Dice, Model, PartOptions, SMALL, birth, check_all, check_gone, create, open};

/// A log of 20 entries, in two commits.
fn twenty(disk: &SimDisk) -> (Journal, Model, LogNumber) {
    let mut journal = create(disk, SMALL, 1);
    let log = journal.open_log(birth(1)).unwrap();
    let mut model = Model::new();
    let mut dice = Dice(5);
    for _ in 0..2 {
        let part =
            model
                .entry(log.value())
                .or_default()
                .part(log, PartOptions::events(10), &mut dice);
        journal.commit(vec![part]).unwrap();
    }
    (journal, model, log)
}

fn erase(journal: &mut Journal, model: &mut Model, log: LogNumber, first: u64, end: u64) {
    let by = 30;
    let options = PartOptions {
        erasures: vec![Erasure { first, end, by }],
        ..PartOptions::events(1)
    };
    let part = model
        .entry(log.value())
        .or_default()
        .part(log, options, &mut Dice(6));
    journal.commit(vec![part]).unwrap();
}

#[test]
fn erased_content_is_refused_at_once_and_gone_after() {
    let disk = SimDisk::new();
    let (mut journal, mut model, log) = twenty(&disk);
    let reader = journal.reader();
    // Read whole before, so that every cache has seen it.
    check_all(&reader, &model).unwrap();
    erase(&mut journal, &mut model, log, 3, 12);
    check_all(&reader, &model).unwrap();
    assert!(
        check_gone(&disk, &model).is_err(),
        "nothing is overwritten yet"
    );
    assert!(journal.is_erasing());
    let mut steps = 0;
    while journal.erase_some(100).unwrap() {
        check_all(&reader, &model).unwrap();
        steps += 1;
    }
    assert!(steps > 2, "it goes in steps: {steps}");
    check_all(&reader, &model).unwrap();
    check_gone(&disk, &model).unwrap();
    check_gone(&disk.after_worst_power_loss(), &model).unwrap();
    for sequence in 0..21 {
        let erased = model[&log.value()].erased.get(&sequence).copied();
        let run = &reader.read(log, sequence, 1, 0).unwrap()[0];
        let stored = run.iter().next().unwrap();
        assert_eq!(stored.erased_by, erased, "entry {sequence}");
        assert_eq!(stored.content.is_empty(), erased.is_some());
        assert_eq!(run.contents().next().unwrap().is_absent(), erased.is_some());
    }
    drop(journal);
    let (journal, recovery) = open(&disk.after_power_loss(1), SMALL, 2).unwrap();
    assert!(
        recovery.cut.is_empty() && !journal.is_erasing(),
        "{recovery:?}"
    );
    check_all(&journal.reader(), &model).unwrap();
}

#[test]
fn what_a_crash_left_is_overwritten_at_the_next_start() {
    let disk = SimDisk::new();
    let (mut journal, mut model, log) = twenty(&disk);
    erase(&mut journal, &mut model, log, 0, 20);
    assert!(journal.erase_some(100).unwrap());
    drop(journal);
    let disk = disk.after_worst_power_loss();
    let (mut journal, _) = open(&disk, SMALL, 2).unwrap();
    check_all(&journal.reader(), &model).unwrap();
    while journal.erase_some(1 << 20).unwrap() {}
    check_gone(&disk.after_worst_power_loss(), &model).unwrap();
}

#[test]
fn zeros_that_no_erasure_names_are_damage() {
    let disk = SimDisk::new();
    let (journal, model, log) = twenty(&disk);
    drop(journal);
    let content = &model[&log.value()].entries[4].1;
    for path in disk.files() {
        let mut bytes = disk.contents(&path).unwrap();
        if let Some(at) = bytes
            .windows(64)
            .position(|window| window == &content[..64])
        {
            bytes[at..at + content.len()].fill(0);
            disk.tamper(&path, bytes);
        }
    }
    // The head file says that these commits were acknowledged.
    let (journal, _) = open(&disk, SMALL, 2).unwrap();
    let read = journal.reader().read(log, 4, 1, 0);
    let Err(ReadError::Damage(damage)) = read else {
        panic!("{read:?}")
    };
    assert_eq!(damage.flaw, Flaw::Content);
}

#[test]
fn an_entry_without_content_is_named_by_an_erasure_of_its_part() {
    let disk = SimDisk::new();
    let (mut journal, mut model, log) = twenty(&disk);
    let options = || PartOptions {
        absent: true,
        erasures: vec![Erasure {
            first: 20,
            end: 23,
            by: 40,
        }],
        ..PartOptions::events(3)
    };
    let part = |options, model: &mut Model| {
        let model = model.entry(log.value()).or_default();
        model.part(log, options, &mut Dice(8))
    };
    let mut unnamed = part(options(), &mut model.clone());
    unnamed.erasures[0].end = 22;
    let refused = |result| {
        matches!(
            result,
            Err(CommitError::Invariant {
                broken: Broken::Erasure,
                ..
            })
        )
    };
    assert!(refused(journal.commit(vec![unnamed])));
    let mut beyond = part(PartOptions::events(1), &mut model.clone());
    beyond.erasures.push(Erasure {
        first: 3,
        end: 22,
        by: 40,
    });
    assert!(refused(journal.commit(vec![beyond])));
    let good = part(options(), &mut model);
    assert!(good.contents.iter().all(ContentInput::is_absent));
    journal.commit(vec![good]).unwrap();
    check_all(&journal.reader(), &model).unwrap();
    while journal.erase_some(1 << 20).unwrap() {}
    drop(journal);
    let (journal, _) = open(&disk.after_worst_power_loss(), SMALL, 2).unwrap();
    check_all(&journal.reader(), &model).unwrap();
}

#[test]
fn room_of_long_runs_goes_back_to_the_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let entropy = Box::new(SeededEntropy::new(1));
    let options = Options {
        segment_bytes: 4 << 20,
        ..SMALL
    };
    let mut journal = Journal::create(Arc::new(RealDisk), &path, options, entropy).unwrap();
    let log = journal.open_log(birth(1)).unwrap();
    let mut model = Model::new();
    for seed in 0..4 {
        let events = PartOptions {
            content_bytes_max: 8000,
            ..PartOptions::events(100)
        };
        let part = model
            .entry(log.value())
            .or_default()
            .part(log, events, &mut Dice(seed));
        journal.commit(vec![part]).unwrap();
    }
    let file = path.join("segments/00000001.seg");
    let blocks = || std::fs::metadata(&file).unwrap().blocks();
    let before = blocks();
    erase(&mut journal, &mut model, log, 0, 400);
    while journal.erase_some(1 << 20).unwrap() {}
    check_all(&journal.reader(), &model).unwrap();
    let bytes = std::fs::read(&file).unwrap();
    let found = |needle: &[u8]| bytes.windows(32).any(|window| window == needle);
    let log = &model[&1];
    for sequence in 0..401 {
        let content = &log.entries[usize::try_from(sequence).unwrap()].1;
        let gone = !found(&content[..32]);
        assert_eq!(gone, log.erased.contains_key(&sequence), "entry {sequence}");
    }
    // Not every file system has holes; where it has, the long runs between control entries are free.
    let after = blocks();
    assert!(
        after == before || after + 100 < before,
        "{before} → {after} sectors"
    );
}
