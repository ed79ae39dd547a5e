//! Text files end with a newline: tools that join files or compare lines expect it.

use super::{Finding, Project};

const RULE: &str = "final-newline";

/// Their bytes are what is tested.
const EXACT_FOLDERS: [&str; 4] = ["vectors", "corpus", "snapshots", "testdata"];

pub(super) fn findings(project: &Project) -> Vec<Finding> {
    project
        .files
        .iter()
        .filter(|file| {
            !file
                .path
                .split('/')
                .any(|part| EXACT_FOLDERS.contains(&part))
        })
        .filter(|file| !file.text.is_empty() && !file.text.ends_with('\n'))
        .map(|file| Finding {
            path: file.path.clone(),
            line: file.text.lines().count(),
            rule: RULE,
            what: String::from("the last line has no newline; add one"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::check_rule;
    use super::*;

    #[test]
    fn a_last_line_without_newline_is_found() {
        check_rule(
            findings,
            &[("a.md", "one\ntwo"), ("b.md", "one\n"), ("c.md", "")],
            &["a.md:2"],
        );
    }

    #[test]
    fn files_whose_bytes_are_tested_are_left_alone() {
        check_rule(findings, &[("tests/vectors/entry/v1/a.json", "{}")], &[]);
    }
}
