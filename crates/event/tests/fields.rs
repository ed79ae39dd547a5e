//! Fields: any choice of members verifies, any change of one does not, and what is withheld cannot be guessed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::sync::LazyLock;

use countersign_crypto::{Hash, HmacKey, sha256_of};
use countersign_event::attributes::AttributesBuilder;
use countersign_event::cloudevents::to_json;
use countersign_event::commitment::{
    DATA_FIELDS_TAG, DATA_MEMBER_TAG, DATA_WHOLE_TAG, Salts, attribute_commitment, data_commitment,
};
use countersign_event::content::{
    ContentError, Event, EventError, Limits, check_content, open_content, seal, view_content,
};
use countersign_event::data::{DATA_BYTES_MAX, DataError, DataPart, DataState};
use countersign_event::entry::{Entry, Flags, Kind};
use countersign_event::fields::{FieldsError, MEMBER_SALT_TAG, MEMBERS_MAX, View, check};
use countersign_event::time::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

const SALTS: Salts = Salts {
    attributes: [1; 32],
    data: [2; 32],
};

fn event_of(data: &str, material: Option<&[u8]>) -> Event {
    let part = DataPart {
        state: DataState::Members,
        author_material: material,
        data: data.as_bytes(),
    };
    let attributes = AttributesBuilder::new("1", "/s", "t").build().unwrap();
    Event::new(attributes, &part, &Limits::FORMAT).unwrap()
}

fn content_of(event: &Event) -> Vec<u8> {
    let mut content = Vec::new();
    event.as_ref().write_content(&SALTS, &mut content);
    content
}

fn entry_of(event: &Event) -> Entry {
    seal(&event.as_ref(), &SALTS).entry(Kind::Event, 1, [3; 32], Timestamp(5))
}

fn view_of(event: &Event, names: &[&str]) -> Vec<u8> {
    let attribute_bytes = event.attribute_bytes().len();
    view_content(&content_of(event), attribute_bytes, |name| {
        names.contains(&name)
    })
    .unwrap()
    .unwrap()
}

/// What the holder of a view makes of it: the entry's commitment, the object, how many members are withheld.
fn read(event: &Event, content: &[u8]) -> Result<(Value, usize), ContentError> {
    let attribute_bytes = event.attribute_bytes().len();
    let found = check_content(&entry_of(event), content, attribute_bytes)?;
    let json: Value = serde_json::from_slice(&to_json(&found)).unwrap();
    let withheld = found.data().view().map_or(0, |view| view.withheld());
    Ok((json["data"].clone(), withheld))
}

const ORDER: &str = " { \"customer\" : {\"name\":\"A, } \\\"b\\\"\"},\n\"price\":42 ,\"x\":[1,{\"y\":2}], \"Price\": 43, \"\\u0061\":null } ";

#[test]
fn the_commitment_is_the_one_that_the_format_draws() {
    let event = event_of(ORDER, None);
    let slices: [&[u8]; 6] = [
        b"\x05",
        b" { \"customer\" : {\"name\":\"A, } \\\"b\\\"\"},",
        b"\n\"price\":42 ,",
        b"\"x\":[1,{\"y\":2}],",
        b" \"Price\": 43,",
        b" \"\\u0061\":null } ",
    ];
    assert_eq!(slices.concat(), event.data_part_bytes());
    let key = HmacKey::new(&SALTS.data);
    let commitments: Vec<Hash> = (0_u32..)
        .zip(slices)
        .map(|(index, slice)| {
            let salt = key.authenticate(&[MEMBER_SALT_TAG, &index.to_be_bytes()]);
            sha256_of(&[DATA_MEMBER_TAG, &salt, slice])
        })
        .collect();
    let expected = sha256_of(&[DATA_FIELDS_TAG, &[0, 0, 0, 5], commitments.as_flattened()]);
    assert_eq!(
        data_commitment(&SALTS.data, event.data_part_bytes()),
        expected
    );
    assert_eq!(entry_of(&event).data, expected);
    assert_eq!(
        read(&event, &content_of(&event)).unwrap().0,
        serde_json::from_str::<Value>(ORDER).unwrap()
    );
}

