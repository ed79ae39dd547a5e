//! Keys that change while two nodes exchange: real processes, sockets and files.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use countersign_crypto::SigningKey;
use countersign_tlog::add_checkpoint::AddCheckpoint;
use countersign_tlog::checkpoint::sign_checkpoint;
use countersign_tlog::{Checkpoint, Note};
use serde_json::Value;
use support::{Node, Root, wait_until};

const STREAM: &str = "quakes";
const ROLES: [&str; 6] = [
    "log",
    "node",
    "agreement",
    "receipt",
    "witness",
    "organization",
];

fn serving(root: &Root, org: &str) -> Node {
    let mut node = Node::init(root.path(), org, &[]);
    node.serve();
    node
}

/// Two nodes that run, of which one reads the other's stream.
fn exchange(root: &Root) -> (Node, Node) {
    let (producer, consumer) = (serving(root, "Producer"), serving(root, "Consumer"));
    producer.json(&["stream", "create", STREAM]);
    producer.json(&["stream", "access", STREAM, "open"]);
    producer.share(STREAM, &consumer);
    (producer, consumer)
}

fn hand_in(root: &Root, node: &Node, from: u32, to: u32) {
    let file = root.path().join(format!("{from}.ndjson"));
    let lines = (from..to).fold(String::new(), |mut lines, n| {
        writeln!(lines, "{{\"id\":\"{n}\",\"magnitude\":{n}}}").unwrap();
        lines
    });
    fs::write(&file, lines).unwrap();
    let file = file.to_str().unwrap();
    let wrap = ["--type", "test.made", "--id-from", "id"];
    let words = [&["publish", STREAM, file][..], &wrap].concat();
    let output = node.run(&words);
    assert!(output.status.success(), "{output:?}");
}

fn size(node: &Node, stream: &str) -> u64 {
    let info = node.json(&["stream", "info", stream]);
    info["size"].as_u64().unwrap()
}

/// Waits until the reader has all that the producer has, and the producer a receipt for it.
fn caught_up(producer: &Node, consumer: &Node) {
    let entries = size(producer, STREAM);
    wait_until("the copy has come so far", || {
        let output = consumer.run(&["stream", "info", &format!("producer/{STREAM}"), "--json"]);
        let value: Value = serde_json::from_slice(&output.stdout).ok()?;
        (value["size"].as_u64()? == entries).then_some(())
    });
    wait_until("all of it is receipted", || {
        let status = producer.json(&["status"]);
        let of_stream = status["subscriptions"].as_array()?.first()?.clone();
        (of_stream["receipted"].as_u64()? == entries).then_some(())
    });
}

fn witnessed(node: &Node, entries: u64) {
    wait_until("the stream is witnessed", || {
        let got = node.fetch(&format!("/logs/{STREAM}/witnessed"), &[]);
        let note = (got.status == 200).then(|| Note::parse(&got.body).unwrap())?;
        let checkpoint = Checkpoint::parse_text(note.text()).unwrap();
        (checkpoint.size >= entries).then_some(())
    });
}

/// The rows of `key ls` of a role, as (state, fingerprint, file).
fn keys(node: &Node, role: &str) -> Vec<(String, String, String)> {
    let rows = node.lines(&["key", "ls"]).concat();
    let rows: Vec<Value> = serde_json::from_str(&rows)
        .or_else(|_| serde_json::from_str(&format!("[{}]", rows.replace("}{", "},{"))))
        .unwrap();
    let of_role = rows.iter().filter(|row| row["role"] == role);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    of_role
        .map(|row| (text(&row["state"]), text(&row["key"]), text(&row["file"])))
        .collect()
}

fn key_file(node: &Node, name: &str) -> SigningKey {
    let pem = fs::read_to_string(node.data.join("keys").join(name)).unwrap();
    SigningKey::from_pem(&pem).unwrap()
}

/// The verdict of the auditor about a bundle that is exported now.
fn audit(root: &Root, node: &Node, stream: &str, name: &str, trust: &[&str]) -> i32 {
    let out: PathBuf = root.path().join(name);
    let out = out.to_str().unwrap();
    node.json(&["evidence", "export", stream, "--out", out]);
    let mut words = vec!["evidence", "verify", out];
    for one in trust {
        words.extend(["--trust", *one]);
    }
    let output = node.run(&words);
    output.status.code().unwrap()
}

