//! Requests to erase and their answers in a bundle: signed by the right side, about a tombstone, not belied by what is here.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use countersign_audit::Report;
use countersign_crypto::SigningKey;
use countersign_event::control::TOMBSTONE;
use countersign_event::documents::{
    Agreement, AgreementId, Digest, Document as _, ErasureAnswer, ErasureId, ErasureRequest,
    Outcome,
};
use countersign_event::dsse::Envelope;
use countersign_event::entry::Kind;
use countersign_event::ledger::LedgerRecord;
use countersign_event::time::Timestamp;
use support::*;

/// Entry 10 of 20 is the tombstone of entry 3, whose content is not here.
fn world() -> World {
    let tombstone = "{\"sequence\":3,\"reason\":\"asked for\"}".to_owned();
    let controls = [(10, TOMBSTONE, tombstone)];
    let mut world = World::with_controls(Org::new(1), Org::new(2), 20, &controls);
    world.stream.withheld = vec![3];
    world.ledger = None;
    world.documents.truncate(3);
    world.policies.clear();
    world.decisions.clear();
    world
}

fn request(world: &World) -> ErasureRequest {
    let agreement = Agreement::peek(&world.documents[2]).unwrap();
    ErasureRequest {
        id: ErasureId([5; 16]),
        agreement: agreement.id,
        stream: world.stream.origin.clone(),
        sequence: 3,
        tombstone: 10,
        by: world.producer.authority.clone(),
        reason: "asked for".to_owned(),
        made: Timestamp(T0 + 50_000_000),
    }
}

fn answer(world: &World, request: &Envelope) -> ErasureAnswer {
    let claim = ErasureRequest::peek(request).unwrap();
    ErasureAnswer {
        request: claim.id,
        digest: Digest(request.payload_digest()),
        stream: claim.stream,
        sequence: claim.sequence,
        by: world.consumer.authority.clone(),
        outcome: Outcome::Done,
        reason: "the agreement says so".to_owned(),
        made: Timestamp(T0 + 60_000_000),
    }
}

fn judge(world: &World) -> Report {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bundle");
    world.write(&path);
    verify(&path, &world.producer.trust())
}

#[track_caller]
fn check(world: &World, documents: Vec<Envelope>, expected: u8, says: &str) {
    let mut world = World {
        documents: world.documents.clone(),
        ..self::world_like(world)
    };
    world.documents.extend(documents);
    let report = judge(&world);
    assert_eq!(report.verdict.exit_code(), expected, "{report}");
    assert!(report.to_string().contains(says), "{says}: {report}");
}

fn world_like(world: &World) -> World {
    let mut other = self::world();
    other.stream.withheld = world.stream.withheld.clone();
    other
}

