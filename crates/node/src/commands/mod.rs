//! What commands do: one [`Handler`] over an [`Exchange`], the same in a running node and in process.

mod access;
mod agreements;
mod erasure;
mod explain;
mod jwe;
mod keys;
mod ledger;
mod partners;
mod plans;
mod status;
mod streams;
mod witness;

pub(crate) use access::policies_differ;
pub(crate) use erasure::{gap_line, gap_note};
pub(crate) use plans::{parse_plans, plan_value};

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use countersign_client::SessionError;
use countersign_client::join::JoinError;
use countersign_event::documents::{Refusal, RefusalCode};
use countersign_event::names::Origin;
use countersign_exchange::pipeline::append::AppendError;
use countersign_exchange::pipeline::ingest::IngestError;
use countersign_exchange::{Exchange, ExchangeError, OnboardingError, Partner, Peer, StreamError};
use countersign_store::checkpoints::CheckpointsError;
use countersign_transport::{
    FrameGone, FrameSink, FrameSource, JoinFailure, Server, serve_publish,
};

use crate::admin::{AdminFrames, BoxFuture, Command, Handler, Out};
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::errors::{CommandError, ErrorCode};

/// A node that carries out commands.
pub struct LocalNode {
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) config: Config,
    pub(crate) policies_dir: PathBuf,
    pub(crate) dir: DataDir,
    /// Present where the node listens.
    pub(crate) server: Option<ServerFacts>,
    /// Cursors that applications have moved, on their way to the ledger: an acknowledgement costs no sync of its own.
    cursors: Mutex<HashMap<(String, Origin), u64>>,
}

/// What a listening node says of itself.
pub(crate) struct ServerFacts {
    pub(crate) server: Arc<Server>,
    pub(crate) listen: SocketAddr,
    pub(crate) http: Option<SocketAddr>,
}

impl LocalNode {
    /// A handler over an open exchange.
    #[must_use]
    pub fn new(exchange: Arc<Exchange>, config: Config, dir: DataDir) -> Self {
        Self {
            exchange,
            config,
            policies_dir: dir.policies_dir(),
            dir,
            server: None,
            cursors: Mutex::new(HashMap::new()),
        }
    }

    pub(crate) fn with_server(mut self, facts: ServerFacts) -> Self {
        self.server = Some(facts);
        self
    }

    pub(crate) fn applied(&self, app: &str, stream: &Origin, next: u64) {
        let mut cursors = self.cursors.lock().unwrap_or_else(PoisonError::into_inner);
        cursors.insert((app.to_owned(), stream.clone()), next);
    }

    pub(crate) fn pending_cursor(&self, app: &str, stream: &Origin) -> Option<u64> {
        let cursors = self.cursors.lock().unwrap_or_else(PoisonError::into_inner);
        cursors.get(&(app.to_owned(), stream.clone())).copied()
    }

    /// Writes the cursors that have moved to the ledger.
    ///
    /// # Errors
    /// [`CommandError`] where they cannot be written; they are tried again.
    pub async fn flush_cursors(&self) -> Result<(), CommandError> {
        let moved: Vec<_> = {
            let cursors = self.cursors.lock().unwrap_or_else(PoisonError::into_inner);
            cursors
                .iter()
                .map(|(key, next)| (key.clone(), *next))
                .collect()
        };
        for ((app, stream), next) in moved {
            if let Some(log) = self.exchange.log(&stream) {
                let leaf = match next.checked_sub(1) {
                    None => [0; 32],
                    Some(last) => self
                        .exchange
                        .reader()
                        .leaf_hash(log.number(), last)
                        .map_err(internal)?,
                };
                self.exchange
                    .move_cursor(&app, &stream, next, leaf)
                    .await
                    .map_err(exchange_error)?;
            }
            let mut cursors = self.cursors.lock().unwrap_or_else(PoisonError::into_inner);
            // Unless it has moved on meanwhile.
            if cursors.get(&(app.clone(), stream.clone())) == Some(&next) {
                cursors.remove(&(app, stream));
            }
        }
        Ok(())
    }

