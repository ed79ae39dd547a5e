//! Connections and frames over loopback, with honest peers and hostile ones.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

#[path = "quic/hostile.rs"]
mod hostile;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use countersign_client::quic::{
    Accepting, ConnectError, Connection, Endpoint, FrameError, FrameReader, FrameWriter,
    PeerKeyFault, QuicLimits, RawFrame, ServerPin, client_config,
};
use countersign_crypto::{KeyError, PublicKey, SigningKey};
use hostile::{Hostile, identity_point};
use proptest::prelude::*;
use tokio::runtime::Runtime;

const CONTROL_MAX: usize = 64 << 10;
const BULK_MAX: usize = 2 << 20;

fn is_bulk(kind: u8) -> bool {
    kind == 22
}

async fn next(frames: &mut FrameReader) -> Result<Option<RawFrame>, FrameError> {
    frames.next(CONTROL_MAX, BULK_MAX, is_bulk).await
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

/// Key 1 is the acceptor's, key 2 the dialer's.
struct Pair {
    acceptor: Endpoint,
    dialer: Endpoint,
    address: String,
}

fn pair(limits: &QuicLimits) -> Pair {
    let local = "127.0.0.1:0".parse().unwrap();
    let acceptor = Endpoint::bind(local, key(1), limits.clone(), Accepting::Yes).unwrap();
    let dialer = Endpoint::bind(local, key(2), limits.clone(), Accepting::No).unwrap();
    let address = acceptor.local_addr().unwrap().to_string();
    Pair {
        acceptor,
        dialer,
        address,
    }
}

impl Pair {
    fn socket_address(&self) -> SocketAddr {
        self.address.parse().unwrap()
    }

    /// Both ends of a connection dialed under `pin`.
    async fn meet(
        &self,
        pin: ServerPin,
    ) -> (
        Result<Connection, ConnectError>,
        Result<Connection, ConnectError>,
    ) {
        tokio::join!(self.dialer.connect(&self.address, pin), self.accept_one())
    }

    async fn accept_one(&self) -> Result<Connection, ConnectError> {
        self.acceptor.accept().await.unwrap().handshake().await
    }

    async fn connected(&self) -> (Connection, Connection) {
        let (dialed, accepted) = self.meet(ServerPin::Any).await;
        (dialed.unwrap(), accepted.unwrap())
    }

    /// A stream whose dialing end takes raw bytes, and the reader at the accepting end.
    async fn raw_stream(&self) -> RawStream {
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let config = client_config(&key(2), ServerPin::Any, &QuicLimits::default());
        let connecting = endpoint
            .connect_with(config, self.socket_address(), "name")
            .unwrap();
        let (connection, accepted) = tokio::join!(connecting, self.accept_one());
        let (connection, accepted) = (connection.unwrap(), accepted.unwrap());
        accepted.admit();
        let (mut bytes, _receive) = connection.open_bi().await.unwrap();
        // The acceptor hears of a stream by its first byte: a whole empty frame, taken out again.
        bytes.write_all(&[0, 0, 0, 1, 9]).await.unwrap();
        let (_, mut frames) = accepted.accept_bi().await.unwrap();
        assert_eq!(next(&mut frames).await.unwrap().unwrap().kind, 9);
        RawStream {
            bytes,
            frames,
            _held: (endpoint, connection, accepted),
        }
    }
}

struct RawStream {
    bytes: quinn::SendStream,
    frames: FrameReader,
    _held: (quinn::Endpoint, quinn::Connection, Connection),
}

/// Both ends of a stream with frames.
async fn stream(dialed: &Connection, accepted: &Connection) -> (FrameWriter, FrameReader) {
    let (mut writer, _) = dialed.open_bi().await.unwrap();
    writer.write(9, b"").await.unwrap();
    let (_, mut reader) = accepted.accept_bi().await.unwrap();
    assert_eq!(next(&mut reader).await.unwrap().unwrap().kind, 9);
    (writer, reader)
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 1).unwrap();
    [&length.to_be_bytes()[..], &[kind], body].concat()
}

