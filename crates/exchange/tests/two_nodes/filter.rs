//! Delivery under a filter: what passes comes, what is left out is claimed, receipts count what came, and a restart changes none of it.

use std::sync::Arc;

use countersign_event::attributes::AttributesBuilder;
use countersign_event::documents::{
    AgreementId, Digest, Document as _, Level, Plan, Receipt, RefusalCode, Rejections, SeriesId,
    Side, SkipClaim,
};
use countersign_event::dsse::Envelope;
use countersign_event::ledger::LedgerRecord;
use countersign_exchange::ExchangeError;
use countersign_exchange::pipeline::deliver::{Delivery, Next};
use countersign_exchange::pipeline::filtering::WORK_AT_ONCE;
use countersign_filter::{Filter, WORK_MAX};
use countersign_protocol::delivery::{LogReader, check_skip_claim};
use countersign_protocol::{AskLog, StartAt, Subscribe};
use countersign_store::journal::Erasure;

use crate::support::*;

const SERIES: [u8; 16] = [9; 16];

fn filter() -> Filter {
    // Every tenth event of the tests' numbering ends in 0.
    Filter::from_json(r#"[{"suffix":{"id":"0"}}]"#).unwrap()
}

/// A reader without a node: what it verified, and what it will receipt.
struct Reader {
    delivery: Arc<Delivery>,
    reader: LogReader,
    agreement: AgreementId,
    events: u64,
    bytes: u64,
    skipped: u64,
    last: Option<Envelope>,
}

impl Reader {
    async fn open(producer: &Node, consumer: &Node, agreement: AgreementId) -> Self {
        let request = subscribe_at(producer, "s", agreement, StartAt::Sequence(0));
        let peer = consumer.at(producer);
        let text = filter();
        let (ready, delivery) = producer
            .exchange
            .open_filtered(&peer, &request, Some(text.canonical()))
            .await
            .unwrap();
        let origin = producer.origin("s");
        let key = producer.exchange.identity().log_key.public();
        let reader = LogReader::from_ready(origin.as_str(), key, &ready, None).unwrap();
        Self {
            delivery,
            reader: reader.with_filter(Some(Arc::new(filter()))),
            agreement,
            events: 0,
            bytes: 0,
            skipped: 0,
            last: None,
        }
    }

    /// Takes all that comes now.
    async fn read(&mut self, producer: &Node) {
        while let Some(next) = next_now(&self.delivery).await {
            let Next::Batch {
                message,
                bulk,
                claim,
                ..
            } = next
            else {
                break;
            };
            let batch = self.reader.take(message, bulk.concat().into()).unwrap();
            let agreement = producer.exchange.registry().agreements[&self.agreement]
                .agreement
                .clone();
            let statement = producer.exchange.identity().statement.clone();
            let claim = claim.map(|claim| claim.to_json()).unwrap_or_default();
            check_skip_claim(&batch, &filter(), &agreement, &statement, &claim).unwrap();
            self.events += batch.events();
            self.bytes += batch.data_bytes();
            self.skipped += batch
                .skipped()
                .iter()
                .map(|(first, end)| end - first)
                .sum::<u64>();
        }
    }

    fn receipt(&self, consumer: &Node) -> Receipt {
        let last = self.last.as_ref().map(|last| Receipt::peek(last).unwrap());
        let digest = self.last.as_ref().map(|last| Digest(last.payload_digest()));
        Receipt {
            agreement: self.agreement,
            stream: self.delivery.log().origin().clone(),
            consumer: consumer.exchange.identity().authority().clone(),
            series: SeriesId(SERIES),
            number: last.map_or(1, |last| last.number + 1),
            previous: digest,
            start: 0,
            filter: Some(Digest(filter().digest())),
            size: self.reader.next(),
            root: Digest(self.reader.root()),
            events: self.events,
            bytes: self.bytes,
            level: Level::Verified,
            applied: 0,
            rejected: Rejections::default(),
            made: consumer.exchange.clock().now(),
        }
    }

    async fn send(&mut self, receipt: &Receipt, consumer: &Node) -> Result<u64, ExchangeError> {
        let envelope = receipt.sign(&consumer.exchange.identity().receipt_key);
        let number = self.delivery.take_receipt(&envelope.to_json()).await?;
        self.last = Some(envelope);
        Ok(number)
    }
}

#[tokio::test]
async fn what_passes_comes_and_what_does_not_is_claimed_and_not_counted() {
    let (producer, consumer, agreement) = partners(71, "s", 1000).await;
    producer.publish("s", 1, 100).await.unwrap();
    let mut reader = Reader::open(&producer, &consumer, agreement).await;
    reader.read(&producer).await;
    assert_eq!(reader.reader.next(), 101);
    assert_eq!((reader.events, reader.skipped), (10, 90));
    // Of other counts, another filter, none.
    let good = reader.receipt(&consumer);
    for wrong in [
        Receipt {
            events: 11,
            ..good.clone()
        },
        Receipt {
            events: 100,
            ..good.clone()
        },
        Receipt {
            bytes: good.bytes - 1,
            ..good.clone()
        },
        Receipt {
            filter: None,
            ..good.clone()
        },
        Receipt {
            filter: Some(Digest([1; 32])),
            ..good.clone()
        },
    ] {
        let refused = reader.send(&wrong, &consumer).await;
        assert!(
            matches!(refused, Err(ExchangeError::Receipt(_))),
            "{refused:?}"
        );
    }
    reader.last = None;
    assert_eq!(reader.send(&good, &consumer).await.unwrap(), 1);
    // The filter is in the ledger, by its text and digest.
    let records = producer.records("filter").await;
    let [
        LedgerRecord::Filter {
            filter: text,
            digest,
            ..
        },
    ] = &records[..]
    else {
        panic!("{records:?}");
    };
    assert_eq!(
        (text.as_str(), digest.0),
        (filter().canonical(), filter().digest())
    );
}

#[tokio::test]
async fn the_window_is_counted_by_position_also_where_nothing_passes() {
    let (producer, consumer, agreement) = partners(72, "s", 5).await;
    producer.publish("s", 1, 30).await.unwrap();
    let mut reader = Reader::open(&producer, &consumer, agreement).await;
    for end in [5, 10] {
        reader.read(&producer).await;
        assert_eq!((reader.reader.next(), reader.events), (end, 0));
        let receipt = reader.receipt(&consumer);
        reader.send(&receipt, &consumer).await.unwrap();
    }
    reader.read(&producer).await;
    assert_eq!((reader.reader.next(), reader.events), (15, 1));
}

#[tokio::test]
async fn a_restart_counts_the_same_and_another_filter_needs_another_series() {
    let (mut producer, consumer, agreement) = partners(73, "s", 1000).await;
    producer.publish("s", 1, 50).await.unwrap();
    let mut reader = Reader::open(&producer, &consumer, agreement).await;
    reader.read(&producer).await;
    let first = reader.receipt(&consumer);
    reader.send(&first, &consumer).await.unwrap();
    producer.publish("s", 51, 50).await.unwrap();
    reader.read(&producer).await;
    let second = reader.receipt(&consumer);
    assert_eq!((first.events, second.events), (5, 10));
    // The second receipt is sent to a producer that has handed it out before it was restarted.
    drop(reader.delivery);
    producer.restart().await;
    let again = |text: Option<String>| {
        let request = Subscribe {
            start: StartAt::Cursor {
                next: reader.reader.next(),
                leaf: reader.reader.last_leaf(),
            },
            ..subscribe_at(&producer, "s", agreement, StartAt::Now)
        };
        let (peer, exchange) = (consumer.at(&producer), Arc::clone(&producer.exchange));
        async move {
            exchange
                .open_filtered(&peer, &request, text.as_deref())
                .await
        }
    };
    for other in [None, Some("[]".to_owned())] {
        let Err(ExchangeError::Refused(refused)) = again(other).await.map(drop) else {
            panic!("the series is under another filter");
        };
        assert_eq!(refused.refusal.code, RefusalCode::CursorMismatch);
    }
    let (ready, delivery) = again(Some(filter().canonical().to_owned())).await.unwrap();
    assert_eq!((ready.receipt_number, ready.receipt_size), (1, first.size));
    let envelope = second.sign(&consumer.exchange.identity().receipt_key);
    assert_eq!(delivery.take_receipt(&envelope.to_json()).await.unwrap(), 2);
}

#[tokio::test]
async fn a_filter_that_is_none_is_refused_before_anything_else() {
    let (producer, consumer, agreement) = partners(74, "s", 10).await;
    let request = subscribe_at(&producer, "s", agreement, StartAt::Sequence(0));
    for text in [
        "",
        "type = 'x'",
        "[{\"sql\":\"FOO()\"}]",
        " []",
        "[{\"exact\":{}}]",
    ] {
        let peer = consumer.at(&producer);
        let opened = producer
            .exchange
            .open_filtered(&peer, &request, Some(text))
            .await;
        let Err(ExchangeError::Refused(refused)) = opened.map(drop) else {
            panic!("`{text}` is no canonical filter");
        };
        assert_eq!(refused.refusal.code, RefusalCode::Malformed, "{text}");
    }
}

/// A producer and a consumer with a node, whose plan has the filter.
async fn partners_filtered(seed: u64) -> (Node, Node, AgreementId) {
    let producer = Node::new(seed, "Producer").await;
    let consumer = Node::new(seed + 1, "Consumer").await;
    producer.create("s").await;
    let plan = Plan {
        filter: Some(filter().canonical().to_owned()),
        ..Plan::default()
    };
    let invitation = producer.invite("s", Side::Producer, plan).await;
    let agreement = join(&invitation, &producer, &consumer).await.unwrap();
    (producer, consumer, agreement)
}

/// What a copy holds: the same entries, content of what passes and of control entries alone, and why the rest is not there.
fn check_sparse(producer: &Node, consumer: &Node) {
    let (log, copy) = (
        producer.log("s"),
        consumer.exchange.log(&producer.origin("s")).unwrap(),
    );
    assert_eq!(copy.head().root, log.head().root);
    let (whole, sparse) = (
        stored(&producer.exchange, &log),
        stored(&consumer.exchange, &copy),
    );
    assert_eq!(whole.len(), sparse.len());
    for (sequence, (whole, sparse)) in (0..).zip(whole.iter().zip(&sparse)) {
        assert_eq!(whole.0, sparse.0);
        let by = consumer
            .exchange
            .reader()
            .erased_by(copy.number(), sequence);
        if sequence == 0 || sequence % 10 == 0 {
            assert_eq!((&whole.1, by), (&sparse.1, None), "{sequence}");
        } else {
            assert_eq!(
                (sparse.1.len(), by),
                (0, Some(Erasure::FILTERED)),
                "{sequence}"
            );
        }
    }
}

#[tokio::test]
async fn the_copy_under_a_plans_filter_is_sparse_and_goes_on_after_a_restart() {
    let (mut producer, mut consumer, agreement) = partners_filtered(1750).await;
    producer.publish("s", 1, 45).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    check_sparse(&producer, &consumer);
    drop(wire);
    consumer.restart().await;
    producer.publish("s", 46, 55).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    drop(wire);
    producer.restart().await;
    consumer.lose_power(3).await;
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    check_sparse(&producer, &consumer);
    // Both sides hold the same receipts, over what came.
    let (ours, theirs) = (
        producer.records("receipt").await,
        consumer.records("receipt").await,
    );
    assert_eq!(ours, theirs);
    let Some(LedgerRecord::Receipt { envelope, .. }) = ours.last() else {
        panic!("{ours:?}");
    };
    let last = Receipt::peek(&Envelope::from_json(envelope.as_bytes()).unwrap()).unwrap();
    assert_eq!((last.size, last.events), (101, 10));
    assert_eq!(last.filter, Some(Digest(filter().digest())));
    // The consumer keeps the producer's word on all that was left out.
    let claims = consumer.records("skip-claim").await;
    let claims = claims.iter().map(|record| match record {
        LedgerRecord::SkipClaim { envelope } => {
            SkipClaim::peek(&Envelope::from_json(envelope.as_bytes()).unwrap()).unwrap()
        }
        other => panic!("{other:?}"),
    });
    let claims: Vec<SkipClaim> = claims.collect();
    assert!(claims.iter().map(|claim| claim.skipped).sum::<u64>() >= 90);
    assert!(
        claims
            .iter()
            .all(|claim| claim.filter == Digest(filter().digest()))
    );
    // What is not there cannot be given back to the log's owner.
    let request = AskLog {
        origin: producer.origin("s").to_string(),
        size: 101,
    };
    let state = consumer
        .exchange
        .log_state(&producer.at(&consumer), &request)
        .await
        .unwrap();
    assert_eq!(state.held, 1);
}

#[tokio::test]
async fn a_copy_takes_nothing_without_the_producers_word_on_what_is_left_out() {
    let (producer, consumer, agreement) = partners_filtered(1760).await;
    producer.publish("s", 1, 30).await.unwrap();
    for claim in [None, Some(b"{}".to_vec())] {
        let mut wire = Wire::open(&producer, &consumer, agreement).await;
        let (message, bulk) = wire.batch().await.unwrap();
        wire.consumption.take_claim(claim.unwrap_or_default());
        let refused = wire.take(message, bulk).await;
        assert!(refused.is_err(), "{refused:?}");
        let copy = consumer.exchange.log(&producer.origin("s"));
        assert_eq!(copy.map_or(0, |copy| copy.size()), 0);
    }
    assert!(!consumer.records("fault").await.is_empty());
    // An own filter counts beside that of the plan.
    let request = subscribe_at(&producer, "s", agreement, StartAt::Sequence(0));
    let own = Filter::from_json(r#"{"exact":{"id":"n-20"}}"#).unwrap();
    let peer = consumer.at(&producer);
    let opened = producer
        .exchange
        .open_filtered(&peer, &request, Some(own.canonical()))
        .await;
    let (ready, delivery) = opened.unwrap();
    let (origin, key) = (
        producer.origin("s"),
        producer.exchange.identity().log_key.public(),
    );
    let both = filter().and(&own).unwrap();
    let reader = LogReader::from_ready(origin.as_str(), key, &ready, None).unwrap();
    let mut reader = reader.with_filter(Some(Arc::new(both)));
    let Some(Next::Batch { message, bulk, .. }) = next_now(&delivery).await else {
        panic!("there is something to read");
    };
    let batch = reader.take(message, bulk.concat().into()).unwrap();
    assert_eq!((batch.events(), batch.end()), (1, 31));
}

/// As much work as a filter may be, for each event, and none passes.
fn heavy() -> Filter {
    let (text, piece) = ("a".repeat(2600), "a".repeat(1300));
    let filter =
        Filter::from_expression(&format!("CONCAT(id,'{text}') LIKE '%{piece}b%'")).unwrap();
    let attributes = AttributesBuilder::new("1", "urn:test", "test").build();
    assert_eq!(filter.judge(&attributes.unwrap()), (false, WORK_MAX));
    filter
}

/// Events that may be judged by it before others have their turn.
const AT_ONCE: u64 = (WORK_AT_ONCE / WORK_MAX) as u64;

/// What a future gives, and how often it let others have their turn before.
async fn turns<F: Future>(future: F) -> (u64, F::Output) {
    let (mut future, mut turns) = (std::pin::pin!(future), 0);
    let output = std::future::poll_fn(|context| {
        turns += 1;
        future.as_mut().poll(context)
    });
    let output = output.await;
    (turns, output)
}

#[tokio::test]
async fn a_filter_that_is_much_work_does_not_keep_the_node() {
    let (producer, consumer, agreement) = partners(1770, "s", 10_000).await;
    producer.publish("s", 1, 400).await.unwrap();
    let (peer, text) = (consumer.at(&producer), heavy());
    let request = subscribe_at(&producer, "s", agreement, StartAt::Sequence(0));
    let open = |request: Subscribe| {
        let (exchange, peer, text) = (&producer.exchange, peer.clone(), text.canonical());
        async move { exchange.open_filtered(&peer, &request, Some(text)).await }
    };
    let (ready, delivery) = open(request.clone()).await.unwrap();
    let key = producer.exchange.identity().log_key.public();
    let origin = producer.origin("s");
    let reader = LogReader::from_ready(origin.as_str(), key, &ready, None).unwrap();
    let mut reader = Reader {
        delivery: Arc::clone(&delivery),
        reader: reader.with_filter(Some(Arc::new(heavy()))),
        agreement,
        events: 0,
        bytes: 0,
        skipped: 0,
        last: None,
    };
    // The first batch ends where the work of one turn is done, and before the next one others have theirs.
    for _ in 0..2 {
        let before = reader.reader.next();
        let Some(Next::Batch { message, bulk, .. }) = next_now(&delivery).await else {
            panic!("there is something to read");
        };
        reader.reader.take(message, bulk.concat().into()).unwrap();
        let events = reader.reader.next() - before;
        assert!(events <= AT_ONCE + 1, "{events} events in one turn");
        assert!(next_now(&delivery).await.is_none(), "others come first");
    }
    let receipt = Receipt {
        filter: Some(Digest(heavy().digest())),
        ..reader.receipt(&consumer)
    };
    reader.send(&receipt, &consumer).await.unwrap();
    // A later session counts what lies between: in turns too.
    let further = Subscribe {
        start: StartAt::Sequence(401),
        ..request
    };
    let (turns, opened) = turns(open(further)).await;
    assert!(opened.is_ok());
    let least = (401 - receipt.size) / AT_ONCE;
    assert!(turns >= least, "{turns} turns, {least} are due");
}
