//! Where the passphrase of the key files comes from: a file, or what a command prints. It is asked for when a key file needs it, and not kept.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use countersign_crypto::{PASSPHRASE_BYTES_MAX, Passphrase, PassphraseError};
use zeroize::Zeroizing;

use crate::keys::{KeyFileError, open_private};

/// How long a command may take: a person may have to touch a token.
const COMMAND_TIME: Duration = Duration::from_secs(30);

/// How often it is looked whether a command that has printed all has ended.
const LOOK: Duration = Duration::from_millis(10);

/// What is read at most: more than a passphrase with its line break can have, so that a longer one is noticed.
const READ_MAX: u64 = PASSPHRASE_BYTES_MAX as u64 + 3;

/// The settings `keys.*`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct KeySettings {
    /// A file that holds the passphrase, readable by its owner only.
    pub passphrase_file: Option<PathBuf>,
    /// A program and its arguments; what it prints is the passphrase.
    pub passphrase_command: Vec<String>,
}

/// Why there is no passphrase.
#[derive(Debug, thiserror::Error)]
pub enum PassphraseFault {
    /// Both ways are set.
    #[error(
        "`keys.passphrase_file` and `keys.passphrase_command` are both set, and only one can be right"
    )]
    Both,
    /// The command failed.
    #[error("`{program}` ended with {ending} and gave no passphrase")]
    Command {
        /// The program.
        program: String,
        /// Its exit code, or what else ended it.
        ending: String,
    },
    /// The file cannot be used.
    #[error("the passphrase's file cannot be used: {0}")]
    File(#[source] Box<KeyFileError>),
    /// No way is set.
    #[error("neither `keys.passphrase_file` nor `keys.passphrase_command` is set")]
    NotSet,
    /// The program cannot be started, or its output not be read.
    #[error("`{program}` cannot be run: {source}")]
    Run {
        /// The program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// It is none.
    #[error("what {from} gives is refused: {source}")]
    Text {
        /// File or program.
        from: String,
        /// Why.
        source: PassphraseError,
    },
    /// The command took too long, and was ended.
    #[error("`{program}` gave no passphrase within {} seconds", COMMAND_TIME.as_secs())]
    Time {
        /// The program.
        program: String,
    },
}

impl KeySettings {
    /// Whether a way to the passphrase is named.
    #[must_use]
    pub fn is_set(&self) -> bool {
        *self != Self::default()
    }

    /// Asks for the passphrase.
    ///
    /// # Errors
    /// [`PassphraseFault`].
    pub fn passphrase(&self) -> Result<Passphrase, PassphraseFault> {
        match (&self.passphrase_file, self.passphrase_command.split_first()) {
            (Some(_), Some(_)) => Err(PassphraseFault::Both),
            (Some(file), None) => from_file(file),
            (None, Some((program, arguments))) => from_command(program, arguments),
            (None, None) => Err(PassphraseFault::NotSet),
        }
    }
}

fn from_file(path: &Path) -> Result<Passphrase, PassphraseFault> {
    let unusable = |error| PassphraseFault::File(Box::new(error));
    let file = open_private(path).map_err(unusable)?;
    let text = read(file).map_err(|source| {
        let path = path.to_owned();
        unusable(KeyFileError::Io { path, source })
    })?;
    taken(&text, &path.display().to_string())
}

fn from_command(program: &str, arguments: &[String]) -> Result<Passphrase, PassphraseFault> {
    let run = |source| PassphraseFault::Run {
        program: program.to_owned(),
        source,
    };
    // What it says on stderr goes where our own does; there is no shell between.
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(run)?;
    let text = output_of(&mut child, Instant::now() + COMMAND_TIME);
    // Whatever came of it: it is not left behind.
    if !matches!(text, Ok(Ended::With { .. })) {
        let _ = child.kill();
        let _ = child.wait();
    }
    match text.map_err(run)? {
        Ended::Late => Err(PassphraseFault::Time {
            program: program.to_owned(),
        }),
        Ended::With { ending, text } => match ending {
            None => taken(&text, program),
            Some(ending) => Err(PassphraseFault::Command {
                program: program.to_owned(),
                ending,
            }),
        },
    }
}

enum Ended {
    /// Not in time.
    Late,
    /// With what it printed, and how, where that was no success.
    With {
        ending: Option<String>,
        text: Zeroizing<Vec<u8>>,
    },
}

fn output_of(child: &mut Child, until: Instant) -> io::Result<Ended> {
    let Some(stdout) = child.stdout.take() else {
        return Err(io::Error::from(io::ErrorKind::BrokenPipe));
    };
    // Reading cannot be bounded in time, waiting for a thread can: where the command hangs, the thread ends with it. One that goes on printing meets a closed pipe.
    let (send, receive) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let _ = send.send(read(stdout));
    });
    let left = || until.saturating_duration_since(Instant::now());
    let text = match receive.recv_timeout(left()) {
        Ok(text) => text?,
        Err(RecvTimeoutError::Timeout) => return Ok(Ended::Late),
        Err(RecvTimeoutError::Disconnected) => {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
    };
    if text.len() as u64 == READ_MAX {
        // Too long already: how it ends does not matter.
        child.kill()?;
        child.wait()?;
        return Ok(Ended::With { ending: None, text });
    }
    loop {
        if let Some(status) = child.try_wait()? {
            let ending = (!status.success()).then(|| match status.code() {
                Some(code) => format!("code {code}"),
                None => "a signal".to_owned(),
            });
            return Ok(Ended::With { ending, text });
        }
        if left().is_zero() {
            return Ok(Ended::Late);
        }
        thread::sleep(LOOK);
    }
}

