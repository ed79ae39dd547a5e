//! HPKE (RFC 9180) in one form: mode base, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, one message for each context.

use std::convert::Infallible;

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem as _, OpModeR, OpModeS, Serializable as _};
use zeroize::Zeroizing;

use crate::{Entropy, OpenError, PublicKey, SigningKey};

type Suite = X25519HkdfSha256;

/// An X25519 public key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct X25519PublicKey([u8; 32]);

/// An X25519 private key. Wiped from memory when it is dropped, and never printed.
#[derive(Clone)]
pub struct X25519SecretKey(Zeroizing<[u8; 32]>);

/// The key cannot be sealed to: it is of small order, and everybody would know the shared secret.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("this X25519 key is of small order and cannot be sealed to")]
pub struct WeakRecipient;

/// What HPKE made: the encapsulated key, and the ciphertext with its tag.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HpkeSealed {
    /// `enc` of RFC 9180.
    pub encapsulated: [u8; 32],
    /// `ct` of RFC 9180.
    pub ciphertext: Vec<u8>,
}

impl X25519PublicKey {
    /// Takes the 32 bytes of a key.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Seals to the holder of the private half. Anybody can: who sealed it is to be shown otherwise.
    ///
    /// # Errors
    /// [`WeakRecipient`].
    pub fn hpke_seal(
        &self,
        info: &[u8],
        associated: &[u8],
        plaintext: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<HpkeSealed, WeakRecipient> {
        let recipient =
            <Suite as hpke::Kem>::PublicKey::from_bytes(&self.0).map_err(|_| WeakRecipient)?;
        let (encapsulated, ciphertext) =
            hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, Suite>(
                &OpModeS::Base,
                &recipient,
                info,
                plaintext,
                associated,
                &mut Drawn(entropy),
            )
            .map_err(|_| WeakRecipient)?;
        let mut sealed = HpkeSealed {
            encapsulated: [0; 32],
            ciphertext,
        };
        encapsulated.write_exact(&mut sealed.encapsulated);
        Ok(sealed)
    }
}

impl X25519SecretKey {
    /// Takes the 32 bytes of a key.
    #[must_use]
    pub fn from_bytes(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> X25519PublicKey {
        let mut public = [0; 32];
        if let Ok(key) = <Suite as hpke::Kem>::PrivateKey::from_bytes(self.0.as_ref()) {
            Suite::sk_to_pk(&key).write_exact(&mut public);
        }
        X25519PublicKey(public)
    }

    /// Opens what was sealed to the public half.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn hpke_open(
        &self,
        sealed: &HpkeSealed,
        info: &[u8],
        associated: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let key =
            <Suite as hpke::Kem>::PrivateKey::from_bytes(self.0.as_ref()).map_err(|_| OpenError)?;
        let encapsulated = <Suite as hpke::Kem>::EncappedKey::from_bytes(&sealed.encapsulated)
            .map_err(|_| OpenError)?;
        hpke::single_shot_open::<AesGcm256, HkdfSha256, Suite>(
            &OpModeR::Base,
            &key,
            &encapsulated,
            info,
            &sealed.ciphertext,
            associated,
        )
        .map(Zeroizing::new)
        .map_err(|_| OpenError)
    }
}

impl std::fmt::Debug for X25519SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("X25519SecretKey(..)")
    }
}

impl PublicKey {
    /// The X25519 key that is the Montgomery form of this one: u = (1 + y) / (1 − y).
    #[must_use]
    pub fn to_x25519(&self) -> X25519PublicKey {
        X25519PublicKey(self.montgomery())
    }
}

impl SigningKey {
    /// The private half of [`PublicKey::to_x25519`]: the first 32 bytes of SHA-512 of the seed.
    #[must_use]
    pub fn to_x25519(&self) -> X25519SecretKey {
        X25519SecretKey(self.scalar_bytes())
    }
}

/// Our source of randomness in the form that the library takes.
struct Drawn<'a>(&'a mut dyn Entropy);

impl rand_core::TryRng for Drawn<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(out);
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Drawn<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeededEntropy;

    #[test]
    fn what_is_sealed_to_a_key_opens_with_its_private_half_only() {
        let mut entropy = SeededEntropy::new(1);
        let key = SigningKey::generate(&mut entropy);
        let sealed = key
            .public()
            .to_x25519()
            .hpke_seal(b"info", b"aad", b"secret", &mut entropy)
            .unwrap();
        let secret = key.to_x25519();
        assert_eq!(secret.public(), key.public().to_x25519());
        assert_eq!(
            secret.hpke_open(&sealed, b"info", b"aad").unwrap()[..],
            b"secret"[..]
        );
        assert!(secret.hpke_open(&sealed, b"infp", b"aad").is_err());
        assert!(secret.hpke_open(&sealed, b"info", b"aae").is_err());
        let other = SigningKey::generate(&mut entropy).to_x25519();
        assert!(other.hpke_open(&sealed, b"info", b"aad").is_err());
    }

    #[test]
    fn a_key_of_small_order_is_refused() {
        let sealed = X25519PublicKey::from_bytes([0; 32]).hpke_seal(
            b"",
            b"",
            b"secret",
            &mut SeededEntropy::new(1),
        );
        assert_eq!(sealed, Err(WeakRecipient));
    }
}
