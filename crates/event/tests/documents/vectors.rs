//! Golden vectors, in `tests/vectors/documents/v1`: recomputed here and compared. With `COUNTERSIGN_WRITE_VECTORS=1` missing files are
//! written; one that exists is never changed.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_crypto::{PublicKey, SeededEntropy, SigningKey, sha256};
use countersign_event::documents::{
    Agreement, AgreementId, Digest, Document, Erasure, ErasureAnswer, ErasureId, ErasureRequest,
    History, KeyRevocation, KeyStatement, KeySuccession, KeyWrap, Level, Offer, Outcome, Party,
    Period, Plan, Proposal, Quota, Rate, Receipt, Refusal, RefusalCode, Rejection, Rejections,
    RevocationError, RevokedHead, Role, RoleKey, SeriesId, Side, SkipClaim, Step, StepKind,
    SuspensionCause, Termination,
};
use countersign_event::dsse::{ENVELOPE_BYTES_MAX, Envelope};
use countersign_event::encryption::EpochKey;
use countersign_event::names::{Authority, Origin};
use countersign_event::time::Timestamp;
use serde_json::{Value, json};

use crate::schema::Schema;

/// Seeds: 1 and 2 are the organizations; ten more is their agreement key, twenty more their receipt key, thirty more their encryption key.
const PRODUCER: u8 = 1;
const CONSUMER: u8 = 2;
const AGREEMENT: u8 = 10;
const RECEIPT: u8 = 20;
/// The organization key that takes the place of the first one's.
const SUCCESSOR: u8 = 3;
const ENCRYPTION: u8 = 30;

