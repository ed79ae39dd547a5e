use std::io::{self, IsTerminal as _};
use std::time::Instant;

use serde_json::{Value, json};

use crate::cli::Output;
use crate::data_dir::Environment;
use crate::errors::{CommandError, ErrorCode};

/// Columns of the text; identifiers that are longer than a line stay whole.
const WIDTH: usize = 88;

/// Where the text of a step begins.
const INDENT: &str = "   ";

/// Where the value of a line begins, behind its label.
const LABEL: usize = 12;

/// Tells the story to a person, or hands its facts to a program.
pub(super) struct Teller<'a> {
    output: &'a mut Output,
    has_color: bool,
    /// Names of organizations, shown in place of their fingerprints in running text.
    names: Vec<(String, String)>,
    step: usize,
    name: &'static str,
    started: Instant,
    step_started: Instant,
}

impl<'a> Teller<'a> {
    pub(super) fn new(output: &'a mut Output) -> Self {
        let has_color =
            io::stdout().is_terminal() && Environment::read().value("NO_COLOR").is_none();
        Self {
            output,
            has_color,
            names: Vec::new(),
            step: 0,
            name: "",
            started: Instant::now(),
            step_started: Instant::now(),
        }
    }

    /// From now on `name` is shown where a text says `authority`.
    pub(super) fn call(&mut self, authority: &str, name: &str) {
        self.names.push((authority.to_owned(), name.to_owned()));
    }

    pub(super) fn opening(&mut self, lines: &[&str]) -> Result<(), CommandError> {
        for (number, line) in lines.iter().enumerate() {
            let style = if number == 0 {
                Style::Bold
            } else {
                Style::Plain
            };
            self.line(&self.paint(style, line))?;
        }
        Ok(())
    }

