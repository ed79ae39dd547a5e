use std::num::NonZeroU32;

use countersign_crypto::{Hash, sha256};
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// The most plans of one stream: a list that a person chooses from.
pub const PLANS_MAX: usize = 32;

/// The longest text of one plan, in bytes: a ledger entry with as many as a stream may have stays far below its limit.
pub const PLAN_BYTES_MAX: usize = 16_384;

/// What happens to copies when the producer erases an event.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Erasure {
    /// A person decides.
    Ask,
    /// The consumer's node erases too.
    Obey,
}

/// How fast events are delivered: a bucket of `burst` events that fills at `events_per_second`. Each event that is sent takes one out, also one that is
/// sent again.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Events a second in the long run.
    pub events_per_second: NonZeroU32,
    /// Events that may come at once after a quiet time; absent = those of one second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst_events: Option<NonZeroU32>,
}

impl Rate {
    /// Events that may come at once.
    #[must_use]
    pub fn burst(&self) -> u64 {
        u64::from(self.burst_events.unwrap_or(self.events_per_second).get())
    }
}

/// What a quota is counted over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Period {
    /// A calendar day, UTC.
    Day,
    /// A calendar month, UTC.
    Month,
    /// So many seconds, counted from 1970 on.
    Seconds(NonZeroU32),
}

/// Text that is no period.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a period is `day`, `month`, or seconds such as `3600s`")]
pub struct PeriodError;

impl std::fmt::Display for Period {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Day => f.pad("day"),
            Self::Month => f.pad("month"),
            Self::Seconds(seconds) => write!(f, "{seconds}s"),
        }
    }
}

impl std::str::FromStr for Period {
    type Err = PeriodError;

    fn from_str(text: &str) -> Result<Self, PeriodError> {
        match text {
            "day" => return Ok(Self::Day),
            "month" => return Ok(Self::Month),
            _ => {}
        }
        let digits = text.strip_suffix('s').ok_or(PeriodError)?;
        // One text for each period: no sign, no leading zero, at most 9 digits.
        let plain = (1..=9).contains(&digits.len())
            && digits.bytes().all(|digit| digit.is_ascii_digit())
            && !digits.starts_with('0');
        let seconds = digits.parse().ok().filter(|_| plain);
        seconds.map(Self::Seconds).ok_or(PeriodError)
    }
}

impl Serialize for Period {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Period {
    /// The period that `time` lies in: its first moment, and the first moment of the next one.
    #[must_use]
    pub fn around(self, time: Timestamp) -> (Timestamp, Timestamp) {
        const DAY_US: u64 = 86_400_000_000;
        let length = match self {
            Self::Day => DAY_US,
            Self::Month => return month_around(time),
            Self::Seconds(seconds) => u64::from(seconds.get()) * 1_000_000,
        };
        let start = time.0 / length * length;
        (Timestamp(start), Timestamp(start.saturating_add(length)))
    }
}

fn month_around(time: Timestamp) -> (Timestamp, Timestamp) {
    const DAY_US: u64 = 86_400_000_000;
    let days = time.0 / DAY_US;
    let (year, month) = year_and_month(days);
    let (next_year, next_month) = if month == 12 {
        (year + 1, 1)
    } else {
        (year, month + 1)
    };
    let at = |year, month| Timestamp(days_before(year, month).saturating_mul(DAY_US));
    (at(year, month), at(next_year, next_month))
}

/// Days from 1970-01-01 to the first of a month. The calendar is turned so that the year begins in March and the day that comes and goes is its last.
fn days_before(year: u64, month: u64) -> u64 {
    let (year, month) = if month <= 2 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let in_year = (153 * month + 2) / 5;
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    (year * 365 + year / 4 - year / 100 + year / 400 + in_year) - 719_468
}

/// Year and month (from 1) of a day counted from 1970-01-01.
fn year_and_month(days: u64) -> (u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let days = days + 719_468;
    let (era, day) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let in_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * in_year + 2) / 153;
    let year = era * 400 + year;
    if month < 10 {
        (year, month + 3)
    } else {
        (year + 1, month - 9)
    }
}

/// How many different events, or how many of their data bytes, are delivered in a period: each limit that is set is enough alone. An event that is
/// sent again in the same period counts once.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// What it is counted over, by the producer's clock when events are handed out.
    pub period: Period,
    /// Events of a period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<u64>,
    /// Data bytes of a period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// How far before the agreement's `from` reading may begin: each limit that is set is enough alone, and `events` 0 means from then on.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// Entries before the first one of the agreement's time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<u64>,
    /// Seconds before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