fn signing(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn public(seed: u8) -> PublicKey {
    signing(seed).public()
}

fn time(seconds: u64) -> Timestamp {
    Timestamp(1_767_323_045_678_901 + seconds * 1_000_000)
}

fn party(seed: u8, name: &str) -> Party {
    Party {
        authority: Authority::of_key(&public(seed)),
        name: name.to_owned(),
        organization: public(seed),
    }
}

fn stream() -> Origin {
    Origin::of_stream(
        &Authority::of_key(&public(PRODUCER)),
        &"orders".parse().unwrap(),
    )
}

pub(crate) fn key_statement() -> KeyStatement {
    let key = |role, seed, until| RoleKey {
        role,
        key: public(seed),
        from: time(0),
        until,
    };
    KeyStatement {
        authority: Authority::of_key(&public(PRODUCER)),
        name: "Producer é".to_owned(),
        organization: public(PRODUCER),
        number: 1,
        made: time(0),
        keys: vec![
            key(Role::Agreement, PRODUCER + AGREEMENT, None),
            key(Role::Log, 31, Some(Timestamp(1_800_000_000_000_000))),
        ],
        succession: Vec::new(),
    }
}

fn key_succession() -> KeySuccession {
    KeySuccession {
        authority: Authority::of_key(&public(PRODUCER)),
        from: public(PRODUCER),
        to: public(SUCCESSOR),
        made: time(7),
    }
}

/// Under the organization key that took the first one's place.
fn second_statement() -> KeyStatement {
    KeyStatement {
        organization: public(SUCCESSOR),
        number: 2,
        made: time(7),
        succession: vec![key_succession().sign_with(&signing(PRODUCER), &signing(SUCCESSOR))],
        ..key_statement()
    }
}

fn key_revocation() -> KeyRevocation {
    let other = Origin::of_stream(
        &Authority::of_key(&public(PRODUCER)),
        &"empty".parse().unwrap(),
    );
    let head = |origin, size, root| RevokedHead { origin, size, root };
    KeyRevocation {
        authority: Authority::of_key(&public(PRODUCER)),
        organization: public(PRODUCER),
        key: public(31),
        role: Role::Log,
        reason: "the machine was lost".to_owned(),
        made: time(6),
        heads: vec![
            head(other, 0, Digest(sha256(&[]))),
            head(stream(), 12, Digest([7; 32])),
        ],
        succession: Vec::new(),
    }
}

fn offer() -> Offer {
    Offer {
        inviter: Side::Producer,
        organization: party(PRODUCER, "Producer é"),
        stream: "orders".parse().unwrap(),
        title: Some("What was ordered".to_owned()),
        plan: Plan {
            name: "default".to_owned(),
            exposure_events: 1000,
            erasure: Erasure::Ask,
            ..Plan::default()
        },
        made: time(0),
        until: Some(Timestamp(1_800_000_000_000_000)),
        expires: Timestamp(1_767_409_445_000_000),
        confirm: true,
    }
}

/// With every limit.
fn metered_plan() -> Plan {
    Plan {
        name: "metered".to_owned(),
        rate: Some(Rate {
            events_per_second: 500.try_into().unwrap(),
            burst_events: Some(2_000.try_into().unwrap()),
        }),
        quota: Some(Quota {
            period: Period::Month,
            events: Some(1_000_000),
            bytes: Some(1 << 30),
        }),
        history: Some(History {
            events: Some(10_000),
            seconds: Some(604_800),
        }),
        ..offer().plan
    }
}

fn from_now_on() -> Plan {
    Plan {
        rate: Some(Rate {
            events_per_second: 1.try_into().unwrap(),
            burst_events: None,
        }),
        quota: Some(Quota {
            period: Period::Seconds(3600.try_into().unwrap()),
            events: None,
            bytes: Some(1),
        }),
        history: Some(History {
            events: Some(0),
            seconds: None,
        }),
        ..offer().plan
    }
}

#[test]
fn plans_have_their_golden_text_and_digest() {
    let vector = |plan: Plan| {
        let text = plan.to_text();
        let parsed: Value = serde_json::from_str(&text).unwrap();
        let plans = json!({ "plans": [parsed] });
        assert_eq!(Schema::load("plans").check(&plans), Ok(()));
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
        json!({ "text": text, "digest": hex::encode(plan.digest()) })
    };
    let plans = [Plan::default(), metered_plan(), from_now_on()];
    let plans: Vec<Value> = plans.into_iter().map(vector).collect();
    check("plan.json", &json!({ "plans": plans }));
}

fn agreement() -> Agreement {
    let id = Offer::agreement_id(&[5; 16], &public(CONSUMER));
    offer().agreement(id, &party(CONSUMER, "Consumer"))
}

pub(crate) fn receipt() -> Receipt {
    Receipt {
        agreement: agreement().id,
        stream: stream(),
        consumer: Authority::of_key(&public(CONSUMER)),
        series: SeriesId([6; 16]),
        number: 1,
        previous: None,
        start: 0,
        filter: None,
        size: 12,
        root: Digest([7; 32]),
        events: 10,
        bytes: 12_345,
        level: Level::Verified,
        applied: 3,
        rejected: Rejections::default(),
        made: time(2),
    }
}

fn second_receipt() -> Receipt {
    Receipt {
        number: 2,
        previous: Some(Digest(sha256(&receipt().to_payload()))),
        filter: Some(Digest([8; 32])),
        size: u64::MAX,
        rejected: Rejections {
            count: 1,
            digest: Digest([9; 32]),
        },
        level: Level::Applied,
        ..receipt()
    }
}

fn rejection() -> Rejection {
    Rejection {
        agreement: agreement().id,
        stream: stream(),
        sequence: 7,
        leaf: Digest([10; 32]),
        reason: "no such \"customer\"".to_owned(),
        made: time(3),
    }
}

fn refusal() -> Refusal {
    Refusal {
        asked: "subscribe".to_owned(),
        principal: Some(Authority::of_key(&public(CONSUMER))),
        about: stream().to_string(),
        code: RefusalCode::NotPermitted,
        reason: "no policy permits it".to_owned(),
        policies: vec!["partners.read".to_owned()],
        advice: vec!["ask for an agreement".to_owned()],
        position: Some(11),
        made: time(4),
    }
}

fn skip_claim() -> SkipClaim {
    SkipClaim {
        agreement: agreement().id,
        stream: stream(),
        consumer: Authority::of_key(&public(CONSUMER)),
        filter: Digest([21; 32]),
        from: 5,
        size: 12,
        root: Digest([22; 32]),
        skipped: 4,
        runs: SkipClaim::digest_of(&[(5, 8), (10, 11)]),
        made: time(5),
    }
}

fn termination() -> Termination {
    Termination {
        agreement: agreement().id,
        stream: stream(),
        by: Authority::of_key(&public(PRODUCER)),
        reason: "the period is over".to_owned(),
        position: Some(12),
        made: time(5),
    }
}

fn proposal() -> Proposal {
    Proposal {
        agreement: AgreementId([12; 16]),
        round: 1,
        answers: None,
        by: Authority::of_key(&public(CONSUMER)),
        producer: party(PRODUCER, "Producer é"),
        consumer: party(CONSUMER, "Consumer"),
        stream: stream(),
        plan: metered_plan(),
        from: None,
        until: None,
        supersedes: None,
        purpose: Some("billing".to_owned()),
        valid_until: time(600),
        made: time(20),
    }
}

fn counter() -> Proposal {
    Proposal {
        round: 2,
        answers: Some(proposal().digest()),
        by: Authority::of_key(&public(PRODUCER)),
        plan: from_now_on(),
        from: Some(time(100)),
        until: Some(time(1_000)),
        supersedes: Some(Digest(sha256(&agreement().to_payload()))),
        purpose: None,
        made: time(21),
        ..proposal()
    }
}

/// Takes the counter-proposal.
fn negotiated() -> Agreement {
    counter().agreement(counter().digest(), time(22))
}

fn step(step: StepKind) -> Step {
    let agreed = Digest(sha256(&negotiated().to_payload()));
    Step {
        agreement: negotiated().id,
        stream: stream(),
        step,
        on: agreed,
        by: Authority::of_key(&public(PRODUCER)),
        cause: None,
        reason: "as was said".to_owned(),
        position: None,
        made: time(30),
    }
}

fn steps() -> [Step; 5] {
    let suspended = Step {
        cause: Some(SuspensionCause::KeyRevoked),
        position: Some(12),
        ..step(StepKind::Suspend)
    };
    let resumed = Step {
        on: Digest(sha256(&suspended.to_payload())),
        made: time(31),
        ..step(StepKind::Resume)
    };
    let refused = Step {
        on: proposal().digest(),
        ..step(StepKind::Refuse)
    };
    let withdrawn = Step {
        on: counter().digest(),
        ..step(StepKind::Withdraw)
    };
    let completed = Step {
        position: Some(u64::MAX),
        ..step(StepKind::Complete)
    };
    [suspended, resumed, refused, withdrawn, completed]
}

fn erasure_request() -> ErasureRequest {
    ErasureRequest {
        id: ErasureId([11; 16]),
        agreement: agreement().id,
        stream: stream(),
        sequence: 7,
        tombstone: 13,
        by: Authority::of_key(&public(PRODUCER)),
        reason: "the person asked for it".to_owned(),
        made: time(6),
    }
}

fn erasure_answer() -> ErasureAnswer {
    ErasureAnswer {
        request: ErasureId([11; 16]),
        digest: Digest(sha256(&erasure_request().to_payload())),
        stream: stream(),
        sequence: 7,
        by: Authority::of_key(&public(CONSUMER)),
        outcome: Outcome::Done,
        reason: "the agreement says so".to_owned(),
        made: time(7),
    }
}

fn key_wrap() -> KeyWrap {
    let stream = stream();
    let mut entropy = SeededEntropy::new(18);
    let epoch_key = EpochKey::generate(&mut entropy);
    let to = public(CONSUMER + ENCRYPTION);
    KeyWrap {
        epoch: 3,
        commitment: Digest(epoch_key.commitment(stream.as_str(), 3)),
        by: Authority::of_key(&public(PRODUCER)),
        to: Authority::of_key(&public(CONSUMER)),
        wrapped: epoch_key
            .wrap(&to, stream.as_str(), 3, &mut entropy)
            .unwrap(),
        made: time(8),
        stream,
    }
}

/// The fields of one signed document, after it has been read back from its own text.
fn signed<D: Document + PartialEq + std::fmt::Debug>(
    kind: &str,
    document: &D,
    seeds: &[u8],
) -> Value {
    let (first, others) = seeds.split_first().unwrap();
    let mut envelope = document.sign(&signing(*first));
    for other in others {
        envelope.add_signature(&signing(*other));
    }
    let text = String::from_utf8(envelope.to_json()).unwrap();
    let read = Envelope::from_json(text.as_bytes()).unwrap();
    for seed in seeds {
        assert_eq!(&D::open(&read, &public(*seed)).unwrap(), document);
    }
    let payload = String::from_utf8(document.to_payload()).unwrap();
    let parsed: Value = serde_json::from_str(&payload).unwrap();
    assert_eq!(Schema::load(kind).check(&parsed), Ok(()));
    let signer = |seed: &u8| json!({"seed": hex::encode([*seed; 32]), "key": public(*seed).to_base64(), "keyid": public(*seed).fingerprint().as_str()});
    json!({
        "payload_type": D::PAYLOAD_TYPE,
        "payload": payload,
        "payload_digest": hex::encode(read.payload_digest()),
        "signers": seeds.iter().map(signer).collect::<Vec<_>>(),
        "envelope": text,
    })
}

fn check(file: &str, recomputed: &Value) {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/vectors/documents/v1"
    );
    let path = Path::new(folder).join(file);
    if !path.exists() && std::env::var_os("COUNTERSIGN_WRITE_VECTORS").is_some() {
        std::fs::create_dir_all(folder).unwrap();
        let text = serde_json::to_string_pretty(recomputed).unwrap() + "\n";
        std::fs::write(&path, text).unwrap();
    }
    let stored: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(comparable(&stored) == comparable(recomputed), "{file}");
}

