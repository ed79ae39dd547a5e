//! Directories that are older copies of themselves: a producer's takes no entries until its readers have spoken, a consumer's signs nothing that
//! contradicts what it signed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use countersign_event::documents::{AgreementId, Plan, ReceiptFork, SeriesId, Side};
use countersign_event::dsse::Envelope;
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::Origin;
use countersign_exchange::pipeline::append::AppendError;
use countersign_exchange::pipeline::consume::Consumption;
use countersign_exchange::{ADD_CHECKPOINTS_MAX, ExchangeError, Heard, StreamOptions, WitnessId};
use countersign_protocol::{AskLog, FetchBack, LogState};

use super::support::{Node, Wire, join, partners};

const STREAM: &str = "orders";

/// What a reader answers.
async fn ask(reader: &Node, owner: &Node, question: &AskLog) -> LogState {
    let peer = owner.at(reader);
    reader.exchange.log_state(&peer, question).await.unwrap()
}

/// Asks a reader everything, and fetches back what it holds more of; gives what was heard last.
async fn hear(owner: &Node, reader: &Node) -> Heard {
    let mut last = Heard::Known;
    for _ in 0..2 {
        for question in owner.exchange.questions_for(reader.authority()) {
            let origin: Origin = question.origin.parse().unwrap();
            // Ledger logs have tests of their own.
            if origin.stream().is_none() {
                continue;
            }
            let state = ask(reader, owner, &question).await;
            last = owner
                .exchange
                .hear(reader.authority(), &origin, &state)
                .unwrap();
            if last == (Heard::More { held: true }) {
                fetch_back(owner, reader).await;
            }
        }
    }
    last
}

async fn fetch_back(owner: &Node, reader: &Node) {
    let origin = owner.origin(STREAM);
    let (log, mut own) = owner
        .exchange
        .fetching(reader.authority(), &origin)
        .unwrap();
    let request = FetchBack {
        origin: origin.to_string(),
        from: log.size(),
    };
    let mut fetched = reader
        .exchange
        .open_fetch_back(&owner.at(reader), &request)
        .unwrap();
    while let Some((message, bulk)) = fetched.next_batch().unwrap() {
        owner
            .exchange
            .take_back(&log, &mut own, message, bulk.concat().into())
            .await
            .unwrap();
    }
}

async fn read_all(producer: &Node, consumer: &Node, agreement: AgreementId) {
    let mut wire = Wire::open(producer, consumer, agreement).await;
    wire.pump().await;
}

/// A producer with two readers.
async fn two_readers(seed: u64) -> (Node, [(Node, AgreementId); 2]) {
    let (producer, one, first) = partners(seed, STREAM, 1000).await;
    let two = Node::new(seed * 7 + 5_000, "Second").await;
    let invitation = producer
        .invite(STREAM, Side::Producer, Plan::default())
        .await;
    let second = join(&invitation, &producer, &two).await.unwrap();
    (producer, [(one, first), (two, second)])
}

async fn publishes(producer: &Node, number: u64) -> bool {
    match producer.publish(STREAM, number, 1).await {
        Ok(_) => true,
        Err(ExchangeError::Append(AppendError::Frozen)) => false,
        Err(error) => panic!("{error:?}"),
    }
}

