//! Ingest: bytes that somebody handed in → [`Drafts`], every one of which is a valid event within the limits.

use bytes::Bytes;
use countersign_event::author::AuthorFault;
use countersign_event::cloudevents::declares_json;
use countersign_event::content::{Event, EventError, EventRef, Limits};
use countersign_event::control::AuthorRule;
use countersign_event::data::DataState;
use countersign_event::fields::{self, FieldsError};
use countersign_protocol::publish::{
    EVENT_HEADER_BYTES, EventSpan, PublishBatchError, read_events, write_event,
};

/// Events whose form has been checked. They borrow nothing: the bytes are those that came.
#[derive(Clone, Debug)]
pub struct Drafts {
    bulk: Bytes,
    events: Vec<Draft>,
}

/// One checked event: where it lies, and what the check found out about its data.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draft {
    pub(super) span: EventSpan,
    pub(super) data_bytes: u32,
    pub(super) author_signed: bool,
    /// Whether its data is committed to member by member.
    pub(super) members: bool,
}

impl Draft {
    fn new(span: EventSpan, event: &EventRef<'_>) -> Self {
        Self {
            span,
            // The data lies within a data part, whose length is a u32.
            data_bytes: event.data().data.len() as u32,
            author_signed: event.data().author_material.is_some(),
            members: false,
        }
    }
}

/// Why a batch is refused. All or nothing: no event of it is taken.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum IngestError {
    /// One event is not what its author signed, or not signed as the stream wants it.
    #[error("event {index} of the batch is refused: {error}")]
    Author {
        /// Its place in the batch, from 0.
        index: usize,
        /// What is wrong.
        error: AuthorFault,
    },
    /// The batch is not one.
    #[error(transparent)]
    Batch(#[from] PublishBatchError),
    /// The stream commits to each member of an event's data, and one event has none.
    #[error(
        "event {index} of the batch is refused: the stream takes JSON objects as data, and {error}"
    )]
    Fields {
        /// Its place in the batch, from 0.
        index: usize,
        /// What its data is.
        error: FieldsError,
    },
    /// Nothing in it.
    #[error("the batch is empty")]
    Empty,
    /// One event is not valid.
    #[error("event {index} of the batch is not valid: {error}")]
    Event {
        /// Its place in the batch, from 0.
        index: usize,
        /// What is wrong.
        error: EventError,
    },
}

/// Whether an event's data is committed to member by member. On a stream that does that, data is a JSON object; an event without data, or with an explicit null, has
/// nothing to withhold and is committed to as a whole.
fn has_members(event: &EventRef<'_>, fields: bool) -> Result<bool, FieldsError> {
    match event.data().state {
        // What is stored and sent after sealing; nobody publishes it.
        DataState::Members | DataState::View => Err(FieldsError::Published),
        _ if !fields => Ok(false),
        DataState::Absent | DataState::Null => Ok(false),
        DataState::Text if declares_json(event.attributes().datacontenttype()) => {
            fields::check(event.data().data).map(|()| true)
        }
        DataState::Text | DataState::Binary => Err(FieldsError::NotJson),
    }
}

impl Drafts {
    /// Checks a batch in the clients' binary form: its authors' signatures by the stream's rule, and where the stream commits to members, that there are some.
    ///
    /// # Errors
    /// [`IngestError`].
    pub fn from_bulk(
        bulk: Bytes,
        count: u32,
        limits: &Limits,
        rule: Option<&AuthorRule>,
        fields: bool,
    ) -> Result<Self, IngestError> {
        let no_rule = AuthorRule::default();
        let rule = rule.unwrap_or(&no_rule);
        let spans = read_events(&bulk, count)?;
        if spans.is_empty() {
            return Err(IngestError::Empty);
        }
        let mut events = Vec::with_capacity(spans.len());
        for (index, span) in spans.into_iter().enumerate() {
            let event = EventRef::check(span.attributes(&bulk), span.data_part(&bulk), limits)
                .map_err(|error| IngestError::Event { index, error })?;
            if rule.required || event.data().author_material.is_some() {
                rule.judge(&event)
                    .map_err(|error| IngestError::Author { index, error })?;
            }
            let members = has_members(&event, fields);
            events.push(Draft {
                members: members.map_err(|error| IngestError::Fields { index, error })?,
                ..Draft::new(span, &event)
            });
        }
        Ok(Self { bulk, events })
    }

    /// Takes events that were checked when they were made.
    #[must_use]
    pub fn from_events(events: &[Event]) -> Self {
        let mut bulk = Vec::new();
        let mut drafts = Vec::with_capacity(events.len());
        for event in events {
            let span = EventSpan {
                offset: bulk.len() + EVENT_HEADER_BYTES,
                attribute_bytes: event.attribute_bytes().len() as u32,
                data_part_bytes: event.data_part_bytes().len() as u32,
            };
            drafts.push(Draft::new(span, &event.as_ref()));
            write_event(&mut bulk, event.attribute_bytes(), event.data_part_bytes());
        }
        Self {
            bulk: bulk.into(),
            events: drafts,
        }
    }

    pub(super) fn events(&self) -> &[Draft] {
        &self.events
    }

    pub(super) fn bulk(&self) -> &[u8] {
        &self.bulk
    }
}
