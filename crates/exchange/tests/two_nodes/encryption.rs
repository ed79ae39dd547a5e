//! Encrypted streams: only who may read does, history is read while the producer is away, and no key meets a nonce twice whatever fails.

use std::collections::{HashMap, HashSet};

use countersign_crypto::{Entropy as _, SeededEntropy, sha256};
use countersign_event::content::{EventRef, Limits};
use countersign_event::documents::{AgreementId, Digest, Document as _, KeyWrap, Plan, Side};
use countersign_event::dsse::Envelope;
use countersign_event::encryption::{Encryption, EpochKey, KeyEpoch, SealedRef};
use countersign_event::entry::{Entry, Kind};
use countersign_event::ledger::LedgerRecord;
use countersign_exchange::pipeline::append::AppendError;
use countersign_exchange::pipeline::consume::{ConsumeError, Consumption};
use countersign_exchange::pipeline::deliver::Next;
use countersign_exchange::{ExchangeError, KeyFault, StreamOptions};
use countersign_protocol::Keys;
use countersign_protocol::delivery::BatchFault;
use countersign_store::journal::StoredEntry;

use crate::support::*;

pub(crate) async fn create_encrypted(node: &Node, stream: &str) {
    create_with(node, stream, 0).await;
}

async fn create_with(node: &Node, stream: &str, epoch_entries: u64) {
    let options = StreamOptions {
        encryption: Encryption::Partners,
        epoch_entries,
        ..StreamOptions::default()
    };
    let name = stream.parse().unwrap();
    node.exchange.create_stream(&name, options).await.unwrap();
}

pub(crate) async fn agree(producer: &Node, consumer: &Node) -> AgreementId {
    let plan = Plan {
        exposure_events: 100_000,
        ..Plan::default()
    };
    let invitation = producer.invite("s", Side::Producer, plan).await;
    join(&invitation, producer, consumer).await.unwrap()
}

pub(crate) async fn encrypted_partners(seed: u64) -> (Node, Node, AgreementId) {
    let producer = Node::new(seed, "Producer").await;
    let consumer = Node::new(seed + 1, "Consumer").await;
    create_encrypted(&producer, "s").await;
    let agreement = agree(&producer, &consumer).await;
    (producer, consumer, agreement)
}

fn holds(node: &Node, needle: &[u8]) -> bool {
    let files = node.disk.files();
    let mut bytes = files.iter().filter_map(|path| node.disk.contents(path));
    bytes.any(|bytes| bytes.windows(needle.len()).any(|window| window == needle))
}

/// What a node can read of a stream's events: attributes and data part of each, or why not.
fn opened(node: &Node, producer: &Node) -> Vec<Result<Vec<u8>, KeyFault>> {
    let Some(log) = node.exchange.log(&producer.origin("s")) else {
        return Vec::new();
    };
    let entries = stored(&node.exchange, &log);
    let sealed = entries
        .iter()
        .zip(0..)
        .filter_map(|((entry, content), sequence)| {
            let decoded = Entry::decode(entry).unwrap();
            if decoded.kind == Kind::Control {
                return None;
            }
            assert!(decoded.flags.encrypted, "entry {sequence} is in the clear");
            // The attributes are in the clear: their length is found by their form.
            let attribute_bytes = attribute_bytes(&content[64..]);
            let stored = StoredEntry {
                sequence,
                entry,
                content,
                attribute_bytes,
                erased_by: None,
            };
            let event = node
                .exchange
                .keyring()
                .open(log.number(), log.origin(), &stored);
            Some(event.map(|event| {
                let (attributes, data_part) = event.into_parts();
                [attributes, data_part].concat()
            }))
        });
    sealed.collect()
}

/// The events here all have the attributes of `support::event`, of which the type is the last.
fn attribute_bytes(content: &[u8]) -> u32 {
    let last = b"org.example.test";
    let at = content
        .windows(last.len())
        .position(|window| window == last);
    (at.unwrap() + last.len()) as u32
}

fn assert_reads(node: &Node, producer: &Node, first: u64, count: u64) {
    let read: Vec<_> = opened(node, producer)
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(read, bytes_of(&events("n", first, count)));
}

