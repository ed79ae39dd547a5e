use std::sync::Arc;

use bytes::Bytes;
use countersign_event::documents::AgreementId;
use countersign_event::dsse::Envelope;
use countersign_exchange::pipeline::consume::{ConsumeError, Consumption};
use countersign_exchange::pipeline::deliver::{Delivery, Next};
use countersign_exchange::{ExchangeError, Refused};
use countersign_protocol::delivery::BatchMessage;
use countersign_protocol::{Heads, Keys, StartAt, Subscribe};

use super::Node;

/// What a delivery has to say now; `None` where it would wait.
pub async fn next_now(delivery: &Delivery) -> Option<Next> {
    tokio::select! {
        biased;
        next = delivery.next() => Some(next.unwrap()),
        () = std::future::ready(()) => None,
    }
}

/// A subscription from a given start under a series of one's own.
pub fn subscribe_at(
    node: &Node,
    stream: &str,
    agreement: AgreementId,
    start: StartAt,
) -> Subscribe {
    Subscribe {
        agreement: agreement.0,
        stream: node.origin(stream).to_string(),
        start,
        newest_size: 0,
        series: [9; 16],
        purpose: String::new(),
    }
}

/// One session of a subscription, with nothing between the two ends.
pub struct Wire {
    pub delivery: Arc<Delivery>,
    pub consumption: Consumption,
    /// Receipts that the producer did not hold when the session began.
    pub resent: Vec<Envelope>,
    pub paused: Option<Heads>,
    pub ended: Option<Arc<Refused>>,
}

impl Wire {
    pub async fn open(producer: &Node, consumer: &Node, agreement: AgreementId) -> Self {
        Self::try_open(producer, consumer, agreement).await.unwrap()
    }

    pub async fn try_open(
        producer: &Node,
        consumer: &Node,
        agreement: AgreementId,
    ) -> Result<Self, ExchangeError> {
        let mut consumption = Consumption::open(&consumer.exchange, agreement).await?;
        let peer = consumer.at(producer);
        let request = consumption.request();
        let (ready, delivery) = producer.exchange.open_delivery(&peer, &request).await?;
        let resent = consumption.begin(&ready).await.unwrap();
        Ok(Self {
            delivery,
            consumption,
            resent,
            paused: None,
            ended: None,
        })
    }

    /// As [`Wire::open`], where the disks may fail: then there is no session.
    pub async fn open_if_disks_allow(
        producer: &Node,
        consumer: &Node,
        agreement: AgreementId,
    ) -> Option<Self> {
        let mut consumption = Consumption::open(&consumer.exchange, agreement)
            .await
            .ok()?;
        let request = consumption.request();
        let peer = consumer.at(producer);
        let (ready, delivery) = match producer.exchange.open_delivery(&peer, &request).await {
            Err(ExchangeError::Refused(refused)) => panic!("{refused:?}"),
            opened => opened.ok()?,
        };
        let resent = match consumption.begin(&ready).await {
            Err(fault @ ConsumeError::Fault { .. }) => panic!("{fault:?}"),
            begun => begun.ok()?,
        };
        Some(Self {
            delivery,
            consumption,
            resent,
            paused: None,
            ended: None,
        })
    }

    /// As [`Wire::batch`], where the disk may fail.
    pub async fn batch_if_disk_allows(&mut self) -> Option<(BatchMessage, Bytes)> {
        let next = tokio::select! {
            biased;
            next = self.delivery.next() => next.ok()?,
            () = std::future::ready(()) => return None,
        };
        match next {
            Next::Batch {
                message,
                bulk,
                keys,
                claim,
            } => {
                if let Some(claim) = claim {
                    self.consumption.take_claim(claim.to_json());
                }
                if !keys.is_empty() {
                    let envelopes = keys.iter().map(Envelope::to_json).collect();
                    self.consumption.take_keys(&Keys { envelopes }).unwrap();
                }
                Some((message, bulk.concat().into()))
            }
            Next::Heads(heads) => {
                self.consumption.take_heads(&heads).unwrap();
                None
            }
            Next::Wait => None,
            Next::Ended(refused) => panic!("{refused:?}"),
        }
    }

    /// The next batch, as it would travel.
    pub async fn batch(&mut self) -> Option<(BatchMessage, Bytes)> {
        match next_now(&self.delivery).await? {
            Next::Batch {
                message,
                bulk,
                keys,
                claim,
            } => {
                if let Some(claim) = claim {
                    self.consumption.take_claim(claim.to_json());
                }
                if !keys.is_empty() {
                    let envelopes = keys.iter().map(Envelope::to_json).collect();
                    self.consumption.take_keys(&Keys { envelopes }).unwrap();
                }
                Some((message, bulk.concat().into()))
            }
            Next::Heads(heads) => {
                self.consumption.take_heads(&heads).unwrap();
                self.paused = Some(heads);
                None
            }
            Next::Wait => None,
            Next::Ended(refused) => {
                self.ended = Some(refused);
                None
            }
        }
    }

    pub async fn take(&mut self, message: BatchMessage, bulk: Bytes) -> Result<(), ConsumeError> {
        let frame = bulk.clone();
        self.consumption.take(message, bulk, &frame).await
    }

    /// Moves everything that can be moved without a receipt.
    pub async fn flow(&mut self) {
        while let Some((message, bulk)) = self.batch().await {
            self.take(message, bulk).await.unwrap();
        }
        self.settle().await;
    }

    pub async fn settle(&mut self) {
        while self.consumption.has_pending() {
            self.consumption.settle_one().await.unwrap();
        }
    }

    /// Signs a receipt for all that is durable at the consumer, and does not send it.
    pub async fn sign(&mut self) -> Option<Envelope> {
        if !self.consumption.receipt_is_possible() {
            return None;
        }
        self.consumption.sign_receipt().await.unwrap();
        loop {
            if let Some(receipt) = self.consumption.progress().await.unwrap() {
                return Some(receipt);
            }
        }
    }

    /// Signs a receipt and hands it over.
    pub async fn receipt(&mut self) -> Option<u64> {
        let envelope = self.sign().await?;
        Some(self.send(&envelope).await.unwrap())
    }

    pub async fn send(&self, receipt: &Envelope) -> Result<u64, ExchangeError> {
        self.delivery.take_receipt(&receipt.to_json()).await
    }

    /// Until nothing moves any more.
    pub async fn pump(&mut self) {
        for receipt in std::mem::take(&mut self.resent) {
            self.send(&receipt).await.unwrap();
        }
        loop {
            self.flow().await;
            if self.receipt().await.is_none() {
                return;
            }
        }
    }
}
