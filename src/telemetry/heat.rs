//! Latency in buckets, for pictures of it over time.

use hdrhistogram::Histogram;

/// Buckets for each doubling of the time.
const STEPS: f64 = 2.0;
/// Where they begin, microseconds.
const FIRST_US: f64 = 62.5;
/// Where they end: with what histograms can tell apart.
const LAST_US: f64 = 60e6;

/// Upper bounds of the buckets, microseconds. What is longer has a bucket of its own.
#[must_use]
pub fn bounds_us() -> Vec<u64> {
    let step = 2_f64.powf(1.0 / STEPS);
    let bounds = std::iter::successors(Some(FIRST_US), |bound| Some(bound * step)).take_while(|bound| *bound < LAST_US);
    bounds.map(|bound| bound.round() as u64).collect()
}

/// How many lie in each bucket.
#[must_use]
pub fn row(times: &Histogram<u64>, bounds_us: &[u64]) -> Vec<u64> {
    let mut row = vec![0; bounds_us.len() + 1];
    for step in times.iter_recorded() {
        row[bounds_us.partition_point(|bound| *bound < step.value_iterated_to())] += step.count_since_last_iteration();
    }
    row
}
