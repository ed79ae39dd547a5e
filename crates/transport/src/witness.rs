//! Witnessing between nodes: heads out and cosignatures back, questions about logs. What may be asked and answered is the exchange's to say.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use countersign_client::quic::{Connection, FrameWriter};
use countersign_event::names::{Authority, Origin};
use countersign_exchange::{
    ADD_CHECKPOINTS_MAX, Examined, Exchange, ExchangeError, Heard, Log, Peer, Said, Submission,
    WitnessId,
};
use countersign_protocol::delivery::BatchMessage;
use countersign_protocol::{
    AddCheckpoints, AskLog, Cosigned, FetchBack, LogState, Message as _, Refused, WitnessSaid,
};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::frames::{FrameGone, gone, next};

/// How often it is looked whether heads are due: no head is shown more often than once a second.
const LOOK: Duration = Duration::from_millis(500);

/// Logs whose growth is waited for; of more it is looked which have grown.
const WATCHED_MAX: usize = 64;

/// The longest rest where nothing grows.
const REST: Duration = Duration::from_secs(60);

/// The longest wait after a partner did not answer.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// How long a witness may take: it syncs a disk.
const ANSWER: Duration = Duration::from_secs(10);

/// Shows a partner our heads as long as the connection lives, one message at a time. Nothing waits for it.
pub(crate) async fn submit_to_partner(
    exchange: Arc<Exchange>,
    partner: Authority,
    connection: Connection,
) {
    let mut access = exchange.watch_access();
    let witness = WitnessId::Partner(partner);
    loop {
        access.mark_unchanged();
        let shown = exchange.shown_to(&witness);
        tokio::select! {
            () = submit_all(&exchange, &witness, &connection, &shown) => {}
            // Agreements begin and end: what is shown is looked at again.
            changed = access.changed() => if changed.is_err() { break },
            _ = connection.closed() => break,
        }
        // What was under way ended with the loop above, whether or not the witness has answered.
        exchange.give_up_submissions(&witness, None);
    }
    exchange.give_up_submissions(&witness, None);
}

/// A future for each log that ends when it has grown from now on.
fn growth(logs: &[Arc<Log>]) -> Vec<Pin<Box<dyn Future<Output = ()> + Send>>> {
    let one = |log: &Arc<Log>| {
        let mut head = log.watch();
        let grown: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
            let _ = head.changed().await;
        });
        grown
    };
    logs.iter().take(WATCHED_MAX).map(one).collect()
}

