//! Authorities that are domains: what is found there is judged, kept and remembered.

use std::time::Duration;

use countersign_crypto::{SeededEntropy, SigningKey};
use countersign_event::documents::{Plan, Side};
use countersign_event::ledger::DomainResult;
use countersign_exchange::{FoundAtDomain, key_statement_url};

use super::support::{Node, NodeOptions, Org, join, partners};

const DOMAIN: &str = "data.example";

/// An organization that claims the domain, under a key of its own.
fn claiming(seed: u64, number: u64) -> Org {
    let key = SigningKey::generate(&mut SeededEntropy::new(seed));
    Org::with_authority(seed, "Producer", DOMAIN.parse().unwrap(), key, number)
}

fn page(org: &Org) -> FoundAtDomain {
    FoundAtDomain::Page(org.identity.envelope.to_json())
}

#[tokio::test]
async fn a_name_is_proven_since_its_statement_was_found_at_the_domain() {
    let producer = Node::with(claiming(700, 1), 700, NodeOptions::default()).await;
    let mut consumer = Node::new(701, "Consumer").await;
    producer.create("s").await;
    let invitation = producer.invite("s", Side::Producer, Plan::default()).await;
    join(&invitation, &producer, &consumer).await.unwrap();
    let authority = producer.authority().clone();
    assert_eq!(
        key_statement_url(&authority).unwrap(),
        "https://data.example/.well-known/countersign/key-statement.json"
    );
    assert_eq!(
        producer.exchange.statement_for_domain().unwrap(),
        producer.org.identity.envelope.to_json()
    );
    assert_eq!(consumer.exchange.domain_proof(&authority), None);

    let ask = async |consumer: &Node, found: FoundAtDomain| {
        consumer.clock.advance(Duration::from_secs(60));
        consumer
            .exchange
            .note_domain(&authority, &found)
            .await
            .unwrap()
    };
    // Nobody answers; something else is there.
    let nothing = ask(&consumer, FoundAtDomain::Nothing("no address".to_owned())).await;
    assert_eq!(
        (nothing.result, nothing.since),
        (DomainResult::Unreachable, None)
    );
    let elsewhere = Org::new(702, "Elsewhere");
    let other_key = claiming(703, 9);
    let mut bent = producer.org.identity.envelope.to_json();
    let middle = bent.len() / 2;
    bent[middle] ^= 1;
    for other in [
        FoundAtDomain::Status(404),
        FoundAtDomain::Status(301),
        FoundAtDomain::Page(b"<html>".to_vec()),
        FoundAtDomain::Page(Vec::new()),
        FoundAtDomain::Page(bent),
        FoundAtDomain::Page(vec![b' '; 70_000]),
        page(&elsewhere),
        page(&other_key),
    ] {
        let refuted = ask(&consumer, other).await;
        assert_eq!(
            (refuted.result, refuted.since),
            (DomainResult::Refuted, None),
            "{}",
            refuted.detail
        );
    }
    // It is there, also under a newer number; it stays proven since the first time though nobody answers for a while.
    let first = ask(&consumer, page(&producer.org)).await;
    assert_eq!(
        (first.result, first.since),
        (DomainResult::Proven, Some(first.asked))
    );
    let again = ask(&consumer, page(&claiming(700, 5))).await;
    assert_eq!(
        (again.since, again.result),
        (first.since, DomainResult::Proven)
    );
    let away = ask(&consumer, FoundAtDomain::Nothing("away".to_owned())).await;
    assert_eq!(
        (away.since, away.result),
        (first.since, DomainResult::Unreachable)
    );
    // It is remembered.
    let known = consumer.exchange.domain_proof(&authority);
    consumer.restart().await;
    assert_eq!(consumer.exchange.domain_proof(&authority), known);
    assert_eq!(consumer.records("domain-check").await.len(), 12);
    // And over as soon as another one is there.
    let lost = ask(&consumer, page(&other_key)).await;
    assert_eq!(lost.since, None);
}

/// A fingerprint proves itself, and strangers' domains are nobody's business here.
#[tokio::test]
async fn only_partners_domains_are_judged() {
    let (producer, consumer, _) = partners(704, "s", 10).await;
    let found = page(&producer.org);
    assert!(
        consumer
            .exchange
            .note_domain(producer.authority(), &found)
            .await
            .is_err()
    );
    assert!(
        consumer
            .exchange
            .note_domain(&DOMAIN.parse().unwrap(), &found)
            .await
            .is_err()
    );
    assert_eq!(producer.exchange.statement_for_domain(), None);
    assert_eq!(key_statement_url(producer.authority()), None);
}
