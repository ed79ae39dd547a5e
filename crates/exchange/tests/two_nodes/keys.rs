//! Keys that are rotated and revoked while two nodes exchange: what goes on, and what is refused from then on.

use std::time::Duration;

use countersign_crypto::{SeededEntropy, SigningKey};
use countersign_event::documents::{
    Document as _, KeyRevocation, KeyStatement, KeySuccession, RevokedHead, Role, RoleKey,
};
use countersign_event::dsse::Envelope;
use countersign_event::ledger::LedgerRecord;
use countersign_event::time::Timestamp;
use countersign_exchange::pipeline::consume::{ConsumeError, Consumption};
use countersign_exchange::pipeline::receipt::ReceiptFault;
use countersign_exchange::{Direction, ExchangeError, Identity, PeerError};
use countersign_protocol::delivery::BatchFault;
use countersign_protocol::{Heads, SignedHead};
use countersign_tlog::add_checkpoint::AddCheckpoint;
use countersign_tlog::checkpoint::{sign_checkpoint, signature_of};
use countersign_tlog::{Algorithm, Checkpoint, Note, Vkey};

use super::support::{Node, Wire, partners};

const OVERLAP: Duration = Duration::from_secs(3600);

fn fresh(seed: u64) -> SigningKey {
    SigningKey::generate(&mut SeededEntropy::new(seed ^ 0x00ab_cdef))
}

/// The node's identity after a key of this role took the place of the one before.
fn rotated(node: &Node, role: Role, key: &SigningKey) -> Identity {
    let before = &node.org.identity;
    let made = node.exchange.clock().now();
    let mut statement = KeyStatement {
        number: before.statement.number + 1,
        made,
        ..before.statement.clone()
    };
    let end = Timestamp(made.0 + OVERLAP.as_micros() as u64);
    for stated in statement.keys.iter_mut().filter(|one| one.role == role) {
        stated.until = Some(stated.until.map_or(end, |until| until.min(end)));
    }
    statement.keys.push(RoleKey {
        role,
        key: key.public(),
        from: made,
        until: None,
    });
    let mut after = Identity {
        envelope: statement.sign_with(&node.org.key),
        statement,
        ..before.clone()
    };
    match role {
        Role::Agreement => after.agreement_key = key.clone(),
        Role::Log => {
            let earlier = std::mem::replace(&mut after.log_key, key.clone());
            after.earlier_log_keys.insert(0, earlier);
        }
        Role::Node => after.node_key = key.clone(),
        Role::Receipt => after.receipt_key = key.clone(),
        Role::Witness => after.witness_key = key.clone(),
        Role::Encryption => {}
    }
    after
}

async fn rotate(node: &mut Node, role: Role, key: &SigningKey) {
    let after = rotated(node, role, key);
    node.exchange.use_identity(after.clone()).await;
    node.exchange.state_keys(true).await.unwrap();
    node.org.identity = after;
}

async fn tell(from: &Node, to: &Node, document: &Envelope) -> Result<(), ExchangeError> {
    let peer = from.at(to);
    to.exchange.take_notice(&peer, &document.to_json()).await
}

async fn revoke(node: &Node, role: Role, key: &SigningKey) -> Envelope {
    let heads: Vec<RevokedHead> = match role {
        Role::Log => {
            node.exchange.retire_earlier_log_keys().await;
            node.exchange.heads_to_name().await.0
        }
        _ => Vec::new(),
    };
    let statement = &node.org.identity.statement;
    let revocation = KeyRevocation {
        authority: statement.authority.clone(),
        organization: statement.organization,
        key: key.public(),
        role,
        reason: "the machine was stolen".to_owned(),
        made: node.exchange.clock().now(),
        heads,
        succession: statement.succession.clone(),
    };
    let envelope = revocation.sign_with(&node.org.key);
    node.exchange.hold_own_revocation(&envelope).await.unwrap();
    envelope
}

/// What whoever has the key could show: a tree of that size that is none of the log's.
fn stolen(node: &Node, key: &SigningKey, size: u64) -> SignedHead {
    let root = [size as u8; 32];
    let checkpoint = Checkpoint {
        origin: node.origin("s").to_string(),
        size,
        root,
    };
    SignedHead::new(size, root, signature_of(&checkpoint, key))
}

fn heads(head: SignedHead) -> Heads {
    Heads {
        head,
        paused: String::new(),
    }
}

fn held(node: &Node, producer: &Node) -> (u64, [u8; 32]) {
    let head = node.exchange.log(&producer.origin("s")).unwrap().head();
    (head.size, head.root)
}

