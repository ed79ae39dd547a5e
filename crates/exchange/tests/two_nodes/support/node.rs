use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use countersign_crypto::{Hash, SeededEntropy};
use countersign_event::content::Limits;
use countersign_event::documents::{Agreement, AgreementId, Document as _, Plan, Side};
use countersign_event::dsse::Envelope;
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::{Authority, Origin};
use countersign_exchange::pipeline::append::Appended;
use countersign_exchange::{
    Exchange, ExchangeError, ExchangeParts, InviteOptions, Log, Peer, PeerError, PublishSession,
    StreamOptions, WitnessSettings,
};
use countersign_policy::PolicySet;
use countersign_protocol::invitation::Invitation;
use countersign_protocol::{Hello, JoinAccept, JoinQuery, PublishOpen, PublishReady};
use countersign_store::checkpoints::Checkpoints;
use countersign_store::journal::{Journal, Options};
use countersign_store::ledger::EntryFilter;
use countersign_store::sim::SimDisk;

use super::{Kept, ManualClock, Org, STARTER, bulk_of, events};

/// What TLS would export for the session of a join.
pub const EXPORTER: Hash = [7; 32];

const JOURNAL: &str = "/journal";

/// What differs between the nodes of tests.
#[derive(Clone)]
pub struct NodeOptions {
    pub policy: String,
    pub limits: Limits,
    pub segment_bytes: u64,
    pub witness: WitnessSettings,
    /// Set when the node forgets where its directory lives.
    pub left_home: Arc<AtomicBool>,
    /// Whether each start finds the directory elsewhere.
    pub elsewhere: bool,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            policy: STARTER.to_owned(),
            limits: Limits::default(),
            segment_bytes: 64 << 10,
            witness: WitnessSettings::default(),
            left_home: Arc::default(),
            elsewhere: false,
        }
    }
}

/// A node that can be stopped, killed, unplugged and started again.
pub struct Node {
    pub org: Org,
    pub exchange: Arc<Exchange>,
    pub disk: SimDisk,
    pub clock: Arc<ManualClock>,
    pub evidence: Arc<Kept>,
    pub options: NodeOptions,
    pub dir: tempfile::TempDir,
    starts: u64,
    seed: u64,
}

impl Node {
    pub async fn new(seed: u64, name: &str) -> Self {
        Self::with(Org::new(seed, name), seed, NodeOptions::default()).await
    }

