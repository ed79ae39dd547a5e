//! A plain evaluator: the tables of the specification, one line after the other, on owned values. Slow, and easy to see through.

use std::collections::BTreeMap;
use std::fmt;

use countersign_event::attributes::{AttributesBuilder, Value};
use countersign_filter::{ErrorKind, Output};
use proptest::prelude::*;

/// Words that make many a valid expression, and more invalid ones.
pub const WORDS: &[&str] = &[
    "AND",
    "OR",
    "XOR",
    "NOT",
    "LIKE",
    "IN",
    "EXISTS",
    "TRUE",
    "false",
    "(",
    ")",
    ",",
    "=",
    "!=",
    "<>",
    "<",
    "<=",
    "+",
    "-",
    "*",
    "/",
    "%",
    "'a'",
    "\"b%\"",
    "'\\'",
    "1",
    "-2",
    "2147483648",
    "id",
    "subject",
    "missing",
    "ABS(",
    "CONCAT_WS(",
    "LEFT(",
    "x1",
    "é",
    "_",
];

/// An event's extensions; the required attributes are always there.
#[derive(Clone, Debug, Default)]
pub struct Event(BTreeMap<String, Output>);

impl Event {
    pub fn with(mut self, name: &str, text: &str) -> Self {
        self.0
            .insert(name.to_owned(), Output::String(text.to_owned()));
        self
    }

    pub fn attributes(&self) -> Vec<u8> {
        let mut builder = AttributesBuilder::new("7", "/plain", "test");
        for (name, value) in &self.0 {
            match value {
                Output::Boolean(value) => builder.push(name, Value::Boolean(*value)),
                Output::Integer(value) => builder.push(name, Value::Integer(*value)),
                Output::String(value) => builder.push(name, Value::String(value)),
            }
        }
        builder.build().unwrap()
    }

    fn get(&self, name: &str) -> Option<Output> {
        match name {
            "id" => Some(Output::String("7".to_owned())),
            name => self.0.get(name).cloned(),
        }
    }
}

