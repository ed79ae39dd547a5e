//! `bench verify`: evidence is verified by this program in a process of its own, again and again, beside plain SHA-256 of the same bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use countersign_crypto::{Sha256Stream, sha256};
use countersign_event::content::CONTENT_SALT_BYTES;
use countersign_event::entry::ENTRY_BYTES;
use serde_json::{Value, json};

use super::counters::ended_children_core_ns;
use super::publisher::{Pace, PublishTask, Until};
use super::sample::{EVENT_ATTRIBUTES, Sample};
use super::summary::median;
use super::worker::{Task, Worker};
use super::world::{Folder, NodeProcess};
use super::{Measurement, megabytes, rate, rounded};
use crate::cli::{BenchLoad, BenchVerifyArgs, Output};
use crate::errors::{CommandError, ErrorCode};

/// Bytes in front of what one hash of the format takes: the tag of a commitment, and the byte that tells leaves from nodes.
const TAG_BYTES: usize = 16;

pub(super) fn words(args: &BenchVerifyArgs) -> Measurement {
    let sample = Sample::new(args.size);
    Measurement {
        bench: "verify",
        what: "`evidence verify` of one stream, as a process: start, reading, every check, report",
        options: json!({
            "data_bytes": args.size,
            "events": args.events,
            "seconds": args.seconds,
            "attributes": EVENT_ATTRIBUTES,
            "attribute_value_bytes": sample.attribute_value_bytes(),
            "attribute_encoded_bytes": sample.attribute_bytes(),
            "format_hashes_are": "for each event the four hashes that the format asks for: two commitments, leaf, node; nothing else; one core",
        }),
    }
}

pub(super) async fn run(
    args: &BenchVerifyArgs,
    folder: &Folder,
    output: &mut Output,
) -> Result<Value, CommandError> {
    let bundle = folder.path().join("evidence");
    let trust = make_bundle(args, folder, &bundle, output).await?;
    let bytes = read_all(&bundle)?;
    let total: usize = bytes.iter().map(Vec::len).sum();

    let mut verifying = Vec::new();
    let mut hashing = Vec::new();
    let mut pattern = Vec::new();
    let started = Instant::now();
    let core_before = ended_children_core_ns();
    output.note("measuring");
    while verifying.is_empty() || started.elapsed() < Duration::from_secs(args.seconds) {
        verifying.push(verify_once(&bundle, &trust).await?);
        let (once, blocks) =
            tokio::task::block_in_place(|| (hash_once(&bytes), hash_pattern(args)));
        hashing.push(once);
        pattern.push(blocks);
    }
    let times = verifying.len();
    // Ticks of 10 ms: of all times together, not of each.
    let core = ended_children_core_ns().saturating_sub(core_before) as f64 / 1e9 / times as f64;
    let core = core.max(f64::MIN_POSITIVE);
    let (verifying, hashing, pattern) = (median(&verifying), median(&hashing), median(&pattern));
    Ok(json!({
        "events_per_second": rate(u64::from(args.events), verifying),
        "mb_per_second": megabytes(total as u64, verifying),
        "verify_ms": rounded(verifying * 1e3, 1),
        "plain_sha256_ms": rounded(hashing * 1e3, 1),
        "plain_sha256_mb_per_second": megabytes(total as u64, hashing),
        "ratio_to_plain_sha256": rounded(hashing / verifying, 2),
        "format_hashes_ms": rounded(pattern * 1e3, 1),
        "ratio_to_format_hashes": rounded(pattern / verifying, 2),
        "core_ms": rounded(core * 1e3, 1),
        "ratio_to_plain_sha256_per_core": rounded(hashing / core, 2),
        "ratio_to_format_hashes_per_core": rounded(pattern / core, 2),
        "times": times,
        "evidence_bytes": total,
    }))
}

/// Publishes and exports; returns what an auditor is told to trust.
async fn make_bundle(
    args: &BenchVerifyArgs,
    folder: &Folder,
    bundle: &Path,
    output: &mut Output,
) -> Result<String, CommandError> {
    output.note("publishing and exporting what is verified");
    let load = BenchLoad {
        size: args.size,
        ..BenchLoad::default()
    };
    let node = NodeProcess::start(folder, "producer", load.mtu, 1).await?;
    let until = Until::Events(args.events.into());
    let task = PublishTask::new(&load, &node, 1, Pace::Flood, until).await?;
    let mut publisher = Worker::start(&Task::Publish(task))?;
    publisher.result::<Value>().await?;
    node.export("bench-1", bundle).await?;
    Ok(node.fingerprint().to_string())
}

async fn verify_once(bundle: &Path, trust: &str) -> Result<f64, CommandError> {
    let (bundle, trust) = (bundle.to_owned(), trust.to_owned());
    let verified = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["evidence", "verify", "--quiet", "--json", "--trust", &trust])
            .arg(&bundle)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let started = Instant::now();
        let status = command.status()?;
        Ok::<_, std::io::Error>((started.elapsed(), status))
    });
    let internal = |error: &dyn std::fmt::Display| CommandError::new(ErrorCode::Internal, error);
    let (time, status) = verified
        .await
        .map_err(|error| internal(&error))?
        .map_err(|error| CommandError::new(ErrorCode::Io, error))?;
    if !status.success() {
        let message = format!("the evidence made for the measurement does not verify ({status})");
        return Err(CommandError::new(ErrorCode::VerificationFailed, message));
    }
    Ok(time.as_secs_f64())
}

fn hash_once(files: &[Vec<u8>]) -> f64 {
    let started = Instant::now();
    let mut hasher = Sha256Stream::new();
    files.iter().for_each(|file| hasher.update(file));
    std::hint::black_box(hasher.finish());
    started.elapsed().as_secs_f64()
}

/// What the format hashes for one event: two commitments, leaf, node.
pub(super) fn format_hash_inputs(data_bytes: u32) -> Vec<Vec<u8>> {
    let sample = Sample::new(data_bytes);
    let (attributes, data_part) = sample.parts();
    let salted = TAG_BYTES + CONTENT_SALT_BYTES / 2;
    let lengths = [
        salted + attributes.len(),
        salted + data_part.len(),
        1 + ENTRY_BYTES,
        1 + 64,
    ];
    lengths.iter().map(|bytes| vec![7; *bytes]).collect()
}

fn hash_pattern(args: &BenchVerifyArgs) -> f64 {
    let parts = format_hash_inputs(args.size);
    let started = Instant::now();
    for _ in 0..args.events {
        for part in &parts {
            std::hint::black_box(sha256(std::hint::black_box(part)));
        }
    }
    started.elapsed().as_secs_f64()
}

/// All files of the evidence.
fn read_all(folder: &Path) -> Result<Vec<Vec<u8>>, CommandError> {
    let io = |error: std::io::Error| CommandError::new(ErrorCode::Io, error);
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).map_err(io)? {
            let entry = entry.map_err(io)?;
            if entry.file_type().map_err(io)?.is_dir() {
                folders.push(entry.path());
            } else {
                files.push(fs::read(entry.path()).map_err(io)?);
            }
        }
    }
    Ok(files)
}
