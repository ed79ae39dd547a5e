//! Fields: a partner is shown the members that its plan names, verifies them against everybody's log, and finds nothing of the others.

use std::collections::BTreeSet;

use countersign_crypto::{Hash, HmacKey, SigningKey, sha256_of};
use countersign_event::attributes::AttributesBuilder;
use countersign_event::author::sign;
use countersign_event::cloudevents::to_json;
use countersign_event::commitment::{DATA_MEMBER_TAG, DATA_WHOLE_TAG};
use countersign_event::content::{Event, Limits, check_content};
use countersign_event::control::AuthorRule;
use countersign_event::data::{DataPart, DataState};
use countersign_event::documents::{AgreementId, Plan, RefusalCode, Side};
use countersign_event::entry::Entry;
use countersign_event::fields::{FieldsError, MEMBER_SALT_TAG};
use countersign_event::ledger::LedgerRecord;
use countersign_exchange::pipeline::ingest::{Drafts, IngestError};
use countersign_exchange::pipeline::seal::seal;
use countersign_exchange::{ExchangeError, Heard, OnboardingError, StreamError, StreamOptions};
use countersign_protocol::{AskLog, FetchBack, Message as _};
use serde_json::{Value, json};

use crate::support::*;

fn order(number: u64) -> Event {
    let data = format!(
        "{{\"item\":\"i{number}\", \"pin\":{},\"amount\":{number}}}",
        number % 100
    );
    event(&number.to_string(), &data)
}

fn with_state(event: &Event, state: DataState) -> Event {
    let part = DataPart {
        state,
        ..*event.as_ref().data()
    };
    Event::new(event.attribute_bytes().to_vec(), &part, &Limits::FORMAT).unwrap()
}

fn plan(fields: Option<&[&str]>) -> Plan {
    Plan {
        fields: fields.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
        exposure_events: 1000,
        ..Plan::default()
    }
}

async fn strangers(seed: u64) -> (Node, Node) {
    let (one, two) = (seed * 2 + 3000, seed * 2 + 3001);
    let producer = Node::new(one, "Producer").await;
    let consumer = Node::new(two, "Consumer").await;
    (producer, consumer)
}

async fn agree(producer: &Node, consumer: &Node, plan: Plan) -> AgreementId {
    let invitation = producer.invite("s", Side::Producer, plan).await;
    join(&invitation, producer, consumer).await.unwrap()
}

async fn stream(node: &Node, fields: bool) {
    let options = StreamOptions {
        fields,
        ..StreamOptions::default()
    };
    let name = "s".parse().unwrap();
    node.exchange.create_stream(&name, options).await.unwrap();
}

async fn hand_in(node: &Node, series: u8, events: &[Event]) -> Result<(), ExchangeError> {
    let (_, session) = node.session("s", series).await;
    let (count, bulk) = bulk_of(events);
    session.submit_and_wait(1, count, bulk).await.map(|_| ())
}

/// A producer whose stream commits to members, and a partner that is shown some of them.
async fn shown(seed: u64, fields: &[&str]) -> (Node, Node, AgreementId) {
    let (producer, consumer) = strangers(seed).await;
    stream(&producer, true).await;
    let agreement = agree(&producer, &consumer, plan(Some(fields))).await;
    (producer, consumer, agreement)
}

/// What the copy's events show, and how many members are withheld of each.
fn copied(consumer: &Node, producer: &Node) -> Vec<(Value, usize)> {
    let log = consumer.exchange.log(&producer.origin("s")).unwrap();
    let mut found = Vec::new();
    let runs = consumer.exchange.reader();
    for run in runs.read(log.number(), 1, 1000, u64::MAX).unwrap() {
        for stored in run.iter() {
            let entry = Entry::decode(stored.entry).unwrap();
            let event = check_content(&entry, stored.content, stored.attribute_bytes as usize);
            let event = event.unwrap();
            let json: Value = serde_json::from_slice(&to_json(&event)).unwrap();
            let withheld = event.data().view().map_or(0, |view| view.withheld());
            found.push((json["data"].clone(), withheld));
        }
    }
    found
}

