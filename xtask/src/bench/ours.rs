//! Our own program.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::Failure;
use crate::process::{command, output};

/// The built program, and where its nodes' files lie.
pub(super) struct Ours<'a> {
    pub(super) root: &'a Path,
    pub(super) program: PathBuf,
    pub(super) dir: &'a Path,
}

impl Ours<'_> {
    /// One run of a measure: its figures, and what they were measured on.
    pub(super) fn run(&self, arguments: &[String]) -> Result<(Value, Value), Failure> {
        let program = self.program.to_string_lossy();
        let mut bench = command(self.root, &program);
        bench
            .arg("bench")
            .args(arguments)
            .args(["--runs", "1", "--json", "--quiet", "--dir"])
            .arg(self.dir)
            .stderr(Stdio::inherit());
        let said = output(bench)?;
        let mut value: Value = serde_json::from_str(&said).map_err(|error| {
            Failure::new(
                format!("`countersign bench` did not answer in JSON: {error}"),
                "run it by hand and read what it says",
            )
        })?;
        Ok((value["each"][0].take(), value["machine"].take()))
    }
}
