//! Programs that are built and what they were measured on.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::Failure;
use crate::process::{cargo, command, output};

/// Builds a release program, showing what cargo says, and gives its place.
pub(super) fn build(root: &Path, arguments: &[&str]) -> Result<PathBuf, Failure> {
    let mut build = cargo(root);
    build
        .args([
            "build",
            "--release",
            "--message-format=json-render-diagnostics",
        ])
        .args(arguments)
        .stderr(Stdio::inherit());
    let said = output(build)?;
    let built = said
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back();
    built.ok_or_else(|| {
        Failure::new(
            "cargo built no program",
            "run `cargo build --release` by hand and read what it says",
        )
    })
}

/// Version of the source that is measured; `-dirty` where it is not what was committed.
pub(super) fn revision(root: &Path) -> String {
    let mut describe = command(root, "git");
    describe.args(["describe", "--always", "--dirty", "--abbrev=12"]);
    output(describe).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// Versions of the compiler, and memory.
pub(super) fn facts(root: &Path) -> String {
    let mut rustc = command(root, "rustc");
    rustc.arg("--version");
    let compiler = output(rustc).unwrap_or_default();
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|text| text.parse::<f64>().ok())
        .unwrap_or_default();
    format!("{:.0} GB of memory, {}", kib / 1e6, compiler.trim())
}

/// User and system time of a process so far, in nanoseconds; in ticks of 10 ms.
pub(super) fn core_ns(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = rest.split_ascii_whitespace().skip(11).take(2);
    ticks
        .filter_map(|text| text.parse::<u64>().ok())
        .sum::<u64>()
        * 10_000_000
}
