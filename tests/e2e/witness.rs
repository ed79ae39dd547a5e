//! Nodes that witness each other, and directories that come back from a backup: real processes, sockets and files.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use countersign_crypto::{Hash, SigningKey, sha256};
use countersign_tlog::add_checkpoint::AddCheckpoint;
use countersign_tlog::checkpoint::sign_checkpoint;
use countersign_tlog::{Checkpoint, Note, NoteSignature, Vkey, cosignature_v1};
use serde_json::Value;
use support::{Node, Root, wait_until};

const STREAM: &str = "quakes";

fn serving(root: &Root, org: &str) -> Node {
    let mut node = Node::init(root.path(), org, &[]);
    node.serve();
    node
}

fn hand_in(root: &Root, node: &Node, from: u32, to: u32) -> Option<i32> {
    let file = root.path().join(format!("{from}.ndjson"));
    let lines = (from..to).fold(String::new(), |mut lines, n| {
        writeln!(lines, "{{\"id\":\"{n}\",\"magnitude\":{n}}}").unwrap();
        lines
    });
    fs::write(&file, lines).unwrap();
    let file = file.to_str().unwrap();
    // A stream that is frozen is frozen: nobody waits for it here.
    let wrap = ["--type", "test.made", "--id-from", "id", "--attempts", "0"];
    let words = [&["publish", STREAM, file][..], &wrap].concat();
    node.run(&words).status.code()
}

fn info(node: &Node, stream: &str) -> Value {
    node.json(&["stream", "info", stream])
}

fn size(node: &Node, stream: &str) -> u64 {
    info(node, stream)["size"].as_u64().unwrap()
}

/// Waits until a node holds so many entries of a stream.
fn holds(node: &Node, stream: &str, entries: u64) {
    wait_until("the copy has come so far", || {
        let output = node.run(&["stream", "info", stream, "--json"]);
        let value: Value = serde_json::from_slice(&output.stdout).ok()?;
        (value["size"].as_u64()? == entries).then_some(())
    });
}

/// Waits until so many entries of the stream are witnessed, and gives the note that is published.
fn witnessed(node: &Node, entries: u64) -> Note {
    let path = format!("/logs/{STREAM}/witnessed");
    wait_until("the stream is witnessed", || {
        let got = node.fetch(&path, &[]);
        let note = (got.status == 200).then(|| Note::parse(&got.body).unwrap())?;
        let checkpoint = Checkpoint::parse_text(note.text()).unwrap();
        (checkpoint.size >= entries).then_some(note)
    })
}

/// What a witness shows to whoever has a token of its partner `Producer`.
fn monitor(witness: &Node, path: &str) -> support::Fetched {
    let token = witness.json(&["partner", "token", "producer"]);
    let bearer = format!("Bearer {}", token["token"].as_str().unwrap());
    witness.fetch(path, &[("Authorization", &bearer)])
}

