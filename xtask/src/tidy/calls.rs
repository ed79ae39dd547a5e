//! Calls that are banned by name, each with what to write instead.

use super::source::{Source, has_word, lines_with};
use super::{Finding, Project};

const RULE: &str = "calls";

struct Ban {
    words: &'static [&'static str],
    /// Crates (folders under `crates/`) in which the call is right.
    crates: &'static [&'static str],
    /// Programs are where clock and environment come in: `main.rs` and `src/bin/` of any crate.
    in_programs: bool,
    in_tests: bool,
    instead: &'static str,
}

const BANS: [Ban; 6] = [
    Ban {
        words: &[
            "SystemTime::now",
            "Instant::now",
            "Timestamp::now",
            "Zoned::now",
        ],
        crates: &["node", "transport"],
        in_programs: true,
        in_tests: true,
        instead: "time is an argument: take the time, or a clock, from the caller",
    },
    Ban {
        words: &["OsEntropy::new", "OsEntropy::default"],
        crates: &["crypto", "node", "transport"],
        in_programs: true,
        in_tests: true,
        instead: "randomness is an argument: take `&mut dyn Entropy` from the caller",
    },
    Ban {
        words: &[
            "thread_rng",
            "rand::rng",
            "rand::random",
            "OsRng",
            "SysRng",
            "getrandom::fill",
        ],
        crates: &["crypto"],
        in_programs: false,
        in_tests: false,
        instead: "use `countersign_crypto::Entropy`, seeded in tests so that a failure can be run again",
    },
    Ban {
        words: &["env::var", "env::var_os", "env::vars", "env::vars_os"],
        crates: &["node", "transport"],
        in_programs: true,
        in_tests: true,
        instead: "settings are arguments: let the program read the environment once",
    },
    Ban {
        words: &[
            "verify_batch",
            "verify_prehashed(",
            "verify_stream(",
            "raw_verify",
        ],
        crates: &[],
        in_programs: false,
        in_tests: false,
        instead: "use `countersign_crypto::PublicKey::verify`: other forms accept signatures that the strict one refuses",
    },
    Ban {
        // Empty brackets: a sync that names its site (`sync_data(SyncSite::Heads)`) goes through the disk module already.
        words: &[
            "sync_all()",
            "sync_data()",
            "File::sync_all",
            "File::sync_data",
            "fsync(",
            "fdatasync(",
            "syncfs(",
            "sync_file_range(",
        ],
        crates: &[],
        in_programs: false,
        in_tests: true,
        instead: "sync through the disk module of the store: a sync that the power-loss simulation does not know is not tested",
    },
];

/// Where raw syncs are: the module and its parts.
const DISK: &str = "crates/store/src/disk";

pub(super) fn findings(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in project.rust() {
        // This tool is no part of the product.
        if file.path.starts_with("xtask/") {
            continue;
        }
        for ban in &BANS {
            for word in ban.words {
                findings.extend(
                    lines_with(&file.code, word)
                        .filter(|line| !ban.permits(file, *line, word))
                        .map(|line| finding(file, line, word, ban.instead)),
                );
            }
        }
        findings.extend(non_strict_trait(file));
    }
    findings
}

impl Ban {
    fn permits(&self, file: &Source, line: usize, word: &str) -> bool {
        let is_program = file.file_name() == "main.rs" || file.path.contains("/src/bin/");
        let at_home = file
            .crate_name()
            .is_some_and(|name| self.crates.contains(&name));
        let is_disk = word.contains("sync") && file.path.starts_with(DISK);
        at_home
            || is_disk
            || (self.in_programs && is_program)
            || (self.in_tests && file.is_test(line))
    }
}

