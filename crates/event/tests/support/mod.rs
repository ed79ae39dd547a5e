//! Strategies for valid attributes.

use std::collections::BTreeMap;

use countersign_event::attributes::{AttributesBuilder, Value};
use proptest::prelude::*;

/// An attribute value that owns its bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Owned {
    Boolean(bool),
    Integer(i32),
    String(String),
    Binary(Vec<u8>),
    Uri(String),
    UriReference(String),
    Timestamp(String),
}

impl Owned {
    pub(crate) fn borrow(&self) -> Value<'_> {
        match self {
            Self::Boolean(value) => Value::Boolean(*value),
            Self::Integer(value) => Value::Integer(*value),
            Self::String(text) => Value::String(text),
            Self::Binary(bytes) => Value::Binary(bytes),
            Self::Uri(text) => Value::Uri(text),
            Self::UriReference(text) => Value::UriReference(text),
            Self::Timestamp(text) => Value::Timestamp(text),
        }
    }
}

/// Text that the type system admits.
pub(crate) fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,20}",
        "[a-zA-Zäöü\u{a0}-\u{d7ff}\u{e000}-\u{fdcf}\u{10000}-\u{1fffd}]{0,6}",
    ]
}

pub(crate) fn filled() -> impl Strategy<Value = String> {
    text().prop_map(|text| format!("x{text}"))
}

pub(crate) fn time() -> impl Strategy<Value = String> {
    (
        0u16..10000,
        1u8..13,
        1u8..29,
        0u8..24,
        0u8..60,
        "(|\\.[0-9]{1,9})",
        "(Z|z|[+-](0[0-9]|1[0-9]|2[0-3]):[0-5][0-9])",
    )
        .prop_map(|(year, month, day, hour, minute, fraction, zone)| {
            format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:07{fraction}{zone}")
        })
}

fn value() -> impl Strategy<Value = Owned> {
    prop_oneof![
        any::<bool>().prop_map(Owned::Boolean),
        any::<i32>().prop_map(Owned::Integer),
        text().prop_map(Owned::String),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(Owned::Binary),
        filled().prop_map(Owned::Uri),
        text().prop_map(Owned::UriReference),
        time().prop_map(Owned::Timestamp),
    ]
}

/// Valid attributes, by name.
pub(crate) fn attributes() -> impl Strategy<Value = BTreeMap<String, Owned>> {
    (
        (filled(), filled(), filled()),
        prop::option::of(filled()),
        prop::option::of(filled()),
        prop::option::of(time()),
        prop::collection::btree_map("ext[a-z0-9]{0,12}", value(), 0..5),
    )
        .prop_map(|((id, source, kind), subject, dataschema, time, mut all)| {
            all.insert("specversion".into(), Owned::String("1.0".into()));
            all.insert("id".into(), Owned::String(id));
            all.insert("source".into(), Owned::UriReference(source));
            all.insert("type".into(), Owned::String(kind));
            let optional = [
                ("subject", subject.map(Owned::String)),
                ("dataschema", dataschema.map(Owned::Uri)),
                ("time", time.map(Owned::Timestamp)),
            ];
            for (name, value) in optional {
                if let Some(value) = value {
                    all.insert(name.into(), value);
                }
            }
            all
        })
}

/// Canonical bytes, the pairs handed over in another order than the canonical one.
pub(crate) fn build(all: &BTreeMap<String, Owned>) -> Vec<u8> {
    let mut builder = AttributesBuilder::empty();
    for (name, value) in all.iter().rev() {
        builder.push(name.as_str(), value.borrow());
    }
    builder.build().unwrap()
}
