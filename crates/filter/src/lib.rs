//! Filters on the attributes of events: the dialects of CloudEvents Subscriptions (`exact`, `prefix`, `suffix`, `all`, `any`, `not`) and `sql`, which is
//! CESQL 1.0.
//!
//! ```
//! use countersign_event::attributes::AttributesBuilder;
//! use countersign_filter::Filter;
//!
//! let filter = Filter::from_expression("type LIKE 'org.example.%' AND NOT EXISTS subject")?;
//! let attributes = AttributesBuilder::new("7", "/sensors/1", "org.example.reading").build()?;
//! assert!(filter.matches(&attributes));
//! assert_eq!(
//!     filter.canonical(),
//!     r#"[{"sql":"type LIKE 'org.example.%' AND NOT EXISTS subject"}]"#
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A filter has one canonical text, and the SHA-256 of that is its digest ([`Filter::digest`]). It is evaluated on the canonical attribute bytes as they are stored, and
//! never sees data. Everything about it is bounded: text, depth, nodes, names, and the work that one event can cause. `schemas/filter.md` is the page of this crate.
//!
//! In scope: reading, canonical form, evaluation. Elsewhere: what becomes of events that do not match (`protocol`, `exchange`).

mod dialect;
mod error;
mod expression;
mod json;
mod slots;

pub use dialect::{DIALECT_DEPTH_MAX, Filter};
pub use error::{FilterError, FilterErrorKind};
pub use expression::{
    DEPTH_MAX, ErrorKind, Evaluation, Expression, Failure, NODES_MAX, Output, Type, WORK_MAX,
};
pub use slots::NAMES_MAX;

/// Bytes of a filter's text, as it is handed in and in its canonical form: room for a few hundred comparisons, and a small part of a control frame.
pub const TEXT_BYTES_MAX: usize = 4096;