/// Dalek's non-strict `verify` of a public key comes from the trait `Verifier`; without the import it cannot be called. The signing key has an
/// inherent one, which checks what this process has signed itself. Other types may be called so, hence only where dalek is used.
fn non_strict_trait(file: &Source) -> Vec<Finding> {
    if !file.code.contains("ed25519_dalek") {
        return Vec::new();
    }
    file.code
        .lines()
        .zip(1..)
        .filter(|(line, _)| has_word(line, "Verifier"))
        .map(|(_, line)| {
            finding(
                file,
                line,
                "Verifier",
                "use `verify_strict`: dalek's `Verifier` is not strict",
            )
        })
        .collect()
}

fn finding(file: &Source, line: usize, word: &str, instead: &str) -> Finding {
    let word = word.trim_end_matches(['(', ')']);
    Finding {
        path: file.path.clone(),
        line,
        rule: RULE,
        what: format!("`{word}` is banned here; {instead}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check_rule;
    use super::*;

    #[track_caller]
    fn check(path: &str, line: &str, is_finding: bool) {
        let place = format!("{path}:1");
        let expected: &[&str] = if is_finding { &[&place] } else { &[] };
        check_rule(findings, &[(path, line)], expected);
    }

    #[test]
    fn the_clock_is_read_at_the_edges_only() {
        let line = "let t = std::time::Instant::now();\n";
        check("crates/store/src/log.rs", line, true);
        check("crates/client/src/session.rs", line, true);
        check("crates/client/src/bin/tail.rs", line, false);
        check("crates/node/src/clock.rs", line, false);
        check("crates/transport/src/quic.rs", line, false);
        check("crates/store/tests/kill.rs", line, false);
        check("crates/store/benches/append.rs", line, false);
        check(
            "crates/store/src/log.rs",
            "// Instant::now would be wrong\n",
            false,
        );
        check(
            "crates/store/src/log.rs",
            "let a = \"Instant::now\";\n",
            false,
        );
    }

    #[test]
    fn unseeded_randomness_is_banned_in_tests_too() {
        let line = "let r = rand::rng();\n";
        check("crates/tlog/tests/tree.rs", line, true);
        check("crates/node/src/main.rs", line, true);
        check("crates/crypto/src/entropy.rs", line, false);
    }

    #[test]
    fn the_systems_randomness_comes_in_at_the_edges_only() {
        check(
            "crates/exchange/src/seal.rs",
            "let e = OsEntropy::new()?;\n",
            true,
        );
        check(
            "crates/node/src/init.rs",
            "let e = OsEntropy::new()?;\n",
            false,
        );
    }

    #[test]
    fn the_environment_is_read_by_programs_only() {
        check(
            "crates/policy/src/lib.rs",
            "let a = env::var(\"A\");\n",
            true,
        );
        check("crates/policy/src/lib.rs", "let a = env!(\"A\");\n", false);
        check(
            "crates/store/src/bin/harness.rs",
            "let a = env::var(\"A\");\n",
            false,
        );
    }

    #[test]
    fn signatures_are_verified_strictly() {
        check(
            "crates/crypto/src/ed25519.rs",
            "dalek::verify_batch(m, s, k)\n",
            true,
        );
        check(
            "crates/crypto/src/ed25519.rs",
            "self.0.verify_strict(m, s)\n",
            false,
        );
        check(
            "crates/crypto/src/ed25519.rs",
            "use ed25519_dalek::{Signer, Verifier};\n",
            true,
        );
        check("crates/tlog/src/note.rs", "struct Verifier;\n", false);
    }

    #[test]
    fn syncs_are_in_the_disk_module_only() {
        let line = "file.sync_data()?;\n";
        check("crates/store/src/segment.rs", line, true);
        check("crates/node/src/init.rs", line, true);
        check("crates/store/src/disk.rs", line, false);
        check("crates/store/src/disk/file.rs", line, false);
        check("crates/store/src/segment.rs", "self.resync_all()\n", false);
        let named = "file.sync_data(SyncSite::Heads)?;\n";
        check("crates/store/src/segment.rs", named, false);
        let by_path = "files.map(File::sync_all);\n";
        check("crates/store/src/segment.rs", by_path, true);
    }
}
