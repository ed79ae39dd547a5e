//! Invitations and joins: two signatures under one payload, whoever invites and whatever is lost on the way.

use std::time::Duration;

use countersign_event::documents::{Agreement, Document as _, Plan, RefusalCode, Side};
use countersign_event::dsse::Envelope;
use countersign_event::ledger::LedgerRecord;
use countersign_event::time::Timestamp;
use countersign_exchange::{ExchangeError, InviteOptions, OnboardingError, Refused};
use countersign_protocol::invitation::Invitation;
use countersign_protocol::{JoinAccept, JoinTerms};

use crate::support::*;

fn refused<T: std::fmt::Debug>(result: Result<T, ExchangeError>) -> Refused {
    match result {
        Err(ExchangeError::Refused(refused)) => *refused,
        other => panic!("{other:?}"),
    }
}

async fn producer_and_other() -> (Node, Node) {
    let producer = Node::new(501, "Producer").await;
    producer.create("s").await;
    (producer, Node::new(502, "Other").await)
}

fn options() -> InviteOptions {
    invite_options("s", Side::Producer, Plan::default())
}

/// The steps that the inviter recorded: step and key.
async fn steps(node: &Node) -> Vec<(String, String)> {
    let records = node.records("invitation-step").await;
    let step = |record| match record {
        LedgerRecord::InvitationStep {
            step, organization, ..
        } => (step, organization.fingerprint().to_string()),
        other => panic!("{other:?}"),
    };
    records.into_iter().map(step).collect()
}

fn fingerprint(node: &Node) -> String {
    node.org.key.public().fingerprint().to_string()
}

async fn terms(
    invitation: &Invitation,
    inviter: &Node,
    joiner: &Node,
) -> Result<JoinTerms, ExchangeError> {
    let query = join_query(invitation, joiner);
    let peer = joiner.at(inviter);
    inviter.exchange.join_terms(&peer, &query, &EXPORTER).await
}

fn accepted(payload: Vec<u8>, by: &Node) -> Envelope {
    Envelope::sign(
        Agreement::PAYLOAD_TYPE,
        payload,
        &by.org.identity.agreement_key,
    )
}

#[tokio::test]
async fn either_side_invites_and_both_hold_one_payload_under_two_signatures() {
    for side in [Side::Producer, Side::Consumer] {
        let (producer, consumer) = producer_and_other().await;
        let (mut inviter, mut joiner) = match side {
            Side::Producer => (producer, consumer),
            Side::Consumer => (consumer, producer),
        };
        let invitation = inviter.invite("s", side, Plan::default()).await;
        let invitation: Invitation = invitation.to_link().parse().unwrap();
        let id = join(&invitation, &inviter, &joiner).await.unwrap();
        for round in 0..2 {
            let envelope = |node: &Node| node.exchange.registry().agreements[&id].envelope.clone();
            assert_eq!(envelope(&inviter), envelope(&joiner));
            let envelope = envelope(&inviter);
            assert_eq!(envelope.signatures().len(), 2);
            for node in [&inviter, &joiner] {
                let key = node.org.identity.agreement_key.public();
                let agreement = Agreement::open(&envelope, &key).unwrap();
                let (producer, consumer) = match side {
                    Side::Producer => (&inviter, &joiner),
                    Side::Consumer => (&joiner, &inviter),
                };
                assert_eq!(agreement.stream, producer.origin("s"));
                assert_eq!(agreement.consumer, consumer.exchange.identity().party());
            }
            if round == 0 {
                inviter.kill().await;
                joiner.kill().await;
            }
        }
    }
}

#[tokio::test]
async fn joining_again_gives_the_same_bytes_and_another_key_is_refused_and_recorded() {
    let (mut producer, consumer) = producer_and_other().await;
    let thief = Node::new(503, "Thief").await;
    let invitation = producer.invite("s", Side::Producer, Plan::default()).await;
    let id = join(&invitation, &producer, &consumer).await.unwrap();
    let first = producer.exchange.registry().agreements[&id]
        .envelope
        .to_json();
    for round in 0..2 {
        let again = terms(&invitation, &producer, &consumer).await.unwrap();
        assert_eq!(again.done, first);
        assert_eq!(join(&invitation, &producer, &consumer).await.unwrap(), id);
        let refused = refused(terms(&invitation, &producer, &thief).await);
        assert_eq!(refused.refusal.code, RefusalCode::InvitationUsed);
        if round == 0 {
            producer.restart().await;
        }
    }
    let steps = steps(&producer).await;
    let count = |step: &str, node: &Node| {
        let wanted = (step.to_owned(), fingerprint(node));
        steps.iter().filter(|step| **step == wanted).count()
    };
    assert_eq!(count("redeemed", &consumer), 1);
    assert_eq!(count("refused", &thief), 2);
    assert_eq!(producer.records("agreement").await.len(), 1);
    assert_eq!(producer.exchange.registry().agreements.len(), 1);
    // Expiry does not take back what was redeemed.
    producer.clock.advance(Duration::from_secs(7200));
    assert!(terms(&invitation, &producer, &consumer).await.is_ok());
}

