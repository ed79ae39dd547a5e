//! Policies that nest as deep as they may are read and decided on a thread with little stack; deeper ones are refused, since
//! Cedar's parser would otherwise end the process.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::thread;

use countersign_policy::{
    Action, Context, NESTING_MAX, OPERATORS_MAX, Organization, PolicyLoadError, PolicySet,
    Principal, Request, Stream,
};

/// What an `async` worker may have left; Cedar alone overflows twice as much at a fraction of the limits.
const STACK_BYTES: usize = 256 * 1024;

fn permit_when(condition: &str) -> String {
    format!("permit (principal, action, resource) when {{ {condition} }};")
}

/// Loads one policy with little stack; where it loads, decides, and gives whether it permits without an error.
fn check(condition: &str) -> Result<bool, PolicyLoadError> {
    let files = [("deep.cedar".to_owned(), permit_when(condition))];
    let run = move || {
        let policies = PolicySet::load(&files)?;
        let decision = policies.decide(&Request {
            principal: Principal::Organization(Organization::default()),
            action: Action::Read,
            resource: Stream::default(),
            context: Context::default(),
        });
        Ok(decision.allowed && decision.errors.is_empty())
    };
    let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn(run);
    thread.unwrap().join().unwrap()
}

/// Conditions that hold, with `brackets` brackets open at once or `operators` operators.
fn bracketed(brackets: usize) -> [String; 3] {
    let around = |open: &str, inner: &str, close: &str| {
        format!("{}{inner}{}", open.repeat(brackets), close.repeat(brackets))
    };
    [
        around("(", "true", ")"),
        format!("{0} == {0}", around("[", "1", "]")),
        format!("{0} == {0}", around("{a: ", "1", "}")),
    ]
}

fn chained(operators: usize) -> [String; 6] {
    [
        format!("{}true", "true && ".repeat(operators)),
        format!("{}true", "false || ".repeat(operators)),
        format!("0{} == 0", " + 0".repeat(operators)),
        format!("0{} == 0", " - 0".repeat(operators)),
        format!("1{} == 1", " * 1".repeat(operators)),
        format!(
            "{}true",
            "if false then false else ".repeat(operators.min(20_000))
        ),
    ]
}

#[test]
fn policies_at_the_limits_load_and_decide_with_little_stack() {
    // The braces of `when` are one bracket.
    for condition in bracketed(NESTING_MAX - 1)
        .iter()
        .chain(&chained(OPERATORS_MAX))
    {
        // The sets of `bracketed` have their brackets counted as operators too, and stay below that limit.
        assert_eq!(check(condition), Ok(true), "{condition}");
    }
    let (brackets, ifs) = (NESTING_MAX - 1, OPERATORS_MAX / 2);
    let both = format!(
        "{}{}{}true{}",
        "(".repeat(brackets),
        "if false then false else ".repeat(ifs),
        "true && ".repeat(OPERATORS_MAX - ifs),
        ")".repeat(brackets),
    );
    assert_eq!(check(&both), Ok(true));
}

#[test]
fn policies_beyond_the_limits_are_refused() {
    let beyond = [
        bracketed(NESTING_MAX).to_vec(),
        bracketed(10_000).to_vec(),
        chained(OPERATORS_MAX + 1).to_vec(),
        chained(40_000).to_vec(),
        [".a", "[\"a\"]", ".contains(1)", ".f(1, 2)"]
            .iter()
            .map(|postfix| format!("principal{}", postfix.repeat(OPERATORS_MAX + 1)))
            .collect(),
        vec![
            "(".repeat(500_000),
            "[".repeat(500_000),
            "if ".repeat(300_000),
        ],
    ];
    for condition in beyond.concat() {
        let refused = check(&condition);
        let Err(PolicyLoadError::Faults { faults }) = refused else {
            panic!("{refused:?} for {} bytes", condition.len());
        };
        assert!(faults[0].message.contains("at most"), "{}", faults[0]);
        assert_eq!((faults[0].line, faults[0].column), (1, 1));
    }
}

#[test]
fn long_chains_of_what_cedar_does_not_nest_are_answered() {
    let attributes_that_are_not_there = format!("principal{}", ".a".repeat(OPERATORS_MAX - 1));
    let unary = format!("{}true", "!".repeat(20_000));
    let name = format!("a{}::\"x\" == principal", "::a".repeat(10_000));
    for condition in [attributes_that_are_not_there, unary, name] {
        assert!(check(&condition).is_err());
    }
    let clauses = format!("true }} {} when {{ true", "when { true }".repeat(4_000));
    assert_eq!(check(&clauses), Ok(true));
}