#[tokio::test]
async fn a_partner_is_shown_the_members_of_its_plan_under_everybody_s_checkpoint() {
    let (producer, mut consumer, agreement) = shown(1, &["item", "amount"]).await;
    let events: Vec<Event> = (1..40).map(order).collect();
    hand_in(&producer, 1, &events).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    drop(wire);
    consumer.restart().await;
    let expected: Vec<_> = (1..40)
        .map(|n: u64| (json!({"item": format!("i{n}"), "amount": n}), 1))
        .collect();
    assert_eq!(copied(&consumer, &producer), expected);
    let copy = consumer.exchange.log(&producer.origin("s")).unwrap();
    assert_eq!(copy.head().root, producer.log("s").head().root);
    // The reader goes on where it was, and both sides count the same bytes.
    hand_in(&producer, 2, &[order(40)]).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    assert_eq!(copied(&consumer, &producer).len(), 40);
    assert_eq!(
        producer.records("receipt").await,
        consumer.records("receipt").await
    );
}

#[tokio::test]
async fn nothing_that_the_partner_keeps_holds_what_is_withheld() {
    let (producer, consumer, agreement) = shown(2, &[]).await;
    let secret = "withheld-canary-7fLx2VtR";
    let author = SigningKey::from_seed(&[9; 32]);
    let data = format!("{{\"{secret}-name\":\"{secret}\"}}");
    let signed = sign(&event("1", &data).as_ref(), &author, &Limits::FORMAT).unwrap();
    hand_in(&producer, 1, &[signed]).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    assert_eq!(copied(&consumer, &producer), [(json!({}), 1)]);
    let copy = consumer.exchange.log(&producer.origin("s")).unwrap();
    let original = stored(&producer.exchange, &producer.log("s"));
    let (_, content) = &stored(&consumer.exchange, &copy)[1];
    let held = |needle: &[u8]| {
        let mut windows = content.windows(needle.len());
        windows.any(|window| window == needle)
    };
    assert!(!held(secret.as_bytes()));
    // Neither the data salt, from which all other salts follow, nor the author's digests.
    assert!(!held(&original[1].1[32..64]));
    assert!(!held(b"dsse/v0.1"));
    assert_eq!(content[32..64], [0; 32]);
}

/// What holds of guesses of the second member, ` "pin":N,`, among all 32 bytes that follow each other in what was sent: as salt of the member, as secret that its
/// salt follows from, as data salt.
fn found(sent: &[u8], salts: &BTreeSet<Hash>) -> BTreeSet<u64> {
    let known: BTreeSet<Hash> = sent.windows(32).map(|at| at.try_into().unwrap()).collect();
    let fits = |pin: u64| {
        let slice = format!(" \"pin\":{pin},");
        salts.iter().any(|salt| {
            let derived = HmacKey::new(salt).authenticate(&[MEMBER_SALT_TAG, &[0, 0, 0, 2]]);
            let member = |salt: &Hash| sha256_of(&[DATA_MEMBER_TAG, salt, slice.as_bytes()]);
            let whole = sha256_of(&[DATA_WHOLE_TAG, salt, slice.as_bytes()]);
            [member(salt), member(&derived), whole]
                .iter()
                .any(|hash| known.contains(hash))
        })
    };
    (0..100).filter(|pin| fits(*pin)).collect()
}

#[tokio::test]
async fn nobody_finds_a_withheld_number_by_trying_all_that_it_can_be() {
    let (producer, consumer, agreement) = shown(7, &["item", "amount"]).await;
    hand_in(&producer, 1, &[order(37)]).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    let (message, bulk) = wire.batch().await.unwrap();
    let sent = [&message.to_body()[..], &bulk].concat();
    let salts: BTreeSet<Hash> = sent.windows(32).map(|at| at.try_into().unwrap()).collect();
    assert_eq!(found(&sent, &salts), BTreeSet::new());
    // The same search finds it for who has the secret that the partner is not sent.
    let original = stored(&producer.exchange, &producer.log("s"));
    let secret: Hash = original[1].1[32..64].try_into().unwrap();
    assert_eq!(
        found(&sent, &BTreeSet::from([secret])),
        BTreeSet::from([37])
    );
}

