//! Sealing the data of a commit, once every event of it has its place: on all processors, since the writer is one thread.

use std::num::NonZero;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use countersign_event::commitment::{SALT_BYTES, whole_commitment, whole_commitments};
use countersign_event::content::{CONTENT_SALT_BYTES, SealedHead};
use countersign_event::encryption::{DataKey, SEALED_EXTRA_BYTES};
use countersign_protocol::delivery::Lengths;

use crate::pipeline::seal::SealedBatch;

/// Bytes that one processor seals at a time: some 100 µs, beside 20 µs for starting a thread.
const JOB_BYTES: usize = 128 << 10;

/// Processors that seal at once.
const THREADS_MAX: usize = 8;

/// A batch that has its place and waits to be sealed; one without a key stays as it is.
pub(super) struct Placed {
    pub(super) batch: SealedBatch,
    pub(super) first: u64,
    pub(super) key: Option<Arc<DataKey>>,
}

struct Job<'a> {
    placed: &'a Placed,
    events: Range<usize>,
    offset: usize,
}

/// Seals all of it, in its order.
pub(super) fn seal_placed(placed: &[Placed]) -> Vec<SealedBatch> {
    let jobs = split(placed);
    let available = std::thread::available_parallelism().map_or(1, NonZero::get);
    let threads = available.min(THREADS_MAX).min(jobs.len());
    if threads <= 1 {
        return jobs.iter().map(run).collect();
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((index, job)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            jobs.get(index).map(|job| (index, job))
        } {
            done.push((index, run(job)));
        }
        done
    };
    let mut done = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut done = work();
        for other in others {
            match other.join() {
                Ok(more) => done.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, batch)| batch).collect()
}

fn split(placed: &[Placed]) -> Vec<Job<'_>> {
    let mut jobs = Vec::new();
    for placed in placed {
        let count = placed.batch.count();
        let (mut start, mut offset, mut end_offset) = (0, 0, 0);
        for event in 0..count {
            end_offset += placed.batch.lengths[event].content_bytes() as usize;
            let is_full = placed.key.is_some() && end_offset - offset >= JOB_BYTES;
            if is_full || event + 1 == count {
                let events = start..event + 1;
                jobs.push(Job {
                    placed,
                    events,
                    offset,
                });
                (start, offset) = (event + 1, end_offset);
            }
        }
    }
    jobs
}

fn run(job: &Job<'_>) -> SealedBatch {
    let Job {
        placed: Placed { batch, first, key },
        events,
        offset,
    } = job;
    let Some(key) = key else {
        return batch.clone();
    };
    let plain = batch.content.get(*offset..).unwrap_or_default();
    let mut heads = batch.heads[events.clone()].to_vec();
    let mut lengths = batch.lengths[events.clone()].to_vec();
    let bytes: usize = lengths.iter().map(|l| l.content_bytes() as usize).sum();
    let mut content = Vec::with_capacity(bytes + heads.len() * SEALED_EXTRA_BYTES);
    let (mut at, mut sequence) = (0, first + events.start as u64);
    let mut associated = Vec::new();
    for (head, lengths) in heads.iter_mut().zip(&mut lengths) {
        let data_at = at + CONTENT_SALT_BYTES + lengths.attribute_bytes as usize;
        let end = data_at + lengths.data_part_bytes as usize;
        content.extend_from_slice(&plain[at..data_at]);
        let start = content.len();
        key.seal_with(
            sequence,
            &head.attributes,
            &plain[data_at..end],
            &mut content,
            &mut associated,
        );
        lengths.data_part_bytes = (content.len() - start) as u32;
        head.data_bytes = lengths.data_part_bytes;
        at = end;
        sequence += 1;
    }
    commit(&mut heads, &lengths, &content);
    SealedBatch::new(batch.kind, heads, lengths, content.into())
}

/// Commits to what was sealed, two events side by side.
fn commit(heads: &mut [SealedHead], lengths: &[Lengths], content: &[u8]) {
    let mut rest = content;
    let mut parts = lengths.iter().map(|lengths| {
        let (event, behind) = rest.split_at(lengths.content_bytes() as usize);
        rest = behind;
        let (salts, event) = event.split_at(CONTENT_SALT_BYTES);
        let mut salt = [0; SALT_BYTES];
        salt.copy_from_slice(&salts[SALT_BYTES..]);
        (salt, &event[lengths.attribute_bytes as usize..])
    });
    for heads in heads.chunks_mut(2) {
        match (heads, parts.next(), parts.next()) {
            ([one, other], Some((salt, part)), Some((other_salt, other_part))) => {
                (one.data, other.data) =
                    whole_commitments((&salt, part), (&other_salt, other_part));
            }
            ([one, ..], Some((salt, part)), _) => one.data = whole_commitment(&salt, part),
            _ => {}
        }
    }
}
