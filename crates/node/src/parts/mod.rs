//! What the program does beside commands to a node: serving, publishing files, reading without a node, verifying evidence.

mod bench;
mod demo;
mod profile;
mod publish;
pub mod serve;
mod verify;

use std::sync::Arc;

use crate::admin::{BoxFuture, Handler, Node, OpenLocal};
use crate::cli::{
    BenchVerb, CommandResult, DemoArgs, Exit, JoinArgs, Output, Parts, PublishArgs, SubscribeArgs,
    VerifyArgs,
};
use crate::commands::LocalNode;
use crate::config::{Config, Loaded};
use crate::data_dir::{DataDir, Environment};
use crate::errors::CommandError;
use crate::open::open;

/// The whole program.
#[derive(Clone, Copy, Debug)]
pub struct AllParts;

impl OpenLocal for AllParts {
    fn open_local<'a>(
        &'a self,
        dir: &'a DataDir,
    ) -> BoxFuture<'a, Result<Arc<dyn Handler>, CommandError>> {
        Box::pin(async move {
            let settings = Config::load(Some(&dir.config_file()), &Environment::read(), &[])?;
            let exchange = open(dir, &settings.config).await?;
            let node: Arc<dyn Handler> =
                Arc::new(LocalNode::new(exchange, settings.config, dir.clone()));
            Ok(node)
        })
    }
}

impl Parts for AllParts {
    fn serve<'a>(
        &'a self,
        dir: &'a DataDir,
        settings: &'a Loaded,
        output: &'a mut Output,
    ) -> BoxFuture<'a, Result<Exit, CommandError>> {
        Box::pin(serve::serve(dir, settings, output))
    }

    fn publish<'a>(
        &'a self,
        args: &'a PublishArgs,
        node: &'a Node,
        output: &'a mut Output,
    ) -> BoxFuture<'a, Result<Exit, CommandError>> {
        Box::pin(publish::publish(args, node, output))
    }

    fn join_profile<'a>(
        &'a self,
        args: &'a JoinArgs,
        output: &'a mut Output,
    ) -> BoxFuture<'a, Result<Exit, CommandError>> {
        Box::pin(profile::join_profile(args, output))
    }

    fn subscribe_profile<'a>(
        &'a self,
        args: &'a SubscribeArgs,
        output: &'a mut Output,
    ) -> BoxFuture<'a, Result<Exit, CommandError>> {
        Box::pin(profile::subscribe_profile(args, output))
    }

    fn evidence_verify<'a>(
        &'a self,
        args: &'a VerifyArgs,
        output: &'a mut Output,
    ) -> BoxFuture<'a, Result<Exit, CommandError>> {
        Box::pin(verify::evidence_verify(args, output))
    }

    fn demo<'a>(
        &'a self,
        args: &'a DemoArgs,
        output: &'a mut Output,
    ) -> BoxFuture<'a, Result<Exit, CommandError>> {
        Box::pin(demo::demo(args, output))
    }

    fn bench<'a>(
        &'a self,
        verb: &'a BenchVerb,
        output: &'a mut Output,
    ) -> BoxFuture<'a, CommandResult> {
        Box::pin(bench::bench(verb, output))
    }
}
