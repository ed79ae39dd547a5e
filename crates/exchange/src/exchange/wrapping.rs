//! Giving the keys of encrypted streams to who may read, and no longer to who may not.

use std::sync::Arc;

use countersign_event::data::DataPart;
use countersign_event::documents::{AgreementId, Document as _, KeyWrap, Role, Step, StepKind};
use countersign_event::dsse::Envelope;
use countersign_event::encryption::Encryption;
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::{Authority, Origin};

use countersign_store::journal::Run;
use serde::Deserialize;

use super::{Exchange, ExchangeError, StreamError};
use crate::log::Log;
use crate::pipeline::append::AppendError;

impl Exchange {
    /// Who can read the data of a log, as its genesis says; of a copy too.
    #[must_use]
    pub fn encryption_of(&self, log: &Log) -> Encryption {
        if log.is_own_stream() {
            return log.settings().encryption;
        }
        let Ok(runs) = self.reader.read(log.number(), 0, 1, u64::MAX) else {
            return Encryption::None;
        };
        let stored = runs.iter().flat_map(Run::iter).next();
        let genesis = stored.and_then(|stored| {
            DataPart::decode(stored.data_part())
                .ok()
                .map(|part| part.data.to_vec())
        });
        let said = genesis.and_then(|json| serde_json::from_slice::<Genesis>(&json).ok());
        said.map_or(Encryption::None, |said| said.encryption)
    }

    /// Begins a new epoch of an encrypted stream of ours: what was given to anybody opens nothing that is sealed from now on. Returns the epoch.
    ///
    /// # Errors
    /// [`StreamError`], [`AppendError`].
    pub async fn rotate(&self, stream: &str) -> Result<u64, ExchangeError> {
        let log = self.own_stream(stream)?;
        if !log.is_encrypted() {
            return Err(StreamError::NotEncrypted {
                name: stream.to_owned(),
            }
            .into());
        }
        let begun = self.writer.begin_epoch(log).await;
        Ok(begun
            .unwrap_or_else(|_| Err(AppendError::ended()))?
            .last_sequence)
    }

    /// Where a record ends somebody's access, new epochs begin. Called on the writer's thread, before the next commit is put together.
    pub(super) fn exclude_ended(&self, record: &LedgerRecord) {
        let about: Vec<Origin> = match record {
            LedgerRecord::Termination { envelope } => {
                let end = Envelope::from_json(envelope.as_bytes())
                    .ok()
                    .and_then(|envelope| {
                        countersign_event::documents::Termination::peek(&envelope).ok()
                    });
                end.map(|end| end.stream).into_iter().collect()
            }
            LedgerRecord::AgreementStep { envelope } => {
                let stops =
                    |step: &Step| matches!(step.step, StepKind::Complete | StepKind::Suspend);
                let step = Envelope::from_json(envelope.as_bytes())
                    .ok()
                    .and_then(|envelope| Step::peek(&envelope).ok());
                step.filter(stops)
                    .map(|step| step.stream)
                    .into_iter()
                    .collect()
            }
            LedgerRecord::Revocation { partner, .. } => {
                let registry = self.registry();
                let agreements = registry.agreements.values();
                agreements
                    .filter(|state| state.agreement.consumer.authority == *partner)
                    .map(|state| state.agreement.stream.clone())
                    .collect()
            }
            _ => return,
        };
        for log in about.iter().filter_map(|origin| self.log(origin)) {
            self.rekey(log);
        }
    }

