//! What a result must be, as a person writes it: `p99<25ms`, `errors<0.1%`, `lost==0`, `achieved>990`.
//!
//! | metric | unit | meaning |
//! |---|---|---|
//! | `min` `mean` `p50` `p75` `p90` `p95` `p99` `p99.9` `p99.99` `max` | `us` `ms` `s` | response time, from the intended moment of sending |
//! | `service_time.p99` | as above | from the actual sending |
//! | `commit.p99`, any span | as above | as the daemon measured it |
//! | `lost` `duplicated` `unexpected` `unsent` `retries` | none | requests, of all that were sent |
//! | `late_approvals` | none | approvals that came when the requester had hung up, of all that were sent |
//! | `errors` | none, or `%` of answers | system declines, of all that were sent |
//! | `late` `declined` `approved` | none, or `%` of measured answers | those that are `deadline_exceeded`; declines; approvals; after the warm-up |
//! | `achieved` `offered` `ceiling` | none | requests a second |
//! | `p50_over_echo` | `us` `ms` `s` | response time's p50, over that of the broker's echo, as `bench floor` measures both |
//! | `p99_to_echo` `ceiling_to_echo` `commit_p50_to_floor` `decisions_to_commits` | none | to a floor that was measured in turn; one that was disturbed tells nothing |

use super::{
    floor::ratios::disturbed,
    summary::{Latency, Summary},
};
use crate::telemetry::Span;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A bound on one figure of a result.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    text: String,
    metric: Metric,
    comparison: Comparison,
    /// In the metric's own unit: microseconds, percent, or a number.
    limit: f64,
}

/// A threshold, and what the result made of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Graded {
    /// As it was written.
    pub threshold: String,
    /// What was asked for: microseconds, percent, or a number.
    pub limit: f64,
    /// What it was, in the same unit; `None` when nothing was measured.
    pub value: Option<f64>,
    /// `us`, `%` or empty.
    pub unit: String,
    /// Whether it holds. What was not measured does not.
    pub passed: bool,
}