/// 1. Joining is all it takes. 2. What is published carries both signatures. 3. A witness that is away holds nothing up; when it is back, so is the
///    witnessing. 4. Both sides say what they know.
#[test]
fn partners_witness_each_other_from_the_first_event_on() {
    let root = Root::new();
    let producer = serving(&root, "Producer");
    let mut consumer = serving(&root, "Consumer");
    producer.json(&["stream", "create", STREAM]);
    producer.json(&["stream", "access", STREAM, "open"]);
    assert_eq!(info(&producer, STREAM)["assurance"], "unwitnessed");
    assert_eq!(producer.json(&["status"])["assurance"], "unwitnessed");
    assert_eq!(
        producer
            .fetch(&format!("/logs/{STREAM}/witnessed"), &[])
            .status,
        404
    );
    producer.share(STREAM, &consumer);
    assert_eq!(hand_in(&root, &producer, 0, 5), Some(0));
    let note = witnessed(&producer, 6);
    let origin = info(&producer, STREAM)["origin"]
        .as_str()
        .unwrap()
        .to_owned();
    let log = Vkey::parse(info(&producer, STREAM)["log_vkey"].as_str().unwrap()).unwrap();
    let authority = consumer.json(&["status"])["authority"]
        .as_str()
        .unwrap()
        .to_owned();
    let lines: Vec<&str> = note.signatures().iter().map(NoteSignature::name).collect();
    assert_eq!(lines, [origin.as_str(), &format!("{authority}/witness")]);
    assert!(note.verify(&[log]).is_ok());
    let assurance = info(&producer, STREAM)["assurance"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        assurance.starts_with("witnessed up to 6 by "),
        "{assurance}"
    );
    assert_eq!(producer.json(&["status"])["assurance"], "witnessed");

    // The witness shows what it has cosigned, to its partners.
    let hash = hex::encode(sha256(origin.as_bytes()));
    let path = format!("/witness/{hash}/checkpoint");
    assert_eq!(consumer.fetch(&path, &[]).status, 404, "not for strangers");
    let monitored = monitor(&consumer, &path);
    assert_eq!(monitored.status, 200);
    assert_eq!(
        monitored.header("content-type"),
        "text/plain; charset=utf-8"
    );
    assert_eq!(Note::parse(&monitored.body).unwrap().signatures().len(), 2);
    assert_eq!(consumer.fetch("/witness/00/checkpoint", &[]).status, 404);
    let here = consumer.lines(&["witness", "ls"]).join("\n");
    assert!(
        here.contains("\"here\"") && here.contains("\"size\":6"),
        "{here}"
    );
    let others = producer.lines(&["witness", "ls"]).join("\n");
    assert!(
        others.contains("\"by others\"") && others.contains("\"ok\""),
        "{others}"
    );

    // What another reader was shown is compared.
    let file = root.path().join("checkpoint");
    fs::write(&file, note.encode()).unwrap();
    let compared = consumer.json(&["witness", "compare", file.to_str().unwrap()]);
    assert_eq!(compared["result"], "consistent");
    fs::write(&file, "nonsense").unwrap();
    let refused = consumer.run(&["witness", "compare", file.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));

    // Away, and back.
    consumer.kill();
    assert_eq!(hand_in(&root, &producer, 5, 9), Some(0));
    assert_eq!(size(&producer, STREAM), 10);
    consumer.serve();
    witnessed(&producer, 10);
    let (_, metrics) = producer.http("/metrics").unwrap();
    assert!(metrics.contains(&format!(
        "countersign_log_witnessed_entries{{origin=\"{origin}\"}} 10"
    )));
}

/// A checkpoint of a tree that nobody has, signed all the same.
fn signed(origin: &str, size: u64, root: Hash, key: &SigningKey) -> String {
    let checkpoint = Checkpoint {
        origin: origin.to_owned(),
        size,
        root,
    };
    sign_checkpoint(&checkpoint, key).note_text
}

/// A hundred roots for each size at once, while the witness is killed again and again: of those that were answered with a cosignature no two differ for one
/// size, and every cosignature given is remembered.
#[test]
fn a_witness_that_is_killed_never_cosigns_two_roots_of_one_size() {
    let root = Root::new();
    let producer = serving(&root, "Producer");
    let mut witness = serving(&root, "Witness");
    producer.json(&["stream", "create", STREAM]);
    producer.share(STREAM, &witness);
    let authority = producer.json(&["status"])["authority"]
        .as_str()
        .unwrap()
        .to_owned();
    let pem = fs::read_to_string(root.path().join("producer/keys/log.pem")).unwrap();
    let key = SigningKey::from_pem(&pem).unwrap();
    let mut given: BTreeMap<String, Hash> = BTreeMap::new();
    for round in 0..12u32 {
        let origin = format!("{authority}/streams/torn-{round}");
        let bodies: Vec<(Hash, String)> = (0..40u8)
            .map(|branch| {
                let root = sha256(&[branch]);
                let request = AddCheckpoint {
                    old: 0,
                    proof: Vec::new(),
                    checkpoint: signed(&origin, 7, root, &key),
                };
                (root, request.encode())
            })
            .collect();
        let (node, answered) = (&witness, &AtomicUsize::new(0));
        let answers: Vec<(Hash, Option<u16>)> = std::thread::scope(|scope| {
            let asking: Vec<_> = bodies
                .chunks(10)
                .map(|bodies| {
                    scope.spawn(move || {
                        let ask = |(root, body): &(Hash, String)| {
                            let got = node.post("/witness/add-checkpoint", body.as_bytes());
                            answered.fetch_add(1, Ordering::SeqCst);
                            (*root, got.map(|got| got.status))
                        };
                        bodies.iter().map(ask).collect::<Vec<_>>()
                    })
                })
                .collect();
            // Somewhere between the first request and the last answer; in every second round after a first answer at least.
            for _ in 0..round * 30 {
                std::thread::yield_now();
            }
            while round % 2 == 1 && answered.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            let pid = fs::read_to_string(root.path().join("witness/lock")).unwrap();
            let kill = Command::new("kill")
                .args(["-9", pid.trim()])
                .status()
                .unwrap();
            assert!(kill.success());
            asking
                .into_iter()
                .flat_map(|asking| asking.join().unwrap())
                .collect()
        });
        for (root, status) in answers {
            if status == Some(200) {
                let other = given.insert(origin.clone(), root);
                assert!(
                    other.is_none_or(|other| other == root),
                    "two roots were cosigned"
                );
            }
        }
        witness.kill();
        witness.serve();
        let hash = hex::encode(sha256(origin.as_bytes()));
        let monitored = monitor(&witness, &format!("/witness/{hash}/checkpoint"));
        if let Some(root) = given.get(&origin) {
            let note = Note::parse(&monitored.body).unwrap();
            assert_eq!(Checkpoint::parse_text(note.text()).unwrap().root, *root);
        }
        // Whatever was cosigned before the kill, another root is not cosigned after it.
        if monitored.status == 200 {
            let note = Note::parse(&monitored.body).unwrap();
            let held = Checkpoint::parse_text(note.text()).unwrap().root;
            let (_, other) = bodies.iter().find(|(root, _)| *root != held).unwrap();
            let got = witness
                .post("/witness/add-checkpoint", other.as_bytes())
                .unwrap();
            assert_eq!(got.status, 422);
            let line = note.signatures().last().unwrap();
            assert_eq!(line.signature().len(), cosignature_v1::SIGNATURE_BYTES);
        }
    }
    assert!(!given.is_empty(), "the kills came before every answer");
}

