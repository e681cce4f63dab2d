//! What pictures of a report need, for those who ask for it: the whole curve, and each interval by itself.

use super::interval::Interval;
use crate::{
    domain::{reason::Reason, reason::ReasonClass},
    telemetry::{Span, clock::rfc3339, heat},
};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Points of the curve for each halving of the distance to 1.
const TICKS_PER_HALF: u32 = 5;

/// More about [`Span::Total`], which runs from receipt until the answer was written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Detail {
    /// The whole curve: quantile and microseconds, finer towards 1.
    pub curve: Vec<(f64, u64)>,
    /// Upper bounds of the buckets, microseconds; the last bucket has none.
    pub bounds_us: Vec<u64>,
    /// Each interval that is kept, in order; of everything since start, those in memory.
    pub intervals: Vec<Stretch>,
}

/// One interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stretch {
    /// Where it begins, RFC 3339.
    pub since: String,
    /// Where it ends.
    pub until: String,
    /// Decisions, replays not included.
    pub decisions: u64,
    /// Of these, declined for reasons of ours.
    pub failed: u64,
    /// Median, microseconds.
    pub p50_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// Longest.
    pub max_us: u64,
    /// Answers by bucket.
    pub buckets: Vec<u64>,
}

impl Detail {
    pub(super) fn new() -> Self {
        Self { bounds_us: heat::bounds_us(), ..Self::default() }
    }

    /// Adds an interval.
    pub(super) fn interval(&mut self, it: &Interval) {
        let times = it.set.histogram(Span::Total);
        let system = |name: &String| Reason::ALL.iter().any(|reason| reason.name() == name && reason.class() == ReasonClass::System);
        self.intervals.push(Stretch {
            since: rfc3339(it.start),
            until: rfc3339(it.end),
            decisions: it.counts.decisions(),
            failed: it.counts.reasons.iter().filter(|(name, _)| system(name)).map(|(_, count)| count).sum(),
            p50_us: times.value_at_quantile(0.5),
            p99_us: times.value_at_quantile(0.99),
            max_us: times.max(),
            buckets: heat::row(times, &self.bounds_us),
        });
    }

    /// Sets the curve of all of them together, and puts them in order: files and memory may have been read in another.
    pub(super) fn finish(mut self, whole: &Histogram<u64>) -> Self {
        let steps = whole.iter_quantiles(TICKS_PER_HALF);
        self.curve = steps.map(|step| ((step.quantile_iterated_to() * 1e7).round() / 1e7, step.value_iterated_to())).collect();
        self.intervals.sort_by(|one, other| one.since.cmp(&other.since));
        self
    }
}
