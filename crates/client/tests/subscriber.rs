//! Subscribing from producers that are honest, break off, or lie.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod node;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use countersign_client::quic::{Connection, Endpoint};
use countersign_client::session::{Backoff, is_bulk};
use countersign_client::subscriber::{
    EventBatch, KeepState, Start, SubscribeError, Subscriber, SubscriberOptions, SubscriptionState,
};
use countersign_crypto::SigningKey;
use countersign_event::documents::{
    Agreement, AgreementId, Digest, Document, Erasure, Level, Plan, Receipt, Refusal, RefusalCode,
};
use countersign_event::dsse::Envelope;
use countersign_event::entry::{Entry, Kind};
use countersign_event::names::Origin;
use countersign_event::time::Timestamp;
use countersign_protocol::delivery::{BatchFault, BatchMessage};
use countersign_protocol::{
    AskWitnessed, CONTROL_FRAME_BYTES_MAX, Ended, Message, ReceiptAck, ReceiptMessage, Refused,
    Subscribe, WitnessedState,
};
use countersign_tlog::checkpoint::sign_checkpoint;
use countersign_tlog::policy::Policy;
use countersign_tlog::{
    Algorithm, Checkpoint, NoteSignature, Vkey, consistency_proof, cosignature_v1,
};
use node::{Log, NOW, Org, entropy};
use tokio::sync::watch;

/// What a producer does with the batches of its second to fourth place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Lie {
    None,
    /// One bit of the content.
    Alter,
    /// The second batch is left out.
    Leave,
    /// The first batch comes twice.
    Repeat,
    /// The second and third change places.
    Swap,
    /// The checkpoint is signed by another key.
    Forge,
    /// A frame that has no place here.
    Nonsense,
}

#[derive(Clone)]
struct Producer {
    org: Org,
    consumer: Org,
    agreement: Agreement,
    log: Arc<Log>,
    step: u64,
    lie: Lie,
    /// Connection `i` breaks after this many batches.
    cuts: Vec<u64>,
    /// What comes instead of an answer, or after the log.
    refusal: Option<Envelope>,
    end: Option<Envelope>,
    /// What is answered, one after the other, to the question how far the log is witnessed; the last one for ever.
    witnessed: Vec<Witnessed>,
    seen: watch::Sender<Seen>,
}

impl Witnessed {
    fn state(&self, asked: u64) -> WitnessedState {
        let checkpoint = Checkpoint {
            origin: self.log.origin.clone(),
            size: self.size,
            root: self.log.root(self.size),
        };
        let mut note = sign_checkpoint(&checkpoint, &self.key).note_text;
        for (at, key) in self.cosigners.iter().enumerate() {
            let name = format!("w{at}.example/witness");
            let mut line = cosignature_v1::sign(&checkpoint.to_text(), &name, key, 1).unwrap();
            if key.public() != witness(at).public() {
                // In the name and with the key id of the witness, by somebody else.
                let id = witness_vkey(at).id();
                line = NoteSignature::new(name, id, line.signature().to_vec()).unwrap();
            }
            note.push_str(&line.encode());
        }
        let (small, large) = (asked.min(self.size), asked.max(self.size));
        WitnessedState {
            note: note.into_bytes(),
            proof: consistency_proof(&self.log.tree, small, large).unwrap(),
        }
    }
}

fn witness(at: usize) -> SigningKey {
    SigningKey::from_seed(&[100 + at as u8; 32])
}

fn witness_vkey(at: usize) -> Vkey {
    let name = format!("w{at}.example/witness");
    Vkey::new(&name, Algorithm::CosignatureV1, witness(at).public()).unwrap()
}

/// Both of two witnesses have to have cosigned.
fn both() -> Policy {
    let witnesses: String = (0..2)
        .map(|at| format!("witness W{at} {}\n", witness_vkey(at)))
        .collect();
    Policy::parse(format!("{witnesses}group both all W0 W1\nquorum both\n").as_bytes()).unwrap()
}

/// What a producer shows as witnessed.
#[derive(Clone)]
struct Witnessed {
    size: u64,
    /// Whose tree it is: the log that is read, or another one under the same name.
    log: Arc<Log>,
    /// Who signs as the log.
    key: SigningKey,
    /// Who signs in the names of the witnesses 0, 1, …
    cosigners: Vec<SigningKey>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    requests: Vec<Subscribe>,
    receipts: Vec<(Receipt, Envelope)>,
    /// The last frame with a batch, as it was sent.
    frame: Bytes,
    /// How often it was asked how far the log is witnessed.
    asked: usize,
}

