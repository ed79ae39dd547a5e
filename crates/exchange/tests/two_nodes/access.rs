//! Who may: denied by default, the same answer for what is hidden and what is not there, and an end at a named position.

use std::sync::Arc;
use std::time::Duration;

use countersign_event::documents::{
    AgreementId, Document as _, Plan, Receipt, Refusal, RefusalCode, Side,
};
use countersign_event::ledger::LedgerRecord;
use countersign_event::time::Timestamp;
use countersign_exchange::{ExchangeError, InviteOptions, OnboardingError, Refused};
use countersign_protocol::{AskPolicy, PolicyAnswer, PublishOpen, StartAt};

use crate::support::*;

const READ_ONLY: &str = r#"@id("read") permit (principal, action == Action::"read", resource)
when { context has agreement && context.agreement.active };"#;
const DISCOVER_ONLY: &str = r#"@id("see") permit (principal, action == Action::"discover", resource);
@id("own") permit (principal, action == Action::"publish", resource) when { principal.own };"#;

fn refused<T>(result: Result<T, ExchangeError>) -> Refused {
    match result {
        Err(ExchangeError::Refused(refused)) => *refused,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was permitted"),
    }
}

async fn ask(producer: &Node, by: &Node, stream: &str, agreement: AgreementId) -> Refused {
    let request = subscribe_at(producer, stream, agreement, StartAt::Sequence(0));
    let peer = by.at(producer);
    refused(producer.exchange.open_delivery(&peer, &request).await)
}

/// A refusal is signed by the producer's agreement key, and says what its fields say.
fn check_signed(refused: &Refused, by: &Node) {
    let key = by.org.identity.agreement_key.public();
    assert_eq!(
        Refusal::open(&refused.envelope, &key).unwrap(),
        refused.refusal
    );
    let message = refused.message();
    assert_eq!(message.refusal, refused.envelope.to_json());
    assert_eq!(message.reason, refused.refusal.reason);
}

async fn decisions(node: &Node, wanted: &str) -> Vec<bool> {
    let records = node.records("decision").await;
    let answer = |record| match record {
        LedgerRecord::Decision {
            action, allowed, ..
        } if action == wanted => Some(allowed),
        _ => None,
    };
    records.into_iter().filter_map(answer).collect()
}

#[tokio::test]
async fn without_a_policy_that_permits_it_reading_is_refused_with_a_signed_reason() {
    let (producer, consumer, agreement) = partners(201, "s", 10).await;
    producer.publish("s", 1, 5).await.unwrap();
    producer.set_policy(DISCOVER_ONLY).await;
    let no = ask(&producer, &consumer, "s", agreement).await;
    assert_eq!(no.refusal.code, RefusalCode::NotPermitted);
    assert_eq!(no.refusal.principal.as_ref(), Some(consumer.authority()));
    check_signed(&no, &producer);
    assert_eq!(decisions(&producer, "read").await, [false]);
    assert_eq!(producer.records("refusal").await.len(), 1);
    producer.set_policy("").await;
    let no = ask(&producer, &consumer, "s", agreement).await;
    assert_eq!(no.refusal.code, RefusalCode::NotFound);
    producer.set_policy(STARTER).await;
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    assert_eq!(decisions(&producer, "read").await, [false, true]);
}

#[tokio::test]
async fn what_one_may_not_discover_is_answered_like_what_does_not_exist() {
    let (producer, consumer, agreement) = partners(202, "s", 10).await;
    let stranger = Node::new(9202, "Stranger").await;
    let same = |there: &Refused, not_there: &Refused| {
        let mut hidden = there.refusal.clone();
        hidden.about = hidden.about.replace("/streams/s", "/streams/none");
        hidden.reason = hidden.reason.replace("/streams/s", "/streams/none");
        hidden.made = not_there.refusal.made;
        assert_eq!(hidden, not_there.refusal);
        assert_eq!(there.retry_after_ms, not_there.retry_after_ms);
    };
    for id in [agreement, AgreementId([3; 16])] {
        let there = ask(&producer, &stranger, "s", id).await;
        let not_there = ask(&producer, &stranger, "none", id).await;
        assert_eq!(there.refusal.code, RefusalCode::NotFound);
        check_signed(&there, &producer);
        same(&there, &not_there);
    }
    // Strangers are counted, not logged.
    let wait = producer.exchange.refused_strangers();
    assert_eq!(wait, 4);
    assert!(producer.records("refusal").await.is_empty());
    assert!(decisions(&producer, "discover").await.is_empty());
    // A partner that may read but not see: the same answer, and the full reason in our ledger.
    producer.set_policy(READ_ONLY).await;
    let there = ask(&producer, &consumer, "s", agreement).await;
    let not_there = ask(&producer, &consumer, "none", agreement).await;
    assert_eq!(there.refusal.code, RefusalCode::NotFound);
    same(&there, &not_there);
    assert_eq!(decisions(&producer, "discover").await, [false]);
}

