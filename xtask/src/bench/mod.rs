//! `cargo xtask bench`: the release program measured as a whole, beside the raw limits of the machine and, where asked for, beside a peer.
//!
//! ```text
//! cargo xtask bench                              our own table
//! cargo xtask bench --against nats --write       beside NATS JetStream, and into docs/benchmarks.md
//! ```
//!
//! Each round runs every measure once, ours and the peer's in turn, so that whatever else the machine does hits both; given are median, lowest
//! and highest of the rounds. In scope: the plan, the peer's server, the tables. Elsewhere: measuring ourselves is `countersign bench`, and each
//! measure here is one call of it.

mod full;
mod machine;
mod nats;
#[cfg(feature = "nats")]
mod nats_driver;
mod options;
mod ours;
mod plan;
pub(crate) mod quick;
mod report;
mod statistics;

use std::path::Path;

use crate::Failure;

/// Picks the form that is asked for.
pub(crate) fn run(root: &Path, arguments: &[&str]) -> Result<(), Failure> {
    match arguments {
        ["--help" | "-h"] => {
            print!("{}", options::USAGE);
            Ok(())
        }
        // What this program calls itself for, with the peer's client linked.
        #[cfg(feature = "nats")]
        ["nats-driver", task] => nats_driver::run(task),
        arguments => full::run(root, &options::parse(arguments)?),
    }
}
