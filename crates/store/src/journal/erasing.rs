//! Erasing: content is overwritten in place, the skeleton stays.
//!
//! ```text
//! commit with the erasure ─sync─▶ readers refuse ─▶ heads ─sync─▶ zeros over the content ─sync─▶ blocks given back ─▶ snapshot `erased`
//! ```
//!
//! The erasure rides in a commit, so that it is as durable as the control entry that allows it. A crash anywhere behind that commit leaves
//! content that is there or gone in part; the next start reads the erasure and overwrites again. `schemas/journal.md` is the format.

use std::collections::{BTreeMap, VecDeque};
use std::iter::Peekable;

use super::Journal;
use super::error::{CommitError, EraseError, ReadError};
use super::format::{DirectoryEntry, ENTRY_BYTES, ERASURE_BYTES, be_u64};
use super::reader::JournalReader;
use super::segment::Segment;
use super::state::Logs;
use super::types::{Erasure, LogNumber};
use crate::disk::SyncSite;

/// The snapshot that says up to which commit erasures are done. It has no bytes.
pub(crate) const DONE_SNAPSHOT: &str = "erased";

/// Runs of at least this many bytes are given back to the file system: below it, a hole costs more than the room it makes.
const PUNCH_BYTES_MIN: u64 = 64 << 10;

/// Zeros are written in pieces of this size.
const PIECE_BYTES: u64 = 1 << 20;

pub(crate) fn encode_erasures(erasures: &[Erasure]) -> Vec<u8> {
    let mut out = Vec::with_capacity(erasures.len() * ERASURE_BYTES);
    for erasure in erasures {
        out.extend_from_slice(&erasure.first.to_be_bytes());
        out.extend_from_slice(&erasure.end.to_be_bytes());
        out.extend_from_slice(&erasure.by.to_be_bytes());
    }
    out
}

/// The length has been checked by whoever cut the bytes; a ragged end is left out.
pub(crate) fn decode_erasures(bytes: &[u8]) -> Vec<Erasure> {
    let read = |bytes: &[u8]| Erasure {
        first: be_u64(bytes, 0),
        end: be_u64(bytes, 8),
        by: be_u64(bytes, 16),
    };
    bytes.chunks_exact(ERASURE_BYTES).map(read).collect()
}

/// Whose content of a log is gone, and by which control entry; runs do not overlap, the newest erasure of an entry counts. What never came is no content that
/// could be erased: that stays what it is, whatever is erased around it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Erased {
    /// What a filter left out: first sequence → end.
    filtered: BTreeMap<u64, u64>,
    /// First sequence → end, control entry.
    runs: BTreeMap<u64, (u64, u64)>,
    /// What became erased, with the commit that says so, until somebody takes it.
    fresh: Vec<(u64, u64, u64)>,
}

impl Erased {
    pub(crate) fn add(&mut self, erasure: Erasure, commit: u64) {
        let Erasure { first, end, by } = erasure;
        if by == Erasure::FILTERED {
            return self.leave_out(first, end);
        }
        let mut next = first;
        // The run that reaches into this one, and all that begin in it.
        let before = self.runs.range(..first).next_back();
        let start = before
            .filter(|(_, (before_end, _))| *before_end > first)
            .map_or(first, |(start, _)| *start);
        let overlapped: Vec<(u64, u64, u64)> = self
            .runs
            .range(start..end)
            .map(|(first, (end, by))| (*first, *end, *by))
            .collect();
        for (old_first, old_end, old_by) in overlapped {
            self.runs.remove(&old_first);
            if old_first > next {
                self.fresh.push((commit, next, old_first));
            }
            next = next.max(old_end);
            if old_first < first {
                self.runs.insert(old_first, (first, old_by));
            }
            if old_end > end {
                self.runs.insert(end, (old_end, old_by));
            }
        }
        if next < end {
            self.fresh.push((commit, next, end));
        }
        // Neighbours by the same control entry are one run: an expiry that grows stays one.
        let (mut first, mut end) = (first, end);
        if let Some((&left, &(left_end, left_by))) = self.runs.range(..first).next_back()
            && left_end == first
            && left_by == by
        {
            self.runs.remove(&left);
            first = left;
        }
        if let Some(&(right_end, right_by)) = self.runs.get(&end)
            && right_by == by
        {
            self.runs.remove(&end);
            end = right_end;
        }
        self.runs.insert(first, (end, by));
    }

