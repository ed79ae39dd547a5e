//! Keys: which there are, another one in the place of one, and one taken back.
//!
//! What a crash leaves: a key file is written before the statement that names it, the statement before anybody is told, and the next start goes on from the
//! statement on disk. A revocation is made last: after a crash before it the key is rotated, and the command is given again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use countersign_crypto::{OsEntropy, PublicKey, SigningKey};
use countersign_event::documents::{KeyStatement, Role};
use countersign_event::dsse::Envelope;
use countersign_event::time::Timestamp;
use countersign_exchange::Identity;
use countersign_store::disk::{Disk as _, RealDisk, SyncSite};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{LocalNode, exchange_error, internal};
use crate::admin::{Command, Out};
use crate::errors::{CommandError, ErrorCode};
use crate::key_life::{self, KeyState, WARN_BEFORE};
use crate::keys::{
    KeyFileError, ORGANIZATION, ROLES, all_files, is_protected, key_files, open_with, read_key_with,
};
use crate::open::replace_whole;
use crate::passphrase::KeySettings;

/// What a change of keys is given.
struct Change {
    organization_key: Option<String>,
    /// Where a new organization key goes; absent: into the data directory.
    out: Option<String>,
}

impl LocalNode {
    pub(super) async fn on_key(&self, command: Command, out: &mut Out) -> Result<(), CommandError> {
        match command {
            Command::KeyRevoke {
                key,
                reason,
                organization_key,
            } => {
                let change = Change {
                    organization_key,
                    out: None,
                };
                self.key_revoke(&key, &reason, &change, out).await
            }
            Command::KeyRotate {
                role,
                overlap_s,
                period_s,
                organization_key,
                out: file,
            } => {
                let change = Change {
                    organization_key,
                    out: file,
                };
                let _one = self.exchange.changing_keys().await;
                if role == ORGANIZATION {
                    return self.rotate_organization(&change, out).await;
                }
                let role = role_of(&role).ok_or_else(|| unknown_role(&role))?;
                let overlap = Duration::from_secs(overlap_s);
                let period = period_s.map(Duration::from_secs);
                let organization = self.organization_key(&change).await?;
                let made = self.rotate(role, overlap, period, &organization).await?;
                out.value(&made).await
            }
            _ => self.key_ls(out).await,
        }
    }

    async fn key_ls(&self, out: &mut Out) -> Result<(), CommandError> {
        for row in self.key_rows() {
            out.item(&row).await?;
        }
        Ok(())
    }

    fn key_rows(&self) -> Vec<Value> {
        let identity = self.exchange.identity();
        let statement = &identity.statement;
        let now = self.exchange.clock().now();
        let line = statement.organization_keys();
        let mut rows = Vec::new();
        for (at, key) in line.iter().enumerate() {
            let state = match at + 1 == line.len() {
                true => KeyState::Current,
                false => KeyState::Retired,
            };
            rows.push(json!({
                "role": ORGANIZATION,
                "key": key.fingerprint(),
                "from": null,
                "until": null,
                "state": state.as_str(),
                "file": self.file_of(key),
            }));
        }
        for key in &statement.keys {
            let state = self.key_state(statement, key, now);
            rows.push(json!({
                "role": key.role.as_str(),
                "key": key.key.fingerprint(),
                "from": key.from.to_string(),
                "until": key.until.map(|until| until.to_string()),
                "state": state.as_str(),
                "file": self.file_of(&key.key),
            }));
        }
        rows
    }

    fn key_state(
        &self,
        statement: &KeyStatement,
        key: &countersign_event::documents::RoleKey,
        now: Timestamp,
    ) -> KeyState {
        let registry = self.exchange.registry();
        let revoked = registry.is_revoked(&statement.authority, key.role, &key.key);
        key_life::state_of(statement, key, revoked, now)
    }

    /// Keys in use that end within thirty days, in words.
    pub(super) fn keys_ending(&self) -> Vec<String> {
        let identity = self.exchange.identity();
        let now = self.exchange.clock().now();
        let warn = u64::try_from(WARN_BEFORE.as_micros()).unwrap_or(u64::MAX);
        let mut ending = Vec::new();
        for role in ROLES {
            let of_role = identity.statement.keys_for(role);
            let newest = of_role.max_by_key(|key| key.from);
            let Some(until) = newest.and_then(|newest| newest.until) else {
                continue;
            };
            if until.0 <= now.0.saturating_add(warn) {
                let verb = if until <= now { "ended" } else { "ends" };
                ending.push(format!(
                    "the {role} key {verb} at {until}: run `countersign key rotate {role}`"
                ));
            }
        }
        ending
    }

