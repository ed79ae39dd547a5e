//! Filters as they are typed: `filter check`, and the filter of a subscription.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use countersign_event::cloudevents::from_json;
use countersign_event::content::Limits;
use countersign_filter::{Expression, Filter, FilterError, TEXT_BYTES_MAX};
use serde_json::{Value, json};

use super::args::FilterCheckArgs;
use super::parts::CommandResult;
use super::{Exit, Output, View};
use crate::errors::{CommandError, ErrorCode};

/// The largest event that is read: its data at most, and room for attributes and base64.
const EVENT_BYTES_MAX: u64 = 32 << 20;

/// `filter check`: what the filter is, and whether an event passes. Needs no node.
pub(super) fn check(args: &FilterCheckArgs, output: &mut Output) -> CommandResult {
    let typed = (args.expression.as_deref(), args.filter_json.as_deref());
    let filter = read(typed, output)?.ok_or_else(|| {
        CommandError::new(ErrorCode::Usage, "there is no filter to check")
            .advise("give an expression, or a file of rules with --filter-json")
    })?;
    let expression = args.expression.as_deref();
    let expression = expression.and_then(|text| Expression::parse(text).ok());
    let mut answer = json!({
        "filter": filter.canonical(),
        "digest": hex::encode(filter.digest()),
        "attributes": filter.names().collect::<Vec<_>>(),
    });
    if let Some(expression) = &expression {
        let result = expression.result_type();
        answer["result"] = result
            .map_or("as the attribute".to_owned(), |of| of.to_string())
            .into();
    }
    if let Some(path) = &args.event {
        let bytes = read_bounded(path, EVENT_BYTES_MAX)?;
        let event = from_json(&bytes, &Limits::default())
            .map_err(|error| CommandError::new(ErrorCode::EventInvalid, error))?;
        answer["matches"] = filter.matches(event.attribute_bytes()).into();
        if let Some(failure) =
            expression.and_then(|expression| expression.evaluate(event.attribute_bytes()).failure)
        {
            answer["because"] = Value::from(format!("{} (at byte {})", failure.kind, failure.at));
        }
    }
    output.value(&View::FIELDS, &answer)?;
    Ok(Exit::Ok)
}

/// The filter that an expression or a file of rules says, if there is one.
pub(crate) fn read(
    typed: (Option<&str>, Option<&Path>),
    output: &mut Output,
) -> Result<Option<Filter>, CommandError> {
    let (text, filter) = match typed {
        (Some(text), _) => (text.to_owned(), Filter::from_expression(text)),
        (None, Some(path)) => {
            let bytes = read_bounded(path, TEXT_BYTES_MAX as u64)?;
            let text = String::from_utf8(bytes).map_err(|_| {
                CommandError::new(
                    ErrorCode::FilterSyntax,
                    "the file of the filter is not UTF-8",
                )
            })?;
            let filter = Filter::from_json(&text);
            (text, filter)
        }
        (None, None) => return Ok(None),
    };
    filter.map(Some).map_err(|error| {
        // Within a file only the place in an expression is known, and its line is not the file's.
        if error.path.is_empty() && !output.is_json() {
            output.note(&error.pointer(&text));
        }
        refused(&error)
    })
}

fn refused(error: &FilterError) -> CommandError {
    let code = match error.code() {
        "filter-limit" => ErrorCode::FilterLimit,
        "filter-meaning" => ErrorCode::FilterMeaning,
        _ => ErrorCode::FilterSyntax,
    };
    CommandError::new(code, format_args!("the filter is not understood: {error}"))
        .advise("`countersign filter check` tries filters out; `schemas/filter.md` has the rules")
}

fn read_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>, CommandError> {
    let failed = |error: std::io::Error| {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorCode::NotFound,
            _ => ErrorCode::Io,
        };
        CommandError::new(
            code,
            format_args!("cannot read `{}`: {error}", path.display()),
        )
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > bytes_max {
        let message = format!(
            "`{}` is larger than the {bytes_max} bytes that are read",
            path.display()
        );
        return Err(CommandError::new(ErrorCode::Usage, message));
    }
    Ok(bytes)
}
