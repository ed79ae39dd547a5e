//! The view is a function of the logs: whatever happens to its file, the same rows afterwards.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use countersign_crypto::{Entropy, Hash, PublicKey, SeededEntropy, SigningKey, sha256_of};
use countersign_event::documents::{
    Agreement, AgreementId, Digest, Document, KeyStatement, Level, Party, Plan, Receipt, Refusal,
    RefusalCode, Rejection, Rejections, SeriesId, Termination,
};
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::{Authority, Origin};
use countersign_event::time::Timestamp;
use countersign_store::ledger::{
    AgreementFilter, AgreementState, EntryFilter, InvitationState, LedgerEntry, LedgerSource,
    LedgerView, Opened, Problem, RebuildReason, ReceiptFilter, Side, SourceError, ViewError,
};
use proptest::prelude::*;

/// Text that breaks whatever is pasted, cut, escaped or shown without care.
const HOSTILE: &[&str] = &[
    "",
    "'); DROP TABLE entries; --",
    "\" OR 1=1 --",
    "a\0b",
    "\0",
    "%_\\?1:x@y$z",
    "\u{202e}\u{feff}\u{1b}[2J\r\n\t",
    "𝕏é\u{301}\u{10ffff}",
    "[]",
    "null",
    "{\"kind\":\"app\"}",
];

/// Ledger logs in memory, and the organizations whose records they hold.
struct World {
    entropy: SeededEntropy,
    own: SigningKey,
    partners: Vec<SigningKey>,
    logs: BTreeMap<Origin, Vec<LedgerEntry>>,
    now: u64,
    agreements: Vec<(usize, Agreement)>,
    receipts: u64,
    invitations: u64,
    /// What a source gives at most at once, however much is asked for.
    read_max: usize,
}

impl LedgerSource for World {
    fn logs(&self) -> Vec<(Origin, u64)> {
        self.logs
            .iter()
            .map(|(log, entries)| (log.clone(), entries.len() as u64))
            .collect()
    }

    fn leaf_hash(&self, log: &Origin, sequence: u64) -> Result<Hash, SourceError> {
        Ok(self.logs[log][usize::try_from(sequence).unwrap()].leaf)
    }

    fn entries(
        &self,
        log: &Origin,
        from: u64,
        max: usize,
    ) -> Result<Vec<LedgerEntry>, SourceError> {
        let entries = &self.logs[log][usize::try_from(from).unwrap()..];
        Ok(entries[..entries.len().min(max).min(self.read_max)].to_vec())
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut entropy = SeededEntropy::new(seed);
        let own = SigningKey::generate(&mut entropy);
        let partners = (0..3).map(|_| SigningKey::generate(&mut entropy)).collect();
        let mut world = Self {
            entropy,
            own,
            partners,
            logs: BTreeMap::new(),
            now: 1_780_000_000_000_000,
            agreements: Vec::new(),
            receipts: 0,
            invitations: 0,
            read_max: usize::MAX,
        };
        world.push(world.node(), None);
        for partner in 0..3 {
            world.push(world.ledger(partner), None);
        }
        world
    }

    fn grown(seed: u64, records: usize) -> Self {
        let mut world = Self::new(seed);
        world.grow(records);
        world
    }

    fn authority(&self) -> Authority {
        Authority::of_key(&self.own.public())
    }

    fn partner(&self, partner: usize) -> Authority {
        Authority::of_key(&self.partners[partner].public())
    }

    fn node(&self) -> Origin {
        Origin::of_node_ledger(&self.authority())
    }

    fn ledger(&self, partner: usize) -> Origin {
        Origin::of_ledger(&self.authority(), &self.partner(partner))
    }

    fn stream(&self) -> Origin {
        Origin::of_stream(&self.authority(), &"orders".parse().unwrap())
    }

    fn below(&mut self, end: usize) -> usize {
        let mut bytes = [0; 8];
        self.entropy.fill(&mut bytes);
        usize::try_from(u64::from_be_bytes(bytes) % end as u64).unwrap()
    }

    fn text(&mut self) -> String {
        let pick = self.below(HOSTILE.len());
        HOSTILE[pick].to_owned()
    }

    fn digest(&mut self) -> Digest {
        let mut hash = [0; 32];
        self.entropy.fill(&mut hash);
        Digest(hash)
    }

