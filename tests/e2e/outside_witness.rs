//! Witnesses that are no partners, over HTTP: other nodes' doors, and servers that lie, drip and flood. Real processes and sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use countersign_crypto::SigningKey;
use countersign_tlog::add_checkpoint::AddCheckpoint;
use countersign_tlog::{Algorithm, Checkpoint, Note, Vkey, cosignature_v1};
use serde_json::Value;
use support::{Node, Root, wait_until};

const STREAM: &str = "quakes";

const OUTSIDE: &str = "COUNTERSIGN_WITNESS_OUTSIDE";

fn hand_in(root: &Root, node: &Node, from: u32, to: u32) -> Option<i32> {
    let file = root.path().join(format!("{from}.ndjson"));
    let lines = (from..to).fold(String::new(), |mut lines, n| {
        writeln!(lines, "{{\"id\":\"{n}\",\"magnitude\":{n}}}").unwrap();
        lines
    });
    fs::write(&file, lines).unwrap();
    let file = file.to_str().unwrap();
    // A stream that is frozen is frozen: nobody waits for it here.
    let wrap = ["--type", "test.made", "--id-from", "id", "--attempts", "0"];
    let words = [&["publish", STREAM, file][..], &wrap].concat();
    node.run(&words).status.code()
}

fn info(node: &Node) -> Value {
    node.json(&["stream", "info", STREAM])
}

/// Waits until so many entries are witnessed, and gives the published note.
fn witnessed(node: &Node, entries: u64) -> Note {
    let path = format!("/logs/{STREAM}/witnessed");
    wait_until("the stream is witnessed", || {
        let got = node.fetch(&path, &[]);
        let note = (got.status == 200).then(|| Note::parse(&got.body).unwrap())?;
        let checkpoint = Checkpoint::parse_text(note.text()).unwrap();
        (checkpoint.size >= entries).then_some(note)
    })
}

fn witness_vkey(node: &Node) -> Vkey {
    let authority = node.json(&["status"])["authority"]
        .as_str()
        .unwrap()
        .to_owned();
    let pem = fs::read_to_string(node.data.join("keys/witness.pem")).unwrap();
    let key = SigningKey::from_pem(&pem).unwrap().public();
    Vkey::new(
        &format!("{authority}/witness"),
        Algorithm::CosignatureV1,
        key,
    )
    .unwrap()
}

/// The vkey and address of a node, as a setting says them, and its door for the log of `producer`.
fn as_outside(producer: &Node, witness: &mut Node) -> String {
    let log = info(producer)["log_vkey"].as_str().unwrap().to_owned();
    witness.set("COUNTERSIGN_WITNESS_LOGS", &log);
    witness.serve();
    format!(
        "{} http://{}/witness/",
        witness_vkey(witness),
        witness.http_address()
    )
}

fn open_stream(root: &Root) -> Node {
    let producer = Node::init(root.path(), "Producer", &[]);
    producer.json(&["stream", "create", STREAM]);
    producer.json(&["stream", "access", STREAM, "open"]);
    producer
}