pub(crate) fn key_epochs(node: &Node, producer: &Node) -> Vec<(u64, KeyEpoch)> {
    let log = node.exchange.log(&producer.origin("s")).unwrap();
    let entries = stored(&node.exchange, &log);
    let controls = entries
        .iter()
        .zip(0u64..)
        .filter_map(|((entry, content), sequence)| {
            let decoded = Entry::decode(entry).unwrap();
            if decoded.kind == Kind::Event {
                return None;
            }
            let content = &content[64..];
            // The type of a control entry is the last of its attributes too.
            let kind = b"control.";
            let at = content.windows(8).position(|window| window == kind)?;
            let end = content[at..]
                .windows(3)
                .position(|window| window == b".v1")?
                + at
                + 3;
            let event = EventRef::check(&content[..end], &content[end..], &Limits::FORMAT).ok()?;
            Some((sequence, KeyEpoch::read(&event)?))
        });
    controls.collect()
}

#[tokio::test]
async fn partners_read_and_no_disk_holds_what_was_said() {
    let (producer, mut consumer, agreement) = encrypted_partners(2000).await;
    producer.publish("s", 1, 50).await.unwrap();
    producer.publish("s", 51, 1).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    assert_reads(&producer, &producer, 1, 51);
    assert_reads(&consumer, &producer, 1, 51);
    for node in [&producer, &consumer] {
        assert!(holds(node, b"org.example.test"), "attributes are readable");
        assert!(!holds(node, b"{\"n\":1"), "the data is in the clear");
    }
    // The producer is gone; the consumer begins anew, with what its own disk says.
    drop(wire);
    producer.exchange.close().await;
    consumer.kill().await;
    assert_reads(&consumer, &producer, 1, 51);
    let wraps = consumer.records("key-wrap").await;
    assert_eq!(wraps.len(), 1);
}

#[tokio::test]
async fn what_has_no_data_is_sealed_too_and_says_nothing_but_its_length() {
    let (producer, consumer, agreement) = encrypted_partners(2010).await;
    producer.publish("s", 1, 3).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    let log = producer.log("s");
    let entries = stored(&producer.exchange, &log);
    let (_, content) = entries.last().unwrap();
    let data_part = &content[64 + attribute_bytes(&content[64..]) as usize..];
    assert_eq!(data_part.len(), 1 + "{\"n\":3}".len() + 24);
    let entry = Entry::decode(&entries.last().unwrap().0).unwrap();
    assert_eq!(entry.data_bytes as usize, data_part.len());
    let sealed = SealedRef::check(&content[64..content.len() - data_part.len()], data_part);
    assert_eq!(sealed.unwrap().key_entry(), 1);
}

/// Whoever holds a copy and no wrap: a relay, a thief of the log files, a partner that was never given the key.
#[tokio::test]
async fn without_a_wrap_nothing_opens() {
    let (producer, consumer, agreement) = encrypted_partners(2020).await;
    producer.publish("s", 1, 5).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    let Some(Next::Batch {
        message,
        bulk,
        keys,
        ..
    }) = next_now(&wire.delivery).await
    else {
        panic!("a batch is due");
    };
    assert_eq!(keys.len(), 1);
    wire.take(message, bulk.concat().into()).await.unwrap();
    wire.settle().await;
    let read = opened(&consumer, &producer);
    assert_eq!(read.len(), 5);
    for event in read {
        assert!(matches!(event, Err(KeyFault::NoWrap { epoch: 1 })));
    }
    // It comes with the next session.
    drop(wire);
    producer.publish("s", 6, 1).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    assert_reads(&consumer, &producer, 1, 6);
}

#[tokio::test]
async fn repeats_and_conflicts_are_known_by_their_plaintext() {
    let (mut producer, _, _) = encrypted_partners(2030).await;
    producer.publish("s", 1, 10).await.unwrap();
    for _ in 0..2 {
        let again = producer.publish("s", 1, 12).await.unwrap();
        assert!(again.duplicates >= 10);
        let (_, session) = producer.session("s", 1).await;
        let (count, bulk) = bulk_of(&events("other", 4, 1));
        let conflict = session.submit_and_wait(4, count, bulk).await;
        assert!(matches!(
            conflict,
            Err(ExchangeError::Append(AppendError::Conflict { .. }))
        ));
        // Unnumbered ones are known by source and id.
        let (_, session) = producer.session("s", 0).await;
        let (count, bulk) = bulk_of(&events("n", 5, 1));
        let again = session.submit_and_wait(1, count, bulk).await.unwrap();
        assert_eq!(again.duplicates, 1);
        producer.restart().await;
    }
    assert_reads(&producer, &producer, 1, 12);
}

