//! The local command channel: how commands reach a node, running or not.
//!
//! ```text
//! connection = request ─► reply* ─► Done | Error, then the next request
//! request    = frame(0xC0, {"version": 1, "command": {…}})
//! reply      = frame(0xC1, {"item": …})
//! frame      = length u32 (big-endian, of what follows) ‖ kind u8 ‖ body      as between nodes (`schemas/protocol.md`)
//!
//! after the command `publish` and its Done, the connection carries the protocol's own frames 10 to 13 both ways, to its end.
//! ```
//!
//! In scope: the commands and replies, their framing, the socket and who may use it, and the same conversation in process when no node runs
//! ([`with_node`]). Elsewhere: what commands do, behind [`Handler`].

mod channel;
mod claim;
mod command;
mod frame;
mod server;
mod socket;

pub use channel::{Channel, Node, OpenLocal, with_node};
pub use claim::LOCK_WAIT_MAX;
pub(crate) use claim::claim_for_serving;
pub use command::{Accept, Command, PolicyQuestion, Reply, StartAt};
pub use frame::{
    ADMIN_VERSION, AdminError, AdminFrames, COMMAND_BYTES_MAX, FrameReader, FrameWriter,
    KIND_COMMAND, KIND_REPLY, REPLY_BYTES_MAX,
};
pub use server::{BoxFuture, Handler, Out, serve_admin, serve_connection};
pub use socket::{AdminClient, AdminListener};
