//! Handing in against a node in memory, which speaks the protocol's frames.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use countersign_event::attributes::Attributes;
use countersign_event::content::{EventRef, Limits};
use countersign_protocol::publish::read_events;
use countersign_protocol::{Message, PublishAck, PublishBatch, PublishOpen, PublishReady, Refused};
use tokio::io::ReadBuf;

use super::*;
use crate::admin::AdminFrames;
use crate::cli::{Color, Global};
use crate::data_dir::Environment;

const ORIGIN: &str = "acme.example/streams/quakes";

/// A node that holds one stream, and does what a test tells it.
#[derive(Clone, Default)]
struct FakeNode(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// What each series holds.
    series: BTreeMap<[u8; 16], Vec<(u64, Vec<u8>)>>,
    next_sequence: u64,
    /// What to do at the next batches, before the batch is looked at; nothing = take it.
    plan: VecDeque<Plan>,
    opens: Vec<PublishOpen>,
    /// Counts of the batches that were taken.
    batches: Vec<(u64, u32)>,
    window_bytes: Option<u32>,
    refuse_open: Option<Refused>,
    event_bytes_max: Option<u32>,
}

enum Plan {
    Take,
    /// The answer waits until this many batches are here, or the input ends.
    Hold(usize),
    Refuse(Refused),
    /// Stores and closes without a word.
    Vanish,
    /// Loses all that it holds, as a node does that was restored from an older copy, and asks to come again.
    Forget,
    /// Acknowledges one event more than came.
    Overstate,
}

fn busy() -> Refused {
    refused("busy", "too many publishers hand in at once", 1)
}

fn refused(code: &str, reason: &str, retry_after_ms: u64) -> Refused {
    Refused {
        refusal: Vec::new(),
        code: code.to_owned(),
        reason: reason.to_owned(),
        retry_after_ms,
    }
}

impl Door for FakeNode {
    async fn open(&self) -> Result<AdminFrames, CommandError> {
        let (near, far) = AdminFrames::pair();
        tokio::spawn(self.clone().serve(far));
        Ok(near)
    }
}

