//! Links in documents point to files of the project that exist, tracked or about to be.

use super::source::Source;
use super::{Finding, Project};

const RULE: &str = "links";

pub(super) fn findings(project: &Project) -> Vec<Finding> {
    project
        .files
        .iter()
        .filter(|file| file.path.ends_with(".md"))
        .flat_map(|file| file_findings(project, file))
        .collect()
}

fn file_findings(project: &Project, file: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut in_code_block = false;
    for (line, number) in file.text.lines().zip(1..) {
        if line.trim_start().starts_with("```") {
            in_code_block = !in_code_block;
            continue;
        }
        if in_code_block {
            continue;
        }
        for target in targets(&without_inline_code(line)) {
            let Some(path) = resolved(&file.path, &target) else {
                continue;
            };
            if !project.paths.contains(&path) {
                findings.push(Finding {
                    path: file.path.clone(),
                    line: number,
                    rule: RULE,
                    what: format!(
                        "the link to `{target}` points to `{path}`, which is not in the project"
                    ),
                });
            }
        }
    }
    findings
}

/// `[text](target)`, `[text](target "title")`, `[name]: target`.
fn targets(line: &str) -> Vec<String> {
    let mut targets = Vec::new();
    let mut rest = line;
    while let Some((_, after)) = rest.split_once("](") {
        let (inside, next) = after.split_once(')').unwrap_or((after, ""));
        targets.extend(inside.split_whitespace().next().map(str::to_owned));
        rest = next;
    }
    let is_definition = line.starts_with('[') && !line.starts_with("[^");
    if let Some((_, target)) = line.split_once("]: ").filter(|_| is_definition) {
        targets.extend(target.split_whitespace().next().map(str::to_owned));
    }
    targets
}

/// The project's path for a target, or `None` where it leads elsewhere: another site, or a heading of the same page.
fn resolved(from: &str, target: &str) -> Option<String> {
    let target = target.trim_matches(['<', '>']);
    let target = target.split('#').next().unwrap_or_default();
    let has_scheme = target
        .split_once(':')
        .is_some_and(|(scheme, _)| scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    if target.is_empty() || has_scheme {
        return None;
    }
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    if target.starts_with('/') {
        parts.clear();
    }
    for part in target.split('/') {
        match part {
            "" | "." => {}
            // Above the top there is nothing of ours; the dots stay and the path is not found.
            ".." if parts.last().is_none_or(|last| *last == "..") => parts.push(part),
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        None
    } else {
        Some(parts.join("/"))
    }
}

fn without_inline_code(line: &str) -> String {
    let mut in_code = false;
    line.chars()
        .map(|character| {
            in_code ^= character == '`';
            if in_code { ' ' } else { character }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::check_rule;
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let files = [("docs/a.md", text), ("docs/b.md", ""), ("LICENSE", "")];
        check_rule(findings, &files, expected);
    }

    #[test]
    fn a_link_to_a_missing_file_is_found() {
        check("one\n[x](gone.md)\n", &["docs/a.md:2"]);
        check("[x](b.md) and [y](gone.md)\n", &["docs/a.md:1"]);
        check("[x]: gone.md\n", &["docs/a.md:1"]);
        check("[x](../../LICENSE)\n", &["docs/a.md:1"]);
    }

    #[test]
    fn links_to_files_and_folders_of_the_project_are_right() {
        for link in [
            "b.md",
            "./b.md",
            "b.md#part",
            "../LICENSE",
            "/LICENSE",
            "../docs",
            "../docs/",
            "../",
            "b.md \"title\"",
        ] {
            check(&format!("[x]({link})\n"), &[]);
        }
    }

    #[test]
    fn links_that_lead_elsewhere_are_not_judged() {
        for link in [
            "https://example.org/x",
            "#part",
            "mailto:a@example.org",
            "countersign:abc",
        ] {
            check(&format!("[x]({link})\n"), &[]);
        }
    }

    #[test]
    fn code_is_not_searched_for_links() {
        check("`[x](gone.md)`\n```\n[x](gone.md)\n```\n", &[]);
    }
}
