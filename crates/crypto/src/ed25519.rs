use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signer as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::{Entropy, base32_lower, sha256_of, work};

/// DER prefix of an Ed25519 SubjectPublicKeyInfo (RFC 8410): the 32 key bytes follow.
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// Why bytes are not a key that may be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeyError {
    /// Not the text or bytes of a key at all.
    #[error("this is not an Ed25519 key in the expected form")]
    Malformed,
    /// The bytes are no point on the curve.
    #[error("these 32 bytes are not a point of the Ed25519 curve")]
    NotAPoint,
    /// The passphrase is another, or the bytes under it were altered.
    #[error("the passphrase does not open this key")]
    Passphrase,
    /// Under a passphrase in a form that is not read here, or that asks for too much work.
    #[error(
        "this key is under a passphrase in another form than PBES2 with scrypt (of at most 64 MiB) and AES-256-CBC"
    )]
    Protection,
    /// The point has a small-order or torsion component: signatures under it could be made to verify for other messages.
    #[error("this Ed25519 key is weak (it has a small-order component) and is refused")]
    Weak,
}

/// A signature that does not verify.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct SignatureError;

/// An Ed25519 signature, 64 bytes.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Signature([u8; 64]);

impl Signature {
    /// Takes the 64 bytes as they are; only verification says whether they are good.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// The 64 bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 64] {
        self.0
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({})", STANDARD.encode(self.0))
    }
}

impl TryFrom<&[u8]> for Signature {
    type Error = SignatureError;

    fn try_from(bytes: &[u8]) -> Result<Self, SignatureError> {
        bytes.try_into().map(Self).map_err(|_| SignatureError)
    }
}

/// An Ed25519 public key that is neither weak nor carries a torsion component. No other can be constructed.
#[derive(Clone, Copy)]
pub struct PublicKey(ed25519_dalek::VerifyingKey);

impl PublicKey {
    /// Checks and takes the 32 bytes of a key.
    ///
    /// # Errors
    /// [`KeyError::NotAPoint`], [`KeyError::Weak`].
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let key =
            ed25519_dalek::VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::NotAPoint)?;
        if key.is_weak() || !key.to_edwards().is_torsion_free() {
            return Err(KeyError::Weak);
        }
        // A non-canonical encoding of a point would give one key two names.
        if key.to_edwards().compress().as_bytes() != bytes {
            return Err(KeyError::NotAPoint);
        }
        Ok(Self(key))
    }

    /// Takes a key from DER SubjectPublicKeyInfo, the form in which TLS carries raw public keys (RFC 7250).
    ///
    /// # Errors
    /// [`KeyError`] where the bytes are not exactly one Ed25519 key, or a refused one.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, KeyError> {
        let bytes = der
            .strip_prefix(&SPKI_PREFIX)
            .and_then(|rest| <&[u8; 32]>::try_from(rest).ok())
            .ok_or(KeyError::Malformed)?;
        Self::from_bytes(bytes)
    }

    /// The key as DER SubjectPublicKeyInfo.
    #[must_use]
    pub fn to_spki_der(&self) -> Vec<u8> {
        [&SPKI_PREFIX[..], self.0.as_bytes()].concat()
    }

    /// Takes a key from standard padded base64 of its 32 bytes.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        let bytes = STANDARD.decode(text).map_err(|_| KeyError::Malformed)?;
        Self::from_bytes(
            bytes
                .as_slice()
                .try_into()
                .map_err(|_| KeyError::Malformed)?,
        )
    }

    /// Standard padded base64 of the 32 bytes.
    #[must_use]
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.0.as_bytes())
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Strict verification (`verify_strict`): one message and key have one accepted signature form.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), SignatureError> {
        work::verified();
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        self.0
            .verify_strict(message, &signature)
            .map_err(|_| SignatureError)
    }

    pub(crate) fn montgomery(&self) -> [u8; 32] {
        self.0.to_montgomery().to_bytes()
    }

    /// The name people compare; see `schemas/names.md`.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let digest = sha256_of(&[b"countersign.key1", self.0.as_bytes()]);
        Fingerprint(format!("key-{}", base32_lower(&digest[..20])))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.fingerprint())
    }
}

impl Eq for PublicKey {}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes() == other.0.as_bytes()
    }
}

impl std::hash::Hash for PublicKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.as_bytes().hash(state);
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&self.to_base64())
        } else {
            self.0.as_bytes().serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            Self::from_base64(&text).map_err(D::Error::custom)
        } else {
            let bytes = <[u8; 32]>::deserialize(deserializer)?;
            Self::from_bytes(&bytes).map_err(D::Error::custom)
        }
    }
}

/// The name of a key that people compare: `key-` and 32 characters of base32.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

/// Text that is not a fingerprint.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a fingerprint is `key-` and 32 characters of a-z, 2-7")]
pub struct FingerprintError;

