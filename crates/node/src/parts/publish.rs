//! `publish`: events out of a file or stdin into a stream, through the same messages that applications send over QUIC.
//!
//! ```text
//! file, stdin ─► pieces ─► Splitter ─► Converter ─► open batch ─► Session ─► node
//!                          texts       events       256 KiB       window ◄─ PublishAck
//! ```
//!
//! Handing in the same input again stores nothing twice: an event's number is its place in the input, and the series is made from the stream and the
//! first event. The node says up to which number it holds the series; the event of that number is sent once more, so that an input that was edited
//! is told from one that has grown.

mod convert;
mod input;
mod session;
#[cfg(test)]
mod tests;

use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Instant;

use countersign_crypto::{Entropy as _, OsEntropy, sha256_of};
use countersign_event::content::Event;
use countersign_protocol::PublishOpen;
use countersign_protocol::publish::write_event;
use serde::Serialize;
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::convert::Converter;
use self::input::{Splitter, TEXT_BYTES_MAX, Text};
use self::session::{Batch, Door, Session, Stored};
use crate::admin::Node;
use crate::cli::{CommandResult, Exit, Output, PublishArgs, View};
use crate::errors::{CommandError, ErrorCode};

/// Bytes read at once.
const PIECE_BYTES: usize = 256 << 10;

/// Pieces that are read ahead.
const PIECES_AHEAD: usize = 2;

/// Events of a batch at most, whatever `--batch` says: the node keeps a few words for each while it checks the batch.
const BATCH_EVENTS_MAX: u32 = 16_384;

/// Hands in what a file or stdin holds, and prints the summary. Memory stays within the node's window, a few pieces and one event, however long
/// the input is.
///
/// # Errors
/// [`ErrorCode::EventInvalid`], [`ErrorCode::EventTooLarge`], [`ErrorCode::Conflict`] where the input was edited, what the node refuses, what reading
/// reports. What was acknowledged before stays, and the message says how much that is.
pub(crate) async fn publish(args: &PublishArgs, node: &Node, output: &mut Output) -> CommandResult {
    let summary = if args.file == Path::new("-") {
        hand_in(args, node, stdin()?, None, output).await?
    } else {
        let (file, bytes) = open_file(&args.file).await?;
        hand_in(args, node, file, bytes, output).await?
    };
    let value = serde_json::to_value(&summary)
        .map_err(|error| CommandError::new(ErrorCode::Internal, error))?;
    output.value(&View::FIELDS, &value)?;
    Ok(Exit::Ok)
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Summary {
    stream: String,
    origin: String,
    /// In hexadecimal; `--series` takes it.
    series: String,
    /// Events stored now.
    published: u64,
    /// Events that were stored before.
    duplicates: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_sequence: Option<u64>,
    /// Bytes of input.
    bytes: u64,
    seconds: f64,
    events_per_second: u64,
}

/// Stdin without the lock and the small buffer of the library's own.
fn stdin() -> Result<File, CommandError> {
    let cloned = std::io::stdin().as_fd().try_clone_to_owned();
    let stdin = cloned.map_err(|error| {
        CommandError::new(ErrorCode::Io, format_args!("stdin cannot be read: {error}"))
    })?;
    Ok(File::from_std(stdin.into()))
}

async fn open_file(path: &Path) -> Result<(File, Option<u64>), CommandError> {
    let failed = |error: std::io::Error| {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorCode::NotFound,
            _ => ErrorCode::Io,
        };
        CommandError::new(
            code,
            format_args!("`{}` cannot be read: {error}", path.display()),
        )
    };
    let file = File::open(path).await.map_err(failed)?;
    let metadata = file.metadata().await.map_err(failed)?;
    if metadata.is_dir() {
        return Err(failed(std::io::ErrorKind::IsADirectory.into()));
    }
    // A pipe has no length to measure progress by.
    let bytes = metadata.is_file().then_some(metadata.len());
    Ok((file, bytes))
}

