//! Running other programs.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Failure;

/// A program to be run in the project's top folder, without input.
pub(crate) fn command(root: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root).stdin(Stdio::null());
    // `cargo run` describes this package to its child by environment. Build scripts that declare these variables as inputs (ring's does)
    // would be run again, with everything above them, each time a check follows a plain `cargo test`, and the other way round.
    for (name, _) in std::env::vars_os() {
        if describes_this_package(&name) {
            command.env_remove(name);
        }
    }
    command
}

/// The cargo that started us, so that one toolchain does everything.
pub(crate) fn cargo(root: &Path) -> Command {
    let program = std::env::var("CARGO").unwrap_or_else(|_| String::from("cargo"));
    command(root, &program)
}

/// Runs with output shown as it comes.
pub(crate) fn run_shown(mut command: Command, remedy: &str) -> Result<(), Failure> {
    let status = command
        .status()
        .map_err(|error| not_started(&command, &error))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(
        format!("`{}` failed ({status})", shown(&command)),
        remedy,
    ))
}

/// Runs with output shown as it comes, and gives the exit code, none where a signal ended it.
pub(crate) fn exit_code_shown(mut command: Command) -> Result<Option<i32>, Failure> {
    let status = command.status();
    status
        .map(|status| status.code())
        .map_err(|error| not_started(&command, &error))
}

/// Runs silently and gives what was written to stdout.
pub(crate) fn output(mut command: Command) -> Result<String, Failure> {
    let output = command
        .output()
        .map_err(|error| not_started(&command, &error))?;
    if !output.status.success() {
        return Err(Failure::new(
            format!(
                "`{}` failed ({}): {}",
                shown(&command),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            ),
            "run that command by hand and read what it says",
        ));
    }
    String::from_utf8(output.stdout).map_err(|_| {
        Failure::new(
            format!("`{}` did not answer in UTF-8", shown(&command)),
            "rename the file it lists whose name is not UTF-8",
        )
    })
}

/// How a program with a time limit ended.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Bounded {
    Failed,
    NotStarted,
    Succeeded,
    TimedOut,
}

/// Runs silently for at most `limit`, then ends the program.
pub(crate) fn run_bounded(mut command: Command, limit: Duration) -> Bounded {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else {
        return Bounded::NotStarted;
    };
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Bounded::Succeeded,
            Ok(Some(_)) | Err(_) => return Bounded::Failed,
            Ok(None) if start.elapsed() >= limit => {
                // It may have ended in between; either way it must not be left unwaited.
                let _ = child.kill();
                let _ = child.wait();
                return Bounded::TimedOut;
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn describes_this_package(name: &OsString) -> bool {
    let Some(name) = name.to_str() else {
        return false;
    };
    name.starts_with("CARGO_PKG_")
        || name.starts_with("CARGO_MANIFEST_")
        || name.starts_with("CARGO_BIN_")
        || matches!(
            name,
            "CARGO_CRATE_NAME" | "CARGO_PRIMARY_PACKAGE" | "OUT_DIR"
        )
}

fn shown(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    if let Some(file) = Path::new(&text).file_name() {
        text = file.to_string_lossy().into_owned();
    }
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

fn not_started(command: &Command, error: &io::Error) -> Failure {
    Failure::new(
        format!("`{}` could not be started: {error}", shown(command)),
        format!(
            "install `{}` or put it on PATH",
            command.get_program().to_string_lossy()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_does_not_end_is_ended_at_its_limit() {
        let mut endless = command(Path::new("/"), "sleep");
        endless.arg("600");
        let start = Instant::now();
        assert_eq!(
            run_bounded(endless, Duration::from_millis(50)),
            Bounded::TimedOut
        );
        assert!(start.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn success_failure_and_absence_are_told_apart() {
        let limit = Duration::from_secs(60);
        let root = Path::new("/");
        assert_eq!(
            run_bounded(command(root, "true"), limit),
            Bounded::Succeeded
        );
        assert_eq!(run_bounded(command(root, "false"), limit), Bounded::Failed);
        assert_eq!(
            run_bounded(command(root, "no-such-program-anywhere"), limit),
            Bounded::NotStarted
        );
    }

    #[test]
    fn a_failed_program_is_named_with_its_arguments() {
        let mut listing = command(Path::new("/"), "ls");
        listing.arg("no-such-file-anywhere");
        let failure = output(listing).unwrap_err();
        assert!(
            failure.what.contains("`ls no-such-file-anywhere` failed"),
            "{}",
            failure.what
        );
    }

    #[test]
    fn the_description_of_this_package_does_not_reach_the_programs_we_run() {
        for (name, expected) in [
            ("CARGO_PKG_NAME", true),
            ("CARGO_MANIFEST_DIR", true),
            ("CARGO_CRATE_NAME", true),
            ("CARGO_HOME", false),
            ("CARGO_TARGET_DIR", false),
            ("PATH", false),
        ] {
            assert_eq!(
                describes_this_package(&OsString::from(name)),
                expected,
                "{name}"
            );
        }
    }
}
