//! The checkpoint is signed by a key that the organization delegated to logs.

use countersign_crypto::{Hash, PublicKey};
use countersign_event::documents::{Role, RoleKey};
use countersign_event::names::Origin;
use countersign_event::time::Timestamp;
use countersign_tlog::checkpoint::open_checkpoint;
use countersign_tlog::{Algorithm, Checkpoint, CheckpointError, Note, NoteError, Vkey};

use super::content::Genesis;
use super::keys::{Keys, Organization};
use super::revocations::Revoked;
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

/// A checkpoint that was opened, and where it lies.
pub(crate) struct Signed<'a> {
    pub(crate) origin: &'a Origin,
    /// What of that log was signed, for people.
    pub(crate) what: String,
    pub(crate) vkey: &'a Vkey,
    pub(crate) file: &'a str,
    /// The evidence is about entries below it.
    pub(crate) to: u64,
    /// The roots of its tree at other sizes and its own, as far as they are known.
    pub(crate) root_at: &'a dyn Fn(u64) -> Option<Hash>,
    /// When enough witnesses had cosigned it, where somebody asked for them.
    pub(crate) witnessed: Option<Timestamp>,
    pub(crate) weight: Weight,
}

/// What depends on a checkpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Weight {
    /// The evidence stands on it.
    Full,
    /// Another checkpoint, which counts, begins with its tree.
    Covered,
    /// The evidence accuses whoever signed it: contradicting what the organization says is the point of it.
    Accused,
}

/// A checkpoint with the known keys that have signed it: two while one follows the other.
pub(crate) struct Opened {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) origin: Origin,
    signers: Vec<Vkey>,
}

impl Opened {
    /// A checkpoint that each of `signers` has signed: at least one.
    pub(crate) fn new(checkpoint: Checkpoint, origin: Origin, signers: Vec<Vkey>) -> Self {
        debug_assert!(!signers.is_empty());
        Self {
            checkpoint,
            origin,
            signers,
        }
    }

    /// The known keys that signed it.
    pub(crate) fn signers(&self) -> &[Vkey] {
        &self.signers
    }

    /// The key to judge it by: of those that have signed it the one that counts most.
    pub(crate) fn signer(&self, time: InForce, keys: &Keys, trust: &Trust) -> &Vkey {
        let rank = |vkey: &&Vkey| {
            let organization = keys.of(&self.origin.authority());
            let delegation =
                organization.map(|organization| delegation(organization, vkey.key(), time));
            let revoked = keys.judge_revoked(&self.origin, vkey.key(), u64::MAX, &|_| None);
            let good = revoked == Revoked::Not;
            (delegation, good, trust.admits_log(vkey))
        };
        // INVARIANT: opened by at least one key.
        let best = self.signers.iter().max_by_key(rank);
        best.unwrap_or(&self.signers[0])
    }
}

/// What the key statements say of a key.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Delegation {
    Never,
    /// It was a log key at the time that is known; the newest statement here no longer has it, and nothing says when it signed.
    Retired,
    InForce,
}

fn delegation(organization: &Organization, key: &PublicKey, time: InForce) -> Delegation {
    let not_over =
        |time: Timestamp, until: Option<Timestamp>| until.is_none_or(|until| time < until);
    let is_it = |stated: &&RoleKey| stated.key == *key;
    match time {
        InForce::At(time) => {
            let mut then = organization.keys_at(Role::Log, time).filter(is_it);
            return match then.any(|key| key.from <= time && not_over(time, key.until)) {
                true => Delegation::InForce,
                false => Delegation::Never,
            };
        }
        InForce::NotOverBy(time) => {
            // A checkpoint of this time or later: what was stated before the statement of that time no longer counts.
            let stated = organization.statements_from(time);
            let mut stated = stated
                .flat_map(|statement| statement.keys_for(Role::Log))
                .filter(is_it)
                .peekable();
            if stated.peek().is_none() || !stated.all(|key| not_over(time, key.until)) {
                return Delegation::Never;
            }
        }
        InForce::Whenever => {
            if !organization.keys_ever(Role::Log).any(|key| is_it(&key)) {
                return Delegation::Never;
            }
        }
    }
    let newest = organization.newest();
    let kept = newest.is_some_and(|newest| {
        let mut now = newest.keys_for(Role::Log).filter(is_it);
        now.any(|key| not_over(newest.made, key.until))
    });
    if kept {
        Delegation::InForce
    } else {
        Delegation::Retired
    }
}

