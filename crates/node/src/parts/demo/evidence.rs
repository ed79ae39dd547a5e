//! What the auditor does: it has a file and a fingerprint, and needs nothing else.

use std::fs;
use std::path::{Path, PathBuf};

use countersign_audit::{Check, Outcome, Report, Trust, Verdict, verify};
use serde_json::{Value, json};

use super::cast::{Cast, io_error, write_private};
use super::exchange::{Published, STREAM};
use super::teller::Teller;
use super::{broken, ensure, quakes};
use crate::admin::Command;
use crate::commands::internal;
use crate::errors::CommandError;

/// The evidence, in the auditor's folder.
pub(super) const WHOLE: &str = "earthquakes.tar";

/// The copy with one byte changed.
pub(super) const ALTERED: &str = "earthquakes-altered.tar";

/// Whom the auditor trusts.
pub(super) const FINGERPRINT: &str = "fingerprint.txt";

/// Evidence is exported to a file, and verified with nothing but that file and the producer's fingerprint.
pub(super) async fn verify_whole(
    cast: &Cast,
    teller: &mut Teller<'_>,
) -> Result<Value, CommandError> {
    let (path, fingerprint) = (cast.auditor.join(WHOLE), cast.auditor.join(FINGERPRINT));
    write_private(&fingerprint, &format!("{}\n", cast.producer.fingerprint()))?;
    let export = Command::EvidenceExport {
        stream: STREAM.to_owned(),
        from: None,
        to: None,
        out: path.display().to_string(),
    };
    let summary = cast.producer.call(&export).await?;
    let bytes = fs::metadata(&path)
        .map_err(|error| io_error(&path, &error))?
        .len();
    teller.say(&format!(
        "{} exports the stream's log, contents, documents, policies and decisions into one file of {} kB. The auditor checks it:",
        cast.producer.name(),
        bytes.div_ceil(1000)
    ))?;
    let blind = judged(path.clone(), Trust::none()).await?;
    let trust = fs::read(&fingerprint).map_err(|error| io_error(&fingerprint, &error))?;
    let trust = Trust::from_file(&trust).map_err(internal)?;
    let report = judged(path, trust).await?;
    teller.verbatim(
        "trust",
        &format!(
            "{} of {}, told by another way",
            cast.producer.fingerprint(),
            cast.producer.name()
        ),
    )?;
    for line in &report.checks {
        match &line.outcome {
            Outcome::Done { what } => teller.check(line.check.name(), &shown(line.check, what))?,
            Outcome::Skipped { why } => {
                teller.check(line.check.name(), &format!("skipped: {why}"))?
            }
            Outcome::Missing { first, .. } | Outcome::Failed { first, .. } => {
                teller.check(line.check.name(), &first.to_string())?
            }
        }
    }
    ensure(report.verdict == Verdict::Whole, &report.sentence())?;
    ensure(
        report.trusted,
        "the producer's key is not among those that the auditor trusts",
    )?;
    teller.proof(&format!(
        "verdict {}: {}",
        report.verdict.exit_code(),
        report.sentence()
    ))?;
    ensure(
        matches!(blind.verdict, Verdict::Inconclusive { .. }),
        "without a trusted key the verdict should be inconclusive",
    )?;
    teller.say(&format!(
        "Without the fingerprint the same file is inconclusive ({}): trust comes from outside.",
        blind.verdict.exit_code()
    ))?;
    Ok(json!({
        "file": WHOLE,
        "file_bytes": bytes,
        "export": summary,
        "trust": cast.producer.fingerprint(),
        "verdict": report.verdict.exit_code(),
        "verdict_without_trust": blind.verdict.exit_code(),
        "report": report,
    }))
}

/// Somebody makes the strongest earthquake of a copy a weaker one.
pub(super) async fn verify_altered(
    cast: &Cast,
    published: &Published,
    teller: &mut Teller<'_>,
) -> Result<Value, CommandError> {
    let strongest = published
        .read
        .iter()
        .find(|item| item["data"]["id"] == quakes::STRONGEST);
    let sequence = strongest.and_then(|item| item["sequence"].as_u64());
    let sequence = sequence.ok_or_else(|| broken("the strongest earthquake was not read"))?;
    let (whole, altered) = (cast.auditor.join(WHOLE), cast.auditor.join(ALTERED));
    let mut bytes = fs::read(&whole).map_err(|error| io_error(&whole, &error))?;
    let offset = magnitude_at(&bytes)?;
    bytes[offset] = b'5';
    fs::write(&altered, &bytes).map_err(|error| io_error(&altered, &error))?;
    teller.say(&format!("In a copy of the file, byte {offset} is changed: the magnitude of entry {sequence} is now 5.4 in place of 6.4."))?;
    let report = judged(
        altered,
        Trust::of_fingerprints([cast.producer.fingerprint().clone()]),
    )
    .await?;
    let Verdict::Failed { first } = &report.verdict else {
        return Err(broken("the altered copy was not found false"));
    };
    teller.refusal(&format!(
        "verdict {}: {}",
        report.verdict.exit_code(),
        report.sentence()
    ))?;
    ensure(
        first.sequence == Some(sequence),
        "the verifier names another entry than the one that was changed",
    )?;
    teller.proof(&format!(
        "the verifier names entry {sequence}, {}",
        quakes::place(&published.read, sequence)
    ))?;
    Ok(json!({
        "file": ALTERED,
        "byte": offset,
        "before": "6",
        "after": "5",
        "altered_entry": sequence,
        "verdict": report.verdict.exit_code(),
        "named_entry": first.sequence,
        "finding": first,
    }))
}

/// What was checked. Where it is the same for each log, the stream's is enough for people; `evidence verify` shows all.
fn shown(check: Check, what: &str) -> String {
    let is_each_log = matches!(
        check,
        Check::Checkpoint | Check::Chain | Check::Tree | Check::Content
    );
    match what.split_once("; ") {
        Some((first, others)) if is_each_log => {
            let others = others.split("; ").count();
            format!("{first}; the same for {others} ledger logs")
        }
        _ => what.to_owned(),
    }
}

/// Where the first digit of the strongest magnitude lies in the file: contents are in it as they were handed in.
fn magnitude_at(bytes: &[u8]) -> Result<usize, CommandError> {
    let id = format!("\"id\":\"{}\"", quakes::STRONGEST);
    let found = |from: usize, what: &[u8]| {
        let rest = bytes.get(from..)?;
        let at = rest.windows(what.len()).position(|window| window == what)?;
        Some(from + at)
    };
    let member = b"\"mag\":6.4";
    let at = found(0, id.as_bytes()).and_then(|at| found(at, member));
    let at = at.ok_or_else(|| broken("the evidence does not hold the strongest earthquake"))?;
    Ok(at + member.len() - 3)
}

/// What `evidence verify` does, on a thread of its own.
async fn judged(path: PathBuf, trust: Trust) -> Result<Report, CommandError> {
    let shown = path.clone();
    let report = tokio::task::spawn_blocking(move || verify(&path, &trust, &mut |_| ())).await;
    report
        .map_err(internal)?
        .map_err(|error| cannot_read(&shown, &error))
}

fn cannot_read(path: &Path, error: &countersign_audit::OpenError) -> CommandError {
    io_error(path, &error.source)
}
