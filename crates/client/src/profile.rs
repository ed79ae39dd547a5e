//! The profile: one file that makes a program a consumer organization without a node.
//!
//! ```text
//! {"version":1,"name":…,"keys":{"organization":PEM,"node":PEM,"agreement":PEM,"receipt":PEM},"statement":DSSE,
//!  "subscriptions":[{"agreement":DSSE,"producer":DSSE,"addresses":[…],"state":{"series":…,"cursor":…,"newest":…,"receipt":…}}]}
//! ```
//!
//! The file holds private keys: its mode is 0600, and a wider one is refused. It is replaced as a whole (written beside, synced, renamed), and
//! one process at a time has it: two that sign receipts of one series would contradict each other. A copy is a copy of the keys; an older copy
//! put back is noticed when the producer holds a later receipt.

mod file;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_crypto::{Entropy, SigningKey};
use countersign_event::documents::{
    Agreement, AgreementId, KeyStatement, Party, Role, RoleKey, StatementError,
};
use countersign_event::dsse::Envelope;
use countersign_event::names::{Authority, Origin};
use countersign_event::time::Timestamp;
use countersign_protocol::invitation::Invitation;

use crate::join::{self, JoinError, JoinerKeys, Terms};
use crate::quic::QuicLimits;
use crate::session::{Clock, Expected, SessionOptions};
use crate::subscriber::{KeepState, SubscriberOptions, SubscriptionState, series_id};
use file::{Lock, ProfileJson, SubscriptionJson};

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The file exists already.
    #[error(
        "`{path}` exists already; it is never overwritten: choose another path, or use it as it is"
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Another process has it.
    #[error(
        "`{path}` is in use by another process; a profile has one user at a time, so that its receipts do not contradict each other"
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The system failed.
    #[error("`{path}` cannot be {doing}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Joining failed; the profile stays as it was, and the same link can be tried again.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The content is no profile.
    #[error("`{path}` is not a whole profile ({part}); restore it from a backup")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Which part.
        part: &'static str,
    },
    /// A key statement does not verify.
    #[error("a key statement in the profile does not verify: {0}")]
    Statement(#[from] StatementError),
    /// No such subscription.
    #[error("the profile holds no agreement for `{stream}`; join by an invitation first")]
    Unknown {
        /// What was asked for.
        stream: String,
    },
    /// Others may read it.
    #[error(
        "`{path}` may be read by others (mode {mode:o}) and holds private keys: `chmod 600` it, and consider the keys known to whoever had access"
    )]
    WideMode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The inviter wants to read from the joiner, for which a node is needed.
    #[error(
        "the inviter wants to read `{stream}` from this side; publishing needs a node: join with `countersign partner join` there"
    )]
    WouldPublish {
        /// The stream.
        stream: String,
    },
}

/// One agreement and what belongs to it.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// The agreement, verified under both signatures.
    pub agreement: Agreement,
    /// Its envelope.
    pub envelope: Envelope,
    /// The producer's key statement.
    pub producer: KeyStatement,
    /// Its envelope.
    pub producer_envelope: Envelope,
    /// Where the producer's node listens.
    pub addresses: Vec<String>,
    /// Where reading stands.
    pub state: SubscriptionState,
}

/// A profile that is open, and locked. Clones share it.
#[derive(Clone)]
pub struct Profile(Arc<Inner>);

struct Inner {
    path: PathBuf,
    keys: Keys,
    statement: KeyStatement,
    envelope: Envelope,
    subscriptions: Mutex<Vec<Subscription>>,
    _lock: Lock,
}

struct Keys {
    organization: SigningKey,
    node: SigningKey,
    agreement: SigningKey,
    receipt: SigningKey,
}

impl std::fmt::Debug for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Profile")
            .field("path", &self.0.path)
            .finish_non_exhaustive()
    }
}

impl Profile {
    /// Makes an organization with fresh keys and writes it to `path`, which must not exist. `name` is its display name (1 to 100 characters).
    ///
    /// # Errors
    /// [`ProfileError::Exists`], [`ProfileError::InUse`], [`ProfileError::Io`], [`ProfileError::Statement`] for an unusable name.
    pub fn create(
        path: &Path,
        name: &str,
        now: Timestamp,
        entropy: &mut dyn Entropy,
    ) -> Result<Self, ProfileError> {
        let lock = Lock::take(path)?;
        if path.exists() {
            return Err(ProfileError::Exists {
                path: path.to_owned(),
            });
        }
        let keys = Keys {
            organization: SigningKey::generate(entropy),
            node: SigningKey::generate(entropy),
            agreement: SigningKey::generate(entropy),
            receipt: SigningKey::generate(entropy),
        };
        let role = |role, key: &SigningKey| RoleKey {
            role,
            key: key.public(),
            from: now,
            until: None,
        };
        let statement = KeyStatement {
            authority: Authority::of_key(&keys.organization.public()),
            name: name.to_owned(),
            organization: keys.organization.public(),
            number: 1,
            made: now,
            keys: vec![
                role(Role::Agreement, &keys.agreement),
                role(Role::Node, &keys.node),
                role(Role::Receipt, &keys.receipt),
            ],
            succession: Vec::new(),
        };
        let envelope = statement.sign_with(&keys.organization);
        // Everybody else will check the same.
        let statement = KeyStatement::verify(&envelope)?;
        let profile = Self(Arc::new(Inner {
            path: path.to_owned(),
            keys,
            statement,
            envelope,
            subscriptions: Mutex::default(),
            _lock: lock,
        }));
        profile.save(&profile.subscriptions())?;
        Ok(profile)
    }

