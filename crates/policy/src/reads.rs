use std::collections::BTreeSet;

use cedar_policy::{ActionConstraint, Policy, PrincipalConstraint, ResourceConstraint};
use serde_json::Value;

/// The fact that changes by itself.
const NOW: &str = "context.now";

/// Which facts a policy looks at, each named as it stands there: `principal`, `context.agreement.active`. A policy that uses the context as a whole
/// reads `context`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Reads(BTreeSet<String>);

impl Reads {
    pub(crate) fn of(policy: &Policy) -> Self {
        let mut reads = Self::default();
        let scope = [
            (
                "principal",
                policy.principal_constraint() != PrincipalConstraint::Any,
            ),
            (
                "action",
                policy.action_constraint() != ActionConstraint::Any,
            ),
            (
                "resource",
                policy.resource_constraint() != ResourceConstraint::Any,
            ),
        ];
        for (name, _) in scope.into_iter().filter(|(_, named)| *named) {
            reads.0.insert(name.to_owned());
        }
        match policy.to_json() {
            Ok(json) => reads.walk(&json),
            // A policy without a JSON form does not exist; if one did, taking it for one that reads everything is the safe answer.
            Err(_) => {
                reads.0.insert("context".to_owned());
            }
        }
        reads
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether it reads `context.now`, or uses the context in a way (as a whole) that might.
    pub(crate) fn mentions_time(&self) -> bool {
        self.0.contains(NOW) || self.0.contains("context")
    }

    /// Searches Cedar's JSON form, where `context.x` is `{".": {"left": {"Var": "context"}, "attr": "x"}}`, and `has` likewise.
    fn walk(&mut self, json: &Value) {
        if let Some(path) = path(json) {
            self.0.insert(path);
            return;
        }
        match json {
            Value::Object(members) => {
                for (operator, operand) in members {
                    // `x has y.z` asks for one fact.
                    let asked = (operator == "has").then(|| asked(operand)).flatten();
                    match asked {
                        Some(path) => {
                            self.0.insert(path);
                        }
                        None => self.walk(operand),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.walk(item)),
            Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_) => {}
        }
    }
}

/// The name of what a chain of `.` reads from a variable, where `json` is one.
fn path(json: &Value) -> Option<String> {
    let members = json.as_object()?;
    if let Some(variable) = members.get("Var") {
        return variable.as_str().map(str::to_owned);
    }
    asked(members.get(".")?)
}

/// The same of the operand of `.` and `has`; several names where `has` asks for a path.
fn asked(operand: &Value) -> Option<String> {
    let left = path(operand.get("left")?)?;
    match operand.get("attr")? {
        Value::String(name) => Some(format!("{left}.{name}")),
        Value::Array(names) => {
            let names: Option<Vec<&str>> = names.iter().map(Value::as_str).collect();
            Some(format!("{left}.{}", names?.join(".")))
        }
        _ => None,
    }
}