#[tokio::test]
async fn each_end_learns_the_key_of_the_other() {
    let pair = pair(&QuicLimits::default());
    let (dialed, accepted) = pair.meet(ServerPin::Key(key(1).public())).await;
    let (dialed, accepted) = (dialed.unwrap(), accepted.unwrap());
    assert_eq!(dialed.peer_key(), key(1).public());
    assert_eq!(accepted.peer_key(), key(2).public());
    assert_eq!(dialed.remote_address(), pair.socket_address());
    assert_eq!(accepted.remote_address(), pair.dialer.local_addr().unwrap());
}

#[tokio::test]
async fn a_wrong_pin_ends_the_handshake_on_both_sides() {
    let pair = pair(&QuicLimits::default());
    let (dialed, accepted) = pair.meet(ServerPin::Key(key(3).public())).await;
    let Err(ConnectError::PeerKey { fault, .. }) = dialed else {
        panic!("the dialer accepted the key");
    };
    let expected = PeerKeyFault::NotPinned {
        pinned: key(3).public().fingerprint(),
        presented: key(1).public().fingerprint(),
    };
    assert_eq!(fault, expected);
    assert!(matches!(accepted, Err(ConnectError::Handshake { .. })));
}

#[tokio::test]
async fn the_exporter_is_equal_at_both_ends_and_nowhere_else() {
    let pair = pair(&QuicLimits::default());
    let (dialed, accepted) = pair.connected().await;
    let (other, _other) = pair.connected().await;
    let secret = dialed.tls_exporter("label", b"context");
    assert_eq!(secret, accepted.tls_exporter("label", b"context"));
    assert_ne!(secret, dialed.tls_exporter("label", b"other"));
    assert_ne!(secret, dialed.tls_exporter("other", b"context"));
    assert_ne!(secret, other.tls_exporter("label", b"context"));
}

/// Dials our acceptor as `hostile` and gives what the acceptor made of it.
async fn accepted_from(hostile: Hostile) -> Result<PublicKey, String> {
    let pair = pair(&QuicLimits::default());
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connecting = endpoint
        .connect_with(hostile.client(), pair.socket_address(), "name")
        .unwrap();
    let (_, accepted) = tokio::join!(connecting, pair.accept_one());
    accepted
        .map(|connection| connection.peer_key())
        .map_err(|error| error.to_string())
}

/// Lets `hostile` accept our dialer and gives what the dialer made of it.
async fn dialed_to(hostile: Hostile) -> Result<Connection, ConnectError> {
    let local = "127.0.0.1:0".parse().unwrap();
    let acceptor = quinn::Endpoint::server(hostile.server(), local).unwrap();
    let address = acceptor.local_addr().unwrap().to_string();
    let accepting = tokio::spawn(async move { acceptor.accept().await.unwrap().await });
    let dialed = pair(&QuicLimits::default())
        .dialer
        .connect(&address, ServerPin::Any)
        .await;
    accepting.abort();
    dialed
}

#[tokio::test]
async fn the_hostile_peer_is_accepted_where_nothing_is_wrong_with_it() {
    let accepted = accepted_from(Hostile::honest(&key(5))).await;
    assert_eq!(accepted, Ok(key(5).public()));
    let dialed = dialed_to(Hostile::honest(&key(5))).await.unwrap();
    assert_eq!(dialed.peer_key(), key(5).public());
}

/// Under the identity point as key, one fixed signature satisfies the plain Ed25519 equation for every message.
#[tokio::test]
async fn a_weak_key_is_refused_in_the_handshake() {
    let refused = accepted_from(Hostile::weak()).await.unwrap_err();
    assert!(refused.contains("Weak"), "{refused}");
    let Err(ConnectError::PeerKey { fault, .. }) = dialed_to(Hostile::weak()).await else {
        panic!("the dialer accepted a weak key");
    };
    assert_eq!(fault, PeerKeyFault::Key(KeyError::Weak));
    assert_eq!(
        PublicKey::from_bytes(&identity_point()),
        Err(KeyError::Weak)
    );
}

