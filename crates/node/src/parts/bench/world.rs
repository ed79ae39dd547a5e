//! Nodes that live for one measurement: fresh directories, free ports, processes of their own.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign_crypto::Fingerprint;
use countersign_event::encryption::Encryption;
use countersign_exchange::Clock as _;
use serde_json::Value;
use tokio::task::{JoinError, JoinSet};

use super::worker::{Task, Worker};
use super::{CONNECTING_MAX, CONNECTIONS_ENDING};
use crate::admin::{Accept, AdminClient, Command};
use crate::clock::SystemClock;
use crate::config::{Config, TraceLevel};
use crate::data_dir::DataDir;
use crate::errors::{CommandError, ErrorCode};
use crate::init::{InitOptions, init};

/// How long a node may take to start.
const START_MAX: Duration = Duration::from_secs(120);

/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(2);

/// Seconds that an invitation is good.
const INVITATION_S: u64 = 3_600;

/// A directory that goes with the measurement.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes one in `parent`, or in the system's temporary folder.
    ///
    /// # Errors
    /// [`ErrorCode::Io`].
    pub(super) fn make(parent: Option<&Path>) -> Result<Self, CommandError> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let io = |error: std::io::Error| {
            CommandError::new(
                ErrorCode::Io,
                format_args!("cannot make a directory in `{}`: {error}", parent.display()),
            )
        };
        let name = format!("countersign-bench-{}", std::process::id());
        let path = std::path::absolute(parent.join(name)).map_err(io)?;
        DirBuilder::new().mode(0o700).create(&path).map_err(io)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Best effort: what remains is in a temporary folder under a name that says what it is.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A node in a process of its own.
pub(super) struct NodeProcess {
    worker: Worker,
    admin: Arc<AdminClient>,
    fingerprint: Fingerprint,
    data: PathBuf,
}

impl NodeProcess {
    /// Makes its directory, starts it and waits until it answers. `connections` is how many the application or partner with the most will have.
    ///
    /// # Errors
    /// What making or starting it reports; [`ErrorCode::Busy`] where it does not answer in time.
    pub(super) async fn start(
        folder: &Folder,
        name: &str,
        mtu: u16,
        connections: u32,
    ) -> Result<Self, CommandError> {
        let data = folder.path().join(name);
        let made = init(
            &options(name, data.clone(), mtu, connections),
            SystemClock::new().now(),
        )?;
        let (worker, admin) = launch(&data).await?;
        Ok(Self {
            worker,
            admin,
            fingerprint: made.fingerprint,
            data,
        })
    }

    /// Ends it as a crash would, starts it again and waits until it answers; returns how long that took from its start.
    ///
    /// # Errors
    /// As [`NodeProcess::start`].
    pub(super) async fn kill_and_start(self) -> Result<(Self, Duration), CommandError> {
        let Self {
            worker,
            fingerprint,
            data,
            ..
        } = self;
        // The signal is KILL, and the process is waited for.
        drop(worker);
        let started = Instant::now();
        let (worker, admin) = launch(&data).await?;
        let took = started.elapsed();
        let node = Self {
            worker,
            admin,
            fingerprint,
            data,
        };
        Ok((node, took))
    }

    pub(super) fn pid(&self) -> u32 {
        self.worker.pid()
    }

    /// As [`Worker::check_running`].
    pub(super) fn check_running(&mut self) -> Result<(), CommandError> {
        self.worker.check_running()
    }

    pub(super) fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// Enrolls an application that publishes; returns where the node listens.
    pub(super) async fn enrol(&self, app: &str, key: &str) -> Result<Vec<String>, CommandError> {
        let (app, key) = (app.to_owned(), key.to_owned());
        let answer = self.call(Command::AppAdd { app, key }).await?;
        let addresses = answer["addresses"].as_array().into_iter().flatten();
        Ok(addresses
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect())
    }

    pub(super) async fn create_stream(&self, stream: &str) -> Result<(), CommandError> {
        self.create_with(stream, Encryption::None).await
    }

    /// A stream whose data is encrypted, or not.
    pub(super) async fn create_with(
        &self,
        stream: &str,
        encryption: Encryption,
    ) -> Result<(), CommandError> {
        let create = Command::StreamCreate {
            stream: stream.to_owned(),
            title: None,
            labels: Vec::new(),
            fields: false,
            author: None,
            cites: None,
            encryption,
            epoch_entries: 0,
            epoch_seconds: 0,
        };
        self.call(create).await.map(|_| ())
    }

    /// An invitation to read a stream.
    pub(super) async fn invite(&self, stream: &str) -> Result<String, CommandError> {
        invite(&self.admin, stream).await
    }

