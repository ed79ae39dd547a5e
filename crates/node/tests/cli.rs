//! What people see: help of every command, refusals, and the few commands that need no exchange. Transcripts are in `snapshots/`;
//! `COUNTERSIGN_WRITE_SNAPSHOTS=1 cargo test -p countersign --test cli` writes them again.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::{program, run, transcript};

/// Compares a transcript with the kept one, or writes it.
#[track_caller]
fn check(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/snapshots")
        .join(format!("{name}.txt"));
    if std::env::var_os("COUNTERSIGN_WRITE_SNAPSHOTS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, found).unwrap();
        return;
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == found,
        "{name} differs; kept:\n{kept}\nfound:\n{found}\nwrite again: COUNTERSIGN_WRITE_SNAPSHOTS=1"
    );
}

fn check_run(name: &str, current: &Path, arguments: &[&str]) {
    let shown = arguments.join(" ");
    let output = run(current, arguments);
    check(
        name,
        &format!("$ countersign {shown}\n{}", transcript(&output, current)),
    );
}

/// Every command and its verbs, as paths of words.
fn commands() -> Vec<Vec<String>> {
    fn walk(command: &clap::Command, path: &[String], all: &mut Vec<Vec<String>>) {
        for inner in command.get_subcommands() {
            let path = [path, &[inner.get_name().to_owned()]].concat();
            all.push(path.clone());
            walk(inner, &path, all);
        }
    }
    let mut all = vec![Vec::new()];
    walk(&countersign::cli::command(), &[], &mut all);
    all
}

#[test]
fn the_declaration_of_commands_is_consistent() {
    countersign::cli::command().debug_assert();
}

#[test]
fn the_help_of_every_command_is_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    for path in commands() {
        let words: Vec<&str> = path.iter().map(String::as_str).collect();
        let name = ["help"]
            .iter()
            .chain(&words)
            .copied()
            .collect::<Vec<_>>()
            .join("-");
        check_run(&name, dir.path(), &[&words[..], &["--help"]].concat());
    }
}

#[test]
fn no_transcript_is_left_over() {
    let expected: Vec<String> = commands()
        .iter()
        .map(|path| {
            let words = std::iter::once("help").chain(path.iter().map(String::as_str));
            format!("{}.txt", words.collect::<Vec<_>>().join("-"))
        })
        .collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots");
    for entry in fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            !name.starts_with("help") || expected.contains(&name),
            "{name} belongs to no command"
        );
    }
}

#[test]
fn every_leaf_command_takes_json() {
    let dir = tempfile::tempdir().unwrap();
    for path in commands() {
        let words: Vec<&str> = path.iter().map(String::as_str).collect();
        let output = run(dir.path(), &[&words[..], &["--json", "--help"]].concat());
        assert_eq!(output.status.code(), Some(0), "{path:?}");
    }
}

#[test]
fn refusals_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    check_run("no-arguments", dir.path(), &[]);
    check_run("unknown-command", dir.path(), &["streem"]);
    check_run("no-data-directory", dir.path(), &["status"]);
    check_run("no-data-directory-json", dir.path(), &["status", "--json"]);
    check_run(
        "bad-start",
        dir.path(),
        &["subscribe", "a/b", "--from", "yesterday"],
    );
    check_run(
        "bad-listen",
        dir.path(),
        &["init", "--org", "A", "--listen", "7227"],
    );
}

fn vector(path: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors");
    fs::read_to_string(folder.join(path)).unwrap()
}

#[test]
fn a_fork_proof_is_judged_by_the_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let cases: serde_json::Value =
        serde_json::from_str(&vector("fork-proof/v1/cases.json")).unwrap();
    let key = cases["organization"].as_str().unwrap();
    let text = vector("fork-proof/v1/other-sizes.fork-proof");
    fs::write(dir.path().join("orders.fork-proof"), &text).unwrap();
    let altered = text.replacen("root P", "root Q", 1);
    assert_ne!(altered, text);
    fs::write(dir.path().join("altered.fork-proof"), altered).unwrap();
    let verify = ["evidence", "verify", "orders.fork-proof"];
    let trusting = [&verify[..], &["--trust", key]].concat();
    check_run("verify-fork", dir.path(), &trusting);
    let json = [&trusting[..], &["--json"]].concat();
    // The order of members is free: it depends on which features of the JSON library other crates switch on.
    let output = run(dir.path(), &json);
    assert_eq!(output.status.code(), Some(0));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = [
        ("evidence", "fork"),
        ("verdict", "whole"),
        ("key", key),
        ("origin", cases["origin"].as_str().unwrap()),
    ];
    for (member, value) in expected {
        assert_eq!(report[member], value, "{report}");
    }
    check_run("verify-fork-untrusted", dir.path(), &verify);
    let altered = ["evidence", "verify", "altered.fork-proof", "--trust", key];
    check_run("verify-fork-altered", dir.path(), &altered);
}

