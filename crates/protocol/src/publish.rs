//! The binary form in which a client hands in events.
//!
//! ```text
//! event = attribute length u16 ‖ data part length u32 ‖ attributes ‖ data part
//! ```

use bytes::Bytes;

/// Why a publish batch is refused as a whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PublishBatchError {
    /// The bytes end within an event, or go on after the last.
    #[error(
        "the batch does not hold the {count} events that it announces: it breaks off or goes on at byte {offset}"
    )]
    Length {
        /// Events announced.
        count: u32,
        /// Where it went wrong.
        offset: usize,
    },
}

/// Where one event lies in the bulk of a batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EventSpan {
    /// Offset of the attributes; the data part follows them.
    pub offset: usize,
    /// Bytes of the attributes.
    pub attribute_bytes: u32,
    /// Bytes of the data part.
    pub data_part_bytes: u32,
}

impl EventSpan {
    /// The attributes within the bulk.
    #[must_use]
    pub fn attributes<'a>(&self, bulk: &'a [u8]) -> &'a [u8] {
        &bulk[self.offset..self.offset + self.attribute_bytes as usize]
    }

    /// The data part within the bulk.
    #[must_use]
    pub fn data_part<'a>(&self, bulk: &'a [u8]) -> &'a [u8] {
        let start = self.offset + self.attribute_bytes as usize;
        &bulk[start..start + self.data_part_bytes as usize]
    }
}

/// Bytes before the attributes of each event.
pub const EVENT_HEADER_BYTES: usize = 6;

/// Appends one event to the bulk of a batch. The parts are within their limits (65,535 bytes of attributes; a data part below 2^32).
pub fn write_event(bulk: &mut Vec<u8>, attributes: &[u8], data_part: &[u8]) {
    bulk.extend_from_slice(&(attributes.len() as u16).to_be_bytes());
    bulk.extend_from_slice(&(data_part.len() as u32).to_be_bytes());
    bulk.extend_from_slice(attributes);
    bulk.extend_from_slice(data_part);
}

/// Finds the `count` events of a bulk. Their content is not judged here.
///
/// # Errors
/// [`PublishBatchError`].
pub fn read_events(bulk: &Bytes, count: u32) -> Result<Vec<EventSpan>, PublishBatchError> {
    // An event takes at least its header: a count that the bytes cannot hold allocates nothing.
    let fits = bulk.len() / EVENT_HEADER_BYTES;
    let mut spans = Vec::with_capacity((count as usize).min(fits));
    let mut offset = 0;
    for _ in 0..count {
        let span = read_header(bulk, offset).ok_or(PublishBatchError::Length { count, offset })?;
        offset = span.offset + span.attribute_bytes as usize + span.data_part_bytes as usize;
        if offset > bulk.len() {
            return Err(PublishBatchError::Length {
                count,
                offset: bulk.len(),
            });
        }
        spans.push(span);
    }
    if offset == bulk.len() {
        Ok(spans)
    } else {
        Err(PublishBatchError::Length { count, offset })
    }
}

fn read_header(bulk: &[u8], offset: usize) -> Option<EventSpan> {
    let header = bulk.get(offset..offset + EVENT_HEADER_BYTES)?;
    Some(EventSpan {
        offset: offset + EVENT_HEADER_BYTES,
        attribute_bytes: u32::from(u16::from_be_bytes([header[0], header[1]])),
        data_part_bytes: u32::from_be_bytes([header[2], header[3], header[4], header[5]]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_back_and_wrong_counts_are_refused() {
        let mut bulk = Vec::new();
        write_event(&mut bulk, b"attributes", b"data");
        write_event(&mut bulk, b"", b"");
        let bulk = Bytes::from(bulk);
        let spans = read_events(&bulk, 2).unwrap();
        assert_eq!(spans[0].attributes(&bulk), b"attributes");
        assert_eq!(spans[0].data_part(&bulk), b"data");
        assert!(spans[1].data_part(&bulk).is_empty());
        for count in [0, 1, 3, u32::MAX] {
            assert!(read_events(&bulk, count).is_err(), "{count}");
        }
        for cut in 0..bulk.len() {
            assert!(read_events(&bulk.slice(..cut), 2).is_err(), "{cut}");
        }
        let huge = Bytes::from_static(&[0xff; 64]);
        assert!(read_events(&huge, 1).is_err());
    }
}
