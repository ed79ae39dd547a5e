//! Bytes from strangers: every parser of the protocol answers with a value or an error, and keeps no more than it was given.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use countersign_crypto::{Hash, SigningKey, sha256};
use countersign_event::attributes::AttributesBuilder;
use countersign_event::commitment::Salts;
use countersign_event::content::{Event, Limits, seal};
use countersign_event::data::DataPart;
use countersign_event::entry::Kind;
use countersign_event::time::Timestamp;
use countersign_protocol::delivery::{
    BATCH_ENTRIES_MAX, BatchFault, BatchMessage, Cover, Lengths, LogReader, write_descriptors,
};
use countersign_protocol::invitation::{Invitation, LinkError};
use countersign_protocol::publish::read_events;
use countersign_protocol::*;
use countersign_tlog::checkpoint::signature_of;
use countersign_tlog::{Checkpoint, CompactRange, leaf_hash};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

const ORIGIN: &str = "a.example/streams/orders";

/// Reads `body` as every kind of message.
fn read_all(body: &Bytes) {
    macro_rules! each {
        ($($message:ty),*) => {$(
            let kind = <$message>::KIND;
            if let Ok(message) = <$message>::read(kind, body) {
                // Longer forms of a number are taken, so that it may shrink; it never grows.
                let again = message.to_body();
                assert!(again.len() <= body.len());
                assert_eq!(<$message>::read(kind, &again).unwrap().to_body(), again);
            }
            if let Ok((message, bulk)) = <$message>::read_bulk(kind, body) {
                assert!(message.to_body().len() + bulk.len() <= body.len());
                assert!(body.ends_with(&bulk));
            }
            let other = kind.wrapping_add(1);
            let unexpected = FrameError::UnexpectedKind { expected: kind, found: other };
            assert_eq!(<$message>::read(other, body).map(|_| ()), Err(unexpected));
        )*};
    }
    each!(
        Hello,
        Refused,
        PublishOpen,
        PublishReady,
        PublishBatch,
        PublishAck,
        Subscribe,
        SubscribeReady,
        BatchMessage,
        ReceiptMessage,
        ReceiptAck,
        Heads,
        Ended,
        JoinQuery,
        JoinTerms,
        JoinAccept,
        JoinDone,
        Notice,
        NoticeAck,
        Ping,
        Pong,
        AddCheckpoints,
        Cosigned,
        AskLog,
        LogState,
        AskWitnessed,
        WitnessedState,
        AskPolicy,
        PolicyAnswer,
        ListStreams,
        StreamList,
        FetchBack,
        Keys
    );
}

/// Bytes in which lengths and numbers are often small, huge or at an edge.
fn hostile_bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..40),
        2 => prop::collection::vec(0..4u8, 0..8),
        1 => Just(vec![0xff; 9]),
        1 => Just([vec![0xff; 9], vec![1]].concat()),
        1 => Just(vec![0x80; 10]),
        1 => Just(vec![0xff, 0xff, 0xff, 0xff, 0x0f]),
        1 => Just(vec![0; 64]),
        1 => Just(vec![0x40; 65]),
    ];
    prop::collection::vec(piece, 0..12).prop_map(move |pieces| {
        let mut bytes = pieces.concat();
        bytes.truncate(most);
        bytes
    })
}

fn edge() -> impl Strategy<Value = u64> {
    let edges = [
        0,
        1,
        2,
        1 << 62,
        (1 << 63) - 1,
        1 << 63,
        u64::MAX - 1,
        u64::MAX,
    ];
    prop_oneof![select(edges.to_vec()), any::<u64>(), 0..70u64]
}

fn hash() -> impl Strategy<Value = Hash> {
    any::<[u8; 32]>()
}

fn key() -> SigningKey {
    SigningKey::from_seed(&[1; 32])
}

/// A head that the log's key really signed: the producer itself may be hostile.
fn signed(size: u64, root: Hash) -> SignedHead {
    let checkpoint = Checkpoint {
        origin: ORIGIN.to_owned(),
        size,
        root,
    };
    SignedHead::new(size, root, signature_of(&checkpoint, &key()))
}

prop_compose! {
    fn head()(size in edge(), root in hash(), forged in of(prop::collection::vec(any::<u8>(), 0..70))) -> SignedHead {
        match forged {
            Some(signature) => SignedHead { size, root, signature },
            None => signed(size, root),
        }
    }
}