impl FakeNode {
    fn planned(plan: impl IntoIterator<Item = Plan>) -> Self {
        let node = Self::default();
        node.state().plan.extend(plan);
        node
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    async fn serve(self, mut frames: AdminFrames) {
        let (kind, body) = frames.next().await.unwrap().unwrap();
        let open = PublishOpen::read(kind, &body).unwrap();
        let (answer, ready) = {
            let mut state = self.state();
            state.opens.push(open.clone());
            let held = state.series.get(&open.series);
            let ready = PublishReady {
                origin: ORIGIN.to_owned(),
                last_number: held.map_or(0, |events| events.len() as u64),
                last_sequence: held
                    .and_then(|events| events.last())
                    .map_or(0, |event| event.0),
                event_bytes_max: state.event_bytes_max.unwrap_or(1 << 20),
                window_bytes: state.window_bytes.unwrap_or(8 << 20),
                duplicate_window_events: 1024,
            };
            (state.refuse_open.take(), ready)
        };
        if let Some(refused) = answer {
            frames
                .write(Refused::KIND, &refused.to_body())
                .await
                .unwrap();
            return;
        }
        frames
            .write(PublishReady::KIND, &ready.to_body())
            .await
            .unwrap();
        // Answers that wait, and for how many batches.
        let mut held: Vec<PublishAck> = Vec::new();
        let mut hold = 0;
        while let Ok(Some((kind, body))) = frames.next().await {
            let (batch, bulk) = PublishBatch::read_bulk(kind, &body).unwrap();
            let plan = {
                let mut state = self.state();
                state.plan.pop_front().unwrap_or(Plan::Take)
            };
            match plan {
                Plan::Refuse(refused) => {
                    let _ = frames.write(Refused::KIND, &refused.to_body()).await;
                    return;
                }
                Plan::Hold(batches) => hold = batches,
                Plan::Forget => {
                    self.state().series.clear();
                    let _ = frames.write(Refused::KIND, &busy().to_body()).await;
                    return;
                }
                Plan::Take | Plan::Vanish | Plan::Overstate => {}
            }
            let stored = self.state().store(&open, batch, &bulk);
            match stored {
                Ok(mut ack) => {
                    ack.count += u32::from(matches!(plan, Plan::Overstate));
                    held.push(ack);
                }
                Err(reason) => {
                    let refused = refused("malformed", &reason, 0);
                    frames
                        .write(Refused::KIND, &refused.to_body())
                        .await
                        .unwrap();
                    return;
                }
            }
            if matches!(plan, Plan::Vanish) {
                return;
            }
            if held.len() >= hold {
                if hold > 0 && self.state().window_bytes.is_some() {
                    // The other side has had every chance to send more, and is waiting.
                    tokio::select! {
                        biased;
                        more = frames.next() => panic!("beyond the window came {:?}", more.map(|frame| frame.map(|frame| frame.0))),
                        () = yields(1_000) => {}
                    }
                }
                hold = 0;
                for ack in held.drain(..) {
                    if frames
                        .write(PublishAck::KIND, &ack.to_body())
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
            }
        }
    }

    fn stored(&self) -> Vec<Stored1> {
        let state = self.state();
        let mut events: Vec<_> = state.series.values().flatten().collect();
        events.sort_by_key(|(sequence, _)| *sequence);
        events
            .iter()
            .map(|(_, bytes)| Stored1::read(bytes))
            .collect()
    }

    fn ids(&self) -> Vec<String> {
        self.stored().into_iter().map(|event| event.id).collect()
    }
}

impl State {
    fn store(
        &mut self,
        open: &PublishOpen,
        batch: PublishBatch,
        bulk: &bytes::Bytes,
    ) -> Result<PublishAck, String> {
        let spans = read_events(bulk, batch.count).unwrap();
        let events = self.series.entry(open.series).or_default();
        let mut duplicates = 0;
        let mut last_sequence = 0;
        for (index, span) in spans.iter().enumerate() {
            let mut bytes = (span.attribute_bytes as u16).to_be_bytes().to_vec();
            bytes.extend_from_slice(span.attributes(bulk));
            bytes.extend_from_slice(span.data_part(bulk));
            let at = (batch.first_number - 1) as usize + index;
            match events.get(at) {
                Some((sequence, stored)) if *stored == bytes => {
                    duplicates += 1;
                    last_sequence = *sequence;
                }
                Some(_) => return Err("another event is stored under the same number".to_owned()),
                None => {
                    assert_eq!(at, events.len(), "numbers have no gaps");
                    last_sequence = self.next_sequence;
                    events.push((last_sequence, bytes));
                    self.next_sequence += 1;
                }
            }
        }
        self.batches.push((batch.first_number, batch.count));
        Ok(PublishAck {
            first_number: batch.first_number,
            count: batch.count,
            duplicates,
            last_sequence,
        })
    }
}

#[derive(Debug, PartialEq)]
struct Stored1 {
    id: String,
    source: String,
    kind: String,
    time: Option<String>,
    data: String,
}

impl Stored1 {
    fn read(bytes: &[u8]) -> Self {
        let length = u16::from_be_bytes([bytes[0], bytes[1]]) as usize;
        let (attributes, data_part) = bytes[2..].split_at(length);
        let event = EventRef::check(attributes, data_part, &Limits::FORMAT).unwrap();
        let attributes: &Attributes<'_> = event.attributes();
        let text = |name| {
            attributes
                .get(name)
                .map(|value| value.canonical_text().into_owned())
        };
        Self {
            id: attributes.id().to_owned(),
            source: attributes.source().to_owned(),
            kind: text("type").unwrap(),
            time: text("time"),
            data: String::from_utf8(event.data().data.to_vec()).unwrap(),
        }
    }
}

/// Lets all other tasks of this thread run so many times.
async fn yields(count: usize) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

fn args() -> PublishArgs {
    PublishArgs {
        stream: "quakes".to_owned(),
        file: "-".into(),
        create: false,
        event_type: None,
        source: None,
        id_from: None,
        time_from: None,
        batch: 1024,
        sign_as: None,
        again: false,
        attempts: 20,
        series: None,
    }
}

fn quiet() -> Output {
    let global = Global {
        data: None,
        json: false,
        quiet: true,
        verbose: 0,
        color: Color::Never,
    };
    Output::new(&global, &Environment::from([]))
}

async fn run(args: &PublishArgs, node: &FakeNode, input: &str) -> Result<Summary, CommandError> {
    let input = io::Cursor::new(input.as_bytes().to_vec());
    hand_in(args, node, input, None, &mut quiet()).await
}

/// `count` CloudEvents from number `from` on, one a line.
fn lines(from: usize, count: usize) -> String {
    (from..from + count).map(|n| event(n) + "\n").collect()
}

fn event(n: usize) -> String {
    format!(r#"{{"specversion":"1.0","id":"{n}","source":"/s","type":"t","data":{{"n": {n}}}}}"#)
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|n| n.to_string()).collect()
}

#[tokio::test]
async fn every_form_of_input_gives_the_same_events() {
    let batch = format!("[\n{}\n]", [event(0), event(1), event(2)].join(",\n"));
    let spread = lines(0, 3).replace("{\"n\"", "{\n\"n\"");
    for input in [
        lines(0, 3),
        batch,
        spread,
        lines(0, 3).trim_end().to_owned(),
    ] {
        let node = FakeNode::default();
        let summary = run(&args(), &node, &input).await.unwrap();
        assert_eq!(node.ids(), numbers(3), "{input}");
        assert_eq!((summary.published, summary.duplicates), (3, 0));
        assert_eq!(
            (summary.first_sequence, summary.last_sequence),
            (Some(0), Some(2))
        );
        assert_eq!(summary.origin, ORIGIN);
        assert_eq!(summary.bytes, input.len() as u64);
    }
}

#[tokio::test]
async fn plain_objects_are_wrapped_with_the_payload_as_it_came() {
    let node = FakeNode::default();
    let args = PublishArgs {
        event_type: Some("com.acme.audit".to_owned()),
        id_from: Some("key.id".to_owned()),
        time_from: Some("ts".to_owned()),
        ..args()
    };
    let line = r#"{"key":{"id":"a7"},  "ts":1767323045000, "specversion":"not one"}"#;
    run(&args, &node, line).await.unwrap();
    let expected = Stored1 {
        id: "a7".to_owned(),
        source: ORIGIN.to_owned(),
        kind: "com.acme.audit".to_owned(),
        time: Some("2026-01-02T03:04:05Z".to_owned()),
        data: line.to_owned(),
    };
    assert_eq!(node.stored(), [expected]);

    let sourced = PublishArgs {
        source: Some("/audit".to_owned()),
        ..args
    };
    let node = FakeNode::default();
    run(&sourced, &node, line).await.unwrap();
    assert_eq!(node.stored()[0].source, "/audit");
}

#[tokio::test]
async fn handing_in_twice_stores_nothing_twice() {
    let node = FakeNode::default();
    run(&args(), &node, &lines(0, 50)).await.unwrap();
    let again = run(&args(), &node, &lines(0, 50)).await.unwrap();
    assert_eq!((again.published, again.duplicates), (0, 50));
    assert_eq!(
        (again.first_sequence, again.last_sequence),
        (None, Some(49))
    );
    assert_eq!(node.ids(), numbers(50));
    assert_eq!(
        node.state().batches.last(),
        Some(&(50, 1)),
        "only the last is sent, as a check"
    );

    // The same holds for wrapped lines, whose source the series does not depend on.
    let wrapped = PublishArgs {
        event_type: Some("t".to_owned()),
        ..args()
    };
    let node = FakeNode::default();
    run(&wrapped, &node, "{\"a\":1}\n{\"a\":2}\n")
        .await
        .unwrap();
    let again = run(&wrapped, &node, "{\"a\":1}\n{\"a\":2}\n")
        .await
        .unwrap();
    assert_eq!((again.published, again.duplicates), (0, 2));
}

#[tokio::test]
async fn a_file_that_has_grown_goes_on_and_a_cut_one_does_not_harm() {
    let node = FakeNode::default();
    run(&args(), &node, &lines(0, 5)).await.unwrap();
    let grown = run(&args(), &node, &lines(0, 8)).await.unwrap();
    assert_eq!((grown.published, grown.duplicates), (3, 5));
    assert_eq!(
        (grown.first_sequence, grown.last_sequence),
        (Some(5), Some(7))
    );
    let cut = run(&args(), &node, &lines(0, 3)).await.unwrap();
    assert_eq!(
        (cut.published, cut.duplicates, cut.last_sequence),
        (0, 3, Some(2))
    );
    assert_eq!(node.ids(), numbers(8));
}

#[tokio::test]
async fn an_edited_file_is_told_from_one_that_has_grown() {
    let node = FakeNode::default();
    run(&args(), &node, &lines(0, 3)).await.unwrap();
    for input in [
        lines(0, 2) + &lines(7, 1) + &lines(3, 2),
        lines(0, 2) + &lines(7, 1),
    ] {
        let error = run(&args(), &node, &input).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Conflict);
        assert!(error.message.starts_with("line 3 differs"), "{error}");
        assert!(error.advice.unwrap().contains("--again"));
        assert_eq!(node.ids(), numbers(3));
    }
}

#[tokio::test]
async fn a_new_series_stores_the_input_once_more_and_can_be_continued() {
    let node = FakeNode::default();
    run(&args(), &node, &lines(0, 3)).await.unwrap();
    let again = PublishArgs {
        again: true,
        ..args()
    };
    let summary = run(&again, &node, &lines(0, 3)).await.unwrap();
    assert_eq!((summary.published, summary.duplicates), (3, 0));
    let named = PublishArgs {
        series: Some(summary.series),
        ..args()
    };
    let summary = run(&named, &node, &lines(0, 4)).await.unwrap();
    assert_eq!((summary.published, summary.duplicates), (1, 3));
    for series in ["", "12", &"0".repeat(32), &"g".repeat(32), &"1".repeat(34)] {
        let named = PublishArgs {
            series: Some(series.to_owned()),
            ..args()
        };
        let error = run(&named, &node, &lines(0, 1)).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Usage, "{series}");
    }
}

