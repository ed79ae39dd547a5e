use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_crypto::PublicKey;
use quinn::ConnectionStats;
use rustls::pki_types::CertificateDer;

use super::limits::STREAMS_AT_FIRST;
use super::{ConnectError, ConnectionEnded, FrameReader, FrameWriter, QuicLimits};

/// A connection with a peer that proved its key. Clones are handles to the same connection; it closes when the last handle and
/// the last stream are dropped, or by [`Connection::close`].
#[derive(Clone, Debug)]
pub struct Connection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    quinn: quinn::Connection,
    peer_key: PublicKey,
    limits: Arc<QuicLimits>,
    /// Streams that the peer may have open, as far as [`Connection::grant_streams`] has said.
    streams_granted: Mutex<u32>,
    /// The place among the connections of this key; given back when the last handle is dropped.
    _seat: Option<Seat>,
}

impl Connection {
    pub(crate) fn new(
        quinn: quinn::Connection,
        limits: Arc<QuicLimits>,
        seats: Option<&Seats>,
    ) -> Result<Self, ConnectError> {
        let peer_key = peer_key(&quinn).ok_or_else(|| ConnectError::NoPeerKey {
            address: canonical(quinn.remote_address()),
        })?;
        let limit = limits.connections_per_peer;
        let seat = match seats.map(|seats| seats.take(peer_key, limit)) {
            Some(None) => {
                quinn.close(CLOSE_TOO_MANY.into(), b"too many connections of this key");
                let key = peer_key.fingerprint();
                return Err(ConnectError::TooManyConnections { key, limit });
            }
            Some(Some(seat)) => Some(seat),
            None => None,
        };
        Ok(Self(Arc::new(Inner {
            quinn,
            peer_key,
            limits,
            streams_granted: Mutex::new(0),
            _seat: seat,
        })))
    }

    /// The key whose private half the peer proved to hold in this handshake.
    #[must_use]
    pub fn peer_key(&self) -> PublicKey {
        self.0.peer_key
    }

