//! What the counting programs write, read.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::Failure;

/// System calls that are counted together.
pub(super) struct CallKind {
    pub(super) name: &'static str,
    calls: &'static [&'static str],
}

pub(super) const CALL_KINDS: [CallKind; 4] = [
    CallKind {
        name: "syncs",
        calls: &[
            "fdatasync",
            "fsync",
            "msync",
            "sync",
            "sync_file_range",
            "syncfs",
        ],
    },
    CallKind {
        name: "writes",
        calls: &["pwrite64", "pwritev", "pwritev2", "write", "writev"],
    },
    CallKind {
        name: "reads",
        calls: &["pread64", "preadv", "preadv2", "read", "readv"],
    },
    CallKind {
        name: "other file calls",
        calls: &[
            "access",
            "close",
            "copy_file_range",
            "fallocate",
            "fcntl",
            "flock",
            "fstat",
            "ftruncate",
            "getdents64",
            "io_uring_enter",
            "link",
            "linkat",
            "lseek",
            "mkdir",
            "mkdirat",
            "newfstatat",
            "open",
            "openat",
            "openat2",
            "rename",
            "renameat",
            "renameat2",
            "rmdir",
            "sendfile",
            "stat",
            "statx",
            "truncate",
            "unlink",
            "unlinkat",
        ],
    },
];

