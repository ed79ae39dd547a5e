//! Key files under a passphrase: real processes, a real disk, real commands that give the passphrase.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use countersign_crypto::SigningKey;
use serde_json::Value;
use support::{Node, Root, wait_until};

const PASSPHRASE: &str = "canary-passphrase-7fLx 2VtR";
const FILE: &str = "COUNTERSIGN_KEYS_PASSPHRASE_FILE";
const COMMAND: &str = "COUNTERSIGN_KEYS_PASSPHRASE_COMMAND";
/// Small segments: every byte of them is looked at.
const SETTINGS: &[(&str, &str)] = &[("COUNTERSIGN_JOURNAL_SEGMENT_BYTES", "65536")];
/// The organization's and six roles'.
const KEYS: usize = 7;

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn passphrase_file(root: &Root, text: &str) -> PathBuf {
    let path = root.path().join(format!("passphrase-{}", text.len()));
    write(&path, text, 0o600);
    path
}

fn key_files(node: &Node) -> Vec<PathBuf> {
    let entries = fs::read_dir(node.data.join("keys")).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "pem"));
    files.sort();
    files
}

fn protected(node: &Node) -> usize {
    let is = |path: &&PathBuf| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    };
    key_files(node).iter().filter(is).count()
}

/// What the plain key files hold, as it could lie anywhere: the line of base64, and the bytes of the seed.
fn secrets(node: &Node) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for path in key_files(node) {
        let pem = fs::read_to_string(path).unwrap();
        let key = SigningKey::from_pem(&pem).unwrap();
        // Of PKCS#8 version 1 the seed is the end.
        let der = key.to_pkcs8_der().unwrap();
        found.push(der[der.len() - 32..].to_vec());
        found.push(pem.lines().nth(1).unwrap().as_bytes().to_vec());
    }
    assert_eq!(found.len(), 2 * KEYS);
    found
}

/// Files below a folder in which one of these is.
fn files_with(folder: &Path, needles: &[Vec<u8>]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).unwrap();
            waiting.extend(entries.map(|entry| entry.unwrap().path()));
        } else if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file()) {
            let bytes = fs::read(&path).unwrap_or_default();
            let has = |needle: &Vec<u8>| {
                let mut windows = bytes.windows(needle.len());
                windows.any(|window| window == needle.as_slice())
            };
            if needles.iter().any(has) {
                found.push(path);
            }
        }
    }
    found
}

