//! `/logs/<stream>/…`: published logs, as `schemas/published-log.md` says.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use countersign_exchange::{Exchange, PublishedFault, PublishedFile, PublishedPath};
use tokio::sync::Semaphore;

/// What precedes the stream's name.
pub(super) const PREFIX: &str = "/logs/";

/// Reads at once, each of at most 256 entries, with the fronts of the parts that they lie in. The rest waits, and there are no more of them than connections.
const READS_MAX: usize = 8;

/// What a request needs.
#[derive(Clone, Debug)]
pub(super) struct Logs {
    exchange: Arc<Exchange>,
    reads: Arc<Semaphore>,
}

impl Logs {
    pub(super) fn new(exchange: Arc<Exchange>) -> Self {
        Self {
            exchange,
            reads: Arc::new(Semaphore::new(READS_MAX)),
        }
    }
}

pub(super) async fn published(
    State(logs): State<Logs>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Response> {
    // The path as it was sent: nothing is decoded, so that one thing has one name.
    let path = uri.path().strip_prefix(PREFIX);
    let path: PublishedPath = path
        .and_then(|path| path.parse().ok())
        .ok_or_else(|| refuse(StatusCode::NOT_FOUND, &PublishedFault::NotFound))?;
    let opened = logs.exchange.open_published(&path, bearer(&headers)).await;
    let log = opened.map_err(|fault| refuse(status(&fault), &fault))?;
    let (open, file) = (log.is_open(), path.file());
    let permit = Arc::clone(&logs.reads).acquire_owned().await;
    let read = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        log.read(file)
    });
    match read.await {
        Ok(Ok(Some(bytes))) => Ok(answer(file, open, bytes)),
        Ok(Ok(None)) => Err(refuse(StatusCode::NOT_FOUND, &PublishedFault::NotFound)),
        Ok(Err(error)) => {
            tracing::error!(%error, %path, "a published log cannot be read");
            Err(refuse(StatusCode::INTERNAL_SERVER_ERROR, &Unreadable))
        }
        Err(error) => {
            tracing::error!(%error, %path, "a published log was not read");
            Err(refuse(StatusCode::INTERNAL_SERVER_ERROR, &Unreadable))
        }
    }
}

/// What strangers hear of damage; the rest is in the trace.
#[derive(Debug, thiserror::Error)]
#[error("what is stored of this log cannot be read; its operator has been told")]
struct Unreadable;

/// The one token that a request shows.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut shown = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(one), None) = (shown.next(), shown.next()) else {
        return None;
    };
    let (scheme, token) = one.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

fn status(fault: &PublishedFault) -> StatusCode {
    match fault {
        PublishedFault::Exchange(error) => {
            tracing::error!(%error, "a decision about a published log could not be recorded");
            StatusCode::SERVICE_UNAVAILABLE
        }
        PublishedFault::NotFound => StatusCode::NOT_FOUND,
        PublishedFault::NotPermitted { .. } => StatusCode::FORBIDDEN,
        PublishedFault::Unauthenticated => StatusCode::UNAUTHORIZED,
    }
}

fn refuse(status: StatusCode, why: &dyn std::fmt::Display) -> Response {
    let text = match status {
        // What went wrong inside is for the operator.
        StatusCode::SERVICE_UNAVAILABLE => "this cannot be answered now\n".to_owned(),
        _ => format!("{why}\n"),
    };
    let mut response = (status, text).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::UNAUTHORIZED {
        let scheme = HeaderValue::from_static("Bearer realm=\"countersign\"");
        headers.insert(header::WWW_AUTHENTICATE, scheme);
    }
    response
}

fn answer(file: PublishedFile, open: bool, bytes: Vec<u8>) -> Response {
    let (kind, cache) = match (file, open) {
        (PublishedFile::Checkpoint | PublishedFile::Witnessed, true) => {
            ("text/plain; charset=utf-8", "public, no-cache")
        }
        (PublishedFile::Checkpoint | PublishedFile::Witnessed, false) => {
            ("text/plain; charset=utf-8", "private, no-cache")
        }
        (PublishedFile::Tile(_), true) => (
            "application/octet-stream",
            "public, max-age=31536000, immutable",
        ),
        (PublishedFile::Tile(_), false) => (
            "application/octet-stream",
            "private, max-age=31536000, immutable",
        ),
    };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, cache),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, bytes).into_response()
}