    fn push(&mut self, log: Origin, record: Option<LedgerRecord>) {
        self.now += 1 + self.below(1_000_000) as u64;
        let time = Timestamp(self.now);
        let entries = self.logs.entry(log.clone()).or_default();
        let before = entries.last().map_or([0; 32], |entry| entry.leaf);
        let json = record
            .as_ref()
            .map(LedgerRecord::to_json)
            .unwrap_or_default();
        entries.push(LedgerEntry {
            sequence: entries.len() as u64,
            time,
            leaf: sha256_of(&[&before, log.as_str().as_bytes(), &json]),
            record,
        });
    }

    fn agreement_with(&mut self, partner: usize, id: AgreementId) -> Agreement {
        let party = |key: &SigningKey, name: String| Party {
            authority: Authority::of_key(&key.public()),
            name,
            organization: key.public(),
        };
        let (name, plan) = (self.text(), self.text());
        let own_produces = self.below(2) == 0;
        let own = party(&self.own, "own".to_owned());
        let other = party(&self.partners[partner], name);
        let (producer, consumer) = if own_produces {
            (own, other)
        } else {
            (other, own)
        };
        Agreement {
            id,
            stream: Origin::of_stream(&producer.authority, &"orders".parse().unwrap()),
            producer,
            consumer,
            plan: Plan {
                name: plan,
                ..Plan::default()
            },
            from: Timestamp(self.now),
            until: (self.below(2) == 0).then_some(Timestamp(self.now + 1)),
            made: Timestamp(self.now),
            accepts: None,
            supersedes: None,
        }
    }

    fn push_agreement(&mut self, partner: usize) -> Agreement {
        let id = AgreementId::random(&mut self.entropy);
        let agreement = self.agreement_with(partner, id);
        let mut envelope = agreement.sign(&self.own);
        envelope.add_signature(&self.partners[partner]);
        let addresses = vec![self.text()];
        let record = LedgerRecord::Agreement {
            envelope: text_of(&envelope),
            addresses,
            invitation: Some(self.text()),
        };
        self.push(self.ledger(partner), Some(record));
        self.agreements.push((partner, agreement.clone()));
        agreement
    }

    fn push_receipt(&mut self, partner: usize, agreement: &Agreement, number: u64) {
        let receipt = Receipt {
            agreement: agreement.id,
            stream: agreement.stream.clone(),
            consumer: agreement.consumer.authority.clone(),
            series: SeriesId(agreement.id.0),
            number,
            previous: None,
            start: 0,
            filter: None,
            size: number * 10,
            root: self.digest(),
            events: number * 9,
            bytes: number * 900,
            level: [Level::Received, Level::Verified, Level::Applied][self.below(3)],
            applied: number,
            rejected: Rejections::default(),
            made: Timestamp(self.now),
        };
        let envelope = text_of(&receipt.sign(&self.own));
        let record = LedgerRecord::Receipt {
            envelope,
            from: (number - 1) * 10,
            events: 9,
            bytes: 900,
        };
        self.push(self.ledger(partner), Some(record));
    }

    fn known_agreement(&mut self) -> Option<(usize, Agreement)> {
        if self.agreements.is_empty() {
            return None;
        }
        let pick = self.below(self.agreements.len());
        Some(self.agreements[pick].clone())
    }

    fn statement(&mut self, key: &SigningKey, number: u64) -> String {
        let statement = KeyStatement {
            authority: Authority::of_key(&key.public()),
            name: self.text(),
            organization: key.public(),
            number,
            made: Timestamp(self.now),
            keys: Vec::new(),
            succession: Vec::new(),
        };
        text_of(&statement.sign_with(key))
    }

    fn grow(&mut self, records: usize) {
        for _ in 0..records {
            self.grow_by_one();
        }
    }

