//! Tables and targets, as Markdown.

use std::fmt::Write as _;
use std::path::Path;

use super::full::Results;
use super::nats::{SYNCED_WINDOW_MAX, Sync};
use super::options::Options;
use super::plan::{ATTRIBUTE_BYTES, MTUS, SIZES, named};
use super::statistics::{Spread, number};
use crate::Failure;

const FILE: &str = "docs/benchmarks.md";
const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";

/// The part of the document between the markers.
pub(super) fn markdown(options: &Options, results: &Results) -> String {
    let mut text = String::new();
    method(&mut text, options, results);
    throughput(&mut text, results);
    latency(&mut text, results);
    streams(&mut text, results);
    subscribers(&mut text, results);
    verification(&mut text, results);
    raw(&mut text, results);
    policy(&mut text, results);
    targets(&mut text, options, results);
    text
}

/// Looks whether there is a place to write to, before anything is measured.
pub(super) fn check_place(root: &Path) -> Result<(), Failure> {
    let text = std::fs::read_to_string(root.join(FILE)).unwrap_or_default();
    replaced(&text, "").map(|_| ())
}

/// Replaces that part.
pub(super) fn write(root: &Path, part: &str) -> Result<String, Failure> {
    let path = root.join(FILE);
    let failed = |error: std::io::Error| {
        Failure::new(
            format!("{FILE}: {error}"),
            "see whether the file can be read and written",
        )
    };
    let text = std::fs::read_to_string(&path).map_err(failed)?;
    std::fs::write(&path, replaced(&text, part)?).map_err(failed)?;
    Ok(format!("{FILE} holds the new figures"))
}

fn replaced(text: &str, part: &str) -> Result<String, Failure> {
    let parts = text.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    });
    let (before, after) = parts.ok_or_else(|| {
        Failure::new(
            format!("{FILE} has no place for figures"),
            format!("put the lines `{BEGIN}` and `{END}` where they belong"),
        )
    })?;
    Ok(format!(
        "{before}{BEGIN}\n{}\n{END}{after}",
        part.trim_end()
    ))
}

