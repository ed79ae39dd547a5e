//! The life of agreements between two nodes: asked for, granted, held, refused, countered; suspended and resumed; replaced; expired.

use std::time::Duration;

use countersign_event::agreement_state::{End, May, Name};
use countersign_event::documents::{
    AgreementId, Document as _, Plan, Plans, Proposal, RefusalCode, Side, Step, StepKind,
    SuspensionCause,
};
use countersign_event::dsse::Envelope;
use countersign_event::time::Timestamp;
use countersign_exchange::{
    ExchangeError, InviteOptions, ListedStream, OPEN_PROPOSALS_MAX, OnboardingError, RequestOptions,
};
use countersign_protocol::ListStreams;

use crate::support::*;

/// Grants the plan `free` at once, leaves others to a person, and forbids `wholesale`.
const SELF_SERVICE: &str = r#"
@id("see") permit (principal, action == Action::"discover", resource) when { resource.name != "hidden" };
@id("ask") @hold("a person decides") permit (principal, action == Action::"request", resource) when { principal.partner };
@id("free") permit (principal, action == Action::"request", resource) when { context has plan && context.plan == "free" };
@id("no") forbid (principal, action == Action::"request", resource) when { context has plan && context.plan == "wholesale" };
@id("read") permit (principal, action == Action::"read", resource) when { context has agreement && context.agreement.active };
@id("publish") permit (principal, action == Action::"publish", resource) when { principal.own };"#;

/// All that one side has to tell is told; what is refused is returned.
async fn tell(from: &Node, to: &Node) -> Vec<String> {
    let mut refused = Vec::new();
    for envelope in from.exchange.notices_for(to.authority()) {
        let peer = from.at(to);
        match to.exchange.take_notice(&peer, &envelope.to_json()).await {
            Ok(()) => {}
            Err(ExchangeError::Refused(no)) => refused.push(no.refusal.reason.clone()),
            Err(error) => panic!("{error}"),
        }
    }
    refused
}

/// Until neither has anything new to tell.
async fn exchange_notices(one: &Node, two: &Node) {
    for _ in 0..3 {
        assert_eq!(tell(one, two).await, Vec::<String>::new());
        assert_eq!(tell(two, one).await, Vec::<String>::new());
    }
}

fn tick(one: &Node, two: &Node) {
    for node in [one, two] {
        node.clock.advance(Duration::from_millis(1));
        node.exchange.note_time();
    }
}

fn name(node: &Node, id: AgreementId) -> Name {
    node.exchange.agreement_name(id).unwrap()
}

fn plan(name: &str) -> Plan {
    Plan {
        name: name.to_owned(),
        exposure_events: 10,
        ..Plan::default()
    }
}

fn options(producer: &Node, stream: &str, plan: Plan) -> RequestOptions {
    RequestOptions {
        partner: producer.authority().clone(),
        stream: producer.origin(stream),
        plan,
        from: None,
        until: None,
        purpose: Some("research".to_owned()),
        valid_for: Duration::from_secs(3600),
    }
}

/// Partners by an agreement on `s`; the producer offers `free`, `paid` and `wholesale` on `more`, and has a stream that nobody may see.
async fn market(seed: u64) -> (Node, Node, AgreementId) {
    let (producer, consumer, first) = partners(seed, "s", 10).await;
    for stream in ["more", "hidden"] {
        producer.create(stream).await;
    }
    let plans = Plans {
        plans: vec![plan("free"), plan("paid"), plan("wholesale")],
    };
    producer.exchange.set_plans("more", plans).await.unwrap();
    producer.set_policy(SELF_SERVICE).await;
    tick(&producer, &consumer);
    (producer, consumer, first)
}

