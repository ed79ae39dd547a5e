use std::collections::HashMap;
use std::fmt;

use cedar_policy::{
    AuthorizationError, Authorizer, Context as CedarContext, Effect, Entities, EntityId,
    EntityTypeName, EntityUid, Policy, PolicySet as CedarPolicySet, Request as CedarRequestChecked,
    Response, Schema, ValidationMode, Validator,
};
use countersign_crypto::{Hash, Sha256Stream};
use serde_json::Value;

use crate::decision::{Decision, Explanation, PolicyId, PolicyNote, Reason};
use crate::fault::{PolicyFault, PolicyLoadError, Source};
use crate::nesting::{Statement, statements};
use crate::request::{Action, Request, RequestError, Types};
use crate::scope::{Scope, Subject};

/// The schema that every policy is checked against, in Cedar's schema language.
pub const SCHEMA: &str = include_str!("../../../policies/countersign.cedarschema");
/// The most bytes of all policy texts together. Enforced by [`PolicySet::load`] before anything is parsed.
pub const POLICY_BYTES_MAX: usize = 1024 * 1024;
/// The most policies in a set. Enforced by [`PolicySet::load`].
pub const POLICIES_MAX: usize = 1000;
/// The most bytes of one policy. A chain of operators (`a && a && ...`) nests as deep as it is long, so its length bounds
/// the recursion. Enforced by [`PolicySet::load`].
pub const POLICY_TEXT_BYTES_MAX: usize = 16 * 1024;
/// The most brackets open at once in one policy plus the `if`s in it. Enforced by [`PolicySet::load`]: the parser recurses.
pub const NESTING_MAX: usize = 24;

/// The longest `@id`, in characters.
const ID_CHARS_MAX: usize = 64;
/// The longest `@advice`, in bytes: it travels in refusals.
const ADVICE_BYTES_MAX: usize = 512;

/// Domain tag of the digest of a policy set.
const DIGEST_TAG: &[u8; 16] = b"countersign.pol1";

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
    actions: HashMap<Action, EntityUid>,
    authorizer: Authorizer,
}

struct Entry {
    note: PolicyNote,
    effect: Effect,
    scope: Scope,
}

