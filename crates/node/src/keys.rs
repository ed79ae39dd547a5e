//! Key files: PKCS#8 version 1 PEM, plain or under a passphrase (`schemas/key-file.md`), readable by their owner only, and checked against the key statement when they are loaded.
//!
//! ```text
//! keys/organization.pem   signs key statements; may be kept elsewhere
//! keys/node.pem           speaks TLS
//! keys/log.pem            signs checkpoints
//! keys/agreement.pem      signs agreements, refusals and terminations
//! keys/receipt.pem        signs receipts
//! keys/witness.pem        cosigns checkpoints of others
//! keys/encryption.pem     opens the keys of encrypted streams
//! keys/log.7.pem          the log key that key statement 7 has made; so of the other roles
//! ```
//!
//! Of several files of a role the key that the key statement delegates, and that began last, is the one in use. A file is made before the statement that names
//! its key, so that a crash in between leaves a file that nothing names.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use countersign_crypto::{KeyError, Passphrase, PublicKey, SigningKey, is_protected_pem};
use countersign_event::documents::{KeyStatement, Role, StatementError};
use countersign_event::dsse::{ENVELOPE_BYTES_MAX, Envelope, EnvelopeError};
use countersign_exchange::Identity;
use zeroize::Zeroizing;

use crate::passphrase::{KeySettings, PassphraseFault};

/// Largest key file that is read. A PKCS#8 version 1 Ed25519 key takes 119 bytes; comments around it are allowed.
pub const KEY_FILE_BYTES_MAX: u64 = 4096;

/// What the organization key's files are called.
pub(crate) const ORGANIZATION: &str = "organization";

/// Key files under a passphrase that are opened at the same time.
const OPENED_AT_ONCE: usize = 4;

/// The role keys that a node needs, in the order in which they are made and listed.
pub const ROLES: [Role; 6] = [
    Role::Node,
    Role::Log,
    Role::Agreement,
    Role::Receipt,
    Role::Witness,
    Role::Encryption,
];

/// Why keys are not used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Not a key.
    #[error("`{path}` is not a private key: {source}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: KeyError,
    },
    /// The system refused.
    #[error("cannot read `{path}`: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Under a passphrase, which was not asked for.
    #[error("`{path}` is under a passphrase, and no passphrase is set for it")]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// Not the key that the key statement delegates.
    #[error("`{path}` is not the {role} key that the key statement names")]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// What it should be.
        role: &'static str,
    },
    /// There is no such file.
    #[error("the key file `{path}` is missing")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Somebody else than the owner may read or write it.
    #[error(
        "`{path}` has mode {mode:04o}: others than its owner may use the key; run `chmod 600 {path}`"
    )]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to another user.
    #[error("`{path}` belongs to user {owner}, and this process runs as user {own}")]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The effective user of this process.
        own: u32,
    },
    /// The passphrase is another.
    #[error("the passphrase does not open `{path}`")]
    Passphrase {
        /// The file.
        path: PathBuf,
    },
    /// The passphrase cannot be had.
    #[error(transparent)]
    PassphraseSource(#[from] PassphraseFault),
    /// The key statement is missing a part, or does not verify.
    #[error("`{path}` is not a valid key statement: {source}")]
    Statement {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: StatementFault,
    },
}

