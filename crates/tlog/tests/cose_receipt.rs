//! COSE receipts: the golden vectors in `tests/vectors/cose/v1`, and that every other receipt is refused.
//!
//! With COUNTERSIGN_WRITE_VECTORS=1 missing files are written. A file that is there is never changed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::path::Path;

use ciborium::Value;
use countersign_crypto::SigningKey;
use countersign_tlog::checkpoint::{open_checkpoint, sign_checkpoint};
use countersign_tlog::cose_receipt::{COSE_RECEIPT_BYTES_MAX, CoseReceipt, CoseReceiptError};
use countersign_tlog::{
    Algorithm, Checkpoint, Hash, MemoryTree, Note, ProofError, Vkey, compact_range_at,
    inclusion_proof, leaf_hash,
};
use proptest::prelude::*;
use serde_json::json;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/cose/v1");
const ORIGIN: &str = "node-a.example/streams/orders";

fn key(first: u8) -> SigningKey {
    SigningKey::from_seed(&std::array::from_fn(|i| first + i as u8))
}

fn vkey() -> Vkey {
    Vkey::new(ORIGIN, Algorithm::Ed25519, key(0).public()).unwrap()
}

fn leaf(n: u64) -> Hash {
    leaf_hash(format!("{{\"n\":{n}}}").as_bytes())
}

fn tree(size: u64) -> MemoryTree {
    let mut tree = MemoryTree::new();
    (0..size).for_each(|n| tree.append(leaf(n)));
    tree
}

fn receipt(index: u64, size: u64) -> CoseReceipt {
    let proof = inclusion_proof(&tree(size), index, size).unwrap();
    CoseReceipt::sign(ORIGIN, (&leaf(index), index), size, proof, &key(0)).unwrap()
}

fn decode(bytes: &[u8]) -> Value {
    ciborium::from_reader(bytes).unwrap()
}