    /// One run with all that it touches.
    fn leave_out(&mut self, mut first: u64, mut end: u64) {
        while let Some((&old_first, &old_end)) = self.filtered.range(..=end).next_back()
            && old_end >= first
        {
            self.filtered.remove(&old_first);
            (first, end) = (first.min(old_first), end.max(old_end));
        }
        self.filtered.insert(first, end);
    }

    /// The first entry that a filter left out.
    pub(crate) fn first_filtered(&self) -> Option<u64> {
        self.filtered.first_key_value().map(|(first, _)| *first)
    }

    /// The control entry by which an entry is erased.
    pub(crate) fn by(&self, sequence: u64) -> Option<u64> {
        let left_out = self.filtered.range(..=sequence).next_back();
        if left_out.is_some_and(|(_, end)| sequence < *end) {
            return Some(Erasure::FILTERED);
        }
        let (_, (end, by)) = self.runs.range(..=sequence).next_back()?;
        (sequence < *end).then_some(*by)
    }

    /// The runs within `[first, end)`, cut to it.
    pub(crate) fn within(&self, first: u64, end: u64) -> Vec<Erasure> {
        let before = self.filtered.range(..first).next_back();
        let start = before.map_or(first, |(start, _)| *start);
        let left_out = self.filtered.range(start..end);
        let left_out = left_out.filter(|(_, run_end)| **run_end > first);
        let erased = self.erased_within(first, end);
        let mut erased = erased.into_iter().peekable();
        let mut found = Vec::new();
        // Up to each run that was left out, what was erased before it; none of it within.
        let mut from = first;
        for (&run_first, &run_end) in left_out {
            Self::cut(&mut erased, from, run_first, &mut found);
            found.push(Erasure {
                first: first.max(run_first),
                end: end.min(run_end),
                by: Erasure::FILTERED,
            });
            from = run_end;
        }
        Self::cut(&mut erased, from, end, &mut found);
        found
    }

    /// What of these runs lies in `[from, to)`; they are taken as far as they end there.
    fn cut(
        runs: &mut Peekable<impl Iterator<Item = Erasure>>,
        from: u64,
        to: u64,
        found: &mut Vec<Erasure>,
    ) {
        while let Some(&run) = runs.peek().filter(|run| run.first < to) {
            let (first, end) = (run.first.max(from), run.end.min(to));
            if first < end {
                found.push(Erasure {
                    first,
                    end,
                    by: run.by,
                });
            }
            if run.end > to {
                break;
            }
            runs.next();
        }
    }

    /// What control entries erase of `[first, end)`, whatever of it was left out.
    pub(crate) fn erased_within(&self, first: u64, end: u64) -> Vec<Erasure> {
        let before = self.runs.range(..first).next_back();
        let start = before.map_or(first, |(start, _)| *start);
        self.runs
            .range(start..end)
            .filter(|(_, (run_end, _))| *run_end > first)
            .map(|(run_first, (run_end, by))| Erasure {
                first: first.max(*run_first),
                end: end.min(*run_end),
                by: *by,
            })
            .collect()
    }

    /// What became erased in commits after `done` and was not taken yet.
    fn take_fresh(&mut self, done: u64) -> impl Iterator<Item = (u64, u64)> + use<> {
        let fresh = std::mem::take(&mut self.fresh).into_iter();
        let after = move |(commit, _, _): &(u64, u64, u64)| *commit > done;
        fresh.filter(after).map(|(_, first, end)| (first, end))
    }
}

/// What still has to be overwritten.
#[derive(Clone, Debug, Default)]
pub(crate) struct Erasing {
    todo: VecDeque<(LogNumber, u64, u64)>,
    /// The commit up to which the head file is known to be synced.
    heads_synced: u64,
    /// Something could not be overwritten: the next start has to try again.
    failed: bool,
}

impl Erasing {
    pub(crate) fn collect(&mut self, logs: &mut Logs, done: u64) {
        for (number, log) in &mut logs.logs {
            let fresh = log.erased.take_fresh(done);
            self.todo
                .extend(fresh.map(|(first, end)| (LogNumber(*number), first, end)));
        }
    }

    pub(crate) fn collect_from(&mut self, logs: &mut Logs, numbers: impl Iterator<Item = u32>) {
        for number in numbers {
            if let Some(log) = logs.logs.get_mut(&number) {
                let fresh = log.erased.take_fresh(0);
                self.todo
                    .extend(fresh.map(|(first, end)| (LogNumber(number), first, end)));
            }
        }
    }
}

