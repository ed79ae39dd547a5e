//! One pass over a log: every byte read once, hashed once, on all cores, in order.
//!
//! ```text
//! worker 0   runs 0..8   runs 16..24 …     entry bundle, level-0 tile, content file of each run: leaf hashes, links, commitments
//! worker 1   runs 8..16  runs 24..32 …
//!               └────────────┴──────────►  in order: links between runs, tree, higher tiles, sums, root
//! ```
//!
//! What a worker reads and hashes stays on its [`Desk`], in memory that it uses again for the next run. Only conclusions travel.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use countersign_crypto::Hash;
use countersign_event::content::EventRef;
use countersign_event::control::Allows;
use countersign_event::entry::{Entry, Kind};
use countersign_event::names::Authority;
use countersign_event::time::Timestamp;

use crate::checks::{chain, content, tree};
use crate::files::BundleFiles;
use crate::layout::{Span, fill};
use crate::report::{Check, Finding, Severity};
use crate::tree::{Frontier, full_tile_root};

/// Runs that a worker takes at a time: 2,048 entries, some milliseconds of work, so that handing over costs nothing beside it.
const GROUP: u64 = 8;
/// Groups that a worker may be ahead: at most 256 steps of 100 bytes for each run, 800 KB per worker.
const AHEAD: usize = 4;
/// More threads than this would wait for each other at the tree.
const WORKERS_MAX: usize = 32;

/// What to walk.
pub(crate) struct Walk<'a> {
    pub(crate) files: &'a BundleFiles,
    /// What precedes `checkpoint` and `tile/`.
    pub(crate) log: &'a str,
    /// What precedes `content/`; nothing where there are no contents.
    pub(crate) contents: Option<&'a str>,
    pub(crate) origin: &'a str,
    pub(crate) span: Span,
    /// The root that the checkpoint states.
    pub(crate) root: Hash,
    /// Sizes at which the state of the log is wanted.
    pub(crate) watch: BTreeSet<u64>,
    /// Looks at each disclosed event; what it returns is kept.
    pub(crate) look: Option<&'a Look<'a>>,
}

/// See [`Walk::look`].
pub(crate) type Look<'a> = dyn Fn(u64, &EventRef<'_>) -> Option<Fact> + Sync + 'a;

/// What a ledger entry says that other checks need.
#[derive(Clone, Debug)]
pub(crate) struct Fact {
    pub(crate) sequence: u64,
    pub(crate) kind: FactKind,
}

/// See [`Fact`].
#[derive(Clone, Debug)]
pub(crate) enum FactKind {
    /// The key statement of this domain was found there then, as the ledger's owner says.
    Domain(Authority, Timestamp),
    /// A decision about the stream: SHA-256 of the record.
    Decision(Hash),
    /// A signed document about the stream: digest of its payload, its kind, and the size up to which it speaks.
    Document {
        payload: Hash,
        kind: &'static str,
        reaches: u64,
    },
}

/// The state of a log at a size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct State {
    pub(crate) root: Hash,
    /// Events (no control entries) since the walk began.
    pub(crate) events: u64,
    /// Their data bytes.
    pub(crate) bytes: u64,
    /// Leaf hash of the last entry; zero where none was walked.
    pub(crate) leaf: Hash,
    /// Time of the last entry; zero where none was walked.
    pub(crate) time: Timestamp,
}

/// What a walk found out.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    pub(crate) states: BTreeMap<u64, State>,
    pub(crate) facts: Vec<Fact>,
    pub(crate) undisclosed: Vec<(u64, u64)>,
    /// Those of them that are control entries.
    undisclosed_control: Vec<u64>,
    /// Events that tombstones name, with the one behind it that does.
    tombstones: BTreeSet<(u64, u64)>,
    /// Events below this have expired.
    expired_below: u64,
    events: u64,
    bytes: u64,
    pub(crate) contents: u64,
    pub(crate) encrypted: u64,
    pub(crate) views: u64,
    pub(crate) withheld: u64,
    pub(crate) content_bytes: u64,
    pub(crate) last_time: Timestamp,
    /// The first entry, where it is here and disclosed.
    pub(crate) genesis: Option<content::Genesis>,
    /// Whether every entry was there to be looked at, and the root compared with the checkpoint's.
    pub(crate) complete: bool,
}

/// The entries of one run, and the memory that it is read into. One per worker, used for one run after the other: pages that are
/// touched for the first time cost more than what is done in them.
#[derive(Default)]
pub(crate) struct Desk {
    pub(crate) leaves: Vec<Hash>,
    pub(crate) entries: Vec<Option<Entry>>,
    /// Whether the level-0 tile has the same hash.
    pub(crate) agrees: Vec<bool>,
    /// Bytes of one file, or of a part of it.
    pub(crate) bytes: Vec<u8>,
}

