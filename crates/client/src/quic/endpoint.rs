use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use countersign_crypto::SigningKey;
use quinn::{ConnectionError, EndpointConfig, TokioRuntime, TransportErrorCode};
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::connection::{Seats, canonical};
use super::tls::client_config_with_fault;
use super::{ConnectError, Connection, QuicLimits, SERVER_NAME, ServerPin, server_config};

/// Addresses of one name that are tried; a name with more is a mistake or an attack on somebody else.
const ADDRESSES_MAX: usize = 8;

/// Head start of each address of a name before the next one is tried beside it.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// Whether an endpoint takes connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Accepting {
    /// It only dials; datagrams that would open a connection are ignored.
    No,
    /// It dials, and takes connections through [`Endpoint::accept`].
    Yes,
}

/// One UDP socket, the connections over it, and the key that speaks for this side on all of them.
#[derive(Clone, Debug)]
pub struct Endpoint {
    quinn: quinn::Endpoint,
    key: Arc<RwLock<SigningKey>>,
    limits: Arc<QuicLimits>,
    seats: Seats,
    handshakes: Arc<Semaphore>,
    refused: Arc<AtomicU64>,
    udp_buffers: (usize, usize),
    ipv6: bool,
    accepting: Accepting,
}

impl Endpoint {
    /// Binds the UDP socket at `local` (port 0: one that is free). Needs a running Tokio runtime.
    ///
    /// # Errors
    /// [`ConnectError::Bind`].
    pub fn bind(
        local: SocketAddr,
        key: SigningKey,
        limits: QuicLimits,
        accepting: Accepting,
    ) -> Result<Self, ConnectError> {
        let failed = |source| ConnectError::Bind {
            address: local,
            source,
        };
        let server = match accepting {
            Accepting::No => None,
            Accepting::Yes => Some(server_config(&key, &limits)),
        };
        let (socket, udp_buffers) = socket(local, limits.udp_buffer_bytes).map_err(failed)?;
        let mut config = match accepting {
            Accepting::No => EndpointConfig::default(),
            Accepting::Yes => recognizing(&key),
        };
        let datagram = limits.mtu_upper_bound.max(limits.mtu_initial).max(1_472);
        config
            .max_udp_payload_size(datagram)
            .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let quinn =
            quinn::Endpoint::new(config, server, socket, Arc::new(TokioRuntime)).map_err(failed)?;
        Ok(Self {
            quinn,
            key: Arc::new(RwLock::new(key)),
            handshakes: Arc::new(Semaphore::new(limits.handshakes_max)),
            limits: Arc::new(limits),
            seats: Seats::default(),
            refused: Arc::default(),
            udp_buffers,
            ipv6: local.is_ipv6(),
            accepting,
        })
    }

    /// An endpoint that only dials, over IPv6 and IPv4 where the system has both.
    ///
    /// # Errors
    /// [`ConnectError::Bind`].
    pub fn dialer(key: SigningKey, limits: QuicLimits) -> Result<Self, ConnectError> {
        let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        Self::bind(both, key.clone(), limits.clone(), Accepting::No).or_else(|_| {
            let ipv4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
            Self::bind(ipv4, key, limits, Accepting::No)
        })
    }

