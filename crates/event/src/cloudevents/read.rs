//! JSON to binary form.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

use super::declares_json;
use crate::attributes::{AttributeError, AttributesBuilder, Value, shown};
use crate::content::{Event, EventError, Limits};
use crate::data::{DataError, DataPart, DataState};
use crate::json::{self, JsonError};

/// Why JSON is not an event that is taken. Names members, never values.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CloudEventError {
    /// A member that holds bytes is not base64.
    #[error("`{member}` is not base64 (RFC 4648, standard alphabet, padded)")]
    Base64 {
        /// The member.
        member: &'static str,
    },
    /// Both forms of payload at once.
    #[error("the event has both `data` and `data_base64`; it can have one of them")]
    DataAndBase64,
    /// `datacontenttype` is not JSON and `data` is no string.
    #[error(
        "`data` has to be a string, since `datacontenttype` does not declare JSON (or send `data_base64`)"
    )]
    DataNotText,
    /// The same member twice.
    #[error("the event has the member `{name}` more than once")]
    DuplicateMember {
        /// The member.
        name: String,
    },
    /// The parts make no valid event.
    #[error(transparent)]
    Event(#[from] EventError),
    /// A number with a fraction or exponent as an attribute.
    #[error("attribute `{name}` is a number that is not written as a plain integer")]
    FractionalNumber {
        /// The attribute.
        name: String,
    },
    /// An integer of more than 32 bits as an attribute.
    #[error("attribute `{name}` is outside the range of an Integer (-2147483648 to 2147483647)")]
    IntegerRange {
        /// The attribute.
        name: String,
    },
    /// Not JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// An object or array as an attribute.
    #[error(
        "attribute `{name}` is an object or array; attributes are strings, integers or Booleans"
    )]
    NestedAttribute {
        /// The attribute.
        name: String,
    },
    /// A string with half a surrogate pair, which stands for no character.
    #[error("`{name}` contains half a surrogate pair")]
    Surrogate {
        /// The member.
        name: String,
    },
    /// A member that must be a string is something else.
    #[error("`{member}` has to be a string")]
    WantsString {
        /// The member.
        member: &'static str,
    },
}

impl From<AttributeError> for CloudEventError {
    fn from(error: AttributeError) -> Self {
        Self::Event(error.into())
    }
}

impl From<DataError> for CloudEventError {
    fn from(error: DataError) -> Self {
        Self::Event(error.into())
    }
}

/// Why a batch is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BatchError {
    /// One event of the batch is refused.
    #[error("event {index} of the batch (counted from 0) is refused: {source}")]
    Event {
        /// Its position in the batch, from 0.
        index: usize,
        /// Why.
        source: CloudEventError,
    },
    /// The batch is no JSON array.
    #[error(transparent)]
    Json(#[from] JsonError),
}

/// Reads one event. Memory needed is bounded by the input and the limits.
///
/// # Errors
/// [`CloudEventError`] naming the rule that the document breaks.
pub fn from_json(bytes: &[u8], limits: &Limits) -> Result<Event, CloudEventError> {
    from_text(json::text(bytes)?, limits)
}

/// Reads a batch: an array of events, which may be empty. One bad event refuses the whole, named by its index.
///
/// # Errors
/// [`BatchError`].
pub fn batch_from_json(bytes: &[u8], limits: &Limits) -> Result<Vec<Event>, BatchError> {
    let mut events = Vec::new();
    json::elements(json::text(bytes)?, |raw| {
        let event = from_text(raw.get(), limits).map_err(|source| BatchError::Event {
            index: events.len(),
            source,
        })?;
        events.push(event);
        Ok::<(), BatchError>(())
    })?;
    Ok(events)
}

fn from_text(text: &str, limits: &Limits) -> Result<Event, CloudEventError> {
    let mut members = Members::collect(text, limits)?;
    let material = match members.dssematerial.take() {
        None => None,
        Some(raw) => bytes_of("dssematerial", raw, |found| {
            check_length(found, limits.author_material_bytes_max)
                .map_err(|max| DataError::AuthorMaterialTooLong { found, max }.into())
        })?,
    };
    let attributes = members.attributes(limits)?;
    let datacontenttype = members.datacontenttype();
    let (state, data) = payload(&members, datacontenttype, limits)?;
    let part = DataPart {
        state,
        author_material: material.as_deref(),
        data: &data,
    };
    Ok(Event::new(attributes, &part, limits)?)
}

/// The members of one event, sorted into their places but not yet interpreted together.
#[derive(Default)]
struct Members<'a> {
    attributes: Vec<(Cow<'a, str>, Scalar<'a>)>,
    data: Option<&'a RawValue>,
    data_base64: Option<&'a RawValue>,
    dssematerial: Option<&'a RawValue>,
}

/// What an attribute can be in JSON.
enum Scalar<'a> {
    Boolean(bool),
    Integer(i32),
    /// The same as no attribute; kept until duplicates have been looked for.
    Null,
    Text(Cow<'a, str>),
}

