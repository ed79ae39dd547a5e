//! NDJSON: lines whatever the pieces, and plain objects wrapped into events.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use countersign_event::content::{Event, EventError, Limits};
use countersign_event::data::{DataError, DataPart};
use countersign_event::ndjson::{
    JsonError, Line, LineSplitter, LineTooLong, Wrap, WrapError, WrapFault,
};
use countersign_event::time::TimeError;
use proptest::prelude::*;

/// All lines of `input` handed over in pieces of `piece` bytes: number, bytes, end.
fn lines(input: &[u8], piece: usize, max: usize) -> Result<Vec<(u64, Vec<u8>, u64)>, LineTooLong> {
    let mut splitter = LineSplitter::new(max);
    let mut found = Vec::new();
    let mut take = |splitter: &mut LineSplitter| {
        while let Some(line) = splitter.next_line()? {
            found.push((line.number, line.bytes.to_vec(), line.end_offset));
        }
        Ok::<(), LineTooLong>(())
    };
    for piece in input.chunks(piece) {
        splitter.push(piece);
        take(&mut splitter)?;
    }
    splitter.finish();
    take(&mut splitter)?;
    Ok(found)
}

#[test]
fn lines_are_found_in_whatever_pieces() {
    let input = b"{}\n\n  \r\n{\"a\":1}\r\nlast";
    for piece in 1..=input.len() {
        let expected = vec![
            (1, b"{}".to_vec(), 3),
            (4, b"{\"a\":1}".to_vec(), 17),
            (5, b"last".to_vec(), 21),
        ];
        assert_eq!(
            lines(input, piece, 100).unwrap(),
            expected,
            "pieces of {piece}"
        );
    }
    assert_eq!(lines(b"", 1, 0).unwrap(), []);
    assert_eq!(lines(b"\n", 1, 0).unwrap(), []);
}

#[test]
fn a_line_that_is_too_long_is_refused_before_it_ends() {
    assert!(lines(b"12345\n123\n", 4, 5).is_ok());
    assert_eq!(
        lines(b"12345\n123456\n", 4, 5),
        Err(LineTooLong { line: 2, max: 5 })
    );
    let mut splitter = LineSplitter::new(5);
    splitter.push(b"123456");
    assert_eq!(splitter.next_line(), Err(LineTooLong { line: 1, max: 5 }));
    assert_eq!(splitter.next_line(), Err(LineTooLong { line: 1, max: 5 }));
}

fn wrap(id_from: Option<&str>, time_from: Option<&str>) -> Wrap {
    Wrap {
        source: "/s".into(),
        kind: "t".into(),
        id_from: id_from.map(|path| path.parse().unwrap()),
        time_from: time_from.map(|path| path.parse().unwrap()),
    }
}

fn event(wrap: &Wrap, line: &str) -> Result<Event, WrapFault> {
    let line = Line {
        bytes: line.as_bytes(),
        number: 7,
        end_offset: 0,
    };
    wrap.event(&line, &Limits::default())
        .map_err(|WrapError { line, source }| {
            assert_eq!(line, 7);
            source
        })
}

/// Id and time of a wrapped line.
fn wrapped(
    id_from: Option<&str>,
    time_from: Option<&str>,
    line: &str,
) -> Result<(String, Option<String>), WrapFault> {
    let event = event(&wrap(id_from, time_from), line)?;
    let event = event.as_ref();
    assert_eq!(*event.data(), DataPart::text(line), "the data is the line");
    let attributes = event.attributes();
    assert_eq!((attributes.source(), attributes.kind()), ("/s", "t"));
    assert_eq!(attributes.datacontenttype(), Some("application/json"));
    Ok((
        attributes.id().to_owned(),
        attributes.time().map(str::to_owned),
    ))
}