#[test]
fn a_holder_sees_the_members_that_it_may_see_and_how_many_there_are() {
    let event = event_of(ORDER, None);
    let shown = |names: &[&str]| read(&event, &view_of(&event, names)).unwrap();
    assert_eq!(shown(&[]), (json!({}), 5));
    assert_eq!(shown(&["x"]), (json!({"x": [1, {"y": 2}]}), 4));
    // By what a name says, not by how it is written.
    assert_eq!(shown(&["a"]), (json!({"a": null}), 4));
    let view = view_of(&event, &["price", "Price"]);
    let attribute_bytes = event.attribute_bytes().len();
    let (found, _) = open_content(&view, attribute_bytes).unwrap();
    let text = String::from_utf8(to_json(&found)).unwrap();
    assert!(
        text.contains(r#""data":{"price":42,"Price": 43}"#),
        "{text}"
    );
    // Names are withheld with their values.
    for hidden in ["customer", "name", "A, }", "u0061"] {
        let bytes = hidden.as_bytes();
        assert!(
            !view.windows(bytes.len()).any(|window| window == bytes),
            "{hidden}"
        );
    }
    // A view can be narrowed, and not widened.
    let narrow = view_content(&view, attribute_bytes, |name| name == "x")
        .unwrap()
        .unwrap();
    assert_eq!(narrow, view_of(&event, &[]));
}

#[test]
fn objects_without_members_and_with_the_most_of_them() {
    for text in ["{}", " {\n} "] {
        let event = event_of(text, None);
        assert_eq!(read(&event, &view_of(&event, &[])).unwrap(), (json!({}), 0));
    }
    let many = |count: usize| {
        let members: Vec<String> = (0..count).map(|n| format!("\"{n}\":{n}")).collect();
        format!("{{{}}}", members.join(","))
    };
    assert_eq!(check(many(MEMBERS_MAX).as_bytes()), Ok(()));
    assert_eq!(
        check(many(MEMBERS_MAX + 1).as_bytes()),
        Err(FieldsError::TooMany)
    );
    let event = event_of(&many(MEMBERS_MAX), None);
    assert_eq!(
        read(&event, &view_of(&event, &["7"])).unwrap().1,
        MEMBERS_MAX - 1
    );
    for text in [
        "",
        "[]",
        "1",
        "null",
        "{",
        "{}{}",
        "{\"a\":1,}",
        "{\"a\":NaN}",
        "{1:2}",
        "\u{feff}{}",
    ] {
        assert!(check(text.as_bytes()).is_err(), "{text}");
    }
    assert!(check(b"{\"a\":\"\xff\"}").is_err());
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(64), "]".repeat(64));
    assert!(check(deep.as_bytes()).is_err());
}