#[tokio::test]
async fn a_stranger_that_publishes_learns_and_logs_nothing() {
    let producer = Node::new(203, "Producer").await;
    producer.create("s").await;
    let stranger = Node::new(9203, "Stranger").await;
    let peer = stranger.at(&producer);
    let mut answers = Vec::new();
    for (stream, create) in [("s", false), ("none", false), ("s", true), ("none", true)] {
        let open = PublishOpen {
            stream: stream.to_owned(),
            series: [1; 16],
            create,
        };
        let no = refused(producer.exchange.open_publish(&peer, &open).await);
        let mut refusal = no.refusal.clone();
        refusal.about = refusal.about.replace("streams/none", "streams/s");
        refusal.reason = refusal.reason.replace("streams/none", "streams/s");
        answers.push(refusal);
    }
    assert!(
        answers.windows(2).all(|pair| pair[0] == pair[1]),
        "{answers:?}"
    );
    assert_eq!(answers[0].code, RefusalCode::NotFound);
    assert!(decisions(&producer, "publish").await.is_empty());
    assert_eq!(producer.exchange.refused_strangers(), 4);
    assert!(producer.exchange.log(&producer.origin("none")).is_none());
}

/// What happens while a subscription runs, and the code it ends with.
async fn ends_at_a_position(seed: u64, event: &str, code: RefusalCode) {
    let (mut producer, consumer, agreement) = partners(seed, "s", 10).await;
    producer.publish("s", 1, 40).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.flow().await;
    wire.receipt().await.unwrap();
    // One batch is on its way when it happens.
    let (message, bulk) = wire.batch().await.unwrap();
    let access = producer.exchange.watch_access();
    let mut expected_position = None;
    match event {
        "terminate" => {
            let end = producer
                .exchange
                .terminate(agreement, "enough")
                .await
                .unwrap();
            let end = countersign_event::documents::Termination::peek(&end).unwrap();
            expected_position = end.position;
        }
        "revoke" => {
            producer.exchange.revoke("Consumer", "why").await.unwrap();
        }
        "policy" => producer.set_policy(DISCOVER_ONLY).await,
        "notice" => {
            let end = consumer
                .exchange
                .terminate(agreement, "enough")
                .await
                .unwrap();
            let peer = consumer.at(&producer);
            producer
                .exchange
                .take_notice(&peer, &end.to_json())
                .await
                .unwrap();
        }
        other => panic!("{other}"),
    }
    assert!(access.has_changed().unwrap());
    wire.delivery.recheck();
    assert!(wire.batch().await.is_none());
    let ended = wire.ended.clone().unwrap();
    assert_eq!(ended.refusal.code, code, "{event}");
    let position = message.first + u64::from(message.count);
    assert_eq!(ended.refusal.position, Some(position));
    if event == "terminate" {
        assert_eq!(expected_position, Some(position));
    }
    check_signed(&ended, &producer);
    // Asked again, and with more in the log: nothing but the same end.
    producer.publish("s", 41, 5).await.unwrap();
    wire.delivery.recheck();
    assert!(wire.batch().await.is_none());
    assert!(Arc::ptr_eq(&ended, wire.ended.as_ref().unwrap()));
    // What was on its way is taken and receipted: closing receipts are accepted.
    wire.take(message, bulk).await.unwrap();
    wire.settle().await;
    let receipt = wire.sign().await.unwrap();
    wire.send(&receipt).await.unwrap();
    assert_eq!(Receipt::peek(&receipt).unwrap().size, position);
    for restarted in [false, true] {
        if restarted {
            producer.options.policy = match event {
                "policy" => DISCOVER_ONLY.to_owned(),
                _ => STARTER.to_owned(),
            };
            producer.kill().await;
        }
        let again = Wire::try_open(&producer, &consumer, agreement).await;
        refused(again);
    }
    assert!(*decisions(&producer, "read").await.first().unwrap());
}

