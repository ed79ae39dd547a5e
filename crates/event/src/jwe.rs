//! JWE (RFC 7516): one event for somebody outside, whose tools know JOSE and nothing of ours.
//!
//! ```text
//! BASE64URL(header) . (empty: the key is agreed directly) . BASE64URL(nonce) . BASE64URL(ciphertext) . BASE64URL(tag)
//!
//! header      { alg, enc, cty, kid?, epk, dev.countersign.event: { origin, sequence, leaf, withheld? } }
//! key         Concat KDF( ECDH( ephemeral key, recipient's key ), "A256GCM" )
//! plaintext   the event as a CloudEvent in JSON
//! ```
//!
//! It is confidential and bound to its header, and signed by nobody: whoever has the recipient's public key can make one. What proves an event is its proof. Described in
//! `schemas/jwe.md`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_crypto::{
    ECDH_BYTES, EcdhCurve, EcdhError, EcdhPublicKey, EcdhSecretKey, Entropy, Hash, NONCE_BYTES,
    SEAL_TAG_BYTES, SealingKey, concat_kdf,
};
use serde::{Deserialize, Serialize};

/// Bytes of a JWK that is read, at most. One with a chain of certificates, which is not looked at, takes some thousand.
pub const JWK_BYTES_MAX: usize = 16 << 10;

const AGREEMENT: &str = "ECDH-ES";
const ENCRYPTION: &str = "A256GCM";
const KEY_BITS: u32 = 256;
/// RFC 7515, 4.1.10: `application/` is left out.
const CONTENT_TYPE: &str = "cloudevents+json";

/// Why a text is no key that events are sealed to.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum JwkError {
    /// Not base64url of 32 bytes.
    #[error("its member `{member}` is not 32 bytes in base64url without padding")]
    Coordinate {
        /// Which.
        member: &'static str,
    },
    /// Another kind of key.
    #[error(
        "it is of another kind: `kty` `OKP` with `crv` `X25519`, or `EC` with `P-256`, is wanted"
    )]
    Curve,
    /// Not of the form.
    #[error("it is no JSON Web Key (line {line}, column {column})")]
    Form {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// The numbers are no key, or one that anybody could open.
    #[error("{0}")]
    Key(EcdhError),
    /// The private half is in it.
    #[error("it holds a private key: a recipient hands out the public half alone, without `d`")]
    Private,
    /// Too long.
    #[error("it is longer than {JWK_BYTES_MAX} bytes")]
    TooLong,
    /// For something else.
    #[error(
        "it says that it is for something else: `use` is `enc` and `alg` is `ECDH-ES`, where they are there"
    )]
    Use,
}

/// A JWK as it is read: other members do not matter (RFC 7517, section 4).
#[derive(Deserialize)]
struct ReadJwk {
    kty: String,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<serde::de::IgnoredAny>,
    kid: Option<String>,
    #[serde(rename = "use")]
    intended: Option<String>,
    alg: Option<String>,
}

/// Whom an event is sealed to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Recipient {
    key: EcdhPublicKey,
    kid: Option<String>,
}

impl Recipient {
    /// Reads a public JWK (RFC 7517) with an X25519 (RFC 8037) or P-256 key (RFC 7518, section 6.2).
    ///
    /// # Errors
    /// [`JwkError`].
    pub fn from_jwk(text: &str) -> Result<Self, JwkError> {
        if text.len() > JWK_BYTES_MAX {
            return Err(JwkError::TooLong);
        }
        // Nothing of the text is told on: it may be a private key.
        let jwk: ReadJwk = serde_json::from_str(text).map_err(|error| JwkError::Form {
            line: error.line(),
            column: error.column(),
        })?;
        if jwk.d.is_some() {
            return Err(JwkError::Private);
        }
        let fits = |found: &Option<String>, wanted: &str| {
            found.as_ref().is_none_or(|found| found == wanted)
        };
        if !fits(&jwk.intended, "enc") || !fits(&jwk.alg, AGREEMENT) {
            return Err(JwkError::Use);
        }
        let key = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("OKP", Some("X25519")) => EcdhPublicKey::x25519(coordinate("x", jwk.x.as_ref())?),
            ("EC", Some("P-256")) => {
                let x = coordinate("x", jwk.x.as_ref())?;
                let y = coordinate("y", jwk.y.as_ref())?;
                EcdhPublicKey::p256(&x, &y).map_err(JwkError::Key)?
            }
            _ => return Err(JwkError::Curve),
        };
        if key.is_weak() {
            return Err(JwkError::Key(EcdhError::Weak));
        }
        Ok(Self { key, kid: jwk.kid })
    }
}

