//! Entries without content: rebuilt to the same log, and the claim that allows them judged when the control entry is read.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use bytes::Bytes;
use countersign_crypto::{SeededEntropy, SigningKey};
use countersign_event::attributes::AttributesBuilder;
use countersign_event::commitment::Salts;
use countersign_event::content::{Event, Limits, seal};
use countersign_event::control::{EXPIRY, TOMBSTONE};
use countersign_event::data::DataPart;
use countersign_event::entry::Kind;
use countersign_event::time::Timestamp;
use countersign_protocol::delivery::{
    BatchFault, BatchMessage, Claim, Cover, Lengths, LogReader, write_descriptors_with,
};
use countersign_protocol::{Message as _, SignedHead};
use countersign_tlog::checkpoint::signature_of;
use countersign_tlog::{Checkpoint, MemoryTree, compact_range_at, consistency_proof, leaf_hash};
use serde_json::{Value, json};

const ORIGIN: &str = "a.example/streams/orders";

#[derive(Default)]
struct Log {
    tree: MemoryTree,
    entries: Vec<[u8; 118]>,
    lengths: Vec<Lengths>,
    contents: Vec<Vec<u8>>,
}

fn key() -> SigningKey {
    SigningKey::from_seed(&[1; 32])
}

impl Log {
    /// Events, a tombstone of 3 at 6, an expiry below 2 at 7, and two events.
    fn new() -> Self {
        let mut log = Self::default();
        for sequence in 0..10 {
            match sequence {
                6 => log.push(
                    Kind::Control,
                    TOMBSTONE,
                    r#"{"sequence":3,"reason":"asked"}"#,
                ),
                7 => log.push(
                    Kind::Control,
                    EXPIRY,
                    &format!(r#"{{"below":2,"policy":"{}="}}"#, "A".repeat(43)),
                ),
                _ => log.push(Kind::Event, "test", &format!("{{\"n\":{sequence}}}")),
            }
        }
        log
    }

    fn push(&mut self, kind: Kind, name: &str, data: &str) {
        let sequence = self.entries.len() as u64;
        let attributes = AttributesBuilder::new(&sequence.to_string(), "urn:test", name)
            .build()
            .unwrap();
        let mut part = Vec::new();
        DataPart::text(data).encode(&mut part).unwrap();
        let event = Event::check(attributes, part, &Limits::default()).unwrap();
        let event = event.as_ref();
        let salts = Salts::draw(&mut SeededEntropy::new(sequence));
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
        self.lengths.push(Lengths {
            attribute_bytes: event.attribute_bytes().len() as u32,
            data_part_bytes: event.data_part_bytes().len() as u32,
        });
        self.contents.push(content);
    }

    /// A batch in which these entries are erased, by the entries named.
    fn batch(&self, first: usize, end: usize, erased: &[(u64, u64)]) -> (BatchMessage, Bytes) {
        let by = |sequence: u64| erased.iter().find(|(known, _)| *known == sequence);
        let mut lengths = self.lengths[first..end].to_vec();
        let mut contents = Vec::new();
        for (index, lengths) in lengths.iter_mut().enumerate() {
            if by((first + index) as u64).is_some() {
                *lengths = Lengths::ABSENT;
            } else {
                contents.extend_from_slice(&self.contents[first + index]);
            }
        }
        let entries = self.entries[first..end].concat();
        let descriptors =
            write_descriptors_with(&entries, &lengths, |sequence| by(sequence).unwrap().1);
        let size = self.entries.len() as u64;
        let root = compact_range_at(&self.tree, size).unwrap().root();
        let checkpoint = Checkpoint {
            origin: ORIGIN.to_owned(),
            size,
            root,
        };
        let message = BatchMessage {
            first: first as u64,
            count: (end - first) as u32,
            descriptor_bytes: descriptors.len() as u32,
            cover: Cover::Checkpoint {
                head: SignedHead::new(size, root, signature_of(&checkpoint, &key())),
                consistency: consistency_proof(&self.tree, end as u64, size).unwrap(),
            },
        };
        (message, Bytes::from([descriptors, contents].concat()))
    }
}

fn reader() -> LogReader {
    LogReader::from_start(ORIGIN, key().public())
}

fn claim(first: u64, end: u64, by: u64) -> Claim {
    Claim { first, end, by }
}

#[test]
fn erased_entries_make_the_same_log_and_true_claims_hold() {
    let log = Log::new();
    let (message, bulk) = log.batch(0, 5, &[(0, 7), (1, 7), (3, 6)]);
    let mut reader = reader();
    let batch = reader.take(message, bulk).unwrap();
    assert_eq!(batch.entries(), log.entries[..5].concat());
    assert_eq!(batch.claims(), [claim(0, 2, 7), claim(3, 4, 6)]);
    assert_eq!((batch.events(), batch.data_bytes()), (5, 5 * 7));
    assert!(batch.lengths()[3].is_absent() && !batch.lengths()[2].is_absent());
    let (message, bulk) = log.batch(5, 10, &[]);
    let batch = reader.take(message, bulk).unwrap();
    let named: Vec<u64> = batch
        .allows()
        .iter()
        .map(|(sequence, _)| *sequence)
        .collect();
    assert_eq!(named, [6, 7]);
    // All in one batch.
    let (message, bulk) = log.batch(0, 10, &[(1, 7), (3, 6)]);
    self::reader().take(message, bulk).unwrap();
}

#[test]
fn a_claim_that_its_entry_does_not_bear_out_is_a_fault() {
    let log = Log::new();
    for (sequence, by) in [
        // A tombstone of another event, an expiry that does not reach so far, an event, the other way round.
        (2, 6),
        (2, 7),
        (3, 7),
        (2, 5),
        (1, 6),
        (0, 8),
    ] {
        let expected = Err(BatchFault::FalseClaim { sequence, by });
        let (message, bulk) = log.batch(0, 10, &[(sequence, by)]);
        assert_eq!(
            reader().take(message, bulk).map(drop),
            expected,
            "in one batch"
        );
        let mut first = reader();
        let (message, bulk) = log.batch(0, 5, &[(sequence, by)]);
        first.take(message, bulk).unwrap();
        let (message, bulk) = log.batch(5, 10, &[]);
        assert_eq!(
            first.clone().take(message, bulk).map(drop),
            expected,
            "in two"
        );
        // A reader that was begun again with what was stored.
        let mut range = countersign_tlog::CompactRange::new();
        log.entries[..5]
            .iter()
            .for_each(|entry| range.append(leaf_hash(entry)));
        let mut resumed = LogReader::resume(
            ORIGIN,
            key().public(),
            range,
            leaf_hash(&log.entries[4]),
            0,
            None,
        )
        .with_claims([claim(sequence, sequence + 1, by)]);
        let (message, bulk) = log.batch(5, 10, &[]);
        assert_eq!(resumed.take(message, bulk).map(drop), expected, "resumed");
    }
    // Also where the claimed entry is itself withheld.
    let (message, bulk) = log.batch(0, 10, &[(2, 5), (5, 8)]);
    let fault = reader().take(message, bulk).map(drop);
    assert_eq!(fault, Err(BatchFault::FalseClaim { sequence: 2, by: 5 }));
}

/// Golden bytes in `tests/vectors/protocol/v1/batch-erased.json`; with `COUNTERSIGN_WRITE_VECTORS=1` a missing file is written.
#[test]
fn a_batch_with_erased_entries_has_its_golden_frame_and_result() {
    let log = Log::new();
    let body = |first, end, erased: &[(u64, u64)]| {
        let (message, bulk) = log.batch(first, end, erased);
        [message.to_body(), bulk.to_vec()].concat()
    };
    let take = |body: &[u8]| {
        let read = BatchMessage::read_bulk(BatchMessage::KIND, &body.to_vec().into());
        let (message, bulk) = read.unwrap();
        reader().take(message, bulk)
    };
    let good = body(0, 8, &[(0, 7), (1, 7), (3, 6)]);
    let batch = take(&good).unwrap();
    let invalid = [
        ("a tombstone of another event", body(0, 8, &[(2, 6)])),
        (
            "an expiry that does not reach so far",
            body(0, 8, &[(2, 7)]),
        ),
        (
            "an event in place of a control entry",
            body(0, 8, &[(2, 5)]),
        ),
        ("a control entry without content", body(0, 8, &[(6, 7)])),
        ("names itself", body(0, 8, &[(2, 2)])),
    ];
    let invalid = invalid.map(|(name, body)| {
        let error = take(&body).map(drop).unwrap_err().to_string();
        json!({ "name": name, "body": hex::encode(body), "error": error })
    });
    let claims = batch.claims().iter();
    let claims =
        claims.map(|claim| json!({ "first": claim.first, "end": claim.end, "by": claim.by }));
    let recomputed = json!({
        "origin": ORIGIN,
        "log_key": key().public().to_base64(),
        "body": hex::encode(&good),
        "result": {
            "claims": claims.collect::<Vec<_>>(),
            "events": batch.events(),
            "data_bytes": batch.data_bytes(),
            "entries": batch.entries().chunks(118).map(hex::encode).collect::<Vec<_>>(),
            "leaf_hashes": batch.leaf_hashes().iter().map(hex::encode).collect::<Vec<_>>(),
            "root": hex::encode(batch.range().root()),
        },
        "invalid": invalid.to_vec(),
    });
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/vectors/protocol/v1"
    );
    let path = std::path::Path::new(folder).join("batch-erased.json");
    if !path.exists() && std::env::var_os("COUNTERSIGN_WRITE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(&recomputed).unwrap() + "\n";
        std::fs::write(&path, text).unwrap();
    }
    let stored: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(stored, recomputed);
}

