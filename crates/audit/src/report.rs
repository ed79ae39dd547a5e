//! What verification says: findings as they come, one line per check, one verdict.

use std::fmt;

use countersign_event::time::Timestamp;
use countersign_tlog::Vkey;
use serde::Serialize;

/// Exit code of [`Verdict::Whole`].
pub const EXIT_WHOLE: u8 = 0;
/// Exit code of [`Verdict::Failed`].
pub const EXIT_FAILED: u8 = 6;
/// Exit code of [`Verdict::Inconclusive`].
pub const EXIT_INCONCLUSIVE: u8 = 9;

/// The families of checks, in the order in which they are made and shown.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// Each file is expected, complete and as the manifest says.
    Files,
    /// Key statements verify, and who is trusted.
    Keys,
    /// Signed by a key that the organization delegated to logs.
    Checkpoint,
    /// Cosigned by the witnesses that the auditor asks for.
    Witnesses,
    /// Stamped by somebody who keeps the time.
    Timestamps,
    /// Each entry names the one before; times never decrease.
    Chain,
    /// Entries, tiles and root agree.
    Tree,
    /// Each content is what its entry commits to.
    Content,
    /// Agreements, receipts and the other signed documents.
    Documents,
    /// Nothing here reaches beyond the entries that are here.
    Coverage,
    /// Each decision follows from its policies and facts.
    Decisions,
    /// Decisions and documents lie in the organization's own log.
    Ledgers,
}

impl Check {
    /// All checks, in order.
    pub const ALL: [Self; 12] = [
        Self::Files,
        Self::Keys,
        Self::Checkpoint,
        Self::Witnesses,
        Self::Timestamps,
        Self::Chain,
        Self::Tree,
        Self::Content,
        Self::Documents,
        Self::Coverage,
        Self::Decisions,
        Self::Ledgers,
    ];

    /// The word in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Keys => "keys",
            Self::Checkpoint => "checkpoint",
            Self::Witnesses => "witnesses",
            Self::Timestamps => "timestamps",
            Self::Chain => "chain",
            Self::Tree => "tree",
            Self::Content => "content",
            Self::Documents => "documents",
            Self::Coverage => "coverage",
            Self::Decisions => "decisions",
            Self::Ledgers => "ledgers",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a finding does to the verdict.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; changes nothing.
    Note,
    /// Evidence is not here: the verdict cannot be better than inconclusive.
    Missing,
    /// Something is false.
    False,
}

/// One thing found, with its place.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// Which check found it.
    pub check: Check,
    /// What it does to the verdict.
    pub severity: Severity,
    /// The log concerned, by origin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// The entry concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// The file concerned, by its path in the bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// What is so, and why it matters.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(log) = &self.log {
            write!(f, "{log}, ")?;
        }
        if let Some(sequence) = self.sequence {
            write!(f, "entry {sequence}, ")?;
        }
        if let Some(file) = &self.file {
            write!(f, "file `{file}`: ")?;
        }
        f.write_str(&self.what)
    }
}

/// How one family of checks came out.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase", tag = "outcome")]
pub enum Outcome {
    /// Every check of the family was made and holds.
    Done {
        /// What was checked.
        what: String,
    },
    /// The family was not checked.
    Skipped {
        /// Why not.
        why: String,
    },
    /// Nothing is false, but evidence is missing.
    Missing {
        /// The first thing that is missing.
        first: Finding,
        /// How many in all.
        count: u64,
    },
    /// Something is false.
    Failed {
        /// The first thing that is false, by place.
        first: Finding,
        /// How many in all.
        count: u64,
    },
}

/// One line of the report.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct CheckReport {
    /// Which check.
    pub check: Check,
    /// How it came out.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Worth knowing, at most 20.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The conclusion.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase", tag = "verdict")]
pub enum Verdict {
    /// Everything was checked and holds, under a key that is trusted.
    Whole,
    /// Something is false.
    Failed {
        /// The first bad thing: where there is a bad entry, the first one.
        first: Finding,
    },
    /// Nothing is false, but trust or evidence is missing.
    Inconclusive {
        /// What is missing, one sentence each, at least one.
        missing: Vec<String>,
    },
}

impl Verdict {
    /// The exit code that stands for it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Whole => EXIT_WHOLE,
            Self::Failed { .. } => EXIT_FAILED,
            Self::Inconclusive { .. } => EXIT_INCONCLUSIVE,
        }
    }
}

/// What kind of evidence was judged.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    /// A bundle: log, content, documents, policies.
    Bundle,
    /// The proof of one event.
    Event,
    /// The proof that a log has two histories: `from` is the smaller size, `to` the larger.
    Fork,
    /// The proof that a log has only grown: `from` is the older size, `to` the newer.
    Growth,
    /// A mirrored log.
    Mirror,
    /// The proof that a consumer has contradicted itself: `from` and `to` are the sizes that its two receipts reach.
    Receipts,
}

/// Whether those who cosigned a checkpoint are enough.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Quorum {
    /// The policy about the log is met.
    Met,
    /// It is not.
    Missed,
    /// It asks for nobody.
    None,
    /// No policy is about the log.
    Unasked,
}

