//! Time-stamp tokens (RFC 3161, RFC 5816): somebody else's signed word that a digest existed at a time.
//!
//! ```text
//! TimeStampToken = CMS SignedData                                  RFC 5652
//!   TSTInfo            digest, time, accuracy                      what is said
//!   certificates       the authority's, and those that lead to it
//!   signed attributes  digest of TSTInfo, digest of the certificate (ESSCertIDv2)
//!   signature          RSA PKCS #1 or ECDSA over the attributes
//! ```
//!
//! [`TimestampToken::from_der`] takes only what holds without trust: one signer, whose certificate is here, named by a digest of it, made for nothing but
//! time stamps and valid at that time; every digest SHA-256 or longer. Whether anybody believes that signer is [`TimestampToken::check_trusted`]'s to say.
//!
//! In scope: SHA-256 imprints, RSA from 2,048 bits with PKCS #1, ECDSA on P-256 and P-384, Ed25519. Elsewhere: what was digested (crate `tlog`), asking an authority over a
//! network. Deliberately absent: revocation lists, which an offline judge does not have.

mod cms;
mod query;
mod trust;

use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::ExtendedKeyUsage;

use crate::Hash;
use cms::SignedData;

pub use query::timestamp_query;
pub use trust::{TsaRoots, TsaRootsError, UntrustedTsa};

/// Largest token that is read: three certificates of 2 KiB each are common, some authorities add more. Enforced before anything is looked at.
pub const TIMESTAMP_TOKEN_BYTES_MAX: usize = 64 << 10;

/// 1.3.6.1.5.5.7.3.8, what the authority's certificate is for.
const TIME_STAMPING: x509_cert::der::asn1::ObjectIdentifier =
    x509_cert::der::asn1::ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.8");

/// A time-stamp token that says what its signer said; who that is stands open.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TimestampToken {
    der: Vec<u8>,
    imprint: Hash,
    time_us: u64,
    accuracy_us: u64,
    /// The signer's first.
    certificates: Vec<Vec<u8>>,
    signer: String,
}

/// Why bytes are no token, or one that proves nothing whoever is trusted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TimestampError {
    /// A signed attribute is missing, there twice, or not what it has to be.
    #[error(
        "its signed attributes do not name what was signed, or the certificate, by a digest of it"
    )]
    Attributes,
    /// The signer's certificate was not valid at the time that the token states.
    #[error("the certificate of its signer was not valid at the time that it states")]
    Expired,
    /// Not the ASN.1 of a token.
    #[error("it is not a time-stamp token (RFC 3161), or not in DER")]
    Form,
    /// The certificate that signed is not among those in the token.
    #[error("the certificate of its signer is not in it; ask for one with its certificates")]
    NoCertificate,
    /// The authority did not grant one.
    #[error("the authority refused to make a token (status {status})")]
    NotGranted {
        /// `PKIStatus` of RFC 3161.
        status: u32,
    },
    /// The certificate is for something else, too.
    #[error("the certificate of its signer is not one for time stamps alone")]
    Purpose,
    /// The signature is not over the attributes, or by another key.
    #[error("its signature does not verify")]
    Signature,
    /// Larger than [`TIMESTAMP_TOKEN_BYTES_MAX`].
    #[error("it has {bytes} bytes, more than {TIMESTAMP_TOKEN_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// SHA-1, a short key, or an algorithm that is not taken.
    #[error(
        "it rests on a digest or key that is too weak or not taken: SHA-256 and longer, RSA from 2048 bits, ECDSA on P-256 and P-384 are"
    )]
    Weak,
}

impl TimestampToken {
    /// Reads a token, and checks all of it that needs no trust.
    ///
    /// # Errors
    /// [`TimestampError`], all but [`TimestampError::NotGranted`].
    pub fn from_der(bytes: &[u8]) -> Result<Self, TimestampError> {
        if bytes.len() > TIMESTAMP_TOKEN_BYTES_MAX {
            let bytes = bytes.len();
            return Err(TimestampError::TooLarge { bytes });
        }
        let signed = SignedData::parse(bytes)?;
        let info = signed.check_attributes()?;
        let at = signed.signer()?;
        let signer = signed.certificates[at];
        let certificate = Certificate::from_der(signer).map_err(|_| TimestampError::Form)?;
        let tbs = certificate.tbs_certificate();
        let seconds = info.time_us / 1_000_000;
        let validity = tbs.validity();
        let from = validity.not_before.to_unix_duration().as_secs();
        let until = validity.not_after.to_unix_duration().as_secs();
        check_purpose(&certificate)?;
        if !(from..=until).contains(&seconds) {
            return Err(TimestampError::Expired);
        }
        signed.check_signature(signer)?;
        let mut certificates: Vec<Vec<u8>> =
            signed.certificates.iter().map(|one| one.to_vec()).collect();
        certificates.swap(0, at);
        Ok(Self {
            der: bytes.to_vec(),
            imprint: info.imprint,
            time_us: info.time_us,
            accuracy_us: info.accuracy_us,
            certificates,
            signer: tbs.subject().to_string(),
        })
    }

    /// Takes the token out of an authority's answer (`TimeStampResp`).
    ///
    /// # Errors
    /// [`TimestampError`].
    pub fn from_response(bytes: &[u8]) -> Result<Self, TimestampError> {
        if bytes.len() > TIMESTAMP_TOKEN_BYTES_MAX {
            let bytes = bytes.len();
            return Err(TimestampError::TooLarge { bytes });
        }
        Self::from_der(query::token_of(bytes)?)
    }

    /// Its bytes.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The SHA-256 that existed then.
    #[must_use]
    pub fn imprint(&self) -> &Hash {
        &self.imprint
    }

    /// The time that the authority states, in µs since 1970.
    #[must_use]
    pub fn time_us(&self) -> u64 {
        self.time_us
    }

    /// The latest time that its words admit: what it states, and how far off it says that it may be. In µs since 1970.
    #[must_use]
    pub fn not_later_than_us(&self) -> u64 {
        self.time_us.saturating_add(self.accuracy_us)
    }

    /// The subject of the signer's certificate, for people.
    #[must_use]
    pub fn signer(&self) -> &str {
        &self.signer
    }

    /// Whether its certificates lead to one of the roots, all of them valid at the time that it states. Not whether any was revoked.
    ///
    /// # Errors
    /// [`UntrustedTsa`].
    pub fn check_trusted(&self, roots: &TsaRoots) -> Result<(), UntrustedTsa> {
        roots.check(&self.certificates, self.time_us)
    }
}

/// Extended key usage is there, critical, and nothing but time stamping (RFC 3161, 2.3).
fn check_purpose(certificate: &Certificate) -> Result<(), TimestampError> {
    let tbs = certificate.tbs_certificate();
    let usage = tbs.get_extension::<ExtendedKeyUsage>();
    match usage {
        Ok(Some((true, ExtendedKeyUsage(purposes)))) if purposes == [TIME_STAMPING] => Ok(()),
        _ => Err(TimestampError::Purpose),
    }
}