/// In every order in which readers answer, with one that lags and one that knows all: no entry is taken before everybody has spoken, nothing that was
/// read is lost, and everybody reads on without a fork.
#[tokio::test]
async fn an_older_copy_goes_on_where_its_readers_stand() {
    for seed in 0..24u64 {
        let (before, after, lagging) = (1 + seed % 5, 1 + seed % 7, seed % 3);
        let (mut producer, [(one, first), (two, second)]) = two_readers(800 + seed).await;
        producer.publish(STREAM, 1, before).await.unwrap();
        read_all(&producer, &two, second).await;
        let older = producer.disk.after_kill();
        if lagging > 0 {
            // The second one has read some of what is lost, too.
            producer.publish(STREAM, before + 1, lagging).await.unwrap();
            read_all(&producer, &two, second).await;
        }
        producer
            .publish(STREAM, before + lagging + 1, after)
            .await
            .unwrap();
        read_all(&producer, &one, first).await;
        let lost = producer.log(STREAM).head();
        producer.go_back_to(older).await;
        producer.exchange.freeze_streams();
        let number = producer.session(STREAM, 1).await.0.last_number + 1;
        assert!(
            !publishes(&producer, number).await,
            "{seed}: nobody was asked"
        );
        assert!(
            producer
                .exchange
                .why_frozen(&producer.log(STREAM))
                .unwrap()
                .contains("Consumer")
        );
        // Reading what is there goes on meanwhile: streams of others, and of one's own.
        assert!(producer.log(STREAM).size() > 0);
        let order = if seed % 2 == 0 {
            [&one, &two]
        } else {
            [&two, &one]
        };
        hear(&producer, order[0]).await;
        assert!(
            !publishes(&producer, number).await,
            "{seed}: one has not spoken"
        );
        assert_eq!(hear(&producer, order[1]).await, Heard::Known);
        assert_eq!(
            producer.exchange.why_frozen(&producer.log(STREAM)),
            None,
            "{seed}"
        );
        let back = producer.log(STREAM).head();
        assert_eq!(
            (back.size, back.root, back.signature),
            (lost.size, lost.root, lost.signature)
        );
        producer.clock.advance(Duration::from_secs(1));
        let (_, session) = producer.session(STREAM, 2).await;
        let (count, bulk) = super::support::bulk_of(&super::support::events("again", 1, 3));
        session.submit_and_wait(1, count, bulk).await.unwrap();
        read_all(&producer, &one, first).await;
        read_all(&producer, &two, second).await;
        let stream = producer.origin(STREAM);
        for reader in [&one, &two] {
            assert!(!reader.exchange.has_forked(&stream));
            let copy = reader.exchange.log(&stream).unwrap().head();
            let own = producer.log(STREAM).head();
            assert_eq!((copy.size, copy.root), (own.size, own.root), "{seed}");
        }
        // What came back is whole: it is read again after a restart, content and all.
        producer.restart().await;
        let late = Node::new(9_000 + seed, "Late").await;
        let invitation = producer
            .invite(STREAM, Side::Producer, Plan::default())
            .await;
        let agreement = join(&invitation, &producer, &late).await.unwrap();
        read_all(&producer, &late, agreement).await;
        let copy = late.exchange.log(&stream).unwrap().head();
        assert_eq!(copy.root, producer.log(STREAM).head().root);
    }
}

/// As long as one reader cannot be reached, the stream waits; a new one that cites it does not.
#[tokio::test]
async fn without_an_answer_only_a_new_stream_takes_entries() {
    let (mut producer, [(one, first), (two, _)]) = two_readers(850).await;
    producer.publish(STREAM, 1, 3).await.unwrap();
    let older = producer.disk.after_kill();
    producer.publish(STREAM, 4, 3).await.unwrap();
    read_all(&producer, &one, first).await;
    producer.go_back_to(older).await;
    producer.exchange.freeze_streams();
    assert_eq!(hear(&producer, &two).await, Heard::Known);
    assert!(!publishes(&producer, 4).await);
    let name = "orders-2".parse().unwrap();
    let options = StreamOptions {
        cites: Some(STREAM.parse().unwrap()),
        ..StreamOptions::default()
    };
    let new = producer
        .exchange
        .create_stream(&name, options)
        .await
        .unwrap();
    let cites = new.settings().cites.clone().unwrap();
    assert_eq!(cites.origin, producer.origin(STREAM));
    assert_eq!(
        (cites.size, cites.root.0),
        (4, producer.log(STREAM).head().root)
    );
    assert!(producer.publish("orders-2", 1, 2).await.is_ok());
}

/// Restored in place, so that the start did not notice: the first reader that speaks does.
#[tokio::test]
async fn what_the_start_did_not_notice_a_reader_does() {
    let (mut producer, [(one, first), (two, _)]) = two_readers(851).await;
    producer.publish(STREAM, 1, 3).await.unwrap();
    let older = producer.disk.after_kill();
    producer.publish(STREAM, 4, 3).await.unwrap();
    read_all(&producer, &one, first).await;
    let lost = producer.log(STREAM).head();
    producer.go_back_to(older).await;
    assert_eq!(
        hear(&producer, &one).await,
        Heard::Known,
        "after what was missing came back"
    );
    assert_eq!(producer.log(STREAM).head().root, lost.root);
    // The next start is to know it, too, however this one ends.
    assert!(producer.options.left_home.load(Ordering::SeqCst));
    // Others may know still more: nothing is taken before all have spoken, of this stream or any other.
    assert!(!publishes(&producer, 4).await);
    assert!(producer.exchange.asks_readers());
    assert_eq!(hear(&producer, &two).await, Heard::Known);
    assert!(publishes(&producer, 4).await);
}

