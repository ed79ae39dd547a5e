//! The recorded figures, and how found ones are judged by them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::Failure;

/// Where the figures are recorded.
pub(super) const RECORD: &str = "tests/work-per-event.txt";

/// How far a figure may be from the recorded one: small against any copy, hash or allocation more per event, large against what the addresses of
/// a run and the seeds of its hash maps change.
const SLACK: f64 = 0.05;

const HEAD: &str = "\
# Work per event of the product's stages, counted, not timed. Written by `cargo xtask bench --quick --record`, compared with what is counted by
# `cargo xtask bench --quick`, a step of `cargo xtask check`: more than 5 % above fails. What each counter counts: xtask/src/bench/quick.rs.
# Build profile: `count` of Cargo.toml. The compiler is named because instructions are its choice.
";

/// One counter of one stage.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figure {
    pub(super) stage: String,
    pub(super) counter: String,
    /// Rounded as it is written, so that what was recorded compares as equal.
    pub(super) per_event: f64,
}

impl Figure {
    pub(super) fn new(stage: &str, counter: &str, count: u64, events: u64) -> Self {
        let per_event = count as f64 / events.max(1) as f64;
        Self {
            stage: stage.to_owned(),
            counter: counter.to_owned(),
            per_event: (per_event * 10_000.0).round() / 10_000.0,
        }
    }

    fn key(&self) -> (&str, &str) {
        (&self.stage, &self.counter)
    }
}

/// All figures of one measurement.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    pub(super) processor: String,
    pub(super) compiler: String,
    /// In the order of the stages.
    pub(super) figures: Vec<Figure>,
}

impl Record {
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "{HEAD}processor: {}\ncompiler: {}\n",
            self.processor, self.compiler
        );
        let mut stage_before = "";
        for figure in &self.figures {
            if figure.stage != stage_before {
                text.push('\n');
                stage_before = &figure.stage;
            }
            // Writing to a text does not fail.
            let _ = writeln!(
                text,
                "{:<8} {:<19} {:>11.4}",
                figure.stage, figure.counter, figure.per_event
            );
        }
        text
    }

    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let mut record = Self {
            processor: String::new(),
            compiler: String::new(),
            figures: Vec::new(),
        };
        for (line, number) in text.lines().zip(1..) {
            if let Some(processor) = line.strip_prefix("processor: ") {
                record.processor = processor.to_owned();
            } else if let Some(compiler) = line.strip_prefix("compiler: ") {
                record.compiler = compiler.to_owned();
            } else if !line.is_empty() && !line.starts_with('#') {
                let figure = parse_figure(line).ok_or_else(|| {
                    Failure::new(
                        format!("{RECORD}:{number}: `{line}` is no figure"),
                        "take the file from git, or make it anew with `cargo xtask bench --quick --record`",
                    )
                })?;
                record.figures.push(figure);
            }
        }
        Ok(record)
    }

    /// Judges what was found by what is recorded here.
    pub(super) fn compare(&self, found: &Self) -> Comparison {
        let mut comparison = Comparison {
            figures: found.figures.len(),
            compilers: (self.compiler != found.compiler)
                .then(|| (self.compiler.clone(), found.compiler.clone())),
            ..Comparison::default()
        };
        let mut recorded: BTreeMap<_, _> = self
            .figures
            .iter()
            .map(|figure| (figure.key(), figure.per_event))
            .collect();
        for figure in &found.figures {
            let place = format!("{}: {}", figure.stage, figure.counter);
            let now = figure.per_event;
            let Some(before) = recorded.remove(&figure.key()) else {
                comparison
                    .unmatched
                    .push(format!("{place}: found {now} per event, not recorded"));
                continue;
            };
            let line = || {
                let change = if before == 0.0 {
                    "recorded as none".to_owned()
                } else {
                    format!("{:+.1} %", (now / before - 1.0) * 100.0)
                };
                format!("{place}: recorded {before}, found {now} per event ({change})")
            };
            if now > before * (1.0 + SLACK) {
                comparison.above.push(line());
            } else if now < before * (1.0 - SLACK) {
                comparison.below.push(line());
            }
        }
        comparison.unmatched.extend(
            recorded
                .keys()
                .map(|(stage, counter)| format!("{stage}: {counter}: recorded, not found")),
        );
        comparison
    }
}

/// `STAGE COUNTER FIGURE`, where the counter may be several words.
fn parse_figure(line: &str) -> Option<Figure> {
    let (stage, rest) = line.split_once(' ')?;
    let (counter, per_event) = rest.trim().rsplit_once(' ')?;
    Some(Figure {
        stage: stage.to_owned(),
        counter: counter.trim_end().to_owned(),
        per_event: per_event
            .parse()
            .ok()
            .filter(|figure: &f64| figure.is_finite() && *figure >= 0.0)?,
    })
}

/// What differs from the record, one line each.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    figures: usize,
    above: Vec<String>,
    below: Vec<String>,
    /// In one of the two only.
    unmatched: Vec<String>,
    /// Recorded and found, where they differ.
    compilers: Option<(String, String)>,
}

