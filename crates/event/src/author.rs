//! Author signatures: the CloudEvents extension *Verifiable CloudEvents with DSSE*, version 0.1.
//!
//! ```text
//! dssematerial = DSSE envelope (JSON) over {"core": base64, "ext": base64, "signedextattrs": [name, …]}
//! core = SHA-256( SHA-256(id) ‖ …source ‖ specversion ‖ type ‖ datacontenttype ‖ dataschema ‖ subject ‖ time ‖ data )
//! ext  = SHA-256( SHA-256(value) ‖ … )      of the attributes named, in their order
//! ```
//!
//! What is absent counts as empty. `time` is in UTC and cut to the second, so that its fraction is not signed. The digests are not
//! salted: the material belongs to the data, and travels, is withheld and is erased with it.
//!
//! In scope: making and judging the material of one event. Elsewhere: which keys a stream accepts ([`crate::control::AuthorRule`]).

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use countersign_crypto::{Hash, PublicKey, Signature, SigningKey, sha256, sha256_of};
use serde::{Deserialize, Serialize};

use crate::attributes::{SPEC_VERSION, Value, core_type, shown};
use crate::content::{Event, EventError, EventRef, Limits};
use crate::control::AuthorRule;
use crate::data::{DataPart, DataState};
use crate::dsse::{Envelope, pae};
use crate::json::from_slice_of_objects;
use crate::time::{TimeError, rfc3339_utc_seconds};

/// The payload type of author material.
pub const AUTHOR_PAYLOAD_TYPE: &str = "https://cloudevents.io/verifiability/dsse/v0.1";

/// Signatures of one envelope at most: with [`crate::control::AUTHOR_KEYS_MAX`] keys, 128 checks of 30 µs is what one event can cost.
pub const AUTHOR_SIGNATURES_MAX: usize = 8;

/// Attributes that intermediaries may change, and which are therefore not signed.
const CHANGEABLE: [&str; 2] = ["expirytime", "partitionkey"];

/// What an author's signature says of an event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Author<'k> {
    /// The event bears no signature of an author.
    Unsigned,
    /// It bears one, whose digests are those of the event, and no key that is known made it.
    Unknown {
        /// The first key id as it came, without control characters, at most 80 characters: a hint, no more.
        keyid: String,
        /// What it covers.
        covers: Covers,
    },
    /// A known key has signed what the event is.
    Verified {
        /// Which.
        key: &'k PublicKey,
        /// What it covers.
        covers: Covers,
    },
}

/// What the signature covers beside the core attributes and the data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Covers {
    /// Nothing.
    Core,
    /// The further attributes that it names.
    CoreAndExtensions,
}

impl Covers {
    /// The words for people and scripts.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::CoreAndExtensions => "core and extensions",
        }
    }
}

/// Why an event is not what its author signed, or not signed as its stream wants it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AuthorFault {
    /// Core attributes or data are others.
    #[error("the author signed other attributes or data than these: the event was altered")]
    Core,
    /// Further attributes are others.
    #[error(
        "the author signed other values of the attributes that the signature names: the event was altered"
    )]
    Extensions,
    /// No material that can be judged.
    #[error("`dssematerial` is not author material that can be judged: {what}")]
    Malformed {
        /// What is wrong with it.
        what: &'static str,
    },
    /// A key that the stream accepts is named, and did not sign this.
    #[error("the author's signature names the key {key}, which did not make it")]
    Signature {
        /// Its fingerprint.
        key: String,
    },
    /// The stream wants a signature.
    #[error(
        "the stream takes signed events only, and this one bears no author's signature (`dssematerial`)"
    )]
    Unsigned,
    /// The stream wants a signature of one of its keys.
    #[error(
        "the stream takes events signed by one of its author keys only; this one names `{keyid}`"
    )]
    UnknownKey {
        /// The key id as it came.
        keyid: String,
    },
}

/// Why an event cannot be signed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SignError {
    /// It bears a signature.
    #[error("the event bears an author's signature already, which is not replaced")]
    AlreadySigned,
    /// With the signature it breaks a limit.
    #[error(transparent)]
    Event(#[from] EventError),
    /// A time that has no form in UTC.
    #[error("the attribute `{name}` cannot be signed: {source}")]
    Time {
        /// Which.
        name: String,
        /// Why not.
        source: TimeError,
    },
}

