//! Expressions of every form, held against a plain evaluator.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test may panic"
)]

mod plain;

use countersign_filter::{Evaluation, Expression, Filter, Output};
use plain::{Event, Outcome};
use proptest::prelude::*;

fn evaluate(text: &str, event: &Event) -> Evaluation {
    Expression::parse(text)
        .unwrap_or_else(|error| panic!("`{text}`: {error}"))
        .evaluate(&event.attributes())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn expressions_are_evaluated_as_a_plain_evaluator_does(expr in plain::expr(), event in plain::event()) {
        let text = expr.to_string();
        let Outcome { value, error } = expr.evaluate(&event);
        let found = evaluate(&text, &event);
        prop_assert_eq!(&found.value, &value, "`{}`", text);
        prop_assert_eq!(found.failure.map(|failure| failure.kind), error, "`{}`", text);
        let passes = error.is_none() && value == Output::Boolean(true);
        // Some are no filters: they never give true or false, or call what is not there.
        if let Ok(filter) = Filter::from_expression(&text) {
            prop_assert_eq!(filter.matches(&event.attributes()), passes, "`{}`", text);
        } else {
            let may_be = Expression::parse(&text).unwrap().result_type();
            prop_assert!(may_be.is_some_and(|of| of != countersign_filter::Type::Boolean) || expr.calls_unknown());
        }
    }

    #[test]
    fn any_text_is_read_or_refused_in_bounds(text in ".{0,300}") {
        let _ = Expression::parse(&text);
        let _ = Filter::from_json(&text);
    }

    #[test]
    fn texts_of_the_language_are_read_or_refused_in_bounds(words in prop::collection::vec(prop::sample::select(plain::WORDS), 0..200)) {
        let text = words.join(" ");
        if let Ok(expression) = Expression::parse(&text) {
            let _ = expression.evaluate(&Event::default().attributes());
        } else {
            let error = Expression::parse(&text).unwrap_err();
            prop_assert!(error.at <= text.len());
            let _ = error.pointer(&text);
        }
    }
}

#[test]
fn operators_bind_as_the_specification_orders_them() {
    let event = Event::default();
    for (text, expected) in [
        // One precedence, from left to right: SQL has `TRUE OR (FALSE AND FALSE)`.
        ("TRUE OR FALSE AND FALSE", "false"),
        ("FALSE AND TRUE OR TRUE", "true"),
        ("TRUE XOR TRUE OR TRUE", "true"),
        ("1 + 2 * 3", "7"),
        ("10 - 4 - 3", "3"),
        ("2 + 3 = 5 AND 1 < 2", "true"),
        ("NOT FALSE = TRUE", "true"),
        ("-2 * -3", "6"),
        ("4 -1", "3"),
        ("4-1", "3"),
        ("1 + 1 IN (1)", "2"),
        ("TRUE LIKE 'tr%' AND TRUE", "true"),
        ("1 = 1 = TRUE", "true"),
        ("-7 / 2", "-3"),
        ("-7 % 2", "-1"),
        ("7 % -2", "1"),
    ] {
        let found = evaluate(text, &event);
        assert_eq!(
            (found.value.to_string(), found.failure),
            (expected.to_owned(), None),
            "`{text}`"
        );
    }
}

#[test]
fn what_is_beyond_32_bits_is_an_error_beside_the_nearest_number() {
    let event = Event::default();
    for (text, expected) in [
        ("2147483647 + 1", i32::MAX),
        ("-2147483648 - 1", i32::MIN),
        ("65536 * 65536", i32::MAX),
        ("65536 * -65536", i32::MIN),
        ("-2147483648 / -1", i32::MAX),
        ("--2147483648", i32::MAX),
    ] {
        let found = evaluate(text, &event);
        assert_eq!(found.value, Output::Integer(expected), "`{text}`");
        assert_eq!(
            found.failure.unwrap().kind,
            countersign_filter::ErrorKind::Math
        );
    }
    assert_eq!(evaluate("-2147483648 % -1", &event).failure, None);
}