    /// The organization key, from the file named, or from the data directory.
    async fn organization_key(&self, change: &Change) -> Result<SigningKey, CommandError> {
        let known = *self.exchange.identity().organization();
        let keys_dir = self.dir.keys_dir();
        let files = match &change.organization_key {
            Some(file) => vec![PathBuf::from(file)],
            None => key_files(&keys_dir, ORGANIZATION)?,
        };
        for file in files {
            let (path, settings) = (file.clone(), self.config.keys.clone());
            let key = aside(move || Ok(read_key_with(&path, &settings)?)).await?;
            if key.public() == known {
                return Ok(key);
            }
            if change.organization_key.is_some() {
                let message = format!(
                    "`{}` is not the organization key {}",
                    file.display(),
                    known.fingerprint()
                );
                return Err(CommandError::new(ErrorCode::KeyInvalid, message));
            }
        }
        let message = format!(
            "the organization key {} is not in the data directory, and only it can change keys",
            known.fingerprint()
        );
        Err(CommandError::new(ErrorCode::KeyMissing, message)
            .advise("bring its file, mode 0600, and name it with `--organization-key FILE`"))
    }

    /// Another key for a role, in use and known to whoever is connected when it returns.
    async fn rotate(
        &self,
        role: Role,
        overlap: Duration,
        period: Option<Duration>,
        organization: &SigningKey,
    ) -> Result<Value, CommandError> {
        if role == Role::Encryption {
            let message = "the encryption key is not rotated: what partners have wrapped for it could not be opened any more";
            return Err(CommandError::new(ErrorCode::Usage, message));
        }
        let exchange = &self.exchange;
        let before = exchange.identity().clone();
        let key = new_key()?;
        let now = exchange.clock().now();
        let next = (role, key.public());
        let statement = key_life::with_key(&before.statement, next, now, overlap, period);
        let statement = statement.map_err(|error| CommandError::new(ErrorCode::Usage, error))?;
        let envelope = statement.sign_with(organization);
        let file = self.keep_key(role.as_str(), &statement, &key, None).await?;
        let after = Identity {
            statement: statement.clone(),
            envelope: envelope.clone(),
            ..before.clone()
        };
        let (told, used) = match role {
            // Both log keys sign from the first moment, so that nobody is shown a head that he cannot verify.
            Role::Log => {
                let mut earlier = vec![before.log_key.clone()];
                earlier.extend(before.earlier_log_keys.iter().cloned());
                let both = Identity {
                    log_key: key,
                    earlier_log_keys: earlier,
                    ..after
                };
                (both.clone(), both)
            }
            // What the others sign is shown once partners have been told.
            Role::Agreement => (
                after.clone(),
                Identity {
                    agreement_key: key,
                    ..after
                },
            ),
            Role::Node => (
                after.clone(),
                Identity {
                    node_key: key,
                    ..after
                },
            ),
            Role::Receipt => (
                after.clone(),
                Identity {
                    receipt_key: key,
                    ..after
                },
            ),
            Role::Witness => (
                after.clone(),
                Identity {
                    witness_key: key,
                    ..after
                },
            ),
            Role::Encryption => return Err(unknown_role(role.as_str())),
        };
        self.change_to(&envelope, told, used).await?;
        let ends = statement.keys_for(role).filter_map(|key| key.until).max();
        Ok(json!({
            "role": role.as_str(),
            "key": next.1.fingerprint(),
            "statement": statement.number,
            "before_ends": ends.map(|ends| ends.to_string()),
            "file": file.display().to_string(),
            "state": "in use",
        }))
    }

    /// The statement takes force: on disk, here, in every log, at partners; then the newer keys are used.
    async fn change_to(
        &self,
        envelope: &Envelope,
        told: Identity,
        used: Identity,
    ) -> Result<(), CommandError> {
        // From here on a crash goes on with the newer keys.
        let statement_file = self.dir.statement_file();
        replace_whole(&statement_file, &envelope.to_json())
            .map_err(|error| io(&statement_file, &error))?;
        self.exchange.use_identity(told).await;
        self.exchange
            .state_keys(true)
            .await
            .map_err(exchange_error)?;
        self.announce(envelope).await;
        self.exchange.use_identity(used).await;
        if let Some(facts) = &self.server {
            facts.server.renew_node_key();
        }
        Ok(())
    }

