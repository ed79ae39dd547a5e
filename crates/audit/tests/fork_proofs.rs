//! Fork proofs, judged as an auditor judges them, and their golden vectors in `tests/vectors/fork-proof/v1`.
//!
//! With COUNTERSIGN_WRITE_VECTORS=1 missing vectors are written. A file that is there is never changed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use countersign_audit::{FORK_PROOF, Report, Trust, verify};
use countersign_crypto::SigningKey;
use countersign_event::documents::{KeyStatement, Role, RoleKey};
use countersign_event::dsse::Envelope;
use countersign_event::names::{Origin, StreamName};
use countersign_event::time::Timestamp;
use countersign_tlog::checkpoint::sign_checkpoint;
use countersign_tlog::fork_proof::ForkProof;
use countersign_tlog::note::{Note, sign};
use countersign_tlog::{
    Algorithm, Checkpoint, Hash, MemoryTree, Vkey, compact_range_at, consistency_proof, leaf_hash,
};
use serde_json::{Value, json};
use support::{Org, T0};

const FOLDER: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/vectors/fork-proof/v1"
);
const WHOLE: u8 = 0;
const FAILED: u8 = 6;
const INCONCLUSIVE: u8 = 9;

/// A log of an organization that tells two stories: from entry 3 on the other one differs.
struct Place {
    org: Org,
    origin: Origin,
    second: SigningKey,
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let org = Org::new(1);
        let name: StreamName = "orders".parse().unwrap();
        Self {
            origin: Origin::of_stream(&org.authority, &name),
            org,
            second: SigningKey::from_seed(&[77; 32]),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn tree(story: u8) -> MemoryTree {
        let mut tree = MemoryTree::new();
        for n in 0..30_u8 {
            let story = if n < 3 { 0 } else { story };
            tree.append(leaf_hash(&[n, story]));
        }
        tree
    }

    fn root(story: u8, size: u64) -> Hash {
        compact_range_at(&Self::tree(story), size).unwrap().root()
    }

    fn note_by(&self, story: u8, size: u64, key: &SigningKey) -> String {
        let root = Self::root(story, size);
        let checkpoint = Checkpoint::new(self.origin.to_string(), size, root).unwrap();
        sign_checkpoint(&checkpoint, key).note_text
    }

    fn fork_by(&self, n: u64, m: u64, keys: [&SigningKey; 2]) -> ForkProof {
        let (a, b) = (self.note_by(0, n, keys[0]), self.note_by(1, m, keys[1]));
        let made = if n == m {
            ForkProof::same_size(&a, &b)
        } else {
            let proof = consistency_proof(&Self::tree(1), n, m).unwrap();
            ForkProof::between(&a, &b, Self::root(1, n), proof)
        };
        made.unwrap()
            .with_statements(vec![text(&self.statement(&[&self.org.log]))])
    }

    fn fork(&self, n: u64, m: u64) -> ForkProof {
        self.fork_by(n, m, [&self.org.log, &self.org.log])
    }

    fn statement(&self, keys: &[&SigningKey]) -> Envelope {
        self.statement_of(1, &keys.iter().map(|key| (*key, None)).collect::<Vec<_>>())
    }

    fn statement_of(&self, number: u64, keys: &[(&SigningKey, Option<u64>)]) -> Envelope {
        let key = |(key, until): &(&SigningKey, Option<u64>)| RoleKey {
            role: Role::Log,
            key: key.public(),
            from: Timestamp(T0),
            until: until.map(|until| Timestamp(T0 + until)),
        };
        KeyStatement {
            authority: self.org.authority.clone(),
            name: "An organization".to_owned(),
            organization: self.org.organization.public(),
            number,
            made: Timestamp(T0 + 100 * number),
            keys: keys.iter().map(key).collect(),
            succession: Vec::new(),
        }
        .sign_with(&self.org.organization)
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.folder.path().join(format!("x.{extension}"))
    }

    fn judge_bytes(&self, bytes: &[u8], trust: &Trust) -> Report {
        fs::write(self.path(FORK_PROOF), bytes).unwrap();
        verify(&self.path(FORK_PROOF), trust, &mut |_| ()).unwrap()
    }

    fn judge(&self, proof: &ForkProof) -> u8 {
        let report = self.judge_bytes(proof.encode().as_bytes(), &self.org.trust());
        report.verdict.exit_code()
    }
}

fn text(envelope: &Envelope) -> String {
    String::from_utf8(envelope.to_json()).unwrap()
}

#[test]
fn a_fork_is_proven_by_one_file_that_says_who_and_where() {
    let place = Place::new();
    let trust = place.org.trust();
    let fingerprint = place.org.organization.public().fingerprint().to_string();
    for (n, m) in [(4, 4), (5, 9), (8, 30), (16, 17)] {
        let report = place.judge_bytes(place.fork(n, m).encode().as_bytes(), &trust);
        let shown = report.to_string();
        assert_eq!(report.verdict.exit_code(), WHOLE, "{shown}");
        let sentence = format!(
            "proven: {} signed two histories that part at or before entry {}, one of {n} entries and one of {m}, under {fingerprint}, which you trust",
            place.origin,
            n - 1
        );
        assert_eq!(report.sentence(), sentence);
        let vkey = Vkey::new(
            place.origin.as_str(),
            Algorithm::Ed25519,
            place.org.log.public(),
        );
        assert!(shown.contains(&vkey.unwrap().to_string()), "{shown}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["evidence"], "fork");
        assert_eq!(json["verdict"], "whole");
        assert_eq!((&json["from"], &json["to"]), (&json!(n), &json!(m)));
        assert_eq!(json["origin"], place.origin.as_str());
        assert_eq!(json["key"], fingerprint);
    }
}

#[test]
fn without_trust_or_a_key_statement_nothing_is_said_against_anybody() {
    let place = Place::new();
    let fork = place.fork(5, 9);
    let judge = |fork: &ForkProof, trust: &Trust| {
        let report = place.judge_bytes(fork.encode().as_bytes(), trust);
        report.verdict.exit_code()
    };
    assert_eq!(judge(&fork, &Trust::none()), INCONCLUSIVE);
    assert_eq!(judge(&fork, &Org::new(2).trust()), INCONCLUSIVE);
    let bare = fork.clone().with_statements(Vec::new());
    assert_eq!(judge(&bare, &place.org.trust()), INCONCLUSIVE);
    // The vkey of the log suffices, and so does a statement that lies beside, or is brought along.
    let vkey = Vkey::new(
        place.origin.as_str(),
        Algorithm::Ed25519,
        place.org.log.public(),
    );
    let pinned = Trust::of_vkeys([vkey.unwrap()]);
    assert_eq!(judge(&bare, &pinned), WHOLE);
    let statement = place.statement(&[&place.org.log]).to_json();
    let brought = Trust::from_file(&statement).unwrap();
    assert_eq!(judge(&bare, &brought), WHOLE);
    fs::write(place.path("key-statements"), &statement).unwrap();
    assert_eq!(judge(&bare, &place.org.trust()), WHOLE);
    // Of another organization: it says nothing about this log's key.
    let foreign = Org::new(2).statement();
    fs::remove_file(place.path("key-statements")).unwrap();
    let bare = bare.with_statements(vec![text(&foreign)]);
    assert_eq!(judge(&bare, &place.org.trust()), INCONCLUSIVE);
}

#[test]
fn two_keys_of_one_log_contradict_each_other_and_keys_of_nobody_do_not() {
    let place = Place::new();
    let (first, second) = (&place.org.log, &place.second);
    let by = |a, b, statement: &Envelope| {
        let fork = place.fork_by(5, 9, [a, b]);
        place.judge(&fork.with_statements(vec![text(statement)]))
    };
    let both = place.statement(&[first, second]);
    let one = place.statement(&[first]);
    assert_eq!(by(first, second, &both), WHOLE);
    assert_eq!(by(second, first, &both), WHOLE);
    assert_eq!(by(first, second, &one), INCONCLUSIVE, "nobody's");
    // Retired since: whoever found the key later could have signed the other history.
    let statements = |newest: Envelope| {
        let fork = place.fork_by(5, 9, [first, second]);
        place.judge(&fork.with_statements(vec![text(&both), text(&newest)]))
    };
    assert_eq!(
        statements(place.statement_of(2, &[(first, None)])),
        INCONCLUSIVE
    );
    assert_eq!(
        statements(place.statement_of(2, &[(first, None), (second, Some(150))])),
        INCONCLUSIVE
    );
    assert_eq!(
        statements(place.statement_of(2, &[(first, None), (second, Some(1000))])),
        WHOLE
    );
}

#[test]
fn what_proves_nothing_fails_and_says_why() {
    let place = Place::new();
    let good = place.fork(5, 9).encode();
    let failed = |text: &str, why: &str| {
        let report = place.judge_bytes(text.as_bytes(), &place.org.trust());
        assert_eq!(report.verdict.exit_code(), FAILED, "{report}");
        assert!(report.to_string().contains(why), "{report}");
    };
    failed("", "the first line");
    failed("hello\n", "the first line");
    failed(&good.replacen("\nroot ", "\nroot", 1), "line");
    failed(
        &good.replacen("statement {", "statement {\"a\":1,", 1),
        "statement 1",
    );
    // Honest growth, dressed up.
    let (a, b) = (
        place.note_by(0, 5, &place.org.log),
        place.note_by(0, 9, &place.org.log),
    );
    let mut honest = place.fork(5, 9);
    honest.smaller = a.clone();
    honest.larger = b;
    failed(&honest.encode(), "the bridge does not hold");
    let mut same = place.fork(4, 4);
    same.larger = same.smaller.clone();
    failed(&same.encode(), "there is no fork");
    // Signed for another text.
    let mut forged = place.fork(5, 9);
    let note = Note::parse(forged.larger.as_bytes()).unwrap();
    let line = sign("other\n", place.origin.as_str(), &place.org.log).unwrap();
    let mut other = Note::new(note.text().to_owned()).unwrap();
    other.push(line).unwrap();
    forged.larger = other.encode();
    failed(&forged.encode(), "not signed by it");
    // A key that is no log key of the organization signs nothing for it.
    let fork = place.fork_by(5, 9, [&place.org.log, &place.org.receipt]);
    assert_eq!(place.judge(&fork), INCONCLUSIVE);
    // A document of another kind is no key statement.
    let receipt = place
        .fork(5, 9)
        .with_statements(vec![text(&place.statement(&[&place.org.log])), "{}".into()]);
    failed(&receipt.encode(), "statement 2");
}

#[test]
fn a_line_that_the_log_adds_to_what_it_hands_out_takes_no_signature_back() {
    let place = Place::new();
    let mut fork = place.fork(5, 9);
    let both = place.statement(&[&place.org.log, &place.second]);
    let mut note = Note::parse(fork.larger.as_bytes()).unwrap();
    note.push(sign("other\n", place.origin.as_str(), &place.second).unwrap())
        .unwrap();
    fork.larger = note.encode();
    assert_eq!(place.judge(&fork.with_statements(vec![text(&both)])), WHOLE);
}

#[test]
fn vectors_are_the_recorded_ones_and_are_judged_as_recorded() {
    let place = Place::new();
    let vkey = |key: &SigningKey| {
        Vkey::new(place.origin.as_str(), Algorithm::Ed25519, key.public()).unwrap()
    };
    let mut two_keys = place.fork_by(8, 30, [&place.org.log, &place.second]);
    two_keys.statements = vec![text(&place.statement(&[&place.org.log, &place.second]))];
    let files = [
        ("same-size", place.fork(4, 4)),
        ("other-sizes", place.fork(5, 9)),
        ("power-of-two-and-two-keys", two_keys),
        (
            "without-statement",
            place.fork(13, 30).with_statements(Vec::new()),
        ),
    ];
    for (name, fork) in &files {
        check(&format!("{name}.fork-proof"), fork.encode().as_bytes());
        let read = fs::read(Path::new(FOLDER).join(format!("{name}.fork-proof"))).unwrap();
        let read = ForkProof::parse(&read).unwrap();
        assert_eq!(read, *fork);
        let vkeys = [vkey(&place.org.log), vkey(&place.second)];
        assert!(read.check(&vkeys).is_ok(), "{name}");
    }
    let proven = files.iter().map(|(name, fork)| {
        let (smaller, larger) = fork.checkpoints().unwrap();
        json!({"file": format!("{name}.fork-proof"), "smaller": smaller.size, "larger": larger.size, "parts_at_or_before": smaller.size - 1})
    });
    let expected = json!({
        "origin": place.origin.as_str(),
        "organization": place.org.organization.public().fingerprint().to_string(),
        "vkeys": [vkey(&place.org.log).to_string(), vkey(&place.second).to_string()],
        "proven": proven.collect::<Vec<_>>(),
        "refused": refused(&place),
    });
    let recorded = check("cases.json", format!("{expected:#}\n").as_bytes());
    let recorded: Value = serde_json::from_slice(&recorded).unwrap();
    assert_eq!(recorded, expected);
    for case in recorded["refused"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let report = place.judge_bytes(text.as_bytes(), &place.org.trust());
        assert_eq!(report.verdict.exit_code(), FAILED, "{case}");
    }
}

fn refused(place: &Place) -> Vec<Value> {
    let good = place.fork(5, 9);
    let bridged = good.bridge.clone().unwrap();
    let with_root = |root: Hash| {
        let mut fork = good.clone();
        fork.bridge.as_mut().unwrap().root = root;
        fork.encode()
    };
    let mut shorter = good.clone();
    shorter.bridge.as_mut().unwrap().proof.pop();
    let mut unbridged = good.clone();
    unbridged.bridge = None;
    let mut bridged_same = place.fork(4, 4);
    bridged_same.bridge = Some(bridged);
    let mut turned = good.clone();
    std::mem::swap(&mut turned.smaller, &mut turned.larger);
    let mut same = place.fork(4, 4);
    same.larger = same.smaller.clone();
    let mut other_log = good.clone();
    let name: StreamName = "other".parse().unwrap();
    let elsewhere = Place {
        origin: Origin::of_stream(&place.org.authority, &name),
        ..Place::new()
    };
    other_log.smaller = elsewhere.note_by(0, 5, &place.org.log);
    let text = good.encode();
    let cases = [
        (
            "a bridge from the root that was signed",
            with_root(Place::root(0, 5)),
        ),
        (
            "a bridge from a root of another size",
            with_root(Place::root(1, 6)),
        ),
        ("a hash too few", shorter.encode()),
        ("no bridge between two sizes", unbridged.encode()),
        (
            "a bridge between checkpoints of one size",
            bridged_same.encode(),
        ),
        ("the larger checkpoint first", turned.encode()),
        ("one checkpoint twice", same.encode()),
        ("checkpoints of two logs", other_log.encode()),
        ("another version", text.replacen("@v1", "@v2", 1)),
        (
            "a wrong number of lines",
            text.replacen("checkpoint 5", "checkpoint 6", 1),
        ),
        (
            "a number with a zero before it",
            text.replacen("checkpoint 5", "checkpoint 05", 1),
        ),
        ("carriage returns", text.replace('\n', "\r\n")),
        ("no line feed at the end", text.trim_end().to_owned()),
        ("an empty line at the end", format!("{text}\n")),
        (
            "a statement that is no envelope",
            format!("{text}statement {{}}\n"),
        ),
        (
            "a signature of other bytes",
            text.replacen("\n5\n", "\n05\n", 1),
        ),
    ];
    cases
        .map(|(what, text)| json!({"what": what, "text": text}))
        .to_vec()
}

/// Compares a file with what it should hold, or writes it where it is missing and writing is asked for.
fn check(name: &str, expected: &[u8]) -> Vec<u8> {
    let path = Path::new(FOLDER).join(name);
    if !path.exists() && std::env::var("COUNTERSIGN_WRITE_VECTORS").is_ok_and(|v| v == "1") {
        fs::create_dir_all(FOLDER).unwrap();
        fs::write(&path, expected).unwrap();
    }
    let found = fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    let is_json = path
        .extension()
        .is_some_and(|extension| extension == "json");
    assert!(
        is_json || found == expected,
        "{name} holds other bytes than this code makes"
    );
    found
}
