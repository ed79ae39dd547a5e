//! Witnessing: what is cosigned, what never is, and what a log that signs two histories leaves behind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use countersign_crypto::{Entropy as _, Hash, SeededEntropy, sha256};
use countersign_event::documents::{Plan, Side};
use countersign_event::names::Origin;
use countersign_event::time::Timestamp;
use countersign_exchange::{
    ADD_CHECKPOINTS_MAX, Examined, Said, Submission, WitnessAnswer, WitnessId, WitnessSettings,
    witness_name,
};
use countersign_protocol::{AskLog, LogState};
use countersign_tlog::add_checkpoint::AddCheckpoint;
use countersign_tlog::checkpoint::sign_checkpoint;
use countersign_tlog::fork_proof::ForkProof;
use countersign_tlog::{
    Algorithm, Checkpoint, MemoryTree, Note, Vkey, consistency_proof, cosignature_v1, leaf_hash,
};

use super::support::{Node, NodeOptions, Org, Wire, join, partners};

/// A history that somebody may sign: leaf `i` is a function of `i`, and of the branch from `fork` on.
struct History {
    origin: String,
    tree: MemoryTree,
}

impl History {
    fn new(origin: &str, size: u64, fork: u64, branch: u64) -> Self {
        let mut tree = MemoryTree::new();
        for index in 0..size {
            let branch = if index < fork { 0 } else { branch };
            tree.append(leaf_hash(format!("{origin} {index} {branch}").as_bytes()));
        }
        Self {
            origin: origin.to_owned(),
            tree,
        }
    }

    fn root(&self, size: u64) -> Hash {
        countersign_tlog::compact_range_at(&self.tree, size)
            .unwrap()
            .root()
    }

    fn note(&self, org: &Org, size: u64) -> String {
        let checkpoint = Checkpoint {
            origin: self.origin.clone(),
            size,
            root: self.root(size),
        };
        sign_checkpoint(&checkpoint, &org.identity.log_key).note_text
    }

    fn proof(&self, old: u64, new: u64) -> Vec<Hash> {
        match old {
            0 => Vec::new(),
            _ => consistency_proof(&self.tree, old, new).unwrap(),
        }
    }

    fn request(&self, org: &Org, old: u64, new: u64) -> String {
        let request = AddCheckpoint {
            old,
            proof: self.proof(old, new),
            checkpoint: self.note(org, new),
        };
        request.encode()
    }
}

async fn ask(witness: &Node, body: &str) -> WitnessAnswer {
    let answers = witness.exchange.add_checkpoints(&[body.as_bytes()]).await;
    let [answer] = answers.try_into().unwrap();
    answer
}

fn vkey_of(org: &Org, origin: &str) -> Vkey {
    Vkey::new(origin, Algorithm::Ed25519, org.identity.log_key.public()).unwrap()
}

/// A token that the witness made for its partner.
async fn token_of(witness: &Node, partner: &Node) -> String {
    let expires = countersign_event::time::Timestamp(u64::MAX / 2);
    let made = witness.exchange.make_token(partner.authority(), expires);
    made.await.unwrap().token
}

/// A witness, and a partner of it whose logs the test signs for.
async fn witness_and_partner(seed: u64) -> (Node, Node) {
    let (producer, consumer, _) = partners(seed, "orders", 100).await;
    (consumer, producer)
}

