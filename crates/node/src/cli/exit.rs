//! Exit codes: the one place where a kind of failure becomes a number.

use countersign_event::documents::RefusalCode;

use crate::admin::AdminError;
use crate::config::ConfigError;
use crate::data_dir::DataDirError;
use crate::errors::{CommandError, ErrorCode};
use crate::init::InitError;
use crate::keys::KeyFileError;
use crate::passphrase::PassphraseFault;

/// The exit codes of every command. Persisted in other people's scripts: never renumbered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Exit {
    /// 0: done.
    Ok = 0,
    /// 1: failed for a reason without a number of its own.
    Failure = 1,
    /// 2: the command line or the configuration is not understood.
    Usage = 2,
    /// 4: not authenticated: the other side does not know us, or we do not know it.
    NotAuthenticated = 4,
    /// 5: there is no such thing, or nothing that may be seen.
    NotFound = 5,
    /// 6: something does not verify.
    VerificationFailed = 6,
    /// 7: refused by policy, quota or budget.
    Refused = 7,
    /// 8: busy or out of reach; the same command may succeed later.
    Busy = 8,
    /// 9: evidence is missing for a verdict.
    Inconclusive = 9,
    /// 130: interrupted.
    Interrupted = 130,
}

impl Exit {
    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<ErrorCode> for Exit {
    fn from(code: ErrorCode) -> Self {
        use ErrorCode as C;
        match code {
            C::AdminProtocol
            | C::AlreadyErased
            | C::AdminVersion
            | C::Conflict
            | C::DataDirExists
            | C::DataDirFormat
            | C::DataDirIncomplete
            | C::DataDirOwner
            | C::EventInvalid
            | C::EventTooLarge
            | C::AgreementState
            | C::Internal
            | C::Io
            | C::KeyInvalid
            | C::KeyLocked
            | C::KeyMissing
            | C::KeyMode
            | C::LinkInvalid
            | C::Malformed
            | C::NodeRequired
            | C::NodeRunning
            | C::NotInBuild
            | C::PassphraseMissing
            | C::PassphraseWrong
            | C::PlanInvalid
            | C::PolicyInvalid
            | C::StorageStopped
            | C::StreamExists => Self::Failure,
            C::ConfigSyntax
            | C::ConfigValue
            | C::ConfirmationNeeded
            | C::FilterLimit
            | C::FilterMeaning
            | C::FilterSyntax
            | C::Usage => Self::Usage,
            C::AdminPeer | C::WrongIdentity => Self::NotAuthenticated,
            C::DataDirMissing | C::NotFound => Self::NotFound,
            C::AuthorSignature
            | C::CursorMismatch
            | C::LogDamaged
            | C::StatementInvalid
            | C::VerificationFailed => Self::VerificationFailed,
            C::InvitationExpired
            | C::InvitationUsed
            | C::LegalHold
            | C::NoAgreement
            | C::NotPermitted
            | C::Sealed
            | C::Suspended => Self::Refused,
            C::Busy
            | C::ClockJump
            | C::DataDirLocked
            | C::DiskFull
            | C::Pending
            | C::StreamFrozen
            | C::Unreachable => Self::Busy,
            C::Inconclusive => Self::Inconclusive,
            C::Interrupted => Self::Interrupted,
        }
    }
}

/// A signed refusal, as the command that met it fails.
impl From<RefusalCode> for ErrorCode {
    fn from(code: RefusalCode) -> Self {
        match code {
            RefusalCode::AuthorSignature => Self::AuthorSignature,
            RefusalCode::Busy => Self::Busy,
            RefusalCode::CursorMismatch => Self::CursorMismatch,
            RefusalCode::InvitationExpired => Self::InvitationExpired,
            RefusalCode::InvitationUsed => Self::InvitationUsed,
            RefusalCode::Malformed => Self::Malformed,
            RefusalCode::NoAgreement => Self::NoAgreement,
            RefusalCode::NotFound => Self::NotFound,
            RefusalCode::NotPermitted => Self::NotPermitted,
            RefusalCode::Pending => Self::Pending,
            RefusalCode::Suspended => Self::Suspended,
            RefusalCode::WrongIdentity => Self::WrongIdentity,
        }
    }
}

impl From<DataDirError> for CommandError {
    fn from(error: DataDirError) -> Self {
        let code = match &error {
            DataDirError::Format { .. } => ErrorCode::DataDirFormat,
            DataDirError::Incomplete { .. } | DataDirError::FormatText { .. } => {
                ErrorCode::DataDirIncomplete
            }
            DataDirError::Io { .. } => ErrorCode::Io,
            DataDirError::Key(error) => return error.into(),
            DataDirError::Locked { .. } => ErrorCode::DataDirLocked,
            DataDirError::Missing { .. } => ErrorCode::DataDirMissing,
            DataDirError::NoHome => ErrorCode::Usage,
            DataDirError::Owner { .. } | DataDirError::Writable { .. } => ErrorCode::DataDirOwner,
        };
        let advice = match &error {
            DataDirError::Format { .. } => Some("use the newer program that made it".to_owned()),
            DataDirError::Incomplete { .. } | DataDirError::FormatText { .. } => {
                Some("restore the file from a backup of the whole directory".to_owned())
            }
            DataDirError::Locked { .. } => {
                Some("stop that process, or wait until it has finished".to_owned())
            }
            DataDirError::Missing { .. } => Some(
                "make one with `countersign init --org NAME`, or name another with `--data DIR`"
                    .to_owned(),
            ),
            DataDirError::NoHome => Some("name one with `--data DIR`".to_owned()),
            DataDirError::Owner { .. } => Some("run the command as that user".to_owned()),
            DataDirError::Writable { path } => Some(format!("chmod go-w {}", path.display())),
            DataDirError::Io { .. } | DataDirError::Key(_) => None,
        };
        Self {
            code,
            message: error.to_string(),
            advice,
        }
    }
}

impl From<&KeyFileError> for CommandError {
    fn from(error: &KeyFileError) -> Self {
        let (code, advice) = match error {
            KeyFileError::Invalid { .. } | KeyFileError::Mismatch { .. } => (
                ErrorCode::KeyInvalid,
                Some("restore the key from a backup of the whole directory".to_owned()),
            ),
            KeyFileError::Io { .. } => (ErrorCode::Io, None),
            KeyFileError::Locked { .. } => (
                ErrorCode::KeyLocked,
                Some(
                    "set `keys.passphrase_file` or `keys.passphrase_command` in countersign.toml"
                        .to_owned(),
                ),
            ),
            KeyFileError::Missing { .. } => (
                ErrorCode::KeyMissing,
                Some("restore the key from a backup of the whole directory".to_owned()),
            ),
            KeyFileError::Mode { path, .. } => (
                ErrorCode::KeyMode,
                Some(format!("chmod 600 {}", path.display())),
            ),
            KeyFileError::Owner { .. } => (
                ErrorCode::KeyMode,
                Some("run the command as that user".to_owned()),
            ),
            KeyFileError::Passphrase { .. } => (
                ErrorCode::PassphraseWrong,
                Some(
                    "give the passphrase that the file was protected under, or restore the file from a backup"
                        .to_owned(),
                ),
            ),
            KeyFileError::PassphraseSource(fault) => (
                match fault {
                    PassphraseFault::Both | PassphraseFault::NotSet => ErrorCode::Usage,
                    _ => ErrorCode::PassphraseMissing,
                },
                Some(
                    "`keys.passphrase_file` names a file of mode 0600, or `keys.passphrase_command` a program that prints the passphrase; `countersign config explain` shows what is set"
                        .to_owned(),
                ),
            ),
            KeyFileError::Statement { .. } => (
                ErrorCode::StatementInvalid,
                Some("restore the key statement from a backup of the whole directory".to_owned()),
            ),
        };
        Self {
            code,
            message: error.to_string(),
            advice,
        }
    }
}

impl From<KeyFileError> for CommandError {
    fn from(error: KeyFileError) -> Self {
        Self::from(&error)
    }
}

impl From<ConfigError> for CommandError {
    fn from(error: ConfigError) -> Self {
        let code = match &error {
            ConfigError::Io { .. } => ErrorCode::Io,
            ConfigError::Syntax { .. } | ConfigError::UnknownKey { .. } => ErrorCode::ConfigSyntax,
            ConfigError::Value { .. } => ErrorCode::ConfigValue,
        };
        let advice = match &error {
            ConfigError::UnknownKey { nearest, .. } => {
                nearest.map(|nearest| format!("did you mean `{nearest}`?"))
            }
            ConfigError::Value { .. } => {
                Some("`countersign config explain` lists every setting".to_owned())
            }
            ConfigError::Io { .. } | ConfigError::Syntax { .. } => None,
        };
        Self {
            code,
            message: error.to_string(),
            advice,
        }
    }
}

impl From<InitError> for CommandError {
    fn from(error: InitError) -> Self {
        if let InitError::Passphrase(fault) = error {
            return KeyFileError::from(fault).into();
        }
        let (code, advice) = match &error {
            InitError::Exists { .. } => (
                ErrorCode::DataDirExists,
                Some("choose another place with `--data DIR`; nothing was changed".to_owned()),
            ),
            InitError::MountPoint { path } => (
                ErrorCode::DataDirExists,
                Some(format!(
                    "use a folder in it: `--data {}/node`",
                    path.display()
                )),
            ),
            InitError::Domain(_)
            | InitError::DomainIsFingerprint { .. }
            | InitError::Name { .. } => (ErrorCode::Usage, None),
            InitError::Entropy(_) | InitError::Key(_) | InitError::Passphrase(_) => {
                (ErrorCode::Internal, None)
            }
            InitError::Io { .. } | InitError::Journal(_) => (ErrorCode::Io, None),
        };
        Self {
            code,
            message: error.to_string(),
            advice,
        }
    }
}

impl From<AdminError> for CommandError {
    fn from(error: AdminError) -> Self {
        let code = match &error {
            AdminError::Closed | AdminError::Io(_) => ErrorCode::Io,
            AdminError::Frame(_)
            | AdminError::Malformed { .. }
            | AdminError::UnexpectedKind { .. } => ErrorCode::AdminProtocol,
            AdminError::Peer { .. } => ErrorCode::AdminPeer,
        };
        Self::new(code, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_states_the_exit_code_of_every_error_code() {
        let page = include_str!("../../../../docs/errors.md");
        for code in ErrorCode::ALL {
            let heading = format!("### `{code}`\n\nExit {}.", Exit::from(*code).code());
            assert!(page.contains(&heading), "{heading}");
        }
    }
}
