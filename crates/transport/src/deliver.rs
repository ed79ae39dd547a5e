//! A subscriber's stream, on the producer's side.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign_client::quic::{FrameReader, FrameWriter};
use countersign_event::dsse::Envelope;
use countersign_exchange::pipeline::deliver::{Delivery, Next};
use countersign_exchange::{Exchange, ExchangeError, Peer};
use countersign_protocol::delivery::BatchMessage;
use countersign_protocol::{
    Ended, Heads, Keys, Message as _, ReceiptAck, ReceiptMessage, Refused, Skipped, Subscribe,
    SubscribeFiltered, SubscribeReady,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::frames::{FrameGone, gone, next};

/// How often a subscription whose window is used up looks whether receipts of another session have made room.
const RECHECK: Duration = Duration::from_millis(500);

/// Receipts of one subscription that wait to be checked; more are not read from the stream.
const RECEIPTS_WAITING_MAX: usize = 64;

/// Key wraps in one frame: each takes about 1 KiB of a control frame's 256.
const KEYS_MAX: usize = 64;

/// How long closing receipts are taken after the end.
const CLOSING: Duration = Duration::from_secs(10);

pub(crate) async fn serve(
    exchange: Arc<Exchange>,
    peer: Peer,
    first: (u8, Bytes),
    mut writer: FrameWriter,
    reader: FrameReader,
) -> Result<(), FrameGone> {
    let (request, filter) = if first.0 == SubscribeFiltered::KIND {
        let filtered = SubscribeFiltered::read(first.0, &first.1).map_err(gone)?;
        (filtered.request, Some(filtered.filter))
    } else {
        (Subscribe::read(first.0, &first.1).map_err(gone)?, None)
    };
    drop(first);
    // Boxed: opening takes ten times what an open one that waits does.
    let (ready, delivery) = match Box::pin(exchange.open_filtered(
        &peer,
        &request,
        filter.as_deref(),
    ))
    .await
    {
        Ok(opened) => opened,
        Err(ExchangeError::Refused(refused)) => {
            writer
                .write(Refused::KIND, &refused.message().to_body())
                .await
                .map_err(gone)?;
            return writer.finish().map_err(gone);
        }
        Err(error) => {
            tracing::error!(%error, stream = request.stream, "a subscription could not be opened");
            writer.reset(1);
            return Err(gone(error));
        }
    };
    let result = match writer.write(SubscribeReady::KIND, &ready.to_body()).await {
        Ok(()) => run(&exchange, &delivery, &mut writer, reader).await,
        Err(error) => Err(gone(error)),
    };
    delivery.disconnected();
    result
}

async fn run(
    exchange: &Arc<Exchange>,
    delivery: &Arc<Delivery>,
    writer: &mut FrameWriter,
    reader: FrameReader,
) -> Result<(), FrameGone> {
    let (acks, mut acked) = mpsc::channel(RECEIPTS_WAITING_MAX);
    let mut receipts = tokio::spawn(take_receipts(
        Arc::clone(exchange),
        Arc::clone(delivery),
        reader,
        acks,
    ));
    let mut access = exchange.watch_access();
    // What changed while the subscription was opened wakes nobody.
    delivery.recheck();
    let result = loop {
        let wait = delivery.goes_on_in();
        tokio::select! {
            ack = acked.recv() => match ack {
                Some(number) => {
                    if let Err(error) = writer.write(ReceiptAck::KIND, &ReceiptAck { number }.to_body()).await {
                        break Err(gone(error));
                    }
                }
                None => break ended(&mut receipts).await,
            },
            step = delivery.next() => match step {
                Ok(next) => match send(writer, next).await {
                    Ok(Sent::More) => {}
                    Ok(Sent::Last) => break close(writer, &mut acked, &mut receipts).await,
                    Err(error) => break Err(error),
                },
                Err(error) => {
                    tracing::error!(%error, stream = %delivery.log().origin(), "delivery stopped");
                    break Err(gone(error));
                }
            },
            _ = access.changed() => delivery.recheck(),
            () = sleep(wait.unwrap_or(RECHECK)), if wait.is_some() || delivery.is_paused() => delivery.recheck(),
        }
    };
    receipts.abort();
    let _ = writer.finish();
    result
}

enum Sent {
    More,
    Last,
}

async fn send(writer: &mut FrameWriter, next: Next) -> Result<Sent, FrameGone> {
    match next {
        Next::Batch {
            message,
            bulk,
            keys,
            claim,
        } => {
            if let Some(claim) = claim {
                let skipped = Skipped {
                    claim: claim.to_json(),
                };
                writer
                    .write(Skipped::KIND, &skipped.to_body())
                    .await
                    .map_err(gone)?;
            }
            for keys in keys.chunks(KEYS_MAX) {
                let envelopes = keys.iter().map(Envelope::to_json).collect();
                writer
                    .write(Keys::KIND, &Keys { envelopes }.to_body())
                    .await
                    .map_err(gone)?;
            }
            let mut chunks = Vec::with_capacity(bulk.len() + 1);
            chunks.push(Bytes::from(message.to_body()));
            chunks.extend(bulk);
            writer
                .write_chunks(BatchMessage::KIND, chunks)
                .await
                .map_err(gone)?;
        }
        Next::Heads(heads) => writer
            .write(Heads::KIND, &heads.to_body())
            .await
            .map_err(gone)?,
        // The caller looks at the clock, and asks again.
        Next::Wait => {}
        Next::Ended(refused) => {
            let ended = Ended {
                refusal: refused.envelope.to_json(),
            };
            writer
                .write(Ended::KIND, &ended.to_body())
                .await
                .map_err(gone)?;
            return Ok(Sent::Last);
        }
    }
    Ok(Sent::More)
}

/// What was delivered before the end can still be receipted.
async fn close(
    writer: &mut FrameWriter,
    acked: &mut mpsc::Receiver<u64>,
    receipts: &mut JoinHandle<Result<(), FrameGone>>,
) -> Result<(), FrameGone> {
    let closing = async {
        while let Some(number) = acked.recv().await {
            writer
                .write(ReceiptAck::KIND, &ReceiptAck { number }.to_body())
                .await
                .map_err(gone)?;
        }
        ended(receipts).await
    };
    timeout(CLOSING, closing).await.unwrap_or(Ok(()))
}

/// Why no more receipts come: the subscriber ended its side, or its receipt was false.
async fn ended(receipts: &mut JoinHandle<Result<(), FrameGone>>) -> Result<(), FrameGone> {
    receipts.await.map_err(gone)?
}

/// Until the subscriber ends its side, or its receipt is false.
async fn take_receipts(
    exchange: Arc<Exchange>,
    delivery: Arc<Delivery>,
    mut reader: FrameReader,
    acks: mpsc::Sender<u64>,
) -> Result<(), FrameGone> {
    while let Some(frame) = next(&mut reader).await? {
        // Boxed: a subscription waits for receipts far longer than it takes them.
        let taking = take_receipt(&exchange, &delivery, frame.kind, &frame.body);
        let number = Box::pin(taking).await?;
        if acks.send(number).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn take_receipt(
    exchange: &Arc<Exchange>,
    delivery: &Delivery,
    kind: u8,
    body: &[u8],
) -> Result<u64, FrameGone> {
    let message = ReceiptMessage::read(kind, body).map_err(gone)?;
    match delivery.take_receipt(&message.envelope).await {
        Ok(number) => Ok(number),
        Err(error) => {
            if let ExchangeError::Receipt(fault) = &error {
                let origin = delivery.log().origin();
                exchange.keep_fault(
                    delivery.consumer(),
                    origin,
                    &fault.to_string(),
                    &message.envelope,
                );
            }
            Err(gone(error))
        }
    }
}
