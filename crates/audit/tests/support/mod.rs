//! Builds logs, documents and bundles in memory, out of the crates `event` and `tlog` alone.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    unreachable_pub,
    reason = "each test uses a part of this, and a test may panic"
)]

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use countersign_audit::{
    BundleFacts, BundleSink, BundleSource, ContentLengths, DecisionLine, LogFacts, PolicyFile,
    Report, Skeleton, SourceError, Stamped, Trust, write_bundle,
};
use countersign_crypto::{Hash, SeededEntropy, SigningKey};
use countersign_event::attributes::AttributesBuilder;
use countersign_event::commitment::Salts;
use countersign_event::content::{Event, Limits, seal};
use countersign_event::data::DataPart;
use countersign_event::documents::{
    Agreement, AgreementId, Digest, Document, KeyStatement, Level, Party, Plan, Receipt,
    Rejections, Role, RoleKey, SeriesId,
};
use countersign_event::dsse::Envelope;
use countersign_event::entry::{Kind, leaf_hash};
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::{Authority, Origin, StreamName};
use countersign_event::time::Timestamp;
use countersign_policy::{Action, Context, Organization, PolicySet, Principal, Request, Stream};
use countersign_tlog::checkpoint::sign_checkpoint;
use countersign_tlog::{Algorithm, Checkpoint, MemoryTree, NodeSource, Vkey};

pub const T0: u64 = 1_790_000_000_000_000;

/// An organization with one key per role.
pub struct Org {
    pub organization: SigningKey,
    pub log: SigningKey,
    pub agreement: SigningKey,
    pub receipt: SigningKey,
    pub authority: Authority,
}

impl Org {
    pub fn new(seed: u8) -> Self {
        let key = |role: u8| SigningKey::from_seed(&[seed, role].repeat(16).try_into().unwrap());
        let organization = key(0);
        Self {
            authority: Authority::of_key(&organization.public()),
            organization,
            log: key(1),
            agreement: key(2),
            receipt: key(3),
        }
    }

    pub fn statement(&self) -> Envelope {
        let role = |role, key: &SigningKey| RoleKey {
            role,
            key: key.public(),
            from: Timestamp(T0),
            until: None,
        };
        KeyStatement {
            authority: self.authority.clone(),
            name: "An organization".to_owned(),
            organization: self.organization.public(),
            number: 1,
            made: Timestamp(T0),
            keys: vec![
                role(Role::Log, &self.log),
                role(Role::Agreement, &self.agreement),
                role(Role::Receipt, &self.receipt),
            ],
            succession: Vec::new(),
        }
        .sign_with(&self.organization)
    }

    pub fn party(&self) -> Party {
        Party {
            authority: self.authority.clone(),
            name: "An organization".to_owned(),
            organization: self.organization.public(),
        }
    }

    pub fn trust(&self) -> Trust {
        Trust::of_fingerprints([self.organization.public().fingerprint()])
    }
}

/// One log with its contents.
pub struct Log {
    pub origin: Origin,
    pub key: SigningKey,
    pub entries: Vec<[u8; 118]>,
    pub contents: Vec<(Vec<u8>, u16)>,
    pub tree: MemoryTree,
    pub roots: Vec<Hash>,
    /// Events and their data bytes before each size.
    pub sums: Vec<(u64, u64)>,
    pub withheld: Vec<u64>,
    entropy: SeededEntropy,
}

impl Log {
    pub fn new(org: &Org, origin: Origin) -> Self {
        Self::citing(org, origin, None)
    }

    /// A log whose genesis entry cites another one.
    pub fn citing(org: &Org, origin: Origin, cites: Option<serde_json::Value>) -> Self {
        let mut log = Self {
            origin,
            key: SigningKey::from_seed(&[0; 32]),
            entries: Vec::new(),
            contents: Vec::new(),
            tree: MemoryTree::new(),
            roots: vec![countersign_tlog::empty_root()],
            sums: vec![(0, 0)],
            withheld: Vec::new(),
            entropy: SeededEntropy::new(7),
        };
        log.key = org.log.clone();
        let mut genesis = serde_json::json!({
            "origin": log.origin.as_str(), "kind": "stream", "data_commitment": "whole",
            "organization": org.organization.public().to_base64(), "log_key": log.vkey().to_string(),
            "key_statement": serde_json::from_slice::<serde_json::Value>(&org.statement().to_json()).unwrap(),
            "event_bytes_max": 1 << 20,
        });
        if let Some(cites) = cites {
            genesis["cites"] = cites;
        }
        log.append(
            Kind::Control,
            "dev.countersign.control.genesis.v1",
            &genesis.to_string(),
        );
        log
    }

