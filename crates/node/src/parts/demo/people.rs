//! Who meets whom: introductions, the invitation, the refusal.

use std::sync::Arc;

use countersign_client::SessionError;
use countersign_client::error::RefusedBy;
use countersign_client::session::{Expected, Session, SessionOptions};
use countersign_event::documents::{Agreement, AgreementId, Refusal, RefusalCode, Role};
use countersign_protocol::{StartAt, Subscribe, SubscribeReady};
use serde_json::{Value, json};

use super::cast::{Actor, Cast};
use super::exchange::{Published, STREAM};
use super::teller::Teller;
use super::{broken, ensure};
use crate::admin::{Accept, Command, PolicyQuestion};
use crate::commands::{internal, session_error};
use crate::errors::CommandError;

/// Seconds that the invitation is good for.
const INVITATION_S: u64 = 7 * 24 * 3600;

/// Says who is who.
pub(super) fn introduce(cast: &Cast, teller: &mut Teller<'_>) -> Result<Value, CommandError> {
    let organizations = [
        (
            "producer",
            cast.producer.name(),
            cast.producer.fingerprint(),
        ),
        ("partner", cast.partner.name(), cast.partner.fingerprint()),
        (
            "stranger",
            &cast.stranger.report.organization,
            &cast.stranger.report.fingerprint,
        ),
    ];
    teller.say(
        "Each organization has made keys of its own. Nobody issues accounts: a fingerprint is all \
         that has to be compared, once, by another way.",
    )?;
    for (_, name, fingerprint) in organizations {
        teller.row(&format!("{name:<18}{fingerprint}"))?;
    }
    teller.row(&format!(
        "{:<18}no keys, no node, only files",
        "The auditor"
    ))?;
    teller.call(cast.producer.authority().as_str(), cast.producer.name());
    teller.call(cast.partner.authority().as_str(), cast.partner.name());
    teller.call(
        cast.stranger.report.authority.as_str(),
        &cast.stranger.report.organization,
    );
    let listed = organizations.map(|(role, name, fingerprint)| json!({ "role": role, "name": name, "fingerprint": fingerprint }));
    Ok(
        json!({ "organizations": listed, "producer_address": cast.producer.address(), "partner_address": cast.partner.address() }),
    )
}

/// The producer invites, the partner reads the terms and accepts: one agreement under two signatures.
pub(super) async fn join(cast: &Cast, teller: &mut Teller<'_>) -> Result<Value, CommandError> {
    let invite = Command::PartnerInvite {
        stream: STREAM.to_owned(),
        consume: false,
        expires_s: INVITATION_S,
        period_s: None,
        for_key: None,
        confirm: false,
        plan: None,
        exposure_events: None,
        fields: None,
        obey: None,
    };
    let invitation = cast.producer.call(&invite).await?;
    let link = text(&invitation, "link")?;
    let shown: String = link.chars().take(60).collect();
    teller.fact(
        "link",
        &format!("{shown}… ({} characters, single use)", link.len()),
    )?;

    let terms = cast
        .partner
        .call(&Command::PartnerTerms { link: link.clone() })
        .await?;
    let payload_sha256 = text(&terms, "payload_sha256")?;
    teller.fact(
        "terms",
        &format!(
            "{} may read `{}` of {}, until {}; plan `{}`: at most {} events ahead of the last receipt, erasure: {}",
            text(&terms, "consumer")?,
            STREAM,
            text(&terms, "producer")?,
            terms["until"].as_str().unwrap_or("one of them ends it"),
            text(&terms, "plan")?,
            terms["exposure_events"],
            text(&terms, "erasure")?,
        ),
    )?;
    let accept = Accept {
        payload_sha256: payload_sha256.clone(),
    };
    let joined = cast
        .partner
        .call(&Command::PartnerJoin { link, accept })
        .await?;
    let id = text(&joined, "agreement")?;
    let sides = [
        signatures(&cast.producer, cast, &id)?,
        signatures(&cast.partner, cast, &id)?,
    ];
    ensure(
        sides[0].0 == sides[1].0,
        "the two sides hold different agreements",
    )?;
    ensure(
        hex::encode(sides[0].0) == payload_sha256,
        "the agreement signed is another than the terms shown",
    )?;
    teller.fact("agreement", &id)?;
    teller.proof(&format!(
        "one payload, both signatures, the same on both sides: sha256 {}…",
        &payload_sha256[..16]
    ))?;
    let keyids = &sides[0].1;
    for (actor, keyid) in [&cast.producer, &cast.partner].into_iter().zip(keyids) {
        teller.row(&format!(
            "{:<18}signed by {}…",
            actor.name(),
            &keyid[..20.min(keyid.len())]
        ))?;
    }
    Ok(json!({
        "terms": terms,
        "agreement": id,
        "payload_sha256": payload_sha256,
        "signatures": { "producer": keyids[0], "partner": keyids[1] },
        "subscription": joined["stream"],
    }))
}