/// For ever, as long as the same streams are shown.
async fn submit_all(
    exchange: &Arc<Exchange>,
    witness: &WitnessId,
    connection: &Connection,
    shown: &[Arc<Log>],
) {
    if shown.is_empty() {
        return std::future::pending().await;
    }
    let mut backoff = LOOK;
    loop {
        let mut grown = growth(shown);
        let due = exchange.submissions(witness, shown, ADD_CHECKPOINTS_MAX);
        let full = due.len() == ADD_CHECKPOINTS_MAX;
        if due.is_empty() {
            // Where there is nothing more to show, the next entry is waited for; of very many logs it is looked which have grown.
            if shown.len() <= WATCHED_MAX && exchange.has_shown(witness, shown) {
                let any = poll_fn(|cx| {
                    let moved = grown.iter_mut().any(|log| log.as_mut().poll(cx).is_ready());
                    if moved {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    }
                });
                let _ = timeout(REST, any).await;
            } else {
                sleep(LOOK).await;
            }
            continue;
        }
        let asked = timeout(ANSWER, submit(exchange, witness, connection, &due)).await;
        match asked.map_err(gone).and_then(|asked| asked) {
            // A message takes so many; the rest goes at once after it.
            Ok(()) => {
                backoff = LOOK;
                if !full {
                    sleep(LOOK).await;
                }
            }
            Err(error) => {
                tracing::debug!(%witness, %error, "a partner did not cosign");
                exchange.give_up_submissions(witness, None);
                sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }
}

async fn submit(
    exchange: &Arc<Exchange>,
    witness: &WitnessId,
    connection: &Connection,
    due: &[Submission],
) -> Result<(), FrameGone> {
    let request = AddCheckpoints {
        requests: due
            .iter()
            .map(|one| one.body.clone().into_bytes())
            .collect(),
    };
    let cosigned: Cosigned = ask(connection, AddCheckpoints::KIND, &request.to_body()).await?;
    let said = |said: WitnessSaid| Said {
        status: said.status,
        body: said.body,
    };
    let answers: Vec<Said> = cosigned
        .answers
        .into_iter()
        .take(due.len())
        .map(said)
        .collect();
    let taken = exchange.take_cosignatures(witness, &cosigned.vkey, due, &answers);
    taken.await.map_err(gone)?;
    Ok(())
}

/// One request, one answer.
async fn ask<M: countersign_protocol::Message>(
    connection: &Connection,
    kind: u8,
    body: &[u8],
) -> Result<M, FrameGone> {
    let (mut writer, mut reader) = connection.open_bi().await.map_err(gone)?;
    writer.write(kind, body).await.map_err(gone)?;
    writer.finish().map_err(gone)?;
    let answer = timeout(ANSWER, next(&mut reader)).await.map_err(gone)??;
    let answer = answer.ok_or_else(|| gone("the other side ended the stream without an answer"))?;
    if answer.kind == Refused::KIND {
        let refused = Refused::read(answer.kind, &answer.body).map_err(gone)?;
        return Err(gone(format!(
            "refused ({}): {}",
            refused.code, refused.reason
        )));
    }
    M::read(answer.kind, &answer.body).map_err(gone)
}

/// Asks a producer how its log goes on from what is held here.
pub(crate) async fn compare(
    exchange: &Arc<Exchange>,
    connection: &Connection,
    stream: &Origin,
) -> Result<Examined, FrameGone> {
    let question = exchange.question_about(stream);
    let state: LogState = ask(connection, AskLog::KIND, &question.to_body()).await?;
    Ok(Box::pin(exchange.examine(stream, &state)).await)
}

/// How often a producer is asked up to where its stream is witnessed, as long as somebody waits for that.
const ASK_WITNESSED: Duration = Duration::from_secs(1);

/// Follows up to where a partner's streams are witnessed, for whoever reads them with that assurance.
pub(crate) async fn follow_witnessed(
    exchange: Arc<Exchange>,
    partner: Authority,
    connection: Connection,
) {
    let mut tick = interval(ASK_WITNESSED);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = connection.closed() => return,
        }
        for origin in exchange.awaited_witnessed(&partner) {
            let question = AskLog {
                origin: origin.to_string(),
                size: 0,
            };
            match ask::<LogState>(&connection, AskLog::KIND, &question.to_body()).await {
                Ok(state) => exchange.take_witnessed(&origin, &state.witnessed),
                Err(error) => {
                    tracing::debug!(%origin, %error, "a producer did not say up to where its stream is witnessed");
                }
            }
        }
    }
}

/// How soon a partner is asked again as long as a stream that it reads is frozen.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Asks a partner what it knows of our own streams; what we have lost is fetched back. Until it has answered everything once, and again as long as a stream
/// waits for answers.
pub(crate) async fn compare_own(
    exchange: Arc<Exchange>,
    partner: Authority,
    connection: Connection,
) {
    let mut frozen = exchange.watch_frozen();
    loop {
        frozen.mark_unchanged();
        let answered = Box::pin(hear_all(&exchange, &partner, &connection)).await;
        let again = async {
            if answered && !exchange.asks_readers() {
                let _ = frozen.changed().await;
            } else {
                sleep(ASK_AGAIN).await;
            }
        };
        tokio::select! {
            () = again => {}
            _ = connection.closed() => return,
        }
    }
}

/// Whether everything was answered.
async fn hear_all(exchange: &Arc<Exchange>, partner: &Authority, connection: &Connection) -> bool {
    let mut answered = true;
    for question in exchange.questions_for(partner) {
        // One stream's trouble keeps nobody from asking about the next.
        if let Err(error) = hear_one(exchange, partner, connection, &question).await {
            tracing::debug!(%partner, origin = question.origin, %error, "a partner did not say what it knows of a stream of ours");
            answered = false;
        }
    }
    answered
}

async fn hear_one(
    exchange: &Arc<Exchange>,
    partner: &Authority,
    connection: &Connection,
    question: &AskLog,
) -> Result<(), FrameGone> {
    let origin: Origin = question.origin.parse().map_err(gone)?;
    let state: LogState = ask(connection, AskLog::KIND, &question.to_body()).await?;
    let heard = exchange.hear(partner, &origin, &state).map_err(gone)?;
    if heard != (Heard::More { held: true }) {
        return Ok(());
    }
    let fetched = async {
        fetch_back(exchange, partner, connection, &origin).await?;
        // Whether that was all is for the next answer to say.
        let question = AskLog {
            size: exchange.log(&origin).map_or(0, |log| log.size()),
            ..question.clone()
        };
        let state: LogState = ask(connection, AskLog::KIND, &question.to_body()).await?;
        exchange.hear(partner, &origin, &state).map_err(gone)
    };
    let fetched = fetched.await;
    exchange.fetched(partner, &origin);
    fetched.map(|_| ())
}

