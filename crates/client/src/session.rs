//! A connection with one node whose identity was checked: the ground of publishing, subscribing and joining.

pub mod handshake;

use std::sync::Arc;
use std::time::Duration;

use countersign_crypto::{Entropy, Fingerprint, PublicKey, SigningKey};
use countersign_event::documents::{KeyStatement, Role, StatementError};
use countersign_event::dsse::Envelope;
use countersign_event::time::Timestamp;
use countersign_protocol::{
    BULK_FRAME_BYTES_MAX, CONTROL_FRAME_BYTES_MAX, Hello, Message, PROTOCOL_MINOR, PublishBatch,
    Refused, delivery::BatchMessage,
};

use crate::error::{IdentityFault, RefusedBy, SessionError};
use crate::quic::{
    Connection, Endpoint, FrameReader, FrameWriter, QuicLimits, RawFrame, ServerPin,
};

/// The wall clock, handed in: key periods are judged by it, and receipts dated.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Connection error code: this side is done.
pub const CLOSE_DONE: u32 = 0;

/// Connection error code: the peer sent what cannot be accepted.
pub const CLOSE_FAULT: u32 = 4;

/// Whom a dialer expects. There is no way to expect nobody in particular.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Expected {
    organization: Option<Fingerprint>,
    node: Option<PublicKey>,
}

impl Expected {
    /// The holder of this node key, refused in TLS otherwise.
    #[must_use]
    pub fn node(key: PublicKey) -> Self {
        Self {
            organization: None,
            node: Some(key),
        }
    }

    /// A node of the organization with this fingerprint, or that of an organization key which took that one's place.
    #[must_use]
    pub fn organization(fingerprint: Fingerprint) -> Self {
        Self {
            organization: Some(fingerprint),
            node: None,
        }
    }

    /// As before, and the holder of this node key only.
    #[must_use]
    pub fn with_node(self, key: PublicKey) -> Self {
        Self {
            node: Some(key),
            ..self
        }
    }

    fn pin(&self) -> ServerPin {
        self.node.map_or(ServerPin::Any, ServerPin::Key)
    }

    /// Checks what a node says of itself against the key that TLS proved and against this expectation.
    ///
    /// # Errors
    /// [`IdentityFault`].
    pub fn check(
        &self,
        hello: &Hello,
        tls_key: &PublicKey,
        now: Timestamp,
    ) -> Result<NodeIdentity, IdentityFault> {
        if hello.key_statement.is_empty() {
            return Err(IdentityFault::NoStatement);
        }
        let envelope = Envelope::from_json(&hello.key_statement)
            .map_err(|error| StatementError::Document(error.into()))?;
        let statement = KeyStatement::verify(&envelope)?;
        let presented = statement.organization.fingerprint();
        // The key that is expected, or one that this gave its place to.
        let mut line = statement.organization_keys().into_iter();
        if let Some(expected) = &self.organization
            && !line.any(|key| key.fingerprint() == *expected)
        {
            return Err(IdentityFault::OtherOrganization {
                expected: expected.clone(),
                presented,
            });
        }
        statement.check_delegated(Role::Node, tls_key, now)?;
        Ok(NodeIdentity {
            statement,
            envelope,
            node: *tls_key,
            minor: hello.minor,
            software: crate::error::shown(&hello.software),
            addresses: hello.addresses.clone(),
        })
    }
}

/// Whose node is at the other end: proven by TLS and a verified key statement.
#[derive(Clone, Debug)]
pub struct NodeIdentity {
    /// The organization's key statement.
    pub statement: KeyStatement,
    /// Its envelope.
    pub envelope: Envelope,
    /// The key that TLS proved and the statement delegates.
    pub node: PublicKey,
    /// What the node knows beyond the first form of the protocol.
    pub minor: u16,
    /// Program and version, as it says.
    pub software: String,
    /// Where it says it can be dialled.
    pub addresses: Vec<String>,
}

