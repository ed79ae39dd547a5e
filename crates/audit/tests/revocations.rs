//! Keys that their organization took back: what stays its own, what is false, and what nobody can say.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::fs;
use std::path::PathBuf;

use countersign_audit::{EVENT_PROOF, EventProof, FORK_PROOF, GROWTH_PROOF, GrowthProof, Trust};
use countersign_crypto::{Hash, SigningKey};
use countersign_event::documents::{
    Digest, KeyRevocation, KeyStatement, RevokedHead, Role, RoleKey,
};
use countersign_event::dsse::Envelope;
use countersign_event::names::{Authority, Origin};
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
/// The revocation, in microseconds after `T0`: long after all entries.
const REVOKED: u64 = 60_000_000;

struct Case {
    world: World,
    folder: tempfile::TempDir,
    second: SigningKey,
}

impl Case {
    fn new(size: u64) -> Self {
        Self {
            world: World::undecided(size),
            folder: tempfile::tempdir().unwrap(),
            second: SigningKey::from_seed(&[78; 32]),
        }
    }

    fn org(&self) -> &Org {
        &self.world.producer
    }

    fn trust(&self) -> Trust {
        self.org().trust()
    }

    fn root(&self, size: u64) -> Hash {
        self.world.stream.roots[size as usize]
    }

    /// A revocation of the log key with this head of the stream, and the ledger's own.
    fn revocation(&self, head: Option<(u64, Hash)>) -> KeyRevocation {
        let head_of = |origin: &Origin, size, root| RevokedHead {
            origin: origin.clone(),
            size,
            root: Digest(root),
        };
        let ledger = self.world.ledger.as_ref().unwrap();
        let newest = *ledger.roots.last().unwrap();
        let mut heads = vec![head_of(&ledger.origin, ledger.size(), newest)];
        heads.extend(head.map(|(size, root)| head_of(&self.world.stream.origin, size, root)));
        KeyRevocation {
            authority: self.org().authority.clone(),
            organization: self.org().organization.public(),
            key: self.org().log.public(),
            role: Role::Log,
            reason: "the machine was lost".to_owned(),
            made: Timestamp(T0 + REVOKED),
            heads,
            succession: Vec::new(),
        }
    }

