//! A node for tests, made of the same crates: an identity, a listening endpoint, the acceptor's greeting, a log in memory.
#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::Arc;

use bytes::Bytes;
use countersign_client::quic::{Accepting, Connection, Endpoint, QuicLimits};
use countersign_client::session::handshake::{self, AcceptError};
use countersign_client::{Clock, Expected, SessionOptions};
use countersign_crypto::{PublicKey, SeededEntropy, SigningKey};
use countersign_event::attributes::AttributesBuilder;
use countersign_event::commitment::Salts;
use countersign_event::content::{Event, Limits, seal};
use countersign_event::data::DataPart;
use countersign_event::documents::{KeyStatement, Party, Role, RoleKey};
use countersign_event::dsse::Envelope;
use countersign_event::entry::Kind;
use countersign_event::names::Authority;
use countersign_event::time::Timestamp;
use countersign_protocol::delivery::{BatchMessage, Cover, Lengths, write_descriptors};
use countersign_protocol::{Hello, Refused, SignedHead, StartAt, Subscribe, SubscribeReady};
use countersign_tlog::checkpoint::signature_of;
use countersign_tlog::{
    Checkpoint, MemoryTree, compact_range_at, consistency_proof, inclusion_proof, leaf_hash,
};

pub(crate) const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

pub(crate) fn clock() -> Clock {
    Arc::new(|| NOW)
}

pub(crate) fn entropy(seed: u64) -> Box<SeededEntropy> {
    Box::new(SeededEntropy::new(seed))
}

/// An organization with all its keys.
#[derive(Clone)]
pub(crate) struct Org {
    pub(crate) organization: SigningKey,
    pub(crate) node: SigningKey,
    pub(crate) log: SigningKey,
    pub(crate) agreement: SigningKey,
    pub(crate) receipt: SigningKey,
    pub(crate) statement: KeyStatement,
    pub(crate) envelope: Envelope,
}

impl Org {
    pub(crate) fn new(seed: u8) -> Self {
        Self::with_node_role(seed, Role::Node)
    }

    /// An organization whose statement delegates its node key for `role`.
    pub(crate) fn with_node_role(seed: u8, role: Role) -> Self {
        let key = |part: u8| SigningKey::from_seed(&[seed.wrapping_mul(16).wrapping_add(part); 32]);
        let (organization, node, log, agreement, receipt) =
            (key(1), key(2), key(3), key(4), key(5));
        let delegate = |role, key: &SigningKey| RoleKey {
            role,
            key: key.public(),
            from: Timestamp(0),
            until: None,
        };
        let statement = KeyStatement {
            authority: Authority::of_key(&organization.public()),
            name: format!("Org {seed}"),
            organization: organization.public(),
            number: 1,
            made: NOW,
            keys: vec![
                delegate(role, &node),
                delegate(Role::Log, &log),
                delegate(Role::Agreement, &agreement),
                delegate(Role::Receipt, &receipt),
            ],
            succession: Vec::new(),
        };
        let envelope = statement.sign_with(&organization);
        Self {
            organization,
            node,
            log,
            agreement,
            receipt,
            statement,
            envelope,
        }
    }

    pub(crate) fn party(&self) -> Party {
        countersign_client::join::party_of(&self.statement)
    }

    pub(crate) fn hello(&self) -> Hello {
        Hello {
            minor: 0,
            key_statement: self.envelope.to_json(),
            software: "test".to_owned(),
            addresses: Vec::new(),
        }
    }

    pub(crate) fn listen(&self) -> (Endpoint, String) {
        let local = "127.0.0.1:0".parse().unwrap();
        let endpoint = Endpoint::bind(
            local,
            self.node.clone(),
            QuicLimits::default(),
            Accepting::Yes,
        )
        .unwrap();
        let address = endpoint.local_addr().unwrap().to_string();
        (endpoint, address)
    }

    pub(crate) fn expected(&self) -> Expected {
        Expected::organization(self.statement.organization.fingerprint())
    }

    /// How an enrolled application dials this organization.
    pub(crate) fn app_session(&self, address: &str) -> SessionOptions {
        let app = SigningKey::from_seed(&[200; 32]);
        SessionOptions::new(vec![address.to_owned()], self.expected(), app, clock())
    }

    /// How this organization dials `other`.
    pub(crate) fn session_to(&self, other: &Org, address: &str) -> SessionOptions {
        let addresses = vec![address.to_owned()];
        SessionOptions {
            statement: Some(self.envelope.clone()),
            ..SessionOptions::new(addresses, other.expected(), self.node.clone(), clock())
        }
    }

    /// Accepts and greets one dialer, whoever it is; `None` once the endpoint is closed.
    pub(crate) async fn greet(
        &self,
        endpoint: &Endpoint,
    ) -> Option<Result<Connection, AcceptError>> {
        let connection = endpoint.accept().await?.handshake().await.unwrap();
        let judge = |_: &Hello, _: &PublicKey| Ok::<(), Refused>(());
        let greeted = handshake::accept(&connection, &self.hello(), judge).await;
        Some(greeted.map(|()| connection))
    }
}