#[tokio::test]
async fn a_key_that_the_peer_does_not_hold_is_refused() {
    let thief = || Hostile::honest(&key(5)).signing_with(&key(6));
    let refused = accepted_from(thief()).await.unwrap_err();
    assert!(refused.contains("BadSignature"), "{refused}");
    let refused = dialed_to(thief()).await.unwrap_err().to_string();
    assert!(refused.contains("BadSignature"), "{refused}");
}

#[tokio::test]
async fn more_than_one_key_is_refused() {
    let many = || Hostile::honest(&key(5)).presenting_twice();
    assert!(accepted_from(many()).await.is_err());
    let Err(ConnectError::PeerKey { fault, .. }) = dialed_to(many()).await else {
        panic!("the dialer accepted two keys");
    };
    assert_eq!(fault, PeerKeyFault::More(1));
}

#[tokio::test]
async fn another_protocol_version_is_refused() {
    let other = || Hostile::honest(&key(5)).speaking(b"countersign/2");
    assert!(accepted_from(other()).await.is_err());
    assert!(dialed_to(other()).await.is_err());
    let none = || Hostile::honest(&key(5)).speaking(b"");
    assert!(accepted_from(none()).await.is_err());
    assert!(dialed_to(none()).await.is_err());
}

#[tokio::test]
async fn a_peer_with_certificates_only_is_refused() {
    assert!(accepted_from(Hostile::x509()).await.is_err());
    assert!(dialed_to(Hostile::x509()).await.is_err());
}

#[tokio::test]
async fn a_dialer_without_a_key_is_refused() {
    let anonymous = Hostile::honest(&key(5)).anonymous();
    assert!(accepted_from(anonymous).await.is_err());
}

#[tokio::test]
async fn frames_of_every_size_up_to_the_limit_arrive_as_sent() {
    let pair = pair(&QuicLimits::default());
    let (dialed, accepted) = pair.connected().await;
    accepted.admit();
    let (mut writer, mut reader) = stream(&dialed, &accepted).await;
    let pattern: Vec<u8> = (0..BULK_MAX).map(|at| (at % 251) as u8).collect();
    let cases = [
        (10, 0),
        (10, 1),
        (10, 4_091),
        (10, CONTROL_MAX),
        (22, 0),
        (22, CONTROL_MAX + 1),
        (22, BULK_MAX),
        (10, 2),
    ];
    let sent = pattern.clone();
    let sending = tokio::spawn(async move {
        for (kind, size) in cases {
            writer.write(kind, &sent[..size]).await.unwrap();
            let body = Bytes::copy_from_slice(&sent[..size]);
            let chunks = vec![body.slice(..size / 3), Bytes::new(), body.slice(size / 3..)];
            writer.write_chunks(kind, chunks).await.unwrap();
        }
        writer.finish().unwrap();
        writer.stopped().await.unwrap()
    });
    for (kind, size) in cases {
        for _ in 0..2 {
            let got = next(&mut reader).await.unwrap().unwrap();
            assert_eq!((got.kind, got.body.len()), (kind, size));
            assert_eq!(got.body, pattern[..size]);
        }
    }
    assert_eq!(next(&mut reader).await, Ok(None));
    assert_eq!(sending.await.unwrap(), None);
}

