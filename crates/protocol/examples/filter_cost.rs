//! What a filter costs, without storage and network: one evaluation, and a batch of 4,096 events that is put together, rebuilt and verified where all, half or one in a hundred pass.
//! One thread; the median of five runs: `cargo run --release -p countersign-protocol --example filter_cost`.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a program that prints figures and may stop at the first surprise"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use countersign_crypto::{SeededEntropy, SigningKey};
use countersign_event::attributes::{AttributesBuilder, Value};
use countersign_event::commitment::Salts;
use countersign_event::content::{Event, Limits, seal};
use countersign_event::data::DataPart;
use countersign_event::documents::{AgreementId, Digest, Document as _, SkipClaim};
use countersign_event::entry::Kind;
use countersign_event::names::Authority;
use countersign_event::time::Timestamp;
use countersign_filter::Filter;
use countersign_protocol::SignedHead;
use countersign_protocol::delivery::{
    BatchMessage, Cover, Lengths, LogReader, write_descriptors_with,
};
use countersign_tlog::checkpoint::signature_of;
use countersign_tlog::{Checkpoint, CompactRange, leaf_hash};

const ORIGIN: &str = "a.example/streams/orders";
const EVENTS: usize = 4096;
const DATA_BYTES: usize = 1024;
const RUNS: usize = 5;
const RUN_TIME: Duration = Duration::from_millis(400);

struct Log {
    entries: Vec<u8>,
    lengths: Vec<Lengths>,
    contents: Vec<Vec<u8>>,
    head: SignedHead,
}

fn main() {
    let log = log();
    let attributes: Vec<&[u8]> = log
        .contents
        .iter()
        .zip(&log.lengths)
        .map(|(content, lengths)| &content[64..64 + lengths.attribute_bytes as usize])
        .collect();
    println!("| filter | one evaluation, ns |");
    println!("|---|---|");
    for text in [
        "partition < 50",
        "type = 'org.example.order.created'",
        "type LIKE 'org.example.%.created'",
        "subject IN ('a', 'b', 'customer-17') OR (EXISTS dataschema AND partition % 2 = 0)",
        "LENGTH(UPPER(CONCAT(source, '/', subject))) > 20",
    ] {
        let filter = Filter::from_expression(text).expect("a filter");
        let each = median(|| {
            for attributes in &attributes {
                black_box(filter.matches(black_box(attributes)));
            }
        });
        println!("| `{text}` | {:.0} |", each * 1e9 / EVENTS as f64);
    }
    println!();
    println!("| passes | bytes of the batch | events/s put together | events/s verified |");
    println!("|---|---|---|---|");
    measure("no filter", &log, None);
    for (name, text) in [
        ("all", "partition < 100"),
        ("half", "partition < 50"),
        ("1 %", "partition < 1"),
    ] {
        let filter = Filter::from_expression(text).expect("a filter");
        measure(name, &log, Some(&Arc::new(filter)));
    }
}

fn measure(name: &str, log: &Log, filter: Option<&Arc<Filter>>) {
    let key = SigningKey::from_seed(&[2; 32]);
    let (message, bulk) = batch(log, filter, &key);
    let make = median(|| {
        black_box(batch(log, filter, &key));
    });
    let reader = LogReader::from_start(ORIGIN, SigningKey::from_seed(&[1; 32]).public())
        .with_filter(filter.cloned());
    let take = median(|| {
        let mut reader = reader.clone();
        black_box(reader.take(message.clone(), bulk.clone()).expect("a batch"));
    });
    let rate = |seconds: f64| EVENTS as f64 / seconds;
    // Without a filter a producer copies nothing: it sends what the journal holds.
    let made = filter.map_or_else(|| "-".to_owned(), |_| format!("{:.0}", rate(make)));
    println!("| {name} | {} | {made} | {:.0} |", bulk.len(), rate(take));
}

