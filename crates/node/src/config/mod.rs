//! Settings: parsed once into types that cannot be wrong, with a memory of where each value came from.
//!
//! ```text
//! flag  >  environment (COUNTERSIGN_QUIC_IDLE_TIMEOUT_MS)  >  countersign.toml ([quic] idle_timeout_ms)  >  default
//! ```
//!
//! [`SETTINGS`] is the whole list: file, environment, `config explain` and the sample in `deploy/` are made from it.

mod settings;
mod value;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use countersign_client::quic::QuicLimits;
use countersign_exchange::WitnessSettings;
use countersign_store::journal;
use serde::Serialize;
use toml::de::{DeTable, DeValue};

pub use settings::{SETTINGS, Setting};
pub use value::{HostPort, Raw, TraceLevel, ValueFault};

use crate::data_dir::Environment;
use crate::passphrase::KeySettings;

/// Largest configuration file that is read: the sample takes 8 KiB.
pub const CONFIG_BYTES_MAX: u64 = 256 << 10;

/// Every setting of a node. What each means, its unit and its range are in [`SETTINGS`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// UDP address of the door for partners and applications.
    pub listen: SocketAddr,
    /// TCP address of the HTTP door (health, metrics).
    pub http: SocketAddr,
    /// Where partners are told to dial; empty = the node can dial but is not dialed.
    pub advertise: Vec<HostPort>,
    /// Data bytes of the largest event that is taken.
    pub event_bytes_max: u32,
    /// Exposure window of plans that state none, in events.
    pub exposure_events: u64,
    /// Events a second that one publisher may hand into one stream; 0 = as many as go.
    pub publish_events_per_second: u64,
    /// What is traced on stderr.
    pub trace: TraceLevel,
    /// The journal's files and memory.
    pub journal: journal::Options,
    /// What one peer, and all strangers together, can make the node hold or wait for.
    pub quic: QuicLimits,
    /// What opens key files that are under a passphrase.
    pub keys: KeySettings,
    /// Whose logs are cosigned here, and whose cosignatures count.
    pub witness: WitnessSettings,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 7227)),
            http: SocketAddr::from((Ipv4Addr::LOCALHOST, 7228)),
            advertise: Vec::new(),
            event_bytes_max: 1 << 20,
            exposure_events: countersign_event::documents::Plan::default().exposure_events,
            publish_events_per_second: 0,
            trace: TraceLevel::Info,
            journal: journal::Options::default(),
            quic: QuicLimits::default(),
            keys: KeySettings::default(),
            witness: WitnessSettings::default(),
        }
    }
}

/// Why settings are not used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The system refused.
    #[error("cannot read `{path}`: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no TOML.
    #[error("{path}:{line}: {detail}", path = .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the TOML reader expected.
        detail: String,
    },
    /// The file names a setting that does not exist.
    #[error("{path}:{line}: there is no setting `{key}`", path = .path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The name as it was found.
        key: String,
        /// The setting whose name is nearest, where one is near.
        nearest: Option<&'static str>,
    },
    /// A setting has a value that it cannot have.
    #[error("{place}: `{key}` {fault}")]
    Value {
        /// Where it was given.
        place: Place,
        /// The setting.
        key: &'static str,
        /// What is wrong.
        fault: ValueFault,
    },
}

/// Where a value was given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// Nowhere.
    Default,
    /// In an environment variable.
    Environment {
        /// Its name.
        variable: String,
    },
    /// In a file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// On the command line.
    Flag {
        /// The flag.
        flag: &'static str,
    },
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.pad("default"),
            Self::Environment { variable } => f.pad(variable),
            Self::File { path, line } => f.pad(&format!("{}:{line}", path.display())),
            Self::Flag { flag } => f.pad(flag),
        }
    }
}

/// A value given on the command line.
#[derive(Clone, Debug)]
pub struct FlagValue {
    /// The flag, as `--listen`.
    pub flag: &'static str,
    /// The setting that it stands for.
    pub key: &'static str,
    /// The text.
    pub value: String,
}

/// Settings together with where each came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// One place for each of [`SETTINGS`], in the same order.
    places: Vec<Place>,
}

/// One line of `config explain`.
#[derive(Clone, Debug, Serialize)]
pub struct Explained {
    /// The setting.
    pub key: &'static str,
    /// Its value.
    pub value: serde_json::Value,
    /// Where it came from: `default`, a variable, `FILE:LINE` or a flag.
    pub from: String,
    /// What it is counted in; empty where it is no quantity.
    pub unit: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// The environment variable that sets it.
    pub variable: String,
    /// What it is where nobody says anything.
    pub default: serde_json::Value,
}

