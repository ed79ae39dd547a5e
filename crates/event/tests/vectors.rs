//! Golden vectors of the format, in `tests/vectors/event/v1`: recomputed here and compared. With
//! `COUNTERSIGN_WRITE_VECTORS=1` missing files are written; one that exists is never changed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::path::Path;

use countersign_crypto::Hash;
use countersign_event::attributes::{Attributes, AttributesBuilder, Value};
use countersign_event::cloudevents::from_json;
use countersign_event::commitment::Salts;
use countersign_event::content::{Limits, check_content, seal};
use countersign_event::data::DataPart;
use countersign_event::entry::{Entry, Flags, Kind, leaf_hash};
use countersign_event::time::Timestamp;
use serde_json::json;

fn check(file: &str, recomputed: &serde_json::Value) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/event/v1");
    let path = Path::new(folder).join(file);
    if !path.exists() && std::env::var_os("COUNTERSIGN_WRITE_VECTORS").is_some() {
        std::fs::create_dir_all(folder).unwrap();
        let text = serde_json::to_string_pretty(recomputed).unwrap() + "\n";
        std::fs::write(&path, text).unwrap();
    }
    let stored = std::fs::read(&path).unwrap();
    let stored: serde_json::Value = serde_json::from_slice(&stored).unwrap();
    assert_eq!(&stored, recomputed, "{file}");
}

fn fields(entry: &Entry) -> serde_json::Value {
    json!({
        "kind": match entry.kind { Kind::Event => "event", Kind::Control => "control" },
        "encrypted": entry.flags.encrypted,
        "author_signed": entry.flags.author_signed,
        "data_bytes": entry.data_bytes,
        "sequence": entry.sequence.to_string(),
        "prev": hex::encode(entry.prev),
        "time": entry.time.0.to_string(),
        "attributes": hex::encode(entry.attributes),
        "data": hex::encode(entry.data),
    })
}

#[test]
fn entries_have_their_golden_bytes() {
    let hash = |byte: u8| -> Hash { [byte; 32] };
    let first = Entry {
        kind: Kind::Control,
        flags: Flags::default(),
        data_bytes: 512,
        sequence: 0,
        prev: hash(0),
        time: Timestamp(1_767_323_045_678_901),
        attributes: hash(0x11),
        data: hash(0x22),
    };
    let flags = |encrypted, author_signed| Flags {
        encrypted,
        author_signed,
    };
    let valid = [
        ("first, control", first),
        (
            "event",
            Entry {
                kind: Kind::Event,
                sequence: 1,
                prev: hash(0x33),
                data_bytes: 0,
                ..first
            },
        ),
        (
            "event, author-signed",
            Entry {
                kind: Kind::Event,
                flags: flags(false, true),
                sequence: 2,
                prev: hash(0x44),
                ..first
            },
        ),
        (
            "event, encrypted",
            Entry {
                kind: Kind::Event,
                flags: flags(true, false),
                sequence: 3,
                prev: hash(0x55),
                ..first
            },
        ),
        (
            "largest numbers",
            Entry {
                kind: Kind::Event,
                flags: flags(true, true),
                data_bytes: u32::MAX,
                sequence: u64::MAX,
                time: Timestamp(u64::MAX),
                prev: hash(0xff),
                ..first
            },
        ),
    ];
    let bytes = valid[1].1.encode();
    let with = |at: usize, byte: u8| {
        let mut bytes = bytes.to_vec();
        bytes[at] = byte;
        bytes
    };
    let invalid = [
        ("empty", vec![]),
        ("one byte short", bytes[..117].to_vec()),
        ("one byte long", [&bytes[..], &[0]].concat()),
        ("version 0", with(0, 0)),
        ("version 2", with(0, 2)),
        ("kind 2", with(1, 2)),
        ("kind 15", with(1, 15)),
        ("bit 6", with(1, 0x40)),
        ("bit 7", with(1, 0x80)),
        ("sequence 0 with prev", with(13, 0)),
    ];
    let valid = valid.map(|(name, entry)| {
        let bytes = entry.encode();
        assert_eq!(Entry::decode(&bytes), Ok(entry));
        json!({"name": name, "fields": fields(&entry), "bytes": hex::encode(bytes), "leaf_hash": hex::encode(leaf_hash(&bytes))})
    });
    let invalid = invalid.map(|(name, bytes)| {
        let error = Entry::decode(&bytes).unwrap_err().to_string();
        json!({"name": name, "bytes": hex::encode(bytes), "error": error})
    });
    check(
        "entry.json",
        &json!({"valid": valid.to_vec(), "invalid": invalid.to_vec()}),
    );
}

fn required<'a>() -> AttributesBuilder<'a> {
    AttributesBuilder::new("1", "/s", "t")
}

