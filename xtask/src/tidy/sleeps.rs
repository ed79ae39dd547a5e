//! Tests do not sleep: a sleep is too short on a slow machine and too long on every other.

use super::source::has_word;
use super::{Finding, Project};

const RULE: &str = "sleeps";

const CALLS: [&str; 2] = ["sleep(", "sleep_until("];

pub(super) fn findings(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in project.rust() {
        for (line, number) in file.code.lines().zip(1..) {
            if file.is_test(number) && sleeps(line) {
                findings.push(Finding {
                    path: file.path.clone(),
                    line: number,
                    rule: RULE,
                    what: String::from("a test sleeps; wait for the event itself, under a time limit, or move a virtual clock"),
                });
            }
        }
    }
    findings
}

/// Giving a virtual clock its `sleep` is no sleeping.
fn sleeps(line: &str) -> bool {
    CALLS
        .iter()
        .any(|call| has_word(line, call) && !has_word(line, &format!("fn {call}")))
}

#[cfg(test)]
mod tests {
    use super::super::check_rule;
    use super::*;

    #[test]
    fn sleeping_tests_are_found() {
        for line in [
            "std::thread::sleep(d);\n",
            "tokio::time::sleep(d).await;\n",
            "sleep_until(t).await;\n",
        ] {
            check_rule(
                findings,
                &[("crates/a/tests/b.rs", line)],
                &["crates/a/tests/b.rs:1"],
            );
            check_rule(findings, &[("crates/a/src/b.rs", line)], &[]);
        }
    }

    #[test]
    fn defining_a_virtual_sleep_is_right() {
        check_rule(
            findings,
            &[("tests/sim/clock.rs", "fn sleep(&self, d: Duration) {}\n")],
            &[],
        );
        check_rule(
            findings,
            &[("tests/sim/clock.rs", "self.asleep(d);\n")],
            &[],
        );
    }
}
