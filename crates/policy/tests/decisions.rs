//! What is decided, and why: default deny, errors deny, forbid beats permit.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use countersign_policy::{
    Action, Agreement, Context, Credential, Decision, Member, Organization, PolicyId, PolicySet,
    Principal, Reason, Request, Stream,
};

const ORIGIN: &str = "acme.example/streams/quakes";

fn load(texts: &[&str]) -> PolicySet {
    let files: Vec<(String, String)> = texts
        .iter()
        .enumerate()
        .map(|(number, text)| (format!("p{number}.cedar"), (*text).to_owned()))
        .collect();
    PolicySet::load(&files).unwrap()
}

fn organization(authority: &str) -> Organization {
    Organization {
        authority: authority.to_owned(),
        ..Organization::default()
    }
}

fn request() -> Request {
    Request {
        principal: Principal::Organization(organization("birch.example")),
        action: Action::Read,
        resource: Stream {
            name: "quakes".to_owned(),
            origin: ORIGIN.to_owned(),
            owner: "acme.example".to_owned(),
            ..Stream::default()
        },
        context: Context {
            now_us: 1_790_000_000_000_000,
            ..Context::default()
        },
    }
}

fn names(ids: &[PolicyId]) -> Vec<&str> {
    ids.iter().map(PolicyId::as_str).collect()
}

fn outcome(decision: &Decision) -> (bool, Reason, Vec<&str>) {
    (
        decision.allowed,
        decision.explanation.reason,
        names(&decision.determining),
    )
}

/// One door for the table below: policy files in, the answer to [`request`] out.
fn check(texts: &[&str], expected: (bool, Reason, &[&str])) {
    let decision = load(texts).decide(&request());
    let (allowed, reason, determining) = expected;
    assert_eq!(
        outcome(&decision),
        (allowed, reason, determining.to_vec()),
        "{texts:?}: {}",
        decision.explanation
    );
    assert_eq!(decision.errors.is_empty(), reason != Reason::Failed);
}

const PERMIT: &str = "permit (principal, action, resource);";
const FORBID: &str = "forbid (principal, action, resource);";
/// Fails when evaluated: strict validation cannot know whether an entity will be there.
const GHOST: &str = "Organization::\"ghost.example\".own";
const OVERFLOW: &str = "9223372036854775807 + 1 == 0";

#[test]
fn denies_by_default_and_forbid_beats_permit() {
    check(&[], (false, Reason::NoPermit, &[]));
    check(&["// nothing"], (false, Reason::NoPermit, &[]));
    check(&[PERMIT], (true, Reason::Permitted, &["p0/1"]));
    check(
        &[PERMIT, PERMIT],
        (true, Reason::Permitted, &["p0/1", "p1/1"]),
    );
    check(&[PERMIT, FORBID], (false, Reason::Forbidden, &["p1/1"]));
    check(&[FORBID, PERMIT], (false, Reason::Forbidden, &["p0/1"]));
    check(&[FORBID], (false, Reason::Forbidden, &["p0/1"]));
    let named =
        "@id(\"all\") permit (principal, action, resource); permit (principal, action, resource);";
    check(&[named], (true, Reason::Permitted, &["p0/2", "p0/all"]));
}

#[test]
fn a_policy_that_fails_denies_whatever_the_others_say() {
    for error in [GHOST, OVERFLOW] {
        let failing_forbid = format!("forbid (principal, action, resource) when {{ {error} }};");
        let failing_permit = format!("permit (principal, action, resource) when {{ {error} }};");
        check(
            &[PERMIT, &failing_forbid],
            (false, Reason::Failed, &["p1/1"]),
        );
        check(
            &[PERMIT, &failing_permit],
            (false, Reason::Failed, &["p1/1"]),
        );
        check(&[&failing_permit], (false, Reason::Failed, &["p0/1"]));
        check(
            &[FORBID, &failing_permit],
            (false, Reason::Failed, &["p1/1"]),
        );
    }
}

#[test]
fn an_error_says_which_policy_failed() {
    let text = format!("@id(\"odd\") forbid (principal, action, resource) when {{ {GHOST} }};");
    let decision = load(&[PERMIT, &text]).decide(&request());
    assert_eq!(decision.errors.len(), 1);
    assert!(
        decision.errors[0].contains("p1/odd"),
        "{:?}",
        decision.errors
    );
    assert!(decision.explanation.to_string().contains("p1/odd"));
}

#[test]
fn a_policy_about_an_entity_that_is_not_asking_does_not_hold() {
    let ghost = "permit (principal in Organization::\"ghost.example\", action, resource);";
    check(&[ghost], (false, Reason::NoPermit, &[]));
    let ghost = "forbid (principal, action, resource in Organization::\"ghost.example\");";
    check(&[PERMIT, ghost], (true, Reason::Permitted, &["p0/1"]));
}

