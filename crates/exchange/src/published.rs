//! The published log of a stream: what `schemas/published-log.md` gives to whoever may read it.
//!
//! ```text
//! path ── parse ──► PublishedPath ── open_published: open, or token and policies ──► Published ── read ──► bytes
//! ```

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use countersign_crypto::{Hash, sha256};
use countersign_event::documents::{AgreementId, Digest};
use countersign_event::entry::ENTRY_BYTES;
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::{Authority, Origin, StreamName};
use countersign_event::time::Timestamp;
use countersign_policy::{Action, Decision};
use countersign_store::journal::{LogKind, ReadError};

use countersign_tlog::tile::{Tile, TileKind, encode_entry_bundle, width_at};

use crate::registry::AgreementState;
use crate::{Exchange, ExchangeError, Log, Peer};

/// What precedes the secret where a digest is made of it.
const TOKEN_TAG: &[u8; 16] = b"countersign.tok1";

/// What precedes the digits of a token.
const TOKEN_PREFIX: &str = "cst1_";

/// A path below `/logs/`: one spelling for one thing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PublishedPath {
    stream: StreamName,
    file: PublishedFile,
}

/// What of a log is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PublishedFile {
    /// The newest signed checkpoint.
    Checkpoint,
    /// The newest checkpoint with enough cosignatures.
    Witnessed,
    /// Hashes or entries.
    Tile(Tile),
}

/// A text that names nothing that a published log can have.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "not a path of a published log: `<stream>/checkpoint`, `<stream>/witnessed` or `<stream>/tile/...` is expected"
)]
pub struct PublishedPathError;

impl PublishedPath {
    /// What of the log is asked for.
    #[must_use]
    pub fn file(&self) -> PublishedFile {
        self.file
    }
}

impl FromStr for PublishedPath {
    type Err = PublishedPathError;

    fn from_str(path: &str) -> Result<Self, PublishedPathError> {
        let (stream, file) = path.split_once('/').ok_or(PublishedPathError)?;
        let stream = stream.parse().map_err(|_| PublishedPathError)?;
        let file = match file {
            "checkpoint" => PublishedFile::Checkpoint,
            "witnessed" => PublishedFile::Witnessed,
            _ => PublishedFile::Tile(Tile::parse(file).map_err(|_| PublishedPathError)?),
        };
        Ok(Self { stream, file })
    }
}

impl fmt::Display for PublishedPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.file {
            PublishedFile::Checkpoint => write!(f, "{}/checkpoint", self.stream),
            PublishedFile::Witnessed => write!(f, "{}/witnessed", self.stream),
            PublishedFile::Tile(tile) => write!(f, "{}/{tile}", self.stream),
        }
    }
}

/// A token as it was made: shown once, kept nowhere.
#[derive(Clone)]
pub struct MadeToken {
    /// What its holder sends.
    pub token: String,
    /// What it is called.
    pub id: String,
    /// When it ends.
    pub expires: Timestamp,
}

impl fmt::Debug for MadeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MadeToken")
            .field("id", &self.id)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// The digest of a token; `None` where the text is none.
#[must_use]
pub fn token_digest(token: &str) -> Option<Hash> {
    let digits = token.strip_prefix(TOKEN_PREFIX)?;
    let canonical = digits
        .bytes()
        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let mut secret = [0; 32];
    hex::decode_to_slice(digits, &mut secret).ok()?;
    canonical.then(|| digest_of(&secret))
}

fn digest_of(secret: &[u8; 32]) -> Hash {
    let mut bytes = TOKEN_TAG.to_vec();
    bytes.extend_from_slice(secret);
    sha256(&bytes)
}

/// What people call a token: the beginning of its digest.
#[must_use]
pub fn token_id(digest: &Hash) -> String {
    hex::encode(&digest[..8])
}

/// Why a published log is not given.
#[derive(Debug, thiserror::Error)]
pub enum PublishedFault {
    /// The decision could not be recorded.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// There is none, or none that the token's organization may know of.
    #[error("there is no such log here, or none that you may see")]
    NotFound,
    /// The policies say no.
    #[error("reading this log is not permitted: {reason}")]
    NotPermitted {
        /// What they say, and what would help.
        reason: String,
    },
    /// Not open, and no token that is good.
    #[error("this needs a token: `Authorization: Bearer ...`")]
    Unauthenticated,
}

/// A published log that may be read now.
#[derive(Debug)]
pub struct Published {
    exchange: Arc<Exchange>,
    log: Arc<Log>,
    open: bool,
}

