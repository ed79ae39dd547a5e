//! Heads of ledger logs: cosigned by whom they are about, and never forked by a restored directory.

use std::collections::BTreeSet;

use countersign_event::documents::{Plan, Side};
use countersign_event::names::Origin;
use countersign_event::time::Timestamp;
use countersign_exchange::pipeline::consume::Consumption;
use countersign_exchange::{
    ADD_CHECKPOINTS_MAX, Heard, OutsideWitness, Said, Submission, WitnessId, WitnessSettings,
};
use countersign_store::journal::LogKind;

use super::support::{Node, NodeOptions, Wire, join, partners, partners_with};

const STREAM: &str = "orders";

fn about(node: &Node, partner: &Node) -> Origin {
    Origin::of_ledger(node.authority(), partner.authority())
}

/// The ledger logs that are shown to a witness.
fn ledgers_for(node: &Node, id: &WitnessId) -> BTreeSet<Origin> {
    let mut shown = node.exchange.shown_to(id);
    shown.retain(|log| log.kind() == LogKind::Ledger);
    shown.iter().map(|log| log.origin().clone()).collect()
}

/// Shows all heads that are due; gives what was answered. Where `heard`, the answers are taken.
async fn show(node: &Node, witness: &Node, heard: bool) -> Vec<(Submission, u16)> {
    node.clock.advance(std::time::Duration::from_secs(70));
    let id = WitnessId::Partner(witness.authority().clone());
    let mut all = Vec::new();
    // Once to learn where the witness stands, once to go on from there.
    for _ in 0..2 {
        let shown = node.exchange.shown_to(&id);
        let due = node.exchange.submissions(&id, &shown, ADD_CHECKPOINTS_MAX);
        let bodies: Vec<&[u8]> = due.iter().map(|one| one.body.as_bytes()).collect();
        let answers = witness.exchange.add_checkpoints(&bodies).await;
        let said: Vec<Said> = answers
            .iter()
            .map(|answer| Said {
                status: answer.status(),
                body: answer.body().into_bytes(),
            })
            .collect();
        let vkey = witness.exchange.witness_vkey().unwrap().to_string();
        if heard {
            let taken = node.exchange.take_cosignatures(&id, &vkey, &due, &said);
            taken.await.unwrap();
        } else {
            node.exchange.give_up_submissions(&id, None);
        }
        let statuses = answers.iter().map(|answer| answer.status());
        all.extend(due.into_iter().zip(statuses));
    }
    all
}

async fn read_all(
    producer: &Node,
    consumer: &Node,
    agreement: countersign_event::documents::AgreementId,
) {
    let mut wire = Wire::open(producer, consumer, agreement).await;
    wire.pump().await;
}

/// The ledger log about a partner that is written now.
fn current(node: &Node, partner: &Node) -> Origin {
    let id = WitnessId::Partner(partner.authority().clone());
    let ledgers = ledgers_for(node, &id);
    assert_eq!(ledgers.len(), 1);
    ledgers.into_iter().next().unwrap()
}

#[tokio::test]
async fn a_partner_cosigns_the_ledger_log_about_itself_and_hears_of_no_other() {
    let (producer, one, first) = partners(600, STREAM, 1000).await;
    let two = Node::new(6_001, "Second").await;
    let invitation = producer
        .invite(STREAM, Side::Producer, Plan::default())
        .await;
    join(&invitation, &producer, &two).await.unwrap();
    producer.publish(STREAM, 1, 5).await.unwrap();
    read_all(&producer, &one, first).await;
    for partner in [&one, &two] {
        let shown = show(&producer, partner, true).await;
        let ledger = about(&producer, partner);
        let origins: BTreeSet<_> = shown.iter().map(|(one, _)| one.origin.clone()).collect();
        assert_eq!(origins, [ledger.clone(), producer.origin(STREAM)].into());
        assert!(shown.iter().all(|(_, status)| *status == 200));
        let log = producer.exchange.log(&ledger).unwrap();
        assert_eq!(log.witnessed().unwrap().size, log.size());
        // Nothing in what it was shown names anybody else.
        let other = if partner.authority() == one.authority() {
            &two
        } else {
            &one
        };
        assert!(
            shown
                .iter()
                .all(|(one, _)| !one.body.contains(other.authority().as_str()))
        );
    }
    // The consumer's ledger about the producer goes to the producer.
    let shown = show(&one, &producer, true).await;
    assert!(
        shown
            .iter()
            .any(|(one_of, status)| one_of.origin == about(&one, &producer) && *status == 200)
    );
    // Who was revoked is shown nothing more.
    producer
        .exchange
        .revoke(two.authority().as_str(), "enough")
        .await
        .unwrap();
    let id = WitnessId::Partner(two.authority().clone());
    assert_eq!(ledgers_for(&producer, &id), BTreeSet::new());
}

