//! A fixed piece of work, for counting what one event costs without a clock: `cargo xtask bench --quick` runs it, by itself and under
//! valgrind and strace, and compares with `tests/work-per-event.txt`.
//!
//! ```text
//! work_per_event FOLDER STAGE      does everything up to and including STAGE, in a folder that it makes
//!
//! prepare  keys, events, node, stream, agreement, subscription, evidence bundle: not counted
//! publish  events → batches in the form in which clients hand them in
//! seal     ingest and seal: check, salts, commitments
//! append   the writer: sequence, chain, tree, journal on a real disk, checkpoint
//! deliver  stored entries → batches for a subscriber
//! join     the bytes of each batch in one piece, as a connection hands them on: not counted
//! take     the reader that believes nothing: commitments, entries, tree, signature
//! verify   an evidence bundle, offline
//! ```
//!
//! What can be counted inside is printed for each stage: allocations, hashes, signatures. Tools that count from outside find the stages by
//! [`stage_boundary`] and by the names of the functions of [`Line`]. Seeds, clock and batches are fixed, and everything runs on one core.

#![expect(clippy::print_stdout, reason = "the counts are this program's output")]

#[path = "../../../audit/tests/support/mod.rs"]
mod bundle;
mod node;

use std::alloc::System;
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use countersign_audit::Trust;
use countersign_crypto::{Work, work};
use countersign_event::content::{Event, Limits};
use countersign_event::entry::Kind;
use countersign_exchange::pipeline::deliver::Next;
use countersign_exchange::pipeline::ingest::Drafts;
use countersign_exchange::pipeline::seal::{SealedBatch, seal};
use countersign_protocol::delivery::BatchMessage;
use countersign_protocol::publish::write_event;
use stats_alloc::{INSTRUMENTED_SYSTEM, Stats, StatsAlloc};
use tokio::runtime::{Builder, Runtime};

use node::Node;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

type Failure = Box<dyn Error>;

/// In the order in which they run.
const STAGES: [&str; 8] = [
    "prepare", "publish", "seal", "append", "deliver", "join", "take", "verify",
];

/// Batches, each with a commit of its own.
const BATCHES: usize = 4;
/// Of 256 data bytes each, 120 KiB: just below what the client library sends at once.
const BATCH_EVENTS: usize = 256;
const DATA_BYTES: usize = 256;
/// Entries of the evidence bundle.
const BUNDLE_ENTRIES: u64 = 512;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(folder), Some(last)) = (arguments.next(), arguments.next()) else {
        return Err("usage: work_per_event FOLDER STAGE".into());
    };
    let last = STAGES
        .iter()
        .position(|stage| last == *stage)
        .ok_or("no such stage")?;
    if work().is_none() {
        return Err(
            "built without the feature `count`: hashes and signatures are not counted".into(),
        );
    }
    // How many threads verify, and how threads take turns, must not depend on the machine.
    keep_to_one_core()?;
    let folder = PathBuf::from(folder);
    std::fs::create_dir(&folder)?;
    run(&folder, last)
}

fn keep_to_one_core() -> Result<(), Failure> {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let allowed = sched_getaffinity(None)?;
    let first = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu));
    let mut one = CpuSet::new();
    one.set(first.ok_or("no core is allowed")?);
    Ok(sched_setaffinity(None, &one)?)
}

/// Everything the stages hand on to each other.
struct Line {
    runtime: Runtime,
    node: Node,
    bundle: PathBuf,
    trust: Trust,
    events: Vec<Event>,
    bulks: Vec<Bytes>,
    sealed: Vec<SealedBatch>,
    delivered: Vec<(BatchMessage, Vec<Bytes>)>,
    joined: Vec<(BatchMessage, Bytes)>,
}

fn run(folder: &Path, last: usize) -> Result<(), Failure> {
    let mut line = prepare(folder)?;
    let mut counts = Vec::new();
    for (number, stage) in STAGES.iter().enumerate().take(last + 1).skip(1) {
        stage_boundary(number);
        let before = Counts::now();
        let events = match *stage {
            "publish" => line.publish(),
            "seal" => line.seal()?,
            "append" => line.append()?,
            "deliver" => line.deliver()?,
            "join" => line.join(),
            "take" => line.take()?,
            _ => line.verify()?,
        };
        counts.push(Counted {
            stage,
            events,
            counters: Counts::now().since(&before),
        });
    }
    stage_boundary(last + 1);
    line.runtime.block_on(line.node.exchange.close());
    print!("{}", text(&counts)?);
    Ok(())
}

/// Callgrind writes down what it counted whenever this is called, and strace shows the file that is looked for.
#[inline(never)]
fn stage_boundary(number: usize) {
    let _ = std::fs::metadata(format!("stage_boundary_{number}"));
}

