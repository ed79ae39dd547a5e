//! Fields between real nodes: what the partner's plan does not name is nowhere in what it has, and all it has is evidence.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use support::{Node, Root, wait_until};

const STREAM: &str = "orders";
const EVENTS: u64 = 100;
/// Small segments: every byte of them is looked at.
const SETTINGS: &[(&str, &str)] = &[("COUNTERSIGN_JOURNAL_SEGMENT_BYTES", "65536")];
/// The name of a member that is withheld, and what it begins with: its values are two digits.
const NAME: &str = "canary-name-7fLx";
const VALUE: &str = "canary-value-2VtR-";

fn publish(root: &Root, node: &Node) {
    let file = root.path().join("orders.ndjson");
    let lines = (1..=EVENTS).fold(String::new(), |mut lines, n| {
        writeln!(
            lines,
            r#"{{"specversion":"1.0","id":"{n}","source":"/orders","type":"com.example.order","data":{{"item":"i{n}", "{NAME}":"{VALUE}{:02}","amount":{n}}}}}"#,
            n % 100
        )
        .unwrap();
        lines
    });
    fs::write(&file, lines).unwrap();
    node.json(&["publish", STREAM, file.to_str().unwrap()]);
    fs::remove_file(&file).unwrap();
}

fn events(node: &Node, stream: &str) -> Vec<(Value, Value)> {
    let lines = node.lines(&["subscribe", stream, "--from", "start"]);
    let shown = |line: &String| {
        let event: Value = serde_json::from_str(line).unwrap();
        (event["data"].clone(), event["withheld"].clone())
    };
    lines.iter().map(shown).collect()
}

/// Files below a folder in which a text is.
fn files_with(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).unwrap();
            waiting.extend(entries.map(|entry| entry.unwrap().path()));
        } else if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file()) {
            let bytes = fs::read(&path).unwrap_or_default();
            let mut windows = bytes.windows(text.len());
            if windows.any(|window| window == text.as_bytes()) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

fn verify(node: &Node, path: &Path, trusted: &[&Node]) -> (Option<i32>, String) {
    let mut words = vec!["evidence", "verify", path.to_str().unwrap()];
    for node in trusted {
        words.extend(["--trust", &node.fingerprint]);
    }
    let output = node.run(&words);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), text)
}

#[test]
fn a_partner_verifies_the_members_it_is_shown_and_has_nothing_of_the_others() {
    let root = Root::new();
    let mut producer = Node::init(root.path(), "Producer", SETTINGS);
    let mut consumer = Node::init(root.path(), "Consumer", SETTINGS);
    producer.serve();
    consumer.serve();
    producer.json(&["stream", "create", STREAM, "--commit", "fields"]);
    assert_eq!(
        producer.json(&["stream", "info", STREAM])["commit"],
        "fields"
    );
    let invite = [
        "partner",
        "invite",
        "--stream",
        STREAM,
        "--fields",
        "item,amount",
    ];
    let link = producer.json(&invite)["link"].as_str().unwrap().to_owned();
    consumer.json(&["partner", "join", &link, "--yes"]);
    publish(&root, &producer);
    wait_until("the consumer has all", || {
        (consumer.entries(STREAM)? == producer.entries(STREAM)?).then_some(())
    });

    let copied = format!("Producer/{STREAM}");
    let expected: Vec<_> = (1..=EVENTS)
        .map(|n| (json!({"item": format!("i{n}"), "amount": n}), json!(1)))
        .collect();
    assert_eq!(events(&consumer, &copied), expected);
    let own = events(&producer, STREAM);
    assert_eq!(own[6].0[NAME], format!("{VALUE}07"));
    assert_eq!(own[6].1, Value::Null);

    // Evidence of both, and of one event.
    let out = |name: &str| root.path().join(name);
    let export = |node: &Node, stream: &str, name: &str| {
        let path = out(name);
        node.json(&[
            "evidence",
            "export",
            stream,
            "--out",
            path.to_str().unwrap(),
        ]);
        path
    };
    let theirs = export(&consumer, &copied, "copy");
    let (code, text) = verify(&consumer, &theirs, &[&producer, &consumer]);
    assert_eq!(code, Some(0), "{text}");
    let told = format!("of {EVENTS} events {EVENTS} members are not disclosed");
    assert!(text.contains(&told), "{text}");
    let ours = export(&producer, STREAM, "original");
    let (code, text) = verify(&consumer, &ours, &[&producer, &consumer]);
    assert_eq!(code, Some(0), "{text}");
    assert!(!text.contains("not disclosed"), "{text}");
    let proof = out("one.tlog-proof");
    let words = [
        "stream", "proof", STREAM, "7", "--fields", "amount", "--out",
    ];
    producer.json(&[&words[..], &[proof.to_str().unwrap()]].concat());
    let (code, text) = verify(&consumer, &proof, &[&producer]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("of which 2 members are not disclosed"),
        "{text}"
    );
    assert_eq!(files_with(&proof.with_extension("content"), VALUE), [""; 0]);

    // Neither name nor value, in what it has and in what it hands on.
    consumer.terminate();
    for text in [NAME, VALUE] {
        assert_eq!(files_with(&consumer.data, text), [""; 0]);
        assert_eq!(files_with(&theirs, text), [""; 0]);
        assert!(!files_with(&producer.data, text).is_empty());
    }
}
