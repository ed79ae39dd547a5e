//! Buffers for what goes to the disk and comes from it: aligned, so that direct reads and writes take them as they are, and used again, since memory that
//! is touched for the first time costs more than everything that is done with it.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::disk::DIRECT_ALIGNMENT;

/// Smaller buffers are left to the allocator, which keeps such memory at hand itself.
pub(crate) const KEPT_BYTES_MIN: usize = 128 << 10;

/// Buffers that wait to be used again at most. Those in use are bounded by whoever holds them.
const KEPT_MAX: usize = 4;

/// Where buffers come from and return to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    /// An empty buffer with room for `capacity` bytes.
    pub(crate) fn take(&self, capacity: usize) -> Buffer {
        let needed = capacity + DIRECT_ALIGNMENT;
        let mut bytes = match self.kept(needed) {
            Some(bytes) => bytes,
            // In steps, so that the next commit, which is a little larger, finds room in it too.
            None if needed > KEPT_BYTES_MIN => {
                Vec::with_capacity(needed.next_multiple_of(KEPT_BYTES_MIN))
            }
            None => Vec::with_capacity(needed),
        };
        let start = bytes.as_ptr().align_offset(DIRECT_ALIGNMENT);
        let start = start.min(DIRECT_ALIGNMENT);
        if bytes.len() < start {
            bytes.resize(start, 0);
        }
        Buffer {
            bytes,
            start,
            end: start,
            home: self.clone(),
        }
    }

    /// A buffer of `len` bytes to be overwritten: what is in it is left from before.
    pub(crate) fn take_dirty(&self, len: usize) -> Buffer {
        let mut buffer = self.take(len);
        buffer.end += len;
        if buffer.bytes.len() < buffer.end {
            buffer.bytes.resize(buffer.end, 0);
        }
        buffer
    }

    /// One that is kept and has room, but not many times too much: what is held in memory for readers is counted by its length.
    fn kept(&self, needed: usize) -> Option<Vec<u8>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits =
            |bytes: &Vec<u8>| (needed..=needed.saturating_mul(2)).contains(&bytes.capacity());
        let at = kept.iter().position(fits)?;
        Some(kept.swap_remove(at))
    }

    fn put_back(&self, bytes: Vec<u8>) {
        if bytes.capacity() < KEPT_BYTES_MIN {
            return;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT_MAX {
            // The oldest has waited longest without fitting anything.
            kept.remove(0);
        }
        kept.push(bytes);
    }
}

/// Bytes that begin at a multiple of [`DIRECT_ALIGNMENT`] in memory, as long as no more are put in than there is room for.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// What lies behind `end` is left from an earlier use.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    home: Buffers,
}

impl Buffer {
    pub(crate) fn extend_from_slice(&mut self, more: &[u8]) {
        let end = self.end + more.len();
        match self.bytes.get_mut(self.end..end) {
            Some(room) => room.copy_from_slice(more),
            None => {
                self.bytes.truncate(self.end);
                self.bytes.extend_from_slice(more);
            }
        }
        self.end = end;
    }

    /// Makes it `len` bytes long; new ones are zeros.
    pub(crate) fn resize(&mut self, len: usize) {
        let end = self.start + len;
        self.bytes.truncate(self.end.max(self.start));
        self.bytes.resize(end, 0);
        self.end = end;
    }

    /// The bytes for many holders; the memory returns when the last of them lets go.
    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.home.put_back(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_and_used_again_once_nobody_holds_it() {
        let buffers = Buffers::default();
        let mut first = buffers.take(300 << 10);
        first.extend_from_slice(&[1; 300 << 10]);
        let at = first.as_ptr();
        assert_eq!(at.align_offset(DIRECT_ALIGNMENT), 0);
        let shared = first.freeze();
        let held = shared.slice(5..9);
        drop(shared);
        let other = buffers.take(300 << 10);
        assert_ne!(other.as_ptr(), at, "somebody still reads it");
        assert_eq!(&held[..], [1; 4]);
        drop(held);
        let mut again = buffers.take(290 << 10);
        assert_eq!(again.as_ptr(), at);
        again.resize(8);
        assert_eq!(&again[..], [0; 8], "what was in it before is gone");
        again.resize(0);
        again.extend_from_slice(&[2; 4]);
        again.resize(6);
        assert_eq!(&again[..], [2, 2, 2, 2, 0, 0]);
    }

    #[test]
    fn a_small_commit_does_not_hold_a_large_buffer() {
        let buffers = Buffers::default();
        drop(buffers.take(4 << 20));
        assert!(buffers.take(1 << 10).bytes.capacity() < KEPT_BYTES_MIN);
        assert!(buffers.take(3 << 20).bytes.capacity() >= 4 << 20);
    }
}
