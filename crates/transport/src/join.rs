//! Joining: the inviter's side of the stream, and the joiner's whole walk.

use std::sync::Arc;

use bytes::Bytes;
use countersign_client::join::{JoinError, JoinerKeys, Terms, redeem};
use countersign_client::quic::{Connection, FrameReader, FrameWriter, QuicLimits};
use countersign_client::session::{Expected, SessionOptions};
use countersign_event::documents::{Agreement, Side};
use countersign_exchange::{Exchange, ExchangeError, OnboardingError, Peer};
use countersign_protocol::invitation::Invitation;
use countersign_protocol::{JoinAccept, JoinDone, JoinQuery, JoinTerms, Message as _, Refused};

use crate::frames::{FrameGone, gone, next};

/// The label of the TLS exporter, which both sides have to spell alike.
const EXPORTER: &str = "countersign join 1";

/// Why joining failed.
#[derive(Debug, thiserror::Error)]
pub enum JoinFailure {
    /// Nothing was signed, or the inviter refused.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The agreement could not be stored; joining again gets the same one.
    #[error("the agreement is signed but could not be stored here: {0}; join again to fetch it")]
    Hold(#[from] OnboardingError),
    /// The invitation asks for a stream that is not here.
    #[error(
        "the invitation asks for the stream `{stream}`, which this node does not have; `countersign stream create {stream}` makes it"
    )]
    NoSuchStream {
        /// The stream's name.
        stream: String,
    },
}

pub(crate) async fn serve(
    exchange: Arc<Exchange>,
    peer: Peer,
    connection: Connection,
    first: (u8, Bytes),
    mut writer: FrameWriter,
    mut reader: FrameReader,
) -> Result<(), FrameGone> {
    let exporter = connection.tls_exporter(EXPORTER, &[]);
    let query = JoinQuery::read(first.0, &first.1).map_err(gone)?;
    match exchange.join_terms(&peer, &query, &exporter).await {
        Ok(terms) => writer
            .write(JoinTerms::KIND, &terms.to_body())
            .await
            .map_err(gone)?,
        Err(error) => return refuse(&mut writer, error).await,
    }
    // The joiner may ask a person first, or be content with an agreement that was signed before.
    let Some(frame) = next(&mut reader).await? else {
        return Ok(());
    };
    let accept = JoinAccept::read(frame.kind, &frame.body).map_err(gone)?;
    match exchange
        .join_accept(&peer, &query, &exporter, &accept)
        .await
    {
        Ok(done) => writer
            .write(JoinDone::KIND, &done.to_body())
            .await
            .map_err(gone)?,
        Err(error) => return refuse(&mut writer, error).await,
    }
    writer.finish().map_err(gone)
}

async fn refuse(writer: &mut FrameWriter, error: ExchangeError) -> Result<(), FrameGone> {
    let ExchangeError::Refused(refused) = error else {
        tracing::error!(%error, "a join failed here");
        writer.reset(1);
        return Err(gone(error));
    };
    writer
        .write(Refused::KIND, &refused.message().to_body())
        .await
        .map_err(gone)?;
    writer.finish().map_err(gone)
}

/// Redeems an invitation for this node: shows the terms to `confirm`, signs, stores. Joining again with the same keys finds the same agreement.
///
/// # Errors
/// [`JoinFailure`].
pub async fn join(
    exchange: &Arc<Exchange>,
    invitation: &Invitation,
    advertise: Vec<String>,
    mut confirm: impl FnMut(&Terms) -> bool,
) -> Result<Agreement, JoinFailure> {
    let identity = exchange.identity();
    let clock = Arc::clone(exchange.clock());
    let base = SessionOptions {
        addresses: invitation.addresses.clone(),
        expected: Expected::node(invitation.node),
        key: identity.node_key.clone(),
        statement: Some(identity.envelope.clone()),
        advertise,
        limits: QuicLimits::default(),
        clock: Arc::new(move || clock.now()),
    };
    let keys = JoinerKeys {
        statement: identity.statement.clone(),
        envelope: identity.envelope.clone(),
        agreement_key: identity.agreement_key.clone(),
    };
    let mut missing = None;
    let checked = |terms: &Terms| {
        let stream = terms.offer.stream.as_str();
        if terms.offer.inviter == Side::Consumer && exchange.own_stream(stream).is_err() {
            missing = Some(stream.to_owned());
            return false;
        }
        confirm(terms)
    };
    let joined = redeem(invitation, base, &keys, checked).await;
    if let Some(stream) = missing {
        return Err(JoinFailure::NoSuchStream { stream });
    }
    let joined = joined?;
    let inviter = &joined.inviter;
    // Where the inviter says it can be dialled, else where the link said so.
    let addresses = if inviter.addresses.is_empty() {
        joined.addresses
    } else {
        inviter.addresses.clone()
    };
    Ok(exchange
        .hold_agreement(
            &inviter.statement,
            &inviter.envelope,
            &joined.agreement,
            addresses,
            None,
        )
        .await?)
}
