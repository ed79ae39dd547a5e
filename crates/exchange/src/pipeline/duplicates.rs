//! Handing in twice is safe: who published what, rebuilt from the log's annotations.
//!
//! A publisher that numbers its events is recognised for ever: the last number of each (key, series, stream) is kept, and the
//! positions of the last [`RUNS_MAX`] runs of numbers, so that a repeat gets the first answer. Events without numbers are recognised by
//! (`source`, `id`) within the last [`UNNUMBERED_WINDOW`] entries of the stream.

use std::collections::{HashMap, VecDeque};

use countersign_crypto::sha256_of;
use countersign_event::attributes::Attributes;
use countersign_store::journal::LogNumber;
use serde::{Deserialize, Serialize};

/// Runs remembered for each series: a run is numbers that went to consecutive sequences, so this is at least the last 1,024 batches.
pub const RUNS_MAX: usize = 1024;

/// Entries of a stream within which (`source`, `id`) is recognised; about 64 bytes each in memory, only for streams that have such publishers.
pub const UNNUMBERED_WINDOW: usize = 65_536;

/// Who numbers: an application's key and a series of its own choice; zeros = unnumbered.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Publisher {
    /// The application's public key.
    pub key: [u8; 32],
    /// Its series.
    pub series: [u8; 16],
}

impl Publisher {
    /// Whether events come with numbers.
    #[must_use]
    pub fn is_numbered(&self) -> bool {
        self.series != [0; 16]
    }
}

/// Numbers that went to consecutive sequences of one log. Stored as annotation of the commit.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct PublicationRun {
    pub(crate) publisher: Publisher,
    pub(crate) first_number: u64,
    pub(crate) count: u32,
    pub(crate) first_sequence: u64,
}

impl PublicationRun {
    pub(crate) fn last_number(&self) -> u64 {
        self.first_number + u64::from(self.count) - 1
    }

    pub(crate) fn sequence_of(&self, number: u64) -> Option<u64> {
        let offset = number.checked_sub(self.first_number)?;
        (offset < u64::from(self.count)).then(|| self.first_sequence + offset)
    }
}

/// What is known of one series on one log.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Series {
    pub(crate) last_number: u64,
    pub(crate) last_sequence: u64,
    runs: VecDeque<(u64, u32, u64)>,
}

impl Series {
    fn add(&mut self, run: &PublicationRun) {
        self.last_number = run.last_number();
        self.last_sequence = run.first_sequence + u64::from(run.count) - 1;
        match self.runs.back_mut() {
            Some((first, count, sequence))
                if *first + u64::from(*count) == run.first_number
                    && *sequence + u64::from(*count) == run.first_sequence
                    && count.checked_add(run.count).is_some() =>
            {
                *count += run.count;
            }
            _ => self
                .runs
                .push_back((run.first_number, run.count, run.first_sequence)),
        }
        if self.runs.len() > RUNS_MAX {
            self.runs.pop_front();
        }
    }

    /// Where `number` lies, if it is within the window.
    pub(crate) fn sequence_of(&self, number: u64) -> Option<u64> {
        let at = self.runs.partition_point(|(first, _, _)| *first <= number);
        let (first, count, sequence) = *self.runs.get(at.checked_sub(1)?)?;
        (number < first + u64::from(count)).then(|| sequence + (number - first))
    }
}

/// All series of all logs. A snapshot of it is stored with the journal; the annotations since then bring it up to date.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Publishers {
    series: HashMap<(u32, Publisher), Series>,
}

impl Publishers {
    pub(crate) fn series(&self, log: LogNumber, publisher: &Publisher) -> Option<&Series> {
        self.series.get(&(log.value(), *publisher))
    }

    pub(crate) fn add(&mut self, log: LogNumber, run: &PublicationRun) {
        if run.publisher.is_numbered() && run.count > 0 {
            self.series
                .entry((log.value(), run.publisher))
                .or_default()
                .add(run);
        }
    }
}

/// The identity by which an unnumbered event is recognised.
pub(crate) type EventKey = [u8; 16];

/// The key of canonical attributes that have been checked.
pub(crate) fn event_key(attributes: &Attributes<'_>) -> EventKey {
    let digest = sha256_of(&[
        attributes.source().as_bytes(),
        &[0],
        attributes.id().as_bytes(),
    ]);
    let mut key = [0; 16];
    key.copy_from_slice(&digest[..16]);
    key
}

/// The window of one stream over (`source`, `id`).
#[derive(Debug, Default)]
pub(crate) struct UnnumberedWindow {
    known: HashMap<EventKey, u64>,
    order: VecDeque<(EventKey, u64)>,
}

impl UnnumberedWindow {
    pub(crate) fn get(&self, key: &EventKey) -> Option<u64> {
        self.known.get(key).copied()
    }

    pub(crate) fn add(&mut self, key: EventKey, sequence: u64) {
        self.known.insert(key, sequence);
        self.order.push_back((key, sequence));
        if self.order.len() > UNNUMBERED_WINDOW
            && let Some((oldest, sequence)) = self.order.pop_front()
            && self.known.get(&oldest) == Some(&sequence)
        {
            self.known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(first_number: u64, count: u32, first_sequence: u64) -> PublicationRun {
        let publisher = Publisher {
            key: [1; 32],
            series: [2; 16],
        };
        PublicationRun {
            publisher,
            first_number,
            count,
            first_sequence,
        }
    }

    #[test]
    fn numbers_map_to_the_sequences_they_got() {
        let mut series = Series::default();
        series.add(&run(1, 3, 10));
        series.add(&run(4, 2, 13));
        series.add(&run(6, 1, 40));
        assert_eq!((series.last_number, series.last_sequence), (6, 40));
        let found: Vec<_> = (0..8).map(|number| series.sequence_of(number)).collect();
        assert_eq!(
            found,
            [
                None,
                Some(10),
                Some(11),
                Some(12),
                Some(13),
                Some(14),
                Some(40),
                None
            ]
        );
        assert_eq!(series.runs.len(), 2);
    }

    #[test]
    fn a_series_remembers_a_bounded_number_of_runs_and_its_last_number_for_ever() {
        let mut series = Series::default();
        for number in 1..=3000 {
            series.add(&run(number, 1, number * 2));
        }
        assert_eq!(series.runs.len(), RUNS_MAX);
        assert_eq!(series.sequence_of(1), None);
        assert_eq!(series.sequence_of(3000), Some(6000));
        assert_eq!(series.last_number, 3000);
    }

    #[test]
    fn the_unnumbered_window_forgets_the_oldest() {
        let mut window = UnnumberedWindow::default();
        let key = |n: u64| -> EventKey { u128::from(n).to_be_bytes() };
        for n in 0..=UNNUMBERED_WINDOW as u64 {
            window.add(key(n), n);
        }
        assert_eq!(window.get(&key(0)), None);
        assert_eq!(window.get(&key(1)), Some(1));
        assert_eq!(window.known.len(), UNNUMBERED_WINDOW);
    }
}