#[test]
fn each_action_and_kind_of_principal_is_told_apart() {
    let member = || Member {
        fingerprint: "key-1".to_owned(),
        name: "m".to_owned(),
        organization: organization("birch.example"),
    };
    let principals = [
        (
            "Organization::\"birch.example\"",
            Principal::Organization(organization("birch.example")),
        ),
        ("Node::\"key-1\"", Principal::Node(member())),
        ("Application::\"key-1\"", Principal::Application(member())),
    ];
    for (entity, _) in &principals {
        for action in Action::ALL {
            let text = format!(
                "permit (principal == {entity}, action == Action::\"{action}\", resource == Stream::\"{ORIGIN}\");"
            );
            let policies = load(&[&text]);
            for (asking_entity, asking) in &principals {
                for asked in Action::ALL {
                    let decision = policies.decide(&Request {
                        principal: asking.clone(),
                        action: asked,
                        ..request()
                    });
                    let expected = entity == asking_entity && action == asked;
                    assert_eq!(decision.allowed, expected, "{text} {asking_entity} {asked}");
                    // The explanation's own reading of scopes agrees with Cedar's.
                    assert_eq!(decision.explanation.policies.len(), usize::from(expected));
                }
            }
        }
    }
}

#[test]
fn members_are_in_their_organization_and_streams_in_their_owners() {
    let member = Member {
        fingerprint: "key-1".to_owned(),
        name: String::new(),
        organization: organization("birch.example"),
    };
    let policies = load(&[
        "permit (principal in Organization::\"birch.example\", action, resource in Organization::\"acme.example\");",
    ]);
    for principal in [
        Principal::Organization(organization("birch.example")),
        Principal::Node(member.clone()),
        Principal::Application(member),
    ] {
        let asked = Request {
            principal,
            ..request()
        };
        assert!(policies.decide(&asked).allowed);
    }
    let other = Request {
        principal: Principal::Organization(organization("birch.example.evil")),
        ..request()
    };
    assert!(!policies.decide(&other).allowed);
}

#[test]
fn every_fact_of_a_request_reaches_the_policies() {
    let asked = Request {
        principal: Principal::Application(Member {
            fingerprint: "key-app".to_owned(),
            name: "importer".to_owned(),
            organization: Organization {
                authority: "acme.example".to_owned(),
                fingerprint: "key-org".to_owned(),
                name: "Acme".to_owned(),
                own: true,
                partner: true,
                region: Some("EU".to_owned()),
            },
        }),
        action: Action::Publish,
        resource: Stream {
            labels: ["listed".to_owned()].into(),
            title: Some("Quakes".to_owned()),
            ..request().resource
        },
        context: Context {
            agreement: Some(Agreement {
                active: true,
                id: "a1".to_owned(),
                plan: "gold".to_owned(),
                plan_digest: "ab".repeat(32),
                streams: [ORIGIN.to_owned()].into(),
            }),
            credential: Some(Credential::ApplicationKey),
            now_us: 1_790_000_000_123_999,
            plan: Some("silver".to_owned()),
            purpose: Some("research".to_owned()),
        },
    };
    for condition in [
        "principal.name == \"importer\"",
        "principal.fingerprint == \"key-app\"",
        "principal.authority == \"acme.example\"",
        "principal.own",
        "principal.partner",
        "principal has region && principal.region == \"EU\"",
        "resource.name == \"quakes\"",
        "resource.origin == \"acme.example/streams/quakes\"",
        "resource.owner == \"acme.example\"",
        "resource has title && resource.title == \"Quakes\"",
        "resource.labels == [\"listed\"]",
        "context has agreement && context.agreement.active",
        "context has agreement && context.agreement.id == \"a1\"",
        "context has agreement && context.agreement.plan == \"gold\"",
        "context has agreement && context.agreement.streams == [resource.origin]",
        "context has credential && context.credential == \"application-key\"",
        "context has plan && context.plan == \"silver\"",
        "context has purpose && context.purpose == \"research\"",
        // 1,790,000,000.123999 seconds: cut to the millisecond, not rounded.
        "context.now == datetime(\"2026-09-21T14:13:20.123Z\")",
    ] {
        let text = format!("permit (principal, action, resource) when {{ {condition} }};");
        let decision = load(&[&text]).decide(&asked);
        assert!(decision.allowed, "{condition}: {}", decision.explanation);
    }
}

/// What `facts_used` says of [`request`] under one policy, each as `name=value`.
fn facts_of(text: &str) -> Vec<String> {
    let policies = load(&[text]);
    let decision = policies.decide(&request());
    let used = policies.facts_used(&request(), &decision);
    let shown = used.iter().map(|fact| match &fact.value {
        Some(value) => format!("{}={value}", fact.name),
        None => fact.name.clone(),
    });
    shown.collect()
}

