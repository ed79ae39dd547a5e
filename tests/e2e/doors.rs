//! Every door of a node against every kind of no, over real sockets: whatever comes out, no byte of an event is in it.
//!
//! The doors are the lists that the node itself is made from ([`Request`], [`HttpDoor`]): one that is added there does not compile here without saying how
//! it is tried. Each kind of no is an organization with real keys. What must not come out are words in the events' data and attributes, and, for those
//! who may not even read the log, commitments and leaf hashes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

#[path = "support/raw_peer.rs"]
mod raw_peer;
mod support;

use std::fmt::Write as _;
use std::fs;

use countersign_crypto::{SigningKey, sha256};
use countersign_protocol::{
    AddCheckpoints, AskLog, AskPolicy, AskWitnessed, Ended, FetchBack, Heads, JoinQuery,
    ListStreams, Message as _, Notice, Ping, PublishOpen, Refused, Request, StartAt, Subscribe,
    SubscribeFiltered,
};
use countersign_transport::http::HttpDoor;
use raw_peer::{RawPeer, frame};
use support::{Node, Root, wait_until};

const STREAM: &str = "secret";
/// The words in the three events: before the last one joined, within a quota of one, beyond it.
const WORDS: [&str; 3] = ["amaranth", "bergamot", "chrysolite"];

/// Why somebody gets nothing, or not everything.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum No {
    /// Has nothing to do with this node.
    Stranger,
    /// Has an agreement on another stream.
    OtherStream,
    /// Its agreement is over.
    Expired,
    /// Its agreement was ended.
    Terminated,
    /// Its access as a whole was ended.
    Revoked,
    /// Its agreement is suspended.
    Suspended,
    /// A policy forbids what another permits.
    Denied,
    /// Its plan is used up after one event.
    OverQuota,
    /// Its plan has no history.
    BeforeHistory,
}

impl No {
    const ALL: [Self; 9] = [
        Self::Stranger,
        Self::OtherStream,
        Self::Expired,
        Self::Terminated,
        Self::Revoked,
        Self::Suspended,
        Self::Denied,
        Self::OverQuota,
        Self::BeforeHistory,
    ];

    /// The words that must not reach it.
    fn barred(self) -> &'static [&'static str] {
        match self {
            Self::OverQuota => &WORDS[1..],
            Self::BeforeHistory => &WORDS[..1],
            _ => &WORDS,
        }
    }

    /// Whether it may read the log itself, without content.
    fn reads_the_log(self) -> bool {
        matches!(self, Self::OverQuota | Self::BeforeHistory)
    }
}

/// An organization and what it can show.
struct Asker {
    node: Node,
    token: String,
    agreement: [u8; 16],
}

impl Asker {
    fn new(root: &Root, name: &str) -> Self {
        Self {
            node: Node::init(root.path(), name, &[]),
            token: String::new(),
            agreement: [0; 16],
        }
    }

    /// Makes it a partner on these terms, and gives it a token.
    fn join(&mut self, producer: &Node, invite: &[&str]) {
        let invitation = producer.json(&[&["partner", "invite"], invite].concat());
        let link = invitation["link"].as_str().unwrap();
        let joined = self.node.json(&["partner", "join", link, "--yes"]);
        let id = joined["agreement"].as_str().unwrap();
        self.agreement = hex::decode(id).unwrap().try_into().unwrap();
        let token = producer.json(&["partner", "token", &self.authority()]);
        self.token = token["token"].as_str().unwrap().to_owned();
    }

    fn authority(&self) -> String {
        let status = self.node.json(&["status"]);
        status["authority"].as_str().unwrap().to_owned()
    }

    /// Greets the producer with the organization's own node key.
    async fn greet(&self, producer: &Node) -> RawPeer {
        let pem = fs::read_to_string(self.node.data.join("keys/node.pem")).unwrap();
        let key = SigningKey::from_pem(&pem).unwrap();
        let statement = fs::read(self.node.data.join("key-statement.json")).unwrap();
        let peer = RawPeer::connect(producer.listen, &key).await;
        peer.greet(statement).await;
        peer
    }
}

