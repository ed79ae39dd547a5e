//! Retention and erasure: content goes at both ends, the skeleton stays, and everybody signs what became of it.

use std::time::Duration;

use countersign_event::control::Retention;
use countersign_event::documents::{
    AgreementId, Document as _, Erasure, ErasureAnswer, ErasureId, ErasureRequest, Outcome, Plan,
    Side,
};
use countersign_event::dsse::Envelope;
use countersign_event::ledger::LedgerRecord;
use countersign_exchange::pipeline::append::AppendError;
use countersign_exchange::pipeline::consume::Consumption;
use countersign_exchange::{EraseFault, Exchange, ExchangeError, Peer};
use countersign_protocol::PublishOpen;

use crate::support::*;

/// What is looked for: event number 3 says it, and no other does.
fn canary(number: u64) -> Vec<u8> {
    format!("{{\"n\":{number}}}").into_bytes()
}

/// Whether any file of a node holds these bytes.
fn holds(node: &Node, needle: &[u8]) -> bool {
    let files = node.disk.files();
    let mut bytes = files.iter().filter_map(|path| node.disk.contents(path));
    bytes.any(|bytes| bytes.windows(needle.len()).any(|window| window == needle))
}

async fn partners_under(seed: u64, erasure: Erasure) -> (Node, Node, AgreementId) {
    let producer = Node::new(seed, "Producer").await;
    let consumer = Node::new(seed + 1, "Consumer").await;
    producer.create("s").await;
    let plan = Plan {
        erasure,
        ..Plan::default()
    };
    let invitation = producer.invite("s", Side::Producer, plan).await;
    let agreement = join(&invitation, &producer, &consumer).await.unwrap();
    producer.publish("s", 1, 9).await.unwrap();
    Wire::open(&producer, &consumer, agreement)
        .await
        .pump()
        .await;
    (producer, consumer, agreement)
}

/// Tells each side what the other has to know, until neither has anything new to say.
async fn tell(producer: &Node, consumer: &Node) {
    for (from, to) in [(producer, consumer), (consumer, producer)] {
        for envelope in from.exchange.notices_for(to.authority()) {
            let envelope = envelope.to_json();
            to.exchange
                .take_notice(&from.at(to), &envelope)
                .await
                .unwrap();
            from.exchange.notice_told(to.authority(), &envelope);
        }
        to.exchange.work_on_erasures().await.unwrap();
    }
}

fn outcome(exchange: &Exchange) -> Option<Outcome> {
    let registry = exchange.registry();
    let mut all = registry.erasure.requests();
    let one = all.next().expect("a request");
    assert!(all.next().is_none(), "one request");
    one.outcome()
}