#[test]
fn one_event_causes_bounded_work() {
    let long = "a".repeat(60_000);
    let event = Event::default().with("subject", &long);
    // Each `a` of the value begins the piece, and the piece never ends: the worst that a pattern can do.
    let pattern = format!("%{}b%", "a".repeat(2000));
    let found = evaluate(&format!("subject LIKE '{pattern}'"), &event);
    assert_eq!(
        found.failure.unwrap().kind,
        countersign_filter::ErrorKind::Generic
    );
    let doubled = format!(
        "LENGTH({}) > 0",
        "CONCAT(subject,".repeat(40) + "subject" + &")".repeat(40)
    );
    let found = evaluate(&doubled, &event);
    assert_eq!(
        found.failure.unwrap().kind,
        countersign_filter::ErrorKind::Generic
    );
    // An honest one is far from that.
    assert_eq!(evaluate("subject LIKE '%a'", &event).failure, None);
}

#[test]
fn what_is_too_long_deep_or_wide_is_refused() {
    for (text, code) in [
        (
            format!("{}TRUE{}", "(".repeat(60), ")".repeat(60)),
            "filter-limit",
        ),
        (format!("{}TRUE", "NOT ".repeat(100)), "filter-limit"),
        (vec!["1"; 200].join("+"), "filter-limit"),
        (
            format!("1 IN ({})", vec!["1"; 1100].join(",")),
            "filter-limit",
        ),
        (format!("id = '{}'", "x".repeat(5000)), "filter-limit"),
        (
            (0..40)
                .map(|n| format!("EXISTS a{n}"))
                .collect::<Vec<_>>()
                .join(" OR "),
            "filter-limit",
        ),
        ("id = 'x".to_owned(), "filter-syntax"),
        ("9999999999 = 1".to_owned(), "filter-syntax"),
        ("id = = 'x'".to_owned(), "filter-syntax"),
        ("id LIKE subject".to_owned(), "filter-syntax"),
        ("id IN ()".to_owned(), "filter-syntax"),
        (String::new(), "filter-syntax"),
        ("FOO(id)".to_owned(), "filter-meaning"),
        ("1 + 1".to_owned(), "filter-meaning"),
        ("data = 'x'".to_owned(), "filter-meaning"),
        ("EXISTS DATA".to_owned(), "filter-meaning"),
    ] {
        let error = Filter::from_expression(&text).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
    }
    // A chain is wide, and not deep.
    Filter::from_expression(&vec!["id = 'x'"; 200].join(" OR ")).unwrap();
}

#[test]
fn errors_point_at_their_place() {
    let text = "type = 'a'\n  AND id === 'b'";
    let error = Filter::from_expression(text).unwrap_err();
    assert_eq!(error.pointer(text), "  AND id === 'b'\n          ^");
    assert_eq!(error.to_string(), "a value is wanted here (at byte 21)");
}

#[test]
fn all_rules_share_the_work_of_an_event_and_no_rule_turns_its_end_into_passing() {
    let (text, piece) = ("a".repeat(900), "a".repeat(450));
    let heavy = format!(r#"{{"sql":"CONCAT(id,'{text}') LIKE '%{piece}b%'"}}"#);
    let event = Event::default();
    for rules in [
        heavy.clone(),
        format!(r#"{{"not":{heavy}}}"#),
        format!(r#"{{"any":[{heavy},{{"not":{{"exact":{{"id":"other"}}}}}}]}}"#),
    ] {
        let filter = countersign_filter::Filter::from_json(&rules).unwrap();
        let judged = filter.judge(&event.attributes());
        assert_eq!(judged, (false, countersign_filter::WORK_MAX), "{rules}");
    }
    // Each of them alone is possible; together they are too much.
    let some = format!(
        r#"{{"sql":"CONCAT(id,'{0}') LIKE '%{1}'"}}"#,
        "a".repeat(900),
        "a".repeat(900)
    );
    let (passes, alone) = countersign_filter::Filter::from_json(&some)
        .unwrap()
        .judge(&event.attributes());
    assert!(
        passes && alone < countersign_filter::WORK_MAX / 8,
        "{alone}"
    );
    // A hundred comparisons are far from it.
    let honest: Vec<String> = (0..100).map(|n| format!("id = 'order-{n}'")).collect();
    let (_, steps) = countersign_filter::Filter::from_expression(&honest.join(" OR "))
        .unwrap()
        .judge(&event.attributes());
    assert!(steps < 1000, "{steps}");
}