fn encode(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The golden receipt with one part of it replaced: of the COSE_Sign1 the protected header, the unprotected one, payload or signature.
fn altered(alter: impl FnOnce(&mut Vec<Value>)) -> Vec<u8> {
    let mut item = decode(&receipt(41, 70).encode());
    let sign1 = item.as_tag_mut().unwrap().1;
    alter(sign1.as_array_mut().unwrap());
    encode(&item)
}

fn header(members: Vec<(Value, Value)>) -> Value {
    Value::Bytes(encode(&Value::Map(members)))
}

fn header_members() -> Vec<(Value, Value)> {
    let item = decode(&receipt(41, 70).encode());
    let sign1 = item.as_tag().unwrap().1.as_array().unwrap();
    decode(sign1[0].as_bytes().unwrap()).into_map().unwrap()
}

fn with_proof(proof: Value) -> Vec<u8> {
    altered(|sign1| {
        let proofs = Value::Array(vec![Value::Bytes(encode(&proof))]);
        let kinds = Value::Map(vec![(Value::from(-1), proofs)]);
        sign1[1] = Value::Map(vec![(Value::from(396), kinds)]);
    })
}

fn path(hashes: usize) -> Value {
    Value::Array(vec![Value::Bytes(vec![7; 32]); hashes])
}

/// What is refused before any signature is looked at, by name.
fn refused() -> Vec<(&'static str, Vec<u8>)> {
    let good = receipt(41, 70).encode();
    let numbers = |size: i128, index: i128| [size, index].map(|n| Value::from(n as i64));
    let proof = |size, index, hashes| {
        let [size, index] = numbers(size, index);
        with_proof(Value::Array(vec![size, index, path(hashes)]))
    };
    let member = |key: i64, value: Value| {
        let mut members = header_members();
        let found = members
            .iter_mut()
            .find(|(name, _)| *name == Value::from(key));
        match found {
            Some((_, old)) => *old = value,
            None => members.push((Value::from(key), value)),
        }
        altered(|sign1| sign1[0] = header(members))
    };
    let claims = |issuer: &str, subject: &str| {
        let text = |text: &str| Value::Text(text.to_owned());
        let claims = [(1, text(issuer)), (2, text(subject))];
        let claims = claims.map(|(key, value)| (Value::from(key), value));
        member(15, Value::Map(claims.into()))
    };
    let untagged = encode(decode(&good).as_tag().unwrap().1);
    // The number 41 in a longer form than it needs.
    let long = {
        let proof = encode(&Value::Array(vec![
            Value::from(70),
            Value::from(41),
            path(7),
        ]));
        let mut long = proof[..3].to_vec();
        long.extend([0x19, 0, 41]);
        long.extend(&proof[5..]);
        altered(|sign1| {
            let proofs = Value::Array(vec![Value::Bytes(long)]);
            let kinds = Value::Map(vec![(Value::from(-1), proofs)]);
            sign1[1] = Value::Map(vec![(Value::from(396), kinds)]);
        })
    };
    let both = |first: &[u8], second: &[u8]| [first, second].concat();
    vec![
        ("nothing", Vec::new()),
        ("one byte too few", good[..good.len() - 1].to_vec()),
        ("one byte too many", both(&good, &[0])),
        ("two of them", both(&good, &good)),
        ("no tag", untagged),
        ("another tag", both(&[0xd1], &good[1..])),
        (
            "a payload that is there",
            altered(|sign1| sign1[2] = Value::Bytes(vec![7; 32])),
        ),
        ("a fifth member", altered(|sign1| sign1.push(Value::Null))),
        (
            "a signature of 63 bytes",
            altered(|sign1| sign1[3] = Value::Bytes(vec![7; 63])),
        ),
        ("another algorithm", member(1, Value::from(-7))),
        ("another tree", member(395, Value::from(2))),
        ("a key id of 3 bytes", member(4, Value::Bytes(vec![1; 3]))),
        (
            "another header parameter",
            member(2, Value::Array(vec![Value::from(395)])),
        ),
        ("another issuer", claims("node-b.example", ORIGIN)),
        (
            "an origin without a path",
            claims("node-a.example", "node-a.example"),
        ),
        (
            "an origin with a space",
            claims("node-a.example", "node-a.example/streams/or ders"),
        ),
        (
            "members in another order",
            altered(|sign1| sign1[0] = header(header_members().into_iter().rev().collect())),
        ),
        (
            "a member twice",
            altered(|sign1| {
                let mut members = header_members();
                members.push(members[0].clone());
                sign1[0] = header(members);
            }),
        ),
        ("a number in a longer form", long),
        (
            "no proof",
            altered(|sign1| sign1[1] = Value::Map(Vec::new())),
        ),
        (
            "two proofs",
            altered(|sign1| {
                let proofs = sign1[1].as_map_mut().unwrap()[0].1.as_map_mut().unwrap();
                let list = proofs[0].1.as_array_mut().unwrap();
                list.push(list[0].clone());
            }),
        ),
        (
            "an unprotected header parameter",
            altered(|sign1| {
                let members = sign1[1].as_map_mut().unwrap();
                members.push((Value::from(4), Value::Bytes(vec![1])));
            }),
        ),
        ("an index beyond the size", proof(41, 41, 6)),
        ("a negative size", proof(-70, 41, 7)),
        ("a hash too few", proof(70, 41, 6)),
        ("a hash too many", proof(70, 41, 8)),
        ("a tree of one entry", proof(1, 0, 0)),
        (
            "a hash of 31 bytes",
            with_proof(Value::Array(vec![
                Value::from(2),
                Value::from(0),
                Value::Array(vec![Value::Bytes(vec![7; 31])]),
            ])),
        ),
    ]
}

fn check_file(name: &str, expected: &[u8]) {
    let path = Path::new(FOLDER).join(name);
    if !path.exists() && std::env::var("COUNTERSIGN_WRITE_VECTORS").is_ok_and(|v| v == "1") {
        std::fs::create_dir_all(FOLDER).unwrap();
        std::fs::write(&path, expected).unwrap();
    }
    let found = std::fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(
        found == expected,
        "{name} holds other bytes than this code makes"
    );
}

#[test]
fn the_golden_receipt_is_made_again_and_verifies() {
    let receipt = receipt(41, 70);
    check_file("entry-41.cose", &receipt.encode());
    check_file("entry-41.entry", b"{\"n\":41}");
    assert_eq!(CoseReceipt::parse(&receipt.encode()).unwrap(), receipt);
    assert_eq!(receipt.verify(&leaf(41), &vkey()), Ok(()));
    assert_eq!(receipt.key_id, vkey().id());
}

#[test]
fn golden_refusals_are_refused() {
    let cases = refused().into_iter().map(|(what, bytes)| {
        let error = CoseReceipt::parse(&bytes).expect_err(what);
        json!({ "what": what, "receipt": hex(&bytes), "error": error.to_string() })
    });
    let cases = json!({ "vkey": vkey().to_string(), "refused": cases.collect::<Vec<_>>() });
    let path = Path::new(FOLDER).join("refused.json");
    if !path.exists() {
        check_file("refused.json", format!("{cases:#}\n").as_bytes());
    }
    let found: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(found, cases);
}

#[test]
fn every_receipt_of_small_trees_verifies_and_is_of_its_leaf_only() {
    for size in 2..20 {
        for index in 0..size {
            let receipt = receipt(index, size);
            let read = CoseReceipt::parse(&receipt.encode()).unwrap();
            for n in 0..size {
                let expected = match n == index {
                    true => Ok(()),
                    false => Err(CoseReceiptError::Signature),
                };
                assert_eq!(
                    read.verify(&leaf(n), &vkey()),
                    expected,
                    "{n} {index} {size}"
                );
            }
        }
    }
}

#[test]
fn a_receipt_is_of_one_log_and_one_key() {
    let receipt = receipt(41, 70);
    let other_key = Vkey::new(ORIGIN, Algorithm::Ed25519, key(0x20).public()).unwrap();
    let wrong = Err(CoseReceiptError::Signature);
    assert_eq!(receipt.verify(&leaf(41), &other_key), wrong);
    let witness = Vkey::new(ORIGIN, Algorithm::CosignatureV1, key(0).public()).unwrap();
    assert_eq!(receipt.verify(&leaf(41), &witness), wrong);
    let other_log = "node-a.example/streams/returns";
    let other = Vkey::new(other_log, Algorithm::Ed25519, key(0).public()).unwrap();
    let refused = receipt.verify(&leaf(41), &other);
    assert!(matches!(refused, Err(CoseReceiptError::OtherOrigin { .. })));
    // One key signs for many logs: what it signed for one is not good for another whose tree is the same.
    let mut renamed = receipt;
    renamed.origin = other_log.to_owned();
    renamed.key_id = other.id();
    assert_eq!(renamed.verify(&leaf(41), &other), wrong);
}

#[test]
fn a_tree_of_one_entry_has_no_receipt() {
    let refused = CoseReceipt::sign(ORIGIN, (&leaf(0), 0), 1, Vec::new(), &key(0));
    assert_eq!(refused, Err(CoseReceiptError::EmptyPath));
    let beyond = CoseReceipt::sign(ORIGIN, (&leaf(0), 2), 2, vec![leaf(1)], &key(0));
    assert!(matches!(
        beyond,
        Err(CoseReceiptError::Proof(ProofError::Index {
            index: 2,
            size: 2
        }))
    ));
}

#[test]
fn what_is_signed_for_a_receipt_is_no_checkpoint_and_the_other_way_round() {
    let receipt = receipt(41, 70);
    let root = compact_range_at(&tree(70), 70).unwrap().root();
    let checkpoint = Checkpoint::new(ORIGIN.to_owned(), 70, root).unwrap();
    let signed = sign_checkpoint(&checkpoint, &key(0));
    assert!(open_checkpoint(signed.note_text.as_bytes(), &vkey()).is_ok());

    let mut of_checkpoint = receipt.clone();
    of_checkpoint.signature = signed.signature;
    let refused = of_checkpoint.verify(&leaf(41), &vkey());
    assert_eq!(refused, Err(CoseReceiptError::Signature));

    let of_receipt = countersign_tlog::checkpoint::note_from_signature(
        &checkpoint,
        &key(0).public(),
        receipt.signature,
    );
    assert!(Note::parse(of_receipt.as_bytes()).is_ok());
    assert!(open_checkpoint(of_receipt.as_bytes(), &vkey()).is_err());
}

#[test]
fn nesting_and_promised_lengths_cost_nothing() {
    // Arrays in arrays, tags on tags, maps in maps: as deep as the largest file allows, in each place where CBOR is read.
    for opening in [0x81, 0xd2, 0xa1] {
        let deep = vec![opening; COSE_RECEIPT_BYTES_MAX];
        assert_eq!(CoseReceipt::parse(&deep), Err(CoseReceiptError::Cbor));
        let deep = vec![opening; 4_000];
        let in_header = altered(|sign1| sign1[0] = Value::Bytes(deep.clone()));
        assert_eq!(CoseReceipt::parse(&in_header), Err(CoseReceiptError::Cbor));
        let in_proof = altered(|sign1| {
            let proofs = Value::Array(vec![Value::Bytes(deep)]);
            let kinds = Value::Map(vec![(Value::from(-1), proofs)]);
            sign1[1] = Value::Map(vec![(Value::from(396), kinds)]);
        });
        assert_eq!(CoseReceipt::parse(&in_proof), Err(CoseReceiptError::Cbor));
    }
    // An array, a map, bytes and a text of 2^63 members that are not there.
    for kind in [0x9b_u8, 0xbb, 0x5b, 0x7b] {
        let mut promised = vec![0xd2, kind];
        promised.extend((1_u64 << 63).to_be_bytes());
        assert_eq!(CoseReceipt::parse(&promised), Err(CoseReceiptError::Cbor));
    }
    let large = vec![0; COSE_RECEIPT_BYTES_MAX + 1];
    let bytes = large.len();
    let refused = CoseReceipt::parse(&large);
    assert_eq!(refused, Err(CoseReceiptError::TooLarge { bytes }));
}

#[test]
fn every_altered_byte_is_refused_but_for_a_size_of_the_same_turns() {
    let good = receipt(41, 70);
    let bytes = good.encode();
    let mut other_sizes = 0;
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << bit;
            let Ok(read) = CoseReceipt::parse(&bad) else {
                continue;
            };
            if read.verify(&leaf(41), &vkey()).is_ok() {
                // The size is what the signature does not hold.
                assert_eq!(
                    CoseReceipt {
                        size: good.size,
                        ..read.clone()
                    },
                    good,
                    "byte {at}"
                );
                assert_ne!(read.size, good.size);
                other_sizes += 1;
            }
        }
        assert!(CoseReceipt::parse(&bytes[..at]).is_err(), "cut {at}");
    }
    assert!(
        other_sizes > 0,
        "the page on this format says that there are some"
    );
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(size in 2..200_u64, at in 0..200_u64) {
        let receipt = receipt(at % size, size);
        let bytes = receipt.encode();
        prop_assert!(bytes.len() <= COSE_RECEIPT_BYTES_MAX);
        prop_assert_eq!(CoseReceipt::parse(&bytes), Ok(receipt.clone()));
        prop_assert_eq!(receipt.verify(&leaf(at % size), &vkey()), Ok(()));
    }

    #[test]
    fn an_altered_receipt_is_refused_or_says_another_size(
        size in 2..100_u64,
        at in 0..100_u64,
        places in proptest::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 1..4),
    ) {
        let good = receipt(at % size, size);
        let mut bytes = good.encode();
        for (place, flip) in places {
            let place = place.index(bytes.len());
            bytes[place] ^= flip;
        }
        if let Ok(read) = CoseReceipt::parse(&bytes) && read.verify(&leaf(at % size), &vkey()).is_ok() {
            prop_assert_eq!(CoseReceipt { size, ..read }, good);
        }
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = CoseReceipt::parse(&bytes);
    }
}
