//! The whole table: builds, measures in rounds, prints or writes.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::machine::{build, facts, revision};
use super::nats::{Nats, Sync};
use super::options::Options;
use super::ours::Ours;
use super::statistics::Spread;
use super::{plan, report};
use crate::Failure;
use crate::process::{command, output};

/// Everything that was measured.
#[derive(Default)]
pub(super) struct Results {
    /// Figures of each round, by the measure's name.
    pub(super) ours: BTreeMap<String, Vec<Value>>,
    pub(super) peer: BTreeMap<(String, Sync), Vec<Value>>,
    /// What `countersign bench` says of the machine.
    pub(super) machine: Value,
    pub(super) facts: String,
    pub(super) revision: String,
    /// Version of the peer, and what its `sync_interval` was where each message was to be synced.
    pub(super) nats: Option<(String, &'static str)>,
    /// What the policy crate's measurement printed.
    pub(super) policy: String,
}

impl Results {
    /// A figure of ours.
    pub(super) fn ours(&self, name: &str, pointer: &str) -> Option<Spread> {
        spread(self.ours.get(name)?, pointer)
    }

    /// A figure of the peer.
    pub(super) fn peer(&self, name: &str, sync: Sync, pointer: &str) -> Option<Spread> {
        spread(self.peer.get(&(name.to_owned(), sync))?, pointer)
    }
}

fn spread(rounds: &[Value], pointer: &str) -> Option<Spread> {
    let values: Vec<f64> = rounds
        .iter()
        .filter_map(|figures| figures.pointer(pointer)?.as_f64())
        .collect();
    Spread::of(&values)
}

pub(super) fn run(root: &Path, options: &Options) -> Result<(), Failure> {
    let measures = plan::measures(options);
    if measures.is_empty() {
        return Err(Failure::new(
            "no measure has such a name",
            "names are as in `publish 256`, `verify 1024`, `idle`; leave `--only` out for all",
        ));
    }
    if options.write {
        report::check_place(root)?;
    }
    let program = build(root, &["--package", "countersign", "--bin", "countersign"])?;
    // Takes half a minute; no part of a selection.
    let decisions = match options.only.is_empty() {
        true => Some(build(
            root,
            &[
                "--package",
                "countersign-policy",
                "--example",
                "decide_cost",
            ],
        )?),
        false => None,
    };
    let nats = if options.against_nats {
        Some(Nats::find(root, &options.dir)?)
    } else {
        None
    };
    let ours = Ours {
        root,
        program,
        dir: &options.dir,
    };
    let mut results = Results {
        facts: facts(root),
        revision: revision(root),
        nats: nats
            .as_ref()
            .map(|nats| (nats.version.clone(), nats.always)),
        policy: match &decisions {
            Some(decisions) => output(command(root, &decisions.to_string_lossy()))?,
            None => "not measured".to_owned(),
        },
        ..Results::default()
    };
    for round in 1..=options.rounds {
        for measure in measures
            .iter()
            .filter(|measure| round == 1 || !measure.once)
        {
            eprintln!("round {round} of {}: {}", options.rounds, measure.name);
            let (figures, machine) = ours.run(&measure.arguments)?;
            results
                .ours
                .entry(measure.name.clone())
                .or_default()
                .push(figures);
            results.machine = machine;
            if let (Some(nats), Some(task)) = (&nats, &measure.peer) {
                for sync in Sync::ALL {
                    // What is stored already is read the same, however it was synced.
                    if sync == Sync::Always && task.mode == plan::Mode::Consume {
                        continue;
                    }
                    eprintln!(
                        "round {round} of {}: {}, NATS {}",
                        options.rounds,
                        measure.name,
                        sync.name()
                    );
                    let figures = nats.run(task, sync, options.seconds)?;
                    results
                        .peer
                        .entry((measure.name.clone(), sync))
                        .or_default()
                        .push(figures);
                }
            }
        }
    }
    let text = report::markdown(options, &results);
    if options.write {
        println!("{}", report::write(root, &text)?);
    } else {
        println!("{text}");
    }
    Ok(())
}
