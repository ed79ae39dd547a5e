//! Points in time as the log keeps them, and the RFC 3339 text that CloudEvents carry.

use std::fmt;

/// Microseconds since 1970-01-01T00:00:00Z, without leap seconds. The log's clock writes it; it never decreases in a log.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Timestamp(pub u64);

/// Why a text is no time that can be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TimeError {
    /// The instant lies before 1970, which the log's clock cannot express.
    #[error("the time lies before 1970-01-01T00:00:00Z")]
    Before1970,
    /// The instant lies outside the years that RFC 3339 and the calendar library share.
    #[error("the time lies outside the years that can be expressed (0000 to 9999)")]
    OutOfRange,
    /// A month, day, hour, minute, second or offset that does not exist.
    #[error("the time names a day, hour, minute, second or offset that does not exist")]
    NoSuchTime,
    /// Not of the form `2026-01-02T03:04:05.678Z`.
    #[error("the time is not of the form `2026-01-02T03:04:05.678Z` (RFC 3339)")]
    Syntax,
}

impl Timestamp {
    /// RFC 3339 in UTC with `Z`; six fraction digits where the microseconds are not zero, none otherwise. An instant
    /// after the last that the calendar knows (the end of the year 9999) is shown as that last one.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        let instant = i64::try_from(self.0)
            .ok()
            .and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok())
            .unwrap_or(jiff::Timestamp::MAX);
        rfc3339_of(instant)
    }

    /// The instant that an RFC 3339 text names; fractions beyond microseconds are cut off, and a leap second counts as
    /// the last second before it.
    ///
    /// # Errors
    /// [`TimeError`] for other text and for instants before 1970.
    pub fn parse_rfc3339(text: &str) -> Result<Self, TimeError> {
        let fields = Rfc3339::parse(text.as_bytes())?;
        let micros = fields.instant()?.as_microsecond();
        u64::try_from(micros)
            .map(Self)
            .map_err(|_| TimeError::Before1970)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

/// The RFC 3339 text of a number of milliseconds since 1970, which may be negative.
///
/// # Errors
/// [`TimeError::OutOfRange`] outside the years that can be expressed.
pub fn rfc3339_of_epoch_millis(millis: i64) -> Result<String, TimeError> {
    let instant = jiff::Timestamp::from_millisecond(millis).map_err(|_| TimeError::OutOfRange)?;
    if instant.as_microsecond() < FIRST_MICROSECOND {
        return Err(TimeError::OutOfRange);
    }
    Ok(rfc3339_of(instant))
}

/// An RFC 3339 text in UTC with `Z`, its fraction cut off; a leap second stays one.
///
/// # Errors
/// [`TimeError`] for other text, and for instants outside the years that can be expressed.
pub fn rfc3339_utc_seconds(text: &str) -> Result<String, TimeError> {
    let fields = Rfc3339::parse(text.as_bytes())?;
    let is_leap = fields.second == 60;
    let instant = fields.instant()?;
    let second = jiff::Timestamp::from_second(instant.as_microsecond().div_euclid(1_000_000))
        .map_err(|_| TimeError::OutOfRange)?;
    if second.as_microsecond() < FIRST_MICROSECOND {
        return Err(TimeError::OutOfRange);
    }
    let text = rfc3339_of(second);
    Ok(match is_leap {
        true => text.replace(":59Z", ":60Z"),
        false => text,
    })
}

/// 0000-01-01T00:00:00Z: RFC 3339 has no sign for years before it.
const FIRST_MICROSECOND: i64 = -62_167_219_200_000_000;

fn rfc3339_of(instant: jiff::Timestamp) -> String {
    let time = jiff::tz::Offset::UTC.to_datetime(instant);
    let mut text = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        time.year(),
        time.month(),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    );
    let micros = time.subsec_nanosecond() / 1000;
    if micros != 0 {
        text.push_str(&format!(".{micros:06}"));
    }
    text.push('Z');
    text
}