fn prepare(folder: &Path) -> Result<Line, Failure> {
    let runtime = Builder::new_current_thread().enable_time().build()?;
    let mut world = bundle::World::undecided(2);
    // The documents reach as far as the first two entries; beyond them it is entries that count.
    let data = "x".repeat(DATA_BYTES);
    while world.stream.size() < BUNDLE_ENTRIES {
        world.stream.append(Kind::Event, "org.example.quake", &data);
    }
    (world.size, world.to) = (BUNDLE_ENTRIES, BUNDLE_ENTRIES);
    let bundle = folder.join("bundle");
    world.write(&bundle);
    Ok(Line {
        node: runtime.block_on(Node::start(folder))?,
        runtime,
        bundle,
        trust: world.producer.trust(),
        events: node::events(BATCHES * BATCH_EVENTS, DATA_BYTES)?,
        bulks: Vec::with_capacity(BATCHES),
        sealed: Vec::with_capacity(BATCHES),
        delivered: Vec::with_capacity(BATCHES),
        joined: Vec::with_capacity(BATCHES),
    })
}

/// Dhat finds these functions by name on the stack of a copy.
impl Line {
    #[inline(never)]
    fn publish(&mut self) -> u64 {
        for events in self.events.chunks(BATCH_EVENTS) {
            let mut bulk = Vec::with_capacity(128 << 10);
            for event in events {
                write_event(&mut bulk, event.attribute_bytes(), event.data_part_bytes());
            }
            self.bulks.push(Bytes::from(bulk));
        }
        self.events.len() as u64
    }

    #[inline(never)]
    fn seal(&mut self) -> Result<u64, Failure> {
        let mut events = 0;
        for bulk in self.bulks.drain(..) {
            let drafts =
                Drafts::from_bulk(bulk, BATCH_EVENTS as u32, &Limits::default(), None, false)?;
            let exchange = &self.node.exchange;
            let sealed = exchange.with_entropy(|entropy| seal(&drafts, entropy));
            events += sealed.count() as u64;
            self.sealed.push(sealed);
        }
        Ok(events)
    }

    #[inline(never)]
    fn append(&mut self) -> Result<u64, Failure> {
        let mut number = 1;
        for sealed in self.sealed.drain(..) {
            let log = self.node.log.clone();
            let publisher = Some((node::PUBLISHER, number));
            let writer = self.node.exchange.writer();
            let appended = writer.append_and_wait(log, sealed, publisher);
            let appended = self.runtime.block_on(appended)?;
            number += u64::from(appended.count);
        }
        Ok(number - 1)
    }

    #[inline(never)]
    fn deliver(&mut self) -> Result<u64, Failure> {
        let (mut events, size) = (0, self.node.log.size());
        while self.node.reader.next() + events < size {
            let next = self.runtime.block_on(self.node.delivery.next())?;
            let Next::Batch { message, bulk, .. } = next else {
                return Err("the delivery paused or ended".into());
            };
            events += u64::from(message.count);
            self.delivered.push((message, bulk));
        }
        Ok(events)
    }

    #[inline(never)]
    fn join(&mut self) -> u64 {
        let pieces = self.delivered.drain(..);
        self.joined
            .extend(pieces.map(|(message, bulk)| (message, bulk.concat().into())));
        0
    }

    #[inline(never)]
    fn take(&mut self) -> Result<u64, Failure> {
        let mut events = 0;
        for (message, bulk) in self.joined.drain(..) {
            events += self.node.reader.take(message, bulk)?.events();
        }
        Ok(events)
    }

    #[inline(never)]
    fn verify(&self) -> Result<u64, Failure> {
        let report = countersign_audit::verify(&self.bundle, &self.trust, &mut |_| ())?;
        if report.verdict.exit_code() != 0 {
            return Err(format!("the bundle does not hold: {report:?}").into());
        }
        Ok(BUNDLE_ENTRIES)
    }
}

/// What this process has done so far, all threads together.
struct Counts {
    allocations: Stats,
    crypto: Work,
}

impl Counts {
    fn now() -> Self {
        Self {
            allocations: ALLOCATOR.stats(),
            crypto: work().unwrap_or_default(),
        }
    }

    fn since(&self, before: &Self) -> Counters {
        let allocated = self.allocations - before.allocations;
        let (now, then) = (self.crypto, before.crypto);
        // A reallocation is one as well: it may copy, and it is what a missing `with_capacity` costs.
        let times = allocated.allocations + allocated.reallocations;
        [
            ("allocations", times as u64),
            ("allocated bytes", allocated.bytes_allocated as u64),
            ("hashes", now.hashes - then.hashes),
            ("hashed bytes", now.hashed_bytes - then.hashed_bytes),
            ("signatures made", now.signatures - then.signatures),
            (
                "signatures verified",
                now.verifications - then.verifications,
            ),
        ]
    }
}

/// Name and count, in the order in which they are recorded.
type Counters = [(&'static str, u64); 6];

/// One stage's counts, and over how many events they are.
struct Counted {
    stage: &'static str,
    events: u64,
    counters: Counters,
}

/// Lines of `STAGE<tab>COUNTER<tab>COUNT`; the counter `events` says over how many the others are.
fn text(counts: &[Counted]) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    for Counted {
        stage,
        events,
        counters,
    } in counts
    {
        writeln!(text, "{stage}\tevents\t{events}")?;
        for (counter, count) in counters {
            writeln!(text, "{stage}\t{counter}\t{count}")?;
        }
    }
    Ok(text)
}
