//! The signed documents that organizations exchange: `schemas/documents.md`, one JSON Schema each.
//!
//! A document is a payload type and a serde structure. [`Document::sign`] fixes the payload's bytes once; whoever receives the
//! envelope verifies those bytes and never writes them again.

mod agreement;
mod erasure;
mod key_revocation;
mod key_statement;
mod key_succession;
mod key_wrap;
mod log_keys;
mod offer;
mod plan;
mod proposal;
mod receipt;
mod receipt_fork;
mod refusal;
mod skip_claim;
mod step;

pub use agreement::{Agreement, AgreementId, Party, Termination};
pub use erasure::{ErasureAnswer, ErasureId, ErasureRequest, Outcome};
pub use key_revocation::{KeyRevocation, REVOKED_HEADS_MAX, RevocationError, RevokedHead};
pub use key_statement::{KeyStatement, Role, RoleKey, StatementError};
pub use key_succession::{KeySuccession, SUCCESSIONS_MAX, SuccessionError};
pub use key_wrap::KeyWrap;
pub use log_keys::{LogKeys, Standing};
pub use offer::{Offer, Side};
pub use plan::{
    Erasure, History, PLAN_BYTES_MAX, PLANS_MAX, Period, PeriodError, Plan, Plans, PlansError,
    Quota, Rate,
};
pub use proposal::{Proposal, ROUNDS_MAX};
pub use receipt::{Level, Receipt, Rejection, Rejections, SeriesId};
pub use receipt_fork::{
    RECEIPT_FORK_BYTES_MAX, ReceiptContradiction, ReceiptFork, ReceiptForkError,
};
pub use refusal::{Refusal, RefusalCode};
pub use skip_claim::SkipClaim;
pub use step::{Step, StepKind, SuspensionCause};

use countersign_crypto::{Hash, PublicKey, SigningKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::dsse::{Envelope, EnvelopeError};
use crate::json::from_slice_of_objects;

/// Why a document is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DocumentError {
    /// The envelope or its signature is wrong.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The signed payload does not have the form of its type.
    #[error("the signed payload is not a well-formed `{payload_type}`: {detail}")]
    Payload {
        /// The payload type.
        payload_type: &'static str,
        /// What the JSON reader found, without the payload's own text.
        detail: String,
    },
}

/// A kind of signed document.
pub trait Document: DeserializeOwned + Serialize {
    /// Its DSSE payload type.
    const PAYLOAD_TYPE: &'static str;

    /// Signs the document: its bytes are fixed here and never made again.
    fn sign(&self, key: &SigningKey) -> Envelope {
        Envelope::sign(Self::PAYLOAD_TYPE, self.to_payload(), key)
    }

    /// The payload bytes of this document when it is made.
    fn to_payload(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads the document from `envelope`, once the signature of `key` has been verified.
    ///
    /// # Errors
    /// [`DocumentError`].
    fn open(envelope: &Envelope, key: &PublicKey) -> Result<Self, DocumentError> {
        parse(envelope.open(Self::PAYLOAD_TYPE, key)?)
    }

    /// Reads the document without any verification, to learn whose signature it needs.
    ///
    /// # Errors
    /// [`DocumentError`].
    fn peek(envelope: &Envelope) -> Result<Self, DocumentError> {
        parse(envelope.peek(Self::PAYLOAD_TYPE)?)
    }
}

fn parse<D: Document>(payload: &[u8]) -> Result<D, DocumentError> {
    from_slice_of_objects(payload).map_err(|error| DocumentError::Payload {
        payload_type: D::PAYLOAD_TYPE,
        detail: format!("line {}, column {}", error.line(), error.column()),
    })
}

/// A 32-byte digest, in JSON as standard padded base64.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Digest(pub Hash);

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine as _;
        serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::Engine as _;
        use serde::de::Error as _;
        let text = String::deserialize(deserializer)?;
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(&text)
            .map_err(|_| D::Error::custom("not base64"))?;
        let hash = Hash::try_from(bytes.as_slice())
            .map_err(|_| D::Error::custom("not a digest of 32 bytes"))?;
        Ok(Self(hash))
    }
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// A fresh random id.
            pub fn random(entropy: &mut dyn countersign_crypto::Entropy) -> Self {
                let mut bytes = [0; 16];
                entropy.fill(&mut bytes);
                Self(bytes)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let mut text = String::with_capacity(32);
                for byte in self.0 {
                    use std::fmt::Write as _;
                    write!(text, "{byte:02x}")?;
                }
                f.pad(&text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = crate::documents::IdError;

            fn from_str(text: &str) -> Result<Self, crate::documents::IdError> {
                crate::documents::parse_hex_16(text).map(Self)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.to_string())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
use hex_id;

/// Text that is not an identifier of 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("an identifier is 32 lower-case hexadecimal digits")]
pub struct IdError;

fn parse_hex_16(text: &str) -> Result<[u8; 16], IdError> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => Err(IdError),
    };
    let text: &[u8; 32] = text.as_bytes().try_into().map_err(|_| IdError)?;
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Ok(bytes)
}

/// Times in documents: RFC 3339, UTC.
pub(crate) mod rfc3339 {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::time::Timestamp;

    pub(crate) fn serialize<S: Serializer>(
        time: &Timestamp,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&time.to_rfc3339())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        Timestamp::parse_rfc3339(&text).map_err(serde::de::Error::custom)
    }

    pub(crate) mod option {
        use super::{Deserializer, Serializer, Timestamp};
        use serde::Deserialize as _;

        pub(crate) fn serialize<S: Serializer>(
            time: &Option<Timestamp>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match time {
                Some(time) => super::serialize(time, serializer),
                None => serializer.serialize_none(),
            }
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Timestamp>, D::Error> {
            Option::<String>::deserialize(deserializer)?
                .map(|text| Timestamp::parse_rfc3339(&text).map_err(serde::de::Error::custom))
                .transpose()
        }
    }
}
