//! A publisher's stream: `PublishOpen` → `PublishReady`, then batches in and answers out, pipelined.

use std::sync::Arc;

use bytes::Bytes;
use countersign_event::documents::RefusalCode;
use countersign_exchange::pipeline::append::{AppendError, Appended};
use countersign_exchange::pipeline::ingest::IngestError;
use countersign_exchange::{Exchange, ExchangeError, Peer, PublishSession};
use countersign_protocol::{Message as _, PublishAck, PublishBatch, PublishOpen, Refused};
use tokio::sync::mpsc;

use crate::frames::{FrameGone, FrameSink, FrameSource};

type Integrated = (PublishBatch, Result<Appended, AppendError>);

/// Serves one publisher until it ends its stream. The same for QUIC and for the node's own socket. `first` is the frame that opened the stream.
///
/// # Errors
/// [`FrameGone`] where the publisher is gone; refusals are told to it and are no error here.
pub async fn serve_publish(
    exchange: &Arc<Exchange>,
    peer: &Peer,
    first: (u8, Bytes),
    source: &mut impl FrameSource,
    sink: &mut impl FrameSink,
) -> Result<(), FrameGone> {
    let open = match PublishOpen::read(first.0, &first.1) {
        Ok(open) => open,
        Err(error) => {
            let reason = error.to_string();
            return refuse(exchange, peer, sink, "", RefusalCode::Malformed, reason).await;
        }
    };
    let (ready, session) = match exchange.open_publish(peer, &open).await {
        Ok(opened) => opened,
        Err(error) => return refuse_for(exchange, peer, sink, &open.stream, error).await,
    };
    sink.send_frame(countersign_protocol::PublishReady::KIND, &ready.to_body())
        .await?;
    // Bounded by the writer's queue: a batch has its answer only after it had room there.
    let (answers, mut answered) = mpsc::unbounded_channel::<Integrated>();
    let mut open_batches = 0_usize;
    let mut ended = false;
    while !ended || open_batches > 0 {
        tokio::select! {
            biased;
            answer = answered.recv(), if open_batches > 0 => {
                let Some((batch, result)) = answer else { return Ok(()) };
                open_batches -= 1;
                match acknowledge(batch, result) {
                    Ok(ack) => sink.send_frame(PublishAck::KIND, &ack.to_body()).await?,
                    Err(error) => return refuse_for(exchange, peer, sink, &open.stream, error.into()).await,
                }
            }
            frame = source.next_frame(), if !ended => match frame? {
                None => ended = true,
                Some((kind, body)) => {
                    if let Err(error) = submit(&session, kind, &body, &answers).await {
                        return refuse_for(exchange, peer, sink, &open.stream, error).await;
                    }
                    open_batches += 1;
                }
            },
        }
    }
    Ok(())
}

async fn submit(
    session: &PublishSession,
    kind: u8,
    body: &Bytes,
    answers: &mpsc::UnboundedSender<Integrated>,
) -> Result<(), ExchangeError> {
    let (batch, bulk) = PublishBatch::read_bulk(kind, body)
        .map_err(|error| ExchangeError::Proof(error.to_string()))?;
    let answers = answers.clone();
    let done = Box::new(move |result| {
        let _ = answers.send((batch, result));
    });
    session
        .submit(batch.first_number, batch.count, bulk, done)
        .await?;
    Ok(())
}

/// What is older than the window is known to be stored, if not where: that is an answer, not a refusal.
fn acknowledge(
    batch: PublishBatch,
    result: Result<Appended, AppendError>,
) -> Result<PublishAck, AppendError> {
    let ack = |duplicates, last_sequence| PublishAck {
        first_number: batch.first_number,
        count: batch.count,
        duplicates,
        last_sequence,
    };
    match result {
        Ok(appended) => Ok(ack(appended.duplicates, appended.last_sequence)),
        Err(AppendError::Old {
            last_number,
            last_sequence,
        }) if batch.first_number + u64::from(batch.count) <= last_number + 1 => {
            Ok(ack(batch.count, last_sequence))
        }
        Err(error) => Err(error),
    }
}

async fn refuse_for(
    exchange: &Arc<Exchange>,
    peer: &Peer,
    sink: &mut impl FrameSink,
    stream: &str,
    error: ExchangeError,
) -> Result<(), FrameGone> {
    let code = match &error {
        ExchangeError::Refused(refused) => {
            return sink
                .send_frame(Refused::KIND, &refused.message().to_body())
                .await;
        }
        ExchangeError::Append(
            AppendError::Busy
            | AppendError::DiskFull
            | AppendError::Frozen
            | AppendError::Clock(_)
            | AppendError::Stopped { .. },
        ) => RefusalCode::Busy,
        ExchangeError::Stream(countersign_exchange::StreamError::Unknown { .. }) => {
            RefusalCode::NotFound
        }
        ExchangeError::Ingest(IngestError::Author { .. }) => RefusalCode::AuthorSignature,
        _ => RefusalCode::Malformed,
    };
    refuse(exchange, peer, sink, stream, code, error.to_string()).await
}

async fn refuse(
    exchange: &Arc<Exchange>,
    peer: &Peer,
    sink: &mut impl FrameSink,
    stream: &str,
    code: RefusalCode,
    reason: String,
) -> Result<(), FrameGone> {
    let refused = exchange.refuse(peer, "publish", stream, code, reason);
    sink.send_frame(Refused::KIND, &refused.message().to_body())
        .await
}
