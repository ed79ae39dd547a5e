use countersign_event::time::Timestamp;

use crate::admin::StartAt;

/// Text that says no place in a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected a sequence, a time as `2026-01-02T03:04:05Z`, `start` or `now`")]
pub(crate) struct StartError;

/// Text that says no span of time.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected a span of time as `30s`, `45m`, `12h` or `7d`, at most 10 years")]
pub(crate) struct SpanError;

pub(crate) fn parse_start(text: &str) -> Result<StartAt, StartError> {
    match text {
        "now" => Ok(StartAt::Now),
        "start" => Ok(StartAt::Start),
        _ => {
            if let Ok(sequence) = text.parse() {
                return Ok(StartAt::Sequence(sequence));
            }
            Timestamp::parse_rfc3339(text)
                .map(|time| StartAt::Time(time.0))
                .map_err(|_| StartError)
        }
    }
}

/// Ten years of 365 days.
const SECONDS_MAX: u64 = 10 * 365 * 86_400;

pub(crate) fn parse_seconds(text: &str) -> Result<u64, SpanError> {
    let units = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)];
    units
        .iter()
        .find_map(|&(unit, seconds)| {
            let count: u64 = text.strip_suffix(unit)?.parse().ok()?;
            count.checked_mul(seconds)
        })
        .filter(|seconds| (1..=SECONDS_MAX).contains(seconds))
        .ok_or(SpanError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_a_sequence_a_time_or_a_word() {
        assert_eq!(parse_start("now"), Ok(StartAt::Now));
        assert_eq!(parse_start("start"), Ok(StartAt::Start));
        assert_eq!(parse_start("42"), Ok(StartAt::Sequence(42)));
        assert_eq!(
            parse_start("1970-01-01T00:00:01Z"),
            Ok(StartAt::Time(1_000_000))
        );
        for bad in ["", "-1", "yesterday", "2026-01-02", "18446744073709551616"] {
            assert_eq!(parse_start(bad), Err(StartError), "{bad}");
        }
    }

    #[test]
    fn a_span_has_a_unit() {
        assert_eq!(parse_seconds("7d"), Ok(604_800));
        assert_eq!(parse_seconds("45m"), Ok(2_700));
        for bad in [
            "",
            "7",
            "d",
            "0s",
            "-1d",
            "1w",
            "1.5h",
            "3651d",
            "18446744073709551615d",
        ] {
            assert_eq!(parse_seconds(bad), Err(SpanError), "{bad}");
        }
    }
}
