//! How many files a process may have open: each connection of a measurement takes one or two.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::errors::{CommandError, ErrorCode};

/// What a process has open beside its connections.
const OTHERS: u64 = 64;

/// Makes room for `wanted` open files beside the usual ones: raises the soft limit, as far as the hard one lets it.
///
/// # Errors
/// [`ErrorCode::Usage`] where the hard limit is too low, with what to do.
pub(super) fn make_room(wanted: u64) -> Result<(), CommandError> {
    let limit = getrlimit(Resource::Nofile);
    let needed = wanted.saturating_add(OTHERS);
    if limit.current.is_none_or(|soft| soft >= needed) {
        return Ok(());
    }
    if limit.maximum.is_some_and(|hard| hard < needed) {
        let hard = limit.maximum.unwrap_or_default();
        let message = format!(
            "one process of the measurement needs {needed} open files, and this system lets it have {hard}"
        );
        let advice = format!(
            "raise the limit (`ulimit -Hn {needed}` as root), or spread the work over more processes (`--per-reader`, `--readers`)"
        );
        return Err(CommandError::new(ErrorCode::Usage, message).advise(advice));
    }
    let raised = Rlimit {
        current: Some(needed),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).map_err(|error| CommandError::new(ErrorCode::Io, error))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn room_that_is_there_is_granted_and_more_than_the_system_has_is_refused_with_advice() {
        make_room(8).unwrap();
        if getrlimit(Resource::Nofile).maximum.is_some() {
            let error = make_room(u64::MAX - OTHERS).unwrap_err();
            assert!(error.advice.unwrap().contains("ulimit"));
        }
    }
}
