//! The demo, as a person and as a program see it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::fs;
use std::path::Path;

use serde_json::Value;
use support::{program, run};

/// Temporary folders of the demo that are there.
fn left_behind(folder: &Path) -> usize {
    let names = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    names
        .filter(|name| name.to_str().unwrap().starts_with("countersign-demo-"))
        .count()
}

#[test]
fn every_step_proves_what_it_says_and_nothing_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let output = program(dir.path())
        .env("TMPDIR", dir.path())
        .args(["demo", "--json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert_eq!(left_behind(dir.path()), 0);
    let steps: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let names: Vec<&str> = steps
        .iter()
        .map(|step| step["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "organizations",
            "publish",
            "join",
            "follow",
            "refusal",
            "receipts",
            "audit",
            "tampering",
            "next"
        ]
    );
    for (number, step) in steps.iter().enumerate() {
        assert_eq!(step["step"], number + 1);
        assert_eq!(step["ok"], true);
    }
    let [
        organizations,
        publish,
        join,
        follow,
        refusal,
        receipts,
        audit,
        tampering,
        next,
    ] = &steps[..]
    else {
        panic!("{} steps", steps.len());
    };

    let fingerprints: Vec<&Value> = organizations["organizations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|organization| &organization["fingerprint"])
        .collect();
    assert_eq!(fingerprints.len(), 3);
    assert!(
        fingerprints[0] != fingerprints[1]
            && fingerprints[1] != fingerprints[2]
            && fingerprints[0] != fingerprints[2]
    );

    // The genesis and the first half.
    assert_eq!(publish["events"], 148);
    assert_eq!(publish["size"], 149);
    let checkpoint = publish["checkpoint"].as_str().unwrap();
    assert_eq!(checkpoint.lines().next().unwrap(), publish["stream"]);
    assert_eq!(checkpoint.lines().nth(1).unwrap(), "149");

    assert_eq!(join["payload_sha256"], join["terms"]["payload_sha256"]);
    assert_ne!(
        join["signatures"]["producer"],
        join["signatures"]["partner"]
    );
    assert_eq!(*fingerprints[0], join["terms"]["producer_fingerprint"]);
    assert_eq!(*fingerprints[1], join["terms"]["consumer_fingerprint"]);

    assert_eq!(follow["caught_up_events"], 148);
    assert_eq!(follow["live_events"], 149);
    assert_eq!(follow["first_three"].as_array().unwrap().len(), 3);
    assert_eq!(follow["first_three"][0]["sequence"], 1);
    assert_eq!(
        follow["first_three"][0]["data"]["place"],
        "50km NNW of Sangiang, Indonesia"
    );
    assert_eq!(follow["first_receipted_events"], 148);
    assert_eq!(follow["size"], 298);
    assert_eq!(follow["receipted_size"], 298);
    assert_eq!(follow["receipted_events"], 297);
    assert_eq!(follow["lag"], 0);

    assert_eq!(refusal["code"], "not-permitted");
    assert!(
        refusal["reason"]
            .as_str()
            .unwrap()
            .contains("is not permitted")
    );
    assert_eq!(refusal["policies"].as_array().unwrap().len(), 0);
    assert_eq!(
        refusal["advice"][0],
        "an active agreement that covers this stream"
    );
    assert_eq!(
        refusal["signed_by"],
        serde_json::json!([join["signatures"]["producer"]])
    );
    assert_eq!(refusal["strangers_refused"], 1);

    let (producer, partner) = (
        &receipts["sides"]["producer"],
        &receipts["sides"]["partner"],
    );
    assert_eq!(producer["receipt_sha256"].as_str().unwrap().len(), 64);
    assert_eq!(producer["receipt_sha256"], partner["receipt_sha256"]);
    for side in [producer, partner] {
        assert_eq!(side["size"], 298);
        assert_eq!(side["level"], "verified");
        assert_eq!(side["ledger_verified"], true);
        let kinds: Vec<&str> = side["ledger"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["kind"].as_str().unwrap())
            .collect();
        assert!(
            kinds.contains(&"agreement") && kinds.contains(&"receipt"),
            "{kinds:?}"
        );
    }

    assert_eq!(audit["verdict"], 0);
    assert_eq!(audit["verdict_without_trust"], 9);
    assert_eq!(audit["trust"], *fingerprints[0]);
    assert_eq!(audit["report"]["verdict"], "whole");
    assert_eq!(audit["report"]["size"], 298);
    let checks = audit["report"]["checks"].as_array().unwrap().len();
    assert_eq!(checks, countersign_audit::Check::ALL.len());

    assert_eq!(tampering["verdict"], 6);
    assert_eq!(tampering["altered_entry"], follow["strongest"]["sequence"]);
    assert_eq!(tampering["named_entry"], tampering["altered_entry"]);

    assert_eq!(next["commands"].as_array().unwrap().len(), 3);
    assert_eq!(next["kept"], Value::Null);
}

#[test]
fn the_story_ends_with_three_commands_and_fits_a_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &["demo"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    for step in 1..=9 {
        assert!(
            text.contains(&format!("\n{step}  ")),
            "step {step}:\n{text}"
        );
    }
    let end = text.split("\n9  ").nth(1).unwrap();
    for command in [" init --org ", " publish events ", " partner invite "] {
        assert_eq!(end.matches(command).count(), 1, "{command}:\n{end}");
    }
    // No terminal: no colour.
    assert!(!text.contains('\u{1b}'));
    // The commands name the program as it was called, here by a long path.
    for line in text.lines().filter(|line| !line.contains("/countersign ")) {
        let columns = line.chars().count();
        // A signature is one word.
        assert!(
            columns <= 88 || line.starts_with("   signature"),
            "{columns} columns: {line}"
        );
    }
}

#[test]
fn kept_folders_can_be_looked_into_and_are_not_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &["demo", "--keep", "kept"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("To look around:"), "{text}");

    let value = |arguments: &[&str]| -> Value {
        let output = run(dir.path(), arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let own = value(&["stream", "ls", "--json", "--data", "kept/seismic-survey"]);
    assert_eq!(
        (&own[0]["name"], &own[0]["size"]),
        (&"earthquakes".into(), &298.into())
    );
    let copy = value(&["stream", "ls", "--json", "--data", "kept/harbor-insurance"]);
    assert_eq!(
        (&copy[0]["name"], &copy[0]["size"]),
        (&"seismic-survey/earthquakes".into(), &298.into())
    );
    assert_eq!(
        value(&["stream", "ls", "--json", "--data", "kept/curious-corp"]),
        serde_json::json!([])
    );

    // The auditor's folder is enough for an auditor.
    let judge = |file: &str| {
        let file = format!("kept/auditor/{file}");
        let arguments = [
            "evidence",
            "verify",
            &file,
            "--trust",
            "kept/auditor/fingerprint.txt",
        ];
        run(dir.path(), &arguments).status.code()
    };
    assert_eq!(judge("earthquakes.tar"), Some(0));
    assert_eq!(judge("earthquakes-altered.tar"), Some(6));

    let again = run(dir.path(), &["demo", "--keep", "kept"]);
    assert!(!again.status.success());
    let error = String::from_utf8(again.stderr).unwrap();
    assert!(
        error.contains("is not empty") && error.contains("[data-dir-exists]"),
        "{error}"
    );
}
