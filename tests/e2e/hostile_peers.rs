//! Peers that break the rules, over real sockets, against the program as it is: nothing of theirs is accepted, the node stays up and
//! small, says what was wrong, serves honest publishers meanwhile, and keeps the evidence.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

#[path = "support/raw_peer.rs"]
mod raw_peer;
mod support;

use std::fs;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Instant;

use countersign_client::session::RequestStream;
use countersign_client::{Expected, Session, SessionError, SessionOptions};
use countersign_crypto::SigningKey;
use countersign_event::documents::{
    AgreementId, Digest, Document as _, KeyStatement, Level, Receipt, Rejections, Role, RoleKey,
    SeriesId,
};
use countersign_event::dsse::Envelope;
use countersign_event::names::Authority;
use countersign_event::time::Timestamp;
use countersign_protocol::{
    Hello, Message as _, PublishBatch, PublishOpen, ReceiptMessage, Refused, StartAt, Subscribe,
    SubscribeReady,
};
use raw_peer::{RawPeer, frame};
use serde_json::Value;
use support::{Node, Publisher, Root, publish_as_child, wait_until};
use tokio::runtime::Runtime;

const STREAM: &str = "load";

const SETTINGS: &[(&str, &str)] = &[("COUNTERSIGN_JOURNAL_SEGMENT_BYTES", "1048576")];

/// What an attack may leave in memory: buffers of connections that come and go, and what an allocator keeps back.
const GROWTH_KIB_MAX: u64 = 64 * 1024;

#[test]
fn publisher_child() {
    publish_as_child();
}

/// Broken frames before and after the greeting, each on its own connection, and datagrams that are no QUIC at all.
#[test]
fn broken_frames_change_nothing() {
    let (node, _root, app) = node_with_app();
    let before = node.resident_kib();
    let runtime = runtime();
    let claims_everything = frame(Subscribe::KIND, u32::MAX - 1, b"");
    let open = PublishOpen {
        stream: STREAM.to_owned(),
        series: [1; 16],
        create: false,
    };
    let open = frame_of(PublishOpen::KIND, &open.to_body());
    let lying = PublishBatch {
        first_number: 1,
        count: u32::MAX,
    };
    let attacks: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("an empty frame", vec![0; 4]),
        ("a frame of 4 GiB", claims_everything.clone()),
        (
            "a control frame above its limit",
            frame(Subscribe::KIND, 300_000, &[0; 300_000]),
        ),
        (
            "a frame that breaks off",
            frame(Subscribe::KIND, 100, &[7; 50]),
        ),
        ("a kind that nobody knows", frame_of(200, b"?")),
        (
            "a greeting in the wrong place",
            frame_of(Hello::KIND, &[0xff; 40]),
        ),
        (
            "a message that is none",
            frame_of(Subscribe::KIND, &[0xff; 40]),
        ),
        (
            "a batch out of nothing",
            frame_of(PublishBatch::KIND, &lying.to_body()),
        ),
        (
            "a batch that counts four billion",
            [open.clone(), frame_of(PublishBatch::KIND, &lying.to_body())].concat(),
        ),
        (
            "a batch that breaks off",
            [
                open.clone(),
                frame(PublishBatch::KIND, 10_000_000, &[1; 5_000]),
            ]
            .concat(),
        ),
        (
            "a batch above every limit",
            [open, frame(PublishBatch::KIND, 100 << 20, &[1; 100])].concat(),
        ),
        (
            "noise",
            (0..70_000_u32)
                .map(|byte| (byte.wrapping_mul(2_654_435_761) >> 24) as u8)
                .collect(),
        ),
    ];
    runtime.block_on(async {
        for (name, bytes) in &attacks {
            let stranger = RawPeer::connect(node.listen, &SigningKey::from_seed(&[77; 32])).await;
            let answer = stranger.throw(bytes).await;
            assert!(
                answer.is_none_or(|(kind, _)| kind == Refused::KIND || kind == Hello::KIND),
                "{name}"
            );
            assert!(stranger.dropped().await, "{name} is not greeted");
            let known = RawPeer::connect(node.listen, &app).await;
            known
                .greet(Vec::new())
                .await
                .expect("an enrolled application");
            // Accepted is nothing; whether there is an answer depends on how much could be read.
            let mut answer = known.throw(bytes).await;
            if name.starts_with("a batch that") || name.starts_with("a batch above") {
                assert!(
                    answer.take().is_some_and(|(kind, _)| kind != Refused::KIND),
                    "{name}: the stream opens"
                );
            }
            assert!(
                answer.is_none_or(|(kind, _)| kind == Refused::KIND),
                "{name}"
            );
            // One broken stream does not take the connection's other streams with it.
            let unknown = known.throw(&frame_of(200, b"")).await;
            let (kind, body) = unknown.expect("an unknown kind has an answer");
            let refused = Refused::read(kind, &body).unwrap();
            assert!(refused.reason.contains("200"), "{refused:?}");
        }
    });
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for (_, bytes) in attacks.iter().cycle().take(2_000) {
        let datagram = &bytes[..bytes.len().min(1_200)];
        socket.send_to(datagram, node.listen).unwrap();
    }
    assert_eq!(node.entries(STREAM), Some(1), "nothing was accepted");
    still_serves(&node, before);
}