    /// 32 bytes that only the two ends of this very handshake can compute (RFC 8446, 7.5): what is proven over them cannot be
    /// relayed from another connection.
    ///
    /// `label` names the use and is at most 200 bytes.
    #[must_use]
    pub fn tls_exporter(&self, label: &'static str, context: &[u8]) -> [u8; 32] {
        let mut out = [0; 32];
        #[expect(
            clippy::expect_used,
            reason = "fails only for outputs above 255 digests, or before the handshake is done"
        )]
        self.0
            .quinn
            .export_keying_material(&mut out, label.as_bytes(), context)
            .expect("the handshake is done");
        out
    }

    /// Lifts an accepted connection from a stranger's limits ([`QuicLimits::stranger_window`],
    /// [`QuicLimits::stranger_streams`]) to a peer's. Call it once the key is known to belong to a partner or application; without it a
    /// connection stays slow. Dialed connections need no call.
    pub fn admit(&self) {
        self.grant_streams(0);
        let limits = &self.0.limits;
        self.0
            .quinn
            .set_receive_window(limits.receive_window.into());
    }

    /// Lets the peer open more streams where `open` of its streams are in use: about twice as many, up to
    /// [`QuicLimits::streams_per_connection`]. Whoever serves them calls it with each stream that is accepted.
    pub fn grant_streams(&self, open: usize) {
        let limit = self.0.limits.streams_per_connection;
        let open = u32::try_from(open).unwrap_or(limit);
        let wanted = STREAMS_AT_FIRST.max(open.saturating_mul(2));
        let wanted = wanted
            .checked_next_power_of_two()
            .unwrap_or(limit)
            .min(limit);
        let mut granted = self
            .0
            .streams_granted
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *granted < wanted {
            *granted = wanted;
            self.0.quinn.set_max_concurrent_bi_streams(wanted.into());
        }
    }

    /// Opens a stream; waits while the peer grants none. The peer learns of it by the first frame written.
    ///
    /// # Errors
    /// Why the connection ended.
    pub async fn open_bi(&self) -> Result<(FrameWriter, FrameReader), ConnectionEnded> {
        let (send, receive) = self.0.quinn.open_bi().await.map_err(ConnectionEnded)?;
        Ok((FrameWriter::new(send), FrameReader::new(receive)))
    }

    /// The next stream that the peer opens. Cancel-safe.
    ///
    /// # Errors
    /// Why the connection ended.
    pub async fn accept_bi(&self) -> Result<(FrameWriter, FrameReader), ConnectionEnded> {
        let (send, receive) = self.0.quinn.accept_bi().await.map_err(ConnectionEnded)?;
        Ok((FrameWriter::new(send), FrameReader::new(receive)))
    }

    /// Closes the connection at once, with an error code of the protocol and a reason that the peer may show; unsent frames are
    /// lost. To keep them, wait for [`FrameWriter::stopped`] first.
    pub fn close(&self, code: u32, reason: &str) {
        self.0.quinn.close(code.into(), reason.as_bytes());
    }

    /// Waits for the end of the connection, and says why it came.
    pub async fn closed(&self) -> ConnectionEnded {
        ConnectionEnded(self.0.quinn.closed().await)
    }

    /// Why the connection ended, if it has.
    #[must_use]
    pub fn close_reason(&self) -> Option<ConnectionEnded> {
        self.0.quinn.close_reason().map(ConnectionEnded)
    }

    /// The present estimate of the round trip time.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.0.quinn.rtt()
    }

    /// Where the peer is. An IPv4 address is given as such, also on a socket that carries both.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        canonical(self.0.quinn.remote_address())
    }

    /// Counters of datagrams, frames, losses; `path.current_mtu` is the UDP payload in use.
    #[must_use]
    pub fn stats(&self) -> ConnectionStats {
        self.0.quinn.stats()
    }

    /// A number that tells the connections of one process apart.
    #[must_use]
    pub fn stable_id(&self) -> usize {
        self.0.quinn.stable_id()
    }
}

/// The application error code of a connection above [`QuicLimits::connections_per_peer`].
const CLOSE_TOO_MANY: u32 = 2;

/// An IPv4 address as such, not in its IPv6 clothes.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn peer_key(connection: &quinn::Connection) -> Option<PublicKey> {
    let identity = connection
        .peer_identity()?
        .downcast::<Vec<CertificateDer<'static>>>()
        .ok()?;
    match identity.as_slice() {
        [spki] => PublicKey::from_spki_der(spki).ok(),
        _ => None,
    }
}

/// How many accepted connections each key holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seats(Arc<Mutex<HashMap<PublicKey, usize>>>);

impl Seats {
    /// A place for one more connection of `key`, unless it holds `limit` of them.
    fn take(&self, key: PublicKey, limit: usize) -> Option<Seat> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = held.get(&key).copied().unwrap_or(0);
        if now >= limit {
            return None;
        }
        held.insert(key, now.saturating_add(1));
        Some(Seat {
            seats: self.clone(),
            key,
        })
    }
}

#[derive(Debug)]
struct Seat {
    seats: Seats,
    key: PublicKey,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut held = self.seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = held.entry(self.key) {
            *entry.get_mut() = entry.get().saturating_sub(1);
            // A key without connections is forgotten, or strangers would fill the map.
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use countersign_crypto::SigningKey;

    use super::*;

    #[test]
    fn a_key_without_connections_leaves_nothing_behind() {
        let seats = Seats::default();
        let key = SigningKey::from_seed(&[1; 32]).public();
        let (first, second) = (seats.take(key, 2).unwrap(), seats.take(key, 2).unwrap());
        assert!(seats.take(key, 2).is_none());
        drop(first);
        assert_eq!(seats.0.lock().unwrap().get(&key), Some(&1));
        drop(second);
        assert!(seats.0.lock().unwrap().is_empty());
    }
}