/// How each door over QUIC is tried: first frames that could make it give something away.
fn tries(request: Request, origin: &str, agreements: &[[u8; 16]]) -> Vec<Vec<u8>> {
    match request {
        Request::AddCheckpoints => {
            let body = format!("old 0\n\n{origin}\n1\n{}\n\n", "A".repeat(44));
            let requests = vec![body.into_bytes()];
            vec![AddCheckpoints { requests }.to_body()]
        }
        Request::AskLog => [0, 1, 2]
            .map(|size| {
                let origin = origin.to_owned();
                AskLog { origin, size }.to_body()
            })
            .to_vec(),
        Request::AskPolicy => ["discover", "read", "request", "publish"]
            .map(|action| {
                let ask = AskPolicy {
                    action: action.to_owned(),
                    stream: origin.to_owned(),
                    purpose: String::new(),
                    plan: String::new(),
                };
                ask.to_body()
            })
            .to_vec(),
        Request::AskWitnessed => [0, 1, 2]
            .map(|size| {
                let origin = origin.to_owned();
                AskWitnessed { origin, size }.to_body()
            })
            .to_vec(),
        Request::FetchBack => [0, 1]
            .map(|from| {
                let origin = origin.to_owned();
                FetchBack { origin, from }.to_body()
            })
            .to_vec(),
        Request::Join => {
            let query = JoinQuery {
                invitation: [9; 16],
                proof: [9; 64].into(),
            };
            vec![query.to_body()]
        }
        Request::List => vec![ListStreams {}.to_body()],
        Request::Notice => {
            let envelope = b"{\"payloadType\":\"x\",\"payload\":\"\",\"signatures\":[]}".to_vec();
            vec![Notice { envelope }.to_body()]
        }
        Request::Ping => vec![Ping { nonce: 7 }.to_body()],
        Request::Publish => {
            let open = PublishOpen {
                stream: STREAM.to_owned(),
                series: [0; 16],
                create: false,
            };
            vec![open.to_body()]
        }
        Request::Subscribe => {
            let requests = subscriptions(origin, agreements);
            requests.iter().map(Subscribe::to_body).collect()
        }
        Request::SubscribeFiltered => {
            // Everything passes; all but the first event passes.
            let filters = [
                "[]",
                r#"[{"not":{"exact":{"subject":"subject-amaranth"}}}]"#,
            ];
            let requests = subscriptions(origin, agreements);
            let each = |request: &Subscribe| {
                filters.map(|filter| {
                    let (request, filter) = (request.clone(), filter.to_owned());
                    SubscribeFiltered { request, filter }.to_body()
                })
            };
            requests.iter().flat_map(each).collect()
        }
    }
}

fn subscriptions(origin: &str, agreements: &[[u8; 16]]) -> Vec<Subscribe> {
    let starts = [StartAt::Sequence(0), StartAt::Sequence(2), StartAt::Time(0)];
    let each = |agreement: &[u8; 16]| {
        let agreement = *agreement;
        starts.map(|start| Subscribe {
            agreement,
            stream: origin.to_owned(),
            start,
            newest_size: 0,
            series: [4; 16],
            purpose: String::new(),
        })
    };
    agreements.iter().flat_map(each).collect()
}

/// How each door over HTTP is tried: method, path, body.
fn paths(door: HttpDoor, origin: &str, size: u64) -> Vec<(&'static str, String, Vec<u8>)> {
    let path = door.path();
    match door {
        HttpDoor::AddCheckpoint => {
            let body = format!("old 0\n\n{origin}\n1\n{}\n\n", "A".repeat(44));
            vec![("POST", path.to_owned(), body.into_bytes())]
        }
        HttpDoor::Health | HttpDoor::KeyStatement | HttpDoor::Metrics => {
            vec![("GET", path.to_owned(), Vec::new())]
        }
        HttpDoor::Logs => {
            let mut asked = vec!["checkpoint".to_owned(), "witnessed".to_owned()];
            for width in 1..=size {
                asked.push(format!("tile/0/000.p/{width}"));
                asked.push(format!("tile/entries/000.p/{width}"));
            }
            let asked = asked.into_iter();
            asked
                .map(|rest| ("GET", format!("{path}{STREAM}/{rest}"), Vec::new()))
                .collect()
        }
        HttpDoor::Monitored => {
            let hash = hex::encode(sha256(origin.as_bytes()));
            vec![("GET", format!("{path}{hash}/checkpoint"), Vec::new())]
        }
    }
}