/// The agreement as one side holds it: its payload's digest and the keys that signed, the producer's first; each signature is verified here.
fn signatures(
    holder: &Actor,
    cast: &Cast,
    id: &str,
) -> Result<([u8; 32], [String; 2]), CommandError> {
    let id: AgreementId = id.parse().map_err(internal)?;
    let state = holder.exchange.registry().agreements.get(&id).cloned();
    let envelope = state
        .ok_or_else(|| {
            broken(format_args!(
                "{} does not hold the agreement",
                holder.name()
            ))
        })?
        .envelope;
    let mut keys = [const { String::new() }; 2];
    for (actor, key) in [&cast.producer, &cast.partner].into_iter().zip(&mut keys) {
        let identity = actor.exchange.identity();
        identity
            .statement
            .open_signed::<Agreement>(Role::Agreement, &envelope)
            .map_err(|error| {
                broken(format_args!(
                    "the signature of {} does not hold: {error}",
                    actor.name()
                ))
            })?;
        *key = identity.agreement_key.public().fingerprint().to_string();
    }
    Ok((envelope.payload_digest(), keys))
}

/// The stranger knows the stream's name, dials, and asks under an agreement that there is not.
pub(super) async fn refuse(
    cast: &Cast,
    published: &Published,
    teller: &mut Teller<'_>,
) -> Result<Value, CommandError> {
    let stranger = &cast.stranger;
    let before = cast.producer.exchange.refused_strangers();
    let clock = Arc::clone(cast.partner.exchange.clock());
    let mut options = SessionOptions::new(
        vec![cast.producer.address()],
        Expected::organization(cast.producer.fingerprint().clone()),
        stranger.keys.node.clone(),
        Arc::new(move || clock.now()),
    );
    options.statement = Some(stranger.keys.envelope.clone());
    teller.say(
        "The stream is labelled `listed`, and a policy lets everybody discover such streams. Reading takes an agreement; \
         Curious Corp has none and makes one up.",
    )?;
    let session = Session::connect(&options)
        .await
        .map_err(|error| session_error(&error))?;
    let request = Subscribe {
        agreement: [0; 16],
        stream: published.origin.to_string(),
        start: StartAt::Sequence(0),
        newest_size: 0,
        series: [0; 16],
        purpose: String::new(),
    };
    let answer = async {
        let mut stream = session.request(&request).await?;
        stream
            .answer::<SubscribeReady>("the answer to the subscription")
            .await
    };
    let refused = refusal_of(answer.await)?;
    ensure(
        refused.known_code() == Some(RefusalCode::NotPermitted),
        "the refusal has another code than not-permitted",
    )?;
    let document = refused
        .document
        .as_ref()
        .ok_or_else(|| broken("the refusal is not signed"))?;
    let signer = &session.peer().statement;
    let signed: Refusal = signer
        .open_signed(Role::Agreement, document)
        .map_err(|error| {
            broken(format_args!(
                "the refusal's signature does not hold: {error}"
            ))
        })?;
    session.close().await;

    // The reason repeats the advice for those who see nothing else.
    let reason = signed
        .reason
        .split("; what would help")
        .next()
        .unwrap_or_default();
    teller.refusal(&format!("{}: {reason}", refused.code))?;
    let discover = explained(&cast.producer, "discover").await?;
    let read = explained(&cast.producer, "read").await?;
    ensure(
        discover["allowed"] == true && read["allowed"] == false,
        "the producer explains the decision otherwise",
    )?;
    teller.fact(
        "policies",
        &format!("discover: {}; read: {}", by(&discover), by(&read)),
    )?;
    for (label, advice) in std::iter::once("advice")
        .chain(std::iter::repeat(""))
        .zip(&signed.advice)
    {
        teller.fact(label, advice)?;
    }
    teller.proof(&format!(
        "a signed document: {} can show it to anybody, {} stands by it",
        stranger.report.organization,
        cast.producer.name()
    ))?;

    let status = cast.producer.call(&Command::Status).await?;
    let counted = status["strangers_refused"].as_u64().unwrap_or_default();
    ensure(
        counted == before + 1,
        "the producer did not count the refusal",
    )?;
    teller.fact(
        "record",
        &format!("{} counts refused strangers, {counted} so far: a log of each would let them fill its disk", cast.producer.name()),
    )?;
    Ok(json!({
        "code": refused.code,
        "reason": signed.reason,
        "policies": signed.policies,
        "advice": signed.advice,
        "discover": discover["because"],
        "read": read["because"],
        "signed_by": document.signatures().iter().map(|signature| &signature.keyid).collect::<Vec<_>>(),
        "signature_verified": true,
        "strangers_refused": counted,
    }))
}

/// What the producer's policies say of any stranger.
async fn explained(producer: &Actor, action: &str) -> Result<Value, CommandError> {
    let question = PolicyQuestion {
        action: action.to_owned(),
        principal: "stranger".to_owned(),
        stream: STREAM.to_owned(),
        ..PolicyQuestion::default()
    };
    let explain = Command::PolicyExplain { question };
    producer.call(&explain).await
}

fn by(decision: &Value) -> String {
    let policies = decision["policies"].as_array().into_iter().flatten();
    let policies: Vec<&str> = policies.filter_map(Value::as_str).collect();
    if policies.is_empty() {
        "no policy permits it".to_owned()
    } else {
        format!("permitted by {}", policies.join(", "))
    }
}

fn refusal_of<T>(answer: Result<T, SessionError>) -> Result<Box<RefusedBy>, CommandError> {
    match answer {
        Ok(_) => Err(broken("the stranger was let in")),
        Err(SessionError::Refused(refused)) => Ok(refused),
        Err(error) => Err(session_error(&error)),
    }
}

fn text(value: &Value, member: &str) -> Result<String, CommandError> {
    let text = value[member].as_str().map(str::to_owned);
    text.ok_or_else(|| broken(format_args!("the answer lacks `{member}`")))
}
