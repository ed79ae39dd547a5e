//! Author signatures: refused at ingest where they are wrong or missing, and noticed by the reader where a producer let them through.

use countersign_crypto::SigningKey;
use countersign_event::author::{AuthorFault, sign};
use countersign_event::content::{Event, Limits};
use countersign_event::control::AuthorRule;
use countersign_event::data::DataPart;
use countersign_event::ledger::LedgerRecord;
use countersign_exchange::pipeline::ingest::{Drafts, IngestError};
use countersign_exchange::pipeline::seal::seal;
use countersign_exchange::{ExchangeError, StreamError, StreamOptions};

use crate::support::*;

fn author(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn signed(id: &str, seed: u8) -> Event {
    sign(&event(id, id).as_ref(), &author(seed), &Limits::FORMAT).unwrap()
}

/// An event under the author's material of another one.
fn swapped(id: &str, other: &Event) -> Event {
    let event = event(id, "swapped");
    let part = DataPart {
        author_material: other.as_ref().data().author_material,
        ..*event.as_ref().data()
    };
    Event::new(event.attribute_bytes().to_vec(), &part, &Limits::FORMAT).unwrap()
}

fn rule(seed: u8, required: bool) -> AuthorRule {
    AuthorRule {
        keys: vec![author(seed).public()],
        required,
    }
}

async fn hand_in(node: &Node, series: u8, events: &[Event]) -> Result<(), ExchangeError> {
    let (_, session) = node.session("s", series).await;
    let (count, bulk) = bulk_of(events);
    session.submit_and_wait(1, count, bulk).await.map(|_| ())
}

fn fault(result: Result<(), ExchangeError>) -> (usize, AuthorFault) {
    match result {
        Err(ExchangeError::Ingest(IngestError::Author { index, error })) => (index, error),
        other => panic!("{other:?}"),
    }
}

async fn stream(node: &Node, author: Option<AuthorRule>) {
    let options = StreamOptions {
        author,
        ..StreamOptions::default()
    };
    let name = "s".parse().unwrap();
    node.exchange.create_stream(&name, options).await.unwrap();
}

#[tokio::test]
async fn a_signature_that_does_not_fit_is_refused_with_its_batch_whatever_the_stream_knows() {
    let node = Node::new(1, "Node").await;
    stream(&node, None).await;
    let good = signed("1", 1);
    let batch = [good.clone(), swapped("2", &good)];
    let found = fault(hand_in(&node, 1, &batch).await);
    assert_eq!(found, (1, AuthorFault::Core));
    assert_eq!(node.log("s").size(), 1);
    hand_in(&node, 1, &[good]).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_wants_signatures_takes_those_of_its_keys_and_of_no_others_also_after_a_restart()
 {
    let mut node = Node::new(2, "Node").await;
    stream(&node, Some(rule(1, true))).await;
    assert_eq!(
        fault(hand_in(&node, 1, &[event("1", "1")]).await),
        (0, AuthorFault::Unsigned)
    );
    let (_, other) = fault(hand_in(&node, 1, &[signed("1", 2)]).await);
    assert!(matches!(other, AuthorFault::UnknownKey { .. }));
    hand_in(&node, 1, &[signed("1", 1)]).await.unwrap();
    // Another key takes its place; what is said last holds.
    node.exchange
        .set_author_rule("s", rule(2, true))
        .await
        .unwrap();
    node.restart().await;
    fault(hand_in(&node, 2, &[signed("2", 1)]).await);
    hand_in(&node, 2, &[signed("2", 2)]).await.unwrap();
    node.exchange
        .set_author_rule("s", rule(2, false))
        .await
        .unwrap();
    hand_in(&node, 3, &[event("3", "3")]).await.unwrap();
    let nobody = AuthorRule {
        keys: Vec::new(),
        required: true,
    };
    let refused = node.exchange.set_author_rule("s", nobody).await;
    assert!(matches!(
        refused,
        Err(ExchangeError::Stream(StreamError::AuthorKeys))
    ));
}

#[tokio::test]
async fn readers_know_the_rule_of_each_event_and_say_once_a_session_what_breaks_it() {
    let (producer, mut consumer, agreement) = partners(3, "s", 1000).await;
    producer
        .exchange
        .set_author_rule("s", rule(1, true))
        .await
        .unwrap();
    let begin = producer.log("s").size();
    hand_in(&producer, 1, &[signed("1", 1)]).await.unwrap();
    producer
        .exchange
        .set_author_rule("s", rule(2, true))
        .await
        .unwrap();
    hand_in(&producer, 2, &[signed("2", 2)]).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    drop(wire);
    consumer.restart().await;
    let copy = consumer.exchange.log(&producer.origin("s")).unwrap();
    let known = |sequence| consumer.exchange.author_rule(&copy, sequence);
    assert_eq!(known(begin - 2), None);
    assert_eq!(known(begin).as_deref(), Some(&rule(1, true)));
    assert_eq!(known(begin + 2).as_deref(), Some(&rule(2, true)));
    let faults = async |node: &Node| {
        let records = node.records("fault").await.into_iter();
        let codes = records.filter_map(|record| match record {
            LedgerRecord::Fault { code, detail, .. } => Some((code, detail)),
            _ => None,
        });
        codes.collect::<Vec<_>>()
    };
    assert_eq!(faults(&consumer).await, []);
    // A producer that judges nothing: events get into its log past its own door.
    let log = producer.log("s");
    for id in ["a", "b"] {
        let swapped = swapped(id, &signed("1", 1));
        let drafts = Drafts::from_events(&[swapped]);
        let sealed = producer
            .exchange
            .with_entropy(|entropy| seal(&drafts, entropy));
        let writer = producer.exchange.writer();
        let log = std::sync::Arc::clone(&log);
        writer.append_and_wait(log, sealed, None).await.unwrap();
    }
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    drop(wire);
    let found = faults(&consumer).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, "author-signature");
    let place = format!("entry {}: ", begin + 3);
    assert!(found[0].1.starts_with(&place), "{found:?}");
    // The copy keeps what the log has committed to.
    assert_eq!(
        stored(&consumer.exchange, &copy),
        stored(&producer.exchange, &log)
    );
}
