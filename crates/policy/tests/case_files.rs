//! Every file of example decisions in `policies/tests` comes out as it says, and every policy shipped is in one.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use countersign_policy::{CaseFileError, PolicySet, case_policies, run_cases};

fn policies_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies")
}

fn files_in(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(policies_folder().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no .{extension} in {folder}");
    paths
}

fn load(paths: &[PathBuf]) -> PolicySet {
    let files: Vec<(String, String)> = paths
        .iter()
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    PolicySet::load(&files).unwrap()
}

#[test]
fn every_example_decision_comes_out_as_expected() {
    let mut used = BTreeSet::new();
    for path in files_in("tests", "json") {
        let json = fs::read_to_string(&path).unwrap();
        let paths: Vec<PathBuf> = case_policies(&json)
            .unwrap()
            .iter()
            .map(|relative| path.parent().unwrap().join(relative))
            .collect();
        used.extend(paths.iter().map(|path| fs::canonicalize(path).unwrap()));
        for result in run_cases(&load(&paths), &json).unwrap() {
            assert!(result.passed, "{}: {result:#?}", path.display());
        }
    }
    let shipped: BTreeSet<PathBuf> = [files_in(".", "cedar"), files_in("examples", "cedar")]
        .concat()
        .iter()
        .map(|path| fs::canonicalize(path).unwrap())
        .collect();
    assert_eq!(used, shipped, "each policy file needs example decisions");
}

#[test]
fn shipped_policies_load_together_without_warnings_and_advise() {
    let paths = [files_in(".", "cedar"), files_in("examples", "cedar")].concat();
    let policies = load(&paths);
    assert_eq!(policies.warnings(), []);
    for id in policies.ids() {
        let name = id.as_str().split_once('/').unwrap().1;
        assert!(name.parse::<u32>().is_err(), "{id} has no @id");
    }
}

fn check_file(json: &str) -> Result<Vec<bool>, CaseFileError> {
    let results = run_cases(&PolicySet::load(&[]).unwrap(), json)?;
    Ok(results.iter().map(|result| result.passed).collect())
}

fn case_with(rest: &str) -> String {
    format!(
        r#"{{"policies": [], "cases": [{{"name": "one", "action": "read",
            "principal": {{"organization": {{"authority": "a.example"}}}},
            "resource": {{"name": "s", "origin": "b.example/streams/s", "owner": "b.example"}}, {rest}}}]}}"#
    )
}

#[test]
fn a_case_fails_on_another_answer_and_on_other_determining_policies() {
    assert_eq!(
        check_file(&case_with(r#""expect": "deny""#)).unwrap(),
        [true]
    );
    assert_eq!(
        check_file(&case_with(r#""expect": "allow""#)).unwrap(),
        [false]
    );
    let determining = r#""expect": "deny", "determining": ["starter/read"]"#;
    assert_eq!(check_file(&case_with(determining)).unwrap(), [false]);
}

#[test]
fn malformed_case_files_are_refused() {
    let empty = r#"{"policies": [], "cases": []}"#;
    assert!(matches!(check_file(empty), Err(CaseFileError::Empty)));
    let misspelt = case_with(r#""expect": "deny", "determines": []"#);
    assert!(matches!(check_file(&misspelt), Err(CaseFileError::Form(_))));
    for now in ["tomorrow", "1969-12-31T23:59:59Z", "2026-01-01"] {
        let time = case_with(&format!(
            r#""expect": "deny", "context": {{"now": "{now}"}}"#
        ));
        assert!(matches!(check_file(&time), Err(CaseFileError::Time { case }) if case == "one"));
    }
    let one = case_with(r#""expect": "deny""#);
    let twice = one.replace(
        "}]}",
        &format!(
            "}}, {}]}}",
            &one[one.find(r#"{"name": "one""#).unwrap()..one.len() - 2]
        ),
    );
    assert!(
        matches!(check_file(&twice), Err(CaseFileError::DuplicateName { case }) if case == "one")
    );
    let long = " ".repeat(1024 * 1024 + 1);
    assert!(matches!(
        check_file(&long),
        Err(CaseFileError::TooManyBytes { .. })
    ));
}