/// What the program counted by itself: by stage, the events and the counters in their order.
type Inside<'a> = BTreeMap<&'a str, (u64, Vec<(&'a str, u64)>)>;

/// Lines of `STAGE<tab>COUNTER<tab>COUNT`, the counter `events` first.
pub(super) fn inside(text: &str) -> Result<Inside<'_>, Failure> {
    let mut stages = Inside::new();
    for line in text.lines() {
        let mut fields = line.split('\t');
        let (Some(stage), Some(counter), Some(count)) = (
            fields.next(),
            fields.next(),
            fields.next().and_then(|count| count.parse().ok()),
        ) else {
            return Err(unreadable("the program", line));
        };
        let entry = stages.entry(stage).or_default();
        if counter == "events" {
            entry.0 = count;
        } else {
            entry.1.push((counter, count));
        }
    }
    Ok(stages)
}

/// Instructions of our crates' functions in a dump of callgrind, without those of the functions they call. `None` where the dump is not in the
/// form that it has with `--compress-strings=no --compress-pos=no`.
///
/// ```text
/// events: Ir
/// fn=countersign_tlog::tree::append
/// 0 412                          cost of the function itself
/// cfn=memcpy
/// calls=3 0
/// 0 96                           cost of those three calls: another function's
/// ```
pub(super) fn own_instructions(dump: &str) -> Option<u64> {
    dump.lines().find(|line| line.trim_end() == "events: Ir")?;
    let (mut sum, mut is_own, mut is_of_a_call) = (0, false, false);
    for line in dump.lines() {
        if let Some(name) = line.strip_prefix("fn=") {
            is_own = is_counted(name);
        } else if line.starts_with("calls=") {
            is_of_a_call = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit()) {
            if is_own && !is_of_a_call {
                sum += line.split_whitespace().nth(1)?.parse::<u64>().ok()?;
            }
            is_of_a_call = false;
        }
    }
    Some(sum)
}

/// Whether a function has one of our crates in its name, as generic ones of others do that work on our types. Cryptography is not counted.
fn is_counted(function: &str) -> bool {
    let own = function.trim_start_matches('<');
    function.contains("countersign_") && !own.starts_with("countersign_crypto::")
}

/// Bytes copied in a profile of dhat's copy mode, by the first of `stages` that has one of its parts of names on the stack of the copy.
pub(super) fn copied_bytes<const N: usize>(
    profile: &str,
    stages: &[&[&str]; N],
) -> Option<[u64; N]> {
    let profile: Value = serde_json::from_str(profile).ok()?;
    if profile["mode"] != "copy" {
        return None;
    }
    let frames: Vec<&str> = profile["ftbl"]
        .as_array()?
        .iter()
        .map(Value::as_str)
        .collect::<Option<_>>()?;
    let mut bytes = [0; N];
    for point in profile["pps"].as_array()? {
        let mut stack = Vec::new();
        for frame in point["fs"].as_array()? {
            stack.push(*frames.get(usize::try_from(frame.as_u64()?).ok()?)?);
        }
        let is_on_stack = |part: &&str| stack.iter().any(|frame| frame.contains(*part));
        if let Some(at) = stages
            .iter()
            .position(|parts| parts.iter().any(is_on_stack))
        {
            bytes[at] += point["tb"].as_u64()?;
        }
    }
    Some(bytes)
}

/// Calls of each of [`CALL_KINDS`] in a trace of `strace -f`, up to each line that has `boundary` in it, and after the last.
///
/// ```text
/// 4711 openat(AT_FDCWD, "/journal/heads", O_RDWR|O_CLOEXEC) = 9
/// 4712 fdatasync(9 <unfinished ...>
/// 4712 <... fdatasync resumed>)          = 0
/// ```
pub(super) fn system_calls(trace: &str, boundary: &str) -> Vec<[u64; CALL_KINDS.len()]> {
    let mut stages = vec![[0; CALL_KINDS.len()]];
    for line in trace.lines() {
        if line.contains(boundary) {
            stages.push([0; CALL_KINDS.len()]);
            continue;
        }
        let call = line
            .split_once(' ')
            .map_or("", |(_, call)| call.trim_start());
        let name = call.split_once('(').map_or("", |(name, _)| name);
        let kind = CALL_KINDS
            .iter()
            .position(|kind| kind.calls.contains(&name));
        if let (Some(kind), Some(counts)) = (kind, stages.last_mut()) {
            counts[kind] += 1;
        }
    }
    stages
}

pub(super) fn unreadable(program: &str, what: &str) -> Failure {
    Failure::new(
        format!("what `{program}` wrote can not be read: {what}"),
        "see whether the version that is installed writes another form, and teach xtask/src/bench/quick/tools.rs to read it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_program_counts_is_read_by_stage() {
        let text = "seal\tevents\t4\nseal\thashes\t8\nseal\thashed bytes\t900\n";
        let stages = inside(text).unwrap();
        assert_eq!(
            stages["seal"],
            (4, vec![("hashes", 8), ("hashed bytes", 900)])
        );
        assert!(inside("seal\thashes\n").is_err());
    }

    #[test]
    fn only_our_functions_own_instructions_count() {
        let dump = "version: 1\nevents: Ir\nfl=???\n\
            fn=countersign_tlog::tree::append\n0 400\n16 12\ncob=libc\ncfn=memcpy\ncalls=3 0\n0 96\n0 8\n\
            fn=<countersign_crypto::Sha256Stream>::update\n0 5000\n\
            fn=countersign_crypto::sha256\n0 5000\n\
            fn=alloc::vec::Vec<countersign_tlog::Hash>::push\n0 30\n\
            fn=memcpy\n0 96\n\ntotals: 10642\n";
        assert_eq!(own_instructions(dump), Some(450));
        assert_eq!(own_instructions("a text"), None);
    }

    #[test]
    fn copies_go_to_the_first_stage_on_their_stack_and_another_mode_is_refused() {
        let profile = r#"{"mode":"copy","ftbl":["[root]","memcpy","Line::seal","Line::take","thread_of_take"],"pps":[
            {"tb":100,"tbk":2,"fs":[1,2]},{"tb":28,"tbk":1,"fs":[1,2]},{"tb":7,"tbk":1,"fs":[1,4]},
            {"tb":50,"tbk":1,"fs":[1,3]},{"tb":9,"tbk":1,"fs":[1]}]}"#;
        let stages: [&[&str]; 3] = [
            &["Line::seal"],
            &["Line::deliver"],
            &["Line::take", "of_take"],
        ];
        assert_eq!(copied_bytes(profile, &stages), Some([128, 0, 57]));
        assert_eq!(
            copied_bytes(&profile.replace("copy\"", "heap\""), &stages),
            None
        );
        assert_eq!(copied_bytes("{", &stages), None);
    }

    #[test]
    fn calls_are_counted_once_each_between_the_boundaries() {
        let trace = "10 openat(AT_FDCWD, \"a\", O_RDONLY) = 3\n\
            10 statx(AT_FDCWD, \"stage_boundary_1\", 0) = -1 ENOENT\n\
            10 futex(0x1, FUTEX_WAKE, 1) = 0\n\
            11 pwrite64(9, \"write(\", 6, 0 <unfinished ...>\n\
            10 fdatasync(9 <unfinished ...>\n\
            11 <... pwrite64 resumed>) = 6\n\
            10 <... fdatasync resumed>) = 0\n\
            10 statx(AT_FDCWD, \"stage_boundary_2\", 0) = -1 ENOENT\n\
            10 +++ exited with 0 +++\n";
        assert_eq!(
            system_calls(trace, "stage_boundary"),
            [[0, 0, 0, 1], [1, 1, 0, 0], [0; 4]]
        );
    }
}