impl Producer {
    fn new(size: u64, exposure_events: u64) -> Self {
        let (org, consumer) = (Org::new(1), Org::new(2));
        let stream = Origin::of_stream(&org.statement.authority, &"orders".parse().unwrap());
        let agreement = Agreement {
            id: AgreementId([7; 16]),
            producer: org.party(),
            consumer: consumer.party(),
            plan: Plan {
                name: "p".to_owned(),
                exposure_events,
                erasure: Erasure::Obey,
                ..Plan::default()
            },
            from: Timestamp(0),
            until: None,
            made: Timestamp(0),
            stream: stream.clone(),
            accepts: None,
            supersedes: None,
        };
        Self {
            log: Arc::new(Log::new(stream.as_str(), &org.log, size, 1)),
            org,
            consumer,
            agreement,
            step: 2,
            lie: Lie::None,
            cuts: Vec::new(),
            refusal: None,
            end: None,
            witnessed: Vec::new(),
            seen: watch::Sender::new(Seen::default()),
        }
    }

    fn start(&self) -> SubscriberOptions {
        let (endpoint, address) = self.org.listen();
        tokio::spawn(self.clone().serve(endpoint));
        let session = self.consumer.session_to(&self.org, &address);
        let (agreement, producer) = (self.agreement.clone(), self.org.statement.clone());
        let receipt_key = self.consumer.receipt.clone();
        SubscriberOptions {
            backoff: Backoff {
                first: Duration::from_millis(1),
                longest: Duration::from_millis(10),
                attempts_max: Some(20),
            },
            receipt_delay: Duration::from_secs(3_600),
            follow: false,
            ..SubscriberOptions::new(session, agreement, producer, receipt_key, entropy(3))
        }
    }

    async fn serve(self, endpoint: Endpoint) {
        while let Some(greeted) = self.org.greet(&endpoint).await {
            if let Ok(connection) = greeted {
                let _ = self.session(&connection).await;
            }
        }
    }

    async fn session(&self, connection: &Connection) -> Option<()> {
        let (mut writer, mut reader) = connection.accept_bi().await.ok()?;
        tokio::spawn(self.clone().answer_witnessed(connection.clone()));
        let frame = reader
            .next(CONTROL_FRAME_BYTES_MAX, 0, is_bulk)
            .await
            .ok()??;
        let request = Subscribe::read(frame.kind, &frame.body).unwrap();
        let connections = self.seen.borrow().requests.len();
        self.seen
            .send_modify(|seen| seen.requests.push(request.clone()));
        if let Some(refusal) = &self.refusal {
            let refused = Refused {
                refusal: refusal.to_json(),
                code: "not-permitted".to_owned(),
                reason: "unsigned words".to_owned(),
                retry_after_ms: 0,
            };
            writer.write(Refused::KIND, &refused.to_body()).await.ok()?;
            connection.closed().await;
            return None;
        }
        let start = self.log.start(&request);
        let exposure = self.agreement.plan.exposure_events;
        let mut ready = self
            .log
            .ready(start, request.newest_size.min(self.log.size()), exposure);
        let last = self.last(&request);
        if let Some((last, _)) = &last {
            ready.receipt_number = last.number;
            ready.receipt_size = last.size;
        }
        let mut receipted = ready.receipt_size;
        writer
            .write(countersign_protocol::SubscribeReady::KIND, &ready.to_body())
            .await
            .ok()?;
        let mut batches = self.batches(start);
        batches.reverse();
        let mut sent = 0;
        let mut has_ended = false;
        loop {
            let fits = batches
                .last()
                .is_some_and(|(message, _)| message.first < receipted + exposure);
            if fits && let Some((message, bulk)) = batches.pop() {
                if self.cuts.get(connections) == Some(&sent) {
                    if connections.is_multiple_of(2) {
                        // What was sent arrives; otherwise some of it is lost.
                        writer.finish().ok()?;
                        writer.stopped().await.ok()?;
                    }
                    connection.close(9, "the test breaks it");
                    return None;
                }
                sent += 1;
                let body = [message.to_body(), bulk.to_vec()].concat();
                self.seen
                    .send_modify(|seen| seen.frame = body.clone().into());
                let kind = if self.lie == Lie::Nonsense && sent == 2 {
                    99
                } else {
                    BatchMessage::KIND
                };
                writer.write(kind, &body).await.ok()?;
                continue;
            }
            if let Some(end) = &self.end
                && batches.is_empty()
                && !has_ended
            {
                has_ended = true;
                let ended = Ended {
                    refusal: end.to_json(),
                };
                writer.write(Ended::KIND, &ended.to_body()).await.ok()?;
            }
            let frame = reader
                .next(CONTROL_FRAME_BYTES_MAX, 0, is_bulk)
                .await
                .ok()??;
            let message = ReceiptMessage::read(frame.kind, &frame.body).unwrap();
            let receipt = self.take_receipt(&request, &message.envelope);
            receipted = receipted.max(receipt.size);
            let ack = ReceiptAck {
                number: receipt.number,
            };
            writer.write(ReceiptAck::KIND, &ack.to_body()).await.ok()?;
        }
    }

