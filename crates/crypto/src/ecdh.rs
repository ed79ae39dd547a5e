//! ECDH-ES with a key derived by Concat KDF, as JOSE has it (RFC 7518, section 4.6; RFC 8037): for outsiders, whose tools know this and not HPKE.

use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};
use zeroize::Zeroizing;

use crate::{Entropy, sha256_of};

/// Bytes of a coordinate, a private key and a shared secret, on both curves.
pub const ECDH_BYTES: usize = 32;

/// The curves that are known here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EcdhCurve {
    /// NIST P-256 (FIPS 186).
    P256,
    /// X25519 (RFC 7748).
    X25519,
}

/// A public key on one of the curves. Of P-256 always a point of the curve.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EcdhPublicKey(Public);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Public {
    P256(p256::PublicKey),
    X25519([u8; ECDH_BYTES]),
}

/// A private key on one of the curves. Wiped from memory when it is dropped, and never printed.
pub struct EcdhSecretKey(Secret);

enum Secret {
    P256(p256::SecretKey),
    X25519(Zeroizing<[u8; ECDH_BYTES]>),
}

/// Why there is no key, or nothing is agreed with it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EcdhError {
    /// A point that is not on the curve, or a number that is no private key.
    #[error("this is no key of the curve")]
    NotAKey,
    /// Everybody would know the secret.
    #[error("this key is of small order, and nothing is secret under it")]
    Weak,
}

impl EcdhPublicKey {
    /// The key with these coordinates on P-256, each big-endian.
    ///
    /// # Errors
    /// [`EcdhError::NotAKey`].
    pub fn p256(x: &[u8; ECDH_BYTES], y: &[u8; ECDH_BYTES]) -> Result<Self, EcdhError> {
        // SEC 1, 2.3.4: an uncompressed point.
        let point = [&[4][..], x, y].concat();
        let key = p256::PublicKey::from_sec1_bytes(&point).map_err(|_| EcdhError::NotAKey)?;
        Ok(Self(Public::P256(key)))
    }

    /// The key of these bytes on X25519. Whether it is weak shows when something is agreed with it.
    #[must_use]
    pub fn x25519(bytes: [u8; ECDH_BYTES]) -> Self {
        Self(Public::X25519(bytes))
    }

    /// Its curve.
    #[must_use]
    pub fn curve(&self) -> EcdhCurve {
        match self.0 {
            Public::P256(_) => EcdhCurve::P256,
            Public::X25519(_) => EcdhCurve::X25519,
        }
    }

    /// Whether it is of small order, so that everybody knows what is agreed with it.
    #[must_use]
    pub fn is_weak(&self) -> bool {
        // Any clamped scalar takes such a key to zero, and no other (RFC 7748, section 7).
        let any = EcdhSecretKey(Secret::X25519(Zeroizing::new([1; ECDH_BYTES])));
        self.curve() == EcdhCurve::X25519 && any.agree(self) == Err(EcdhError::Weak)
    }

    /// Its coordinates: x, and y where the curve has one that is stated.
    #[must_use]
    pub fn coordinates(&self) -> ([u8; ECDH_BYTES], Option<[u8; ECDH_BYTES]>) {
        match &self.0 {
            Public::X25519(bytes) => (*bytes, None),
            Public::P256(key) => {
                let point = key.to_sec1_bytes();
                let (mut x, mut y) = ([0; ECDH_BYTES], [0; ECDH_BYTES]);
                // INVARIANT: to_sec1_bytes gives an uncompressed point of 65 bytes.
                if let [_, coordinates @ ..] = &*point
                    && let Some((first, second)) = coordinates.split_at_checked(ECDH_BYTES)
                    && second.len() == ECDH_BYTES
                {
                    x.copy_from_slice(first);
                    y.copy_from_slice(second);
                }
                (x, Some(y))
            }
        }
    }
}

impl EcdhSecretKey {
    /// Draws a key on a curve.
    #[must_use]
    pub fn generate(curve: EcdhCurve, entropy: &mut dyn Entropy) -> Self {
        let mut bytes = Zeroizing::new([0; ECDH_BYTES]);
        loop {
            entropy.fill(bytes.as_mut());
            // On P-256 one number in 2³² is none that is below the order.
            if let Ok(key) = Self::from_bytes(curve, &bytes) {
                return key;
            }
        }
    }

