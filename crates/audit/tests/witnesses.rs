//! Cosignatures in evidence: who cosigned, since when, and what follows for whoever asks for witnesses.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use countersign_audit::{
    EVENT_PROOF, EventProof, FORK_PROOF, GROWTH_PROOF, GrowthProof, Quorum, Report, Trust,
};
use countersign_crypto::SigningKey;
use countersign_event::documents::{KeyStatement, Role, RoleKey};
use countersign_event::dsse::Envelope;
use countersign_event::time::Timestamp;
use countersign_tlog::add_checkpoint::AddCheckpoint;
use countersign_tlog::fork_proof::ForkProof;
use countersign_tlog::proof_file::ProofFile;
use countersign_tlog::{
    Algorithm, Checkpoint, Note, Vkey, checkpoint::sign_checkpoint, consistency_proof,
    cosignature_v1, inclusion_proof,
};
use support::*;

const WHOLE: u8 = 0;
const FAILED: u8 = 6;
const INCONCLUSIVE: u8 = 9;
/// 2026-09-21T14:13:20Z.
const T: u64 = 1_790_000_000;

fn witness(n: u8) -> SigningKey {
    SigningKey::from_seed(&[100 + n; 32])
}

fn witness_name(n: u8) -> String {
    format!("w{n}.example")
}

fn witness_vkey(n: u8) -> Vkey {
    let key = witness(n).public();
    Vkey::new(&witness_name(n), Algorithm::CosignatureV1, key).unwrap()
}

/// Asks for two of three witnesses, for these logs.
fn policy(logs: &[&Vkey]) -> Trust {
    let logs = logs.iter().map(|vkey| format!("log {vkey}\n"));
    let witnesses = (1..4).map(|n| format!("witness W{n} {}\n", witness_vkey(n)));
    let text: String = logs.chain(witnesses).collect();
    Trust::from_file((text + "group some 2 W1 W2 W3\nquorum some\n").as_bytes()).unwrap()
}

/// A note with lines of witnesses; one of the number 0 is false, in the name of the first.
fn cosigned(note: &str, lines: &[(u8, u64)]) -> String {
    let mut note = Note::parse(note.as_bytes()).unwrap();
    for (n, time) in lines {
        let text = note.text().to_owned();
        let line = match n {
            0 => cosignature_v1::sign("other\n", &witness_name(1), &witness(1), *time),
            n => cosignature_v1::sign(&text, &witness_name(*n), &witness(*n), *time),
        };
        note.push(line.unwrap()).unwrap();
    }
    note.encode()
}

/// A world whose producer states its own witness keys too.
fn world(size: u64) -> World {
    let mut world = World::undecided(size);
    let org = &world.producer;
    let of = |role, key: &SigningKey| RoleKey {
        role,
        key: key.public(),
        from: Timestamp(T0),
        until: None,
    };
    let statement = KeyStatement {
        authority: org.authority.clone(),
        name: "An organization".to_owned(),
        organization: org.organization.public(),
        number: 1,
        made: Timestamp(T0),
        keys: vec![
            of(Role::Log, &org.log),
            of(Role::Agreement, &org.agreement),
            of(Role::Receipt, &org.receipt),
            of(Role::Witness, &witness(1)),
        ],
        succession: Vec::new(),
    };
    world.documents[0] = statement.sign_with(&org.organization);
    world
}

struct Case {
    world: World,
    folder: tempfile::TempDir,
}