    #[allow(clippy::too_many_lines, reason = "one arm for each kind of record")]
    fn grow_by_one(&mut self) {
        let partner = self.below(3);
        let ledger = self.ledger(partner);
        let made = Timestamp(self.now);
        match self.below(18) {
            0 => self.push(ledger, None),
            1 => {
                let key = self.partners[partner].clone();
                let number = self.below(5) as u64;
                let envelope = self.statement(&key, number);
                self.push(ledger, Some(LedgerRecord::KeyStatement { envelope }));
            }
            2 => {
                let (key, number) = (self.own.clone(), self.below(5) as u64);
                let envelope = self.statement(&key, number);
                self.push(self.node(), Some(LedgerRecord::KeyStatement { envelope }));
            }
            3 | 4 => drop(self.push_agreement(partner)),
            5..=7 => {
                let Some((partner, agreement)) = self.known_agreement() else {
                    return;
                };
                self.receipts += 1;
                // Now and then the same number twice, with another root.
                let number = self.receipts - (self.receipts % 7 / 6);
                self.push_receipt(partner, &agreement, number);
            }
            8 => {
                let Some((partner, agreement)) = self.known_agreement() else {
                    return;
                };
                let document = Termination {
                    agreement: agreement.id,
                    stream: agreement.stream,
                    by: self.authority(),
                    reason: self.text(),
                    position: Some(self.below(100) as u64),
                    made,
                };
                let envelope = text_of(&document.sign(&self.own));
                self.push(
                    self.ledger(partner),
                    Some(LedgerRecord::Termination { envelope }),
                );
            }
            9 if self.below(4) == 0 => {
                let record = LedgerRecord::Revocation {
                    partner: self.partner(partner),
                    reason: self.text(),
                };
                self.push(ledger, Some(record));
            }
            10 => {
                let record = LedgerRecord::Decision {
                    principal: self.text(),
                    action: self.text(),
                    stream: self.stream(),
                    allowed: self.below(2) == 0,
                    policies: vec![self.text(), self.text()],
                    policy_digest: self.digest(),
                    errors: vec![self.text()],
                    agreement: None,
                    facts: self.text(),
                };
                self.push(ledger, Some(record));
            }
            11 => {
                let files = vec![(self.text(), self.text())];
                let digest = Digest(sha256_of(&[
                    files[0].0.as_bytes(),
                    b"/",
                    files[0].1.as_bytes(),
                ]));
                self.push(self.node(), Some(LedgerRecord::PolicySet { digest, files }));
            }
            12 => {
                let document = Rejection {
                    agreement: AgreementId([7; 16]),
                    stream: self.stream(),
                    sequence: self.below(100) as u64,
                    leaf: self.digest(),
                    reason: self.text(),
                    made,
                };
                let envelope = text_of(&document.sign(&self.own));
                self.push(ledger, Some(LedgerRecord::Rejection { envelope }));
            }
            13 => {
                let document = Refusal {
                    asked: self.text(),
                    principal: Some(self.partner(partner)),
                    about: self.text(),
                    code: RefusalCode::NotPermitted,
                    reason: self.text(),
                    policies: Vec::new(),
                    advice: vec![self.text()],
                    position: None,
                    made,
                };
                let envelope = text_of(&document.sign(&self.own));
                self.push(ledger, Some(LedgerRecord::Refusal { envelope }));
            }
            14 => {
                let record = LedgerRecord::Fault {
                    code: self.text(),
                    detail: self.text(),
                    stream: Some(self.stream()),
                    evidence: Some(self.text()),
                };
                self.push(ledger, Some(record));
            }
            15 => {
                let record = if self.invitations > 0 && self.below(3) > 0 {
                    let steps = [
                        "pending",
                        "confirmed",
                        "redeemed",
                        "withdrawn",
                        "refused",
                        "newer word",
                    ];
                    LedgerRecord::InvitationStep {
                        id: format!(
                            "{:032x}",
                            self.below(usize::try_from(self.invitations).unwrap())
                        ),
                        step: steps[self.below(steps.len())].to_owned(),
                        organization: self.partners[partner].public(),
                        authority: self.partner(partner),
                        reason: self.text(),
                    }
                } else {
                    self.invitations += 1;
                    self.invitation(self.invitations - 1)
                };
                self.push(self.node(), Some(record));
            }
            16 => {
                let record = LedgerRecord::App {
                    name: self.text(),
                    key: self.partners[partner].public(),
                    enrolled: self.below(2) == 0,
                };
                self.push(self.node(), Some(record));
            }
            _ => {
                let record = LedgerRecord::Cursor {
                    app: self.text(),
                    stream: self.stream(),
                    next: self.below(1000) as u64,
                    leaf: self.digest(),
                };
                self.push(self.node(), Some(record));
            }
        }
    }

    fn invitation(&mut self, number: u64) -> LedgerRecord {
        LedgerRecord::Invitation {
            id: format!("{number:032x}"),
            offer: self.text(),
            secret_key: self.own.public(),
            for_key: None,
            confirm: true,
            expires: Timestamp(self.now),
        }
    }

    /// The rows that these logs must give: from a view made in one go.
    async fn rows(&self) -> Hash {
        let directory = tempfile::tempdir().unwrap();
        let (view, opened) = self.open(&directory.path().join("fresh.sqlite")).await;
        assert_eq!(opened.why, Some(RebuildReason::Missing));
        view.rows_digest().await.unwrap()
    }