fn check_of(node: &Node, what: &str) -> Value {
    let doctor = node.json(&["doctor"]);
    let checks = doctor["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["check"] == what);
    found.unwrap().clone()
}

/// The code that a command fails with; that nothing of the passphrase is said.
#[track_caller]
fn refused(node: &Node, arguments: &[&str]) -> String {
    let output = node.run(&[arguments, &["--json"]].concat());
    assert!(!output.status.success(), "{arguments:?}");
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(!said.contains("canary"), "{said}");
    let line = said.lines().find(|line| line.starts_with('{')).unwrap();
    let error: Value = serde_json::from_str(line).unwrap();
    error["error"]["code"].as_str().unwrap().to_owned()
}

#[test]
fn keys_go_under_a_passphrase_and_come_out_again_and_the_node_goes_on() {
    let root = Root::new();
    let mut node = Node::init(root.path(), "Node", SETTINGS);
    let canaries = secrets(&node);
    let found = check_of(&node, "keys");
    assert_eq!(found["result"], "look");
    assert!(found["detail"].as_str().unwrap().contains("node.pem"));
    assert_eq!(refused(&node, &["key", "protect"]), "usage");
    node.set(FILE, passphrase_file(&root, PASSPHRASE).to_str().unwrap());
    let done = node.json(&["key", "protect"]);
    assert_eq!(done["changed"].as_array().unwrap().len(), KEYS);
    assert_eq!(protected(&node), KEYS);
    assert_eq!(files_with(&node.data, &canaries), Vec::<PathBuf>::new());
    // On the same disk the passphrase goes where the keys go.
    let found = check_of(&node, "keys");
    assert_eq!(found["result"], "look", "{found}");
    let detail = found["detail"].as_str().unwrap();
    assert!(
        detail.contains("on the file system of the keys"),
        "{detail}"
    );
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let file = elsewhere.path().join("passphrase");
    write(&file, PASSPHRASE, 0o600);
    node.set(FILE, file.to_str().unwrap());
    let found = check_of(&node, "keys");
    assert_eq!(found["result"], "ok", "{found}");
    node.set(FILE, passphrase_file(&root, PASSPHRASE).to_str().unwrap());
    let again = node.json(&["key", "protect"]);
    assert_eq!(
        (&again["changed"], &again["unchanged"]),
        (&Value::Array(Vec::new()), &KEYS.into())
    );

    node.serve();
    node.json(&["stream", "create", "orders"]);
    assert_eq!(refused(&node, &["key", "protect"]), "data-dir-locked");
    // A key that is made while the node runs goes under the same passphrase.
    node.json(&["key", "rotate", "log"]);
    assert_eq!(protected(&node), KEYS + 1);
    let rows = node.lines(&["key", "ls"]);
    assert!(rows.iter().all(|row| row.contains(".pem")), "{rows:?}");
    assert!(rows.iter().any(|row| row.contains("log.2.pem")), "{rows:?}");
    node.terminate();
    node.serve();
    node.json(&["stream", "create", "parts"]);
    node.terminate();

    let done = node.json(&["key", "unprotect"]);
    assert_eq!(done["changed"].as_array().unwrap().len(), KEYS + 1);
    assert_eq!(protected(&node), 0);
    node.set(FILE, "");
    node.serve();
    node.json(&["stream", "info", "parts"]);
}

#[test]
fn without_the_right_passphrase_nothing_opens_and_nothing_changes() {
    let root = Root::new();
    let right = passphrase_file(&root, PASSPHRASE);
    let more = ["--passphrase-file", right.to_str().unwrap()];
    let mut node = Node::init_with(root.path(), "Node", SETTINGS, &more);
    assert_eq!(protected(&node), KEYS);
    let config = fs::read_to_string(node.data.join("countersign.toml")).unwrap();
    assert!(config.contains("\npassphrase_file = \""), "{config}");
    node.lines(&["key", "ls"]);
    let before: Vec<Vec<u8>> = key_files(&node)
        .iter()
        .map(|path| fs::read(path).unwrap())
        .collect();

    let wrong = passphrase_file(&root, "canary, and another");
    let open = passphrase_file(&root, "canary, for all to read");
    write(&open, PASSPHRASE, 0o644);
    let absent = root.path().join("absent");
    let long = "canary".repeat(1_000);
    let long = passphrase_file(&root, &long);
    for (file, code) in [
        (&wrong, "passphrase-wrong"),
        (&open, "passphrase-missing"),
        (&absent, "passphrase-missing"),
        (&long, "passphrase-missing"),
    ] {
        node.set(FILE, file.to_str().unwrap());
        for command in [
            &["key", "ls"][..],
            &["serve"],
            &["key", "protect"],
            &["key", "unprotect"],
        ] {
            assert_eq!(refused(&node, command), code, "{command:?} {file:?}");
        }
    }
    // The file takes the setting's place: as if there were none.
    let config = config.replace("\npassphrase_file = ", "\n# passphrase_file = ");
    fs::write(node.data.join("countersign.toml"), config).unwrap();
    node.set(FILE, "");
    assert_eq!(refused(&node, &["key", "ls"]), "key-locked");
    assert_eq!(refused(&node, &["serve"]), "key-locked");
    for (script, code) in [
        (format!("echo {PASSPHRASE}; exit 3"), "passphrase-missing"),
        ("exit 0".to_owned(), "passphrase-missing"),
        (
            "while echo canary; do :; done".to_owned(),
            "passphrase-missing",
        ),
        (
            format!("echo {PASSPHRASE}; echo canary"),
            "passphrase-missing",
        ),
        ("echo canary".to_owned(), "passphrase-wrong"),
    ] {
        node.set(COMMAND, &format!("/bin/sh,-c,{script}"));
        assert_eq!(refused(&node, &["key", "ls"]), code, "{script}");
    }
    node.set(COMMAND, "/nowhere/program");
    assert_eq!(refused(&node, &["key", "ls"]), "passphrase-missing");
    node.set(FILE, right.to_str().unwrap());
    assert_eq!(refused(&node, &["key", "ls"]), "usage");
    node.set(FILE, "");
    node.set(COMMAND, &format!("/bin/sh,-c,echo {PASSPHRASE}"));
    node.lines(&["key", "ls"]);
    let found = check_of(&node, "keys");
    assert_eq!(found["result"], "ok", "{found}");
    let detail = found["detail"].as_str().unwrap();
    assert!(detail.contains("is not judged here"), "{detail}");
    let after: Vec<Vec<u8>> = key_files(&node)
        .iter()
        .map(|path| fs::read(path).unwrap())
        .collect();
    assert_eq!(before, after);
    assert_eq!(
        files_with(&node.data, &[PASSPHRASE.into()]),
        Vec::<PathBuf>::new()
    );

    // Without its passphrase no directory is made.
    node.set(COMMAND, "");
    let nothing = root.path().join("nothing");
    node.move_to(&nothing);
    let file = absent.to_str().unwrap();
    let init = ["init", "--org", "Other", "--passphrase-file", file];
    assert_eq!(refused(&node, &init), "passphrase-missing");
    assert!(!nothing.exists());
}

#[test]
fn a_command_that_hangs_is_given_up() {
    let root = Root::new();
    let mut node = Node::init(root.path(), "Node", SETTINGS);
    node.set(COMMAND, "/bin/sh,-c,exec /bin/sleep 600");
    assert_eq!(refused(&node, &["key", "protect"]), "passphrase-missing");
    assert_eq!(protected(&node), 0);
}

/// Kills a command once it has changed some key files and not all; which are counted as `changed`.
fn kill_midway(node: &Node, verb: &str, changed: impl Fn() -> usize) {
    let mut child = node
        .command(&["key", verb])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("some files are changed", || (changed() > 0).then_some(()));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(changed() < KEYS, "it was killed too late");
}

#[test]
fn a_crash_in_the_middle_leaves_keys_that_open_and_the_command_goes_on() {
    let root = Root::new();
    let mut node = Node::init(root.path(), "Node", SETTINGS);
    let canaries = secrets(&node);
    let plain = fs::read(node.data.join("keys/log.pem")).unwrap();
    node.set(FILE, passphrase_file(&root, PASSPHRASE).to_str().unwrap());
    kill_midway(&node, "protect", || protected(&node));
    // Some are under the passphrase and some are not: all of them open.
    node.json(&["status"]);
    node.serve();
    node.terminate();
    assert_eq!(check_of(&node, "keys")["result"], "look");
    // What a crash leaves that was about to put a plain key into its place.
    let left = node.data.join("keys/log.pem.new");
    fs::write(&left, &plain).unwrap();
    node.json(&["key", "protect"]);
    assert_eq!(protected(&node), KEYS);
    assert!(!left.exists());
    assert_eq!(files_with(&node.data, &canaries), Vec::<PathBuf>::new());

    kill_midway(&node, "unprotect", || KEYS - protected(&node).min(KEYS));
    node.json(&["status"]);
    node.json(&["key", "unprotect"]);
    assert_eq!(protected(&node), 0);
    node.set(FILE, "");
    node.serve();
}
