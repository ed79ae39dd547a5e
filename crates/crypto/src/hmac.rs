//! HMAC-SHA-256 (RFC 2104) under one key, for many messages.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::{Hash, work};

/// A key, laid out once: each message then costs two blocks and its own.
#[derive(Clone)]
pub struct HmacKey(Hmac<Sha256>);

impl HmacKey {
    /// The key of 32 bytes.
    #[must_use]
    #[expect(
        clippy::expect_used,
        reason = "INVARIANT: HMAC takes a key of any length"
    )]
    pub fn new(key: &[u8; 32]) -> Self {
        Self(Hmac::new_from_slice(key).expect("a key of any length"))
    }

    /// The code of the concatenation of `parts`.
    #[must_use]
    pub fn authenticate(&self, parts: &[&[u8]]) -> Hash {
        let mut mac = self.0.clone();
        for part in parts {
            work::hashed(part.len());
            mac.update(part);
        }
        work::digest_finished();
        mac.finalize().into_bytes().into()
    }
}

impl std::fmt::Debug for HmacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HmacKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test cases 1 and 2, their keys filled up with zeros: HMAC does that itself, so that the codes are the same.
    #[test]
    fn the_codes_of_rfc_4231_come_out() {
        let code = |key: &[u8], message: &[u8]| {
            let mut whole = [0; 32];
            whole[..key.len()].copy_from_slice(key);
            let (one, two) = message.split_at(message.len() / 2);
            hex::encode(HmacKey::new(&whole).authenticate(&[one, two]))
        };
        assert_eq!(
            code(&[0x0b; 20], b"Hi There"),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
        assert_eq!(
            code(b"Jefe", b"what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
