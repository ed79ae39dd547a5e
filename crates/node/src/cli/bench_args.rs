//! What people type after `bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `bench`.
#[derive(Debug, Subcommand)]
pub enum BenchVerb {
    /// Publish to a node: events acknowledged a second, and how long an acknowledgement takes
    #[command(after_help = "Examples:\n  \
        countersign bench publish                                    as many as go, 256 bytes each\n  \
        countersign bench publish --rate 1000                        one at a time: latency\n  \
        countersign bench publish --streams 1000 --rate 100000       many streams")]
    Publish(BenchPublishArgs),
    /// Publish and deliver to a consumer: events handed on a second, and how long it takes from the making of an event
    #[command(after_help = "Examples:\n  \
        countersign bench deliver --size 1024\n  \
        countersign bench deliver --to node                          durable in the copy of a partner's node\n  \
        countersign bench deliver --rate 1000                        one at a time: latency")]
    Deliver(BenchDeliverArgs),
    /// One stream to one subscriber, then to many: what each further one costs the node, beside bare QUIC
    #[command(after_help = "Examples:\n  \
        countersign bench fan-out                                    1 and 100 subscribers\n  \
        countersign bench fan-out --subscribers 10 --flood           as many events as go")]
    FanOut(BenchFanOutArgs),
    /// Read a stored stream from its start over a live connection, every event verified
    #[command(after_help = "Example:\n  countersign bench catch-up --events 2000000 --size 256")]
    CatchUp(BenchCatchUpArgs),
    /// Verify evidence in a process of its own, beside plain SHA-256 of the same bytes
    Verify(BenchVerifyArgs),
    /// Subscriptions that receive nothing: the node's memory for each, and its share of a core
    #[command(
        after_help = "Example:\n  countersign bench idle --subscriptions 10000 --runs 1 --seconds 20"
    )]
    Idle(BenchIdleArgs),
    /// Prove events and growth of a long log, and sign checkpoints of it: time and bytes
    #[command(after_help = "Example:\n  countersign bench prove --events 1000000 --runs 1")]
    Prove(BenchProveArgs),
    /// Kill a node that holds many entries, start it again: time until it serves
    #[command(after_help = "Example:\n  countersign bench restart --events 10000000 --runs 1")]
    Restart(BenchRestartArgs),
    /// Revoke partners one by one while they read: how long each is still delivered to
    #[command(after_help = "Example:\n  countersign bench revoke --rate 5000 --partners 50")]
    Revoke(BenchRevokeArgs),
    /// What disk, SHA-256 and QUIC do here by themselves, with the same bytes
    Raw(BenchRawArgs),
    /// One of the processes of a measurement; its task comes on stdin
    #[command(hide = true)]
    Worker,
}

/// What is published, and over what.
#[derive(Args, Clone, Debug)]
pub struct BenchLoad {
    /// Data bytes of an event, beside five attributes of about 150 bytes in all
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=16_777_216), value_name = "BYTES")]
    pub size: u32,
    /// Bytes of a batch that the publisher sends
    #[arg(long, default_value_t = 131_072, value_parser = clap::value_parser!(u32).range(1..=524_288), value_name = "BYTES")]
    pub batch_bytes: u32,
    /// Bytes that may wait for their acknowledgement, all streams together
    #[arg(long, default_value_t = 8_388_608, value_parser = clap::value_parser!(u32).range(1_024..=1_073_741_824), value_name = "BYTES")]
    pub window_bytes: u32,
    /// Largest UDP payload that is tried; Ethernet has 1452, loopback up to about 6000
    #[arg(long, default_value_t = 1_452, value_parser = clap::value_parser!(u16).range(1_200..=65_000), value_name = "BYTES")]
    pub mtu: u16,
    /// Streams whose data is encrypted
    #[arg(long)]
    pub encrypted: bool,
}

impl Default for BenchLoad {
    /// As without any option.
    fn default() -> Self {
        Self {
            size: 256,
            batch_bytes: 131_072,
            window_bytes: 8 << 20,
            mtu: 1_452,
            encrypted: false,
        }
    }
}

/// How long.
#[derive(Args, Clone, Copy, Debug)]
pub struct BenchWindow {
    /// Seconds that count, in each run
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600), value_name = "S")]
    pub seconds: u64,
    /// Seconds of each run before anything is counted
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=600), value_name = "S")]
    pub warmup: u64,
}

/// How often, and where.
#[derive(Args, Clone, Debug)]
pub struct BenchRuns {
    /// Runs, each on a fresh node; given are median, lowest and highest of each figure
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100), value_name = "N")]
    pub runs: u32,
    /// Where the temporary directories are made: choose a real disk [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// `bench publish`.
#[derive(Args, Clone, Debug)]
pub struct BenchPublishArgs {
    /// How many streams; each has a connection and a series of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000), value_name = "N")]
    pub streams: u32,
    /// Events a second in all, handed in one at a time, streams in turn [default: as many as go, in batches]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "EVENTS")]
    pub rate: Option<u32>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a help text here would become the command's")]
    pub load: BenchLoad,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a help text here would become the command's")]
    pub window: BenchWindow,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a help text here would become the command's")]
    pub runs: BenchRuns,
}

