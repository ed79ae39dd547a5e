//! Attributes: one canonical form, and nothing else is read.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use countersign_event::attributes::{
    AttributeError, Attributes, AttributesBuilder, Value, ValueType,
};
use countersign_event::time::TimeError;
use proptest::prelude::*;
use support::{attributes, build};

fn base() -> AttributesBuilder<'static> {
    AttributesBuilder::new("1", "/s", "t")
}

/// The outcome of one further attribute beside the required ones.
fn check(name: &str, value: Value<'_>, expected: Result<(), AttributeError>) {
    let bytes = AttributesBuilder::new("1", "/s", "t")
        .with(name, value)
        .build();
    assert_eq!(bytes.map(|_| ()), expected, "{name}");
}

/// One record with any type byte and value, beside valid ones.
fn record(name: &str, value_type: u8, value: &[u8]) -> Result<(), AttributeError> {
    let mut bytes = vec![name.len() as u8];
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(value_type);
    bytes.extend_from_slice(&(value.len() as u16).to_be_bytes());
    bytes.extend_from_slice(value);
    bytes.extend_from_slice(&base().build().unwrap());
    Attributes::check(&bytes).map(|_| ())
}

#[test]
fn the_required_attributes_are_required() {
    let all = [
        ("id", Value::String("1")),
        ("source", Value::UriReference("/s")),
        ("specversion", Value::String("1.0")),
        ("type", Value::String("t")),
    ];
    for (missing, _) in all {
        let mut builder = AttributesBuilder::empty();
        for (name, value) in all.iter().filter(|(name, _)| *name != missing) {
            builder.push(*name, *value);
        }
        assert_eq!(
            builder.build(),
            Err(AttributeError::Missing { name: missing })
        );
    }
}

#[test]
fn names_have_the_characters_and_places_of_the_specification() {
    for name in [
        "a",
        "z9",
        "0",
        "thisnameislongerthantwentycharacters",
        &"x".repeat(255),
    ] {
        check(name, Value::Boolean(true), Ok(()));
    }
    for name in ["A", "a_b", "a-b", "ä", "a b", "data_base64", "a\0"] {
        let bytes = base().with(name, Value::Boolean(true)).build();
        assert!(
            matches!(bytes, Err(AttributeError::NameCharacters { .. })),
            "{name}"
        );
    }
    for name in ["data", "dssematerial"] {
        check(
            name,
            Value::String("x"),
            Err(AttributeError::ReservedName { name: name.into() }),
        );
    }
    check(
        "",
        Value::Boolean(true),
        Err(AttributeError::NameLength { found: 0 }),
    );
    check(
        &"x".repeat(256),
        Value::Boolean(true),
        Err(AttributeError::NameLength { found: 256 }),
    );
}

#[test]
fn a_name_in_an_error_is_short_and_harmless_to_a_terminal() {
    let name = format!("\u{1b}[2J{}", "x".repeat(1000));
    let error = base()
        .with(name[..250].to_owned(), Value::Boolean(true))
        .build()
        .unwrap_err();
    let shown = error.to_string();
    assert!(
        shown.len() < 150 && shown.chars().all(|c| !c.is_control()),
        "{shown}"
    );
}

#[test]
fn core_attributes_have_their_types_and_are_not_empty() {
    for (name, expected) in [
        ("subject", ValueType::String),
        ("datacontenttype", ValueType::String),
        ("dataschema", ValueType::Uri),
        ("time", ValueType::Timestamp),
    ] {
        check(
            name,
            Value::Integer(5),
            Err(AttributeError::CoreType {
                name: name.into(),
                found: ValueType::Integer,
                expected,
            }),
        );
    }
    check(
        "subject",
        Value::String(""),
        Err(AttributeError::Empty {
            name: "subject".into(),
        }),
    );
    check(
        "dataschema",
        Value::Uri(""),
        Err(AttributeError::Empty {
            name: "dataschema".into(),
        }),
    );
    check(
        "datacontenttype",
        Value::String(""),
        Err(AttributeError::Empty {
            name: "datacontenttype".into(),
        }),
    );
    for (id, source, kind, empty) in [
        ("", "/s", "t", "id"),
        ("1", "", "t", "source"),
        ("1", "/s", "", "type"),
    ] {
        assert_eq!(
            AttributesBuilder::new(id, source, kind).build(),
            Err(AttributeError::Empty { name: empty.into() })
        );
    }
    let other = AttributesBuilder::empty()
        .with("specversion", Value::String("1.1"))
        .with("id", Value::String("1"))
        .with("source", Value::UriReference("/s"))
        .with("type", Value::String("t"));
    assert_eq!(other.build(), Err(AttributeError::SpecVersion));
}

