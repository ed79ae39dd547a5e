//! Author signatures: what is signed is what is verified, the extension's own examples, and nothing altered passes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_crypto::{PublicKey, SigningKey, sha256};
use countersign_event::attributes::{AttributesBuilder, Value};
use countersign_event::author::{
    AUTHOR_PAYLOAD_TYPE, Author, AuthorFault, Covers, SignError, sign, verify,
};
use countersign_event::cloudevents::{from_json, to_json};
use countersign_event::content::{Event, Limits};
use countersign_event::control::AuthorRule;
use countersign_event::data::{DataPart, DataState};
use countersign_event::dsse::Envelope;
use proptest::prelude::*;
use serde_json::json;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn event(text: &str) -> Event {
    from_json(text.as_bytes(), &Limits::FORMAT).unwrap()
}

fn signed(text: &str, seed: u8) -> Event {
    sign(&event(text).as_ref(), &key(seed), &Limits::FORMAT).unwrap()
}

fn with_material(event: &Event, material: Option<&[u8]>) -> Event {
    let part = DataPart {
        author_material: material,
        ..*event.as_ref().data()
    };
    Event::new(event.attribute_bytes().to_vec(), &part, &Limits::FORMAT).unwrap()
}

/// An event whose author has signed this payload.
fn with_payload(event: &Event, payload: &serde_json::Value) -> Event {
    let payload = serde_json::to_vec(payload).unwrap();
    let envelope = Envelope::sign(AUTHOR_PAYLOAD_TYPE, payload, &key(1)).to_json();
    with_material(event, Some(&envelope))
}

fn material_payload(event: &Event) -> serde_json::Value {
    let material = event.as_ref().data().author_material.unwrap();
    let envelope: serde_json::Value = serde_json::from_slice(material).unwrap();
    let payload = STANDARD.decode(envelope["payload"].as_str().unwrap());
    serde_json::from_slice(&payload.unwrap()).unwrap()
}

const READING: &str = r#"{"specversion":"1.0","id":"7","source":"/s","type":"t","time":"2026-01-02T03:04:05.678+01:00","subject":"roof","datacontenttype":"application/json","exta":"value1","n":5,"yes":true,"partitionkey":"p","data":{"v": 1}}"#;

#[test]
fn what_is_signed_is_verified_by_its_key_and_by_no_other() {
    let event = signed(READING, 1);
    let keys = [key(2).public(), key(1).public()];
    let found = verify(&event.as_ref(), &keys);
    let covers = Covers::CoreAndExtensions;
    assert_eq!(
        found,
        Ok(Author::Verified {
            key: &keys[1],
            covers
        })
    );
    let keyid = key(1).public().fingerprint().to_string();
    assert_eq!(
        verify(&event.as_ref(), &keys[..1]),
        Ok(Author::Unknown { keyid, covers })
    );
    // What may change on the way is not signed.
    assert_eq!(
        material_payload(&event)["signedextattrs"],
        json!(["exta", "n", "yes"])
    );
    // Through JSON and back it is the same.
    let again = from_json(&to_json(&event.as_ref()), &Limits::FORMAT).unwrap();
    assert_eq!(again, event);
}

#[test]
fn the_time_is_signed_in_utc_and_to_the_second() {
    let event = signed(READING, 1);
    let keys = [key(1).public()];
    let same = READING.replace("2026-01-02T03:04:05.678+01:00", "2026-01-02T02:04:05Z");
    let other = READING.replace("2026-01-02T03:04:05.678+01:00", "2026-01-02T02:04:06Z");
    let material = event.as_ref().data().author_material;
    let moved = |text: &str| {
        verify(&with_material(&self::event(text), material).as_ref(), &keys)
            .map(|author| matches!(author, Author::Verified { .. }))
    };
    assert_eq!(moved(&same), Ok(true));
    assert_eq!(moved(&other), Err(AuthorFault::Core));
}

