//! The command line as people type it: nouns, verbs, help texts.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use countersign_crypto::PublicKey;

use super::bench_args::BenchVerb;
use super::parse::{parse_seconds, parse_start};
use super::plan_args::PlanVerb;
use crate::admin::StartAt;

/// Exchange signed events with partners, and keep proof of it on both sides.
#[derive(Debug, Parser)]
#[command(
    name = "countersign",
    version,
    propagate_version = false,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Begin with `countersign demo`, or with `countersign init --org NAME`.\n\n\
        Exit codes: 0 ok, 1 failure, 2 usage, 4 not authenticated, 5 not found, 6 verification failed,\n\
        7 refused by policy, 8 busy (retry), 9 inconclusive, 130 interrupted.\n\n\
        Data goes to stdout, everything else to stderr."
)]
pub struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Noun,
}

/// What every command takes.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// Data directory [default: COUNTERSIGN_DATA, then ./.countersign if it exists, then the user's data folder]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        help_heading = "Global options"
    )]
    pub data: Option<PathBuf>,
    /// Print JSON: one document for lists, a line for each item of streams
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// Print only data and errors
    #[arg(
        short,
        long,
        global = true,
        help_heading = "Global options",
        conflicts_with = "verbose"
    )]
    pub quiet: bool,
    /// Print more about what happens; twice for every step
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
    /// When to use colour
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, hide_possible_values = true, value_name = "auto|always|never", help_heading = "Global options")]
    pub color: Color,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Noun {
    /// Show two organizations, a stranger and an auditor on this machine, with real data
    Demo(DemoArgs),
    /// Make a node: keys, settings, starter policy, empty logs
    #[command(
        after_help = "Example:\n  countersign init --org \"Acme Weather\" --advertise node.acme.example:7227"
    )]
    Init(InitArgs),
    /// Run the node until it is told to stop
    #[command(after_help = "SIGTERM or Ctrl-C finishes what is under way and exits with 0.")]
    Serve(ServeArgs),
    /// Show streams, subscriptions, and why something waits
    Status,
    /// Look at everything that can be wrong with this node
    Doctor(DoctorArgs),
    /// Dial a partner and measure the round trip
    Ping(PingArgs),
    /// Make streams, look at them, prove what is in them
    #[command(subcommand, arg_required_else_help = true)]
    Stream(StreamVerb),
    /// Hand in events
    #[command(
        after_help = "Input is CloudEvents JSON: one event, a batch (an array), or one event a line (NDJSON). With --type, every line is wrapped\n\
            into an event. Handing in the same file again stores nothing twice.\n\n\
            Examples:\n  \
            countersign publish quakes quakes.ndjson --create\n  \
            tail -f app.log.json | countersign publish audit - --type com.acme.audit --id-from id --time-from ts"
    )]
    Publish(PublishArgs),
    /// Read a stream from this node's verified copy
    #[command(after_help = "Examples:\n  \
            countersign subscribe acme/quakes --count 10\n  \
            countersign subscribe acme/quakes --follow --name billing --json\n  \
            countersign subscribe acme/quakes --filter \"type LIKE '%.strong' AND EXISTS subject\"\n  \
            countersign subscribe acme/quakes --profile reader.json --from now --follow")]
    Subscribe(SubscribeArgs),
    /// Invite partners, join them, look at them
    #[command(subcommand, arg_required_else_help = true)]
    Partner(PartnerVerb),
    /// Enroll applications that publish under a key of their own
    #[command(subcommand, arg_required_else_help = true)]
    App(AppVerb),
    /// Ask for agreements, answer, suspend, amend and end them
    #[command(subcommand, arg_required_else_help = true)]
    Agreement(AgreementVerb),
    /// Look at requests to erase, decide them, set legal holds
    #[command(subcommand, arg_required_else_help = true)]
    Erasure(ErasureVerb),
    /// Declare the plans that streams are offered under
    #[command(subcommand, arg_required_else_help = true)]
    Plan(PlanVerb),
    /// Check, test and explain policies
    #[command(subcommand, arg_required_else_help = true)]
    Policy(PolicyVerb),
    /// Look into the ledger, compare it with the logs
    #[command(subcommand, arg_required_else_help = true)]
    Ledger(LedgerVerb),
    /// Look at receipts
    #[command(subcommand, arg_required_else_help = true)]
    Receipt(ReceiptVerb),
    /// Try out filters
    #[command(subcommand, arg_required_else_help = true)]
    Filter(FilterVerb),
    /// Write evidence for an auditor, or verify it offline
    #[command(subcommand, arg_required_else_help = true)]
    Evidence(EvidenceVerb),
    /// See who cosigns streams, and compare checkpoints
    #[command(subcommand, arg_required_else_help = true)]
    Witness(WitnessVerb),
    /// List, rotate and revoke the organization's keys
    #[command(subcommand, arg_required_else_help = true)]
    Key(KeyVerb),
    /// Measure this machine
    #[command(subcommand, arg_required_else_help = true)]
    Bench(BenchVerb),
    /// Show settings and where each came from
    #[command(subcommand, arg_required_else_help = true)]
    Config(ConfigVerb),
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  countersign completion bash > ~/.local/share/bash-completion/completions/countersign"
    )]
    Completion(CompletionArgs),
}

