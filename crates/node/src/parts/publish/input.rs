//! Events out of bytes that arrive in pieces: which form the input has, and where each event begins and ends.
//!
//! ```text
//! [ {…}, {…} ]      a batch           one value at a time, however long the array is
//! {…}␊{…}␊          NDJSON            one line at a time, each line by itself
//! {␊ … ␊}           one event         or several after one another, as `jq` prints them
//! ```

use std::ops::Range;

use countersign_event::data::DATA_BYTES_MAX;
use countersign_event::ndjson::{LineSplitter, LineTooLong};

/// Largest text of one event that is read: the largest payload (16 MiB) in base64 or with as many escapes, and room for attributes. What the node
/// takes is less, and checked when the event is known.
pub(super) const TEXT_BYTES_MAX: usize = 2 * DATA_BYTES_MAX + (1 << 20);

/// The text of one event, and where it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Text<'a> {
    /// The bytes.
    pub(super) bytes: &'a [u8],
    /// The line it begins in, from 1.
    pub(super) line: u64,
    /// Bytes of input up to its end.
    pub(super) end_offset: u64,
}

/// Why there is no next event. Holds nothing of the input.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum InputError {
    /// The input ends within an event or a batch.
    #[error("the {what} that begins in line {line} is not complete: the input ends first")]
    Incomplete {
        /// What it is.
        what: &'static str,
        /// Where it begins.
        line: u64,
    },
    /// Something else than an event.
    #[error("line {line}: {expected} is wanted here")]
    Unexpected {
        /// Where it is.
        line: u64,
        /// What should be there.
        expected: &'static str,
    },
    /// An event passes the limit.
    #[error("the event in line {line} is longer than the {max} bytes that are read")]
    TooLong {
        /// Where it begins.
        line: u64,
        /// The limit.
        max: usize,
    },
}

impl From<LineTooLong> for InputError {
    fn from(error: LineTooLong) -> Self {
        let LineTooLong { line, max } = error;
        Self::TooLong { line, max }
    }
}

/// Splits input into the texts of events. Holds one event and the piece given last.
#[derive(Debug)]
pub(super) struct Splitter {
    form: Form,
    finished: bool,
    text_bytes_max: usize,
}

#[derive(Debug)]
enum Form {
    /// What came so far does not tell.
    Undecided {
        held: Vec<u8>,
        searched: usize,
    },
    Lines(LineSplitter),
    Values(Values),
}

impl Splitter {
    /// A splitter that refuses events of more than `text_bytes_max` bytes.
    pub(super) fn new(text_bytes_max: usize) -> Self {
        let held = Vec::new();
        Self {
            form: Form::Undecided { held, searched: 0 },
            finished: false,
            text_bytes_max,
        }
    }

    /// Adds a piece of input. All events are taken with [`Splitter::next_text`] before another is added.
    pub(super) fn push(&mut self, piece: &[u8]) {
        match &mut self.form {
            Form::Undecided { held, .. } => held.extend_from_slice(piece),
            Form::Lines(lines) => lines.push(piece),
            Form::Values(values) => values.push(piece),
        }
        self.decide();
    }

    /// Says that no more input comes.
    pub(super) fn finish(&mut self) {
        self.finished = true;
        self.decide();
        match &mut self.form {
            // Nothing but white space came.
            Form::Undecided { .. } => {}
            Form::Lines(lines) => lines.finish(),
            Form::Values(values) => values.finished = true,
        }
    }

