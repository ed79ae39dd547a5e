use aes_gcm::aead::AeadInOut as _;
use aes_gcm::{Aes256Gcm, KeyInit as _};
use hkdf::Hkdf;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sha2::Sha256;
use zeroize::Zeroizing;

/// Bytes that sealing adds: the authentication tag.
pub const SEAL_TAG_BYTES: usize = 16;

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 12;

/// What was sealed does not open: another key, nonce, associated data or byte.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the ciphertext does not open: it was altered, moved, or sealed under another key")]
pub struct OpenError;

/// An AES-256-GCM key. Wiped from memory when it is dropped, and never printed.
///
/// A pair of key and nonce must never be used for two plaintexts: whoever holds both ciphertexts learns their difference and can forge. AES-GCM does not
/// commit to its key; whoever has to be sure that a ciphertext has one meaning checks a commitment to the key before using it.
#[derive(Clone)]
pub struct SealingKey(Aes256Gcm);

impl SealingKey {
    /// Takes a key.
    #[must_use]
    pub fn from_bytes(key: &[u8; 32]) -> Self {
        Self(Aes256Gcm::new(key.into()))
    }

    /// Seals `buffer[start..]` in place and appends the tag.
    pub fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        associated: &[u8],
        buffer: &mut Vec<u8>,
        start: usize,
    ) {
        let plaintext = buffer.get_mut(start..).unwrap_or_default();
        // Fails beyond 64 GiB only; a ciphertext without a tag opens nowhere.
        let tag = self
            .0
            .encrypt_inout_detached(nonce.into(), associated, plaintext.into());
        if let Ok(tag) = tag {
            buffer.extend_from_slice(&tag);
        }
    }

    /// Opens what [`SealingKey::seal`] made. Nothing of the plaintext is given out before the tag has been checked.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        associated: &[u8],
        sealed: &[u8],
    ) -> Result<Vec<u8>, OpenError> {
        let (ciphertext, tag) = sealed
            .split_last_chunk::<SEAL_TAG_BYTES>()
            .ok_or(OpenError)?;
        let mut plaintext = ciphertext.to_vec();
        self.0
            .decrypt_inout_detached(
                nonce.into(),
                associated,
                plaintext.as_mut_slice().into(),
                tag.into(),
            )
            .map_err(|_| OpenError)?;
        Ok(plaintext)
    }
}

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingKey(..)")
    }
}

/// An AES-256-GCM key for many messages: what it seals, [`SealingKey`] opens, and the other way round, at three to eight times the speed. Never printed.
///
/// ring does not wipe the expanded key when it is dropped: a key that rests somewhere, and seals seldom, belongs in a [`SealingKey`].
#[derive(Clone)]
pub struct BulkSealingKey(LessSafeKey);

impl BulkSealingKey {
    /// Takes a key.
    #[must_use]
    #[expect(
        clippy::expect_used,
        reason = "INVARIANT: the key has the length that AES-256 takes"
    )]
    pub fn from_bytes(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key).expect("a key of 32 bytes");
        Self(LessSafeKey::new(key))
    }

    /// As [`SealingKey::seal`].
    pub fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        associated: &[u8],
        buffer: &mut Vec<u8>,
        start: usize,
    ) {
        let plaintext = buffer.get_mut(start..).unwrap_or_default();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let associated = Aad::from(associated);
        // Fails beyond 64 GiB only; a ciphertext without a tag opens nowhere.
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, associated, plaintext);
        if let Ok(tag) = tag {
            buffer.extend_from_slice(tag.as_ref());
        }
    }

    /// As [`SealingKey::open`].
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        associated: &[u8],
        sealed: &[u8],
    ) -> Result<Vec<u8>, OpenError> {
        let mut buffer = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plaintext = self
            .0
            .open_in_place(nonce, Aad::from(associated), &mut buffer)
            .map_err(|_| OpenError)?
            .len();
        buffer.truncate(plaintext);
        Ok(buffer)
    }
}