#[tokio::test]
async fn outside_witnesses_see_ledger_logs_only_where_the_owner_says_so() {
    let key = countersign_crypto::SigningKey::from_seed(&[7; 32]).public();
    let vkey =
        countersign_tlog::Vkey::new("w.example", countersign_tlog::Algorithm::CosignatureV1, key)
            .unwrap();
    let outside: OutsideWitness = format!("{vkey} https://w.example").parse().unwrap();
    for outside_ledgers in [false, true] {
        let options = NodeOptions {
            witness: WitnessSettings {
                outside: vec![outside.clone()],
                outside_ledgers,
                ..WitnessSettings::default()
            },
            ..NodeOptions::default()
        };
        let (producer, consumer, _) = partners_with(601, STREAM, 1000, options).await;
        let expected = match outside_ledgers {
            false => BTreeSet::new(),
            true => [
                about(&producer, &consumer),
                Origin::of_node_ledger(producer.authority()),
            ]
            .into(),
        };
        assert_eq!(ledgers_for(&producer, &outside.id()), expected);
    }
}

/// The machine that a backup is restored on has a clock behind the first one's: what is decided there came later all the same.
#[tokio::test]
async fn a_revocation_after_a_restore_holds_though_the_clock_fell_back() {
    let options = NodeOptions {
        elsewhere: true,
        ..NodeOptions::default()
    };
    let (mut producer, consumer, agreement) = partners_with(680, STREAM, 1000, options).await;
    producer.publish(STREAM, 1, 3).await.unwrap();
    read_all(&producer, &consumer, agreement).await;
    let backup = producer.disk.after_kill();
    let now = producer.exchange.clock().now();
    producer.clock.set(Timestamp(now.0 - 3_600_000_000));
    producer.go_back_to(backup).await;
    let partner = consumer.authority().to_string();
    producer.exchange.revoke(&partner, "left").await.unwrap();
    producer.exchange.refresh_view().await.unwrap();
    producer.clock.set(now);
    producer.restart().await;
    let opened = Wire::try_open(&producer, &consumer, agreement).await;
    assert!(opened.is_err(), "the revocation is undone by a restart");
}

/// Whatever the backup lacks, and however often it is restored: no ledger log has two histories for whoever has cosigned it, everything goes on, and the view is
/// that of all generations.
#[tokio::test]
async fn a_restored_directory_forks_no_ledger_log() {
    for seed in 0..6u64 {
        let options = NodeOptions {
            elsewhere: true,
            ..NodeOptions::default()
        };
        let (mut producer, consumer, agreement) =
            partners_with(610 + seed, STREAM, 1000, options).await;
        producer.publish(STREAM, 1, 3).await.unwrap();
        read_all(&producer, &consumer, agreement).await;
        show(&producer, &consumer, seed % 2 == 0).await;
        let first = current(&producer, &consumer);
        assert_eq!(
            first,
            about(&producer, &consumer),
            "a new directory has the first generation"
        );
        let older = producer.disk.after_kill();
        // More is recorded than the backup holds, and the consumer cosigns it.
        producer.publish(STREAM, 4, 3).await.unwrap();
        read_all(&producer, &consumer, agreement).await;
        for (one, status) in show(&producer, &consumer, seed % 2 == 0).await {
            assert!(status == 200 || status == 409, "{} {status}", one.origin);
        }
        let mut names = BTreeSet::from([first.clone()]);
        for _ in 0..2 {
            producer.go_back_to(older.after_kill()).await;
            let now = current(&producer, &consumer);
            assert!(names.insert(now.clone()), "{now} was there before");
            let settings = producer.exchange.log(&now).unwrap().settings().clone();
            let cites = settings.cites.unwrap();
            let old = producer.exchange.log(&first).unwrap();
            assert_eq!(
                (cites.origin, cites.size, cites.root.0),
                (first.clone(), old.size(), old.head().root)
            );
            // It goes on, and so does the consumer.
            let question = producer.exchange.questions_for(consumer.authority());
            for question in question {
                let origin = question.origin.parse().unwrap();
                let peer = producer.at(&consumer);
                let state = consumer.exchange.log_state(&peer, &question).await.unwrap();
                let heard = producer
                    .exchange
                    .hear(consumer.authority(), &origin, &state)
                    .unwrap();
                assert_ne!(heard, Heard::Contradicts, "{origin}");
            }
            let key = countersign_crypto::SigningKey::from_seed(&[5; 32]).public();
            producer.exchange.enrol_app("app", key, true).await.unwrap();
            producer
                .exchange
                .revoke(consumer.authority().as_str(), "for a while")
                .await
                .unwrap();
            let partner = producer.exchange.registry().partners[consumer.authority()].clone();
            assert!(
                partner.revoked.is_some(),
                "a record of this generation changes what one of the first says"
            );
            assert_eq!(producer.exchange.log(&first).unwrap().size(), old.size());
            assert!(producer.exchange.log(&now).unwrap().size() > 1);
            producer.exchange.refresh_view().await.unwrap();
            let source = producer.exchange.ledger_source();
            assert!(
                producer
                    .exchange
                    .view()
                    .verify(&source)
                    .await
                    .unwrap()
                    .is_empty()
            );
            assert!(!consumer.exchange.has_forked(&now) && !consumer.exchange.has_forked(&first));
            assert_eq!(consumer.records("fault").await, []);
        }
    }
}