#[derive(Deserialize, Serialize)]
struct EnvelopeJson {
    #[serde(rename = "payloadType")]
    payload_type: String,
    payload: String,
    signatures: Vec<SignatureJson>,
}

#[derive(Deserialize, Serialize)]
struct SignatureJson {
    #[serde(default)]
    keyid: String,
    sig: String,
}

#[derive(Deserialize, Serialize)]
struct MaterialJson {
    core: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ext: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signedextattrs: Option<Vec<String>>,
}

/// Signs an event: core attributes, data, and every further attribute that nobody may change on the way.
///
/// # Errors
/// [`SignError`].
pub fn sign(event: &EventRef<'_>, key: &SigningKey, limits: &Limits) -> Result<Event, SignError> {
    if event.data().author_material.is_some() {
        return Err(SignError::AlreadySigned);
    }
    let names: Vec<String> = event
        .attributes()
        .iter()
        .filter(|(name, _)| core_type(name.as_bytes()).is_none() && !CHANGEABLE.contains(name))
        .map(|(name, _)| name.to_owned())
        .collect();
    let time = |(name, source): (String, TimeError)| SignError::Time { name, source };
    let mut material = MaterialJson {
        core: STANDARD.encode(core_digest(event).map_err(time)?),
        ext: None,
        signedextattrs: None,
    };
    if !names.is_empty() {
        material.ext = Some(STANDARD.encode(ext_digest(event, &names).map_err(time)?));
        material.signedextattrs = Some(names);
    }
    let payload = serde_json::to_vec(&material).unwrap_or_default();
    let envelope = Envelope::sign(AUTHOR_PAYLOAD_TYPE, payload, key).to_json();
    let part = DataPart {
        author_material: Some(&envelope),
        ..*event.data()
    };
    Ok(Event::new(event.attribute_bytes().to_vec(), &part, limits)?)
}

/// Judges the author's signature of an event by the keys that are known. Whatever keys those are, the material has to be well-formed and its digests
/// those of the event.
///
/// # Errors
/// [`AuthorFault`] but for those of a rule.
pub fn verify<'k>(event: &EventRef<'_>, keys: &'k [PublicKey]) -> Result<Author<'k>, AuthorFault> {
    let Some(material) = event.data().author_material else {
        return Ok(Author::Unsigned);
    };
    let malformed = |what| AuthorFault::Malformed { what };
    let envelope: EnvelopeJson =
        from_slice_of_objects(material).map_err(|_| malformed("it is no DSSE envelope in JSON"))?;
    if envelope.payload_type != AUTHOR_PAYLOAD_TYPE {
        return Err(malformed("its payload type is another"));
    }
    if envelope.signatures.is_empty() || envelope.signatures.len() > AUTHOR_SIGNATURES_MAX {
        return Err(malformed("it has not 1 to 8 signatures"));
    }
    let payload = base64(&envelope.payload).ok_or(malformed("its payload is not base64"))?;
    let signed: MaterialJson = from_slice_of_objects(&payload)
        .map_err(|_| malformed("its payload is not the JSON object that is wanted"))?;
    let covers = check_digests(event, &signed)?;
    let message = pae(AUTHOR_PAYLOAD_TYPE, &payload);
    let mut wrong = None;
    for one in &envelope.signatures {
        let signature = base64(&one.sig).ok_or(malformed("a signature is not base64"))?;
        // Of another length, it is of another algorithm, and of no key that is known.
        let Ok(signature) = Signature::try_from(signature.as_slice()) else {
            continue;
        };
        let made_it = |key: &&PublicKey| key.verify(&message, &signature).is_ok();
        let named = keys
            .iter()
            .find(|key| key.fingerprint().as_str() == one.keyid);
        // A key id is a hint: one of other words may be of any of the keys.
        let key = match named {
            Some(named) => Some(named).filter(made_it),
            None => keys.iter().find(made_it),
        };
        if let Some(key) = key {
            return Ok(Author::Verified { key, covers });
        }
        if let Some(named) = named {
            wrong = Some(named.fingerprint().as_str().to_owned());
        }
    }
    if let Some(key) = wrong {
        return Err(AuthorFault::Signature { key });
    }
    let keyid = envelope.signatures.first().map(|one| one.keyid.chars());
    let keyid = keyid.into_iter().flatten().filter(|c| !c.is_control());
    Ok(Author::Unknown {
        keyid: keyid.take(80).collect(),
        covers,
    })
}

