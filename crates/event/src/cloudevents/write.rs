//! Binary form to JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::declares_json;
use crate::attributes::{Value, check_name};
use crate::content::EventRef;
use crate::data::DataState;
use crate::json;

/// The event as one JSON object: attributes in ascending order of their names, then `dssematerial`, then the payload.
///
/// A JSON payload is copied as it came, line breaks included. A payload that is marked as JSON text and is not one JSON
/// value, as a producer with a typed client can hand in, is written as `data_base64`: nobody's payload becomes members
/// of somebody's event. Of a view the payload is an object of the members that are disclosed.
#[must_use]
pub fn to_json(event: &EventRef<'_>) -> Vec<u8> {
    to_json_with(event, &[])
}

/// As [`to_json`], with further string members, such as the position in a log. One that the event has itself, or whose
/// name cannot be an attribute's, is left out: what the producer said is not replaced.
#[must_use]
pub fn to_json_with(event: &EventRef<'_>, extra: &[(&str, &str)]) -> Vec<u8> {
    let attributes = event.attributes();
    let data = event.data();
    let mut out = Vec::with_capacity(event.content_len() + 128);
    out.push(b'{');
    for (name, value) in attributes.iter() {
        member(&mut out, name);
        match value {
            Value::Boolean(_) | Value::Integer(_) => {
                out.extend_from_slice(value.canonical_text().as_bytes());
            }
            // Base64 has nothing to escape, and the others may.
            _ => string(&mut out, &value.canonical_text()),
        }
    }
    for (name, value) in extra {
        if check_name(name.as_bytes()).is_ok() && attributes.get(name).is_none() {
            member(&mut out, name);
            string(&mut out, value);
        }
    }
    if let Some(material) = data.author_material {
        member(&mut out, "dssematerial");
        base64(&mut out, material);
    }
    let text = std::str::from_utf8(data.data).ok();
    match (data.state, text) {
        (DataState::Absent, _) => {}
        (DataState::Null, _) => {
            member(&mut out, "data");
            out.extend_from_slice(b"null");
        }
        (DataState::View, _) => {
            if let Some(view) = data.view() {
                member(&mut out, "data");
                out.extend_from_slice(view.to_json().as_bytes());
            }
        }
        (DataState::Text | DataState::Members, Some(text))
            if !declares_json(attributes.datacontenttype()) =>
        {
            member(&mut out, "data");
            string(&mut out, text);
        }
        (DataState::Text | DataState::Members, Some(text)) if json::is_value(text) => {
            member(&mut out, "data");
            out.extend_from_slice(data.data);
        }
        (DataState::Text | DataState::Members | DataState::Binary, _) => {
            member(&mut out, "data_base64");
            base64(&mut out, data.data);
        }
    }
    out.push(b'}');
    out
}

/// As [`to_json_with`], on one line: line breaks between the tokens of a JSON payload become spaces, so that the event
/// fits NDJSON. The value is the same; the payload's bytes are not, where it had any.
#[must_use]
pub fn to_json_line(event: &EventRef<'_>, extra: &[(&str, &str)]) -> Vec<u8> {
    let mut out = to_json_with(event, extra);
    // Within strings JSON has line breaks as escapes only, so these are all between tokens.
    for byte in &mut out {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    out
}

/// Appends a member's name; names written here need no escapes.
fn member(out: &mut Vec<u8>, name: &str) {
    if out.len() > 1 {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
    out.push(b'"');
}

/// Appends a JSON string: only what RFC 8259 7 demands is escaped, and runs without escapes are copied as one.
fn string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let short = match byte {
            b'"' | b'\\' => *byte,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..0x20 => 0,
            _ => continue,
        };
        out.extend_from_slice(&bytes[copied..at]);
        copied = at + 1;
        out.push(b'\\');
        if short == 0 {
            let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
            out.extend_from_slice(b"u00");
            out.extend_from_slice(&[HEX[high], HEX[low]]);
        } else {
            out.push(short);
        }
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}
