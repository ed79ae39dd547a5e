//! Making canonical attributes from pairs.

use std::borrow::Cow;

use super::error::{AttributeError, shown};
use super::{ATTRIBUTE_BYTES_MAX, Attributes, NAME_BYTES_MAX, SPEC_VERSION, Value, check_name};

/// Collects pairs in any order and gives the canonical bytes.
///
/// ```
/// use countersign_event::attributes::{Attributes, AttributesBuilder, Value};
///
/// let bytes = AttributesBuilder::new("7", "/sensors/1", "org.example.reading")
///     .with("subject", Value::String("roof"))
///     .with("partition", Value::Integer(3))
///     .build()?;
/// assert_eq!(Attributes::check(&bytes)?.subject(), Some("roof"));
/// # Ok::<(), countersign_event::attributes::AttributeError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct AttributesBuilder<'a> {
    pairs: Vec<(Cow<'a, str>, Value<'a>)>,
}

impl<'a> AttributesBuilder<'a> {
    /// The required attributes, `specversion` 1.0 among them.
    #[must_use]
    pub fn new(id: &'a str, source: &'a str, kind: &'a str) -> Self {
        Self::empty()
            .with("specversion", Value::String(SPEC_VERSION))
            .with("id", Value::String(id))
            .with("source", Value::UriReference(source))
            .with("type", Value::String(kind))
    }

    /// No attributes, not even the required ones: for doors that carry `specversion` themselves.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'a, str>>, value: Value<'a>) -> Self {
        self.push(name, value);
        self
    }

    /// Adds an attribute.
    pub fn push(&mut self, name: impl Into<Cow<'a, str>>, value: Value<'a>) {
        self.pairs.push((name.into(), value));
    }

    /// Adds an attribute whose type the name tells: see [`Value::of_text`].
    pub fn push_text(&mut self, name: impl Into<Cow<'a, str>>, text: &'a str) {
        let name = name.into();
        let value = Value::of_text(&name, text);
        self.pairs.push((name, value));
    }

    /// The canonical bytes.
    ///
    /// # Errors
    /// [`AttributeError`] where the pairs are no valid attributes; a name given twice is [`AttributeError::Duplicate`].
    pub fn build(mut self) -> Result<Vec<u8>, AttributeError> {
        self.pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
        for pair in self.pairs.windows(2) {
            if pair[0].0 == pair[1].0 {
                return Err(AttributeError::Duplicate {
                    name: shown(pair[0].0.as_bytes()),
                });
            }
        }
        let mut out = Vec::with_capacity(256);
        for (name, value) in &self.pairs {
            check_name(name.as_bytes())?;
            let length = u8::try_from(name.len())
                .map_err(|_| AttributeError::NameLength { found: name.len() })?;
            debug_assert!(usize::from(length) <= NAME_BYTES_MAX);
            out.push(length);
            out.extend_from_slice(name.as_bytes());
            value.encode(name, &mut out)?;
            // Checked while it grows, so that many long values cannot make it grow far.
            if out.len() > ATTRIBUTE_BYTES_MAX {
                return Err(AttributeError::TooLong {
                    found: out.len(),
                    max: ATTRIBUTE_BYTES_MAX,
                });
            }
        }
        Attributes::check(&out)?;
        Ok(out)
    }
}
