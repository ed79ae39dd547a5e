//! What a verifying reader accepts of a producer that may be hostile: nothing but the signed log, in order, once.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use bytes::Bytes;
use countersign_crypto::{SeededEntropy, SigningKey};
use countersign_event::attributes::AttributesBuilder;
use countersign_event::commitment::Salts;
use countersign_event::content::{Event, EventRef, Limits, seal};
use countersign_event::data::DataPart;
use countersign_event::entry::Kind;
use countersign_event::time::Timestamp;
use countersign_protocol::delivery::{
    BatchFault, BatchMessage, Cover, Lengths, LogReader, write_descriptors,
};
use countersign_protocol::{SignedHead, SubscribeReady};
use countersign_tlog::checkpoint::signature_of;
use countersign_tlog::{
    Checkpoint, MemoryTree, compact_range_at, consistency_proof, inclusion_proof, leaf_hash,
};

const ORIGIN: &str = "a.example/streams/orders";

/// A producer's log in memory.
struct Log {
    key: SigningKey,
    tree: MemoryTree,
    entries: Vec<[u8; 118]>,
    lengths: Vec<Lengths>,
    contents: Vec<Vec<u8>>,
}

impl Log {
    fn new(count: u64, seed: u64) -> Self {
        let mut entropy = SeededEntropy::new(seed);
        let mut log = Self {
            key: SigningKey::from_seed(&[1; 32]),
            tree: MemoryTree::new(),
            entries: Vec::new(),
            lengths: Vec::new(),
            contents: Vec::new(),
        };
        let mut prev = [0; 32];
        for sequence in 0..count {
            let id = sequence.to_string();
            let attributes = AttributesBuilder::new(&id, "urn:test", "test")
                .build()
                .unwrap();
            let mut part = Vec::new();
            DataPart::text(&format!("{{\"n\":{sequence}}}"))
                .encode(&mut part)
                .unwrap();
            let event = Event::check(attributes, part, &Limits::default()).unwrap();
            let event: EventRef<'_> = event.as_ref();
            let salts = Salts::draw(&mut entropy);
            let kind = if sequence == 0 {
                Kind::Control
            } else {
                Kind::Event
            };
            let entry =
                seal(&event, &salts).entry(kind, sequence, prev, Timestamp(1_000_000 + sequence));
            let mut content = Vec::new();
            event.write_content(&salts, &mut content);
            prev = leaf_hash(&entry.encode());
            log.tree.append(prev);
            log.entries.push(entry.encode());
            log.lengths.push(Lengths {
                attribute_bytes: event.attribute_bytes().len() as u32,
                data_part_bytes: event.data_part_bytes().len() as u32,
            });
            log.contents.push(content);
        }
        log
    }

    fn head(&self, size: u64) -> SignedHead {
        let root = compact_range_at(&self.tree, size).unwrap().root();
        let checkpoint = Checkpoint {
            origin: ORIGIN.to_owned(),
            size,
            root,
        };
        SignedHead::new(size, root, signature_of(&checkpoint, &self.key))
    }

    fn batch(&self, first: u64, end: u64, head: u64) -> (BatchMessage, Bytes) {
        let range = first as usize..end as usize;
        let descriptors = write_descriptors(
            &self.entries[range.clone()].concat(),
            &self.lengths[range.clone()],
        );
        let message = BatchMessage {
            first,
            count: (end - first) as u32,
            descriptor_bytes: descriptors.len() as u32,
            cover: Cover::Checkpoint {
                head: self.head(head),
                consistency: consistency_proof(&self.tree, end, head).unwrap(),
            },
        };
        let bulk = [descriptors, self.contents[range].concat()].concat();
        (message, Bytes::from(bulk))
    }

    fn ready(&self, start: u64, head: u64, newest: u64) -> SubscribeReady {
        let last = start.checked_sub(1);
        SubscribeReady {
            start,
            head: self.head(head),
            range: compact_range_at(&self.tree, start)
                .unwrap()
                .hashes()
                .to_vec(),
            last_leaf: last.map_or([0; 32], |i| leaf_hash(&self.entries[i as usize])),
            last_time: last.map_or(0, |i| 1_000_000 + i),
            last_leaf_proof: last.map_or(Vec::new(), |i| {
                inclusion_proof(&self.tree, i, start).unwrap()
            }),
            consistency: consistency_proof(&self.tree, start, head).unwrap(),
            from_newest: consistency_proof(&self.tree, newest, head).unwrap(),
            exposure_events: 10,
            receipt_number: 0,
            receipt_size: start,
        }
    }