#[tokio::test]
async fn a_frame_over_the_limit_is_refused_before_its_body_arrives() {
    let cases: [(&[u8], Option<u8>, u64, usize); 5] = [
        (
            &[0xff, 0xff, 0xff, 0xff, 22],
            Some(22),
            0xffff_fffe,
            BULK_MAX,
        ),
        (
            &[0x7f, 0xff, 0xff, 0xff, 10],
            Some(10),
            0x7fff_fffe,
            CONTROL_MAX,
        ),
        // One byte more than each limit.
        (
            &[0, 0x20, 0, 2, 22],
            Some(22),
            BULK_MAX as u64 + 1,
            BULK_MAX,
        ),
        (
            &[0, 1, 0, 2, 10],
            Some(10),
            CONTROL_MAX as u64 + 1,
            CONTROL_MAX,
        ),
        // Above every limit: the kind is not waited for.
        (&[0x80, 0, 0, 0], None, 0x7fff_ffff, BULK_MAX),
    ];
    for (bytes, kind, size, limit) in cases {
        let mut raw = pair(&QuicLimits::default()).raw_stream().await;
        raw.bytes.write_all(bytes).await.unwrap();
        let expected = FrameError::TooLarge {
            kind,
            bytes: size,
            limit: limit as u64,
        };
        assert_eq!(next(&mut raw.frames).await, Err(expected));
        // The peer is told to stop.
        assert_eq!(raw.bytes.stopped().await, Ok(Some(1_u32.into())));
    }
}

#[tokio::test]
async fn a_frame_without_a_kind_is_refused() {
    let mut raw = pair(&QuicLimits::default()).raw_stream().await;
    raw.bytes.write_all(&[0, 0, 0, 0]).await.unwrap();
    assert_eq!(next(&mut raw.frames).await, Err(FrameError::Empty));
}

#[tokio::test]
async fn an_end_within_a_frame_is_not_a_clean_end() {
    let whole = frame(10, b"body");
    for cut in 1..whole.len() {
        let mut raw = pair(&QuicLimits::default()).raw_stream().await;
        raw.bytes.write_all(&whole).await.unwrap();
        raw.bytes.write_all(&whole[..cut]).await.unwrap();
        raw.bytes.finish().unwrap();
        let first = next(&mut raw.frames).await.unwrap().unwrap();
        assert_eq!(first.body, &b"body"[..]);
        let end = next(&mut raw.frames).await;
        assert_eq!(end, Err(FrameError::Truncated { got: cut }));
    }
}

#[tokio::test]
async fn a_reset_stream_is_an_error_not_an_end() {
    let mut raw = pair(&QuicLimits::default()).raw_stream().await;
    raw.bytes.reset(7_u32.into()).unwrap();
    let reset = quinn::ReadError::Reset(7_u32.into());
    assert_eq!(next(&mut raw.frames).await, Err(FrameError::Read(reset)));
}

#[tokio::test]
async fn many_small_frames_written_byte_by_byte_arrive_as_sent() {
    let mut raw = pair(&QuicLimits::default()).raw_stream().await;
    let mut bytes = raw.bytes;
    let sending = tokio::spawn(async move {
        for number in 0..500_u32 {
            for byte in frame(10, &number.to_be_bytes()) {
                bytes.write_all(&[byte]).await.unwrap();
            }
        }
        bytes.finish().unwrap();
    });
    for number in 0..500_u32 {
        let got = next(&mut raw.frames).await.unwrap().unwrap();
        assert_eq!(got.body, &number.to_be_bytes()[..]);
    }
    assert_eq!(next(&mut raw.frames).await, Ok(None));
    sending.await.unwrap();
}

#[tokio::test]
async fn a_write_that_was_dropped_half_way_lets_no_frame_follow() {
    let pair = pair(&QuicLimits::default());
    let (dialed, accepted) = pair.connected().await;
    let (mut writer, mut reader) = stream(&dialed, &accepted).await;
    // Above a stranger's window, so that the write waits for the reader, which reads only a byte's worth of it here.
    let large = vec![7; 1 << 20];
    tokio::select! {
        biased;
        _ = writer.write(22, &large) => panic!("nobody read, yet all was written"),
        _ = async { accepted.accept_bi().await } => panic!("no such stream"),
        () = until_sent(&dialed, 64 << 10) => {}
    }
    assert_eq!(writer.write(10, b"x").await, Err(FrameError::Interrupted));
    drop(writer);
    let end = next(&mut reader).await;
    assert!(matches!(end, Err(FrameError::Truncated { .. })), "{end:?}");
}

