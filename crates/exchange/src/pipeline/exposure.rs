//! What was handed out under an agreement and not receipted, whatever the session or series: a reader that comes again under a new series, or
//! further on, gets no second window.

/// Ranges remembered for one agreement. Beyond it the two nearest are taken for one, which counts too much and never too little.
const RANGES_MAX: usize = 256;

/// Positions handed out and not receipted, as disjoint ranges in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exposure {
    ranges: Vec<(u64, u64)>,
}

impl Exposure {
    /// How far may be handed out from `position`: what was handed out before may be sent again; beyond it, what the window has left.
    pub(crate) fn end_for(&self, position: u64, window: u64) -> u64 {
        let at = self.ranges.partition_point(|(_, to)| *to <= position);
        match self.ranges.get(at) {
            Some((from, to)) if *from <= position => *to,
            next => {
                let left = window.saturating_sub(self.outstanding());
                let end = position.saturating_add(left);
                next.map_or(end, |(from, _)| end.min(*from))
            }
        }
    }

    /// How many positions are handed out and not receipted.
    pub(crate) fn outstanding(&self) -> u64 {
        self.ranges.iter().map(|(from, to)| to - from).sum()
    }

    /// `[from, to)` was handed out.
    pub(crate) fn hand_out(&mut self, from: u64, to: u64) {
        if from >= to {
            return;
        }
        let first = self.ranges.partition_point(|(_, end)| *end < from);
        let after = self.ranges.partition_point(|(start, _)| *start <= to);
        let touching = &self.ranges[first..after];
        let from = touching.first().map_or(from, |(start, _)| from.min(*start));
        let to = touching.last().map_or(to, |(_, end)| to.max(*end));
        self.ranges.splice(first..after, [(from, to)]);
        if self.ranges.len() > RANGES_MAX {
            self.join_nearest();
        }
    }

    /// `[from, to)` was receipted.
    pub(crate) fn receipt(&mut self, from: u64, to: u64) {
        let left = self.ranges.iter().flat_map(|&(start, end)| {
            let before = (start, end.min(from));
            let behind = (start.max(to), end);
            [before, behind]
        });
        self.ranges = left.filter(|(start, end)| start < end).collect();
    }

    fn join_nearest(&mut self) {
        let gap = |at: usize| self.ranges[at + 1].0 - self.ranges[at].1;
        let Some(at) = (0..self.ranges.len() - 1).min_by_key(|at| gap(*at)) else {
            return;
        };
        self.ranges[at].1 = self.ranges[at + 1].1;
        self.ranges.remove(at + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_reader_that_comes_again_elsewhere_gets_no_second_window() {
        let mut exposure = Exposure::default();
        assert_eq!(exposure.end_for(0, 10), 10);
        exposure.hand_out(0, 10);
        assert_eq!(exposure.end_for(10, 10), 10);
        assert_eq!(exposure.end_for(500, 10), 500);
        // The same again is no further exposure.
        assert_eq!(exposure.end_for(3, 10), 10);
        exposure.receipt(0, 6);
        assert_eq!(exposure.end_for(10, 10), 16);
        assert_eq!(exposure.end_for(500, 10), 506);
        // Neither is there room for more behind a gap than before it.
        exposure.hand_out(500, 506);
        assert_eq!(exposure.end_for(10, 10), 10);
    }

    #[test]
    fn ranges_are_those_of_a_plain_set() {
        let mut state: u64 = 7;
        let mut next = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        let (mut exposure, mut plain) = (Exposure::default(), BTreeSet::new());
        for _ in 0..2_000 {
            let from = next(300);
            let to = from + next(20);
            if next(3) == 0 {
                exposure.receipt(from, to);
                plain.retain(|at| !(from..to).contains(at));
            } else {
                exposure.hand_out(from, to);
                plain.extend(from..to);
            }
            let listed: BTreeSet<u64> = exposure.ranges.iter().flat_map(|(a, b)| *a..*b).collect();
            assert_eq!(listed, plain);
            assert_eq!(exposure.outstanding(), plain.len() as u64);
        }
    }

    #[test]
    fn memory_is_bounded_and_counts_too_much_rather_than_too_little() {
        let mut exposure = Exposure::default();
        for at in 0..10_000 {
            exposure.hand_out(at * 10, at * 10 + 1);
        }
        assert!(exposure.ranges.len() <= RANGES_MAX);
        assert!(exposure.outstanding() >= 10_000);
    }
}
