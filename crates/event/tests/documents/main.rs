//! The signed documents against their JSON Schemas in `schemas/`, which say to everybody else what these types say to us: whatever we write
//! satisfies the schema, and what is altered is refused by both or by neither.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod key_life;
mod samples;
mod schema;
mod vectors;

use countersign_crypto::SigningKey;
use countersign_event::documents::{
    Agreement, Document, ErasureAnswer, ErasureRequest, KeyRevocation, KeyStatement, KeySuccession,
    KeyWrap, Offer, Plans, Proposal, Receipt, Refusal, Rejection, SkipClaim, Step, Termination,
};
use countersign_event::from_slice_of_objects;
use countersign_event::names::{Authority, Origin};
use proptest::prelude::*;
use schema::Schema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// What stands in for a member: one value of each type, and numbers out of range.
fn strangers() -> [Value; 9] {
    [
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(18_446_744_073_709_551_616_f64),
        json!(""),
        json!("x y"),
        json!([]),
        json!({}),
    ]
}

fn check<T: DeserializeOwned + PartialEq + Serialize + std::fmt::Debug>(kind: &str, sample: &T) {
    let schema = Schema::load(kind);
    let text = serde_json::to_string(sample).unwrap();
    let written: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), sample);
    assert_eq!(schema.check(&written), Ok(()), "{text}");

    let mut refused = 0;
    let mut same_verdict = |altered: &Value, what: &str| {
        let by_schema = schema.check(altered);
        let by_serde = from_slice_of_objects::<T>(altered.to_string().as_bytes());
        assert_eq!(
            by_schema.is_ok(),
            by_serde.is_ok(),
            "{kind}, {what}: schema {by_schema:?}, serde {by_serde:?}: {altered}"
        );
        refused += usize::from(by_schema.is_err());
        by_schema.is_err()
    };
    // What a derived reader takes in place of the object, and nobody else does. (Where a member may be absent, it wants all of them.)
    let mut members: Vec<_> = written.as_object().unwrap().iter().collect();
    members.sort_by_key(|(name, _)| text.find(&format!("\"{name}\":")));
    let list: Vec<&Value> = members.into_iter().map(|(_, value)| value).collect();
    let list = serde_json::to_string(&list).unwrap();
    let by_serde = serde_json::from_str::<T>(&list);
    assert!(by_serde.is_ok() || !["key-statement", "rejection"].contains(&kind));
    assert!(from_slice_of_objects::<T>(list.as_bytes()).is_err());

    for path in paths(&written) {
        let at = |document: &Value| document.pointer(&path).unwrap().clone();
        let with = |value: Value| {
            let mut altered = written.clone();
            *altered.pointer_mut(&path).unwrap() = value;
            altered
        };
        for stranger in strangers() {
            // Reading takes any text as a name; its limits are checked with the signature, and tested below.
            if !(path.ends_with("/name") && stranger.is_string()) {
                same_verdict(&with(stranger.clone()), &format!("{stranger} at `{path}`"));
            }
        }
        if let Value::String(text) = at(&written) {
            // What a derived reader takes for the name of a variant.
            let what = format!("an object for the text at `{path}`");
            assert!(same_verdict(&with(json!({ text: null })), &what), "{what}");
        }
        if let Value::Object(members) = at(&written) {
            let mut more = members.clone();
            more.insert("unknown".to_owned(), json!(1));
            let what = format!("an unknown member at `{path}`");
            assert!(same_verdict(&with(more.into()), &what), "{what}");
            for member in members.keys() {
                let mut fewer = members.clone();
                fewer.remove(member);
                same_verdict(&with(fewer.into()), &format!("no `{member}` at `{path}`"));
            }
        }
    }
    // Each document has at least five members that it cannot do without.
    assert!(refused > 30, "{kind}: {refused} alterations refused");
}

