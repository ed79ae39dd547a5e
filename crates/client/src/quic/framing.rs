use std::mem;

use bytes::{BufMut as _, Bytes, BytesMut};
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use tokio::io::AsyncReadExt as _;

use super::error::printable;

/// Bytes before the body: length u32 (big-endian, of what follows) and kind u8.
pub const FRAME_HEADER_BYTES: usize = 5;

/// Bytes of the length itself, which it does not count.
const LENGTH_BYTES: usize = 4;

/// Room for reading at the start, and up to twice that once a stream went quiet: ten thousand idle ones cost 10 MiB. Where much arrives, ten reads find
/// the largest.
const READ_BYTES_MIN: usize = 512;

/// Most room reserved ahead of what arrived. A frame that claims a megabyte and sends nothing costs this, once, of addresses: memory that nobody wrote to
/// is none. Blocks this large hold several frames, so that few bytes move because a frame did not fit.
const READ_BYTES_MAX: usize = 512 << 10;

/// The stream error code given to a peer whose frames break the rules.
const STOP_BROKEN_FRAME: VarInt = VarInt::from_u32(1);

/// One frame, its body not yet understood.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RawFrame {
    /// What the body is; see `schemas/protocol.md`.
    pub kind: u8,
    /// The bytes after the kind, contiguous. They may share memory with frames read along with them (512 KiB, or the
    /// size of the largest of them): copy what is kept for long.
    pub body: Bytes,
}

/// Why no frame was read or written.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FrameError {
    /// A length of 0: not even a kind.
    #[error("the peer sent a frame without a kind; it does not speak this protocol")]
    Empty,
    /// An earlier write was abandoned in the middle of a frame, so that nothing can follow it.
    #[error("an earlier frame was abandoned half-written on this stream; open another stream")]
    Interrupted,
    /// The stream or the connection ended while reading.
    #[error("the stream cannot be read: {}; connect again and resume", read_cause(.0))]
    Read(#[source] ReadError),
    /// A body larger than its kind may be.
    #[error(
        "a frame of kind {kind:?} with {bytes} bytes exceeds the limit of {limit}; the peers disagree about limits"
    )]
    TooLarge {
        /// The kind, where it is known: a length above every limit is refused before the kind is read.
        kind: Option<u8>,
        /// Size of the body.
        bytes: u64,
        /// Size that was allowed.
        limit: u64,
    },
    /// The stream ended within a frame.
    #[error(
        "the stream ended after {got} bytes of a frame; the peer stopped in the middle, connect again and resume"
    )]
    Truncated {
        /// Bytes of the unfinished frame that arrived, its header included.
        got: usize,
    },
    /// The stream or the connection ended while writing.
    #[error("the stream cannot be written: {}; connect again and resume", write_cause(.0))]
    Write(#[source] WriteError),
}

/// Reads frames from a stream.
///
/// Bytes are taken from the connection in blocks that hold many small frames; bodies are slices of these blocks. Bytes are
/// copied once (packets into the block), and while a large body grows.
#[derive(Debug)]
pub struct FrameReader {
    stream: RecvStream,
    /// Bytes read and not yet handed out; a frame, where there is one, begins at its start.
    buffer: BytesMut,
    /// Room to reserve for the next read; follows how full the last ones were.
    read_bytes: usize,
}

