//! What the client library reports, as a command fails with it.

use std::path::PathBuf;

use countersign_client::join::JoinError;
use countersign_client::profile::ProfileError;
use countersign_client::quic::ConnectError;
use countersign_client::subscriber::SubscribeError;
use countersign_client::{RefusedBy, SessionError};

use crate::errors::{CommandError, ErrorCode};

/// A profile that cannot be used, or could not join.
pub(super) fn of_profile(error: ProfileError) -> CommandError {
    let code = match &error {
        ProfileError::Join(error) => return of_join(error),
        ProfileError::Exists { .. } => ErrorCode::DataDirExists,
        ProfileError::InUse { .. } => ErrorCode::DataDirLocked,
        ProfileError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            ErrorCode::NotFound
        }
        ProfileError::Io { .. } => ErrorCode::Io,
        ProfileError::Malformed { .. } => ErrorCode::DataDirIncomplete,
        ProfileError::Statement(_) => ErrorCode::StatementInvalid,
        ProfileError::Unknown { .. } => ErrorCode::NotFound,
        ProfileError::WideMode { .. } => ErrorCode::KeyMode,
        ProfileError::WouldPublish { .. } => ErrorCode::NodeRequired,
    };
    CommandError::new(code, error)
}

fn of_join(error: &JoinError) -> CommandError {
    let code = match error {
        JoinError::Session(error) => return of_session(error),
        JoinError::AgreementDiffers { .. }
        | JoinError::Document(_)
        | JoinError::NotSigned { .. }
        | JoinError::OfferDiffers
        | JoinError::OfferInvalid { .. }
        | JoinError::TermsChanged => ErrorCode::VerificationFailed,
        JoinError::Declined => ErrorCode::Interrupted,
        JoinError::Expired { .. } => ErrorCode::InvitationExpired,
        JoinError::Link(_) => ErrorCode::LinkInvalid,
    };
    CommandError::new(code, error)
}

/// Why reading ended. `evidence` is where the offending bytes are kept.
pub(super) fn of_subscription(error: SubscribeError, evidence: Option<PathBuf>) -> CommandError {
    let code = match &error {
        SubscribeError::Refused(refused) => return of_refusal(refused),
        SubscribeError::Session(error) => return of_session(error),
        SubscribeError::AckAhead { .. } => ErrorCode::Internal,
        SubscribeError::Fault { .. } => ErrorCode::VerificationFailed,
        SubscribeError::Filter { .. } => ErrorCode::FilterMeaning,
        SubscribeError::Keep { .. } => ErrorCode::Io,
        SubscribeError::Message { .. } => ErrorCode::Malformed,
        SubscribeError::NoLogKey { .. } => ErrorCode::StatementInvalid,
        SubscribeError::OlderStatement { .. } => ErrorCode::WrongIdentity,
        SubscribeError::ReceiptSeries { .. } => ErrorCode::Conflict,
        SubscribeError::State { .. } => ErrorCode::DataDirIncomplete,
    };
    let error = CommandError::new(code, error);
    match evidence {
        Some(path) => error.advise(format_args!(
            "what was sent is kept in `{}`",
            path.display()
        )),
        None => error,
    }
}

fn of_session(error: &SessionError) -> CommandError {
    let code = match error {
        SessionError::Refused(refused) => return of_refusal(refused),
        SessionError::Connect(error) if matches!(**error, ConnectError::PeerKey { .. }) => {
            ErrorCode::WrongIdentity
        }
        SessionError::Budget { .. }
        | SessionError::Connect(_)
        | SessionError::Ended(_)
        | SessionError::Frame(_)
        | SessionError::NoAddress
        | SessionError::StreamEnded { .. } => ErrorCode::Unreachable,
        SessionError::Identity(_) => ErrorCode::WrongIdentity,
        SessionError::Message(_) => ErrorCode::Malformed,
    };
    CommandError::new(code, error)
}

/// The other side's no, with what it says would help.
fn of_refusal(refused: &RefusedBy) -> CommandError {
    let code = refused
        .known_code()
        .map_or(ErrorCode::Malformed, ErrorCode::from);
    let mut message = refused.reason.clone();
    if let Some(position) = refused.position {
        message =
            format!("{message}; the last event delivered is the one before sequence {position}");
    }
    if !refused.policies.is_empty() {
        message = format!("{message} (decided by {})", refused.policies.join(", "));
    }
    let error = CommandError::new(code, message);
    if refused.advice.is_empty() {
        error
    } else {
        error.advise(refused.advice.join("; "))
    }
}
