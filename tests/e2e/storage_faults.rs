//! The disk fails under the unmodified program: a sync returns an error, the process dies in a sync, the disk is full.
//!
//! What the machine cannot do (no `strace`, no right to mount) is said in one line that begins with `NOT RUN`, and not counted as shown.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]
#![allow(clippy::print_stdout, reason = "what a run did is part of its answer")]

mod support;

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use countersign_client::publisher::PublishError;
use countersign_crypto::sha256;
use serde_json::Value;
use support::{Node, Publisher, Root, expected_data, publish_as_child, try_publish, wait_until};

const STREAM: &str = "load";

const SETTINGS: &[(&str, &str)] = &[
    ("COUNTERSIGN_JOURNAL_SEGMENT_BYTES", "65536"),
    ("COUNTERSIGN_QUIC_IDLE_TIMEOUT_MS", "1000"),
    ("COUNTERSIGN_QUIC_KEEP_ALIVE_MS", "250"),
];

#[test]
fn publisher_child() {
    publish_as_child();
}

/// 1. The Nth sync of the journal fails once. 2. The node says that it has stopped, lives, and goes on to answer readers. 3. Nothing is
///    acknowledged from then on, though later syncs would succeed. 4. After a restart it goes on; everything acknowledged is there.
#[test]
fn a_failed_sync_stops_acknowledging_for_good_and_a_restart_recovers() {
    if !strace_works() {
        return;
    }
    let root = Root::new();
    for nth in [2, 3, 7, 20, 61] {
        let (mut node, key) = prepared(&root, &format!("Eio{nth}"));
        node.start_with_fault(&format!("fdatasync:error=EIO:when={nth}"));
        let mut publisher = Publisher::start(&node, &key, STREAM);
        wait_until("the node says that it has stopped", || {
            assert!(node.ended().is_none(), "the node ended: {}", node.log());
            let (code, text) = node.http("/healthz")?;
            (code == 503 && text.contains("stopped")).then_some(())
        });
        let injected = fs::read_to_string(node.fault_record()).unwrap();
        assert_eq!(injected.matches("(INJECTED)").count(), 1, "{injected}");
        wait_until("something waits for its acknowledgement", || {
            (publisher.handed_in() > publisher.last_acknowledged()).then_some(())
        });
        // What readers get is what was integrated before the failure, and bounds what may be acknowledged ever after.
        let size = node.json(&["stream", "info", STREAM])["size"]
            .as_u64()
            .unwrap();
        let integrated = events(&node, size).len() as u64;
        assert_eq!(integrated, size - 1);
        let refused = try_publish(&node, &key, STREAM).unwrap_err();
        assert!(retry_after(&refused).is_some(), "{refused}");
        let promised = publisher.last_acknowledged();
        assert!(promised <= integrated, "{promised} of {integrated}");
        assert!(
            publisher.handed_in() > integrated,
            "the failure met no batch"
        );
        assert!(node.ended().is_none(), "the process lives");

        node.kill();
        node.serve();
        publisher.wait_beyond(promised);
        publisher.finish();
        check(&node, &publisher);
        println!("EIO at sync {nth}: {promised} acknowledged before");
    }
}

#[test]
fn a_process_that_dies_in_a_sync_loses_nothing_acknowledged() {
    if !strace_works() {
        return;
    }
    let root = Root::new();
    for nth in [2, 5, 29, 83] {
        let (mut node, key) = prepared(&root, &format!("Kill{nth}"));
        node.start_with_fault(&format!("fdatasync:signal=KILL:when={nth}"));
        let mut publisher = Publisher::start(&node, &key, STREAM);
        assert!(!node.reap().success());
        let promised = publisher.last_acknowledged();
        node.serve();
        publisher.wait_beyond(promised);
        publisher.finish();
        check(&node, &publisher);
        println!("killed in sync {nth}: {promised} acknowledged before");
    }
}

