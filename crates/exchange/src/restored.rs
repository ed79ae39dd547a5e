//! A directory that may be an older copy of itself: streams are frozen until whoever has read them has said what it knows.
//!
//! ```text
//! opened elsewhere ── every own stream frozen─► AskLog to each reader ──► knows no more ──► released
//! opened at home  ── nothing frozen───────────►        (the same)    └──► knows more    ──► frozen, FetchBack, asked again
//! ```
//!
//! What is fetched back is verified against checkpoints of our own key, and extends what is here. Ledger logs are not shown to others, so that nobody can
//! say what they have lost.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use countersign_event::documents::RefusalCode;
use countersign_event::names::{Authority, Origin};
use countersign_protocol::delivery::{BatchMessage, Cover, LogReader};
use countersign_protocol::{AskLog, FetchBack, LogState};
use countersign_store::journal::LogKind;
use countersign_tlog::{Checkpoint, Note, TREE_SIZE_MAX, compact_range_at};

use crate::pipeline::append::AppendError;
use crate::pipeline::deliver::{BATCH_BYTES_MAX, BATCH_ENTRIES, gather};
use crate::{Exchange, ExchangeError, Log, Peer};

/// Why a stream takes no entries for the time being.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Freeze {
    /// Readers that have not said yet what they know.
    waiting: BTreeSet<Authority>,
    /// Somebody knows a checkpoint of so many entries, more than are here.
    behind: Option<u64>,
    /// Somebody has a checkpoint of our key that is not of this history.
    contradicted: bool,
}

impl Freeze {
    pub(crate) fn is_over(&self) -> bool {
        *self == Self::default()
    }

    /// What is waited for, and what would help.
    fn explain(&self, name: impl Fn(&Authority) -> String) -> String {
        if self.contradicted {
            return "this log has signed another history than the one here: it takes no more entries. `countersign stream create NEW --cites STREAM` begins a new one"
                .to_owned();
        }
        let mut parts = Vec::new();
        if let Some(size) = self.behind {
            parts.push(format!(
                "others know {size} entries of it, more than are here: the missing ones are fetched back from whoever holds them"
            ));
        }
        if !self.waiting.is_empty() {
            let names: Vec<String> = self.waiting.iter().map(name).collect();
            parts.push(format!(
                "this directory is a copy, or was moved: what {} knows of this log is awaited",
                names.join(", ")
            ));
        }
        parts.push(
            "until then it is readable; `countersign stream create NEW --cites STREAM` begins a new one instead"
                .to_owned(),
        );
        parts.join("; ")
    }
}

/// What a reader of ours knows, beside what is here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Heard {
    /// No more than is here.
    Known,
    /// More than is here.
    More {
        /// Whether it holds the entries too.
        held: bool,
    },
    /// Another history, under our own key.
    Contradicts,
}

impl Exchange {
    /// Freezes every stream of ours that others may have read: the directory lies elsewhere than where it was last used.
    pub fn freeze_streams(&self) {
        for log in self.logs() {
            let readers = self.readers_of(log.origin());
            if log.kind() == LogKind::Own && !readers.is_empty() {
                log.change_freeze(|freeze| freeze.waiting = readers);
            }
        }
    }

    /// Whether any stream is frozen.
    #[must_use]
    pub fn has_frozen_streams(&self) -> bool {
        self.logs().iter().any(|log| log.is_frozen())
    }

    /// Why a stream takes no entries for the time being, if that is so.
    #[must_use]
    pub fn why_frozen(&self, log: &Log) -> Option<String> {
        let freeze = log.freeze()?;
        let name = |authority: &Authority| {
            let registry = self.registry();
            let partner = registry.partners.get(authority);
            partner.map_or_else(
                || authority.to_string(),
                |known| known.statement.name.clone(),
            )
        };
        Some(freeze.explain(name))
    }

