//! Divides a policy file into statements and measures how deep they nest, before the recursive parser sees them.
//!
//! The rules for strings, comments and white space are those of Cedar's lexer. Where a text is no Cedar at all the two may
//! divide it differently; then a statement does not parse, which is the safe side.

/// One policy's part of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Statement {
    /// Byte offset of its first token.
    pub(crate) start: usize,
    /// Byte offset behind its last token.
    pub(crate) end: usize,
    /// The most brackets open at once: the parser recurses on each.
    pub(crate) nesting: usize,
    /// How many of `&& || + - * . [ if` it has: a chain of them nests as deep as it is long, without any bracket.
    pub(crate) operators: usize,
}

/// The statements of `text` in order; comments and white space outside them are left out.
pub(crate) fn statements(text: &str) -> Vec<Statement> {
    let mut found = Vec::new();
    let mut scan = Scan::default();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let start = text.len() - rest.len();
        let length = token_length(rest, character);
        let (token, after) = rest.split_at(length);
        rest = after;
        if character.is_whitespace() || token.starts_with("//") {
            continue;
        }
        scan.take(token, start);
        if token == ";" {
            found.extend(scan.finish());
        }
    }
    found.extend(scan.finish());
    found
}

/// Bytes of the token (or comment, or single white-space character) that `rest` begins with.
fn token_length(rest: &str, first: char) -> usize {
    if rest.starts_with("//") {
        return rest.find(['\n', '\r']).unwrap_or(rest.len());
    }
    if first == '"' {
        let mut escaped = false;
        for (offset, character) in rest.char_indices().skip(1) {
            match character {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => return offset + 1,
                _ => {}
            }
        }
        return rest.len();
    }
    if first.is_ascii_alphabetic() || first == '_' {
        return rest
            .find(|character: char| !character.is_ascii_alphanumeric() && character != '_')
            .unwrap_or(rest.len());
    }
    if rest.starts_with("&&") || rest.starts_with("||") {
        return 2;
    }
    first.len_utf8()
}

#[derive(Default)]
struct Scan {
    start: Option<usize>,
    end: usize,
    open: usize,
    nesting: usize,
    operators: usize,
}

impl Scan {
    fn take(&mut self, token: &str, start: usize) {
        self.start.get_or_insert(start);
        self.end = start + token.len();
        match token {
            "(" | "[" | "{" => {
                self.open += 1;
                self.nesting = self.nesting.max(self.open);
            }
            ")" | "]" | "}" => self.open = self.open.saturating_sub(1),
            _ => {}
        }
        if matches!(token, "&&" | "||" | "+" | "-" | "*" | "." | "[" | "if") {
            self.operators += 1;
        }
    }

    fn finish(&mut self) -> Option<Statement> {
        let scan = std::mem::take(self);
        scan.start.map(|start| Statement {
            start,
            end: scan.end,
            nesting: scan.nesting,
            operators: scan.operators,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::statements;

    fn check(text: &str, expected: &[(&str, usize, usize)]) {
        let found: Vec<(&str, usize, usize)> = statements(text)
            .iter()
            .map(|one| (&text[one.start..one.end], one.nesting, one.operators))
            .collect();
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn statements_end_at_semicolons_outside_strings_and_comments() {
        check("", &[]);
        check(" // only; a comment\n\n", &[]);
        check("a;b;", &[("a;", 0, 0), ("b;", 0, 0)]);
        check("a // ; \n (b); c", &[("a // ; \n (b);", 1, 0), ("c", 0, 0)]);
        check(r#"@x(";\";") a;"#, &[(r#"@x(";\";") a;"#, 1, 0)]);
        check("\"unterminated; ", &[("\"unterminated; ", 0, 0)]);
        check("// ended by a carriage return\rb;", &[("b;", 0, 0)]);
        check("é;\u{3000}ü;", &[("é;", 0, 0), ("ü;", 0, 0)]);
    }

    #[test]
    fn brackets_and_operators_are_counted_outside_strings_and_comments() {
        check("(({}())());", &[("(({}())());", 3, 0)]);
        check(")))(;", &[(")))(;", 1, 0)]);
        check("\"((((\";", &[("\"((((\";", 0, 0)]);
        check("if ifs elif if;", &[("if ifs elif if;", 0, 2)]);
        check("a&&b||c.d[e]*f;", &[("a&&b||c.d[e]*f;", 1, 5)]);
        check("a//&&\n;", &[("a//&&\n;", 0, 0)]);
    }
}
