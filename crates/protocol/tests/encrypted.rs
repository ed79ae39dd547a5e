//! Entries whose data is encrypted: rebuilt to the same log without a key, and refused where they cannot be one.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use bytes::Bytes;
use countersign_crypto::{SeededEntropy, SigningKey};
use countersign_event::attributes::AttributesBuilder;
use countersign_event::commitment::{Salts, attribute_commitment, data_commitment};
use countersign_event::content::ContentError;
use countersign_event::encryption::EpochKey;
use countersign_event::entry::{Entry, Flags, Kind};
use countersign_event::time::Timestamp;
use countersign_filter::Filter;
use countersign_protocol::SignedHead;
use countersign_protocol::delivery::{
    BatchFault, BatchMessage, Cover, Lengths, LogReader, write_descriptors,
};
use countersign_tlog::checkpoint::signature_of;
use countersign_tlog::{Checkpoint, MemoryTree, compact_range_at, leaf_hash};

const ORIGIN: &str = "a.example/streams/orders";

fn key() -> SigningKey {
    SigningKey::from_seed(&[1; 32])
}

/// What is wrong with the last of the entries.
#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    Control,
    DataLength,
    KeyEntry,
    None,
    Short,
}

/// A control entry and three encrypted events, as a batch; and the entries.
fn batch(flaw: Flaw) -> (BatchMessage, Bytes, Vec<u8>) {
    let epoch_key = EpochKey::generate(&mut SeededEntropy::new(1));
    let (mut tree, mut prev) = (MemoryTree::default(), [0; 32]);
    let (mut entries, mut lengths, mut contents) = (Vec::new(), Vec::new(), Vec::new());
    for sequence in 0..4u64 {
        let flaw = if sequence == 3 { flaw } else { Flaw::None };
        let encrypted = sequence > 0;
        let attributes = AttributesBuilder::new(&sequence.to_string(), "urn:test", "test")
            .build()
            .unwrap();
        let salts = Salts::draw(&mut SeededEntropy::new(sequence));
        let committed = attribute_commitment(&salts.attributes, &attributes);
        let mut part = b"\x02{}".to_vec();
        if encrypted {
            let key_entry = if flaw == Flaw::KeyEntry { sequence } else { 0 };
            let data_key = epoch_key.data_key(ORIGIN, 0, key_entry, &[5; 32]);
            let mut sealed = Vec::new();
            data_key.seal(sequence, &committed, &part, &mut sealed);
            part = sealed;
        }
        if flaw == Flaw::Short {
            part.truncate(24);
        }
        let data_bytes = match (encrypted, flaw) {
            (false, _) => 2,
            (true, Flaw::DataLength) => part.len() as u32 - 1,
            (true, _) => part.len() as u32,
        };
        let entry = Entry {
            kind: match encrypted && flaw != Flaw::Control {
                true => Kind::Event,
                false => Kind::Control,
            },
            flags: Flags {
                encrypted,
                author_signed: sequence == 2,
            },
            data_bytes,
            sequence,
            prev,
            time: Timestamp(1_000_000 + sequence),
            attributes: committed,
            data: data_commitment(&salts.data, &part),
        };
        let entry = entry.encode();
        prev = leaf_hash(&entry);
        tree.append(prev);
        entries.extend_from_slice(&entry);
        lengths.push(Lengths {
            attribute_bytes: attributes.len() as u32,
            data_part_bytes: part.len() as u32,
        });
        for bytes in [&salts.attributes[..], &salts.data, &attributes, &part] {
            contents.extend_from_slice(bytes);
        }
    }
    let descriptors = write_descriptors(&entries, &lengths);
    let root = compact_range_at(&tree, 4).unwrap().root();
    let checkpoint = Checkpoint {
        origin: ORIGIN.to_owned(),
        size: 4,
        root,
    };
    let message = BatchMessage {
        first: 0,
        count: 4,
        descriptor_bytes: descriptors.len() as u32,
        cover: Cover::Checkpoint {
            head: SignedHead::new(4, root, signature_of(&checkpoint, &key())),
            consistency: Vec::new(),
        },
    };
    let bulk = Bytes::from([descriptors, contents].concat());
    (message, bulk, entries)
}

fn take(flaw: Flaw) -> BatchFault {
    let (message, bulk, _) = batch(flaw);
    let mut reader = LogReader::from_start(ORIGIN, key().public());
    reader.take(message, bulk).unwrap_err()
}

#[test]
fn encrypted_entries_make_the_same_log_for_who_has_no_key() {
    let (message, bulk, entries) = batch(Flaw::None);
    let mut reader = LogReader::from_start(ORIGIN, key().public());
    let taken = reader.take(message, bulk).unwrap();
    assert_eq!(taken.entries(), entries);
    // Three parts of 3 bytes, each with 24 around it.
    assert_eq!((taken.events(), taken.data_bytes()), (3, 3 * 27));
}

#[test]
fn one_altered_bit_of_a_ciphertext_makes_another_log() {
    let (message, bulk, _) = batch(Flaw::None);
    let mut altered = bulk.to_vec();
    *altered.last_mut().unwrap() ^= 1;
    let mut reader = LogReader::from_start(ORIGIN, key().public());
    let fault = reader.take(message, altered.into()).unwrap_err();
    assert!(matches!(fault, BatchFault::Tree { .. }), "{fault:?}");
}

#[test]
fn what_cannot_be_an_encrypted_event_is_refused() {
    for flaw in [Flaw::Control, Flaw::KeyEntry] {
        let fault = take(flaw);
        assert!(
            matches!(fault, BatchFault::Form { first: 3, .. }),
            "{fault:?}"
        );
    }
    let length = take(Flaw::DataLength);
    let wrong = matches!(
        length,
        BatchFault::Content {
            sequence: 3,
            error: ContentError::DataLength { .. }
        }
    );
    assert!(wrong, "{length:?}");
    let short = take(Flaw::Short);
    let wrong = matches!(
        short,
        BatchFault::Content {
            sequence: 3,
            error: ContentError::Truncated { .. }
        }
    );
    assert!(wrong, "{short:?}");
}

#[test]
fn an_encrypted_event_that_the_filter_does_not_let_through_is_refused() {
    let take = |filter: &str| {
        let (message, bulk, _) = batch(Flaw::None);
        let filter = Arc::new(Filter::from_json(filter).unwrap());
        let reader = LogReader::from_start(ORIGIN, key().public());
        reader.with_filter(Some(filter)).take(message, bulk)
    };
    assert_eq!(take(r#"{"exact":{"type":"test"}}"#).unwrap().events(), 3);
    let unwanted = take(r#"{"not":{"exact":{"id":"2"}}}"#).unwrap_err();
    assert!(
        matches!(unwanted, BatchFault::Unwanted { sequence: 2 }),
        "{unwanted:?}"
    );
}
