//! Who cosigned a checkpoint, when, and whether these are enough for whoever judges (`schemas/witness-policy.md`).

use countersign_event::documents::Role;
use countersign_event::names::Origin;
use countersign_event::time::Timestamp;
use countersign_tlog::cosignature_v1;
use countersign_tlog::policy::{Policy, Witnessed};
use countersign_tlog::{Algorithm, Note, NoteSignature, Vkey};

use super::keys::Keys;
use crate::report::{Check, Collector, Cosigner, Finding, Quorum, Severity, WitnessReport};
use crate::trust::Trust;

/// A checkpoint that was opened: its form and the log's signature hold.
pub(crate) struct Cosigned<'a> {
    pub(crate) origin: &'a Origin,
    pub(crate) size: u64,
    pub(crate) note: &'a [u8],
    pub(crate) file: &'a str,
    /// Whether this is the log that the evidence is about.
    pub(crate) main: bool,
}

/// What follows where a quorum is not met.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Demand {
    /// The evidence is not whole without it.
    Quorum,
    /// Another checkpoint stands for this one: false lines count, missing ones do not.
    NoQuorum,
    /// Nothing: what was signed stays signed, whoever cosigned it.
    Nothing,
}

/// Judges the cosignatures on a checkpoint. Returns the time by which the quorums of all policies about the log were met, where any asks for one.
pub(crate) fn judge(
    cosigned: &Cosigned<'_>,
    demand: Demand,
    keys: &Keys,
    trust: &Trust,
    found: &mut Collector<'_>,
) -> Option<Timestamp> {
    // It was opened: it is a note.
    let note = Note::parse(cosigned.note).ok()?;
    let policies: Vec<&Policy> = trust
        .policies()
        .iter()
        .filter(|policy| is_about(policy, cosigned))
        .collect();
    if policies.is_empty() {
        cosigned.tell(&note, keys, found);
        let why = if trust.policies().is_empty() {
            "nobody said which witnesses count"
        } else {
            "no policy that you gave is about this log"
        };
        found.skipped(Check::Witnesses, why);
        return None;
    }
    let mut bound = None;
    let mut all_met = true;
    for policy in policies {
        match policy.judge(&note) {
            Ok(witnessed) => {
                cosigned.say(policy, &witnessed, demand, found);
                all_met &= witnessed.met;
                bound = bound.max(witnessed.met_by_seconds.map(time));
            }
            Err(error) => {
                all_met = false;
                let severity = match demand {
                    Demand::Quorum | Demand::NoQuorum => Severity::False,
                    Demand::Nothing => Severity::Note,
                };
                cosigned.push(severity, error.to_string(), found);
            }
        }
    }
    bound.filter(|_| all_met)
}

fn is_about(policy: &Policy, cosigned: &Cosigned<'_>) -> bool {
    // By name, not by key: else a log would escape the policy by signing with another of its keys.
    let origin = cosigned.origin.as_str();
    let named = policy.logs().iter().any(|vkey| vkey.name() == origin);
    named || (policy.logs().is_empty() && cosigned.main)
}

impl Cosigned<'_> {
    fn say(
        &self,
        policy: &Policy,
        witnessed: &Witnessed,
        demand: Demand,
        found: &mut Collector<'_>,
    ) {
        let Self { origin, size, .. } = self;
        let by: Vec<Cosigner> = witnessed
            .by
            .iter()
            .map(|one| {
                Cosigner::new(
                    &policy.witnesses()[one.witness].vkey,
                    time(one.time_seconds),
                )
            })
            .collect();
        let who = listed(&by);
        let not_later_than = witnessed.met_by_seconds.map(time);
        match (not_later_than, witnessed.met) {
            (Some(time), _) => found.done(
                Check::Witnesses,
                format!(
                    "{size} entries of {origin} existed by {time}: cosigned by {who}, which meets the quorum of your policy"
                ),
            ),
            (None, true) => found.done(
                Check::Witnesses,
                format!("{size} entries of {origin}: your policy asks for no witness; cosigned by {who}"),
            ),
            (None, false) if demand == Demand::Quorum => {
                let what = format!("the quorum of your policy is not met: cosigned by {who}");
                self.push(Severity::Missing, what, found);
            }
            (None, false) => {
                let what = format!("{size} entries: cosigned by {who}");
                self.push(Severity::Note, what, found);
            }
        }
        let quorum = match (policy.asks_for_witnesses(), witnessed.met) {
            (false, _) => Quorum::None,
            (true, true) => Quorum::Met,
            (true, false) => Quorum::Missed,
        };
        self.report(by, quorum, not_later_than, found);
    }

    /// Tells of cosignatures by keys that key statements here call witness keys. Whoever made the evidence chose these: they prove nothing to somebody who has
    /// not said that they count.
    fn tell(&self, note: &Note, keys: &Keys, found: &mut Collector<'_>) {
        let mut by = Vec::new();
        for line in note.signatures() {
            for (vkey, organization) in witness_keys(line, keys) {
                let name = vkey.name();
                match cosignature_v1::verify(note.text(), line, &vkey) {
                    Ok(seconds) => {
                        let time = time(seconds);
                        let what = format!(
                            "{} entries, witnessed not later than {time} by `{name}`, a witness key of {organization}",
                            self.size
                        );
                        self.push(Severity::Note, what, found);
                        by.push(Cosigner::new(&vkey, time));
                    }
                    Err(error) => {
                        let what =
                            format!("a line by `{name}`, a witness key of {organization}: {error}");
                        self.push(Severity::Note, what, found);
                    }
                }
            }
        }
        if !by.is_empty() {
            self.report(by, Quorum::Unasked, None, found);
        }
    }

    fn report(
        &self,
        by: Vec<Cosigner>,
        quorum: Quorum,
        not_later_than: Option<Timestamp>,
        found: &mut Collector<'_>,
    ) {
        found.witnessed(WitnessReport {
            log: self.origin.to_string(),
            size: self.size,
            by,
            quorum,
            not_later_than: not_later_than.map(|time| time.to_string()),
        });
    }

    fn push(&self, severity: Severity, what: String, found: &mut Collector<'_>) {
        found.push(Finding {
            check: Check::Witnesses,
            severity,
            log: Some(self.origin.to_string()),
            sequence: None,
            file: Some(self.file.to_owned()),
            what,
        });
    }
}

/// The witness keys here whose line this claims to be, with the organizations that state them. The line's name is taken as it is: the key id binds it to the key.
fn witness_keys<'k>(
    line: &'k NoteSignature,
    keys: &'k Keys,
) -> impl Iterator<Item = (Vkey, String)> + 'k {
    keys.organizations().iter().flat_map(move |organization| {
        let mut stated: Vec<Vkey> = organization
            .keys_ever(Role::Witness)
            .filter_map(|key| Vkey::new(line.name(), Algorithm::CosignatureV1, key.key).ok())
            .filter(|vkey| line.names(vkey))
            .collect();
        // A key that two statements list is one key.
        stated.dedup();
        let fingerprint = organization.key.fingerprint().to_string();
        stated
            .into_iter()
            .map(move |vkey| (vkey, fingerprint.clone()))
    })
}

fn listed(by: &[Cosigner]) -> String {
    if by.is_empty() {
        return "nobody".to_owned();
    }
    let each = by.iter().map(|one| format!("{} at {}", one.name, one.time));
    each.collect::<Vec<_>>().join(", ")
}

fn time(seconds: u64) -> Timestamp {
    Timestamp(seconds.saturating_mul(1_000_000))
}
