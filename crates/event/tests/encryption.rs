//! Sealed data: what opens it and what does not, and the golden vectors in `tests/vectors/encryption/v1`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use countersign_crypto::{SealingKey, SeededEntropy, SigningKey, hkdf_sha256, sha256_of};
use countersign_event::documents::Digest;
use countersign_event::encryption::{
    Algorithm, EpochKey, KeyEpoch, SEALED_EXTRA_BYTES, SealedRef, UnwrapError,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const ORIGIN: &str = "example.org/streams/orders";

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

#[test]
fn a_wrap_opens_for_its_recipient_stream_epoch_and_commitment_only() {
    let mut entropy = SeededEntropy::new(1);
    let epoch_key = EpochKey::generate(&mut entropy);
    let commitment = epoch_key.commitment(ORIGIN, 7);
    let wrapped = epoch_key
        .wrap(&key(2).public(), ORIGIN, 7, &mut entropy)
        .unwrap();
    let opened = wrapped.open(&key(2), ORIGIN, 7, &commitment).unwrap();
    assert_eq!(opened.commitment(ORIGIN, 7), commitment);
    let foreign = wrapped.open(&key(3), ORIGIN, 7, &commitment);
    assert!(matches!(foreign, Err(UnwrapError::Foreign { .. })));
    for (origin, epoch) in [("example.org/streams/other", 7), (ORIGIN, 8)] {
        let moved = wrapped.open(&key(2), origin, epoch, &commitment);
        assert_eq!(moved.map(|_| ()), Err(UnwrapError::Open));
    }
    let mut altered = wrapped.clone();
    altered.sealed[0] ^= 1;
    let altered = altered.open(&key(2), ORIGIN, 7, &commitment);
    assert_eq!(altered.map(|_| ()), Err(UnwrapError::Open));
}

/// A producer that wraps another key than it has committed to: the wrap is well made, and the key in it is not used.
#[test]
fn a_wrapped_key_that_the_log_did_not_commit_to_is_refused() {
    let mut entropy = SeededEntropy::new(1);
    let committed = EpochKey::generate(&mut entropy).commitment(ORIGIN, 7);
    let info = [
        b"countersign.wr.1".as_slice(),
        &(ORIGIN.len() as u16).to_be_bytes(),
        ORIGIN.as_bytes(),
        &7u64.to_be_bytes(),
        &committed,
    ]
    .concat();
    let sealed = key(2)
        .public()
        .to_x25519()
        .hpke_seal(&info, &[], &[9; 32], &mut entropy)
        .unwrap();
    let wrapped = countersign_event::encryption::WrappedKey {
        key: key(2).public(),
        encapsulated: Digest(sealed.encapsulated),
        sealed: sealed.ciphertext.try_into().unwrap(),
    };
    let opened = wrapped.open(&key(2), ORIGIN, 7, &committed);
    assert_eq!(opened.map(|_| ()), Err(UnwrapError::Commitment));
}

/// AES-GCM does not commit to its key: a ciphertext can be made that opens under two keys. Here one is, to show that it is the commitment to the
/// epoch's key that refuses the second one.
#[test]
fn a_ciphertext_for_two_keys_has_one_meaning() {
    let keys = [[1u8; 32], [2; 32]].map(|key| SealingKey::from_bytes(&key));
    let nonce = [0; 12];
    let ciphertext = two_keyed(&[1; 32], &[2; 32], &nonce);
    let opened = keys.map(|key| key.open(&nonce, &[], &ciphertext).unwrap());
    assert_ne!(opened[0], opened[1]);

    // The data keys come from epoch keys, which the log commits to: a recipient who is handed the other one refuses it.
    let (one, other) = (
        EpochKey::generate(&mut SeededEntropy::new(1)),
        EpochKey::generate(&mut SeededEntropy::new(2)),
    );
    let committed = one.commitment(ORIGIN, 3);
    let wrapped = other
        .wrap(&key(2).public(), ORIGIN, 3, &mut SeededEntropy::new(3))
        .unwrap();
    assert!(wrapped.open(&key(2), ORIGIN, 3, &committed).is_err());
}

/// Two blocks that have the same tag under both keys, without associated data: the last block is solved for.
fn two_keyed(one: &[u8; 32], other: &[u8; 32], nonce: &[u8; 12]) -> Vec<u8> {
    // GHASH over C1, C2, L is C1·H³ + C2·H² + L·H; the tag adds E(counter 1). What is not C2 comes out of sealing.
    let tag_with = |key: &[u8; 32], ciphertext: &[u8; 32]| -> u128 {
        let key = SealingKey::from_bytes(key);
        let mut stream = vec![0; 32];
        key.seal(nonce, &[], &mut stream, 0);
        let mut plaintext: Vec<u8> = stream[..32]
            .iter()
            .zip(ciphertext)
            .map(|(a, b)| a ^ b)
            .collect();
        key.seal(nonce, &[], &mut plaintext, 0);
        u128::from_be_bytes(plaintext[32..].try_into().unwrap())
    };
    // The tag is affine in the second block: its 128 columns under both keys make a linear system over bits.
    let difference =
        |ciphertext: &[u8; 32]| tag_with(one, ciphertext) ^ tag_with(other, ciphertext);
    let base = [0; 32];
    let constant = difference(&base);
    let mut rows: Vec<(u128, u128)> = (0..128)
        .map(|bit| {
            let mut ciphertext = base;
            ciphertext[16..].copy_from_slice(&(1u128 << bit).to_be_bytes());
            (difference(&ciphertext) ^ constant, 1u128 << bit)
        })
        .collect();
    let (mut wanted, mut solution) = (constant, 0u128);
    for bit in (0..128).rev() {
        let Some(at) = rows.iter().position(|(column, _)| column >> bit & 1 == 1) else {
            continue;
        };
        let (column, combination) = rows.swap_remove(at);
        for row in rows.iter_mut().filter(|(other, _)| other >> bit & 1 == 1) {
            row.0 ^= column;
            row.1 ^= combination;
        }
        if wanted >> bit & 1 == 1 {
            wanted ^= column;
            solution ^= combination;
        }
    }
    assert_eq!(wanted, 0, "the map is not invertible for these keys");
    let mut ciphertext = base;
    ciphertext[16..].copy_from_slice(&solution.to_be_bytes());
    let tag = tag_with(one, &ciphertext);
    [ciphertext.as_slice(), &tag.to_be_bytes()].concat()
}

proptest! {
    #[test]
    fn a_sealed_data_part_opens_at_its_place_only(
        data_part in prop::collection::vec(any::<u8>(), 1..300),
        sequence in 1u64..1 << 40,
        flip in any::<prop::sample::Index>(),
    ) {
        let epoch_key = EpochKey::generate(&mut SeededEntropy::new(sequence));
        let data_key = epoch_key.data_key(ORIGIN, 1, 1, &[5; 32]);
        let mut sealed = b"before".to_vec();
        data_key.seal(sequence, &[6; 32], &data_part, &mut sealed);
        let sealed = &sealed[6..];
        prop_assert_eq!(sealed.len(), data_part.len() + SEALED_EXTRA_BYTES);
        prop_assert_eq!(data_key.open(sequence, &[6; 32], sealed).unwrap(), data_part.clone());
        prop_assert!(data_key.open(sequence + 1, &[6; 32], sealed).is_err());
        prop_assert!(data_key.open(sequence, &[7; 32], sealed).is_err());
        let others = [
            epoch_key.data_key(ORIGIN, 1, 1, &[4; 32]),
            epoch_key.data_key(ORIGIN, 2, 1, &[5; 32]),
            epoch_key.data_key("example.org/streams/other", 1, 1, &[5; 32]),
            EpochKey::generate(&mut SeededEntropy::new(!sequence)).data_key(ORIGIN, 1, 1, &[5; 32]),
        ];
        for other in others {
            prop_assert!(other.open(sequence, &[6; 32], sealed).is_err());
        }
        let mut altered = sealed.to_vec();
        altered[flip.index(sealed.len())] ^= 1;
        prop_assert!(data_key.open(sequence, &[6; 32], &altered).is_err());
    }

    #[test]
    fn whatever_is_no_sealed_part_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let data_key = EpochKey::generate(&mut SeededEntropy::new(1)).data_key(ORIGIN, 1, 1, &[5; 32]);
        prop_assert!(data_key.open(2, &[6; 32], &bytes).is_err());
        prop_assert!(SealedRef::check(&[], &bytes).is_err());
    }
}