#[test]
fn a_witness_policy_asks_for_cosignatures() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    let keys: serde_json::Value = serde_json::from_str(&vector("tlog/v1/keys.json")).unwrap();
    let log = keys["log"]["vkey"].as_str().unwrap();
    let witness = keys["witness"]["vkey"].as_str().unwrap();
    let policy = format!("log {log}\nwitness b {witness}\nquorum b\n");
    write("policy", &policy);
    write("cut", policy.trim_end());
    let growth = vector("tlog/v1/add-checkpoint-41-70.txt");
    let (head, note) = growth.split_once("\n\n").unwrap();
    let cosigned = vector("tlog/v1/cosigned-checkpoint.txt");
    assert!(cosigned.starts_with(note), "the same checkpoint");
    for (stem, note) in [("witnessed", cosigned.as_str()), ("unwitnessed", note)] {
        let old = vector("tlog/v1/checkpoint-41.txt");
        write(&format!("{stem}.checkpoint"), &old);
        write(
            &format!("{stem}.tlog-consistency"),
            &format!("{head}\n\n{note}"),
        );
        let file = format!("{stem}.tlog-consistency");
        let arguments = ["evidence", "verify", &file, "--trust", "policy"];
        check_run(&format!("verify-{stem}"), dir.path(), &arguments);
    }
    let cut = [
        "evidence",
        "verify",
        "witnessed.tlog-consistency",
        "--trust",
        "cut",
    ];
    check_run("verify-cut-policy", dir.path(), &cut);
}

/// A node with small files, made by the program itself.
fn node(dir: &Path) -> PathBuf {
    let output = program(dir)
        .env("COUNTERSIGN_JOURNAL_SEGMENT_BYTES", "65536")
        .args(["init", "--org", "Acme", "--data", "node"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    // Data on stdout, the rest on stderr.
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.starts_with("key-") && stdout.lines().count() == 1);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("countersign serve --data node"), "{stderr}");
    dir.join("node")
}

#[test]
fn a_second_init_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    node(dir.path());
    check_run(
        "init-twice",
        dir.path(),
        &["init", "--org", "Acme", "--data", "node"],
    );
}

#[test]
fn settings_are_explained_with_where_they_came_from() {
    let dir = tempfile::tempdir().unwrap();
    let data = node(dir.path());
    check_run(
        "config-explain",
        dir.path(),
        &["config", "explain", "--data", "node"],
    );
    let file = data.join("countersign.toml");
    fs::write(
        &file,
        "listen = \"0.0.0.0:1\"\n[quic]\nidle_timeut_ms = 1\n",
    )
    .unwrap();
    check_run(
        "config-unknown-key",
        dir.path(),
        &["config", "explain", "--data", "node"],
    );
    fs::write(&file, "event_bytes_max = 1\n").unwrap();
    check_run(
        "config-value",
        dir.path(),
        &["config", "explain", "--data", "node"],
    );
}

#[test]
fn init_in_json_is_one_document() {
    let dir = tempfile::tempdir().unwrap();
    let output = program(dir.path())
        .env("COUNTERSIGN_JOURNAL_SEGMENT_BYTES", "65536")
        .args(["init", "--org", "Acme", "--json"])
        .args([
            "--domain",
            "acme.example",
            "--advertise",
            "a.example:1",
            "--advertise",
            "b.example:2",
        ])
        .output()
        .unwrap();
    assert!(output.stderr.is_empty(), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["authority"], "acme.example");
    assert_eq!(report["keys"].as_array().unwrap().len(), 6);
    assert_eq!(
        report["advertise"],
        serde_json::json!(["a.example:1", "b.example:2"])
    );
    // Nobody named a directory, so it is the user's.
    assert!(dir.path().join(".local/share/countersign/format").is_file());
}

#[test]
fn what_was_not_confirmed_is_not_done() {
    let dir = tempfile::tempdir().unwrap();
    node(dir.path());
    let arguments = ["partner", "revoke", "birch", "--data", "node"];
    check_run("not-confirmed", dir.path(), &arguments);
}