#[tokio::test]
async fn an_agreement_ended_here_stops_a_running_subscription_at_a_signed_position() {
    ends_at_a_position(211, "terminate", RefusalCode::NoAgreement).await;
}

#[tokio::test]
async fn an_agreement_ended_by_the_partner_stops_a_running_subscription() {
    ends_at_a_position(212, "notice", RefusalCode::NoAgreement).await;
}

#[tokio::test]
async fn a_revocation_stops_a_running_subscription() {
    ends_at_a_position(213, "revoke", RefusalCode::NoAgreement).await;
}

#[tokio::test]
async fn a_changed_policy_stops_a_running_subscription() {
    ends_at_a_position(214, "policy", RefusalCode::NotPermitted).await;
}

#[tokio::test]
async fn a_change_that_leaves_reading_permitted_ends_nothing() {
    let (producer, consumer, agreement) = partners(215, "s", 1000).await;
    producer.publish("s", 1, 10).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    producer
        .set_policy(&format!("{STARTER}\n// another text"))
        .await;
    wire.delivery.recheck();
    producer.publish("s", 11, 10).await.unwrap();
    wire.pump().await;
    assert!(wire.ended.is_none());
    assert_eq!(consumer.exchange.statuses()[0].position, 21);
}

#[tokio::test]
async fn an_agreement_that_runs_out_ends_the_subscription_by_the_clock_alone() {
    let producer = Node::new(216, "Producer").await;
    let consumer = Node::new(9216, "Consumer").await;
    producer.create("s").await;
    let options = InviteOptions {
        until: Some(Timestamp(START.0 + 60_000_000)),
        ..invite_options("s", Side::Producer, Plan::default())
    };
    let invitation = producer.exchange.invite(options).await.unwrap();
    let agreement = join(&invitation, &producer, &consumer).await.unwrap();
    producer.publish("s", 1, 5).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    let access = producer.exchange.watch_access();
    producer.clock.advance(Duration::from_micros(59_999_999));
    producer.exchange.note_time();
    assert!(!access.has_changed().unwrap());
    wire.delivery.recheck();
    assert!(wire.batch().await.is_none() && wire.ended.is_none());
    producer.clock.advance(Duration::from_micros(1));
    producer.exchange.note_time();
    assert!(access.has_changed().unwrap());
    wire.delivery.recheck();
    producer.publish("s", 6, 5).await.unwrap();
    assert!(wire.batch().await.is_none());
    let ended = wire.ended.take().unwrap();
    assert_eq!(ended.refusal.code, RefusalCode::NoAgreement);
    assert_eq!(ended.refusal.position, Some(6));
}

#[tokio::test]
async fn time_wakes_nobody_but_where_an_agreement_ends() {
    let producer = Node::new(220, "Producer").await;
    let consumer = Node::new(9220, "Consumer").await;
    producer.create("s").await;
    let options = InviteOptions {
        until: Some(Timestamp(START.0 + 60_000_000)),
        ..invite_options("s", Side::Producer, Plan::default())
    };
    let invitation = producer.exchange.invite(options).await.unwrap();
    join(&invitation, &producer, &consumer).await.unwrap();
    let mut access = producer.exchange.watch_access();
    let generation = producer.exchange.access_generation();
    // Both within one look, as after a pause, count as well.
    for (seconds, wakes) in [(59, false), (1, true), (1, false), (3_600, false)] {
        producer.clock.advance(Duration::from_secs(seconds));
        producer.exchange.note_time();
        assert_eq!(access.has_changed().unwrap(), wakes);
        access.mark_unchanged();
    }
    assert_eq!(producer.exchange.access_generation(), generation);
}

