//! One node on a real disk, with a stream, a partner that may read it and that partner's open subscription: all a function of fixed seeds.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use countersign_crypto::{Hash, SeededEntropy, SigningKey};
use countersign_event::attributes::{AttributesBuilder, Value};
use countersign_event::content::{Event, Limits};
use countersign_event::data::DataPart;
use countersign_event::documents::{
    Agreement, Document as _, KeyStatement, Plan, Role, RoleKey, Side,
};
use countersign_event::dsse::Envelope;
use countersign_event::names::Authority;
use countersign_event::time::Timestamp;
use countersign_exchange::pipeline::deliver::Delivery;
use countersign_exchange::pipeline::duplicates::Publisher;
use countersign_exchange::{
    Clock, Evidence, Exchange, ExchangeParts, Identity, InviteOptions, Log, Peer, StreamOptions,
    WitnessSettings,
};
use countersign_policy::PolicySet;
use countersign_protocol::delivery::LogReader;
use countersign_protocol::{Hello, JoinAccept, JoinQuery, StartAt, Subscribe};
use countersign_store::checkpoints::Checkpoints;
use countersign_store::disk::RealDisk;
use countersign_store::journal::{Journal, Options};

use crate::Failure;

/// The numbered series that events come in.
pub(crate) const PUBLISHER: Publisher = Publisher {
    key: [3; 32],
    series: [1; 16],
};

const STREAM: &str = "counted";
/// As little as can be: what policies cost is paid once for each subscription, not for each event.
const POLICY: &str = "permit(principal, action, resource);";
const START: Timestamp = Timestamp(1_800_000_000_000_000);
/// What TLS would export for the session of a join.
const EXPORTER: Hash = [7; 32];

/// The node and the other end of its subscription.
pub(crate) struct Node {
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) log: Arc<Log>,
    pub(crate) delivery: Arc<Delivery>,
    pub(crate) reader: LogReader,
}

impl Node {
    pub(crate) async fn start(folder: &Path) -> Result<Self, Failure> {
        let options = Options {
            // Holds all that is counted, so that when the next one is prepared does not matter.
            segment_bytes: 8 << 20,
            ..Options::default()
        };
        let journal = Journal::create(
            Arc::new(RealDisk),
            &folder.join("journal"),
            options,
            Box::new(SeededEntropy::new(1)),
        )?;
        journal.preparer().prepare_next()?;
        let ours = identity(2, "Producer");
        let parts = ExchangeParts {
            identity: ours.clone(),
            journal,
            policies: PolicySet::load(&[("all.cedar".to_owned(), POLICY.to_owned())])?,
            clock: Arc::new(StillClock::default()),
            entropy: Box::new(SeededEntropy::new(3)),
            limits: Limits::default(),
            evidence: Arc::new(NoEvidence),
            may_create: true,
            checkpoints: Checkpoints::open(&folder.join("checkpoints.sqlite")).await?,
            witness: WitnessSettings::default(),
            elsewhere: false,
            unsettle: Box::new(|| ()),
        };
        let exchange = Exchange::open(parts, &folder.join("ledger.sqlite")).await?;
        let log = exchange
            .create_stream(&STREAM.parse()?, StreamOptions::default())
            .await?;
        let (peer, agreement) = agree(&exchange, &identity(4, "Consumer")).await?;
        let request = Subscribe {
            agreement: agreement.id.0,
            stream: log.origin().to_string(),
            start: StartAt::Sequence(0),
            newest_size: 0,
            series: [9; 16],
            purpose: String::new(),
        };
        let (ready, delivery) = exchange.open_delivery(&peer, &request).await?;
        let key = ours.log_key.public();
        let reader = LogReader::from_ready(log.origin().as_str(), key, &ready, None)?;
        Ok(Self {
            exchange,
            log,
            delivery,
            reader,
        })
    }
}

/// An invitation, redeemed by the other organization.
async fn agree(exchange: &Arc<Exchange>, other: &Identity) -> Result<(Peer, Agreement), Failure> {
    let invitation = exchange
        .invite(InviteOptions {
            stream: STREAM.parse()?,
            side: Side::Producer,
            plan: Plan::default(),
            expires_in: Duration::from_secs(3600),
            until: None,
            for_key: None,
            confirm: false,
            addresses: vec!["producer.example:4433".to_owned()],
        })
        .await?;
    let hello = Hello {
        minor: 0,
        key_statement: other.envelope.to_json(),
        software: "counted".to_owned(),
        addresses: vec!["consumer.example:4433".to_owned()],
    };
    let node_key = other.node_key.public();
    let peer = exchange
        .identify(&hello, &node_key)
        .map_err(|error| format!("{error:?}"))?;
    let proof = invitation.prove(&EXPORTER, &other.statement.organization, &node_key);
    let query = JoinQuery {
        invitation: invitation.id,
        proof: proof.to_bytes().to_vec(),
    };
    let terms = exchange.join_terms(&peer, &query, &EXPORTER).await?;
    let signed = Envelope::sign(
        Agreement::PAYLOAD_TYPE,
        terms.agreement.clone(),
        &other.agreement_key,
    );
    let accept = JoinAccept {
        envelope: signed.to_json(),
    };
    exchange
        .join_accept(&peer, &query, &EXPORTER, &accept)
        .await?;
    let agreement = Agreement::peek(&signed)?;
    Ok((peer, agreement))
}

/// Events of one producer: five attributes, JSON text as data.
pub(crate) fn events(count: usize, data_bytes: usize) -> Result<Vec<Event>, Failure> {
    (0..count)
        .map(|number| {
            let id = format!("0198f1c2-7c1e-7a43-9d55-{number:012x}");
            let source = "https://sensors.example.org/plants/7/line/2";
            let attributes = AttributesBuilder::new(&id, source, "org.example.sensor.reading.v1")
                .with("datacontenttype", Value::String("application/json"))
                .with("time", Value::Timestamp("2026-01-02T03:04:05.678Z"))
                .build()?;
            let text = format!("{{\"v\":\"{number:0>width$}\"}}", width = data_bytes - 8);
            Ok(Event::new(
                attributes,
                &DataPart::text(&text),
                &Limits::default(),
            )?)
        })
        .collect()
}

fn identity(seed: u64, name: &str) -> Identity {
    let mut entropy = SeededEntropy::new(seed);
    let organization = SigningKey::generate(&mut entropy);
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
        authority: Authority::of_key(&organization.public()),
        name: name.to_owned(),
        organization: organization.public(),
        number: 1,
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
    Identity {
        envelope: statement.sign_with(&organization),
        statement,
        node_key,
        log_key,
        earlier_log_keys: Vec::new(),
        agreement_key,
        receipt_key,
        witness_key,
        encryption_key,
    }
}

/// A clock that shows one moment. Looking at its uptime lets 25 ms pass, so that nothing waits for an entry that waits for company.
#[derive(Default)]
struct StillClock(AtomicU64);

impl Clock for StillClock {
    fn now(&self) -> Timestamp {
        START
    }

    fn uptime(&self) -> Duration {
        Duration::from_micros(self.0.fetch_add(25_000, Ordering::Relaxed))
    }
}

/// Nobody is at fault here.
struct NoEvidence;

impl Evidence for NoEvidence {
    fn keep(&self, _about: &str, _kind: &str, _bytes: &[u8]) -> Option<String> {
        None
    }
}
