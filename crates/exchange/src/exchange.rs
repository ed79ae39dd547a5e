mod ledger_logs;
mod opening;
mod publishing;
mod recording;
mod succeeding;
mod throttle;
mod wrapping;

pub use ledger_logs::LedgerLogs;
pub use publishing::{PUBLISH_WINDOW_BYTES, PublishSession};

use opening::{empty_head, load_registry, open_log};
use throttle::Throttle;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, Weak};
use std::thread::JoinHandle;

use countersign_crypto::{Entropy, Hash};
use countersign_event::content::Limits;
use countersign_event::control::{AuthorRule, GENESIS};
use countersign_event::documents::{AgreementId, Digest, Receipt, Role, SeriesId};
use countersign_event::dsse::Envelope;
use countersign_event::encryption::Encryption;
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::{Authority, Origin, StreamName};
use countersign_event::time::Timestamp;
use countersign_policy::PolicySet;
use countersign_store::checkpoints::{Checkpoints, CheckpointsError};
use countersign_store::journal::{Birth, Journal, JournalReader, LogKind, ReadError};
use countersign_store::ledger::{LedgerView, ViewError};
use countersign_tlog::{Algorithm, Vkey};
use tokio::sync::watch;

use crate::access::RefusedQuestions;
use crate::clock::Clock;
use crate::erasure::{EraseFault, Erasing};
use crate::identity::{Identities, Identity};
use crate::keyring::{Keyring, SharedEntropy};
use crate::log::{Cites, Log, LogSettings};
use crate::pipeline::append::{AppendError, Writer, WriterParts};
use crate::pipeline::budget::Budget;
use crate::pipeline::deliver::Delivery;
use crate::pipeline::exposure::Exposure;
use crate::pipeline::ingest::IngestError;
use crate::pipeline::ledger::{RecordError, seal_control_entry};
use crate::pipeline::receipt::ReceiptFault;
use crate::published::{Judged, JudgedKey};
use crate::refusal::Refused;
use crate::registry::Registry;
use crate::restored::Freeze;
use crate::status::SubscriptionStatus;
use crate::witness::{Witness, WitnessSettings};
use crate::witnessed::Submissions;

/// What names a series of receipts.
pub(crate) type SeriesKey = (AgreementId, SeriesId);

/// Keeps bytes that prove somebody's fault.
pub trait Evidence: Send + Sync {
    /// Keeps them under a name of its own, which it returns and which ends in `.` and `kind`; `None` where there is no room.
    fn keep(&self, about: &str, kind: &str, bytes: &[u8]) -> Option<String>;
}

/// What a node is made of.
pub struct ExchangeParts {
    /// Who it is.
    pub identity: Identity,
    /// Its logs.
    pub journal: Journal,
    /// The policies in force.
    pub policies: PolicySet,
    /// Its clock.
    pub clock: Arc<dyn Clock>,
    /// Its randomness.
    pub entropy: Box<dyn Entropy>,
    /// The largest events taken.
    pub limits: Limits,
    /// Where offending bytes are kept.
    pub evidence: Arc<dyn Evidence>,
    /// Whether the node's ledger log may be begun: true for `init` only.
    pub may_create: bool,
    /// What it has cosigned.
    pub checkpoints: Checkpoints,
    /// How it witnesses, and is witnessed.
    pub witness: WitnessSettings,
    /// Whether the directory lies elsewhere than where it was last used, so that others may know more of its logs.
    pub elsewhere: bool,
    /// Forgets, durably, where the directory lives: it turned out to be older than what others know.
    pub unsettle: Box<dyn Fn() + Send + Sync>,
}

