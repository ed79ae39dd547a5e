//! Data sealed to an organization's partners: `schemas/encryption.md`.
//!
//! ```text
//! epoch key (32 random bytes) ──HPKE──► one wrap for each organization that may read
//!     │  committed to in the log, by a key-epoch entry, which also holds 32 random bytes: its draw
//!     └─HKDF(draw, origin)──► data key ──AES-256-GCM(nonce: sequence)──► sealed data part
//!
//! sealed data part = ┌ key entry u64 ┬ ciphertext of the data part ┬ tag (16) ┐
//! ```
//!
//! A draw is made by one writer and used until its first commit that fails: a sequence may come again after that, and so may a sequence in a
//! restored copy, but never under the same data key.

use countersign_crypto::{
    BulkSealingKey, Entropy, Fingerprint, Hash, HpkeSealed, NONCE_BYTES, OpenError, PublicKey,
    SEAL_TAG_BYTES, SigningKey, WeakRecipient, hkdf_sha256, sha256_of,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::attributes::Attributes;
use crate::content::{ContentError, EventRef};
use crate::documents::Digest;
use crate::json::from_slice_of_objects;

/// The CloudEvents `type` of a key-epoch entry.
pub const KEY_EPOCH: &str = "dev.countersign.control.key-epoch.v1";

/// Bytes that sealing adds to a data part: the sequence of the key entry before it, the tag behind it.
pub const SEALED_EXTRA_BYTES: usize = KEY_ENTRY_BYTES + SEAL_TAG_BYTES;

/// Bytes of an epoch key under HPKE: the key and a tag.
pub const WRAPPED_BYTES: usize = 32 + SEAL_TAG_BYTES;

const KEY_ENTRY_BYTES: usize = 8;
/// Bytes of what is bound that differ from event to event: sequence and attribute commitment.
const PLACE_BYTES: usize = 8 + 32;
const EPOCH_TAG: &[u8; 16] = b"countersign.ep.1";
const DATA_KEY_TAG: &[u8; 16] = b"countersign.dk.1";
const ASSOCIATED_TAG: &[u8; 16] = b"countersign.ad.1";
const WRAP_TAG: &[u8; 16] = b"countersign.wr.1";

/// Who can read what a stream holds.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Encryption {
    /// Whoever gets the content.
    #[default]
    None,
    /// The organizations that an agreement lets read, and the producer.
    Partners,
}

impl Encryption {
    /// Whether nothing is encrypted.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// The word in settings and documents.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Partners => "partners",
        }
    }
}

/// How data is sealed. There is one way; the word leaves room for another.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Algorithm {
    /// HPKE with X25519, HKDF-SHA-256 and AES-256-GCM; HKDF-SHA-256; AES-256-GCM.
    #[serde(rename = "X25519-HKDF-SHA256-A256GCM")]
    X25519HkdfSha256A256Gcm,
}

/// An epoch's key as it is wrapped to one key.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WrappedKey {
    /// The encryption key that opens it, as key statements name it.
    pub key: PublicKey,
    /// `enc` of HPKE.
    pub encapsulated: Digest,
    /// `ct` of HPKE.
    #[serde(with = "base64_bytes")]
    pub sealed: [u8; WRAPPED_BYTES],
}

/// What a key-epoch entry says.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEpoch {
    /// The sequence of the entry that began the epoch: this one's own, or that of an earlier one, whose key goes on under another draw.
    pub epoch: u64,
    /// How data is sealed.
    pub algorithm: Algorithm,
    /// Commitment to the epoch's key ([`EpochKey::commitment`]).
    pub commitment: Digest,
    /// 32 random bytes of this entry alone.
    pub draw: Digest,
    /// The epoch's key, wrapped to the producer itself.
    pub own: WrappedKey,
}

impl KeyEpoch {
    /// What the control entry with this content says, if it is one.
    #[must_use]
    pub fn read(event: &EventRef<'_>) -> Option<Self> {
        if event.attributes().kind() != KEY_EPOCH {
            return None;
        }
        from_slice_of_objects(event.data().data).ok()
    }

    /// Its text.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Why an epoch's key cannot be had from a wrap.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UnwrapError {
    /// The key in it is not the one that the log committed to.
    #[error("the wrapped key is not the one that the log has committed to")]
    Commitment,
    /// It was wrapped to another key.
    #[error("the key is wrapped to {key}, which is not here")]
    Foreign {
        /// Which one.
        key: Fingerprint,
    },
    /// It does not open.
    #[error("the wrapped key does not open: it was altered, or is of another stream or epoch")]
    Open,
}

