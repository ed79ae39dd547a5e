use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::{Color, Exit, Global, View};
use crate::data_dir::Environment;
use crate::errors::{CommandError, ErrorCode};

/// Where a command's words go: data to stdout, all else to stderr.
#[derive(Debug)]
pub struct Output {
    json: bool,
    quiet: bool,
    verbose: u8,
    /// Whether stderr gets colour.
    color: bool,
    progress: Option<ProgressBar>,
}

impl Output {
    /// As the person asked for it.
    #[must_use]
    pub fn new(global: &Global, environment: &Environment) -> Self {
        let color = match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => environment.value("NO_COLOR").is_none() && io::stderr().is_terminal(),
        };
        Self {
            json: global.json,
            quiet: global.quiet,
            verbose: global.verbose,
            color,
            progress: None,
        }
    }

    /// Whether answers are JSON.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// How often `-v` was given.
    #[must_use]
    pub fn verbose(&self) -> u8 {
        self.verbose
    }

    /// The whole answer of a command.
    ///
    /// # Errors
    /// [`ErrorCode::Interrupted`] where nobody reads stdout any more, [`ErrorCode::Io`].
    pub fn value(&mut self, view: &View, value: &Value) -> Result<(), CommandError> {
        let text = if self.json {
            format!("{value}\n")
        } else {
            view.render(value)
        };
        self.data(&text)
    }

    /// One of many.
    ///
    /// # Errors
    /// As [`Output::value`].
    pub fn item(&mut self, view: &View, item: &Value) -> Result<(), CommandError> {
        let text = if self.json {
            format!("{item}\n")
        } else {
            view.line(item)
        };
        self.data(&text)
    }

    /// One of many, given as its line of JSON.
    ///
    /// # Errors
    /// As [`Output::value`].
    pub fn line(&mut self, view: &View, line: &str) -> Result<(), CommandError> {
        if self.json {
            return self.data(&format!("{line}\n"));
        }
        let item = serde_json::from_str(line)
            .map_err(|error| CommandError::new(ErrorCode::Internal, error))?;
        self.data(&view.line(&item))
    }

    /// Text that is data: a script, a file.
    ///
    /// # Errors
    /// As [`Output::value`].
    pub fn data(&mut self, text: &str) -> Result<(), CommandError> {
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(|error| match error.kind() {
                io::ErrorKind::BrokenPipe => CommandError::new(ErrorCode::Interrupted, BROKEN_PIPE),
                _ => CommandError::new(
                    ErrorCode::Io,
                    format_args!("cannot write to stdout: {error}"),
                ),
            })
    }

    /// A word to the person; not with `--quiet`.
    pub fn note(&mut self, text: &str) {
        if !self.quiet {
            self.say(text);
        }
    }

    /// How far it is: a bar on a terminal, nothing elsewhere.
    pub fn progress(&mut self, done: u64, total: Option<u64>, unit: &str) {
        if self.quiet || self.json {
            return;
        }
        let bar = self.progress.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        let template = match (unit, total) {
            ("bytes", Some(_)) => "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            ("bytes", None) => "{spinner} {bytes} {bytes_per_sec}",
            (_, Some(_)) => "{bar:30} {human_pos}/{human_len} {msg} {per_sec} {eta}",
            (_, None) => "{spinner} {human_pos} {msg} {per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.set_message(unit.to_owned());
        bar.set_position(done);
    }

    /// Takes the bar away.
    pub fn end_progress(&mut self) {
        if let Some(bar) = self.progress.take() {
            bar.finish_and_clear();
        }
    }

    /// Why the command failed.
    pub fn error(&mut self, error: &CommandError) {
        if error.message == BROKEN_PIPE {
            return;
        }
        self.end_progress();
        if self.json {
            let body = json!({"error": {
                "code": error.code,
                "message": error.message,
                "advice": error.advice,
                "exit": Exit::from(error.code).code(),
            }});
            self.say(&body.to_string());
            return;
        }
        let paint = |code: &str, text: &str| {
            if self.color {
                format!("\u{1b}[{code}m{text}\u{1b}[0m")
            } else {
                text.to_owned()
            }
        };
        let mut text = format!(
            "{}: {} [{}]",
            paint("1;31", "error"),
            visible(&error.message),
            error.code
        );
        if let Some(advice) = &error.advice {
            text.push_str(&format!("\n{}: {}", paint("1;36", "hint"), visible(advice)));
        }
        self.say(&text);
    }

    /// Asks a person on the terminal; the answer is yes only where it begins with `y`.
    ///
    /// # Errors
    /// [`ErrorCode::ConfirmationNeeded`] where there is no terminal to ask at.
    pub fn confirm(&mut self, question: &str) -> Result<bool, CommandError> {
        if self.json || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Err(CommandError::new(
                ErrorCode::ConfirmationNeeded,
                "this has to be confirmed, and there is no terminal to ask at",
            )
            .advise("look at what it says, then add `--yes`"));
        }
        let mut stderr = io::stderr().lock();
        let mut answer = String::new();
        write!(stderr, "{question} [y/N] ")
            .and_then(|()| stderr.flush())
            .and_then(|()| io::stdin().read_line(&mut answer))
            .map_err(|error| CommandError::new(ErrorCode::Io, error))?;
        Ok(answer.trim_start().to_lowercase().starts_with('y'))
    }

    fn say(&self, text: &str) {
        let write = || {
            // Where stderr is closed, there is nobody to tell.
            let _ = writeln!(io::stderr().lock(), "{text}");
        };
        match &self.progress {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

/// Who closed the pipe does not want to hear of it.
const BROKEN_PIPE: &str = "nobody reads the output any more";

/// Control characters but line ends, which messages of several lines have, must not reach the terminal.
fn visible(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && c != '\n' { '?' } else { c })
        .collect()
}