#[tokio::test]
async fn each_start_draws_anew_and_goes_on_with_the_epoch() {
    let (mut producer, consumer, agreement) = encrypted_partners(2040).await;
    for round in 0..4 {
        producer.publish("s", round * 5 + 1, 5).await.unwrap();
        producer.restart().await;
    }
    let epochs = key_epochs(&producer, &producer);
    assert_eq!(epochs.len(), 4);
    assert!(epochs.iter().all(|(_, control)| control.epoch == 1));
    let draws: HashSet<_> = epochs.iter().map(|(_, control)| control.draw.0).collect();
    assert_eq!(draws.len(), 4);
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    assert_reads(&consumer, &producer, 1, 20);
    assert_eq!(consumer.records("key-wrap").await.len(), 1);
}

#[tokio::test]
async fn rotation_by_command_and_by_count_begins_epochs_that_partners_follow() {
    let producer = Node::new(2050, "Producer").await;
    let consumer = Node::new(2051, "Consumer").await;
    create_with(&producer, "s", 20).await;
    let agreement = agree(&producer, &consumer).await;
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    for round in 0..10 {
        producer.publish("s", round * 5 + 1, 5).await.unwrap();
        wire.pump().await;
    }
    let by_count = key_epochs(&producer, &producer).len();
    assert!((2..=4).contains(&by_count), "{by_count} epochs");
    let epoch = producer.exchange.rotate("s").await.unwrap();
    producer.publish("s", 51, 5).await.unwrap();
    wire.pump().await;
    let epochs = key_epochs(&consumer, &producer);
    assert_eq!(epochs.len(), by_count + 1);
    assert_eq!(epochs.last().unwrap().1.epoch, epoch);
    assert_reads(&consumer, &producer, 1, 55);
    assert_eq!(consumer.records("key-wrap").await.len(), by_count + 1);
}

#[tokio::test]
async fn a_stream_in_the_clear_has_no_epochs() {
    let (producer, _, _) = partners(2055, "s", 100).await;
    assert!(producer.exchange.rotate("s").await.is_err());
}

#[tokio::test]
async fn who_is_revoked_or_whose_agreement_ended_gets_no_later_key() {
    let (producer, consumer, agreement) = encrypted_partners(2060).await;
    let other = Node::new(2062, "Other").await;
    let others = agree(&producer, &other).await;
    producer.publish("s", 1, 5).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    let mut others_wire = Wire::open(&producer, &other, others).await;
    wire.pump().await;
    others_wire.pump().await;
    producer
        .exchange
        .terminate(agreement, "the period is over")
        .await
        .unwrap();
    producer.publish("s", 6, 5).await.unwrap();
    others_wire.pump().await;
    let epochs: Vec<u64> = key_epochs(&producer, &producer)
        .iter()
        .map(|(_, control)| control.epoch)
        .collect();
    assert_eq!(epochs.len(), 2);
    assert_ne!(epochs[0], epochs[1]);
    assert_reads(&other, &producer, 1, 10);
    // Even with all bytes of the log: the new epoch's key was wrapped to the other one only.
    let wraps = producer.records("key-wrap").await;
    let mut given: Vec<_> = wraps
        .iter()
        .map(|record| match record {
            LedgerRecord::KeyWrap { envelope } => {
                let envelope = Envelope::from_json(envelope.as_bytes()).unwrap();
                let wrap = KeyWrap::peek(&envelope).unwrap();
                (wrap.epoch, wrap.to)
            }
            other => panic!("{other:?}"),
        })
        .collect();
    given.sort();
    let mut expected = vec![
        (epochs[0], consumer.authority().clone()),
        (epochs[0], other.authority().clone()),
        (epochs[1], other.authority().clone()),
    ];
    expected.sort();
    assert_eq!(given, expected);
    // A whole partner at last.
    producer
        .exchange
        .revoke(other.authority().as_str(), "arrears")
        .await
        .unwrap();
    producer.publish("s", 11, 1).await.unwrap();
    assert_eq!(key_epochs(&producer, &producer).len(), 3);
    assert_eq!(producer.records("key-wrap").await.len(), 3);
}