impl AuthorRule {
    /// Judges an event by the keys of the rule, and by whether one of them has to have signed it. Where members are withheld, an author's signature is too: then
    /// only that there is one is judged.
    ///
    /// # Errors
    /// [`AuthorFault`].
    pub fn judge(&self, event: &EventRef<'_>) -> Result<Author<'_>, AuthorFault> {
        match verify(event, &self.keys)? {
            // Who is shown some members is not shown the material: that there is some, the log has committed to.
            Author::Unsigned if self.required && !event.data().is_author_signed() => {
                Err(AuthorFault::Unsigned)
            }
            Author::Unknown { keyid, .. } if self.required => {
                Err(AuthorFault::UnknownKey { keyid })
            }
            author => Ok(author),
        }
    }
}

fn check_digests(event: &EventRef<'_>, signed: &MaterialJson) -> Result<Covers, AuthorFault> {
    let malformed = |what| AuthorFault::Malformed { what };
    let digest = |text: &str| base64(text).and_then(|bytes| Hash::try_from(bytes).ok());
    let core = digest(&signed.core).ok_or(malformed("`core` is not 32 bytes in base64"))?;
    let no_time = |_| malformed("a time of the event has no form in UTC");
    let covers = match (&signed.ext, &signed.signedextattrs) {
        (None, None) => Covers::Core,
        (Some(ext), Some(names)) => {
            let ext = digest(ext).ok_or(malformed("`ext` is not 32 bytes in base64"))?;
            check_names(names).map_err(malformed)?;
            if ext_digest(event, names).map_err(no_time)? != ext {
                return Err(AuthorFault::Extensions);
            }
            Covers::CoreAndExtensions
        }
        _ => {
            return Err(malformed(
                "of `ext` and `signedextattrs` one is there without the other",
            ));
        }
    };
    if core_digest(event).map_err(no_time)? != core {
        return Err(AuthorFault::Core);
    }
    Ok(covers)
}

fn check_names(names: &[String]) -> Result<(), &'static str> {
    let mut sorted: Vec<&str> = names.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("`signedextattrs` names an attribute twice");
    }
    let is_reserved = |name: &&str| core_type(name.as_bytes()).is_some() || *name == "dssematerial";
    if sorted.iter().any(is_reserved) {
        return Err("`signedextattrs` names a core attribute or `dssematerial`");
    }
    Ok(())
}

fn core_digest(event: &EventRef<'_>) -> Result<Hash, (String, TimeError)> {
    let attributes = event.attributes();
    let time = attributes.time().map(rfc3339_utc_seconds).transpose();
    let time = time.map_err(|error| ("time".to_owned(), error))?;
    let data = event.data();
    let digests = [
        attributes.id().as_bytes(),
        attributes.source().as_bytes(),
        SPEC_VERSION.as_bytes(),
        attributes.kind().as_bytes(),
        attributes.datacontenttype().unwrap_or_default().as_bytes(),
        attributes.dataschema().unwrap_or_default().as_bytes(),
        attributes.subject().unwrap_or_default().as_bytes(),
        time.as_deref().unwrap_or_default().as_bytes(),
        // An explicit null is that word; what is absent is empty.
        match data.state {
            DataState::Null => b"null",
            _ => data.data,
        },
    ]
    .map(sha256);
    Ok(sha256(digests.as_flattened()))
}

fn ext_digest(event: &EventRef<'_>, names: &[String]) -> Result<Hash, (String, TimeError)> {
    let mut digests = Vec::with_capacity(names.len());
    for name in names {
        let digest = match event.attributes().get(name) {
            None => sha256(&[]),
            Some(Value::Binary(bytes)) => sha256(bytes),
            Some(Value::Timestamp(text)) => {
                let text = rfc3339_utc_seconds(text);
                sha256(
                    text.map_err(|error| (shown(name.as_bytes()), error))?
                        .as_bytes(),
                )
            }
            Some(value) => sha256(value.canonical_text().as_bytes()),
        };
        digests.push(digest);
    }
    Ok(sha256_of(&[digests.as_flattened()]))
}

/// DSSE admits both alphabets.
fn base64(text: &str) -> Option<Vec<u8>> {
    STANDARD
        .decode(text)
        .or_else(|_| URL_SAFE.decode(text))
        .ok()
}
