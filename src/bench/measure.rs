//! From what was written down to figures.

use super::{
    pacer::Pace,
    record::{Record, Seen, histogram},
    scenario::{Arrival, Scenario},
    summary::{Ceiling, Heatmap, Latency, Rate, Requests, Second, rounded},
};
use crate::domain::reason::ReasonClass;
use hdrhistogram::{AdditionError, Histogram};
use std::collections::BTreeMap;

/// Buckets of the heatmap: this many for each doubling of the time.
const HEAT_STEPS: f64 = 2.0;
/// From here to the minute that histograms end at.
const HEAT_FIRST_US: f64 = 62.5;
/// Seconds on end that a ceiling has to be held.
const CEILING_SECONDS: usize = 3;

/// Everything that follows from the sendings.
#[derive(Clone, Debug)]
pub struct Measured {
    /// How fast.
    pub rate: Rate,
    /// What became of every request.
    pub requests: Requests,
    /// Answers, by decision.
    pub decisions: BTreeMap<String, u64>,
    /// Declines, by reason.
    pub reasons: BTreeMap<String, u64>,
    /// From the intended moment of sending.
    pub response: Histogram<u64>,
    /// From the actual sending.
    pub service: Histogram<u64>,
    /// How late requests were sent.
    pub lag: Histogram<u64>,
    /// Response times of the requests due in each second, the warm-up included.
    pub by_second: Vec<Histogram<u64>>,
    /// Each second.
    pub seconds: Vec<Second>,
    /// Answers by second and latency.
    pub heatmap: Heatmap,
    /// The highest rate that was kept up with, where the rate grew.
    pub ceiling: Option<Ceiling>,
}

/// Works it out.
#[must_use]
pub fn measure(scenario: &Scenario, record: &Record, pace: &Pace) -> Measured {
    let mut sums = Sums::new();
    for seen in record.seen() {
        sums.add(&seen);
    }
    sums.finish_seconds();
    let bounds = heat_bounds();
    let rows = sums.by_second.iter().map(|times| heat_row(times, &bounds)).collect();
    let totals = record.totals();
    let requests = Requests {
        sent: totals.sent,
        answered: totals.answered,
        unsent: if scenario.arrival == Arrival::Closed { 0 } else { pace.unsent },
        lost: sums.lost,
        duplicated: totals.duplicated,
        unexpected: totals.unexpected,
        retries: totals.retries,
        errors: sums.errors,
        replays_identical: totals.identical,
        replays_differing: totals.differing,
        measured: sums.response.len(),
        examples: record.examples(),
    };
    Measured {
        rate: rate(scenario, pace, &sums),
        requests,
        ceiling: scenario.ramp_to_per_s.and_then(|_| ceiling(scenario, &sums.seconds)),
        decisions: sums.decisions,
        reasons: sums.reasons,
        response: sums.response,
        service: sums.service,
        lag: sums.lag,
        by_second: sums.by_second,
        seconds: sums.seconds,
        heatmap: Heatmap { bounds_us: bounds, rows },
    }
}

impl Measured {
    /// Adds a later stretch of the same load: distributions and counts are joined, rates are the mean, seconds follow each other.
    ///
    /// # Errors
    /// Histograms with other bounds, of which there are none here.
    pub fn join(&mut self, later: &Self) -> Result<(), AdditionError> {
        for (sum, more) in [(&mut self.response, &later.response), (&mut self.service, &later.service), (&mut self.lag, &later.lag)] {
            sum.add(more)?;
        }
        let (sum, more) = (&mut self.rate, &later.rate);
        let whole = sum.measured_s + more.measured_s;
        let mean = |one: f64, other: f64| rounded((one * sum.measured_s + other * more.measured_s) / whole, 1);
        let (offered, achieved) = (mean(sum.offered_per_s, more.offered_per_s), mean(sum.achieved_per_s, more.achieved_per_s));
        self.rate = Rate {
            offered_per_s: offered,
            achieved_per_s: achieved,
            measured_s: whole,
            saturated: sum.saturated || more.saturated,
            lag: Latency::figures(&self.lag),
            held_back: sum.held_back + more.held_back,
        };
        self.requests.join(&later.requests);
        for (sum, more) in [(&mut self.decisions, &later.decisions), (&mut self.reasons, &later.reasons)] {
            for (name, count) in more {
                *sum.entry(name.clone()).or_default() += count;
            }
        }
        let before = self.seconds.len() as u64;
        self.seconds.extend(later.seconds.iter().map(|second| Second { second: before + second.second, ..second.clone() }));
        self.by_second.extend(later.by_second.iter().cloned());
        self.heatmap.rows.extend(later.heatmap.rows.iter().cloned());
        // Each stretch has found its own.
        if let (Some(sum), Some(more)) = (&mut self.ceiling, &later.ceiling) {
            sum.rate_per_s = rounded(f64::midpoint(sum.rate_per_s, more.rate_per_s), 1);
            sum.reached |= more.reached;
        }
        Ok(())
    }
}

struct Sums {
    response: Histogram<u64>,
    service: Histogram<u64>,
    lag: Histogram<u64>,
    by_second: Vec<Histogram<u64>>,
    seconds: Vec<Second>,
    decisions: BTreeMap<String, u64>,
    reasons: BTreeMap<String, u64>,
    offered: u64,
    lost: u64,
    errors: u64,
    /// First moment due and last answer among what is measured, microseconds from the start.
    from_us: u64,
    to_us: u64,
}

