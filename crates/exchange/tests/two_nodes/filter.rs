//! Delivery under a filter: what passes comes, what is left out is claimed, receipts count what came, and a restart changes none of it.

use std::sync::Arc;

use countersign_event::documents::{
    AgreementId, Digest, Document as _, Level, Receipt, RefusalCode, Rejections, SeriesId,
};
use countersign_event::dsse::Envelope;
use countersign_event::ledger::LedgerRecord;
use countersign_exchange::ExchangeError;
use countersign_exchange::pipeline::deliver::{Delivery, Next};
use countersign_filter::Filter;
use countersign_protocol::delivery::{LogReader, check_skip_claim};
use countersign_protocol::{StartAt, Subscribe};

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
