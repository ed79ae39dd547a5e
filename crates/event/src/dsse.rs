//! DSSE v1 envelopes: signed documents whose exact bytes are kept.
//!
//! ```text
//! {"payloadType":"application/vnd.countersign.receipt.v1+json","payload":"<base64>","signatures":[{"keyid":"key-…","sig":"<base64>"}]}
//! ```
//!
//! The signature covers PAE(type, payload) = `DSSEv1 <len> <type> <len> <payload>`
//! (github.com/secure-systems-lab/dsse, protocol.md). A payload comes out only through [`Envelope::open`], that is, after a
//! signature over it has been verified. What a payload means is in [`crate::documents`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_crypto::{Hash, PublicKey, Signature, SigningKey, sha256};
use serde::{Deserialize, Serialize};

use crate::json::from_slice_of_objects;

/// Largest envelope that is parsed: agreements and receipts are below 4 KiB, key statements below 16 KiB.
pub const ENVELOPE_BYTES_MAX: usize = 256 * 1024;

/// Most signatures of one envelope: both sides of an agreement, each with a rotated key.
pub const SIGNATURES_MAX: usize = 4;

/// Why an envelope is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EnvelopeError {
    /// Larger than [`ENVELOPE_BYTES_MAX`].
    #[error("a signed document of {bytes} bytes is too large: the limit is {ENVELOPE_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not a DSSE envelope.
    #[error("this is not a DSSE envelope with 1 to {SIGNATURES_MAX} Ed25519 signatures")]
    Malformed,
    /// Another kind of document than expected.
    #[error("a document of type `{expected}` was expected, this is `{found}`")]
    WrongType {
        /// The wanted payload type.
        expected: &'static str,
        /// The type found, cut to 120 characters.
        found: String,
    },
    /// No signature of the expected key.
    #[error("the document is not signed by {signer}")]
    NotSignedBy {
        /// The fingerprint of the key that should have signed.
        signer: String,
    },
}

/// A signed document: payload type, exact payload bytes, signatures.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Envelope {
    payload_type: String,
    payload: Vec<u8>,
    signatures: Vec<EnvelopeSignature>,
}

/// One signature of an envelope.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EnvelopeSignature {
    /// A hint only: nothing is decided by it.
    pub keyid: String,
    /// The Ed25519 signature over PAE.
    pub signature: Signature,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct EnvelopeJson {
    #[serde(rename = "payloadType")]
    payload_type: String,
    payload: String,
    signatures: Vec<SignatureJson>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct SignatureJson {
    #[serde(default)]
    keyid: String,
    sig: String,
}

/// As [`Envelope::to_json`]: an envelope within a document.
impl Serialize for Envelope {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json().serialize(serializer)
    }
}

/// As [`Envelope::from_json`], but for the size: that of the whole is limited.
impl<'de> Deserialize<'de> for Envelope {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = EnvelopeJson::deserialize(deserializer)?;
        Self::read(json).map_err(serde::de::Error::custom)
    }
}

impl Envelope {
    /// Signs `payload` with `key`.
    #[must_use]
    pub fn sign(payload_type: &str, payload: Vec<u8>, key: &SigningKey) -> Self {
        let mut envelope = Self {
            payload_type: payload_type.to_owned(),
            payload,
            signatures: Vec::new(),
        };
        envelope.add_signature(key);
        envelope
    }

    /// Adds the signature of `key` over the same payload, unless it is there.
    pub fn add_signature(&mut self, key: &SigningKey) {
        let signature = key.sign(&pae(&self.payload_type, &self.payload));
        if self.signatures.iter().all(|s| s.signature != signature) {
            self.signatures.push(EnvelopeSignature {
                keyid: key.public().fingerprint().as_str().to_owned(),
                signature,
            });
        }
    }

    /// The payload, once a signature of `key` over it has been verified.
    ///
    /// # Errors
    /// [`EnvelopeError::WrongType`], [`EnvelopeError::NotSignedBy`].
    pub fn open(
        &self,
        payload_type: &'static str,
        key: &PublicKey,
    ) -> Result<&[u8], EnvelopeError> {
        self.check_type(payload_type)?;
        let message = pae(&self.payload_type, &self.payload);
        let signed = self
            .signatures
            .iter()
            .any(|s| key.verify(&message, &s.signature).is_ok());
        if signed {
            Ok(&self.payload)
        } else {
            Err(EnvelopeError::NotSignedBy {
                signer: key.fingerprint().as_str().to_owned(),
            })
        }
    }

    /// The payload of a document whose signer is named inside it, unverified: the caller reads the signer's key from it and then calls
    /// [`Envelope::open`] with that key before it believes anything.
    ///
    /// # Errors
    /// [`EnvelopeError::WrongType`].
    pub fn peek(&self, payload_type: &'static str) -> Result<&[u8], EnvelopeError> {
        self.check_type(payload_type)?;
        Ok(&self.payload)
    }

    /// The payload type.
    #[must_use]
    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    /// The signatures, in their order.
    #[must_use]
    pub fn signatures(&self) -> &[EnvelopeSignature] {
        &self.signatures
    }

