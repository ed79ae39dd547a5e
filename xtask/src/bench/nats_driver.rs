//! Drives a NATS JetStream server with its official client, as our own publisher and consumer are driven: a window of messages on the way, a
//! warm-up that does not count, acknowledgements and deliveries counted in a window of time. Prints one line of JSON.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::context::{Context, ContextBuilder, PublishAckFuture};
use async_nats::jetstream::stream::{Config, StorageType, Stream};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::Failure;

const STREAM: &str = "bench";
const SUBJECT: &str = "bench.events";

/// Bytes that a consumer asks for at a time, as messages.
const PULL_BYTES: u64 = 8 << 20;

/// How often a publisher looks that has to wait for the consumer.
const LOOK: Duration = Duration::from_micros(200);

type Error = Box<dyn std::error::Error + Send + Sync>;

pub(super) fn run(task: &str) -> Result<(), Failure> {
    let failed = |error: Error| {
        Failure::new(
            format!("driving NATS failed: {error}"),
            "see whether the server serves, and its log",
        )
    };
    let task = Task::read(task).map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(error.into()))?;
    println!("{}", runtime.block_on(drive(task)).map_err(failed)?);
    Ok(())
}

struct Task {
    url: String,
    mode: String,
    bytes: usize,
    window: usize,
    /// Messages that may be published and not yet consumed, where both are done at once.
    ahead: u64,
    rate: Option<u64>,
    events: u64,
    warmup: Duration,
    counted: Duration,
}

impl Task {
    fn read(text: &str) -> Result<Self, Error> {
        let value: Value = serde_json::from_str(text)?;
        let number = |name: &str| {
            value[name]
                .as_u64()
                .ok_or_else(|| format!("the task has no `{name}`"))
        };
        let text = |name: &str| {
            value[name]
                .as_str()
                .map(str::to_owned)
                .ok_or_else(|| format!("the task has no `{name}`"))
        };
        Ok(Self {
            url: text("url")?,
            mode: text("mode")?,
            bytes: usize::try_from(number("bytes")?)?,
            window: usize::try_from(number("window")?)?,
            ahead: number("ahead")?,
            rate: value["rate"].as_u64(),
            events: number("events")?,
            warmup: Duration::from_secs(number("warmup")?),
            counted: Duration::from_secs(number("seconds")?),
        })
    }
}

/// What is counted, by whoever counts in this mode.
#[derive(Default)]
struct Tally {
    is_counting: AtomicBool,
    events: AtomicU64,
    /// Warm-up and end included.
    all: AtomicU64,
    /// Nanoseconds, of single messages at a rate.
    latencies: Mutex<Vec<u64>>,
}

impl Tally {
    fn count(&self, latency_ns: Option<u64>) {
        self.all.fetch_add(1, Ordering::Relaxed);
        if self.is_counting.load(Ordering::Relaxed) {
            self.events.fetch_add(1, Ordering::Relaxed);
            if let Some(ns) = latency_ns {
                self.latencies
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(ns);
            }
        }
    }
}

async fn drive(task: Task) -> Result<Value, Error> {
    let task = Arc::new(task);
    let context = connect(&task).await?;
    let stream = context
        .create_stream(Config {
            name: STREAM.to_owned(),
            subjects: vec![SUBJECT.to_owned()],
            storage: StorageType::File,
            num_replicas: 1,
            ..Config::default()
        })
        .await?;
    let tally = Arc::new(Tally::default());
    match task.mode.as_str() {
        "publish" => {
            let publishing = tokio::spawn(publish(
                context,
                Arc::clone(&task),
                Arc::clone(&tally),
                true,
            ));
            counted(&task, &tally, publishing, None).await
        }
        "deliver" => {
            let consuming = tokio::spawn(consume(
                stream_of(&task).await?,
                Arc::clone(&task),
                Arc::clone(&tally),
                u64::MAX,
            ));
            let publishing = tokio::spawn(publish(
                context,
                Arc::clone(&task),
                Arc::clone(&tally),
                false,
            ));
            counted(&task, &tally, publishing, Some(consuming)).await
        }
        "consume" => {
            publish(context, Arc::clone(&task), Arc::new(Tally::default()), true).await?;
            tally.is_counting.store(true, Ordering::Relaxed);
            drop(stream);
            let stream = stream_of(&task).await?;
            let started = Instant::now();
            consume(stream, Arc::clone(&task), Arc::clone(&tally), task.events).await?;
            Ok(result(&tally, started.elapsed(), 2))
        }
        other => Err(format!("`{other}` is no mode").into()),
    }
}

/// A connection of its own, without a bound on acknowledgements but ours.
async fn connect(task: &Task) -> Result<Context, Error> {
    let client = async_nats::connect(&task.url).await?;
    Ok(ContextBuilder::new()
        .max_ack_inflight(task.window.saturating_mul(2))
        .build(client))
}

async fn stream_of(task: &Task) -> Result<Stream, Error> {
    Ok(connect(task).await?.get_stream(STREAM).await?)
}