/// `demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// Keep the directories, to look around
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// `init`.
#[derive(Args, Clone, Debug)]
pub struct InitArgs {
    /// Name of the organization, as partners see it
    #[arg(long, value_name = "NAME")]
    pub org: String,
    /// Domain as the organization's name in stream origins: a claim that partners pin [default: the key's fingerprint]
    #[arg(long, value_name = "DOMAIN")]
    pub domain: Option<String>,
    /// File that holds the passphrase under which the keys are put [default: the keys are under none]
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) doors: Doors,
}

/// `serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    #[command(flatten)]
    pub(crate) doors: Doors,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Doors {
    /// UDP address for partners and applications [default: 0.0.0.0:7227]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,
    /// TCP address for health, metrics and published logs [default: 127.0.0.1:7228]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) http: Option<String>,
    /// Where partners are told to dial; several times for several places
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) advertise: Vec<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct DoctorArgs {
    /// The clock is right: append again after it jumped ahead
    #[arg(long)]
    pub(crate) confirm_clock: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct PingArgs {
    /// The partner's name or authority
    pub(crate) partner: String,
    /// How many times
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "N")]
    pub(crate) count: u32,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StreamVerb {
    /// Make a stream
    #[command(
        after_help = "Example:\n  countersign stream create quakes --title \"Earthquakes, worldwide\" --label listed"
    )]
    Create {
        /// Its name: a-z, 0-9, `.`, `_`, `-`; at most 64 characters
        stream: String,
        /// What it is, for people
        #[arg(long, value_name = "TEXT")]
        title: Option<String>,
        /// A word that policies can ask for; several times for several words
        #[arg(long = "label", value_name = "WORD")]
        labels: Vec<String>,
        /// What is committed to: each event's data as a `whole`, or each of its top-level members by itself (`fields`), so that partners can be shown some of them
        #[arg(long, default_value = "whole", value_parser = ["whole", "fields"], value_name = "whole|fields")]
        commit: String,
        /// Public key, in base64, of an author whose signatures in events (`dssematerial`) are verified; several times for several authors
        #[arg(long = "author-key", value_name = "KEY", value_parser = PublicKey::from_base64)]
        author_keys: Vec<PublicKey>,
        /// Take only events that one of these authors has signed
        #[arg(long, requires = "author_keys")]
        require_author: bool,
        /// The stream of yours that it takes the place of: its origin, size and root are cited in the first entry, and it takes no more entries itself
        #[arg(long, value_name = "STREAM")]
        cites: Option<String>,
        /// Who can read its data: whoever gets it, or the organizations that an agreement lets read. Attributes stay readable. It stays so for ever
        #[arg(long, value_name = "WHO", default_value = "none")]
        encryption: WhoReads,
        /// Begin a new epoch, with another key, after so many entries
        #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
        rotate_after: u64,
        /// Begin a new epoch after a time: 12h, 30d
        #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
        rotate_every: Option<u64>,
    },
    /// Begin a new epoch of an encrypted stream: keys given before open nothing that comes from now on
    #[command(
        after_help = "Whoever may read is given the new key with the next delivery. It happens by itself when an agreement ends or a partner is revoked.\n\n\
        Example:\n  countersign stream rotate orders"
    )]
    Rotate {
        /// The stream's name
        stream: String,
    },
    /// List own streams and copies, or those that a partner offers
    #[command(visible_alias = "list")]
    Ls {
        /// A partner: list the streams and plans that it lets us know of
        #[arg(long, value_name = "PARTNER")]
        of: Option<String>,
    },
    /// Show one stream: head, key, subscribers
    Info {
        /// Its name, ORG/STREAM or origin
        stream: String,
    },
    /// Show the newest entries, control entries too
    Tail {
        /// Its name, ORG/STREAM or origin
        stream: String,
        /// How many to begin with
        #[arg(long, default_value_t = 10, value_name = "N")]
        count: u64,
        /// Go on with what comes
        #[arg(long, short)]
        follow: bool,
    },
    /// Say who may read a stream's published log over HTTP; its content is never in it
    #[command(
        after_help = "The published log is checkpoint, tiles and entries, as tlog clients read them: sizes, times, links and commitments. \
        It is closed until this command opens it; a closed one is read with a token (`countersign partner token`).\n\n\
        Example:\n  countersign stream access quakes open"
    )]
    Access {
        /// The stream's name
        stream: String,
        /// `open`: anybody; `closed`: who shows a partner's token and is permitted to read the stream
        #[arg(value_parser = ["open", "closed"])]
        access: String,
    },
    /// Say whose signatures a stream's events bear, or show it
    #[command(
        after_help = "The keys given take the place of those before, from the next event on; readers see the change in the log. `app key FILE` makes a key, \
        `publish --sign-as FILE` signs with it.\n\n\
        Examples:\n  countersign stream authors quakes --author-key KEY --require-author\n  countersign stream authors quakes --none"
    )]
    Authors {
        /// The stream's name
        stream: String,
        /// Public key of an author, in base64; several times for several authors
        #[arg(long = "author-key", value_name = "KEY", value_parser = PublicKey::from_base64)]
        author_keys: Vec<PublicKey>,
        /// Take only events that one of these authors has signed
        #[arg(long, requires = "author_keys")]
        require_author: bool,
        /// No author keys any more
        #[arg(long, conflicts_with_all = ["author_keys", "require_author"])]
        none: bool,
    },
    /// Erase one event's content: here at once, at partners as agreed
    #[command(
        after_help = "The entry stays in the log, without what it said; a tombstone says which one and why, and partners who hold a copy are asked \
        (`countersign erasure ls` shows their answers). The reason stays in the log for ever: write nothing into it that has to be erased.\n\n\
        Example:\n  countersign stream erase quakes 41 --reason \"asked for by the person concerned\""
    )]
    Erase {
        /// The stream's name
        stream: String,
        /// The event's sequence
        #[arg(value_name = "SEQ")]
        sequence: u64,
        /// Why, for readers and partners; at most 500 characters
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Say how long a stream keeps content, or show it
    #[command(
        after_help = "Each limit alone is enough. Content that is due expires at once, later content as it becomes due; the entries stay. Partners whose \
        agreement says `obey` follow.\n\n\
        Examples:\n  countersign stream retention quakes --age 30d --count 1000000\n  countersign stream retention quakes --keep-all"
    )]
    Retention {
        /// The stream's name
        stream: String,
        /// Older content expires: 12h, 30d
        #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
        age: Option<u64>,
        /// Data bytes of the newest events that keep their content
        #[arg(long, value_name = "N")]
        bytes: Option<u64>,
        /// Newest entries that keep their content
        #[arg(long, value_name = "N")]
        count: Option<u64>,
        /// No limit
        #[arg(long, conflicts_with_all = ["age", "bytes", "count"])]
        keep_all: bool,
    },
    /// Prove that a stream has only grown between two of its checkpoints
    #[command(
        after_help = "Writes FILE and, with the same stem, `.checkpoint` (the older one) and `.key-statements`. FILE is text in the form that witnesses \
        take; `countersign evidence verify FILE` judges it offline.\n\n\
        Example:\n  countersign stream consistency quakes 300 1200"
    )]
    Consistency {
        /// Its name, ORG/STREAM or origin
        stream: String,
        /// Size of the older checkpoint
        old: u64,
        /// Size of the newer checkpoint [default: the newest]
        new: Option<u64>,
        /// Where to: a file that does not exist yet and ends in .tlog-consistency [default: STREAM-OLD-NEW.tlog-consistency, NEW being `newest` where it is not given]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Prove that one event is in a stream
    #[command(
        after_help = "Writes FILE (c2sp.org/tlog-proof) and, with the same stem, `.entry`, `.content` and `.key-statements`. Whoever gets `.content` reads the \
        event. `countersign evidence verify FILE` judges all of it offline.\n\n\
        With --format cose FILE is a COSE receipt (RFC 9942) signed by the log's key, for tools that read those. It names no witness and does not bind \
        the size of the log: schemas/cose-receipt.md.\n\n\
        Examples:\n  countersign stream proof quakes 41 --out quakes-41.tlog-proof\n  countersign stream proof quakes 41 --format cose"
    )]
    Proof {
        /// Its name, ORG/STREAM or origin
        stream: String,
        /// The event's sequence
        #[arg(value_name = "SEQ")]
        sequence: u64,
        /// Disclose only these top-level members of the event's data, names with commas between them
        #[arg(long, value_name = "NAMES", value_delimiter = ',')]
        fields: Option<Vec<String>>,
        /// Which form [default: what --out ends in, else tlog-proof]
        #[arg(long, value_parser = ["tlog-proof", "cose"])]
        format: Option<String>,
        /// Under the first checkpoint over the event that has a time-stamp token, with the token beside it (`.tst`)
        #[arg(long, conflicts_with = "format")]
        timestamped: bool,
        /// Where to: a file that does not exist yet and ends in .tlog-proof, or in .cose [default: STREAM-SEQ.tlog-proof, or .cose]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Hand events to somebody outside, each sealed to its public key
    #[command(
        after_help = "One line for each event: a JWE in compact form (RFC 7516; ECDH-ES, A256GCM), which tools for JOSE open. In it lies the event as a CloudEvent \
        in JSON; its header names origin and sequence. Nobody signs it: what proves the event is `stream proof`. Of an encrypted stream this works where this organization \
        can open the events. FILE is a JSON Web Key of the recipient, the public half alone: X25519 or P-256.\n\n\
        Examples:\n  countersign stream jwe quakes 41 --recipient auditor.jwk > quakes-41.jwe\n  \
        countersign stream jwe partner/quakes --from 300 --to 1200 --recipient auditor.jwk"
    )]
    Jwe {
        /// Its name, ORG/STREAM or origin
        stream: String,
        /// The event's sequence
        #[arg(value_name = "SEQ", required_unless_present = "from")]
        sequence: Option<u64>,
        /// First sequence of several
        #[arg(long, value_name = "N", conflicts_with = "sequence")]
        from: Option<u64>,
        /// First sequence not in it [default: the end]
        #[arg(long, value_name = "N", requires = "from")]
        to: Option<u64>,
        /// The recipient's public key
        #[arg(long, value_name = "FILE")]
        recipient: PathBuf,
    },
    /// Write where a stream's events came from and who received them, for lineage tools
    #[command(
        after_help = "FILE is PROV-JSON (W3C member submission): entries, appends, organizations and receipts, without content. It is a view that nobody \
        signs: `stream proof` and `evidence export` prove what it says. At most 65536 entries at once.\n\n\
        Example:\n  countersign stream provenance quakes --from 0 --to 1000 --out quakes.prov.json"
    )]
    Provenance {
        /// Its name, ORG/STREAM or origin
        stream: String,
        /// First sequence [default: the beginning]
        #[arg(long, value_name = "N")]
        from: Option<u64>,
        /// First sequence not in it [default: the newest signed head]
        #[arg(long, value_name = "N")]
        to: Option<u64>,
        /// Where to: a file that does not exist yet [default: STREAM.prov.json]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// `publish`.
#[derive(Args, Clone, Debug)]
pub struct PublishArgs {
    /// The stream's name
    pub stream: String,
    /// The file; `-` or nothing reads stdin
    #[arg(value_name = "FILE", default_value = "-")]
    pub file: PathBuf,
    /// Make the stream if it does not exist
    #[arg(long)]
    pub create: bool,
    /// Wrap each line into an event of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub event_type: Option<String>,
    /// Source of wrapped events [default: the stream's origin]
    #[arg(long, value_name = "URI", requires = "event_type")]
    pub source: Option<String>,
    /// Member of the line that becomes the event's id, with dots into objects [default: a digest of the line and its number]
    #[arg(long, value_name = "MEMBER", requires = "event_type")]
    pub id_from: Option<String>,
    /// Member of the line that becomes the event's time: RFC 3339, or milliseconds since 1970
    #[arg(long, value_name = "MEMBER", requires = "event_type")]
    pub time_from: Option<String>,
    /// Sign each event as its author, with this private key file (CloudEvents `dssematerial`)
    #[arg(long, value_name = "KEYFILE")]
    pub sign_as: Option<PathBuf>,
    /// Events in a batch, at most
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65_536), value_name = "N")]
    pub batch: u32,
    /// Store everything once more, even if this file was handed in before
    #[arg(long, conflicts_with = "series")]
    pub again: bool,
    /// How often a busy node is asked again, about a second apart, before this gives up (exit code 8)
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub attempts: u32,
    /// Series under which events are numbered: 32 hexadecimal digits [default: made from the file's path]
    #[arg(long, value_name = "ID")]
    pub series: Option<String>,
}

