//! One pass over a log: every byte read once, hashed once, on all cores, in order.
//!
//! ```text
//! worker 0   run 0   run 2   run 4 …     entry bundle, level-0 tile, content file of one run: leaf hashes, links, commitments
//! worker 1   run 1   run 3   run 5 …
//!              └───────┴───────┴──────►  in order: links between runs, tree, higher tiles, sums, root
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use countersign_crypto::Hash;
use countersign_event::content::EventRef;
use countersign_event::entry::{Entry, Kind};
use countersign_event::time::Timestamp;

use crate::checks::{chain, content, tree};
use crate::files::BundleFiles;
use crate::layout::{Span, fill};
use crate::report::{Check, Finding, Severity};
use crate::tree::Frontier;

/// Runs that a worker may be ahead: with 256 entries each, about 100 KB per worker.
const AHEAD: usize = 4;
/// More threads than this would wait for each other at the tree.
const WORKERS_MAX: usize = 32;

/// What to walk.
pub(crate) struct Walk<'a> {
    pub(crate) files: &'a BundleFiles,
    /// What precedes `log/` and `content/`.
    pub(crate) prefix: &'a str,
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
    events: u64,
    bytes: u64,
    pub(crate) contents: u64,
    pub(crate) encrypted: u64,
    pub(crate) content_bytes: u64,
    pub(crate) last_time: Timestamp,
    /// The first entry, where it is here and disclosed.
    pub(crate) genesis: Option<content::Genesis>,
    /// Whether every entry was there to be looked at, and the root compared with the checkpoint's.
    pub(crate) complete: bool,
}

/// One run of up to 256 entries, judged by itself.
#[derive(Default)]
pub(crate) struct Run {
    pub(crate) leaves: Vec<Hash>,
    /// The root over a full run.
    pub(crate) top: Option<Hash>,
    pub(crate) entries: Vec<Option<Entry>>,
    /// Whether the level-0 tile has the same hash.
    pub(crate) agrees: Vec<bool>,
    pub(crate) contents: content::Contents,
    pub(crate) findings: Vec<Finding>,
    /// False where there is no run to go on from.
    pub(crate) usable: bool,
}

impl Walk<'_> {
    /// Walks the log and hands over what it finds, in order of the runs.
    pub(crate) fn run(&self, found: &mut dyn FnMut(Finding)) -> Walked {
        let runs = self.span.runs();
        let count = usize::try_from(runs.end - runs.start).unwrap_or(usize::MAX);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = cores.min(count).clamp(1, WORKERS_MAX);
        std::thread::scope(|scope| {
            let receivers: Vec<Receiver<Run>> = (0..workers)
                .map(|worker| {
                    let (sender, receiver) = sync_channel(AHEAD);
                    scope.spawn(move || self.work(worker, workers, &sender));
                    receiver
                })
                .collect();
            let mut in_order = (0..count).map_while(|run| receivers[run % workers].recv().ok());
            Assembly::new(self, found).run(&mut in_order)
        })
    }

    fn work(&self, worker: usize, workers: usize, out: &SyncSender<Run>) {
        for index in self.span.runs().skip(worker).step_by(workers) {
            let mut run = Run::default();
            tree::read_entries(self, index, &mut run);
            if run.usable {
                chain::check_run(self, index, &mut run);
                content::check_run(self, index, &mut run);
            }
            // Nobody listens any more where the walk has ended early.
            if out.send(run).is_err() {
                return;
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

    fn run(mut self, runs: &mut dyn Iterator<Item = Run>) -> Walked {
        let span = self.walk.span;
        if !self.step_over(0, span.start()) {
            return self.walked;
        }
        self.observe();
        for run in runs {
            run.findings.iter().cloned().for_each(&mut *self.found);
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
        chain::check_link(self.walk, self.last, &run.entries, self.found);
        let size = self.frontier.size();
        let end = size + run.leaves.len() as u64;
        // One push for 256 entries, unless something inside is wanted.
        let wanted_inside = self.walk.watch.range(size + 1..end).next().is_some();
        let top = run.top.filter(|_| !wanted_inside);
        for (at, (leaf, entry)) in run.leaves.iter().zip(&run.entries).enumerate() {
            if let Some(entry) = entry {
                self.walked.count(entry);
            }
            self.last = Some(chain::Last {
                sequence: size + at as u64,
                leaf: *leaf,
                time: self.walked.last_time,
                agrees: run.agrees.get(at).copied().unwrap_or(false),
            });
            if top.is_none() {
                self.push(0, *leaf);
                self.observe();
            }
        }
        if let Some(top) = top {
            self.push(8, top);
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
    fn count(&mut self, entry: &Entry) {
        self.last_time = entry.time;
        if entry.kind == Kind::Event {
            self.events += 1;
            self.bytes = self.bytes.saturating_add(u64::from(entry.data_bytes));
        }
    }

    fn take_contents(&mut self, contents: content::Contents) {
        self.contents += contents.count;
        self.encrypted += contents.encrypted;
        self.content_bytes = self.content_bytes.saturating_add(contents.bytes);
        self.facts.extend(contents.facts);
        if let Some(genesis) = contents.genesis {
            self.genesis = Some(genesis);
        }
        for sequence in contents.undisclosed {
            match self.undisclosed.last_mut() {
                Some((_, to)) if *to == sequence => *to += 1,
                _ => self.undisclosed.push((sequence, sequence + 1)),
            }
        }
    }
}
