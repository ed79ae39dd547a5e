use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use countersign_exchange::{OUTSIDE_WITNESSES_MAX, OutsideWitness};
use countersign_tlog::note::check_name;
use countersign_tlog::{Algorithm, Vkey};
use serde_json::{Value, json};

use super::{Config, Raw, ValueFault};

/// One setting: its name, what it means, and how it gets into and out of [`Config`].
#[derive(Debug)]
pub struct Setting {
    /// Its name in the file, with its section: `quic.idle_timeout_ms`.
    pub key: &'static str,
    /// What it means, and what it costs or endangers.
    pub meaning: &'static str,
    /// What it is counted in; empty where it is no quantity.
    pub unit: &'static str,
    pub(super) set: fn(&mut Config, &Raw<'_>) -> Result<(), ValueFault>,
    pub(super) show: fn(&Config) -> Value,
}

impl Setting {
    /// The environment variable that sets it: `COUNTERSIGN_QUIC_IDLE_TIMEOUT_MS`.
    #[must_use]
    pub fn variable(&self) -> String {
        let name = self.key.replace('.', "_").to_ascii_uppercase();
        format!("COUNTERSIGN_{name}")
    }
}

/// A whole number within a range. The range fits the field's type, so that the conversion cannot lose anything.
macro_rules! number {
    ($key:literal, $($field:ident).+, $type:ty, $min:literal..=$max:literal, $unit:literal, $meaning:literal) => {
        Setting {
            key: $key,
            meaning: $meaning,
            unit: $unit,
            set: |config, raw| {
                let number = raw.number($min, $max)?;
                config.$($field).+ = <$type>::try_from(number)
                    .map_err(|_| ValueFault::Range { min: $min, max: $max })?;
                Ok(())
            },
            show: |config| json!(config.$($field).+),
        }
    };
}

/// A duration in milliseconds.
macro_rules! millis {
    ($key:literal, $($field:ident).+, $min:literal..=$max:literal, $meaning:literal) => {
        Setting {
            key: $key,
            meaning: $meaning,
            unit: "milliseconds",
            set: |config, raw| {
                config.$($field).+ = Duration::from_millis(raw.number($min, $max)?);
                Ok(())
            },
            show: |config| json!(u64::try_from(config.$($field).+.as_millis()).unwrap_or(u64::MAX)),
        }
    };
}

/// Every setting, those without a section first, as TOML wants it.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "listen",
        meaning: "UDP address of the door for partners and applications.",
        unit: "",
        set: |config, raw| {
            config.listen = raw.parse(ValueFault::Address)?;
            Ok(())
        },
        show: |config| json!(config.listen.to_string()),
    },
    Setting {
        key: "http",
        meaning: "TCP address of the HTTP door (health, metrics, published logs). Danger: no TLS, and metrics are for anybody; keep it on loopback, behind a proxy that passes on `/logs/` alone.",
        unit: "",
        set: |config, raw| {
            config.http = raw.parse(ValueFault::Address)?;
            Ok(())
        },
        show: |config| json!(config.http.to_string()),
    },
    Setting {
        key: "advertise",
        meaning: "Where partners are told to dial, at most 8 places; empty: this node dials and is not dialed.",
        unit: "",
        set: |config, raw| {
            config.advertise = raw.list(8, ValueFault::HostPort)?;
            Ok(())
        },
        show: |config| json!(config.advertise),
    },
    number!(
        "event_bytes_max",
        event_bytes_max,
        u32,
        1_024..=16_777_216,
        "bytes",
        "Data of the largest event that is taken."
    ),
    number!(
        "exposure_events",
        exposure_events,
        u64,
        1..=1_000_000_000,
        "events",
        "How far a producer delivers beyond the last verified receipt, for plans that do not say it: what is at risk if no receipt comes."
    ),
    number!(
        "publish_events_per_second",
        publish_events_per_second,
        u64,
        0..=1_000_000_000,
        "events",
        "How many events a second one publisher may hand into one stream, and as many at once; 0: as many as go. Beyond it a publisher is refused, and told when to go on."
    ),
    Setting {
        key: "trace",
        meaning: "What is written to stderr while the node runs: error, warn, info, debug or trace.",
        unit: "",
        set: |config, raw| {
            config.trace = raw.parse(ValueFault::Level)?;
            Ok(())
        },
        show: |config| json!(config.trace.as_str()),
    },
    number!(
        "journal.segment_bytes",
        journal.segment_bytes,
        u64,
        4_096..=1_099_511_627_776,
        "bytes",
        "Size of a segment file, preallocated. Smaller ones roll more often, and each roll syncs the head file."
    ),
    number!(
        "journal.cache_bytes",
        journal.cache_bytes,
        usize,
        0..=68_719_476_736,
        "bytes",
        "Recent commits kept in memory for readers."
    ),
    number!(
        "quic.incoming_max",
        quic.incoming_max,
        usize,
        1..=65_536,
        "attempts",
        "Attempts to connect that wait to be taken; more are refused by QUIC itself. Each takes about 1.5 KiB."
    ),
    number!(
        "quic.incoming_bytes",
        quic.incoming_bytes,
        u64,
        4_096..=1_073_741_824,
        "bytes",
        "Bytes buffered for all waiting attempts together."
    ),
    number!(
        "quic.handshakes_max",
        quic.handshakes_max,
        usize,
        1..=65_536,
        "handshakes",
        "Handshakes in progress at a time; who comes above it is refused and may try again."
    ),
    number!(
        "quic.retry_above",
        quic.retry_above,
        usize,
        0..=65_536,
        "handshakes",
        "Handshakes in progress above which a newcomer must first prove its address."
    ),
    millis!(
        "quic.handshake_time_ms",
        quic.handshake_time,
        100..=600_000,
        "Longest time of a handshake, on either side."
    ),
    millis!(
        "quic.idle_timeout_ms",
        quic.idle_timeout,
        1_000..=3_600_000,
        "A connection without any sign of the peer ends after this."
    ),
    millis!(
        "quic.keep_alive_ms",
        quic.keep_alive,
        100..=3_600_000,
        "On a quiet connection the side that dialed sends a sign of life this often. Keep it well below `idle_timeout_ms`."
    ),
    number!(
        "quic.streams_per_connection",
        quic.streams_per_connection,
        u32,
        1..=65_536,
        "streams",
        "Streams that a peer may have open on one connection; each subscription is one."
    ),
    number!(
        "quic.stranger_streams",
        quic.stranger_streams,
        u32,
        1..=1_024,
        "streams",
        "Streams of a connection before its peer is known."
    ),
    number!(
        "quic.stranger_window",
        quic.stranger_window,
        u32,
        4_096..=16_777_216,
        "bytes",
        "Unread bytes of a connection before its peer is known."
    ),
    number!(
        "quic.receive_window",
        quic.receive_window,
        u32,
        65_536..=1_073_741_824,
        "bytes",
        "Unread bytes of one connection."
    ),
    number!(
        "quic.stream_receive_window",
        quic.stream_receive_window,
        u32,
        65_536..=1_073_741_824,
        "bytes",
        "Unread bytes of one stream."
    ),
    number!(
        "quic.send_window",
        quic.send_window,
        u64,
        65_536..=1_073_741_824,
        "bytes",
        "Bytes written and not yet acknowledged on one connection."
    ),
    number!(
        "quic.connections_max",
        quic.connections_max,
        usize,
        1..=1_048_576,
        "connections",
        "Accepted connections of all keys together. Each takes about 40 KiB when idle."
    ),
    number!(
        "quic.connections_per_peer",
        quic.connections_per_peer,
        usize,
        1..=1_024,
        "connections",
        "Accepted connections that one key may hold."
    ),
    number!(
        "quic.udp_buffer_bytes",
        quic.udp_buffer_bytes,
        usize,
        65_536..=1_073_741_824,
        "bytes",
        "Size asked for the send and receive buffers of the UDP socket; the system may give less."
    ),
    number!(
        "quic.mtu_initial",
        quic.mtu_initial,
        u16,
        1_200..=65_527,
        "bytes",
        "UDP payload at the start of a connection. Danger: more than 1200 loses packets where the path is smaller."
    ),
    number!(
        "quic.mtu_upper_bound",
        quic.mtu_upper_bound,
        u16,
        1_200..=65_527,
        "bytes",
        "Largest UDP payload that path discovery tries."
    ),
    Setting {
        key: "keys.passphrase_file",
        meaning: "A file that holds the passphrase of the key files, in one line, readable by its owner only; empty: none. `countersign key protect` puts the keys under it. Danger: on the same disk as the keys it protects nothing.",
        unit: "",
        set: |config, raw| {
            let path = Path::new(raw.text()?);
            let is_set = path != Path::new("");
            if is_set && !path.is_absolute() {
                return Err(ValueFault::Path);
            }
            config.keys.passphrase_file = is_set.then(|| path.to_owned());
            Ok(())
        },
        show: |config| {
            json!(
                config
                    .keys
                    .passphrase_file
                    .as_deref()
                    .unwrap_or(Path::new(""))
            )
        },
    },
    Setting {
        key: "keys.passphrase_command",
        meaning: "In place of that file a program and its arguments, at most 32 words: the line that it prints within 30 s is the passphrase. Run without a shell, each time that keys are opened.",
        unit: "",
        set: |config, raw| {
            let words: Vec<String> = raw.list(32, ValueFault::Text)?;
            let is_set = words.iter().any(|word| !word.is_empty());
            config.keys.passphrase_command = if is_set { words } else { Vec::new() };
            Ok(())
        },
        show: |config| json!(config.keys.passphrase_command),
    },
    Setting {
        key: "witness.serves",
        meaning: "Whose logs are cosigned here: partners (and the logs of `witness.logs`), or nobody. Danger: a stream that nobody cosigns can be shown to others in another version.",
        unit: "",
        set: |config, raw| {
            config.witness.serves = match raw.text()? {
                "partners" => true,
                "nobody" => false,
                _ => return Err(ValueFault::WitnessServes),
            };
            Ok(())
        },
        show: |config| {
            json!(if config.witness.serves {
                "partners"
            } else {
                "nobody"
            })
        },
    },
    Setting {
        key: "witness.name",
        meaning: "A name of your own choice under which this node cosigns, with a key that no key statement lists; empty: the authority's name and the witness key. Another name is another witness.",
        unit: "",
        set: |config, raw| {
            let name = raw.text()?;
            let good = name.is_empty() || (name.len() <= 200 && check_name(name).is_ok());
            if !good {
                return Err(ValueFault::WitnessName);
            }
            config.witness.name = Some(name.to_owned()).filter(|name| !name.is_empty());
            Ok(())
        },
        show: |config| json!(config.witness.name.clone().unwrap_or_default()),
    },
    number!(
        "witness.quorum",
        witness.quorum,
        usize,
        1..=15,
        "witnesses",
        "How many witnesses have to cosign before events count as witnessed."
    ),
    Setting {
        key: "witness.trusted",
        meaning: "Verifier keys of witnesses (type 0x04) whose cosignatures count when a partner's stream is read with `--assurance witnessed`, besides those of partners; at most 100.",
        unit: "",
        set: |config, raw| {
            let trusted: Vec<Vkey> = raw.list(100, ValueFault::WitnessKey)?;
            let cosigns = |vkey: &Vkey| vkey.algorithm() == Algorithm::CosignatureV1;
            if !trusted.iter().all(cosigns) {
                return Err(ValueFault::WitnessKey);
            }
            config.witness.trusted = trusted;
            Ok(())
        },
        show: |config| {
            let trusted = config.witness.trusted.iter();
            json!(trusted.map(ToString::to_string).collect::<Vec<_>>())
        },
    },
    Setting {
        key: "witness.outside",
        meaning: "Witnesses that are no partners (C2SP tlog-witness), each as `VKEY URL [STREAM …]`: they are shown the heads of the streams named, or of all, and count towards `witness.quorum`; at most 15. A restored directory waits for their answer too. Danger: whoever runs one learns that these streams exist, and how fast they grow.",
        unit: "",
        set: |config, raw| {
            let outside: Vec<OutsideWitness> =
                raw.list(OUTSIDE_WITNESSES_MAX, ValueFault::OutsideWitness)?;
            let named = |witness: &OutsideWitness| witness.vkey.name().to_owned();
            let names: HashSet<String> = outside.iter().map(named).collect();
            if names.len() != outside.len() {
                return Err(ValueFault::OutsideWitness);
            }
            config.witness.outside = outside;
            Ok(())
        },
        show: |config| {
            let outside = config.witness.outside.iter();
            json!(outside.map(ToString::to_string).collect::<Vec<_>>())
        },
    },
    Setting {
        key: "witness.outside_ledgers",
        meaning: "Whether the witnesses of `witness.outside` are shown ledger logs too: yes or no. Danger: these logs are named by the partners that they are about.",
        unit: "",
        set: |config, raw| {
            config.witness.outside_ledgers = match raw.text()? {
                "yes" => true,
                "no" => false,
                _ => return Err(ValueFault::YesNo),
            };
            Ok(())
        },
        show: |config| {
            json!(if config.witness.outside_ledgers {
                "yes"
            } else {
                "no"
            })
        },
    },
    Setting {
        key: "witness.logs",
        meaning: "Verifier keys of logs that are cosigned besides those of partners, at most 1,000.",
        unit: "",
        set: |config, raw| {
            let logs: Vec<Vkey> = raw.list(1_000, ValueFault::Vkey)?;
            if logs
                .iter()
                .any(|vkey| vkey.algorithm() != Algorithm::Ed25519)
            {
                return Err(ValueFault::Vkey);
            }
            config.witness.logs = logs;
            Ok(())
        },
        show: |config| {
            let logs = config.witness.logs.iter();
            json!(logs.map(ToString::to_string).collect::<Vec<_>>())
        },
    },
];
