//! The state of an agreement: a function of the documents held about it and of time, and of nothing else. `schemas/agreement-states.md`.
//!
//! Whoever holds the same documents computes the same state, in whatever order they came. A document that may not do what it says where it stands is named and not
//! obeyed. No I/O, no clock, no keys: whoever calls has verified the signatures, and says whose they are.

mod machine;

use countersign_crypto::Hash;

use crate::documents::{
    Agreement, AgreementId, Document as _, DocumentError, Proposal, Step, StepKind, Termination,
};
use crate::dsse::Envelope;
use crate::names::{Authority, Origin};
use crate::time::Timestamp;

pub use machine::state;

/// A document about an agreement.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AgreementDocument {
    /// The agreement itself; under one signature an acceptance. One of another name that supersedes it belongs here too.
    Agreement(Box<Agreement>),
    /// A proposal, or one that counters it.
    Proposal(Box<Proposal>),
    /// Another step.
    Step(Step),
    /// Its end by one side.
    Termination(Termination),
}

impl AgreementDocument {
    /// Reads the document without any verification, to learn whose signature it needs.
    ///
    /// # Errors
    /// [`DocumentError`]; also where it is no document about an agreement.
    pub fn peek(envelope: &Envelope) -> Result<Self, DocumentError> {
        match envelope.payload_type() {
            Agreement::PAYLOAD_TYPE => {
                Agreement::peek(envelope).map(|document| Self::Agreement(Box::new(document)))
            }
            Proposal::PAYLOAD_TYPE => {
                Proposal::peek(envelope).map(|document| Self::Proposal(Box::new(document)))
            }
            Termination::PAYLOAD_TYPE => Termination::peek(envelope).map(Self::Termination),
            _ => Step::peek(envelope).map(Self::Step),
        }
    }

    /// The log that it is about.
    #[must_use]
    pub fn stream(&self) -> &Origin {
        match self {
            Self::Agreement(agreement) => &agreement.stream,
            Self::Proposal(proposal) => &proposal.stream,
            Self::Step(step) => &step.stream,
            Self::Termination(end) => &end.stream,
        }
    }

    /// The side that says it signed; nobody in particular for an agreement.
    #[must_use]
    pub fn by(&self) -> Option<&Authority> {
        match self {
            Self::Agreement(_) => None,
            Self::Proposal(proposal) => Some(&proposal.by),
            Self::Step(step) => Some(&step.by),
            Self::Termination(end) => Some(&end.by),
        }
    }

    /// When it was signed, as its signer says.
    #[must_use]
    pub fn made(&self) -> Timestamp {
        match self {
            Self::Agreement(agreement) => agreement.made,
            Self::Proposal(proposal) => proposal.made,
            Self::Step(step) => step.made,
            Self::Termination(end) => end.made,
        }
    }

    /// The agreement that it is about.
    #[must_use]
    pub fn agreement(&self) -> AgreementId {
        match self {
            Self::Agreement(agreement) => agreement.id,
            Self::Proposal(proposal) => proposal.agreement,
            Self::Step(step) => step.agreement,
            Self::Termination(end) => end.agreement,
        }
    }
}

/// A document whose signatures have been verified.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HeldDocument {
    /// SHA-256 of its payload: its name in other documents.
    pub digest: Hash,
    /// The organizations whose signature it bears. One document under one signature and under another is one document under both.
    pub signed_by: Vec<Authority>,
    /// What it says.
    pub document: AgreementDocument,
}

/// How an agreement ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum End {
    /// One side says that its purpose is fulfilled.
    Completed,
    /// Its time, or the time to accept a proposal, is over.
    Expired,
    /// The proposal was refused.
    Refused,
    /// Another agreement took its place.
    Superseded,
    /// One side ended it.
    Terminated,
    /// The proposal was taken back.
    Withdrawn,
}

/// The state's name.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Name {
    /// One side has signed what the other proposed; the other one has not signed yet.
    Accepted,
    /// Both have signed, and it has begun.
    Active,
    /// Both have signed, and it has not begun.
    Agreed,
    /// A proposal answers one of the other side.
    Countered,
    /// It gives nothing any more, and never will.
    Ended(End),
    /// No document here begins an agreement.
    Nothing,
    /// A first proposal waits for the other side.
    Proposed,
    /// Both have signed; nothing is delivered until it is resumed.
    Suspended,
}

impl Name {
    /// The word, as in commands and tables.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Active => "active",
            Self::Agreed => "agreed",
            Self::Countered => "countered",
            Self::Ended(End::Completed) => "completed",
            Self::Ended(End::Expired) => "expired",
            Self::Ended(End::Refused) => "refused",
            Self::Ended(End::Superseded) => "superseded",
            Self::Ended(End::Terminated) => "terminated",
            Self::Ended(End::Withdrawn) => "withdrawn",
            Self::Nothing => "nothing",
            Self::Proposed => "proposed",
            Self::Suspended => "suspended",
        }
    }

    /// Whether it is over for good.
    #[must_use]
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Ended(_))
    }

    /// Whether the sides still talk about the terms.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Accepted | Self::Countered | Self::Proposed)
    }
}

