//! Reading JSON without building values: members and elements as the raw slices they are.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Deserializer as _, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// Nesting that is admitted in payloads. Readers commonly recurse, and commonly give up at 128.
pub const DEPTH_MAX: usize = 64;

/// Why bytes are not the JSON that is wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum JsonError {
    /// The text begins with a byte order mark, which RFC 8259 8.1 forbids to send.
    #[error("the text begins with a byte order mark; JSON is sent without one")]
    ByteOrderMark,
    /// Not an array.
    #[error("a JSON array is wanted here")]
    NotAnArray,
    /// Not an object.
    #[error("a JSON object is wanted here")]
    NotAnObject,
    /// Not UTF-8.
    #[error("the text is not UTF-8 from byte {offset} on")]
    NotUtf8 {
        /// Bytes of valid UTF-8 before the first wrong one.
        offset: usize,
    },
    /// Not JSON, or text of an attribute with half a surrogate pair.
    #[error("this is not valid JSON at line {line}, column {column}")]
    Syntax {
        /// Line within this text, from 1.
        line: usize,
        /// Column within the line, from 1.
        column: usize,
    },
    /// Nested deeper than admitted.
    #[error("arrays and objects are nested deeper than {DEPTH_MAX}")]
    TooDeep,
}

impl From<serde_json::Error> for JsonError {
    // The parser's own text may quote the input, which can be confidential: the place is enough.
    fn from(error: serde_json::Error) -> Self {
        Self::Syntax {
            line: error.line(),
            column: error.column(),
        }
    }
}

/// The bytes as text that may be JSON.
pub(crate) fn text(bytes: &[u8]) -> Result<&str, JsonError> {
    let text = std::str::from_utf8(bytes).map_err(|error| JsonError::NotUtf8 {
        offset: error.valid_up_to(),
    })?;
    if text.starts_with('\u{feff}') {
        return Err(JsonError::ByteOrderMark);
    }
    Ok(text)
}

/// Reads a value, whose objects must be written as objects: derived readers also take an array of the members' values, and `{"name": null}` for a name, which other programs do not.
///
/// # Errors
/// What the reader says; an error of data for an array in place of an object.
pub fn from_slice_of_objects<T: DeserializeOwned + Serialize>(
    json: &[u8],
) -> Result<T, serde_json::Error> {
    let value: T = serde_json::from_slice(json)?;
    if has_shape_of(
        &serde_json::from_slice(json)?,
        &serde_json::to_value(&value)?,
    ) {
        return Ok(value);
    }
    Err(serde_json::Error::custom(
        "an object is wanted where something else is, or the other way round",
    ))
}

/// Whether `read` has an object where `written` has one, and nowhere else.
fn has_shape_of(read: &Value, written: &Value) -> bool {
    match (read, written) {
        (Value::Object(read), Value::Object(written)) => written.iter().all(|(name, written)| {
            read.get(name)
                .is_none_or(|read| has_shape_of(read, written))
        }),
        // The other way round an object with one member passes for the name of a variant.
        (Value::Object(_), _) | (_, Value::Object(_)) => false,
        (Value::Array(read), Value::Array(written)) => read
            .iter()
            .zip(written)
            .all(|(read, written)| has_shape_of(read, written)),
        _ => true,
    }
}

/// Calls `each` with every member of the object that `text` is, in order, duplicates included.
pub(crate) fn members<'a, E: From<JsonError>>(
    text: &'a str,
    each: impl FnMut(Cow<'a, str>, &'a RawValue) -> Result<(), E>,
) -> Result<(), E> {
    if first_byte(text) != Some(b'{') {
        return Err(E::from(not(text, JsonError::NotAnObject)));
    }
    let mut failure = None;
    let mut parser = serde_json::Deserializer::from_str(text);
    let outcome = parser
        .deserialize_map(Each {
            each,
            failure: &mut failure,
            lifetime: PhantomData,
        })
        .and_then(|()| parser.end());
    finish(outcome, failure)
}

/// Calls `each` with every element of the array that `text` is, in order.
pub(crate) fn elements<'a, E: From<JsonError>>(
    text: &'a str,
    mut each: impl FnMut(&'a RawValue) -> Result<(), E>,
) -> Result<(), E> {
    if first_byte(text) != Some(b'[') {
        return Err(E::from(not(text, JsonError::NotAnArray)));
    }
    let mut failure = None;
    let mut parser = serde_json::Deserializer::from_str(text);
    let outcome = parser
        .deserialize_seq(Each {
            each: |_: Cow<'a, str>, raw| each(raw),
            failure: &mut failure,
            lifetime: PhantomData,
        })
        .and_then(|()| parser.end());
    finish(outcome, failure)
}

/// The text of a JSON string; nothing for other values and for half a surrogate pair.
pub(crate) fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(raw.get())
        .ok()
        .map(|text| text.0)
}

/// Whether `text` is exactly one JSON value, as deep as admitted, with white space around it or not.
pub(crate) fn is_value(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok() && check_depth(text).is_ok()
}

/// Whether the nesting of valid JSON keeps to [`DEPTH_MAX`].
pub(crate) fn check_depth(text: &str) -> Result<(), JsonError> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in text.bytes() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(JsonError::TooDeep);
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Text of a string, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn first_byte(text: &str) -> Option<u8> {
    text.trim_start_matches([' ', '\t', '\n', '\r'])
        .bytes()
        .next()
}

/// The error for text that does not begin as wanted: another JSON value, or no JSON at all.
fn not(text: &str, wanted: JsonError) -> JsonError {
    match serde_json::from_str::<&RawValue>(text) {
        Ok(_) => wanted,
        Err(error) => error.into(),
    }
}

fn finish<E: From<JsonError>>(
    outcome: Result<(), serde_json::Error>,
    failure: Option<E>,
) -> Result<(), E> {
    match (failure, outcome) {
        (Some(failure), _) => Err(failure),
        (None, Err(error)) => Err(E::from(error.into())),
        (None, Ok(())) => Ok(()),
    }
}

/// Hands members or elements to a function as they are met, so that none are collected beyond what it keeps.
struct Each<'f, 'a, F, E> {
    each: F,
    /// Where the function's error waits while the parser unwinds with one of its own.
    failure: &'f mut Option<E>,
    lifetime: PhantomData<&'a ()>,
}

impl<'a, F, E> Visitor<'a> for Each<'_, 'a, F, E>
where
    F: FnMut(Cow<'a, str>, &'a RawValue) -> Result<(), E>,
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or array")
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((name, raw)) = map.next_entry::<Text<'a>, &'a RawValue>()? {
            if let Err(failure) = (self.each)(name.0, raw) {
                *self.failure = Some(failure);
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'a>>(mut self, mut sequence: A) -> Result<(), A::Error> {
        while let Some(raw) = sequence.next_element::<&'a RawValue>()? {
            if let Err(failure) = (self.each)(Cow::Borrowed(""), raw) {
                *self.failure = Some(failure);
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_outside_strings_only() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert_eq!(check_depth(&deep(DEPTH_MAX)), Ok(()));
        assert_eq!(check_depth(&deep(DEPTH_MAX + 1)), Err(JsonError::TooDeep));
        let in_string = format!(r#"["\"{}"]"#, "[".repeat(1000));
        assert_eq!(check_depth(&in_string), Ok(()));
        let side_by_side = format!("[{}[]]", "[],".repeat(1000));
        assert_eq!(check_depth(&side_by_side), Ok(()));
    }
}
