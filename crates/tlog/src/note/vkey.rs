//! The text form of a public key and its name, `<name>+<key id in hex>+<base64(algorithm ‖ key)>`.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_crypto::{KeyError, PublicKey, sha256_of};

use super::{NoteError, check_name};

/// The longest vkey text taken, in bytes: two authorities of at most 253 characters in a name, 8 for the id, 44 for the
/// key, and as much again for the names of others.
pub const VKEY_BYTES_MAX: usize = 1024;

/// What a key's signatures look like; the numbers are those of the signed-note specification and go into key ids.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum Algorithm {
    /// Ed25519 over the note's text: logs.
    Ed25519 = 0x01,
    /// Timestamped Ed25519 (c2sp.org/tlog-cosignature): witnesses.
    CosignatureV1 = 0x04,
}

/// Four bytes that select a key among those known; no security property.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct KeyId(pub [u8; 4]);

/// A public key with its name and its algorithm, which verifies notes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Vkey {
    name: String,
    id: KeyId,
    algorithm: Algorithm,
    key: PublicKey,
}

/// Why a text is no verifier key that may be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum VkeyError {
    /// The algorithm is none that is known here.
    #[error(
        "the key is of type {algorithm:#04x}; known are 0x01 (Ed25519) and 0x04 (cosignature/v1)"
    )]
    Algorithm {
        /// The type byte.
        algorithm: u8,
    },
    /// The text has another form.
    #[error(
        "a verifier key is `<name>+<8 lower-case hex digits>+<base64 of a type byte and 32 bytes>`"
    )]
    Form,
    /// The id is not the one of this name and key.
    #[error("the key id is {stated}, but name and key make it {computed}")]
    Id {
        /// The id in the text.
        stated: KeyId,
        /// The id of name, algorithm and key.
        computed: KeyId,
    },
    /// The key itself is refused.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The text is longer than [`VKEY_BYTES_MAX`].
    #[error("the verifier key has {bytes} bytes, more than {VKEY_BYTES_MAX}")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
}

impl Algorithm {
    fn from_byte(byte: u8) -> Result<Self, VkeyError> {
        match byte {
            0x01 => Ok(Self::Ed25519),
            0x04 => Ok(Self::CosignatureV1),
            algorithm => Err(VkeyError::Algorithm { algorithm }),
        }
    }
}

impl KeyId {
    /// The id of a key: the first bytes of SHA-256(name ‖ LF ‖ algorithm ‖ key).
    #[must_use]
    pub fn of(name: &str, algorithm: Algorithm, key: &PublicKey) -> Self {
        let [a, b, c, d, ..] =
            sha256_of(&[name.as_bytes(), b"\n", &[algorithm as u8], key.as_bytes()]);
        Self([a, b, c, d])
    }
}

impl Vkey {
    /// The verifier of signatures by `key` in the name `name`.
    ///
    /// # Errors
    /// [`NoteError::KeyName`].
    pub fn new(name: &str, algorithm: Algorithm, key: PublicKey) -> Result<Self, NoteError> {
        check_name(name)?;
        Ok(Self {
            name: name.to_owned(),
            id: KeyId::of(name, algorithm, &key),
            algorithm,
            key,
        })
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// [`VkeyError`].
    pub fn parse(text: &str) -> Result<Self, VkeyError> {
        if text.len() > VKEY_BYTES_MAX {
            return Err(VkeyError::TooLarge { bytes: text.len() });
        }
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(VkeyError::Form);
        };
        check_name(name).map_err(|_| VkeyError::Form)?;
        let stated = parse_id(id).ok_or(VkeyError::Form)?;
        let bytes = STANDARD.decode(key).map_err(|_| VkeyError::Form)?;
        let (&algorithm, key) = bytes.split_first().ok_or(VkeyError::Form)?;
        let algorithm = Algorithm::from_byte(algorithm)?;
        let key = key.try_into().map_err(|_| VkeyError::Form)?;
        let key = PublicKey::from_bytes(key)?;
        let computed = KeyId::of(name, algorithm, &key);
        if stated != computed {
            return Err(VkeyError::Id { stated, computed });
        }
        Ok(Self {
            name: name.to_owned(),
            id: computed,
            algorithm,
            key,
        })
    }

    /// The name of the key; a log's is its origin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id that goes before its signatures.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// What its signatures look like.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        &self.key
    }
}

impl fmt::Display for Vkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [self.algorithm as u8; 33];
        bytes[1..].copy_from_slice(self.key.as_bytes());
        write!(f, "{}+{}+{}", self.name, self.id, STANDARD.encode(bytes))
    }
}

impl FromStr for Vkey {
    type Err = VkeyError;

    fn from_str(text: &str) -> Result<Self, VkeyError> {
        Self::parse(text)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// Eight lower-case hex digits; upper case is another text for the same key and refused.
fn parse_id(text: &str) -> Option<KeyId> {
    let lower_hex = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 8 || !text.as_bytes().iter().all(lower_hex) {
        return None;
    }
    let number = u32::from_str_radix(text, 16).ok()?;
    Some(KeyId(number.to_be_bytes()))
}
