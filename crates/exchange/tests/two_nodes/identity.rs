//! Who gets in: one key for one link whatever the timing, and nobody under a key statement that a newer one replaced.

use countersign_event::documents::{Plan, Side};

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