impl Comparison {
    /// What is said whether it fails or not.
    pub(super) fn report(&self) -> String {
        let figures = self.figures;
        if self.below.is_empty() {
            return format!("{figures} figures of work per event compared with {RECORD}");
        }
        format!(
            "less work per event than recorded; renew the record, so that it does not creep back (`cargo xtask bench --quick --record`):\n{}\n\
             {figures} figures of work per event compared with {RECORD}",
            self.below.join("\n")
        )
    }

    /// Why it fails, if it does.
    pub(super) fn failure(&self) -> Option<String> {
        let mut lines = Vec::new();
        if !self.above.is_empty() {
            lines.push("work per event has grown by more than 5 %:".to_owned());
            lines.extend(self.above.iter().cloned());
        }
        if !self.unmatched.is_empty() {
            lines.push(format!("{RECORD} is of other stages or counters:"));
            lines.extend(self.unmatched.iter().cloned());
        }
        if let (false, Some((before, now))) = (lines.is_empty(), &self.compilers) {
            lines.push(format!(
                "recorded with `{before}`, found with `{now}`: where only instructions differ, the compiler may be the reason"
            ));
        }
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(figures: &[(&str, &str, f64)]) -> Record {
        Record {
            processor: "x86_64".to_owned(),
            compiler: "rustc 1".to_owned(),
            figures: figures
                .iter()
                .map(|(stage, counter, per_event)| Figure {
                    stage: (*stage).to_owned(),
                    counter: (*counter).to_owned(),
                    per_event: *per_event,
                })
                .collect(),
        }
    }

    /// `failure` = what the only line of failure below its heading says; none = it passes.
    #[track_caller]
    fn check(recorded: f64, found: f64, failure: Option<&str>, is_below: bool) {
        let recorded = record(&[("seal", "hashed bytes", recorded)]);
        let found = record(&[("seal", "hashed bytes", found)]);
        let comparison = recorded.compare(&found);
        let said = comparison.failure();
        let line = said.as_deref().and_then(|text| text.lines().nth(1));
        assert_eq!(line, failure);
        assert_eq!(comparison.report().contains("renew the record"), is_below);
    }

    #[test]
    fn growth_beyond_the_slack_fails_and_names_stage_counter_recorded_and_found() {
        check(
            1000.0,
            1050.1,
            Some("seal: hashed bytes: recorded 1000, found 1050.1 per event (+5.0 %)"),
            false,
        );
        check(
            2.0,
            3.0,
            Some("seal: hashed bytes: recorded 2, found 3 per event (+50.0 %)"),
            false,
        );
    }

    #[test]
    fn within_the_slack_nothing_is_said() {
        check(1000.0, 1000.0, None, false);
        check(1000.0, 1050.0, None, false);
        check(1000.0, 950.0, None, false);
    }

    #[test]
    fn less_than_recorded_passes_and_asks_for_a_new_record() {
        check(1000.0, 949.0, None, true);
        check(1.0, 0.0, None, true);
    }

    #[test]
    fn what_is_recorded_as_none_has_to_stay_none() {
        check(0.0, 0.0, None, false);
        check(
            0.0,
            0.001,
            Some("seal: hashed bytes: recorded 0, found 0.001 per event (recorded as none)"),
            false,
        );
    }

    #[test]
    fn a_counter_without_its_other_half_fails() {
        let recorded = record(&[("seal", "hashes", 2.0), ("seal", "syncs", 0.0)]);
        let found = record(&[("seal", "hashes", 2.0), ("take", "hashes", 4.0)]);
        let said = recorded.compare(&found).failure().unwrap();
        assert!(
            said.contains("take: hashes: found 4 per event, not recorded"),
            "{said}"
        );
        assert!(said.contains("seal: syncs: recorded, not found"), "{said}");
    }

    #[test]
    fn another_compiler_is_named_beside_a_failure_only() {
        let recorded = record(&[("seal", "instructions", 900.0)]);
        let mut found = recorded.clone();
        found.compiler = "rustc 2".to_owned();
        assert_eq!(recorded.compare(&found).failure(), None);
        found.figures[0].per_event = 990.0;
        let said = recorded.compare(&found).failure().unwrap();
        assert!(
            said.contains("recorded with `rustc 1`, found with `rustc 2`"),
            "{said}"
        );
    }

    #[test]
    fn what_is_written_reads_back_and_compares_as_equal() {
        let mut written = record(&[]);
        written.figures = vec![
            Figure::new("append", "other file calls", 4, 1024),
            Figure::new("verify", "instructions", 1_234_567, 512),
        ];
        let read = Record::parse(&written.text()).unwrap();
        assert_eq!(read, written);
        assert_eq!(read.compare(&written).failure(), None);
    }

    #[test]
    fn a_line_that_is_no_figure_is_refused_with_its_place() {
        for line in ["seal", "seal hashes", "seal hashes two", "seal hashes -1"] {
            let failure = Record::parse(line).unwrap_err();
            assert!(failure.what.contains(":1: "), "{}", failure.what);
        }
    }
}
