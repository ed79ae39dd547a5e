//! From what is stored to what is held in memory.

use std::collections::HashMap;
use std::sync::Arc;

use countersign_event::documents::Digest;
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::{Authority, Origin};
use countersign_event::time::Timestamp;
use countersign_protocol::delivery::Cover;
use countersign_store::journal::{JournalReader, LogInfo, LogKind};
use countersign_store::ledger::{EntryFilter, LedgerView, ViewError};
use countersign_tlog::Checkpoint;

use crate::identity::Identity;
use crate::log::{Log, LogHead};
use crate::registry::Registry;

pub(super) fn open_log(reader: &JournalReader, identity: &Identity, info: LogInfo) -> Option<Log> {
    let head = reader.head(info.number)?;
    let origin: Origin = info.origin.parse().ok()?;
    let settings = serde_json::from_slice(&info.settings).unwrap_or_default();
    let root = head.range.root();
    let checkpoint = Checkpoint {
        origin: info.origin.clone(),
        size: head.size,
        root,
    };
    // Ed25519 is deterministic: signing again what was signed before the stop gives the same checkpoint.
    let signature = (info.kind != LogKind::Copy)
        .then(|| Arc::new(identity.sign_as_of(&checkpoint, Timestamp(head.last_time_us))));
    let producer = head
        .cover
        .and_then(|stored| postcard::from_bytes::<Cover>(&stored.cover).ok())
        .map(|Cover::Checkpoint { head, .. }| head);
    let head = LogHead {
        size: head.size,
        root,
        last_leaf: head.last_leaf,
        last_time_us: head.last_time_us,
        signature,
        producer,
    };
    Some(Log::new(info.number, info.kind, origin, settings, head))
}

pub(super) fn empty_head() -> LogHead {
    LogHead {
        size: 0,
        root: countersign_tlog::empty_root(),
        last_leaf: [0; 32],
        last_time_us: 0,
        signature: None,
        producer: None,
    }
}

/// Kinds of records that the registry is not made of, or not of all of them: they are many. A kind that nobody has thought about is read.
fn read_elsewhere(kind: &str) -> bool {
    const ELSEWHERE: &[&str] = &[
        "allotment",
        "cursor",
        "decision",
        "filter",
        "policy-set",
        "receipt",
        "refusal",
        "rejection",
        "skip-claim",
        "timestamp",
    ];
    ELSEWHERE.contains(&kind)
}

/// The records that the registry is made of, in the order in which they were written: within a ledger log and its successors for certain, among them by time.
pub(super) async fn load_registry(
    view: &LedgerView,
    own: &Authority,
) -> Result<Registry, ViewError> {
    const PAGE: u32 = 1000;
    let mut rows = Vec::new();
    for kind in LedgerRecord::KINDS
        .iter()
        .filter(|kind| !read_elsewhere(kind))
    {
        let mut filter = EntryFilter {
            kind: Some((*kind).to_owned()),
            ..EntryFilter::default()
        };
        loop {
            let page = view.entries(&filter, PAGE).await?;
            let full = page.len() == PAGE as usize;
            filter.after = page.last().map(|row| row.key());
            rows.extend(page);
            if !full {
                break;
            }
        }
    }
    // A generation comes behind the one that it succeeds, whatever the clock said: a restored directory may live on a machine whose clock is behind.
    rows.sort_by(|a, b| (&a.log, a.sequence).cmp(&(&b.log, b.sequence)));
    let mut latest: HashMap<Origin, Timestamp> = HashMap::new();
    let mut timed = Vec::with_capacity(rows.len());
    for row in rows {
        let first = row.log.first_generation();
        let reached = latest.entry(first).or_insert(row.time);
        *reached = row.time.max(*reached);
        timed.push((*reached, row));
    }
    timed.sort_by(|(at, a), (bt, b)| (at, &a.log, a.sequence).cmp(&(bt, &b.log, b.sequence)));
    let mut registry = Registry::of(own.clone());
    for (_, row) in timed {
        if let Some(record) = row.record()? {
            registry.apply(&record);
        }
    }
    for row in view.last_receipts().await? {
        registry.apply(&LedgerRecord::Receipt {
            envelope: row.envelope,
            from: 0,
            events: 0,
            bytes: 0,
        });
    }
    for row in view.cursors().await? {
        registry.apply(&LedgerRecord::Cursor {
            app: row.app,
            stream: row.stream,
            next: row.next,
            leaf: Digest(row.leaf),
        });
    }
    Ok(registry)
}