/// `subscribe`.
#[derive(Args, Clone, Debug)]
pub struct SubscribeArgs {
    /// ORG/STREAM (the partner's name here) or an origin
    pub stream: String,
    /// Where to begin: a sequence, a time (RFC 3339), `start` or `now` [default: the application's cursor, or start]
    #[arg(long, value_name = "N|TIME|start|now", value_parser = parse_start)]
    pub from: Option<StartAt>,
    /// Stop after so many events
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Go on with what comes
    #[arg(long, short)]
    pub follow: bool,
    /// Keep a durable cursor under this application's name
    #[arg(long, value_name = "APP")]
    pub name: Option<String>,
    /// Only events that pass this CESQL expression; with --profile the producer leaves out the others
    #[arg(long, value_name = "EXPR", conflicts_with = "filter_json")]
    pub filter: Option<String>,
    /// A file with a filter in JSON (CloudEvents Subscriptions), in place of an expression
    #[arg(long, value_name = "FILE")]
    pub filter_json: Option<PathBuf>,
    /// Hand on an event once it is integrated, or only once enough witnesses have cosigned it
    #[arg(long, value_enum, default_value_t = Assurance::Integrated)]
    pub assurance: Assurance,
    /// Read without a node, by the profile that `partner join --profile` made
    #[arg(long, value_name = "FILE", conflicts_with = "name")]
    pub profile: Option<PathBuf>,
    /// With --profile and --assurance witnessed: the witness policy (C2SP tlog-policy) that says whose cosignatures count, and how many of them
    #[arg(long, value_name = "FILE", requires = "profile")]
    pub trust: Option<PathBuf>,
}