/// When the key that signed a checkpoint has to have been in force.
#[derive(Clone, Copy)]
pub(crate) enum InForce {
    /// At the time of the log's last entry here, which is that of the checkpoint.
    At(Timestamp),
    /// The checkpoint is of this time or later: the key had not ended before.
    NotOverBy(Timestamp),
    /// Nothing here tells the time.
    Whenever,
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
            fault(
                &log.origin,
                &file_of(log),
                error.to_string(),
                Severity::False,
                found,
            );
            return None;
        }
    };
    if checkpoint.size != log.size {
        let what = format!(
            "it covers {} entries, and the manifest says that the log has {}",
            checkpoint.size, log.size
        );
        fault(&log.origin, &file_of(log), what, Severity::False, found);
        return None;
    }
    Some(checkpoint)
}

/// Judges the key itself, once the log has told its time.
pub(crate) fn judge_key(
    log: &LogEntry,
    vkey: &Vkey,
    (opened, walked): (&Checkpoint, &Walked),
    witnessed: Option<Timestamp>,
    keys: &Keys,
    trust: &Trust,
    found: &mut Collector<'_>,
) -> Standing {
    if let Some(genesis) = &walked.genesis {
        let organization = keys.of(&log.origin.authority());
        if let Some(what) = judge_genesis(log, genesis, organization) {
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
    let signed = Signed {
        origin: &log.origin,
        what: entries(log.size),
        vkey,
        file: &file_of(log),
        to: log.to,
        root_at: &roots_of(opened, walked),
        witnessed,
        weight: Weight::Full,
    };
    // The checkpoint of a range that ends before it was signed at some later time.
    let time = match log.to == log.size {
        true => InForce::At(walked.last_time),
        false => InForce::NotOverBy(walked.last_time),
    };
    judge_signer(&signed, time, keys, trust, found)
}

/// The roots of a checkpoint's tree that are known once its entries were walked.
pub(crate) fn roots_of<'a>(
    opened: &'a Checkpoint,
    walked: &'a Walked,
) -> impl Fn(u64) -> Option<Hash> + 'a {
    move |size| match size == opened.size {
        true => Some(opened.root),
        false => walked.states.get(&size).map(|state| state.root),
    }
}

/// Judges the key that signed a checkpoint.
pub(crate) fn judge_signer(
    signed: &Signed<'_>,
    time: InForce,
    keys: &Keys,
    trust: &Trust,
    found: &mut Collector<'_>,
) -> Standing {
    let Signed {
        origin,
        what: signed_what,
        vkey,
        file,
        ..
    } = signed;
    let pinned = trust.admits_log(vkey);
    let revoked = keys.judge_revoked(origin, vkey.key(), signed.to, signed.root_at);
    signed.say_revoked(revoked, found);
    let Some(organization) = keys.of(&origin.authority()) else {
        let severity = if pinned {
            Severity::Note
        } else {
            Severity::Missing
        };
        let what = format!("no key statement of {} is here", origin.authority());
        fault(origin, file, what, severity, found);
        if pinned {
            found.done(
                Check::Checkpoint,
                format!("{signed_what} of {origin}, signed by the key that you trust"),
            );
            return Standing::Trusted;
        }
        return Standing::Untrusted;
    };
    let fingerprint = organization.key.fingerprint();
    let delegation = delegation(organization, vkey.key(), time);
    let before = |time: Timestamp| signed.witnessed.is_some_and(|witnessed| witnessed < time);
    let vouched = revoked == Revoked::Vouched
        || signed.weight == Weight::Covered
        || organization.let_go(vkey.key()).is_some_and(before);
    if delegation == Delegation::Retired && !vouched {
        let what = format!(
            "its key is one that {fingerprint} has retired since, and nothing here says when it signed"
        );
        fault(origin, file, what, Severity::Missing, found);
    }
    if delegation == Delegation::Never {
        let when = match time {
            InForce::At(time) | InForce::NotOverBy(time) => format!(" at {time}"),
            InForce::Whenever => String::new(),
        };
        let what = format!("its key is not one that {fingerprint} had delegated to logs{when}");
        fault(origin, file, what, Severity::False, found);
        return Standing::Untrusted;
    }
    let what = format!("{signed_what} of {origin}, signed by a log key of {fingerprint}");
    found.done(Check::Checkpoint, what);
    if pinned || organization.trusted {
        Standing::Trusted
    } else {
        Standing::Untrusted
    }
}

