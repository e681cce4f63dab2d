//! The daemon's own spans: as its answers tell them, and for those that come after an answer was sealed, as its report does.

use super::{
    Request,
    summary::{Latency, Stage as Line},
};
use crate::{
    domain::time::Timestamp,
    telemetry::{
        Span, SpanReport,
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
/// Largest report that is read, bytes.
const REPORT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The spans, graded.
#[derive(Clone, Debug)]
pub struct Merged {
    /// In the order of a decision's life.
    pub stages: Vec<Line>,
    /// The verdict on all of them.
    pub verdict: Verdict,
}

/// Asks the daemon for its report about the time since the warm-up. `None` when it does not tell: the answers have most of it.
pub async fn ask(base: Option<&str>, request: &Request, began: Timestamp, warm_up: Duration) -> Option<Report> {
    let from = began.0.saturating_add(i64::try_from(warm_up.as_micros()).ok()?);
    let from = jiff::Timestamp::from_microsecond(from).ok()?.strftime("%Y-%m-%dT%H:%M:%SZ");
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

/// Puts both together. What the answers told is about exactly the measured requests, so it comes first.
#[must_use]
pub fn merge(answers: &[(Span, Histogram<u64>)], told: Option<&Report>, promise: &Promise) -> Merged {
    let mut stages = Vec::new();
    let mut graded = Vec::new();
    for (span, times) in answers {
        let line = if times.is_empty() { reported(*span, told) } else { Some(("answers", Latency::figures(times))) };
        let Some((source, latency)) = line else { continue };
        let budget = promise.budget(*span);
        let verdict = budget.map(|budget| budget.grade(&graded_as(*span, &latency)));
        graded.extend(verdict.map(|verdict| (*span, verdict)));
        stages.push(Line { span: span.name().to_owned(), source: source.to_owned(), latency, budget, verdict });
    }
    Merged { stages, verdict: Verdict::overall(graded.into_iter()) }
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
    Some(("report", latency))
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
