//! What a process has used, from `/proc`.

use std::fs;
use std::time::Instant;

use crate::errors::{CommandError, ErrorCode};

/// Clock ticks in a second as `/proc` counts them: 100 for programs on every Linux that is supported.
const TICK_NS: u64 = 10_000_000;

/// Counters of one process at one moment, or between two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    at: Instant,
    /// Between two moments: time that went by.
    pub(super) wall_ns: u64,
    /// Time on a core, user and system, all threads.
    pub(super) core_ns: u64,
    /// Bytes given to the file system, preallocated zeros included. What the kernel says of the disk (`write_bytes`) counts whole folios, hundreds
    /// of KiB for an event, and says nothing about what is written.
    pub(super) file_written_bytes: u64,
    /// Memory now.
    pub(super) memory_bytes: u64,
    /// Most memory so far.
    pub(super) memory_peak_bytes: u64,
}

impl Used {
    /// No counts, for tests of what is reckoned from them.
    #[cfg(test)]
    pub(super) fn nothing() -> Self {
        Self {
            at: Instant::now(),
            wall_ns: 0,
            core_ns: 0,
            file_written_bytes: 0,
            memory_bytes: 0,
            memory_peak_bytes: 0,
        }
    }

    /// Up to now.
    ///
    /// # Errors
    /// [`ErrorCode::Io`] where the process is gone or `/proc` is not there.
    pub(super) fn of(pid: u32) -> Result<Self, CommandError> {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            fs::read_to_string(&path).map_err(|error| {
                CommandError::new(ErrorCode::Io, format_args!("cannot read {path}: {error}"))
            })
        };
        let (stat, status, io) = (
            read("stat")?,
            read("status")?,
            read("io").unwrap_or_default(),
        );
        Ok(Self {
            at: Instant::now(),
            wall_ns: 0,
            core_ns: core_ticks(&stat).saturating_mul(TICK_NS),
            file_written_bytes: member(&io, "wchar:"),
            memory_bytes: member(&status, "VmRSS:").saturating_mul(1_024),
            memory_peak_bytes: member(&status, "VmHWM:").saturating_mul(1_024),
        })
    }

    pub(super) fn of_all(pids: &[u32]) -> Result<Vec<Self>, CommandError> {
        pids.iter().map(|pid| Self::of(*pid)).collect()
    }

    /// What came since `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let wall = self.at.duration_since(earlier.at).as_nanos();
        Self {
            at: self.at,
            wall_ns: u64::try_from(wall).unwrap_or(u64::MAX),
            core_ns: self.core_ns.saturating_sub(earlier.core_ns),
            file_written_bytes: self
                .file_written_bytes
                .saturating_sub(earlier.file_written_bytes),
            memory_bytes: self.memory_bytes,
            memory_peak_bytes: self.memory_peak_bytes,
        }
    }
}

/// Time on a core, in nanoseconds, of all processes that this one started and that have ended.
pub(super) fn ended_children_core_ns() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    ticks_at(&stat, 13).saturating_mul(TICK_NS)
}

/// User and system time of `/proc/PID/stat`. The second member is the program's name in brackets, which may hold spaces.
fn core_ticks(stat: &str) -> u64 {
    ticks_at(stat, 11)
}

/// Two counters one after the other, the first at `place` after the name.
fn ticks_at(stat: &str, place: usize) -> u64 {
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let members = rest.split_ascii_whitespace().skip(place).take(2);
    members.filter_map(|text| text.parse::<u64>().ok()).sum()
}

/// The first number of the line that begins with `name`.
fn member(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_ascii_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_brackets_does_not_move_the_times() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 9 1 1";
        assert_eq!(core_ticks(stat), 300);
        assert_eq!(ticks_at(stat, 0), 1);
        assert_eq!(core_ticks(""), 0);
    }

    #[test]
    fn this_process_uses_memory() {
        let used = Used::of(std::process::id()).unwrap();
        assert!(used.memory_peak_bytes > 1 << 20);
    }
}