impl Signed<'_> {
    /// Says what keeps the checkpoint from counting, where its key was revoked.
    fn say_revoked(&self, revoked: Revoked, found: &mut Collector<'_>) {
        let before = |time: Timestamp| self.witnessed.is_some_and(|witnessed| witnessed < time);
        let (severity, what) = match revoked {
            Revoked::Not | Revoked::Vouched => return,
            Revoked::Contradicted(_, size) if self.weight != Weight::Accused => (
                Severity::False,
                format!(
                    "its key was revoked, and the revocation names another root of {size} entries"
                ),
            ),
            // Who took part in what was witnessed cannot disown it afterwards.
            Revoked::Since(time) | Revoked::Contradicted(time, _) if before(time) => return,
            Revoked::Since(_) if self.weight == Weight::Covered => return,
            Revoked::Since(time) | Revoked::Contradicted(time, _) => (
                Severity::Missing,
                format!(
                    "its key was revoked at {time}, and nothing here shows that the organization signed it: neither a head that the revocation names nor witnesses before"
                ),
            ),
        };
        fault(self.origin, self.file, what, severity, found);
    }
}

/// Opens a checkpoint with whichever known key has signed it: a log key of the organization that its origin names, or a vkey that the auditor
/// trusts. Says what is false, or missing.
pub(crate) fn open_by_any(
    note: &[u8],
    file: &str,
    keys: &Keys,
    trust: &Trust,
    found: &mut Collector<'_>,
) -> Option<Opened> {
    let mut say = |severity, what: String| {
        found.push(Finding {
            check: Check::Checkpoint,
            severity,
            log: None,
            sequence: None,
            file: Some(file.to_owned()),
            what,
        });
        None
    };
    let parsed = Note::parse(note).map_err(CheckpointError::from);
    let parsed = parsed.and_then(|note| Ok((Checkpoint::parse_text(note.text())?, note)));
    let (checkpoint, note) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return say(Severity::False, error.to_string()),
    };
    let Ok(origin) = checkpoint.origin.parse::<Origin>() else {
        return say(
            Severity::False,
            "its origin is not one that a log of Countersign has".to_owned(),
        );
    };
    let known = known_keys(&origin, keys, trust);
    let signers = match note.verify(&known) {
        Ok(signers) => signers.into_iter().cloned().collect(),
        Err(NoteError::NoKnownKey) => return say(Severity::Missing, no_known_key(&origin)),
        // One bad line in the name of a known key spoils the note, wherever the line stands.
        Err(error) => return say(Severity::False, error.to_string()),
    };
    Some(Opened::new(checkpoint, origin, signers))
}

/// The keys that may sign for a log: log keys of the organization that its origin names, and the vkeys that the auditor trusts.
pub(crate) fn known_keys(origin: &Origin, keys: &Keys, trust: &Trust) -> Vec<Vkey> {
    let of_organization = keys
        .of(&origin.authority())
        .into_iter()
        .flat_map(|organization| organization.keys_ever(Role::Log))
        .filter_map(|key| Vkey::new(origin.as_str(), Algorithm::Ed25519, key.key).ok());
    let pinned = trust
        .vkeys()
        .iter()
        .filter(|vkey| vkey.algorithm() == Algorithm::Ed25519 && vkey.name() == origin.as_str());
    let mut known: Vec<Vkey> = Vec::new();
    for vkey in of_organization.chain(pinned.cloned()) {
        if !known.contains(&vkey) {
            known.push(vkey);
        }
    }
    known
}

/// That none of them has signed.
pub(crate) fn no_known_key(origin: &Origin) -> String {
    let authority = origin.authority();
    format!(
        "no key is known that has signed it: neither a key statement of {authority} nor a vkey of this log is here or trusted"
    )
}

/// So many entries, for people.
pub(crate) fn entries(size: u64) -> String {
    format!("{size} entries")
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
    organization: Option<&Organization>,
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
    let named = PublicKey::from_base64(&data.organization).ok();
    let knows = |organization: &Organization| named.is_some_and(|key| organization.knows(&key));
    if organization.is_some_and(|organization| !knows(organization)) {
        return Some("the genesis entry names another organization key than the key statement");
    }
    None
}

/// Where a log's checkpoint lies in a bundle.
pub(crate) fn file_of(log: &LogEntry) -> String {
    format!("{}log/checkpoint", log.path)
}

fn fault(origin: &Origin, file: &str, what: String, severity: Severity, found: &mut Collector<'_>) {
    found.push(Finding {
        check: Check::Checkpoint,
        severity,
        log: Some(origin.to_string()),
        sequence: None,
        file: Some(file.to_owned()),
        what,
    });
}
