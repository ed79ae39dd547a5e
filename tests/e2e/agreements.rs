//! Agreements between real nodes: asked for, granted, held, refused, countered, suspended while events flow, replaced while events flow.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use support::{Node, Root, wait_until};

const STREAM: &str = "orders";
const MORE: &str = "more";

/// Beside the starter policy, which leaves requests to a person.
const SELF_SERVICE: &str = r#"
@id("free")
permit (principal, action == Action::"request", resource)
when { principal.partner && context has plan && context.plan == "free" };
@id("wholesale")
@advice("to ask for less")
forbid (principal, action == Action::"request", resource)
when { context has plan && context.plan == "wholesale" };
@id("hidden")
forbid (principal, action == Action::"discover", resource)
when { resource.name == "hidden" };
"#;

const PLANS: &str = r#"
[[plans]]
name = "free"
exposure_events = 100
erasure = "obey"

[[plans]]
name = "paid"
exposure_events = 1000
erasure = "obey"

[[plans]]
name = "wholesale"
exposure_events = 1000
erasure = "obey"
"#;

/// Two nodes under an agreement on one stream; the producer offers another one under plans.
fn partners(root: &Root) -> (Node, Node) {
    let mut producer = Node::init(root.path(), "Producer", &[]);
    let mut consumer = Node::init(root.path(), "Consumer", &[]);
    fs::write(
        producer.data.join("policies/self-service.cedar"),
        SELF_SERVICE,
    )
    .unwrap();
    producer.serve();
    consumer.serve();
    let plans = root.path().join("plans.toml");
    fs::write(&plans, PLANS).unwrap();
    for stream in [STREAM, MORE, "hidden"] {
        producer.json(&["stream", "create", stream]);
        producer.json(&["plan", "set", stream, plans.to_str().unwrap()]);
    }
    producer.share(STREAM, &consumer);
    (producer, consumer)
}

fn publish(root: &Root, node: &Node, stream: &str, name: &str, events: u64) {
    let file = root.path().join(format!("{name}.ndjson"));
    let lines = (0..events).fold(String::new(), |mut lines, n| {
        writeln!(
            lines,
            r#"{{"specversion":"1.0","id":"{name}-{n}","source":"/orders","type":"com.example.order","data":{{"n":{n}}}}}"#
        )
        .unwrap();
        lines
    });
    fs::write(&file, lines).unwrap();
    node.json(&["publish", stream, file.to_str().unwrap()]);
}

fn state(node: &Node, agreement: &str) -> Value {
    node.json(&["agreement", "info", agreement])
}

#[track_caller]
fn wait_for_state(node: &Node, agreement: &str, wanted: &str) {
    wait_until(wanted, || {
        let found = node.json(&["agreement", "ls"]);
        let mut all = found.as_array()?.iter();
        let one = all.find(|one| one["id"] == agreement)?;
        (one["state"] == wanted).then_some(())
    });
}

/// The head of a stream, where there is one.
fn head(node: &Node, stream: &str) -> Option<(u64, Value)> {
    let output = node.run(&["stream", "info", stream, "--json"]);
    let info: Value = serde_json::from_slice(&output.stdout).ok()?;
    Some((info["size"].as_u64()?, info["root"].clone()))
}

#[track_caller]
fn wait_for_copy(producer: &Node, consumer: &Node, stream: &str) -> u64 {
    wait_until("the copy is the log", || {
        let log = head(producer, stream)?;
        let copy = head(consumer, &format!("producer/{stream}"))?;
        (log == copy).then_some(log.0)
    })
}

