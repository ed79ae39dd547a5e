//! Files that are made from other files of the project, and Cargo's lock file.
//!
//! A generated file is kept in the project so that readers need no tool; it is fresh when making it again gives the same bytes. What
//! a crate generates from its own types (configuration reference, command help) is compared by a test of that crate.

use std::fs;
use std::path::Path;

use crate::process::{command, output};
use crate::{Failure, decisions, graph};

/// The step of the check.
pub(crate) fn check(root: &Path) -> Result<String, Failure> {
    for file in &FILES {
        if !is_fresh(root, file)? {
            return Err(Failure::new(
                format!("`{}` is not what its sources say", file.path),
                "run `cargo xtask generate --write` and commit the file",
            ));
        }
    }
    require_committed_lock_file(root)?;
    Ok(String::new())
}

/// Makes all of them, the crate graph included.
pub(crate) fn write(root: &Path) -> Result<String, Failure> {
    for file in &FILES {
        let text = (file.make)(root)?;
        fs::write(root.join(file.path), text).map_err(|error| {
            Failure::new(
                format!("`{}` could not be written: {error}", file.path),
                "make the file writable",
            )
        })?;
    }
    graph::write(root)?;
    Ok(String::from("generated files written"))
}

/// Whether the index of decisions is what the records say; also a rule of tidy, since tidy is part of the fast form.
pub(crate) fn decision_index_is_fresh(root: &Path) -> Result<bool, Failure> {
    is_fresh(root, &FILES[0])
}

struct Generated {
    path: &'static str,
    make: fn(&Path) -> Result<String, Failure>,
}

/// The crate graph is not here: it has its own step, which says more than "not fresh".
const FILES: [Generated; 1] = [Generated {
    path: decisions::INDEX,
    make: decision_index,
}];

fn decision_index(root: &Path) -> Result<String, Failure> {
    let records = decisions::read(root).map_err(|error| {
        Failure::new(
            format!("`{}` can not be read: {error}", decisions::FOLDER),
            "restore that folder",
        )
    })?;
    Ok(decisions::index(&records))
}

fn is_fresh(root: &Path, file: &Generated) -> Result<bool, Failure> {
    let recorded = fs::read_to_string(root.join(file.path)).unwrap_or_default();
    Ok(recorded == (file.make)(root)?)
}

/// Cargo silently mends a lock file that does not fit the manifests, `cargo xtask` itself included, so asking cargo comes too late.
/// In CI nobody has edited anything: a lock file that differs from the commit was mended. Elsewhere it may be somebody's work in progress.
fn require_committed_lock_file(root: &Path) -> Result<(), Failure> {
    if std::env::var_os("CI").is_none() {
        return Ok(());
    }
    let mut status = command(root, "git");
    status.args(["status", "--porcelain", "--", "Cargo.lock"]);
    lock_file_verdict(&output(status)?)
}

fn lock_file_verdict(git_status: &str) -> Result<(), Failure> {
    if git_status.trim().is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        "the committed `Cargo.lock` does not fit the manifests: cargo had to change it",
        "run `cargo metadata` once and commit `Cargo.lock`",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_file_that_cargo_had_to_mend_is_reported() {
        assert!(lock_file_verdict("").is_ok());
        assert!(lock_file_verdict(" M Cargo.lock\n").is_err());
    }

    #[test]
    fn a_file_that_differs_from_its_sources_is_not_fresh() {
        let root = crate::root();
        let stale = Generated {
            path: decisions::INDEX,
            make: |_| Ok(String::from("something else")),
        };
        assert!(!is_fresh(&root, &stale).unwrap());
    }

    #[test]
    fn a_generated_file_that_is_missing_is_not_fresh() {
        let missing = Generated {
            path: "no-such-file",
            make: |_| Ok(String::from("text")),
        };
        assert!(!is_fresh(&crate::root(), &missing).unwrap());
    }
}
