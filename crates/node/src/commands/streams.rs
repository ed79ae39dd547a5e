//! Streams: making, listing, reading.

use std::sync::Arc;
use std::time::Duration;

use countersign_audit::COSE_PROOF;
use countersign_crypto::PublicKey;
use countersign_event::content::{ContentError, check_content};
use countersign_event::documents::Role;
use countersign_event::entry::{Entry, Kind};
use countersign_event::names::Origin;
use countersign_event::time::Timestamp;
use countersign_exchange::{Log, StreamOptions, WitnessedHead};
use countersign_filter::Filter;
use countersign_store::journal::{LogKind, StoredEntry};
use countersign_tlog::{Algorithm, Vkey};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::erasure::Gap;
use super::jwe::ForOutsider;
use super::{LocalNode, exchange_error, internal};
use crate::admin::{Command, Out, StartAt};
use crate::errors::{CommandError, ErrorCode};
use crate::event_line::{EventPlace, event_line, sealed_line};
use crate::evidence::{
    Shown, ask_for_timestamp, attach_timestamp, prove_event, prove_event_in_cose, provenance,
};

/// Entries read at once while showing a log.
const PAGE: u64 = 512;

/// How long it is waited for the newest entries to be witnessed, where nobody follows.
const WITNESSED: Duration = Duration::from_secs(5);

/// How often a stream that is not here yet is looked for.
const LOOK: Duration = Duration::from_millis(200);

/// When more is witnessed; never, where nobody asked for it.
async fn changed(
    witnessed: Option<&mut watch::Receiver<Option<Arc<WitnessedHead>>>>,
) -> Result<(), watch::error::RecvError> {
    match witnessed {
        Some(witnessed) => witnessed.changed().await,
        None => std::future::pending().await,
    }
}

struct Reading {
    origin: Origin,
    from: Option<StartAt>,
    count: Option<u64>,
    follow: bool,
    app: Option<String>,
    control: bool,
    /// Only what passes.
    filter: Option<Filter>,
    /// Only what is witnessed.
    witnessed: bool,
}

