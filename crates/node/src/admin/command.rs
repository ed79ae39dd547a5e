use countersign_event::control::{AuthorRule, Retention};
use countersign_event::documents::{Plans, StepKind};
use countersign_event::encryption::Encryption;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::errors::{CommandError, ErrorCode};

/// A made-up request to the policies.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyQuestion {
    /// `discover`, `request`, `read` or `publish`.
    pub action: String,
    /// Who asks: a partner's name or authority, `us` or `stranger`.
    pub principal: String,
    /// The stream.
    pub stream: String,
    /// The purpose, if one is stated.
    pub purpose: Option<String>,
    /// The plan asked for; absent = that of the active agreement.
    pub plan: Option<String>,
    /// Where the principal is established; absent = as recorded.
    pub region: Option<String>,
    /// What proves who asks; absent = what usually does.
    pub credential: Option<String>,
    /// At what time (RFC 3339); absent = now.
    pub at: Option<String>,
}

/// Everything that acts on a node. Names and times are texts as the person gave them; the handler parses them against what it knows.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "name", deny_unknown_fields)]
pub enum Command {
    /// Proposes an agreement in the place of one.
    AgreementAmend {
        /// Its id.
        agreement: String,
        /// The plan; absent = as it is.
        plan: Option<String>,
        /// Seconds that it runs; absent = until it is ended.
        period_s: Option<u64>,
        /// Seconds that it can be accepted.
        valid_s: u64,
        /// Seconds to wait for the answer.
        wait_s: u64,
    },
    /// Signs what a partner proposes.
    AgreementApprove {
        /// Its id.
        agreement: String,
        /// Seconds to wait for the partner's signature.
        wait_s: u64,
    },
    /// Answers a proposal with other terms.
    AgreementCounter {
        /// Its id.
        agreement: String,
        /// The plan; absent = as proposed.
        plan: Option<String>,
        /// Seconds that it runs; absent = as proposed.
        period_s: Option<u64>,
        /// Seconds that it can be accepted.
        valid_s: u64,
    },
    /// Asks a partner for an agreement on a stream of its own.
    AgreementRequest {
        /// `ORG/STREAM` or an origin.
        stream: String,
        /// The plan; absent = the only one.
        plan: Option<String>,
        /// Seconds that it runs; absent = until it is ended.
        period_s: Option<u64>,
        /// What for.
        purpose: Option<String>,
        /// Seconds that it can be accepted.
        valid_s: u64,
        /// Seconds to wait for the answer.
        wait_s: u64,
    },
    /// Refuses or withdraws a proposal, suspends, resumes or completes an agreement.
    AgreementStep {
        /// Its id.
        agreement: String,
        /// Which of them.
        step: StepKind,
        /// Why deliveries stop, in one word.
        cause: Option<String>,
        /// Why, for the other side and the ledger.
        reason: String,
    },
    /// Streams of a partner that we may know of.
    StreamsOf {
        /// Its name or authority.
        partner: String,
    },
    /// Ends an agreement at the position reached.
    AgreementTerminate {
        /// Its id.
        agreement: String,
        /// Why, for the other side and the ledger.
        reason: String,
    },
    /// One agreement.
    AgreementInfo {
        /// Its id.
        agreement: String,
    },
    /// All agreements.
    AgreementLs,
    /// Enrolls an application.
    AppAdd {
        /// Its name here.
        app: String,
        /// Its public key, standard base64.
        key: String,
    },
    /// All applications.
    AppLs,
    /// Ends an application's enrolment.
    AppRemove {
        /// Its name.
        app: String,
    },
    /// Keeps an application's cursor: everything before `next` has been taken over by it.
    CursorApplied {
        /// The application's name.
        app: String,
        /// `ORG/STREAM` or an origin.
        stream: String,
        /// The next sequence that it wants.
        next: u64,
    },
    /// Looks at everything that can be wrong.
    Doctor {
        /// A person says that the clock is right.
        confirm_clock: bool,
    },
    /// A person approves a partner's request to erase.
    ErasureApprove {
        /// The request's id, or its beginning.
        id: String,
        /// Why, for the other side and the ledger.
        reason: String,
    },
    /// Sets or releases a legal hold.
    ErasureHold {
        /// The stream: a name, `ORG/STREAM` or origin.
        stream: String,
        /// Whether it holds.
        held: bool,
        /// Why, for the ledger and for who asks.
        reason: String,
    },
    /// Requests to erase, ours and those of partners.
    ErasureLs {
        /// Only about this stream.
        stream: Option<String>,
    },
    /// A person decides against a partner's request to erase.
    ErasureRefuse {
        /// The request's id, or its beginning.
        id: String,
        /// Why, for the other side and the ledger.
        reason: String,
    },
    /// Writes evidence for an auditor.
    EvidenceExport {
        /// The stream.
        stream: String,
        /// First sequence; absent = the beginning.
        from: Option<u64>,
        /// Sequence after the last; absent = the end.
        to: Option<u64>,
        /// An absolute path: a directory, or a file that ends in `.tar`.
        out: String,
    },
    /// Takes in a time-stamp token over a checkpoint.
    EvidenceTimestampAttach {
        /// The stream.
        stream: String,
        /// The checkpoint's note.
        checkpoint: String,
        /// The authority's answer or the token alone, in base64.
        token: String,
    },
    /// Writes what a time-stamping authority is asked about a checkpoint.
    EvidenceTimestampQuery {
        /// The stream.
        stream: String,
        /// Which checkpoint; absent = the newest.
        size: Option<u64>,
        /// An absolute path that ends in `.tsq`.
        out: String,
    },
    /// The organization's keys.
    KeyLs,
    /// Takes a key back.
    KeyRevoke {
        /// Its fingerprint, the beginning of it, or a role: the one in use.
        key: String,
        /// Why, for partners and auditors.
        reason: String,
        /// An absolute path of the organization key's file, where it is kept elsewhere.
        organization_key: Option<String>,
    },
    /// Puts another key into the place of one.
    KeyRotate {
        /// `node`, `log`, `agreement`, `receipt`, `witness` or `organization`.
        role: String,
        /// Seconds that the key before still counts; at least 60.
        overlap_s: u64,
        /// Seconds that the new key counts; absent = until it is followed.
        period_s: Option<u64>,
        /// An absolute path of the organization key's file, where it is kept elsewhere.
        organization_key: Option<String>,
        /// An absolute path for a new organization key; absent = the data directory.
        out: Option<String>,
    },
    /// Ledger entries.
    LedgerLs {
        /// Only about this partner.
        partner: Option<String>,
        /// Only about this stream.
        stream: Option<String>,
        /// Only of this kind.
        kind: Option<String>,
        /// Not before this time (RFC 3339).
        since: Option<String>,
        /// Before this time (RFC 3339).
        until: Option<String>,
        /// At most so many, the newest.
        limit: u32,
    },
    /// Makes the view again from the logs.
    LedgerRebuild,
    /// Compares the view with the logs.
    LedgerVerify,
    /// Says yes to a joiner who waits.
    PartnerConfirm {
        /// The invitation's id.
        invitation: String,
        /// The joiner's fingerprint, where several wait.
        key: Option<String>,
    },
    /// One partner.
    PartnerInfo {
        /// Its name or authority.
        partner: String,
        /// Whether its domain is asked for its key statement first.
        check_domain: bool,
    },
    /// Makes an invitation link.
    PartnerInvite {
        /// The stream's name: ours, or with `consume` the partner's.
        stream: String,
        /// The inviter reads, and the joiner publishes.
        consume: bool,
        /// Seconds until the link is void.
        expires_s: u64,
        /// Seconds that the agreement runs; absent = until it is ended.
        period_s: Option<u64>,
        /// Only this organization key (fingerprint) may redeem it.
        for_key: Option<String>,
        /// A person confirms the joiner.
        confirm: bool,
        /// The plan of the stream that the agreement is made under; absent = one without limits.
        plan: Option<String>,
        /// Exposure window; absent = as configured.
        exposure_events: Option<u64>,
        /// The members of each event's data that are shown; absent = all.
        fields: Option<Vec<String>>,
        /// Whether the consumer's node erases what the producer erases, else a person decides; absent = as the plan says, or it does.
        obey: Option<bool>,
    },
    /// Redeems a link whose terms have been shown and accepted.
    PartnerJoin {
        /// The link.
        link: String,
        /// What was accepted.
        accept: Accept,
    },
    /// All partners.
    PartnerLs,
    /// Records what policies may ask about a partner.
    PartnerSet {
        /// Its name or authority.
        partner: String,
        /// Where it is established; absent = nothing is said.
        region: Option<String>,
    },
    /// Ends all agreements with a partner and refuses it from now on.
    PartnerRevoke {
        /// Its name or authority.
        partner: String,
        /// Why, for the other side and the ledger.
        reason: String,
    },
    /// A person decides to go on with a partner whose receipts contradicted each other.
    PartnerSettle {
        /// Its name or authority.
        partner: String,
        /// Why, for the ledger.
        reason: String,
    },
    /// Makes a token for published logs, or withdraws one.
    PartnerToken {
        /// The partner's name or authority.
        partner: String,
        /// Seconds until it ends.
        expires_s: u64,
        /// The id of the one to withdraw; absent = make one.
        withdraw: Option<String>,
    },
    /// Asks the inviter for the terms behind a link; changes nothing.
    PartnerTerms {
        /// The link.
        link: String,
    },
    /// Dials a partner and measures the round trip.
    Ping {
        /// Its name or authority.
        partner: String,
        /// How many times.
        count: u32,
    },
    /// The plans of a stream of ours, or of all.
    PlanLs {
        /// Only of this stream.
        stream: Option<String>,
    },
    /// Declares the plans of a stream of ours.
    PlanSet {
        /// Its name.
        stream: String,
        /// All of them.
        plans: Plans,
    },
    /// Loads the policies as they are on disk and says what is wrong with them.
    PolicyCheck,
    /// Decides a made-up request and says why.
    PolicyExplain {
        /// What is made up.
        question: PolicyQuestion,
    },
    /// Runs files of example decisions against the policies.
    PolicyTest {
        /// Absolute paths of the files or folders; empty = `policies/tests` of the node.
        files: Vec<String>,
    },
    /// Turns the connection over to the protocol's publish frames.
    Publish,
    /// Receipts.
    ReceiptLs {
        /// Only with this partner.
        partner: Option<String>,
        /// Only of this stream.
        stream: Option<String>,
        /// At most so many, the newest.
        limit: u32,
    },
    /// Heads, lags, and why something waits.
    Status,
    /// Says who may read a stream's published log.
    StreamAccess {
        /// Its name.
        stream: String,
        /// Anybody, or who shows a token.
        open: bool,
    },
    /// Sets or shows whose signatures a stream's events bear.
    StreamAuthors {
        /// Its name.
        stream: String,
        /// Absent = show it.
        set: Option<AuthorRule>,
    },
    /// Proves that a stream has only grown between two of its checkpoints.
    StreamConsistency {
        /// Its name, `ORG/STREAM` or origin.
        stream: String,
        /// Size of the older checkpoint.
        old: u64,
        /// Size of the newer; absent = the newest.
        new: Option<u64>,
        /// An absolute path that ends in `.tlog-consistency`.
        out: String,
    },
    /// Opens a stream.
    StreamCreate {
        /// Its name.
        stream: String,
        /// What it is, for people.
        title: Option<String>,
        /// Words that policies can ask for.
        labels: Vec<String>,
        /// Whether each top-level member of the data is committed to by itself.
        fields: bool,
        /// Whose signatures its events bear; absent = nobody's are known.
        author: Option<AuthorRule>,
        /// The stream of ours that it takes the place of.
        cites: Option<String>,
        /// Who can read its data.
        encryption: Encryption,
        /// Entries after which a new epoch begins; 0 = never.
        epoch_entries: u64,
        /// Seconds after which a new epoch begins; 0 = never.
        epoch_seconds: u64,
    },
    /// Begins a new epoch of an encrypted stream.
    StreamRotate {
        /// Its name.
        stream: String,
    },
    /// Erases one event's content, here and, as agreed, at partners.
    StreamErase {
        /// Its name.
        stream: String,
        /// Which event.
        sequence: u64,
        /// Why. It stays in the log.
        reason: String,
    },
    /// Sets or shows how long a stream keeps content.
    StreamRetention {
        /// Its name.
        stream: String,
        /// Absent = show it.
        set: Option<Retention>,
    },
    /// One stream.
    StreamInfo {
        /// Its name, `ORG/STREAM` or origin.
        stream: String,
    },
    /// Events, each sealed to an outsider's key.
    StreamJwe {
        /// Its name, `ORG/STREAM` or origin.
        stream: String,
        /// First sequence.
        from: u64,
        /// First sequence not in it; absent = all that there are.
        to: Option<u64>,
        /// The recipient's JWK.
        recipient: String,
    },
    /// Own streams and copies.
    StreamLs,
    /// Proves that an event is in a stream.
    StreamProof {
        /// Its name, `ORG/STREAM` or origin.
        stream: String,
        /// Which entry.
        sequence: u64,
        /// Under the first checkpoint over it that a time-stamping authority has stamped, with the token.
        timestamped: bool,
        /// The members of its data that are disclosed; absent = all of it.
        fields: Option<Vec<String>>,
        /// An absolute path that ends in `.tlog-proof`, or in `.cose` for a COSE receipt.
        out: String,
    },
    /// Writes where a stream's entries came from and who received them.
    StreamProvenance {
        /// Its name, `ORG/STREAM` or origin.
        stream: String,
        /// First sequence; absent = 0.
        from: Option<u64>,
        /// First sequence not in it; absent = the newest signed head.
        to: Option<u64>,
        /// An absolute path.
        out: String,
    },
    /// The newest entries of a log, control entries too.
    StreamTail {
        /// Its name, `ORG/STREAM` or origin.
        stream: String,
        /// How many to begin with.
        count: u64,
        /// Go on with what comes.
        follow: bool,
    },
    /// Events from the verified copy.
    Subscribe {
        /// `ORG/STREAM` or an origin.
        stream: String,
        /// Where to begin; absent = at the application's cursor, or at the start.
        from: Option<StartAt>,
        /// At most so many.
        count: Option<u64>,
        /// Go on with what comes.
        follow: bool,
        /// The application whose cursor is used.
        app: Option<String>,
        /// Canonical text of the filter that events have to pass; absent = all do.
        #[serde(default)]
        filter: Option<String>,
        /// Only what is witnessed.
        witnessed: bool,
    },
    /// Compares a checkpoint from elsewhere with what is held here.
    WitnessCompare {
        /// The signed note.
        checkpoint: String,
    },
    /// Who cosigns our streams, and what was cosigned here.
    WitnessLs,
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum StartAt {
    /// After the newest.
    Now,
    /// At this sequence.
    Sequence(u64),
    /// At the beginning.
    Start,
    /// At the first entry of this time or later, in microseconds since 1970, UTC.
    Time(u64),
}

/// What a person, or `--yes`, has agreed to.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Accept {
    /// SHA-256 of the agreement payload that was shown, in hexadecimal; other terms are refused.
    pub payload_sha256: String,
}