    async fn open(&self, path: &Path) -> (LedgerView, Opened) {
        LedgerView::open(path, &self.authority(), self)
            .await
            .unwrap()
    }

    async fn catch_up(&self, view: &LedgerView) {
        view.catch_up(self).await.unwrap();
    }
}

fn text_of(envelope: &countersign_event::dsse::Envelope) -> String {
    String::from_utf8(envelope.to_json()).unwrap()
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.sqlite");
    (directory, path)
}

#[tokio::test]
async fn a_deleted_or_older_database_gives_the_same_rows_at_every_step() {
    let (directory, path) = place();
    let older = directory.path().join("older.sqlite");
    let mut world = World::new(1);
    let (view, _) = world.open(&path).await;
    view.close().await.unwrap();
    std::fs::copy(&path, &older).unwrap();
    for step in 0..40 {
        world.grow(5);
        let expected = world.rows().await;
        match step % 3 {
            0 => std::fs::remove_file(&path).unwrap(),
            1 => drop(std::fs::copy(&older, &path).unwrap()),
            _ => {}
        }
        let (view, opened) = world.open(&path).await;
        assert_eq!(opened.rebuilt, step % 3 == 0, "{opened:?}");
        assert_eq!(view.rows_digest().await.unwrap(), expected, "step {step}");
        assert_eq!(view.verify(&world).await.unwrap(), []);
        view.close().await.unwrap();
        if step % 5 == 0 {
            std::fs::copy(&path, &older).unwrap();
        }
    }
}

#[tokio::test]
async fn a_view_that_is_ahead_of_or_off_a_log_is_rebuilt_by_itself() {
    let (_directory, path) = place();
    let long = World::grown(2, 200);
    let short = World::grown(2, 120);
    drop(long.open(&path).await.0.close().await);

    let (view, opened) = short.open(&path).await;
    assert!(
        matches!(opened.why, Some(RebuildReason::Ahead { .. })),
        "{opened:?}"
    );
    assert_eq!(view.rows_digest().await.unwrap(), short.rows().await);
    view.close().await.unwrap();

    // The same length, another history.
    let mut other = World::grown(2, 120);
    let node = other.node();
    other.logs.get_mut(&node).unwrap().last_mut().unwrap().leaf = [9; 32];
    let (view, opened) = other.open(&path).await;
    assert!(
        matches!(opened.why, Some(RebuildReason::OffLog { .. })),
        "{opened:?}"
    );
    assert_eq!(view.rows_digest().await.unwrap(), other.rows().await);

    // The same while it is open, once the log has grown.
    let mut third = World::grown(2, 120);
    third.push(third.node(), None);
    assert!(view.catch_up(&third).await.unwrap().rebuilt);
    assert_eq!(view.rows_digest().await.unwrap(), third.rows().await);
    view.close().await.unwrap();

    let mut fewer = World::grown(2, 120);
    let gone = fewer.ledger(1);
    fewer.logs.remove(&gone);
    let (view, opened) = fewer.open(&path).await;
    assert_eq!(opened.why, Some(RebuildReason::UnknownLog { log: gone }));
    assert_eq!(view.rows_digest().await.unwrap(), fewer.rows().await);
    view.close().await.unwrap();

    let stranger = World::grown(3, 50);
    let (view, opened) = stranger.open(&path).await;
    assert_eq!(opened.why, Some(RebuildReason::OtherAuthority));
    assert_eq!(view.rows_digest().await.unwrap(), stranger.rows().await);
}

#[tokio::test]
async fn a_torn_or_garbled_file_is_rebuilt_without_an_error() {
    let (_directory, path) = place();
    let world = World::grown(4, 300);
    let expected = world.rows().await;
    world.open(&path).await.0.close().await.unwrap();
    let whole = std::fs::read(&path).unwrap();
    let mut damaged: Vec<Vec<u8>> = Vec::new();
    for part in 0..16 {
        let cut = whole.len() * part / 16;
        damaged.push(whole[..cut].to_vec());
        let mut garbled = whole.clone();
        for byte in &mut garbled[cut..(cut + 4096).min(whole.len())] {
            *byte ^= 0xa5;
        }
        damaged.push(garbled);
    }
    damaged.push(b"this is no database".to_vec());
    damaged.push(vec![0; 8192]);
    for (number, bytes) in damaged.iter().enumerate() {
        std::fs::write(&path, bytes).unwrap();
        let (view, opened) = world.open(&path).await;
        assert!(opened.rebuilt, "damage {number}: {opened:?}");
        assert_eq!(
            view.rows_digest().await.unwrap(),
            expected,
            "damage {number}"
        );
        view.close().await.unwrap();
    }
}