impl LocalNode {
    pub(super) async fn on_stream(
        &self,
        command: Command,
        out: &mut Out,
    ) -> Result<(), CommandError> {
        match command {
            Command::StreamAccess { stream, open } => {
                let log = self.exchange.own_stream(&stream);
                let log = log.map_err(|error| exchange_error(error.into()))?;
                self.exchange
                    .set_log_access(log.origin(), open)
                    .await
                    .map_err(exchange_error)?;
                let mut value = json!({ "stream": stream });
                self.add_published(&log, &mut value);
                out.value(&value).await
            }
            Command::StreamCreate {
                stream,
                title,
                labels,
                fields,
                author,
                cites,
                encryption,
                epoch_entries,
                epoch_seconds,
            } => {
                let name = stream
                    .parse()
                    .map_err(|error| CommandError::new(ErrorCode::Usage, error))?;
                let cites = cites.map(|cites| cites.parse()).transpose();
                let options = StreamOptions {
                    title,
                    labels,
                    event_bytes_max: 0,
                    cites: cites.map_err(|error| CommandError::new(ErrorCode::Usage, error))?,
                    author,
                    encryption,
                    epoch_entries,
                    epoch_seconds,
                    fields,
                };
                if encryption.is_none() && (epoch_entries, epoch_seconds) != (0, 0) {
                    let message =
                        "only an encrypted stream has epochs; add `--encryption partners`";
                    return Err(CommandError::new(ErrorCode::Usage, message));
                }
                let log = self
                    .exchange
                    .create_stream(&name, options)
                    .await
                    .map_err(exchange_error)?;
                out.value(&self.stream_value(&log)).await
            }
            Command::StreamAuthors { stream, set } => {
                if let Some(rule) = set {
                    let done = self.exchange.set_author_rule(&stream, rule).await;
                    done.map_err(exchange_error)?;
                }
                let log = self.log(&self.stream(&stream)?)?;
                let mut value = json!({ "stream": stream });
                self.add_authors(&log, &mut value);
                out.value(&value).await
            }
            Command::StreamRotate { stream } => {
                let epoch = self.exchange.rotate(&stream).await;
                let epoch = epoch.map_err(exchange_error)?;
                out.value(&json!({ "stream": stream, "epoch": epoch }))
                    .await
            }
            Command::StreamInfo { stream } => {
                let log = self.log(&self.stream(&stream)?)?;
                out.value(&self.stream_info(&log)).await
            }
            Command::StreamLs => {
                let logs = self.exchange.logs();
                let streams = logs.iter().filter(|log| log.kind() != LogKind::Ledger);
                out.value(
                    &streams
                        .map(|log| self.stream_value(log))
                        .collect::<Vec<_>>(),
                )
                .await
            }
            Command::StreamTail {
                stream,
                count,
                follow,
            } => {
                let origin = self.stream(&stream)?;
                let size = self.log(&origin)?.size();
                let from = Some(StartAt::Sequence(size.saturating_sub(count)));
                self.read(
                    Reading {
                        origin,
                        from,
                        count: None,
                        follow,
                        app: None,
                        control: true,
                        filter: None,
                        witnessed: false,
                    },
                    out,
                )
                .await
            }
            Command::Subscribe {
                stream,
                from,
                count,
                follow,
                app,
                filter,
                witnessed,
            } => {
                let origin = self.stream(&stream)?;
                let filter = filter.as_deref().map(Filter::from_canonical).transpose();
                let filter =
                    filter.map_err(|error| CommandError::new(ErrorCode::FilterSyntax, error))?;
                self.read(
                    Reading {
                        origin,
                        from,
                        count,
                        follow,
                        app,
                        control: false,
                        filter,
                        witnessed,
                    },
                    out,
                )
                .await
            }
            Command::CursorApplied { app, stream, next } => {
                let origin = self.stream(&stream)?;
                let size = self.log(&origin)?.size();
                // It could never be written to the ledger, and would keep every other cursor from it.
                if next > size {
                    let message =
                        format!("`{origin}` has {size} entries: nothing was read up to {next}");
                    return Err(CommandError::new(ErrorCode::Usage, message));
                }
                self.applied(&app, &origin, next);
                Ok(())
            }
            Command::StreamConsistency {
                stream,
                old,
                new,
                out: path,
            } => {
                let origin = self.stream(&stream)?;
                let sizes = (old, new);
                let path = std::path::Path::new(&path);
                let proven =
                    crate::evidence::prove_growth(&self.exchange, &origin, sizes, path).await;
                out.value(&proven?).await
            }
            Command::StreamProof {
                stream,
                sequence,
                timestamped,
                fields,
                out: path,
            } => {
                let origin = self.stream(&stream)?;
                let path = std::path::Path::new(&path);
                // The name says which form it is, as it does to whoever verifies it.
                let shown = Shown { sequence, fields };
                let is_cose = path.extension().is_some_and(|found| found == COSE_PROOF);
                let proven = match is_cose {
                    true => prove_event_in_cose(&self.exchange, &origin, shown, path).await,
                    false => {
                        let what = (shown, timestamped);
                        prove_event(&self.exchange, &origin, what, path).await
                    }
                };
                out.value(&proven?).await
            }
            Command::StreamProvenance {
                stream,
                from,
                to,
                out: path,
            } => {
                let origin = self.stream(&stream)?;
                let path = std::path::Path::new(&path);
                let written = provenance(&self.exchange, &origin, (from, to), path).await;
                out.value(&written?).await
            }
            Command::StreamJwe {
                stream,
                from,
                to,
                recipient,
            } => {
                let what = ForOutsider {
                    stream,
                    from,
                    to,
                    recipient,
                };
                self.stream_jwe(what, out).await
            }
            Command::EvidenceTimestampAttach {
                stream,
                checkpoint,
                token,
            } => {
                let origin = self.stream(&stream)?;
                let given = (checkpoint.as_str(), token.as_str());
                let attached = attach_timestamp(&self.exchange, &origin, given).await;
                out.value(&attached?).await
            }
            Command::EvidenceTimestampQuery {
                stream,
                size,
                out: path,
            } => {
                let origin = self.stream(&stream)?;
                let path = std::path::Path::new(&path);
                let asked = ask_for_timestamp(&self.exchange, &origin, size, path).await;
                out.value(&asked?).await
            }
            Command::EvidenceExport {
                stream,
                from,
                to,
                out: path,
            } => {
                let origin = self.stream(&stream)?;
                self.log(&origin)?;
                let path = std::path::PathBuf::from(path);
                let summary =
                    crate::evidence::export(&self.exchange, &origin, from, to, &path).await;
                out.value(&summary.map_err(super::export_error)?).await
            }
            _ => Err(internal("not a command about streams")),
        }
    }