/// Why a state is what it is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Cause {
    /// In one word: that of a suspension, or what the state's name says.
    pub word: &'static str,
    /// Whose document it was; absent where it is time alone.
    pub by: Option<Authority>,
    /// The words for people in that document.
    pub reason: String,
    /// The digest of that document; absent where it is time alone.
    pub document: Option<Hash>,
    /// The first sequence that is not delivered any more, where the document says so.
    pub position: Option<u64>,
}

/// What a side can do next.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum May {
    /// Sign what is proposed.
    Accept,
    /// Propose an agreement that takes its place.
    Amend,
    /// Say that its purpose is fulfilled.
    Complete,
    /// Add the signature that is missing.
    Countersign,
    /// Answer with other terms.
    Counter,
    /// Say no.
    Refuse,
    /// Lift its own suspension.
    Resume,
    /// Stop deliveries.
    Suspend,
    /// End it.
    Terminate,
    /// Take its proposal back.
    Withdraw,
}

impl May {
    /// The word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Amend => "amend",
            Self::Complete => "complete",
            Self::Countersign => "countersign",
            Self::Counter => "counter",
            Self::Refuse => "refuse",
            Self::Resume => "resume",
            Self::Suspend => "suspend",
            Self::Terminate => "terminate",
            Self::Withdraw => "withdraw",
        }
    }
}

/// Why a document is not obeyed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
pub enum Disobeyed {
    /// The agreement had ended when it was made.
    #[error("the agreement had ended when it was made")]
    AfterTheEnd,
    /// It is made later than what it acts on can be acted on.
    #[error("it is made after the deadline of the proposal")]
    AfterTheDeadline,
    /// Its deadline or period is over before it begins.
    #[error("its deadline or period is over before it begins")]
    NoTime,
    /// What it acts on is not there, was answered already, or is something else.
    #[error("what it acts on is not open: unknown, answered already, or something else")]
    NotOpen,
    /// It is made before there is an agreement that it could act on, or after there is one.
    #[error("nothing of the kind can be done in the state in which it finds the agreement")]
    OutOfPlace,
    /// It changes what a counter-proposal or acceptance leaves as it is.
    #[error(
        "it differs from what it answers where it may not: parties, stream, what it replaces, or the terms that it accepts"
    )]
    OtherTerms,
    /// There were rounds enough.
    #[error("the rounds of proposals are used up")]
    TooManyRounds,
    /// It is not signed by the side whose turn or right it is.
    #[error("it is not signed by the side that may do this")]
    WrongSigner,
}

impl Disobeyed {
    /// The word, as in `schemas/agreement-states.md`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::AfterTheEnd => "after-the-end",
            Self::AfterTheDeadline => "after-the-deadline",
            Self::NoTime => "no-time",
            Self::NotOpen => "not-open",
            Self::OtherTerms => "other-terms",
            Self::OutOfPlace => "out-of-place",
            Self::TooManyRounds => "too-many-rounds",
            Self::WrongSigner => "wrong-signer",
        }
    }
}

/// The state of an agreement at a time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct State {
    /// Its name.
    pub name: Name,
    /// Why.
    pub cause: Cause,
    /// Since when.
    pub since: Timestamp,
    /// When time alone changes it, if no document does before.
    pub until: Option<Timestamp>,
    /// Who may do what next: the producer first, then the consumer.
    pub next: Vec<(Authority, Vec<May>)>,
    /// The digest of the payload that a document which acts on the agreement now names: of the open proposal, or of the agreement.
    pub acts_on: Option<Hash>,
    /// Open suspensions: who, and the digest of the document.
    pub suspended_by: Vec<(Authority, Hash)>,
    /// Documents that are not obeyed, by digest, in the order of the digests.
    pub not_obeyed: Vec<(Hash, Disobeyed)>,
}

impl State {
    /// What a side may do next.
    #[must_use]
    pub fn may(&self, side: &Authority, what: May) -> bool {
        let of_side = self.next.iter().filter(|(who, _)| who == side);
        of_side.flat_map(|(_, may)| may).any(|may| *may == what)
    }

    /// Why a document is not obeyed, if it is not.
    #[must_use]
    pub fn disobeys(&self, digest: &Hash) -> Option<Disobeyed> {
        let mut named = self.not_obeyed.iter();
        named
            .find(|(named, _)| named == digest)
            .map(|(_, why)| *why)
    }
}

/// The word of a step's kind.
const fn step_word(kind: StepKind) -> &'static str {
    match kind {
        StepKind::Complete => "completed",
        StepKind::Refuse => "refused",
        StepKind::Resume => "resumed",
        StepKind::Suspend => "suspended",
        StepKind::Withdraw => "withdrawn",
    }
}
