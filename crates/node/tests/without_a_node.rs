//! What needs no data directory: reading by a profile, and verifying evidence.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Output, Stdio};

use countersign_crypto::{SeededEntropy, SigningKey};
use countersign_protocol::invitation::{Invitation, InvitationTerms};
use serde_json::Value;
use support::{program, run};

fn events(from: u64, to: u64) -> String {
    (from..to)
        .map(|n| format!("{{\"specversion\":\"1.0\",\"id\":\"{n}\",\"source\":\"/s\",\"type\":\"t\",\"data\":{{\"n\": {n}.50}}}}\n"))
        .collect()
}

/// A folder with a node in `node` that holds the stream `quakes` with three events.
fn node() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    ok(&run(
        dir.path(),
        &["init", "--org", "Acme", "--data", "node"],
    ));
    fs::write(dir.path().join("quakes.ndjson"), events(1, 4)).unwrap();
    ok(&run(
        dir.path(),
        &[
            "--data",
            "node",
            "publish",
            "quakes",
            "quakes.ndjson",
            "--create",
        ],
    ));
    dir
}

#[track_caller]
fn ok(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn failure(output: &Output, code: &str, exit: i32) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains(&format!("[{code}]")), "{stderr}");
    assert_eq!(output.status.code(), Some(exit), "{stderr}");
}

#[test]
fn evidence_is_whole_inconclusive_false_or_not_there() {
    let dir = node();
    let path = dir.path();
    ok(&run(
        path,
        &[
            "--data", "node", "evidence", "export", "quakes", "--out", "bundle",
        ],
    ));
    // From here on there is no node.
    fs::remove_dir_all(path.join("node")).unwrap();

    let verify = |arguments: &[&str]| run(path, &[&["evidence", "verify"], arguments].concat());
    let nobody = verify(&["bundle", "--json"]);
    assert_eq!(nobody.status.code(), Some(9));
    let report: Value = serde_json::from_slice(&nobody.stdout).unwrap();
    let key = report["key"].as_str().unwrap().to_owned();

    assert!(ok(&verify(&["bundle", "--trust", &key])).contains("\nwhole: all 4 entries"));
    fs::write(
        path.join("trusted"),
        format!("# told by telephone\n{key}\n"),
    )
    .unwrap();
    ok(&verify(&["bundle", "--trust", "trusted"]));
    let other = SigningKey::from_seed(&[3; 32]).public().fingerprint();
    assert_eq!(
        verify(&["bundle", "--trust", other.as_str()]).status.code(),
        Some(9)
    );

    failure(&verify(&["nothing-here"]), "not-found", 5);
    failure(&verify(&["bundle", "--trust", "nobody"]), "usage", 2);
    fs::write(path.join("trusted"), "nonsense\n").unwrap();
    failure(&verify(&["bundle", "--trust", "trusted"]), "usage", 2);

    let changed = alter(&path.join("bundle"), "\"n\": 2.50");
    assert!(changed, "the payload is somewhere in the bundle");
    let verdict = verify(&["bundle", "--trust", &key]);
    assert_eq!(verdict.status.code(), Some(6));
    let text = String::from_utf8(verdict.stdout).unwrap();
    assert!(
        text.contains("verification FAILED") && text.contains("entry 2"),
        "{text}"
    );
}

/// Changes one byte where a file below `folder` holds `text`.
fn alter(folder: &Path, text: &str) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return alter(&path, text);
        }
        let mut bytes = fs::read(&path).unwrap();
        let found = bytes
            .windows(text.len())
            .position(|window| window == text.as_bytes());
        let Some(at) = found else {
            return false;
        };
        bytes[at + 5] ^= 1;
        fs::write(&path, bytes).is_ok()
    })
}

/// A serving node, killed at the end.
struct Serving(Child);

