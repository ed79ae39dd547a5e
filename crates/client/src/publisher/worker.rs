//! The task behind a publisher: one connection after the other, writing and reading side by side.

use std::sync::Arc;

use bytes::Bytes;
use countersign_protocol::{Message as _, PublishAck, PublishBatch, PublishOpen, PublishReady};

use super::state::Shared;
use super::{PublishError, PublisherOptions};
use crate::error::SessionError;
use crate::quic::FrameWriter;
use crate::session::{AnswerReader, CLOSE_FAULT, RequestStream, Session, SessionOptions};

/// A stream that is open for publishing.
#[derive(Debug)]
pub(super) struct Link {
    session: Session,
    stream: RequestStream,
    ready: PublishReady,
}

impl Link {
    pub(super) async fn open(
        session: &SessionOptions,
        open: &PublishOpen,
    ) -> Result<Self, SessionError> {
        let session = Session::connect(session).await?;
        let mut stream = session.request(open).await?;
        let ready = stream
            .answer("the answer to the request to publish")
            .await?;
        Ok(Self {
            session,
            stream,
            ready,
        })
    }

    pub(super) fn ready(&self) -> &PublishReady {
        &self.ready
    }
}

pub(super) async fn run(shared: Arc<Shared>, mut options: PublisherOptions, mut link: Link) {
    loop {
        let error = match serve(&shared, &mut link).await {
            Ok(()) => {
                link.session.close().await;
                // Whoever closed the publisher early gives up what is not acknowledged.
                shared.fail(&PublishError::Closed);
                return;
            }
            Err(error) => error,
        };
        if matches!(error, PublishError::Acknowledgement { .. }) {
            link.session
                .connection()
                .close(CLOSE_FAULT, "an acknowledgement out of order");
        }
        let again = match error {
            PublishError::Session(error) => reconnect(&shared, &mut options, error).await,
            error => Err(error),
        };
        match again.and_then(|again| shared.resume(&options, &again.ready).map(|()| again)) {
            Ok(again) => link = again,
            Err(error) => {
                tracing::debug!(%error, "publishing is over");
                shared.fail(&error);
                return;
            }
        }
    }
}

/// Until the publisher is closed, or the session breaks.
async fn serve(shared: &Shared, link: &mut Link) -> Result<(), PublishError> {
    let RequestStream { writer, reader } = &mut link.stream;
    tokio::select! {
        written = write(shared, writer) => written,
        read = read(shared, reader) => read,
    }
}

async fn write(shared: &Shared, writer: &mut FrameWriter) -> Result<(), PublishError> {
    loop {
        while let Some((first_number, count, bulk)) = shared.next_to_send() {
            let head = PublishBatch {
                first_number,
                count,
            };
            let chunks = vec![Bytes::from(head.to_body()), bulk];
            let written = writer.write_chunks(PublishBatch::KIND, chunks).await;
            written.map_err(SessionError::from)?;
        }
        if shared.is_finished() {
            return Ok(());
        }
        shared.worked().await;
    }
}

async fn read(shared: &Shared, reader: &mut AnswerReader) -> Result<(), PublishError> {
    let awaited = "an acknowledgement";
    loop {
        let frame = reader
            .next()
            .await?
            .ok_or(SessionError::StreamEnded { awaited })?;
        let ack = PublishAck::read(frame.kind, &frame.body).map_err(SessionError::from)?;
        shared.acknowledge(&ack)?;
    }
}

async fn reconnect(
    shared: &Shared,
    options: &mut PublisherOptions,
    mut error: SessionError,
) -> Result<Link, PublishError> {
    let open = options.open();
    for attempt in 0.. {
        if shared.is_finished() {
            return Err(PublishError::Closed);
        }
        if error.is_lasting() {
            break;
        }
        let Some(wait) = options.backoff.wait(attempt, options.entropy.as_mut()) else {
            break;
        };
        tracing::debug!(%error, ?wait, "the session to the node is lost; connecting again");
        tokio::time::sleep(error.retry_after().unwrap_or_default().max(wait)).await;
        match Link::open(&options.session, &open).await {
            Ok(link) => return Ok(link),
            Err(next) => error = next,
        }
    }
    Err(error.into())
}