#[tokio::test]
async fn each_answer_of_the_specification_has_its_case() {
    let (witness, partner) = witness_and_partner(1).await;
    let (origin, org) = (partner.origin("quakes").to_string(), &partner.org);
    let log = History::new(&origin, 40, 40, 0);
    let other = History::new(&origin, 40, 5, 1);

    // Malformed; the older size beyond the newer.
    for body in ["", "old 1\n", "old 01\n\nx", "old 0\n\nnot a note\n"] {
        assert_eq!(ask(&witness, body).await.status(), 400, "{body:?}");
    }
    let beyond = log.request(org, 0, 10).replacen("old 0", "old 11", 1);
    assert_eq!(ask(&witness, &beyond).await.status(), 400);
    let extended = log
        .request(org, 0, 10)
        .replacen("\n\n\u{2014}", "\nmore\n\n\u{2014}", 1);
    assert_eq!(
        ask(&witness, &extended).await.status(),
        400,
        "extension lines"
    );

    // A log that nobody here knows, our own, and one that is not of this form.
    let stranger = Org::new(77, "Stranger");
    let unknown = format!("{}/streams/quakes", stranger.identity.authority());
    let strangers = History::new(&unknown, 10, 10, 0).request(&stranger, 0, 10);
    assert_eq!(ask(&witness, &strangers).await.status(), 404);
    let own = witness.origin("own").to_string();
    let ours = History::new(&own, 10, 10, 0).request(&witness.org, 0, 10);
    assert_eq!(ask(&witness, &ours).await.status(), 404);
    let odd = History::new("example.org/log", 3, 3, 0).request(org, 0, 3);
    assert_eq!(ask(&witness, &odd).await.status(), 404);

    // Signed by somebody else, and by the right key with one bit changed: the same answer, so that nobody learns who is a partner.
    let strangers_answer = ask(&witness, &strangers).await;
    let by_another = ask(&witness, &log.request(&stranger, 0, 10)).await;
    assert_eq!(by_another, strangers_answer);
    let good = log.request(org, 0, 10);
    let bent = good.replacen("\n10\n", "\n11\n", 1);
    assert_eq!(ask(&witness, &bent).await, strangers_answer);

    // The first time: any size, from nothing.
    let from_nothing = ask(&witness, &log.request(org, 3, 10)).await;
    assert_eq!(
        (from_nothing.status(), from_nothing.body().as_str()),
        (409, "0\n")
    );
    let WitnessAnswer::Cosigned(line) = ask(&witness, &good).await else {
        panic!("it is cosigned");
    };
    let note = Note::parse(format!("{}{line}", log.note(org, 10)).as_bytes()).unwrap();
    let vkey = witness.exchange.witness_vkey().unwrap();
    assert_eq!(vkey.name(), witness_name(witness.authority()));
    assert_eq!(
        note.verify(&[vkey_of(org, &origin), vkey.clone()])
            .unwrap()
            .len(),
        2
    );

    // Stale: the size that it has, which is the way to learn it.
    let stale = ask(&witness, &good).await;
    assert_eq!((stale.status(), stale.body().as_str()), (409, "10\n"));
    // A wrong proof; hashes where none belong.
    let mut wrong = AddCheckpoint::parse(log.request(org, 10, 20).as_bytes()).unwrap();
    wrong.proof[0] = [9; 32];
    assert_eq!(ask(&witness, &wrong.encode()).await.status(), 422);
    let mut more = AddCheckpoint::parse(log.request(org, 10, 10).as_bytes()).unwrap();
    more.proof.push([9; 32]);
    assert_eq!(ask(&witness, &more.encode()).await.status(), 422);
    assert!(
        !witness.exchange.has_forked(&origin.parse().unwrap()),
        "a slip is no fork"
    );
    // The same again: cosigned again, not earlier than before.
    witness
        .clock
        .set(countersign_event::time::Timestamp(5_000_000));
    let WitnessAnswer::Cosigned(again) = ask(&witness, &log.request(org, 10, 10)).await else {
        panic!("the same checkpoint is cosigned again");
    };
    let time = |line: &str| {
        let line = countersign_tlog::NoteSignature::parse(line.trim_end()).unwrap();
        let text = Note::parse(log.note(org, 10).as_bytes())
            .unwrap()
            .text()
            .to_owned();
        cosignature_v1::verify(&text, &line, &vkey).unwrap()
    };
    assert_eq!(time(&again), time(&line));
    witness.clock.set(super::support::START);
    witness.clock.advance(Duration::from_secs(3600));
    let WitnessAnswer::Cosigned(later) = ask(&witness, &log.request(org, 10, 10)).await else {
        panic!("the same checkpoint is cosigned again");
    };
    assert_eq!(time(&later), time(&line) + 3600);
    assert_eq!(ask(&witness, &log.request(org, 10, 31)).await.status(), 200);

    // What is monitored is the newest, under both keys; a stranger is not told that there is such a stream.
    let token = token_of(&witness, &partner).await;
    let hash = hex::encode(sha256(origin.as_bytes()));
    assert_eq!(witness.exchange.monitored(&hash, None).await.unwrap(), None);
    let monitored = witness
        .exchange
        .monitored(&hash, Some(&token))
        .await
        .unwrap()
        .unwrap();
    let monitored = Note::parse(monitored.as_bytes()).unwrap();
    assert!(monitored.text().contains("\n31\n"));
    assert_eq!(
        monitored
            .verify(&[vkey_of(org, &origin), vkey])
            .unwrap()
            .len(),
        2
    );
    assert_eq!(
        witness
            .exchange
            .monitored(&hash.to_uppercase(), Some(&token))
            .await
            .unwrap(),
        None
    );

    // Another root for the size that it has, wherever the request says that it begins: nothing more is cosigned for this log.
    let fork = ask(&witness, &other.request(org, 0, 31)).await;
    assert_eq!(fork.status(), 422);
    assert_eq!(ask(&witness, &log.request(org, 31, 40)).await.status(), 422);
    assert!(witness.exchange.has_forked(&origin.parse().unwrap()));
    let declining = NodeOptions {
        witness: WitnessSettings {
            serves: false,
            ..WitnessSettings::default()
        },
        ..NodeOptions::default()
    };
    let (_, declines, _) = super::support::partners_with(2, "orders", 100, declining).await;
    assert_eq!(ask(&declines, &good).await.status(), 404);
}