/// The body is bounded, the methods are those of the specification.
#[test]
fn the_door_of_the_witness_is_narrow() {
    let root = Root::new();
    let node = serving(&root, "Witness");
    let huge = vec![b'a'; 70_000];
    assert_eq!(
        node.post("/witness/add-checkpoint", &huge).unwrap().status,
        413
    );
    let got = node.post("/witness/add-checkpoint", b"old 0\n\n").unwrap();
    assert_eq!(got.status, 400);
    assert_eq!(
        node.request("PUT", "/witness/add-checkpoint", &[]).status,
        405
    );
    assert_eq!(node.post("/witness/other", b"").unwrap().status, 405);
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status()
        .unwrap();
    assert!(copied.success());
}

/// The directory comes back from a backup, at its place or at another. As long as not every reader has spoken nothing is taken; then what was lost is there
/// again, and nobody sees a fork.
#[test]
fn a_directory_from_a_backup_forks_nothing() {
    for elsewhere in [false, true] {
        let root = Root::new();
        let mut producer = serving(&root, "Producer");
        let one = serving(&root, "One");
        let mut two = serving(&root, "Two");
        producer.json(&["stream", "create", STREAM]);
        producer.share(STREAM, &one);
        producer.share(STREAM, &two);
        assert_eq!(hand_in(&root, &producer, 0, 5), Some(0));
        let stream = format!("producer/{STREAM}");
        holds(&one, &stream, 6);
        holds(&two, &stream, 6);
        producer.terminate();
        let (data, backup) = (root.path().join("producer"), root.path().join("backup"));
        copy(&data, &backup);
        two.terminate();
        producer.serve();
        assert_eq!(hand_in(&root, &producer, 5, 11), Some(0));
        holds(&one, &stream, 12);
        producer.terminate();
        // As people do it: many file systems give the copy the inodes of what was removed.
        fs::remove_dir_all(&data).unwrap();
        if elsewhere {
            let moved = root.path().join("elsewhere");
            fs::rename(&backup, &moved).unwrap();
            producer.move_to(&moved);
        } else {
            copy(&backup, &data);
        }
        producer.serve();
        // One of the two is away: what the other holds comes back, and the stream still waits.
        holds(&producer, STREAM, 12);
        assert_eq!(hand_in(&root, &producer, 20, 23), Some(8));
        let held = info(&producer, STREAM)["frozen"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(held.contains("Two") && !held.contains("One"), "{held}");
        assert!(producer.json(&["status"])["frozen"][0]["why"].is_string());
        two.serve();
        wait_until("everybody has spoken", || {
            info(&producer, STREAM)
                .get("frozen")
                .is_none()
                .then_some(())
        });
        assert_eq!(hand_in(&root, &producer, 20, 23), Some(0));
        holds(&one, &stream, 15);
        holds(&two, &stream, 15);
        for reader in [&one, &two] {
            assert_ne!(
                info(reader, &stream)["assurance"],
                "forked: it has signed two histories"
            );
            assert_eq!(
                info(reader, &stream)["root"],
                info(&producer, STREAM)["root"]
            );
            let faults = reader.lines(&["ledger", "ls", "--kind", "fault"]);
            assert_eq!(faults, Vec::<String>::new());
        }
        // From here on it is at home.
        producer.terminate();
        producer.serve();
        assert_eq!(hand_in(&root, &producer, 30, 31), Some(0));
    }
}

/// Everything of a directory but where it lives is put back into the files that are there, as some backup programs do: at its start the node is at home. The
/// first reader that speaks freezes it, and that outlives a restart, at home or not.
#[test]
fn a_freeze_outlives_a_restart_at_home() {
    let root = Root::new();
    let mut producer = serving(&root, "Producer");
    let mut one = serving(&root, "One");
    let mut two = serving(&root, "Two");
    producer.json(&["stream", "create", STREAM]);
    producer.share(STREAM, &one);
    producer.share(STREAM, &two);
    assert_eq!(hand_in(&root, &producer, 0, 5), Some(0));
    let stream = format!("producer/{STREAM}");
    holds(&one, &stream, 6);
    producer.terminate();
    two.terminate();
    let (data, backup) = (root.path().join("producer"), root.path().join("backup"));
    copy(&data, &backup);
    producer.serve();
    assert_eq!(hand_in(&root, &producer, 5, 11), Some(0));
    holds(&one, &stream, 12);
    producer.terminate();
    one.terminate();
    for entry in fs::read_dir(&data).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if name == "place" {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            fs::remove_dir_all(entry.path()).unwrap();
        } else {
            fs::remove_file(entry.path()).unwrap();
        }
        if backup.join(&name).exists() {
            copy(&backup.join(&name), &entry.path());
        }
    }
    // Nobody is there to tell: it is at home, and does not know.
    producer.serve();
    assert!(info(&producer, STREAM).get("frozen").is_none());
    assert_eq!(size(&producer, STREAM), 6);
    one.serve();
    wait_until("the first reader has spoken", || {
        let why = info(&producer, STREAM)["frozen"].as_str()?.to_owned();
        why.contains("Two").then_some(())
    });
    holds(&producer, STREAM, 12);
    // The one that knew more is away, and so is the one that has not spoken: that it is older is known all the same.
    one.terminate();
    producer.kill();
    producer.serve();
    assert!(info(&producer, STREAM)["frozen"].is_string());
    assert_eq!(hand_in(&root, &producer, 20, 21), Some(8));
    one.serve();
    two.serve();
    wait_until("everybody has spoken", || {
        info(&producer, STREAM)
            .get("frozen")
            .is_none()
            .then_some(())
    });
    assert_eq!(hand_in(&root, &producer, 20, 21), Some(0));
    holds(&two, &stream, 13);
}

