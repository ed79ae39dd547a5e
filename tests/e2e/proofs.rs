//! Small evidence out of a running node, judged by the auditor: the proof of one event, the proof of growth, a mirrored log.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use countersign_audit::{Check, Evidence, Outcome, Report, Trust, Verdict, verify};
use countersign_crypto::SigningKey;
use countersign_tlog::checkpoint::{open_checkpoint, sign_checkpoint};
use countersign_tlog::cose_receipt::CoseReceipt;
use countersign_tlog::proof_file::ProofFile;
use countersign_tlog::tile::tiles;
use countersign_tlog::{Algorithm, Checkpoint, Vkey, leaf_hash};
use support::{Node, Root, wait_until};

const STREAM: &str = "quakes";

fn publisher(root: &Root, events: u32) -> Node {
    let mut node = Node::init(root.path(), "Producer", &[]);
    node.serve();
    node.json(&["stream", "create", STREAM]);
    hand_in(root, &node, 0, events);
    node
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
    node.json(&[&["publish", STREAM, file][..], &wrap].concat());
}

fn vkey(node: &Node) -> Vkey {
    let info = node.json(&["stream", "info", STREAM]);
    Vkey::parse(info["log_vkey"].as_str().unwrap()).unwrap()
}

fn trust(node: &Node) -> Trust {
    Trust::of_fingerprints([node.fingerprint.parse().unwrap()])
}

fn judged(path: &Path, trust: &Trust) -> Report {
    verify(path, trust, &mut |_| ()).unwrap()
}

fn exit(path: &Path, trust: &Trust) -> u8 {
    judged(path, trust).verdict.exit_code()
}

/// The exit code of `evidence verify`, of the program itself.
fn verified(node: &Node, path: &Path, trust: &[&str]) -> i32 {
    let path = path.to_str().unwrap();
    let words = [&["evidence", "verify", path][..], trust].concat();
    node.run(&words).status.code().unwrap()
}

/// Calls `look` with each of some bytes of a file changed, one after the other.
fn with_each_byte_changed(path: &Path, step: usize, mut look: impl FnMut(usize)) {
    let whole = fs::read(path).unwrap();
    for at in (0..whole.len()).step_by(step) {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        fs::write(path, &changed).unwrap();
        look(at);
    }
    fs::write(path, whole).unwrap();
}

