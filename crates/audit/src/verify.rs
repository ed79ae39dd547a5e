//! The order of the checks, and the conclusion.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use countersign_event::content::EventRef;
use countersign_event::documents::RECEIPT_FORK_BYTES_MAX;
use countersign_event::names::Origin;
use countersign_tlog::Vkey;
use countersign_tlog::add_checkpoint::ADD_CHECKPOINT_BYTES_MAX;
use countersign_tlog::cose_receipt::COSE_RECEIPT_BYTES_MAX;
use countersign_tlog::fork_proof::FORK_PROOF_BYTES_MAX;
use countersign_tlog::proof_file::PROOF_FILE_BYTES_MAX;

use crate::beside::{Beside, read_bounded};
use crate::checks::checkpoint::Standing;
use crate::checks::files::Listed;
use crate::checks::keys::{Keys, Organization};
use crate::checks::ledgers::Ledger;
use crate::checks::successors::Successors;
use crate::checks::witnesses::{Cosigned, Demand};
use crate::checks::{
    checkpoint, content, coverage, decisions, documents, files, keys, ledgers, timestamps,
    witnesses,
};
use crate::cose_proof::{self, COSE_PROOF};
use crate::event_proof::{self, EVENT_PROOF};
use crate::files::{BundleFiles, OpenFault};
use crate::fork::{self, FORK_PROOF};
use crate::growth::{self, GROWTH_PROOF};
use crate::layout::Span;
use crate::manifest::{LogEntry, Manifest};
use crate::mirror;
use crate::receipt_fork::{self, RECEIPT_FORK};
use crate::report::{Check, Collector, Evidence, Finding, Report, Severity};
use crate::trust::Trust;
use crate::walk::{Look, Walk, Walked};

/// Why there is nothing to judge.
#[derive(Debug, thiserror::Error)]
#[error("the evidence cannot be read: `{}`: {source}", path.display())]
pub struct OpenError {
    /// What could not be read.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Verifies evidence, offline: a bundle or a mirrored log (a directory or a `.tar` file), the proof of one event, of growth or of a fork (a file, and
/// what lies beside it). `on_finding` hears of everything as it is found.
///
/// # Errors
/// [`OpenError`] where the path cannot be read at all. Whatever is wrong *in* the evidence is in the report.
pub fn verify(
    path: &Path,
    trust: &Trust,
    on_finding: &mut dyn FnMut(&Finding),
) -> Result<Report, OpenError> {
    let mut found = Collector::new(on_finding);
    let extension = path.extension().and_then(|extension| extension.to_str());
    match extension {
        Some(EVENT_PROOF) if !path.is_dir() => {
            let bytes = read_proof(path, PROOF_FILE_BYTES_MAX, &mut found)?;
            let beside = Beside::of(path);
            let judged = bytes.and_then(|b| event_proof::verify(&b, &beside, trust, &mut found));
            return Ok(conclude(found, Evidence::Event, judged));
        }
        Some(COSE_PROOF) if !path.is_dir() => {
            let bytes = read_proof(path, COSE_RECEIPT_BYTES_MAX, &mut found)?;
            let beside = Beside::of(path);
            let judged = bytes.and_then(|b| cose_proof::verify(&b, &beside, trust, &mut found));
            return Ok(conclude(found, Evidence::Event, judged));
        }
        Some(GROWTH_PROOF) if !path.is_dir() => {
            let bytes = read_proof(path, ADD_CHECKPOINT_BYTES_MAX, &mut found)?;
            let beside = Beside::of(path);
            let judged = bytes.and_then(|b| growth::verify(&b, &beside, trust, &mut found));
            return Ok(conclude(found, Evidence::Growth, judged));
        }
        Some(FORK_PROOF) if !path.is_dir() => {
            let bytes = read_proof(path, FORK_PROOF_BYTES_MAX, &mut found)?;
            let beside = Beside::of(path);
            let judged = bytes.and_then(|b| fork::verify(&b, &beside, trust, &mut found));
            return Ok(conclude(found, Evidence::Fork, judged));
        }
        Some(RECEIPT_FORK) if !path.is_dir() => {
            let bytes = read_proof(path, RECEIPT_FORK_BYTES_MAX, &mut found)?;
            let beside = Beside::of(path);
            let judged = bytes.and_then(|b| receipt_fork::verify(&b, &beside, trust, &mut found));
            return Ok(conclude(found, Evidence::Receipts, judged));
        }
        _ => {}
    }
    let files = match BundleFiles::open(path) {
        Ok(files) => files,
        Err(OpenFault::Io { path, source }) => return Err(OpenError { path, source }),
        Err(fault) => {
            push_file(&mut found, None, fault.to_string());
            return Ok(conclude(found, Evidence::Bundle, None));
        }
    };
    if mirror::is_mirror(&files) {
        let judged = mirror::verify(&files, trust, &mut found);
        return Ok(conclude(found, Evidence::Mirror, judged));
    }
    let Some(manifest) = files::read_manifest(&files, &mut found) else {
        return Ok(conclude(found, Evidence::Bundle, None));
    };
    let listed = files::check(&files, &manifest, &mut found);
    let audit = Audit {
        files: &files,
        manifest: &manifest,
        trust,
    };
    let signer = audit.run(listed, &mut found);
    let held = Held::of(&manifest.logs[0]);
    Ok(conclude(found, Evidence::Bundle, Some((held, signer))))
}

fn read_proof(
    path: &Path,
    bytes_max: usize,
    found: &mut Collector<'_>,
) -> Result<Option<Vec<u8>>, OpenError> {
    match read_bounded(path, bytes_max) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            let name = path.file_name().unwrap_or_default();
            let name = name.to_string_lossy().into_owned();
            push_file(found, Some(name), error.to_string());
            Ok(None)
        }
        Err(source) => Err(OpenError {
            path: path.to_owned(),
            source,
        }),
    }
}

