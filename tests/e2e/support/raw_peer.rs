//! A peer that keeps to the rules only as far as it likes: QUIC with the real keys, and bytes instead of frames.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use countersign_client::quic::{QuicLimits, SERVER_NAME, ServerPin, client_config};
use countersign_client::session::handshake::{Knock, Welcome};
use countersign_crypto::SigningKey;
use countersign_protocol::{Hello, Message};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, SignatureScheme};

/// How long the other side may take to answer, or to give up.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection that has not greeted.
#[derive(Debug)]
pub(crate) struct RawPeer {
    /// Ends the socket with the peer.
    _endpoint: Endpoint,
    pub(crate) connection: Connection,
}

impl RawPeer {
    /// Connects, and says nothing.
    pub(crate) async fn connect(address: SocketAddr, key: &SigningKey) -> Self {
        let config = client_config(key, ServerPin::Any, &QuicLimits::default());
        let peer = Self::connect_with(address, config).await;
        peer.expect("a sound handshake succeeds")
    }

    /// Connects as somebody who speaks another protocol, another version of it, or does not say which.
    pub(crate) async fn connect_speaking(
        address: SocketAddr,
        key: &SigningKey,
        protocol: Option<&[u8]>,
    ) -> Result<Self, ConnectionError> {
        Self::connect_with(address, speaking(key, protocol)).await
    }

    async fn connect_with(
        address: SocketAddr,
        config: quinn::ClientConfig,
    ) -> Result<Self, ConnectionError> {
        let endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .expect("a socket can be had");
        let connecting = endpoint
            .connect_with(config, address, SERVER_NAME)
            .expect("the address can be dialled");
        let connection = connecting.await?;
        Ok(Self {
            _endpoint: endpoint,
            connection,
        })
    }

    /// Greets as the holder of `key_statement` (nothing: as an application).
    pub(crate) async fn greet(&self, key_statement: Vec<u8>) -> Option<()> {
        let (mut writer, mut reader) = self.connection.open_bi().await.ok()?;
        send(&mut writer, Knock::KIND, &[]).await?;
        receive(&mut reader).await?;
        let hello = Hello {
            minor: 0,
            key_statement,
            software: "hostile".to_owned(),
            addresses: Vec::new(),
        };
        send(&mut writer, Hello::KIND, &hello.to_body()).await?;
        let (kind, _) = receive(&mut reader).await?;
        (kind == Welcome::KIND).then_some(())
    }

    /// Sends bytes on a stream of its own, ends it, and gives the answer's first frame where there is one.
    pub(crate) async fn throw(&self, bytes: &[u8]) -> Option<(u8, Vec<u8>)> {
        let (mut writer, mut reader) = self.connection.open_bi().await.ok()?;
        // The other side may stop reading in the middle, which is its right.
        let _ = writer.write_all(bytes).await;
        let _ = writer.finish();
        receive(&mut reader).await
    }

    /// Sends a first frame on a stream of its own and gives all frames that come back, until the stream or the connection ends or `until` is true of one.
    /// What a connection was ended with is at the end.
    pub(crate) async fn draw(&self, bytes: &[u8], until: impl Fn(u8, &[u8]) -> bool) -> Vec<u8> {
        let mut drawn = Vec::new();
        let Ok((mut writer, mut reader)) = self.connection.open_bi().await else {
            return format!("{:?}", self.connection.close_reason()).into_bytes();
        };
        let _ = writer.write_all(bytes).await;
        while let Some((kind, body)) = receive(&mut reader).await {
            drawn.extend(&body);
            if until(kind, &body) {
                break;
            }
        }
        drawn.extend(format!("{:?}", self.connection.close_reason()).into_bytes());
        drawn
    }

    /// Waits until the other side ends the connection.
    pub(crate) async fn dropped(&self) -> bool {
        tokio::time::timeout(PATIENCE, self.connection.closed())
            .await
            .is_ok()
    }
}

/// A frame as it should be, up to the length that it claims.
pub(crate) fn frame(kind: u8, claimed_body: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = claimed_body.wrapping_add(1).to_be_bytes().to_vec();
    bytes.push(kind);
    bytes.extend_from_slice(body);
    bytes
}

async fn send(writer: &mut SendStream, kind: u8, body: &[u8]) -> Option<()> {
    let length = u32::try_from(body.len()).expect("a small body");
    writer.write_all(&frame(kind, length, body)).await.ok()
}

async fn receive(reader: &mut RecvStream) -> Option<(u8, Vec<u8>)> {
    let read = async {
        let mut length = [0; 4];
        reader.read_exact(&mut length).await.ok()?;
        let mut frame = vec![0; usize::try_from(u32::from_be_bytes(length)).ok()?];
        reader.read_exact(&mut frame).await.ok()?;
        let body = frame.split_off(1);
        Some((frame[0], body))
    };
    tokio::time::timeout(PATIENCE, read)
        .await
        .expect("the node answers or ends the stream")
}

fn speaking(key: &SigningKey, protocol: Option<&[u8]>) -> quinn::ClientConfig {
    let der = key.to_pkcs8_der().expect("the key can be written");
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der.to_vec()));
    let signer = ring::sign::any_eddsa_type(match &der {
        PrivateKeyDer::Pkcs8(der) => der,
        _ => unreachable!("made two lines above"),
    });
    let spki = CertificateDer::from(key.public().to_spki_der());
    let identity = CertifiedKey::new(vec![spki], signer.expect("the key is sound"));
    let provider = Arc::new(ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the version is there")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::new(
            identity,
        ))));
    tls.alpn_protocols.extend(protocol.map(<[u8]>::to_vec));
    let tls = QuicClientConfig::try_from(tls).expect("the initial suite is there");
    quinn::ClientConfig::new(Arc::new(tls))
}

/// The server's identity does not matter to one who attacks it.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
