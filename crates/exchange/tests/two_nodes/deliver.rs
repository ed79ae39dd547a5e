//! Delivery, copy and receipts: nothing lost, nothing doubled, nothing sent beyond the window, the same proof on both sides.

use countersign_event::documents::{Document as _, Level, Receipt};
use countersign_event::dsse::Envelope;
use countersign_event::ledger::LedgerRecord;
use countersign_exchange::Direction;

use crate::support::*;

/// The receipts in a node's ledger, in order.
async fn receipts(node: &Node) -> Vec<String> {
    let records = node.records("receipt").await;
    let envelope = |record| match record {
        LedgerRecord::Receipt { envelope, .. } => envelope,
        other => panic!("{other:?}"),
    };
    records.into_iter().map(envelope).collect()
}

fn read(envelope: &str) -> Receipt {
    Receipt::peek(&Envelope::from_json(envelope.as_bytes()).unwrap()).unwrap()
}

fn copy_of(consumer: &Node, producer: &Node) -> Vec<(Vec<u8>, Vec<u8>)> {
    let log = consumer.exchange.log(&producer.origin("s"));
    log.map(|log| stored(&consumer.exchange, &log))
        .unwrap_or_default()
}

fn original(producer: &Node) -> Vec<(Vec<u8>, Vec<u8>)> {
    stored(&producer.exchange, &producer.log("s"))
}

#[tokio::test]
async fn a_whole_log_is_copied_byte_for_byte_and_receipted_on_both_sides() {
    let (producer, consumer, agreement) = partners(1, "s", 1000).await;
    for batch in 0..20 {
        producer.publish("s", batch * 50 + 1, 50).await.unwrap();
    }
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    assert_eq!(copy_of(&consumer, &producer), original(&producer));
    let (ours, theirs) = (receipts(&producer).await, receipts(&consumer).await);
    assert_eq!(ours, theirs);
    let last = read(ours.last().unwrap());
    assert_eq!((last.size, last.events), (1001, 1000));
    assert_eq!(last.root.0, producer.log("s").head().root);
    assert_eq!((last.level, last.applied), (Level::Verified, 0));
    let bytes: usize = events("n", 1, 1000)
        .iter()
        .map(|event| event.as_ref().data().data.len())
        .sum();
    assert_eq!(last.bytes, bytes as u64);
    let records = producer.records("receipt").await;
    let sum: u64 = records
        .iter()
        .map(|record| match record {
            LedgerRecord::Receipt { events, .. } => *events,
            _ => 0,
        })
        .sum();
    assert_eq!(sum, 1000);
    // Live tail: what comes later flows in the same session.
    producer.publish("s", 1001, 3).await.unwrap();
    wire.pump().await;
    assert_eq!(copy_of(&consumer, &producer), original(&producer));
}

#[tokio::test]
async fn a_restart_of_either_side_loses_and_doubles_nothing() {
    let (mut producer, mut consumer, agreement) = partners(2, "s", 40).await;
    let mut number = 1;
    for round in 0..8 {
        producer.publish("s", number, 25).await.unwrap();
        number += 25;
        let mut wire = Wire::open(&producer, &consumer, agreement).await;
        for receipt in std::mem::take(&mut wire.resent) {
            wire.send(&receipt).await.unwrap();
        }
        if let Some((message, bulk)) = wire.batch().await {
            wire.take(message, bulk).await.unwrap();
            if round % 2 == 0 {
                wire.settle().await;
            }
        }
        // Now and then a receipt is signed and lost on the way.
        if round % 3 == 0 {
            wire.settle().await;
            wire.sign().await;
        }
        drop(wire);
        match round % 4 {
            0 => consumer.kill().await,
            1 => producer.kill().await,
            2 => consumer.restart().await,
            _ => {
                producer.lose_power(round).await;
                consumer.lose_power(round).await;
            }
        }
    }
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    assert_eq!(copy_of(&consumer, &producer), original(&producer));
    assert_eq!(producer.log("s").size(), number);
    let (ours, theirs) = (receipts(&producer).await, receipts(&consumer).await);
    assert_eq!(ours, theirs);
    let read: Vec<_> = ours.iter().map(|envelope| read(envelope)).collect();
    let numbers: Vec<_> = read.iter().map(|receipt| receipt.number).collect();
    assert_eq!(numbers, (1..=read.len() as u64).collect::<Vec<_>>());
    let last = read.last().unwrap();
    assert_eq!((last.size, last.events), (number, number - 1));
}

