//! Leftovers of unfinished work.

use super::source::lines_with;
use super::{Finding, Project};

const RULE: &str = "markers";

const MACROS: [&str; 2] = ["todo!", "unimplemented!"];
/// In two pieces, so that this file is not a finding.
const WORDS: [(&str, &str); 3] = [("FIX", "ME"), ("TO", "DO"), ("XX", "X")];

pub(super) fn findings(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &project.files {
        let mut add = |line: usize, what: String| {
            findings.push(Finding {
                path: file.path.clone(),
                line,
                rule: RULE,
                what,
            });
        };
        for name in MACROS {
            for line in lines_with(&file.code, name) {
                add(
                    line,
                    format!(
                        "`{name}` is left over; write the code, or return an error that says what is not supported"
                    ),
                );
            }
        }
        for line in ignored_tests(&file.code) {
            add(
                line,
                String::from(
                    "a test is ignored; mend it, or remove it with the reason in the commit",
                ),
            );
        }
        let prose = if file.path.ends_with(".rs") {
            Some(&file.comments)
        } else {
            has_prose(&file.path).then_some(&file.text)
        };
        for (first, second) in WORDS {
            let word = format!("{first}{second}");
            for line in prose.iter().flat_map(|text| lines_with(text, &word)) {
                add(
                    line,
                    format!(
                        "`{word}` is left over; do it, or write down elsewhere what is missing"
                    ),
                );
            }
        }
    }
    findings
}

/// `#[ignore]`, `#[ignore = "..."]`, and within `cfg_attr`.
fn ignored_tests(code: &str) -> impl Iterator<Item = usize> + '_ {
    code.lines()
        .zip(1..)
        .filter(|(line, _)| {
            let line: String = line.split_whitespace().collect();
            line.contains("#[ignore]")
                || line.contains("#[ignore=")
                || (line.contains("cfg_attr(")
                    && (line.contains(",ignore)") || line.contains(",ignore=")))
        })
        .map(|(_, number)| number)
}

/// Files written by people; elsewhere (vectors, data) the letters may mean anything.
fn has_prose(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let is_data = path
        .split('/')
        .any(|part| matches!(part, "vectors" | "corpus" | "data"));
    !is_data
        && (matches!(name, "run")
            || [".md", ".toml", ".sh", ".cedar", ".sql", ".yml", ".yaml"]
                .iter()
                .any(|end| name.ends_with(end)))
}

#[cfg(test)]
mod tests {
    use super::super::check_rule;
    use super::*;

    #[track_caller]
    fn check(path: &str, line: &str, is_finding: bool) {
        let place = format!("{path}:1");
        let expected: &[&str] = if is_finding { &[&place] } else { &[] };
        check_rule(findings, &[(path, line)], expected);
    }

    #[test]
    fn unfinished_code_is_found() {
        check("a.rs", "fn a() { todo!() }\n", true);
        check("a.rs", "fn a() { unimplemented!(\"b\") }\n", true);
        check("a.rs", "let a = \"todo!\";\n", false);
    }

    #[test]
    fn ignored_tests_are_found() {
        check("a.rs", "#[ignore]\n", true);
        check("a.rs", "#[ignore = \"slow\"]\n", true);
        check("a.rs", "#[cfg_attr(windows, ignore)]\n", true);
        check("a.rs", "// #[ignore] is not for us\n", false);
    }

    #[test]
    fn marker_words_are_found_in_comments_and_documents() {
        for (first, second) in WORDS {
            check("a.rs", &format!("// {first}{second}: later\n"), true);
            check("a.md", &format!("{first}{second}\n"), true);
            check("a.rs", &format!("let a = \"{first}{second}\";\n"), false);
            check("tests/vectors/a.md", &format!("{first}{second}\n"), false);
        }
        let (first, second) = WORDS[2];
        check(
            "a.sh",
            &format!("mktemp a.{first}{second}{first}{second}\n"),
            false,
        );
    }
}