#[tokio::test]
async fn a_running_subscription_survives_the_rotation_of_the_log_key_and_the_end_of_the_overlap() {
    let (mut producer, mut consumer, agreement) = partners(901, "s", 1000).await;
    producer.publish("s", 1, 5).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    let old = producer.org.identity.log_key.clone();
    let new = fresh(1);
    rotate(&mut producer, Role::Log, &new).await;
    producer.publish("s", 6, 5).await.unwrap();
    // The consumer knows the statement before only, and the older key signs beside the newer one.
    let head = producer.log("s").head();
    let signed = head.signed().unwrap();
    assert_eq!(signed.signature.len(), 128);
    let checkpoint = signed.checkpoint(producer.origin("s").as_str());
    for key in [&new, &old] {
        let keys = [key.public()];
        assert!(signed.signed_by(&checkpoint, keys.iter()).is_some());
    }
    wire.pump().await;
    assert_eq!(held(&consumer, &producer), (head.size, head.root));
    // Both lines are in the note.
    let origin = producer.origin("s");
    let vkeys = [&new, &old]
        .map(|key| Vkey::new(origin.as_str(), Algorithm::Ed25519, key.public()).unwrap());
    let note = head.note(&origin).unwrap();
    let verified = Note::parse(note.as_bytes()).unwrap();
    assert_eq!(verified.verify(&vkeys).unwrap().len(), 2);

    let statement = producer.org.identity.envelope.clone();
    tell(&producer, &consumer, &statement).await.unwrap();
    tell(&producer, &consumer, &statement).await.unwrap();
    assert_eq!(consumer.records("key-statement").await.len(), 3, "once");
    for clock in [&producer.clock, &consumer.clock] {
        clock.advance(OVERLAP);
    }
    producer.publish("s", 11, 5).await.unwrap();
    let head = producer.log("s").head();
    assert_eq!(head.signed().unwrap().signature.len(), 64);
    wire.pump().await;
    assert_eq!(held(&consumer, &producer), (head.size, head.root));
    // The older key alone counts no more.
    let late = wire
        .consumption
        .take_heads(&heads(stolen(&producer, &old, 50)));
    let signature = matches!(
        late,
        Err(ConsumeError::Fault {
            fault: BatchFault::Signature { .. },
            ..
        })
    );
    assert!(signature, "{late:?}");
    drop(wire);
    producer.restart().await;
    consumer.restart().await;
    producer.publish("s", 16, 1).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    assert_eq!(held(&consumer, &producer).0, producer.log("s").size());
}

#[tokio::test]
async fn after_the_overlap_who_was_not_told_reads_no_more_until_it_is() {
    let (mut producer, consumer, agreement) = partners(902, "s", 1000).await;
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    rotate(&mut producer, Role::Log, &fresh(2)).await;
    producer.clock.advance(OVERLAP);
    consumer.clock.advance(OVERLAP);
    producer.publish("s", 1, 1).await.unwrap();
    let (message, bulk) = wire.batch().await.unwrap();
    let refused = wire.take(message, bulk).await;
    assert!(
        matches!(refused, Err(ConsumeError::Fault { .. })),
        "{refused:?}"
    );
    let statement = producer.org.identity.envelope.clone();
    tell(&producer, &consumer, &statement).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    assert_eq!(held(&consumer, &producer).0, producer.log("s").size());
}

#[tokio::test]
async fn a_crash_before_the_statement_was_written_into_the_logs_is_made_good_at_the_start() {
    let mut node = Node::new(903, "Org").await;
    node.create("s").await;
    node.publish("s", 1, 3).await.unwrap();
    let size = node.log("s").size();
    let key = fresh(3);
    // On disk, and nothing more.
    node.org.identity = rotated(&node, Role::Log, &key);
    node.restart().await;
    let head = node.log("s").head();
    assert_eq!(head.size, size + 1);
    assert_eq!(head.signature.unwrap().key, key.public());
    node.restart().await;
    assert_eq!(node.log("s").size(), size + 1, "once");
    assert_eq!(node.records("key-statement").await.len(), 2);
}

