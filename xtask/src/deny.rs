//! Licences, bans and sources of dependencies, by cargo-deny under `deny.toml`.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::Failure;
use crate::process::{cargo, run_shown};

const INSTALL: &str = "run `cargo install --locked cargo-deny` (about two minutes, once)";

/// The step of the check.
pub(crate) fn run_step(root: &Path) -> Result<String, Failure> {
    require_installed(root)?;
    let mut command = cargo(root);
    command.args([
        "deny",
        "--locked",
        "check",
        "--hide-inclusion-graph",
        "licenses",
        "bans",
        "sources",
    ]);
    run_shown(
        command,
        "choose another dependency, or change `deny.toml` with a reason in docs/decisions/0002-dependencies.md",
    )?;
    Ok(String::new())
}

/// A check that is skipped because its tool is missing would be counted as passed: missing is a failure.
pub(crate) fn require_installed(root: &Path) -> Result<(), Failure> {
    require(version_query(root))
}

fn version_query(root: &Path) -> Command {
    let mut command = cargo(root);
    command.args(["deny", "--version"]);
    command
}

fn require(mut command: Command) -> Result<(), Failure> {
    let answered = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if answered {
        return Ok(());
    }
    Err(Failure::new(
        "cargo-deny is missing: licences, bans and sources can not be checked",
        INSTALL,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_fails_and_says_how_to_install_it() {
        let failure = require(Command::new("no-such-program-anywhere")).unwrap_err();
        assert!(failure.what.contains("cargo-deny is missing"));
        assert!(failure.remedy.contains("cargo install --locked cargo-deny"));
    }

    #[test]
    fn a_tool_that_answers_is_taken() {
        assert!(require(Command::new("true")).is_ok());
    }
}
