//! Which crate of this workspace uses which: Cargo's own answer, judged by layers and compared with a golden file.
//!
//! The rules are the crate map of `docs/decisions/0001-crate-map.md`. The golden file makes every new arrow visible in review; the rules make a
//! wrong one fail even when somebody has recorded it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::Failure;
use crate::process::{cargo, output};

const GOLDEN: &str = "tests/crate-graph.txt";
const PREFIX: &str = "countersign-";

/// Crates from the bottom up: one may use any of a lower layer and none of its own.
const LAYERS: [&[&str]; 7] = [
    &["crypto"],
    &["event", "tlog"],
    &["filter"],
    &["policy", "protocol", "store"],
    &["client", "exchange", "market"],
    &["transport"],
    &["node"],
];

/// Crates that may use less than their layer allows, and why.
const NARROW: [(&str, &[&str], &str); 4] = [
    (
        "audit",
        &["crypto", "event", "filter", "tlog", "policy"],
        "evidence that only its author's code can check is no evidence",
    ),
    (
        "client",
        &["crypto", "event", "filter", "tlog", "protocol"],
        "a light client runs no node: no storage, no SQL, no policy engine",
    ),
    (
        "filter",
        &["crypto", "event"],
        "a filter sees attributes, and no log",
    ),
    (
        "policy",
        &["crypto", "event"],
        "the judge gets its facts handed in and reads no log",
    ),
];

/// Crates that must stay pure: whole nodes run in a seeded simulation, and an auditor needs nothing but files.
const PURE: [&str; 7] = [
    "audit", "crypto", "event", "filter", "policy", "protocol", "tlog",
];
/// What a pure crate must not link, however indirectly.
const IMPURE: [&str; 9] = [
    "async-std",
    "futures-executor",
    "mio",
    "quinn",
    "rustix",
    "smol",
    "socket2",
    "sqlx",
    "tokio",
];

/// Outside crates that only some of ours may name as a dependency. Tests are free: an independent implementation is a good witness.
const RESERVED: [(&[&str], &[&str], &str); 3] = [
    (
        &[
            "aes-gcm",
            "ed25519-dalek",
            "getrandom",
            "hkdf",
            "hpke",
            "rand",
            "rand_chacha",
            "rand_core",
            "sha2",
        ],
        &["crypto"],
        "cryptography and randomness are reached through `countersign-crypto`, which is strict once for all",
    ),
    (
        &["quinn", "socket2", "axum", "hyper"],
        &["client", "transport", "node"],
        "sockets are in the transport and client crates only",
    ),
    (
        &["sqlx", "rusqlite", "libsqlite3-sys"],
        &["store"],
        "SQL is in the store only",
    ),
];

/// The step of the check: layers first, since a forbidden arrow is the graver finding.
pub(crate) fn check(root: &Path) -> Result<String, Failure> {
    let graph = Graph::read(root)?;
    require_rules(&graph)?;
    let recorded = std::fs::read_to_string(root.join(GOLDEN)).unwrap_or_default();
    match difference(&recorded, &graph.text()) {
        None => Ok(String::new()),
        Some(lines) => Err(Failure::new(
            format!("`{GOLDEN}` is not what Cargo says:\n{lines}"),
            "if the new arrows are meant, run `cargo xtask graph --write` and commit the file",
        )),
    }
}

/// Prints the graph, then judges it.
pub(crate) fn print(root: &Path) -> Result<(), Failure> {
    print!("{}", Graph::read(root)?.text());
    check(root).map(|_| ())
}

/// Records the graph as it is. A graph that breaks the rules is not recorded.
pub(crate) fn write(root: &Path) -> Result<String, Failure> {
    let graph = Graph::read(root)?;
    require_rules(&graph)?;
    std::fs::write(root.join(GOLDEN), graph.text()).map_err(|error| {
        Failure::new(
            format!("`{GOLDEN}` could not be written: {error}"),
            "make the file writable",
        )
    })?;
    Ok(format!("{GOLDEN} written"))
}