impl Serving {
    fn start(dir: &Path) -> Self {
        let mut command = program(dir);
        command
            .args([
                "--data",
                "node",
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--http",
                "127.0.0.1:0",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut lines = stderr.lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains(" serves on ")));
        // Its words are read to the end, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self(child)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_profile_joins_reads_and_goes_on_where_it_was() {
    let dir = node();
    let path = dir.path();
    let _serving = Serving::start(path);
    let invited = ok(&run(
        path,
        &[
            "--data", "node", "--json", "partner", "invite", "--stream", "quakes",
        ],
    ));
    let invited: Value = serde_json::from_str(&invited).unwrap();
    let link = invited["link"].as_str().unwrap();

    let join = [
        "partner",
        "join",
        link,
        "--profile",
        "reader.json",
        "--org",
        "Birch",
        "--json",
    ];
    failure_json(&run(path, &join), "confirmation-needed", 2);
    let yes = [&join[..], &["--yes"]].concat();
    let joined = ok(&run(path, &yes));
    let told: Value = serde_json::from_str(&joined).unwrap();
    assert_eq!(told["consumer"]["name"], "Birch");
    assert!(
        told["next"]
            .as_str()
            .unwrap()
            .starts_with("countersign subscribe key-")
    );
    assert_eq!(ok(&run(path, &yes)), joined, "joining again is safe");
    let mode = fs::metadata(path.join("reader.json"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let read = |arguments: &[&str]| {
        let head = ["subscribe", "--profile", "reader.json", "--json"];
        run(path, &[&head, arguments].concat())
    };
    let first = ok(&read(&["Acme/quakes", "--count", "2"]));
    assert_eq!(sequences(&first), [1, 2]);
    assert!(
        first.contains("\"data\":{\"n\": 1.50}"),
        "the payload is as it came: {first}"
    );
    assert_eq!(sequences(&ok(&read(&["quakes"]))), [3]);
    assert_eq!(sequences(&ok(&read(&["quakes"]))), [0_u64; 0]);
    fs::write(path.join("quakes.ndjson"), events(1, 6)).unwrap();
    ok(&run(
        path,
        &["--data", "node", "publish", "quakes", "quakes.ndjson"],
    ));
    let origin = told["stream"].as_str().unwrap();
    assert_eq!(
        sequences(&ok(&read(&[origin, "--follow", "--count", "2"]))),
        [4, 5]
    );
    assert_eq!(
        sequences(&ok(&read(&["quakes", "--from", "2", "--count", "1"]))),
        [2]
    );
    failure_json(&read(&["Acme/other"]), "not-found", 5);

    let other = [&yes[..6], &["Other", "--json", "--yes"]].concat();
    failure_json(&run(path, &other), "usage", 2);
    let consume = [
        "--data",
        "node",
        "--json",
        "partner",
        "invite",
        "--stream",
        "theirs",
        "--consume",
    ];
    let invited: Value = serde_json::from_str(&ok(&run(path, &consume))).unwrap();
    let link = invited["link"].as_str().unwrap();
    let publisher = [
        "partner",
        "join",
        link,
        "--profile",
        "reader.json",
        "--yes",
        "--json",
    ];
    failure_json(&run(path, &publisher), "node-required", 1);
}

fn sequences(lines: &str) -> Vec<u64> {
    let read = |line: &str| serde_json::from_str::<Value>(line).unwrap()["sequence"].as_u64();
    lines.lines().map(|line| read(line).unwrap()).collect()
}

#[track_caller]
fn failure_json(output: &Output, code: &str, exit: i32) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains(&format!("\"code\":\"{code}\"")), "{stderr}");
    assert_eq!(output.status.code(), Some(exit), "{stderr}");
}

#[test]
fn links_and_profiles_that_cannot_be_used_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let join = |link: &str| {
        run(
            path,
            &["partner", "join", link, "--profile", "reader.json", "--yes"],
        )
    };
    failure(&join("countersign:nonsense"), "link-invalid", 1);
    let key = SigningKey::from_seed(&[1; 32]).public();
    let terms = InvitationTerms {
        addresses: vec!["127.0.0.1:9".to_owned()],
        organization: key.fingerprint(),
        node: key,
        expires: 1_000,
        offer: [0; 32],
    };
    let expired = Invitation::new(terms, &mut SeededEntropy::new(1)).to_link();
    failure(&join(&expired), "invitation-expired", 7);
    assert_eq!(fs::read_dir(path).unwrap().count(), 0);

    let read = || run(path, &["subscribe", "quakes", "--profile", "reader.json"]);
    failure(&read(), "not-found", 5);
    fs::write(path.join("reader.json"), "{}").unwrap();
    fs::set_permissions(path.join("reader.json"), fs::Permissions::from_mode(0o644)).unwrap();
    failure(&read(), "key-mode", 1);
    fs::set_permissions(path.join("reader.json"), fs::Permissions::from_mode(0o600)).unwrap();
    failure(&read(), "data-dir-incomplete", 1);
}

