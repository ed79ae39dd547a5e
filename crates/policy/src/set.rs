use std::fmt;

use cedar_policy::{
    AuthorizationError, Authorizer, Context, Effect, Entities, PolicySet as CedarPolicySet,
    Request as CheckedRequest, Response, Schema,
};
use countersign_crypto::Hash;

use crate::decision::{Decision, Explanation, PolicyId, PolicyNote, Reason};
use crate::deep;
use crate::fault::{PolicyFault, PolicyLoadError};
use crate::load::{self, Entry, Loaded};
use crate::request::{Request, RequestError, Types};
use crate::scope::Subject;

/// Policies that have been read and validated, ready to decide.
pub struct PolicySet {
    /// Sorted by name.
    texts: Vec<(String, String)>,
    digest: Hash,
    policies: CedarPolicySet,
    /// What is said of each policy, by file name and place in the file: the author's order is the order of importance.
    catalog: Vec<Entry>,
    warnings: Vec<PolicyFault>,
    mentions_time: bool,
    schema: Schema,
    types: Types,
    authorizer: Authorizer,
}

impl PolicySet {
    /// Reads and validates policy texts, given as (file name, text). No files at all are a set that denies everything.
    ///
    /// # Errors
    /// [`PolicyLoadError`]; faults in texts come with file, line and column.
    pub fn load(files: &[(String, String)]) -> Result<Self, PolicyLoadError> {
        let Loaded {
            texts,
            digest,
            policies,
            catalog,
            warnings,
            schema,
        } = deep::load(|| load::load(files))?;
        let mentions_time = catalog.iter().any(|entry| entry.reads.mentions_time());
        Ok(Self {
            texts,
            digest,
            policies,
            catalog,
            warnings,
            mentions_time,
            schema,
            types: Types::of_schema(),
            authorizer: Authorizer::new(),
        })
    }

    /// SHA-256 over the tag `countersign.pol1` and, sorted by name, each file's name and text, each preceded by its length
    /// in bytes as u64, big-endian. It is logged with each decision.
    #[must_use]
    pub fn digest(&self) -> Hash {
        self.digest
    }

    /// The (file name, text) pairs as they were loaded, sorted by name, so that evidence can carry them.
    #[must_use]
    pub fn texts(&self) -> &[(String, String)] {
        &self.texts
    }

    /// The names of all policies, by file name and place in the file.
    pub fn ids(&self) -> impl Iterator<Item = &PolicyId> {
        self.catalog.iter().map(|entry| &entry.note.id)
    }

    pub(crate) fn catalog(&self) -> &[Entry] {
        &self.catalog
    }

    /// What validation finds odd but not wrong, such as a policy that can never apply.
    #[must_use]
    pub fn warnings(&self) -> &[PolicyFault] {
        &self.warnings
    }

    /// Whether any policy looks at `context.now`. Where it is false, a decision changes only when its other facts do (an
    /// agreement's period is among them: the caller knows its end); where it is true, decide again at intervals.
    #[must_use]
    pub fn mentions_time(&self) -> bool {
        self.mentions_time
    }

    /// Decides. Denies by default, and wherever anything fails: a request that does not fit the schema, or any policy that
    /// cannot be evaluated.
    pub fn decide(&self, request: &Request) -> Decision {
        match deep::decide(|| self.evaluate(request)) {
            Ok(decision) => decision,
            Err(error) => failed(Vec::new(), vec![error.to_string()]),
        }
    }

    /// Why [`PolicySet::decide`] answers as it does.
    #[must_use]
    pub fn explain(&self, request: &Request) -> Explanation {
        self.decide(request).explanation
    }

    fn evaluate(&self, request: &Request) -> Result<Decision, RequestError> {
        let asked = request.to_cedar(&self.types)?;
        let action = self.types.action(request.action);
        let context =
            Context::from_pairs(asked.context).map_err(|error| RequestError::schema(&error))?;
        let checked = CheckedRequest::new(
            asked.principal.clone(),
            action.clone(),
            asked.resource.clone(),
            context,
            Some(&self.schema),
        )
        .map_err(|error| RequestError::schema(&error))?;
        let entities = Entities::from_entities(asked.entities, Some(&self.schema))
            .map_err(|error| RequestError::schema(&error))?;

        let response = self
            .authorizer
            .is_authorized(&checked, &self.policies, &entities);
        let fits = |entry: &&Entry| {
            let principal = Subject {
                uid: &asked.principal,
                organization: &asked.principal_organization,
            };
            let resource = Subject {
                uid: &asked.resource,
                organization: &asked.resource_organization,
            };
            entry.effect == Effect::Permit && entry.scope.fits(principal, action, resource)
        };
        Ok(self.conclude(&response, fits))
    }

    /// Turns Cedar's response into ours; `fits` says which permits are candidates where none holds.
    fn conclude(&self, response: &Response, fits: impl Fn(&&Entry) -> bool) -> Decision {
        let errors: Vec<&AuthorizationError> = response.diagnostics().errors().collect();
        if !errors.is_empty() {
            let ids = errors
                .iter()
                .map(|AuthorizationError::PolicyEvaluationError(error)| {
                    PolicyId(error.policy_id().to_string())
                });
            let texts = errors.iter().map(ToString::to_string);
            return failed(ids.collect(), texts.collect());
        }
        let mut determining: Vec<PolicyId> = response
            .diagnostics()
            .reason()
            .map(|id| PolicyId(id.to_string()))
            .collect();
        determining.sort();
        let allowed = response.decision() == cedar_policy::Decision::Allow;
        let reason = match (allowed, determining.is_empty()) {
            (true, _) => Reason::Permitted,
            (false, false) => Reason::Forbidden,
            (false, true) => Reason::NoPermit,
        };
        let policies = match reason {
            Reason::NoPermit => self
                .catalog
                .iter()
                .filter(fits)
                .map(|entry| entry.note.clone())
                .collect(),
            Reason::Failed | Reason::Forbidden | Reason::Permitted => self.notes(&determining),
        };
        Decision {
            allowed,
            determining,
            errors: Vec::new(),
            explanation: Explanation {
                reason,
                policies,
                errors: Vec::new(),
            },
        }
    }

    /// The notes of the policies named; `ids` are sorted.
    fn notes(&self, ids: &[PolicyId]) -> Vec<PolicyNote> {
        self.catalog
            .iter()
            .filter(|entry| ids.binary_search(&entry.note.id).is_ok())
            .map(|entry| entry.note.clone())
            .collect()
    }
}

impl fmt::Debug for PolicySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicySet")
            .field("policies", &self.ids().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// A denial because of errors, whatever the policies that could be evaluated say.
fn failed(mut determining: Vec<PolicyId>, mut errors: Vec<String>) -> Decision {
    determining.sort();
    errors.sort();
    Decision {
        allowed: false,
        explanation: Explanation {
            reason: Reason::Failed,
            policies: determining
                .iter()
                .map(|id| PolicyNote {
                    advice: None,
                    hold: None,
                    id: id.clone(),
                })
                .collect(),
            errors: errors.clone(),
        },
        determining,
        errors,
    }
}
