//! Median and range of a few rounds.

/// Of several rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) lowest: f64,
    pub(super) highest: f64,
}

impl Spread {
    /// `None` where nothing was measured. The median of an even count is the mean of the two in the middle.
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let (lowest, highest) = (*sorted.first()?, *sorted.last()?);
        let high = *sorted.get(middle)?;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(*sorted.get(middle - 1)?, high)
        } else {
            high
        };
        Some(Self {
            median,
            lowest,
            highest,
        })
    }

    /// `1,234 (1,100–1,500)`; one value only where there is no range.
    pub(super) fn shown(&self) -> String {
        if self.lowest == self.highest {
            return number(self.median);
        }
        format!(
            "{} ({}–{})",
            number(self.median),
            number(self.lowest),
            number(self.highest)
        )
    }
}

/// With three significant digits at least, and commas between thousands.
pub(super) fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 0.1 || size == 0.0 => 2,
        _ => 4,
    };
    let text = format!("{value:.digits$}");
    let (whole, fraction) = text
        .split_once('.')
        .map_or((text.as_str(), None), |(whole, fraction)| {
            (whole, Some(fraction))
        });
    let (sign, whole) = whole
        .strip_prefix('-')
        .map_or(("", whole), |whole| ("-", whole));
    let mut grouped = String::new();
    for (at, digit) in whole.char_indices() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    match fraction {
        Some(fraction) => format!("{sign}{grouped}.{fraction}"),
        None => format!("{sign}{grouped}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_the_middle_and_both_ends() {
        for (values, expected) in [
            (&[7.0] as &[f64], (7.0, 7.0, 7.0)),
            (&[9.0, 1.0], (5.0, 1.0, 9.0)),
            (&[9.0, 1.0, 2.0], (2.0, 1.0, 9.0)),
        ] {
            let spread = Spread::of(values).unwrap();
            assert_eq!((spread.median, spread.lowest, spread.highest), expected);
        }
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn numbers_are_as_long_as_they_say_something() {
        for (value, expected) in [
            (1_234_567.8, "1,234,568"),
            (100.0, "100"),
            (1_000.0, "1,000"),
            (12.34, "12.3"),
            (0.5, "0.50"),
            (0.0123, "0.0123"),
            (0.0, "0.00"),
            (-1_234.0, "-1,234"),
        ] {
            assert_eq!(number(value), expected);
        }
        assert_eq!(
            Spread::of(&[3000.0, 1000.0, 2000.0]).unwrap().shown(),
            "2,000 (1,000–3,000)"
        );
        assert_eq!(Spread::of(&[3.0]).unwrap().shown(), "3.00");
    }
}
