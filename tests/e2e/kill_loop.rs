//! Producer and consumer are killed by SIGKILL under load, again and again: nothing acknowledged is lost, changed, reordered or doubled,
//! on either side.
//!
//! 1. Producer and consumer are made and joined; segments are small, so that the journals roll all the time.
//! 2. A publisher, a process of its own, hands in numbered events and writes down what is acknowledged.
//! 3. One of the nodes is killed at a random moment while batches are on their way, and started again. Every third kill hits a node
//!    while it starts. Now and then the publisher is killed too, and another one goes on with its series.
//! 4. The publisher finishes; the consumer catches up.
//! 5. Each acknowledged event lies at its acknowledged sequence in both logs, with its bytes; the logs hold each number once, in order;
//!    both are the same bytes under the same root; ledgers are whole; receipts are the same on both sides; the evidence verifies.
//!
//! `COUNTERSIGN_KILLS` says how many kills (default 100), `COUNTERSIGN_SEED` which moments.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]
#![allow(clippy::print_stdout, reason = "what a run did is part of its answer")]

mod support;

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use countersign_crypto::{Entropy, SeededEntropy, sha256};
use serde_json::Value;
use support::{Node, Publisher, Root, expected_data, publish_as_child, wait_until};

const STREAM: &str = "load";

/// A roll every few dozen batches; silence is noticed within a second; a node that comes back takes its place beside the connections
/// that died with it.
const SETTINGS: &[(&str, &str)] = &[
    ("COUNTERSIGN_JOURNAL_SEGMENT_BYTES", "65536"),
    ("COUNTERSIGN_QUIC_IDLE_TIMEOUT_MS", "1000"),
    ("COUNTERSIGN_QUIC_KEEP_ALIVE_MS", "250"),
    ("COUNTERSIGN_QUIC_CONNECTIONS_PER_PEER", "64"),
];

#[test]
fn publisher_child() {
    publish_as_child();
}

#[test]
fn nothing_acknowledged_is_lost_changed_reordered_or_doubled_by_kills() {
    let kills = number("COUNTERSIGN_KILLS").unwrap_or(100);
    let seed = number("COUNTERSIGN_SEED").unwrap_or(1);
    println!("{kills} kills, seed {seed}");
    let root = Root::new();
    let mut producer = Node::init(root.path(), "Producer", SETTINGS);
    let mut consumer = Node::init(root.path(), "Consumer", SETTINGS);
    producer.serve();
    consumer.serve();
    producer.json(&["stream", "create", STREAM]);
    producer.share(STREAM, &consumer);
    let key = producer.enroll("load");
    let mut publisher = Publisher::start(&producer, &key, STREAM);
    publisher.wait_beyond(0);

    let mut moments = Moments::new(seed);
    let mut slowest_start = Duration::from_millis(20);
    for kill in 0..kills {
        let node = if moments.below(2) == 0 {
            &mut producer
        } else {
            &mut consumer
        };
        if kill % 12 == 11 {
            publisher.replace();
        }
        if kill % 3 == 2 {
            // It was killed under load a moment ago, and is hit again somewhere between its first instruction and its service.
            node.kill();
            node.start();
            moments.pause(slowest_start);
        } else {
            let before = publisher.last_acknowledged();
            publisher.wait_beyond(before);
            let held = node.entries(STREAM).unwrap_or(0);
            wait_until("the node takes more", || {
                node.entries(STREAM).filter(|now| *now > held)
            });
            moments.pause(Duration::from_millis(30));
        }
        // Between an acknowledgement and the next batch nothing is on its way, for microseconds.
        wait_until("a batch is on its way", || {
            (publisher.handed_in() > publisher.last_acknowledged()).then_some(())
        });
        node.kill();
        let begun = Instant::now();
        node.serve();
        slowest_start = slowest_start.max(begun.elapsed());
    }
    println!("a start took at most {slowest_start:?}");

    let before = publisher.last_acknowledged();
    publisher.wait_beyond(before);
    publisher.finish();
    let head = producer.entries(STREAM).unwrap();
    wait_until("the consumer catches up", || {
        consumer.entries(STREAM).filter(|held| *held == head)
    });
    check_logs(&producer, &consumer, &publisher, head);
    check_ledgers(&producer, &consumer, head);
    check_evidence(&producer, &consumer);
    assert!(producer.terminate().success());
    assert!(consumer.terminate().success());
}