/// Invalid envelopes are made by way of JSON values, whose members come in another order where some crate of the build switches on
/// serde_json's `preserve_order`: envelopes are compared by value.
fn comparable(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(comparable).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| {
                let parsed = member
                    .as_str()
                    .filter(|_| name == "envelope")
                    .and_then(|text| serde_json::from_str(text).ok());
                (name.clone(), parsed.unwrap_or_else(|| comparable(member)))
            })
            .collect(),
        other => other.clone(),
    }
}

#[test]
fn documents_of_every_kind_have_their_golden_bytes() {
    let (producer, consumer) = (PRODUCER + AGREEMENT, CONSUMER + AGREEMENT);
    let receiver = CONSUMER + RECEIPT;
    let few = Refusal {
        principal: None,
        policies: Vec::new(),
        advice: Vec::new(),
        position: None,
        ..refusal()
    };
    let open_end = Agreement {
        until: None,
        ..agreement()
    };
    let by_consumer = Termination {
        by: Authority::of_key(&public(CONSUMER)),
        position: None,
        ..termination()
    };
    check(
        "key-statement.json",
        &json!([signed("key-statement", &key_statement(), &[PRODUCER])]),
    );
    check(
        "key-succession.json",
        &json!([
            signed("key-succession", &key_succession(), &[PRODUCER, SUCCESSOR]),
            signed("key-statement", &second_statement(), &[SUCCESSOR, PRODUCER]),
        ]),
    );
    let of_receipts = KeyRevocation {
        key: public(PRODUCER + RECEIPT),
        role: Role::Receipt,
        heads: Vec::new(),
        ..key_revocation()
    };
    check(
        "key-revocation.json",
        &json!([
            signed("key-revocation", &key_revocation(), &[PRODUCER]),
            signed("key-revocation", &of_receipts, &[PRODUCER]),
        ]),
    );
    check(
        "agreement.json",
        &json!([
            signed("agreement", &agreement(), &[consumer, producer]),
            signed("agreement", &open_end, &[consumer]),
        ]),
    );
    let metered = |plan: Plan| Agreement {
        plan,
        ..agreement()
    };
    check(
        "agreement-plans.json",
        &json!([
            signed("agreement", &metered(metered_plan()), &[consumer, producer]),
            signed("agreement", &metered(from_now_on()), &[consumer, producer]),
        ]),
    );
    check(
        "proposal.json",
        &json!([
            signed("proposal", &proposal(), &[consumer]),
            signed("proposal", &counter(), &[producer]),
        ]),
    );
    check(
        "agreement-negotiated.json",
        &json!([
            signed("agreement", &negotiated(), &[consumer]),
            signed("agreement", &negotiated(), &[consumer, producer]),
        ]),
    );
    check(
        "step.json",
        &steps()
            .iter()
            .map(|step| signed("step", step, &[producer]))
            .collect(),
    );
    check(
        "receipt.json",
        &json!([
            signed("receipt", &receipt(), &[receiver]),
            signed("receipt", &second_receipt(), &[receiver]),
        ]),
    );
    check(
        "rejection.json",
        &json!([signed("rejection", &rejection(), &[receiver])]),
    );
    check(
        "refusal.json",
        &json!([
            signed("refusal", &refusal(), &[producer]),
            signed("refusal", &few, &[producer])
        ]),
    );
    check(
        "skip-claim.json",
        &json!([signed("skip-claim", &skip_claim(), &[producer])]),
    );
    check(
        "termination.json",
        &json!([
            signed("termination", &termination(), &[producer]),
            signed("termination", &by_consumer, &[consumer]),
        ]),
    );
    let held = ErasureAnswer {
        outcome: Outcome::Held,
        reason: "a legal hold".to_owned(),
        ..erasure_answer()
    };
    let refused = ErasureAnswer {
        outcome: Outcome::Refused,
        ..erasure_answer()
    };
    check(
        "erasure-request.json",
        &json!([signed("erasure-request", &erasure_request(), &[producer])]),
    );
    check(
        "key-wrap.json",
        &json!([signed("key-wrap", &key_wrap(), &[producer])]),
    );
    check(
        "erasure-answer.json",
        &json!([
            signed("erasure-answer", &erasure_answer(), &[consumer]),
            signed("erasure-answer", &held, &[consumer]),
            signed("erasure-answer", &refused, &[consumer]),
        ]),
    );
}

