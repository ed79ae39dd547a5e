//! The tree of an expression, ready to be evaluated.

use super::Type;
use super::functions::Function;
use super::like::Pattern;

#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Where it begins in the text.
    pub(super) at: u32,
    /// How many nodes lie on the longest way down from here, this one included.
    pub(super) height: u8,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Arithmetic(Arithmetic, Box<[Node; 2]>),
    Attribute(u8),
    Boolean(bool),
    Call(Function, Vec<Node>),
    /// A function that does not exist.
    CallUnknown,
    Compare(Comparison, Box<[Node; 2]>),
    Exists(u8),
    In {
        value: Box<Node>,
        set: Vec<Node>,
        negated: bool,
    },
    Integer(i32),
    Like {
        value: Box<Node>,
        pattern: Pattern,
        negated: bool,
    },
    /// AND, OR and XOR have one precedence: a chain is evaluated from left to right, in a loop.
    Logic(Box<Node>, Vec<(Logic, Node)>),
    Negate(Box<Node>),
    Not(Box<Node>),
    /// An attribute compared with a string literal: on the stored bytes, without making a value.
    SameText {
        slot: u8,
        text: Box<str>,
        negated: bool,
    },
    Text(Box<str>),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Arithmetic {
    Add,
    Divide,
    Multiply,
    Remainder,
    Subtract,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Comparison {
    Different,
    Greater,
    GreaterOrSame,
    Less,
    LessOrSame,
    Same,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Logic {
    And,
    Or,
    Xor,
}

impl Node {
    /// The type of its value; `None` where events tell it.
    pub(super) fn result_type(&self) -> Option<Type> {
        Some(match &self.kind {
            Kind::Attribute(_) => return None,
            Kind::Arithmetic(..) | Kind::Integer(_) | Kind::Negate(_) => Type::Integer,
            Kind::Text(_) => Type::String,
            Kind::Call(function, _) => function.result_type(),
            Kind::Boolean(_)
            | Kind::CallUnknown
            | Kind::Compare(..)
            | Kind::Exists(_)
            | Kind::In { .. }
            | Kind::Like { .. }
            | Kind::Logic(..)
            | Kind::Not(_)
            | Kind::SameText { .. } => Type::Boolean,
        })
    }
}
