//! What a report is asked about: `?from=…&to=…&detail=true`.

use crate::domain::time::Timestamp;
use jiff::{civil::Time, tz::TimeZone};
use std::time::Duration;
use url::form_urlencoded;

/// Longest stretch of time that one question may be about. Each interval in it has to be read.
pub const STRETCH_MAX: Duration = Duration::from_secs(6 * 3600);
/// Longest text of a time that is looked at, bytes.
const TEXT_BYTES_MAX: usize = 48;
const DAY_US: i64 = 86_400_000_000;

/// A stretch of time, or everything since start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Everything since the daemon started.
    SinceStart,
    /// From one instant, included, to another.
    Between(Timestamp, Timestamp),
}

/// Why a question cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    /// A parameter that there is not.
    #[error("there is no parameter {0:?}; there are from, to and detail")]
    Unknown(String),
    /// A time that cannot be read.
    #[error("{key} is {text:?}; give an RFC 3339 time, a time of day in UTC such as 14:05, a time ago such as -15m, or now")]
    NotATime {
        /// `from` or `to`.
        key: &'static str,
        /// What it says.
        text: String,
    },
    /// Neither yes nor no.
    #[error("detail is {0:?}; give true or false")]
    NotDetail(String),
    /// Only one end.
    #[error("to is given without from; give both, or from alone for everything until now")]
    NoFrom,
    /// Nothing lies between.
    #[error("from is not before to")]
    Empty,
    /// It has not happened yet.
    #[error("from lies in the future")]
    Future,
    /// Too much to read.
    #[error("from and to are more than {} hours apart; ask for less at once", STRETCH_MAX.as_secs() / 3600)]
    TooLong,
}

impl Question {
    /// Whether the query of a URL that [`Self::parse`] takes asks for [`Detail`](super::Detail).
    #[must_use]
    pub fn wants_detail(query: &str) -> bool {
        form_urlencoded::parse(query.as_bytes()).any(|(key, text)| key == "detail" && text == "true")
    }

    /// Reads the query of a URL; `now` is what relative times and times of day refer to.
    ///
    /// # Errors
    /// [`QuestionError`] says what is wrong.
    pub fn parse(query: &str, now: Timestamp) -> Result<Self, QuestionError> {
        let (mut from, mut to) = (None, None);
        for (key, text) in form_urlencoded::parse(query.as_bytes()) {
            // A plus that was not escaped is an offset's: nothing here has a space.
            let text = text.replace(' ', "+");
            match key.as_ref() {
                "from" => from = Some(time("from", &text, now)?),
                "to" => to = Some(time("to", &text, now)?),
                "detail" if matches!(text.as_str(), "true" | "false") => {}
                "detail" => return Err(QuestionError::NotDetail(text.chars().take(TEXT_BYTES_MAX).collect())),
                other => return Err(QuestionError::Unknown(other.chars().take(TEXT_BYTES_MAX).collect())),
            }
        }
        let (from, to) = match (from, to) {
            (None, None) => return Ok(Self::SinceStart),
            (None, Some(_)) => return Err(QuestionError::NoFrom),
            (Some(from), to) => (from, to.unwrap_or(now).min(now)),
        };
        if from > now {
            return Err(QuestionError::Future);
        }
        if from >= to {
            return Err(QuestionError::Empty);
        }
        if u128::from(to.0.abs_diff(from.0)) > STRETCH_MAX.as_micros() {
            return Err(QuestionError::TooLong);
        }
        Ok(Self::Between(from, to))
    }
}

fn time(key: &'static str, text: &str, now: Timestamp) -> Result<Timestamp, QuestionError> {
    let short = text.len() <= TEXT_BYTES_MAX;
    short
        .then(|| read(text, now))
        .flatten()
        .ok_or_else(|| QuestionError::NotATime { key, text: text.chars().take(TEXT_BYTES_MAX).collect() })
}