impl WrappedKey {
    /// Opens the wrap and checks the key in it against the commitment, before anything is opened with it.
    ///
    /// # Errors
    /// [`UnwrapError`].
    pub fn open(
        &self,
        secret: &SigningKey,
        origin: &str,
        epoch: u64,
        commitment: &Hash,
    ) -> Result<EpochKey, UnwrapError> {
        if secret.public() != self.key {
            return Err(UnwrapError::Foreign {
                key: self.key.fingerprint(),
            });
        }
        let sealed = HpkeSealed {
            encapsulated: self.encapsulated.0,
            ciphertext: self.sealed.to_vec(),
        };
        let info = wrap_info(origin, epoch, commitment);
        let opened = secret
            .to_x25519()
            .hpke_open(&sealed, &info, &[])
            .map_err(|OpenError| UnwrapError::Open)?;
        let bytes = <[u8; 32]>::try_from(opened.as_slice()).map_err(|_| UnwrapError::Open)?;
        let key = EpochKey(Zeroizing::new(bytes));
        if key.commitment(origin, epoch) == *commitment {
            Ok(key)
        } else {
            Err(UnwrapError::Commitment)
        }
    }
}

/// The secret of one epoch of a stream. Wiped from memory when it is dropped, and never printed.
#[derive(Clone)]
pub struct EpochKey(Zeroizing<[u8; 32]>);

impl EpochKey {
    /// A fresh one.
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        entropy.fill(bytes.as_mut());
        Self(bytes)
    }

    /// SHA-256 over a tag, the origin, the epoch and the key: no other key goes with it, so that a ciphertext has one meaning.
    #[must_use]
    pub fn commitment(&self, origin: &str, epoch: u64) -> Hash {
        sha256_of(&[
            EPOCH_TAG,
            &length(origin),
            origin.as_bytes(),
            &epoch.to_be_bytes(),
            self.0.as_ref(),
        ])
    }

    /// Wraps the key to one encryption key, for the epoch of one stream.
    ///
    /// # Errors
    /// [`WeakRecipient`], which no key of a key statement is.
    pub fn wrap(
        &self,
        to: &PublicKey,
        origin: &str,
        epoch: u64,
        entropy: &mut dyn Entropy,
    ) -> Result<WrappedKey, WeakRecipient> {
        let info = wrap_info(origin, epoch, &self.commitment(origin, epoch));
        let sealed = to
            .to_x25519()
            .hpke_seal(&info, &[], self.0.as_ref(), entropy)?;
        Ok(WrappedKey {
            key: *to,
            encapsulated: Digest(sealed.encapsulated),
            sealed: sealed.ciphertext.try_into().map_err(|_| WeakRecipient)?,
        })
    }

    /// The key that data is sealed with after the key-epoch entry at `key_entry`.
    #[must_use]
    pub fn data_key(&self, origin: &str, epoch: u64, key_entry: u64, draw: &Hash) -> DataKey {
        let info = [DATA_KEY_TAG.as_slice(), origin.as_bytes()].concat();
        let mut associated = Vec::with_capacity(16 + 2 + origin.len() + 8);
        associated.extend_from_slice(ASSOCIATED_TAG);
        associated.extend_from_slice(&length(origin));
        associated.extend_from_slice(origin.as_bytes());
        associated.extend_from_slice(&epoch.to_be_bytes());
        DataKey {
            key: BulkSealingKey::from_bytes(&hkdf_sha256(self.0.as_ref(), draw, &info)),
            key_entry,
            associated,
        }
    }
}

impl std::fmt::Debug for EpochKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EpochKey(..)")
    }
}

/// Seals and opens the data of one stream under one draw.
#[derive(Clone, Debug)]
pub struct DataKey {
    key: BulkSealingKey,
    key_entry: u64,
    /// What stands before the sequence in the associated data.
    associated: Vec<u8>,
}

impl DataKey {
    /// The sequence of the key-epoch entry that it comes from.
    #[must_use]
    pub fn key_entry(&self) -> u64 {
        self.key_entry
    }

    /// Seals a data part for its place and appends it to `out`.
    pub fn seal(&self, sequence: u64, attributes: &Hash, data_part: &[u8], out: &mut Vec<u8>) {
        let mut associated = Vec::with_capacity(self.associated.len() + PLACE_BYTES);
        self.seal_with(sequence, attributes, data_part, out, &mut associated);
    }

