//! Keeping in touch: sessions with partners, and the subscriptions that we read.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use countersign_client::quic::{Connection, FrameReader, FrameWriter};
use countersign_client::session::Backoff;
use countersign_event::documents::{AgreementId, Document as _, Refusal, Role};
use countersign_event::dsse::Envelope;
use countersign_event::names::{Authority, Origin};
use countersign_exchange::pipeline::consume::{ConsumeError, Consumption};
use countersign_exchange::{AgreementState, Exchange};
use countersign_protocol::delivery::BatchMessage;
use countersign_protocol::{
    Ended, Heads, Keys, Message as _, Notice, ReceiptMessage, Refused, Skipped, Subscribe,
    SubscribeReady,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::frames::{FrameGone, gone, next};
use crate::server::Shared;
use crate::witness;

/// The word of [`countersign_event::documents::RefusalCode::CursorMismatch`].
const CURSOR_MISMATCH: &str = "cursor-mismatch";

/// How soon what is durable is receipted after a quiet time.
const RECEIPT_DELAY: Duration = Duration::from_millis(200);

/// How far receipts are apart where the window does not ask for them sooner: each is a ledger entry of about 1 KiB on both sides, so a
/// stream that never rests costs 40 MiB of ledger a day.
const RECEIPT_SPACING: Duration = Duration::from_secs(2);

/// How long the producer may take to answer a subscription: it writes its decision to the disk first.
const READY: Duration = Duration::from_secs(15);

/// The longest wait before dialling or subscribing again.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(100),
    longest: Duration::from_secs(10),
    attempts_max: None,
};

/// How often agreements are looked at though nothing is known to have changed: their periods begin and end by the clock.
const LOOK: Duration = Duration::from_secs(1);

/// Keeps a session with every partner that we should dial: the ones we read from, and, where nobody can dial us, the ones that read from us.
pub(crate) async fn keep_connected(shared: Arc<Shared>) {
    let mut dialling = JoinSet::new();
    let mut busy: HashSet<Authority> = HashSet::new();
    let mut access = shared.exchange.watch_access();
    let mut moved = shared.sessions_moved.subscribe();
    loop {
        for partner in partners_to_dial(&shared) {
            if shared.session(&partner).is_none() && busy.insert(partner.clone()) {
                dialling.spawn(dial(Arc::clone(&shared), partner));
            }
        }
        tokio::select! {
            _ = access.changed() => {}
            _ = moved.changed() => {}
            () = sleep(LOOK) => {}
            Some(done) = dialling.join_next() => if let Ok(partner) = done { busy.remove(&partner); },
        }
    }
}

fn partners_to_dial(shared: &Shared) -> Vec<Authority> {
    let exchange = &shared.exchange;
    let now = exchange.clock().now();
    let own = exchange.identity().authority();
    // Looked up before the registry is held, which it reads too.
    let asked = exchange.unanswered_by();
    // What is proposed is to be told and answered.
    let talking = exchange.talks_with();
    // As long as a stream waits for answers, whoever may give one is dialled.
    let awaited = exchange.awaited_readers();
    let registry = exchange.registry();
    let active = |partner: &Authority| {
        let mut agreements = registry.agreements.values();
        agreements.any(|state| state.counterparty(own) == partner && state.lasts(now))
    };
    // Nobody else would begin a session any more.
    let asked = asked.into_iter().filter(|partner| !active(partner));
    let wanted: HashSet<_> = registry
        .agreements
        .values()
        .filter(|state| state.lasts(now))
        .filter(|state| state.agreement.consumer.authority == *own || shared.advertise.is_empty())
        .map(|state| state.counterparty(own).clone())
        .chain(asked)
        .chain(talking)
        .chain(awaited)
        .collect();
    let reachable = |partner: &Authority| {
        let known = registry.partners.get(partner);
        known.is_some_and(|known| !known.addresses.is_empty() && known.revoked.is_none())
    };
    wanted.into_iter().filter(reachable).collect()
}

async fn dial(shared: Arc<Shared>, partner: Authority) -> Authority {
    let mut attempt = 0;
    while shared.session(&partner).is_none() && partners_to_dial(&shared).contains(&partner) {
        match shared.dial(&partner).await {
            Ok(()) => break,
            Err(error) => {
                tracing::debug!(%partner, %error, "a partner could not be reached");
                pause(&shared.exchange, attempt).await;
                attempt = attempt.saturating_add(1);
            }
        }
    }
    partner
}

async fn pause(exchange: &Exchange, attempt: u32) {
    let wait = exchange.with_entropy(|entropy| BACKOFF.wait(attempt.min(16), entropy));
    sleep(wait.unwrap_or(BACKOFF.longest)).await;
}

