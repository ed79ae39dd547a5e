use std::future::Future;

use bytes::Bytes;
use countersign_client::quic::{FrameReader, FrameWriter, RawFrame};
use countersign_client::session::is_bulk;
use countersign_protocol::{BULK_FRAME_BYTES_MAX, CONTROL_FRAME_BYTES_MAX};

/// The other end of a frame stream is gone, or broke the framing.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the stream ended: {0}")]
pub struct FrameGone(pub String);

/// Where frames come from: a QUIC stream, or the node's own socket.
pub trait FrameSource: Send {
    /// The next frame, or `None` at a clean end. Cancel-safe.
    fn next_frame(&mut self)
    -> impl Future<Output = Result<Option<(u8, Bytes)>, FrameGone>> + Send;
}

/// Where frames go.
pub trait FrameSink: Send {
    /// Sends one frame.
    fn send_frame(
        &mut self,
        kind: u8,
        body: &[u8],
    ) -> impl Future<Output = Result<(), FrameGone>> + Send;
}

impl FrameSource for FrameReader {
    async fn next_frame(&mut self) -> Result<Option<(u8, Bytes)>, FrameGone> {
        let frame = next(self).await?;
        Ok(frame.map(|frame| (frame.kind, frame.body)))
    }
}

impl FrameSink for FrameWriter {
    async fn send_frame(&mut self, kind: u8, body: &[u8]) -> Result<(), FrameGone> {
        self.write(kind, body).await.map_err(gone)
    }
}

pub(crate) async fn next(reader: &mut FrameReader) -> Result<Option<RawFrame>, FrameGone> {
    reader
        .next(CONTROL_FRAME_BYTES_MAX, BULK_FRAME_BYTES_MAX, is_bulk)
        .await
        .map_err(gone)
}

pub(crate) fn gone(error: impl std::fmt::Display) -> FrameGone {
    FrameGone(error.to_string())
}
