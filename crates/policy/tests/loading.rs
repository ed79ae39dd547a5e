//! What is taken as policies, and what is said about what is not.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use countersign_policy::{
    Action, Context, Organization, POLICIES_MAX, POLICY_BYTES_MAX, POLICY_TEXT_BYTES_MAX,
    PolicyFault, PolicyLoadError, PolicySet, Principal, Request, SCHEMA, Stream,
};
use proptest::prelude::*;

const PERMIT: &str = "permit (principal, action, resource);";

fn files(files: &[(&str, &str)]) -> Vec<(String, String)> {
    files
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
        .collect()
}

fn load(list: &[(&str, &str)]) -> Result<PolicySet, PolicyLoadError> {
    PolicySet::load(&files(list))
}

fn faults(list: &[(&str, &str)]) -> Vec<PolicyFault> {
    load(list).unwrap_err().faults().to_vec()
}

/// Loads `text` and expects one fault, at `line` and `column`, that speaks of `word`.
fn check_fault(text: &str, line: usize, column: usize, word: &str) {
    let loaded = load(&[("good.cedar", PERMIT), ("bad.cedar", text)]);
    let Err(PolicyLoadError::Faults { faults: found }) = loaded else {
        panic!("{loaded:?} for {text}");
    };
    assert_eq!(found.len(), 1, "{found:#?}");
    let fault = &found[0];
    assert_eq!(
        (fault.file.as_str(), fault.line, fault.column),
        ("bad.cedar", line, column),
        "{fault}"
    );
    let said = fault.to_string();
    assert!(said.contains(word), "{said} does not speak of {word}");
    assert!(said.starts_with(&format!("bad.cedar:{line}:{column}: ")));
}

#[test]
fn a_fault_is_reported_with_file_line_and_column() {
    check_fault(
        "permit (principal, action, resource)",
        1,
        37,
        "end of input",
    );
    check_fault(
        "// ä comment\n\n  permt (principal, action, resource);",
        3,
        3,
        "permt",
    );
    check_fault(
        &format!(
            "{PERMIT}\n{PERMIT}\npermit (principal, action, resource)\nwhen {{ principal.ähm }};"
        ),
        4,
        18,
        "invalid token",
    );
    check_fault(
        "permit (principal == ?principal, action, resource);",
        1,
        22,
        "template",
    );
    check_fault(
        "@id(\"a b\")\npermit (principal, action, resource);",
        1,
        1,
        "@id",
    );
    check_fault(
        "@id(\"\")\npermit (principal, action, resource);",
        1,
        1,
        "@id",
    );
    check_fault(
        "@advice(\"a\\nb\")\npermit (principal, action, resource);",
        1,
        1,
        "@advice",
    );
    check_fault(
        &format!("@id(\"x\") {PERMIT}\n@id(\"x\") {PERMIT}"),
        2,
        1,
        "`bad/x`",
    );
    check_fault(&format!("@id(\"2\") {PERMIT}\n{PERMIT}"), 2, 1, "`bad/2`");
}

#[test]
fn strict_validation_catches_what_would_never_hold() {
    let when =
        |condition: &str| format!("permit (principal, action, resource)\nwhen {{ {condition} }};");
    check_fault(&when("principal.onw"), 2, 8, "onw");
    check_fault(
        &when("principal.own && resource.lables.contains(\"a\")"),
        2,
        25,
        "lables",
    );
    check_fault(&when("context.purpose == \"research\""), 2, 8, "purpose");
    check_fault(&when("principal.name == 5"), 2, 8, "types");
    check_fault(&when("context.now < datetime(\"soon\")"), 2, 22, "soon");
    check_fault(
        "permit (principal, action == Action::\"raed\", resource);",
        1,
        30,
        "raed",
    );
    check_fault(
        "permit (principal is Orgnization, action, resource);",
        1,
        22,
        "Orgnization",
    );
}

#[test]
fn a_misspelt_attribute_comes_with_a_hint() {
    let text = "permit (principal, action, resource) when { principal.partnr };";
    let found = faults(&[("bad.cedar", text)]);
    assert!(
        found[0].hint.as_ref().unwrap().contains("partner"),
        "{found:?}"
    );
    assert_eq!(found[0].policy.as_ref().unwrap().as_str(), "bad/1");
}

