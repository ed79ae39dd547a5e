//! Cedar authorization: principal, action, resource and context in, decision with reasons out.
//!
//! ```text
//! policies/*.cedar ──► PolicySet::load ── strict validation against policies/countersign.cedarschema
//!                            │
//! Request ──────────► PolicySet::decide ──► Decision { allowed, determining, errors, explanation }
//!   principal  an organization, one of its nodes or applications
//!   action     discover · request · read · publish
//!   resource   a stream
//!   context    the agreement, the plan, the purpose, the credential, the time
//! ```
//!
//! ```
//! use countersign_policy::{Action, Context, Organization, PolicySet, Principal, Request, Stream};
//!
//! let starter = include_str!("../../../policies/starter.cedar");
//! let policies = PolicySet::load(&[("starter.cedar".to_owned(), starter.to_owned())])?;
//! let decision = policies.decide(&Request {
//!     principal: Principal::Organization(Organization {
//!         authority: "stranger.example".to_owned(),
//!         ..Organization::default()
//!     }),
//!     action: Action::Read,
//!     resource: Stream {
//!         name: "quakes".to_owned(),
//!         origin: "acme.example/streams/quakes".to_owned(),
//!         owner: "acme.example".to_owned(),
//!         ..Stream::default()
//!     },
//!     context: Context::default(),
//! });
//! assert!(!decision.allowed);
//! assert_eq!(
//!     decision.explanation.to_string(),
//!     "no policy permits it; what would help: an active agreement that covers this stream (starter/read); \
//!      to belong to the organization that runs this node (starter/own)"
//! );
//! # Ok::<(), countersign_policy::PolicyLoadError>(())
//! ```
//!
//! In scope: reading policy texts, deciding, explaining, and running files of example decisions ([`run_cases`]).
//! Any error is a denial: Cedar alone would skip a policy that fails, so that a failing `forbid` opened the door.
//!
//! Elsewhere: finding and reloading files, the clock, logging decisions and signing refusals (crates `node` and
//! `exchange`), and how much a reader gets, which is a plan's business and not a policy's. The facts in a request are
//! taken as true; whoever builds the request has verified them.

mod cases;
mod decision;
mod deep;
mod facts;
mod fault;
mod load;
mod nesting;
mod reads;
mod request;
mod scope;
mod set;

pub use cases::{CaseFileError, CaseResult, case_policies, run_cases};
pub use decision::{Decision, Explanation, PolicyId, PolicyNote, Reason};
pub use facts::Fact;
pub use fault::{PolicyFault, PolicyLoadError};
pub use load::{
    NESTING_MAX, OPERATORS_MAX, POLICIES_MAX, POLICY_BYTES_MAX, POLICY_TEXT_BYTES_MAX, SCHEMA,
};
pub use request::{
    Action, Agreement, Context, Credential, Member, Organization, Principal, Request, Stream,
};
pub use set::PolicySet;