    /// Bytes of the payload.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.payload.len()
    }

    /// SHA-256 of the payload: how other documents name this one, whoever signed it how often.
    #[must_use]
    pub fn payload_digest(&self) -> Hash {
        sha256(&self.payload)
    }

    /// The envelope as JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.json()).unwrap_or_default()
    }

    fn json(&self) -> EnvelopeJson {
        EnvelopeJson {
            payload_type: self.payload_type.clone(),
            payload: STANDARD.encode(&self.payload),
            signatures: self
                .signatures
                .iter()
                .map(|s| SignatureJson {
                    keyid: s.keyid.clone(),
                    sig: STANDARD.encode(s.signature.to_bytes()),
                })
                .collect(),
        }
    }

    /// Parses an envelope. Nothing in it is verified yet.
    ///
    /// # Errors
    /// [`EnvelopeError::TooLarge`], [`EnvelopeError::Malformed`].
    pub fn from_json(json: &[u8]) -> Result<Self, EnvelopeError> {
        if json.len() > ENVELOPE_BYTES_MAX {
            return Err(EnvelopeError::TooLarge { bytes: json.len() });
        }
        let json: EnvelopeJson =
            from_slice_of_objects(json).map_err(|_| EnvelopeError::Malformed)?;
        Self::read(json)
    }

    fn read(json: EnvelopeJson) -> Result<Self, EnvelopeError> {
        let count = json.signatures.len();
        if count == 0 || count > SIGNATURES_MAX {
            return Err(EnvelopeError::Malformed);
        }
        let signature = |s: SignatureJson| -> Option<EnvelopeSignature> {
            let bytes = STANDARD.decode(&s.sig).ok()?;
            Some(EnvelopeSignature {
                keyid: s.keyid,
                signature: Signature::try_from(bytes.as_slice()).ok()?,
            })
        };
        Ok(Self {
            payload_type: json.payload_type,
            payload: STANDARD
                .decode(&json.payload)
                .map_err(|_| EnvelopeError::Malformed)?,
            signatures: json
                .signatures
                .into_iter()
                .map(signature)
                .collect::<Option<_>>()
                .ok_or(EnvelopeError::Malformed)?,
        })
    }

    fn check_type(&self, expected: &'static str) -> Result<(), EnvelopeError> {
        if self.payload_type == expected {
            return Ok(());
        }
        Err(EnvelopeError::WrongType {
            expected,
            found: self.payload_type.chars().take(120).collect(),
        })
    }
}

pub(crate) fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    );
    [head.as_bytes(), payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "application/example";

    #[test]
    fn pae_is_that_of_the_specification() {
        assert_eq!(
            pae("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }

    #[test]
    fn opens_only_with_the_signer_and_the_type() {
        let key = SigningKey::from_seed(&[1; 32]);
        let other = SigningKey::from_seed(&[2; 32]);
        let envelope = Envelope::sign(TYPE, b"{}".to_vec(), &key);
        let read = Envelope::from_json(&envelope.to_json()).unwrap();
        assert_eq!(read, envelope);
        assert_eq!(read.open(TYPE, &key.public()), Ok(&b"{}"[..]));
        assert!(matches!(
            read.open(TYPE, &other.public()),
            Err(EnvelopeError::NotSignedBy { .. })
        ));
        assert!(matches!(
            read.open("x", &key.public()),
            Err(EnvelopeError::WrongType { .. })
        ));
    }

    #[test]
    fn two_signatures_cover_one_payload() {
        let (a, b) = (
            SigningKey::from_seed(&[1; 32]),
            SigningKey::from_seed(&[2; 32]),
        );
        let mut envelope = Envelope::sign(TYPE, b"terms".to_vec(), &a);
        envelope.add_signature(&b);
        envelope.add_signature(&b);
        assert_eq!(envelope.signatures().len(), 2);
        assert!(envelope.open(TYPE, &a.public()).is_ok());
        assert!(envelope.open(TYPE, &b.public()).is_ok());
    }

    #[test]
    fn altered_and_oversized_envelopes_are_refused() {
        let key = SigningKey::from_seed(&[1; 32]);
        let json = Envelope::sign(TYPE, b"{\"a\":1}".to_vec(), &key).to_json();
        for position in 0..json.len() {
            let mut altered = json.clone();
            altered[position] ^= 1;
            let Ok(read) = Envelope::from_json(&altered) else {
                continue;
            };
            // The key id is a hint; every other change must close the document.
            let same = Envelope::from_json(&json).unwrap();
            if read.payload != same.payload
                || read.payload_type != same.payload_type
                || read.signatures[0].signature != same.signatures[0].signature
            {
                assert!(read.open(TYPE, &key.public()).is_err(), "byte {position}");
            }
        }
        let large = vec![b' '; ENVELOPE_BYTES_MAX + 1];
        assert!(matches!(
            Envelope::from_json(&large),
            Err(EnvelopeError::TooLarge { .. })
        ));
        assert_eq!(
            Envelope::from_json(b"{\"payloadType\":\"x\",\"payload\":\"\",\"signatures\":[]}"),
            Err(EnvelopeError::Malformed)
        );
    }
}
