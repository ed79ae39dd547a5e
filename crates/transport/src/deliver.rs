//! A subscriber's stream, on the producer's side.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign_client::quic::{FrameReader, FrameWriter};
use countersign_exchange::pipeline::deliver::{Delivery, Next};
use countersign_exchange::{Exchange, ExchangeError, Peer};
use countersign_protocol::delivery::BatchMessage;
use countersign_protocol::{
    Ended, Heads, Message as _, ReceiptAck, ReceiptMessage, Refused, Subscribe, SubscribeReady,
};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::frames::{FrameGone, gone, next};

/// How often a running subscription is judged again because time has passed.
const RECHECK: Duration = Duration::from_millis(500);

/// Receipts of one subscription that wait to be checked; more are not read from the stream.
const RECEIPTS_WAITING_MAX: usize = 64;

/// How long closing receipts are taken after the end.
const CLOSING: Duration = Duration::from_secs(10);

pub(crate) async fn serve(
    exchange: Arc<Exchange>,
    peer: Peer,
    first: (u8, Bytes),
    mut writer: FrameWriter,
    reader: FrameReader,
) -> Result<(), FrameGone> {
    let request = Subscribe::read(first.0, &first.1).map_err(gone)?;
    let (ready, delivery) = match exchange.open_delivery(&peer, &request).await {
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
    let receipts = tokio::spawn(take_receipts(
        Arc::clone(exchange),
        Arc::clone(delivery),
        reader,
        acks,
    ));
    let mut tick = interval(RECHECK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut access = exchange.watch_access();
    let result = loop {
        tokio::select! {
            ack = acked.recv() => match ack {
                Some(Ok(number)) => {
                    if let Err(error) = writer.write(ReceiptAck::KIND, &ReceiptAck { number }.to_body()).await {
                        break Err(gone(error));
                    }
                }
                // The subscriber ended its side, or its receipt was false.
                Some(Err(error)) => break Err(error),
                None => break Ok(()),
            },
            step = delivery.next() => match step {
                Ok(next) => match send(writer, next).await {
                    Ok(Sent::More) => {}
                    Ok(Sent::Last) => break close(writer, &mut acked).await,
                    Err(error) => break Err(error),
                },
                Err(error) => {
                    tracing::error!(%error, stream = %delivery.log().origin(), "delivery stopped");
                    break Err(gone(error));
                }
            },
            _ = tick.tick() => delivery.recheck(),
            _ = access.changed() => delivery.recheck(),
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
        Next::Batch { message, bulk } => {
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
    acked: &mut mpsc::Receiver<Result<u64, FrameGone>>,
) -> Result<(), FrameGone> {
    let closing = async {
        while let Some(ack) = acked.recv().await {
            let number = ack?;
            writer
                .write(ReceiptAck::KIND, &ReceiptAck { number }.to_body())
                .await
                .map_err(gone)?;
        }
        Ok(())
    };
    timeout(CLOSING, closing).await.unwrap_or(Ok(()))
}

async fn take_receipts(
    exchange: Arc<Exchange>,
    delivery: Arc<Delivery>,
    mut reader: FrameReader,
    acks: mpsc::Sender<Result<u64, FrameGone>>,
) {
    loop {
        let taken = match next(&mut reader).await {
            Ok(None) => return,
            Ok(Some(frame)) => take_receipt(&exchange, &delivery, frame.kind, &frame.body).await,
            Err(error) => Err(error),
        };
        let failed = taken.is_err();
        if acks.send(taken).await.is_err() || failed {
            return;
        }
    }
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