impl Sums {
    fn new() -> Self {
        Self {
            response: histogram(),
            service: histogram(),
            lag: histogram(),
            by_second: Vec::new(),
            seconds: Vec::new(),
            decisions: BTreeMap::new(),
            reasons: BTreeMap::new(),
            offered: 0,
            lost: 0,
            errors: 0,
            from_us: u64::MAX,
            to_us: 0,
        }
    }

    fn add(&mut self, seen: &Seen) {
        let Some(lag_us) = seen.lag_us else { return self.unsent(seen) };
        let due_us = u64::try_from(seen.due.as_micros()).unwrap_or(u64::MAX);
        let system = seen.outcome.and_then(super::record::Outcome::reason).is_some_and(|reason| reason.class() == ReasonClass::System);
        let second = self.second(seen);
        second.offered += 1;
        second.errors += u64::from(system);
        second.lost += u64::from(seen.response_us.is_none());
        self.lost += u64::from(seen.response_us.is_none());
        self.errors += u64::from(system);
        if seen.measured {
            self.offered += 1;
            self.from_us = self.from_us.min(due_us);
            self.lag.saturating_record(u64::from(lag_us));
        }
        let Some(response_us) = seen.response_us.map(u64::from) else { return };
        let second = usize::try_from(due_us / 1_000_000).unwrap_or(0);
        self.by_second[second].saturating_record(response_us);
        let answered = usize::try_from((due_us + response_us) / 1_000_000).unwrap_or(0);
        self.grow(answered);
        self.seconds[answered].answered += 1;
        if seen.measured {
            self.response.saturating_record(response_us);
            self.service.saturating_record(response_us.saturating_sub(u64::from(lag_us)));
            self.to_us = self.to_us.max(due_us + response_us);
            if let Some(outcome) = seen.outcome {
                *self.decisions.entry(outcome.decision().name().to_owned()).or_default() += 1;
                if let Some(reason) = outcome.reason() {
                    *self.reasons.entry(reason.name().to_owned()).or_default() += 1;
                }
            }
        }
    }

    /// Due, and never sent. In a closed loop there is always more than can be sent.
    fn unsent(&mut self, seen: &Seen) {
        if !seen.due.is_zero() {
            self.second(seen).offered += 1;
            self.offered += u64::from(seen.measured);
        }
    }

    fn second(&mut self, seen: &Seen) -> &mut Second {
        let at = usize::try_from(seen.due.as_secs()).unwrap_or(0);
        self.grow(at);
        let second = &mut self.seconds[at];
        second.measured |= seen.measured;
        second
    }

    fn grow(&mut self, to: usize) {
        while self.seconds.len() <= to {
            self.seconds.push(Second { second: self.seconds.len() as u64, ..Second::default() });
            self.by_second.push(histogram());
        }
    }

    fn finish_seconds(&mut self) {
        for (second, times) in self.seconds.iter_mut().zip(&self.by_second) {
            second.p50_us = times.value_at_quantile(0.5);
            second.p99_us = times.value_at_quantile(0.99);
            second.max_us = times.max();
        }
    }
}

fn rate(scenario: &Scenario, pace: &Pace, sums: &Sums) -> Rate {
    let measured_s = scenario.duration.as_secs_f64();
    let lasted_s = (sums.to_us.saturating_sub(sums.from_us) as f64 / 1e6).max(if sums.to_us > 0 { 1e-6 } else { measured_s });
    let offered = sums.offered as f64 / measured_s;
    // The last answers come after the last request was due: at a low rate that is no failure to keep up.
    let achieved = sums.response.len() as f64 / lasted_s.max(measured_s);
    Rate {
        offered_per_s: rounded(offered, 1),
        achieved_per_s: rounded(achieved, 1),
        measured_s,
        saturated: achieved < offered * 0.98,
        lag: Latency::figures(&sums.lag),
        held_back: pace.held_back,
    }
}

/// The best rate that was answered over some seconds on end while the 99th percentile stayed below the bound and nothing was lost.
/// A ramp that has left the ceiling behind does not come back to it: what is good after the first bad second does not count.
fn ceiling(scenario: &Scenario, seconds: &[Second]) -> Option<Ceiling> {
    let bound = u64::try_from(scenario.ceiling_p99.as_micros()).unwrap_or(u64::MAX);
    let measured: Vec<&Second> = seconds.iter().filter(|second| second.measured).collect();
    let good = |window: &&[&Second]| {
        let bad = window.iter().filter(|second| second.p99_us >= bound || second.lost > 0 || second.errors > 0).count();
        // One slow second, a checkpoint for instance, is not the ceiling.
        bad * 2 < window.len()
    };
    let kept = measured.windows(CEILING_SECONDS).take_while(good).last();
    let best = kept.map(|window| window.iter().map(|second| second.answered).sum::<u64>() as f64 / window.len() as f64);
    let reached = !measured.windows(CEILING_SECONDS).all(|window| good(&window));
    (measured.len() >= CEILING_SECONDS).then(|| Ceiling { rate_per_s: rounded(best.unwrap_or(0.0), 1), p99_bound_us: bound, reached })
}

fn heat_bounds() -> Vec<u64> {
    let step = 2_f64.powf(1.0 / HEAT_STEPS);
    let bounds = std::iter::successors(Some(HEAT_FIRST_US), |bound| Some(bound * step)).take_while(|bound| *bound < 60e6);
    bounds.map(|bound| bound.round() as u64).collect()
}

fn heat_row(times: &Histogram<u64>, bounds: &[u64]) -> Vec<u64> {
    let mut row = vec![0; bounds.len() + 1];
    for step in times.iter_recorded() {
        row[bounds.partition_point(|bound| *bound < step.value_iterated_to())] += step.count_since_last_iteration();
    }
    row
}

#[cfg(test)]
#[path = "measure_tests.rs"]
mod tests;
