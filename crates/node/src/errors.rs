//! What people and scripts are told when a command fails: a stable code, a text, and what would help.
//!
//! Each code has its paragraph in `docs/errors.md`; a test compares the two. Codes are never reused for something else.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Declares the codes, so that [`ErrorCode::ALL`] cannot miss one.
macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)+) => {
        /// The stable name of a kind of failure, as scripts match it.
        #[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $text)] $name,)+
        }

        impl ErrorCode {
            /// Every code there is.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name,)+];

            /// The code as it is printed.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(ErrorCode::$name => $text,)+
                }
            }
        }
    };
}

error_codes! {
    /// The peer at the local command channel is another user.
    AdminPeer = "admin-peer",
    /// The local command channel carried something that is no command or answer.
    AdminProtocol = "admin-protocol",
    /// The running node is of another version than this program.
    AdminVersion = "admin-version",
    /// An agreement is in no state for what was asked.
    AgreementState = "agreement-state",
    /// The content is gone already.
    AlreadyErased = "already-erased",
    /// An event is not what its author signed, or not signed as the stream wants it.
    AuthorSignature = "author-signature",
    /// Too much at once; try again.
    Busy = "busy",
    /// The clock jumped ahead.
    ClockJump = "clock-jump",
    /// The configuration file is no TOML, or names a setting that does not exist.
    ConfigSyntax = "config-syntax",
    /// A setting has a value that it cannot have.
    ConfigValue = "config-value",
    /// The other side, or another event, contradicts what is stored.
    Conflict = "conflict",
    /// A person has to say yes, and there is no terminal to ask at.
    ConfirmationNeeded = "confirmation-needed",
    /// The log does not continue the cursor.
    CursorMismatch = "cursor-mismatch",
    /// There is something at that place already.
    DataDirExists = "data-dir-exists",
    /// The data directory is of a newer format.
    DataDirFormat = "data-dir-format",
    /// The data directory lacks a file, or has a damaged one.
    DataDirIncomplete = "data-dir-incomplete",
    /// Another process has the data directory.
    DataDirLocked = "data-dir-locked",
    /// There is no data directory.
    DataDirMissing = "data-dir-missing",
    /// The data directory belongs to another user, or others may write to it.
    DataDirOwner = "data-dir-owner",
    /// The disk is full.
    DiskFull = "disk-full",
    /// An event is not of the form it has to have.
    EventInvalid = "event-invalid",
    /// An event is larger than the node takes.
    EventTooLarge = "event-too-large",
    /// A filter passes a limit.
    FilterLimit = "filter-limit",
    /// A filter that could never hold.
    FilterMeaning = "filter-meaning",
    /// A text is no filter.
    FilterSyntax = "filter-syntax",
    /// What there is does not suffice for a verdict.
    Inconclusive = "inconclusive",
    /// A mistake of ours.
    Internal = "internal",
    /// The person stopped it.
    Interrupted = "interrupted",
    /// The invitation is over.
    InvitationExpired = "invitation-expired",
    /// Another key has used the invitation.
    InvitationUsed = "invitation-used",
    /// The system refused to read or write.
    Io = "io",
    /// A key file is no key, or not the one that the key statement names.
    KeyInvalid = "key-invalid",
    /// A key file is under a passphrase, and none is set.
    KeyLocked = "key-locked",
    /// A key file is missing.
    KeyMissing = "key-missing",
    /// Others may read a key file.
    KeyMode = "key-mode",
    /// A legal hold keeps the content.
    LegalHold = "legal-hold",
    /// The link is no invitation.
    LinkInvalid = "link-invalid",
    /// The log on disk is damaged.
    LogDamaged = "log-damaged",
    /// A peer broke a rule of the protocol.
    Malformed = "malformed",
    /// No agreement covers it.
    NoAgreement = "no-agreement",
    /// The command needs a running node.
    NodeRequired = "node-required",
    /// The command needs the node to be stopped.
    NodeRunning = "node-running",
    /// This program was built without it.
    NotInBuild = "not-in-build",
    /// There is no such thing.
    NotFound = "not-found",
    /// No policy permits it.
    NotPermitted = "not-permitted",
    /// The passphrase of the keys cannot be had.
    PassphraseMissing = "passphrase-missing",
    /// The passphrase does not open a key.
    PassphraseWrong = "passphrase-wrong",
    /// A person at the other side has to confirm first.
    Pending = "pending",
    /// A plan cannot be offered, or its file is not read.
    PlanInvalid = "plan-invalid",
    /// A policy has a fault.
    PolicyInvalid = "policy-invalid",
    /// The data of an event are sealed to others.
    Sealed = "sealed",
    /// The agreement is suspended.
    Suspended = "suspended",
    /// The key statement does not verify.
    StatementInvalid = "statement-invalid",
    /// The stream exists already.
    StreamExists = "stream-exists",
    /// The stream takes no entries until its readers have said what they know.
    StreamFrozen = "stream-frozen",
    /// Writing has stopped after a failure of the storage.
    StorageStopped = "storage-stopped",
    /// The partner cannot be reached.
    Unreachable = "unreachable",
    /// The command line is not understood.
    Usage = "usage",
    /// Something does not verify.
    VerificationFailed = "verification-failed",
    /// The identity shown is not the one known.
    WrongIdentity = "wrong-identity",
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A failed command: what happened, and what would help. Holds no secret and no payload.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct CommandError {
    /// Which kind.
    pub code: ErrorCode,
    /// What happened and why, in one sentence, lower case.
    pub message: String,
    /// What to do, in one sentence; absent where there is nothing to do.
    pub advice: Option<String>,
}

impl CommandError {
    /// A failure without advice.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl fmt::Display) -> Self {
        Self {
            code,
            message: message.to_string(),
            advice: None,
        }
    }

    /// Adds what to do.
    #[must_use]
    pub fn advise(mut self, advice: impl fmt::Display) -> Self {
        self.advice = Some(advice.to_string());
        self
    }

    /// A part of the program that this build does not have.
    #[must_use]
    pub fn not_in_build(what: &str) -> Self {
        Self::new(
            ErrorCode::NotInBuild,
            format_args!("`{what}` is not part of this build"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_paragraph_and_no_paragraph_is_stale() {
        let page = include_str!("../../../docs/errors.md");
        let documented: Vec<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`'))
            .collect();
        let mut codes: Vec<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        codes.sort_unstable();
        assert_eq!(documented, codes);
    }

    #[test]
    fn a_code_is_the_same_word_in_json() {
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }
}
