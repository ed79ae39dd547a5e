//! Tokens → tree. From the weakest to the strongest: AND OR XOR · comparisons · + - · * / % · LIKE IN · NOT and `-` before an operand. Operators of one
//! precedence go from left to right.

use super::functions::Function;
use super::lexer::{Kind as Token, Token as Placed, token};
use super::like::Pattern;
use super::node::{Arithmetic, Comparison, Kind, Logic, Node};
use crate::dialect::check_attribute;
use crate::error::{FilterError, FilterErrorKind};
use crate::slots::Names;

/// How deep a tree may be. Chains of AND, OR and XOR are as deep as their deepest member. Evaluating takes a frame of the stack for each level, reading some more.
pub const DEPTH_MAX: usize = 48;

/// Parts of a whole filter: values, names, operators, calls and rules.
pub const NODES_MAX: usize = 1024;

/// An expression that was read.
#[derive(Clone, Debug)]
pub(crate) struct Parsed {
    pub(super) root: Node,
    /// Why it should not be a filter, though it is an expression.
    pub(super) doubt: Option<FilterError>,
}

/// Reads an expression, whose names become slots of `names` and whose nodes count in `nodes`.
pub(crate) fn parse(
    text: &str,
    names: &mut Names,
    nodes: &mut usize,
) -> Result<Parsed, FilterError> {
    let mut parser = Parser {
        text,
        next: token(text, 0)?,
        names,
        nodes,
        depth: 0,
        doubt: None,
    };
    let root = parser.logic()?;
    if parser.next.kind != Token::End {
        return Err(parser.wanted("an operator or the end"));
    }
    let doubt = parser.doubt;
    Ok(Parsed { root, doubt })
}

struct Parser<'a, 'n> {
    text: &'a str,
    next: Placed<'a>,
    names: &'n mut Names,
    nodes: &'n mut usize,
    depth: usize,
    doubt: Option<FilterError>,
}

type Read = Result<Node, FilterError>;

