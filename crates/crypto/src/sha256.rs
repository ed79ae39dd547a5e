//! SHA-256 of messages that lie ready in memory, and of pieces.
//!
//! ```text
//! head ‖ body ‖ 0x80 ‖ zeros ‖ length in bits (u64)        FIPS 180-4, 5.1.1
//! └ first block ┴ blocks of the body as they lie ┴ last one or two blocks ┘
//! ```
//!
//! Every event costs four such messages. Laid out here, each block goes to the compression function of `sha2` once, and from
//! where it lies; through the streaming interface every piece is first copied into a buffer, which costs as much as a block.

use sha2::block_api::compress256;
use sha2::{Digest, Sha256};

use crate::work;

/// A SHA-256 digest.
pub type Hash = [u8; 32];

const BLOCK_BYTES: usize = 64;

type Block = [u8; BLOCK_BYTES];

/// The initial state (FIPS 180-4, 5.3.3).
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// SHA-256 of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Hash {
    sha256_headed(&[], bytes)
}

/// SHA-256 of `head ‖ body`, where the head (a tag, a salt) is shorter than a block and its length known beforehand.
#[must_use]
#[inline]
pub fn sha256_headed<const HEAD: usize>(head: &[u8; HEAD], body: &[u8]) -> Hash {
    let mut state = INITIAL;
    Message::new(head, body).compress_from(0, &mut state);
    digest(&state)
}

/// The digests of two messages, each `head ‖ body`, computed side by side: a block waits for the one before it in the same
/// message only, so that the processor works on one message while it waits for the other. A quarter cheaper than one after
/// the other, as far as both reach.
#[must_use]
#[inline]
pub fn sha256_headed_pair<const HEAD: usize>(
    one: (&[u8; HEAD], &[u8]),
    other: (&[u8; HEAD], &[u8]),
) -> (Hash, Hash) {
    let (one, other) = (Message::new(one.0, one.1), Message::new(other.0, other.1));
    let (mut state, mut other_state) = (INITIAL, INITIAL);
    let shared = one.blocks().min(other.blocks());
    for index in 0..shared {
        compress256(&mut state, one.block(index));
        compress256(&mut other_state, other.block(index));
    }
    one.compress_from(shared, &mut state);
    other.compress_from(shared, &mut other_state);
    (digest(&state), digest(&other_state))
}

/// SHA-256 of the concatenation of `parts`, without joining them in memory.
#[must_use]
pub fn sha256_of(parts: &[&[u8]]) -> Hash {
    let mut hasher = Sha256::new();
    for part in parts {
        work::hashed(part.len());
        hasher.update(part);
    }
    work::digest_finished();
    hasher.finalize().into()
}

/// A SHA-256 computation fed piece by piece.
#[derive(Clone, Debug, Default)]
pub struct Sha256Stream(Sha256);

impl Sha256Stream {
    /// An empty computation.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        work::hashed(bytes.len());
        self.0.update(bytes);
    }

    /// The digest of all bytes added.
    #[must_use]
    pub fn finish(self) -> Hash {
        work::digest_finished();
        self.0.finalize().into()
    }
}

/// A message in blocks: those of `first`, `middle` and `last` in this order.
struct Message<'a> {
    /// The head with the beginning of the body; unused where there is no head or the body does not fill the block.
    first: [Block; 1],
    first_blocks: usize,
    middle: &'a [Block],
    /// What remains, with the padding.
    last: [Block; 2],
    last_blocks: usize,
}

impl<'a> Message<'a> {
    #[inline]
    fn new<const HEAD: usize>(head: &[u8; HEAD], body: &'a [u8]) -> Self {
        const { assert!(HEAD < BLOCK_BYTES) };
        work::hashed(HEAD + body.len());
        work::digest_finished();
        let mut first = [[0; BLOCK_BYTES]];
        let mut last = [[0; BLOCK_BYTES]; 2];
        let end = last.as_flattened_mut();
        let (first_blocks, middle, tail_bytes) = match body.split_at_checked(BLOCK_BYTES - HEAD) {
            Some((begin, rest)) if HEAD > 0 => {
                first[0][..HEAD].copy_from_slice(head);
                first[0][HEAD..].copy_from_slice(begin);
                let (middle, tail) = rest.as_chunks();
                end[..tail.len()].copy_from_slice(tail);
                (1, middle, tail.len())
            }
            _ => {
                // Either no head, or all in one block.
                let (middle, tail) = body.as_chunks();
                end[..HEAD].copy_from_slice(head);
                end[HEAD..HEAD + tail.len()].copy_from_slice(tail);
                (0, middle, HEAD + tail.len())
            }
        };
        end[tail_bytes] = 0x80;
        // The length takes the last 8 bytes; where they are not free any more, it goes into a block of its own.
        let last_blocks = if tail_bytes < BLOCK_BYTES - 8 { 1 } else { 2 };
        let bits = 8 * (HEAD as u64 + body.len() as u64);
        last[last_blocks - 1][BLOCK_BYTES - 8..].copy_from_slice(&bits.to_be_bytes());
        Self {
            first,
            first_blocks,
            middle,
            last,
            last_blocks,
        }
    }

    #[inline]
    fn runs(&self) -> [&[Block]; 3] {
        [
            &self.first[..self.first_blocks],
            self.middle,
            &self.last[..self.last_blocks],
        ]
    }

    #[inline]
    fn blocks(&self) -> usize {
        self.first_blocks + self.middle.len() + self.last_blocks
    }

    /// The block at `index`, as a run of one; empty beyond the end.
    #[inline]
    fn block(&self, mut index: usize) -> &[Block] {
        for run in self.runs() {
            if let Some(block) = run.get(index) {
                return std::slice::from_ref(block);
            }
            index -= run.len();
        }
        &[]
    }

    /// Compresses the blocks from `index` on.
    #[inline]
    fn compress_from(&self, mut index: usize, state: &mut [u32; 8]) {
        for run in self.runs() {
            if let Some(rest) = run.get(index..)
                && !rest.is_empty()
            {
                compress256(state, rest);
            }
            index = index.saturating_sub(run.len());
        }
    }
}

#[inline]
fn digest(state: &[u32; 8]) -> Hash {
    let mut out = [0; 32];
    for (bytes, word) in out.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    out
}
