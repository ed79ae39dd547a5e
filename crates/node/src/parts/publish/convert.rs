//! The text of an event into its binary form: a CloudEvent as it is, or a plain object wrapped into one.

use countersign_crypto::SigningKey;
use countersign_event::attributes::AttributeError;
use countersign_event::author::{SignError, sign};
use countersign_event::cloudevents::{CloudEventError, from_json};
use countersign_event::content::{Event, EventError, Limits};
use countersign_event::data::DataError;
use countersign_event::ndjson::{FieldPath, JsonError, Line, Wrap, WrapFault};

use super::input::Text;
use crate::cli::PublishArgs;
use crate::errors::{CommandError, ErrorCode};
use crate::keys::read_key;

/// How texts become events.
#[derive(Debug)]
pub(super) struct Converter {
    wrap: Option<Wrap>,
    /// Whether `source` was given, or is the stream's origin.
    has_source: bool,
    limits: Limits,
    /// The author's key, where events are signed.
    author: Option<SigningKey>,
}

impl Converter {
    /// As the person asked for it. Until the node has said more ([`Converter::set_node`]), the format's limits hold, and the stream's name stands for
    /// its origin.
    ///
    /// # Errors
    /// [`ErrorCode::Usage`] for a field that cannot be one; what reading the author's key reports.
    pub(super) fn new(args: &PublishArgs) -> Result<Self, CommandError> {
        let field = |text: &Option<String>| {
            let parsed = text.as_deref().map(str::parse::<FieldPath>).transpose();
            parsed.map_err(|error| CommandError::new(ErrorCode::Usage, error))
        };
        let wrap = match &args.event_type {
            None => None,
            Some(kind) => Some(Wrap {
                source: args.source.clone().unwrap_or_else(|| args.stream.clone()),
                kind: kind.clone(),
                id_from: field(&args.id_from)?,
                time_from: field(&args.time_from)?,
            }),
        };
        Ok(Self {
            wrap,
            has_source: args.source.is_some(),
            limits: Limits::FORMAT,
            author: args.sign_as.as_deref().map(read_key).transpose()?,
        })
    }

    /// What the node says of the stream.
    pub(super) fn set_node(&mut self, origin: &str, data_bytes_max: u32) {
        if let Some(wrap) = self.wrap.as_mut().filter(|_| !self.has_source) {
            origin.clone_into(&mut wrap.source);
        }
        self.limits.data_bytes_max = data_bytes_max as usize;
    }

    /// The event that a text is, signed where an author signs. The signature is the same each time, so that an input can be handed in again.
    ///
    /// # Errors
    /// [`ErrorCode::EventInvalid`] and [`ErrorCode::EventTooLarge`], naming the line.
    pub(super) fn event(&self, text: &Text<'_>) -> Result<Event, CommandError> {
        let event = self.unsigned_event(text)?;
        let Some(key) = &self.author else {
            return Ok(event);
        };
        sign(&event.as_ref(), key, &self.limits).map_err(|error| match error {
            SignError::Event(error) => refused(text, error),
            error => invalid(text, error),
        })
    }

    fn unsigned_event(&self, text: &Text<'_>) -> Result<Event, CommandError> {
        match &self.wrap {
            None => from_json(text.bytes, &self.limits).map_err(|error| {
                let is_plain = matches!(
                    error,
                    CloudEventError::Event(EventError::Attributes(AttributeError::Missing { .. }))
                );
                let error = match error {
                    CloudEventError::Event(error) => refused(text, error),
                    CloudEventError::Json(error) => invalid(text, place_of(text, error)),
                    error => invalid(text, error),
                };
                if is_plain {
                    error.advise("each event has to be a CloudEvent; to wrap plain objects into events, add `--type TYPE`")
                } else {
                    error
                }
            }),
            Some(wrap) => {
                let line = Line {
                    bytes: text.bytes,
                    number: text.line,
                    end_offset: text.end_offset,
                };
                wrap.event(&line, &self.limits).map_err(|error| match error.source {
                    WrapFault::Event(error) => refused(text, error),
                    WrapFault::Json(error) => invalid(text, place_of(text, error)),
                    fault => invalid(text, fault),
                })
            }
        }
    }
}

/// An event whose parts are not in order, or too large.
fn refused(text: &Text<'_>, error: EventError) -> CommandError {
    let is_large = matches!(
        error,
        EventError::Attributes(AttributeError::TooLong { .. })
            | EventError::Data(
                DataError::DataTooLong { .. } | DataError::AuthorMaterialTooLong { .. }
            )
    );
    let code = if is_large {
        ErrorCode::EventTooLarge
    } else {
        ErrorCode::EventInvalid
    };
    CommandError::new(code, format_args!("line {}: {error}", text.line))
}

fn invalid(text: &Text<'_>, error: impl std::fmt::Display) -> CommandError {
    CommandError::new(
        ErrorCode::EventInvalid,
        format_args!("line {}: {error}", text.line),
    )
}

/// The parser counts lines within the text; people count them within the input.
fn place_of(text: &Text<'_>, error: JsonError) -> String {
    match error {
        JsonError::Syntax { line, column } => {
            let line = text.line.saturating_add(line.saturating_sub(1) as u64);
            if line == text.line {
                format!("this is not valid JSON at column {column}")
            } else {
                format!("this is not valid JSON in line {line}, column {column}")
            }
        }
        error => error.to_string(),
    }
}
