//! `/witness/…`: `add-checkpoint` and the monitoring endpoint, as `schemas/witness.md` says.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use countersign_exchange::{ADD_CHECKPOINT_BODY_MAX, Exchange, WitnessAnswer};

use super::logs::bearer;

/// Where heads are handed in.
pub(super) const ADD_CHECKPOINT: &str = "/witness/add-checkpoint";

/// What precedes the hash of an origin.
pub(super) const PREFIX: &str = "/witness/";

/// The largest body that is read.
pub(super) const BODY_MAX: usize = ADD_CHECKPOINT_BODY_MAX;

const TEXT: &str = "text/plain; charset=utf-8";

pub(super) async fn add_checkpoint(State(exchange): State<Arc<Exchange>>, body: Bytes) -> Response {
    // A task of its own: a client that goes away does not stop in the middle what is being stored.
    let answering = tokio::spawn(async move { exchange.add_checkpoints(&[&body]).await });
    let answer = answering
        .await
        .ok()
        .and_then(|answers| answers.into_iter().next());
    let Some(answer) = answer else {
        return (
            StatusCode::INTERNAL_SERVER_ERROR,
            "this cannot be answered now\n",
        )
            .into_response();
    };
    let kind = match answer {
        WitnessAnswer::Stale(_) => "text/x.tlog.size",
        _ => TEXT,
    };
    let status = StatusCode::from_u16(answer.status());
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, answer.body()).into_response()
}

pub(super) async fn monitored(
    State(exchange): State<Arc<Exchange>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let hash = uri
        .path()
        .strip_prefix(PREFIX)
        .and_then(|path| path.strip_suffix("/checkpoint"));
    let note = match hash {
        Some(hash) => exchange.monitored(hash, bearer(&headers)).await,
        None => Ok(None),
    };
    match note {
        Ok(Some(note)) => {
            let headers = [
                (header::CONTENT_TYPE, TEXT),
                (header::CACHE_CONTROL, "no-cache"),
            ];
            (headers, note).into_response()
        }
        Ok(None) => (StatusCode::NOT_FOUND, "no such log is witnessed here\n").into_response(),
        Err(error) => {
            tracing::error!(%error, "what was cosigned cannot be read");
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                "this cannot be answered now\n",
            )
                .into_response()
        }
    }
}