#[tokio::test]
async fn a_policy_with_a_time_in_it_is_asked_again_as_time_passes() {
    let (producer, consumer, agreement) = partners(217, "s", 1000).await;
    let until = Timestamp(START.0 + 60_000_000).to_rfc3339();
    let timed = format!(
        "{DISCOVER_ONLY}\n@id(\"timed\") permit (principal, action == Action::\"read\", resource) when {{ context.now < datetime(\"{}\") }};",
        until.replace(".000000", "")
    );
    producer.set_policy(&timed).await;
    assert!(producer.exchange.policies().mentions_time());
    producer.publish("s", 1, 5).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    producer.clock.advance(Duration::from_secs(59));
    wire.delivery.recheck();
    assert!(wire.batch().await.is_none() && wire.ended.is_none());
    let access = producer.exchange.watch_access();
    producer.clock.advance(Duration::from_secs(1));
    producer.exchange.note_time();
    assert!(access.has_changed().unwrap());
    wire.delivery.recheck();
    assert!(wire.batch().await.is_none());
    let ended = wire.ended.take().unwrap();
    assert_eq!(ended.refusal.code, RefusalCode::NotPermitted);
}

#[tokio::test]
async fn a_revocation_while_the_decision_is_written_is_seen() {
    let (producer, consumer, agreement) = partners(218, "s", 1000).await;
    producer.publish("s", 1, 5).await.unwrap();
    let request = subscribe_at(&producer, "s", agreement, StartAt::Sequence(0));
    let peer = consumer.at(&producer);
    let (opened, revoked) = tokio::join!(
        producer.exchange.open_delivery(&peer, &request),
        producer.exchange.revoke("Consumer", "why"),
    );
    revoked.unwrap();
    let (_, delivery) = opened.unwrap();
    delivery.recheck();
    let next = next_now(&delivery).await;
    assert!(
        matches!(
            next,
            Some(countersign_exchange::pipeline::deliver::Next::Ended(_))
        ),
        "{next:?}"
    );
}

#[tokio::test]
async fn a_revoked_partner_is_readmitted_by_a_new_agreement_and_old_ones_stay_ended() {
    let (mut producer, consumer, old) = partners(219, "s", 10).await;
    producer.create("t").await;
    let other = producer.invite("t", Side::Producer, Plan::default()).await;
    let old_other = join(&other, &producer, &consumer).await.unwrap();
    producer.publish("s", 1, 5).await.unwrap();
    producer.publish("t", 1, 5).await.unwrap();
    producer.exchange.revoke("Consumer", "why").await.unwrap();
    ask(&producer, &consumer, "s", old).await;
    let invitation = producer.invite("s", Side::Producer, Plan::default()).await;
    let new = join(&invitation, &producer, &consumer).await.unwrap();
    for restarted in [false, true] {
        if restarted {
            producer.kill().await;
        }
        let mut wire = Wire::open(&producer, &consumer, new).await;
        wire.pump().await;
        for (stream, ended) in [("s", old), ("t", old_other)] {
            let no = ask(&producer, &consumer, stream, ended).await;
            assert_eq!(no.refusal.code, RefusalCode::NotPermitted);
        }
    }
    let log = consumer.exchange.log(&producer.origin("s")).unwrap();
    assert_eq!(log.size(), 6);
}

#[tokio::test]
async fn anothers_agreement_is_no_credential() {
    let (producer, consumer, agreement) = partners(220, "s", 10).await;
    let thief = Node::new(9220, "Thief").await;
    producer.create("t").await;
    let other = producer.invite("t", Side::Producer, Plan::default()).await;
    let own = join(&other, &producer, &thief).await.unwrap();
    producer.publish("s", 1, 5).await.unwrap();
    // A partner that may discover the stream, with the other's agreement, with one on another stream, with none.
    for id in [agreement, own, AgreementId([0; 16])] {
        let no = ask(&producer, &thief, "s", id).await;
        assert_eq!(no.refusal.code, RefusalCode::NotPermitted);
    }
    let no = ask(&producer, &consumer, "t", agreement).await;
    assert_eq!(no.refusal.code, RefusalCode::NotPermitted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_handed_out_at_or_above_the_signed_position_however_it_races() {
    use countersign_exchange::pipeline::deliver::Next;
    let (producer, consumer, agreement) = partners(221, "s", 1).await;
    producer.publish("s", 1, 3).await.unwrap();
    for round in 0..40 {
        let mut request = subscribe_at(&producer, "s", agreement, StartAt::Sequence(0));
        request.series = [round; 16];
        let peer = consumer.at(&producer);
        producer.set_policy(STARTER).await;
        let (_, delivery) = producer
            .exchange
            .open_delivery(&peer, &request)
            .await
            .unwrap();
        producer.set_policy(DISCOVER_ONLY).await;
        let reading = Arc::clone(&delivery);
        let reader = tokio::spawn(async move {
            let mut end = 0;
            loop {
                match reading.next().await.unwrap() {
                    Next::Batch { message, .. } => end = message.first + u64::from(message.count),
                    Next::Ended(refused) => return (end, refused.refusal.position.unwrap()),
                    Next::Heads(_) | Next::Wait => {}
                }
            }
        });
        delivery.recheck();
        let (end, position) = reader.await.unwrap();
        assert_eq!(end, position, "round {round}");
    }
}

/// The fact by this name in an answer, as JSON text.
fn told<'a>(answer: &'a PolicyAnswer, name: &str) -> Option<&'a str> {
    let mut facts = answer.facts.iter();
    facts
        .find(|fact| fact.0 == name)
        .map(|fact| fact.1.as_str())
}

