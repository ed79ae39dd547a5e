//! Whose signatures the events of a stream bear: the rule of each stream, and how readers judge by it.
//!
//! A rule begins at genesis or at a settings entry and holds for the events behind it. Streams of ours refuse by it at ingest; of a partner's stream the
//! copy keeps what came, and what breaks the rule is a fault in the ledger: the log has committed to it, and holding back would help nobody.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};

use countersign_event::author::AuthorFault;
use countersign_event::content::{EventRef, Limits, split_content};
use countersign_event::control::{AUTHOR_KEYS_MAX, AuthorRule, SETTINGS, Settings};
use countersign_event::entry::ENTRY_BYTES;
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::Origin;
use countersign_protocol::delivery::VerifiedBatch;

use crate::pipeline::ledger::seal_control_entry;
use crate::{Exchange, ExchangeError, Log, StreamError};

/// Changes of a rule that are kept of one stream. A producer that changes it more often is read on; its later keys are not known here.
const CHANGES_MAX: usize = 256;

/// The code of a fault that an author's signature is.
const AUTHOR_SIGNATURE: &str = "author-signature";

/// The rules of all streams, by the sequence from which each holds.
#[derive(Clone, Debug, Default)]
pub struct AuthorBook(HashMap<Origin, BTreeMap<u64, Arc<AuthorRule>>>);

impl AuthorBook {
    pub(crate) fn apply(&mut self, stream: &Origin, sequence: u64, rule: AuthorRule) {
        let changes = self.0.entry(stream.clone()).or_default();
        if changes.len() < CHANGES_MAX || changes.contains_key(&sequence) {
            changes.insert(sequence, Arc::new(rule));
        }
    }

    /// The rule for the event at a sequence.
    #[must_use]
    pub fn rule_at(&self, stream: &Origin, sequence: u64) -> Option<Arc<AuthorRule>> {
        let changes = self.0.get(stream)?;
        let (_, rule) = changes.range(..=sequence).next_back()?;
        Some(Arc::clone(rule))
    }
}

impl Exchange {
    /// The rule for the event at a sequence of a stream, ours or a partner's; `None` where it has none.
    #[must_use]
    pub fn author_rule(&self, log: &Log, sequence: u64) -> Option<Arc<AuthorRule>> {
        let recorded = self.registry().authors.rule_at(log.origin(), sequence);
        recorded.or_else(|| log.settings().author.clone().map(Arc::new))
    }

    /// Sets whose signatures a stream of ours knows, and whether each event from now on has to bear one.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn set_author_rule(
        self: &Arc<Self>,
        stream: &str,
        rule: AuthorRule,
    ) -> Result<(), ExchangeError> {
        check_rule(&rule)?;
        let log = self.own_stream(stream)?;
        // Nothing is judged by the old rule and queued behind the entry that ends it.
        let _alone = self.author_rules().write().await;
        self.writer().flush().await;
        let settings = Settings {
            author: Some(rule.clone()),
            ..Settings::default()
        };
        let json = serde_json::to_string(&settings).unwrap_or_default();
        // A crash between the two leaves a rule that is applied and that readers do not see: the command is given again.
        let record = LedgerRecord::AuthorRule {
            stream: log.origin().clone(),
            sequence: log.size(),
            keys: rule.keys,
            required: rule.required,
        };
        self.record_and_wait(None, record).await?;
        let sealed = self
            .with_entropy(|entropy| seal_control_entry(log.origin(), SETTINGS, &json, entropy))?;
        self.writer().append_and_wait(log, sealed, None).await?;
        Ok(())
    }

    /// Notes the rules that a batch of a partner's stream sets.
    ///
    /// # Errors
    /// [`ExchangeError`] where the ledger cannot be written.
    pub(crate) async fn note_author_rules(
        self: &Arc<Self>,
        stream: &Origin,
        batch: &VerifiedBatch,
    ) -> Result<(), ExchangeError> {
        for (sequence, rule) in batch.author_rules() {
            let known = self.registry().authors.rule_at(stream, *sequence);
            if known.as_deref() == Some(rule) {
                continue;
            }
            let record = LedgerRecord::AuthorRule {
                stream: stream.clone(),
                sequence: *sequence,
                keys: rule.keys.clone(),
                required: rule.required,
            };
            // At once, as its own events are shown by it; telling it twice changes nothing.
            self.registry
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .apply(&record);
            // Before the batch is queued: it is never durable without its rule.
            self.queue_record(None, record).await?;
        }
        Ok(())
    }

    /// Says in the ledger that an event is not as its author, or the stream's rule, has it.
    pub(crate) fn note_author_fault(
        self: &Arc<Self>,
        stream: &Origin,
        sequence: u64,
        fault: &AuthorFault,
    ) {
        tracing::warn!(%stream, sequence, %fault, "an event is not what its author signed");
        let record = LedgerRecord::Fault {
            code: AUTHOR_SIGNATURE.to_owned(),
            detail: format!("entry {sequence}: {fault}"),
            stream: Some(stream.clone()),
            // The copy keeps the event itself.
            evidence: None,
        };
        self.record_lazily(Some(stream.authority()), record);
    }

    /// The first event of a batch that is not as its author, or the stream's rule, has it.
    pub(crate) fn author_fault(
        &self,
        stream: &Origin,
        batch: &VerifiedBatch,
    ) -> Option<(u64, AuthorFault)> {
        let begin = self.registry().authors.rule_at(stream, batch.first());
        let required = |rule: &AuthorRule| rule.required;
        let is_asked = begin.as_deref().is_some_and(required)
            || batch.author_rules().iter().any(|(_, rule)| required(rule))
            || batch.is_author_signed();
        if !is_asked {
            return None;
        }
        let mut offset = 0_usize;
        let entries = batch.entries().as_chunks::<ENTRY_BYTES>().0.iter();
        for ((entry, lengths), sequence) in entries.zip(batch.lengths()).zip(batch.first()..) {
            let end = offset + usize::try_from(lengths.content_bytes()).unwrap_or(usize::MAX);
            let content = batch.content().get(offset..end)?;
            offset = end;
            // Control entries have no authors; what is encrypted is judged where it is opened.
            if lengths.is_absent() || entry[1] & 0x1f != 0 {
                continue;
            }
            let rule = self.registry().authors.rule_at(stream, sequence);
            let rule = rule.unwrap_or_default();
            // Committed to and checked a moment ago.
            let attribute_bytes = lengths.attribute_bytes as usize;
            let (_, attributes, data_part) = split_content(content, attribute_bytes).ok()?;
            let event = EventRef::check(attributes, data_part, &Limits::FORMAT).ok()?;
            if let Err(fault) = rule.judge(&event) {
                return Some((sequence, fault));
            }
        }
        None
    }
}

/// Whether a rule can be set.
pub(crate) fn check_rule(rule: &AuthorRule) -> Result<(), StreamError> {
    let lacks_keys = rule.required && rule.keys.is_empty();
    if lacks_keys || rule.keys.len() > AUTHOR_KEYS_MAX {
        return Err(StreamError::AuthorKeys);
    }
    Ok(())
}