#[test]
fn absent_and_null_data_are_told_apart_and_absent_is_empty() {
    let absent = r#"{"specversion":"1.0","id":"1","source":"s","type":"t"}"#;
    let null = r#"{"specversion":"1.0","id":"1","source":"s","type":"t","data":null}"#;
    let (absent, null) = (signed(absent, 1), signed(null, 1));
    let material = absent.as_ref().data().author_material;
    assert_eq!(
        verify(&with_material(&null, material).as_ref(), &[]).map(|_| ()),
        Err(AuthorFault::Core)
    );
    assert!(verify(&null.as_ref(), &[]).is_ok());
}

#[test]
fn an_event_is_not_signed_twice() {
    let event = signed(READING, 1);
    let again = sign(&event.as_ref(), &key(2), &Limits::FORMAT);
    assert_eq!(again, Err(SignError::AlreadySigned));
}

#[test]
fn of_several_signatures_one_of_a_known_key_is_enough() {
    let event = signed(READING, 1);
    let payload = serde_json::to_vec(&material_payload(&event)).unwrap();
    let mut envelope = Envelope::sign(AUTHOR_PAYLOAD_TYPE, payload, &key(1));
    envelope.add_signature(&key(2));
    let event = with_material(&event, Some(&envelope.to_json()));
    for seed in [1, 2] {
        let keys = [key(seed).public()];
        let found = verify(&event.as_ref(), &keys).unwrap();
        assert!(matches!(found, Author::Verified { .. }), "key {seed}");
    }
}

#[test]
fn a_key_id_of_other_words_hides_no_signature_and_a_named_key_has_to_have_made_it() {
    let event = signed(READING, 1);
    let text = String::from_utf8(event.as_ref().data().author_material.unwrap().to_vec()).unwrap();
    let keys = [key(1).public(), key(2).public()];
    let ids = [0, 1].map(|at: usize| keys[at].fingerprint().to_string());
    let named = text.replace(&ids[0], "the author's first key");
    let named = with_material(&event, Some(named.as_bytes()));
    assert!(matches!(
        verify(&named.as_ref(), &keys),
        Ok(Author::Verified { .. })
    ));
    let wrong = text.replace(&ids[0], &ids[1]);
    let wrong = with_material(&event, Some(wrong.as_bytes()));
    let fault = AuthorFault::Signature {
        key: ids[1].clone(),
    };
    assert_eq!(verify(&wrong.as_ref(), &keys), Err(fault));
}

#[test]
fn material_of_another_form_is_refused() {
    let event = signed(READING, 1);
    let payload = material_payload(&event);
    let material = event.as_ref().data().author_material.unwrap();
    let text = std::str::from_utf8(material).unwrap();
    let is_malformed = |event: &Event| {
        matches!(
            verify(&event.as_ref(), &[]),
            Err(AuthorFault::Malformed { .. })
        )
    };
    for wrong in [
        "{}".to_owned(),
        "[]".to_owned(),
        text.replace("v0.1", "v0.2"),
        text.replace("\"payload\":\"", "\"payload\":\"*"),
        text.replace("\"sig\":\"", "\"sig\":\"*"),
        text.replacen("\"signatures\":[", "\"signatures\":[],\"more\":[", 1),
    ] {
        assert!(
            is_malformed(&with_material(&event, Some(wrong.as_bytes()))),
            "{wrong}"
        );
    }
    // Cases 8a to 8e of the extension, and digests of another length.
    let (core, ext) = (&payload["core"], &payload["ext"]);
    for wrong in [
        json!({"core": core, "ext": ext, "signedextattrs": ["exta", "exta"]}),
        json!({"core": core, "ext": ext, "signedextattrs": ["exta", "id"]}),
        json!({"core": core, "ext": ext, "signedextattrs": ["exta", "time"]}),
        json!({"core": core, "ext": ext, "signedextattrs": ["dssematerial"]}),
        json!({"core": core, "signedextattrs": ["exta"]}),
        json!({"core": core, "ext": ext}),
        json!({"ext": ext, "signedextattrs": ["exta"]}),
        json!({"core": "AAAA"}),
        json!({"core": core, "ext": "AAAA", "signedextattrs": ["exta"]}),
        json!([]),
    ] {
        assert!(is_malformed(&with_payload(&event, &wrong)), "{wrong}");
    }
    // What is unknown is passed over, as the extension says.
    let more = json!({"core": core, "more": [1]});
    let keys = [key(1).public()];
    assert_eq!(
        verify(&with_payload(&event, &more).as_ref(), &keys),
        Ok(Author::Verified {
            key: &keys[0],
            covers: Covers::Core
        })
    );
}

