//! What offline verification costs beside plain SHA-256 of the same bytes: `cargo run --release --example verify_cost`.
//!
//! Arguments: entries (default 200,000), data bytes of each (default 256).
#![expect(clippy::print_stdout, reason = "a measurement is its output")]
#![expect(clippy::unwrap_used, reason = "a measurement may panic")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use countersign_crypto::{Sha256Stream, sha256};
use countersign_event::entry::Kind;
use support::{World, files, verify};

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter_map(|text| text.parse::<u64>().ok());
    let entries = arguments.next().unwrap_or(200_000);
    let data_bytes = arguments.next().unwrap_or(256);
    let mut world = World::new(2);
    world.ledger = None;
    world.decisions.clear();
    let data = "x".repeat(usize::try_from(data_bytes).unwrap());
    while world.stream.size() < entries {
        world.stream.append(Kind::Event, "org.example.quake", &data);
    }
    (world.size, world.to) = (entries, entries);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bundle");
    let writing = Instant::now();
    world.write(&path);
    let writing = writing.elapsed();

    let trust = world.producer.trust();
    let files: Vec<Vec<u8>> = files(&path)
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect();
    let bytes: usize = files.iter().map(Vec::len).sum();
    let verifying = best(|| assert_eq!(verify(&path, &trust).verdict.exit_code(), 0));
    let hashing = best(|| {
        let mut hasher = Sha256Stream::new();
        files.iter().for_each(|file| hasher.update(file));
        std::hint::black_box(hasher.finish());
    });
    // What the format makes anyone hash: two blocks for a leaf, two for a node, and two commitments with tag and salt.
    let (content, attributes) = world.stream.contents.last().unwrap();
    let parts = [
        119,
        65,
        48 + usize::from(*attributes),
        content.len() - 16 - usize::from(*attributes),
    ];
    let blocks: usize = parts.iter().map(|part| (part + 9).div_ceil(64)).sum();
    let floor = best(|| {
        for _ in 0..entries / 100 {
            for part in parts {
                std::hint::black_box(sha256(&vec![0; part]));
            }
        }
    }) * 100;

    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let rate = |time: Duration| bytes as f64 / 1e6 / time.as_secs_f64();
    println!(
        "bundle            {entries} entries, {} files, {:.1} MB",
        files.len(),
        bytes as f64 / 1e6
    );
    println!("written           {:.0} MB/s", rate(writing));
    println!(
        "verified          {:.0} MB/s on {cores} cores, {:.0} MB/s per core",
        rate(verifying),
        rate(verifying) / cores as f64
    );
    println!("plain SHA-256     {:.0} MB/s on one core", rate(hashing));
    println!(
        "ratio per core    {:.2}",
        rate(verifying) / cores as f64 / rate(hashing)
    );
    println!(
        "least hashing     {blocks} blocks an entry; {:.2} of the verification's core time is this hashing",
        floor.as_secs_f64() / (verifying.as_secs_f64() * cores as f64)
    );
}

/// The shortest of five.
fn best(mut work: impl FnMut()) -> Duration {
    let mut shortest = Duration::MAX;
    for _ in 0..5 {
        let begin = Instant::now();
        work();
        shortest = shortest.min(begin.elapsed());
    }
    shortest
}
