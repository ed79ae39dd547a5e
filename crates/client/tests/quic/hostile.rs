//! A peer that breaks one rule of the handshake at a time, built on the TLS library directly.

use std::sync::Arc;

use countersign_client::quic::ALPN;
use countersign_crypto::SigningKey;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, Signer};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureAlgorithm, SignatureScheme,
};

/// What the peer presents, signs with and says.
pub(crate) struct Hostile {
    presented: Vec<CertificateDer<'static>>,
    signer: Signs,
    raw: bool,
    anonymous: bool,
    alpn: Vec<Vec<u8>>,
}

#[derive(Clone, Debug)]
enum Signs {
    With(SigningKey),
    /// Always these bytes.
    Fixed([u8; 64]),
}

/// The encoding of the neutral element: a key of order 1.
pub(crate) fn identity_point() -> [u8; 32] {
    let mut point = [0; 32];
    point[0] = 1;
    point
}

impl Hostile {
    /// Breaks no rule.
    pub(crate) fn honest(key: &SigningKey) -> Self {
        Self {
            presented: vec![key.public().to_spki_der().into()],
            signer: Signs::With(key.clone()),
            raw: true,
            anonymous: false,
            alpn: vec![ALPN.to_vec()],
        }
    }

    /// Key of order 1, and R = identity, s = 0: sB = R + kA holds for every message.
    pub(crate) fn weak() -> Self {
        let honest = Self::honest(&SigningKey::from_seed(&[9; 32]));
        let mut spki = honest.presented[0].to_vec();
        spki.splice(12.., identity_point());
        let mut signature = [0; 64];
        signature[0] = 1;
        Self {
            presented: vec![spki.into()],
            signer: Signs::Fixed(signature),
            ..honest
        }
    }

    /// Offers certificates, not raw keys. What the certificate says is never looked at.
    pub(crate) fn x509() -> Self {
        Self {
            raw: false,
            ..Self::honest(&SigningKey::from_seed(&[9; 32]))
        }
    }

    pub(crate) fn signing_with(self, key: &SigningKey) -> Self {
        Self {
            signer: Signs::With(key.clone()),
            ..self
        }
    }

    pub(crate) fn presenting_twice(mut self) -> Self {
        self.presented.push(self.presented[0].clone());
        self
    }

    /// With another protocol; none where it is empty.
    pub(crate) fn speaking(mut self, alpn: &[u8]) -> Self {
        self.alpn = vec![alpn.to_vec()];
        self.alpn.retain(|name| !name.is_empty());
        self
    }

    /// Dials without a key.
    pub(crate) fn anonymous(self) -> Self {
        Self {
            anonymous: true,
            ..self
        }
    }

    pub(crate) fn client(&self) -> quinn::ClientConfig {
        let builder =
            rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Lax { raw: self.raw }));
        let mut tls = if self.anonymous {
            builder.with_no_client_auth()
        } else {
            builder.with_client_cert_resolver(self.presents())
        };
        tls.alpn_protocols.clone_from(&self.alpn);
        quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
    }

    pub(crate) fn server(&self) -> quinn::ServerConfig {
        let mut tls =
            rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_client_cert_verifier(Arc::new(Lax { raw: self.raw }))
                .with_cert_resolver(self.presents());
        tls.alpn_protocols.clone_from(&self.alpn);
        quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()))
    }

    fn presents(&self) -> Arc<Presents> {
        let key = CertifiedKey::new(self.presented.clone(), Arc::new(self.signer.clone()));
        Arc::new(Presents {
            key: Arc::new(key),
            raw: self.raw,
        })
    }
}

impl rustls::sign::SigningKey for Signs {
    fn choose_scheme(&self, _offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(self.clone()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for Signs {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(match self {
            Self::With(key) => key.sign(message).to_bytes().to_vec(),
            Self::Fixed(signature) => signature.to_vec(),
        })
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

#[derive(Debug)]
struct Presents {
    key: Arc<CertifiedKey>,
    raw: bool,
}

impl rustls::client::ResolvesClientCert for Presents {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.key))
    }

    fn has_certs(&self) -> bool {
        true
    }

    fn only_raw_public_keys(&self) -> bool {
        self.raw
    }
}

impl rustls::server::ResolvesServerCert for Presents {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.key))
    }

    fn only_raw_public_keys(&self) -> bool {
        self.raw
    }
}

/// Believes everything.
#[derive(Debug)]
struct Lax {
    raw: bool,
}

impl ServerCertVerifier for Lax {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.raw
    }
}

impl ClientCertVerifier for Lax {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.raw
    }
}