/// Hands in what `input` holds. `total` are its bytes, where they are known.
async fn hand_in<D: Door>(
    args: &PublishArgs,
    door: &D,
    input: impl AsyncRead + Send + Unpin + 'static,
    total: Option<u64>,
    output: &mut Output,
) -> Result<Summary, CommandError> {
    let started = Instant::now();
    let series = given_series(args)?;
    let mut converter = Converter::new(args)?;
    let mut input = Input::new(input);

    let first = input.first().await?;
    let series = match (series, &first) {
        (Some(series), _) => series,
        (None, Some(first)) => file_series(&args.stream, Some(&converter.event(&first.text())?)),
        // There is nothing to number, and still the stream is to be opened.
        (None, None) => file_series(&args.stream, None),
    };
    let open = PublishOpen {
        stream: args.stream.clone(),
        series,
        create: args.create,
    };
    let session = Session::open(door, open, args.attempts, output).await?;
    converter.set_node(&session.ready().origin, session.ready().event_bytes_max);

    let mut run = Run {
        events_max: args.batch.min(BATCH_EVENTS_MAX),
        held: session.ready().last_number,
        number: 0,
        skipped: None,
        batch: Batch::new(1),
        converter,
        session,
        total,
    };
    let result = run.all(&mut input, first, output).await;
    output.end_progress();
    let Run {
        session,
        held,
        number,
        ..
    } = run;
    let stored = session.stored;
    // What was checked is among the duplicates; what was skipped before it is added.
    let before = held.min(number).saturating_sub(1);
    result.map_err(|error| explain(error, &stored, before, args, &series))?;

    let seconds = started.elapsed().as_secs_f64();
    let ready = session.ready();
    Ok(Summary {
        stream: args.stream.clone(),
        origin: ready.origin.clone(),
        series: hex::encode(series),
        published: stored.published,
        duplicates: stored.duplicates + before,
        first_sequence: stored.first_sequence,
        last_sequence: stored.last_sequence,
        bytes: input.read,
        seconds: (seconds * 1_000.0).round() / 1_000.0,
        // A rate for people: below 2^53 the cast is exact enough, and it saturates above.
        events_per_second: (stored.published as f64 / seconds.max(0.001)) as u64,
    })
}

/// The series that the person named, or a fresh one; none where it follows from the input.
fn given_series(args: &PublishArgs) -> Result<Option<[u8; 16]>, CommandError> {
    if let Some(text) = &args.series {
        let mut series = [0; 16];
        let is_read = hex::decode_to_slice(text, &mut series).is_ok();
        // Zeros mean unnumbered on the wire.
        if !is_read || series == [0; 16] {
            let message = "a series is named by 32 hexadecimal digits that are not all zero";
            return Err(CommandError::new(ErrorCode::Usage, message));
        }
        return Ok(Some(series));
    }
    if !args.again {
        return Ok(None);
    }
    let mut entropy =
        OsEntropy::new().map_err(|error| CommandError::new(ErrorCode::Internal, error))?;
    let mut series = [0; 16];
    entropy.fill(&mut series);
    Ok(Some(not_zero(series)))
}

/// The series of an input: SHA-256 over a tag, the stream and the first event as it travels, cut to 16 bytes.
fn file_series(stream: &str, first: Option<&Event>) -> [u8; 16] {
    let mut bytes = Vec::new();
    if let Some(event) = first {
        write_event(&mut bytes, event.attribute_bytes(), event.data_part_bytes());
    }
    // A stream's name has no zero byte.
    let digest = sha256_of(&[b"countersign.file1", stream.as_bytes(), &[0], &bytes]);
    let mut series = [0; 16];
    series.copy_from_slice(&digest[..16]);
    not_zero(series)
}

/// Zeros mean unnumbered.
fn not_zero(mut series: [u8; 16]) -> [u8; 16] {
    series[15] |= u8::from(series == [0; 16]);
    series
}

