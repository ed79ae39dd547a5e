//! Golden vectors, in `tests/vectors/protocol/v1`: recomputed here and compared. With `COUNTERSIGN_WRITE_VECTORS=1` missing files are
//! written; one that exists is never changed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::path::Path;

use bytes::Bytes;
use countersign_crypto::{Hash, SeededEntropy, SigningKey};
use countersign_event::attributes::AttributesBuilder;
use countersign_event::commitment::Salts;
use countersign_event::content::{Event, Limits, seal};
use countersign_event::data::{DataPart, DataState};
use countersign_event::entry::Kind;
use countersign_event::time::Timestamp;
use countersign_protocol::delivery::{BatchMessage, Cover, Lengths, LogReader, write_descriptors};
use countersign_protocol::invitation::{EXPORTER_LABEL, Invitation, InvitationTerms, verify_proof};
use countersign_protocol::publish::{read_events, write_event};
use countersign_protocol::*;
use countersign_tlog::checkpoint::signature_of;
use countersign_tlog::{Checkpoint, MemoryTree, compact_range_at, consistency_proof, leaf_hash};
use serde_json::{Value, json};

const ORIGIN: &str = "a.example/streams/orders";

fn check(file: &str, recomputed: &Value) {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/vectors/protocol/v1"
    );
    let path = Path::new(folder).join(file);
    if !path.exists() && std::env::var_os("COUNTERSIGN_WRITE_VECTORS").is_some() {
        std::fs::create_dir_all(folder).unwrap();
        let text = serde_json::to_string_pretty(recomputed).unwrap() + "\n";
        std::fs::write(&path, text).unwrap();
    }
    let stored: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(&stored, recomputed, "{file}");
}

/// A message by its members, and the bytes that travel.
fn frame<M: Message + PartialEq + std::fmt::Debug>(name: &str, message: &M) -> Value {
    let body = message.to_body();
    assert_eq!(&M::read(M::KIND, &body).unwrap(), message);
    let header = header(M::KIND, body.len()).unwrap();
    json!({"name": name, "kind": M::KIND, "message": message, "header": hex::encode(header), "body": hex::encode(body)})
}

#[test]
fn messages_about_filters_have_their_golden_bytes() {
    let request = Subscribe {
        agreement: [3; 16],
        stream: ORIGIN.to_owned(),
        start: StartAt::Sequence(127),
        newest_size: 128,
        series: [4; 16],
        purpose: String::new(),
    };
    let filter = r#"[{"sql":"type = 'order'"}]"#.to_owned();
    let claim = b"{}".to_vec();
    let frames = [
        frame("SubscribeFiltered", &SubscribeFiltered { request, filter }),
        frame("Skipped", &Skipped { claim }),
    ];
    check("messages-filtered.json", &json!(frames));
}