/// Tells a partner of what we signed about agreements with it, of requests to erase and of our answers, and of our keys. It answers the same however often it hears it.
pub(crate) async fn tell_notices(
    exchange: Arc<Exchange>,
    partner: Authority,
    connection: Connection,
) {
    let mut access = exchange.watch_access();
    let mut erasures = exchange.watch_erasures();
    let mut told: HashSet<Vec<u8>> = HashSet::new();
    loop {
        for envelope in exchange.notices_for(&partner) {
            let envelope = envelope.to_json();
            if told.contains(&envelope) {
                continue;
            }
            match Box::pin(tell(&connection, &envelope)).await {
                Ok(()) => {
                    exchange.notice_told(&partner, &envelope);
                    told.insert(envelope);
                }
                Err(error) => {
                    return tracing::debug!(%partner, %error, "a notice could not be delivered; it is told at the next session");
                }
            }
        }
        tokio::select! {
            changed = access.changed() => if changed.is_err() { return },
            changed = erasures.changed() => if changed.is_err() { return },
            _ = connection.closed() => return,
        }
    }
}

pub(crate) async fn tell(connection: &Connection, envelope: &[u8]) -> Result<(), FrameGone> {
    let (mut writer, mut reader) = connection.open_bi().await.map_err(gone)?;
    let notice = Notice {
        envelope: envelope.to_vec(),
    };
    writer
        .write(Notice::KIND, &notice.to_body())
        .await
        .map_err(gone)?;
    writer.finish().map_err(gone)?;
    timeout(READY, next(&mut reader)).await.map_err(gone)??;
    Ok(())
}

/// Keeps every subscription running that an active agreement gives us.
pub(crate) async fn keep_subscribed(shared: Arc<Shared>) {
    let mut running: HashMap<Origin, tokio::task::AbortHandle> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut access = shared.exchange.watch_access();
    loop {
        let wanted = agreements_to_read(&shared.exchange);
        running.retain(|_, task| !task.is_finished());
        // By log: under a newer agreement reading begins once the closing receipt of the older one is written.
        for (agreement, stream) in wanted {
            running
                .entry(stream)
                .or_insert_with(|| tasks.spawn(keep_reading(Arc::clone(&shared), agreement)));
        }
        tokio::select! {
            _ = access.changed() => {}
            () = sleep(LOOK) => {}
            Some(_) = tasks.join_next() => {}
        }
    }
}

fn agreements_to_read(exchange: &Exchange) -> Vec<(AgreementId, Origin)> {
    let now = exchange.clock().now();
    let own = exchange.identity().authority();
    let registry = exchange.registry();
    let mine = registry
        .agreements
        .values()
        .filter(|state| state.agreement.consumer.authority == *own);
    // One agreement for each log, the newest: two readers of one copy would keep tripping over each other, and receipt each event twice.
    let newest = |state: &AgreementState| {
        let newest = registry.active_agreement(own, &state.agreement.stream, now);
        newest.is_some_and(|newest| newest.agreement.id == state.agreement.id)
    };
    // A log that has signed two histories is never read again.
    mine.filter(|state| newest(state) && !registry.forked.contains(&state.agreement.stream))
        .map(|state| (state.agreement.id, state.agreement.stream.clone()))
        .collect()
}

/// Reading ended, to be tried again as long as it is wanted.
struct Stopped {
    progressed: bool,
    /// Until a person has looked, and restarted the node.
    for_good: bool,
    /// A head came under a key that its organization has revoked.
    revoked: bool,
}

async fn keep_reading(shared: Arc<Shared>, agreement: AgreementId) {
    let mut attempt = 0;
    let mut moved = shared.sessions_moved.subscribe();
    let mut access = shared.exchange.watch_access();
    let wanted = |(id, _): &(AgreementId, Origin)| *id == agreement;
    while agreements_to_read(&shared.exchange).iter().any(wanted) {
        let mut consumption = match Consumption::open(&shared.exchange, agreement).await {
            Ok(consumption) => consumption,
            Err(error) => {
                tracing::warn!(%agreement, %error, "a subscription cannot be prepared");
                pause(&shared.exchange, attempt).await;
                attempt = attempt.saturating_add(1);
                continue;
            }
        };
        let Some(connection) = shared.session(consumption.producer()) else {
            tokio::select! {
                _ = moved.changed() => {}
                () = sleep(LOOK) => {}
            }
            continue;
        };
        access.mark_unchanged();
        moved.mark_unchanged();
        let stopped = read(&shared.exchange, &mut consumption, &connection).await;
        consumption.disconnected();
        if stopped.revoked {
            // Until the producer has said more of its keys, or another session has begun.
            tokio::select! {
                _ = access.changed() => {}
                _ = moved.changed() => {}
            }
            continue;
        }
        if stopped.for_good {
            tracing::error!(stream = %consumption.stream(), "reading has stopped: content was withheld under a false claim; the evidence is kept");
            std::future::pending::<()>().await;
        }
        attempt = if stopped.progressed {
            0
        } else {
            attempt.saturating_add(1)
        };
        pause(&shared.exchange, attempt).await;
    }
}

