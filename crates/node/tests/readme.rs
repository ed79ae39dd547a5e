//! The tutorial in the README is run as it stands, against the built program.
//!
//! What lies in `sh` blocks between `<!-- tutorial:begin -->` and `<!-- tutorial:end -->` becomes one script. Only three things differ from what a
//! reader types: ports are replaced by free ones, a node in the background is waited for until it says that it serves (a
//! reader is slower than that), and all ends with the script.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

const COMMANDS_MAX: usize = 9;

/// Printed before the last command, to tell its output from the rest.
const LAST: &str = "----- the last command -----";

/// The whole script, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

#[test]
fn the_tutorial_leads_from_nothing_to_a_verified_event() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let lines = commands(&readme);
    let count: usize = lines.iter().map(|line| programs(line)).sum();
    assert!(
        (1..=COMMANDS_MAX).contains(&count),
        "{count} commands: {lines:#?}"
    );

    let home = tempfile::tempdir().unwrap();
    let bin = home.path().join("bin");
    fs::create_dir(&bin).unwrap();
    symlink(env!("CARGO_BIN_EXE_countersign"), bin.join("countersign")).unwrap();
    let script = with_free_ports(&script(&lines));
    let (code, stdout, stderr) = run(home.path(), &bin, &script);
    assert_eq!(code, Some(0), "{script}\n{stdout}\n{stderr}");

    // What the reader published is what the other organization reads, from its verified copy.
    let (_, shown) = stdout.split_once(LAST).unwrap();
    let publish = lines
        .iter()
        .find(|line| line.contains("countersign publish"));
    let words: Vec<&str> = publish.unwrap().split_whitespace().collect();
    let option = words.iter().position(|word| *word == "--type").unwrap();
    assert!(shown.contains(words[option + 1]), "{stdout}\n{stderr}");
    assert!(lines.last().unwrap().contains("countersign subscribe"));
}

/// The lines of the tutorial's `sh` blocks, continued ones joined, as `countersign …` wherever the README says `cargo run`.
fn commands(readme: &str) -> Vec<String> {
    let (_, rest) = readme.split_once("<!-- tutorial:begin -->").unwrap();
    let (tutorial, _) = rest.split_once("<!-- tutorial:end -->").unwrap();
    let mut lines = Vec::new();
    let mut inside = false;
    for line in tutorial.lines() {
        match line.trim() {
            "```sh" => inside = true,
            "```" => inside = false,
            "" => {}
            text if inside && !text.starts_with('#') => lines.push(text.to_owned()),
            _ => {}
        }
    }
    let joined = lines.join("\n").replace("\\\n", " ");
    joined
        .lines()
        .map(|line| line.replace("cargo run --release -- ", "countersign "))
        .collect()
}

/// How many times a line calls the program: at its start, in a pipe, in a substitution.
fn programs(line: &str) -> usize {
    let words: Vec<&str> = line.split_whitespace().collect();
    let calls = words.iter().enumerate().filter(|(index, word)| {
        let begins = *index == 0 || matches!(words[index - 1], "|" | "&&" | ";");
        (begins && **word == "countersign") || word.ends_with("$(countersign")
    });
    calls.count()
}

fn script(lines: &[String]) -> String {
    let mut script = "trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n".to_owned();
    for (index, line) in lines.iter().enumerate() {
        if index + 1 == lines.len() {
            writeln!(script, "echo '{LAST}'").unwrap();
        }
        match line.strip_suffix('&') {
            Some(command) => {
                let log = format!("serve-{index}.log");
                let served = format!("grep -q 'serves on' {log}");
                writeln!(script, "{command} 2>{log} &").unwrap();
                writeln!(script, "until {served}; do kill -0 $!; sleep 0.02; done").unwrap();
            }
            None => writeln!(script, "{line}").unwrap(),
        }
    }
    script
}

/// Two tests, or a node of the machine's owner, may use the README's ports at this moment.
fn with_free_ports(script: &str) -> String {
    let address = "127.0.0.1:";
    let mut known: Vec<(String, u16)> = Vec::new();
    let mut parts = script.split(address);
    let mut out = parts.next().unwrap().to_owned();
    for part in parts {
        let digits = part
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(part.len());
        let (port, rest) = part.split_at(digits);
        let port = match known.iter().find(|(name, _)| name == port) {
            Some((_, free)) => *free,
            None => {
                let free = free_port(&known);
                known.push((port.to_owned(), free));
                free
            }
        };
        write!(out, "{address}{port}{rest}").unwrap();
    }
    assert!(!known.is_empty(), "the tutorial names its addresses");
    out
}

/// Below the ports that the system gives out by itself.
fn free_port(known: &[(String, u16)]) -> u16 {
    let first = 10_000 + u16::try_from(std::process::id() % 2_000).unwrap();
    let free = |port: &u16| {
        let address = (Ipv4Addr::LOCALHOST, *port);
        known.iter().all(|(_, taken)| taken != port)
            && UdpSocket::bind(address).is_ok()
            && TcpListener::bind(address).is_ok()
    };
    (first..32_000).find(free).unwrap()
}

fn run(home: &Path, bin: &Path, script: &str) -> (Option<i32>, String, String) {
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let output = |name: &str| fs::File::create(home.join(name)).unwrap();
    let child = Command::new("bash")
        .args(["-eu", "-c", script])
        .env_clear()
        .env("HOME", home)
        .env("PATH", path)
        .current_dir(home)
        .stdin(Stdio::null())
        .stdout(output("stdout"))
        .stderr(output("stderr"))
        .process_group(0)
        .spawn()
        .unwrap();
    let mut group = Group(child);
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = group.0.try_wait().unwrap() {
            break Some(status);
        }
        if begun.elapsed() > DEADLINE {
            break None;
        }
        thread::sleep(Duration::from_millis(10));
    };
    drop(group);
    let text = |name: &str| fs::read_to_string(home.join(name)).unwrap();
    let code = status.and_then(|status| status.code());
    (code, text("stdout"), text("stderr"))
}

/// The script and everything it started.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // A script that has ended has ended its nodes before, and its number may belong to others by now.
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
            let _ = self.0.wait();
        }
    }
}