/// One node's state and doors.
pub struct Exchange {
    identity: Identities,
    /// One change of keys at a time.
    changing_keys: tokio::sync::Mutex<()>,
    writer: Writer,
    writer_thread: Mutex<Option<JoinHandle<()>>>,
    reader: JournalReader,
    logs: RwLock<HashMap<Origin, Arc<Log>>>,
    /// The current generation of each ledger log that has a successor, by the name of the first.
    successors: RwLock<HashMap<Origin, Arc<Log>>>,
    creating: tokio::sync::Mutex<()>,
    /// One ledger log gets a successor at a time.
    succeeding: tokio::sync::Mutex<()>,
    /// One join at a time: what an invitation still allows is judged and used up under it.
    pub(crate) joining: tokio::sync::Mutex<()>,
    /// Held while a document about an agreement is made or judged: two at once would both find the state that each changes.
    pub(crate) acting: tokio::sync::Mutex<()>,
    view: LedgerView,
    pub(crate) registry: RwLock<Registry>,
    policies: RwLock<Arc<PolicySet>>,
    generation: watch::Sender<u64>,
    /// When it was last looked whether time has changed what is allowed.
    time_noted: Mutex<Timestamp>,
    clock: Arc<dyn Clock>,
    entropy: SharedEntropy,
    keyring: Arc<Keyring>,
    limits: Limits,
    pub(crate) evidence: Arc<dyn Evidence>,
    statuses: Mutex<HashMap<(String, bool), SubscriptionStatus>>,
    refused_strangers: AtomicU64,
    refused_questions: Mutex<RefusedQuestions>,
    /// Agreements that partners have named and that are not held here.
    pub(crate) unknown_agreements: Mutex<BTreeSet<(Authority, AgreementId)>>,
    /// Records that the ledger did not take yet.
    owed: Mutex<Vec<(Option<Authority>, LedgerRecord)>>,
    /// Logs whose entries are being given back to their owners.
    pub(crate) giving_back: Arc<Mutex<HashSet<Origin>>>,
    /// Receipts on their way to the ledger, given and got: what follows in a series follows them.
    receipts_under_way: Mutex<HashMap<SeriesKey, (Receipt, Hash)>>,
    /// What is handed out and not receipted, by agreement. Begins anew with the process, but for what a subscriber's own last receipt says.
    exposures: Mutex<HashMap<AgreementId, Exposure>>,
    /// What plans still allow, by agreement, of those that limit rate or quota.
    pub(crate) budgets: tokio::sync::Mutex<HashMap<AgreementId, Arc<Budget>>>,
    throttle: Throttle,
    /// Subscriptions that run: what changes access is put to them at once, however busy their sessions are.
    running: Mutex<Vec<Weak<Delivery>>>,
    /// The last refusal got for each stream.
    refusals_got: Mutex<HashMap<Origin, String>>,
    /// Moves whenever the ledger has something new for the view.
    ledger_moved: watch::Sender<u64>,
    /// What the policies said last to whoever reads published logs: at most two answers for each partner and stream.
    judged: Mutex<HashMap<JudgedKey, Judged>>,
    witness: Witness,
    submissions: Mutex<Submissions>,
    /// Series of receipts that take the place of ones that must not be gone on with.
    pub(crate) begun_series: Mutex<HashMap<AgreementId, SeriesId>>,
    /// Whether this directory may be older than what others know.
    pub(crate) away: AtomicBool,
    /// Whether a stream waits for somebody's answer.
    pub(crate) frozen: watch::Sender<bool>,
    pub(crate) unsettle: Box<dyn Fn() + Send + Sync>,
    /// Erasures under way, and who is to be told of them.
    erasing: Erasing,
    /// Held for reading while a batch is judged by a stream's rule of authors and queued, for writing while a rule changes.
    author_rules: tokio::sync::RwLock<()>,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange")
            .field("authority", self.identity().authority())
            .finish_non_exhaustive()
    }
}