    /// Opens an existing profile.
    ///
    /// # Errors
    /// All of [`ProfileError`] but `Exists` and those of joining.
    pub fn open(path: &Path) -> Result<Self, ProfileError> {
        let lock = Lock::take(path)?;
        let json = file::read(path)?;
        let malformed = |part| ProfileError::Malformed {
            path: path.to_owned(),
            part,
        };
        let key = |pem: &str, part| SigningKey::from_pem(pem).map_err(|_| malformed(part));
        let keys = Keys {
            organization: key(&json.keys.organization, "organization key")?,
            node: key(&json.keys.node, "node key")?,
            agreement: key(&json.keys.agreement, "agreement key")?,
            receipt: key(&json.keys.receipt, "receipt key")?,
        };
        let envelope = Envelope::from_json(json.statement.as_bytes())
            .map_err(|_| malformed("key statement"))?;
        let statement = KeyStatement::verify(&envelope)?;
        if statement.organization != keys.organization.public() {
            return Err(malformed("key statement"));
        }
        let subscriptions = json
            .subscriptions
            .iter()
            .map(|one| {
                subscription_from(one, &statement).ok_or_else(|| malformed("a subscription"))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self(Arc::new(Inner {
            path: path.to_owned(),
            keys,
            statement,
            envelope,
            subscriptions: Mutex::new(subscriptions),
            _lock: lock,
        })))
    }

    /// Opens the profile, or creates it where there is none.
    ///
    /// # Errors
    /// As [`Profile::open`] and [`Profile::create`].
    pub fn open_or_create(
        path: &Path,
        name: &str,
        now: Timestamp,
        entropy: &mut dyn Entropy,
    ) -> Result<Self, ProfileError> {
        if path.exists() {
            Self::open(path)
        } else {
            Self::create(path, name, now, entropy)
        }
    }

    /// The organization as a side of an agreement.
    #[must_use]
    pub fn party(&self) -> Party {
        join::party_of(&self.0.statement)
    }

    /// The organization's key statement.
    #[must_use]
    pub fn statement(&self) -> &KeyStatement {
        &self.0.statement
    }

    /// A copy of what is subscribed.
    #[must_use]
    pub fn list(&self) -> Vec<Subscription> {
        self.subscriptions().clone()
    }

    /// Joins by a link: shows the checked terms to `confirm`, and stores the agreement under both signatures. The keys are on disk before anything is
    /// sent, so that a crash at any moment is healed by joining again.
    ///
    /// # Errors
    /// [`ProfileError::Join`], [`ProfileError::WouldPublish`], [`ProfileError::Io`].
    pub async fn join(
        &self,
        invitation: &Invitation,
        clock: Clock,
        mut confirm: impl FnMut(&Terms) -> bool,
    ) -> Result<Subscription, ProfileError> {
        let keys = JoinerKeys {
            statement: self.0.statement.clone(),
            envelope: self.0.envelope.clone(),
            agreement_key: self.0.keys.agreement.clone(),
        };
        let base = self.session(
            invitation.addresses.clone(),
            Expected::node(invitation.node),
            clock,
        );
        let ours = &self.0.statement.authority;
        let mut would_publish = None;
        let confirm = |terms: &Terms| {
            if terms.agreement.consumer.authority != *ours {
                would_publish = Some(terms.agreement.stream.to_string());
                return false;
            }
            confirm(terms)
        };
        let joined = join::redeem(invitation, base, &keys, confirm).await;
        if let Some(stream) = would_publish {
            return Err(ProfileError::WouldPublish { stream });
        }
        let joined = joined?;
        let id = joined.terms.agreement.id;
        let mut subscriptions = self.subscriptions();
        let known = subscriptions.iter().position(|one| one.agreement.id == id);
        let state = match known {
            Some(at) => subscriptions.remove(at).state,
            None => SubscriptionState::new(series_id(id, &self.0.keys.node.public())),
        };
        let subscription = Subscription {
            agreement: joined.terms.agreement,
            envelope: joined.agreement,
            producer: joined.inviter.statement,
            producer_envelope: joined.inviter.envelope,
            addresses: joined.addresses,
            state,
        };
        subscriptions.push(subscription.clone());
        self.save(&subscriptions)?;
        Ok(subscription)
    }

    /// Options to read a subscription, whose state this profile keeps.
    ///
    /// # Errors
    /// [`ProfileError::Unknown`].
    pub fn subscriber(
        &self,
        stream: &Origin,
        clock: Clock,
        entropy: Box<dyn Entropy>,
    ) -> Result<SubscriberOptions, ProfileError> {
        // The newest agreement for a stream is the last one joined.
        let found = self
            .subscriptions()
            .iter()
            .rev()
            .find(|one| one.agreement.stream == *stream)
            .cloned();
        let one = found.ok_or_else(|| ProfileError::Unknown {
            stream: stream.to_string(),
        })?;
        let expected = Expected::organization(one.producer.organization.fingerprint());
        let session = self.session(one.addresses, expected, clock);
        let keeper = Keeper {
            profile: self.clone(),
            agreement: one.agreement.id,
        };
        let receipt_key = self.0.keys.receipt.clone();
        Ok(SubscriberOptions {
            state: one.state,
            keep: Box::new(keeper),
            ..SubscriberOptions::new(session, one.agreement, one.producer, receipt_key, entropy)
        })
    }

    fn session(&self, addresses: Vec<String>, expected: Expected, clock: Clock) -> SessionOptions {
        SessionOptions {
            addresses,
            expected,
            key: self.0.keys.node.clone(),
            statement: Some(self.0.envelope.clone()),
            advertise: Vec::new(),
            limits: QuicLimits::default(),
            clock,
        }
    }

    fn subscriptions(&self) -> MutexGuard<'_, Vec<Subscription>> {
        // A panic while the lock was held left whole values.
        self.0
            .subscriptions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&self, subscriptions: &[Subscription]) -> Result<(), ProfileError> {
        let Inner {
            path,
            keys,
            statement,
            envelope,
            ..
        } = &*self.0;
        let pem = |key: &SigningKey| {
            let pem = key.to_pem().map(|pem| pem.to_string());
            pem.map_err(|_| ProfileError::Malformed {
                path: path.clone(),
                part: "a key",
            })
        };
        let json = ProfileJson {
            version: file::VERSION,
            name: statement.name.clone(),
            keys: file::KeysJson {
                organization: pem(&keys.organization)?,
                node: pem(&keys.node)?,
                agreement: pem(&keys.agreement)?,
                receipt: pem(&keys.receipt)?,
            },
            statement: text(envelope),
            subscriptions: subscriptions.iter().map(subscription_to).collect(),
        };
        file::write(path, &json)
    }
}