    /// So many invitations to read a stream; some dozens are made at a time.
    pub(super) async fn invite_many(
        &self,
        stream: &str,
        count: u32,
    ) -> Result<Vec<String>, CommandError> {
        let mut links = Vec::new();
        let mut making = JoinSet::new();
        for _ in 0..count {
            let (admin, stream) = (Arc::clone(&self.admin), stream.to_owned());
            making.spawn(async move { invite(&admin, &stream).await });
            if making.len() >= CONNECTING_MAX {
                links.extend(made(making.join_next().await)?);
            }
        }
        while !making.is_empty() {
            links.extend(made(making.join_next().await)?);
        }
        Ok(links)
    }

    /// Accepts an invitation.
    pub(super) async fn join(&self, link: &str) -> Result<(), CommandError> {
        let link = link.to_owned();
        let terms = self
            .call(Command::PartnerTerms { link: link.clone() })
            .await?;
        let payload_sha256 = text(&terms, "payload_sha256")?;
        let accept = Accept { payload_sha256 };
        self.call(Command::PartnerJoin { link, accept })
            .await
            .map(|_| ())
    }

    /// Entries of all streams and copies.
    pub(super) async fn entries(&self) -> Result<u64, CommandError> {
        let streams = self.call(Command::StreamLs).await?;
        let sizes = streams.as_array().into_iter().flatten();
        Ok(sizes.filter_map(|stream| stream["size"].as_u64()).sum())
    }

    /// Writes a stream's evidence.
    pub(super) async fn export(&self, stream: &str, out: &Path) -> Result<(), CommandError> {
        let export = Command::EvidenceExport {
            stream: stream.to_owned(),
            from: None,
            to: None,
            out: out.display().to_string(),
        };
        self.call(export).await.map(|_| ())
    }

    /// Entries of a stream under its newest checkpoint.
    pub(super) async fn signed_size(&self, stream: &str) -> Result<u64, CommandError> {
        let stream = stream.to_owned();
        let info = self.call(Command::StreamInfo { stream }).await?;
        Ok(info["signed_size"].as_u64().unwrap_or_default())
    }

    /// A command whose answer is one document.
    pub(super) async fn call(&self, command: Command) -> Result<Value, CommandError> {
        self.admin.channel().await?.call(&command).await
    }
}

async fn invite(admin: &AdminClient, stream: &str) -> Result<String, CommandError> {
    let invite = Command::PartnerInvite {
        stream: stream.to_owned(),
        consume: false,
        expires_s: INVITATION_S,
        period_s: None,
        for_key: None,
        confirm: false,
        plan: None,
        exposure_events: None,
        fields: None,
        obey: None,
    };
    text(&admin.channel().await?.call(&invite).await?, "link")
}

fn made<T>(
    done: Option<Result<Result<T, CommandError>, JoinError>>,
) -> Result<Option<T>, CommandError> {
    let internal = |error| CommandError::new(ErrorCode::Internal, error);
    done.transpose().map_err(internal)?.transpose()
}

/// Starts a node on its directory and waits until it answers.
async fn launch(data: &Path) -> Result<(Worker, Arc<AdminClient>), CommandError> {
    let dir = DataDir::open(data)?;
    let data = data.to_owned();
    let mut worker = Worker::start(&Task::Node { data })?;
    let answer = async {
        loop {
            if let Some(admin) = AdminClient::connect(&dir).await? {
                return Ok(admin);
            }
            if worker.is_over() {
                let message = "the node ended before it served; what it said is above";
                return Err(CommandError::new(ErrorCode::Internal, message));
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let late = |_| CommandError::new(ErrorCode::Busy, "the node did not start in time");
    let admin = tokio::time::timeout(START_MAX, answer)
        .await
        .map_err(late)??;
    Ok((worker, Arc::new(admin)))
}

fn options(name: &str, data: PathBuf, mtu: u16, connections: u32) -> InitOptions {
    let mut config = Config {
        listen: ([127, 0, 0, 1], 0).into(),
        http: ([127, 0, 0, 1], 0).into(),
        // What goes wrong is seen; the rest would be measured too.
        trace: TraceLevel::Warn,
        ..Config::default()
    };
    config.event_bytes_max = 16 << 20;
    config.quic.mtu_upper_bound = mtu;
    // Each stream of a publisher or a reader has a connection of its own.
    config.quic.connections_per_peer = (connections + CONNECTIONS_ENDING) as usize;
    InitOptions {
        name: name.to_owned(),
        domain: None,
        config,
        data,
    }
}

fn text(answer: &Value, member: &str) -> Result<String, CommandError> {
    let text = answer[member].as_str().map(str::to_owned);
    text.ok_or_else(|| {
        CommandError::new(
            ErrorCode::Internal,
            format_args!("the node's answer has no `{member}`"),
        )
    })
}
