//! Private keys under a passphrase: encrypted PKCS#8 in PEM (RFC 5958, RFC 8018), scrypt (RFC 7914) and AES-256-CBC, which `openssl pkey` reads.
//!
//! CBC does not tell whether a file was altered. It need not: a key that is not the one that the key statement names is refused, and of 16 altered bytes
//! nobody can say what key they become.

use pkcs8::der::{Decode as _, Encode as _};
use pkcs8::pkcs5::pbes2::{self, EncryptionScheme, Kdf};
use pkcs8::pkcs5::{self, scrypt};
use pkcs8::{EncryptedPrivateKeyInfoRef, LineEnding, SecretDocument};
use zeroize::Zeroizing;

use crate::{Entropy, KeyError, SigningKey};

/// Bytes of a passphrase, at most.
pub const PASSPHRASE_BYTES_MAX: usize = 1024;

/// The label of such a PEM.
const LABEL: &str = "ENCRYPTED PRIVATE KEY";

/// log₂ of scrypt's N. With r = 8 that is 16 MiB; OpenSSL gives scrypt 32 MiB at most, which the double would pass.
const LOG_N: u8 = 14;
const BLOCK: u32 = 8;
/// In the place of more memory: five times the work.
const TIMES: u32 = 5;

/// What a file can ask for at most: 64 MiB, and sixteen times the work of ours. More would let a file of somebody else keep a node busy.
const COST_MAX: u64 = 64 << 20;
const WORK_MAX: u64 = 16 * (1 << LOG_N) * (BLOCK * TIMES) as u64;

/// What opens private keys. Wiped from memory when it is dropped, and never printed.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

/// Why a text is no passphrase.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PassphraseError {
    /// Nothing.
    #[error("the passphrase is empty")]
    Empty,
    /// Not text of one line.
    #[error("the passphrase is not one line of UTF-8")]
    Line,
    /// Too long.
    #[error("the passphrase is longer than {PASSPHRASE_BYTES_MAX} bytes")]
    TooLong,
}