    /// Where time ends somebody's access, new epochs begin too: agreements that expire, and those that end or stop by a document that was dated ahead of its coming.
    pub(super) fn exclude_expired(&self, ids: &[AgreementId]) {
        let now = self.clock.now();
        let over: Vec<(Authority, Origin)> = {
            let registry = self.registry();
            let held = ids.iter().filter_map(|id| registry.agreements.get(id));
            let terms = held.filter(|state| !state.is_active(now));
            let terms = terms.map(|state| &state.agreement);
            let over = terms.map(|terms| (&terms.consumer.authority, &terms.stream));
            // Whoever reads on under another agreement keeps its keys.
            over.filter(|(consumer, stream)| {
                registry.active_agreement(consumer, stream, now).is_none()
            })
            .map(|(consumer, stream)| (consumer.clone(), stream.clone()))
            .collect()
        };
        for (consumer, stream) in over {
            if let Some(log) = self.log(&stream) {
                self.exclude(&consumer, &log, None);
            }
        }
    }

    /// A new epoch of a stream of ours, where `consumer` was given the key of the one that stands or is to come. `given` is the newest epoch of which it was given the
    /// key on a session, of which the ledger may not know yet.
    pub(crate) fn exclude(&self, consumer: &Authority, log: &Arc<Log>, given: Option<u64>) {
        if !log.is_own_stream() || !log.is_encrypted() {
            return;
        }
        let known = {
            let registry = self.registry();
            let key = |epoch| (consumer.clone(), log.origin().clone(), epoch);
            let theirs = registry.wraps.range(key(0)..=key(u64::MAX)).next_back();
            theirs.map(|((.., epoch), _)| *epoch)
        };
        // An epoch begins at or behind the size that the log had when it was asked for: who holds no key from there on reads nothing from then on. So an end by a record,
        // which began one, does not begin another.
        if known
            .max(given)
            .is_some_and(|given| log.epoch_asked_at() <= given)
        {
            self.rekey(Arc::clone(log));
        }
    }

    /// A new epoch with the next commit, where the stream is ours and encrypted.
    fn rekey(&self, log: Arc<Log>) {
        if log.is_own_stream() && log.is_encrypted() && !log.wants_epoch() {
            // Nobody waits for it: whatever is sealed next begins it, if this does not.
            drop(self.writer.begin_epoch(log));
        }
    }

    /// The key of an epoch of a stream of ours, wrapped to a partner: the wrap it was given before, or a new one, which goes to its ledger. `None` where its key statement names
    /// no encryption key, or the key cannot be had.
    pub(crate) fn wrap_for(
        self: &Arc<Self>,
        consumer: &Authority,
        log: &Log,
        epoch: u64,
    ) -> Option<Envelope> {
        let now = self.clock.now();
        let (to, given) = {
            let registry = self.registry();
            let statement = &registry.partners.get(consumer)?.statement;
            // Of several that hold now, the one that began last.
            let to = statement
                .keys_for(Role::Encryption)
                .filter(|key| key.from <= now && key.until.is_none_or(|until| now < until))
                .max_by_key(|key| key.from)?
                .key;
            let key = (consumer.clone(), log.origin().clone(), epoch);
            let given = registry.wraps.get(&key);
            let given = given.filter(|given| given.wrap.wrapped.key == to);
            (to, given.map(|given| given.envelope.clone()))
        };
        if given.is_some() {
            return given;
        }
        let (wrapped, commitment) = self
            .keyring
            .wrap(log.number(), log.origin(), epoch, &to)
            .inspect_err(|error| {
                tracing::error!(%error, stream = %log.origin(), epoch, "the key of an epoch cannot be given to a partner");
            })
            .ok()?;
        let wrap = KeyWrap {
            stream: log.origin().clone(),
            epoch,
            commitment,
            by: self.identity().authority().clone(),
            to: consumer.clone(),
            wrapped,
            made: now,
        };
        let envelope = wrap.sign(&self.identity().agreement_key);
        let text = String::from_utf8(envelope.to_json()).unwrap_or_default();
        self.record_lazily(
            Some(consumer.clone()),
            LedgerRecord::KeyWrap { envelope: text },
        );
        Some(envelope)
    }
}

/// What is read of a genesis.
#[derive(Deserialize)]
struct Genesis {
    #[serde(default)]
    encryption: Encryption,
}