/// What is wrong with a key statement file.
#[derive(Debug, thiserror::Error)]
pub enum StatementFault {
    /// The envelope's form.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// Signature or content.
    #[error(transparent)]
    Statement(#[from] StatementError),
}

/// A node's keys with the statement that delegates them; all belong together, or loading fails.
#[derive(Clone, Debug)]
pub struct NodeKeys {
    /// Who the organization is, and which keys speak for it.
    pub statement: KeyStatement,
    /// The statement as it was signed.
    pub envelope: Envelope,
    /// Signs key statements; absent where it is kept elsewhere.
    pub organization: Option<SigningKey>,
    /// Speaks TLS.
    pub node: SigningKey,
    /// Signs checkpoints.
    pub log: SigningKey,
    /// Log keys that it has followed, as far as their files are here.
    pub earlier_log: Vec<SigningKey>,
    /// Signs agreements, refusals and terminations.
    pub agreement: SigningKey,
    /// Signs receipts.
    pub receipt: SigningKey,
    /// Cosigns checkpoints of others.
    pub witness: SigningKey,
    /// Opens the keys of encrypted streams.
    pub encryption: SigningKey,
    /// The files that were read, and whose key is in each.
    pub files: Vec<(PathBuf, PublicKey)>,
}

/// A key file that was opened.
pub(crate) struct KeyFile {
    /// Its role, or `organization`.
    pub(crate) name: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) key: SigningKey,
    /// Whether it is under a passphrase.
    pub(crate) protected: bool,
}

impl NodeKeys {
    /// Loads the role keys from `keys_dir` and the statement from `statement_path`. Whether a delegation is within its period is judged where
    /// the key is used, by the log's time.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn load(
        keys_dir: &Path,
        statement_path: &Path,
        settings: &KeySettings,
    ) -> Result<Self, KeyFileError> {
        let (statement, envelope) = read_statement(statement_path)?;
        let files = open_all(keys_dir, || Ok(settings.passphrase()?))?;
        let of = |name: &'static str| files.iter().filter(move |file| file.name == name);
        let line = statement.organization_keys();
        let mut organization = None;
        for KeyFile { path, key, .. } in of(ORGANIZATION) {
            match line.iter().rposition(|known| *known == key.public()) {
                Some(at) if at + 1 == line.len() => organization = Some(key.clone()),
                // One that gave its place away.
                Some(_) => {}
                None => {
                    return Err(KeyFileError::Mismatch {
                        path: path.clone(),
                        role: "organization",
                    });
                }
            }
        }
        let load = |role: Role| -> Result<(SigningKey, Vec<SigningKey>), KeyFileError> {
            let path = key_path(keys_dir, role.as_str());
            if of(role.as_str()).next().is_none() {
                return Err(KeyFileError::Missing { path });
            }
            let from = |key: &SigningKey| {
                let mut stated = statement.keys_for(role);
                stated
                    .find(|stated| stated.key == key.public())
                    .map(|stated| stated.from)
            };
            let mut named: Vec<_> = of(role.as_str())
                .filter_map(|file| Some((from(&file.key)?, file.key.clone())))
                .collect();
            named.sort_by_key(|(from, _)| *from);
            let newest = named.pop().map(|(_, key)| key);
            let earlier = named.into_iter().rev().map(|(_, key)| key).collect();
            let role = role.as_str();
            let mismatch = KeyFileError::Mismatch { path, role };
            Ok((newest.ok_or(mismatch)?, earlier))
        };
        let (log, earlier_log) = load(Role::Log)?;
        Ok(Self {
            node: load(Role::Node)?.0,
            log,
            earlier_log,
            agreement: load(Role::Agreement)?.0,
            receipt: load(Role::Receipt)?.0,
            witness: load(Role::Witness)?.0,
            encryption: load(Role::Encryption)?.0,
            files: files
                .iter()
                .map(|file| (file.path.clone(), file.key.public()))
                .collect(),
            organization,
            statement,
            envelope,
        })
    }

    /// The node's identity, without the organization key.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity {
            statement: self.statement.clone(),
            envelope: self.envelope.clone(),
            node_key: self.node.clone(),
            log_key: self.log.clone(),
            earlier_log_keys: self.earlier_log.clone(),
            agreement_key: self.agreement.clone(),
            receipt_key: self.receipt.clone(),
            witness_key: self.witness.clone(),
            encryption_key: self.encryption.clone(),
        }
    }
}