#[tokio::test]
async fn an_older_copy_beside_a_younger_write_ahead_log_gives_the_same_rows() {
    let (directory, path) = place();
    let mut world = World::grown(5, 100);
    world.open(&path).await.0.close().await.unwrap();
    let older = std::fs::read(&path).unwrap();
    let (view, _) = world.open(&path).await;
    for round in 0..20 {
        world.grow(40);
        world.catch_up(&view).await;
        // What a killed process leaves. Another process copies: closing a descriptor of the open file here would drop its locks.
        let killed = directory.path().join(format!("killed-{round}"));
        std::fs::create_dir(&killed).unwrap();
        for suffix in ["", "-wal"] {
            let mut from = path.clone().into_os_string();
            from.push(suffix);
            let done = std::process::Command::new("cp")
                .arg(&from)
                .arg(&killed)
                .status()
                .unwrap();
            assert!(done.success());
        }
        let copy = killed.join("ledger.sqlite");
        if round % 2 == 1 {
            std::fs::write(&copy, &older).unwrap();
        }
        let (reopened, _) = world.open(&copy).await;
        assert_eq!(
            reopened.rows_digest().await.unwrap(),
            world.rows().await,
            "round {round}"
        );
    }
}

#[tokio::test]
async fn a_newer_version_is_refused_and_left_alone_and_an_older_or_foreign_one_is_rebuilt() {
    let (_directory, path) = place();
    let world = World::grown(6, 50);
    let expected = world.rows().await;
    for (statement, rebuilt) in [
        ("PRAGMA user_version = 0", true),
        ("PRAGMA application_id = 7", true),
        ("DROP TABLE receipts", true),
        ("DELETE FROM view", true),
        ("DELETE FROM entries WHERE seq = 3", true),
        ("PRAGMA user_version = 99", false),
    ] {
        world.open(&path).await.0.close().await.unwrap();
        alter(&path, statement).await;
        let before = std::fs::read(&path).unwrap();
        match LedgerView::open(&path, &world.authority(), &world).await {
            Ok((view, opened)) => {
                assert!(rebuilt && opened.rebuilt, "{statement}: {opened:?}");
                assert_eq!(view.rows_digest().await.unwrap(), expected, "{statement}");
                view.close().await.unwrap();
            }
            Err(error) => {
                assert!(
                    !rebuilt && matches!(error, ViewError::Newer { found: 99, .. }),
                    "{statement}: {error}"
                );
                assert_eq!(std::fs::read(&path).unwrap(), before);
            }
        }
    }
}

