//! The JSON format of CloudEvents 1.0, read into the binary form and written from it.
//!
//! ```text
//! {"specversion":"1.0","id":"7","source":"/s","type":"t",   → attributes, canonical
//!  "data":{"a": 1},                                         → data part, the slice `{"a": 1}` byte for byte
//!  "dssematerial":"eyJ…"}                                   → data part, author material, decoded
//! ```
//!
//! A JSON document has several readings where it repeats a member or rounds a number; a log that proves what was said
//! can have one only, so such documents are refused. The payload is not looked into: it belongs to the producer, and
//! half a surrogate pair within it, for one, is kept as it came.

mod read;
mod write;

pub use read::{BatchError, CloudEventError, batch_from_json, from_json};
pub use write::{to_json, to_json_line, to_json_with};

pub use crate::json::{DEPTH_MAX, JsonError};

/// Whether a media type declares JSON: `*/json` and `*/*+json`, parameters left aside, in any case (CloudEvents JSON
/// format 3.1).
#[must_use]
pub fn is_json_media_type(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    let Some((_, subtype)) = essence.split_once('/') else {
        return false;
    };
    let suffix = subtype.rsplit('+').next().unwrap_or_default();
    suffix.eq_ignore_ascii_case("json")
}

/// Whether data of this `datacontenttype` is JSON; where there is none, it is.
pub fn declares_json(datacontenttype: Option<&str>) -> bool {
    datacontenttype.is_none_or(is_json_media_type)
}

#[cfg(test)]
mod tests {
    use super::is_json_media_type;

    #[test]
    fn media_types_that_declare_json_are_known() {
        for json in [
            "application/json",
            "text/json",
            "Application/JSON; charset=utf-8",
            "application/vnd.example.v1+json",
            "image/svg+JSON ;x=1",
        ] {
            assert!(is_json_media_type(json), "{json}");
        }
        for other in [
            "text/plain",
            "application/jsonl",
            "json",
            "application/json-seq",
            "",
            "a/json+xml",
        ] {
            assert!(!is_json_media_type(other), "{other}");
        }
    }
}
