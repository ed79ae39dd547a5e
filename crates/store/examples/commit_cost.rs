//! What a commit costs beside a bare write and fdatasync of the same bytes, in the same run on the same disk.
//!
//! `cargo run --release -p countersign-store --example commit_cost [DIRECTORY]`
#![allow(clippy::print_stdout, reason = "a program for a person")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use countersign_crypto::OsEntropy;
use countersign_store::disk::{Disk, RealDisk, SyncSite};
use countersign_store::journal::{
    Birth, ContentInput, Growth, Journal, LogKind, LogNumber, NotNext, Options, PartInput,
};
use countersign_tlog::{CompactRange, Hash};

const ATTRIBUTE_BYTES: u32 = 150;
const SECONDS: f64 = 1.5;

fn main() -> Result<(), Box<dyn Error>> {
    let base = std::env::args_os()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = base.join(format!("commit-cost-{}", std::process::id()));
    println!(
        "data bytes beside {ATTRIBUTE_BYTES} of attributes; medians over {SECONDS} s each; one log, one part a commit"
    );
    println!(
        "   events x data |   events/s     MB/s |  commit us  raw write+fdatasync us |  CPU part, ns/event"
    );
    for (events, data) in [
        (1, 256),
        (64, 256),
        (512, 256),
        (2048, 256),
        (8192, 256),
        (64, 1024),
        (512, 1024),
        (1024, 1024),
        (64, 16384),
    ] {
        let row = measure(&dir, events, data)?;
        std::fs::remove_dir_all(&dir)?;
        let per_commit = row.commit.as_secs_f64();
        let bytes = row.bytes as f64;
        println!(
            "{events:>8} x {data:>5} | {:>10.0} {:>8.1} | {:>10.1} {:>23.1} | {:>19.0}",
            events as f64 / per_commit,
            bytes / per_commit / 1e6,
            per_commit * 1e6,
            row.raw.as_secs_f64() * 1e6,
            row.cpu.as_secs_f64() * 1e9 / events as f64,
        );
    }
    Ok(())
}

struct Row {
    commit: Duration,
    raw: Duration,
    cpu: Duration,
    bytes: u64,
}

fn measure(dir: &Path, events: u32, data: u32) -> Result<Row, Box<dyn Error>> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let entropy = Box::new(OsEntropy::new()?);
    let mut journal = Journal::create(Arc::clone(&disk), dir, Options::default(), entropy)?;
    let log = journal.open_log(Birth {
        kind: LogKind::Own,
        origin: "example.org/streams/bench".to_owned(),
        settings: Vec::new(),
    })?;
    let raw_file = disk.create_new(&dir.join("raw"))?;
    let raw_len = 64u64 << 20;
    raw_file.write_all_at(&vec![1; usize::try_from(raw_len)?], 0)?;
    raw_file.sync_all(SyncSite::Commit)?;

    let content_bytes = 64 + ATTRIBUTE_BYTES + data;
    let content = Bytes::from(vec![7; (content_bytes * events) as usize]);
    let mut log_state = LogState::new(log);
    let (mut commits, mut raws, mut cpus) = (Vec::new(), Vec::new(), Vec::new());
    let mut raw_at = 0;
    let mut bytes = 0;
    let started = Instant::now();
    while started.elapsed().as_secs_f64() < SECONDS || commits.len() < 5 {
        // As a node does it, on another thread and beside the measured path.
        journal.preparer().prepare_next()?;
        let part = log_state.part(events, data, &content);
        let cpu = thread_time();
        let start = Instant::now();
        bytes = journal.commit(vec![part?])?.bytes_written;
        commits.push(start.elapsed());
        cpus.push(thread_time().saturating_sub(cpu));

        let plain = vec![2; usize::try_from(bytes)?];
        if raw_at + bytes > raw_len {
            raw_at = 0;
        }
        let start = Instant::now();
        raw_file.write_all_at(&plain, raw_at)?;
        raw_file.sync_data(SyncSite::Commit)?;
        raws.push(start.elapsed());
        raw_at += bytes;
    }
    Ok(Row {
        commit: median(commits),
        raw: median(raws),
        cpu: median(cpus),
        bytes,
    })
}

struct LogState {
    log: LogNumber,
    range: CompactRange,
    last_leaf: Hash,
}

impl LogState {
    fn new(log: LogNumber) -> Self {
        Self {
            log,
            range: CompactRange::new(),
            last_leaf: [0; 32],
        }
    }

    /// Entries whose commitments are made up: sealing is not what is measured here.
    fn part(&mut self, events: u32, data: u32, content: &Bytes) -> Result<PartInput, NotNext> {
        let expected_size = self.range.size();
        let mut entries = Vec::with_capacity(events as usize * 118);
        let mut growth = Growth::new(self.range.clone(), self.last_leaf, 0);
        growth.reserve(events as usize);
        for _ in 0..events {
            let start = entries.len();
            entries.extend_from_slice(&[1, 0]);
            entries.extend_from_slice(&data.to_be_bytes());
            entries.extend_from_slice(&growth.size().to_be_bytes());
            entries.extend_from_slice(&growth.last_leaf());
            entries.extend_from_slice(&[0; 72]);
            growth.push(&entries[start..])?;
        }
        self.range = growth.range().clone();
        self.last_leaf = growth.last_leaf();
        let lengths = ContentInput {
            attribute_bytes: ATTRIBUTE_BYTES,
            data_part_bytes: data,
        };
        Ok(PartInput {
            erasures: Vec::new(),
            log: self.log,
            expected_size,
            entries,
            growth,
            signature_before: Some([9; 64]),
            cover: Vec::new(),
            annotation: Vec::new(),
            contents: vec![lengths; events as usize],
            content: vec![content.clone()],
        })
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// User and system time of this process, which has one thread.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}