    /// The next event, or nothing until more input was added.
    ///
    /// # Errors
    /// [`InputError`], from then on.
    pub(super) fn next_text(&mut self) -> Result<Option<Text<'_>>, InputError> {
        match &mut self.form {
            Form::Undecided { .. } => Ok(None),
            Form::Lines(lines) => Ok(lines.next_line()?.map(|line| Text {
                bytes: line.bytes,
                line: line.number,
                end_offset: line.end_offset,
            })),
            Form::Values(values) => values.next(),
        }
    }

    /// The form follows from the first byte, and for an object from whether it ends within its line.
    fn decide(&mut self) {
        let Form::Undecided { held, searched } = &mut self.form else {
            return;
        };
        let Some(start) = held.iter().position(|byte| !is_space(*byte)) else {
            // Line feeds before the first event count for the numbers of lines: a blank head is kept, but not without end.
            if held.len() > self.text_bytes_max {
                self.form = lines_of(held, self.text_bytes_max);
            }
            return;
        };
        let from = start.max(*searched);
        let line_end = held[from..].iter().position(|byte| *byte == b'\n');
        let is_values = match (held[start], line_end) {
            (b'[', _) => true,
            (b'{', Some(at)) => !is_closed(&held[start..from + at]),
            (b'{', None) if self.finished || held.len() > self.text_bytes_max => false,
            (b'{', None) => {
                *searched = held.len();
                return;
            }
            _ => false,
        };
        self.form = if is_values {
            let mut values = Values::new(self.text_bytes_max);
            values.push(held);
            Form::Values(values)
        } else {
            lines_of(held, self.text_bytes_max)
        };
    }
}

fn lines_of(held: &[u8], text_bytes_max: usize) -> Form {
    let mut lines = LineSplitter::new(text_bytes_max);
    lines.push(held);
    Form::Lines(lines)
}

/// Whether every object and array that `text` opens is closed in it.
fn is_closed(text: &[u8]) -> bool {
    let mut scan = Scan::default();
    text.iter().any(|byte| scan.step(*byte))
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Follows the nesting of JSON without judging it: the parser does that, once the end is known.
#[derive(Clone, Copy, Debug, Default)]
struct Scan {
    depth: usize,
    in_string: bool,
    is_escaped: bool,
}

impl Scan {
    /// Takes a byte; true where it closes what was opened first.
    fn step(&mut self, byte: u8) -> bool {
        match (self.in_string, byte) {
            (true, _) if self.is_escaped => self.is_escaped = false,
            (true, b'\\') => self.is_escaped = true,
            (true, b'"') => self.in_string = false,
            (true, _) => {}
            (false, b'"') => self.in_string = true,
            (false, b'{' | b'[') => self.depth += 1,
            (false, b'}' | b']') => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            (false, _) => {}
        }
        false
    }
}

/// Objects after one another, or the elements of one array.
#[derive(Debug)]
struct Values {
    buffer: Vec<u8>,
    /// What has been looked at.
    at: usize,
    /// Where the object under way begins, and in which line.
    open: Option<(usize, u64)>,
    scan: Scan,
    place: Place,
    line: u64,
    /// Bytes of input before the buffer.
    offset: u64,
    text_bytes_max: usize,
    finished: bool,
}

/// What may come between objects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    /// The first byte decides.
    Start,
    /// Objects without an array around them.
    Outside,
    /// After `[`, which is in this line: an object or `]`.
    First { opened: u64 },
    /// After a comma: an object.
    Next { opened: u64 },
    /// After an object: a comma or `]`.
    After { opened: u64 },
    /// After `]`: nothing.
    End,
}

impl Values {
    fn new(text_bytes_max: usize) -> Self {
        Self {
            buffer: Vec::new(),
            at: 0,
            open: None,
            scan: Scan::default(),
            place: Place::Start,
            line: 1,
            offset: 0,
            text_bytes_max,
            finished: false,
        }
    }

    fn push(&mut self, piece: &[u8]) {
        let keep = self.open.map_or(self.at, |(start, _)| start);
        self.buffer.drain(..keep);
        self.offset += keep as u64;
        self.at -= keep;
        if let Some((start, _)) = &mut self.open {
            *start = 0;
        }
        self.buffer.extend_from_slice(piece);
    }

