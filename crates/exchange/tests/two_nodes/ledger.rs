//! The view and the registry are functions of the ledger logs: whenever the database goes away, the same comes back.

use countersign_event::documents::{Plan, Side};

use crate::support::*;

/// Deletes or keeps the database while the node is down, and compares what comes back with what was there.
async fn check_rebuilds(node: &mut Node, step: &str) {
    let (digest, registry) = (node.rows_digest().await, registry_text(&node.exchange));
    for delete in [false, true] {
        node.exchange.close().await;
        if delete {
            for suffix in ["", "-wal", "-shm"] {
                let path = format!("{}{suffix}", node.view_path().display());
                let _ = std::fs::remove_file(path);
            }
        }
        node.kill().await;
        assert_eq!(
            node.rows_digest().await,
            digest,
            "{step}, deleted: {delete}"
        );
        assert_eq!(
            registry_text(&node.exchange),
            registry,
            "{step}, deleted: {delete}"
        );
        let source = node.exchange.ledger_source();
        assert!(
            node.exchange
                .view()
                .verify(&source)
                .await
                .unwrap()
                .is_empty()
        );
    }
}

#[tokio::test]
async fn the_database_can_be_deleted_at_every_step() {
    let mut producer = Node::new(401, "Producer").await;
    let mut consumer = Node::new(402, "Consumer").await;
    check_rebuilds(&mut producer, "begun").await;
    producer.create("s").await;
    let key = countersign_crypto::SigningKey::from_seed(&[5; 32]).public();
    producer.exchange.enrol_app("app", key, true).await.unwrap();
    let confirm = countersign_exchange::InviteOptions {
        confirm: true,
        ..invite_options("s", Side::Producer, Plan::default())
    };
    let pending = producer.exchange.invite(confirm).await.unwrap();
    join(&pending, &producer, &consumer).await.unwrap_err();
    check_rebuilds(&mut producer, "invited").await;
    let plan = Plan {
        exposure_events: 10,
        ..Plan::default()
    };
    let invitation = producer.invite("s", Side::Producer, plan).await;
    let agreement = join(&invitation, &producer, &consumer).await.unwrap();
    check_rebuilds(&mut producer, "joined").await;
    check_rebuilds(&mut consumer, "joined").await;
    producer.publish("s", 1, 25).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    drop(wire);
    consumer
        .exchange
        .move_cursor("app", &producer.origin("s"), 3, [1; 32])
        .await
        .unwrap();
    check_rebuilds(&mut producer, "delivered").await;
    check_rebuilds(&mut consumer, "delivered").await;
    // Strangers, refusals, another policy.
    let stranger = Node::new(403, "Stranger").await;
    join(&invitation, &producer, &stranger).await.unwrap_err();
    producer
        .set_policy(&format!("{STARTER}\n// another text"))
        .await;
    producer.options.policy = format!("{STARTER}\n// another text");
    check_rebuilds(&mut producer, "another policy").await;
    consumer
        .exchange
        .terminate(agreement, "enough")
        .await
        .unwrap();
    let envelope = consumer.exchange.notices_for(producer.authority())[0].to_json();
    let peer = consumer.at(&producer);
    for _ in 0..2 {
        producer
            .exchange
            .take_notice(&peer, &envelope)
            .await
            .unwrap();
    }
    assert_eq!(producer.records("termination").await.len(), 1);
    assert!(
        Wire::try_open(&producer, &consumer, agreement)
            .await
            .is_err()
    );
    check_rebuilds(&mut producer, "terminated").await;
    check_rebuilds(&mut consumer, "terminated").await;
    producer.exchange.revoke("Consumer", "why").await.unwrap();
    check_rebuilds(&mut producer, "revoked").await;
    let again = producer.invite("s", Side::Producer, Plan::default()).await;
    join(&again, &producer, &consumer).await.unwrap();
    check_rebuilds(&mut producer, "readmitted").await;
}

#[tokio::test]
async fn a_database_ahead_of_the_log_is_made_anew() {
    let (mut producer, consumer, agreement) = partners(410, "s", 10).await;
    producer.publish("s", 1, 25).await.unwrap();
    let disk = producer.disk.after_kill();
    let before = producer.rows_digest().await;
    let registry = registry_text(&producer.exchange);
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    drop(wire);
    assert_ne!(producer.rows_digest().await, before);
    producer.go_back_to(disk).await;
    assert_eq!(producer.rows_digest().await, before);
    assert_eq!(registry_text(&producer.exchange), registry);
}

#[tokio::test]
async fn the_registry_says_the_same_whatever_the_clock_did_between_two_records() {
    let mut producer = Node::new(420, "Producer").await;
    let mut consumer = Node::new(421, "Consumer").await;
    producer.create("s").await;
    producer.exchange.refresh_view().await.unwrap();
    let invitation = producer.invite("s", Side::Producer, Plan::default()).await;
    // The clock falls back by an hour: the new log's entries are older than those of the node's log.
    let earlier = countersign_event::time::Timestamp(START.0 - 3_600_000_000);
    producer.clock.set(earlier);
    consumer.clock.set(earlier);
    join(&invitation, &producer, &consumer).await.unwrap();
    check_rebuilds(&mut producer, "joined").await;
    check_rebuilds(&mut consumer, "joined").await;
}
