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
use std::path::{Path, PathBuf};

use countersign::evidence::{ExportError, ExportSummary, export};
use countersign_audit::{Check, Outcome, Report, Trust, Verdict, verify};
use countersign_event::documents::AgreementId;
use countersign_event::names::Origin;
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
    let line = report.checks.iter().find(|line| line.check == check).unwrap();
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
        assert!(done(&report, Check::Documents).contains("1 agreements"), "{report}");
        assert!(done(&report, Check::Documents).contains("8 receipts"), "{report}");
        assert!(done(&report, Check::Decisions).starts_with("7 of 7"), "{report}");
        assert!(done(&report, Check::Ledgers).starts_with("2 ledger logs, whole; 7 of 7"), "{report}");
        let nobody = verify(&out, &Trust::none(), &mut |_| ()).unwrap();
        assert!(matches!(nobody.verdict, Verdict::Inconclusive { .. }), "{nobody}");
    }
    // Nothing but the two bundles is left behind.
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}
