//! Ledger logs of later generations: none of them counts without just what it goes on from.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use countersign_crypto::Hash;
use countersign_event::entry::Kind;
use countersign_event::names::Origin;
use serde_json::{Value, json};
use support::*;

fn cites(origin: &Origin, size: u64, root: Hash) -> Value {
    let root = serde_json::to_value(countersign_event::documents::Digest(root)).unwrap();
    json!({ "origin": origin.as_str(), "size": size, "root": root })
}

/// Cites a log as it is.
fn of(log: &Log) -> Value {
    cites(&log.origin, log.size(), log.roots[log.size() as usize])
}

/// The successor of a log.
fn successor(world: &World, log: &Log, cites: Option<Value>) -> Log {
    let origin = log.origin.successor([0x1a, 0x2b, 0x3c, 0x4d]).unwrap();
    let mut next = Log::citing(&world.producer, origin, cites);
    next.append(Kind::Event, "dev.countersign.ledger.later.v1", "{}");
    next
}

/// The verdict on a bundle with more ledger logs, and the report.
fn judge(world: &World) -> (u8, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bundle");
    world.write(&path);
    let report = verify(&path, &world.producer.trust());
    (report.verdict.exit_code(), report.to_string())
}

fn world() -> World {
    let mut world = World::undecided(40);
    // Documents that a ledger log here has to hold are another matter.
    world.documents.truncate(2);
    world.ledger = None;
    let mut first = Log::new(
        &world.producer,
        Origin::of_node_ledger(&world.producer.authority),
    );
    for _ in 0..300 {
        first.append(Kind::Event, "dev.countersign.ledger.later.v1", "{}");
    }
    world.ledgers.push(first);
    world
}

#[test]
fn generations_that_go_on_from_each_other_are_whole_in_any_order() {
    for backwards in [false, true] {
        let mut world = world();
        let second = successor(&world, &world.ledgers[0], Some(of(&world.ledgers[0])));
        let third = successor(&world, &second, Some(of(&second)));
        world.ledgers.extend([second, third]);
        if backwards {
            world.ledgers.reverse();
        }
        let (code, said) = judge(&world);
        assert_eq!(code, 0, "{said}");
    }
}

#[test]
fn a_generation_that_is_not_here_leaves_it_open() {
    for missing in 0..2 {
        let mut world = world();
        let second = successor(&world, &world.ledgers[0], Some(of(&world.ledgers[0])));
        let third = successor(&world, &second, Some(of(&second)));
        world.ledgers.extend([second, third]);
        let gone = world.ledgers.remove(missing);
        let (code, said) = judge(&world);
        assert_eq!(code, 9, "{said}");
        let expected = format!("{}, which it goes on from, is not here", gone.origin);
        assert!(said.contains(&expected), "{said}");
    }
}

#[test]
fn what_is_cited_is_what_is_here() {
    let base = world();
    let [first] = &base.ledgers[..] else { panic!() };
    let (origin, size) = (&first.origin, first.size());
    let at = |size: u64| first.roots[size as usize];
    let stream = &base.stream;
    let mut bent = of(first);
    bent["root"] = json!("none");
    let cases = [
        (Some(of(first)), 0, ""),
        (
            Some(cites(origin, size, [7; 32])),
            6,
            "another tree of 301 entries",
        ),
        (
            Some(cites(origin, size - 1, at(size - 1))),
            9,
            "from 300 entries of",
        ),
        (
            Some(cites(origin, size - 1, at(size))),
            6,
            "another tree of 300 entries",
        ),
        (Some(cites(origin, 1, at(1))), 9, "from 1 entries of"),
        (
            Some(cites(origin, size + 1, at(size))),
            9,
            "from 302 entries of",
        ),
        (
            Some(cites(origin, 0, at(0))),
            6,
            "not the log of the generation before",
        ),
        (Some(of(stream)), 6, "not the log of the generation before"),
        (Some(bent), 6, "does not say what the log goes on from"),
        (None, 6, "does not say what the log goes on from"),
    ];
    for (cites, expected, words) in cases {
        let mut world = world();
        let next = successor(&world, &world.ledgers[0], cites.clone());
        world.ledgers.push(next);
        let (code, said) = judge(&world);
        assert_eq!(code, expected, "{cites:?}: {said}");
        assert!(said.contains(words), "{cites:?}: {said}");
    }
}

#[test]
fn a_successor_of_another_subject_or_generation_does_not_go_on_from_it() {
    let mut skipped = world();
    let second = successor(&skipped, &skipped.ledgers[0], None);
    let third = successor(&skipped, &second, Some(of(&skipped.ledgers[0])));
    skipped.ledgers.push(third);
    let mut foreign = world();
    let about = Origin::of_ledger(&foreign.producer.authority, &foreign.consumer.authority);
    let about = Log::new(&foreign.producer, about);
    let next = successor(&foreign, &about, Some(of(&foreign.ledgers[0])));
    foreign.ledgers.push(next);
    for world in [skipped, foreign] {
        let (code, said) = judge(&world);
        assert_eq!(code, 6, "{said}");
        assert!(
            said.contains("not the log of the generation before"),
            "{said}"
        );
    }
}

#[test]
fn a_genesis_entry_that_is_not_disclosed_leaves_it_open() {
    let mut world = world();
    let mut next = successor(&world, &world.ledgers[0], Some(of(&world.ledgers[0])));
    next.withheld.push(0);
    world.ledgers.push(next);
    let (code, said) = judge(&world);
    assert_eq!(code, 9, "{said}");
    assert!(said.contains("is not disclosed"), "{said}");
}