/// One crate of the workspace; names of our own crates are short, without the prefix.
#[derive(Clone, Debug, Default)]
struct Crate {
    /// Ours, at run or build time.
    uses: BTreeSet<String>,
    /// Ours, in tests only.
    uses_in_tests: BTreeSet<String>,
    /// Other people's, declared at run or build time.
    outside: BTreeSet<String>,
    /// Everything linked into it at run time, however indirectly.
    linked: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Graph(BTreeMap<String, Crate>);

impl Graph {
    fn read(root: &Path) -> Result<Self, Failure> {
        let mut command = cargo(root);
        // Linux only, as in `deny.toml`: another platform's half of a crate is never linked.
        command.args([
            "metadata",
            "--format-version=1",
            "--filter-platform=x86_64-unknown-linux-gnu",
        ]);
        let text = output(command)?;
        let metadata: Value =
            serde_json::from_str(&text).map_err(|error| unreadable(&error.to_string()))?;
        Self::from_metadata(&metadata)
            .ok_or_else(|| unreadable("a field that was expected is missing"))
    }

    /// `None` where a field is missing that format version 1 of `cargo metadata` promises.
    fn from_metadata(metadata: &Value) -> Option<Self> {
        let members: BTreeSet<&str> = metadata["workspace_members"]
            .as_array()?
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let mut names = BTreeMap::new();
        let mut graph = Self::default();
        for package in metadata["packages"].as_array()? {
            let id = package["id"].as_str()?;
            let name = package["name"].as_str()?;
            names.insert(id, name);
            if !members.contains(id) {
                continue;
            }
            let entry = graph.0.entry(short(name)).or_default();
            for dependency in package["dependencies"].as_array()? {
                let used = dependency["name"].as_str()?;
                let in_tests = dependency["kind"].as_str() == Some("dev");
                match (dependency["path"].is_string(), in_tests) {
                    (true, false) => entry.uses.insert(short(used)),
                    (true, true) => entry.uses_in_tests.insert(short(used)),
                    (false, false) => entry.outside.insert(used.to_owned()),
                    (false, true) => false,
                };
            }
        }
        let edges = run_time_edges(metadata)?;
        for id in members {
            let linked = closure(id, &edges);
            let entry = graph.0.get_mut(&short(names.get(id)?))?;
            entry.linked = linked
                .iter()
                .filter_map(|id| names.get(id))
                .map(|name| short(name))
                .collect();
        }
        Some(graph)
    }

    /// Bottom up, so that it reads as the layers do.
    fn text(&self) -> String {
        let mut text = String::from(
            "# Which crate uses which, from the bottom up. Written by `cargo xtask graph --write`, compared with Cargo's own answer by `cargo xtask check`.\n",
        );
        let mut names: Vec<&String> = self.0.keys().collect();
        names.sort_by_key(|name| (layer(name).unwrap_or(LAYERS.len()), name.as_str()));
        for name in names {
            let entry = &self.0[name];
            text.push_str(name);
            text.push_str(&list(" ->", &entry.uses));
            text.push_str(&list("; tests:", &entry.uses_in_tests));
            text.push('\n');
        }
        text
    }
}

fn list(before: &str, names: &BTreeSet<String>) -> String {
    if names.is_empty() {
        return String::new();
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    format!("{before} {}", names.join(" "))
}

fn unreadable(why: &str) -> Failure {
    Failure::new(
        format!("the answer of `cargo metadata` can not be read: {why}"),
        "use the toolchain that the workspace names in `rust-version`, or newer",
    )
}

/// `countersign` alone is the binary's package, which lives in `crates/node`.
fn short(name: &str) -> String {
    if name == "countersign" {
        return String::from("node");
    }
    name.strip_prefix(PREFIX).unwrap_or(name).to_owned()
}

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&name))
}

fn run_time_edges(metadata: &Value) -> Option<BTreeMap<&str, Vec<&str>>> {
    let mut edges = BTreeMap::new();
    for node in metadata["resolve"]["nodes"].as_array()? {
        let mut used = Vec::new();
        for dependency in node["deps"].as_array()? {
            let at_run_time = dependency["dep_kinds"]
                .as_array()?
                .iter()
                .any(|kind| kind["kind"].is_null());
            if at_run_time {
                used.push(dependency["pkg"].as_str()?);
            }
        }
        edges.insert(node["id"].as_str()?, used);
    }
    Some(edges)
}