#[test]
fn messages_of_every_kind_have_their_golden_bytes() {
    let hash = |byte: u8| -> Hash { [byte; 32] };
    let head = SignedHead {
        size: 300,
        root: hash(1),
        signature: vec![2; 64],
    };
    let subscribe = |start| Subscribe {
        agreement: [3; 16],
        stream: ORIGIN.to_owned(),
        start,
        newest_size: 128,
        series: [4; 16],
        purpose: "audit".to_owned(),
    };
    let envelope = b"{}".to_vec();
    let frames = [
        frame(
            "Hello",
            &Hello {
                minor: 0,
                key_statement: envelope.clone(),
                software: "countersign 0.1.0".to_owned(),
                addresses: vec!["node.example:4433".to_owned()],
            },
        ),
        frame(
            "Refused",
            &Refused {
                refusal: envelope.clone(),
                code: "busy".to_owned(),
                reason: "too much at once".to_owned(),
                retry_after_ms: 1000,
            },
        ),
        frame(
            "PublishOpen",
            &PublishOpen {
                stream: "orders".to_owned(),
                series: [5; 16],
                create: true,
            },
        ),
        frame(
            "PublishReady",
            &PublishReady {
                origin: ORIGIN.to_owned(),
                last_number: 7,
                last_sequence: 8,
                event_bytes_max: 1 << 20,
                window_bytes: 1 << 24,
                duplicate_window_events: 1 << 20,
            },
        ),
        frame(
            "PublishBatch",
            &PublishBatch {
                first_number: 8,
                count: 2,
            },
        ),
        frame(
            "PublishAck",
            &PublishAck {
                first_number: 8,
                count: 2,
                duplicates: 1,
                last_sequence: u64::MAX,
            },
        ),
        frame(
            "Subscribe, from a sequence",
            &subscribe(StartAt::Sequence(127)),
        ),
        frame(
            "Subscribe, from a time",
            &subscribe(StartAt::Time(1_767_323_045_678_901)),
        ),
        frame("Subscribe, from now", &subscribe(StartAt::Now)),
        frame(
            "Subscribe, from a cursor",
            &subscribe(StartAt::Cursor {
                next: 5,
                leaf: hash(6),
            }),
        ),
        frame(
            "SubscribeReady",
            &SubscribeReady {
                start: 3,
                head: head.clone(),
                range: vec![hash(7), hash(8)],
                last_leaf: hash(8),
                last_time: 1_767_323_045_678_901,
                last_leaf_proof: vec![hash(7)],
                consistency: vec![hash(9)],
                from_newest: vec![],
                exposure_events: 65_536,
                receipt_number: 1,
                receipt_size: 3,
            },
        ),
        frame(
            "ReceiptMessage",
            &ReceiptMessage {
                envelope: envelope.clone(),
            },
        ),
        frame("ReceiptAck", &ReceiptAck { number: 9 }),
        frame(
            "Heads",
            &Heads {
                head,
                paused: "no receipt".to_owned(),
            },
        ),
        frame(
            "Ended",
            &Ended {
                refusal: envelope.clone(),
            },
        ),
        frame(
            "JoinQuery",
            &JoinQuery {
                invitation: [10; 16],
                proof: vec![11; 64],
            },
        ),
        frame(
            "JoinTerms",
            &JoinTerms {
                offer: "{}".to_owned(),
                agreement: envelope.clone(),
                done: vec![],
            },
        ),
        frame(
            "JoinAccept",
            &JoinAccept {
                envelope: envelope.clone(),
            },
        ),
        frame(
            "JoinDone",
            &JoinDone {
                envelope: envelope.clone(),
            },
        ),
        frame("Notice", &Notice { envelope }),
        frame("NoticeAck", &NoticeAck {}),
        frame("Ping", &Ping { nonce: 12 }),
        frame("Pong", &Pong { nonce: 12 }),
        frame(
            "AddCheckpoints",
            &AddCheckpoints {
                requests: vec![b"old 0\n".to_vec(), Vec::new()],
            },
        ),
        frame(
            "Cosigned",
            &Cosigned {
                vkey: "w+00000000+AA==".to_owned(),
                answers: vec![WitnessSaid {
                    status: 409,
                    body: b"12\n".to_vec(),
                }],
            },
        ),
        frame(
            "AskLog",
            &AskLog {
                origin: ORIGIN.to_owned(),
                size: 128,
            },
        ),
        frame(
            "LogState",
            &LogState {
                note: b"note".to_vec(),
                root: [6; 32],
                proof: vec![[7; 32]],
                held: 300,
                witnessed: b"note".to_vec(),
            },
        ),
        frame(
            "FetchBack",
            &FetchBack {
                origin: ORIGIN.to_owned(),
                from: 128,
            },
        ),
    ];
    check("messages.json", &json!(frames.to_vec()));
}

#[test]
fn a_dry_run_of_the_policies_has_its_golden_bytes() {
    let frames = [
        frame(
            "AskPolicy",
            &AskPolicy {
                action: "read".to_owned(),
                stream: ORIGIN.to_owned(),
                purpose: "research".to_owned(),
                plan: String::new(),
            },
        ),
        frame(
            "PolicyAnswer",
            &PolicyAnswer {
                allowed: true,
                because: "permitted by starter/read".to_owned(),
                policies: vec!["starter/read".to_owned()],
                digest: [8; 32],
                facts: vec![
                    ("context.agreement.active".to_owned(), "true".to_owned()),
                    ("context.purpose".to_owned(), String::new()),
                ],
            },
        ),
    ];
    check("policy.json", &json!(frames.to_vec()));
}