/// What is to be said about one run of up to 256 entries, judged by itself.
#[derive(Default)]
pub(crate) struct Run {
    /// Its first entry, which the run before has to be linked to.
    first: Option<Entry>,
    /// How the log grows by it.
    steps: Vec<Step>,
    pub(crate) contents: content::Contents,
    pub(crate) findings: Vec<Finding>,
    /// False where there is no run to go on from.
    pub(crate) usable: bool,
}

/// A complete subtree that the log grows by: all of a full run, or a single entry.
struct Step {
    level: u8,
    hash: Hash,
    /// The last entry under it.
    last: chain::Last,
    sums: Sums,
}

/// What the entries under a step add to the sums.
#[derive(Clone, Copy, Default)]
struct Sums {
    events: u64,
    bytes: u64,
    /// Time of the last entry that could be read.
    time: Option<Timestamp>,
}

impl Walk<'_> {
    /// Walks the log and hands over what it finds, in order of the runs.
    pub(crate) fn run(&self, found: &mut dyn FnMut(Finding)) -> Walked {
        let runs = self.span.runs();
        let groups = (runs.end - runs.start).div_ceil(GROUP);
        let groups = usize::try_from(groups).unwrap_or(usize::MAX);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = cores.min(groups).clamp(1, WORKERS_MAX);
        std::thread::scope(|scope| {
            let receivers: Vec<Receiver<Vec<Run>>> = (0..workers)
                .map(|worker| {
                    let (sender, receiver) = sync_channel(AHEAD);
                    scope.spawn(move || self.work(worker, workers, &sender));
                    receiver
                })
                .collect();
            let in_order = (0..groups).map_while(|group| receivers[group % workers].recv().ok());
            Assembly::new(self, found).run(in_order.flatten())
        })
    }

    fn work(&self, worker: usize, workers: usize, out: &SyncSender<Vec<Run>>) {
        let mut desk = Desk::default();
        let runs = self.span.runs();
        let firsts = runs.clone().step_by(GROUP as usize);
        for first in firsts.skip(worker).step_by(workers) {
            let group = first..first.saturating_add(GROUP).min(runs.end);
            let judged = group.map(|index| self.judge(index, &mut desk)).collect();
            // Nobody listens any more where the walk has ended early.
            if out.send(judged).is_err() {
                return;
            }
        }
    }

    fn judge(&self, index: u64, desk: &mut Desk) -> Run {
        let mut run = Run::default();
        tree::read_entries(self, index, desk, &mut run);
        if run.usable {
            chain::check_run(self, index, desk, &mut run);
            content::check_run(self, index, desk, &mut run);
            run.first = desk.entries.first().copied().flatten();
            run.steps = self.steps(index, desk);
        }
        run
    }

    /// One step for 256 entries, unless something inside is wanted.
    fn steps(&self, index: u64, desk: &Desk) -> Vec<Step> {
        let first = self.span.leaves_of(index).start;
        let end = first + desk.leaves.len() as u64;
        let wanted_inside = self.watch.range(first + 1..end).next().is_some();
        match full_tile_root(&desk.leaves).filter(|_| !wanted_inside) {
            Some(top) => vec![step(desk, first, 0..desk.leaves.len(), 8, top)],
            None => {
                let leaves = desk.leaves.iter().enumerate();
                leaves
                    .map(|(at, leaf)| step(desk, first, at..at + 1, 0, *leaf))
                    .collect()
            }
        }
    }

    pub(crate) fn finding(
        &self,
        check: Check,
        sequence: Option<u64>,
        file: Option<String>,
        what: String,
    ) -> Finding {
        Finding {
            check,
            severity: Severity::False,
            log: Some(self.origin.to_owned()),
            sequence,
            file,
            what,
        }
    }
}

/// The step over the entries `at` of the run that begins at sequence `first`; there is at least one.
fn step(desk: &Desk, first: u64, at: Range<usize>, level: u8, hash: Hash) -> Step {
    let mut sums = Sums::default();
    for entry in desk.entries[at.clone()].iter().flatten() {
        sums.time = Some(entry.time);
        if entry.kind == Kind::Event {
            sums.events += 1;
            sums.bytes += u64::from(entry.data_bytes);
        }
    }
    let end = at.end - 1;
    let last = chain::Last {
        sequence: first + end as u64,
        leaf: desk.leaves[end],
        time: sums.time.unwrap_or_default(),
        agrees: desk.agrees[end],
    };
    Step {
        level,
        hash,
        last,
        sums,
    }
}

/// Puts runs together in order.
struct Assembly<'w, 'f> {
    walk: &'w Walk<'w>,
    found: &'f mut dyn FnMut(Finding),
    frontier: Frontier,
    tiles: tree::Tiles<'w>,
    walked: Walked,
    last: Option<chain::Last>,
}

impl<'w, 'f> Assembly<'w, 'f> {
    fn new(walk: &'w Walk<'w>, found: &'f mut dyn FnMut(Finding)) -> Self {
        Self {
            walk,
            found,
            frontier: Frontier::default(),
            tiles: tree::Tiles::new(walk),
            walked: Walked::default(),
            last: None,
        }
    }

