//! The attributes that a filter asks for, found in one pass over an event's canonical bytes.

use std::borrow::Cow;

use countersign_event::attributes::{Record, Value};

use crate::error::{FilterError, FilterErrorKind};

/// Different attributes that one filter may ask for.
pub const NAMES_MAX: usize = 32;

/// The names that a filter asks for. A *slot* is the place of one of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// Ascending, with their slots.
    sorted: Vec<(Box<str>, u8)>,
}

impl Names {
    /// The slot of a name, which becomes one where it is new.
    pub(crate) fn slot(&mut self, name: &str, at: usize) -> Result<u8, FilterError> {
        match self
            .sorted
            .binary_search_by(|(known, _)| (**known).cmp(name))
        {
            Ok(found) => Ok(self.sorted[found].1),
            Err(place) => {
                let slot = self.sorted.len();
                if slot >= NAMES_MAX {
                    return Err(FilterError::new(FilterErrorKind::Names, at));
                }
                let slot = slot as u8;
                self.sorted.insert(place, (name.into(), slot));
                Ok(slot)
            }
        }
    }

    /// The names, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.sorted.iter().map(|(name, _)| &**name)
    }

    /// Finds them in an event's canonical attributes.
    #[inline]
    pub(crate) fn find<'a>(&self, attributes: &'a [u8]) -> Found<'a> {
        let mut found = Found {
            slots: [None; NAMES_MAX],
        };
        let mut wanted = self.sorted.iter();
        let mut next = wanted.next();
        let mut rest = attributes;
        while let Some((name, slot)) = next {
            let Some((record, after)) = Record::split(rest) else {
                break;
            };
            match record.name.cmp(name.as_bytes()) {
                std::cmp::Ordering::Less => rest = after,
                std::cmp::Ordering::Equal => {
                    found.slots[usize::from(*slot)] = Some(Raw {
                        value_type: record.value_type,
                        bytes: record.value,
                    });
                    rest = after;
                    next = wanted.next();
                }
                std::cmp::Ordering::Greater => next = wanted.next(),
            }
        }
        found
    }
}

/// What an event has of them.
pub(crate) struct Found<'a> {
    slots: [Option<Raw<'a>>; NAMES_MAX],
}

impl<'a> Found<'a> {
    #[inline]
    pub(crate) fn get(&self, slot: u8) -> Option<Raw<'a>> {
        self.slots.get(usize::from(slot)).copied().flatten()
    }
}

/// A value as it is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raw<'a> {
    value_type: u8,
    bytes: &'a [u8],
}

impl<'a> Raw<'a> {
    /// The bytes of the canonical string, without a copy where it is stored as that.
    #[inline]
    pub(crate) fn text_bytes(&self) -> Cow<'a, [u8]> {
        if matches!(self.value_type, 3 | 5 | 6 | 7) {
            return Cow::Borrowed(self.bytes);
        }
        match self.value().map(|value| value.canonical_text()) {
            Some(Cow::Borrowed(text)) => Cow::Borrowed(text.as_bytes()),
            Some(Cow::Owned(text)) => Cow::Owned(text.into_bytes()),
            None => Cow::Borrowed(&[]),
        }
    }

    /// The value.
    #[inline]
    pub(crate) fn value(&self) -> Option<Value<'a>> {
        Value::reread(self.value_type, self.bytes)
    }
}