#[tokio::test]
async fn a_later_head_of_a_revoked_log_key_is_refused_by_reader_and_witness_also_after_a_restart() {
    let (mut producer, mut consumer, agreement) = partners(904, "s", 1000).await;
    producer.publish("s", 1, 5).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    let old = producer.org.identity.log_key.clone();
    rotate(&mut producer, Role::Log, &fresh(4)).await;
    let statement = producer.org.identity.envelope.clone();
    tell(&producer, &consumer, &statement).await.unwrap();
    wire.pump().await;
    let named = producer.log("s").head();
    let revocation = revoke(&producer, Role::Log, &old).await;
    tell(&producer, &consumer, &revocation).await.unwrap();
    tell(&producer, &consumer, &revocation).await.unwrap();
    assert_eq!(consumer.records("key-revocation").await.len(), 1, "once");
    // The honest log goes on.
    producer.publish("s", 6, 2).await.unwrap();
    assert_eq!(
        producer.log("s").head().signed().unwrap().signature.len(),
        64
    );
    wire.pump().await;

    for round in 0..2 {
        if round == 1 {
            drop(wire);
            consumer.restart().await;
            wire = Wire::open(&producer, &consumer, agreement).await;
        }
        let refused = wire
            .consumption
            .take_heads(&heads(stolen(&producer, &old, 60)));
        let Err(ConsumeError::Revoked { refused }) = refused else {
            panic!("{refused:?}");
        };
        let key = consumer.org.identity.agreement_key.public();
        countersign_event::documents::Refusal::open(&refused.envelope, &key).unwrap();
        wire.consumption.disconnected();
        let statuses = consumer.exchange.statuses();
        let status = statuses.iter().find(|one| one.direction == Direction::In);
        assert!(status.unwrap().paused_because.contains("revoked"));
        let faults = consumer.records("fault").await;
        let last = faults.last().unwrap();
        assert!(
            matches!(last, LedgerRecord::Fault { code, .. } if code == "revoked-key"),
            "{last:?}"
        );

        // As a witness: what the revocation names is the organization's own, whatever else the key signs is not.
        let ask = async |checkpoint: &Checkpoint| {
            let request = AddCheckpoint {
                old: 0,
                proof: Vec::new(),
                checkpoint: sign_checkpoint(checkpoint, &old).note_text,
            };
            let body = request.encode();
            let answers = consumer.exchange.add_checkpoints(&[body.as_bytes()]).await;
            answers.first().unwrap().clone()
        };
        let origin = producer.origin("s").to_string();
        let own = Checkpoint {
            origin: origin.clone(),
            size: named.size,
            root: named.root,
        };
        let later = Checkpoint {
            size: 60,
            root: [60; 32],
            ..own.clone()
        };
        let forged = Checkpoint {
            root: [1; 32],
            ..own.clone()
        };
        let answer = ask(&later).await;
        assert_eq!(answer.status(), 403);
        assert!(answer.body().contains("revoked"), "{}", answer.body());
        assert_eq!(ask(&forged).await.status(), 403);
        let expected = if round == 0 { 200 } else { 409 };
        assert_eq!(ask(&own).await.status(), expected);
    }
    assert!(!consumer.exchange.has_forked(&producer.origin("s")));
}

#[tokio::test]
async fn a_revoked_node_key_connects_no_more_and_its_sessions_are_over() {
    let (mut producer, consumer, _) = partners(905, "s", 10).await;
    let before = producer.at(&consumer);
    assert!(!consumer.exchange.is_over(&before));
    let old = producer.org.identity.node_key.clone();
    let old_hello = producer.hello();
    rotate(&mut producer, Role::Node, &fresh(5)).await;
    let statement = producer.org.identity.envelope.clone();
    tell(&producer, &consumer, &statement).await.unwrap();
    assert!(
        !consumer.exchange.is_over(&before),
        "it counts until its end"
    );
    let hello = producer.hello();
    assert!(consumer.exchange.identify(&hello, &old.public()).is_ok());
    assert!(
        consumer
            .exchange
            .identify(&old_hello, &old.public())
            .is_err()
    );
    let revocation = revoke(&producer, Role::Node, &old).await;
    tell(&producer, &consumer, &revocation).await.unwrap();
    assert!(consumer.exchange.is_over(&before));
    assert!(consumer.exchange.identify(&hello, &old.public()).is_err());
    assert!(producer.try_at(&consumer).is_ok());
}

#[tokio::test]
async fn what_a_revoked_receipt_key_signed_is_accepted_no_more_and_its_owner_begins_anew() {
    let (producer, mut consumer, agreement) = partners(906, "s", 1000).await;
    producer.publish("s", 1, 5).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.flow().await;
    // Signed, and lost on its way.
    let lost = wire.sign().await.unwrap();
    let old = consumer.org.identity.receipt_key.clone();
    rotate(&mut consumer, Role::Receipt, &fresh(6)).await;
    let statement = consumer.org.identity.envelope.clone();
    tell(&consumer, &producer, &statement).await.unwrap();
    let revocation = revoke(&consumer, Role::Receipt, &old).await;
    tell(&consumer, &producer, &revocation).await.unwrap();
    let refused = wire.send(&lost).await;
    assert!(
        matches!(
            refused,
            Err(ExchangeError::Receipt(ReceiptFault::Signature { .. }))
        ),
        "{refused:?}"
    );
    drop(wire);
    let mut consumption = Consumption::open(&consumer.exchange, agreement)
        .await
        .unwrap();
    let peer = consumer.at(&producer);
    let request = consumption.request();
    let (ready, _delivery) = producer
        .exchange
        .open_delivery(&peer, &request)
        .await
        .unwrap();
    let void = consumption.begin(&ready).await.unwrap_err();
    assert!(void.to_string().contains("new series"), "{void}");
    producer.publish("s", 6, 3).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    let held = producer
        .exchange
        .registry()
        .receipts
        .values()
        .map(|last| last.receipt.size)
        .max();
    assert_eq!(held, Some(producer.log("s").size()));
}