#[tokio::test]
async fn a_request_that_policy_permits_is_an_agreement_at_once_and_read_from() {
    let (mut producer, mut consumer, _) = market(701).await;
    producer.publish("more", 1, 5).await.unwrap();
    let peer = consumer.at(&producer);
    let listed = producer
        .exchange
        .list_streams(&peer, &ListStreams {})
        .unwrap();
    let listed: Vec<ListedStream> = listed
        .streams
        .iter()
        .map(|stream| serde_json::from_slice(stream).unwrap())
        .collect();
    let names: Vec<_> = listed
        .iter()
        .map(|stream| stream.origin.to_string())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names.iter().all(|name| !name.contains("hidden")));
    let offered = listed[0].plans[0].clone();
    let id = consumer
        .exchange
        .propose(options(&producer, "more", offered))
        .await
        .unwrap();
    assert_eq!(name(&consumer, id), Name::Proposed);
    tick(&producer, &consumer);
    exchange_notices(&consumer, &producer).await;
    tick(&producer, &consumer);
    assert_eq!(name(&consumer, id), Name::Active);
    assert_eq!(name(&producer, id), Name::Active);
    let mut wire = Wire::open(&producer, &consumer, id).await;
    wire.pump().await;
    assert_eq!(wire.delivery.log().size(), 6);
    drop(wire);
    // The same after a restart, from the ledger.
    let before = [
        registry_text(&producer.exchange),
        registry_text(&consumer.exchange),
    ];
    producer.restart().await;
    consumer.restart().await;
    let after = [
        registry_text(&producer.exchange),
        registry_text(&consumer.exchange),
    ];
    assert_eq!(before, after);
    assert_eq!(name(&producer, id), Name::Active);
}

#[tokio::test]
async fn a_held_request_waits_for_a_person_across_a_restart() {
    let (mut producer, mut consumer, _) = market(702).await;
    let id = consumer
        .exchange
        .propose(options(&producer, "more", plan("paid")))
        .await
        .unwrap();
    tick(&producer, &consumer);
    exchange_notices(&consumer, &producer).await;
    assert_eq!(name(&producer, id), Name::Proposed);
    assert_eq!(producer.exchange.waiting_proposals(), 1);
    assert_eq!(consumer.exchange.waiting_proposals(), 0);
    producer.restart().await;
    consumer.restart().await;
    assert_eq!(producer.exchange.waiting_proposals(), 1);
    // Not the asker's to approve.
    let own = consumer.exchange.accept_proposal(id).await;
    assert!(matches!(own, Err(OnboardingError::NotNow { .. })));
    tick(&producer, &consumer);
    producer.exchange.accept_proposal(id).await.unwrap();
    assert_eq!(producer.exchange.waiting_proposals(), 0);
    producer.restart().await;
    assert_eq!(name(&producer, id), Name::Accepted);
    exchange_notices(&producer, &consumer).await;
    assert_eq!(name(&producer, id), Name::Active);
    assert_eq!(name(&consumer, id), Name::Active);
}

#[tokio::test]
async fn a_forbidden_request_and_a_hidden_stream_are_refused_with_the_reason() {
    let (producer, consumer, _) = market(703).await;
    let ask = |stream: &'static str, of: &'static str| {
        let options = options(&producer, stream, plan(of));
        let consumer = &consumer;
        async move { consumer.exchange.propose(options).await.unwrap() }
    };
    let forbidden = ask("more", "wholesale").await;
    let hidden = ask("hidden", "free").await;
    let missing = ask("missing", "free").await;
    tick(&producer, &consumer);
    exchange_notices(&consumer, &producer).await;
    let why = |id| {
        let entry = consumer.exchange.agreement_entry(id).unwrap();
        assert_eq!(entry.state.name, Name::Ended(End::Refused));
        assert_eq!(entry.state.cause.by.as_ref(), Some(producer.authority()));
        entry.state.cause.reason
    };
    assert!(
        why(forbidden).contains("forbidden by test/no"),
        "{}",
        why(forbidden)
    );
    assert_eq!(why(hidden).replace("hidden", "missing"), why(missing));
}

#[tokio::test]
async fn countering_goes_by_turns_until_one_accepts_or_withdraws() {
    let (producer, consumer, _) = market(704).await;
    let id = consumer
        .exchange
        .propose(options(&producer, "more", plan("paid")))
        .await
        .unwrap();
    tick(&producer, &consumer);
    exchange_notices(&consumer, &producer).await;
    let hour = Duration::from_secs(3600);
    let counter = producer
        .exchange
        .counter_proposal(id, Some(plan("free")), None, hour);
    counter.await.unwrap();
    let twice = producer
        .exchange
        .counter_proposal(id, None, None, hour)
        .await;
    assert!(matches!(twice, Err(OnboardingError::NotNow { .. })));
    exchange_notices(&producer, &consumer).await;
    assert_eq!(name(&consumer, id), Name::Countered);
    tick(&producer, &consumer);
    consumer.exchange.accept_proposal(id).await.unwrap();
    exchange_notices(&consumer, &producer).await;
    assert_eq!(name(&producer, id), Name::Active);
    assert_eq!(
        producer.exchange.agreement_entry(id).unwrap().plan.name,
        "free"
    );

    let other = consumer
        .exchange
        .propose(options(&producer, "s", plan("paid")))
        .await
        .unwrap();
    tick(&producer, &consumer);
    exchange_notices(&consumer, &producer).await;
    let back = consumer
        .exchange
        .step(other, StepKind::Withdraw, None, "no more");
    back.await.unwrap();
    tick(&producer, &consumer);
    // The other side has not heard of it, and accepts: nothing comes of that.
    producer.exchange.accept_proposal(other).await.unwrap();
    tell(&consumer, &producer).await;
    tell(&producer, &consumer).await;
    assert_eq!(name(&producer, other), Name::Ended(End::Withdrawn));
    assert_eq!(name(&consumer, other), Name::Ended(End::Withdrawn));
}

