//! One node: its directory, its addresses and, while it runs, its process.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long anything may take that has to happen at all. Generous: a busy machine is no failure.
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until a condition of another process holds: it cannot tell us, so it is asked again and again.
///
/// # Panics
/// Where it does not hold within the deadline.
#[track_caller]
pub(crate) fn wait_until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(begun.elapsed() < DEADLINE, "never happened: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A port of loopback that is free for UDP and TCP, below those that the system gives out by itself: a node that is started again must
/// find its port free.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = (std::process::id() % 200) as u16 * 100;
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + own.wrapping_add(step) % COUNT;
        let address = (Ipv4Addr::LOCALHOST, port);
        if UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok() {
            return port;
        }
    }
}

/// A folder for the nodes of one test. It stays where the test fails, to look around.
#[derive(Debug)]
pub(crate) struct Root(Option<tempfile::TempDir>);

impl Root {
    /// A new one.
    pub(crate) fn new() -> Self {
        Self(Some(tempfile::tempdir().expect("a folder can be made")))
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        self.0.as_ref().expect("it is there until the end").path()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        if let Some(dir) = self.0.take()
            && thread::panicking()
        {
            let kept = dir.keep();
            let _ = writeln!(std::io::stderr(), "what is left: {}", kept.display());
        }
    }
}

/// A node in a process of its own.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its data directory.
    pub(crate) data: PathBuf,
    /// Fingerprint of its organization key.
    pub(crate) fingerprint: String,
    /// Where its QUIC door is.
    pub(crate) listen: SocketAddr,
    http: SocketAddr,
    settings: Vec<(String, String)>,
    child: Option<Child>,
    /// Whether the child is a tracer, and the node the tracer's child.
    traced: bool,
}

impl Node {
    /// Makes a node below `root`. Settings are given as environment variables to it and to each of its commands.
    pub(crate) fn init(root: &Path, org: &str, settings: &[(&str, &str)]) -> Self {
        Self::init_with(root, org, settings, &[])
    }

    /// The same with more arguments for `init`.
    pub(crate) fn init_with(
        root: &Path,
        org: &str,
        settings: &[(&str, &str)],
        more: &[&str],
    ) -> Self {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut node = Self {
            data: root.join(org.to_lowercase()),
            fingerprint: String::new(),
            listen,
            http,
            settings: settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            child: None,
            traced: false,
        };
        let (listen, http) = (listen.to_string(), http.to_string());
        let usual = [
            "init",
            "--org",
            org,
            "--listen",
            &listen,
            "--http",
            &http,
            "--advertise",
            &listen,
        ];
        let report = node.json(&[&usual, more].concat());
        report["fingerprint"]
            .as_str()
            .expect("`init` shows the fingerprint")
            .clone_into(&mut node.fingerprint);
        node
    }

    /// A setting for it and its commands from now on.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// Address of its HTTP door.
    pub(crate) fn http_address(&self) -> SocketAddr {
        self.http
    }

    /// From now on its data directory is this one.
    pub(crate) fn move_to(&mut self, data: &Path) {
        data.clone_into(&mut self.data);
    }