    async fn answer_witnessed(self, connection: Connection) -> Option<()> {
        loop {
            let (mut writer, mut reader) = connection.accept_bi().await.ok()?;
            let frame = reader
                .next(CONTROL_FRAME_BYTES_MAX, 0, is_bulk)
                .await
                .ok()??;
            let ask = AskWitnessed::read(frame.kind, &frame.body).unwrap();
            assert_eq!(ask.origin, self.log.origin);
            let asked = self.seen.borrow().asked;
            self.seen.send_modify(|seen| seen.asked += 1);
            let last = self.witnessed.len().checked_sub(1);
            let shown = last.map(|last| &self.witnessed[asked.min(last)]);
            let state = shown.map_or_else(
                || WitnessedState {
                    note: Vec::new(),
                    proof: Vec::new(),
                },
                |shown| shown.state(ask.size),
            );
            let (kind, body) = (WitnessedState::KIND, state.to_body());
            writer.write(kind, &body).await.ok()?;
            writer.finish().ok()?;
        }
    }

    fn batches(&self, start: u64) -> Vec<(BatchMessage, Bytes)> {
        let size = self.log.size();
        let firsts = (start..size).step_by(self.step as usize);
        let mut batches: Vec<_> = firsts
            .map(|first| self.log.batch(first, (first + self.step).min(size), size))
            .collect();
        match self.lie {
            Lie::None | Lie::Nonsense => {}
            Lie::Alter => {
                let mut bulk = batches[1].1.to_vec();
                let middle = bulk.len() / 2;
                bulk[middle] ^= 1;
                batches[1].1 = bulk.into();
            }
            Lie::Leave => drop(batches.remove(1)),
            Lie::Repeat => batches.insert(1, batches[0].clone()),
            Lie::Swap => batches.swap(1, 2),
            Lie::Forge => {
                let forger = Log {
                    key: self.org.receipt.clone(),
                    ..Log::new(&self.log.origin, &self.org.log, size - 1, 1)
                };
                let end = start + 2 * self.step;
                batches[1] = forger.batch(end - self.step, end, end);
            }
        }
        batches
    }

    fn last(&self, request: &Subscribe) -> Option<(Receipt, Envelope)> {
        let receipts = self.seen.borrow().receipts.clone();
        receipts
            .into_iter()
            .rev()
            .find(|(receipt, _)| receipt.series.0 == request.series)
    }

    /// Holds a receipt against the log and the one before.
    fn take_receipt(&self, request: &Subscribe, envelope: &[u8]) -> Receipt {
        let envelope = Envelope::from_json(envelope).unwrap();
        let receipt = Receipt::open(&envelope, &self.consumer.receipt.public()).unwrap();
        assert_eq!(
            (receipt.agreement, receipt.series.0),
            (self.agreement.id, request.series)
        );
        assert_eq!(
            (&receipt.stream, &receipt.consumer),
            (&self.agreement.stream, &self.consumer.statement.authority)
        );
        let last = self.last(request);
        let expected = last.as_ref().map_or((1, None), |(last, envelope)| {
            (last.number + 1, Some(Digest(envelope.payload_digest())))
        });
        assert_eq!((receipt.number, receipt.previous), expected);
        assert_eq!(receipt.root.0, self.log.root(receipt.size));
        let (start, end) = (receipt.start as usize, receipt.size as usize);
        let counted = self.log.entries[start..end]
            .iter()
            .map(|entry| Entry::decode(entry).unwrap())
            .filter(|entry| entry.kind == Kind::Event)
            .fold((0, 0), |(events, bytes), entry| {
                (events + 1, bytes + u64::from(entry.data_bytes))
            });
        assert_eq!((receipt.events, receipt.bytes), counted);
        let reached = last.map_or((start as u64, start as u64), |(last, _)| {
            (last.size, last.applied)
        });
        assert!(
            receipt.size >= reached.0
                && receipt.applied >= reached.1
                && receipt.applied <= receipt.size
        );
        self.seen
            .send_modify(|seen| seen.receipts.push((receipt.clone(), envelope)));
        receipt
    }