#[tokio::test]
async fn a_wrong_line_is_named_and_what_comes_before_it_is_stored() {
    for (wrong, column) in [
        ("{\"a\":", true),
        ("nonsense", true),
        (&event(1).replace("1.0", "9"), false),
    ] {
        let node = FakeNode::default();
        let input = format!("{}\n{wrong}\n{}", lines(0, 2), lines(3, 1));
        let error = run(&args(), &node, &input).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::EventInvalid);
        assert!(error.message.starts_with("line 4: "), "{error}");
        assert_eq!(error.message.contains("at column"), column, "{error}");
        assert!(
            error
                .message
                .ends_with("; 2 events are stored, up to line 2"),
            "{error}"
        );
        assert_eq!(node.ids(), numbers(2));
        // Corrected, it goes on.
        let input = format!("{}\n{}", lines(0, 2), lines(2, 2));
        run(&args(), &node, &input).await.unwrap();
        assert_eq!(node.ids(), numbers(4));
    }
}

#[tokio::test]
async fn plain_lines_without_a_type_are_told_of_it() {
    let node = FakeNode::default();
    let error = run(&args(), &node, "{\"a\":1}\n").await.unwrap_err();
    assert!(error.advice.unwrap().contains("--type"));
}

#[tokio::test]
async fn an_event_that_is_too_large_for_the_node_is_named() {
    let node = FakeNode::default();
    node.state().event_bytes_max = Some(20);
    let large = event(1).replace("{\"n\"", "{\"a long name of a member\"");
    let error = run(&args(), &node, &format!("{}{large}\n", lines(0, 1)))
        .await
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::EventTooLarge);
    assert!(error.message.starts_with("line 2: "), "{error}");
    assert_eq!(node.ids(), numbers(1));
}