#[tokio::test]
async fn the_producer_stops_exactly_at_the_window_says_why_and_goes_on_with_a_receipt() {
    let (mut producer, consumer, agreement) = partners(3, "s", 10).await;
    producer.publish("s", 1, 100).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    for end in [10, 20, 30] {
        wire.flow().await;
        let heads = wire.paused.take().unwrap();
        assert_eq!(heads.head.size, 101);
        assert!(heads.paused.contains("10 events"), "{}", heads.paused);
        assert_eq!(copy_of(&consumer, &producer).len(), end);
        for (node, direction) in [(&producer, Direction::Out), (&consumer, Direction::In)] {
            let statuses = node.exchange.statuses();
            assert_eq!(statuses[0].direction, direction);
            assert!(statuses[0].paused_because.contains("window"));
            let status = &statuses[0];
            assert_eq!((status.position, status.head), (end as u64, 101));
        }
        // Asking again says nothing twice.
        assert!(next_now(&wire.delivery).await.is_none());
        wire.receipt().await.unwrap();
    }
    // A restart of the producer changes nothing about it.
    wire.flow().await;
    drop(wire);
    producer.kill().await;
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.flow().await;
    assert_eq!(copy_of(&consumer, &producer).len(), 40);
    wire.pump().await;
    assert_eq!(copy_of(&consumer, &producer), original(&producer));
}

#[tokio::test]
async fn one_event_at_a_time_is_always_allowed() {
    let (producer, consumer, agreement) = partners(4, "s", 0).await;
    producer.publish("s", 1, 5).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.flow().await;
    assert_eq!(copy_of(&consumer, &producer).len(), 1);
    wire.pump().await;
    assert_eq!(copy_of(&consumer, &producer).len(), 6);
    assert_eq!(receipts(&producer).await.len(), 6);
}

#[tokio::test]
async fn the_decision_is_durable_before_the_first_batch() {
    let (mut producer, consumer, agreement) = partners(5, "s", 10).await;
    producer.publish("s", 1, 5).await.unwrap();
    let _wire = Wire::open(&producer, &consumer, agreement).await;
    // Nothing was asked of the delivery yet, and power fails.
    producer.lose_power(1).await;
    let reads: Vec<_> = producer
        .records("decision")
        .await
        .into_iter()
        .filter(
            |record| matches!(record, LedgerRecord::Decision { action, .. } if action == "read"),
        )
        .collect();
    let [
        LedgerRecord::Decision {
            principal,
            stream,
            allowed: true,
            policies,
            policy_digest,
            agreement: Some(found),
            facts,
            ..
        },
    ] = reads.as_slice()
    else {
        panic!("{reads:?}");
    };
    assert_eq!(principal, consumer.authority().as_str());
    assert_eq!(*stream, producer.origin("s"));
    assert_eq!(policies, &["test/read"]);
    assert_eq!(policy_digest.0, producer.exchange.policies().digest());
    assert_eq!(*found, agreement);
    // The facts replay to the same answer.
    let request = serde_json::from_str(facts).unwrap();
    assert!(producer.exchange.policies().decide(&request).allowed);
}

#[tokio::test]
async fn receipts_that_the_producer_lost_are_sent_again_as_they_were() {
    let (mut producer, consumer, agreement) = partners(6, "s", 10).await;
    producer.publish("s", 1, 30).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.flow().await;
    wire.receipt().await.unwrap();
    let disk = producer.disk.after_kill();
    for _ in 0..2 {
        wire.flow().await;
        wire.receipt().await.unwrap();
    }
    drop(wire);
    // The producer's ledger knows of the first receipt only.
    producer.go_back_to(disk).await;
    assert_eq!(receipts(&producer).await.len(), 1);
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    let numbers: Vec<_> = wire
        .resent
        .iter()
        .map(|receipt| Receipt::peek(receipt).unwrap().number)
        .collect();
    assert_eq!(numbers, [2, 3]);
    wire.pump().await;
    assert_eq!(copy_of(&consumer, &producer), original(&producer));
    assert_eq!(receipts(&producer).await, receipts(&consumer).await);
}

