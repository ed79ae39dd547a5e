//! JWE to outsiders: what comes out opens for the recipient and nobody else, and every altered character is noticed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_crypto::{
    EcdhCurve, EcdhError, EcdhPublicKey, EcdhSecretKey, SealingKey, SeededEntropy, concat_kdf,
};
use countersign_event::jwe::{About, JWK_BYTES_MAX, JwkError, Recipient, seal};
use serde_json::{Value, json};

const ORIGIN: &str = "a.example/streams/orders";
const EVENT: &[u8] = br#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"a":1}}"#;

fn about(withheld: Option<usize>) -> About<'static> {
    About {
        origin: ORIGIN,
        sequence: 41,
        leaf: &[7; 32],
        withheld,
    }
}

fn secret(curve: EcdhCurve) -> EcdhSecretKey {
    EcdhSecretKey::from_bytes(curve, &[9; 32]).unwrap()
}

fn jwk(key: &EcdhPublicKey) -> Value {
    let (x, y) = key.coordinates();
    let (x, y) = (
        URL_SAFE_NO_PAD.encode(x),
        y.map(|y| URL_SAFE_NO_PAD.encode(y)),
    );
    match y {
        Some(y) => json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "auditor-1"}),
        None => json!({"kty": "OKP", "crv": "X25519", "x": x}),
    }
}

fn recipient(curve: EcdhCurve) -> Recipient {
    Recipient::from_jwk(&jwk(&secret(curve).public()).to_string()).unwrap()
}

fn sealed(curve: EcdhCurve) -> String {
    let mut entropy = SeededEntropy::new(1);
    seal(EVENT, &about(None), &recipient(curve), &mut entropy).unwrap()
}

/// As somebody opens it who has read the standards and not the code: header and plaintext.
fn open(jwe: &str, key: &EcdhSecretKey) -> Option<(Value, Vec<u8>)> {
    let parts: Vec<&str> = jwe.split('.').collect();
    let [encoded, "", nonce, ciphertext, tag] = parts[..] else {
        return None;
    };
    let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
    let header: Value = serde_json::from_slice(&bytes(encoded)?).ok()?;
    if header["alg"] != "ECDH-ES" || header["enc"] != "A256GCM" {
        return None;
    }
    let coordinate =
        |name: &str| -> Option<[u8; 32]> { bytes(header["epk"][name].as_str()?)?.try_into().ok() };
    let epk = match header["epk"]["crv"].as_str()? {
        "X25519" => EcdhPublicKey::x25519(coordinate("x")?),
        "P-256" => EcdhPublicKey::p256(&coordinate("x")?, &coordinate("y")?).ok()?,
        _ => return None,
    };
    let derived = concat_kdf(&*key.agree(&epk).ok()?, "A256GCM", (b"", b""), 256);
    let sealed = [bytes(ciphertext)?, bytes(tag)?].concat();
    let nonce = bytes(nonce)?.try_into().ok()?;
    let key = SealingKey::from_bytes(&derived);
    let plaintext = key.open(&nonce, encoded.as_bytes(), &sealed).ok()?;
    Some((header, plaintext))
}

#[test]
fn the_recipient_opens_it_and_the_header_names_the_event() {
    for curve in [EcdhCurve::P256, EcdhCurve::X25519] {
        let jwe = sealed(curve);
        let (header, plaintext) = open(&jwe, &secret(curve)).unwrap();
        assert_eq!(plaintext, EVENT);
        assert_eq!(header["cty"], "cloudevents+json");
        let kid = (curve == EcdhCurve::P256).then(|| json!("auditor-1"));
        assert_eq!(header.get("kid").cloned(), kid);
        let event = json!({"origin": ORIGIN, "sequence": 41, "leaf": "07".repeat(32)});
        assert_eq!(header["dev.countersign.event"], event);
        let other = EcdhSecretKey::from_bytes(curve, &[8; 32]).unwrap();
        assert!(open(&jwe, &other).is_none());
    }
    let mut entropy = SeededEntropy::new(1);
    let recipient = recipient(EcdhCurve::X25519);
    let jwe = seal(EVENT, &about(Some(3)), &recipient, &mut entropy).unwrap();
    let (header, _) = open(&jwe, &secret(EcdhCurve::X25519)).unwrap();
    assert_eq!(header["dev.countersign.event"]["withheld"], 3);
    // Each one has an ephemeral key and a nonce of its own.
    let again = seal(EVENT, &about(Some(3)), &recipient, &mut entropy).unwrap();
    let (other, _) = open(&again, &secret(EcdhCurve::X25519)).unwrap();
    assert_ne!(header["epk"], other["epk"]);
    assert_ne!(jwe.split('.').nth(2), again.split('.').nth(2));
}

