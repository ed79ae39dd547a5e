//! Rate, quota and history of a plan: exact to the event, under many sessions, and after a stop of the node however it came.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use countersign_event::documents::{
    AgreementId, History, Period, Plan, Quota, Rate, RefusalCode, Side,
};
use countersign_event::ledger::LedgerRecord;
use countersign_event::time::Timestamp;
use countersign_exchange::pipeline::deliver::{Delivery, Next};
use countersign_exchange::{ExchangeError, Refused};
use countersign_protocol::StartAt;

use crate::support::*;

const PERIOD_S: u64 = 300;

fn number(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

fn quota(events: Option<u64>, bytes: Option<u64>) -> Plan {
    Plan {
        quota: Some(Quota {
            period: Period::Seconds(number(PERIOD_S as u32)),
            events,
            bytes,
        }),
        ..Plan::default()
    }
}

/// A producer whose stream `s` is read under this plan, and who reads it.
async fn under(seed: u64, plan: Plan) -> (Node, Node, AgreementId) {
    let producer = Node::new(seed * 2 + 1000, "Producer").await;
    let consumer = Node::new(seed * 2 + 1001, "Consumer").await;
    producer.create("s").await;
    let invitation = producer.invite("s", Side::Producer, plan).await;
    let agreement = join(&invitation, &producer, &consumer).await.unwrap();
    (producer, consumer, agreement)
}

/// A session of a series of its own.
async fn reader(
    producer: &Node,
    consumer: &Node,
    agreement: AgreementId,
    (series, start): (u8, u64),
) -> Arc<Delivery> {
    let mut request = subscribe_at(producer, "s", agreement, StartAt::Sequence(start));
    request.series = [series; 16];
    let peer = consumer.at(producer);
    let opened = producer.exchange.open_delivery(&peer, &request).await;
    opened.unwrap().1
}

/// Takes what comes until a limit holds it up; the positions of what came, and what was said.
async fn drain(delivery: &Delivery, out: &mut BTreeSet<u64>) -> Option<String> {
    loop {
        // It would say nothing twice.
        let held = delivery.goes_on_in();
        if held.is_some_and(|wait| wait > Duration::from_secs(2)) {
            return None;
        }
        match delivery.next().await.unwrap() {
            Next::Batch { message, .. } => {
                out.extend(message.first..message.first + u64::from(message.count));
            }
            Next::Heads(heads) => return Some(heads.paused),
            Next::Wait => return None,
            Next::Ended(refused) => panic!("{refused:?}"),
        }
    }
}

/// The genesis entry is no event.
fn events_of(out: &BTreeSet<u64>) -> u64 {
    out.iter().filter(|position| **position > 0).count() as u64
}

fn wait(node: &Node, seconds: u64) {
    node.clock.advance(Duration::from_secs(seconds));
}

/// To the first second of the next period.
fn next_period(node: &Node) {
    use countersign_exchange::Clock as _;
    let now = node.clock.now().0;
    let length = PERIOD_S * 1_000_000;
    let left = length - now % length;
    node.clock.advance(Duration::from_micros(left));
}

#[tokio::test]
async fn the_quota_is_exact_under_many_sessions_and_says_which_limit_and_when_it_lifts() {
    let (producer, consumer, agreement) = under(301, quota(Some(200), None)).await;
    next_period(&producer);
    producer.publish("s", 1, 1_000).await.unwrap();
    let mut out = BTreeSet::new();
    let mut readers = Vec::new();
    for series in 0..12 {
        let start = u64::from(series) * 80;
        readers.push(reader(&producer, &consumer, agreement, (series, start)).await);
    }
    // What one set aside and does not use is the others' a second later.
    for _ in 0..3 {
        for delivery in &readers {
            drain(delivery, &mut out).await;
        }
        wait(&producer, 1);
    }
    assert_eq!(events_of(&out), 200);
    let late = reader(&producer, &consumer, agreement, (99, 500)).await;
    let said = drain(&late, &mut out).await.unwrap();
    assert!(said.contains("quota of 200 events"), "{said}");
    let now = {
        use countersign_exchange::Clock as _;
        producer.clock.now().0
    };
    let lifts = Timestamp(now - now % (PERIOD_S * 1_000_000) + PERIOD_S * 1_000_000);
    assert!(said.ends_with(&lifts.to_rfc3339()), "{said}");
    let statuses = producer.exchange.statuses();
    assert_eq!(statuses[0].held_by, "quota-events");
    assert_eq!(statuses[0].paused_because, said);
    assert!(late.goes_on_in().is_some());
    assert_eq!(events_of(&out), 200);
    // What was sent may be sent again.
    let mut again = BTreeSet::new();
    let first = reader(&producer, &consumer, agreement, (98, 1)).await;
    drain(&first, &mut again).await;
    assert!(again.is_subset(&out) && !again.is_empty());
    // The next period has its own.
    next_period(&producer);
    let mut next = BTreeSet::new();
    for delivery in [&late, &readers[0]] {
        drain(delivery, &mut next).await;
    }
    assert_eq!(events_of(&next), 200);
}

#[tokio::test]
async fn the_quota_is_exact_after_a_restart_and_after_a_crash() {
    for (seed, how) in [(310, 0), (311, 1), (312, 2)] {
        let (mut producer, consumer, agreement) = under(seed, quota(Some(100), None)).await;
        next_period(&producer);
        producer.publish("s", 1, 500).await.unwrap();
        let (mut out, mut position) = (BTreeSet::new(), 0);
        for round in 0..6 {
            let delivery = reader(&producer, &consumer, agreement, (round, position)).await;
            // Three batches at most, and the last one is lost on the way.
            for _ in 0..3 {
                match delivery.next().await.unwrap() {
                    Next::Batch { message, .. } => {
                        out.extend(message.first..message.first + u64::from(message.count));
                        position = message.first;
                    }
                    Next::Heads(_) | Next::Wait => break,
                    Next::Ended(refused) => panic!("{refused:?}"),
                }
            }
            delivery.disconnected();
            drop(delivery);
            match how {
                0 => producer.restart().await,
                1 => producer.kill().await,
                _ => producer.lose_power(u64::from(round)).await,
            }
        }
        let delivery = reader(&producer, &consumer, agreement, (50, position)).await;
        drain(&delivery, &mut out).await;
        assert_eq!(events_of(&out), 100, "how {how}");
        assert_eq!(out.last(), Some(&100), "how {how}");
        // A reader that begins elsewhere gets nothing more either.
        let elsewhere = reader(&producer, &consumer, agreement, (51, 300)).await;
        drain(&elsewhere, &mut out).await;
        assert_eq!(events_of(&out), 100, "how {how}");
    }
}

#[tokio::test]
async fn bytes_are_counted_to_the_event() {
    let each = events("n", 1, 1)[0].as_ref().data().data.len() as u64;
    let (producer, consumer, agreement) = under(320, quota(None, Some(each * 7 + each - 1))).await;
    next_period(&producer);
    producer.publish("s", 1, 9).await.unwrap();
    let delivery = reader(&producer, &consumer, agreement, (1, 0)).await;
    let mut out = BTreeSet::new();
    let said = drain(&delivery, &mut out).await.unwrap();
    assert_eq!(events_of(&out), 7);
    assert!(said.contains("data bytes"), "{said}");
    assert_eq!(producer.exchange.statuses()[0].held_by, "quota-bytes");
}

#[tokio::test]
async fn what_is_set_aside_is_in_the_ledger_before_it_leaves_and_seldom() {
    let (producer, consumer, agreement) = under(330, quota(Some(5_000), None)).await;
    next_period(&producer);
    for batch in 0..6 {
        producer
            .publish("s", batch * 1_000 + 1, 1_000)
            .await
            .unwrap();
    }
    let delivery = reader(&producer, &consumer, agreement, (1, 0)).await;
    let mut sent = 0;
    loop {
        match delivery.next().await.unwrap() {
            Next::Batch { message, .. } => sent = message.first + u64::from(message.count),
            _ => break,
        }
        let held = producer.records("allotment").await;
        let aside = held.iter().filter_map(|record| match record {
            LedgerRecord::Allotment { events, .. } => Some(*events),
            _ => None,
        });
        assert!(sent <= 1 + aside.max().unwrap());
    }
    assert_eq!(sent, 5_001);
    let held = producer.records("allotment").await.len();
    assert!(held < 80, "{held} entries for 5000 events");
}

#[tokio::test]
async fn the_rate_is_shared_by_all_sessions_and_begins_empty_after_a_stop() {
    let plan = Plan {
        rate: Some(Rate {
            events_per_second: number(100),
            burst_events: Some(number(20)),
        }),
        ..Plan::default()
    };
    let (mut producer, consumer, agreement) = under(340, plan).await;
    producer.publish("s", 1, 5_000).await.unwrap();
    let (mut sent, mut told) = (0_u64, 0);
    let mut step = async |delivery: &Delivery| loop {
        match delivery.next().await.unwrap() {
            Next::Batch { message, .. } => {
                let control = u64::from(message.first == 0);
                sent += u64::from(message.count) - control;
            }
            Next::Heads(heads) => {
                assert!(
                    heads.paused.contains("100 events a second"),
                    "{}",
                    heads.paused
                );
                told += 1;
                return;
            }
            _ => return,
        }
    };
    for (start, seconds) in [(0_u64, 10_u64), (2_000, 10)] {
        let one = reader(&producer, &consumer, agreement, (1, start)).await;
        let two = reader(&producer, &consumer, agreement, (2, start + 1_000)).await;
        for _ in 0..seconds * 10 {
            step(&one).await;
            step(&two).await;
            producer.clock.advance(Duration::from_millis(100));
        }
        drop((one, two));
        producer.kill().await;
    }
    // 2,000 ticks of the rate, and what had gathered at each stop at most.
    assert!((1_960..=2_000).contains(&sent), "{sent}");
    assert_eq!(told, 4, "each session is told once");
}

fn refused<T>(result: Result<T, ExchangeError>) -> Refused {
    match result {
        Err(ExchangeError::Refused(refused)) => *refused,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was permitted"),
    }
}

#[tokio::test]
async fn nothing_before_the_plans_history_is_delivered_and_it_does_not_move() {
    for (seed, history, floor) in [
        (350, (Some(0), None), 21),
        (351, (Some(5), None), 16),
        (352, (None, Some(15)), 11),
        (353, (Some(100), Some(15)), 11),
        (354, (Some(100), None), 0),
    ] {
        let producer = Node::new(seed * 2 + 1000, "Producer").await;
        let consumer = Node::new(seed * 2 + 1001, "Consumer").await;
        producer.create("s").await;
        wait(&producer, 10);
        producer.publish("s", 1, 10).await.unwrap();
        wait(&producer, 10);
        producer.publish("s", 11, 10).await.unwrap();
        wait(&producer, 10);
        let plan = Plan {
            history: Some(History {
                events: history.0,
                seconds: history.1,
            }),
            ..Plan::default()
        };
        let invitation = producer.invite("s", Side::Producer, plan).await;
        let agreement = join(&invitation, &producer, &consumer).await.unwrap();
        for more in 0..2 {
            let peer = consumer.at(&producer);
            for start in [StartAt::Sequence(0), StartAt::Time(0)] {
                let request = subscribe_at(&producer, "s", agreement, start);
                let (ready, delivery) = producer
                    .exchange
                    .open_delivery(&peer, &request)
                    .await
                    .unwrap();
                assert_eq!(ready.start, floor, "{history:?}");
                assert_eq!(delivery.log().size(), 21 + more * 10);
            }
            if floor > 0 {
                let leaf = [0; 32];
                let start = StartAt::Cursor { next: 0, leaf };
                let request = subscribe_at(&producer, "s", agreement, start);
                let no = refused(producer.exchange.open_delivery(&peer, &request).await);
                let begins = format!("begins at {floor}");
                assert!(no.refusal.reason.contains(&begins), "{}", no.refusal.reason);
            }
            producer.publish("s", 21 + more * 10, 10).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_publisher_that_is_too_fast_is_told_when_to_go_on_and_others_are_not_held_up() {
    let producer = Node::new(1361, "Producer").await;
    producer.create("s").await;
    producer.create("t").await;
    producer.exchange.throttle_publishers(100);
    let mut stored = 0;
    let mut number = 1;
    for _ in 0..200 {
        match producer.publish("s", number, 10).await {
            Ok(_) => {
                (number, stored) = (number + 10, stored + 10);
            }
            Err(error) => {
                let no = refused::<()>(Err(error));
                assert_eq!(no.refusal.code, RefusalCode::Busy);
                assert!(no.refusal.reason.contains("100 events a second"));
                // Nobody else pays for it, and neither does another stream.
                producer.publish("t", 1, 1).await.unwrap();
                assert!(
                    (1..=100).contains(&no.retry_after_ms),
                    "{}",
                    no.retry_after_ms
                );
                producer
                    .clock
                    .advance(Duration::from_millis(no.retry_after_ms));
            }
        }
    }
    // Half of the tries were refused, each for a tenth of a second; the second's worth at the beginning comes on top.
    assert_eq!(producer.log("s").size(), stored + 1);
    assert!((1_000..=1_120).contains(&stored), "{stored}");
    producer.exchange.throttle_publishers(0);
    producer.publish("s", number, 1_000).await.unwrap();
}

/// Every tenth event of the tests' numbering, by its position: the genesis entry lies before the first.
const TENTH: &str = r#"[{"suffix":{"id":"0"}}]"#;

fn tenths(out: &BTreeSet<u64>) -> Vec<u64> {
    let passing = |position: &&u64| **position > 0 && position.is_multiple_of(10);
    out.iter().filter(passing).copied().collect()
}

/// As [`reader`], under a filter of its own.
async fn filtered_reader(
    producer: &Node,
    consumer: &Node,
    agreement: AgreementId,
    (series, start): (u8, u64),
    filter: &str,
) -> Arc<Delivery> {
    let mut request = subscribe_at(producer, "s", agreement, StartAt::Sequence(start));
    request.series = [series; 16];
    let (peer, filter) = (consumer.at(producer), Some(filter));
    let exchange = &producer.exchange;
    exchange
        .open_filtered(&peer, &request, filter)
        .await
        .unwrap()
        .1
}

#[tokio::test]
async fn under_a_filter_only_what_is_delivered_is_of_the_quota() {
    let plan = Plan {
        filter: Some(TENTH.to_owned()),
        ..quota(Some(7), None)
    };
    let (producer, consumer, agreement) = under(360, plan).await;
    next_period(&producer);
    producer.publish("s", 1, 300).await.unwrap();
    let delivery = reader(&producer, &consumer, agreement, (1, 0)).await;
    let mut out = BTreeSet::new();
    let said = drain(&delivery, &mut out).await.unwrap();
    assert!(said.contains("quota of 7 events"), "{said}");
    // Up to the event that is too much: what is left out before it costs nothing.
    assert_eq!(tenths(&out), [10, 20, 30, 40, 50, 60, 70]);
    assert_eq!(out, (0..80).collect());
    // Nor does it in another series, nor what was sent.
    let again = reader(&producer, &consumer, agreement, (2, 35)).await;
    let mut other = BTreeSet::new();
    drain(&again, &mut other).await;
    assert_eq!(other, (35..80).collect());
    next_period(&producer);
    drain(&delivery, &mut out).await;
    assert_eq!(out, (0..150).collect());
}

#[tokio::test]
async fn what_each_filter_shows_is_charged_and_all_of_it_together_is_the_quota() {
    let each = events("n", 1, 1)[0].as_ref().data().data.len() as u64;
    for plan in [quota(Some(9), None), quota(None, Some(each * 9 + each - 1))] {
        let (producer, consumer, agreement) = under(361, plan).await;
        next_period(&producer);
        producer.publish("s", 1, 9).await.unwrap();
        let whole = reader(&producer, &consumer, agreement, (1, 5)).await;
        let (mut out, mut passed) = (BTreeSet::new(), BTreeSet::new());
        while out.last() != Some(&9) {
            let Next::Batch { message, .. } = whole.next().await.unwrap() else {
                panic!("five events are within the quota");
            };
            out.extend(message.first..message.first + u64::from(message.count));
        }
        assert_eq!(out, (5..10).collect());
        // What the other session set aside and does not use is free a second later.
        wait(&producer, 1);
        for batch in 1..10 {
            producer.publish("s", batch * 10, 10).await.unwrap();
        }
        let open = filtered_reader(&producer, &consumer, agreement, (2, 6), TENTH);
        let delivery = open.await;
        drop(whole);
        for _ in 0..3 {
            drain(&delivery, &mut passed).await;
            wait(&producer, 1);
        }
        assert_eq!(tenths(&passed), [10, 20, 30, 40], "{passed:?}");
        assert_eq!(passed, (6..50).collect());
    }
}

#[tokio::test]
async fn the_quota_under_a_filter_is_exact_after_a_restart_and_after_a_crash() {
    for how in 0..3 {
        let (mut producer, consumer, agreement) = under(364 + how, quota(Some(20), None)).await;
        next_period(&producer);
        producer.publish("s", 1, 400).await.unwrap();
        let (mut out, mut position) = (BTreeSet::new(), 0);
        for round in 0..6 {
            let open = (round, position);
            let delivery = filtered_reader(&producer, &consumer, agreement, open, TENTH).await;
            // Three batches at most, and the last one is lost on the way.
            for _ in 0..3 {
                match delivery.next().await.unwrap() {
                    Next::Batch { message, .. } => {
                        out.extend(message.first..message.first + u64::from(message.count));
                        position = message.first;
                    }
                    Next::Heads(_) | Next::Wait => break,
                    Next::Ended(refused) => panic!("{refused:?}"),
                }
            }
            delivery.disconnected();
            drop(delivery);
            match how {
                0 => producer.restart().await,
                1 => producer.kill().await,
                _ => producer.lose_power(u64::from(round)).await,
            }
        }
        let open = (50, position);
        let delivery = filtered_reader(&producer, &consumer, agreement, open, TENTH).await;
        drain(&delivery, &mut out).await;
        assert_eq!(out, (0..210).collect(), "how {how}");
        // Who begins elsewhere gets nothing more either, but what costs nothing.
        let open = (51, 300);
        let elsewhere = filtered_reader(&producer, &consumer, agreement, open, TENTH).await;
        let mut other = BTreeSet::new();
        drain(&elsewhere, &mut other).await;
        assert!(other.is_empty(), "how {how}: {other:?}");
    }
}

#[tokio::test]
async fn the_rate_under_a_filter_counts_what_is_delivered() {
    let plan = Plan {
        rate: Some(Rate {
            events_per_second: number(20),
            burst_events: Some(number(5)),
        }),
        filter: Some(TENTH.to_owned()),
        ..Plan::default()
    };
    let (producer, consumer, agreement) = under(370, plan).await;
    producer.publish("s", 1, 3_000).await.unwrap();
    let delivery = reader(&producer, &consumer, agreement, (1, 0)).await;
    let mut out = BTreeSet::new();
    for _ in 0..50 {
        drain(&delivery, &mut out).await;
        producer.clock.advance(Duration::from_millis(100));
    }
    // Five seconds, less the last step's tenth.
    let passed = tenths(&out).len();
    assert!((97..=98).contains(&passed), "{passed}");
    assert_eq!(out, (0..(passed as u64 + 1) * 10).collect());
}