/// Two hundred peers complete TLS and never greet; an honest publisher works meanwhile, and they are gone within the time of a greeting.
#[test]
fn half_open_connections_are_bounded_in_time_and_disturb_nobody() {
    let (node, root, _) = node_with_app();
    let before = node.resident_kib();
    let runtime = runtime();
    let begun = Instant::now();
    let peers = runtime.block_on(async {
        let mut peers = Vec::new();
        for number in 0..200_u8 {
            peers.push(RawPeer::connect(node.listen, &SigningKey::from_seed(&[number; 32])).await);
        }
        peers
    });
    let key = node.enroll("honest");
    let mut publisher = Publisher::start_with_record(&node, &key, STREAM, root.path());
    publisher.wait_beyond(100);
    publisher.finish();
    runtime.block_on(async {
        for peer in &peers {
            assert!(peer.dropped().await);
        }
    });
    println!("200 silent peers were gone after {:?}", begun.elapsed());
    drop(peers);
    still_serves(&node, before);
}

/// Another protocol, an application that nobody enrolled, somebody else's key statement, and one that was altered.
#[test]
fn who_is_not_who_it_says_is_refused_and_told_why() {
    let (node, _root, _) = node_with_app();
    let stranger = Organization::new(5);
    let runtime = runtime();
    runtime.block_on(async {
        for protocol in [Some(&b"countersign/2"[..]), Some(b"h3"), None] {
            let error = RawPeer::connect_speaking(node.listen, &stranger.node, protocol).await;
            let error = error.expect_err("another protocol is refused in the handshake");
            // TLS alert 120, no_application_protocol (RFC 7301), in a QUIC crypto error (RFC 9001).
            assert!(
                error.to_string().contains("120")
                    || error.to_string().contains("application protocol"),
                "{error}"
            );
        }
        let key = SigningKey::from_seed(&[99; 32]);
        let refused = refusal(Session::connect(&options(&node, &key, None)).await);
        assert_eq!(refused.0, "wrong-identity");
        assert!(
            refused.1.contains(key.public().fingerprint().as_str()),
            "{refused:?}"
        );
        let stolen = Some(stranger.envelope());
        let refused = refusal(Session::connect(&options(&node, &key, stolen)).await);
        assert_eq!(refused.0, "wrong-identity");
        assert!(refused.1.contains("delegates no node key"), "{refused:?}");
        // The statement names the thief's key, under a signature that was made for another text.
        let mut forged = stranger.statement.clone();
        forged.keys[0].key = key.public();
        let forged = forged.sign_with(&SigningKey::from_seed(&[98; 32]));
        let refused = refusal(Session::connect(&options(&node, &key, Some(forged))).await);
        assert_eq!(refused.0, "wrong-identity");
        // The node's own name, claimed by another key.
        let mut namesake = stranger.statement.clone();
        namesake.authority = Authority::of_key(&SigningKey::from_seed(&[1; 32]).public());
        let namesake = namesake.sign_with(&stranger.organization);
        let refused =
            refusal(Session::connect(&options(&node, &stranger.node, Some(namesake))).await);
        assert_eq!(refused.0, "wrong-identity");
    });
    assert_eq!(node.http("/healthz").unwrap().0, 200);
}

