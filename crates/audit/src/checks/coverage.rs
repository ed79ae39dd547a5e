//! Nothing here reaches beyond the entries that are here: a true beginning of a longer log does not pass for the whole.

use crate::layout::Span;
use crate::report::{Check, Collector, Finding, Severity};

/// Something that speaks about a log up to a size.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    /// The file it is in.
    pub(crate) file: String,
    /// The ledger and the entry it is in, where it is in one.
    pub(crate) ledger: Option<(String, u64)>,
    /// What it is.
    pub(crate) what: &'static str,
    /// First sequence that it does not speak about.
    pub(crate) size: u64,
}

/// Compares what documents and ledgers speak about with what is here.
pub(crate) fn check(span: Span, reaches: &[Reach], found: &mut Collector<'_>) {
    for reach in reaches {
        if reach.size > span.to {
            let (log, sequence) = reach.ledger.clone().unzip();
            found.push(Finding {
                check: Check::Coverage,
                severity: Severity::Missing,
                log,
                sequence,
                file: Some(reach.file.clone()),
                what: format!(
                    "this {} covers entries up to {}, and the bundle ends at {}: entries are missing",
                    reach.what, reach.size, span.to
                ),
            });
        }
    }
    found.done(
        Check::Coverage,
        match reaches.iter().map(|reach| reach.size).max() {
            None => "no document speaks about entries".to_owned(),
            Some(most) => format!(
                "{} documents reach to {most} at most, the bundle to {}",
                reaches.len(),
                span.to
            ),
        },
    );
}