/// It went on before anybody spoke: nothing makes one history of two, and this node stops adding to the second.
#[tokio::test]
async fn a_copy_that_went_on_learns_that_it_has_forked() {
    let (mut producer, [(one, first), _]) = two_readers(852).await;
    producer.publish(STREAM, 1, 3).await.unwrap();
    let older = producer.disk.after_kill();
    producer.publish(STREAM, 4, 3).await.unwrap();
    read_all(&producer, &one, first).await;
    producer.go_back_to(older).await;
    producer.clock.advance(Duration::from_secs(1));
    producer.publish(STREAM, 4, 9).await.unwrap();
    assert_eq!(hear(&producer, &one).await, Heard::Contradicts);
    assert!(!publishes(&producer, 13).await);
    assert!(
        producer
            .exchange
            .why_frozen(&producer.log(STREAM))
            .unwrap()
            .contains("another history")
    );
    // That is kept, for others and for the next start.
    let origin = producer.origin(STREAM);
    assert!(producer.exchange.has_forked(&origin));
    let kept = producer.evidence.0.lock().unwrap().last().unwrap().clone();
    let proof = countersign_tlog::fork_proof::ForkProof::parse(&kept.1).unwrap();
    proof.checkpoints().unwrap();
    // The ledger may have got its successor just then: it is written there with the next second.
    while producer.records("fault").await.is_empty() {
        producer.exchange.record_owed();
        tokio::task::yield_now().await;
    }
    producer.restart().await;
    assert!(!publishes(&producer, 13).await);
}

/// Somebody who only cosigned knows that more was there, and cannot give it back.
#[tokio::test]
async fn what_nobody_holds_is_waited_for() {
    let (mut producer, [(one, _), (two, _)]) = two_readers(853).await;
    producer.publish(STREAM, 1, 3).await.unwrap();
    let older = producer.disk.after_kill();
    producer.publish(STREAM, 4, 3).await.unwrap();
    let id = WitnessId::Partner(one.authority().clone());
    let mut shown = producer.exchange.shown_to(&id);
    shown.retain(|log| log.is_own_stream());
    let due = producer
        .exchange
        .submissions(&id, &shown, ADD_CHECKPOINTS_MAX);
    let bodies: Vec<&[u8]> = due.iter().map(|one| one.body.as_bytes()).collect();
    assert_eq!(one.exchange.add_checkpoints(&bodies).await[0].status(), 200);
    producer.go_back_to(older).await;
    producer.exchange.freeze_streams();
    assert_eq!(hear(&producer, &one).await, Heard::More { held: false });
    assert_eq!(hear(&producer, &two).await, Heard::Known);
    assert!(!publishes(&producer, 4).await);
    assert!(
        producer
            .exchange
            .why_frozen(&producer.log(STREAM))
            .unwrap()
            .contains("7 entries")
    );
}

/// A reader cannot hold a stream up with what our key has not signed, nor push entries in that it has not.
#[tokio::test]
async fn what_our_key_did_not_sign_says_nothing() {
    let (mut producer, [(one, first), (two, second)]) = two_readers(854).await;
    producer.publish(STREAM, 1, 3).await.unwrap();
    let older = producer.disk.after_kill();
    producer.publish(STREAM, 4, 3).await.unwrap();
    read_all(&producer, &one, first).await;
    producer.go_back_to(older).await;
    let origin = producer.origin(STREAM);
    let mut questions = producer.exchange.questions_for(one.authority());
    questions.retain(|question| question.origin == origin.as_str());
    let [question] = questions.try_into().unwrap();
    let good = ask(&one, &producer, &question).await;
    let mut bent = good.clone();
    let place = bent.note.len() - 20;
    bent.note[place] ^= 1;
    for state in [
        bent,
        LogState {
            note: Vec::new(),
            ..good.clone()
        },
        LogState {
            note: b"nonsense".to_vec(),
            ..good.clone()
        },
    ] {
        let heard = producer.exchange.hear(one.authority(), &origin, &state);
        // It says that it holds more, and shows nothing of ours: no answer, and no reason to stop.
        assert_eq!(heard.unwrap(), Heard::Unclear);
    }
    assert!(!producer.exchange.asks_readers());
    // Entries come back only while the stream is held, and only what is signed.
    producer.exchange.freeze_streams();
    let (log, mut own) = producer
        .exchange
        .fetching(one.authority(), &origin)
        .unwrap();
    let request = FetchBack {
        origin: origin.to_string(),
        from: log.size(),
    };
    let peer = producer.at(&one);
    let mut fetched = one.exchange.open_fetch_back(&peer, &request).unwrap();
    // One at a time.
    match one.exchange.open_fetch_back(&peer, &request) {
        Err(ExchangeError::Refused(refused)) => assert_eq!(refused.code(), "busy"),
        other => panic!("{other:?}"),
    }
    let (message, bulk) = fetched.next_batch().unwrap().unwrap();
    let mut bulk = bulk.concat();
    let last = bulk.len() - 1;
    bulk[last] ^= 1;
    let taken = producer
        .exchange
        .take_back(&log, &mut own, message, bulk.into())
        .await;
    assert!(taken.is_err());
    assert_eq!(log.size(), 4);
    // Nobody else gets them.
    let refused = one.exchange.open_fetch_back(&two.at(&one), &request);
    assert!(refused.is_err());
    let _ = second;
}