    fn receipts(&self) -> Vec<Receipt> {
        self.seen
            .borrow()
            .receipts
            .iter()
            .map(|(receipt, _)| receipt.clone())
            .collect()
    }

    /// Waits for a receipt of this kind.
    async fn receipt(&self, is_wanted: impl Fn(&Receipt) -> bool) -> Receipt {
        let mut seen = self.seen.subscribe();
        let found = |seen: &Seen| {
            seen.receipts
                .iter()
                .map(|(receipt, _)| receipt)
                .find(|one| is_wanted(one))
                .cloned()
        };
        let seen = seen.wait_for(|seen| found(seen).is_some()).await.unwrap();
        found(&seen).unwrap()
    }

    fn refuse(&self, code: RefusalCode, signer: &Org) -> Envelope {
        let refusal = Refusal {
            asked: "subscribe".to_owned(),
            principal: None,
            about: "x".to_owned(),
            code,
            reason: "because".to_owned(),
            policies: vec!["p1".to_owned()],
            advice: vec!["ask them".to_owned()],
            position: Some(8),
            made: NOW,
        };
        refusal.sign(&signer.agreement)
    }
}

/// Keeps the state where a test can look at it.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<SubscriptionState>>>);

impl KeepState for Kept {
    fn keep(&mut self, state: &SubscriptionState) -> io::Result<()> {
        self.0.lock().unwrap().push(state.clone());
        Ok(())
    }
}

impl Kept {
    fn last(&self) -> SubscriptionState {
        self.0.lock().unwrap().last().unwrap().clone()
    }
}

async fn read_all(subscriber: &mut Subscriber, ack: bool) -> Vec<u64> {
    let mut sequences = Vec::new();
    while let Some(batch) = subscriber.next().await.unwrap() {
        sequences.extend(batch.entries().map(|event| event.sequence));
        if ack {
            subscriber.ack(batch.cursor()).unwrap();
        }
    }
    sequences
}

fn texts(batch: &EventBatch) -> Vec<String> {
    batch
        .events()
        .map(|event| String::from_utf8(event.to_json().unwrap()).unwrap())
        .collect()
}

