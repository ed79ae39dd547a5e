//! Whole nodes in one process without sockets: a simulated disk, a clock that tests set, seeded randomness, real policies, a real view.

mod node;
mod wire;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use countersign_crypto::{SeededEntropy, SigningKey};
use countersign_event::attributes::{AttributesBuilder, Value};
use countersign_event::content::{Event, Limits};
use countersign_event::data::DataPart;
use countersign_event::documents::{KeyStatement, Role, RoleKey};
use countersign_event::names::Authority;
use countersign_event::time::Timestamp;
use countersign_exchange::{Clock, Evidence, Exchange, Identity, Log};
use countersign_protocol::publish::write_event;

pub use self::node::{
    EXPORTER, Node, NodeOptions, invite_options, join, join_query, partners, partners_with,
};
pub use self::wire::{Wire, next_now, subscribe_at};

/// The policies of a new node.
pub const STARTER: &str = include_str!("../../../../../policies/starter.cedar");

/// When every test begins.
pub const START: Timestamp = Timestamp(1_800_000_000_000_000);

/// A clock that stands still until it is moved.
pub struct ManualClock {
    now: AtomicU64,
    uptime_us: AtomicU64,
    look_us: AtomicU64,
}

impl ManualClock {
    pub fn new() -> Self {
        Self {
            now: AtomicU64::new(START.0),
            uptime_us: AtomicU64::new(0),
            look_us: AtomicU64::new(25_000),
        }
    }

    /// From here on looking at it lets no time pass.
    pub fn stand_still(&self) {
        self.look_us.store(0, Ordering::SeqCst);
    }

    /// Time passes.
    pub fn advance(&self, by: Duration) {
        self.now.fetch_add(by.as_micros() as u64, Ordering::SeqCst);
        self.uptime_us
            .fetch_add(by.as_micros() as u64, Ordering::SeqCst);
    }

    /// Somebody sets the clock: no time passes.
    pub fn set(&self, now: Timestamp) {
        self.now.store(now.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::SeqCst))
    }

    /// Looking at it lets 25 ms pass, so that no test waits for entries that wait for a commit to ride on.
    fn uptime(&self) -> Duration {
        let look_us = self.look_us.load(Ordering::SeqCst);
        Duration::from_micros(self.uptime_us.fetch_add(look_us, Ordering::SeqCst))
    }
}

/// Evidence that was kept.
#[derive(Default)]
pub struct Kept(pub Mutex<Vec<(String, Vec<u8>)>>);

impl Kept {
    pub fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl Evidence for Kept {
    fn keep(&self, about: &str, kind: &str, bytes: &[u8]) -> Option<String> {
        let mut kept = self.0.lock().unwrap();
        kept.push((about.to_owned(), bytes.to_vec()));
        Some(format!("{}.{kind}", kept.len()))
    }
}

/// An organization with its keys, a function of the seed.
#[derive(Clone)]
pub struct Org {
    pub key: SigningKey,
    pub identity: Identity,
}

impl Org {
    pub fn new(seed: u64, name: &str) -> Self {
        let key = SigningKey::generate(&mut SeededEntropy::new(seed));
        let authority = Authority::of_key(&key.public());
        Self::with_authority(seed, name, authority, key, 1)
    }

    pub fn with_authority(
        seed: u64,
        name: &str,
        authority: Authority,
        key: SigningKey,
        number: u64,
    ) -> Self {
        let mut entropy = SeededEntropy::new(seed ^ 0x0123_4567);
        let roles = [
            Role::Node,
            Role::Log,
            Role::Agreement,
            Role::Receipt,
            Role::Witness,
            Role::Encryption,
        ];
        let keys = roles.map(|_| SigningKey::generate(&mut entropy));
        let role_key = |(role, key): (&Role, &SigningKey)| RoleKey {
            role: *role,
            key: key.public(),
            from: Timestamp(START.0 - 1_000_000_000_000),
            until: None,
        };
        let statement = KeyStatement {
            authority,
            name: name.to_owned(),
            organization: key.public(),
            number,
            made: Timestamp(START.0 - 1_000_000),
            keys: roles.iter().zip(&keys).map(role_key).collect(),
            succession: Vec::new(),
        };
        let [
            node_key,
            log_key,
            agreement_key,
            receipt_key,
            witness_key,
            encryption_key,
        ] = keys;
        let identity = Identity {
            envelope: statement.sign_with(&key),
            statement,
            node_key,
            log_key,
            earlier_log_keys: Vec::new(),
            agreement_key,
            receipt_key,
            witness_key,
            encryption_key,
        };
        Self { key, identity }
    }
}

/// An event; `text` makes it this one.
pub fn event(id: &str, text: &str) -> Event {
    let attributes = AttributesBuilder::new(id, "/tests", "org.example.test")
        .with("subject", Value::String("a subject"))
        .build()
        .unwrap();
    Event::new(attributes, &DataPart::text(text), &Limits::FORMAT).unwrap()
}

/// Events in the form in which a client hands them in.
pub fn bulk_of(events: &[Event]) -> (u32, Bytes) {
    let mut bulk = Vec::new();
    for event in events {
        write_event(&mut bulk, event.attribute_bytes(), event.data_part_bytes());
    }
    (events.len() as u32, bulk.into())
}

/// Events numbered from `first`, whose content is a function of number and `flavour`.
pub fn events(flavour: &str, first: u64, count: u64) -> Vec<Event> {
    (first..first + count)
        .map(|n| event(&format!("{flavour}-{n}"), &format!("{{\"{flavour}\":{n}}}")))
        .collect()
}

/// Everything stored of a log: entry and content of each sequence.
pub fn stored(exchange: &Exchange, log: &Log) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    while (all.len() as u64) < log.size() {
        let runs = exchange
            .reader()
            .read(log.number(), all.len() as u64, 4096, 8 << 20)
            .unwrap();
        for stored in runs.iter().flat_map(|run| run.iter()) {
            assert_eq!(stored.sequence, all.len() as u64);
            all.push((stored.entry.to_vec(), stored.content.to_vec()));
        }
    }
    all
}

/// Attributes and data part of each event, without salts; the control entry at the beginning is left out.
pub fn stored_events(exchange: &Exchange, log: &Log) -> Vec<Vec<u8>> {
    let all = stored(exchange, log).into_iter().skip(1);
    all.map(|(_, content)| content[64..].to_vec()).collect()
}

/// The same of events that were handed in.
pub fn bytes_of(events: &[Event]) -> Vec<Vec<u8>> {
    events
        .iter()
        .map(|event| [event.attribute_bytes(), event.data_part_bytes()].concat())
        .collect()
}

/// The registry in an order and a form that can be compared.
pub fn registry_text(exchange: &Exchange) -> BTreeMap<String, String> {
    let registry = exchange.registry();
    let mut all = BTreeMap::new();
    for (key, value) in &registry.partners {
        all.insert(format!("partner {key}"), format!("{value:?}"));
    }
    for (key, value) in &registry.agreements {
        all.insert(format!("agreement {key}"), format!("{value:?}"));
    }
    for (key, value) in &registry.apps {
        all.insert(format!("app {key:?}"), format!("{value:?}"));
    }
    for (key, value) in &registry.invitations {
        all.insert(format!("invitation {key}"), format!("{value:?}"));
    }
    for (key, value) in &registry.receipts {
        all.insert(format!("receipt {key:?}"), format!("{value:?}"));
    }
    for (key, value) in &registry.cursors {
        all.insert(format!("cursor {key:?}"), format!("{value:?}"));
    }
    all
}