/// The key files of a role: `ROLE.pem`, and `ROLE.N.pem` for the key that statement N has made. By name.
///
/// # Errors
/// [`KeyFileError::Io`] where the folder cannot be read.
pub fn key_files(keys_dir: &Path, name: &str) -> Result<Vec<PathBuf>, KeyFileError> {
    let failed = |source| io_error(keys_dir, source);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(keys_dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let file = path.file_name().and_then(|file| file.to_str());
        let middle = file
            .and_then(|file| file.strip_prefix(name))
            .and_then(|rest| rest.strip_suffix(".pem"));
        let of_role = middle.is_some_and(|middle| {
            let number = middle.strip_prefix('.').unwrap_or_default();
            let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
            middle.is_empty() || digits
        });
        if of_role {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// All key files of a folder, by role and name.
pub(crate) fn all_files(keys_dir: &Path) -> Result<Vec<PathBuf>, KeyFileError> {
    let mut found = Vec::new();
    for name in names() {
        found.extend(key_files(keys_dir, name)?);
    }
    Ok(found)
}

fn names() -> impl Iterator<Item = &'static str> {
    std::iter::once(ORGANIZATION).chain(ROLES.map(Role::as_str))
}

/// Opens all key files of a folder. The passphrase is asked for once, and only where a file needs it.
///
/// # Errors
/// [`KeyFileError`].
pub(crate) fn open_all(
    keys_dir: &Path,
    passphrase: impl FnOnce() -> Result<Passphrase, KeyFileError>,
) -> Result<Vec<KeyFile>, KeyFileError> {
    let mut texts = Vec::new();
    for name in names() {
        for path in key_files(keys_dir, name)? {
            let pem = read_pem(&path)?;
            texts.push((name, path, pem));
        }
    }
    let locked = texts.iter().find(|(_, _, pem)| is_protected_pem(pem));
    let passphrase = match locked {
        None => None,
        Some((_, path, _)) => Some(asked(path, passphrase)?),
    };
    let open = |(name, path, pem): (&'static str, PathBuf, Zeroizing<String>)| {
        let key = key_of(&path, &pem, passphrase.as_ref())?;
        Ok::<KeyFile, KeyFileError>(KeyFile {
            name,
            key,
            protected: is_protected_pem(&pem),
            path,
        })
    };
    let panicked = |_| {
        let source = io::Error::other("a key file could not be opened");
        io_error(keys_dir, source)
    };
    let mut opened = Vec::with_capacity(texts.len());
    let mut texts = texts.into_iter().peekable();
    while texts.peek().is_some() {
        // Each takes a fifth of a second of one processor, and 16 MiB.
        std::thread::scope(|scope| {
            let opening: Vec<_> = texts
                .by_ref()
                .take(OPENED_AT_ONCE)
                .map(|text| scope.spawn(|| open(text)))
                .collect();
            for one in opening {
                opened.push(one.join().map_err(panicked)??);
            }
            Ok::<(), KeyFileError>(())
        })?;
    }
    Ok(opened)
}

/// The passphrase for a file that needs one.
fn asked(
    path: &Path,
    passphrase: impl FnOnce() -> Result<Passphrase, KeyFileError>,
) -> Result<Passphrase, KeyFileError> {
    passphrase().map_err(|error| match error {
        KeyFileError::PassphraseSource(PassphraseFault::NotSet) => KeyFileError::Locked {
            path: path.to_owned(),
        },
        error => error,
    })
}

/// Whether a key file is under a passphrase.
pub(crate) fn is_protected(path: &Path) -> Result<bool, KeyFileError> {
    Ok(is_protected_pem(&read_pem(path)?))
}

fn read_pem(path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    let file = open_private(path)?;
    // All of it at once: what a growing string leaves behind is not wiped.
    let mut pem = Zeroizing::new(String::with_capacity(KEY_FILE_BYTES_MAX as usize + 1));
    file.take(KEY_FILE_BYTES_MAX)
        .read_to_string(&mut pem)
        .map_err(|source| io_error(path, source))?;
    Ok(pem)
}

/// Reads one key file with a passphrase that is there already.
pub(crate) fn open_with(path: &Path, passphrase: &Passphrase) -> Result<SigningKey, KeyFileError> {
    key_of(path, &read_pem(path)?, Some(passphrase))
}

fn key_of(
    path: &Path,
    pem: &str,
    passphrase: Option<&Passphrase>,
) -> Result<SigningKey, KeyFileError> {
    let path = || path.to_owned();
    let opened = match (is_protected_pem(pem), passphrase) {
        (false, _) => SigningKey::from_pem(pem),
        (true, Some(passphrase)) => SigningKey::from_protected_pem(pem, passphrase),
        (true, None) => return Err(KeyFileError::Locked { path: path() }),
    };
    opened.map_err(|source| match source {
        KeyError::Passphrase => KeyFileError::Passphrase { path: path() },
        source => KeyFileError::Invalid {
            path: path(),
            source,
        },
    })
}

/// Where the key named `name` lies.
#[must_use]
pub fn key_path(keys_dir: &Path, name: &str) -> PathBuf {
    keys_dir.join(format!("{name}.pem"))
}

/// Reads one key file that is under no passphrase.
///
/// # Errors
/// [`KeyFileError`]: among others [`KeyFileError::Mode`] where anybody but its owner may use it.
pub fn read_key(path: &Path) -> Result<SigningKey, KeyFileError> {
    key_of(path, &read_pem(path)?, None)
}

/// Reads one key file, with the passphrase of the settings where it needs one.
///
/// # Errors
/// [`KeyFileError`].
pub fn read_key_with(path: &Path, settings: &KeySettings) -> Result<SigningKey, KeyFileError> {
    let pem = read_pem(path)?;
    let passphrase = match is_protected_pem(&pem) {
        true => Some(asked(path, || Ok(settings.passphrase()?))?),
        false => None,
    };
    key_of(path, &pem, passphrase.as_ref())
}

/// Checks owner and mode of a key file without reading it; a file that is not there is fine.
///
/// # Errors
/// [`KeyFileError::Mode`], [`KeyFileError::Owner`], [`KeyFileError::Io`].
pub fn check_private(path: &Path) -> Result<(), KeyFileError> {
    match open_private(path) {
        Ok(_) | Err(KeyFileError::Missing { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The checks are made on the open file, so that what was checked is what is read.
pub(crate) fn open_private(path: &Path) -> Result<File, KeyFileError> {
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let file = File::options()
        .read(true)
        .custom_flags(no_follow)
        .open(path)
        .map_err(|source| io_error(path, source))?;
    let metadata = file.metadata().map_err(|source| io_error(path, source))?;
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != own {
        return Err(KeyFileError::Owner {
            path: path.to_owned(),
            owner: metadata.uid(),
            own,
        });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Mode {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(file)
}

fn read_statement(path: &Path) -> Result<(KeyStatement, Envelope), KeyFileError> {
    let file = File::open(path).map_err(|source| io_error(path, source))?;
    let mut json = Vec::new();
    // One byte more than allowed, so that a longer file is refused by the envelope's own limit.
    file.take(ENVELOPE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut json)
        .map_err(|source| io_error(path, source))?;
    let fault = |source: StatementFault| KeyFileError::Statement {
        path: path.to_owned(),
        source,
    };
    let envelope = Envelope::from_json(&json).map_err(|error| fault(error.into()))?;
    let statement = KeyStatement::verify(&envelope).map_err(|error| fault(error.into()))?;
    Ok((statement, envelope))
}

fn io_error(path: &Path, source: io::Error) -> KeyFileError {
    let path = path.to_owned();
    if source.kind() == io::ErrorKind::NotFound {
        KeyFileError::Missing { path }
    } else {
        KeyFileError::Io { path, source }
    }
}