    fn reader(&self) -> LogReader {
        LogReader::from_start(ORIGIN, self.key.public())
    }
}

#[test]
fn batches_rebuild_the_log_byte_for_byte() {
    let log = Log::new(40, 1);
    let mut reader = log.reader();
    let mut rebuilt = Vec::new();
    for (first, end, head) in [(0, 1, 1), (1, 8, 40), (8, 9, 40), (9, 40, 40)] {
        let (message, bulk) = log.batch(first, end, head);
        let batch = reader.take(message, bulk).unwrap();
        assert_eq!((batch.first(), batch.end()), (first, end));
        rebuilt.extend_from_slice(batch.entries());
    }
    assert_eq!(rebuilt, log.entries.concat());
    assert_eq!(reader.root(), log.head(40).root);
}

#[test]
fn every_flipped_bit_of_a_batch_is_refused_and_leaves_the_reader_where_it_was() {
    let log = Log::new(5, 2);
    let (message, bulk) = log.batch(0, 5, 5);
    for position in 0..bulk.len() {
        for bit in [0, 3, 7] {
            let mut altered = bulk.to_vec();
            altered[position] ^= 1 << bit;
            let mut reader = log.reader();
            assert!(
                reader.take(message.clone(), altered.into()).is_err(),
                "byte {position}"
            );
            assert_eq!(reader.next(), 0);
            assert!(reader.take(message.clone(), bulk.clone()).is_ok());
        }
    }
}

#[test]
fn missing_repeated_reordered_and_truncated_batches_are_refused() {
    let log = Log::new(20, 3);
    let mut reader = log.reader();
    let (first, first_bulk) = log.batch(0, 10, 20);
    let (later, later_bulk) = log.batch(12, 20, 20);
    assert!(matches!(
        reader.take(later.clone(), later_bulk.clone()),
        Err(BatchFault::Position {
            expected: 0,
            found: 12
        })
    ));
    reader.take(first.clone(), first_bulk.clone()).unwrap();
    assert!(matches!(
        reader.take(first.clone(), first_bulk.clone()),
        Err(BatchFault::Position { .. })
    ));
    assert!(matches!(
        reader.take(later, later_bulk),
        Err(BatchFault::Position {
            expected: 10,
            found: 12
        })
    ));
    // The content of other entries under the right position.
    let (mut wrong, _) = log.batch(10, 20, 20);
    let (other, other_bulk) = log.batch(0, 10, 10);
    wrong.descriptor_bytes = other.descriptor_bytes;
    assert!(reader.take(wrong, other_bulk).is_err());
    for cut in 0..first_bulk.len() {
        assert!(
            log.reader()
                .take(first.clone(), first_bulk.slice(..cut))
                .is_err(),
            "{cut}"
        );
    }
    for count in [0, 1, 9, 11, 65_536, 65_537, u32::MAX] {
        let message = BatchMessage {
            count,
            ..first.clone()
        };
        assert!(
            log.reader().take(message, first_bulk.clone()).is_err(),
            "{count}"
        );
    }
}

#[test]
fn covers_of_other_keys_logs_or_trees_are_refused() {
    let log = Log::new(10, 4);
    let mut stranger = Log::new(10, 4);
    stranger.key = SigningKey::from_seed(&[2; 32]);
    let (message, bulk) = stranger.batch(0, 10, 10);
    assert_eq!(
        log.reader().take(message.clone(), bulk.clone()).map(|_| ()),
        Err(BatchFault::Signature { size: 10 })
    );
    let mut elsewhere = LogReader::from_start("a.example/streams/other", log.key.public());
    let (message, bulk) = log.batch(0, 10, 10);
    assert!(matches!(
        elsewhere.take(message, bulk),
        Err(BatchFault::Signature { .. })
    ));
    // A signed checkpoint of another history.
    let other = Log::new(10, 5);
    let (mut message, bulk) = log.batch(0, 10, 10);
    message.cover = Cover::Checkpoint {
        head: other.head(10),
        consistency: Vec::new(),
    };
    assert!(matches!(
        log.reader().take(message, bulk),
        Err(BatchFault::Tree {
            end: 10,
            size: 10,
            ..
        })
    ));
}