/// A stranger cannot learn which streams there are.
#[test]
fn a_stranger_gets_the_same_answer_for_a_stream_that_exists_and_one_that_does_not() {
    let (node, _root, _) = node_with_app();
    let stranger = Organization::new(5);
    let origin = node.json(&["stream", "info", STREAM])["origin"].clone();
    let exists = origin.as_str().unwrap().to_owned();
    let missing = exists.replace("/streams/load", "/streams/lode");
    let runtime = runtime();
    let answers: Vec<_> = runtime.block_on(async {
        let options = options(&node, &stranger.node, Some(stranger.envelope()));
        let session = Session::connect(&options).await.unwrap();
        let mut answers = Vec::new();
        for stream in [&exists, &missing] {
            let mut request = session.request(&subscribe([3; 16], stream)).await.unwrap();
            let refused = refusal(request.answer::<SubscribeReady>("the answer").await);
            assert_eq!(refused.0, "not-found");
            answers.push((refused.0, refused.1.replace(stream.as_str(), "[STREAM]")));
        }
        answers
    });
    assert_eq!(answers[0], answers[1]);
    assert_eq!(node.http("/healthz").unwrap().0, 200);
}

/// 1. A consumer with a real agreement is stopped; the test takes its keys and subscribes in its place. 2. It sends receipts that are
///    forged, about another tree, out of order, overstated. 3. Each ends the session, is kept as evidence and told in the ledger, and
///    none is in the list of receipts. 4. The real consumer comes back and catches up.
#[test]
fn forged_receipts_end_the_session_and_are_kept_as_evidence() {
    let root = Root::new();
    let mut producer = Node::init(root.path(), "Producer", SETTINGS);
    let mut consumer = Node::init(root.path(), "Consumer", SETTINGS);
    producer.serve();
    consumer.serve();
    producer.json(&["stream", "create", STREAM]);
    producer.share(STREAM, &consumer);
    let key = producer.enroll("load");
    let mut publisher = Publisher::start(&producer, &key, STREAM);
    publisher.wait_beyond(0);
    let last = wait_until("there is an honest receipt", || {
        let receipts = producer.json(&["receipt", "ls"]);
        receipts.as_array()?.last().cloned()
    });
    assert!(consumer.terminate().success());
    publisher.wait_beyond(publisher.last_acknowledged());
    publisher.finish();
    let honest = producer.json(&["receipt", "ls", "--limit", "1000"]);
    let before = producer.resident_kib();

    let secret = |name: &str| {
        let pem = fs::read_to_string(consumer.data.join("keys").join(name)).unwrap();
        SigningKey::from_pem(&pem).unwrap()
    };
    let statement = fs::read(consumer.data.join("key-statement.json")).unwrap();
    let statement = Envelope::from_json(&statement).unwrap();
    let options = options(&producer, &secret("node.pem"), Some(statement.clone()));
    let info = producer.json(&["stream", "info", STREAM]);
    let origin = info["origin"].as_str().unwrap();
    let agreement = last["agreement"].as_str().unwrap();
    let agreement: [u8; 16] = hex::decode(agreement).unwrap().try_into().unwrap();
    let size = info["size"].as_u64().unwrap();
    let root_hash: [u8; 32] = hex::decode(info["root"].as_str().unwrap())
        .unwrap()
        .try_into()
        .unwrap();
    let consumer_authority = KeyStatement::verify(&statement).unwrap().authority;
    let receipt = Receipt {
        agreement: AgreementId(agreement),
        stream: origin.parse().unwrap(),
        consumer: consumer_authority,
        series: SeriesId([4; 16]),
        number: 1,
        previous: None,
        start: 0,
        filter: None,
        size,
        root: Digest(root_hash),
        events: size - 1,
        bytes: 1,
        level: Level::Verified,
        applied: 0,
        rejected: Rejections::default(),
        made: now(),
    };
    let signer = secret("receipt.pem");
    let forgeries: Vec<(&str, Vec<u8>)> = vec![
        (
            "signed by nobody known",
            receipt.sign(&SigningKey::from_seed(&[66; 32])).to_json(),
        ),
        (
            "about another tree",
            Receipt {
                root: Digest([1; 32]),
                ..receipt.clone()
            }
            .sign(&signer)
            .to_json(),
        ),
        (
            "beyond the log",
            Receipt {
                size: size + 1_000,
                ..receipt.clone()
            }
            .sign(&signer)
            .to_json(),
        ),
        (
            "out of order",
            Receipt {
                number: 9,
                ..receipt.clone()
            }
            .sign(&signer)
            .to_json(),
        ),
        (
            "more than was delivered",
            Receipt {
                events: size * 2,
                ..receipt.clone()
            }
            .sign(&signer)
            .to_json(),
        ),
        (
            "of another consumer",
            Receipt {
                consumer: Authority::of_key(&signer.public()),
                ..receipt.clone()
            }
            .sign(&signer)
            .to_json(),
        ),
        ("no document", b"{\"payload\":17}".to_vec()),
    ];
    let runtime = runtime();
    for (index, (name, envelope)) in forgeries.iter().enumerate() {
        runtime.block_on(async {
            let session = Session::connect(&options).await.unwrap();
            let mut request = session
                .request(&subscribe(agreement, origin))
                .await
                .unwrap();
            let ready: SubscribeReady = request.answer("the answer").await.expect(name);
            assert_eq!(ready.start, 0);
            let message = ReceiptMessage {
                envelope: envelope.clone(),
            };
            request.send(&message).await.unwrap();
            until_the_end(&mut request).await;
            session.close().await;
        });
        let kept = wait_until("the evidence is kept", || {
            let kept = fs::read_dir(producer.data.join("evidence")).ok()?.count();
            (kept > index).then_some(kept)
        });
        assert_eq!(kept, index + 1, "{name}");
    }
    let faults = wait_until("the ledger tells of each", || {
        let faults = producer.lines(&["ledger", "ls", "--kind", "fault"]);
        (faults.len() == forgeries.len()).then_some(faults)
    });
    for fault in faults {
        let fault: Value = serde_json::from_str(&fault).unwrap();
        let detail = fault["summary"].as_str().unwrap();
        assert!(!detail.is_empty(), "{fault}");
    }
    let kept = fs::read_dir(producer.data.join("evidence")).unwrap();
    let kept: Vec<Vec<u8>> = kept
        .map(|file| fs::read(file.unwrap().path()).unwrap())
        .collect();
    for (name, envelope) in &forgeries {
        let whole = |kept: &Vec<u8>| kept.windows(envelope.len()).any(|part| part == envelope);
        assert!(kept.iter().any(whole), "{name}: its bytes are evidence");
    }
    assert_eq!(producer.json(&["receipt", "ls", "--limit", "1000"]), honest);
    assert!(producer.resident_kib() < before + GROWTH_KIB_MAX);

    consumer.serve();
    wait_until("the real consumer receipts everything", || {
        let receipts = producer.json(&["receipt", "ls"]);
        (receipts.as_array()?.last()?["size"] == size).then_some(())
    });
    assert_eq!(producer.json(&["ledger", "verify"])["whole"], true);
}

