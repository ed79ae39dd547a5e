use cedar_policy::Policy;
use serde_json::Value;

/// Whether a policy reads `context.now`, or uses the context in a way (as a whole) that might.
pub(crate) fn mentions_time(policy: &Policy) -> bool {
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