/// A consumer that goes back reads again what it lost, and signs into a series of its own: no two receipts of one number differ.
#[tokio::test]
async fn a_restored_consumer_contradicts_no_receipt() {
    for seed in 0..8u64 {
        let (producer, mut consumer, agreement) = partners(900 + seed, STREAM, 1000).await;
        producer.publish(STREAM, 1, 2 + seed).await.unwrap();
        read_all(&producer, &consumer, agreement).await;
        let older = consumer.disk.after_kill();
        producer.publish(STREAM, 3 + seed, 4).await.unwrap();
        read_all(&producer, &consumer, agreement).await;
        producer.publish(STREAM, 7 + seed, 1).await.unwrap();
        read_all(&producer, &consumer, agreement).await;
        consumer.go_back_to(older).await;
        consumer.clock.advance(Duration::from_secs(5));
        // The producer shows that it holds receipts which are not known here: the session ends, and the next one is of another series.
        let peer = consumer.at(&producer);
        let mut consumption = Consumption::open(&consumer.exchange, agreement)
            .await
            .unwrap();
        let request = consumption.request();
        let (ready, _) = producer
            .exchange
            .open_delivery(&peer, &request)
            .await
            .unwrap();
        assert!(consumption.begin(&ready).await.is_err());
        drop(consumption);
        read_all(&producer, &consumer, agreement).await;
        producer.publish(STREAM, 8 + seed, 3).await.unwrap();
        read_all(&producer, &consumer, agreement).await;
        assert_eq!(producer.records("fault").await, [], "{seed}");
        assert_eq!(producer.evidence.count(), 0);
        // And after another start it goes on in that series.
        consumer.restart().await;
        producer.publish(STREAM, 11 + seed, 1).await.unwrap();
        read_all(&producer, &consumer, agreement).await;
        let receipts = producer.records("receipt").await;
        let series: std::collections::BTreeSet<String> = receipts
            .iter()
            .map(|record| {
                let LedgerRecord::Receipt { envelope, .. } = record else {
                    panic!("{record:?}");
                };
                let envelope = Envelope::from_json(envelope.as_bytes());
                let receipt: countersign_event::documents::Receipt =
                    countersign_event::documents::Document::peek(&envelope.unwrap()).unwrap();
                hex::encode(receipt.series.0)
            })
            .collect();
        assert_eq!(series.len(), 2, "{seed}");
    }
}

/// A session with a producer that says to hold no more receipts than the consumer knows, or `more`; gives the receipt that it gets by that.
async fn receipt_for_a_liar(
    producer: &Node,
    consumer: &Node,
    agreement: AgreementId,
    more: u64,
) -> Option<Envelope> {
    let mut consumption = Consumption::open(&consumer.exchange, agreement)
        .await
        .unwrap();
    let request = consumption.request();
    let peer = consumer.at(producer);
    let opened = producer.exchange.open_delivery(&peer, &request).await;
    let (mut ready, delivery) = opened.unwrap();
    let series = (agreement, SeriesId(request.series));
    let known = consumer.exchange.registry().receipts.get(&series).cloned();
    ready.receipt_number = known.map_or(0, |last| last.receipt.number) + more;
    let begun = consumption.begin(&ready).await;
    assert_eq!(begun.is_err(), more > 0);
    begun.ok()?;
    let mut wire = Wire {
        delivery,
        consumption,
        resent: Vec::new(),
        paused: None,
        ended: None,
    };
    wire.flow().await;
    wire.sign().await
}