#[test]
fn a_list_of_streams_has_its_golden_bytes() {
    let stream =
        format!(r#"{{"origin":"{ORIGIN}","labels":["listed"],"encrypted":false,"plans":[]}}"#);
    let frames = [
        frame("ListStreams", &ListStreams {}),
        frame(
            "StreamList",
            &StreamList {
                streams: vec![stream.into_bytes()],
                more: false,
            },
        ),
    ];
    check("list.json", &json!(frames.to_vec()));
}

#[test]
fn the_question_how_far_a_log_is_witnessed_has_its_golden_bytes() {
    let frames = [
        frame(
            "AskWitnessed",
            &AskWitnessed {
                origin: ORIGIN.to_owned(),
                size: 128,
            },
        ),
        frame(
            "WitnessedState",
            &WitnessedState {
                note: b"note".to_vec(),
                proof: vec![[7; 32]],
            },
        ),
    ];
    check("witnessed.json", &json!(frames.to_vec()));
}

#[test]
fn keys_have_their_golden_bytes() {
    let envelopes = vec![b"{}".to_vec(), b"{\"payloadType\":\"x\"}".to_vec()];
    check("keys.json", &json!([frame("Keys", &Keys { envelopes })]));
}

#[test]
fn a_publish_batch_has_its_golden_bytes() {
    let mut bulk = Vec::new();
    write_event(&mut bulk, b"attributes", b"data part");
    write_event(&mut bulk, b"", b"\x00");
    let spans = read_events(&Bytes::from(bulk.clone()), 2).unwrap();
    let spans: Vec<_> = spans
        .iter()
        .map(|span| {
            json!([
                hex::encode(span.attributes(&bulk)),
                hex::encode(span.data_part(&bulk))
            ])
        })
        .collect();
    check(
        "publish-bulk.json",
        &json!({"count": 2, "bulk": hex::encode(&bulk), "events": spans}),
    );
}

/// A log of four entries: control, text, author-signed, absent data.
struct Log {
    tree: MemoryTree,
    entries: Vec<u8>,
    lengths: Vec<Lengths>,
    contents: Vec<u8>,
}

fn log_of_four() -> Log {
    let parts = [
        (Kind::Control, DataPart::text("{\"n\":0}")),
        (Kind::Event, DataPart::text("{ \"n\": 1 }")),
        (
            Kind::Event,
            DataPart {
                author_material: Some(b"{}"),
                ..DataPart::binary(&[0, 0xff])
            },
        ),
        (
            Kind::Event,
            DataPart {
                state: DataState::Absent,
                author_material: None,
                data: &[],
            },
        ),
    ];
    let mut log = Log {
        tree: MemoryTree::new(),
        entries: Vec::new(),
        lengths: Vec::new(),
        contents: Vec::new(),
    };
    let mut prev = [0; 32];
    for (sequence, (kind, part)) in (0..).zip(parts) {
        let id = sequence.to_string();
        let attributes = AttributesBuilder::new(&id, "/s", "t").build().unwrap();
        let mut data_part = Vec::new();
        part.encode(&mut data_part).unwrap();
        let event = Event::check(attributes, data_part, &Limits::default()).unwrap();
        let event = event.as_ref();
        let salts = Salts {
            attributes: [0x10 + sequence as u8; 32],
            data: [0x20 + sequence as u8; 32],
        };
        let time = Timestamp(1_767_323_045_678_901 + 1000 * sequence);
        let entry = seal(&event, &salts).entry(kind, sequence, prev, time);
        prev = leaf_hash(&entry.encode());
        log.tree.append(prev);
        log.entries.extend_from_slice(&entry.encode());
        log.lengths.push(Lengths {
            attribute_bytes: event.attribute_bytes().len() as u32,
            data_part_bytes: event.data_part_bytes().len() as u32,
        });
        event.write_content(&salts, &mut log.contents);
    }
    log
}

#[test]
fn a_delivery_batch_has_its_golden_frame_and_result() {
    let key = SigningKey::from_seed(&[1; 32]);
    let log = log_of_four();
    let head = |origin: &str, size| {
        let root = compact_range_at(&log.tree, size).unwrap().root();
        let checkpoint = Checkpoint {
            origin: origin.to_owned(),
            size,
            root,
        };
        SignedHead::new(size, root, signature_of(&checkpoint, &key))
    };
    // The first three entries, under a checkpoint of all four.
    let content_bytes = |entries: &[Lengths]| {
        entries
            .iter()
            .map(|l| l.content_bytes() as usize)
            .sum::<usize>()
    };
    let descriptors = write_descriptors(&log.entries[..3 * 118], &log.lengths[..3]);
    let contents = &log.contents[..content_bytes(&log.lengths[..3])];
    let message = BatchMessage {
        first: 0,
        count: 3,
        descriptor_bytes: descriptors.len() as u32,
        cover: Cover::Checkpoint {
            head: head(ORIGIN, 4),
            consistency: consistency_proof(&log.tree, 3, 4).unwrap(),
        },
    };
    let body = [message.to_body(), descriptors, contents.to_vec()].concat();

    let take = |body: &[u8]| {
        let (message, bulk) =
            BatchMessage::read_bulk(BatchMessage::KIND, &body.to_vec().into()).unwrap();
        let mut reader = LogReader::from_start(ORIGIN, key.public());
        reader.take(message, bulk)
    };
    let batch = take(&body).unwrap();
    assert_eq!(batch.entries(), &log.entries[..3 * 118]);
    let result = json!({
        "first": batch.first(),
        "end": batch.end(),
        "events": batch.events(),
        "data_bytes": batch.data_bytes(),
        "entries": batch.entries().chunks(118).map(hex::encode).collect::<Vec<_>>(),
        "leaf_hashes": batch.leaf_hashes().iter().map(hex::encode).collect::<Vec<_>>(),
        "root": hex::encode(batch.range().root()),
    });

    let with = |change: &dyn Fn(&mut BatchMessage)| {
        let mut message = message.clone();
        change(&mut message);
        [message.to_body(), body[message_bytes(&body)..].to_vec()].concat()
    };
    let flipped = {
        let mut body = body.clone();
        *body.last_mut().unwrap() ^= 1;
        body
    };
    let invalid = [
        ("last byte of the content flipped", flipped),
        (
            "last byte of the content missing",
            body[..body.len() - 1].to_vec(),
        ),
        ("a byte after the last content", [&body[..], &[0]].concat()),
        ("begins at sequence 1", with(&|message| message.first = 1)),
        ("announces two entries", with(&|message| message.count = 2)),
        ("announces four entries", with(&|message| message.count = 4)),
        (
            "no consistency proof",
            with(&|message| {
                let Cover::Checkpoint { consistency, .. } = &mut message.cover;
                consistency.clear();
            }),
        ),
        (
            "checkpoint of another log",
            with(&|message| {
                let Cover::Checkpoint { head: cover, .. } = &mut message.cover;
                *cover = head("a.example/streams/other", 4);
            }),
        ),
    ];
    let invalid = invalid.map(|(name, body)| {
        let error = take(&body).map(|_| ()).unwrap_err().to_string();
        json!({"name": name, "body": hex::encode(body), "error": error})
    });
    let header = header(BatchMessage::KIND, body.len()).unwrap();
    check(
        "batch.json",
        &json!({
            "origin": ORIGIN,
            "log_key": key.public().to_base64(),
            "header": hex::encode(header),
            "body": hex::encode(&body),
            "result": result,
            "invalid": invalid.to_vec(),
        }),
    );
}

/// Bytes of the message at the beginning of a frame with bulk.
fn message_bytes(body: &[u8]) -> usize {
    let body = Bytes::copy_from_slice(body);
    let (_, bulk) = BatchMessage::read_bulk(BatchMessage::KIND, &body).unwrap();
    body.len() - bulk.len()
}

#[test]
fn an_invitation_has_its_golden_link_and_proof() {
    let public = |seed: u8| SigningKey::from_seed(&[seed; 32]).public();
    let terms = InvitationTerms {
        addresses: vec![
            "node.example:4433".to_owned(),
            "[2001:db8::1]:4433".to_owned(),
        ],
        organization: public(1).fingerprint(),
        node: public(2),
        offer: [7; 32],
        expires: 1_800_000_000,
    };
    let invitation = Invitation::new(terms, &mut SeededEntropy::new(1));
    let link = invitation.to_link();
    let read: Invitation = link.parse().unwrap();
    assert_eq!(read.to_link(), link);
    let (exporter, organization, node) = ([9; 32], public(3), public(4));
    let proof = read.prove(&exporter, &organization, &node).to_bytes();
    assert!(verify_proof(
        &invitation.secret_key(),
        &exporter,
        &read.id,
        &organization,
        &node,
        &proof
    ));
    let refused = |link: String| {
        let error = link
            .parse::<Invitation>()
            .map(|_| ())
            .unwrap_err()
            .to_string();
        json!({"link": link, "error": error})
    };
    let invalid = [
        refused(link[..link.len() - 1].to_owned()),
        refused(link.replacen("countersign:A", "countersign:B", 1)),
        refused(format!("countersign:Ag{}", &link["countersign:AQ".len()..])),
        refused("countersign:".to_owned()),
        refused("https://node.example/".to_owned()),
    ];
    check(
        "invitation.json",
        &json!({
            "link": link,
            "id": read.id_hex(),
            "addresses": read.addresses,
            "organization": read.organization.as_str(),
            "node": read.node.to_base64(),
            "offer": hex::encode(read.offer),
            "expires": read.expires,
            "secret_key": read.secret_key().to_base64(),
            "exporter_label": std::str::from_utf8(EXPORTER_LABEL).unwrap(),
            "proof": {
                "exporter": hex::encode(exporter),
                "organization": organization.to_base64(),
                "node": node.to_base64(),
                "signature": hex::encode(proof),
            },
            "invalid": invalid.to_vec(),
        }),
    );
}
