//! Full and failing disks, clocks that jump: refused or stopped, never acknowledged and lost.

use std::time::Duration;

use countersign_event::entry::Entry;
use countersign_event::time::Timestamp;
use countersign_exchange::pipeline::append::AppendError;
use countersign_exchange::{Exchange, ExchangeError, Log};
use countersign_store::sim::OpKind;

use crate::support::*;

fn error(
    result: Result<countersign_exchange::pipeline::append::Appended, ExchangeError>,
) -> AppendError {
    match result {
        Err(ExchangeError::Append(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn times(exchange: &Exchange, log: &Log) -> Vec<u64> {
    stored(exchange, log)
        .iter()
        .map(|(entry, _)| Entry::decode(entry).unwrap().time.0)
        .collect()
}

#[tokio::test]
async fn a_full_disk_refuses_appends_reads_go_on_and_writing_resumes_by_itself() {
    let (mut producer, consumer, agreement) = partners(601, "s", 100_000).await;
    let (_, session) = producer.session("s", 1).await;
    let mut next = 1;
    let mut submit = async |expect_full: bool| {
        for _ in 0..60 {
            let (count, bulk) = bulk_of(&events("n", next, 100));
            match session.submit_and_wait(next, count, bulk).await {
                Ok(_) => next += 100,
                Err(ExchangeError::Append(AppendError::DiskFull)) if expect_full => return next,
                Err(other) => panic!("{other:?}"),
            }
        }
        assert!(!expect_full, "the disk never got full");
        next
    };
    submit(false).await;
    producer.disk.set_full(true);
    let full_at = submit(true).await;
    // What is stored is served.
    let mut wire = Wire::open_if_disks_allow(&producer, &consumer, agreement).await;
    assert_eq!(
        stored_events(&producer.exchange, &producer.log("s")),
        bytes_of(&events("n", 1, full_at - 1))
    );
    if let Some(wire) = &mut wire {
        wire.flow().await;
    }
    producer.disk.set_full(false);
    let end = submit(false).await;
    drop(session);
    producer.kill().await;
    assert_eq!(
        stored_events(&producer.exchange, &producer.log("s")),
        bytes_of(&events("n", 1, end - 1))
    );
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_acknowledged_until_the_disk_was_read_again() {
    let mut node = Node::new(602, "Node").await;
    node.publish("s", 1, 10).await.unwrap();
    let (_, session) = node.session("s", 1).await;
    node.exchange
        .enrol_app("x", node.org.key.public(), true)
        .await
        .unwrap();
    node.disk
        .fail(OpKind::Sync, node.disk.count(OpKind::Sync) + 1);
    let mut results = Vec::new();
    for first in [11, 11, 16] {
        let (count, bulk) = bulk_of(&events("n", first, 5));
        results.push(session.submit_and_wait(first, count, bulk).await);
    }
    for result in results {
        assert!(matches!(error(result), AppendError::Stopped { .. }));
    }
    // Repeats of what is stored are not answered either: the writer does not know what is stable.
    let (count, bulk) = bulk_of(&events("n", 1, 5));
    let repeat = session.submit_and_wait(1, count, bulk).await;
    assert!(matches!(error(repeat), AppendError::Stopped { .. }));
    assert!(node.exchange.appending_stopped().is_some());
    assert_eq!(
        stored_events(&node.exchange, &node.log("s")),
        bytes_of(&events("n", 1, 10))
    );
    drop(session);
    node.lose_power(4).await;
    let size = node.log("s").size() - 1;
    assert!(size == 10 || size == 15, "{size}");
    let got = node.publish("s", 11, 5).await.unwrap();
    assert_eq!((got.last_sequence, got.duplicates as u64), (15, size - 10));
}

#[tokio::test]
async fn a_clock_that_jumps_ahead_stops_appends_until_a_person_confirms_it() {
    let node = Node::new(603, "Node").await;
    node.publish("s", 1, 1).await.unwrap();
    let (_, session) = node.session("s", 1).await;
    let submit = async |first| {
        let (count, bulk) = bulk_of(&events("n", first, 1));
        session.submit_and_wait(first, count, bulk).await
    };
    // Time that passed is no jump, however long it was.
    node.clock.advance(Duration::from_secs(30 * 86_400));
    submit(2).await.unwrap();
    let now = START.0 + 30 * 86_400_000_000;
    node.clock.set(Timestamp(now + 590_000_000));
    submit(3).await.unwrap();
    node.clock.set(Timestamp(now + 10 * 365 * 86_400_000_000));
    for _ in 0..3 {
        assert!(matches!(error(submit(4).await), AppendError::Clock(_)));
    }
    node.exchange.writer().confirm_clock();
    submit(4).await.unwrap();
    let times = times(&node.exchange, &node.log("s"));
    assert!(times.is_sorted());
}

#[tokio::test]
async fn a_clock_that_falls_back_never_makes_time_decrease_and_can_be_set_right() {
    let mut node = Node::new(604, "Node").await;
    node.publish("s", 1, 1).await.unwrap();
    node.clock.set(Timestamp(START.0 - 3_600_000_000));
    for first in 2..6 {
        node.clock.advance(Duration::from_secs(300));
        node.publish("s", first, 1).await.unwrap();
    }
    // Twenty minutes later it is set right.
    node.clock.set(Timestamp(START.0 + 1_200_000_000));
    node.publish("s", 6, 1).await.unwrap();
    node.clock.set(Timestamp(0));
    node.publish("s", 7, 1).await.unwrap();
    node.restart().await;
    node.publish("s", 8, 1).await.unwrap();
    let times = times(&node.exchange, &node.log("s"));
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(times[7], START.0 + 1_200_000_000);
    assert_eq!(times[8], times[7]);
}