/// 1. A consumer's keys are used by a liar, who signs receipt 1 of a series twice. 2. The producer keeps the proof, which its own auditor accepts, says so in status,
///    metrics and ledger, and delivers nothing more. 3. A person decides, and the real consumer catches up.
#[test]
fn a_consumer_that_signs_two_receipts_of_one_number_is_proven_to_lie() {
    let root = Root::new();
    let mut producer = Node::init(root.path(), "Producer", SETTINGS);
    let mut consumer = Node::init(root.path(), "Consumer", SETTINGS);
    producer.serve();
    consumer.serve();
    producer.json(&["stream", "create", STREAM]);
    producer.share(STREAM, &consumer);
    assert!(consumer.terminate().success());
    let secret = |name: &str| {
        let pem = fs::read_to_string(consumer.data.join("keys").join(name)).unwrap();
        SigningKey::from_pem(&pem).unwrap()
    };
    let statement = fs::read(consumer.data.join("key-statement.json")).unwrap();
    let statement = Envelope::from_json(&statement).unwrap();
    let authority = KeyStatement::verify(&statement).unwrap().authority;
    let options = options(&producer, &secret("node.pem"), Some(statement));
    let info = producer.json(&["stream", "info", STREAM]);
    let origin = info["origin"].as_str().unwrap();
    let agreements = producer.json(&["agreement", "ls"]);
    let agreement = agreements[0]["agreement"]
        .as_str()
        .or(agreements[0]["id"].as_str());
    let agreement: [u8; 16] = hex::decode(agreement.unwrap()).unwrap().try_into().unwrap();
    // Of nothing yet, which both sides can sign for at once.
    let first = Receipt {
        agreement: AgreementId(agreement),
        stream: origin.parse().unwrap(),
        consumer: authority,
        series: SeriesId([4; 16]),
        number: 1,
        previous: None,
        start: 0,
        filter: None,
        size: 0,
        root: Digest(countersign_tlog::empty_root()),
        events: 0,
        bytes: 0,
        level: Level::Applied,
        applied: 0,
        rejected: Rejections::default(),
        made: now(),
    };
    let second = Receipt {
        level: Level::Verified,
        ..first.clone()
    };
    let signer = secret("receipt.pem");
    let runtime = runtime();
    runtime.block_on(async {
        let session = Session::connect(&options).await.unwrap();
        let mut request = session
            .request(&subscribe(agreement, origin))
            .await
            .unwrap();
        let _: SubscribeReady = request.answer("the answer").await.unwrap();
        for receipt in [&first, &second] {
            let envelope = receipt.sign(&signer).to_json();
            request.send(&ReceiptMessage { envelope }).await.unwrap();
        }
        until_the_end(&mut request).await;
        session.close().await;
    });
    let proof = wait_until("the proof is kept", || {
        let kept = fs::read_dir(producer.data.join("evidence")).ok()?;
        let mut kept = kept.map(|file| file.unwrap().path());
        kept.find(|path| path.extension().is_some_and(|ext| ext == "receipt-fork"))
    });
    let proof = proof.to_str().unwrap();
    let trust = consumer.fingerprint.as_str();
    let judged = producer.run(&["evidence", "verify", proof, "--trust", trust]);
    assert_eq!(judged.status.code(), Some(0), "{judged:?}");
    let status = producer.json(&["status"]);
    assert_eq!(
        status["contradicting"].as_array().unwrap().len(),
        1,
        "{status}"
    );
    let told = wait_until("the ledger tells of it", || {
        let told = producer.lines(&["ledger", "ls", "--kind", "contradiction"]);
        (told.len() == 1).then_some(told)
    });
    assert!(told[0].contains("two contents"), "{told:?}");
    let (_, metrics) = producer.http("/metrics").unwrap();
    assert!(
        metrics.contains("countersign_partner_contradicting{"),
        "{metrics}"
    );
    runtime.block_on(async {
        let session = Session::connect(&options).await.unwrap();
        let mut request = session
            .request(&subscribe(agreement, origin))
            .await
            .unwrap();
        let answer: Result<SubscribeReady, _> = request.answer("the answer").await;
        assert_eq!(refusal(answer).0, "pending");
        session.close().await;
    });
    consumer.serve();
    let reason = [
        "partner",
        "settle",
        "Consumer",
        "--reason",
        "its keys were copied",
    ];
    assert_eq!(producer.json(&reason)["settled"], true);
    wait_until("the real consumer has it all", || {
        (consumer.entries(STREAM)? >= 1).then_some(())
    });
    assert!(
        producer.json(&["status"])["contradicting"]
            .as_array()
            .unwrap()
            .is_empty()
    );
}

