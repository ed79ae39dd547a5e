//! Whoever may no longer read an encrypted stream holds no key of what comes next, however and whenever that ended.

use std::time::Duration;

use countersign_event::documents::{Document as _, KeyWrap, Plan, Side, StepKind, SuspensionCause};
use countersign_event::dsse::Envelope;
use countersign_event::ledger::LedgerRecord;
use countersign_event::time::Timestamp;
use countersign_exchange::pipeline::append::AppendError;
use countersign_exchange::{ExchangeError, InviteOptions};

use crate::encryption::{create_encrypted, encrypted_partners, key_epochs};
use crate::support::*;

/// Lets nobody read.
const NOBODY: &str = r#"@id("own") permit (principal, action == Action::"publish", resource) when { principal.own };"#;

/// The epoch that the stream stands in, and whether a partner was given its key.
async fn stands_in(producer: &Node, partner: &Node) -> (u64, bool) {
    let (_, newest) = key_epochs(producer, producer).pop().unwrap();
    let wraps = producer.records("key-wrap").await;
    let holds = wraps.iter().any(|record| {
        let LedgerRecord::KeyWrap { envelope } = record else {
            panic!("{record:?}")
        };
        let envelope = Envelope::from_json(envelope.as_bytes()).unwrap();
        let wrap = KeyWrap::peek(&envelope).unwrap();
        wrap.to == *partner.authority() && wrap.epoch == newest.epoch
    });
    (newest.epoch, holds)
}

/// It holds the key of what was published last, and none of what comes now.
async fn assert_shut_out(producer: &Node, partner: &Node, before: (u64, bool), next: u64) {
    assert!(before.1, "it never had the key");
    producer.publish("s", next, 1).await.unwrap();
    let (epoch, holds) = stands_in(producer, partner).await;
    assert!(!holds, "it holds the key of epoch {epoch}");
    assert!(before.0 < epoch);
}

#[tokio::test]
async fn a_policy_that_forbids_after_a_suspension_was_lifted() {
    let (producer, consumer, agreement) = encrypted_partners(2600).await;
    producer.publish("s", 1, 5).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    drop(wire);
    let cause = Some(SuspensionCause::Dispute);
    let suspend = producer
        .exchange
        .step(agreement, StepKind::Suspend, cause, "");
    suspend.await.unwrap();
    producer.clock.advance(Duration::from_secs(1));
    producer.publish("s", 6, 5).await.unwrap();
    assert!(!stands_in(&producer, &consumer).await.1);
    let resume = producer
        .exchange
        .step(agreement, StepKind::Resume, None, "");
    resume.await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    let before = stands_in(&producer, &consumer).await;
    producer.set_policy(NOBODY).await;
    assert!(wire.batch().await.is_none());
    assert_shut_out(&producer, &consumer, before, 11).await;
}

/// An end or a stop by the partner's document that is dated five seconds ahead of the clock here.
async fn dated_ahead(seed: u64, ends: bool, connected: bool) {
    let (producer, consumer, agreement) = encrypted_partners(seed).await;
    producer.publish("s", 1, 5).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    let ahead = Duration::from_secs(5);
    consumer.clock.advance(ahead);
    let document = if ends {
        consumer.exchange.terminate(agreement, "enough").await
    } else {
        let cause = Some(SuspensionCause::Dispute);
        let step = consumer
            .exchange
            .step(agreement, StepKind::Suspend, cause, "");
        step.await
    };
    let peer = consumer.at(&producer);
    let document = document.unwrap().to_json();
    producer
        .exchange
        .take_notice(&peer, &document)
        .await
        .unwrap();
    // Until then it reads on, under the key of the epoch that began when the document came.
    let first = stands_in(&producer, &consumer).await.0;
    producer.publish("s", 6, 5).await.unwrap();
    wire.pump().await;
    let before = stands_in(&producer, &consumer).await;
    assert_eq!(before.0, key_epochs(&producer, &producer)[1].1.epoch);
    assert!(first <= before.0);
    producer.clock.advance(ahead);
    if connected {
        wire.delivery.recheck();
        assert!(wire.batch().await.is_none());
    } else {
        drop(wire);
        producer.exchange.note_time();
    }
    assert_shut_out(&producer, &consumer, before, 11).await;
    // Once is enough.
    producer.exchange.note_time();
    producer.publish("s", 12, 1).await.unwrap();
    assert_eq!(key_epochs(&producer, &producer).len(), 3);
}

#[tokio::test]
async fn a_termination_dated_ahead_when_its_time_comes() {
    dated_ahead(2610, true, true).await;
    dated_ahead(2620, true, false).await;
}

#[tokio::test]
async fn a_suspension_dated_ahead_when_its_time_comes() {
    dated_ahead(2630, false, true).await;
    dated_ahead(2640, false, false).await;
}

#[tokio::test]
async fn an_agreement_that_expires_while_its_reader_is_away() {
    let producer = Node::new(2650, "Producer").await;
    let consumer = Node::new(2651, "Consumer").await;
    create_encrypted(&producer, "s").await;
    let options = InviteOptions {
        until: Some(Timestamp(START.0 + 3600 * 1_000_000)),
        ..invite_options("s", Side::Producer, Plan::default())
    };
    let invitation = producer.exchange.invite(options).await.unwrap();
    let agreement = join(&invitation, &producer, &consumer).await.unwrap();
    producer.publish("s", 1, 1).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    drop(wire);
    let before = stands_in(&producer, &consumer).await;
    // Time passes, but not enough.
    producer.clock.advance(Duration::from_secs(3000));
    producer.exchange.note_time();
    producer.publish("s", 2, 1).await.unwrap();
    assert_eq!(stands_in(&producer, &consumer).await, before);
    producer.clock.advance(Duration::from_secs(600));
    producer.exchange.note_time();
    assert_shut_out(&producer, &consumer, before, 3).await;
}

/// The commit that was to begin the epoch is lost: the next one begins it.
#[tokio::test]
async fn a_new_epoch_outlives_a_failed_commit() {
    let (producer, _, _) = encrypted_partners(2660).await;
    producer.publish("s", 1, 5).await.unwrap();
    let before = key_epochs(&producer, &producer).pop().unwrap().1.epoch;
    producer.disk.set_full(true);
    // What was set aside is used up, to the last place for a commit.
    let (_, session) = producer.session("s", 0).await;
    for (flavour, per_batch) in [("many", 200), ("one", 1)] {
        let mut batches = 0;
        loop {
            batches += 1;
            assert!(batches < 10_000, "the disk never got full");
            let (count, bulk) = bulk_of(&events(&format!("{flavour}-{batches}"), 1, per_batch));
            match session.submit_and_wait(1, count, bulk).await {
                Ok(_) => {}
                Err(ExchangeError::Append(AppendError::DiskFull)) => break,
                Err(other) => panic!("{other:?}"),
            }
        }
    }
    let rotated = producer.exchange.rotate("s").await;
    assert!(
        matches!(rotated, Err(ExchangeError::Append(AppendError::DiskFull))),
        "{rotated:?}"
    );
    producer.disk.set_full(false);
    producer.publish("s", 6, 1).await.unwrap();
    let after = key_epochs(&producer, &producer).pop().unwrap().1.epoch;
    assert!(before < after, "it goes on under the key of {before}");
}
