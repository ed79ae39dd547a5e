//! What one event costs in this format, without storage, network or signatures: the bare loop behind
//! `docs/benchmarks.md`. One thread; the median of five runs; run it with `--release`.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a program that prints figures and may stop at the first surprise"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use countersign_crypto::{Hash, OsEntropy, sha256, sha256_headed};
use countersign_event::attributes::{AttributesBuilder, Value};
use countersign_event::commitment::Salts;
use countersign_event::content::{Event, EventRef, Limits, open_content, seal};
use countersign_event::data::DataPart;
use countersign_event::entry::{ENTRY_BYTES, Kind, leaf_hash};
use countersign_event::time::Timestamp;

const RUNS: usize = 5;
const RUN_TIME: Duration = Duration::from_millis(400);

fn main() {
    println!(
        "| data | attributes | check | salts | commit | entry, leaf, node | **seal, in all** | **receive, in all** | SHA-256 of as many bytes |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let sizes = [256, 1024, 16384];
    for size in sizes {
        let event = event(size);
        let times = times(&event);
        println!(
            "| {size} | {} | {:.0} | {:.0} | {:.0} | {:.0} | **{:.0}** | **{:.0}** | {:.0} |",
            event.attribute_bytes().len(),
            times.check,
            times.salts,
            times.commit,
            times.entry,
            times.seal,
            times.receive,
            times.plain,
        );
    }
    println!();
    println!(
        "| data | content | entry as it is | with it | fields that cannot be rebuilt | with them | saved |"
    );
    println!("|---|---|---|---|---|---|---|");
    for size in sizes {
        let content = event(size).as_ref().content_len();
        let (full, rebuilt) = (ENTRY_BYTES + FRAME_BYTES, REBUILT_BYTES);
        let saved = 100.0 * (full - rebuilt) as f64 / (content + full) as f64;
        println!(
            "| {size} | {content} | {full} | {} | {rebuilt} | {} | {saved:.1} % |",
            content + full,
            content + rebuilt,
        );
    }
}

/// Beside an entry: length of the attributes (u16) and of the data part (u32).
const FRAME_BYTES: usize = 6;

/// Kind and flags (1), time as a difference to the entry before (3 as a varint, up to two seconds), length of the
/// attributes (2) and of the data part (3) as varints. Version, sequence, `prev`, data length and both commitments follow
/// from the content, from the position in the batch and from the entry before.
const REBUILT_BYTES: usize = 1 + 3 + 2 + 3;

/// Five attributes of 150 bytes as names and values, `specversion` beside them.
fn event(data_bytes: usize) -> Event {
    let attributes = AttributesBuilder::new(
        "0198f1c2-7c1e-7a43-9d55-3f0f5f1c8a77",
        "https://sensors.example.org/plants/7/line/2",
        "org.example.sensor.reading.v1",
    )
    .with("datacontenttype", Value::String("application/json"))
    .with("time", Value::Timestamp("2026-01-02T03:04:05.678Z"))
    .build()
    .expect("valid");
    let mut text = String::with_capacity(data_bytes);
    text.push_str("{\"v\":\"");
    text.extend((0..data_bytes - 8).map(|at| char::from(b'a' + (at % 26) as u8)));
    text.push_str("\"}");
    Event::new(attributes, &DataPart::text(&text), &Limits::default()).expect("valid")
}

struct Times {
    check: f64,
    salts: f64,
    commit: f64,
    entry: f64,
    seal: f64,
    receive: f64,
    plain: f64,
}

fn times(event: &Event) -> Times {
    let (attributes, data_part) = (event.attribute_bytes(), event.data_part_bytes());
    let check = || {
        EventRef::check(black_box(attributes), black_box(data_part), &Limits::FORMAT)
            .expect("valid")
    };
    let mut entropy = OsEntropy::new().expect("random bytes");
    let salts = Salts::draw(&mut entropy);
    let checked = check();
    let head = seal(&checked, &salts);
    let mut content = Vec::new();
    checked.write_content(&salts, &mut content);
    let entry = |head: &countersign_event::content::SealedHead, prev: Hash, sequence: u64| {
        let entry = head.entry(
            Kind::Event,
            sequence,
            prev,
            Timestamp(1_767_323_045_000_000),
        );
        let leaf = leaf_hash(&entry.encode());
        // As many interior nodes as leaves come with a tree, less one.
        let mut children = [0; 64];
        children[..32].copy_from_slice(&prev);
        children[32..].copy_from_slice(&leaf);
        (leaf, sha256_headed(&[0x01], &children))
    };

    let (mut chain, mut sequence) = ([7; 32], 1);
    let sealing = nanoseconds(|| {
        let event = check();
        let salts = Salts::draw(&mut entropy);
        let (leaf, node) = entry(&seal(&event, &salts), chain, sequence);
        (chain, sequence) = (leaf, sequence + 1);
        black_box(node);
    });
    let (mut chain, mut sequence) = ([7; 32], 1);
    let receive = nanoseconds(|| {
        let (event, head) = open_content(black_box(&content), attributes.len()).expect("valid");
        let (leaf, node) = entry(&head, chain, sequence);
        (chain, sequence) = (leaf, sequence + 1);
        black_box((event.attributes().id().len(), node));
    });
    let mut entropy = OsEntropy::new().expect("random bytes");
    Times {
        check: nanoseconds(|| {
            black_box(check());
        }),
        salts: nanoseconds(|| {
            black_box(Salts::draw(&mut entropy));
        }),
        commit: nanoseconds(|| {
            black_box(seal(black_box(&checked), black_box(&salts)));
        }),
        entry: nanoseconds(|| {
            black_box(entry(black_box(&head), [7; 32], 1));
        }),
        seal: sealing,
        receive,
        plain: nanoseconds(|| {
            black_box(sha256(black_box(&content)));
        }),
    }
}

/// Core-nanoseconds of one call: the median of the runs.
fn nanoseconds(mut call: impl FnMut()) -> f64 {
    let mut runs: Vec<f64> = (0..RUNS)
        .map(|_| {
            let (start, before, mut calls) = (Instant::now(), on_core(), 0u32);
            while start.elapsed() < RUN_TIME {
                for _ in 0..200 {
                    call();
                }
                calls += 200;
            }
            let spent = match (before, on_core()) {
                (Some(before), Some(after)) => (after - before) as f64,
                _ => start.elapsed().as_nanos() as f64,
            };
            spent / f64::from(calls)
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    runs[RUNS / 2]
}

/// Nanoseconds this thread has had a core, where Linux says so: waiting for a core is no cost of the format.
fn on_core() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok()
}