/// One witness's word on a checkpoint.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Cosigner {
    /// The name in its vkey.
    pub name: String,
    /// Its vkey.
    pub vkey: String,
    /// When it cosigned, by its own clock: RFC 3339, cut to seconds.
    pub time: String,
}

impl Cosigner {
    pub(crate) fn new(vkey: &Vkey, time: Timestamp) -> Self {
        Self {
            name: vkey.name().to_owned(),
            vkey: vkey.to_string(),
            time: time.to_string(),
        }
    }
}

/// Who cosigned a checkpoint: once for each policy about its log.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct WitnessReport {
    /// The log, by origin.
    pub log: String,
    /// The size of the checkpoint.
    pub size: u64,
    /// Who, and when.
    pub by: Vec<Cosigner>,
    /// Whether these are enough.
    pub quorum: Quorum,
    /// The time by which they were: the entries existed then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_later_than: Option<String>,
}

/// A time-stamp token over a checkpoint.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct TimestampReport {
    /// The log, by origin.
    pub log: String,
    /// The size of the checkpoint.
    pub size: u64,
    /// The subject of the certificate that signed it.
    pub by: String,
    /// The time that it states, by its own clock: RFC 3339.
    pub time: String,
    /// The time by which the entries existed: only where the auditor trusts who says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_later_than: Option<String>,
}

/// All that verification has to say.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Report {
    /// What was judged.
    pub evidence: Evidence,
    /// The log that the bundle is about; absent where not even that could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// First sequence held.
    pub from: u64,
    /// First sequence not held.
    pub to: u64,
    /// Size of the checkpoint.
    pub size: u64,
    /// The organization key behind the log, as a fingerprint, where one was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Whether that key is trusted from outside.
    pub trusted: bool,
    /// Who cosigned the checkpoints, where anybody did or was asked for; at most 100.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub witnessed: Vec<WitnessReport>,
    /// Time-stamp tokens that hold, trusted or not; at most 100.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub timestamped: Vec<TimestampReport>,
    /// One line per check.
    pub checks: Vec<CheckReport>,
    /// The conclusion.
    #[serde(flatten)]
    pub verdict: Verdict,
}

impl fmt::Display for Report {
    /// One line per check, its notes beneath it, and a sentence at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.checks {
            let check = line.check;
            match &line.outcome {
                Outcome::Done { what } => writeln!(f, "done     {check:<10}  {what}")?,
                Outcome::Skipped { why } => writeln!(f, "skipped  {check:<10}  {why}")?,
                Outcome::Missing { first, count } => {
                    writeln!(f, "missing  {check:<10}  {first}{}", More(*count))?
                }
                Outcome::Failed { first, count } => {
                    writeln!(f, "FAILED   {check:<10}  {first}{}", More(*count))?
                }
            }
            for note in &line.notes {
                writeln!(f, "                     {note}")?;
            }
        }
        writeln!(f)?;
        writeln!(f, "{}", self.sentence())
    }
}

impl Report {
    /// The conclusion in one sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let held = self.held();
        let key = self.key.as_deref().unwrap_or("the key of the log");
        match &self.verdict {
            Verdict::Whole if matches!(self.evidence, Evidence::Fork | Evidence::Receipts) => {
                format!("proven: {held}, under {key}, which you trust")
            }
            Verdict::Whole => format!("whole: {held}, under {key}, which you trust"),
            Verdict::Failed { first } => format!("verification FAILED: {first}"),
            Verdict::Inconclusive { missing } => {
                format!("inconclusive: {held}; {}", missing.join("; "))
            }
        }
    }

    fn held(&self) -> String {
        let Some(origin) = self.origin.as_deref() else {
            return "nothing that could be judged".to_owned();
        };
        if self.evidence == Evidence::Mirror {
            return format!(
                "the log of {origin} with all its {} entries, without content",
                self.to
            );
        }
        if self.evidence == Evidence::Growth {
            let (from, to) = (self.from, self.to);
            return format!("{origin} from {from} entries to {to}, with all of before");
        }
        if self.evidence == Evidence::Fork {
            let (from, to, before) = (self.from, self.to, self.from.saturating_sub(1));
            return format!(
                "{origin} signed two histories that part at or before entry {before}, one of {from} entries and one of {to}"
            );
        }
        if self.evidence == Evidence::Receipts {
            return format!(
                "a consumer of {origin} signed two receipts that contradict each other"
            );
        }
        if self.evidence == Evidence::Event {
            return format!("entry {} of {origin}, one of its {}", self.from, self.size);
        }
        match (self.from, self.to) {
            (0, to) if to == self.size => format!("all {to} entries of {origin}"),
            (from, to) => format!(
                "entries {from} to {} of {origin}, a part of its {}",
                to.saturating_sub(1),
                self.size
            ),
        }
    }
}

struct More(u64);

impl fmt::Display for More {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 | 1 => Ok(()),
            count => write!(f, " (and {} more)", count - 1),
        }
    }
}

/// Notes kept per check; more would hide the rest of the report.
const NOTES_MAX: usize = 20;