#[test]
fn a_filter_is_read_and_held_against_an_event() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    fs::write(path.join("event.json"), events(7, 8)).unwrap();
    let check =
        |arguments: &[&str]| run(path, &[&["filter", "check", "--json"], arguments].concat());
    let held = |expression: &str| -> Value {
        let answer = ok(&check(&[expression, "--event", "event.json"]));
        serde_json::from_str(&answer).unwrap()
    };
    let passes = held("id = 7 AND source LIKE '/%'");
    assert_eq!(passes["matches"], true);
    assert_eq!(
        passes["filter"],
        r#"[{"sql":"id = 7 AND source LIKE '/%'"}]"#
    );
    assert_eq!(passes["attributes"], serde_json::json!(["id", "source"]));
    assert_eq!(passes["result"], "Boolean");
    assert_eq!(passes["digest"].as_str().unwrap().len(), 64);
    let missing = held("TRUE AND subject = 'x'");
    assert_eq!(missing["matches"], false);
    assert_eq!(
        missing["because"],
        "an attribute that the event does not have (at byte 9)"
    );
    fs::write(
        path.join("rules.json"),
        r#"{"not": {"exact": {"type": "t"}}}"#,
    )
    .unwrap();
    let rules = ok(&check(&[
        "--filter-json",
        "rules.json",
        "--event",
        "event.json",
    ]));
    assert!(rules.contains("\"matches\":false"), "{rules}");

    let plain = |expression: &str| run(path, &["filter", "check", expression]);
    let wrong = plain("id == 7");
    failure(&wrong, "filter-syntax", 2);
    let stderr = String::from_utf8_lossy(&wrong.stderr);
    assert!(stderr.contains("id == 7\n    ^\n"), "{stderr}");
    failure(&plain("data = 'x'"), "filter-meaning", 2);
    failure(&plain(&"(".repeat(100)), "filter-limit", 2);
    failure_json(&check(&["--filter-json", "nothing"]), "not-found", 5);
}

#[test]
fn a_filter_hands_on_what_passes_from_a_copy_and_without_a_node() {
    let dir = node();
    let path = dir.path();
    fs::write(path.join("quakes.ndjson"), events(1, 41)).unwrap();
    ok(&run(
        path,
        &["--data", "node", "publish", "quakes", "quakes.ndjson"],
    ));
    let _serving = Serving::start(path);
    let ten = "id LIKE '%0'";
    let copy = [
        "--data",
        "node",
        "--json",
        "subscribe",
        "quakes",
        "--filter",
        ten,
    ];
    assert_eq!(sequences(&ok(&run(path, &copy))), [10, 20, 30, 40]);

    let invite = [
        "--data", "node", "--json", "partner", "invite", "--stream", "quakes",
    ];
    let invited: Value = serde_json::from_str(&ok(&run(path, &invite))).unwrap();
    let link = invited["link"].as_str().unwrap();
    ok(&run(
        path,
        &[
            "partner",
            "join",
            link,
            "--profile",
            "reader.json",
            "--org",
            "Birch",
            "--yes",
        ],
    ));
    let read = |arguments: &[&str]| {
        let head = ["subscribe", "quakes", "--profile", "reader.json", "--json"];
        run(path, &[&head, arguments].concat())
    };
    let some = ok(&read(&["--filter", ten, "--count", "2"]));
    assert_eq!(sequences(&some), [10, 20]);
    assert_eq!(sequences(&ok(&read(&["--filter", ten]))), [30, 40]);
    // Under another filter, from where it stands: in a series of its own.
    fs::write(path.join("quakes.ndjson"), events(1, 61)).unwrap();
    ok(&run(
        path,
        &["--data", "node", "publish", "quakes", "quakes.ndjson"],
    ));
    fs::write(path.join("rules.json"), r#"[{"prefix": {"id": "5"}}]"#).unwrap();
    let fifties: Vec<u64> = (50..60).collect();
    assert_eq!(
        sequences(&ok(&read(&["--filter-json", "rules.json"]))),
        fifties
    );
    assert_eq!(sequences(&ok(&read(&["--from", "58"]))), [58, 59, 60]);

    let receipts = ok(&run(path, &["--data", "node", "--json", "receipt", "ls"]));
    let receipts: Vec<Value> = serde_json::from_str(&receipts).unwrap();
    let counted: Vec<_> = receipts.iter().map(|receipt| &receipt["events"]).collect();
    assert!(
        counted.iter().any(|events| **events == 4) && counted.iter().any(|events| **events == 10),
        "{receipts:?}"
    );
    let ledger = ok(&run(
        path,
        &[
            "--data", "node", "--json", "ledger", "ls", "--kind", "filter",
        ],
    ));
    assert!(ledger.contains("id LIKE '%0'"), "{ledger}");
    failure_json(&read(&["--filter", "id ="]), "filter-syntax", 2);
}
