//! The peer's server: found, started on a fresh directory for each run, ended.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::machine::{build, core_ns};
use super::plan::PeerTask;
use crate::Failure;
use crate::process::{command, output, run_shown};

const SERVER: &str = "nats-server";
const INSTALLER: &str = "tests/install/nats-server.sh";

/// How long the server may take to listen.
const START_MAX: Duration = Duration::from_secs(10);

/// Messages on the way where each is synced: the server acknowledges all it has queued at once, and with more of them nothing would come for
/// seconds, and then everything. Fewer cost it nothing: it syncs one by one.
pub(super) const SYNCED_WINDOW_MAX: u32 = 1_000;

/// When the server syncs what it acknowledges.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Sync {
    /// `sync_interval` as it comes: every two minutes, long after the acknowledgement.
    Default,
    /// `sync_interval: always`: before the acknowledgement.
    Always,
}

impl Sync {
    pub(super) const ALL: [Self; 2] = [Self::Default, Self::Always];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Default => "unsynced",
            Self::Always => "synced",
        }
    }
}

/// A peer that can be driven.
pub(super) struct Nats<'a> {
    root: &'a Path,
    dir: &'a Path,
    /// This program with the peer's client linked.
    driver: PathBuf,
    pub(super) version: String,
    /// What `sync_interval` says where each message is to be synced.
    pub(super) always: &'static str,
}

impl<'a> Nats<'a> {
    /// Finds or installs the server, and builds the driver.
    pub(super) fn find(root: &'a Path, dir: &'a Path) -> Result<Self, Failure> {
        if version(root).is_err() {
            println!("`{SERVER}` is not on PATH: running {INSTALLER}");
            let mut install = command(root, "bash");
            install.arg(INSTALLER);
            run_shown(
                install,
                "put `nats-server` 2.10 or newer on PATH by hand, or leave `--against nats` out",
            )?;
        }
        let version = version(root)?;
        let driver = build(root, &["--package", "xtask", "--features", "nats"])?;
        let mut nats = Self {
            root,
            dir,
            driver,
            version,
            always: "always",
        };
        if !nats.takes_always()? {
            // Before 2.10 there is no such word, and the shortest interval comes nearest to it.
            nats.always = "\"1ms\"";
        }
        Ok(nats)
    }

    /// Runs a task on a fresh server, for so many seconds that count.
    pub(super) fn run(&self, task: &PeerTask, sync: Sync, seconds: u32) -> Result<Value, Failure> {
        let server = Server::start(self, sync)?;
        let window = match sync {
            Sync::Default => task.window,
            Sync::Always => task.window.min(SYNCED_WINDOW_MAX),
        };
        let task = json!({
            "url": format!("nats://127.0.0.1:{}", server.port),
            "mode": task.mode.name(),
            "bytes": task.bytes,
            "window": window,
            // As `countersign bench deliver` has it.
            "ahead": (16 << 20) / task.bytes.max(1),
            "rate": task.rate,
            "events": task.events,
            "warmup": 1,
            "seconds": seconds,
        });
        let program = self.driver.to_string_lossy();
        let mut driver = command(self.root, &program);
        driver
            .args(["bench", "nats-driver", &task.to_string()])
            .stderr(Stdio::inherit());
        let before = core_ns(server.child.id());
        let said = output(driver)?;
        let used = core_ns(server.child.id()).saturating_sub(before);
        let mut value: Value = serde_json::from_str(&said)
            .map_err(|error| fault(format!("the driver did not answer in JSON: {error}")))?;
        if value["events"].as_u64() == Some(0) {
            return Err(fault("the server acknowledged or delivered nothing within the time: take more `--seconds`".to_owned()));
        }
        let all = value["events_in_all"].as_f64().unwrap_or_default();
        value["server_core_ns_per_event"] = json!(used as f64 / all.max(1.0));
        Ok(value)
    }

    fn takes_always(&self) -> Result<bool, Failure> {
        let folder = Folder::make(self.dir)?;
        let config = folder.0.join("check.conf");
        write(&config, &self.config(0, &folder.0, Sync::Always))?;
        let mut check = command(self.root, SERVER);
        check.arg("-t").arg("-c").arg(&config);
        Ok(output(check).is_ok())
    }

    fn config(&self, port: u16, folder: &Path, sync: Sync) -> String {
        let interval = match sync {
            Sync::Default => String::new(),
            Sync::Always => format!(", sync_interval: {}", self.always),
        };
        format!(
            "listen: \"127.0.0.1:{port}\"\nmax_payload: 1MB\njetstream {{ store_dir: \"{}\", max_file_store: 40GB{interval} }}\n",
            folder.join("store").display()
        )
    }
}

/// A running server; ends with this.
struct Server {
    child: Child,
    port: u16,
    _folder: Folder,
}

impl Server {
    fn start(nats: &Nats<'_>, sync: Sync) -> Result<Self, Failure> {
        let folder = Folder::make(nats.dir)?;
        let port = free_port().map_err(|error| fault(format!("no free port: {error}")))?;
        let config = folder.0.join("server.conf");
        write(&config, &nats.config(port, &folder.0, sync))?;
        let log = folder.0.join("log");
        let mut server = command(nats.root, SERVER);
        server
            .arg("-c")
            .arg(&config)
            .arg("-l")
            .arg(&log)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = server
            .spawn()
            .map_err(|error| fault(format!("`{SERVER}` cannot be started: {error}")))?;
        let mut server = Self {
            child,
            port,
            _folder: folder,
        };
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if began.elapsed() > START_MAX || !matches!(server.child.try_wait(), Ok(None)) {
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                return Err(fault(format!("`{SERVER}` does not serve; its log:\n{log}")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended by itself cannot be killed, and is reaped all the same.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory that goes with the run.
struct Folder(PathBuf);

impl Folder {
    fn make(parent: &Path) -> Result<Self, Failure> {
        let path = parent.join(format!("countersign-bench-nats-{}", std::process::id()));
        std::fs::create_dir(&path).map_err(|error| {
            Failure::new(
                format!("cannot make {}: {error}", path.display()),
                "choose another folder with `--dir`",
            )
        })?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Best effort: what remains is under a name that says what it is.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn version(root: &Path) -> Result<String, Failure> {
    let mut ask = command(root, SERVER);
    ask.arg("--version");
    Ok(output(ask)?
        .trim()
        .trim_start_matches("nats-server: v")
        .to_owned())
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|error| fault(format!("cannot write {}: {error}", path.display())))
}

fn fault(what: String) -> Failure {
    Failure::new(
        what,
        "run `nats-server` by hand and see whether it serves; `--dir` chooses where its files lie",
    )
}