#[tokio::test]
async fn a_busy_node_is_asked_again_and_nothing_is_lost_or_doubled() {
    let plan = [
        Plan::Take,
        Plan::Hold(3),
        Plan::Take,
        Plan::Refuse(busy()),
        Plan::Refuse(busy()),
    ];
    let node = FakeNode::planned(plan);
    node.state().refuse_open = Some(busy());
    let small = PublishArgs {
        batch: 10,
        ..args()
    };
    let summary = run(&small, &node, &lines(0, 100)).await.unwrap();
    assert_eq!(node.ids(), numbers(100));
    // Two batches had been stored when the node refused, and their answers were lost.
    assert_eq!((summary.published, summary.duplicates), (80, 20));
    assert_eq!(node.state().opens.len(), 4);
}

#[tokio::test]
async fn a_node_that_stays_busy_is_given_up_with_what_is_stored() {
    let plan = std::iter::once(Plan::Take).chain((0..100).map(|_| Plan::Refuse(busy())));
    let node = FakeNode::planned(plan);
    let small = PublishArgs {
        batch: 10,
        ..args()
    };
    let error = run(&small, &node, &lines(0, 100)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Busy);
    assert!(
        error
            .message
            .ends_with("; 10 events are stored, up to line 10"),
        "{error}"
    );
    assert_eq!(node.state().opens.len(), 21);
}