/// Lines that others put on the note are neither judged nor kept.
#[tokio::test]
async fn lines_of_others_do_not_travel_on() {
    let (witness, partner) = witness_and_partner(3).await;
    let origin = partner.origin("quakes").to_string();
    let log = History::new(&origin, 9, 9, 0);
    let mut body = log.request(&partner.org, 0, 9);
    body.push_str("\u{2014} somebody.else AAAAAAAAAA==\n");
    let token = token_of(&witness, &partner).await;
    assert_eq!(ask(&witness, &body).await.status(), 200);
    let hash = hex::encode(sha256(origin.as_bytes()));
    let monitored = witness
        .exchange
        .monitored(&hash, Some(&token))
        .await
        .unwrap()
        .unwrap();
    assert!(!monitored.contains("somebody.else"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_thousand_at_once_one_is_cosigned() {
    let (witness, partner) = witness_and_partner(4).await;
    let witness = Arc::new(witness);
    let org = &partner.org;
    // Honest ones that all begin at 10: one wins, the others learn where it stands.
    let origin = partner.origin("honest").to_string();
    let log = History::new(&origin, 1100, 1100, 0);
    assert_eq!(ask(&witness, &log.request(org, 0, 10)).await.status(), 200);
    let mut asking = tokio::task::JoinSet::new();
    for size in 11..=1010 {
        let (witness, body) = (Arc::clone(&witness), log.request(org, 10, size));
        asking.spawn(async move { (size, ask(&witness, &body).await) });
    }
    let answers = asking.join_all().await;
    let won: Vec<u64> = answers
        .iter()
        .filter(|(_, answer)| matches!(answer, WitnessAnswer::Cosigned(_)))
        .map(|(size, _)| *size)
        .collect();
    let [won] = won.as_slice() else {
        panic!("{won:?}");
    };
    let others = answers.iter().filter(|(size, _)| size != won);
    for (_, answer) in others {
        assert_eq!(*answer, WitnessAnswer::Stale(*won));
    }
    // A thousand histories of one size: one root at most is ever cosigned.
    let origin = partner.origin("torn").to_string();
    let mut asking = tokio::task::JoinSet::new();
    for branch in 0..1000 {
        let log = History::new(&origin, 8, 4, branch);
        let (witness, body, root) = (Arc::clone(&witness), log.request(org, 0, 8), log.root(8));
        asking.spawn(async move { (root, ask(&witness, &body).await) });
    }
    let answers = asking.join_all().await;
    let cosigned: BTreeSet<Hash> = answers
        .iter()
        .filter(|(_, answer)| matches!(answer, WitnessAnswer::Cosigned(_)))
        .map(|(root, _)| *root)
        .collect();
    assert_eq!(cosigned.len(), 1);
    assert!(witness.exchange.has_forked(&origin.parse().unwrap()));
}

/// What was cosigned outlives the process, whenever it ends.
#[tokio::test]
async fn a_restarted_witness_knows_what_it_cosigned() {
    let (mut witness, partner) = witness_and_partner(5).await;
    let origin = partner.origin("quakes").to_string();
    let log = History::new(&origin, 30, 30, 0);
    let other = History::new(&origin, 30, 3, 1);
    assert_eq!(
        ask(&witness, &log.request(&partner.org, 0, 20))
            .await
            .status(),
        200
    );
    witness.kill().await;
    assert_eq!(
        ask(&witness, &other.request(&partner.org, 0, 20))
            .await
            .status(),
        422
    );
    assert!(witness.exchange.has_forked(&origin.parse().unwrap()));
    // And that it forked.
    witness.exchange.refresh_view().await.unwrap();
    witness.restart().await;
    assert!(witness.exchange.has_forked(&origin.parse().unwrap()));
}

/// The ledger takes nothing while the clock is far ahead of what is known; what says that a log forked is written when it does again.
#[tokio::test]
async fn a_fork_that_the_ledger_did_not_take_is_recorded_later() {
    let (mut witness, partner) = witness_and_partner(7).await;
    let origin = partner.origin("quakes").to_string();
    let log = History::new(&origin, 30, 30, 0);
    let other = History::new(&origin, 30, 3, 1);
    let request = log.request(&partner.org, 0, 20);
    assert_eq!(ask(&witness, &request).await.status(), 200);
    let now = witness.exchange.clock().now();
    witness.clock.set(Timestamp(now.0 + 86_400_000_000));
    let fork = ask(&witness, &other.request(&partner.org, 0, 20)).await;
    assert_eq!(fork.status(), 422);
    // Behind it in the queue: the ledger has refused it by then.
    witness.exchange.writer().flush().await;
    witness.clock.set(now);
    assert_eq!(witness.records("fault").await.len(), 0);
    witness.exchange.record_owed();
    witness.exchange.writer().flush().await;
    assert_eq!(witness.records("fault").await.len(), 1);
    witness.restart().await;
    assert!(witness.exchange.has_forked(&origin.parse().unwrap()));
}

/// A thousand logs that fork somewhere or go back and go on otherwise: caught at the first contact that shows it, each proof checks by itself.
#[tokio::test]
async fn a_thousand_forks_are_caught_and_proven() {
    let (witness, partner) = witness_and_partner(6).await;
    let org = &partner.org;
    let mut entropy = SeededEntropy::new(7);
    let mut random = |below: u64| {
        let mut bytes = [0; 8];
        entropy.fill(&mut bytes);
        u64::from_be_bytes(bytes) % below
    };
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    for index in 0..1000u64 {
        let name = format!("s{index}");
        let origin = partner.origin(&name).to_string();
        let parsed: Origin = origin.parse().unwrap();
        let first = 1 + random(120);
        let second = first + random(120);
        let fork = random(first);
        let honest = History::new(&origin, second, second, 0);
        let forked = History::new(&origin, second, fork, 1 + index);
        assert_eq!(
            ask(&witness, &honest.request(org, 0, first)).await.status(),
            200
        );
        let answer = ask(&witness, &forked.request(org, first, second)).await;
        assert_eq!(answer.status(), 422, "{first} {second} {fork}");
        let mut how = "by the request alone";
        if !witness.exchange.has_forked(&parsed) {
            // From a power of two on the proof does not hold the old root: the log is asked for it.
            assert!(first.is_power_of_two());
            how = "by asking";
            let state = LogState {
                note: forked.note(org, second).into_bytes(),
                root: forked.root(first),
                proof: forked.proof(first, second),
                held: second,
                witnessed: Vec::new(),
            };
            assert_eq!(
                witness.exchange.examine(&parsed, &state).await,
                Examined::Forked
            );
        }
        *kinds.entry(how).or_default() += 1;
        assert!(witness.exchange.has_forked(&parsed));
        // Nobody is cosigned for afterwards, whichever history it is.
        assert_eq!(
            ask(&witness, &honest.request(org, first, second))
                .await
                .status(),
            422
        );
        let kept = witness.evidence.0.lock().unwrap().last().unwrap().clone();
        assert_eq!(kept.0, origin);
        let proof = ForkProof::parse(&kept.1).unwrap();
        let (a, b) = proof.check(&[vkey_of(org, &origin)]).unwrap();
        assert_eq!(
            (a.origin.as_str(), b.origin.as_str()),
            (origin.as_str(), origin.as_str())
        );
        assert_eq!(proof.statements.len(), 1, "whose key it is");
    }
    assert!(
        kinds.len() == 2 && kinds.values().all(|count| *count > 10),
        "{kinds:?}"
    );
}

/// What a restored producer shows to who has read more: no fork as long as it goes no further, and one as soon as it does.
#[tokio::test]
async fn a_producer_that_goes_on_from_an_older_copy_is_caught_by_its_reader() {
    for seed in 0..8u64 {
        let (mut producer, consumer, agreement) = partners(20 + seed, "orders", 1000).await;
        let stream = producer.origin("orders");
        producer.publish("orders", 1, 5 + seed).await.unwrap();
        let older = producer.disk.after_kill();
        producer
            .publish("orders", 6 + seed, 1 + 3 * seed)
            .await
            .unwrap();
        let mut wire = Wire::open(&producer, &consumer, agreement).await;
        wire.pump().await;
        let read = consumer.exchange.log(&stream).unwrap().size();
        assert_eq!(read, producer.log("orders").size());
        drop(wire);
        producer.go_back_to(older).await;
        // It refuses the cursor; asked how its log goes on, it shows an older copy.
        assert!(
            Wire::try_open(&producer, &consumer, agreement)
                .await
                .is_err()
        );
        assert_eq!(
            compare(&producer, &consumer, &stream).await,
            Examined::RolledBack
        );
        assert!(!consumer.exchange.has_forked(&stream));
        // It goes on otherwise, to less, as much, or more than was read.
        producer.clock.advance(Duration::from_secs(1));
        producer
            .publish("orders", 6 + seed, 1 + 2 * seed)
            .await
            .unwrap();
        assert!(
            Wire::try_open(&producer, &consumer, agreement)
                .await
                .is_err()
        );
        assert_eq!(
            compare(&producer, &consumer, &stream).await,
            Examined::Forked,
            "{seed}"
        );
        assert!(consumer.exchange.has_forked(&stream));
        let kept = consumer.evidence.0.lock().unwrap().last().unwrap().clone();
        let proof = ForkProof::parse(&kept.1).unwrap();
        proof
            .check(&[vkey_of(&producer.org, stream.as_str())])
            .unwrap();
        let faults = consumer.records("fault").await;
        assert_eq!(faults.len(), 1);
    }
}

async fn compare(producer: &Node, consumer: &Node, stream: &Origin) -> Examined {
    let question = consumer.exchange.question_about(stream);
    let peer = consumer.at(producer);
    let state = producer.exchange.log_state(&peer, &question).await.unwrap();
    consumer.exchange.examine(stream, &state).await
}

/// What a consumer cosigned before it had the entries is compared once it has them: before it signs a receipt.
#[tokio::test]
async fn what_was_cosigned_is_compared_with_what_is_read() {
    let (producer, consumer, agreement) = partners(40, "orders", 1000).await;
    let stream = producer.origin("orders");
    producer.publish("orders", 1, 9).await.unwrap();
    // Another history of ten entries is shown to the witness than to the reader.
    let other = History::new(stream.as_str(), 10, 0, 1);
    assert_eq!(
        ask(&consumer, &other.request(&producer.org, 0, 10))
            .await
            .status(),
        200
    );
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.flow().await;
    wire.settle().await;
    assert!(
        wire.consumption.sign_receipt().await.is_err(),
        "no receipt for such a log"
    );
    assert!(consumer.exchange.has_forked(&stream));
    assert_eq!(consumer.records("receipt").await, []);
}

/// Only the owner is told what is known of its log, and of an own stream who may discover it.
#[tokio::test]
async fn what_is_known_of_a_log_is_for_its_owner() {
    let (producer, consumer, agreement) = partners(41, "orders", 1000).await;
    producer.publish("orders", 1, 9).await.unwrap();
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    let ask = |origin: &Origin| AskLog {
        origin: origin.to_string(),
        size: 3,
    };
    let stream = producer.origin("orders");
    let state = consumer
        .exchange
        .log_state(&producer.at(&consumer), &ask(&stream))
        .await
        .unwrap();
    assert_eq!(state.held, 10);
    let note = Note::parse(&state.note).unwrap();
    assert!(
        note.verify(&[vkey_of(&producer.org, stream.as_str())])
            .is_ok()
    );
    let stranger = Node::new(4242, "Stranger").await;
    let told = consumer
        .exchange
        .log_state(&stranger.at(&consumer), &ask(&stream))
        .await;
    assert!(told.is_err());
    let told = producer
        .exchange
        .log_state(&stranger.at(&producer), &ask(&stream))
        .await;
    assert!(told.is_err());
}

/// What is due of streams.
fn streams_due(producer: &Node, id: &WitnessId) -> Vec<Submission> {
    let mut shown = producer.exchange.shown_to(id);
    shown.retain(|log| log.is_own_stream());
    let exchange = &producer.exchange;
    exchange.submissions(id, &shown, ADD_CHECKPOINTS_MAX)
}

/// Submits what is due and hands back what the other one says.
async fn submit(producer: &Node, witness: &Node) -> usize {
    let id = WitnessId::Partner(witness.authority().clone());
    let due = streams_due(producer, &id);
    let bodies: Vec<&[u8]> = due.iter().map(|one| one.body.as_bytes()).collect();
    let answers = witness.exchange.add_checkpoints(&bodies).await;
    let said: Vec<Said> = answers
        .iter()
        .map(|answer| Said {
            status: answer.status(),
            body: answer.body().into_bytes(),
        })
        .collect();
    let vkey = witness.exchange.witness_vkey().unwrap().to_string();
    producer
        .exchange
        .take_cosignatures(&id, &vkey, &due, &said)
        .await
        .unwrap();
    due.len()
}

#[tokio::test]
async fn a_stream_is_witnessed_when_enough_have_cosigned_it() {
    let options = NodeOptions {
        witness: WitnessSettings {
            quorum: 2,
            ..WitnessSettings::default()
        },
        ..NodeOptions::default()
    };
    let (mut producer, one, _) = super::support::partners_with(50, "orders", 1000, options).await;
    let two = Node::new(5151, "Second").await;
    let invitation = producer
        .invite("orders", Side::Producer, Plan::default())
        .await;
    join(&invitation, &producer, &two).await.unwrap();
    producer.publish("orders", 1, 5).await.unwrap();
    let log = producer.log("orders");
    assert_eq!(log.witnessed(), None);
    assert_eq!(submit(&producer, &one).await, 1);
    assert_eq!(log.witnessed(), None, "one of two");
    assert_eq!(submit(&producer, &two).await, 1);
    let witnessed = log.witnessed().unwrap();
    assert_eq!((witnessed.size, witnessed.witnesses.len()), (6, 2));
    let note = Note::parse(witnessed.note.as_bytes()).unwrap();
    let vkeys = [
        vkey_of(&producer.org, log.origin().as_str()),
        one.exchange.witness_vkey().unwrap(),
        two.exchange.witness_vkey().unwrap(),
    ];
    assert_eq!(note.verify(&vkeys).unwrap().len(), 3);
    // Nothing new, nothing is asked.
    assert_eq!(submit(&producer, &one).await, 0);
    // At most once a second, and always the newest.
    producer.publish("orders", 6, 5).await.unwrap();
    assert_eq!(submit(&producer, &one).await, 0);
    producer.clock.advance(Duration::from_secs(1));
    producer.publish("orders", 11, 5).await.unwrap();
    assert_eq!(submit(&producer, &one).await, 1);
    assert_eq!(submit(&producer, &two).await, 1);
    assert_eq!(log.witnessed().unwrap().size, 16);
    // It is known after a restart, and the witnesses go on where they were.
    producer.restart().await;
    let log = producer.log("orders");
    assert_eq!(log.witnessed().unwrap().size, 16);
    producer.publish("orders", 16, 1).await.unwrap();
    assert_eq!(
        submit(&producer, &one).await,
        1,
        "it learns where the witness stands"
    );
    assert_eq!(
        submit(&producer, &one).await,
        1,
        "and goes on from there at once"
    );
    submit(&producer, &two).await;
    submit(&producer, &two).await;
    assert_eq!(log.witnessed().unwrap().size, 17);
}

/// A partner cannot cosign in another's name, with another's key, or twice.
#[tokio::test]
async fn a_lying_witness_counts_for_nothing() {
    let (producer, witness, _) = partners(60, "orders", 1000).await;
    let id = WitnessId::Partner(witness.authority().clone());
    let lie = async |vkey: &str, said: Said| {
        producer.clock.advance(Duration::from_secs(120));
        let due = streams_due(&producer, &id);
        assert_eq!(due.len(), 1);
        producer
            .exchange
            .take_cosignatures(&id, vkey, &due, &[said])
            .await
            .unwrap();
        assert_eq!(producer.log("orders").witnessed(), None);
        due
    };
    let line_by = |org: &Org, name: &str, body: &str| {
        let request = AddCheckpoint::parse(body.as_bytes()).unwrap();
        let text = Note::parse(request.checkpoint.as_bytes())
            .unwrap()
            .text()
            .to_owned();
        let line = cosignature_v1::sign(&text, name, &org.identity.witness_key, 5).unwrap();
        Said {
            status: 200,
            body: line.encode().into_bytes(),
        }
    };
    producer.publish("orders", 1, 5).await.unwrap();
    let stranger = Org::new(99, "Stranger");
    let vkey = |org: &Org, name: &str| {
        let key = org.identity.witness_key.public();
        Vkey::new(name, Algorithm::CosignatureV1, key)
            .unwrap()
            .to_string()
    };
    let due = lie(
        "no key",
        Said {
            status: 200,
            body: Vec::new(),
        },
    )
    .await;
    let body = &due[0].body;
    // The partner's name with a key that its statement does not list; our own name; a log's key.
    let name = witness_name(witness.authority());
    lie(&vkey(&stranger, &name), line_by(&stranger, &name, body)).await;
    let ours = witness_name(producer.authority());
    lie(
        &vkey(&witness.org, &ours),
        line_by(&witness.org, &ours, body),
    )
    .await;
    let plain = vkey_of(&witness.org, &name).to_string();
    lie(&plain, line_by(&witness.org, &name, body)).await;
    // A line that does not verify, none at all, nonsense.
    let good = vkey(&witness.org, &name);
    lie(&good, line_by(&stranger, &name, body)).await;
    lie(
        &good,
        Said {
            status: 200,
            body: b"cosigned!\n".to_vec(),
        },
    )
    .await;
    lie(
        &good,
        Said {
            status: 409,
            body: b"18446744073709551615\n".to_vec(),
        },
    )
    .await;
    lie(
        &good,
        Said {
            status: 409,
            body: Vec::new(),
        },
    )
    .await;
    lie(
        &good,
        Said {
            status: 422,
            body: b"\x1b[2J".to_vec(),
        },
    )
    .await;
    lie(
        &good,
        Said {
            status: 999,
            body: vec![0xff; 70_000],
        },
    )
    .await;
    // A name of its own choice counts as one.
    let due = lie(
        &good,
        Said {
            status: 503,
            body: Vec::new(),
        },
    )
    .await;
    drop(due);
    producer.clock.advance(Duration::from_secs(120));
    let due = streams_due(&producer, &id);
    let chosen = vkey(&witness.org, "night-heron");
    let said = line_by(&witness.org, "night-heron", &due[0].body);
    producer
        .exchange
        .take_cosignatures(&id, &chosen, &due, &[said])
        .await
        .unwrap();
    assert_eq!(
        producer.log("orders").witnessed().unwrap().witnesses,
        ["night-heron"]
    );
    assert!(producer.exchange.witness_alarms() >= 6);
}

/// Of a log that the settings name everybody may know that it is witnessed: there a bad signature is called one.
#[tokio::test]
async fn a_log_of_the_settings_is_known_to_be_witnessed() {
    let stranger = Org::new(78, "Stranger");
    let origin = format!("{}/streams/quakes", stranger.identity.authority());
    let options = NodeOptions {
        witness: WitnessSettings {
            logs: vec![vkey_of(&stranger, &origin)],
            ..WitnessSettings::default()
        },
        ..NodeOptions::default()
    };
    let witness = Node::with(Org::new(79, "Witness"), 79, options).await;
    let log = History::new(&origin, 10, 10, 0);
    let good = log.request(&stranger, 0, 10);
    let bent = good.replacen("\n10\n", "\n11\n", 1);
    assert_eq!(ask(&witness, &bent).await.status(), 403);
    assert_eq!(
        ask(&witness, &log.request(&witness.org, 0, 10))
            .await
            .status(),
        403
    );
    assert_eq!(ask(&witness, &good).await.status(), 200);
}

/// A question costs nothing to ask: the ledger keeps one refusal an hour, and the others are counted.
#[tokio::test]
async fn refused_questions_do_not_fill_the_ledger() {
    let (producer, consumer, _) = partners(42, "orders", 1000).await;
    let peer = consumer.at(&producer);
    let ask = async |index: u64| {
        let question = AskLog {
            origin: producer.origin(&format!("secret-{index}")).to_string(),
            size: 3,
        };
        assert!(producer.exchange.log_state(&peer, &question).await.is_err());
    };
    let refused =
        async || producer.records("refusal").await.len() + producer.records("decision").await.len();
    let before = refused().await;
    for index in 0..300 {
        ask(index).await;
    }
    assert_eq!(refused().await, before + 1);
    assert_eq!(producer.exchange.refused_unrecorded(), 299);
    producer.clock.advance(Duration::from_secs(3600));
    ask(0).await;
    assert_eq!(refused().await, before + 2);
}

/// Under a chosen name another key cosigns.
#[tokio::test]
async fn a_chosen_name_has_a_key_of_its_own() {
    let options = NodeOptions {
        witness: WitnessSettings {
            name: Some("night-heron".to_owned()),
            ..WitnessSettings::default()
        },
        ..NodeOptions::default()
    };
    let (partner, witness, _) = super::support::partners_with(70, "orders", 100, options).await;
    let vkey = witness.exchange.witness_vkey().unwrap();
    assert_eq!(vkey.name(), "night-heron");
    assert_ne!(*vkey.key(), witness.org.identity.witness_key.public());
    let origin = partner.origin("quakes").to_string();
    let log = History::new(&origin, 4, 4, 0);
    let WitnessAnswer::Cosigned(line) = ask(&witness, &log.request(&partner.org, 0, 4)).await
    else {
        panic!("it is cosigned");
    };
    let note = format!("{}{line}", log.note(&partner.org, 4));
    assert!(
        Note::parse(note.as_bytes())
            .unwrap()
            .verify(&[vkey])
            .is_ok()
    );
}
