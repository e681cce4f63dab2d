//! What latency a profile promises.

use crate::telemetry::Span;

/// How long one span of a decision may take, in microseconds. `p50_us <= p95_us <= p99_us`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// For half of all decisions.
    pub p50_us: u64,
    /// For 95 % of them.
    pub p95_us: u64,
    /// For 99 % of them.
    pub p99_us: u64,
}

/// The promise section of the configuration, resolved: a budget for each span that a profile speaks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