    pub(super) fn log(&self, origin: &Origin) -> Result<Arc<Log>, CommandError> {
        self.exchange.log(origin).ok_or_else(|| {
            CommandError::new(
                ErrorCode::NotFound,
                format_args!("there is no stream `{origin}` here"),
            )
            .advise("`countersign stream ls` lists them")
        })
    }

    /// How people write the stream: its name, with the partner's before it where it is a copy.
    pub(super) fn stream_name(&self, origin: &Origin) -> String {
        let name = origin
            .stream()
            .map(|name| name.to_string())
            .unwrap_or_default();
        let authority = origin.authority();
        if authority == *self.exchange.identity().authority() {
            return name;
        }
        format!("{}/{name}", self.partner_name(&authority))
    }

    fn stream_value(&self, log: &Log) -> Value {
        let head = log.head();
        json!({
            "name": self.stream_name(log.origin()),
            "kind": match log.kind() {
                LogKind::Own => "own",
                LogKind::Copy => "copy",
                LogKind::Ledger => "ledger",
            },
            "size": head.size,
            "time": (head.size > 0).then(|| Timestamp(head.last_time_us).to_rfc3339()),
            "origin": log.origin(),
            "title": log.settings().title,
            "encryption": self.exchange.encryption_of(log).as_str(),
        })
    }

    fn stream_info(&self, log: &Log) -> Value {
        let head = log.head();
        let mut value = self.stream_value(log);
        value["root"] = hex::encode(head.root).into();
        value["labels"] = log.settings().labels.clone().into();
        value["event_bytes_max"] = self.exchange.event_bytes_max(log.settings()).into();
        if let Some(signed) = head.signed() {
            value["signed_size"] = signed.size.into();
        }
        let statuses = self.exchange.statuses();
        let subscriptions = statuses
            .iter()
            .filter(|status| status.stream == *log.origin());
        value["subscriptions"] = subscriptions
            .map(|status| self.subscription_value(status))
            .collect();
        value["assurance"] = self.assurance(log);
        if let Some(why) = self.exchange.why_frozen(log) {
            value["frozen"] = why.into();
        }
        if let Some(cites) = &log.settings().cites {
            value["cites"] = json!(cites);
        }
        if let Some(key) = self.log_key(log) {
            value["log_key"] = key.fingerprint().to_string().into();
            let vkey = Vkey::new(log.origin().as_str(), Algorithm::Ed25519, key);
            value["log_vkey"] = vkey.ok().map(|vkey| vkey.to_string()).into();
        }
        self.add_retention(log, &mut value);
        self.add_authors(log, &mut value);
        if log.kind() == LogKind::Own {
            let fields = log.settings().fields;
            value["commit"] = if fields { "fields" } else { "whole" }.into();
            self.add_published(log, &mut value);
        }
        value
    }

    /// Whose signatures the newest events of a stream bear.
    fn add_authors(&self, log: &Log, value: &mut Value) {
        let rule = self.exchange.author_rule(log, u64::MAX);
        let rule = rule.as_deref().filter(|rule| !rule.keys.is_empty());
        let word = match rule {
            None => "none known",
            Some(rule) if rule.required => "required",
            Some(_) => "known",
        };
        value["authors"] = word.into();
        if let Some(rule) = rule {
            let keys = rule.keys.iter();
            value["author_keys"] = keys
                .map(|key| format!("{} {}", key.fingerprint(), key.to_base64()))
                .collect();
        }
    }