#[tokio::test]
async fn a_suspension_stops_at_the_signed_position_and_resuming_loses_nothing() {
    let (mut producer, mut consumer, id) = partners(705, "s", 10).await;
    producer.publish("s", 1, 40).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, id).await;
    wire.flow().await;
    wire.receipt().await.unwrap();
    // One batch is on its way when it happens.
    let (message, bulk) = wire.batch().await.unwrap();
    tick(&producer, &consumer);
    let cause = Some(SuspensionCause::Arrears);
    let step = producer
        .exchange
        .step(id, StepKind::Suspend, cause, "unpaid")
        .await
        .unwrap();
    let position = message.first + u64::from(message.count);
    assert_eq!(Step::peek(&step).unwrap().position, Some(position));
    assert!(wire.batch().await.is_none());
    let ended = wire.ended.clone().unwrap();
    assert_eq!(ended.refusal.code, RefusalCode::Suspended);
    assert_eq!(ended.refusal.position, Some(position));
    assert!(
        ended.refusal.reason.contains("arrears"),
        "{}",
        ended.refusal.reason
    );
    wire.take(message, bulk).await.unwrap();
    wire.settle().await;
    wire.receipt().await.unwrap();
    drop(wire);
    let refused = Wire::try_open(&producer, &consumer, id)
        .await
        .err()
        .unwrap();
    let ExchangeError::Refused(refused) = refused else {
        panic!("{refused}")
    };
    assert_eq!(refused.refusal.code, RefusalCode::Suspended);

    // Across a restart, and told to the other side, which cannot lift it.
    producer.restart().await;
    tell(&producer, &consumer).await;
    consumer.restart().await;
    for node in [&producer, &consumer] {
        assert_eq!(name(node, id), Name::Suspended);
    }
    let foreign = consumer.exchange.step(id, StepKind::Resume, None, "").await;
    assert!(matches!(foreign, Err(OnboardingError::NotNow { .. })));
    tick(&producer, &consumer);
    producer
        .exchange
        .step(id, StepKind::Resume, None, "paid")
        .await
        .unwrap();
    tell(&producer, &consumer).await;
    assert_eq!(name(&consumer, id), Name::Active);
    let mut wire = Wire::open(&producer, &consumer, id).await;
    wire.pump().await;
    let copy = consumer.exchange.log(&producer.origin("s")).unwrap();
    let log = producer.log("s");
    assert_eq!(
        stored(&consumer.exchange, &copy),
        stored(&producer.exchange, &log)
    );
    let rows = producer.rows_digest().await;
    std::fs::remove_file(producer.view_path()).unwrap();
    producer.restart().await;
    assert_eq!(producer.rows_digest().await, rows);
}

#[tokio::test]
async fn a_suspension_dated_ahead_of_the_clock_here_counts_when_its_time_comes() {
    let (producer, consumer, id) = partners(706, "s", 10).await;
    producer.publish("s", 1, 5).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, id).await;
    wire.pump().await;
    consumer.clock.advance(Duration::from_secs(5));
    let cause = Some(SuspensionCause::Dispute);
    consumer
        .exchange
        .step(id, StepKind::Suspend, cause, "")
        .await
        .unwrap();
    assert!(tell(&consumer, &producer).await.is_empty());
    assert_eq!(name(&producer, id), Name::Active);
    let access = producer.exchange.watch_access();
    producer.clock.advance(Duration::from_secs(5));
    producer.exchange.note_time();
    assert!(access.has_changed().unwrap());
    wire.delivery.recheck();
    producer.publish("s", 6, 5).await.unwrap();
    assert!(wire.batch().await.is_none());
    assert_eq!(wire.ended.unwrap().refusal.code, RefusalCode::Suspended);
    // More than ten minutes ahead is not taken.
    consumer.clock.advance(Duration::from_secs(700));
    consumer
        .exchange
        .step(id, StepKind::Resume, None, "")
        .await
        .unwrap();
    let refused = tell(&consumer, &producer).await;
    assert!(refused[0].contains("ten minutes"), "{refused:?}");
}