#[tokio::test]
async fn a_partner_is_told_how_we_would_decide_but_not_what_is_ours() {
    const POLICY: &str = r#"@id("read") @advice("an agreement, for research") permit (principal, action == Action::"read", resource)
when { context has agreement && context.agreement.active && resource.labels.contains("x") == false && context has purpose && context.purpose == "research" };
@id("see") permit (principal, action == Action::"discover", resource) when { resource.name == "s" };"#;
    let (producer, consumer, _) = partners(231, "s", 10).await;
    producer.set_policy(POLICY).await;
    let peer = consumer.at(&producer);
    let mut ask = AskPolicy {
        action: "read".to_owned(),
        stream: producer.origin("s").to_string(),
        purpose: String::new(),
        plan: String::new(),
    };
    let before = producer.records("decision").await.len();
    let no = producer.exchange.answer_policy(&peer, &ask).unwrap();
    assert!(!no.allowed);
    assert!(
        no.because.contains("an agreement, for research"),
        "{}",
        no.because
    );
    assert_eq!(told(&no, "context.purpose"), Some(""));
    assert_eq!(told(&no, "context.agreement.active"), Some("true"));
    ask.purpose = "research".to_owned();
    let yes = producer.exchange.answer_policy(&peer, &ask).unwrap();
    assert!(yes.allowed, "{}", yes.because);
    assert_eq!(told(&yes, "context.purpose"), Some("\"research\""));
    // What concerns the stream stays with its owner, by name and by value.
    assert!(
        yes.facts
            .iter()
            .all(|(name, _)| !name.starts_with("resource"))
    );
    // A dry run leaves no trace among the decisions.
    assert_eq!(producer.records("decision").await.len(), before);

    // What may not be discovered does not exist, also here.
    let mut hidden = ask.clone();
    hidden.stream = producer.origin("t").to_string();
    producer.create("t").await;
    let there = producer.exchange.answer_policy(&peer, &hidden).unwrap_err();
    hidden.stream = producer.origin("never").to_string();
    let nowhere = producer.exchange.answer_policy(&peer, &hidden).unwrap_err();
    assert_eq!(there.refusal.code, RefusalCode::NotFound);
    assert_eq!(nowhere.refusal.code, RefusalCode::NotFound);
    assert_eq!(
        there.refusal.reason.replace("/t`", "/never`"),
        nowhere.refusal.reason
    );

    ask.action = "own".to_owned();
    let malformed = producer.exchange.answer_policy(&peer, &ask).unwrap_err();
    assert_eq!(malformed.refusal.code, RefusalCode::Malformed);
    ask.action = "read".to_owned();
    producer.exchange.revoke("Consumer", "").await.unwrap();
    // A revoked partner is told that, and gets a yes from no policy.
    match producer.exchange.answer_policy(&peer, &ask) {
        Ok(answer) => assert!(!answer.allowed),
        Err(refused) => assert_eq!(refused.refusal.code, RefusalCode::NotFound),
    }
}