impl Fingerprint {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let body = text.strip_prefix("key-").ok_or(FingerprintError)?;
        let good = body.len() == 32
            && body
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte));
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(FingerprintError)
        }
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// An Ed25519 private key. Its bytes are wiped from memory when it is dropped, and never printed.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// A fresh key.
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        entropy.fill(seed.as_mut());
        Self::from_seed(&seed)
    }

    /// The key of a 32-byte seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// Reads PKCS#8 PEM, version 1 or 2.
    ///
    /// # Errors
    /// [`KeyError::Malformed`].
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        ed25519_dalek::SigningKey::from_pkcs8_pem(pem)
            .map(Self)
            .map_err(|_| KeyError::Malformed)
    }

    /// PKCS#8 *version 1* PEM: OpenSSL 3.0 cannot read version 2, which the library writes by default.
    ///
    /// # Errors
    /// [`KeyError::Malformed`], only if the encoder itself fails.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        let bytes = KeypairBytes {
            secret_key: self.0.to_bytes(),
            public_key: None,
        };
        bytes
            .to_pkcs8_pem(LineEnding::LF)
            .map_err(|_| KeyError::Malformed)
    }

    /// PKCS#8 version 1 DER, the form that TLS libraries load.
    ///
    /// # Errors
    /// [`KeyError::Malformed`], only if the encoder itself fails.
    pub fn to_pkcs8_der(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let bytes = KeypairBytes {
            secret_key: self.0.to_bytes(),
            public_key: None,
        };
        let document = bytes.to_pkcs8_der().map_err(|_| KeyError::Malformed)?;
        Ok(Zeroizing::new(document.as_bytes().to_vec()))
    }

    /// Reads PKCS#8 DER.
    pub(crate) fn from_pkcs8_der(der: &[u8]) -> Result<Self, KeyError> {
        ed25519_dalek::SigningKey::from_pkcs8_der(der)
            .map(Self)
            .map_err(|_| KeyError::Malformed)
    }

    /// Signs `message`. Ed25519 is deterministic: the same message gives the same signature.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        work::signed();
        Signature(self.0.sign(message).to_bytes())
    }

    /// A secret for another use, the same at each start: SHA-256 over the tag `countersign.derived1`, the length of `purpose` in bytes as
    /// u64, big-endian, `purpose`, and the seed. It says nothing about the key or about the secret of another purpose.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        let length = (purpose.len() as u64).to_be_bytes();
        Zeroizing::new(sha256_of(&[
            b"countersign.derived1",
            &length,
            purpose.as_bytes(),
            self.0.as_bytes(),
        ]))
    }

    pub(crate) fn scalar_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_scalar_bytes())
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        // A key derived from a seed is clamped, so it has no torsion component.
        PublicKey(self.0.verifying_key())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(public {})", self.public().fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeededEntropy;

    #[test]
    fn derived_secrets_differ_by_key_and_purpose_and_stay_the_same() {
        let (one, other) = (
            SigningKey::from_seed(&[1; 32]),
            SigningKey::from_seed(&[2; 32]),
        );
        assert_eq!(one.derive("a"), SigningKey::from_seed(&[1; 32]).derive("a"));
        assert_ne!(one.derive("a"), one.derive("b"));
        assert_ne!(one.derive("a"), other.derive("a"));
    }

    #[test]
    fn pem_is_pkcs8_version_1_and_reads_back() {
        let key = SigningKey::generate(&mut SeededEntropy::new(1));
        let pem = key.to_pem().unwrap();
        // Version 1 of an Ed25519 key is 48 bytes of DER: one line of 64 base64 characters.
        assert_eq!(pem.lines().count(), 3);
        assert_eq!(SigningKey::from_pem(&pem).unwrap().public(), key.public());
        assert_eq!(key.to_pkcs8_der().unwrap().len(), 48);
    }

    #[test]
    fn weak_and_torsioned_keys_are_refused() {
        // The identity, a point of order 8, and an honest key with a torsion component added.
        let mut identity = [0; 32];
        identity[0] = 1;
        assert_eq!(PublicKey::from_bytes(&identity), Err(KeyError::Weak));
        let order_8: [u8; 32] = [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10,
            0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77,
            0x92, 0xac, 0x03, 0x7a,
        ];
        assert_eq!(PublicKey::from_bytes(&order_8), Err(KeyError::Weak));
        let mut no_point = [0; 32];
        no_point[0] = 2;
        assert_eq!(
            PublicKey::from_bytes(&no_point).map(|_| ()),
            Err(KeyError::NotAPoint)
        );
    }

    #[test]
    fn a_signature_verifies_only_for_its_message_and_key() {
        let mut entropy = SeededEntropy::new(7);
        let key = SigningKey::generate(&mut entropy);
        let other = SigningKey::generate(&mut entropy);
        let signature = key.sign(b"message");
        assert!(key.public().verify(b"message", &signature).is_ok());
        assert!(key.public().verify(b"messagf", &signature).is_err());
        assert!(other.public().verify(b"message", &signature).is_err());
        let mut bytes = signature.to_bytes();
        bytes[40] ^= 1;
        let altered = Signature::from_bytes(bytes);
        assert!(key.public().verify(b"message", &altered).is_err());
    }

    #[test]
    fn spki_and_fingerprint_round_trip() {
        let public = SigningKey::from_seed(&[3; 32]).public();
        let der = public.to_spki_der();
        assert_eq!(PublicKey::from_spki_der(&der), Ok(public));
        assert!(PublicKey::from_spki_der(&der[..43]).is_err());
        let fingerprint = public.fingerprint();
        assert_eq!(fingerprint.as_str().parse(), Ok(fingerprint.clone()));
        assert!("key-short".parse::<Fingerprint>().is_err());
    }
}
