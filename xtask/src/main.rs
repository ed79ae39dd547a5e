//! Checks and chores of this repository: `cargo xtask` alone lists them.
//!
//! ```text
//! cargo xtask check          everything; CI runs this and nothing else
//! cargo xtask check --fast   what can be known without building the tests
//! ```
//!
//! In scope: running cargo's own tools in one order with one verdict, the crate graph, the house rules that a text search can decide,
//! and generated files. Elsewhere: what a test can check is a test of the crate concerned, what a lint can check is in the workspace's lint
//! table or `clippy.toml`, and what may be depended on is in `deny.toml`.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this program talks to the person or the CI log in front of it"
)]

mod advisories;
mod bench;
mod check;
mod decisions;
mod deny;
mod generated;
mod graph;
mod interop;
mod process;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What went wrong, and what the reader does about it.
#[derive(Debug)]
struct Failure {
    /// One line or several; may be empty where the failed program has already said it.
    what: String,
    /// One line.
    remedy: String,
}

impl Failure {
    fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

const USAGE: &str = "\
usage: cargo xtask TASK

tasks:
  check [--fast]     format, tidy, graph, generated files, licences, advisories, clippy, docs, work per event, tests,
                     second verifier, interoperability; --fast: format, tidy, graph, clippy
  bench --quick [--record]
                     work per event, counted and compared with tests/work-per-event.txt; --record writes it
  interop            tools of others on what the built program writes; INSTALL=yes lets it install them
  tidy               house rules: banned calls, markers, links, decisions, manifests and more
  graph [--write]    print which crate uses which, and check layers; --write records it in tests/crate-graph.txt
  generate [--write] check that generated files are fresh; --write makes them fresh
  bench [OPTIONS]    build the release program and measure it; `cargo xtask bench --help` lists the options
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = root();
    let result = match arguments.as_slice() {
        [] | ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        ["check"] => check::run(&root, check::Extent::Full),
        ["check", "--fast"] => check::run(&root, check::Extent::Fast),
        ["bench", "--quick"] => bench::quick::run(&root),
        ["bench", "--quick", "--record"] => {
            bench::quick::write_record(&root).map(|notice| println!("{notice}"))
        }
        ["tidy"] => tidy::run(&root).map(|notice| println!("{notice}")),
        ["graph"] => graph::print(&root),
        ["graph", "--write"] => graph::write(&root).map(|notice| println!("{notice}")),
        ["generate"] => generated::check(&root).map(|notice| println!("{notice}")),
        ["generate", "--write"] => generated::write(&root).map(|notice| println!("{notice}")),
        ["interop"] => interop::run_step(&root).map(|notice| println!("{notice}")),
        ["bench", rest @ ..] => bench::run(&root, rest),
        other => {
            eprintln!("`{}` is not a task\n\n{USAGE}", other.join(" "));
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.what.is_empty() {
                eprintln!("{}", failure.what);
            }
            eprintln!("what to do: {}", failure.remedy);
            ExitCode::FAILURE
        }
    }
}

/// The project's top folder: tasks mean the same from whatever folder they are called in.
fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_path_buf()
}
