//! The golden vectors in `tests/vectors/tlog/v1`: computed again and compared, byte for byte.
//!
//! With COUNTERSIGN_WRITE_VECTORS=1 missing files are written. A file that is there is never changed: a format that
//! differs is another version, with a folder of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_crypto::SigningKey;
use countersign_tlog::add_checkpoint::AddCheckpoint;
use countersign_tlog::checkpoint::{open_checkpoint, sign_checkpoint};
use countersign_tlog::proof_file::ProofFile;
use countersign_tlog::tile::{decode_entry_bundle, encode_entry_bundle, tiles};
use countersign_tlog::{
    Algorithm, Checkpoint, Hash, MemoryTree, Note, Vkey, compact_range_at, consistency_proof,
    cosignature_v1, inclusion_proof, leaf_hash, verify_consistency, verify_inclusion,
};
use serde_json::{Value, json};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/tlog/v1");
const ORIGIN: &str = "node-a.example/streams/orders";
const WITNESS: &str = "witness.node-b.example";
const TIME_SECONDS: u64 = 1_790_000_000;
const SIZE: u64 = 70;

/// Sizes around each power of two, and the whole log.
const PROOF_SIZES: [u64; 14] = [1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 64, 65, SIZE];

fn entry(n: u64) -> String {
    format!("{{\"n\":{n}}}")
}

fn key(first: u8) -> SigningKey {
    SigningKey::from_seed(&std::array::from_fn(|i| first + i as u8))
}

fn log_vkey() -> Vkey {
    Vkey::new(ORIGIN, Algorithm::Ed25519, key(0x00).public()).unwrap()
}

fn witness_vkey() -> Vkey {
    Vkey::new(WITNESS, Algorithm::CosignatureV1, key(0x20).public()).unwrap()
}

fn tree() -> MemoryTree {
    let mut tree = MemoryTree::new();
    (0..SIZE).for_each(|n| tree.append(leaf_hash(entry(n).as_bytes())));
    tree
}

fn root(size: u64) -> Hash {
    compact_range_at(&tree(), size).unwrap().root()
}

fn cosigned_note() -> Note {
    let checkpoint = Checkpoint::new(ORIGIN.to_owned(), SIZE, root(SIZE)).unwrap();
    let signed = sign_checkpoint(&checkpoint, &key(0x00));
    let mut note = Note::parse(signed.note_text.as_bytes()).unwrap();
    let line = cosignature_v1::sign(note.text(), WITNESS, &key(0x20), TIME_SECONDS).unwrap();
    note.push(line).unwrap();
    note
}

fn base64(hash: impl AsRef<[u8]>) -> String {
    STANDARD.encode(hash)
}

fn base64_all(hashes: &[Hash]) -> Vec<String> {
    hashes.iter().map(base64).collect()
}

/// Compares a file with what it should hold, or writes it where it is missing and writing is asked for.
fn check(name: &str, expected: &[u8]) {
    let found = read_or_write(name, expected);
    assert!(
        found == expected,
        "{name} holds other bytes than this code makes"
    );
}

/// As [`check`], but the order of an object's members is free: it depends on which features of the JSON library other
/// crates of the workspace switch on.
fn check_json(name: &str, expected: &Value) {
    let found = read_or_write(name, format!("{expected:#}\n").as_bytes());
    let found: Value = serde_json::from_slice(&found).unwrap();
    assert!(
        found == *expected,
        "{name} holds other values than this code makes"
    );
}

fn read_or_write(name: &str, expected: &[u8]) -> Vec<u8> {
    let path = Path::new(FOLDER).join(name);
    if !path.exists() && std::env::var("COUNTERSIGN_WRITE_VECTORS").is_ok_and(|v| v == "1") {
        std::fs::create_dir_all(FOLDER).unwrap();
        std::fs::write(&path, expected).unwrap();
    }
    std::fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn read_json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(Path::new(FOLDER).join(name)).unwrap()).unwrap()
}

fn hash(value: &Value) -> Hash {
    let bytes = STANDARD.decode(value.as_str().unwrap()).unwrap();
    bytes.try_into().unwrap()
}

fn hashes(value: &Value) -> Vec<Hash> {
    value.as_array().unwrap().iter().map(hash).collect()
}

#[test]
fn add_checkpoint() {
    let of_size = |size| Checkpoint::new(ORIGIN.to_owned(), size, root(size)).unwrap();
    let old = sign_checkpoint(&of_size(41), &key(0x00));
    let request = AddCheckpoint {
        old: 41,
        proof: consistency_proof(&tree(), 41, SIZE).unwrap(),
        checkpoint: sign_checkpoint(&of_size(SIZE), &key(0x00)).note_text,
    };
    check("add-checkpoint-41-70.txt", request.encode().as_bytes());
    check("checkpoint-41.txt", old.note_text.as_bytes());
    let found = read_or_write("add-checkpoint-41-70.txt", b"");
    let read = AddCheckpoint::parse(&found).unwrap();
    assert_eq!(read, request);
    let new = open_checkpoint(read.checkpoint.as_bytes(), &log_vkey()).unwrap();
    assert_eq!(read.verify(&old.checkpoint, &new), Ok(()));
    // Each of these says something else than the tree does.
    assert!(read.verify(&of_size(40), &new).is_err());
    assert!(read.verify(&old.checkpoint, &of_size(69)).is_err());
    let other = Checkpoint {
        origin: WITNESS.to_owned(),
        ..of_size(41)
    };
    assert!(read.verify(&other, &new).is_err());
    let other = Checkpoint {
        root: root(40),
        ..of_size(41)
    };
    assert!(read.verify(&other, &new).is_err());
    for at in 0..read.proof.len() {
        let mut changed = read.clone();
        changed.proof[at][7] ^= 1;
        assert!(changed.verify(&old.checkpoint, &new).is_err());
    }
}

