//! The command line: arguments in, data on stdout, everything else on stderr, one exit code out.
//!
//! In scope: what people type ([`Cli`]), how answers look ([`Output`]), exit codes ([`Exit`]), and which commands go to a node over the
//! command channel. Elsewhere: what the commands do (behind [`crate::admin::Handler`]), and the parts that run without a node, behind [`Parts`].

mod args;
mod bench_args;
mod exit;
pub(crate) mod filter;
mod output;
mod parse;
mod parts;
mod plan_args;
mod render;
mod run;

pub use args::{
    Assurance, Cli, Color, DemoArgs, Global, InitArgs, JoinArgs, PublishArgs, ServeArgs,
    SubscribeArgs, VerifyArgs,
};
pub use bench_args::{
    BenchCatchUpArgs, BenchDeliverArgs, BenchFanOutArgs, BenchIdleArgs, BenchLoad, BenchProveArgs,
    BenchPublishArgs, BenchRawArgs, BenchRestartArgs, BenchRevokeArgs, BenchRuns, BenchVerb,
    BenchVerifyArgs, BenchWindow, Consumer,
};
pub use exit::Exit;
pub use output::Output;
pub use parts::{CommandResult, NoParts, Parts};
pub use render::{Column, Shape, View};

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::data_dir::Environment;
use crate::errors::{CommandError, ErrorCode};

/// Runs the program: reads arguments and environment, and gives the exit code.
#[must_use]
pub fn main(parts: &dyn Parts) -> ExitCode {
    let environment = Environment::read();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout with 0, mistakes to stderr with 2. Whether that can be printed changes nothing.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() {
                Exit::Usage.code()
            } else {
                Exit::Ok.code()
            });
        }
    };
    let mut output = Output::new(&cli.global, &environment);
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            CommandError::new(ErrorCode::Io, format_args!("cannot start threads: {error}"))
        })
        .and_then(|runtime| {
            let result = runtime.block_on(run::run(cli, &environment, parts, &mut output));
            // A thread that waits for stdin would hold up the end for ever.
            runtime.shutdown_background();
            result
        });
    match result {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(error) => {
            output.error(&error);
            ExitCode::from(Exit::from(error.code).code())
        }
    }
}

/// The declaration of all commands, for completion scripts and for the test that keeps every help text.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}