/// What a hostile producer may send in place of a wrap.
#[tokio::test]
async fn a_false_wrap_ends_the_session_and_is_kept() {
    let (producer, consumer, agreement) = encrypted_partners(2070).await;
    producer.publish("s", 1, 5).await.unwrap();
    let wire = Wire::open(&producer, &consumer, agreement).await;
    let Some(Next::Batch { keys, .. }) = next_now(&wire.delivery).await else {
        panic!("a batch is due");
    };
    let good = KeyWrap::peek(&keys[0]).unwrap();
    let mut entropy = SeededEntropy::new(7);
    let foreign_key = EpochKey::generate(&mut entropy);
    let origin = good.stream.as_str();
    let of_other_key = KeyWrap {
        wrapped: foreign_key
            .wrap(&good.wrapped.key, origin, good.epoch, &mut entropy)
            .unwrap(),
        ..good.clone()
    };
    let signer = &producer.org.identity.agreement_key;
    let for_another = KeyWrap {
        to: producer.authority().clone(),
        ..good.clone()
    };
    let mut garbled = good.clone();
    garbled.wrapped.sealed[5] ^= 1;
    let false_ones = [
        of_other_key.sign(signer).to_json(),
        for_another.sign(signer).to_json(),
        garbled.sign(signer).to_json(),
        good.sign(&consumer.org.identity.agreement_key).to_json(),
        b"{}".to_vec(),
    ];
    for (envelope, count) in false_ones.into_iter().zip(1..) {
        let mut consumption = Consumption::open(&consumer.exchange, agreement)
            .await
            .unwrap();
        let envelopes = vec![envelope];
        let refused = consumption.take_keys(&Keys { envelopes });
        assert!(matches!(
            refused,
            Err(ConsumeError::Fault {
                fault: BatchFault::Key { .. },
                ..
            })
        ));
        assert_eq!(consumer.evidence.count(), count);
    }
    assert!(consumer.records("key-wrap").await.is_empty());
}

/// A producer that commits to one key in the log and hands out another: well made, signed, and not used.
#[tokio::test]
async fn a_wrap_that_the_log_does_not_commit_to_opens_nothing() {
    let (producer, consumer, agreement) = encrypted_partners(2080).await;
    producer.publish("s", 1, 5).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    let Some(Next::Batch {
        message,
        bulk,
        keys,
        ..
    }) = next_now(&wire.delivery).await
    else {
        panic!("a batch is due");
    };
    let good = KeyWrap::peek(&keys[0]).unwrap();
    let mut entropy = SeededEntropy::new(7);
    let other = EpochKey::generate(&mut entropy);
    let origin = good.stream.as_str();
    let wrap = KeyWrap {
        commitment: Digest(other.commitment(origin, good.epoch)),
        wrapped: other
            .wrap(&good.wrapped.key, origin, good.epoch, &mut entropy)
            .unwrap(),
        ..good
    };
    let envelopes = vec![wrap.sign(&producer.org.identity.agreement_key).to_json()];
    wire.consumption.take_keys(&Keys { envelopes }).unwrap();
    wire.take(message, bulk.concat().into()).await.unwrap();
    wire.settle().await;
    for event in opened(&consumer, &producer) {
        assert!(matches!(event, Err(KeyFault::Unwrap(_))), "{event:?}");
    }
}

/// Every pair of key entry's draw and sequence ever seen on any disk, and the ciphertext that it was used for.
#[derive(Default)]
struct Audit {
    seen: HashMap<([u8; 32], u64), [u8; 32]>,
    events: u64,
}

