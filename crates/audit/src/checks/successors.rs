//! A ledger log of a later generation goes on where the one that it cites ends (`schemas/ledger.md`, "Successors").

use std::collections::{BTreeMap, BTreeSet};

use countersign_crypto::Hash;
use countersign_event::documents::Digest;
use countersign_event::names::Origin;

use super::content::Genesis;
use crate::manifest::LogEntry;
use crate::report::{Check, Collector, Finding, Severity};
use crate::walk::Walked;

/// What the genesis entry of a successor says of the log before it.
#[derive(serde::Deserialize)]
struct Cites {
    origin: Origin,
    size: u64,
    root: Digest,
}

#[derive(serde::Deserialize)]
struct GenesisData {
    cites: Cites,
}

/// What the ledger logs that were walked so far say of the ones before them, and where they end.
#[derive(Default)]
pub(crate) struct Successors<'a> {
    cited: Vec<(&'a LogEntry, Cites)>,
    /// By origin: the size exported, and the roots at the sizes that were watched.
    ends: BTreeMap<&'a Origin, (u64, BTreeMap<u64, Hash>)>,
}

impl<'a> Successors<'a> {
    /// The places of the ledger logs in the manifest, later generations first: what they cite has to be known when the log before them is walked.
    pub(crate) fn order(logs: &[LogEntry]) -> Vec<usize> {
        let mut order: Vec<usize> = (1..logs.len()).collect();
        order.sort_by_key(|&place| {
            let origin = &logs[place].origin;
            std::cmp::Reverse(generation(origin).map(str::to_owned))
        });
        order
    }

    /// The sizes of a log whose roots are cited.
    pub(crate) fn watch(&self, origin: &Origin) -> BTreeSet<u64> {
        let cited = self.cited.iter().map(|(_, cites)| cites);
        let cited = cited.filter(|cites| cites.origin == *origin);
        cited.map(|cites| cites.size).collect()
    }

    /// Notes a ledger log that was walked.
    pub(crate) fn add(&mut self, log: &'a LogEntry, walked: &Walked, found: &mut Collector<'_>) {
        let roots = walked
            .states
            .iter()
            .map(|(&size, state)| (size, state.root));
        self.ends.insert(&log.origin, (log.size, roots.collect()));
        if generation(&log.origin).is_none() {
            return;
        }
        let Some(genesis) = &walked.genesis else {
            let what = "its genesis entry, which says what it goes on from, is not disclosed";
            return push(log, Severity::Missing, what.to_owned(), found);
        };
        match read(log, genesis) {
            Ok(cites) => self.cited.push((log, cites)),
            Err(what) => push(log, Severity::False, what.to_owned(), found),
        }
    }

    /// Holds what is cited against what is here, once all are walked.
    pub(crate) fn check(&self, found: &mut Collector<'_>) {
        for (log, Cites { origin, size, root }) in &self.cited {
            let Some((exported, roots)) = self.ends.get(origin) else {
                let what = format!("{origin}, which it goes on from, is not here");
                push(log, Severity::Missing, what, found);
                continue;
            };
            let known = roots.get(size);
            if known.is_some_and(|known| *known != root.0) {
                let what =
                    format!("it goes on from another tree of {size} entries than {origin} has");
                push(log, Severity::False, what, found);
            } else if exported != size || known.is_none() {
                let what =
                    format!("it goes on from {size} entries of {origin}, and {exported} are here");
                push(log, Severity::Missing, what, found);
            }
        }
    }
}

/// The last part of a successor's name; `None` where the log is of the first generation.
fn generation(origin: &Origin) -> Option<&str> {
    let first = origin.first_generation();
    let rest = origin.as_str().strip_prefix(first.as_str())?;
    rest.strip_prefix('/')
}

fn read(log: &LogEntry, genesis: &Genesis) -> Result<Cites, &'static str> {
    let Ok(GenesisData { cites }) = serde_json::from_slice(&genesis.data) else {
        return Err("the genesis entry does not say what the log goes on from");
    };
    let salt = generation(&log.origin)
        .and_then(|generation| generation.split_once('-'))
        .and_then(|(_, salt)| u32::from_str_radix(salt, 16).ok());
    let goes_on = salt.and_then(|salt| cites.origin.successor(salt.to_be_bytes()));
    if goes_on.as_ref() != Some(&log.origin) || cites.size == 0 {
        return Err("it goes on from what is not the log of the generation before");
    }
    Ok(cites)
}

fn push(log: &LogEntry, severity: Severity, what: String, found: &mut Collector<'_>) {
    found.push(Finding {
        check: Check::Ledgers,
        severity,
        log: Some(log.origin.to_string()),
        sequence: Some(0),
        file: None,
        what,
    });
}
