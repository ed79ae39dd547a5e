//! Proofs of one event and of growth, and mirrored logs, where keys change hands: whose key signed, and when it could.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::fs;
use std::path::Path;

use countersign_audit::{EVENT_PROOF, EventProof, GROWTH_PROOF, GrowthProof};
use countersign_crypto::SigningKey;
use countersign_event::documents::{KeyStatement, Role, RoleKey};
use countersign_event::dsse::Envelope;
use countersign_event::entry::Kind;
use countersign_event::names::{Origin, StreamName};
use countersign_event::time::Timestamp;
use countersign_tlog::add_checkpoint::AddCheckpoint;
use countersign_tlog::note::{Note, sign};
use countersign_tlog::proof_file::ProofFile;
use countersign_tlog::{consistency_proof, inclusion_proof};
use support::*;

const WHOLE: u8 = 0;
const FAILED: u8 = 6;
const INCONCLUSIVE: u8 = 9;

/// An organization whose log has an entry in each microsecond from `T0` on, and a second log key.
struct Place {
    org: Org,
    log: Log,
    second: SigningKey,
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let org = Org::new(1);
        let name: StreamName = "s".parse().unwrap();
        let mut log = Log::new(&org, Origin::of_stream(&org.authority, &name));
        for number in 1..30 {
            log.append(Kind::Event, "made.up", &format!("{{\"n\":{number}}}"));
        }
        Self {
            org,
            log,
            second: SigningKey::from_seed(&[77; 32]),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A key statement with these log keys and their ends, made so many microseconds after `T0`.
    fn statement(&self, number: u64, made: u64, keys: &[(&SigningKey, Option<u64>)]) -> Envelope {
        let keys = keys.iter().map(|(key, until)| RoleKey {
            role: Role::Log,
            key: key.public(),
            from: Timestamp(T0),
            until: until.map(|until| Timestamp(T0 + until)),
        });
        KeyStatement {
            authority: self.org.authority.clone(),
            name: "An organization".to_owned(),
            organization: self.org.organization.public(),
            number,
            made: Timestamp(T0 + made),
            keys: keys.collect(),
            succession: Vec::new(),
        }
        .sign_with(&self.org.organization)
    }

    /// The note of all entries with the lines of these keys; a false line where the key is none of them.
    fn note(&self, keys: &[(&SigningKey, bool)]) -> String {
        let note = self.log.note(30);
        let text = Note::parse(note.as_bytes()).unwrap().text().to_owned();
        let mut note = Note::new(text.clone()).unwrap();
        for (key, good) in keys {
            let signed = if *good { &text } else { "other\n" };
            let line = sign(signed, self.log.origin.as_str(), key).unwrap();
            note.push(line).unwrap();
        }
        note.encode()
    }

    fn event(&self, sequence: u64, note: String, statements: &[&Envelope]) -> u8 {
        let (content, attribute_bytes) = self.log.contents[sequence as usize].clone();
        let proof = EventProof {
            proof: ProofFile {
                extra: Vec::new(),
                index: sequence,
                proof: inclusion_proof(&self.log.tree, sequence, 30).unwrap(),
                checkpoint: note,
            },
            entry: self.log.entries[sequence as usize],
            attribute_bytes,
            content: Some(content),
            statements: statements.iter().copied().cloned().collect(),
            timestamp: None,
        };
        self.judge(EVENT_PROOF, proof.files())
    }

    fn growth(&self, old: u64, old_note: String, note: String, statements: &[&Envelope]) -> u8 {
        let proof = GrowthProof {
            proof: AddCheckpoint {
                old,
                proof: consistency_proof(&self.log.tree, old, 30).unwrap(),
                checkpoint: note,
            },
            old: old_note,
            statements: statements.iter().copied().cloned().collect(),
        };
        self.judge(GROWTH_PROOF, proof.files())
    }

    fn judge(&self, extension: &str, files: Vec<(&'static str, Vec<u8>)>) -> u8 {
        for (extension, bytes) in files {
            fs::write(self.path(extension), bytes).unwrap();
        }
        code(&self.path(extension), &self.org.trust())
    }

    fn path(&self, extension: &str) -> std::path::PathBuf {
        self.folder.path().join(format!("x.{extension}"))
    }
}

#[test]
fn a_key_that_a_later_statement_drops_or_ends_counts_as_far_as_that_statement_says() {
    let place = Place::new();
    let (first, second) = (&place.log.key, &place.second);
    let one = &place.statement(1, 0, &[(first, None)]);
    let dropped = &place.statement(2, 10, &[(second, None)]);
    let ended = &place.statement(2, 10, &[(first, Some(10)), (second, None)]);
    let ends_later = &place.statement(2, 10, &[(first, Some(1000))]);
    let by_first = || place.note(&[(first, true)]);
    let by_second = || place.note(&[(second, true)]);

    assert_eq!(place.event(20, by_first(), &[one]), WHOLE);
    assert_eq!(place.event(20, by_first(), &[one, ends_later]), WHOLE);
    // The checkpoint is of 20 or later, when the key was no more.
    assert_eq!(place.event(20, by_first(), &[one, dropped]), FAILED);
    assert_eq!(place.event(20, by_first(), &[one, ended]), FAILED);
    // It may be of before 10, or not: whoever found the old key could have made it today.
    assert_eq!(place.event(5, by_first(), &[one, dropped]), INCONCLUSIVE);
    assert_eq!(place.event(5, by_first(), &[one, ended]), INCONCLUSIVE);
    assert_eq!(place.event(5, by_second(), &[one, dropped]), WHOLE);
    assert_eq!(
        place.event(5, by_second(), &[one]),
        INCONCLUSIVE,
        "nobody's"
    );

    let old = place.log.note(3);
    let growth = |statements: &[&Envelope]| place.growth(3, old.clone(), by_first(), statements);
    assert_eq!(growth(&[one]), WHOLE);
    assert_eq!(growth(&[one, ends_later]), WHOLE);
    assert_eq!(growth(&[one, dropped]), INCONCLUSIVE);
    assert_eq!(growth(&[dropped]), INCONCLUSIVE, "nobody's");
}

#[test]
fn of_two_lines_the_better_key_counts_and_a_false_one_spoils_the_note() {
    let place = Place::new();
    let (first, second) = (&place.log.key, &place.second);
    let one = &place.statement(1, 0, &[(first, None)]);
    let two = &place.statement(2, 10, &[(second, None)]);
    let both = &place.statement(1, 0, &[(first, None), (second, None)]);
    for turned in [false, true] {
        let note = |of_first, of_second| {
            let mut lines = [(first, of_first), (second, of_second)];
            if turned {
                lines.reverse();
            }
            place.note(&lines)
        };
        assert_eq!(place.event(20, note(true, true), &[one, two]), WHOLE);
        assert_eq!(place.event(20, note(true, true), &[both]), WHOLE);
        assert_eq!(place.event(20, note(true, false), &[both]), FAILED);
        assert_eq!(place.event(20, note(false, true), &[both]), FAILED);
        // The line of a key that nobody knows is nobody's.
        assert_eq!(place.event(20, note(true, false), &[one]), WHOLE);
    }
}

#[test]
fn growth_from_nothing_proves_nothing() {
    let place = Place::new();
    let one = &place.statement(1, 0, &[(&place.log.key, None)]);
    let note = || place.log.note(30);
    assert_eq!(
        place.growth(0, place.log.note(0), note(), &[one]),
        INCONCLUSIVE
    );
    assert_eq!(place.growth(1, place.log.note(1), note(), &[one]), WHOLE);
}

#[test]
fn other_documents_and_pipes_are_not_taken_for_what_belongs_there() {
    let place = Place::new();
    let one = &place.statement(1, 0, &[(&place.log.key, None)]);
    let note = || place.log.note(30);
    let consumer = Org::new(2);
    let other = agreement(&place.org, &consumer, &place.log.origin);
    let other = countersign_event::documents::Document::sign(&other, &place.org.agreement);
    assert_eq!(place.event(20, note(), &[one, &other]), FAILED);
    assert_eq!(place.event(20, note(), &[one]), WHOLE);
    // A link leads out of what was handed over.
    let content = place.path("content");
    let elsewhere = place.folder.path().join("elsewhere");
    fs::rename(&content, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &content).unwrap();
    let proof = place.path(EVENT_PROOF);
    assert_ne!(code(&proof, &place.org.trust()), WHOLE);
}

#[test]
fn a_bundle_without_its_manifest_is_no_mirrored_log() {
    let world = World::undecided(3);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bundle");
    world.write(&path);
    fs::remove_file(path.join("manifest.json")).unwrap();
    move_up(&path.join("log"), &path);
    let trust = countersign_audit::Trust::of_vkeys([world.stream.vkey()]);
    assert_eq!(code(&path, &trust), INCONCLUSIVE);
    for left in ["content", "documents"] {
        fs::remove_dir_all(path.join(left)).unwrap();
    }
    assert_eq!(code(&path, &trust), INCONCLUSIVE);
    for left in ["keys.json", "manifest.sha256"] {
        fs::remove_file(path.join(left)).unwrap();
    }
    for left in ["ledgers", "policies"] {
        let _ = fs::remove_dir_all(path.join(left));
    }
    let _ = fs::remove_file(path.join("decisions.ndjson"));
    assert_eq!(code(&path, &trust), WHOLE);
}

fn move_up(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::rename(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
