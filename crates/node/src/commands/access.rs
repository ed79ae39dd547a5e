//! Applications and policies.

use std::fs;
use std::path::{Path, PathBuf};

use countersign_crypto::PublicKey;
use countersign_policy::{PolicySet, case_policies, run_cases};
use serde_json::{Value, json};

use super::{LocalNode, exchange_error, internal};
use crate::admin::{Command, Out};
use crate::errors::{CommandError, ErrorCode};
use crate::open::{PolicyFileError, read_policies};

impl LocalNode {
    pub(super) async fn on_access(
        &self,
        command: Command,
        out: &mut Out,
    ) -> Result<(), CommandError> {
        match command {
            Command::AppAdd { app, key } => {
                let key = PublicKey::from_base64(&key)
                    .map_err(|error| CommandError::new(ErrorCode::Usage, error))?;
                let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
                if app.is_empty() || app.len() > 64 || !app.chars().all(plain) {
                    let message = "an application's name has 1 to 64 characters of a-z, A-Z, 0-9, `.`, `_`, `-`";
                    return Err(CommandError::new(ErrorCode::Usage, message));
                }
                let taken = self
                    .exchange
                    .registry()
                    .apps
                    .iter()
                    .any(|(known, name)| *name == app && *known != key);
                if taken {
                    let message = format!("another application is called `{app}`");
                    return Err(CommandError::new(ErrorCode::Conflict, message)
                        .advise("remove it first, or choose another name"));
                }
                self.exchange
                    .enrol_app(&app, key, true)
                    .await
                    .map_err(exchange_error)?;
                let node = self.exchange.identity().node_key.public().fingerprint();
                out.value(&json!({ "app": app, "key": key.fingerprint(), "node_key": node, "addresses": self.addresses() })).await
            }
            Command::AppLs => {
                let known = self.exchange.registry().apps.clone();
                let mut apps: Vec<_> = known
                    .iter()
                    .map(|(key, name)| (name.clone(), key.fingerprint().to_string()))
                    .collect();
                apps.sort();
                let apps: Vec<Value> = apps
                    .into_iter()
                    .map(|(app, key)| json!({ "app": app, "key": key }))
                    .collect();
                out.value(&apps).await
            }
            Command::AppRemove { app } => {
                let key = self
                    .exchange
                    .registry()
                    .apps
                    .iter()
                    .find(|(_, name)| **name == app)
                    .map(|(key, _)| *key);
                let unknown = || {
                    CommandError::new(
                        ErrorCode::NotFound,
                        format_args!("there is no application `{app}`"),
                    )
                };
                self.exchange
                    .enrol_app(&app, key.ok_or_else(unknown)?, false)
                    .await
                    .map_err(exchange_error)?;
                out.value(&json!({ "app": app, "enrolled": false })).await
            }
            Command::PolicyCheck => out.value(&self.check_policies()?).await,
            Command::PolicyExplain { question } => self.explain(question, out).await,
            Command::PolicyTest { files } => out.value(&self.test_policies(&files)?).await,
            _ => Err(internal("not a command about access")),
        }
    }

    fn check_policies(&self) -> Result<Value, CommandError> {
        let files = read_policies(&self.policies_dir)?;
        let loaded = PolicySet::load(&files).map_err(PolicyFileError::from)?;
        Ok(json!({
            "folder": self.policies_dir,
            "files": files.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            "policies": loaded.ids().map(ToString::to_string).collect::<Vec<_>>(),
            "warnings": loaded.warnings().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "digest": hex::encode(loaded.digest()),
            "in_force": loaded.digest() == self.exchange.policies().digest(),
        }))
    }

    fn test_policies(&self, files: &[String]) -> Result<Value, CommandError> {
        let mut results = Vec::new();
        let (mut passed, mut failed) = (0_u64, 0_u64);
        for file in self.case_files(files)? {
            let io = |error: std::io::Error| {
                CommandError::new(
                    ErrorCode::Io,
                    format_args!("cannot read `{}`: {error}", file.display()),
                )
            };
            let text = fs::read_to_string(&file).map_err(io)?;
            let invalid = |error: &dyn std::fmt::Display| {
                CommandError::new(
                    ErrorCode::PolicyInvalid,
                    format_args!("`{}`: {error}", file.display()),
                )
            };
            let folder = file.parent().unwrap_or(Path::new("."));
            let mut texts = Vec::new();
            for named in case_policies(&text).map_err(|error| invalid(&error))? {
                let path = folder.join(&named);
                let name = path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .unwrap_or_default()
                    .to_owned();
                texts.push((
                    name,
                    fs::read_to_string(&path)
                        .map_err(|error| invalid(&format_args!("{named}: {error}")))?,
                ));
            }
            let set = PolicySet::load(&texts).map_err(|error| invalid(&error))?;
            for case in run_cases(&set, &text).map_err(|error| invalid(&error))? {
                if case.passed {
                    passed += 1
                } else {
                    failed += 1
                }
                results.push(json!({ "file": file, "case": case.name, "passed": case.passed }));
            }
        }
        if failed > 0 {
            let names: Vec<String> = results
                .iter()
                .filter(|result| result["passed"] == false)
                .map(|result| result["case"].as_str().unwrap_or_default().to_owned())
                .collect();
            let message = format!(
                "{failed} of {} example decisions came out otherwise: {}",
                passed + failed,
                names.join("; ")
            );
            return Err(CommandError::new(ErrorCode::VerificationFailed, message));
        }
        Ok(json!({ "passed": passed, "failed": failed, "cases": results }))
    }

    fn case_files(&self, files: &[String]) -> Result<Vec<PathBuf>, CommandError> {
        let given: Vec<PathBuf> = if files.is_empty() {
            vec![self.policies_dir.join("tests")]
        } else {
            files.iter().map(PathBuf::from).collect()
        };
        let mut found = Vec::new();
        for path in given {
            if !path.is_dir() {
                found.push(path);
                continue;
            }
            let entries = fs::read_dir(&path).map_err(|error| {
                CommandError::new(
                    ErrorCode::Io,
                    format_args!("cannot read `{}`: {error}", path.display()),
                )
            })?;
            let mut inside: Vec<_> = entries
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| path.extension().is_some_and(|e| e == "json"))
                .collect();
            inside.sort();
            found.extend(inside);
        }
        Ok(found)
    }
}

/// Whether the texts on disk are others than those in force.
pub(crate) fn policies_differ(in_force: &PolicySet, on_disk: &[(String, String)]) -> bool {
    let mut known = in_force.texts().to_vec();
    known.sort();
    known != on_disk
}