#[test]
fn control_entries_are_never_erased_and_commitments_cannot_be_made_up() {
    let log = Log::new();
    let (message, bulk) = log.batch(0, 10, &[(6, 7)]);
    let refused = reader().take(message, bulk).map(drop);
    assert!(
        matches!(refused, Err(BatchFault::Form { first: 6, .. })),
        "{refused:?}"
    );
    // Each byte of the erased entry's descriptor.
    let (message, bulk) = log.batch(3, 5, &[(3, 6)]);
    let mut range = countersign_tlog::CompactRange::new();
    log.entries[..3]
        .iter()
        .for_each(|entry| range.append(leaf_hash(entry)));
    let fresh = || {
        LogReader::resume(
            ORIGIN,
            key().public(),
            range.clone(),
            leaf_hash(&log.entries[2]),
            0,
            None,
        )
    };
    let good = fresh().take(message.clone(), bulk.clone()).unwrap();
    for at in 0..message.descriptor_bytes as usize {
        let mut altered = bulk.to_vec();
        altered[at] ^= 1;
        match fresh().take(message.clone(), Bytes::from(altered)) {
            Err(_) => {}
            // Which entry allows it is a claim: nothing else may pass.
            Ok(batch) => {
                assert_eq!(batch.entries(), good.entries());
                assert_ne!(batch.claims(), good.claims());
            }
        }
    }
}
