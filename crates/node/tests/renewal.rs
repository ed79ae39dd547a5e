//! A second agreement over a stream that is read already: one reader goes on where the other closed its series.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    unreachable_pub,
    missing_docs,
    unused_imports,
    reason = "a test may panic; the harness of the exchange's own tests is used in part"
)]

#[path = "../../exchange/tests/two_nodes/support/mod.rs"]
mod support;

use std::time::Duration;

use countersign_client::quic::QuicLimits;
use countersign_event::documents::{AgreementId, Plan, Receipt, Side};
use countersign_transport::{Server, ServerOptions};
use support::*;

const PATIENCE: Duration = Duration::from_secs(30);

fn serve(node: &Node) -> Server {
    let options = ServerOptions {
        listen: "127.0.0.1:0".parse().unwrap(),
        advertise: Vec::new(),
        limits: QuicLimits::default(),
    };
    Server::start(&node.exchange, options).unwrap()
}

async fn agree(producer: &Node, consumer: &Node, server: &Server) -> AgreementId {
    for node in [producer, consumer] {
        node.clock.advance(Duration::from_secs(1));
    }
    let mut invitation = producer.invite("s", Side::Producer, Plan::default()).await;
    invitation.addresses = vec![server.local_addr().to_string()];
    join(&invitation, producer, consumer).await.unwrap()
}

/// Waits until the producer holds a receipt of `size` under the agreement.
async fn receipted(producer: &Node, agreement: AgreementId, size: u64) {
    let mut moved = producer.exchange.ledger_moved();
    let covered = || {
        let registry = producer.exchange.registry();
        let mut last = registry.receipts.values().map(|last| &last.receipt);
        last.any(|receipt| receipt.agreement == agreement && receipt.size == size)
    };
    let wait = async {
        while !covered() {
            moved.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .expect("no such receipt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_agreement_takes_over_without_receipting_anything_twice() {
    let (producer, consumer) = (Node::new(91, "Seller").await, Node::new(92, "Buyer").await);
    producer.create("s").await;
    let server = serve(&producer);
    let first = agree(&producer, &consumer, &server).await;
    let reading = serve(&consumer);
    producer.publish("s", 1, 10).await.unwrap();
    receipted(&producer, first, 11).await;
    let second = agree(&producer, &consumer, &server).await;
    for number in 11..=40 {
        producer.publish("s", number, 1).await.unwrap();
    }
    receipted(&producer, second, 41).await;
    let copy = consumer.exchange.log(&producer.origin("s")).unwrap();
    assert_eq!(
        stored(&consumer.exchange, &copy),
        stored(&producer.exchange, &producer.log("s"))
    );
    let series: Vec<Receipt> = {
        let registry = producer.exchange.registry();
        let last = registry.receipts.values();
        last.map(|last| last.receipt.clone()).collect()
    };
    assert_eq!(series.len(), 2);
    // Each event stands under one agreement.
    assert_eq!(
        series.iter().map(|receipt| receipt.events).sum::<u64>(),
        40,
        "{series:?}"
    );
    reading.shut_down().await;
    server.shut_down().await;
}
