//! Latencies in buckets: constant memory, every value within 1.6 % of what was measured.

use serde_json::{Value, json};

/// Buckets for each power of two.
const STEPS: usize = 64;
const STEP_BITS: u32 = STEPS.ilog2();

/// Counts of nanoseconds.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: vec![0; (64 - STEP_BITS as usize + 1) * STEPS],
            count: 0,
            max: 0,
        }
    }
}

impl Histogram {
    pub(super) fn add(&mut self, ns: u64) {
        if let Some(bucket) = self.buckets.get_mut(place(ns)) {
            *bucket += 1;
        }
        self.count += 1;
        self.max = self.max.max(ns);
    }

    /// The lowest value of the bucket within which `share` of all values lie at or below.
    pub(super) fn quantile(&self, share: f64) -> u64 {
        let wanted = (self.count as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (at, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return lowest(at);
            }
        }
        self.max
    }

    /// Quantiles in microseconds; null where nothing was measured.
    pub(super) fn to_json(&self) -> Value {
        if self.count == 0 {
            return Value::Null;
        }
        let us = |ns: u64| super::rounded(ns as f64 / 1e3, 1);
        json!({
            "p50_us": us(self.quantile(0.5)),
            "p99_us": us(self.quantile(0.99)),
            "p999_us": us(self.quantile(0.999)),
            "max_us": us(self.max),
            "samples": self.count,
        })
    }
}

/// Values below `STEPS` have a bucket each; above, the leading bit and the next six name it.
fn place(ns: u64) -> usize {
    if ns < STEPS as u64 {
        return ns as usize;
    }
    let shift = ns.ilog2() - STEP_BITS;
    (shift as usize + 1) * STEPS + ((ns >> shift) as usize - STEPS)
}

fn lowest(place: usize) -> u64 {
    match (place / STEPS).checked_sub(1) {
        None => place as u64,
        Some(shift) => ((place % STEPS + STEPS) as u64) << shift,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_a_bucket_that_begins_within_two_hundredths_below_it() {
        for ns in (0..70).chain([
            127,
            128,
            129,
            1_000,
            123_456,
            1 << 40,
            u64::MAX - 1,
            u64::MAX,
        ]) {
            let low = lowest(place(ns));
            assert!(
                low <= ns && (ns - low) as f64 <= ns as f64 / 50.0,
                "{ns}: {low}"
            );
            assert!(place(ns) < Histogram::default().buckets.len());
        }
    }

    #[test]
    fn quantiles_count_from_the_smallest() {
        let mut histogram = Histogram::default();
        (1..=1_000).for_each(|ns| histogram.add(ns));
        assert!((490..=500).contains(&histogram.quantile(0.5)));
        assert!((975..=990).contains(&histogram.quantile(0.99)));
        assert_eq!(Histogram::default().to_json(), Value::Null);
    }
}