/// What can go wrong in a node.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// Appending.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// What was cosigned, or is kept.
    #[error(transparent)]
    Checkpoints(#[from] CheckpointsError),
    /// Why content is not erased.
    #[error(transparent)]
    Erase(#[from] EraseFault),
    /// What was handed in.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// An agreement is for all of what is held here in part.
    #[error("the data of entry {sequence} is held here with members withheld")]
    InPart {
        /// The first such entry.
        sequence: u64,
    },
    /// There is no ledger log: the directory was never initialised, or lost its history.
    #[error("the ledger log of this node is missing: `init` creates it once; `serve` never does")]
    NoLedger,
    /// A proof could not be made, or entries are not there.
    #[error("{0}")]
    Proof(String),
    /// Stored entries cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The counterparty's receipt is wrong.
    #[error(transparent)]
    Receipt(#[from] ReceiptFault),
    /// A statement of our own is too long.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A signed no.
    #[error("{0}")]
    Refused(Box<Refused>),
    /// A stream cannot be made or found.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// No such agreement is held.
    #[error("no such agreement is held here")]
    UnknownAgreement,
    /// The ledger's view.
    #[error(transparent)]
    View(#[from] ViewError),
}

impl From<Box<Refused>> for ExchangeError {
    fn from(refused: Box<Refused>) -> Self {
        Self::Refused(refused)
    }
}

impl From<Refused> for ExchangeError {
    fn from(refused: Refused) -> Self {
        Self::Refused(Box::new(refused))
    }
}

/// Why a stream cannot be made or found.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StreamError {
    /// Members cannot be disclosed one by one where a key opens all of them.
    #[error(
        "a stream that commits to fields is not encrypted in this version: one key would open all of them"
    )]
    FieldsEncrypted,
    /// A plan that names fields, of a stream that commits to its data as a whole.
    #[error(
        "the plan names fields, and `{name}` commits to each event's data as a whole: only a stream made with `--commit fields` can withhold some"
    )]
    NotFields {
        /// The stream.
        name: StreamName,
    },
    /// Author keys beyond their limit, or none where a signature is wanted.
    #[error(
        "a stream knows at most {} author keys, and at least one where each event has to be signed",
        countersign_event::control::AUTHOR_KEYS_MAX
    )]
    AuthorKeys,
    /// There is one.
    #[error("there is a stream `{name}` already")]
    Exists {
        /// Its name.
        name: StreamName,
    },
    /// A title or label beyond its limit.
    #[error(
        "a stream takes a title of at most 200 characters and at most 32 labels of at most 64 characters"
    )]
    Limit,
    /// Nothing of it is encrypted.
    #[error(
        "the stream `{name}` is not encrypted: `countersign stream create NAME --encryption partners` makes one that is"
    )]
    NotEncrypted {
        /// Its name.
        name: String,
    },
    /// The name is no stream name.
    #[error(transparent)]
    Name(#[from] countersign_event::names::NameError),
    /// There is none.
    #[error(
        "there is no stream `{name}`; `countersign stream create {name}` makes it, `countersign stream ls` lists them"
    )]
    Unknown {
        /// The name.
        name: String,
    },
}

/// How a new stream is described.
#[derive(Clone, Debug, Default)]
pub struct StreamOptions {
    /// For people.
    pub title: Option<String>,
    /// For policies.
    pub labels: Vec<String>,
    /// Data bytes of the largest event; 0 = the node's limit.
    pub event_bytes_max: u32,
    /// The stream of ours that it takes the place of.
    pub cites: Option<StreamName>,
    /// Whose signatures its events bear.
    pub author: Option<AuthorRule>,
    /// Who can read its data.
    pub encryption: Encryption,
    /// Entries after which a new epoch begins; 0 = never.
    pub epoch_entries: u64,
    /// Seconds after which a new epoch begins; 0 = never.
    pub epoch_seconds: u64,
    /// Whether the data of its events is committed to member by member.
    pub fields: bool,
}