#[test]
fn author_material_is_withheld_with_members_and_the_entry_says_so() {
    let event = event_of(r#"{"a":1,"b":2}"#, Some(b"unsalted digest"));
    assert!(entry_of(&event).flags.author_signed);
    // Though every member is disclosed: the digest in it would confirm guesses of what is withheld elsewhere.
    let view = view_of(&event, &["a", "b"]);
    assert!(!view.windows(8).any(|window| window == b"unsalted"));
    let (shown, withheld) = read(&event, &view).unwrap();
    assert_eq!((shown, withheld), (json!({"a": 1, "b": 2}), 0));
    let unsigned = event_of(r#"{"a":1,"b":2}"#, None);
    let mut entry = entry_of(&unsigned);
    entry.flags.author_signed = true;
    let attribute_bytes = unsigned.attribute_bytes().len();
    let view = view_of(&unsigned, &["a"]);
    let found = check_content(&entry, &view, attribute_bytes);
    assert_eq!(
        found.unwrap_err(),
        ContentError::AuthorSigned { stated: true }
    );
}

#[test]
fn what_a_view_says_beside_its_members_is_bound_too() {
    let event = event_of(ORDER, None);
    let attribute_bytes = event.attribute_bytes().len();
    let view = view_of(&event, &["x"]);
    // The place of the data salt, which no commitment covers.
    let mut salted = view.clone();
    salted[40] = 1;
    assert!(read(&event, &salted).is_err());
    assert_eq!(
        open_content(&salted, attribute_bytes).unwrap_err(),
        ContentError::ViewSalt
    );
    // A whole commitment to the bytes of a view is none.
    let part = &view[64 + attribute_bytes..];
    let mut entry = entry_of(&event);
    entry.data = sha256_of(&[DATA_WHOLE_TAG, &[0; 32], part]);
    assert_eq!(
        check_content(&entry, &view, attribute_bytes).unwrap_err(),
        ContentError::DataCommitment
    );
    entry.kind = Kind::Control;
    entry.data = entry_of(&event).data;
    assert_eq!(
        check_content(&entry, &view, attribute_bytes).unwrap_err(),
        ContentError::ControlView
    );
    // The stated length is at least what is here.
    let mut entry = entry_of(&event);
    entry.data_bytes = 3;
    assert!(matches!(
        check_content(&entry, &view, attribute_bytes),
        Err(ContentError::DataLength { .. })
    ));
}

#[test]
fn no_more_is_stated_than_an_event_can_have() {
    let event = event_of(ORDER, None);
    let attribute_bytes = event.attribute_bytes().len();
    let view = view_of(&event, &["x"]);
    let mut entry = entry_of(&event);
    entry.data_bytes = DATA_BYTES_MAX as u32;
    assert!(check_content(&entry, &view, attribute_bytes).is_ok());
    entry.data_bytes += 1;
    assert_eq!(
        check_content(&entry, &view, attribute_bytes).unwrap_err(),
        ContentError::StatedBytes {
            stated: entry.data_bytes,
            max: DATA_BYTES_MAX
        }
    );
}

/// Canonical attributes of the events below.
static ATTRIBUTES: LazyLock<Vec<u8>> =
    LazyLock::new(|| AttributesBuilder::new("1", "/s", "t").build().unwrap());

/// What a producer commits to past its own door, with two members of one name.
struct Double {
    name: &'static str,
    content: Vec<u8>,
    entry: Entry,
}

/// The object's slices, its entry, and a content of it in which the members at these places are disclosed.
fn double(name: &'static str, members: &[&str], shown: Option<&[usize]>) -> Double {
    let slices: Vec<&str> = [&["\u{5}"], members].concat();
    let key = HmacKey::new(&SALTS.data);
    let salt = |at: usize| key.authenticate(&[MEMBER_SALT_TAG, &(at as u32).to_be_bytes()]);
    let committed = |at: usize| sha256_of(&[DATA_MEMBER_TAG, &salt(at), slices[at].as_bytes()]);
    let all: Vec<Hash> = (0..slices.len()).map(committed).collect();
    let count = (members.len() as u32).to_be_bytes();
    let whole = slices.concat();
    let entry = Entry {
        kind: Kind::Event,
        flags: Flags::default(),
        data_bytes: whole.len() as u32 - 1,
        sequence: 1,
        prev: [3; 32],
        time: Timestamp(5),
        attributes: attribute_commitment(&SALTS.attributes, &ATTRIBUTES),
        data: sha256_of(&[DATA_FIELDS_TAG, &count, all.as_flattened()]),
    };
    let mut content = SALTS.attributes.to_vec();
    let Some(shown) = shown else {
        content.extend_from_slice(&SALTS.data);
        content.extend_from_slice(&ATTRIBUTES);
        content.extend_from_slice(whole.as_bytes());
        return Double {
            name,
            content,
            entry,
        };
    };
    content.extend_from_slice(&[0; 32]);
    content.extend_from_slice(&ATTRIBUTES);
    content.push(6);
    content.extend_from_slice(&count);
    for (at, slice) in slices.iter().enumerate() {
        if at == 0 || shown.contains(&at) {
            content.push(1);
            content.extend_from_slice(&salt(at));
            content.extend_from_slice(&(slice.len() as u32).to_be_bytes());
            content.extend_from_slice(slice.as_bytes());
        } else {
            content.push(0);
            content.extend_from_slice(&committed(at));
        }
    }
    Double {
        name,
        content,
        entry,
    }
}

const TWICE: [&str; 3] = ["{\"price\":1,", " \"x\":0,", "\"pr\\u0069ce\":2}"];

fn doubles() -> Vec<Double> {
    vec![
        double(
            "a name twice, whole",
            &["{\"a\":1,", "\"b\":0,", "\"a\":1}"],
            None,
        ),
        double("a name twice, written in two ways, whole", &TWICE, None),
        double("a name twice, both disclosed", &TWICE, Some(&[1, 3])),
        double("a name twice, all disclosed", &TWICE, Some(&[1, 2, 3])),
    ]
}

#[test]
fn two_members_of_one_name_are_the_log_s_fault_once_they_are_seen() {
    for text in [r#"{"a":1,"a":1}"#, r#"{"a":1,"b":{},"\u0061":2}"#] {
        assert_eq!(check(text.as_bytes()), Err(FieldsError::Repeated), "{text}");
    }
    // Names differ by a single character, and those within a member's value are that member's.
    for text in [r#"{"a":1,"A":1,"a ":1}"#, r#"{"a":{"b":1,"b":2}}"#] {
        assert_eq!(check(text.as_bytes()), Ok(()), "{text}");
    }
    // Not as something altered on the way: the log has committed to it.
    let repeated = ContentError::Event(EventError::Data(DataError::Fields(FieldsError::Repeated)));
    for double in doubles() {
        let found = check_content(&double.entry, &double.content, ATTRIBUTES.len());
        assert_eq!(found.unwrap_err(), repeated, "{}", double.name);
        let found = open_content(&double.content, ATTRIBUTES.len());
        assert_eq!(found.unwrap_err(), repeated, "{}", double.name);
        let shown = view_content(&double.content, ATTRIBUTES.len(), |name| name == "x");
        assert_eq!(shown.unwrap_err(), repeated, "{}", double.name);
    }
}

/// What the format cannot give: a holder of one of the two sees nothing wrong. Whoever has the whole event does, and shows it to anybody.
#[test]
fn who_is_shown_one_of_two_members_of_one_name_cannot_tell() {
    let shown = |at: usize| {
        let one = double("", &TWICE, Some(&[at]));
        let found = check_content(&one.entry, &one.content, ATTRIBUTES.len()).unwrap();
        let json: Value = serde_json::from_slice(&to_json(&found)).unwrap();
        (one.entry, json["data"]["price"].clone())
    };
    let (first, second) = (shown(1), shown(3));
    assert_eq!(first.0, second.0);
    assert_eq!((first.1, second.1), (json!(1), json!(2)));
}

/// Cuts a view apart: its head, and each slice as it is encoded.
fn slices_of(part: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = &part[5..];
    let mut slices = Vec::new();
    while let Some(state) = rest.first() {
        let length = match state {
            0 => 33,
            _ => 37 + u32::from_be_bytes(rest[33..37].try_into().unwrap()) as usize,
        };
        let (slice, after) = rest.split_at(length);
        slices.push(slice.to_vec());
        rest = after;
    }
    slices
}

fn with_slices(content: &[u8], at: usize, slices: &[Vec<u8>]) -> Vec<u8> {
    let mut out = content[..at + 1].to_vec();
    out.extend_from_slice(&(slices.len() as u32 - 1).to_be_bytes());
    out.extend(slices.iter().flatten());
    out
}

#[test]
fn a_moved_swapped_doubled_or_left_out_member_is_refused() {
    let event = event_of(r#"{"a":1,"b":2,"c":3,"d":4}"#, None);
    let at = 64 + event.attribute_bytes().len();
    for names in [&["a", "b", "c", "d"][..], &["b"], &[]] {
        let view = view_of(&event, names);
        let slices = slices_of(&view[at..]);
        assert_eq!(with_slices(&view, at, &slices), view);
        assert_eq!(slices.len(), 5);
        for one in 0..slices.len() {
            for other in 0..slices.len() {
                let mut moved = slices.clone();
                let taken = moved.remove(one);
                moved.insert(other, taken);
                let mut swapped = slices.clone();
                swapped.swap(one, other);
                let mut doubled = slices.clone();
                doubled.insert(other, slices[one].clone());
                for altered in [moved, swapped, doubled] {
                    if altered != slices {
                        assert!(read(&event, &with_slices(&view, at, &altered)).is_err());
                    }
                }
            }
            let mut fewer = slices.clone();
            fewer.remove(one);
            assert!(read(&event, &with_slices(&view, at, &fewer)).is_err());
        }
    }
}

/// Everything that can be tried with what the holder of a view has: each 32 bytes in it as salt, the tags, the member's place, and every text that the member
/// can have been.
#[test]
fn a_withheld_member_is_not_found_by_trying_every_value() {
    let event = event_of(r#"{"public":"x","pin":37}"#, None);
    let view = view_of(&event, &["public"]);
    let entry = entry_of(&event).encode();
    let received = [&view[..], &entry].concat();
    let windows: BTreeSet<[u8; 32]> = received
        .windows(32)
        .map(|window| window.try_into().unwrap())
        .collect();
    let mut found = 0;
    for value in 0..100 {
        let slice = format!("\"pin\":{value}}}");
        let guess = event_of(&format!("{{\"public\":\"x\",\"pin\":{value}}}"), None);
        let mut hits = |hash: Hash| found += usize::from(windows.contains(&hash));
        for known in &windows {
            let derived = HmacKey::new(known).authenticate(&[MEMBER_SALT_TAG, &[0, 0, 0, 2]]);
            for salt in [known, &derived] {
                for tag in [DATA_MEMBER_TAG, DATA_WHOLE_TAG, DATA_FIELDS_TAG] {
                    hits(sha256_of(&[tag, salt, slice.as_bytes()]));
                }
            }
            hits(data_commitment(known, guess.data_part_bytes()));
        }
        hits(sha256_of(&[slice.as_bytes()]));
        hits(sha256_of(&[guess.data_part_bytes()]));
    }
    assert_eq!(found, 0);
    // The same search finds it for who has the salt.
    let whole = content_of(&event);
    let mut salt = [0; 32];
    salt.copy_from_slice(&whole[32..64]);
    assert_eq!(
        data_commitment(&salt, event.data_part_bytes()),
        entry_of(&event).data
    );
}

#[test]
fn nobody_reads_what_is_no_view() {
    let event = event_of(ORDER, None);
    let attribute_bytes = event.attribute_bytes().len();
    let view = view_of(&event, &["x"]);
    let part = &view[64 + attribute_bytes..];
    for cut in 0..part.len() {
        let refused = DataPart::decode(&part[..cut]);
        assert!(refused.is_err(), "{cut}");
    }
    let longer = [part, &[0]].concat();
    assert!(matches!(
        DataPart::decode(&longer),
        Err(DataError::Fields(_))
    ));
    assert!(View::decode(&[0, 0, 0, 0]).is_err());
    assert!(View::decode(&[0xff; 60]).is_err());
    let mut with_material = part.to_vec();
    with_material[0] |= 0x80;
    assert!(DataPart::decode(&with_material).is_err());
}

#[test]
fn views_have_their_golden_bytes() {
    let cases = [
        ("order, one member", ORDER, None, &["x"][..]),
        ("order, none", ORDER, None, &[]),
        ("order, two that are apart", ORDER, None, &["price", "a"]),
        ("empty object", "{}", None, &[]),
        (
            "author-signed",
            r#"{"a":1,"b":2}"#,
            Some(&b"material"[..]),
            &["a"],
        ),
    ];
    let recomputed: Vec<_> = cases
        .iter()
        .map(|(name, data, material, names)| {
            let event = event_of(data, *material);
            let content = content_of(&event);
            let view = view_of(&event, names);
            let (shown, withheld) = read(&event, &view).unwrap();
            json!({
                "name": name,
                "attribute_bytes": event.attribute_bytes().len(),
                "content": hex::encode(&content),
                "fields": names,
                "view": hex::encode(&view),
                "shown": shown,
                "withheld": withheld,
                "entry": hex::encode(entry_of(&event).encode()),
            })
        })
        .collect();
    let refused: Vec<_> = doubles()
        .into_iter()
        .map(|double| {
            json!({
                "name": double.name,
                "attribute_bytes": ATTRIBUTES.len(),
                "content": hex::encode(&double.content),
                "entry": hex::encode(double.entry.encode()),
            })
        })
        .collect();
    let recomputed = json!({ "cases": recomputed, "refused": refused });
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/vectors/event/v1/fields.json"
    );
    let path = std::path::Path::new(path);
    if !path.exists() && std::env::var_os("COUNTERSIGN_WRITE_VECTORS").is_some() {
        std::fs::write(
            path,
            serde_json::to_string_pretty(&recomputed).unwrap() + "\n",
        )
        .unwrap();
    }
    let stored: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(stored, recomputed);
}

fn space() -> impl Strategy<Value = String> {
    "[ \t\r\n]{0,2}"
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,3})?",
        Just("null".to_owned()),
        Just("true".to_owned()),
        "\"([a-z,{}\\[\\]: ]|\\\\\"|\\\\u00e9){0,6}\"",
        "\\[(1(,2)?)?\\]",
        "\\{(\"n\":\"[a-z,}]{0,3}\")?\\}",
    ]
}

