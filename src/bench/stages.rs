//! The daemon's own spans: as its answers tell them, and for those that come after an answer was sealed, as its report does.

use super::{
    Request,
    summary::{Latency, Stage as Line},
};
use crate::{
    domain::time::Timestamp,
    telemetry::{
        Span, SpanReport, Spans,
        promise::{Promise, Verdict},
        report::Report,
    },
};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request as Question, StatusCode, header::AUTHORIZATION};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::timeout;

/// How long the daemon may take to report.
const REPORT_MAX: Duration = Duration::from_secs(10);
/// Where spans come from that no answer tells.
const REPORT: &str = "report";
/// How long an interval of a report is. One that the warm-up ends in belongs to neither.
const INTERVAL: Duration = Duration::from_secs(1);
/// Largest report that is read, bytes.
const REPORT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The spans, graded.
#[derive(Clone, Debug)]
pub struct Merged {
    /// In the order of a decision's life.
    pub stages: Vec<Line>,
    /// The verdict on all of them.
    pub verdict: Verdict,
    /// The store, as the daemon names it.
    pub store: Option<String>,
    /// What survives a power cut, as the daemon states it.
    pub durability: Option<String>,
}

/// Asks the daemon for its report about the time since the warm-up. `None` when it does not tell: the answers have most of it.
/// A daemon of the run's own keeps intervals of a second, and the first that is whole is the first that is asked for.
pub async fn ask(base: Option<&str>, request: &Request, began: Timestamp, warm_up: Duration) -> Option<Report> {
    let from = jiff::Timestamp::from_microsecond(asked_from(began, warm_up, request.scenario.duration)).ok()?;
    let mut question = Question::get(format!("{}/report?from={from}", base?));
    let token = request.running.as_ref().map_or(request.token.as_deref(), |running| running.token.as_deref());
    if let Some(token) = token {
        question = question.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let asking = async {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let (head, body) = client.request(question.body(Empty::new()).ok()?).await.ok()?.into_parts();
        let body = Limited::new(body, REPORT_BYTES_MAX).collect().await.ok()?.to_bytes();
        (head.status == StatusCode::OK).then(|| serde_json::from_slice(&body).ok())?
    };
    timeout(REPORT_MAX, asking).await.ok().flatten()
}

/// From when on, microseconds: without the warm-up, and without the interval that it ends in where enough is left.
fn asked_from(began: Timestamp, warm_up: Duration, duration: Duration) -> i64 {
    let spare = if warm_up.is_zero() { Duration::ZERO } else { INTERVAL.min(duration / 2) };
    began.0.saturating_add(i64::try_from((warm_up + spare).as_micros()).unwrap_or(i64::MAX))
}

/// Puts both together. What the answers told is about exactly the measured requests, so it comes first.
#[must_use]
pub fn merge(answers: &[(Span, Histogram<u64>)], told: Option<&Report>, promise: &Promise) -> Merged {
    let mut stages = Vec::new();
    let mut graded = Vec::new();
    for (span, times) in answers {
        let line = if times.is_empty() { reported(*span, told) } else { Some(("answers", Latency::figures(times))) };
        let Some((source, latency)) = line else { continue };
        let stretch = told.filter(|_| source == REPORT).map(|told| (told.since.clone(), told.until.clone()));
        let budget = promise.budget(*span);
        let verdict = budget.map(|budget| budget.grade(&graded_as(*span, &latency)));
        graded.extend(verdict.map(|verdict| (*span, verdict)));
        stages.push(Line { span: span.name().to_owned(), source: source.to_owned(), stretch, latency, budget, verdict });
    }
    let (store, durability) = (told.map(|told| told.store.clone()), told.map(|told| told.durability.clone()));
    Merged { stages, verdict: Verdict::overall(graded.into_iter()), store, durability }
}

/// Gather and decision of a request that told all of their spans. A span is told in whole microseconds, rounded down; here each counts
/// as the next one, so that the sum is never too small.
#[must_use]
pub fn gathered(spans: &Spans) -> Option<u64> {
    let parts = [Span::User, Span::Card, Span::Limits, Span::Decision].map(|span| spans.get(span));
    parts.into_iter().try_fold(0, |sum, us| Some(sum + u64::from(us?) + 1))
}

fn reported(span: Span, told: Option<&Report>) -> Option<(&'static str, Latency)> {
    let line = told?.span(span)?;
    let percentiles = [("p50", line.p50_us), ("p95", line.p95_us), ("p99", line.p99_us), ("p99.9", line.p999_us)];
    let latency = Latency {
        count: line.count,
        min_us: line.min_us,
        mean_us: line.mean_us,
        max_us: line.max_us,
        percentiles_us: percentiles.map(|(name, us)| (name.to_owned(), us)).into_iter().collect::<BTreeMap<_, _>>(),
        ..Latency::default()
    };
    Some((REPORT, latency))
}

fn graded_as(span: Span, latency: &Latency) -> SpanReport {
    SpanReport {
        span,
        count: latency.count,
        mean_us: latency.mean_us,
        min_us: latency.min_us,
        max_us: latency.max_us,
        p50_us: latency.percentile("p50"),
        p95_us: latency.percentile("p95"),
        p99_us: latency.percentile("p99"),
        p999_us: latency.percentile("p99.9"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warm_up_is_left_out_with_the_interval_it_ends_in() {
        let from = |warm_up_ms, duration_ms| {
            asked_from(Timestamp(5_000_000), Duration::from_millis(warm_up_ms), Duration::from_millis(duration_ms))
        };
        assert_eq!([from(10_000, 60_000), from(1_000, 1_000), from(0, 20_000)], [16_000_000, 6_500_000, 5_000_000]);
    }
}