    async fn announce(&self, document: &Envelope) {
        if let Some(facts) = &self.server {
            facts.server.announce(std::slice::from_ref(document)).await;
        }
    }

    async fn rotate_organization(
        &self,
        change: &Change,
        out: &mut Out,
    ) -> Result<(), CommandError> {
        let from = self.organization_key(change).await?;
        if change.organization_key.is_some() && change.out.is_none() {
            let message =
                "the organization key is kept elsewhere, and the new one needs a place, too";
            return Err(
                CommandError::new(ErrorCode::Usage, message).advise("name it with `--out FILE`")
            );
        }
        let before = self.exchange.identity().clone();
        let to = new_key()?;
        let now = self.exchange.clock().now();
        let statement = key_life::with_organization(&before.statement, (&from, &to), now);
        let statement = statement.map_err(|error| CommandError::new(ErrorCode::Usage, error))?;
        let mut envelope = statement.sign_with(&to);
        envelope.add_signature(&from);
        let file = self
            .keep_key(ORGANIZATION, &statement, &to, change.out.as_deref())
            .await?;
        let after = Identity {
            statement: statement.clone(),
            envelope: envelope.clone(),
            ..before
        };
        self.change_to(&envelope, after.clone(), after).await?;
        out.value(&json!({
            "role": ORGANIZATION,
            "key": to.public().fingerprint(),
            "authority": statement.authority,
            "statement": statement.number,
            "file": file.display().to_string(),
            "state": "in use",
        }))
        .await
    }

    async fn key_revoke(
        &self,
        text: &str,
        reason: &str,
        change: &Change,
        out: &mut Out,
    ) -> Result<(), CommandError> {
        let _one = self.exchange.changing_keys().await;
        let organization = self.organization_key(change).await?;
        let (role, key) = self.find_key(text)?;
        if role == Role::Log && self.exchange.asks_readers() {
            // The heads named would be those of the backup, and what partners hold beyond them could not be judged or fetched back any more.
            let message = "a log key is not revoked while a stream waits for what others know of it: the revocation would disown what was signed since the backup";
            return Err(CommandError::new(ErrorCode::StreamFrozen, message).advise(
                "`countersign stream info STREAM` says who is waited for; revoke a partner that does not answer, or begin a new stream with `stream create NEW --cites STREAM`",
            ));
        }
        let is_current = {
            let identity = self.exchange.identity();
            let of_role = identity.statement.keys_for(role);
            of_role.max_by_key(|one| one.from).map(|one| one.key) == Some(key)
        };
        let rotated = match is_current {
            true => Some(
                self.rotate(role, Duration::ZERO, None, &organization)
                    .await?,
            ),
            false => None,
        };
        let (heads, left_out) = match role {
            Role::Log => {
                self.exchange.retire_earlier_log_keys().await;
                self.exchange.heads_to_name().await
            }
            _ => (Vec::new(), 0),
        };
        let named = heads.len();
        // Not before the statement that made the key after it.
        let statement = &self.exchange.identity().statement;
        let now = self.exchange.clock().now().max(statement.made);
        let envelope =
            key_life::revocation(statement, (role, key), reason, heads, now, &organization);
        self.exchange
            .hold_own_revocation(&envelope)
            .await
            .map_err(exchange_error)?;
        self.announce(&envelope).await;
        out.value(&json!({
            "role": role.as_str(),
            "revoked": key.fingerprint(),
            "heads": named,
            "logs_without_a_head": left_out,
            "key": rotated.as_ref().map(|rotated| rotated["key"].clone()),
            "document": serde_json::from_slice::<Value>(&envelope.to_json()).unwrap_or_default(),
        }))
        .await
    }

