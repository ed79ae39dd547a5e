use std::io;

use bytes::{Bytes, BytesMut};
use countersign_protocol::{FrameError, HEADER_BYTES, frame_bytes_max};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufWriter};

use super::{Command, Reply};
use crate::errors::{CommandError, ErrorCode};

/// Version of commands and replies. Node and program of different versions refuse each other rather than guess.
pub const ADMIN_VERSION: u16 = 1;

/// Kind of a frame that holds a request. Kinds from 0xC0 on are local and never travel between nodes.
pub const KIND_COMMAND: u8 = 0xC0;

/// Kind of a frame that holds a reply.
pub const KIND_REPLY: u8 = 0xC1;

/// Largest request: a list of policy files is the longest part of any.
pub const COMMAND_BYTES_MAX: usize = 1 << 20;

/// Largest reply: an event of the largest size (16 MiB) in base64, its attributes and room to spare.
pub const REPLY_BYTES_MAX: usize = 32 << 20;

/// Bytes of the read and write buffers of a connection, each.
const BUFFER_BYTES: usize = 64 << 10;

/// Bytes on their way each way between a command and a handler in the same process.
const DUPLEX_BYTES: usize = 256 << 10;

/// Why a conversation on the channel ended badly.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The other side closed it where something was to come.
    #[error("the connection to the node was closed before the answer was complete")]
    Closed,
    /// A frame is too large.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The system refused.
    #[error("the connection to the node failed: {0}")]
    Io(#[from] io::Error),
    /// A frame is no command or no reply.
    #[error("a frame of kind {kind} on the command channel is malformed at column {column}")]
    Malformed {
        /// Its kind.
        kind: u8,
        /// Where the JSON reader stopped.
        column: usize,
    },
    /// The process at the other end belongs to another user.
    #[error(
        "the process at the other end of the command channel belongs to user {found}, not to user {own}"
    )]
    Peer {
        /// Its user.
        found: u32,
        /// The effective user of this process.
        own: u32,
    },
    /// A frame of another kind than this place allows.
    #[error("a frame of kind {found} came where kind {expected} was expected")]
    UnexpectedKind {
        /// The wanted kind.
        expected: u8,
        /// The kind found.
        found: u8,
    },
}

/// Reads frames. The length is checked before anything is allocated, and memory grows only with what arrives.
pub struct FrameReader {
    from: Box<dyn AsyncRead + Send + Unpin>,
    /// What has arrived and was not taken yet. It stays here when a waiting future is dropped, so that no byte of a frame is lost.
    arrived: BytesMut,
}

/// Writes frames; each is on its way when `write` returns.
pub struct FrameWriter(BufWriter<Box<dyn AsyncWrite + Send + Unpin>>);

/// Both directions of a connection.
#[derive(Debug)]
pub struct AdminFrames {
    /// What comes.
    pub incoming: FrameReader,
    /// What goes.
    pub outgoing: FrameWriter,
}

impl AdminFrames {
    /// Wraps the two halves of a connection.
    pub fn new(
        read: impl AsyncRead + Send + Unpin + 'static,
        write: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        Self {
            incoming: FrameReader {
                from: Box::new(read),
                arrived: BytesMut::new(),
            },
            outgoing: FrameWriter(BufWriter::with_capacity(BUFFER_BYTES, Box::new(write))),
        }
    }

    /// Both ends of a connection within this process.
    #[must_use]
    pub fn pair() -> (Self, Self) {
        let (near, far) = tokio::io::duplex(DUPLEX_BYTES);
        let wrap = |end| {
            let (read, write) = tokio::io::split(end);
            Self::new(read, write)
        };
        (wrap(near), wrap(far))
    }

    /// The next frame; `None` where the other side has closed.
    ///
    /// # Errors
    /// [`AdminError::Frame`], [`AdminError::Closed`] within a frame, [`AdminError::Io`].
    pub async fn next(&mut self) -> Result<Option<(u8, Bytes)>, AdminError> {
        self.incoming.next().await
    }

    /// Writes one frame.
    ///
    /// # Errors
    /// [`AdminError::Frame`], [`AdminError::Io`].
    pub async fn write(&mut self, kind: u8, body: &[u8]) -> Result<(), AdminError> {
        self.outgoing.write(kind, body).await
    }
}

impl FrameReader {
    /// The next frame; `None` where the other side has closed. Cancel-safe: dropping the future loses nothing of what has arrived.
    ///
    /// # Errors
    /// [`AdminError::Frame`], [`AdminError::Closed`] within a frame, [`AdminError::Io`].
    pub async fn next(&mut self) -> Result<Option<(u8, Bytes)>, AdminError> {
        loop {
            if let Some(frame) = self.take_frame()? {
                return Ok(Some(frame));
            }
            if self.read().await? == 0 {
                return if self.arrived.is_empty() {
                    Ok(None)
                } else {
                    Err(AdminError::Closed)
                };
            }
        }
    }