fn id_of(value: &Value) -> String {
    value["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_consumer_helps_itself_and_is_granted_held_or_refused() {
    let root = Root::new();
    let (producer, consumer) = partners(&root);
    publish(&root, &producer, MORE, "first", 10);

    let listed = consumer.json(&["stream", "ls", "--of", "producer"]);
    let names: Vec<&str> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["stream"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["producer/more", "producer/orders"]);
    assert_eq!(listed[0]["plans"], "free, paid, wholesale");

    // Granted by policy, and read from at once.
    let granted = consumer.json(&["agreement", "request", "producer/more", "--plan", "free"]);
    assert_eq!(granted["state"], "active", "{granted}");
    let free = id_of(&granted);
    wait_for_copy(&producer, &consumer, MORE);
    wait_for_state(&producer, &free, "active");

    // Held for a person: it would take the place of the first one on this stream.
    let held = [
        "agreement",
        "request",
        "producer/orders",
        "--plan",
        "paid",
        "--wait",
        "1s",
    ];
    let held = id_of(&consumer.json(&held));
    wait_for_state(&producer, &held, "proposed");
    assert_eq!(producer.json(&["status"])["proposals_waiting"], 1);
    let (_, metrics) = producer.http("/metrics").unwrap();
    assert!(metrics.contains("countersign_proposals_waiting 1"));
    let again = consumer.run(&["agreement", "request", "producer/orders", "--plan", "paid"]);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    let approved = producer.json(&["agreement", "approve", &held]);
    assert_eq!(approved["state"], "active", "{approved}");
    wait_for_state(&consumer, &held, "active");
    publish(&root, &producer, STREAM, "second", 10);
    wait_for_copy(&producer, &consumer, STREAM);

    // Refused, with the reason; what may not be seen is answered like what is not there.
    let refused = |stream: &str, plan: &str| {
        let refused = consumer.run(&["agreement", "request", stream, "--plan", plan]);
        assert_eq!(refused.status.code(), Some(7), "{refused:?}");
        let said = String::from_utf8(refused.stderr).unwrap();
        said.lines()
            .find(|line| line.contains("refused"))
            .unwrap()
            .to_owned()
    };
    let why = refused("producer/more", "wholesale");
    assert!(why.contains("to ask for less"), "{why}");
    let hidden = refused("producer/hidden", "free");
    assert_eq!(
        hidden.replace("hidden", "missing"),
        refused("producer/missing", "free")
    );

    // A person says no.
    let asked = [
        "agreement",
        "request",
        "producer/more",
        "--plan",
        "paid",
        "--wait",
        "1s",
    ];
    let asked = id_of(&consumer.json(&asked));
    wait_for_state(&producer, &asked, "proposed");
    producer.json(&["agreement", "refuse", &asked, "--reason", "not this year"]);
    wait_for_state(&consumer, &asked, "refused");
    assert_eq!(state(&consumer, &asked)["because"], "not this year");
    assert_eq!(state(&consumer, &free)["state"], "active");

    // What was agreed and replaced that way is evidence like any other.
    for (node, stream) in [(&producer, STREAM), (&consumer, "producer/orders")] {
        let out = root.path().join(format!("bundle-of-{}", node.fingerprint));
        let out = out.to_str().unwrap();
        node.json(&["evidence", "export", stream, "--out", out]);
        let trust = [
            "--trust",
            &producer.fingerprint,
            "--trust",
            &consumer.fingerprint,
        ];
        let verified = node.json(&[&["evidence", "verify", out][..], &trust].concat());
        assert_eq!(verified["verdict"], "whole", "{verified}");
    }
}

#[test]
fn a_request_is_countered_and_accepted_across_a_restart() {
    let root = Root::new();
    let (mut producer, mut consumer) = partners(&root);
    let asked = [
        "agreement",
        "request",
        "producer/more",
        "--plan",
        "paid",
        "--wait",
        "1s",
    ];
    let asked = id_of(&consumer.json(&asked));
    wait_for_state(&producer, &asked, "proposed");
    producer.json(&["agreement", "counter", &asked, "--plan", "free"]);
    wait_for_state(&consumer, &asked, "countered");
    for node in [&mut producer, &mut consumer] {
        node.terminate();
        node.serve();
        assert_eq!(state(node, &asked)["state"], "countered");
    }
    assert_eq!(state(&consumer, &asked)["next"], "accept, counter, refuse");
    let agreed = consumer.json(&["agreement", "approve", &asked]);
    assert_eq!(
        (&agreed["state"], &agreed["plan"]["name"]),
        (&"active".into(), &"free".into())
    );
    publish(&root, &producer, MORE, "first", 10);
    wait_for_copy(&producer, &consumer, MORE);
    for node in [&producer, &consumer] {
        node.json(&["ledger", "verify"]);
    }
}

/// Does something while events are published without a pause.
fn while_events_flow(root: &Root, producer: &Node, act: impl FnOnce()) {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        // Also where a check fails.
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&done);
        scope.spawn(|| {
            let mut round = 0;
            while !done.load(Ordering::SeqCst) {
                publish(root, producer, STREAM, &format!("round-{round}"), 200);
                round += 1;
            }
        });
        act();
    });
}