/// `bench deliver`.
#[derive(Args, Clone, Debug)]
pub struct BenchDeliverArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "a help text here would become the command's")]
    pub publish: BenchPublishArgs,
    /// Who consumes: a program with the client library (handed on), or a node (durable in its copy)
    #[arg(long, value_enum, default_value_t = Consumer::Client, hide_possible_values = true, value_name = "client|node")]
    pub to: Consumer,
    /// Bytes that may be published and not yet handed on to a client, so that no backlog grows beside what is measured
    #[arg(long, default_value_t = 16_777_216, value_parser = clap::value_parser!(u32).range(65_536..=1_073_741_824), value_name = "BYTES")]
    pub ahead_bytes: u32,
}

/// Who consumes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Consumer {
    /// A program: verified and handed on
    Client,
    /// A partner's node: verified and durable in its copy
    Node,
}

/// `bench fan-out`.
#[derive(Args, Clone, Debug)]
pub struct BenchFanOutArgs {
    /// Subscribers of the one stream, each an organization of its own; measured after a run with one
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=2_000), value_name = "N")]
    pub subscribers: u32,
    /// Processes that the subscribers are spread over
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64), value_name = "N")]
    pub readers: u32,
    /// Events a second, handed in as whole batches; choose what all readers together can follow
    #[arg(long, default_value_t = 5_000, conflicts_with = "flood", value_parser = clap::value_parser!(u32).range(1..=10_000_000), value_name = "EVENTS")]
    pub rate: u32,
    /// As many events as go, instead of a rate
    #[arg(long)]
    pub flood: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a help text here would become the command's")]
    pub load: BenchLoad,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a help text here would become the command's")]
    pub window: BenchWindow,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a help text here would become the command's")]
    pub runs: BenchRuns,
}

/// `bench catch-up`.
#[derive(Args, Clone, Debug)]
pub struct BenchCatchUpArgs {
    /// Events that are published first and read then
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000), value_name = "N")]
    pub events: u64,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a help text here would become the command's")]
    pub load: BenchLoad,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a help text here would become the command's")]
    pub runs: BenchRuns,
}

/// `bench verify`.
#[derive(Args, Clone, Debug)]
pub struct BenchVerifyArgs {
    /// Data bytes of an event, beside five attributes of about 150 bytes in all
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=1_048_576), value_name = "BYTES")]
    pub size: u32,
    /// Events in the evidence
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000), value_name = "N")]
    pub events: u32,
    /// Seconds that verifying is repeated, in each run
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600), value_name = "S")]
    pub seconds: u64,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a help text here would become the command's")]
    pub runs: BenchRuns,
}

/// `bench idle`.
#[derive(Args, Clone, Debug)]
pub struct BenchIdleArgs {
    /// Subscriptions, each over a connection of its own
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000), value_name = "N")]
    pub subscriptions: u32,
    /// Organizations that hold them; joining takes far longer than subscribing
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000), value_name = "N")]
    pub organizations: u32,
    /// Seconds that the node's share of a core is taken over
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600), value_name = "S")]
    pub seconds: u64,
    /// Seconds of quiet before that
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=600), value_name = "S")]
    pub warmup: u64,
    /// Subscriptions in one process; each takes a file there
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000), value_name = "N")]
    pub per_reader: u32,
    /// Runs, each on a fresh node; given are median, lowest and highest of each figure
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100), value_name = "N")]
    pub runs: u32,
    /// Where the temporary directories are made: choose a real disk [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// `bench revoke`.
#[derive(Args, Clone, Debug)]
pub struct BenchRevokeArgs {
    /// Partners that read one stream, each over a connection of its own
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000), value_name = "N")]
    pub partners: u32,
    /// Events a second, handed in one at a time
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "EVENTS")]
    pub rate: u32,
    /// Seconds of reading before the first is revoked
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=600), value_name = "S")]
    pub warmup: u64,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a help text here would become the command's")]
    pub load: BenchLoad,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a help text here would become the command's")]
    pub runs: BenchRuns,
}

/// `bench prove`.
#[derive(Args, Clone, Debug)]
pub struct BenchProveArgs {
    /// Events in the log that is proven
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(2..=1_000_000_000), value_name = "N")]
    pub events: u64,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a help text here would become the command's")]
    pub load: BenchLoad,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a help text here would become the command's")]
    pub runs: BenchRuns,
}

/// `bench restart`.
#[derive(Args, Clone, Debug)]
pub struct BenchRestartArgs {
    /// Entries that the node holds when it is killed
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000), value_name = "N")]
    pub events: u64,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a help text here would become the command's")]
    pub load: BenchLoad,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a help text here would become the command's")]
    pub runs: BenchRuns,
}

/// `bench raw`.
#[derive(Args, Clone, Debug)]
pub struct BenchRawArgs {
    /// Data bytes of the event whose hashes are timed
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=16_777_216), value_name = "BYTES")]
    pub size: u32,
    /// Bytes between two syncs; several times for several sizes
    #[arg(long, default_values_t = [131_072, 1_048_576, 4_194_304], value_parser = clap::value_parser!(u32).range(1..=67_108_864), value_name = "BYTES")]
    pub sync_bytes: Vec<u32>,
    /// Bytes of a frame that QUIC carries
    #[arg(long, default_value_t = 131_072, value_parser = clap::value_parser!(u32).range(1..=1_048_576), value_name = "BYTES")]
    pub frame_bytes: u32,
    /// Largest UDP payload that is tried; Ethernet has 1452, loopback up to about 6000
    #[arg(long, default_value_t = 1_452, value_parser = clap::value_parser!(u16).range(1_200..=65_000), value_name = "BYTES")]
    pub mtu: u16,
    /// Seconds for each thing that is measured, in each run
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=600), value_name = "S")]
    pub seconds: u64,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a help text here would become the command's")]
    pub runs: BenchRuns,
}
