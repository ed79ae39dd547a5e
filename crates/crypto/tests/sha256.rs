//! SHA-256 by every door, against the published examples and against each other.

use countersign_crypto::{
    Hash, Sha256Stream, sha256, sha256_headed, sha256_headed_pair, sha256_of,
};

/// Lengths around every edge of the padding, for one to four blocks.
const LENGTH_MAX: usize = 260;

fn bytes(length: usize, seed: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at * 31 + seed * 7 + 3) as u8)
        .collect()
}

/// By the library's own streaming interface.
fn streamed(parts: &[&[u8]]) -> Hash {
    let mut stream = Sha256Stream::new();
    for part in parts {
        stream.update(part);
    }
    stream.finish()
}

#[test]
fn the_examples_of_the_standard_hold() {
    let check = |message: &[u8], expected: &str| {
        assert_eq!(hex::encode(sha256(message)), expected);
    };
    check(
        b"",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    );
    check(
        b"abc",
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    );
    check(
        b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
    );
    check(
        &[b'a'; 1_000_000],
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
    );
}

#[test]
fn every_length_has_the_digest_of_the_streaming_interface() {
    for length in 0..LENGTH_MAX {
        let message = bytes(length, 1);
        assert_eq!(sha256(&message), streamed(&[&message]), "{length}");
    }
}

#[test]
fn a_head_is_hashed_as_if_it_stood_before_the_body() {
    fn check<const HEAD: usize>() {
        let head: [u8; HEAD] = bytes(HEAD, 2).try_into().unwrap();
        for length in 0..LENGTH_MAX {
            let body = bytes(length, 3);
            let expected = streamed(&[&head, &body]);
            assert_eq!(sha256_headed(&head, &body), expected, "{HEAD} {length}");
            assert_eq!(sha256_of(&[&head, &body]), expected);
        }
    }
    check::<0>();
    check::<1>();
    check::<33>();
    check::<48>();
    check::<55>();
    check::<56>();
    check::<63>();
}

#[test]
fn a_pair_has_the_digests_of_its_messages_whatever_their_lengths() {
    let heads = (&[5; 48], &[6; 48]);
    for length in 0..LENGTH_MAX {
        let one = bytes(length, 4);
        let expected = streamed(&[heads.0, &one]);
        for other_length in (0..LENGTH_MAX).step_by(5) {
            let other = bytes(other_length, 5);
            assert_eq!(
                sha256_headed_pair((heads.0, &one), (heads.1, &other)),
                (expected, streamed(&[heads.1, &other])),
                "{length} {other_length}"
            );
        }
    }
}