#[test]
fn a_rule_that_wants_a_signature_refuses_what_has_none_of_its_keys() {
    let rule = AuthorRule {
        keys: vec![key(1).public()],
        required: true,
    };
    assert_eq!(
        rule.judge(&event(READING).as_ref()),
        Err(AuthorFault::Unsigned)
    );
    let other = rule.judge(&signed(READING, 2).as_ref()).map(|_| ());
    assert!(matches!(other, Err(AuthorFault::UnknownKey { .. })));
    assert!(rule.judge(&signed(READING, 1).as_ref()).is_ok());
    let known = AuthorRule {
        required: false,
        ..rule
    };
    assert!(known.judge(&event(READING).as_ref()).is_ok());
    assert!(known.judge(&signed(READING, 2).as_ref()).is_ok());
}

/// `cloudevents/extensions/verifiability.md`, "Test Vectors": case 5, whose digest can be made again from what the page shows. Its signature is ECDSA over
/// P-256 of the key `testkey`, which is no Ed25519 key.
#[test]
fn the_examples_of_the_extension_have_the_digests_they_state() {
    let stored = std::fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/vectors/event/v1/author-extension.json"
    ));
    let stored: serde_json::Value = serde_json::from_slice(&stored.unwrap()).unwrap();
    let case_5_event = event(stored["case_5"]["event"].as_str().unwrap());
    let material = STANDARD
        .decode(stored["case_5"]["dssematerial"].as_str().unwrap())
        .unwrap();
    let with = with_material(&case_5_event, Some(&material));
    assert_eq!(
        verify(&with.as_ref(), &[key(1).public()]),
        Ok(Author::Unknown {
            keyid: "testkey".to_owned(),
            covers: Covers::Core
        })
    );
    let other = event(
        &stored["case_5"]["event"]
            .as_str()
            .unwrap()
            .replace("8J+koQ==", "8J+kog=="),
    );
    assert_eq!(
        verify(&with_material(&other, Some(&material)).as_ref(), &[]).map(|_| ()),
        Err(AuthorFault::Core)
    );
    // Cases 6 and 7: the digests of `exta`, and of `exta` and `extb`.
    let two = r#"{"specversion":"1.0","id":"1","source":"example/uri","type":"example.type","exta":"value1","extb":"value2"}"#;
    let core = material_payload(&signed(two, 1))["core"].clone();
    for case in stored["extensions"].as_array().unwrap() {
        let payload =
            json!({"core": core, "ext": case["ext"], "signedextattrs": case["signedextattrs"]});
        let found = verify(&with_payload(&event(two), &payload).as_ref(), &[]).map(|_| ());
        assert_eq!(found, Ok(()), "{case}");
    }
}

