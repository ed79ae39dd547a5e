//! Erased and expired content: no byte of it is left in the data directories of both sides, and the evidence still verifies.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use support::{Node, Root, wait_until};

const STREAM: &str = "orders";

const SETTINGS: &[(&str, &str)] = &[
    ("COUNTERSIGN_JOURNAL_SEGMENT_BYTES", "65536"),
    ("COUNTERSIGN_QUIC_IDLE_TIMEOUT_MS", "1000"),
    ("COUNTERSIGN_QUIC_KEEP_ALIVE_MS", "250"),
];

/// What is erased says this: in its data and in its attributes.
fn canary(sequence: u64) -> String {
    format!("canary-of-{sequence}-Zq7fLx2VtR")
}

/// Every file of a data directory that holds a text, as it is, in base64 at any place of a group, or in hexadecimal.
fn files_with(data: &Path, text: &str) -> Vec<String> {
    let bytes = text.as_bytes();
    let mut needles = vec![bytes.to_vec(), hex::encode(bytes).into_bytes()];
    for skipped in 0..3 {
        // Whole groups only: what stands beside them changes the ends.
        let group = &bytes[skipped..skipped + (bytes.len() - skipped) / 3 * 3];
        needles.push(STANDARD.encode(group).into_bytes());
    }
    let mut found = Vec::new();
    let mut waiting = vec![data.to_owned()];
    while let Some(path) = waiting.pop() {
        let kind = fs::symlink_metadata(&path).map(|meta| meta.file_type());
        match kind {
            Ok(kind) if kind.is_dir() => {
                waiting.extend(
                    fs::read_dir(&path)
                        .unwrap()
                        .map(|entry| entry.unwrap().path()),
                );
            }
            Ok(kind) if kind.is_file() => {
                let bytes = fs::read(&path).unwrap_or_default();
                let holds =
                    |needle: &Vec<u8>| bytes.windows(needle.len()).any(|window| window == needle);
                if needles.iter().any(holds) {
                    found.push(path.display().to_string());
                }
            }
            // Sockets hold no bytes; what is gone meanwhile holds none either.
            _ => {}
        }
    }
    found
}

fn publish(root: &Root, node: &Node, from: u64, to: u64) {
    let file = root.path().join(format!("{from}.ndjson"));
    let lines = (from..to).fold(String::new(), |mut lines, n| {
        let canary = canary(n);
        writeln!(
            lines,
            r#"{{"specversion":"1.0","id":"{n}-{canary}","source":"/orders","type":"com.example.order","subject":"{canary}","data":{{"who":"{canary}","n":{n}}}}}"#
        )
        .unwrap();
        lines
    });
    fs::write(&file, lines).unwrap();
    node.json(&["publish", STREAM, file.to_str().unwrap()]);
    fs::remove_file(&file).unwrap();
}

/// Two nodes under an agreement, and `events` events that both have; the canary of event n lies at sequence n.
fn partners(root: &Root, erasure: &str, events: u64) -> (Node, Node) {
    let mut producer = Node::init(root.path(), "Producer", SETTINGS);
    let mut consumer = Node::init(root.path(), "Consumer", SETTINGS);
    producer.serve();
    consumer.serve();
    producer.json(&["stream", "create", STREAM]);
    let invite = [
        "partner",
        "invite",
        "--stream",
        STREAM,
        "--erasure",
        erasure,
    ];
    let invitation = producer.json(&invite);
    consumer.json(&[
        "partner",
        "join",
        invitation["link"].as_str().unwrap(),
        "--yes",
    ]);
    publish(root, &producer, 1, events + 1);
    wait_for_size(&producer, &consumer);
    (producer, consumer)
}

fn wait_for_size(producer: &Node, consumer: &Node) {
    let size = producer.entries(STREAM).unwrap();
    wait_until("the consumer receipts all", || {
        let receipts = producer.json(&["receipt", "ls", "--limit", "1"]);
        let covered = receipts.as_array()?.last()?["size"].as_u64();
        (covered >= Some(size) && consumer.entries(STREAM) >= Some(size)).then_some(())
    });
}

fn state(node: &Node) -> Value {
    let requests = node.json(&["erasure", "ls"]);
    requests[0].clone()
}

fn wait_for_state(node: &Node, expected: &str) {
    wait_until("the request is answered", || {
        (state(node)["state"] == expected).then_some(())
    });
}

/// Exports a stream and verifies it, with the program itself.
fn exit_of_export(root: &Root, node: &Node, stream: &str, name: &str, trust: &[&Node]) -> i32 {
    let out = root.path().join(name);
    let path = out.to_str().unwrap();
    node.json(&["evidence", "export", stream, "--out", path]);
    let mut words = vec!["evidence", "verify", path];
    for node in trust {
        words.extend(["--trust", &node.fingerprint]);
    }
    let verified = node.run(&words);
    verified.status.code().unwrap()
}

