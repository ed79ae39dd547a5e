use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Value, json};

use crate::decision::Decision;
use crate::request::{Member, Principal, Request};
use crate::set::PolicySet;

/// One fact of a request that a decision turned on, named as policies name it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Fact {
    /// For example `context.agreement.active`; `principal` and `resource` by themselves are who and what was asked for.
    pub name: String,
    /// Its value; none where the request has no such fact.
    pub value: Option<Value>,
}

impl PolicySet {
    /// The facts that the policies of the decision's explanation look at, sorted by name: what decided, or, where nothing permits, what the permits that
    /// might have looked for. `decision` is this set's answer to `request`.
    #[must_use]
    pub fn facts_used(&self, request: &Request, decision: &Decision) -> Vec<Fact> {
        let concerned = &decision.explanation.policies;
        let names: BTreeSet<&str> = self
            .catalog()
            .iter()
            .filter(|entry| concerned.iter().any(|note| note.id == entry.note.id))
            .flat_map(|entry| entry.reads.iter())
            .collect();
        if names.is_empty() {
            return Vec::new();
        }
        let known = request.vocabulary();
        let facts = names.into_iter().map(|name| {
            let whole = match name {
                "principal" => Some(json!(request.principal.written())),
                "resource" => Some(json!(format!("Stream::{:?}", request.resource.origin))),
                _ => None,
            };
            let value = whole.or_else(|| {
                let pointer = format!("/{}", name.replace('.', "/"));
                known.pointer(&pointer).cloned()
            });
            Fact {
                name: name.to_owned(),
                value,
            }
        });
        facts.collect()
    }
}

impl Request {
    /// The facts in the words of `policies/countersign.cedarschema`; what is missing is left out.
    fn vocabulary(&self) -> Value {
        let organization = self.principal.organization();
        let (name, fingerprint) = match &self.principal {
            Principal::Application(member) | Principal::Node(member) => {
                (&member.name, &member.fingerprint)
            }
            Principal::Organization(organization) => {
                (&organization.name, &organization.fingerprint)
            }
        };
        let mut known = json!({
            "principal": {
                "name": name,
                "authority": organization.authority,
                "fingerprint": fingerprint,
                "own": organization.own,
                "partner": organization.partner,
                "region": organization.region,
            },
            "action": self.action,
            "resource": self.resource,
            "context": self.context,
        });
        if let Some(context) = known["context"].as_object_mut() {
            context.remove("now_us");
            context.insert("now".to_owned(), json!(self.context.now_text()));
        }
        without_nulls(&mut known);
        known
    }
}

impl Principal {
    /// As policies write it.
    fn written(&self) -> String {
        let of = |kind: &str, member: &Member| {
            let organization = &member.organization.authority;
            let fingerprint = &member.fingerprint;
            format!("{kind}::{fingerprint:?} in Organization::{organization:?}")
        };
        match self {
            Self::Application(member) => of("Application", member),
            Self::Node(member) => of("Node", member),
            Self::Organization(organization) => {
                format!("Organization::{:?}", organization.authority)
            }
        }
    }
}

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_) => {}
    }
}