    pub(crate) fn stream(&self, text: &str) -> Result<Origin, CommandError> {
        self.exchange.resolve_origin(text).ok_or_else(|| {
            CommandError::new(
                ErrorCode::NotFound,
                format_args!("there is no stream `{text}` here"),
            )
            .advise(
                "`countersign stream ls` lists them; a partner's stream is written PARTNER/STREAM",
            )
        })
    }

    pub(crate) fn partner(&self, text: &str) -> Result<Partner, CommandError> {
        self.exchange
            .registry()
            .find_partner(text)
            .cloned()
            .map_err(|found| {
                let message = match found {
                    0 => format!("there is no partner `{text}`"),
                    _ => format!("`{text}` fits {found} partners"),
                };
                CommandError::new(ErrorCode::NotFound, message)
                    .advise("`countersign partner ls` lists them with their names and authorities")
            })
    }

    async fn dispatch(&self, command: Command, out: &mut Out) -> Result<(), CommandError> {
        match command {
            Command::StreamAccess { .. }
            | Command::StreamAuthors { .. }
            | Command::StreamConsistency { .. }
            | Command::StreamCreate { .. }
            | Command::StreamInfo { .. }
            | Command::StreamJwe { .. }
            | Command::StreamLs
            | Command::StreamProof { .. }
            | Command::StreamProvenance { .. }
            | Command::StreamRotate { .. }
            | Command::StreamTail { .. }
            | Command::Subscribe { .. }
            | Command::CursorApplied { .. }
            | Command::EvidenceExport { .. }
            | Command::EvidenceTimestampAttach { .. }
            | Command::EvidenceTimestampQuery { .. } => self.on_stream(command, out).await,
            Command::StreamErase { .. }
            | Command::StreamRetention { .. }
            | Command::ErasureApprove { .. }
            | Command::ErasureHold { .. }
            | Command::ErasureLs { .. }
            | Command::ErasureRefuse { .. } => self.on_erasure(command, out).await,
            Command::PartnerConfirm { .. }
            | Command::PartnerInfo { .. }
            | Command::PartnerInvite { .. }
            | Command::PartnerJoin { .. }
            | Command::PartnerLs
            | Command::PartnerRevoke { .. }
            | Command::PartnerSet { .. }
            | Command::PartnerSettle { .. }
            | Command::PartnerTerms { .. }
            | Command::PartnerToken { .. }
            | Command::Ping { .. } => self.on_partner(command, out).await,
            Command::AgreementAmend { .. }
            | Command::AgreementApprove { .. }
            | Command::AgreementCounter { .. }
            | Command::AgreementInfo { .. }
            | Command::AgreementLs
            | Command::AgreementRequest { .. }
            | Command::AgreementStep { .. }
            | Command::AgreementTerminate { .. }
            | Command::StreamsOf { .. } => self.on_agreement(command, out).await,
            Command::PlanLs { .. } | Command::PlanSet { .. } => self.on_plan(command, out).await,
            Command::AppAdd { .. }
            | Command::AppLs
            | Command::AppRemove { .. }
            | Command::PolicyCheck
            | Command::PolicyExplain { .. }
            | Command::PolicyTest { .. } => self.on_access(command, out).await,
            Command::LedgerLs { .. }
            | Command::LedgerRebuild
            | Command::LedgerVerify
            | Command::ReceiptLs { .. } => self.on_ledger(command, out).await,
            Command::KeyLs | Command::KeyRevoke { .. } | Command::KeyRotate { .. } => {
                self.on_key(command, out).await
            }
            Command::WitnessCompare { .. } | Command::WitnessLs => {
                self.on_witness(command, out).await
            }
            Command::Doctor { confirm_clock } => self.doctor(confirm_clock, out).await,
            Command::Status => self.status(out).await,
            Command::Publish => Err(CommandError::new(
                ErrorCode::Internal,
                "publishing has a channel of its own",
            )),
        }
    }
}

