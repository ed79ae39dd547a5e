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
fn measure(words: &str) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().to_str().unwrap();
    let mut arguments = vec!["bench"];
    arguments.extend(words.split(' '));
    arguments.extend(["--dir", place, "--json", "--quiet"]);
    let output = run(dir.path(), &arguments);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The median of a figure.
#[track_caller]
fn figure(value: &Value, name: &str) -> f64 {
    let number = value
        .pointer(&format!("/figures/{name}/median"))
        .and_then(Value::as_f64);
    number.unwrap_or_else(|| panic!("{name} in {value}"))
}

#[track_caller]
fn positive(value: &Value, names: &[&str]) {
    for name in names {
        assert!(figure(value, name) > 0.0, "{name} in {value}");
    }
}

#[test]
fn publishing_is_measured_for_several_streams_in_several_runs() {
    let value = measure("publish --streams 3 --size 100 --seconds 1 --warmup 0 --runs 2");
    positive(
        &value,
        &[
            "events_per_second",
            "latency/p50_us",
            "node/memory_peak_bytes",
        ],
    );
    assert_eq!(value["options"]["data_bytes"], 100);
    assert_eq!(value["options"]["attribute_value_bytes"], 148);
    assert!(value["machine"]["cores"].as_u64() > Some(0));
    let rates: Vec<f64> = value["each"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| run["events_per_second"].as_f64().unwrap())
        .collect();
    let spread = &value["figures"]["events_per_second"];
    assert_eq!(rates.len(), 2);
    assert_eq!(spread["lowest"], rates[0].min(rates[1]));
    assert_eq!(spread["highest"], rates[0].max(rates[1]));
}

#[test]
fn a_rate_is_kept_over_many_streams_and_its_latency_is_that_of_single_events() {
    let value = measure("publish --rate 50 --streams 40 --seconds 2 --warmup 0 --runs 1");
    let events = figure(&value, "events");
    // Slower where the machine is busy; never faster.
    assert!((1.0..=101.0).contains(&events), "{value}");
    assert!((figure(&value, "latency/samples") - events).abs() < 0.5);
}

#[test]
fn delivery_to_a_program_is_measured_by_the_times_in_the_events() {
    let value = measure("deliver --rate 100 --seconds 2 --warmup 1 --runs 1");
    positive(&value, &["events_per_second", "latency/p50_us"]);
    assert!((figure(&value, "latency/samples") - figure(&value, "events")).abs() < 0.5);
}

#[test]
fn delivery_of_several_streams_is_measured() {
    let value = measure("deliver --rate 100 --streams 3 --seconds 2 --warmup 1 --runs 1");
    positive(&value, &["events_per_second", "latency/p50_us"]);
}

#[test]
fn delivery_to_a_node_is_measured_by_the_growth_of_its_copy() {
    let value = measure("deliver --to node --seconds 2 --warmup 1 --runs 1");
    positive(&value, &["events_per_second", "consumer/memory_peak_bytes"]);
}

#[test]
fn fan_out_reaches_every_subscriber_at_a_rate_and_with_a_flood() {
    for words in ["--rate 2000 --readers 2", "--flood --size 1024"] {
        let value = measure(&format!(
            "fan-out --subscribers 3 --seconds 2 --warmup 1 --runs 1 {words}"
        ));
        positive(
            &value,
            &[
                "with_one/published_per_second",
                "with_one/delivered_per_second",
                "with_all/delivered_per_second",
                "quic_copy_core_ns_per_event",
            ],
        );
    }
}

#[test]
fn catching_up_reads_every_stored_event() {
    let value = measure("catch-up --events 3000 --runs 1");
    assert!((figure(&value, "events") - 3_000.0).abs() < 0.5);
    positive(
        &value,
        &[
            "events_per_second",
            "node/memory_peak_bytes",
            "consumer/memory_peak_bytes",
        ],
    );
}

#[test]
fn revoked_partners_are_told_and_take_nothing_past_their_position() {
    let value = measure("revoke --partners 3 --rate 500 --warmup 1 --runs 1");
    assert!((figure(&value, "revoked") - 3.0).abs() < 0.5);
    assert!(figure(&value, "past_the_position") < 0.5);
    positive(&value, &["told_after/p50_us", "least_taken_before"]);
}

#[test]
fn idle_subscriptions_are_all_connected_while_they_are_measured() {
    let value =
        measure("idle --subscriptions 30 --organizations 3 --per-reader 20 --seconds 1 --warmup 0");
    assert!((figure(&value, "connected") - 30.0).abs() < 0.5);
    positive(&value, &["node_memory_bytes"]);
}

#[test]
fn more_connections_than_a_key_may_have_are_refused_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(
        dir.path(),
        &[
            "bench",
            "idle",
            "--subscriptions",
            "3000",
            "--organizations",
            "2",
        ],
    );
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("1500 subscriptions of one organization")
            && said.contains("raise `--organizations`"),
        "{said}"
    );
}

#[test]
fn proofs_and_checkpoints_are_measured_on_one_log() {
    let value = measure("prove --events 600 --runs 1");
    // Genesis and events; what was published singly comes after the proofs.
    assert_eq!(figure(&value, "entries"), 601.0);
    assert_eq!(figure(&value, "older_entries"), 301.0);
    let measured = [
        "inclusion_ms",
        "inclusion_bytes",
        "consistency_ms",
        "consistency_bytes",
        "checkpoints",
    ];
    positive(&value, &measured);
}

#[test]
fn a_restart_finds_every_acknowledged_event() {
    let value = measure("restart --events 3000 --runs 1");
    assert!(figure(&value, "entries") >= 3_000.0);
    positive(&value, &["serves_after_ms"]);
}

#[test]
fn the_machine_is_measured_by_itself() {
    let value = measure("raw --sync-bytes 4096 --seconds 1 --runs 1");
    positive(
        &value,
        &[
            "disk/0/appended/mb_per_second",
            "disk/0/in_place/mb_per_second",
            "plain_sha256_ns_per_event",
            "quic/mb_per_second",
        ],
    );
}

#[test]
fn verifying_is_measured_beside_hashing() {
    let value = measure("verify --events 500 --seconds 1 --runs 1");
    positive(&value, &["events_per_second", "core_ms", "evidence_bytes"]);
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
    assert!(said.any(|line| line.unwrap().contains("warming up")));
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