#[tokio::test]
async fn what_the_peer_says_cannot_write_to_a_terminal() {
    let pair = pair(&QuicLimits::default());
    let (dialed, accepted) = pair.connected().await;
    let (_writer, mut reader) = stream(&dialed, &accepted).await;
    dialed.close(7, "\x1b[2Jgone\nall is well");
    let ended = accepted.closed().await;
    assert_eq!(ended.peer_code(), Some(7));
    let broken = next(&mut reader).await.unwrap_err();
    for text in [ended.to_string(), broken.to_string()] {
        assert!(text.contains("gone"), "{text}");
        assert!(!text.contains(char::is_control), "{text:?}");
    }
}

/// Returns when `connection` has sent `bytes` in datagrams.
async fn until_sent(connection: &Connection, bytes: u64) {
    while connection.stats().udp_tx.bytes < bytes {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_stranger_has_few_streams_until_it_is_admitted() {
    let pair = pair(&QuicLimits::default());
    let (dialed, accepted) = pair.connected().await;
    let mut held = Vec::new();
    for _ in 0..QuicLimits::default().stranger_streams {
        held.push(stream(&dialed, &accepted).await);
    }
    tokio::select! {
        biased;
        _ = dialed.open_bi() => panic!("a stranger opened one more"),
        () = async {
            held[0].0.write(10, b"").await.unwrap();
            next(&mut held[0].1).await.unwrap();
        } => {}
    }
    accepted.admit();
    dialed.open_bi().await.unwrap();
}

#[tokio::test]
async fn an_admitted_peer_is_granted_more_streams_as_it_uses_them() {
    let limits = QuicLimits {
        streams_per_connection: 20,
        ..QuicLimits::default()
    };
    let pair = pair(&limits);
    let (dialed, accepted) = pair.connected().await;
    accepted.admit();
    let mut held = Vec::new();
    for open in 1..=20 {
        held.push(stream(&dialed, &accepted).await);
        accepted.grant_streams(open);
    }
    accepted.grant_streams(1_000);
    tokio::select! {
        biased;
        _ = dialed.open_bi() => panic!("more streams than the limit"),
        () = async {
            held[0].0.write(10, b"").await.unwrap();
            next(&mut held[0].1).await.unwrap();
        } => {}
    }
}

#[test]
fn a_killed_acceptor_ends_its_old_connections_when_it_runs_again() {
    let bind = |runtime: &Runtime, local: SocketAddr, seed, accepting| {
        let _inside = runtime.enter();
        Endpoint::bind(local, key(seed), QuicLimits::default(), accepting).unwrap()
    };
    let free = "127.0.0.1:0".parse().unwrap();
    let (first, peer) = (Runtime::new().unwrap(), Runtime::new().unwrap());
    let acceptor = bind(&first, free, 1, Accepting::Yes);
    let local = acceptor.local_addr().unwrap();
    let dialer = bind(&peer, free, 2, Accepting::No);
    let accepting = acceptor.clone();
    let accepted =
        first.spawn(async move { accepting.accept().await.unwrap().handshake().await.unwrap() });
    let address = local.to_string();
    let dialed = peer
        .block_on(dialer.connect(&address, ServerPin::Any))
        .unwrap();
    let accepted = first.block_on(accepted).unwrap();
    // As a kill: whatever would say goodbye is gone first.
    drop(first);
    drop((accepted, acceptor));
    let second = Runtime::new().unwrap();
    let _again = bind(&second, local, 1, Accepting::Yes);
    let ended = peer.block_on(async {
        let (mut writer, _replies) = dialed.open_bi().await.unwrap();
        writer.write(10, b"still there?").await.unwrap();
        dialed.closed().await
    });
    assert_eq!(ended.0, quinn::ConnectionError::Reset);
}

#[tokio::test]
async fn a_handshake_that_stalls_is_dropped_in_time() {
    let limits = QuicLimits {
        handshake_time: Duration::from_millis(300),
        ..QuicLimits::default()
    };
    let pair = pair(&limits);
    // A relay that carries the dialer's first datagram and nothing else.
    let relay = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let relay_address = relay.local_addr().unwrap().to_string();
    let relaying = async {
        let mut datagram = vec![0; 2_048];
        let size = relay.recv(&mut datagram).await.unwrap();
        relay
            .send_to(&datagram[..size], pair.socket_address())
            .await
            .unwrap();
    };
    let start = Instant::now();
    let (dialed, accepted, ()) = tokio::join!(
        pair.dialer.connect(&relay_address, ServerPin::Any),
        pair.accept_one(),
        relaying,
    );
    assert!(matches!(dialed, Err(ConnectError::TimedOut { .. })));
    assert!(matches!(accepted, Err(ConnectError::TimedOut { .. })));
    assert!(start.elapsed() < Duration::from_secs(5));
    pair.acceptor.wait_idle().await;
    assert_eq!(pair.acceptor.open_connections(), 0);
}

#[tokio::test]
async fn handshakes_above_the_limit_are_refused() {
    let limits = QuicLimits {
        handshakes_max: 1,
        ..QuicLimits::default()
    };
    let pair = pair(&limits);
    let first = tokio::spawn({
        let (dialer, address) = (pair.dialer.clone(), pair.address.clone());
        async move { dialer.connect(&address, ServerPin::Any).await }
    });
    let waiting = pair.acceptor.accept().await.unwrap();
    tokio::select! {
        second = pair.dialer.connect(&pair.address, ServerPin::Any) => {
            assert!(matches!(second, Err(ConnectError::Refused { .. })), "{second:?}");
        }
        _ = pair.acceptor.accept() => panic!("more handshakes than allowed"),
    }
    assert_eq!(pair.acceptor.refused(), 1);
    waiting.handshake().await.unwrap();
    first.await.unwrap().unwrap();
    // The slot is free again.
    pair.connected().await;
}

#[tokio::test]
async fn under_load_a_newcomer_proves_its_address_first() {
    let limits = QuicLimits {
        retry_above: 0,
        ..QuicLimits::default()
    };
    let pair = pair(&limits);
    let dial = || {
        let (dialer, address) = (pair.dialer.clone(), pair.address.clone());
        tokio::spawn(async move { dialer.connect(&address, ServerPin::Any).await })
    };
    let _first = dial();
    let first = pair.acceptor.accept().await.unwrap();
    assert!(!first.address_validated());
    let second_dial = dial();
    let second = pair.acceptor.accept().await.unwrap();
    assert!(second.address_validated());
    second.handshake().await.unwrap();
    second_dial.await.unwrap().unwrap();
}

#[tokio::test]
async fn one_key_holds_only_so_many_connections() {
    let limits = QuicLimits {
        connections_per_peer: 1,
        ..QuicLimits::default()
    };
    let pair = pair(&limits);
    let (_dialed, accepted) = pair.connected().await;
    let (second, refused) = pair.meet(ServerPin::Any).await;
    let refused = refused.unwrap_err();
    assert!(
        matches!(refused, ConnectError::TooManyConnections { limit: 1, .. }),
        "{refused}"
    );
    let reason = second.unwrap().closed().await;
    assert_eq!(reason.peer_code(), Some(2));
    drop(accepted);
    pair.connected().await;
}

#[tokio::test]
async fn a_connection_gets_the_place_of_one_whose_work_still_ends() {
    let limits = QuicLimits {
        connections_per_peer: 1,
        ..QuicLimits::default()
    };
    let pair = pair(&limits);
    let (dialed, accepted) = pair.connected().await;
    let at_work = accepted.clone();
    dialed.end(0, "done").await;
    assert!(accepted.accept_bi().await.is_err());
    let acceptor = pair.acceptor.clone();
    let comes = tokio::spawn(async move { acceptor.accept().await.unwrap().handshake().await });
    let second = pair.dialer.connect(&pair.address, ServerPin::Any).await;
    let second = second.unwrap();
    // The acceptor has done the handshake, and then has some turns to say what it thinks of it.
    while second.stats().frame_rx.handshake_done == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!comes.is_finished(), "the place is still held");
    drop((accepted, at_work));
    comes.await.unwrap().unwrap();
}

#[test]
fn a_process_that_ends_right_after_its_connection_is_not_missed() {
    let serving = Runtime::new().unwrap();
    let (acceptor, address) = serving.block_on(async {
        let pair = pair(&QuicLimits::default());
        (pair.acceptor, pair.address)
    });
    let accepted = serving.spawn(async move {
        let incoming = acceptor.accept().await.unwrap();
        incoming.handshake().await.unwrap().closed().await
    });
    // One thread only: what it does not do before it goes, nobody does.
    let process = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    process.block_on(async {
        let dialer = Endpoint::dialer(key(2), QuicLimits::default()).unwrap();
        let connection = dialer.connect(&address, ServerPin::Any).await.unwrap();
        connection.end(7, "done").await;
    });
    process.shutdown_background();
    let reason = serving.block_on(accepted).unwrap();
    assert_eq!(reason.peer_code(), Some(7));
}

#[tokio::test]
async fn names_are_looked_up_and_bad_ones_explained() {
    let pair = pair(&QuicLimits::default());
    let port = pair.socket_address().port();
    let dialer = Endpoint::dialer(key(2), QuicLimits::default()).unwrap();
    let name = format!("localhost:{port}");
    let (dialed, accepted) = tokio::join!(
        dialer.connect(&name, ServerPin::Key(key(1).public())),
        pair.accept_one()
    );
    dialed.unwrap();
    accepted.unwrap();

    let no_port = pair.dialer.connect("localhost", ServerPin::Any).await;
    assert!(matches!(no_port, Err(ConnectError::Resolve { .. })));
    let no_family = pair.dialer.connect("[::1]:1", ServerPin::Any).await;
    assert!(matches!(no_family, Err(ConnectError::NoAddress { .. })));
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let pair = pair(&QuicLimits::default());
    let taken = pair.socket_address();
    let error = Endpoint::bind(taken, key(3), QuicLimits::default(), Accepting::Yes).unwrap_err();
    assert!(error.to_string().contains(&pair.address), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However the bytes are cut on the way, the same frames come out, and a cut-off end is told from a clean one.
    #[test]
    fn frames_do_not_depend_on_how_their_bytes_are_cut(
        frames in prop::collection::vec((any::<u8>(), 0_usize..20_000), 0..12),
        cuts in prop::collection::vec(1_usize..9_000, 1..8),
        missing in 0_usize..6,
    ) {
        let frames: Vec<(u8, Vec<u8>)> = frames
            .into_iter()
            .map(|(kind, size)| (kind, (0..size).map(|at| (at * 7) as u8 ^ kind).collect()))
            .collect();
        let mut bytes: Vec<u8> = frames.iter().flat_map(|(kind, body)| frame(*kind, body)).collect();
        bytes.truncate(bytes.len().saturating_sub(missing));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut raw = pair(&QuicLimits::default()).raw_stream().await;
            let sent = bytes.clone();
            let mut stream = raw.bytes;
            let sending = tokio::spawn(async move {
                let (mut rest, mut cuts) = (&sent[..], cuts.iter().cycle());
                while !rest.is_empty() {
                    let (piece, more) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                    stream.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                    rest = more;
                }
                stream.finish().unwrap();
            });
            let mut received = Vec::new();
            let end = loop {
                match next(&mut raw.frames).await {
                    Ok(Some(got)) => received.extend(frame(got.kind, &got.body)),
                    end => break end,
                }
            };
            sending.await.unwrap();
            assert_eq!(received, bytes[..received.len()]);
            match bytes.len() - received.len() {
                0 => assert_eq!(end, Ok(None)),
                got => assert_eq!(end, Err(FrameError::Truncated { got })),
            }
        });
    }
}