#[tokio::test]
async fn a_busy_node_is_asked_again_as_often_as_told() {
    let node = FakeNode::planned((0..100).map(|_| Plan::Refuse(busy())));
    let once = PublishArgs {
        attempts: 0,
        ..args()
    };
    let error = run(&once, &node, &lines(0, 10)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Busy);
    assert_eq!(node.state().opens.len(), 1);
}

#[tokio::test]
async fn refusals_of_the_stream_keep_their_code() {
    for (code, expected, advice) in [
        ("not-found", ErrorCode::NotFound, "--create"),
        ("not-permitted", ErrorCode::NotPermitted, "policy explain"),
        ("something-new", ErrorCode::Malformed, ""),
    ] {
        let node = FakeNode::default();
        node.state().refuse_open = Some(refused(code, "because\u{7}", 0));
        let error = run(&args(), &node, &lines(0, 1)).await.unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (expected, "because?"));
        assert!(error.advice.unwrap_or_default().contains(advice));
    }
}

#[tokio::test]
async fn a_lost_node_fails_with_what_is_known_and_the_next_run_finds_the_rest() {
    let node = FakeNode::planned([Plan::Take, Plan::Vanish]);
    let small = PublishArgs {
        batch: 10,
        ..args()
    };
    let error = run(&small, &node, &lines(0, 30)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Io);
    assert!(
        error
            .message
            .ends_with("; 10 events are stored, up to line 10"),
        "{error}"
    );
    let summary = run(&small, &node, &lines(0, 30)).await.unwrap();
    assert_eq!((summary.published, summary.duplicates), (10, 20));
    assert_eq!(node.ids(), numbers(30));
}

#[tokio::test]
async fn a_node_that_lost_what_it_acknowledged_or_acknowledges_what_was_not_sent_is_not_believed() {
    let small = PublishArgs {
        batch: 10,
        ..args()
    };
    for (plan, code) in [
        (Plan::Forget, ErrorCode::Conflict),
        (Plan::Overstate, ErrorCode::AdminProtocol),
    ] {
        let node = FakeNode::planned([Plan::Take, plan]);
        let error = run(&small, &node, &lines(0, 30)).await.unwrap_err();
        assert_eq!(error.code, code, "{error}");
    }
}

#[tokio::test]
async fn batches_are_on_their_way_together_within_the_window() {
    let node = FakeNode::planned([Plan::Hold(4)]);
    let small = PublishArgs { batch: 5, ..args() };
    run(&small, &node, &lines(0, 20)).await.unwrap();
    assert_eq!(node.state().batches, [(1, 5), (6, 5), (11, 5), (16, 5)]);

    // With room for two batches only, the third waits for an answer.
    let node = FakeNode::planned([Plan::Hold(2), Plan::Take, Plan::Hold(2)]);
    node.state().window_bytes = Some(700);
    run(&small, &node, &lines(0, 20)).await.unwrap();
    assert_eq!(node.ids(), numbers(20));
}

