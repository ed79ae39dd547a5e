//! What holds between starts and ends of a node's process: one writer for a data directory, an end in order, and a view that is made
//! anew from the logs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use countersign_crypto::sha256;
use serde_json::Value;
use support::{Node, Publisher, Root, expected_data, publish_as_child, wait_until};

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

/// 1. An agreement of a few seconds, and a subscription that runs under it. 2. Its time is over, and nobody does anything. 3. The producer
///    has ended the subscription.
#[test]
fn an_agreement_that_runs_out_ends_a_quiet_subscription() {
    let root = Root::new();
    let mut producer = Node::init(root.path(), "Producer", SETTINGS);
    let mut consumer = Node::init(root.path(), "Consumer", SETTINGS);
    producer.serve();
    consumer.serve();
    producer.json(&["stream", "create", STREAM]);
    let invite = ["partner", "invite", "--stream", STREAM, "--period", "6s"];
    let invitation = producer.json(&invite);
    let link = invitation["link"].as_str().unwrap();
    consumer.json(&["partner", "join", link, "--yes"]);
    wait_until("what runs is ended", || {
        let refusals = producer.lines(&["ledger", "ls", "--kind", "refusal"]);
        let ended = |line: &String| line.contains("the agreement has expired");
        refusals.iter().any(ended).then_some(())
    });
}

/// The same question from both sides: what the operator sees of its own policies, and what a partner's node lets us see of its.
#[test]
fn how_policies_would_decide_is_explained_on_both_sides() {
    let root = Root::new();
    let mut producer = Node::init(root.path(), "Producer", &[]);
    let mut consumer = Node::init(root.path(), "Consumer", &[]);
    producer.serve();
    consumer.serve();
    producer.json(&["stream", "create", "quakes"]);
    producer.share("quakes", &consumer);

    let here = producer.json(&["policy", "explain", "read", "consumer", "quakes"]);
    assert_eq!(here["policies"], serde_json::json!(["starter/read"]));
    assert_eq!(here["looked_at"]["context.agreement.active"], true);
    let words = ["policy", "explain", "read", "us", "producer/quakes"];
    let there = consumer.json(&words);
    assert_eq!(there["allowed"], true);
    assert_eq!(there["asked"], "producer");
    assert_eq!(there["policy_digest"], here["policy_digest"]);
    assert_eq!(there["looked_at"]["context.agreement.active"], true);
    assert!(there["looked_at"].get("resource.origin").is_none());

    // What the operator records is a fact from then on, and no made-up fact counts at a partner's node.
    let rule = "@id(\"eu\") forbid (principal, action == Action::\"read\", resource) unless { principal has region && principal.region == \"EU\" };";
    fs::write(producer.data.join("policies/eu.cedar"), rule).unwrap();
    let no = wait_until("the policy is in force", || {
        let no = consumer.json(&words);
        (no["allowed"] == false).then_some(no)
    });
    assert_eq!(no["policies"], serde_json::json!(["eu/eu"]));
    assert_eq!(no["looked_at"]["principal.region"], Value::Null);
    let made_up = [&words[..], &["--region", "EU"]].concat();
    assert_eq!(consumer.run(&made_up).status.code(), Some(2));
    let what_if = [
        "policy", "explain", "read", "consumer", "quakes", "--region", "EU",
    ];
    assert_eq!(producer.json(&what_if)["allowed"], true);
    producer.json(&["partner", "set", "consumer", "--region", "EU"]);
    assert_eq!(consumer.json(&words)["allowed"], true);
    assert_eq!(
        producer.json(&["partner", "info", "consumer"])["region"],
        "EU"
    );
    // A stream that is not there, or not for us.
    let hidden = consumer.run(&["policy", "explain", "read", "us", "producer/other"]);
    assert_eq!(hidden.status.code(), Some(5));
}

