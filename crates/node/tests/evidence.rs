//! Evidence that a node exports, judged by the independent auditor.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    unreachable_pub,
    missing_docs,
    unused_imports,
    reason = "a test may panic; the harness of the exchange's own tests is used in part"
)]

#[path = "../../exchange/tests/two_nodes/support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;

use countersign::evidence::{ExportError, ExportSummary, export};
use countersign_audit::{Check, Outcome, Report, Trust, Verdict, verify};
use countersign_event::documents::{
    AgreementId, Digest, Document as _, Plan, Refusal, RefusalCode, Rejection, Side,
};
use countersign_event::names::Origin;
use countersign_exchange::ExchangeError;
use support::*;

const WINDOW: u64 = 40;

/// A producer that published `events`, a consumer that took and receipted them all.
async fn exchanged(seed: u64, events: u64) -> (Node, Node, AgreementId) {
    let (producer, consumer, agreement) = partners(seed, "s", WINDOW).await;
    let mut next = 1;
    while next <= events {
        let count = 60.min(events + 1 - next);
        producer.publish("s", next, count).await.unwrap();
        next += count;
    }
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    (producer, consumer, agreement)
}

fn trust(nodes: &[&Node]) -> Trust {
    Trust::of_fingerprints(nodes.iter().map(|node| node.org.key.public().fingerprint()))
}

fn judged(path: &Path, nodes: &[&Node]) -> Report {
    verify(path, &trust(nodes), &mut |_| ()).unwrap()
}

#[track_caller]
fn assert_whole(path: &Path, nodes: &[&Node]) -> Report {
    let report = judged(path, nodes);
    assert_eq!(report.verdict, Verdict::Whole, "{report}");
    report
}

async fn exported(
    node: &Node,
    stream: &Origin,
    range: (Option<u64>, Option<u64>),
    out: &Path,
) -> ExportSummary {
    export(&node.exchange, stream, range.0, range.1, out)
        .await
        .unwrap()
}

