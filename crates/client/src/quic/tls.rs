use std::sync::{Arc, OnceLock};

use countersign_crypto::{PublicKey, Signature, SigningKey};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, Signer};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerIncompatible, PeerMisbehaved, SignatureAlgorithm, SignatureScheme,
};

use super::{PeerKeyFault, QuicLimits};

/// The protocol and its major version, agreed on in the handshake (RFC 7301). A peer of another version is refused there.
pub const ALPN: &[u8] = b"countersign/1";

/// The name every dialer sends. Keys name peers here, not hosts; a fixed name tells an observer nothing.
pub const SERVER_NAME: &str = "countersign.invalid";

/// Whom a dialer accepts at the other end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ServerPin {
    /// Whoever holds a sound key; the caller learns it from [`super::Connection::peer_key`] and decides.
    Any,
    /// The holder of this key only. Any other is refused in the handshake, before this side sent application data.
    Key(PublicKey),
}

/// The configuration of a dialer that proves possession of `key`.
///
/// Resumption, tickets and 0-RTT are off: every connection is a full handshake that proves both keys afresh.
#[must_use]
pub fn client_config(key: &SigningKey, pin: ServerPin, limits: &QuicLimits) -> quinn::ClientConfig {
    client_config_with_fault(key, pin, limits).0
}

/// As [`client_config`], with the place where the verifier leaves what it found wrong: the error that comes back
/// through the QUIC library is text only.
pub(crate) fn client_config_with_fault(
    key: &SigningKey,
    pin: ServerPin,
    limits: &QuicLimits,
) -> (quinn::ClientConfig, Arc<OnceLock<PeerKeyFault>>) {
    let fault = Arc::new(OnceLock::new());
    let verifier = Verifier {
        pin,
        fault: Arc::clone(&fault),
    };
    let mut tls = tls13(rustls::ClientConfig::builder_with_provider(provider()))
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(identity(
            key,
        ))));
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.resumption = Resumption::disabled();
    tls.enable_early_data = false;
    #[expect(clippy::expect_used, reason = "provider() always holds AES-128-GCM")]
    let tls = QuicClientConfig::try_from(tls).expect("the initial suite is there");
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(limits.dialed()));
    (config, fault)
}

/// The configuration of an acceptor that proves possession of `key` and demands a proof from each dialer.
///
/// Resumption, tickets and 0-RTT are off, as in [`client_config`]; connection migration too, see [`QuicLimits`].
#[must_use]
pub fn server_config(key: &SigningKey, limits: &QuicLimits) -> quinn::ServerConfig {
    let verifier = Verifier {
        pin: ServerPin::Any,
        fault: Arc::default(),
    };
    let mut tls = tls13(rustls::ServerConfig::builder_with_provider(provider()))
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(identity(
            key,
        ))));
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    tls.max_early_data_size = 0;
    #[expect(clippy::expect_used, reason = "provider() always holds AES-128-GCM")]
    let tls = QuicServerConfig::try_from(tls).expect("the initial suite is there");
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    limits.apply(&mut config);
    config
}

/// One key exchange that every peer has, so that no handshake needs a second try, and AES-128 first: QUIC cannot do without
/// it, and it is the fastest of the three.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
            ring::cipher_suite::TLS13_AES_256_GCM_SHA384,
            ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![ring::kx_group::X25519],
        ..ring::default_provider()
    })
}

fn tls13<S: rustls::ConfigSide>(
    builder: rustls::ConfigBuilder<S, rustls::WantsVersions>,
) -> rustls::ConfigBuilder<S, rustls::WantsVerifier> {
    #[expect(clippy::expect_used, reason = "provider() has suites of TLS 1.3 only")]
    builder
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3 is supported")
}

fn identity(key: &SigningKey) -> Arc<CertifiedKey> {
    let spki = CertificateDer::from(key.public().to_spki_der());
    Arc::new(CertifiedKey::new(vec![spki], Arc::new(TlsKey(key.clone()))))
}

/// Our key signs the handshake itself: no second copy of the secret lies in a TLS library's memory.
#[derive(Clone, Debug)]
struct TlsKey(SigningKey);

impl rustls::sign::SigningKey for TlsKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered
            .contains(&SignatureScheme::ED25519)
            .then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for TlsKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.0.sign(message).to_bytes().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// Accepts exactly one sound raw public key, the pinned one where there is a pin, and our strict signature check only:
/// the TLS library's own check accepts keys and signatures that ours refuses.
#[derive(Debug)]
struct Verifier {
    pin: ServerPin,
    fault: Arc<OnceLock<PeerKeyFault>>,
}

impl Verifier {
    fn check(&self, key: &[u8], more: &[CertificateDer<'_>]) -> Result<(), Error> {
        judge(self.pin, key, more.len()).map_err(|fault| {
            let error = OtherError(Arc::new(fault.clone()));
            // The first fault stays: a configuration used twice would otherwise tell of the wrong connection.
            let _ = self.fault.set(fault);
            Error::InvalidCertificate(CertificateError::Other(error))
        })
    }
}

fn judge(pin: ServerPin, key: &[u8], more: usize) -> Result<(), PeerKeyFault> {
    if more > 0 {
        return Err(PeerKeyFault::More(more));
    }
    let presented = PublicKey::from_spki_der(key)?;
    match pin {
        ServerPin::Key(pinned) if pinned != presented => Err(PeerKeyFault::NotPinned {
            pinned: pinned.fingerprint(),
            presented: presented.fingerprint(),
        }),
        ServerPin::Any | ServerPin::Key(_) => Ok(()),
    }
}

fn verify(
    message: &[u8],
    key: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    if signed.scheme != SignatureScheme::ED25519 {
        return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
    }
    let bad = || Error::InvalidCertificate(CertificateError::BadSignature);
    let key = PublicKey::from_spki_der(key).map_err(|_| bad())?;
    let signature = Signature::try_from(signed.signature()).map_err(|_| bad())?;
    key.verify(message, &signature).map_err(|_| bad())?;
    Ok(HandshakeSignatureValid::assertion())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