fn fault<T: std::fmt::Debug>(result: Result<T, ExchangeError>) -> EraseFault {
    match result {
        Err(ExchangeError::Erase(fault)) => fault,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_erased_event_is_gone_at_both_ends_and_both_say_so() {
    let (mut producer, mut consumer, agreement) = partners_under(1, Erasure::Obey).await;
    let ours = producer.origin("s");
    let before = stored(&producer.exchange, &producer.log("s"));
    let erased = producer
        .exchange
        .erase_event("s", 3, "the person asked")
        .await
        .unwrap();
    assert_eq!((erased.sequence, erased.tombstone), (3, 10));
    assert_eq!(erased.asked.len(), 1);
    assert!(!holds(&producer, &canary(3)) && holds(&producer, &canary(4)));
    assert!(holds(&consumer, &canary(3)));
    // The tombstone reaches the copy; the request is told before and after, and changes nothing by being told twice.
    tell(&producer, &consumer).await;
    assert!(
        holds(&consumer, &canary(3)),
        "the copy does not know the tombstone yet"
    );
    Wire::open(&producer, &consumer, agreement)
        .await
        .pump()
        .await;
    tell(&producer, &consumer).await;
    assert!(!holds(&consumer, &canary(3)) && holds(&consumer, &canary(4)));
    tell(&producer, &consumer).await;
    assert_eq!(outcome(&consumer.exchange), Some(Outcome::Done));
    assert_eq!(outcome(&producer.exchange), Some(Outcome::Done));
    assert!(
        producer
            .exchange
            .notices_for(consumer.authority())
            .is_empty()
    );
    for node in [&producer, &consumer] {
        let kinds = [
            node.records("erasure-request").await,
            node.records("erasure-answer").await,
        ];
        assert_eq!(kinds.map(|records| records.len()), [1, 1]);
    }
    let copy = consumer.exchange.log(&ours).unwrap();
    for (node, log) in [(&producer, producer.log("s")), (&consumer, copy)] {
        let now = stored(&node.exchange, &log);
        for (sequence, (entry, content)) in before.iter().enumerate() {
            assert_eq!(&now[sequence].0, entry, "the skeleton stays");
            let gone = sequence == 3;
            assert_eq!(now[sequence].1.is_empty(), gone);
            assert!(gone || &now[sequence].1 == content);
        }
    }
    // It is as gone after a restart, and after power was lost.
    producer.restart().await;
    consumer.lose_power(7).await;
    assert!(!holds(&producer, &canary(3)) && !holds(&consumer, &canary(3)));
    assert_eq!(outcome(&producer.exchange), Some(Outcome::Done));
    let digest = producer.rows_digest().await;
    producer
        .exchange
        .view()
        .rebuild(&producer.exchange.ledger_source())
        .await
        .unwrap();
    assert_eq!(producer.rows_digest().await, digest);
    // Reading and receipts go on.
    producer.publish("s", 10, 3).await.unwrap();
    Wire::open(&producer, &consumer, agreement)
        .await
        .pump()
        .await;
    assert_eq!(
        consumer.exchange.log(&ours).unwrap().size(),
        producer.log("s").size()
    );
}

#[tokio::test]
async fn what_may_not_be_erased_is_refused_and_nothing_happens() {
    let (producer, _, _) = partners_under(11, Erasure::Obey).await;
    let exchange = &producer.exchange;
    let stream = producer.origin("s");
    let refused = fault(exchange.erase_event("s", 0, "why").await);
    assert!(matches!(
        refused,
        EraseFault::ControlEntry { sequence: 0, .. }
    ));
    let refused = fault(exchange.erase_event("s", 99, "why").await);
    assert!(matches!(refused, EraseFault::NoEntry { size: 10, .. }));
    assert_eq!(
        fault(exchange.erase_event("s", 3, " ").await),
        EraseFault::Reason
    );
    let long = "x".repeat(501);
    assert_eq!(
        fault(exchange.erase_event("s", 3, &long).await),
        EraseFault::Reason
    );
    exchange.set_hold(&stream, true, "case 7").await.unwrap();
    let refused = fault(exchange.erase_event("s", 3, "why").await);
    assert!(matches!(&refused, EraseFault::Held { reason, .. } if reason == "case 7"));
    let keep_one = Retention {
        count: Some(1),
        ..Retention::default()
    };
    assert_eq!(exchange.set_retention("s", keep_one).await.unwrap(), None);
    assert!(holds(&producer, &canary(3)));
    exchange.set_hold(&stream, false, "").await.unwrap();
    let refused = fault(exchange.set_hold(&stream, false, "").await);
    assert!(matches!(refused, EraseFault::NotHeld { .. }));
    exchange
        .set_retention("s", Retention::default())
        .await
        .unwrap();
    exchange.erase_event("s", 3, "why").await.unwrap();
    let refused = fault(exchange.erase_event("s", 3, "why").await);
    assert!(matches!(refused, EraseFault::AlreadyErased { .. }));
}

#[tokio::test]
async fn under_ask_a_person_decides_and_a_hold_is_answered_as_such() {
    let (producer, mut consumer, agreement) = partners_under(21, Erasure::Ask).await;
    let stream = producer.origin("s");
    let erased = producer.exchange.erase_event("s", 3, "why").await.unwrap();
    let id = erased.asked[0].1.to_string();
    tell(&producer, &consumer).await;
    let early = fault(consumer.exchange.approve_erasure(&id, "").await);
    assert!(matches!(early, EraseFault::NotYet { tombstone: 10, .. }));
    Wire::open(&producer, &consumer, agreement)
        .await
        .pump()
        .await;
    tell(&producer, &consumer).await;
    assert_eq!(outcome(&consumer.exchange), None, "it waits for a person");
    let unknown = fault(consumer.exchange.approve_erasure("ffffffffff", "").await);
    assert!(matches!(unknown, EraseFault::UnknownRequest { .. }));
    // A person says no, with a reason; then a hold comes, is released, and the person says yes.
    consumer
        .exchange
        .refuse_erasure(&id[..8], "we need it")
        .await
        .unwrap();
    tell(&producer, &consumer).await;
    tell(&producer, &consumer).await;
    assert_eq!(outcome(&producer.exchange), Some(Outcome::Refused));
    assert!(holds(&consumer, &canary(3)));
    consumer
        .exchange
        .set_hold(&stream, true, "case 9")
        .await
        .unwrap();
    let held = fault(consumer.exchange.approve_erasure(&id, "").await);
    assert!(matches!(held, EraseFault::Held { .. }));
    consumer.restart().await;
    consumer
        .exchange
        .set_hold(&stream, false, "")
        .await
        .unwrap();
    consumer
        .exchange
        .approve_erasure(&id, "on second thought")
        .await
        .unwrap();
    assert!(!holds(&consumer, &canary(3)));
    // The answer was made before a restart and never told: the producer asks again, and gets it.
    consumer.restart().await;
    tell(&producer, &consumer).await;
    tell(&producer, &consumer).await;
    assert_eq!(outcome(&producer.exchange), Some(Outcome::Done));
    // An answer from before that one changes nothing, told as often as anybody likes.
    let recorded = producer.records("erasure-answer").await;
    let LedgerRecord::ErasureAnswer { envelope: older } = recorded[0].clone() else {
        panic!("{recorded:?}");
    };
    for _ in 0..3 {
        let peer = consumer.at(&producer);
        let told = producer.exchange.take_notice(&peer, older.as_bytes()).await;
        told.unwrap();
    }
    assert_eq!(
        producer.records("erasure-answer").await.len(),
        recorded.len()
    );
    let registry = producer.exchange.registry();
    let state = registry.erasure.requests().next().unwrap();
    assert_eq!(state.answer.as_ref().unwrap().0.reason, "on second thought");
}

#[tokio::test]
async fn under_a_legal_hold_obeying_waits_until_it_is_released() {
    let (producer, consumer, agreement) = partners_under(31, Erasure::Obey).await;
    let stream = producer.origin("s");
    consumer
        .exchange
        .set_hold(&stream, true, "case 9")
        .await
        .unwrap();
    producer.exchange.erase_event("s", 3, "why").await.unwrap();
    let keep_one = Retention {
        count: Some(1),
        ..Retention::default()
    };
    producer
        .exchange
        .set_retention("s", keep_one)
        .await
        .unwrap();
    Wire::open(&producer, &consumer, agreement)
        .await
        .pump()
        .await;
    tell(&producer, &consumer).await;
    tell(&producer, &consumer).await;
    assert_eq!(outcome(&producer.exchange), Some(Outcome::Held));
    assert!(holds(&consumer, &canary(3)) && holds(&consumer, &canary(4)));
    consumer
        .exchange
        .set_hold(&stream, false, "")
        .await
        .unwrap();
    tell(&producer, &consumer).await;
    assert_eq!(outcome(&producer.exchange), Some(Outcome::Done));
    assert!(!holds(&consumer, &canary(3)));
}

#[tokio::test]
async fn requests_that_a_crash_left_unmade_are_made_after_it() {
    let (mut producer, consumer, agreement) = partners_under(41, Erasure::Obey).await;
    // Stops at each operation of the disk in turn: in the tombstone's commit, in overwriting, in the ledger.
    let whole = producer.disk.fork();
    let mut made = 0;
    for operation in 1.. {
        producer.go_back_to(whole.fork()).await;
        producer.disk.stop_at(operation);
        let done = producer.exchange.erase_event("s", 3, "why").await.is_ok();
        producer.kill().await;
        let log = producer.log("s");
        producer.exchange.work_on_erasures().await.unwrap();
        producer.exchange.writer().overwritten().await.unwrap();
        let erased = log.size() == 11;
        assert!(erased || !done);
        assert_eq!(
            holds(&producer, &canary(3)),
            !erased,
            "operation {operation}"
        );
        let asked = producer.exchange.notices_for(consumer.authority()).len();
        assert_eq!(asked, usize::from(erased), "operation {operation}");
        made += usize::from(erased && !done);
        if done {
            break;
        }
    }
    assert!(made > 1, "{made} stops lay between tombstone and answer");
    Wire::open(&producer, &consumer, agreement)
        .await
        .pump()
        .await;
    tell(&producer, &consumer).await;
    tell(&producer, &consumer).await;
    assert_eq!(outcome(&producer.exchange), Some(Outcome::Done));
}

/// A restored directory that wrote a tombstone or an expiry before its readers have answered would fork its own stream.
#[tokio::test]
async fn a_frozen_stream_takes_no_tombstone_and_no_expiry() {
    let (producer, _consumer, _) = partners_under(52, Erasure::Obey).await;
    let exchange = &producer.exchange;
    let by_count = Retention {
        count: Some(5),
        ..Retention::default()
    };
    exchange.set_retention("s", by_count).await.unwrap();
    producer.publish("s", 10, 3).await.unwrap();
    exchange.freeze_streams();
    let log = producer.log("s");
    let before = log.size();
    assert_eq!(exchange.apply_retention().await.unwrap(), []);
    let erased = exchange.erase_event("s", 9, "a person asked").await;
    assert!(matches!(
        erased,
        Err(ExchangeError::Append(AppendError::Frozen))
    ));
    assert_eq!(log.size(), before);
}

#[tokio::test]
async fn retention_by_count_age_and_bytes_expires_the_oldest() {
    let (producer, consumer, agreement) = partners_under(51, Erasure::Obey).await;
    let exchange = &producer.exchange;
    let log = producer.log("s");
    let by_bytes = Retention {
        // Three events of seven bytes.
        bytes: Some(23),
        ..Retention::default()
    };
    // Settings at 10, expiry at 11.
    assert_eq!(
        exchange.set_retention("s", by_bytes).await.unwrap(),
        Some(7)
    );
    exchange.writer().overwritten().await.unwrap();
    assert!(!holds(&producer, &canary(6)) && holds(&producer, &canary(7)));
    assert_eq!(
        exchange.apply_retention().await.unwrap(),
        [],
        "nothing more is due"
    );
    assert_eq!(log.size(), 12);
    producer.publish("s", 10, 2).await.unwrap();
    assert_eq!(
        exchange.apply_retention().await.unwrap(),
        [(producer.origin("s"), 9)]
    );
    Wire::open(&producer, &consumer, agreement)
        .await
        .pump()
        .await;
    consumer.exchange.writer().overwritten().await.unwrap();
    assert!(!holds(&consumer, &canary(8)) && holds(&consumer, &canary(9)));
    // The newest event stays, however little is kept.
    let nothing = Retention {
        bytes: Some(0),
        count: Some(0),
        ..Retention::default()
    };
    exchange.set_retention("s", nothing).await.unwrap();
    producer.publish("s", 12, 1).await.unwrap();
    exchange.apply_retention().await.unwrap();
    exchange.writer().overwritten().await.unwrap();
    let kept = stored(exchange, &log)
        .iter()
        .rev()
        .filter(|(entry, content)| entry[1] == 0 && !content.is_empty())
        .count();
    assert!(kept <= 1 && !holds(&producer, &canary(11)), "{kept}");
    // By age, as the node's clock says; the pass runs once a minute.
    let by_age = Retention {
        age_seconds: Some(3600),
        ..Retention::default()
    };
    exchange.set_retention("s", by_age).await.unwrap();
    producer.publish("s", 13, 1).await.unwrap();
    assert_eq!(exchange.apply_retention().await.unwrap(), []);
    producer.clock.advance(Duration::from_secs(1800));
    producer.publish("s", 14, 1).await.unwrap();
    producer.clock.advance(Duration::from_secs(1900));
    exchange.work_on_erasures().await.unwrap();
    exchange.writer().overwritten().await.unwrap();
    assert!(!holds(&producer, &canary(13)) && holds(&producer, &canary(14)));
}

#[tokio::test]
async fn under_ask_a_copy_keeps_what_expired_at_its_producer() {
    let (producer, consumer, agreement) = partners_under(61, Erasure::Ask).await;
    let keep_two = Retention {
        count: Some(2),
        ..Retention::default()
    };
    producer
        .exchange
        .set_retention("s", keep_two)
        .await
        .unwrap();
    Wire::open(&producer, &consumer, agreement)
        .await
        .pump()
        .await;
    consumer.exchange.writer().overwritten().await.unwrap();
    assert!(holds(&consumer, &canary(3)));
}

#[tokio::test]
async fn a_late_reader_gets_the_log_with_gaps_that_are_accounted_for() {
    let (producer, _, _) = partners_under(71, Erasure::Obey).await;
    producer.exchange.erase_event("s", 3, "why").await.unwrap();
    producer.publish("s", 10, 5).await.unwrap();
    let mut late = Node::new(75, "Late").await;
    let invitation = producer.invite("s", Side::Producer, Plan::default()).await;
    let agreement = join(&invitation, &producer, &late).await.unwrap();
    let mut wire = Wire::open(&producer, &late, agreement).await;
    wire.pump().await;
    let stream = producer.origin("s");
    let copy = late.exchange.log(&stream).unwrap();
    assert_eq!(copy.head().root, producer.log("s").head().root);
    assert_eq!(late.exchange.reader().erased_by(copy.number(), 3), Some(10));
    late.restart().await;
    let copy = late.exchange.log(&stream).unwrap();
    assert_eq!(late.exchange.reader().erased_by(copy.number(), 3), Some(10));
    // It is asked like everybody who receipted the entry, and answers that nothing of it is here.
    let consumption = Consumption::open(&late.exchange, agreement).await.unwrap();
    assert_eq!(consumption.request().newest_size, producer.log("s").size());
}

#[tokio::test]
async fn a_claim_that_the_log_does_not_bear_out_ends_reading_for_good_and_is_kept() {
    let (producer, _, _) = partners_under(81, Erasure::Obey).await;
    producer.exchange.erase_event("s", 3, "why").await.unwrap();
    let late = Node::new(85, "Late").await;
    let invitation = producer.invite("s", Side::Producer, Plan::default()).await;
    let agreement = join(&invitation, &producer, &late).await.unwrap();
    let mut wire = Wire::open(&producer, &late, agreement).await;
    let (message, bulk) = wire.batch().await.unwrap();
    // The distance to the tombstone stands before the commitments: one less names an event.
    let entry = &stored(&producer.exchange, &producer.log("s"))[3].0;
    let mut bulk = bulk.to_vec();
    let at = bulk
        .windows(64)
        .position(|window| window == &entry[54..])
        .unwrap();
    assert_eq!(bulk[at - 1], 7);
    bulk[at - 1] = 6;
    let error = wire.take(message, bulk.into()).await.unwrap_err();
    assert!(error.is_fork(), "{error}");
    assert_eq!(late.evidence.count(), 1);
    assert!(
        error
            .to_string()
            .contains("the entry at 9, which is said to allow it, does not"),
        "{error}"
    );
}

#[tokio::test]
async fn a_request_that_the_log_does_not_bear_out_is_refused_and_nothing_is_erased() {
    let (producer, consumer, agreement) = partners_under(131, Erasure::Obey).await;
    producer.exchange.erase_event("s", 5, "why").await.unwrap();
    Wire::open(&producer, &consumer, agreement)
        .await
        .pump()
        .await;
    let peer = producer.at(&consumer);
    // An event in place of a tombstone, the tombstone of another event, a control entry to be erased.
    for (number, sequence, tombstone) in [(1, 3, 9), (2, 3, 10), (3, 0, 10)] {
        let request = ErasureRequest {
            id: ErasureId([number; 16]),
            agreement,
            stream: producer.origin("s"),
            sequence,
            tombstone,
            by: producer.authority().clone(),
            reason: "why".to_owned(),
            made: START,
        };
        let envelope = request.sign(&producer.org.identity.agreement_key);
        consumer
            .exchange
            .take_notice(&peer, &envelope.to_json())
            .await
            .unwrap();
        consumer.exchange.work_on_erasures().await.unwrap();
        let registry = consumer.exchange.registry();
        let state = registry.erasure.request(&request.id).unwrap();
        assert_eq!(
            state.outcome(),
            Some(Outcome::Refused),
            "{sequence} by {tombstone}"
        );
    }
    assert!(holds(&consumer, &canary(3)));
    // What names nothing behind it is no request at all, and neither is another one under a known name.
    for (number, tombstone) in [(9, 3), (1, 10)] {
        let request = ErasureRequest {
            id: ErasureId([number; 16]),
            agreement,
            stream: producer.origin("s"),
            sequence: 3,
            tombstone,
            by: producer.authority().clone(),
            reason: "why".to_owned(),
            made: START,
        };
        let envelope = request.sign(&producer.org.identity.agreement_key);
        let refused = consumer
            .exchange
            .take_notice(&peer, &envelope.to_json())
            .await;
        assert!(matches!(refused, Err(ExchangeError::Refused(_))));
    }
}

#[tokio::test]
async fn a_claim_is_judged_after_a_restart_too() {
    let (producer, _, _) = partners_under(121, Erasure::Obey).await;
    producer.exchange.erase_event("s", 3, "why").await.unwrap();
    let mut late = Node::new(125, "Late").await;
    let plan = Plan {
        exposure_events: 5,
        ..Plan::default()
    };
    let invitation = producer.invite("s", Side::Producer, plan).await;
    let agreement = join(&invitation, &producer, &late).await.unwrap();
    let mut wire = Wire::open(&producer, &late, agreement).await;
    let (message, bulk) = wire.batch().await.unwrap();
    assert_eq!(
        (message.first, message.count),
        (0, 5),
        "the tombstone lies behind"
    );
    let entry = &stored(&producer.exchange, &producer.log("s"))[3].0;
    let mut bulk = bulk.to_vec();
    let at = bulk.windows(64).position(|window| window == &entry[54..]);
    bulk[at.unwrap() - 1] -= 1;
    wire.take(message, bulk.into()).await.unwrap();
    wire.settle().await;
    wire.receipt().await.unwrap();
    late.restart().await;
    let mut wire = Wire::open(&producer, &late, agreement).await;
    let error = loop {
        let (message, bulk) = wire.batch().await.expect("the log goes on");
        if let Err(error) = wire.take(message, bulk).await {
            break error;
        }
        wire.settle().await;
        wire.receipt().await.unwrap();
    };
    assert!(error.is_fork(), "{error}");
    assert_eq!(late.evidence.count(), 1);
}

#[tokio::test]
async fn an_erased_event_handed_in_again_is_known_by_its_number_only() {
    let (mut producer, _, _) = partners_under(91, Erasure::Obey).await;
    let open = PublishOpen {
        stream: "s".to_owned(),
        series: [0; 16],
        create: false,
    };
    let (count, bulk) = bulk_of(&events("unnumbered", 1, 1));
    let publish = async |producer: &Node| {
        let (_, session) = producer
            .exchange
            .open_publish(&Peer::Local, &open)
            .await
            .unwrap();
        session
            .submit_and_wait(0, count, bulk.clone())
            .await
            .unwrap()
    };
    assert_eq!(publish(&producer).await.last_sequence, 10);
    assert_eq!(publish(&producer).await.duplicates, 1);
    producer.exchange.erase_event("s", 3, "why").await.unwrap();
    producer.exchange.erase_event("s", 10, "why").await.unwrap();
    for round in 0..2 {
        let again = producer.publish("s", 1, 9).await.unwrap();
        assert_eq!((again.duplicates, again.last_sequence), (9, 9));
        assert_eq!(publish(&producer).await.duplicates, round);
        producer.restart().await;
    }
}

#[tokio::test]
async fn a_copy_that_is_no_longer_read_is_erased_on_the_producers_word() {
    let (producer, consumer, agreement) = partners_under(111, Erasure::Obey).await;
    producer
        .exchange
        .terminate(agreement, "over")
        .await
        .unwrap();
    tell(&producer, &consumer).await;
    let erased = producer.exchange.erase_event("s", 3, "why").await.unwrap();
    assert_eq!(erased.asked.len(), 1, "it has receipted the event");
    let unanswered = producer.exchange.unanswered_by();
    assert!(
        unanswered.contains(consumer.authority()),
        "nobody else begins a session"
    );
    tell(&producer, &consumer).await;
    tell(&producer, &consumer).await;
    assert_eq!(outcome(&producer.exchange), Some(Outcome::Done));
    assert!(!holds(&consumer, &canary(3)) && holds(&consumer, &canary(4)));
    assert!(producer.exchange.unanswered_by().is_empty());
}

#[tokio::test]
async fn requests_and_answers_of_others_are_refused() {
    let (producer, consumer, agreement) = partners_under(101, Erasure::Obey).await;
    let stranger = Node::new(105, "Stranger").await;
    let invitation = producer.invite("s", Side::Producer, Plan::default()).await;
    join(&invitation, &producer, &stranger).await.unwrap();
    producer.exchange.erase_event("s", 3, "why").await.unwrap();
    let request = producer
        .exchange
        .notices_for(consumer.authority())
        .remove(0);
    let refused =
        |result: Result<(), ExchangeError>| matches!(result, Err(ExchangeError::Refused(_)));
    // A request under another's agreement, and one that another signed.
    let theirs = producer.at(&stranger);
    assert!(refused(
        stranger
            .exchange
            .take_notice(&theirs, &request.to_json())
            .await
    ));
    let forged = Envelope::sign(
        request.payload_type(),
        request.peek(ErasureRequest::PAYLOAD_TYPE).unwrap().to_vec(),
        &stranger.org.identity.agreement_key,
    );
    let peer = producer.at(&consumer);
    assert!(refused(
        consumer
            .exchange
            .take_notice(&peer, &forged.to_json())
            .await
    ));
    Wire::open(&producer, &consumer, agreement)
        .await
        .pump()
        .await;
    tell(&producer, &consumer).await;
    // The answer of another consumer, in its own name or not.
    let answers = consumer.records("erasure-answer").await;
    let [LedgerRecord::ErasureAnswer { envelope }] = &answers[..] else {
        panic!("{answers:?}")
    };
    let answer = ErasureAnswer::peek(&Envelope::from_json(envelope.as_bytes()).unwrap()).unwrap();
    let other = ErasureAnswer {
        by: stranger.authority().clone(),
        outcome: Outcome::Refused,
        ..answer.clone()
    };
    let peer = stranger.at(&producer);
    for answer in [answer, other] {
        let signed = answer.sign(&stranger.org.identity.agreement_key);
        assert!(refused(
            producer
                .exchange
                .take_notice(&peer, &signed.to_json())
                .await
        ));
    }
}