impl Exchange {
    /// Opens a node: brings the ledger's view up to date, starts the writer.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn open(parts: ExchangeParts, view_path: &Path) -> Result<Arc<Self>, ExchangeError> {
        let ExchangeParts {
            identity,
            journal,
            policies,
            clock,
            entropy,
            limits,
            evidence,
            may_create,
            checkpoints,
            witness,
            elsewhere,
            unsettle,
        } = parts;
        let witness = Witness::new(checkpoints, witness).await?;
        let reader = journal.reader();
        let logs = reader
            .logs()
            .into_iter()
            .filter_map(|info| open_log(&reader, &identity, info))
            .map(|log| (log.origin().clone(), Arc::new(log)))
            .collect::<HashMap<_, _>>();
        let source = LedgerLogs {
            reader: reader.clone(),
        };
        let (view, opened) = LedgerView::open(view_path, identity.authority(), &source).await?;
        if let Some(why) = opened.why {
            tracing::info!(%why, entries = opened.applied, "the ledger's view was made anew");
        }
        let registry = load_registry(&view, identity.authority()).await?;
        let entropy: SharedEntropy = Arc::new(Mutex::new(entropy));
        let keyring = Arc::new(Keyring::new(
            reader.clone(),
            identity.authority().clone(),
            identity.encryption_key.clone(),
            Arc::clone(&entropy),
        ));
        for wrap in registry.wraps.values() {
            keyring.learn(&LedgerRecord::KeyWrap {
                envelope: String::from_utf8(wrap.envelope.to_json()).unwrap_or_default(),
            });
        }
        let parts = WriterParts {
            journal,
            reader: reader.clone(),
            signer: identity
                .signer(|key| registry.is_revoked(identity.authority(), Role::Log, key)),
            clock: Arc::clone(&clock),
            keyring: Arc::clone(&keyring),
        };
        let (writer, thread) = Writer::start(parts)?;
        let exchange = Arc::new(Self {
            identity: Identities::new(identity),
            changing_keys: tokio::sync::Mutex::new(()),
            writer,
            writer_thread: Mutex::new(Some(thread)),
            reader,
            logs: RwLock::new(logs),
            successors: RwLock::default(),
            creating: tokio::sync::Mutex::new(()),
            succeeding: tokio::sync::Mutex::new(()),
            joining: tokio::sync::Mutex::new(()),
            acting: tokio::sync::Mutex::new(()),
            view,
            registry: RwLock::new(registry),
            policies: RwLock::new(Arc::new(policies)),
            generation: watch::Sender::new(0),
            time_noted: Mutex::new(clock.now()),
            clock,
            entropy,
            keyring,
            limits,
            evidence,
            statuses: Mutex::new(HashMap::new()),
            refused_strangers: AtomicU64::new(0),
            refused_questions: Mutex::default(),
            unknown_agreements: Mutex::default(),
            owed: Mutex::default(),
            giving_back: Arc::default(),
            receipts_under_way: Mutex::new(HashMap::new()),
            exposures: Mutex::new(HashMap::new()),
            budgets: tokio::sync::Mutex::new(HashMap::new()),
            throttle: Throttle::default(),
            running: Mutex::new(Vec::new()),
            refusals_got: Mutex::new(HashMap::new()),
            ledger_moved: watch::Sender::new(0),
            judged: Mutex::new(HashMap::new()),
            witness,
            submissions: Mutex::new(Submissions::default()),
            begun_series: Mutex::new(HashMap::new()),
            away: AtomicBool::new(false),
            frozen: watch::Sender::new(false),
            unsettle,
            erasing: Erasing::default(),
            author_rules: tokio::sync::RwLock::new(()),
        });
        exchange.away.store(elsewhere, Ordering::SeqCst);
        exchange.recall_successors();
        exchange.recall_frozen();
        let older = exchange.recall_witnessed().await?;
        // Before anything is written: the next entry of a ledger log that others know more of would be a second history.
        if elsewhere || older {
            exchange.succeed_ledgers().await?;
        }
        exchange.begin(may_create).await?;
        Ok(exchange)
    }

    /// The node's own ledger log; the statement and policies in force are in it.
    async fn begin(self: &Arc<Self>, may_create: bool) -> Result<(), ExchangeError> {
        let origin = Origin::of_node_ledger(self.identity().authority());
        if self.log(&origin).is_none() {
            if !may_create {
                return Err(ExchangeError::NoLedger);
            }
            self.add_own_log(LogKind::Ledger, &origin, LogSettings::default())
                .await?;
        }
        let statement = self.view.own_statement().await?;
        let newest = statement.map(|row| row.number);
        if newest.is_none_or(|number| number < self.identity().statement.number) {
            // The genesis of a first log has the first statement itself.
            self.state_keys(newest.is_some()).await?;
        }
        self.record_policies().await
    }

    async fn record_policies(self: &Arc<Self>) -> Result<(), ExchangeError> {
        let policies = self.policies();
        self.refresh_view().await?;
        // The first is the one that came into force last; by time alone two may be equal.
        let newest = self.view.policy_sets().await?.into_iter().next();
        if newest.is_some_and(|row| row.digest == policies.digest()) {
            return Ok(());
        }
        let record = LedgerRecord::PolicySet {
            digest: Digest(policies.digest()),
            files: policies.texts().to_vec(),
        };
        self.record_and_wait(None, record).await
    }

    /// Puts another policy set into force: running subscriptions are judged again.
    ///
    /// # Errors
    /// [`ExchangeError`] where it cannot be recorded; then the old set stays.
    pub async fn set_policies(self: &Arc<Self>, policies: PolicySet) -> Result<(), ExchangeError> {
        let record = LedgerRecord::PolicySet {
            digest: Digest(policies.digest()),
            files: policies.texts().to_vec(),
        };
        self.record_and_wait(None, record).await?;
        *self
            .policies
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(policies);
        self.access_changed();
        self.recheck_running();
        Ok(())
    }

    /// Makes a stream.
    ///
    /// # Errors
    /// [`StreamError`], [`AppendError`].
    pub async fn create_stream(
        self: &Arc<Self>,
        name: &StreamName,
        options: StreamOptions,
    ) -> Result<Arc<Log>, ExchangeError> {
        let labels_fit =
            options.labels.len() <= 32 && options.labels.iter().all(|label| label.len() <= 64);
        if options
            .title
            .as_ref()
            .is_some_and(|title| title.chars().count() > 200)
            || !labels_fit
        {
            return Err(StreamError::Limit.into());
        }
        if let Some(rule) = &options.author {
            crate::authors::check_rule(rule)?;
        }
        if options.fields && !options.encryption.is_none() {
            return Err(StreamError::FieldsEncrypted.into());
        }
        let origin = Origin::of_stream(self.identity().authority(), name);
        if self.log(&origin).is_some() {
            return Err(StreamError::Exists { name: name.clone() }.into());
        }
        let cites = match options.cites {
            None => None,
            Some(cited) => {
                let log = self.own_stream(cited.as_str())?;
                // From here on it takes no entries: what the new one cites is the end of it.
                log.change_freeze(Freeze::succeed);
                self.note_frozen();
                self.writer.flush().await;
                let head = log.head();
                Some(Cites {
                    origin: log.origin().clone(),
                    size: head.size,
                    root: Digest(head.root),
                })
            }
        };
        let settings = LogSettings {
            cites,
            title: options.title,
            labels: options.labels,
            event_bytes_max: options.event_bytes_max,
            author: options.author,
            encryption: options.encryption,
            epoch_entries: options.epoch_entries,
            epoch_seconds: options.epoch_seconds,
            fields: options.fields,
        };
        self.add_own_log(LogKind::Own, &origin, settings).await
    }

    async fn add_own_log(
        self: &Arc<Self>,
        kind: LogKind,
        origin: &Origin,
        settings: LogSettings,
    ) -> Result<Arc<Log>, ExchangeError> {
        let _creating = self.creating.lock().await;
        if let Some(log) = self.log(origin) {
            return Ok(log);
        }
        let genesis = self.genesis(kind, origin, &settings);
        let birth = Birth {
            kind,
            origin: origin.to_string(),
            settings: serde_json::to_vec(&settings).unwrap_or_default(),
        };
        let number = self.writer.open_log(birth).await?;
        let log = Arc::new(Log::new(
            number,
            kind,
            origin.clone(),
            settings,
            empty_head(),
        ));
        let sealed =
            self.with_entropy(|entropy| seal_control_entry(origin, GENESIS, &genesis, entropy))?;
        self.writer
            .append_and_wait(Arc::clone(&log), sealed, None)
            .await?;
        self.logs_mut(|logs| logs.insert(origin.clone(), Arc::clone(&log)));
        Ok(log)
    }

    /// Takes a copied log in; it becomes durable with its first batch.
    pub(crate) async fn add_log(
        &self,
        birth: Birth,
        origin: &Origin,
        settings: LogSettings,
    ) -> Result<Arc<Log>, ExchangeError> {
        let _creating = self.creating.lock().await;
        if let Some(log) = self.log(origin) {
            return Ok(log);
        }
        let kind = birth.kind;
        let number = self.writer.open_log(birth).await?;
        let log = Arc::new(Log::new(
            number,
            kind,
            origin.clone(),
            settings,
            empty_head(),
        ));
        self.logs_mut(|logs| logs.insert(origin.clone(), Arc::clone(&log)));
        Ok(log)
    }

    pub(super) fn successors_mut<T>(
        &self,
        change: impl FnOnce(&mut HashMap<Origin, Arc<Log>>) -> T,
    ) -> T {
        let successors = self.successors.write();
        change(&mut successors.unwrap_or_else(PoisonError::into_inner))
    }

    fn genesis(&self, kind: LogKind, origin: &Origin, settings: &LogSettings) -> String {
        let key = self.identity().log_key.public();
        let vkey = Vkey::new(origin.as_str(), Algorithm::Ed25519, key).map(|vkey| vkey.to_string());
        let statement =
            serde_json::from_slice::<serde_json::Value>(&self.identity().envelope.to_json());
        let mut genesis = serde_json::json!({
            "origin": origin,
            "kind": if kind == LogKind::Ledger { "ledger" } else { "stream" },
            "data_commitment": if settings.fields { "fields" } else { "whole" },
            "organization": self.identity().organization().to_base64(),
            "log_key": vkey.unwrap_or_default(),
            "key_statement": statement.unwrap_or_default(),
            "event_bytes_max": self.event_bytes_max(settings),
        });
        if let Some(title) = &settings.title {
            genesis["title"] = title.clone().into();
        }
        if !settings.encryption.is_none() {
            genesis["encryption"] = settings.encryption.as_str().into();
        }
        if let Some(cites) = &settings.cites {
            genesis["cites"] = serde_json::json!(cites);
        }
        if let Some(author) = &settings.author {
            genesis["author"] = serde_json::json!(author);
        }
        genesis.to_string()
    }

    /// Data bytes of the largest event that a stream takes.
    #[must_use]
    pub fn event_bytes_max(&self, settings: &LogSettings) -> u32 {
        let node = u32::try_from(self.limits.data_bytes_max).unwrap_or(u32::MAX);
        if settings.event_bytes_max == 0 {
            node
        } else {
            node.min(settings.event_bytes_max)
        }
    }

    /// A stream of ours by name.
    ///
    /// # Errors
    /// [`StreamError::Unknown`].
    pub fn own_stream(&self, name: &str) -> Result<Arc<Log>, StreamError> {
        let unknown = || StreamError::Unknown {
            name: name.chars().filter(|c| !c.is_control()).take(80).collect(),
        };
        let stream: StreamName = name.parse()?;
        let origin = Origin::of_stream(self.identity().authority(), &stream);
        self.log(&origin)
            .filter(|log| log.kind() == LogKind::Own)
            .ok_or_else(unknown)
    }

    /// Brings the ledger's view up to date with all that was recorded before, also with what still waits for a commit to ride on.
    ///
    /// # Errors
    /// [`ExchangeError::View`].
    pub async fn refresh_view(&self) -> Result<(), ExchangeError> {
        self.writer.flush().await;
        self.catch_up_view().await
    }

    /// Brings the ledger's view up to date with what is in the logs.
    ///
    /// # Errors
    /// [`ExchangeError::View`].
    pub async fn catch_up_view(&self) -> Result<(), ExchangeError> {
        self.view.catch_up(&self.ledger_source()).await?;
        Ok(())
    }

    /// The ledger logs, for the view.
    #[must_use]
    pub fn ledger_source(&self) -> LedgerLogs {
        LedgerLogs {
            reader: self.reader.clone(),
        }
    }

    /// Wakes when the ledger has something new for the view.
    #[must_use]
    pub fn ledger_moved(&self) -> watch::Receiver<u64> {
        self.ledger_moved.subscribe()
    }

    /// Commits what waits and ends the writer. Nothing is accepted afterwards.
    pub async fn close(&self) {
        self.writer.stop().await;
        let thread = self
            .writer_thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    /// Who this node is now.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        self.identity.now()
    }

    pub(crate) fn identities(&self) -> &Identities {
        &self.identity
    }

    /// Held while keys are changed: one change at a time.
    pub async fn changing_keys(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.changing_keys.lock().await
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The way to the writer.
    #[must_use]
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// The keys of encrypted streams.
    #[must_use]
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Stored entries.
    #[must_use]
    pub fn reader(&self) -> &JournalReader {
        &self.reader
    }

    /// The ledger's view.
    #[must_use]
    pub fn view(&self) -> &LedgerView {
        &self.view
    }

    /// What the ledger says now. Not to be held across an await.
    pub fn registry(&self) -> RwLockReadGuard<'_, Registry> {
        self.registry.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The policies in force.
    #[must_use]
    pub fn policies(&self) -> Arc<PolicySet> {
        Arc::clone(&self.policies.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A log by its origin.
    #[must_use]
    pub fn log(&self, origin: &Origin) -> Option<Arc<Log>> {
        self.logs
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(origin)
            .cloned()
    }

    /// All logs, by origin.
    #[must_use]
    pub fn logs(&self) -> Vec<Arc<Log>> {
        let mut logs: Vec<_> = self
            .logs
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect();
        logs.sort_by(|a, b| a.origin().cmp(b.origin()));
        logs
    }

    /// The largest events taken.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Draws randomness.
    pub fn with_entropy<T>(&self, draw: impl FnOnce(&mut dyn Entropy) -> T) -> T {
        let mut entropy = self.entropy.lock().unwrap_or_else(PoisonError::into_inner);
        draw(&mut **entropy)
    }

    /// Moves whenever policies, agreements or partners change.
    #[must_use]
    pub fn access_generation(&self) -> u64 {
        *self.generation.borrow()
    }

    /// Wakes when policies, agreements or partners change, and when time may have changed what they say ([`Exchange::note_time`]).
    #[must_use]
    pub fn watch_access(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Wakes who watches access, if time alone may have changed what is allowed since the last call: an agreement begins or ends, or the policies
    /// mention time. To be called at least once a second.
    pub fn note_time(&self) {
        let now = self.clock.now();
        let last = std::mem::replace(
            &mut *self
                .time_noted
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
            now,
        );
        // A clock may be set back.
        let (from, to) = (last.min(now), last.max(now));
        let passed = |boundary: Timestamp| from < boundary && boundary <= to;
        let may_differ: Vec<AgreementId> = {
            let registry = self.registry();
            let held = registry.agreements.iter().filter(|(_, state)| {
                passed(state.agreement.from)
                    || state.agreement.until.is_some_and(passed)
                    || state.documents.any_between(from, to)
            });
            held.map(|(id, _)| *id).collect()
        };
        self.exclude_expired(&may_differ);
        if !may_differ.is_empty() || self.policies().mentions_time() {
            // No other generation: nothing but the time is to be judged again.
            self.generation.send_modify(|_| ());
        }
    }

    /// A subscription runs from now on.
    pub(crate) fn note_running(&self, delivery: &Arc<Delivery>) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|known| known.strong_count() > 0);
        running.push(Arc::downgrade(delivery));
    }

    /// The subscriptions that run.
    pub(crate) fn running(&self) -> Vec<Arc<Delivery>> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.iter().filter_map(Weak::upgrade).collect()
    }

    /// Judges every running subscription again, now: a session that waits for a slow reader to take what was handed out would do so only after that.
    pub(crate) fn recheck_running(&self) {
        for delivery in self.running() {
            delivery.recheck();
        }
    }

    pub(crate) fn access_changed(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// The running and resting subscriptions.
    #[must_use]
    pub fn statuses(&self) -> Vec<SubscriptionStatus> {
        let statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = statuses.values().cloned().collect();
        drop(statuses);
        for status in &mut all {
            if let Some(log) = self.log(&status.stream)
                && status.direction == crate::Direction::Out
            {
                status.head = log.size();
            }
        }
        all.sort_by(|a, b| (&a.stream, &a.partner).cmp(&(&b.stream, &b.partner)));
        all
    }

    pub(crate) fn note_status(&self, status: SubscriptionStatus) {
        let key = (
            status.agreement.clone(),
            status.direction == crate::Direction::In,
        );
        self.statuses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, status);
    }

    /// How often somebody unknown was refused since the start.
    #[must_use]
    pub fn refused_strangers(&self) -> u64 {
        self.refused_strangers.load(Ordering::Relaxed)
    }

    pub(crate) fn count_refused_stranger(&self) {
        self.refused_strangers.fetch_add(1, Ordering::Relaxed);
    }

    /// How many questions of partners were refused since the start without a record of their own in the ledger.
    #[must_use]
    pub fn refused_unrecorded(&self) -> u64 {
        self.refused_questions().unrecorded
    }

    pub(crate) fn refused_questions(&self) -> MutexGuard<'_, RefusedQuestions> {
        let questions = self.refused_questions.lock();
        questions.unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn author_rules(&self) -> &tokio::sync::RwLock<()> {
        &self.author_rules
    }

    pub(crate) fn erasing(&self) -> &Erasing {
        &self.erasing
    }

    pub(crate) fn with_exposure<T>(
        &self,
        agreement: AgreementId,
        change: impl FnOnce(&mut Exposure) -> T,
    ) -> T {
        let mut exposures = self
            .exposures
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        change(exposures.entry(agreement).or_default())
    }

    pub(crate) fn with_judged<T>(
        &self,
        look: impl FnOnce(&mut HashMap<JudgedKey, Judged>) -> T,
    ) -> T {
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        look(&mut judged)
    }

    /// Whether this refusal differs from the last one got for the stream.
    pub(crate) fn is_news(&self, stream: &Origin, refusal: &str) -> bool {
        let mut got = self
            .refusals_got
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        got.insert(stream.clone(), refusal.to_owned()).as_deref() != Some(refusal)
    }

    /// Why nothing is appended any more, if that is so.
    #[must_use]
    pub fn appending_stopped(&self) -> Option<String> {
        self.writer.stopped()
    }

    /// Everything below this sequence has been taken by every application that reads the stream here; 0 where none does.
    #[must_use]
    pub fn applied(&self, stream: &Origin) -> u64 {
        self.registry()
            .cursors
            .iter()
            .filter(|((_, log), _)| log == stream)
            .map(|(_, (next, _))| *next)
            .min()
            .unwrap_or(0)
    }

    /// An application has taken everything below `next`. Durable with the next commit.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn move_cursor(
        self: &Arc<Self>,
        app: &str,
        stream: &Origin,
        next: u64,
        leaf: Hash,
    ) -> Result<(), ExchangeError> {
        let record = LedgerRecord::Cursor {
            app: app.to_owned(),
            stream: stream.clone(),
            next,
            leaf: Digest(leaf),
        };
        self.record_and_wait(None, record).await
    }

    /// Enrols an application, or takes its enrolment back.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn enrol_app(
        self: &Arc<Self>,
        name: &str,
        key: countersign_crypto::PublicKey,
        enrolled: bool,
    ) -> Result<(), ExchangeError> {
        let record = LedgerRecord::App {
            name: name.to_owned(),
            key,
            enrolled,
        };
        self.record_and_wait(None, record).await
    }

    /// Receipts on their way to the ledger. The registry may be read while this is held, not the other way round.
    pub(crate) fn receipts_under_way(&self) -> MutexGuard<'_, HashMap<SeriesKey, (Receipt, Hash)>> {
        // A panic while the lock was held left whole entries.
        self.receipts_under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The last receipt of a series, and the digest of its payload; one that is still on its way to the ledger counts, so that no session signs or
    /// accepts a second one under its number.
    pub(crate) fn last_receipt(&self, key: &SeriesKey) -> Option<(Receipt, Hash)> {
        let under_way = self.receipts_under_way();
        under_way.get(key).cloned().or_else(|| {
            let registry = self.registry();
            let last = registry.receipts.get(key)?;
            Some((last.receipt.clone(), last.digest))
        })
    }

    /// A receipt is in the ledger, or will not be: the registry says which.
    fn receipt_landed(&self, record: &LedgerRecord) {
        let LedgerRecord::Receipt { envelope, .. } = record else {
            return;
        };
        let Ok(envelope) = Envelope::from_json(envelope.as_bytes()) else {
            return;
        };
        let digest = envelope.payload_digest();
        self.receipts_under_way()
            .retain(|_, (_, under_way)| *under_way != digest);
    }

    /// Receipts after `number` of a series, oldest first, at most `limit`.
    pub(crate) async fn own_receipts_after(
        &self,
        agreement: AgreementId,
        stream: &Origin,
        series: SeriesId,
        (number, limit): (u64, u32),
    ) -> Result<Vec<Envelope>, ExchangeError> {
        self.catch_up_view().await?;
        let rows = self
            .view
            .receipts_after(&agreement, stream, &series, (number, limit))
            .await?;
        Ok(rows
            .iter()
            .filter_map(|row| Envelope::from_json(row.envelope.as_bytes()).ok())
            .collect())
    }

    /// Keeps bytes that prove a partner's fault, and says so in its ledger log.
    pub fn keep_fault(
        self: &Arc<Self>,
        partner: &Authority,
        stream: &Origin,
        detail: &str,
        bytes: &[u8],
    ) -> Option<String> {
        let evidence = self.evidence.keep(stream.as_str(), "bin", bytes);
        tracing::warn!(%partner, %stream, detail, "a partner sent what cannot be accepted");
        let record = LedgerRecord::Fault {
            code: "peer-fault".to_owned(),
            detail: detail.to_owned(),
            stream: Some(stream.clone()),
            evidence: evidence.clone(),
        };
        self.record_lazily(Some(partner.clone()), record);
        evidence
    }

    pub(crate) fn witness(&self) -> &Witness {
        &self.witness
    }

    pub(crate) fn with_submissions<T>(&self, look: impl FnOnce(&mut Submissions) -> T) -> T {
        let mut submissions = self
            .submissions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        look(&mut submissions)
    }

    fn logs_mut<T>(&self, change: impl FnOnce(&mut HashMap<Origin, Arc<Log>>) -> T) -> T {
        change(&mut self.logs.write().unwrap_or_else(PoisonError::into_inner))
    }
}