impl Case {
    fn new(size: u64) -> Self {
        Self {
            world: world(size),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn vkey(&self) -> Vkey {
        self.world.stream.vkey()
    }

    fn trust(&self) -> Trust {
        self.world.producer.trust()
    }

    fn statements(&self) -> Vec<Envelope> {
        vec![self.world.documents[0].clone()]
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn note(&self, size: u64, lines: &[(u8, u64)]) -> String {
        cosigned(&self.world.stream.note(size), lines)
    }

    fn bundle(&self, lines: &[(u8, u64)]) -> PathBuf {
        let path = self.path("bundle");
        let _ = fs::remove_dir_all(&path);
        self.world.write(&path);
        fs::write(
            path.join("log/checkpoint"),
            self.note(self.world.size, lines),
        )
        .unwrap();
        relist(&path, "log/checkpoint");
        path
    }

    fn mirror(&self, lines: &[(u8, u64)]) -> PathBuf {
        let path = self.path("mirror");
        let _ = fs::remove_dir_all(&path);
        fs::rename(self.bundle(lines).join("log"), &path).unwrap();
        path
    }

    fn event(&self, lines: &[(u8, u64)]) -> PathBuf {
        let (content, attribute_bytes) = self.world.stream.contents[3].clone();
        let size = self.world.size;
        let proof = EventProof {
            proof: ProofFile {
                extra: Vec::new(),
                index: 3,
                proof: inclusion_proof(&self.world.stream.tree, 3, size).unwrap(),
                checkpoint: self.note(size, lines),
            },
            entry: self.world.stream.entries[3],
            attribute_bytes,
            content: Some(content),
            statements: self.statements(),
            timestamp: None,
        };
        self.files(EVENT_PROOF, proof.files())
    }

    fn growth(&self, old: &[(u8, u64)], new: &[(u8, u64)]) -> PathBuf {
        let size = self.world.size;
        let proof = GrowthProof {
            proof: AddCheckpoint {
                old: 5,
                proof: consistency_proof(&self.world.stream.tree, 5, size).unwrap(),
                checkpoint: self.note(size, new),
            },
            old: self.note(5, old),
            statements: self.statements(),
        };
        self.files(GROWTH_PROOF, proof.files())
    }

    fn files(&self, extension: &str, files: Vec<(&'static str, Vec<u8>)>) -> PathBuf {
        for (extension, bytes) in files {
            fs::write(self.path(&format!("x.{extension}")), bytes).unwrap();
        }
        self.path(&format!("x.{extension}"))
    }
}

/// The verdict, and the line about witnesses with its notes.
fn judged(path: &Path, trust: &Trust) -> (u8, String, Report) {
    let report = verify(path, trust);
    let shown = report.to_string();
    let lines = shown
        .lines()
        .skip_while(|line| !line.contains(" witnesses "));
    let mut lines = lines.peekable();
    let mut told = lines.next().unwrap().to_owned();
    told.extend(lines.take_while(|line| line.starts_with("          ")));
    (report.verdict.exit_code(), told, report)
}

fn assert_told(path: &Path, trust: &Trust, code: u8, words: &[&str]) -> Report {
    let (found, told, report) = judged(path, trust);
    assert_eq!(found, code, "{report}");
    for word in words {
        assert!(told.contains(word), "`{word}` in {report}");
    }
    report
}

#[test]
fn a_met_quorum_bounds_the_time_of_all_entries_below_the_checkpoint() {
    let case = Case::new(40);
    let lines = [(2, T + 50), (1, T + 10), (3, T + 99)];
    let asked = policy(&[&case.vkey()]).and(case.trust());
    let asked_of_any = policy(&[]).and(case.trust());
    let bound = "2026-09-21T14:14:10Z";
    let words = [
        "done",
        "40 entries of ",
        "existed by 2026-09-21T14:14:10Z",
        "w1.example at 2026-09-21T14:13:30Z",
        "w3.example at 2026-09-21T14:14:59Z",
    ];
    for (path, trust) in [
        (case.mirror(&lines), &asked),
        (case.bundle(&lines), &asked),
        (case.bundle(&lines), &asked_of_any),
        (case.event(&lines), &asked),
        (case.event(&lines), &asked_of_any),
        (case.growth(&[], &lines), &asked_of_any),
    ] {
        let report = assert_told(&path, trust, WHOLE, &words);
        let first = &report.witnessed[0];
        assert_eq!(first.quorum, Quorum::Met);
        assert_eq!(first.not_later_than.as_deref(), Some(bound));
        assert_eq!((first.size, first.by.len()), (40, 3));
    }
    let json = serde_json::to_value(verify(&case.bundle(&lines), &asked)).unwrap();
    assert_eq!(json["witnessed"][0]["quorum"], "met");
    assert_eq!(json["witnessed"][0]["by"][0]["name"], "w1.example");
    assert_eq!(json["witnessed"][0]["not_later_than"], bound);
}

#[test]
fn a_quorum_that_is_not_met_leaves_whole_evidence_inconclusive() {
    let case = Case::new(40);
    let trust = policy(&[&case.vkey()]).and(case.trust());
    for lines in [&[][..], &[(1, T)], &[(1, T), (1, T + 1)]] {
        for path in [
            case.mirror(lines),
            case.bundle(lines),
            case.event(lines),
            case.growth(&[(1, T), (2, T)], lines),
        ] {
            let report = assert_told(&path, &trust, INCONCLUSIVE, &["missing", "is not met"]);
            assert_eq!(report.witnessed[0].quorum, Quorum::Missed);
            assert!(report.witnessed[0].not_later_than.is_none());
        }
    }
    // What nobody asked for is not missing.
    assert_eq!(
        verify(&case.bundle(&[]), &case.trust()).verdict.exit_code(),
        WHOLE
    );
    let none = Trust::from_file(format!("log {}\nquorum none\n", case.vkey()).as_bytes()).unwrap();
    let words = ["done", "asks for no witness"];
    assert_told(&case.event(&[]), &none, WHOLE, &words);
}

#[test]
fn a_false_line_of_a_known_witness_fails_the_evidence_and_one_of_a_stranger_does_not() {
    let case = Case::new(40);
    let trust = policy(&[&case.vkey()]).and(case.trust());
    let bad = [(1, T), (2, T), (0, T)];
    for path in [
        case.mirror(&bad),
        case.bundle(&bad),
        case.event(&bad),
        case.growth(&[], &bad),
        case.growth(&bad, &[(1, T), (2, T)]),
    ] {
        assert_told(&path, &trust, FAILED, &["FAILED", "w1.example"]);
    }
    let strange = [(1, T), (2, T), (9, T)];
    assert_told(&case.bundle(&strange), &trust, WHOLE, &["done"]);
    // Nobody asked: it is told, and changes nothing.
    let words = ["skipped", "does not verify"];
    assert_told(&case.bundle(&bad), &case.trust(), WHOLE, &words);
}

#[test]
fn without_a_policy_witness_keys_of_the_statements_here_are_told_and_change_nothing() {
    let case = Case::new(40);
    let path = case.bundle(&[(1, T + 10), (2, T)]);
    let words = [
        "skipped",
        "nobody said which witnesses count",
        "40 entries, witnessed not later than 2026-09-21T14:13:30Z by `w1.example`",
    ];
    let report = assert_told(&path, &case.trust(), WHOLE, &words);
    assert_eq!(report.witnessed[0].quorum, Quorum::Unasked);
    assert_eq!(report.witnessed[0].by.len(), 1, "nobody stated the second");
    assert!(!report.to_string().contains("w2.example"), "{report}");
    assert_told(&path, &Trust::none(), INCONCLUSIVE, &words);
    // Without any line there is nothing to tell.
    let report = verify(&case.bundle(&[]), &case.trust());
    assert!(report.witnessed.is_empty());
}

#[test]
fn a_policy_is_about_the_logs_that_it_names_whichever_key_signed() {
    let case = Case::new(40);
    let other = Vkey::new("a.example/b", Algorithm::Ed25519, witness(50).public()).unwrap();
    let elsewhere = policy(&[&other]).and(case.trust());
    let words = ["skipped", "no policy that you gave is about this log"];
    assert_told(&case.bundle(&[]), &elsewhere, WHOLE, &words);
    // Another key of the log does not lead around its policy.
    let name = case.world.stream.origin.as_str();
    let second = Vkey::new(name, Algorithm::Ed25519, witness(51).public()).unwrap();
    let same_log = policy(&[&second]).and(case.trust());
    assert_told(&case.bundle(&[]), &same_log, INCONCLUSIVE, &["missing"]);
    // A ledger in a bundle is judged where it is named, and else not.
    let of_any = policy(&[]).and(case.trust());
    let lines = [(1, T), (2, T)];
    assert_told(&case.bundle(&lines), &of_any, WHOLE, &["done"]);
    let ledger = case.world.ledger.as_ref().unwrap().vkey();
    let both = policy(&[&ledger]).and(case.trust());
    let words = ["missing", "/ledger/"];
    assert_told(&case.bundle(&lines), &both, INCONCLUSIVE, &words);
    // Each policy about the log has to be met.
    let third = format!("witness W3 {}\nquorum W3\n", witness_vkey(3));
    let third = Trust::from_file(third.as_bytes()).unwrap();
    let strict = of_any.clone().and(third.clone());
    assert_told(&case.bundle(&lines), &strict, INCONCLUSIVE, &["missing"]);
    let all = [(1, T), (2, T), (3, T)];
    assert_told(&case.bundle(&all), &strict, WHOLE, &["done"]);
    // Witnesses alone say nothing of the log's key.
    let report = verify(&case.bundle(&all), &third);
    assert!(!report.trusted && report.verdict.exit_code() == INCONCLUSIVE);
}

#[test]
fn a_fork_is_proven_whoever_cosigned() {
    let case = Case::new(40);
    let org = &case.world.producer;
    let root = [9; 32];
    let origin = case.world.stream.origin.to_string();
    let other = Checkpoint::new(origin, 40, root).unwrap();
    let other = sign_checkpoint(&other, &org.log).note_text;
    let statement = String::from_utf8(case.world.documents[0].to_json()).unwrap();
    let judge = |lines: &[(u8, u64)], trust: &Trust, words: &[&str]| {
        let fork = ForkProof::same_size(&case.note(40, &[]), &cosigned(&other, lines)).unwrap();
        let fork = fork.with_statements(vec![statement.clone()]);
        let path = case.path(&format!("x.{FORK_PROOF}"));
        fs::write(&path, fork.encode()).unwrap();
        assert_told(&path, trust, WHOLE, words)
    };
    let trust = policy(&[]).and(case.trust());
    judge(&[], &trust, &["cosigned by nobody"]);
    judge(&[(1, T)], &trust, &["cosigned by w1.example at 2026"]);
    judge(&[(0, T)], &trust, &["does not verify"]);
    judge(&[(1, T)], &case.trust(), &["witnessed not later than"]);
    let met = judge(&[(1, T), (2, T)], &trust, &["existed by"]);
    assert_eq!(met.witnessed.len(), 2);
}
