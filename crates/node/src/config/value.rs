use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use toml::de::DeValue;

/// A value as it was given, before it is parsed.
#[derive(Clone, Copy, Debug)]
pub enum Raw<'a> {
    /// In a variable or flag; lists are separated by commas.
    Text(&'a str),
    /// In a file.
    Toml(&'a DeValue<'a>),
}

/// What is wrong with a value.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ValueFault {
    /// Not an IP address with a port.
    #[error("must be an address as `127.0.0.1:7227` or `[::1]:7227`")]
    Address,
    /// Not a host with a port.
    #[error("must be a host and a port as `node.example.org:7227`")]
    HostPort,
    /// Not a trace level.
    #[error("must be one of error, warn, info, debug, trace")]
    Level,
    /// More of them than a link or file has room for.
    #[error("must be a list of at most {max}")]
    List {
        /// How many may be.
        max: usize,
    },
    /// Not a path from the root.
    #[error("must be an absolute path, or empty")]
    Path,
    /// Not a whole number that is not negative.
    #[error("must be a whole number")]
    Number,
    /// Too small or too large.
    #[error("must be between {min} and {max}")]
    Range {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// Not text.
    #[error("must be text in quotes")]
    Text,
    /// Not a verifier key.
    #[error("must be verifier keys as `<name>+<id>+<key>`, of type 0x01 for logs")]
    Vkey,
    /// No name that a key can have.
    #[error(
        "must be a name of 1 to 200 characters without spaces, plus signs and control characters"
    )]
    WitnessName,
    /// Not a witness's verifier key.
    #[error("must be verifier keys as `<name>+<id>+<key>`, of type 0x04 for witnesses")]
    WitnessKey,
    /// Not a witness with its address, or two of one name.
    #[error(
        "must be witnesses as `VKEY URL [STREAM …]`, of type 0x04, each with a name of its own"
    )]
    OutsideWitness,
    /// Not one of the words.
    #[error("must be `partners` or `nobody`")]
    WitnessServes,
    /// Neither of both words.
    #[error("must be `yes` or `no`")]
    YesNo,
}

impl<'a> Raw<'a> {
    pub(super) fn text(&self) -> Result<&'a str, ValueFault> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Toml(value) => value.as_str().ok_or(ValueFault::Text),
        }
    }

    pub(super) fn number(&self, min: u64, max: u64) -> Result<u64, ValueFault> {
        let number = match self {
            Self::Text(text) => text.parse::<u64>().ok(),
            Self::Toml(value) => value
                .as_integer()
                .and_then(|integer| u64::from_str_radix(integer.as_str(), integer.radix()).ok()),
        };
        let number = number.ok_or(ValueFault::Number)?;
        if (min..=max).contains(&number) {
            Ok(number)
        } else {
            Err(ValueFault::Range { min, max })
        }
    }

    pub(super) fn parse<T: FromStr>(&self, fault: ValueFault) -> Result<T, ValueFault> {
        self.text()?.parse().map_err(|_| fault)
    }

    /// One item alone counts as a list of one.
    pub(super) fn list<T: FromStr>(
        &self,
        max: usize,
        fault: ValueFault,
    ) -> Result<Vec<T>, ValueFault> {
        let items: Vec<&str> = match self {
            Self::Text(text) => text.split(',').map(str::trim).collect(),
            Self::Toml(value) => match value.as_array() {
                Some(array) => array
                    .iter()
                    .map(|item| item.get_ref().as_str().ok_or(ValueFault::Text))
                    .collect::<Result<_, _>>()?,
                None => vec![value.as_str().ok_or(ValueFault::Text)?],
            },
        };
        if items.len() > max {
            return Err(ValueFault::List { max });
        }
        items
            .into_iter()
            .map(|item| item.parse().map_err(|_| fault))
            .collect()
    }
}

/// A host, by name or address, and a port: where others are told to dial. At most 255 characters in all, as an invitation link has room for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPort(String);

/// Text that is no host and port.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a place to dial is a host and a port as `node.example.org:7227`")]
pub struct HostPortError;

impl HostPort {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, HostPortError> {
        let good = |text: &str| {
            let (host, port) = text.rsplit_once(':')?;
            port.parse::<u16>().ok().filter(|&port| port != 0)?;
            let name = (1..=253).contains(&host.len())
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
            (name || text.parse::<SocketAddr>().is_ok()).then_some(())
        };
        if text.len() <= 255 && good(text).is_some() {
            Ok(Self(text.to_owned()))
        } else {
            Err(HostPortError)
        }
    }
}

impl TryFrom<String> for HostPort {
    type Error = HostPortError;

    fn try_from(text: String) -> Result<Self, HostPortError> {
        text.parse()
    }
}

impl From<HostPort> for String {
    fn from(place: HostPort) -> Self {
        place.0
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// How much is traced.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum TraceLevel {
    /// Only what failed.
    Error,
    /// And what may fail soon.
    Warn,
    /// And what happened.
    Info,
    /// And how.
    Debug,
    /// And every step.
    Trace,
}

impl TraceLevel {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl FromStr for TraceLevel {
    type Err = ValueFault;

    fn from_str(text: &str) -> Result<Self, ValueFault> {
        [
            Self::Error,
            Self::Warn,
            Self::Info,
            Self::Debug,
            Self::Trace,
        ]
        .into_iter()
        .find(|level| level.as_str() == text)
        .ok_or(ValueFault::Level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_to_dial_are_names_or_addresses_with_a_port() {
        for good in [
            "localhost:1",
            "node.example.org:65535",
            "127.0.0.1:7227",
            "[::1]:7227",
        ] {
            assert_eq!(good.parse::<HostPort>().unwrap().as_str(), good);
        }
        for bad in [
            "", ":1", "a", "a:", "a:0", "a:65536", "::1:7", "a b:1", "a/b:1", "a\n:1", "user@a:1",
        ] {
            assert!(bad.parse::<HostPort>().is_err(), "{bad:?}");
        }
        assert!(
            format!("{}:1", "a".repeat(254))
                .parse::<HostPort>()
                .is_err()
        );
    }
}