    fn run(mut self, runs: impl Iterator<Item = Run>) -> Walked {
        let span = self.walk.span;
        if !self.step_over(0, span.start()) {
            return self.walked;
        }
        self.observe();
        for mut run in runs {
            run.findings.drain(..).for_each(&mut *self.found);
            if !run.usable {
                return self.walked;
            }
            self.take(run);
        }
        // INVARIANT: complete only where the root has been computed over all of the tree and compared.
        if self.frontier.size() == span.end() && self.step_over(span.end(), span.size) {
            tree::check_root(self.walk, &self.frontier, self.found);
            self.walked.complete = true;
        }
        self.walked
    }

    /// Steps over the subtrees between two sizes; false where a tile for it is not here.
    fn step_over(&mut self, from: u64, to: u64) -> bool {
        fill(from, to).all(
            |(level, index)| match self.tiles.node(level, index, self.found) {
                Some(hash) => {
                    self.push(8 * level, hash);
                    true
                }
                None => false,
            },
        )
    }

    fn push(&mut self, level: u8, hash: Hash) {
        let (tiles, found) = (&mut self.tiles, &mut *self.found);
        self.frontier.push(level, hash, &mut |level, index, hash| {
            tiles.compare(level, index, hash, found)
        });
    }

    fn take(&mut self, run: Run) {
        chain::check_link(self.walk, self.last, run.first.as_ref(), self.found);
        for step in run.steps {
            self.walked.count(step.sums);
            // Where none could be read, the time before stays the one to compare with.
            let time = self.walked.last_time;
            self.last = Some(chain::Last { time, ..step.last });
            self.push(step.level, step.hash);
            self.observe();
        }
        self.walked.take_contents(run.contents);
    }

    /// Notes the state of the log if it is wanted at this size.
    fn observe(&mut self) {
        let size = self.frontier.size();
        if self.walk.watch.contains(&size) {
            let state = State {
                root: self.frontier.root(),
                events: self.walked.events,
                bytes: self.walked.bytes,
                leaf: self.last.map_or([0; 32], |last| last.leaf),
                time: self.walked.last_time,
            };
            self.walked.states.insert(size, state);
        }
    }
}

impl Walked {
    /// The runs without content that no tombstone or expiry here allows.
    pub(crate) fn unaccounted(&self) -> Vec<(u64, u64)> {
        let mut left: Vec<(u64, u64)> = Vec::new();
        for &(from, to) in &self.undisclosed {
            for sequence in from..to {
                let allowed = (sequence < self.expired_below || self.is_named(sequence))
                    && self.undisclosed_control.binary_search(&sequence).is_err();
                if allowed {
                    continue;
                }
                match left.last_mut() {
                    Some((_, end)) if *end == sequence => *end += 1,
                    _ => left.push((sequence, sequence + 1)),
                }
            }
        }
        left
    }

    /// Whether a tombstone behind an event names it.
    fn is_named(&self, sequence: u64) -> bool {
        let by_any = (sequence, 0)..=(sequence, u64::MAX);
        self.tombstones.range(by_any).next().is_some()
    }

    /// Whether the control entry `by` is a tombstone of an event before it.
    pub(crate) fn is_tombstone(&self, by: u64, sequence: u64) -> bool {
        self.tombstones.contains(&(sequence, by))
    }

    /// Whether the content of an entry of the range is not here.
    pub(crate) fn is_undisclosed(&self, sequence: u64) -> bool {
        let after = self
            .undisclosed
            .partition_point(|(from, _)| *from <= sequence);
        let before = after.checked_sub(1).and_then(|at| self.undisclosed.get(at));
        before.is_some_and(|(_, to)| sequence < *to)
    }

    fn count(&mut self, sums: Sums) {
        self.last_time = sums.time.unwrap_or(self.last_time);
        self.events += sums.events;
        self.bytes = self.bytes.saturating_add(sums.bytes);
    }

    fn take_contents(&mut self, contents: content::Contents) {
        self.contents += contents.count;
        self.encrypted += contents.encrypted;
        self.views += contents.views;
        self.withheld += contents.withheld;
        self.content_bytes = self.content_bytes.saturating_add(contents.bytes);
        self.facts.extend(contents.facts);
        if let Some(genesis) = contents.genesis {
            self.genesis = Some(genesis);
        }
        for (sequence, allows) in contents.allows {
            match allows {
                Allows::Tombstone(tombstone) if tombstone.sequence < sequence => {
                    self.tombstones.insert((tombstone.sequence, sequence));
                }
                Allows::Tombstone(_) => {}
                Allows::Expiry(expiry) => {
                    let below = expiry.below.min(sequence);
                    self.expired_below = self.expired_below.max(below);
                }
            }
        }
        for (sequence, event) in contents.undisclosed {
            if !event {
                self.undisclosed_control.push(sequence);
            }
            match self.undisclosed.last_mut() {
                Some((_, to)) if *to == sequence => *to += 1,
                _ => self.undisclosed.push((sequence, sequence + 1)),
            }
        }
    }
}