fn push_file(found: &mut Collector<'_>, file: Option<String>, what: String) {
    found.push(Finding {
        check: Check::Files,
        severity: Severity::False,
        log: None,
        sequence: None,
        file,
        what,
    });
}

/// What the evidence is about.
pub(crate) struct Held {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) size: u64,
    pub(crate) origin: String,
}

impl Held {
    fn of(log: &LogEntry) -> Self {
        Self {
            from: log.from,
            to: log.to,
            size: log.size,
            origin: log.origin.to_string(),
        }
    }
}

/// Who stands behind the log.
pub(crate) struct Signer {
    key: Option<String>,
    standing: Standing,
    /// Whether the auditor brought any trust along.
    asked: bool,
    /// Whether every log was walked to its end, every proof computed.
    complete: bool,
}

impl Signer {
    /// An organization that speaks for itself.
    pub(crate) fn of(organization: &Organization, trust: &Trust) -> Self {
        Self {
            key: Some(organization.key.fingerprint().to_string()),
            standing: match organization.trusted {
                true => Standing::Trusted,
                false => Standing::Untrusted,
            },
            asked: !trust.is_none(),
            complete: true,
        }
    }

    pub(crate) fn new(
        keys: &Keys,
        origin: &Origin,
        vkey: &Vkey,
        standing: Standing,
        trust: &Trust,
        complete: bool,
    ) -> Self {
        let organization = keys.of(&origin.authority());
        let key = organization.map_or(vkey.key(), |organization| &organization.key);
        Self {
            key: Some(key.fingerprint().to_string()),
            standing,
            asked: !trust.is_none(),
            complete,
        }
    }
}

struct Audit<'a> {
    files: &'a BundleFiles,
    manifest: &'a Manifest,
    trust: &'a Trust,
}

impl Audit<'_> {
    fn run(&self, listed: Listed, found: &mut Collector<'_>) -> Signer {
        let keys = keys::check(self.manifest, &listed, self.trust, found);
        let documents = documents::sort(&listed.documents, found);
        let main = &self.manifest.logs[0];

        let mut watch = documents.watch();
        watch.extend(timestamps::watch(&listed.timestamps));
        let (walked, standing) = self.log(0, &listed, &keys, watch, None, found);
        let stamped = (
            listed.timestamps.as_slice(),
            listed.checkpoints[0].as_deref(),
        );
        timestamps::check(&main.origin, main.size, stamped, &walked, self.trust, found);
        documents::check(&main.origin, main.span(), &documents, &keys, &walked, found);

        let look = |sequence, event: &EventRef<'_>| ledgers::look(&main.origin, sequence, event);
        let mut complete = walked.complete;
        let mut ledger_logs = Vec::new();
        let mut successors = Successors::default();
        for number in Successors::order(&self.manifest.logs) {
            let log = &self.manifest.logs[number];
            let watch = successors.watch(&log.origin);
            let (walked, standing) = self.log(number, &listed, &keys, watch, Some(&look), found);
            successors.add(log, &walked, found);
            complete &= walked.complete;
            if standing == Standing::Untrusted && !self.trust.is_none() {
                note_untrusted(log, found);
            }
            ledger_logs.push(Ledger {
                log,
                facts: walked.facts,
            });
        }
        successors.check(found);
        let mut reaches = documents.reaches(&main.origin);
        reaches.extend(ledgers::reaches(&ledger_logs));
        coverage::check(main.span(), &reaches, found);
        let placed = decisions::check(
            self.files,
            &main.origin,
            listed.policies,
            listed.has_decisions,
            found,
        );
        ledgers::check(
            main.span().is_whole(),
            &ledger_logs,
            &documents,
            &placed,
            found,
        );

        let organization = keys.of(&self.manifest.authority);
        let key = organization
            .map(|organization| organization.key.fingerprint())
            .or_else(|| Some(keys.vkeys.first()?.as_ref()?.key().fingerprint()));
        Signer {
            key: key.map(|key| key.to_string()),
            standing,
            asked: !self.trust.is_none(),
            complete,
        }
    }

    /// Checkpoint, chain, tree and content of one log.
    fn log(
        &self,
        number: usize,
        listed: &Listed,
        keys: &Keys,
        watch: BTreeSet<u64>,
        look: Option<&Look<'_>>,
        found: &mut Collector<'_>,
    ) -> (Walked, Standing) {
        let log = &self.manifest.logs[number];
        let vkey = keys.vkeys.get(number).and_then(Option::as_ref);
        let note = listed.checkpoints[number].as_ref();
        let opened = checkpoint::open(log, note, vkey, found);
        let (Some(opened), Some(vkey), Some(note)) = (opened, vkey, note) else {
            return (Walked::default(), Standing::Untrusted);
        };
        let cosigned = Cosigned {
            origin: &log.origin,
            size: log.size,
            note,
            file: &checkpoint::file_of(log),
            main: number == 0,
        };
        let witnessed = witnesses::judge(&cosigned, Demand::Quorum, keys, self.trust, found);
        let walk = Walk {
            files: self.files,
            log: &format!("{}log/", log.path),
            contents: Some(&log.path),
            origin: log.origin.as_str(),
            span: log.span(),
            root: opened.root,
            watch: &watch | &keys.watch(&log.origin, vkey.key()),
            look,
        };
        let walked = walk.run(&mut |finding| found.push(finding));
        content::judge_undisclosed(self.manifest, number, &walked, found);
        if walked.complete {
            say_done(log, &walked, found);
        }
        let judged = (&opened, &walked);
        let standing = checkpoint::judge_key(log, vkey, judged, witnessed, keys, self.trust, found);
        (walked, standing)
    }
}

