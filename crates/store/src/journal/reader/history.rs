//! What was stored beside entries: annotations, checkpoints, covers.

use super::super::error::ReadError;
use super::super::state::{PartRef, Published};
use super::super::types::{Annotation, LogNumber, StoredCheckpoint, StoredCover};
use super::JournalReader;

impl JournalReader {
    /// Shows each stored annotation from a commit on, in order of commits, of one log or of all, until `visit` says `false`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn annotations(
        &self,
        log: Option<LogNumber>,
        from_commit: u64,
        visit: &mut dyn FnMut(Annotation) -> bool,
    ) -> Result<(), ReadError> {
        for part in self.parts_from(from_commit)? {
            let wanted = log.is_none_or(|log| log.0 == part.log);
            if !wanted || part.annotation_len == 0 {
                continue;
            }
            let meta = self.read_meta(&part)?;
            let start = part.cover_len as usize;
            let annotation = Annotation {
                commit: part.commit,
                log: LogNumber(part.log),
                first: part.first,
                count: part.count,
                annotation: meta.slice(start..start + part.annotation_len as usize),
            };
            if !visit(annotation) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The newest stored checkpoint of a log with at most `size` entries.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn checkpoint_at_or_before(
        &self,
        log: LogNumber,
        size: u64,
    ) -> Result<Option<StoredCheckpoint>, ReadError> {
        let found = self.newest_part(log, |part| part.signed && part.first <= size)?;
        let Some(part) = found else { return Ok(None) };
        let header = self.part_header(&part)?;
        Ok(header.signature.map(|signature| StoredCheckpoint {
            size: header.first,
            root: header.root_before,
            signature,
        }))
    }

    /// The oldest stored checkpoint of a log that covers at least `size` entries.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn checkpoint_at_or_after(
        &self,
        log: LogNumber,
        size: u64,
    ) -> Result<Option<StoredCheckpoint>, ReadError> {
        // Walking back and keeping the last match is as far as walking forward from there.
        let mut oldest = None;
        self.walk_back(log, &mut |part| {
            if part.first < size {
                return false;
            }
            if part.signed {
                oldest = Some(part);
            }
            true
        })?;
        let Some(part) = oldest else { return Ok(None) };
        let header = self.part_header(&part)?;
        Ok(header.signature.map(|signature| StoredCheckpoint {
            size: header.first,
            root: header.root_before,
            signature,
        }))
    }

    /// The newest stored cover of a log of at most `size` entries.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn cover_at_or_before(
        &self,
        log: LogNumber,
        size: u64,
    ) -> Result<Option<StoredCover>, ReadError> {
        let found = self.newest_part(log, |part| part.cover_len > 0 && part.end() <= size)?;
        let Some(part) = found else { return Ok(None) };
        let meta = self.read_meta(&part)?;
        Ok(Some(StoredCover {
            size: part.end(),
            cover: meta.slice(..part.cover_len as usize),
        }))
    }

    /// The oldest stored cover of a log of at least `size` entries.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn cover_at_or_after(
        &self,
        log: LogNumber,
        size: u64,
    ) -> Result<Option<StoredCover>, ReadError> {
        let mut oldest = None;
        self.walk_back(log, &mut |part| {
            if part.end() < size {
                return false;
            }
            if part.cover_len > 0 {
                oldest = Some(part);
            }
            true
        })?;
        let Some(part) = oldest else { return Ok(None) };
        let meta = self.read_meta(&part)?;
        Ok(Some(StoredCover {
            size: part.end(),
            cover: meta.slice(..part.cover_len as usize),
        }))
    }

    /// All parts of commits from `from` on, in order.
    fn parts_from(&self, from: u64) -> Result<Vec<PartRef>, ReadError> {
        let (mut sealed, mut parts) = {
            let published = self.shared.read();
            (sealed_segments(&published), open_parts(&published, None))
        };
        parts.retain(|part| part.commit >= from);
        sealed.sort_unstable();
        sealed.dedup();
        for segment in sealed.into_iter().rev() {
            let index = self.index(segment)?;
            let reaches_back = index.0.iter().any(|part| part.commit <= from);
            parts.extend(index.0.iter().filter(|part| part.commit >= from));
            if reaches_back {
                break;
            }
        }
        parts.sort_unstable_by_key(|part| (part.commit, part.index));
        Ok(parts)
    }

    fn newest_part(
        &self,
        log: LogNumber,
        wanted: impl Fn(&PartRef) -> bool,
    ) -> Result<Option<PartRef>, ReadError> {
        let mut found = None;
        self.walk_back(log, &mut |part| {
            if wanted(&part) {
                found = Some(part);
            }
            found.is_none()
        })?;
        Ok(found)
    }

    /// Shows the parts of a log, newest first, until `visit` says `false`.
    fn walk_back(
        &self,
        log: LogNumber,
        visit: &mut dyn FnMut(PartRef) -> bool,
    ) -> Result<(), ReadError> {
        let (open, sealed) = {
            let published = self.shared.read();
            let state = published
                .logs
                .logs
                .get(&log.0)
                .ok_or(ReadError::UnknownLog(log))?;
            (open_parts(&published, Some(log.0)), state.sealed.clone())
        };
        for part in open.into_iter().rev() {
            if !visit(part) {
                return Ok(());
            }
        }
        for span in sealed.iter().rev() {
            let index = self.index(span.segment)?;
            for part in index.of_log(log.0).iter().rev() {
                if !visit(*part) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn sealed_segments(published: &Published) -> Vec<u32> {
    let logs = published.logs.logs.values();
    logs.flat_map(|log| log.sealed.iter().map(|span| span.segment))
        .collect()
}

fn open_parts(published: &Published, log: Option<u32>) -> Vec<PartRef> {
    let logs = published.logs.logs.values();
    logs.filter(|state| log.is_none_or(|log| log == state.number))
        .flat_map(|state| state.parts.iter().copied())
        .collect()
}
