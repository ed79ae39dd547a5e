//! What a stream of ours keeps by age, size and count, and what expires.

use std::sync::{Arc, PoisonError};

use countersign_event::control::{EXPIRY, Expiry, Retention, SETTINGS, Settings};
use countersign_event::documents::Digest;
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::Origin;

use crate::pipeline::ledger::seal_control_entry;
use crate::{Exchange, ExchangeError, Log};

/// What is known of a stream from the pass before, so that each entry is looked at a bounded number of times.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kept {
    /// No event below this has content.
    first: u64,
    /// Data bytes of the events in `from..to`.
    from: u64,
    to: u64,
    bytes: u64,
}

/// Entries looked at in one piece.
const PIECE_ENTRIES: u64 = 4096;

impl Exchange {
    /// Sets how long a stream of ours keeps content: recorded in the stream, for its readers, and in the ledger; applied at once.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn set_retention(
        self: &Arc<Self>,
        stream: &str,
        retention: Retention,
    ) -> Result<Option<u64>, ExchangeError> {
        let log = self.own_stream(stream)?;
        if self.registry().erasure.retention(log.origin()) != retention {
            let settings = Settings {
                retention: Some(retention),
                ..Settings::default()
            };
            let json = serde_json::to_string(&settings).unwrap_or_default();
            let sealed = self.with_entropy(|entropy| {
                seal_control_entry(log.origin(), SETTINGS, &json, entropy)
            })?;
            self.writer()
                .append_and_wait(Arc::clone(&log), sealed, None)
                .await?;
            // A crash before this leaves settings that readers see and nobody applies: the command is given again.
            let record = LedgerRecord::Retention {
                stream: log.origin().clone(),
                age_seconds: retention.age_seconds,
                bytes: retention.bytes,
                count: retention.count,
            };
            self.record_and_wait(None, record).await?;
        }
        self.expire(&log, retention).await
    }

    /// Expires what is due in every stream.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn apply_retention(self: &Arc<Self>) -> Result<Vec<(Origin, u64)>, ExchangeError> {
        let retained = self.registry().erasure.retained();
        let mut expired = Vec::new();
        for (stream, retention) in retained {
            let Some(log) = self.log(&stream) else {
                continue;
            };
            if let Some(below) = self.expire(&log, retention).await? {
                expired.push((stream, below));
            }
        }
        Ok(expired)
    }

    /// Appends an expiry where events have content that is due; `None` where none has, or a legal hold keeps it.
    async fn expire(
        self: &Arc<Self>,
        log: &Arc<Log>,
        retention: Retention,
    ) -> Result<Option<u64>, ExchangeError> {
        let _one = self.erasing().one.lock().await;
        // A frozen stream takes no expiry: what is due now is due when it goes on.
        if retention.keeps_all() || self.not_held(log.origin()).is_err() || log.is_frozen() {
            return Ok(None);
        }
        let mut kept = {
            let known = self.erasing().retention.lock();
            let known = known.unwrap_or_else(PoisonError::into_inner);
            known.get(log.origin()).copied().unwrap_or_default()
        };
        let below = self.due(log, retention, &mut kept)?;
        kept.first = self.first_with_content(log, kept.first, below)?;
        let is_due = kept.first < below;
        if is_due {
            let expiry = Expiry {
                below,
                policy: Digest(retention.digest()),
            };
            let json = serde_json::to_string(&expiry).unwrap_or_default();
            let sealed = self
                .with_entropy(|entropy| seal_control_entry(log.origin(), EXPIRY, &json, entropy))?;
            // From the beginning: the newest expiry speaks for all before it.
            self.writer()
                .erase(Arc::clone(log), sealed, 0, below)
                .await?;
            kept.first = below;
        }
        self.erasing()
            .retention
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(log.origin().clone(), kept);
        Ok(is_due.then_some(below))
    }

    /// The sequence below which content expires now.
    fn due(&self, log: &Log, retention: Retention, kept: &mut Kept) -> Result<u64, ExchangeError> {
        let size = log.size();
        let mut below = 0;
        if let Some(seconds) = retention.age_seconds {
            let age_us = seconds.saturating_mul(1_000_000);
            let oldest = self.clock().now().0.saturating_sub(age_us);
            below = below.max(self.first_at(log, size, oldest)?);
        }
        if let Some(count) = retention.count {
            below = below.max(size.saturating_sub(count.max(1)));
        }
        if let Some(bytes) = retention.bytes {
            below = below.max(self.first_within(log, size, bytes, kept)?);
        }
        Ok(below)
    }

    /// The first of the newest events that together have at most `bytes` of data. The newest one always counts.
    fn first_within(
        &self,
        log: &Log,
        size: u64,
        bytes: u64,
        kept: &mut Kept,
    ) -> Result<u64, ExchangeError> {
        if kept.from < kept.first {
            // Another limit, or a single erasure at the beginning, was ahead: what is gone is not counted.
            (kept.from, kept.to, kept.bytes) = (kept.first, kept.first, 0);
        }
        while kept.to < size {
            let end = size.min(kept.to + PIECE_ENTRIES);
            let mut sum = 0;
            self.look(log, kept.to, end, &mut |_, data| sum += data.unwrap_or(0))?;
            kept.bytes += sum;
            kept.to = end;
        }
        while kept.bytes > bytes && kept.from < size {
            let end = size.min(kept.from + PIECE_ENTRIES);
            let (mut left, mut from) = (kept.bytes, kept.from);
            self.look(log, kept.from, end, &mut |sequence, data| {
                if left > bytes && sequence + 1 < size {
                    left -= data.unwrap_or(0);
                    from = sequence + 1;
                }
            })?;
            if from == kept.from {
                break;
            }
            (kept.bytes, kept.from) = (left, from);
        }
        Ok(kept.from)
    }

    /// The first event from `from` on that has content, up to `end`.
    fn first_with_content(&self, log: &Log, from: u64, end: u64) -> Result<u64, ExchangeError> {
        let mut next = from;
        while next < end {
            let piece = end.min(next + PIECE_ENTRIES);
            let erased = self.reader().erasures(log.number(), next, piece);
            let mut found = None;
            self.look(log, next, piece, &mut |sequence, data| {
                let at = erased.partition_point(|run| run.end <= sequence);
                let gone = erased.get(at).is_some_and(|run| run.first <= sequence);
                if data.is_some() && !gone && found.is_none() {
                    found = Some(sequence);
                }
            })?;
            if let Some(found) = found {
                return Ok(found);
            }
            next = piece;
        }
        Ok(next)
    }

    /// Shows sequence and data bytes of each entry; `None` for a control entry.
    fn look(
        &self,
        log: &Log,
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<(), ExchangeError> {
        let mut sequence = from;
        self.reader()
            .entries(log.number(), from, to, &mut |entry| {
                let is_event = entry.get(1).is_some_and(|byte| byte & 0x0f == 0);
                let data = entry.get(2..6).and_then(|bytes| bytes.try_into().ok());
                let data = data.map_or(0, u32::from_be_bytes);
                visit(sequence, is_event.then(|| u64::from(data)));
                sequence += 1;
            })?;
        Ok(())
    }
}
