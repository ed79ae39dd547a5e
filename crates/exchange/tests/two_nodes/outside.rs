//! Witnesses that are no partners.

use std::time::Duration;

use countersign_crypto::SigningKey;
use countersign_exchange::{
    ADD_CHECKPOINTS_MAX, OutsideWitness, Said, Submission, WitnessId, WitnessSettings,
};
use countersign_tlog::add_checkpoint::AddCheckpoint;
use countersign_tlog::{Algorithm, Note, Vkey, cosignature_v1};

use super::support::{Node, NodeOptions, partners_with};

const STREAM: &str = "orders";

fn key() -> SigningKey {
    SigningKey::from_seed(&[77; 32])
}

fn vkey(name: &str, key: &SigningKey) -> Vkey {
    Vkey::new(name, Algorithm::CosignatureV1, key.public()).unwrap()
}

/// A node with an outside witness, and a partner that reads its stream; two lines make a quorum.
async fn with_outside(seed: u64, streams: &str) -> (Node, Node) {
    let witness = format!("{} https://w.example {streams}", vkey("w.example", &key()));
    let witness: OutsideWitness = witness.parse().unwrap();
    let options = NodeOptions {
        witness: WitnessSettings {
            quorum: 2,
            outside: vec![witness],
            ..WitnessSettings::default()
        },
        ..NodeOptions::default()
    };
    let (producer, partner, _) = partners_with(seed, STREAM, 1000, options).await;
    producer.publish(STREAM, 1, 5).await.unwrap();
    (producer, partner)
}

fn due(producer: &Node, id: &WitnessId) -> Vec<Submission> {
    let mut shown = producer.exchange.shown_to(id);
    shown.retain(|log| log.is_own_stream());
    producer
        .exchange
        .submissions(id, &shown, ADD_CHECKPOINTS_MAX)
}

fn line(due: &[Submission], name: &str, key: &SigningKey) -> Said {
    line_of(due, name, key, 5)
}

fn line_of(due: &[Submission], name: &str, key: &SigningKey, time: u64) -> Said {
    let request = AddCheckpoint::parse(due[0].body.as_bytes()).unwrap();
    let note = Note::parse(request.checkpoint.as_bytes()).unwrap();
    let line = cosignature_v1::sign(note.text(), name, key, time).unwrap();
    Said {
        status: 200,
        body: line.encode().into_bytes(),
    }
}

fn outside() -> WitnessId {
    WitnessId::Outside("w.example".to_owned())
}

/// The signed bytes do not hold the name: a partner that hands on an outside witness's line, under whatever name, is no second witness.
#[tokio::test]
async fn one_key_counts_once_whoever_shows_it() {
    let (producer, partner) = with_outside(80, "").await;
    let take = async |id: &WitnessId, vkey: &Vkey, due: &[Submission], said: Said| {
        let vkey = vkey.to_string();
        let said = [said];
        let taken = producer.exchange.take_cosignatures(id, &vkey, due, &said);
        taken.await.unwrap();
    };
    let (name, log) = ("w.example", producer.log(STREAM));
    let asked = due(&producer, &outside());
    take(
        &outside(),
        &vkey(name, &key()),
        &asked,
        line(&asked, name, &key()),
    )
    .await;
    let id = WitnessId::Partner(partner.authority().clone());
    for (name, key) in [
        ("night-heron", key()),
        ("w.example", SigningKey::from_seed(&[1; 32])),
        ("w.example", key()),
    ] {
        producer.clock.advance(Duration::from_secs(120));
        let asked = due(&producer, &id);
        if asked.is_empty() {
            // It has cosigned, as far as it is concerned; there is something new to cosign.
            producer.publish(STREAM, log.size(), 1).await.unwrap();
            producer.clock.advance(Duration::from_secs(120));
            let again = due(&producer, &outside());
            take(
                &outside(),
                &vkey("w.example", &self::key()),
                &again,
                line(&again, "w.example", &self::key()),
            )
            .await;
        }
        let asked = if asked.is_empty() {
            due(&producer, &id)
        } else {
            asked
        };
        assert_eq!(asked.len(), 1, "{name}");
        take(&id, &vkey(name, &key), &asked, line(&asked, name, &key)).await;
        assert_eq!(log.witnessed(), None, "{name}");
    }
    let standings = producer.exchange.witness_standings();
    assert_eq!(standings.len(), 2);
    // A key of its own does count.
    producer.publish(STREAM, log.size(), 1).await.unwrap();
    producer.clock.advance(Duration::from_secs(120));
    let asked = due(&producer, &outside());
    take(
        &outside(),
        &vkey(name, &key()),
        &asked,
        line(&asked, name, &key()),
    )
    .await;
    let asked = due(&producer, &id);
    let own = SigningKey::from_seed(&[2; 32]);
    take(
        &id,
        &vkey("night-heron", &own),
        &asked,
        line(&asked, "night-heron", &own),
    )
    .await;
    assert_eq!(log.witnessed().unwrap().size, log.size());
}

/// A witness is shown the streams that are named for it.
#[tokio::test]
async fn an_outside_witness_sees_what_it_is_to_see() {
    let (producer, _partner) = with_outside(81, "quakes").await;
    assert_eq!(due(&producer, &outside()), []);
    producer.create("quakes").await;
    let asked = due(&producer, &outside());
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].origin, producer.origin("quakes"));
    let unknown = WitnessId::Outside("x.example".to_owned());
    assert_eq!(due(&producer, &unknown), []);
}

/// What a witness said once does not tell what it knows now: an old line, which anybody may have kept, releases no stream.
#[tokio::test]
async fn a_frozen_stream_waits_for_a_line_of_now() {
    let (producer, _partner) = with_outside(82, "").await;
    producer.exchange.freeze_streams();
    let waits = || {
        let why = producer.exchange.why_frozen(&producer.log(STREAM));
        why.is_some_and(|why| why.contains("w.example"))
    };
    let (witness, vkey) = (outside(), vkey("w.example", &key()).to_string());
    for (age, released) in [(100_000, false), (61, false), (60, true)] {
        assert!(waits(), "{age}");
        let asked = due(&producer, &outside());
        assert_eq!(asked.len(), 1, "{age}: it is asked again");
        let now = producer.exchange.clock().now().0 / 1_000_000;
        let said = [line_of(&asked, "w.example", &key(), now - age)];
        let taken = producer
            .exchange
            .take_cosignatures(&witness, &vkey, &asked, &said);
        taken.await.unwrap();
        assert_eq!(waits(), !released, "{age}");
        let standings = producer.exchange.witness_standings();
        let told = standings.iter().any(|one| one.trouble.contains("https://"));
        assert_eq!(told, !released, "{age}");
        producer.clock.advance(Duration::from_secs(120));
    }
}
