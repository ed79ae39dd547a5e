//! Entries that a filter left out: rebuilt to the same log, never control entries, and the producer's signed word on them held against them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use bytes::Bytes;
use countersign_crypto::{SeededEntropy, SigningKey};
use countersign_event::attributes::AttributesBuilder;
use countersign_event::commitment::Salts;
use countersign_event::content::{Event, Limits, seal};
use countersign_event::data::DataPart;
use countersign_event::documents::{
    Agreement, AgreementId, Digest, Document as _, KeyStatement, Party, Plan, Role, RoleKey,
    SkipClaim,
};
use countersign_event::entry::Kind;
use countersign_event::names::Authority;
use countersign_event::time::Timestamp;
use countersign_filter::Filter;
use countersign_protocol::delivery::{
    BatchFault, BatchMessage, Cover, Lengths, LogReader, VerifiedBatch, check_skip_claim,
    write_descriptors_with,
};
use countersign_protocol::{Message as _, SignedHead};
use countersign_tlog::checkpoint::signature_of;
use countersign_tlog::{Checkpoint, MemoryTree, compact_range_at, consistency_proof, leaf_hash};
use serde_json::{Value, json};

const ORIGIN: &str = "a.example/streams/orders";
/// Passes even sequences; 6 is a control entry.
const FILTER: &str = "parity = 'even'";
const ODD: [u64; 5] = [1, 3, 5, 7, 9];

struct Log {
    tree: MemoryTree,
    entries: Vec<[u8; 118]>,
    lengths: Vec<Lengths>,
    contents: Vec<Vec<u8>>,
}

fn key() -> SigningKey {
    SigningKey::from_seed(&[1; 32])
}

fn agreement_key() -> SigningKey {
    SigningKey::from_seed(&[2; 32])
}

impl Log {
    fn new() -> Self {
        let mut log = Self {
            tree: MemoryTree::default(),
            entries: Vec::new(),
            lengths: Vec::new(),
            contents: Vec::new(),
        };
        for sequence in 0..10 {
            log.push(sequence);
        }
        log
    }