#[tokio::test]
async fn a_region_that_the_operator_recorded_reaches_the_policies_and_running_subscriptions() {
    const EU_ONLY: &str = r#"@id("read") permit (principal, action, resource) when { principal has region && principal.region == "EU" };"#;
    let (mut producer, consumer, agreement) = partners(232, "s", 10).await;
    producer.publish("s", 1, 5).await.unwrap();
    producer.set_policy(EU_ONLY).await;
    let no = ask(&producer, &consumer, "s", agreement).await;
    assert_eq!(no.refusal.code, RefusalCode::NotFound);
    let region = |text: &str| Some(text.to_owned());
    let set = producer
        .exchange
        .set_region(consumer.authority(), region("EU"));
    set.await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    let set = producer
        .exchange
        .set_region(consumer.authority(), region("US"));
    set.await.unwrap();
    wire.delivery.recheck();
    assert!(wire.batch().await.is_none());
    let ended = wire.ended.take().unwrap();
    assert_eq!(ended.refusal.code, RefusalCode::NotPermitted);
    let bad = producer
        .exchange
        .set_region(consumer.authority(), region("a\nb"));
    assert!(matches!(bad.await, Err(OnboardingError::Region)));
    // It is in the ledger, and so it is there again after a restart.
    producer.restart().await;
    let registry = producer.exchange.registry();
    assert_eq!(
        registry.partners[consumer.authority()].region.as_deref(),
        Some("US")
    );
}

/// Ends a subscription while events are published into it as fast as they go, and nobody but the node itself looks again. The end that the reader saw, the
/// position that the signed refusal names, and what `stop` says.
async fn stopped_while_busy<T>(
    seed: u64,
    stop: impl AsyncFnOnce(&Node, &Node, AgreementId) -> T,
) -> (u64, u64, T) {
    use countersign_exchange::pipeline::deliver::Next;
    let (producer, consumer, agreement) = partners(seed, "s", 1_000_000).await;
    let peer = consumer.at(&producer);
    let request = subscribe_at(&producer, "s", agreement, StartAt::Sequence(0));
    let opened = producer.exchange.open_delivery(&peer, &request).await;
    let delivery = opened.unwrap().1;
    let (reached, mut reaches) = tokio::sync::watch::channel(0);
    let reader = tokio::spawn(async move {
        let mut end = 0;
        loop {
            match delivery.next().await.unwrap() {
                Next::Batch { message, .. } => {
                    // What comes is the next, and nothing twice.
                    assert_eq!(message.first, end);
                    end += u64::from(message.count);
                    reached.send_replace(end);
                }
                Next::Ended(refused) => return (end, refused.refusal.position.unwrap()),
                Next::Heads(_) | Next::Wait => {}
            }
        }
    });
    let stopping = async {
        reaches.wait_for(|end| *end > 200).await.unwrap();
        stop(&producer, &consumer, agreement).await
    };
    let publishing = async {
        for batch in 0.. {
            // Once more after the end, so that there is something that was not handed out.
            let is_last = reader.is_finished();
            producer.publish("s", batch * 20 + 1, 20).await.unwrap();
            if is_last {
                break;
            }
        }
    };
    let (said, ()) = tokio::join!(stopping, publishing);
    let (end, position) = reader.await.unwrap();
    assert!(producer.log("s").size() > end);
    (end, position, said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_termination_names_the_position_at_which_delivery_stopped_however_it_races() {
    use countersign_event::documents::Termination;
    for seed in 230..236 {
        let terminate = async |producer: &Node, _: &Node, agreement| {
            let ended = producer.exchange.terminate(agreement, "it is over").await;
            let ended = Termination::peek(&ended.unwrap()).unwrap();
            assert_eq!(producer.records("termination").await.len(), 1);
            ended.position
        };
        let (end, position, said) = stopped_while_busy(seed, terminate).await;
        assert_eq!((position, said), (end, Some(end)), "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_or_other_policies_stop_what_runs_though_its_session_never_looks() {
    let revoke = async |producer: &Node, consumer: &Node, _| {
        let partner = consumer.authority().to_string();
        producer
            .exchange
            .revoke(&partner, "trust is gone")
            .await
            .unwrap();
    };
    let (end, position, ()) = stopped_while_busy(240, revoke).await;
    assert_eq!(position, end);
    let change = async |producer: &Node, _: &Node, _| producer.set_policy(DISCOVER_ONLY).await;
    let (end, position, ()) = stopped_while_busy(241, change).await;
    assert_eq!(position, end);
}