#[test]
fn a_second_history_is_called_a_contradiction() {
    let log = Log::new(10, 6);
    let other = Log::new(10, 7);
    let mut reader = log.reader();
    let (message, bulk) = log.batch(0, 4, 4);
    reader.take(message, bulk).unwrap();
    assert_eq!(
        reader.note_head(&other.head(4)),
        Err(BatchFault::Contradiction { size: 4 })
    );
    // A head signed ahead of the entries is held against them when they come.
    reader.note_head(&other.head(8)).unwrap();
    let (message, bulk) = log.batch(4, 10, 10);
    assert_eq!(
        reader.take(message, bulk).map(|_| ()),
        Err(BatchFault::Contradiction { size: 8 })
    );
    // Neither is it forgotten when a later head is shown that agrees with the entries.
    reader.note_head(&log.head(10)).unwrap();
    let (message, bulk) = log.batch(4, 10, 10);
    assert!(matches!(
        reader.take(message, bulk),
        Err(BatchFault::Contradiction { size: 8 })
    ));
    assert_eq!(
        reader.note_head(&log.head(7)),
        Err(BatchFault::Shrunk { seen: 10, found: 7 })
    );
}

#[test]
fn a_start_anywhere_is_proven_and_a_false_one_refused() {
    let log = Log::new(33, 8);
    let key = log.key.public();
    let newest = log.head(7).checkpoint(ORIGIN);
    for start in 0..=33 {
        let ready = log.ready(start, 33, 7);
        let mut reader = LogReader::from_ready(ORIGIN, key, &ready, Some(&newest)).unwrap();
        assert_eq!(reader.next(), start);
        if start < 33 {
            let (message, bulk) = log.batch(start, 33, 33);
            reader.take(message, bulk).unwrap();
        }
        let mut altered: [_; 4] = std::array::from_fn(|_| ready.clone());
        altered[0].last_leaf[0] ^= 1;
        altered[1].start += 1;
        altered[2].head.root[0] ^= 1;
        altered[3].from_newest.push([0; 32]);
        for (index, altered) in altered.iter().enumerate() {
            assert!(
                LogReader::from_ready(ORIGIN, key, altered, Some(&newest)).is_err(),
                "{start} {index}"
            );
        }
    }
    let forked = Log::new(33, 9);
    let known = forked.head(7).checkpoint(ORIGIN);
    let ready = log.ready(20, 33, 7);
    assert_eq!(
        LogReader::from_ready(ORIGIN, key, &ready, Some(&known)).map(|_| ()),
        Err(BatchFault::Contradiction { size: 7 })
    );
    let shrunk = log.ready(3, 6, 0);
    assert_eq!(
        LogReader::from_ready(ORIGIN, key, &shrunk, Some(&newest)).map(|_| ()),
        Err(BatchFault::Shrunk { seen: 7, found: 6 })
    );
}

#[test]
fn a_known_checkpoint_under_a_forged_signature_is_refused() {
    let log = Log::new(12, 9);
    let forged = |first, end| {
        let (mut message, bulk) = log.batch(first, end, 12);
        let Cover::Checkpoint { head, .. } = &mut message.cover;
        head.signature[40] ^= 1;
        (message, bulk)
    };
    let refused = Err(BatchFault::Signature { size: 12 });
    let mut reader = LogReader::from_start(ORIGIN, log.key.public());
    let (message, bulk) = log.batch(0, 5, 12);
    reader.take(message, bulk).unwrap();
    let (message, bulk) = forged(5, 9);
    assert_eq!(reader.take(message, bulk).map(|_| ()), refused);
    let mut head = log.head(12);
    head.signature[40] ^= 1;
    assert_eq!(reader.note_head(&head), refused);
    // The same after a restart, where the newest checkpoint comes from the disk.
    let newest = reader.signed().cloned();
    let range = compact_range_at(&log.tree, 5).unwrap();
    let (leaf, time) = (reader.last_leaf(), 1_000_004);
    let mut resumed = LogReader::resume(ORIGIN, log.key.public(), range, leaf, time, newest);
    let (message, bulk) = forged(5, 9);
    assert_eq!(resumed.take(message, bulk).map(|_| ()), refused);
    let (message, bulk) = log.batch(5, 12, 12);
    resumed.take(message, bulk).unwrap();
}
