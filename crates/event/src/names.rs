//! Names of organizations, streams and logs: `schemas/names.md`.
//!
//! Everything here is text that arrives from outside and ends up in paths of the mind, never of the file system: a name is
//! checked once, when it becomes one of these types.

use std::fmt;
use std::str::FromStr;

use countersign_crypto::{Fingerprint, PublicKey};
use serde::{Deserialize, Serialize};

/// Text that is not a name of the wanted kind.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NameError {
    /// Not an authority.
    #[error("`{text}` is not an authority: use a domain name, or a fingerprint such as `key-…`")]
    Authority {
        /// What was given, cut to 80 characters.
        text: String,
    },
    /// Not a stream name.
    #[error(
        "`{text}` is not a stream name: use 1 to 64 characters of a-z, 0-9, `.`, `_`, `-`, beginning with a letter or digit"
    )]
    Stream {
        /// What was given, cut to 80 characters.
        text: String,
    },
    /// Not an origin.
    #[error("`{text}` is not an origin: use `<authority>/streams/<name>`")]
    Origin {
        /// What was given, cut to 80 characters.
        text: String,
    },
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

macro_rules! text_type {
    ($name:ident) => {
        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

/// Who speaks: the fingerprint of an organization's first key, or a domain it claims.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Authority(String);
text_type!(Authority);

impl Authority {
    /// The authority that needs no proof: the fingerprint of `key`.
    #[must_use]
    pub fn of_key(key: &PublicKey) -> Self {
        Self(key.fingerprint().as_str().to_owned())
    }

    /// Whether the authority is the fingerprint of a key, so that it proves itself.
    #[must_use]
    pub fn is_fingerprint(&self) -> bool {
        self.0.parse::<Fingerprint>().is_ok()
    }

    /// Whether `key` may speak under this authority as its first key. True for every domain: that claim is pinned, not proven.
    #[must_use]
    pub fn admits_first_key(&self, key: &PublicKey) -> bool {
        match self.0.parse::<Fingerprint>() {
            Ok(fingerprint) => fingerprint == key.fingerprint(),
            Err(_) => true,
        }
    }
}

impl FromStr for Authority {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        // A domain has a dot, so that it cannot be mistaken for a fingerprint or a local nickname.
        let domain = text.len() <= 253 && text.contains('.') && text.split('.').all(label);
        if domain || text.parse::<Fingerprint>().is_ok() {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Authority { text: shown(text) })
        }
    }
}

/// The name of a stream within its organization.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct StreamName(String);
text_type!(StreamName);

impl FromStr for StreamName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut bytes = text.bytes();
        let first = bytes
            .next()
            .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let rest = bytes.all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-')
        });
        if first && rest && text.len() <= 64 {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Stream { text: shown(text) })
        }
    }
}

/// The name of a log, and of its key in signed notes.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Origin(String);
text_type!(Origin);

/// What a log holds, as its origin says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LogSubject {
    /// A published stream.
    Stream(StreamName),
    /// The private ledger log about the node itself.
    NodeLedger,
    /// The private ledger log about one counterparty.
    Ledger(Authority),
}

impl Origin {
    /// The origin of a stream.
    #[must_use]
    pub fn of_stream(authority: &Authority, stream: &StreamName) -> Self {
        Self(format!("{authority}/streams/{stream}"))
    }

    /// The origin of a node's own ledger log.
    #[must_use]
    pub fn of_node_ledger(authority: &Authority) -> Self {
        Self(format!("{authority}/ledger/node"))
    }

    /// The origin of the ledger log that `authority` keeps about `counterparty`.
    #[must_use]
    pub fn of_ledger(authority: &Authority, counterparty: &Authority) -> Self {
        Self(format!("{authority}/ledger/{counterparty}"))
    }

    /// The origin of a successor of this ledger log, told from others of its generation by `salt`; `None` for a stream, and after 9,999 generations.
    #[must_use]
    pub fn successor(&self, salt: [u8; 4]) -> Option<Self> {
        let mut parts = self.0.splitn(4, '/');
        let (authority, kind, subject) = (parts.next()?, parts.next()?, parts.next()?);
        let generation = match parts.next() {
            None => 1,
            Some(text) => text.get(..4)?.parse::<u32>().ok()?,
        };
        let next = generation + 1;
        (kind == "ledger" && next <= 9_999).then(|| {
            let salt = u32::from_be_bytes(salt);
            Self(format!("{authority}/ledger/{subject}/{next:04}-{salt:08x}"))
        })
    }

    /// The ledger log that this one is a successor of, in however many generations; itself where it is none.
    #[must_use]
    pub fn first_generation(&self) -> Self {
        match (self.stream(), self.0.match_indices('/').nth(2)) {
            (None, Some((end, _))) => Self(self.0[..end].to_owned()),
            _ => self.clone(),
        }
    }

    /// The organization whose log it is.
    #[must_use]
    pub fn authority(&self) -> Authority {
        let end = self.0.find('/').unwrap_or(self.0.len());
        Authority(self.0[..end].to_owned())
    }

    /// What the log holds.
    #[must_use]
    pub fn subject(&self) -> LogSubject {
        split_origin(&self.0).map_or(LogSubject::NodeLedger, |(_, subject)| subject)
    }