#[test]
fn a_request_and_its_answer_are_judged_by_their_signatures_and_the_log() {
    let world = world();
    let (producer, consumer) = (&world.producer.agreement, &world.consumer.agreement);
    let good = request(&world).sign(producer);
    let answered = answer(&world, &good).sign(consumer);
    check(&world, vec![good.clone()], 0, "1 requests to erase");
    check(
        &world,
        vec![good.clone(), answered.clone()],
        0,
        "1 answers to them",
    );

    let requested = |change: &dyn Fn(&mut ErasureRequest), key: &SigningKey, expected, says| {
        let mut claim = request(&world);
        change(&mut claim);
        check(&world, vec![claim.sign(key)], expected, says);
    };
    let same = |_: &mut ErasureRequest| ();
    requested(&same, consumer, 6, "agreement key");
    requested(&same, &world.producer.log, 6, "agreement key");
    let by = |claim: &mut ErasureRequest| claim.by = world.consumer.authority.clone();
    requested(&by, consumer, 6, "is not the producer");
    requested(
        &|claim| claim.sequence = 4,
        producer,
        6,
        "no tombstone of it",
    );
    requested(
        &|claim| claim.tombstone = 11,
        producer,
        6,
        "no tombstone of it",
    );
    requested(
        &|claim| claim.tombstone = 0,
        producer,
        6,
        "no tombstone of it",
    );
    requested(&|claim| claim.tombstone = 20, producer, 9, "");
    requested(
        &|claim| claim.agreement = AgreementId([9; 16]),
        producer,
        9,
        "is not here",
    );
    let elsewhere =
        |claim: &mut ErasureRequest| claim.stream = "a.example/streams/s".parse().unwrap();
    requested(&elsewhere, producer, 6, "about another log");

    let replied = |change: &dyn Fn(&mut ErasureAnswer), key: &SigningKey, expected, says| {
        let mut claim = answer(&world, &good);
        change(&mut claim);
        check(&world, vec![good.clone(), claim.sign(key)], expected, says);
    };
    replied(&|_| (), producer, 6, "agreement key");
    replied(
        &|claim| claim.digest = Digest([1; 32]),
        consumer,
        6,
        "another request",
    );
    replied(&|claim| claim.sequence = 4, consumer, 6, "another request");
    replied(
        &|claim| claim.request = ErasureId([6; 16]),
        consumer,
        9,
        "is not here",
    );
    let by = |claim: &mut ErasureAnswer| claim.by = world.producer.authority.clone();
    replied(&by, producer, 6, "was not asked");
    check(&world, vec![answered], 9, "is not here");

    let mut twin = request(&world);
    twin.reason = "another".to_owned();
    check(&world, vec![good, twin.sign(producer)], 6, "has the id");
}

#[test]
fn an_answer_done_is_belied_by_content_that_is_here() {
    let mut shown = world();
    shown.stream.withheld.clear();
    let good = request(&shown).sign(&shown.producer.agreement);
    let with = |outcome, expected, says| {
        let mut claim = answer(&shown, &good);
        claim.outcome = outcome;
        let answered = claim.sign(&shown.consumer.agreement);
        check(&shown, vec![good.clone(), answered], expected, says);
    };
    with(Outcome::Done, 6, "has erased the content, which is here");
    with(Outcome::Held, 0, "answers to them");
    with(Outcome::Refused, 0, "answers to them");
}

#[test]
fn what_the_ledger_records_of_them_is_here_and_the_other_way_round() {
    let mut world = world();
    let good = request(&world).sign(&world.producer.agreement);
    let answered = answer(&world, &good).sign(&world.consumer.agreement);
    let text = |envelope: &Envelope| String::from_utf8(envelope.to_json()).unwrap();
    let mut recorded = |records: &[LedgerRecord]| {
        let origin = countersign_event::names::Origin::of_ledger(
            &world.producer.authority,
            &world.consumer.authority,
        );
        let mut ledger = Log::new(&world.producer, origin);
        for record in records {
            let json = String::from_utf8(record.to_json()).unwrap();
            ledger.append(Kind::Event, &record.event_type(), &json);
        }
        world.ledger = Some(ledger);
        world.documents.truncate(3);
        let documents = [good.clone(), answered.clone()];
        let with = |world: &mut World, documents: &[Envelope]| {
            world.documents.truncate(3);
            world.documents.extend(documents.iter().cloned());
            judge(world).verdict.exit_code()
        };
        [
            with(&mut world, &documents),
            with(&mut world, &documents[..1]),
            with(&mut world, &[]),
        ]
    };
    let agreement = LedgerRecord::Agreement {
        envelope: text(&self::world().documents[2]),
        addresses: Vec::new(),
        invitation: None,
    };
    let asked = LedgerRecord::ErasureRequest {
        envelope: text(&good),
    };
    let said = LedgerRecord::ErasureAnswer {
        envelope: text(&answered),
    };
    let all = [agreement.clone(), asked.clone(), said];
    assert_eq!(recorded(&all), [0, 9, 9]);
    assert_eq!(recorded(&all[..2]), [6, 0, 9], "the answer is not recorded");
    assert_eq!(recorded(&all[..1]), [6, 6, 0], "neither is");
}