    /// Connects to `address` (`HOST:PORT`). Each address of the name gets a head start before the next is tried beside it, and
    /// [`QuicLimits::handshake_time`]; the first that completes the handshake wins.
    ///
    /// A success means that the peer proved its key. The peer's verdict on *our* key comes one round trip later: where it
    /// refuses it, streams fail, and nothing was handed to its application.
    ///
    /// # Errors
    /// All of [`ConnectError`] but `Bind` and `TooManyConnections`. Of several addresses the most telling error is given: one about
    /// the peer's key, otherwise the last.
    pub async fn connect(&self, address: &str, pin: ServerPin) -> Result<Connection, ConnectError> {
        let mut attempts = JoinSet::new();
        let mut head_start = Duration::ZERO;
        for target in self.resolve(address).await? {
            let endpoint = self.clone();
            attempts.spawn(async move {
                sleep(head_start).await;
                endpoint.dial(target, pin).await
            });
            head_start = head_start.saturating_add(NEXT_ADDRESS_AFTER);
        }
        let mut failure = None;
        while let Some(attempt) = attempts.join_next().await {
            match attempt {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) if !matches!(failure, Some(ConnectError::PeerKey { .. })) => {
                    failure = Some(error);
                }
                // A second opinion after one about the key; an attempt that was torn down with the runtime.
                Ok(Err(_)) | Err(_) => {}
            }
        }
        Err(failure.unwrap_or_else(|| ConnectError::NoAddress {
            address: address.to_owned(),
        }))
    }

    /// The next attempt to connect, or `None` once the endpoint is closed. Waits for ever under [`Accepting::No`].
    ///
    /// Above [`QuicLimits::retry_above`] handshakes in progress newcomers have to prove their address first, above
    /// [`QuicLimits::handshakes_max`] or with [`QuicLimits::connections_max`] open they
    /// are refused; none of these is returned here. Cancel-safe.
    pub async fn accept(&self) -> Option<Incoming> {
        loop {
            let incoming = self.quinn.accept().await?;
            let free = self.handshakes.available_permits();
            let busy = self.limits.handshakes_max.saturating_sub(free);
            if busy > self.limits.retry_above && incoming.may_retry() {
                // An attempt that cannot be retried is dropped with the error, which refuses it.
                let _ = incoming.retry();
                continue;
            }
            if self.open_connections() >= self.limits.connections_max {
                incoming.refuse();
                self.refused.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            match Arc::clone(&self.handshakes).try_acquire_owned() {
                Ok(slot) => {
                    return Some(Incoming {
                        quinn: incoming,
                        limits: Arc::clone(&self.limits),
                        seats: self.seats.clone(),
                        _slot: slot,
                    });
                }
                Err(_) => {
                    incoming.refuse();
                    self.refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Another key speaks for this side on connections that begin from now on; those that are open stay.
    pub fn use_key(&self, key: SigningKey) {
        if self.accepting == Accepting::Yes {
            let config = server_config(&key, &self.limits);
            self.quinn.set_server_config(Some(config));
        }
        *self.key.write().unwrap_or_else(PoisonError::into_inner) = key;
    }

    /// The address of the socket, with the port that the system chose.
    ///
    /// # Errors
    /// What the system said.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.quinn.local_addr()
    }

    /// Connections that are open or closing, handshakes in progress included.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.quinn.open_connections()
    }

    /// Attempts refused because too many handshakes were in progress.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Receive and send buffer of the UDP socket, in bytes as the system reports them (Linux reports twice what it
    /// grants). Small ones cost throughput and, under a burst of handshakes, lose datagrams.
    #[must_use]
    pub fn udp_buffers(&self) -> (usize, usize) {
        self.udp_buffers
    }

    /// Closes all connections at once and takes no more.
    pub fn close(&self, code: u32, reason: &str) {
        self.quinn.close(code.into(), reason.as_bytes());
    }

    /// Waits until all connections are gone, so that peers have learnt of it.
    pub async fn wait_idle(&self) {
        self.quinn.wait_idle().await;
    }

    async fn resolve(&self, address: &str) -> Result<Vec<SocketAddr>, ConnectError> {
        let found =
            tokio::net::lookup_host(address)
                .await
                .map_err(|source| ConnectError::Resolve {
                    address: address.to_owned(),
                    source,
                })?;
        Ok(found
            .filter(|target| self.ipv6 || target.is_ipv4())
            .take(ADDRESSES_MAX)
            .collect())
    }

    async fn dial(&self, address: SocketAddr, pin: ServerPin) -> Result<Connection, ConnectError> {
        let limit = self.limits.handshake_time;
        let (config, fault) = {
            let key = self.key.read().unwrap_or_else(PoisonError::into_inner);
            client_config_with_fault(&key, pin, &self.limits)
        };
        let connecting = self
            .quinn
            .connect_with(config, address, SERVER_NAME)
            .map_err(|source| ConnectError::Dial { address, source })?;
        match timeout(limit, connecting).await {
            Err(_) => Err(ConnectError::TimedOut { address, limit }),
            Ok(Ok(connection)) => Connection::dialed(connection, Arc::clone(&self.limits)),
            Ok(Err(source)) => Err(match fault.get() {
                Some(fault) => ConnectError::PeerKey {
                    address,
                    fault: fault.clone(),
                },
                None => handshake_error(address, source),
            }),
        }
    }
}

/// A peer that wants to connect. Dropping it refuses it.
#[derive(Debug)]
pub struct Incoming {
    quinn: quinn::Incoming,
    limits: Arc<QuicLimits>,
    seats: Seats,
    /// The place among the handshakes in progress.
    _slot: OwnedSemaphorePermit,
}

impl Incoming {
    /// Where the peer claims to be.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        canonical(self.quinn.remote_address())
    }

    /// Whether the peer has shown that it receives at this address.
    #[must_use]
    pub fn address_validated(&self) -> bool {
        self.quinn.remote_address_validated()
    }

    /// Does the handshake, in at most [`QuicLimits::handshake_time`]. Run it in a task of its own: the peer decides how long
    /// it takes. The connection has a stranger's limits until [`Connection::admit`].
    ///
    /// # Errors
    /// [`ConnectError::Handshake`], [`ConnectError::TimedOut`], [`ConnectError::TooManyConnections`].
    pub async fn handshake(self) -> Result<Connection, ConnectError> {
        let address = self.remote_address();
        let limit = self.limits.handshake_time;
        let connecting = self
            .quinn
            .accept()
            .map_err(|source| ConnectError::Handshake { address, source })?;
        match timeout(limit, connecting).await {
            Err(_) => Err(ConnectError::TimedOut { address, limit }),
            Ok(Err(source)) => Err(handshake_error(address, source)),
            Ok(Ok(connection)) => Connection::accepted(connection, self.limits, &self.seats).await,
        }
    }

    /// Refuses the peer without a handshake.
    pub fn refuse(self) {
        self.quinn.refuse();
    }
}

/// An acceptor that was killed and started again knows the connections of its former life by their identifiers, and tells their peers at once that they are over
/// (stateless reset, RFC 9000, 10.3); else they would find out by idle timeout. What only dials has keys of the process: two endpoints with the same would
/// give an observer the token that ends the other's connections (RFC 9000, 21.11).
fn recognizing(key: &SigningKey) -> EndpointConfig {
    let reset = key.derive("quic stateless reset");
    let [a, b, c, d, e, f, g, h, ..] = *key.derive("quic connection ids");
    let ids = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &*reset)));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config
}