#[test]
fn faults_of_every_file_are_listed_in_order() {
    let found = faults(&[
        ("b.cedar", "x;\ny;"),
        ("a.cedar", "z;"),
        ("c.cedar", PERMIT),
    ]);
    let places: Vec<(&str, usize)> = found
        .iter()
        .map(|one| (one.file.as_str(), one.line))
        .collect();
    assert_eq!(places, [("a.cedar", 1), ("b.cedar", 1), ("b.cedar", 2)]);
    let many = "x;\n".repeat(500);
    assert_eq!(faults(&[("a.cedar", &many)]).len(), 20);
}

#[test]
fn a_policy_that_can_never_apply_is_a_warning() {
    let text = format!("{PERMIT}\npermit (principal, action, resource) when {{ false }};");
    let policies = load(&[("a.cedar", &text)]).unwrap();
    let [warning] = policies.warnings() else {
        panic!("{:?}", policies.warnings());
    };
    assert_eq!(
        (warning.line, warning.policy.as_ref().unwrap().as_str()),
        (2, "a/2")
    );
}

#[test]
fn names_that_are_no_file_names_are_refused() {
    for name in [
        "a",
        ".cedar",
        "a.txt",
        "../a.cedar",
        "a/b.cedar",
        "a b.cedar",
        "ä.cedar",
        "a.cedar\n",
    ] {
        let refused = load(&[(name, PERMIT)]).unwrap_err();
        assert_eq!(
            refused,
            PolicyLoadError::FileName {
                file: name.to_owned()
            }
        );
    }
    let twice = load(&[("a.cedar", PERMIT), ("b.cedar", ""), ("a.cedar", "")]).unwrap_err();
    assert_eq!(
        twice,
        PolicyLoadError::DuplicateFile {
            file: "a.cedar".to_owned()
        }
    );
    let ids: Vec<String> = load(&[("b-1_x.y.cedar", PERMIT), ("A.cedar", PERMIT)])
        .unwrap()
        .ids()
        .map(ToString::to_string)
        .collect();
    assert_eq!(ids, ["A/1", "b-1_x.y/1"]);
}

#[test]
fn sizes_are_limited() {
    let most = POLICY_BYTES_MAX - "a.cedar".len();
    assert!(load(&[("a.cedar", &" ".repeat(most))]).is_ok());
    assert_eq!(
        load(&[("a.cedar", &" ".repeat(most + 1))]).unwrap_err(),
        PolicyLoadError::TooManyBytes {
            bytes: POLICY_BYTES_MAX + 1,
            limit: POLICY_BYTES_MAX
        }
    );
    let half = PERMIT.repeat(POLICIES_MAX / 2);
    assert!(load(&[("a.cedar", &half), ("b.cedar", &half)]).is_ok());
    assert_eq!(
        load(&[("a.cedar", &half), ("b.cedar", &half), ("c.cedar", PERMIT)]).unwrap_err(),
        PolicyLoadError::TooManyPolicies {
            limit: POLICIES_MAX
        }
    );
    let broken = "x;".repeat(POLICIES_MAX / 2);
    assert_eq!(
        load(&[
            ("a.cedar", &broken),
            ("b.cedar", &broken),
            ("c.cedar", PERMIT)
        ])
        .unwrap_err(),
        PolicyLoadError::TooManyPolicies {
            limit: POLICIES_MAX
        }
    );
    let long = format!(
        "permit (principal, action, resource){};",
        " ".repeat(POLICY_TEXT_BYTES_MAX)
    );
    check_fault(&long, 1, 1, "bytes");
}