#[test]
fn the_vector_that_other_implementations_accepted_is_reproduced() {
    // Checked by Go x/mod, OpenSSL and others, from bytes that this code did not make.
    assert_eq!(
        base64(root(SIZE)),
        "r3mgaCf5gY7gNXevS403fewEDtnINugT5S99cTHvmuA="
    );
    assert_eq!(log_vkey().id().to_string(), "bcd28159");
    assert_eq!(witness_vkey().id().to_string(), "f67c2d00");
    let line = cosigned_note().signatures()[1].encode();
    let start = "\u{2014} witness.node-b.example 9nwtAAAAAABqsTuAKRRS";
    assert!(line.starts_with(start), "{line}");
}

#[test]
fn keys_and_notes_are_the_recorded_ones() {
    let note = cosigned_note();
    check_json(
        "keys.json",
        &json!({
            "log": { "seed": base64((0x00..0x20).collect::<Vec<u8>>()), "vkey": log_vkey().to_string() },
            "witness": { "seed": base64((0x20..0x40).collect::<Vec<u8>>()), "vkey": witness_vkey().to_string() },
            "time_seconds": TIME_SECONDS,
        }),
    );
    let (log_line, witness_line) = (&note.signatures()[0], &note.signatures()[1]);
    let signed = format!("{}\n{}", note.text(), log_line.encode());
    check("checkpoint.txt", signed.as_bytes());
    check("cosigned-checkpoint.txt", note.encode().as_bytes());
    check("cosignature-line.txt", witness_line.encode().as_bytes());
    check(
        "cosignature-payload.txt",
        &cosignature_v1::payload(note.text(), TIME_SECONDS),
    );
    assert!(open_checkpoint(note.encode().as_bytes(), &log_vkey()).is_ok());
    assert_eq!(note.verify(&[log_vkey(), witness_vkey()]).unwrap().len(), 2);
}

#[test]
fn roots_and_compact_ranges_of_all_sizes_are_the_recorded_ones() {
    let tree = tree();
    let sizes = (0..=SIZE).map(|size| {
        let range = compact_range_at(&tree, size).unwrap();
        json!({ "size": size, "root": base64(range.root()), "hashes": base64_all(range.hashes()) })
    });
    check_json("roots.json", &Value::Array(sizes.collect()));
}

#[test]
fn inclusion_proofs_are_the_recorded_ones_and_verify_as_they_are_read() {
    let tree = tree();
    let mut cases = Vec::new();
    for size in PROOF_SIZES {
        for index in (0..size).filter(|index| size < 10 || index % 7 == 0 || index + 1 == size) {
            let proof = inclusion_proof(&tree, index, size).unwrap();
            cases.push(json!({ "index": index, "size": size, "proof": base64_all(&proof) }));
        }
    }
    check_json("inclusion.json", &Value::Array(cases));
    for case in read_json("inclusion.json").as_array().unwrap() {
        let (index, size) = (
            case["index"].as_u64().unwrap(),
            case["size"].as_u64().unwrap(),
        );
        let leaf = leaf_hash(entry(index).as_bytes());
        let proof = hashes(&case["proof"]);
        assert_eq!(
            verify_inclusion(&leaf, index, size, &proof, &root(size)),
            Ok(())
        );
    }
}

#[test]
fn consistency_proofs_are_the_recorded_ones_and_verify_as_they_are_read() {
    let tree = tree();
    let mut cases = Vec::new();
    for new in PROOF_SIZES {
        for old in PROOF_SIZES.into_iter().filter(|old| *old <= new) {
            let proof = consistency_proof(&tree, old, new).unwrap();
            cases.push(json!({ "old": old, "new": new, "proof": base64_all(&proof) }));
        }
    }
    check_json("consistency.json", &Value::Array(cases));
    for case in read_json("consistency.json").as_array().unwrap() {
        let (old, new) = (case["old"].as_u64().unwrap(), case["new"].as_u64().unwrap());
        let proof = hashes(&case["proof"]);
        assert_eq!(
            verify_consistency(old, &root(old), new, &root(new), &proof),
            Ok(())
        );
    }
}

#[test]
fn proof_file_is_the_recorded_one_and_proves_its_entry() {
    let file = ProofFile {
        extra: b"anything".to_vec(),
        index: 41,
        proof: inclusion_proof(&tree(), 41, SIZE).unwrap(),
        checkpoint: cosigned_note().encode(),
    };
    check("entry-41.tlog-proof", file.encode().as_bytes());
    let leaf = leaf_hash(entry(41).as_bytes());
    let checkpoint = file.verify(&leaf, &log_vkey()).unwrap();
    assert_eq!(checkpoint.size, SIZE);
}

#[test]
fn tile_paths_and_entry_bundle_are_the_recorded_ones() {
    let paths = |size| tiles(size).map(|tile| tile.to_string()).collect::<Vec<_>>();
    let sizes = [1, 70, 255, 256, 257, 1_000];
    let sizes = sizes.map(|size| json!({ "size": size, "paths": paths(size) }));
    check_json("tiles.json", &Value::Array(sizes.to_vec()));
    let bundle = encode_entry_bundle((0..SIZE).map(entry)).unwrap();
    check("entries-000.p-70.bin", &bundle);
    let entries = decode_entry_bundle(&bundle).unwrap();
    assert_eq!(entries.last(), Some(&entry(69).as_bytes()));
}