/// Adds to a failure what is stored, and how to go on.
fn explain(
    mut error: CommandError,
    stored: &Stored,
    before: u64,
    args: &PublishArgs,
    series: &[u8; 16],
) -> CommandError {
    if error.code == ErrorCode::Conflict {
        // How much of this very input is stored is just what is not known.
        return error;
    }
    let events = stored
        .published
        .saturating_add(stored.duplicates)
        .saturating_add(before);
    let so_far = match (events, stored.last_line) {
        (0, _) => "nothing is stored of this input".to_owned(),
        (1, Some(line)) => format!("1 event is stored, up to line {line}"),
        (_, Some(line)) => format!("{events} events are stored, up to line {line}"),
        (_, None) => format!("{events} events are stored"),
    };
    error.message = format!("{}; {so_far}", error.message);
    if error.advice.is_none() {
        let mut advice =
            "correct it and hand in the same input again: it goes on where it stopped".to_owned();
        if args.again {
            advice = format!(
                "{advice}, with `--series {}` in place of `--again`",
                hex::encode(series)
            );
        }
        error.advice = Some(advice);
    }
    error
}

/// An event that the node holds already.
struct Skipped {
    text: OwnedText,
    number: u64,
}

/// The state of one run.
struct Run<'a, D> {
    session: Session<'a, D>,
    converter: Converter,
    /// Number of the event taken last.
    number: u64,
    /// The last number that the node holds.
    held: u64,
    /// The last event that was not sent because the node holds it.
    skipped: Option<Skipped>,
    batch: Batch,
    events_max: u32,
    total: Option<u64>,
}

impl<D: Door> Run<'_, D> {
    /// Takes everything, and waits for the answers to it. Where an event is not in order, those before it are stored first.
    async fn all(
        &mut self,
        input: &mut Input,
        first: Option<OwnedText>,
        output: &mut Output,
    ) -> Result<(), CommandError> {
        let taken = self.take_all(input, first, output).await;
        // After a refusal there is nobody to send to.
        if let Err(Failure::Node(error)) = taken {
            return Err(error);
        }
        self.check(output).await?;
        self.send(output).await?;
        self.session.drain(output).await?;
        self.session.close().await;
        match taken {
            Err(Failure::Input(error)) => Err(error),
            _ => Ok(()),
        }
    }

    async fn take_all(
        &mut self,
        input: &mut Input,
        first: Option<OwnedText>,
        output: &mut Output,
    ) -> Result<(), Failure> {
        if let Some(first) = first {
            self.take(&first.text(), output).await?;
        }
        loop {
            while let Some(text) = input.next_text().map_err(Failure::Input)? {
                self.take(&text, output).await?;
            }
            output.progress(input.done, self.total, "bytes");
            if self.session.is_idle() {
                // Input that comes slowly does not wait for company.
                self.send(output).await.map_err(Failure::Node)?;
            }
            tokio::select! {
                biased;
                answer = self.session.answer(), if !self.session.is_idle() => {
                    self.session.settle(answer, output).await.map_err(Failure::Node)?;
                }
                more = input.more() => {
                    if !more.map_err(Failure::Input)? {
                        return Ok(());
                    }
                }
            }
        }
    }

    async fn take(&mut self, text: &Text<'_>, output: &mut Output) -> Result<(), Failure> {
        self.number += 1;
        if self.number <= self.held {
            // Known to be stored: only the last of them is looked at, once it is known which that is.
            let number = self.number;
            match &mut self.skipped {
                Some(skipped) => {
                    skipped.text.set(text);
                    skipped.number = number;
                }
                None => {
                    let text = OwnedText::of(text);
                    self.skipped = Some(Skipped { text, number });
                }
            }
            return Ok(());
        }
        self.check(output).await.map_err(Failure::Node)?;
        let event = self.converter.event(text).map_err(Failure::Input)?;
        let (attributes, data_part) = (event.attribute_bytes(), event.data_part_bytes());
        let bytes = attributes.len() + data_part.len();
        if !self.batch.has_room(bytes, self.events_max) {
            self.send(output).await.map_err(Failure::Node)?;
        }
        self.batch.push(attributes, data_part, text.line);
        Ok(())
    }

    /// Sends the last event that the node holds once more, and waits for the answer: other bytes under its number are refused.
    async fn check(&mut self, output: &mut Output) -> Result<(), CommandError> {
        let Some(Skipped { text, number }) = self.skipped.take() else {
            return Ok(());
        };
        let line = text.line;
        let event = self.converter.event(&text.text())?;
        let mut batch = Batch::new(number);
        batch.push(event.attribute_bytes(), event.data_part_bytes(), line);
        let checked = match self.session.send(batch, output).await {
            Ok(()) => self.session.drain(output).await,
            refused => refused,
        };
        self.batch = Batch::new(number.saturating_add(1));
        checked.map_err(|error| match error.code {
            // The same event was taken before: all that can be wrong with it is that it is not the same.
            ErrorCode::Malformed => CommandError::new(
                ErrorCode::Conflict,
                format_args!(
                    "line {line} differs from what was published from this input before; nothing new was stored"
                ),
            )
            .advise("`--again` publishes the whole input once more, in a new series"),
            _ => error,
        })
    }

    /// Sends the open batch, as soon as the window has room for it.
    async fn send(&mut self, output: &mut Output) -> Result<(), CommandError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        while !self.session.admits(&self.batch) {
            let answer = self.session.answer().await;
            self.session.settle(answer, output).await?;
        }
        let batch = self.batch.take();
        self.session.send(batch, output).await
    }
}

