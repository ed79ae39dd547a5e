//! Organization keys that give their place away, and which log keys count for which heads.

use countersign_crypto::{Hash, PublicKey, SigningKey};
use countersign_event::documents::{
    Digest, Document as _, KeyRevocation, KeyStatement, KeySuccession, LogKeys, RevokedHead, Role,
    RoleKey, Standing, StatementError,
};
use countersign_event::dsse::Envelope;
use countersign_event::names::{Authority, Origin};
use countersign_event::time::Timestamp;
use proptest::prelude::*;

use crate::vectors;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn name() -> Authority {
    Authority::of_key(&key(1).public())
}

fn link(from: u8, to: u8) -> Envelope {
    let made = Timestamp(5_000_000);
    let (from, to) = (key(from), key(to));
    let succession = KeySuccession {
        authority: name(),
        from: from.public(),
        to: to.public(),
        made,
    };
    succession.sign_with(&from, &to)
}

fn statement(organization: u8, succession: &[Envelope]) -> Result<KeyStatement, StatementError> {
    let statement = KeyStatement {
        authority: name(),
        organization: key(organization).public(),
        succession: succession.to_vec(),
        ..vectors::key_statement()
    };
    KeyStatement::verify(&statement.sign_with(&key(organization)))
}

#[test]
fn an_organization_key_speaks_for_the_name_of_the_first_one_only_by_a_line_without_a_gap() {
    let third = statement(3, &[link(1, 2), link(2, 3)]).unwrap();
    let line: Vec<PublicKey> = [1, 2, 3].map(|seed| key(seed).public()).into();
    assert_eq!(third.organization_keys(), line);
    assert!(line.iter().all(|key| third.descends_from(key)));
    assert!(!third.descends_from(&key(4).public()));
    let bytes = third.sign_with(&key(3)).to_json();
    let read = Envelope::from_json(&bytes).unwrap();
    assert_eq!(KeyStatement::verify(&read), Ok(third));
    let by_one_alone = |seed: u8| {
        let succession = KeySuccession {
            authority: name(),
            from: key(1).public(),
            to: key(2).public(),
            made: Timestamp(0),
        };
        succession.sign(&key(seed))
    };
    let foreign = KeySuccession {
        authority: "a.example".parse().unwrap(),
        from: key(1).public(),
        to: key(2).public(),
        made: Timestamp(0),
    };
    let foreign = foreign.sign_with(&key(1), &key(2));
    for (organization, wrong) in [
        (2, vec![]),
        (3, vec![link(1, 2)]),
        (3, vec![link(2, 3)]),
        (3, vec![link(1, 2), link(1, 3)]),
        (3, vec![link(2, 3), link(1, 2)]),
        (1, vec![link(1, 2), link(2, 1)]),
        (2, vec![link(1, 2), link(2, 2)]),
        (2, vec![by_one_alone(1)]),
        (2, vec![by_one_alone(2)]),
        (2, vec![foreign]),
        (2, vec![link(1, 2); 17]),
    ] {
        let refused = statement(organization, &wrong);
        assert!(
            matches!(refused, Err(StatementError::Succession(_))),
            "{refused:?}"
        );
    }
}

#[test]
fn a_revocation_by_a_later_organization_key_brings_its_line_along() {
    let revocation = KeyRevocation {
        authority: name(),
        organization: key(2).public(),
        key: key(31).public(),
        role: Role::Node,
        reason: "lost".to_owned(),
        made: Timestamp(0),
        heads: Vec::new(),
        succession: vec![link(1, 2)],
    };
    KeyRevocation::verify(&revocation.sign_with(&key(2))).unwrap();
    let without = KeyRevocation {
        succession: Vec::new(),
        ..revocation
    };
    KeyRevocation::verify(&without.sign_with(&key(2))).unwrap_err();
}