impl Handler for LocalNode {
    fn handle<'a>(
        &'a self,
        command: Command,
        out: &'a mut Out,
    ) -> BoxFuture<'a, Result<(), CommandError>> {
        Box::pin(self.dispatch(command, out))
    }

    fn publish(&self, frames: AdminFrames) -> BoxFuture<'_, Result<(), CommandError>> {
        Box::pin(async move {
            let AdminFrames {
                mut incoming,
                mut outgoing,
            } = frames;
            let gone = |error: FrameGone| CommandError::new(ErrorCode::Io, error);
            let Some(first) = incoming.next_frame().await.map_err(gone)? else {
                return Ok(());
            };
            serve_publish(
                &self.exchange,
                &Peer::Local,
                first,
                &mut incoming,
                &mut outgoing,
            )
            .await
            .map_err(gone)
        })
    }

    fn close(&self) -> BoxFuture<'_, Result<(), CommandError>> {
        Box::pin(async move {
            // Whatever becomes of the cursors, the journal is closed in order.
            let flushed = self.flush_cursors().await;
            self.exchange.close().await;
            flushed
        })
    }
}

impl FrameSource for crate::admin::FrameReader {
    async fn next_frame(&mut self) -> Result<Option<(u8, bytes::Bytes)>, FrameGone> {
        self.next()
            .await
            .map_err(|error| FrameGone(error.to_string()))
    }
}

impl FrameSink for crate::admin::FrameWriter {
    async fn send_frame(&mut self, kind: u8, body: &[u8]) -> Result<(), FrameGone> {
        self.write(kind, body)
            .await
            .map_err(|error| FrameGone(error.to_string()))
    }
}

pub(crate) fn internal(error: impl std::fmt::Display) -> CommandError {
    CommandError::new(ErrorCode::Internal, error)
}

fn refusal_error(refusal: &Refusal) -> CommandError {
    let error = CommandError::new(refusal_code(refusal.code), &refusal.reason);
    match refusal.advice.as_slice() {
        [] => error,
        advice => error.advise(format_args!("what would help: {}", advice.join("; "))),
    }
}

fn refusal_code(code: RefusalCode) -> ErrorCode {
    match code {
        RefusalCode::AuthorSignature => ErrorCode::AuthorSignature,
        RefusalCode::Busy => ErrorCode::Busy,
        RefusalCode::CursorMismatch => ErrorCode::CursorMismatch,
        RefusalCode::InvitationExpired => ErrorCode::InvitationExpired,
        RefusalCode::InvitationUsed => ErrorCode::InvitationUsed,
        RefusalCode::Malformed => ErrorCode::Malformed,
        RefusalCode::NoAgreement => ErrorCode::NoAgreement,
        RefusalCode::NotFound => ErrorCode::NotFound,
        RefusalCode::NotPermitted => ErrorCode::NotPermitted,
        RefusalCode::Pending => ErrorCode::Pending,
        RefusalCode::Suspended => ErrorCode::Suspended,
        RefusalCode::WrongIdentity => ErrorCode::WrongIdentity,
    }
}

pub(crate) fn exchange_error(error: ExchangeError) -> CommandError {
    let code = match &error {
        ExchangeError::Refused(refused) => return refusal_error(&refused.refusal),
        ExchangeError::Append(AppendError::Busy) => ErrorCode::Busy,
        ExchangeError::Append(AppendError::Clock(_)) => ErrorCode::ClockJump,
        ExchangeError::Append(AppendError::Conflict { .. }) => ErrorCode::Conflict,
        ExchangeError::Append(AppendError::DiskFull) => ErrorCode::DiskFull,
        ExchangeError::Append(AppendError::Frozen) => ErrorCode::StreamFrozen,
        ExchangeError::Append(AppendError::NotOverwritten { .. }) => ErrorCode::LogDamaged,
        ExchangeError::Append(AppendError::Stopped { .. }) => ErrorCode::StorageStopped,
        ExchangeError::Append(_) => ErrorCode::Malformed,
        ExchangeError::Erase(fault) => erasure::erase_error(fault),
        ExchangeError::Ingest(IngestError::Author { .. }) => ErrorCode::AuthorSignature,
        ExchangeError::Ingest(_) => ErrorCode::EventInvalid,
        ExchangeError::NoLedger => ErrorCode::DataDirIncomplete,
        ExchangeError::Read(countersign_store::journal::ReadError::Damage(_)) => {
            ErrorCode::LogDamaged
        }
        ExchangeError::Receipt(_) => ErrorCode::VerificationFailed,
        ExchangeError::Stream(StreamError::Exists { .. }) => ErrorCode::StreamExists,
        ExchangeError::Stream(StreamError::NotEncrypted { .. }) => ErrorCode::Usage,
        ExchangeError::Stream(StreamError::Unknown { .. }) | ExchangeError::UnknownAgreement => {
            ErrorCode::NotFound
        }
        ExchangeError::Stream(_) => ErrorCode::Usage,
        ExchangeError::Checkpoints(CheckpointsError::Damaged) => ErrorCode::LogDamaged,
        ExchangeError::Checkpoints(CheckpointsError::Foreign) => ErrorCode::DataDirFormat,
        ExchangeError::Checkpoints(CheckpointsError::Database(_)) => ErrorCode::Io,
        ExchangeError::InPart { .. }
        | ExchangeError::Proof(_)
        | ExchangeError::Read(_)
        | ExchangeError::Record(_)
        | ExchangeError::View(_) => ErrorCode::Internal,
    };
    CommandError::new(code, error)
}

