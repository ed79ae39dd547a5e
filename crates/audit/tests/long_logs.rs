//! Logs so long that several workers judge them, in several groups of runs: nothing is lost where one hands over to the next.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use countersign_audit::{Check, Outcome, Verdict};
use countersign_event::entry::{Entry, leaf_hash};
use countersign_event::time::Timestamp;
use countersign_tlog::MemoryTree;
use support::*;

/// 18 runs of 256: two whole groups of eight runs, and a part of a third.
const ENTRIES: u64 = 4_400;

/// What is wrong, and how it is made so.
type Spoil = (&'static str, fn(&mut Entry));

#[test]
fn a_long_log_is_whole_with_its_sums_and_roots_within() {
    let world = World::undecided(ENTRIES);
    let report = report_of(&world);
    // The receipts of this world state events, bytes and roots at the middle of a run and at the end.
    let documents = line(&report, Check::Documents);
    assert!(matches!(documents, Outcome::Done { .. }), "{report}");
    assert!(
        !matches!(report.verdict, Verdict::Failed { .. }),
        "{report}"
    );
}

#[test]
fn a_log_that_signs_a_wrong_link_or_time_is_found_wherever_a_run_or_a_group_begins() {
    let spoil: [Spoil; 2] = [
        ("link", |entry| entry.prev = [7; 32]),
        ("time", |entry| entry.time = Timestamp(T0)),
    ];
    for (name, spoil) in spoil {
        for sequence in [255, 256, 257, 2_047, 2_048, 2_049, 4_096, ENTRIES - 1] {
            let mut world = World::undecided(ENTRIES);
            sign_anew(&mut world.stream, sequence, spoil);
            let report = report_of(&world);
            let Outcome::Failed { first, count } = line(&report, Check::Chain) else {
                panic!("{name} {sequence}: {report}")
            };
            assert_eq!((first.sequence, *count), (Some(sequence), 1), "{name}");
        }
    }
}

/// Makes the log go on from a spoiled entry as its owner could: later entries, tree and checkpoint fit what is there.
fn sign_anew(log: &mut Log, from: u64, spoil: fn(&mut Entry)) {
    for sequence in usize::try_from(from).unwrap()..log.entries.len() {
        let mut entry = Entry::decode(&log.entries[sequence]).unwrap();
        entry.prev = leaf_hash(&log.entries[sequence - 1]);
        if sequence as u64 == from {
            spoil(&mut entry);
        }
        log.entries[sequence] = entry.encode();
    }
    log.tree = MemoryTree::new();
    log.roots.truncate(1);
    for entry in &log.entries {
        log.tree.append(leaf_hash(entry));
        log.roots.push(log.tree.compact_range().root());
    }
}

fn report_of(world: &World) -> countersign_audit::Report {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bundle");
    world.write(&path);
    verify(&path, &world.producer.trust())
}

fn line(report: &countersign_audit::Report, check: Check) -> &Outcome {
    let line = report.checks.iter().find(|line| line.check == check);
    &line.unwrap().outcome
}
