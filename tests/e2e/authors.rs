//! Author signatures between real nodes: made by `publish --sign-as`, wanted by the stream, seen by the reader, kept in the evidence.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::fs;
use std::path::Path;

use serde_json::Value;
use support::{Node, Root, wait_until};

const STREAM: &str = "orders";

fn lines(root: &Root, name: &str, first: u64) -> String {
    let file = root.path().join(name);
    let line = |n: u64| {
        format!(
            r#"{{"specversion":"1.0","id":"{n}","source":"/orders","type":"com.example.order","region":"north","data":{{"n": {n}}}}}"#
        )
    };
    fs::write(&file, format!("{}\n{}\n", line(first), line(first + 1))).unwrap();
    file.to_str().unwrap().to_owned()
}

fn error_code(node: &Node, arguments: &[&str]) -> (i32, String) {
    let output = node.run(&[arguments, &["--json"]].concat());
    let error: Value = serde_json::from_slice(&output.stderr).expect("the error is JSON");
    let code = error["error"]["code"].as_str().unwrap_or_default();
    (output.status.code().unwrap_or(-1), code.to_owned())
}

fn key(node: &Node, path: &Path) -> (String, String) {
    let made = node.json(&["app", "key", path.to_str().unwrap()]);
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    (text("key"), text("fingerprint"))
}

fn signatures(node: &Node, stream: &str) -> Vec<String> {
    let events = node.lines(&["subscribe", stream, "--from", "start"]);
    let signature = |line: &String| {
        let event: Value = serde_json::from_str(line).unwrap();
        event["authorsignature"]
            .as_str()
            .unwrap_or("none")
            .to_owned()
    };
    events.iter().map(signature).collect()
}

#[test]
fn a_signed_event_is_known_by_its_author_at_both_ends_and_an_unsigned_one_is_refused() {
    let root = Root::new();
    let mut producer = Node::init(root.path(), "Producer", &[]);
    let mut consumer = Node::init(root.path(), "Consumer", &[]);
    producer.serve();
    consumer.serve();
    let (author, other) = (
        root.path().join("author.pem"),
        root.path().join("other.pem"),
    );
    let (public, fingerprint) = key(&producer, &author);
    let (_, other_fingerprint) = key(&producer, &other);
    assert_eq!(key(&producer, &author).0, public, "the file stays");
    let (author, other) = (author.to_str().unwrap(), other.to_str().unwrap());
    producer.json(&[
        "stream",
        "create",
        STREAM,
        "--author-key",
        &public,
        "--require-author",
    ]);
    producer.share(STREAM, &consumer);

    let (one, two, three) = (
        lines(&root, "1", 1),
        lines(&root, "2", 3),
        lines(&root, "3", 5),
    );
    let refused = (6, "author-signature".to_owned());
    assert_eq!(error_code(&producer, &["publish", STREAM, &one]), refused);
    let with_other = ["publish", STREAM, &one, "--sign-as", other];
    assert_eq!(error_code(&producer, &with_other), refused);
    let with_author = ["publish", STREAM, one.as_str(), "--sign-as", author];
    assert_eq!(producer.json(&with_author)["published"], 2);
    // The signature is the same each time: nothing is stored twice.
    assert_eq!(producer.json(&with_author)["duplicates"], 2);

    let shown = producer.json(&["stream", "authors", STREAM]);
    assert_eq!(shown["authors"], "required");
    producer.json(&["stream", "authors", STREAM, "--author-key", &public]);
    producer.json(&["publish", STREAM, &two, "--sign-as", other]);
    producer.json(&["publish", STREAM, &three]);

    let verified = format!("{fingerprint} verified (core and extensions)");
    let unknown = format!("{other_fingerprint} unknown key");
    let expected: Vec<String> = [&verified, &verified, &unknown, &unknown]
        .into_iter()
        .cloned()
        .chain(["none".to_owned(), "none".to_owned()])
        .collect();
    assert_eq!(signatures(&producer, STREAM), expected);
    let copied = format!("Producer/{STREAM}");
    wait_until("the consumer has all", || {
        let size = producer.entries(STREAM)?;
        (consumer.entries(STREAM)? == size).then_some(())
    });
    assert_eq!(signatures(&consumer, &copied), expected);
    let shown = consumer.json(&["stream", "info", &copied]);
    assert_eq!(shown["authors"], "known");

    // The material is part of the evidence.
    let bundle = root.path().join("evidence");
    let out = bundle.to_str().unwrap();
    consumer.json(&["evidence", "export", &copied, "--out", out]);
    let mut verify = vec!["evidence", "verify", out];
    for node in [&producer, &consumer] {
        verify.extend(["--trust", &node.fingerprint]);
    }
    assert_eq!(consumer.run(&verify).status.code(), Some(0));
}