#[tokio::test]
async fn an_amendment_takes_over_without_a_lost_or_repeated_event() {
    let (producer, consumer, old) = partners(707, "s", 10).await;
    producer.publish("s", 1, 25).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, old).await;
    wire.flow().await;
    wire.receipt().await.unwrap();
    let (message, bulk) = wire.batch().await.unwrap();
    tick(&producer, &consumer);
    let amended = RequestOptions {
        partner: consumer.authority().clone(),
        ..options(&producer, "s", plan("better"))
    };
    let new = producer.exchange.propose(amended.clone()).await.unwrap();
    let again = producer.exchange.propose(amended).await;
    assert!(matches!(again, Err(OnboardingError::NotNow { .. })));
    exchange_notices(&producer, &consumer).await;
    // It waits for a person, and the old one goes on meanwhile.
    assert_eq!(name(&consumer, old), Name::Active);
    assert_eq!(consumer.exchange.waiting_proposals(), 1);
    tick(&producer, &consumer);
    consumer.exchange.accept_proposal(new).await.unwrap();
    exchange_notices(&consumer, &producer).await;
    for node in [&producer, &consumer] {
        assert_eq!(name(node, old), Name::Ended(End::Superseded));
        assert_eq!(name(node, new), Name::Active);
    }
    assert!(wire.batch().await.is_none());
    let position = message.first + u64::from(message.count);
    let ended = wire.ended.clone().unwrap();
    assert_eq!(ended.refusal.position, Some(position));
    // What was on its way is taken; the closing receipt ends the old series there.
    wire.take(message, bulk).await.unwrap();
    wire.settle().await;
    wire.receipt().await.unwrap();
    drop(wire);
    let mut wire = Wire::open(&producer, &consumer, new).await;
    wire.pump().await;
    let registry = producer.exchange.registry();
    let receipt = |id| {
        let mut last = registry.receipts.values().map(|last| &last.receipt);
        last.find(|receipt| receipt.agreement == id)
            .unwrap()
            .clone()
    };
    assert_eq!(receipt(old).size, position);
    assert_eq!(receipt(new).start, position);
    assert_eq!(receipt(old).events + receipt(new).events, 25);
    drop(registry);
    let copy = consumer.exchange.log(&producer.origin("s")).unwrap();
    let log = producer.log("s");
    assert_eq!(
        stored(&consumer.exchange, &copy),
        stored(&producer.exchange, &log)
    );
}

#[tokio::test]
async fn proposals_and_agreements_expire_by_themselves() {
    let (producer, consumer, _) = market(708).await;
    let id = consumer
        .exchange
        .propose(options(&producer, "more", plan("paid")))
        .await
        .unwrap();
    tick(&producer, &consumer);
    exchange_notices(&consumer, &producer).await;
    for node in [&producer, &consumer] {
        node.clock.advance(Duration::from_secs(3600));
        assert_eq!(name(node, id), Name::Ended(End::Expired));
    }
    assert_eq!(producer.exchange.waiting_proposals(), 0);
    let late = producer.exchange.accept_proposal(id).await;
    assert!(matches!(late, Err(OnboardingError::NotNow { .. })));

    let options = InviteOptions {
        until: Some(Timestamp(START.0 + 7200 * 1_000_000)),
        ..invite_options("more", Side::Producer, Plan::default())
    };
    let invitation = producer.exchange.invite(options).await.unwrap();
    let id = join(&invitation, &producer, &consumer).await.unwrap();
    assert_eq!(name(&producer, id), Name::Active);
    producer.clock.advance(Duration::from_secs(3600));
    assert_eq!(name(&producer, id), Name::Ended(End::Expired));
    let over = producer.exchange.terminate(id, "too late").await;
    assert!(matches!(over, Err(OnboardingError::NotNow { .. })));
}

#[tokio::test]
async fn an_acceptance_that_comes_after_the_deadline_is_not_countersigned() {
    let (producer, consumer, _) = market(709).await;
    let id = consumer
        .exchange
        .propose(options(&producer, "more", plan("paid")))
        .await
        .unwrap();
    tick(&producer, &consumer);
    exchange_notices(&consumer, &producer).await;
    producer.exchange.accept_proposal(id).await.unwrap();
    consumer.clock.advance(Duration::from_secs(3600));
    let refused = tell(&producer, &consumer).await;
    assert!(
        refused.iter().any(|why| why.contains("deadline")),
        "{refused:?}"
    );
    assert_eq!(name(&consumer, id), Name::Ended(End::Expired));
}

