use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{AdminFrames, AdminListener, Command, FrameWriter, Reply};
use crate::errors::{CommandError, ErrorCode};

/// A future that a trait object can return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Connections served at a time. One person's shells and scripts; each holds two buffers of 64 KiB, so 16 MiB in all. More of them wait.
const CONNECTIONS_MAX: usize = 128;

/// What commands do. The same code behind the socket of a running node and in process under the lock.
pub trait Handler: Send + Sync {
    /// Carries out one command. Answers go to `out`; the return value becomes [`Reply::Done`] or [`Reply::Error`]. A command for which
    /// [`Command::ends_with_connection`] holds may be dropped at any await.
    fn handle<'a>(
        &'a self,
        command: Command,
        out: &'a mut Out,
    ) -> BoxFuture<'a, Result<(), CommandError>>;

    /// Speaks the protocol's publish messages (kinds 10 to 13) as the acceptor, until the other side closes. Refusals are the protocol's.
    fn publish(&self, frames: AdminFrames) -> BoxFuture<'_, Result<(), CommandError>>;

    /// Finishes what is under way and closes the logs: the last call, made where the handler served one command in process.
    fn close(&self) -> BoxFuture<'_, Result<(), CommandError>>;
}

/// Where a handler's answers go. Waits while the other side does not read: nothing piles up.
#[derive(Debug)]
pub struct Out {
    writer: FrameWriter,
}

impl Out {
    /// The whole answer.
    ///
    /// # Errors
    /// [`ErrorCode::Io`] where the other side has gone, [`ErrorCode::AdminProtocol`] where the answer is too large.
    pub async fn value(&mut self, value: &impl Serialize) -> Result<(), CommandError> {
        let value = to_value(value)?;
        Ok(self.writer.reply(&Reply::Value(value)).await?)
    }

    /// One of many.
    ///
    /// # Errors
    /// As [`Out::value`].
    pub async fn item(&mut self, item: &impl Serialize) -> Result<(), CommandError> {
        let item = to_value(item)?;
        Ok(self.writer.reply(&Reply::Item(item)).await?)
    }

    /// One of many, as the line of JSON that it is.
    ///
    /// # Errors
    /// As [`Out::value`].
    pub async fn line(&mut self, line: String) -> Result<(), CommandError> {
        Ok(self.writer.reply(&Reply::Line(line)).await?)
    }

    /// How far it is.
    ///
    /// # Errors
    /// As [`Out::value`].
    pub async fn progress(
        &mut self,
        done: u64,
        total: Option<u64>,
        unit: &str,
    ) -> Result<(), CommandError> {
        let unit = unit.to_owned();
        let reply = Reply::Progress { done, total, unit };
        Ok(self.writer.reply(&reply).await?)
    }
}

fn to_value(value: &impl Serialize) -> Result<serde_json::Value, CommandError> {
    serde_json::to_value(value).map_err(|error| {
        CommandError::new(
            ErrorCode::Internal,
            format_args!("the answer is no JSON: {error}"),
        )
    })
}

/// Serves connections until the future is dropped; those under way end with it.
pub async fn serve_admin(listener: AdminListener, handler: Arc<dyn Handler>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok(frames) => {
                let handler = Arc::clone(&handler);
                connections.spawn(async move {
                    serve_connection(frames, &*handler).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the command channel was refused");
                // Out of file handles, `accept` fails at once and for ever: let others run before the next attempt.
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Serves one connection to its end.
pub async fn serve_connection(frames: AdminFrames, handler: &dyn Handler) {
    let AdminFrames {
        mut incoming,
        outgoing,
    } = frames;
    let mut out = Out { writer: outgoing };
    loop {
        let command = match incoming.command().await {
            Ok(Some(command)) => command,
            Ok(None) => return,
            Err(error) => {
                // Where the other side has gone, there is nobody to tell.
                let _ = out.writer.reply(&error.into()).await;
                return;
            }
        };
        if command == Command::Publish {
            if out.writer.reply(&Reply::Done).await.is_err() {
                return;
            }
            let frames = AdminFrames {
                incoming,
                outgoing: out.writer,
            };
            if let Err(error) = handler.publish(frames).await {
                tracing::debug!(%error, "publishing over the command channel ended");
            }
            return;
        }
        let watched = command.ends_with_connection();
        let work = handler.handle(command, &mut out);
        let result = if watched {
            tokio::select! {
                result = work => Some(result),
                true = incoming.is_closed() => None,
                else => None,
            }
        } else {
            Some(work.await)
        };
        let reply = match result {
            Some(Ok(())) => Reply::Done,
            Some(Err(error)) => error.into(),
            None => return,
        };
        if out.writer.reply(&reply).await.is_err() {
            return;
        }
    }
}
