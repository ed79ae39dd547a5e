//! Data parts and contents: strict, and bound to their entry.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use countersign_crypto::SeededEntropy;
use countersign_event::attributes::{AttributeError, AttributesBuilder};
use countersign_event::commitment::Salts;
use countersign_event::content::{
    ContentError, Event, EventError, EventRef, Limits, SealedHead, check_content, open_content,
    seal,
};
use countersign_event::data::{AUTHOR_MATERIAL_BYTES_MAX, DataError, DataPart, DataState};
use countersign_event::entry::{Entry, Kind};
use countersign_event::time::Timestamp;
use proptest::prelude::*;

fn encoded(part: &DataPart<'_>) -> Result<Vec<u8>, DataError> {
    let mut out = Vec::new();
    part.encode(&mut out)?;
    assert_eq!(out.len(), part.encoded_len());
    Ok(out)
}

#[test]
fn each_state_has_its_bytes() {
    let part = |state, author_material, data| DataPart {
        state,
        author_material,
        data,
    };
    for (part, bytes) in [
        (part(DataState::Absent, None, &b""[..]), &b"\x00"[..]),
        (part(DataState::Null, None, b""), b"\x01"),
        (part(DataState::Text, None, b""), b"\x02"),
        (part(DataState::Text, None, b"{}"), b"\x02{}"),
        (part(DataState::Binary, None, b"\xff"), b"\x03\xff"),
        (part(DataState::Absent, Some(b"m"), b""), b"\x80\0\0\0\x01m"),
        (
            part(DataState::Binary, Some(b"mm"), b"d"),
            b"\x83\0\0\0\x02mmd",
        ),
    ] {
        assert_eq!(encoded(&part).unwrap(), bytes);
        assert_eq!(DataPart::decode(bytes).unwrap(), part);
    }
}

#[test]
fn other_bytes_are_refused() {
    for (bytes, error) in [
        (
            &b""[..],
            DataError::Truncated {
                needed: 1,
                found: 0,
            },
        ),
        (b"\x04", DataError::State { found: 4 }),
        (b"\x0f", DataError::State { found: 15 }),
        (b"\x10", DataError::ReservedBits { found: 0x10 }),
        (b"\x42", DataError::ReservedBits { found: 0x42 }),
        (b"\x00x", DataError::Unexpected { found: 1 }),
        (b"\x01xy", DataError::Unexpected { found: 2 }),
        (b"\x02a\xff", DataError::NotUtf8 { offset: 1 }),
        (
            b"\x80\0\0",
            DataError::Truncated {
                needed: 5,
                found: 3,
            },
        ),
        (b"\x80\0\0\0\0", DataError::EmptyAuthorMaterial),
        (
            b"\x80\0\0\0\x02m",
            DataError::Truncated {
                needed: 7,
                found: 6,
            },
        ),
        (
            b"\x80\0\x01\0\0m",
            DataError::AuthorMaterialTooLong {
                found: 65_536,
                max: AUTHOR_MATERIAL_BYTES_MAX,
            },
        ),
        (
            b"\x80\xff\xff\xff\xff",
            DataError::AuthorMaterialTooLong {
                found: 0xffff_ffff,
                max: AUTHOR_MATERIAL_BYTES_MAX,
            },
        ),
    ] {
        assert_eq!(DataPart::decode(bytes), Err(error), "{bytes:?}");
    }
}

