//! Connections of the HTTP door: so many and no more, and none that only waits.

use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// Connections at once: a client with some parallel fetches for each of some dozen readers, and far from the files that a process may have open.
const CONNECTIONS_MAX: usize = 256;

/// How long a connection may neither give nor take a byte. A client that keeps it open between two polls opens a new one.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// A listener that takes a connection when there is room for it.
#[derive(Debug)]
pub(super) struct Connections {
    listener: TcpListener,
    room: Arc<Semaphore>,
    idle_max: Duration,
}

impl Connections {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self::bounded(listener, CONNECTIONS_MAX, IDLE_MAX)
    }

    fn bounded(listener: TcpListener, connections_max: usize, idle_max: Duration) -> Self {
        Self {
            listener,
            room: Arc::new(Semaphore::new(connections_max)),
            idle_max,
        }
    }
}

impl Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // INVARIANT: the semaphore is never closed; were it, the bound would be lost rather than the door.
        let room = Arc::clone(&self.room).acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let connection = Connection {
            stream,
            idle: Box::pin(sleep(self.idle_max)),
            idle_max: self.idle_max,
            _room: room,
        };
        (connection, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when nothing moves.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    idle: Pin<Box<Sleep>>,
    idle_max: Duration,
    _room: Option<OwnedSemaphorePermit>,
}

impl Connection {
    fn moved<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            let until = Instant::now() + self.idle_max;
            self.idle.as_mut().reset(until);
            return polled;
        }
        match self.idle.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.moved(polled, cx)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.moved(polled, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.moved(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

    use super::*;
    use tokio::io::AsyncReadExt as _;

    #[tokio::test]
    async fn a_silent_connection_ends_and_makes_room() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut door = Connections::bounded(listener, 1, Duration::from_millis(50));
        let _silent = TcpStream::connect(address).await.unwrap();
        let _next = TcpStream::connect(address).await.unwrap();
        let (mut first, _) = door.accept().await;
        let mut accept = Box::pin(door.accept());
        let full = tokio::time::timeout(Duration::from_millis(20), &mut accept);
        assert!(full.await.is_err(), "there was no room");
        let ended = tokio::time::timeout(Duration::from_secs(10), first.read_u8()).await;
        let ended = ended.expect("it ends by itself").unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
        drop(first);
        accept.await;
    }
}
