//! Running the built program.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The program, without anything of this machine's environment.
pub(crate) fn program(current: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    command
        .env_clear()
        .env("HOME", current)
        .current_dir(current)
        .stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub(crate) fn run(current: &Path, arguments: &[&str]) -> Output {
    program(current).args(arguments).output().unwrap()
}

/// Exit code, stdout and stderr as text, with the folder's path and what differs at each run replaced.
pub(crate) fn transcript(output: &Output, current: &Path) -> String {
    let section = |name: &str, bytes: &[u8]| {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let text = text.replace(current.to_str().unwrap(), "[DIR]");
        format!("----- {name} -----\n{text}")
    };
    format!(
        "exit code: {}\n{}{}",
        output.status.code().unwrap(),
        section("stdout", &output.stdout),
        section("stderr", &output.stderr)
    )
}
