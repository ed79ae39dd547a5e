//! Bulk throughput of one stream over loopback: a writer and a reader, each with a thread and a socket of its own.
//!
//! ```text
//! cargo run --release -p countersign-client --example quic_bulk -- [MTU] [FRAME_BYTES] [SECONDS]
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement may panic and prints its result"
)]

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use countersign_client::quic::{Accepting, Endpoint, QuicLimits, ServerPin};
use countersign_crypto::SigningKey;
use tokio::runtime::{Builder, Runtime};

/// Largest frame that may be asked for.
const FRAME_BYTES_MAX: usize = 4 << 20;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse().unwrap());
    let mtu: u64 = arguments.next().unwrap_or(1_452);
    let frame_bytes = usize::try_from(arguments.next().unwrap_or(256 << 10)).unwrap();
    let seconds = Duration::from_secs(arguments.next().unwrap_or(3));
    let limits = QuicLimits {
        mtu_upper_bound: u16::try_from(mtu).unwrap(),
        ..QuicLimits::default()
    };

    let (ready, address) = mpsc::channel();
    let reader_limits = limits.clone();
    let reader = thread::spawn(move || {
        runtime().block_on(async {
            let key = SigningKey::from_seed(&[1; 32]);
            let local = "127.0.0.1:0".parse().unwrap();
            let endpoint = Endpoint::bind(local, key, reader_limits, Accepting::Yes).unwrap();
            ready.send(endpoint.local_addr().unwrap()).unwrap();
            let connection = endpoint.accept().await.unwrap();
            let connection = connection.handshake().await.unwrap();
            connection.admit();
            let (_, mut frames) = connection.accept_bi().await.unwrap();
            let (mut bytes, mut count) = (0_u64, 0_u64);
            let start = Instant::now();
            while let Some(frame) = frames
                .next(1 << 16, FRAME_BYTES_MAX, |_| true)
                .await
                .unwrap()
            {
                bytes += frame.body.len() as u64;
                count += 1;
            }
            let took = start.elapsed().as_secs_f64();
            connection.close(0, "done");
            endpoint.wait_idle().await;
            (bytes, count, took, endpoint.udp_buffers())
        })
    });

    let address = address.recv().unwrap();
    let stats = runtime().block_on(async {
        let endpoint = Endpoint::dialer(SigningKey::from_seed(&[2; 32]), limits).unwrap();
        let connection = endpoint
            .connect(&address.to_string(), ServerPin::Any)
            .await
            .unwrap();
        let (mut frames, _reader) = connection.open_bi().await.unwrap();
        let body = Bytes::from(vec![7; frame_bytes]);
        let start = Instant::now();
        while start.elapsed() < seconds {
            for _ in 0..16 {
                if frame_bytes < 4_096 {
                    frames.write(12, &body).await.unwrap();
                } else {
                    frames.write_chunks(12, vec![body.clone()]).await.unwrap();
                }
            }
        }
        frames.finish().unwrap();
        connection.closed().await;
        connection.stats()
    });

    let (bytes, count, took, buffers) = reader.join().unwrap();
    println!(
        "{:.0} MB/s, {:.0} frames/s of {frame_bytes} bytes; MTU {}, round trip {:?}, lost packets {} of {}, datagrams per \
         send {:.1}, UDP buffers {buffers:?}",
        bytes as f64 / took / 1e6,
        count as f64 / took,
        stats.path.current_mtu,
        stats.path.rtt,
        stats.path.lost_packets,
        stats.path.sent_packets,
        stats.udp_tx.datagrams as f64 / stats.udp_tx.ios as f64,
    );
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}