#[test]
fn a_key_revocation_names_heads_of_its_own_logs_once_and_only_for_log_keys() {
    let verify = |revocation: &KeyRevocation| {
        KeyRevocation::verify(&revocation.sign_with(&signing(PRODUCER))).map(|_| ())
    };
    let good = key_revocation();
    assert_eq!(verify(&good), Ok(()));
    assert_eq!(good.head(&stream()), Some(&good.heads[1]));
    let by_another = KeyRevocation::verify(&good.sign_with(&signing(CONSUMER)));
    assert!(matches!(by_another, Err(RevocationError::Document(_))));
    let foreign = KeyRevocation {
        authority: Authority::of_key(&public(CONSUMER)),
        ..good.clone()
    };
    assert!(matches!(
        verify(&foreign),
        Err(RevocationError::Succession(_))
    ));
    let with = |heads: Vec<RevokedHead>| {
        verify(&KeyRevocation {
            heads,
            ..good.clone()
        })
    };
    let head = good.heads[1].clone();
    assert_eq!(
        with(vec![head.clone(), head.clone()]),
        Err(RevocationError::Heads)
    );
    let elsewhere = Origin::of_stream(
        &Authority::of_key(&public(CONSUMER)),
        &"orders".parse().unwrap(),
    );
    let elsewhere = RevokedHead {
        origin: elsewhere,
        ..head.clone()
    };
    assert_eq!(with(vec![elsewhere]), Err(RevocationError::Heads));
    let empty = RevokedHead { size: 0, ..head };
    assert!(matches!(
        with(vec![empty]),
        Err(RevocationError::EmptyRoot { .. })
    ));
    let of_receipts = KeyRevocation {
        role: Role::Receipt,
        ..good.clone()
    };
    assert_eq!(verify(&of_receipts), Err(RevocationError::Heads));
}