impl FrameReader {
    /// A reader that owns the stream.
    #[must_use]
    pub fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            read_bytes: READ_BYTES_MIN,
        }
    }

    /// The next frame, or `None` where the stream ended after a whole one.
    ///
    /// The body of a frame may have `max_bulk` bytes where `is_bulk(kind)`, otherwise `max_control`; this is checked before
    /// anything is reserved. Memory grows with what arrives: at most twice that, or 512 KiB.
    ///
    /// Cancel-safe: a call that is dropped loses nothing.
    ///
    /// # Errors
    /// [`FrameError::Empty`], [`FrameError::TooLarge`] (the stream is then stopped), [`FrameError::Truncated`],
    /// [`FrameError::Read`]. The stream is of no use after any of them.
    pub async fn next(
        &mut self,
        max_control: usize,
        max_bulk: usize,
        is_bulk: fn(u8) -> bool,
    ) -> Result<Option<RawFrame>, FrameError> {
        loop {
            let wanted = match self.header(max_control, max_bulk, is_bulk) {
                Ok(Some(header)) if self.buffer.len() >= header.total => {
                    return Ok(Some(self.take(header)));
                }
                Ok(Some(header)) => header.total,
                Ok(None) => FRAME_HEADER_BYTES,
                Err(error) => {
                    // Already stopped or ended: then there is nothing left to refuse.
                    let _ = self.stream.stop(STOP_BROKEN_FRAME);
                    return Err(error);
                }
            };
            if self.fill(wanted).await? == 0 {
                return match self.buffer.len() {
                    0 => Ok(None),
                    got => Err(FrameError::Truncated { got }),
                };
            }
        }
    }

    /// Tells the peer to send no more on this stream, with an error code of the protocol.
    pub fn stop(&mut self, code: u32) {
        // An error means that the stream has ended already, which is what is wanted.
        let _ = self.stream.stop(code.into());
    }

    /// What the bytes at the start of the buffer claim, as far as they are there.
    fn header(
        &self,
        max_control: usize,
        max_bulk: usize,
        is_bulk: fn(u8) -> bool,
    ) -> Result<Option<Header>, FrameError> {
        let Some((length, rest)) = self.buffer.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let body = u32::from_be_bytes(*length)
            .checked_sub(1)
            .ok_or(FrameError::Empty)?;
        let kind = rest.first().copied();
        let limit = match kind {
            None => max_control.max(max_bulk),
            Some(kind) if is_bulk(kind) => max_bulk,
            Some(_) => max_control,
        };
        let too_large = || FrameError::TooLarge {
            kind,
            bytes: body.into(),
            limit: limit as u64,
        };
        let bytes = usize::try_from(body).map_err(|_| too_large())?;
        if bytes > limit {
            return Err(too_large());
        }
        let total = bytes
            .checked_add(FRAME_HEADER_BYTES)
            .ok_or_else(too_large)?;
        Ok(kind.map(|kind| Header { kind, total }))
    }

    fn take(&mut self, header: Header) -> RawFrame {
        let mut frame = self.buffer.split_to(header.total);
        let body = frame.split_off(FRAME_HEADER_BYTES).freeze();
        RawFrame {
            kind: header.kind,
            body,
        }
    }

    /// Reads what is there, until the buffer holds more than before; 0 at the end of the stream. `wanted` is the size the buffer
    /// needs for the frame at its start.
    async fn fill(&mut self, wanted: usize) -> Result<usize, FrameError> {
        let held = self.buffer.len();
        let missing = wanted.saturating_sub(held);
        if held == 0 && !(READ_BYTES_MIN..=2 * READ_BYTES_MIN).contains(&self.buffer.capacity()) {
            // While nothing is there, little room: a stream that was busy once may be quiet for weeks.
            self.buffer = BytesMut::with_capacity(READ_BYTES_MIN);
        }
        if self.buffer.capacity() - held < missing.min(self.read_bytes) {
            // Doubling what has arrived keeps the copies of a growing body below one more in all.
            let ahead = missing.min(held).max(self.read_bytes);
            self.buffer.reserve(ahead);
        }
        let room = self.buffer.capacity() - held;
        let got = self
            .stream
            .read_buf(&mut self.buffer)
            .await
            .map_err(read_error)?;
        if held == 0 {
            return Ok(got);
        }
        if got == room {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
        } else if got < self.read_bytes / 4 {
            self.read_bytes = (self.read_bytes / 2).max(READ_BYTES_MIN);
        }
        Ok(got)
    }
}

#[derive(Clone, Copy)]
struct Header {
    kind: u8,
    /// Size of the frame, header included.
    total: usize,
}