/// What an event has to be before it is handed on.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Assurance {
    /// Durable and under a checkpoint that the log's key signed
    Integrated,
    /// Under a checkpoint that enough witnesses whose word counts here have cosigned (`witness.quorum`, `witness.trusted`; with --profile those of --trust)
    Witnessed,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PartnerVerb {
    /// Make a single-use link that makes another organization a partner
    #[command(after_help = "Example:\n  countersign partner invite --stream quakes --expires 2d")]
    Invite {
        /// The stream that is offered, or with --consume asked for
        #[arg(long, value_name = "STREAM")]
        stream: String,
        /// Ask for a stream of the joiner instead of offering one
        #[arg(long)]
        consume: bool,
        /// How long the link is good: 30m, 12h, 7d
        #[arg(long, default_value = "7d", value_name = "TIME", value_parser = parse_seconds)]
        expires: u64,
        /// How long the agreement runs: 90d [default: until it is ended]
        #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
        period: Option<u64>,
        /// Only the organization with this fingerprint may join
        #[arg(long = "for", value_name = "KEY")]
        for_key: Option<String>,
        /// Hold the joiner until `partner confirm`
        #[arg(long)]
        confirm: bool,
        /// The plan of the stream that the agreement is made under (`countersign plan ls`) [default: one without limits]
        #[arg(long, value_name = "PLAN", conflicts_with = "consume")]
        plan: Option<String>,
        /// How many events may be ahead of the last receipt [default: as the plan says, or as configured]
        #[arg(long, value_name = "EVENTS", value_parser = clap::value_parser!(u64).range(1..))]
        exposure: Option<u64>,
        /// Show only these top-level members of each event's data, names with commas between them; the stream was made with `--commit fields`
        #[arg(
            long,
            value_name = "NAMES",
            value_delimiter = ',',
            conflicts_with = "consume"
        )]
        fields: Option<Vec<String>>,
        /// Whether copies are erased when the producer erases, or a person decides [default: as the plan says, or obey]
        #[arg(long, value_parser = ["obey", "ask"], value_name = "obey|ask")]
        erasure: Option<String>,
    },
    /// Show the terms behind a link, and accept them
    #[command(
        after_help = "Examples:\n  countersign partner join countersign:...\n  countersign partner join countersign:... --profile reader.json --yes"
    )]
    Join(JoinArgs),
    /// List partners
    #[command(visible_alias = "list")]
    Ls,
    /// Show one partner: keys, agreements, receipts
    Info {
        /// Its name or authority
        partner: String,
        /// Ask its domain for its key statement first, over HTTPS, and keep what is found there
        #[arg(long)]
        check_domain: bool,
    },
    /// End all agreements with a partner and refuse it from now on
    Revoke {
        /// Its name or authority
        partner: String,
        /// Why, for the partner and the ledger
        #[arg(long, default_value = "", value_name = "TEXT")]
        reason: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Record what policies may ask about a partner
    #[command(after_help = "Example:\n  countersign partner set birch --region EU")]
    Set {
        /// Its name or authority
        partner: String,
        /// Where it is established: `principal.region` in policies
        #[arg(long, value_name = "TEXT", required_unless_present = "no_region")]
        region: Option<String>,
        /// Forget where it is established
        #[arg(long, conflicts_with = "region")]
        no_region: bool,
    },
    /// Go on with a partner whose receipts contradicted each other
    #[command(
        after_help = "Deliveries to a partner stop where two receipts of it cannot both be honest; the proof is in the folder `evidence` of the data directory, and stays \
        there (`evidence verify FILE`). Decide once you know why: go on here, or `partner revoke`.\n\n\
        Example:\n  countersign partner settle birch --reason 'restored from a backup, spoken to on the 3rd'"
    )]
    Settle {
        /// Its name or authority
        partner: String,
        /// Why, for the ledger
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Make a token with which a partner's tools read published logs over HTTP, or withdraw one
    #[command(
        after_help = "The token is shown once. Whoever holds it reads what the partner is permitted to read: hand it over in private, and use it \
        through HTTPS only. It is sent as `Authorization: Bearer TOKEN`.\n\n\
        Example:\n  countersign partner token birch --expires 30d"
    )]
    Token {
        /// Its name or authority
        partner: String,
        /// How long it is good: 12h, 90d
        #[arg(long, default_value = "90d", value_name = "TIME", value_parser = parse_seconds)]
        expires: u64,
        /// Withdraw the token of this id instead
        #[arg(long, value_name = "ID", conflicts_with = "expires")]
        withdraw: Option<String>,
    },
    /// Say yes to a joiner who waits
    Confirm {
        /// The invitation's id
        invitation: String,
        /// The joiner's fingerprint, where several wait
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
    },
}