    /// The partners that have, or had, an agreement to read a log of ours.
    fn readers_of(&self, origin: &Origin) -> BTreeSet<Authority> {
        let own = self.identity().authority();
        let registry = self.registry();
        let agreements = registry.agreements.values();
        let of_stream = agreements.filter(|state| {
            state.agreement.stream == *origin && state.agreement.producer.authority == *own
        });
        let consumers = of_stream.map(|state| state.agreement.consumer.authority.clone());
        let there = |consumer: &Authority| {
            let known = registry.partners.get(consumer);
            known.is_some_and(|known| known.revoked.is_none())
        };
        consumers.filter(there).collect()
    }

    /// What a partner is asked about our own streams.
    #[must_use]
    pub fn questions_for(&self, partner: &Authority) -> Vec<AskLog> {
        let mut questions = Vec::new();
        for log in self.logs() {
            if log.kind() == LogKind::Own && self.readers_of(log.origin()).contains(partner) {
                questions.push(AskLog {
                    origin: log.origin().to_string(),
                    size: log.size(),
                });
            }
        }
        questions
    }

    /// Takes what a reader knows of a stream of ours.
    ///
    /// # Errors
    /// [`ExchangeError::Proof`] where the own tree cannot be read.
    pub fn hear(
        self: &Arc<Self>,
        partner: &Authority,
        origin: &Origin,
        state: &LogState,
    ) -> Result<Heard, ExchangeError> {
        let Some(log) = self.log(origin).filter(|log| log.kind() == LogKind::Own) else {
            return Ok(Heard::Known);
        };
        let vkeys = self.log_vkeys(origin);
        let note = Note::parse(&state.note).ok();
        // What our key did not sign says nothing about our log, whoever shows it.
        let signed = note.filter(|note| note.verify(&vkeys).is_ok());
        let known = signed.and_then(|note| Checkpoint::parse_text(note.text()).ok());
        let known = known.filter(|known| {
            known.origin == origin.as_str() && (1..=TREE_SIZE_MAX).contains(&known.size)
        });
        let heard = match known {
            None => Heard::Known,
            Some(known) if known.size > log.size() => Heard::More {
                held: state.held > log.size(),
            },
            Some(known) => {
                let nodes = self.reader().nodes(log.number());
                let ours = compact_range_at(&nodes, known.size)
                    .map_err(|error| ExchangeError::Proof(error.to_string()))?;
                if ours.root() == known.root {
                    Heard::Known
                } else {
                    Heard::Contradicts
                }
            }
        };
        let knows = state.held.max(match (&heard, Note::parse(&state.note)) {
            (Heard::More { .. }, Ok(note)) => {
                Checkpoint::parse_text(note.text()).map_or(0, |known| known.size)
            }
            _ => 0,
        });
        log.change_freeze(|freeze| match heard {
            Heard::Known => {
                freeze.waiting.remove(partner);
                freeze.behind = freeze.behind.filter(|size| *size > log.size());
            }
            Heard::More { .. } => {
                freeze.waiting.remove(partner);
                freeze.behind = freeze.behind.max(Some(knows));
            }
            Heard::Contradicts => freeze.contradicted = true,
        });
        match heard {
            Heard::Known => {}
            Heard::More { .. } => {
                tracing::warn!(%origin, %partner, knows, here = log.size(), "a partner knows more entries of a stream than are here");
            }
            Heard::Contradicts => {
                tracing::error!(%origin, %partner, "a partner has a checkpoint of our key that is not of the history here");
            }
        }
        Ok(heard)
    }

    /// A reader for entries of our own log that others hold: it goes on where ours ends, and accepts what our key has signed.
    #[must_use]
    pub fn fetching(&self, origin: &Origin) -> Option<(Arc<Log>, LogReader)> {
        let log = self.log(origin).filter(|log| log.kind() == LogKind::Own)?;
        let head = self.reader().head(log.number())?;
        let key = self.identity().log_key.public();
        let reader = LogReader::resume(
            origin.as_str(),
            key,
            head.range,
            head.last_leaf,
            head.last_time_us,
            None,
        );
        Some((log, reader))
    }

