//! CESQL 1.0: read once, evaluated on stored bytes.
//!
//! ```text
//! text ─► lexer ─► parser ─► tree (names as slots, patterns and constants ready) ─► evaluation on one event's attributes
//! ```
//!
//! Where the specification leaves something open, or contradicts its own conformance cases, `schemas/filter.md` says what holds here.

mod evaluate;
mod functions;
mod lexer;
mod like;
mod node;
mod parser;

use std::fmt;

pub use evaluate::WORK_MAX;
pub(crate) use evaluate::read_steps;
pub use parser::{DEPTH_MAX, NODES_MAX};
pub(crate) use parser::{Parsed, parse};

use crate::TEXT_BYTES_MAX;
use crate::error::{FilterError, FilterErrorKind};
use crate::slots::{Found, Names};
use evaluate::{Evaluator, Val};

/// An expression by itself: any type, and errors as values. A filter is made of one by [`crate::Filter::from_expression`].
///
/// ```
/// use countersign_event::attributes::AttributesBuilder;
/// use countersign_filter::{Expression, Output};
///
/// let attributes = AttributesBuilder::new("7", "/sensors/1", "reading").build()?;
/// let evaluation = Expression::parse("LENGTH(type) + 1")?.evaluate(&attributes);
/// assert_eq!(evaluation.value, Output::Integer(8));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Expression {
    parsed: Parsed,
    names: Names,
}

impl Expression {
    /// Reads an expression. Functions that do not exist are admitted here, and fail when they are called.
    ///
    /// # Errors
    /// [`FilterError`].
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(FilterError::new(FilterErrorKind::Length, TEXT_BYTES_MAX));
        }
        let mut names = Names::default();
        let parsed = parse(text, &mut names, &mut 0)?;
        Ok(Self { parsed, names })
    }

    /// The type of what it gives; `None` where that is an attribute, whose type events tell.
    #[must_use]
    pub fn result_type(&self) -> Option<Type> {
        self.parsed.root.result_type()
    }

    /// Evaluates it for an event with these canonical attributes.
    #[must_use]
    pub fn evaluate(&self, attributes: &[u8]) -> Evaluation {
        let found = self.names.find(attributes);
        match Evaluator::new(&found, &mut { WORK_MAX }).root(&self.parsed.root) {
            Ok(value) => Evaluation {
                value: value.into(),
                failure: None,
            },
            Err(failed) => Evaluation {
                value: failed.value.into(),
                failure: Some(Failure {
                    kind: failed.kind,
                    at: failed.at as usize,
                }),
            },
        }
    }
}

impl Parsed {
    /// Whether it is true, without an error, for what was found of an event; `None` where the work that is left does not suffice.
    #[inline]
    pub(crate) fn is_true(&self, found: &Found<'_>, work: &mut u32) -> Option<bool> {
        match Evaluator::new(found, work).root(&self.root) {
            Ok(value) => Some(matches!(value, Val::Boolean(true))),
            Err(failed) => (failed.kind != ErrorKind::Generic).then_some(false),
        }
    }

    /// Whether it can be a filter.
    pub(crate) fn check_predicate(&self) -> Result<(), FilterError> {
        if let Some(doubt) = &self.doubt {
            return Err(doubt.clone());
        }
        match self.root.result_type() {
            Some(Type::Boolean) | None => Ok(()),
            Some(other) => Err(FilterError::new(FilterErrorKind::Type(other), 0)),
        }
    }
}

/// The types of values.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Type {
    /// True or false.
    Boolean,
    /// A signed number of 32 bits.
    Integer,
    /// Text.
    String,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boolean => "Boolean",
            Self::Integer => "Integer",
            Self::String => "String",
        })
    }
}

/// What an expression gave. It always gives a value, also beside a failure.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Evaluation {
    /// The value.
    pub value: Output,
    /// The first error, which ended the evaluation.
    pub failure: Option<Failure>,
}

/// A value that was given out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Output {
    /// True or false.
    Boolean(bool),
    /// A signed number of 32 bits.
    Integer(i32),
    /// Text.
    String(String),
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::String(value) => value.fmt(f),
        }
    }
}

/// What went wrong for one event, and where in the expression.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Failure {
    /// What.
    pub kind: ErrorKind,
    /// In bytes from the start of the expression.
    pub at: usize,
}

/// The errors that CESQL names; that of parsing is a [`FilterError`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ErrorKind {
    /// A value has no meaning in the type that is wanted.
    Cast,
    /// A function was given what it does not take.
    FunctionEvaluation,
    /// More work than one event may cause ([`WORK_MAX`]).
    Generic,
    /// Divided by zero, or beyond 32 bits.
    Math,
    /// The event has no such attribute.
    MissingAttribute,
    /// There is no such function.
    MissingFunction,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cast => "a value that has no meaning in the type that is wanted",
            Self::FunctionEvaluation => "a value that the function does not take",
            Self::Generic => "more work than one event may cause",
            Self::Math => "a division by zero, or a number beyond 32 bits",
            Self::MissingAttribute => "an attribute that the event does not have",
            Self::MissingFunction => "a function that does not exist",
        })
    }
}