/// `partner join`.
#[derive(Args, Clone, Debug)]
pub struct JoinArgs {
    /// The link, in quotes or not
    pub link: String,
    /// Accept the terms without asking
    #[arg(long, short)]
    pub yes: bool,
    /// Join without a node: make key, agreement and cursor in this file
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// Name of the organization, where --profile makes it
    #[arg(long, value_name = "NAME", requires = "profile")]
    pub org: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AppVerb {
    /// Enroll an application under its public key
    #[command(
        after_help = "Example (makes the key file if it is not there):\n  countersign app add billing --key-file billing.pem"
    )]
    Add {
        /// Its name here
        app: String,
        /// Its public key, in base64
        #[arg(
            long,
            value_name = "KEY",
            conflicts_with = "key_file",
            required_unless_present = "key_file"
        )]
        key: Option<String>,
        /// Its private key file, which is made if it does not exist
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
    },
    /// Print the public key of a private key file, which is made if it does not exist; needs no node
    #[command(after_help = "Example:\n  countersign app key author.pem")]
    Key {
        /// The file
        file: PathBuf,
    },
    /// List applications
    #[command(visible_alias = "list")]
    Ls,
    /// End an application's enrolment
    #[command(visible_alias = "rm")]
    Remove {
        /// Its name
        app: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AgreementVerb {
    /// List agreements
    #[command(visible_alias = "list")]
    Ls,
    /// Show one agreement with its terms and signatures
    Info {
        /// Its id
        agreement: String,
    },
    /// Ask a partner for an agreement on one of its streams
    #[command(
        after_help = "The partner's policies grant it at once, refuse it, or leave it to a person there; then it is `proposed` until somebody decides.\n\
            Where an agreement on the stream holds, the new one takes its place.\n\n\
            Example:\n  countersign agreement request acme/quakes --plan free --purpose research"
    )]
    Request {
        /// ORG/STREAM or origin
        stream: String,
        /// The plan (`countersign stream ls --of PARTNER`) [default: the only one]
        #[arg(long, value_name = "PLAN")]
        plan: Option<String>,
        /// How long the agreement runs: 90d [default: until it is ended]
        #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
        period: Option<u64>,
        /// What the data is wanted for
        #[arg(long, value_name = "TEXT")]
        purpose: Option<String>,
        /// How long it can be accepted
        #[arg(long, default_value = "7d", value_name = "TIME", value_parser = parse_seconds)]
        valid: u64,
        /// How long to wait for the answer
        #[arg(long, default_value = "10s", value_name = "TIME", value_parser = parse_seconds)]
        wait: u64,
    },
    /// Accept what a partner proposes
    Approve {
        /// Its id
        agreement: String,
        /// How long to wait for the partner's signature
        #[arg(long, default_value = "10s", value_name = "TIME", value_parser = parse_seconds)]
        wait: u64,
    },
    /// Say no to what a partner proposes
    Refuse {
        /// Its id
        agreement: String,
        /// Why, for the other side and the ledger
        #[arg(long, default_value = "", value_name = "TEXT")]
        reason: String,
    },
    /// Answer what a partner proposes with other terms
    Counter {
        /// Its id
        agreement: String,
        /// Another plan [default: as proposed]
        #[arg(long, value_name = "PLAN")]
        plan: Option<String>,
        /// How long the agreement runs: 90d [default: as proposed]
        #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
        period: Option<u64>,
        /// How long it can be accepted
        #[arg(long, default_value = "7d", value_name = "TIME", value_parser = parse_seconds)]
        valid: u64,
    },
    /// Take back what was proposed to a partner
    Withdraw {
        /// Its id
        agreement: String,
        /// Why, for the other side and the ledger
        #[arg(long, default_value = "", value_name = "TEXT")]
        reason: String,
    },
    /// Stop deliveries under an agreement until it is resumed
    Suspend {
        /// Its id
        agreement: String,
        /// arrears, dispute, key-revoked or quota
        #[arg(long, value_name = "CAUSE")]
        reason: String,
        /// In words, for the other side and the ledger
        #[arg(long, default_value = "", value_name = "TEXT")]
        text: String,
    },
    /// Lift a suspension of our own; reading goes on where it stopped
    Resume {
        /// Its id
        agreement: String,
        /// Why, for the other side and the ledger
        #[arg(long, default_value = "", value_name = "TEXT")]
        reason: String,
    },
    /// Propose another plan or period in the place of an agreement
    Amend {
        /// Its id
        agreement: String,
        /// Another plan [default: the same]
        #[arg(long, value_name = "PLAN")]
        plan: Option<String>,
        /// How long it runs: 90d [default: until it is ended]
        #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
        period: Option<u64>,
        /// How long it can be accepted
        #[arg(long, default_value = "7d", value_name = "TIME", value_parser = parse_seconds)]
        valid: u64,
        /// How long to wait for the answer
        #[arg(long, default_value = "10s", value_name = "TIME", value_parser = parse_seconds)]
        wait: u64,
    },
    /// End an agreement whose purpose is fulfilled
    Complete {
        /// Its id
        agreement: String,
        /// Why, for the other side and the ledger
        #[arg(long, default_value = "", value_name = "TEXT")]
        reason: String,
    },
    /// End an agreement at the position reached
    Terminate {
        /// Its id
        agreement: String,
        /// Why, for the other side and the ledger
        #[arg(long, default_value = "", value_name = "TEXT")]
        reason: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ErasureVerb {
    /// List requests to erase, ours and those of partners, with their answers
    #[command(visible_alias = "list")]
    Ls {
        /// Only about this stream
        #[arg(long, value_name = "STREAM")]
        stream: Option<String>,
    },
    /// Erase what a partner asks to be erased, where the agreement leaves it to a person
    Approve {
        /// The request's id, or its beginning
        id: String,
        /// For the partner and the ledger
        #[arg(long, default_value = "", value_name = "TEXT")]
        reason: String,
    },
    /// Keep what a partner asks to be erased, and say why
    Refuse {
        /// The request's id, or its beginning
        id: String,
        /// Why, for the partner and the ledger
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Erase nothing of a stream or copy while a legal hold lasts
    #[command(after_help = "Example:\n  countersign erasure hold acme/quakes --reason \"case 7\"")]
    Hold {
        /// Its name, ORG/STREAM or origin
        stream: String,
        /// Why, for the ledger and for who asks meanwhile
        #[arg(long, default_value = "", value_name = "TEXT")]
        reason: String,
    },
    /// End a legal hold; what was asked meanwhile is decided again
    Release {
        /// Its name, ORG/STREAM or origin
        stream: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyVerb {
    /// Load the policies and say what is wrong with them
    Check,
    /// Run example decisions against the policies
    Test {
        /// Files of example decisions, or folders of them [default: policies/tests in the data directory]
        files: Vec<PathBuf>,
    },
    /// Decide a made-up request and say why
    #[command(
        after_help = "Nothing of it is recorded. Where `us` asks about a partner's stream, the partner's node says how it would decide, as far as it lets us see.\n\n\
        Examples:\n  countersign policy explain read birch quakes --purpose research\n  countersign policy explain read us acme/quakes"
    )]
    Explain {
        /// What is asked
        #[arg(value_parser = ["discover", "request", "read", "publish"])]
        action: String,
        /// Who asks: a partner's name or authority, `us` or `stranger`
        principal: String,
        /// The stream
        stream: String,
        /// For which purpose
        #[arg(long, value_name = "TEXT")]
        purpose: Option<String>,
        /// Asking for which plan [default: that of the active agreement]
        #[arg(long, value_name = "PLAN")]
        plan: Option<String>,
        /// As if the principal were recorded as established there
        #[arg(long, value_name = "TEXT")]
        region: Option<String>,
        /// As if this proved who asks
        #[arg(long, value_name = "CREDENTIAL", value_parser = ["application-key", "local", "node-key", "token"])]
        credential: Option<String>,
        /// At which time (RFC 3339) [default: now]
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum LedgerVerb {
    /// List ledger entries, the newest last
    #[command(visible_alias = "list")]
    Ls {
        /// Only about this partner
        #[arg(long, value_name = "PARTNER")]
        partner: Option<String>,
        /// Only about this stream
        #[arg(long, value_name = "STREAM")]
        stream: Option<String>,
        /// Only of this kind
        #[arg(long, value_name = "KIND")]
        kind: Option<String>,
        /// Not before this time (RFC 3339)
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// Before this time (RFC 3339)
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// At most so many, the newest
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "N")]
        limit: u32,
    },
    /// Compare the queryable view with the logs
    Verify,
    /// Make the queryable view again from the logs
    Rebuild,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReceiptVerb {
    /// List receipts, the newest last
    #[command(visible_alias = "list")]
    Ls {
        /// Only with this partner
        #[arg(long, value_name = "PARTNER")]
        partner: Option<String>,
        /// Only of this stream
        #[arg(long, value_name = "STREAM")]
        stream: Option<String>,
        /// At most so many, the newest
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "N")]
        limit: u32,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum FilterVerb {
    /// Read a filter, show its canonical text and digest, and say whether an event passes
    #[command(after_help = "Examples:\n  \
            countersign filter check \"type LIKE 'org.example.%' AND NOT EXISTS subject\"\n  \
            countersign filter check \"priority > 3\" --event event.json\n\n\
            Filters see attributes, never data: CESQL 1.0, or with --filter-json a list of rules as CloudEvents Subscriptions has them.")]
    Check(FilterCheckArgs),
}

/// `filter check`.
#[derive(Args, Clone, Debug)]
pub(crate) struct FilterCheckArgs {
    /// A CESQL expression
    #[arg(value_name = "EXPR", conflicts_with = "filter_json")]
    pub(crate) expression: Option<String>,
    /// A file with rules in JSON, in place of an expression
    #[arg(long, value_name = "FILE")]
    pub(crate) filter_json: Option<PathBuf>,
    /// An event (CloudEvents JSON) to hold against it
    #[arg(long, value_name = "FILE")]
    pub(crate) event: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EvidenceVerb {
    /// Write log, content, documents, policies and keys of a stream or a range
    #[command(after_help = "Example:\n  countersign evidence export quakes --out quakes.tar")]
    Export {
        /// The stream
        stream: String,
        /// Where to: a folder that does not exist yet, or a file that ends in .tar
        #[arg(long, value_name = "PATH")]
        out: PathBuf,
        /// First sequence [default: the beginning]
        #[arg(long, value_name = "N")]
        from: Option<u64>,
        /// Sequence after the last [default: the end]
        #[arg(long, value_name = "N")]
        to: Option<u64>,
    },
    /// Ask somebody who keeps the time to stamp a checkpoint, and take the answer in
    #[command(
        after_help = "A time-stamp token (RFC 3161) says that a checkpoint existed at a time, whoever says otherwise later. Nothing is sent: without --attach the \
        query is written to FILE.tsq, and what it is about to FILE.checkpoint beside it. Give FILE.tsq to an authority, and its answer back with --attach, \
        where FILE.checkpoint has to lie beside it. `evidence export` and `stream proof --timestamped` then hand it out.\n\n\
        Examples:\n  countersign evidence timestamp quakes --out quakes.tsq\n  \
        curl -sS -H 'Content-Type: application/timestamp-query' --data-binary @quakes.tsq https://tsa.example > quakes.tsr\n  \
        countersign evidence timestamp quakes --attach quakes.tsr"
    )]
    Timestamp {
        /// The stream
        stream: String,
        /// Size of the checkpoint [default: the newest]
        #[arg(long, value_name = "N", conflicts_with = "attach")]
        size: Option<u64>,
        /// Where to: a file that does not exist yet and ends in .tsq [default: STREAM.tsq]
        #[arg(long, value_name = "FILE", conflicts_with = "attach")]
        out: Option<PathBuf>,
        /// The authority's answer (.tsr), or the token in it
        #[arg(long, value_name = "FILE")]
        attach: Option<PathBuf>,
    },
    /// Verify evidence offline, without a node
    #[command(
        after_help = "Takes a bundle (`evidence export`: a folder or .tar), the proof of one event (`stream proof`: .tlog-proof) or of growth (`stream \
        consistency`: .tlog-consistency) with the files of the same stem beside it, the proof of a fork (.fork-proof), or a mirrored log (a folder with `checkpoint` \
        and `tile/`).\n\
        Without --trust the best result is 9: whole under a key of which nobody said that it is right.\n\n\
        Examples:\n  countersign evidence verify quakes.tar --trust key-abcdefghijklmnopqrstuvwxyz234567\n  \
        countersign evidence verify quakes-41.tlog-proof --trust key-abcdefghijklmnopqrstuvwxyz234567"
    )]
    Verify(VerifyArgs),
}

