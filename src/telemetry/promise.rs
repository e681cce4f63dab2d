//! What latency a profile promises, and whether it was kept.

use super::{
    Span, SpanReport, Telemetry,
    metrics::{Labels, Table},
};
use serde::{Deserialize, Serialize};

/// How long one span of a decision may take, in microseconds. `p50_us <= p95_us <= p99_us`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// For half of all decisions.
    pub p50_us: u64,
    /// For 95 % of them.
    pub p95_us: u64,
    /// For 99 % of them.
    pub p99_us: u64,
}

impl Budget {
    /// Whether what was measured keeps it. Less than [`ENOUGH`] measurements say nothing about a 99th percentile.
    #[must_use]
    pub fn grade(&self, measured: &SpanReport) -> Verdict {
        if measured.count < ENOUGH {
            return Verdict::TooFew;
        }
        let kept = measured.p50_us <= self.p50_us && measured.p95_us <= self.p95_us && measured.p99_us <= self.p99_us;
        if kept { Verdict::Kept } else { Verdict::Broken }
    }
}

/// Measurements below which a percentile is not graded.
pub const ENOUGH: u64 = 100;

/// Whether a promise was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every percentile is within its budget.
    Kept,
    /// One is not.
    Broken,
    /// There are fewer than [`ENOUGH`] measurements.
    TooFew,
}

impl Verdict {
    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Broken => "broken",
            Self::TooFew => "too_few",
        }
    }

    /// The verdict on all spans together: broken when one is, and kept only when [`Span::Total`] is.
    #[must_use]
    pub fn overall(graded: impl Iterator<Item = (Span, Self)>) -> Self {
        let mut overall = Self::TooFew;
        for (span, verdict) in graded {
            match verdict {
                Self::Broken => return Self::Broken,
                Self::Kept if span == Span::Total => overall = Self::Kept,
                Self::Kept | Self::TooFew => {}
            }
        }
        overall
    }
}

/// The promise section of the configuration, resolved: a budget for each span that a profile speaks about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promise {
    /// Stage 1.
    pub user: Budget,
    /// Stage 2.
    pub card: Budget,
    /// Stage 3.
    pub limits: Budget,
    /// Stage 4.
    pub decision: Budget,
    /// The durable commit.
    pub commit: Budget,
    /// From commit to response written.
    pub publish: Budget,
    /// From received to response written.
    pub total: Budget,
}

impl Promise {
    /// The budget of a span; `None` for spans that no profile speaks about.
    #[must_use]
    pub fn budget(&self, span: Span) -> Option<Budget> {
        match span {
            Span::User => Some(self.user),
            Span::Card => Some(self.card),
            Span::Limits => Some(self.limits),
            Span::Decision => Some(self.decision),
            Span::Commit => Some(self.commit),
            Span::Publish => Some(self.publish),
            Span::Total => Some(self.total),
            Span::Queue | Span::Decode | Span::Lane | Span::Confirm => None,
        }
    }
}

/// The quantiles that are promised.
const QUANTILES: [&str; 3] = ["0.5", "0.95", "0.99"];

/// What a dashboard draws beside what was measured: a row for each span and quantile.
pub(super) fn table() -> Table {
    let row = |span: Span, quantile: &str| -> Labels { vec![("stage", span.name().to_owned()), ("quantile", quantile.to_owned())] };
    let rows = Span::ALL.iter().flat_map(|span| QUANTILES.map(|quantile| row(*span, quantile)));
    Table::seconds_gauge("promised_latency_seconds", "What the profile promises: this share of decisions takes no longer", rows)
}

impl Telemetry {
    /// Shows what is promised beside what is measured.
    pub fn promises(&self, promise: &Promise) {
        for span in Span::ALL {
            let Some(Budget { p50_us, p95_us, p99_us }) = promise.budget(span) else { continue };
            for (place, us) in [p50_us, p95_us, p99_us].into_iter().enumerate() {
                self.metrics().promised.set(span as usize * QUANTILES.len() + place, us);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(count: u64, p50_us: u64, p95_us: u64, p99_us: u64) -> SpanReport {
        SpanReport { span: Span::Total, count, mean_us: 0.0, min_us: 0, max_us: 0, p50_us, p95_us, p99_us, p999_us: u64::MAX }
    }

    #[test]
    fn a_promise_is_kept_when_every_percentile_is() {
        let budget = Budget { p50_us: 10, p95_us: 20, p99_us: 30 };
        for (count, p50, p95, p99, expected) in [
            (100, 10, 20, 30, Verdict::Kept),
            (99, 10, 20, 30, Verdict::TooFew),
            (99, 99, 99, 99, Verdict::TooFew),
            (0, 0, 0, 0, Verdict::TooFew),
            (100, 11, 20, 30, Verdict::Broken),
            (100, 10, 21, 30, Verdict::Broken),
            (100, 10, 20, 31, Verdict::Broken),
        ] {
            assert_eq!(budget.grade(&measured(count, p50, p95, p99)), expected, "{count} of {p50}/{p95}/{p99}");
        }
    }

    #[test]
    fn one_broken_span_breaks_the_whole_and_the_total_decides_the_rest() {
        use Verdict::{Broken, Kept, TooFew};
        for (graded, expected) in [
            (vec![(Span::User, Kept), (Span::Total, Kept)], Kept),
            (vec![(Span::User, TooFew), (Span::Total, Kept)], Kept),
            (vec![(Span::User, Broken), (Span::Total, Kept)], Broken),
            (vec![(Span::User, Broken), (Span::Total, TooFew)], Broken),
            (vec![(Span::User, Kept), (Span::Total, TooFew)], TooFew),
            (vec![], TooFew),
        ] {
            assert_eq!(Verdict::overall(graded.clone().into_iter()), expected, "{graded:?}");
        }
    }

    #[test]
    fn a_dashboard_can_draw_what_is_promised() {
        let telemetry = Telemetry::default();
        let total = Budget { p50_us: 20_000, p95_us: 50_000, p99_us: 100_000 };
        telemetry.promises(&Promise { total, ..Promise::default() });
        let text = telemetry.scrape(crate::telemetry::Exposition::Prometheus).unwrap_or_default();
        for line in [
            r#"jitauth_promised_latency_seconds{stage="total",quantile="0.5"} 0.02"#,
            r#"jitauth_promised_latency_seconds{stage="total",quantile="0.99"} 0.1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}");
        }
        assert!(!text.contains(r#"jitauth_promised_latency_seconds{stage="queue""#), "no profile speaks about it");
    }
}