impl Passphrase {
    /// Takes what a file or a command holds: one line, without the line break that may end it.
    ///
    /// # Errors
    /// [`PassphraseError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PassphraseError> {
        let text = std::str::from_utf8(bytes).map_err(|_| PassphraseError::Line)?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.len() > PASSPHRASE_BYTES_MAX {
            return Err(PassphraseError::TooLong);
        }
        if text.is_empty() {
            return Err(PassphraseError::Empty);
        }
        if text.chars().any(char::is_control) {
            return Err(PassphraseError::Line);
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// Whether a text is a private key under a passphrase, as its label says.
#[must_use]
pub fn is_protected_pem(pem: &str) -> bool {
    pem.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
}

impl SigningKey {
    /// The key under a passphrase, as PEM. Takes about a fifth of a second.
    ///
    /// # Errors
    /// [`KeyError::Malformed`], only if the encoder itself fails.
    pub fn to_protected_pem(
        &self,
        passphrase: &Passphrase,
        entropy: &mut dyn Entropy,
    ) -> Result<Zeroizing<String>, KeyError> {
        let (mut salt, mut vector) = ([0; 16], [0; 16]);
        entropy.fill(&mut salt);
        entropy.fill(&mut vector);
        let encoder = |_| KeyError::Malformed;
        let cost = scrypt::Params::new(LOG_N, BLOCK, TIMES).map_err(|_| KeyError::Malformed)?;
        let scheme = pbes2::Parameters::generate_scrypt_aes256cbc(cost, &salt, vector);
        let scheme = scheme.map_err(|_| KeyError::Malformed)?;
        let plain = self.to_pkcs8_der()?;
        let sealed = scheme.encrypt(passphrase.0.as_bytes(), &plain);
        let sealed = sealed.map_err(|_| KeyError::Malformed)?;
        let sealed = pkcs8::der::asn1::OctetStringRef::new(&sealed).map_err(encoder)?;
        let info = EncryptedPrivateKeyInfoRef {
            encryption_algorithm: scheme.into(),
            encrypted_data: sealed,
        };
        let der = info.to_der().map_err(encoder)?;
        let document = SecretDocument::try_from(der.as_slice()).map_err(encoder)?;
        document.to_pem(LABEL, LineEnding::LF).map_err(encoder)
    }

    /// Opens what [`SigningKey::to_protected_pem`] made.
    ///
    /// # Errors
    /// [`KeyError::Malformed`], [`KeyError::Protection`], [`KeyError::Passphrase`].
    pub fn from_protected_pem(pem: &str, passphrase: &Passphrase) -> Result<Self, KeyError> {
        let (label, document) = SecretDocument::from_pem(pem).map_err(|_| KeyError::Malformed)?;
        if label != LABEL {
            return Err(KeyError::Malformed);
        }
        let info = EncryptedPrivateKeyInfoRef::from_der(document.as_bytes());
        let info = info.map_err(|_| KeyError::Protection)?;
        check_scheme(&info.encryption_algorithm)?;
        let plain = info.decrypt(passphrase.0.as_bytes());
        // A wrong passphrase shows in the padding, or in what is no key.
        let plain = plain.map_err(|_| KeyError::Passphrase)?;
        Self::from_pkcs8_der(plain.as_bytes()).map_err(|_| KeyError::Passphrase)
    }
}

/// Checked before anything is derived: the numbers are the file's.
fn check_scheme(scheme: &pkcs5::EncryptionScheme) -> Result<(), KeyError> {
    let pkcs5::EncryptionScheme::Pbes2(parameters) = scheme else {
        return Err(KeyError::Protection);
    };
    let (Kdf::Scrypt(kdf), EncryptionScheme::Aes256Cbc { .. }) =
        (&parameters.kdf, &parameters.encryption)
    else {
        return Err(KeyError::Protection);
    };
    let (cost, block) = (kdf.cost_parameter, u64::from(kdf.block_size));
    let work = u64::from(kdf.parallelization)
        .checked_mul(block)
        .and_then(|work| work.checked_mul(cost));
    let memory = cost
        .checked_mul(block)
        .and_then(|blocks| blocks.checked_mul(128));
    let affordable = cost.is_power_of_two()
        && cost > 1
        && memory.is_some_and(|memory| (1..=COST_MAX).contains(&memory))
        && work.is_some_and(|work| (1..=WORK_MAX).contains(&work));
    match affordable {
        true => Ok(()),
        false => Err(KeyError::Protection),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeededEntropy;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::from_bytes(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_key_opens_under_its_passphrase_alone() {
        let mut entropy = SeededEntropy::new(1);
        let key = SigningKey::generate(&mut entropy);
        let pem = key
            .to_protected_pem(&passphrase("one two"), &mut entropy)
            .unwrap();
        assert!(is_protected_pem(&pem) && !is_protected_pem(&key.to_pem().unwrap()));
        let open = |text: &str| SigningKey::from_protected_pem(&pem, &passphrase(text));
        assert_eq!(open("one two").unwrap().public(), key.public());
        for wrong in ["one twp", "One two", "one two ", "x"] {
            assert_eq!(open(wrong).unwrap_err(), KeyError::Passphrase);
        }
        // Salt and vector are drawn for each.
        let again = key
            .to_protected_pem(&passphrase("one two"), &mut entropy)
            .unwrap();
        assert_ne!(pem, again);
        let plain = SigningKey::from_protected_pem(&key.to_pem().unwrap(), &passphrase("x"));
        assert_eq!(plain.unwrap_err(), KeyError::Malformed);
        assert!(SigningKey::from_pem(&pem).is_err());
    }

    /// Made by OpenSSL 3: `openssl genpkey -algorithm ed25519 | openssl pkcs8 -topk8 -v2 aes-256-cbc -scrypt -passout pass:...`.
    #[test]
    fn what_openssl_has_protected_opens() {
        let key = SigningKey::from_protected_pem(OPENSSL, &passphrase("correct horse")).unwrap();
        let expected = SigningKey::from_pem(OPENSSL_PLAIN).unwrap();
        assert_eq!(key.public(), expected.public());
    }

    #[test]
    fn a_file_that_asks_for_too_much_is_not_tried() {
        let der = SecretDocument::from_pem(OPENSSL).unwrap().1;
        let mut scheme = EncryptedPrivateKeyInfoRef::from_der(der.as_bytes())
            .unwrap()
            .encryption_algorithm;
        let mut check = |cost, block, times| {
            let pkcs5::EncryptionScheme::Pbes2(parameters) = &mut scheme else {
                panic!("another scheme");
            };
            let Kdf::Scrypt(kdf) = &mut parameters.kdf else {
                panic!("another derivation");
            };
            (kdf.cost_parameter, kdf.block_size, kdf.parallelization) = (cost, block, times);
            check_scheme(&scheme)
        };
        assert_eq!(check(1 << 14, 8, 5), Ok(()));
        assert_eq!(check(1 << 16, 8, 1), Ok(()));
        for (cost, block, times) in [
            (1 << 17, 8, 1),
            (1 << 63, 8, 1),
            (u64::MAX, 8, 1),
            (0, 8, 1),
            (1, 8, 1),
            (3 << 12, 8, 1),
            (1 << 14, 0, 1),
            (1 << 14, 8, 0),
            (1 << 14, 8, u16::MAX),
            (2, u16::MAX, u16::MAX),
        ] {
            let refused = check(cost, block, times);
            assert_eq!(refused, Err(KeyError::Protection), "{cost} {block} {times}");
        }
    }

    #[test]
    fn a_passphrase_is_one_line() {
        let error = |bytes: &[u8]| Passphrase::from_bytes(bytes).unwrap_err();
        assert_eq!(error(b""), PassphraseError::Empty);
        assert_eq!(error(b"\n"), PassphraseError::Empty);
        assert_eq!(error(b"one\ntwo\n"), PassphraseError::Line);
        assert_eq!(error(b"\xff"), PassphraseError::Line);
        assert_eq!(
            error(&[b'a'; PASSPHRASE_BYTES_MAX + 1]),
            PassphraseError::TooLong
        );
        let same = |bytes: &[u8]| Passphrase::from_bytes(bytes).unwrap().0.to_string();
        assert_eq!(same(b"one two\r\n"), same(b"one two"));
        assert_eq!(format!("{:?}", passphrase("secret")), "Passphrase(..)");
    }

    const OPENSSL: &str = "\
-----BEGIN ENCRYPTED PRIVATE KEY-----\n\
MIGTME8GCSqGSIb3DQEFDTBCMCEGCSsGAQQB2kcECzAUBAgh7s39Wi8rWAICQAAC\n\
AQgCAQEwHQYJYIZIAWUDBAEqBBC2ZhBJuLg8rKdjrHFcrZu3BECPzH8CqWkc7Cvk\n\
3jmlaqoIhqGviZ2DeNa1xXTWUSBsfQVseaRGE+Gq8gipwD6joLSN9lnykTxxWvwJ\n\
CinZYV3m\n\
-----END ENCRYPTED PRIVATE KEY-----\n\
";

    const OPENSSL_PLAIN: &str = "\
-----BEGIN PRIVATE KEY-----\n\
MC4CAQAwBQYDK2VwBCIEIPkHuWjkf7MxBuWvgw1qtGcPZ7lURI4WxeP7mzT92ayg\n\
-----END PRIVATE KEY-----\n\
";
}