impl PolicySet {
    /// Reads and validates policy texts, given as (file name, text). No files at all are a set that denies everything.
    ///
    /// # Errors
    /// [`PolicyLoadError`]; faults in texts come with file, line and column.
    pub fn load(files: &[(String, String)]) -> Result<Self, PolicyLoadError> {
        let bytes = files.iter().fold(0_usize, |sum, (name, text)| {
            sum.saturating_add(name.len()).saturating_add(text.len())
        });
        if bytes > POLICY_BYTES_MAX {
            return Err(PolicyLoadError::TooManyBytes {
                bytes,
                limit: POLICY_BYTES_MAX,
            });
        }
        let mut texts = files.to_vec();
        texts.sort();
        check_names(&texts)?;

        let schema = built_in_schema();
        let parsed = parse(&texts)?;
        let warnings = validate(&schema, &texts, &parsed)?;

        Ok(Self {
            digest: digest(&texts),
            mentions_time: parsed.iter().any(|one| mentions_time(&one.policy)),
            policies: cedar_set(&parsed),
            catalog: parsed.iter().map(Parsed::entry).collect(),
            texts,
            warnings,
            schema,
            types: entity_types(),
            actions: action_uids(),
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
        match self.evaluate(request) {
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
        let action = self
            .actions
            .get(&request.action)
            .ok_or_else(|| RequestError::schema(&format_args!("no action `{}`", request.action)))?;
        let context = CedarContext::from_pairs(asked.context)
            .map_err(|error| RequestError::schema(&error))?;
        let checked = CedarRequestChecked::new(
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
            Reason::NoPermit => self.catalog.iter().filter(fits).map(Entry::note).collect(),
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
            .map(Entry::note)
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

impl Entry {
    fn note(&self) -> PolicyNote {
        self.note.clone()
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
                    id: id.clone(),
                })
                .collect(),
            errors: errors.clone(),
        },
        determining,
        errors,
    }
}

/// A policy and where it stands.
struct Parsed {
    id: PolicyId,
    policy: Policy,
    /// Its file, as an index of the sorted texts.
    file: usize,
    statement: Statement,
}

impl Parsed {
    fn entry(&self) -> Entry {
        Entry {
            note: PolicyNote {
                advice: self.policy.annotation("advice").map(str::to_owned),
                id: self.id.clone(),
            },
            effect: self.policy.effect(),
            scope: Scope::of(&self.policy),
        }
    }
}

fn check_names(texts: &[(String, String)]) -> Result<(), PolicyLoadError> {
    for (name, _) in texts {
        if !name.strip_suffix(".cedar").is_some_and(is_id) {
            return Err(PolicyLoadError::FileName { file: name.clone() });
        }
    }
    match texts.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        None => Ok(()),
        Some(pair) => Err(PolicyLoadError::DuplicateFile {
            file: pair[0].0.clone(),
        }),
    }
}

/// Ids go into refusals, ledger entries and command lines: plain characters only.
fn is_id(text: &str) -> bool {
    (1..=ID_CHARS_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn parse(texts: &[(String, String)]) -> Result<Vec<Parsed>, PolicyLoadError> {
    let mut parsed: Vec<Parsed> = Vec::new();
    let mut faults = Vec::new();
    for (file, (name, text)) in texts.iter().enumerate() {
        let found = statements(text);
        if parsed.len().saturating_add(found.len()) > POLICIES_MAX {
            return Err(PolicyLoadError::TooManyPolicies {
                limit: POLICIES_MAX,
            });
        }
        let source = Source::new(name, text);
        let mut first_uses: HashMap<PolicyId, Statement> = HashMap::new();
        for (number, statement) in (1_usize..).zip(found) {
            match parse_one(source, number, statement) {
                Ok((id, policy)) => {
                    if first_uses.insert(id.clone(), statement).is_some() {
                        let message = format!("a policy before this one is already named `{id}`");
                        let hint = Some("give each policy of a file another `@id`".to_owned());
                        faults.push(source.fault(statement.start, Some(id), message, hint));
                        continue;
                    }
                    parsed.push(Parsed {
                        id,
                        policy,
                        file,
                        statement,
                    });
                }
                Err(found) => faults.extend(found),
            }
        }
    }
    if faults.is_empty() {
        Ok(parsed)
    } else {
        Err(PolicyLoadError::from_faults(faults))
    }
}

fn parse_one(
    source: Source<'_>,
    number: usize,
    statement: Statement,
) -> Result<(PolicyId, Policy), Vec<PolicyFault>> {
    let fault = |message: String, hint: &str| {
        vec![source.fault(statement.start, None, message, Some(hint.to_owned()))]
    };
    let bytes = statement.end - statement.start;
    if bytes > POLICY_TEXT_BYTES_MAX {
        let message =
            format!("the policy has {bytes} bytes; at most {POLICY_TEXT_BYTES_MAX} are taken");
        return Err(fault(
            message,
            "divide it, or check that each policy ends with `;`",
        ));
    }
    if statement.depth > NESTING_MAX {
        let message = format!(
            "brackets and `if`s nest {} deep; at most {NESTING_MAX} are taken",
            statement.depth
        );
        return Err(fault(message, "divide the policy, or check its brackets"));
    }
    let text = &source.text[statement.start..statement.end];
    let policy =
        Policy::parse(None, text).map_err(|errors| source.within(statement).faults_of(&errors))?;
    let name = match policy.annotation("id") {
        None => number.to_string(),
        Some(id) if is_id(id) => id.to_owned(),
        Some(_) => {
            let message = "the `@id` is not 1 to 64 of `A-Z a-z 0-9 . _ -`".to_owned();
            return Err(fault(
                message,
                "choose a short name such as `@id(\"read\")`",
            ));
        }
    };
    let advice = policy.annotation("advice").unwrap_or_default();
    if advice.len() > ADVICE_BYTES_MAX || advice.chars().any(char::is_control) {
        let message = format!("the `@advice` is not one line of at most {ADVICE_BYTES_MAX} bytes");
        return Err(fault(message, "say in one sentence what would help"));
    }
    let stem = source.file.strip_suffix(".cedar").unwrap_or(source.file);
    let id = PolicyId(format!("{stem}/{name}"));
    let policy = policy.new_id(cedar_policy::PolicyId::new(id.as_str()));
    Ok((id, policy))
}

/// Strict validation; gives the warnings.
fn validate(
    schema: &Schema,
    texts: &[(String, String)],
    parsed: &[Parsed],
) -> Result<Vec<PolicyFault>, PolicyLoadError> {
    let by_id: HashMap<&str, &Parsed> = parsed.iter().map(|one| (one.id.as_str(), one)).collect();
    let place = |id: &cedar_policy::PolicyId| {
        let one = by_id.get(AsRef::<str>::as_ref(id))?;
        let (file, text) = texts.get(one.file)?;
        Some((
            Source::new(file, text).within(one.statement),
            one.id.clone(),
        ))
    };
    let unplaced = Source::new("", "");
    let result =
        Validator::new(schema.clone()).validate(&cedar_set(parsed), ValidationMode::Strict);
    let faults: Vec<PolicyFault> = result
        .validation_errors()
        .map(|error| match place(error.policy_id()) {
            Some((source, id)) => source.fault_of(error, Some(id)),
            None => unplaced.fault_of(error, None),
        })
        .collect();
    if !faults.is_empty() || !result.validation_passed() {
        return Err(PolicyLoadError::from_faults(faults));
    }
    Ok(result
        .validation_warnings()
        .map(|warning| match place(warning.policy_id()) {
            Some((source, id)) => source.fault_of(warning, Some(id)),
            None => unplaced.fault_of(warning, None),
        })
        .collect())
}

#[expect(
    clippy::expect_used,
    reason = "`parse` gives each policy a name of its own, and no policy is a template"
)]
fn cedar_set(parsed: &[Parsed]) -> CedarPolicySet {
    CedarPolicySet::from_policies(parsed.iter().map(|one| one.policy.clone()))
        .expect("policies have distinct names")
}

#[expect(
    clippy::expect_used,
    reason = "the schema is part of this program, and every test reads it"
)]
fn built_in_schema() -> Schema {
    let (schema, _) = Schema::from_cedarschema_str(SCHEMA).expect("the built-in schema parses");
    schema
}

