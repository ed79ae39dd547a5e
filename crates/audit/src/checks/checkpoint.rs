//! The checkpoint is signed by a key that the organization delegated to logs.

use countersign_event::documents::Role;
use countersign_tlog::checkpoint::open_checkpoint;
use countersign_tlog::{Checkpoint, Vkey};

use super::content::Genesis;
use super::keys::Keys;
use crate::manifest::LogEntry;
use crate::report::{Check, Collector, Finding, Severity};
use crate::trust::Trust;
use crate::walk::Walked;

const GENESIS_TYPE: &str = "dev.countersign.control.genesis.v1";

/// How far a log's key is trusted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Standing {
    /// From outside.
    Trusted,
    /// Nobody said that the key is right.
    Untrusted,
}

/// Opens a log's checkpoint with the key that is said to have signed it.
pub(crate) fn open(
    log: &LogEntry,
    note: Option<&Vec<u8>>,
    vkey: Option<&Vkey>,
    found: &mut Collector<'_>,
) -> Option<Checkpoint> {
    let (Some(note), Some(vkey)) = (note, vkey) else {
        found.skipped(Check::Checkpoint, "checkpoint or key cannot be read");
        return None;
    };
    let checkpoint = match open_checkpoint(note, vkey) {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            fault(log, error.to_string(), Severity::False, found);
            return None;
        }
    };
    if checkpoint.size != log.size {
        let what = format!(
            "it covers {} entries, and the manifest says that the log has {}",
            checkpoint.size, log.size
        );
        fault(log, what, Severity::False, found);
        return None;
    }
    Some(checkpoint)
}

/// Judges the key itself, once the log has told its time.
pub(crate) fn judge_key(
    log: &LogEntry,
    vkey: &Vkey,
    walked: &Walked,
    keys: &Keys,
    trust: &Trust,
    found: &mut Collector<'_>,
) -> Standing {
    let pinned = trust.admits_log(vkey);
    let time = walked.last_time;
    let organization = keys.of(&log.origin.authority());
    if let Some(genesis) = &walked.genesis {
        let key = organization.map(|organization| organization.key.to_base64());
        if let Some(what) = judge_genesis(log, genesis, key) {
            found.push(Finding {
                check: Check::Checkpoint,
                severity: Severity::False,
                log: Some(log.origin.to_string()),
                sequence: Some(0),
                file: None,
                what: what.to_owned(),
            });
        }
    }
    let Some(organization) = organization else {
        let severity = if pinned {
            Severity::Note
        } else {
            Severity::Missing
        };
        let what = format!("no key statement of {} is here", log.origin.authority());
        fault(log, what, severity, found);
        if pinned {
            found.done(
                Check::Checkpoint,
                format!(
                    "{} entries of {}, signed by the key that you trust",
                    log.size, log.origin
                ),
            );
            return Standing::Trusted;
        }
        return Standing::Untrusted;
    };
    let delegated = organization.keys_at(Role::Log, time).any(|key| {
        key.key == *vkey.key() && key.from <= time && key.until.is_none_or(|until| time < until)
    });
    let fingerprint = organization.key.fingerprint();
    if !delegated {
        let what = format!("its key is not one that {fingerprint} had delegated to logs at {time}");
        fault(log, what, Severity::False, found);
        return Standing::Untrusted;
    }
    let what = format!(
        "{} entries of {}, signed by a log key of {fingerprint}",
        log.size, log.origin
    );
    found.done(Check::Checkpoint, what);
    if pinned || organization.trusted {
        Standing::Trusted
    } else {
        Standing::Untrusted
    }
}

/// The members of a genesis entry that bind a log to its organization.
#[derive(serde::Deserialize)]
struct GenesisData {
    origin: String,
    organization: String,
}

/// Says what is wrong with the first entry of a log.
fn judge_genesis(
    log: &LogEntry,
    genesis: &Genesis,
    organization: Option<String>,
) -> Option<&'static str> {
    if !genesis.control || genesis.event_type != GENESIS_TYPE {
        return Some("the first entry of the log is no genesis entry");
    }
    let Ok(data) = serde_json::from_slice::<GenesisData>(&genesis.data) else {
        return Some("the genesis entry does not say whose log it begins");
    };
    if data.origin != log.origin.as_str() {
        return Some("the genesis entry begins another log");
    }
    if organization.is_some_and(|key| key != data.organization) {
        return Some("the genesis entry names another organization key than the key statement");
    }
    None
}

fn fault(log: &LogEntry, what: String, severity: Severity, found: &mut Collector<'_>) {
    found.push(Finding {
        check: Check::Checkpoint,
        severity,
        log: Some(log.origin.to_string()),
        sequence: None,
        file: Some(format!("{}log/checkpoint", log.path)),
        what,
    });
}
