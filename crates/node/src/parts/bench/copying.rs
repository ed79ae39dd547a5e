//! Bare QUIC: one connection, one stream, each end in a process of its own. What copying bytes costs before anything is checked or stored.

use std::time::Duration;

use bytes::Bytes;
use countersign_client::quic::{Accepting, Endpoint, QuicLimits, ServerPin};
use countersign_crypto::SigningKey;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::counters::Used;
use super::worker::{Stage, Task, Worker};
use super::{megabytes, rounded};
use crate::errors::{CommandError, ErrorCode};

/// Largest frame that may be asked for.
const FRAME_BYTES_MAX: usize = 1 << 20;

/// The kind of a frame here; any will do.
const KIND: u8 = 12;

/// How long it runs before anything is counted.
const WARM_UP: Duration = Duration::from_millis(300);

/// One end.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum CopyTask {
    /// Sends until it is ended.
    Send {
        /// Where the other end is.
        address: String,
        mtu: u16,
        frame_bytes: usize,
    },
    /// Tells its address, then at each question how many bytes came.
    Take { mtu: u16 },
}

pub(super) async fn run(task: CopyTask, stage: &mut Stage<'_>) -> Result<u64, CommandError> {
    match task {
        CopyTask::Send {
            address,
            mtu,
            frame_bytes,
        } => send(&address, mtu, frame_bytes).await,
        CopyTask::Take { mtu } => take(mtu, stage).await,
    }
}

async fn send(address: &str, mtu: u16, frame_bytes: usize) -> Result<u64, CommandError> {
    let endpoint =
        Endpoint::dialer(SigningKey::from_seed(&[2; 32]), limits(mtu)).map_err(failed)?;
    let connection = endpoint
        .connect(address, ServerPin::Any)
        .await
        .map_err(failed)?;
    let (mut frames, _reader) = connection.open_bi().await.map_err(failed)?;
    let body = Bytes::from(vec![7; frame_bytes]);
    loop {
        frames
            .write_chunks(KIND, vec![body.clone()])
            .await
            .map_err(failed)?;
    }
}

async fn take(mtu: u16, stage: &mut Stage<'_>) -> Result<u64, CommandError> {
    let key = SigningKey::from_seed(&[1; 32]);
    let endpoint = Endpoint::bind(([127, 0, 0, 1], 0).into(), key, limits(mtu), Accepting::Yes)
        .map_err(failed)?;
    stage.result(&endpoint.local_addr().map_err(failed)?.to_string())?;
    let incoming = endpoint
        .accept()
        .await
        .ok_or_else(|| failed("the endpoint closed"))?;
    let connection = incoming.handshake().await.map_err(failed)?;
    connection.admit();
    let (_writer, mut frames) = connection.accept_bi().await.map_err(failed)?;
    let mut bytes = 0_u64;
    loop {
        tokio::select! {
            frame = frames.next(1 << 16, FRAME_BYTES_MAX, |_| true) => match frame.map_err(failed)? {
                Some(frame) => bytes += frame.body.len() as u64,
                None => return Ok(bytes),
            },
            () = stage.told() => stage.result(&bytes)?,
        }
    }
}

/// Both ends for so long.
pub(super) async fn measure(
    mtu: u16,
    frame_bytes: u32,
    seconds: u64,
) -> Result<Value, CommandError> {
    let mut taker = Worker::start(&Task::Copy(CopyTask::Take { mtu }))?;
    let address: String = taker.result().await?;
    let mut sender = Worker::start(&Task::Copy(CopyTask::Send {
        address,
        mtu,
        frame_bytes: frame_bytes as usize,
    }))?;
    tokio::time::sleep(WARM_UP).await;
    let pids = [sender.pid(), taker.pid()];
    let before = (Used::of_all(&pids)?, taker.ask::<u64>().await?);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let after = (Used::of_all(&pids)?, taker.ask::<u64>().await?);
    sender.check_running()?;
    let bytes = after.1.saturating_sub(before.1);
    let used: Vec<Used> = after
        .0
        .iter()
        .zip(&before.0)
        .map(|(after, before)| after.since(before))
        .collect();
    let per_byte = |used: &Used| rounded(used.core_ns as f64 / bytes.max(1) as f64, 3);
    let wall = used[0].wall_ns as f64 / 1e9;
    Ok(json!({
        "mb_per_second": megabytes(bytes, wall),
        "sender_core_ns_per_byte": per_byte(&used[0]),
        "receiver_core_ns_per_byte": per_byte(&used[1]),
    }))
}

fn limits(mtu: u16) -> QuicLimits {
    QuicLimits {
        mtu_upper_bound: mtu,
        ..QuicLimits::default()
    }
}

fn failed(error: impl std::fmt::Display) -> CommandError {
    CommandError::new(ErrorCode::Internal, format_args!("copying failed: {error}"))
}
