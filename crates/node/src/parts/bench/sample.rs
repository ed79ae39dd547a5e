//! The event that is measured with: five attributes of 148 bytes beside the data, a number in its id and a time in its data.

use std::time::{SystemTime, UNIX_EPOCH};

use countersign_event::attributes::{AttributesBuilder, Value};
use countersign_event::content::CONTENT_SALT_BYTES;
use countersign_event::data::DataPart;
use countersign_protocol::publish::{EVENT_HEADER_BYTES, write_event};

/// The attributes, as the output names them.
pub(super) const EVENT_ATTRIBUTES: &str =
    "id, source, type, datacontenttype, time (and specversion)";

const ID: &str = "0198f1c2-7c1e-7a43-9d55-3f0f5f1c8a77";
const SOURCE: &str = "https://sensors.example.org/plants/7/line/2";
const KIND: &str = "org.example.sensor.reading.v1";
const CONTENT_TYPE: &str = "application/json";
const TIME: &str = "2026-01-02T03:04:05.678Z";

/// Digits at the end of the id that number the events.
const ID_DIGITS: usize = 12;

/// Kind and flags, difference in time, two lengths, of an event of some KiB at most.
const ENTRY_FIELD_BYTES: usize = 9;

const STAMP_DIGITS: usize = 16;
const STAMP_BEFORE: &str = "{\"at\":\"";

/// An event in the clients' binary form, whose number and time are written over it in place.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    bytes: Vec<u8>,
    attribute_bytes: usize,
    id_at: usize,
    stamp_at: Option<usize>,
}

impl Sample {
    pub(super) fn new(data_bytes: u32) -> Self {
        let built = AttributesBuilder::new(ID, SOURCE, KIND)
            .with("datacontenttype", Value::String(CONTENT_TYPE))
            .with("time", Value::Timestamp(TIME))
            .build();
        // INVARIANT: the values are constants, and a test builds them.
        let attributes = built.unwrap_or_default();
        let data = data(data_bytes as usize);
        let mut data_part = Vec::with_capacity(data.len() + 1);
        // INVARIANT: text without author material always has an encoding.
        let _ = DataPart::text(&data).encode(&mut data_part);
        let mut bytes = Vec::new();
        write_event(&mut bytes, &attributes, &data_part);
        let id = attributes
            .windows(ID.len())
            .position(|window| window == ID.as_bytes());
        let id_at = EVENT_HEADER_BYTES + id.unwrap_or_default() + ID.len() - ID_DIGITS;
        let stamp_at = data
            .starts_with(STAMP_BEFORE)
            .then_some(bytes.len() - data.len() + STAMP_BEFORE.len());
        Self {
            bytes,
            attribute_bytes: attributes.len(),
            id_at,
            stamp_at,
        }
    }

    /// Bytes of the attributes' values.
    pub(super) fn attribute_value_bytes(&self) -> usize {
        [ID, SOURCE, KIND, CONTENT_TYPE, TIME]
            .iter()
            .map(|value| value.len())
            .sum()
    }

    /// Bytes of the attributes in canonical form, with names and `specversion`.
    pub(super) fn attribute_bytes(&self) -> usize {
        self.attribute_bytes
    }

    /// Bytes of the event on their way to a consumer: its content with its salts, and the fields of its entry that cannot be rebuilt.
    pub(super) fn wire_bytes(&self) -> usize {
        let content = self.bytes.len().saturating_sub(EVENT_HEADER_BYTES);
        CONTENT_SALT_BYTES + content + ENTRY_FIELD_BYTES
    }

    /// Bytes of the event in a batch.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The event with this number, made at `now_ns`, as it stands in a batch.
    pub(super) fn event(&mut self, number: u64, now_ns: u64) -> &[u8] {
        let mut rest = number;
        if let Some(digits) = self.bytes.get_mut(self.id_at..self.id_at + ID_DIGITS) {
            for digit in digits.iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
        if let Some(at) = self.stamp_at
            && let Some(digits) = self.bytes.get_mut(at..at + STAMP_DIGITS)
        {
            for (place, digit) in digits.iter_mut().enumerate() {
                *digit = b"0123456789abcdef"[(now_ns >> (60 - 4 * place)) as usize & 15];
            }
        }
        &self.bytes
    }

    /// Attributes and data part of the event made last.
    pub(super) fn parts(&self) -> (&[u8], &[u8]) {
        let start = EVENT_HEADER_BYTES.min(self.bytes.len());
        self.bytes[start..].split_at(self.attribute_bytes.min(self.bytes.len() - start))
    }
}

/// When the event was made whose encoded data part this is; `None` where the data has no room for it.
pub(super) fn made_ns(data_part: &[u8]) -> Option<u64> {
    let digits = data_part
        .get(1..)?
        .strip_prefix(STAMP_BEFORE.as_bytes())?
        .get(..STAMP_DIGITS)?;
    digits.iter().try_fold(0_u64, |sum, digit| {
        Some(sum << 4 | u64::from(char::from(*digit).to_digit(16)?))
    })
}

/// The system's clock: the same for all processes of a machine.
pub(super) fn now_ns() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn data(bytes: usize) -> String {
    let (before, between, after) = (STAMP_BEFORE, "\",\"pad\":\"", "\"}");
    let fixed = before.len() + STAMP_DIGITS + between.len() + after.len();
    let letters = |count: usize| {
        (0..count)
            .map(|at| char::from(b'a' + (at % 26) as u8))
            .collect::<String>()
    };
    match bytes.checked_sub(fixed) {
        Some(pad) => [
            before,
            &"0".repeat(STAMP_DIGITS),
            between,
            &letters(pad),
            after,
        ]
        .concat(),
        None => letters(bytes),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use countersign_event::content::{EventRef, Limits};

    use super::*;

    #[test]
    fn every_size_is_a_valid_event_that_carries_its_time() {
        for size in [0, 1, 33, 34, 256, 1_024, 16_384] {
            let mut sample = Sample::new(size);
            let length = sample.event(123_456_789_012, 0x0123_4567_89ab_cdef).len();
            assert_eq!(length, sample.len());
            let (attributes, data_part) = sample.parts();
            let event = EventRef::check(attributes, data_part, &Limits::default()).unwrap();
            assert_eq!(event.data().data.len(), size as usize);
            assert!(
                attributes
                    .windows(12)
                    .any(|window| window == b"123456789012")
            );
            let stamp = (size >= 34).then_some(0x0123_4567_89ab_cdef);
            assert_eq!(made_ns(data_part), stamp, "{size}");
        }
        assert_eq!(Sample::new(256).attribute_value_bytes(), 148);
    }
}
