//! Events for an outsider: opened where we can open them, and sealed to its key (`schemas/jwe.md`).

use std::ops::Range;

use countersign_crypto::{Entropy, OsEntropy};
use countersign_event::cloudevents::to_json;
use countersign_event::content::{ContentError, EventRef, check_content};
use countersign_event::entry::{Entry, Kind};
use countersign_event::jwe::{About, Recipient, seal};
use countersign_exchange::{KeyFault, Log};
use countersign_store::journal::StoredEntry;
use serde_json::json;

use super::erasure::Gap;
use super::{LocalNode, exchange_error, internal};
use crate::admin::Out;
use crate::errors::{CommandError, ErrorCode};

/// Entries read at once.
const PAGE: u64 = 512;

/// Bytes of content read at once, but for one event that is larger.
const PAGE_BYTES: u64 = 4 << 20;

/// Entries of a stream, and for whom.
pub(super) struct ForOutsider {
    pub(super) stream: String,
    /// First sequence.
    pub(super) from: u64,
    /// First sequence not taken; absent: all that there are.
    pub(super) to: Option<u64>,
    /// The recipient's JWK.
    pub(super) recipient: String,
}

impl LocalNode {
    /// One line for each event; control entries say nothing that an outsider is given. What cannot be opened ends it: an event without its data is not one.
    pub(super) async fn stream_jwe(
        &self,
        what: ForOutsider,
        out: &mut Out,
    ) -> Result<(), CommandError> {
        let recipient = Recipient::from_jwk(&what.recipient).map_err(|error| {
            let message = format!("the recipient's key is not used: {error}");
            CommandError::new(ErrorCode::Usage, message)
        })?;
        let origin = self.stream(&what.stream)?;
        let log = self.log(&origin)?;
        let size = log.size();
        let end = what.to.unwrap_or(size);
        if what.from >= end || end > size {
            let message = format!(
                "`{origin}` has {size} entries: there is no range from {} to {end}",
                what.from
            );
            return Err(CommandError::new(ErrorCode::Usage, message));
        }
        let mut entropy = OsEntropy::new().map_err(internal)?;
        let sealed = self
            .jwe_range(&log, what.from..end, (&recipient, &mut entropy), out)
            .await?;
        if sealed == 0 {
            let message = format!(
                "`{origin}` has no event with content from {} on to {end}",
                what.from
            );
            return Err(CommandError::new(ErrorCode::NotFound, message));
        }
        Ok(())
    }

    /// How many events there were.
    async fn jwe_range(
        &self,
        log: &Log,
        range: Range<u64>,
        (recipient, entropy): (&Recipient, &mut OsEntropy),
        out: &mut Out,
    ) -> Result<u64, CommandError> {
        let (mut next, mut sealed) = (range.start, 0);
        let mut gap: Option<Gap> = None;
        while next < range.end {
            let count = PAGE.min(range.end - next);
            let runs = self
                .exchange
                .reader()
                .read(log.number(), next, count, PAGE_BYTES)
                .map_err(|error| exchange_error(error.into()))?;
            let before = next;
            for stored in runs.iter().flat_map(|run| run.iter()) {
                next = stored.sequence + 1;
                if let Some(by) = stored.erased_by {
                    let continues = |gap: &mut Gap| gap.extend(stored.sequence, by);
                    if !gap.as_mut().is_some_and(continues)
                        && let Some(gap) = gap.replace(Gap::of(stored.sequence, by))
                    {
                        out.line(gap.line(self, log)?).await?;
                    }
                    continue;
                }
                if let Some(gap) = gap.take() {
                    out.line(gap.line(self, log)?).await?;
                }
                if let Some(jwe) = self.jwe_of(log, &stored, recipient, entropy)? {
                    sealed += 1;
                    out.item(&json!({ "sequence": stored.sequence, "jwe": jwe }))
                        .await?;
                }
            }
            if next == before {
                let origin = log.origin();
                return Err(internal(format_args!(
                    "entry {next} of `{origin}` could not be read"
                )));
            }
        }
        if let Some(gap) = gap.take() {
            out.line(gap.line(self, log)?).await?;
        }
        Ok(sealed)
    }

    /// `None` of a control entry.
    fn jwe_of(
        &self,
        log: &Log,
        stored: &StoredEntry<'_>,
        recipient: &Recipient,
        entropy: &mut dyn Entropy,
    ) -> Result<Option<String>, CommandError> {
        let entry = Entry::decode(stored.entry).map_err(internal)?;
        if entry.kind == Kind::Control {
            return Ok(None);
        }
        let leaf = countersign_tlog::leaf_hash(stored.entry);
        let mut to_recipient = |event: &EventRef<'_>| {
            let about = About {
                origin: log.origin().as_str(),
                sequence: stored.sequence,
                leaf: &leaf,
                withheld: event.data().view().map(|view| view.withheld()),
            };
            seal(&to_json(event), &about, recipient, entropy).map_err(internal)
        };
        let attribute_bytes = stored.attribute_bytes as usize;
        let jwe = match check_content(&entry, stored.content, attribute_bytes) {
            Ok(event) => to_recipient(&event)?,
            Err(ContentError::Encrypted) => {
                let keyring = self.exchange.keyring();
                let opened = keyring.open(log.number(), log.origin(), stored);
                let opened = opened.map_err(|fault| not_opened(log, stored.sequence, &fault))?;
                to_recipient(&opened.as_ref())?
            }
            Err(error) => {
                let (sequence, origin) = (stored.sequence, log.origin());
                let message = format!("entry {sequence} of `{origin}` is damaged: {error}");
                return Err(CommandError::new(ErrorCode::LogDamaged, message));
            }
        };
        Ok(Some(jwe))
    }
}

fn not_opened(log: &Log, sequence: u64, fault: &KeyFault) -> CommandError {
    let code = match fault {
        KeyFault::NoKeyEntry { .. } | KeyFault::NoWrap { .. } => ErrorCode::Sealed,
        KeyFault::Read(_) => ErrorCode::Io,
        KeyFault::Ciphertext | KeyFault::Event(_) | KeyFault::Unwrap(_) => {
            ErrorCode::VerificationFailed
        }
    };
    let origin = log.origin();
    let message = format!("entry {sequence} of `{origin}` cannot be opened here: {fault}");
    CommandError::new(code, message)
}