    pub async fn with(org: Org, seed: u64, options: NodeOptions) -> Self {
        let disk = SimDisk::new();
        let entropy = Box::new(SeededEntropy::new(seed));
        let journal = Journal::create(
            Arc::new(disk.clone()),
            Path::new(JOURNAL),
            journal_options(&options),
            entropy,
        )
        .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new());
        let evidence = Arc::new(Kept::default());
        let checkpoints = checkpoints_in(&dir).await;
        let parts = parts(
            &org,
            checkpoints,
            journal,
            &clock,
            &evidence,
            &options,
            seed,
        );
        let exchange = Exchange::open(parts, &dir.path().join("ledger.sqlite"))
            .await
            .unwrap();
        Self {
            org,
            exchange,
            disk,
            clock,
            evidence,
            options,
            dir,
            starts: 0,
            seed,
        }
    }

    /// The process ends in good order and begins again.
    pub async fn restart(&mut self) {
        self.exchange.close().await;
        self.open().await;
    }

    /// The process is killed: what it had written is there, synced or not.
    pub async fn kill(&mut self) {
        let disk = self.disk.after_kill();
        self.exchange.close().await;
        self.disk = disk;
        self.open().await;
    }

    /// Power is lost: what was synced is there, and of the rest what the seed says. The view may be ahead of what is left.
    pub async fn lose_power(&mut self, seed: u64) {
        let disk = self.disk.after_power_loss(seed);
        self.exchange.close().await;
        self.disk = disk;
        self.open().await;
    }

    /// Goes on from a copy of its disk that was made earlier.
    pub async fn go_back_to(&mut self, disk: SimDisk) {
        self.exchange.close().await;
        self.disk = disk;
        self.open().await;
    }

    async fn open(&mut self) {
        self.starts += 1;
        let seed = self.seed.wrapping_mul(31).wrapping_add(self.starts);
        let (journal, _) = Journal::open(
            Arc::new(self.disk.clone()),
            Path::new(JOURNAL),
            journal_options(&self.options),
            Box::new(SeededEntropy::new(seed)),
        )
        .unwrap();
        let checkpoints = checkpoints_in(&self.dir).await;
        let mut parts = parts(
            &self.org,
            checkpoints,
            journal,
            &self.clock,
            &self.evidence,
            &self.options,
            seed,
        );
        parts.may_create = false;
        self.exchange = Exchange::open(parts, &self.view_path()).await.unwrap();
    }

    pub fn view_path(&self) -> std::path::PathBuf {
        self.dir.path().join("ledger.sqlite")
    }

    pub fn authority(&self) -> &Authority {
        self.exchange.identity().authority()
    }

    pub fn hello(&self) -> Hello {
        Hello {
            minor: 0,
            key_statement: self.org.identity.envelope.to_json(),
            software: "test".to_owned(),
            addresses: vec!["node.example:4433".to_owned()],
        }
    }

    /// This node as the other one sees it.
    pub fn at(&self, other: &Node) -> Peer {
        self.try_at(other).unwrap()
    }

    pub fn try_at(&self, other: &Node) -> Result<Peer, PeerError> {
        let key = self.org.identity.node_key.public();
        other.exchange.identify(&self.hello(), &key)
    }

    pub fn origin(&self, stream: &str) -> Origin {
        Origin::of_stream(self.authority(), &stream.parse().unwrap())
    }

    pub async fn create(&self, stream: &str) -> Arc<Log> {
        let name = stream.parse().unwrap();
        self.exchange
            .create_stream(&name, StreamOptions::default())
            .await
            .unwrap()
    }

    pub fn log(&self, stream: &str) -> Arc<Log> {
        self.exchange.log(&self.origin(stream)).unwrap()
    }

    /// A publishing session of the local user.
    pub async fn session(&self, stream: &str, series: u8) -> (PublishReady, PublishSession) {
        let open = PublishOpen {
            stream: stream.to_owned(),
            series: [series; 16],
            create: true,
        };
        self.exchange
            .open_publish(&Peer::Local, &open)
            .await
            .unwrap()
    }

    /// Publishes numbered events of series 1 whose content is a function of the number.
    pub async fn publish(
        &self,
        stream: &str,
        first: u64,
        count: u64,
    ) -> Result<Appended, ExchangeError> {
        let (_, session) = self.session(stream, 1).await;
        let (count, bulk) = bulk_of(&events("n", first, count));
        session.submit_and_wait(first, count, bulk).await
    }

    pub async fn set_policy(&self, text: &str) {
        self.exchange.set_policies(policy_set(text)).await.unwrap();
    }

    /// The records of one kind, in the order in which they were written.
    pub async fn records(&self, kind: &str) -> Vec<LedgerRecord> {
        self.exchange.refresh_view().await.unwrap();
        let filter = EntryFilter {
            kind: Some(kind.to_owned()),
            ..EntryFilter::default()
        };
        let rows = self.exchange.view().entries(&filter, 10_000).await.unwrap();
        rows.iter()
            .map(|row| row.record().unwrap().unwrap())
            .collect()
    }

    pub async fn rows_digest(&self) -> Hash {
        self.exchange.refresh_view().await.unwrap();
        self.exchange.view().rows_digest().await.unwrap()
    }

    pub async fn invite(&self, stream: &str, side: Side, plan: Plan) -> Invitation {
        self.exchange
            .invite(invite_options(stream, side, plan))
            .await
            .unwrap()
    }
}

fn journal_options(options: &NodeOptions) -> Options {
    Options {
        segment_bytes: options.segment_bytes,
        cache_bytes: 64 << 10,
    }
}

