//! Why sessions fail, and what a peer said when it refused.

use std::sync::Arc;
use std::time::Duration;

use countersign_crypto::Fingerprint;
use countersign_event::documents::{KeyStatement, Refusal, RefusalCode, Role, StatementError};
use countersign_event::dsse::Envelope;
use countersign_protocol::Refused;

use crate::quic;

/// Most characters of a peer's text that are shown.
const SHOWN_CHARACTERS_MAX: usize = 500;

/// Most entries of a peer's list that are shown.
const SHOWN_ENTRIES_MAX: usize = 16;

/// Why there is no session, or why it ended. Sorted by who has to act: see [`SessionError::is_lasting`].
#[derive(Clone, Debug, thiserror::Error)]
pub enum SessionError {
    /// The greeting did not end in time.
    #[error(
        "the peer did not complete the greeting within {limit:?}; check that a node of this version listens there"
    )]
    Budget {
        /// The time it had.
        limit: Duration,
    },
    /// No connection.
    #[error(transparent)]
    Connect(#[from] Arc<quic::ConnectError>),
    /// The connection ended.
    #[error(transparent)]
    Ended(#[from] quic::ConnectionEnded),
    /// A frame could not be read or written.
    #[error(transparent)]
    Frame(#[from] quic::FrameError),
    /// The peer is not who was expected.
    #[error(transparent)]
    Identity(#[from] IdentityFault),
    /// A message does not have the form of its kind, or is out of place.
    #[error("the peer does not keep to the protocol: {0}")]
    Message(#[from] countersign_protocol::FrameError),
    /// No address was given.
    #[error("there is no address to dial; give at least one as `HOST:PORT`")]
    NoAddress,
    /// The peer said no.
    #[error(transparent)]
    Refused(#[from] Box<RefusedBy>),
    /// The stream ended where an answer was awaited.
    #[error("the peer ended the stream while {awaited} was awaited; connect again")]
    StreamEnded {
        /// What was awaited.
        awaited: &'static str,
    },
}

impl SessionError {
    /// Whether trying again by itself cannot help: a person has to look.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Identity(_) | Self::Message(_) | Self::NoAddress => true,
            Self::Connect(error) => matches!(**error, quic::ConnectError::PeerKey { .. }),
            Self::Refused(refused) => refused.retry_after.is_none(),
            Self::Frame(error) => matches!(
                error,
                quic::FrameError::Empty | quic::FrameError::TooLarge { .. }
            ),
            Self::Budget { .. } | Self::Ended(_) | Self::StreamEnded { .. } => false,
        }
    }

    /// After which time the peer asked to be tried again.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refused) => refused.retry_after,
            _ => None,
        }
    }
}

impl From<quic::ConnectError> for SessionError {
    fn from(error: quic::ConnectError) -> Self {
        Self::Connect(Arc::new(error))
    }
}

/// Why a peer is not the expected one.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum IdentityFault {
    /// The greeting passes a limit.
    #[error(
        "the greeting exceeds a limit: at most 100 characters of software name, 8 addresses of 255 characters"
    )]
    Limit,
    /// A node without a key statement.
    #[error("the peer showed no key statement, so that nothing says whose node it is")]
    NoStatement,
    /// Another organization.
    #[error(
        "the node speaks for the organization {presented}, {expected} was expected: ask the organization, over another way, \
         whether its address changed"
    )]
    OtherOrganization {
        /// The expected fingerprint.
        expected: Fingerprint,
        /// The fingerprint shown and proven.
        presented: Fingerprint,
    },
    /// The key statement is not in order, or does not delegate the key that TLS proved.
    #[error(transparent)]
    Statement(#[from] StatementError),
}

/// A peer's no. Its texts are safe to print.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("refused ({code}): {reason}{}", .advice.iter().map(|advice| format!("; {advice}")).collect::<String>())]
pub struct RefusedBy {
    /// The stable code.
    pub code: String,
    /// Why, for people.
    pub reason: String,
    /// What would help, for people.
    pub advice: Vec<String>,
    /// The policies that decided.
    pub policies: Vec<String>,
    /// The first sequence that is not delivered any more, where a running subscription ended.
    pub position: Option<u64>,
    /// When it is worth trying again; absent where that is not by itself.
    pub retry_after: Option<Duration>,
    /// The signed document, where there is one and its signature verified.
    pub document: Option<Box<Envelope>>,
}

impl RefusedBy {
    /// Reads a refusal. One that carries a document is what the document says, once an agreement key of `signer` verified it.
    ///
    /// # Errors
    /// [`SessionError::Identity`] where the document is not signed by the peer's organization.
    pub fn read(refused: &Refused, signer: Option<&KeyStatement>) -> Result<Self, SessionError> {
        let retry_after =
            (refused.retry_after_ms > 0).then(|| Duration::from_millis(refused.retry_after_ms));
        let signer = signer.filter(|_| !refused.refusal.is_empty());
        let Some(signer) = signer else {
            return Ok(Self {
                code: shown(&refused.code),
                reason: shown(&refused.reason),
                advice: Vec::new(),
                policies: Vec::new(),
                position: None,
                retry_after,
                document: None,
            });
        };
        let envelope = Envelope::from_json(&refused.refusal)
            .map_err(|error| IdentityFault::Statement(StatementError::Document(error.into())))?;
        let signed = Self::open(envelope, signer)?;
        Ok(Self {
            retry_after: retry_after.or(signed.retry_after),
            ..signed
        })
    }

    /// Reads a signed refusal.
    ///
    /// # Errors
    /// [`SessionError::Identity`] where it is not signed by an agreement key of `signer`.
    pub fn open(envelope: Envelope, signer: &KeyStatement) -> Result<Self, SessionError> {
        let refusal: Refusal = signer
            .open_signed(Role::Agreement, &envelope)
            .map_err(IdentityFault::Statement)?;
        let list = |texts: &[String]| {
            texts
                .iter()
                .take(SHOWN_ENTRIES_MAX)
                .map(|text| shown(text))
                .collect()
        };
        Ok(Self {
            code: code_text(refusal.code),
            reason: shown(&refusal.reason),
            advice: list(&refusal.advice),
            policies: list(&refusal.policies),
            position: refusal.position,
            retry_after: (refusal.code == RefusalCode::Busy).then_some(Duration::from_secs(1)),
            document: Some(Box::new(envelope)),
        })
    }

    /// The code, where this version knows it.
    #[must_use]
    pub fn known_code(&self) -> Option<RefusalCode> {
        serde_json::from_value(serde_json::Value::String(self.code.clone())).ok()
    }
}

/// The stable word of a refusal code.
fn code_text(code: RefusalCode) -> String {
    match serde_json::to_value(code) {
        Ok(serde_json::Value::String(text)) => text,
        _ => String::new(),
    }
}

/// A peer's text without control characters, which could rewrite a terminal or forge lines of a log, and not endless.
pub(crate) fn shown(text: &str) -> String {
    text.chars()
        .take(SHOWN_CHARACTERS_MAX)
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}