impl Config {
    /// Reads all layers.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(
        file: Option<&Path>,
        environment: &Environment,
        flags: &[FlagValue],
    ) -> Result<Loaded, ConfigError> {
        let mut loaded = Loaded {
            config: Self::default(),
            places: vec![Place::Default; SETTINGS.len()],
        };
        if let Some(path) = file {
            loaded.apply_file(path, &read_text(path)?)?;
        }
        for (index, setting) in SETTINGS.iter().enumerate() {
            let variable = setting.variable();
            if let Some(text) = environment.value(&variable) {
                loaded.apply(index, &Raw::Text(text), Place::Environment { variable })?;
            }
        }
        for given in flags {
            if let Some(index) = SETTINGS.iter().position(|setting| setting.key == given.key) {
                let place = Place::Flag { flag: given.flag };
                loaded.apply(index, &Raw::Text(&given.value), place)?;
            }
        }
        Ok(loaded)
    }

    /// The text of a configuration file with these settings: what differs from the default is set, all else is there as a comment.
    #[must_use]
    pub fn to_file_text(&self) -> String {
        let default = Self::default();
        let mut text = String::from(
            "# Settings of a countersign node. Every line that is commented out states the default.\n\
             # Precedence: flag > environment (the name in brackets) > this file > default. `countersign config explain`\n\
             # shows each value and where it came from. A setting that does not exist is an error.\n",
        );
        let mut section = "";
        for setting in SETTINGS {
            let (table, name) = setting.key.split_once('.').unwrap_or(("", setting.key));
            if table != section {
                section = table;
                // Writing to a string cannot fail.
                let _ = write!(text, "\n[{table}]\n");
            }
            let value = (setting.show)(self);
            let comment = if value == (setting.show)(&default) {
                "# "
            } else {
                ""
            };
            let unit = if setting.unit.is_empty() {
                String::new()
            } else {
                format!(" In {}.", setting.unit)
            };
            let _ = write!(
                text,
                "\n## {}{unit} [{}]\n{comment}{name} = {value}\n",
                setting.meaning,
                setting.variable(),
            );
        }
        text
    }
}

impl Loaded {
    /// Each setting with its value and where that came from.
    #[must_use]
    pub fn explain(&self) -> Vec<Explained> {
        let default = Config::default();
        SETTINGS
            .iter()
            .zip(&self.places)
            .map(|(setting, place)| Explained {
                key: setting.key,
                value: (setting.show)(&self.config),
                from: place.to_string(),
                unit: setting.unit,
                meaning: setting.meaning,
                variable: setting.variable(),
                default: (setting.show)(&default),
            })
            .collect()
    }

    fn apply(&mut self, index: usize, raw: &Raw<'_>, place: Place) -> Result<(), ConfigError> {
        let setting = &SETTINGS[index];
        (setting.set)(&mut self.config, raw).map_err(|fault| ConfigError::Value {
            place: place.clone(),
            key: setting.key,
            fault,
        })?;
        self.places[index] = place;
        Ok(())
    }

    fn apply_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let line_of = |offset: usize| 1 + text.bytes().take(offset).filter(|b| *b == b'\n').count();
        let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            line: line_of(error.span().map_or(0, |span| span.start)),
            detail: error.message().replace('\n', "; "),
        })?;
        self.apply_table(path, &line_of, "", table.get_ref())
    }

    fn apply_table(
        &mut self,
        path: &Path,
        line_of: &dyn Fn(usize) -> usize,
        prefix: &str,
        table: &DeTable<'_>,
    ) -> Result<(), ConfigError> {
        for (name, value) in table {
            let key = format!("{prefix}{}", name.get_ref());
            let line = line_of(name.span().start);
            let is_section = SETTINGS.iter().any(|setting| {
                setting
                    .key
                    .strip_prefix(key.as_str())
                    .is_some_and(|rest| rest.starts_with('.'))
            });
            if let (true, DeValue::Table(inner)) = (is_section, value.get_ref()) {
                self.apply_table(path, line_of, &format!("{key}."), inner)?;
                continue;
            }
            let Some(index) = SETTINGS.iter().position(|setting| setting.key == key) else {
                return Err(ConfigError::UnknownKey {
                    path: path.to_owned(),
                    line,
                    nearest: nearest(&key),
                    key: key.chars().filter(|c| !c.is_control()).take(100).collect(),
                });
            };
            let place = Place::File {
                path: path.to_owned(),
                line,
            };
            self.apply(index, &Raw::Toml(value.get_ref()), place)?;
        }
        Ok(())
    }
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(CONFIG_BYTES_MAX).read_to_string(&mut text))
        .map_err(|source| ConfigError::Io {
            path: path.to_owned(),
            source,
        })?;
    Ok(text)
}

/// The setting that a mistyped name probably means: at most a third of its characters differ.
fn nearest(key: &str) -> Option<&'static str> {
    if key.len() > 64 {
        return None;
    }
    SETTINGS
        .iter()
        .map(|setting| {
            // A name without its section is the most common mistake.
            let bare = setting.key.rsplit('.').next().unwrap_or(setting.key);
            let distance = edit_distance(key, setting.key).min(edit_distance(key, bare));
            (distance, setting.key)
        })
        .min()
        .filter(|(distance, _)| distance * 3 <= key.len())
        .map(|(_, key)| key)
}