#[test]
fn every_altered_character_is_noticed() {
    for curve in [EcdhCurve::P256, EcdhCurve::X25519] {
        let (jwe, key) = (sealed(curve), secret(curve));
        for at in 0..jwe.len() {
            let mut altered = jwe.clone().into_bytes();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).unwrap();
            assert!(open(&altered, &key).is_none(), "{at}");
        }
    }
}

/// RFC 7516, appendix A.1: a key, a nonce, a header and a plaintext under A256GCM, by other means agreed.
#[test]
fn the_parts_of_rfc_7516_come_out() {
    let key = [
        177, 161, 244, 128, 84, 143, 225, 115, 63, 180, 3, 255, 107, 154, 212, 246, 138, 7, 110,
        91, 112, 46, 34, 105, 47, 130, 203, 46, 122, 234, 64, 252,
    ];
    let nonce = [227, 197, 117, 252, 2, 219, 233, 68, 180, 225, 77, 219];
    let header = "eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ";
    let mut buffer = b"The true sign of intelligence is not knowledge but imagination.".to_vec();
    SealingKey::from_bytes(&key).seal(&nonce, header.as_bytes(), &mut buffer, 0);
    let (ciphertext, tag) = buffer.split_at(buffer.len() - 16);
    assert_eq!(
        URL_SAFE_NO_PAD.encode(ciphertext),
        "5eym8TW_c8SuK0ltJ3rpYIzOeDQz7TALvtu6UG9oMo4vpzs9tX_EFShS8iB7j6jiSdiwkIr3ajwQzaBtQD_A"
    );
    assert_eq!(URL_SAFE_NO_PAD.encode(tag), "XFBoMYUZodetZdvTiFvSkQ");
}

#[test]
fn what_is_no_public_key_to_seal_to_is_refused() {
    let good = jwk(&secret(EcdhCurve::P256).public());
    let with = |member: &str, value: Value| {
        let mut jwk = good.clone();
        jwk[member] = value;
        Recipient::from_jwk(&jwk.to_string()).unwrap_err()
    };
    assert_eq!(with("d", json!("AAAA")), JwkError::Private);
    assert_eq!(with("use", json!("sig")), JwkError::Use);
    assert_eq!(with("alg", json!("ECDH-ES+A256KW")), JwkError::Use);
    assert_eq!(with("crv", json!("P-384")), JwkError::Curve);
    assert_eq!(with("kty", json!("RSA")), JwkError::Curve);
    for text in ["", "AAAA", "=", "not base64"] {
        assert_eq!(with("y", json!(text)), JwkError::Coordinate { member: "y" });
    }
    let off = URL_SAFE_NO_PAD.encode([1; 32]);
    assert_eq!(with("y", json!(off)), JwkError::Key(EcdhError::NotAKey));
    let weak = json!({"kty": "OKP", "crv": "X25519", "x": URL_SAFE_NO_PAD.encode([0; 32])});
    let refused = Recipient::from_jwk(&weak.to_string());
    assert_eq!(refused, Err(JwkError::Key(EcdhError::Weak)));
    for text in [
        "",
        "[]",
        "{}",
        "{\"keys\":[]}",
        "{\"kty\":\"EC\",\"kty\":\"EC\"}",
    ] {
        let refused = Recipient::from_jwk(text);
        assert!(matches!(refused, Err(JwkError::Form { .. })), "{text}");
    }
    let long = " ".repeat(JWK_BYTES_MAX) + &good.to_string();
    assert_eq!(Recipient::from_jwk(&long), Err(JwkError::TooLong));
    // What else a key says does not matter.
    let mut more = good.clone();
    more["use"] = json!("enc");
    more["alg"] = json!("ECDH-ES");
    more["x5c"] = json!(["AAAA"]);
    assert!(Recipient::from_jwk(&more.to_string()).is_ok());
}

#[test]
fn they_have_their_golden_text() {
    let cases: Vec<Value> = [EcdhCurve::P256, EcdhCurve::X25519]
        .into_iter()
        .map(|curve| {
            let mut private = jwk(&secret(curve).public());
            private["d"] = URL_SAFE_NO_PAD.encode([9; 32]).into();
            json!({
                "recipient": private,
                "event": String::from_utf8_lossy(EVENT),
                "origin": ORIGIN,
                "sequence": 41,
                "leaf": "07".repeat(32),
                "jwe": sealed(curve),
            })
        })
        .collect();
    let recomputed = json!({ "cases": cases });
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/vectors/jwe/v1/jwe.json"
    );
    let path = std::path::Path::new(path);
    if !path.exists() && std::env::var_os("COUNTERSIGN_WRITE_VECTORS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = serde_json::to_string_pretty(&recomputed).unwrap() + "\n";
        std::fs::write(path, text).unwrap();
    }
    let stored: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(stored, recomputed);
}