#[tokio::test]
async fn verify_names_the_table_that_was_altered_and_rebuild_heals_it() {
    let (_directory, path) = place();
    let world = World::grown(7, 300);
    let expected = world.rows().await;
    let (view, _) = world.open(&path).await;
    for (table, statement) in [
        (
            "agreements",
            "UPDATE agreements SET state = 'active', ended_us = NULL",
        ),
        (
            "receipts",
            "UPDATE receipts SET bytes = bytes + 1 WHERE rowid = 1",
        ),
        (
            "entries",
            "UPDATE entries SET time_us = time_us + 1 WHERE rowid = 5",
        ),
        ("cursors", "DELETE FROM cursors"),
        ("apps", "UPDATE apps SET enrolled = 1 - enrolled"),
        ("policy_sets", "UPDATE policy_sets SET files_json = '[]'"),
    ] {
        alter(&path, statement).await;
        let problems = view.verify(&world).await.unwrap();
        let tables: Vec<_> = problems
            .iter()
            .map(|problem| match problem {
                Problem::Table { table, .. } => *table,
                other => panic!("{other}"),
            })
            .collect();
        assert_eq!(tables, [table]);
        assert!(view.rebuild(&world).await.unwrap().rebuilt);
        assert_eq!(view.verify(&world).await.unwrap(), []);
        assert_eq!(view.rows_digest().await.unwrap(), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rows_do_not_depend_on_batches(seed: u64, steps in prop::collection::vec(1usize..60, 1..8), read_max in 1usize..40) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (_directory, path) = place();
            let mut world = World::new(seed);
            let (view, _) = world.open(&path).await;
            world.read_max = read_max;
            for step in steps {
                world.grow(step);
                world.catch_up(&view).await;
            }
            let rows = view.rows_digest().await.unwrap();
            world.read_max = usize::MAX;
            assert_eq!(rows, world.rows().await);
            view.rebuild(&world).await.unwrap();
            assert_eq!(rows, view.rows_digest().await.unwrap());
        });
    }

    #[test]
    fn hostile_text_comes_back_as_it_was(name in ".*", text in "\\PC*|.*", nul in prop::bool::ANY) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut all: Vec<String> = HOSTILE.iter().map(|text| (*text).to_owned()).collect();
            all.push(if nul { format!("{name}\0{text}") } else { text.clone() });
            let (_directory, path) = place();
            let mut world = World::new(8);
            for text in &all {
                let record = LedgerRecord::App { name: text.clone(), key: world.own.public(), enrolled: true };
                world.push(world.node(), Some(record));
                let record = LedgerRecord::Cursor { app: text.clone(), stream: world.stream(), next: 1, leaf: Digest([1; 32]) };
                world.push(world.node(), Some(record));
                let record = LedgerRecord::Fault { code: text.clone(), detail: text.clone(), stream: None, evidence: Some(text.clone()) };
                world.push(world.ledger(0), Some(record));
            }
            let (view, _) = world.open(&path).await;
            let names: Vec<String> = view.apps().await.unwrap().into_iter().map(|app| app.name).collect();
            let mut expected = all.clone();
            expected.sort();
            expected.dedup();
            assert_eq!(names, expected);
            for text in &all {
                assert_eq!(view.cursor(text, &world.stream()).await.unwrap().unwrap().app, *text);
                assert!(view.invitation(text).await.unwrap().is_none());
                let filter = EntryFilter { kind: Some(text.clone()), ..EntryFilter::default() };
                assert!(view.entries(&filter, 10).await.unwrap().is_empty());
            }
            let faults = view.faults(1000).await.unwrap();
            let details: Vec<&str> = faults.iter().rev().map(|fault| fault.detail.as_str()).collect();
            assert_eq!(details, all);
            assert!(faults.iter().all(|fault| fault.code == fault.detail && fault.evidence.as_ref() == Some(&fault.detail)));
            for row in view.entries(&EntryFilter::default(), 1000).await.unwrap() {
                let entry = &world.logs[&row.log][usize::try_from(row.sequence).unwrap()];
                assert_eq!(row.record().unwrap(), entry.record);
            }
        });
    }
}

