//! Claims: a producer sends an entry without its content, and names the control entry that allows it. That entry lies further on in the log, so
//! that a reader keeps the claim and judges it when it gets there.

use std::collections::BTreeMap;

use countersign_event::control::Allows;

use super::BatchFault;

/// Runs of entries under open claims: 16 MiB at 16 bytes each. A log with more single erasures whose tombstones all lie ahead of a reader is not read.
pub const CLAIMS_MAX: usize = 1 << 20;

/// Entries `first..end` came without content; the control entry `by` has to allow it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Claim {
    /// First sequence.
    pub first: u64,
    /// Sequence after the last.
    pub end: u64,
    /// Sequence of the control entry.
    pub by: u64,
}

/// Claims by the control entry that they name, until it is there.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    open: BTreeMap<u64, Vec<(u64, u64)>>,
    runs: usize,
}

impl Claims {
    pub(super) fn add(&mut self, claim: Claim) {
        let runs = self.open.entry(claim.by).or_default();
        match runs.last_mut() {
            Some((_, end)) if *end == claim.first => *end = claim.end,
            _ => {
                runs.push((claim.first, claim.end));
                self.runs += 1;
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs == 0
    }

    pub(super) fn len(&self) -> usize {
        self.runs
    }

    /// Judges what is claimed of the entry at `sequence`, which says this.
    pub(super) fn judge(&self, sequence: u64, says: Option<&Allows>) -> Result<(), BatchFault> {
        for &(first, end) in self.open.get(&sequence).into_iter().flatten() {
            if !says.is_some_and(|allows| allows.covers(first, end)) {
                return Err(BatchFault::FalseClaim {
                    sequence: first,
                    by: sequence,
                });
            }
        }
        Ok(())
    }

    /// Lets go of what names an entry below `next`: it was judged.
    pub(super) fn forget_below(&mut self, next: u64) {
        let open = self.open.split_off(&next);
        let judged = std::mem::replace(&mut self.open, open);
        self.runs -= judged.values().map(Vec::len).sum::<usize>();
    }
}