/// The numbers in an RFC 3339 text, each within its range and the day within its month.
///
/// Written by hand because every event's `time` passes here, a million a second: no allocation, no calendar arithmetic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rfc3339 {
    year: i16,
    month: i8,
    day: i8,
    hour: i8,
    minute: i8,
    second: i8,
    nanosecond: i32,
    /// East of UTC.
    offset_minutes: i32,
}

impl Rfc3339 {
    /// Reads `YYYY-MM-DDTHH:MM:SS[.fraction](Z|±HH:MM)`. RFC 3339 5.6: `T` and `Z` may be lower case; the space
    /// that its note tolerates in place of `T` is refused, as CloudEvents refers to the grammar alone.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, TimeError> {
        let (head, rest) = text.split_first_chunk::<19>().ok_or(TimeError::Syntax)?;
        let punctuation_ok = head[4] == b'-'
            && head[7] == b'-'
            && matches!(head[10], b'T' | b't')
            && head[13] == b':'
            && head[16] == b':';
        if !punctuation_ok {
            return Err(TimeError::Syntax);
        }
        let two = |at: usize| two_digits(head[at], head[at + 1]);
        let (century, year) = (two(0)?, two(2)?);
        let (month, day) = (two(5)?, two(8)?);
        let (hour, minute, second) = (two(11)?, two(14)?, two(17)?);
        let year = i16::from(century) * 100 + i16::from(year);
        let (nanosecond, zone) = fraction(rest)?;
        let offset_minutes = offset(zone)?;

        let exists = (1..=12).contains(&month)
            && day >= 1
            && day <= days_in(year, month)
            && hour <= 23
            && minute <= 59
            && second <= 60;
        if !exists {
            return Err(TimeError::NoSuchTime);
        }
        // A leap second is only ever the last of a UTC day.
        let utc_minute =
            (i32::from(hour) * 60 + i32::from(minute) - offset_minutes).rem_euclid(1440);
        if second == 60 && utc_minute != 1439 {
            return Err(TimeError::NoSuchTime);
        }
        Ok(Self {
            year,
            month,
            day,
            hour,
            minute,
            second,
            nanosecond,
            offset_minutes,
        })
    }

    fn instant(self) -> Result<jiff::Timestamp, TimeError> {
        let civil = jiff::civil::DateTime::new(
            self.year,
            self.month,
            self.day,
            self.hour,
            self.minute,
            self.second.min(59),
            self.nanosecond,
        )
        .map_err(|_| TimeError::OutOfRange)?;
        let offset = jiff::tz::Offset::from_seconds(self.offset_minutes * 60)
            .map_err(|_| TimeError::OutOfRange)?;
        offset
            .to_timestamp(civil)
            .map_err(|_| TimeError::OutOfRange)
    }
}

fn two_digits(tens: u8, ones: u8) -> Result<i8, TimeError> {
    if tens.is_ascii_digit() && ones.is_ascii_digit() {
        // At most 99.
        Ok(((tens - b'0') * 10 + (ones - b'0')).cast_signed())
    } else {
        Err(TimeError::Syntax)
    }
}

/// The fraction in nanoseconds, digits beyond the ninth cut off, and what follows it.
fn fraction(rest: &[u8]) -> Result<(i32, &[u8]), TimeError> {
    let Some((b'.', digits_on)) = rest.split_first() else {
        return Ok((0, rest));
    };
    let digits = digits_on
        .iter()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(digits_on.len());
    if digits == 0 {
        return Err(TimeError::Syntax);
    }
    let (digits, zone) = digits_on.split_at(digits);
    let (mut nanosecond, mut unit) = (0, 100_000_000);
    for digit in digits.iter().take(9) {
        nanosecond += unit * i32::from(digit - b'0');
        unit /= 10;
    }
    Ok((nanosecond, zone))
}

/// The offset in minutes east of UTC.
fn offset(zone: &[u8]) -> Result<i32, TimeError> {
    match zone {
        [b'Z' | b'z'] => Ok(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (two_digits(*h1, *h2)?, two_digits(*m1, *m2)?);
            if hours > 23 || minutes > 59 {
                return Err(TimeError::NoSuchTime);
            }
            let minutes = i32::from(hours) * 60 + i32::from(minutes);
            Ok(if *sign == b'-' { -minutes } else { minutes })
        }
        _ => Err(TimeError::Syntax),
    }
}

