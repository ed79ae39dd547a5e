//! Absolute paths of somebody's machine: they mean nothing on another one.

use super::{Finding, Project};

const RULE: &str = "machine-paths";

/// In two pieces, so that this file is not a finding.
const PLACES: [(&str, &str); 3] = [("/wo", "rk/"), ("/ro", "ot/"), ("/fa", "rm/")];

pub(super) fn findings(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &project.files {
        for (line, number) in file.text.lines().zip(1..) {
            for (first, second) in PLACES {
                let place = format!("{first}{second}");
                if begins_path(line, &place) {
                    findings.push(Finding {
                        path: file.path.clone(),
                        line: number,
                        rule: RULE,
                        what: format!("`{place}` is a path of one machine; name the file from the project's top folder"),
                    });
                }
            }
        }
    }
    findings
}

/// Whether `place` stands where a path begins: not inside a longer path or an address.
fn begins_path(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        !before
            .is_some_and(|character| character.is_alphanumeric() || "._-/})~".contains(character))
    })
}

#[cfg(test)]
mod tests {
    use super::super::check_rule;
    use super::*;

    #[test]
    fn a_machines_path_is_found_in_any_text_file() {
        for (first, second) in PLACES {
            let text = format!("good\nsee \"{first}{second}x\"\n");
            check_rule(findings, &[("docs/a.md", &text)], &["docs/a.md:2"]);
        }
    }

    #[test]
    fn the_end_of_another_path_or_address_is_right() {
        let (first, second) = PLACES[0];
        for before in ["docs", "https://example.org", "..", "${HOME}", "a/"] {
            check_rule(
                findings,
                &[("a.sh", &format!("{before}{first}{second}x\n"))],
                &[],
            );
        }
    }
}
