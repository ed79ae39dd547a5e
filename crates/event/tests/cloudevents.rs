//! The JSON format of CloudEvents: its rules, one table row each, and round trips.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use countersign_event::attributes::{AttributeError, AttributesBuilder, Value};
use countersign_event::cloudevents::{
    BatchError, CloudEventError, DEPTH_MAX, JsonError, batch_from_json, from_json, to_json,
    to_json_line, to_json_with,
};
use countersign_event::content::{Event, EventError, Limits};
use countersign_event::data::{DataError, DataPart, DataState};
use proptest::prelude::*;

/// A minimal event with more members.
fn json(more: &str) -> String {
    let comma = if more.is_empty() { "" } else { "," };
    format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t"{comma}{more}}}"#)
}

fn read(more: &str) -> Result<Event, CloudEventError> {
    from_json(json(more).as_bytes(), &Limits::default())
}

/// State, payload and author material of a minimal event with more members.
fn payload(more: &str, state: DataState, data: &[u8], material: Option<&[u8]>) {
    let event = read(more).unwrap_or_else(|error| panic!("{more}: {error}"));
    let expected = DataPart {
        state,
        author_material: material,
        data,
    };
    assert_eq!(*event.as_ref().data(), expected, "{more}");
}

fn refused(more: &str, expected: CloudEventError) {
    assert_eq!(read(more).unwrap_err(), expected, "{more}");
}

fn attribute(more: &str, name: &str, expected: Option<Value<'_>>) {
    let event = read(more).unwrap_or_else(|error| panic!("{more}: {error}"));
    assert_eq!(event.as_ref().attributes().get(name), expected, "{more}");
}

