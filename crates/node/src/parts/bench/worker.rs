//! The processes of a measurement: how they are started, told, heard and ended.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::copying::{self, CopyTask};
use super::publisher::{self, PublishTask};
use super::reader::{self, ReadTask};
use crate::cli::{CommandResult, Output};
use crate::config::Config;
use crate::data_dir::{DataDir, Environment};
use crate::errors::{CommandError, ErrorCode};

/// What a process is there for. Sent to it as one line of JSON.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Task {
    /// A node: what `serve` runs, unchanged.
    Node {
        /// Its data directory.
        data: PathBuf,
    },
    /// An application that publishes.
    Publish(PublishTask),
    /// A program that reads with the client library.
    Read(ReadTask),
    /// One end of a bare QUIC connection.
    Copy(CopyTask),
}

/// Moments that a process tells of.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Mark {
    /// Everything is agreed, nothing is read yet: it goes on when it is told ([`Worker::tell`]).
    Joined,
    /// Everything is connected.
    Ready,
    /// From here on everything counts.
    Begin,
    /// Up to here everything counted.
    End,
}

/// A line that a process writes.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    Mark(Mark),
    Result(Value),
}

/// A process that was started here. It ends when this is dropped.
pub(super) struct Worker {
    child: Child,
    /// The process ends by itself when this closes, so that none outlives a parent that was killed.
    stdin: ChildStdin,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Worker {
    /// Starts this program once more and gives it its task.
    ///
    /// # Errors
    /// [`ErrorCode::Io`].
    pub(super) fn start(task: &Task) -> Result<Self, CommandError> {
        let io = |error: std::io::Error| {
            CommandError::new(
                ErrorCode::Io,
                format_args!("cannot start a process of the measurement: {error}"),
            )
        };
        let mut child = Command::new(std::env::current_exe().map_err(io)?)
            .args(["bench", "worker", "--quiet"])
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(io)?;
        let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(CommandError::new(
                ErrorCode::Internal,
                "a process without its pipes",
            ));
        };
        let (sender, lines) = mpsc::unbounded_channel();
        // A handful of lines; the thread ends with the process.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let task = serde_json::to_string(task)
            .map_err(|error| CommandError::new(ErrorCode::Internal, error))?;
        let told = writeln!(stdin, "{task}")
            .and_then(|()| stdin.flush())
            .map_err(io);
        // Made before the answer is looked at: whatever goes wrong, the process is ended.
        let worker = Self {
            child,
            stdin,
            lines,
        };
        told.map(|()| worker)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Checks that it was there all the time: figures of a part that had gone would be figures of something else.
    ///
    /// # Errors
    /// [`ErrorCode::Internal`] where it has ended; it has said why on stderr.
    pub(super) fn check_running(&mut self) -> Result<(), CommandError> {
        if self.is_over() {
            return Err(ended());
        }
        Ok(())
    }

    /// Whether it has ended.
    pub(super) fn is_over(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Tells it to go on, or to say what it has counted so far.
    ///
    /// # Errors
    /// [`ErrorCode::Internal`] where it has ended; it has said why on stderr.
    pub(super) fn tell(&mut self) -> Result<(), CommandError> {
        let told = writeln!(self.stdin).and_then(|()| self.stdin.flush());
        told.map_err(|_| ended())
    }

    /// What it has counted so far.
    ///
    /// # Errors
    /// As [`Worker::mark`].
    pub(super) async fn ask<T: DeserializeOwned>(&mut self) -> Result<T, CommandError> {
        self.tell()?;
        self.result().await
    }

    /// Waits for a moment.
    ///
    /// # Errors
    /// [`ErrorCode::Internal`] where the process ends before; it has said why on stderr.
    pub(super) async fn mark(&mut self, wanted: Mark) -> Result<(), CommandError> {
        loop {
            if matches!(self.line().await?, Line::Mark(mark) if mark == wanted) {
                return Ok(());
            }
        }
    }

    /// Waits for what it measured.
    ///
    /// # Errors
    /// As [`Worker::mark`].
    pub(super) async fn result<T: DeserializeOwned>(&mut self) -> Result<T, CommandError> {
        loop {
            if let Line::Result(value) = self.line().await? {
                return serde_json::from_value(value)
                    .map_err(|error| CommandError::new(ErrorCode::Internal, error));
            }
        }
    }

    async fn line(&mut self) -> Result<Line, CommandError> {
        let line = self.lines.recv().await.ok_or_else(ended)?;
        serde_json::from_str(&line).map_err(|error| CommandError::new(ErrorCode::Internal, error))
    }
}

fn ended() -> CommandError {
    let message = "a process of the measurement ended before it was done; what it said is above";
    CommandError::new(ErrorCode::Internal, message)
}

impl Drop for Worker {
    fn drop(&mut self) {
        // One that has ended by itself cannot be killed, and is reaped all the same.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `bench worker`: plays the part that stdin names, until it is played or stdin closes.
///
/// # Errors
/// [`ErrorCode::Usage`] where stdin holds no task; what the part reports.
pub(super) async fn run(output: &mut Output) -> CommandResult {
    let (task, told, closed) = read_task()?;
    tokio::select! {
        result = play(task, told, output) => result,
        _ = closed => Err(CommandError::new(ErrorCode::Interrupted, "whoever measured is gone")),
    }
}

async fn play(task: Task, told: mpsc::UnboundedReceiver<()>, output: &mut Output) -> CommandResult {
    let mut stage = Stage { output, told };
    let result = match task {
        Task::Node { data } => {
            let dir = DataDir::open(&data)?;
            let settings = Config::load(Some(&dir.config_file()), &Environment::default(), &[])?;
            return crate::parts::serve::serve(&dir, &settings, stage.output).await;
        }
        Task::Publish(task) => json!(publisher::run(task, &mut stage).await?),
        Task::Read(task) => json!(reader::run(task, &mut stage).await?),
        Task::Copy(task) => json!(copying::run(task, &mut stage).await?),
    };
    stage.result(&result)?;
    // What is measured last, memory, is read while the process is still there.
    std::future::pending().await
}

/// The task, each line that comes after it, and the end of stdin.
type Told = (Task, mpsc::UnboundedReceiver<()>, oneshot::Receiver<()>);

fn read_task() -> Result<Told, CommandError> {
    let mut stdin = BufReader::new(std::io::stdin());
    let mut line = String::new();
    let usage = |error: &dyn std::fmt::Display| {
        CommandError::new(
            ErrorCode::Usage,
            format_args!("a task is expected on stdin: {error}"),
        )
        .advise("use `bench publish` or another verb; `bench --help` lists them")
    };
    stdin.read_line(&mut line).map_err(|error| usage(&error))?;
    let task = serde_json::from_str(&line).map_err(|error| usage(&error))?;
    let (sender, closed) = oneshot::channel();
    let (tell, told) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        // Until the other end closes, however it does.
        for _ in stdin.lines().map_while(Result::ok) {
            let _ = tell.send(());
        }
        let _ = sender.send(());
    });
    Ok((task, told, closed))
}

/// Where a part tells of its moments.
pub(super) struct Stage<'a> {
    output: &'a mut Output,
    told: mpsc::UnboundedReceiver<()>,
}

impl Stage<'_> {
    /// Tells of one.
    ///
    /// # Errors
    /// Where nobody listens any more.
    pub(super) fn mark(&mut self, mark: Mark) -> Result<(), CommandError> {
        self.say(&Line::Mark(mark))
    }

    /// Waits until whoever measures says something: to go on, or to tell what was counted. Cancel-safe.
    pub(super) async fn told(&mut self) {
        if self.told.recv().await.is_none() {
            // stdin is closed, which ends the process.
            std::future::pending::<()>().await;
        }
    }

    /// Tells what was measured, or counted so far.
    ///
    /// # Errors
    /// As [`Stage::mark`].
    pub(super) fn result<T: Serialize>(&mut self, value: &T) -> Result<(), CommandError> {
        self.say(&Line::Result(json!(value)))
    }

    fn say(&mut self, line: &Line) -> Result<(), CommandError> {
        let text = serde_json::to_string(line)
            .map_err(|error| CommandError::new(ErrorCode::Internal, error))?;
        self.output.data(&format!("{text}\n"))
    }
}
