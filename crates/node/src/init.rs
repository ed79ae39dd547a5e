//! Making a node: keys, key statement, settings, starter policy, empty journal; all of it or nothing.
//!
//! Everything is built in a temporary folder beside the wanted place and gets its name by one rename. A crash before that leaves a folder
//! `.NAME.init-…`, which may be deleted. History does not begin here: the node's ledger log gets its genesis when the directory is first
//! opened by the exchange.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use countersign_crypto::{Entropy, EntropyError, Fingerprint, KeyError, OsEntropy, SigningKey};
use countersign_event::documents::{KeyStatement, RoleKey};
use countersign_event::names::{Authority, NameError};
use countersign_event::time::Timestamp;
use countersign_store::disk::{Disk as _, RealDisk, SyncSite};
use countersign_store::journal::{CreateError, Journal};
use serde::Serialize;

use crate::config::Config;
use crate::data_dir::FORMAT;
use crate::keys::{ORGANIZATION, ROLES, key_path};
use crate::passphrase::PassphraseFault;

/// The policy that a new node starts with.
pub const STARTER_POLICY: &str = include_str!("../../../policies/starter.cedar");

/// What to make.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// Display name of the organization: 1 to 100 characters, none of them a control character.
    pub name: String,
    /// The domain that the organization claims as its name in origins; absent = the fingerprint of its key.
    pub domain: Option<String>,
    /// Settings, those given on the command line in place of the defaults.
    pub config: Config,
    /// Where.
    pub data: PathBuf,
}

/// What was made.
#[derive(Clone, Debug, Serialize)]
pub struct InitReport {
    /// Display name.
    pub organization: String,
    /// Name in origins.
    pub authority: Authority,
    /// Fingerprint of the organization key: what partners compare.
    pub fingerprint: Fingerprint,
    /// Fingerprints of the role keys, in the order node, log, agreement, receipt.
    pub keys: Vec<RoleFingerprint>,
    /// The directory.
    pub data: PathBuf,
    /// Address of the QUIC door.
    pub listen: String,
    /// Address of the HTTP door.
    pub http: String,
    /// Where partners are told to dial; empty = nowhere yet.
    pub advertise: Vec<String>,
    /// Commands to go on with.
    pub next: Vec<String>,
}

