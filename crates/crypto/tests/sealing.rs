//! Published vectors of HPKE and AES-256-GCM, through the functions that everything in the workspace seals with.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::PathBuf;

use countersign_crypto::{
    BulkSealingKey, Entropy, HpkeSealed, SealingKey, X25519PublicKey, X25519SecretKey,
};
use serde_json::Value;
use zeroize::Zeroizing;

fn vectors(name: &str) -> Vec<Value> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/crypto/v1");
    let file: Value = serde_json::from_slice(&std::fs::read(folder.join(name)).unwrap()).unwrap();
    file["cases"].as_array().unwrap().clone()
}

fn bytes(case: &Value, name: &str) -> Vec<u8> {
    hex::decode(case[name].as_str().unwrap()).unwrap()
}

fn array<const N: usize>(case: &Value, name: &str) -> [u8; N] {
    bytes(case, name).try_into().unwrap()
}

/// The randomness that the published case was made from.
struct Given(Vec<u8>);

impl Entropy for Given {
    fn fill(&mut self, out: &mut [u8]) {
        out.copy_from_slice(&self.0.drain(..out.len()).collect::<Vec<_>>());
    }
}

#[test]
fn hpke_seals_and_opens_what_rfc_9180_says() {
    let cases = vectors("hpke.json");
    assert!(!cases.is_empty());
    for case in cases {
        let (info, first) = (bytes(&case, "info"), &case["encryptions"][0]);
        let public = X25519PublicKey::from_bytes(array(&case, "pkRm"));
        let secret = X25519SecretKey::from_bytes(Zeroizing::new(array(&case, "skRm")));
        assert_eq!(secret.public(), public);
        let mut entropy = Given(bytes(&case, "ikmE"));
        let (aad, plaintext) = (bytes(first, "aad"), bytes(first, "pt"));
        let sealed = public
            .hpke_seal(&info, &aad, &plaintext, &mut entropy)
            .unwrap();
        let published = HpkeSealed {
            encapsulated: array(&case, "enc"),
            ciphertext: bytes(first, "ct"),
        };
        assert_eq!(sealed, published);
        assert_eq!(
            secret.hpke_open(&published, &info, &aad).unwrap()[..],
            plaintext
        );
        let mut altered = published.clone();
        altered.ciphertext[3] ^= 1;
        assert!(secret.hpke_open(&altered, &info, &aad).is_err());
    }
}

#[test]
fn aes_256_gcm_seals_and_opens_what_nist_says() {
    let cases = vectors("aes-256-gcm.json");
    assert!(cases.len() >= 100);
    for case in cases {
        let key = SealingKey::from_bytes(&array(&case, "key"));
        let (nonce, aad) = (array(&case, "nonce"), bytes(&case, "aad"));
        let plaintext = bytes(&case, "plaintext");
        let mut sealed = plaintext.clone();
        key.seal(&nonce, &aad, &mut sealed, 0);
        let published = [bytes(&case, "ciphertext"), bytes(&case, "tag")].concat();
        assert_eq!(sealed, published);
        assert_eq!(key.open(&nonce, &aad, &published).unwrap(), plaintext);
        let key = BulkSealingKey::from_bytes(&array(&case, "key"));
        let mut sealed = plaintext.clone();
        key.seal(&nonce, &aad, &mut sealed, 0);
        assert_eq!(sealed, published);
        assert_eq!(key.open(&nonce, &aad, &published).unwrap(), plaintext);
    }
}
