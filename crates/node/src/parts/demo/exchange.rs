//! What flows: events one way, receipts the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign_client::publisher::{PublishError, Publisher, PublisherOptions};
use countersign_client::session::{Expected, SessionOptions};
use countersign_crypto::{Entropy as _, OsEntropy, SigningKey};
use countersign_event::content::Event;
use countersign_event::documents::{Receipt, Role};
use countersign_event::dsse::Envelope;
use countersign_event::encryption::Encryption;
use countersign_event::names::Origin;
use countersign_exchange::Log;
use countersign_store::ledger::{ReceiptFilter, ReceiptRow};
use countersign_tlog::checkpoint::{note_from_signature, verify_signature};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::cast::{Actor, Cast};
use super::teller::Teller;
use super::{broken, ensure, quakes};
use crate::admin::{Channel, Command, StartAt};
use crate::commands::{exchange_error, internal, session_error};
use crate::errors::{CommandError, ErrorCode};

/// The stream's name.
pub(super) const STREAM: &str = "earthquakes";

/// Longest wait for anything: many times what a slow machine needs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Receipts looked through; the demo makes a handful.
const RECEIPTS_MAX: u32 = 1_000;

/// Ledger entries shown of each side.
const LEDGER_ROWS: u32 = 6;

/// The stream, and what of it is still to come.
pub(super) struct Published {
    pub(super) origin: Origin,
    log: Arc<Log>,
    /// All events of the story, those still to be published too.
    events: Vec<Event>,
    /// How many are published.
    done: usize,
    publisher: Option<Publisher>,
    /// Events as the partner read them.
    pub(super) read: Vec<Value>,
}

/// The stream is made, an application enrolled, and the first half of the events handed in over QUIC.
pub(super) async fn publish(
    cast: &Cast,
    teller: &mut Teller<'_>,
) -> Result<(Published, Value), CommandError> {
    let producer = &cast.producer;
    let create = Command::StreamCreate {
        stream: STREAM.to_owned(),
        title: Some("Earthquakes of magnitude 2.5 and above, worldwide".to_owned()),
        labels: vec!["listed".to_owned()],
        fields: false,
        author: None,
        cites: None,
        encryption: Encryption::None,
        epoch_entries: 0,
        epoch_seconds: 0,
    };
    producer.call(&create).await?;
    let log = producer.exchange.own_stream(STREAM).map_err(internal)?;
    let publisher = enrolled(producer).await?;
    let mut published = Published {
        origin: log.origin().clone(),
        log,
        events: quakes::events()?,
        done: 0,
        publisher: Some(publisher),
        read: Vec::new(),
    };
    let first: Vec<Event> = published.events[..published.events.len() / 2].to_vec();
    let data_bytes: usize = first
        .iter()
        .map(|event| event.data_part_bytes().len())
        .sum();
    let begun = Instant::now();
    hand_in(&published, &first).await?;
    let took = begun.elapsed();
    published.done = first.len();
    let each = took.as_secs_f64() * 1e6 / first.len() as f64;
    teller.say(&format!(
        "An application enrolled under its own key handed in {} events ({} kB) over QUIC. Each was acknowledged once it was synced to the disk, \
         hash-chained, and under a signed checkpoint: {:.1} ms in all, {each:.0} µs per event.",
        first.len(),
        data_bytes.div_ceil(1000),
        took.as_secs_f64() * 1e3,
    ))?;
    let head = checkpoint(producer, &published)?;
    teller.fact("stream", published.origin.as_str())?;
    teller.fact(
        "size",
        &format!(
            "{} entries: the genesis and {} events",
            head.size,
            first.len()
        ),
    )?;
    teller.fact("root", &hex::encode(head.root))?;
    teller.fact("signature", &head.signature)?;
    teller.proof("the signature over size and root holds under the log key")?;
    ensure(
        head.size == first.len() as u64 + 1,
        "the log has another size than what was acknowledged",
    )?;
    let facts = json!({
        "stream": published.origin,
        "events": first.len(),
        "data_bytes": data_bytes,
        "publish_us": u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        "us_per_event": (each * 10.0).round() / 10.0,
        "size": head.size,
        "root": hex::encode(head.root),
        "checkpoint": head.note,
        "signature_verified": true,
    });
    Ok((published, facts))
}