fn closure<'a>(start: &'a str, edges: &BTreeMap<&'a str, Vec<&'a str>>) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![start];
    while let Some(id) = waiting.pop() {
        for next in edges.get(id).into_iter().flatten() {
            if found.insert(*next) {
                waiting.push(next);
            }
        }
    }
    found
}

fn require_rules(graph: &Graph) -> Result<(), Failure> {
    let broken = broken_rules(graph);
    if broken.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        broken.join("\n"),
        "remove the dependency, or change docs/decisions/0001-crate-map.md and the rule together",
    ))
}

fn broken_rules(graph: &Graph) -> Vec<String> {
    let mut broken = Vec::new();
    for (name, entry) in &graph.0 {
        // This tool is no part of the product; it may use no crate of it, so that it still builds when they do not.
        if name == "xtask" {
            if let Some(used) = entry.uses.iter().next() {
                broken.push(format!(
                    "`xtask` uses `{used}`: it has to build when the crates do not"
                ));
            }
            continue;
        }
        let narrow = NARROW.iter().find(|(narrow, _, _)| narrow == name);
        let own_layer = layer(name);
        if own_layer.is_none() && narrow.is_none() {
            broken.push(format!("`{name}` has no layer in the crate map"));
            continue;
        }
        for used in &entry.uses {
            if let Some((_, allowed, why)) = narrow {
                if !allowed.contains(&used.as_str()) {
                    broken.push(format!("`{name}` uses `{used}`: {why}"));
                }
            } else if used == "audit" && name == "node" {
                // The command line offers the auditor's command; nothing else builds on the auditor.
            } else if layer(used) >= own_layer || layer(used).is_none() {
                broken.push(format!(
                    "`{name}` uses `{used}`, which is not in a lower layer"
                ));
            }
        }
        if PURE.contains(&name.as_str()) {
            for linked in IMPURE
                .iter()
                .filter(|linked| entry.linked.contains(**linked))
            {
                broken.push(format!(
                    "`{name}` links `{linked}`: it does no input or output and knows no clock"
                ));
            }
        }
        for (outside, allowed, why) in RESERVED {
            if allowed.contains(&name.as_str()) {
                continue;
            }
            for used in outside.iter().filter(|used| entry.outside.contains(**used)) {
                broken.push(format!("`{name}` depends on `{used}`: {why}"));
            }
        }
    }
    broken
}