/// 1. Each key of each side is rotated while events flow; each time they go on, are receipted and witnessed. 2. Both nodes start again from what is on their
///    disks. 3. Who knows the first organization key alone finds the evidence of all of it whole.
#[test]
fn every_key_of_two_nodes_is_rotated_while_events_flow() {
    let root = Root::new();
    let (mut producer, mut consumer) = exchange(&root);
    let invitation = producer.json(&["partner", "invite", "--stream", STREAM]);
    let profile = root.path().join("reader.json");
    let profile = profile.to_str().unwrap();
    let link = invitation["link"].as_str().unwrap();
    let joined = ["partner", "join", link, "--yes", "--org", "Reader"];
    consumer.json(&[&joined[..], &["--profile", profile]].concat());
    let mut next = 0;
    let mut more = |producer: &Node, consumer: &Node| {
        hand_in(&root, producer, next, next + 5);
        next += 5;
        caught_up(producer, consumer);
    };
    more(&producer, &consumer);
    for role in ROLES {
        for node in [&producer, &consumer] {
            let before = keys(node, role);
            let rotated = node.json(&["key", "rotate", role, "--overlap", "1d"]);
            let now = keys(node, role);
            assert_eq!(now.len(), before.len() + 1, "{role}: {now:?}");
            let current = now.iter().find(|(state, ..)| state == "current").unwrap();
            assert_eq!(current.1, rotated["key"].as_str().unwrap());
            assert!(!current.2.is_empty());
            let state = if role == "organization" {
                "retired"
            } else {
                "overlapping"
            };
            assert_eq!(now[0].0, state, "{role}: {now:?}");
        }
        more(&producer, &consumer);
        witnessed(&producer, size(&producer, STREAM));
    }
    let authority = producer.json(&["status"])["authority"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        authority, producer.fingerprint,
        "the name is that of the first key"
    );
    for node in [&producer, &consumer] {
        let log = node.log();
        assert!(!log.contains("reading stopped"), "{log}");
        assert!(
            node.lines(&["ledger", "ls", "--kind", "fault"])
                .concat()
                .replace(['[', ']'], "")
                .is_empty()
        );
    }
    // A reader without a node that was away all the time.
    let origin = producer.json(&["stream", "info", STREAM])["origin"].clone();
    let reading = ["subscribe", origin.as_str().unwrap(), "--profile", profile];
    let read = consumer.lines(&[&reading[..], &["--from", "start", "--count", "20"]].concat());
    assert_eq!(read.len(), 20);

    assert!(producer.terminate().success() && consumer.terminate().success());
    producer.serve();
    consumer.serve();
    more(&producer, &consumer);
    witnessed(&producer, size(&producer, STREAM));
    let (first, second) = (producer.fingerprint.clone(), consumer.fingerprint.clone());
    assert_eq!(audit(&root, &producer, STREAM, "own", &[&first]), 0);
    let copy = format!("producer/{STREAM}");
    assert_eq!(
        audit(&root, &consumer, &copy, "copy", &[&first, &second]),
        0
    );
    assert_eq!(audit(&root, &consumer, &copy, "half", &[&second]), 9);
    // What was signed under a key before, under the checkpoint of a later one.
    let early = root.path().join("early");
    let early = early.to_str().unwrap();
    producer.json(&["evidence", "export", STREAM, "--to", "4", "--out", early]);
    let verified = producer.run(&["evidence", "verify", early, "--trust", &first]);
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    let proof = root.path().join("one.tlog-proof");
    let proof = proof.to_str().unwrap();
    producer.json(&["stream", "proof", STREAM, "3", "--out", proof]);
    let verified = producer.run(&["evidence", "verify", proof, "--trust", &first]);
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    for node in [&producer, &consumer] {
        assert_eq!(node.json(&["ledger", "verify"])["whole"], true);
    }
}