impl<'a> Members<'a> {
    fn collect(text: &'a str, limits: &Limits) -> Result<Self, CloudEventError> {
        let mut members = Self::default();
        let mut attribute_bytes = 0usize;
        json::members(text, |name, raw| {
            let place = match name.as_ref() {
                "data" => &mut members.data,
                "data_base64" => &mut members.data_base64,
                "dssematerial" => &mut members.dssematerial,
                _ => {
                    // Each record takes four bytes and its name at least: the list cannot outgrow the limit.
                    attribute_bytes = attribute_bytes.saturating_add(name.len() + 4);
                    check_length(attribute_bytes, limits.attribute_bytes_max).map_err(|max| {
                        AttributeError::TooLong {
                            found: attribute_bytes,
                            max,
                        }
                    })?;
                    let scalar = scalar(&name, raw)?;
                    members.attributes.push((name, scalar));
                    return Ok(());
                }
            };
            match place.replace(raw) {
                None => Ok(()),
                Some(_) => Err(CloudEventError::DuplicateMember {
                    name: shown(name.as_bytes()),
                }),
            }
        })?;
        members.attributes.sort_by(|(a, _), (b, _)| a.cmp(b));
        for pair in members.attributes.windows(2) {
            if pair[0].0 == pair[1].0 {
                return Err(CloudEventError::DuplicateMember {
                    name: shown(pair[0].0.as_bytes()),
                });
            }
        }
        Ok(members)
    }

    fn attributes(&self, limits: &Limits) -> Result<Vec<u8>, CloudEventError> {
        let mut builder = AttributesBuilder::empty();
        for (name, scalar) in &self.attributes {
            match scalar {
                Scalar::Boolean(value) => builder.push(name.as_ref(), Value::Boolean(*value)),
                Scalar::Integer(value) => builder.push(name.as_ref(), Value::Integer(*value)),
                Scalar::Null => {}
                Scalar::Text(text) => builder.push_text(name.as_ref(), text),
            }
        }
        let bytes = builder.build()?;
        check_length(bytes.len(), limits.attribute_bytes_max).map_err(|max| {
            AttributeError::TooLong {
                found: bytes.len(),
                max,
            }
        })?;
        Ok(bytes)
    }

    fn datacontenttype(&self) -> Option<&str> {
        let at = self
            .attributes
            .binary_search_by(|(name, _)| name.as_ref().cmp("datacontenttype"))
            .ok()?;
        match &self.attributes[at].1 {
            Scalar::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// One attribute's value. `1.0` and `1e3` are no Integers, whatever their value (CloudEvents 1.0.2, type system).
fn scalar<'a>(name: &str, raw: &'a RawValue) -> Result<Scalar<'a>, CloudEventError> {
    let name = || shown(name.as_bytes());
    match raw.get().as_bytes() {
        [b'"', ..] => match json::string(raw) {
            Some(text) => Ok(Scalar::Text(text)),
            None => Err(CloudEventError::Surrogate { name: name() }),
        },
        b"true" => Ok(Scalar::Boolean(true)),
        b"false" => Ok(Scalar::Boolean(false)),
        b"null" => Ok(Scalar::Null),
        [b'{' | b'[', ..] => Err(CloudEventError::NestedAttribute { name: name() }),
        number if number.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E')) => {
            Err(CloudEventError::FractionalNumber { name: name() })
        }
        _ => match raw.get().parse() {
            Ok(number) => Ok(Scalar::Integer(number)),
            Err(_) => Err(CloudEventError::IntegerRange { name: name() }),
        },
    }
}

/// State and bytes of the payload.
fn payload<'a>(
    members: &Members<'a>,
    datacontenttype: Option<&str>,
    limits: &Limits,
) -> Result<(DataState, Cow<'a, [u8]>), CloudEventError> {
    let too_long = |found: usize| {
        check_length(found, limits.data_bytes_max)
            .map_err(|max| DataError::DataTooLong { found, max }.into())
    };
    let base64 = match members.data_base64 {
        None => None,
        Some(raw) => bytes_of("data_base64", raw, too_long)?,
    };
    match (members.data, base64) {
        (Some(_), Some(_)) => Err(CloudEventError::DataAndBase64),
        (None, None) => Ok((DataState::Absent, Cow::Borrowed(&[]))),
        (None, Some(bytes)) => Ok((DataState::Binary, Cow::Owned(bytes))),
        (Some(raw), None) if raw.get() == "null" => Ok((DataState::Null, Cow::Borrowed(&[]))),
        (Some(raw), None) if declares_json(datacontenttype) => {
            too_long(raw.get().len())?;
            json::check_depth(raw.get())?;
            Ok((DataState::Text, Cow::Borrowed(raw.get().as_bytes())))
        }
        (Some(raw), None) => {
            if !raw.get().starts_with('"') {
                return Err(CloudEventError::DataNotText);
            }
            // A character takes at most six bytes as an escape, and at least one as UTF-8.
            too_long((raw.get().len() - 2) / 6)?;
            let text = json::string(raw).ok_or_else(|| CloudEventError::Surrogate {
                name: "data".to_owned(),
            })?;
            let bytes = match text {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            };
            Ok((DataState::Text, bytes))
        }
    }
}

/// The bytes of a base64 member, `None` where it is null; `check` is asked about their number before they are decoded.
fn bytes_of(
    member: &'static str,
    raw: &RawValue,
    check: impl FnOnce(usize) -> Result<(), CloudEventError>,
) -> Result<Option<Vec<u8>>, CloudEventError> {
    if raw.get() == "null" {
        return Ok(None);
    }
    if !raw.get().starts_with('"') {
        return Err(CloudEventError::WantsString { member });
    }
    let text = json::string(raw).ok_or(CloudEventError::Base64 { member })?;
    // Four characters make three bytes, less the padding, which is at most two.
    check((text.len() / 4 * 3).saturating_sub(2))?;
    match STANDARD.decode(text.as_bytes()) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(_) => Err(CloudEventError::Base64 { member }),
    }
}

/// The limit, as the error, where `found` passes it.
fn check_length(found: usize, max: usize) -> Result<(), usize> {
    if found > max { Err(max) } else { Ok(()) }
}