#[tokio::test]
async fn events_come_verified_with_their_positions_and_control_entries_are_left_out() {
    let producer = Producer::new(3, 100);
    let mut subscriber = Subscriber::subscribe(producer.start()).await.unwrap();
    let batch = subscriber.next().await.unwrap().unwrap();
    assert_eq!((batch.first(), batch.end()), (0, 2));
    let texts = texts(&batch);
    assert_eq!(texts.len(), 1);
    assert!(
        texts[0].contains(r#""sequence":"1""#) && texts[0].contains(r#""data":{"n":1}"#),
        "{texts:?}"
    );
    let event = batch.events().next().unwrap();
    assert_eq!((event.sequence, *event.leaf), (1, producer.log.leaf(1)));
    assert_eq!(event.time, Timestamp(1_000_001));
    assert_eq!(event.cursor(), batch.cursor());
    assert_eq!(read_all(&mut subscriber, true).await, [2]);
    assert!(subscriber.next().await.unwrap().is_none());
}

#[tokio::test]
async fn receipts_come_at_half_the_window_so_that_delivery_never_stalls() {
    let producer = Producer::new(41, 10);
    let mut subscriber = Subscriber::subscribe(producer.start()).await.unwrap();
    assert_eq!(
        read_all(&mut subscriber, false).await,
        (0..41).collect::<Vec<_>>()
    );
    subscriber.close().await.unwrap();
    let sizes: Vec<_> = producer
        .receipts()
        .iter()
        .map(|receipt| receipt.size)
        .collect();
    assert_eq!(sizes.last(), Some(&41));
    assert!(sizes.len() <= 9 && sizes[0] == 6, "{sizes:?}");
    assert!(
        producer
            .receipts()
            .iter()
            .all(|receipt| receipt.level == Level::Verified && receipt.applied == 0)
    );
}

#[tokio::test]
async fn little_is_receipted_after_a_time_and_says_what_was_applied() {
    let producer = Producer::new(5, 1_000);
    let mut options = producer.start();
    options.receipt_delay = Duration::from_millis(5);
    options.follow = true;
    let mut subscriber = Subscriber::subscribe(options).await.unwrap();
    let first = subscriber.next().await.unwrap().unwrap();
    let verified = producer.receipt(|receipt| receipt.size == 5).await;
    assert_eq!((verified.level, verified.applied), (Level::Verified, 0));
    subscriber.ack(first.cursor()).unwrap();
    producer
        .receipt(|receipt| receipt.applied == 2 && receipt.level == Level::Verified)
        .await;
    let rest = subscriber.next().await.unwrap().unwrap();
    let last = subscriber.next().await.unwrap().unwrap();
    subscriber.ack(last.cursor()).unwrap();
    producer
        .receipt(|receipt| receipt.applied == 5 && receipt.level == Level::Applied)
        .await;
    // Acknowledging what lies behind changes nothing.
    subscriber.ack(rest.cursor()).unwrap();
    subscriber.close().await.unwrap();
    assert_eq!(producer.receipts().last().unwrap().applied, 5);
}

#[tokio::test]
async fn what_was_not_handed_out_cannot_be_acknowledged() {
    let producer = Producer::new(9, 1_000);
    let mut subscriber = Subscriber::subscribe(producer.start()).await.unwrap();
    let mut cursor = subscriber.next().await.unwrap().unwrap().cursor();
    cursor.next += 1;
    let ahead = subscriber.ack(cursor);
    assert!(
        matches!(ahead, Err(SubscribeError::AckAhead { next: 3, handed: 2 })),
        "{ahead:?}"
    );
}

#[tokio::test]
async fn lies_end_the_session_and_leave_the_bytes_as_evidence() {
    for lie in [Lie::Alter, Lie::Leave, Lie::Repeat, Lie::Swap, Lie::Forge] {
        let producer = Producer {
            lie,
            ..Producer::new(20, 1_000)
        };
        let mut subscriber = Subscriber::subscribe(producer.start()).await.unwrap();
        let first = subscriber.next().await.unwrap().unwrap();
        assert_eq!(first.end(), 2, "{lie:?}");
        let error = subscriber.next().await.unwrap_err();
        let SubscribeError::Fault {
            fault, kind, frame, ..
        } = &error
        else {
            panic!("{lie:?} gave {error}");
        };
        assert_eq!(*kind, BatchMessage::KIND);
        let (message, _) = BatchMessage::read_bulk(*kind, frame).unwrap();
        match lie {
            Lie::Leave | Lie::Swap => assert_eq!(
                *fault,
                BatchFault::Position {
                    expected: 2,
                    found: 4
                }
            ),
            Lie::Repeat => assert_eq!(
                *fault,
                BatchFault::Position {
                    expected: 2,
                    found: 0
                }
            ),
            _ => assert_eq!(message.first, 2),
        }
        subscriber.close().await.unwrap();
        // Nothing of it was receipted: the first batch at most.
        assert!(
            producer.receipts().iter().all(|receipt| receipt.size <= 2),
            "{lie:?}"
        );
    }
}

#[tokio::test]
async fn a_message_out_of_place_ends_the_session() {
    let producer = Producer {
        lie: Lie::Nonsense,
        ..Producer::new(20, 1_000)
    };
    let mut subscriber = Subscriber::subscribe(producer.start()).await.unwrap();
    subscriber.next().await.unwrap().unwrap();
    let error = subscriber.next().await.unwrap_err();
    assert!(
        matches!(error, SubscribeError::Message { kind: 99, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn broken_connections_lose_nothing_and_double_nothing() {
    let producer = Producer {
        cuts: vec![1, 0, 3, 2, 0, 5],
        ..Producer::new(60, 10)
    };
    let mut options = producer.start();
    options.receipt_delay = Duration::from_millis(1);
    let mut subscriber = Subscriber::subscribe(options).await.unwrap();
    assert_eq!(
        read_all(&mut subscriber, true).await,
        (0..60).collect::<Vec<_>>()
    );
    subscriber.close().await.unwrap();
    assert_eq!(producer.seen.borrow().requests.len(), 7);
    let last = producer.receipts().last().unwrap().clone();
    assert_eq!(
        (last.size, last.applied, last.level),
        (60, 60, Level::Applied)
    );
}

#[tokio::test]
async fn a_second_run_goes_on_where_the_application_stood() {
    let producer = Producer::new(30, 10);
    let kept = Kept::default();
    let mut options = producer.start();
    let session = options.session.clone();
    options.keep = Box::new(kept.clone());
    let mut subscriber = Subscriber::subscribe(options).await.unwrap();
    let batch = subscriber.next().await.unwrap().unwrap();
    subscriber.next().await.unwrap().unwrap();
    subscriber.ack(batch.cursor()).unwrap();
    // More is verified and receipted than the application has taken.
    producer.receipt(|receipt| receipt.size >= 6).await;
    subscriber.close().await.unwrap();
    let state = kept.last();
    assert_eq!(state.cursor, Some(batch.cursor()));

    let again = Producer {
        step: 7,
        ..producer.clone()
    };
    let mut options = SubscriberOptions {
        session: session.clone(),
        state,
        keep: Box::new(kept.clone()),
        ..again.start()
    };
    options
        .session
        .addresses
        .clone_from(&again.start().session.addresses);
    let mut subscriber = Subscriber::subscribe(options).await.unwrap();
    assert_eq!(
        read_all(&mut subscriber, true).await,
        (2..30).collect::<Vec<_>>()
    );
    subscriber.close().await.unwrap();
    let last = producer.receipts().last().unwrap().clone();
    assert_eq!((last.size, last.applied), (30, 30));
    assert_eq!(kept.last().cursor.unwrap().next, 30);
}

#[tokio::test]
async fn a_receipt_is_kept_before_it_is_sent() {
    struct Failing;
    impl KeepState for Failing {
        fn keep(&mut self, _: &SubscriptionState) -> io::Result<()> {
            Err(io::ErrorKind::StorageFull.into())
        }
    }
    let producer = Producer::new(30, 10);
    let mut options = producer.start();
    options.keep = Box::new(Failing);
    let mut subscriber = Subscriber::subscribe(options).await.unwrap();
    let error = loop {
        match subscriber.next().await {
            Ok(batch) => assert!(batch.is_some()),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(
            error,
            SubscribeError::Keep {
                kind: io::ErrorKind::StorageFull
            }
        ),
        "{error}"
    );
    assert!(producer.receipts().is_empty());
}

#[tokio::test]
async fn an_older_profile_does_not_sign_against_what_it_signed() {
    let producer = Producer::new(30, 10);
    let kept = Kept::default();
    let mut options = producer.start();
    options.keep = Box::new(kept.clone());
    let session = options.session.clone();
    let mut subscriber = Subscriber::subscribe(options).await.unwrap();
    read_all(&mut subscriber, true).await;
    subscriber.close().await.unwrap();
    let ours = producer.receipts().len() as u64;
    let older = kept.0.lock().unwrap()[0].clone();
    let options = SubscriberOptions {
        state: older,
        ..producer.start()
    };
    drop(session);
    let error = Subscriber::subscribe(options).await.unwrap_err();
    assert!(
        matches!(error, SubscribeError::ReceiptSeries { theirs, ours: 1 } if theirs == ours),
        "{error}"
    );
}

#[tokio::test]
async fn a_log_that_was_made_anew_or_cut_is_a_fork() {
    let producer = Producer::new(30, 100);
    let kept = Kept::default();
    let mut options = producer.start();
    options.keep = Box::new(kept.clone());
    let mut subscriber = Subscriber::subscribe(options).await.unwrap();
    read_all(&mut subscriber, true).await;
    subscriber.close().await.unwrap();
    for (size, seed) in [(30, 2), (40, 2), (20, 1)] {
        let log = Log::new(
            producer.agreement.stream.as_str(),
            &producer.org.log,
            size,
            seed,
        );
        let other = Producer {
            log: Arc::new(log),
            ..producer.clone()
        };
        for start in [Start::Resume, Start::Sequence(0), Start::Now] {
            let options = SubscriberOptions {
                state: kept.last(),
                start,
                ..other.start()
            };
            let error = Subscriber::subscribe(options).await.unwrap_err();
            assert!(
                matches!(error, SubscribeError::Fault { .. }),
                "{size} {seed} {start:?}: {error}"
            );
        }
    }
}

#[tokio::test]
async fn reading_starts_at_a_sequence_a_time_or_now() {
    for (start, expected) in [
        (Start::Sequence(15), (15..20).collect::<Vec<_>>()),
        (Start::Sequence(99), vec![]),
        (Start::Time(Timestamp(1_000_017)), vec![17, 18, 19]),
        (Start::Now, vec![]),
        (Start::Resume, (0..20).collect()),
    ] {
        let producer = Producer::new(20, 100);
        let options = SubscriberOptions {
            start,
            ..producer.start()
        };
        let mut subscriber = Subscriber::subscribe(options).await.unwrap();
        assert_eq!(read_all(&mut subscriber, true).await, expected, "{start:?}");
        subscriber.close().await.unwrap();
    }
}

#[tokio::test]
async fn refusals_carry_code_reason_and_advice_of_the_signed_document() {
    let producer = Producer::new(5, 100);
    let signed = producer.refuse(RefusalCode::NoAgreement, &producer.org);
    let refusing = Producer {
        refusal: Some(signed.clone()),
        ..producer.clone()
    };
    let error = Subscriber::subscribe(refusing.start()).await.unwrap_err();
    let SubscribeError::Refused(refused) = error else {
        panic!("{error}")
    };
    assert_eq!(
        (refused.code.as_str(), refused.reason.as_str()),
        ("no-agreement", "because")
    );
    assert_eq!(
        (refused.advice.as_slice(), refused.position),
        (&["ask them".to_owned()][..], Some(8))
    );
    assert_eq!(refused.known_code(), Some(RefusalCode::NoAgreement));
    assert_eq!(refused.document.as_deref(), Some(&signed));

    let forged = producer.refuse(RefusalCode::NoAgreement, &producer.consumer);
    let refusing = Producer {
        refusal: Some(forged),
        ..producer
    };
    let error = Subscriber::subscribe(refusing.start()).await.unwrap_err();
    assert!(matches!(error, SubscribeError::Session(_)), "{error}");
}

#[tokio::test]
async fn a_revocation_ends_a_running_subscription_after_what_was_delivered() {
    let producer = Producer::new(8, 100);
    let end = producer.refuse(RefusalCode::NoAgreement, &producer.org);
    let producer = Producer {
        end: Some(end),
        ..producer
    };
    let mut options = producer.start();
    options.follow = true;
    let mut subscriber = Subscriber::subscribe(options).await.unwrap();
    let mut next = 0;
    let error = loop {
        match subscriber.next().await {
            Ok(batch) => next = batch.unwrap().end(),
            Err(error) => break error,
        }
    };
    assert_eq!(next, 8);
    assert!(
        matches!(&error, SubscribeError::Refused(refused) if refused.position == Some(8)),
        "{error}"
    );
}

/// What a producer shows.
type Shows = fn(&Producer) -> Vec<Witnessed>;

/// A producer of so many entries whose witnesses are what `shown` says, and a reader that wants the word of both.
fn witnessed(
    size: u64,
    shown: impl FnOnce(&Producer) -> Vec<Witnessed>,
) -> (Producer, SubscriberOptions) {
    let mut producer = Producer::new(size, 1_000);
    producer.witnessed = shown(&producer);
    let options = SubscriberOptions {
        witnessed: Some(both()),
        ..producer.start()
    };
    (producer, options)
}

impl Producer {
    fn cosigned(&self, size: u64, cosigners: usize) -> Witnessed {
        Witnessed {
            size,
            log: Arc::clone(&self.log),
            key: self.org.log.clone(),
            cosigners: (0..cosigners).map(witness).collect(),
        }
    }
}

#[tokio::test]
async fn only_what_enough_witnesses_have_cosigned_is_handed_on() {
    // One witness is no quorum; five entries end in the middle of the third batch.
    let (producer, options) = witnessed(9, |producer| {
        vec![
            producer.cosigned(9, 1),
            producer.cosigned(5, 2),
            producer.cosigned(9, 2),
        ]
    });
    let mut subscriber = Subscriber::subscribe(options).await.unwrap();
    let mut status = subscriber.status().clone();
    let said = status
        .wait_for(|status| !status.unwitnessed_because.is_empty())
        .await;
    let said = said.unwrap().unwitnessed_because.clone();
    assert!(said.starts_with("1 of the witnesses"), "{said}");
    for (end, asked) in [(2, 2), (4, 2), (6, 3), (8, 3), (9, 3)] {
        let batch = subscriber.next().await.unwrap().unwrap();
        assert_eq!(batch.end(), end);
        assert!(
            producer.seen.borrow().asked >= asked,
            "{end} was handed on too early"
        );
    }
    assert!(subscriber.next().await.unwrap().is_none());
    assert_eq!(subscriber.status().borrow().witnessed, 9);
}

#[tokio::test]
async fn a_long_history_that_is_witnessed_is_read_without_waiting() {
    // Far more than may wait at once. The witnessed checkpoint is neither the beginning nor the end of what is read.
    let (producer, options) = witnessed(200, |producer| vec![producer.cosigned(200, 2)]);
    let mut subscriber = Subscriber::subscribe(options).await.unwrap();
    let all: Vec<_> = (0..200).collect();
    assert_eq!(read_all(&mut subscriber, true).await, all);
    subscriber.close().await.unwrap();
    assert_eq!(producer.receipts().last().unwrap().applied, 200);
}

#[tokio::test]
async fn what_is_not_witnessed_waits_for_the_next_run_and_is_receipted_as_verified_only() {
    let nobody = |_: &Producer| Vec::new();
    let one = |producer: &Producer| vec![producer.cosigned(5, 1)];
    let other_log_key = |producer: &Producer| {
        let key = producer.org.receipt.clone();
        let cosigned = producer.cosigned(5, 2);
        vec![Witnessed { key, ..cosigned }]
    };
    let false_line = |producer: &Producer| {
        let cosigners = vec![witness(0), witness(7)];
        let cosigned = producer.cosigned(5, 2);
        vec![Witnessed {
            cosigners,
            ..cosigned
        }]
    };
    let one_twice = |producer: &Producer| {
        let cosigners = vec![witness(0), witness(0)];
        let cosigned = producer.cosigned(5, 2);
        vec![Witnessed {
            cosigners,
            ..cosigned
        }]
    };
    let cases: [(Shows, &str); 5] = [
        (nobody, "no checkpoint of the stream has enough"),
        (one, "1 of the witnesses"),
        (other_log_key, "is not signed by a key of the stream"),
        (false_line, "is in the name of the witness"),
        (one_twice, "is in the name of the witness"),
    ];
    let runs = cases.map(|(shown, why)| async move {
        let (producer, options) = witnessed(5, shown);
        let mut subscriber = Subscriber::subscribe(options).await.unwrap();
        let read = read_all(&mut subscriber, true).await;
        assert!(read.is_empty(), "{why}: {read:?}");
        let said = subscriber.status().borrow().unwitnessed_because.clone();
        assert!(said.contains(why), "{why}: {said}");
        subscriber.close().await.unwrap();
        let last = producer.receipts().pop().unwrap();
        assert_eq!(
            (last.size, last.applied, last.level),
            (5, 0, Level::Verified)
        );
    });
    for run in runs.map(tokio::spawn) {
        run.await.unwrap();
    }
}

#[tokio::test]
async fn witnesses_of_another_history_are_evidence_against_the_producer() {
    for size in [3, 5] {
        let (_, options) = witnessed(5, |producer| {
            let key = producer.org.log.clone();
            let log = Arc::new(Log::new(&producer.log.origin, &key, 5, 2));
            let cosigned = producer.cosigned(size, 2);
            vec![Witnessed { log, ..cosigned }]
        });
        let mut subscriber = Subscriber::subscribe(options).await.unwrap();
        let error = subscriber.next().await.unwrap_err();
        let SubscribeError::Fault { fault, frame, .. } = error else {
            panic!("{error}");
        };
        assert!(matches!(fault, BatchFault::Tree { .. }), "{fault}");
        let state = WitnessedState::read(WitnessedState::KIND, &frame).unwrap();
        assert!(!state.note.is_empty(), "what it showed is kept");
    }
}
