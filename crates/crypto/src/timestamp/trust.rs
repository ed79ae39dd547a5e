//! Whom an auditor believes about time.

use std::time::Duration;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// The content of 1.3.6.1.5.5.7.3.8. A certificate between root and signer that says what it is for has to say this, too.
const TIME_STAMPING_OID: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x08];

/// Certificates of authorities that an auditor trusts: roots, or an authority's own.
#[derive(Clone, Debug, Default)]
pub struct TsaRoots(Vec<TrustAnchor<'static>>);

/// Why a file holds no roots.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TsaRootsError {
    /// One of the certificates cannot be read.
    #[error("certificate {number} cannot be read")]
    Certificate {
        /// Which one, from 1.
        number: usize,
    },
    /// No certificate in PEM is there.
    #[error("it holds no certificate in PEM (`-----BEGIN CERTIFICATE-----`)")]
    Empty,
}

/// That a signer's certificate leads to no root.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UntrustedTsa {
    /// A certificate on the way was not valid at the stated time.
    #[error("a certificate between its signer and the roots was not valid at that time")]
    Expired,
    /// No way leads there.
    #[error("its certificates lead to none of the roots that you trust")]
    Unknown,
}

impl TsaRoots {
    /// Reads certificates in PEM, one after the other.
    ///
    /// # Errors
    /// [`TsaRootsError`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, TsaRootsError> {
        let mut roots = Vec::new();
        for (at, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
            let unread = TsaRootsError::Certificate { number: at + 1 };
            let certificate = certificate.map_err(|_| unread)?;
            let anchor = anchor_from_trusted_cert(&certificate).map_err(|_| unread)?;
            roots.push(anchor.to_owned());
        }
        match roots.is_empty() {
            true => Err(TsaRootsError::Empty),
            false => Ok(Self(roots)),
        }
    }

    /// These and others.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Whether nobody is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn check(&self, certificates: &[Vec<u8>], time_us: u64) -> Result<(), UntrustedTsa> {
        let all: Vec<CertificateDer<'_>> = certificates
            .iter()
            .map(|certificate| CertificateDer::from(certificate.as_slice()))
            .collect();
        let (signer, others) = all.split_first().ok_or(UntrustedTsa::Unknown)?;
        let signer = EndEntityCert::try_from(signer).map_err(|_| UntrustedTsa::Unknown)?;
        let verified = signer.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &self.0,
            others,
            UnixTime::since_unix_epoch(Duration::from_micros(time_us)),
            KeyUsage::required_if_present(TIME_STAMPING_OID),
            None,
            None,
        );
        match verified {
            Ok(_) => Ok(()),
            Err(webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. }) => {
                Err(UntrustedTsa::Expired)
            }
            Err(_) => Err(UntrustedTsa::Unknown),
        }
    }
}
