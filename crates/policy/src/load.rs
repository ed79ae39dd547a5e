use std::collections::HashMap;

use cedar_policy::{
    Effect, Policy, PolicySet as CedarPolicySet, Schema, ValidationMode, Validator,
};
use countersign_crypto::{Hash, Sha256Stream};

use crate::decision::{PolicyId, PolicyNote};
use crate::fault::{PolicyFault, PolicyLoadError, Source};
use crate::nesting::{Statement, statements};
use crate::reads::Reads;
use crate::scope::Scope;

/// The schema that every policy is checked against, in Cedar's schema language.
pub const SCHEMA: &str = include_str!("../../../policies/countersign.cedarschema");
/// The most bytes of all policy texts together. Enforced by [`PolicySet::load`](crate::PolicySet::load) before anything is parsed.
pub const POLICY_BYTES_MAX: usize = 1024 * 1024;
/// The most policies in a set. Enforced by [`PolicySet::load`](crate::PolicySet::load).
pub const POLICIES_MAX: usize = 1000;
/// The most bytes of one policy. Enforced by [`PolicySet::load`](crate::PolicySet::load).
pub const POLICY_TEXT_BYTES_MAX: usize = 64 * 1024;
/// The most brackets open at once in one policy. Enforced by [`PolicySet::load`](crate::PolicySet::load), since the parser recurses.
pub const NESTING_MAX: usize = 24;
/// The most of `&& || + - * . [ if` in one policy: a chain of them nests as deep as it is long. Enforced by
/// [`PolicySet::load`](crate::PolicySet::load).
pub const OPERATORS_MAX: usize = 128;

/// The longest `@id`, in characters.
const ID_CHARS_MAX: usize = 64;
/// The longest `@advice` or `@hold`, in bytes: they travel in answers.
const ADVICE_BYTES_MAX: usize = 512;

/// Domain tag of the digest of a policy set.
const DIGEST_TAG: &[u8; 16] = b"countersign.pol1";

/// What loading gives.
pub(crate) struct Loaded {
    pub(crate) texts: Vec<(String, String)>,
    pub(crate) digest: Hash,
    pub(crate) policies: CedarPolicySet,
    pub(crate) catalog: Vec<Entry>,
    pub(crate) warnings: Vec<PolicyFault>,
    pub(crate) schema: Schema,
}

/// What is said of one policy.
pub(crate) struct Entry {
    pub(crate) note: PolicyNote,
    pub(crate) effect: Effect,
    pub(crate) scope: Scope,
    pub(crate) reads: Reads,
}

/// Reads and validates policy texts.
pub(crate) fn load(files: &[(String, String)]) -> Result<Loaded, PolicyLoadError> {
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

    let parsed = parse(&texts)?;
    let schema = built_in_schema();
    let warnings = validate(&schema, &texts, &parsed)?;
    Ok(Loaded {
        digest: digest(&texts),
        policies: cedar_set(&parsed),
        catalog: parsed.iter().map(Parsed::entry).collect(),
        warnings,
        schema,
        texts,
    })
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
                hold: self.policy.annotation("hold").map(str::to_owned),
                id: self.id.clone(),
            },
            effect: self.policy.effect(),
            scope: Scope::of(&self.policy),
            reads: Reads::of(&self.policy),
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
    let mut count = 0_usize;
    for (file, (name, text)) in texts.iter().enumerate() {
        let found = statements(text);
        count = count.saturating_add(found.len());
        if count > POLICIES_MAX {
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
    if statement.nesting > NESTING_MAX {
        let deep = statement.nesting;
        let message = format!("brackets nest {deep} deep; at most {NESTING_MAX} are taken");
        return Err(fault(message, "divide the policy, or check its brackets"));
    }
    if statement.operators > OPERATORS_MAX {
        let count = statement.operators;
        let message =
            format!("the policy has {count} operators; at most {OPERATORS_MAX} are taken");
        return Err(fault(
            message,
            "divide the policy, or use a set and `contains`",
        ));
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
    for (name, help) in [
        ("advice", "say in one sentence what would help"),
        ("hold", "say in one sentence who decides"),
    ] {
        let text = policy.annotation(name).unwrap_or_default();
        if text.len() > ADVICE_BYTES_MAX || text.chars().any(char::is_control) {
            let message =
                format!("the `@{name}` is not one line of at most {ADVICE_BYTES_MAX} bytes");
            return Err(fault(message, help));
        }
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

fn digest(texts: &[(String, String)]) -> Hash {
    let mut hasher = Sha256Stream::new();
    hasher.update(DIGEST_TAG);
    for part in texts.iter().flat_map(|(name, text)| [name, text]) {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finish()
}