fn done(report: &Report, check: Check) -> &str {
    let line = report
        .checks
        .iter()
        .find(|line| line.check == check)
        .unwrap();
    match &line.outcome {
        Outcome::Done { what } => what,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_producers_stream_is_whole_for_whoever_trusts_the_producer() {
    let (producer, _consumer, _) = exchanged(1, 300).await;
    let dir = tempfile::tempdir().unwrap();
    let origin = producer.origin("s");
    for name in ["bundle", "bundle.tar"] {
        let out = dir.path().join(name);
        let summary = exported(&producer, &origin, (None, None), &out).await;
        assert_eq!(summary.path, out);
        assert_eq!((summary.bundle.from, summary.bundle.to), (0, 301));
        assert_eq!(summary.left_out, []);
        assert_eq!(summary.trust.len(), 1);
        let report = assert_whole(&out, &[&producer]);
        assert!(
            done(&report, Check::Documents).contains("1 agreements"),
            "{report}"
        );
        assert!(
            done(&report, Check::Documents).contains("8 receipts"),
            "{report}"
        );
        assert!(
            done(&report, Check::Decisions).starts_with("6 of 6"),
            "{report}"
        );
        assert!(
            done(&report, Check::Ledgers).starts_with("2 ledger logs, whole; 6 of 6"),
            "{report}"
        );
        let nobody = verify(&out, &Trust::none(), &mut |_| ()).unwrap();
        assert!(
            matches!(nobody.verdict, Verdict::Inconclusive { .. }),
            "{nobody}"
        );
    }
    // Nothing but the two bundles is left behind.
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[tokio::test]
async fn a_copy_is_whole_for_whoever_trusts_producer_and_consumer() {
    let (producer, consumer, _) = exchanged(2, 300).await;
    let dir = tempfile::tempdir().unwrap();
    let origin = producer.origin("s");
    for name in ["bundle", "bundle.tar"] {
        let out = dir.path().join(name);
        let summary = exported(&consumer, &origin, (None, None), &out).await;
        assert_eq!((summary.bundle.to, summary.bundle.size), (301, 301));
        assert_eq!(summary.left_out, []);
        let authorities: Vec<_> = summary.trust.iter().map(|who| &who.authority).collect();
        assert_eq!(authorities, [producer.authority(), consumer.authority()]);
        let report = assert_whole(&out, &[&producer, &consumer]);
        assert!(
            done(&report, Check::Documents).contains("8 receipts"),
            "{report}"
        );
        assert!(
            done(&report, Check::Ledgers).starts_with("1 ledger logs"),
            "{report}"
        );
        for trusted in [vec![&producer], vec![&consumer], vec![]] {
            let report = judged(&out, &trusted);
            assert!(
                matches!(report.verdict, Verdict::Inconclusive { .. }),
                "{report}"
            );
        }
    }
}

#[tokio::test]
async fn one_altered_byte_is_found_in_the_entry_that_it_is_in() {
    let (producer, _consumer, _) = exchanged(3, 300).await;
    let dir = tempfile::tempdir().unwrap();
    let tar = dir.path().join("bundle.tar");
    exported(&producer, &producer.origin("s"), (None, None), &tar).await;
    let bytes = fs::read(&tar).unwrap();
    for number in [1, 77, 255, 256, 300] {
        let wanted = format!("{{\"n\":{number}}}");
        let at = bytes
            .windows(wanted.len())
            .position(|at| at == wanted.as_bytes());
        let mut altered = bytes.clone();
        altered[at.unwrap() + 5] ^= 1;
        fs::write(&tar, altered).unwrap();
        match judged(&tar, &[&producer]).verdict {
            Verdict::Failed { first } => {
                assert_eq!(first.check, Check::Content);
                assert_eq!(first.sequence, Some(number), "{first}");
                assert_eq!(first.log.as_deref(), Some(producer.origin("s").as_str()));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_range_is_whole_and_says_what_is_left_out() {
    let (producer, consumer, _) = exchanged(4, 700).await;
    let dir = tempfile::tempdir().unwrap();
    let origin = producer.origin("s");
    let ranges = [
        (0, 1),
        (0, 100),
        (0, 700),
        (7, 9),
        (100, 300),
        (255, 257),
        (256, 512),
        (500, 701),
        (700, 701),
    ];
    for (node, trusted) in [
        (&producer, vec![&producer]),
        (&consumer, vec![&producer, &consumer]),
    ] {
        for (from, to) in ranges {
            let out = dir.path().join(format!("{}-{from}-{to}", node.authority()));
            let summary = exported(node, &origin, (Some(from), Some(to)), &out).await;
            let bundle = &summary.bundle;
            assert_eq!((bundle.from, bundle.to, bundle.size), (from, to, 701));
            let report = assert_whole(&out, &trusted);
            // The counterparty's ledger is here each time, as it was before it spoke of later entries.
            assert!(bundle.ledgers >= 1, "{summary:?}");
            assert!(
                done(&report, Check::Ledgers).contains("all but 0"),
                "{report}"
            );
            let left_out = |what: &str| {
                let found = summary.left_out.iter().filter(|left| left.what == what);
                found.map(|left| left.count).sum::<u64>()
            };
            // A receipt stands at every 40th entry, and at the end.
            let (before, within) = (from / WINDOW, to / WINDOW - from / WINDOW);
            let receipts = if from == 0 { to / WINDOW } else { within } + u64::from(to == 701);
            assert_eq!(bundle.documents, 3 + receipts, "{summary:?}");
            assert_eq!(left_out("receipts"), before, "{summary:?}");
            assert_eq!(left_out("documents") > 0, to < 701, "{summary:?}");
            assert_eq!(left_out("ledger entries") > 0, to < 701, "{summary:?}");
        }
    }
}

#[tokio::test]
async fn what_comes_after_an_export_changes_nothing_about_it_and_is_in_the_next() {
    let (mut producer, mut consumer, agreement) = exchanged(5, 300).await;
    let dir = tempfile::tempdir().unwrap();
    let origin = producer.origin("s");
    let [first, second] = ["first", "second"].map(|name| dir.path().join(name));
    exported(&producer, &origin, (None, None), &first).await;
    producer.publish("s", 301, 100).await.unwrap();
    assert_whole(&first, &[&producer]);
    // Not everything is delivered yet.
    let summary = exported(&producer, &origin, (None, None), &second).await;
    assert_eq!(summary.bundle.size, 401);
    assert_whole(&second, &[&producer]);
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    drop(wire);
    producer.restart().await;
    consumer.restart().await;
    for (node, name) in [(&producer, "third"), (&consumer, "fourth")] {
        let out = dir.path().join(name);
        let summary = exported(node, &origin, (None, None), &out).await;
        assert_eq!((summary.bundle.to, summary.bundle.size), (401, 401));
        assert_eq!(summary.left_out, []);
        assert_whole(&out, &[&producer, &consumer]);
    }
    assert_whole(&first, &[&producer]);
}

#[tokio::test]
async fn an_export_while_events_and_receipts_come_in_is_of_one_moment() {
    let (producer, consumer, agreement) = exchanged(11, 300).await;
    let dir = tempfile::tempdir().unwrap();
    let origin = producer.origin("s");
    let exports = async {
        let mut sizes = Vec::new();
        for number in 0..6 {
            for node in [&producer, &consumer] {
                let out = dir
                    .path()
                    .join(format!("{number}-{}.tar", node.authority()));
                sizes.push(
                    exported(node, &origin, (None, None), &out)
                        .await
                        .bundle
                        .size,
                );
                assert_whole(&out, &[&producer, &consumer]);
            }
        }
        sizes
    };
    let traffic = async {
        let mut wire = Wire::open(&producer, &consumer, agreement).await;
        for batch in 0..40 {
            producer.publish("s", 301 + batch * 30, 30).await.unwrap();
            wire.pump().await;
        }
    };
    let (sizes, ()) = tokio::join!(exports, traffic);
    // Some exports were made while the log grew.
    let (first, last) = (sizes.first().unwrap(), sizes.last().unwrap());
    assert!(first < last, "{sizes:?}");
}

#[tokio::test]
async fn a_copy_that_lags_is_exported_up_to_the_last_head_within_it() {
    let (producer, consumer, agreement) = partners(6, "s", WINDOW).await;
    let origin = producer.origin("s");
    let dir = tempfile::tempdir().unwrap();
    producer.publish("s", 1, 100).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.flow().await;
    let early = export(
        &consumer.exchange,
        &origin,
        None,
        None,
        &dir.path().join("early"),
    )
    .await;
    match early {
        Err(ExportError::CatchingUp { held, .. }) => assert_eq!(held, WINDOW),
        other => panic!("{other:?}"),
    }
    wire.pump().await;
    // Behind again: 40 more are here, under a head of 301, and receipted.
    producer.publish("s", 101, 200).await.unwrap();
    wire.flow().await;
    wire.receipt().await.unwrap();
    let copy = consumer.exchange.log(&origin).unwrap();
    assert!(copy.size() > 101 && copy.size() < 301, "{}", copy.size());
    let out = dir.path().join("lagging");
    let summary = exported(&consumer, &origin, (None, None), &out).await;
    assert_eq!((summary.bundle.to, summary.bundle.size), (101, 101));
    assert!(!summary.left_out.is_empty());
    assert_whole(&out, &[&producer, &consumer]);
    let beyond = export(
        &consumer.exchange,
        &origin,
        None,
        Some(102),
        &dir.path().join("beyond"),
    )
    .await;
    assert!(
        matches!(
            beyond,
            Err(ExportError::Range {
                from: 0,
                to: 102,
                size: 101
            })
        ),
        "{beyond:?}"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn nothing_is_written_over_and_nothing_is_left_where_an_export_fails() {
    let (producer, _consumer, _) = exchanged(7, 50).await;
    let dir = tempfile::tempdir().unwrap();
    let origin = producer.origin("s");
    let exchange = &producer.exchange;
    let there = ["file", "file.tar", "folder", "link"].map(|name| dir.path().join(name));
    fs::write(&there[0], "mine").unwrap();
    fs::write(&there[1], "mine").unwrap();
    fs::create_dir(&there[2]).unwrap();
    std::os::unix::fs::symlink("nowhere", &there[3]).unwrap();
    for path in &there {
        let result = export(exchange, &origin, None, None, path).await;
        assert!(
            matches!(result, Err(ExportError::Exists { .. })),
            "{result:?}"
        );
    }
    let new = dir.path().join("new");
    for (from, to) in [(5, 5), (6, 5), (0, 52), (51, 60)] {
        let result = export(exchange, &origin, Some(from), Some(to), &new).await;
        assert!(
            matches!(result, Err(ExportError::Range { size: 51, .. })),
            "{result:?}"
        );
    }
    let unknown = export(exchange, &producer.origin("t"), None, None, &new).await;
    assert!(
        matches!(unknown, Err(ExportError::Unknown { .. })),
        "{unknown:?}"
    );
    let ledger = Origin::of_node_ledger(producer.authority());
    let ledger = export(exchange, &ledger, None, None, &new).await;
    assert!(
        matches!(ledger, Err(ExportError::NotAStream { .. })),
        "{ledger:?}"
    );
    let nowhere = export(exchange, &origin, None, None, &dir.path().join("no/new")).await;
    assert!(matches!(nowhere, Err(ExportError::Write(_))), "{nowhere:?}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), there.len());
    assert_eq!(fs::read(&there[0]).unwrap(), b"mine");
}

/// Tries to subscribe to `s`, which is refused.
async fn refused(producer: &Node, consumer: &Node, agreement: AgreementId) {
    match Wire::try_open(producer, consumer, agreement).await {
        Err(ExchangeError::Refused(_)) => {}
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("not refused"),
    }
}

#[tokio::test]
async fn refusals_policy_changes_ends_and_revocations_are_in_it_and_replay() {
    let (producer, consumer, agreement) = exchanged(8, 100).await;
    let origin = producer.origin("s");
    // Another policy, and a no under it.
    producer
        .set_policy(&format!(
            "{STARTER}\n@id(\"no\") forbid (principal, action == Action::\"read\", resource);"
        ))
        .await;
    refused(&producer, &consumer, agreement).await;
    producer.set_policy(STARTER).await;
    // A partner of another stream asks for this one.
    producer.create("t").await;
    let third = Node::new(5_000, "Third").await;
    let invitation = producer.invite("t", Side::Producer, Plan::default()).await;
    let other = join(&invitation, &producer, &third).await.unwrap();
    let mut request = subscribe_at(&producer, "s", other, countersign_protocol::StartAt::Now);
    request.agreement = other.0;
    let peer = third.at(&producer);
    let asked = producer.exchange.open_delivery(&peer, &request).await;
    assert!(matches!(asked, Err(ExchangeError::Refused(_))));
    // The end of the partnership, while a subscription runs under a policy that permits everything; and of the agreement.
    producer
        .set_policy("@id(\"all\") permit (principal, action, resource);")
        .await;
    let wire = Wire::open(&producer, &consumer, agreement).await;
    let authority = consumer.authority().to_string();
    producer
        .exchange
        .revoke(&authority, "no more")
        .await
        .unwrap();
    wire.delivery.recheck();
    refused(&producer, &consumer, agreement).await;
    let end = producer
        .exchange
        .terminate(agreement, "over")
        .await
        .unwrap();
    let peer = producer.at(&consumer);
    consumer
        .exchange
        .take_notice(&peer, &end.to_json())
        .await
        .unwrap();

    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("producer");
    let summary = exported(&producer, &origin, (None, None), &out).await;
    let report = assert_whole(&out, &[&producer]);
    let documents = done(&report, Check::Documents);
    assert!(documents.contains("1 terminations"), "{report}");
    assert!(documents.contains("4 refusals"), "{report}");
    // Three sets: the starter, that with a forbid, that which permits everything.
    assert_eq!(fs::read_dir(out.join("policies")).unwrap().count(), 3);
    // The ledger about the third is not shown: it is no business of this stream's auditor.
    let [left] = summary.left_out.as_slice() else {
        panic!("{summary:?}");
    };
    assert_eq!((left.what, left.count), ("proofs of decisions", 1));
    assert_eq!(summary.bundle.ledgers, 2);

    let out = dir.path().join("consumer");
    exported(&consumer, &origin, (None, None), &out).await;
    let report = assert_whole(&out, &[&producer, &consumer]);
    assert!(
        done(&report, Check::Documents).contains("1 terminations"),
        "{report}"
    );
}

#[tokio::test]
async fn a_refusal_that_nobody_known_signed_does_not_spoil_the_evidence() {
    let (producer, consumer, _) = exchanged(9, 20).await;
    let origin = producer.origin("s");
    let refusal = |made, reason: &str| Refusal {
        asked: "subscribe".to_owned(),
        principal: None,
        about: origin.to_string(),
        code: RefusalCode::NotPermitted,
        reason: reason.to_owned(),
        policies: Vec::new(),
        advice: Vec::new(),
        position: None,
        made,
    };
    let honest = refusal(START, "honest").sign(&producer.org.identity.agreement_key);
    let backdated = refusal(countersign_event::time::Timestamp(0), "backdated");
    let backdated = backdated.sign(&producer.org.identity.agreement_key);
    let forged = refusal(START, "forged").sign(&consumer.org.identity.node_key);
    for envelope in [&honest, &backdated, &forged] {
        let said = Refusal::peek(envelope).unwrap();
        consumer
            .exchange
            .note_refusal_got(producer.authority(), &origin, &said, envelope);
    }
    // Something to wait for: it is written after the refusals.
    consumer
        .exchange
        .enrol_app("app", consumer.org.key.public(), true)
        .await
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("bundle");
    let summary = exported(&consumer, &origin, (None, None), &out).await;
    let report = assert_whole(&out, &[&producer, &consumer]);
    assert!(
        done(&report, Check::Documents).contains("1 refusals"),
        "{report}"
    );
    assert_eq!(summary.left_out.len(), 1, "{summary:?}");
    assert_eq!(
        (summary.left_out[0].what, summary.left_out[0].count),
        ("refusals", 2)
    );
}

#[tokio::test]
async fn rejections_are_in_it_and_a_false_one_never_gets_into_the_ledger() {
    let (producer, consumer, agreement) = exchanged(12, 60).await;
    let origin = producer.origin("s");
    let wire = Wire::open(&producer, &consumer, agreement).await;
    let log = producer.log("s");
    let leaf = |sequence| {
        producer
            .exchange
            .reader()
            .leaf_hash(log.number(), sequence)
            .unwrap()
    };
    let rejection = |sequence, leaf| {
        let rejection = Rejection {
            agreement,
            stream: origin.clone(),
            sequence,
            leaf: Digest(leaf),
            reason: "not what was agreed".to_owned(),
            made: START,
        };
        rejection.sign(&consumer.org.identity.receipt_key)
    };
    for (sequence, leaf) in [(7, leaf(8)), (61, leaf(60)), (u64::MAX, leaf(0))] {
        let result = wire.send(&rejection(sequence, leaf)).await;
        assert!(
            matches!(result, Err(ExchangeError::Receipt(_))),
            "{result:?}"
        );
    }
    for sequence in [7, 50] {
        wire.send(&rejection(sequence, leaf(sequence)))
            .await
            .unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    for (to, rejected) in [(61, true), (50, false)] {
        let out = dir.path().join(to.to_string());
        exported(&producer, &origin, (None, Some(to)), &out).await;
        let report = assert_whole(&out, &[&producer]);
        let documents = done(&report, Check::Documents);
        assert_eq!(documents.contains("2 rejections"), rejected, "{report}");
    }
}

#[tokio::test]
async fn a_second_statement_under_one_number_is_not_taken() {
    let (producer, consumer, agreement) = exchanged(13, 20).await;
    let mut statement = consumer.org.identity.statement.clone();
    statement.name = "Consumer, differently".to_owned();
    let mut hello = consumer.hello();
    hello.key_statement = statement.sign_with(&consumer.org.key).to_json();
    let key = consumer.org.identity.node_key.public();
    assert!(producer.exchange.identify(&hello, &key).is_err());
    assert!(
        producer
            .exchange
            .registry()
            .agreements
            .contains_key(&agreement)
    );
}

#[tokio::test]
async fn large_events_are_exported_in_pieces_and_a_bundle_is_little_more_than_its_content() {
    let (producer, consumer, agreement) = partners(10, "s", 10_000).await;
    let text = format!("\"{}\"", "x".repeat(700_000));
    let session = producer.session("s", 1).await.1;
    for number in 1..=30 {
        let (count, bulk) = bulk_of(&[event(&format!("large-{number}"), &text)]);
        session.submit_and_wait(number, count, bulk).await.unwrap();
    }
    producer.publish("s", 31, 600).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    let dir = tempfile::tempdir().unwrap();
    let content: usize = stored(&producer.exchange, &producer.log("s"))
        .iter()
        .map(|(entry, content)| entry.len() + content.len())
        .sum();
    for (node, name) in [(&producer, "producer.tar"), (&consumer, "consumer.tar")] {
        let out = dir.path().join(name);
        let summary = exported(node, &producer.origin("s"), (None, None), &out).await;
        assert_whole(&out, &[&producer, &consumer]);
        let bytes = summary.bundle.bytes as usize;
        // Hashes, lengths, documents and ledgers: 64 KiB and 50 bytes an entry are plenty.
        assert!(
            bytes > content && bytes < content + (64 << 10) + 50 * 631,
            "{bytes} {content}"
        );
    }
}

/// What was found at a domain is in the ledger, which is in the bundle; the report says whose word it is.
#[tokio::test]
async fn what_was_found_at_a_domain_is_in_the_bundle() {
    let key =
        countersign_crypto::SigningKey::generate(&mut countersign_crypto::SeededEntropy::new(90));
    let org = Org::with_authority(90, "Producer", "data.example".parse().unwrap(), key, 1);
    let producer = Node::with(org, 90, NodeOptions::default()).await;
    let consumer = Node::new(91, "Consumer").await;
    producer.create("s").await;
    let invitation = producer.invite("s", Side::Producer, Plan::default()).await;
    let agreement = join(&invitation, &producer, &consumer).await.unwrap();
    producer.publish("s", 1, 5).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    let found = countersign_exchange::FoundAtDomain::Page(producer.org.identity.envelope.to_json());
    consumer
        .exchange
        .note_domain(producer.authority(), &found)
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bundle");
    exported(&consumer, &producer.origin("s"), (None, None), &path).await;
    let report = assert_whole(&path, &[&producer, &consumer]);
    let said = done(&report, Check::Ledgers);
    assert!(
        said.contains("says that the key statement of data.example was at that domain at ")
            && said.ends_with("which is its word alone"),
        "{said}"
    );
}

/// After a restore each ledger log has a successor: a bundle holds all generations, and is whole.
#[tokio::test]
async fn a_bundle_holds_all_generations_of_a_ledger_log() {
    let options = NodeOptions {
        elsewhere: true,
        ..NodeOptions::default()
    };
    let (mut producer, consumer, agreement) = partners_with(92, "s", WINDOW, options).await;
    producer.publish("s", 1, 5).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    drop(wire);
    producer.restart().await;
    producer.publish("s", 6, 5).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bundle");
    exported(&producer, &producer.origin("s"), (None, None), &path).await;
    let report = assert_whole(&path, &[&producer, &consumer]);
    let said = done(&report, Check::Ledgers);
    assert!(said.starts_with("4 ledger logs, whole; "), "{said}");
    // Of a range that ends within the first generation, the later one has nothing to go on from.
    let path = folder.path().join("range");
    exported(&producer, &producer.origin("s"), (None, Some(3)), &path).await;
    let report = assert_whole(&path, &[&producer, &consumer]);
    let said = done(&report, Check::Ledgers);
    assert!(said.starts_with("3 ledger logs, whole; "), "{said}");
}
