//! Lines of JSON: splitting input that arrives in pieces, and wrapping plain objects into events.
//!
//! ```text
//! {"properties":{"code":"ak1"},"t":1767323045000}␊    ── Wrap{id_from: properties.code, time_from: t} ──►
//!     id "ak1" · time "2026-01-02T03:04:05Z" · datacontenttype application/json · data = the line, byte for byte
//! ```

use std::borrow::Cow;

use countersign_crypto::sha256;
use serde_json::value::RawValue;

use crate::attributes::{AttributesBuilder, Value, shown};
use crate::content::{Event, EventError, Limits};
use crate::data::DataPart;
use crate::json;
pub use crate::json::JsonError;
use crate::time::{Rfc3339, TimeError, rfc3339_of_epoch_millis};

/// Splits input into lines, whatever pieces it arrives in. Holds one unfinished line and the piece given last.
#[derive(Debug)]
pub struct LineSplitter {
    buffer: Vec<u8>,
    /// Where in the buffer the next line begins.
    start: usize,
    /// Up to where no line feed was found.
    searched: usize,
    line_bytes_max: usize,
    number: u64,
    offset: u64,
    finished: bool,
}

/// A line, without its line feed and a carriage return before it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Line<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// Its number in the input, from 1, empty lines counted.
    pub number: u64,
    /// Bytes of input up to and with its line feed: where to go on after it.
    pub end_offset: u64,
}

/// A line passes the limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line} is longer than the {max} bytes admitted")]
pub struct LineTooLong {
    /// Number of the line, from 1.
    pub line: u64,
    /// Bytes admitted.
    pub max: usize,
}

impl LineSplitter {
    /// A splitter that refuses lines of more than `line_bytes_max` bytes, line feed not counted.
    #[must_use]
    pub fn new(line_bytes_max: usize) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            searched: 0,
            line_bytes_max,
            number: 0,
            offset: 0,
            finished: false,
        }
    }

    /// Adds a piece of input. Take all lines with [`LineSplitter::next_line`] before adding another, so that the
    /// buffer stays within one line and one piece.
    pub fn push(&mut self, piece: &[u8]) {
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        self.buffer.extend_from_slice(piece);
    }

    /// Says that no more input comes: what is left is a line, line feed or not.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// The next line that is not empty, or nothing until more input was added. Lines of white space count as empty.
    ///
    /// # Errors
    /// [`LineTooLong`], and the same again from then on.
    pub fn next_line(&mut self) -> Result<Option<Line<'_>>, LineTooLong> {
        loop {
            let Some((end, next)) = self.find_end() else {
                // The limit holds before the line feed comes, or a line without one would fill the memory.
                self.check_length(self.buffer.len() - self.start)?;
                return Ok(None);
            };
            self.check_length(end - self.start)?;
            let start = self.start;
            self.offset += (next - start) as u64;
            self.number += 1;
            self.start = next;
            self.searched = next;
            let line = &self.buffer[start..end];
            if !line.trim_ascii().is_empty() {
                let bytes = &self.buffer[start..end];
                return Ok(Some(Line {
                    bytes: bytes.strip_suffix(b"\r").unwrap_or(bytes),
                    number: self.number,
                    end_offset: self.offset,
                }));
            }
        }
    }

    /// Where the current line ends and the next begins.
    fn find_end(&mut self) -> Option<(usize, usize)> {
        let found = self.buffer[self.searched..]
            .iter()
            .position(|byte| *byte == b'\n');
        match found {
            Some(at) => Some((self.searched + at, self.searched + at + 1)),
            None => {
                self.searched = self.buffer.len();
                (self.finished && self.start < self.buffer.len())
                    .then_some((self.buffer.len(), self.buffer.len()))
            }
        }
    }

    fn check_length(&self, found: usize) -> Result<(), LineTooLong> {
        if found > self.line_bytes_max {
            return Err(LineTooLong {
                line: self.number + 1,
                max: self.line_bytes_max,
            });
        }
        Ok(())
    }
}

/// A member within nested objects, written with dots: `properties.code`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FieldPath(String);

/// A text is no field path.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a field is named like `code` or `properties.code`: no part may be empty")]
pub struct FieldPathError;

impl std::str::FromStr for FieldPath {
    type Err = FieldPathError;

    fn from_str(text: &str) -> Result<Self, FieldPathError> {
        if text.split('.').any(str::is_empty) {
            return Err(FieldPathError);
        }
        Ok(Self(text.to_owned()))
    }
}

impl std::fmt::Display for FieldPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// How plain objects become events.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wrap {
    /// `source` of every event.
    pub source: String,
    /// `type` of every event.
    pub kind: String,
    /// The field that holds `id`, a string or number. Without it, `id` is made from the line: the first 16 bytes of its
    /// SHA-256 in lower-case hex, so that handing in a line twice is recognised, and two equal lines are one event.
    pub id_from: Option<FieldPath>,
    /// The field that holds `time`, as RFC 3339 or as whole milliseconds since 1970. Without it, no `time`.
    pub time_from: Option<FieldPath>,
}