fn without(path: &Path, mut look: impl FnMut()) {
    let whole = fs::read(path).unwrap();
    fs::remove_file(path).unwrap();
    look();
    fs::write(path, whole).unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// 1. An event is proven. 2. A tlog tool that knows the vkey accepts it, and so does the auditor, who says whose it is. 3. Each changed byte is false, each
///    missing file is missing.
#[test]
fn one_event_is_proven_offline_and_every_byte_of_the_proof_counts() {
    let root = Root::new();
    let node = publisher(&root, 300);
    let out = root.path().join("quakes-41.tlog-proof");
    let made = node.json(&["stream", "proof", STREAM, "41", "--out", text(&out)]);
    assert_eq!(
        (made["sequence"].as_u64(), made["size"].as_u64()),
        (Some(41), Some(301))
    );
    assert_eq!(made["trust"]["fingerprint"], node.fingerprint.as_str());
    assert_eq!(made["files"].as_array().unwrap().len(), 4);
    let beside = |extension: &str| out.with_extension(extension);

    let entry = fs::read(beside("entry")).unwrap();
    let proof = ProofFile::parse(&fs::read(&out).unwrap()).unwrap();
    let checkpoint = proof.verify(&leaf_hash(&entry), &vkey(&node)).unwrap();
    assert_eq!((proof.index, checkpoint.size), (41, 301));

    let trusted = trust(&node);
    let report = judged(&out, &trusted);
    assert_eq!(
        (report.evidence, &report.verdict),
        (Evidence::Event, &Verdict::Whole),
        "{report}"
    );
    assert_eq!(report.key.as_deref(), Some(node.fingerprint.as_str()));
    let content = report
        .checks
        .iter()
        .find(|line| line.check == Check::Content)
        .unwrap();
    let Outcome::Done { what } = &content.outcome else {
        panic!("{report}");
    };
    assert!(
        what.contains("event `40`") && what.contains("`test.made`"),
        "{what}"
    );
    assert_eq!(verified(&node, &out, &["--trust", &node.fingerprint]), 0);
    assert_eq!(verified(&node, &out, &[]), 9);

    with_each_byte_changed(&beside("entry"), 1, |at| {
        assert_eq!(exit(&out, &trusted), 6, "{at}")
    });
    with_each_byte_changed(&beside("content"), 1, |at| {
        assert_eq!(exit(&out, &trusted), 6, "{at}")
    });
    // A byte of a name or key id in a signature line makes it somebody else's: missing, not false.
    with_each_byte_changed(&out, 1, |at| assert_ne!(exit(&out, &trusted), 0, "{at}"));
    // The key id of a DSSE signature is a hint, which nothing depends on.
    let statements = fs::read_to_string(beside("key-statements")).unwrap();
    let hint = statements.find("\"keyid\":\"").unwrap() + 9;
    let hint = hint..hint + statements[hint..].find('"').unwrap();
    with_each_byte_changed(&beside("key-statements"), 7, |at| {
        assert_eq!(exit(&out, &trusted) == 0, hint.contains(&at), "{at}");
    });
    assert_eq!(exit(&out, &trusted), 0);
    for missing in ["entry", "content", "key-statements"] {
        without(&beside(missing), || {
            assert_eq!(exit(&out, &trusted), 9, "{missing}")
        });
    }
    without(&beside("key-statements"), || {
        assert_eq!(exit(&out, &Trust::of_vkeys([vkey(&node)])), 0);
    });
    // Another event's leaf under this proof, and another index.
    let other = root.path().join("other.tlog-proof");
    node.json(&["stream", "proof", STREAM, "42", "--out", text(&other)]);
    for extension in ["entry", "content"] {
        fs::copy(beside(extension), other.with_extension(extension)).unwrap();
    }
    assert_eq!(exit(&other, &trusted), 6);
    let first = root.path().join("first.tlog-proof");
    node.json(&["stream", "proof", STREAM, "0", "--out", text(&first)]);
    assert_eq!(exit(&first, &trusted), 0);

    // Trees of one leaf, signed: what a log's operator, or a thief of another key, could make.
    let signed = |leaf: &Path, key: &SigningKey| {
        let entry = fs::read(leaf.with_extension("entry")).unwrap();
        let origin = vkey(&node).name().to_owned();
        let checkpoint = Checkpoint::new(origin, 1, leaf_hash(&entry)).unwrap();
        let proof = ProofFile {
            extra: Vec::new(),
            index: 0,
            proof: Vec::new(),
            checkpoint: sign_checkpoint(&checkpoint, key).note_text,
        };
        fs::write(leaf, proof.encode()).unwrap();
    };
    let log_key = fs::read_to_string(node.data.join("keys/log.pem")).unwrap();
    signed(&out, &SigningKey::from_pem(&log_key).unwrap());
    let report = judged(&out, &trusted);
    assert!(
        report.to_string().contains("its sequence is 41"),
        "{report}"
    );
    assert_eq!(report.verdict.exit_code(), 6);
    let other = SigningKey::from_seed(&[9; 32]);
    signed(&first, &other);
    let name = vkey(&node).name().to_owned();
    let pinned = Vkey::new(&name, Algorithm::Ed25519, other.public()).unwrap();
    let pinned = Trust::of_vkeys([pinned]);
    // The statement that is here says that this key is none of the organization's.
    assert_eq!(exit(&first, &pinned), 6);
    assert_eq!(exit(&first, &trusted), 9);
    without(&first.with_extension("key-statements"), || {
        assert_eq!(exit(&first, &pinned), 0);
    });
}

/// 1. The same event in COSE, from a node that runs and, once it has ended, in process. 2. The auditor accepts it, and says whose it is. 3. Each changed
///    byte is refused but where it says another size, each missing file is missing, another event's leaf is false.
#[test]
fn a_cose_receipt_is_judged_as_the_proof_of_one_event() {
    let root = Root::new();
    let mut node = publisher(&root, 300);
    let out = root.path().join("quakes-41.cose");
    let made = node.json(&["stream", "proof", STREAM, "41", "--out", text(&out)]);
    assert_eq!(
        (made["sequence"].as_u64(), made["size"].as_u64()),
        (Some(41), Some(301))
    );
    assert_eq!(made["trust"]["fingerprint"], node.fingerprint.as_str());
    assert_eq!(made["files"].as_array().unwrap().len(), 4);
    assert!(!out.with_extension("tlog-proof").exists());
    let beside = |extension: &str| out.with_extension(extension);

    // Whoever has leaf and vkey needs nothing else.
    let whole = fs::read(&out).unwrap();
    let receipt = CoseReceipt::parse(&whole).unwrap();
    let leaf = leaf_hash(&fs::read(beside("entry")).unwrap());
    assert_eq!(receipt.verify(&leaf, &vkey(&node)), Ok(()));
    assert_eq!((receipt.index, receipt.size), (41, 301));

    let trusted = trust(&node);
    let report = judged(&out, &trusted);
    assert_eq!(
        (report.evidence, &report.verdict),
        (Evidence::Event, &Verdict::Whole),
        "{report}"
    );
    assert_eq!((report.from, report.to), (41, 42));
    assert_eq!(report.key.as_deref(), Some(node.fingerprint.as_str()));
    assert!(report.to_string().contains("event `40`"), "{report}");
    assert!(
        report.to_string().contains("does not sign the size"),
        "{report}"
    );
    assert_eq!(verified(&node, &out, &["--trust", &node.fingerprint]), 0);
    assert_eq!(verified(&node, &out, &[]), 9);
    assert_eq!(exit(&out, &Trust::of_vkeys([vkey(&node)])), 0);

    with_each_byte_changed(&out, 1, |at| {
        let now = CoseReceipt::parse(&fs::read(&out).unwrap());
        let only_size = now.is_ok_and(|now| CoseReceipt { size: 301, ..now } == receipt);
        assert!(only_size || exit(&out, &trusted) != 0, "{at}");
    });
    for beside in [beside("entry"), beside("content")] {
        with_each_byte_changed(&beside, 1, |at| assert_eq!(exit(&out, &trusted), 6, "{at}"));
    }
    for missing in ["entry", "content", "key-statements"] {
        without(&beside(missing), || {
            assert_eq!(exit(&out, &trusted), 9, "{missing}")
        });
    }
    without(&beside("key-statements"), || {
        assert_eq!(exit(&out, &Trust::of_vkeys([vkey(&node)])), 0);
    });

    // In process, under the default name, and another event's leaf under the first one's receipt.
    assert!(node.terminate().success());
    let made = node.json(&["stream", "proof", STREAM, "42", "--format", "cose"]);
    let other = PathBuf::from(made["proof"].as_str().unwrap());
    assert!(other.ends_with("quakes-42.cose"), "{made}");
    assert_eq!(exit(&other, &trusted), 0);
    fs::write(&other, &whole).unwrap();
    assert_eq!(exit(&other, &trusted), 6);

    // Signed by the log's key over the leaf at another index: the leaf says which one it is at.
    let log_key = fs::read_to_string(node.data.join("keys/log.pem")).unwrap();
    let log_key = SigningKey::from_pem(&log_key).unwrap();
    let moved = |index: u64| {
        let (origin, proof) = (&receipt.origin, vec![leaf]);
        CoseReceipt::sign(origin, (&leaf, index), 2, proof, &log_key).unwrap()
    };
    fs::write(&out, moved(1).encode()).unwrap();
    let report = judged(&out, &trusted);
    assert!(
        report.to_string().contains("its sequence is 41"),
        "{report}"
    );
    assert_eq!(report.verdict.exit_code(), 6);
}

/// A stream has no receipt before its second entry, a copy none at all, and a name has to say what it is.
#[test]
fn a_cose_receipt_that_cannot_be_is_refused_and_nothing_is_written() {
    let root = Root::new();
    let producer = publisher(&root, 3);
    producer.json(&["stream", "create", "empty"]);
    let mut consumer = Node::init(root.path(), "Consumer", &[]);
    consumer.serve();
    producer.share(STREAM, &consumer);
    wait_until("the copy is there", || {
        (consumer.entries(STREAM)? >= 4).then_some(())
    });
    let folder = root.path().join("out");
    fs::create_dir(&folder).unwrap();
    let refused = |node: &Node, words: &[&str], why: &str| {
        let output = node.run(&[&["stream", "proof"], words].concat());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(why), "{stderr}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    };
    let file = folder.join("a.cose");
    let file = text(&file);
    refused(
        &producer,
        &["empty", "0", "--out", file],
        "before the second entry",
    );
    refused(&producer, &[STREAM, "4", "--out", file], "covers 4 entries");
    let copy = format!("{}/{STREAM}", "producer");
    refused(&consumer, &[&copy, "1", "--out", file], "is a copy here");
    let other = folder.join("a.tlog-proof");
    let words = [STREAM, "1", "--format", "cose", "--out", text(&other)];
    refused(&producer, &words, "ends in `.cose`");
    let words = [STREAM, "1", "--format", "tlog-proof", "--out", file];
    refused(&producer, &words, "ends in `.tlog-proof`");
}

/// 1. A stream is published and received. 2. Both sides tell its provenance: the entries have one name, and the consumer's receipt is told by both. 3. A part
///    is a part of the whole; nothing of any event is in it, nothing is written over.
#[test]
fn provenance_tells_entries_and_receipts_under_the_same_names_on_both_sides() {
    let root = Root::new();
    let producer = publisher(&root, 40);
    let mut consumer = Node::init(root.path(), "Consumer", &[]);
    consumer.serve();
    producer.share(STREAM, &consumer);
    let receipted = |node: &Node, size: u64| {
        let receipts = node.json(&["receipt", "ls", "--limit", "1"]);
        (receipts.as_array()?.last()?["size"].as_u64()? == size).then_some(())
    };
    wait_until("the consumer receipts all", || receipted(&producer, 41));
    // A further receipt of the same series, which covers the rest only.
    hand_in(&root, &producer, 40, 80);
    wait_until("the consumer receipts the rest", || {
        receipted(&producer, 81)
    });
    wait_until("the consumer knows that", || receipted(&consumer, 81));
    let told = |node: &Node, stream: &str, name: &str, range: &[&str]| -> serde_json::Value {
        let out = root.path().join(name);
        let words = ["stream", "provenance", stream, "--out", text(&out)];
        let made = node.json(&[&words, range].concat());
        let text = fs::read_to_string(&out).unwrap();
        assert_eq!(made["total_bytes"], text.len());
        assert!(!text.contains("magnitude") && !text.contains("test.made"));
        serde_json::from_str(&text).unwrap()
    };
    let names = |told: &serde_json::Value, kind: &str| -> Vec<String> {
        told[kind].as_object().unwrap().keys().cloned().collect()
    };
    let whole = told(&producer, STREAM, "whole", &[]);
    let copy = told(&consumer, &format!("producer/{STREAM}"), "copy", &[]);
    let part = told(&producer, STREAM, "part", &["--from", "7", "--to", "9"]);
    assert_eq!(whole, copy);
    let entries = |told: &serde_json::Value| {
        let mut entries = names(told, "entity");
        entries.retain(|name| !name.contains("checkpoint"));
        entries
    };
    assert_eq!(entries(&whole).len(), 81);
    assert_eq!(names(&whole, "agent").len(), 2);
    let parts = entries(&part);
    assert_eq!(parts.len(), 2);
    assert!(
        parts.iter().all(|name| entries(&whole).contains(name)),
        "{parts:?}"
    );
    // Each receipt uses the checkpoint that it accepts, and all receipts of the series each entry once.
    let receipts = names(&whole, "activity");
    let receipts = receipts.iter().filter(|name| name.starts_with("receipt:"));
    let receipts = receipts.count();
    assert!(receipts > 1);
    assert_eq!(names(&whole, "used").len(), 81 + receipts);
    // Its name is what the entry beside a proof hashes to.
    let proof = root.path().join("seven.tlog-proof");
    producer.json(&["stream", "proof", STREAM, "7", "--out", text(&proof)]);
    let leaf = leaf_hash(&fs::read(proof.with_extension("entry")).unwrap());
    assert!(parts.contains(&format!("log:7-{}", hex::encode(leaf))));

    let refused = |words: &[&str]| {
        let words = [&["stream", "provenance", STREAM], words].concat();
        assert_eq!(producer.run(&words).status.code(), Some(2), "{words:?}");
    };
    let kept = fs::read(root.path().join("part")).unwrap();
    refused(&["--out", text(&root.path().join("part"))]);
    assert_eq!(fs::read(root.path().join("part")).unwrap(), kept);
    let none = root.path().join("none");
    refused(&["--from", "9", "--to", "9", "--out", text(&none)]);
    refused(&["--to", "82", "--out", text(&none)]);
    assert!(!none.exists());
}

#[test]
fn what_cannot_be_proven_is_refused_and_nothing_is_written() {
    let root = Root::new();
    let node = publisher(&root, 3);
    let folder = root.path().join("out");
    fs::create_dir(&folder).unwrap();
    let file = |name: &str| folder.join(name);
    let code = |words: &[&str]| node.run(&[&["stream"][..], words].concat()).status.code();
    let proof = file("a.tlog-proof");
    assert_eq!(
        code(&["proof", STREAM, "4", "--out", text(&proof)]),
        Some(2)
    );
    assert_eq!(
        code(&["proof", "nowhere", "0", "--out", text(&proof)]),
        Some(5)
    );
    assert_eq!(
        code(&["proof", STREAM, "0", "--out", text(&file("a.txt"))]),
        Some(2)
    );
    let growth = file("a.tlog-consistency");
    let consistency =
        |old: &str, new: &str| code(&["consistency", STREAM, old, new, "--out", text(&growth)]);
    assert_eq!(consistency("0", "4"), Some(2));
    assert_eq!(consistency("4", "1"), Some(2));
    assert_eq!(consistency("1", "5"), Some(5));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    // Never over anything: what is there stays, and nothing is left beside it.
    fs::write(file("a.content"), "mine").unwrap();
    assert_eq!(
        code(&["proof", STREAM, "1", "--out", text(&proof)]),
        Some(2)
    );
    assert_eq!(fs::read(file("a.content")).unwrap(), b"mine");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    // The default name, in the current folder, of a stream by its origin.
    let origin = node.json(&["stream", "info", STREAM])["origin"].clone();
    let made = node.json(&["stream", "proof", origin.as_str().unwrap(), "1"]);
    assert!(
        made["proof"]
            .as_str()
            .unwrap()
            .ends_with("/quakes-1.tlog-proof")
    );
}

/// 1. A checkpoint is fetched, the log grows, another is fetched. 2. The node proves growth between the two. 3. Two checkpoints of one key whose trees do
///    not agree are caught, whatever stands between them.
#[test]
fn growth_between_two_checkpoints_is_proven_and_a_rewritten_log_is_caught() {
    let root = Root::new();
    let node = publisher(&root, 40);
    node.json(&["stream", "access", STREAM, "open"]);
    let fetch = || node.fetch(&format!("/logs/{STREAM}/checkpoint"), &[]).body;
    let old = fetch();
    hand_in(&root, &node, 40, 300);
    wait_until("the log has grown", || {
        (open_checkpoint(&fetch(), &vkey(&node)).unwrap().size == 301).then_some(())
    });
    let out = root.path().join("growth.tlog-consistency");
    let made = node.json(&["stream", "consistency", STREAM, "41", "--out", text(&out)]);
    assert_eq!(
        (made["old"].as_u64(), made["new"].as_u64()),
        (Some(41), Some(301))
    );
    // The checkpoint is the one that a stranger fetched at the time, byte for byte.
    let old_file = out.with_extension("checkpoint");
    assert_eq!(fs::read(&old_file).unwrap(), old);
    let trusted = trust(&node);
    let report = judged(&out, &trusted);
    assert_eq!(
        (report.evidence, &report.verdict),
        (Evidence::Growth, &Verdict::Whole),
        "{report}"
    );
    assert_eq!((report.from, report.to), (41, 301));
    assert_eq!(verified(&node, &out, &["--trust", &node.fingerprint]), 0);
    assert_eq!(verified(&node, &out, &[]), 9);
    with_each_byte_changed(&out, 1, |at| assert_ne!(exit(&out, &trusted), 0, "{at}"));
    with_each_byte_changed(&old_file, 1, |at| {
        assert_ne!(exit(&out, &trusted), 0, "{at}")
    });
    without(&old_file, || assert_eq!(exit(&out, &trusted), 9));
    // Whoever holds the log key signs another history of the same size.
    let key = fs::read_to_string(node.data.join("keys/log.pem")).unwrap();
    let key = SigningKey::from_pem(&key).unwrap();
    let true_one = open_checkpoint(&old, &vkey(&node)).unwrap();
    let forked = Checkpoint {
        root: [7; 32],
        ..true_one.clone()
    };
    fs::write(&old_file, sign_checkpoint(&forked, &key).note_text).unwrap();
    assert_eq!(exit(&out, &trusted), 6);
    // A checkpoint of another size under the same proof.
    let other = Checkpoint {
        size: 40,
        ..true_one
    };
    fs::write(&old_file, sign_checkpoint(&other, &key).note_text).unwrap();
    assert_eq!(exit(&out, &trusted), 6);
    fs::write(&old_file, &old).unwrap();
    assert_eq!(exit(&out, &trusted), 0);
    // Both signed sizes the same: no hashes, and still two checkpoints to compare.
    let same = root.path().join("same.tlog-consistency");
    node.json(&[
        "stream",
        "consistency",
        STREAM,
        "301",
        "301",
        "--out",
        text(&same),
    ]);
    assert_eq!(exit(&same, &trusted), 0);
}

/// What a client fetches into a folder, under the names of the paths.
fn mirrored(node: &Node, folder: &Path) -> u64 {
    let get = |path: &str| {
        let got = node.fetch(&format!("/logs/{STREAM}/{path}"), &[]);
        assert_eq!(got.status, 200, "{path}");
        let file = folder.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, &got.body).unwrap();
        got.body
    };
    let note = get("checkpoint");
    let size = open_checkpoint(&note, &vkey(node)).unwrap().size;
    for tile in tiles(size) {
        get(&tile.to_string());
    }
    size
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                files_below(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

/// 1. A log is mirrored, it grows, it is mirrored again into the same folder. 2. The auditor walks it, with a vkey or a key statement from outside. 3. Each
///    changed file is false, each missing tile is missing.
#[test]
fn a_mirrored_log_is_verified_as_far_as_it_goes() {
    let root = Root::new();
    let node = publisher(&root, 300);
    node.json(&["stream", "access", STREAM, "open"]);
    let folder = root.path().join("mirror");
    assert_eq!(mirrored(&node, &folder), 301);
    let vkeys = Trust::of_vkeys([vkey(&node)]);
    let report = judged(&folder, &vkeys);
    assert_eq!(
        (report.evidence, &report.verdict),
        (Evidence::Mirror, &Verdict::Whole),
        "{report}"
    );
    assert_eq!(report.size, 301);
    let statement = node.data.join("key-statement.json");
    assert_eq!(verified(&node, &folder, &["--trust", text(&statement)]), 0);
    assert_eq!(verified(&node, &folder, &["--trust", &node.fingerprint]), 9);
    assert_eq!(verified(&node, &folder, &[]), 9);
    for file in files_below(&folder) {
        with_each_byte_changed(&file, 997, |at| {
            let code = exit(&folder, &vkeys);
            // The first byte of the checkpoint is of the origin: another log, whose key nobody knows.
            let expected = if file.ends_with("checkpoint") {
                [6, 9]
            } else {
                [6, 6]
            };
            assert!(expected.contains(&code), "{} {at}: {code}", file.display());
        });
        let bundle = file.ends_with("checkpoint");
        if !bundle {
            without(&file, || {
                assert_eq!(exit(&folder, &vkeys), 9, "{}", file.display())
            });
        }
    }
    // Entries that were cut off, with what the tiles say of them.
    let partial = folder.join("tile/entries/001.p/45");
    let whole = fs::read(&partial).unwrap();
    fs::write(&partial, &whole[..whole.len() - 120]).unwrap();
    assert_eq!(exit(&folder, &vkeys), 6);
    fs::write(&partial, &whole).unwrap();
    // Grown: the narrower tiles stay, and are not needed.
    hand_in(&root, &node, 300, 600);
    wait_until("the log has grown", || {
        let note = node.fetch(&format!("/logs/{STREAM}/checkpoint"), &[]).body;
        (open_checkpoint(&note, &vkey(&node)).unwrap().size == 601).then_some(())
    });
    assert_eq!(mirrored(&node, &folder), 601);
    let report = judged(&folder, &vkeys);
    assert_eq!(report.verdict, Verdict::Whole, "{report}");
    assert!(report.to_string().contains("3 further files"), "{report}");
    // Every tile agrees with every entry, and the log's own key has signed another root.
    let note = fs::read(folder.join("checkpoint")).unwrap();
    let forked = Checkpoint {
        root: [7; 32],
        ..open_checkpoint(&note, &vkey(&node)).unwrap()
    };
    let key = fs::read_to_string(node.data.join("keys/log.pem")).unwrap();
    let forked = sign_checkpoint(&forked, &SigningKey::from_pem(&key).unwrap());
    fs::write(folder.join("checkpoint"), forked.note_text).unwrap();
    assert_eq!(exit(&folder, &vkeys), 6);
    // The log of a bundle is such a folder.
    let bundle = root.path().join("bundle");
    node.json(&["evidence", "export", STREAM, "--out", text(&bundle)]);
    assert_eq!(exit(&bundle.join("log"), &vkeys), 0);
}

/// A consumer proves an event of its producer, from its copy; and evidence stays whole when tokens were made and used.
#[test]
fn a_consumer_proves_what_it_received() {
    let root = Root::new();
    let node = publisher(&root, 30);
    let mut consumer = Node::init(root.path(), "Consumer", &[]);
    consumer.serve();
    node.share(STREAM, &consumer);
    wait_until("the consumer has a copy", || {
        (consumer.entries(STREAM) == Some(31)).then_some(())
    });
    let out = root.path().join("received.tlog-proof");
    node.json(&["partner", "token", "consumer"]);
    consumer.json(&[
        "stream",
        "proof",
        "producer/quakes",
        "7",
        "--out",
        text(&out),
    ]);
    assert_eq!(exit(&out, &trust(&node)), 0);
    assert_eq!(exit(&out, &trust(&consumer)), 9);
    let growth = root.path().join("grown.tlog-consistency");
    consumer.json(&[
        "stream",
        "consistency",
        "producer/quakes",
        "31",
        "--out",
        text(&growth),
    ]);
    assert_eq!(exit(&growth, &trust(&node)), 0);
    // Somebody else's statement does not make the log theirs.
    let statements = out.with_extension("key-statements");
    let other = fs::read_to_string(consumer.data.join("key-statement.json")).unwrap();
    fs::write(&statements, other.trim_end()).unwrap();
    assert_eq!(exit(&out, &trust(&consumer)), 9);
    let token = node.json(&["partner", "token", "consumer"]);
    let header = format!("Bearer {}", token["token"].as_str().unwrap());
    let path = format!("/logs/{STREAM}/checkpoint");
    assert_eq!(node.fetch(&path, &[("Authorization", &header)]).status, 200);
    let bundle = root.path().join("bundle.tar");
    node.json(&["evidence", "export", STREAM, "--out", text(&bundle)]);
    let report = judged(&bundle, &trust(&node));
    assert_ne!(report.verdict.exit_code(), 6, "{report}");
    assert!(
        report.to_string().contains("done     decisions"),
        "{report}"
    );
}
