//! Tree and attributes → value. An error ends the evaluation: the operators around it give the zero value of their type, as the conformance
//! cases have it.

use std::borrow::Cow;

use countersign_event::attributes::Value;

use super::functions::{Function, call};
use super::node::{Arithmetic, Comparison, Kind, Logic, Node};
use super::{ErrorKind, Output, Type};
use crate::slots::Found;

/// Steps that all rules of a filter may take together for one event: one for each rule and node, one for each 16 bytes of a value that is read, one for each byte
/// that is copied or given to a function, one for each two characters that `LIKE` compares. It takes some tens of microseconds.
pub const WORK_MAX: u32 = 1 << 14;

/// A value while it is worked with.
#[derive(Clone, Debug)]
pub(super) enum Val<'a> {
    Boolean(bool),
    Integer(i32),
    String(Cow<'a, str>),
}

impl Val<'_> {
    fn zero(of: Type) -> Self {
        match of {
            Type::Boolean => Self::Boolean(false),
            Type::Integer => Self::Integer(0),
            Type::String => Self::String(Cow::Borrowed("")),
        }
    }

    fn type_of(&self) -> Type {
        match self {
            Self::Boolean(_) => Type::Boolean,
            Self::Integer(_) => Type::Integer,
            Self::String(_) => Type::String,
        }
    }
}

impl From<Val<'_>> for Output {
    fn from(value: Val<'_>) -> Self {
        match value {
            Val::Boolean(value) => Self::Boolean(value),
            Val::Integer(value) => Self::Integer(value),
            Val::String(value) => Self::String(value.into_owned()),
        }
    }
}

/// An error, with the value that is given beside it.
#[derive(Debug)]
pub(super) struct Failed<'a> {
    pub(super) kind: ErrorKind,
    pub(super) at: u32,
    pub(super) value: Val<'a>,
}

type Evaluated<'a> = Result<Val<'a>, Failed<'a>>;

pub(super) struct Evaluator<'f, 'a> {
    found: &'f Found<'a>,
    work: &'f mut u32,
}

impl<'f, 'a> Evaluator<'f, 'a> {
    /// With what is left of the work of an event.
    pub(super) fn new(found: &'f Found<'a>, work: &'f mut u32) -> Self {
        Self { found, work }
    }

