use std::sync::Arc;

use serde_json::Value;

use super::claim::{Claim, claim};
use super::command::error_of;
use super::server::BoxFuture;
use super::{AdminClient, AdminFrames, Command, Handler, Reply, serve_connection};
use crate::data_dir::{DataDir, DirLock};
use crate::errors::CommandError;

/// One connection to a node: commands one after the other.
#[derive(Debug)]
pub struct Channel {
    frames: AdminFrames,
}

impl Channel {
    /// Speaks over `frames` as the calling side.
    #[must_use]
    pub fn new(frames: AdminFrames) -> Self {
        Self { frames }
    }

    /// Sends a command; its replies come from [`Channel::next`].
    ///
    /// # Errors
    /// What the connection reports.
    pub async fn send(&mut self, command: &Command) -> Result<(), CommandError> {
        Ok(self.frames.outgoing.command(command).await?)
    }

    /// The next reply to the command sent last: a value, an item or progress; `None` when it is done.
    ///
    /// # Errors
    /// The command's failure; what the connection reports.
    pub async fn next(&mut self) -> Result<Option<Reply>, CommandError> {
        match self.frames.incoming.reply().await? {
            Reply::Done => Ok(None),
            Reply::Error {
                code,
                message,
                advice,
                ..
            } => Err(error_of(&code, message, advice)),
            reply => Ok(Some(reply)),
        }
    }

    /// Sends a command whose answer is one document, and waits for it.
    ///
    /// # Errors
    /// As [`Channel::next`].
    pub async fn call(&mut self, command: &Command) -> Result<Value, CommandError> {
        self.send(command).await?;
        let mut answer = Value::Null;
        while let Some(reply) = self.next().await? {
            if let Reply::Value(value) = reply {
                answer = value;
            }
        }
        Ok(answer)
    }

    /// Turns the connection over to the protocol's publish frames, as the dialer of them.
    ///
    /// # Errors
    /// As [`Channel::next`].
    pub async fn publish(mut self) -> Result<AdminFrames, CommandError> {
        self.call(&Command::Publish).await?;
        Ok(self.frames)
    }
}

/// Opens a data directory in process: the hook behind which the exchange is. The lock is held by the caller for as long as the handler lives.
pub trait OpenLocal: Send + Sync {
    /// Makes the handler. At the first opening of a fresh directory this begins the node's ledger log.
    fn open_local<'a>(
        &'a self,
        dir: &'a DataDir,
    ) -> BoxFuture<'a, Result<Arc<dyn Handler>, CommandError>>;
}

/// A node that commands can be given to.
pub enum Node {
    /// It runs in another process.
    Running(AdminClient),
    /// It lives for this command, in this process.
    Local {
        /// What carries out commands.
        handler: Arc<dyn Handler>,
        /// Keeps others out.
        lock: DirLock,
    },
}

impl Node {
    /// A running node, or one opened in process under the lock.
    ///
    /// # Errors
    /// [`crate::errors::ErrorCode::DataDirLocked`] where another process keeps the directory for longer than [`super::LOCK_WAIT_MAX`] without answering;
    /// what opening reports.
    pub async fn find(dir: &DataDir, open: &dyn OpenLocal) -> Result<Self, CommandError> {
        match claim(dir, |_| {}).await? {
            Claim::Running(client) => Ok(Self::Running(client)),
            Claim::Free(lock) => {
                let handler = open.open_local(dir).await?;
                Ok(Self::Local { handler, lock })
            }
        }
    }

    /// Whether it goes on when this command ends.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running(_))
    }

    /// A connection of its own; several may be used at a time.
    ///
    /// # Errors
    /// What connecting reports.
    pub async fn channel(&self) -> Result<Channel, CommandError> {
        match self {
            Self::Running(client) => Ok(client.channel().await?),
            Self::Local { handler, .. } => {
                let (near, far) = AdminFrames::pair();
                let handler = Arc::clone(handler);
                tokio::spawn(async move { serve_connection(far, &*handler).await });
                Ok(Channel::new(near))
            }
        }
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_running() {
            "Node(running)"
        } else {
            "Node(in process)"
        })
    }
}

/// Runs a command against the node of a data directory, and closes the node afterwards where it was opened for it.
///
/// # Errors
/// What finding the node, the command or the closing reports; the command's failure comes first.
pub async fn with_node<T>(
    dir: &DataDir,
    open: &dyn OpenLocal,
    run: impl AsyncFnOnce(&Node) -> Result<T, CommandError>,
) -> Result<T, CommandError> {
    let node = Node::find(dir, open).await?;
    let result = run(&node).await;
    let closed = match &node {
        Node::Running(_) => Ok(()),
        Node::Local { handler, .. } => handler.close().await,
    };
    let value = result?;
    closed?;
    Ok(value)
}
