//! The odd Ed25519 keys and signatures of C2SP/CCTV, where a folder with them is named by COUNTERSIGN_CONFORMANCE.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::io::Write as _;
use std::path::PathBuf;

use countersign_crypto::{KeyError, PublicKey, Signature};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    number: u32,
    key: String,
    sig: String,
    msg: String,
    /// What is odd about it; absent where nothing is.
    flags: Option<Vec<String>>,
}

impl Case {
    fn has(&self, flag: &str) -> bool {
        self.flags.iter().flatten().any(|found| found == flag)
    }

    fn key(&self) -> Result<PublicKey, KeyError> {
        PublicKey::from_bytes(&hex::decode(&self.key).unwrap().try_into().unwrap())
    }

    fn is_accepted(&self) -> bool {
        let signature = Signature::try_from(hex::decode(&self.sig).unwrap().as_slice()).unwrap();
        self.key()
            .is_ok_and(|key| key.verify(self.msg.as_bytes(), &signature).is_ok())
    }
}

#[test]
fn of_all_odd_signatures_only_the_honest_one_is_accepted() {
    let Some(folder) = std::env::var_os("COUNTERSIGN_CONFORMANCE") else {
        // Written past the test harness, which keeps to itself what a passing test prints with the macros.
        let not_run = b"not run: COUNTERSIGN_CONFORMANCE is not set\n";
        std::io::stderr().write_all(not_run).unwrap();
        return;
    };
    let file = PathBuf::from(folder).join("cctv-ed25519/ed25519vectors.json");
    let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    // So that a cut file does not pass as a suite of few cases.
    assert!(cases.len() >= 914, "{} cases", cases.len());

    let accepted: Vec<u32> = cases
        .iter()
        .filter(|case| case.is_accepted())
        .map(|case| case.number)
        .collect();
    let honest: Vec<u32> = cases
        .iter()
        .filter(|case| case.flags.as_ref().is_none_or(Vec::is_empty))
        .map(|case| case.number)
        .collect();
    assert_eq!(honest.len(), 1);
    assert_eq!(accepted, honest);

    for case in &cases {
        let odd = ["low_order_A", "low_order_component_A", "non_canonical_A"]
            .iter()
            .any(|flag| case.has(flag));
        // A bad key is refused when it is met, not only when a signature is held against it.
        assert_eq!(case.key().is_err(), odd, "key of case {}", case.number);
    }
}
