//! Latency histograms: microseconds, three significant digits, one set per writer.

use super::{Span, Spans};
use hdrhistogram::Histogram;
use parking_lot::{Mutex, MutexGuard};
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
    pub(super) fn new() -> Self {
        let empty = |_| Histogram::new_with_bounds(BOUNDS_US.0, BOUNDS_US.1, SIGNIFICANT_DIGITS).expect("the bounds are sound");
        Self { histograms: Span::ALL.map(empty), sums_us: [0; Span::ALL.len()] }
    }

    fn record(&mut self, span: Span, us: u64) {
        self.histograms[span as usize].saturating_record(us);
        let sum = &mut self.sums_us[span as usize];
        *sum = sum.saturating_add(us);
    }

    /// Adds what `other` has.
    pub(super) fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.histograms.iter_mut().zip(&other.histograms).filter(|(_, theirs)| !theirs.is_empty()) {
            let added = mine.add(theirs);
            debug_assert!(added.is_ok(), "both sets have the same bounds");
        }
        for (mine, theirs) in self.sums_us.iter_mut().zip(&other.sums_us) {
            *mine = mine.saturating_add(*theirs);
        }
    }

    fn reset(&mut self) {
        self.histograms.iter_mut().filter(|histogram| !histogram.is_empty()).for_each(Histogram::reset);
        self.sums_us = Default::default();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.histograms.iter().all(Histogram::is_empty)
    }

    /// The histogram of a span, microseconds.
    pub(super) fn histogram(&self, span: Span) -> &Histogram<u64> {
        &self.histograms[span as usize]
    }

    /// Adds to one span what was measured elsewhere. Nothing is added that this one has no place for.
    pub(super) fn add_span(&mut self, span: Span, histogram: &Histogram<u64>, sum_us: u64) {
        if self.histograms[span as usize].add(histogram).is_ok() {
            let sum = &mut self.sums_us[span as usize];
            *sum = sum.saturating_add(sum_us);
        }
    }

    /// All measurements of a span together, microseconds.
    pub(super) fn sum_us(&self, span: Span) -> u64 {
        self.sums_us[span as usize]
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

    pub(super) fn report(&self, span: Span) -> SpanReport {
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
    /// What came since the last interval ended.
    interval: Set,
    /// Empty; swapped for a writer's full one.
    spare: Box<Set>,
}

impl Default for Recorders {
    fn default() -> Self {
        let read = Read { cumulative: Set::new(), interval: Set::new(), spare: Box::new(Set::new()) };
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
        look(&self.collect().cumulative)
    }

    /// As [`read`](Self::read), what was recorded since the last interval ended.
    pub(super) fn read_interval<T>(&self, look: impl FnOnce(&Set) -> T) -> T {
        look(&self.collect().interval)
    }

    /// Ends an interval and gives what was recorded in it.
    pub(super) fn take_interval(&self) -> Set {
        mem::replace(&mut self.collect().interval, Set::new())
    }

    fn collect(&self) -> MutexGuard<'_, Read> {
        let mut guard = self.read.lock();
        let Read { cumulative, interval, spare } = &mut *guard;
        for recorder in self.take_stock() {
            mem::swap(&mut *recorder.set.lock(), spare);
            cumulative.add(spare);
            interval.add(spare);
            spare.reset();
        }
        guard
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