/// Puts a batch together as a producer does: evaluates, writes descriptors, gathers contents, signs a claim.
fn batch(log: &Log, filter: Option<&Arc<Filter>>, key: &SigningKey) -> (BatchMessage, Bytes) {
    let mut lengths = log.lengths.clone();
    let mut pieces = vec![Vec::new()];
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for ((at, content), lengths) in (0..).zip(&log.contents).zip(&mut lengths) {
        let attributes = &content[64..64 + lengths.attribute_bytes as usize];
        if filter.is_some_and(|filter| !filter.matches(attributes)) {
            *lengths = Lengths::SKIPPED;
            match runs.last_mut() {
                Some((_, end)) if *end == at => *end += 1,
                _ => runs.push((at, at + 1)),
            }
        } else {
            pieces.push(content.clone());
        }
    }
    pieces[0] = write_descriptors_with(&log.entries, &lengths, |sequence| sequence);
    if let Some(filter) = filter.filter(|_| !runs.is_empty()) {
        let claim = SkipClaim {
            agreement: AgreementId([7; 16]),
            stream: ORIGIN.parse().expect("an origin"),
            consumer: Authority::of_key(&key.public()),
            filter: Digest(filter.digest()),
            from: 0,
            size: EVENTS as u64,
            root: Digest(log.head.root),
            skipped: runs.iter().map(|(first, end)| end - first).sum(),
            runs: SkipClaim::digest_of(&runs),
            made: Timestamp(1),
        };
        black_box(claim.sign(key));
    }
    let message = BatchMessage {
        first: 0,
        count: EVENTS as u32,
        descriptor_bytes: pieces[0].len() as u32,
        cover: Cover::Checkpoint {
            head: log.head.clone(),
            consistency: Vec::new(),
        },
    };
    (message, pieces.concat().into())
}

fn log() -> Log {
    let mut range = CompactRange::new();
    let (mut entries, mut lengths, mut contents) = (Vec::new(), Vec::new(), Vec::new());
    let mut prev = [0; 32];
    for sequence in 0..EVENTS as u64 {
        let (id, subject) = (sequence.to_string(), format!("customer-{}", sequence % 40));
        let attributes = AttributesBuilder::new(
            &id,
            "https://orders.example/eu",
            "org.example.order.created",
        )
        .with("datacontenttype", Value::String("application/json"))
        .with("partition", Value::Integer((sequence % 100) as i32))
        .with("subject", Value::String(&subject))
        .with("time", Value::Timestamp("2026-11-22T00:00:00Z"))
        .build()
        .expect("attributes");
        let mut part = Vec::new();
        DataPart::text(&"x".repeat(DATA_BYTES))
            .encode(&mut part)
            .expect("data");
        let event = Event::check(attributes, part, &Limits::default()).expect("an event");
        let event = event.as_ref();
        let salts = Salts::draw(&mut SeededEntropy::new(sequence));
        let entry = seal(&event, &salts)
            .entry(Kind::Event, sequence, prev, Timestamp(1_000_000 + sequence))
            .encode();
        prev = leaf_hash(&entry);
        range.append(prev);
        entries.extend_from_slice(&entry);
        lengths.push(Lengths {
            attribute_bytes: event.attribute_bytes().len() as u32,
            data_part_bytes: event.data_part_bytes().len() as u32,
        });
        let mut content = Vec::new();
        event.write_content(&salts, &mut content);
        contents.push(content);
    }
    let (size, root) = (EVENTS as u64, range.root());
    let checkpoint = Checkpoint {
        origin: ORIGIN.to_owned(),
        size,
        root,
    };
    let signature = signature_of(&checkpoint, &SigningKey::from_seed(&[1; 32]));
    Log {
        entries,
        lengths,
        contents,
        head: SignedHead::new(size, root, signature),
    }
}

/// Seconds of one call, the median of several runs.
fn median(mut what: impl FnMut()) -> f64 {
    let mut runs: Vec<f64> = (0..RUNS)
        .map(|_| {
            let (start, mut calls) = (Instant::now(), 0);
            while start.elapsed() < RUN_TIME {
                what();
                calls += 1;
            }
            start.elapsed().as_secs_f64() / f64::from(calls)
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    runs[RUNS / 2]
}