/// Checkpoints of which the report says who cosigned: more than evidence commonly has, and few enough to print.
const WITNESSED_MAX: usize = 100;

/// Where checks put what they find.
pub(crate) struct Collector<'a> {
    on_finding: &'a mut dyn FnMut(&Finding),
    // One per check, in the order of `Check::ALL`.
    families: [Family; Check::ALL.len()],
    witnessed: Vec<WitnessReport>,
    timestamped: Vec<TimestampReport>,
}

#[derive(Default)]
struct Family {
    done: Vec<String>,
    skipped: Option<String>,
    missing: Tally,
    failed: Tally,
    notes: Vec<String>,
}

#[derive(Default)]
struct Tally {
    first: Option<Finding>,
    count: u64,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(on_finding: &'a mut dyn FnMut(&Finding)) -> Self {
        Self {
            on_finding,
            families: std::array::from_fn(|_| Family::default()),
            witnessed: Vec::new(),
            timestamped: Vec::new(),
        }
    }

    /// Keeps a token that holds.
    pub(crate) fn timestamped(&mut self, report: TimestampReport) {
        if self.timestamped.len() < WITNESSED_MAX {
            self.timestamped.push(report);
        }
    }

    /// The tokens, as far as they were kept.
    pub(crate) fn take_timestamped(&mut self) -> Vec<TimestampReport> {
        std::mem::take(&mut self.timestamped)
    }

    /// Keeps who cosigned a checkpoint.
    pub(crate) fn witnessed(&mut self, report: WitnessReport) {
        if self.witnessed.len() < WITNESSED_MAX {
            self.witnessed.push(report);
        }
    }

    /// Who cosigned, as far as it was kept.
    pub(crate) fn take_witnessed(&mut self) -> Vec<WitnessReport> {
        std::mem::take(&mut self.witnessed)
    }

    pub(crate) fn push(&mut self, finding: Finding) {
        (self.on_finding)(&finding);
        let family = &mut self.families[finding.check as usize];
        match finding.severity {
            Severity::Note if family.notes.len() < NOTES_MAX => {
                family.notes.push(finding.to_string())
            }
            Severity::Note => {}
            Severity::Missing => family.missing.add(finding),
            Severity::False => family.failed.add(finding),
        }
    }

    /// Whether a family has found nothing false.
    pub(crate) fn is_clean(&self, check: Check) -> bool {
        self.families[check as usize].failed.first.is_none()
    }

    /// Says what was checked; shown where nothing was found wrong.
    pub(crate) fn done(&mut self, check: Check, what: impl Into<String>) {
        self.families[check as usize].done.push(what.into());
    }

    /// Says that a family was not checked.
    pub(crate) fn skipped(&mut self, check: Check, why: impl Into<String>) {
        self.families[check as usize]
            .skipped
            .get_or_insert(why.into());
    }

    /// The lines, and the verdict: `lacking` is what keeps it from being whole although nothing was found.
    pub(crate) fn finish(self, lacking: Option<String>) -> (Vec<CheckReport>, Verdict) {
        let failed = self
            .families
            .iter()
            .filter_map(|family| family.failed.first.as_ref());
        let first_false = failed.min_by_key(|finding| named_first(finding)).cloned();
        let missing = self
            .families
            .iter()
            .filter_map(|family| family.missing.first.as_ref());
        let missing: Vec<String> = lacking
            .into_iter()
            .chain(missing.map(Finding::to_string))
            .collect();
        let verdict = match first_false {
            Some(first) => Verdict::Failed { first },
            None if missing.is_empty() => Verdict::Whole,
            None => Verdict::Inconclusive { missing },
        };
        let lines = Check::ALL.into_iter().zip(self.families);
        (
            lines.map(|(check, family)| family.line(check)).collect(),
            verdict,
        )
    }
}

impl Family {
    fn line(self, check: Check) -> CheckReport {
        let outcome = match (self.failed.first, self.missing.first) {
            (Some(first), _) => Outcome::Failed {
                first,
                count: self.failed.count,
            },
            (None, Some(first)) => Outcome::Missing {
                first,
                count: self.missing.count,
            },
            (None, None) if self.done.is_empty() => Outcome::Skipped {
                why: self
                    .skipped
                    .unwrap_or_else(|| "an earlier check left nothing to check".to_owned()),
            },
            (None, None) => Outcome::Done {
                what: self.done.join("; "),
            },
        };
        CheckReport {
            check,
            outcome,
            notes: self.notes,
        }
    }
}

impl Tally {
    fn add(&mut self, finding: Finding) {
        self.count = self.count.saturating_add(1);
        // Entries come in order, but several checks look at each: the lowest entry is the one to name.
        let replaces = self.first.as_ref().is_none_or(|first| {
            first.log == finding.log && named_first(&finding) < named_first(first)
        });
        if replaces {
            self.first = Some(finding);
        }
    }
}

/// Order in which findings are worth naming: a bad entry says more than a bad root or file that it caused.
fn named_first(finding: &Finding) -> (bool, u64) {
    (finding.sequence.is_none(), finding.sequence.unwrap_or(0))
}