    /// A key of our statement: by its fingerprint, the beginning of it, or its role (the one in use).
    fn find_key(&self, text: &str) -> Result<(Role, PublicKey), CommandError> {
        let statement = &self.exchange.identity().statement;
        if text == ORGANIZATION {
            let message = "an organization key is not revoked: what would revoke it is that key";
            return Err(CommandError::new(ErrorCode::Usage, message).advise(
                "`countersign key rotate organization` gives its place to another; tell partners by another way if somebody else may have it",
            ));
        }
        if let Some(role) = role_of(text) {
            let newest = statement.keys_for(role).max_by_key(|key| key.from);
            let newest = newest.ok_or_else(|| unknown_role(text))?;
            return Ok((role, newest.key));
        }
        let fits = |key: &&countersign_event::documents::RoleKey| {
            text.len() >= 8 && key.key.fingerprint().as_str().starts_with(text)
        };
        let found: Vec<_> = statement.keys.iter().filter(fits).collect();
        match found.as_slice() {
            [one] => Ok((one.role, one.key)),
            _ => {
                let message = match found.len() {
                    0 => format!("no key of this organization is called `{text}`"),
                    several => format!("`{text}` fits {several} keys"),
                };
                Err(CommandError::new(ErrorCode::NotFound, message)
                    .advise("`countersign key ls` lists roles and fingerprints"))
            }
        }
    }

    /// Writes a new key's file, before anything names it.
    async fn keep_key(
        &self,
        name: &str,
        statement: &KeyStatement,
        key: &SigningKey,
        elsewhere: Option<&str>,
    ) -> Result<PathBuf, CommandError> {
        let keys_dir = self.dir.keys_dir();
        let path = match elsewhere {
            Some(path) => PathBuf::from(path),
            None => keys_dir.join(format!("{name}.{}.pem", statement.number)),
        };
        if elsewhere.is_none() && path.exists() {
            // An attempt that ended before its statement was written: nothing names this key.
            fs::remove_file(&path).map_err(|error| io(&path, &error))?;
        }
        let (dir, settings) = (keys_dir.clone(), self.config.keys.clone());
        let new = key.clone();
        let pem = aside(move || pem_of(&new, &dir, &settings)).await?;
        let write = || {
            let file = RealDisk.create_new(&path)?;
            file.write_all_at(pem.as_bytes(), 0)?;
            file.sync_all(SyncSite::CreateRoot)?;
            let folder = path.parent().unwrap_or(&keys_dir);
            RealDisk.sync_dir(folder, SyncSite::CreateRoot)
        };
        write().map_err(|error| io(&path, &error))?;
        if elsewhere.is_none() {
            self.dir.add_key_file(path.clone(), key.public());
        }
        Ok(path)
    }

    /// Which file has a key, if one has.
    fn file_of(&self, key: &PublicKey) -> Option<String> {
        let file = self.dir.file_of(key)?;
        Some(file.file_name()?.to_string_lossy().into_owned())
    }
}

/// Where nobody waits for it: opening keys takes its time, and asking for the passphrase may take more.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CommandError> + Send + 'static,
) -> Result<T, CommandError> {
    tokio::task::spawn_blocking(work).await.map_err(internal)?
}

/// As the keys are that are here: under their passphrase where they are under one.
fn pem_of(
    key: &SigningKey,
    keys_dir: &Path,
    settings: &KeySettings,
) -> Result<Zeroizing<String>, CommandError> {
    for file in all_files(keys_dir)? {
        if !is_protected(&file)? {
            continue;
        }
        let passphrase = settings.passphrase().map_err(KeyFileError::from)?;
        // One passphrase opens all: a new one is not mixed in.
        open_with(&file, &passphrase)?;
        let mut entropy = OsEntropy::new().map_err(internal)?;
        let pem = key.to_protected_pem(&passphrase, &mut entropy);
        return pem.map_err(internal);
    }
    key.to_pem().map_err(internal)
}

fn new_key() -> Result<SigningKey, CommandError> {
    let mut entropy = OsEntropy::new().map_err(internal)?;
    Ok(SigningKey::generate(&mut entropy))
}

fn role_of(text: &str) -> Option<Role> {
    ROLES.into_iter().find(|role| role.as_str() == text)
}

fn unknown_role(text: &str) -> CommandError {
    let message = format!("there is no role `{text}` whose key could be changed");
    CommandError::new(ErrorCode::Usage, message)
        .advise("the roles are node, log, agreement, receipt, witness and organization")
}

fn io(path: &Path, error: &std::io::Error) -> CommandError {
    let message = format!("cannot write `{}`: {error}", path.display());
    CommandError::new(ErrorCode::Io, message)
}
