//! A mirrored log: what a node publishes over HTTP, as files (`schemas/proofs.md`).

use std::collections::BTreeSet;

use countersign_tlog::note::NOTE_BYTES_MAX;
use countersign_tlog::tile::{Tile, tiles};

use crate::checks::checkpoint::{
    InForce, Signed, Weight, entries, judge_signer, open_by_any, roots_of,
};
use crate::checks::keys;
use crate::checks::witnesses::{self, Cosigned, Demand};
use crate::files::BundleFiles;
use crate::layout::Span;
use crate::manifest::MANIFEST;
use crate::report::{Check, Collector, Finding, Severity};
use crate::trust::Trust;
use crate::verify::{Held, Signer, say_log};
use crate::walk::{Walk, Walked};

const CHECKPOINT: &str = "checkpoint";

/// What lies in a bundle and is not served over HTTP.
const LEFT_OF_BUNDLES: [&str; 6] = [
    "content",
    "decisions.ndjson",
    "documents",
    "keys.json",
    "ledgers",
    "manifest.sha256",
];

/// Whether these are the files of a mirrored log, not of a bundle.
pub(crate) fn is_mirror(files: &BundleFiles) -> bool {
    files.has(CHECKPOINT) && !files.has(MANIFEST)
}

/// Verifies a mirrored log.
pub(crate) fn verify(
    files: &BundleFiles,
    trust: &Trust,
    found: &mut Collector<'_>,
) -> Option<(Held, Signer)> {
    found.skipped(Check::Content, "a published log holds none");
    for check in [
        Check::Timestamps,
        Check::Documents,
        Check::Coverage,
        Check::Decisions,
        Check::Ledgers,
    ] {
        found.skipped(check, "a published log holds none");
    }
    let say = |found: &mut Collector<'_>, severity, file: String, what: String| {
        found.push(Finding {
            check: Check::Files,
            severity,
            log: None,
            sequence: None,
            file: Some(file),
            what,
        });
    };
    let keys = keys::of_statements(&[], trust, found);
    let note = match files.read(CHECKPOINT, NOTE_BYTES_MAX as u64) {
        Ok(note) => note,
        Err(fault) => {
            say(
                found,
                Severity::False,
                CHECKPOINT.to_owned(),
                fault.to_string(),
            );
            return None;
        }
    };
    let opened = open_by_any(&note, CHECKPOINT, &keys, trust, found)?;
    let (checkpoint, origin) = (&opened.checkpoint, &opened.origin);
    let cosigned = Cosigned {
        origin,
        size: checkpoint.size,
        note: &note,
        file: CHECKPOINT,
        main: true,
    };
    let witnessed = witnesses::judge(&cosigned, Demand::Quorum, &keys, trust, found);
    let span = Span {
        from: 0,
        to: checkpoint.size,
        size: checkpoint.size,
    };
    if !span.is_valid() {
        let what = "it covers no entries, or more than any log has".to_owned();
        say(found, Severity::False, CHECKPOINT.to_owned(), what);
        return None;
    }
    let held = Held {
        from: 0,
        to: span.size,
        size: span.size,
        origin: origin.to_string(),
    };
    // However large a size is signed: among the tiles of a tree, one that is not here is found after as many as there are files.
    let missing = tiles(span.size).find(|tile| !files.has(&tile.to_string()));
    if let Some(tile) = missing {
        let what = format!("it is not here, and belongs to the tree of {}", span.size);
        say(found, Severity::Missing, tile.to_string(), what);
    }
    let here: BTreeSet<&str> = files.paths().collect();
    let needed = |path: &str| Tile::parse(path).is_ok_and(|tile| span.needs(tile));
    let further = here
        .iter()
        .filter(|path| **path != CHECKPOINT && !needed(path))
        .count();
    if further > 0 {
        let what = format!("{further} further files are here, which its tree does not need");
        say(found, Severity::Note, CHECKPOINT.to_owned(), what);
    }
    if LEFT_OF_BUNDLES
        .iter()
        .any(|left| here.iter().any(|path| path.split('/').next() == Some(left)))
    {
        let what = "what belongs to a bundle is here, and its manifest is not: of a mirrored log nothing but the log is judged";
        let file = MANIFEST.to_owned();
        say(found, Severity::Missing, file, what.to_owned());
    }
    let judge = |time, walked: &Walked, found: &mut Collector<'_>| {
        let vkey = opened.signer(time, &keys, trust);
        let signed = Signed {
            origin,
            what: entries(span.size),
            vkey,
            file: CHECKPOINT,
            to: span.to,
            root_at: &roots_of(checkpoint, walked),
            witnessed,
            weight: Weight::Full,
        };
        let standing = judge_signer(&signed, time, &keys, trust, found);
        Signer::new(&keys, origin, vkey, standing, trust, walked.complete)
    };
    if missing.is_some() {
        let signer = judge(InForce::Whenever, &Walked::default(), found);
        return Some((held, signer));
    }
    let signers = opened.signers().iter();
    let watch = signers.flat_map(|vkey| keys.watch(origin, vkey.key()));
    let watch = watch.collect();
    let walk = Walk {
        files,
        log: "",
        contents: None,
        origin: origin.as_str(),
        span,
        root: checkpoint.root,
        watch,
        look: None,
    };
    let walked = walk.run(&mut |finding| found.push(finding));
    if walked.complete {
        say_log(origin, span, found);
    }
    found.done(
        Check::Files,
        format!("{} tiles and the checkpoint", span.tile_count()),
    );
    let signer = judge(InForce::At(walked.last_time), &walked, found);
    Some((held, signer))
}
