//! The functions that every CESQL engine has.

use std::borrow::Cow;

use super::evaluate::Val;
use super::{ErrorKind, Type};

/// A function, told by its name and how many arguments it is given. None is overloaded by types.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Function {
    Abs,
    Bool,
    Concat,
    ConcatWs,
    Int,
    Left,
    Length,
    Lower,
    Right,
    String,
    Substring,
    Trim,
    Upper,
}

impl Function {
    /// The function of this name, in any case, with so many arguments.
    pub(super) fn find(name: &str, arguments: usize) -> Option<Self> {
        Some(match (&*name.to_ascii_uppercase(), arguments) {
            ("ABS", 1) => Self::Abs,
            ("BOOL", 1) => Self::Bool,
            ("CONCAT", _) => Self::Concat,
            ("CONCAT_WS", 1..) => Self::ConcatWs,
            ("INT", 1) => Self::Int,
            ("LEFT", 2) => Self::Left,
            ("LENGTH", 1) => Self::Length,
            ("LOWER", 1) => Self::Lower,
            ("RIGHT", 2) => Self::Right,
            ("STRING", 1) => Self::String,
            ("SUBSTRING", 2 | 3) => Self::Substring,
            ("TRIM", 1) => Self::Trim,
            ("UPPER", 1) => Self::Upper,
            _ => return None,
        })
    }

    pub(super) fn result_type(self) -> Type {
        match self {
            Self::Abs | Self::Int | Self::Length => Type::Integer,
            Self::Bool => Type::Boolean,
            _ => Type::String,
        }
    }

    /// The type that its argument at this place is cast to.
    pub(super) fn parameter(self, at: usize) -> Option<Type> {
        match self {
            // They cast by themselves, whatever they are given.
            Self::Bool | Self::Int | Self::String => None,
            Self::Abs => Some(Type::Integer),
            Self::Left | Self::Right | Self::Substring if at > 0 => Some(Type::Integer),
            _ => Some(Type::String),
        }
    }
}

/// A value, with the error that it is given beside.
pub(super) type Given<'a> = (Val<'a>, Option<ErrorKind>);

/// Calls a function that takes no list, with arguments of its types.
pub(super) fn call<'a>(function: Function, arguments: &mut [Val<'a>]) -> Given<'a> {
    let mut text = || match arguments.first_mut() {
        Some(Val::String(text)) => std::mem::take(text),
        _ => Cow::Borrowed(""),
    };
    match function {
        Function::Length => {
            let length = i32::try_from(text().chars().count());
            (Val::Integer(length.unwrap_or(i32::MAX)), None)
        }
        Function::Lower => (Val::String(text().to_lowercase().into()), None),
        Function::Upper => (Val::String(text().to_uppercase().into()), None),
        Function::Trim => {
            let text = text();
            let kept = text.trim();
            let start = kept.as_ptr() as usize - text.as_ptr() as usize;
            let range = start..start + kept.len();
            (Val::String(part(text, range)), None)
        }
        Function::Abs => match arguments.first() {
            Some(Val::Integer(i32::MIN)) => (Val::Integer(i32::MAX), Some(ErrorKind::Math)),
            Some(Val::Integer(number)) => (Val::Integer(number.abs()), None),
            _ => (Val::Integer(0), None),
        },
        Function::Left | Function::Right => {
            let text = text();
            let Some(wanted) = integer(arguments, 1).and_then(|n| usize::try_from(n).ok()) else {
                return (Val::String(text), Some(ErrorKind::FunctionEvaluation));
            };
            let range = if function == Function::Left {
                0..byte_of(&text, wanted)
            } else {
                let all = text.chars().count();
                byte_of(&text, all.saturating_sub(wanted))..text.len()
            };
            (Val::String(part(text, range)), None)
        }
        Function::Substring => {
            let text = text();
            substring(text, integer(arguments, 1), integer(arguments, 2))
        }
        // INVARIANT: the evaluator calls these itself.
        Function::Bool
        | Function::Concat
        | Function::ConcatWs
        | Function::Int
        | Function::String => (Val::String(text()), None),
    }
}

fn substring(text: Cow<'_, str>, position: Option<i32>, length: Option<i32>) -> Given<'_> {
    let failed = (
        Val::String(Cow::Borrowed("")),
        Some(ErrorKind::FunctionEvaluation),
    );
    let all = text.chars().count();
    let position = i64::from(position.unwrap_or(0));
    if position.unsigned_abs() > all as u64 || length.is_some_and(|length| length < 0) {
        return failed;
    }
    let start = match usize::try_from(position) {
        Ok(0) => return (Val::String(Cow::Borrowed("")), None),
        Ok(position) => position - 1,
        // At most as many characters as there are, so that it fits.
        Err(_) => all - usize::try_from(position.unsigned_abs()).unwrap_or(all),
    };
    let length = length.map_or(all, |length| usize::try_from(length).unwrap_or(0));
    let range = byte_of(&text, start)..byte_of(&text, start.saturating_add(length));
    (Val::String(part(text, range)), None)
}

fn integer(arguments: &[Val<'_>], at: usize) -> Option<i32> {
    match arguments.get(at) {
        Some(Val::Integer(number)) => Some(*number),
        _ => None,
    }
}

/// The byte at which the character of this index begins; the end where there are fewer.
fn byte_of(text: &str, index: usize) -> usize {
    text.char_indices()
        .nth(index)
        .map_or(text.len(), |(at, _)| at)
}

/// A part of a text, without a copy where the text is borrowed.
fn part(text: Cow<'_, str>, range: std::ops::Range<usize>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.get(range).unwrap_or_default()),
        Cow::Owned(text) => Cow::Owned(text.get(range).unwrap_or_default().to_owned()),
    }
}