#[tokio::test]
async fn an_expired_invitation_is_refused_from_its_last_moment_on() {
    let (producer, consumer) = producer_and_other().await;
    let invitation = producer.invite("s", Side::Producer, Plan::default()).await;
    let expires = Timestamp(invitation.expires * 1_000_000);
    producer
        .clock
        .advance(Duration::from_micros(expires.0 - START.0 - 1));
    assert!(terms(&invitation, &producer, &consumer).await.is_ok());
    producer.clock.advance(Duration::from_micros(1));
    let refused = refused(terms(&invitation, &producer, &consumer).await);
    assert_eq!(refused.refusal.code, RefusalCode::InvitationExpired);
    assert!(producer.exchange.registry().agreements.is_empty());
}

#[tokio::test]
async fn a_link_for_one_key_admits_no_other() {
    let (producer, consumer) = producer_and_other().await;
    let other = Node::new(504, "Somebody").await;
    let options = InviteOptions {
        for_key: Some(consumer.org.key.public().fingerprint()),
        ..options()
    };
    let invitation = producer.exchange.invite(options).await.unwrap();
    let refused = refused(join(&invitation, &producer, &other).await);
    assert_eq!(refused.refusal.code, RefusalCode::InvitationUsed);
    assert_eq!(
        steps(&producer).await,
        [("refused".to_owned(), fingerprint(&other))]
    );
    join(&invitation, &producer, &consumer).await.unwrap();
}

#[tokio::test]
async fn a_link_to_be_confirmed_waits_for_a_person_and_then_admits_that_key_only() {
    let (mut producer, consumer) = producer_and_other().await;
    let options = InviteOptions {
        confirm: true,
        ..options()
    };
    let invitation = producer.exchange.invite(options).await.unwrap();
    let id = invitation.id_hex();
    assert!(matches!(
        producer.exchange.confirm_join(&id).await,
        Err(OnboardingError::Unknown { .. })
    ));
    let pending = refused(join(&invitation, &producer, &consumer).await);
    assert_eq!(pending.refusal.code, RefusalCode::Pending);
    assert!(pending.retry_after_ms > 0);
    producer.kill().await;
    let confirmed = producer.exchange.confirm_join(&id).await.unwrap();
    assert_eq!(confirmed, *consumer.authority());
    let other = Node::new(505, "Somebody").await;
    let still = refused(join(&invitation, &producer, &other).await);
    assert_eq!(still.refusal.code, RefusalCode::Pending);
    producer.restart().await;
    join(&invitation, &producer, &consumer).await.unwrap();
}

#[tokio::test]
async fn an_altered_proof_is_answered_like_an_unknown_invitation() {
    let (producer, consumer) = producer_and_other().await;
    let other = Node::new(506, "Somebody").await;
    let invitation = producer.invite("s", Side::Producer, Plan::default()).await;
    let good = join_query(&invitation, &consumer);
    let peer = consumer.at(&producer);
    let ask = async |peer: &_, query: &_, exporter: &_| {
        refused(producer.exchange.join_terms(peer, query, exporter).await).refusal
    };
    let mut wrong = Vec::new();
    for at in [0, 31, 32, 63] {
        let mut query = good.clone();
        query.proof[at] ^= 1;
        wrong.push(ask(&peer, &query, &EXPORTER).await);
    }
    let mut short = good.clone();
    short.proof.pop();
    wrong.push(ask(&peer, &short, &EXPORTER).await);
    let mut unknown = good.clone();
    unknown.invitation[0] ^= 1;
    wrong.push(ask(&peer, &unknown, &EXPORTER).await);
    wrong.push(ask(&peer, &good, &[8; 32]).await);
    wrong.push(ask(&other.at(&producer), &good, &EXPORTER).await);
    for refusal in &wrong {
        assert_eq!(refusal.code, RefusalCode::NotFound);
        assert_eq!(refusal.reason, wrong[0].reason);
    }
    assert!(steps(&producer).await.is_empty());
    join(&invitation, &producer, &consumer).await.unwrap();
}