fn read(from: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    // All of it at once: what a growing buffer leaves behind is not wiped.
    let mut text = Zeroizing::new(Vec::with_capacity(READ_MAX as usize + 1));
    from.take(READ_MAX).read_to_end(&mut text)?;
    Ok(text)
}

fn taken(text: &[u8], from: &str) -> Result<Passphrase, PassphraseFault> {
    Passphrase::from_bytes(text).map_err(|source| PassphraseFault::Text {
        from: format!("`{from}`"),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(script: &str) -> Result<Passphrase, PassphraseFault> {
        let words = ["sh", "-c", script].map(str::to_owned);
        let settings = KeySettings {
            passphrase_file: None,
            passphrase_command: words.into(),
        };
        settings.passphrase()
    }

    #[test]
    fn a_command_gives_one_line_or_says_why_not() {
        assert!(command("echo one two").is_ok());
        let fault = |script: &str| command(script).unwrap_err();
        assert!(matches!(
            fault("echo secret-7; exit 3"),
            PassphraseFault::Command { ending, .. } if ending == "code 3"
        ));
        assert!(matches!(
            fault("kill -9 $$"),
            PassphraseFault::Command { .. }
        ));
        let text = |fault: PassphraseFault| match fault {
            PassphraseFault::Text { source, .. } => source,
            other => panic!("{other}"),
        };
        assert_eq!(text(fault("true")), PassphraseError::Empty);
        assert_eq!(text(fault("printf 'a\\nb\\n'")), PassphraseError::Line);
        // Endless output ends when enough was read.
        assert_eq!(
            text(fault("yes secret-7 | tr -d '\\n'")),
            PassphraseError::TooLong
        );
        for script in [
            "echo secret-7; exit 3",
            "printf 'secret-7\\nb'",
            "yes secret-7",
        ] {
            assert!(!fault(script).to_string().contains("secret-7;"));
        }
    }

    #[test]
    fn a_command_that_hangs_is_ended() {
        let mut child = Command::new("sh")
            .args(["-c", "exec sleep 600"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // The time is over before it began.
        let ended = output_of(&mut child, Instant::now()).unwrap();
        assert!(matches!(ended, Ended::Late));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn one_way_is_set_and_not_two() {
        let both = KeySettings {
            passphrase_file: Some("/nowhere".into()),
            passphrase_command: vec!["true".to_owned()],
        };
        assert!(matches!(both.passphrase(), Err(PassphraseFault::Both)));
        let none = KeySettings::default();
        assert!(matches!(none.passphrase(), Err(PassphraseFault::NotSet)));
        let missing = KeySettings {
            passphrase_command: Vec::new(),
            ..both
        };
        assert!(matches!(
            missing.passphrase(),
            Err(PassphraseFault::File(_))
        ));
    }
}
