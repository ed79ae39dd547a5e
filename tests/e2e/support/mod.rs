//! Nodes as processes of their own: made, started, killed, asked. Every process ends with its handle, on panic too.
#![allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]

mod process;
mod publisher;

pub(crate) use process::{Fetched, Node, Root, wait_until};
pub(crate) use publisher::{Publisher, expected_data, publish_as_child, try_publish};