/// What the judgement comes to, said again: from the statement and the revocations one by one.
fn expected(
    keys: &[RoleKey],
    revocations: &[KeyRevocation],
    origin: &Origin,
    (signer, size, root): (&PublicKey, u64, Hash),
    now: Timestamp,
) -> Standing {
    let Some(stated) = keys
        .iter()
        .find(|key| key.role == Role::Log && key.key == *signer)
    else {
        return Standing::Unknown;
    };
    let mut revoked = false;
    let mut vouched = true;
    for revocation in revocations {
        if revocation.role == Role::Log && revocation.key == *signer {
            revoked = true;
            let names_it = |head: &RevokedHead| {
                head.origin == *origin && head.size == size && head.root.0 == root
            };
            vouched = vouched && revocation.heads.iter().any(names_it);
        }
    }
    match (revoked, vouched) {
        (true, true) => Standing::Counts,
        (true, false) => Standing::Revoked,
        (false, _) if stated.until.is_some_and(|until| until <= now) => Standing::Ended,
        (false, _) => Standing::Counts,
    }
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![4 => Just(Role::Log), 1 => Just(Role::Node)]
}

prop_compose! {
    fn stated()(
        seed in 10u8..13,
        role in role(),
        from in 0u64..8,
        until in proptest::option::of(0u64..8),
    ) -> RoleKey {
        RoleKey {
            role,
            key: key(seed).public(),
            from: Timestamp(from),
            until: until.map(Timestamp),
        }
    }
}

prop_compose! {
    fn revoked()(
        seed in 10u8..13,
        role in role(),
        heads in prop::collection::btree_map(0u8..2, (1u64..4, 0u8..2), 0..3),
    ) -> KeyRevocation {
        let heads = heads.into_iter().map(|(log, (size, root))| RevokedHead {
            origin: origin(log),
            size,
            root: Digest([root; 32]),
        });
        KeyRevocation {
            authority: name(),
            organization: key(1).public(),
            key: key(seed).public(),
            role,
            reason: String::new(),
            made: Timestamp(0),
            heads: heads.collect(),
            succession: Vec::new(),
        }
    }
}

fn origin(log: u8) -> Origin {
    let stream = format!("s{log}").parse().unwrap();
    Origin::of_stream(&name(), &stream)
}

proptest! {
    #[test]
    fn a_log_key_counts_while_it_holds_and_once_revoked_for_the_head_named_alone(
        mut keys in prop::collection::vec(stated(), 0..4),
        revocations in prop::collection::vec(revoked(), 0..3),
    ) {
        // One line for each key and role, as whoever writes statements keeps it.
        let mut seen = Vec::new();
        keys.retain(|key| {
            let news = !seen.contains(&(key.role, key.key));
            seen.push((key.role, key.key));
            news
        });
        let statement = KeyStatement { keys: keys.clone(), ..vectors::key_statement() };
        for log in 0..2 {
            let origin = origin(log);
            for (seed, size, root, now) in (10..14).flat_map(|seed| (0..4u64).flat_map(move |size|
                (0..2u8).flat_map(move |root| (0..8).map(move |now| (seed, size, root, now))))) {
                let (signer, root, now) = (key(seed).public(), [root; 32], Timestamp(now));
                let judge = LogKeys::of(&origin, &statement, revocations.iter(), now);
                let found = judge.judge(&signer, size, &root);
                let wanted = expected(&keys, &revocations, &origin, (&signer, size, root), now);
                prop_assert_eq!(found, wanted);
                let counts = judge.counting(size, &root).any(|key| *key == signer);
                prop_assert_eq!(counts, wanted == Standing::Counts);
                // What is said holds until the next key ends.
                if let Some(end) = judge.next_end() {
                    let later = LogKeys::of(&origin, &statement, revocations.iter(), Timestamp(end.0 - 1));
                    prop_assert_eq!(later.judge(&signer, size, &root), wanted);
                }
            }
        }
    }
}

#[test]
fn the_key_that_began_last_comes_first() {
    let of = |seed: u8, from: u64| RoleKey {
        role: Role::Log,
        key: key(seed).public(),
        from: Timestamp(from),
        until: None,
    };
    let statement = KeyStatement {
        keys: vec![of(10, 1), of(11, 3), of(12, 2)],
        ..vectors::key_statement()
    };
    let keys = LogKeys::of(&origin(0), &statement, [].iter(), Timestamp(0));
    let order: Vec<PublicKey> = keys.all().copied().collect();
    assert_eq!(order, [11, 12, 10].map(|seed| key(seed).public()));
}