/// 1. Events, one with a canary, at both nodes. 2. It is erased, and the consumer, who obeys, answers *done*. 3. No byte of it is left in both directories, not
///    after kills either. 4. Evidence of both sides is whole, the proof of the event shows a leaf, readers are told of the gap.
#[test]
fn an_erased_event_is_gone_from_both_directories_and_evidence_is_whole() {
    let root = Root::new();
    let (mut producer, mut consumer) = partners(&root, "obey", 30);
    let copy = format!("producer/{STREAM}");
    assert!(!files_with(&producer.data, &canary(7)).is_empty());
    assert!(!files_with(&consumer.data, &canary(7)).is_empty());

    let not_confirmed = producer.run(&["stream", "erase", STREAM, "7", "--reason", "asked for"]);
    assert!(!not_confirmed.status.success(), "it asks first");
    let erase = [
        "stream",
        "erase",
        STREAM,
        "7",
        "--reason",
        "asked for",
        "--yes",
    ];
    let erased = producer.json(&erase);
    assert_eq!(
        (&erased["sequence"], &erased["tombstone"]),
        (&7.into(), &31.into())
    );
    assert_eq!(erased["asked"][0]["partner"], "consumer");
    // As soon as the command has returned.
    assert_eq!(files_with(&producer.data, &canary(7)), [""; 0]);
    wait_for_state(&producer, "done");
    assert_eq!(state(&consumer)["state"], "done");
    assert_eq!(files_with(&consumer.data, &canary(7)), [""; 0]);
    assert!(!files_with(&consumer.data, &canary(8)).is_empty());
    for node in [&producer, &consumer] {
        let answers = node.lines(&["ledger", "ls", "--kind", "erasure-answer"]);
        assert!(
            answers.iter().any(|line| line.contains("answered: done")),
            "{answers:?}"
        );
    }
    let again = producer.run(&erase);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("already-erased"));

    producer.kill();
    consumer.kill();
    producer.serve();
    consumer.serve();
    for node in [&producer, &consumer] {
        assert_eq!(files_with(&node.data, &canary(7)), [""; 0]);
        let doctor = node.run(&["doctor"]);
        assert_eq!(doctor.status.code(), Some(0), "{doctor:?}");
        let ledger = node.run(&["ledger", "verify"]);
        assert_eq!(ledger.status.code(), Some(0), "{ledger:?}");
    }
    publish(&root, &producer, 40, 45);
    wait_for_size(&producer, &consumer);

    let trust = [&producer, &consumer];
    assert_eq!(
        exit_of_export(&root, &producer, STREAM, "theirs", &trust[..1]),
        0
    );
    assert_eq!(
        exit_of_export(&root, &consumer, &copy, "copy.tar", &trust),
        0
    );
    let manifest = fs::read_to_string(root.path().join("theirs/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let gone = serde_json::json!([{ "log": 0, "from": 7, "to": 8, "reason": "erased" }]);
    assert_eq!(manifest["undisclosed"], gone);

    let out = root.path().join("orders-7.tlog-proof");
    let path = out.to_str().unwrap();
    let proof = producer.json(&["stream", "proof", STREAM, "7", "--out", path]);
    assert_eq!(proof["erased_by"], 31);
    assert_eq!(proof["files"].as_array().unwrap().len(), 3);
    let verified = producer.run(&["evidence", "verify", path, "--trust", &producer.fingerprint]);
    assert_eq!(verified.status.code(), Some(9));
    let text = String::from_utf8_lossy(&verified.stdout);
    assert!(
        text.contains("what is proven is that something with"),
        "{text}"
    );

    let lines = consumer.lines(&["subscribe", &copy, "--from", "6", "--count", "3"]);
    let lines: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let gap = serde_json::json!({ "first": 7, "end": 8, "reason": "erased", "by": 31 });
    assert_eq!(lines[1]["gap"], gap, "{lines:?}");
    assert_eq!(lines.iter().filter(|line| line["gap"].is_null()).count(), 3);
    let shown = consumer.run(&["subscribe", &copy, "--from", "6", "--count", "3"]);
    let note = String::from_utf8_lossy(&shown.stderr);
    assert!(
        note.contains("entry 7 has no content: erased, as entry 31 says"),
        "{note}"
    );

    // Without an agreement the copy is still one that the producer may ask about; both begin anew, so that no session is left.
    let agreements = producer.json(&["agreement", "ls"]);
    let id = agreements[0]["id"].as_str().unwrap();
    producer.json(&["agreement", "terminate", id, "--reason", "over", "--yes"]);
    wait_until("the consumer knows", || {
        let ended = consumer.lines(&["ledger", "ls", "--kind", "termination"]);
        (!ended.concat().trim_matches(['[', ']']).is_empty()).then_some(())
    });
    producer.kill();
    consumer.kill();
    producer.serve();
    consumer.serve();
    producer.json(&[
        "stream",
        "erase",
        STREAM,
        "9",
        "--reason",
        "asked for",
        "--yes",
    ]);
    wait_until("the second request is answered", || {
        let requests = producer.json(&["erasure", "ls"]);
        let done = |request: &Value| request["state"] == "done";
        requests.as_array().unwrap().iter().all(done).then_some(())
    });
    assert_eq!(files_with(&consumer.data, &canary(9)), [""; 0]);

    // A partner that joins now gets the log with the gap, and what it exports is whole too.
    let mut late = Node::init(root.path(), "Late", SETTINGS);
    late.serve();
    producer.share(STREAM, &late);
    wait_until("the late one has all", || {
        (late.entries(STREAM) == producer.entries(STREAM)).then_some(())
    });
    assert_eq!(files_with(&late.data, &canary(7)), [""; 0]);
    assert_eq!(
        exit_of_export(&root, &late, &copy, "late-copy", &[&producer, &late]),
        0
    );
}

/// 1. Under `ask` the request waits. 2. A hold is answered *held*. 3. Released, it waits again; a person refuses, then approves. 4. It is gone.
#[test]
fn under_ask_people_decide_and_the_producer_sees_what() {
    let root = Root::new();
    let (producer, consumer) = partners(&root, "ask", 10);
    let copy = format!("producer/{STREAM}");
    consumer.json(&["erasure", "hold", &copy, "--reason", "case 7"]);
    producer.json(&[
        "stream",
        "erase",
        STREAM,
        "3",
        "--reason",
        "asked for",
        "--yes",
    ]);
    assert_eq!(files_with(&producer.data, &canary(3)), [""; 0]);
    wait_for_state(&producer, "held");
    assert!(
        state(&producer)["answer"]
            .as_str()
            .unwrap()
            .contains("case 7")
    );
    let id = state(&consumer)["id"].as_str().unwrap().to_owned();
    let held = consumer.run(&["erasure", "approve", &id]);
    assert_eq!(held.status.code(), Some(7));
    assert!(String::from_utf8_lossy(&held.stderr).contains("legal-hold"));
    consumer.json(&["erasure", "release", &copy]);
    assert_eq!(state(&consumer)["state"], "waiting");
    consumer.json(&["erasure", "refuse", &id, "--reason", "we are not sure"]);
    wait_for_state(&producer, "refused");
    assert!(!files_with(&consumer.data, &canary(3)).is_empty());
    consumer.json(&["erasure", "approve", &id[..12], "--reason", "now we are"]);
    assert_eq!(files_with(&consumer.data, &canary(3)), [""; 0]);
    wait_for_state(&producer, "done");
    assert_eq!(state(&producer)["answer"], "now we are");
}

/// 1. Retention by count. 2. What is due expires at once, and at the consumer when the expiry reaches its copy. 3. Nothing of it is left, evidence is whole.
#[test]
fn expired_events_are_gone_from_both_directories_and_evidence_is_whole() {
    let root = Root::new();
    // Enough for several segments, so that sealed ones are met too.
    let (mut producer, consumer) = partners(&root, "obey", 600);
    let copy = format!("producer/{STREAM}");
    let kept = producer.json(&["stream", "retention", STREAM, "--count", "100"]);
    // 601 entries, and the settings.
    assert_eq!(kept["expired_below"], 502);
    assert_eq!(
        producer.json(&["stream", "info", STREAM])["retention"],
        "100 entries"
    );
    let gone = [1, 250, 501];
    for sequence in gone {
        assert_eq!(files_with(&producer.data, &canary(sequence)), [""; 0]);
    }
    wait_for_size(&producer, &consumer);
    for sequence in gone {
        wait_until("nothing of it is left", || {
            files_with(&consumer.data, &canary(sequence))
                .is_empty()
                .then_some(())
        });
    }
    for node in [&producer, &consumer] {
        assert!(!files_with(&node.data, &canary(502)).is_empty());
    }
    let trust = [&producer, &consumer];
    assert_eq!(
        exit_of_export(&root, &producer, STREAM, "theirs", &trust[..1]),
        0
    );
    assert_eq!(exit_of_export(&root, &consumer, &copy, "copy", &trust), 0);
    let lines = consumer.lines(&["subscribe", &copy, "--count", "1"]);
    let gap: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(gap["gap"]["reason"], "expired", "{gap}");
    assert_eq!(
        (&gap["gap"]["first"], &gap["gap"]["end"]),
        (&1.into(), &502.into())
    );
    // The limit goes; what is gone stays so.
    let kept = producer.json(&["stream", "retention", STREAM, "--keep-all"]);
    assert_eq!(kept["retention"], "all");
    producer.kill();
    producer.serve();
    assert_eq!(files_with(&producer.data, &canary(250)), [""; 0]);
}