    /// Where the published log of a stream of ours is, and who may read it.
    fn add_published(&self, log: &Log, value: &mut Value) {
        let name = self.stream_name(log.origin());
        let open = self.exchange.registry().open_logs.contains(log.origin());
        value["log_access"] = if open { "open" } else { "closed" }.into();
        let door = self.server.as_ref().and_then(|server| server.http);
        let place = door.map_or_else(String::new, |door| format!("http://{door}"));
        value["log_url"] = format!("{place}/logs/{name}/").into();
    }

    fn log_key(&self, log: &Log) -> Option<PublicKey> {
        let authority = log.origin().authority();
        if authority == *self.exchange.identity().authority() {
            return Some(self.exchange.identity().log_key.public());
        }
        let registry = self.exchange.registry();
        let key = registry
            .partners
            .get(&authority)?
            .statement
            .keys_for(Role::Log)
            .next()?
            .key;
        Some(key)
    }

    async fn read(&self, reading: Reading, out: &mut Out) -> Result<(), CommandError> {
        let Some(log) = self.wait_for(&reading).await? else {
            return Ok(());
        };
        let mut next = self.start(&log, &reading)?;
        let mut left = reading.count.unwrap_or(u64::MAX);
        let mut gap: Option<Gap> = None;
        let mut heads = log.watch();
        // Made only where it is needed: it says that somebody waits.
        let mut witnessed = reading.witnessed.then(|| log.watch_witnessed());
        if let Some(witnessed) = witnessed.as_mut().filter(|_| !reading.follow) {
            // Up to where the stream is witnessed is asked for as long as somebody waits for it.
            let newest = log.size();
            let far = |head: &Option<Arc<WitnessedHead>>| {
                head.as_ref().is_some_and(|head| head.size >= newest)
            };
            let _ = tokio::time::timeout(WITNESSED, witnessed.wait_for(far)).await;
        }
        while left > 0 {
            let mut size = heads.borrow_and_update().size;
            if let Some(witnessed) = &mut witnessed {
                let cosigned = witnessed.borrow_and_update();
                size = size.min(cosigned.as_ref().map_or(0, |head| head.size));
            }
            while next < size && left > 0 {
                let runs = self
                    .exchange
                    .reader()
                    .read(log.number(), next, PAGE.min(size - next), 4 << 20)
                    .map_err(|error| exchange_error(error.into()))?;
                let before = next;
                for stored in runs.iter().flat_map(|run| run.iter()) {
                    next = stored.sequence + 1;
                    if let Some(by) = stored.erased_by {
                        let continues = |gap: &mut Gap| gap.extend(stored.sequence, by);
                        if !gap.as_mut().is_some_and(continues)
                            && let Some(gap) = gap.replace(Gap::of(stored.sequence, by))
                        {
                            out.line(gap.line(self, &log)?).await?;
                        }
                        continue;
                    }
                    if let Some(gap) = gap.take() {
                        out.line(gap.line(self, &log)?).await?;
                    }
                    let passes = |filter: &Filter| filter.matches(stored.attributes());
                    if !reading.filter.as_ref().is_none_or(passes) {
                        continue;
                    }
                    let Some(line) = self.line_of(&log, &stored, reading.control)? else {
                        continue;
                    };
                    out.line(line).await?;
                    left -= 1;
                    if left == 0 {
                        break;
                    }
                }
                if next == before {
                    return Err(internal(format_args!(
                        "entry {next} of `{}` could not be read",
                        log.origin()
                    )));
                }
            }
            if let Some(gap) = gap.take() {
                out.line(gap.line(self, &log)?).await?;
            }
            if !reading.follow || left == 0 {
                break;
            }
            let more = tokio::select! {
                changed = heads.changed() => changed,
                changed = changed(witnessed.as_mut()) => changed,
            };
            if more.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// A copy begins with its first batch; whoever follows waits for it.
    async fn wait_for(&self, reading: &Reading) -> Result<Option<Arc<Log>>, CommandError> {
        let own = self.exchange.identity().authority().clone();
        let agreed = || {
            let registry = self.exchange.registry();
            let mut agreements = registry.agreements.values();
            agreements.any(|state| {
                state.agreement.stream == reading.origin
                    && state.agreement.consumer.authority == own
            })
        };
        loop {
            if let Some(log) = self.exchange.log(&reading.origin) {
                return Ok(Some(log));
            }
            if !agreed() {
                return self.log(&reading.origin).map(Some);
            }
            if !reading.follow {
                return Ok(None);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn start(&self, log: &Log, reading: &Reading) -> Result<u64, CommandError> {
        let size = log.size();
        if let Some(app) = &reading.app
            && reading.from.is_none()
        {
            return self.cursor(log, app);
        }
        match reading.from {
            None | Some(StartAt::Start) => Ok(0),
            Some(StartAt::Now) => Ok(size),
            Some(StartAt::Sequence(sequence)) => Ok(sequence.min(size)),
            Some(StartAt::Time(time_us)) => self
                .exchange
                .first_at(log, size, time_us)
                .map_err(exchange_error),
        }
    }

    /// Where an application left off, if the log still is the one that it read.
    fn cursor(&self, log: &Log, app: &str) -> Result<u64, CommandError> {
        if let Some(next) = self.pending_cursor(app, log.origin()) {
            return Ok(next);
        }
        let key = (app.to_owned(), log.origin().clone());
        let Some((next, leaf)) = self.exchange.registry().cursors.get(&key).copied() else {
            return Ok(0);
        };
        let ours = match next.checked_sub(1) {
            None => [0; 32],
            Some(last) if last < log.size() => self
                .exchange
                .reader()
                .leaf_hash(log.number(), last)
                .map_err(|error| exchange_error(error.into()))?,
            Some(_) => [0xff; 32],
        };
        if ours == leaf {
            return Ok(next);
        }
        let message = format!(
            "`{}` does not continue what `{app}` has read: it was re-created or restored",
            log.origin()
        );
        Err(CommandError::new(ErrorCode::CursorMismatch, message)
            .advise("read on from a place of your choice with --from"))
    }

    fn line_of(
        &self,
        log: &Log,
        stored: &StoredEntry<'_>,
        control: bool,
    ) -> Result<Option<String>, CommandError> {
        let entry = Entry::decode(stored.entry).map_err(internal)?;
        if entry.kind == Kind::Control && !control {
            return Ok(None);
        }
        let place = EventPlace {
            sequence: stored.sequence,
            time: entry.time,
            leaf: countersign_tlog::leaf_hash(stored.entry),
            control: entry.kind == Kind::Control,
        };
        // Looked up where it is needed only.
        let signed = entry.flags.author_signed;
        let rule = signed.then(|| self.exchange.author_rule(log, stored.sequence));
        let rule = rule.flatten();
        let line = match check_content(&entry, stored.content, stored.attribute_bytes as usize) {
            Ok(event) => event_line(&place, &event, rule.as_deref()),
            Err(ContentError::Encrypted) => {
                let keyring = self.exchange.keyring();
                match keyring.open(log.number(), log.origin(), stored) {
                    Ok(event) => event_line(&place, &event.as_ref(), rule.as_deref()),
                    // Shown as far as it can be: who reads on gets every position.
                    Err(fault) => sealed_line(&place, stored.attributes(), &fault.to_string()),
                }
            }
            Err(error) => {
                let (sequence, origin) = (stored.sequence, log.origin());
                let message = format!("entry {sequence} of `{origin}` is damaged: {error}");
                return Err(CommandError::new(ErrorCode::LogDamaged, message));
            }
        };
        line.map(Some).map_err(internal)
    }
}