#[tokio::test]
async fn a_stream_of_members_takes_objects_and_what_has_nothing_to_withhold() {
    let node = Node::new(3, "Node").await;
    stream(&node, true).await;
    let refused = async |event: Event| match hand_in(&node, 1, &[order(1), event]).await {
        Err(ExchangeError::Ingest(IngestError::Fields { index: 1, error })) => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(
        refused(event("2", "[1]")).await,
        FieldsError::Json(_)
    ));
    assert!(matches!(
        refused(event("2", "text")).await,
        FieldsError::Json(_)
    ));
    let twice = event("2", r#"{"price":1,"x":0,"pr\u0069ce":2}"#);
    assert_eq!(refused(twice).await, FieldsError::Repeated);
    let binary = with_state(&event("2", "{}"), DataState::Binary);
    assert_eq!(refused(binary).await, FieldsError::NotJson);
    let members = with_state(&event("2", "{}"), DataState::Members);
    assert_eq!(refused(members).await, FieldsError::Published);
    let attributes = AttributesBuilder::new("3", "/s", "t").build().unwrap();
    let empty = |state| {
        let part = DataPart {
            state,
            ..DataPart::default()
        };
        Event::new(attributes.clone(), &part, &Limits::FORMAT).unwrap()
    };
    let (absent, null) = (empty(DataState::Absent), empty(DataState::Null));
    hand_in(&node, 1, &[order(1), absent]).await.unwrap();
    hand_in(&node, 2, &[null]).await.unwrap();
    // The same events again are the same; what was stored is what is compared.
    hand_in(&node, 1, &[order(1)]).await.unwrap();
    assert_eq!(node.log("s").size(), 4);
    let whole = Node::new(4, "Node").await;
    stream(&whole, false).await;
    let members = with_state(&order(1), DataState::Members);
    assert!(hand_in(&whole, 1, &[members]).await.is_err());
}

#[tokio::test]
async fn a_signature_that_is_withheld_with_members_is_not_missed_and_none_at_all_is() {
    let (producer, consumer, agreement) = shown(8, &["item"]).await;
    let author = SigningKey::from_seed(&[9; 32]);
    let rule = AuthorRule {
        keys: vec![author.public()],
        required: true,
    };
    producer.exchange.set_author_rule("s", rule).await.unwrap();
    let signed = sign(&order(1).as_ref(), &author, &Limits::FORMAT).unwrap();
    hand_in(&producer, 1, &[signed]).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    drop(wire);
    assert_eq!(consumer.records("fault").await, []);
    // A producer that judges nothing: an event gets into its log past its own door, and bears no signature at all.
    let drafts = Drafts::from_events(&[with_state(&order(2), DataState::Members)]);
    let sealed = producer
        .exchange
        .with_entropy(|entropy| seal(&drafts, entropy));
    let log = producer.log("s");
    let at = log.size();
    let writer = producer.exchange.writer();
    writer.append_and_wait(log, sealed, None).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    drop(wire);
    let faults = consumer.records("fault").await;
    let [LedgerRecord::Fault { code, detail, .. }] = &faults[..] else {
        panic!("{faults:?}");
    };
    assert_eq!(code, "author-signature");
    assert!(detail.starts_with(&format!("entry {at}: ")), "{detail}");
    assert_eq!(copied(&consumer, &producer).last().unwrap().1, 2);
}

/// Asks a reader what it knows of the stream, and fetches back what it may give; whether it might give anything.
async fn heal(owner: &Node, reader: &Node) -> bool {
    let origin = owner.origin("s");
    let mut asked = owner.exchange.questions_for(reader.authority());
    asked.retain(|question| question.origin == origin.to_string());
    let (at, from) = (owner.at(reader), reader.authority());
    let mut may = false;
    for _ in 0..2 {
        let question = AskLog {
            size: owner.log("s").size(),
            ..asked[0].clone()
        };
        let state = reader.exchange.log_state(&at, &question).await.unwrap();
        let heard = owner.exchange.hear(from, &origin, &state).unwrap();
        if heard == (Heard::More { held: true })
            && let Some((log, mut own)) = owner.exchange.fetching(from, &origin)
        {
            may = true;
            let request = FetchBack {
                origin: origin.to_string(),
                from: log.size(),
            };
            let mut fetched = reader.exchange.open_fetch_back(&at, &request).unwrap();
            while let Some((message, bulk)) = fetched.next_batch().unwrap() {
                let bulk = bulk.concat().into();
                let taken = owner.exchange.take_back(&log, &mut own, message, bulk);
                taken.await.unwrap();
            }
        }
    }
    owner.exchange.fetched(from, &origin);
    may
}

/// A producer that is an older copy of itself, of which one partner is shown all and has read so many events, another some members, and has read all five.
async fn restored(seed: u64, read: u64) -> (Node, (Node, AgreementId), (Node, AgreementId)) {
    let (mut producer, whole) = strangers(seed).await;
    stream(&producer, true).await;
    let all = agree(&producer, &whole, plan(None)).await;
    let part = Node::new(seed * 2 + 3100, "Part").await;
    let some = agree(&producer, &part, plan(Some(&["item"]))).await;
    hand_in(&producer, 1, &[order(1)]).await.unwrap();
    let older = producer.disk.after_kill();
    for number in 2..=5 {
        if number == read + 1 {
            Wire::open(&producer, &whole, all).await.pump().await;
        }
        hand_in(&producer, number as u8, &[order(number)])
            .await
            .unwrap();
    }
    if read == 5 {
        Wire::open(&producer, &whole, all).await.pump().await;
    }
    Wire::open(&producer, &part, some).await.pump().await;
    producer.go_back_to(older).await;
    producer.exchange.freeze_streams();
    (producer, (whole, all), (part, some))
}

#[tokio::test]
async fn lost_entries_come_back_from_who_was_shown_all_of_them() {
    let (producer, (whole, all), (part, _)) = restored(9, 5).await;
    // Whoever answers first: somebody else may hold more than a part.
    assert!(!heal(&producer, &part).await);
    assert!(heal(&producer, &whole).await);
    heal(&producer, &part).await;
    assert_eq!(producer.exchange.why_frozen(&producer.log("s")), None);
    let copy = whole.exchange.log(&producer.origin("s")).unwrap();
    assert_eq!(
        stored(&producer.exchange, &producer.log("s")),
        stored(&whole.exchange, &copy)
    );
    hand_in(&producer, 6, &[order(6)]).await.unwrap();
    Wire::open(&producer, &whole, all).await.pump().await;
    assert_eq!(copied(&whole, &producer).len(), 6);
}

#[tokio::test]
async fn a_reader_of_all_is_refused_what_came_back_in_part_and_finds_no_fault() {
    let (producer, (whole, all), (part, some)) = restored(10, 3).await;
    assert!(!heal(&producer, &part).await);
    assert!(heal(&producer, &whole).await);
    // Nobody holds more of what is missing now.
    assert!(heal(&producer, &part).await);
    assert_eq!(producer.exchange.why_frozen(&producer.log("s")), None);
    hand_in(&producer, 6, &[order(6)]).await.unwrap();
    let mut wire = Wire::open(&producer, &whole, all).await;
    wire.pump().await;
    let refused = wire.ended.clone().unwrap();
    let first = copied(&whole, &producer).len() as u64;
    assert_eq!(refused.refusal.code, RefusalCode::NotFound);
    assert_eq!(first, 3);
    let copy = whole.exchange.log(&producer.origin("s")).unwrap();
    assert_eq!(refused.refusal.position, Some(copy.size()));
    assert!(refused.refusal.reason.contains("some members"));
    assert_eq!(whole.records("fault").await, []);
    // Who is shown as much as came back reads on.
    Wire::open(&producer, &part, some).await.pump().await;
    assert_eq!(copied(&part, &producer).len(), 6);
}

#[tokio::test]
async fn a_plan_that_names_fields_needs_a_stream_that_can_withhold_them() {
    let node = Node::new(5, "Node").await;
    stream(&node, false).await;
    let options = invite_options("s", Side::Producer, plan(Some(&["a"])));
    let refused = node.exchange.invite(options).await;
    assert!(matches!(
        refused,
        Err(OnboardingError::Exchange(ExchangeError::Stream(
            StreamError::NotFields { .. }
        )))
    ));
}

#[tokio::test]
async fn a_reader_whose_plan_names_no_fields_takes_nothing_in_part() {
    let (producer, consumer) = strangers(6).await;
    stream(&producer, true).await;
    let whole = agree(&producer, &consumer, plan(None)).await;
    let part = agree(&producer, &consumer, plan(Some(&["item"]))).await;
    hand_in(&producer, 1, &[order(1)]).await.unwrap();
    // A producer that withholds members without a word: what it would send under the other agreement.
    let mut honest = Wire::open(&producer, &consumer, part).await;
    let (message, bulk) = honest.batch().await.unwrap();
    let mut cheated = Wire::open(&producer, &consumer, whole).await;
    let fault = cheated.take(message, bulk).await.unwrap_err();
    assert!(
        fault.to_string().contains("members of its data withheld"),
        "{fault}"
    );
    // All of it is what was agreed.
    let mut wire = Wire::open(&producer, &consumer, whole).await;
    wire.pump().await;
    let data = json!({"item": "i1", "pin": 1, "amount": 1});
    assert_eq!(copied(&consumer, &producer), [(data, 0)]);
}