/// Each acknowledged event is where it was said to be; each number is there once, in order; both sides hold the same.
fn check_logs(producer: &Node, consumer: &Node, publisher: &Publisher, head: u64) {
    let copy = format!("producer/{STREAM}");
    let ours = producer.json(&["stream", "info", STREAM]);
    let theirs = consumer.json(&["stream", "info", &copy]);
    for member in ["size", "root", "origin"] {
        assert_eq!(ours[member], theirs[member], "{member}");
    }
    assert_eq!(ours["size"], head);

    let count = head.to_string();
    let sent = producer.lines(&["stream", "tail", STREAM, "--count", &count]);
    let received = consumer.lines(&["stream", "tail", &copy, "--count", &count]);
    assert_eq!(sent.len() as u64, head);
    assert!(sent == received, "the copy differs from the log");

    let mut events = BTreeMap::new();
    let mut next = 1;
    for (index, line) in sent.iter().enumerate() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!(event["sequence"], index);
        if event["control"] == true {
            continue;
        }
        assert_eq!(event["data"]["number"], next, "at sequence {index}");
        assert_eq!(event["id"], next.to_string());
        let data = event["data"].to_string();
        assert_eq!(data, expected_data(next), "at sequence {index}");
        events.insert(index as u64, (next, hex::encode(sha256(data.as_bytes()))));
        next += 1;
    }
    let acknowledged = publisher.acknowledged();
    println!(
        "{} acknowledged, {} stored",
        acknowledged.len(),
        events.len()
    );
    assert!(acknowledged.len() > 100, "too little load");
    for ack in acknowledged {
        let stored = events.get(&ack.sequence);
        assert_eq!(stored, Some(&(ack.number, ack.digest.clone())), "{ack:?}");
    }
}

/// Both views are those of the logs, and both sides hold the same receipts, up to the end.
fn check_ledgers(producer: &Node, consumer: &Node, head: u64) {
    for node in [producer, consumer] {
        assert_eq!(node.json(&["ledger", "verify"])["whole"], true);
    }
    let receipts = |node: &Node| {
        let list = node.json(&["receipt", "ls", "--limit", "100000"]);
        let mut receipts = list.as_array().unwrap().clone();
        for receipt in &mut receipts {
            // Each side calls the other, and the stream, by its own name.
            let receipt = receipt.as_object_mut().unwrap();
            receipt.remove("partner");
            receipt.remove("stream");
        }
        receipts
    };
    let (ours, theirs) = wait_until("the last receipt is with both", || {
        let (ours, theirs) = (receipts(producer), receipts(consumer));
        let whole = ours.last()?["size"] == head && theirs.last()?["size"] == head;
        whole.then_some((ours, theirs))
    });
    println!("{} receipts", ours.len());
    assert_eq!(ours, theirs);
    let numbers: Vec<u64> = ours
        .iter()
        .filter_map(|receipt| receipt["number"].as_u64())
        .collect();
    let expected: Vec<u64> = (1..=ours.len() as u64).collect();
    assert_eq!(numbers, expected, "one series, no number twice or left out");
}

fn check_evidence(producer: &Node, consumer: &Node) {
    let bundle = consumer.data.with_extension("bundle.tar");
    let bundle = bundle.to_str().unwrap();
    let copy = format!("producer/{STREAM}");
    consumer.json(&["evidence", "export", &copy, "--out", bundle]);
    consumer.json(&[
        "evidence",
        "verify",
        bundle,
        "--trust",
        &producer.fingerprint,
        "--trust",
        &consumer.fingerprint,
    ]);
}

/// The random moments of one run.
struct Moments(SeededEntropy);

impl Moments {
    fn new(seed: u64) -> Self {
        Self(SeededEntropy::new(seed))
    }

    fn below(&mut self, limit: u64) -> u64 {
        let mut random = [0; 8];
        self.0.fill(&mut random);
        u64::from_be_bytes(random) % limit
    }

    /// Lets a random part of `longest` go by. Nothing is waited for: the moment of the kill is the input of this test.
    fn pause(&mut self, longest: Duration) {
        let micros = u64::try_from(longest.as_micros()).unwrap().max(1);
        thread::sleep(Duration::from_micros(self.below(micros)));
    }
}

fn number(variable: &str) -> Option<u64> {
    Some(std::env::var(variable).ok()?.parse().expect("a number"))
}