    pub fn vkey(&self) -> Vkey {
        Vkey::new(self.origin.as_str(), Algorithm::Ed25519, self.key.public()).unwrap()
    }

    pub fn append(&mut self, kind: Kind, event_type: &str, data: &str) {
        let sequence = self.entries.len() as u64;
        let id = sequence.to_string();
        let attributes = AttributesBuilder::new(&id, self.origin.as_str(), event_type)
            .build()
            .unwrap();
        let event = Event::new(attributes, &DataPart::text(data), &Limits::FORMAT).unwrap();
        let salts = Salts::draw(&mut self.entropy);
        let prev = self.entries.last().map_or([0; 32], leaf_hash);
        let entry =
            seal(&event.as_ref(), &salts).entry(kind, sequence, prev, Timestamp(T0 + sequence));
        let mut content = Vec::new();
        event.as_ref().write_content(&salts, &mut content);
        let (events, bytes) = *self.sums.last().unwrap();
        let counts = u64::from(kind == Kind::Event);
        self.sums
            .push((events + counts, bytes + counts * data.len() as u64));
        self.contents
            .push((content, event.attribute_bytes().len() as u16));
        self.entries.push(entry.encode());
        self.tree.append(leaf_hash(&entry.encode()));
        self.roots.push(self.tree.compact_range().root());
    }

    pub fn size(&self) -> u64 {
        self.entries.len() as u64
    }

    pub fn note(&self, size: u64) -> String {
        let root = self.roots[size as usize];
        let checkpoint = Checkpoint::new(self.origin.to_string(), size, root).unwrap();
        sign_checkpoint(&checkpoint, &self.key).note_text
    }
}

/// Everything a bundle can hold, ready to be changed before it is written.
pub struct World {
    pub producer: Org,
    pub consumer: Org,
    pub stream: Log,
    pub ledger: Option<Log>,
    /// More ledger logs.
    pub ledgers: Vec<Log>,
    pub from: u64,
    pub to: u64,
    /// Size of the checkpoint.
    pub size: u64,
    pub documents: Vec<Envelope>,
    pub policies: Vec<PolicyFile>,
    pub decisions: Vec<DecisionLine>,
    pub timestamps: Vec<Stamped>,
}

impl World {
    /// A stream of `size` entries, two receipts up to its end, one decision, and the ledger that records them.
    pub fn new(size: u64) -> Self {
        Self::of(Org::new(1), Org::new(2), size)
    }

    pub fn of(producer: Org, consumer: Org, size: u64) -> Self {
        Self::with_controls(producer, consumer, size, &[])
    }

    /// As [`World::new`], with control entries in place of some events: sequence, type, data.
    pub fn with_controls(
        producer: Org,
        consumer: Org,
        size: u64,
        controls: &[(u64, &str, String)],
    ) -> Self {
        let origin = Origin::of_stream(
            &producer.authority,
            &"quakes".parse::<StreamName>().unwrap(),
        );
        let mut stream = Log::new(&producer, origin.clone());
        while stream.size() < size {
            let control = controls.iter().find(|(at, ..)| *at == stream.size());
            let data = format!("{{\"magnitude\":{}}}", stream.size());
            match control {
                Some((_, name, data)) => stream.append(Kind::Control, name, data),
                None => stream.append(Kind::Event, "org.example.quake", &data),
            }
        }
        let mut agreement = agreement(&producer, &consumer, &origin).sign(&producer.agreement);
        agreement.add_signature(&consumer.agreement);
        let first = receipt(&stream, &consumer, 1, None, size / 2);
        let second = receipt(&stream, &consumer, 2, Some(&first), size);

        let policy = "permit(principal, action == Action::\"read\", resource)\nwhen { context has agreement };\n";
        let texts = vec![("own.cedar".to_owned(), policy.to_owned())];
        let set = PolicySet::load(&texts).unwrap();
        let decision = decision(&set, &consumer, &origin);
        let mut ledger = Log::new(
            &producer,
            Origin::of_ledger(&producer.authority, &consumer.authority),
        );
        let text = |envelope: &Envelope| String::from_utf8(envelope.to_json()).unwrap();
        let agreed = LedgerRecord::Agreement {
            envelope: text(&agreement),
            addresses: Vec::new(),
            invitation: None,
        };
        let received = |envelope: &Envelope| LedgerRecord::Receipt {
            envelope: text(envelope),
            from: 0,
            events: 0,
            bytes: 0,
        };
        for record in [
            agreed,
            decision.clone(),
            received(&first),
            received(&second),
        ] {
            let json = String::from_utf8(record.to_json()).unwrap();
            ledger.append(Kind::Event, &record.event_type(), &json);
        }
        let decisions = vec![DecisionLine {
            ledger: ledger.origin.clone(),
            sequence: 2,
            record: String::from_utf8(decision.to_json()).unwrap(),
        }];
        let policy = |(file, text): (String, String)| PolicyFile {
            set: set.digest(),
            file,
            text,
        };
        Self {
            documents: vec![
                producer.statement(),
                consumer.statement(),
                agreement,
                first,
                second,
            ],
            policies: texts.into_iter().map(policy).collect(),
            ledger: Some(ledger),
            ledgers: Vec::new(),
            decisions,
            timestamps: Vec::new(),
            from: 0,
            to: size,
            size,
            producer,
            consumer,
            stream,
        }
    }