async fn read(
    exchange: &Arc<Exchange>,
    consumption: &mut Consumption,
    connection: &Connection,
) -> Stopped {
    let mut progressed = false;
    match subscribe(exchange, consumption, connection, &mut progressed).await {
        Ok(()) => Stopped {
            progressed,
            for_good: false,
            revoked: false,
        },
        Err(ReadError::Consume(error @ ConsumeError::Revoked { .. })) => {
            tracing::error!(stream = %consumption.stream(), %error, "reading stopped");
            Stopped {
                progressed,
                for_good: false,
                revoked: true,
            }
        }
        Err(ReadError::Consume(error)) => {
            tracing::warn!(stream = %consumption.stream(), %error, "reading stopped");
            if error.is_fork()
                && let Err(error) =
                    witness::compare(exchange, connection, consumption.stream()).await
            {
                tracing::debug!(stream = %consumption.stream(), %error, "the producer did not say how its log goes on");
            }
            Stopped {
                progressed,
                for_good: error.is_false_claim(),
                revoked: false,
            }
        }
        Err(ReadError::Gone(error)) => {
            tracing::debug!(stream = %consumption.stream(), %error, "a subscription ended");
            Stopped {
                progressed,
                for_good: false,
                revoked: false,
            }
        }
    }
}

enum ReadError {
    Consume(ConsumeError),
    Gone(FrameGone),
}

impl From<ConsumeError> for ReadError {
    fn from(error: ConsumeError) -> Self {
        Self::Consume(error)
    }
}

impl From<FrameGone> for ReadError {
    fn from(error: FrameGone) -> Self {
        Self::Gone(error)
    }
}

async fn subscribe(
    exchange: &Arc<Exchange>,
    consumption: &mut Consumption,
    connection: &Connection,
    progressed: &mut bool,
) -> Result<(), ReadError> {
    let (mut writer, mut reader) = connection.open_bi().await.map_err(gone)?;
    let request = consumption.request();
    writer
        .write(Subscribe::KIND, &request.to_body())
        .await
        .map_err(gone)?;
    let answer = timeout(READY, next(&mut reader)).await.map_err(gone)??;
    let answer = answer.ok_or_else(|| gone("the producer ended the stream without an answer"))?;
    if answer.kind == Refused::KIND {
        let refused = Refused::read(answer.kind, &answer.body).map_err(gone)?;
        note_refusal(exchange, consumption, &refused.refusal);
        if refused.code == CURSOR_MISMATCH {
            // It does not know what it signed before: another history, or an older copy of this one?
            witness::compare(exchange, connection, consumption.stream()).await?;
        }
        return Err(gone(format!("refused ({}): {}", refused.code, refused.reason)).into());
    }
    let ready = SubscribeReady::read(answer.kind, &answer.body).map_err(gone)?;
    let followed = follow(
        exchange,
        consumption,
        &ready,
        (&mut writer, &mut reader),
        progressed,
    );
    let followed = followed.await;
    if let Err(ReadError::Consume(ConsumeError::Revoked { refused })) = &followed {
        // It ends the session; whether it arrives changes nothing.
        let no = refused.message().to_body();
        let _ = writer.write(Refused::KIND, &no).await;
        let _ = writer.finish();
    }
    followed
}

