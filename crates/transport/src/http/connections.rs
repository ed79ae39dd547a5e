//! Connections of the HTTP door: so many and no more, for each address fewer, and none that only waits or comes to no end with its request.

use std::collections::HashMap;
use std::future::Future as _;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

/// How long it may take from the first byte of a request to the first byte of its answer: whoever sends a byte now and then holds no connection for long.
const REQUEST_MAX: Duration = Duration::from_secs(30);

/// Connections at once from one address, or from one network of IPv6 (64 bits), which is what one customer is given: an eighth of all. This machine itself is
/// not counted: behind a proxy everybody comes from it.
const ADDRESS_CONNECTIONS_MAX: usize = 32;

/// What connections are held to.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    connections_max: usize,
    address_connections_max: usize,
    counts_loopback: bool,
    idle_max: Duration,
    request_max: Duration,
}

/// A listener that takes a connection when there is room for it.
#[derive(Debug)]
pub(super) struct Connections {
    listener: TcpListener,
    room: Arc<Semaphore>,
    addresses: Arc<Addresses>,
    bounds: Bounds,
}

impl Connections {
    pub(super) fn new(listener: TcpListener) -> Self {
        let bounds = Bounds {
            connections_max: CONNECTIONS_MAX,
            address_connections_max: ADDRESS_CONNECTIONS_MAX,
            counts_loopback: false,
            idle_max: IDLE_MAX,
            request_max: REQUEST_MAX,
        };
        Self::bounded(listener, bounds)
    }

    fn bounded(listener: TcpListener, bounds: Bounds) -> Self {
        Self {
            listener,
            room: Arc::new(Semaphore::new(bounds.connections_max)),
            addresses: Arc::default(),
            bounds,
        }
    }

    /// A place for one more connection from there; `None` where there are enough.
    fn admit(&self, address: IpAddr) -> Option<Admitted> {
        let network = network(address);
        if !self.bounds.counts_loopback && network.is_loopback() {
            return Some(Admitted(None));
        }
        let mut open = self.addresses.open();
        let count = open.entry(network).or_default();
        if *count >= self.bounds.address_connections_max {
            return None;
        }
        *count += 1;
        Some(Admitted(Some((network, Arc::clone(&self.addresses)))))
    }
}

/// How many connections are open from where.
#[derive(Debug, Default)]
struct Addresses(Mutex<HashMap<IpAddr, usize>>);

impl Addresses {
    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is counted for its address until it is dropped.
#[derive(Debug)]
struct Admitted(Option<(IpAddr, Arc<Addresses>)>);

impl Drop for Admitted {
    fn drop(&mut self) {
        let Some((network, addresses)) = &self.0 else {
            return;
        };
        let mut open = addresses.open();
        if let Some(count) = open.get_mut(network) {
            *count -= 1;
            if *count == 0 {
                open.remove(network);
            }
        }
    }
}

/// What is counted as one address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let network = u128::from(v6) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        other => other,
    }
}

impl Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // INVARIANT: the semaphore is never closed; were it, the bound would be lost rather than the door.
        let room = Arc::clone(&self.room).acquire_owned().await.ok();
        loop {
            let (stream, address) = Listener::accept(&mut self.listener).await;
            let Some(admitted) = self.admit(address.ip()) else {
                tracing::debug!(%address, "one more connection from an address that has enough is closed");
                continue;
            };
            let now = Instant::now();
            let connection = Connection {
                stream,
                ends: Box::pin(sleep(self.bounds.idle_max.min(self.bounds.request_max))),
                request_until: Some(now + self.bounds.request_max),
                bounds: self.bounds,
                _admitted: admitted,
                _room: room,
            };
            return (connection, address);
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when nothing moves, or when its request takes too long.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    ends: Pin<Box<Sleep>>,
    /// By when the request that is being read has to be answered; none between an answer and the next request.
    request_until: Option<Instant>,
    bounds: Bounds,
    _admitted: Admitted,
    _room: Option<OwnedSemaphorePermit>,
}