    /// As [`World::new`] without policies and decisions, which take most of the time of verifying a small bundle.
    pub fn undecided(size: u64) -> Self {
        let mut world = Self::new(size);
        world.policies.clear();
        world.decisions.clear();
        let decided = world.ledger.take().unwrap();
        let mut ledger = Log::new(&world.producer, decided.origin);
        let text = |at: usize| String::from_utf8(world.documents[at].to_json()).unwrap();
        let mut append = |record: LedgerRecord| {
            let json = String::from_utf8(record.to_json()).unwrap();
            ledger.append(Kind::Event, &record.event_type(), &json);
        };
        append(LedgerRecord::Agreement {
            envelope: text(2),
            addresses: Vec::new(),
            invitation: None,
        });
        for at in [3, 4] {
            append(LedgerRecord::Receipt {
                envelope: text(at),
                from: 0,
                events: 0,
                bytes: 0,
            });
        }
        world.ledger = Some(ledger);
        world
    }

    pub fn write(&self, path: &Path) {
        let sink = BundleSink::at(path).unwrap();
        write_bundle(sink, &mut self.source()).unwrap();
    }

    pub fn source(&self) -> Source<'_> {
        Source {
            world: self,
            documents: self.documents.iter().map(Envelope::to_json).collect(),
            policies: self.policies.iter().cloned().collect(),
            decisions: self.decisions.iter().cloned().collect(),
            timestamps: self.timestamps.iter().cloned().collect(),
        }
    }

    fn log(&self, log: usize) -> &Log {
        let ledgers = self.ledger.iter().chain(&self.ledgers);
        std::iter::once(&self.stream)
            .chain(ledgers)
            .nth(log)
            .unwrap()
    }
}

pub fn agreement(producer: &Org, consumer: &Org, stream: &Origin) -> Agreement {
    Agreement {
        id: AgreementId([5; 16]),
        producer: producer.party(),
        consumer: consumer.party(),
        stream: stream.clone(),
        plan: Plan::default(),
        from: Timestamp(T0),
        until: None,
        made: Timestamp(T0),
        accepts: None,
        supersedes: None,
    }
}

pub fn receipt(
    log: &Log,
    consumer: &Org,
    number: u64,
    previous: Option<&Envelope>,
    size: u64,
) -> Envelope {
    receipt_of(log, consumer, number, previous, size).sign(&consumer.receipt)
}

pub fn receipt_of(
    log: &Log,
    consumer: &Org,
    number: u64,
    previous: Option<&Envelope>,
    size: u64,
) -> Receipt {
    let (events, bytes) = log.sums[size as usize];
    Receipt {
        agreement: AgreementId([5; 16]),
        stream: log.origin.clone(),
        consumer: consumer.authority.clone(),
        series: SeriesId([6; 16]),
        number,
        previous: previous.map(|envelope| Digest(envelope.payload_digest())),
        start: 0,
        filter: None,
        size,
        root: Digest(log.roots[size as usize]),
        events,
        bytes,
        level: Level::Verified,
        applied: 0,
        rejected: Rejections::default(),
        made: Timestamp(T0 + 1_000_000),
    }
}

pub fn decision(set: &PolicySet, consumer: &Org, origin: &Origin) -> LedgerRecord {
    let request = Request {
        principal: Principal::Organization(Organization {
            authority: consumer.authority.to_string(),
            ..Organization::default()
        }),
        action: Action::Read,
        resource: Stream {
            name: "quakes".to_owned(),
            origin: origin.to_string(),
            owner: origin.authority().to_string(),
            ..Stream::default()
        },
        context: Context::default(),
    };
    let decision = set.decide(&request);
    LedgerRecord::Decision {
        principal: consumer.authority.to_string(),
        action: "read".to_owned(),
        stream: origin.clone(),
        allowed: decision.allowed,
        policies: decision
            .determining
            .iter()
            .map(ToString::to_string)
            .collect(),
        policy_digest: Digest(set.digest()),
        errors: decision.errors,
        agreement: None,
        facts: serde_json::to_string(&request).unwrap(),
    }
}