/// The end of a connection says more than "connection lost".
fn read_cause(error: &ReadError) -> String {
    match error {
        ReadError::ConnectionLost(cause) => printable(cause),
        other => printable(other),
    }
}

fn write_cause(error: &WriteError) -> String {
    match error {
        WriteError::ConnectionLost(cause) => printable(cause),
        other => printable(other),
    }
}

/// The error that the stream packed into an `io::Error`.
fn read_error(error: std::io::Error) -> FrameError {
    FrameError::Read(
        error
            .downcast::<ReadError>()
            .unwrap_or(ReadError::ClosedStream),
    )
}

/// Writes frames to a stream.
///
/// A write waits while the peer's window is full. A write that is dropped before it ends leaves half a frame: later writes
/// fail with [`FrameError::Interrupted`], and the reader sees a truncated end.
#[derive(Debug)]
pub struct FrameWriter {
    stream: SendStream,
    interrupted: bool,
}

impl FrameWriter {
    /// A writer that owns the stream.
    #[must_use]
    pub fn new(stream: SendStream) -> Self {
        Self {
            stream,
            interrupted: false,
        }
    }

    /// Writes one frame; its body is copied once.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`], [`FrameError::Interrupted`], [`FrameError::Write`].
    pub async fn write(&mut self, kind: u8, body: &[u8]) -> Result<(), FrameError> {
        let header = header(kind, body.len())?;
        let mut frame = BytesMut::with_capacity(header.len().saturating_add(body.len()));
        frame.put_slice(&header);
        frame.put_slice(body);
        self.send(&mut [frame.freeze()]).await
    }

    /// Writes one frame whose body is the concatenation of `chunks`, without copying them.
    ///
    /// # Errors
    /// As [`FrameWriter::write`].
    pub async fn write_chunks(&mut self, kind: u8, chunks: Vec<Bytes>) -> Result<(), FrameError> {
        let bytes = chunks
            .iter()
            .fold(0_usize, |sum, chunk| sum.saturating_add(chunk.len()));
        let header = header(kind, bytes)?;
        let mut frame = Vec::with_capacity(chunks.len().saturating_add(1));
        frame.push(Bytes::copy_from_slice(&header));
        frame.extend(chunks);
        self.send(&mut frame).await
    }

    /// Ends the stream after the frames written: the reader sees a clean end.
    ///
    /// # Errors
    /// [`FrameError::Write`] where it has ended already.
    pub fn finish(&mut self) -> Result<(), FrameError> {
        self.stream
            .finish()
            .map_err(|closed| FrameError::Write(closed.into()))
    }

    /// Ends the stream at once with an error code of the protocol; what was written may be lost.
    pub fn reset(&mut self, code: u32) {
        // An error means that the stream has ended already, which is what is wanted.
        let _ = self.stream.reset(code.into());
    }

    /// Waits until the peer has acknowledged everything after [`FrameWriter::finish`], or stopped the stream (its error code).
    ///
    /// # Errors
    /// [`FrameError::Write`] where the connection ended first.
    pub async fn stopped(&self) -> Result<Option<u32>, FrameError> {
        let code = self.stream.stopped().await;
        code.map(|code| code.map(|code| u32::try_from(code.into_inner()).unwrap_or(u32::MAX)))
            .map_err(|error| FrameError::Write(error.into()))
    }

    async fn send(&mut self, frame: &mut [Bytes]) -> Result<(), FrameError> {
        if mem::replace(&mut self.interrupted, true) {
            return Err(FrameError::Interrupted);
        }
        self.stream
            .write_all_chunks(frame)
            .await
            .map_err(FrameError::Write)?;
        self.interrupted = false;
        Ok(())
    }
}

