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
    // All of them: a renamed folder, or half a copy, does not pass as a suite of few cases.
    assert_eq!((inclusion.cases, consistency.cases), (98, 98));
    let unasked = [inclusion.unasked, consistency.unasked].concat();
    assert_eq!(unasked.len(), 34, "{unasked:?}");
    let ran = format!(
        "ran 196 cases of transparency-dev/merkle; refused by type, as a hash has 32 bytes here: {}\n",
        unasked.join(", ")
    );
    std::io::stderr().write_all(ran.as_bytes()).unwrap();
}

#[derive(Default)]
struct Ran {
    cases: usize,
    /// Cases with something of another length where a hash is wanted, which our functions cannot even be asked about. All of them are to be refused.
    unasked: Vec<String>,
}

fn run(folder: &Path, accepted: fn(&Value) -> Option<bool>) -> Ran {
    let mut ran = Ran::default();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let below = run(&path, accepted);
            ran.cases += below.cases;
            ran.unasked.extend(below.unasked);
            continue;
        }
        let case: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let refusal_wanted = case["wantErr"].as_bool().unwrap();
        let ours = ACCEPTED_HERE.iter().any(|name| path.ends_with(name));
        let found = match accepted(&case) {
            Some(accepted) => accepted,
            None => {
                let parts: Vec<_> = path.iter().rev().take(3).collect();
                let parts = parts.iter().rev().map(|part| part.to_string_lossy());
                ran.unasked.push(parts.collect::<Vec<_>>().join("/"));
                false
            }
        };
        assert_eq!(found, ours || !refusal_wanted, "{}", path.display());
        ran.cases += 1;
    }
    ran
}

fn inclusion_is_accepted(case: &Value) -> Option<bool> {
    let (index, size) = (number(&case["leafIdx"]), number(&case["treeSize"]));
    let (leaf, root) = (hash(&case["leafHash"])?, hash(&case["root"])?);
    Some(verify_inclusion(&leaf, index, size, &proof(case)?, &root).is_ok())
}

fn consistency_is_accepted(case: &Value) -> Option<bool> {
    let (old, new) = (number(&case["size1"]), number(&case["size2"]));
    let (old_root, new_root) = (padded(&case["root1"]), padded(&case["root2"]));
    Some(verify_consistency(old, &old_root, new, &new_root, &proof(case)?).is_ok())
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap_or_default();
    STANDARD.decode(text).unwrap()
}

fn proof(case: &Value) -> Option<Vec<Hash>> {
    let hashes = case["proof"].as_array().into_iter().flatten();
    hashes.map(hash).collect()
}

fn hash(value: &Value) -> Option<Hash> {
    bytes(value).try_into().ok()
}

/// A root of a consistency case. Some say "don't care" in place of a root, and one of these is to be accepted: padded,
/// equal texts stay equal and others different.
fn padded(value: &Value) -> Hash {
    let mut root = bytes(value);
    assert!(root.len() <= 32, "a hash is at most 32 bytes");
    root.resize(32, 0);
    root.try_into().unwrap()
}
