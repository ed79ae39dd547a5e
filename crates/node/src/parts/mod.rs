//! What the program does beside commands to a node: serving, publishing files, reading without a node, verifying evidence.

pub mod serve;

use std::sync::Arc;

use crate::admin::{BoxFuture, Handler, OpenLocal};
use crate::cli::Exit;
use crate::cli::{Output, Parts};
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
            let node: Arc<dyn Handler> = Arc::new(LocalNode::new(
                exchange,
                settings.config,
                dir.policies_dir(),
            ));
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
}
