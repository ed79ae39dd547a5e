//! The dialects of CloudEvents Subscriptions, their canonical text and digest.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use countersign_event::attributes::{AttributesBuilder, Value};
use countersign_filter::{Filter, FilterErrorKind};

fn event() -> Vec<u8> {
    AttributesBuilder::new("myId", "/orders", "com.example.created")
        .with("subject", Value::String("Order 7"))
        .with("priority", Value::Integer(3))
        .with("urgent", Value::Boolean(true))
        .with("mark", Value::Binary(&[1, 2, 3]))
        .build()
        .unwrap()
}

#[test]
fn dialects_mean_what_the_specification_says() {
    for (text, passes) in [
        ("[]", true),
        (r#"[{"exact":{"type":"com.example.created"}}]"#, true),
        (r#"{"exact":{"type":"com.example.created"}}"#, true),
        (r#"[{"exact":{"type":"COM.example.created"}}]"#, false),
        (
            r#"[{"exact":{"type":"com.example.created","subject":"Order 7"}}]"#,
            true,
        ),
        (
            r#"[{"exact":{"type":"com.example.created","subject":"Order 8"}}]"#,
            false,
        ),
        (r#"[{"exact":{"priority":"3"}}]"#, true),
        (r#"[{"exact":{"urgent":"true"}}]"#, true),
        (r#"[{"exact":{"mark":"AQID"}}]"#, true),
        (r#"[{"exact":{"missing":"x"}}]"#, false),
        (
            r#"[{"prefix":{"type":"com.example.","source":"/or"}}]"#,
            true,
        ),
        (r#"[{"prefix":{"type":"example."}}]"#, false),
        (r#"[{"suffix":{"type":".created"}}]"#, true),
        (r#"[{"suffix":{"type":"com."}}]"#, false),
        (r#"[{"not":{"exact":{"missing":"x"}}}]"#, true),
        (r#"[{"not":{"sql":"missing = 'x'"}}]"#, true),
        (
            r#"[{"all":[{"exact":{"id":"myId"}},{"prefix":{"type":"com."}}]}]"#,
            true,
        ),
        (
            r#"[{"all":[{"exact":{"id":"myId"}},{"prefix":{"type":"org."}}]}]"#,
            false,
        ),
        (
            r#"[{"any":[{"exact":{"id":"other"}},{"prefix":{"type":"com."}}]}]"#,
            true,
        ),
        (r#"[{"any":[{"exact":{"id":"other"}}]}]"#, false),
        (
            r#"[{"exact":{"id":"myId"}},{"exact":{"id":"other"}}]"#,
            false,
        ),
        (r#"[{"sql":"priority > 2 AND urgent"}]"#, true),
        (r#"[{"sql":"priority"}]"#, false),
    ] {
        let filter = Filter::from_json(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(filter.matches(&event()), passes, "{text}");
    }
}

#[test]
fn what_is_no_filter_is_refused_with_the_place() {
    for (text, kind, path) in [
        (r#"[{"exact":{}}]"#, FilterErrorKind::Empty, "[0].exact"),
        (
            r#"[{"exact":{"type":""}}]"#,
            FilterErrorKind::Empty,
            "[0].exact",
        ),
        (
            r#"[{"exact":{"":"x"}}]"#,
            FilterErrorKind::Empty,
            "[0].exact",
        ),
        (
            r#"[{"exact":{"Type":"x"}}]"#,
            FilterErrorKind::Name,
            "[0].exact",
        ),
        (
            r#"[{"exact":{"data":"x"}}]"#,
            FilterErrorKind::Data,
            "[0].exact",
        ),
        (r#"[{"all":[]}]"#, FilterErrorKind::Empty, "[0].all"),
        (
            r#"[{"regex":{"type":"x"}}]"#,
            FilterErrorKind::Dialect,
            "[0]",
        ),
        (
            r#"[{"exact":{"id":"x"},"prefix":{"id":"x"}}]"#,
            FilterErrorKind::Dialect,
            "[0]",
        ),
        (r#"[7]"#, FilterErrorKind::Dialect, "[0]"),
        (
            r#"[{"any":[{"exact":{"id":"x"}},{"sql":"1 = "}]}]"#,
            FilterErrorKind::Syntax { wanted: "a value" },
            "[0].any[1].sql",
        ),
        (
            r#"[{"exact":{"id":"x","id":"y"}}]"#,
            FilterErrorKind::Json("a name is given twice"),
            "[0].exact",
        ),
        (
            r#"[{"exact":{"priority":3}}]"#,
            FilterErrorKind::Json("values of a filter are texts"),
            "[0].exact",
        ),
    ] {
        let error = Filter::from_json(text).unwrap_err();
        assert_eq!((error.kind, &*error.path), (kind, path), "{text}");
    }
    let deep = format!(
        "{}{}{}",
        r#"{"not":"#.repeat(40),
        r#"{"exact":{"id":"x"}}"#,
        "}".repeat(40)
    );
    assert_eq!(
        Filter::from_json(&deep).unwrap_err().kind,
        FilterErrorKind::Depth
    );
    assert_eq!(
        Filter::from_json("[{]").unwrap_err().code(),
        "filter-syntax"
    );
}

#[test]
fn two_filters_make_one_that_wants_both() {
    let filter = |text| Filter::from_json(text).unwrap();
    let (id, kind) = (
        filter(r#"{"exact":{"id":"myId"}}"#),
        filter(r#"{"prefix":{"type":"org."}}"#),
    );
    let both = id.and(&kind).unwrap();
    assert_eq!(
        both.canonical(),
        r#"[{"exact":{"id":"myId"}},{"prefix":{"type":"org."}}]"#
    );
    assert!(id.matches(&event()) && !both.matches(&event()));
    assert_eq!(id.and(&filter("[]")).unwrap(), id);
    assert_eq!(filter("[]").and(&id).unwrap(), id);
    assert_eq!(filter("[]").and(&filter("[]")).unwrap(), filter("[]"));
    let long = filter(&format!(r#"{{"exact":{{"id":"{}"}}}}"#, "x".repeat(3000)));
    assert_eq!(long.and(&long).unwrap_err().kind, FilterErrorKind::Length);
}

#[test]
fn a_filter_has_one_text_and_one_digest() {
    let canonical = r#"[{"exact":{"id":"a\"b","type":"é"}},{"any":[{"sql":"NOT  urgent"}]}]"#;
    let written = "[ {\"exact\": {\"type\": \"\\u00e9\", \"id\": \"a\\\"b\"}},\n {\"any\":[{\"sql\":\"NOT  urgent\"}]}]";
    let filter = Filter::from_json(written).unwrap();
    assert_eq!(filter.canonical(), canonical);
    assert_eq!(Filter::from_canonical(canonical).unwrap(), filter);
    assert_eq!(
        Filter::from_canonical(canonical).unwrap().digest(),
        filter.digest()
    );
    assert_eq!(
        filter.digest(),
        countersign_crypto::sha256(canonical.as_bytes())
    );
    assert_eq!(
        Filter::from_canonical(written).unwrap_err().kind,
        FilterErrorKind::NotCanonical
    );
    assert_eq!(
        Filter::from_json(r#"{"not":{"sql":"TRUE"}}"#)
            .unwrap()
            .canonical(),
        r#"[{"not":{"sql":"TRUE"}}]"#
    );
}