impl Journal {
    /// Whether content waits to be overwritten.
    #[must_use]
    pub fn is_erasing(&self) -> bool {
        !self.erasing.todo.is_empty()
    }

    /// Overwrites erased content, about `bytes_max` of it, and says whether more waits. When it says no, nothing erased is left in the segments,
    /// and that is durable.
    ///
    /// # Errors
    /// [`EraseError::Read`] where a part cannot be read: it is passed over, and tried again at the next start. [`EraseError::Commit`] where the
    /// disk refuses: the journal has to be opened again.
    pub fn erase_some(&mut self, bytes_max: u64) -> Result<bool, EraseError> {
        if self.erasing.todo.is_empty() {
            return Ok(false);
        }
        if self.poisoned {
            return Err(CommitError::Poisoned.into());
        }
        let last = self.last_commit();
        // A crash before this leaves all content as it was. Without it, recovery could meet a commit that no recorded head covers, and whose content
        // meets no commitment any more.
        if self.erasing.heads_synced < last {
            self.sync_heads()?;
            self.erasing.heads_synced = last;
        }
        let reader = self.reader();
        let (mut left, mut runs, mut unread) = (bytes_max.max(1), Vec::new(), None);
        while left > 0
            && let Some((log, first, end)) = self.erasing.todo.front_mut()
        {
            match reader.content_runs(*log, *first, *end, left) {
                Ok(found) => {
                    left = left.saturating_sub(found.runs.iter().map(|run| run.len).sum());
                    runs.extend(found.runs);
                    *first = found.next;
                }
                Err((next, error)) => {
                    self.erasing.failed = true;
                    unread = Some(error);
                    *first = next;
                }
            }
            if *first >= *end {
                self.erasing.todo.pop_front();
            }
        }
        self.overwrite(&runs).map_err(|source| {
            self.poisoned = true;
            CommitError::Io { source }
        })?;
        if let Some(error) = unread {
            return Err(error.into());
        }
        let more = self.is_erasing();
        if !more && !self.erasing.failed {
            // A crash before this overwrites once more what is gone already.
            self.write_snapshot(DONE_SNAPSHOT, last, &[])?;
        }
        Ok(more)
    }

    fn overwrite(&self, runs: &[ContentRun]) -> std::io::Result<()> {
        let mut touched: BTreeMap<u32, &Segment> = BTreeMap::new();
        for run in runs {
            let mut at = run.offset;
            let end = run.offset + run.len;
            while at < end {
                let len = (end - at).min(PIECE_BYTES);
                let zeros = vec![0; usize::try_from(len).map_err(std::io::Error::other)?];
                run.segment.file.write_all_at(&zeros, at)?;
                at += len;
            }
            let number = run.segment.header.number;
            touched.insert(number, &run.segment);
            self.shared.write().forget(number, run.offset, run.len);
            self.shared.caches.forget(number, run.offset, run.len);
        }
        // A crash in here leaves some of it: the next start overwrites all of it again.
        for segment in touched.values() {
            segment.file.sync_all(SyncSite::Erase)?;
        }
        for run in runs.iter().filter(|run| run.len >= PUNCH_BYTES_MIN) {
            // The zeros are durable: a hole only makes room, and one that cannot be made is no harm.
            let _ = run.segment.file.punch_hole(run.offset, run.len);
        }
        Ok(())
    }
}

/// Bytes of a segment that hold content.
#[derive(Clone, Debug)]
pub(crate) struct ContentRun {
    segment: Segment,
    offset: u64,
    len: u64,
}

/// Where the content of some entries lies.
pub(crate) struct ContentRuns {
    runs: Vec<ContentRun>,
    /// The first entry that was not looked at.
    next: u64,
}

impl JournalReader {
    /// The control entry by which an entry's content is erased.
    #[must_use]
    pub fn erased_by(&self, log: LogNumber, sequence: u64) -> Option<u64> {
        let published = self.shared().read();
        published.logs.logs.get(&log.0)?.erased.by(sequence)
    }

    /// What of entries `[first, end)` of a log is erased, in order. Control entries in between are not.
    #[must_use]
    pub fn erasures(&self, log: LogNumber, first: u64, end: u64) -> Vec<Erasure> {
        let published = self.shared().read();
        let state = published.logs.logs.get(&log.0);
        state.map_or_else(Vec::new, |state| state.erased.within(first, end))
    }