/// Keeps one subscription's state in the profile.
struct Keeper {
    profile: Profile,
    agreement: AgreementId,
}

impl KeepState for Keeper {
    fn keep_producer(&mut self, statement: &Envelope) -> io::Result<()> {
        let verified = KeyStatement::verify(statement).map_err(io::Error::other)?;
        let mut subscriptions = self.profile.subscriptions();
        let of_producer = subscriptions
            .iter_mut()
            .filter(|one| one.producer.authority == verified.authority)
            .filter(|one| one.producer.number < verified.number);
        for one in of_producer {
            one.producer = verified.clone();
            one.producer_envelope = statement.clone();
        }
        self.profile
            .save(&subscriptions)
            .map_err(|error| match error {
                ProfileError::Io { source, .. } => source,
                error => io::Error::other(error),
            })
    }

    fn keep(&mut self, state: &SubscriptionState) -> io::Result<()> {
        let mut subscriptions = self.profile.subscriptions();
        if let Some(one) = subscriptions
            .iter_mut()
            .find(|one| one.agreement.id == self.agreement)
        {
            one.state = state.clone();
        }
        self.profile
            .save(&subscriptions)
            .map_err(|error| match error {
                ProfileError::Io { source, .. } => source,
                error => io::Error::other(error),
            })
    }
}

fn text(envelope: &Envelope) -> String {
    String::from_utf8(envelope.to_json()).unwrap_or_default()
}

fn subscription_to(one: &Subscription) -> SubscriptionJson {
    SubscriptionJson {
        agreement: text(&one.envelope),
        producer: text(&one.producer_envelope),
        addresses: one.addresses.clone(),
        state: one.state.clone(),
    }
}

/// Reads one subscription; both signatures are verified again, so that a damaged file is noticed here and not in a dispute.
fn subscription_from(json: &SubscriptionJson, ours: &KeyStatement) -> Option<Subscription> {
    let envelope = Envelope::from_json(json.agreement.as_bytes()).ok()?;
    let producer_envelope = Envelope::from_json(json.producer.as_bytes()).ok()?;
    let producer = KeyStatement::verify(&producer_envelope).ok()?;
    let agreement: Agreement = producer.open_signed(Role::Agreement, &envelope).ok()?;
    let _: Agreement = ours.open_signed(Role::Agreement, &envelope).ok()?;
    let parties = producer.descends_from(&agreement.producer.organization)
        && agreement.consumer.organization == ours.organization;
    parties.then(|| Subscription {
        agreement,
        envelope,
        producer,
        producer_envelope,
        addresses: json.addresses.clone(),
        state: json.state.clone(),
    })
}