/// A role key as people compare it.
#[derive(Clone, Debug, Serialize)]
pub struct RoleFingerprint {
    /// What it signs.
    pub role: &'static str,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
}

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The domain is none.
    #[error("this cannot be an organization's name in origins: {0}")]
    Domain(#[source] NameError),
    /// The domain has the form of a fingerprint, which only its key may bear.
    #[error(
        "`{authority}` is the form of a key's fingerprint; a domain looks like `data.example.org`"
    )]
    DomainIsFingerprint {
        /// What was given.
        authority: Authority,
    },
    /// The system has no randomness.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// There is something at that place.
    #[error("`{path}` exists already; init never touches what is there")]
    Exists {
        /// The place.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot make `{path}`: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The journal could not be made.
    #[error(transparent)]
    Journal(#[from] CreateError),
    /// A key could not be written as PEM.
    #[error("a new key could not be encoded: {0}")]
    Key(#[from] KeyError),
    /// The keys were to be under a passphrase that cannot be had.
    #[error(transparent)]
    Passphrase(#[from] PassphraseFault),
    /// The place is a mount point, onto which nothing can be renamed.
    #[error(
        "`{path}` is a mount point; a data directory is made beside its place and then renamed"
    )]
    MountPoint {
        /// The place.
        path: PathBuf,
    },
    /// The display name is too long, empty or not printable.
    #[error("an organization's name has 1 to 100 printable characters; this one has {characters}")]
    Name {
        /// How many there are.
        characters: usize,
    },
}

/// Makes a data directory. An empty directory may be at its place, nothing else.
///
/// # Errors
/// [`InitError`]; nothing is left behind then, but what a crash leaves.
pub fn init(options: &InitOptions, now: Timestamp) -> Result<InitReport, InitError> {
    let characters = options.name.chars().count();
    if !(1..=100).contains(&characters) || options.name.chars().any(char::is_control) {
        return Err(InitError::Name { characters });
    }
    let domain = options
        .domain
        .as_deref()
        .map(|domain| domain.parse::<Authority>().map_err(InitError::Domain))
        .transpose()?;
    if let Some(authority) = domain.clone().filter(Authority::is_fingerprint) {
        return Err(InitError::DomainIsFingerprint { authority });
    }
    let place = Place::new(&options.data)?;
    let mut entropy = OsEntropy::new()?;
    let identity = NewIdentity::make(&options.name, domain, now, &mut entropy);
    let temporary = place.make_temporary(&mut entropy)?;
    let made = fill(&temporary, options, &identity, Box::new(entropy))
        .and_then(|()| place.take(&temporary));
    if let Err(error) = made {
        // Best effort: the folder is ours alone, and what remains of it is harmless.
        let _ = fs::remove_dir_all(&temporary);
        return Err(error);
    }
    Ok(report(options, &identity, place.path))
}

/// The keys of a new organization and the statement that ties them together.
struct NewIdentity {
    organization: SigningKey,
    keys: Vec<(&'static str, SigningKey)>,
    statement: KeyStatement,
}

impl NewIdentity {
    fn make(
        name: &str,
        domain: Option<Authority>,
        now: Timestamp,
        entropy: &mut dyn Entropy,
    ) -> Self {
        let organization = SigningKey::generate(entropy);
        let keys = ROLES.map(|role| (role, SigningKey::generate(entropy)));
        let statement = KeyStatement {
            authority: domain.unwrap_or_else(|| Authority::of_key(&organization.public())),
            name: name.to_owned(),
            organization: organization.public(),
            number: 1,
            made: now,
            keys: keys
                .iter()
                .map(|(role, key)| RoleKey {
                    role: *role,
                    key: key.public(),
                    from: now,
                    until: None,
                })
                .collect(),
            succession: Vec::new(),
        };
        Self {
            organization,
            keys: keys.map(|(role, key)| (role.as_str(), key)).into(),
            statement,
        }
    }
}

/// Where the directory is to be, as an absolute path with a parent.
struct Place {
    path: PathBuf,
    parent: PathBuf,
    name: String,
}

impl Place {
    fn new(wanted: &Path) -> Result<Self, InitError> {
        let io = |source| InitError::Io {
            path: wanted.to_owned(),
            source,
        };
        let path = std::path::absolute(wanted).map_err(io)?;
        let exists = || InitError::Exists {
            path: wanted.to_owned(),
        };
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(exists());
        };
        match fs::read_dir(&path) {
            Ok(mut entries) => {
                // An empty folder made beforehand is fine, unless we stand in it: the rename would pull it away.
                let stands_here = std::env::current_dir().is_ok_and(|here| here == path);
                if entries.next().is_some() || stands_here {
                    return Err(exists());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => return Err(exists()),
        }
        Ok(Self {
            parent: parent.to_owned(),
            name: name.to_string_lossy().into_owned(),
            path,
        })
    }

    fn make_temporary(&self, entropy: &mut dyn Entropy) -> Result<PathBuf, InitError> {
        fs::create_dir_all(&self.parent).map_err(|source| InitError::Io {
            path: self.parent.clone(),
            source,
        })?;
        let mut random = [0; 8];
        entropy.fill(&mut random);
        let name = format!(".{}.init-{}", self.name, hex::encode(random));
        let path = self.parent.join(name);
        make_dir(&path)?;
        Ok(path)
    }

    /// The one moment in which the directory comes to be. `rename` refuses by itself to replace anything but an empty directory.
    fn take(&self, temporary: &Path) -> Result<(), InitError> {
        let io = |source| InitError::Io {
            path: self.path.clone(),
            source,
        };
        RealDisk
            .sync_dir(temporary, SyncSite::CreateRoot)
            .map_err(io)?;
        fs::rename(temporary, &self.path).map_err(|source| match source.kind() {
            io::ErrorKind::ResourceBusy => InitError::MountPoint {
                path: self.path.clone(),
            },
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory => InitError::Exists {
                path: self.path.clone(),
            },
            _ => io(source),
        })?;
        // A crash before this may take the whole directory with it; nobody has been told of it yet.
        RealDisk
            .sync_dir(&self.parent, SyncSite::CreateParent)
            .map_err(io)
    }
}

fn fill(
    dir: &Path,
    options: &InitOptions,
    identity: &NewIdentity,
    mut entropy: Box<dyn Entropy>,
) -> Result<(), InitError> {
    for name in ["keys", "policies", "evidence"] {
        make_dir(&dir.join(name))?;
    }
    let keys = dir.join("keys");
    let settings = &options.config.keys;
    let passphrase = match settings.is_set() {
        true => Some(settings.passphrase()?),
        false => None,
    };
    let mut pem = |key: &SigningKey| match &passphrase {
        Some(passphrase) => key.to_protected_pem(passphrase, &mut *entropy),
        None => key.to_pem(),
    };
    let organization = pem(&identity.organization)?;
    make_file(&key_path(&keys, ORGANIZATION), organization.as_bytes())?;
    for (name, key) in &identity.keys {
        make_file(&key_path(&keys, name), pem(key)?.as_bytes())?;
    }
    let statement = identity.statement.sign_with(&identity.organization);
    make_file(&dir.join("key-statement.json"), &statement.to_json())?;
    make_file(
        &dir.join("countersign.toml"),
        options.config.to_file_text().as_bytes(),
    )?;
    make_file(
        &dir.join("policies/starter.cedar"),
        STARTER_POLICY.as_bytes(),
    )?;
    for name in ["keys", "policies"] {
        let path = dir.join(name);
        RealDisk
            .sync_dir(&path, SyncSite::CreateRoot)
            .map_err(|source| InitError::Io { path, source })?;
    }
    let disk = Arc::new(RealDisk);
    let journal = Journal::create(disk, &dir.join("journal"), options.config.journal, entropy)?;
    drop(journal);
    make_file(&dir.join("format"), format!("{FORMAT}\n").as_bytes())
}

fn make_dir(path: &Path) -> Result<(), InitError> {
    DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(|source| InitError::Io {
            path: path.to_owned(),
            source,
        })
}

fn make_file(path: &Path, bytes: &[u8]) -> Result<(), InitError> {
    RealDisk
        .create_new(path)
        .and_then(|file| {
            file.write_all_at(bytes, 0)?;
            file.sync_all(SyncSite::CreateRoot)
        })
        .map_err(|source| InitError::Io {
            path: path.to_owned(),
            source,
        })
}

fn report(options: &InitOptions, identity: &NewIdentity, path: PathBuf) -> InitReport {
    let data = options.data.display();
    InitReport {
        organization: options.name.clone(),
        authority: identity.statement.authority.clone(),
        fingerprint: identity.organization.public().fingerprint(),
        keys: identity
            .keys
            .iter()
            .map(|(role, key)| RoleFingerprint {
                role,
                fingerprint: key.public().fingerprint(),
            })
            .collect(),
        data: path,
        listen: options.config.listen.to_string(),
        http: options.config.http.to_string(),
        advertise: options
            .config
            .advertise
            .iter()
            .map(ToString::to_string)
            .collect(),
        next: vec![
            format!("countersign serve --data {data}"),
            format!("countersign publish STREAM FILE --create --data {data}"),
            format!("countersign partner invite --stream STREAM --data {data}"),
        ],
    }
}