fn header(kind: u8, body: usize) -> Result<[u8; FRAME_HEADER_BYTES], FrameError> {
    let length = u32::try_from(body)
        .ok()
        .and_then(|body| body.checked_add(1))
        .ok_or(FrameError::TooLarge {
            kind: Some(kind),
            bytes: body as u64,
            limit: u64::from(u32::MAX - 1),
        })?;
    let [a, b, c, d] = length.to_be_bytes();
    Ok([a, b, c, d, kind])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use countersign_crypto::SigningKey;

    use super::*;
    use crate::quic::{Accepting, Connection, Endpoint, QuicLimits, ServerPin};

    const MEBIBYTE: usize = 1 << 20;

    async fn next(reader: &mut FrameReader) -> Result<Option<RawFrame>, FrameError> {
        reader.next(MEBIBYTE, MEBIBYTE, |_| true).await
    }

    async fn connected(ends: &(Endpoint, Endpoint)) -> (Connection, Connection) {
        let address = ends.0.local_addr().unwrap().to_string();
        let accepting = async { ends.0.accept().await.unwrap().handshake().await };
        let (dialed, accepted) = tokio::join!(ends.1.connect(&address, ServerPin::Any), accepting);
        let accepted = accepted.unwrap();
        accepted.admit();
        (dialed.unwrap(), accepted)
    }

    fn endpoint(seed: u8, accepting: Accepting) -> Endpoint {
        let key = SigningKey::from_seed(&[seed; 32]);
        let local = "127.0.0.1:0".parse().unwrap();
        Endpoint::bind(local, key, QuicLimits::default(), accepting).unwrap()
    }

    /// Takes what has arrived, and leaves the call as soon as it has to wait.
    async fn take_what_is_there(reader: &mut FrameReader) {
        tokio::select! {
            biased;
            end = next(reader) => panic!("an unfinished frame gave {end:?}"),
            () = std::future::ready(()) => {}
        }
    }

    #[tokio::test]
    async fn memory_grows_with_what_arrives_not_with_what_is_claimed() {
        let ends = (endpoint(1, Accepting::Yes), endpoint(2, Accepting::No));
        let (dialed, accepted) = connected(&ends).await;
        let (mut writer, _replies) = dialed.open_bi().await.unwrap();
        let claim = header(22, MEBIBYTE).unwrap();
        writer.stream.write_all(&claim).await.unwrap();
        let (_replies, mut reader) = accepted.accept_bi().await.unwrap();
        take_what_is_there(&mut reader).await;
        assert!(reader.buffer.capacity() <= READ_BYTES_MAX);

        let mut sent = claim.len();
        while sent < MEBIBYTE / 2 {
            writer.stream.write_all(&[7; 10_000]).await.unwrap();
            sent += 10_000;
            while reader.buffer.len() < sent {
                take_what_is_there(&mut reader).await;
                tokio::task::yield_now().await;
            }
            let most = reader.buffer.len() * 2 + READ_BYTES_MAX;
            assert!(reader.buffer.capacity() <= most, "{sent} bytes sent");
        }
    }

    #[tokio::test]
    async fn a_reader_that_went_quiet_holds_little() {
        let ends = (endpoint(1, Accepting::Yes), endpoint(2, Accepting::No));
        let (dialed, accepted) = connected(&ends).await;
        let (mut writer, _replies) = dialed.open_bi().await.unwrap();
        writer.write(22, &vec![7; MEBIBYTE]).await.unwrap();
        let (_replies, mut reader) = accepted.accept_bi().await.unwrap();
        assert_eq!(
            next(&mut reader).await.unwrap().unwrap().body.len(),
            MEBIBYTE
        );
        for _ in 0..12 {
            writer.write(10, b"receipt").await.unwrap();
            next(&mut reader).await.unwrap().unwrap();
        }
        assert!(reader.buffer.capacity() <= 2 * READ_BYTES_MIN);
    }

    #[test]
    fn no_frame_claims_more_than_its_length_can_say() {
        let largest = u32::MAX as usize - 1;
        assert_eq!(header(7, largest), Ok([0xff, 0xff, 0xff, 0xff, 7]));
        assert!(matches!(
            header(7, largest + 1),
            Err(FrameError::TooLarge { kind: Some(7), .. })
        ));
    }
}