fn coordinate(member: &'static str, text: Option<&String>) -> Result<[u8; ECDH_BYTES], JwkError> {
    let bytes = text.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(JwkError::Coordinate { member })
}

/// What the header says of the event.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The log that it is in.
    pub origin: &'a str,
    /// Its place there.
    pub sequence: u64,
    /// The hash of its leaf, which a proof of it ends in.
    pub leaf: &'a Hash,
    /// How many members of its data are withheld; `None` where all of it is here.
    pub withheld: Option<usize>,
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'static str,
    enc: &'static str,
    cty: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
    epk: WrittenJwk,
    #[serde(rename = "dev.countersign.event")]
    event: HeaderEvent<'a>,
}

#[derive(Serialize)]
struct WrittenJwk {
    kty: &'static str,
    crv: &'static str,
    x: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<String>,
}

#[derive(Serialize)]
struct HeaderEvent<'a> {
    origin: &'a str,
    sequence: u64,
    leaf: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    withheld: Option<usize>,
}

/// Seals an event, given as JSON, in the compact form, under an ephemeral key that is drawn for it.
///
/// # Errors
/// [`EcdhError`]; never for a recipient that was read.
pub fn seal(
    event_json: &[u8],
    about: &About<'_>,
    recipient: &Recipient,
    entropy: &mut dyn Entropy,
) -> Result<String, EcdhError> {
    let ephemeral = EcdhSecretKey::generate(recipient.key.curve(), entropy);
    let header = Header {
        alg: AGREEMENT,
        enc: ENCRYPTION,
        cty: CONTENT_TYPE,
        kid: recipient.kid.as_deref(),
        epk: written(&ephemeral.public()),
        event: HeaderEvent {
            origin: about.origin,
            sequence: about.sequence,
            leaf: hex::encode(about.leaf),
            withheld: about.withheld,
        },
    };
    // Strings and numbers only: serializing them does not fail.
    let header = serde_json::to_vec(&header).unwrap_or_default();
    let shared = ephemeral.agree(&recipient.key)?;
    // No parties are named: the ephemeral key makes every derived key another.
    let key = concat_kdf(&shared, ENCRYPTION, (b"", b""), KEY_BITS);
    let mut nonce = [0; NONCE_BYTES];
    entropy.fill(&mut nonce);
    let mut out = String::with_capacity(4 * (header.len() + event_json.len()) / 3 + 64);
    URL_SAFE_NO_PAD.encode_string(&header, &mut out);
    let mut sealed = Vec::with_capacity(event_json.len() + SEAL_TAG_BYTES);
    sealed.extend_from_slice(event_json);
    // The associated data are the characters of the encoded header (RFC 7516, 5.1, step 14).
    SealingKey::from_bytes(&key).seal(&nonce, out.as_bytes(), &mut sealed, 0);
    let (ciphertext, tag) = sealed.split_at(sealed.len().saturating_sub(SEAL_TAG_BYTES));
    for part in [&[][..], &nonce, ciphertext, tag] {
        out.push('.');
        URL_SAFE_NO_PAD.encode_string(part, &mut out);
    }
    Ok(out)
}

fn written(key: &EcdhPublicKey) -> WrittenJwk {
    let (kty, crv) = match key.curve() {
        EcdhCurve::P256 => ("EC", "P-256"),
        EcdhCurve::X25519 => ("OKP", "X25519"),
    };
    let (x, y) = key.coordinates();
    WrittenJwk {
        kty,
        crv,
        x: URL_SAFE_NO_PAD.encode(x),
        y: y.map(|y| URL_SAFE_NO_PAD.encode(y)),
    }
}
