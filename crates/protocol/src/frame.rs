use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Length and kind.
pub const HEADER_BYTES: usize = 5;

/// Largest frame without bulk: a key statement (64 keys) or an agreement in its envelope is below 32 KiB, a compact range and two proofs below
/// 8 KiB. Enforced by whoever reads frames, before it allocates.
pub const CONTROL_FRAME_BYTES_MAX: usize = 256 * 1024;

/// Largest frame with bulk: one event of the largest size that can be configured (16 MiB of data, 64 KiB of attributes, as much author
/// material, salts), beside 1 MiB of other events.
pub const BULK_FRAME_BYTES_MAX: usize = (16 << 20) + 2 * 65_536 + (1 << 20);

/// Why bytes are not the expected message.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FrameError {
    /// Another kind of message than this place allows.
    #[error("a message of kind {found} came where kind {expected} was expected")]
    UnexpectedKind {
        /// The wanted kind.
        expected: u8,
        /// The kind found.
        found: u8,
    },
    /// The body does not have the form of its kind.
    #[error("a message of kind {kind} is malformed")]
    Malformed {
        /// Its kind.
        kind: u8,
    },
    /// The message is larger than a frame may be.
    #[error("a message of kind {kind} would take {bytes} bytes: the limit is {limit}")]
    TooLarge {
        /// Its kind.
        kind: u8,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

/// The largest body (after the kind) of a frame of `kind`.
#[must_use]
pub fn frame_bytes_max(kind: u8) -> usize {
    match kind {
        crate::PublishBatch::KIND | crate::delivery::BatchMessage::KIND => BULK_FRAME_BYTES_MAX,
        _ => CONTROL_FRAME_BYTES_MAX,
    }
}

/// The first bytes of a frame whose body (after the kind) has `body_bytes`.
///
/// # Errors
/// [`FrameError::TooLarge`].
pub fn header(kind: u8, body_bytes: usize) -> Result<[u8; HEADER_BYTES], FrameError> {
    let limit = frame_bytes_max(kind);
    let length = u32::try_from(body_bytes + 1)
        .ok()
        .filter(|_| body_bytes <= limit)
        .ok_or(FrameError::TooLarge {
            kind,
            bytes: body_bytes,
            limit,
        })?;
    let [a, b, c, d] = length.to_be_bytes();
    Ok([a, b, c, d, kind])
}

/// A message: one kind of frame.
pub trait Message: DeserializeOwned + Serialize {
    /// Its kind. Persisted in the protocol, never reused.
    const KIND: u8;

    /// The body of its frame, before any bulk.
    fn to_body(&self) -> Vec<u8> {
        // Encoding into a growing vector fails for no type of ours.
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// Reads a frame that holds nothing but this message.
    ///
    /// # Errors
    /// [`FrameError::UnexpectedKind`], [`FrameError::Malformed`].
    fn read(kind: u8, body: &[u8]) -> Result<Self, FrameError> {
        let (message, rest) = take::<Self>(kind, body)?;
        if rest.is_empty() {
            Ok(message)
        } else {
            Err(FrameError::Malformed { kind })
        }
    }

    /// Reads a frame whose message is followed by bulk, which comes back without a copy.
    ///
    /// # Errors
    /// [`FrameError::UnexpectedKind`], [`FrameError::Malformed`].
    fn read_bulk(kind: u8, body: &Bytes) -> Result<(Self, Bytes), FrameError> {
        let (message, rest) = take::<Self>(kind, body)?;
        Ok((message, body.slice(body.len() - rest.len()..)))
    }
}

fn take<M: Message>(kind: u8, body: &[u8]) -> Result<(M, &[u8]), FrameError> {
    if kind != M::KIND {
        return Err(FrameError::UnexpectedKind {
            expected: M::KIND,
            found: kind,
        });
    }
    postcard::take_from_bytes(body).map_err(|_| FrameError::Malformed { kind })
}
