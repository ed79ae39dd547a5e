//! Publishing against a node that stores what it gets, and breaks connections at bad moments.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod node;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use countersign_client::publisher::{PublishError, Publisher, PublisherOptions};
use countersign_client::quic::{Connection, Endpoint, FrameReader, FrameWriter};
use countersign_client::session::{Backoff, is_bulk};
use countersign_protocol::publish::{read_events, write_event};
use countersign_protocol::{
    BULK_FRAME_BYTES_MAX, CONTROL_FRAME_BYTES_MAX, Message, PublishAck, PublishBatch, PublishOpen,
    PublishReady, Refused,
};
use node::{Org, entropy, event};
use tokio::sync::watch;

/// When a connection breaks.
#[derive(Clone, Copy)]
enum Break {
    /// Never.
    Never,
    /// After this many batches of it, the last of them not stored.
    Before(u32),
    /// After this many batches of it, the last of them stored and not acknowledged.
    After(u32),
}

#[derive(Default)]
struct Stored {
    /// Content by number, from 1. The numbering rules are checked on the way in.
    events: Vec<Vec<u8>>,
    /// How many events came in each batch, repeats included.
    batches: Vec<u32>,
    connections: u32,
    gaps: u32,
    conflicts: u32,
}

#[derive(Clone)]
struct Node {
    org: Org,
    stored: Arc<Mutex<Stored>>,
    /// Acknowledgements wait until this many batches came.
    hold: watch::Sender<usize>,
    window_bytes: u32,
    last_number_shown: Option<u64>,
    breaks: Vec<Break>,
}

impl Node {
    fn new(breaks: &[Break]) -> Self {
        Self {
            org: Org::new(1),
            stored: Arc::default(),
            hold: watch::Sender::new(0),
            window_bytes: 1 << 20,
            last_number_shown: None,
            breaks: breaks.to_vec(),
        }
    }

    fn start(&self) -> PublisherOptions {
        let (endpoint, address) = self.org.listen();
        tokio::spawn(self.clone().serve(endpoint));
        let session = self.org.app_session(&address);
        PublisherOptions {
            backoff: Backoff {
                first: Duration::from_millis(1),
                longest: Duration::from_millis(10),
                attempts_max: None,
            },
            batch_bytes: 1_000,
            ..PublisherOptions::new(session, "orders", [7; 16], entropy(1))
        }
    }

    async fn serve(self, endpoint: Endpoint) {
        while let Some(greeted) = self.org.greet(&endpoint).await {
            let index = {
                let mut stored = self.stored.lock().unwrap();
                stored.connections += 1;
                stored.connections as usize - 1
            };
            let breaks = self.breaks.get(index).copied().unwrap_or(Break::Never);
            if let Ok(connection) = greeted {
                self.clone().session(&connection, breaks).await;
            }
        }
    }

    async fn session(self, connection: &Connection, breaks: Break) {
        let Ok((mut writer, mut reader)) = connection.accept_bi().await else {
            return;
        };
        let Some((kind, body)) = next(&mut reader).await else {
            return;
        };
        let open = PublishOpen::read(kind, &body).unwrap();
        if open.stream != "orders" {
            let refused = Refused {
                refusal: Vec::new(),
                code: "not-found".to_owned(),
                reason: "no such\nstream".to_owned(),
                retry_after_ms: 0,
            };
            writer
                .write(Refused::KIND, &refused.to_body())
                .await
                .unwrap();
            connection.closed().await;
            return;
        }
        let last = self.stored.lock().unwrap().events.len() as u64;
        let ready = PublishReady {
            origin: "x.example/streams/orders".to_owned(),
            last_number: self.last_number_shown.unwrap_or(last),
            last_sequence: last,
            event_bytes_max: 10_000,
            window_bytes: self.window_bytes,
            duplicate_window_events: 1_000_000,
        };
        writer
            .write(PublishReady::KIND, &ready.to_body())
            .await
            .unwrap();
        let mut count = 0;
        let mut acks = Vec::new();
        while let Some((kind, body)) = next(&mut reader).await {
            let (batch, bulk) = PublishBatch::read_bulk(kind, &body).unwrap();
            count += 1;
            if matches!(breaks, Break::Before(limit) if limit == count) {
                break;
            }
            acks.push(self.store(&batch, &bulk));
            if matches!(breaks, Break::After(limit) if limit == count) {
                break;
            }
            if acks.len() >= *self.hold.borrow() {
                acknowledge(&mut writer, &mut acks).await;
            }
        }
        connection.close(9, "the test breaks it");
    }