/// A snapshot looks like home. The partner that has cosigned more says so, and the ledger log has a successor from there on.
#[tokio::test]
async fn what_the_start_did_not_notice_the_partner_does() {
    let (mut producer, consumer, agreement) = partners(620, STREAM, 1000).await;
    producer.publish(STREAM, 1, 3).await.unwrap();
    let older = producer.disk.after_kill();
    read_all(&producer, &consumer, agreement).await;
    // It is cosigned, and the word is lost on the way: nothing here remembers it.
    show(&producer, &consumer, false).await;
    let first = current(&producer, &consumer);
    producer.go_back_to(older).await;
    assert_eq!(current(&producer, &consumer), first);
    let questions = producer.exchange.questions_for(consumer.authority());
    let question = questions
        .iter()
        .find(|question| question.origin == first.as_str())
        .unwrap();
    let state = consumer
        .exchange
        .log_state(&producer.at(&consumer), question)
        .await
        .unwrap();
    let heard = producer
        .exchange
        .hear(consumer.authority(), &first, &state)
        .unwrap();
    assert_eq!(heard, Heard::More { held: false });
    while current(&producer, &consumer) == first {
        tokio::task::yield_now().await;
    }
    let now = current(&producer, &consumer);
    let shown = show(&producer, &consumer, true).await;
    assert!(
        shown
            .iter()
            .any(|(one, status)| one.origin == now && *status == 200)
    );
    assert_eq!(consumer.records("fault").await, []);
    // After a restart it is the same one that is written.
    producer.restart().await;
    assert_eq!(current(&producer, &consumer), now);
}

/// A consumer that finds out while it reads signs nothing more into the series that it went on with: another copy of it may have.
#[tokio::test]
async fn a_series_ends_where_the_directory_turns_out_to_be_older() {
    let (producer, mut consumer, agreement) = partners(630, STREAM, 1000).await;
    producer.publish(STREAM, 1, 3).await.unwrap();
    let older = consumer.disk.after_kill();
    read_all(&producer, &consumer, agreement).await;
    show(&consumer, &producer, false).await;
    consumer.go_back_to(older).await;
    // The producer keeps to itself which receipts it holds.
    let mut consumption = Consumption::open(&consumer.exchange, agreement)
        .await
        .unwrap();
    let request = consumption.request();
    let peer = consumer.at(&producer);
    let opened = producer.exchange.open_delivery(&peer, &request).await;
    let (mut ready, delivery) = opened.unwrap();
    assert_eq!(std::mem::take(&mut ready.receipt_number), 1);
    let resent = consumption.begin(&ready).await.unwrap();
    let mut wire = Wire {
        delivery,
        consumption,
        resent,
        paused: None,
        ended: None,
    };
    wire.flow().await;
    let before = current(&consumer, &producer);
    let mut moved = consumer.exchange.ledger_moved();
    for question in consumer.exchange.questions_for(producer.authority()) {
        let origin = question.origin.parse().unwrap();
        let peer = consumer.at(&producer);
        let state = producer.exchange.log_state(&peer, &question).await.unwrap();
        let heard = consumer
            .exchange
            .hear(producer.authority(), &origin, &state);
        heard.unwrap();
    }
    while current(&consumer, &producer) == before {
        moved.changed().await.unwrap();
    }
    let refused = wire.consumption.sign_receipt().await.unwrap_err();
    assert!(refused.to_string().contains("new series"), "{refused}");
    drop(wire);
    read_all(&producer, &consumer, agreement).await;
    assert_eq!(producer.records("fault").await, []);
}