pub struct Source<'a> {
    world: &'a World,
    documents: VecDeque<Vec<u8>>,
    policies: VecDeque<PolicyFile>,
    decisions: VecDeque<DecisionLine>,
    timestamps: VecDeque<Stamped>,
}

impl BundleSource for Source<'_> {
    fn facts(&mut self) -> Result<BundleFacts, SourceError> {
        let world = self.world;
        let facts = |log: &Log, from, to, size| LogFacts {
            origin: log.origin.clone(),
            from,
            to,
            checkpoint: log.note(size),
            vkey: log.vkey(),
        };
        let mut logs = vec![facts(&world.stream, world.from, world.to, world.size)];
        logs.extend(
            world
                .ledger
                .iter()
                .chain(&world.ledgers)
                .map(|ledger| facts(ledger, 0, ledger.size(), ledger.size())),
        );
        Ok(BundleFacts {
            made: "2026-11-21T00:00:00Z".to_owned(),
            made_by: "test".to_owned(),
            logs,
            undisclosed_reason: "withheld".to_owned(),
        })
    }

    fn skeletons(&mut self, log: usize, from: u64, to: u64) -> Result<Vec<Skeleton>, SourceError> {
        let log = self.world.log(log);
        let skeleton = |at: u64| {
            let (content, attributes) = &log.contents[at as usize];
            let data_part = (content.len() - 64) as u32 - u32::from(*attributes);
            Skeleton {
                entry: log.entries[at as usize],
                content: match log.withheld.contains(&at) {
                    true => ContentLengths::Undisclosed,
                    false => ContentLengths::Disclosed {
                        attributes: *attributes,
                        data_part,
                    },
                },
                reason: None,
            }
        };
        Ok((from..to).map(skeleton).collect())
    }

    fn contents(
        &mut self,
        log: usize,
        from: u64,
        to: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), SourceError> {
        let log = self.world.log(log);
        for at in (from..to).filter(|at| !log.withheld.contains(at)) {
            out.extend_from_slice(&log.contents[at as usize].0);
        }
        Ok(())
    }

    fn node(&mut self, log: usize, level: u8, index: u64) -> Result<Hash, SourceError> {
        Ok(self.world.log(log).tree.node(level, index)?)
    }

    fn next_document(&mut self) -> Result<Option<Vec<u8>>, SourceError> {
        Ok(self.documents.pop_front())
    }

    fn next_policy(&mut self) -> Result<Option<PolicyFile>, SourceError> {
        Ok(self.policies.pop_front())
    }

    fn next_decision(&mut self) -> Result<Option<DecisionLine>, SourceError> {
        Ok(self.decisions.pop_front())
    }

    fn next_timestamp(&mut self) -> Result<Option<Stamped>, SourceError> {
        Ok(self.timestamps.pop_front())
    }
}

pub fn verify(path: &Path, trust: &Trust) -> Report {
    countersign_audit::verify(path, trust, &mut |_| ()).unwrap()
}

pub fn code(path: &Path, trust: &Trust) -> u8 {
    verify(path, trust).verdict.exit_code()
}

/// Every file of a directory bundle.
pub fn files(root: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            out.extend(files(&path))
        } else {
            out.push(path)
        }
    }
    out.sort();
    out
}

/// Rewrites the manifest with `edit`, and its digest.
pub fn edit_manifest(root: &Path, edit: impl FnOnce(&mut serde_json::Value)) {
    let path = root.join("manifest.json");
    let mut manifest = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    edit(&mut manifest);
    let json = serde_json::to_vec(&manifest).unwrap();
    let digest = format!(
        "{}  manifest.json\n",
        hex::encode(countersign_crypto::sha256(&json))
    );
    std::fs::write(path, &json).unwrap();
    std::fs::write(root.join("manifest.sha256"), digest).unwrap();
}

/// Lists a file anew after it was changed.
pub fn relist(root: &Path, file: &str) {
    let bytes = std::fs::read(root.join(file)).unwrap();
    edit_manifest(root, |manifest| {
        let listed = manifest["files"].as_array_mut().unwrap();
        let entry = listed
            .iter_mut()
            .find(|entry| entry["path"] == file)
            .unwrap();
        entry["bytes"] = bytes.len().into();
        entry["sha256"] = hex::encode(countersign_crypto::sha256(&bytes)).into();
    });
}
