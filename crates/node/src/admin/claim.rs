use std::time::Duration;

use tokio::time::Instant;

use super::AdminClient;
use crate::data_dir::{DataDir, DataDirError, DirLock, Taken};
use crate::errors::CommandError;

/// How long whoever finds a data directory locked waits for it. Between two commands, or a command and a `serve` that begins or ends, it is a matter of
/// milliseconds; a person who typed the second command should hear of a directory that stays locked before wondering.
pub const LOCK_WAIT_MAX: Duration = Duration::from_secs(5);

/// How often it is looked at meanwhile: `flock` has no form that waits for a time, and a thread that waits without limit would hold the process back.
const LOCK_LOOK: Duration = Duration::from_millis(20);

/// Who has a data directory.
#[derive(Debug)]
pub(crate) enum Claim {
    /// A node that runs, and answers.
    Running(AdminClient),
    /// Nobody did; now it is ours.
    Free(DirLock),
}

/// Finds the running node of a directory, or takes its lock. What lies between (a command that is still at it, a `serve` whose socket is not there yet or
/// not any more) is waited for, up to [`LOCK_WAIT_MAX`]; `waits` is told once, before the first wait.
pub(crate) async fn claim(
    dir: &DataDir,
    mut waits: impl FnMut(&DataDirError),
) -> Result<Claim, CommandError> {
    let begun = Instant::now();
    let mut is_first = true;
    let mut file = dir.lock_file()?;
    loop {
        if let Some(client) = AdminClient::connect(dir).await? {
            return Ok(Claim::Running(client));
        }
        file = match file.take()? {
            Taken::Mine(lock) => return Ok(Claim::Free(lock)),
            Taken::Theirs(file) => file,
        };
        let locked = file.locked();
        if begun.elapsed() >= LOCK_WAIT_MAX {
            return Err(locked.into());
        }
        if is_first {
            is_first = false;
            waits(&locked);
        }
        tokio::time::sleep(LOCK_LOOK).await;
    }
}

/// Takes the lock for a node that is to run. Where one runs already, waiting would not help.
pub(crate) async fn claim_for_serving(
    dir: &DataDir,
    waits: impl FnMut(&DataDirError),
) -> Result<DirLock, CommandError> {
    match claim(dir, waits).await? {
        Claim::Free(lock) => Ok(lock),
        Claim::Running(_) => Err(dir.lock_file()?.locked().into()),
    }
}
