//! Who gets in: one key for one link whatever the timing, and nobody under a key statement that a newer one replaced.

use countersign_crypto::SigningKey;
use countersign_event::documents::{Plan, Side};
use countersign_exchange::Peer;
use countersign_protocol::{PublishOpen, StartAt};

use crate::support::*;

#[tokio::test]
async fn two_keys_that_redeem_one_link_at_once_get_one_agreement() {
    let inviter = Node::new(71, "Inviter").await;
    inviter.create("s").await;
    let (first, second) = (Node::new(72, "First").await, Node::new(73, "Second").await);
    // Often enough that both meet between the check and the commit.
    for round in 1..=10 {
        let invitation = inviter.invite("s", Side::Producer, Plan::default()).await;
        let (one, other) = tokio::join!(
            join(&invitation, &inviter, &first),
            join(&invitation, &inviter, &second)
        );
        assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
        assert_eq!(inviter.exchange.registry().agreements.len(), round);
    }
}

#[tokio::test]
async fn our_own_older_key_statement_lets_nobody_in() {
    let old = Org::new(74, "Own");
    let authority = old.identity.authority().clone();
    let new = Org::with_authority(75, "Own", authority, old.key.clone(), 2);
    let node = Node::with(new, 74, NodeOptions::default()).await;
    let thief = Node::with(old, 76, NodeOptions::default()).await;
    assert!(thief.try_at(&node).is_err());
}

#[tokio::test]
async fn a_running_publisher_stops_where_its_enrolment_is_taken_back_or_a_policy_forbids_it() {
    let node = Node::new(77, "Own").await;
    node.create("s").await;
    let key = SigningKey::from_seed(&[7; 32]).public();
    for taken_back in [true, false] {
        node.exchange.enrol_app("feed", key, true).await.unwrap();
        let peer = Peer::App {
            name: "feed".to_owned(),
            key,
        };
        let open = PublishOpen {
            stream: "s".to_owned(),
            series: [u8::from(taken_back) + 1; 16],
            create: false,
        };
        let (_, session) = node.exchange.open_publish(&peer, &open).await.unwrap();
        let (count, bulk) = bulk_of(&events(&format!("a{taken_back}"), 1, 1));
        session.submit_and_wait(1, count, bulk).await.unwrap();
        let size = node.log("s").size();
        if taken_back {
            node.exchange.enrol_app("feed", key, false).await.unwrap();
        } else {
            node.set_policy("forbid (principal, action, resource);")
                .await;
        }
        for _ in 0..2 {
            let (count, bulk) = bulk_of(&events(&format!("b{taken_back}"), 2, 1));
            assert!(session.submit_and_wait(2, count, bulk).await.is_err());
        }
        assert_eq!(node.log("s").size(), size);
    }
}

#[tokio::test]
async fn a_link_from_before_a_revocation_does_not_bring_the_partner_back() {
    let (mut producer, consumer, _) = partners(78, "s", 10).await;
    let before = producer.invite("s", Side::Producer, Plan::default()).await;
    let authority = consumer.authority().to_string();
    producer
        .exchange
        .revoke(&authority, "unpaid")
        .await
        .unwrap();
    assert!(join(&before, &producer, &consumer).await.is_err());
    producer.restart().await;
    assert!(join(&before, &producer, &consumer).await.is_err());
    let after = producer.invite("s", Side::Producer, Plan::default()).await;
    join(&after, &producer, &consumer).await.unwrap();
}

#[tokio::test]
async fn an_ended_agreement_opens_no_delivery_whatever_the_policies_permit() {
    let (producer, consumer, agreement) = partners(79, "s", 10).await;
    producer
        .set_policy("permit (principal, action, resource);")
        .await;
    producer.publish("s", 1, 5).await.unwrap();
    producer
        .exchange
        .terminate(agreement, "over")
        .await
        .unwrap();
    let request = subscribe_at(&producer, "s", agreement, StartAt::Sequence(0));
    let peer = consumer.at(&producer);
    assert!(
        producer
            .exchange
            .open_delivery(&peer, &request)
            .await
            .is_err()
    );
}
