//! The public proof cases of transparency-dev/merkle, where a folder with them is named by COUNTERSIGN_CONFORMANCE.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::io::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_tlog::{Hash, verify_consistency, verify_inclusion};
use serde_json::Value;

/// Cases whose refusal is a choice of that suite: from the empty tree every tree is a consistent successor, and witnesses
/// must accept it with an empty proof (c2sp.org/tlog-witness, old size 0). The suite calls such a check useless.
const ACCEPTED_HERE: [&str; 1] = ["size1-is-zero-and-size2-is-not-zero.json"];

#[test]
fn public_rfc6962_cases_have_their_published_outcome() {
    let Some(folder) = std::env::var_os("COUNTERSIGN_CONFORMANCE") else {
        // Written past the test harness, which keeps to itself what a passing test prints with the macros.
        let not_run = b"not run: COUNTERSIGN_CONFORMANCE is not set\n";
        std::io::stderr().write_all(not_run).unwrap();
        return;
    };
    let folder = PathBuf::from(folder).join("rfc6962");
    let inclusion = run(&folder.join("inclusion"), inclusion_is_accepted);
    let consistency = run(&folder.join("consistency"), consistency_is_accepted);
    // So that a renamed folder does not pass as a suite of no cases.
    assert!(inclusion >= 90, "{inclusion} inclusion cases");
    assert!(consistency >= 90, "{consistency} consistency cases");
}

fn run(folder: &Path, accepted: fn(&Value) -> bool) -> usize {
    let mut cases = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            cases += run(&path, accepted);
            continue;
        }
        let case: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let refusal_wanted = case["wantErr"].as_bool().unwrap();
        let ours = ACCEPTED_HERE.iter().any(|name| path.ends_with(name));
        assert_eq!(
            accepted(&case),
            ours || !refusal_wanted,
            "{}",
            path.display()
        );
        cases += 1;
    }
    cases
}

fn inclusion_is_accepted(case: &Value) -> bool {
    let (index, size) = (number(&case["leafIdx"]), number(&case["treeSize"]));
    let parts = (hash(&case["leafHash"]), hash(&case["root"]), proof(case));
    // What is not 32 bytes long cannot even be handed to the verifier.
    let (Some(leaf), Some(root), Some(proof)) = parts else {
        return false;
    };
    verify_inclusion(&leaf, index, size, &proof, &root).is_ok()
}

fn consistency_is_accepted(case: &Value) -> bool {
    let (old, new) = (number(&case["size1"]), number(&case["size2"]));
    let (old_root, new_root) = (padded(&case["root1"]), padded(&case["root2"]));
    proof(case)
        .is_some_and(|proof| verify_consistency(old, &old_root, new, &new_root, &proof).is_ok())
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap()).unwrap()
}

fn hash(value: &Value) -> Option<Hash> {
    bytes(value).try_into().ok()
}

fn proof(case: &Value) -> Option<Vec<Hash>> {
    let hashes = case["proof"].as_array();
    hashes.map_or(Some(Vec::new()), |hashes| hashes.iter().map(hash).collect())
}

/// A root of a consistency case. Some say "don't care" in place of a root, and one of these is to be accepted: padded,
/// equal texts stay equal and others different.
fn padded(value: &Value) -> Hash {
    let mut root = bytes(value);
    assert!(root.len() <= 32, "a root is at most 32 bytes");
    root.resize(32, 0);
    root.try_into().unwrap()
}
