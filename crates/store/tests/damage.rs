//! Every byte of a small journal is flipped, segments are cut, swapped and pasted over: each is reported or harmless.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::path::{Path, PathBuf};

use countersign_store::journal::{DamagedRange, Journal, OpenError, Options, ReadError, Recovery};
use countersign_store::sim::SimDisk;

use support::{Dice, Model, PartOptions, birth, check_log, create, dir, open};

/// Nothing is kept in memory, so that every read is one from the disk.
const COLD: Options = Options {
    segment_bytes: 8 << 10,
    cache_bytes: 0,
};

/// Three segments and a bit of two logs, closed cleanly, so that everything is below a recorded head.
fn small_journal() -> (SimDisk, Model) {
    let disk = SimDisk::new();
    let mut model = Model::new();
    let mut dice = Dice(21);
    let mut journal = create(&disk, COLD, 1);
    let logs = [1, 2].map(|number| journal.open_log(birth(number)).unwrap());
    for round in 0..11u64 {
        let mut parts = Vec::new();
        for log in logs {
            if log.value() == 1 || round % 4 == 0 {
                let options = PartOptions {
                    annotation: vec![1; 9],
                    cover: vec![2; usize::try_from(round % 3).unwrap() * 20],
                    sign: round % 2 == 0,
                    content_bytes_max: 60,
                    events: 1 + usize::try_from(dice.below(4)).unwrap(),
                    absent: false,
                    erasures: Vec::new(),
                };
                let model = model.entry(log.value()).or_default();
                parts.push(model.part(log, options, &mut dice));
            }
        }
        journal.commit(parts).unwrap();
    }
    journal.close().unwrap();
    let segments = disk.files().iter().filter(|path| is_segment(path)).count();
    assert_eq!(segments, 3);
    (disk, model)
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "seg")
}

fn segment(number: u32) -> PathBuf {
    dir().join(format!("segments/{number:08}.seg"))
}

