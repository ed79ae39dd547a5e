//! Versions live in the workspace table, each with its line of reason; every package takes the workspace's lints.

use std::collections::BTreeMap;

use super::source::Source;
use super::{Finding, Project};

const RULE: &str = "dependencies";
const REASONS: &str = "docs/decisions/0002-dependencies.md";
const TABLE: &str = "[workspace.dependencies]";

pub(super) fn findings(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in project
        .files
        .iter()
        .filter(|file| file.file_name() == "Cargo.toml")
    {
        if file.path == "Cargo.toml" {
            let reasons = project.files.iter().find(|file| file.path == REASONS);
            findings.extend(reasons_findings(file, reasons));
        } else {
            findings.extend(member_findings(file));
        }
    }
    findings
}

/// Entries of the table without a row in the record, and rows without an entry.
fn reasons_findings(manifest: &Source, reasons: Option<&Source>) -> Vec<Finding> {
    let rows: BTreeMap<&str, usize> = reasons
        .iter()
        .flat_map(|file| file.text.lines().zip(1..))
        .filter_map(|(line, number)| Some((row_name(line)?, number)))
        .collect();
    let entries: BTreeMap<&str, usize> = section_lines(&manifest.text, |section| section == TABLE)
        .filter(|(line, _)| !line.contains("path ="))
        .filter_map(|(line, number)| Some((line.split_once('=')?.0.trim(), number)))
        .collect();
    let missing = entries
        .iter()
        .filter(|(name, _)| !rows.contains_key(*name))
        .map(|(name, line)| {
            let what = format!("`{name}` has no line of reason in {REASONS}");
            finding(&manifest.path, *line, what)
        });
    let stale = rows
        .iter()
        .filter(|(name, _)| !entries.contains_key(*name))
        .map(|(name, line)| {
            let what =
                format!("`{name}` is not in the workspace's table any more: remove this line");
            finding(REASONS, *line, what)
        });
    missing.chain(stale).collect()
}

/// A row of the record begins with the crate's name: "| `bytes` | ... |".
fn row_name(line: &str) -> Option<&str> {
    line.strip_prefix("| `")?
        .split_once('`')
        .map(|(name, _)| name)
}

fn member_findings(manifest: &Source) -> Vec<Finding> {
    let mut findings: Vec<Finding> = section_lines(&manifest.text, is_dependency_section)
        .filter(|(line, _)| line.contains('=') && !is_taken_from_workspace(line))
        .map(|(_, number)| {
            let what = "versions live in the workspace's table: write `name.workspace = true` here";
            finding(&manifest.path, number, what.to_owned())
        })
        .collect();
    let takes_lints = section_lines(&manifest.text, |section| section == "[lints]")
        .any(|(line, _)| line == "workspace = true");
    if !takes_lints {
        let what = "the workspace's lints are not taken: add `[lints]` with `workspace = true`";
        findings.push(finding(&manifest.path, 1, what.to_owned()));
    }
    findings
}

fn is_dependency_section(section: &str) -> bool {
    section
        .trim_matches(['[', ']'])
        .rsplit('.')
        .next()
        .is_some_and(|last| {
            matches!(
                last,
                "build-dependencies" | "dependencies" | "dev-dependencies"
            )
        })
}

/// A line that is part of a list over several lines has no key with a version, and passes as well.
fn is_taken_from_workspace(line: &str) -> bool {
    let line: String = line.split_whitespace().collect();
    line.contains("workspace=true")
}

/// Lines with content in the chosen sections, without comments, counted from 1.
fn section_lines(text: &str, chosen: impl Fn(&str) -> bool) -> impl Iterator<Item = (&str, usize)> {
    let mut is_inside = false;
    text.lines()
        .map(str::trim)
        .zip(1..)
        .filter(move |(line, _)| {
            if line.starts_with('[') {
                is_inside = chosen(line);
                return false;
            }
            is_inside && !line.is_empty() && !line.starts_with('#')
        })
}

fn finding(path: &str, line: usize, what: String) -> Finding {
    Finding {
        path: path.to_owned(),
        line,
        rule: RULE,
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::super::check_rule;
    use super::*;

    const MEMBER: &str = "[package]\nname = \"a\"\n[lints]\nworkspace = true\n";

    #[test]
    fn each_entry_of_the_table_has_a_reason_and_each_reason_an_entry() {
        let manifest =
            "[workspace.dependencies]\nours = { path = \"x\" }\nbytes = \"1\"\nhex = \"0.4\"\n";
        check_rule(
            findings,
            &[
                ("Cargo.toml", manifest),
                (REASONS, "| `bytes` | why |\n| `gone` | why |\n"),
            ],
            &["Cargo.toml:4", "docs/decisions/0002-dependencies.md:2"],
        );
    }

    #[test]
    fn without_the_record_no_entry_has_a_reason() {
        check_rule(
            findings,
            &[("Cargo.toml", "[workspace.dependencies]\nhex = \"0.4\"\n")],
            &["Cargo.toml:2"],
        );
    }

    #[test]
    fn packages_take_versions_from_the_workspace() {
        let good = format!(
            "{MEMBER}[dependencies]\na.workspace = true\nb = {{ workspace = true, optional = true }}\n"
        );
        check_rule(findings, &[("crates/a/Cargo.toml", &good)], &[]);
        for section in [
            "dependencies",
            "dev-dependencies",
            "target.'cfg(unix)'.dependencies",
        ] {
            let bad = format!("{MEMBER}[{section}]\nhex = \"0.4\"\n");
            check_rule(
                findings,
                &[("crates/a/Cargo.toml", &bad)],
                &["crates/a/Cargo.toml:6"],
            );
        }
    }

    #[test]
    fn packages_take_the_workspaces_lints() {
        check_rule(
            findings,
            &[("crates/a/Cargo.toml", "[package]\nname = \"a\"\n")],
            &["crates/a/Cargo.toml:1"],
        );
    }
}