/// 1. Two nodes, an agreement, events, receipts. 2. At each step one node is stopped or killed, its database deleted, replaced by an
///    older copy, or filled with garbage, and the node started again. 3. The rows are those that were there before.
#[test]
fn the_view_has_the_same_rows_after_its_database_was_deleted_or_replaced() {
    let root = Root::new();
    let mut producer = Node::init(root.path(), "Producer", SETTINGS);
    let mut consumer = Node::init(root.path(), "Consumer", SETTINGS);
    producer.serve();
    consumer.serve();
    producer.json(&["stream", "create", STREAM]);
    let older = root.path().join("older");
    copy_view(&producer, &older);
    let key = producer.enroll("load");
    for step in ["deleted", "older copy", "garbage", "killed and deleted"] {
        match step {
            "deleted" => producer.share(STREAM, &consumer),
            _ => {
                let mut publisher = Publisher::start(&producer, &key, STREAM);
                publisher.wait_beyond(0);
                publisher.finish();
            }
        }
        let size = producer.entries(STREAM).unwrap();
        wait_until("the consumer receipts all", || {
            let receipts = producer.json(&["receipt", "ls", "--limit", "1"]);
            let covered = receipts.as_array()?.last()?["size"].as_u64();
            (covered == Some(size)).then_some(())
        });
        // Nothing may add an entry between the two looks: the other side is gone.
        assert!(consumer.terminate().success());
        let rows = verified_rows(&producer);
        if step == "killed and deleted" {
            producer.kill();
        } else {
            assert!(producer.terminate().success());
        }
        remove_view(&producer);
        match step {
            "older copy" => {
                for file in fs::read_dir(&older).unwrap() {
                    let file = file.unwrap();
                    fs::copy(file.path(), producer.data.join(file.file_name())).unwrap();
                }
            }
            "garbage" => fs::write(producer.data.join("ledger.sqlite"), [0xa5; 20_000]).unwrap(),
            _ => {}
        }
        producer.serve();
        assert_eq!(verified_rows(&producer), rows, "{step}");
        consumer.serve();
    }
}

/// 1. A node serves under load. 2. A second one on the same directory is refused, and changes nothing. 3. After a SIGKILL, which leaves lock file and
///    socket behind, the next one starts.
#[test]
fn a_data_directory_has_one_writer() {
    let root = Root::new();
    let mut node = Node::init(root.path(), "Alone", SETTINGS);
    node.serve();
    node.json(&["stream", "create", STREAM]);
    let before = fingerprints(&node.data);
    let second = node.run(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
        "--json",
    ]);
    assert!(!second.status.success());
    let stderr = String::from_utf8(second.stderr).unwrap();
    assert!(stderr.contains("data-dir-locked"), "{stderr}");
    assert_eq!(fingerprints(&node.data), before);
    node.json(&["stream", "create", "another"]);
    node.kill();
    node.serve();
    assert_eq!(node.json(&["stream", "ls"]).as_array().unwrap().len(), 2);
    assert!(node.terminate().success());
}

/// 1. A command works in process and holds the data directory. 2. `serve` begins, and waits. 3. The command ends, and the node is in service.
#[test]
fn serve_waits_for_a_command_that_is_still_at_it() {
    let root = Root::new();
    let mut node = Node::init(root.path(), "Patient", SETTINGS);
    let mut holder = Holder::start(&node);
    node.start();
    wait_until("serve says that it waits", || {
        node.log()
            .contains("waiting for it, at most 5 s")
            .then_some(())
    });
    holder.finish();
    node.wait_ready();
    assert_eq!(node.json(&["stream", "info", STREAM])["size"], 2);
    assert!(node.terminate().success());
}

/// 1. A command holds the data directory and does not end. 2. `serve`, and another command, end by themselves, and say who has it.
#[test]
fn a_directory_that_stays_locked_is_not_waited_for_without_end() {
    let root = Root::new();
    let node = Node::init(root.path(), "Kept", SETTINGS);
    let mut holder = Holder::start(&node);
    for arguments in [&["serve"][..], &["status"]] {
        let output = node.run(arguments);
        assert_eq!(output.status.code(), Some(8), "{output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("[data-dir-locked]"), "{stderr}");
        assert!(stderr.contains(&holder.0.id().to_string()), "{stderr}");
    }
    holder.finish();
}

/// 1. `serve` has the lock and reads its policies, one of which does not come yet. 2. A command finds neither a free directory nor a socket, and waits.
/// 3. The policy comes, `serve` goes on, and it is the running node that answers the command.
#[test]
fn a_command_waits_for_a_node_that_is_just_starting() {
    let root = Root::new();
    let mut node = Node::init(root.path(), "Starting", SETTINGS);
    let late = node.data.join("policies/late.cedar");
    let mode = rustix::fs::Mode::from(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, &late, mode).unwrap();
    node.start();
    // Opens once the node reads at the other end.
    let policy = fs::OpenOptions::new().write(true).open(&late).unwrap();
    assert!(!node.data.join("node.sock").exists());
    let command = node
        .command(&["status", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the command waits for the lock", || {
        has_open(&command, &node.data.join("lock")).then_some(())
    });
    // A pipe would be read once more when the policies are looked at again.
    fs::remove_file(&late).unwrap();
    drop(policy);
    let output = command.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["state"], "serving", "{status}");
    assert!(node.terminate().success());
}

