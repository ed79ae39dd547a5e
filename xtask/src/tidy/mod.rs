//! House rules that a search of the project's text can decide. One file per rule, each with its own test.
//!
//! A rule gets all files and gives findings with file and line. It knows code from comments and strings ([`source::Source`]), so
//! that naming a banned call in a sentence is no finding. Where a rule is wrong for one line, that line goes into `xtask/tidy-allow.txt` with
//! the reason; an entry there that no longer matches anything is a finding itself.

mod allow;
mod calls;
mod decisions;
mod dependencies;
mod final_newline;
mod links;
mod machine_paths;
mod markers;
mod module_names;
mod sleeps;
mod source;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::Failure;
use crate::process::{command, output};
use source::Source;

/// One place where a rule is broken.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Finding {
    path: String,
    /// From 1.
    line: usize,
    rule: &'static str,
    /// What is wrong and what to write instead.
    what: String,
}

/// What the rules look at.
struct Project {
    /// UTF-8 text files; others are in `paths` only.
    files: Vec<Source>,
    /// Every file of the project, and every folder that holds one.
    paths: BTreeSet<String>,
}

type Rule = fn(&Project) -> Vec<Finding>;

const RULES: [Rule; 9] = [
    calls::findings,
    decisions::findings,
    dependencies::findings,
    final_newline::findings,
    links::findings,
    machine_paths::findings,
    markers::findings,
    module_names::findings,
    sleeps::findings,
];

/// Runs every rule, and says all findings at once.
pub(crate) fn run(root: &Path) -> Result<String, Failure> {
    let project = Project::read(root)?;
    let mut findings: Vec<Finding> = RULES.iter().flat_map(|rule| rule(&project)).collect();
    findings.extend(decisions::index_finding(root)?);
    let mut findings = allow::apply(&project, findings);
    findings.sort();
    findings.dedup();
    if findings.is_empty() {
        return Ok(String::new());
    }
    let lines: Vec<String> = findings
        .iter()
        .map(|finding| {
            format!(
                "{}:{}: {} [{}]",
                finding.path, finding.line, finding.what, finding.rule
            )
        })
        .collect();
    Err(Failure::new(
        lines.join("\n"),
        format!(
            "follow the {} line(s) above; where a rule is wrong for one line, add it to {} with the reason",
            lines.len(),
            allow::FILE
        ),
    ))
}

impl Project {
    /// What git tracks, and what it would track: a new file is checked before it is added, not after CI has seen it.
    fn read(root: &Path) -> Result<Self, Failure> {
        let mut listing = command(root, "git");
        listing.args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]);
        let listing = output(listing)?;
        let contents = listing
            .split('\0')
            .filter(|path| !path.is_empty())
            // A file that is listed but gone was deleted and not yet committed.
            .filter_map(|path| Some((path, fs::read(root.join(path)).ok()?)));
        Ok(Self::from_contents(contents))
    }

    fn from_contents<'a>(contents: impl Iterator<Item = (&'a str, Vec<u8>)>) -> Self {
        let mut project = Self {
            files: Vec::new(),
            paths: BTreeSet::new(),
        };
        for (path, bytes) in contents {
            let folders = path.match_indices('/').map(|(place, _)| &path[..place]);
            project.paths.extend(folders.map(str::to_owned));
            project.paths.insert(path.to_owned());
            if bytes.contains(&0) {
                continue;
            }
            if let Ok(text) = String::from_utf8(bytes) {
                project.files.push(Source::new(path, text));
            }
        }
        source::mark_test_modules(&mut project.files);
        project
    }

    fn rust(&self) -> impl Iterator<Item = &Source> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }
}

#[cfg(test)]
impl Project {
    fn of(files: &[(&str, &str)]) -> Self {
        Self::from_contents(
            files
                .iter()
                .map(|(path, text)| (*path, text.as_bytes().to_vec())),
        )
    }
}

/// Runs one rule over made-up files and compares `path:line` of its findings.
#[cfg(test)]
#[track_caller]
fn check_rule(rule: Rule, files: &[(&str, &str)], expected: &[&str]) {
    let mut findings = rule(&Project::of(files));
    findings.sort();
    let places: Vec<String> = findings
        .iter()
        .map(|finding| format!("{}:{}", finding.path, finding.line))
        .collect();
    assert_eq!(places, expected, "{findings:#?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_files_belong_to_the_project() {
        let project = Project::of(&[("docs/a/b.md", "")]);
        for path in ["docs", "docs/a", "docs/a/b.md"] {
            assert!(project.paths.contains(path), "{path}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_not_searched() {
        let contents = [("a.bin", vec![0, 1]), ("b.bin", vec![0xff])];
        let project = Project::from_contents(contents.into_iter());
        assert!(project.files.is_empty());
        assert_eq!(project.paths.len(), 2);
    }
}
