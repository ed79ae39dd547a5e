//! From a data directory to an [`Exchange`]: keys, policies, journal, ledger view.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_crypto::{OsEntropy, sha256};
use countersign_event::content::Limits;
use countersign_exchange::{Clock, Evidence, Exchange, ExchangeError, ExchangeParts};
use countersign_policy::{POLICY_BYTES_MAX, PolicyLoadError, PolicySet};
use countersign_store::checkpoints::Checkpoints;
use countersign_store::disk::{Disk as _, RealDisk, SyncSite};
use countersign_store::journal::{Journal, OpenError};

use crate::clock::SystemClock;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::errors::{CommandError, ErrorCode};
use crate::keys::KeyFileError;
use crate::place::{self, Standing};

/// Files of one kind of evidence that are kept about one organization.
const EVIDENCE_FILES_EACH_MAX: usize = 50;

/// Files of evidence that are kept; more faults are recorded without their bytes. Fork proofs do not count: nobody can fill their place with other faults.
const EVIDENCE_FILES_MAX: u64 = 1_000;

/// Why a data directory cannot be opened as a node.
#[derive(Debug, thiserror::Error)]
pub enum OpenNodeError {
    /// The node itself.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// No randomness.
    #[error(transparent)]
    Entropy(#[from] countersign_crypto::EntropyError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// The keys.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// Where the directory lives cannot be read or written.
    #[error("the file `place` of the data directory cannot be read or written: {0}")]
    Place(#[source] std::io::Error),
    /// The policies.
    #[error(transparent)]
    Policies(#[from] PolicyFileError),
}

/// Why the policies in a folder are not used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyFileError {
    /// The system refused.
    #[error("cannot read `{path}`: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// They do not hold together.
    #[error(transparent)]
    Load(#[from] PolicyLoadError),
}

/// Opens the node of a directory. The caller holds its lock.
///
/// # Errors
/// [`OpenNodeError`].
pub async fn open(dir: &DataDir, config: &Config) -> Result<Arc<Exchange>, OpenNodeError> {
    let keys = dir.load_keys(&config.keys)?;
    let policies =
        PolicySet::load(&read_policies(&dir.policies_dir())?).map_err(PolicyFileError::from)?;
    let disk = Arc::new(RealDisk);
    let entropy = Box::new(OsEntropy::new()?);
    let (journal, recovery) = Journal::open(disk, &dir.journal_dir(), config.journal, entropy)?;
    for tail in &recovery.cut {
        tracing::warn!(file = %tail.file.display(), offset = tail.offset, "a torn tail was cut: {}", tail.flaw);
    }
    for warning in &recovery.warnings {
        tracing::warn!("{warning:?}");
    }
    let identity = keys.identity();
    // A journal without any log is that of a fresh directory, made by `init`: its ledger begins now, once.
    let may_create = journal.logs().is_empty();
    let standing = place::standing(dir.path()).map_err(OpenNodeError::Place)?;
    let home = dir.path().to_owned();
    let unsettle = move || {
        if let Err(error) = place::forget(&home) {
            tracing::error!(%error, "the file `place` could not be removed: until this node has been restarted it knows that it is older than what others hold, afterwards it may not");
        }
    };
    let parts = ExchangeParts {
        elsewhere: standing == Standing::Elsewhere,
        unsettle: Box::new(unsettle),
        identity,
        journal,
        policies,
        clock: Arc::new(SystemClock::new()) as Arc<dyn Clock>,
        entropy: Box::new(OsEntropy::new()?),
        limits: Limits {
            data_bytes_max: config.event_bytes_max as usize,
            ..Limits::default()
        },
        evidence: Arc::new(EvidenceDir::new(dir.evidence_dir())),
        may_create,
        checkpoints: Checkpoints::open(&dir.checkpoints_file())
            .await
            .map_err(ExchangeError::from)?,
        witness: config.witness.clone(),
    };
    let exchange = Exchange::open(parts, &dir.ledger_file()).await?;
    exchange.throttle_publishers(config.publish_events_per_second);
    if standing == Standing::Elsewhere {
        exchange.freeze_streams();
    }
    // At home too: an older copy of what was written here is to say something else than what is here.
    settle(dir, &exchange)?;
    Ok(exchange)
}

/// Notes that the directory lives where it is, once nobody's answer is waited for.
///
/// # Errors
/// [`OpenNodeError::Place`].
pub fn settle(dir: &DataDir, exchange: &Exchange) -> Result<(), OpenNodeError> {
    exchange.review_frozen();
    if exchange.asks_readers() {
        return Ok(());
    }
    place::settle(dir.path()).map_err(OpenNodeError::Place)
}

/// Names and texts of the `*.cedar` files of a folder, by name.
///
/// # Errors
/// [`PolicyFileError::Io`].
pub fn read_policies(folder: &Path) -> Result<Vec<(String, String)>, PolicyFileError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| PolicyFileError::Io { path, source }
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(io(folder))? {
        let path = entry.map_err(io(folder))?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
            .to_owned();
        if path
            .extension()
            .is_none_or(|extension| extension != "cedar")
        {
            continue;
        }
        let bytes = fs::metadata(&path).map_err(io(&path))?.len();
        if bytes > POLICY_BYTES_MAX as u64 {
            let source = std::io::Error::other("larger than policies may be in all");
            return Err(PolicyFileError::Io { path, source });
        }
        files.push((name, fs::read_to_string(&path).map_err(io(&path))?));
    }
    files.sort();
    Ok(files)
}

/// Offending bytes, each in a file of its own.
struct EvidenceDir {
    folder: PathBuf,
    kept: AtomicU64,
}

impl EvidenceDir {
    fn new(folder: PathBuf) -> Self {
        let kept = fs::read_dir(&folder).map_or(0, |entries| entries.count() as u64);
        Self {
            folder,
            kept: AtomicU64::new(kept),
        }
    }
}

impl Evidence for EvidenceDir {
    fn keep(&self, about: &str, kind: &str, bytes: &[u8]) -> Option<String> {
        // By organization, so that one partner's repeated faults leave room for another's; the same bytes have the same name and are kept once.
        let authority = about.split('/').next().unwrap_or_default();
        let about_hash = hex::encode(&sha256(authority.as_bytes())[..4]);
        let suffix = format!(".{kind}");
        let name = format!("{about_hash}-{}.{kind}", hex::encode(&sha256(bytes)[..16]));
        if self.folder.join(&name).exists() {
            return Some(name);
        }
        let of_log = || {
            let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
            let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
            let of_kind = |name: &String| name.starts_with(&about_hash) && name.ends_with(&suffix);
            names.filter(of_kind).count()
        };
        if of_log() >= EVIDENCE_FILES_EACH_MAX
            || (kind != "fork-proof"
                && self.kept.fetch_add(1, Ordering::Relaxed) >= EVIDENCE_FILES_MAX)
        {
            return None;
        }
        match write_whole(&self.folder, &name, bytes) {
            Ok(()) => Some(name),
            Err(error) => {
                tracing::warn!(%error, about, "evidence could not be kept");
                None
            }
        }
    }
}

/// Puts other bytes in a file's place: the old ones or the new ones, also through a power loss.
pub(crate) fn replace_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(std::io::Error::from(std::io::ErrorKind::InvalidInput));
    };
    write_whole(folder, &name.to_string_lossy(), bytes)
}