    /// The frame that has arrived as a whole, without a copy.
    fn take_frame(&mut self) -> Result<Option<(u8, Bytes)>, AdminError> {
        let Some(&[a, b, c, d, kind]) = self.arrived.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let limit = bytes_max(kind);
        // The length counts the kind, which is here already.
        let Some(bytes) = length.checked_sub(1).filter(|&bytes| bytes <= limit) else {
            return Err(FrameError::TooLarge {
                kind,
                bytes: length,
                limit,
            }
            .into());
        };
        if self.arrived.len() - HEADER_BYTES < bytes {
            return Ok(None);
        }
        let mut frame = self.arrived.split_to(HEADER_BYTES + bytes);
        let body = frame.split_off(HEADER_BYTES);
        Ok(Some((kind, body.freeze())))
    }

    /// Adds what comes next to what has arrived; 0 at the end. Cancel-safe.
    async fn read(&mut self) -> Result<usize, AdminError> {
        self.arrived.reserve(BUFFER_BYTES);
        Ok(self.from.read_buf(&mut self.arrived).await?)
    }

    /// Waits until the other side has closed, or has sent what nobody has asked for yet, which is left where it is; true = closed. Losing
    /// the future loses nothing.
    pub(super) async fn is_closed(&mut self) -> bool {
        self.arrived.is_empty() && !matches!(self.read().await, Ok(1..))
    }

    /// The next reply.
    pub(super) async fn reply(&mut self) -> Result<Reply, AdminError> {
        let (kind, body) = self.next().await?.ok_or(AdminError::Closed)?;
        read_json(KIND_REPLY, kind, &body)
    }

    /// The next request; `None` where the other side has closed.
    pub(super) async fn command(&mut self) -> Result<Option<Command>, CommandError> {
        let Some((kind, body)) = self.next().await? else {
            return Ok(None);
        };
        let request: Request<&RawValue> = read_json(KIND_COMMAND, kind, &body)?;
        // The version before the command, whose form it decides.
        if request.version != ADMIN_VERSION {
            let message = format!(
                "this program speaks version {ADMIN_VERSION} of the command channel, the other side version {}",
                request.version
            );
            let advice = "use the program that the node was started with, or restart the node";
            return Err(CommandError::new(ErrorCode::AdminVersion, message).advise(advice));
        }
        let command = serde_json::from_str(request.command.get()).map_err(|error| {
            let column = error.column();
            AdminError::Malformed { kind, column }
        })?;
        Ok(Some(command))
    }
}

impl FrameWriter {
    /// Writes one frame.
    ///
    /// # Errors
    /// [`AdminError::Frame`], [`AdminError::Io`].
    pub async fn write(&mut self, kind: u8, body: &[u8]) -> Result<(), AdminError> {
        let limit = bytes_max(kind);
        let too_large = FrameError::TooLarge {
            kind,
            bytes: body.len(),
            limit,
        };
        if body.len() > limit {
            return Err(too_large.into());
        }
        let length = u32::try_from(body.len() + 1).map_err(|_| too_large)?;
        let [a, b, c, d] = length.to_be_bytes();
        self.0.write_all(&[a, b, c, d, kind]).await?;
        self.0.write_all(body).await?;
        self.0.flush().await?;
        Ok(())
    }

    /// Says that nothing more comes.
    ///
    /// # Errors
    /// [`AdminError::Io`].
    pub async fn close(&mut self) -> Result<(), AdminError> {
        Ok(self.0.shutdown().await?)
    }

    pub(super) async fn reply(&mut self, reply: &Reply) -> Result<(), AdminError> {
        self.write(KIND_REPLY, &to_json(reply)?).await
    }

    pub(super) async fn command(&mut self, command: &Command) -> Result<(), AdminError> {
        let request = Request {
            version: ADMIN_VERSION,
            command,
        };
        self.write(KIND_COMMAND, &to_json(&request)?).await
    }
}

impl std::fmt::Debug for FrameReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FrameReader")
    }
}

impl std::fmt::Debug for FrameWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FrameWriter")
    }
}

#[derive(serde::Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Request<C> {
    version: u16,
    command: C,
}

fn bytes_max(kind: u8) -> usize {
    match kind {
        KIND_COMMAND => COMMAND_BYTES_MAX,
        KIND_REPLY => REPLY_BYTES_MAX,
        _ => frame_bytes_max(kind),
    }
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>, AdminError> {
    serde_json::to_vec(value).map_err(|error| AdminError::Io(error.into()))
}

fn read_json<'a, T: serde::Deserialize<'a>>(
    expected: u8,
    found: u8,
    body: &'a [u8],
) -> Result<T, AdminError> {
    if found != expected {
        return Err(AdminError::UnexpectedKind { expected, found });
    }
    serde_json::from_slice(body).map_err(|error| AdminError::Malformed {
        kind: found,
        column: error.column(),
    })
}
