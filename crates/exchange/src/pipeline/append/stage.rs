//! One commit being put together: each log's share of it.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use countersign_crypto::Hash;
use countersign_event::content::CONTENT_SALT_BYTES;
use countersign_event::encryption::DataKey;
use countersign_event::entry::ENTRY_BYTES;
use countersign_event::time::Timestamp;
use countersign_protocol::SignedHead;
use countersign_protocol::delivery::{Cover, Lengths, VerifiedBatch};
use countersign_store::journal::{ContentInput, Erasure, Growth, LogNumber, NotNext, PartInput};
use countersign_tlog::CompactRange;

use super::sealing::{Placed, seal_placed};
use crate::identity::HeadSignatures;
use crate::log::Log;
use crate::pipeline::duplicates::{EventKey, PublicationRun, Publisher};
use crate::pipeline::seal::SealedBatch;

/// Publishers of one stream in one commit: their runs are stored as its annotation, at most 70 bytes each, in 64 KiB.
pub(super) const RUNS_PER_COMMIT_MAX: usize = 900;

/// The end of a log as the writer knows it.
#[derive(Clone)]
pub(super) struct Tip {
    pub(super) range: CompactRange,
    pub(super) last_leaf: Hash,
    pub(super) last_time_us: u64,
    pub(super) signature: Option<Arc<HeadSignatures>>,
    pub(super) producer: Option<SignedHead>,
}

impl Tip {
    fn growth(&self) -> Growth {
        Growth::new(self.range.clone(), self.last_leaf, self.last_time_us)
    }
}

/// The shares of all logs, in the order in which they came.
#[derive(Default)]
pub(super) struct Stages {
    all: Vec<Stage>,
    places: HashMap<LogNumber, usize>,
}

impl Stages {
    /// The log's share; a new one begins at the log's tip.
    pub(super) fn of(&mut self, log: &Arc<Log>, tip: impl FnOnce() -> Tip) -> &mut Stage {
        let place = *self.places.entry(log.number()).or_insert_with(|| {
            self.all.push(Stage::new(Arc::clone(log), tip()));
            self.all.len() - 1
        });
        &mut self.all[place]
    }

    /// Those of which the commit takes something.
    pub(super) fn into_touched(mut self) -> Vec<Stage> {
        self.all.retain(|stage| !stage.is_empty());
        self.all
    }
}

/// One log's share of the commit.
pub(super) struct Stage {
    pub(super) log: Arc<Log>,
    pub(super) tip: Tip,
    expected_size: u64,
    signature_before: Option<[u8; 64]>,
    entries: Vec<u8>,
    growth: Growth,
    lengths: Vec<ContentInput>,
    erasures: Vec<Erasure>,
    content: Vec<Bytes>,
    /// First sequence of each piece of `content`.
    firsts: Vec<u64>,
    runs: Vec<PublicationRun>,
    cover: Vec<u8>,
    /// Identities of unnumbered events, which enter the window once they are stored.
    keys: Vec<(EventKey, u64)>,
    /// Of an encrypted log, what has its place and waits to be sealed, and how many entries that are.
    placed: Vec<(Placed, Timestamp)>,
    placed_count: u64,
}