    /// The first entry of a copy that a filter left out.
    #[must_use]
    pub fn first_filtered(&self, log: LogNumber) -> Option<u64> {
        let published = self.shared().read();
        published.logs.logs.get(&log.0)?.erased.first_filtered()
    }

    /// As [`JournalReader::erasures`], of what control entries erase alone: what a filter left out stands in none of these runs' way.
    #[must_use]
    pub fn erased_by_entries(&self, log: LogNumber, first: u64, end: u64) -> Vec<Erasure> {
        let published = self.shared().read();
        let state = published.logs.logs.get(&log.0);
        state.map_or_else(Vec::new, |state| state.erased.erased_within(first, end))
    }

    /// Where the content of events from `first` on lies, within one part and about `bytes_max`. On an error, the first entry behind the part.
    fn content_runs(
        &self,
        log: LogNumber,
        first: u64,
        end: u64,
        bytes_max: u64,
    ) -> Result<ContentRuns, (u64, ReadError)> {
        let part = self.part_containing(log, first).map_err(|e| (end, e))?;
        let behind = |error| (part.end().min(end), error);
        let front = self
            .front(&part, part.meta_bytes() + part.entries_bytes())
            .map_err(behind)?;
        let segment = self.segment(part.segment).map_err(behind)?;
        let Some(segment) = segment else {
            return Err(behind(self.absent(log, first, part.segment)));
        };
        let mut found = ContentRuns {
            runs: Vec::new(),
            next: first,
        };
        let (mut at, mut bytes) = (part.content_offset(), 0);
        let entries = front.entries.chunks_exact(ENTRY_BYTES);
        let directory = DirectoryEntry::decode_all(&front.directory);
        for ((sequence, entry), lengths) in (part.first..).zip(entries).zip(directory) {
            let len = lengths.content_bytes();
            if sequence >= end || bytes >= bytes_max {
                break;
            }
            if sequence >= first {
                found.next = sequence + 1;
                // Control entries are never erased: they are what the skeleton is read by.
                if entry[1] & 0x0f == 0 && len > 0 {
                    bytes += len;
                    match found.runs.last_mut() {
                        Some(run) if run.offset + run.len == at => run.len += len,
                        _ => found.runs.push(ContentRun {
                            segment: segment.clone(),
                            offset: at,
                            len,
                        }),
                    }
                }
            }
            at += len;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_are_what_a_list_of_all_entries_says(steps in proptest::collection::vec((0u64..40, 1u64..20, 0u64..4), 0..20)) {
            let mut erased = Erased::default();
            let mut model = [None; 64];
            let mut emptied = [false; 64];
            for (commit, (first, len, by)) in (1u64..).zip(steps) {
                let end = first + len;
                // One in four is what a filter left out, and stays it.
                let by = if by == 0 { Erasure::FILTERED } else { by };
                erased.add(Erasure { first, end, by }, commit);
                for (slot, gone) in model[first as usize..end as usize].iter_mut().zip(&mut emptied[first as usize..end as usize]) {
                    if *slot != Some(Erasure::FILTERED) {
                        *slot = Some(by);
                    }
                    *gone |= by != Erasure::FILTERED;
                }
            }
            let left_out = model.iter().position(|by| *by == Some(Erasure::FILTERED));
            prop_assert_eq!(erased.first_filtered(), left_out.map(|at| at as u64));
            for (sequence, by) in (0u64..).zip(&model) {
                prop_assert_eq!(erased.by(sequence), *by);
            }
            let mut listed = [None; 64];
            let mut before = None;
            for run in erased.within(5, 50) {
                prop_assert!(run.first < run.end && before.is_none_or(|end| end <= run.first));
                before = Some(run.end);
                listed[run.first as usize..run.end as usize].fill(Some(run.by));
            }
            prop_assert_eq!(&listed[5..50], &model[5..50]);
            let mut fresh = [0; 64];
            for (first, end) in erased.take_fresh(0) {
                for slot in &mut fresh[first as usize..end as usize] {
                    *slot += 1;
                }
            }
            for (count, gone) in fresh.iter().zip(&emptied) {
                prop_assert_eq!(*count, i32::from(*gone), "each is overwritten once");
            }
        }

        #[test]
        fn erasures_come_back(erasures in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<u64>()), 0..9)) {
            let erasures: Vec<_> = erasures.into_iter().map(|(first, end, by)| Erasure { first, end, by }).collect();
            prop_assert_eq!(decode_erasures(&encode_erasures(&erasures)), erasures);
        }
    }
}
