//! Measures what one decision costs: `cargo run --release -p countersign-policy --example decide_cost`.
//!
//! "Cold" is a decision as every caller makes it: a request built from its parts, nothing kept from the one before.
#![allow(
    clippy::print_stdout,
    reason = "a measurement is read on standard output"
)]

use std::time::Instant;

use countersign_policy::{
    Action, Agreement, Context, Credential, Member, Organization, PolicyLoadError, PolicySet,
    Principal, Request, Stream,
};

const DECISIONS: usize = 20_000;

fn main() -> Result<(), PolicyLoadError> {
    let starter = include_str!("../../../policies/starter.cedar");
    for others in [0, 95, 995] {
        let others: String = (0..others)
            .map(|number| {
                format!(
                    "@id(\"f{number}\") forbid (principal in Organization::\"rival-{number}.example\", action, resource) \
                     when {{ resource.labels.contains(\"l{number}\") }};\n"
                )
            })
            .collect();
        let start = Instant::now();
        let policies = PolicySet::load(&[
            ("starter.cedar".to_owned(), starter.to_owned()),
            ("others.cedar".to_owned(), others),
        ])?;
        let load = start.elapsed();
        let count = policies.ids().count();
        println!(
            "{count} policies, loaded in {:.1} ms",
            load.as_secs_f64() * 1e3
        );
        report("allowed", &policies, true);
        report("denied, with explanation", &policies, false);
    }
    Ok(())
}

fn report(name: &str, policies: &PolicySet, active: bool) {
    let mut nanoseconds: Vec<u128> = (0..DECISIONS)
        .map(|number| {
            let request = request(number, active);
            let start = Instant::now();
            let decision = policies.decide(&request);
            let took = start.elapsed().as_nanos();
            assert_eq!(decision.allowed, active, "{}", decision.explanation);
            took
        })
        .collect();
    let first = nanoseconds.first().copied().unwrap_or_default();
    nanoseconds.sort_unstable();
    let at = |share: usize| {
        nanoseconds
            .get(DECISIONS * share / 1000)
            .copied()
            .unwrap_or_default()
    };
    println!(
        "  {name}: first {:.1} us, p50 {:.1} us, p99 {:.1} us",
        first as f64 / 1e3,
        at(500) as f64 / 1e3,
        at(990) as f64 / 1e3,
    );
}

fn request(number: usize, active: bool) -> Request {
    let origin = format!("acme.example/streams/quakes-{}", number % 100);
    Request {
        principal: Principal::Node(Member {
            fingerprint: format!("key-{number:032}"),
            name: "node".to_owned(),
            organization: Organization {
                authority: format!("partner-{}.example", number % 1000),
                partner: true,
                ..Organization::default()
            },
        }),
        action: Action::Read,
        resource: Stream {
            labels: ["public".to_owned(), "usgs".to_owned()].into(),
            name: format!("quakes-{}", number % 100),
            origin: origin.clone(),
            owner: "acme.example".to_owned(),
            title: Some("Earthquakes".to_owned()),
        },
        context: Context {
            agreement: Some(Agreement {
                active,
                id: "agreement".to_owned(),
                plan: "standard".to_owned(),
                plan_digest: "00".repeat(32),
                streams: [origin].into(),
            }),
            credential: Some(Credential::NodeKey),
            now_us: 1_790_000_000_000_000 + number as u64,
            plan: None,
            purpose: Some("research".to_owned()),
        },
    }
}