pub(crate) fn onboarding_error(error: OnboardingError) -> CommandError {
    match error {
        OnboardingError::Exchange(error) => exchange_error(error),
        OnboardingError::NotNow { .. } => CommandError::new(ErrorCode::AgreementState, error),
        OnboardingError::Region => CommandError::new(ErrorCode::Usage, error),
        OnboardingError::Addresses => CommandError::new(ErrorCode::ConfigValue, error),
        OnboardingError::Agreement { .. } => {
            CommandError::new(ErrorCode::VerificationFailed, error)
        }
        OnboardingError::Unknown { .. } => CommandError::new(ErrorCode::NotFound, error),
    }
}

pub(crate) fn session_error(error: &SessionError) -> CommandError {
    let code = match error {
        SessionError::Identity(_) => ErrorCode::WrongIdentity,
        SessionError::Message(_) | SessionError::Frame(_) => ErrorCode::Malformed,
        SessionError::Refused(refused) => {
            let known = ErrorCode::ALL
                .iter()
                .find(|code| code.as_str() == refused.code);
            let error = CommandError::new(
                known.copied().unwrap_or(ErrorCode::NotPermitted),
                &refused.reason,
            );
            return match refused.advice.as_slice() {
                [] => error,
                advice => error.advise(format_args!("what would help: {}", advice.join("; "))),
            };
        }
        SessionError::Budget { .. }
        | SessionError::Connect(_)
        | SessionError::Ended(_)
        | SessionError::NoAddress
        | SessionError::StreamEnded { .. } => ErrorCode::Unreachable,
    };
    CommandError::new(code, error)
}

pub(crate) fn join_error(error: JoinFailure) -> CommandError {
    match error {
        JoinFailure::Join(JoinError::Session(error)) => session_error(&error),
        JoinFailure::Join(JoinError::Expired { .. }) => {
            CommandError::new(ErrorCode::InvitationExpired, error)
        }
        JoinFailure::Join(JoinError::Link(_)) => CommandError::new(ErrorCode::LinkInvalid, error),
        JoinFailure::Join(JoinError::Declined) => {
            CommandError::new(ErrorCode::ConfirmationNeeded, error)
        }
        JoinFailure::Join(_) => CommandError::new(ErrorCode::VerificationFailed, error),
        JoinFailure::Hold(error) => onboarding_error(error),
        JoinFailure::NoSuchStream { .. } => CommandError::new(ErrorCode::NotFound, error),
    }
}

pub(crate) fn export_error(error: crate::evidence::ExportError) -> CommandError {
    use crate::evidence::ExportError;
    let code = match &error {
        ExportError::CatchingUp { .. } => ErrorCode::Busy,
        ExportError::Exists { .. } => ErrorCode::DataDirExists,
        ExportError::NotFields { .. }
        | ExportError::Range { .. }
        | ExportError::NotAStream { .. } => ErrorCode::Usage,
        ExportError::Io { .. } => ErrorCode::Io,
        _ => ErrorCode::Internal,
    };
    CommandError::new(code, error)
}