    /// The stream's name, where the log is a stream.
    #[must_use]
    pub fn stream(&self) -> Option<StreamName> {
        match self.subject() {
            LogSubject::Stream(name) => Some(name),
            LogSubject::NodeLedger | LogSubject::Ledger(_) => None,
        }
    }
}

impl FromStr for Origin {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        split_origin(text)
            .map(|_| Self(text.to_owned()))
            .ok_or_else(|| NameError::Origin { text: shown(text) })
    }
}

fn split_origin(text: &str) -> Option<(Authority, LogSubject)> {
    let (authority, rest) = text.split_once('/')?;
    let authority = authority.parse().ok()?;
    let subject = match rest.split_once('/')? {
        ("streams", name) => LogSubject::Stream(name.parse().ok()?),
        ("ledger", about) => match without_generation(about)? {
            "node" => LogSubject::NodeLedger,
            counterparty => LogSubject::Ledger(counterparty.parse().ok()?),
        },
        _ => return None,
    };
    Some((authority, subject))
}

/// A ledger log's subject, without `/0002-1a2b3c4d` behind it; `None` where what is behind it is no generation.
fn without_generation(about: &str) -> Option<&str> {
    let Some((subject, generation)) = about.split_once('/') else {
        return Some(about);
    };
    let (number, salt) = generation.split_once('-')?;
    let digits =
        number.len() == 4 && number.bytes().all(|b| b.is_ascii_digit()) && number >= "0002";
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (digits && salt.len() == 8 && salt.bytes().all(hex)).then_some(subject)
}

#[cfg(test)]
mod tests {
    use super::*;
    use countersign_crypto::SigningKey;

    #[test]
    fn stream_names_never_look_like_paths() {
        for good in ["a", "orders", "9.x_y-z", &"a".repeat(64)] {
            assert!(good.parse::<StreamName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "-a",
            "_a",
            "A",
            "a/b",
            "a b",
            "a%2e",
            "é",
            "a\0",
            "a\n",
            &"a".repeat(65),
        ] {
            assert!(bad.parse::<StreamName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn authorities_are_fingerprints_or_domains() {
        let key = SigningKey::from_seed(&[1; 32]).public();
        let own = Authority::of_key(&key);
        assert!(own.is_fingerprint() && own.admits_first_key(&key));
        assert!(!own.admits_first_key(&SigningKey::from_seed(&[2; 32]).public()));
        let domain: Authority = "data.example.org".parse().unwrap();
        assert!(!domain.is_fingerprint() && domain.admits_first_key(&key));
        for bad in [
            "",
            "localhost",
            "a..b",
            ".a.b",
            "A.b",
            "a.b/",
            "-a.b",
            "key-abc",
            "a.b+c",
        ] {
            assert!(bad.parse::<Authority>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn origins_split_into_authority_and_subject() {
        let authority: Authority = "a.example".parse().unwrap();
        let other: Authority = "b.example".parse().unwrap();
        let stream: StreamName = "orders".parse().unwrap();
        let origin = Origin::of_stream(&authority, &stream);
        assert_eq!(origin.as_str(), "a.example/streams/orders");
        assert_eq!(origin.stream(), Some(stream));
        assert_eq!(origin.authority(), authority);
        assert_eq!(
            Origin::of_ledger(&authority, &other).subject(),
            LogSubject::Ledger(other.clone())
        );
        assert_eq!(
            Origin::of_node_ledger(&authority).subject(),
            LogSubject::NodeLedger
        );
        let mut ledger = Origin::of_node_ledger(&authority);
        let first = ledger.clone();
        for number in 2..=9_999u32 {
            let next = ledger.successor(number.to_be_bytes()).unwrap();
            assert!(
                next.as_str().parse::<Origin>().is_ok() && ledger < next,
                "{next}"
            );
            assert_eq!(
                (next.subject(), next.first_generation()),
                (LogSubject::NodeLedger, first.clone())
            );
            ledger = next;
        }
        assert_eq!(ledger.as_str(), "a.example/ledger/node/9999-0000270f");
        assert_eq!(ledger.successor([0; 4]), None);
        let about = Origin::of_ledger(&authority, &other)
            .successor([0xff; 4])
            .unwrap();
        assert_eq!(about.as_str(), "a.example/ledger/b.example/0002-ffffffff");
        assert_eq!(about.subject(), LogSubject::Ledger(other));
        assert_eq!(
            (origin.successor([0; 4]), origin.first_generation()),
            (None, origin)
        );
        for bad in [
            "a.example/ledger/node/",
            "a.example/ledger/node/2-00000000",
            "a.example/ledger/node/0001-00000000",
            "a.example/ledger/node/0002-0000000",
            "a.example/ledger/node/0002-0000000G",
            "a.example/ledger/node/0002-00000000/0003-00000000",
            "a.example/streams/orders/0002-00000000",
            "",
            "a.example",
            "a.example/streams",
            "a.example/streams/",
            "a.example/streams/A",
            "a.example/streams/x/y",
            "a.example/other/x",
            "a.example/ledger/nodes",
            "/streams/x",
        ] {
            assert!(bad.parse::<Origin>().is_err(), "{bad:?}");
        }
    }
}
