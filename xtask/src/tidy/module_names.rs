//! Modules carry the published name of what they do; a name that fits everything fills with everything.

use super::{Finding, Project};

const RULE: &str = "module-names";

const NAMES: [&str; 7] = [
    "common", "core", "helpers", "manager", "misc", "util", "utils",
];

pub(super) fn findings(project: &Project) -> Vec<Finding> {
    project
        .rust()
        .filter_map(|file| {
            let stem = file.path.strip_suffix(".rs")?;
            let name = stem.split('/').find(|part| NAMES.contains(part))?;
            Some(Finding {
                path: file.path.clone(),
                line: 1,
                rule: RULE,
                what: format!("`{name}` says nothing; name the module by what it does"),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::check_rule;
    use super::*;

    #[test]
    fn names_that_fit_everything_are_found_as_file_and_as_folder() {
        check_rule(
            findings,
            &[
                ("crates/a/src/util.rs", ""),
                ("crates/a/tests/common/mod.rs", ""),
                ("crates/a/src/commonwealth.rs", ""),
            ],
            &["crates/a/src/util.rs:1", "crates/a/tests/common/mod.rs:1"],
        );
    }
}