#[test]
fn absent_null_text_and_binary_payloads_are_told_apart() {
    payload("", DataState::Absent, b"", None);
    payload(r#""data":null"#, DataState::Null, b"", None);
    payload(r#""data":"""#, DataState::Text, b"\"\"", None);
    payload(r#""data_base64":"""#, DataState::Binary, b"", None);
    payload(
        r#""data_base64":"/wA=""#,
        DataState::Binary,
        b"\xff\0",
        None,
    );
    payload(r#""data_base64":null"#, DataState::Absent, b"", None);
}

#[test]
fn a_json_payload_is_kept_byte_for_byte() {
    payload(
        "\"data\": \n { \"b\" : 1.50e0,\n\"a\":\"\\u00e9\\/\" , \"a\": [ ] } ",
        DataState::Text,
        b"{ \"b\" : 1.50e0,\n\"a\":\"\\u00e9\\/\" , \"a\": [ ] }",
        None,
    );
    payload(
        r#""data":123456789012345678901234567890.10"#,
        DataState::Text,
        b"123456789012345678901234567890.10",
        None,
    );
    payload(r#""data":"\ud800""#, DataState::Text, br#""\ud800""#, None);
    // A string stays a string, even where it holds JSON.
    payload(
        r#""datacontenttype":"application/json","data":"{\"a\":1}""#,
        DataState::Text,
        br#""{\"a\":1}""#,
        None,
    );
    payload(
        r#""data":{"a":1},"datacontenttype":"Application/Cloud+JSON; x=y""#,
        DataState::Text,
        br#"{"a":1}"#,
        None,
    );
}

#[test]
fn a_text_payload_is_the_characters_of_its_string() {
    payload(
        r#""datacontenttype":"text/xml","data":"<a b=\"1\"/>\n\u00e9""#,
        DataState::Text,
        "<a b=\"1\"/>\né".as_bytes(),
        None,
    );
    refused(
        r#""datacontenttype":"text/xml","data":{"a":1}"#,
        CloudEventError::DataNotText,
    );
    refused(
        r#""data":1,"datacontenttype":"text/plain""#,
        CloudEventError::DataNotText,
    );
    refused(
        r#""datacontenttype":"text/plain","data":"\ud800""#,
        CloudEventError::Surrogate {
            name: "data".into(),
        },
    );
    payload(
        r#""datacontenttype":"text/plain","data":null"#,
        DataState::Null,
        b"",
        None,
    );
}

#[test]
fn both_forms_of_payload_at_once_are_refused() {
    refused(
        r#""data":1,"data_base64":"AA==""#,
        CloudEventError::DataAndBase64,
    );
    refused(
        r#""data":null,"data_base64":"AA==""#,
        CloudEventError::DataAndBase64,
    );
}

#[test]
fn base64_is_strict() {
    for text in ["A", "AA", "AB==", "AA==\\n", "_-A=", "A A=", "\\ud800"] {
        refused(
            &format!(r#""data_base64":"{text}""#),
            CloudEventError::Base64 {
                member: "data_base64",
            },
        );
    }
    refused(
        r#""data_base64":1"#,
        CloudEventError::WantsString {
            member: "data_base64",
        },
    );
    refused(
        r#""dssematerial":{}"#,
        CloudEventError::WantsString {
            member: "dssematerial",
        },
    );
    refused(
        r#""dssematerial":"?""#,
        CloudEventError::Base64 {
            member: "dssematerial",
        },
    );
}

#[test]
fn author_material_moves_to_the_data_part() {
    payload(
        r#""dssematerial":"bQ==","data":1"#,
        DataState::Text,
        b"1",
        Some(b"m"),
    );
    payload(r#""dssematerial":null"#, DataState::Absent, b"", None);
    refused(
        r#""dssematerial":"""#,
        CloudEventError::Event(EventError::Data(DataError::EmptyAuthorMaterial)),
    );
    attribute(r#""dssematerial":"bQ==""#, "dssematerial", None);
}

#[test]
fn extensions_are_kept_with_the_type_that_json_shows() {
    attribute(r#""ext":"a""#, "ext", Some(Value::String("a")));
    attribute(r#""ext":"""#, "ext", Some(Value::String("")));
    attribute(
        r#""ext":"\u00e9\ud83d\ude00""#,
        "ext",
        Some(Value::String("é😀")),
    );
    attribute(r#""ext":true"#, "ext", Some(Value::Boolean(true)));
    attribute(r#""ext":false"#, "ext", Some(Value::Boolean(false)));
    attribute(
        r#""ext":-2147483648"#,
        "ext",
        Some(Value::Integer(i32::MIN)),
    );
    attribute(r#""ext":2147483647"#, "ext", Some(Value::Integer(i32::MAX)));
    attribute(r#""ext":-0"#, "ext", Some(Value::Integer(0)));
    attribute(
        r#""anextensionnamelongerthantwenty":1"#,
        "anextensionnamelongerthantwenty",
        Some(Value::Integer(1)),
    );
}

#[test]
fn null_attributes_are_absent() {
    attribute(r#""ext":null"#, "ext", None);
    attribute(r#""subject":null"#, "subject", None);
    let json = br#"{"specversion":"1.0","id":null,"source":"/s","type":"t"}"#;
    let missing = AttributeError::Missing { name: "id" };
    assert_eq!(
        from_json(json, &Limits::default()).unwrap_err(),
        missing.into()
    );
}

#[test]
fn numbers_that_are_no_integer_of_32_bits_are_refused() {
    for number in ["1.0", "1e3", "1E3", "0.5", "-0.0"] {
        refused(
            &format!(r#""ext":{number}"#),
            CloudEventError::FractionalNumber { name: "ext".into() },
        );
    }
    for number in ["2147483648", "-2147483649", "99999999999999999999999"] {
        refused(
            &format!(r#""ext":{number}"#),
            CloudEventError::IntegerRange { name: "ext".into() },
        );
    }
}

#[test]
fn nested_attributes_and_repeated_members_are_refused() {
    refused(
        r#""ext":{}"#,
        CloudEventError::NestedAttribute { name: "ext".into() },
    );
    refused(
        r#""ext":["a"]"#,
        CloudEventError::NestedAttribute { name: "ext".into() },
    );
    for more in [
        r#""ext":1,"ext":1"#,
        r#""ext":null,"ext":1"#,
        r#""ext":1,"\u0065xt":2"#,
    ] {
        refused(
            more,
            CloudEventError::DuplicateMember { name: "ext".into() },
        );
    }
    for name in ["data", "data_base64", "dssematerial", "id"] {
        let more = format!(r#""{name}":null,"{name}":null"#);
        refused(
            &more,
            CloudEventError::DuplicateMember { name: name.into() },
        );
    }
}

#[test]
fn attribute_texts_follow_the_type_system() {
    refused(
        r#""ext":"\ud800""#,
        CloudEventError::Surrogate { name: "ext".into() },
    );
    refused(
        r#""ext":"\udc00x""#,
        CloudEventError::Surrogate { name: "ext".into() },
    );
    for (escape, code_point) in [
        ("\\n", 10),
        ("\\u0000", 0),
        ("\\u007f", 0x7f),
        ("\\u0085", 0x85),
        ("\\ufdd0", 0xfdd0),
        ("\\uffff", 0xffff),
    ] {
        refused(
            &format!(r#""ext":"{escape}""#),
            AttributeError::ForbiddenCharacter {
                name: "ext".into(),
                code_point,
            }
            .into(),
        );
    }
    refused(
        r#""subject":"""#,
        AttributeError::Empty {
            name: "subject".into(),
        }
        .into(),
    );
    assert!(matches!(
        read(r#""subject":5"#),
        Err(CloudEventError::Event(EventError::Attributes(
            AttributeError::CoreType { .. }
        )))
    ));
    assert!(matches!(
        read(r#""time":"yesterday""#),
        Err(CloudEventError::Event(EventError::Attributes(
            AttributeError::Time { .. }
        )))
    ));
    assert!(matches!(
        read(r#""Ext":1"#),
        Err(CloudEventError::Event(EventError::Attributes(
            AttributeError::NameCharacters { .. }
        )))
    ));
    refused(r#""":1"#, AttributeError::NameLength { found: 0 }.into());
    attribute(
        r#""time":"2026-01-02T03:04:05.10+01:00""#,
        "time",
        Some(Value::Timestamp("2026-01-02T03:04:05.10+01:00")),
    );
    attribute(
        r#""dataschema":"https://example.org/s""#,
        "dataschema",
        Some(Value::Uri("https://example.org/s")),
    );
}

#[test]
fn text_that_is_not_one_json_object_is_refused() {
    let refused = |bytes: &[u8], expected| {
        let found = from_json(bytes, &Limits::default()).unwrap_err();
        assert_eq!(found, CloudEventError::Json(expected), "{bytes:?}");
    };
    refused(b"\xef\xbb\xbf{}", JsonError::ByteOrderMark);
    refused(b"{\"id\":\"\xff\"}", JsonError::NotUtf8 { offset: 7 });
    refused(b"[]", JsonError::NotAnObject);
    refused(b" 1", JsonError::NotAnObject);
    for text in [
        "",
        "{",
        "{\"id\":}",
        "{\"id\":\"a\nb\"}",
        "{\"data\":01}",
        "{\"data\":[}",
        "{'id':1}",
        "{\"id\":\"1\",}",
        "{} x",
        "{}{}",
    ] {
        let found = from_json(text.as_bytes(), &Limits::default()).unwrap_err();
        assert!(
            matches!(found, CloudEventError::Json(JsonError::Syntax { .. })),
            "{text}: {found}"
        );
    }
}

#[test]
fn an_error_does_not_quote_a_payload() {
    let error = read(r#""ext":"secret\u0000","data":{}"#).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"));
    let error = read(r#""data":{"secret" 1}"#).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"));
}

#[test]
fn depth_and_sizes_are_limited() {
    let deep = |n: usize| format!(r#""data":{}{}"#, "[".repeat(n), "]".repeat(n));
    assert!(read(&deep(DEPTH_MAX)).is_ok());
    refused(&deep(DEPTH_MAX + 1), JsonError::TooDeep.into());
    refused(&deep(100_000), JsonError::TooDeep.into());

    let limits = Limits {
        attribute_bytes_max: 200,
        author_material_bytes_max: 2,
        data_bytes_max: 10,
    };
    let read = |more: &str| from_json(json(more).as_bytes(), &limits).map(|_| ());
    let too_long = |error| {
        matches!(
            error,
            Err(CloudEventError::Event(EventError::Data(
                DataError::DataTooLong { max: 10, .. }
            )))
        )
    };
    assert_eq!(read(r#""data":"12345678""#), Ok(()));
    assert!(too_long(read(r#""data":"123456789""#)));
    assert_eq!(
        read(r#""datacontenttype":"a/b","data":"\u0031234567890""#),
        Ok(())
    );
    assert!(too_long(read(
        r#""datacontenttype":"a/b","data":"12345678901""#
    )));
    assert!(too_long(read(&format!(
        r#""datacontenttype":"a/b","data":"{}""#,
        "x".repeat(1000)
    ))));
    assert_eq!(read(r#""data_base64":"MTIzNDU2Nzg5MA==""#), Ok(()));
    assert!(too_long(read(r#""data_base64":"MTIzNDU2Nzg5MDE=""#)));
    assert!(too_long(read(&format!(
        r#""data_base64":"{}""#,
        "A".repeat(1000)
    ))));
    assert_eq!(read(r#""dssematerial":"bW0=""#), Ok(()));
    assert_eq!(
        read(r#""dssematerial":"bW1t""#),
        Err(CloudEventError::Event(
            DataError::AuthorMaterialTooLong { found: 3, max: 2 }.into()
        ))
    );
    assert!(read(&format!(r#""ext":"{}""#, "x".repeat(200))).is_err());
    let many: Vec<String> = (0..60).map(|n| format!(r#""e{n}":null"#)).collect();
    assert!(matches!(
        read(&many.join(",")),
        Err(CloudEventError::Event(EventError::Attributes(
            AttributeError::TooLong { .. }
        )))
    ));
}

#[test]
fn a_batch_is_taken_whole_or_refused_at_its_first_bad_event() {
    let batch = |text: &str| batch_from_json(text.as_bytes(), &Limits::default());
    assert_eq!(batch("[]").unwrap(), []);
    let good = json("");
    let events = batch(&format!("[{good} ,\n{}]", json(r#""data": [1 ,2]"#))).unwrap();
    assert_eq!(events.len(), 2);
    assert_eq!(events[1].as_ref().data().data, b"[1 ,2]");
    let bad = batch(&format!("[{good},{{}},{good}]")).unwrap_err();
    let missing = CloudEventError::from(AttributeError::Missing {
        name: "specversion",
    });
    assert_eq!(
        bad,
        BatchError::Event {
            index: 1,
            source: missing
        }
    );
    assert_eq!(
        batch(&good).unwrap_err(),
        BatchError::Json(JsonError::NotAnArray)
    );
    assert!(matches!(
        batch(&format!("[{good}")).unwrap_err(),
        BatchError::Json(JsonError::Syntax { .. })
    ));
    assert!(matches!(
        batch(&format!("[{good}] x")).unwrap_err(),
        BatchError::Json(JsonError::Syntax { .. })
    ));
}

fn typed(datacontenttype: Option<&'static str>, part: &DataPart<'_>) -> Event {
    let mut attributes = AttributesBuilder::new("1", "/s", "t");
    if let Some(media_type) = datacontenttype {
        attributes.push("datacontenttype", Value::String(media_type));
    }
    Event::new(attributes.build().unwrap(), part, &Limits::default()).unwrap()
}

fn written(event: &Event) -> String {
    String::from_utf8(to_json(&event.as_ref())).unwrap()
}

#[test]
fn events_are_written_as_they_were_read() {
    for more in [
        "",
        r#""data":null"#,
        "\"data\":{ \"a\" :\n1 }",
        r#""data_base64":"/wA=""#,
        r#""dssematerial":"bQ==","data":1"#,
    ] {
        let wanted = format!(
            r#"{{"id":"1","source":"/s","specversion":"1.0","type":"t"{}{more}}}"#,
            if more.is_empty() { "" } else { "," }
        );
        assert_eq!(written(&read(more).unwrap()), wanted);
    }
    let text =
        read(r#""datacontenttype":"text/plain","data":"a\"\\\n\r\t\u0001\u007f\u2028é""#).unwrap();
    assert!(written(&text).ends_with("\"data\":\"a\\\"\\\\\\n\\r\\t\\u0001\u{7f}\u{2028}é\"}"));
}

#[test]
fn a_payload_that_is_not_the_json_it_claims_cannot_add_members() {
    for hostile in ["1,\"id\":\"2\"", "", "{", "1 2", "nul"] {
        let event = typed(Some("application/json"), &DataPart::text(hostile));
        let again = from_json(written(&event).as_bytes(), &Limits::default()).unwrap();
        assert_eq!(
            *again.as_ref().data(),
            DataPart::binary(hostile.as_bytes()),
            "{hostile}"
        );
        assert_eq!(again.as_ref().attributes().id(), "1");
    }
    let deep = "[".repeat(DEPTH_MAX + 1) + &"]".repeat(DEPTH_MAX + 1);
    assert!(written(&typed(None, &DataPart::text(&deep))).contains("data_base64"));
}

#[test]
fn further_members_are_added_but_replace_nothing() {
    let event = read(r#""sequence":"own""#).unwrap();
    let extra = [
        ("sequence", "9"),
        ("origin", "a\"b"),
        ("data", "x"),
        ("Bad\"", "x"),
    ];
    let json = to_json_with(&event.as_ref(), &extra);
    assert_eq!(
        String::from_utf8(json).unwrap(),
        r#"{"id":"1","sequence":"own","source":"/s","specversion":"1.0","type":"t","origin":"a\"b"}"#
    );
}

#[test]
fn one_line_means_one_line() {
    let event = read("\"data\":{\r\n\"a\":\"x\\ny\"\n}").unwrap();
    let line = String::from_utf8(to_json_line(&event.as_ref(), &[])).unwrap();
    assert!(line.ends_with(r#""data":{  "a":"x\ny" }}"#), "{line}");
}

fn parts() -> impl Strategy<Value = (Option<&'static str>, u8, String, Vec<u8>, Option<Vec<u8>>)> {
    (
        prop::sample::select(vec![None, Some("application/json"), Some("text/plain")]),
        0u8..4,
        any::<String>(),
        any::<Vec<u8>>(),
        prop::option::of(prop::collection::vec(any::<u8>(), 1..40)),
    )
}

proptest! {
    #[test]
    fn json_and_binary_form_mean_the_same(all in support::attributes(), (media_type, state, text, bytes, material) in parts()) {
        let mut all = all;
        if let Some(media_type) = media_type {
            all.insert("datacontenttype".into(), support::Owned::String(media_type.into()));
        }
        let quoted = serde_json::to_string(&text).unwrap();
        let (state, data) = match state {
            0 => (DataState::Absent, &[][..]),
            1 => (DataState::Null, &[][..]),
            2 if media_type == Some("text/plain") => (DataState::Text, text.as_bytes()),
            2 => (DataState::Text, quoted.as_bytes()),
            _ => (DataState::Binary, &bytes[..]),
        };
        let part = DataPart { state, author_material: material.as_deref(), data };
        let event = Event::new(support::build(&all), &part, &Limits::default()).unwrap();
        let json = to_json(&event.as_ref());
        let again = from_json(&json, &Limits::default()).unwrap();
        // JSON shows no type but these; the others come back as what they look like.
        prop_assert_eq!(event.data_part_bytes(), again.data_part_bytes());
        let (before, after) = (event.as_ref(), again.as_ref());
        prop_assert_eq!(before.attributes().iter().count(), after.attributes().iter().count());
        for ((name, value), (name_after, value_after)) in before.attributes().iter().zip(after.attributes().iter()) {
            prop_assert_eq!(name, name_after);
            prop_assert_eq!(value.canonical_text(), value_after.canonical_text());
        }
        // From then on nothing changes any more, and other readers see the same.
        prop_assert_eq!(to_json(&after), json.clone());
        prop_assert_eq!(from_json(&to_json(&after), &Limits::default()).unwrap(), again.clone());
        let foreign: serde_json::Value = serde_json::from_slice(&json).unwrap();
        prop_assert_eq!(foreign["id"].as_str(), Some(before.attributes().id()));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = from_json(&bytes, &Limits::default());
        let _ = batch_from_json(&bytes, &Limits::default());
    }

    #[test]
    fn almost_valid_json_never_panics(at: prop::sample::Index, byte: u8, cut: bool) {
        let mut bytes = json(r#""ext":-12,"time":"2026-01-02T03:04:05Z","dssematerial":"bQ==","datacontenttype":"text/plain","data":"a\u00e9\ud83d\ude00""#).into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if cut {
            bytes.truncate(at);
        }
        if let Ok(event) = from_json(&bytes, &Limits::default()) {
            prop_assert!(from_json(&to_json(&event.as_ref()), &Limits::default()).is_ok());
        }
    }
}
