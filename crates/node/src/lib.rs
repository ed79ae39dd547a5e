//! The exchange node: configuration, composition, command line.
//!
//! ```text
//! argv ─► cli ─► Command ─► admin ──(node.sock, or in process under the lock)──► Handler ─► exchange
//!            └─► init        └──────────────── Reply ◄──────────────────────────────┘
//! ```
//!
//! In scope: the data directory ([`data_dir`], [`init`], [`keys`]), settings ([`config`]), the clock ([`clock`]), commands and their answers
//! ([`cli`], [`admin`]), and the composition of all crates into one program. Elsewhere: what a command does to events and agreements (crate
//! `exchange`), sockets that partners reach (crate `transport`), the offline auditor (crate `audit`).

pub mod admin;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod data_dir;
pub mod errors;
mod event_line;
pub mod evidence;
pub mod init;
pub mod key_life;
pub mod key_protection;
pub mod keys;
pub mod open;
pub mod parts;
pub mod passphrase;
mod place;