impl Stage {
    pub(super) fn new(log: Arc<Log>, tip: Tip) -> Self {
        Self {
            log,
            expected_size: tip.range.size(),
            signature_before: tip
                .signature
                .as_ref()
                .map(|signed| signed.signature.to_bytes()),
            growth: tip.growth(),
            tip,
            entries: Vec::new(),
            lengths: Vec::new(),
            erasures: Vec::new(),
            content: Vec::new(),
            firsts: Vec::new(),
            runs: Vec::new(),
            cover: Vec::new(),
            keys: Vec::new(),
            placed: Vec::new(),
            placed_count: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.erasures.is_empty() && self.placed.is_empty()
    }

    /// What is erased with this commit.
    pub(super) fn erase(&mut self, erasures: impl IntoIterator<Item = Erasure>) {
        self.erasures.extend(erasures);
    }

    pub(super) fn size(&self) -> u64 {
        self.growth.size() + self.placed_count
    }

    pub(super) fn runs(&self) -> &[PublicationRun] {
        &self.runs
    }

    pub(super) fn keys(&self) -> &[(EventKey, u64)] {
        &self.keys
    }

    /// What this commit already takes of a series.
    pub(super) fn runs_of(
        &self,
        publisher: Publisher,
    ) -> impl DoubleEndedIterator<Item = &PublicationRun> {
        self.runs
            .iter()
            .filter(move |run| run.publisher == publisher)
    }

    /// Where an unnumbered event lies, if this commit already takes it.
    pub(super) fn sequence_of_key(&self, key: &EventKey) -> Option<u64> {
        self.keys
            .iter()
            .find(|(known, _)| known == key)
            .map(|(_, sequence)| *sequence)
    }

    /// Attributes and data part of an event that this commit already takes.
    pub(super) fn event_bytes(&self, sequence: u64) -> Option<&[u8]> {
        let at = self.firsts.partition_point(|first| *first <= sequence);
        let at = at.checked_sub(1)?;
        let place = |sequence: u64| usize::try_from(sequence.checked_sub(self.expected_size)?).ok();
        let (first, index) = (place(*self.firsts.get(at)?)?, place(sequence)?);
        let bytes =
            |part: &ContentInput| part.attribute_bytes as usize + part.data_part_bytes as usize;
        let before = self.lengths.get(first..index)?.iter();
        let start = before
            .map(|part| CONTENT_SALT_BYTES + bytes(part))
            .sum::<usize>();
        let start = start + CONTENT_SALT_BYTES;
        let end = start + bytes(self.lengths.get(index)?);
        self.content.get(at)?.get(start..end)
    }

    /// Gives the events their places at the end of the log; returns the last sequence.
    ///
    /// # Errors
    /// [`NotNext`] where the tree is full.
    pub(super) fn extend(&mut self, sealed: &SealedBatch, now: Timestamp) -> Result<u64, NotNext> {
        self.firsts.push(self.size());
        if self.log.is_encrypted() {
            return Ok(self.place(sealed, None, now));
        }
        self.push(sealed, now)?;
        self.lengths
            .extend(sealed.lengths.iter().map(content_input));
        self.content.push(sealed.content.clone());
        Ok(self.size().saturating_sub(1))
    }

    /// As [`Stage::extend`], for events that are to be encrypted under this key.
    pub(super) fn extend_encrypted(
        &mut self,
        sealed: &SealedBatch,
        key: Arc<DataKey>,
        now: Timestamp,
    ) -> u64 {
        self.firsts.push(self.size());
        self.place(sealed, Some(key), now)
    }

    /// Plaintext until the commit is sealed: repeats within the commit are recognised by it.
    fn place(&mut self, sealed: &SealedBatch, key: Option<Arc<DataKey>>, now: Timestamp) -> u64 {
        let placed = Placed {
            batch: sealed.clone(),
            first: self.size(),
            key,
        };
        self.placed_count += sealed.count() as u64;
        self.placed.push((placed, now));
        self.lengths
            .extend(sealed.lengths.iter().map(content_input));
        self.content.push(sealed.content.clone());
        self.size().saturating_sub(1)
    }

    /// Encrypts what is placed, and makes entries of it. Nothing finds a place afterwards.
    ///
    /// # Errors
    /// [`NotNext`] where the tree is full.
    pub(super) fn seal(&mut self) -> Result<(), NotNext> {
        if self.placed.is_empty() {
            return Ok(());
        }
        let (placed, times): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.placed).into_iter().unzip();
        self.placed_count = 0;
        self.lengths.clear();
        self.content.clear();
        let ends: Vec<u64> = placed
            .iter()
            .map(|placed| placed.first + placed.batch.count() as u64)
            .collect();
        let mut sealed = seal_placed(&placed).into_iter().peekable();
        for (end, now) in ends.into_iter().zip(times) {
            while let Some(batch) = sealed.next_if(|_| self.growth.size() < end) {
                self.push(&batch, now)?;
                self.lengths.extend(batch.lengths.iter().map(content_input));
                self.content.push(batch.content);
            }
        }
        Ok(())
    }