fn method(text: &mut String, options: &Options, results: &Results) {
    let machine = |member: &str| match &results.machine[member] {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let _ = writeln!(
        text,
        "Measured by `cargo xtask bench` at revision {}: {} rounds, 1 s of warm-up and {} s counted where time is the measure, a fresh node for each\n\
         figure; given are the median and, in brackets, the lowest and highest round. Nothing was left out.\n",
        results.revision, options.rounds, options.seconds
    );
    let _ = writeln!(
        text,
        "*Machine:* {} cores ({}), {}, kernel {}, {}, UDP buffers {} bytes; load average in the last minute at the end: {}. Publisher, node,\n\
         consumer and peer share these cores.\n",
        machine("cores"),
        machine("cpu"),
        results.facts,
        machine("kernel"),
        machine("file_system"),
        machine("udp_buffer_max_bytes"),
        machine("load_average_1_min"),
    );
    let _ = writeln!(
        text,
        "*Ours:* events with so many bytes of JSON text and five attributes ({ATTRIBUTE_BYTES} bytes of values); batches of 128 KiB, window 8 MiB; loopback QUIC with\n\
         TLS 1.3; acknowledged is durable (fdatasync), chained and signed for; handed on is verified. `countersign bench VERB --help` says the rest.\n"
    );
    if options.quick_look {
        text.push_str("**A quick look:** fewer subscribers, idle subscriptions and entries than the targets ask for.\n\n");
    }
    if let Some((version, always)) = &results.nats {
        let _ = writeln!(
            text,
            "*NATS JetStream {version}*, its official client `async-nats`, plaintext TCP, file storage, one stream, one replica, in the same rounds on the same disk.\n\
             Messages have as many bytes as our data and attribute values together; as many are on the way as our window holds events (at 256 bytes 17,403). *Unsynced*\n\
             leaves `sync_interval` as it comes: an acknowledgement says nothing about the disk. *Synced* is `sync_interval: {always}`, with {SYNCED_WINDOW_MAX} messages on the\n\
             way at most: acknowledgements come in bursts of all that is queued. Publisher and consumer have a connection each. Messages are consumed by pull without\n\
             acknowledgements. Nothing is signed, chained, verified or encrypted there.\n"
        );
    }
}

/// A cell: the figure, or a dash.
fn cell(spread: Option<Spread>) -> String {
    spread.map_or_else(|| "–".to_owned(), |spread| spread.shown())
}

/// A cell of the median alone.
fn median(spread: Option<Spread>) -> String {
    spread.map_or_else(|| "–".to_owned(), |spread| number(spread.median))
}

/// Ours beside the peer's; none where the peer did nothing, which would be a fault and no victory.
fn ratio(ours: Option<Spread>, peer: Option<Spread>) -> Option<f64> {
    let peer = peer?.median;
    (peer > 0.0).then_some(ours?.median / peer)
}

fn throughput(text: &mut String, results: &Results) {
    let events = "/events_per_second";
    text.push_str("### Throughput\n\n");
    text.push_str("Core-nanoseconds per event are those of all threads of the process, user and system. Memory is the node's peak, in MB.\n\n");
    text.push_str("| what | MTU | events/s | MB/s of data | node ns | publisher ns | consumer ns | memory | NATS unsynced, events/s | ours / it | NATS synced | ours / it |\n");
    text.push_str("|---|---|---|---|---|---|---|---|---|---|---|---|\n");
    for verb in ["publish", "deliver", "catch-up"] {
        for size in SIZES {
            for mtu in MTUS {
                let name = named(&format!("{verb} {size}"), mtu);
                let Some(ours) = results.ours(&name, events) else {
                    continue;
                };
                let of = |pointer: &str| results.ours(&name, pointer);
                let memory = of("/node/memory_peak_bytes")
                    .map(|spread| number(spread.median / 1e6))
                    .unwrap_or_default();
                let _ = write!(
                    text,
                    "| {verb} {} B | {mtu} | {} | {} | {} | {} | {} | {memory} |",
                    number(f64::from(size)),
                    ours.shown(),
                    median(of("/data_mb_per_second")),
                    median(of("/node/core_ns_per_event")),
                    median(of("/publisher/core_ns_per_event")),
                    median(of("/consumer/core_ns_per_event")),
                );
                for sync in Sync::ALL {
                    let peer = results.peer(&name, sync, events);
                    let ratio = ratio(Some(ours), peer).map_or_else(|| "–".to_owned(), number);
                    let _ = write!(text, " {} | {ratio} |", cell(peer));
                }
                text.push('\n');
            }
        }
    }
    text.push('\n');
}

fn latency(text: &mut String, results: &Results) {
    text.push_str(
        "### Latency at 1,000 events a second, one at a time, 256 bytes, in microseconds\n\n",
    );
    text.push_str("| what | p50 | p99 | p99.9 |\n|---|---|---|---|\n");
    for (verb, words) in [
        ("publish", "handed in → acknowledged"),
        ("deliver", "made → handed on"),
    ] {
        for mtu in MTUS {
            let name = named(&format!("{verb} latency"), mtu);
            let of = |quantile: &str| cell(results.ours(&name, &format!("/latency/{quantile}_us")));
            if results.ours.contains_key(&name) {
                let _ = writeln!(
                    text,
                    "| {verb}: {words}, MTU {mtu} | {} | {} | {} |",
                    of("p50"),
                    of("p99"),
                    of("p999")
                );
            }
        }
        for sync in Sync::ALL {
            let name = format!("{verb} latency");
            let of = |quantile: &str| {
                cell(results.peer(&name, sync, &format!("/latency/{quantile}_us")))
            };
            if results.peer.contains_key(&(name.clone(), sync)) {
                let _ = writeln!(
                    text,
                    "| NATS {}, {verb} | {} | {} | {} |",
                    sync.name(),
                    of("p50"),
                    of("p99"),
                    of("p999")
                );
            }
        }
    }
    text.push('\n');
}

fn streams(text: &mut String, results: &Results) {
    text.push_str("### Many streams: publish at 100,000 events a second in all, one at a time, streams in turn\n\n");
    text.push_str("Each stream has a connection and a series of its own.\n\n");
    text.push_str(
        "| streams | events/s | node ns per event | p50 | p99 |\n|---|---|---|---|---|\n",
    );
    for streams in ["1", "1000"] {
        let name = format!("streams {streams}");
        if !results.ours.contains_key(&name) {
            continue;
        }
        let of = |pointer: &str| cell(results.ours(&name, pointer));
        let _ = writeln!(
            text,
            "| {streams} | {} | {} | {} µs | {} µs |",
            of("/events_per_second"),
            of("/node/core_ns_per_event"),
            of("/latency/p50_us"),
            of("/latency/p99_us"),
        );
    }
    text.push('\n');
}

fn subscribers(text: &mut String, results: &Results) {
    text.push_str("### Subscribers, idle ones, restart\n\n| what | figure |\n|---|---|\n");
    for mtu in MTUS {
        let name = named("fan-out", mtu);
        if !results.ours.contains_key(&name) {
            continue;
        }
        let of = |pointer: &str| cell(results.ours(&name, pointer));
        let _ = writeln!(
            text,
            "| fan-out at 5,000 events/s of 256 B, MTU {mtu}: node, core-ns for an event with one subscriber | {} |\n\
             | the same: for an event and each further subscriber | {} |\n\
             | the same: copying as many bytes over bare QUIC | {} |\n\
             | the same: ratio of the two | {} |\n\
             | the same: delivered to all together, events/s | {} |",
            of("/node_core_ns_per_event_with_one"),
            of("/node_core_ns_per_event_and_further_subscriber"),
            of("/quic_copy_core_ns_per_event"),
            of("/ratio_to_quic_copy"),
            of("/with_all/delivered_per_second"),
        );
    }
    let of = |name: &str, pointer: &str| cell(results.ours(name, pointer));
    let _ = writeln!(
        text,
        "| idle: subscriptions connected | {} |\n| idle: bytes of the node for each subscription | {} |\n\
         | idle: bytes of the node for each organization with its agreement | {} |\n| idle: share of a core | {} |\n\
         | restart after KILL: entries | {} |\n| restart: ms until it serves | {} |\n",
        of("idle", "/connected"),
        of("idle", "/node_bytes_per_subscription"),
        of("idle", "/node_bytes_per_organization"),
        of("idle", "/node_share_of_a_core"),
        of("restart", "/entries"),
        of("restart", "/serves_after_ms"),
    );
}

fn verification(text: &mut String, results: &Results) {
    text.push_str(
        "### Verification: `evidence verify` as a process, from its start to its exit\n\n",
    );
    text.push_str("*Format's hashes* are the four of an event (two commitments, leaf, node) and nothing else, on one core; *plain* is one hash over all files.\n\n");
    text.push_str("| size | events/s | MB/s of evidence | format's hashes / core-time | plain SHA-256 / core-time |\n|---|---|---|---|---|\n");
    for size in SIZES {
        let name = format!("verify {size}");
        if !results.ours.contains_key(&name) {
            continue;
        }
        let of = |pointer: &str| cell(results.ours(&name, pointer));
        let _ = writeln!(
            text,
            "| {size} | {} | {} | {} | {} |",
            of("/events_per_second"),
            of("/mb_per_second"),
            of("/ratio_to_format_hashes_per_core"),
            of("/ratio_to_plain_sha256_per_core"),
        );
    }
    text.push('\n');
}

fn raw(text: &mut String, results: &Results) {
    text.push_str(
        "### The machine by itself, in the same rounds\n\n| what | figure |\n|---|---|\n",
    );
    let first = format!("raw {}", SIZES[0]);
    for at in 0..3 {
        let of = |pointer: &str| results.ours(&first, &format!("/disk/{at}/{pointer}"));
        let _ = writeln!(
            text,
            "| {} bytes and fdatasync, again and again: MB/s appended, in place | {}, {} |",
            median(of("sync_bytes")),
            cell(of("appended/mb_per_second")),
            cell(of("in_place/mb_per_second")),
        );
    }
    for size in SIZES {
        let name = format!("raw {size}");
        if !results.ours.contains_key(&name) {
            continue;
        }
        let of = |pointer: &str| cell(results.ours(&name, pointer));
        let _ = writeln!(
            text,
            "| SHA-256, one core, event of {size} B: ns for the format's four hashes, for one over as many bytes | {}, {} |",
            of("/format_hashes_ns_per_event"),
            of("/plain_sha256_ns_per_event"),
        );
    }
    for (mtu, name) in [(MTUS[0], first.clone()), (MTUS[1], named("raw", MTUS[1]))] {
        let of = |pointer: &str| cell(results.ours(&name, pointer));
        let _ = writeln!(
            text,
            "| bare QUIC, one stream, MTU {mtu}: MB/s; core-ns per byte of the sender, of the receiver | {}; {}, {} |",
            of("/quic/mb_per_second"),
            of("/quic/sender_core_ns_per_byte"),
            of("/quic/receiver_core_ns_per_byte"),
        );
    }
    text.push('\n');
}

fn policy(text: &mut String, results: &Results) {
    let _ = writeln!(
        text,
        "### Policy decisions (`crates/policy/examples/decide_cost.rs`)\n\n```text\n{}\n```\n",
        results.policy.trim_end()
    );
}

/// A target, and what there is.
struct Target {
    what: &'static str,
    wanted: String,
    found: Option<f64>,
    is_reached: bool,
}

fn at_least(what: &'static str, wanted: f64, found: Option<f64>) -> Target {
    Target {
        what,
        wanted: format!("at least {}", number(wanted)),
        found,
        is_reached: found.is_some_and(|found| found >= wanted),
    }
}

fn at_most(what: &'static str, wanted: f64, found: Option<f64>) -> Target {
    Target {
        what,
        wanted: format!("at most {}", number(wanted)),
        found,
        is_reached: found.is_some_and(|found| found <= wanted),
    }
}

/// Of the measures that depend on it, those at this MTU.
fn all_targets(options: &Options, results: &Results, mtu: u32) -> Vec<Target> {
    // A quick look has fewer subscribers and entries than these targets name.
    let in_full = |found: Option<f64>| found.filter(|_| !options.quick_look);
    let ours = |name: &str, pointer: &str| results.ours(name, pointer).map(|spread| spread.median);
    let events = "/events_per_second";
    let by_mtu = |name: &str, pointer: &str| ours(&named(name, mtu), pointer);
    // The peer speaks TCP, whose loopback segments are larger still: its figures stand beside both of ours.
    let beside = |name: &str, sync| {
        let ours = results.ours(&named(name, mtu), events);
        ratio(ours, results.peer(name, sync, events))
    };
    let quotient =
        |over: Option<f64>, under: Option<f64>| Some(over? / under?.max(f64::MIN_POSITIVE));
    // Commits under a flood are between these two sizes.
    let disk =
        |at: usize, place: &str| ours("raw 16384", &format!("/disk/{at}/{place}/mb_per_second"));
    let published = by_mtu("publish 16384", "/data_mb_per_second");
    let first = format!("verify {}", SIZES[0]);
    vec![
        at_least(
            "publish 256 B, of NATS unsynced",
            4.0,
            beside("publish 256", Sync::Default),
        ),
        at_least(
            "publish 256 B, of NATS synced",
            60.0,
            beside("publish 256", Sync::Always),
        ),
        at_least(
            "publish 256 B, events/s",
            1_000_000.0,
            by_mtu("publish 256", events),
        ),
        at_least(
            "deliver 256 B, of NATS unsynced",
            3.5,
            beside("deliver 256", Sync::Default),
        ),
        at_least(
            "deliver 256 B, events/s",
            450_000.0,
            by_mtu("deliver 256", events),
        ),
        at_least(
            "deliver 1 KiB, of NATS unsynced",
            3.0,
            beside("deliver 1024", Sync::Default),
        ),
        at_least(
            "deliver 1 KiB, events/s",
            220_000.0,
            by_mtu("deliver 1024", events),
        ),
        at_least(
            "deliver 16 KiB, events/s",
            18_000.0,
            by_mtu("deliver 16384", events),
        ),
        at_least(
            "publish 16 KiB, of 1 MiB written and synced, appending",
            0.6,
            quotient(published, disk(1, "appended")),
        ),
        at_least(
            "publish 16 KiB, of 4 MiB written and synced, appending",
            0.6,
            quotient(published, disk(2, "appended")),
        ),
        at_least(
            "publish 16 KiB, of 4 MiB written and synced, in place",
            0.6,
            quotient(published, disk(2, "in_place")),
        ),
        at_least(
            "catch-up 256 B, events/s",
            1_100_000.0,
            by_mtu("catch-up 256", events),
        ),
        at_most(
            "deliver at 1,000/s, p50 in µs",
            350.0,
            by_mtu("deliver latency", "/latency/p50_us"),
        ),
        at_most(
            "deliver at 1,000/s, p99 in µs",
            700.0,
            by_mtu("deliver latency", "/latency/p99_us"),
        ),
        at_least(
            "verify 256 B, of the format's hashes, per core",
            0.7,
            ours(&first, "/ratio_to_format_hashes_per_core"),
        ),
        at_most(
            "1,000 streams, core-time per event beside 1 stream",
            1.3,
            quotient(
                ours("streams 1000", "/node/core_ns_per_event"),
                ours("streams 1", "/node/core_ns_per_event"),
            ),
        ),
        at_most(
            "1,000 streams, p99 added to that of 1 stream, in ms",
            100.0,
            ours("streams 1000", "/latency/p99_us")
                .zip(ours("streams 1", "/latency/p99_us"))
                .map(|(many, one)| (many - one) / 1e3),
        ),
        at_most(
            "fan-out to 100: a further subscriber, of copying over QUIC",
            1.5,
            in_full(by_mtu("fan-out", "/ratio_to_quic_copy")),
        ),
        at_most(
            "10,000 idle: KiB of the node each",
            60.0,
            in_full(ours("idle", "/node_bytes_per_subscription")).map(|bytes| bytes / 1_024.0),
        ),
        at_most(
            "10,000 idle: share of a core",
            0.05,
            in_full(ours("idle", "/node_share_of_a_core")),
        ),
        at_most(
            "restart after a crash with 10 million entries, in ms",
            2_000.0,
            in_full(ours("restart", "/serves_after_ms")),
        ),
    ]
}

fn targets(text: &mut String, options: &Options, results: &Results) {
    let [ethernet, larger] = MTUS;
    let _ = writeln!(
        text,
        "### Targets\n\nReached or not at each MTU; where there is one figure, it does not depend on it, or was taken at {ethernet} only.\n\n\
         | what | target | MTU {larger} | reached | MTU {ethernet} | reached |\n|---|---|---|---|---|---|"
    );
    let cells = |target: &Target| {
        let verdict = match (target.found, target.is_reached) {
            (None, _) => "not measured",
            (_, true) => "yes",
            (_, false) => "**no**",
        };
        let found = target.found.map_or_else(|| "–".to_owned(), number);
        format!("{found} | {verdict}")
    };
    let at = |mtu| all_targets(options, results, mtu);
    for (small, large) in at(ethernet).iter().zip(&at(larger)) {
        let large = if small.found == large.found || large.found.is_none() {
            "– | –".to_owned()
        } else {
            cells(large)
        };
        let _ = writeln!(
            text,
            "| {} | {} | {large} | {} |",
            small.what,
            small.wanted,
            cells(small)
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::options::parse;
    use super::*;

    fn results() -> Results {
        let mut results = Results::default();
        let ours = |events: u64| json!({"events_per_second": events, "node": {"core_ns_per_event": 3_000}});
        results.ours.insert(
            "publish 256".to_owned(),
            vec![ours(900_000), ours(1_100_000), ours(1_000_000)],
        );
        results.peer.insert(
            ("publish 256".to_owned(), Sync::Default),
            vec![json!({"events_per_second": 500_000})],
        );
        results
    }

    #[test]
    fn a_target_is_reached_missed_or_not_measured() {
        let targets = all_targets(&parse(&[]).unwrap(), &results(), MTUS[0]);
        let verdict = |what: &str| {
            let target = targets.iter().find(|target| target.what == what).unwrap();
            (target.found, target.is_reached)
        };
        assert_eq!(
            verdict("publish 256 B, events/s"),
            (Some(1_000_000.0), true)
        );
        assert_eq!(
            verdict("publish 256 B, of NATS unsynced"),
            (Some(2.0), false)
        );
        assert_eq!(verdict("publish 256 B, of NATS synced"), (None, false));
        assert_eq!(verdict("deliver at 1,000/s, p50 in µs"), (None, false));
        assert_eq!(ratio(Spread::of(&[1.0]), Spread::of(&[0.0])), None);
        assert!(at_most("", 2.0, Some(1.0)).is_reached && !at_most("", 2.0, Some(2.1)).is_reached);
    }

    #[test]
    fn the_table_gives_median_range_and_ratio() {
        let text = markdown(&parse(&[]).unwrap(), &results());
        assert!(
            text.contains("| publish 256 B | 1452 | 1,000,000 (900,000–1,100,000) |"),
            "{text}"
        );
        assert!(text.contains("| 500,000 | 2.00 |"), "{text}");
        assert!(
            text.contains(
                "| publish 256 B, of NATS unsynced | at least 4.00 | – | – | 2.00 | **no** |"
            ),
            "{text}"
        );
    }

    #[test]
    fn only_what_stands_between_the_markers_is_replaced() {
        let text = format!("# Title\n\n{BEGIN}\nold\n{END}\nend\n");
        let new = replaced(&text, "new\n\n").unwrap();
        assert_eq!(new, format!("# Title\n\n{BEGIN}\nnew\n{END}\nend\n"));
        assert!(replaced("# Title\n", "new").is_err());
    }

    #[test]
    fn the_document_has_a_place_for_figures() {
        check_place(&crate::root()).unwrap();
    }
}
