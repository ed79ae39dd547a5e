//! Handing in: acknowledged once, stored once, in order, whatever is repeated.

use std::time::Duration;

use countersign_crypto::SeededEntropy;
use countersign_event::content::Limits;
use countersign_exchange::pipeline::append::{
    AppendError, Appended, COMMIT_DELAY_MAX, Done, SIGNATURE_TIME, SIGNING_SHARE, answer,
};
use countersign_exchange::pipeline::duplicates::{Publisher, RUNS_MAX};
use countersign_exchange::pipeline::ingest::IngestError;
use countersign_exchange::{ExchangeError, Peer, StreamOptions};
use countersign_protocol::PublishOpen;
use tokio::sync::oneshot::Receiver;

use crate::support::*;

fn refused(result: Result<Appended, ExchangeError>) -> AppendError {
    match result {
        Err(ExchangeError::Append(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn appended(last_sequence: u64, duplicates: u32, count: u32) -> Appended {
    Appended {
        last_sequence,
        duplicates,
        count,
    }
}

/// Hands batches in so closely that one commit takes them: the writer is kept busy while they are queued.
async fn in_one_commit(
    node: &Node,
    batches: Vec<(u64, Vec<countersign_event::content::Event>)>,
    series: u8,
) -> Vec<Result<Appended, AppendError>> {
    let (_, session) = node.session("s", series).await;
    let open = hold_writer(node).await;
    let before = node.exchange.reader().last_commit();
    let mut receivers: Vec<Receiver<_>> = Vec::new();
    for (first, events) in batches {
        let (done, receiver) = answer();
        let (count, bulk) = bulk_of(&events);
        session.submit(first, count, bulk, done).await.unwrap();
        receivers.push(receiver);
    }
    open.send(()).unwrap();
    let mut results = Vec::new();
    for receiver in receivers {
        results.push(receiver.await.unwrap());
    }
    let commits = node.exchange.reader().last_commit() - before;
    assert_eq!(commits, 1);
    results
}

/// Holds the writer's thread until something is sent, so that one commit takes all that comes meanwhile.
async fn hold_writer(node: &Node) -> std::sync::mpsc::Sender<()> {
    let (_, blocker) = node.session("blocker", 7).await;
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let (held, holds) = tokio::sync::oneshot::channel();
    let (count, bulk) = bulk_of(&[event("b", "b")]);
    let first = blocker.log().size();
    // `done` runs on the writer's thread.
    let wait: Done = Box::new(move |_| {
        held.send(()).unwrap();
        let _ = gate.recv();
    });
    blocker.submit(first, count, bulk, wait).await.unwrap();
    holds.await.unwrap();
    open
}

#[tokio::test]
async fn every_event_reads_back_byte_for_byte_in_order() {
    let mut node = Node::new(1, "Node").await;
    let events = events("n", 1, 300);
    let (_, session) = node.session("s", 1).await;
    for (at, batch) in events.chunks(37).enumerate() {
        let (count, bulk) = bulk_of(batch);
        let first = at as u64 * 37 + 1;
        let got = session.submit_and_wait(first, count, bulk).await.unwrap();
        assert_eq!(got, appended(first + u64::from(count) - 1, 0, count));
    }
    assert_eq!(
        stored_events(&node.exchange, session.log()),
        bytes_of(&events)
    );
    node.restart().await;
    let log = node.log("s");
    assert_eq!(stored_events(&node.exchange, &log), bytes_of(&events));
}

#[tokio::test]
async fn a_numbered_repeat_gets_the_first_answer_now_and_after_every_kind_of_stop() {
    let mut node = Node::new(2, "Node").await;
    node.create("s").await;
    assert_eq!(node.publish("s", 1, 10).await.unwrap(), appended(10, 0, 10));
    for round in 0..4 {
        match round {
            1 => node.restart().await,
            2 => node.kill().await,
            3 => node.lose_power(5).await,
            _ => {}
        }
        let before = stored(&node.exchange, &node.log("s"));
        assert_eq!(
            node.publish("s", 1, 10).await.unwrap(),
            appended(10, 10, 10),
            "{round}"
        );
        assert_eq!(
            node.publish("s", 3, 2).await.unwrap(),
            appended(4, 2, 2),
            "{round}"
        );
        assert_eq!(stored(&node.exchange, &node.log("s")), before);
        let (ready, _) = node.session("s", 1).await;
        assert_eq!((ready.last_number, ready.last_sequence), (10, 10));
    }
    // A batch that is half old goes on where the old half ends.
    assert_eq!(node.publish("s", 8, 6).await.unwrap(), appended(13, 3, 6));
    node.kill().await;
    assert_eq!(node.publish("s", 8, 6).await.unwrap(), appended(13, 6, 6));
    assert_eq!(
        stored_events(&node.exchange, &node.log("s")),
        bytes_of(&events("n", 1, 13))
    );
}

#[tokio::test]
async fn a_gap_and_a_conflict_are_refused_with_nothing_appended() {
    let mut node = Node::new(3, "Node").await;
    node.publish("s", 1, 5).await.unwrap();
    for round in 0..2 {
        let before = stored(&node.exchange, &node.log("s"));
        let gap = |found| AppendError::Gap { expected: 6, found };
        assert_eq!(refused(node.publish("s", 7, 1).await), gap(7));
        assert_eq!(refused(node.publish("s", 0, 1).await), gap(0));
        let (_, session) = node.session("s", 1).await;
        let (count, bulk) = bulk_of(&events("n", 1, 3));
        let far = session.submit_and_wait(u64::MAX, count, bulk).await;
        assert_eq!(refused(far), gap(u64::MAX));
        let mut batch = events("n", 3, 5);
        batch[1] = event("n-4", "something else");
        let (_, session) = node.session("s", 1).await;
        let (count, bulk) = bulk_of(&batch);
        let error = refused(session.submit_and_wait(3, count, bulk).await);
        let conflict = AppendError::Conflict {
            index: 1,
            sequence: 4,
        };
        assert_eq!(error, conflict);
        assert_eq!(stored(&node.exchange, &node.log("s")), before);
        if round == 0 {
            node.kill().await;
        }
    }
    assert_eq!(node.publish("s", 6, 1).await.unwrap(), appended(6, 0, 1));
}

#[tokio::test]
async fn repeats_gaps_and_conflicts_are_seen_within_one_commit() {
    let node = Node::new(4, "Node").await;
    node.create("s").await;
    let mut other = events("n", 2, 4);
    other[0] = event("n-2", "something else");
    let batches = vec![
        (1, events("n", 1, 3)),
        (1, events("n", 1, 3)),
        (5, events("n", 5, 1)),
        (2, other),
        (2, events("n", 2, 4)),
    ];
    let results = in_one_commit(&node, batches, 1).await;
    let conflict = AppendError::Conflict {
        index: 0,
        sequence: 2,
    };
    let gap = AppendError::Gap {
        expected: 4,
        found: 5,
    };
    let expected = [
        Ok(appended(3, 0, 3)),
        Ok(appended(3, 3, 3)),
        Err(gap),
        Err(conflict),
        Ok(appended(5, 2, 4)),
    ];
    assert_eq!(results, expected);
    let log = node.log("s");
    assert_eq!(
        stored_events(&node.exchange, &log),
        bytes_of(&events("n", 1, 5))
    );
}

#[tokio::test]
async fn an_unnumbered_repeat_gets_the_first_answer_and_another_event_with_its_identity_is_a_conflict()
 {
    let mut node = Node::new(5, "Node").await;
    node.create("s").await;
    let open = |events: Vec<_>| bulk_of(&events);
    let (_, session) = node.session("s", 0).await;
    let (count, bulk) = open(events("u", 1, 4));
    let got = session.submit_and_wait(1, count, bulk).await.unwrap();
    assert_eq!(got, appended(4, 0, 4));
    drop(session);
    for round in 0..3 {
        match round {
            1 => node.restart().await,
            2 => node.kill().await,
            _ => {}
        }
        let before = stored(&node.exchange, &node.log("s"));
        let (_, session) = node.session("s", 0).await;
        let (count, bulk) = open(events("u", 2, 2));
        let got = session.submit_and_wait(99, count, bulk).await.unwrap();
        assert_eq!(got, appended(3, 2, 2), "{round}");
        let (count, bulk) = open(vec![event("fresh", "1"), event("u-2", "something else")]);
        let error = refused(session.submit_and_wait(1, count, bulk).await);
        let conflict = AppendError::Conflict {
            index: 1,
            sequence: 2,
        };
        assert_eq!(error, conflict, "{round}");
        let (count, bulk) = open(vec![event("same", "1"), event("same", "2")]);
        assert!(matches!(
            refused(session.submit_and_wait(1, count, bulk).await),
            AppendError::Conflict { index: 1, .. }
        ));
        assert_eq!(stored(&node.exchange, &node.log("s")), before, "{round}");
    }
    let (_, session) = node.session("s", 0).await;
    let batch = vec![
        event("u-1", "{\"u\":1}"),
        event("new", "1"),
        event("new", "1"),
        event("u-3", "{\"u\":3}"),
    ];
    let (count, bulk) = open(batch);
    let got = session.submit_and_wait(1, count, bulk).await.unwrap();
    assert_eq!((got.duplicates, got.count), (3, 4));
    assert_eq!(node.log("s").size(), 6);
}

#[tokio::test]
async fn unnumbered_repeats_and_conflicts_are_seen_within_one_commit() {
    let node = Node::new(6, "Node").await;
    node.create("s").await;
    let batches = vec![
        (1, events("u", 1, 2)),
        (2, events("u", 1, 3)),
        (3, vec![event("fresh", "1"), event("u-1", "something else")]),
    ];
    let results = in_one_commit(&node, batches, 0).await;
    let conflict = AppendError::Conflict {
        index: 1,
        sequence: 1,
    };
    let expected = [Ok(appended(2, 0, 2)), Ok(appended(3, 2, 3)), Err(conflict)];
    assert_eq!(results, expected);
    assert_eq!(
        stored_events(&node.exchange, &node.log("s")),
        bytes_of(&events("u", 1, 3))
    );
}

#[tokio::test]
async fn an_unnumbered_event_is_recognised_the_same_before_and_after_a_restart() {
    let mut node = Node::new(7, "Node").await;
    node.create("s").await;
    // The window is in use before a numbered publisher stores the event.
    let (_, unnumbered) = node.session("s", 0).await;
    let (count, bulk) = bulk_of(&events("u", 1, 1));
    unnumbered.submit_and_wait(1, count, bulk).await.unwrap();
    node.publish("s", 1, 1).await.unwrap();
    let (count, bulk) = bulk_of(&events("n", 1, 1));
    let live = unnumbered.submit_and_wait(1, count, bulk.clone()).await;
    drop(unnumbered);
    node.restart().await;
    let (_, unnumbered) = node.session("s", 0).await;
    let again = unnumbered.submit_and_wait(1, count, bulk).await;
    assert_eq!(live.unwrap(), appended(2, 1, 1));
    assert_eq!(again.unwrap(), appended(2, 1, 1));
}

#[tokio::test]
async fn a_repeat_from_before_the_window_is_told_where_the_series_stands() {
    let mut node = Node::new(8, "Node").await;
    node.create("s").await;
    let (_, one) = node.session("s", 1).await;
    let (_, two) = node.session("s", 2).await;
    let runs = RUNS_MAX as u64 + 5;
    // Two publishers take turns, so that no two runs of either can be joined.
    let mut last = None;
    for number in 1..=runs {
        for session in [&one, &two] {
            let (done, receiver) = answer();
            let (count, bulk) = bulk_of(&events("n", number, 1));
            session.submit(number, count, bulk, done).await.unwrap();
            last = Some(receiver);
        }
        // Fewer than the publishers that one commit takes.
        if number % 100 == 0 || number == runs {
            let got = last.take().unwrap().await.unwrap().unwrap();
            assert_eq!(got, appended(2 * number, 0, 1));
        }
    }
    drop((one, two));
    for round in 0..3 {
        match round {
            1 => node.restart().await,
            2 => node.kill().await,
            _ => {}
        }
        let old = AppendError::Old {
            last_number: runs,
            last_sequence: 2 * runs - 1,
        };
        assert_eq!(refused(node.publish("s", 1, 1).await), old, "{round}");
        // One that begins before the window and ends within it cannot be answered like the first time either.
        assert_eq!(refused(node.publish("s", 5, 2).await), old, "{round}");
        let got = node.publish("s", 6, 1).await;
        let got = got.unwrap_or_else(|error| panic!("{round}: {error}"));
        assert_eq!(got, appended(11, 1, 1), "{round}");
    }
    assert_eq!(node.log("s").size(), 2 * runs + 1);
}

#[tokio::test]
async fn publishers_series_and_streams_are_independent() {
    let node = Node::new(9, "Node").await;
    let app_key =
        |seed| countersign_crypto::SigningKey::generate(&mut SeededEntropy::new(seed)).public();
    let mut peers = vec![Peer::Local];
    for (name, key) in [("one", app_key(1)), ("two", app_key(2))] {
        node.exchange.enrol_app(name, key, true).await.unwrap();
        let hello = countersign_protocol::Hello {
            key_statement: Vec::new(),
            ..node.hello()
        };
        peers.push(node.exchange.identify(&hello, &key).unwrap());
    }
    let mut expected: std::collections::HashMap<String, Vec<Vec<u8>>> = Default::default();
    for stream in ["a", "b"] {
        for (at, peer) in peers.iter().enumerate() {
            for series in [1, 2] {
                let open = PublishOpen {
                    stream: stream.to_owned(),
                    series: [series; 16],
                    create: true,
                };
                let (ready, session) = node.exchange.open_publish(peer, &open).await.unwrap();
                assert_eq!(ready.last_number, 0);
                let batch = events(&format!("{at}-{series}"), 1, 2);
                let (count, bulk) = bulk_of(&batch);
                let got = session.submit_and_wait(1, count, bulk).await.unwrap();
                assert_eq!(got.duplicates, 0);
                let all = expected.entry(stream.to_owned()).or_default();
                all.extend(bytes_of(&batch));
            }
        }
    }
    for (stream, expected) in expected {
        assert_eq!(stored_events(&node.exchange, &node.log(&stream)), expected);
    }
}

#[tokio::test]
async fn an_application_that_is_not_enrolled_any_more_is_not_identified() {
    let node = Node::new(10, "Node").await;
    let key = countersign_crypto::SigningKey::generate(&mut SeededEntropy::new(3)).public();
    let hello = countersign_protocol::Hello {
        key_statement: Vec::new(),
        ..node.hello()
    };
    assert!(node.exchange.identify(&hello, &key).is_err());
    node.exchange.enrol_app("app", key, true).await.unwrap();
    assert!(node.exchange.identify(&hello, &key).is_ok());
    node.exchange.enrol_app("app", key, false).await.unwrap();
    assert!(node.exchange.identify(&hello, &key).is_err());
}

#[tokio::test]
async fn an_event_beyond_the_limit_of_node_or_stream_is_refused_and_nothing_of_its_batch_is_taken()
{
    let options = NodeOptions {
        limits: Limits {
            data_bytes_max: 1000,
            ..Limits::default()
        },
        ..NodeOptions::default()
    };
    let node = Node::with(Org::new(11, "Node"), 11, options).await;
    let small = StreamOptions {
        event_bytes_max: 10,
        ..StreamOptions::default()
    };
    let name = "small".parse().unwrap();
    node.exchange.create_stream(&name, small).await.unwrap();
    for (stream, max) in [("s", 1000), ("small", 10)] {
        let (ready, session) = node.session(stream, 1).await;
        assert_eq!(ready.event_bytes_max, max);
        let fits = event("1", &"x".repeat(max as usize));
        let over = event("2", &"x".repeat(max as usize + 1));
        let (count, bulk) = bulk_of(&[fits.clone(), over]);
        let result = session.submit_and_wait(1, count, bulk).await;
        assert!(matches!(
            result,
            Err(ExchangeError::Ingest(IngestError::Event { index: 1, .. }))
        ));
        assert_eq!(session.log().size(), 1);
        let (count, bulk) = bulk_of(&[fits]);
        session.submit_and_wait(1, count, bulk).await.unwrap();
    }
}

#[tokio::test]
async fn malformed_batches_are_refused_whole() {
    let node = Node::new(12, "Node").await;
    let (_, session) = node.session("s", 1).await;
    let (count, bulk) = bulk_of(&events("n", 1, 3));
    let wrong = [
        (count, bulk.slice(..bulk.len() - 1)),
        (count + 1, bulk.clone()),
        (count - 1, bulk.clone()),
        (u32::MAX, bulk.clone()),
        (0, bytes::Bytes::new()),
        (1, vec![0xff; 100].into()),
    ];
    for (count, bulk) in wrong {
        let result = session.submit_and_wait(1, count, bulk).await;
        assert!(matches!(result, Err(ExchangeError::Ingest(_))));
    }
    assert_eq!(session.log().size(), 1);
}

#[tokio::test]
async fn one_commit_and_one_sync_take_the_events_of_many_streams() {
    let node = Node::new(13, "Node").await;
    let mut sessions = Vec::new();
    for stream in 0..20 {
        sessions.push(node.session(&format!("s{stream}"), 1).await.1);
    }
    let open = hold_writer(&node).await;
    let before = node.exchange.reader().last_commit();
    let mut receivers = Vec::new();
    for session in &sessions {
        let (done, receiver) = answer();
        let (count, bulk) = bulk_of(&events("n", 1, 3));
        session.submit(1, count, bulk, done).await.unwrap();
        receivers.push(receiver);
    }
    open.send(()).unwrap();
    for receiver in receivers {
        assert_eq!(receiver.await.unwrap().unwrap(), appended(3, 0, 3));
    }
    assert_eq!(node.exchange.reader().last_commit(), before + 1);
    for session in &sessions {
        let head = session.log().head();
        let checkpoint = countersign_tlog::Checkpoint {
            origin: session.log().origin().to_string(),
            size: 4,
            root: head.root,
        };
        let key = node.org.identity.log_key.public();
        countersign_tlog::checkpoint::verify_signature(
            &checkpoint,
            &key,
            &head.signature.unwrap().signature,
        )
        .unwrap();
    }
}

/// Many turns of the writer: what it may commit, it has committed afterwards.
async fn let_the_writer_turn(node: &Node) {
    let publisher = Publisher {
        key: [0; 32],
        series: [9; 16],
    };
    for _ in 0..50 {
        let number = node.log("s0").number();
        node.exchange.writer().series_state(number, publisher).await;
    }
}

#[tokio::test]
async fn with_many_streams_busy_the_next_commit_waits_in_proportion_and_within_its_bound() {
    let one = SIGNATURE_TIME * SIGNING_SHARE;
    // More of them than the bound lets the next commit wait for.
    let streams = COMMIT_DELAY_MAX.div_duration_f64(one) as usize + 10;
    let node = Node::new(219, "producer").await;
    let mut sessions = Vec::new();
    for stream in 0..streams {
        sessions.push(node.session(&format!("s{stream}"), 1).await.1);
    }
    let submit = async |stream: usize, number: u64, done: Done| {
        let (count, bulk) = bulk_of(&events("n", number, 1));
        let submitted = sessions[stream].submit(number, count, bulk, done).await;
        submitted.unwrap();
    };
    let tick = Duration::from_micros(1);
    node.clock.stand_still();

    // A lone event waits for nobody, and the next commit for what its signature costs.
    let (done, first) = answer();
    submit(0, 1, done).await;
    first.await.unwrap().unwrap();
    let before = node.exchange.reader().last_commit();
    let mut receivers = Vec::new();
    for stream in 0..streams {
        let (done, receiver) = answer();
        submit(stream, if stream == 0 { 2 } else { 1 }, done).await;
        receivers.push(receiver);
    }
    node.clock.advance(one - tick);
    let_the_writer_turn(&node).await;
    assert!(receivers.iter_mut().all(|r| r.try_recv().is_err()));
    // The ledger may have had a word to add to the lone event's commit.
    node.clock.advance(4 * one);
    for receiver in receivers {
        receiver.await.unwrap().unwrap();
    }
    assert_eq!(node.exchange.reader().last_commit(), before + 1);

    // After so many signatures it waits as long as the bound says, and no longer. The bound counts from the end of the commit, which is after the answers.
    let_the_writer_turn(&node).await;
    let (done, mut last) = answer();
    submit(0, 3, done).await;
    node.clock.advance(COMMIT_DELAY_MAX - tick);
    let_the_writer_turn(&node).await;
    assert!(last.try_recv().is_err());
    node.clock.advance(tick);
    last.await.unwrap().unwrap();
}