    fn store(&self, batch: &PublishBatch, bulk: &Bytes) -> PublishAck {
        let mut stored = self.stored.lock().unwrap();
        stored.batches.push(batch.count);
        let mut duplicates = 0;
        for (number, span) in (batch.first_number..).zip(read_events(bulk, batch.count).unwrap()) {
            let content = span.data_part(bulk).to_vec();
            let known = stored
                .events
                .get(number as usize - 1)
                .map(|held| *held == content);
            match known {
                Some(true) => duplicates += 1,
                Some(false) => stored.conflicts += 1,
                None if number as usize == stored.events.len() + 1 => stored.events.push(content),
                None => stored.gaps += 1,
            }
        }
        PublishAck {
            first_number: batch.first_number,
            count: batch.count,
            duplicates,
            last_sequence: batch.first_number + u64::from(batch.count) - 1,
        }
    }

    /// Every event from 1 on, once, in order, and the rules of numbering kept.
    fn check(&self, count: u64) {
        let stored = self.stored.lock().unwrap();
        let expected: Vec<_> = (1..=count)
            .map(|n| event(n).data_part_bytes().to_vec())
            .collect();
        assert_eq!(stored.events, expected);
        assert_eq!((stored.gaps, stored.conflicts), (0, 0));
    }
}

async fn acknowledge(writer: &mut FrameWriter, acks: &mut Vec<PublishAck>) {
    for ack in acks.drain(..) {
        // A publisher that has gone does not wait for it.
        let _ = writer.write(PublishAck::KIND, &ack.to_body()).await;
    }
}

async fn next(reader: &mut FrameReader) -> Option<(u8, Bytes)> {
    let frame = reader
        .next(CONTROL_FRAME_BYTES_MAX, BULK_FRAME_BYTES_MAX, is_bulk)
        .await;
    frame.ok().flatten().map(|frame| (frame.kind, frame.body))
}

#[tokio::test]
async fn a_lone_event_is_acknowledged_without_waiting_for_others() {
    let node = Node::new(&[]);
    let publisher = Publisher::connect(node.start()).await.unwrap();
    let pending = publisher.publish_event(&event(1)).await.unwrap();
    assert_eq!(pending.number(), 1);
    let ack = pending.await.unwrap();
    assert_eq!((ack.first_number, ack.count, ack.duplicates), (1, 1, 0));
    publisher.close().await.unwrap();
    node.check(1);
}

#[tokio::test]
async fn what_gathers_while_a_batch_is_on_its_way_leaves_together() {
    let node = Node::new(&[]);
    node.hold.send_replace(2);
    let publisher = Publisher::connect(node.start()).await.unwrap();
    let first = publisher.publish_event(&event(1)).await.unwrap();
    while node.stored.lock().unwrap().batches.is_empty() {
        tokio::task::yield_now().await;
    }
    // On its way and held back: these gather until the batch is full.
    let mut pending = Vec::new();
    for number in 2..=40 {
        pending.push(publisher.publish_event(&event(number)).await.unwrap());
    }
    first.await.unwrap();
    node.hold.send_replace(0);
    for one in pending {
        one.await.unwrap();
    }
    let batches = node.stored.lock().unwrap().batches.clone();
    assert!(batches.len() < 10 && batches[1] > 5, "{batches:?}");
    node.check(40);
}

#[tokio::test]
async fn batches_are_on_their_way_before_the_first_is_acknowledged() {
    let node = Node::new(&[]);
    node.hold.send_replace(5);
    let publisher = Publisher::connect(node.start()).await.unwrap();
    let mut bulk = Vec::new();
    let mut pending = Vec::new();
    for number in 1..=5 {
        bulk.clear();
        let event = event(number);
        write_event(&mut bulk, event.attribute_bytes(), event.data_part_bytes());
        pending.push(
            publisher
                .publish_batch(Bytes::from(bulk.clone()), 1)
                .await
                .unwrap(),
        );
    }
    for (number, one) in (1..).zip(pending) {
        assert_eq!(one.await.unwrap().first_number, number);
    }
    node.check(5);
}

