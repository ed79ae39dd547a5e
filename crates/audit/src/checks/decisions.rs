//! Each decision follows from its policies and facts.

use std::collections::BTreeMap;

use countersign_crypto::{Hash, sha256};
use countersign_event::ledger::LedgerRecord;
use countersign_event::names::Origin;
use countersign_policy::{PolicyId, PolicySet, Request};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::documents::{Judged, is_false, is_missing};
use super::files::PolicyText;
use crate::files::{BundleFile, BundleFiles};
use crate::manifest::{DECISION_BYTES_MAX, DECISIONS};
use crate::report::{Check, Collector, Finding, Severity};

/// Bytes read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Where a decision is said to lie, and the SHA-256 of its record.
pub(crate) struct Placed {
    pub(crate) ledger: Origin,
    pub(crate) sequence: u64,
    pub(crate) record: Hash,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    ledger: Origin,
    sequence: u64,
    #[serde(borrow)]
    record: &'a RawValue,
}

/// Checks the policy texts, then each decision. Gives where the decisions lie.
pub(crate) fn check(
    files: &BundleFiles,
    origin: &Origin,
    policies: Vec<PolicyText>,
    has_decisions: bool,
    found: &mut Collector<'_>,
) -> Vec<Placed> {
    let sets = load(policies, found);
    if !has_decisions {
        found.skipped(Check::Decisions, "no decision is here");
        return Vec::new();
    }
    let mut judge = Judge {
        origin,
        sets,
        found,
        placed: Vec::new(),
        replayed: 0,
    };
    let read = match files.file(DECISIONS) {
        Err(fault) => Err(fault.to_string()),
        Ok(file) => for_each_line(&file, &mut |number, line| judge.line(number, line)),
    };
    let (placed, replayed) = (judge.placed, judge.replayed);
    if let Err(what) = read {
        push(found, Severity::False, DECISIONS, what);
    }
    let what = format!(
        "{replayed} of {} decisions made again, with the same answer",
        placed.len()
    );
    found.done(Check::Decisions, what);
    placed
}

fn push(found: &mut Collector<'_>, severity: Severity, path: &str, what: String) {
    found.push(Finding {
        check: Check::Decisions,
        severity,
        log: None,
        sequence: None,
        file: Some(path.to_owned()),
        what,
    });
}

/// The policy sets whose texts have the digest that they lie under.
fn load(policies: Vec<PolicyText>, found: &mut Collector<'_>) -> BTreeMap<Hash, PolicySet> {
    let mut texts: BTreeMap<Hash, Vec<(String, String)>> = BTreeMap::new();
    for policy in policies {
        texts
            .entry(policy.set)
            .or_default()
            .push((policy.file, policy.text));
    }
    let mut sets = BTreeMap::new();
    for (digest, files) in texts {
        let path = format!("policies/{}", hex::encode(digest));
        match PolicySet::load(&files) {
            Err(error) => push(found, Severity::False, &path, error.to_string()),
            Ok(set) if set.digest() != digest => {
                let what = "the policy texts do not have the digest that they lie under".to_owned();
                push(found, Severity::False, &path, what);
            }
            Ok(set) => {
                sets.insert(digest, set);
            }
        }
    }
    sets
}

struct Judge<'a, 'c> {
    origin: &'a Origin,
    sets: BTreeMap<Hash, PolicySet>,
    found: &'a mut Collector<'c>,
    placed: Vec<Placed>,
    replayed: u64,
}

impl Judge<'_, '_> {
    fn line(&mut self, number: u64, line: &[u8]) {
        if let Err((severity, what)) = self.judge(line) {
            push(
                self.found,
                severity,
                DECISIONS,
                format!("line {}: {what}", number + 1),
            );
        }
    }

    fn judge(&mut self, line: &[u8]) -> Judged<()> {
        let parsed: Line<'_> = serde_json::from_slice(line).or_else(|error| {
            is_false(format!("it is not well-formed (column {})", error.column()))
        })?;
        if line.trim_ascii_start().first() != Some(&b'{') {
            return is_false("it is not an object".to_owned());
        }
        let record = parsed.record.get().as_bytes();
        self.placed.push(Placed {
            ledger: parsed.ledger,
            sequence: parsed.sequence,
            record: sha256(record),
        });
        self.replay(record)?;
        self.replayed += 1;
        Ok(())
    }

    /// Makes a decision again.
    fn replay(&self, record: &[u8]) -> Judged<()> {
        let Ok(LedgerRecord::Decision {
            principal,
            action,
            stream,
            allowed,
            policies,
            policy_digest,
            errors,
            facts,
            ..
        }) = LedgerRecord::from_json(record)
        else {
            return is_false("it is no decision".to_owned());
        };
        if stream != *self.origin {
            return is_false(format!("it is about another log, {stream}"));
        }
        let Some(set) = self.sets.get(&policy_digest.0) else {
            let digest = hex::encode(policy_digest.0);
            return is_missing(format!("the policies {digest} that decided are not here"));
        };
        let Ok(request) = serde_json::from_str::<Request>(&facts) else {
            return is_missing(
                "its facts are not those of a request: it was not made again".to_owned(),
            );
        };
        let same_principal = principal.starts_with("app:")
            || request.principal.organization().authority == principal;
        if request.action.name() != action
            || request.resource.origin != stream.as_str()
            || !same_principal
        {
            return is_false("its facts are those of another question".to_owned());
        }
        let decision = set.decide(&request);
        // Revocation stands above the policies: who is neither our own nor a partner any more may get a no from any of them.
        let organization = request.principal.organization();
        let may_be_revoked = !allowed && !organization.own && !organization.partner;
        if decision.allowed != allowed && !may_be_revoked {
            let word = |allowed| if allowed { "yes" } else { "no" };
            return is_false(format!(
                "the policies answer {} to these facts, and the record says {}",
                word(decision.allowed),
                word(allowed)
            ));
        }
        let determining = decision.determining.iter().map(PolicyId::as_str);
        if !determining.eq(policies.iter().map(String::as_str)) || decision.errors != errors {
            return is_false(
                "the policies give the same answer for another reason than the record says"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

/// Calls `each` with every line, without its line feed.
fn for_each_line(file: &BundleFile<'_>, each: &mut dyn FnMut(u64, &[u8])) -> Result<(), String> {
    let mut buffer: Vec<u8> = Vec::new();
    let (mut offset, mut number) = (0, 0);
    while offset < file.bytes() {
        let take = usize::try_from(file.bytes() - offset)
            .map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        let kept = buffer.len();
        buffer.resize(kept + take, 0);
        file.read_exact_at(offset, &mut buffer[kept..])
            .map_err(|fault| format!("it cannot be read: {fault}"))?;
        offset += take as u64;
        let mut begin = 0;
        while let Some(length) = buffer[begin..].iter().position(|byte| *byte == b'\n') {
            each(number, &buffer[begin..begin + length]);
            number += 1;
            begin += length + 1;
        }
        buffer.drain(..begin);
        if buffer.len() >= DECISION_BYTES_MAX {
            return Err(format!(
                "line {} has more than {DECISION_BYTES_MAX} bytes",
                number + 1
            ));
        }
    }
    if buffer.is_empty() {
        Ok(())
    } else {
        Err("its last line does not end in a line feed".to_owned())
    }
}
