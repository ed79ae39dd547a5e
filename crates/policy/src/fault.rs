use std::fmt;

use cedar_policy::ParseErrors;
use miette::Diagnostic;

use crate::PolicyId;
use crate::nesting::Statement;

/// The most faults that one load reports; the rest is counted nowhere, since the first are what a person mends first.
const FAULTS_MAX: usize = 20;

/// One fault in a policy file, with the place where it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PolicyFault {
    /// The file's name.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The policy concerned, where the file could be divided into policies.
    pub policy: Option<PolicyId>,
    /// What is wrong.
    pub message: String,
    /// What may mend it, where something is known.
    pub hint: Option<String>,
}

impl fmt::Display for PolicyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}: {}",
            self.file, self.line, self.column, self.message
        )?;
        match &self.hint {
            Some(hint) => write!(f, " (hint: {hint})"),
            None => Ok(()),
        }
    }
}

/// Why policy texts were not taken. The set in force stays as it is.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PolicyLoadError {
    /// The texts together are too long.
    #[error(
        "the policy files have {bytes} bytes; at most {limit} are taken: divide or shorten them"
    )]
    TooManyBytes {
        /// Bytes of all texts together.
        bytes: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// There are too many policies.
    #[error("there are more than {limit} policies: merge some")]
    TooManyPolicies {
        /// The most policies that are taken.
        limit: usize,
    },
    /// A file's name would not make good policy names.
    #[error(
        "`{file}` is not a name for a policy file: 1 to 64 of `A-Z a-z 0-9 . _ -`, then `.cedar`, and no folder"
    )]
    FileName {
        /// The name.
        file: String,
    },
    /// Two files have one name.
    #[error("two policy files have the name `{file}`")]
    DuplicateFile {
        /// The name.
        file: String,
    },
    /// Texts that are no policies, or policies that do not fit the schema.
    #[error("{}", list(faults))]
    Faults {
        /// At least 1 and at most 20 faults, by file, line and column; one for each place.
        faults: Vec<PolicyFault>,
    },
}

impl PolicyLoadError {
    /// The faults with their places; empty for the errors that have none.
    #[must_use]
    pub fn faults(&self) -> &[PolicyFault] {
        match self {
            Self::Faults { faults } => faults,
            Self::DuplicateFile { .. }
            | Self::FileName { .. }
            | Self::TooManyBytes { .. }
            | Self::TooManyPolicies { .. } => &[],
        }
    }

    pub(crate) fn from_faults(mut faults: Vec<PolicyFault>) -> Self {
        faults.sort_by(|a, b| {
            (&a.file, a.line, a.column, &a.message).cmp(&(&b.file, b.line, b.column, &b.message))
        });
        // A policy is checked once for each kind of principal: one misspelt word would be told three times.
        faults.dedup_by(|a, b| (&a.file, a.line, a.column) == (&b.file, b.line, b.column));
        faults.truncate(FAULTS_MAX);
        Self::Faults { faults }
    }
}

/// A text with its file name, for making faults.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) file: &'a str,
    pub(crate) text: &'a str,
    /// Where the part that Cedar was given begins; Cedar counts bytes from there.
    pub(crate) base: usize,
}

impl<'a> Source<'a> {
    /// A whole file.
    pub(crate) fn new(file: &'a str, text: &'a str) -> Self {
        Self {
            file,
            text,
            base: 0,
        }
    }

    /// The same file, seen from the statement that Cedar was given.
    pub(crate) fn within(self, statement: Statement) -> Self {
        Self {
            base: statement.start,
            ..self
        }
    }

    /// A fault at `offset`, counted in bytes from the start of the file.
    pub(crate) fn fault(
        self,
        offset: usize,
        policy: Option<PolicyId>,
        message: String,
        hint: Option<String>,
    ) -> PolicyFault {
        let (line, column) = self.place(offset);
        PolicyFault {
            file: self.file.to_owned(),
            line,
            column,
            policy,
            message,
            hint,
        }
    }

    /// Makes a fault of one of Cedar's errors.
    pub(crate) fn fault_of(
        self,
        error: &(impl Diagnostic + ?Sized),
        policy: Option<PolicyId>,
    ) -> PolicyFault {
        let label = error.labels().and_then(|mut labels| labels.next());
        let offset = label.as_ref().map_or(0, miette::LabeledSpan::offset);
        let offset = self.base.saturating_add(offset);
        let hint = error
            .help()
            .map(|help| help.to_string())
            .or_else(|| label.and_then(|label| label.label().map(str::to_owned)));
        self.fault(offset, policy, error.to_string(), hint)
    }

    pub(crate) fn faults_of(self, errors: &ParseErrors) -> Vec<PolicyFault> {
        errors
            .iter()
            .take(FAULTS_MAX)
            .map(|error| self.fault_of(error, None))
            .collect()
    }

    fn place(self, offset: usize) -> (usize, usize) {
        // An offset inside a character would be Cedar's mistake; it still must not end in a panic.
        let before = self
            .text
            .as_bytes()
            .get(..offset)
            .unwrap_or(self.text.as_bytes());
        let before = String::from_utf8_lossy(before);
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .map_or(0, |last| last.chars().count())
            + 1;
        (line, column)
    }
}

fn list(faults: &[PolicyFault]) -> String {
    let lines: Vec<String> = faults.iter().map(PolicyFault::to_string).collect();
    lines.join("\n")
}