#[tokio::test]
async fn broken_connections_lose_nothing_and_double_nothing() {
    let breaks = [
        Break::Before(1),
        Break::After(1),
        Break::After(3),
        Break::Before(4),
        Break::Before(2),
        Break::After(2),
        Break::After(7),
    ];
    let node = Node::new(&breaks);
    let publisher = Publisher::connect(node.start()).await.unwrap();
    for number in 1..=2_000 {
        publisher.publish_event(&event(number)).await.unwrap();
    }
    publisher.flush().await.unwrap();
    assert_eq!(publisher.acknowledged(), 2_000);
    assert!(publisher.duplicates() > 0);
    publisher.close().await.unwrap();
    assert_eq!(
        node.stored.lock().unwrap().connections as usize,
        breaks.len() + 1
    );
    node.check(2_000);
}

#[tokio::test]
async fn a_second_publisher_of_the_series_goes_on_after_the_last_number() {
    let node = Node::new(&[]);
    let options = node.start();
    let session = options.session.clone();
    let publisher = Publisher::connect(options).await.unwrap();
    for number in 1..=10 {
        publisher.publish_event(&event(number)).await.unwrap();
    }
    publisher.close().await.unwrap();
    let options = PublisherOptions::new(session, "orders", [7; 16], entropy(2));
    let publisher = Publisher::connect(options).await.unwrap();
    assert_eq!(publisher.resumed_after(), 10);
    assert_eq!(
        publisher.publish_event(&event(11)).await.unwrap().number(),
        11
    );
    publisher.close().await.unwrap();
    node.check(11);
}

#[tokio::test]
async fn the_window_bounds_what_waits() {
    let mut node = Node::new(&[]);
    node.window_bytes = 2_000;
    node.hold.send_replace(usize::MAX);
    let publisher = Publisher::connect(node.start()).await.unwrap();
    let event = event(1);
    let mut pushed = 0;
    let error = loop {
        match publisher.try_push(event.attribute_bytes(), event.data_part_bytes()) {
            Ok(_) => pushed += event.attribute_bytes().len() + event.data_part_bytes().len() + 6,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(
            error,
            PublishError::Full {
                window_bytes: 2_000
            }
        ),
        "{error}"
    );
    assert!(pushed <= 2_000 && pushed > 1_500, "{pushed}");
}

#[tokio::test]
async fn events_beyond_a_limit_and_wrong_batches_are_refused_before_they_leave() {
    let node = Node::new(&[]);
    let publisher = Publisher::connect(node.start()).await.unwrap();
    let large = publisher.try_push(b"", &[3; 10_002]);
    assert!(
        matches!(
            large,
            Err(PublishError::TooLarge {
                part: "data",
                bytes: 10_001,
                ..
            })
        ),
        "{large:?}"
    );
    let large = publisher.try_push(&[0; 65_536], b"");
    assert!(
        matches!(
            large,
            Err(PublishError::TooLarge {
                part: "attributes",
                ..
            })
        ),
        "{large:?}"
    );
    for (bulk, count) in [
        (Bytes::new(), 0),
        (Bytes::from(vec![0; 20 << 20]), 1),
        (Bytes::new(), 20_000),
    ] {
        let wrong = publisher.publish_batch(bulk, count).await;
        assert!(
            matches!(wrong, Err(PublishError::Batch { .. })),
            "{wrong:?}"
        );
    }
}

#[tokio::test]
async fn a_refusal_names_its_reason_and_is_safe_to_print() {
    let node = Node::new(&[]);
    let mut options = node.start();
    options.stream = "nothing".to_owned();
    let error = Publisher::connect(options).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("not-found") && !text.contains('\n'),
        "{text:?}"
    );
}

#[tokio::test]
async fn a_node_that_lost_acknowledged_events_is_not_published_to() {
    let node = Node::new(&[Break::After(2)]);
    let publisher = Publisher::connect(node.start()).await.unwrap();
    publisher
        .publish_event(&event(1))
        .await
        .unwrap()
        .await
        .unwrap();
    // Restored from an older copy before the connection breaks.
    node.stored.lock().unwrap().events.clear();
    let error = publisher
        .publish_event(&event(2))
        .await
        .unwrap()
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            PublishError::NodeWentBack {
                held: 0,
                acknowledged: 1
            }
        ),
        "{error}"
    );
    assert!(publisher.flush().await.is_err());
    assert!(publisher.try_push(b"", b"").is_err());
}