prop_compose! {
    /// Descriptors that may hold in form, and whatever follows.
    fn bulk()(
        descriptors in prop::collection::vec((0..2u8, select(vec![0, 1, 2, 0x10, 0x20, 0x21, 0x30, 0x40, 0xff]), edge(), edge(), edge(), of(edge())), 0..6),
        rest in hostile_bytes(512),
    ) -> (u32, Bytes) {
        let mut bytes = Vec::new();
        for (tag, kind, time, attributes, data, stated) in descriptors {
            bytes.extend_from_slice(&[tag, kind]);
            [Some(time), Some(attributes % 100), Some(data % 100), stated].iter().flatten().for_each(|n| varint(&mut bytes, *n));
        }
        let length = bytes.len() as u32;
        bytes.extend_from_slice(&rest);
        (length, bytes.into())
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn messages_of_arbitrary_bytes_never_panic_and_never_grow(body in hostile_bytes(512)) {
        read_all(&Bytes::from(body));
    }

    #[test]
    fn published_events_take_no_more_room_than_their_bytes(bulk in hostile_bytes(512), count in prop_oneof![0..20u32, any::<u32>()]) {
        let bulk = Bytes::from(bulk);
        if let Ok(spans) = read_events(&bulk, count) {
            prop_assert_eq!(spans.len(), count as usize);
            prop_assert!(spans.capacity() <= bulk.len() / 6 + 1);
            let total: usize = spans.iter().map(|s| 6 + s.attributes(&bulk).len() + s.data_part(&bulk).len()).sum();
            prop_assert_eq!(total, bulk.len());
        }
    }

    #[test]
    fn a_reader_refuses_arbitrary_batches_and_stays(
        first in prop_oneof![4 => Just(0), 1 => edge()],
        count in prop_oneof![0..8u32, Just(BATCH_ENTRIES_MAX), any::<u32>()],
        (descriptors, bulk) in bulk(),
        wrong_length in of(any::<u32>()),
        head in head(),
        consistency in prop::collection::vec(hash(), 0..70),
    ) {
        let mut reader = LogReader::from_start(ORIGIN, key().public());
        let message = BatchMessage {
            first, count, descriptor_bytes: wrong_length.unwrap_or(descriptors), cover: Cover::Checkpoint { head, consistency },
        };
        prop_assert!(reader.take(message, bulk).is_err());
        prop_assert_eq!((reader.next(), reader.last_leaf(), reader.signed()), (0, [0; 32], None));
    }

    #[test]
    fn a_start_that_the_producer_makes_up_never_panics(
        start in edge(),
        range in prop::collection::vec(hash(), 64),
        hashes in of(0..70usize),
        (last_leaf, last_time) in (hash(), edge()),
        proofs in prop::collection::vec(prop::collection::vec(hash(), 0..70), 3),
        (head, newest) in (head(), of((edge(), hash()))),
    ) {
        let count = hashes.unwrap_or(start.count_ones() as usize).min(64);
        let ready = SubscribeReady {
            start, head, range: range[..count].to_vec(), last_leaf, last_time,
            last_leaf_proof: proofs[0].clone(), consistency: proofs[1].clone(), from_newest: proofs[2].clone(),
            exposure_events: start, receipt_number: start, receipt_size: start,
        };
        let newest = newest.map(|(size, root)| Checkpoint { origin: ORIGIN.to_owned(), size, root });
        let reader = LogReader::from_ready(ORIGIN, key().public(), &ready, newest.as_ref());
        // Only a log of which nothing is claimed can begin without true proofs.
        prop_assert!(reader.is_err() || start == 0);
    }

    #[test]
    fn heads_of_any_size_never_panic(heads in prop::collection::vec(head(), 0..6)) {
        let mut reader = LogReader::from_start(ORIGIN, key().public());
        for head in heads {
            let before = reader.signed().map_or(0, |signed| signed.size);
            if reader.note_head(&head).is_ok() {
                prop_assert!(head.size >= before);
            }
        }
    }

    #[test]
    fn links_of_arbitrary_text_are_refused(text in "(countersign:)?\\PC{0,80}|countersign:[A-Za-z0-9_-]{0,200}") {
        prop_assert!(text.parse::<Invitation>().is_err());
    }

    #[test]
    fn links_that_pass_their_check_sum_never_panic(version in 0..3u8, body in hostile_bytes(400)) {
        let mut body = [&[version][..], &body].concat();
        let check = sha256(&body);
        body.extend_from_slice(&check[..4]);
        match format!("countersign:{}", URL_SAFE_NO_PAD.encode(&body)).parse::<Invitation>() {
            Ok(invitation) => prop_assert!((1..=8).contains(&invitation.addresses.len())),
            Err(LinkError::Version { found }) => prop_assert_eq!(found, version),
            Err(LinkError::Malformed) => prop_assert_eq!(version, 1),
        }
    }
}

#[test]
fn a_length_that_promises_gigabytes_is_refused_before_it_takes_room() {
    // A hello whose statement, software or address list announces 2^32 - 1 elements.
    let huge = [0xff, 0xff, 0xff, 0xff, 0x0f];
    for before in [&[0][..], &[0, 0], &[0, 0, 0]] {
        let body = [before, &huge].concat();
        let malformed = FrameError::Malformed { kind: 1 };
        assert_eq!(Hello::read(1, &body), Err(malformed));
    }
    let mut reader = LogReader::from_start(ORIGIN, key().public());
    let message = BatchMessage {
        first: 0,
        count: BATCH_ENTRIES_MAX,
        descriptor_bytes: 4 * BATCH_ENTRIES_MAX,
        cover: Cover::Checkpoint {
            head: signed(1, [0; 32]),
            consistency: Vec::new(),
        },
    };
    let bulk = Bytes::from(vec![0; 4 * BATCH_ENTRIES_MAX as usize]);
    let what = "more entries than descriptors";
    let refused = BatchFault::Form { first: 0, what };
    assert_eq!(reader.take(message, bulk).map(|_| ()), Err(refused));
    assert!("countersign:".to_owned().parse::<Invitation>().is_err());
    let long = format!("countersign:{}", "A".repeat(1 << 20));
    assert_eq!(
        long.parse::<Invitation>().map(|_| ()),
        Err(LinkError::Malformed)
    );
}

#[test]
fn a_hostile_producer_at_the_end_of_all_numbers_is_read_without_overflow() {
    let start = (1 << 63) - 1;
    let range: Vec<Hash> = (0..63).map(|byte| [byte; 32]).collect();
    let mut tree = CompactRange::from_hashes(start, range.clone()).unwrap();
    let mut ready = SubscribeReady {
        start,
        head: signed(start, tree.root()),
        last_leaf: [62; 32],
        last_time: u64::MAX,
        last_leaf_proof: range[..62].iter().rev().copied().collect(),
        range,
        consistency: Vec::new(),
        from_newest: Vec::new(),
        exposure_events: u64::MAX,
        receipt_number: u64::MAX,
        receipt_size: u64::MAX,
    };
    let mut reader = LogReader::from_ready(ORIGIN, key().public(), &ready, None).unwrap();

    let (mut descriptors, mut contents) = (Vec::new(), Vec::new());
    let mut prev = reader.last_leaf();
    let attributes = AttributesBuilder::new("1", "/s", "t").build().unwrap();
    let mut part = Vec::new();
    DataPart::text("1").encode(&mut part).unwrap();
    let event = Event::check(attributes, part, &Limits::default()).unwrap();
    let event = event.as_ref();
    let salts = Salts {
        attributes: [1; 32],
        data: [2; 32],
    };
    let mut entries = Vec::new();
    for sequence in [start, start + 1] {
        let entry = seal(&event, &salts).entry(Kind::Event, sequence, prev, Timestamp(u64::MAX));
        prev = leaf_hash(&entry.encode());
        tree.append(prev);
        entries.extend_from_slice(&entry.encode());
        event.write_content(&salts, &mut contents);
    }
    let lengths = Lengths {
        attribute_bytes: event.attribute_bytes().len() as u32,
        data_part_bytes: event.data_part_bytes().len() as u32,
    };
    descriptors.extend(write_descriptors(&entries, &[lengths, lengths]));
    let message = BatchMessage {
        first: start,
        count: 2,
        descriptor_bytes: descriptors.len() as u32,
        cover: Cover::Checkpoint {
            head: signed(start + 2, tree.root()),
            consistency: Vec::new(),
        },
    };
    let batch = reader.take(message, [descriptors, contents].concat().into());
    assert_eq!(batch.map(|batch| batch.end()), Ok(start + 2));

    // One more is beyond what any log may have.
    ready.start = start + 1;
    ready.range = vec![[1; 32]];
    assert!(LogReader::from_ready(ORIGIN, key().public(), &ready, None).is_err());
}