impl Audit {
    fn look(&mut self, node: &Node, from: u64) -> u64 {
        let log = node.log("s");
        let mut draws: HashMap<u64, [u8; 32]> = key_epochs(node, node)
            .into_iter()
            .map(|(sequence, control)| (sequence, control.draw.0))
            .collect();
        draws.shrink_to_fit();
        let mut next = from;
        while next < log.size() {
            let runs = node
                .exchange
                .reader()
                .read(log.number(), next, 4096, 8 << 20)
                .unwrap();
            for stored in runs.iter().flat_map(|run| run.iter()) {
                next = stored.sequence + 1;
                if stored.entry[1] & 0x0f == 1 {
                    continue;
                }
                let sealed = SealedRef::check(stored.attributes(), stored.data_part()).unwrap();
                let pair = (draws[&sealed.key_entry()], stored.sequence);
                let ciphertext = sha256(stored.data_part());
                let before = self.seen.insert(pair, ciphertext);
                assert!(
                    before.is_none_or(|before| before == ciphertext),
                    "a nonce came twice"
                );
                self.events += u64::from(before.is_none());
            }
        }
        next
    }
}

/// Kills, power losses, full disks, older copies: whatever comes after is sealed under another draw. `COUNTERSIGN_NONCE_EVENTS` makes it as long as wanted.
#[tokio::test]
async fn no_key_meets_a_nonce_twice_through_crashes_and_restores() {
    let wanted = std::env::var("COUNTERSIGN_NONCE_EVENTS").ok();
    let wanted = wanted.and_then(|text| text.parse().ok()).unwrap_or(5_000);
    let mut entropy = SeededEntropy::new(11);
    let mut draw = move |below: u64| {
        let mut bytes = [0; 8];
        entropy.fill(&mut bytes);
        u64::from_be_bytes(bytes) % below
    };
    let (mut audit, mut seed) = (Audit::default(), 2090);
    while audit.events < wanted {
        seed += 1;
        let mut node = Node::new(seed, "Producer").await;
        create_encrypted(&node, "s").await;
        let mut older = node.disk.after_kill();
        for round in 0..12 {
            let per_batch = 1 + draw(if wanted > 100_000 { 20_000 } else { 60 });
            let (_, session) = node.session("s", 0).await;
            for batch in 0..3 {
                // Other content each time, so that a nonce that came again would show.
                let flavour = format!("f{seed}-{round}-{batch}-{}", draw(u64::MAX));
                let (count, bulk) = bulk_of(&events(&flavour, 1, per_batch));
                let full = batch == 1 && round % 3 == 0;
                node.disk.set_full(full);
                let _ = session.submit_and_wait(1, count, bulk).await;
                node.disk.set_full(false);
            }
            drop(session);
            audit.look(&node, 0);
            match draw(5) {
                0 => node.restart().await,
                1 => node.kill().await,
                2 => node.lose_power(draw(u64::MAX)).await,
                3 => {
                    let disk = std::mem::replace(&mut older, node.disk.after_kill());
                    node.go_back_to(disk).await;
                }
                _ => older = node.disk.after_kill(),
            }
            audit.look(&node, 0);
        }
    }
    println!(
        "{} sealed events, each under its own pair of key and nonce",
        audit.events
    );
}

/// A commit that fails gives its sequences to others: under the same draw they would be sealed with the same nonces.
#[tokio::test]
async fn after_a_failed_commit_the_same_sequences_are_sealed_under_another_draw() {
    let producer = Node::new(2095, "Producer").await;
    create_encrypted(&producer, "s").await;
    let (_, session) = producer.session("s", 0).await;
    let mut refused = 0;
    for round in 0..40 {
        producer.disk.set_full(round % 2 == 1);
        let flavour = format!("r{round}");
        let (count, bulk) = bulk_of(&events(&flavour, 1, 200));
        let draws = key_epochs(&producer, &producer).len();
        match session.submit_and_wait(1, count, bulk).await {
            Ok(_) => {}
            Err(ExchangeError::Append(AppendError::DiskFull)) => {
                refused += 1;
                producer.disk.set_full(false);
                let (count, bulk) = bulk_of(&events(&format!("again-{round}"), 1, 1));
                session.submit_and_wait(1, count, bulk).await.unwrap();
                assert_eq!(key_epochs(&producer, &producer).len(), draws + 1);
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(refused > 0, "the disk never got full");
    let epochs = key_epochs(&producer, &producer);
    assert!(epochs.iter().all(|(_, control)| control.epoch == 1));
}
