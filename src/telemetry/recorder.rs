//! Latency histograms: microseconds, three significant digits, one set per writer.

use super::{Span, Spans};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use std::{mem, sync::Arc, time::Duration};

/// What the histograms can tell apart, in microseconds: 1 µs to 60 s. Longer times count as 60 s.
const BOUNDS_US: (u64, u64) = (1, 60_000_000);
const SIGNIFICANT_DIGITS: u8 = 3;

/// A writer's own histograms. The lock is only ever contended by a reader that swaps the set.
///
/// Each span of a decision is recorded once, by whoever measured it last: a lane records up to the commit, the edge that sends the
/// answer records what comes after ([`Span::Publish`], [`Span::Confirm`], [`Span::Total`]).
#[derive(Debug)]
pub struct Recorder {
    set: Mutex<Box<Set>>,
}

/// The latencies of one span since start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpanReport {
    /// Which span.
    pub span: Span,
    /// How often it was measured.
    pub count: u64,
    /// Arithmetic mean, microseconds.
    pub mean_us: f64,
    /// Shortest, microseconds.
    pub min_us: u64,
    /// Longest, microseconds; exact to three digits, like the percentiles.
    pub max_us: u64,
    /// Median, microseconds.
    pub p50_us: u64,
    /// 95th percentile, microseconds.
    pub p95_us: u64,
    /// 99th percentile, microseconds.
    pub p99_us: u64,
    /// 99.9th percentile, microseconds.
    pub p999_us: u64,
}

impl Recorder {
    fn new() -> Self {
        Self { set: Mutex::new(Box::new(Set::new())) }
    }

    /// Records every measured span of `spans`.
    pub fn record(&self, spans: &Spans) {
        let mut set = self.set.lock();
        for (span, us) in spans.iter() {
            set.record(span, u64::from(us));
        }
    }

    /// Records one span.
    pub fn record_one(&self, span: Span, took: Duration) {
        self.set.lock().record(span, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }
}

/// One histogram per span, and the exact sums that a histogram cannot give back.
#[derive(Clone, Debug)]
pub(super) struct Set {
    histograms: [Histogram<u64>; Span::ALL.len()],
    sums_us: [u64; Span::ALL.len()],
}

impl Set {
    #[expect(clippy::expect_used, reason = "fails for bounds that make no sense only, and these are constants")]
    fn new() -> Self {
        let empty = |_| Histogram::new_with_bounds(BOUNDS_US.0, BOUNDS_US.1, SIGNIFICANT_DIGITS).expect("the bounds are sound");
        Self { histograms: Span::ALL.map(empty), sums_us: [0; Span::ALL.len()] }
    }

    fn record(&mut self, span: Span, us: u64) {
        self.histograms[span as usize].saturating_record(us);
        let sum = &mut self.sums_us[span as usize];
        *sum = sum.saturating_add(us);
    }

    /// Moves everything out of `other`.
    fn absorb(&mut self, other: &mut Self) {
        for (mine, theirs) in self.histograms.iter_mut().zip(&mut other.histograms) {
            if !theirs.is_empty() {
                let added = mine.add(&*theirs);
                debug_assert!(added.is_ok(), "both sets have the same bounds");
                theirs.reset();
            }
        }
        for (mine, theirs) in self.sums_us.iter_mut().zip(&mut other.sums_us) {
            *mine = mine.saturating_add(mem::take(theirs));
        }
    }

    /// Sum in seconds, count, and how many values lie between each bound and the one before it. The last bound is infinity.
    pub(super) fn buckets(&self, span: Span, bounds_s: &[f64]) -> (f64, u64, Vec<(f64, u64)>) {
        let histogram = &self.histograms[span as usize];
        let bounds_us: Vec<u64> = bounds_s.iter().map(|bound| (bound * 1e6).round() as u64).collect();
        let mut buckets: Vec<(f64, u64)> = bounds_s.iter().copied().chain([f64::INFINITY]).map(|bound| (bound, 0)).collect();
        for value in histogram.iter_recorded() {
            // A slot counts as its lowest value, so that 2 ms exactly is not past the bound of 2 ms.
            let lowest = histogram.lowest_equivalent(value.value_iterated_to());
            buckets[bounds_us.partition_point(|bound| *bound < lowest)].1 += value.count_since_last_iteration();
        }
        (self.sums_us[span as usize] as f64 / 1e6, histogram.len(), buckets)
    }

    fn report(&self, span: Span) -> SpanReport {
        let histogram = &self.histograms[span as usize];
        let count = histogram.len();
        SpanReport {
            span,
            count,
            mean_us: if count == 0 { 0.0 } else { self.sums_us[span as usize] as f64 / count as f64 },
            min_us: histogram.min(),
            max_us: histogram.max(),
            p50_us: histogram.value_at_quantile(0.5),
            p95_us: histogram.value_at_quantile(0.95),
            p99_us: histogram.value_at_quantile(0.99),
            p999_us: histogram.value_at_quantile(0.999),
        }
    }
}

/// All recorders of a daemon, and what they recorded since start.
#[derive(Debug)]
pub(super) struct Recorders {
    writers: Mutex<Vec<Arc<Recorder>>>,
    read: Mutex<Read>,
}

#[derive(Debug)]
struct Read {
    cumulative: Set,
    /// Empty; swapped for a writer's full one.
    spare: Box<Set>,
}

impl Default for Recorders {
    fn default() -> Self {
        let read = Read { cumulative: Set::new(), spare: Box::new(Set::new()) };
        Self { writers: Mutex::default(), read: Mutex::new(read) }
    }
}

impl Recorders {
    pub(super) fn add(&self) -> Arc<Recorder> {
        let recorder = Arc::new(Recorder::new());
        self.writers.lock().push(Arc::clone(&recorder));
        recorder
    }

    /// Collects from all writers, then shows `look` what was recorded since start. Takes about a millisecond.
    pub(super) fn read<T>(&self, look: impl FnOnce(&Set) -> T) -> T {
        let mut read = self.read.lock();
        let Read { cumulative, spare } = &mut *read;
        for recorder in self.take_stock() {
            mem::swap(&mut *recorder.set.lock(), spare);
            cumulative.absorb(spare);
        }
        look(cumulative)
    }

    pub(super) fn report(&self) -> Vec<SpanReport> {
        self.read(|set| Span::ALL.iter().map(|span| set.report(*span)).collect())
    }

    /// The writers to collect from. Those whose owner is gone are read one last time and forgotten.
    fn take_stock(&self) -> Vec<Arc<Recorder>> {
        let mut writers = self.writers.lock();
        let all = writers.clone();
        // One reference is in `writers`, one in `all`: a third one belongs to a living owner.
        writers.retain(|recorder| Arc::strong_count(recorder) > 2);
        all
    }
}

#[cfg(test)]
#[path = "recorder_tests.rs"]
mod tests;