    /// The value of the whole expression; false where that is an attribute that is missing.
    pub(super) fn root<'n>(&mut self, node: &'n Node) -> Evaluated<'n>
    where
        'a: 'n,
    {
        self.node(node)
    }

    /// A node's value. The operator that asks for it is of type `for_type`, and gives the zero of that where there is an error.
    fn operand<'n>(&mut self, node: &'n Node, for_type: Type) -> Evaluated<'n>
    where
        'a: 'n,
    {
        self.node(node).map_err(|failed| Failed {
            value: Val::zero(for_type),
            ..failed
        })
    }

    fn node<'n>(&mut self, node: &'n Node) -> Evaluated<'n>
    where
        'a: 'n,
    {
        self.spend(node, 1, Type::Boolean)?;
        match &node.kind {
            Kind::Boolean(value) => Ok(Val::Boolean(*value)),
            Kind::Integer(value) => Ok(Val::Integer(*value)),
            Kind::Text(text) => Ok(Val::String(Cow::Borrowed(text))),
            Kind::Attribute(slot) => self.attribute(node, *slot),
            Kind::Exists(slot) => Ok(Val::Boolean(self.found.get(*slot).is_some())),
            Kind::SameText {
                slot,
                text,
                negated,
            } => {
                let Some(value) = self.found.get(*slot) else {
                    return Err(missing(node));
                };
                let value = value.text_bytes();
                self.spend_read(node, value.len())?;
                let same = *value == *text.as_bytes();
                Ok(Val::Boolean(same != *negated))
            }
            Kind::Logic(first, rest) => self.logic(first, rest),
            Kind::Compare(comparison, operands) => self.compare(node, *comparison, operands),
            Kind::Arithmetic(arithmetic, operands) => self.arithmetic(node, *arithmetic, operands),
            Kind::Not(operand) => {
                let value = self.operand(operand, Type::Boolean)?;
                let (value, error) = match value {
                    // The conformance cases have an error here, where the table of casts has none.
                    Val::Integer(_) => (false, Some(ErrorKind::Cast)),
                    value => as_boolean(&value),
                };
                given(node, Val::Boolean(!value), error)
            }
            Kind::Negate(operand) => {
                let value = self.operand(operand, Type::Integer)?;
                let (value, error) = as_integer(&value);
                let negative = value.checked_neg();
                let error = error.or(negative.is_none().then_some(ErrorKind::Math));
                given(node, Val::Integer(negative.unwrap_or(i32::MAX)), error)
            }
            Kind::Like {
                value,
                pattern,
                negated,
            } => {
                let value = self.operand(value, Type::Boolean)?;
                let text = as_string(value);
                match pattern.matches(&text, self.work) {
                    Some(matches) => Ok(Val::Boolean(matches != *negated)),
                    None => Err(overworked(node, Type::Boolean)),
                }
            }
            Kind::In {
                value,
                set,
                negated,
            } => self.is_in(node, value, set, *negated),
            Kind::Call(function, arguments) => self.call(node, *function, arguments),
            Kind::CallUnknown => Err(Failed {
                kind: ErrorKind::MissingFunction,
                at: node.at,
                value: Val::Boolean(false),
            }),
        }
    }

    fn attribute<'n>(&mut self, node: &'n Node, slot: u8) -> Evaluated<'n>
    where
        'a: 'n,
    {
        let value = self.found.get(slot).and_then(|raw| raw.value());
        Ok(match value {
            None => return Err(missing(node)),
            Some(Value::Boolean(value)) => Val::Boolean(value),
            Some(Value::Integer(value)) => Val::Integer(value),
            Some(other) => {
                let text = other.canonical_text();
                self.spend_read(node, text.len())?;
                Val::String(text)
            }
        })
    }

    fn logic<'n>(&mut self, first: &'n Node, rest: &'n [(Logic, Node)]) -> Evaluated<'n>
    where
        'a: 'n,
    {
        let mut left = self.truth(first)?;
        for (logic, right) in rest {
            left = match logic {
                Logic::And => left && self.truth(right)?,
                Logic::Or => left || self.truth(right)?,
                Logic::Xor => left != self.truth(right)?,
            };
        }
        Ok(Val::Boolean(left))
    }

    fn truth<'n>(&mut self, node: &'n Node) -> Result<bool, Failed<'n>>
    where
        'a: 'n,
    {
        let value = self.operand(node, Type::Boolean)?;
        match as_boolean(&value) {
            (value, None) => Ok(value),
            (_, Some(kind)) => Err(Failed {
                kind,
                at: node.at,
                value: Val::Boolean(false),
            }),
        }
    }

    fn compare<'n>(
        &mut self,
        node: &'n Node,
        comparison: Comparison,
        operands: &'n [Node; 2],
    ) -> Evaluated<'n>
    where
        'a: 'n,
    {
        let [left, right] = operands;
        let left = self.operand(left, Type::Boolean)?;
        let right = self.operand(right, Type::Boolean)?;
        if matches!(comparison, Comparison::Same | Comparison::Different) {
            let (same, error) = same(&right, left);
            return given(
                node,
                Val::Boolean(same == (comparison == Comparison::Same)),
                error,
            );
        }
        let ((left, left_error), (right, right_error)) = (as_integer(&left), as_integer(&right));
        let holds = match comparison {
            Comparison::Less => left < right,
            Comparison::LessOrSame => left <= right,
            Comparison::Greater => left > right,
            _ => left >= right,
        };
        given(node, Val::Boolean(holds), left_error.or(right_error))
    }

    fn arithmetic<'n>(
        &mut self,
        node: &'n Node,
        arithmetic: Arithmetic,
        operands: &'n [Node; 2],
    ) -> Evaluated<'n>
    where
        'a: 'n,
    {
        let [left, right] = operands;
        let left = self.operand(left, Type::Integer)?;
        let right = self.operand(right, Type::Integer)?;
        let ((left, left_error), (right, right_error)) = (as_integer(&left), as_integer(&right));
        let (value, math) = arithmetic.of(left, right);
        given(
            node,
            Val::Integer(value),
            left_error.or(right_error).or(math),
        )
    }

    fn is_in<'n>(
        &mut self,
        node: &'n Node,
        value: &'n Node,
        set: &'n [Node],
        negated: bool,
    ) -> Evaluated<'n>
    where
        'a: 'n,
    {
        let value = self.operand(value, Type::Boolean)?;
        for member in set {
            let member = self.operand(member, Type::Boolean)?;
            match same(&value, member) {
                (_, Some(kind)) => {
                    return Err(Failed {
                        kind,
                        at: node.at,
                        value: Val::Boolean(false),
                    });
                }
                (true, None) => return Ok(Val::Boolean(!negated)),
                (false, None) => {}
            }
        }
        Ok(Val::Boolean(negated))
    }

    fn call<'n>(
        &mut self,
        node: &'n Node,
        function: Function,
        arguments: &'n [Node],
    ) -> Evaluated<'n>
    where
        'a: 'n,
    {
        let result = function.result_type();
        if matches!(function, Function::Concat | Function::ConcatWs) {
            return self.concat(node, function, arguments);
        }
        // No other function has more than three.
        let mut values = [const { Val::Boolean(false) }; 3];
        let mut used = 0;
        for (at, (slot, argument)) in values.iter_mut().zip(arguments).enumerate() {
            let value = self.operand(argument, result)?;
            *slot = match function.parameter(at) {
                None => value,
                Some(to) => {
                    let (value, error) = cast(value, to);
                    if let Some(kind) = error {
                        return Err(Failed {
                            kind,
                            at: argument.at,
                            value: Val::zero(result),
                        });
                    }
                    value
                }
            };
            if let Val::String(text) = &*slot {
                self.spend_bytes(node, text.len(), result)?;
            }
            used = at + 1;
        }
        let [value, ..] = &mut values;
        let (value, error) = match function {
            Function::Bool | Function::Int | Function::String => {
                cast(std::mem::replace(value, Val::Boolean(false)), result)
            }
            _ => call(function, &mut values[..used]),
        };
        given(node, value, error)
    }

    fn concat<'n>(
        &mut self,
        node: &'n Node,
        function: Function,
        arguments: &'n [Node],
    ) -> Evaluated<'n>
    where
        'a: 'n,
    {
        let mut arguments = arguments.iter();
        let mut delimiter = Cow::Borrowed("");
        if function == Function::ConcatWs
            && let Some(first) = arguments.next()
        {
            delimiter = as_string(self.operand(first, Type::String)?);
        }
        let mut out = String::new();
        for (at, argument) in arguments.enumerate() {
            let text = as_string(self.operand(argument, Type::String)?);
            let delimiter = if at > 0 { &*delimiter } else { "" };
            self.spend_bytes(node, delimiter.len() + text.len(), Type::String)?;
            out.push_str(delimiter);
            out.push_str(&text);
        }
        Ok(Val::String(out.into()))
    }

    fn spend_read<'n>(&mut self, node: &'n Node, bytes: usize) -> Result<(), Failed<'n>> {
        self.spend(node, read_steps(bytes), Type::Boolean)
    }

    fn spend_bytes<'n>(
        &mut self,
        node: &'n Node,
        bytes: usize,
        for_type: Type,
    ) -> Result<(), Failed<'n>> {
        let steps = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.spend(node, steps, for_type)
    }

    #[inline]
    fn spend<'n>(&mut self, node: &'n Node, steps: u32, for_type: Type) -> Result<(), Failed<'n>> {
        match self.work.checked_sub(steps) {
            Some(left) => {
                *self.work = left;
                Ok(())
            }
            None => Err(overworked(node, for_type)),
        }
    }
}