/// The last answer of the policies that was recorded for one organization, stream and action.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Judged {
    allowed: bool,
    policies: Vec<String>,
    digest: Hash,
    agreement: Option<AgreementId>,
}

/// Whose answer about what.
pub(crate) type JudgedKey = (Authority, Origin, &'static str);

impl Exchange {
    /// Opens the published log that a path names, for whoever shows `token`.
    ///
    /// # Errors
    /// [`PublishedFault`].
    pub async fn open_published(
        self: &Arc<Self>,
        path: &PublishedPath,
        token: Option<&str>,
    ) -> Result<Published, PublishedFault> {
        let origin = Origin::of_stream(self.identity().authority(), &path.stream);
        let log = self
            .log(&origin)
            .filter(|log| log.kind() == LogKind::Own && log.size() > 0);
        let (open, holder) = {
            let registry = self.registry();
            let digest = token.and_then(token_digest);
            let holder = digest.and_then(|digest| registry.holder(&digest, self.clock().now()));
            let holder = holder.map(|partner| Arc::new(partner.statement.clone()));
            (registry.open_logs.contains(&origin), holder)
        };
        let published = |log, open| Published {
            exchange: Arc::clone(self),
            log,
            open,
        };
        if open && let Some(log) = &log {
            return Ok(published(Arc::clone(log), true));
        }
        // From here on the answer to whoever shows no good token is the same for every name.
        let Some(statement) = holder else {
            self.count_refused_stranger();
            return Err(PublishedFault::Unauthenticated);
        };
        let log = log.ok_or(PublishedFault::NotFound)?;
        let agreement = self
            .registry()
            .active_agreement(&statement.authority, &origin, self.clock().now())
            .cloned();
        let holder = Peer::Holder { statement };
        let seen = self.judge_published(&holder, Action::Discover, &log, agreement.as_ref());
        if !seen.await?.allowed {
            return Err(PublishedFault::NotFound);
        }
        let judged = self.judge_published(&holder, Action::Read, &log, agreement.as_ref());
        let decision = judged.await?;
        if !decision.allowed {
            let reason = decision.explanation.to_string();
            return Err(PublishedFault::NotPermitted { reason });
        }
        Ok(published(log, false))
    }

    /// Asks the policies. A client fetches thousands of tiles: an answer is recorded where it is not the one that was recorded last.
    async fn judge_published(
        self: &Arc<Self>,
        holder: &Peer,
        action: Action,
        log: &Log,
        agreement: Option<&AgreementState>,
    ) -> Result<Decision, ExchangeError> {
        let request = self.policy_request(holder, action, log.described(), agreement, "");
        let (decision, digest) = self.decide(&request);
        let agreement = agreement.map(|state| state.agreement.id);
        let partner = holder.authority().cloned();
        // As at the other doors: to be allowed to know of a stream is nothing to record.
        let worth = action == Action::Read || !decision.allowed;
        let Some(authority) = partner.clone().filter(|_| worth) else {
            return Ok(decision);
        };
        let policies = decision.determining.iter().map(ToString::to_string);
        let judged = Judged {
            allowed: decision.allowed,
            policies: policies.collect(),
            digest,
            agreement,
        };
        let key = (authority, log.origin().clone(), action.name());
        if self.with_judged(|all| all.get(&key) == Some(&judged)) {
            return Ok(decision);
        }
        let record = self.decision_record(holder, &request, &decision, digest, agreement);
        if decision.allowed {
            // Durable before the first byte. Whoever asks meanwhile records it once more, which says nothing false.
            self.record_and_wait(partner, record).await?;
            self.with_judged(|all| all.insert(key, judged));
            return Ok(decision);
        }
        // Not waited for, and taken for recorded at once, so that asking again and again writes nothing more; unless it fails.
        self.with_judged(|all| all.insert(key.clone(), judged.clone()));
        let exchange = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = exchange.record_and_wait(partner, record).await {
                tracing::warn!(%error, "a denial could not be recorded; it is tried again with the next");
                exchange.with_judged(|all| {
                    if all.get(&key) == Some(&judged) {
                        all.remove(&key);
                    }
                });
            }
        });
        Ok(decision)
    }

    /// Opens the published log of a stream of ours to anybody, or closes it.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn set_log_access(
        self: &Arc<Self>,
        stream: &Origin,
        open: bool,
    ) -> Result<(), ExchangeError> {
        if self.registry().open_logs.contains(stream) == open {
            return Ok(());
        }
        let stream = stream.clone();
        self.record_and_wait(None, LedgerRecord::LogAccess { stream, open })
            .await
    }

    /// Makes a token that speaks for a partner.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn make_token(
        self: &Arc<Self>,
        partner: &Authority,
        expires: Timestamp,
    ) -> Result<MadeToken, ExchangeError> {
        let mut secret = [0; 32];
        self.with_entropy(|entropy| entropy.fill(&mut secret));
        let digest = digest_of(&secret);
        self.record_token(partner, digest, expires, false).await?;
        Ok(MadeToken {
            token: format!("{TOKEN_PREFIX}{}", hex::encode(secret)),
            id: token_id(&digest),
            expires,
        })
    }

    /// Withdraws the partner's token that is called `id`; false where it has none of that name that is not withdrawn.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn withdraw_token(
        self: &Arc<Self>,
        partner: &Authority,
        id: &str,
    ) -> Result<bool, ExchangeError> {
        let found = {
            let registry = self.registry();
            let mut tokens = registry.tokens.iter();
            tokens
                .find(|(digest, token)| {
                    token.partner == *partner && !token.withdrawn && token_id(digest) == id
                })
                .map(|(digest, token)| (*digest, token.expires))
        };
        let Some((digest, expires)) = found else {
            return Ok(false);
        };
        self.record_token(partner, digest, expires, true).await?;
        Ok(true)
    }

    async fn record_token(
        self: &Arc<Self>,
        partner: &Authority,
        digest: Hash,
        expires: Timestamp,
        withdrawn: bool,
    ) -> Result<(), ExchangeError> {
        let record = LedgerRecord::Token {
            partner: partner.clone(),
            digest: Digest(digest),
            expires,
            withdrawn,
        };
        self.record_and_wait(Some(partner.clone()), record).await
    }
}