fn policy_set(text: &str) -> PolicySet {
    let files = [("test.cedar".to_owned(), text.to_owned())];
    PolicySet::load(&files).unwrap()
}

async fn checkpoints_in(dir: &tempfile::TempDir) -> Checkpoints {
    Checkpoints::open(&dir.path().join("checkpoints.sqlite"))
        .await
        .unwrap()
}

fn parts(
    org: &Org,
    checkpoints: Checkpoints,
    journal: Journal,
    clock: &Arc<ManualClock>,
    evidence: &Arc<Kept>,
    options: &NodeOptions,
    seed: u64,
) -> ExchangeParts {
    ExchangeParts {
        identity: org.identity.clone(),
        journal,
        policies: policy_set(&options.policy),
        clock: Arc::clone(clock) as _,
        entropy: Box::new(SeededEntropy::new(seed ^ 0x5eed)),
        limits: options.limits,
        evidence: Arc::clone(evidence) as _,
        may_create: true,
        checkpoints,
        witness: options.witness.clone(),
        elsewhere: options.elsewhere,
        unsettle: {
            let left_home = Arc::clone(&options.left_home);
            Box::new(move || left_home.store(true, Ordering::SeqCst))
        },
    }
}

pub fn invite_options(stream: &str, side: Side, plan: Plan) -> InviteOptions {
    InviteOptions {
        stream: stream.parse().unwrap(),
        side,
        plan,
        expires_in: Duration::from_secs(3600),
        until: None,
        for_key: None,
        confirm: false,
        addresses: vec!["inviter.example:4433".to_owned()],
    }
}

/// The joiner's proof of an invitation.
pub fn join_query(invitation: &Invitation, joiner: &Node) -> JoinQuery {
    let identity = &joiner.org.identity;
    let proof = invitation.prove(
        &EXPORTER,
        identity.organization(),
        &identity.node_key.public(),
    );
    JoinQuery {
        invitation: invitation.id,
        proof: proof.to_bytes().to_vec(),
    }
}

/// Redeems an invitation; both sides hold the agreement afterwards.
pub async fn join(
    invitation: &Invitation,
    inviter: &Node,
    joiner: &Node,
) -> Result<AgreementId, ExchangeError> {
    let peer = joiner.at(inviter);
    let query = join_query(invitation, joiner);
    let terms = inviter
        .exchange
        .join_terms(&peer, &query, &EXPORTER)
        .await?;
    let key = &joiner.org.identity.agreement_key;
    let signed = Envelope::sign(Agreement::PAYLOAD_TYPE, terms.agreement, key);
    let accept = JoinAccept {
        envelope: signed.to_json(),
    };
    let done = inviter
        .exchange
        .join_accept(&peer, &query, &EXPORTER, &accept)
        .await?;
    let identity = inviter.exchange.identity();
    let agreement = joiner
        .exchange
        .hold_agreement(
            &identity.statement,
            &identity.envelope,
            &Envelope::from_json(&done.envelope).unwrap(),
            invitation.addresses.clone(),
            None,
        )
        .await
        .unwrap();
    Ok(agreement.id)
}

/// A producer with a stream, a consumer, and an agreement between them.
pub async fn partners(seed: u64, stream: &str, exposure_events: u64) -> (Node, Node, AgreementId) {
    partners_with(seed, stream, exposure_events, NodeOptions::default()).await
}

/// As [`partners`], with other options than the default.
pub async fn partners_with(
    seed: u64,
    stream: &str,
    exposure_events: u64,
    options: NodeOptions,
) -> (Node, Node, AgreementId) {
    let (one, two) = (seed * 2 + 1000, seed * 2 + 1001);
    let producer = Node::with(Org::new(one, "Producer"), one, options.clone()).await;
    let consumer = Node::with(Org::new(two, "Consumer"), two, options).await;
    producer.create(stream).await;
    let plan = Plan {
        exposure_events,
        ..Plan::default()
    };
    let invitation = producer.invite(stream, Side::Producer, plan).await;
    let agreement = join(&invitation, &producer, &consumer).await.unwrap();
    (producer, consumer, agreement)
}