async fn fetch_back(
    exchange: &Arc<Exchange>,
    partner: &Authority,
    connection: &Connection,
    origin: &Origin,
) -> Result<(), FrameGone> {
    let Some((log, mut own)) = exchange.fetching(partner, origin) else {
        return Ok(());
    };
    let (mut writer, mut reader) = connection.open_bi().await.map_err(gone)?;
    let request = FetchBack {
        origin: origin.to_string(),
        from: log.size(),
    };
    writer
        .write(FetchBack::KIND, &request.to_body())
        .await
        .map_err(gone)?;
    writer.finish().map_err(gone)?;
    while let Some(frame) = timeout(ANSWER, next(&mut reader)).await.map_err(gone)?? {
        let (message, bulk) = BatchMessage::read_bulk(frame.kind, &frame.body).map_err(gone)?;
        let taken = exchange.take_back(&log, &mut own, message, bulk);
        Box::pin(taken).await.map_err(gone)?;
    }
    tracing::info!(%origin, entries = log.size(), "entries were fetched back");
    Ok(())
}

/// Gives the owner of a log what is held of it here.
pub(crate) async fn serve_fetch_back(
    exchange: &Arc<Exchange>,
    peer: &Peer,
    (kind, body): (u8, &[u8]),
    writer: &mut FrameWriter,
) -> Result<(), FrameGone> {
    let request = FetchBack::read(kind, body).map_err(gone)?;
    let mut fetched = match exchange.open_fetch_back(peer, &request) {
        Ok(fetched) => fetched,
        Err(ExchangeError::Refused(refused)) => {
            return writer
                .write(Refused::KIND, &refused.message().to_body())
                .await
                .map_err(gone);
        }
        Err(error) => return Err(gone(error)),
    };
    while let Some((message, bulk)) = fetched.next_batch().map_err(gone)? {
        let mut chunks = Vec::with_capacity(bulk.len() + 1);
        chunks.push(Bytes::from(message.to_body()));
        chunks.extend(bulk);
        writer
            .write_chunks(BatchMessage::KIND, chunks)
            .await
            .map_err(gone)?;
    }
    Ok(())
}

pub(crate) async fn serve_add_checkpoints(
    exchange: &Arc<Exchange>,
    peer: &Peer,
    (kind, body): (u8, &[u8]),
    writer: &mut FrameWriter,
) -> Result<(), FrameGone> {
    let request = AddCheckpoints::read(kind, body).map_err(gone)?;
    let known = peer
        .authority()
        .is_some_and(|authority| exchange.registry().partners.contains_key(authority));
    if !known || request.requests.len() > ADD_CHECKPOINTS_MAX {
        return Err(gone(
            "heads that are none of ours to cosign, or too many of them",
        ));
    }
    let bodies: Vec<&[u8]> = request.requests.iter().map(Vec::as_slice).collect();
    let answers = exchange.add_checkpoints(&bodies).await;
    let cosigned = Cosigned {
        vkey: exchange
            .witness_vkey()
            .map(|vkey| vkey.to_string())
            .unwrap_or_default(),
        answers: answers
            .iter()
            .map(|answer| WitnessSaid {
                status: answer.status(),
                body: answer.body().into_bytes(),
            })
            .collect(),
    };
    writer
        .write(Cosigned::KIND, &cosigned.to_body())
        .await
        .map_err(gone)
}

pub(crate) async fn serve_ask_log(
    exchange: &Arc<Exchange>,
    peer: &Peer,
    (kind, body): (u8, &[u8]),
    writer: &mut FrameWriter,
) -> Result<(), FrameGone> {
    let question = AskLog::read(kind, body).map_err(gone)?;
    match exchange.log_state(peer, &question).await {
        Ok(state) => writer
            .write(LogState::KIND, &state.to_body())
            .await
            .map_err(gone),
        Err(ExchangeError::Refused(refused)) => writer
            .write(Refused::KIND, &refused.message().to_body())
            .await
            .map_err(gone),
        Err(error) => Err(gone(error)),
    }
}