    fn push(&mut self, sequence: u64) {
        let (kind, name) = match sequence {
            6 => (Kind::Control, "dev.countersign.control.settings.v1"),
            _ => (Kind::Event, "test"),
        };
        let mut attributes = AttributesBuilder::new("1", "urn:test", name);
        attributes.push_text(
            "parity",
            if sequence.is_multiple_of(2) {
                "even"
            } else {
                "odd"
            },
        );
        let mut part = Vec::new();
        DataPart::text(&format!("{{\"n\":{sequence}}}"))
            .encode(&mut part)
            .unwrap();
        let event = Event::check(attributes.build().unwrap(), part, &Limits::default()).unwrap();
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

    /// A batch without the content of these.
    fn batch(&self, first: usize, end: usize, skipped: &[u64]) -> (BatchMessage, Bytes) {
        let mut lengths = self.lengths[first..end].to_vec();
        let mut contents = Vec::new();
        for (index, lengths) in (first..).zip(&mut lengths) {
            if skipped.contains(&(index as u64)) {
                *lengths = Lengths::SKIPPED;
            } else {
                contents.extend_from_slice(&self.contents[index]);
            }
        }
        let entries = self.entries[first..end].concat();
        let descriptors = write_descriptors_with(&entries, &lengths, |sequence| sequence);
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

    fn take(&self, skipped: &[u64]) -> Result<VerifiedBatch, BatchFault> {
        let (message, bulk) = self.batch(0, 10, skipped);
        reader().take(message, bulk)
    }
}

fn filter() -> Filter {
    Filter::from_expression(FILTER).unwrap()
}

fn reader() -> LogReader {
    LogReader::from_start(ORIGIN, key().public()).with_filter(Some(Arc::new(filter())))
}

#[test]
fn entries_left_out_make_the_same_log() {
    let log = Log::new();
    let batch = log.take(&ODD).unwrap();
    assert_eq!(batch.entries(), log.entries.concat());
    assert_eq!(batch.skipped(), [(1, 2), (3, 4), (5, 6), (7, 8), (9, 10)]);
    // Events that came: 0, 2, 4, 8; the control entry counts for nobody.
    assert_eq!((batch.events(), batch.data_bytes()), (4, 4 * 7));
    assert!(batch.lengths()[1].is_skipped() && !batch.lengths()[2].is_absent());
    // In two batches.
    let mut reader = reader();
    for (first, end, skipped) in [(0, 4, &ODD[..]), (4, 10, &ODD[..])] {
        let (message, bulk) = log.batch(first, end, skipped);
        reader.take(message, bulk).unwrap();
    }
    assert_eq!(reader.next(), 10);
}

#[test]
fn what_passes_not_does_not_come_and_control_entries_always_do() {
    let log = Log::new();
    // 3 comes though it does not pass.
    let unwanted = log.take(&[1, 5, 7, 9]).map(drop);
    assert_eq!(unwanted, Err(BatchFault::Unwanted { sequence: 3 }));
    let control = log.take(&[1, 3, 5, 6, 7, 9]).map(drop);
    assert!(
        matches!(control, Err(BatchFault::Form { first: 6, .. })),
        "{control:?}"
    );
    // Who asked for no filter is left out nothing.
    let (message, bulk) = log.batch(0, 10, &ODD);
    let whole = LogReader::from_start(ORIGIN, key().public())
        .take(message, bulk)
        .map(drop);
    assert!(
        matches!(whole, Err(BatchFault::Form { first: 1, .. })),
        "{whole:?}"
    );
    // What is left out though it passes is the claim's matter: the tree is the same.
    log.take(&[1, 2, 3, 5, 7, 9]).unwrap();
}

#[test]
fn no_byte_of_an_entry_left_out_can_be_made_up() {
    let log = Log::new();
    let (message, bulk) = log.batch(0, 10, &ODD);
    for at in 0..message.descriptor_bytes as usize {
        let mut altered = bulk.to_vec();
        altered[at] ^= 1;
        let taken = reader().take(message.clone(), Bytes::from(altered));
        assert!(taken.is_err(), "byte {at}");
    }
}

fn party(seed: u8, name: &str) -> Party {
    let organization = SigningKey::from_seed(&[seed; 32]).public();
    Party {
        authority: Authority::of_key(&organization),
        name: name.to_owned(),
        organization,
    }
}

fn agreement() -> Agreement {
    Agreement {
        id: AgreementId([7; 16]),
        producer: party(3, "Producer"),
        consumer: party(4, "Consumer"),
        stream: ORIGIN.parse().unwrap(),
        plan: Plan::default(),
        accepts: None,
        supersedes: None,
        from: Timestamp(1),
        until: None,
        made: Timestamp(1),
    }
}

fn statement() -> KeyStatement {
    let producer = party(3, "Producer");
    KeyStatement {
        authority: producer.authority,
        name: producer.name,
        organization: producer.organization,
        number: 1,
        made: Timestamp(1),
        succession: Vec::new(),
        keys: vec![RoleKey {
            role: Role::Agreement,
            key: agreement_key().public(),
            from: Timestamp(1),
            until: None,
        }],
    }
}

fn claim_of(batch: &VerifiedBatch) -> SkipClaim {
    SkipClaim {
        agreement: agreement().id,
        stream: ORIGIN.parse().unwrap(),
        consumer: agreement().consumer.authority,
        filter: Digest(filter().digest()),
        from: batch.first(),
        size: batch.end(),
        root: Digest(batch.range().root()),
        skipped: 5,
        runs: SkipClaim::digest_of(batch.skipped()),
        made: Timestamp(5_000_000),
    }
}

#[test]
fn the_claim_has_to_be_signed_by_the_producer_and_about_this_very_batch() {
    let log = Log::new();
    let batch = log.take(&ODD).unwrap();
    let check =
        |envelope: &[u8]| check_skip_claim(&batch, &filter(), &agreement(), &statement(), envelope);
    let good = claim_of(&batch);
    check(&good.sign(&agreement_key()).to_json()).unwrap();
    let other = Digest([9; 32]);
    let altered = [
        SkipClaim {
            agreement: AgreementId([8; 16]),
            ..good.clone()
        },
        SkipClaim {
            stream: "a.example/streams/other".parse().unwrap(),
            ..good.clone()
        },
        SkipClaim {
            consumer: party(5, "Other").authority,
            ..good.clone()
        },
        SkipClaim {
            filter: other,
            ..good.clone()
        },
        SkipClaim {
            from: 1,
            ..good.clone()
        },
        SkipClaim {
            size: 9,
            ..good.clone()
        },
        SkipClaim {
            root: other,
            ..good.clone()
        },
        SkipClaim {
            skipped: 4,
            ..good.clone()
        },
        SkipClaim {
            runs: SkipClaim::digest_of(&[(1, 2)]),
            ..good.clone()
        },
        // Before the key was delegated.
        SkipClaim {
            made: Timestamp(0),
            ..good.clone()
        },
    ];
    for altered in altered {
        let judged = check(&altered.sign(&agreement_key()).to_json());
        assert!(
            matches!(judged, Err(BatchFault::SkipClaim { first: 0, .. })),
            "{altered:?}"
        );
    }
    for envelope in [Vec::new(), b"{}".to_vec(), good.sign(&key()).to_json()] {
        assert!(check(&envelope).is_err());
    }
    // Where nothing is left out, nothing has to be said.
    let (message, bulk) = log.batch(0, 1, &[]);
    let whole = reader().take(message, bulk).unwrap();
    check_skip_claim(&whole, &filter(), &agreement(), &statement(), b"").unwrap();
}

/// Golden bytes in `tests/vectors/protocol/v1/batch-skipped.json`; with `COUNTERSIGN_WRITE_VECTORS=1` a missing file is written.
#[test]
fn a_batch_with_entries_left_out_has_its_golden_frame_and_result() {
    let log = Log::new();
    let body = |skipped: &[u64]| {
        let (message, bulk) = log.batch(0, 10, skipped);
        [message.to_body(), bulk.to_vec()].concat()
    };
    let take = |body: &[u8]| {
        let read = BatchMessage::read_bulk(BatchMessage::KIND, &body.to_vec().into());
        let (message, bulk) = read.unwrap();
        reader().take(message, bulk)
    };
    let good = body(&ODD);
    let batch = take(&good).unwrap();
    let claim = claim_of(&batch);
    let invalid = [
        ("an event that does not pass comes", body(&[1, 5, 7, 9])),
        ("a control entry is left out", body(&[1, 3, 5, 6, 7, 9])),
    ];
    let invalid = invalid.map(|(name, body)| {
        let error = take(&body).map(drop).unwrap_err().to_string();
        json!({ "name": name, "body": hex::encode(body), "error": error })
    });
    let recomputed = json!({
        "origin": ORIGIN,
        "log_key": key().public().to_base64(),
        "filter": filter().canonical(),
        "filter_digest": hex::encode(filter().digest()),
        "body": hex::encode(&good),
        "result": {
            "skipped": batch.skipped(),
            "runs": serde_json::to_value(claim.runs).unwrap(),
            "events": batch.events(),
            "data_bytes": batch.data_bytes(),
            "entries": batch.entries().chunks(118).map(hex::encode).collect::<Vec<_>>(),
            "root": hex::encode(batch.range().root()),
        },
        "invalid": invalid.to_vec(),
    });
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/vectors/protocol/v1"
    );
    let path = std::path::Path::new(folder).join("batch-skipped.json");
    if !path.exists() && std::env::var_os("COUNTERSIGN_WRITE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(&recomputed).unwrap() + "\n";
        std::fs::write(&path, text).unwrap();
    }
    let stored: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(stored, recomputed);
}
