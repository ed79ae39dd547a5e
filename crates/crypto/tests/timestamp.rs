//! Tokens that `openssl ts` and `openssl cms` made, good ones and ones to be refused: `tests/vectors/timestamp/v1`, made by `tests/interop/timestamp_vectors.sh`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use countersign_crypto::{
    TIMESTAMP_TOKEN_BYTES_MAX, TimestampError, TimestampToken, TsaRoots, TsaRootsError,
    UntrustedTsa, sha256, timestamp_query,
};

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/timestamp/v1")
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(vectors().join(name)).unwrap()
}

fn read(name: &str) -> Result<TimestampToken, TimestampError> {
    let bytes = file(name);
    match name.ends_with(".tsr") {
        true => TimestampToken::from_response(&bytes),
        false => TimestampToken::from_der(&bytes),
    }
}

fn roots(name: &str) -> TsaRoots {
    TsaRoots::from_pem(&file(name)).unwrap()
}

#[test]
fn the_query_is_the_one_that_openssl_makes() {
    assert_eq!(timestamp_query(&sha256(&file("note"))), file("sha256.tsq"));
}

#[test]
fn tokens_of_rsa_and_ecdsa_keys_say_what_was_asked() {
    for (name, signer) in [
        ("rsa.tsr", "CN=Example Time Stamps RSA,O=Example Time"),
        ("p256.tsr", "CN=Example Time Stamps P-256,O=Example Time"),
        ("p384.tsr", "CN=Example Time Stamps P-384,O=Example Time"),
    ] {
        let token = read(name).unwrap();
        assert_eq!(token.imprint(), &sha256(&file("note")), "{name}");
        assert_eq!(token.signer(), signer);
        // The authority says 1.5001 s.
        assert_eq!(token.not_later_than_us() - token.time_us(), 1_500_100);
        assert_eq!(token.check_trusted(&roots("root.pem")), Ok(()), "{name}");
        let others = token.check_trusted(&roots("other-root.pem"));
        assert_eq!(others, Err(UntrustedTsa::Unknown), "{name}");
        let both = roots("other-root.pem").and(roots("root.pem"));
        assert_eq!(token.check_trusted(&both), Ok(()));
        assert_eq!(TimestampToken::from_der(token.der()).as_ref(), Ok(&token));
    }
}

#[test]
fn what_proves_nothing_is_refused_for_its_reason() {
    for (name, expected) in [
        ("late.tst", TimestampError::Expired),
        ("server.tst", TimestampError::Purpose),
        ("both.tst", TimestampError::Purpose),
        ("imprint-sha1.tsr", TimestampError::Weak),
        ("imprint-sha512.tsr", TimestampError::Weak),
        ("certificate-by-sha1.tsr", TimestampError::Weak),
        ("signed-over-sha1.tsr", TimestampError::Weak),
        ("without-certificate.tsr", TimestampError::NoCertificate),
        ("no-statement.tst", TimestampError::Form),
        ("not-granted.tsr", TimestampError::NotGranted { status: 2 }),
    ] {
        assert_eq!(read(name).err(), Some(expected), "{name}");
    }
    let long = vec![0x30; TIMESTAMP_TOKEN_BYTES_MAX + 1];
    assert!(matches!(
        TimestampToken::from_der(&long),
        Err(TimestampError::TooLarge { .. })
    ));
}

/// Whatever byte is altered, and wherever it ends: refused, or a token that says and rests on the same. (What the signature does not reach: the list of digests that may occur, and the form of the algorithms' parameters.)
#[test]
fn no_altered_byte_makes_it_say_anything_else() {
    for name in ["rsa.tsr", "p256.tsr"] {
        let good = read(name).unwrap();
        let root = roots("root.pem");
        let said = |token: &TimestampToken| {
            (
                *token.imprint(),
                token.time_us(),
                token.not_later_than_us(),
                token.signer().to_owned(),
            )
        };
        let mut taken = 0;
        for at in 0..good.der().len() {
            for flip in [0x01, 0x80] {
                let mut bytes = good.der().to_vec();
                bytes[at] ^= flip;
                if let Ok(token) = TimestampToken::from_der(&bytes)
                    && token.check_trusted(&root).is_ok()
                {
                    assert_eq!(said(&token), said(&good), "{name}, byte {at}");
                    taken += 1;
                }
            }
            assert!(TimestampToken::from_der(&good.der()[..at]).is_err());
        }
        // The chain of the first carries a certificate that its root does not need; nobody vouches for its 600 bytes.
        let most = if name == "rsa.tsr" { 1400 } else { 40 };
        assert!(taken < most, "{name}: {taken} altered copies were taken");
        let longer = [good.der(), &[0]].concat();
        assert_eq!(TimestampToken::from_der(&longer), Err(TimestampError::Form));
    }
}

#[test]
fn roots_are_certificates_in_pem() {
    assert_eq!(TsaRoots::from_pem(b"").err(), Some(TsaRootsError::Empty));
    let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let unread = TsaRootsError::Certificate { number: 1 };
    assert_eq!(TsaRoots::from_pem(broken).err(), Some(unread));
}
