//! What can be wrong with attributes.

use super::{NAME_BYTES_MAX, SPEC_VERSION, ValueType};
use crate::time::TimeError;

/// Why bytes or pairs are not the attributes of an event. Names the attribute, never its value.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AttributeError {
    /// A core attribute of another type than the specification gives it.
    #[error("attribute `{name}` has to be of type {expected}, not {found}")]
    CoreType {
        /// The attribute.
        name: String,
        /// Its type as found.
        found: ValueType,
        /// The type of the specification.
        expected: ValueType,
    },
    /// The same name twice.
    #[error("attribute `{name}` is there more than once")]
    Duplicate {
        /// The attribute.
        name: String,
    },
    /// An empty value where the specification asks for at least one character.
    #[error("attribute `{name}` is empty; leave it out or give it a value")]
    Empty {
        /// The attribute.
        name: String,
    },
    /// A code point that the CloudEvents type system bans from text.
    #[error("attribute `{name}` contains U+{code_point:04X}, a control or noncharacter")]
    ForbiddenCharacter {
        /// The attribute.
        name: String,
        /// The code point.
        code_point: u32,
    },
    /// A required attribute is not there.
    #[error("the required attribute `{name}` is missing")]
    Missing {
        /// The attribute.
        name: &'static str,
    },
    /// A name with other characters than the specification admits.
    #[error("`{name}` cannot name an attribute: only a-z and 0-9 are admitted")]
    NameCharacters {
        /// The name, shortened and with other bytes escaped.
        name: String,
    },
    /// An empty name, or one longer than its length byte can say.
    #[error("an attribute name has 1 to {NAME_BYTES_MAX} characters, not {found}")]
    NameLength {
        /// Bytes of the name.
        found: usize,
    },
    /// Text that is not UTF-8.
    #[error("attribute `{name}` is not UTF-8")]
    NotUtf8 {
        /// The attribute.
        name: String,
    },
    /// Records that are not in strictly ascending order, so not canonical.
    #[error("attribute `{name}` is not after the one before it, so the form is not canonical")]
    Order {
        /// The attribute that comes too late, or twice.
        name: String,
    },
    /// A name that means something else here.
    #[error("`{name}` is no context attribute: it belongs to the data part")]
    ReservedName {
        /// The name.
        name: String,
    },
    /// Another version of CloudEvents.
    #[error("`specversion` has to be `{SPEC_VERSION}`")]
    SpecVersion,
    /// A timestamp that is none.
    #[error("attribute `{name}` is no timestamp: {source}")]
    Time {
        /// The attribute.
        name: String,
        /// What is wrong with it.
        source: TimeError,
    },
    /// All attributes together are too long.
    #[error("the attributes have {found} bytes in all, more than the {max} admitted")]
    TooLong {
        /// Bytes found.
        found: usize,
        /// Bytes admitted.
        max: usize,
    },
    /// The bytes end within a record.
    #[error("the attributes end within the record that begins at byte {offset}")]
    Truncated {
        /// Where the record begins.
        offset: usize,
    },
    /// A type number this version does not know.
    #[error("attribute `{name}` has type {found}, which is unknown")]
    UnknownType {
        /// The attribute.
        name: String,
        /// The type byte.
        found: u8,
    },
    /// A Boolean that is not one byte of 0 or 1, or an Integer that is not four bytes.
    #[error("attribute `{name}` is no {value_type} in canonical form")]
    ValueForm {
        /// The attribute.
        name: String,
        /// The type it claims.
        value_type: ValueType,
    },
    /// A value longer than its u16 length can say.
    #[error("attribute `{name}` has {found} bytes, more than one value can have (65535)")]
    ValueTooLong {
        /// The attribute.
        name: String,
        /// Bytes of the value.
        found: usize,
    },
}

/// A name as an error shows it: short, whatever was sent, and without characters that a terminal obeys.
pub(crate) fn shown(name: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 40;
    let cut = &name[..name.len().min(SHOWN_BYTES_MAX)];
    let mut text = cut.escape_ascii().to_string();
    if cut.len() < name.len() {
        text.push_str("...");
    }
    text
}