#[tokio::test]
async fn an_organization_keeps_its_name_when_its_key_gives_its_place_away() {
    let (mut producer, mut consumer, agreement) = partners(907, "s", 1000).await;
    let (from, to) = (producer.org.key.clone(), fresh(7));
    let before = producer.org.identity.clone();
    let succession = KeySuccession {
        authority: before.statement.authority.clone(),
        from: from.public(),
        to: to.public(),
        made: producer.exchange.clock().now(),
    };
    let statement = KeyStatement {
        organization: to.public(),
        number: 2,
        made: producer.exchange.clock().now(),
        succession: vec![succession.sign_with(&from, &to)],
        ..before.statement.clone()
    };
    let mut envelope = statement.sign_with(&to);
    envelope.add_signature(&from);
    let after = Identity {
        envelope: envelope.clone(),
        statement: statement.clone(),
        ..before.clone()
    };
    producer.exchange.use_identity(after.clone()).await;
    producer.exchange.state_keys(true).await.unwrap();
    producer.org.identity = after;
    tell(&producer, &consumer, &envelope).await.unwrap();
    // Whoever has the older key can sign what it likes: it is not the organization's any more.
    let usurped = KeyStatement {
        number: 3,
        ..before.statement.clone()
    };
    tell(&producer, &consumer, &usurped.sign_with(&from))
        .await
        .unwrap_err();
    let other = fresh(8);
    let aside = KeySuccession {
        to: other.public(),
        ..succession
    };
    let aside = KeyStatement {
        organization: other.public(),
        number: 3,
        succession: vec![aside.sign_with(&from, &other)],
        ..before.statement
    };
    tell(&producer, &consumer, &aside.sign_with(&other))
        .await
        .unwrap_err();
    // Also from the ledger alone.
    let known = |node: &Node| {
        let registry = node.exchange.registry();
        registry.partners[producer.authority()]
            .statement
            .organization
    };
    assert_eq!(known(&consumer), to.public());
    let digest = consumer.rows_digest().await;
    std::fs::remove_file(consumer.view_path()).unwrap();
    consumer.restart().await;
    assert_eq!(known(&consumer), to.public());
    assert_eq!(consumer.rows_digest().await, digest);
    producer.publish("s", 1, 3).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    assert_eq!(held(&consumer, &producer).0, producer.log("s").size());
}

#[tokio::test]
async fn a_publisher_on_this_machine_is_recognised_whatever_becomes_of_the_node_key() {
    let mut node = Node::new(908, "Org").await;
    node.create("s").await;
    node.publish("s", 1, 5).await.unwrap();
    rotate(&mut node, Role::Node, &fresh(9)).await;
    let again = node.publish("s", 1, 5).await.unwrap();
    assert_eq!((again.duplicates, again.count), (5, 5));
    node.restart().await;
    assert_eq!(node.publish("s", 6, 2).await.unwrap().duplicates, 0);
}

/// Each statement is kept for good: a partner that shows a new one all the time would fill memory.
#[tokio::test]
async fn a_partner_changes_its_keys_so_often_and_no_more() {
    let (producer, consumer, _) = partners(3_070, "s", 100).await;
    let shown = |number: u64| {
        let statement = KeyStatement {
            number,
            ..consumer.org.identity.statement.clone()
        };
        let mut hello = consumer.hello();
        hello.key_statement = statement.sign_with(&consumer.org.key).to_json();
        hello
    };
    let key = consumer.org.identity.node_key.public();
    let mut refused = 0;
    for number in 2..=520 {
        match producer.exchange.identify(&shown(number), &key) {
            Ok(peer) => producer.exchange.note_partner(&peer).await.unwrap(),
            Err(error) => {
                assert!(matches!(error, PeerError::Statements { .. }), "{error}");
                refused = number;
                break;
            }
        }
    }
    // The first one came with the agreement.
    assert_eq!(refused, 513);
    // The newest that is held goes on.
    assert!(producer.exchange.identify(&shown(512), &key).is_ok());
    let mut padded = consumer.hello();
    let statement = consumer.org.identity.statement.clone();
    let mut text = serde_json::to_string(&statement).unwrap();
    text.push_str(&" ".repeat(64 << 10));
    let envelope = Envelope::sign(
        KeyStatement::PAYLOAD_TYPE,
        text.into_bytes(),
        &consumer.org.key,
    );
    padded.key_statement = envelope.to_json();
    assert!(matches!(
        producer.exchange.identify(&padded, &key),
        Err(PeerError::Limit)
    ));
}
