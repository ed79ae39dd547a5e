//! An event as it is shown: one line of JSON, the same from a node and from a reader without one.

use countersign_crypto::Hash;
use countersign_event::author::{self, Author};
use countersign_event::cloudevents::to_json_line;
use countersign_event::content::{Event, EventRef, Limits};
use countersign_event::control::AuthorRule;
use countersign_event::data::DataPart;
use countersign_event::time::Timestamp;
use serde_json::Value;

/// Members that say where an event lies, or why its data is not shown. They stand before attributes of the same name: the position is what readers go on from.
const PLACE: [&str; 7] = [
    "authorsignature",
    "control",
    "leaf",
    "logtime",
    "sealed",
    "sequence",
    "withheld",
];

/// Where an event lies in its log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventPlace {
    pub(crate) sequence: u64,
    pub(crate) time: Timestamp,
    pub(crate) leaf: Hash,
    pub(crate) control: bool,
}

/// The CloudEvent with its position (`sequence`), the log's time (`logtime`) and its leaf hash (`leaf`). The payload is the producer's text, digit by
/// digit: it never becomes a value of ours and back.
///
/// `authorsignature` is there where an author signed the event: the key's id and `verified` for a key that the stream names in `rule`, else `unknown key`, or
/// what is wrong. `withheld` is there where members of the data are withheld, and says how many.
pub(crate) fn event_line(
    place: &EventPlace,
    event: &EventRef<'_>,
    rule: Option<&AuthorRule>,
) -> Result<String, serde_json::Error> {
    let json = to_json_line(event, &[]);
    let author = author_text(event, rule);
    let withheld = event.data().view().map(|view| view.withheld());
    let (time, leaf) = (place.time.to_rfc3339(), hex::encode(place.leaf));
    if PLACE
        .iter()
        .any(|name| event.attributes().get(name).is_some())
    {
        let mut item: Value = serde_json::from_slice(&json)?;
        item["sequence"] = place.sequence.into();
        item["logtime"] = time.into();
        item["leaf"] = leaf.into();
        if place.control {
            item["control"] = true.into();
        }
        if let Some(withheld) = withheld {
            item["withheld"] = withheld.into();
        }
        // An attribute of that name is not taken for a signature.
        if author.is_some() || item.get("authorsignature").is_some() {
            item["authorsignature"] = author.unwrap_or_else(|| "none".to_owned()).into();
        }
        return Ok(item.to_string());
    }
    let control = if place.control {
        "\"control\":true,"
    } else {
        ""
    };
    // An event has members, so that a comma follows; the writer emits UTF-8.
    let members = String::from_utf8_lossy(json.strip_prefix(b"{").unwrap_or(&json));
    let sequence = place.sequence;
    let author = match author {
        Some(text) => format!("\"authorsignature\":{},", Value::from(text)),
        None => String::new(),
    };
    let withheld = match withheld {
        Some(withheld) => format!("\"withheld\":{withheld},"),
        None => String::new(),
    };
    Ok(format!(
        "{{\"sequence\":{sequence},\"logtime\":\"{time}\",\"leaf\":\"{leaf}\",{control}{author}{withheld}{members}"
    ))
}

fn author_text(event: &EventRef<'_>, rule: Option<&AuthorRule>) -> Option<String> {
    let keys = rule.map_or(&[][..], |rule| &rule.keys);
    match author::verify(event, keys) {
        Ok(Author::Unsigned) if event.data().is_author_signed() => {
            Some("withheld with members of the data".to_owned())
        }
        Ok(Author::Unsigned) => None,
        Ok(Author::Verified { key, covers }) => {
            let key = key.fingerprint();
            Some(format!("{key} verified ({})", covers.word()))
        }
        Ok(Author::Unknown { keyid, .. }) => Some(format!("{keyid} unknown key")),
        Err(fault) => Some(format!("wrong: {fault}")),
    }
}

/// An event whose data cannot be opened here: its attributes, and why (`sealed`).
pub(crate) fn sealed_line(
    place: &EventPlace,
    attributes: &[u8],
    why: &str,
) -> Result<String, serde_json::Error> {
    // INVARIANT: the entry's content was checked before.
    let bare = Event::new(attributes.to_vec(), &DataPart::default(), &Limits::FORMAT);
    let bare = bare.map_err(serde::ser::Error::custom)?;
    let line = event_line(place, &bare.as_ref(), None)?;
    let mut item: Value = serde_json::from_str(&line)?;
    item["sealed"] = why.into();
    Ok(item.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use countersign_event::attributes::{AttributesBuilder, Value as Attribute};

    fn line(data: &str, extra: Option<(&str, &str)>) -> String {
        let mut attributes = AttributesBuilder::new("1", "urn:s", "t");
        if let Some((name, value)) = extra {
            attributes.push(name, Attribute::String(value));
        }
        let mut part = Vec::new();
        DataPart::text(data).encode(&mut part).unwrap();
        let event = Event::check(attributes.build().unwrap(), part, &Limits::default()).unwrap();
        let place = EventPlace {
            sequence: 7,
            time: Timestamp(0),
            leaf: [1; 32],
            control: false,
        };
        event_line(&place, &event.as_ref(), None).unwrap()
    }

    #[test]
    fn numbers_stay_as_the_producer_wrote_them() {
        let text = line("{\"n\":12345678901234567890123,\n\"x\":1.10}", None);
        assert!(
            text.contains("{\"n\":12345678901234567890123, \"x\":1.10}"),
            "{text}"
        );
        assert!(!text.contains('\n'));
        let item: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&item["sequence"], &item["id"]), (&7.into(), &"1".into()));
    }

    #[test]
    fn an_attribute_cannot_pretend_to_be_the_position() {
        let item: Value = serde_json::from_str(&line("{}", Some(("sequence", "99")))).unwrap();
        assert_eq!(item["sequence"], 7);
    }
}
