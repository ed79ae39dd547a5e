//! Hostile partners: nothing they make up is accepted, the window and the copy stay where they were, and what they sent is kept.

use bytes::Bytes;
use countersign_event::documents::{
    AgreementId, Digest, Document as _, Level, Receipt, RefusalCode, Rejection, SeriesId,
};
use countersign_event::ledger::LedgerRecord;
use countersign_exchange::ExchangeError;
use countersign_exchange::pipeline::consume::{ConsumeError, Consumption};
use countersign_exchange::pipeline::deliver::Next;
use countersign_exchange::pipeline::receipt::ReceiptFault;
use countersign_protocol::delivery::{BatchFault, BatchMessage, Cover};
use countersign_protocol::{Heads, SignedHead};
use countersign_tlog::Checkpoint;
use countersign_tlog::checkpoint::signature_of;

use crate::support::*;

fn fault(result: Result<u64, ExchangeError>) -> ReceiptFault {
    match result {
        Err(ExchangeError::Receipt(fault)) => fault,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_receipt_that_is_not_the_consumers_word_for_what_was_delivered_moves_nothing() {
    let (producer, consumer, agreement) = partners(301, "s", 10).await;
    producer.publish("s", 1, 40).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.flow().await;
    wire.receipt().await.unwrap();
    wire.flow().await;
    let honest_envelope = wire.sign().await.unwrap();
    let honest = Receipt::peek(&honest_envelope).unwrap();
    assert_eq!((honest.number, honest.size), (2, 20));
    let key = &consumer.org.identity.receipt_key;
    let alter = |change: &dyn Fn(&mut Receipt)| {
        let mut receipt = honest.clone();
        change(&mut receipt);
        receipt
    };
    type Expected = fn(&ReceiptFault) -> bool;
    let foreign: Expected = |fault| matches!(fault, ReceiptFault::Foreign { .. });
    let order: Expected = |fault| matches!(fault, ReceiptFault::Order { .. });
    let count: Expected = |fault| matches!(fault, ReceiptFault::Count { .. });
    let backwards: Expected = |fault| matches!(fault, ReceiptFault::Backwards { .. });
    let undelivered: Expected = |fault| matches!(fault, ReceiptFault::Undelivered { .. });
    let root: Expected = |fault| matches!(fault, ReceiptFault::Root { .. });
    let contradiction: Expected = |fault| matches!(fault, ReceiptFault::Contradiction { .. });
    let wrong: Vec<(Receipt, Expected)> = vec![
        (alter(&|r| r.agreement = AgreementId([1; 16])), foreign),
        (alter(&|r| r.stream = producer.origin("other")), foreign),
        (
            alter(&|r| r.consumer = producer.authority().clone()),
            foreign,
        ),
        (alter(&|r| r.series = SeriesId([1; 16])), foreign),
        (alter(&|r| r.filter = Some(Digest([0; 32]))), foreign),
        (alter(&|r| r.level = Level::Received), foreign),
        (alter(&|r| r.start = 1), foreign),
        (alter(&|r| r.number = 3), order),
        (alter(&|r| r.number = 0), order),
        (alter(&|r| r.number = u64::MAX), order),
        (alter(&|r| r.previous = None), order),
        (alter(&|r| r.previous = Some(Digest([0; 32]))), order),
        (alter(&|r| r.number = 1), contradiction),
        (alter(&|r| r.size = 9), backwards),
        (alter(&|r| r.applied = 21), backwards),
        (alter(&|r| r.size = 21), undelivered),
        (alter(&|r| r.size = 41), undelivered),
        (alter(&|r| r.size = u64::MAX), undelivered),
        (alter(&|r| r.size = 15), count),
        (alter(&|r| r.events += 1), count),
        (alter(&|r| r.events = u64::MAX), count),
        (alter(&|r| r.bytes -= 1), count),
        (alter(&|r| r.root = Digest([0; 32])), root),
    ];
    for (receipt, expected) in wrong {
        let fault = fault(wire.send(&receipt.sign(key)).await);
        assert!(expected(&fault), "{fault:?} for {receipt:?}");
    }
    for key in [
        &producer.org.identity.receipt_key,
        &consumer.org.identity.log_key,
        &consumer.org.identity.node_key,
        &consumer.org.key,
    ] {
        let fault = fault(wire.send(&honest.sign(key)).await);
        assert!(matches!(fault, ReceiptFault::Signature { .. }));
    }
    for bytes in [&b""[..], b"{}", b"null", &[0xff; 100]] {
        let fault = fault(wire.delivery.take_receipt(bytes).await);
        assert!(matches!(fault, ReceiptFault::Signature { .. }));
    }
    // The window is where it was, the ledger holds one receipt, and the honest one is still taken.
    assert!(wire.batch().await.is_none());
    assert_eq!(producer.records("receipt").await.len(), 1);
    assert_eq!(producer.exchange.statuses()[0].receipted, 10);
    assert_eq!(wire.send(&honest_envelope).await.unwrap(), 2);
    wire.pump().await;
    assert_eq!(producer.exchange.statuses()[0].receipted, 41);
}

#[tokio::test]
async fn a_contradicting_second_receipt_is_refused_on_every_session() {
    let (producer, consumer, agreement) = partners(302, "s", 10).await;
    producer.publish("s", 1, 40).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    // A second session of the same series, which has not seen a receipt either.
    let peer = consumer.at(&producer);
    let request = wire.consumption.request();
    let (_, second) = producer
        .exchange
        .open_delivery(&peer, &request)
        .await
        .unwrap();
    while let Some(Next::Batch { .. }) = next_now(&second).await {}
    wire.flow().await;
    let honest = wire.sign().await.unwrap();
    wire.send(&honest).await.unwrap();
    let mut other = Receipt::peek(&honest).unwrap();
    other.made.0 += 1_000_000;
    let other = other.sign(&consumer.org.identity.receipt_key);
    let contradiction = ReceiptFault::Contradiction { number: 1 };
    assert_eq!(fault(wire.send(&other).await), contradiction);
    assert_eq!(
        fault(second.take_receipt(&other.to_json()).await),
        contradiction
    );
    assert_eq!(producer.records("receipt").await.len(), 1);
}

/// What a consumer signed twice is kept as a proof that an auditor accepts, and nothing is delivered to it, over restarts, until a person decides.
#[tokio::test]
async fn a_consumer_that_contradicts_itself_gets_nothing_until_a_person_decides() {
    let (mut producer, consumer, agreement) = partners(304, "s", 10).await;
    producer.publish("s", 1, 40).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.flow().await;
    let honest = wire.sign().await.unwrap();
    wire.send(&honest).await.unwrap();
    let key = &consumer.org.identity.receipt_key;
    let mut other = Receipt::peek(&honest).unwrap();
    // Wrong, and no contradiction: it only counts more than was delivered.
    other.number = 2;
    other.previous = Some(Digest(honest.payload_digest()));
    other.size = 1000;
    assert!(wire.send(&other.sign(key)).await.is_err());
    let authority = consumer.authority().clone();
    assert_eq!(producer.exchange.contradicting(&authority), None);
    assert_eq!(producer.evidence.count(), 0);

    let mut other = Receipt::peek(&honest).unwrap();
    other.made.0 += 1_000_000;
    let other = other.sign(key);
    assert!(wire.send(&other).await.is_err());
    assert!(producer.exchange.contradicting(&authority).is_some());
    let (about, file) = producer.evidence.0.lock().unwrap()[0].clone();
    assert_eq!(about, producer.origin("s").as_str());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.receipt-fork");
    std::fs::write(&path, &file).unwrap();
    let fingerprint = consumer.org.key.public().fingerprint();
    let trust = countersign_audit::Trust::of_fingerprints([fingerprint]);
    let report = countersign_audit::verify(&path, &trust, &mut |_| ()).unwrap();
    assert_eq!(report.verdict.exit_code(), 0, "{report}");

    // The running subscription ends, another does not begin, receipts are still taken.
    wire.delivery.recheck();
    let ended = next_now(&wire.delivery).await;
    assert!(matches!(ended, Some(Next::Ended(_))), "{ended:?}");
    assert_eq!(wire.send(&honest).await.unwrap(), 1);
    let refused = |error: ExchangeError| match error {
        ExchangeError::Refused(refused) => refused.refusal.code,
        other => panic!("{other:?}"),
    };
    let again = Wire::try_open(&producer, &consumer, agreement).await;
    assert_eq!(refused(again.err().unwrap()), RefusalCode::Pending);
    drop(wire);
    producer.restart().await;
    let again = Wire::try_open(&producer, &consumer, agreement).await;
    assert_eq!(refused(again.err().unwrap()), RefusalCode::Pending);
    assert_eq!(producer.records("contradiction").await.len(), 1);

    assert!(producer.exchange.settle("nobody", "").await.is_err());
    let settled = producer
        .exchange
        .settle(authority.as_str(), "spoken to")
        .await;
    assert_eq!(settled.unwrap(), authority);
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    assert_eq!(producer.exchange.statuses()[0].receipted, 41);
    assert!(
        producer
            .exchange
            .settle(authority.as_str(), "")
            .await
            .is_err()
    );
    producer.restart().await;
    assert_eq!(producer.exchange.contradicting(&authority), None);
}

#[tokio::test]
async fn a_rejection_is_kept_where_it_belongs_to_the_subscription() {
    let (producer, consumer, agreement) = partners(303, "s", 10).await;
    producer.publish("s", 1, 5).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.flow().await;
    let log = producer.log("s");
    let leaf = producer.exchange.reader().leaf_hash(log.number(), 2);
    let rejection = Rejection {
        agreement,
        stream: producer.origin("s"),
        sequence: 2,
        leaf: Digest(leaf.unwrap()),
        reason: "not what was agreed".to_owned(),
        made: START,
    };
    let key = &consumer.org.identity.receipt_key;
    assert_eq!(wire.send(&rejection.sign(key)).await.unwrap(), 0);
    let wrong = [
        Rejection {
            agreement: AgreementId([0; 16]),
            ..rejection.clone()
        },
        Rejection {
            stream: producer.origin("other"),
            ..rejection.clone()
        },
        Rejection {
            sequence: 3,
            ..rejection.clone()
        },
        Rejection {
            sequence: 100,
            ..rejection.clone()
        },
    ];
    for wrong in wrong {
        fault(wire.send(&wrong.sign(key)).await);
    }
    fault(
        wire.send(&rejection.sign(&producer.org.identity.receipt_key))
            .await,
    );
    assert_eq!(producer.records("rejection").await.len(), 1);
    // It holds nothing back.
    assert_eq!(wire.receipt().await, Some(1));
}

/// A consumer with 11 entries, and the batch that comes next.
async fn before_a_batch(seed: u64) -> (Node, Node, Wire, BatchMessage, Bytes) {
    let (producer, consumer, agreement) = partners(seed, "s", 1000).await;
    producer.publish("s", 1, 10).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    producer.publish("s", 11, 6).await.unwrap();
    let (message, bulk) = wire.batch().await.unwrap();
    (producer, consumer, wire, message, bulk)
}

fn consume_fault(result: Result<(), ConsumeError>) -> BatchFault {
    match result {
        Err(ConsumeError::Fault {
            fault, evidence, ..
        }) => {
            assert!(evidence.is_some());
            fault
        }
        other => panic!("{other:?}"),
    }
}

/// The faults that the consumer recorded about the producer, in all.
async fn faults(consumer: &Node, producer: &Node) -> usize {
    // Faults ride on the next commit: what is queued after them is durable after them.
    let origin = producer.origin("s");
    let after = consumer.exchange.move_cursor("after", &origin, 0, [0; 32]);
    after.await.unwrap();
    let faults = consumer.records("fault").await;
    for fault in &faults {
        let LedgerRecord::Fault {
            stream, evidence, ..
        } = fault
        else {
            panic!("{fault:?}");
        };
        assert_eq!(stream.as_ref(), Some(&producer.origin("s")));
        assert!(evidence.is_some());
    }
    faults.len()
}

fn copy(consumer: &Node, producer: &Node) -> Vec<(Vec<u8>, Vec<u8>)> {
    let log = consumer.exchange.log(&producer.origin("s")).unwrap();
    stored(&consumer.exchange, &log)
}

#[tokio::test]
async fn every_altered_byte_of_a_batch_is_refused_and_kept() {
    let (producer, consumer, mut wire, message, bulk) = before_a_batch(310).await;
    let before = copy(&consumer, &producer);
    let mut count = 0;
    for at in 0..bulk.len() {
        let mut altered = bulk.to_vec();
        altered[at] ^= 1 << (at % 8);
        consume_fault(wire.take(message.clone(), altered.into()).await);
        count += 1;
    }
    for cut in [0, 1, bulk.len() / 2, bulk.len() - 1] {
        consume_fault(wire.take(message.clone(), bulk.slice(..cut)).await);
        count += 1;
    }
    assert_eq!(consumer.evidence.count(), count);
    assert_eq!(copy(&consumer, &producer), before);
    assert_eq!(faults(&consumer, &producer).await, count);
    // The true batch is still taken.
    wire.take(message, bulk).await.unwrap();
    wire.pump().await;
    assert_eq!(copy(&consumer, &producer).len(), 17);
}

#[tokio::test]
async fn missing_repeated_reordered_and_miscounted_batches_are_refused() {
    let (producer, consumer, agreement) = partners(311, "s", 1000).await;
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    let mut batches = Vec::new();
    for first in [1, 11, 21] {
        producer.publish("s", first, 10).await.unwrap();
        batches.push(wire.batch().await.unwrap());
    }
    let [one, two, three] = [0, 1, 2].map(|at: usize| batches[at].clone());
    for (message, bulk) in [&two, &three] {
        let fault = consume_fault(wire.take(message.clone(), bulk.clone()).await);
        assert!(matches!(fault, BatchFault::Position { expected: 0, .. }));
    }
    wire.take(one.0.clone(), one.1.clone()).await.unwrap();
    for (message, bulk) in [&one, &three] {
        let fault = consume_fault(wire.take(message.clone(), bulk.clone()).await);
        assert!(matches!(fault, BatchFault::Position { expected: 11, .. }));
    }
    // Another batch's content under the right position, and wrong counts.
    let mut moved = three.0.clone();
    moved.first = 11;
    consume_fault(wire.take(moved, three.1.clone()).await);
    for change in [
        |m: &mut BatchMessage| m.count = 0,
        |m: &mut BatchMessage| m.count -= 1,
        |m: &mut BatchMessage| m.count += 1,
        |m: &mut BatchMessage| m.count = u32::MAX,
        |m: &mut BatchMessage| m.descriptor_bytes = 0,
        |m: &mut BatchMessage| m.descriptor_bytes = u32::MAX,
    ] {
        let mut message = two.0.clone();
        change(&mut message);
        consume_fault(wire.take(message, two.1.clone()).await);
    }
    wire.take(two.0, two.1).await.unwrap();
    wire.take(three.0, three.1).await.unwrap();
    wire.pump().await;
    assert_eq!(copy(&consumer, &producer).len(), 31);
}

#[tokio::test]
async fn a_checkpoint_of_another_key_or_another_tree_is_refused() {
    let (producer, consumer, mut wire, message, bulk) = before_a_batch(312).await;
    let Cover::Checkpoint { head, consistency } = message.cover.clone();
    let origin = producer.origin("s").to_string();
    let sign = |size, root, key| {
        let checkpoint = Checkpoint {
            origin: origin.clone(),
            size,
            root,
        };
        SignedHead::new(size, root, signature_of(&checkpoint, key))
    };
    let log_key = &producer.org.identity.log_key;
    let other_key = &producer.org.identity.node_key;
    let mut short = head.clone();
    short.signature.pop();
    let wrong = [
        sign(head.size, head.root, other_key),
        sign(head.size, [1; 32], log_key),
        sign(head.size + 5, head.root, log_key),
        sign(5, head.root, log_key),
        SignedHead {
            size: head.size + 1,
            ..head.clone()
        },
        short,
    ];
    for head in wrong {
        let message = BatchMessage {
            cover: Cover::Checkpoint {
                head: head.clone(),
                consistency: consistency.clone(),
            },
            ..message.clone()
        };
        consume_fault(wire.take(message, bulk.clone()).await);
        let heads = Heads {
            head,
            paused: String::new(),
        };
        // A head alone is refused where it contradicts what is known already.
        if heads.head.size <= 11
            || heads.head.signature() != wire_signature(&heads, log_key, &origin)
        {
            assert!(wire.consumption.take_heads(&heads).is_err());
        }
    }
    assert_eq!(copy(&consumer, &producer).len(), 11);
}

fn wire_signature(
    heads: &Heads,
    key: &countersign_crypto::SigningKey,
    origin: &str,
) -> Option<countersign_crypto::Signature> {
    Some(signature_of(&heads.head.checkpoint(origin), key))
}

/// Another node with the producer's keys, the same stream and other events: what a fork looks like to a consumer.
async fn fork_of(producer: &Node, events: u64) -> Node {
    let fork = Node::with(producer.org.clone(), 77_777, NodeOptions::default()).await;
    let (_, session) = fork.session("s", 1).await;
    let (count, bulk) = bulk_of(&crate::support::events("fork", 1, events));
    session.submit_and_wait(1, count, bulk).await.unwrap();
    fork
}

#[tokio::test]
async fn a_second_history_is_a_fork_at_first_contact() {
    for longer in [5, 10, 30] {
        let (producer, consumer, agreement) = partners(320 + longer, "s", 1000).await;
        producer.publish("s", 1, 10).await.unwrap();
        let mut wire = Wire::open(&producer, &consumer, agreement).await;
        wire.pump().await;
        drop(wire);
        let before = copy(&consumer, &producer);
        let fork = fork_of(&producer, longer).await;
        let log = fork.log("s");
        let head = log.head();
        // The fork shows its head when the session begins, with proofs from its own tree.
        let nodes = fork.exchange.reader().nodes(log.number());
        let start = 11.min(head.size);
        let ready = countersign_protocol::SubscribeReady {
            start: 11,
            head: head.signed().unwrap(),
            range: Vec::new(),
            last_leaf: [0; 32],
            last_time: 0,
            last_leaf_proof: Vec::new(),
            consistency: countersign_tlog::consistency_proof(&nodes, start, head.size).unwrap(),
            from_newest: countersign_tlog::consistency_proof(&nodes, start, head.size).unwrap(),
            exposure_events: 1000,
            receipt_number: 1,
            receipt_size: 11,
        };
        let mut consumption = Consumption::open(&consumer.exchange, agreement)
            .await
            .unwrap();
        let error = consumption.begin(&ready).await.unwrap_err();
        assert!(error.is_fork(), "{longer}: {error:?}");
        consume_fault(Err(error));
        // The proof, and the bytes that came.
        assert_eq!(consumer.evidence.count(), 2);
        assert_eq!(faults(&consumer, &producer).await, 2);
        assert!(consumer.exchange.has_forked(&producer.origin("s")));
        let kept = consumer.evidence.0.lock().unwrap()[0].1.clone();
        let proof = countersign_tlog::fork_proof::ForkProof::parse(&kept).unwrap();
        let key = producer.org.identity.log_key.public();
        let origin = producer.origin("s");
        let vkey =
            countersign_tlog::Vkey::new(origin.as_str(), countersign_tlog::Algorithm::Ed25519, key);
        proof.check(&[vkey.unwrap()]).unwrap();
        assert_eq!(copy(&consumer, &producer), before);
    }
}

#[tokio::test]
async fn a_second_history_in_batches_is_refused_from_its_first_entry() {
    let (producer, consumer, agreement) = partners(360, "s", 1000).await;
    producer.publish("s", 1, 10).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    let before = copy(&consumer, &producer);
    let mut fork = producer.org.clone();
    fork.identity.statement.name = "Producer".to_owned();
    let (other, other_consumer, other_agreement) = {
        let other = fork_of(&producer, 20).await;
        let reader = Node::new(99_360, "Reader").await;
        let invitation = other
            .invite(
                "s",
                countersign_event::documents::Side::Producer,
                Default::default(),
            )
            .await;
        let agreement = join(&invitation, &other, &reader).await.unwrap();
        (other, reader, agreement)
    };
    let request = subscribe_at(
        &other,
        "s",
        other_agreement,
        countersign_protocol::StartAt::Sequence(11),
    );
    let peer = other_consumer.at(&other);
    let (_, delivery) = other.exchange.open_delivery(&peer, &request).await.unwrap();
    let Some(Next::Batch { message, bulk, .. }) = next_now(&delivery).await else {
        panic!("no batch");
    };
    consume_fault(wire.take(message, bulk.concat().into()).await);
    assert_eq!(copy(&consumer, &producer), before);
    assert_eq!(consumer.evidence.count(), 1);
    // The true history goes on.
    producer.publish("s", 11, 5).await.unwrap();
    wire.pump().await;
    assert_eq!(copy(&consumer, &producer).len(), 16);
}
