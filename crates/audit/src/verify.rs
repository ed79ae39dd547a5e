//! The order of the checks, and the conclusion.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use countersign_event::content::EventRef;

use crate::checks::checkpoint::Standing;
use crate::checks::files::Listed;
use crate::checks::keys::Keys;
use crate::checks::ledgers::Ledger;
use crate::checks::{checkpoint, content, coverage, decisions, documents, files, keys, ledgers};
use crate::files::{BundleFiles, OpenFault};
use crate::manifest::{LogEntry, Manifest};
use crate::report::{Check, Collector, Finding, Report, Severity};
use crate::trust::Trust;
use crate::walk::{Look, Walk, Walked};

/// Why there is nothing to judge.
#[derive(Debug, thiserror::Error)]
#[error("the bundle cannot be read: `{}`: {source}", path.display())]
pub struct OpenError {
    /// What could not be read.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Verifies a bundle, offline: a directory or a `.tar` file. `on_finding` hears of everything as it is found.
///
/// # Errors
/// [`OpenError`] where the path cannot be read at all. Whatever is wrong *in* a bundle is in the report.
pub fn verify(
    path: &Path,
    trust: &Trust,
    on_finding: &mut dyn FnMut(&Finding),
) -> Result<Report, OpenError> {
    let mut found = Collector::new(on_finding);
    let files = match BundleFiles::open(path) {
        Ok(files) => files,
        Err(OpenFault::Io { path, source }) => return Err(OpenError { path, source }),
        Err(fault) => {
            found.push(Finding {
                check: Check::Files,
                severity: Severity::False,
                log: None,
                sequence: None,
                file: None,
                what: fault.to_string(),
            });
            return Ok(conclude(found, None, None));
        }
    };
    let Some(manifest) = files::read_manifest(&files, &mut found) else {
        return Ok(conclude(found, None, None));
    };
    let listed = files::check(&files, &manifest, &mut found);
    let audit = Audit {
        files: &files,
        manifest: &manifest,
        trust,
    };
    let signer = audit.run(listed, &mut found);
    Ok(conclude(found, Some(&manifest.logs[0]), Some(signer)))
}

/// Who stands behind the log.
struct Signer {
    key: Option<String>,
    standing: Standing,
    /// Whether the auditor brought any trust along.
    asked: bool,
    /// Whether every log was walked to its end.
    complete: bool,
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

        let (walked, standing) = self.log(0, &listed, &keys, documents.watch(), None, found);
        documents::check(&main.origin, main.span(), &documents, &keys, &walked, found);

        let look = |sequence, event: &EventRef<'_>| ledgers::look(&main.origin, sequence, event);
        let mut complete = walked.complete;
        let mut ledger_logs = Vec::new();
        for (number, log) in self.manifest.logs.iter().enumerate().skip(1) {
            let (walked, standing) =
                self.log(number, &listed, &keys, BTreeSet::new(), Some(&look), found);
            complete &= walked.complete;
            if standing == Standing::Untrusted && !self.trust.is_none() {
                note_untrusted(log, found);
            }
            ledger_logs.push(Ledger {
                log,
                facts: walked.facts,
            });
        }
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
        let opened = checkpoint::open(log, listed.checkpoints[number].as_ref(), vkey, found);
        let (Some(opened), Some(vkey)) = (opened, vkey) else {
            return (Walked::default(), Standing::Untrusted);
        };
        let walk = Walk {
            files: self.files,
            prefix: &log.path,
            origin: log.origin.as_str(),
            span: log.span(),
            root: opened.root,
            watch,
            look,
        };
        let walked = walk.run(&mut |finding| found.push(finding));
        content::judge_undisclosed(self.manifest, number, &walked, found);
        if walked.complete {
            say_done(log, &walked, found);
        }
        let standing = checkpoint::judge_key(log, vkey, &walked, keys, self.trust, found);
        (walked, standing)
    }
}

fn say_done(log: &LogEntry, walked: &Walked, found: &mut Collector<'_>) {
    let span = log.span();
    let origin = &log.origin;
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
    let sealed = match walked.encrypted {
        0 => String::new(),
        encrypted => format!(" ({encrypted} of them sealed to their recipients, and not opened)"),
    };
    found.done(
        Check::Content,
        format!(
            "{} contents of {} bytes{sealed}",
            walked.contents, walked.content_bytes
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

fn conclude(found: Collector<'_>, log: Option<&LogEntry>, signer: Option<Signer>) -> Report {
    let trusted = signer
        .as_ref()
        .is_some_and(|signer| signer.standing == Standing::Trusted);
    let key = signer.as_ref().and_then(|signer| signer.key.clone());
    let shown = key.as_deref().unwrap_or("an unknown key");
    // Whatever stopped a check has been reported. Should a report ever be forgotten, the verdict still cannot be whole.
    let lacking = match &signer {
        None => Some("the bundle could not be judged".to_owned()),
        Some(signer) if !signer.complete => Some("a log could not be read to its end".to_owned()),
        Some(_) if trusted => None,
        Some(signer) if signer.asked => Some(format!(
            "it is whole under {shown}, which is not among the keys that you trust"
        )),
        Some(_) => Some(format!(
            "it is whole under {shown}; nobody said that this key is right"
        )),
    };
    let (checks, verdict) = found.finish(lacking);
    Report {
        origin: log.map(|log| log.origin.to_string()),
        from: log.map_or(0, |log| log.from),
        to: log.map_or(0, |log| log.to),
        size: log.map_or(0, |log| log.size),
        key,
        trusted,
        checks,
        verdict,
    }
}
