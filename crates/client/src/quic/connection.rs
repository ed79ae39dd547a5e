use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign_crypto::PublicKey;
use quinn::ConnectionStats;
use rustls::pki_types::CertificateDer;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

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
    seat: Option<Seat>,
}

impl Connection {
    /// A connection that was dialed.
    pub(crate) fn dialed(
        quinn: quinn::Connection,
        limits: Arc<QuicLimits>,
    ) -> Result<Self, ConnectError> {
        let peer_key = peer_key(&quinn)?;
        Ok(Self::new(quinn, peer_key, limits, None))
    }

    /// A connection that was accepted, once its key has a place.
    pub(crate) async fn accepted(
        quinn: quinn::Connection,
        limits: Arc<QuicLimits>,
        seats: &Seats,
    ) -> Result<Self, ConnectError> {
        let peer_key = peer_key(&quinn)?;
        let limit = limits.connections_per_peer;
        let seat = timeout(limits.handshake_time, seats.take(peer_key, limit)).await;
        let Ok(Some(seat)) = seat else {
            quinn.close(CLOSE_TOO_MANY.into(), b"too many connections of this key");
            let key = peer_key.fingerprint();
            return Err(ConnectError::TooManyConnections { key, limit });
        };
        Ok(Self::new(quinn, peer_key, limits, Some(seat)))
    }

    fn new(
        quinn: quinn::Connection,
        peer_key: PublicKey,
        limits: Arc<QuicLimits>,
        seat: Option<Seat>,
    ) -> Self {
        Self(Arc::new(Inner {
            quinn,
            peer_key,
            limits,
            streams_granted: Mutex::new(0),
            seat,
        }))
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
        let accepted = self.0.quinn.accept_bi().await;
        let (send, receive) = accepted.map_err(|reason| {
            if let Some(seat) = &self.0.seat {
                seat.leaving();
            }
            ConnectionEnded(reason)
        })?;
        Ok((FrameWriter::new(send), FrameReader::new(receive)))
    }

    /// Closes the connection at once, with an error code of the protocol and a reason that the peer may show; unsent frames are
    /// lost. To keep them, wait for [`FrameWriter::stopped`] first.
    pub fn close(&self, code: u32, reason: &str) {
        self.0.quinn.close(code.into(), reason.as_bytes());
    }

    /// As [`Connection::close`], and waits until that has left this machine, at most 100 ms: for a process that ends next. Otherwise the peer
    /// would keep the connection, and its place among those of this key, until its idle timeout.
    pub async fn end(&self, code: u32, reason: &str) {
        let is_over = self.0.quinn.close_reason().is_some();
        let sent = self.0.quinn.stats().udp_tx.datagrams;
        self.close(code, reason);
        if is_over {
            return;
        }
        let leaving = async {
            // The library says of a close only that it was decided.
            while self.0.quinn.stats().udp_tx.datagrams == sent {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let _ = timeout(CLOSING, leaving).await;
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

/// How long a close may take to leave.
const CLOSING: Duration = Duration::from_millis(100);

/// The application error code of a connection above [`QuicLimits::connections_per_peer`].
const CLOSE_TOO_MANY: u32 = 2;

/// An IPv4 address as such, not in its IPv6 clothes.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn peer_key(connection: &quinn::Connection) -> Result<PublicKey, ConnectError> {
    let shown = connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
    match shown.as_deref().map(Vec::as_slice) {
        Some([spki]) => PublicKey::from_spki_der(spki).ok(),
        _ => None,
    }
    .ok_or_else(|| ConnectError::NoPeerKey {
        address: canonical(connection.remote_address()),
    })
}

/// The accepted connections of each key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seats(Arc<SeatsInner>);

#[derive(Debug, Default)]
struct SeatsInner {
    held: Mutex<HashMap<PublicKey, Held>>,
    /// Somebody left.
    left: Notify,
}

#[derive(Clone, Copy, Debug, Default)]
struct Held {
    seats: usize,
    /// Those of them whose connection is over, while work begun on it (a receipt on its way to the disk) still ends.
    leaving: usize,
}

impl Seats {
    /// A place for one more connection of `key`. Where it holds `limit` of them, waits for those that are leaving; `None` where none is.
    async fn take(&self, key: PublicKey, limit: usize) -> Option<Seat> {
        loop {
            let left = self.0.left.notified();
            tokio::pin!(left);
            // Registered before the look, so that one who leaves in between is not missed.
            left.as_mut().enable();
            {
                let mut all = self.lock();
                let held = all.get(&key).copied().unwrap_or_default();
                if held.seats < limit {
                    all.entry(key).or_default().seats += 1;
                    return Some(Seat {
                        seats: self.clone(),
                        key,
                        leaving: AtomicBool::new(false),
                    });
                }
                if held.leaving == 0 {
                    return None;
                }
            }
            left.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PublicKey, Held>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Seat {
    seats: Seats,
    key: PublicKey,
    leaving: AtomicBool,
}

impl Seat {
    /// The connection is over; the seat follows with the last handle.
    fn leaving(&self) {
        if !self.leaving.swap(true, Ordering::Relaxed)
            && let Some(held) = self.seats.lock().get_mut(&self.key)
        {
            held.leaving = held.leaving.saturating_add(1);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut all = self.seats.lock();
        if let Entry::Occupied(mut entry) = all.entry(self.key) {
            let held = entry.get_mut();
            held.seats = held.seats.saturating_sub(1);
            let left = usize::from(self.leaving.load(Ordering::Relaxed));
            held.leaving = held.leaving.saturating_sub(left);
            // A key without connections is forgotten, or strangers would fill the map.
            if held.seats == 0 {
                entry.remove();
            }
        }
        drop(all);
        self.seats.0.left.notify_waiters();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use countersign_crypto::SigningKey;

    use super::*;

    #[tokio::test]
    async fn a_key_without_connections_leaves_nothing_behind() {
        let seats = Seats::default();
        let key = SigningKey::from_seed(&[1; 32]).public();
        let first = seats.take(key, 2).await.unwrap();
        let second = seats.take(key, 2).await.unwrap();
        assert!(seats.take(key, 2).await.is_none());
        drop(first);
        assert_eq!(seats.lock().get(&key).unwrap().seats, 1);
        drop(second);
        assert!(seats.lock().is_empty());
    }

    #[tokio::test]
    async fn who_comes_while_another_leaves_gets_its_place() {
        let seats = Seats::default();
        let key = SigningKey::from_seed(&[1; 32]).public();
        let first = seats.take(key, 1).await.unwrap();
        assert!(seats.take(key, 1).await.is_none());
        first.leaving();
        first.leaving();
        let next = {
            let next = seats.take(key, 1);
            tokio::pin!(next);
            let waits = tokio::select! {
                biased;
                _ = &mut next => false,
                () = std::future::ready(()) => true,
            };
            assert!(waits, "the place is still held");
            drop(first);
            next.await.unwrap()
        };
        assert!(
            seats.take(key, 1).await.is_none(),
            "nobody is leaving any more"
        );
        drop(next);
        assert!(seats.lock().is_empty());
    }
}
