//! The greeting on the dialer's first stream, for both sides.
//!
//! ```text
//! dialer                              acceptor
//!   │ ── 0 Knock (empty) ───────────────► │   the stream becomes visible; it says nothing of who dials
//!   │ ◄─────────────────── 1 Hello ────── │   checked before the dialer names itself
//!   │ ── 1 Hello ───────────────────────► │   judged
//!   │ ◄──────── 3 Welcome or 2 Refused ── │
//! ```
//!
//! All of it within [`HANDSHAKE_TIME`] and [`HELLO_BYTES_MAX`] bytes a frame.

use std::time::Duration;

use countersign_crypto::PublicKey;
use countersign_protocol::{Hello, Message, Refused};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::error::{IdentityFault, RefusedBy, SessionError};
use crate::quic::{Connection, FrameReader, FrameWriter, RawFrame};

/// Longest time of the whole greeting.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// Largest frame of the greeting: a key statement of 64 keys in its envelope is below 20 KiB, 8 addresses 2 KiB. Half of what a
/// stranger may have unread.
pub const HELLO_BYTES_MAX: usize = 64 * 1024;

/// Connection error code: the peer is not who was expected, or its greeting is wrong.
pub const CLOSE_GREETING: u32 = 3;

/// Makes the first stream visible to the acceptor, and says nothing.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Knock {}

impl Message for Knock {
    const KIND: u8 = 0;
}

/// The acceptor knows the dialer; requests may follow, each on a stream of its own.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Welcome {}

impl Message for Welcome {
    const KIND: u8 = 3;
}

/// Greets as the dialer. `judge` gets the acceptor's words and the key that TLS proved; only after its yes does this side
/// name itself. On an error the connection is closed.
///
/// # Errors
/// What `judge` says; [`SessionError::Refused`] where the acceptor says no; [`SessionError::Budget`], or what broke.
pub async fn dial<T>(
    connection: &Connection,
    ours: &Hello,
    judge: impl FnOnce(&Hello, &PublicKey) -> Result<T, SessionError>,
) -> Result<T, SessionError> {
    let greeting = timeout(HANDSHAKE_TIME, dial_unbounded(connection, ours, judge));
    let result = greeting.await.unwrap_or(Err(SessionError::Budget {
        limit: HANDSHAKE_TIME,
    }));
    if result.is_err() {
        connection.close(CLOSE_GREETING, "the greeting failed");
    }
    result
}

/// Greets as the acceptor. `judge` gets the dialer's words and the key that TLS proved, and answers with whom it sees or with
/// the refusal to send. A dialer that is welcome is admitted ([`Connection::admit`]); on an error the connection is closed.
///
/// # Errors
/// [`AcceptError`].
pub async fn accept<T>(
    connection: &Connection,
    ours: &Hello,
    judge: impl FnOnce(&Hello, &PublicKey) -> Result<T, Refused>,
) -> Result<T, AcceptError> {
    let greeting = timeout(HANDSHAKE_TIME, accept_unbounded(connection, ours, judge));
    let result = greeting.await.unwrap_or_else(|_| {
        Err(AcceptError::Session(SessionError::Budget {
            limit: HANDSHAKE_TIME,
        }))
    });
    if result.is_err() {
        connection.close(CLOSE_GREETING, "the greeting failed");
    }
    result
}

/// Why an acceptor let a dialer go.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AcceptError {
    /// It was refused, and told so.
    #[error("the dialer was refused ({}): {}", crate::error::shown(&.0.code), crate::error::shown(&.0.reason))]
    Refused(Box<Refused>),
    /// It did not keep to the protocol, or went away.
    #[error(transparent)]
    Session(#[from] SessionError),
}

async fn dial_unbounded<T>(
    connection: &Connection,
    ours: &Hello,
    judge: impl FnOnce(&Hello, &PublicKey) -> Result<T, SessionError>,
) -> Result<T, SessionError> {
    let (mut writer, mut reader) = connection.open_bi().await?;
    writer.write(Knock::KIND, &[]).await?;
    let frame = next(&mut reader, "the greeting").await?;
    refused(&frame)?;
    let theirs = read_hello(&frame)?;
    let peer = judge(&theirs, &connection.peer_key())?;
    writer.write(Hello::KIND, &ours.to_body()).await?;
    writer.finish()?;
    let frame = next(&mut reader, "the answer to the greeting").await?;
    refused(&frame)?;
    Welcome::read(frame.kind, &frame.body)?;
    Ok(peer)
}

async fn accept_unbounded<T>(
    connection: &Connection,
    ours: &Hello,
    judge: impl FnOnce(&Hello, &PublicKey) -> Result<T, Refused>,
) -> Result<T, AcceptError> {
    let (mut writer, mut reader) = connection.accept_bi().await.map_err(SessionError::from)?;
    let frame = next(&mut reader, "the first frame").await?;
    Knock::read(frame.kind, &frame.body).map_err(SessionError::from)?;
    send(&mut writer, Hello::KIND, &ours.to_body()).await?;
    let frame = next(&mut reader, "the greeting").await?;
    let theirs = read_hello(&frame)?;
    match judge(&theirs, &connection.peer_key()) {
        Ok(peer) => {
            connection.admit();
            send(&mut writer, Welcome::KIND, &[]).await?;
            writer.finish().map_err(SessionError::from)?;
            Ok(peer)
        }
        Err(no) => {
            send(&mut writer, Refused::KIND, &no.to_body()).await?;
            writer.finish().map_err(SessionError::from)?;
            // Closing at once would lose the answer. A dialer that has gone has no need of it.
            let _ = writer.stopped().await;
            Err(AcceptError::Refused(Box::new(no)))
        }
    }
}

async fn send(writer: &mut FrameWriter, kind: u8, body: &[u8]) -> Result<(), SessionError> {
    Ok(writer.write(kind, body).await?)
}

async fn next(reader: &mut FrameReader, awaited: &'static str) -> Result<RawFrame, SessionError> {
    let frame = reader
        .next(HELLO_BYTES_MAX, HELLO_BYTES_MAX, |_| false)
        .await?;
    frame.ok_or(SessionError::StreamEnded { awaited })
}

/// Before the greeting is through nobody's signature can be judged: a refusal is taken as unsigned.
fn refused(frame: &RawFrame) -> Result<(), SessionError> {
    if frame.kind != Refused::KIND {
        return Ok(());
    }
    let refused = Refused::read(frame.kind, &frame.body)?;
    Err(Box::new(RefusedBy::read(&refused, None)?).into())
}

fn read_hello(frame: &RawFrame) -> Result<Hello, SessionError> {
    let hello = Hello::read(frame.kind, &frame.body)?;
    let addresses = &hello.addresses;
    let within = hello.software.chars().count() <= 100
        && addresses.len() <= 8
        && addresses.iter().all(|address| address.len() <= 255);
    if within {
        Ok(hello)
    } else {
        Err(IdentityFault::Limit.into())
    }
}
