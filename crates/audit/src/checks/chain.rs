//! Each entry names the one before it, is where it says, and no time runs backwards.

use countersign_crypto::Hash;
use countersign_event::entry::Entry;
use countersign_event::time::Timestamp;

use crate::report::{Check, Finding};
use crate::walk::{Desk, Run, Walk};

/// The entry before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Last {
    pub(crate) sequence: u64,
    pub(crate) leaf: Hash,
    /// Its time, or of the last entry that could be read.
    pub(crate) time: Timestamp,
    /// Whether its tile has the same hash.
    pub(crate) agrees: bool,
}

/// Checks the entries of one run against each other.
pub(crate) fn check_run(walk: &Walk<'_>, index: u64, desk: &Desk, run: &mut Run) {
    let mut before: Option<Last> = None;
    for (at, sequence) in walk.span.leaves_of(index).enumerate() {
        let entry = desk.entries[at].as_ref();
        if let Some(entry) = entry {
            if entry.sequence != sequence {
                let what = format!("it says that its sequence is {}", entry.sequence);
                run.findings
                    .push(walk.finding(Check::Chain, Some(sequence), None, what));
            }
            if let Some(before) = before {
                check_pair(walk, before, entry, sequence, &mut |finding| {
                    run.findings.push(finding)
                });
            }
        }
        let time_before = before.map_or(Timestamp(0), |last| last.time);
        before = Some(Last {
            sequence,
            leaf: desk.leaves[at],
            time: entry.map_or(time_before, |entry| entry.time),
            agrees: desk.agrees[at],
        });
    }
}

/// Checks the first entry of a run against the last of the run before.
pub(crate) fn check_link(
    walk: &Walk<'_>,
    last: Option<Last>,
    first: Option<&Entry>,
    found: &mut dyn FnMut(Finding),
) {
    if let (Some(last), Some(first)) = (last, first) {
        check_pair(walk, last, first, last.sequence + 1, found);
    }
}

fn check_pair(
    walk: &Walk<'_>,
    before: Last,
    entry: &Entry,
    sequence: u64,
    found: &mut dyn FnMut(Finding),
) {
    if entry.prev != before.leaf {
        // Where the tile too has another hash for the entry before, it is that one which was changed.
        let (sequence, what) = if before.agrees {
            (
                sequence,
                "it does not name the entry before it that is here",
            )
        } else {
            (
                before.sequence,
                "the entry after it names another one in its place",
            )
        };
        found(walk.finding(Check::Chain, Some(sequence), None, what.to_owned()));
    }
    if entry.time < before.time {
        let what = format!(
            "its time, {}, lies before that of the entry before, {}",
            entry.time, before.time
        );
        found(walk.finding(Check::Chain, Some(sequence), None, what));
    }
}