async fn follow(
    exchange: &Arc<Exchange>,
    consumption: &mut Consumption,
    ready: &SubscribeReady,
    (writer, reader): (&mut FrameWriter, &mut FrameReader),
    progressed: &mut bool,
) -> Result<(), ReadError> {
    for envelope in consumption.begin(ready).await? {
        send_receipt(writer, &envelope).await?;
    }
    let mut tick = interval(RECEIPT_DELAY);
    let mut access = exchange.watch_access();
    let mut receipted: Option<Instant> = None;
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            frame = next(reader) => {
                let Some(frame) = frame? else { return Ok(()) };
                match frame.kind {
                    BatchMessage::KIND => {
                        let (message, bulk) = BatchMessage::read_bulk(frame.kind, &frame.body).map_err(gone)?;
                        consumption.take(message, bulk, &frame.body).await?;
                        *progressed = true;
                    }
                    Keys::KIND => {
                        let keys = Keys::read(frame.kind, &frame.body).map_err(gone)?;
                        consumption.take_keys(&keys)?;
                    }
                    Skipped::KIND => {
                        let skipped = Skipped::read(frame.kind, &frame.body).map_err(gone)?;
                        consumption.take_claim(skipped.claim);
                    }
                    Heads::KIND => {
                        let heads = Heads::read(frame.kind, &frame.body).map_err(gone)?;
                        consumption.take_heads(&heads)?;
                    }
                    Ended::KIND => {
                        let ended = Ended::read(frame.kind, &frame.body).map_err(gone)?;
                        note_refusal(exchange, consumption, &ended.refusal);
                        return close(consumption, writer, reader).await;
                    }
                    // Acknowledged receipts are in both ledgers; nothing else is to be done.
                    countersign_protocol::ReceiptAck::KIND => {}
                    kind => return Err(gone(format!("kind {kind} has no place in a subscription")).into()),
                }
            }
            receipt = consumption.progress() => if let Some(envelope) = receipt? {
                send_receipt(writer, &envelope).await?;
            },
            // Under a newer agreement another session goes on where this one closes its series.
            _ = access.changed() => {
                if exchange.has_forked(consumption.stream()) {
                    return Ok(());
                }
                if is_superseded(exchange, consumption) {
                    return close(consumption, writer, reader).await;
                }
            }
            _ = tick.tick() => {
                let spaced = receipted.is_none_or(|last| last.elapsed() >= RECEIPT_SPACING);
                if spaced && consumption.receipt_is_possible() {
                    consumption.sign_receipt().await?;
                    receipted = Some(Instant::now());
                }
            }
        }
        if consumption.receipt_is_due() {
            consumption.sign_receipt().await?;
            receipted = Some(Instant::now());
        }
    }
}

fn is_superseded(exchange: &Exchange, consumption: &Consumption) -> bool {
    let (own, now) = (exchange.identity().authority(), exchange.clock().now());
    let registry = exchange.registry();
    let newest = registry.active_agreement(own, consumption.stream(), now);
    newest.is_some_and(|newest| newest.agreement.id != consumption.agreement())
}

async fn send_receipt(writer: &mut FrameWriter, envelope: &Envelope) -> Result<(), FrameGone> {
    let message = ReceiptMessage {
        envelope: envelope.to_json(),
    };
    writer
        .write(ReceiptMessage::KIND, &message.to_body())
        .await
        .map_err(gone)
}

/// The closing receipt: for everything that came before the end.
async fn close(
    consumption: &mut Consumption,
    writer: &mut FrameWriter,
    reader: &mut FrameReader,
) -> Result<(), ReadError> {
    while consumption.has_pending() || consumption.is_signing() {
        if let Some(envelope) = consumption.progress().await? {
            send_receipt(writer, &envelope).await?;
        }
    }
    if consumption.receipt_is_possible() {
        consumption.sign_receipt().await?;
        while consumption.is_signing() {
            if let Some(envelope) = consumption.progress().await? {
                send_receipt(writer, &envelope).await?;
            }
        }
    }
    writer.finish().map_err(gone)?;
    // Until the producer has answered and ended its side.
    let drained = async { while let Ok(Some(_)) = next(reader).await {} };
    let _ = timeout(READY, drained).await;
    Ok(())
}

/// A signed refusal that we got is kept, if it is the producer's.
fn note_refusal(exchange: &Arc<Exchange>, consumption: &Consumption, envelope: &[u8]) {
    let Ok(envelope) = Envelope::from_json(envelope) else {
        return;
    };
    let statement = {
        let registry = exchange.registry();
        registry
            .partners
            .get(consumption.producer())
            .map(|partner| partner.statement.clone())
    };
    let signed = statement.and_then(|statement| {
        exchange
            .statement_in_force(&statement)
            .open_signed::<Refusal>(Role::Agreement, &envelope)
            .ok()
    });
    if let Some(refusal) = signed {
        debug_assert_eq!(envelope.payload_type(), Refusal::PAYLOAD_TYPE);
        tracing::info!(stream = %consumption.stream(), reason = refusal.reason, "the producer refused or ended the subscription");
        exchange.note_refusal_got(
            consumption.producer(),
            consumption.stream(),
            &refusal,
            &envelope,
        );
    }
}
