//! A file as the rules see it: Rust code with comments and strings told apart, and tests told from the rest.
//!
//! ```text
//! text      let a = "x // y"; // Instant::now
//! code      let a = "      ";
//! comments                    // Instant::now
//! ```
//! All three have the same lines, and the same length in bytes.

/// One text file.
pub(crate) struct Source {
    /// From the project's top folder, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// Rust: the text with comments and the insides of strings and characters blanked. Other files: empty.
    pub(crate) code: String,
    /// Rust: the comments with all else blanked. Other files: empty.
    pub(crate) comments: String,
    /// For each line from 0, whether it is test code.
    test_lines: Vec<bool>,
}

impl Source {
    pub(crate) fn new(path: &str, text: String) -> Self {
        let (code, comments) = if path.ends_with(".rs") {
            split(&text)
        } else {
            (String::new(), String::new())
        };
        let test_lines = if is_test_path(path) {
            vec![true; text.lines().count()]
        } else {
            test_regions(&code)
        };
        Self {
            path: path.to_owned(),
            text,
            code,
            comments,
            test_lines,
        }
    }

    /// Whether a line, counted from 1, is test code: in a test folder, a test module, or a module declared under `#[cfg(test)]`.
    pub(crate) fn is_test(&self, line: usize) -> bool {
        line.checked_sub(1)
            .and_then(|index| self.test_lines.get(index))
            .copied()
            .unwrap_or(false)
    }

    /// The crate's folder name under `crates/`; `None` for other files.
    pub(crate) fn crate_name(&self) -> Option<&str> {
        self.path.strip_prefix("crates/")?.split('/').next()
    }

    /// The file name.
    pub(crate) fn file_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

/// Lines of `text` (code, comments or all) that hold `word` as a whole word, counted from 1.
///
/// A word ends where an identifier would; `word` itself may hold punctuation.
pub(crate) fn lines_with<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.lines()
        .zip(1..)
        .filter(move |(line, _)| has_word(line, word))
        .map(|(_, number)| number)
}

pub(crate) fn has_word(line: &str, word: &str) -> bool {
    let begins_as_word = word.starts_with(is_identifier);
    let ends_as_word = word.ends_with(is_identifier);
    line.match_indices(word).any(|(place, _)| {
        let before = line[..place].chars().next_back();
        let after = line[place + word.len()..].chars().next();
        let continues_before = begins_as_word && before.is_some_and(is_identifier);
        let continues_after = ends_as_word && after.is_some_and(is_identifier);
        !continues_before && !continues_after
    })
}

/// Marks files that another file declares as a module under `#[cfg(test)]`.
pub(crate) fn mark_test_modules(files: &mut [Source]) {
    let declared: Vec<String> = files.iter().flat_map(test_module_paths).collect();
    for file in files {
        let is_declared = declared.iter().any(|module| {
            file.path == format!("{module}.rs") || file.path.starts_with(&format!("{module}/"))
        });
        if is_declared {
            file.test_lines.fill(true);
        }
    }
}

/// Paths, without `.rs`, of modules declared as `#[cfg(test)] mod name;`.
fn test_module_paths(file: &Source) -> Vec<String> {
    let Some(stem) = file.path.strip_suffix(".rs") else {
        return Vec::new();
    };
    let folder = match file.file_name() {
        "lib.rs" | "main.rs" | "mod.rs" => stem.rsplit_once('/').map_or("", |(folder, _)| folder),
        _ => stem,
    };
    file.code
        .lines()
        .zip(1..)
        .filter(|(_, number)| file.is_test(*number))
        .filter_map(|(line, _)| {
            let declaration = line.trim().strip_suffix(';')?;
            let name = declaration.rsplit_once("mod ")?.1;
            Some(format!("{folder}/{name}"))
        })
        .collect()
}

fn is_test_path(path: &str) -> bool {
    let mut parts: Vec<&str> = path.split('/').collect();
    let file = parts.pop().unwrap_or_default();
    let in_test_folder = parts
        .iter()
        .any(|part| matches!(*part, "tests" | "benches" | "examples" | "fuzz"));
    in_test_folder
        || file == "tests.rs"
        || file.ends_with("_tests.rs")
        || file.ends_with("_test.rs")
}

