//! What the program writes, read by programs of others: the scripts of `tests/interop`, with the program that the tests have built.
//!
//! A check installs nothing, unless whoever starts it says so (`INSTALL=yes`, as CI does). A script whose tool is missing then says so and ends with
//! [`TOOL_MISSING`]: that is a check that did not run, and never one that passed.

use std::path::Path;
use std::process::Command;

use crate::Failure;
use crate::advisories::build_folder;
use crate::process::{command, exit_code_shown};

/// With this a script ends where its tool is not there and may not be installed; test runners elsewhere know it as "skipped".
const TOOL_MISSING: i32 = 77;

/// All but the second verifier, which is a step by itself. A test compares the list with the folder.
const SCRIPTS: [&str; 9] = [
    "go_tlog",
    "jose",
    "openssl",
    "prov",
    "pyhpke",
    "pymerkle",
    "scitt_cose",
    "securesystemslib",
    "timestamps",
];

const REMEDY: &str = "see tests/interop/README.md; what differs is printed above";

/// Tools of others, one after the other. The first that differs ends the step.
pub(crate) fn run_step(root: &Path) -> Result<String, Failure> {
    let mut missing = Vec::new();
    for name in SCRIPTS {
        println!("-- {name}");
        if !ran(script(root, name), name)? {
            missing.push(name);
        }
    }
    Ok(notice("interoperability", &missing))
}

/// Evidence made by this program, judged by ours and by the verifier in another language, with some hundred alterations.
pub(crate) fn second_verifier(root: &Path) -> Result<String, Failure> {
    let name = "second_verifier";
    let mut command = script(root, name);
    command.env("MUTATIONS", "300");
    let missing: &[&str] = if ran(command, name)? { &[] } else { &[name] };
    Ok(notice("second verifier", missing))
}

fn script(root: &Path, name: &str) -> Command {
    let mut command = command(root, "bash");
    let folder = build_folder(root);
    command
        .arg(format!("tests/interop/{name}.sh"))
        .env("COUNTERSIGN", folder.join("debug/countersign"))
        // What comes from PyPI lies there too, and goes with `cargo clean`.
        .env("CARGO_TARGET_DIR", folder);
    if !may_install() {
        command.env("INSTALL", "no");
    }
    if std::env::var_os("GOPROXY").is_none() {
        // Debian and the Go toolchain carry what is needed; where the proxy cannot be reached, asking it takes a minute.
        command.env("GOPROXY", "off");
    }
    command
}

fn may_install() -> bool {
    std::env::var_os("INSTALL").is_some_and(|install| install == "yes")
}

/// Whether it ran; that it found nothing wrong where it did.
fn ran(command: Command, name: &str) -> Result<bool, Failure> {
    match exit_code_shown(command)? {
        Some(0) => Ok(true),
        // Where it may install, nothing may be missing.
        Some(TOOL_MISSING) if !may_install() => Ok(false),
        code => {
            let code = code.map_or_else(|| String::from("a signal"), |code| code.to_string());
            Err(Failure::new(
                format!("tests/interop/{name}.sh ended with {code}"),
                REMEDY,
            ))
        }
    }
}

/// Nothing where all have run.
fn notice(step: &str, missing: &[&str]) -> String {
    if missing.is_empty() {
        return String::new();
    }
    format!(
        "{step}: NOT RUN: {}; the tool is missing, and INSTALL=yes lets the script install it",
        missing.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_is_run() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/interop");
        let names = std::fs::read_dir(folder).unwrap().filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.strip_suffix(".sh").map(str::to_owned)
        });
        let mut names: Vec<String> = names.collect();
        names.retain(|name| {
            !["authority", "lib", "second_verifier", "timestamp_vectors"].contains(&name.as_str())
        });
        names.sort();
        assert_eq!(names, SCRIPTS);
    }

    #[test]
    fn what_did_not_run_is_named() {
        assert_eq!(notice("interoperability", &[]), "");
        let notice = notice("interoperability", &["prov", "pymerkle"]);
        assert!(notice.contains("NOT RUN: prov, pymerkle"), "{notice}");
    }

    #[test]
    fn a_missing_tool_is_not_a_difference_and_a_difference_is_a_failure() {
        let shell = |code: i32| {
            let mut shell = command(Path::new("/"), "sh");
            shell.arg("-c").arg(format!("exit {code}"));
            shell
        };
        assert!(ran(shell(0), "a").unwrap());
        // As the tests are run where INSTALL is not set to yes, and where it is.
        assert_eq!(ran(shell(TOOL_MISSING), "a").is_err(), may_install());
        let failure = ran(shell(1), "a").unwrap_err();
        assert!(
            failure.what.contains("a.sh ended with 1"),
            "{}",
            failure.what
        );
    }
}