/// The partner catches up, then sees the second half while it is published; receipts for all of it come back.
pub(super) async fn follow(
    cast: &Cast,
    published: &mut Published,
    teller: &mut Teller<'_>,
) -> Result<Value, CommandError> {
    let (producer, partner) = (&cast.producer, &cast.partner);
    let mut channel = partner.node.channel().await?;
    let name = format!("seismic-survey/{STREAM}");
    let follow = Command::Subscribe {
        witnessed: false,
        stream: name.clone(),
        from: Some(StartAt::Start),
        count: None,
        follow: true,
        app: None,
        filter: None,
    };
    channel.send(&follow).await?;
    let mut read = Vec::with_capacity(published.events.len());
    for _ in 0..published.done {
        read.push(next_event(&mut channel).await?);
    }
    teller.say(&format!("Its node dialled, caught up with {} events, verified each batch against the signed root, and stored its own copy:", published.done))?;
    for item in read.iter().rev().take(3).rev() {
        teller.row(&quakes::shown(item))?;
    }
    let first_receipt = receipt_for(producer, &published.origin, published.log.size()).await?;
    teller.proof(&format!(
        "receipt {}: {} has signed for {} events, and {} holds it",
        first_receipt.number,
        partner.name(),
        first_receipt.events,
        producer.name()
    ))?;
    let second: Vec<Event> = published.events[published.done..].to_vec();
    let mut arrived = Vec::with_capacity(second.len());
    let (handed, live) = tokio::join!(hand_in(published, &second), async {
        for _ in 0..second.len() {
            read.push(next_event(&mut channel).await?);
            arrived.push(Instant::now());
        }
        Ok::<(), CommandError>(())
    });
    let handed = handed?;
    live?;
    let caught_up = published.done;
    published.done += second.len();
    if let Some(publisher) = published.publisher.take() {
        publisher.close().await.map_err(publish_error)?;
    }
    let mut lags: Vec<Duration> = arrived
        .iter()
        .zip(&handed)
        .map(|(arrived, handed)| arrived.saturating_duration_since(*handed))
        .collect();
    lags.sort_unstable();
    let middle = lags[lags.len() / 2].as_secs_f64() * 1e3;
    let longest = lags[lags.len() - 1].as_secs_f64() * 1e3;
    teller.say(&format!(
        "While it follows, {} more are published, the strongest of the week among them:",
        second.len()
    ))?;
    let strongest = read
        .iter()
        .find(|item| item["data"]["id"] == quakes::STRONGEST)
        .cloned();
    let strongest = strongest.ok_or_else(|| broken("the strongest earthquake did not arrive"))?;
    teller.row(&quakes::shown(&strongest))?;
    teller.fact(
        "delay",
        &format!(
            "from hand-in to the partner's reader: median {middle:.1} ms, longest {longest:.1} ms"
        ),
    )?;

    let size = published.log.size();
    ensure(
        size == published.events.len() as u64 + 1,
        "not every event was published",
    )?;
    let receipt = receipt_for(producer, &published.origin, size).await?;
    receipt_for(partner, &published.origin, size).await?;
    let copy = partner
        .exchange
        .log(&published.origin)
        .ok_or_else(|| broken("the partner holds no copy"))?;
    let same = copy.head().root == published.log.head().root
        && leaves_agree(producer, &published.log, &read)?;
    ensure(same, "the partner's copy differs from the producer's log")?;
    let status = partner.call(&Command::Status).await?;
    let lag = status["subscriptions"][0]["lag"]
        .as_u64()
        .ok_or_else(|| broken("the partner's status shows no subscription"))?;
    ensure(
        lag == 0,
        "the partner's copy lags behind though it is receipted",
    )?;
    teller.proof(&format!(
        "the copy has the same {size} entries and the same root; lag {lag}"
    ))?;
    teller.proof(&format!(
        "receipt {} follows on receipt {} and stands for all {} events",
        receipt.number, first_receipt.number, receipt.events
    ))?;
    let facts = json!({
        "stream": name,
        "caught_up_events": caught_up,
        "live_events": second.len(),
        "first_three": &read[..3],
        "strongest": strongest,
        "delay_median_us": (middle * 1e3).round(),
        "delay_max_us": (longest * 1e3).round(),
        "size": size,
        "root": hex::encode(copy.head().root),
        "leaves_equal": true,
        "lag": lag,
        "first_receipt_number": first_receipt.number,
        "first_receipted_events": first_receipt.events,
        "receipt_number": receipt.number,
        "receipted_size": receipt.size,
        "receipted_events": receipt.events,
    });
    published.read = read;
    Ok(facts)
}