/// Lines only in one of the texts, as in a diff; `None` where they are equal.
fn difference(recorded: &str, actual: &str) -> Option<String> {
    if recorded == actual {
        return None;
    }
    let old: BTreeSet<&str> = recorded.lines().collect();
    let new: BTreeSet<&str> = actual.lines().collect();
    let gone = old.difference(&new).map(|line| format!("- {line}"));
    let came = new.difference(&old).map(|line| format!("+ {line}"));
    let lines: Vec<String> = gone.chain(came).collect();
    Some(if lines.is_empty() {
        String::from("  the same lines in another order")
    } else {
        lines.join("\n")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(crates: &[(&str, &[&str])]) -> Graph {
        Graph(
            crates
                .iter()
                .map(|(name, uses)| {
                    let uses = uses.iter().map(|used| (*used).to_owned()).collect();
                    (
                        (*name).to_owned(),
                        Crate {
                            uses,
                            ..Crate::default()
                        },
                    )
                })
                .collect(),
        )
    }

    #[track_caller]
    fn check_rules(crates: &[(&str, &[&str])], expected: &[&str]) {
        let broken = broken_rules(&graph(crates));
        assert_eq!(broken.len(), expected.len(), "{broken:?}");
        for (line, part) in broken.iter().zip(expected) {
            assert!(line.contains(part), "{line}");
        }
    }

    #[test]
    fn arrows_go_down_only() {
        check_rules(&[("exchange", &["store", "event", "crypto"])], &[]);
        check_rules(&[("event", &["tlog"])], &["`event` uses `tlog`"]);
        check_rules(&[("store", &["exchange"])], &["`store` uses `exchange`"]);
        check_rules(&[("exchange", &["client"])], &["`exchange` uses `client`"]);
        check_rules(&[("crypto", &["event"])], &["`crypto` uses `event`"]);
    }

    #[test]
    fn the_auditor_links_neither_store_nor_node() {
        check_rules(&[("audit", &["crypto", "event", "policy", "tlog"])], &[]);
        check_rules(&[("audit", &["store"])], &["`audit` uses `store`"]);
        check_rules(&[("audit", &["node"])], &["`audit` uses `node`"]);
    }

    #[test]
    fn only_the_binary_builds_on_the_auditor() {
        check_rules(&[("node", &["audit", "transport"])], &[]);
        check_rules(&[("transport", &["audit"])], &["`transport` uses `audit`"]);
    }

    #[test]
    fn a_light_client_carries_no_storage() {
        check_rules(&[("client", &["store"])], &["`client` uses `store`"]);
    }

    #[test]
    fn a_crate_without_a_layer_is_refused() {
        check_rules(&[("common", &[])], &["`common` has no layer"]);
    }

    #[test]
    fn the_checking_tool_uses_no_crate_it_checks() {
        check_rules(&[("xtask", &["tlog"])], &["`xtask` uses `tlog`"]);
    }

    #[test]
    fn a_pure_crate_links_no_runtime_however_indirectly() {
        let mut graph = graph(&[("tlog", &[]), ("store", &[])]);
        for entry in graph.0.values_mut() {
            entry.linked.insert(String::from("tokio"));
        }
        let broken = broken_rules(&graph);
        assert_eq!(broken.len(), 1, "{broken:?}");
        assert!(broken[0].contains("`tlog` links `tokio`"));
    }

    #[test]
    fn cryptography_sockets_and_sql_have_one_home_each() {
        for (name, outside, allowed) in [
            ("event", "sha2", false),
            ("crypto", "sha2", true),
            ("exchange", "quinn", false),
            ("transport", "quinn", true),
            ("node", "sqlx", false),
            ("store", "sqlx", true),
        ] {
            let mut graph = graph(&[(name, &[])]);
            graph.0.values_mut().for_each(|entry| {
                entry.outside.insert(outside.to_owned());
            });
            assert_eq!(broken_rules(&graph).is_empty(), allowed, "{name} {outside}");
        }
    }

    #[test]
    fn metadata_is_read_with_kinds_and_indirect_links() {
        let metadata = serde_json::json!({
            "workspace_members": ["a"],
            "packages": [
                {"id": "a", "name": "countersign-audit", "dependencies": [
                    {"name": "countersign-tlog", "kind": null, "path": "/x"},
                    {"name": "countersign-store", "kind": "dev", "path": "/y"},
                    {"name": "direct", "kind": null},
                    {"name": "for-tests", "kind": "dev"},
                ]},
                {"id": "d", "name": "direct", "dependencies": []},
                {"id": "i", "name": "indirect", "dependencies": []},
                {"id": "t", "name": "for-tests", "dependencies": []},
            ],
            "resolve": {"nodes": [
                {"id": "a", "deps": [
                    {"pkg": "d", "dep_kinds": [{"kind": null}]},
                    {"pkg": "t", "dep_kinds": [{"kind": "dev"}]},
                ]},
                {"id": "d", "deps": [{"pkg": "i", "dep_kinds": [{"kind": null}]}]},
                {"id": "i", "deps": []},
            ]},
        });
        let graph = Graph::from_metadata(&metadata).unwrap();
        let audit = &graph.0["audit"];
        assert!(audit.linked.contains("indirect"));
        assert!(!audit.linked.contains("for-tests"));
        assert!(audit.outside.contains("direct"));
        assert!(
            graph.text().ends_with("audit -> tlog; tests: store\n"),
            "{}",
            graph.text()
        );
    }

    #[test]
    fn a_difference_names_the_lines_that_came_and_went() {
        assert_eq!(difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(difference("a\nb\n", "a\nc\n").unwrap(), "- b\n+ c");
    }
}