#[tokio::test]
async fn a_receipt_handed_in_twice_is_answered_like_the_first_time_and_kept_once() {
    let (mut producer, consumer, agreement) = partners(7, "s", 10).await;
    producer.publish("s", 1, 5).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.flow().await;
    let receipt = wire.sign().await.unwrap();
    for _ in 0..3 {
        assert_eq!(wire.send(&receipt).await.unwrap(), 1);
    }
    drop(wire);
    producer.restart().await;
    let wire = Wire::open(&producer, &consumer, agreement).await;
    assert_eq!(wire.send(&receipt).await.unwrap(), 1);
    assert_eq!(receipts(&producer).await.len(), 1);
}

#[tokio::test]
async fn a_receipt_on_two_sessions_at_once_is_kept_once() {
    let (producer, consumer, agreement) = partners(8, "s", 10).await;
    producer.publish("s", 1, 5).await.unwrap();
    let mut old = Wire::open(&producer, &consumer, agreement).await;
    // The consumer comes back before the producer noticed that the first session is gone.
    let mut new = Wire::open(&producer, &consumer, agreement).await;
    old.flow().await;
    let receipt = old.sign().await.unwrap();
    while new.batch().await.is_some() {}
    let (one, two) = tokio::join!(old.send(&receipt), new.send(&receipt));
    assert_eq!((one.unwrap(), two.unwrap()), (1, 1));
    assert_eq!(receipts(&producer).await.len(), 1);
}