#[test]
fn sealing_has_its_golden_bytes() {
    let (epoch, key_entry, sequence) = (1u64, 4u64, 6u64);
    let mut entropy = SeededEntropy::new(18);
    let epoch_key = EpochKey::generate(&mut entropy);
    let commitment = epoch_key.commitment(ORIGIN, epoch);
    let draw = [5; 32];
    let own = epoch_key
        .wrap(&key(1).public(), ORIGIN, epoch, &mut entropy)
        .unwrap();
    let control = KeyEpoch {
        epoch,
        algorithm: Algorithm::X25519HkdfSha256A256Gcm,
        commitment: Digest(commitment),
        draw: Digest(draw),
        own: own.clone(),
    };
    let data_key = epoch_key.data_key(ORIGIN, epoch, key_entry, &draw);
    let attributes = [6; 32];
    let seal = |data_part: &[u8]| {
        let mut sealed = Vec::new();
        data_key.seal(sequence, &attributes, data_part, &mut sealed);
        json!({"data_part": hex::encode(data_part), "sealed": hex::encode(sealed)})
    };
    // The secret epoch key, as only its holder sees it.
    let secret = own.open(&key(1), ORIGIN, epoch, &commitment).unwrap();
    assert_eq!(secret.commitment(ORIGIN, epoch), commitment);
    let file = json!({
        "origin": ORIGIN,
        "epoch": epoch,
        "key_entry": key_entry,
        "sequence": sequence,
        "attribute_commitment": hex::encode(attributes),
        "recipient": {
            "seed": hex::encode([1; 32]),
            "key": key(1).public().to_base64(),
            "x25519": hex::encode(key(1).public().to_x25519().as_bytes()),
        },
        "key_epoch": control.to_text(),
        "parts": [seal(&[0]), seal(&[1]), seal(b"\x02{\"n\":1}")],
    });
    check("sealing.json", &file);
}