#[tokio::test]
async fn agreements_follow_their_documents() {
    let (_directory, path) = place();
    let mut world = World::new(9);
    let first = world.push_agreement(0);
    let second = world.push_agreement(0);
    let elsewhere = world.push_agreement(1);
    let (view, _) = world.open(&path).await;
    // Partner 2 reuses the id of partner 0's agreement, and ends it in its own log.
    let reused = world.agreement_with(2, first.id);
    let envelope = text_of(&reused.sign(&world.own));
    let log = world.ledger(2);
    world.push(
        log.clone(),
        Some(LedgerRecord::Agreement {
            envelope,
            addresses: Vec::new(),
            invitation: None,
        }),
    );
    let end = |world: &World, agreement: &Agreement| Termination {
        agreement: agreement.id,
        stream: agreement.stream.clone(),
        by: world.authority(),
        reason: "over".to_owned(),
        position: Some(12),
        made: Timestamp(1),
    };
    let envelope = text_of(&end(&world, &first).sign(&world.own));
    world.push(
        log,
        Some(LedgerRecord::Termination {
            envelope: envelope.clone(),
        }),
    );
    world.catch_up(&view).await;
    let row = view.agreement(&first.id).await.unwrap().unwrap();
    assert_eq!(
        (row.state, row.partner),
        (AgreementState::Active, world.partner(0))
    );
    let expected = if first.producer.authority == world.authority() {
        Side::Producer
    } else {
        Side::Consumer
    };
    assert_eq!(row.side, expected);
    assert_eq!(
        (row.plan, row.until, row.from),
        (first.plan.clone(), first.until, first.from)
    );

    world.push(
        world.ledger(0),
        Some(LedgerRecord::Termination { envelope }),
    );
    world.catch_up(&view).await;
    let row = view.agreement(&first.id).await.unwrap().unwrap();
    assert_eq!(
        (row.state, row.end_position, row.why.as_deref()),
        (AgreementState::Terminated, Some(12), Some("over"))
    );
    assert!(!row.holds_at(first.from));

    world.push(
        world.ledger(0),
        Some(LedgerRecord::Revocation {
            partner: world.partner(0),
            reason: "no".to_owned(),
        }),
    );
    world.catch_up(&view).await;
    let state = async |id| view.agreement(id).await.unwrap().unwrap().state;
    assert_eq!(state(&first.id).await, AgreementState::Terminated);
    assert_eq!(state(&second.id).await, AgreementState::Revoked);
    assert_eq!(state(&elsewhere.id).await, AgreementState::Active);
    assert_eq!(
        view.partner(&world.partner(0))
            .await
            .unwrap()
            .unwrap()
            .revoked_why
            .as_deref(),
        Some("no")
    );

    // The same agreement told again readmits nobody; a new one does.
    let again = text_of(&second.sign(&world.own));
    world.push(
        world.ledger(0),
        Some(LedgerRecord::Agreement {
            envelope: again,
            addresses: Vec::new(),
            invitation: None,
        }),
    );
    world.catch_up(&view).await;
    assert_eq!(state(&second.id).await, AgreementState::Revoked);
    assert!(
        view.partner(&world.partner(0))
            .await
            .unwrap()
            .unwrap()
            .revoked
            .is_some()
    );
    let third = world.push_agreement(0);
    world.catch_up(&view).await;
    assert_eq!(state(&third.id).await, AgreementState::Active);
    assert!(
        view.partner(&world.partner(0))
            .await
            .unwrap()
            .unwrap()
            .revoked
            .is_none()
    );
    let filter = AgreementFilter {
        state: Some(AgreementState::Revoked),
        ..AgreementFilter::default()
    };
    assert_eq!(view.agreements(&filter).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_first_receipt_of_a_number_is_the_receipt() {
    let (_directory, path) = place();
    let mut world = World::new(10);
    let agreement = world.push_agreement(0);
    for number in [1, 2, 2, 3] {
        world.push_receipt(0, &agreement, number);
    }
    // Another partner's receipt for the same agreement id counts nowhere.
    world.push_receipt(1, &agreement, 9);
    let (view, _) = world.open(&path).await;
    let filter = ReceiptFilter {
        partner: Some(world.partner(0)),
        ..ReceiptFilter::default()
    };
    let rows = view.receipts(&filter, 100).await.unwrap();
    assert_eq!(
        rows.iter().map(|row| row.number).collect::<Vec<_>>(),
        [3, 2, 1]
    );
    assert_eq!(rows[1].sequence, 3, "the first of the two");
    let last = view
        .last_receipt(&agreement.id, &agreement.stream)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (last.number, last.from, last.added_events, last.size),
        (3, 20, 9, 30)
    );
    let series = SeriesId(agreement.id.0);
    let after = view
        .receipts_after(&agreement.id, &agreement.stream, &series, (1, u32::MAX))
        .await
        .unwrap();
    assert_eq!(
        after.iter().map(|row| row.number).collect::<Vec<_>>(),
        [2, 3]
    );
    let one = view
        .receipts_after(&agreement.id, &agreement.stream, &series, (1, 1))
        .await
        .unwrap();
    assert_eq!(one.iter().map(|row| row.number).collect::<Vec<_>>(), [2]);
    assert_eq!(view.last_receipts().await.unwrap().len(), 2);
}

#[tokio::test]
async fn an_invitation_belongs_to_the_first_key() {
    let (_directory, path) = place();
    let mut world = World::new(11);
    let invitation = world.invitation(0);
    world.push(world.node(), Some(invitation));
    let (view, _) = world.open(&path).await;
    let id = format!("{:032x}", 0);
    for (partner, step, state, holder, refused) in [
        (0, "pending", InvitationState::Pending, 0, 0),
        (1, "pending", InvitationState::Pending, 0, 0),
        (1, "refused", InvitationState::Pending, 0, 1),
        (1, "redeemed", InvitationState::Pending, 0, 1),
        (0, "confirmed", InvitationState::Confirmed, 0, 1),
        (0, "redeemed", InvitationState::Redeemed, 0, 1),
        (1, "refused", InvitationState::Redeemed, 0, 2),
        (0, "withdrawn", InvitationState::Redeemed, 0, 2),
        (1, "no such step", InvitationState::Redeemed, 0, 2),
    ] {
        let record = LedgerRecord::InvitationStep {
            id: id.clone(),
            step: step.to_owned(),
            organization: world.partners[partner].public(),
            authority: world.partner(partner),
            reason: String::new(),
        };
        world.push(world.node(), Some(record));
        world.catch_up(&view).await;
        let row = view.invitation(&id).await.unwrap().unwrap();
        let key: Option<PublicKey> = row.organization;
        assert_eq!(
            (row.state, row.refused),
            (state, refused),
            "{step} by {partner}"
        );
        assert_eq!(
            key,
            Some(world.partners[holder].public()),
            "{step} by {partner}"
        );
    }
    assert_eq!(view.skipped().await.unwrap()["unknown"], 1);
}

#[tokio::test]
async fn records_that_cannot_be_used_are_kept_counted_and_without_effect() {
    let (_directory, path) = place();
    let mut world = World::new(12);
    let statement = |world: &mut World, number| {
        let key = world.partners[0].clone();
        let envelope = world.statement(&key, number);
        LedgerRecord::KeyStatement { envelope }
    };
    let good = statement(&mut world, 1);
    let vast = statement(&mut world, u64::MAX);
    let older = statement(&mut world, 0);
    for record in [
        good.clone(),
        vast,
        older,
        LedgerRecord::Receipt {
            envelope: "{}".to_owned(),
            from: 0,
            events: 0,
            bytes: 0,
        },
    ] {
        world.push(world.ledger(0), Some(record));
    }
    // In the log of another partner, and in that of the node.
    world.push(world.ledger(1), Some(good.clone()));
    world.push(world.node(), Some(good));
    let token = LedgerRecord::Token {
        partner: world.partner(0),
        digest: Digest([1; 32]),
        expires: Timestamp(1),
        withdrawn: false,
    };
    let region = LedgerRecord::Region {
        partner: world.partner(0),
        region: Some("EU".to_owned()),
    };
    let access = LedgerRecord::LogAccess {
        stream: world.stream(),
        open: true,
    };
    for (ledger, record) in [
        (world.ledger(0), &token),
        (world.ledger(1), &token),
        (world.node(), &token),
        (world.node(), &access),
        (world.ledger(0), &access),
        (world.ledger(0), &region),
        (world.ledger(1), &region),
    ] {
        world.push(ledger, Some(record.clone()));
    }
    let (view, _) = world.open(&path).await;
    let partners = view.partners().await.unwrap();
    assert_eq!(partners.len(), 1);
    assert_eq!(partners[0].statement_number, Some(1));
    let expected = [
        ("duplicate", 1),
        ("envelope", 1),
        ("misplaced", 6),
        ("number", 1),
    ];
    assert_eq!(
        view.skipped().await.unwrap(),
        expected
            .map(|(word, count)| (word.to_owned(), count))
            .into()
    );
    assert_eq!(view.counts().await.unwrap()["key-statement"], 5);
}

#[tokio::test]
async fn a_listing_goes_on_where_it_stopped() {
    let (_directory, path) = place();
    let world = World::grown(13, 200);
    let (view, _) = world.open(&path).await;
    let whole = view
        .entries(&EntryFilter::default(), u32::MAX)
        .await
        .unwrap();
    assert_eq!(
        whole.len(),
        world.logs.values().map(Vec::len).sum::<usize>()
    );
    let mut pages = Vec::new();
    let mut filter = EntryFilter::default();
    loop {
        let page = view.entries(&filter, 7).await.unwrap();
        let Some(last) = page.last() else { break };
        filter.after = Some(last.key());
        pages.extend(page);
    }
    assert_eq!(pages, whole);
    let mut newest = view.newest_entries(10).await.unwrap();
    newest.reverse();
    assert_eq!(newest, whole[whole.len() - 10..]);
    let filter = EntryFilter {
        partner: Some(world.partner(1)),
        kind: Some("fault".to_owned()),
        since: Some(whole[20].time),
        until: Some(whole[180].time),
        ..EntryFilter::default()
    };
    let expected: Vec<_> = whole[20..180]
        .iter()
        .filter(|row| row.kind.as_deref() == Some("fault") && row.partner == filter.partner)
        .cloned()
        .collect();
    assert!(!expected.is_empty());
    assert_eq!(view.entries(&filter, 1000).await.unwrap(), expected);
}

/// Changes the file behind the view's back.
async fn alter(path: &Path, statement: &'static str) {
    use sqlx::{ConnectOptions as _, Connection as _};
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut connection = options.connect().await.unwrap();
    sqlx::raw_sql(statement)
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}