/// What is not yes or no: how much, how, how fast. A member that is absent sets no limit.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// How many events the producer may be ahead of the last *verified* receipt, counted by position; at least 1.
    pub exposure_events: u64,
    /// What the consumer does when an event is erased.
    pub erasure: Erasure,
    /// How fast events are delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// How much is delivered in a period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
    /// How far back reading may begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<History>,
    /// Names of the top-level members of each event's data that are shown; the others are withheld. Of a stream that commits to members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<Vec<String>>,
    /// Which events are delivered: the canonical text of a filter. A subscriber's own filter counts beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
}

impl Default for Plan {
    /// 65,536 events of exposure: at 500,000 events a second a receipt each 65 ms, so that the window does not stop a fast
    /// reader, and about 16 MB of small events at risk.
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            exposure_events: 65_536,
            erasure: Erasure::Obey,
            rate: None,
            quota: None,
            history: None,
            fields: None,
            filter: None,
        }
    }
}

impl Plan {
    /// Its JSON text: members in the order of the schema, no white space, what is absent left out.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// SHA-256 of its text: its version.
    #[must_use]
    pub fn digest(&self) -> Hash {
        sha256(self.to_text().as_bytes())
    }
}

/// The plans that a producer offers for one stream: `schemas/plans.v1.json`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Plans {
    /// The plans, as they are listed.
    pub plans: Vec<Plan>,
}

/// Why plans are not offered.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PlansError {
    /// Bytes are limited, and nobody but the producer can count them.
    #[error(
        "plan `{plan}`: `quota.bytes` cannot be kept to beside `fields`, as a reader cannot check the length of what it is not shown: limit `quota.events`"
    )]
    BytesOfFields {
        /// Which plan.
        plan: String,
    },
    /// Nothing is limited though it says so.
    #[error("plan `{plan}`: `{member}` sets no limit: give it one, or leave it out")]
    Empty {
        /// Which plan.
        plan: String,
        /// Which member.
        member: &'static str,
    },
    /// Nothing would ever be delivered.
    #[error("plan `{plan}`: `{member}` is 0, so that nothing would ever be delivered")]
    Zero {
        /// Which plan.
        plan: String,
        /// Which member.
        member: &'static str,
    },
    /// A plan is too long.
    #[error("plan `{plan}` is longer than {PLAN_BYTES_MAX} bytes")]
    Long {
        /// Which plan.
        plan: String,
    },
    /// Too many.
    #[error("a stream has at most {PLANS_MAX} plans, not {found}")]
    Many {
        /// How many.
        found: usize,
    },
    /// A name cannot be typed.
    #[error(
        "`{plan}` is no name for a plan: 1 to 64 characters of a-z, 0-9, `.`, `_`, `-`, beginning with a letter or digit"
    )]
    Name {
        /// The name.
        plan: String,
    },
    /// Two plans have one name.
    #[error("two plans are called `{plan}`")]
    Twice {
        /// The name.
        plan: String,
    },
}

impl Plans {
    /// Whether they can be offered. What others offer is held to its form only: odd terms are theirs to agree to.
    ///
    /// # Errors
    /// [`PlansError`].
    pub fn check(&self) -> Result<(), PlansError> {
        if self.plans.len() > PLANS_MAX {
            let found = self.plans.len();
            return Err(PlansError::Many { found });
        }
        for (at, plan) in self.plans.iter().enumerate() {
            plan.check()?;
            if self.plans[..at].iter().any(|other| other.name == plan.name) {
                let plan = plan.name.clone();
                return Err(PlansError::Twice { plan });
            }
        }
        Ok(())
    }

    /// The plan of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Plan> {
        self.plans.iter().find(|plan| plan.name == name)
    }
}

