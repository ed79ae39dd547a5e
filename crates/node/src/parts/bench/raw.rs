//! `bench raw`: disk, SHA-256 and QUIC without a node, for the figures of the others to stand beside.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign_crypto::sha256;
use countersign_store::disk::{Disk as _, DiskFile, RealDisk, SyncSite};
use serde_json::{Value, json};

use super::sample::Sample;
use super::verifying::format_hash_inputs;
use super::world::Folder;
use super::{Measurement, copying, megabytes, rounded};
use crate::cli::{BenchRawArgs, Output};
use crate::errors::{CommandError, ErrorCode};

/// The file that is written over in place; larger than any write between two syncs.
const IN_PLACE_BYTES: u64 = 128 << 20;

/// Events hashed between two looks at the clock.
const HASHES_A_LOOK: u64 = 1_000;

pub(super) fn words(args: &BenchRawArgs) -> Measurement {
    Measurement {
        bench: "raw",
        what: "what disk, SHA-256 and QUIC do here by themselves",
        options: json!({
            "data_bytes": args.size,
            "frame_bytes": args.frame_bytes,
            "mtu_max_bytes": args.mtu,
            "seconds_each": args.seconds,
            "disk_is": "write and fdatasync: at the end of a file that grows, and over a file that was written before",
            "hashes_are": "one core; the four that the format asks for (two commitments, leaf, node), and one over as many bytes",
            "quic_is": "one connection, one stream, each end in a process of its own; TLS 1.3",
        }),
    }
}

pub(super) async fn run(
    args: &BenchRawArgs,
    folder: &Folder,
    output: &mut Output,
) -> Result<Value, CommandError> {
    output.note("measuring disk, hashes and QUIC");
    let time = Duration::from_secs(args.seconds);
    let mut disk = Vec::new();
    for sync_bytes in &args.sync_bytes {
        let of_both = || {
            let in_place = write_and_sync(folder.path(), *sync_bytes, Place::Over, time)?;
            let appended = write_and_sync(folder.path(), *sync_bytes, Place::End, time)?;
            Ok::<_, std::io::Error>((appended, in_place))
        };
        let (appended, in_place) = tokio::task::block_in_place(of_both)
            .map_err(|error| CommandError::new(ErrorCode::Io, error))?;
        disk.push(json!({"sync_bytes": sync_bytes, "appended": appended, "in_place": in_place}));
    }
    let inputs = format_hash_inputs(args.size);
    let together = vec![inputs.concat()];
    let (format_ns, plain_ns) =
        tokio::task::block_in_place(|| (hash_ns(&inputs, time), hash_ns(&together, time)));
    Ok(json!({
        "disk": disk,
        "format_hashes_ns_per_event": rounded(format_ns, 1),
        "plain_sha256_ns_per_event": rounded(plain_ns, 1),
        "plain_sha256_mb_per_second": rounded(together[0].len() as f64 * 1e3 / plain_ns.max(f64::MIN_POSITIVE), 0),
        "wire_bytes_per_event": Sample::new(args.size).wire_bytes(),
        "quic": copying::measure(args.mtu, args.frame_bytes, args.seconds).await?,
    }))
}

#[derive(Clone, Copy)]
enum Place {
    End,
    Over,
}

fn write_and_sync(
    folder: &Path,
    bytes: u32,
    place: Place,
    time: Duration,
) -> std::io::Result<Value> {
    let path = folder.join("raw");
    let file: Arc<dyn DiskFile> = RealDisk.create_new(&path)?;
    let body = vec![2; bytes as usize];
    if let Place::Over = place {
        for at in 0..IN_PLACE_BYTES >> 20 {
            file.write_all_at(&[1; 1 << 20], at << 20)?;
        }
        file.sync_all(SyncSite::Commit)?;
    }
    let (mut at, mut syncs) = (0, 0_u64);
    let started = Instant::now();
    while started.elapsed() < time {
        file.write_all_at(&body, at)?;
        file.sync_data(SyncSite::Commit)?;
        syncs += 1;
        at += u64::from(bytes);
        if matches!(place, Place::Over) && at + u64::from(bytes) > IN_PLACE_BYTES {
            at = 0;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    drop(file);
    RealDisk.remove(&path)?;
    Ok(json!({
        "mb_per_second": megabytes(syncs * u64::from(bytes), seconds),
        "us_per_sync": rounded(seconds * 1e6 / syncs.max(1) as f64, 1),
    }))
}

/// Nanoseconds to hash each of `inputs` once.
fn hash_ns(inputs: &[Vec<u8>], time: Duration) -> f64 {
    let started = Instant::now();
    let mut events = 0;
    while started.elapsed() < time {
        for _ in 0..HASHES_A_LOOK {
            for input in inputs {
                std::hint::black_box(sha256(std::hint::black_box(input)));
            }
        }
        events += HASHES_A_LOOK;
    }
    started.elapsed().as_nanos() as f64 / events.max(1) as f64
}
