//! Events with members withheld: rebuilt to the same log as everybody's, and refused where one bit is another, or where no agreement allows it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use bytes::Bytes;
use countersign_crypto::SigningKey;
use countersign_event::attributes::AttributesBuilder;
use countersign_event::commitment::{Salts, commitments};
use countersign_event::content::{ContentError, Event, EventError, Limits, is_view, view_content};
use countersign_event::data::{DATA_BYTES_MAX, DataError, DataPart, DataState};
use countersign_event::entry::{Entry, Flags, Kind};
use countersign_event::fields::FieldsError;
use countersign_event::time::Timestamp;
use countersign_protocol::delivery::{
    BatchFault, BatchMessage, Cover, Lengths, LogReader, write_descriptors_of,
};
use countersign_protocol::{Message as _, SignedHead};
use countersign_tlog::checkpoint::signature_of;
use countersign_tlog::{Checkpoint, MemoryTree, compact_range_at, leaf_hash};
use serde_json::json;

const ORIGIN: &str = "a.example/streams/orders";

struct Log {
    tree: MemoryTree,
    entries: Vec<[u8; 118]>,
    attribute_bytes: Vec<usize>,
    contents: Vec<Vec<u8>>,
}

fn key() -> SigningKey {
    SigningKey::from_seed(&[1; 32])
}

impl Log {
    /// A control entry, an event of members, one with author material, one without data.
    fn new() -> Self {
        let mut log = Self {
            tree: MemoryTree::default(),
            entries: Vec::new(),
            attribute_bytes: Vec::new(),
            contents: Vec::new(),
        };
        let members = |material| DataPart {
            state: DataState::Members,
            author_material: material,
            data: br#"{"item":"i1", "pin":37}"#,
        };
        log.push(Kind::Control, &DataPart::text("{}"));
        log.push(Kind::Event, &members(None));
        log.push(Kind::Event, &members(Some(b"{}")));
        log.push(Kind::Event, &DataPart::default());
        log
    }

    fn push(&mut self, kind: Kind, part: &DataPart<'_>) {
        let sequence = self.entries.len() as u64;
        let id = sequence.to_string();
        let attributes = AttributesBuilder::new(&id, "urn:test", "test");
        let event = Event::new(attributes.build().unwrap(), part, &Limits::default()).unwrap();
        let flags = Flags {
            encrypted: false,
            author_signed: part.author_material.is_some(),
        };
        let (attributes, data_part) = event.into_parts();
        self.push_stating(kind, &attributes, &data_part, part.data.len() as u32, flags);
    }

    /// As a producer does it that checks nothing.
    fn push_stating(
        &mut self,
        kind: Kind,
        attributes: &[u8],
        data_part: &[u8],
        data_bytes: u32,
        flags: Flags,
    ) {
        let sequence = self.entries.len() as u64;
        let salts = Salts {
            attributes: [sequence as u8; 32],
            data: [0x80 | sequence as u8; 32],
        };
        let (attribute_commitment, data_commitment) = commitments(&salts, attributes, data_part);
        let entry = Entry {
            kind,
            flags,
            data_bytes,
            sequence,
            prev: self
                .entries
                .last()
                .map_or([0; 32], |entry| leaf_hash(entry)),
            time: Timestamp(1_000_000 + sequence),
            attributes: attribute_commitment,
            data: data_commitment,
        };
        let entry = entry.encode();
        self.tree.append(leaf_hash(&entry));
        self.entries.push(entry);
        self.attribute_bytes.push(attributes.len());
        self.contents
            .push([&salts.attributes[..], &salts.data, attributes, data_part].concat());
    }

    /// With one event more, whose data part and its length are anything.
    fn with_event(data: &str, data_bytes: u32) -> Self {
        let mut log = Self::new();
        let attributes = AttributesBuilder::new("4", "urn:test", "test");
        let part = ["\u{5}", data].concat();
        log.push_stating(
            Kind::Event,
            &attributes.build().unwrap(),
            part.as_bytes(),
            data_bytes,
            Flags::default(),
        );
        log
    }

    /// All of it, for who sees the members of these names.
    fn batch(&self, names: &[&str]) -> (BatchMessage, Bytes) {
        let shown = (0..self.contents.len())
            .map(|at| {
                let view = view_content(&self.contents[at], self.attribute_bytes[at], |name| {
                    names.contains(&name)
                });
                view.unwrap().unwrap_or_else(|| self.contents[at].clone())
            })
            .collect();
        self.batch_of(shown)
    }

    /// Contents as they are given; an entry with an empty one is said to be erased.
    fn batch_of(&self, shown: Vec<Vec<u8>>) -> (BatchMessage, Bytes) {
        let lengths: Vec<Lengths> = shown
            .iter()
            .zip(&self.attribute_bytes)
            .map(|(content, attribute_bytes)| match content.is_empty() {
                true => Lengths::ABSENT,
                false => Lengths {
                    attribute_bytes: *attribute_bytes as u32,
                    data_part_bytes: (content.len() - 64 - attribute_bytes) as u32,
                },
            })
            .collect();
        let descriptors = write_descriptors_of(
            &self.entries.concat(),
            &lengths,
            |sequence| sequence + 1,
            |at| is_view(&shown[at], self.attribute_bytes[at]),
        );
        let size = self.entries.len() as u64;
        let root = compact_range_at(&self.tree, size).unwrap().root();
        let checkpoint = Checkpoint {
            origin: ORIGIN.to_owned(),
            size,
            root,
        };
        let message = BatchMessage {
            first: 0,
            count: size as u32,
            descriptor_bytes: descriptors.len() as u32,
            cover: Cover::Checkpoint {
                head: SignedHead::new(size, root, signature_of(&checkpoint, &key())),
                consistency: Vec::new(),
            },
        };
        (message, Bytes::from([descriptors, shown.concat()].concat()))
    }
}