/// Why a line is not wrapped.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line}: {source}")]
pub struct WrapError {
    /// Number of the line.
    pub line: u64,
    /// What is wrong with it.
    pub source: WrapFault,
}

/// What is wrong with a line that should be wrapped. Names fields, never values.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WrapFault {
    /// A member on the way to a field is there twice.
    #[error("field `{field}` is ambiguous: the member `{member}` is there more than once")]
    Ambiguous {
        /// The field wanted.
        field: String,
        /// The member that is repeated.
        member: String,
    },
    /// The event made of the line is not valid.
    #[error(transparent)]
    Event(#[from] EventError),
    /// The `id` field is not a string or number.
    #[error("field `{field}` cannot be an id: it is neither a string nor a number")]
    Id {
        /// The field.
        field: String,
    },
    /// The line is not a JSON object.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The field is not there, or null.
    #[error("field `{field}` is missing")]
    Missing {
        /// The field.
        field: String,
    },
    /// The `time` field is not a time.
    #[error(
        "field `{field}` is neither an RFC 3339 time nor whole milliseconds since 1970: {source}"
    )]
    Time {
        /// The field.
        field: String,
        /// What is wrong with it.
        source: TimeError,
    },
}

impl Wrap {
    /// Makes an event of a line, whose bytes become its data as they are.
    ///
    /// # Errors
    /// [`WrapError`] naming line and field.
    pub fn event(&self, line: &Line<'_>, limits: &Limits) -> Result<Event, WrapError> {
        self.wrap(line.bytes, limits).map_err(|source| WrapError {
            line: line.number,
            source,
        })
    }

    fn wrap(&self, line: &[u8], limits: &Limits) -> Result<Event, WrapFault> {
        let text = json::text(line)?;
        // Before anything else, so that what follows may take the line for valid JSON.
        json::members(text, |_, _| Ok::<(), JsonError>(()))?;
        json::check_depth(text)?;
        let id = match &self.id_from {
            None => Cow::Owned(hex::encode(&sha256(line)[..16])),
            Some(path) => id_of(path, path.find(text)?)?,
        };
        let time = match &self.time_from {
            None => None,
            Some(path) => Some(time_of(path, path.find(text)?)?),
        };
        let mut attributes = AttributesBuilder::new(&id, &self.source, &self.kind)
            .with("datacontenttype", Value::String("application/json"));
        if let Some(time) = &time {
            attributes.push("time", Value::Timestamp(time));
        }
        let attributes = attributes.build().map_err(EventError::Attributes)?;
        Ok(Event::new(attributes, &DataPart::text(text), limits)?)
    }
}

impl FieldPath {
    /// The value that the path leads to, not null.
    fn find<'a>(&self, text: &'a str) -> Result<&'a RawValue, WrapFault> {
        let missing = || WrapFault::Missing {
            field: self.0.clone(),
        };
        let mut at: Option<&'a RawValue> = None;
        for part in self.0.split('.') {
            let object = at.map_or(text, RawValue::get);
            if at.is_some() && !object.starts_with('{') {
                return Err(missing());
            }
            let mut found = None;
            json::members(object, |name, raw| {
                if name == part && found.replace(raw).is_some() {
                    return Err(WrapFault::Ambiguous {
                        field: self.0.clone(),
                        member: shown(part.as_bytes()),
                    });
                }
                Ok(())
            })?;
            at = Some(found.ok_or_else(missing)?);
        }
        at.filter(|raw| raw.get() != "null").ok_or_else(missing)
    }
}

fn id_of<'a>(path: &FieldPath, raw: &'a RawValue) -> Result<Cow<'a, str>, WrapFault> {
    let id = match raw.get().as_bytes() {
        [b'"', ..] => json::string(raw),
        // A number's id is the number as it is written: 1.0 and 1 stay different.
        [b'-' | b'0'..=b'9', ..] => Some(Cow::Borrowed(raw.get())),
        _ => None,
    };
    id.ok_or_else(|| WrapFault::Id {
        field: path.to_string(),
    })
}

fn time_of<'a>(path: &FieldPath, raw: &'a RawValue) -> Result<Cow<'a, str>, WrapFault> {
    let time = match raw.get().as_bytes() {
        [b'"', ..] => match json::string(raw) {
            Some(text) => Rfc3339::parse(text.as_bytes()).map(|_| text),
            None => Err(TimeError::Syntax),
        },
        [b'-' | b'0'..=b'9', ..] => match raw.get().parse() {
            Ok(millis) => rfc3339_of_epoch_millis(millis).map(Cow::Owned),
            Err(_) => Err(TimeError::Syntax),
        },
        _ => Err(TimeError::Syntax),
    };
    time.map_err(|source| WrapFault::Time {
        field: path.to_string(),
        source,
    })
}