#[test]
fn the_facts_that_a_decision_turned_on_are_named_with_their_values() {
    for (text, expected) in [
        // The scope alone.
        (
            "permit (principal, action, resource) when { true };",
            &[][..],
        ),
        (
            r#"permit (principal in Organization::"birch.example", action == Action::"read", resource);"#,
            &[
                r#"action="read""#,
                r#"principal="Organization::\"birch.example\"""#,
            ],
        ),
        // Chains, `has` with one name and with a path, and what is missing.
        (
            r#"permit (principal, action, resource) when { context has purpose && context.purpose == "x" && !principal.own };"#,
            &["context.purpose", "principal.own=false"],
        ),
        (
            "permit (principal, action, resource) when { context has agreement.active && context.agreement.active };",
            &["context.agreement.active"],
        ),
        (
            r#"permit (principal, action, resource) when { context.now < datetime("2026-01-01T00:00:00Z") || resource.labels.contains(principal.name) };"#,
            &[
                r#"context.now="2026-09-21T14:13:20.000Z""#,
                r#"principal.name="""#,
                "resource.labels=[]",
            ],
        ),
        // A forbid that holds decides; the permit beside it does not count.
        (
            r#"permit (principal, action, resource) when { resource.owner == "acme.example" };
               forbid (principal, action, resource) unless { principal has region };"#,
            &["principal.region"],
        ),
    ] {
        assert_eq!(facts_of(text), expected, "{text}");
    }
}

#[test]
fn a_request_that_cannot_be_put_is_denied() {
    let policies = load(&[PERMIT]);
    let long = "x".repeat(1025);
    let mut asked = request();
    asked.context.purpose = Some(long.clone());
    assert_eq!(
        outcome(&policies.decide(&asked)),
        (false, Reason::Failed, vec![])
    );
    let mut asked = request();
    asked.resource.labels = [long].into();
    assert_eq!(
        outcome(&policies.decide(&asked)),
        (false, Reason::Failed, vec![])
    );
    let mut asked = request();
    asked.resource.labels = (0..1025).map(|number| number.to_string()).collect();
    assert_eq!(
        outcome(&policies.decide(&asked)),
        (false, Reason::Failed, vec![])
    );
    for now_us in [u64::MAX, i64::MAX as u64, 253_402_300_800_000_000] {
        let mut asked = request();
        asked.context.now_us = now_us;
        let decision = policies.decide(&asked);
        assert_eq!(
            outcome(&decision),
            (false, Reason::Failed, vec![]),
            "{now_us}"
        );
    }
    for now_us in [0, 253_402_207_200_000_000 - 1] {
        let mut asked = request();
        asked.context.now_us = now_us;
        assert!(policies.decide(&asked).allowed, "{now_us}");
    }
}

#[test]
fn a_denial_names_the_permits_in_scope_and_their_advice() {
    let policies = load(&[
        "@id(\"plan\") @advice(\"the plan gold\") permit (principal, action == Action::\"read\", resource)
            when { context has plan && context.plan == \"gold\" };
         @id(\"other\") @advice(\"unused\") permit (principal, action == Action::\"publish\", resource);
         @id(\"silent\") permit (principal is Organization, action in [Action::\"read\"], resource is Stream in Organization::\"acme.example\")
            when { principal.own };
         @id(\"nodes\") permit (principal is Node, action, resource);",
    ]);
    let explanation = policies.explain(&request());
    assert_eq!(explanation.reason, Reason::NoPermit);
    assert_eq!(
        explanation.to_string(),
        "no policy permits it; what would help: the plan gold (p0/plan); the conditions of p0/silent"
    );
    let publish = Request {
        action: Action::Discover,
        ..request()
    };
    assert_eq!(
        policies.explain(&publish).to_string(),
        "no policy permits it, and none would for this principal and action"
    );
    let forbidden = load(&[
        PERMIT,
        "@id(\"closed\") @advice(\"to come back on Monday\") forbid (principal, action, resource);",
    ]);
    assert_eq!(
        forbidden.explain(&request()).to_string(),
        "forbidden by p1/closed; what would help: to come back on Monday (p1/closed)"
    );
    assert_eq!(
        load(&[PERMIT]).explain(&request()).to_string(),
        "permitted by p0/1"
    );
}

#[test]
fn policies_that_look_at_the_time_are_known() {
    for (condition, expected) in [
        ("true", false),
        ("context has plan && context.plan == \"now\"", false),
        ("context has agreement && context.agreement.active", false),
        ("context has agreement.plan", false),
        ("context.now > datetime(\"2026-01-01\")", true),
        ("context[\"now\"].toTime() > duration(\"8h\")", true),
        (
            "principal.own || !(context.now > datetime(\"2026-01-01\"))",
            true,
        ),
        (
            "if context has plan then context.plan == \"a\" else context.now < datetime(\"2026-01-01\")",
            true,
        ),
        ("context has now", true),
        // The whole context may hide anything.
        ("context == context", true),
        (
            "(if principal.own then context else context).now < datetime(\"2026-01-01\")",
            true,
        ),
    ] {
        let text = format!("permit (principal, action, resource) when {{ {condition} }};");
        assert_eq!(
            load(&[PERMIT, &text]).mentions_time(),
            expected,
            "{condition}"
        );
    }
    let unless =
        "forbid (principal, action, resource) unless { context.now < datetime(\"2026-01-01\") };";
    assert!(load(&[PERMIT, unless]).mentions_time());
    assert!(!load(&[]).mentions_time());
}

#[test]
fn a_set_is_shared_between_threads() {
    fn check<T: Send + Sync>() {}
    check::<PolicySet>();
}