#[test]
fn limits_hold_at_their_edges() {
    let limits = Limits {
        attribute_bytes_max: 100,
        author_material_bytes_max: 3,
        data_bytes_max: 4,
    };
    let attributes = |len: usize| {
        let id = "x".repeat(len);
        AttributesBuilder::new(&id, "/s", "t").build().unwrap()
    };
    let room = 100 - attributes(1).len() + 1;
    let make = |id: usize, material: &[u8], data: &[u8]| {
        let part = DataPart {
            state: DataState::Binary,
            author_material: Some(material),
            data,
        };
        Event::new(attributes(id), &part, &limits).map(|_| ())
    };
    assert_eq!(make(room, b"123", b"1234"), Ok(()));
    assert_eq!(
        make(room + 1, b"123", b"1234"),
        Err(EventError::Attributes(AttributeError::TooLong {
            found: 101,
            max: 100
        }))
    );
    assert_eq!(
        make(1, b"1234", b""),
        Err(EventError::Data(DataError::AuthorMaterialTooLong {
            found: 4,
            max: 3
        }))
    );
    assert_eq!(
        make(1, b"123", b"12345"),
        Err(EventError::Data(DataError::DataTooLong {
            found: 5,
            max: 4
        }))
    );
    let event = Event::new(
        attributes(1),
        &DataPart::binary(b"12345"),
        &Limits::default(),
    )
    .unwrap();
    let (attributes, data_part) = event.into_parts();
    assert_eq!(
        EventRef::check(&attributes, &data_part, &limits).unwrap_err(),
        EventError::Data(DataError::DataTooLong { found: 5, max: 4 })
    );
    assert_eq!(
        Event::check(attributes, data_part, &limits).unwrap_err(),
        EventError::Data(DataError::DataTooLong { found: 5, max: 4 })
    );
}

#[test]
fn a_payload_is_not_printed() {
    let event = Event::new(
        AttributesBuilder::new("1", "/s", "t").build().unwrap(),
        &DataPart::text("top secret"),
        &Limits::default(),
    )
    .unwrap();
    assert!(!format!("{event:?}").contains("secret"));
}

struct Sealed {
    entry: Entry,
    content: Vec<u8>,
    attribute_bytes: usize,
}

fn sealed(part: &DataPart<'_>) -> Sealed {
    let event = Event::new(
        AttributesBuilder::new("1", "/s", "t").build().unwrap(),
        part,
        &Limits::default(),
    )
    .unwrap();
    let event = event.as_ref();
    let salts = Salts::draw(&mut SeededEntropy::new(5));
    let mut content = Vec::new();
    event.write_content(&salts, &mut content);
    assert_eq!(content.len(), event.content_len());
    Sealed {
        entry: seal(&event, &salts).entry(Kind::Event, 9, [4; 32], Timestamp(1)),
        content,
        attribute_bytes: event.attribute_bytes().len(),
    }
}

#[test]
fn a_content_is_bound_to_its_entry() {
    let part = DataPart {
        state: DataState::Text,
        author_material: Some(b"m"),
        data: b"{}",
    };
    let Sealed {
        entry,
        content,
        attribute_bytes,
    } = sealed(&part);
    let event = check_content(&entry, &content, attribute_bytes).unwrap();
    assert_eq!(*event.data(), part);
    let (rebuilt, head) = open_content(&content, attribute_bytes).unwrap();
    assert_eq!(rebuilt, event);
    assert_eq!(head.entry(Kind::Event, 9, [4; 32], Timestamp(1)), entry);

    for at in 0..content.len() {
        let mut changed = content.clone();
        changed[at] ^= 1;
        let expected = if at < 32 || (64..64 + attribute_bytes).contains(&at) {
            ContentError::AttributeCommitment
        } else {
            ContentError::DataCommitment
        };
        assert_eq!(
            check_content(&entry, &changed, attribute_bytes),
            Err(expected),
            "byte {at}"
        );
    }
    // A moved border between the parts is noticed too, at whatever length.
    for wrong in (0..content.len() - 64).filter(|length| *length != attribute_bytes) {
        assert_eq!(
            check_content(&entry, &content, wrong),
            Err(ContentError::AttributeCommitment)
        );
    }
    for short in [0, 31, 63, 64 + attribute_bytes - 1] {
        assert!(matches!(
            check_content(&entry, &content[..short], attribute_bytes),
            Err(ContentError::Truncated { .. })
        ));
    }
    assert!(matches!(
        check_content(&entry, &content, usize::MAX),
        Err(ContentError::Truncated { .. })
    ));
}

