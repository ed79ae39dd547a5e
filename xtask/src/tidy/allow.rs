//! The list of lines for which a rule is wrong.
//!
//! ```text
//! # rule | file | part of the line | reason
//! sleeps | crates/node/tests/kill.rs | sleep(pause) | the pause is what is tested
//! ```

use super::source::Source;
use super::{Finding, Project};

/// Where the list is.
pub(super) const FILE: &str = "xtask/tidy-allow.txt";
const RULE: &str = "allow-list";

struct Entry<'a> {
    rule: &'a str,
    path: &'a str,
    part: &'a str,
}

/// Removes the findings that are allowed, and adds one for each entry that is malformed or allows nothing any more.
pub(super) fn apply(project: &Project, mut findings: Vec<Finding>) -> Vec<Finding> {
    let Some(list) = project.files.iter().find(|file| file.path == FILE) else {
        return findings;
    };
    let mut faults = Vec::new();
    for (line, number) in list.text.lines().zip(1..) {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let Some(entry) = parse(line) else {
            faults.push(fault(
                number,
                "not `rule | file | part of the line | reason`",
            ));
            continue;
        };
        let count_before = findings.len();
        findings.retain(|finding| !entry.allows(project, finding));
        if findings.len() == count_before {
            faults.push(fault(
                number,
                "this entry allows nothing any more: remove it",
            ));
        }
    }
    findings.append(&mut faults);
    findings
}

impl Entry<'_> {
    fn allows(&self, project: &Project, finding: &Finding) -> bool {
        finding.rule == self.rule
            && finding.path == self.path
            && project
                .files
                .iter()
                .find(|file| file.path == self.path)
                .and_then(|file| line_of(file, finding.line))
                .is_some_and(|line| line.contains(self.part))
    }
}

fn line_of(file: &Source, number: usize) -> Option<&str> {
    file.text.lines().nth(number.checked_sub(1)?)
}

fn parse(line: &str) -> Option<Entry<'_>> {
    let fields: Vec<&str> = line.split(" | ").map(str::trim).collect();
    let [rule, path, part, reason] = fields.as_slice() else {
        return None;
    };
    let is_complete = ![rule, path, part, reason]
        .iter()
        .any(|field| field.is_empty());
    is_complete.then_some(Entry { rule, path, part })
}

fn fault(line: usize, what: &str) -> Finding {
    Finding {
        path: FILE.to_owned(),
        line,
        rule: RULE,
        what: what.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(list: &str, expected: &[&str]) {
        let project = Project::of(&[("a.rs", "first\nsecond line\n"), (FILE, list)]);
        let finding = Finding {
            path: "a.rs".to_owned(),
            line: 2,
            rule: "calls",
            what: "bad".to_owned(),
        };
        let left = apply(&project, vec![finding]);
        let left: Vec<String> = left
            .iter()
            .map(|f| format!("{}:{}", f.path, f.line))
            .collect();
        assert_eq!(left, expected);
    }

    #[test]
    fn an_entry_removes_the_finding_it_names() {
        check(
            "# words\n\ncalls | a.rs | second | it is a test of the clock itself\n",
            &[],
        );
    }

    #[test]
    fn an_entry_holds_for_its_rule_file_and_line_only() {
        for entry in [
            "sleeps | a.rs | second | why",
            "calls | b.rs | second | why",
            "calls | a.rs | first | why",
        ] {
            check(entry, &["a.rs:2", "xtask/tidy-allow.txt:1"]);
        }
    }

    #[test]
    fn an_entry_without_reason_allows_nothing() {
        check(
            "calls | a.rs | second | \n",
            &["a.rs:2", "xtask/tidy-allow.txt:1"],
        );
        check(
            "calls | a.rs | second\n",
            &["a.rs:2", "xtask/tidy-allow.txt:1"],
        );
    }
}