#[expect(clippy::expect_used, reason = "the names are plain identifiers")]
fn entity_type(name: &str) -> EntityTypeName {
    name.parse().expect("an identifier is an entity type")
}

fn entity_types() -> Types {
    Types {
        application: entity_type("Application"),
        node: entity_type("Node"),
        organization: entity_type("Organization"),
        stream: entity_type("Stream"),
    }
}

fn action_uids() -> HashMap<Action, EntityUid> {
    let action_type = entity_type("Action");
    let uid = |action: Action| {
        EntityUid::from_type_name_and_id(action_type.clone(), EntityId::new(action.name()))
    };
    Action::ALL
        .into_iter()
        .map(|action| (action, uid(action)))
        .collect()
}

fn digest(texts: &[(String, String)]) -> Hash {
    let mut hasher = Sha256Stream::new();
    hasher.update(DIGEST_TAG);
    for part in texts.iter().flat_map(|(name, text)| [name, text]) {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finish()
}

/// Whether a policy reads `context.now`, or uses the context in a way (as a whole) that might.
fn mentions_time(policy: &Policy) -> bool {
    // A policy without a JSON form does not exist; if one did, deciding again too often is the safe answer.
    policy.to_json().map_or(true, |json| reads_now(&json))
}

/// Searches Cedar's JSON form: `context.x` is `{".": {"left": {"Var": "context"}, "attr": "x"}}`, and `has` likewise.
fn reads_now(json: &Value) -> bool {
    match json {
        Value::Object(members) => {
            if members.get("Var").and_then(Value::as_str) == Some("context") {
                return true;
            }
            members.iter().any(|(operator, operand)| {
                let is_context =
                    operand.pointer("/left/Var").and_then(Value::as_str) == Some("context");
                if is_context && (operator == "." || operator == "has") {
                    let attribute = operand.pointer("/attr/0").or_else(|| operand.get("attr"));
                    return attribute
                        .and_then(Value::as_str)
                        .is_none_or(|name| name == "now");
                }
                reads_now(operand)
            })
        }
        Value::Array(items) => items.iter().any(reads_now),
        Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_) => false,
    }
}