/// 1. Two nodes that are nobody's partner cosign over HTTP, and both lines are on one note. 2. One that is away holds nothing up, and when it is back the
///    quorum is. 3. Both sides, and the metrics, say what they know.
#[test]
fn other_peoples_witnesses_count_towards_the_quorum() {
    let root = Root::new();
    let mut producer = open_stream(&root);
    let mut one = Node::init(root.path(), "One", &[]);
    let mut two = Node::init(root.path(), "Two", &[]);
    let outside = [
        as_outside(&producer, &mut one),
        as_outside(&producer, &mut two),
    ]
    .join(",");
    producer.set(OUTSIDE, &outside);
    producer.set("COUNTERSIGN_WITNESS_QUORUM", "2");
    producer.serve();
    assert_eq!(hand_in(&root, &producer, 0, 5), Some(0));
    let note = witnessed(&producer, 6);
    let log = Vkey::parse(info(&producer)["log_vkey"].as_str().unwrap()).unwrap();
    let known = [log, witness_vkey(&one), witness_vkey(&two)];
    assert_eq!(note.verify(&known).unwrap().len(), 3);
    let listed = producer.lines(&["witness", "ls"]);
    let listed: Vec<Value> = listed
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(listed.len(), 2, "{listed:?}");
    for line in &listed {
        assert_eq!(
            (&line["over"], &line["state"]),
            (&"http".into(), &"ok".into())
        );
    }
    let (_, metrics) = producer.http("/metrics").unwrap();
    let name = witness_vkey(&one).name().to_owned();
    let metric = format!(
        "countersign_witness_cosigned_entries{{origin=\"{}\",witness=\"{name}\"}} 6",
        info(&producer)["origin"].as_str().unwrap()
    );
    assert!(metrics.contains(&metric), "{metrics}");
    // One goes away.
    two.kill();
    assert_eq!(hand_in(&root, &producer, 5, 9), Some(0));
    wait_until("it is said who does not answer", || {
        let listed = producer.lines(&["witness", "ls"]).join("\n");
        listed.contains("no answer").then_some(())
    });
    assert_eq!(info(&producer)["size"], 10);
    assert_eq!(
        Checkpoint::parse_text(witnessed(&producer, 6).text())
            .unwrap()
            .size,
        6,
        "one of two"
    );
    two.serve();
    witnessed(&producer, 10);
    // A restart goes on where the witnesses stand: their size is asked for.
    producer.terminate();
    producer.serve();
    assert_eq!(hand_in(&root, &producer, 9, 10), Some(0));
    witnessed(&producer, 11);
}

/// How a witness misbehaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Lie {
    WrongKey,
    WrongCheckpoint,
    Nonsense,
    Flood,
    Drip,
    Hangup,
    Ahead,
    SizeWithoutType,
    Refused,
    Redirect,
}

const LIES: [Lie; 10] = [
    Lie::WrongKey,
    Lie::WrongCheckpoint,
    Lie::Nonsense,
    Lie::Flood,
    Lie::Drip,
    Lie::Hangup,
    Lie::Ahead,
    Lie::SizeWithoutType,
    Lie::Refused,
    Lie::Redirect,
];

fn liar_key(lie: Lie) -> SigningKey {
    SigningKey::from_seed(&[100 + lie as u8; 32])
}

fn liar_name(lie: Lie) -> String {
    format!("{lie:?}.example")
}

/// Requests of each liar's that are being answered now, and the most there ever were at once.
#[derive(Debug, Default)]
struct Seen {
    now: AtomicUsize,
    most: AtomicUsize,
    in_all: AtomicUsize,
}

fn answer(stream: &mut TcpStream, seen: &[Seen]) -> Option<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        (stream.read(&mut byte).ok()? == 1).then_some(())?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let lie = LIES
        .into_iter()
        .find(|lie| path.starts_with(&format!("/{lie:?}/")))?;
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("content-length: ")?
            .parse()
            .ok()
    });
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    let seen = &seen[lie as usize];
    let now = seen.now.fetch_add(1, Ordering::SeqCst) + 1;
    seen.most.fetch_max(now, Ordering::SeqCst);
    seen.in_all.fetch_add(1, Ordering::SeqCst);
    let whole = |status: &str, kind: &str, text: &str| {
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
            text.len()
        )
    };
    let ok = |text: &str| whole("200 OK", "text/plain", text);
    let text = || {
        let request = AddCheckpoint::parse(&body).unwrap();
        Note::parse(request.checkpoint.as_bytes())
            .unwrap()
            .text()
            .to_owned()
    };
    let signed = |text: &str, key: &SigningKey| {
        cosignature_v1::sign(text, &liar_name(lie), key, 1_800_000_000)
            .unwrap()
            .encode()
    };
    let posted = path.ends_with("/add-checkpoint");
    let said = match lie {
        _ if !posted => ok("nothing to see"),
        Lie::WrongKey => ok(&signed(&text(), &SigningKey::from_seed(&[1; 32]))),
        Lie::WrongCheckpoint => ok(&signed(&text().replace('/', "-"), &liar_key(lie))),
        Lie::Nonsense => "\u{1b}[2J certainly\r\n\r\n".to_owned(),
        Lie::Flood => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
            while stream.write_all(&[b'a'; 65_536]).is_ok() {}
            String::new()
        }
        Lie::Drip => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n");
            while stream.write_all(b"a").is_ok() {
                thread::sleep(Duration::from_millis(50));
            }
            String::new()
        }
        Lie::Hangup => String::new(),
        Lie::Ahead => whole("409 Conflict", "text/x.tlog.size", "123456789\n"),
        Lie::SizeWithoutType => whole("409 Conflict", "text/plain", "0\n"),
        Lie::Refused => whole("422 Unprocessable Entity", "text/plain", "\u{1b}[31mno"),
        Lie::Redirect => "HTTP/1.1 307 Temporary Redirect\r\nLocation: /WrongKey/add-checkpoint\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(),
    };
    let _ = stream.write_all(said.as_bytes());
    seen.now.fetch_sub(1, Ordering::SeqCst);
    Some(())
}