/// The last receipt and the ledger's rows, as each side holds them.
pub(super) async fn receipts(
    cast: &Cast,
    published: &Published,
    teller: &mut Teller<'_>,
) -> Result<Value, CommandError> {
    let size = published.log.size();
    let signer = &cast.partner.exchange.identity().statement;
    let mut sides = Vec::new();
    for (actor, other) in [
        (&cast.producer, &cast.partner),
        (&cast.partner, &cast.producer),
    ] {
        let row = receipt_for(actor, &published.origin, size).await?;
        let envelope = Envelope::from_json(row.envelope.as_bytes()).map_err(internal)?;
        let receipt: Receipt = signer
            .open_signed(Role::Receipt, &envelope)
            .map_err(|error| {
                broken(format_args!(
                    "the receipt that {} holds is not in order: {error}",
                    actor.name()
                ))
            })?;
        let digest = hex::encode(envelope.payload_digest());
        let ledger = ledger_rows(actor, other).await?;
        let verified = actor.call(&Command::LedgerVerify).await?;
        ensure(
            verified["whole"] == true,
            "a ledger does not agree with its logs",
        )?;
        teller.say(&format!(
            "{} holds receipt {}: {} events, {} data bytes, level {}",
            actor.name(),
            receipt.number,
            receipt.events,
            receipt.bytes,
            word(&receipt.level)
        ))?;
        teller.fact("sha256", &digest)?;
        teller.fact(
            "ledger",
            &format!("what it says of {} (times in UTC)", other.name()),
        )?;
        for row in &ledger {
            let time = row["time"].as_str().unwrap_or_default();
            let time: String = time.chars().skip(11).take(12).collect();
            let what = row["summary"].as_str().unwrap_or("this ledger log begins");
            teller.row(&format!(
                "{time}  {:<14} {what}",
                row["kind"].as_str().unwrap_or_default()
            ))?;
        }
        sides.push(json!({
            "organization": actor.name(),
            "receipt_sha256": digest,
            "number": receipt.number,
            "size": receipt.size,
            "events": receipt.events,
            "data_bytes": receipt.bytes,
            "level": receipt.level,
            "ledger": ledger,
            "ledger_verified": verified["whole"],
        }));
    }
    ensure(
        sides[0]["receipt_sha256"] == sides[1]["receipt_sha256"],
        "the two sides hold different receipts",
    )?;
    teller.proof("the same receipt on both sides, verified under the partner's key: neither can deny what was delivered")?;
    Ok(json!({ "sides": { "producer": sides[0], "partner": sides[1] }, "receipts_equal": true }))
}

async fn ledger_rows(actor: &Actor, other: &Actor) -> Result<Vec<Value>, CommandError> {
    let list = Command::LedgerLs {
        partner: Some(other.authority().to_string()),
        stream: None,
        kind: None,
        since: None,
        until: None,
        limit: LEDGER_ROWS,
    };
    actor.items(&list).await
}

/// An application of the producer: a key of its own, enrolled by one command.
async fn enrolled(producer: &Actor) -> Result<Publisher, CommandError> {
    let mut entropy = OsEntropy::new().map_err(|error| CommandError::new(ErrorCode::Io, error))?;
    let key = SigningKey::generate(&mut entropy);
    let mut series = [0; 16];
    entropy.fill(&mut series);
    let enrol = Command::AppAdd {
        app: "seismograph".to_owned(),
        key: key.public().to_base64(),
    };
    producer.call(&enrol).await?;
    let clock = Arc::clone(producer.exchange.clock());
    let session = SessionOptions::new(
        vec![producer.address()],
        Expected::organization(producer.fingerprint().clone()),
        key,
        Arc::new(move || clock.now()),
    );
    let options = PublisherOptions::new(session, STREAM, series, Box::new(entropy));
    Publisher::connect(options).await.map_err(publish_error)
}