    /// A command on this node, in an environment of its own.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        self.dress(&mut command);
        command.args(arguments).arg("--data").arg(&self.data);
        command
    }

    fn dress(&self, command: &mut Command) {
        let parent = self.data.parent().expect("the directory lies below a root");
        command
            .env_clear()
            .env("HOME", parent)
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .current_dir(parent)
            .stdin(Stdio::null());
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program runs")
    }

    /// Runs a command that has to succeed, and reads its JSON.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).expect("the answer is JSON")
    }

    /// Runs a command that has to succeed, and gives the lines of its answer.
    #[track_caller]
    pub(crate) fn lines(&self, arguments: &[&str]) -> Vec<String> {
        let output = self.run(&[arguments, &["--json"]].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        let text = String::from_utf8(output.stdout).expect("the answer is text");
        text.lines().map(str::to_owned).collect()
    }

    /// Starts `serve`, without waiting for it.
    pub(crate) fn start(&mut self) {
        let mut command = self.command(&["serve"]);
        self.spawn(&mut command);
    }

    /// Starts `serve` under `strace`, which injects a fault: `fdatasync:error=EIO:when=7`. Its record lies beside the data directory.
    pub(crate) fn start_with_fault(&mut self, fault: &str) {
        let mut command = Command::new("strace");
        self.dress(&mut command);
        command
            .args(["-f", "-qq", "-e", "trace=fdatasync", "-e"])
            .arg(format!("inject={fault}"))
            .arg("-o")
            .arg(self.fault_record())
            .arg(env!("CARGO_BIN_EXE_countersign"))
            .args(["serve", "--data"])
            .arg(&self.data);
        self.spawn(&mut command);
        self.traced = true;
    }

    /// What `strace` saw.
    pub(crate) fn fault_record(&self) -> PathBuf {
        self.data.with_extension("strace")
    }

    fn spawn(&mut self, command: &mut Command) {
        assert!(self.child.is_none(), "the node runs already");
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_file())
            .expect("the log opens");
        self.child = Some(
            command
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .expect("the node starts"),
        );
        self.traced = false;
    }

    /// Waits until the node is in service.
    #[track_caller]
    pub(crate) fn wait_ready(&mut self) {
        let http = self.http;
        let child = self.child.as_mut().expect("the node was started");
        let log = self.data.with_extension("log");
        wait_until("the node is in service", || {
            if let Some(status) = child.try_wait().expect("the child can be asked") {
                let log = fs::read_to_string(&log).unwrap_or_default();
                panic!("the node ended with {status}: {}", tail(&log));
            }
            get(http, "/healthz").filter(|(code, _)| *code == 200)
        });
    }

    /// Starts and waits until it is in service.
    #[track_caller]
    pub(crate) fn serve(&mut self) {
        self.start();
        self.wait_ready();
    }

    /// Ends the process by SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child, self.traced);
        }
    }

    /// Asks the process to end (SIGTERM) and waits for it.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the node runs");
        kill_process(pid(&child), Signal::TERM).expect("the signal is sent");
        wait_until("the node ends", || {
            child.try_wait().expect("the child can be asked")
        })
    }

    /// The process's exit status, where it has ended by itself.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        let child = self.child.as_mut().expect("the node was started");
        child.try_wait().expect("the child can be asked")
    }

    /// Forgets a process that ended by itself.
    pub(crate) fn reap(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the node was started");
        wait_until("the node ends by itself", || {
            child.try_wait().expect("the child can be asked")
        })
    }

    /// Status code and body of a page of the HTTP door; `None` where nobody answers.
    pub(crate) fn http(&self, path: &str) -> Option<(u16, String)> {
        get(self.http, path)
    }

    /// What the HTTP door answers to a request with these headers.
    #[track_caller]
    pub(crate) fn fetch(&self, path: &str, headers: &[(&str, &str)]) -> Fetched {
        self.request("GET", path, headers)
    }

    /// The same with another method.
    #[track_caller]
    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Fetched {
        fetch(self.http, method, path, headers, b"").expect("the HTTP door answers")
    }

    /// What the HTTP door answers to what is posted; `None` where nobody answers, or not to the end.
    pub(crate) fn post(&self, path: &str, body: &[u8]) -> Option<Fetched> {
        let length = body.len().to_string();
        fetch(
            self.http,
            "POST",
            path,
            &[("Content-Length", &length)],
            body,
        )
    }

    /// Entries of the log whose origin ends in `/streams/STREAM`, as the metrics say.
    pub(crate) fn entries(&self, stream: &str) -> Option<u64> {
        let (_, text) = self.http("/metrics")?;
        let end = format!("/streams/{stream}\"}} ");
        text.lines()
            .filter(|line| line.starts_with("countersign_log_entries{"))
            .find_map(|line| line.split_once(&end)?.1.parse().ok())
    }

    /// Resident memory of the process, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let child = self.child.as_ref().expect("the node runs");
        let status = fs::read_to_string(format!("/proc/{}/status", child.id()))
            .expect("the process is there");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("the system says it");
        let number = line.trim().trim_end_matches(" kB").trim();
        number.parse().expect("a number of KiB")
    }

    /// What the node wrote to stderr so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    /// Invites `consumer` to a stream, and joins. Both nodes run.
    #[track_caller]
    pub(crate) fn share(&self, stream: &str, consumer: &Self) {
        let invitation = self.json(&["partner", "invite", "--stream", stream]);
        let link = invitation["link"].as_str().expect("there is a link");
        consumer.json(&["partner", "join", link, "--yes"]);
    }

    /// Enrolls an application, and gives its key file.
    #[track_caller]
    pub(crate) fn enroll(&self, app: &str) -> PathBuf {
        let file = self.data.with_extension(format!("{app}.pem"));
        let path = file.to_str().expect("the path is text");
        self.json(&["app", "add", app, "--key-file", path]);
        file
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let log = self.log();
            let _ = writeln!(
                std::io::stderr(),
                "--- {}\n{}",
                self.data.display(),
                tail(&log)
            );
        }
    }
}

/// Kills a node. A tracer that is killed would let its node run on: there the node is killed, and the tracer ends with it.
fn end(child: &mut Child, traced: bool) {
    let traced = traced.then(|| {
        let id = child.id();
        fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default()
    });
    let nodes = traced.as_deref().unwrap_or_default().split_whitespace();
    let nodes: Vec<Pid> = nodes
        .filter_map(|id| Pid::from_raw(id.parse().ok()?))
        .collect();
    for node in &nodes {
        let _ = kill_process(*node, Signal::KILL);
    }
    if nodes.is_empty() {
        // It may have ended by itself.
        let _ = child.kill();
    }
    let _ = child.wait();
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// The last lines.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

/// An answer of the HTTP door.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// Its status.
    pub(crate) status: u16,
    /// Its headers, names in small letters.
    pub(crate) headers: Vec<(String, String)>,
    /// Its body.
    pub(crate) body: Vec<u8>,
}

impl Fetched {
    /// The value of a header; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut headers = self.headers.iter();
        let found = headers.find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }
}

fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let fetched = fetch(address, "GET", path, &[], b"")?;
    Some((fetched.status, String::from_utf8(fetched.body).ok()?))
}

fn fetch(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Option<Fetched> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .ok()?;
    let headers = headers.iter().fold(String::new(), |all, (name, value)| {
        format!("{all}{name}: {value}\r\n")
    });
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: node\r\n{headers}Connection: close\r\n\r\n"
    )
    .ok()?;
    stream.write_all(body).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let headers = head.lines().skip(1).filter_map(|line| {
        let (name, value) = line.split_once(": ")?;
        Some((name.to_ascii_lowercase(), value.to_owned()))
    });
    Some(Fetched {
        status,
        headers: headers.collect(),
        body: answer[end + 4..].to_vec(),
    })
}
