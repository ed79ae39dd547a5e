use std::sync::Arc;
use std::time::Duration;

use quinn::{AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

/// Packets that the peer is asked to acknowledge together. Every second one, QUIC's custom, costs both sides more than it tells them; a lost packet is
/// still reported at once, and a lone one after the usual delay.
const ACK_EVERY: u32 = 10;

/// Streams that a peer may open before any is in use; [`crate::quic::Connection::grant_streams`] widens it as they are. Each stream that may be opened has its
/// place in two tables of QUIC whether it is open or not: 256 of them take 20 KiB, more than all else that an idle subscription needs.
pub(crate) const STREAMS_AT_FIRST: u32 = 8;

/// What one peer, and all strangers together, can make this process hold or wait for.
///
/// The sums, with the defaults:
/// - a connection of an admitted peer buffers at most `receive_window` + `send_window` = 16 MiB + 16 MiB; a peer at most
///   `connections_per_peer` times that: 128 MiB. Readers add what they have read of the frames in progress: at most
///   twice what arrived, or 512 KiB, for each stream.
/// - strangers: `handshakes_max` × (two buffers of 16 KiB for handshake bytes + about 40 KiB of connection) ≈ 20 MiB,
///   and for those through the handshake but not admitted `stranger_window` each.
/// - datagrams waiting before anybody looked at them: `incoming_max` × about 1.5 KiB + `incoming_bytes` ≈ 1.2 MiB.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct QuicLimits {
    /// Attempts to connect that wait to be taken. Default 128, each about 1.5 KiB. More are refused by QUIC itself.
    pub incoming_max: usize,
    /// Bytes buffered for all waiting attempts together. Default 1 MiB.
    pub incoming_bytes: u64,
    /// Handshakes in progress at a time. Default 256. One core completes about 2,000 handshakes a second, so that 256
    /// slots are 128 ms of work; who comes above it is refused and may try again.
    pub handshakes_max: usize,
    /// Handshakes in progress above which a newcomer must first prove its address (QUIC Retry, one more round trip), so
    /// that spoofed addresses hold no slot. Default 64.
    pub retry_above: usize,
    /// Longest time of a handshake, on either side. Default 10 s. It also bounds one attempt to reach one address.
    pub handshake_time: Duration,
    /// A connection without any sign of the peer ends after this. Default 30 s.
    pub idle_timeout: Duration,
    /// The side that dialed sends a sign of life this often on a quiet connection; the other side's acknowledgement is its own. Default 14 s: two fit into
    /// `idle_timeout`, QUIC repeats a lost one within the second, and middleboxes forget a quiet path after 30 s at the earliest (RFC 9000, 10.1.2). With
    /// ten thousand connections it is most of what they cost: 64 µs each time.
    pub keep_alive: Duration,
    /// Bidirectional streams a peer may have open. Default 256: each subscription is one. They are granted as they are used, 8 at first.
    /// Unidirectional streams and datagrams are not part of the protocol and not granted.
    pub streams_per_connection: u32,
    /// Streams of an accepted connection before [`crate::quic::Connection::admit`]. Default 4: greeting, and a request
    /// or two that may come before the answer to it.
    pub stranger_streams: u32,
    /// Unread bytes of an accepted connection before [`crate::quic::Connection::admit`]. Default 128 KiB: two control frames.
    pub stranger_window: u32,
    /// Unread bytes of one connection. Default 16 MiB: 1 Gbit/s at 130 ms round trip.
    pub receive_window: u32,
    /// Unread bytes of one stream. Default 8 MiB, half of the connection's: one stream that is not read leaves room
    /// for the others.
    pub stream_receive_window: u32,
    /// Bytes written and not yet acknowledged on one connection. Default 16 MiB, as much as the other side may buffer.
    pub send_window: u64,
    /// Accepted connections of all keys together; keys cost nothing, so that the limit for each says little. Default 16,384: about 40 KiB
    /// each when idle, 640 MiB in all.
    pub connections_max: usize,
    /// Accepted connections that one key may hold. Default 4: a node, its replacement while it restarts, and a command. One that
    /// is over holds its place until the work begun on it has ended; a newcomer waits for that, at most `handshake_time`.
    pub connections_per_peer: usize,
    /// Size asked for the send and receive buffers of the UDP socket. Default 4 MiB: 2.4 ms at 14 Gbit/s. The system may give less
    /// (Linux: `net.core.rmem_max`, `net.core.wmem_max`); see [`crate::quic::Endpoint::udp_buffers`].
    pub udp_buffer_bytes: usize,
    /// UDP payload at the start of a connection, before the path is known. Default and least: 1,200 bytes, which every
    /// QUIC path carries. Danger: larger values lose packets where the path is smaller.
    pub mtu_initial: u16,
    /// Largest UDP payload that path discovery tries, and the largest that is accepted. Default 1,452 (Ethernet). Larger
    /// values help only where the path has them: jumbo frames up to about 8,900, loopback up to about 6,000 with
    /// segmentation offload (ten segments must fit in 64 KiB).
    pub mtu_upper_bound: u16,
}