fn read(text: &str, now: Timestamp) -> Option<Timestamp> {
    if text == "now" {
        return Some(now);
    }
    if let Some(ago) = text.strip_prefix('-') {
        let unit_at = ago.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = ago.split_at(unit_at);
        let unit_us = match unit {
            "s" => 1_000_000,
            "m" => 60_000_000,
            "h" => 3_600_000_000,
            "d" => DAY_US,
            _ => return None,
        };
        return Some(Timestamp(now.0.checked_sub(number.parse::<i64>().ok()?.checked_mul(unit_us)?)?));
    }
    if let Ok(instant) = text.parse::<jiff::Timestamp>() {
        return Some(Timestamp(instant.as_microsecond()));
    }
    // The last time that it was so late.
    let time: Time = text.parse().ok().filter(|_| text.len() <= 8)?;
    let today = jiff::Timestamp::from_microsecond(now.0).ok()?.to_zoned(TimeZone::UTC).date();
    let today = today.to_datetime(time).to_zoned(TimeZone::UTC).ok()?.timestamp().as_microsecond();
    Some(Timestamp(if today > now.0 { today - DAY_US } else { today }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp(text.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_microsecond))
    }

    #[test]
    fn detail_is_told_to_those_who_ask_for_it() {
        for (query, expected) in [("", false), ("detail=true", true), ("from=-5m&detail=true", true), ("detail=false", false)] {
            assert_eq!(Question::wants_detail(query), expected, "{query}");
        }
    }

    #[test]
    fn questions_are_read_or_refused_with_a_reason() {
        let now = at("2026-03-04T15:10:00Z");
        let between = |from: &str, to: &str| Ok(Question::Between(at(from), at(to)));
        let not = |key, text: &str| Err(QuestionError::NotATime { key, text: text.to_owned() });
        for (query, expected) in [
            ("", Ok(Question::SinceStart)),
            ("from=14:05&to=14:06", between("2026-03-04T14:05:00Z", "2026-03-04T14:06:00Z")),
            ("from=14%3A05%3A30&to=14:06", between("2026-03-04T14:05:30Z", "2026-03-04T14:06:00Z")),
            // Yesterday's: it has not been 23:00 today.
            ("from=23:00&to=2026-03-04T00:30:00Z", between("2026-03-03T23:00:00Z", "2026-03-04T00:30:00Z")),
            ("from=-15m", between("2026-03-04T14:55:00Z", "2026-03-04T15:10:00Z")),
            ("from=-1h&to=-30s", between("2026-03-04T14:10:00Z", "2026-03-04T15:09:30Z")),
            ("from=2026-03-04T15:00:00.5%2B01:00&to=now", between("2026-03-04T14:00:00.5Z", "2026-03-04T15:10:00Z")),
            ("from=2026-03-04T15:00:00+01:00", between("2026-03-04T14:00:00Z", "2026-03-04T15:10:00Z")),
            ("from=15:00&to=2027-01-01T00:00:00Z", between("2026-03-04T15:00:00Z", "2026-03-04T15:10:00Z")),
            ("to=14:06", Err(QuestionError::NoFrom)),
            ("from=14:06&to=14:05", Err(QuestionError::Empty)),
            ("from=now", Err(QuestionError::Empty)),
            ("from=2026-03-05T00:00:00Z", Err(QuestionError::Future)),
            ("from=-7h", Err(QuestionError::TooLong)),
            ("from=-6h", between("2026-03-04T09:10:00Z", "2026-03-04T15:10:00Z")),
            ("form=14:05", Err(QuestionError::Unknown("form".to_owned()))),
            ("from=", not("from", "")),
            ("from=yesterday", not("from", "yesterday")),
            ("from=-15", not("from", "-15")),
            ("from=-m", not("from", "-m")),
            ("from=-5y", not("from", "-5y")),
            ("from=-99999999999999999999m", not("from", "-99999999999999999999m")),
            ("from=-9223372036854775807d", not("from", "-9223372036854775807d")),
            ("from=25:00", not("from", "25:00")),
            ("from=2026-03-04T14:05:00", not("from", "2026-03-04T14:05:00")),
            ("from=-5m&to=x", not("to", "x")),
            ("detail=true", Ok(Question::SinceStart)),
            ("from=-15m&detail=false", between("2026-03-04T14:55:00Z", "2026-03-04T15:10:00Z")),
            ("detail=yes", Err(QuestionError::NotDetail("yes".to_owned()))),
        ] {
            assert_eq!(Question::parse(query, now), expected, "{query}");
        }
    }
}
