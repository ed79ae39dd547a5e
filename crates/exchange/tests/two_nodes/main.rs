//! The pipeline between whole nodes, without sockets: what is promised, and what hostile partners, disks and clocks try.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "a test may panic; each file uses its part of the harness"
)]

mod access;
mod agreements;
mod authors;
mod deliver;
mod disk_and_clock;
mod domain;
mod encryption;
mod erasure;
mod excluded;
mod fields;
mod filter;
mod hostile;
mod identity;
mod keys;
mod ledger;
mod ledger_heads;
mod limits;
mod onboarding;
mod outside;
mod power_loss;
mod publish;
mod restored;
mod support;
mod witness;