impl Default for QuicLimits {
    fn default() -> Self {
        Self {
            incoming_max: 128,
            incoming_bytes: 1 << 20,
            handshakes_max: 256,
            retry_above: 64,
            handshake_time: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(14),
            streams_per_connection: 256,
            stranger_streams: 4,
            stranger_window: 128 << 10,
            receive_window: 16 << 20,
            stream_receive_window: 8 << 20,
            send_window: 16 << 20,
            connections_max: 16_384,
            connections_per_peer: 4,
            udp_buffer_bytes: 4 << 20,
            mtu_initial: 1_200,
            mtu_upper_bound: 1_452,
        }
    }
}

impl QuicLimits {
    /// The transport of a connection that this side dialed: whom it reaches, it chose.
    pub(crate) fn dialed(&self) -> TransportConfig {
        let mut transport = self.transport();
        transport
            .keep_alive_interval(Some(self.keep_alive.min(self.idle_timeout * 7 / 15)))
            .max_concurrent_bidi_streams(STREAMS_AT_FIRST.min(self.streams_per_connection).into())
            .receive_window(self.receive_window.into());
        transport
    }

    /// The transport of a connection that anybody may have opened; [`crate::quic::Connection::admit`] widens it.
    pub(crate) fn accepted(&self) -> TransportConfig {
        let mut transport = self.transport();
        transport
            .max_concurrent_bidi_streams(self.stranger_streams.into())
            .receive_window(self.stranger_window.into());
        transport
    }

    fn transport(&self) -> TransportConfig {
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(self.mtu_upper_bound.max(self.mtu_initial));
        let mut acks = AckFrequencyConfig::default();
        acks.ack_eliciting_threshold(ACK_EVERY.into());
        let mut transport = TransportConfig::default();
        transport
            .ack_frequency_config(Some(acks))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .max_idle_timeout(Some(idle_timeout(self.idle_timeout)))
            .stream_receive_window(self.stream_receive_window.into())
            .send_window(self.send_window)
            .initial_mtu(self.mtu_initial)
            .mtu_discovery_config(Some(discovery))
            .datagram_receive_buffer_size(None)
            .datagram_send_buffer_size(0)
            // The spin bit shows the round trip time to observers and gives us nothing.
            .allow_spin(false);
        transport
    }

    /// The server's share: what strangers may occupy before anybody looked at them.
    pub(crate) fn apply(&self, server: &mut quinn::ServerConfig) {
        server
            .max_incoming(self.incoming_max)
            .incoming_buffer_size(16 << 10)
            .incoming_buffer_size_total(self.incoming_bytes)
            // Nodes have fixed addresses, and clients reconnect in one round trip and resume by cursor. A path that may change
            // under a connection would let whoever is on the path move it elsewhere, and void limits kept by address.
            .migration(false)
            .transport_config(Arc::new(self.accepted()));
    }
}

/// QUIC counts idle time in milliseconds, in 62 bits; more than that is as good as the largest.
fn idle_timeout(time: Duration) -> IdleTimeout {
    IdleTimeout::try_from(time).unwrap_or(VarInt::MAX.into())
}