#[test]
fn values_have_one_form_only() {
    let form = |value_type| {
        Err(AttributeError::ValueForm {
            name: "a".into(),
            value_type,
        })
    };
    assert_eq!(record("a", 1, &[1]), Ok(()));
    for bytes in [&[][..], &[2], &[255], &[0, 0]] {
        assert_eq!(record("a", 1, bytes), form(ValueType::Boolean));
    }
    assert_eq!(record("a", 2, &[0; 4]), Ok(()));
    for bytes in [&[0; 3][..], &[0; 5], &[]] {
        assert_eq!(record("a", 2, bytes), form(ValueType::Integer));
    }
    assert_eq!(record("a", 4, &[0xff, 0]), Ok(()));
    for value_type in [3, 5, 6] {
        assert_eq!(
            record("a", value_type, &[0xff]),
            Err(AttributeError::NotUtf8 { name: "a".into() })
        );
        assert_eq!(
            record("a", value_type, b"x\ny"),
            Err(AttributeError::ForbiddenCharacter {
                name: "a".into(),
                code_point: 10
            })
        );
        assert_eq!(
            record("a", value_type, "\u{fdd0}".as_bytes()),
            Err(AttributeError::ForbiddenCharacter {
                name: "a".into(),
                code_point: 0xfdd0
            })
        );
    }
    assert_eq!(
        record("a", 5, b""),
        Err(AttributeError::Empty { name: "a".into() })
    );
    assert_eq!(record("a", 6, b""), Ok(()));
    assert_eq!(
        record("a", 7, b"2026-01-02"),
        Err(AttributeError::Time {
            name: "a".into(),
            source: TimeError::Syntax
        })
    );
    for found in [0, 8, 255] {
        assert_eq!(
            record("a", found, b"x"),
            Err(AttributeError::UnknownType {
                name: "a".into(),
                found
            })
        );
    }
}

#[test]
fn order_and_uniqueness_make_the_form_canonical() {
    assert_eq!(
        record("z", 1, &[1]),
        Err(AttributeError::Order { name: "id".into() })
    );
    assert_eq!(
        record("id", 3, b"1"),
        Err(AttributeError::Order { name: "id".into() })
    );
    let twice = base()
        .with("a", Value::Boolean(true))
        .with("a", Value::Boolean(true));
    assert_eq!(
        twice.build(),
        Err(AttributeError::Duplicate { name: "a".into() })
    );
}

#[test]
fn lengths_are_limited() {
    let long = "x".repeat(65_536);
    check(
        "a",
        Value::String(&long),
        Err(AttributeError::ValueTooLong {
            name: "a".into(),
            found: 65_536,
        }),
    );
    // Required attributes take 57 bytes here, the record itself five more than its value.
    let required = base().build().unwrap().len();
    let fits = &long[..65_535 - required - 5];
    check("a", Value::String(fits), Ok(()));
    check(
        "a",
        Value::String(&long[..fits.len() + 1]),
        Err(AttributeError::TooLong {
            found: 65_536,
            max: 65_535,
        }),
    );
    assert_eq!(
        Attributes::check(&[0; 65_536]),
        Err(AttributeError::TooLong {
            found: 65_536,
            max: 65_535
        })
    );
}

#[test]
fn typed_values_have_their_canonical_text() {
    for (value, text) in [
        (Value::Boolean(true), "true"),
        (Value::Boolean(false), "false"),
        (Value::Integer(i32::MIN), "-2147483648"),
        (Value::Binary(&[0xfb, 0xff]), "+/8="),
        (Value::String("a b"), "a b"),
    ] {
        assert_eq!(value.canonical_text(), text);
    }
}

proptest! {
    #[test]
    fn what_is_built_is_read_back(all in attributes()) {
        let bytes = build(&all);
        let read = Attributes::check(&bytes).unwrap();
        let pairs: Vec<_> = all.iter().map(|(name, value)| (name.as_str(), value.borrow())).collect();
        prop_assert_eq!(read.iter().collect::<Vec<_>>(), pairs.clone());
        for (name, value) in pairs {
            prop_assert_eq!(read.get(name), Some(value));
        }
        prop_assert_eq!(read.get("absent"), None);
        prop_assert_eq!(Some(Value::String(read.id())), read.get("id"));
        prop_assert_eq!(Some(Value::UriReference(read.source())), read.get("source"));
        prop_assert_eq!(Some(Value::String(read.kind())), read.get("type"));
        prop_assert_eq!(read.subject().map(Value::String), read.get("subject"));
        prop_assert_eq!(read.dataschema().map(Value::Uri), read.get("dataschema"));
        prop_assert_eq!(read.time().map(Value::Timestamp), read.get("time"));
    }

    #[test]
    fn every_changed_byte_is_refused_or_changes_a_value(all in attributes(), flip in 1u8..=255) {
        let bytes = build(&all);
        let original: Vec<_> = Attributes::check(&bytes).unwrap().iter().collect();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= flip;
            if let Ok(read) = Attributes::check(&changed) {
                prop_assert_ne!(read.iter().collect::<Vec<_>>(), original.clone());
            }
        }
    }

    #[test]
    fn every_accepted_input_is_what_its_values_build(all in attributes(), at: prop::sample::Index, byte: u8) {
        let mut bytes = build(&all);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(read) = Attributes::check(&bytes) {
            let mut builder = AttributesBuilder::empty();
            for (name, value) in read.iter() {
                builder.push(name, value);
            }
            prop_assert_eq!(builder.build().unwrap(), bytes.clone());
        }
    }

    #[test]
    fn cut_or_extended_bytes_are_refused(all in attributes(), at: prop::sample::Index, extra: u8) {
        let mut bytes = build(&all);
        let cut = at.index(bytes.len());
        // A cut between records leaves the last, `type`, away, since names beginning with x, y, z do not occur.
        prop_assert!(Attributes::check(&bytes[..cut]).is_err());
        bytes.push(extra);
        prop_assert!(Attributes::check(&bytes).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Attributes::check(&bytes);
    }
}
