//! Decision records have their form, and the index is what they say.

use std::path::Path;

use super::{Finding, Project};
use crate::{Failure, decisions, generated};

const RULE: &str = "decisions";

pub(super) fn findings(project: &Project) -> Vec<Finding> {
    let records: Vec<decisions::Record> = project
        .files
        .iter()
        .filter_map(|file| {
            let name = file
                .path
                .strip_prefix(decisions::FOLDER)?
                .strip_prefix('/')?;
            decisions::is_record(name).then(|| decisions::Record {
                file: name.to_owned(),
                text: file.text.clone(),
            })
        })
        .collect();
    decisions::faults(&records)
        .into_iter()
        .map(|(path, line, what)| Finding {
            path,
            line,
            rule: RULE,
            what,
        })
        .collect()
}

/// Apart from the rules, since making the index reads the folder itself.
pub(super) fn index_finding(root: &Path) -> Result<Option<Finding>, Failure> {
    let is_fresh = generated::decision_index_is_fresh(root)?;
    Ok((!is_fresh).then(|| Finding {
        path: decisions::INDEX.to_owned(),
        line: 1,
        rule: RULE,
        what: String::from("the index is stale; run `cargo xtask generate --write`"),
    }))
}

#[cfg(test)]
mod tests {
    use super::super::check_rule;
    use super::*;

    #[test]
    fn a_record_with_a_wrong_status_is_found_at_its_line() {
        let text = "# 0001. A\n\nStatus: maybe\nDate: 2026-11-21\n\n## Context\n## Choice\n## Refused alternatives\n## Consequences\n";
        check_rule(
            findings,
            &[("docs/decisions/0001-a.md", text)],
            &["docs/decisions/0001-a.md:3"],
        );
    }

    #[test]
    fn index_and_template_are_no_records() {
        check_rule(
            findings,
            &[
                ("docs/decisions/README.md", ""),
                ("docs/decisions/0000-template.md", ""),
            ],
            &[],
        );
    }
}