/// The steps for a value of so many bytes that is looked at where it is stored.
#[inline]
pub(crate) fn read_steps(bytes: usize) -> u32 {
    u32::try_from(bytes / 16).unwrap_or(u32::MAX)
}

impl Arithmetic {
    /// What cannot be said in 32 bits is the nearest that can, with an error, as the specification has it for `ABS`.
    fn of(self, left: i32, right: i32) -> (i32, Option<ErrorKind>) {
        let math = Some(ErrorKind::Math);
        let exact = match self {
            Self::Divide | Self::Remainder if right == 0 => return (0, math),
            Self::Add => left.checked_add(right),
            Self::Subtract => left.checked_sub(right),
            Self::Multiply => left.checked_mul(right),
            Self::Divide => left.checked_div(right),
            // Of the smallest number by -1 too, where the machine overflows.
            Self::Remainder => Some(left.wrapping_rem(right)),
        };
        match exact {
            Some(exact) => (exact, None),
            None => {
                let nearest = match self {
                    Self::Add => left.saturating_add(right),
                    Self::Subtract => left.saturating_sub(right),
                    _ => left.saturating_mul(right),
                };
                (nearest, math)
            }
        }
    }
}

fn given<'n>(node: &Node, value: Val<'n>, error: Option<ErrorKind>) -> Evaluated<'n> {
    match error {
        None => Ok(value),
        Some(kind) => Err(Failed {
            kind,
            at: node.at,
            value,
        }),
    }
}

