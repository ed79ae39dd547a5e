//! Context attributes in one canonical form, whatever door they came through.
//!
//! ```text
//! ┌ name length u8 ┬ name [a-z0-9]+ ┬ type u8 ┬ value length u16 ┬ value ┐  one record per attribute, in strictly
//! └ 1..=255        ┴                ┴ 1..=7   ┴ big-endian       ┴       ┘  ascending byte order of the names
//!
//! 1 Boolean (one byte, 0 or 1) · 2 Integer (i32, big-endian) · 3 String · 4 Binary · 5 URI · 6 URI-reference · 7 Timestamp
//! ```
//!
//! Equal attributes have equal bytes: nothing else is accepted by [`Attributes::check`], which every event passes, on
//! both sides, and which therefore neither allocates nor looks at a byte more often than it must.

mod builder;
mod error;
mod text;
mod value;

pub use builder::AttributesBuilder;
pub use error::AttributeError;
pub use value::{Value, ValueType};

use std::fmt;

pub(crate) use error::shown;
use text::Utf8Prefix;

/// Bytes that all attributes of an event may have together: what a u16 length can frame.
pub const ATTRIBUTE_BYTES_MAX: usize = 65_535;
/// Bytes of one attribute's name: what its u8 length can frame. CloudEvents asks for at most 20, and does not insist.
pub const NAME_BYTES_MAX: usize = 255;

/// The only version of CloudEvents that is spoken.
pub const SPEC_VERSION: &str = "1.0";

/// A view over canonical attribute bytes that have been checked.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Attributes<'a> {
    bytes: &'a [u8],
    core: Core<'a>,
}

/// The core attributes, found while checking, so that asking for one costs nothing.
#[derive(Clone, Copy, Default, Eq, PartialEq)]
struct Core<'a> {
    datacontenttype: Option<&'a str>,
    dataschema: Option<&'a str>,
    id: Option<&'a str>,
    kind: Option<&'a str>,
    source: Option<&'a str>,
    specversion: Option<&'a str>,
    subject: Option<&'a str>,
    time: Option<&'a str>,
}

impl<'a> Attributes<'a> {
    /// Checks bytes in one pass, without allocating.
    ///
    /// # Errors
    /// [`AttributeError`] where the bytes are not the canonical form of valid CloudEvents attributes.
    pub fn check(bytes: &'a [u8]) -> Result<Self, AttributeError> {
        if bytes.len() > ATTRIBUTE_BYTES_MAX {
            return Err(AttributeError::TooLong {
                found: bytes.len(),
                max: ATTRIBUTE_BYTES_MAX,
            });
        }
        let text = Utf8Prefix::of(bytes);
        let mut core = Core::default();
        let mut previous: &[u8] = &[];
        let mut rest = bytes;
        while !rest.is_empty() {
            let (record, after) = Record::split(rest).ok_or(AttributeError::Truncated {
                offset: bytes.len() - rest.len(),
            })?;
            let place = core.place(record.name);
            if place.is_none() {
                check_name(record.name)?;
            }
            if !is_after(previous, record.name) {
                return Err(AttributeError::Order {
                    name: shown(record.name),
                });
            }
            let end = bytes.len() - after.len();
            let start = end - record.value.len();
            let utf8 = || text.part(start, end, record.value);
            let value = Value::decode(record.name, record.value_type, record.value, utf8)?;
            if let Some((place, expected)) = place {
                *place = Some(core_text(record.name, value, expected)?);
            }
            previous = record.name;
            rest = after;
        }
        core.require_all()?;
        Ok(Self { bytes, core })
    }

    /// The canonical bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// All attributes, `specversion` too, in ascending order of their names.
    #[must_use]
    pub fn iter(&self) -> AttributeIter<'a> {
        AttributeIter { rest: self.bytes }
    }

    /// The attribute of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Value<'a>> {
        self.iter()
            .take_while(|(found, _)| *found <= name)
            .find_map(|(found, value)| (found == name).then_some(value))
    }

    /// `id`: with `source`, the identity of the event.
    #[must_use]
    pub fn id(&self) -> &'a str {
        self.core.id.unwrap_or_default()
    }

    /// `source`, a URI-reference.
    #[must_use]
    pub fn source(&self) -> &'a str {
        self.core.source.unwrap_or_default()
    }

    /// `type`.
    #[must_use]
    pub fn kind(&self) -> &'a str {
        self.core.kind.unwrap_or_default()
    }

    /// `subject`.
    #[must_use]
    pub fn subject(&self) -> Option<&'a str> {
        self.core.subject
    }

    /// `time`, RFC 3339 as it came: the producer's claim, not the log's clock.
    #[must_use]
    pub fn time(&self) -> Option<&'a str> {
        self.core.time
    }

    /// `datacontenttype`, a media type.
    #[must_use]
    pub fn datacontenttype(&self) -> Option<&'a str> {
        self.core.datacontenttype
    }

    /// `dataschema`, a URI.
    #[must_use]
    pub fn dataschema(&self) -> Option<&'a str> {
        self.core.dataschema
    }
}