#[tokio::test]
async fn what_a_partner_may_begin_is_bounded() {
    let (producer, consumer, _) = market(710).await;
    for number in 0..=OPEN_PROPOSALS_MAX {
        let stream = format!("s{number}");
        producer.create(&stream).await;
        consumer
            .exchange
            .propose(options(&producer, &stream, plan("paid")))
            .await
            .unwrap();
    }
    tick(&producer, &consumer);
    let refused = tell(&consumer, &producer).await;
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(producer.exchange.waiting_proposals(), OPEN_PROPOSALS_MAX);
    // A stranger may begin nothing, and learns of no stream.
    let stranger = Node::new(9710, "Stranger").await;
    let peer = stranger.at(&producer);
    assert!(
        producer
            .exchange
            .list_streams(&peer, &ListStreams {})
            .is_err()
    );
}

#[tokio::test]
async fn what_a_side_may_do_is_what_its_node_does() {
    let (producer, consumer, id) = partners(711, "s", 10).await;
    let entry = producer.exchange.agreement_entry(id).unwrap();
    assert!(entry.state.may(producer.authority(), May::Suspend));
    assert!(!entry.state.may(producer.authority(), May::Resume));
    let none = producer.exchange.step(id, StepKind::Resume, None, "").await;
    assert!(matches!(none, Err(OnboardingError::NotNow { .. })));
    tick(&producer, &consumer);
    let done = consumer
        .exchange
        .step(id, StepKind::Complete, None, "all read")
        .await;
    done.unwrap();
    tell(&consumer, &producer).await;
    for node in [&producer, &consumer] {
        assert_eq!(name(node, id), Name::Ended(End::Completed));
    }
}

/// Why a document that somebody signed by hand is refused.
async fn refused(from: &Node, to: &Node, document: &Envelope) -> String {
    let peer = from.at(to);
    match to.exchange.take_notice(&peer, &document.to_json()).await {
        Err(ExchangeError::Refused(no)) => no.refusal.reason.clone(),
        other => panic!("{other:?}"),
    }
}

/// Signed with the right keys, by a side that would rather not be bound.
#[tokio::test]
async fn a_document_dated_back_undoes_no_agreement() {
    let (mut producer, mut consumer, invited) = market(712).await;
    let id = consumer
        .exchange
        .propose(options(&producer, "more", plan("free")))
        .await
        .unwrap();
    tick(&producer, &consumer);
    exchange_notices(&consumer, &producer).await;
    tick(&producer, &consumer);
    let terms = |id| {
        producer.exchange.registry().agreements[&id]
            .agreement
            .clone()
    };
    let (agreed, joined) = (terms(id), terms(invited));
    let just_before = Timestamp(agreed.made.0 - 1);
    let step = |kind, by: &Node| Step {
        agreement: id,
        stream: agreed.stream.clone(),
        step: kind,
        on: agreed.accepts.unwrap(),
        by: by.authority().clone(),
        cause: None,
        reason: String::new(),
        position: None,
        made: just_before,
    };
    let first = |by: &Node| Proposal {
        agreement: invited,
        round: 1,
        answers: None,
        by: by.authority().clone(),
        producer: joined.producer.clone(),
        consumer: joined.consumer.clone(),
        stream: joined.stream.clone(),
        plan: joined.plan.clone(),
        from: None,
        until: None,
        supersedes: None,
        purpose: None,
        valid_until: Timestamp(joined.made.0 + 3_600_000_000),
        made: Timestamp(joined.made.0 - 1),
    };
    let pairs = [
        (&consumer, &producer, StepKind::Withdraw),
        (&producer, &consumer, StepKind::Refuse),
    ];
    for (from, to, kind) in pairs {
        let signer = &from.org.identity.agreement_key;
        let documents = [step(kind, from).sign(signer), first(from).sign(signer)];
        for document in documents {
            let why = refused(from, to, &document).await;
            assert!(why.contains("nothing of the kind"), "{why}");
        }
    }
    producer.restart().await;
    consumer.restart().await;
    for node in [&producer, &consumer] {
        assert_eq!(name(node, id), Name::Active);
        assert_eq!(name(node, invited), Name::Active);
    }
}