#[test]
fn an_entry_that_misdescribes_its_content_is_noticed() {
    let Sealed {
        entry,
        content,
        attribute_bytes,
    } = sealed(&DataPart::text("{}"));
    let check = |entry: Entry| check_content(&entry, &content, attribute_bytes).unwrap_err();
    assert_eq!(
        check(Entry {
            data_bytes: 3,
            ..entry
        }),
        ContentError::DataLength {
            stated: 3,
            found: 2
        }
    );
    let mut wrong = entry;
    wrong.flags.author_signed = true;
    assert_eq!(check(wrong), ContentError::AuthorSigned { stated: true });
    let mut wrong = entry;
    wrong.flags.encrypted = true;
    assert_eq!(check(wrong), ContentError::Encrypted);
}

#[test]
fn committed_bytes_that_are_no_event_are_told_from_altered_ones() {
    let salts = Salts::draw(&mut SeededEntropy::new(5));
    let head = SealedHead {
        attributes: countersign_event::commitment::attribute_commitment(&salts.attributes, b"junk"),
        data: countersign_event::commitment::data_commitment(&salts.data, b"\x00"),
        data_bytes: 0,
        flags: Default::default(),
    };
    let content = [&salts.attributes[..], &salts.data, b"junk", b"\x00"].concat();
    let entry = head.entry(Kind::Event, 0, [0; 32], Timestamp(0));
    assert!(matches!(
        check_content(&entry, &content, 4),
        Err(ContentError::Event(_))
    ));
    assert!(matches!(
        open_content(&content, 4),
        Err(ContentError::Event(_))
    ));
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(state in 0..4u8, material: Option<Vec<u8>>, data: Vec<u8>, text: String) {
        let (state, data) = match state {
            0 => (DataState::Absent, &[][..]),
            1 => (DataState::Null, &[][..]),
            2 => (DataState::Text, text.as_bytes()),
            _ => (DataState::Binary, &data[..]),
        };
        let material = material.filter(|material| !material.is_empty());
        let part = DataPart { state, author_material: material.as_deref(), data };
        let bytes = encoded(&part).unwrap();
        prop_assert_eq!(DataPart::decode(&bytes).unwrap(), part);
    }

    #[test]
    fn every_accepted_input_is_canonical(head in prop::sample::select(vec![0u8, 1, 2, 3, 0x80, 0x82, 0x83]), length in 0u8..6, rest: Vec<u8>) {
        let mut bytes = vec![head, 0, 0, 0, length];
        bytes.extend_from_slice(&rest);
        for bytes in [&bytes[..], &rest[..], &bytes[..1]] {
            if let Ok(part) = DataPart::decode(bytes) {
                prop_assert_eq!(encoded(&part).unwrap(), bytes);
            }
        }
    }

    #[test]
    fn arbitrary_contents_never_panic(content in prop::collection::vec(any::<u8>(), 0..300), attribute_bytes in 0usize..400) {
        let _ = open_content(&content, attribute_bytes);
    }

    #[test]
    fn what_is_sealed_is_opened(all in support::attributes(), data: Vec<u8>, seed: u64) {
        let event = Event::new(support::build(&all), &DataPart::binary(&data), &Limits::default()).unwrap();
        let salts = Salts::draw(&mut SeededEntropy::new(seed));
        let head = seal(&event.as_ref(), &salts);
        let mut content = Vec::new();
        event.as_ref().write_content(&salts, &mut content);
        let attribute_bytes = event.attribute_bytes().len();
        let (opened, again) = open_content(&content, attribute_bytes).unwrap();
        prop_assert_eq!(again, head);
        prop_assert_eq!(opened.to_owned(), event.clone());
        let entry = head.entry(Kind::Event, 1, [1; 32], Timestamp(2));
        prop_assert_eq!(check_content(&entry, &content, attribute_bytes).unwrap().to_owned(), event);
    }
}