fn check(file: &str, recomputed: &Value) {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/vectors/encryption/v1"
    );
    let path = Path::new(folder).join(file);
    if !path.exists() && std::env::var_os("COUNTERSIGN_WRITE_VECTORS").is_some() {
        std::fs::create_dir_all(folder).unwrap();
        let text = serde_json::to_string_pretty(recomputed).unwrap() + "\n";
        std::fs::write(&path, text).unwrap();
    }
    let stored: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(&stored, recomputed, "{file}");
}

/// The derivation, written out as the page says it.
#[test]
fn a_data_key_is_what_the_page_says() {
    let secret = [7; 32];
    let commitment = sha256_of(&[
        b"countersign.ep.1",
        &(ORIGIN.len() as u16).to_be_bytes(),
        ORIGIN.as_bytes(),
        &1u64.to_be_bytes(),
        &secret,
    ]);
    struct Given([u8; 32]);
    impl countersign_crypto::Entropy for Given {
        fn fill(&mut self, out: &mut [u8]) {
            out.copy_from_slice(&self.0);
        }
    }
    let epoch_key = EpochKey::generate(&mut Given(secret));
    assert_eq!(epoch_key.commitment(ORIGIN, 1), commitment);
    let mut sealed = Vec::new();
    let data_key = epoch_key.data_key(ORIGIN, 1, 4, &[5; 32]);
    data_key.seal(6, &[8; 32], b"\x02{}", &mut sealed);
    let info = [b"countersign.dk.1".as_slice(), ORIGIN.as_bytes()].concat();
    let key = SealingKey::from_bytes(&hkdf_sha256(&secret, &[5; 32], &info));
    let associated = [
        b"countersign.ad.1".as_slice(),
        &(ORIGIN.len() as u16).to_be_bytes(),
        ORIGIN.as_bytes(),
        &1u64.to_be_bytes(),
        &6u64.to_be_bytes(),
        &[8; 32],
    ]
    .concat();
    let mut nonce = [0; 12];
    nonce[11] = 6;
    assert_eq!(&sealed[..8], &4u64.to_be_bytes());
    assert_eq!(
        key.open(&nonce, &associated, &sealed[8..]).unwrap(),
        b"\x02{}"
    );
}