    fn signed(&self, head: Option<(u64, Hash)>) -> Envelope {
        self.revocation(head).sign_with(&self.org().organization)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn bundle(&self, revocations: &[Envelope], from: u64, to: u64) -> PathBuf {
        let path = self.path("bundle");
        let _ = fs::remove_dir_all(&path);
        let mut world = World::undecided(self.world.size);
        world.documents.extend(revocations.iter().cloned());
        (world.from, world.to) = (from, to);
        if from > 0 || to < world.size {
            // What speaks of entries beyond would leave it inconclusive.
            world.documents.drain(1..5);
            world.ledger = None;
        }
        world.write(&path);
        path
    }

    fn whole(&self, revocations: &[Envelope]) -> u8 {
        code(&self.bundle(revocations, 0, self.world.size), &self.trust())
    }

    fn with_head(&self, size: u64, root: Hash) -> u8 {
        self.whole(&[self.signed(Some((size, root)))])
    }

    fn files(&self, extension: &str, files: Vec<(&'static str, Vec<u8>)>) -> PathBuf {
        for (extension, bytes) in files {
            fs::write(self.path(&format!("x.{extension}")), bytes).unwrap();
        }
        self.path(&format!("x.{extension}"))
    }

    fn note_by(&self, size: u64, key: &SigningKey) -> String {
        let origin = self.world.stream.origin.to_string();
        let checkpoint = Checkpoint::new(origin, size, self.root(size)).unwrap();
        sign_checkpoint(&checkpoint, key).note_text
    }

    fn event(&self, size: u64, documents: &[&Envelope]) -> PathBuf {
        let (content, attribute_bytes) = self.world.stream.contents[3].clone();
        let proof = EventProof {
            proof: ProofFile {
                extra: Vec::new(),
                index: 3,
                proof: inclusion_proof(&self.world.stream.tree, 3, size).unwrap(),
                checkpoint: self.note_by(size, &self.org().log),
            },
            entry: self.world.stream.entries[3],
            attribute_bytes,
            content: Some(content),
            statements: documents.iter().copied().cloned().collect(),
            timestamp: None,
        };
        self.files(EVENT_PROOF, proof.files())
    }

    fn growth(&self, old: u64, new: u64, by: [&SigningKey; 2], documents: &[&Envelope]) -> u8 {
        let proof = GrowthProof {
            proof: AddCheckpoint {
                old,
                proof: consistency_proof(&self.world.stream.tree, old, new).unwrap(),
                checkpoint: self.note_by(new, by[1]),
            },
            old: self.note_by(old, by[0]),
            statements: documents.iter().copied().cloned().collect(),
        };
        code(&self.files(GROWTH_PROOF, proof.files()), &self.trust())
    }

    /// A later statement, with these log keys.
    fn statement(&self, number: u64, made: u64, keys: &[&SigningKey]) -> Envelope {
        let key = |key: &&SigningKey| RoleKey {
            role: Role::Log,
            key: key.public(),
            from: Timestamp(T0),
            until: None,
        };
        KeyStatement {
            authority: self.org().authority.clone(),
            name: "An organization".to_owned(),
            organization: self.org().organization.public(),
            number,
            made: Timestamp(T0 + made),
            keys: keys.iter().map(key).collect(),
            succession: Vec::new(),
        }
        .sign_with(&self.org().organization)
    }
}

fn witness() -> SigningKey {
    SigningKey::from_seed(&[101; 32])
}

fn witnessed(note: &str, seconds: u64) -> String {
    let mut note = Note::parse(note.as_bytes()).unwrap();
    let line = cosignature_v1::sign(note.text(), "w.example", &witness(), seconds).unwrap();
    note.push(line).unwrap();
    note.encode()
}

fn policy() -> Trust {
    let key = witness().public();
    let vkey = Vkey::new("w.example", Algorithm::CosignatureV1, key).unwrap();
    Trust::from_file(format!("witness W {vkey}\nquorum W\n").as_bytes()).unwrap()
}

#[test]
fn what_lies_under_the_last_valid_head_stays_and_what_contradicts_it_is_false() {
    let case = Case::new(40);
    assert_eq!(case.whole(&[]), WHOLE);
    assert_eq!(case.with_head(40, case.root(40)), WHOLE);
    assert_eq!(case.with_head(40, case.root(39)), FAILED);
    // Entries beyond may be by whoever found the key.
    assert_eq!(case.with_head(25, case.root(25)), INCONCLUSIVE);
    assert_eq!(case.with_head(25, case.root(24)), FAILED);
    // A beginning that nothing here compares with the head.
    assert_eq!(case.with_head(41, [9; 32]), INCONCLUSIVE);
    assert_eq!(case.whole(&[case.signed(None)]), INCONCLUSIVE);
    assert_eq!(case.with_head(0, case.root(0)), INCONCLUSIVE);
    // All revocations of a key count.
    let two = |one, other| case.whole(&[case.signed(one), case.signed(other)]);
    let good = Some((40, case.root(40)));
    assert_eq!(two(good, Some((25, case.root(25)))), INCONCLUSIVE);
    assert_eq!(two(good, Some((25, [9; 32]))), FAILED);
}

#[test]
fn a_range_below_the_head_stays_where_the_tree_here_has_its_root() {
    let case = Case::new(700);
    let judge = |from, to, size: u64, root| {
        let bundle = case.bundle(&[case.signed(Some((size, root)))], from, to);
        code(&bundle, &case.trust())
    };
    assert_eq!(judge(10, 100, 200, case.root(200)), WHOLE);
    assert_eq!(judge(10, 100, 100, case.root(100)), WHOLE);
    assert_eq!(judge(10, 100, 99, case.root(99)), INCONCLUSIVE);
    assert_eq!(judge(10, 100, 200, case.root(199)), FAILED);
    // The entries here end at 256: what the root of 300 is cannot be told, that of 700 is the checkpoint's.
    assert_eq!(judge(10, 100, 300, case.root(300)), INCONCLUSIVE);
    assert_eq!(judge(10, 100, 700, case.root(700)), WHOLE);
    assert_eq!(judge(10, 100, 700, case.root(699)), FAILED);
    assert_eq!(judge(300, 400, 256, case.root(256)), INCONCLUSIVE);
    assert_eq!(judge(300, 400, 256, case.root(255)), FAILED);
}

#[test]
fn who_was_witnessed_before_the_revocation_was_there_before_it() {
    let case = Case::new(40);
    let trust = policy().and(case.trust());
    let judge = |head, seconds: u64| {
        let path = case.bundle(&[case.signed(head)], 0, 40);
        let note = fs::read_to_string(path.join("log/checkpoint")).unwrap();
        let note = witnessed(&note, T0 / 1_000_000 + seconds);
        fs::write(path.join("log/checkpoint"), note).unwrap();
        relist(&path, "log/checkpoint");
        code(&path, &trust)
    };
    assert_eq!(judge(None, 59), WHOLE);
    assert_eq!(judge(None, 60), INCONCLUSIVE);
    assert_eq!(judge(Some((25, case.root(25))), 59), WHOLE);
    // An organization that denies what was witnessed does not make it so.
    assert_eq!(judge(Some((25, [9; 32])), 59), FAILED);
}

#[test]
fn a_revocation_is_the_organizations_own_word() {
    let case = Case::new(40);
    let good = Some((40, case.root(40)));
    let forged = case.revocation(None).sign_with(&case.org().log);
    assert_eq!(case.whole(&[forged]), FAILED);
    let other = Org::new(7);
    let foreign = KeyRevocation {
        authority: other.authority.clone(),
        organization: other.organization.public(),
        heads: Vec::new(),
        ..case.revocation(None)
    };
    let foreign = foreign.sign_with(&other.organization);
    assert_eq!(case.whole(&[foreign]), INCONCLUSIVE, "no statement of it");
    let claimed = KeyRevocation {
        authority: "node-a.example".parse::<Authority>().unwrap(),
        heads: Vec::new(),
        ..case.revocation(None)
    };
    let claimed = claimed.sign_with(&case.org().organization);
    assert_eq!(case.whole(&[claimed]), INCONCLUSIVE, "no statement of it");
    // Of another key, or for another role: this log's key is none of it.
    let of = |key: &SigningKey, role| {
        let revocation = KeyRevocation {
            key: key.public(),
            role,
            heads: Vec::new(),
            ..case.revocation(None)
        };
        case.whole(&[revocation.sign_with(&case.org().organization)])
    };
    assert_eq!(of(&case.second, Role::Log), WHOLE);
    assert_eq!(of(&case.org().log, Role::Witness), WHOLE);
    // Brought along instead of lying there.
    let brought = |head| {
        let revocation = Trust::from_file(&case.signed(head).to_json()).unwrap();
        code(&case.bundle(&[], 0, 40), &case.trust().and(revocation))
    };
    assert_eq!(brought(good), WHOLE);
    assert_eq!(brought(None), INCONCLUSIVE);
    assert_eq!(brought(Some((25, [9; 32]))), FAILED);
}

#[test]
fn an_authority_that_is_a_domain_is_spoken_for_by_its_one_key() {
    let mut producer = Org::new(1);
    producer.authority = "node-a.example".parse().unwrap();
    let other = Org::new(7);
    let by_another = KeyRevocation {
        authority: producer.authority.clone(),
        organization: other.organization.public(),
        key: producer.log.public(),
        role: Role::Log,
        reason: "who says so".to_owned(),
        made: Timestamp(T0),
        heads: Vec::new(),
        succession: Vec::new(),
    };
    let by_another = by_another.sign_with(&other.organization);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bundle");
    let mut world = World::of(producer, Org::new(2), 5);
    world.write(&path);
    let trust = world.producer.trust();
    assert_eq!(code(&path, &trust), WHOLE);
    // Brought along it is about somebody else of that name.
    let brought = Trust::from_file(&by_another.to_json()).unwrap();
    assert_eq!(code(&path, &trust.clone().and(brought)), WHOLE);
    world.documents.push(by_another);
    fs::remove_dir_all(&path).unwrap();
    world.write(&path);
    assert_eq!(code(&path, &trust), FAILED);
}

#[test]
fn keys_of_other_roles_end_with_their_revocation() {
    let case = Case::new(40);
    let consumer = &case.world.consumer;
    let at = |key: &SigningKey, role, made: u64| {
        let revocation = KeyRevocation {
            authority: consumer.authority.clone(),
            organization: consumer.organization.public(),
            key: key.public(),
            role,
            reason: "it was copied".to_owned(),
            made: Timestamp(T0 + made),
            heads: Vec::new(),
            succession: Vec::new(),
        };
        case.whole(&[revocation.sign_with(&consumer.organization)])
    };
    // The receipts here were made a second after T0, the agreement at T0.
    assert_eq!(at(&consumer.receipt, Role::Receipt, 1_000_001), WHOLE);
    assert_eq!(at(&consumer.receipt, Role::Receipt, 1_000_000), FAILED);
    assert_eq!(at(&consumer.agreement, Role::Receipt, 0), WHOLE);
    assert_eq!(at(&consumer.agreement, Role::Agreement, 1), WHOLE);
    assert_eq!(at(&consumer.agreement, Role::Agreement, 0), FAILED);
}

#[test]
fn small_evidence_counts_at_the_head_that_the_revocation_names() {
    let case = Case::new(40);
    let one = &case.statement(1, 0, &[&case.org().log]);
    let two = &case.statement(2, REVOKED, &[&case.second]);
    let at = |head| case.signed(head);
    let event = |size, revocation: &Envelope| {
        let documents = [one, two, revocation];
        code(&case.event(size, &documents), &case.trust())
    };
    let head = &at(Some((30, case.root(30))));
    // What is vouched for stays, although the newest statement no longer has the key.
    assert_eq!(event(30, head), WHOLE);
    assert_eq!(event(29, head), INCONCLUSIVE);
    assert_eq!(event(31, head), INCONCLUSIVE);
    assert_eq!(event(30, &at(Some((30, [9; 32])))), FAILED);

    let log = &case.org().log;
    let growth =
        |old, new, by, revocation: &Envelope| case.growth(old, new, by, &[one, two, revocation]);
    assert_eq!(growth(5, 30, [log, log], head), WHOLE);
    assert_eq!(growth(5, 29, [log, log], head), INCONCLUSIVE);
    assert_eq!(growth(30, 40, [log, log], head), INCONCLUSIVE);
    // A checkpoint of the next key stands for all before it.
    assert_eq!(growth(30, 40, [log, &case.second], head), WHOLE);
    assert_eq!(growth(29, 40, [log, &case.second], head), WHOLE);
    let denied = &at(Some((30, [9; 32])));
    assert_eq!(growth(30, 40, [log, &case.second], denied), FAILED);
    assert_eq!(growth(5, 30, [log, log], denied), FAILED);
    // One tree: what the revocation denies of one end, it denies of the other.
    assert_eq!(growth(30, 40, [&case.second, log], denied), FAILED);
    assert_eq!(growth(5, 30, [log, &case.second], denied), FAILED);
}

#[test]
fn a_mirrored_log_is_judged_with_the_revocation_that_is_brought_along() {
    let case = Case::new(40);
    let bundle = case.bundle(&[], 0, 40);
    let mirror = case.path("mirror");
    fs::rename(bundle.join("log"), &mirror).unwrap();
    let statement = Trust::from_file(&case.org().statement().to_json()).unwrap();
    let judge = |head| {
        let revocation = Trust::from_file(&case.signed(head).to_json()).unwrap();
        let pinned = Trust::of_vkeys([case.world.stream.vkey()]);
        let by_vkey = code(&mirror, &pinned.and(revocation.clone()));
        let by_statement = code(&mirror, &statement.clone().and(revocation));
        assert_eq!(by_vkey, by_statement);
        by_vkey
    };
    assert_eq!(code(&mirror, &statement), WHOLE);
    assert_eq!(judge(Some((40, case.root(40)))), WHOLE);
    assert_eq!(judge(Some((25, case.root(25)))), INCONCLUSIVE);
    assert_eq!(judge(Some((25, case.root(24)))), FAILED);
    assert_eq!(judge(None), INCONCLUSIVE);
}

#[test]
fn a_fork_under_a_revoked_key_may_be_by_whoever_found_it() {
    let case = Case::new(40);
    let log = &case.org().log;
    let one = case.statement(1, 0, &[log, &case.second]);
    let origin = case.world.stream.origin.to_string();
    let other = Checkpoint::new(origin, 30, [9; 32]).unwrap();
    let judge = |by: &SigningKey, seconds: Option<u64>, revocations: &[Envelope]| {
        let mut other = sign_checkpoint(&other, by).note_text;
        if let Some(seconds) = seconds {
            other = witnessed(&other, T0 / 1_000_000 + seconds);
        }
        let fork = ForkProof::same_size(&case.note_by(30, log), &other).unwrap();
        let text = |envelope: &Envelope| String::from_utf8(envelope.to_json()).unwrap();
        let documents = std::iter::once(&one).chain(revocations).map(text);
        let path = case.path(&format!("x.{FORK_PROOF}"));
        fs::write(&path, fork.with_statements(documents.collect()).encode()).unwrap();
        code(&path, &policy().and(case.trust()))
    };
    let head = [case.signed(Some((30, case.root(30))))];
    assert_eq!(judge(log, None, &[]), WHOLE);
    assert_eq!(judge(log, None, &head), INCONCLUSIVE);
    assert_eq!(judge(log, None, &[case.signed(None)]), INCONCLUSIVE);
    // The second key is in force, and the head of the first is the organization's own word.
    assert_eq!(judge(&case.second, None, &head), WHOLE);
    // Seen by a witness before: the organization cannot disown it by taking the key back.
    assert_eq!(judge(log, Some(59), &head), WHOLE);
    assert_eq!(judge(log, Some(60), &head), INCONCLUSIVE);
}

#[test]
fn a_retired_keys_checkpoint_counts_where_it_was_witnessed_before() {
    let case = Case::new(40);
    let one = case.statement(1, 0, &[&case.org().log]);
    let two = case.statement(2, REVOKED, &[&case.second]);
    let judge = |seconds: u64, trust: &Trust| {
        let path = case.event(40, &[&one, &two]);
        let text = fs::read_to_string(&path).unwrap();
        let (head, note) = text.split_once("\n\n").unwrap();
        let note = witnessed(note, T0 / 1_000_000 + seconds);
        fs::write(&path, format!("{head}\n\n{note}")).unwrap();
        code(&path, trust)
    };
    let asked = policy().and(case.trust());
    assert_eq!(judge(59, &asked), WHOLE);
    assert_eq!(judge(60, &asked), INCONCLUSIVE);
    assert_eq!(judge(59, &case.trust()), INCONCLUSIVE, "nobody asked");
}