fn reader() -> LogReader {
    LogReader::from_start(ORIGIN, key().public()).taking_views(true)
}

#[test]
fn whatever_is_withheld_the_log_is_the_same() {
    let log = Log::new();
    for names in [&["item"][..], &["pin"], &["item", "pin"], &[]] {
        let (message, bulk) = log.batch(names);
        let batch = reader().take(message, bulk).unwrap();
        assert_eq!(batch.entries(), log.entries.concat());
        assert_eq!((batch.events(), batch.data_bytes()), (3, 2 * 23));
    }
}

#[test]
fn a_reader_without_such_an_agreement_refuses_it() {
    let (message, bulk) = Log::new().batch(&["item"]);
    let mut reader = LogReader::from_start(ORIGIN, key().public());
    let fault = reader.take(message, bulk).unwrap_err();
    assert_eq!(fault, BatchFault::Withheld { sequence: 1 });
}

#[test]
fn the_length_of_what_is_withheld_or_erased_is_bounded_though_nobody_can_check_it() {
    let data = r#"{"item":"i1", "pin":37}"#;
    let most = DATA_BYTES_MAX as u32;
    for stated in [most, most + 1, u32::MAX] {
        let log = Log::with_event(data, stated);
        let (message, bulk) = log.batch(&["item"]);
        let part = reader().take(message, bulk);
        let mut contents = log.contents.clone();
        contents[4].clear();
        let (message, bulk) = log.batch_of(contents);
        let erased = reader().take(message, bulk);
        for taken in [part, erased] {
            let taken = taken.map(|batch| batch.data_bytes());
            if stated == most {
                assert_eq!(taken.unwrap(), 2 * 23 + u64::from(most));
                continue;
            }
            let error = ContentError::StatedBytes {
                stated,
                max: DATA_BYTES_MAX,
            };
            let fault = BatchFault::Content { sequence: 4, error };
            assert_eq!(taken.unwrap_err(), fault);
        }
    }
}

#[test]
fn an_event_with_two_members_of_one_name_is_refused_by_who_reads_all_of_it() {
    let data = r#"{"price":1, "item":0, "price":2}"#;
    let log = Log::with_event(data, data.len() as u32);
    let (message, bulk) = log.batch_of(log.contents.clone());
    let fault = reader().take(message, bulk).unwrap_err();
    let error = EventError::Data(DataError::Fields(FieldsError::Repeated));
    let error = ContentError::Event(error);
    assert_eq!(fault, BatchFault::Content { sequence: 4, error });
}

#[test]
fn no_altered_bit_passes() {
    let (message, bulk) = Log::new().batch(&["item"]);
    for bit in 0..8 * bulk.len() {
        let mut altered = bulk.to_vec();
        altered[bit / 8] ^= 1 << (bit % 8);
        let taken = reader().take(message.clone(), altered.into());
        assert!(taken.is_err(), "bit {bit}");
    }
}

#[test]
fn a_batch_with_views_has_its_golden_bytes() {
    let log = Log::new();
    let (message, bulk) = log.batch(&["item"]);
    let with = |at: usize, byte: u8| {
        let mut altered = bulk.to_vec();
        altered[at] ^= byte;
        assert!(
            reader()
                .take(message.clone(), altered.clone().into())
                .is_err()
        );
        hex::encode([&message.to_body()[..], &altered].concat())
    };
    // The first descriptor is of the control entry: tag, kind, time (3 bytes), two lengths.
    let invalid = json!([
        {"name": "a view without its tag", "body": with(7, 2)},
        {"name": "a tag without a view", "body": with(0, 2)},
        {"name": "the last byte of its content", "body": with(bulk.len() - 1, 1)},
    ]);
    let recomputed = json!({
        "origin": ORIGIN,
        "log_key": key().public().to_base64(),
        "fields": ["item"],
        "body": hex::encode([&message.to_body()[..], &bulk].concat()),
        "result": {
            "entries": log.entries.iter().map(hex::encode).collect::<Vec<_>>(),
            "leaf_hashes": log.entries.iter().map(|entry| hex::encode(leaf_hash(entry))).collect::<Vec<_>>(),
            "root": hex::encode(compact_range_at(&log.tree, 4).unwrap().root()),
        },
        "invalid": invalid,
    });
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/vectors/protocol/v1/batch-views.json"
    );
    let path = std::path::Path::new(path);
    if !path.exists() && std::env::var_os("COUNTERSIGN_WRITE_VECTORS").is_some() {
        std::fs::write(
            path,
            serde_json::to_string_pretty(&recomputed).unwrap() + "\n",
        )
        .unwrap();
    }
    let stored: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(stored, recomputed);
}