#[test]
fn an_offer_has_its_golden_text_and_agreement() {
    let (full, text) = (offer(), offer().to_text());
    assert_eq!(Offer::from_text(&text), Some(full));
    let parsed: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(Schema::load("offer").check(&parsed), Ok(()));
    let id: AgreementId = agreement().id;
    check(
        "offer.json",
        &json!({
            "text": text,
            "digest": hex::encode(Offer::digest(&text)),
            "invitation": hex::encode([5; 16]),
            "joiner": public(CONSUMER).to_base64(),
            "agreement_id": id.to_string(),
            "agreement_payload": String::from_utf8(agreement().to_payload()).unwrap(),
        }),
    );
}

#[test]
fn what_is_not_signed_as_it_should_be_is_refused_like_before() {
    let receiver = CONSUMER + RECEIPT;
    let good = receipt().sign(&signing(receiver)).to_json();
    let good = String::from_utf8(good).unwrap();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut envelope: Value = serde_json::from_str(&good).unwrap();
        change(&mut envelope);
        envelope.to_string()
    };
    let resigned = |payload: &str| {
        let envelope = Envelope::sign(Receipt::PAYLOAD_TYPE, payload.into(), &signing(receiver));
        String::from_utf8(envelope.to_json()).unwrap()
    };
    let payload = String::from_utf8(receipt().to_payload()).unwrap();
    let signed_by = |seeds: &[u8]| {
        let mut envelope = receipt().sign(&signing(seeds[0]));
        seeds
            .iter()
            .for_each(|seed| envelope.add_signature(&signing(*seed)));
        String::from_utf8(envelope.to_json()).unwrap()
    };
    let unsigned = |from: &str, to: &str| {
        let altered = STANDARD.encode(payload.replacen(from, to, 1));
        with(&|envelope| envelope["payload"] = json!(altered))
    };
    let cases: Vec<(&str, String)> = vec![
        ("wrong key", signed_by(&[CONSUMER])),
        (
            "two signatures, neither of the wanted key",
            signed_by(&[CONSUMER, PRODUCER]),
        ),
        ("five signatures", signed_by(&[receiver, 1, 2, 3, 4])),
        (
            "no signature",
            with(&|envelope| envelope["signatures"] = json!([])),
        ),
        (
            "altered payload",
            unsigned("\"events\":10", "\"events\":11"),
        ),
        ("payload with a space more", unsigned("{", "{ ")),
        (
            "another payload type",
            with(&|envelope| envelope["payloadType"] = json!(Rejection::PAYLOAD_TYPE)),
        ),
        (
            "signature cut",
            with(&|envelope| envelope["signatures"][0]["sig"] = json!(STANDARD.encode([0; 63]))),
        ),
        (
            "payload in base64url",
            with(&|envelope| envelope["payload"] = json!("_w==")),
        ),
        (
            "payload without padding",
            with(&|envelope| envelope["payload"] = json!("e30")),
        ),
        (
            "unknown member of the envelope",
            with(&|envelope| envelope["more"] = json!(1)),
        ),
        (
            "unknown member of the payload",
            resigned(&payload.replacen('{', "{\"more\":1,", 1)),
        ),
        (
            "missing member of the payload",
            resigned(&payload.replacen("\"number\":1,", "", 1)),
        ),
        (
            "member of the payload twice",
            resigned(&payload.replacen('{', "{\"number\":1,", 1)),
        ),
        (
            "member of another type",
            resigned(&payload.replacen("\"number\":1,", "\"number\":\"1\",", 1)),
        ),
        ("payload that is no JSON", resigned("receipt")),
        ("envelope cut", good[..good.len() - 1].to_owned()),
    ];
    let refused = |text: &[u8]| match Envelope::from_json(text) {
        Ok(envelope) => Receipt::open(&envelope, &public(receiver))
            .unwrap_err()
            .to_string(),
        Err(error) => error.to_string(),
    };
    let mut list: Vec<Value> = cases
        .iter()
        .map(|(name, text)| json!({"name": name, "envelope": text, "error": refused(text.as_bytes())}))
        .collect();
    // Too large by spaces after it: kept as a number, to keep the file small.
    let largest = good.clone() + &" ".repeat(ENVELOPE_BYTES_MAX - good.len());
    assert!(Envelope::from_json(largest.as_bytes()).is_ok());
    let (bytes, text) = (ENVELOPE_BYTES_MAX + 1, format!("{largest} "));
    list.push(json!({
        "name": "too large", "envelope": good, "padded_with_spaces_to_bytes": bytes, "error": refused(text.as_bytes()),
    }));
    check(
        "invalid.json",
        &json!({"payload_type": Receipt::PAYLOAD_TYPE, "key": public(receiver).to_base64(), "invalid": list}),
    );
}