    /// The key of these bytes: a scalar, big-endian on P-256 and as in RFC 7748 on X25519.
    ///
    /// # Errors
    /// [`EcdhError::NotAKey`].
    pub fn from_bytes(curve: EcdhCurve, bytes: &[u8; ECDH_BYTES]) -> Result<Self, EcdhError> {
        Ok(Self(match curve {
            EcdhCurve::P256 => {
                Secret::P256(p256::SecretKey::from_slice(bytes).map_err(|_| EcdhError::NotAKey)?)
            }
            EcdhCurve::X25519 => Secret::X25519(Zeroizing::new(*bytes)),
        }))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> EcdhPublicKey {
        EcdhPublicKey(match &self.0 {
            Secret::P256(key) => Public::P256(key.public_key()),
            Secret::X25519(bytes) => Public::X25519(x25519(**bytes, X25519_BASEPOINT_BYTES)),
        })
    }

    /// The secret that the holders of both private keys share, `Z` of RFC 7518.
    ///
    /// # Errors
    /// [`EcdhError::NotAKey`] where the other key is on another curve, [`EcdhError::Weak`].
    pub fn agree(&self, other: &EcdhPublicKey) -> Result<Zeroizing<[u8; ECDH_BYTES]>, EcdhError> {
        match (&self.0, &other.0) {
            (Secret::P256(key), Public::P256(other)) => {
                let shared = key.diffie_hellman(other);
                Ok(Zeroizing::new((*shared.raw_secret_bytes()).into()))
            }
            (Secret::X25519(key), Public::X25519(other)) => {
                let shared = Zeroizing::new(x25519(**key, *other));
                // RFC 7748, 6.1: all zeros come of a key of small order, and of no other.
                match *shared == [0; ECDH_BYTES] {
                    true => Err(EcdhError::Weak),
                    false => Ok(shared),
                }
            }
            _ => Err(EcdhError::NotAKey),
        }
    }
}

impl std::fmt::Debug for EcdhSecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EcdhSecretKey(..)")
    }
}

