//! What a ledger entry says: `schemas/ledger.md`.
//!
//! A ledger log is an ordinary log whose events have `type` = `dev.countersign.ledger.<kind>.v1`, `source` = the log's origin and
//! a JSON object of this module as data. One such log is kept for the node itself and one for each counterparty, so that a partner can be
//! shown its own history, provably whole, and nothing else. The SQLite view is a fold over these records.

use countersign_crypto::PublicKey;
use serde::{Deserialize, Serialize};

use crate::documents::{AgreementId, Digest, Plan};
use crate::json::from_slice_of_objects;
use crate::names::{Authority, Origin};
use crate::time::Timestamp;

/// What precedes the kind in the CloudEvents `type` of a ledger entry.
pub const TYPE_PREFIX: &str = "dev.countersign.ledger.";

/// What follows it.
pub const TYPE_SUFFIX: &str = ".v1";

/// A DSSE envelope inside a record: the envelope's own JSON, kept as text so that its bytes stay.
pub type EnvelopeText = String;

/// One record of a ledger log. The variant's kebab-case name is the kind.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum LedgerRecord {
    /// An agreement under both signatures. Counterparty log; forces a sync.
    Agreement {
        /// The DSSE envelope.
        envelope: EnvelopeText,
        /// Where the partner's node can be dialled, if known.
        #[serde(default)]
        addresses: Vec<String>,
        /// The invitation it came from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        invitation: Option<String>,
    },
    /// A proposal, an agreement under one signature, or a step: the sender's or our own. Counterparty log; durable before anybody is told.
    AgreementStep {
        /// The DSSE envelope.
        envelope: EnvelopeText,
    },
    /// A part of a quota was set aside for positions that are handed out next. A later one of the same period, filter and `from` takes the place of an
    /// earlier one. Counterparty log; durable before what it is set aside for leaves.
    Allotment {
        /// Under which agreement.
        agreement: AgreementId,
        /// The log.
        stream: Origin,
        /// The first moment of the quota's period.
        #[serde(with = "crate::documents::rfc3339")]
        period: Timestamp,
        /// Digest of the filter that the positions are read through.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        filter: Option<Digest>,
        /// The position from which on it is used.
        from: u64,
        /// Events in all; 0 where the quota does not limit them.
        events: u64,
        /// Data bytes in all; 0 where the quota does not limit them.
        bytes: u64,
    },
    /// An application may use this node. Node log.
    App {
        /// Its name here.
        name: String,
        /// Its key.
        key: PublicKey,
        /// False where the enrolment is taken back.
        enrolled: bool,
    },
    /// Whose signatures the events of a stream, ours or a partner's, bear from a sequence on. Node log.
    AuthorRule {
        /// The log.
        stream: Origin,
        /// The first sequence that it holds for.
        sequence: u64,
        /// The author keys.
        keys: Vec<PublicKey>,
        /// Whether each event has to bear a signature of one of them.
        required: bool,
    },
    /// An application's durable cursor moved. Node log.
    Cursor {
        /// The application.
        app: String,
        /// The log it reads.
        stream: Origin,
        /// The next sequence it will read.
        next: u64,
        /// Leaf hash of the entry before.
        leaf: Digest,
    },
    /// A partner has signed receipts that contradict each other, or a person has decided to go on with it. Counterparty log.
    Contradiction {
        /// Who signed them.
        partner: Authority,
        /// The log that they are about; nothing where a person decided.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stream: Option<Origin>,
        /// What they have against each other, or why it goes on.
        detail: String,
        /// File name in `evidence/` of the proof, if it is kept.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evidence: Option<String>,
        /// Whether a person decided to go on.
        settled: bool,
    },
    /// A question to the policies and its answer. Counterparty log, or node log where the principal is our own.
    Decision {
        /// Who asked: an authority, or `app:<name>`.
        principal: String,
        /// `discover`, `request`, `read` or `publish`.
        action: String,
        /// Which log.
        stream: Origin,
        /// The answer.
        allowed: bool,
        /// The policies that decided.
        policies: Vec<String>,
        /// Digest of the whole policy set.
        policy_digest: Digest,
        /// Evaluation errors; any makes the answer no.
        #[serde(default)]
        errors: Vec<String>,
        /// The agreement it was decided under.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agreement: Option<AgreementId>,
        /// The facts that the policies saw, as JSON text, so that the decision can be replayed.
        facts: String,
    },
    /// A producer asks for a copy of an event to be erased. Counterparty log.
    ErasureRequest {
        /// The DSSE envelope.
        envelope: EnvelopeText,
    },
    /// What became of such a request. Counterparty log.
    ErasureAnswer {
        /// The DSSE envelope.
        envelope: EnvelopeText,
    },
    /// The filter of a subscription that was opened. Counterparty log.
    Filter {
        /// The agreement that it was opened under.
        agreement: AgreementId,
        /// The log.
        stream: Origin,
        /// The filter's digest, as receipts and claims name it.
        digest: Digest,
        /// Its canonical text.
        filter: String,
    },
    /// A legal hold on a stream or copy was set or released. Node log.
    Hold {
        /// The log.
        stream: Origin,
        /// Whether it holds now.
        held: bool,
        /// For people.
        reason: String,
    },
    /// How long a stream of ours keeps content. Node log.
    Retention {
        /// The log.
        stream: Origin,
        /// Older content expires.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        age_seconds: Option<u64>,
        /// Data bytes that are kept.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes: Option<u64>,
        /// Entries that are kept.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        count: Option<u64>,
    },
    /// An invitation was made, or is over. Node log.
    Invitation {
        /// Hexadecimal id.
        id: String,
        /// The offer's JSON text, whose digest the link holds.
        offer: String,
        /// Public key of the link's secret.
        secret_key: PublicKey,
        /// The organization key it was made for, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        for_key: Option<String>,
        /// Whether a person has to confirm the joiner.
        confirm: bool,
        /// When it ends.
        #[serde(with = "crate::documents::rfc3339")]
        expires: Timestamp,
    },
    /// A step in the life of an invitation. Node log.
    InvitationStep {
        /// Hexadecimal id.
        id: String,
        /// `redeemed`, `refused`, `pending`, `confirmed` or `withdrawn`.
        step: String,
        /// The organization key that acted.
        organization: PublicKey,
        /// Its authority.
        authority: Authority,
        /// For people.
        #[serde(default)]
        reason: String,
    },
    /// A key was taken back. Counterparty log (one's own: node log).
    KeyRevocation {
        /// The DSSE envelope.
        envelope: EnvelopeText,
    },
    /// A partner's key statement. Counterparty log (one's own: node log).
    KeyStatement {
        /// The DSSE envelope.
        envelope: EnvelopeText,
    },
    /// The key of an epoch of a stream, for one organization. Counterparty log.
    KeyWrap {
        /// The DSSE envelope.
        envelope: EnvelopeText,
    },
    /// Anybody may read a stream's published log over HTTP, or nobody without a token any more. Node log.
    LogAccess {
        /// The log.
        stream: Origin,
        /// Whether anybody may.
        open: bool,
    },
    /// The plans that a stream of ours is offered under. Node log.
    Plans {
        /// The log.
        stream: Origin,
        /// All of them, as they are listed; none: the stream is offered under no plan of its own.
        plans: Vec<Plan>,
    },
    /// A policy set came into force. Node log.
    PolicySet {
        /// Its digest.
        digest: Digest,
        /// File name and text of each file.
        files: Vec<(String, String)>,
    },
    /// A receipt signed here or there, with the range it adds. Counterparty log.
    Receipt {
        /// The DSSE envelope.
        envelope: EnvelopeText,
        /// First sequence that this receipt adds to the one before.
        from: u64,
        /// Events it adds.
        events: u64,
        /// Data bytes it adds.
        bytes: u64,
    },
    /// The other side could not be accepted: evidence kept. Counterparty log.
    Fault {
        /// Stable code of what was wrong.
        code: String,
        /// For people.
        detail: String,
        /// The log concerned, if one is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stream: Option<Origin>,
        /// File name in `evidence/` that keeps the offending bytes, if kept.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evidence: Option<String>,
    },
    /// A signed refusal given or got. Counterparty log.
    Refusal {
        /// The DSSE envelope.
        envelope: EnvelopeText,
    },
    /// Where a partner is established, as this node's operator says. Counterparty log.
    Region {
        /// Which partner.
        partner: Authority,
        /// In the operator's words; none where nothing is to be said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        region: Option<String>,
    },
    /// One event refused by the consumer. Counterparty log.
    Rejection {
        /// The DSSE envelope.
        envelope: EnvelopeText,
    },
    /// A partner's access was ended as a whole. Counterparty log; forces a sync.
    Revocation {
        /// Whose.
        partner: Authority,
        /// For people.
        reason: String,
    },
    /// A producer's word on what a filter left out of our copy. Counterparty log.
    SkipClaim {
        /// The DSSE envelope.
        envelope: EnvelopeText,
    },
    /// An agreement was ended. Counterparty log; forces a sync.
    Termination {
        /// The DSSE envelope.
        envelope: EnvelopeText,
    },
    /// What was found at the counterparty's domain. Counterparty log.
    DomainCheck {
        /// The domain, which is its authority.
        domain: Authority,
        /// When it was asked.
        #[serde(with = "crate::documents::rfc3339")]
        at: Timestamp,
        /// What it comes to.
        result: DomainResult,
        /// What was found, in words.
        detail: String,
        /// The key statement that was found, as JSON.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        envelope: Option<EnvelopeText>,
    },
    /// Somebody who keeps the time has stamped a checkpoint. Node log.
    Timestamp {
        /// The log.
        stream: Origin,
        /// The checkpoint's note, with no other signature lines than the log's own: what was stamped.
        checkpoint: String,
        /// The token (RFC 3161), in DER and then base64.
        token: String,
    },
    /// A token for published logs was made, or withdrawn. Counterparty log.
    Token {
        /// For whom it speaks.
        partner: Authority,
        /// SHA-256 over a tag and its secret, which is kept nowhere.
        digest: Digest,
        /// When it ends.
        #[serde(with = "crate::documents::rfc3339")]
        expires: Timestamp,
        /// True where it is taken back.
        withdrawn: bool,
    },
}

