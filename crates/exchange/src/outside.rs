//! Witnesses that are no partners: known by a verifier key and an address that the node's owner has named.

use std::fmt;
use std::str::FromStr;

use countersign_event::names::{Authority, StreamName};
use countersign_tlog::{Algorithm, Vkey};

/// As many as a note has room for lines.
pub const OUTSIDE_WITNESSES_MAX: usize = 15;

/// Characters of a submission prefix.
const URL_CHARS_MAX: usize = 500;

/// Streams that one entry names.
const STREAMS_MAX: usize = 100;

/// Whom a cosignature comes from.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum WitnessId {
    /// A partner, over its session.
    Partner(Authority),
    /// Somebody else, over HTTP: the name of its key.
    Outside(String),
}

impl fmt::Display for WitnessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partner(authority) => f.pad(authority.as_str()),
            Self::Outside(name) => f.pad(name),
        }
    }
}

/// A witness that is asked over HTTP (C2SP tlog-witness). As text: `VKEY URL [STREAM …]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OutsideWitness {
    /// Its verifier key, of type 0x04.
    pub vkey: Vkey,
    /// Its submission prefix, without a slash at the end. What it shows of what it cosigned is looked for below it too.
    pub url: String,
    /// The streams that it is shown; none = all.
    pub streams: Vec<StreamName>,
}

/// Text that names no outside witness.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "an outside witness is `VKEY URL [STREAM …]`: a key of type 0x04, and an http or https address"
)]
pub struct OutsideWitnessError;

impl OutsideWitness {
    /// Who it is.
    #[must_use]
    pub fn id(&self) -> WitnessId {
        WitnessId::Outside(self.vkey.name().to_owned())
    }

    /// Where heads are handed in.
    #[must_use]
    pub fn add_checkpoint_url(&self) -> String {
        format!("{}/add-checkpoint", self.url)
    }

    /// Where it shows what it has cosigned last of the log with this SHA-256 of its origin, in lower-case hexadecimal.
    #[must_use]
    pub fn monitoring_url(&self, origin_hash: &str) -> String {
        format!("{}/{origin_hash}/checkpoint", self.url)
    }
}

impl FromStr for OutsideWitness {
    type Err = OutsideWitnessError;

    fn from_str(text: &str) -> Result<Self, OutsideWitnessError> {
        let mut words = text.split_whitespace();
        let vkey = words.next().and_then(|word| Vkey::parse(word).ok());
        let vkey = vkey.filter(|vkey| vkey.algorithm() == Algorithm::CosignatureV1);
        let url = words.next().filter(|url| is_prefix(url));
        let streams: Result<Vec<StreamName>, _> = words.map(str::parse).collect();
        match (vkey, url, streams) {
            (Some(vkey), Some(url), Ok(streams)) if streams.len() <= STREAMS_MAX => Ok(Self {
                vkey,
                url: url.trim_end_matches('/').to_owned(),
                streams,
            }),
            _ => Err(OutsideWitnessError),
        }
    }
}

/// No user, no query, no fragment: paths are put behind it.
fn is_prefix(url: &str) -> bool {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        let host = rest.split('/').next().unwrap_or_default();
        !host.is_empty()
            && url.len() <= URL_CHARS_MAX
            && rest
                .bytes()
                .all(|b| b.is_ascii_graphic() && !b"@?#\\\"<>%,".contains(&b))
    })
}

impl fmt::Display for OutsideWitness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.vkey, self.url)?;
        self.streams
            .iter()
            .try_for_each(|name| write!(f, " {name}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use countersign_crypto::SigningKey;

    use super::*;

    #[test]
    fn a_witness_is_a_key_an_address_and_perhaps_streams() {
        let key = SigningKey::from_seed(&[7; 32]).public();
        let vkey = Vkey::new("w.example/1", Algorithm::CosignatureV1, key).unwrap();
        let log = Vkey::new("w.example/1", Algorithm::Ed25519, key).unwrap();
        for (good, url) in [
            (format!("{vkey} https://w.example/"), "https://w.example"),
            (
                format!("  {vkey}\thttp://127.0.0.1:80/a/b  orders quakes"),
                "http://127.0.0.1:80/a/b",
            ),
            (format!("{vkey} https://[::1]:9"), "https://[::1]:9"),
        ] {
            let witness: OutsideWitness = good.parse().unwrap();
            assert_eq!(witness.url, url);
            assert_eq!(
                witness.to_string().parse::<OutsideWitness>().unwrap(),
                witness
            );
        }
        for bad in [
            String::new(),
            vkey.to_string(),
            format!("{log} https://w.example"),
            format!("{vkey} ftp://w.example"),
            format!("{vkey} w.example"),
            format!("{vkey} https://"),
            format!("{vkey} https:///path"),
            format!("{vkey} https://user:secret@w.example"),
            format!("{vkey} https://w.example/?q"),
            format!("{vkey} https://w.example/#f"),
            format!("{vkey} https://w.example Not/A/Stream"),
            format!("{vkey} https://w.example/{}", "a".repeat(500)),
        ] {
            assert!(bad.parse::<OutsideWitness>().is_err(), "{bad}");
        }
    }
}
