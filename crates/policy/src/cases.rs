use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::decision::Decision;
use crate::request::{Action, Agreement, Context, Credential, Principal, Request, Stream};
use crate::set::PolicySet;

/// The most bytes of a file of cases. Enforced by [`run_cases`] and [`case_policies`].
const CASE_FILE_BYTES_MAX: usize = 1024 * 1024;
/// The time of a case that does not name one: 2026-01-01T00:00:00Z.
const NOW_DEFAULT: &str = "2026-01-01T00:00:00Z";

/// What one example decision came to.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct CaseResult {
    /// The case's name.
    pub name: String,
    /// Whether the decision is the one expected.
    pub passed: bool,
    /// Whether the case expects the request to be allowed.
    pub expected_allowed: bool,
    /// The policies that the case expects to determine the decision, sorted, where it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_determining: Option<Vec<String>>,
    /// The decision made.
    pub decision: Decision,
}

/// Why a file of cases cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum CaseFileError {
    /// The file is too long.
    #[error("the case file has {bytes} bytes; at most {limit} are taken: divide it")]
    TooManyBytes {
        /// Its bytes.
        bytes: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The file is not JSON of the form that `docs/policy.md` describes.
    #[error("the case file is not of the form described in docs/policy.md: {0}")]
    Form(#[source] serde_json::Error),
    /// The file has no cases: an empty test would pass for ever.
    #[error("the case file has no cases")]
    Empty,
    /// A case's time is no time.
    #[error("case `{case}`: `now` is not an RFC 3339 time from 1970 on, such as `{NOW_DEFAULT}`")]
    Time {
        /// The case's name.
        case: String,
    },
    /// Two cases have one name.
    #[error("two cases have the name `{case}`")]
    DuplicateName {
        /// The name.
        case: String,
    },
}

/// The policy files that a file of cases is about: paths as they are written there, relative to its folder.
///
/// # Errors
/// [`CaseFileError`].
pub fn case_policies(json: &str) -> Result<Vec<String>, CaseFileError> {
    Ok(read(json)?.policies)
}

/// Runs each case of a file (the form is in `docs/policy.md`) against `policies`, in the file's order. Loading the files that
/// it names ([`case_policies`]) is the caller's part.
///
/// # Errors
/// [`CaseFileError`]; a case that comes out otherwise than expected is a result, not an error.
pub fn run_cases(policies: &PolicySet, json: &str) -> Result<Vec<CaseResult>, CaseFileError> {
    let file = read(json)?;
    file.cases
        .into_iter()
        .map(|case| case.run(policies))
        .collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    policies: Vec<String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    principal: Principal,
    action: Action,
    resource: Stream,
    #[serde(default)]
    context: CaseContext,
    expect: Expectation,
    #[serde(default)]
    determining: Option<BTreeSet<String>>,
}

/// [`Context`] with its time as text.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseContext {
    #[serde(default)]
    agreement: Option<Agreement>,
    #[serde(default)]
    credential: Option<Credential>,
    #[serde(default)]
    now: Option<String>,
    #[serde(default)]
    plan: Option<String>,
    #[serde(default)]
    purpose: Option<String>,
}

#[derive(Clone, Copy, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Expectation {
    Allow,
    Deny,
    /// Allowed, once a person has said so.
    Hold,
}

fn read(json: &str) -> Result<CaseFile, CaseFileError> {
    if json.len() > CASE_FILE_BYTES_MAX {
        return Err(CaseFileError::TooManyBytes {
            bytes: json.len(),
            limit: CASE_FILE_BYTES_MAX,
        });
    }
    let file: CaseFile = serde_json::from_str(json).map_err(CaseFileError::Form)?;
    if file.cases.is_empty() {
        return Err(CaseFileError::Empty);
    }
    let mut names = BTreeSet::new();
    match file.cases.iter().find(|case| !names.insert(&case.name)) {
        None => Ok(file),
        Some(case) => Err(CaseFileError::DuplicateName {
            case: case.name.clone(),
        }),
    }
}

impl Case {
    fn run(self, policies: &PolicySet) -> Result<CaseResult, CaseFileError> {
        let now = self.context.now.as_deref().unwrap_or(NOW_DEFAULT);
        let now_us = now
            .parse::<jiff::Timestamp>()
            .ok()
            .and_then(|now| u64::try_from(now.as_microsecond()).ok());
        let Some(now_us) = now_us else {
            return Err(CaseFileError::Time { case: self.name });
        };
        let decision = policies.decide(&Request {
            principal: self.principal,
            action: self.action,
            resource: self.resource,
            context: Context {
                agreement: self.context.agreement,
                credential: self.context.credential,
                now_us,
                plan: self.context.plan,
                purpose: self.context.purpose,
            },
        });
        let expected_allowed = self.expect != Expectation::Deny;
        // Only requests wait for people.
        let held = self.action == Action::Request && decision.hold().is_some();
        let held_as_expected = held == (self.expect == Expectation::Hold);
        let determining_as_expected = self.determining.as_ref().is_none_or(|expected| {
            expected
                .iter()
                .eq(decision.determining.iter().map(|id| &id.0))
        });
        Ok(CaseResult {
            name: self.name,
            passed: decision.allowed == expected_allowed
                && held_as_expected
                && determining_as_expected,
            expected_allowed,
            expected_determining: self.determining.map(|ids| ids.into_iter().collect()),
            decision,
        })
    }
}
