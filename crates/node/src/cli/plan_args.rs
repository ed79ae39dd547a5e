//! What people type after `plan`.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum PlanVerb {
    /// Read a file of plans, and say what is wrong with it or which digests they have; needs no node
    #[command(after_help = "Example:\n  countersign plan check quakes.toml")]
    Check {
        /// TOML, or JSON where its name ends in .json (schemas/plans.v1.json); `-` reads TOML from stdin
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Declare the plans of a stream, in place of those that it has; agreements keep the plan that they were made under
    #[command(
        after_help = "A file:\n\n  [[plans]]\n  name = \"metered\"\n  exposure_events = 1000\n  erasure = \"obey\"\n  \
        rate = { events_per_second = 500, burst_events = 2000 }\n  quota = { period = \"month\", events = 1000000, bytes = 1073741824 }\n  \
        history = { seconds = 604800 }\n\n\
        On a stream made with `--commit fields`, fields = [\"item\"] shows these members of each event's data. \
        A member that is left out sets no limit; `period` is `day`, `month`, or seconds such as `3600s`.\n\n\
        Example:\n  countersign plan set quakes quakes.toml"
    )]
    Set {
        /// The stream's name
        stream: String,
        /// TOML, or JSON where its name ends in .json; `-` reads TOML from stdin
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// List the plans of a stream, or of all streams
    #[command(visible_alias = "list")]
    Ls {
        /// The stream's name
        stream: Option<String>,
    },
}