    fn push(&mut self, sealed: &SealedBatch, now: Timestamp) -> Result<(), NotNext> {
        // A clock that fell back is clamped: a log's time never decreases.
        let time = Timestamp(now.0.max(self.growth.last_time_us()));
        self.entries.reserve(sealed.heads.len() * ENTRY_BYTES);
        self.growth.reserve(sealed.heads.len());
        for head in &sealed.heads {
            let (sequence, before) = (self.growth.size(), self.growth.last_leaf());
            let entry = head.entry(sealed.kind, sequence, before, time).encode();
            self.growth.push(&entry)?;
            self.entries.extend_from_slice(&entry);
        }
        Ok(())
    }

    pub(super) fn add_run(&mut self, run: PublicationRun) {
        if let Some(last) = self.runs.last_mut()
            && last.publisher == run.publisher
            && last.last_number() + 1 == run.first_number
            && last.first_sequence + u64::from(last.count) == run.first_sequence
        {
            last.count += run.count;
        } else {
            self.runs.push(run);
        }
    }

    pub(super) fn add_keys(&mut self, keys: impl IntoIterator<Item = (EventKey, u64)>) {
        self.keys.extend(keys);
    }

    /// Takes a batch of a copied log as it was verified.
    ///
    /// # Errors
    /// [`NotNext`] where it does not continue the copy.
    pub(super) fn take_copy(
        &mut self,
        batch: &VerifiedBatch,
        cover: Vec<u8>,
    ) -> Result<(), NotNext> {
        self.growth.reserve(batch.leaf_hashes().len());
        for (entry, leaf) in batch
            .entries()
            .chunks_exact(ENTRY_BYTES)
            .zip(batch.leaf_hashes())
        {
            self.growth.push_hashed(entry, *leaf)?;
        }
        self.entries.extend_from_slice(batch.entries());
        self.lengths
            .extend(batch.lengths().iter().map(content_input));
        self.content.push(batch.content().clone());
        self.cover = cover;
        let Cover::Checkpoint { head, .. } = batch.cover();
        self.tip.producer = Some(head.clone());
        Ok(())
    }

    /// The part for the journal. Takes the bytes: only what [`integrate`](super::state) needs stays.
    pub(super) fn take_part(&mut self) -> PartInput {
        self.tip.range = self.growth.range().clone();
        self.tip.last_leaf = self.growth.last_leaf();
        self.tip.last_time_us = self.growth.last_time_us();
        let rest = self.tip.growth();
        PartInput {
            log: self.log.number(),
            expected_size: self.expected_size,
            entries: std::mem::take(&mut self.entries),
            growth: std::mem::replace(&mut self.growth, rest),
            signature_before: self.signature_before,
            cover: std::mem::take(&mut self.cover),
            annotation: if self.runs.is_empty() {
                Vec::new()
            } else {
                postcard::to_stdvec(&self.runs).unwrap_or_default()
            },
            erasures: std::mem::take(&mut self.erasures),
            contents: std::mem::take(&mut self.lengths),
            content: std::mem::take(&mut self.content),
        }
    }
}

fn content_input(lengths: &Lengths) -> ContentInput {
    if lengths.is_absent() {
        return ContentInput::ABSENT;
    }
    ContentInput {
        attribute_bytes: lengths.attribute_bytes,
        data_part_bytes: lengths.data_part_bytes,
    }
}