    /// As [`DataKey::seal`], with the memory of the caller for what is bound: for many events, one after the other.
    pub fn seal_with(
        &self,
        sequence: u64,
        attributes: &Hash,
        data_part: &[u8],
        out: &mut Vec<u8>,
        associated: &mut Vec<u8>,
    ) {
        out.extend_from_slice(&self.key_entry.to_be_bytes());
        let start = out.len();
        out.extend_from_slice(data_part);
        self.associate(sequence, attributes, associated);
        self.key.seal(&nonce(sequence), associated, out, start);
    }

    /// Opens a sealed data part that stands at `sequence`, beside attributes with this commitment.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(
        &self,
        sequence: u64,
        attributes: &Hash,
        sealed: &[u8],
    ) -> Result<Vec<u8>, OpenError> {
        let (key_entry, sealed) = sealed
            .split_first_chunk::<KEY_ENTRY_BYTES>()
            .ok_or(OpenError)?;
        if u64::from_be_bytes(*key_entry) != self.key_entry {
            return Err(OpenError);
        }
        let mut associated = Vec::with_capacity(self.associated.len() + PLACE_BYTES);
        self.associate(sequence, attributes, &mut associated);
        self.key.open(&nonce(sequence), &associated, sealed)
    }

    fn associate(&self, sequence: u64, attributes: &Hash, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.associated);
        out.extend_from_slice(&sequence.to_be_bytes());
        out.extend_from_slice(attributes);
    }
}

/// A sealed event, as far as it can be seen without a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SealedRef<'a> {
    attributes: Attributes<'a>,
    data_part: &'a [u8],
}

impl<'a> SealedRef<'a> {
    /// Checks the form of canonical attributes and a sealed data part.
    ///
    /// # Errors
    /// [`ContentError::Event`] for the attributes, [`ContentError::Truncated`] where the sealed part is too short to be one.
    pub fn check(attributes: &'a [u8], data_part: &'a [u8]) -> Result<Self, ContentError> {
        let attributes = Attributes::check(attributes)
            .map_err(|error| ContentError::Event(crate::content::EventError::Attributes(error)))?;
        // The smallest data part is its state byte.
        if data_part.len() <= SEALED_EXTRA_BYTES {
            return Err(ContentError::Truncated {
                needed: SEALED_EXTRA_BYTES + 1,
                found: data_part.len(),
            });
        }
        Ok(Self {
            attributes,
            data_part,
        })
    }

    /// The attributes, which are not sealed.
    #[must_use]
    pub fn attributes(&self) -> &Attributes<'a> {
        &self.attributes
    }

    /// The sealed data part.
    #[must_use]
    pub fn data_part_bytes(&self) -> &'a [u8] {
        self.data_part
    }

    /// The sequence of the key-epoch entry whose draw it is sealed under.
    #[must_use]
    pub fn key_entry(&self) -> u64 {
        let first = self.data_part.first_chunk::<KEY_ENTRY_BYTES>();
        // INVARIANT: `check` saw more bytes than these.
        first.map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes))
    }
}

fn nonce(sequence: u64) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    nonce[NONCE_BYTES - 8..].copy_from_slice(&sequence.to_be_bytes());
    nonce
}

fn wrap_info(origin: &str, epoch: u64, commitment: &Hash) -> Vec<u8> {
    let mut info = Vec::with_capacity(16 + 2 + origin.len() + 8 + 32);
    info.extend_from_slice(WRAP_TAG);
    info.extend_from_slice(&length(origin));
    info.extend_from_slice(origin.as_bytes());
    info.extend_from_slice(&epoch.to_be_bytes());
    info.extend_from_slice(commitment);
    info
}

/// An origin has at most 514 bytes.
fn length(origin: &str) -> [u8; 2] {
    u16::try_from(origin.len())
        .unwrap_or(u16::MAX)
        .to_be_bytes()
}

/// Bytes as standard padded base64.
mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<[u8; super::WRAPPED_BYTES], D::Error> {
        use serde::de::Error as _;
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD
            .decode(&text)
            .map_err(|_| D::Error::custom("not base64"))?;
        bytes
            .try_into()
            .map_err(|_| D::Error::custom("not a wrapped key of 48 bytes"))
    }
}
