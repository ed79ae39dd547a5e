//! Attribute values: the seven types of the CloudEvents type system.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::{AttributeError, shown};
use super::text::{TextError, check_characters};
use crate::time::Rfc3339;

/// The type of an attribute. The numbers are stored and never reused.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ValueType {
    /// True or false.
    Boolean = 1,
    /// A signed number of 32 bits.
    Integer = 2,
    /// Text.
    String = 3,
    /// Bytes.
    Binary = 4,
    /// An absolute URI, as it came.
    Uri = 5,
    /// A URI or a relative reference, as it came.
    UriReference = 6,
    /// RFC 3339, as it came.
    Timestamp = 7,
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boolean => "Boolean",
            Self::Integer => "Integer",
            Self::String => "String",
            Self::Binary => "Binary",
            Self::Uri => "URI",
            Self::UriReference => "URI-reference",
            Self::Timestamp => "Timestamp",
        })
    }
}

/// The value of an attribute, borrowed from the canonical bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Value<'a> {
    /// True or false.
    Boolean(bool),
    /// A signed number of 32 bits.
    Integer(i32),
    /// Text.
    String(&'a str),
    /// Bytes.
    Binary(&'a [u8]),
    /// An absolute URI, as it came.
    Uri(&'a str),
    /// A URI or a relative reference, as it came.
    UriReference(&'a str),
    /// RFC 3339, as it came.
    Timestamp(&'a str),
}

impl<'a> Value<'a> {
    /// The value that a door without types (HTTP, MQTT, JSON strings) means by `text`: the type of the specification for
    /// a core attribute, a String for an extension.
    #[must_use]
    pub fn of_text(name: &str, text: &'a str) -> Self {
        match super::core_type(name.as_bytes()) {
            Some(ValueType::Uri) => Self::Uri(text),
            Some(ValueType::UriReference) => Self::UriReference(text),
            Some(ValueType::Timestamp) => Self::Timestamp(text),
            _ => Self::String(text),
        }
    }

    /// The type of the value.
    #[must_use]
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::Boolean(_) => ValueType::Boolean,
            Self::Integer(_) => ValueType::Integer,
            Self::String(_) => ValueType::String,
            Self::Binary(_) => ValueType::Binary,
            Self::Uri(_) => ValueType::Uri,
            Self::UriReference(_) => ValueType::UriReference,
            Self::Timestamp(_) => ValueType::Timestamp,
        }
    }

    /// The canonical string of the type system: what HTTP headers carry and filters compare.
    #[must_use]
    pub fn canonical_text(&self) -> Cow<'a, str> {
        match *self {
            Self::Boolean(true) => Cow::Borrowed("true"),
            Self::Boolean(false) => Cow::Borrowed("false"),
            Self::Integer(number) => Cow::Owned(number.to_string()),
            Self::Binary(bytes) => Cow::Owned(STANDARD.encode(bytes)),
            Self::String(text)
            | Self::Uri(text)
            | Self::UriReference(text)
            | Self::Timestamp(text) => Cow::Borrowed(text),
        }
    }

    /// Appends type, length and value bytes.
    pub(super) fn encode(&self, name: &str, out: &mut Vec<u8>) -> Result<(), AttributeError> {
        let integer;
        let bytes: &[u8] = match self {
            Self::Boolean(false) => &[0],
            Self::Boolean(true) => &[1],
            Self::Integer(number) => {
                integer = number.to_be_bytes();
                &integer
            }
            Self::Binary(bytes) => bytes,
            Self::String(text)
            | Self::Uri(text)
            | Self::UriReference(text)
            | Self::Timestamp(text) => text.as_bytes(),
        };
        let length = u16::try_from(bytes.len()).map_err(|_| AttributeError::ValueTooLong {
            name: shown(name.as_bytes()),
            found: bytes.len(),
        })?;
        out.push(self.value_type() as u8);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(bytes);
        Ok(())
    }

    /// Reads and checks the value bytes of attribute `name`, which `utf8` gives as text where they are that.
    #[inline]
    pub(super) fn decode(
        name: &[u8],
        value_type: u8,
        bytes: &'a [u8],
        utf8: impl Fn() -> Result<&'a str, TextError>,
    ) -> Result<Self, AttributeError> {
        let text = || {
            utf8()
                .and_then(check_characters)
                .map_err(|error| match error {
                    TextError::Forbidden(c) => AttributeError::ForbiddenCharacter {
                        name: shown(name),
                        code_point: u32::from(c),
                    },
                    TextError::NotUtf8 => AttributeError::NotUtf8 { name: shown(name) },
                })
        };
        let form = |value_type| AttributeError::ValueForm {
            name: shown(name),
            value_type,
        };
        match value_type {
            1 => match bytes {
                [0] => Ok(Self::Boolean(false)),
                [1] => Ok(Self::Boolean(true)),
                _ => Err(form(ValueType::Boolean)),
            },
            2 => match bytes.try_into() {
                Ok(number) => Ok(Self::Integer(i32::from_be_bytes(number))),
                Err(_) => Err(form(ValueType::Integer)),
            },
            3 => text().map(Self::String),
            4 => Ok(Self::Binary(bytes)),
            // An absolute URI has at least a scheme; only a reference may be empty (RFC 3986 4.1).
            5 if bytes.is_empty() => Err(AttributeError::Empty { name: shown(name) }),
            5 => text().map(Self::Uri),
            6 => text().map(Self::UriReference),
            7 => match Rfc3339::parse(bytes) {
                // The syntax admits ASCII only.
                Ok(_) => text().map(Self::Timestamp),
                Err(source) => Err(AttributeError::Time {
                    name: shown(name),
                    source,
                }),
            },
            found => Err(AttributeError::UnknownType {
                name: shown(name),
                found,
            }),
        }
    }

    /// Reads value bytes that were checked before ([`super::Attributes::check`]), without checking them again.
    #[must_use]
    pub fn reread(value_type: u8, bytes: &'a [u8]) -> Option<Self> {
        let text = || std::str::from_utf8(bytes).ok();
        match value_type {
            1 => Some(Self::Boolean(bytes == [1])),
            2 => Some(Self::Integer(i32::from_be_bytes(bytes.try_into().ok()?))),
            3 => text().map(Self::String),
            4 => Some(Self::Binary(bytes)),
            5 => text().map(Self::Uri),
            6 => text().map(Self::UriReference),
            7 => text().map(Self::Timestamp),
            _ => None,
        }
    }
}
