//! By when a checkpoint existed, as far as somebody who keeps the time says so (`schemas/timestamp.md`).

use std::collections::BTreeSet;

use countersign_crypto::{Hash, TimestampToken, sha256};
use countersign_event::names::Origin;
use countersign_event::time::Timestamp;
use countersign_tlog::{Checkpoint, Note};

use super::files::StampedFile;
use crate::report::{Check, Collector, Finding, Severity, TimestampReport};
use crate::trust::Trust;
use crate::walk::Walked;

/// A checkpoint of the log that the evidence is about, and a token that is said to be over it.
pub(crate) struct Judged<'a> {
    pub(crate) origin: &'a Origin,
    pub(crate) note: &'a Note,
    pub(crate) size: u64,
    pub(crate) token: &'a [u8],
    pub(crate) file: &'a str,
}

impl Judged<'_> {
    /// Judges the token. What is false in it fails the evidence; what nobody trusts proves nothing, and takes nothing away.
    pub(crate) fn judge(&self, trust: &Trust, found: &mut Collector<'_>) {
        let Self { origin, size, .. } = self;
        let token = match TimestampToken::from_der(self.token) {
            Ok(token) => token,
            Err(error) => return self.push(Severity::False, error.to_string(), found),
        };
        let stamped = self.note.only(origin.as_str()).encode();
        if *token.imprint() != sha256(stamped.as_bytes()) {
            let what = "it is over something else than this checkpoint".to_owned();
            return self.push(Severity::False, what, found);
        }
        let by = printable(token.signer());
        let time = Timestamp(token.time_us());
        let bound = Timestamp(token.not_later_than_us());
        let roots = trust.tsa_roots();
        let refused = match token.check_trusted(roots) {
            Ok(()) => None,
            Err(_) if roots.is_empty() => {
                Some("nobody said whom to trust about time (`--tsa-roots FILE`)".to_owned())
            }
            Err(error) => Some(error.to_string()),
        };
        match &refused {
            None => found.done(
                Check::Timestamps,
                format!("{size} entries of {origin} existed not later than {bound}, says `{by}`"),
            ),
            Some(why) => {
                let what = format!(
                    "{size} entries: a token of {time} by `{by}` is present, not trusted: nothing proven; {why}"
                );
                self.push(Severity::Note, what, found);
                found.skipped(
                    Check::Timestamps,
                    "no token by anybody whom you trust about time",
                );
            }
        }
        found.timestamped(TimestampReport {
            log: origin.to_string(),
            size: *size,
            by,
            time: time.to_string(),
            not_later_than: refused.is_none().then(|| bound.to_string()),
        });
    }

    fn push(&self, severity: Severity, what: String, found: &mut Collector<'_>) {
        push(self.origin, self.file, severity, what, found);
    }
}

/// Names come from certificates, which anybody can write.
fn printable(text: &str) -> String {
    let shown = text.chars().map(|c| if c.is_control() { '?' } else { c });
    shown.take(200).collect()
}

/// The sizes whose roots are needed to judge the tokens of a bundle.
pub(crate) fn watch(stamped: &[StampedFile]) -> BTreeSet<u64> {
    let read = stamped.iter().filter_map(|stamped| read(&stamped.note));
    read.map(|(_, checkpoint)| checkpoint.size).collect()
}

fn read(note: &[u8]) -> Option<(Note, Checkpoint)> {
    let note = Note::parse(note).ok()?;
    let checkpoint = Checkpoint::parse_text(note.text()).ok()?;
    Some((note, checkpoint))
}

/// Judges the tokens of a bundle, once its log was walked.
pub(crate) fn check(
    origin: &Origin,
    size: u64,
    (stamped, newest): (&[StampedFile], Option<&[u8]>),
    walked: &Walked,
    trust: &Trust,
    found: &mut Collector<'_>,
) {
    if stamped.is_empty() {
        found.skipped(Check::Timestamps, NONE);
        return;
    }
    let newest = newest.and_then(read).map(|(_, checkpoint)| checkpoint.root);
    let root_at = |at: u64| -> Option<Hash> {
        let state = walked.states.get(&at).map(|state| state.root);
        state.or(newest.filter(|_| at == size))
    };
    for stamped in stamped {
        let say = |severity, what: &str, found: &mut Collector<'_>| {
            push(origin, &stamped.path, severity, what.to_owned(), found);
        };
        let Some((note, checkpoint)) = read(&stamped.note) else {
            say(Severity::False, "what it is over is no checkpoint", found);
            continue;
        };
        if checkpoint.origin != origin.as_str() {
            say(
                Severity::False,
                "it is over a checkpoint of another log",
                found,
            );
            continue;
        }
        match root_at(checkpoint.size) {
            Some(root) if root == checkpoint.root => {}
            Some(_) => {
                say(
                    Severity::False,
                    "it is over a checkpoint with another root than the entries here have",
                    found,
                );
                continue;
            }
            None => {
                say(
                    Severity::Missing,
                    "it is over a checkpoint of a size whose root cannot be computed from the entries here",
                    found,
                );
                continue;
            }
        }
        let judged = Judged {
            origin,
            note: &note,
            size: checkpoint.size,
            token: &stamped.token,
            file: &stamped.path,
        };
        judged.judge(trust, found);
    }
}

/// Why nothing was looked at.
pub(crate) const NONE: &str = "no time-stamp token is here";

fn push(origin: &Origin, file: &str, severity: Severity, what: String, found: &mut Collector<'_>) {
    found.push(Finding {
        check: Check::Timestamps,
        severity,
        log: Some(origin.to_string()),
        sequence: None,
        file: Some(file.to_owned()),
        what,
    });
}