/// A command that works in process, hence holds the data directory, until it is told to end: it publishes what comes on its stdin.
struct Holder(Child);

impl Holder {
    fn start(node: &Node) -> Self {
        let mut command = node.command(&["publish", STREAM, "-", "--create", "--type", "t"]);
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let lock = node.data.join("lock");
        // The lock file holds the id of the process that has the lock.
        let id = format!("{}\n", child.id());
        wait_until("the command has the data directory", || {
            fs::read_to_string(&lock)
                .is_ok_and(|pid| pid == id)
                .then_some(())
        });
        Self(child)
    }

    fn finish(&mut self) {
        let mut events = self.0.stdin.take().unwrap();
        events.write_all(b"{\"n\":1}\n").unwrap();
        drop(events);
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether a process has a file open.
fn has_open(process: &Child, file: &Path) -> bool {
    let open = fs::read_dir(format!("/proc/{}/fd", process.id()));
    let mut open = open.into_iter().flatten().flatten();
    open.any(|open| fs::read_link(open.path()).is_ok_and(|found| found == file))
}

/// SIGTERM under load, several times: exit code 0, and everything acknowledged is there.
#[test]
fn sigterm_under_load_ends_in_order_and_loses_nothing() {
    let root = Root::new();
    let mut node = Node::init(root.path(), "Terminated", SETTINGS);
    node.serve();
    node.json(&["stream", "create", STREAM]);
    let key = node.enroll("load");
    let mut publisher = Publisher::start(&node, &key, STREAM);
    let mut promised = 0;
    for _ in 0..5 {
        promised = publisher.wait_beyond(promised + 40);
        let status = node.terminate();
        assert_eq!(status.code(), Some(0), "{}", node.log());
        wait_until("the publisher waits for the next start", || {
            (publisher.handed_in() > publisher.last_acknowledged()).then_some(())
        });
        node.serve();
    }
    publisher.wait_beyond(promised);
    publisher.finish();
    let size = node.json(&["stream", "info", STREAM])["size"].to_string();
    let lines = node.lines(&["stream", "tail", STREAM, "--count", &size]);
    let acknowledged = publisher.acknowledged();
    assert_eq!(
        acknowledged.len() + 1,
        lines.len(),
        "each number once, beside the genesis"
    );
    for ack in acknowledged {
        let line = &lines[usize::try_from(ack.sequence).unwrap()];
        let event: Value = serde_json::from_str(line).unwrap();
        let data = event["data"].to_string();
        assert_eq!(data, expected_data(ack.number));
        assert_eq!(hex::encode(sha256(data.as_bytes())), ack.digest);
    }
}

/// The digest of all rows, of a view that was compared with the logs.
fn verified_rows(node: &Node) -> String {
    let verified = node.json(&["ledger", "verify"]);
    assert_eq!(verified["whole"], true);
    verified["rows_digest"].as_str().unwrap().to_owned()
}

fn view_files(node: &Node) -> Vec<PathBuf> {
    let files = fs::read_dir(&node.data).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let of_view = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with("ledger.sqlite")
    };
    paths.filter(of_view).collect()
}

/// The files as they are at this moment, as a careless backup takes them.
fn copy_view(node: &Node, to: &Path) {
    fs::create_dir(to).unwrap();
    for file in view_files(node) {
        fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

fn remove_view(node: &Node) {
    for file in view_files(node) {
        fs::remove_file(file).unwrap();
    }
}

/// Path and digest of every file below, but the database's, which a reader may touch.
fn fingerprints(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() && !path.to_string_lossy().contains("ledger.sqlite") {
                let digest = hex::encode(sha256(&fs::read(&path).unwrap()));
                found.push((path, digest));
            }
        }
    }
    found.sort();
    found
}
