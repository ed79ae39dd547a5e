//! Events with members withheld: rebuilt to the same log as everybody's, and refused where one bit is another, or where no agreement allows it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use bytes::Bytes;
use countersign_crypto::SigningKey;
use countersign_event::attributes::AttributesBuilder;
use countersign_event::commitment::Salts;
use countersign_event::content::{Event, Limits, is_view, seal, view_content};
use countersign_event::data::{DataPart, DataState};
use countersign_event::entry::Kind;
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
        let event = event.as_ref();
        let salts = Salts {
            attributes: [sequence as u8; 32],
            data: [0x80 | sequence as u8; 32],
        };
        let prev = self
            .entries
            .last()
            .map_or([0; 32], |entry| leaf_hash(entry));
        let entry = seal(&event, &salts)
            .entry(kind, sequence, prev, Timestamp(1_000_000 + sequence))
            .encode();
        let mut content = Vec::new();
        event.write_content(&salts, &mut content);
        self.tree.append(leaf_hash(&entry));
        self.entries.push(entry);
        self.attribute_bytes.push(event.attribute_bytes().len());
        self.contents.push(content);
    }

    /// All of it, for who sees the members of these names.
    fn batch(&self, names: &[&str]) -> (BatchMessage, Bytes) {
        let shown: Vec<Vec<u8>> = (0..self.contents.len())
            .map(|at| {
                let view = view_content(&self.contents[at], self.attribute_bytes[at], |name| {
                    names.contains(&name)
                });
                view.unwrap().unwrap_or_else(|| self.contents[at].clone())
            })
            .collect();
        let lengths: Vec<Lengths> = shown
            .iter()
            .zip(&self.attribute_bytes)
            .map(|(content, attribute_bytes)| Lengths {
                attribute_bytes: *attribute_bytes as u32,
                data_part_bytes: (content.len() - 64 - attribute_bytes) as u32,
            })
            .collect();
        let descriptors = write_descriptors_of(
            &self.entries.concat(),
            &lengths,
            |sequence| sequence,
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