#[test]
fn attributes_have_their_golden_bytes() {
    let valid = [
        ("required only", required()),
        (
            "every type",
            required()
                .with("binary", Value::Binary(&[0, 0xff]))
                .with("boolean", Value::Boolean(true))
                .with("integer", Value::Integer(-2))
                .with("reference", Value::UriReference(""))
                .with("string", Value::String("é😀"))
                .with(
                    "timestamp",
                    Value::Timestamp("2026-01-02T03:04:05.678+01:00"),
                )
                .with("uri", Value::Uri("https://example.org/")),
        ),
        (
            "every core attribute",
            required()
                .with("time", Value::Timestamp("2026-01-02T03:04:05Z"))
                .with("subject", Value::String("roof"))
                .with("datacontenttype", Value::String("application/json"))
                .with("dataschema", Value::Uri("https://example.org/schema")),
        ),
    ];
    let base = required().build().unwrap();
    let record = |name: &str, value_type: u8, value: &[u8]| {
        let mut bytes = vec![name.len() as u8];
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(value_type);
        bytes.extend_from_slice(&(value.len() as u16).to_be_bytes());
        bytes.extend_from_slice(value);
        [bytes, base.clone()].concat()
    };
    let invalid = [
        ("none", vec![]),
        ("cut", base[..base.len() - 1].to_vec()),
        ("without `id`", base[6..].to_vec()),
        ("`id` twice", record("id", 3, b"1")),
        ("not in order", record("z", 1, &[1])),
        ("empty name", record("", 1, &[1])),
        ("upper case", record("A", 1, &[1])),
        ("`data`", record("data", 3, b"1")),
        ("`dssematerial`", record("dssematerial", 4, b"1")),
        ("type 0", record("a", 0, &[])),
        ("type 8", record("a", 8, &[])),
        ("boolean 2", record("a", 1, &[2])),
        ("integer of three bytes", record("a", 2, &[0; 3])),
        ("control character", record("a", 3, b"\n")),
        ("noncharacter", record("a", 3, "\u{fffe}".as_bytes())),
        ("not UTF-8", record("a", 3, b"\xed\xa0\x80")),
        ("empty URI", record("a", 5, b"")),
        ("no such day", record("a", 7, b"2025-02-29T00:00:00Z")),
        ("empty subject", {
            let subject = [&[7][..], b"subject", &[3, 0, 0]].concat();
            // Before `type`, the last record.
            let at = base.len() - 9;
            [&base[..at], &subject, &base[at..]].concat()
        }),
    ];
    let valid = valid.map(|(name, builder)| {
        let bytes = builder.build().unwrap();
        let attributes = Attributes::check(&bytes).unwrap();
        let list: Vec<_> = attributes
            .iter()
            .map(|(name, value)| {
                json!([name, value.value_type().to_string(), value.canonical_text()])
            })
            .collect();
        json!({"name": name, "attributes": list, "bytes": hex::encode(&bytes)})
    });
    let invalid = invalid.map(|(name, bytes)| {
        let error = Attributes::check(&bytes).expect_err(name).to_string();
        json!({"name": name, "bytes": hex::encode(bytes), "error": error})
    });
    check(
        "attributes.json",
        &json!({"valid": valid.to_vec(), "invalid": invalid.to_vec()}),
    );
}

#[test]
fn data_parts_refuse_the_golden_wrong_bytes() {
    let invalid = [
        ("empty", &b""[..]),
        ("state 4", b"\x04"),
        ("bit 4", b"\x10"),
        ("bit 6", b"\x42"),
        ("absent with data", b"\x00x"),
        ("null with data", b"\x01x"),
        ("text that is not UTF-8", b"\x02\xff"),
        ("empty author material", b"\x80\0\0\0\0"),
        ("cut author material", b"\x80\0\0\0\x02m"),
        ("author material of 65,536 bytes", b"\x80\0\x01\0\0"),
    ];
    let invalid = invalid.map(|(name, bytes)| {
        let error = DataPart::decode(bytes).expect_err(name).to_string();
        json!({"name": name, "bytes": hex::encode(bytes), "error": error})
    });
    check("data-part.json", &json!({"invalid": invalid.to_vec()}));
}

#[test]
fn events_have_their_golden_commitments() {
    let events = [
        (
            "no data",
            r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#,
        ),
        (
            "null",
            r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":null}"#,
        ),
        (
            "json data as it came",
            r#"{"data": { "b":1.50, "a" :[ ] } ,"type":"t","source":"/s","id":"1","specversion":"1.0"}"#,
        ),
        (
            "text",
            r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"text/plain","data":"\u00e9\n"}"#,
        ),
        (
            "binary",
            r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data_base64":"AP8="}"#,
        ),
        (
            "author-signed",
            r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","dssematerial":"e30=","data":1,"n":-7,"b":false}"#,
        ),
    ];
    let salts = Salts {
        attributes: std::array::from_fn(|at| at as u8),
        data: std::array::from_fn(|at| 0x80 + at as u8),
    };
    let list = events.map(|(name, json)| {
        let event = from_json(json.as_bytes(), &Limits::default()).unwrap();
        let event = event.as_ref();
        let head = seal(&event, &salts);
        let entry = head.entry(Kind::Event, 5, [0x77; 32], Timestamp(1_767_323_045_678_901));
        let mut content = Vec::new();
        event.write_content(&salts, &mut content);
        assert!(check_content(&entry, &content, event.attribute_bytes().len()).is_ok());
        json!({
            "name": name,
            "json": json,
            "attributes": hex::encode(event.attribute_bytes()),
            "data_part": hex::encode(event.data_part_bytes()),
            "content": hex::encode(&content),
            "attribute_commitment": hex::encode(head.attributes),
            "data_commitment": hex::encode(head.data),
            "entry": hex::encode(entry.encode()),
            "leaf_hash": hex::encode(leaf_hash(&entry.encode())),
        })
    });
    check(
        "events.json",
        &json!({
            "attribute_salt": hex::encode(salts.attributes),
            "data_salt": hex::encode(salts.data),
            "events": list.to_vec(),
        }),
    );
}
