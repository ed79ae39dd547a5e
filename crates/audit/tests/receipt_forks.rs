//! Proofs of contradicting receipts, judged as an auditor judges them, and their golden vectors in `tests/vectors/receipt-fork/v1`.
//!
//! With COUNTERSIGN_WRITE_VECTORS=1 missing vectors are written. A file that is there is never changed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::fs;
use std::path::Path;

use countersign_audit::{RECEIPT_FORK, Report, Trust, verify};
use countersign_crypto::SigningKey;
use countersign_event::documents::{
    Document as _, KeyStatement, Receipt, ReceiptFork, Role, RoleKey,
};
use countersign_event::dsse::Envelope;
use countersign_event::time::Timestamp;
use support::{Org, T0, World};

const FOLDER: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/vectors/receipt-fork/v1"
);

/// Two receipts of one series as a consumer signs them: of 4 and of 8 entries.
fn honest(world: &World) -> [Envelope; 2] {
    let [.., first, second] = world.documents.as_slice() else {
        panic!("a world has receipts")
    };
    [first.clone(), second.clone()]
}

fn altered(world: &World, change: &dyn Fn(&mut Receipt)) -> Envelope {
    let [_, second] = honest(world);
    let mut receipt = Receipt::peek(&second).unwrap();
    change(&mut receipt);
    receipt.sign(&world.consumer.receipt)
}

fn judge(bytes: &[u8], trust: &Trust) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("x.{RECEIPT_FORK}"));
    fs::write(&path, bytes).unwrap();
    verify(&path, trust, &mut |_| ()).unwrap()
}

fn code(bytes: &[u8], trust: &Trust) -> u8 {
    judge(bytes, trust).verdict.exit_code()
}

fn proof(world: &World, other: &Envelope) -> ReceiptFork {
    let [first, second] = honest(world);
    let found = [first, second]
        .iter()
        .find_map(|held| ReceiptFork::between(held, other));
    let mut proof = found.expect("a contradiction");
    proof.statements = vec![world.consumer.statement()];
    proof
}

#[test]
fn a_contradiction_is_proven_by_one_file_under_the_consumers_key() {
    let world = World::undecided(8);
    let trust = world.consumer.trust();
    let other = altered(&world, &|receipt| receipt.made.0 += 1);
    let file = proof(&world, &other).encode();
    let report = judge(&file, &trust);
    assert_eq!(report.verdict.exit_code(), 0, "{report}");
    let fingerprint = world.consumer.organization.public().fingerprint();
    assert_eq!(
        report.sentence(),
        format!(
            "proven: a consumer of {} signed two receipts that contradict each other, under {fingerprint}, which you trust",
            world.stream.origin
        )
    );
    assert!(
        report
            .to_string()
            .contains("number 2 of one series has two contents"),
        "{report}"
    );
    // Nobody said that the key is right; another is.
    assert_eq!(code(&file, &Trust::none()), 9);
    assert_eq!(code(&file, &world.producer.trust()), 9);
    // Without a statement of the consumer nothing is known of the key.
    let mut bare = proof(&world, &other);
    bare.statements.clear();
    assert_eq!(code(&bare.encode(), &trust), 9);
    bare.statements = vec![world.producer.statement()];
    assert_eq!(code(&bare.encode(), &trust), 9);
}

