//! `demo`: a producer, a partner, a stranger and an auditor in one process, on loopback, with real data: what the program is for, told in nine steps.
//!
//! ```text
//! Seismic Survey ──QUIC──► Harbor Insurance        Curious Corp: may know of the stream, may not read it
//!      │  events, agreement, receipts  │
//!      └──► evidence.tar ──► Auditor: files and one fingerprint, no node
//! ```
//!
//! Everything is done by what the other commands use: nodes made by `init`, commands through their handlers, an application of the client crate, the
//! auditor's own verifier. Each step checks what it says; the first one that does not hold ends the demo.

mod cast;
mod evidence;
mod exchange;
mod people;
mod place;
mod quakes;
mod teller;

use serde_json::json;

use self::cast::Cast;
use self::place::Place;
use self::teller::Teller;
use crate::cli::{CommandResult, DemoArgs, Exit, Output};
use crate::errors::{CommandError, ErrorCode};

/// The steps: a word for programs, a heading for people.
const STEPS: [(&str, &str); 9] = [
    ("organizations", "Three organizations and an auditor"),
    ("publish", "Seismic Survey publishes earthquakes"),
    ("join", "Harbor Insurance joins by an invitation link"),
    ("follow", "Harbor Insurance follows live"),
    ("refusal", "Curious Corp is refused, with the reason"),
    ("receipts", "Both sides hold the same receipts"),
    (
        "audit",
        "The auditor verifies a file, without node or network",
    ),
    ("tampering", "One byte of a copy is changed"),
    ("next", "Your turn"),
];

/// Tells the story. Needs no root, no network beyond loopback, and nothing of the machine but a folder.
///
/// # Errors
/// The first step that did not do what it says, named in the message; what its parts report.
pub(crate) async fn demo(args: &DemoArgs, output: &mut Output) -> CommandResult {
    let place = Place::make(args.keep.as_deref())?;
    let mut teller = Teller::new(output);
    teller.opening(&[
        "Countersign: organizations exchange signed events, and keep proof of it.",
        &format!(
            "{} real earthquakes (USGS, public domain), four parties, one process, loopback only.",
            quakes::lines().count()
        ),
    ])?;
    teller.begin(STEPS[0])?;
    let assembled = Cast::assemble(&place).await;
    let cast = teller.done(assembled)?;
    let told = tell(&cast, &place, &mut teller).await;
    // What was exchanged is on the disk already; this ends sessions and writers, so that the folders can be used or removed.
    let ended = cast.end().await;
    told?;
    ended?;
    Ok(Exit::Ok)
}

async fn tell(cast: &Cast, place: &Place, teller: &mut Teller<'_>) -> Result<(), CommandError> {
    let told = people::introduce(cast, teller);
    let facts = teller.done(told)?;
    teller.end(facts)?;

    teller.begin(STEPS[1])?;
    let told = exchange::publish(cast, teller).await;
    let (mut published, facts) = teller.done(told)?;
    teller.end(facts)?;

    teller.begin(STEPS[2])?;
    let told = people::join(cast, teller).await;
    let facts = teller.done(told)?;
    teller.end(facts)?;

    teller.begin(STEPS[3])?;
    let told = exchange::follow(cast, &mut published, teller).await;
    let facts = teller.done(told)?;
    teller.end(facts)?;

    teller.begin(STEPS[4])?;
    let told = people::refuse(cast, &published, teller).await;
    let facts = teller.done(told)?;
    teller.end(facts)?;

    teller.begin(STEPS[5])?;
    let told = exchange::receipts(cast, &published, teller).await;
    let facts = teller.done(told)?;
    teller.end(facts)?;

    teller.begin(STEPS[6])?;
    let told = evidence::verify_whole(cast, teller).await;
    let facts = teller.done(told)?;
    teller.end(facts)?;

    teller.begin(STEPS[7])?;
    let told = evidence::verify_altered(cast, &published, teller).await;
    let facts = teller.done(told)?;
    teller.end(facts)?;

    teller.begin(STEPS[8])?;
    let next = next_commands();
    for (command, what) in &next {
        teller.command(command, what)?;
    }
    let look = look_around(cast, place);
    if !look.is_empty() {
        teller.gap()?;
        teller.say(&format!(
            "The four folders stay in {}. To look around:",
            place.path().display()
        ))?;
        for (command, what) in &look {
            teller.command(command, what)?;
        }
    }
    let commands = |list: &[(String, &str)]| {
        list.iter()
            .map(|(command, _)| command.clone())
            .collect::<Vec<_>>()
    };
    teller.end(json!({
        "commands": commands(&next),
        "kept": place.is_kept().then(|| place.path()),
        "look_around": commands(&look),
    }))?;
    teller.closing()
}

/// The way from here to a node of one's own.
fn next_commands() -> Vec<(String, &'static str)> {
    let program = program();
    vec![
        (
            format!("{program} init --org \"Your Organization\" --advertise HOST:7227"),
            "keys, settings, a first policy",
        ),
        (
            format!("{program} publish events FILE --create --type org.example.event"),
            "JSON lines into a stream; `-` reads stdin",
        ),
        (
            format!("{program} partner invite --stream events"),
            "a link for the first partner; `serve` lets it in",
        ),
    ]
}

fn look_around(cast: &Cast, place: &Place) -> Vec<(String, &'static str)> {
    if !place.is_kept() {
        return Vec::new();
    }
    let program = program();
    let (producer, partner) = (quoted(cast.producer.data()), quoted(cast.partner.data()));
    let auditor = cast.auditor.as_path();
    vec![
        (
            format!("{program} stream tail earthquakes --data {producer}"),
            "the newest entries of the log",
        ),
        (
            format!("{program} ledger ls --data {producer}"),
            "decisions, agreement, receipts",
        ),
        (
            format!("{program} receipt ls --data {partner}"),
            "the same receipts on the other side",
        ),
        (
            format!(
                "{program} evidence verify {} --trust {}",
                quoted(&auditor.join(evidence::ALTERED)),
                quoted(&auditor.join(evidence::FINGERPRINT))
            ),
            "exit code 6; the other file gives 0",
        ),
    ]
}

/// The program as it was called, so that the commands shown can be copied.
fn program() -> String {
    let called = std::env::args().next().unwrap_or_default();
    if called.contains('/') {
        quoted(std::path::Path::new(&called))
    } else {
        "countersign".to_owned()
    }
}

/// A path as a shell takes it.
fn quoted(path: &std::path::Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%=".contains(c);
    if text.chars().all(is_plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// A statement of the story that turned out not to be so.
fn broken(what: impl std::fmt::Display) -> CommandError {
    CommandError::new(ErrorCode::VerificationFailed, what)
        .advise("this should not happen on a healthy machine: please report it with the output of `countersign demo --json`")
}

/// Goes on only where what the story says is so.
fn ensure(holds: bool, otherwise: &str) -> Result<(), CommandError> {
    if holds {
        Ok(())
    } else {
        Err(broken(otherwise))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_shown_as_a_shell_takes_them() {
        let quoted = |text: &str| quoted(std::path::Path::new(text));
        assert_eq!(quoted("/tmp/a-b_c.d"), "/tmp/a-b_c.d");
        assert_eq!(quoted("/tmp/a b"), "'/tmp/a b'");
        assert_eq!(quoted("/tmp/it's"), r"'/tmp/it'\''s'");
        assert_eq!(quoted("/tmp/$(x)"), "'/tmp/$(x)'");
    }
}