/// Levenshtein distance in bytes.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<Loaded, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(Some(&path), &Environment::default(), &[])
    }

    #[track_caller]
    fn check_refused(text: &str, expected: &str) {
        let message = file(text).unwrap_err().to_string();
        let (_, tail) = message.split_once("c.toml:").unwrap();
        assert_eq!(tail, expected);
    }

    #[test]
    fn an_empty_file_gives_the_defaults() {
        assert_eq!(file("").unwrap().config, Config::default());
    }

    #[test]
    fn the_sample_in_deploy_is_fresh_and_every_line_of_it_parses() {
        let sample = include_str!("../../../../deploy/countersign.toml");
        assert_eq!(
            sample,
            Config::default().to_file_text(),
            "write it again: countersign config explain --sample > deploy/countersign.toml"
        );
        let uncommented: String = sample
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(setting) if setting.contains(" = ") => format!("{setting}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let loaded = file(&uncommented).unwrap();
        assert_eq!(loaded.config, Config::default());
        assert!(
            loaded
                .places
                .iter()
                .all(|place| matches!(place, Place::File { .. }))
        );
    }

    #[test]
    fn a_written_file_reads_back_as_the_same_settings() {
        let config = Config {
            listen: "[::1]:9".parse().unwrap(),
            advertise: vec!["a.example:1".parse().unwrap(), "[::1]:2".parse().unwrap()],
            trace: TraceLevel::Debug,
            event_bytes_max: 4096,
            ..Config::default()
        };
        assert_eq!(file(&config.to_file_text()).unwrap().config, config);
    }

    #[test]
    fn unknown_settings_are_refused_with_their_line_and_the_nearest_name() {
        let text = "listen = \"0.0.0.0:1\"\n\n[quic]\nidle_timeut_ms = 3\n";
        check_refused(text, "4: there is no setting `quic.idle_timeut_ms`");
        let near = |text: &str| match file(text).unwrap_err() {
            ConfigError::UnknownKey { nearest, .. } => nearest,
            other => panic!("{other}"),
        };
        assert_eq!(near(text), Some("quic.idle_timeout_ms"));
        assert_eq!(near("idle_timeout_ms = 3"), Some("quic.idle_timeout_ms"));
        assert_eq!(near("zzz = 3"), None);
        check_refused("[other]\na = 1\n", "1: there is no setting `other`");
    }

    #[test]
    fn values_that_cannot_be_are_refused_with_their_line() {
        check_refused(
            "\nlisten = \"7227\"",
            "2: `listen` must be an address as `127.0.0.1:7227` or `[::1]:7227`",
        );
        check_refused("listen = 7227", "1: `listen` must be text in quotes");
        check_refused(
            "event_bytes_max = 0",
            "1: `event_bytes_max` must be between 1024 and 16777216",
        );
        check_refused(
            "event_bytes_max = \"1 MiB\"",
            "1: `event_bytes_max` must be a whole number",
        );
        check_refused(
            "trace = \"loud\"",
            "1: `trace` must be one of error, warn, info, debug, trace",
        );
        check_refused(
            "advertise = [\"nowhere\"]",
            "1: `advertise` must be a host and a port as `node.example.org:7227`",
        );
        check_refused(
            "[quic]\nidle_timeout_ms = -1",
            "2: `quic.idle_timeout_ms` must be a whole number",
        );
        check_refused("quic = 3", "1: there is no setting `quic`");
    }

    #[test]
    fn a_file_that_is_no_toml_is_refused_with_its_line() {
        let message = file("listen = \"0.0.0.0:1\"\nhttp 3\n")
            .unwrap_err()
            .to_string();
        assert!(message.contains("c.toml:2: "), "{message}");
    }

    #[test]
    fn a_flag_beats_the_environment_which_beats_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(
            &path,
            "listen = \"1.1.1.1:1\"\nhttp = \"1.1.1.1:1\"\ntrace = \"warn\"\n",
        )
        .unwrap();
        let environment = Environment::from([
            ("COUNTERSIGN_LISTEN", "2.2.2.2:2"),
            ("COUNTERSIGN_HTTP", "2.2.2.2:2"),
            ("COUNTERSIGN_QUIC_INCOMING_MAX", "7"),
        ]);
        let flags = [FlagValue {
            flag: "--listen",
            key: "listen",
            value: "3.3.3.3:3".to_owned(),
        }];
        let loaded = Config::load(Some(&path), &environment, &flags).unwrap();
        let explained = loaded.explain();
        let of = |key: &str| {
            let line = explained.iter().find(|line| line.key == key).unwrap();
            (line.value.to_string(), line.from.clone())
        };
        assert_eq!(of("listen"), ("\"3.3.3.3:3\"".into(), "--listen".into()));
        assert_eq!(
            of("http"),
            ("\"2.2.2.2:2\"".into(), "COUNTERSIGN_HTTP".into())
        );
        assert_eq!(
            of("trace"),
            ("\"warn\"".into(), format!("{}:3", path.display()))
        );
        assert_eq!(
            of("quic.incoming_max"),
            ("7".into(), "COUNTERSIGN_QUIC_INCOMING_MAX".into())
        );
        assert_eq!(of("event_bytes_max"), ("1048576".into(), "default".into()));
    }
}