impl Connection {
    /// Where nothing could be done, it may be time to end; else there is time again.
    fn moved<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            let idle_until = Instant::now() + self.bounds.idle_max;
            let until = self
                .request_until
                .map_or(idle_until, |until| until.min(idle_until));
            self.ends.as_mut().reset(until);
            return polled;
        }
        match self.ends.as_mut().poll(cx) {
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
        if polled.is_ready() && self.request_until.is_none() {
            self.request_until = Some(Instant::now() + self.bounds.request_max);
        }
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
        if polled.is_ready() {
            // It is being answered.
            self.request_until = None;
        }
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
        if polled.is_ready() {
            // It is being answered.
            self.request_until = None;
        }
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::timeout;

    const LONG: Duration = Duration::from_secs(600);

    async fn door(bounds: Bounds) -> (Connections, SocketAddr) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        (Connections::bounded(listener, bounds), address)
    }

    fn wide() -> Bounds {
        Bounds {
            connections_max: 8,
            address_connections_max: 8,
            counts_loopback: true,
            idle_max: LONG,
            request_max: LONG,
        }
    }

    #[tokio::test]
    async fn a_silent_connection_ends_and_makes_room() {
        let (mut door, address) = door(Bounds {
            connections_max: 1,
            idle_max: Duration::from_millis(50),
            ..wide()
        })
        .await;
        let _silent = TcpStream::connect(address).await.unwrap();
        let _next = TcpStream::connect(address).await.unwrap();
        let (mut first, _) = door.accept().await;
        let mut accept = Box::pin(door.accept());
        let full = timeout(Duration::from_millis(20), &mut accept);
        assert!(full.await.is_err(), "there was no room");
        let ended = timeout(LONG, first.read_u8()).await;
        let ended = ended.expect("it ends by itself").unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
        drop(first);
        accept.await;
    }

    #[tokio::test]
    async fn a_request_that_trickles_ends_though_bytes_come() {
        let (mut door, address) = door(Bounds {
            request_max: Duration::from_millis(300),
            ..wide()
        })
        .await;
        let mut client = TcpStream::connect(address).await.unwrap();
        let (mut served, _) = door.accept().await;
        // A first request is answered, so that the second one begins anew.
        client.write_all(b"a").await.unwrap();
        assert_eq!(served.read_u8().await.unwrap(), b'a');
        served.write_all(b"b").await.unwrap();
        assert_eq!(
            served.request_until, None,
            "nothing is due between requests"
        );
        let trickle = tokio::spawn(async move {
            while client.write_all(b"x").await.is_ok() {
                sleep(Duration::from_millis(5)).await;
            }
        });
        let ended = loop {
            match served.read_u8().await {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
        drop(served);
        trickle.await.unwrap();
    }

    #[tokio::test]
    async fn one_address_has_so_many_connections_and_gets_them_back() {
        let (mut door, address) = door(Bounds {
            address_connections_max: 2,
            ..wide()
        })
        .await;
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(TcpStream::connect(address).await.unwrap());
        }
        let (first, _) = door.accept().await;
        let (second, _) = door.accept().await;
        let mut accept = Box::pin(door.accept());
        let mut refused = clients.pop().unwrap();
        // It is closed as soon as it is looked at; nobody is let in for it.
        let closed = async { refused.read(&mut [0]).await.map_or(0, |n| n) };
        tokio::select! {
            _ = &mut accept => panic!("a third one was let in"),
            read = closed => assert_eq!(read, 0),
        }
        drop(first);
        let _again = TcpStream::connect(address).await.unwrap();
        let (third, _) = accept.await;
        drop((second, third));
        assert!(
            door.addresses.open().is_empty(),
            "nothing is kept of who is gone"
        );
    }

    #[tokio::test]
    async fn addresses_of_one_network_are_one_and_this_machine_is_not_counted() {
        let same = ["2001:db8::1", "2001:db8::ffff:1"].map(|text| network(text.parse().unwrap()));
        assert_eq!(same[0], same[1]);
        assert_ne!(same[0], network("2001:db8:0:1::1".parse().unwrap()));
        let mapped = network("::ffff:192.0.2.7".parse().unwrap());
        assert_eq!(mapped, "192.0.2.7".parse::<IpAddr>().unwrap());
        let (door, _) = door(Bounds {
            address_connections_max: 0,
            counts_loopback: false,
            ..wide()
        })
        .await;
        for here in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(door.admit(here.parse().unwrap()).is_some(), "{here}");
        }
        assert!(door.admit("192.0.2.7".parse().unwrap()).is_none());
    }
}
