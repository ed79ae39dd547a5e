//! The bench measures something in every form, and leaves neither directories nor processes behind.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{program, run};

/// Runs `bench` with its directories in a fresh folder, which has to be empty afterwards.
#[track_caller]
fn measure(words: &[&str]) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().to_str().unwrap();
    let arguments = [&["bench"], words, &["--dir", place, "--json", "--quiet"]].concat();
    let output = run(dir.path(), &arguments);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn positive(value: &Value, pointers: &[&str]) {
    for pointer in pointers {
        let number = value.pointer(pointer).and_then(Value::as_f64);
        assert!(number > Some(0.0), "{pointer} in {value}");
    }
}

#[test]
fn publishing_is_measured_for_several_streams_at_once() {
    let value = measure(&[
        "publish",
        "--streams",
        "3",
        "--size",
        "100",
        "--seconds",
        "1",
        "--warmup",
        "0",
    ]);
    positive(
        &value,
        &[
            "/events_per_second",
            "/batch_ack_latency/p50_us",
            "/node/memory_peak_bytes",
            "/machine/cores",
        ],
    );
    assert_eq!(value["options"]["data_bytes"], 100);
    assert_eq!(value["options"]["attribute_value_bytes"], 148);
}

#[test]
fn a_rate_is_kept_and_its_latency_is_that_of_single_events() {
    let value = measure(&["publish", "--rate", "50", "--seconds", "2", "--warmup", "0"]);
    let events = value["events"].as_u64().unwrap();
    // Slower where the machine is busy; never faster.
    assert!((1..=101).contains(&events), "{value}");
    assert_eq!(value["batch_ack_latency"]["samples"], events);
}

#[test]
fn delivery_to_a_program_is_measured_by_the_times_in_the_events() {
    let value = measure(&[
        "deliver",
        "--rate",
        "100",
        "--seconds",
        "2",
        "--warmup",
        "1",
    ]);
    positive(&value, &["/events_per_second", "/latency/p50_us"]);
    assert_eq!(value["latency"]["samples"], value["events"]);
}

#[test]
fn delivery_to_a_node_is_measured_by_the_growth_of_its_copy() {
    let value = measure(&["deliver", "--to", "node", "--seconds", "2", "--warmup", "1"]);
    positive(
        &value,
        &["/events_per_second", "/consumer/memory_peak_bytes"],
    );
}

#[test]
fn verifying_is_measured_beside_hashing() {
    let value = measure(&["verify", "--events", "500", "--seconds", "1"]);
    positive(
        &value,
        &["/events_per_second", "/core_ms", "/evidence_bytes"],
    );
}

#[test]
fn a_signal_ends_every_process_and_removes_every_directory() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = program(dir.path())
        .args(["bench", "publish", "--seconds", "600", "--dir"])
        .arg(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(bench.stderr.take().unwrap()).lines();
    assert!(said.next().unwrap().unwrap().contains("warming up"));
    let children = children_of(bench.id());
    assert_eq!(children.len(), 2);
    kill_process(
        Pid::from_raw(bench.id().try_into().unwrap()).unwrap(),
        Signal::TERM,
    )
    .unwrap();
    assert_eq!(bench.wait().unwrap().code(), Some(130));
    for child in children {
        assert!(!Path::new(&format!("/proc/{child}")).exists());
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

fn children_of(parent: u32) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let name = entry.unwrap().file_name();
        name.to_str()?.parse::<u32>().ok()
    });
    let is_child = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        after_name.split(' ').nth(1) == Some(&parent.to_string())
    };
    pids.filter(is_child).collect()
}