/// What asking a domain for its key statement came to. Persisted as the lower-case word.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DomainResult {
    /// The statement of the same organization key is there.
    Proven,
    /// Something else is there.
    Refuted,
    /// No answer, or none that can be trusted.
    Unreachable,
}

impl DomainResult {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Refuted => "refuted",
            Self::Unreachable => "unreachable",
        }
    }
}

macro_rules! kinds {
    ($($variant:ident = $kind:literal,)*) => {
        impl LedgerRecord {
            /// The words of all kinds.
            pub const KINDS: &[&str] = &[$($kind),*];

            /// The kind, as in the event's `type`.
            #[must_use]
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => $kind,)*
                }
            }
        }
    };
}

kinds! {
    Agreement = "agreement",
    AgreementStep = "agreement-step",
    Allotment = "allotment",
    App = "app",
    AuthorRule = "author-rule",
    Contradiction = "contradiction",
    Cursor = "cursor",
    Decision = "decision",
    DomainCheck = "domain-check",
    ErasureAnswer = "erasure-answer",
    ErasureRequest = "erasure-request",
    Filter = "filter",
    Hold = "hold",
    Retention = "retention",
    Invitation = "invitation",
    InvitationStep = "invitation-step",
    KeyRevocation = "key-revocation",
    KeyStatement = "key-statement",
    KeyWrap = "key-wrap",
    LogAccess = "log-access",
    Plans = "plans",
    PolicySet = "policy-set",
    Receipt = "receipt",
    Fault = "fault",
    Refusal = "refusal",
    Region = "region",
    Rejection = "rejection",
    Revocation = "revocation",
    SkipClaim = "skip-claim",
    Termination = "termination",
    Timestamp = "timestamp",
    Token = "token",
}

impl LedgerRecord {
    /// The CloudEvents `type` of its entry.
    #[must_use]
    pub fn event_type(&self) -> String {
        format!("{TYPE_PREFIX}{}{TYPE_SUFFIX}", self.kind())
    }

    /// The data of its entry.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads the data of a ledger entry.
    ///
    /// # Errors
    /// [`LedgerRecordError`] where it is not a record that this version knows.
    pub fn from_json(data: &[u8]) -> Result<Self, LedgerRecordError> {
        from_slice_of_objects(data).map_err(|error| LedgerRecordError {
            line: error.line(),
            column: error.column(),
        })
    }
}

/// Data that is not a ledger record.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a ledger record that this version knows (line {line}, column {column})")]
pub struct LedgerRecordError {
    /// Line in the JSON text.
    pub line: usize,
    /// Column in the JSON text.
    pub column: usize,
}