/// While events are handed in as fast as they are taken, another stream takes the place of this one: what was acknowledged is in the old one, up to where the
/// new one cites it, and nothing comes after that, however much was waiting to be written.
#[test]
fn what_waits_when_a_stream_is_frozen_is_not_taken() {
    let root = Root::new();
    let producer = serving(&root, "Producer");
    producer.json(&["stream", "create", STREAM]);
    let file = root.path().join("many.ndjson");
    let lines = (0..60_000u32).fold(String::new(), |mut lines, n| {
        writeln!(lines, "{{\"id\":\"{n}\"}}").unwrap();
        lines
    });
    fs::write(&file, lines).unwrap();
    let file = file.to_str().unwrap().to_owned();
    let (published, cited) = std::thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            let words = [
                "publish",
                STREAM,
                &file,
                "--type",
                "test.made",
                "--id-from",
                "id",
                "--batch",
                "16",
                "--attempts",
                "0",
            ];
            producer.run(&words)
        });
        wait_until("it is being published", || {
            (producer.entries(STREAM)? > 100).then_some(())
        });
        let cited = producer.json(&["stream", "create", "next", "--cites", STREAM]);
        (publishing.join().unwrap(), cited)
    });
    assert_eq!(published.status.code(), Some(8), "{published:?}");
    let said = String::from_utf8_lossy(&published.stderr).into_owned();
    let stored: u64 = said
        .split_whitespace()
        .zip(said.split_whitespace().skip(1))
        .find_map(|(number, word)| (word == "events").then(|| number.parse().ok())?)
        .unwrap_or_else(|| panic!("{said}"));
    let held = size(&producer, STREAM);
    let cited = info(&producer, "next")["cites"]["size"]
        .as_u64()
        .unwrap_or_else(|| panic!("{cited}"));
    assert_eq!(cited, held, "nothing came after what is cited");
    // The genesis entry is no event. What was stored and not acknowledged in time may be there too.
    assert!(stored < held, "{said}");
    assert!(held < 60_001);
}

