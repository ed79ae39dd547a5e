use countersign_event::content::{Event, Limits};
use countersign_event::ndjson::{Line, Wrap};
use serde_json::Value;

use crate::errors::{CommandError, ErrorCode};

/// 297 earthquakes, one a line, oldest first; where they come from is said beside the file.
const EARTHQUAKES: &str = include_str!("../../../data/earthquakes.ndjson");

/// Events of the story have this type.
const TYPE: &str = "gov.usgs.earthquake";

/// The earthquake that the story turns on: magnitude 6.4 near Hualien, 6 February 2018.
pub(super) const STRONGEST: &str = "us1000chhc";

pub(super) fn lines() -> impl Iterator<Item = &'static str> {
    EARTHQUAKES.lines()
}

/// The lines as events, as `publish --type --id-from id --time-from time` makes them.
pub(super) fn events() -> Result<Vec<Event>, CommandError> {
    let invalid = |error: &dyn std::fmt::Display| CommandError::new(ErrorCode::EventInvalid, error);
    let wrap = Wrap {
        source: "https://earthquake.usgs.gov".to_owned(),
        kind: TYPE.to_owned(),
        id_from: Some("id".parse().map_err(|error| invalid(&error))?),
        time_from: Some("time".parse().map_err(|error| invalid(&error))?),
    };
    let mut end_offset = 0;
    let numbered = (1..).zip(lines());
    numbered
        .map(|(number, text)| {
            end_offset += text.len() as u64 + 1;
            let line = Line {
                bytes: text.as_bytes(),
                number,
                end_offset,
            };
            wrap.event(&line, &Limits::FORMAT)
                .map_err(|error| invalid(&error))
        })
        .collect()
}

/// An event as `subscribe` shows it, in a line for people: `#272  2018-02-06 15:50  M 6.4  22km NNE of Hualian, Taiwan`.
pub(super) fn shown(item: &Value) -> String {
    let data = &item["data"];
    let time = item["time"].as_str().unwrap_or_default();
    let time: String = time.chars().take(16).collect();
    format!(
        "#{:<4} {}  M {:.1}  {}",
        item["sequence"].as_u64().unwrap_or_default(),
        time.replace('T', " "),
        data["mag"].as_f64().unwrap_or_default(),
        data["place"].as_str().unwrap_or_default()
    )
}

/// Where the earthquake of an entry was.
pub(super) fn place(read: &[Value], sequence: u64) -> String {
    let item = read.iter().find(|item| item["sequence"] == sequence);
    let place = item.and_then(|item| item["data"]["place"].as_str());
    place.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_an_event_and_the_strongest_is_among_them() {
        assert_eq!(events().unwrap().len(), 297);
        let found: Vec<Value> = lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .filter(|quake: &Value| quake["mag"].as_f64().unwrap() >= 6.4)
            .collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0]["id"], STRONGEST);
    }
}