/// JSON pointers to the document and everything in it.
fn paths(value: &Value) -> Vec<String> {
    let mut all = vec![String::new()];
    let children: Vec<(String, &Value)> = match value {
        Value::Object(members) => members.iter().map(|(k, v)| (k.clone(), v)).collect(),
        Value::Array(items) => (0..).map(|i: usize| i.to_string()).zip(items).collect(),
        _ => Vec::new(),
    };
    for (name, child) in children {
        all.extend(
            paths(child)
                .into_iter()
                .map(|rest| format!("/{name}{rest}")),
        );
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn key_statements_and_their_schema_agree(sample in samples::key_statement()) {
        check::<KeyStatement>("key-statement", &sample);
    }

    #[test]
    fn key_successions_and_their_schema_agree(sample in samples::key_succession()) {
        check::<KeySuccession>("key-succession", &sample);
    }

    #[test]
    fn plans_and_their_schema_agree(sample in samples::plans()) {
        check::<Plans>("plans", &sample);
    }

    #[test]
    fn agreements_and_their_schema_agree(sample in samples::agreement()) {
        check::<Agreement>("agreement", &sample);
    }

    #[test]
    fn proposals_and_their_schema_agree(sample in samples::proposal()) {
        check::<Proposal>("proposal", &sample);
    }

    #[test]
    fn steps_and_their_schema_agree(sample in samples::step()) {
        check::<Step>("step", &sample);
    }

    #[test]
    fn receipts_and_their_schema_agree(sample in samples::receipt()) {
        check::<Receipt>("receipt", &sample);
    }

    #[test]
    fn rejections_and_their_schema_agree(sample in samples::rejection()) {
        check::<Rejection>("rejection", &sample);
    }

    #[test]
    fn refusals_and_their_schema_agree(sample in samples::refusal()) {
        check::<Refusal>("refusal", &sample);
    }

    #[test]
    fn key_revocations_and_their_schema_agree(sample in samples::key_revocation()) {
        check::<KeyRevocation>("key-revocation", &sample);
    }

    #[test]
    fn skip_claims_and_their_schema_agree(sample in samples::skip_claim()) {
        check::<SkipClaim>("skip-claim", &sample);
    }

    #[test]
    fn terminations_and_their_schema_agree(sample in samples::termination()) {
        check::<Termination>("termination", &sample);
    }

    #[test]
    fn erasure_requests_and_their_schema_agree(sample in samples::erasure_request()) {
        check::<ErasureRequest>("erasure-request", &sample);
    }

    #[test]
    fn erasure_answers_and_their_schema_agree(sample in samples::erasure_answer()) {
        check::<ErasureAnswer>("erasure-answer", &sample);
    }

    #[test]
    fn key_wraps_and_their_schema_agree(sample in samples::key_wrap()) {
        check::<KeyWrap>("key-wrap", &sample);
    }

    #[test]
    fn offers_and_their_schema_agree(sample in samples::offer()) {
        check::<Offer>("offer", &sample);
        prop_assert_eq!(Offer::from_text(&sample.to_text()), Some(sample));
    }

    #[test]
    fn names_and_their_patterns_agree(text in samples::almost_a_name()) {
        let schema = Schema::load("offer");
        let receipt = Schema::load("receipt");
        prop_assert_eq!(
            receipt.check_part("authority", &json!(text)).is_ok(),
            text.parse::<Authority>().is_ok(),
            "{:?} as an authority", &text
        );
        prop_assert_eq!(
            receipt.check_part("origin", &json!(text)).is_ok(),
            text.parse::<Origin>().is_ok(),
            "{:?} as an origin", &text
        );
        prop_assert_eq!(
            schema.check_part("stream-name", &json!(text)).is_ok(),
            text.parse::<countersign_event::names::StreamName>().is_ok(),
            "{:?} as a stream name", &text
        );
    }
}

#[test]
fn an_authority_beyond_its_length_is_refused_by_both_wherever_it_stands() {
    let schema = Schema::load("receipt");
    let label = "a".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
    for (good, authority) in [(true, longest.clone()), (false, longest + "a")] {
        let read = authority.parse::<Authority>();
        assert_eq!(read.is_ok(), good, "{authority}");
        let checked = schema.check_part("authority", &json!(authority));
        assert_eq!(checked.is_ok(), good, "{checked:?}");
        for origin in [
            format!("{authority}/streams/s"),
            format!("{authority}/ledger/node"),
            format!("a.b/ledger/{authority}"),
        ] {
            assert_eq!(origin.parse::<Origin>().is_ok(), good, "{origin}");
            let checked = schema.check_part("origin", &json!(origin));
            assert_eq!(checked.is_ok(), good, "{checked:?}");
        }
    }
}

#[test]
fn a_key_statement_beyond_its_limits_is_refused_by_both() {
    let key = SigningKey::from_seed(&[1; 32]);
    let statement = vectors::key_statement();
    let name = |name: &str| KeyStatement {
        name: name.to_owned(),
        ..statement.clone()
    };
    let keys = |count| KeyStatement {
        keys: vec![statement.keys[0].clone(); count],
        ..statement.clone()
    };
    let schema = Schema::load("key-statement");
    for (good, sample) in [
        (true, name("é")),
        (true, name(&"é".repeat(100))),
        (true, keys(0)),
        (true, keys(64)),
        (false, name("")),
        (false, name(&"é".repeat(101))),
        (false, name("a\nb")),
        (false, name("a\u{7f}")),
        (false, name("a\u{9f}")),
        (false, keys(65)),
    ] {
        let written = serde_json::to_value(&sample).unwrap();
        assert_eq!(schema.check(&written).is_ok(), good, "{written}");
        let verified = KeyStatement::verify(&sample.sign(&key));
        assert_eq!(verified.is_ok(), good, "{verified:?}");
    }
}

#[test]
fn what_is_repeated_cut_or_followed_by_more_is_no_document() {
    let text = String::from_utf8(vectors::receipt().to_payload()).unwrap();
    assert!(serde_json::from_str::<Receipt>(&text).is_ok());
    let twice = text.replacen("\"number\":", "\"number\":1,\"number\":", 1);
    for bad in [
        &twice[..],
        &text[..text.len() - 1],
        &format!("{text}{{}}"),
        "",
        "null",
        "[]",
    ] {
        assert!(serde_json::from_str::<Receipt>(bad).is_err(), "{bad}");
    }
}