fn tampered(disk: &SimDisk, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> SimDisk {
    let disk = disk.fork();
    let mut bytes = disk.contents(path).unwrap();
    change(&mut bytes);
    disk.tamper(path, bytes);
    disk
}

/// Opens and reads everything. The answer says whether damage was reported; wrong or fewer entries fail the test.
fn reported_or_right(disk: &SimDisk, model: &Model, what: &str) -> bool {
    let before = disk.fork();
    match open(disk, COLD, 5) {
        Ok((journal, _)) => {
            let mut reported = false;
            for info in journal.logs() {
                let model = &model[&info.number.value()];
                assert_eq!(
                    journal.reader().size(info.number),
                    Some(model.range.size()),
                    "{what}: shortened"
                );
                if let Err(error) = check_log(&journal.reader(), info.number, model) {
                    assert!(error.contains("damaged"), "{what}: {error}");
                    reported = true;
                }
            }
            assert_eq!(journal.logs().len(), model.len(), "{what}: a log is gone");
            reported
        }
        Err(OpenError::Damage(ranges)) => {
            assert!(!ranges.is_empty());
            assert_untouched(&before, disk, what);
            true
        }
        Err(OpenError::Heads(_) | OpenError::Newer { .. }) => {
            assert_untouched(&before, disk, what);
            true
        }
        Err(other) => panic!("{what}: {other}"),
    }
}

fn assert_untouched(before: &SimDisk, after: &SimDisk, what: &str) {
    for path in before.files() {
        assert_eq!(
            before.contents(&path),
            after.contents(&path),
            "{what}: {path:?}"
        );
    }
}

fn damage(result: Result<(Journal, Recovery), OpenError>) -> Vec<DamagedRange> {
    match result {
        Err(OpenError::Damage(ranges)) => ranges,
        Ok(_) => panic!("no damage reported"),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn every_flipped_byte_is_reported_or_harmless() {
    let (disk, model) = small_journal();
    assert!(!reported_or_right(&disk.fork(), &model, "untouched"));
    let mut in_commits = 0;
    for path in disk.files() {
        let length = disk.contents(&path).unwrap().len();
        for at in 0..length {
            let what = format!("{} byte {at}", path.display());
            let flip = |bytes: &mut Vec<u8>| bytes[at] ^= 1 << (at % 8);
            let reported = reported_or_right(&tampered(&disk, &path, flip), &model, &what);
            if is_segment(&path) && reported {
                in_commits += 1;
            }
        }
    }
    // Beside padding and the zeros behind the last commit, all of a segment counts.
    assert!(in_commits > 11_000, "{in_commits}");
}

#[test]
fn a_missing_file_is_refused_or_made_again() {
    let (disk, model) = small_journal();
    for path in disk.files() {
        let disk = disk.fork();
        disk.tamper_remove(&path);
        let what = format!("{} removed", path.display());
        let reported = reported_or_right(&disk, &model, &what);
        let needed = is_segment(&path) || path.ends_with("heads");
        assert_eq!(reported, needed, "{what}");
    }
}

#[test]
fn a_last_segment_cut_at_any_byte_starts_whole_or_names_what_is_missing() {
    let disk = SimDisk::new();
    let mut model = Model::new();
    let mut dice = Dice(22);
    let mut journal = create(&disk, COLD, 1);
    let log = journal.open_log(birth(1)).unwrap();
    // The head of the third commit is durable; the fourth and fifth are not in the head file that survives.
    let mut recorded = None;
    let mut sizes = Vec::new();
    for commit in 1..=5 {
        let part = model
            .entry(1)
            .or_default()
            .part(log, PartOptions::events(3), &mut dice);
        journal.commit(vec![part]).unwrap();
        sizes.push(model[&1].range.size());
        if commit == 3 {
            recorded = Some((disk.contents(&dir().join("heads")).unwrap(), model.clone()));
        }
    }
    drop(journal);
    let (heads, at_head) = recorded.unwrap();
    disk.tamper(&dir().join("heads"), heads);
    let path = segment(1);
    let ends = commit_ends(&disk.contents(&path).unwrap());
    assert_eq!(ends.len(), 5);
    for cut in 0..disk.contents(&path).unwrap().len() {
        let disk = tampered(&disk, &path, |bytes| bytes.truncate(cut));
        match open(&disk, COLD, 5) {
            Ok((journal, _)) => {
                assert!(
                    cut >= ends[2],
                    "cut at {cut}: started below the recorded head"
                );
                let whole = ends.iter().filter(|&&end| end <= cut).count();
                assert_eq!(journal.reader().size(log), Some(sizes[whole - 1]));
                let mut shorter = at_head[&1].clone();
                if whole == 3 {
                    check_log(&journal.reader(), log, &shorter).unwrap();
                }
                // It goes on from there.
                let mut journal = journal;
                if whole == 3 {
                    let part = shorter.part(log, PartOptions::events(1), &mut dice);
                    journal.commit(vec![part]).unwrap();
                    check_log(&journal.reader(), log, &shorter).unwrap();
                }
            }
            other => {
                assert!(cut < ends[2], "cut at {cut}: refused");
                let ranges = damage(other);
                assert_eq!(ranges.len(), 1);
                let whole = ends.iter().filter(|&&end| end <= cut).count();
                let first = whole.checked_sub(1).map_or(0, |at| sizes[at]);
                assert_eq!((ranges[0].first, ranges[0].end), (first, Some(sizes[2])));
                assert_eq!(ranges[0].file, path);
                let origin = (whole > 0).then(|| birth(1).origin);
                assert_eq!(ranges[0].origin, origin, "cut at {cut}");
            }
        }
    }
}

/// Where each commit's bytes end, without padding.
fn commit_ends(segment: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    for at in (512..segment.len()).step_by(512) {
        if segment[at..].starts_with(b"CSCOMT\r\n") {
            let length = u64::from_be_bytes(segment[at + 80..at + 88].try_into().unwrap());
            ends.push(at + usize::try_from(length).unwrap());
        }
    }
    ends
}

#[test]
fn old_blocks_and_garbage_behind_the_last_commit_are_cut() {
    let (disk, model) = small_journal();
    let (last, first) = (segment(3), segment(1));
    let old = disk.contents(&first).unwrap();
    let end = commit_ends(&disk.contents(&last).unwrap())
        .last()
        .unwrap()
        .next_multiple_of(512);
    let own = disk.contents(&last).unwrap()[512..end].to_vec();
    let mut dice = Dice(23);
    for (what, tail) in [
        ("an older segment's blocks", old[512..].to_vec()),
        ("this segment's blocks", own),
        (
            "garbage",
            (0..6000)
                .map(|_| u8::try_from(dice.below(256)).unwrap())
                .collect(),
        ),
        ("ones", vec![255; 3000]),
        ("zeros", vec![0; 3000]),
    ] {
        for shift in [0, 512, 100] {
            let disk = tampered(&disk, &last, |bytes| {
                let start = end + shift;
                let len = tail.len().min(bytes.len() - start);
                bytes[start..start + len].copy_from_slice(&tail[..len]);
            });
            let (journal, recovery) = open(&disk, COLD, 5).unwrap();
            assert_eq!(recovery.cut.is_empty(), what == "zeros", "{what}");
            for info in journal.logs() {
                check_log(&journal.reader(), info.number, &model[&info.number.value()]).unwrap();
            }
            drop(journal);
            let (_, recovery) = open(&disk, COLD, 6).unwrap();
            assert!(recovery.cut.is_empty(), "{what}: cut twice");
        }
    }
}

#[test]
fn swapped_segments_commits_and_parts_are_refused() {
    let (disk, model) = small_journal();
    let contents = |number| disk.contents(&segment(number)).unwrap();
    for (a, b) in [(1, 2), (2, 3), (1, 3)] {
        let disk = disk.fork();
        disk.tamper(&segment(a), contents(b));
        disk.tamper(&segment(b), contents(a));
        damage(open(&disk, COLD, 5));
    }
    // Any two sectors of the last segment that hold something, with those of another segment too.
    let used = |number| {
        let bytes = contents(number);
        let end = commit_ends(&bytes).last().copied().unwrap();
        (512..end).step_by(512).map(move |at| (number, at))
    };
    let sectors: Vec<(u32, usize)> = used(1).chain(used(3)).collect();
    for (at, &(a, from)) in sectors.iter().enumerate() {
        for &(b, to) in &sectors[at + 1..] {
            let sector_a = contents(a)[from..from + 512].to_vec();
            let sector_b = contents(b)[to..to + 512].to_vec();
            if sector_a == sector_b {
                continue;
            }
            let put = |disk: &SimDisk, number, at: usize, sector: &[u8]| {
                tampered(disk, &segment(number), |bytes| {
                    bytes[at..at + 512].copy_from_slice(sector);
                })
            };
            let disk = put(&put(&disk, a, from, &sector_b), b, to, &sector_a);
            let what = format!("sectors {a}:{from} and {b}:{to}");
            assert!(reported_or_right(&disk, &model, &what), "{what}");
        }
    }
}

#[test]
fn damage_names_log_file_offset_and_range_and_leaves_the_rest_readable() {
    let (disk, model) = small_journal();
    let path = segment(1);
    let end = commit_ends(&disk.contents(&path).unwrap())[0];
    // The last content byte of the first commit.
    let disk = tampered(&disk, &path, |bytes| bytes[end - 1] ^= 1);
    let (journal, _) = open(&disk, COLD, 5).unwrap();
    let reader = journal.reader();
    let log = journal.logs()[1].number;
    let last_of_first_part = (0..model[&2].range.size())
        .find_map(|sequence| match reader.read(log, sequence, 1, u64::MAX) {
            Err(ReadError::Damage(range)) => Some((sequence, *range)),
            _ => None,
        })
        .unwrap();
    let (sequence, range) = last_of_first_part;
    assert_eq!(range.origin, Some(birth(2).origin));
    assert_eq!(range.file, path);
    assert!(range.offset >= 512 && range.offset < end as u64);
    assert!(range.first <= sequence && range.end == Some(sequence + 1));
    reader.read(log, sequence + 1, 1, u64::MAX).unwrap();
}

#[test]
fn a_damaged_head_slot_is_reported_and_written_again() {
    let (disk, model) = small_journal();
    let path = dir().join("heads");
    for at in [512 + 20, 1024 + 20, 1024 + 128 + 127] {
        let disk = tampered(&disk, &path, |bytes| bytes[at] ^= 1);
        let (journal, recovery) = open(&disk, COLD, 5).unwrap();
        assert_eq!(recovery.warnings.len(), 1);
        drop(journal);
        let (journal, recovery) = open(&disk, COLD, 5).unwrap();
        assert!(recovery.warnings.is_empty());
        for info in journal.logs() {
            check_log(&journal.reader(), info.number, &model[&info.number.value()]).unwrap();
        }
    }
}

#[test]
fn damage_before_a_later_commit_is_refused_though_no_head_records_it() {
    let disk = SimDisk::new();
    let mut model = Model::new();
    let mut dice = Dice(24);
    let mut journal = create(&disk, COLD, 1);
    let log = journal.open_log(birth(1)).unwrap();
    let mut old_heads = Vec::new();
    for commit in 1..=5 {
        let model = model.entry(1).or_default();
        let part = model.part(log, PartOptions::events(3), &mut dice);
        journal.commit(vec![part]).unwrap();
        if commit == 3 {
            old_heads = disk.contents(&dir().join("heads")).unwrap();
        }
    }
    drop(journal);
    disk.tamper(&dir().join("heads"), old_heads);
    let path = segment(1);
    let ends = commit_ends(&disk.contents(&path).unwrap());
    let start = ends[2].next_multiple_of(512);
    for at in start..ends[3] {
        let disk = tampered(&disk, &path, |bytes| bytes[at] ^= 1);
        let before = disk.fork();
        let ranges = damage(open(&disk, COLD, 5));
        assert_eq!((ranges[0].first, ranges[0].end), (9, Some(12)), "byte {at}");
        assert_eq!(ranges[0].offset, start as u64);
        assert_untouched(&before, &disk, "refused");
    }
    // The last commit alone is beyond every record of it: a torn write looks the same, and is cut.
    let start = ends[3].next_multiple_of(512);
    for at in start..ends[4] {
        let disk = tampered(&disk, &path, |bytes| bytes[at] ^= 1);
        let (journal, recovery) = open(&disk, COLD, 5).unwrap();
        assert_eq!(journal.reader().size(log), Some(12), "byte {at}");
        assert_eq!(recovery.cut.len(), 1);
        assert_eq!(recovery.cut[0].offset, start as u64);
    }
}

#[test]
fn a_newer_format_is_refused_with_nothing_written() {
    let (disk, _) = small_journal();
    let disk = tampered(&disk, &dir().join("heads"), |bytes| {
        bytes[11] = 2;
        let crc = crc32c::crc32c(&bytes[..508]);
        bytes[508..512].copy_from_slice(&crc.to_be_bytes());
    });
    let before = disk.fork();
    let refused = open(&disk, COLD, 5);
    assert!(matches!(
        refused,
        Err(OpenError::Newer { found: 2, known: 1 })
    ));
    assert_untouched(&before, &disk, "refused");
}

#[test]
fn commits_of_another_segment_id_never_pass_as_this_segments() {
    let (disk, _) = small_journal();
    for number in 1..=3 {
        // Without the index too: it names the id as well.
        for keep_index in [true, false] {
            let disk = tampered(&disk, &segment(number), |bytes| {
                bytes[16] ^= 1;
                let crc = crc32c::crc32c(&bytes[..508]);
                bytes[508..512].copy_from_slice(&crc.to_be_bytes());
            });
            if !keep_index {
                disk.tamper_remove(&segment(number).with_extension("idx"));
            }
            damage(open(&disk, COLD, 5));
        }
    }
}

#[test]
fn a_segment_of_a_forked_copy_of_the_journal_is_refused() {
    let disk = SimDisk::new();
    let mut model = Model::new();
    let mut journal = create(&disk, COLD, 1);
    let log = journal.open_log(birth(1)).unwrap();
    let part = model
        .entry(1)
        .or_default()
        .part(log, PartOptions::events(2), &mut Dice(25));
    journal.commit(vec![part]).unwrap();
    journal.close().unwrap();
    // Two lives of the same journal with commits of the same shape.
    let [one, other] = [26, 27].map(|seed| {
        let (disk, mut model, mut dice) = (disk.fork(), model.clone(), Dice(seed));
        let (mut journal, _) = open(&disk, COLD, seed).unwrap();
        for _ in 0..12 {
            let mut shape = PartOptions::events(3);
            shape.content_bytes_max = 1;
            let part = model.entry(1).or_default().part(log, shape, &mut dice);
            journal.commit(vec![part]).unwrap();
        }
        journal.close().unwrap();
        (disk, model)
    });
    let ((one, model), (other, _)) = (one, other);
    let files: Vec<PathBuf> = one
        .files()
        .into_iter()
        .filter(|path| is_segment(path))
        .collect();
    assert!(files.len() >= 2 && one.files() == other.files());
    for path in files {
        for index_too in [true, false] {
            let disk = one.fork();
            disk.tamper(&path, other.contents(&path).unwrap());
            let index = path.with_extension("idx");
            if index_too && let Some(bytes) = other.contents(&index) {
                disk.tamper(&index, bytes);
            }
            let what = format!("{} of the other life", path.display());
            assert!(reported_or_right(&disk, &model, &what), "{what}");
        }
    }
}

#[test]
fn a_sealed_segment_is_below_a_durable_head() {
    let disk = SimDisk::new();
    let mut model = Model::new();
    let mut dice = Dice(28);
    let mut journal = create(&disk, COLD, 1);
    let log = journal.open_log(birth(1)).unwrap();
    while disk.contents(&segment(2)).is_none() {
        let model = model.entry(1).or_default();
        let part = model.part(log, PartOptions::events(3), &mut dice);
        journal.commit(vec![part]).unwrap();
    }
    // Power fails; of the first commit in the new segment nothing is left, and the last one before it is damaged. Only
    // the head file can tell that this is no torn tail.
    let disk = disk.after_worst_power_loss();
    let disk = tampered(&disk, &segment(2), |bytes| bytes[512..].fill(0));
    let end = *commit_ends(&disk.contents(&segment(1)).unwrap())
        .last()
        .unwrap();
    let disk = tampered(&disk, &segment(1), |bytes| bytes[end - 1] ^= 1);
    match open(&disk, COLD, 5) {
        // Content below a recorded head: the start goes on, the read says it.
        Ok((journal, recovery)) => {
            assert!(recovery.cut.is_empty());
            let reader = journal.reader();
            let size = reader.size(log).unwrap();
            let read = reader.read(log, size - 1, 1, u64::MAX);
            assert!(matches!(read, Err(ReadError::Damage(_))));
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_commit_of_a_forked_copy_is_refused_even_where_it_holds_no_entries() {
    let disk = SimDisk::new();
    let mut model = Model::new();
    let mut journal = create(&disk, COLD, 1);
    let log = journal.open_log(birth(1)).unwrap();
    let part = model
        .entry(1)
        .or_default()
        .part(log, PartOptions::events(2), &mut Dice(29));
    journal.commit(vec![part]).unwrap();
    journal.close().unwrap();
    let [one, other] = [1, 2].map(|life| {
        let (disk, mut model, mut dice) = (disk.fork(), model.clone(), Dice(30));
        let (mut journal, _) = open(&disk, COLD, 2).unwrap();
        for _ in 0..3 {
            let mut shape = PartOptions::events(0);
            shape.annotation = vec![life; 9];
            let part = model.entry(1).or_default().part(log, shape, &mut dice);
            journal.commit(vec![part]).unwrap();
        }
        journal.close().unwrap();
        disk
    });
    let path = segment(1);
    let foreign = other.contents(&path).unwrap();
    let ends = commit_ends(&foreign);
    for pair in ends.windows(2) {
        let range = pair[0].next_multiple_of(512)..pair[1];
        let disk = tampered(&one, &path, |bytes| {
            bytes[range.clone()].copy_from_slice(&foreign[range.clone()]);
        });
        damage(open(&disk, COLD, 5));
    }
}