fn say_done(log: &LogEntry, walked: &Walked, found: &mut Collector<'_>) {
    say_log(&log.origin, log.span(), found);
    let sealed = match walked.encrypted {
        0 => String::new(),
        encrypted => format!(" ({encrypted} of them sealed to their recipients, and not opened)"),
    };
    let in_part = match walked.views {
        0 => String::new(),
        views => format!(
            "; of {views} events {} members are not disclosed",
            walked.withheld
        ),
    };
    found.done(
        Check::Content,
        format!(
            "{} contents of {} bytes{sealed}{in_part}",
            walked.contents, walked.content_bytes
        ),
    );
}

/// Says that a log was walked to its end.
pub(crate) fn say_log(origin: &Origin, span: Span, found: &mut Collector<'_>) {
    let entries = span.end() - span.start();
    found.done(
        Check::Chain,
        format!("{entries} entries of {origin}, each linked to the one before"),
    );
    if span.start() > 0 {
        found.push(Finding {
            check: Check::Chain,
            severity: Severity::Note,
            log: Some(origin.to_string()),
            sequence: Some(span.start()),
            file: None,
            what: "what its link names lies before this range".to_owned(),
        });
    }
    let tiles = span.tile_count();
    found.done(
        Check::Tree,
        format!(
            "{tiles} tiles, and the root over {} entries of {origin}",
            span.size
        ),
    );
}

fn note_untrusted(log: &LogEntry, found: &mut Collector<'_>) {
    found.push(Finding {
        check: Check::Ledgers,
        severity: Severity::Missing,
        log: Some(log.origin.to_string()),
        sequence: None,
        file: None,
        what: "this ledger is of an organization that is not among those you trust".to_owned(),
    });
}

fn conclude(
    mut found: Collector<'_>,
    evidence: Evidence,
    judged: Option<(Held, Signer)>,
) -> Report {
    let (held, signer) = judged.unzip();
    let trusted = signer
        .as_ref()
        .is_some_and(|signer| signer.standing == Standing::Trusted);
    let key = signer.as_ref().and_then(|signer| signer.key.clone());
    let shown = key.as_deref().unwrap_or("an unknown key");
    let holds = match evidence {
        Evidence::Fork | Evidence::Receipts => "proven",
        _ => "whole",
    };
    // Whatever stopped a check has been reported. Should a report ever be forgotten, the verdict still cannot be whole.
    let lacking = match &signer {
        None => Some("the evidence could not be judged".to_owned()),
        Some(signer) if !signer.complete => Some("it could not be judged to its end".to_owned()),
        Some(_) if trusted => None,
        Some(signer) if signer.asked => Some(format!(
            "it is {holds} under {shown}, which is not among the keys that you trust"
        )),
        Some(_) => Some(format!(
            "it is {holds} under {shown}; nobody said that this key is right"
        )),
    };
    let witnessed = found.take_witnessed();
    let timestamped = found.take_timestamped();
    let (checks, verdict) = found.finish(lacking);
    Report {
        evidence,
        from: held.as_ref().map_or(0, |held| held.from),
        to: held.as_ref().map_or(0, |held| held.to),
        size: held.as_ref().map_or(0, |held| held.size),
        origin: held.map(|held| held.origin),
        key,
        trusted,
        witnessed,
        timestamped,
        checks,
        verdict,
    }
}