impl<'a> Parser<'a, '_> {
    fn logic(&mut self) -> Read {
        self.deeper()?;
        let first = self.comparison()?;
        let mut rest = Vec::new();
        loop {
            let logic = match self.keyword() {
                Some("AND") => Logic::And,
                Some("OR") => Logic::Or,
                Some("XOR") => Logic::Xor,
                _ => break,
            };
            self.advance()?;
            rest.push((logic, self.comparison()?));
        }
        self.depth -= 1;
        if rest.is_empty() {
            return Ok(first);
        }
        let at = first.at;
        let below = rest.iter().map(|(_, node)| node.height).max();
        let height = below.unwrap_or(0).max(first.height);
        self.node(at, height, Kind::Logic(Box::new(first), rest))
    }

    fn comparison(&mut self) -> Read {
        let mut left = self.sum()?;
        loop {
            let comparison = match self.next.kind {
                Token::Symbol("=") => Comparison::Same,
                Token::Symbol("!=" | "<>") => Comparison::Different,
                Token::Symbol("<") => Comparison::Less,
                Token::Symbol("<=") => Comparison::LessOrSame,
                Token::Symbol(">") => Comparison::Greater,
                Token::Symbol(">=") => Comparison::GreaterOrSame,
                _ => return Ok(left),
            };
            self.advance()?;
            let right = self.sum()?;
            left = self.compare(comparison, left, right)?;
        }
    }

    fn compare(&mut self, comparison: Comparison, left: Node, right: Node) -> Read {
        let (at, height) = (left.at, left.height.max(right.height));
        let negated = match comparison {
            Comparison::Same => Some(false),
            Comparison::Different => Some(true),
            _ => None,
        };
        let kind = match (negated, &left.kind, right.kind) {
            (Some(negated), Kind::Attribute(slot), Kind::Text(text)) => Kind::SameText {
                slot: *slot,
                text,
                negated,
            },
            (_, _, kind) => {
                let right = Node { kind, ..right };
                Kind::Compare(comparison, Box::new([left, right]))
            }
        };
        self.node(at, height, kind)
    }

    fn sum(&mut self) -> Read {
        let mut left = self.product()?;
        loop {
            let arithmetic = match self.next.kind {
                Token::Symbol("+") => Arithmetic::Add,
                Token::Symbol("-") => Arithmetic::Subtract,
                _ => return Ok(left),
            };
            self.advance()?;
            let right = self.product()?;
            left = self.arithmetic(arithmetic, left, right)?;
        }
    }

    fn product(&mut self) -> Read {
        let mut left = self.membership()?;
        loop {
            let arithmetic = match self.next.kind {
                Token::Symbol("*") => Arithmetic::Multiply,
                Token::Symbol("/") => Arithmetic::Divide,
                Token::Symbol("%") => Arithmetic::Remainder,
                _ => return Ok(left),
            };
            self.advance()?;
            let right = self.membership()?;
            left = self.arithmetic(arithmetic, left, right)?;
        }
    }

    fn arithmetic(&mut self, arithmetic: Arithmetic, left: Node, right: Node) -> Read {
        let (at, height) = (left.at, left.height.max(right.height));
        self.node(
            at,
            height,
            Kind::Arithmetic(arithmetic, Box::new([left, right])),
        )
    }

    /// LIKE and IN, behind an operand.
    fn membership(&mut self) -> Read {
        let mut value = self.unary()?;
        loop {
            let negated = self.keyword() == Some("NOT");
            if negated {
                self.advance()?;
            }
            match self.keyword() {
                Some("LIKE") => {
                    self.advance()?;
                    let Token::Text(pattern) = &self.next.kind else {
                        return Err(self.wanted("a string in quotes"));
                    };
                    let pattern = Pattern::new(pattern);
                    self.advance()?;
                    let (at, height) = (value.at, value.height);
                    let value_box = Box::new(value);
                    let kind = Kind::Like {
                        value: value_box,
                        pattern,
                        negated,
                    };
                    value = self.node(at, height, kind)?;
                }
                Some("IN") => {
                    self.advance()?;
                    self.symbol("(", "a list in parentheses")?;
                    let set = self.list()?;
                    let (at, mut height) = (value.at, value.height);
                    height = set.iter().fold(height, |high, node| high.max(node.height));
                    let value_box = Box::new(value);
                    let kind = Kind::In {
                        value: value_box,
                        set,
                        negated,
                    };
                    value = self.node(at, height, kind)?;
                }
                _ if negated => return Err(self.wanted("LIKE or IN")),
                _ => return Ok(value),
            }
        }
    }

    fn unary(&mut self) -> Read {
        let at = self.place();
        if self.keyword() == Some("NOT") {
            self.advance()?;
            self.deeper()?;
            let operand = self.unary()?;
            self.depth -= 1;
            let height = operand.height;
            return self.node(at, height, Kind::Not(Box::new(operand)));
        }
        let sign = match self.next.kind {
            Token::Symbol("-") => "-",
            Token::Symbol("+") => "+",
            _ => return self.primary(),
        };
        let end = self.next.end;
        self.advance()?;
        if let Token::Digits(digits) = self.next.kind
            && self.next.at == end
        {
            let number = format!("{sign}{digits}");
            return self.integer(at, &number);
        }
        if sign == "+" {
            return Err(self.wanted("a number directly behind `+`"));
        }
        self.deeper()?;
        let operand = self.unary()?;
        self.depth -= 1;
        let height = operand.height;
        self.node(at, height, Kind::Negate(Box::new(operand)))
    }

    fn integer(&mut self, at: u32, digits: &str) -> Read {
        let number = digits
            .parse()
            .map_err(|_| FilterError::new(FilterErrorKind::Integer, at as usize))?;
        self.advance()?;
        self.node(at, 0, Kind::Integer(number))
    }

    fn primary(&mut self) -> Read {
        let at = self.place();
        match self.next.kind.clone() {
            Token::Digits(digits) => self.integer(at, digits),
            Token::Text(text) => {
                self.advance()?;
                self.node(at, 0, Kind::Text(text.into()))
            }
            Token::Symbol("(") => {
                self.advance()?;
                let inner = self.logic()?;
                self.symbol(")", "`)`")?;
                Ok(inner)
            }
            Token::Word(word) => match self.keyword() {
                Some(value @ ("TRUE" | "FALSE")) => {
                    self.advance()?;
                    self.node(at, 0, Kind::Boolean(value == "TRUE"))
                }
                Some("EXISTS") => {
                    self.advance()?;
                    let slot = match self.next.kind {
                        Token::Word(name) | Token::Digits(name) if self.keyword().is_none() => {
                            self.name(name)?
                        }
                        _ => return Err(self.wanted("the name of an attribute")),
                    };
                    self.node(at, 0, Kind::Exists(slot))
                }
                Some(_) => Err(self.wanted("a value")),
                None => {
                    let after = token(self.text, self.next.end)?;
                    if after.kind == Token::Symbol("(") {
                        return self.call(word);
                    }
                    let slot = self.name(word)?;
                    self.node(at, 0, Kind::Attribute(slot))
                }
            },
            Token::End | Token::Symbol(_) => Err(self.wanted("a value")),
        }
    }

    /// The slot of the name that stands here. Names are lower case, and found whatever case they are written in, as the conformance cases have it.
    fn name(&mut self, name: &str) -> Result<u8, FilterError> {
        let at = self.next.at;
        let name = name.to_ascii_lowercase();
        match check_attribute(&name) {
            Ok(()) => {}
            Err(kind @ FilterErrorKind::Data) => self.doubt(FilterError::new(kind, at)),
            Err(kind) => return Err(FilterError::new(kind, at)),
        }
        self.advance()?;
        self.names.slot(&name, at)
    }

    fn call(&mut self, name: &str) -> Read {
        let at = self.place();
        if !name.bytes().all(|c| c.is_ascii_alphabetic() || c == b'_') || name.starts_with('_') {
            return Err(self.wanted("the name of a function, of letters and `_`,"));
        }
        self.advance()?;
        self.symbol("(", "`(`")?;
        let arguments = if self.next.kind == Token::Symbol(")") {
            self.advance()?;
            Vec::new()
        } else {
            self.list()?
        };
        let height = arguments.iter().map(|node| node.height).max().unwrap_or(0);
        match Function::find(name, arguments.len()) {
            Some(function) => self.node(at, height, Kind::Call(function, arguments)),
            None => {
                let kind = FilterErrorKind::Function {
                    name: name.to_ascii_uppercase(),
                    arguments: arguments.len(),
                };
                self.doubt(FilterError::new(kind, at as usize));
                self.node(at, height, Kind::CallUnknown)
            }
        }
    }

    /// Expressions with commas between them, and the closing parenthesis.
    fn list(&mut self) -> Result<Vec<Node>, FilterError> {
        let mut out = vec![self.logic()?];
        loop {
            match self.next.kind {
                Token::Symbol(",") => self.advance()?,
                Token::Symbol(")") => {
                    self.advance()?;
                    return Ok(out);
                }
                _ => return Err(self.wanted("`,` or `)`")),
            }
            out.push(self.logic()?);
        }
    }

    fn symbol(&mut self, symbol: &'static str, wanted: &'static str) -> Result<(), FilterError> {
        if self.next.kind != Token::Symbol(symbol) {
            return Err(self.wanted(wanted));
        }
        self.advance()
    }

    fn keyword(&self) -> Option<&'static str> {
        let Token::Word(word) = self.next.kind else {
            return None;
        };
        let keywords = [
            "AND", "OR", "XOR", "NOT", "LIKE", "IN", "EXISTS", "TRUE", "FALSE",
        ];
        keywords
            .into_iter()
            .find(|keyword| keyword.eq_ignore_ascii_case(word))
    }

    /// Where the next token begins. A text has at most 4096 bytes.
    fn place(&self) -> u32 {
        u32::try_from(self.next.at).unwrap_or(u32::MAX)
    }

    fn advance(&mut self) -> Result<(), FilterError> {
        self.next = token(self.text, self.next.end)?;
        Ok(())
    }

    fn node(&mut self, at: u32, below: u8, kind: Kind) -> Read {
        *self.nodes += 1;
        if *self.nodes > NODES_MAX {
            return Err(FilterError::new(FilterErrorKind::Nodes, at as usize));
        }
        let height = below.saturating_add(1);
        if usize::from(height) > DEPTH_MAX {
            return Err(FilterError::new(FilterErrorKind::Depth, at as usize));
        }
        Ok(Node { at, height, kind })
    }

    fn deeper(&mut self) -> Result<(), FilterError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(FilterError::new(FilterErrorKind::Depth, self.next.at));
        }
        Ok(())
    }

    fn doubt(&mut self, error: FilterError) {
        self.doubt.get_or_insert(error);
    }

    fn wanted(&self, wanted: &'static str) -> FilterError {
        FilterError::new(FilterErrorKind::Syntax { wanted }, self.next.at)
    }
}
