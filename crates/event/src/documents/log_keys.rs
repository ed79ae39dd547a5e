use countersign_crypto::{Hash, PublicKey};

use super::{KeyRevocation, KeyStatement, Role};
use crate::names::Origin;
use crate::time::Timestamp;

/// Which keys count for the heads that a log shows at one moment: those that its organization's newest key statement delegates and that have not ended, less what was
/// revoked. Of a revoked key just the head that every revocation of it names still counts; what it signed before lies below that head, or was witnessed, and is
/// judged with the evidence at hand, not here.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LogKeys {
    /// The key that began last first.
    keys: Vec<LogKey>,
    now: Timestamp,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct LogKey {
    key: PublicKey,
    until: Option<Timestamp>,
    revoked: Revoked,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Revoked {
    No,
    /// But for this head.
    Beyond(u64, Hash),
    Altogether,
}

/// What is to be made of a head under a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// It counts.
    Counts,
    /// The key's period is over.
    Ended,
    /// The organization has revoked the key, and does not name this head.
    Revoked,
    /// No such key is delegated.
    Unknown,
}

impl From<PublicKey> for LogKeys {
    /// One key, for ever.
    fn from(key: PublicKey) -> Self {
        let revoked = Revoked::No;
        let until = None;
        Self {
            keys: vec![LogKey {
                key,
                until,
                revoked,
            }],
            now: Timestamp::default(),
        }
    }
}

impl LogKeys {
    /// The keys of the log `origin` at `now`, by its organization's newest statement and all its revocations.
    pub fn of<'r>(
        origin: &Origin,
        statement: &KeyStatement,
        revocations: impl Iterator<Item = &'r KeyRevocation> + Clone,
        now: Timestamp,
    ) -> Self {
        let mut stated: Vec<_> = statement.keys_for(Role::Log).collect();
        stated.sort_by_key(|key| std::cmp::Reverse(key.from));
        let of = |key: &PublicKey| {
            let of_key = revocations.clone();
            let mut of_key =
                of_key.filter(|revocation| revocation.role == Role::Log && revocation.key == *key);
            let Some(first) = of_key.next() else {
                return Revoked::No;
            };
            let named = |revocation: &KeyRevocation| {
                let head = revocation.head(origin)?;
                Some((head.size, head.root.0))
            };
            match named(first) {
                Some((size, root)) if of_key.all(|other| named(other) == Some((size, root))) => {
                    Revoked::Beyond(size, root)
                }
                _ => Revoked::Altogether,
            }
        };
        let keys = stated.into_iter().map(|stated| LogKey {
            key: stated.key,
            until: stated.until,
            revoked: of(&stated.key),
        });
        Self {
            keys: keys.collect(),
            now,
        }
    }

    /// When one of them ends next, after which this says too much.
    #[must_use]
    pub fn next_end(&self) -> Option<Timestamp> {
        let ends = self.keys.iter().filter_map(|key| key.until);
        ends.filter(|until| self.now < *until).min()
    }

    /// Whether there is none at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// All of them, also those that count no more, the one that began last first.
    pub fn all(&self) -> impl Iterator<Item = &PublicKey> {
        self.keys.iter().map(|key| &key.key)
    }

    /// What is to be made of the head (`size`, `root`) under `key`.
    #[must_use]
    pub fn judge(&self, key: &PublicKey, size: u64, root: &Hash) -> Standing {
        let Some(known) = self.keys.iter().find(|known| known.key == *key) else {
            return Standing::Unknown;
        };
        match known.revoked {
            Revoked::Altogether => Standing::Revoked,
            // The organization itself vouches for it, whenever it is shown.
            Revoked::Beyond(named, named_root) if (named, named_root) == (size, *root) => {
                Standing::Counts
            }
            Revoked::Beyond(..) => Standing::Revoked,
            Revoked::No if known.until.is_some_and(|until| until <= self.now) => Standing::Ended,
            Revoked::No => Standing::Counts,
        }
    }

    /// The keys that count for a head.
    pub fn counting<'k>(
        &'k self,
        size: u64,
        root: &'k Hash,
    ) -> impl Iterator<Item = &'k PublicKey> {
        self.all()
            .filter(move |key| self.judge(key, size, root) == Standing::Counts)
    }

    /// The keys that are revoked, though one head may still count.
    pub fn revoked(&self) -> impl Iterator<Item = &PublicKey> {
        let revoked = self.keys.iter().filter(|key| key.revoked != Revoked::No);
        revoked.map(|key| &key.key)
    }
}