fn serve_lies() -> (SocketAddr, Arc<[Seen]>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let seen: Arc<[Seen]> = LIES.iter().map(|_| Seen::default()).collect();
    let counted = Arc::clone(&seen);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, seen) = (stream.unwrap(), Arc::clone(&counted));
            thread::spawn(move || answer(&mut stream, &seen));
        }
    });
    (address, seen)
}

/// Ten liars and one honest witness: what the liars say counts for nothing, holds nothing up, and is shown.
#[test]
fn lying_slow_and_flooding_witnesses_change_nothing() {
    let root = Root::new();
    let mut producer = open_stream(&root);
    let mut honest = Node::init(root.path(), "Honest", &[]);
    let (lies, seen) = serve_lies();
    let mut outside: Vec<String> = LIES
        .into_iter()
        .map(|lie| {
            let key = liar_key(lie).public();
            let vkey = Vkey::new(&liar_name(lie), Algorithm::CosignatureV1, key).unwrap();
            format!("{vkey} http://{lies}/{lie:?}")
        })
        .collect();
    outside.push(as_outside(&producer, &mut honest));
    producer.set(OUTSIDE, &outside.join(","));
    producer.serve();
    assert_eq!(hand_in(&root, &producer, 0, 5), Some(0));
    let note = witnessed(&producer, 6);
    let log = Vkey::parse(info(&producer)["log_vkey"].as_str().unwrap()).unwrap();
    let known = [log, witness_vkey(&honest)];
    assert_eq!(note.verify(&known).unwrap().len(), 2);
    assert_eq!(note.signatures().len(), 2, "nobody else's line is on it");
    // Each of them was heard, and is shown for what it is; the slow one is given up in the end.
    let standings = wait_until("everybody has had a say", || {
        let listed = producer.lines(&["witness", "ls"]);
        let listed: Vec<Value> = listed
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let silent = |lie: Lie| {
            listed
                .iter()
                .all(|line| line["witness"] != liar_name(lie) || line["state"] == "ok")
        };
        (!LIES.into_iter().any(silent)).then_some(listed)
    });
    for line in &standings {
        let state = line["state"].as_str().unwrap();
        assert!(state.chars().all(|c| !c.is_control()), "{state}");
        let liar = LIES
            .into_iter()
            .any(|lie| line["witness"] == liar_name(lie));
        assert_eq!(line["size"], if liar { 0 } else { 6 }, "{line}");
    }
    // A number that nobody signed freezes nothing at home.
    assert_eq!(hand_in(&root, &producer, 5, 9), Some(0));
    witnessed(&producer, 10);
    assert!(info(&producer).get("frozen").is_none());
    for (lie, seen) in LIES.into_iter().zip(seen.iter()) {
        assert!(
            seen.in_all.load(Ordering::SeqCst) > 0,
            "{lie:?} was not asked"
        );
        assert_eq!(seen.most.load(Ordering::SeqCst), 1, "{lie:?}");
    }
}