/// Who failed: with the input, what came before it can still be stored.
enum Failure {
    Input(CommandError),
    Node(CommandError),
}

/// A text apart from the buffer it was in.
struct OwnedText {
    bytes: Vec<u8>,
    line: u64,
    end_offset: u64,
}

impl OwnedText {
    fn of(text: &Text<'_>) -> Self {
        let mut owned = Self {
            bytes: Vec::new(),
            line: 0,
            end_offset: 0,
        };
        owned.set(text);
        owned
    }

    fn set(&mut self, text: &Text<'_>) {
        self.bytes.clear();
        self.bytes.extend_from_slice(text.bytes);
        self.line = text.line;
        self.end_offset = text.end_offset;
    }

    fn text(&self) -> Text<'_> {
        Text {
            bytes: &self.bytes,
            line: self.line,
            end_offset: self.end_offset,
        }
    }
}

/// What is handed in: read ahead by a task that ends with it.
struct Input {
    pieces: mpsc::Receiver<std::io::Result<Vec<u8>>>,
    splitter: Splitter,
    /// Bytes up to the end of the text taken last.
    done: u64,
    /// Bytes that came.
    read: u64,
    _reader: JoinSet<()>,
}

impl Input {
    fn new(mut input: impl AsyncRead + Send + Unpin + 'static) -> Self {
        let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
        let mut reader = JoinSet::new();
        reader.spawn(async move {
            loop {
                let mut piece = Vec::with_capacity(PIECE_BYTES);
                let read = input.read_buf(&mut piece).await;
                let is_last = !matches!(read, Ok(1..));
                let read = read.map(|_| piece);
                if sender.send(read).await.is_err() || is_last {
                    return;
                }
            }
        });
        Self {
            pieces,
            splitter: Splitter::new(TEXT_BYTES_MAX),
            done: 0,
            read: 0,
            _reader: reader,
        }
    }

    /// The first text.
    async fn first(&mut self) -> Result<Option<OwnedText>, CommandError> {
        loop {
            if let Some(text) = self.next_text()? {
                return Ok(Some(OwnedText::of(&text)));
            }
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    fn next_text(&mut self) -> Result<Option<Text<'_>>, CommandError> {
        let text = self.splitter.next_text().map_err(|error| {
            let code = match error {
                input::InputError::TooLong { .. } => ErrorCode::EventTooLarge,
                _ => ErrorCode::EventInvalid,
            };
            CommandError::new(code, error)
        })?;
        if let Some(text) = &text {
            self.done = text.end_offset;
        }
        Ok(text)
    }

    /// Waits for a piece; false at the end, when all texts were taken. Cancel-safe.
    async fn more(&mut self) -> Result<bool, CommandError> {
        let piece = match self.pieces.recv().await {
            Some(Ok(piece)) => piece,
            Some(Err(error)) => {
                let message = format!("the input cannot be read: {error}");
                return Err(CommandError::new(ErrorCode::Io, message));
            }
            None => return Ok(false),
        };
        if piece.is_empty() {
            self.splitter.finish();
        } else {
            self.read += piece.len() as u64;
            self.splitter.push(&piece);
        }
        Ok(true)
    }
}