/// With `--assurance witnessed` nothing is handed on that only its own log vouches for: what another reader has cosigned is, and no more.
#[test]
fn a_reader_may_ask_for_what_others_have_cosigned() {
    let root = Root::new();
    let producer = serving(&root, "Producer");
    let mut one = serving(&root, "One");
    producer.json(&["stream", "create", STREAM]);
    producer.share(STREAM, &one);
    // The second one counts the first one's word.
    let authority = one.json(&["status"])["authority"]
        .as_str()
        .unwrap()
        .to_owned();
    let pem = fs::read_to_string(root.path().join("one/keys/witness.pem")).unwrap();
    let key = SigningKey::from_pem(&pem).unwrap().public();
    let name = format!("{authority}/witness");
    let vkey = Vkey::new(&name, countersign_tlog::Algorithm::CosignatureV1, key).unwrap();
    let trusted = [("COUNTERSIGN_WITNESS_TRUSTED", vkey.to_string())];
    let settings: Vec<(&str, &str)> = trusted.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let mut two = Node::init(root.path(), "Two", &settings);
    two.serve();
    producer.share(STREAM, &two);
    assert_eq!(hand_in(&root, &producer, 0, 4), Some(0));
    let stream = format!("producer/{STREAM}");
    holds(&two, &stream, 5);
    let words = [
        "subscribe",
        stream.as_str(),
        "--assurance",
        "witnessed",
        "--count",
        "4",
        "--follow",
    ];
    assert_eq!(two.lines(&words).len(), 4);
    let assurance = info(&two, &stream)["assurance"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(assurance.contains(&name), "{assurance}");
    // A reader without a node verifies the same word itself, by its own policy.
    let at = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
    let (profile, good, bad) = (at("reader.json"), at("good"), at("bad"));
    let invitation = producer.json(&["partner", "invite", "--stream", STREAM]);
    let link = invitation["link"].as_str().unwrap();
    two.json(&["partner", "join", link, "--yes", "--profile", &profile]);
    let stranger = SigningKey::from_seed(&[8; 32]).public();
    let stranger = Vkey::new(
        "w.example",
        countersign_tlog::Algorithm::CosignatureV1,
        stranger,
    );
    for (path, vkey) in [(&good, &vkey), (&bad, &stranger.unwrap())] {
        fs::write(path, format!("witness W {vkey}\nquorum W\n")).unwrap();
    }
    let origin = info(&producer, STREAM)["origin"]
        .as_str()
        .unwrap()
        .to_owned();
    let light = ["subscribe", origin.as_str(), "--profile", &profile];
    let witnessed = ["--assurance", "witnessed", "--trust"];
    let reading = |policy: &str, more: &[&str]| {
        two.lines(&[&light[..], &witnessed[..], &[policy], more].concat())
    };
    assert_eq!(
        two.run(&[&light[..], &witnessed[..2]].concat())
            .status
            .code(),
        Some(2)
    );
    assert!(reading(&bad, &["--from", "start"]).is_empty());
    assert_eq!(
        reading(&good, &["--from", "start", "--count", "4", "--follow"]).len(),
        4
    );
    // The other one goes away: what comes now is integrated, and no more.
    one.terminate();
    assert_eq!(hand_in(&root, &producer, 4, 6), Some(0));
    assert!(reading(&good, &[]).is_empty());
    assert_eq!(
        two.lines(&light).len(),
        2,
        "it is kept for who asks for less"
    );
    holds(&two, &stream, 7);
    let words = ["subscribe", stream.as_str(), "--assurance", "witnessed"];
    assert_eq!(two.lines(&words).len(), 4);
    assert_eq!(two.lines(&["subscribe", stream.as_str()]).len(), 6);
}