impl std::fmt::Debug for BulkSealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BulkSealingKey(..)")
    }
}

/// HKDF-SHA-256 (RFC 5869): extract and expand to 32 bytes.
#[must_use]
pub fn hkdf_sha256(secret: &[u8], salt: &[u8], info: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new([0; 32]);
    // Fails only for more than 255 blocks; this is one.
    let _ = Hkdf::<Sha256>::new(Some(salt), secret).expand(info, out.as_mut());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Entropy as _, SeededEntropy};

    #[test]
    fn sealed_bytes_open_with_the_same_key_nonce_and_data_only() {
        let key = SealingKey::from_bytes(&[7; 32]);
        let mut buffer = b"head".to_vec();
        buffer.extend_from_slice(b"plaintext");
        key.seal(&[1; 12], b"associated", &mut buffer, 4);
        assert_eq!(&buffer[..4], b"head");
        let sealed = &buffer[4..];
        assert_eq!(sealed.len(), 9 + SEAL_TAG_BYTES);
        assert_eq!(
            key.open(&[1; 12], b"associated", sealed).unwrap(),
            b"plaintext"
        );
        assert_eq!(key.open(&[2; 12], b"associated", sealed), Err(OpenError));
        assert_eq!(key.open(&[1; 12], b"associatee", sealed), Err(OpenError));
        let other = SealingKey::from_bytes(&[8; 32]);
        assert_eq!(other.open(&[1; 12], b"associated", sealed), Err(OpenError));
        for place in 0..sealed.len() {
            let mut altered = sealed.to_vec();
            altered[place] ^= 1;
            assert_eq!(key.open(&[1; 12], b"associated", &altered), Err(OpenError));
        }
        assert_eq!(key.open(&[1; 12], b"", &sealed[..15]), Err(OpenError));
        assert_eq!(format!("{key:?}"), "SealingKey(..)");
    }

    #[test]
    fn both_kinds_of_key_make_and_open_the_same_bytes() {
        let mut entropy = SeededEntropy::new(5);
        for length in [0, 1, 15, 16, 17, 290, 1_023, 1_024, 1_025, 16_385, 70_001] {
            let (mut key, mut nonce, mut text) = ([0; 32], [0; 12], vec![0; length + 40]);
            entropy.fill(&mut key);
            entropy.fill(&mut nonce);
            entropy.fill(&mut text);
            let (associated, plaintext) = text.split_at(length % 41);
            let (one, bulk) = (
                SealingKey::from_bytes(&key),
                BulkSealingKey::from_bytes(&key),
            );
            let (mut sealed, mut sealed_in_bulk) = (plaintext.to_vec(), plaintext.to_vec());
            one.seal(&nonce, associated, &mut sealed, 0);
            bulk.seal(&nonce, associated, &mut sealed_in_bulk, 0);
            assert_eq!(sealed, sealed_in_bulk);
            assert_eq!(one.open(&nonce, associated, &sealed).unwrap(), plaintext);
            assert_eq!(bulk.open(&nonce, associated, &sealed).unwrap(), plaintext);
            for place in [0, sealed.len() / 2, sealed.len() - 1] {
                sealed[place] ^= 1;
                assert_eq!(bulk.open(&nonce, associated, &sealed), Err(OpenError));
                sealed[place] ^= 1;
            }
            assert_eq!(bulk.open(&nonce, b"other", &sealed), Err(OpenError));
            assert_eq!(bulk.open(&nonce, associated, &sealed[..15]), Err(OpenError));
            assert_eq!(format!("{bulk:?}"), "BulkSealingKey(..)");
        }
    }

    #[test]
    fn the_first_case_of_rfc_5869() {
        let okm = hkdf_sha256(
            &[0x0b; 22],
            &hex::decode("000102030405060708090a0b0c").unwrap(),
            &hex::decode("f0f1f2f3f4f5f6f7f8f9").unwrap(),
        );
        let expected = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf";
        assert_eq!(hex::encode(&okm[..]), expected);
    }
}