/// All bytes that come back over QUIC, until the door closes, the producer pauses, or the last word was seen.
async fn drawn_over_quic(
    producer: &Node,
    asker: &Asker,
    origin: &str,
    agreements: &[[u8; 16]],
) -> Vec<u8> {
    let mut drawn = Vec::new();
    for request in Request::ALL {
        for body in tries(*request, origin, agreements) {
            let peer = asker.greet(producer).await;
            let length = u32::try_from(body.len()).unwrap();
            let first = frame(request.kind(), length, &body);
            let until = |kind: u8, body: &[u8]| {
                let closed = kind == Ended::KIND || kind == Refused::KIND;
                let paused = Heads::read(kind, body).is_ok_and(|h| !h.paused.is_empty());
                closed || paused || contains(body, WORDS[2].as_bytes())
            };
            drawn.extend(peer.draw(&first, until).await);
        }
    }
    drawn
}

fn drawn_over_http(producer: &Node, token: &str, origin: &str, size: u64) -> Vec<u8> {
    let bearer = format!("Bearer {token}");
    let mut drawn = Vec::new();
    for door in HttpDoor::ALL {
        for (method, path, body) in paths(*door, origin, size) {
            let answers = match method {
                "POST" => vec![producer.post(&path, &body)],
                _ => vec![
                    Some(producer.fetch(&path, &[])),
                    Some(producer.fetch(&path, &[("Authorization", &bearer)])),
                ],
            };
            for answer in answers.into_iter().flatten() {
                for (name, value) in &answer.headers {
                    writeln!(Text(&mut drawn), "{name}: {value}").unwrap();
                }
                drawn.extend(answer.body);
            }
        }
    }
    drawn
}

struct Text<'a>(&'a mut Vec<u8>);

impl std::fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend(text.as_bytes());
        Ok(())
    }
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// An event with the word in its data and in every attribute that can hold it.
fn publish(root: &Root, producer: &Node, word: &str) {
    let file = root.path().join(format!("{word}.ndjson"));
    let event = serde_json::json!({
        "specversion": "1.0", "id": format!("id-{word}"), "source": format!("urn:{word}"), "type": format!("type.{word}"),
        "subject": format!("subject-{word}"), "data": { "said": word },
    });
    fs::write(&file, format!("{event}\n")).unwrap();
    producer.json(&["publish", STREAM, file.to_str().unwrap()]);
}

fn plans(root: &Root, producer: &Node) {
    let file = root.path().join("plans.toml");
    let text = r#"
[[plans]]
name = "one"
exposure_events = 1000
erasure = "obey"
quota = { period = "day", events = 1 }

[[plans]]
name = "fresh"
exposure_events = 1000
erasure = "obey"
history = { events = 0 }
"#;
    fs::write(&file, text).unwrap();
    producer.json(&["plan", "set", STREAM, file.to_str().unwrap()]);
}

