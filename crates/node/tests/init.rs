//! Making a node, and refusing to use one that is not in order.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may panic and print"
)]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use countersign::config::Config;
use countersign::data_dir::{DataDir, DataDirError};
use countersign::init::{InitError, InitOptions, InitReport, init};
use countersign::keys::KeyFileError;
use countersign::passphrase::KeySettings;
use countersign_crypto::{SeededEntropy, SigningKey};
use countersign_event::time::Timestamp;
use support::run;

const NOW: Timestamp = Timestamp(1_767_225_600_000_000);

/// A journal of small segments, so that nothing waits for 64 MiB of zeros.
fn options(data: &Path) -> InitOptions {
    let mut config = Config::default();
    config.journal.segment_bytes = 64 << 10;
    InitOptions {
        name: "Acme Weather".to_owned(),
        domain: None,
        config,
        data: data.to_owned(),
    }
}

fn make(parent: &Path) -> (PathBuf, InitReport) {
    let data = parent.join("node");
    let report = init(&options(&data), NOW).unwrap();
    (data, report)
}

/// Every file below `dir` with its bytes.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = fs::read(&path).unwrap();
                all.insert(path, bytes);
            }
        }
    }
    all
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn init_makes_a_directory_that_opens_with_all_keys_delegated() {
    let parent = tempfile::tempdir().unwrap();
    let (data, report) = make(parent.path());
    let dir = DataDir::open(&data).unwrap();
    let keys = dir.load_keys(&KeySettings::default()).unwrap();
    assert_eq!(
        keys.statement.organization.fingerprint(),
        report.fingerprint
    );
    assert_eq!(
        keys.statement.authority.as_str(),
        report.fingerprint.as_str()
    );
    assert_eq!(keys.statement.name, "Acme Weather");
    assert_eq!(keys.statement.made, NOW);
    assert_eq!(
        keys.organization.unwrap().public(),
        keys.statement.organization
    );
    assert_eq!(mode(&data), 0o700);
    for path in contents(&data).keys() {
        assert_eq!(mode(path) & 0o077, 0, "{}", path.display());
    }
    let loaded = Config::load(
        Some(&dir.config_file()),
        &countersign::data_dir::Environment::default(),
        &[],
    );
    assert_eq!(loaded.unwrap().config, options(&data).config);
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
}

#[test]
fn init_never_touches_what_is_there() {
    let parent = tempfile::tempdir().unwrap();
    let (data, _) = make(parent.path());
    let before = contents(&data);
    let refused = init(&options(&data), NOW);
    assert!(matches!(refused, Err(InitError::Exists { .. })));
    assert_eq!(contents(&data), before);

    let file = parent.path().join("file");
    fs::write(&file, "mine").unwrap();
    let refused = init(&options(&file), NOW);
    assert!(matches!(refused, Err(InitError::Exists { .. })));
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 2);
}

#[test]
fn init_takes_an_empty_folder_and_makes_its_parents() {
    let parent = tempfile::tempdir().unwrap();
    let empty = parent.path().join("empty");
    fs::create_dir(&empty).unwrap();
    init(&options(&empty), NOW).unwrap();
    assert_eq!(mode(&empty), 0o700);
    let deep = parent.path().join("a/b/c");
    init(&options(&deep), NOW).unwrap();
    DataDir::open(&deep).unwrap();
}

#[test]
fn names_and_domains_that_cannot_be_are_refused() {
    let parent = tempfile::tempdir().unwrap();
    let data = parent.path().join("node");
    let with = |name: &str, domain: Option<&str>| InitOptions {
        name: name.to_owned(),
        domain: domain.map(str::to_owned),
        ..options(&data)
    };
    for name in ["", "a\nb", &"x".repeat(101)] {
        let refused = init(&with(name, None), NOW);
        assert!(matches!(refused, Err(InitError::Name { .. })), "{name:?}");
    }
    let other = SigningKey::generate(&mut SeededEntropy::new(1)).public();
    let refused = init(&with("A", Some(other.fingerprint().as_str())), NOW);
    assert!(matches!(
        refused,
        Err(InitError::DomainIsFingerprint { .. })
    ));
    let refused = init(&with("A", Some("not a domain")), NOW);
    assert!(matches!(refused, Err(InitError::Domain(_))));
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    let report = init(&with("A", Some("data.example.org")), NOW).unwrap();
    assert_eq!(report.authority.as_str(), "data.example.org");
    DataDir::open(&data)
        .unwrap()
        .load_keys(&KeySettings::default())
        .unwrap();
}

#[test]
fn a_key_file_that_others_may_read_is_refused_with_the_remedy() {
    let parent = tempfile::tempdir().unwrap();
    let (data, _) = make(parent.path());
    for name in ["organization", "node", "log", "agreement", "receipt"] {
        let key = data.join(format!("keys/{name}.pem"));
        for wide in [0o640, 0o604, 0o620, 0o610] {
            fs::set_permissions(&key, Permissions::from_mode(wide)).unwrap();
            let error = DataDir::open(&data).unwrap_err();
            assert!(matches!(
                error,
                DataDirError::Key(KeyFileError::Mode { .. })
            ));
            let remedy = format!("run `chmod 600 {}`", key.display());
            assert!(error.to_string().ends_with(&remedy), "{error}");
        }
        fs::set_permissions(&key, Permissions::from_mode(0o400)).unwrap();
        DataDir::open(&data).unwrap();
    }
}