    /// Takes a batch of our own entries back.
    ///
    /// # Errors
    /// What is wrong with it, in words; or what failed here.
    pub async fn take_back(
        self: &Arc<Self>,
        log: &Arc<Log>,
        reader: &mut LogReader,
        message: BatchMessage,
        bulk: Bytes,
    ) -> Result<(), ExchangeError> {
        if !log.is_frozen() {
            return Err(ExchangeError::Proof(
                "entries are fetched back only while the stream is frozen".to_owned(),
            ));
        }
        let batch = reader
            .take(message, bulk)
            .map_err(|fault| ExchangeError::Proof(fault.to_string()))?;
        let taken = self.writer().queue_fetched(Arc::clone(log), batch).await;
        taken.await.unwrap_or_else(|_| Err(AppendError::ended()))?;
        log.change_freeze(|freeze| freeze.behind = freeze.behind.filter(|size| *size > log.size()));
        Ok(())
    }

    /// The batches of a copy that its owner has lost, from `from` on, as far as a checkpoint covers them that the copy holds whole.
    ///
    /// # Errors
    /// [`ExchangeError::Refused`] to anybody but the log's owner.
    pub fn open_fetch_back(
        self: &Arc<Self>,
        peer: &Peer,
        request: &FetchBack,
    ) -> Result<FetchedBack, ExchangeError> {
        let origin: Option<Origin> = request.origin.parse().ok();
        let of_peer = |origin: &Origin| peer.authority() == Some(&origin.authority());
        let copy = origin
            .filter(of_peer)
            .and_then(|origin| self.log(&origin))
            .filter(|log| log.kind() == LogKind::Copy);
        let Some(copy) = copy else {
            let reason = "only the owner of a log fetches its entries back, from a copy".to_owned();
            let code = RefusalCode::NotFound;
            return Err(self
                .refuse(peer, "fetch-back", &request.origin, code, reason)
                .into());
        };
        let held = self.reader().size(copy.number()).unwrap_or(0);
        let stored = self.reader().cover_at_or_before(copy.number(), held)?;
        let cover = stored.and_then(|stored| postcard::from_bytes::<Cover>(&stored.cover).ok());
        // A cover may reach beyond what is held: then the newest one within serves, or there is nothing that can be proven.
        let mut head = cover.map(|Cover::Checkpoint { head, .. }| head);
        let mut before = held;
        while let Some(beyond) = &head
            && beyond.size > held
            && before > 0
        {
            let stored = self
                .reader()
                .cover_at_or_before(copy.number(), before - 1)?;
            before = stored.as_ref().map_or(0, |stored| stored.size);
            let cover = stored.and_then(|stored| postcard::from_bytes::<Cover>(&stored.cover).ok());
            head = cover.map(|Cover::Checkpoint { head, .. }| head);
        }
        Ok(FetchedBack {
            exchange: Arc::clone(self),
            head: head.filter(|head| head.size <= held),
            next: request.from,
            copy,
        })
    }
}

/// Entries on their way back to their owner.
#[derive(Debug)]
pub struct FetchedBack {
    exchange: Arc<Exchange>,
    copy: Arc<Log>,
    head: Option<countersign_protocol::SignedHead>,
    next: u64,
}

impl FetchedBack {
    /// The next batch; `None` at the end of what can be proven.
    ///
    /// # Errors
    /// [`ExchangeError`] where the copy cannot be read.
    pub fn next_batch(&mut self) -> Result<Option<(BatchMessage, Vec<Bytes>)>, ExchangeError> {
        let Some(head) = self.head.clone().filter(|head| self.next < head.size) else {
            return Ok(None);
        };
        let count = (head.size - self.next).min(BATCH_ENTRIES);
        let gathered = gather(
            &self.exchange,
            &self.copy,
            self.next,
            count,
            BATCH_BYTES_MAX,
            &head,
        )?;
        self.next += u64::from(gathered.message.count);
        Ok(Some((gathered.message, gathered.bulk)))
    }
}
