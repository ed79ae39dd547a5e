//! What control entries say: `schemas/entry.md`, "Control entries". Those that a reader has to understand to judge what it is not shown.

use countersign_crypto::{Hash, PublicKey, sha256};
use serde::{Deserialize, Serialize};

use crate::content::EventRef;
use crate::documents::Digest;
use crate::json::from_slice_of_objects;

/// The CloudEvents `type` of entry 0.
pub const GENESIS: &str = "dev.countersign.control.genesis.v1";
/// The CloudEvents `type` of a tombstone.
pub const TOMBSTONE: &str = "dev.countersign.control.tombstone.v1";
/// The CloudEvents `type` of an expiry.
pub const EXPIRY: &str = "dev.countersign.control.expiry.v1";
/// The CloudEvents `type` of changed settings.
pub const SETTINGS: &str = "dev.countersign.control.settings.v1";

/// Characters of a tombstone's reason.
pub const REASON_CHARS_MAX: usize = 500;

/// One event's content is erased.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tombstone {
    /// The event.
    pub sequence: u64,
    /// Why, for people. It stays for ever.
    pub reason: String,
}

/// All events below a sequence lost their content by the stream's retention.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Expiry {
    /// The first sequence that keeps its content.
    pub below: u64,
    /// SHA-256 of the retention's text.
    pub policy: Digest,
}

/// How long a stream keeps content: each limit that is set is enough alone. None: for ever.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Older content expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<u64>,
    /// Data bytes of events that keep their content, the newest first; at least the newest event does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Entries at the end of the log that keep their content; at least one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

impl Retention {
    /// Whether all content is kept.
    #[must_use]
    pub fn keeps_all(&self) -> bool {
        *self == Self::default()
    }

    /// Its text in a settings entry.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What an expiry names.
    #[must_use]
    pub fn digest(&self) -> Hash {
        sha256(self.to_text().as_bytes())
    }
}

/// Author keys of one stream.
pub const AUTHOR_KEYS_MAX: usize = 16;

/// Whose signatures a stream knows in its events, and whether each event has to bear one.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorRule {
    /// The keys, at most [`AUTHOR_KEYS_MAX`].
    pub keys: Vec<PublicKey>,
    /// Whether an event without a signature of one of them is refused.
    #[serde(default)]
    pub required: bool,
}

impl AuthorRule {
    /// The rule that a control entry with this content sets; `None` where it sets none.
    #[must_use]
    pub fn read(event: &EventRef<'_>) -> Option<Self> {
        #[derive(Deserialize, Serialize)]
        struct Member {
            #[serde(default)]
            author: Option<AuthorRule>,
        }
        if !matches!(event.attributes().kind(), GENESIS | SETTINGS) {
            return None;
        }
        let member: Member = from_slice_of_objects(event.data().data).ok()?;
        member
            .author
            .filter(|rule| rule.keys.len() <= AUTHOR_KEYS_MAX)
    }
}

/// Changed settings of a stream: what is absent stays as it was.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Whose signatures it knows in its events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<AuthorRule>,
    /// How long it keeps content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
}

/// A control entry that allows content to be gone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Allows {
    /// Of one event.
    Tombstone(Tombstone),
    /// Of all events below a sequence.
    Expiry(Expiry),
}

impl Allows {
    /// What the control entry with this content says; `None` where it is of another type, or is not well-formed.
    #[must_use]
    pub fn read(event: &EventRef<'_>) -> Option<Self> {
        let data = event.data().data;
        match event.attributes().kind() {
            TOMBSTONE => from_slice_of_objects(data).ok().map(Self::Tombstone),
            EXPIRY => from_slice_of_objects(data).ok().map(Self::Expiry),
            _ => None,
        }
    }

    /// Whether it allows the content of every event in `first..end` to be gone.
    #[must_use]
    pub fn covers(&self, first: u64, end: u64) -> bool {
        match self {
            Self::Tombstone(tombstone) => {
                tombstone.sequence == first && first.checked_add(1) == Some(end)
            }
            Self::Expiry(expiry) => end <= expiry.below,
        }
    }

    /// The word for it where reasons are listed.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Tombstone(_) => "erased",
            Self::Expiry(_) => "expired",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tombstone_covers_one_entry_and_an_expiry_all_below() {
        let tombstone = Allows::Tombstone(Tombstone {
            sequence: 7,
            reason: String::new(),
        });
        assert!(tombstone.covers(7, 8));
        assert!(!tombstone.covers(6, 7) && !tombstone.covers(7, 9) && !tombstone.covers(8, 9));
        let expiry = Allows::Expiry(Expiry {
            below: 7,
            policy: Digest([0; 32]),
        });
        assert!(expiry.covers(0, 7) && expiry.covers(6, 7));
        assert!(!expiry.covers(6, 8) && !expiry.covers(7, 8));
    }

    #[test]
    fn settings_say_only_what_changed() {
        let retention = Some(Retention::default());
        let settings = Settings {
            retention,
            ..Settings::default()
        };
        let text = serde_json::to_string(&settings).unwrap_or_default();
        assert_eq!(text, r#"{"retention":{}}"#);
    }

    #[test]
    fn a_retention_has_one_text() {
        let retention = Retention {
            age_seconds: Some(60),
            bytes: None,
            count: Some(5),
        };
        assert_eq!(retention.to_text(), r#"{"age_seconds":60,"count":5}"#);
        assert_eq!(Retention::default().to_text(), "{}");
        assert!(Retention::default().keeps_all() && !retention.keeps_all());
    }
}
