use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use countersign_crypto::{Fingerprint, KeyError};

/// Why a peer's key was not accepted in the handshake.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PeerKeyFault {
    /// The key is malformed, no point of the curve, or weak.
    #[error("the peer's key is refused: {0}")]
    Key(#[from] KeyError),
    /// Something follows the one key that a peer presents.
    #[error(
        "the peer presented {0} certificates besides its key; exactly one raw public key is expected"
    )]
    More(usize),
    /// A key other than the pinned one.
    #[error(
        "the peer holds the key `{presented}` where `{pinned}` is expected: ask the organization, over another way, whether \
         its node key changed; until then treat the address as somebody else's"
    )]
    NotPinned {
        /// The key that was expected.
        pinned: Fingerprint,
        /// The key that the peer presented.
        presented: Fingerprint,
    },
}

/// A connection is over. The text is safe to print: what the peer gave as reason stands in it without control characters.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the connection ended: {}; connect again and resume", printable(.0))]
pub struct ConnectionEnded(pub quinn::ConnectionError);

impl ConnectionEnded {
    /// The error code of the protocol that the peer closed with, where it did.
    #[must_use]
    pub fn peer_code(&self) -> Option<u32> {
        match &self.0 {
            quinn::ConnectionError::ApplicationClosed(close) => {
                u32::try_from(close.error_code.into_inner()).ok()
            }
            _ => None,
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The UDP socket could not be had.
    #[error(
        "the UDP address `{address}` cannot be used: {source}; choose another port, or end the program that holds it"
    )]
    Bind {
        /// The local address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The peer already has as many connections as one key may hold.
    #[error(
        "the key `{key}` already holds {limit} connections; close one of them, or raise `connections_per_peer`"
    )]
    TooManyConnections {
        /// The peer's key.
        key: Fingerprint,
        /// The limit.
        limit: usize,
    },
    /// The local endpoint is closed, or out of connection names.
    #[error("this side cannot dial `{address}`: {source}")]
    Dial {
        /// The address that was tried.
        address: SocketAddr,
        /// What the QUIC library said.
        source: quinn::ConnectError,
    },
    /// The handshake failed.
    #[error("no connection with `{address}`: {}; check that both sides run the same protocol version", printable(.source))]
    Handshake {
        /// The peer's address.
        address: SocketAddr,
        /// What the QUIC library said.
        source: quinn::ConnectionError,
    },
    /// The address names nothing reachable.
    #[error(
        "`{address}` has no address that can be dialed from here; write it as `HOST:PORT`, and check the name"
    )]
    NoAddress {
        /// The address as given.
        address: String,
    },
    /// The handshake ended without a key of the peer. The verifiers allow no such end.
    #[error("the peer at `{address}` showed no key; only peers with an Ed25519 key are accepted")]
    NoPeerKey {
        /// The peer's address.
        address: SocketAddr,
    },
    /// The peer's key was not accepted.
    #[error("no connection with `{address}`: {fault}")]
    PeerKey {
        /// The peer's address.
        address: SocketAddr,
        /// What is wrong with the key.
        fault: PeerKeyFault,
    },
    /// The peer takes no more connections now.
    #[error("`{address}` takes no more connections now; try again later")]
    Refused {
        /// The peer's address.
        address: SocketAddr,
    },
    /// The name could not be looked up.
    #[error(
        "`{address}` cannot be looked up: {source}; write it as `HOST:PORT`, and check the name"
    )]
    Resolve {
        /// The address as given.
        address: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The handshake did not end in time.
    #[error(
        "`{address}` did not complete the handshake within {limit:?}; check that a node listens there and that UDP reaches it"
    )]
    TimedOut {
        /// The peer's address.
        address: SocketAddr,
        /// The time it had.
        limit: Duration,
    },
}

/// Most characters taken over from a peer's text.
const PRINTABLE_MAX: usize = 300;

/// The text of an error that may quote the peer: no control characters, which could rewrite a terminal or forge lines of a log, and
/// not endless.
pub(crate) fn printable(error: &dyn Error) -> String {
    error
        .to_string()
        .chars()
        .take(PRINTABLE_MAX)
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}
