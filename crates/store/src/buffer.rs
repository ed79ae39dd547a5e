//! Buffers for commits: aligned, so that a direct write takes them as they are, and used again, since memory that is touched for the first time costs
//! more than everything that is done with it.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::disk::DIRECT_ALIGNMENT;

/// Smaller buffers are left to the allocator, which keeps such memory at hand itself.
const KEPT_BYTES_MIN: usize = 128 << 10;

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
                Vec::with_capacity(needed.next_multiple_of(KEPT_BYTES_MIN * 4))
            }
            None => Vec::with_capacity(needed),
        };
        let start = bytes
            .as_ptr()
            .align_offset(DIRECT_ALIGNMENT)
            .min(DIRECT_ALIGNMENT);
        bytes.resize(start, 0);
        Buffer {
            bytes,
            start,
            home: self.clone(),
        }
    }

    /// One that is kept and has room, but not many times too much: what is held in memory for readers is counted by its length.
    fn kept(&self, needed: usize) -> Option<Vec<u8>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits =
            |bytes: &Vec<u8>| (needed..=needed.saturating_mul(4)).contains(&bytes.capacity());
        let at = kept.iter().position(fits)?;
        Some(kept.swap_remove(at))
    }

    fn put_back(&self, mut bytes: Vec<u8>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes.capacity() < KEPT_BYTES_MIN {
            return;
        }
        bytes.clear();
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
    bytes: Vec<u8>,
    start: usize,
    home: Buffers,
}

impl Buffer {
    pub(crate) fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Makes it `len` bytes long; new ones are zeros.
    pub(crate) fn resize(&mut self, len: usize) {
        self.bytes.resize(self.start + len, 0);
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
        &self.bytes[self.start..]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
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
    }

    #[test]
    fn a_small_commit_does_not_hold_a_large_buffer() {
        let buffers = Buffers::default();
        drop(buffers.take(4 << 20));
        assert!(buffers.take(1 << 10).bytes.capacity() < KEPT_BYTES_MIN);
        assert!(buffers.take(2 << 20).bytes.capacity() >= 4 << 20);
    }
}