fn days_in(year: i16, month: i8) -> i8 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn check(text: &str, expected: Result<&str, TimeError>) {
        let found = Timestamp::parse_rfc3339(text).map(Timestamp::to_rfc3339);
        assert_eq!(found, expected.map(str::to_owned), "{text}");
    }

    #[test]
    fn rfc3339_is_read_as_the_instant_it_names() {
        check("1970-01-01T00:00:00Z", Ok("1970-01-01T00:00:00Z"));
        check("2026-01-02t03:04:05.25z", Ok("2026-01-02T03:04:05.250000Z"));
        check("2026-01-02T00:30:00+01:00", Ok("2026-01-01T23:30:00Z"));
        check("2026-01-01T23:30:00-01:00", Ok("2026-01-02T00:30:00Z"));
        check("2024-02-29T00:00:00Z", Ok("2024-02-29T00:00:00Z"));
        check("2000-02-29T00:00:00Z", Ok("2000-02-29T00:00:00Z"));
        check("2016-12-31T23:59:60Z", Ok("2016-12-31T23:59:59Z"));
        check("2017-01-01T00:59:60+01:00", Ok("2016-12-31T23:59:59Z"));
        check(
            "2026-01-01T00:00:00.1234567899999Z",
            Ok("2026-01-01T00:00:00.123456Z"),
        );
        check("2026-01-01T00:00:00-00:00", Ok("2026-01-01T00:00:00Z"));
    }

    #[test]
    fn what_is_not_rfc3339_is_refused() {
        for text in [
            "",
            "2026-01-02",
            "2026-01-02T03:04Z",
            "2026-01-02 03:04:05Z",
            "2026-01-02T03:04:05",
            "2026-01-02T03:04:05.Z",
            "2026-01-02T03:04:05,5Z",
            "2026-01-02T03:04:05+0100",
            "2026-01-02T03:04:05+01",
            "2026-01-02T03:04:05Z ",
            "2026-01-02T03:04:05Z[UTC]",
            "+026-01-02T03:04:05Z",
            "2026-1-02T03:04:05ZZ",
        ] {
            check(text, Err(TimeError::Syntax));
        }
    }

    #[test]
    fn times_that_do_not_exist_are_refused() {
        for text in [
            "2026-00-01T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2025-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:60Z",
            "2026-01-01T23:59:61Z",
            "2026-01-01T00:00:00+24:00",
            "2026-01-01T00:00:00+00:60",
        ] {
            check(text, Err(TimeError::NoSuchTime));
        }
    }

    #[test]
    fn instants_the_log_cannot_express_are_refused() {
        check("1969-12-31T23:59:59Z", Err(TimeError::Before1970));
        check("0000-01-01T00:00:00Z", Err(TimeError::Before1970));
        check("9999-12-31T23:59:59-23:59", Err(TimeError::OutOfRange));
    }

    #[test]
    fn any_number_of_microseconds_can_be_shown() {
        assert_eq!(Timestamp(1).to_rfc3339(), "1970-01-01T00:00:00.000001Z");
        assert!(Timestamp(u64::MAX).to_rfc3339().starts_with("9999-12-"));
        assert!(
            Timestamp(i64::MAX.cast_unsigned())
                .to_rfc3339()
                .starts_with("9999-12-")
        );
    }

    #[test]
    fn epoch_milliseconds_before_1970_are_written() {
        assert_eq!(
            rfc3339_of_epoch_millis(-1).unwrap(),
            "1969-12-31T23:59:59.999000Z"
        );
        assert_eq!(
            rfc3339_of_epoch_millis(i64::MIN),
            Err(TimeError::OutOfRange)
        );
        assert_eq!(
            rfc3339_of_epoch_millis(-62_167_219_200_001),
            Err(TimeError::OutOfRange)
        );
        assert_eq!(
            rfc3339_of_epoch_millis(-62_167_219_200_000).unwrap(),
            "0000-01-01T00:00:00Z"
        );
    }
}
