//! Text → tokens.

use crate::error::{FilterError, FilterErrorKind};

/// One token, and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token<'a> {
    pub(super) at: usize,
    pub(super) end: usize,
    pub(super) kind: Kind<'a>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind<'a> {
    /// Digits alone; a sign before them is a token of its own.
    Digits(&'a str),
    End,
    /// `=`, `!=`, `<>`, `<`, `<=`, `>`, `>=`, `+`, `-`, `*`, `/`, `%`, `(`, `)`, `,`
    Symbol(&'static str),
    /// A string literal, unescaped.
    Text(String),
    /// Letters, digits and underscores: a keyword, a name or a function.
    Word(&'a str),
}

/// Longest first, so that `<=` is not `<`.
const SYMBOLS: [&str; 15] = [
    "!=", "<>", "<=", ">=", "=", "<", ">", "+", "-", "*", "/", "%", "(", ")", ",",
];

/// The token at or behind `at`.
pub(super) fn token(text: &str, at: usize) -> Result<Token<'_>, FilterError> {
    let rest = text.get(at..).unwrap_or_default();
    let at = at + (rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len());
    let rest = &text[at..];
    let Some(first) = rest.chars().next() else {
        return Ok(Token {
            at,
            end: at,
            kind: Kind::End,
        });
    };
    if matches!(first, '\'' | '"') {
        let (literal, len) = string(rest, first).ok_or_else(|| {
            let wanted = "the end of the string that begins here";
            FilterError::new(FilterErrorKind::Syntax { wanted }, at)
        })?;
        return Ok(Token {
            at,
            end: at + len,
            kind: Kind::Text(literal),
        });
    }
    if let Some(symbol) = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol)) {
        return Ok(Token {
            at,
            end: at + symbol.len(),
            kind: Kind::Symbol(symbol),
        });
    }
    let in_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let len = rest.find(|c| !in_word(c)).unwrap_or(rest.len());
    if len == 0 {
        let wanted = "a name, a value or an operator";
        return Err(FilterError::new(FilterErrorKind::Syntax { wanted }, at));
    }
    let word = &rest[..len];
    let kind = if word.bytes().all(|byte| byte.is_ascii_digit()) {
        Kind::Digits(word)
    } else {
        Kind::Word(word)
    };
    Ok(Token {
        at,
        end: at + len,
        kind,
    })
}

/// A string literal at the start of `text`, and its length there. A backslash keeps the character behind it from ending the string, and goes
/// itself only where that is the delimiter; elsewhere it stays, since `LIKE` reads it.
fn string(text: &str, delimiter: char) -> Option<(String, usize)> {
    let mut out = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((at, c)) = characters.next() {
        if c == delimiter {
            return Some((out, at + 1));
        }
        if c != '\\' {
            out.push(c);
            continue;
        }
        let (_, escaped) = characters.next()?;
        if escaped != delimiter {
            out.push('\\');
        }
        out.push(escaped);
    }
    None
}