#[tokio::test]
async fn a_lone_line_of_a_pipe_does_not_wait_for_company() {
    let node = FakeNode::default();
    let (pipe, far) = tokio::io::duplex(1024);
    let publishing = {
        let node = node.clone();
        tokio::spawn(async move { hand_in(&args(), &node, far, None, &mut quiet()).await })
    };
    let (_, mut pipe) = tokio::io::split(pipe);
    for n in 0..3 {
        tokio::io::AsyncWriteExt::write_all(&mut pipe, lines(n, 1).as_bytes())
            .await
            .unwrap();
        // The pipe stays open: whoever waits for its end waits for ever.
        while node.ids().len() <= n {
            tokio::task::yield_now().await;
        }
    }
    tokio::io::AsyncWriteExt::shutdown(&mut pipe).await.unwrap();
    assert_eq!(publishing.await.unwrap().unwrap().published, 3);
}

#[tokio::test]
async fn nothing_still_opens_the_stream() {
    let node = FakeNode::default();
    let create = PublishArgs {
        create: true,
        ..args()
    };
    let summary = run(&create, &node, " \n").await.unwrap();
    assert_eq!((summary.published, summary.last_sequence), (0, None));
    assert!(node.state().opens[0].create);
}

#[tokio::test]
async fn input_that_breaks_is_an_error_and_what_came_is_stored() {
    struct Breaks(Option<Vec<u8>>);
    impl AsyncRead for Breaks {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            match self.0.take() {
                Some(bytes) => buf.put_slice(&bytes),
                None => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            }
            Poll::Ready(Ok(()))
        }
    }
    let node = FakeNode::default();
    let input = Breaks(Some(lines(0, 2).into_bytes()));
    let error = hand_in(&args(), &node, input, None, &mut quiet())
        .await
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::Io);
    assert_eq!(node.ids(), numbers(2));
}

#[test]
fn the_command_can_run_on_any_thread() {
    fn is_send<T: Send>(_: T) {}
    fn check(args: &PublishArgs, node: &Node, output: &mut Output) {
        is_send(publish(args, node, output));
    }
    let _ = check;
}

/// A node with a data directory of its own, in this process.
async fn real_node(directory: &tempfile::TempDir) -> (crate::data_dir::DataDir, Node) {
    let options = crate::init::InitOptions {
        name: "Acme".to_owned(),
        domain: None,
        config: crate::config::Config::default(),
        data: directory.path().join("node"),
    };
    let now = countersign_event::time::Timestamp(1_800_000_000_000_000);
    crate::init::init(&options, now).unwrap();
    let dir = crate::data_dir::DataDir::open(&options.data).unwrap();
    let node = Node::find(&dir, &crate::parts::AllParts).await.unwrap();
    (dir, node)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_node_takes_it_and_recognises_it_again() {
    const COUNT: usize = 20_000;
    let directory = tempfile::tempdir().unwrap();
    let (_dir, node) = real_node(&directory).await;
    let filler = "x".repeat(900);
    let input: String = (0..COUNT)
        .map(|n| event(n).replace("\"n\":", &format!("\"{filler}\":")) + "\n")
        .collect();
    let create = PublishArgs {
        create: true,
        ..args()
    };
    let hand = |input: String| {
        let (create, node) = (&create, &node);
        async move {
            hand_in(
                create,
                node,
                io::Cursor::new(input.into_bytes()),
                None,
                &mut quiet(),
            )
            .await
        }
    };
    let first = hand(input.clone()).await.unwrap();
    assert_eq!((first.published, first.duplicates), (COUNT as u64, 0));
    // The genesis is before them.
    assert_eq!(
        (first.first_sequence, first.last_sequence),
        (Some(1), Some(COUNT as u64))
    );
    let second = hand(input.clone() + &lines(COUNT, 1)).await.unwrap();
    assert_eq!((second.published, second.duplicates), (1, COUNT as u64));
    let edited = hand(input).await.unwrap();
    assert_eq!((edited.published, edited.duplicates), (0, COUNT as u64));
    let other = event(0).replace("\"n\":", &format!("\"{filler}\":")) + "\n" + &lines(7, 1);
    hand(other).await.unwrap_err();
}