/// Hands events in and waits until all are acknowledged; when each was handed in comes back.
async fn hand_in(published: &Published, events: &[Event]) -> Result<Vec<Instant>, CommandError> {
    let publisher = published
        .publisher
        .as_ref()
        .ok_or_else(|| broken("the publisher is closed"))?;
    let work = async {
        let mut handed = Vec::with_capacity(events.len());
        for event in events {
            handed.push(Instant::now());
            publisher.publish_event(event).await?;
        }
        publisher.flush().await?;
        Ok(handed)
    };
    timeout(PATIENCE, work)
        .await
        .map_err(|_| late("acknowledgements"))?
        .map_err(publish_error)
}

async fn next_event(channel: &mut Channel) -> Result<Value, CommandError> {
    loop {
        let reply = timeout(PATIENCE, channel.next())
            .await
            .map_err(|_| late("an event at the partner"))??;
        match reply {
            Some(reply) => {
                if let Some(item) = reply.item() {
                    return Ok(item);
                }
            }
            None => return Err(broken("following ended by itself")),
        }
    }
}

/// The receipt for `size` entries as this side's ledger holds it, as soon as it does.
async fn receipt_for(
    actor: &Actor,
    stream: &Origin,
    size: u64,
) -> Result<ReceiptRow, CommandError> {
    let filter = ReceiptFilter {
        stream: Some(stream.clone()),
        ..ReceiptFilter::default()
    };
    let mut moved = actor.exchange.ledger_moved();
    let wait = async {
        loop {
            // Marked before looking, so that what comes in between is not missed.
            moved.mark_unchanged();
            actor
                .exchange
                .refresh_view()
                .await
                .map_err(exchange_error)?;
            let rows = actor
                .exchange
                .view()
                .receipts(&filter, RECEIPTS_MAX)
                .await
                .map_err(internal)?;
            if let Some(row) = rows.into_iter().find(|row| row.size == size) {
                return Ok(row);
            }
            moved.changed().await.map_err(internal)?;
        }
    };
    timeout(PATIENCE, wait)
        .await
        .map_err(|_| late("the receipt"))?
}

/// Whether the entries that the partner read are those of the producer's log.
fn leaves_agree(producer: &Actor, log: &Log, read: &[Value]) -> Result<bool, CommandError> {
    for item in read {
        let sequence = item["sequence"]
            .as_u64()
            .ok_or_else(|| broken("an event came without its sequence"))?;
        let leaf = producer
            .exchange
            .reader()
            .leaf_hash(log.number(), sequence)
            .map_err(internal)?;
        if item["leaf"] != hex::encode(leaf) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A signed head, verified.
struct Head {
    size: u64,
    root: [u8; 32],
    /// The note's signature line without the key's name.
    signature: String,
    note: String,
}

fn checkpoint(producer: &Actor, published: &Published) -> Result<Head, CommandError> {
    let signed = published
        .log
        .head()
        .signed()
        .ok_or_else(|| broken("the log's head is not signed"))?;
    let signature = signed
        .signature()
        .ok_or_else(|| broken("the head's signature is malformed"))?;
    let checkpoint = signed.checkpoint(published.origin.as_str());
    let key = producer.exchange.identity().log_key.public();
    verify_signature(&checkpoint, &key, &signature)
        .map_err(|_| broken("the head's signature does not hold"))?;
    let note = note_from_signature(&checkpoint, &key, signature);
    let line = note.lines().last().and_then(|line| line.rsplit(' ').next());
    Ok(Head {
        size: signed.size,
        root: signed.root,
        signature: line.unwrap_or_default().to_owned(),
        note,
    })
}

fn late(what: &str) -> CommandError {
    CommandError::new(
        ErrorCode::Busy,
        format_args!("{what} did not come within {} s", PATIENCE.as_secs()),
    )
    .advise("the machine may be very busy: try again")
}

fn publish_error(error: PublishError) -> CommandError {
    match error {
        PublishError::Session(error) => session_error(&error),
        error => internal(error),
    }
}

fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(text)) => text,
        _ => String::new(),
    }
}