#[test]
fn a_suspension_while_events_flow_stops_at_its_position_and_resuming_loses_nothing() {
    let root = Root::new();
    let (producer, mut consumer) = partners(&root);
    let first = producer.json(&["agreement", "ls"]);
    let id = id_of(&first[0]);
    let copy = "producer/orders";
    while_events_flow(&root, &producer, || {
        wait_until("events arrive", || {
            head(&consumer, copy).filter(|head| head.0 > 300)
        });
        let suspend = [
            "agreement",
            "suspend",
            &id,
            "--reason",
            "arrears",
            "--text",
            "unpaid",
        ];
        let suspended = producer.json(&suspend);
        assert_eq!(
            (&suspended["state"], &suspended["cause"]),
            (&"suspended".into(), &"arrears".into())
        );
        let position = suspended["position"].as_u64().unwrap();
        wait_for_state(&consumer, &id, "suspended");
        wait_until("what was handed out arrives", || {
            head(&consumer, copy).filter(|head| head.0 == position)
        });
        let more = head(&producer, STREAM).unwrap().0 + 300;
        wait_until("more is published", || {
            head(&producer, STREAM).filter(|head| head.0 > more)
        });
        assert_eq!(head(&consumer, copy).unwrap().0, position);
        // Not the consumer's to lift, and no restart forgets it.
        let foreign = consumer.run(&["agreement", "resume", &id]);
        assert_eq!(foreign.status.code(), Some(1));
        consumer.terminate();
        consumer.serve();
        assert_eq!(state(&consumer, &id)["state"], "suspended");
        assert_eq!(head(&consumer, copy).unwrap().0, position);
        producer.json(&["agreement", "resume", &id, "--reason", "paid"]);
        wait_for_state(&consumer, &id, "active");
    });
    wait_for_copy(&producer, &consumer, STREAM);
}

#[test]
fn an_amendment_while_events_flow_goes_on_where_the_old_agreement_ended() {
    let root = Root::new();
    let (producer, consumer) = partners(&root);
    let old = id_of(&producer.json(&["agreement", "ls"])[0]);
    let mut new = String::new();
    while_events_flow(&root, &producer, || {
        wait_until("events arrive", || {
            head(&consumer, "producer/orders").filter(|head| head.0 > 300)
        });
        let amend = ["agreement", "amend", &old, "--plan", "paid", "--wait", "1s"];
        new = id_of(&producer.json(&amend));
        wait_for_state(&consumer, &new, "proposed");
        consumer.json(&["agreement", "approve", &new]);
        for node in [&producer, &consumer] {
            wait_for_state(node, &new, "active");
            wait_for_state(node, &old, "superseded");
        }
        wait_until("receipts come under the new agreement", || {
            let receipts = producer.json(&["receipt", "ls", "--limit", "1000"]);
            let mut receipts = receipts.as_array()?.iter();
            receipts
                .any(|one| one["agreement"] == new.as_str())
                .then_some(())
        });
    });
    let size = wait_for_copy(&producer, &consumer, STREAM);
    // Each event is receipted once: the newer series begins where the older one ends.
    wait_until("all is receipted", || {
        let receipts = producer.json(&["receipt", "ls", "--limit", "1000"]);
        let last = |id: &str| {
            let mut all = receipts.as_array().unwrap().iter();
            let of = all.by_ref().filter(|one| one["agreement"] == id);
            of.max_by_key(|one| one["number"].as_u64()).cloned()
        };
        let (before, after) = (last(&old)?, last(&new)?);
        (after["size"].as_u64()? == size).then_some(())?;
        assert_eq!(before["size"], after["start"]);
        Some(())
    });
}