prop_compose! {
    fn member()(a in space(), name in "[a-e]{1,2}", b in space(), c in space(), value in value(), d in space()) -> (String, String) {
        (format!("{a}\"{name}\"{b}:{c}{value}{d}"), name)
    }
}

prop_compose! {
    /// An object's text, and the names of its members.
    fn object()(before in space(), members in prop::collection::vec(member(), 0..8), inside in space(), after in space()) -> (String, Vec<String>) {
        let mut names = BTreeSet::new();
        let members: Vec<_> = members.into_iter().filter(|(_, name)| names.insert(name.clone())).collect();
        let texts: Vec<&str> = members.iter().map(|(text, _)| text.as_str()).collect();
        let inside = if members.is_empty() { inside } else { texts.join(",") };
        (format!("{before}{{{inside}}}{after}"), members.into_iter().map(|(_, name)| name).collect())
    }
}

proptest! {
    #[test]
    fn any_choice_of_members_verifies_and_shows_just_them(
        (text, names) in object(),
        seen in prop::collection::btree_set("[a-e]{1,2}", 0..6),
        signed in any::<bool>(),
    ) {
        let material = signed.then_some(&b"material"[..]);
        let event = event_of(&text, material);
        let seen: Vec<&str> = seen.iter().map(String::as_str).collect();
        let view = view_of(&event, &seen);
        let (shown, withheld) = read(&event, &view).unwrap();
        let expected = names.iter().filter(|name| !seen.contains(&name.as_str())).count();
        prop_assert_eq!(withheld, expected);
        let whole: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
        let object = shown.as_object().unwrap();
        for (name, value) in &whole {
            let found = object.get(name);
            prop_assert_eq!(found, seen.contains(&name.as_str()).then_some(value));
        }
        // Both ends come to the same entry.
        let attribute_bytes = event.attribute_bytes().len();
        let (_, head) = open_content(&view, attribute_bytes).unwrap();
        prop_assert_eq!(head.data, entry_of(&event).data);
        prop_assert_eq!(head.attributes, entry_of(&event).attributes);
        prop_assert_eq!(head.flags, entry_of(&event).flags);
    }

    #[test]
    fn any_alteration_of_what_a_holder_got_is_refused(
        (text, _) in object(),
        seen in prop::collection::btree_set("[a-e]{1,2}", 0..6),
        bit in any::<prop::sample::Index>(),
    ) {
        let event = event_of(&text, None);
        let seen: Vec<&str> = seen.iter().map(String::as_str).collect();
        let mut view = view_of(&event, &seen);
        let bit = bit.index(8 * view.len());
        view[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(read(&event, &view).is_err());
    }

    #[test]
    fn foreign_bytes_are_no_view_and_end_nothing(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = View::decode(&bytes);
        let _ = check(&bytes);
        let with_count = [&[0, 0, 0, 2, 0][..], &bytes].concat();
        let _ = View::decode(&with_count);
    }
}