/// Concat KDF (NIST SP 800-56A, 5.8.1) with SHA-256 as RFC 7518, section 4.6.2 has it: a key of at most 256 bits for `algorithm`. A shorter one is the beginning of
/// what is returned.
#[must_use]
pub fn concat_kdf(
    shared: &[u8; ECDH_BYTES],
    algorithm: &str,
    parties: (&[u8], &[u8]),
    key_bits: u32,
) -> Zeroizing<[u8; 32]> {
    // INVARIANT: names of algorithms and parties are short.
    let length = |bytes: &[u8]| (bytes.len() as u32).to_be_bytes();
    let (producer, consumer) = parties;
    let algorithm = algorithm.as_bytes();
    Zeroizing::new(sha256_of(&[
        // One round gives 256 bits.
        &1_u32.to_be_bytes(),
        shared,
        &length(algorithm),
        algorithm,
        &length(producer),
        producer,
        &length(consumer),
        consumer,
        &key_bits.to_be_bytes(),
    ]))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;
    use crate::SeededEntropy;

    fn bytes(text: &str) -> [u8; 32] {
        URL_SAFE_NO_PAD.decode(text).unwrap().try_into().unwrap()
    }

    fn hex32(text: &str) -> [u8; 32] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    /// RFC 7518, appendix C.
    #[test]
    fn alice_and_bob_of_rfc_7518_agree() {
        let key = |d| EcdhSecretKey::from_bytes(EcdhCurve::P256, &bytes(d)).unwrap();
        let alice = key("0_NxaRPUMQoAJt50Gz8YiTr8gRTwyEaCumd-MToTmIo");
        let bob = key("VEmDZpDXXK8p8N0Cndsxs924q6nS1RXFASRl6BfUqdw");
        let alice_public = EcdhPublicKey::p256(
            &bytes("gI0GAILBdu7T53akrFmMyGcsF3n5dO7MmwNBHKW5SV0"),
            &bytes("SLW_xSffzlPWrHEVI30DHM_4egVwt3NQqeUD7nMFpps"),
        );
        let bob_public = EcdhPublicKey::p256(
            &bytes("weNJy2HscCSM6AEDTDg04biOvhFhyyWvOHQfeF_PxMQ"),
            &bytes("e8lnCO-AlStT-NJVX-crhB7QRYhiix03illJOVAOyck"),
        );
        assert_eq!(Ok(alice.public()), alice_public);
        assert_eq!(Ok(bob.public()), bob_public);
        let shared = alice.agree(&bob.public()).unwrap();
        assert_eq!(shared, bob.agree(&alice.public()).unwrap());
        assert_eq!(
            shared[..8],
            [158, 86, 217, 29, 129, 113, 53, 211],
            "Z begins so"
        );
        let derived = concat_kdf(&shared, "A128GCM", (b"Alice", b"Bob"), 128);
        let derived = URL_SAFE_NO_PAD.encode(&derived[..16]);
        assert_eq!(derived, "VqqN6vgjbSBcIijNcacQGg");
    }

    /// RFC 8037, appendix A.6; the derived key is that of RFC 7748, section 6.1.
    #[test]
    fn the_ephemeral_key_of_rfc_8037_agrees_with_the_recipient() {
        let ephemeral = hex32("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
        let ephemeral = ephemeral_of(ephemeral);
        let bob = EcdhPublicKey::x25519(bytes("3p7bfXt9wbTTW2HC7OQ1Nz-DQ8hbeGdNrfx-FG-IK08"));
        let expected = EcdhPublicKey::x25519(bytes("hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo"));
        assert_eq!(ephemeral.public(), expected);
        let shared = ephemeral.agree(&bob).unwrap();
        let expected = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742";
        assert_eq!(hex::encode(*shared), expected);
    }

    fn ephemeral_of(bytes: [u8; 32]) -> EcdhSecretKey {
        EcdhSecretKey::from_bytes(EcdhCurve::X25519, &bytes).unwrap()
    }

    #[test]
    fn both_curves_agree_with_drawn_keys_and_not_with_each_other() {
        let mut entropy = SeededEntropy::new(1);
        let mut pair = |curve| {
            let one = EcdhSecretKey::generate(curve, &mut entropy);
            (one, EcdhSecretKey::generate(curve, &mut entropy))
        };
        for curve in [EcdhCurve::P256, EcdhCurve::X25519] {
            let (one, other) = pair(curve);
            assert_eq!(one.public().curve(), curve);
            assert_eq!(one.agree(&other.public()), other.agree(&one.public()));
            assert_ne!(one.agree(&other.public()), one.agree(&one.public()));
            assert_eq!(format!("{one:?}"), "EcdhSecretKey(..)");
        }
        let (p256, x25519) = (pair(EcdhCurve::P256).0, pair(EcdhCurve::X25519).0);
        assert_eq!(p256.agree(&x25519.public()), Err(EcdhError::NotAKey));
        assert_eq!(x25519.agree(&p256.public()), Err(EcdhError::NotAKey));
        let (x, y) = p256.public().coordinates();
        assert_eq!(EcdhPublicKey::p256(&x, &y.unwrap()), Ok(p256.public()));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let (x, y) = ([1; 32], [2; 32]);
        assert_eq!(EcdhPublicKey::p256(&x, &y), Err(EcdhError::NotAKey));
        assert!(EcdhSecretKey::from_bytes(EcdhCurve::P256, &[0; 32]).is_err());
        assert!(EcdhSecretKey::from_bytes(EcdhCurve::P256, &[0xff; 32]).is_err());
        let key = ephemeral_of([7; 32]);
        let mut one = [0; 32];
        one[0] = 1;
        for weak in [[0; 32], one] {
            let weak = EcdhPublicKey::x25519(weak);
            assert!(weak.is_weak() && !key.public().is_weak());
            assert_eq!(key.agree(&weak), Err(EcdhError::Weak));
        }
    }
}