fn is_identifier(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Lines of items that stand under `#[cfg(test)]` (or `all(test`, `any(test`) or `#[test]`, from the attribute to the item's end.
fn test_regions(code: &str) -> Vec<bool> {
    let mut marks = vec![false; code.lines().count()];
    for attribute in [
        "#[cfg(test)]",
        "#[cfg(all(test",
        "#[cfg(any(test",
        "#[test]",
    ] {
        for (place, _) in code.match_indices(attribute) {
            let end = item_end(code, place + attribute.len());
            let first = code[..place].matches('\n').count();
            let last = code[..end].matches('\n').count();
            for mark in marks.iter_mut().take(last + 1).skip(first) {
                *mark = true;
            }
        }
    }
    marks
}

/// Where the item after an attribute ends: at its closing brace, or at a semicolon before any brace.
fn item_end(code: &str, start: usize) -> usize {
    let mut braces = 0_usize;
    let mut others = 0_usize;
    for (place, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b'{' => braces += 1,
            b'}' => {
                braces = braces.saturating_sub(1);
                if braces == 0 {
                    return place;
                }
            }
            // A semicolon in brackets belongs to an array type of the item's head.
            b'(' | b'[' => others += 1,
            b')' | b']' => others = others.saturating_sub(1),
            b';' if braces == 0 && others == 0 => return place,
            _ => {}
        }
    }
    code.len()
}

/// Splits Rust text into code and comments; see the picture on top.
fn split(text: &str) -> (String, String) {
    let bytes = text.as_bytes();
    let blank = |byte: u8| if byte == b'\n' { b'\n' } else { b' ' };
    let mut code: Vec<u8> = bytes.iter().copied().map(blank).collect();
    let mut comments = code.clone();
    let mut place = 0;
    while place < bytes.len() {
        let rest = &bytes[place..];
        let (kind, length) = token(rest, place.checked_sub(1).map(|before| bytes[before]));
        let range = place..place + length;
        match kind {
            Kind::Code => code[range.clone()].copy_from_slice(&bytes[range]),
            Kind::Comment => comments[range.clone()].copy_from_slice(&bytes[range]),
            Kind::Literal => {
                // The quotes stay, so that `f("x")` is still seen as a call with an argument.
                code[place] = bytes[place];
                code[place + length - 1] = bytes[place + length - 1];
            }
        }
        place += length;
    }
    (into_text(code), into_text(comments))
}

/// Whole tokens are copied or blanked, so that what remains is UTF-8; should it not be, a replacement is better than a panic.
fn into_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Code,
    Comment,
    Literal,
}

/// Kind and length (at least 1) of what `rest` begins with.
fn token(rest: &[u8], before: Option<u8>) -> (Kind, usize) {
    let in_identifier = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match rest {
        [b'/', b'/', ..] => (Kind::Comment, length_until(rest, b'\n')),
        [b'/', b'*', ..] => (Kind::Comment, block_comment_length(rest)),
        [b'"', ..] => (Kind::Literal, string_length(rest)),
        [b'r', b'"' | b'#', ..]
            if !in_identifier || before == Some(b'b') || before == Some(b'c') =>
        {
            raw_string_length(rest).map_or((Kind::Code, 1), |length| (Kind::Literal, length))
        }
        [b'\'', ..] => {
            character_length(rest).map_or((Kind::Code, 1), |length| (Kind::Literal, length))
        }
        _ => (Kind::Code, 1),
    }
}

fn length_until(rest: &[u8], end: u8) -> usize {
    rest.iter()
        .position(|byte| *byte == end)
        .unwrap_or(rest.len())
}

/// Block comments nest in Rust.
fn block_comment_length(rest: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut place = 0;
    while place < rest.len() {
        match &rest[place..] {
            [b'/', b'*', ..] => {
                depth += 1;
                place += 2;
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                place += 2;
                if depth == 0 {
                    return place;
                }
            }
            _ => place += 1,
        }
    }
    rest.len()
}

fn string_length(rest: &[u8]) -> usize {
    let mut place = 1;
    while place < rest.len() {
        match rest[place] {
            b'\\' => place += 2,
            b'"' => return place + 1,
            _ => place += 1,
        }
    }
    rest.len()
}

/// `r"..."`, `r#"..."#` and so on; `None` for a raw identifier such as `r#type`.
fn raw_string_length(rest: &[u8]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return None;
    }
    let end: Vec<u8> = std::iter::once(b'"')
        .chain(std::iter::repeat_n(b'#', hashes))
        .collect();
    let body = 2 + hashes;
    let length = rest[body..]
        .windows(end.len())
        .position(|window| window == end)
        .map_or(rest.len(), |place| body + place + end.len());
    Some(length)
}