impl Command {
    /// Whether there is nothing to finish for somebody who has gone: such a command ends with its connection.
    #[must_use]
    pub fn ends_with_connection(&self) -> bool {
        matches!(
            self,
            Self::LedgerLs { .. }
                | Self::Ping { .. }
                | Self::ReceiptLs { .. }
                | Self::Status
                | Self::StreamTail { .. }
                | Self::Subscribe { .. }
        )
    }
}

/// What comes back.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Reply {
    /// The whole answer, as one document.
    Value(Value),
    /// One of many, a line of NDJSON.
    Item(Value),
    /// One of many, as the line of JSON that it is: an event, whose payload is not to be rewritten.
    Line(String),
    /// How far it is.
    Progress {
        /// Done so far.
        done: u64,
        /// Out of so many, where that is known.
        total: Option<u64>,
        /// Of what: `bytes`, `events`, `entries`.
        unit: String,
    },
    /// The command is finished.
    Done,
    /// The command has failed.
    Error {
        /// The stable code; from a newer node it may be one that is not known here.
        code: String,
        /// What happened.
        message: String,
        /// What would help.
        advice: Option<String>,
        /// The exit code that goes with it.
        exit: u8,
    },
}

impl Reply {
    /// One of many, parsed where it is a line; `None` for other replies.
    #[must_use]
    pub fn item(&self) -> Option<Value> {
        match self {
            Self::Item(item) => Some(item.clone()),
            Self::Line(line) => serde_json::from_str(line).ok(),
            _ => None,
        }
    }
}

impl From<CommandError> for Reply {
    fn from(error: CommandError) -> Self {
        Self::Error {
            code: error.code.as_str().to_owned(),
            exit: crate::cli::Exit::from(error.code).code(),
            message: error.message,
            advice: error.advice,
        }
    }
}

/// The failure that a reply tells of.
pub(super) fn error_of(code: &str, message: String, advice: Option<String>) -> CommandError {
    let known = ErrorCode::ALL.iter().find(|known| known.as_str() == code);
    CommandError {
        // Node and program are of one version, so that this is a mistake of ours.
        code: known.copied().unwrap_or(ErrorCode::Internal),
        message,
        advice,
    }
}