    fn next(&mut self) -> Result<Option<Text<'_>>, InputError> {
        let Some((range, line)) = self.find()? else {
            return Ok(None);
        };
        Ok(Some(Text {
            end_offset: self.offset + range.end as u64,
            bytes: &self.buffer[range],
            line,
        }))
    }

    fn find(&mut self) -> Result<Option<(Range<usize>, u64)>, InputError> {
        while let Some(&byte) = self.buffer.get(self.at) {
            match self.open {
                None => self.between(byte)?,
                Some((start, line)) => {
                    if self.at - start >= self.text_bytes_max {
                        let max = self.text_bytes_max;
                        return Err(InputError::TooLong { line, max });
                    }
                    if self.scan.step(byte) {
                        self.at += 1;
                        self.open = None;
                        self.place = match self.place {
                            Place::First { opened } | Place::Next { opened } => {
                                Place::After { opened }
                            }
                            place => place,
                        };
                        return Ok(Some((start..self.at, line)));
                    }
                }
            }
            self.line += u64::from(byte == b'\n');
            self.at += 1;
        }
        self.check_end()?;
        Ok(None)
    }

    /// A byte that belongs to no object. On an error it is not passed, so that the same error comes again.
    fn between(&mut self, byte: u8) -> Result<(), InputError> {
        if is_space(byte) {
            return Ok(());
        }
        let line = self.line;
        self.place = match (self.place, byte) {
            (Place::Start, b'[') => Place::First { opened: line },
            (Place::Start | Place::Outside, b'{') => self.begin(Place::Outside),
            (place @ (Place::First { .. } | Place::Next { .. }), b'{') => self.begin(place),
            (Place::First { .. } | Place::After { .. }, b']') => Place::End,
            (Place::After { opened }, b',') => Place::Next { opened },
            (place, _) => {
                let expected = match place {
                    Place::Start | Place::Outside | Place::Next { .. } => "a JSON object",
                    Place::First { .. } => "a JSON object or the end of the batch",
                    Place::After { .. } => "a comma or the end of the batch",
                    Place::End => "nothing after the end of the batch",
                };
                return Err(InputError::Unexpected { line, expected });
            }
        };
        Ok(())
    }

    fn begin(&mut self, place: Place) -> Place {
        self.open = Some((self.at, self.line));
        self.scan = Scan {
            depth: 1,
            ..Scan::default()
        };
        place
    }

    fn check_end(&self) -> Result<(), InputError> {
        if !self.finished {
            return Ok(());
        }
        let (what, line) = match (self.open, self.place) {
            (Some((_, line)), _) => ("event", line),
            (None, Place::First { opened } | Place::Next { opened } | Place::After { opened }) => {
                ("batch", opened)
            }
            (None, Place::Start | Place::Outside | Place::End) => return Ok(()),
        };
        Err(InputError::Incomplete { what, line })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use proptest::prelude::*;

    use super::*;

    type Split = (Vec<(String, u64, u64)>, Option<InputError>);

    /// Texts, their lines and end offsets, and the error at the end, with the input in pieces of `size` bytes.
    fn split_in(input: &str, size: usize, max: usize) -> Split {
        let mut splitter = Splitter::new(max);
        let mut texts = Vec::new();
        let mut pieces = input.as_bytes().chunks(size);
        loop {
            loop {
                match splitter.next_text() {
                    Ok(Some(text)) => {
                        let bytes = String::from_utf8(text.bytes.to_vec()).unwrap();
                        texts.push((bytes, text.line, text.end_offset));
                    }
                    Ok(None) => break,
                    Err(error) => {
                        assert_eq!(splitter.next_text(), Err(error), "an error stays");
                        return (texts, Some(error));
                    }
                }
            }
            match pieces.next() {
                Some(piece) => splitter.push(piece),
                None if splitter.finished => return (texts, None),
                None => splitter.finish(),
            }
        }
    }

    #[track_caller]
    fn check(input: &str, expected: &[(&str, u64)], error: Option<InputError>) {
        for size in [1, 2, 3, 7, 1 << 20] {
            let (texts, found) = split_in(input, size, 64);
            let texts: Vec<(&str, u64)> = texts
                .iter()
                .map(|(text, line, _)| (&**text, *line))
                .collect();
            assert_eq!(texts, expected, "in pieces of {size}");
            assert_eq!(found, error, "in pieces of {size}");
        }
    }

    #[test]
    fn each_form_is_recognised_whatever_the_pieces() {
        check("", &[], None);
        check(" \n\n", &[], None);
        check("{\"a\":1}", &[("{\"a\":1}", 1)], None);
        check(
            "\n {\"a\":1}\r\n\n{}\n",
            &[(" {\"a\":1}", 2), ("{}", 4)],
            None,
        );
        check("{\n\"a\": 1\n}\n", &[("{\n\"a\": 1\n}", 1)], None);
        check("{\n}\n{\n}", &[("{\n}", 1), ("{\n}", 3)], None);
        check("[]", &[], None);
        check(
            "\n[\n{\"a\":\"]}\"},\n{\"b\":[{}]} ]\n",
            &[("{\"a\":\"]}\"}", 3), ("{\"b\":[{}]}", 4)],
            None,
        );
        check(r#"[{"a":"\\\"}"}]"#, &[(r#"{"a":"\\\"}"}"#, 1)], None);
    }

    #[test]
    fn a_broken_line_does_not_swallow_the_next() {
        check(
            "{}\n{\"a\":\n{}\n",
            &[("{}", 1), ("{\"a\":", 2), ("{}", 3)],
            None,
        );
        check("nonsense\n{}", &[("nonsense", 1), ("{}", 2)], None);
    }

    #[test]
    fn batches_that_break_off_or_are_no_batches_are_named_by_line() {
        let unexpected = |line, expected| Some(InputError::Unexpected { line, expected });
        let incomplete = |what, line| Some(InputError::Incomplete { what, line });
        check("[{}", &[("{}", 1)], incomplete("batch", 1));
        check("\n[{},", &[("{}", 2)], incomplete("batch", 2));
        check("[{},\n{\"a\"", &[("{}", 1)], incomplete("event", 2));
        check("{\n\"a\"", &[], incomplete("event", 1));
        check(
            "[{}\n{}]",
            &[("{}", 1)],
            unexpected(2, "a comma or the end of the batch"),
        );
        check("[{},]", &[("{}", 1)], unexpected(1, "a JSON object"));
        check(
            "[7]",
            &[],
            unexpected(1, "a JSON object or the end of the batch"),
        );
        check(
            "[{}]\n{}",
            &[("{}", 1)],
            unexpected(2, "nothing after the end of the batch"),
        );
        check("{\n}7", &[("{\n}", 1)], unexpected(2, "a JSON object"));
    }

    #[test]
    fn what_is_longer_than_the_limit_is_refused_before_its_end_comes() {
        let long = "x".repeat(100);
        for input in [
            format!("{{\"{long}"),
            format!("[{{\"{long}"),
            format!("{{\n\"{long}"),
            long,
        ] {
            let (texts, error) = split_in(&input, 16, 64);
            assert_eq!(
                (texts.len(), error),
                (0, Some(InputError::TooLong { line: 1, max: 64 }))
            );
        }
    }

    proptest! {
        #[test]
        fn pieces_change_nothing(input in "[\\[\\]{},\" \\\\\n1a]{0,60}", size in 1_usize..20) {
            prop_assert_eq!(split_in(&input, size, 24), split_in(&input, usize::MAX >> 1, 24));
        }

        #[test]
        fn offsets_lead_to_the_end_of_each_text(count in 1_usize..9, form in 0_usize..3) {
            let events: Vec<String> = (0..count).map(|n| format!("{{\"n\":{n}}}")).collect();
            let input = match form {
                0 => format!("[{}]", events.join(", ")),
                1 => events.join("\n"),
                _ => format!("{{\n}}{}", events.join(" ")),
            };
            let (texts, error) = split_in(&input, 5, 64);
            prop_assert_eq!(error, None);
            prop_assert_eq!(texts.len(), count + usize::from(form == 2));
            for (text, _, end) in texts {
                let end = end as usize;
                // A line ends with its line feed.
                prop_assert!(input[..end].trim_end().ends_with(&text));
            }
        }
    }
}