#[test]
fn no_door_gives_an_event_away_to_who_may_not_have_it() {
    let root = Root::new();
    let mut producer = Node::init(root.path(), "Producer", &[]);
    producer.serve();
    producer.json(&["stream", "create", STREAM]);
    producer.json(&["stream", "create", "other"]);
    plans(&root, &producer);
    let origin = producer.json(&["stream", "info", STREAM])["origin"]
        .as_str()
        .unwrap()
        .to_owned();

    let mut entitled = Asker::new(&root, "Entitled");
    entitled.join(&producer, &["--stream", STREAM]);
    let mut askers = Vec::new();
    for no in No::ALL {
        let mut asker = Asker::new(&root, &format!("{no:?}"));
        match no {
            No::Stranger => asker.token = entitled.token.replace(|c: char| c.is_ascii_digit(), "7"),
            No::OtherStream => asker.join(&producer, &["--stream", "other"]),
            No::Expired => asker.join(&producer, &["--stream", STREAM, "--period", "1s"]),
            No::Terminated | No::Revoked | No::Suspended | No::Denied => {
                asker.join(&producer, &["--stream", STREAM])
            }
            No::OverQuota => asker.join(&producer, &["--stream", STREAM, "--plan", "one"]),
            // Joins when there is history.
            No::BeforeHistory => {}
        }
        match no {
            No::Terminated => {
                let id = hex::encode(asker.agreement);
                producer.json(&["agreement", "terminate", &id, "--yes"]);
            }
            No::Suspended => {
                let id = hex::encode(asker.agreement);
                producer.json(&["agreement", "suspend", &id, "--reason", "dispute"]);
            }
            No::Revoked => {
                producer.json(&["partner", "revoke", &asker.authority(), "--yes"]);
            }
            No::Denied => {
                let policy = format!(
                    "@id(\"no\") forbid (principal in Organization::\"{}\", action == Action::\"read\", resource);",
                    asker.authority()
                );
                fs::write(producer.data.join("policies/denied.cedar"), policy).unwrap();
            }
            _ => {}
        }
        askers.push((no, asker));
    }
    publish(&root, &producer, WORDS[0]);
    for (no, asker) in &mut askers {
        match no {
            No::BeforeHistory => asker.join(&producer, &["--stream", STREAM, "--plan", "fresh"]),
            No::Expired => {
                let id = hex::encode(asker.agreement);
                wait_until("the agreement is over", || {
                    let info = producer.json(&["agreement", "info", &id]);
                    (info["state"] == "expired").then_some(())
                });
            }
            No::Denied => {
                let ask = ["policy", "explain", "read", &asker.authority(), STREAM];
                wait_until("the policy is in force", || {
                    (producer.json(&ask)["allowed"] == false).then_some(())
                });
            }
            _ => {}
        }
    }
    publish(&root, &producer, WORDS[1]);
    publish(&root, &producer, WORDS[2]);
    let size = producer.json(&["stream", "info", STREAM])["size"]
        .as_u64()
        .unwrap();
    let mut agreements: Vec<[u8; 16]> = askers.iter().map(|(_, asker)| asker.agreement).collect();
    agreements.push(entitled.agreement);

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    // That the search finds what is there: who may read gets every word, and the log.
    let got = runtime.block_on(drawn_over_quic(
        &producer,
        &entitled,
        &origin,
        &[entitled.agreement],
    ));
    for word in WORDS {
        assert!(contains(&got, word.as_bytes()), "who may read gets {word}");
    }
    let bearer = format!("Bearer {}", entitled.token);
    let tile = |path: String| {
        let path = format!("{}{STREAM}/{path}.p/{size}", HttpDoor::Logs.path());
        let fetched = producer.fetch(&path, &[("Authorization", &bearer)]);
        assert_eq!(fetched.status, 200, "{path}");
        fetched.body
    };
    let entries = tile("tile/entries/000".to_owned());
    let hashes = tile("tile/0/000".to_owned());
    // The two commitments of each entry, after its length; the genesis is no event.
    let commitments = entries
        .chunks(120)
        .skip(1)
        .flat_map(|entry| entry[56..].chunks(32));
    let log: Vec<&[u8]> = commitments.chain(hashes.chunks(32).skip(1)).collect();
    assert_eq!(log.len() as u64, 3 * (size - 1));

    for (no, asker) in &askers {
        let mut got = runtime.block_on(drawn_over_quic(&producer, asker, &origin, &agreements));
        got.extend(drawn_over_http(&producer, &asker.token, &origin, size));
        for word in no.barred() {
            assert!(!contains(&got, word.as_bytes()), "{no:?} got {word}");
        }
        if !no.reads_the_log() {
            let leaked = log.iter().find(|secret| contains(&got, secret));
            assert!(leaked.is_none(), "{no:?} got a hash of the log");
        }
    }
}