/// A directory from a backup, and nobody reads the stream but an outside witness: what it has cosigned is waited for, and keeps the copy from forking.
#[test]
fn a_restored_directory_asks_its_outside_witnesses() {
    let root = Root::new();
    let mut producer = open_stream(&root);
    let mut witness = Node::init(root.path(), "One", &[]);
    let outside = as_outside(&producer, &mut witness);
    producer.set(OUTSIDE, &outside);
    producer.serve();
    assert_eq!(hand_in(&root, &producer, 0, 5), Some(0));
    witnessed(&producer, 6);
    producer.terminate();
    let (data, older, same) = (
        producer.data.clone(),
        root.path().join("older"),
        root.path().join("same"),
    );
    let copy = |to: &std::path::Path| {
        assert!(
            Command::new("cp")
                .arg("-a")
                .args([&data, to])
                .status()
                .unwrap()
                .success()
        );
    };
    copy(&older);
    producer.serve();
    assert_eq!(hand_in(&root, &producer, 5, 7), Some(0));
    witnessed(&producer, 8);
    producer.terminate();
    copy(&same);
    // A copy that is whole waits as long as the witness is away, and goes on when it has spoken.
    witness.kill();
    producer.move_to(&same);
    producer.serve();
    let why = info(&producer)["frozen"].as_str().unwrap().to_owned();
    assert!(why.contains(witness_vkey(&witness).name()), "{why}");
    assert_eq!(hand_in(&root, &producer, 7, 8), Some(8));
    witness.serve();
    wait_until("it has answered", || {
        info(&producer).get("frozen").is_none().then_some(())
    });
    producer.terminate();
    // An older one learns that more was signed, and from whose signature.
    producer.move_to(&older);
    producer.serve();
    wait_until("it has learnt that it is older", || {
        let why = info(&producer)["frozen"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        why.contains("others know 8 entries").then_some(())
    });
    assert_eq!(hand_in(&root, &producer, 20, 21), Some(8));
}

/// A domain's node serves its key statement; whoever asks a domain that does not exist learns that nothing is proven, and nothing else changes.
#[test]
fn a_domain_shows_its_key_statement() {
    let root = Root::new();
    let domain = ["--domain", "producer.invalid"];
    let mut producer = Node::init_with(root.path(), "Producer", &[], &domain);
    let mut consumer = Node::init(root.path(), "Consumer", &[]);
    producer.serve();
    consumer.serve();
    producer.json(&["stream", "create", STREAM]);
    producer.share(STREAM, &consumer);
    let path = "/.well-known/countersign/key-statement.json";
    let shown = producer.fetch(path, &[]);
    assert_eq!(
        (shown.status, shown.header("content-type")),
        (200, "application/json")
    );
    assert_eq!(
        shown.body,
        fs::read(producer.data.join("key-statement.json")).unwrap()
    );
    assert_eq!(consumer.fetch(path, &[]).status, 404, "it has no domain");
    let partner = consumer.json(&["partner", "info", "producer"]);
    assert_eq!(partner["proven"], false);
    let words = partner["authority_is"].as_str().unwrap().to_owned();
    assert!(
        words.contains("unproven") && words.contains("--check-domain"),
        "{words}"
    );
    let asked = consumer.run(&["partner", "info", "producer", "--check-domain", "--json"]);
    assert_eq!(asked.status.code(), Some(9), "{asked:?}");
    let partner: Value = serde_json::from_slice(&asked.stdout).unwrap();
    assert_eq!(
        (&partner["proven"], &partner["domain_result"]),
        (&false.into(), &"unreachable".into())
    );
    let kept = consumer.lines(&["ledger", "ls", "--kind", "domain-check"]);
    assert_eq!(kept.len(), 1);
    // A fingerprint needs no proof.
    let partner = producer.json(&["partner", "info", "consumer"]);
    assert_eq!(partner["proven"], true);
    let asked = producer.run(&["partner", "info", "consumer", "--check-domain"]);
    assert_eq!(asked.status.code(), Some(2));
}
