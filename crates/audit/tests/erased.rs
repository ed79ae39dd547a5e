//! Content that is gone: a bundle is whole where every entry without content is allowed by a control entry that is in it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use countersign_audit::{EXIT_INCONCLUSIVE, EXIT_WHOLE, Report};
use countersign_event::control::{EXPIRY, TOMBSTONE};
use support::*;

const SIZE: u64 = 600;

fn tombstone(sequence: u64) -> String {
    format!("{{\"sequence\":{sequence},\"reason\":\"asked for\"}}")
}

fn expiry(below: u64) -> String {
    format!("{{\"below\":{below},\"policy\":\"{}=\"}}", "A".repeat(43))
}

/// The report on a bundle of a world, written and read.
fn judge(world: &World) -> Report {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bundle");
    world.write(&path);
    verify(&path, &world.producer.trust())
}

/// The verdict on a log with these control entries of which these contents are not there.
#[track_caller]
fn check(
    controls: &[(u64, &str, String)],
    withheld: &[u64],
    range: Option<(u64, u64)>,
    expected: u8,
) {
    let mut world = World::with_controls(Org::new(1), Org::new(2), SIZE, controls);
    world.stream.withheld = withheld.to_vec();
    if let Some((from, to)) = range {
        (world.from, world.to) = (from, to);
        world.ledger = None;
        world.documents.truncate(3);
        world.decisions.clear();
        world.policies.clear();
    }
    let report = judge(&world);
    assert_eq!(report.verdict.exit_code(), expected, "{report}");
    if expected == EXIT_WHOLE && !withheld.is_empty() {
        let said = format!("{} contents erased or expired", withheld.len());
        assert!(report.to_string().contains(&said), "{report}");
    }
}

#[test]
fn what_a_tombstone_or_expiry_in_the_bundle_allows_is_whole() {
    let controls = [
        (300, TOMBSTONE, tombstone(7)),
        (301, TOMBSTONE, tombstone(255)),
        (400, EXPIRY, expiry(5)),
    ];
    check(&controls, &[], None, EXIT_WHOLE);
    check(&controls, &[7, 255], None, EXIT_WHOLE);
    check(&controls, &[1, 2, 3, 4, 7, 255], None, EXIT_WHOLE);
    // A range, with what allows it.
    check(&controls, &[255], Some((250, 310)), EXIT_WHOLE);
}

#[test]
fn what_nothing_here_allows_leaves_the_verdict_open() {
    let both = [(300, TOMBSTONE, tombstone(7)), (400, EXPIRY, expiry(5))];
    for (withheld, why) in [
        (vec![8], "another event"),
        (vec![5], "the first that did not expire"),
        (vec![7, 301], "one of two"),
        (vec![0], "a control entry below the expiry"),
        (vec![7, 300], "the tombstone itself is not disclosed"),
        (vec![2, 400], "the expiry itself is not disclosed"),
        (vec![500], "behind both"),
    ] {
        println!("{why}");
        check(&both, &withheld, None, EXIT_INCONCLUSIVE);
    }
    // What would allow it lies beyond the range.
    check(&both, &[7], Some((0, 256)), EXIT_INCONCLUSIVE);
}

#[test]
fn a_control_entry_allows_only_what_lies_before_it_and_only_if_it_is_well_formed() {
    for (control, withheld) in [
        ((100, TOMBSTONE, tombstone(200)), 200),
        ((100, TOMBSTONE, tombstone(100)), 100),
        ((100, EXPIRY, expiry(500)), 200),
        ((300, TOMBSTONE, "{\"sequence\":7}".to_owned()), 7),
        (
            (
                300,
                TOMBSTONE,
                "{\"sequence\":7,\"reason\":\"\",\"more\":1}".to_owned(),
            ),
            7,
        ),
        (
            (
                300,
                TOMBSTONE,
                "{\"sequence\":7,\"sequence\":7,\"reason\":\"\"}".to_owned(),
            ),
            7,
        ),
        ((300, TOMBSTONE, "[7,\"\"]".to_owned()), 7),
        (
            (300, EXPIRY, "{\"below\":9,\"policy\":\"x\"}".to_owned()),
            7,
        ),
        (
            (300, "dev.countersign.control.tombstone.v2", tombstone(7)),
            7,
        ),
    ] {
        check(&[control], &[withheld], None, EXIT_INCONCLUSIVE);
    }
    // What it says too much of is cut, and the rest holds.
    check(&[(100, EXPIRY, expiry(500))], &[50], None, EXIT_WHOLE);
}

#[test]
fn an_event_that_only_looks_like_a_tombstone_allows_nothing() {
    let mut world = World::new(SIZE);
    let mut stream = Log::new(&world.producer, world.stream.origin.clone());
    while stream.size() < SIZE {
        let kind = countersign_event::entry::Kind::Event;
        stream.append(kind, TOMBSTONE, &tombstone(7));
    }
    stream.withheld = vec![7];
    world.stream = stream;
    world.ledger = None;
    world.documents.truncate(3);
    world.decisions.clear();
    world.policies.clear();
    let report = judge(&world);
    assert_eq!(report.verdict.exit_code(), EXIT_INCONCLUSIVE, "{report}");
}
