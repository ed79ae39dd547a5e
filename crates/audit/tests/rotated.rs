//! Ranges of a log whose key was rotated: the checkpoint is newer than the entries that are here.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use countersign_crypto::SigningKey;
use countersign_event::documents::{KeyStatement, Role, RoleKey};
use countersign_event::dsse::Envelope;
use countersign_event::time::Timestamp;
use support::*;

/// When the key that signs the checkpoint began, in entries.
const BEGUN: u64 = 500;

fn statement(
    org: &Org,
    number: u64,
    made: u64,
    logs: &[(&SigningKey, u64, Option<u64>)],
) -> Envelope {
    let key = |role, key: &SigningKey, from, until: Option<u64>| RoleKey {
        role,
        key: key.public(),
        from: Timestamp(T0 + from),
        until: until.map(|until| Timestamp(T0 + until)),
    };
    let mut keys = vec![
        key(Role::Agreement, &org.agreement, 0, None),
        key(Role::Receipt, &org.receipt, 0, None),
    ];
    keys.extend(
        logs.iter()
            .map(|(log, from, until)| key(Role::Log, log, *from, *until)),
    );
    KeyStatement {
        authority: org.authority.clone(),
        name: "An organization".to_owned(),
        organization: org.organization.public(),
        number,
        made: Timestamp(T0 + made),
        keys,
        succession: Vec::new(),
    }
    .sign_with(&org.organization)
}

/// The verdict on a range of a log that one key began and another, which signs the checkpoint, goes on with.
fn judge(range: (u64, u64), until: Option<u64>, more: &[Envelope]) -> u8 {
    let mut world = World::undecided(600);
    let first = SigningKey::from_seed(&[88; 32]);
    let own = &world.producer.log.clone();
    let statements = [
        statement(&world.producer, 1, 0, &[(&first, 0, None)]),
        statement(
            &world.producer,
            2,
            BEGUN,
            &[(&first, 0, Some(9999)), (own, BEGUN, until)],
        ),
    ];
    world.ledger = None;
    world.documents.truncate(2);
    world.documents.remove(0);
    world.documents.extend(statements);
    world.documents.extend(more.iter().cloned());
    (world.from, world.to) = range;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bundle");
    world.write(&path);
    code(&path, &world.producer.trust())
}

#[test]
fn a_range_from_before_the_key_began_is_whole_under_it() {
    assert_eq!(judge((0, 600), None, &[]), 0);
    assert_eq!(judge((0, 200), None, &[]), 0);
    assert_eq!(judge((100, 200), None, &[]), 0);
    assert_eq!(judge((512, 600), None, &[]), 0);
}

#[test]
fn a_key_that_had_ended_or_was_let_go_does_not_count_for_what_was_before() {
    // Ended before the last entry here.
    assert_eq!(judge((256, 512), Some(505), &[]), 6);
    let org = Org::new(1);
    let other = SigningKey::from_seed(&[87; 32]);
    let newest = statement(&org, 3, 700, &[(&other, 700, None)]);
    // The newest no longer has it: of a range nothing says when it signed, of the whole log its last entry does.
    assert_eq!(judge((0, 200), None, std::slice::from_ref(&newest)), 9);
    assert_eq!(judge((0, 600), None, &[newest]), 0);
}