#[tokio::test]
async fn altered_words_and_missing_or_foreign_signatures_are_refused() {
    let (producer, consumer) = producer_and_other().await;
    let other = Node::new(507, "Somebody").await;
    let invitation = producer.invite("s", Side::Producer, Plan::default()).await;
    let peer = consumer.at(&producer);
    let query = join_query(&invitation, &consumer);
    let payload = terms(&invitation, &producer, &consumer)
        .await
        .unwrap()
        .agreement;
    let mut agreement: Agreement = serde_json::from_slice(&payload).unwrap();
    agreement.plan.exposure_events += 1;
    let mut spaced = payload.clone();
    spaced.push(b' ');
    let type_changed = Envelope::sign(
        "application/vnd.countersign.receipt.v1+json",
        payload.clone(),
        &consumer.org.identity.agreement_key,
    );
    let wrong_role = Envelope::sign(
        Agreement::PAYLOAD_TYPE,
        payload.clone(),
        &consumer.org.identity.node_key,
    );
    let wrong = [
        accepted(agreement.to_payload(), &consumer).to_json(),
        accepted(spaced, &consumer).to_json(),
        accepted(payload.clone(), &other).to_json(),
        type_changed.to_json(),
        wrong_role.to_json(),
        b"{}".to_vec(),
        Vec::new(),
    ];
    for envelope in wrong {
        let accept = JoinAccept { envelope };
        let result = producer
            .exchange
            .join_accept(&peer, &query, &EXPORTER, &accept)
            .await;
        assert_eq!(refused(result).refusal.code, RefusalCode::Malformed);
        assert!(producer.exchange.registry().agreements.is_empty());
    }
    // The joiner does not take one without the inviter's signature either, nor one with other parties.
    let half = accepted(payload, &consumer);
    let identity = producer.exchange.identity();
    let hold = async |envelope: &Envelope, of: &Node| {
        let identity = of.exchange.identity();
        consumer
            .exchange
            .hold_agreement(
                &identity.statement,
                &identity.envelope,
                envelope,
                Vec::new(),
                None,
            )
            .await
    };
    assert!(matches!(
        hold(&half, &producer).await,
        Err(OnboardingError::Agreement { .. })
    ));
    let mut whole = half;
    whole.add_signature(&identity.agreement_key);
    let mut foreign = whole.clone();
    foreign.add_signature(&other.org.identity.agreement_key);
    assert!(matches!(
        hold(&foreign, &other).await,
        Err(OnboardingError::Agreement { .. })
    ));
    assert!(consumer.exchange.registry().agreements.is_empty());
    hold(&whole, &producer).await.unwrap();
}

#[tokio::test]
async fn a_crash_between_the_signatures_heals_by_joining_again() {
    let (mut producer, consumer) = producer_and_other().await;
    let invitation = producer.invite("s", Side::Producer, Plan::default()).await;
    let query = join_query(&invitation, &consumer);
    let payload = terms(&invitation, &producer, &consumer)
        .await
        .unwrap()
        .agreement;
    let accept = JoinAccept {
        envelope: accepted(payload, &consumer).to_json(),
    };
    let peer = consumer.at(&producer);
    let lost = producer
        .exchange
        .join_accept(&peer, &query, &EXPORTER, &accept)
        .await
        .unwrap();
    // The answer never arrives, and the producer's power fails.
    producer.lose_power(3).await;
    assert!(consumer.exchange.registry().agreements.is_empty());
    let again = terms(&invitation, &producer, &consumer).await.unwrap();
    assert_eq!(again.done, lost.envelope);
    let id = join(&invitation, &producer, &consumer).await.unwrap();
    let held = consumer.exchange.registry().agreements[&id]
        .envelope
        .to_json();
    assert_eq!(held, lost.envelope);
}

#[tokio::test]
async fn an_organization_joins_neither_itself_nor_under_a_name_that_another_key_has() {
    let domain: countersign_event::names::Authority = "farm.example".parse().unwrap();
    let key = Org::new(520, "x").key;
    let first = Org::with_authority(520, "Farm", domain.clone(), key.clone(), 2);
    let consumer = Node::with(first, 520, NodeOptions::default()).await;
    let (producer, _) = producer_and_other().await;
    let invitation = producer.invite("s", Side::Producer, Plan::default()).await;
    let own = refused(terms(&invitation, &producer, &producer).await);
    assert_eq!(own.refusal.code, RefusalCode::WrongIdentity);
    join(&invitation, &producer, &consumer).await.unwrap();
    // Another key under the same name, and an older statement of the right key: refused before anything else is looked at.
    let impostor = Org::with_authority(521, "Farm", domain.clone(), Org::new(521, "x").key, 9);
    let impostor = Node::with(impostor, 521, NodeOptions::default()).await;
    assert!(impostor.try_at(&producer).is_err());
    let older = Org::with_authority(522, "Farm", domain.clone(), key.clone(), 1);
    let older = Node::with(older, 522, NodeOptions::default()).await;
    assert!(older.try_at(&producer).is_err());
    let newer = Org::with_authority(523, "Farm", domain.clone(), key, 3);
    let newer = Node::with(newer, 523, NodeOptions::default()).await;
    let peer = newer.at(&producer);
    producer.exchange.note_partner(&peer).await.unwrap();
    // The keys of the statement before are not delegated any more.
    assert!(consumer.try_at(&producer).is_err());
    assert!(newer.try_at(&producer).is_ok());
}

#[tokio::test]
async fn one_is_not_ones_own_partner() {
    let (producer, _, _) = partners(530, "s", 10).await;
    let registry = producer.exchange.registry();
    assert!(!registry.partners.contains_key(producer.authority()));
    assert_eq!(registry.partners.len(), 1);
}