#[test]
fn without_a_field_the_id_is_made_from_the_line() {
    // `printf '{"a":1}' | sha256sum | cut -c -32`
    let (id, time) = wrapped(None, None, r#"{"a":1}"#).unwrap();
    assert_eq!(id, "015abd7f5cc57a2dd94b7590f04ad808");
    assert_eq!(time, None);
    assert_ne!(wrapped(None, None, r#"{"a": 1}"#).unwrap().0, id);
}

#[test]
fn the_id_is_the_text_of_its_field() {
    let id = |path: &str, line: &str| wrapped(Some(path), None, line).map(|(id, _)| id);
    assert_eq!(id("code", r#"{"code":"a\u00e9"}"#).unwrap(), "aé");
    assert_eq!(id("code", r#"{"code":-1.50}"#).unwrap(), "-1.50");
    assert_eq!(
        id("code", r#"{"code":12345678901234567890}"#).unwrap(),
        "12345678901234567890"
    );
    assert_eq!(
        id(
            "p.q.code",
            r#"{"code":1,"p":{"code":2,"q":{"x":0,"code":3}}}"#
        )
        .unwrap(),
        "3"
    );

    let missing = |field: &str| WrapFault::Missing {
        field: field.into(),
    };
    assert_eq!(id("code", r#"{"a":1}"#).unwrap_err(), missing("code"));
    assert_eq!(id("code", r#"{"code":null}"#).unwrap_err(), missing("code"));
    assert_eq!(id("a.code", r#"{"a":[1]}"#).unwrap_err(), missing("a.code"));
    assert_eq!(
        id("a.code", r#"{"a":{"b":1}}"#).unwrap_err(),
        missing("a.code")
    );
    for value in ["true", "{}", "[]", r#""\ud800""#] {
        let fault = id("code", &format!(r#"{{"code":{value}}}"#)).unwrap_err();
        assert_eq!(
            fault,
            WrapFault::Id {
                field: "code".into()
            }
        );
    }
    let twice = id("a.code", r#"{"a":{"code":1,"code":2}}"#).unwrap_err();
    assert_eq!(
        twice,
        WrapFault::Ambiguous {
            field: "a.code".into(),
            member: "code".into()
        }
    );
    assert!(matches!(
        id("code", r#"{"code":""}"#),
        Err(WrapFault::Event(EventError::Attributes(_)))
    ));
}

#[test]
fn the_time_is_rfc3339_or_milliseconds() {
    let time = |value: &str| {
        wrapped(None, Some("t"), &format!(r#"{{"t":{value}}}"#)).map(|(_, time)| time.unwrap())
    };
    assert_eq!(
        time(r#""2026-01-02T03:04:05.1+01:00""#).unwrap(),
        "2026-01-02T03:04:05.1+01:00"
    );
    assert_eq!(time("1767323045000").unwrap(), "2026-01-02T03:04:05Z");
    assert_eq!(
        time("1767323045678").unwrap(),
        "2026-01-02T03:04:05.678000Z"
    );
    assert_eq!(time("-1").unwrap(), "1969-12-31T23:59:59.999000Z");
    for (value, source) in [
        (r#""2026-01-02""#, TimeError::Syntax),
        (r#""1767323045000""#, TimeError::Syntax),
        (r#""2026-13-02T00:00:00Z""#, TimeError::NoSuchTime),
        ("1.5", TimeError::Syntax),
        ("true", TimeError::Syntax),
        ("99999999999999999", TimeError::OutOfRange),
    ] {
        assert_eq!(
            time(value).unwrap_err(),
            WrapFault::Time {
                field: "t".into(),
                source
            },
            "{value}"
        );
    }
    assert_eq!(
        time("null").unwrap_err(),
        WrapFault::Missing { field: "t".into() }
    );
}

#[test]
fn the_error_names_line_and_field() {
    let line = Line {
        bytes: b"{}",
        number: 12,
        end_offset: 0,
    };
    let error = wrap(Some("properties.code"), None)
        .event(&line, &Limits::default())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 12: field `properties.code` is missing"
    );
}

#[test]
fn lines_that_are_not_one_json_object_are_refused() {
    let fault = |line: &str| event(&wrap(None, None), line).unwrap_err();
    assert_eq!(fault("[]"), WrapFault::Json(JsonError::NotAnObject));
    assert_eq!(fault("1"), WrapFault::Json(JsonError::NotAnObject));
    assert_eq!(
        fault("\u{feff}{}"),
        WrapFault::Json(JsonError::ByteOrderMark)
    );
    for line in ["{", "{} {}", "{\"a\":}", "x"] {
        assert!(
            matches!(fault(line), WrapFault::Json(JsonError::Syntax { .. })),
            "{line}"
        );
    }
    let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(1000), "]".repeat(1000));
    assert_eq!(fault(&deep), WrapFault::Json(JsonError::TooDeep));
    let limits = Limits {
        data_bytes_max: 6,
        ..Limits::default()
    };
    let line = Line {
        bytes: br#"{"a":1}"#,
        number: 1,
        end_offset: 0,
    };
    let fault = wrap(None, None).event(&line, &limits).unwrap_err().source;
    assert_eq!(
        fault,
        WrapFault::Event(EventError::Data(DataError::DataTooLong {
            found: 7,
            max: 6
        }))
    );
}

#[test]
fn field_paths_have_no_empty_part() {
    use countersign_event::ndjson::FieldPath;
    for text in ["", ".", "a.", ".a", "a..b"] {
        assert!(text.parse::<FieldPath>().is_err(), "{text}");
    }
    assert_eq!("a.b".parse::<FieldPath>().unwrap().to_string(), "a.b");
}

proptest! {
    #[test]
    fn pieces_do_not_matter(input in prop::collection::vec(prop::sample::select(b"ab\n\r ".to_vec()), 0..60), piece in 1usize..20, max in 0usize..30) {
        prop_assert_eq!(lines(&input, piece, max), lines(&input, input.len().max(1), max));
    }

    #[test]
    fn arbitrary_lines_never_panic(line: Vec<u8>, text in "[{}\\[\\]\",:a-c0-9.\\\\u]{0,40}") {
        let wrap = wrap(Some("a.b"), Some("a.c"));
        for bytes in [&line[..], text.as_bytes()] {
            let _ = wrap.event(&Line { bytes, number: 1, end_offset: 0 }, &Limits::default());
        }
    }
}