    /// A step begins.
    pub(super) fn begin(
        &mut self,
        (name, title): (&'static str, &str),
    ) -> Result<(), CommandError> {
        self.step += 1;
        self.name = name;
        self.step_started = Instant::now();
        let heading = format!("{}  {title}", self.step);
        self.line("")?;
        self.line(&self.paint(Style::Heading, &heading))
    }

    /// An empty line.
    pub(super) fn gap(&mut self) -> Result<(), CommandError> {
        self.line("")
    }

    /// A sentence or two.
    pub(super) fn say(&mut self, text: &str) -> Result<(), CommandError> {
        for line in wrapped(&self.named(text), WIDTH - INDENT.len()) {
            self.line(&format!("{INDENT}{line}"))?;
        }
        Ok(())
    }

    /// A label and what belongs to it.
    pub(super) fn fact(&mut self, label: &str, text: &str) -> Result<(), CommandError> {
        let text = self.named(text);
        self.verbatim(label, &text)
    }

    /// The same, with fingerprints as they are.
    pub(super) fn verbatim(&mut self, mut label: &str, text: &str) -> Result<(), CommandError> {
        for line in wrapped(text, WIDTH - INDENT.len() - LABEL) {
            let painted = self.paint(Style::Faint, &format!("{label:<LABEL$}"));
            self.line(format!("{INDENT}{painted}{line}").trim_end())?;
            label = "";
        }
        Ok(())
    }

    /// One of many checks, and what it was about.
    pub(super) fn check(&mut self, name: &str, what: &str) -> Result<(), CommandError> {
        let mut name = self.paint(Style::Good, &format!("{name:<LABEL$}"));
        for line in wrapped(&self.named(what), WIDTH - 2 * INDENT.len() - LABEL) {
            self.line(format!("{INDENT}{INDENT}{name}{line}").trim_end())?;
            name = " ".repeat(LABEL);
        }
        Ok(())
    }

    /// A row of data, as it is.
    pub(super) fn row(&mut self, text: &str) -> Result<(), CommandError> {
        let text = self.named(text);
        self.line(&format!("{INDENT}{INDENT}{text}"))
    }

    /// Something that was checked and holds.
    pub(super) fn proof(&mut self, text: &str) -> Result<(), CommandError> {
        self.marked(Style::Good, "✓", text)
    }

    /// Something that was refused, or found false, as it should be.
    pub(super) fn refusal(&mut self, text: &str) -> Result<(), CommandError> {
        self.marked(Style::Bad, "✗", text)
    }

    /// A command to try, with what it is for.
    pub(super) fn command(&mut self, command: &str, what: &str) -> Result<(), CommandError> {
        let painted = self.paint(Style::Bold, command);
        self.line(&format!("{INDENT}{painted}"))?;
        let painted = self.paint(Style::Faint, what);
        self.line(&format!("{INDENT}{INDENT}{painted}"))
    }

    /// The step did what it says: its facts, for a program.
    pub(super) fn end(&mut self, facts: Value) -> Result<(), CommandError> {
        let mut object = self.head(true);
        if let (Some(object), Value::Object(facts)) = (object.as_object_mut(), facts) {
            object.extend(facts);
        }
        self.object(&object)
    }

    pub(super) fn closing(&mut self) -> Result<(), CommandError> {
        let text = format!(
            "Told and checked in {:.1} s.",
            self.started.elapsed().as_secs_f64()
        );
        self.line("")?;
        self.line(&self.paint(Style::Faint, &text))
    }

    /// A failure gets the step's name; the facts of a program end with it.
    ///
    /// # Errors
    /// The failure.
    pub(super) fn done<T>(&mut self, result: Result<T, CommandError>) -> Result<T, CommandError> {
        result.map_err(|mut error| {
            // Who closed the pipe or pressed Ctrl-C knows why it ends.
            if error.code == ErrorCode::Interrupted {
                return error;
            }
            error.message = format!("step {} ({}): {}", self.step, self.name, error.message);
            let mut object = self.head(false);
            object["error"] =
                json!({ "code": error.code, "message": error.message, "advice": error.advice });
            // The first failure is the one to be told.
            let _ = self.object(&object);
            error
        })
    }

    fn head(&self, ok: bool) -> Value {
        let took = self.step_started.elapsed().as_micros();
        json!({
            "step": self.step,
            "name": self.name,
            "ok": ok,
            "took_us": u64::try_from(took).unwrap_or(u64::MAX),
        })
    }

    fn object(&mut self, object: &Value) -> Result<(), CommandError> {
        if self.output.is_json() {
            self.output.data(&format!("{object}\n"))?;
        }
        Ok(())
    }

    fn marked(&mut self, style: Style, mark: &str, text: &str) -> Result<(), CommandError> {
        let text = self.named(text);
        let mut mark = self.paint(style, mark);
        for line in wrapped(&text, WIDTH - INDENT.len() - 2) {
            self.line(&format!("{INDENT}{mark} {line}"))?;
            mark = " ".to_owned();
        }
        Ok(())
    }

    fn line(&mut self, text: &str) -> Result<(), CommandError> {
        if self.output.is_json() {
            return Ok(());
        }
        self.output.data(&format!("{text}\n"))
    }

    fn named(&self, text: &str) -> String {
        self.names
            .iter()
            .fold(text.to_owned(), |text, (authority, name)| {
                // Where a text says both, once is enough.
                text.replace(&format!("{name} ({authority})"), name)
                    .replace(&format!("{authority} ({name})"), name)
                    .replace(authority, name)
            })
    }

    fn paint(&self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Bad => "31",
            Style::Bold => "1",
            Style::Faint => "2",
            Style::Good => "32",
            Style::Heading => "1;36",
            Style::Plain => "",
        };
        if self.has_color && !code.is_empty() && !text.is_empty() {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

#[derive(Clone, Copy)]
enum Style {
    Bad,
    Bold,
    Faint,
    Good,
    Heading,
    Plain,
}

/// Lines of at most `width` characters, broken between words; a word that is longer has a line of its own.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        let mut length = 0;
        for word in paragraph.split_whitespace() {
            let word_length = word.chars().count();
            if length > 0 && length + 1 + word_length > width {
                lines.push(std::mem::take(&mut line));
                length = 0;
            }
            if length > 0 {
                line.push(' ');
                length += 1;
            }
            line.push_str(word);
            length += word_length;
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_broken_between_words_and_nowhere_else() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("seventeen is long", 4), ["seventeen", "is", "long"]);
        assert_eq!(wrapped("a\nb", 10), ["a", "b"]);
        assert_eq!(wrapped("", 10), [""]);
    }
}