#[tokio::test]
async fn a_session_that_ends_while_a_receipt_is_written_does_not_lead_to_a_contradiction() {
    let (producer, consumer, agreement) = partners(9, "s", 100).await;
    producer.publish("s", 1, 5).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.flow().await;
    // Signed and on its way to the ledger when the session breaks.
    wire.consumption.sign_receipt().await.unwrap();
    drop(wire);
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    consumer.clock.advance(std::time::Duration::from_secs(1));
    producer.publish("s", 6, 5).await.unwrap();
    wire.pump().await;
    let theirs = receipts(&consumer).await;
    let numbers: Vec<_> = theirs.iter().map(|text| read(text).number).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_applied_receipt_follows_the_application() {
    let (producer, mut consumer, agreement) = partners(10, "s", 100).await;
    producer.publish("s", 1, 5).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    let origin = producer.origin("s");
    let leaf = |at| {
        let log = consumer.exchange.log(&origin).unwrap();
        consumer
            .exchange
            .reader()
            .leaf_hash(log.number(), at)
            .unwrap()
    };
    for (app, next, applied, level) in [
        ("one", 4, 4, Level::Verified),
        ("two", 3, 4, Level::Verified),
        ("one", 6, 4, Level::Verified),
        ("two", 6, 6, Level::Applied),
    ] {
        consumer
            .exchange
            .move_cursor(app, &origin, next, leaf(next - 1))
            .await
            .unwrap();
        wire.receipt().await;
        let all = receipts(&producer).await;
        let last = read(all.last().unwrap());
        assert_eq!((last.applied, last.level), (applied, level), "{app} {next}");
    }
    assert_eq!(receipts(&producer).await, receipts(&consumer).await);
    drop(wire);
    consumer.kill().await;
    assert_eq!(consumer.exchange.applied(&origin), 6);
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    assert!(wire.sign().await.is_none());
}

#[tokio::test]
async fn a_reader_that_starts_again_earlier_is_counted_once() {
    use countersign_exchange::pipeline::deliver::Next;
    use countersign_protocol::StartAt;
    let (producer, consumer, agreement) = partners(11, "s", 10).await;
    producer.publish("s", 1, 40).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.flow().await;
    wire.receipt().await.unwrap();
    let series = wire.consumption.request().series;
    let mut request = subscribe_at(&producer, "s", agreement, StartAt::Sequence(0));
    request.series = series;
    let peer = consumer.at(&producer);
    let (ready, again) = producer
        .exchange
        .open_delivery(&peer, &request)
        .await
        .unwrap();
    assert_eq!((ready.start, ready.receipt_size), (0, 10));
    let mut end = 0;
    while let Some(Next::Batch { message, .. }) = next_now(&again).await {
        end = message.first + u64::from(message.count);
    }
    assert_eq!(end, 20);
    // The receipt of the honest session, which counts what came after the last receipt, holds here too.
    wire.flow().await;
    let receipt = wire.sign().await.unwrap();
    assert_eq!(again.take_receipt(&receipt.to_json()).await.unwrap(), 2);
}

#[tokio::test]
async fn a_start_by_sequence_time_and_now_is_proven() {
    use countersign_protocol::StartAt;
    use countersign_protocol::delivery::LogReader;
    let (producer, consumer, agreement) = partners(12, "s", 100).await;
    producer.publish("s", 1, 10).await.unwrap();
    producer.clock.advance(std::time::Duration::from_secs(60));
    producer.publish("s", 11, 10).await.unwrap();
    let peer = consumer.at(&producer);
    let log = producer.log("s");
    let head = log.head();
    for (at, start) in [
        (StartAt::Sequence(0), 0),
        (StartAt::Sequence(5), 5),
        (StartAt::Sequence(u64::MAX), 21),
        (StartAt::Time(0), 0),
        (StartAt::Time(START.0 + 1), 11),
        (StartAt::Time(u64::MAX), 21),
        (StartAt::Now, 21),
    ] {
        let request = subscribe_at(&producer, "s", agreement, at);
        let (ready, _) = producer
            .exchange
            .open_delivery(&peer, &request)
            .await
            .unwrap();
        assert_eq!(ready.start, start, "{at:?}");
        let key = producer.org.identity.log_key.public();
        let reader = LogReader::from_ready(log.origin().as_str(), key, &ready, None).unwrap();
        assert_eq!(reader.next(), start);
        assert_eq!(reader.signed().unwrap().root, head.root);
    }
}

#[tokio::test]
async fn a_cursor_of_another_history_and_a_log_that_shrank_are_refused() {
    use countersign_event::documents::RefusalCode;
    use countersign_exchange::ExchangeError;
    use countersign_protocol::StartAt;
    let (producer, consumer, agreement) = partners(13, "s", 100).await;
    producer.publish("s", 1, 10).await.unwrap();
    let peer = consumer.at(&producer);
    let wrong_leaf = StartAt::Cursor {
        next: 5,
        leaf: [1; 32],
    };
    let beyond = StartAt::Cursor {
        next: 12,
        leaf: [1; 32],
    };
    let mut requests =
        [wrong_leaf, beyond, StartAt::Now].map(|at| subscribe_at(&producer, "s", agreement, at));
    requests[2].newest_size = 12;
    for request in requests {
        match producer.exchange.open_delivery(&peer, &request).await {
            Err(ExchangeError::Refused(refused)) => {
                assert_eq!(refused.refusal.code, RefusalCode::CursorMismatch);
            }
            _ => panic!("{request:?}"),
        }
    }
}

#[tokio::test]
async fn a_reader_that_never_receipts_gets_one_window_under_whatever_series_or_start() {
    use countersign_exchange::pipeline::deliver::Next;
    use countersign_protocol::StartAt;
    let (producer, consumer, agreement) = partners(12, "s", 10).await;
    producer.publish("s", 1, 100).await.unwrap();
    let peer = consumer.at(&producer);
    let mut handed_out = 0;
    for (attempt, start) in [0, 10, 40, 0, 90].into_iter().enumerate() {
        let mut request = subscribe_at(&producer, "s", agreement, StartAt::Sequence(start));
        request.series = [attempt as u8 + 1; 16];
        let (_, delivery) = producer
            .exchange
            .open_delivery(&peer, &request)
            .await
            .unwrap();
        while let Some(Next::Batch { message, .. }) = next_now(&delivery).await {
            // The first window again is no further risk.
            if start > 0 || attempt == 0 {
                handed_out += u64::from(message.count);
            }
        }
    }
    assert_eq!(handed_out, 10);
}