#[derive(Clone, Debug)]
pub enum Expr {
    Attribute(&'static str),
    Binary(&'static str, Box<Expr>, Box<Expr>),
    Call(&'static str, Vec<Expr>),
    Exists(&'static str),
    In(Box<Expr>, Vec<Expr>, bool),
    Like(Box<Expr>, String, bool),
    Negate(Box<Expr>),
    Not(Box<Expr>),
    Value(Output),
}

/// What a whole expression gives.
pub struct Outcome {
    pub value: Output,
    pub error: Option<ErrorKind>,
}

#[derive(Clone, Copy, PartialEq)]
enum Of {
    Boolean,
    Integer,
    String,
}

/// A value, or the error with the value beside it.
type Given = Result<Output, (ErrorKind, Output)>;

fn zero(of: Of) -> Output {
    match of {
        Of::Boolean => Output::Boolean(false),
        Of::Integer => Output::Integer(0),
        Of::String => Output::String(String::new()),
    }
}

fn type_of(value: &Output) -> Of {
    match value {
        Output::Boolean(_) => Of::Boolean,
        Output::Integer(_) => Of::Integer,
        Output::String(_) => Of::String,
    }
}

fn cast(value: &Output, to: Of) -> (Output, Option<ErrorKind>) {
    let text = match value {
        Output::Boolean(value) => value.to_string(),
        Output::Integer(value) => value.to_string(),
        Output::String(value) => value.clone(),
    };
    let failed = (zero(to), Some(ErrorKind::Cast));
    match (to, value) {
        (Of::String, _) => (Output::String(text), None),
        (Of::Integer, Output::Boolean(value)) => (Output::Integer(i32::from(*value)), None),
        (Of::Integer, _) => text.parse().map_or(failed, |n| (Output::Integer(n), None)),
        (Of::Boolean, Output::Integer(number)) => (Output::Boolean(*number != 0), None),
        (Of::Boolean, _) => match &*text.to_lowercase() {
            "true" => (Output::Boolean(true), None),
            "false" => (Output::Boolean(false), None),
            _ => failed,
        },
    }
}

fn truth(value: &Output) -> bool {
    *value == Output::Boolean(true)
}

fn number(value: &Output) -> i64 {
    match value {
        Output::Integer(value) => i64::from(*value),
        _ => panic!("{value:?}"),
    }
}

fn characters(value: &Output) -> Vec<char> {
    match value {
        Output::String(value) => value.chars().collect(),
        _ => panic!("{value:?}"),
    }
}

fn like(text: &[char], pattern: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['%', rest @ ..] => (0..=text.len()).any(|at| like(&text[at..], rest)),
        ['\\', c @ ('%' | '_'), rest @ ..] => text.first() == Some(c) && like(&text[1..], rest),
        ['_', rest @ ..] => !text.is_empty() && like(&text[1..], rest),
        [c, rest @ ..] => text.first() == Some(c) && like(&text[1..], rest),
    }
}

impl Expr {
    pub fn evaluate(&self, event: &Event) -> Outcome {
        match self.given(event) {
            Ok(value) => Outcome { value, error: None },
            Err((kind, value)) => Outcome {
                value,
                error: Some(kind),
            },
        }
    }

    pub fn calls_unknown(&self) -> bool {
        match self {
            Self::Attribute(_) | Self::Exists(_) | Self::Value(_) => false,
            Self::Binary(_, a, b) => a.calls_unknown() || b.calls_unknown(),
            Self::Call(name, arguments) => {
                *name == "NOSUCH"
                    || (*name == "CONCAT_WS" && arguments.is_empty())
                    || arguments.iter().any(Self::calls_unknown)
            }
            Self::In(value, set, _) => value.calls_unknown() || set.iter().any(Self::calls_unknown),
            Self::Like(value, ..) | Self::Negate(value) | Self::Not(value) => value.calls_unknown(),
        }
    }

    fn given(&self, event: &Event) -> Given {
        // An operand's error ends the operator, which gives the zero of its type.
        let operand = |expr: &Expr, of: Of| expr.given(event).map_err(|(kind, _)| (kind, zero(of)));
        let beside = |value: Output, error: Option<ErrorKind>| match error {
            None => Ok(value),
            Some(kind) => Err((kind, value)),
        };
        match self {
            Self::Value(value) => Ok(value.clone()),
            Self::Attribute(name) => event
                .get(name)
                .ok_or((ErrorKind::MissingAttribute, zero(Of::Boolean))),
            Self::Exists(name) => Ok(Output::Boolean(event.get(name).is_some())),
            Self::Not(expr) => {
                let value = operand(expr, Of::Boolean)?;
                if type_of(&value) == Of::Integer {
                    return Err((ErrorKind::Cast, Output::Boolean(true)));
                }
                let (value, error) = cast(&value, Of::Boolean);
                beside(Output::Boolean(!truth(&value)), error)
            }
            Self::Negate(expr) => {
                let (value, error) = cast(&operand(expr, Of::Integer)?, Of::Integer);
                let (value, math) = narrow(-number(&value));
                beside(value, error.or(math))
            }
            Self::Like(expr, pattern, negated) => {
                let (value, _) = cast(&operand(expr, Of::Boolean)?, Of::String);
                let pattern: Vec<char> = pattern.chars().collect();
                Ok(Output::Boolean(
                    like(&characters(&value), &pattern) != *negated,
                ))
            }
            Self::In(expr, set, negated) => {
                let value = operand(expr, Of::Boolean)?;
                for member in set {
                    let member = operand(member, Of::Boolean)?;
                    let (member, error) = cast(&member, type_of(&value));
                    if let Some(kind) = error {
                        return Err((kind, zero(Of::Boolean)));
                    }
                    if member == value {
                        return Ok(Output::Boolean(!negated));
                    }
                }
                Ok(Output::Boolean(*negated))
            }
            Self::Binary(operator @ ("AND" | "OR" | "XOR"), a, b) => {
                let side = |expr: &Expr| {
                    let (value, error) = cast(&operand(expr, Of::Boolean)?, Of::Boolean);
                    match error {
                        None => Ok(truth(&value)),
                        Some(kind) => Err((kind, zero(Of::Boolean))),
                    }
                };
                let left = side(a)?;
                Ok(Output::Boolean(match *operator {
                    "AND" if !left => false,
                    "OR" if left => true,
                    "XOR" => left != side(b)?,
                    _ => side(b)?,
                }))
            }
            Self::Binary(operator @ ("=" | "!=" | "<>"), a, b) => {
                let (left, right) = (operand(a, Of::Boolean)?, operand(b, Of::Boolean)?);
                let (left, error) = cast(&left, type_of(&right));
                beside(
                    Output::Boolean((left == right) == (*operator == "=")),
                    error,
                )
            }
            Self::Binary(operator @ ("<" | "<=" | ">" | ">="), a, b) => {
                let (left, right) = (operand(a, Of::Boolean)?, operand(b, Of::Boolean)?);
                let ((left, first), (right, second)) =
                    (cast(&left, Of::Integer), cast(&right, Of::Integer));
                let (left, right) = (number(&left), number(&right));
                let holds = match *operator {
                    "<" => left < right,
                    "<=" => left <= right,
                    ">" => left > right,
                    _ => left >= right,
                };
                beside(Output::Boolean(holds), first.or(second))
            }
            Self::Binary(operator, a, b) => {
                let (left, right) = (operand(a, Of::Integer)?, operand(b, Of::Integer)?);
                let ((left, first), (right, second)) =
                    (cast(&left, Of::Integer), cast(&right, Of::Integer));
                let (left, right) = (number(&left), number(&right));
                let (value, math) = match *operator {
                    "/" | "%" if right == 0 => (Output::Integer(0), Some(ErrorKind::Math)),
                    "+" => narrow(left + right),
                    "-" => narrow(left - right),
                    "*" => narrow(left * right),
                    "/" => narrow(left / right),
                    _ => narrow(left % right),
                };
                beside(value, first.or(second).or(math))
            }
            Self::Call(name, arguments) => self.called(name, arguments, event),
        }
    }

    fn called(&self, name: &str, arguments: &[Expr], event: &Event) -> Given {
        let (of, parameters): (Of, Vec<Option<Of>>) = match (name, arguments.len()) {
            ("ABS", 1) => (Of::Integer, vec![Some(Of::Integer)]),
            ("LENGTH", 1) => (Of::Integer, vec![Some(Of::String)]),
            ("INT", 1) => (Of::Integer, vec![None]),
            ("BOOL", 1) => (Of::Boolean, vec![None]),
            ("STRING", 1) => (Of::String, vec![None]),
            ("LOWER" | "UPPER" | "TRIM", 1) => (Of::String, vec![Some(Of::String)]),
            ("LEFT" | "RIGHT", 2) => (Of::String, vec![Some(Of::String), Some(Of::Integer)]),
            ("SUBSTRING", n) => {
                let mut parameters = vec![Some(Of::String)];
                parameters.resize(n, Some(Of::Integer));
                (Of::String, parameters)
            }
            ("CONCAT", n) => (Of::String, vec![Some(Of::String); n]),
            ("CONCAT_WS", n @ 1..) => (Of::String, vec![Some(Of::String); n]),
            _ => return Err((ErrorKind::MissingFunction, zero(Of::Boolean))),
        };
        let mut values = Vec::new();
        for (argument, parameter) in arguments.iter().zip(parameters) {
            let value = argument
                .given(event)
                .map_err(|(kind, _)| (kind, zero(of)))?;
            values.push(match parameter.map(|to| cast(&value, to)) {
                None => value,
                Some((value, None)) => value,
                Some((_, Some(kind))) => return Err((kind, zero(of))),
            });
        }
        let text = |value: String| Ok(Output::String(value));
        let failed = |value: Output| Err((ErrorKind::FunctionEvaluation, value));
        match name {
            "INT" | "BOOL" | "STRING" => match cast(&values[0], of) {
                (value, None) => Ok(value),
                (value, Some(kind)) => Err((kind, value)),
            },
            "ABS" => match narrow(number(&values[0]).abs()) {
                (value, None) => Ok(value),
                (value, Some(kind)) => Err((kind, value)),
            },
            "LENGTH" => Ok(Output::Integer(characters(&values[0]).len() as i32)),
            "LOWER" => text(values[0].to_string().to_lowercase()),
            "UPPER" => text(values[0].to_string().to_uppercase()),
            "TRIM" => text(values[0].to_string().trim().to_owned()),
            "CONCAT" => text(values.iter().map(Output::to_string).collect()),
            "CONCAT_WS" => {
                let all: Vec<String> = values[1..].iter().map(Output::to_string).collect();
                text(all.join(&values[0].to_string()))
            }
            "LEFT" | "RIGHT" => {
                let (all, wanted) = (characters(&values[0]), number(&values[1]));
                if wanted < 0 {
                    return failed(values[0].clone());
                }
                let wanted = (wanted as usize).min(all.len());
                text(if name == "LEFT" {
                    all[..wanted].iter().collect()
                } else {
                    all[all.len() - wanted..].iter().collect()
                })
            }
            _ => {
                let (all, position) = (characters(&values[0]), number(&values[1]));
                let length = values.get(2).map_or(i64::MAX, number);
                let count = all.len() as i64;
                if position > count || position < -count || length < 0 {
                    return failed(zero(Of::String));
                }
                let start = match position {
                    0 => return text(String::new()),
                    1.. => position - 1,
                    _ => count + position,
                };
                text(
                    all.iter()
                        .skip(start as usize)
                        .take(length as usize)
                        .collect(),
                )
            }
        }
    }
}

fn narrow(exact: i64) -> (Output, Option<ErrorKind>) {
    let nearest = exact.clamp(i32::MIN.into(), i32::MAX.into());
    let error = (nearest != exact).then_some(ErrorKind::Math);
    (Output::Integer(nearest as i32), error)
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |list: &[Expr]| {
            list.iter()
                .map(Expr::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        };
        let not = |negated: &bool| if *negated { "NOT " } else { "" };
        match self {
            Self::Attribute(name) => f.write_str(name),
            Self::Binary(operator, a, b) => write!(f, "({a} {operator} {b})"),
            Self::Call(name, arguments) => write!(f, "{name}({})", list(arguments)),
            Self::Exists(name) => write!(f, "(EXISTS {name})"),
            Self::In(value, set, negated) => {
                write!(f, "({value} {}IN ({}))", not(negated), list(set))
            }
            Self::Like(value, pattern, negated) => {
                write!(f, "({value} {}LIKE {})", not(negated), quote(pattern))
            }
            Self::Negate(value) => write!(f, "(- {value})"),
            Self::Not(value) => write!(f, "(NOT {value})"),
            Self::Value(Output::String(text)) => f.write_str(&quote(text)),
            Self::Value(value) => write!(f, "{value}"),
        }
    }
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "\\'"))
}

pub fn event() -> impl Strategy<Value = Event> {
    let names = prop::sample::select(&["subject", "x1", "n", "flag"]);
    prop::collection::btree_map(names, value(), 0..4).prop_map(|values| {
        let mut event = Event::default();
        for (name, value) in values {
            // The subject is a text, and not empty.
            let value = match (name, value) {
                ("subject", value) => Output::String(format!("s{value}")),
                (_, value) => value,
            };
            event.0.insert(name.to_owned(), value);
        }
        event
    })
}

fn value() -> impl Strategy<Value = Output> {
    prop_oneof![
        any::<bool>().prop_map(Output::Boolean),
        (-5..20_i32).prop_map(Output::Integer),
        prop::sample::select(&[i32::MIN, i32::MAX, 65_536]).prop_map(Output::Integer),
        "[ab'\"é%_1]{0,5}".prop_map(Output::String),
        prop::sample::select(&["true", "FALSE", "7", "-3", "+4", " x ", "2147483648"])
            .prop_map(|text| Output::String(text.to_owned())),
    ]
}

pub fn expr() -> impl Strategy<Value = Expr> {
    let names = || prop::sample::select(&["id", "subject", "x1", "n", "flag", "missing"]);
    let leaf = prop_oneof![
        value().prop_map(Expr::Value),
        names().prop_map(Expr::Attribute),
        names().prop_map(Expr::Exists),
    ];
    leaf.prop_recursive(4, 40, 4, move |inner| {
        let boxed = || inner.clone().prop_map(Box::new);
        let operators = prop::sample::select(&[
            "AND", "OR", "XOR", "=", "!=", "<>", "<", "<=", ">", ">=", "+", "-", "*", "/", "%",
        ]);
        let list = |range| prop::collection::vec(inner.clone(), range);
        prop_oneof![
            5 => (operators, boxed(), boxed()).prop_map(|(operator, a, b)| Expr::Binary(operator, a, b)),
            1 => boxed().prop_map(Expr::Not),
            1 => boxed().prop_map(Expr::Negate),
            1 => (boxed(), "[abé%_1]{0,4}", any::<bool>()).prop_map(|(value, pattern, negated)| Expr::Like(value, pattern, negated)),
            1 => (boxed(), list(1..4), any::<bool>()).prop_map(|(value, set, negated)| Expr::In(value, set, negated)),
            1 => (prop::sample::select(&["CONCAT", "CONCAT_WS"]), list(0..4)).prop_map(|(name, list)| Expr::Call(name, list)),
            1 => (prop::sample::select(&["ABS", "LENGTH", "INT", "BOOL", "STRING", "LOWER", "UPPER", "TRIM", "NOSUCH"]), list(1..2)).prop_map(|(name, list)| Expr::Call(name, list)),
            1 => (prop::sample::select(&["LEFT", "RIGHT", "SUBSTRING"]), list(2..3)).prop_map(|(name, list)| Expr::Call(name, list)),
            1 => list(3..4).prop_map(|list| Expr::Call("SUBSTRING", list)),
        ]
    })
}
