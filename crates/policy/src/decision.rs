use std::fmt;

use serde::Serialize;

/// The name of a policy: `<file stem>/<@id, or its place in the file counted from 1>`, for example `starter/read`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct PolicyId(pub(crate) String);

impl PolicyId {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The answer to one request.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[must_use]
pub struct Decision {
    /// Whether the action may go ahead. False wherever anything at all went wrong.
    pub allowed: bool,
    /// The policies that made the answer, sorted: the permits of a permission, the forbids of a prohibition, the policies
    /// that failed where an error denies. Empty where no policy permits.
    pub determining: Vec<PolicyId>,
    /// What went wrong in the request or in a policy, one text each, sorted.
    pub errors: Vec<String>,
    /// The reason, for people.
    pub explanation: Explanation,
}

impl Decision {
    /// Why a request that is allowed waits for a person all the same: each policy that permits it says `@hold`. Of several, the first one's words.
    #[must_use]
    pub fn hold(&self) -> Option<&str> {
        let notes = &self.explanation.policies;
        if !self.allowed || !notes.iter().all(|note| note.hold.is_some()) {
            return None;
        }
        notes.first().and_then(|note| note.hold.as_deref())
    }
}

/// Which kind of reason an [`Explanation`] gives.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Something failed, and an error is a denial.
    Failed,
    /// A `forbid` holds.
    Forbidden,
    /// No `permit` holds.
    NoPermit,
    /// A `permit` holds, no `forbid` does, and nothing failed.
    Permitted,
}

/// A policy and what it advises.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct PolicyNote {
    /// Its `@advice` annotation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// Its `@hold` annotation: what it permits to be requested waits for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
    /// Its name.
    pub id: PolicyId,
}

/// Why a decision came out as it did.
///
/// With [`Reason::NoPermit`] the notes are the permits whose scope (principal, action and resource) fits the request and
/// whose conditions do not hold; satisfying one of them is what would help. No attempt is made to say *which* condition
/// failed, nor whether a `forbid` would then stand in the way.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Explanation {
    /// The kind of reason.
    pub reason: Reason,
    /// The policies concerned, by file name and place in the file.
    pub policies: Vec<PolicyNote>,
    /// What failed, with [`Reason::Failed`]; one text each, sorted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Reason::Failed => write!(
                f,
                "denied because the decision failed: {}",
                self.errors.join("; ")
            ),
            Reason::Forbidden => {
                write!(f, "forbidden by {}", self.names())?;
                self.write_advice(f)
            }
            Reason::NoPermit if self.policies.is_empty() => {
                f.write_str("no policy permits it, and none would for this principal and action")
            }
            Reason::NoPermit => {
                f.write_str("no policy permits it")?;
                self.write_advice(f)
            }
            Reason::Permitted => write!(f, "permitted by {}", self.names()),
        }
    }
}

impl Explanation {
    fn names(&self) -> String {
        let names: Vec<&str> = self.policies.iter().map(|note| note.id.as_str()).collect();
        names.join(", ")
    }

    fn write_advice(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "; what would help: ";
        for note in &self.policies {
            match &note.advice {
                Some(advice) => write!(f, "{separator}{advice} ({})", note.id)?,
                // A permit without advice is still a candidate; a forbid was already named.
                None if self.reason == Reason::NoPermit => {
                    write!(f, "{separator}the conditions of {}", note.id)?;
                }
                None => continue,
            }
            separator = "; ";
        }
        Ok(())
    }
}