/// 1. The disk fills up under load. 2. Publishing is refused as busy; the node stays healthy and serves readers. 3. Room appears; publishing goes
///    on by itself.
#[test]
fn a_full_disk_refuses_publishing_until_there_is_room() {
    let root = Root::new();
    let Some(disk) = SmallDisk::mount(&root.path().join("disk")) else {
        println!(
            "NOT RUN: a full disk; mounting a tmpfs needs rights that this process does not have"
        );
        return;
    };
    {
        let mut node = Node::init(&disk.0, "Full", SETTINGS);
        node.serve();
        node.json(&["stream", "create", STREAM]);
        let key = node.enroll("load");
        let mut publisher = Publisher::start_with_record(&node, &key, STREAM, root.path());
        publisher.wait_beyond(100);
        let filler = disk.0.join("filler");
        disk.fill(&filler);
        // What fits into the last segment is still taken.
        let refused = wait_until("publishing is refused", || {
            try_publish(&node, &key, STREAM).err()
        });
        assert!(retry_after(&refused).is_some(), "{refused}");
        assert_eq!(node.http("/healthz").unwrap().0, 200);
        let promised = publisher.last_acknowledged();
        let size = node.json(&["stream", "info", STREAM])["size"]
            .as_u64()
            .unwrap();
        assert!(events(&node, size).len() as u64 >= promised, "reads go on");
        fs::remove_file(&filler).unwrap();
        publisher.wait_beyond(promised);
        publisher.finish();
        check(&node, &publisher);
        assert!(node.terminate().success());
    }
}

/// A node with a stream and an enrolled publisher, stopped.
fn prepared(root: &Root, name: &str) -> (Node, PathBuf) {
    let mut node = Node::init(root.path(), name, SETTINGS);
    node.serve();
    node.json(&["stream", "create", STREAM]);
    let key = node.enroll("load");
    assert!(node.terminate().success());
    (node, key)
}

/// The events of the stream by sequence; every line of it has to be readable.
fn events(node: &Node, size: u64) -> HashMap<u64, Value> {
    let lines = node.lines(&["stream", "tail", STREAM, "--count", &size.to_string()]);
    assert_eq!(lines.len() as u64, size);
    let events = lines.iter().map(|line| serde_json::from_str(line).unwrap());
    let events = events.filter(|event: &Value| event["control"] != true);
    events
        .map(|event| (event["sequence"].as_u64().unwrap(), event))
        .collect()
}

/// Each acknowledged event lies where it was said to be, with its bytes; no number is there twice.
fn check(node: &Node, publisher: &Publisher) {
    let size = node.json(&["stream", "info", STREAM])["size"]
        .as_u64()
        .unwrap();
    let events = events(node, size);
    let acknowledged = publisher.acknowledged();
    assert!(!acknowledged.is_empty());
    for ack in acknowledged {
        let event = &events[&ack.sequence];
        assert_eq!(event["data"]["number"], ack.number, "{ack:?}");
        let data = event["data"].to_string();
        assert_eq!(data, expected_data(ack.number), "{ack:?}");
        assert_eq!(hex::encode(sha256(data.as_bytes())), ack.digest, "{ack:?}");
    }
    let mut numbers: Vec<u64> = events
        .values()
        .filter_map(|event| event["data"]["number"].as_u64())
        .filter(|number| *number > 0)
        .collect();
    numbers.sort_unstable();
    let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
    assert_eq!(numbers, expected, "each number once");
    assert_eq!(node.json(&["ledger", "verify"])["whole"], true);
}

/// When it is worth trying again, where the node said so.
fn retry_after(error: &PublishError) -> Option<Duration> {
    match error {
        PublishError::Session(error) => error.retry_after(),
        _ => None,
    }
}

fn strace_works() -> bool {
    let tried = Command::new("strace")
        .args([
            "-qq",
            "-e",
            "inject=fdatasync:error=EIO:when=1",
            "-o",
            "/dev/null",
            "true",
        ])
        .stderr(Stdio::null())
        .status();
    let works = tried.is_ok_and(|status| status.success());
    if !works {
        println!("NOT RUN: faults of single syncs; `strace` is missing or may not trace here");
    }
    works
}

/// A tmpfs of a few MiB.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir(at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=12m", "countersign-test"])
            .arg(at)
            .stderr(Stdio::null())
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then(|| Self(at.to_owned()))
    }

    /// Takes all room that the node leaves.
    fn fill(&self, filler: &Path) {
        let mut file = fs::File::create(filler).unwrap();
        let error = loop {
            if let Err(error) = file.write_all(&[0; 4_096]) {
                break error;
            }
        };
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}
