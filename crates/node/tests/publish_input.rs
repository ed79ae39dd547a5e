//! Handing in files and stdin to a node that runs for the command only, through the built program.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::Value;
use support::{program, run};

fn event(n: u64) -> String {
    format!(r#"{{"specversion":"1.0","id":"{n}","source":"/s","type":"t","data":{{"n": {n}.50}}}}"#)
}

fn node() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let made = run(dir.path(), &["init", "--org", "Acme", "--data", "node"]);
    assert!(made.status.success());
    dir
}

fn publish(dir: &Path, arguments: &[&str]) -> Output {
    let head = ["--data", "node", "--json", "publish"];
    run(dir, &[&head, arguments].concat())
}

#[track_caller]
fn summary(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn failure(output: &Output, code: &str, exit: i32) -> String {
    assert!(output.stdout.is_empty());
    assert_eq!(output.status.code(), Some(exit));
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["error"]["code"], code, "{error}");
    error["error"]["message"].as_str().unwrap().to_owned()
}

#[test]
fn a_growing_file_is_handed_in_again_without_doubling() {
    let dir = node();
    let file = dir.path().join("quakes.ndjson");
    fs::write(&file, format!("{}\n{}\n", event(1), event(2))).unwrap();
    failure(
        &publish(dir.path(), &["quakes", "quakes.ndjson"]),
        "not-found",
        5,
    );
    let first = summary(&publish(
        dir.path(),
        &["quakes", "quakes.ndjson", "--create"],
    ));
    assert_eq!(
        (&first["published"], &first["last_sequence"]),
        (&2.into(), &2.into())
    );

    let grown = format!("{}\n{}\n{}\n", event(1), event(2), event(3));
    fs::write(&file, &grown).unwrap();
    let second = summary(&publish(dir.path(), &["quakes", "quakes.ndjson"]));
    assert_eq!(
        (&second["published"], &second["duplicates"]),
        (&1.into(), &2.into())
    );
    assert_eq!(
        (&second["first_sequence"], &second["bytes"]),
        (&3.into(), &grown.len().into())
    );

    fs::write(&file, grown.replace("\"3\"", "\"4\"")).unwrap();
    let edited = failure(
        &publish(dir.path(), &["quakes", "quakes.ndjson"]),
        "conflict",
        1,
    );
    assert!(edited.starts_with("line 3 differs"), "{edited}");
    let again = summary(&publish(
        dir.path(),
        &["quakes", "quakes.ndjson", "--again"],
    ));
    assert_eq!(again["published"], 3);
}

#[test]
fn stdin_is_wrapped_into_events() {
    let dir = node();
    let mut command = program(dir.path());
    command
        .args([
            "--data", "node", "--json", "publish", "audit", "-", "--create",
        ])
        .args([
            "--type",
            "com.acme.audit",
            "--id-from",
            "id",
            "--time-from",
            "ts",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(b"{\"id\":7,\"ts\":1767323045000}\n{\"id\":8,\"ts\":\"2026-01-02T03:04:06Z\"}")
        .unwrap();
    drop(stdin);
    assert_eq!(summary(&child.wait_with_output().unwrap())["published"], 2);

    let tail = run(
        dir.path(),
        &[
            "--data", "node", "--json", "stream", "tail", "audit", "--count", "1",
        ],
    );
    let last: Value = serde_json::from_slice(&tail.stdout).unwrap();
    assert_eq!(
        (&last["id"], &last["time"]),
        (&"8".into(), &"2026-01-02T03:04:06Z".into())
    );
    assert_eq!(
        (&last["type"], &last["data"]["id"]),
        (&"com.acme.audit".into(), &8.into())
    );
}

#[test]
fn wrong_input_names_the_line_and_what_is_stored() {
    let dir = node();
    fs::write(
        dir.path().join("wrong"),
        format!("{}\n{{\"id\": \n", event(1)),
    )
    .unwrap();
    let message = failure(
        &publish(dir.path(), &["quakes", "wrong", "--create"]),
        "event-invalid",
        1,
    );
    assert!(message.starts_with("line 2: "), "{message}");
    assert!(
        message.ends_with("1 event is stored, up to line 1"),
        "{message}"
    );
    failure(
        &publish(dir.path(), &["quakes", "nothing-here"]),
        "not-found",
        5,
    );
    failure(&publish(dir.path(), &["quakes", "node"]), "io", 1);
    failure(
        &publish(dir.path(), &["quakes", "wrong", "--series", "12"]),
        "usage",
        2,
    );
}