#[test]
fn the_digest_depends_on_every_byte_and_name_and_not_on_the_order() {
    let digest = |list: &[(&str, &str)]| load(list).unwrap().digest();
    let text = "// ab\n@id(\"x\") permit (principal, action, resource);";
    let base = digest(&[("a.cedar", text), ("b.cedar", PERMIT)]);
    assert_eq!(base, digest(&[("b.cedar", PERMIT), ("a.cedar", text)]));
    let mut seen = std::collections::BTreeSet::from([base]);
    let mut new = |list: &[(&str, &str)]| assert!(seen.insert(digest(list)), "{list:?}");
    new(&[("a.cedar", text)]);
    new(&[("c.cedar", text), ("b.cedar", PERMIT)]);
    new(&[("a.cedar", PERMIT), ("b.cedar", text)]);
    new(&[("a.cedar", text), ("b.cedar", PERMIT), ("c.cedar", "")]);
    // A byte that moves from one file to the next, and every byte of one changed where the text stays a policy.
    new(&[("a.cedar", &format!("{text}\n")), ("b.cedar", PERMIT)]);
    new(&[("a.cedar", text), ("b.cedar", &format!("\n{PERMIT}"))]);
    // One file whose text is what two files' names and texts are together.
    new(&[("a.cedar", "//"), ("b.cedar", "")]);
    new(&[("a.cedar", "//b.cedar")]);
    let mut changed = 0;
    for at in 0..text.len() {
        let mut bytes = text.as_bytes().to_vec();
        bytes[at] ^= 1;
        let other = String::from_utf8(bytes).unwrap();
        if let Ok(policies) = load(&[("a.cedar", &other), ("b.cedar", PERMIT)]) {
            assert!(seen.insert(policies.digest()), "byte {at}");
            changed += 1;
        }
    }
    assert!(changed > 4, "only {changed} changes still were policies");
    assert_eq!(load(&[]).unwrap().digest().len(), 32);
}

#[test]
fn the_texts_are_given_back_as_they_came_sorted_by_name() {
    let policies = load(&[("b.cedar", PERMIT), ("a.cedar", "// é\r\n")]).unwrap();
    assert_eq!(
        policies.texts(),
        files(&[("a.cedar", "// é\r\n"), ("b.cedar", PERMIT)])
    );
    let again = PolicySet::load(policies.texts()).unwrap();
    assert_eq!(again.digest(), policies.digest());
}

#[test]
fn policies_about_reserved_actions_are_taken() {
    for action in ["relay", "trace", "witness"] {
        assert!(SCHEMA.contains(&format!("\"{action}\"")));
        let text = format!("permit (principal, action == Action::\"{action}\", resource);");
        let policies = load(&[("a.cedar", &text)]).unwrap();
        assert_eq!(policies.warnings(), []);
    }
}

/// Loads and, where it is a policy, decides; that it returns is the test.
fn survives(text: &str) {
    if let Ok(policies) = load(&[("a.cedar", text)]) {
        let _ = policies.mentions_time();
        let decision = policies.decide(&Request {
            principal: Principal::Organization(Organization::default()),
            action: Action::Read,
            resource: Stream::default(),
            context: Context::default(),
        });
        assert!(decision.errors.is_empty() || !decision.allowed);
    }
}

const WORDS: [&str; 48] = [
    "permit",
    "forbid",
    "(",
    ")",
    "principal",
    ",",
    "action",
    "resource",
    ";",
    "when",
    "unless",
    "{",
    "}",
    "if",
    "then",
    "else",
    "&&",
    "||",
    "!",
    "-",
    "==",
    "<",
    "in",
    "is",
    "has",
    "like",
    "context",
    ".",
    "own",
    "now",
    "[",
    "]",
    "\"a*\"",
    "\"",
    "\\",
    "9223372036854775807",
    "+",
    "*",
    "Action::\"read\"",
    "Organization::\"x\"",
    "@id",
    "(\"x\")",
    "//",
    "\n",
    "\r",
    "?principal",
    "datetime(\"2026-01-01\")",
    "é",
];

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        survives(&text);
    }

    #[test]
    fn arbitrary_words_of_the_language_never_panic(words in prop::collection::vec(prop::sample::select(&WORDS[..]), 0..60)) {
        survives(&words.join(" "));
    }

    #[test]
    fn arbitrary_conditions_never_panic(words in prop::collection::vec(prop::sample::select(&WORDS[..]), 0..12)) {
        survives(&format!("permit (principal, action, resource) when {{ {} }};", words.join(" ")));
    }

    #[test]
    fn a_changed_starter_policy_never_panics(at in 0_usize..2_000, replacement in any::<char>()) {
        let starter = include_str!("../../../policies/starter.cedar");
        let text: String = starter
            .chars()
            .enumerate()
            .map(|(number, character)| if number == at { replacement } else { character })
            .collect();
        survives(&text);
    }
}
