//! What `cargo xtask bench` is asked for.

use std::path::PathBuf;

use crate::Failure;

pub(super) const USAGE: &str = "\
usage: cargo xtask bench [OPTIONS]

Builds the release program and measures it: publish, deliver, catch-up, latency, verify, many streams, fan-out, idle, restart, policy
decisions and the raw limits of the machine, in rounds. About an hour; with --quick-look some minutes.

options:
  --against nats     drive NATS JetStream in the same rounds, and print the ratios; wants `nats-server` on PATH (else tests/install/nats-server.sh
                     is run, which needs root)
  --quick-look       one short round: whether everything runs, and orders of magnitude
  --write            replace the measured part of docs/benchmarks.md, between its markers
  --rounds N         how often everything is measured [default: 3]
  --seconds N        seconds that count in each measure [default: 5]
  --only WORD        measures whose name holds this word only; several times for several words. Not with --write
  --dir DIR          where the nodes' and the peer's files lie: choose a real disk [default: the system's temporary folder]
";

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Options {
    pub(super) against_nats: bool,
    pub(super) quick_look: bool,
    pub(super) write: bool,
    pub(super) rounds: u32,
    pub(super) seconds: u32,
    pub(super) only: Vec<String>,
    pub(super) dir: PathBuf,
}

pub(super) fn parse(arguments: &[&str]) -> Result<Options, Failure> {
    let mut options = Options {
        against_nats: false,
        quick_look: false,
        write: false,
        rounds: 0,
        seconds: 0,
        only: Vec::new(),
        dir: std::env::temp_dir(),
    };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || {
            let missing = || fault(format!("`{argument}` wants a value"));
            rest.next().copied().ok_or_else(missing)
        };
        match *argument {
            "--against" => match value()? {
                "nats" => options.against_nats = true,
                other => {
                    return Err(fault(format!(
                        "`{other}` is no peer that can be driven: `nats` is"
                    )));
                }
            },
            "--quick-look" => options.quick_look = true,
            "--write" => options.write = true,
            "--rounds" => options.rounds = number(argument, value()?)?,
            "--seconds" => options.seconds = number(argument, value()?)?,
            "--only" => options.only.push(value()?.to_owned()),
            "--dir" => options.dir = PathBuf::from(value()?),
            other => return Err(fault(format!("`{other}` is not an option"))),
        }
    }
    if options.write && !options.only.is_empty() {
        return Err(fault(
            "`--write` replaces the whole part, and `--only` measures some of it",
        ));
    }
    let (rounds, seconds) = if options.quick_look { (1, 1) } else { (3, 5) };
    if options.rounds == 0 {
        options.rounds = rounds;
    }
    if options.seconds == 0 {
        options.seconds = seconds;
    }
    Ok(options)
}

fn number(option: &str, text: &str) -> Result<u32, Failure> {
    let number = text
        .parse()
        .ok()
        .filter(|number| (1..=3_600).contains(number));
    number.ok_or_else(|| {
        fault(format!(
            "`{option} {text}`: a number from 1 to 3600 is wanted"
        ))
    })
}

fn fault(what: impl Into<String>) -> Failure {
    Failure::new(what, "`cargo xtask bench --help` lists the options")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_look_is_one_short_round_unless_more_is_said() {
        let rounds_and_seconds = |arguments: &[&str]| {
            let options = parse(arguments).unwrap();
            (options.rounds, options.seconds)
        };
        assert_eq!(rounds_and_seconds(&[]), (3, 5));
        assert_eq!(rounds_and_seconds(&["--quick-look"]), (1, 1));
        assert_eq!(
            rounds_and_seconds(&["--seconds", "2", "--quick-look", "--rounds", "4"]),
            (4, 2)
        );
    }

    #[test]
    fn peer_and_selection_are_read() {
        let options = parse(&["--against", "nats", "--only", "publish", "--only", "raw"]).unwrap();
        assert!(options.against_nats && !options.write);
        assert_eq!(options.only, ["publish", "raw"]);
    }

    #[test]
    fn mistakes_are_named() {
        for (arguments, expected) in [
            (&["--against"] as &[&str], "wants a value"),
            (&["--against", "kafka"], "`kafka` is no peer"),
            (&["--rounds", "0"], "1 to 3600"),
            (&["--rounds", "x"], "1 to 3600"),
            (&["--fast"], "`--fast` is not an option"),
            (&["--write", "--only", "raw"], "replaces the whole part"),
        ] {
            let failure = parse(arguments).unwrap_err();
            assert!(
                failure.what.contains(expected),
                "{arguments:?}: {}",
                failure.what
            );
        }
    }
}