/// How to reach a node and how to name oneself there.
#[derive(Clone)]
pub struct SessionOptions {
    /// Where the node listens (`HOST:PORT`), tried in order.
    pub addresses: Vec<String>,
    /// Whom to expect there.
    pub expected: Expected,
    /// The key that this side proves in TLS: an enrolled application's, or an organization's node key.
    pub key: SigningKey,
    /// This side's key statement; absent for an enrolled application.
    pub statement: Option<Envelope>,
    /// Where this side can be dialled; empty where it cannot.
    pub advertise: Vec<String>,
    /// Limits of the connection.
    pub limits: QuicLimits,
    /// The wall clock.
    pub clock: Clock,
}

impl SessionOptions {
    /// Options with default limits and no statement.
    #[must_use]
    pub fn new(addresses: Vec<String>, expected: Expected, key: SigningKey, clock: Clock) -> Self {
        Self {
            addresses,
            expected,
            key,
            statement: None,
            advertise: Vec::new(),
            limits: QuicLimits::default(),
            clock,
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            minor: PROTOCOL_MINOR,
            key_statement: self
                .statement
                .as_ref()
                .map(Envelope::to_json)
                .unwrap_or_default(),
            software: concat!("countersign-client ", env!("CARGO_PKG_VERSION")).to_owned(),
            addresses: self.advertise.clone(),
        }
    }
}

impl std::fmt::Debug for SessionOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionOptions")
            .field("addresses", &self.addresses)
            .field("expected", &self.expected)
            .finish_non_exhaustive()
    }
}

/// A greeted connection.
#[derive(Clone, Debug)]
pub struct Session {
    connection: Connection,
    peer: Arc<NodeIdentity>,
}

impl Session {
    /// Dials over a socket of its own and greets.
    ///
    /// # Errors
    /// [`SessionError`]. Of several addresses the most telling error: one about identity, otherwise the last.
    pub async fn connect(options: &SessionOptions) -> Result<Self, SessionError> {
        let endpoint = Endpoint::dialer(options.key.clone(), options.limits.clone())?;
        Self::connect_over(&endpoint, options).await
    }

