//! `evidence verify`: what an auditor runs, on a machine that has nothing but this program and the evidence.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use countersign_audit::{
    EXIT_FAILED, EXIT_INCONCLUSIVE, EXIT_WHOLE, Finding, Report, Severity, Trust, verify,
};
use countersign_crypto::{Fingerprint, TsaRoots};
use tokio::sync::mpsc;

use crate::cli::{CommandResult, Exit, Output, VerifyArgs, View};
use crate::errors::{CommandError, ErrorCode};

/// Largest file to trust that is read: 4,096 lines of the longest kind, or a key statement.
const TRUST_BYTES_MAX: u64 = 4 << 20;

/// Findings that are shown as they come, unless `-v` asks for all: the report counts the rest.
const SHOWN_MAX: usize = 20;

/// Verifies evidence offline, and prints the report. Needs no data directory, node or network.
///
/// # Errors
/// [`ErrorCode::NotFound`] where there is nothing at the path, [`ErrorCode::Usage`] for something to trust that is no key. A bundle that is false or
/// incomplete is no error: the report says so, and the exit code is 6 or 9.
pub(crate) async fn evidence_verify(args: &VerifyArgs, output: &mut Output) -> CommandResult {
    let trust = args.trust.iter().try_fold(Trust::none(), |trust, text| {
        Ok::<_, CommandError>(trust.and(trust_of(text)?))
    })?;
    let trust = args.tsa_roots.iter().try_fold(trust, |trust, path| {
        Ok::<_, CommandError>(trust.and(Trust::of_tsa_roots(tsa_roots_of(path)?)))
    })?;
    let (sender, mut findings) = mpsc::channel::<Finding>(64);
    let path = args.path.clone();
    // Hashing is long work that gives way to nothing: on a thread of its own, Ctrl-C still ends the command.
    let verified = tokio::task::spawn_blocking(move || {
        verify(&path, &trust, &mut |finding| {
            // Without a listener the report still says all.
            let _ = sender.blocking_send(finding.clone());
        })
    });
    let shown_max = if output.verbose() > 0 {
        usize::MAX
    } else {
        SHOWN_MAX
    };
    let mut shown = 0_usize;
    while let Some(finding) = findings.recv().await {
        if finding.severity != Severity::Note && shown < shown_max && !output.is_json() {
            shown += 1;
            output.note(&note(&finding));
        }
    }
    let report = verified
        .await
        .map_err(|error| CommandError::new(ErrorCode::Internal, error))?
        .map_err(|error| cannot_open(&args.path, &error.source, &error))?;
    print(&report, output)?;
    exit(&report)
}

fn print(report: &Report, output: &mut Output) -> Result<(), CommandError> {
    if !output.is_json() {
        return output.data(&printable(&report.to_string()));
    }
    let value = serde_json::to_value(report)
        .map_err(|error| CommandError::new(ErrorCode::Internal, error))?;
    output.value(&View::FIELDS, &value)
}

fn exit(report: &Report) -> CommandResult {
    match report.verdict.exit_code() {
        EXIT_WHOLE => Ok(Exit::Ok),
        EXIT_FAILED => Ok(Exit::VerificationFailed),
        EXIT_INCONCLUSIVE => Ok(Exit::Inconclusive),
        code => {
            let message = format!("verification ended with the unknown code {code}");
            Err(CommandError::new(ErrorCode::Internal, message))
        }
    }
}

fn note(finding: &Finding) -> String {
    let what = match finding.severity {
        Severity::False => "FALSE",
        Severity::Missing => "missing",
        Severity::Note => "note",
    };
    printable(&format!("{what}: {}: {finding}", finding.check))
}

/// The report quotes names out of the bundle, which is not to be believed.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && c != '\n' { '?' } else { c })
        .collect()
}

/// Whom an argument says to trust: a fingerprint, or a file with keys.
fn trust_of(text: &str) -> Result<Trust, CommandError> {
    if let Ok(fingerprint) = text.parse::<Fingerprint>() {
        return Ok(Trust::of_fingerprints([fingerprint]));
    }
    let usage = |error: &dyn std::fmt::Display| {
        CommandError::new(ErrorCode::Usage, format_args!("`--trust {text}`: {error}"))
            .advise("give the fingerprint `key-…` as the organization told it by another way, or a file that holds it, its key statement or a witness policy")
    };
    let bytes =
        read_bounded(Path::new(text), TRUST_BYTES_MAX).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                usage(&"this is neither a fingerprint nor a file that is here")
            }
            _ => usage(&error),
        })?;
    Trust::from_file(&bytes).map_err(|error| usage(&error))
}

/// Whom a file says to trust about time.
fn tsa_roots_of(path: &Path) -> Result<TsaRoots, CommandError> {
    let usage = |error: &dyn std::fmt::Display| {
        CommandError::new(
            ErrorCode::Usage,
            format_args!("`--tsa-roots {}`: {error}", path.display()),
        )
        .advise("give a file with the certificates, in PEM, of the time-stamping authorities that you trust")
    };
    let bytes = read_bounded(path, TRUST_BYTES_MAX).map_err(|error| usage(&error))?;
    TsaRoots::from_pem(&bytes).map_err(|error| usage(&error))
}

/// A file that somebody names, of so many bytes at most.
pub(super) fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(bytes_max + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let message = format!("the file is larger than the {bytes_max} bytes that are read");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

fn cannot_open(path: &Path, source: &io::Error, error: &dyn std::fmt::Display) -> CommandError {
    if source.kind() == io::ErrorKind::NotFound && !path.exists() {
        return CommandError::new(
            ErrorCode::NotFound,
            format_args!("there is no evidence at `{}`", path.display()),
        );
    }
    CommandError::new(ErrorCode::Io, error)
}