/// An event in binary form.
pub(crate) fn event(number: u64) -> Event {
    let id = number.to_string();
    let attributes = AttributesBuilder::new(&id, "urn:test", "test")
        .build()
        .unwrap();
    let mut part = Vec::new();
    DataPart::text(&format!("{{\"n\":{number}}}"))
        .encode(&mut part)
        .unwrap();
    Event::check(attributes, part, &Limits::default()).unwrap()
}

/// A producer's log in memory; entry 0 is a control entry.
pub(crate) struct Log {
    pub(crate) origin: String,
    pub(crate) key: SigningKey,
    pub(crate) tree: MemoryTree,
    pub(crate) entries: Vec<[u8; 118]>,
    pub(crate) lengths: Vec<Lengths>,
    pub(crate) contents: Vec<Vec<u8>>,
}

impl Log {
    pub(crate) fn new(origin: &str, key: &SigningKey, count: u64, seed: u64) -> Self {
        let mut entropy = SeededEntropy::new(seed);
        let mut log = Self {
            origin: origin.to_owned(),
            key: key.clone(),
            tree: MemoryTree::new(),
            entries: Vec::new(),
            lengths: Vec::new(),
            contents: Vec::new(),
        };
        let mut prev = [0; 32];
        for sequence in 0..count {
            let event = event(sequence);
            let event = event.as_ref();
            let salts = Salts::draw(&mut entropy);
            let kind = if sequence == 0 {
                Kind::Control
            } else {
                Kind::Event
            };
            let entry =
                seal(&event, &salts).entry(kind, sequence, prev, Timestamp(1_000_000 + sequence));
            let mut content = Vec::new();
            event.write_content(&salts, &mut content);
            prev = leaf_hash(&entry.encode());
            log.tree.append(prev);
            log.entries.push(entry.encode());
            log.lengths.push(Lengths {
                attribute_bytes: event.attribute_bytes().len() as u32,
                data_part_bytes: event.data_part_bytes().len() as u32,
            });
            log.contents.push(content);
        }
        log
    }

    pub(crate) fn size(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(crate) fn root(&self, size: u64) -> [u8; 32] {
        compact_range_at(&self.tree, size).unwrap().root()
    }

    pub(crate) fn head(&self, size: u64) -> SignedHead {
        let root = self.root(size);
        let checkpoint = Checkpoint {
            origin: self.origin.clone(),
            size,
            root,
        };
        SignedHead::new(size, root, signature_of(&checkpoint, &self.key))
    }

    pub(crate) fn batch(&self, first: u64, end: u64, head: u64) -> (BatchMessage, Bytes) {
        let range = first as usize..end as usize;
        let descriptors = write_descriptors(
            &self.entries[range.clone()].concat(),
            &self.lengths[range.clone()],
        );
        let message = BatchMessage {
            first,
            count: (end - first) as u32,
            descriptor_bytes: descriptors.len() as u32,
            cover: Cover::Checkpoint {
                head: self.head(head),
                consistency: consistency_proof(&self.tree, end, head).unwrap(),
            },
        };
        (
            message,
            Bytes::from([descriptors, self.contents[range].concat()].concat()),
        )
    }

    pub(crate) fn leaf(&self, sequence: u64) -> [u8; 32] {
        leaf_hash(&self.entries[sequence as usize])
    }

    /// Where a request starts in this log, without judging its cursor.
    pub(crate) fn start(&self, request: &Subscribe) -> u64 {
        match request.start {
            StartAt::Sequence(next) | StartAt::Cursor { next, .. } => next.min(self.size()),
            StartAt::Now => self.size(),
            StartAt::Time(time) => (0..self.size())
                .find(|n| 1_000_000 + n >= time)
                .unwrap_or(self.size()),
        }
    }

    pub(crate) fn ready(&self, start: u64, newest: u64, exposure_events: u64) -> SubscribeReady {
        let last = start.checked_sub(1);
        let head = self.size();
        SubscribeReady {
            start,
            head: self.head(head),
            range: compact_range_at(&self.tree, start)
                .unwrap()
                .hashes()
                .to_vec(),
            last_leaf: last.map_or([0; 32], |i| self.leaf(i)),
            last_time: last.map_or(0, |i| 1_000_000 + i),
            last_leaf_proof: last.map_or(Vec::new(), |i| {
                inclusion_proof(&self.tree, i, start).unwrap()
            }),
            consistency: consistency_proof(&self.tree, start, head).unwrap(),
            from_newest: consistency_proof(&self.tree, newest, head).unwrap(),
            exposure_events,
            receipt_number: 0,
            receipt_size: start,
        }
    }
}