impl Plan {
    fn check(&self) -> Result<(), PlansError> {
        let plan = || {
            self.name
                .chars()
                .filter(|c| !c.is_control())
                .take(80)
                .collect()
        };
        // As a stream's name: it is typed on command lines and asked for by policies.
        if self.name.parse::<crate::names::StreamName>().is_err() {
            return Err(PlansError::Name { plan: plan() });
        }
        if self.to_text().len() > PLAN_BYTES_MAX {
            return Err(PlansError::Long { plan: plan() });
        }
        let empty = |member| PlansError::Empty {
            plan: plan(),
            member,
        };
        let zero = |member| PlansError::Zero {
            plan: plan(),
            member,
        };
        if self.exposure_events == 0 {
            return Err(zero("exposure_events"));
        }
        if let Some(quota) = &self.quota {
            if quota.events.is_none() && quota.bytes.is_none() {
                return Err(empty("quota"));
            }
            if quota.events == Some(0) || quota.bytes == Some(0) {
                return Err(zero("quota"));
            }
            if quota.bytes.is_some() && self.fields.is_some() {
                return Err(PlansError::BytesOfFields { plan: plan() });
            }
        }
        match &self.history {
            Some(history) if history.events.is_none() && history.seconds.is_none() => {
                Err(empty("history"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    #[test]
    fn periods_are_those_of_the_calendar_in_utc() {
        let around = |period: Period, time| {
            let (start, end) = period.around(at(time));
            (start.to_rfc3339(), end.to_rfc3339())
        };
        let texts = |start: &str, end: &str| (start.to_owned(), end.to_owned());
        for (time, start, end) in [
            (
                "1970-01-01T00:00:00Z",
                "1970-01-01T00:00:00Z",
                "1970-02-01T00:00:00Z",
            ),
            (
                "2024-02-29T23:59:59.999999Z",
                "2024-02-01T00:00:00Z",
                "2024-03-01T00:00:00Z",
            ),
            (
                "2025-12-31T23:59:59Z",
                "2025-12-01T00:00:00Z",
                "2026-01-01T00:00:00Z",
            ),
            (
                "2026-03-01T00:00:00Z",
                "2026-03-01T00:00:00Z",
                "2026-04-01T00:00:00Z",
            ),
        ] {
            assert_eq!(around(Period::Month, time), texts(start, end));
        }
        assert_eq!(
            around(Period::Day, "2026-11-22T13:14:15.5Z"),
            texts("2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z")
        );
        let hour = Period::Seconds(NonZeroU32::new(3600).unwrap());
        assert_eq!(
            around(hour, "2026-11-22T13:14:15Z"),
            texts("2026-11-22T13:00:00Z", "2026-11-22T14:00:00Z")
        );
    }

    #[test]
    fn months_follow_each_other_without_gap_for_four_hundred_years() {
        let mut start = at("1999-12-01T00:00:00Z");
        for _ in 0..4_801 {
            let (this, next) = Period::Month.around(start);
            assert_eq!(this, start);
            let days = (next.0 - start.0) / 86_400_000_000;
            assert!((28..=31).contains(&days), "{days}");
            assert_eq!(Period::Month.around(Timestamp(next.0 - 1)).0, start);
            start = next;
        }
        assert_eq!(start, at("2400-01-01T00:00:00Z"));
    }

    #[test]
    fn a_period_has_one_text() {
        for good in ["day", "month", "1s", "999999999s"] {
            assert_eq!(good.parse::<Period>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "s",
            "0s",
            "01s",
            "+1s",
            "1",
            "1000000000s",
            "Day",
            "1 s",
        ] {
            assert_eq!(bad.parse::<Period>(), Err(PeriodError), "{bad}");
        }
    }

    #[test]
    fn plans_that_say_nothing_or_deliver_nothing_are_not_offered() {
        let check = |plan: Plan| Plans { plans: vec![plan] }.check();
        let quota = |events, bytes| Plan {
            quota: Some(Quota {
                period: Period::Day,
                events,
                bytes,
            }),
            ..Plan::default()
        };
        let history = |events| Plan {
            history: Some(History {
                events,
                seconds: None,
            }),
            ..Plan::default()
        };
        assert_eq!(check(quota(Some(1), None)), Ok(()));
        // What is not shown has a length that nobody but the producer knows.
        let in_part = |plan| Plan {
            fields: Some(vec!["item".to_owned()]),
            ..plan
        };
        assert_eq!(check(in_part(quota(Some(1), None))), Ok(()));
        assert_eq!(
            check(in_part(quota(Some(1), Some(1)))),
            Err(PlansError::BytesOfFields {
                plan: "default".to_owned()
            })
        );
        assert_eq!(check(history(Some(0))), Ok(()));
        assert!(matches!(
            check(quota(None, None)),
            Err(PlansError::Empty {
                member: "quota",
                ..
            })
        ));
        assert!(matches!(
            check(quota(None, Some(0))),
            Err(PlansError::Zero {
                member: "quota",
                ..
            })
        ));
        assert!(matches!(
            check(history(None)),
            Err(PlansError::Empty {
                member: "history",
                ..
            })
        ));
        let named = |name: &str| Plan {
            name: name.to_owned(),
            ..Plan::default()
        };
        assert!(matches!(
            check(named("Gold plan")),
            Err(PlansError::Name { .. })
        ));
        let twice = Plans {
            plans: vec![Plan::default(), Plan::default()],
        };
        assert!(matches!(twice.check(), Err(PlansError::Twice { .. })));
        let many = Plans {
            plans: (0..=PLANS_MAX).map(|n| named(&format!("p{n}"))).collect(),
        };
        assert_eq!(many.check(), Err(PlansError::Many { found: 33 }));
    }

    #[test]
    fn a_plan_without_new_members_has_the_text_it_always_had() {
        let text = r#"{"name":"default","exposure_events":65536,"erasure":"obey"}"#;
        assert_eq!(Plan::default().to_text(), text);
        assert_eq!(serde_json::from_str::<Plan>(text).unwrap(), Plan::default());
    }
}