impl fmt::Debug for Attributes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for Attributes<'a> {
    type Item = (&'a str, Value<'a>);
    type IntoIter = AttributeIter<'a>;

    fn into_iter(self) -> AttributeIter<'a> {
        self.iter()
    }
}

/// Iterator over the attributes of an event.
#[derive(Clone, Debug)]
pub struct AttributeIter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for AttributeIter<'a> {
    type Item = (&'a str, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        // INVARIANT: the bytes passed `Attributes::check`, so each `?` below is taken at the end only.
        let (record, after) = Record::split(self.rest)?;
        self.rest = after;
        let name = std::str::from_utf8(record.name).ok()?;
        Some((name, Value::reread(record.value_type, record.value)?))
    }
}

/// Whether `name` can name an attribute here; `data` and `dssematerial` have places of their own.
///
/// # Errors
/// [`AttributeError`] naming the rule that it breaks.
pub fn check_name(name: &[u8]) -> Result<(), AttributeError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(AttributeError::NameLength { found: name.len() });
    }
    if !name
        .iter()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    {
        return Err(AttributeError::NameCharacters { name: shown(name) });
    }
    if matches!(name, b"data" | b"dssematerial") {
        return Err(AttributeError::ReservedName { name: shown(name) });
    }
    Ok(())
}

/// One record of canonical attributes as it is stored, split off but not checked: for readers of bytes that were checked before, and that make
/// no values of what they do not need.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The attribute's name.
    pub name: &'a [u8],
    /// The number of its [`ValueType`].
    pub value_type: u8,
    /// The value's bytes.
    pub value: &'a [u8],
}

impl<'a> Record<'a> {
    /// The first record of `bytes` and what follows it; nothing at the end, or where a length passes it.
    #[must_use]
    #[inline]
    pub fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (name_length, rest) = bytes.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*name_length))?;
        let ([value_type, high, low], rest) = rest.split_first_chunk::<3>()?;
        let value_length = u16::from_be_bytes([*high, *low]);
        let (value, rest) = rest.split_at_checked(usize::from(value_length))?;
        let record = Self {
            name,
            value_type: *value_type,
            value,
        };
        Some((record, rest))
    }
}

/// The type that the specification gives a core attribute; none for extensions.
#[must_use]
pub fn core_type(name: &[u8]) -> Option<ValueType> {
    Core::default()
        .place(name)
        .map(|(_, value_type)| value_type)
}

/// Whether `name` comes after `previous`. Byte by byte: the first or second mostly tells, sooner than a comparison of whole
/// names would have begun.
#[inline]
fn is_after(previous: &[u8], name: &[u8]) -> bool {
    previous.iter().lt(name)
}

/// The text of a core attribute, which has to be of its type and not empty.
fn core_text<'a>(
    name: &[u8],
    value: Value<'a>,
    expected: ValueType,
) -> Result<&'a str, AttributeError> {
    match value {
        Value::String(text)
        | Value::Uri(text)
        | Value::UriReference(text)
        | Value::Timestamp(text)
            if value.value_type() == expected =>
        {
            if text.is_empty() {
                return Err(AttributeError::Empty { name: shown(name) });
            }
            Ok(text)
        }
        _ => Err(AttributeError::CoreType {
            name: shown(name),
            found: value.value_type(),
            expected,
        }),
    }
}

impl<'a> Core<'a> {
    /// Where the value of a core attribute is kept, and the type that the specification gives it; nothing for extensions.
    #[inline]
    fn place(&mut self, name: &[u8]) -> Option<(&mut Option<&'a str>, ValueType)> {
        // By the length first: it alone tells most of them apart.
        Some(match name.len() {
            2 if name == b"id" => (&mut self.id, ValueType::String),
            4 if name == b"time" => (&mut self.time, ValueType::Timestamp),
            4 if name == b"type" => (&mut self.kind, ValueType::String),
            6 if name == b"source" => (&mut self.source, ValueType::UriReference),
            7 if name == b"subject" => (&mut self.subject, ValueType::String),
            10 if name == b"dataschema" => (&mut self.dataschema, ValueType::Uri),
            11 if name == b"specversion" => (&mut self.specversion, ValueType::String),
            15 if name == b"datacontenttype" => (&mut self.datacontenttype, ValueType::String),
            _ => return None,
        })
    }

    fn require_all(&self) -> Result<(), AttributeError> {
        match self.specversion {
            Some(SPEC_VERSION) => {}
            Some(_) => return Err(AttributeError::SpecVersion),
            None => {
                return Err(AttributeError::Missing {
                    name: "specversion",
                });
            }
        }
        for (name, value) in [
            ("id", self.id),
            ("source", self.source),
            ("type", self.kind),
        ] {
            if value.is_none() {
                return Err(AttributeError::Missing { name });
            }
        }
        Ok(())
    }
}
