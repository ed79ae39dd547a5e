//! Why a text is no filter, with the place.

use std::fmt;

use crate::expression::Type;
use crate::{DEPTH_MAX, DIALECT_DEPTH_MAX, NAMES_MAX, NODES_MAX, TEXT_BYTES_MAX};

/// A text that is no filter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FilterError {
    /// What is wrong.
    pub kind: FilterErrorKind,
    /// Where, in bytes from the start of the text that was read: of the expression, where it is in one.
    pub at: usize,
    /// Which part of a JSON filter, such as `[0].any[2].sql`; empty for an expression alone.
    pub path: String,
}

/// What is wrong with it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FilterErrorKind {
    /// It asks for `data` or `dssematerial`, which filters never see.
    Data,
    /// Nested too deep.
    Depth,
    /// No dialect, or one that is not spoken.
    Dialect,
    /// An `all` or `any` without members, a comparison without names, or a name or value that is empty.
    Empty,
    /// A function that does not exist with so many arguments.
    Function {
        /// Its name, in capitals.
        name: String,
        /// How many arguments.
        arguments: usize,
    },
    /// An integer beyond 32 bits.
    Integer,
    /// Not JSON, or not of the form of a filter.
    Json(&'static str),
    /// Longer than [`TEXT_BYTES_MAX`].
    Length,
    /// No name of an attribute.
    Name,
    /// Too many different names of attributes.
    Names,
    /// Too many parts.
    Nodes,
    /// Not the canonical text of the filter that it is.
    NotCanonical,
    /// Something else is wanted there.
    Syntax {
        /// What.
        wanted: &'static str,
    },
    /// It gives a value that is never true or false.
    Type(Type),
}

impl FilterError {
    pub(crate) fn new(kind: FilterErrorKind, at: usize) -> Self {
        Self {
            kind,
            at,
            path: String::new(),
        }
    }

    /// The stable code (docs/errors.md).
    #[must_use]
    pub fn code(&self) -> &'static str {
        use FilterErrorKind as Kind;
        match self.kind {
            Kind::Depth | Kind::Length | Kind::Names | Kind::Nodes => "filter-limit",
            Kind::Data | Kind::Function { .. } | Kind::Type(_) => "filter-meaning",
            _ => "filter-syntax",
        }
    }

    /// The line of `text` that it is about, with a caret below the place.
    #[must_use]
    pub fn pointer(&self, text: &str) -> String {
        let mut at = self.at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let end = text[at..]
            .find('\n')
            .map_or(text.len(), |newline| at + newline);
        // As much as a terminal shows beside the place.
        let before: Vec<char> = text[start..at].chars().collect();
        let before = &before[before.len().saturating_sub(60)..];
        let after = text[at..end].chars().take(40);
        let shown: String = before
            .iter()
            .copied()
            .chain(after)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        format!("{shown}\n{}^", " ".repeat(before.len()))
    }
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use FilterErrorKind as Kind;
        if !self.path.is_empty() {
            write!(f, "in `{}`: ", self.path)?;
        }
        match &self.kind {
            Kind::Data => f.write_str(
                "`data` is no attribute: filters see attributes only",
            ),
            Kind::Depth => write!(
                f,
                "nested too deep: at most {DEPTH_MAX} within an expression, {DIALECT_DEPTH_MAX} of JSON"
            ),
            Kind::Dialect => f.write_str(
                "one of `exact`, `prefix`, `suffix`, `all`, `any`, `not`, `sql` is wanted, and nothing beside it",
            ),
            Kind::Empty => f.write_str("names, values and lists of a filter are not empty"),
            Kind::Function { name, arguments } => write!(
                f,
                "there is no function `{name}` with {arguments} arguments"
            ),
            Kind::Integer => f.write_str(
                "integers have 32 bits: -2147483648 to 2147483647",
            ),
            Kind::Json(what) => f.write_str(what),
            Kind::Length => write!(f, "longer than {TEXT_BYTES_MAX} bytes"),
            Kind::Name => f.write_str(
                "names of attributes have letters a to z and digits, and at most 255 of them",
            ),
            Kind::Names => write!(f, "more than {NAMES_MAX} different attributes"),
            Kind::Nodes => write!(f, "more than {NODES_MAX} parts"),
            Kind::NotCanonical => f.write_str("not in the canonical form"),
            Kind::Syntax { wanted } => write!(f, "{wanted} is wanted here"),
            Kind::Type(found) => write!(
                f,
                "this gives a {found}, and a filter has to give true or false"
            ),
        }?;
        write!(f, " (at byte {})", self.at)
    }
}

impl std::error::Error for FilterError {}