#[test]
fn signed_events_have_their_golden_material() {
    let cases = [
        ("all kinds of attributes", READING),
        (
            "core only",
            r#"{"specversion":"1.0","id":"1","source":"s","type":"t","data":"x","datacontenttype":"text/plain"}"#,
        ),
        (
            "null data",
            r#"{"specversion":"1.0","id":"1","source":"s","type":"t","data":null}"#,
        ),
        (
            "binary data",
            r#"{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"AAEC"}"#,
        ),
        (
            "leap second",
            r#"{"specversion":"1.0","id":"1","source":"s","type":"t","time":"2017-01-01T00:59:60+01:00"}"#,
        ),
    ];
    let recomputed: Vec<_> = cases
        .iter()
        .map(|(name, text)| {
            let event = signed(text, 1);
            let material = event.as_ref().data().author_material.unwrap();
            json!({
                "name": name,
                "event": text,
                "dssematerial": STANDARD.encode(material),
                "payload": material_payload(&event),
            })
        })
        .collect();
    let recomputed = json!({"seed": hex::encode([1; 32]), "public_key": key(1).public().to_base64(), "cases": recomputed});
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/vectors/event/v1/author.json"
    );
    let path = std::path::Path::new(path);
    if !path.exists() && std::env::var_os("COUNTERSIGN_WRITE_VECTORS").is_some() {
        std::fs::write(
            path,
            serde_json::to_string_pretty(&recomputed).unwrap() + "\n",
        )
        .unwrap();
    }
    let stored: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(stored, recomputed);
}

/// Each text attribute, by name; what is signed of it is its text.
const NAMES: [&str; 6] = ["id", "source", "type", "subject", "exta", "extb"];

proptest! {
    #[test]
    fn no_altered_attribute_or_data_passes(
        values in prop::collection::vec("[a-z]{1,8}", NAMES.len()),
        data in prop::collection::vec(any::<u8>(), 0..40),
        state in prop::sample::select(vec![DataState::Binary, DataState::Absent, DataState::Null]),
        altered in 0..NAMES.len() + 1,
        value in "[a-z]{1,8}",
        bit in any::<prop::sample::Index>(),
    ) {
        let build = |values: &[String], state: DataState, data: &[u8], material: Option<&[u8]>| {
            let mut attributes = AttributesBuilder::empty().with("specversion", Value::String("1.0"));
            for (name, value) in NAMES.iter().zip(values) {
                attributes.push_text(*name, value);
            }
            let data = if state == DataState::Binary { data } else { &[] };
            let part = DataPart { state, author_material: material, data };
            Event::new(attributes.build().unwrap(), &part, &Limits::FORMAT).unwrap()
        };
        let author = key(3);
        let keys: [PublicKey; 1] = [author.public()];
        let event = sign(&build(&values, state, &data, None).as_ref(), &author, &Limits::FORMAT).unwrap();
        let is_verified = matches!(verify(&event.as_ref(), &keys), Ok(Author::Verified { .. }));
        prop_assert!(is_verified);
        let signed = event.as_ref();
        let material = signed.data().author_material;
        let (mut others, mut other_data, mut other_state) = (values.clone(), data.clone(), state);
        if altered < NAMES.len() {
            others[altered] = value;
        } else if state == DataState::Binary && !data.is_empty() {
            let bit = bit.index(8 * data.len());
            other_data[bit / 8] ^= 1 << (bit % 8);
        } else {
            other_state = if state == DataState::Null { DataState::Absent } else { DataState::Null };
        }
        prop_assume!((&others, &other_data, other_state) != (&values, &data, state));
        let other = build(&others, other_state, &other_data, material);
        let fault = verify(&other.as_ref(), &keys).map(|_| ());
        prop_assert!(matches!(fault, Err(AuthorFault::Core | AuthorFault::Extensions)), "{:?}", fault);
    }

    #[test]
    fn altered_material_never_verifies_as_something_else(bit in any::<prop::sample::Index>()) {
        let event = signed(READING, 1);
        let original = event.as_ref().data().author_material.unwrap().to_vec();
        let mut material = original.clone();
        let bit = bit.index(8 * material.len());
        material[bit / 8] ^= 1 << (bit % 8);
        let other = with_material(&event, Some(&material));
        let keys = [key(1).public()];
        // The key id and the spelling of the JSON are not signed; what they lead to is.
        if let Ok(Author::Verified { .. }) = verify(&other.as_ref(), &keys) {
            let payload = material_payload(&other);
            prop_assert_eq!(payload, material_payload(&event));
        }
        prop_assert_eq!(sha256(&original), sha256(event.as_ref().data().author_material.unwrap()));
    }
}