type Running = tokio::task::JoinHandle<Result<(), Error>>;

/// Warm-up, then the time that counts.
async fn counted(
    task: &Task,
    tally: &Tally,
    mut publishing: Running,
    consuming: Option<Running>,
) -> Result<Value, Error> {
    let window = async {
        tokio::time::sleep(task.warmup).await;
        tally.is_counting.store(true, Ordering::Relaxed);
        let started = Instant::now();
        tokio::time::sleep(task.counted).await;
        tally.is_counting.store(false, Ordering::Relaxed);
        started.elapsed()
    };
    let consuming = async {
        match consuming {
            Some(consuming) => consuming.await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        seconds = window => Ok(result(tally, seconds, 1)),
        ended = &mut publishing => Err(format!("publishing ended early: {ended:?}").into()),
        ended = consuming => Err(format!("consuming ended early: {ended:?}").into()),
    }
}

fn result(tally: &Tally, time: Duration, passes: u64) -> Value {
    let mut latencies = std::mem::take(
        &mut *tally
            .latencies
            .lock()
            .unwrap_or_else(PoisonError::into_inner),
    );
    latencies.sort_unstable();
    let quantile = |share: f64| {
        let at = ((latencies.len() as f64 * share).ceil() as usize).saturating_sub(1);
        latencies.get(at).map(|ns| *ns as f64 / 1e3)
    };
    let events = tally.events.load(Ordering::Relaxed);
    json!({
        "events": events,
        "seconds": time.as_secs_f64(),
        "events_per_second": events as f64 / time.as_secs_f64().max(f64::MIN_POSITIVE),
        // A stored message that is consumed was published by this process before.
        "events_in_all": tally.all.load(Ordering::Relaxed) * passes,
        "latency": {"p50_us": quantile(0.5), "p99_us": quantile(0.99), "p999_us": quantile(0.999)},
    })
}

/// Messages at a rate or as many as the window lets, until [`Task::events`] where that is given.
async fn publish(
    context: Context,
    task: Arc<Task>,
    tally: Arc<Tally>,
    counts: bool,
) -> Result<(), Error> {
    let mut payload = vec![b'x'; task.bytes];
    let last = if task.events == 0 {
        u64::MAX
    } else {
        task.events
    };
    // Where messages are consumed at once, the consumer counts.
    let behind = (!counts).then(|| Arc::clone(&tally));
    let (waiting, acknowledged) = mpsc::channel(task.window.max(1));
    let collecting = tokio::spawn(collect(
        acknowledged,
        counts.then_some(tally),
        task.rate.is_some(),
    ));
    let started = tokio::time::Instant::now();
    for number in 0..last {
        if let Some(tally) = &behind {
            while number.saturating_sub(tally.all.load(Ordering::Relaxed)) >= task.ahead {
                tokio::time::sleep(LOOK).await;
            }
        }
        if let Some(rate) = task.rate {
            let due = started + Duration::from_secs_f64(number as f64 / rate as f64);
            tokio::time::sleep_until(due).await;
        }
        payload.splice(..8, now_ns().to_be_bytes());
        let handed = Instant::now();
        let ack = context.publish(SUBJECT, payload.clone().into()).await?;
        // Waits while as many as the window are on their way.
        if waiting.send((handed, ack)).await.is_err() {
            break;
        }
    }
    drop(waiting);
    collecting.await?
}

/// Awaits acknowledgements in their order, and counts them.
async fn collect(
    mut acknowledged: mpsc::Receiver<(Instant, PublishAckFuture)>,
    tally: Option<Arc<Tally>>,
    is_timed: bool,
) -> Result<(), Error> {
    while let Some((handed, ack)) = acknowledged.recv().await {
        ack.await?;
        if let Some(tally) = &tally {
            tally.count(is_timed.then(|| nanoseconds(handed.elapsed())));
        }
    }
    Ok(())
}

/// Takes messages without acknowledging them, which is the fastest that the server offers.
async fn consume(
    stream: Stream,
    task: Arc<Task>,
    tally: Arc<Tally>,
    events: u64,
) -> Result<(), Error> {
    let consumer = stream
        .create_consumer(pull::Config {
            ack_policy: AckPolicy::None,
            ..pull::Config::default()
        })
        .await?;
    let batch = usize::try_from((PULL_BYTES / task.bytes.max(1) as u64).clamp(100, 10_000))?;
    let mut messages = consumer
        .stream()
        .max_messages_per_batch(batch)
        .messages()
        .await?;
    let mut left = events;
    while left > 0 {
        let message = messages.next().await.ok_or("the messages ended")??;
        let made = message
            .payload
            .get(..8)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u64::from_be_bytes);
        tally.count(
            task.rate
                .and(made)
                .map(|made| now_ns().saturating_sub(made)),
        );
        left -= 1;
    }
    Ok(())
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn now_ns() -> u64 {
    nanoseconds(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
    )
}
