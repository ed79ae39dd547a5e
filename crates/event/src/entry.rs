//! The entry: one Merkle leaf, the skeleton of an event that stays for ever.
//!
//! ```text
//! offset size field
//!      0    1 version          = 1
//!      1    1 kind and flags   ┌ bit 7 6 ┬ bit 5 ────────┬ bit 4 ────┬ bits 3..0 ────────┐
//!                              │ zero    │ author-signed │ encrypted │ 0 event 1 control │
//!                              └─────────┴───────────────┴───────────┴───────────────────┘
//!      2    4 data length      bytes of the data as they came
//!      6    8 sequence         the first entry of a log has 0
//!     14   32 prev             RFC 6962 leaf hash of the entry before; zero where sequence = 0
//!     46    8 time             microseconds since 1970, UTC
//!     54   32 attribute commitment
//!     86   32 data commitment
//!    118
//! ```
//!
//! Integers are big-endian. With the byte 0x00 that RFC 6962 puts before a leaf and SHA-256's own padding, 118 bytes
//! fill two blocks: the leaf hash cannot cost less for this content.

use countersign_crypto::{Hash, sha256_headed};

use crate::time::Timestamp;

/// Bytes of an encoded entry: 128 (two SHA-256 blocks) − 9 (padding) − 1 (the RFC 6962 leaf byte).
pub const ENTRY_BYTES: usize = 118;

/// The version this module writes and reads.
pub const ENTRY_VERSION: u8 = 1;

const KIND_MASK: u8 = 0x0f;
const ENCRYPTED: u8 = 0x10;
const AUTHOR_SIGNED: u8 = 0x20;
const RESERVED: u8 = 0xc0;

/// What an entry is about. The numbers are stored and never reused.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// An event that somebody published.
    Event = 0,
    /// A statement of the log about itself: never filtered, erased, billed or counted.
    Control = 1,
}

/// What can be said about the content without having it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Flags {
    /// The data part is ciphertext.
    pub encrypted: bool,
    /// The data part carries author material (`dssematerial`): its absence is then a removal.
    pub author_signed: bool,
}

/// A decoded entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Event or control.
    pub kind: Kind,
    /// Encrypted, author-signed.
    pub flags: Flags,
    /// Bytes of the data as they came, or of the ciphertext.
    pub data_bytes: u32,
    /// Position in the log, from 0.
    pub sequence: u64,
    /// Leaf hash of the entry before; zero at sequence 0.
    pub prev: Hash,
    /// The log's clock at sequencing.
    pub time: Timestamp,
    /// Commitment to the attributes.
    pub attributes: Hash,
    /// Commitment to the data part.
    pub data: Hash,
}

/// Why bytes are not an entry of version 1.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EntryError {
    /// Sequence 0 with a `prev` other than zero.
    #[error("the entry has sequence 0 and yet names an entry before it")]
    FirstHasPrev,
    /// A kind this version does not know.
    #[error("entry kind {found} is unknown (0 is an event, 1 a control entry)")]
    Kind {
        /// The low nibble of the kind byte.
        found: u8,
    },
    /// Not 118 bytes.
    #[error("an entry has {ENTRY_BYTES} bytes, not {found}")]
    Length {
        /// Bytes given.
        found: usize,
    },
    /// Reserved bits are set.
    #[error("reserved bits are set in the kind byte {found:#04x}")]
    ReservedBits {
        /// The kind byte.
        found: u8,
    },
    /// A version this program does not know.
    #[error("entry version {found} is unknown (this program reads version {ENTRY_VERSION})")]
    Version {
        /// The version byte.
        found: u8,
    },
}

impl Entry {
    /// The canonical bytes. An entry at sequence 0 must have a zero `prev`, or no decoder will take them.
    #[must_use]
    pub fn encode(&self) -> [u8; ENTRY_BYTES] {
        debug_assert!(self.sequence != 0 || self.prev == [0; 32]);
        let mut kind = self.kind as u8;
        if self.flags.encrypted {
            kind |= ENCRYPTED;
        }
        if self.flags.author_signed {
            kind |= AUTHOR_SIGNED;
        }
        let mut out = [0; ENTRY_BYTES];
        out[0] = ENTRY_VERSION;
        out[1] = kind;
        out[2..6].copy_from_slice(&self.data_bytes.to_be_bytes());
        out[6..14].copy_from_slice(&self.sequence.to_be_bytes());
        out[14..46].copy_from_slice(&self.prev);
        out[46..54].copy_from_slice(&self.time.0.to_be_bytes());
        out[54..86].copy_from_slice(&self.attributes);
        out[86..118].copy_from_slice(&self.data);
        out
    }

    /// Reads canonical bytes; every accepted input is what [`Entry::encode`] gives for the result.
    ///
    /// # Errors
    /// [`EntryError`] for another length, version or kind, reserved bits, or a `prev` at sequence 0.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let bytes: &[u8; ENTRY_BYTES] = bytes
            .try_into()
            .map_err(|_| EntryError::Length { found: bytes.len() })?;
        if bytes[0] != ENTRY_VERSION {
            return Err(EntryError::Version { found: bytes[0] });
        }
        if bytes[1] & RESERVED != 0 {
            return Err(EntryError::ReservedBits { found: bytes[1] });
        }
        let kind = match bytes[1] & KIND_MASK {
            0 => Kind::Event,
            1 => Kind::Control,
            found => return Err(EntryError::Kind { found }),
        };
        let entry = Self {
            kind,
            flags: Flags {
                encrypted: bytes[1] & ENCRYPTED != 0,
                author_signed: bytes[1] & AUTHOR_SIGNED != 0,
            },
            data_bytes: u32::from_be_bytes(array(bytes, 2)),
            sequence: u64::from_be_bytes(array(bytes, 6)),
            prev: array(bytes, 14),
            time: Timestamp(u64::from_be_bytes(array(bytes, 46))),
            attributes: array(bytes, 54),
            data: array(bytes, 86),
        };
        if entry.sequence == 0 && entry.prev != [0; 32] {
            return Err(EntryError::FirstHasPrev);
        }
        Ok(entry)
    }
}

/// RFC 6962 leaf hash of an encoded entry: what the next entry's `prev` holds.
#[must_use]
pub fn leaf_hash(entry: &[u8; ENTRY_BYTES]) -> Hash {
    sha256_headed(&[0x00], entry)
}

/// `N` bytes from offset `at`; both are constants of the layout above.
fn array<const N: usize>(bytes: &[u8; ENTRY_BYTES], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}
