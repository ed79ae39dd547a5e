use std::sync::Arc;

use super::{BenchVerb, DemoArgs, Exit, JoinArgs, Output, PublishArgs, SubscribeArgs, VerifyArgs};
use crate::admin::{BoxFuture, Handler, Node, OpenLocal};
use crate::config::Loaded;
use crate::data_dir::DataDir;
use crate::errors::CommandError;

/// A command's end: its exit code, or why it failed.
pub type CommandResult = Result<Exit, CommandError>;

/// What a build brings along beside the node's commands. A part that is left out says so when it is called.
pub trait Parts: OpenLocal {
    /// Runs the node until a signal.
    fn serve<'a>(
        &'a self,
        _dir: &'a DataDir,
        _settings: &'a Loaded,
        _output: &'a mut Output,
    ) -> BoxFuture<'a, CommandResult> {
        missing("serve")
    }

    /// Hands in events through [`crate::admin::Channel::publish`].
    fn publish<'a>(
        &'a self,
        _args: &'a PublishArgs,
        _node: &'a Node,
        _output: &'a mut Output,
    ) -> BoxFuture<'a, CommandResult> {
        missing("publish")
    }

    /// Joins without a node.
    fn join_profile<'a>(
        &'a self,
        _args: &'a JoinArgs,
        _output: &'a mut Output,
    ) -> BoxFuture<'a, CommandResult> {
        missing("partner join --profile")
    }

    /// Reads without a node.
    fn subscribe_profile<'a>(
        &'a self,
        _args: &'a SubscribeArgs,
        _output: &'a mut Output,
    ) -> BoxFuture<'a, CommandResult> {
        missing("subscribe --profile")
    }

    /// Verifies evidence.
    fn evidence_verify<'a>(
        &'a self,
        _args: &'a VerifyArgs,
        _output: &'a mut Output,
    ) -> BoxFuture<'a, CommandResult> {
        missing("evidence verify")
    }

    /// Tells the story.
    fn demo<'a>(
        &'a self,
        _args: &'a DemoArgs,
        _output: &'a mut Output,
    ) -> BoxFuture<'a, CommandResult> {
        missing("demo")
    }

    /// Measures.
    fn bench<'a>(
        &'a self,
        _verb: &'a BenchVerb,
        _output: &'a mut Output,
    ) -> BoxFuture<'a, CommandResult> {
        missing("bench")
    }
}

fn missing<'a, T: 'a>(what: &'static str) -> BoxFuture<'a, Result<T, CommandError>> {
    Box::pin(async move { Err(CommandError::not_in_build(what)) })
}

/// Nothing but what this crate does by itself: init, settings, help, completion, and commands to a node that runs already.
#[derive(Clone, Copy, Debug)]
pub struct NoParts;

impl OpenLocal for NoParts {
    fn open_local<'a>(
        &'a self,
        _dir: &'a DataDir,
    ) -> BoxFuture<'a, Result<Arc<dyn Handler>, CommandError>> {
        missing("a node in process")
    }
}

impl Parts for NoParts {}