#[test]
fn honest_receipts_and_signatures_of_others_prove_nothing() {
    let world = World::undecided(8);
    let trust = world.consumer.trust();
    let [first, second] = honest(&world);
    assert!(ReceiptFork::between(&first, &second).is_none());
    let dressed_up = ReceiptFork {
        earlier: first.clone(),
        later: second.clone(),
        statements: vec![world.consumer.statement()],
    };
    assert_eq!(code(&dressed_up.encode(), &trust), 6);
    // What anybody could have signed.
    let other = Receipt::peek(&altered(&world, &|receipt| receipt.made.0 += 1)).unwrap();
    for key in [
        &world.producer.receipt,
        &world.consumer.agreement,
        &world.consumer.organization,
    ] {
        let file = proof(&world, &other.sign(key)).encode();
        assert_eq!(code(&file, &trust), 6);
    }
    // A signature over other bytes.
    let mut altered_bytes = proof(&world, &other.sign(&world.consumer.receipt)).encode();
    let text = String::from_utf8(altered_bytes.clone()).unwrap();
    let at = text.find("\"sig\":\"").unwrap() + 10;
    altered_bytes[at] = if altered_bytes[at] == b'A' {
        b'B'
    } else {
        b'A'
    };
    assert_eq!(code(&altered_bytes, &trust), 6);
    for text in [
        &b""[..],
        b"hello\n",
        b"countersign-receipt-fork@v1\n",
        &[0xff],
    ] {
        assert_eq!(code(text, &trust), 6);
    }
}

/// Whoever found a key that its organization no longer has could have signed the other one.
#[test]
fn a_key_that_is_no_longer_the_consumers_leaves_it_open() {
    let world = World::undecided(8);
    let trust = world.consumer.trust();
    let other = altered(&world, &|receipt| receipt.made.0 += 1);
    let statement = |number, key: &SigningKey, until: Option<u64>| {
        let Org {
            organization,
            authority,
            ..
        } = &world.consumer;
        KeyStatement {
            authority: authority.clone(),
            name: "An organization".to_owned(),
            organization: organization.public(),
            number,
            made: Timestamp(T0 + 100 * number),
            succession: Vec::new(),
            keys: vec![RoleKey {
                role: Role::Receipt,
                key: key.public(),
                from: Timestamp(T0),
                until: until.map(|until| Timestamp(T0 + until)),
            }],
        }
        .sign_with(organization)
    };
    let with = |newest: Envelope| {
        let mut proof = proof(&world, &other);
        proof.statements.push(newest);
        code(&proof.encode(), &trust)
    };
    let own = &world.consumer.receipt;
    assert_eq!(with(statement(2, own, None)), 0);
    assert_eq!(with(statement(2, own, Some(1000))), 0);
    assert_eq!(with(statement(2, own, Some(150))), 9);
    assert_eq!(
        with(statement(2, &SigningKey::from_seed(&[8; 32]), None)),
        9
    );
}

#[test]
fn the_vectors_are_what_this_code_makes() {
    let world = World::undecided(8);
    let [first, _] = honest(&world);
    let follows = |receipt: &mut Receipt| {
        (receipt.size, receipt.events, receipt.bytes) = {
            let first = Receipt::peek(&first).unwrap();
            (first.size, first.events, first.bytes)
        }
    };
    let root = |receipt: &mut Receipt| {
        follows(receipt);
        receipt.root.0[0] ^= 1;
    };
    type Change<'a> = &'a dyn Fn(&mut Receipt);
    let cases: [(&str, Change<'_>); 5] = [
        ("number", &|receipt| receipt.made.0 += 1),
        ("previous", &|receipt| receipt.previous = None),
        ("start", &|receipt| receipt.start = 1),
        ("shrunk", &|receipt| receipt.events = 1),
        ("size", &root),
    ];
    for (name, change) in cases {
        let other = altered(&world, change);
        // Against the first: the second has the number of the altered one.
        let mut proof = match name {
            "number" => proof(&world, &other),
            _ => ReceiptFork::between(&first, &other).expect(name),
        };
        proof.statements = vec![world.consumer.statement()];
        let path = Path::new(FOLDER).join(format!("{name}.receipt-fork"));
        if !path.exists() && std::env::var("COUNTERSIGN_WRITE_VECTORS").is_ok_and(|v| v == "1") {
            fs::create_dir_all(FOLDER).unwrap();
            fs::write(&path, proof.encode()).unwrap();
        }
        let recorded = fs::read(&path).unwrap();
        assert_eq!(recorded, proof.encode(), "{name}");
        assert_eq!(code(&recorded, &world.consumer.trust()), 0, "{name}");
    }
}
