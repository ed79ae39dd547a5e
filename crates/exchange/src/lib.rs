//! The pipeline of one event on both sides, as stages; owns no socket and no clock.
//!
//! ```text
//! ingest → seal → append → deliver ──QUIC──▶ consume → receipt ──▶ receipt → ledger
//! ```
//!
//! [`Exchange`] is one node's state: its logs, its ledger, its policies, and the doors that sessions and commands knock at. Stages are in
//! [`pipeline`], one file each. Sockets are in crate `transport`, files and SQL in crate `store`.

mod access;
mod agreements;
mod authors;
mod clock;
mod contradictions;
mod domain;
mod erasure;
mod exchange;
mod explaining;
mod forks;
mod identity;
mod keyring;
mod keys;
mod log;
mod onboarding;
mod outside;
pub mod pipeline;
mod plans;
mod published;
mod refusal;
mod registry;
mod restored;
mod status;
mod witness;
mod witnessed;

pub use access::{Peer, PeerError};
pub use agreements::{
    AgreementEntry, DOCUMENTS_MAX, HeldDocuments, ListedStream, OPEN_PROPOSALS_MAX, RequestOptions,
    Talks,
};
pub use authors::AuthorBook;
pub use clock::{CLOCK_JUMP_MAX, Clock, ClockJump};
pub use domain::{
    DOMAIN_STATEMENT_BYTES_MAX, FoundAtDomain, KEY_STATEMENT_PATH, key_statement_url,
};
pub use erasure::{EraseFault, Erased, ErasureBook, OPEN_REQUESTS_MAX, RequestState, read_allows};
pub use exchange::{
    Evidence, Exchange, ExchangeError, ExchangeParts, LedgerLogs, PUBLISH_WINDOW_BYTES,
    PublishSession, StreamError, StreamOptions,
};
pub use forks::{Compared, ComparedVerdict, Examined};
pub use identity::{HeadSignatures, Identity};
pub use keyring::{KeyFault, Keyring};
pub use keys::HeldRevocation;
pub use log::{Cites, Log, LogHead, LogSettings};
pub use onboarding::{InviteOptions, OnboardingError, fingerprint_of};
pub use outside::{OUTSIDE_WITNESSES_MAX, OutsideWitness, OutsideWitnessError, WitnessId};
pub use plans::SetPlansError;
pub use published::{
    MadeToken, Published, PublishedFault, PublishedFile, PublishedPath, PublishedPathError,
    token_digest, token_id,
};
pub use refusal::Refused;
pub use registry::{
    AgreementState, DomainProof, GivenKey, InvitationState, LastReceipt, Partner, Registry,
    TokenState, slug,
};
pub use restored::{FetchedBack, Heard};
pub use status::{Direction, SubscriptionStatus};
pub use witness::{
    ADD_CHECKPOINT_BODY_MAX, ADD_CHECKPOINTS_MAX, WitnessAnswer, WitnessSettings, witness_name,
};
pub use witnessed::{SUBMIT_EVERY, Said, Submission, WitnessStanding, WitnessedHead};