/// A serving node with a stream of one entry, and the key of an enrolled application.
fn node_with_app() -> (Node, Root, SigningKey) {
    let root = Root::new();
    let mut node = Node::init(root.path(), "Node", SETTINGS);
    node.serve();
    node.json(&["stream", "create", STREAM]);
    let key = fs::read_to_string(node.enroll("app")).unwrap();
    (node, root, SigningKey::from_pem(&key).unwrap())
}

/// Healthy, about as large as before, and an honest publisher gets its acknowledgement.
fn still_serves(node: &Node, before_kib: u64) {
    assert_eq!(node.http("/healthz").unwrap(), (200, "ok\n".to_owned()));
    let now = node.resident_kib();
    assert!(
        now < before_kib + GROWTH_KIB_MAX,
        "{before_kib} KiB before, {now} KiB after"
    );
    let key = node.enroll("after");
    support::try_publish(node, &key, STREAM).unwrap();
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

/// An organization that the node never heard of.
struct Organization {
    organization: SigningKey,
    node: SigningKey,
    statement: KeyStatement,
}

impl Organization {
    fn new(seed: u8) -> Self {
        let organization = SigningKey::from_seed(&[seed; 32]);
        let node = SigningKey::from_seed(&[seed + 1; 32]);
        let keys = [Role::Node, Role::Log, Role::Agreement, Role::Receipt];
        let statement = KeyStatement {
            authority: Authority::of_key(&organization.public()),
            name: "Stranger".to_owned(),
            organization: organization.public(),
            number: 1,
            made: now(),
            keys: keys
                .into_iter()
                .map(|role| RoleKey {
                    role,
                    key: node.public(),
                    from: Timestamp(0),
                    until: None,
                })
                .collect(),
            succession: Vec::new(),
        };
        Self {
            organization,
            node,
            statement,
        }
    }

    fn envelope(&self) -> Envelope {
        self.statement.sign_with(&self.organization)
    }
}

fn options(node: &Node, key: &SigningKey, statement: Option<Envelope>) -> SessionOptions {
    let expected = Expected::organization(node.fingerprint.parse().unwrap());
    let addresses = vec![node.listen.to_string()];
    let mut options = SessionOptions::new(addresses, expected, key.clone(), Arc::new(now));
    options.statement = statement;
    options
}

fn subscribe(agreement: [u8; 16], stream: &str) -> Subscribe {
    Subscribe {
        agreement,
        stream: stream.to_owned(),
        start: StartAt::Sequence(0),
        newest_size: 0,
        series: [4; 16],
        purpose: String::new(),
    }
}

/// Code and reason of a refusal.
#[track_caller]
fn refusal<T>(result: Result<T, SessionError>) -> (String, String) {
    match result {
        Err(SessionError::Refused(refused)) => (refused.code.clone(), refused.reason.clone()),
        Err(error) => panic!("not a refusal: {error}"),
        Ok(_) => panic!("accepted"),
    }
}

/// Reads what still comes until the node ends the stream or the session.
async fn until_the_end(request: &mut RequestStream) {
    while let Ok(Some(_)) = request.reader.next().await {}
}

fn frame_of(kind: u8, body: &[u8]) -> Vec<u8> {
    frame(kind, u32::try_from(body.len()).unwrap(), body)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp(u64::try_from(since.unwrap().as_micros()).unwrap())
}