/// Why a threshold cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the threshold {text:?} {why}")]
pub struct ThresholdError {
    text: String,
    why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Metric {
    Time(Series, Stat),
    Count(Count),
    Share(Count),
    Rate(Rate),
    /// What is told of a floor, by the name it has in a summary.
    Ratio(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Series {
    Response,
    Service,
    Span(Span),
}

/// A figure of a latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stat {
    /// The shortest.
    Min,
    /// The arithmetic mean.
    Mean,
    /// A percentile, by its position in [`Latency::PERCENTILES`].
    Percentile(usize),
    /// The longest.
    Max,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Count {
    Lost,
    Duplicated,
    Unexpected,
    Unsent,
    Retries,
    Errors,
    Late,
    LateApprovals,
    Declined,
    Approved,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rate {
    Achieved,
    Offered,
    Ceiling,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Below,
    AtMost,
    Above,
    AtLeast,
    Equal,
}

const COMPARISONS: [(&str, Comparison); 5] = [
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("==", Comparison::Equal),
    ("<", Comparison::Below),
    (">", Comparison::Above),
];

const COUNTS: [(&str, Count); 10] = [
    ("lost", Count::Lost),
    ("duplicated", Count::Duplicated),
    ("unexpected", Count::Unexpected),
    ("unsent", Count::Unsent),
    ("retries", Count::Retries),
    ("errors", Count::Errors),
    ("late", Count::Late),
    ("late_approvals", Count::LateApprovals),
    ("declined", Count::Declined),
    ("approved", Count::Approved),
];

const RATES: [(&str, Rate); 3] = [("achieved", Rate::Achieved), ("offered", Rate::Offered), ("ceiling", Rate::Ceiling)];

/// Ratios to floors, and the one that is a time.
const RATIOS: [&str; 4] = ["p99_to_echo", "ceiling_to_echo", "commit_p50_to_floor", "decisions_to_commits"];
const OVER_ECHO: (&str, &str) = ("p50_over_echo", "p50_over_echo_us");

impl Threshold {
    /// Reads one.
    ///
    /// # Errors
    /// [`ThresholdError`] says what is not understood: a metric nobody knows never passes silently.
    pub fn parse(text: &str) -> Result<Self, ThresholdError> {
        let wrong = |why: String| ThresholdError { text: text.to_owned(), why };
        let split = COMPARISONS.iter().find_map(|(sign, comparison)| Some((text.split_once(sign)?, *comparison)));
        let Some(((name, limit), comparison)) = split else {
            return Err(wrong("has none of < <= > >= ==, as in p99<25ms".to_owned()));
        };
        let (name, limit) = (name.trim(), limit.trim());
        let digits = limit.trim_end_matches(|letter: char| !letter.is_ascii_digit() && letter != '.');
        let unit = limit[digits.len()..].trim();
        let number: f64 = digits.trim().parse().map_err(|_| wrong(format!("has no number after the sign: {limit:?}")))?;
        let metric = Metric::named(name, unit == "%").ok_or_else(|| wrong(unknown(name)))?;
        let factor = match (metric, unit) {
            (metric, "us" | "µs") if metric.is_time() => 1.0,
            (metric, "ms") if metric.is_time() => 1e3,
            (metric, "s") if metric.is_time() => 1e6,
            (metric, _) if metric.is_time() => return Err(wrong("is about a time, so it needs a unit: us, ms or s".to_owned())),
            (Metric::Share(_), "%") | (Metric::Count(_) | Metric::Rate(_) | Metric::Ratio(_), "") => 1.0,
            _ => return Err(wrong(format!("has a unit that does not go with {name}: {unit:?}"))),
        };
        Ok(Self { text: text.to_owned(), metric, comparison, limit: number * factor })
    }

    /// Holds a result against it.
    #[must_use]
    pub fn grade(&self, summary: &Summary) -> Graded {
        let value = self.metric.of(summary);
        let passed = value.is_some_and(|value| match self.comparison {
            Comparison::Below => value < self.limit,
            Comparison::AtMost => value <= self.limit,
            Comparison::Above => value > self.limit,
            Comparison::AtLeast => value >= self.limit,
            Comparison::Equal => (value - self.limit).abs() < f64::EPSILON,
        });
        let unit = match self.metric {
            metric if metric.is_time() => "us",
            Metric::Share(_) => "%",
            _ => "",
        };
        Graded { threshold: self.text.clone(), limit: self.limit, value, unit: unit.to_owned(), passed }
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn unknown(name: &str) -> String {
    let counts = COUNTS.iter().map(|(name, _)| *name).chain(RATES.iter().map(|(name, _)| *name));
    let counts: Vec<&str> = counts.chain([OVER_ECHO.0]).chain(RATIOS).collect();
    format!(
        "is about {name:?}, which is no metric; there are min, mean, p50, p75, p90, p95, p99, p99.9, p99.99, max, each also as in \
         service_time.p99 and commit.p99, and {}",
        counts.join(", ")
    )
}

impl Metric {
    fn named(name: &str, share: bool) -> Option<Self> {
        if let Some((_, count)) = COUNTS.iter().find(|(known, _)| *known == name) {
            let of_answers = matches!(count, Count::Errors | Count::Late | Count::Declined | Count::Approved);
            return match share {
                true if of_answers => Some(Self::Share(*count)),
                true => None,
                false => Some(Self::Count(*count)),
            };
        }
        if let Some((_, rate)) = RATES.iter().find(|(known, _)| *known == name) {
            return Some(Self::Rate(*rate));
        }
        if name == OVER_ECHO.0 {
            return Some(Self::Ratio(OVER_ECHO.1));
        }
        if let Some(ratio) = RATIOS.into_iter().find(|known| *known == name) {
            return Some(Self::Ratio(ratio));
        }
        let (series, stat) = match name.split_once('.').filter(|(series, _)| !series.starts_with('p') || *series == "publish") {
            None | Some(("response_time", _)) => (Series::Response, name.strip_prefix("response_time.").unwrap_or(name)),
            Some(("service_time", stat)) => (Series::Service, stat),
            Some((span, stat)) => (Series::Span(Span::ALL.into_iter().find(|known| known.name() == span)?), stat),
        };
        Some(Self::Time(series, Stat::named(stat)?))
    }

    /// Whether its unit is one of time.
    fn is_time(self) -> bool {
        matches!(self, Self::Time(..)) || self == Self::Ratio(OVER_ECHO.1)
    }

    fn of(self, summary: &Summary) -> Option<f64> {
        match self {
            Self::Time(series, stat) => {
                let latency = match series {
                    Series::Response => &summary.response_time,
                    Series::Service => &summary.service_time,
                    Series::Span(span) => &summary.stages.iter().find(|stage| stage.span == span.name())?.latency,
                };
                latency.stat(stat)
            }
            Self::Count(count) => Some(count.of(summary) as f64),
            Self::Share(count) => {
                // Decisions and reasons are those of the measured answers.
                let requests = &summary.requests;
                let whole = if count == Count::Errors { requests.answered } else { requests.measured };
                (whole > 0).then(|| count.of(summary) as f64 * 100.0 / whole as f64)
            }
            Self::Rate(Rate::Achieved) => Some(summary.rate.achieved_per_s),
            Self::Rate(Rate::Offered) => Some(summary.rate.offered_per_s),
            Self::Rate(Rate::Ceiling) => summary.ceiling.as_ref().map(|ceiling| ceiling.rate_per_s),
            Self::Ratio(name) => {
                let mut ratios = summary.floor.as_ref()?.ratios.iter();
                ratios.find(|ratio| ratio.name == name && !disturbed(ratio)).map(|ratio| ratio.value)
            }
        }
    }
}

impl Count {
    fn of(self, summary: &Summary) -> u64 {
        let requests = &summary.requests;
        let decided = |decision: &str| summary.decisions.get(decision).copied().unwrap_or(0);
        match self {
            Self::Lost => requests.lost,
            Self::Duplicated => requests.duplicated,
            Self::Unexpected => requests.unexpected,
            Self::Unsent => requests.unsent,
            Self::Retries => requests.retries,
            Self::Errors => requests.errors,
            Self::LateApprovals => requests.late_approvals,
            Self::Late => summary.reasons.get("deadline_exceeded").copied().unwrap_or(0),
            Self::Declined => decided("declined"),
            Self::Approved => decided("approved") + decided("partially_approved"),
        }
    }
}

impl Stat {
    fn named(name: &str) -> Option<Self> {
        match name {
            "min" => Some(Self::Min),
            "mean" => Some(Self::Mean),
            "max" => Some(Self::Max),
            _ => Latency::PERCENTILES.iter().position(|(known, _)| *known == name).map(Self::Percentile),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::bench::floor::{FloorReport, Ratio, ratios::tests::floor};

    #[test]
    fn what_cannot_be_read_is_an_error_and_names_the_metrics() {
        for (text, part) in [
            ("p99", "has none of"),
            ("p98<1ms", "no metric; there are min, mean, p50"),
            ("commit.p98<1ms", "no metric"),
            ("comit.p99<1ms", "no metric"),
            ("p99.8<1ms", "no metric"),
            ("p99<25", "needs a unit"),
            ("p99<25kg", "needs a unit"),
            ("p99<ms", "no number"),
            ("lost==0%", "no metric"),
            ("lost==0ms", "does not go with lost"),
            ("achieved>99%", "does not go with achieved"),
            ("p50_over_echo<1", "needs a unit"),
            ("p99_to_echo<2ms", "does not go with p99_to_echo"),
            ("p98_to_echo<2", "p50_over_echo, p99_to_echo"),
            ("<5ms", "no metric"),
        ] {
            let error = Threshold::parse(text).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains(text), "{text}: {error}");
        }
    }

    #[test]
    fn each_metric_is_held_against_its_own_figure() {
        let summary = crate::bench::summary::tests::example();
        for (text, value, passed) in [
            ("p99<25ms", 9_000.0, true),
            ("p99 < 9ms", 9_000.0, false),
            ("p99<=9ms", 9_000.0, true),
            ("p99.9>=0.012s", 12_000.0, true),
            ("max<1s", 20_000.0, true),
            ("mean>3us", 1_500.0, true),
            ("response_time.p50<1ms", 1_000.0, false),
            ("service_time.p99<9ms", 8_000.0, true),
            ("commit.p99<1ms", 700.0, true),
            ("commit.p99.9<1ms", 800.0, true),
            ("publish.p50<10us", 50.0, false),
            ("lost==0", 1.0, false),
            ("retries<=3", 3.0, true),
            ("errors<1%", 2.0, false),
            ("errors==4", 4.0, true),
            ("late<1%", 1.0, false),
            ("late_approvals==0", 5.0, false),
            ("approved>50%", 80.0, true),
            ("achieved>=99.5", 99.5, true),
        ] {
            let graded = Threshold::parse(text).unwrap().grade(&summary);
            assert_eq!((graded.value, graded.passed), (Some(value), passed), "{text}");
        }
        // Half of the answers were in the warm-up: what was decided is told of the other half, errors of all.
        let mut warm = summary.clone();
        warm.requests.answered = 400;
        for (text, value) in [("approved>0%", 80.0), ("declined>0%", 20.0), ("late>0%", 1.0), ("errors>0%", 1.0)] {
            assert_eq!(Threshold::parse(text).unwrap().grade(&warm).value, Some(value), "{text}");
        }
        let ratio = |name: &str, value| Ratio { name: name.to_owned(), value, lowest: value, highest: value, meaning: String::new() };
        let mut floored = summary.clone();
        floored.floor =
            Some(FloorReport { ratios: vec![ratio("p50_over_echo_us", 980.0), ratio("p99_to_echo", 1.49)], ..floor(600, 5_000) });
        for (text, value, passed) in
            [("p50_over_echo<1ms", 980.0, true), ("p99_to_echo<1.5", 1.49, true), ("p99_to_echo<=1.2", 1.49, false)]
        {
            let graded = Threshold::parse(text).unwrap().grade(&floored);
            assert_eq!((graded.value, graded.passed), (Some(value), passed), "{text}");
        }
        floored.floor = Some(FloorReport { ratios: vec![ratio("p99_to_echo", 0.5), ratio("ceiling_to_echo", 1.2)], ..floor(600, 5_000) });
        for (text, value, passed) in [("p99_to_echo<1.5", None, false), ("ceiling_to_echo>1", Some(1.2), true)] {
            let graded = Threshold::parse(text).unwrap().grade(&floored);
            assert_eq!((graded.value, graded.passed), (value, passed), "{text}: a disturbed floor tells nothing");
        }
        for text in ["user.p99<1ms", "p99_to_echo<9", "ceiling_to_echo>0"] {
            let nothing = Threshold::parse(text).unwrap().grade(&summary);
            assert_eq!((nothing.value, nothing.passed), (None, false), "{text}: what was not measured does not pass");
        }
    }
}
