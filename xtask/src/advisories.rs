//! Known vulnerabilities of dependencies, by cargo-deny and the RustSec database.
//!
//! The database is a local clone named by `COUNTERSIGN_ADVISORY_DB`, or else its home on the network where that answers within a bounded time.
//! Where neither is to be had, the step says that it did NOT RUN, and why: what was not looked at is never counted as passed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{Bounded, cargo, command, run_bounded, run_shown};
use crate::{Failure, deny};

const DATABASE_VARIABLE: &str = "COUNTERSIGN_ADVISORY_DB";
const DATABASE_URL: &str = "https://github.com/RustSec/advisory-db";

/// One answer from a reachable host takes about a second; a machine without the network should not wait long to be told so.
const PROBE_TIME_MAX: Duration = Duration::from_secs(10);
/// A shallow clone is a few megabytes.
const FETCH_TIME_MAX: Duration = Duration::from_secs(120);

/// The step of the check.
pub(crate) fn run_step(root: &Path) -> Result<String, Failure> {
    deny::require_installed(root)?;
    let database = match std::env::var_os(DATABASE_VARIABLE).filter(|value| !value.is_empty()) {
        Some(value) => Database::Local(local_clone(root, value)?),
        None => Database::Remote,
    };
    if matches!(database, Database::Remote) {
        match run_bounded(probe(root), PROBE_TIME_MAX) {
            Bounded::Succeeded => {}
            other => return Ok(not_run(reason_of_probe(&other))),
        }
    }

    let config = write_config(root, &database)?;
    let mut fetch = deny_with(root, &config, &database);
    fetch.args(["fetch", "db"]);
    match (run_bounded(fetch, FETCH_TIME_MAX), &database) {
        (Bounded::Succeeded, _) => {}
        // Somebody named this database on purpose: not being able to read it is their error to hear of, not a reason to go on without.
        (_, Database::Local(path)) => {
            return Err(Failure::new(
                format!(
                    "the advisory database at `{}` can not be read",
                    path.display()
                ),
                format!(
                    "let `{DATABASE_VARIABLE}` name a git clone of {DATABASE_URL} that has the branch `main`"
                ),
            ));
        }
        (_, Database::Remote) => return Ok(not_run("its host answered, but fetching it failed")),
    }

    let mut check = deny_with(root, &config, &database);
    check.args(["--offline", "check", "--hide-inclusion-graph", "advisories"]);
    run_shown(
        check,
        "update the crate named above; an exception goes into `deny.toml` with a reason and a date",
    )?;
    Ok(String::new())
}

enum Database {
    Local(PathBuf),
    Remote,
}

fn not_run(reason: &str) -> String {
    format!("advisories: NOT RUN, {reason}")
}

fn reason_of_probe(outcome: &Bounded) -> &'static str {
    match outcome {
        Bounded::NotStarted => "git is not installed and COUNTERSIGN_ADVISORY_DB names no clone",
        Bounded::TimedOut => {
            "the database's host did not answer in time and COUNTERSIGN_ADVISORY_DB names no clone"
        }
        Bounded::Failed | Bounded::Succeeded => {
            "the database's host is not reachable and COUNTERSIGN_ADVISORY_DB names no clone"
        }
    }
}

fn local_clone(root: &Path, value: OsString) -> Result<PathBuf, Failure> {
    let path = root.join(value);
    path.canonicalize()
        .ok()
        .filter(|path| path.is_dir())
        .ok_or_else(|| {
            Failure::new(
                format!(
                    "`{DATABASE_VARIABLE}` names `{}`, which is no folder",
                    path.display()
                ),
                format!("let it name a git clone of {DATABASE_URL}, or unset it"),
            )
        })
}

fn probe(root: &Path) -> Command {
    let mut probe = command(root, "git");
    probe
        .args(["ls-remote", "--exit-code", DATABASE_URL, "HEAD"])
        .env("GIT_TERMINAL_PROMPT", "0");
    probe
}

/// cargo-deny takes its database only from a URL with a domain and fetches it with git: git is told where that URL is to be found.
fn deny_with(root: &Path, config: &Path, database: &Database) -> Command {
    let mut command = cargo(root);
    command
        .arg("deny")
        .arg("--config")
        .arg(config)
        .env("GIT_TERMINAL_PROMPT", "0")
        // Ending cargo-deny at its time limit does not end the git it started; this does.
        .env("GIT_HTTP_LOW_SPEED_LIMIT", "1000")
        .env("GIT_HTTP_LOW_SPEED_TIME", "20");
    if let Database::Local(path) = database {
        command
            .env("GIT_CONFIG_COUNT", "1")
            .env(
                "GIT_CONFIG_KEY_0",
                format!("url.file://{}.insteadOf", path.display()),
            )
            .env("GIT_CONFIG_VALUE_0", DATABASE_URL);
    }
    command
}

/// The project's `deny.toml` with a place for the database in the build folder: a clone named for this run must not
/// become the one that every other project on the machine finds in CARGO_HOME.
fn write_config(root: &Path, database: &Database) -> Result<PathBuf, Failure> {
    let folder = build_folder(root).join("xtask").join(match database {
        Database::Local(_) => "advisories-local",
        Database::Remote => "advisories",
    });
    let path = folder.join("deny.toml");
    let written = std::fs::read_to_string(root.join("deny.toml")).and_then(|text| {
        std::fs::create_dir_all(&folder)?;
        // What another clone left here would be fetched into, and could be newer than the one named now.
        if matches!(database, Database::Local(_)) && folder.join("db").exists() {
            std::fs::remove_dir_all(folder.join("db"))?;
        }
        std::fs::write(&path, config_with_database(&text, &folder.join("db")))
    });
    match written {
        Ok(()) => Ok(path),
        Err(error) => Err(Failure::new(
            format!(
                "`{}` could not be made from `deny.toml`: {error}",
                path.display()
            ),
            "make the build folder writable",
        )),
    }
}

/// Where cargo builds.
pub(crate) fn build_folder(root: &Path) -> PathBuf {
    root.join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| OsString::from("target")))
}

fn config_with_database(config: &str, folder: &Path) -> String {
    config.replacen(
        "[advisories]\n",
        &format!(
            "[advisories]\ndb-path = {:?}\n",
            folder.display().to_string()
        ),
        1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_kept_the_database_away_is_said_and_is_not_success() {
        for outcome in [Bounded::NotStarted, Bounded::TimedOut, Bounded::Failed] {
            let notice = not_run(reason_of_probe(&outcome));
            assert!(notice.starts_with("advisories: NOT RUN, "), "{notice}");
            assert!(!notice.contains('\n'), "{notice}");
        }
    }

    #[test]
    fn a_database_that_was_named_but_is_missing_is_a_failure() {
        let failure = local_clone(Path::new("/"), OsString::from("no-such-folder")).unwrap_err();
        assert!(failure.what.contains("/no-such-folder"), "{}", failure.what);
    }

    #[test]
    fn the_database_is_kept_in_the_build_folder() {
        let config =
            config_with_database("[bans]\n\n[advisories]\nversion = 2\n", Path::new("/t/db"));
        assert_eq!(
            config,
            "[bans]\n\n[advisories]\ndb-path = \"/t/db\"\nversion = 2\n"
        );
    }

    #[test]
    fn the_projects_configuration_has_the_section_that_is_extended() {
        let config = std::fs::read_to_string(crate::root().join("deny.toml")).unwrap();
        assert!(config_with_database(&config, Path::new("/t/db")).contains("db-path"));
    }
}