/// `evidence verify`.
#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    /// The bundle, proof or mirrored log
    pub path: PathBuf,
    /// Fingerprint of the organization key that is right, or a file that holds it, its key statement, the log's vkey, or a witness policy (c2sp.org/tlog-policy); several times for several
    #[arg(long, value_name = "FINGERPRINT|FILE")]
    pub trust: Vec<String>,
    /// Certificates in PEM of whom to trust about time: time-stamp tokens that lead to one of them say by when a checkpoint existed; several times for several
    #[arg(long, value_name = "FILE")]
    pub tsa_roots: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WitnessVerb {
    /// List who has cosigned our streams, and what was cosigned here
    Ls,
    /// Compare a signed checkpoint that came from elsewhere with what is held here of its log
    #[command(
        after_help = "Whoever reads the same stream can hand over what it was shown: the published log's `checkpoint`, or what its node cosigned\n\
            (`/witness/<hash>/checkpoint`). Two histories of one log are kept as a fork proof.\n\n\
            Exit codes: 0 consistent, 6 the log has forked, 9 nothing here can tell.\n\n\
            Example:\n  countersign witness compare checkpoint"
    )]
    Compare {
        /// A file with the signed note, or `-` for standard input
        #[arg(value_name = "FILE|-")]
        checkpoint: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Show each setting, its value and where it came from
    Explain {
        /// Print a configuration file with every default instead
        #[arg(long)]
        sample: bool,
    },
}