/// 1. The log key is stolen and revoked: events go on under another one. 2. What the thief signs is refused, kept and recorded by the witness, also after a
///    restart. 3. The other keys are revoked: sessions end, come again under the new ones, and what was exchanged stays valid.
#[test]
fn a_stolen_key_is_revoked_and_the_exchange_goes_on_without_it() {
    let root = Root::new();
    let (producer, mut consumer) = exchange(&root);
    hand_in(&root, &producer, 0, 5);
    caught_up(&producer, &consumer);
    let stolen = key_file(&producer, "log.pem");
    let reason = ["--reason", "the machine was stolen", "--yes"];
    let revoke =
        |node: &Node, what: &str| node.json(&[&["key", "revoke", what][..], &reason].concat());
    let revoked = revoke(&producer, "log");
    assert_eq!(
        revoked["revoked"],
        stolen.public().fingerprint().to_string()
    );
    assert!(revoked["heads"].as_u64().unwrap() >= 2);
    assert_eq!(keys(&producer, "log")[0].0, "revoked");
    hand_in(&root, &producer, 5, 10);
    caught_up(&producer, &consumer);
    witnessed(&producer, size(&producer, STREAM));

    let origin = producer.json(&["stream", "info", STREAM])["origin"].clone();
    let forged = Checkpoint {
        origin: origin.as_str().unwrap().to_owned(),
        size: 1_000,
        root: [9; 32],
    };
    let request = AddCheckpoint {
        old: size(&producer, STREAM),
        proof: Vec::new(),
        checkpoint: sign_checkpoint(&forged, &stolen).note_text,
    };
    let show = |witness: &Node| {
        let answer = witness.post("/witness/add-checkpoint", request.encode().as_bytes());
        let answer = answer.unwrap();
        let body = String::from_utf8(answer.body).unwrap();
        assert!(answer.status == 403 && body.contains("revoked"), "{body}");
    };
    show(&consumer);
    let faults = consumer
        .lines(&["ledger", "ls", "--kind", "fault"])
        .concat();
    assert!(
        faults.contains("revoked-key") || faults.contains("revoked"),
        "{faults}"
    );
    let revocations = consumer
        .lines(&["ledger", "ls", "--kind", "key-revocation"])
        .concat();
    assert!(revocations.contains("key-revocation"), "{revocations}");
    consumer.kill();
    consumer.serve();
    show(&consumer);
    caught_up(&producer, &consumer);

    for what in ["node", "receipt", "agreement", "witness"] {
        for node in [&producer, &consumer] {
            revoke(node, what);
            assert_eq!(keys(node, what)[0].0, "revoked");
        }
        let from = size(&producer, STREAM) as u32 + 100;
        hand_in(&root, &producer, from, from + 5);
        caught_up(&producer, &consumer);
    }
    witnessed(&producer, size(&producer, STREAM));
    let (first, second) = (producer.fingerprint.clone(), consumer.fingerprint.clone());
    assert_eq!(audit(&root, &producer, STREAM, "own", &[&first]), 0);
    let copy = format!("producer/{STREAM}");
    assert_eq!(
        audit(&root, &consumer, &copy, "copy", &[&first, &second]),
        0
    );
}

/// The organization key lies elsewhere: nothing changes without it, and everything with it.
#[test]
fn keys_are_changed_with_an_organization_key_that_is_kept_elsewhere() {
    let root = Root::new();
    let node = Node::init(root.path(), "Offline", &[]);
    let away = root.path().join("organization.pem");
    fs::rename(node.data.join("keys/organization.pem"), &away).unwrap();
    let missing = node.run(&["key", "rotate", "log"]);
    let errors = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(
        !missing.status.success() && errors.contains("--organization-key"),
        "{errors}"
    );
    let other = node.data.join("keys/node.pem");
    let away = away.to_str().unwrap();
    let by = |file: &str, words: &[&str]| {
        node.run(&[words, &["--organization-key", file, "--json"]].concat())
    };
    let wrong = by(other.to_str().unwrap(), &["key", "rotate", "log"]);
    assert!(!wrong.status.success(), "{wrong:?}");
    assert!(by(away, &["key", "rotate", "log"]).status.success());
    let nowhere = by(away, &["key", "rotate", "organization"]);
    assert!(!nowhere.status.success(), "{nowhere:?}");
    let second = root.path().join("second.pem");
    let second = second.to_str().unwrap();
    assert!(
        by(away, &["key", "rotate", "organization", "--out", second])
            .status
            .success()
    );
    let first = by(away, &["key", "rotate", "node"]);
    assert!(
        !first.status.success(),
        "it has given its place away: {first:?}"
    );
    assert!(by(second, &["key", "rotate", "node"]).status.success());
    // A key that ends soon is told of.
    assert!(node.json(&["status"])["keys_ending"].is_null());
    assert!(
        by(second, &["key", "rotate", "receipt", "--period", "20d"])
            .status
            .success()
    );
    let status = node.json(&["status"]);
    let ending = status["keys_ending"].as_array().unwrap();
    assert_eq!(ending.len(), 1);
    assert!(
        ending[0]
            .as_str()
            .unwrap()
            .starts_with("the receipt key ends at ")
    );
    let doctor = node.json(&["doctor"]).to_string();
    assert!(doctor.contains("the receipt key ends at "), "{doctor}");
}
