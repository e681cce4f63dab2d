//! A report, as it is served and read again.

use super::{About, Counts, detail::Detail, interval::Interval, question::Question};
use crate::{
    domain::time::Timestamp,
    telemetry::{Budget, Slow, Span, SpanReport, clock::rfc3339, promise::Verdict, recorder::Set},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The answer of `GET /report`. Times are microseconds, instants RFC 3339 in UTC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Of the daemon.
    pub version: String,
    /// The profile that it is graded against.
    pub profile: String,
    /// `postgresql` or `sqlite`.
    pub store: String,
    /// What survives a power cut, as the store states it.
    pub durability: String,
    /// Seconds that the daemon has been up.
    pub uptime_s: f64,
    /// Where what is reported begins: at a question, where the first interval of it does.
    pub since: String,
    /// Where it ends.
    pub until: String,
    /// Kept intervals that it is made of, the open one included; 0 for everything since start.
    pub intervals: usize,
    /// What was decided.
    pub decisions: Decisions,
    /// Declines, by reason.
    pub reasons: BTreeMap<String, u64>,
    /// Look-ups of facts, by tier.
    pub caches: BTreeMap<String, Caches>,
    /// Alerts raised, by level.
    pub alerts: BTreeMap<String, u64>,
    /// Every span that was measured, in the order of a decision's life.
    pub spans: Vec<SpanLine>,
    /// Whether the profile's promises were kept.
    pub verdict: Verdict,
    /// The span that took the largest share of the time.
    pub largest_share: Option<Share>,
    /// The slowest decisions, with where they spent their time.
    pub slowest: Vec<Slow>,
    /// What pictures need, where it was asked for: `?detail=true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Detail>,
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decisions {
    /// All of them, replays not included.
    pub count: u64,
    /// For all that was asked for.
    pub approved: u64,
    /// For a part of it.
    pub partially_approved: u64,
    /// Declined.
    pub declined: u64,
    /// Requests answered from the journal.
    pub replayed: u64,
    /// Approvals, partial ones included, of all decisions; absent without any.
    pub approval_rate: Option<f64>,
    /// Decisions a second.
    pub per_second: f64,
}

/// Look-ups of one tier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Caches {
    /// What it answered, by result.
    pub results: BTreeMap<String, u64>,
    /// Hits of all look-ups; absent without any.
    pub hit_rate: Option<f64>,
}

/// One span, graded where the profile promises something about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpanLine {
    /// Its name.
    pub span: String,
    /// How often it was measured.
    pub count: u64,
    /// Arithmetic mean.
    pub mean_us: f64,
    /// Shortest.
    pub min_us: u64,
    /// Longest.
    pub max_us: u64,
    /// Median.
    pub p50_us: u64,
    /// 95th percentile.
    pub p95_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// 99.9th percentile.
    pub p999_us: u64,
    /// What is promised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// Whether it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
}

/// A span and its share of the time from receipt until the answer was written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// The span.
    pub span: String,
    /// Of all that time together, 0 to 1.
    pub share: f64,
    /// Its 99th percentile.
    pub p99_us: u64,
}

/// What a report is about.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// When it was asked.
    pub now: Timestamp,
    /// When the daemon started.
    pub started: Timestamp,
    /// What was asked.
    pub question: Question,
    /// Intervals that the answer is made of.
    pub intervals: usize,
}

impl Report {
    pub(super) fn new(about: &About, asked: &Asked, whole: &Interval, detail: Option<Detail>) -> Self {
        let spans: Vec<_> = Span::ALL.into_iter().map(|span| whole.set.report(span)).filter(|report| report.count > 0).collect();
        let lines: Vec<_> = spans.iter().map(|report| SpanLine::new(report, about.promise.budget(report.span))).collect();
        let graded = spans.iter().zip(&lines).filter_map(|(report, line)| Some((report.span, line.verdict?)));
        let Counts { reasons, alerts, .. } = whole.counts.clone();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            profile: about.profile.clone(),
            store: about.store.to_owned(),
            durability: about.durability.clone(),
            uptime_s: rounded(seconds(asked.started, asked.now), 1),
            since: rfc3339(whole.start),
            until: rfc3339(whole.end),
            intervals: asked.intervals,
            decisions: Decisions::new(&whole.counts, seconds(whole.start, whole.end)),
            reasons,
            caches: whole.counts.caches.iter().map(|(tier, results)| (tier.clone(), Caches::new(results))).collect(),
            alerts,
            verdict: Verdict::overall(graded),
            spans: lines,
            largest_share: largest_share(&whole.set),
            slowest: whole.slowest.clone(),
            detail: detail.map(|detail| detail.finish(whole.set.histogram(Span::Total))),
        }
    }

    /// The line of a span, where it was measured.
    #[must_use]
    pub fn span(&self, span: Span) -> Option<&SpanLine> {
        self.spans.iter().find(|line| line.span == span.name())
    }
}

impl Decisions {
    fn new(counts: &Counts, seconds: f64) -> Self {
        let Counts { approved, partially_approved, replayed, .. } = *counts;
        let count = counts.decisions();
        let granted = approved.saturating_add(partially_approved);
        let per_second = if seconds > 0.0 { rounded(count as f64 / seconds, 1) } else { 0.0 };
        let declined = count.saturating_sub(granted);
        Self { count, approved, partially_approved, declined, replayed, approval_rate: rate(granted, count), per_second }
    }
}

impl Caches {
    fn new(results: &BTreeMap<String, u64>) -> Self {
        let asked = results.values().sum();
        Self { hit_rate: rate(results.get("hit").copied().unwrap_or(0), asked), results: results.clone() }
    }
}

impl SpanLine {
    fn new(report: &SpanReport, budget: Option<Budget>) -> Self {
        let SpanReport { span, count, mean_us, min_us, max_us, p50_us, p95_us, p99_us, p999_us } = *report;
        let (span, mean_us, verdict) = (span.name().to_owned(), rounded(mean_us, 1), budget.map(|budget| budget.grade(report)));
        Self { span, count, mean_us, min_us, max_us, p50_us, p95_us, p99_us, p999_us, budget, verdict }
    }
}

/// Of the parts of the time from receipt until the answer was written. Only the longest of those that are fetched side by side can
/// win, so that they need not be told apart.
fn largest_share(set: &Set) -> Option<Share> {
    let total = set.sum_us(Span::Total);
    let parts = Span::ALL.into_iter().filter(|span| !matches!(span, Span::Queue | Span::Confirm | Span::Total));
    let longest = parts.max_by_key(|span| set.sum_us(*span)).filter(|span| set.sum_us(*span) > 0)?;
    let share = rate(set.sum_us(longest).min(total), total)?;
    Some(Share { span: longest.name().to_owned(), share, p99_us: set.report(longest).p99_us })
}

fn rate(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| rounded(part as f64 / whole as f64, 4))
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.0.saturating_sub(from.0).max(0) as f64 / 1e6
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}
