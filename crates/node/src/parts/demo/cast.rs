use std::fs::{self, File};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use countersign_crypto::Fingerprint;
use countersign_event::names::Authority;
use countersign_exchange::{Clock as _, Exchange};
use countersign_transport::{Server, ServerOptions};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::place::Place;
use crate::admin::{Command, Node};
use crate::clock::SystemClock;
use crate::commands::{LocalNode, ServerFacts};
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::errors::{CommandError, ErrorCode};
use crate::init::{InitOptions, InitReport, init};
use crate::keys::NodeKeys;
use crate::open::open;
use crate::parts::serve::keep_house;
use crate::passphrase::KeySettings;

/// What lets everybody know that a stream exists: one of the examples that come with the program.
const DISCOVERY_POLICY: &str =
    include_str!("../../../../../policies/examples/discover-listed.cedar");

/// Its name in the folder of policies.
const DISCOVERY_FILE: &str = "discover-listed.cedar";

/// Everybody in the story.
pub(super) struct Cast {
    pub(super) producer: Actor,
    pub(super) partner: Actor,
    pub(super) stranger: Stranger,
    /// The auditor's folder: files, no keys.
    pub(super) auditor: PathBuf,
}

impl Cast {
    /// Makes four folders, and starts the nodes of the producer and the partner.
    pub(super) async fn assemble(place: &Place) -> Result<Self, CommandError> {
        let auditor = place.path().join("auditor");
        fs::create_dir(&auditor).map_err(|error| io_error(&auditor, &error))?;
        let stranger = Made::new(place, "curious-corp", "Curious Corp")?;
        let producer = Made::new(place, "seismic-survey", "Seismic Survey")?;
        let policy = producer.dir.policies_dir().join(DISCOVERY_FILE);
        write_private(&policy, DISCOVERY_POLICY)?;
        let partner = Made::new(place, "harbor-insurance", "Harbor Insurance")?;
        let producer = producer.start().await?;
        Ok(Self {
            partner: partner.start().await?,
            producer,
            stranger: Stranger {
                keys: stranger.dir.load_keys(&KeySettings::default())?,
                report: stranger.report,
            },
            auditor,
        })
    }

    /// Ends sessions and closes the logs.
    pub(super) async fn end(self) -> Result<(), CommandError> {
        let partner = self.partner.end().await;
        self.producer.end().await?;
        partner
    }
}

/// A folder as `init` makes it.
struct Made {
    report: InitReport,
    dir: DataDir,
    config: Config,
}

impl Made {
    fn new(place: &Place, folder: &str, name: &str) -> Result<Self, CommandError> {
        let listen = free_address()?;
        let advertise = listen.to_string().parse();
        let config = Config {
            listen,
            http: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            advertise: vec![
                advertise.map_err(|error| CommandError::new(ErrorCode::Internal, error))?,
            ],
            ..Config::default()
        };
        let data = place.path().join(folder);
        let options = InitOptions {
            name: name.to_owned(),
            domain: None,
            config: config.clone(),
            data: data.clone(),
        };
        let report = init(&options, SystemClock::new().now())?;
        let dir = DataDir::open(&data)?;
        Ok(Self {
            report,
            dir,
            config,
        })
    }

    async fn start(self) -> Result<Actor, CommandError> {
        let Self {
            report,
            dir,
            config,
        } = self;
        let lock = dir.lock()?;
        let exchange = open(&dir, &config).await?;
        let options = ServerOptions {
            listen: config.listen,
            advertise: config.advertise.iter().map(ToString::to_string).collect(),
            limits: config.quic.clone(),
        };
        let server = Server::start(&exchange, options)
            .map_err(|error| CommandError::new(ErrorCode::Io, error))?;
        let server = Arc::new(server);
        let facts = ServerFacts {
            server: Arc::clone(&server),
            listen: server.local_addr(),
            http: None,
        };
        let node = LocalNode::new(Arc::clone(&exchange), config, dir.clone());
        let node = Arc::new(node.with_server(facts));
        let house = tokio::spawn(keep_house(Arc::clone(&node)));
        Ok(Actor {
            report,
            exchange,
            server,
            node: Node::Local {
                handler: node,
                lock,
            },
            house,
        })
    }
}

/// An organization whose node runs.
pub(super) struct Actor {
    report: InitReport,
    pub(super) exchange: Arc<Exchange>,
    pub(super) server: Arc<Server>,
    pub(super) node: Node,
    house: JoinHandle<()>,
}

impl Actor {
    pub(super) fn name(&self) -> &str {
        &self.report.organization
    }

    pub(super) fn data(&self) -> &Path {
        &self.report.data
    }

    pub(super) fn fingerprint(&self) -> &Fingerprint {
        &self.report.fingerprint
    }

    pub(super) fn authority(&self) -> &Authority {
        &self.report.authority
    }

    pub(super) fn address(&self) -> String {
        self.server.local_addr().to_string()
    }

    /// Gives the node a command, and waits for its answer.
    pub(super) async fn call(&self, command: &Command) -> Result<Value, CommandError> {
        self.node.channel().await?.call(command).await
    }

    /// Gives the node a command that answers with many items.
    pub(super) async fn items(&self, command: &Command) -> Result<Vec<Value>, CommandError> {
        let mut channel = self.node.channel().await?;
        channel.send(command).await?;
        let mut items = Vec::new();
        while let Some(reply) = channel.next().await? {
            items.extend(reply.item());
        }
        Ok(items)
    }

    async fn end(self) -> Result<(), CommandError> {
        self.house.abort();
        self.server.shut_down().await;
        match &self.node {
            Node::Local { handler, .. } => handler.close().await,
            Node::Running(_) => Ok(()),
        }
    }
}

/// An organization with keys and nothing else.
pub(super) struct Stranger {
    pub(super) report: InitReport,
    pub(super) keys: NodeKeys,
}

/// A free port of this machine, for partners to dial. It is asked for beforehand because settings and invitations name it.
fn free_address() -> Result<SocketAddr, CommandError> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|socket| socket.local_addr())
        .map_err(|error| {
            CommandError::new(
                ErrorCode::Io,
                format_args!("there is no port to be had on loopback: {error}"),
            )
        })
}

pub(super) fn write_private(path: &Path, text: &str) -> Result<(), CommandError> {
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o600);
    options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| io_error(path, &error))
}

pub(super) fn io_error(path: &Path, error: &std::io::Error) -> CommandError {
    CommandError::new(ErrorCode::Io, format_args!("`{}`: {error}", path.display()))
}