#[test]
fn a_directory_that_others_may_write_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    let (data, _) = make(parent.path());
    fs::set_permissions(&data, Permissions::from_mode(0o720)).unwrap();
    let refused = DataDir::open(&data);
    assert!(matches!(refused, Err(DataDirError::Writable { .. })));
}

#[test]
fn a_newer_format_is_refused_and_nothing_is_written() {
    let parent = tempfile::tempdir().unwrap();
    let (data, _) = make(parent.path());
    fs::write(data.join("format"), "2\n").unwrap();
    let before = contents(&data);
    let refused = DataDir::open(&data);
    assert!(matches!(
        refused,
        Err(DataDirError::Format { found: 2, .. })
    ));
    for command in [&["status"][..], &["serve"], &["config", "explain"]] {
        let arguments = [command, &["--data", data.to_str().unwrap()]].concat();
        let output = run(parent.path(), &arguments);
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("[data-dir-format]"), "{stderr}");
    }
    assert_eq!(contents(&data), before);
    for text in ["", "x\n", "0\n", "-1\n", "99999999999999999999\n"] {
        fs::write(data.join("format"), text).unwrap();
        let refused = DataDir::open(&data);
        assert!(
            matches!(refused, Err(DataDirError::FormatText { .. })),
            "{text:?}"
        );
    }
}

#[test]
fn the_organization_key_may_be_elsewhere_and_the_others_may_not() {
    let parent = tempfile::tempdir().unwrap();
    let (data, _) = make(parent.path());
    fs::remove_file(data.join("keys/organization.pem")).unwrap();
    let dir = DataDir::open(&data).unwrap();
    assert!(
        dir.load_keys(&KeySettings::default())
            .unwrap()
            .organization
            .is_none()
    );
    for name in ["node", "log", "agreement", "receipt"] {
        let key = data.join(format!("keys/{name}.pem"));
        let pem = fs::read(&key).unwrap();
        fs::remove_file(&key).unwrap();
        assert!(matches!(
            dir.load_keys(&KeySettings::default()),
            Err(KeyFileError::Missing { .. })
        ));
        fs::write(&key, pem).unwrap();
        fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    }
    dir.load_keys(&KeySettings::default()).unwrap();
}

#[test]
fn keys_that_the_statement_does_not_name_are_refused() {
    let parent = tempfile::tempdir().unwrap();
    let (data, _) = make(parent.path());
    let dir = DataDir::open(&data).unwrap();
    let log = fs::read(data.join("keys/log.pem")).unwrap();
    for name in ["organization", "node", "receipt"] {
        let key = data.join(format!("keys/{name}.pem"));
        let own = fs::read(&key).unwrap();
        fs::write(&key, &log).unwrap();
        let refused = dir.load_keys(&KeySettings::default());
        assert!(matches!(refused, Err(KeyFileError::Mismatch { role, .. }) if role == name));
        fs::write(&key, "no key").unwrap();
        assert!(matches!(
            dir.load_keys(&KeySettings::default()),
            Err(KeyFileError::Invalid { .. })
        ));
        fs::write(&key, own).unwrap();
    }
    let statement = data.join("key-statement.json");
    let text = fs::read_to_string(&statement).unwrap();
    fs::write(&statement, text.replace("\"sig\":\"", "\"sig\":\"AA")).unwrap();
    assert!(matches!(
        dir.load_keys(&KeySettings::default()),
        Err(KeyFileError::Statement { .. })
    ));
}

#[test]
fn one_process_at_a_time_and_the_second_is_told_which() {
    let parent = tempfile::tempdir().unwrap();
    let (data, _) = make(parent.path());
    let dir = DataDir::open(&data).unwrap();
    let lock = dir.lock().unwrap();
    let own = std::process::id();
    let refused = dir.lock().unwrap_err();
    assert!(matches!(refused, DataDirError::Locked { pid: Some(pid), .. } if pid == own));
    let output = run(parent.path(), &["status", "--data", "node"]);
    assert_eq!(output.status.code(), Some(8));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains(&format!("(process {own})")), "{stderr}");
    drop(lock);
    dir.lock().unwrap();
}

#[test]
fn openssl_reads_every_key() {
    let parent = tempfile::tempdir().unwrap();
    let (data, _) = make(parent.path());
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("openssl: NOT RUN, the program is not installed");
        return;
    }
    for name in ["organization", "node", "log", "agreement", "receipt"] {
        let output = Command::new("openssl")
            .args(["pkey", "-noout", "-in"])
            .arg(data.join(format!("keys/{name}.pem")))
            .output()
            .unwrap();
        assert!(output.status.success(), "{name}: {output:?}");
    }
}
