//! Power is lost at both ends of the pipeline, at any operation of the disk: what was acknowledged is there, once, in order; the copy is the log.

use countersign_event::documents::AgreementId;
use countersign_exchange::ExchangeError;
use countersign_exchange::pipeline::append::{AppendError, answer};
use countersign_exchange::pipeline::consume::ConsumeError;

use crate::support::*;

/// SplitMix64: the whole run is a function of the seed, but for how the threads take turns.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// Publishes batches without waiting until the disk stops or they are through; returns the last acknowledged number.
async fn publish_until_it_stops(
    producer: &Node,
    dice: &mut Dice,
    acknowledged: u64,
) -> Result<u64, ExchangeError> {
    let (ready, session) = {
        let open = countersign_protocol::PublishOpen {
            stream: "s".to_owned(),
            series: [1; 16],
            create: false,
        };
        producer
            .exchange
            .open_publish(&countersign_exchange::Peer::Local, &open)
            .await?
    };
    assert!(ready.last_number >= acknowledged, "acknowledged and gone");
    let mut waiting = Vec::new();
    // Some of what is there is handed in again.
    let mut next = (ready.last_number + 1).saturating_sub(dice.below(4)).max(1);
    for _ in 0..3 + dice.below(5) {
        let (done, receiver) = answer();
        let (count, bulk) = bulk_of(&events("n", next, 1 + dice.below(12)));
        session.submit(next, count, bulk, done).await.unwrap();
        next += u64::from(count);
        waiting.push((next - 1, receiver));
    }
    let mut last = acknowledged;
    for (number, receiver) in waiting {
        match receiver.await.unwrap_or_else(|_| Err(AppendError::ended())) {
            Ok(appended) => {
                assert_eq!(appended.last_sequence, number);
                last = last.max(number);
            }
            Err(AppendError::Stopped { .. } | AppendError::Gap { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    Ok(last)
}

/// Reads what there is; whatever the disks do ends the session.
async fn read_until_it_stops(producer: &Node, consumer: &Node, agreement: AgreementId) {
    let Some(mut wire) = Wire::open_if_disks_allow(producer, consumer, agreement).await else {
        return;
    };
    for receipt in std::mem::take(&mut wire.resent) {
        match wire.send(&receipt).await {
            Ok(_) => {}
            Err(fault @ ExchangeError::Receipt(_)) => panic!("{fault:?}"),
            Err(_) => return,
        }
    }
    for _ in 0..6 {
        while let Some((message, bulk)) = wire.batch_if_disk_allows().await {
            match wire.take(message, bulk).await {
                Ok(()) => {}
                Err(ConsumeError::Exchange(_)) => return,
                Err(fault) => panic!("{fault:?}"),
            }
        }
        while wire.consumption.has_pending() {
            if wire.consumption.settle_one().await.is_err() {
                return;
            }
        }
        if !wire.consumption.receipt_is_possible() {
            return;
        }
        if wire.consumption.sign_receipt().await.is_err() {
            return;
        }
        let Ok(Some(receipt)) = wire.consumption.progress().await else {
            return;
        };
        match wire.send(&receipt).await {
            Ok(_) => {}
            Err(fault @ ExchangeError::Receipt(_)) => panic!("{fault:?}"),
            Err(_) => return,
        }
    }
}

async fn run(seed: u64) {
    let mut dice = Dice(seed);
    // Reading a long policy takes most of an unoptimised start, and the runs make thousands of starts.
    let options = NodeOptions {
        policy: "@id(\"all\") permit (principal, action, resource);".to_owned(),
        ..NodeOptions::default()
    };
    let (mut producer, mut consumer, agreement) =
        partners_with(10_000 + seed, "s", 20, options).await;
    let mut acknowledged = 0;
    for round in 0..2 {
        if dice.below(4) > 0 {
            let at = producer.disk.operations() + 1 + dice.below(60);
            producer.disk.stop_at(at);
        }
        if dice.below(2) > 0 {
            let at = consumer.disk.operations() + 1 + dice.below(30);
            consumer.disk.stop_at(at);
        }
        for _ in 0..2 {
            if let Ok(last) = publish_until_it_stops(&producer, &mut dice, acknowledged).await {
                acknowledged = last;
            }
            read_until_it_stops(&producer, &consumer, agreement).await;
        }
        match dice.below(3) {
            0 => producer.kill().await,
            _ => producer.lose_power(seed * 7 + round).await,
        }
        match dice.below(3) {
            0 => consumer.kill().await,
            _ => consumer.lose_power(seed * 11 + round).await,
        }
        let log = producer.log("s");
        assert!(log.size() > acknowledged, "acknowledged {acknowledged}");
        let there = stored_events(&producer.exchange, &log);
        assert_eq!(there, bytes_of(&events("n", 1, log.size() - 1)));
        let original = stored(&producer.exchange, &log);
        if let Some(copy) = consumer.exchange.log(log.origin()) {
            let copy = stored(&consumer.exchange, &copy);
            assert!(copy.len() <= original.len(), "copied and not there");
            assert_eq!(copy, original[..copy.len()]);
        }
    }
    let mut wire = Wire::open(&producer, &consumer, agreement).await;
    wire.pump().await;
    let log = producer.log("s");
    let copy = consumer.exchange.log(log.origin()).unwrap();
    assert_eq!(
        stored(&consumer.exchange, &copy),
        stored(&producer.exchange, &log)
    );
    assert_eq!(
        producer.records("receipt").await,
        consumer.records("receipt").await
    );
    producer.exchange.close().await;
    consumer.exchange.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_and_the_copy_is_the_log_whatever_power_does() {
    const SEEDS: u64 = 200;
    let limit = std::sync::Arc::new(tokio::sync::Semaphore::new(16));
    let mut runs = Vec::new();
    for seed in 0..SEEDS {
        let limit = std::sync::Arc::clone(&limit);
        runs.push((
            seed,
            tokio::spawn(async move {
                let _permit = limit.acquire_owned().await.unwrap();
                run(seed).await;
            }),
        ));
    }
    let mut failed = Vec::new();
    for (seed, run) in runs {
        if run.await.is_err() {
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "seeds {failed:?}");
}
