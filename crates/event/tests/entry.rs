//! Entries: the layout holds, and only the canonical form is read.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use countersign_event::entry::{ENTRY_BYTES, Entry, EntryError, Flags, Kind, leaf_hash};
use countersign_event::time::Timestamp;
use proptest::prelude::*;

fn entries() -> impl Strategy<Value = Entry> {
    (
        any::<(bool, bool, bool, u32, u64, u64)>(),
        any::<([u8; 32], [u8; 32], [u8; 32])>(),
    )
        .prop_map(
            |((control, encrypted, author_signed, data_bytes, sequence, time), hashes)| Entry {
                kind: if control { Kind::Control } else { Kind::Event },
                flags: Flags {
                    encrypted,
                    author_signed,
                },
                data_bytes,
                sequence,
                prev: if sequence == 0 { [0; 32] } else { hashes.0 },
                time: Timestamp(time),
                attributes: hashes.1,
                data: hashes.2,
            },
        )
}

fn sample() -> Entry {
    Entry {
        kind: Kind::Control,
        flags: Flags {
            encrypted: false,
            author_signed: true,
        },
        data_bytes: 0x0102_0304,
        sequence: 0x1112_1314_1516_1718,
        prev: [0xaa; 32],
        time: Timestamp(0x2122_2324_2526_2728),
        attributes: [0xbb; 32],
        data: [0xcc; 32],
    }
}

#[test]
fn fields_lie_where_the_layout_says() {
    let bytes = sample().encode();
    assert_eq!(bytes[..6], [1, 0x21, 1, 2, 3, 4]);
    assert_eq!(
        bytes[6..14],
        [0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]
    );
    assert_eq!(bytes[14..46], [0xaa; 32]);
    assert_eq!(
        bytes[46..54],
        [0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28]
    );
    assert_eq!(bytes[54..86], [0xbb; 32]);
    assert_eq!(bytes[86..], [0xcc; 32]);
}

#[test]
fn other_versions_kinds_bits_and_lengths_are_refused() {
    let good = sample().encode();
    let with = |at: usize, byte: u8| {
        let mut bytes = good;
        bytes[at] = byte;
        Entry::decode(&bytes)
    };
    for found in [0, 2, 255] {
        assert_eq!(with(0, found), Err(EntryError::Version { found }));
    }
    for found in 2..=15 {
        assert_eq!(with(1, found), Err(EntryError::Kind { found }));
    }
    for found in [0x40, 0x80, 0xc0, 0x41] {
        assert_eq!(with(1, found), Err(EntryError::ReservedBits { found }));
    }
    for found in [0, 1, ENTRY_BYTES - 1, ENTRY_BYTES + 1] {
        let mut bytes = good.to_vec();
        bytes.resize(found, 0);
        assert_eq!(Entry::decode(&bytes), Err(EntryError::Length { found }));
    }
}

#[test]
fn the_first_entry_names_none_before_it() {
    let mut bytes = sample().encode();
    bytes[6..14].fill(0);
    assert_eq!(Entry::decode(&bytes), Err(EntryError::FirstHasPrev));
    bytes[14..46].fill(0);
    assert_eq!(Entry::decode(&bytes).unwrap().sequence, 0);
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(entry in entries()) {
        prop_assert_eq!(Entry::decode(&entry.encode()), Ok(entry));
    }

    #[test]
    fn every_accepted_input_is_canonical(mut bytes: [[u8; 59]; 2], head in 0u8..0x40) {
        bytes[0][0] = 1;
        bytes[0][1] = head & 0x31;
        let bytes = bytes.concat();
        if let Ok(entry) = Entry::decode(&bytes) {
            prop_assert_eq!(&entry.encode()[..], &bytes[..]);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Entry::decode(&bytes);
    }

    #[test]
    fn every_changed_byte_is_refused_or_changes_entry_and_leaf(entry in entries(), at in 0..ENTRY_BYTES, bit in 0..8u8) {
        let bytes = entry.encode();
        let mut changed = bytes;
        changed[at] ^= 1 << bit;
        prop_assert_ne!(leaf_hash(&bytes), leaf_hash(&changed));
        prop_assert_ne!(Entry::decode(&changed), Ok(entry));
    }
}