/// However often a backup of a consumer is restored, and whatever its producer says of the receipts that it holds: nobody ever has two that contradict
/// each other.
#[tokio::test]
async fn a_restored_consumer_contradicts_itself_for_no_liar() {
    for seed in 0..6u64 {
        let (producer, mut consumer, agreement) = partners(920 + seed, STREAM, 1000).await;
        let mut number = 1;
        for _ in 0..=seed {
            producer.publish(STREAM, number, 1).await.unwrap();
            number += 1;
            read_all(&producer, &consumer, agreement).await;
        }
        let older = consumer.disk.after_kill();
        for _ in 0..3 {
            producer.publish(STREAM, number, 2).await.unwrap();
            number += 2;
            read_all(&producer, &consumer, agreement).await;
        }
        let mut signed: Vec<Envelope> = Vec::new();
        for record in producer.records("receipt").await {
            let LedgerRecord::Receipt { envelope, .. } = record else {
                panic!("{record:?}");
            };
            signed.push(Envelope::from_json(envelope.as_bytes()).unwrap());
        }
        for _ in 0..2 {
            consumer.options.elsewhere = true;
            consumer.go_back_to(older.after_kill()).await;
            // Home again, before anything was signed here.
            consumer.options.elsewhere = false;
            consumer.restart().await;
            consumer.clock.advance(Duration::from_secs(5));
            signed.extend(receipt_for_a_liar(&producer, &consumer, agreement, 0).await);
            consumer.restart().await;
            // A series that is lost again has a successor that nobody can foresee.
            let copy = consumer.disk.after_kill();
            for _ in 0..2 {
                let none = receipt_for_a_liar(&producer, &consumer, agreement, 3).await;
                assert_eq!(none, None);
                producer.publish(STREAM, number, 1).await.unwrap();
                number += 1;
                signed.extend(receipt_for_a_liar(&producer, &consumer, agreement, 0).await);
                consumer.go_back_to(copy.after_kill()).await;
            }
        }
        assert_eq!(signed.len() as u64, seed + 1 + 3 + 6, "{seed}");
        for (at, one) in signed.iter().enumerate() {
            for other in &signed[at + 1..] {
                let fork = ReceiptFork::between(one, other);
                assert!(
                    fork.is_none(),
                    "{seed}: {:?}",
                    fork.unwrap().contradiction()
                );
            }
        }
    }
}

/// An agreement that is newer than the backup is forgotten with it: the partner is told so, and so are we.
#[tokio::test]
async fn an_agreement_newer_than_the_backup_is_named_on_both_sides() {
    let (mut producer, consumer, _) = partners(870, STREAM, 1000).await;
    producer.create("quakes").await;
    let older = producer.disk.after_kill();
    let invitation = producer
        .invite("quakes", Side::Producer, Plan::default())
        .await;
    let newer = join(&invitation, &producer, &consumer).await.unwrap();
    producer.go_back_to(older).await;
    assert_eq!(producer.exchange.unknown_agreements(), []);
    let refused = Wire::try_open(&producer, &consumer, newer).await;
    let Err(why) = refused else {
        panic!("it is not held here");
    };
    let text = format!("{why:?}");
    assert!(
        text.contains(&format!("no agreement {newer} is held here")),
        "{text}"
    );
    let named = producer.exchange.unknown_agreements();
    assert_eq!(named, [(consumer.authority().clone(), newer)]);
}

/// A numbered publisher whose numbers were lost is told where its series goes on, and why that may be.
#[tokio::test]
async fn lost_numbers_are_named() {
    let (mut producer, _, _) = partners(871, STREAM, 1000).await;
    producer.publish(STREAM, 1, 3).await.unwrap();
    let older = producer.disk.after_kill();
    producer.publish(STREAM, 4, 3).await.unwrap();
    producer.go_back_to(older).await;
    let refused = producer
        .publish(STREAM, 7, 1)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("number 7")
            && refused.contains("goes on with 4")
            && refused.contains("restored"),
        "{refused}"
    );
}