impl Published {
    /// Whether anybody may read it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// A file of the log; `None` where its newest checkpoint covers none such. Reads at most 256 hashes or entries, and of these the fronts of the parts
    /// that they lie in.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(&self, file: PublishedFile) -> Result<Option<Vec<u8>>, ReadError> {
        // INVARIANT: the head has been signed, and everything below it is integrated; the journal may be ahead of it.
        let head = self.log.head();
        if head.signature.is_none() {
            return Ok(None);
        }
        match file {
            PublishedFile::Checkpoint => {
                let note = head.note(self.log.origin());
                Ok(note.map(String::into_bytes))
            }
            PublishedFile::Witnessed => {
                let witnessed = self.log.witnessed();
                Ok(witnessed.map(|witnessed| witnessed.note.clone().into_bytes()))
            }
            PublishedFile::Tile(tile) => self.tile(tile, head.size),
        }
    }

    fn tile(&self, tile: Tile, size: u64) -> Result<Option<Vec<u8>>, ReadError> {
        if width_at(tile.kind(), tile.index(), size) < tile.width() {
            return Ok(None);
        }
        let (reader, number) = (self.exchange.reader(), self.log.number());
        let width = usize::from(tile.width());
        match tile.kind() {
            TileKind::Entries => {
                // INVARIANT: below `size`, so that nothing overflows.
                let first = tile.index() * 256;
                let end = first + u64::from(tile.width());
                let mut entries: Vec<[u8; ENTRY_BYTES]> = Vec::with_capacity(width);
                reader.entries(number, first, end, &mut |entry| {
                    entries.extend(<[u8; ENTRY_BYTES]>::try_from(entry));
                })?;
                // INVARIANT: 1 to 256 entries of 118 bytes are a bundle.
                Ok(encode_entry_bundle(&entries).ok())
            }
            TileKind::Hashes(level) => {
                let hashes = reader.tile(number, level, tile.index())?;
                Ok(hashes.get(..width).map(<[Hash]>::concat))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn a_token_has_the_digest_of_the_vector() {
        let vector = include_str!("../../../tests/vectors/http/v1/token.json");
        let vector: serde_json::Value = serde_json::from_str(vector).unwrap();
        let token = vector["token"].as_str().unwrap();
        let digest = token_digest(token).unwrap();
        assert_eq!(hex::encode(digest), vector["digest"]);
        assert_eq!(token_id(&digest), vector["id"]);
        let upper = token.to_uppercase().replace("CST1_", "cst1_");
        for bad in [
            "",
            "cst1_",
            &token[..68],
            &format!("{token}0"),
            &token[5..],
            &upper,
        ] {
            assert_eq!(token_digest(bad), None, "{bad}");
        }
    }
}