#[derive(Args, Clone, Debug)]
pub(crate) struct CompletionArgs {
    /// Which shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyVerb {
    /// List the organization's keys: role, fingerprint, period, state
    #[command(visible_alias = "list")]
    Ls,
    /// Put the key files under the passphrase that the settings name
    #[command(
        after_help = "The node must not run. `keys.passphrase_file` names a file that holds the passphrase, or `keys.passphrase_command` a program that prints it; the node asks for it\n\
            whenever it starts. Each file is replaced and what it held overwritten; copies in backups, snapshots and on disks that level their wear stay. A crash leaves\n\
            some files done: give the command again. `openssl pkey -in FILE` opens such a file.\n\n\
            Example:\n  countersign key protect"
    )]
    Protect,
    /// Take the key files out from under the passphrase
    #[command(
        after_help = "The node must not run. Give it before the passphrase is changed, and `key protect` after it.\n\nExample:\n  countersign key unprotect"
    )]
    Unprotect,
    /// Put another key into the place of one; both count until the overlap is over
    #[command(
        after_help = "Needs the organization key. Partners that are connected are told before the new key is used, the others when they come; sessions and\n\
            subscriptions go on. `organization` gives the organization key's place to another one: the organization keeps its name.\n\n\
            Examples:\n  countersign key rotate log --overlap 14d\n  countersign key rotate node --organization-key /media/stick/organization.pem"
    )]
    Rotate {
        /// node, log, agreement, receipt, witness or organization
        role: String,
        /// How long the key before still counts: 7d, 12h; at least 1m
        #[arg(long, default_value = "7d", value_name = "TIME", value_parser = parse_seconds)]
        overlap: u64,
        /// How long the new key counts: 365d [default: until it is followed]
        #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
        period: Option<u64>,
        /// The organization key, where it is kept elsewhere
        #[arg(long, value_name = "FILE")]
        organization_key: Option<PathBuf>,
        /// Where a new organization key goes [default: the data directory]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Take a key back: from now on nothing under it is accepted but what is named
    #[command(
        after_help = "A key in use is rotated first. Of a log key the newest head of each log is named: what lies below stays valid. Partners are told, and\n\
            refuse anything else under the key. The document is printed with --json: give it to whoever holds evidence and is no partner.\n\n\
            Example:\n  countersign key revoke log --reason \"the machine was stolen\""
    )]
    Revoke {
        /// Its fingerprint, or a role: the key in use
        key: String,
        /// Why, for partners and auditors
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// The organization key, where it is kept elsewhere
        #[arg(long, value_name = "FILE")]
        organization_key: Option<PathBuf>,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Who can read a stream's data.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum WhoReads {
    /// Whoever gets it
    #[default]
    None,
    /// The organizations that an agreement lets read
    Partners,
}