    /// Dials over `endpoint`, whose key is that of the options, and greets.
    ///
    /// # Errors
    /// As [`Session::connect`].
    pub async fn connect_over(
        endpoint: &Endpoint,
        options: &SessionOptions,
    ) -> Result<Self, SessionError> {
        let hello = options.hello();
        let mut failure = SessionError::NoAddress;
        for address in &options.addresses {
            match Self::dial(endpoint, address, &hello, options).await {
                Ok(session) => return Ok(session),
                Err(error)
                    if failure.is_lasting() && !matches!(failure, SessionError::NoAddress) =>
                {
                    tracing::debug!(%error, "another address failed too");
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn dial(
        endpoint: &Endpoint,
        address: &str,
        hello: &Hello,
        options: &SessionOptions,
    ) -> Result<Self, SessionError> {
        let connection = endpoint.connect(address, options.expected.pin()).await?;
        let now = (options.clock)();
        let judge =
            |theirs: &Hello, key: &PublicKey| Ok(options.expected.check(theirs, key, now)?);
        let peer = handshake::dial(&connection, hello, judge).await?;
        Ok(Self {
            connection,
            peer: Arc::new(peer),
        })
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &NodeIdentity {
        &self.peer
    }

    /// The connection.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Opens a stream with a request.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn request<M: Message>(&self, message: &M) -> Result<RequestStream, SessionError> {
        let (writer, reader) = self.connection.open_bi().await?;
        let mut stream = RequestStream {
            writer,
            reader: AnswerReader {
                reader,
                peer: Arc::clone(&self.peer),
            },
        };
        stream.send(message).await?;
        Ok(stream)
    }

    /// Closes the connection and waits until that has left this machine ([`Connection::end`]); unsent frames are lost.
    pub async fn close(&self) {
        self.connection.end(CLOSE_DONE, "done").await;
    }
}

/// One request's stream.
#[derive(Debug)]
pub struct RequestStream {
    /// Frames to the peer.
    pub writer: FrameWriter,
    /// Frames from the peer.
    pub reader: AnswerReader,
}

impl RequestStream {
    /// Sends a message without bulk. Not cancel-safe: a call that is dropped ends the stream.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn send<M: Message>(&mut self, message: &M) -> Result<(), SessionError> {
        Ok(self.writer.write(M::KIND, &message.to_body()).await?)
    }

    /// The next message, which has to be of this kind.
    ///
    /// # Errors
    /// [`SessionError::Refused`] where the peer says no; else what broke.
    pub async fn answer<M: Message>(&mut self, awaited: &'static str) -> Result<M, SessionError> {
        let frame = self
            .reader
            .next()
            .await?
            .ok_or(SessionError::StreamEnded { awaited })?;
        Ok(M::read(frame.kind, &frame.body)?)
    }
}

/// Frames from the peer; a refusal among them is an error.
#[derive(Debug)]
pub struct AnswerReader {
    reader: FrameReader,
    peer: Arc<NodeIdentity>,
}

impl AnswerReader {
    /// The next frame, or `None` where the stream ended. Cancel-safe.
    ///
    /// # Errors
    /// [`SessionError::Refused`], [`SessionError::Frame`].
    pub async fn next(&mut self) -> Result<Option<RawFrame>, SessionError> {
        let frame = self
            .reader
            .next(CONTROL_FRAME_BYTES_MAX, BULK_FRAME_BYTES_MAX, is_bulk)
            .await?;
        match frame {
            Some(frame) if frame.kind == Refused::KIND => {
                let refused = Refused::read(frame.kind, &frame.body)?;
                Err(Box::new(RefusedBy::read(&refused, Some(&self.peer.statement))?).into())
            }
            frame => Ok(frame),
        }
    }
}

/// Whether frames of this kind carry bulk.
#[must_use]
pub fn is_bulk(kind: u8) -> bool {
    kind == PublishBatch::KIND || kind == BatchMessage::KIND
}

/// How long to wait before connecting again: doubling, and spread at random so that a node that comes back is not met by all at
/// once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Backoff {
    /// The first wait. Default 100 ms.
    pub first: Duration,
    /// The longest wait. Default 10 s.
    pub longest: Duration,
    /// How many attempts in a row may fail; `None` = go on for ever. Default `None`.
    pub attempts_max: Option<u32>,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            longest: Duration::from_secs(10),
            attempts_max: None,
        }
    }
}

impl Backoff {
    /// The wait before attempt `attempt` (from 0): between half and the whole of what doubling gives. `None` where there
    /// were enough.
    pub fn wait(&self, attempt: u32, entropy: &mut dyn Entropy) -> Option<Duration> {
        if self.attempts_max.is_some_and(|max| attempt >= max) {
            return None;
        }
        let doubled = self
            .first
            .saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX));
        let whole = doubled.min(self.longest);
        let mut random = [0; 4];
        entropy.fill(&mut random);
        let part = f64::from(u32::from_be_bytes(random)) / f64::from(u32::MAX);
        Some(whole.mul_f64(0.5 + part / 2.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use countersign_crypto::SeededEntropy;

    #[test]
    fn waits_double_up_to_the_longest_and_are_spread() {
        let backoff = Backoff {
            attempts_max: Some(40),
            ..Backoff::default()
        };
        let mut entropy = SeededEntropy::new(1);
        for attempt in 0..40 {
            let whole = Duration::from_millis(100 << attempt.min(20)).min(backoff.longest);
            let wait = backoff.wait(attempt, &mut entropy).unwrap();
            assert!(wait >= whole / 2 && wait <= whole, "{attempt}: {wait:?}");
        }
        assert_ne!(backoff.wait(9, &mut entropy), backoff.wait(9, &mut entropy));
        assert_eq!(backoff.wait(40, &mut entropy), None);
    }
}