fn handshake_error(address: SocketAddr, source: ConnectionError) -> ConnectError {
    match source {
        ConnectionError::ConnectionClosed(close)
            if close.error_code == TransportErrorCode::CONNECTION_REFUSED =>
        {
            ConnectError::Refused { address }
        }
        source => ConnectError::Handshake { address, source },
    }
}

/// A bound socket, and the sizes of its receive and send buffer.
fn socket(local: SocketAddr, buffer: usize) -> io::Result<(std::net::UdpSocket, (usize, usize))> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    if local.is_ipv6() {
        // Without it the socket reaches IPv6 only, which is worse but works.
        let _ = socket.set_only_v6(false);
    }
    // The system may grant less, or nothing; what it granted is read back.
    let _ = socket.set_recv_buffer_size(buffer);
    let _ = socket.set_send_buffer_size(buffer);
    socket.bind(&local.into())?;
    let sizes = (
        socket.recv_buffer_size().unwrap_or(0),
        socket.send_buffer_size().unwrap_or(0),
    );
    if sizes.0 < buffer {
        tracing::debug!(
            wanted = buffer,
            receive = sizes.0,
            send = sizes.1,
            "the system grants smaller UDP buffers; raise net.core.rmem_max and net.core.wmem_max for throughput"
        );
    }
    Ok((socket.into(), sizes))
}