/// `'a'`, `'\n'`, `'"'`; `None` for a lifetime such as `'a`.
fn character_length(rest: &[u8]) -> Option<usize> {
    if rest.get(1) == Some(&b'\\') {
        // The longest is '\u{10ffff}'; the escaped character itself may be a quote.
        return rest
            .iter()
            .take(12)
            .skip(3)
            .position(|byte| *byte == b'\'')
            .map(|place| place + 4);
    }
    // One character of up to four bytes.
    let place = rest
        .iter()
        .take(6)
        .skip(2)
        .position(|byte| *byte == b'\'')?
        + 2;
    let inside = std::str::from_utf8(&rest[1..place]).ok()?;
    (inside.chars().count() == 1).then_some(place + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, code: &str, comments: &str) {
        let source = Source::new("a.rs", text.to_owned());
        assert_eq!(source.code.trim_end(), code);
        assert_eq!(source.comments.trim(), comments);
        assert_eq!(source.code.len(), text.len());
        assert_eq!(source.comments.len(), text.len());
    }

    #[test]
    fn comments_and_strings_are_told_from_code() {
        check("let a = 1; // now()", "let a = 1;", "// now()");
        check("a(\"x // y\");", "a(\"      \");", "");
        check("a(\"\\\"//\");b", "a(\"    \");b", "");
        check("a(r#\"\"x\"#);b", "a(r     #);b", "");
        check("a(br\"\\\");b", "a(br  \");b", "");
        check(
            "a /* x /* y */ z */ b",
            "a                   b",
            "/* x /* y */ z */",
        );
        check("m('\"');n(\"//\")", "m(' ');n(\"  \")", "");
        check("m('\\'');n", "m('  ');n", "");
        check("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}", "");
        check("let r#type = 'ä';", "let r#type = '  ';", "");
    }

    #[track_caller]
    fn check_tests(path: &str, text: &str, expected: &[usize]) {
        let source = Source::new(path, text.to_owned());
        let lines: Vec<usize> = (1..=text.lines().count())
            .filter(|line| source.is_test(*line))
            .collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn test_items_are_known_from_attribute_to_closing_brace() {
        check_tests(
            "crates/a/src/lib.rs",
            "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() { \"}\"; }\n}\nfn c() {}\n",
            &[2, 3, 4, 5],
        );
        check_tests(
            "crates/a/src/lib.rs",
            "#[cfg(test)]\nuse a::b;\nfn c() {}\n",
            &[1, 2],
        );
        check_tests(
            "crates/a/src/lib.rs",
            "#[cfg(all(test, unix))]\nfn a(x: [u8; 2]) {\n}\nfn c() {}\n",
            &[1, 2, 3],
        );
    }

    #[test]
    fn test_folders_and_files_are_tests_throughout() {
        for path in [
            "crates/a/tests/x.rs",
            "tests/sim/y.rs",
            "crates/a/src/tests.rs",
            "crates/a/benches/z.rs",
        ] {
            check_tests(path, "fn a() {}\n", &[1]);
        }
    }

    #[test]
    fn a_module_declared_for_tests_is_a_test() {
        let mut files = vec![
            Source::new(
                "crates/a/src/lib.rs",
                String::from("#[cfg(test)]\nmod model;\nmod real;\n"),
            ),
            Source::new("crates/a/src/model.rs", String::from("fn a() {}\n")),
            Source::new("crates/a/src/model/deep.rs", String::from("fn a() {}\n")),
            Source::new("crates/a/src/real.rs", String::from("fn a() {}\n")),
        ];
        mark_test_modules(&mut files);
        let marks: Vec<bool> = files.iter().skip(1).map(|file| file.is_test(1)).collect();
        assert_eq!(marks, [true, true, false]);
    }

    #[test]
    fn a_word_is_not_found_inside_another() {
        assert!(has_word("x = Instant::now();", "Instant::now"));
        assert!(!has_word("MyInstant::now()", "Instant::now"));
        assert!(!has_word("Instant::nowhere()", "Instant::now"));
        assert!(has_word("file.sync_all()", "sync_all("));
    }

    #[test]
    fn unfinished_text_does_not_panic() {
        for text in [
            "\"",
            "'",
            "'\\",
            "r#\"",
            "/*",
            "r",
            "b'",
            "\"\\",
            "#[cfg(test)]",
            "'ä",
        ] {
            let _ = Source::new("a.rs", text.to_owned());
        }
    }
}
