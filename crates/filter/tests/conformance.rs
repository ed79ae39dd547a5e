//! The conformance cases of the CESQL specification, all of them.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test may panic"
)]

mod tck;

use countersign_event::attributes::{AttributesBuilder, Value};
use countersign_filter::{ErrorKind, Expression, Output};
use tck::{Case, Scalar};

/// Cases of each file: none may get lost in the reading.
const FILES: [(&str, usize); 18] = [
    ("binary_comparison_operators", 32),
    ("binary_logical_operators", 16),
    ("binary_math_operators", 18),
    ("case_sensitivity", 7),
    ("casting_functions", 21),
    ("context_attributes_access", 8),
    ("exists_expression", 7),
    ("in_expression", 16),
    ("integer_builtin_functions", 4),
    ("like_expression", 37),
    ("literals", 10),
    ("negate_operator", 6),
    ("not_operator", 6),
    ("parse_errors", 1),
    ("spec_examples", 13),
    ("string_builtin_functions", 42),
    ("sub_expression", 3),
    ("subscriptions_api_recreations", 28),
];

#[test]
fn every_case_of_the_specification_holds() {
    let mut wrong = Vec::new();
    let mut counts = Vec::new();
    for (file, _) in FILES {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/cesql/v1");
        let text = std::fs::read_to_string(format!("{folder}/{file}.yaml")).unwrap();
        let cases = tck::read(&text);
        counts.push((file, cases.len()));
        for case in cases {
            if let Err(what) = check(&case) {
                wrong.push(format!(
                    "{file}, {}: `{}`: {what}",
                    case.name, case.expression
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(counts, FILES);
}

fn check(case: &Case) -> Result<(), String> {
    let expression = match (Expression::parse(&case.expression), case.error.as_deref()) {
        (Err(_), Some("parse")) => return Ok(()),
        (Err(error), _) => return Err(error.to_string()),
        (Ok(_), Some("parse")) => return Err("was read".to_owned()),
        (Ok(expression), _) => expression,
    };
    let evaluation = expression.evaluate(&attributes(case));
    let error = evaluation.failure.map(|failure| match failure.kind {
        ErrorKind::Cast => "cast",
        ErrorKind::FunctionEvaluation => "functionEvaluation",
        ErrorKind::Generic => "generic",
        ErrorKind::Math => "math",
        ErrorKind::MissingAttribute => "missingAttribute",
        ErrorKind::MissingFunction => "missingFunction",
    });
    if error != case.error.as_deref() {
        return Err(format!("gave the error {error:?}"));
    }
    let expected = case.result.as_ref().map(|result| match result {
        Scalar::Boolean(value) => Output::Boolean(*value),
        Scalar::Integer(value) => Output::Integer(*value),
        Scalar::Text(value) => Output::String(value.clone()),
    });
    if expected.is_some_and(|expected| expected != evaluation.value) {
        return Err(format!("gave {:?}", evaluation.value));
    }
    Ok(())
}

fn attributes(case: &Case) -> Vec<u8> {
    let mut event = vec![
        ("id", Scalar::Text("id-1".to_owned())),
        ("source", Scalar::Text("urn:event:source".to_owned())),
        ("type", Scalar::Text("org.example.test".to_owned())),
    ];
    for (name, value) in &case.event {
        event.retain(|(known, _)| known != name);
        event.push((name, value.clone()));
    }
    event.retain(|(name, _)| *name != "specversion");
    let mut builder = AttributesBuilder::empty().with("specversion", Value::String("1.0"));
    for (name, value) in &event {
        match value {
            Scalar::Boolean(value) => builder.push(*name, Value::Boolean(*value)),
            Scalar::Integer(value) => builder.push(*name, Value::Integer(*value)),
            Scalar::Text(value) => builder.push_text(*name, value),
        }
    }
    builder.build().unwrap()
}