/// All of it or nothing, also through a power loss.
fn write_whole(folder: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let new = folder.join(format!("{name}.new"));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = RealDisk.create_new(&new)?;
    file.write_all_at(bytes, 0)?;
    file.sync_all(SyncSite::CreateRoot)?;
    fs::rename(&new, folder.join(name))?;
    RealDisk.sync_dir(folder, SyncSite::CreateRoot)
}

impl From<OpenNodeError> for CommandError {
    fn from(error: OpenNodeError) -> Self {
        match error {
            OpenNodeError::Exchange(error) => crate::commands::exchange_error(error),
            OpenNodeError::Entropy(error) => Self::new(ErrorCode::Io, error),
            OpenNodeError::Journal(error) => journal_error(&error),
            OpenNodeError::Keys(error) => error.into(),
            OpenNodeError::Place(_) => Self::new(ErrorCode::Io, error),
            OpenNodeError::Policies(error) => error.into(),
        }
    }
}

impl From<PolicyFileError> for CommandError {
    fn from(error: PolicyFileError) -> Self {
        let code = match error {
            PolicyFileError::Io { .. } => ErrorCode::Io,
            PolicyFileError::Load(_) => ErrorCode::PolicyInvalid,
        };
        Self::new(code, error)
    }
}

fn journal_error(error: &OpenError) -> CommandError {
    let code = match error {
        OpenError::Missing(_) => ErrorCode::DataDirIncomplete,
        OpenError::Locked(_) => ErrorCode::DataDirLocked,
        OpenError::Heads(_) | OpenError::Damage(_) => ErrorCode::LogDamaged,
        OpenError::Newer { .. } => ErrorCode::DataDirFormat,
        OpenError::SegmentBytes(_) => ErrorCode::ConfigValue,
        OpenError::Io { .. } => ErrorCode::Io,
    };
    CommandError::new(code, error)
}
