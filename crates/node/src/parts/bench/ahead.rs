//! How far a publisher may be ahead of a reader in another process. The reader writes how many events it has taken into a small file, once a batch; the
//! publisher looks before each batch that would pass the bound.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::errors::{CommandError, ErrorCode};

/// How often a publisher looks that has to wait: a batch takes about as long at full speed.
const LOOK: Duration = Duration::from_micros(200);

/// The bound, as the publishing process is told.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Ahead {
    /// The reader's file.
    pub(super) file: PathBuf,
    /// Bytes of events as they are handed in.
    pub(super) bytes: u32,
}

/// The reader's side.
pub(super) struct Taken {
    file: File,
    events: AtomicU64,
}

impl Taken {
    /// # Errors
    /// Where the file cannot be made.
    pub(super) fn create(path: &Path) -> Result<Self, CommandError> {
        Ok(Self {
            file: File::create(path).map_err(|error| CommandError::new(ErrorCode::Io, error))?,
            events: AtomicU64::new(0),
        })
    }

    pub(super) fn add(&self, events: u64) {
        let all = self.events.fetch_add(events, Ordering::Relaxed) + events;
        // Batches of two streams may change places here: the next one puts it right.
        let _ = self.file.write_all_at(&all.to_be_bytes(), 0);
    }
}

/// The publisher's side.
#[derive(Debug)]
pub(super) struct Limit {
    file: File,
    events: u64,
    published: AtomicU64,
}

impl Limit {
    /// # Errors
    /// Where the reader has not made its file.
    pub(super) fn open(ahead: &Ahead, event_bytes: usize) -> Result<Self, CommandError> {
        Ok(Self {
            file: File::open(&ahead.file)
                .map_err(|error| CommandError::new(ErrorCode::Io, error))?,
            events: u64::from(ahead.bytes) / event_bytes.max(1) as u64,
            published: AtomicU64::new(0),
        })
    }

    /// Waits until the reader is near enough for so many more.
    pub(super) async fn wait(&self, events: u64) {
        let all = self.published.fetch_add(events, Ordering::Relaxed) + events;
        while all.saturating_sub(self.taken()) > self.events.max(events) {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn taken(&self) -> u64 {
        let mut bytes = [0; 8];
        // Nothing is there before the first batch.
        match self.file.read_exact_at(&mut bytes, 0) {
            Ok(()) => u64::from_be_bytes(bytes),
            Err(_) => 0,
        }
    }
}
