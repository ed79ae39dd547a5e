//! The one check: steps in order of cost, each with its time, stopping at the first that fails.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::bench::quick;
use crate::process::{cargo, run_shown};
use crate::{Failure, advisories, deny, generated, graph, interop, tidy};

/// How much is checked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Extent {
    /// What needs no test to be built.
    Fast,
    Full,
}

struct Step {
    name: &'static str,
    fast: bool,
    /// Gives the empty text, or a notice of what did not run, for the summary.
    run: fn(&Path) -> Result<String, Failure>,
}

/// Cheap steps first, so that a mistake is heard of soon; tests near the end, as their closing lines are looked for there.
const STEPS: [Step; 12] = [
    Step {
        name: "format",
        fast: true,
        run: format,
    },
    Step {
        name: "tidy",
        fast: true,
        run: tidy::run,
    },
    Step {
        name: "crate graph",
        fast: true,
        run: graph::check,
    },
    Step {
        name: "generated files",
        fast: false,
        run: generated::check,
    },
    Step {
        name: "licences, bans, sources",
        fast: false,
        run: deny::run_step,
    },
    Step {
        name: "advisories",
        fast: false,
        run: advisories::run_step,
    },
    Step {
        name: "clippy",
        fast: true,
        run: clippy,
    },
    Step {
        name: "docs",
        fast: false,
        run: docs,
    },
    Step {
        name: "work per event",
        fast: false,
        run: quick::run_step,
    },
    Step {
        name: "tests",
        fast: false,
        run: tests,
    },
    // With the program that the tests have built.
    Step {
        name: "second verifier",
        fast: false,
        run: interop::second_verifier,
    },
    Step {
        name: "interoperability",
        fast: false,
        run: interop::run_step,
    },
];

/// Runs all steps that belong to `extent`, up to the first failure, and prints the summary.
pub(crate) fn run(root: &Path, extent: Extent) -> Result<(), Failure> {
    let mut lines = Vec::new();
    let mut steps_not_run = 0;
    let start = Instant::now();
    let mut steps = chosen(extent);
    let failure = loop {
        let Some(step) = steps.next() else {
            break None;
        };
        println!("== {}", step.name);
        let step_start = Instant::now();
        let result = (step.run)(root);
        let line = summary_line(step.name, &result, step_start.elapsed());
        println!("{line}");
        lines.push(line);
        steps_not_run += usize::from(result.as_ref().is_ok_and(|notice| !notice.is_empty()));
        if let Err(failure) = result {
            break Some((step.name, failure));
        }
    };

    println!("\n== summary");
    for line in lines {
        println!("{line}");
    }
    for step in steps {
        println!("{:<26} not reached", step.name);
    }
    let seconds = start.elapsed().as_secs_f64();
    match failure {
        None => {
            println!("{}", closing_line(seconds, steps_not_run));
            Ok(())
        }
        Some((name, failure)) => {
            println!("check FAILED at `{name}` after {seconds:.0} s");
            Err(failure)
        }
    }
}

fn chosen(extent: Extent) -> impl Iterator<Item = &'static Step> {
    STEPS
        .iter()
        .filter(move |step| step.fast || extent == Extent::Full)
}

fn summary_line(name: &str, result: &Result<String, Failure>, took: Duration) -> String {
    let seconds = took.as_secs_f64();
    match result {
        Err(_) => format!("{name:<26} FAILED after {seconds:.1} s"),
        // A notice takes the place of "ok": a step that has something to say may not have checked what its name promises.
        Ok(notice) if notice.is_empty() => format!("{name:<26} ok in {seconds:.1} s"),
        Ok(notice) => format!("{notice} ({seconds:.1} s)"),
    }
}

fn closing_line(seconds: f64, steps_not_run: usize) -> String {
    match steps_not_run {
        0 => format!("check passed in {seconds:.0} s"),
        count => {
            format!("check passed in {seconds:.0} s, without {count} step(s) that did NOT RUN")
        }
    }
}

fn format(root: &Path) -> Result<String, Failure> {
    let mut command = cargo(root);
    command.args(["fmt", "--all", "--check"]);
    run_shown(command, "run `cargo fmt --all`")?;
    Ok(String::new())
}

fn clippy(root: &Path) -> Result<String, Failure> {
    let mut command = cargo(root);
    command.args([
        "clippy",
        "--locked",
        "--workspace",
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ]);
    run_shown(
        command,
        "fix what is shown; where a lint is wrong, `#[expect(lint, reason = \"...\")]`",
    )?;
    Ok(String::new())
}

fn docs(root: &Path) -> Result<String, Failure> {
    let mut command = cargo(root);
    command
        .args(["doc", "--locked", "--workspace", "--no-deps"])
        .env("RUSTDOCFLAGS", "--deny warnings");
    run_shown(command, "fix the documentation comments named above")?;
    Ok(String::new())
}

/// Plain `cargo test`: it runs documentation examples too, and a bare machine has it.
fn tests(root: &Path) -> Result<String, Failure> {
    let mut command = cargo(root);
    // Without --no-fail-fast the first failing package hides what the others have to say, and CI would need a run for each.
    command.args(["test", "--locked", "--workspace", "--no-fail-fast"]);
    run_shown(
        command,
        "find `FAILED` above; run one alone with `cargo test -p PACKAGE NAME -- --nocapture`",
    )?;
    Ok(String::new())
}

#[cfg(test)]
mod step_tests {
    use super::*;

    #[test]
    fn the_fast_form_leaves_out_what_needs_built_tests_or_the_network() {
        let names: Vec<&str> = chosen(Extent::Fast).map(|step| step.name).collect();
        assert_eq!(names, ["format", "tidy", "crate graph", "clippy"]);
    }

    #[test]
    fn the_full_form_has_every_step() {
        assert_eq!(chosen(Extent::Full).count(), STEPS.len());
    }

    #[test]
    fn a_step_that_did_not_run_is_not_called_ok() {
        let line = summary_line(
            "advisories",
            &Ok(String::from("advisories: NOT RUN, no database")),
            Duration::ZERO,
        );
        assert!(line.contains("NOT RUN") && !line.contains("ok"), "{line}");
    }

    #[test]
    fn the_closing_line_does_not_count_as_passed_what_did_not_run() {
        assert_eq!(closing_line(3.0, 0), "check passed in 3 s");
        assert!(closing_line(3.0, 1).contains("1 step(s) that did NOT RUN"));
    }

    #[test]
    fn a_failed_step_says_so_in_the_summary() {
        let failed = Err(Failure::new("", "do something"));
        assert!(summary_line("docs", &failed, Duration::ZERO).contains("FAILED"));
    }
}