#[cold]
fn missing(node: &Node) -> Failed<'static> {
    Failed {
        kind: ErrorKind::MissingAttribute,
        at: node.at,
        value: Val::Boolean(false),
    }
}

#[cold]
fn overworked(node: &Node, for_type: Type) -> Failed<'static> {
    Failed {
        kind: ErrorKind::Generic,
        at: node.at,
        value: Val::zero(for_type),
    }
}

/// Whether `other`, cast to the type of `target`, is the same.
fn same(target: &Val<'_>, other: Val<'_>) -> (bool, Option<ErrorKind>) {
    let (other, error) = cast(other, target.type_of());
    let same = match (target, &other) {
        (Val::Boolean(a), Val::Boolean(b)) => a == b,
        (Val::Integer(a), Val::Integer(b)) => a == b,
        (Val::String(a), Val::String(b)) => a == b,
        _ => false,
    };
    (same, error)
}

fn cast(value: Val<'_>, to: Type) -> (Val<'_>, Option<ErrorKind>) {
    match to {
        Type::Boolean => {
            let (value, error) = as_boolean(&value);
            (Val::Boolean(value), error)
        }
        Type::Integer => {
            let (value, error) = as_integer(&value);
            (Val::Integer(value), error)
        }
        Type::String => (Val::String(as_string(value)), None),
    }
}

fn as_boolean(value: &Val<'_>) -> (bool, Option<ErrorKind>) {
    match value {
        Val::Boolean(value) => (*value, None),
        Val::Integer(number) => (*number != 0, None),
        Val::String(text) if text.eq_ignore_ascii_case("true") => (true, None),
        Val::String(text) if text.eq_ignore_ascii_case("false") => (false, None),
        Val::String(_) => (false, Some(ErrorKind::Cast)),
    }
}

fn as_integer(value: &Val<'_>) -> (i32, Option<ErrorKind>) {
    match value {
        Val::Boolean(value) => (i32::from(*value), None),
        Val::Integer(number) => (*number, None),
        Val::String(text) => match text.parse() {
            Ok(number) => (number, None),
            Err(_) => (0, Some(ErrorKind::Cast)),
        },
    }
}

fn as_string(value: Val<'_>) -> Cow<'_, str> {
    match value {
        Val::Boolean(true) => Cow::Borrowed("true"),
        Val::Boolean(false) => Cow::Borrowed("false"),
        Val::Integer(number) => Cow::Owned(number.to_string()),
        Val::String(text) => text,
    }
}
